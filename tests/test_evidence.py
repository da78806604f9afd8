"""What differences are worth, from a study's own rows: the tables agree with numbers computed here the slow way."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from clstudy import report
from clstudy.analysis.evidence import EVIDENCE_SCHEMA, SENSITIVITY_SCHEMA, evidence_files, judge
from clstudy.analysis.summary import summarise
from tests.test_report import Study

PANEL = ("reconstruction", "lpips")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return Study(tmp_path_factory.mktemp("evidence") / "study", identities=("ann", "bob", "cat", "dan"))


@pytest.fixture(scope="module")
def found(study):
    return judge(summarise(study.folder))


def paired(study, score, strategy, size, baseline, baseline_size):
    """One difference per identity, by loops."""
    ours = study.per_identity(PANEL, score, strategy, size)
    theirs = study.per_identity(PANEL, score, baseline, baseline_size)
    return np.array([ours[name] - theirs[name] for name in sorted(ours)])


def rows_of(table, score, **wanted):
    wanted |= {"protocol": PANEL[0], "metric": PANEL[1], "score": score}
    return [row for row in table.to_pylist() if all(row[name] == value for name, value in wanted.items())]


def brute_force_p(values):
    patterns = np.array(list(itertools.product([1, -1], repeat=len(values))))
    means = np.abs((patterns * np.abs(values)).mean(axis=1))
    return np.mean(means >= abs(values.mean()) * (1 - 1e-12))


@pytest.mark.parametrize("score", ["aip", "forgetting"])
def test_every_comparison_is_what_a_loop_finds(study, found, score):
    rows = rows_of(found.evidence, score)
    assert len(rows) == 4 + 2 + 2, "4 replay cells against lower, 2 against er_rand, 2 strategies at two sizes"
    raw = []
    for row in rows:
        values = paired(study, score, row["strategy"], row["buffer_size"], row["baseline"], row["baseline_size"])
        n = len(values)
        assert row["mean"] == pytest.approx(values.mean(), rel=1e-9)
        interval = stats.ttest_1samp(values, 0).confidence_interval()
        np.testing.assert_allclose([row["low"], row["high"]], interval, rtol=1e-8)
        d = values.mean() / values.std(ddof=1)
        assert row["effect_size"] == pytest.approx(d * (1 - 3 / (4 * (n - 1) - 1)), rel=0.05), "Hedges' approximation"
        assert row["p_sign_flip"] == pytest.approx(brute_force_p(values))
        assert row["improvement"] == pytest.approx(np.mean(values < 0))
        if row["identities_needed"] is None:
            assert abs(d) < 0.01, "only a difference that nobody could find has no number of people"
        else:
            assert row["identities_needed"] <= row["identities_needed_cautious"]
        raw.append((row["compared"], row["p_sign_flip"], row["p_holm"]))
    for compared in ("strategies", "buffer sizes"):
        block = sorted((p, adjusted) for kind, p, adjusted in raw if kind == compared)
        expected = np.minimum(1, np.maximum.accumulate([p * (len(block) - i) for i, (p, _) in enumerate(block)]))
        np.testing.assert_allclose([adjusted for _, adjusted in block], expected)


def test_the_next_study_finds_the_difference_with_the_power_it_says(found):
    for row in rows_of(found.evidence, "aip")[:3]:
        n, sd = row["n_identities"], abs(row["mean"]) / abs(row["effect_size"])
        df, shift = n - 1, row["detectable"] / ((row["high"] - row["low"]) / 2 / stats.t.ppf(0.975, n - 1))
        limit = stats.t.ppf(0.975, df)
        power = stats.nct.sf(limit, df, shift) + stats.nct.cdf(-limit, df, shift)
        assert power == pytest.approx(0.8, abs=1e-3)
        assert sd > 0


def test_p_values_that_cannot_be_small_are_said_to_be_so(found):
    text = found.statements[(*PANEL, "aip", 0.001, "strategies")]
    assert "n = 4" in text and "none of them can reach 0.05" in text


def test_other_intervals_stand_beside_the_primary_one(study, found):
    rows = rows_of(found.sensitivity, "forgetting")
    methods = list(dict.fromkeys(row["method"] for row in rows))
    assert methods == [
        "Student t (primary)",
        "bootstrap-t",
        "cluster bootstrap, new identities",
        "cluster bootstrap, these identities",
    ]
    assert len(rows) == 6 * len(methods)
    for row in rows:
        values = paired(study, "forgetting", row["strategy"], row["buffer_size"], row["baseline"], row["baseline_size"])
        assert row["mean"] == pytest.approx(values.mean(), rel=1e-9)
        # of Forgetting's difference: its max makes resampled matrices forget more, on both sides alike
        assert row["low"] < row["high"]
        assert ("new" in row["population"]) != row["method"].endswith("these identities")


def test_equal_studies_give_equal_bytes(study, found):
    again = judge(summarise(study.folder))
    assert evidence_files(again) == evidence_files(found)
    assert found.evidence.schema == EVIDENCE_SCHEMA and found.sensitivity.schema == SENSITIVITY_SCHEMA


@pytest.mark.parametrize("identities", [("ann",), ("ann", "bob")])
def test_small_studies_say_what_does_not_exist(tmp_path, identities):
    study = Study(tmp_path / "study", identities=identities, seeds=(0,))
    found = judge(summarise(study.folder))
    for row in rows_of(found.evidence, "aip"):
        assert (row["p_holm"] is None) == (len(identities) == 1)
    notes = {row["method"]: row["note"] for row in rows_of(found.sensitivity, "aip")}
    if len(identities) == 1:
        assert "at least 2" in notes["cluster bootstrap, new identities"]
    report.write_report(study.folder)
    page = (study.folder / "report" / "index.html").read_text()
    assert "AIP: what the differences are worth" in page


def test_a_study_with_a_hole_still_gets_its_tables(tmp_path):
    study = Study(tmp_path / "study", skip=("ann-er_hull-k3-lr0.001-s0",))
    found = judge(summarise(study.folder))
    assert {row["n_seeds"] for row in rows_of(found.evidence, "aip", strategy="er_hull", buffer_size=3)} == {1}


def test_the_report_shows_them_and_keeps_the_files(study):
    report.write_report(study.folder)
    folder = study.folder / "report"
    page = (folder / "index.html").read_text()
    for text in ("Forgetting: what the differences are worth", "by other intervals", "none of them can reach 0.05"):
        assert text in page
    assert "People, seeds, photos: what more of each would buy" in page
    assert "No primary comparison was named before the study ran, so all are exploratory" in page
    for name in ("evidence.csv", "evidence.parquet", "sensitivity.csv", "variance.csv"):
        assert (folder / name).stat().st_size > 100
