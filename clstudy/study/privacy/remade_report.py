"""Replaces a study's report by one without the person, in MLflow too."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import rmtree

import pyarrow as pa
import pyarrow.compute as pc

from clstudy.analysis.loss_path_numbers import TOLERANCE, read_loss_path
from clstudy.analysis.report import build_report, needed_by_reports
from clstudy.errors import UserError
from clstudy.records.study_record import NAME, StudyRecord, write_study_record
from clstudy.safe_text import redacted
from clstudy.storage.checksum_names import checksum_name
from clstudy.storage.places import Place, write_atomically
from clstudy.storage.trees import list_files, local_view
from clstudy.study.privacy.names import names_somebody, without
from clstudy.study.privacy.removal_plan import Forgetting
from clstudy.study.privacy.study_layout import VIEW
from clstudy.study.privacy.tracked_runs import Tracked, remove_pictures
from clstudy.tracking.addresses import artifact_folder
from clstudy.tracking.writer import MlflowWriter


def remake_report(plan: Forgetting) -> list[str]:
    """Write the report of the study without the person, and replace the old one by it, in MLflow too."""
    study, tracked = plan.study, plan.tracked
    old = list_files(study / "report")
    if not old and not (tracked and tracked.reports):
        return []
    left = []
    with _view(study, without(plan.record, plan.traces.names)) as view:
        try:
            _remake_loss_path(study, view, plan.traces.names)
            build_report(view)
        except UserError as error:
            left.append(f"the report, which could not be made anew ({error}): `python -m clstudy.report`")
        new = list_files(view / "report")
        for path in new:
            write_atomically(study / "report" / path, (view / "report" / path).read_bytes())
        for path in old.keys() - new.keys():
            (study / "report" / path).unlink(missing_ok=True)
        if tracked is not None and tracked.reports:
            left += _replace_report(plan, tracked, view / "report")
    if isinstance(study, Path):
        rmtree(study / VIEW, ignore_errors=True)
    return left


@contextmanager
def _view(study: Place, record: StudyRecord) -> Iterator[Path]:
    """A local folder that looks like the study with another ``study.yaml`` and without a report."""
    with local_view(study, lambda path: needed_by_reports(path) and not path.startswith("report/")) as folder:
        view = folder
        if isinstance(study, Path):  # links, in the study itself: people's pictures stay in its storage
            rmtree(study / VIEW, ignore_errors=True)
            view = study / VIEW / study.name
            view.mkdir(parents=True)
            for entry in study.iterdir():
                if entry.name not in (VIEW, NAME, checksum_name(NAME), "report"):
                    (view / entry.name).symlink_to(entry)
        write_study_record(view, record)
        yield view


def _remake_loss_path(study: Place, view: Path, names: Collection[str]) -> None:
    """Write the loss path of the others again (at the default tolerance), if there was one."""
    try:
        rows = read_loss_path(study)
    except UserError:  # damaged: it goes with the old report
        return
    if rows is None:
        return
    kept = rows.filter(pc.invert(pc.is_in(rows["identity"], pa.array(sorted(names)))))
    if kept.num_rows:
        from clstudy.study.loss_path.results import write_results  # torch only where there is a loss path

        write_results(view, kept, TOLERANCE)


def _replace_report(plan: Forgetting, tracked: Tracked, report: Path) -> list[str]:
    for run in tracked.reports:
        try:
            remove_pictures(tracked, run)
        except Exception as error:  # of whatever store the server keeps them in
            return [f"the old report in {tracked.shown} ({type(error).__name__}: {redacted(str(error))})"]
    writer = MlflowWriter(tracked.uri, plan.record.name, artifact_location=artifact_folder(plan.study, tracked.uri))
    if report.is_dir():
        writer.attach_report(report)
    return [f"the new report is not in {tracked.shown}: `python -m clstudy.tracking rebuild`"] if writer.flush() else []


def remove_comparison(plan: Forgetting) -> None:
    """Remove the page that compares studies (``python -m clstudy.report A B``): its means include the person."""
    page = plan.study.parent / "comparison.html"
    with suppress(FileNotFoundError):
        if names_somebody(page.read_bytes(), [plan.record.name]):
            page.unlink()
