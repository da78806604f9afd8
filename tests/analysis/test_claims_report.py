"""Primary comparison, exploration and equivalence tests in a study's tables and report, against scipy and loops."""

from __future__ import annotations

import csv
import io
import math
import re

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from clstudy.analysis.claim_notes import claim_notes
from clstudy.analysis.claims import (
    chance_marks,
    differences_of_interest,
    equivalence_table,
    primary_answer,
    primary_table,
)
from clstudy.analysis.figures import Gallery
from clstudy.analysis.pages.claims import claim_files, claim_sections
from clstudy.analysis.pages.study import study_page
from clstudy.analysis.report_data import gather
from clstudy.analysis.statistics.equivalence import CANNOT_SAY, EXCEEDS, RULES_OUT, equivalence, paired_t
from clstudy.analysis.summary import summarise
from clstudy.analysis.tables import to_markdown
from tests.analysis.test_report import Study, spoken
from tests.support.pages import shown

PANEL = ("reconstruction", "lpips")
PRIMARY = {"protocol": "reconstruction", "metric": "lpips", "score": "forgetting", "between": ["er_hull", "er_rand"]}
VALUES = hnp.arrays(
    np.float64, st.integers(2, 12), elements=st.floats(-1, 1).map(lambda value: round(value, 6)), unique=True
)


def claim(study: Study, primary=None, effects=None, trials=0, before=()):
    """Write claims into study.yaml as a run does."""
    path = study.folder / "study.yaml"
    entry = {"primary": primary, "effects": effects, "finished_trials": trials, "measured_stages": trials}
    document = yaml.safe_load(path.read_text()) | {"claims": [*before, entry]}
    path.write_text(yaml.safe_dump(document))
    return study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return Study(tmp_path_factory.mktemp("claims") / "study", identities=("ann", "bob", "cat", "dan", "eve", "fay"))


def differences(study, score, strategy, size, baseline, baseline_size):
    ours = study.per_identity(PANEL, score, strategy, size)
    theirs = study.per_identity(PANEL, score, baseline, baseline_size)
    return np.array([ours[name] - theirs[name] for name in sorted(ours)])


def page_of(summary):
    """The report's sections on claims."""
    return "\n".join(f"{section.title}\n{shown(section)}" for section in claim_sections(gather(summary)))


# --- numbers ---------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(VALUES, st.floats(0.01, 3))
def test_two_one_sided_tests_are_scipys(values, margin):
    found = equivalence(values, margin)
    np.testing.assert_allclose(
        [found.p_not_below, found.p_not_above],
        [
            stats.ttest_1samp(values, margin, alternative="less").pvalue,
            stats.ttest_1samp(values, -margin, alternative="greater").pvalue,
        ],
        rtol=1e-6,
        atol=1e-12,
    )
    np.testing.assert_allclose(
        [found.low, found.high], stats.ttest_1samp(values, 0).confidence_interval(0.9), rtol=1e-7, atol=1e-12
    )
    assert paired_t(values) == pytest.approx(stats.ttest_1samp(values, 0).pvalue, rel=1e-6, abs=1e-12)
    inside, outside = -margin < found.low and found.high < margin, found.low > margin or found.high < -margin
    if min(abs(abs(found.low) - margin), abs(abs(found.high) - margin)) > 1e-9:
        assert found.verdict == (RULES_OUT if inside else EXCEEDS if outside else CANNOT_SAY)


@settings(deadline=None, max_examples=50)
@given(VALUES, st.floats(0.01, 3), st.floats(1e-3, 1e3))
def test_a_verdict_depends_on_neither_unit_nor_sign_and_a_wider_margin_is_easier_to_stay_within(values, margin, unit):
    found = equivalence(values, margin)
    near = min(abs(abs(found.low) - margin), abs(abs(found.high) - margin)) <= 1e-9
    if not near:
        assert equivalence(values * unit, margin * unit).verdict == found.verdict
        assert equivalence(-values, margin).verdict == found.verdict
    mirrored = equivalence(-values, margin)
    assert mirrored.p_not_below == pytest.approx(found.p_not_above, rel=1e-9, abs=1e-12)
    if found.verdict == RULES_OUT:
        assert equivalence(values, 2 * margin).verdict == RULES_OUT
    if found.verdict == EXCEEDS and not near:
        assert equivalence(values, margin / 2).verdict == EXCEEDS


