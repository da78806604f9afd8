"""The bias that photo noise gives Forgetting: against loops from the definition, known truths, and in the tables."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clstudy.analysis.evidence import judge
from clstudy.analysis.notes import notes
from clstudy.analysis.photo_bias import photo_bias
from clstudy.analysis.photo_bias_notes import photo_bias_notes
from clstudy.analysis.score_tables import SCORES_SCHEMA
from clstudy.analysis.scores import forgetting
from clstudy.analysis.summary import summarise
from clstudy.settings.metric_facts import packaged_metrics
from tests.analysis.test_report import Study

PANEL = ("reconstruction", "lpips")


def slow_bias(values, higher, counts):
    """Forgetting minus its cross-fitted value, photo by photo, in the words of the definition."""
    last, sign = len(values) - 1, 1 if higher else -1
    full, fair = [], []
    for k in range(last):
        r = [sign * np.mean(values[t, k, : counts[k]]) for t in range(k, last + 1)]
        full.append(max(r[:-1]) - r[-1])
        chosen = []
        for i in range(counts[k]):
            others = [j for j in range(counts[k]) if j != i]
            best = max(range(k, last), key=lambda t: sum(sign * values[t, k, j] for j in others))
            chosen.append(sign * values[best, k, i] - sign * values[last, k, i])
        fair.append(np.mean(chosen))
    return np.mean(full) - np.mean(fair)


def lower(values, counts):
    """NaN above the diagonal and beyond each timestamp's photos."""
    for t, k in np.ndindex(values.shape[-3:-1]):
        values[..., t, k, counts[k] if k <= t else 0 :] = np.nan
    return values


@settings(deadline=None)
@given(st.data(), st.integers(2, 5), st.booleans())
def test_it_is_what_loops_find(data, size, higher):
    counts = data.draw(st.lists(st.integers(2, 5), min_size=size, max_size=size))
    seed = data.draw(st.integers(0, 2**32))
    values = lower(np.random.default_rng(seed).uniform(size=(size, size, 5)), counts)
    assert photo_bias(values, higher) == pytest.approx(slow_bias(values, higher, counts), abs=1e-12)


@settings(deadline=None)
@given(
    st.integers(0, 2**32),
    st.sampled_from([0.5, 8.0]),
    st.integers(-4, 4),
    st.permutations(range(3)),
)
def test_it_scales_and_knows_no_shift_no_order_of_photos_and_no_direction(seed, scale, shift, order):
    values = lower(np.random.default_rng(seed).normal(size=(3, 4, 4, 3)), [3, 3, 3, 3])
    plain = photo_bias(values, True)
    assert plain.shape == (3,)
    np.testing.assert_allclose(photo_bias(scale * values + shift, True), scale * plain, atol=1e-12)
    np.testing.assert_allclose(photo_bias(-values, False), plain, atol=1e-12)
    np.testing.assert_array_equal(photo_bias(values[1], True), plain[1])
    np.testing.assert_allclose(photo_bias(values[..., order], True), plain, atol=1e-12)


def test_where_nothing_is_forgotten_it_is_the_whole_of_forgetting_on_average():
    rng = np.random.default_rng(0)
    values = lower(0.3 + 0.1 * rng.standard_normal((20_000, 5, 5, 4)), [4] * 5)
    seen = forgetting(values.mean(axis=-1), False).mean()
    assert seen > 0.025, "the truth is 0"
    assert photo_bias(values, False).mean() == pytest.approx(seen, rel=0.05)


def test_where_the_best_timestamp_is_clear_there_is_none():
    age = np.maximum(np.arange(5)[:, None] - np.arange(5), 0)
    noise = 0.1 * np.random.default_rng(1).standard_normal((2_000, 5, 5, 6))
    values = lower(10.0 * age[..., None] + noise, [6] * 5)
    np.testing.assert_allclose(photo_bias(values, False), 0.0, atol=1e-12)


def test_one_photo_says_nothing_unless_there_is_nothing_to_choose():
    values = lower(np.random.default_rng(2).uniform(size=(3, 3, 2)), [1, 2, 2])
    assert math.isnan(photo_bias(values, True))
    assert photo_bias(lower(np.random.default_rng(3).uniform(size=(2, 2, 1)), [1, 1]), True) == 0.0


# --- in the tables ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return Study(tmp_path_factory.mktemp("bias") / "study", identities=("ann", "bob", "cat"), size=4)


