"""python -m clstudy.report STUDY [STUDY ...]: rebuild a study's report from its rows (needs neither torch nor Ray)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from clstudy.analysis.claims import differences_of_interest
from clstudy.analysis.evidence import evidence_files, judge
from clstudy.analysis.figures import draw
from clstudy.analysis.headroom import HEADROOM, headroom_table, headrooms
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
        for name, content in {**files, "variance.csv": to_csv(budgets).encode()}.items():
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
            write_atomically(folder / "index.html", study_page(material, gallery, extra).encode())
        except OSError:
            raise
        except Exception as error:
            _LOG.exception("the page of %s could not be made", summary.study.name)
            broken.append(f"index.html could not be made, which is a bug in clstudy: {type(error).__name__}: {error}")
    except OSError as error:
        raise UserError(f"the report cannot be written: {error}") from error
    return Report(material=material, broken=tuple(broken))


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


def write_comparison(reports: Sequence[Report], folder: Place | None = None) -> Place:
    """Write ``comparison.html`` with the main tables of several studies into a folder, by default the first one's own.

    Raises:
        UserError: it cannot be written.
    """
    names = study_labels([report.summary.study for report in reports])
    materials = {name: report.material for name, report in zip(names, reports, strict=True)}
    path = (folder or reports[0].summary.study.folder.resolve().parent) / "comparison.html"
    try:
        write_atomically(path, comparison_page(materials).encode())
    except OSError as error:
        raise UserError(f"the comparison cannot be written: {error}") from error
    return path
