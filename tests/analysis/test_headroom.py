"""Headroom: what random choice leaves to gain, and how far random memories differ."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from statistics import stdev

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clstudy.analysis.headroom import (
    HEADROOM,
    Headroom,
    headroom_table,
    headrooms,
    read_headrooms,
    seed_spread,
    sentences,
)
from clstudy.analysis.matrix import ScoreCell
from clstudy.analysis.report import build_report
from clstudy.analysis.summary import Summary, summarise
from clstudy.analysis.tables import to_csv
from tests.analysis.test_report import Study

CELL = ScoreCell("reconstruction", "lpips", "final", 0.003, "er_rand", 3)


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> Summary:
    """A study of made-up rows with two seeds."""
    return summarise(Study(tmp_path_factory.mktemp("headroom") / "study", seeds=(0, 1)).folder)


def with_values(summary: Summary, **scores: dict[str, dict[int, float]]) -> Summary:
    """A summary with these scores of lower, er_rand and upper instead of its own."""
    cells = {
        CELL._replace(score=score, strategy=strategy, buffer_size=3 if strategy == "er_rand" else None): found
        for name, found in scores.items()
        for strategy, score in [name.rsplit("_", 1)]
    }
    return replace(summary, values=cells)


def test_the_shares_are_quotients_of_means(summary: Summary) -> None:
    people = [f"p{number}" for number in range(6)]
    rng = np.random.default_rng(0)
    lower, rand, upper = (
        {name: {0: centre + rng.normal(0, 0.002)} for name in people} for centre in (0.06, 0.03, 0.02)
    )
    lost, kept = ({name: {0: centre + rng.normal(0, 0.001)} for name in people} for centre in (0.04, 0.01))
    found = headrooms(
        with_values(
            summary, lower_final=lower, er_rand_final=rand, upper_final=upper, lower_forgetting=lost,
            er_rand_forgetting=kept,
        )
    )  # fmt: skip
    final, forgetting = (next(one for one in found if one.cell.score == name) for name in ("final", "forgetting"))

    def mean(scores: dict[str, dict[int, float]]) -> float:
        return float(np.mean([seeds[0] for seeds in scores.values()]))

    assert final.left == pytest.approx((mean(rand) - mean(upper)) / (mean(lower) - mean(upper)))
    assert final.left_low < final.left < final.left_high and not final.none
    assert forgetting.left == pytest.approx(mean(kept) / mean(lost))
    assert final.gained == pytest.approx(mean(lower) - mean(rand)), "positive is better"
    assert math.isnan(final.spread) and math.isnan(final.of_choice), "one seed"
    assert "needs two seeds" in sentences([final])[0]


def test_where_nothing_is_left_it_is_said(summary: Summary) -> None:
    people = [f"p{number}" for number in range(6)]
    lower = {name: {0: 0.05, 1: 0.05} for name in people}
    upper = {name: {0: 0.02, 1: 0.02} for name in people}
    rand = {name: {0: 0.02 + 0.002 * (-1) ** number, 1: 0.02} for number, name in enumerate(people)}
    (one,) = headrooms(with_values(summary, lower_final=lower, er_rand_final=rand, upper_final=upper))
    assert one.none and "no way of choosing can show a gain here" in sentences([one])[0]
    (without,) = headrooms(with_values(summary, lower_final=lower, er_rand_final=rand))
    assert math.isnan(without.left) and "upper is not in the study" in sentences([without])[0]


def test_the_order_of_training_is_taken_out_of_the_spread() -> None:
    one = Headroom(
        cell=CELL,
        left=0.2,
        left_low=0.1,
        left_high=0.3,
        spread=0.005,
        control=0.003,
        gained=0.02,
        n_identities=5,
        n_seeds=4,
    )
    assert one.of_choice == pytest.approx(0.004) and "(20% of its gain)" in sentences([one])[0]
    steady = replace(one, control=0.006)
    assert steady.of_choice == 0 and "no more than the order of training" in sentences([steady])[0]


@given(st.lists(st.lists(st.floats(-1, 1), min_size=2, max_size=5), min_size=1, max_size=5))
def test_the_spread_is_the_pooled_deviation_within_identities(found: list[list[float]]) -> None:
    scores = {str(name): dict(enumerate(values)) for name, values in enumerate(found)}
    degrees = [len(values) - 1 for values in found]
    pooled = math.sqrt(sum(stdev(values) ** 2 * d for values, d in zip(found, degrees, strict=True)) / sum(degrees))
    assert seed_spread(scores) == pytest.approx(pooled, abs=1e-9)
    shifted = {name: {seed: value + 7 * int(name) for seed, value in one.items()} for name, one in scores.items()}
    assert seed_spread(shifted) == pytest.approx(pooled, abs=1e-6), "differences between identities do not count"


def test_the_report_writes_what_the_plan_reads(summary: Summary) -> None:
    folder = summary.study.folder
    assert not build_report(folder).broken
    found = headrooms(summary)
    assert found
    read = read_headrooms((folder / "report" / HEADROOM).read_bytes())
    assert to_csv(headroom_table(read)) == to_csv(headroom_table(found))
    assert "Headroom: how much could choosing matter?" in (folder / "report" / "index.html").read_text()


@pytest.mark.parametrize("content", [b"", b"not,a\ntable,of", b"\xff\xfe", b"{}"])
def test_another_file_in_its_place_is_refused(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no table of headroom"):
        read_headrooms(content)
