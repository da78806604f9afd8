"""python -m clstudy.report STUDY [STUDY ...]: rebuild a study's report from its rows (needs neither torch nor Ray)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from clstudy.analysis.between_studies import (
    Difference,
    TestPhotos,
    between,
    between_table,
    shared_people,
    test_photos,
    what_differs,
)
from clstudy.analysis.claims import differences_of_interest
from clstudy.analysis.evidence import evidence_files, judge
from clstudy.analysis.figures import Drawing, draw, quiet_text
from clstudy.analysis.figures.between import between_drawing
from clstudy.analysis.headroom import HEADROOM, headroom_table, headrooms
from clstudy.analysis.matrix import read_rows
from clstudy.analysis.pages.between import Pairs
from clstudy.analysis.pages.claims import claim_files, claim_sections
from clstudy.analysis.pages.evidence import evidence_sections
from clstudy.analysis.pages.horizons import horizon_sections
from clstudy.analysis.pages.loss_path import loss_path_sections
from clstudy.analysis.pages.noise import noise_sections
from clstudy.analysis.pages.rates import rate_sections
from clstudy.analysis.pages.study import comparison_page, study_page
from clstudy.analysis.pages.tracking import tracking_sections
from clstudy.analysis.pages.variance import variance_sections
from clstudy.analysis.report_data import ReportData, gather
from clstudy.analysis.study_plan import study_labels
from clstudy.analysis.summary import Summary, summarise
from clstudy.analysis.tables import table_files, to_csv
from clstudy.analysis.variance import variance_table
from clstudy.errors import UserError
from clstudy.records.study_record import StudyRecord, read_study_record
from clstudy.settings.metric_facts import Metrics
from clstudy.storage.places import Place, require_writable, write_atomically
from clstudy.storage.trees import copy_tree, local_view

_LOG = logging.getLogger(__name__)


def needed_by_reports(name: str) -> bool:
    """Whether a report reads a file of a study: everything but weights and learned tensors."""
    folder, _, rest = name.partition("/")
    return folder not in ("weights", "learned", "ray", "inputs") or (folder == "learned" and rest.endswith("COMPLETE"))


@dataclass(frozen=True, kw_only=True)
class Report:
    """A written report. ``broken``: sentences on parts that are missing because of a bug in clstudy."""

    material: ReportData
    record: StudyRecord
    test_photos: TestPhotos
    broken: tuple[str, ...]

    @property
    def summary(self) -> Summary:
        """The study's tables."""
        return self.material.summary


def write_report(study_dir: Path | str) -> Summary:
    """As ``build_report``, for callers that want the tables only."""
    return build_report(study_dir).summary


def build_report(study_dir: Path | str) -> Report:
    """Summarise a study and write ``report/``: index.html, tables (``table_files``, ``evidence_files``,
    ``claim_files``), figures.

    The tables are written first. A figure or a page that fails because of a bug is logged with its traceback and named
    in ``broken``, so that a study's results are not lost because of a picture.

    Raises:
        UserError: the folder is not a study, its results cannot be read, or the report cannot be written.
    """
    summary = summarise(study_dir)
    folder = Path(study_dir) / "report"
    require_writable(folder, "the report's folder", "mend its permissions, or report on a copy of the study")
    try:
        found = judge(summary, differences_of_interest(summary))
        budgets = variance_table(summary)
        files = {**table_files(summary), **evidence_files(found), **claim_files(summary)}
        files[HEADROOM] = to_csv(headroom_table(headrooms(summary))).encode()
        files["variance.csv"] = to_csv(budgets).encode()
        for name, content in files.items():
            write_atomically(folder / name, content)
        material = gather(summary)
        gallery = draw(material)
        for name, content in gallery.files.items():
            write_atomically(folder / name, content)
        broken = [f"{skipped.title}: {skipped.reason}" for skipped in gallery.skipped if skipped.broken]
        try:
            study, folder_of_study = summary.study, summary.study.folder
            extra = [
                *claim_sections(material),
                *horizon_sections(material),
                *evidence_sections(material, found),
                *variance_sections(material, budgets),
                *noise_sections(material),
                *rate_sections(study),
                *loss_path_sections(folder_of_study),
                *tracking_sections(folder_of_study),
            ]
            write_atomically(folder / "index.html", study_page(material, gallery, extra, files).encode())
        except OSError:
            raise
        except Exception as error:
            _LOG.exception("the page of %s could not be made", summary.study.name)
            broken.append(f"index.html could not be made, which is a bug in clstudy: {type(error).__name__}: {error}")
    except OSError as error:
        raise UserError(f"the report cannot be written: {error}") from error
    rows = read_rows(list(summary.files.values()), ["identity", "image"])
    return Report(
        material=material,
        record=read_study_record(summary.study.folder),
        test_photos=test_photos(rows),
        broken=tuple(broken),
    )


