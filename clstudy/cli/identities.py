"""``python -m clstudy.identities``: make a photo folder (``prepare``), check one, forget a person."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from clstudy.cli.entry_point import entry_point
from clstudy.errors import UserError
from clstudy.identities.check import LAYOUT, Inspection, inspect_folder
from clstudy.identities.preparation.selection import Apart

_CHECK_HELP = f"""\
Reads every photo of a data folder and lists every problem at once: unreadable image, wrong mode or size,
empty timestamp, missing train or test set, the same photo twice (train and test, or two timestamps of one
person), no identity, no timestamp.

Of a folder that is fine it says how much there is to forget: how much more the photos of two timestamps of a person
differ than two of one (LPIPS, face embedding, light). About 1: hardly anything.

Expected layout:  PATH/{LAYOUT}
Timestamps are taken in sorted name order, so number them with leading zeros (t00, t01, ...).
"""

_EXIT_CODES = "exit code: 0 the folder is fine, 1 it has problems, 2 the path is not a folder"

_PREPARE_HELP = f"""\
Makes OUT/NAME/t00, t01, … from a folder of videos (one per timestamp), a folder of dated photos (folders named
YYYY-MM-DD, photos with a date in their EXIF data or name, or folders named 2019, 2019-05 or t00), or one video cut into
segments. Which order it took, and from what, is printed; --manifest says otherwise.