def biases_of(study, panel, strategy, size):
    """identity -> mean over seeds, from the files."""
    found = {}
    for spec in study.trials:
        if (spec["strategy"], spec["buffer_size"]) == (strategy, size):
            values = np.full((study.size, study.size, 2), np.nan)
            for row in pq.read_table(study.results(spec["trial"])).to_pylist():
                if (row["protocol"], row["metric"]) == panel:
                    values[row["train_timestamp"], row["test_timestamp"], int(row["image"][-1])] = row["value"]
            bias = slow_bias(values, panel[1] != "lpips", [2] * study.size)
            found.setdefault(spec["identity"], []).append(bias)
    return {identity: np.mean(biases) for identity, biases in found.items()}


def test_it_stands_beside_every_forgetting_and_difference(study):
    summary = summarise(study.folder)
    assert summary.scores.schema == SCORES_SCHEMA
    for row in summary.scores.to_pylist():
        if row["score"] != "forgetting":
            assert row["photo_bias"] is None
            continue
        mine = biases_of(study, (row["protocol"], row["metric"]), row["strategy"], row["buffer_size"])
        assert row["photo_bias"] == pytest.approx(np.mean(list(mine.values())), abs=1e-12)
    checked = 0
    for row in judge(summary).evidence.to_pylist():
        if (row["protocol"], row["metric"], row["score"]) == (*PANEL, "forgetting"):
            mine = biases_of(study, PANEL, row["strategy"], row["buffer_size"])
            base = biases_of(study, PANEL, row["baseline"], row["baseline_size"])
            assert row["photo_bias"] == pytest.approx(np.mean([mine[name] - base[name] for name in mine]), abs=1e-12)
            checked += 1
    assert checked == 8


def test_it_is_said_where_it_exceeds_a_fifth(study):
    """Uniform noise and no drift at all: nearly everything that is called Forgetting here is noise."""
    summary = summarise(study.folder)
    rows = [row for row in summary.scores.to_pylist() if row["score"] == "forgetting"]
    loud = {
        (row["protocol"], row["metric"]): [
            r
            for r in rows
            if (r["protocol"], r["metric"]) == (row["protocol"], row["metric"]) and r["photo_bias"] > abs(r["mean"]) / 5
        ]
        for row in rows
    }
    said = photo_bias_notes(summary.scores, packaged_metrics())
    assert len(said) == sum(bool(cells) for cells in loud.values()) > 0
    assert set(said) <= set(notes(summary))
    text = next(note for note in said if "LPIPS" in note)
    cells = loud[PANEL]
    for row in cells:
        size = "" if row["buffer_size"] is None else f" K = {row['buffer_size']}"
        assert f"{row['strategy']}{size} (bias {row['photo_bias']:.2g}, value {row['mean']:.2g})" in text
    assert "−BWT" in text and "more than a fifth of its value" in text


def test_quiet_cells_are_not_named_and_many_are_counted():
    row = {"protocol": "reconstruction", "metric": "id", "score": "forgetting", "learning_rate": 0.1, "strategy": "ewc"}
    row |= {"mean": 0.01, "buffer_size": 3, "photo_bias": 0.0019}
    table = lambda *biases: pa.Table.from_pylist(  # noqa: E731
        [row | {"photo_bias": bias, "buffer_size": size} for size, bias in enumerate(biases)], schema=SCORES_SCHEMA
    )
    assert photo_bias_notes(table(0.0019, None, -0.01, 0.0), packaged_metrics()) == []
    (text,) = photo_bias_notes(table(*[0.003] * 8, 0.009, 0.001), packaged_metrics())
    assert "ewc K = 8 (bias 0.009, value 0.01), ewc K = 0" in text and "and 3 more. Read" in text


def test_other_photos_at_another_timestamp_give_no_estimate(tmp_path):
    study = Study(tmp_path / "study", identities=("ann", "bob"), seeds=(0,))
    path = study.results("ann-er_hull-k3-lr0.001-s0")
    table = pq.read_table(path)
    last = pc.equal(table["train_timestamp"], 2)
    renamed = pc.if_else(last, pc.binary_join_element_wise("other", table["image"], "-"), table["image"])
    place = table.column_names.index("image")
    pq.write_table(table.set_column(place, table.schema.field("image"), renamed), path)
    summary = summarise(study.folder)
    for cell, found in summary.photo_biases.items():
        damaged = (cell.strategy, cell.buffer_size) == ("er_hull", 3)
        assert math.isnan(found.get("ann", {}).get(0, math.nan)) == damaged, cell
        assert math.isfinite(found["bob"][0])