@settings(deadline=None, max_examples=50)
@given(VALUES, st.floats(0.02, 0.5))
def test_a_share_of_an_estimated_mean_is_tested_person_by_person(values, share):
    reference = 2 + np.sin(np.arange(values.size))
    found = equivalence(values, share * reference)
    np.testing.assert_allclose(
        [found.p_not_below, found.p_not_above],
        [
            stats.ttest_1samp(values - share * reference, 0, alternative="less").pvalue,
            stats.ttest_1samp(values + share * reference, 0, alternative="greater").pvalue,
        ],
        rtol=1e-6,
        atol=1e-12,
    )
    assert found.margin == pytest.approx(share * reference.mean())


def test_a_difference_as_large_as_the_margin_is_ruled_out_in_one_study_of_twenty():
    """The error rates that are promised, for an absolute margin and for a share of an estimated mean."""
    rng = np.random.default_rng(5)
    studies, n, share = 1_000, 5, 0.2
    reference = rng.normal(1.0, 0.3, size=(studies, n))
    noise = rng.normal(0, 0.05, size=(studies, n))
    for values, margins in ((0.2 + noise, np.full_like(noise, 0.2)), (share * reference + noise, share * reference)):
        verdicts = [equivalence(one, margin).verdict for one, margin in zip(values, margins, strict=True)]
        for verdict in (RULES_OUT, EXCEEDS):
            assert verdicts.count(verdict) / studies == pytest.approx(0.05, abs=0.02)


def test_values_without_spread_and_single_people():
    assert equivalence([0.0] * 5, 0.1).verdict == RULES_OUT
    assert equivalence([0.3] * 5, 0.1).verdict == EXCEEDS
    alone = equivalence([0.0], 0.1)
    assert alone.verdict == CANNOT_SAY and math.isnan(alone.p_not_below) and math.isnan(alone.low)
    assert paired_t([0.0] * 4) == 1.0
    assert math.isnan(paired_t([0.1 + 0.2, 0.3, 0.3])), "differences equal up to rounding have no t"
    assert math.isnan(paired_t([0.3]))
    for wrong in (0.0, -1.0, math.nan, [1.0, 2.0]):
        with pytest.raises(ValueError, match="margins"):
            equivalence([0.1, 0.2, 0.3], wrong)
    with pytest.raises(ValueError, match="finite difference"):
        equivalence([math.nan, 1.0], 0.1)


# --- a study ---------------------------------------------------------------------------------------------------------


def test_a_study_without_a_claim_is_exploratory_and_counts_what_chance_would_mark(study):
    (study.folder / "study.yaml").write_text(
        yaml.safe_dump(
            {k: v for k, v in yaml.safe_load((study.folder / "study.yaml").read_text()).items() if k != "claims"}
        )
    )
    summary = summarise(study.folder)
    rows = summary.paired.to_pylist()
    assert {row["claim"] for row in rows} == {"exploratory"}
    here = [row for row in rows if (row["protocol"], row["metric"]) == PANEL]
    marked = sum(not row["low"] <= 0 <= row["high"] for row in here)
    marks = chance_marks(summary, PANEL)
    assert (marks.shown, marks.marked) == (len(here), marked) and marks.expected == pytest.approx(0.05 * len(here))
    (note,) = claim_notes(summary)
    assert note.startswith("No primary comparison was named before the study ran, so all are exploratory")
    assert f"of {len(here)} paired differences in Reconstruction LPIPS about {0.05 * len(here):.1f} would" in note
    assert f"over all metrics about {0.05 * len(rows):.1f} of {len(rows)}" in note
    assert note in to_markdown(summary) and note.split(":")[0] in " ".join(spoken(summary).split())
    assert primary_answer(summary) is None and claim_sections(gather(summary)) == []
    assert all(content.count(b"\n") == 1 for content in claim_files(summary).values()), "a header and no rows"


