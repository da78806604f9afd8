"""The sections of the HTML report on how the study ran: missing trials, settings, versions, timings."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from clstudy.analysis.pages.blocks import Block, Section, Table, paragraph, soft_paragraph, text_table
from clstudy.analysis.printed import flat_settings
from clstudy.analysis.report_data import ReportData
from clstudy.analysis.study_folder import stage_seconds
from clstudy.analysis.summary import Summary
from clstudy.records.sessions import Session, priced_hours, read_sessions
from clstudy.records.study_record import StudyRecord
from clstudy.settings.profiles import Resources

SAME_BITS = (
    "The same kind of processor with the same versions gives the same bits. On another kind, sums are rounded in "
    "another order: with AVX2 instead of AVX-512 a smoke study's LPIPS moved by 0.0008 a photo on average."
)


def missing_section(summary: Summary) -> Section:
    """Trials that failed, were not run or lack cells."""
    title = "Failed and missing trials"
    blocks: list[Block] = []
    if summary.missing:
        count = f"{len(summary.missing)} of {len(summary.study.planned)} trials are missing, in whole or in part."
        table = text_table("", ["trial", "why"], [[m.trial, m.reason] for m in summary.missing], long=True)
        blocks += [paragraph(count), table]
    else:
        blocks.append(paragraph(f"None: all {len(summary.study.planned)} trials of the plan are in the numbers."))
    if summary.left_out:
        blocks.append(paragraph(f"Not of this plan and left out: {', '.join(summary.left_out)}"))
    return Section(anchor="missing", title=title, blocks=tuple(blocks))


def processor_text(kinds: Mapping[str, int]) -> str:
    """What computed the study: "2 kinds of processor: Intel AVX512 (40 stages), Intel AVX2 (12 stages)"."""
    listed = ", ".join(
        f"{kind} ({count} stage{'s' if count > 1 else ''})"
        for kind, count in sorted(kinds.items(), key=lambda one: (-one[1], one[0]))
    )
    return f"{len(kinds)} kind{'s' if len(kinds) > 1 else ''} of processor: {listed}"


def settings_section(record: StudyRecord, kinds: Mapping[str, int]) -> Section:
    """Settings, versions and data digests of ``study.yaml`` (the trials themselves are in the file).

    Args:
        record: the file.
        kinds: kind of processor -> how many stages it computed; empty if no stage says.
    """
    plain = {
        key: value
        for key, value in record.document().items()
        if key not in ("trials", "description", "data_digests", "versions")
    }
    tables = [
        text_table(caption, ["name", "value"], flat, long=True)
        for caption, values in (
            ("Settings", plain),
            ("Versions", record.versions),
            ("Digests of the photos, by identity", record.data_digests),
        )
        if (flat := list(flat_settings(values)))
    ]
    computed = f"Computed on {processor_text(kinds)}. " if kinds else ""
    blocks: tuple[Block, ...] = (
        (soft_paragraph(computed + SAME_BITS), *tables) if tables else (paragraph("study.yaml holds none."),)
    )
    return Section(anchor="settings", title="Settings, versions, data digests", blocks=blocks)


def timing_section(material: ReportData) -> Section:
    """How long the stages took whose timings are in the folder."""
    seconds = stage_seconds(material.summary.study.folder)
    if not seconds:
        blocks: list[Block] = [paragraph("The study's folder has no timings.")]
    else:
        total = sum(seconds)
        rows = [
            ["stages computed", str(len(seconds))],
            ["worker time in all", f"{total / 3600:.2f} h" if total >= 3600 else f"{total / 60:.1f} min"],
            ["median stage", f"{statistics.median(seconds):.1f} s"],
            ["shortest and longest stage", f"{min(seconds):.1f} s to {max(seconds):.1f} s"],
        ]
        caption = "Seconds of one worker per stage; stages that trials share count once"
        blocks = [text_table(caption, ["what", "time"], rows)]
    sessions = read_sessions(material.summary.study.folder)
    blocks += [session_table(sessions)] if sessions else []
    return Section(anchor="timings", title="Timings", blocks=tuple(blocks))


def session_table(sessions: Sequence[Session]) -> Table:
    """Every run of the study: the time that the plan expected for all its stages, and the time of those computed."""
    rows = []
    for one in sessions:
        share = Resources(cpus=one.cpus, gpus=one.gpus)
        expected, taken = (
            priced_hours(share, seconds, one.price_per_hour)
            for seconds in (one.expected_worker_seconds, one.worker_seconds)
        )
        rows.append(
            [
                f"{one.began} UTC, {one.part}",
                f"{one.stages_planned} stages, {one.expected_seconds / 60:.1f} min, {expected}",
                f"{one.stages_computed} stages, {one.seconds / 60:.1f} min, {taken}",
                one.ended + (f"; {one.deaths} workers died" if one.deaths else ""),
            ]
        )
    title = "Runs of the study: the plan (at most so many stages) against what was computed"
    return text_table(title, ["began", "expected", "taken", "ended"], rows)
