"""clstudy pool STUDY STUDY … --out FOLDER: one study of several that asked the same of different people."""

from __future__ import annotations

import sys

import click

from clstudy.cli.command_line import FOLDER, command, option
from clstudy.cli.report import write_reports
from clstudy.errors import UserError
from clstudy.storage.places import first_line, open_place
from clstudy.study.pooling import pool_studies


@command(
    "pool",
    help="Make one study of several that ran the same space on different people, and report it: a study computed in "
    "pieces (--identities), or where each person's photos are. Rows, pictures and timings are copied, weights are not. "
    "The studies must be equal in everything but their people.",
    epilog="Exit code: 0 pooled, 2 the studies cannot be pooled.",
)
@click.argument("studies", type=FOLDER, nargs=-1, required=True, metavar="STUDY …", help="two or more studies' folders")
@option("--out", type=FOLDER, required=True, help="the pooled study's folder")
def pool(studies: tuple[str, ...], out: str) -> int:
    """Pool them, and print whose they are."""
    try:
        record = pool_studies([open_place(study) for study in studies], open_place(out))
    except OSError as error:
        raise UserError(first_line(error)) from error
    sys.stdout.write(f"{len(record.timestamps)} people of {len(studies)} studies, {len(record.trials)} trials\n")
    return write_reports([out])
