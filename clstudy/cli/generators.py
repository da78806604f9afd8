"""``python -m clstudy.generators``: lists and checks generators; inspects, converts and exports checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click
import torch

from clstudy.assets.readers.errors import CheckpointError
from clstudy.cli.checks import EXIT_CODES, print_findings
from clstudy.cli.command_line import FOLDER, columns, command, flag, group, option, verbatim
from clstudy.cli.entry_point import invoke
from clstudy.errors import UserError
from clstudy.generators import load_generators
from clstudy.generators.base import GENERATORS
from clstudy.generators.checkpoints.checkpoint import Checkpoint
from clstudy.generators.checkpoints.reading import read_checkpoint
from clstudy.generators.checkpoints.safetensors_files import write_safetensors
from clstudy.generators.conformance import CHECKS
from clstudy.generators.eg3d import EG3DSettings
from clstudy.generators.low_rank import factor_count
from clstudy.generators.stylegan2 import StyleGAN2Settings
from clstudy.registry import findings_of
from clstudy.settings.named_profiles import named_profile
from clstudy.settings.profiles import PROFILES
from clstudy.storage.places import require_writable

_FORMATS = """\
Formats that are read (recognised by a file's content, not by its name):
  NVIDIA pickle       StyleGAN2 networks of the stylegan2-ada-pytorch and stylegan3 repositories, EG3D (.pkl)
  torch file          such a network saved whole by torch.save (.pt; MyStyle's personalised models)
  rosinality's        state dict with g_ema (.pt), as many projects distribute FFHQ
  clstudy's           .safetensors written by convert and export
TensorFlow pickles, StyleGAN3 and discriminators are recognised and refused.

Nothing in a file is executed: a pickle that names anything beyond the handful of objects that such a network needs is
refused, and the message lists the names.
"""

_EXPORT_HELP = """\
Writes the generator that a finished trial ended with, whole: the weights that it changed, and the rest from the
pretrained network. The file names its trial, and so the person, but no path. It can be inspected, and used
wherever a profile takes a generator from a file (--weights generator=FILE).
"""

_RANKS = (1, 4, 16)

_EXIT_CODES = "exit code: 0 done, 2 the file cannot be used"
_PATH = click.Path(path_type=Path)


def description_lines(checkpoint: Checkpoint) -> list[str]:
    """Facts about a checkpoint, one per line in two columns."""
    settings = checkpoint.settings
    own = _eg3d_rows(settings) if isinstance(settings, EG3DSettings) else []
    layers = settings.backbone if isinstance(settings, EG3DSettings) else settings
    rows = [
        ("format", checkpoint.format),
        ("kind", checkpoint.kind),
        ("resolution", f"{settings.img_resolution} px"),
        *own,
        *_stylegan2_rows(layers),
        ("parameters", f"{checkpoint.parameters / 1e6:.2f} million"),
        ("low-rank factors", _factor_words(settings)),
        ("sha256", checkpoint.sha256),
        *(("note", note) for note in checkpoint.notes),
    ]
    width = max(len(name) for name, _ in rows)
    return [f"{name:<{width}}  {value}" for name, value in rows]


def _factor_words(settings: StyleGAN2Settings | EG3DSettings) -> str:
    """How many numbers a person has if only low-rank factors are trained, for a few ranks."""
    with torch.device("meta"):
        network = settings.network()
    parts = network.tuned_parts()
    return ", ".join(f"rank {rank}: {factor_count(parts, rank):,} numbers" for rank in _RANKS)


def _eg3d_rows(settings: EG3DSettings) -> list[tuple[str, str]]:
    rendering, last = settings.rendering, settings.superresolution
    return [
        ("rendering", f"{rendering.resolution} px, {rendering.coarse} + {rendering.fine} samples a ray"),
        ("bounds", f"from {rendering.near:g} to {rendering.far:g}, in a box of {rendering.box:g}"),
        ("tri-planes", f"3 x {settings.features} features of {settings.backbone.img_resolution} px"),
        ("decoder", f"{settings.features} -> {settings.hidden} -> {settings.features} + density"),
        ("super-resolution", f"{last.input_resolution} -> {last.output_resolution} px, {last.channels} channels"),
    ]


def _stylegan2_rows(sizes: StyleGAN2Settings) -> list[tuple[str, str]]:
    channels = ", ".join(f"{side}: {sizes.channels(side)}" for side in sizes.block_resolutions)
    condition = str(sizes.c_dim) if sizes.c_dim else "0 (unconditional)"
    clamp = "none" if sizes.conv_clamp is None else f"{sizes.conv_clamp:g}"
    return [
        ("z_dim", str(sizes.z_dim)),
        ("w_dim", f"{sizes.w_dim} ({sizes.num_ws} layers take a w)"),
        ("c_dim", condition),
        ("channels", channels),
        ("channel rule", f"min({sizes.channel_base} // resolution, {sizes.channel_max})"),
        ("mapping layers", str(sizes.mapping_layers)),
        ("conv_clamp", clamp),
    ]


def converted(file: Path, out: Path, *, force: bool) -> str:
    """Convert a checkpoint and return the sentence that says what was written.

    Raises:
        UserError: the checkpoint cannot be used, or ``out`` exists and ``force`` is not given.
    """
    if out.exists() and not force:
        raise UserError(f"{out} exists already; choose another name, or replace it with --force")
    require_writable(out.parent, "the folder", "choose another place for the file")
    checkpoint = read_checkpoint(file)
    write_safetensors(checkpoint, out)
    written = read_checkpoint(out)
    return (
        f"{out}: {written.settings.img_resolution} px {written.kind} from {checkpoint.format}, "
        f"{len(written.tensors)} tensors, {out.stat().st_size / 1e6:.1f} MB, sha256 {written.sha256}"
    )


_CHECK_HELP = """\
Builds each generator and says for every promise of the contract whether it holds: anchors, images, copies, gradients,
stored weights. The contract is explained in clstudy/generators/base.py.

A generator is named as in a profile:
  embedded               a registered one (see list)
  package.module:Class   a class of your own, found from the current folder

It is built with the settings of --profile, and from the files that --weights names if it needs any.
"""


@group("generators", help="List generators and check one; inspect, convert or export checkpoints.")
def generators() -> None:
    """The group; each command is declared below."""


@generators.command("list", help="every registered generator, and the profiles that use it")
def list_generators() -> None:
    """Print a table."""
    load_generators()
    users = {name: [profile for profile, make in PROFILES.items() if make().generator == name] for name in GENERATORS}
    rows = [("name", "profiles", "what it is")]
    rows += [(name, ", ".join(users[name]) or "-", kind.description) for name, kind in GENERATORS.items()]
    print("\n".join(columns(rows)))


@generators.command(
    "check", short_help="hold generators to the contract", help=verbatim(_CHECK_HELP), epilog=EXIT_CODES
)
@click.argument("names", nargs=-1, metavar="[GENERATOR]...", help="default: the packaged one")
@option("--profile", metavar="PROFILE", help="whose settings it is built with (default: smoke)")
@option("--weights", multiple=True, metavar="FOLDER|ROLE=FILE", help="as in python -m clstudy.run")
def check_generators(names: tuple[str, ...], *, profile: str | None, weights: tuple[str, ...]) -> int:
    """Print a line per check."""
    load_generators()
    chosen = {name: GENERATORS[name] for name in names or ("embedded",)}  # all are looked up before one is built
    settings = named_profile(profile or "smoke")
    from clstudy.study.opened_parts import opened_generator

    found = (
        (name, findings_of(CHECKS, opened_generator(replace(settings, generator=name), list(weights))))
        for name in chosen
    )
    return 1 if print_findings(found, CHECKS) else 0


@generators.command(
    "inspect",
    short_help="say what a checkpoint is: format, sizes, sha256",
    help=verbatim("Reads a checkpoint whole and prints what it is.\n\n" + _FORMATS),
    epilog=_EXIT_CODES,
)
@click.argument("file", type=_PATH, help="the checkpoint")
def inspect(file: Path) -> None:
    """Print what a checkpoint is, including one that is recognised but refused."""
    try:
        print("\n".join(description_lines(read_checkpoint(file))))
    except CheckpointError as error:
        if error.kind:
            print(f"kind  {error.kind}")
        raise


@generators.command(
    "convert",
    short_help="write a checkpoint as .safetensors",
    help=verbatim(
        "Reads a checkpoint and writes the generator's tensors (float32) and sizes as .safetensors, which "
        "opens faster and holds no\ncode. Equal checkpoints give equal bytes.\n\n" + _FORMATS
    ),
    epilog=_EXIT_CODES,
)
@click.argument("file", type=_PATH, help="the checkpoint")
@click.argument("out", type=_PATH, help="file to write; its name ends in .safetensors")
@flag("--force", help="replace OUT if it exists")
def convert(file: Path, out: Path, force: bool) -> None:
    """Convert, and print what was written."""
    print(converted(file, out, force=force))


@command(
    "export",
    short_help="write the final generator of a trial as .safetensors",
    help=verbatim(_EXPORT_HELP),
    epilog=_EXIT_CODES,
)
@click.argument("study", type=FOLDER, help="a folder such as runs/hull_sizes, or s3://bucket/folder")
@click.argument("trial", help="its id, its run's name in MLflow, the beginning of one, or a pattern")
@option("--to", type=_PATH, required=True, metavar="FILE", help="file to write; its name ends in .safetensors")
@option(
    "--weights",
    multiple=True,
    metavar="FOLDER|ROLE=FILE",
    help="where the pretrained generator is, if it is not the packaged one; as in python -m clstudy.run",
)
@flag("--force", help="replace FILE if it exists")
def export(study: str, trial: str, to: Path, weights: tuple[str, ...], force: bool) -> None:
    """Export, and print what was written."""
    from clstudy.study.export import export as export_trial  # the only one that needs more than this package

    print(export_trial(study, trial, to, weights=list(weights), force=force))


generators.add_command(export)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return invoke(generators, arguments, "python -m clstudy.generators")
