"""Scores against brute-force loops from the definitions; matrices from rows."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from clstudy.analysis.matrix import (
    load_rows,
    read_rows,
    result_matrices,
    score_values,
    trial_scores,
)
from clstudy.analysis.scores import (
    MissingCellsError,
    average_incremental_performance,
    average_performance,
    backward_transfer,
    final_performance,
    forgetting,
    gap_closed,
    missing_cells,
)
from clstudy.errors import UserError
from clstudy.records.rows import RESULT_SCHEMA

NAN = float("nan")


@st.composite
def lower_triangular(draw, min_size=1):
    """Stacks [n, T, T] with NaN above the diagonal."""
    size, n = draw(st.integers(min_size, 6)), draw(st.integers(1, 3))
    r = draw(hnp.arrays(np.float64, (n, size, size), elements=st.floats(-50, 50)))
    return np.where(np.tri(size, dtype=bool), r, NAN)


def brute_aip(r):
    size = len(r)
    return sum(sum(r[t][k] for k in range(t + 1)) / (t + 1) for t in range(size)) / size


def brute_forgetting(r, higher):
    s, last = (1 if higher else -1), len(r) - 1
    drops = [max(s * r[m][k] for m in range(k, last)) - s * r[last][k] for k in range(last)]
    return sum(drops) / last


def brute_bwt(r, higher):
    s, last = (1 if higher else -1), len(r) - 1
    return sum(s * (r[last][k] - r[k][k]) for k in range(last)) / last


@given(lower_triangular(), st.booleans())
def test_aip_and_final_performance_follow_their_definitions(r, higher):
    np.testing.assert_allclose(average_incremental_performance(r, higher), [brute_aip(m) for m in r], atol=1e-9)
    np.testing.assert_allclose(final_performance(r), [sum(m[-1]) / len(m) for m in r], atol=1e-9)
    curve = average_performance(r)
    assert curve.shape == r.shape[:-1]
    np.testing.assert_allclose(curve[..., -1], final_performance(r), atol=1e-9)
    np.testing.assert_allclose(curve[..., 0], r[..., 0, 0])


@given(lower_triangular(min_size=2), st.booleans())
def test_forgetting_and_bwt_follow_their_definitions(r, higher):
    forgotten, transfer = forgetting(r, higher), backward_transfer(r, higher)
    np.testing.assert_allclose(forgotten, [brute_forgetting(m, higher) for m in r], atol=1e-9)
    np.testing.assert_allclose(transfer, [brute_bwt(m, higher) for m in r], atol=1e-9)
    assert (forgotten >= -transfer - 1e-9).all()
    np.testing.assert_allclose(forgetting(-r, not higher), forgotten)


def test_forgetting_of_a_hand_worked_matrix_in_both_directions_and_unclipped():
    r = np.array([[0.5, NAN, NAN], [0.7, 0.4, NAN], [0.6, 0.6, 0.9]])
    assert forgetting(r, True) == pytest.approx((0.7 - 0.6 + 0.4 - 0.6) / 2)
    assert forgetting(r, True) < 0
    assert forgetting(r, False) == pytest.approx((0.6 - 0.5 + 0.6 - 0.4) / 2)
    assert backward_transfer(r, True) == pytest.approx((0.1 + 0.2) / 2)


def test_every_needed_cell_is_needed_and_no_other():
    size = 4
    full = np.where(np.tri(size, dtype=bool), 1.0, NAN)
    needs = {
        "aip": (lambda r: average_incremental_performance(r, True), {(t, k) for t in range(4) for k in range(t + 1)}),
        "final": (final_performance, {(3, k) for k in range(4)}),
        "forgetting": (
            lambda r: forgetting(r, False),
            {(t, k) for t in range(4) for k in range(t + 1)} - {(3, 3)},
        ),
        "bwt": (lambda r: backward_transfer(r, True), {(k, k) for k in range(3)} | {(3, k) for k in range(3)}),
    }
    for compute, cells in needs.values():
        for t, k in np.ndindex(size, size):
            for hole in (NAN, math.inf):
                r = full.copy()
                r[t, k] = hole
                if (t, k) in cells:
                    with pytest.raises(MissingCellsError, match=rf"R\[{t}, {k}\]") as error:
                        compute(r)
                    assert error.value.cells == [(t, k)]
                else:
                    assert np.isfinite(compute(r))


def test_one_timestamp_has_no_past_and_shapes_are_checked():
    one = np.array([[0.3]])
    assert average_incremental_performance(one, True) == final_performance(one) == 0.3
    for score in (forgetting, backward_transfer):
        with pytest.raises(ValueError, match="at least 2 timestamps"):
            score(one, True)
    for shape in ((3,), (2, 3), (0, 0)):
        with pytest.raises(ValueError, match="T, T"):
            final_performance(np.zeros(shape))


# rounded: a quotient of denormal numbers would overflow
bounds = st.tuples(*[st.floats(-50, 50).map(lambda value: round(value, 6))] * 3)


@given(st.lists(bounds, min_size=1, max_size=5))
def test_gap_closed_follows_its_definition_whichever_way_the_metric_points(numbers):
    final, lower, upper = np.array(numbers).T
    share = gap_closed(final, lower, upper)
    for x, low, up, found in zip(final, lower, upper, share, strict=True):
        if abs(up - low) <= 1e-3 * max(abs(low), abs(up)):
            assert math.isnan(found)
        else:
            assert found == pytest.approx((x - low) / (up - low), rel=1e-9)
    np.testing.assert_array_equal(gap_closed(-final, -lower, -upper), share)
    there = np.isfinite(share)
    np.testing.assert_array_equal(gap_closed(lower, lower, upper)[there], 0.0)
    np.testing.assert_array_equal(gap_closed(upper, lower, upper)[there], 1.0)


def test_gap_closed_is_nan_without_a_gap_and_not_clipped():
    assert math.isnan(gap_closed(0.3, 0.5, 0.5)) and math.isnan(gap_closed(0.3, 0.5, 0.5004))
    assert math.isnan(gap_closed(NAN, 0.5, 0.1)) and math.isnan(gap_closed(0.3, 0.5, NAN))
    assert gap_closed(0.05, 0.5, 0.1) == pytest.approx(1.125) and gap_closed(0.6, 0.5, 0.1) == pytest.approx(-0.25)


# --- rows to matrices ---------------------------------------------------------------------------------------------


def trial_rows(trial="ann-er_rand-k3", strategy="er_rand", buffer_size=3, size=3, images=2, metric="lpips", seed=0):
    rng = np.random.default_rng(len(trial) + seed)
    return [
        {
            "trial": trial,
            "identity": "ann",
            "strategy": strategy,
            "buffer_size": buffer_size,
            "learning_rate": 0.001,
            "seed": seed,
            "train_timestamp": t,
            "test_timestamp": k,
            "protocol": "reconstruction",
            "metric": metric,
            "image": f"{k}-{i}",
            "value": float(rng.uniform()),
        }
        for t in range(size)
        if strategy != "upper" or t == size - 1
        for k in range(t + 1)
        for i in range(images)
    ]


def table(rows):
    return pa.Table.from_pylist(rows, schema=RESULT_SCHEMA)


def test_matrices_are_means_over_images():
    rows = trial_rows() + trial_rows("ann-upper", "upper", None) + trial_rows("ann-er_rand-k3", metric="id")
    matrices = {(m.trial.trial, m.metric): m for m in result_matrices(table(rows))}
    assert set(matrices) == {("ann-er_rand-k3", "lpips"), ("ann-er_rand-k3", "id"), ("ann-upper", "lpips")}
    for (trial, metric), matrix in matrices.items():
        expected = np.full((3, 3), NAN)
        for t, k in np.ndindex(3, 3):
            values = [
                row["value"]
                for row in rows
                if (row["trial"], row["metric"], row["train_timestamp"], row["test_timestamp"]) == (trial, metric, t, k)
            ]
            expected[t, k] = np.mean(values) if values else NAN
        np.testing.assert_allclose(matrix.r, expected)
    upper = matrices["ann-upper", "lpips"]
    assert upper.trial.joint and upper.trial.buffer_size is None
    assert trial_scores(upper) == {"final": pytest.approx(np.mean(upper.r[-1]))}
    assert set(trial_scores(matrices["ann-er_rand-k3", "id"])) == {"aip", "forgetting", "bwt", "final"}


@st.composite
def measured(draw):
    """Values [T, T, n] per metric of a lower and of a higher direction: images of every cell."""
    size, images = draw(st.integers(2, 4)), draw(st.integers(1, 3))
    values = st.floats(-20, 20)
    return {metric: draw(hnp.arrays(np.float64, (size, size, images), elements=values)) for metric in ("lpips", "id")}


def measured_rows(values, hole=None):
    base = {"trial": "ann-x", "identity": "ann", "strategy": "x", "buffer_size": 3, "learning_rate": 0.1, "seed": 4}
    return [
        base
        | {"train_timestamp": t, "test_timestamp": k, "protocol": "reconstruction", "metric": metric}
        | {"image": f"{k}-{i}", "value": float(r[t, k, i])}
        for metric, r in values.items()
        for t, k, i in np.ndindex(r.shape)
        if k <= t and (metric, t, k) != hole
    ]


@given(measured())
def test_scores_of_rows_equal_loops_over_the_definitions_in_both_directions(values):
    found = score_values(result_matrices(table(measured_rows(values))))
    brute = {"aip": lambda r, higher: brute_aip(r), "final": lambda r, higher: sum(r[-1]) / len(r)}
    brute |= {"forgetting": brute_forgetting, "bwt": brute_bwt}
    assert len(found) == 2 * len(brute)
    for cell, by_identity in found.items():
        r = [[sum(images) / len(images) for images in row] for row in values[cell.metric].tolist()]
        expected = brute[cell.score](r, cell.metric == "id")
        assert by_identity == {"ann": {4: pytest.approx(expected, abs=1e-9)}}


@given(measured(), st.data())
def test_a_cell_missing_anywhere_raises_with_the_trials_name(values, data):
    size = len(values["id"])
    t = data.draw(st.integers(0, size - 1))
    hole = ("id", t, data.draw(st.integers(0, t)))
    with pytest.raises(MissingCellsError, match=rf"ann-x.*R\[{hole[1]}, {hole[2]}\]"):
        score_values(result_matrices(table(measured_rows(values, hole)), timestamps=size))


def test_missing_cells_raise_with_the_trials_name():
    complete = trial_rows()
    holes = {
        "no rows": [row for row in complete if (row["train_timestamp"], row["test_timestamp"]) != (2, 1)],
        "fewer images than the column": [
            row for row in complete if (row["train_timestamp"], row["image"]) != (2, "1-0")
        ],
        "a NaN": [
            row | {"value": NAN if (row["train_timestamp"], row["image"]) == (2, "1-0") else row["value"]}
            for row in complete
        ],
        "a null": [
            row | {"value": None if (row["train_timestamp"], row["image"]) == (2, "1-0") else row["value"]}
            for row in complete
        ],
    }
    for what, rows in holes.items():
        (matrix,) = result_matrices(table(rows))
        assert missing_cells(matrix.r, joint=False) == [(2, 1)], what
        with pytest.raises(MissingCellsError, match=r"ann-er_rand-k3.*R\[2, 1\]"):
            score_values([matrix])


def test_a_trial_cut_short_is_noticed_through_the_number_of_timestamps():
    rows = table(trial_rows(size=2))
    (short,) = result_matrices(rows, timestamps=3)
    assert short.r.shape == (3, 3)
    assert missing_cells(short.r, joint=False) == [(2, 0), (2, 1), (2, 2)]
    assert result_matrices(rows, timestamps={"ann": 2})[0].r.shape == (2, 2)
    with pytest.raises(UserError, match="test timestamp"):
        result_matrices(rows, timestamps=1)


def test_contradictory_rows_and_unknown_metrics_are_refused():
    with pytest.raises(UserError, match="two specifications"):
        result_matrices(table(trial_rows() + trial_rows(seed=1)))
    (matrix,) = result_matrices(table(trial_rows(metric="sharpness")))
    with pytest.raises(UserError, match="sharpness"):
        trial_scores(matrix)


def test_load_rows_is_sorted_and_push_down_reads_what_is_asked(tmp_path):
    assert load_rows(tmp_path).num_rows == 0
    results = tmp_path / "results"
    results.mkdir()
    first, second = trial_rows("b", images=3), trial_rows("a", "upper", None)
    pq.write_table(table(first[::-1]), results / "b.parquet")
    pq.write_table(table(second), results / "a.parquet")
    rows = load_rows(tmp_path)
    assert rows.schema == RESULT_SCHEMA
    key = ("trial", "train_timestamp", "test_timestamp", "protocol", "metric", "image")
    assert rows.to_pylist() == sorted(first + second, key=lambda row: [row[name] for name in key])
    import pyarrow.compute as pc

    some = read_rows(list(results.iterdir()), columns=["trial", "value"], where=pc.field("train_timestamp") == 0)
    assert some.column_names == ["trial", "value"] and some["trial"].to_pylist() == ["b"] * 3
    (results / "c.parquet").write_bytes(b"PAR1 cut")
    with pytest.raises(UserError, match=r"c\.parquet"):
        load_rows(tmp_path)