def test_the_primary_family_is_tested_with_holm_and_nothing_else_is_called_primary(study):
    claim(study, PRIMARY)
    summary = summarise(study.folder)
    answer = primary_answer(summary)
    assert answer is not None and not answer.late
    rows = primary_table(answer).to_pylist()
    assert [row["buffer_size"] for row in rows] == [3, 5], "without a size, the pair at every size is the family"
    expected = []
    for row in rows:
        values = differences(study, "forgetting", "er_hull", row["buffer_size"], "er_rand", row["buffer_size"])
        test = stats.ttest_1samp(values, 0)
        assert row["mean"] == pytest.approx(values.mean()) and row["p_t"] == pytest.approx(test.pvalue)
        np.testing.assert_allclose([row["low"], row["high"]], test.confidence_interval())
        signs = np.array(np.meshgrid(*[[1, -1]] * len(values))).reshape(len(values), -1)
        assert row["p_sign_flip"] == pytest.approx(np.mean(np.abs(values @ signs) >= abs(values.sum()) - 1e-12))
        expected.append(test.pvalue)
    small, large = sorted(expected)
    adjusted = {small: min(1, 2 * small), large: max(min(1, 2 * small), large)}
    assert [row["p_t_holm"] for row in rows] == pytest.approx([adjusted[p] for p in expected])
    for row in rows:
        decided = "better" if row["mean"] < 0 else "worse"
        assert row["verdict"] == (decided if row["p_t_holm"] <= 0.05 else "not told apart")
    paired = summary.paired.to_pylist()
    assert sorted(row["buffer_size"] for row in paired if row["claim"] == "primary") == [3, 5]
    assert chance_marks(summary).shown == len(paired) - 2
    first, second = claim_notes(summary)
    assert first.startswith(
        "Primary comparison (named before anything was measured): Forgetting (Reconstruction LPIPS)"
    )
    assert "Holm over the 2: at K = 3 " in first and second.startswith("All other comparisons are exploratory")


def test_two_scores_are_one_family(study):
    claim(study, PRIMARY | {"score": ["aip", "forgetting"], "buffer_size": 3})
    summary = summarise(study.folder)
    answer = primary_answer(summary)
    assert answer is not None
    rows = {row["score"]: row for row in primary_table(answer).to_pylist()}
    p = {
        score: stats.ttest_1samp(differences(study, score, "er_hull", 3, "er_rand", 3), 0).pvalue
        for score in ("aip", "forgetting")
    }
    assert {score: row["p_t"] for score, row in rows.items()} == pytest.approx(p)
    small = min(p.values())
    expected = {score: max(2 * small, value) if value > small else 2 * value for score, value in p.items()}
    assert {score: row["p_t_holm"] for score, row in rows.items()} == pytest.approx(
        {score: min(1.0, value) for score, value in expected.items()}
    )
    note = claim_notes(summary)[0]
    assert "Holm over the 2: AIP at K = 3 " in note and "; Forgetting at K = 3 " in note
    page = page_of(summary)
    for title in ("AIP", "Forgetting"):
        assert f"{title}: er_hull" in page
    assert sum(row["claim"] == "primary" for row in summary.paired.to_pylist()) == 2


def test_a_clear_primary_difference_is_found(tmp_path):
    study = claim(Study(tmp_path / "study", identities=tuple("abcdef")), PRIMARY | {"buffer_size": 3, "score": "aip"})
    summary = summarise(study.folder)
    for cell, by_identity in summary.values.items():
        if cell[:3] == (*PANEL, "aip") and cell.strategy == "er_hull":
            for seeds in by_identity.values():
                seeds.update({seed: value - 5 for seed, value in seeds.items()})
    answer = primary_answer(summary)
    assert answer is not None and [answer.verdict(0)] == ["better"] and len(answer.family.members) == 1
    assert "sign-flip p = 0.031): better." in claim_notes(summary)[0]


def test_a_claim_made_after_results_is_shown_and_not_believed(study):
    early = {"primary": PRIMARY | {"score": "aip"}, "effects": None, "finished_trials": 0, "measured_stages": 0}
    claim(study, PRIMARY, trials=7, before=[early])
    summary = summarise(study.folder)
    assert {row["claim"] for row in summary.paired.to_pylist()} == {"exploratory"}
    assert (
        "changed after 7 trials were finished and 7 stages measured: read it as exploratory" in claim_notes(summary)[0]
    )
    page = page_of(summary)
    assert "before anything was measured: aip (reconstruction lpips), er_hull minus er_rand" in page
    assert "with 7 trials finished and 7 stages measured: forgetting (reconstruction lpips)" in page
    assert "named after results" in page
    rows = list(csv.DictReader(io.StringIO(claim_files(summary)["primary.csv"].decode())))
    assert {row["before_results"] for row in rows} == {"false"}
    claim(study, None, trials=7, before=[early])
    assert "were changed after 7 trials" in claim_notes(summarise(study.folder))[0]


