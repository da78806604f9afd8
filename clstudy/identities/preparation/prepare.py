"""Turns videos or dated photos of a person into a photo folder: ``python -m clstudy.identities prepare``.

The steps of ``prepare``: every occasion (one video, or the photos of one day: ``video``) becomes a timestamp. Sample
frames and find faces (``scans``), keep the requested person (``reference``), drop what is too small, cut off, turned
away, blurred, occluded or someone else (``filters``, ``timestamps``), choose training and test photos that are not
near-duplicates (``photo_choice``, ``selection``), and align them (``photo_files``). A report lists the outcome of every
frame (``report``), and the finished photos replace earlier ones in one step (``output_folder``).

Files: ``OUT/<identity>/t00/{train,test}/*.png`` with ``OUT/<identity>/prepared.json`` and ``OUT/prepared.json`` (which
alignment); ``OUT-report/<identity>/`` (``report.md``, ``frames.csv``, ``t00.png`` …); ``OUT/.prepare/`` holds finished
scans, so that a stopped run can continue. It is removed at the end, because it contains pictures and embeddings of
everybody in the footage. The same source and settings give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from clstudy.errors import UserError
from clstudy.identities.preparation.output_folder import only_one, put_in_place, require_place
from clstudy.identities.preparation.photo_choice import choose, tally, usable
from clstudy.identities.preparation.photo_files import write_photos
from clstudy.identities.preparation.reference import most_seen, reference_of
from clstudy.identities.preparation.report import write_report
from clstudy.identities.preparation.scans import Tools, remove_scans, scan_once
from clstudy.identities.preparation.settings import PrepareSettings
from clstudy.identities.preparation.timestamps import Stamp, into_timestamps, judge, require_segments
from clstudy.identities.preparation.video import FILE_DATES, PHOTO_SUFFIXES, Found, find_occasions
from clstudy.storage.places import require_writable

_NAMED = 10


@dataclass(frozen=True, kw_only=True)
class PreparedFolder:
    """Where the photos and the report are, and the timestamps with the outcome of every frame."""

    photos: Path
    report: Path
    stamps: tuple[Stamp, ...]


def prepare(
    source: Path,
    out: Path,
    settings: PrepareSettings,
    *,
    references: Sequence[Path] = (),
    manifest: Path | None = None,
    keep_scans: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> PreparedFolder:
    """Create ``out/<identity>`` and its report from a source; continues a stopped run.

    Args:
        source: see ``video.find_occasions``; nothing is written into it.
        out: data folder, may hold other identities of the same size and alignment.
        references: photos of the requested person (none: whoever is seen on most occasions).
        manifest: names of the occasions in order.
        keep_scans: keep this run's scans, for other limits or another person in the same footage.
        say: called with lines for the user.

    Raises:
        UserError: bad source, reference, output folder or settings; another process prepares this person there; or too
            few good photos (the report is written before the error is raised, and photos of an earlier run are left as
            they are).
    """
    report = out.with_name(out.name + "-report") / settings.identity
    require_place(source, out, report, settings)
    found = find_occasions(source, manifest)
    require_segments(found, settings)
    for folder in (out, report):
        require_writable(folder, "the folder", "name another OUT, or mend its permissions")
    with only_one(out, settings.identity):
        return _prepare(found, out, report, settings, references, keep_scans, say)


def _prepare(
    found: Found,
    out: Path,
    report: Path,
    settings: PrepareSettings,
    references: Sequence[Path],
    keep_scans: bool,
    say: Callable[[str], None],
) -> PreparedFolder:
    if found.ignored:
        kinds = ", ".join(sorted(PHOTO_SUFFIXES))
        more = f", … ({len(found.ignored)} in all)" if len(found.ignored) > _NAMED else ""
        say(f"not looked at: {', '.join(found.ignored[:_NAMED])}{more}; photos may be {kinds}")
    if len(found.occasions) > 1:
        say(f"order, by {found.order}: {', '.join(occasion.label for occasion in found.occasions)}")
        if found.order == FILE_DATES:
            say("copying changes the dates of files: if that is not the order, write the names into a --manifest")
    tools = Tools(settings.detector)
    asked = reference_of(references, tools)
    scans = [scan_once(occasion, out / ".prepare", settings, tools, say) for occasion in found.occasions]
    reference = asked or most_seen(scans, settings)
    judged = [verdict for number, scan in enumerate(scans) for verdict in judge(number, scan, reference, settings)]
    chosen = tuple(choose(stamp, scans, settings) for stamp in into_timestamps(found, scans, judged, settings))
    stamps, short = usable(chosen, settings)
    for stamp in stamps:
        if stamp.left_out:
            say(f"left out: {stamp.source}: {tally(stamp)}")
    building = out / ".prepare" / f"building-{settings.identity}"
    photos = write_photos(building, found, scans, stamps, reference, settings)
    write_report(report, found, scans, stamps, reference, photos, short, settings)
    if short:
        scans_left = f"{out / '.prepare'} keeps everybody's faces from the footage, so that the next run starts there"
        raise UserError(f"{short} The outcome of every frame: {report / 'report.md'}. {scans_left}")
    put_in_place(building, out, settings)
    if keep_scans:
        say(f"{out / '.prepare'} keeps pictures and embeddings of everybody in the footage; remove it afterwards")
    else:
        remove_scans(out / ".prepare", found, settings)
    return PreparedFolder(photos=out / settings.identity, report=report / "report.md", stamps=stamps)