Finds faces, keeps the person asked for, drops what is too small, cut off, turned away, blurred, occluded, someone else
or a near-duplicate, aligns, and splits into training and test photos: OUT/{LAYOUT}.
Test photos are spread over the occasion; no training photo is near one in time (--min-gap) or looks (--min-difference).
OUT-report/NAME says what became of every frame (report.md, frames.csv, one contact sheet per timestamp).
The source is only read. A stopped run goes on where it was when it is started again. The report's contact sheets show
others in the footage, too.
"""

_FORGET_HELP = """\
Removes one person from studies for good: stages, weights, memories, anchors, rows, logs, photos given to workers, their
runs in MLflow with pictures, and their trials in study.yaml; reports are made anew without them. Nothing of anybody
else changes. Says first what goes, and asks. A stopped run goes on when it is started again.
"""

_FORGET_EPILOG = """\
MLflow is MLFLOW_TRACKING_URI, else the mlflow.db beside the study. Behind a server (http://…) runs only go to its bin;
the owner of its database removes them for good.

exit code: 0 forgotten, 1 forgotten here, and what is left elsewhere is said, 2 nothing was removed (said why)
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m clstudy.identities", description="Look after the photo folders that a study reads."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    check = commands.add_parser(
        "check",
        help="list every problem of a photo folder",
        description=_CHECK_HELP,
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    check.add_argument("path", type=Path, metavar="PATH", help="folder that holds one folder per identity")
    check.add_argument(
        "--size",
        type=_positive,
        default=64,
        metavar="PIXELS",
        help="width and height every photo must have (default: %(default)s, the embedded profile)",
    )
    check.add_argument(
        "--no-drift", dest="drift", action="store_false", help="do not measure how much the photos change over time"
    )
    _add_prepare(commands)
    _add_forget(commands)
    return parser


def _add_prepare(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "prepare",
        help="make a photo folder from videos or dated photos",
        description=_PREPARE_HELP,
        epilog="exit code: 0 done, 2 something was wrong (said, with what to do)",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = command.add_argument
    add("source", type=Path, metavar="SOURCE", help="video, or folder of videos or dated photos")
    add("out", type=Path, metavar="OUT", help="data folder to make or to add the person to")
    add("--identity", required=True, metavar="NAME", help="folder name of the person")
    add("--size", type=int, default=64, metavar="PIXELS", help="side of the photos (default: %(default)s)")
    add("--train", type=int, default=20, metavar="N", help="training photos per timestamp (default: %(default)s)")
    add("--test", type=int, default=10, metavar="N", help="test photos per timestamp (default: %(default)s)")
    add(
        "--allow-fewer",
        action="store_true",
        help="keep timestamps that have fewer photos, at least 2 + 1; leave out the others and unreadable files",
    )
    add(
        "--reference",
        type=Path,
        nargs="+",
        default=[],
        metavar="PHOTO",
        help="photos of the person (default: whoever is seen on most occasions)",
    )
    add(
        "--min-cosine",
        type=float,
        default=0.35,
        metavar="C",
        help="least identity cosine to the reference (default: %(default)s)",
    )
    add(
        "--limit",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="another limit of a filter, again for others: max_upsampling, max_face_outside, max_outside, max_yaw, "
        "min_sharpness, min_fine_sharpness, max_unsteadiness, min_symmetry (the report lists them with their values)",
    )
    apart = Apart()
    for name, value, unit, said in (
        ("--min-gap", apart.min_gap, "SECONDS", "between a training and a test photo of one video"),
        ("--min-difference", apart.min_difference, "LPIPS", "between the faces of a training and a test photo"),
        ("--min-variety", apart.min_variety, "LPIPS", "between the faces of two training or two test photos"),
    ):
        add(name, type=float, default=value, metavar=unit, help=f"least distance {said} (default: %(default)s)")
    add(
        "--manifest", type=Path, metavar="FILE", help="text file that names the videos or photo folders, earliest first"
    )
    add(
        "--segments",
        type=int,
        metavar="N",
        help="cut the only video into N timestamps (a stand-in; the report says so)",
    )
    sampling = command.add_mutually_exclusive_group()
    sampling.add_argument("--every", type=float, metavar="SECONDS", help="look at one frame every so many seconds")
    sampling.add_argument(
        "--frames",
        type=int,
        default=300,
        metavar="N",
        help="look at this many frames per video at most, evenly spread (default: %(default)s)",
    )
    add(
        "--alignment",
        metavar="NAME",
        help="embedded (default at 64 pixels) or ffhq (default above: what StyleGAN2 and EG3D expect)",
    )
    add(
        "--detector",
        default="packaged",
        metavar="NAME[=FOLDER]",
        help="packaged (default); pack=FOLDER: the networks of an unpacked insightface pack such as buffalo_l; "
        "insightface[=FOLDER]: the same by insightface itself (default folder: ~/.insightface/models/buffalo_l)",
    )
    add("--seed", type=int, default=0, metavar="N", help="seed of the split (default: %(default)s)")
    add(
        "--keep-scans",
        action="store_true",
        help="leave OUT/.prepare (faces and embeddings of everybody in the footage): other limits, or another person "
        "of the same footage, then need no second look at the frames; a stopped run leaves it anyway",
    )


def _add_forget(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "forget",
        help="remove everything that studies and MLflow hold of one person",
        description=_FORGET_HELP,
        epilog=_FORGET_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = command.add_argument
    add("name", metavar="NAME", help="the person, as their photo folder is called")
    add(
        "--study",
        action="append",
        required=True,
        metavar="FOLDER|URI",
        help="a study, e.g. runs/hull_sizes; again for others",
    )
    add("--to", metavar="URI", help="MLflow, e.g. sqlite:///runs/mlflow.db, or none to leave it alone")
    add(
        "--photos",
        action="store_true",
        help="also their photos in the storage's own data sets (runs/data/…); never a folder elsewhere",
    )
    add("--yes", action="store_true", help="do not ask")


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of pixels")
    return value


@entry_point
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = _parser().parse_args(arguments)
    try:
        return _COMMANDS[args.command](args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _check(args: argparse.Namespace) -> int:
    inspection = inspect_folder(args.path, image_size=args.size)
    identities, timestamps, photos = inspection.counts()
    held = f"identities: {identities}, timestamps: {timestamps}, readable photos: {photos}"
    if inspection.problems:
        print(f"{args.path}: {len(inspection.problems)} problem(s) ({held})")
        for problem in inspection.problems:
            print(f"  - {problem}")
        return 1
    print(f"{args.path}: fine ({held})")
    if args.drift:
        _say_drift(inspection, args.size)
    return 0


def _say_drift(inspection: Inspection, size: int) -> None:
    """How much each person's photos change over time."""
    # its networks take seconds to import
    from clstudy.identities.check import alignment_of
    from clstudy.identities.dataset import data_set_of
    from clstudy.identities.drift import WARNING, estimate, is_little, mean, words

    people = data_set_of(inspection).identities
    found = estimate(people, alignment=alignment_of(inspection.root, size))
    for person, one in zip(people, found, strict=True):
        print(f"drift of {person.name}: " + (words(one) if mean([one]) else "not known: it takes two occasions"))
    average = mean(found)
    if average is not None:
        print(f"on average: {words(average)}")
        if is_little(average):
            print(WARNING)


def _prepare(args: argparse.Namespace) -> int:
    # its networks take seconds to import; `check` needs none of them
    from clstudy.identities.preparation.filters import filter_settings
    from clstudy.identities.preparation.prepare import prepare
    from clstudy.identities.preparation.settings import PrepareSettings
    from clstudy.identities.preparation.video import Sampling

    settings = PrepareSettings(
        identity=args.identity,
        size=args.size,
        train=args.train,
        test=args.test,
        alignment=args.alignment,
        detector=args.detector,
        sampling=Sampling(every=args.every, frames=args.frames),
        segments=args.segments,
        allow_fewer=args.allow_fewer,
        seed=args.seed,
        limits=filter_settings(args.limit, min_cosine=args.min_cosine),
        apart=Apart(min_gap=args.min_gap, min_difference=args.min_difference, min_variety=args.min_variety),
    )
    done = prepare(
        args.source,
        args.out,
        settings,
        references=args.reference,
        manifest=args.manifest,
        keep_scans=args.keep_scans,
        say=print,
    )
    for stamp in (stamp for stamp in done.stamps if not stamp.left_out):
        train, test = stamp.counts()
        print(f"{stamp.name}: {train} training and {test} test photos of {len(stamp.verdicts)} frames ({stamp.source})")
    print(f"photos: {done.photos}\nreport: {done.report}")
    return 0


def _forget(args: argparse.Namespace) -> int:
    # reads and draws reports, which takes a second to import
    from clstudy.study.privacy.forget import forget

    def confirm() -> bool:
        if args.yes:
            return True
        if not sys.stdin.isatty():
            raise UserError("this cannot be undone and there is nobody to ask; add --yes. Nothing was removed")
        return input("Remove all of this for good? [y/N] ").strip().lower() in ("y", "yes")

    try:
        left = forget(args.name, args.study, to=args.to, photos=args.photos, confirm=confirm)
    except OSError as error:
        raise UserError(f"stopped: {error}. The same command goes on from here") from error
    if left is None:
        print("nothing was removed")
        return 2
    for what in left:
        print(f"left: {what}", file=sys.stderr)
    return 1 if left else 0


_COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {"check": _check, "prepare": _prepare, "forget": _forget}
