"""A study's results as Python values, read from its folder (no torch, no Ray)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from clstudy.analysis.answer import answer
from clstudy.analysis.report import needed_by_reports, place_report
from clstudy.analysis.report_data import gather
from clstudy.analysis.study_folder import trial_stages
from clstudy.analysis.summary import Summary, summarise
from clstudy.errors import UserError
from clstudy.records.results import read_result, result_path
from clstudy.records.rows import RESULT_SCHEMA
from clstudy.records.stage_record import StageInputs
from clstudy.records.study_record import require_study
from clstudy.storage.places import Place, open_place
from clstudy.storage.trees import local_view


class StudyResults:
    """A study's results so far. They are read on first use and cached; call ``open_study`` again to see newer ones.

    Only ``report`` changes anything in the study.
    """

    def __init__(self, place: Place):
        self.place = place

    def __repr__(self) -> str:
        return f"StudyResults({str(self.place)!r})"

    @cached_property
    def _summary(self) -> Summary:
        with local_view(self.place, needed_by_reports) as folder:
            return summarise(folder)

    @property
    def name(self) -> str:
        """The study's name."""
        return self._summary.study.name

    @property
    def complete(self) -> bool:
        """Whether every planned trial is in the numbers."""
        return self._summary.complete

    @property
    def missing(self) -> Mapping[str, str]:
        """Trial -> the reason why it is not in the numbers."""
        return {one.trial: one.reason for one in self._summary.missing}

    @cached_property
    def rows(self) -> pa.Table:
        """Every measured value of the finished trials (``clstudy.records.rows.RESULT_SCHEMA``).

        One row per image, or set of images, metric, train timestamp and test timestamp.
        """
        found = [read_result(result_path(self.place, trial)).rows for trial in sorted(self._summary.files)]
        tables = [table.replace_schema_metadata(None) for table in found if table is not None]
        return pa.concat_tables(tables) if tables else RESULT_SCHEMA.empty_table()

    @property
    def scores(self) -> pa.Table:
        """AIP, Forgetting, BWT and final performance by strategy and buffer size, with intervals.

        The columns are those of ``clstudy.analysis.score_tables.SCORES_SCHEMA``.
        """
        return self._summary.scores

    def compare(self, baseline: str | None = None) -> pa.Table:
        """Paired differences to baselines on the same people and seeds, with intervals.

        Args:
            baseline: one of ``lower`` and ``er_rand``; None: all.

        Raises:
            UserError: the study has no comparison with that baseline.
        """
        paired = self._summary.paired
        if baseline is None:
            return paired
        known = sorted(set(paired["baseline"].to_pylist()))
        if baseline not in known:
            raise UserError(f"nothing is compared with {baseline!r} in {self.name}; baselines: {', '.join(known)}")
        return paired.filter(pc.equal(paired["baseline"], baseline))

    @cached_property
    def stages(self) -> Mapping[str, tuple[StageInputs, ...]]:
        """Trial -> what each of its stages was computed from, in order; empty if its stages are not available."""
        with local_view(self.place, needed_by_reports) as folder:
            return {
                trial.trial: tuple(stage.asked for stage in trial_stages(folder, trial.trial))
                for trial in self._summary.study.trials
            }

    def answer(self) -> tuple[str, ...]:
        """The study's answer in sentences, as printed at the end of a run."""
        return tuple(answer(gather(self._summary)))

    def report(self) -> Place:
        """Write the report (index.html, tables, figures) and return its page.

        Raises:
            UserError: it cannot be written.
        """
        place_report(self.place)
        return self.place / "report" / "index.html"


def open_study(place: Place | str) -> StudyResults:
    """A study's results from its folder (``runs/hull_sizes``) or address (``s3://bucket/clstudy/hull_sizes``).

    Raises:
        UserError: there is no study, or its ``study.yaml`` is damaged.
    """
    found = open_place(place) if isinstance(place, str) else place
    require_study(found)
    return StudyResults(found)