@contextmanager
def reported(place: Place) -> Iterator[tuple[Path, Report]]:
    """Write the report of a local or remote study, and yield a local view of the study's folder with the report.

    Raises:
        UserError: as ``build_report``.
        OSError: the storage does not answer.
    """
    with local_view(place, needed_by_reports) as folder:
        report = build_report(folder)
        if folder != place:
            copy_tree(folder / "report", place / "report", replace=True)
        yield folder, report


def place_report(place: Place) -> Report:
    """As ``build_report``, for a study that may be in an object store; the report is written there, too.

    Raises:
        UserError: as ``build_report``, or the storage does not answer.
    """
    try:
        with reported(place) as (_, report):
            return report
    except OSError as error:
        raise UserError(f"the storage {place} cannot be used: {error}") from error


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A written comparison: where it is, what is not the same in its studies, and each later one minus the first."""

    path: Place
    differences: tuple[Difference, ...]
    pairs: Pairs
    metrics: Metrics


def write_comparison(reports: Sequence[Report], folder: Place | None = None) -> Comparison:
    """Write ``comparison.html``, ``comparison.csv`` and a figure for each two (``comparison_0.svg``, …) into a folder.

    By default into that which holds the first study.

    Paired differences are of every later study minus the first, on the people of both.

    Raises:
        UserError: they cannot be written.
    """
    studies = [report.summary.study for report in reports]
    names = study_labels(studies)
    materials = {name: report.material for name, report in zip(names, reports, strict=True)}
    differences = tuple(what_differs([report.record for report in reports]))
    pairs = {}
    for name, report in zip(names[1:], reports[1:], strict=True):
        shared = shared_people(reports[0].record, report.record, (reports[0].test_photos, report.test_photos))
        pairs[names[0], name] = (shared, between(reports[0].material, report.material, shared.people))
    metrics = {name: facts for material in materials.values() for name, facts in material.metrics.items()}
    drawings = _drawn_between(pairs, metrics)
    where = folder or studies[0].folder.resolve().parent
    path = where / "comparison.html"
    try:
        write_atomically(path, comparison_page(materials, differences, pairs, metrics, drawings).encode())
        for drawing in drawings.values():
            for kind, content in drawing.files.items():
                write_atomically(where / f"{drawing.name}.{kind}", content)
        table = between_table({both: cells for both, (_, cells) in pairs.items()})
        write_atomically(where / "comparison.csv", to_csv(table).encode())
    except OSError as error:
        raise UserError(f"the comparison cannot be written: {error}") from error
    return Comparison(path=path, differences=differences, pairs=pairs, metrics=metrics)


def _drawn_between(pairs: Pairs, metrics: Metrics) -> dict[tuple[str, str], Drawing]:
    """The figures of each two studies that have cells in common."""
    found = {}
    with quiet_text():
        for place, ((first, second), (_, cells)) in enumerate(pairs.items()):
            drawing = between_drawing(first, second, cells, metrics, name=f"comparison_{place}")
            if drawing is not None:
                found[first, second] = drawing
    return found
