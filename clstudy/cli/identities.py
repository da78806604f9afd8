"""``python -m clstudy.identities``: prepare a photo folder, check one, or forget a person."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
from click.core import ParameterSource

from clstudy.cli.command_line import FOLDER, Decorator, Several, command, flag, group, option, verbatim
from clstudy.cli.entry_point import invoke
from clstudy.errors import UserError
from clstudy.identities.cameras import FOCAL
from clstudy.identities.categories.orders import OrderSettings, make_orders, require_images
from clstudy.identities.categories.sources import read_categories
from clstudy.identities.check import LAYOUT, Inspection, inspect_folder
from clstudy.identities.conditions import FOR_ALL
from clstudy.identities.preparation.selection import Apart
from clstudy.storage.places import require_writable

_CHECK_HELP = f"""\
Reads every photo of a data folder and lists every problem at once: unreadable image, wrong mode or size,
empty timestamp, missing train or test set, the same photo twice (train and test, or two timestamps of one
person), no identity, no timestamp; conditions (camera, age, class: named numbers in {FOR_ALL} of a timestamp and in
train/03.json beside train/03.png) that are not numbers, belong to no photo, or that only some photos have.

For a folder without problems it says how much there is to forget: how much more two photos of a person differ between
timestamps than within one (ratio by LPIPS, face embedding, light). A ratio near 1 means hardly anything.

Expected layout:  PATH/{LAYOUT}
Timestamps are taken in sorted name order, so number them with leading zeros (t00, t01, ...).
"""

_EXIT_CODES = "exit code: 0 the folder is fine, 1 it has problems, 2 the path is not a folder"

_PREPARE_HELP = f"""\
Makes OUT/NAME/t00, t01, … from a folder of videos (one per timestamp), a folder of dated photos (folders named
YYYY-MM-DD, photos with a date in their EXIF data or name, or folders named 2019, 2019-05 or t00), or one video cut into
segments. The order and where it was taken from are printed; --manifest overrides it.

