"""The report of one preparation: the outcome of every frame, as text, as a table and as contact sheets."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np

from clstudy.faces.detectors import detector_title
from clstudy.identities.preparation.contact_sheet import Strip, contact_sheet
from clstudy.identities.preparation.filters import Measures
from clstudy.identities.preparation.reference import Reference
from clstudy.identities.preparation.scans import Scan
from clstudy.identities.preparation.selection import evenly
from clstudy.identities.preparation.settings import PrepareSettings
from clstudy.identities.preparation.timestamps import SPARE, TEST, TRAIN, Stamp, Verdict
from clstudy.identities.preparation.video import Found, read_photo
from clstudy.safe_text import csv_cell, markdown
from clstudy.storage.places import write_atomically

_SHOWN = 60


def write_report(
    folder: Path,
    found: Found,
    scans: Sequence[Scan],
    stamps: Sequence[Stamp],
    reference: Reference | None,
    photos: dict[str, Path],
    short: str,
    settings: PrepareSettings,
) -> None:
    """Write ``report.md``, ``frames.csv`` and one contact sheet per timestamp."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in (*folder.glob("t*.png"), *folder.glob("left-out-*.png")):
        old.unlink()
    write_atomically(folder / "report.md", report_text(found, scans, stamps, reference, short, settings).encode())
    write_atomically(folder / "frames.csv", _frames_table(scans, stamps).encode())
    for stamp in stamps:
        write_atomically(folder / f"{stamp.name}.png", _sheet(scans, stamp, photos, settings))


def report_text(
    found: Found,
    scans: Sequence[Scan],
    stamps: Sequence[Stamp],
    reference: Reference | None,
    short: str,
    settings: PrepareSettings,
) -> str:
    """The report in Markdown."""
    reasons = Counter(verdict.decision for stamp in stamps for verdict in stamp.verdicts)
    dropped = sorted(reasons.keys() - {TRAIN, TEST, SPARE}, key=lambda reason: (-reasons[reason], reason))
    lines = [
        f"# {settings.identity}: {settings.size} px, alignment `{settings.aligned}`",
        "",
        *([f"**Not made:** {short}", ""] if short else []),
        f"- Who: {reference.said if reference else 'nobody: no face passed the filters'}.",
        f"- Detector: {detector_title(settings.detector)}. Order of the occasions: {found.order}.",
    ]
    if settings.segments is not None:
        lines.append(
            f"- **Stand-ins**: {settings.segments} contiguous runs of one video stand in for timestamps, cut so "
            "that each has equally many good frames. They were taken within one recording: light, clothes and age do "
            "not change."
        )
    if found.ignored:
        lines.append(f"- Not looked at: {', '.join(found.ignored)}.")
    lines += [f"- Left out: {said}" for scan in scans for said in scan.unreadable]
    header = ["timestamp", "from", "frames", "train", "test", "made up", "least gap", "difference", "cosine min"]
    header += ["median", SPARE, *dropped]
    rows = []
    for stamp in stamps:
        counts = Counter(verdict.decision for verdict in stamp.verdicts)
        cosines = [verdict.cosine for verdict in stamp.decided(TRAIN, TEST)]
        lowest, middle = (f"{np.min(cosines):.3f}", f"{np.median(cosines):.3f}") if cosines else ("", "")
        numbers = [str(counts[reason]) for reason in (SPARE, *dropped)]
        train, test = stamp.counts()
        nearest = [
            "" if math.isnan(value) else f"{value:{form}}"
            for value, form in zip(stamp.nearest, (".2f", ".4f"), strict=True)
        ]
        about = [stamp.name, stamp.source, str(len(stamp.verdicts)), str(train), str(test), _made_up(stamp, scans)]
        rows.append([*about, *nearest, lowest, middle, *numbers])
    lines += ["", *_table(header, rows), ""]
    lines += [
        "Made up: the share of a photo that lies outside its frame (median): mirrored and blurred. Least gap (seconds) "
        "and difference (LPIPS of the faces): between a training and a test photo.",
        "",
    ]
    lines += [f"- {stamp.name}: {stamp.lacking}." for stamp in stamps if stamp.lacking]
    lines += ["", "Every frame with its measures is in `frames.csv`. Limits:", ""]
    lines += [f"- {name} = {value}" for name, value in (asdict(settings.limits) | asdict(settings.apart)).items()]
    return markdown(lines) + "\n"


def _made_up(stamp: Stamp, scans: Sequence[Scan]) -> str:
    shares = [scans[v.occasion].face(v.row).outside for v in stamp.decided(TRAIN, TEST) if v.row is not None]
    return f"{np.median(shares):.0%}" if shares else ""


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    shown = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return ["| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *shown)]


def _frames_table(scans: Sequence[Scan], stamps: Sequence[Stamp]) -> str:
    buffer = io.StringIO()
    table = csv.writer(buffer, lineterminator="\n")
    names = [field.name for field in fields(Measures)]
    table.writerow(["timestamp", "occasion", "frame", "decision", "detail", "cosine", "detector score", *names])
    for stamp in stamps:
        for verdict in stamp.verdicts:
            scan = scans[verdict.occasion]
            numbers = [""] * (len(names) + 2)
            if verdict.row is not None:
                found = [verdict.cosine, scan.scores[verdict.row], *scan.measures[verdict.row]]
                numbers = [f"{value:.4f}" for value in found]
            label, detail = csv_cell(str(scan.labels[verdict.position])), csv_cell(verdict.detail)
            table.writerow([stamp.name, verdict.occasion, label, verdict.decision, detail, *numbers])
    return buffer.getvalue()


def _sheet(scans: Sequence[Scan], stamp: Stamp, photos: dict[str, Path], settings: PrepareSettings) -> bytes:
    def tile(verdict: Verdict) -> tuple[np.ndarray, list[str]]:
        scan = scans[verdict.occasion]
        label = str(scan.labels[verdict.position]).split(" (")[0][-16:]
        path = photos.get(f"{stamp.name}/{verdict.position}")
        if path is not None:
            return read_photo(path), [label, f"cosine {verdict.cosine:.2f}"]
        if verdict.row is None:
            return scan.thumbnails[verdict.position], [label, verdict.decision]
        return scan.looks[verdict.row], [label, verdict.decision]

    strips = [
        Strip(title=f"{split}: {len(stamp.decided(split))}", tiles=[tile(v) for v in stamp.decided(split)])
        for split in (TRAIN, TEST)
    ]
    others = {SPARE: stamp.decided(SPARE)}
    others["dropped"] = [v for v in stamp.verdicts if v.decision not in (TRAIN, TEST, SPARE)]
    for title, verdicts in others.items():
        shown = evenly(len(verdicts), _SHOWN)
        part = f" ({len(shown)} of them shown)" if len(shown) < len(verdicts) else ""
        strips.append(Strip(title=f"{title}: {len(verdicts)}{part}", tiles=[tile(verdicts[place]) for place in shown]))
    return contact_sheet(f"{settings.identity}, {stamp.name}: {stamp.source}", strips)
