"""A space with variants is several studies, one after the other."""

from __future__ import annotations

from dataclasses import replace

from clstudy.settings.space_file import load_space
from clstudy.study.run_options import RunOptions


def studies_of(options: RunOptions) -> list[RunOptions]:
    """The options of each study that a run consists of: one for every variant of the space, or the run itself.

    With ``out`` each has a folder of its own in it.

    Raises:
        UserError: there is no such space, or it is not valid.
    """
    variants = load_space(options.space, profile=options.profile).variants
    if variants is None or options.variant is not None:
        return [options]
    return [
        replace(options, variant=name, out=None if options.out is None else f"{options.out.rstrip('/')}/{name}")
        for name in variants
    ]