Finds faces, keeps the person asked for, drops what is too small, cut off, turned away, blurred, occluded, someone else
or a near-duplicate, aligns, and splits into training and test photos: OUT/{LAYOUT}.
Test photos are spread over the occasion; no training photo is close to one in time (--min-gap) or in looks
(--min-difference).
OUT-report/NAME shows what happened to every frame (report.md, frames.csv, one contact sheet per timestamp).
The source is only read. A stopped run continues when it is started again. The report's contact sheets also show other
people in the footage.
"""

_CAMERAS_HELP = """\
Estimates from which side each photo shows the face, and writes it as the condition "camera" (25 numbers: camera to
world, intrinsics; EG3D's conventions) into the photo's sidecar, train/03.json beside train/03.png. A 3D profile needs
the cameras of all photos. Photos that have one keep it.

If one photo's camera cannot be estimated, the photos are listed and nothing is written.
"""

_ORDERS_HELP = """\
Makes a data set for the workload class_gan: every identity is an order in which categories are learned, every timestamp
one category, with its number as the condition "label". The first 100 images of each category are held back for tests.
IMAGES is a folder with one folder of pictures for each class, or with IDX files, as Debian's dataset-fashion-mnist has
them.
"""

_FORGET_HELP = """\
Removes one person from studies for good: stages, weights, memories, anchors, rows, logs, photos given to workers, their
runs in MLflow with pictures, and their trials in study.yaml; reports are made again without them. Nothing of anybody
else changes. First lists what will be removed, and asks. A stopped run continues when it is started again.
"""

_FORGET_EPILOG = """\
MLflow is found at MLFLOW_TRACKING_URI, otherwise in mlflow.db beside the study. On a server (http://…) runs only go to
its bin; the owner of its database can remove them for good.

exit code: 0 forgotten, 1 forgotten here, with a list of what is left elsewhere, 2 nothing was removed, with the reason
"""


_APART = Apart()
_PATH = click.Path(path_type=Path)


def _distance(name: str, value: float, unit: str, said: str) -> Decorator:
    """An option of ``Apart``."""
    return option(name, type=float, default=value, metavar=unit, help=f"least distance {said} (default: {value})")


def _positive(context: click.Context, parameter: click.Parameter, value: int) -> int:
    if value < 1:
        raise click.BadParameter(f"{value} is not a positive number of pixels", context, parameter)
    return value


@group("identities", help="Look after the photo folders that a study reads.")
def identities() -> None:
    """The group; each command is declared below."""


@identities.command(
    "check", short_help="list every problem of a photo folder", help=verbatim(_CHECK_HELP), epilog=_EXIT_CODES
)
@click.argument("path", type=_PATH, help="folder that holds one folder per identity")
@option(
    "--size",
    type=int,
    default=64,
    metavar="PIXELS",
    callback=_positive,
    help="width and height every photo must have (default: 64, the embedded profile)",
)
@flag("--no-drift", help="do not measure how much the photos change over time")
def check(path: Path, size: int, no_drift: bool) -> int:
    """Print every problem, or how much there is to forget."""
    inspection = inspect_folder(path, image_size=size)
    identities, timestamps, photos = inspection.counts()
    held = f"identities: {identities}, timestamps: {timestamps}, readable photos: {photos}"
    if inspection.problems:
        print(f"{path}: {len(inspection.problems)} problem(s) ({held})")
        for problem in inspection.problems:
            print(f"  - {problem}")
        return 1
    print(f"{path}: fine ({held})")
    if conditions := inspection.conditions():
        print("conditions: " + ", ".join(f"{name} ({_numbers(width)})" for name, width in conditions.items()))
    if not no_drift:
        _say_drift(inspection, size)
    return 0


def _numbers(count: int) -> str:
    return f"{count} number{'' if count == 1 else 's'}"


def _say_drift(inspection: Inspection, size: int) -> None:
    """Print how much each person's photos change over time."""
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


@identities.command(
    "prepare",
    short_help="make a photo folder from videos or dated photos",
    help=verbatim(_PREPARE_HELP),
    epilog="exit code: 0 done, 2 something was wrong; the message says what to do",
)
@click.argument("source", type=_PATH, help="video, or folder of videos or dated photos")
@click.argument("out", type=_PATH, help="data folder to create, or to add the person to")
@option("--identity", required=True, metavar="NAME", help="folder name of the person")
@option("--size", type=int, default=64, metavar="PIXELS", help="side of the photos (default: 64)")
@option("--train", type=int, default=20, metavar="N", help="training photos per timestamp (default: 20)")
@option("--test", type=int, default=10, metavar="N", help="test photos per timestamp (default: 10)")
@flag(
    "--allow-fewer",
    help="keep timestamps with fewer photos, at least 2 + 1; leave out the others and unreadable files",
)
@option(
    "--reference",
    cls=Several,
    type=_PATH,
    multiple=True,
    metavar="PHOTO",
    help="photos of the person, one or more (default: whoever is seen on most occasions)",
)
@option(
    "--min-cosine",
    type=float,
    default=0.35,
    metavar="C",
    help="least identity cosine to the reference (default: 0.35)",
)
@option(
    "--limit",
    multiple=True,
    metavar="NAME=VALUE",
    help="another limit of a filter; repeat it for more: max_upsampling, max_face_outside, max_outside, max_yaw, "
    "min_sharpness, min_fine_sharpness, max_unsteadiness, min_symmetry (the report lists them with their values)",
)
@_distance("--min-gap", _APART.min_gap, "SECONDS", "between a training and a test photo of one video")
@_distance("--min-difference", _APART.min_difference, "LPIPS", "between the faces of a training and a test photo")
@_distance("--min-variety", _APART.min_variety, "LPIPS", "between the faces of two training or two test photos")
@option(
    "--manifest",
    type=_PATH,
    metavar="FILE",
    help="text file that names the videos or photo folders, earliest first",
)
@option(
    "--segments",
    type=int,
    metavar="N",
    help="cut a single video into N timestamps (a makeshift; the report says so)",
)
@option("--every", type=float, metavar="SECONDS", help="look at one frame every so many seconds (not with --frames)")
@option(
    "--frames",
    type=int,
    default=300,
    metavar="N",
    help="look at this many frames per video at most, evenly spread (default: 300)",
)
@option(
    "--alignment",
    metavar="NAME",
    help="embedded (default at 64 pixels), ffhq (default above: what StyleGAN2 expects) or eg3d (what EG3D expects)",
)
@option(
    "--detector",
    default="packaged",
    metavar="NAME[=FOLDER]",
    help="packaged (default); pack=FOLDER: the networks of an unpacked insightface pack such as buffalo_l; "
    "insightface[=FOLDER]: the same by insightface itself (default folder: ~/.insightface/models/buffalo_l)",
)
@option("--seed", type=int, default=0, metavar="N", help="seed of the split (default: 0)")
@flag(
    "--keep-scans",
    help="keep OUT/.prepare (faces and embeddings of everybody in the footage), so that other limits, or another "
    "person in the same footage, need no second look at the frames; a stopped run keeps it anyway",
)
@click.pass_context
def prepare(
    context: click.Context,
    source: Path,
    out: Path,
    *,
    identity: str,
    size: int,
    train: int,
    test: int,
    allow_fewer: bool,
    reference: tuple[Path, ...],
    min_cosine: float,
    limit: tuple[str, ...],
    min_gap: float,
    min_difference: float,
    min_variety: float,
    manifest: Path | None,
    segments: int | None,
    every: float | None,
    frames: int,
    alignment: str | None,
    detector: str,
    seed: int,
    keep_scans: bool,
) -> None:
    """Prepare, and print how many photos each timestamp has now."""
    if every is not None and context.get_parameter_source("frames") is ParameterSource.COMMANDLINE:
        raise click.UsageError("--every and --frames exclude each other: give one of them", context)
    # its networks take seconds to import; `check` needs none of them
    from clstudy.identities.preparation.filters import filter_settings
    from clstudy.identities.preparation.prepare import prepare as prepare_photos
    from clstudy.identities.preparation.settings import PrepareSettings
    from clstudy.identities.preparation.video import Sampling

    settings = PrepareSettings(
        identity=identity,
        size=size,
        train=train,
        test=test,
        alignment=alignment,
        detector=detector,
        sampling=Sampling(every=every, frames=frames),
        segments=segments,
        allow_fewer=allow_fewer,
        seed=seed,
        limits=filter_settings(list(limit), min_cosine=min_cosine),
        apart=Apart(min_gap=min_gap, min_difference=min_difference, min_variety=min_variety),
    )
    done = prepare_photos(
        source,
        out,
        settings,
        references=list(reference),
        manifest=manifest,
        keep_scans=keep_scans,
        say=print,
    )
    for stamp in (stamp for stamp in done.stamps if not stamp.left_out):
        train, test = stamp.counts()
        print(f"{stamp.name}: {train} training and {test} test photos of {len(stamp.verdicts)} frames ({stamp.source})")
    print(f"photos: {done.photos}\nreport: {done.report}")
    if settings.aligned == "eg3d":
        print(f"a 3D profile needs cameras: python -m clstudy.identities cameras {out} --size {size}")


@identities.command(
    "cameras",
    short_help="estimate the camera of every photo of a folder",
    help=verbatim(_CAMERAS_HELP),
    epilog="exit code: 0 every photo has a camera, 1 some are unclear (nothing was written), 2 the folder has problems",
)
@click.argument("path", type=_PATH, help="folder that holds one folder per identity")
@option("--size", type=int, default=64, metavar="PIXELS", callback=_positive, help="side of the photos (default: 64)")
@flag("--force", help="estimate the cameras of photos that have one, too")
def cameras(path: Path, size: int, force: bool) -> int:
    """Write cameras, and print from which sides and how large faces are seen."""
    # its networks take seconds to import
    from clstudy.identities.camera_estimation import estimate_cameras

    found = estimate_cameras(path, image_size=size, force=force, say=print)
    for photo, reason in found.unclear.items():
        print(f"  - {photo.relative_to(path.resolve())}: {reason}")
    if found.unclear:
        print(f"{path}: {len(found.unclear)} photo(s) without a camera; nothing was written. Remove or replace them")
        return 1
    print(f"{path}: {len(found.cameras)} cameras written, {found.kept} photos had one")
    if found.cameras:
        low, middle, high = np.percentile(found.angles(), [5, 50, 95], axis=0)
        for name, index in (("yaw", 0), ("pitch", 1)):
            print(f"{name}: median {middle[index]:.0f} degrees, 90% between {low[index]:.0f} and {high[index]:.0f}")
        crop, remedy = found.crop(), "prepare the footage with --alignment eg3d"
        x, y = crop.centre
        print(f"faces: focal length {crop.focal:.2f} (EG3D: {FOCAL:.2f}), their middle at {x:.2f}, {y:.2f}")
        if crop.problem:
            print(f"note: {crop.problem}. That is fine for a generator of such photos; for a published EG3D, {remedy}")
    return 0


@identities.command(
    "orders",
    short_help="make orders of categories from class folders or IDX files",
    help=verbatim(_ORDERS_HELP),
    epilog="exit code: 0 done, 2 something was wrong; the message says what to do",
)
@click.argument("images", type=_PATH, help="folder with one folder for each class, or with IDX files")
@click.argument("out", type=_PATH, help="data folder to create")
@option("--orders", type=click.IntRange(1), default=5, metavar="N", help="how many orders (default: 5)")
@option("--timestamps", type=click.IntRange(1), default=4, metavar="N", help="categories of each (default: 4)")
@option("--train", type=click.IntRange(1), default=300, metavar="N", help="training images of each (default: 300)")
@option("--test", type=click.IntRange(1), default=60, metavar="N", help="test images of each (default: 60)")
@option("--size", type=int, default=32, metavar="PIXELS", callback=_positive, help="side of the images (default: 32)")
@option("--seed", type=int, default=0, metavar="N", help="of the orders")
def orders(images: Path, out: Path, orders: int, timestamps: int, train: int, test: int, size: int, seed: int) -> int:
    """Write them, and print what to run next."""
    settings = OrderSettings(orders=orders, timestamps=timestamps, train=train, test=test, data_seed=seed)
    if out.exists():
        raise UserError(f"{out} exists already; name a folder that does not")
    source = read_categories(images, size)
    require_images(source, settings, str(images))
    require_writable(out.parent, "the folder", "name another one")
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".orders-") as working:
        made = Path(working) / "made"
        make_orders(made, source, settings, images.name)
        made.rename(out)  # killed before, it leaves nothing that looks finished
    print(f"{out}: {orders} orders of {timestamps} of {len(source.names)} categories ({', '.join(source.names)})")
    print(
        "next: python -m clstudy.generators.pretraining classifier "
        f"--images {images} --size {size} --out weights/classifier.safetensors"
    )
    return 0


@command(
    "forget",
    short_help="remove everything that studies and MLflow hold of one person",
    help=verbatim(_FORGET_HELP),
    epilog=verbatim(_FORGET_EPILOG),
)
@click.argument("name", help="the person, as their photo folder is called")
@option(
    "--study",
    "studies",
    multiple=True,
    required=True,
    type=FOLDER,
    metavar="FOLDER|URI",
    help="a study, e.g. runs/hull_sizes; repeat it for more",
)
@option("--to", metavar="URI", help="MLflow, e.g. sqlite:///runs/mlflow.db, or none to leave it alone")
@flag(
    "--photos",
    help="also remove their photos, with conditions, from the storage's own data sets (runs/data/…); never elsewhere",
)
@flag("--yes", help="do not ask")
def forget(name: str, studies: tuple[str, ...], to: str | None, photos: bool, yes: bool) -> int:
    """Say what will be removed, ask, and remove it."""
    # reads and draws reports, which takes a second to import
    from clstudy.study.privacy.forget import forget as forget_person

    def confirm() -> bool:
        if yes:
            return True
        if not sys.stdin.isatty():
            raise UserError("this cannot be undone and there is nobody to ask; add --yes. Nothing was removed")
        return input("Remove all of this for good? [y/N] ").strip().lower() in ("y", "yes")

    try:
        left = forget_person(name, list(studies), to=to, photos=photos, confirm=confirm)
    except OSError as error:
        raise UserError(f"stopped: {error}. The same command goes on from here") from error
    if left is None:
        print("nothing was removed")
        return 2
    for what in left:
        print(f"left: {what}", file=sys.stderr)
    return 1 if left else 0


identities.add_command(forget)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return invoke(identities, arguments, "python -m clstudy.identities")