def test_every_comparison_says_whether_it_rules_the_smallest_difference_out(study):
    claim(study, PRIMARY, {"aip": 0.4, "forgetting": "25% of lower", "final": "3%"})
    summary = summarise(study.folder)
    table = equivalence_table(summary)
    assert differences_of_interest(summary) == {(*PANEL, "aip"): 0.4}
    lower = study.per_identity(PANEL, "forgetting", "lower", None)
    forgot = np.array([lower[name] for name in sorted(lower)])
    seen = set()
    for row in table.to_pylist():
        assert (row["protocol"], row["metric"]) == PANEL
        sizes = [
            None if name in ("lower", "upper") else row["buffer_size"] for name in (row["strategy"], row["baseline"])
        ]
        values = differences(study, row["score"], row["strategy"], sizes[0], row["baseline"], sizes[1])
        theirs = study.per_identity(PANEL, row["score"], row["baseline"], sizes[1])
        margins = {
            "aip": np.full(len(values), 0.4),
            "forgetting": 0.25 * forgot,
            "final": 0.03 * np.array([theirs[name] for name in sorted(theirs)]),
        }[row["score"]]
        below = stats.ttest_1samp(values - margins, 0, alternative="less").pvalue
        above = stats.ttest_1samp(values + margins, 0, alternative="greater").pvalue
        assert (row["p_not_below"], row["p_not_above"]) == pytest.approx((below, above))
        assert row["margin"] == pytest.approx(margins.mean())
        ruled, beyond = max(below, above) <= 0.05, max(below, above) >= 0.95
        assert row["verdict"] == (RULES_OUT if ruled else EXCEEDS if beyond else CANNOT_SAY)
        seen.add((row["score"], row["verdict"]))
    assert {("aip", RULES_OUT), ("final", CANNOT_SAY)} <= seen
    assert table.num_rows == 6 + 6 + 9, "er_rand and lower as baselines; upper has a final performance only"
    note = claim_notes(summary)[-1]
    counts = [int(number) for number in re.findall(r"in (\d+)", note)]
    assert len(counts) == 3 and sum(counts) == table.num_rows and f"of {table.num_rows} comparisons" in note
    page = page_of(summary)
    assert "Which differences are ruled out" in page and "rules out 0.4" in page and "3% of baseline (" in page
    rows = list(csv.DictReader(io.StringIO(claim_files(summary)["equivalence.csv"].decode())))
    assert len(rows) == table.num_rows


def test_a_share_of_nothing_is_no_difference(tmp_path):
    study = claim(Study(tmp_path / "study"), None, {"forgetting": "5% of lower"})
    summary = summarise(study.folder)
    for cell, by_identity in summary.values.items():
        if cell.score == "forgetting" and cell.strategy == "lower":
            for seeds in by_identity.values():
                seeds.update(dict.fromkeys(seeds, -0.001))
    rows = equivalence_table(summary).to_pylist()
    assert {row["verdict"] for row in rows} == {CANNOT_SAY} and {row["margin"] for row in rows} == {None}
    assert all("a share of lower's forgetting is no difference: its mean is -0.001" in row["note"] for row in rows)


@pytest.mark.parametrize("identities", [("ann",), ("ann", "bob")])
def test_small_studies_get_their_sentences(tmp_path, identities):
    study = claim(Study(tmp_path / "study", identities=identities, seeds=(0,)), PRIMARY, {"aip": 0.1})
    page = page_of(summarise(study.folder))
    said = "Primary comparison (named before anything was measured)"
    assert said in page
    whole = study_page(gather(summarise(study.folder)), Gallery(drawings=(), skipped=()))
    assert whole.index('class="answer"') < whole.index(said) < whole.index("</header>"), "it opens the page"
    if len(identities) == 1:
        assert "in one identity, no test" in page and "One identity: no test." in page


def test_a_primary_that_is_not_in_the_numbers_yet(tmp_path):
    study = Study(tmp_path / "study")
    claim(study, PRIMARY | {"between": ["kmeans", "er_rand"]})
    assert "No two trials of it are in the numbers yet" in claim_notes(summarise(study.folder))[0]
