"""The loss between stages: interpolation and numbers against definitions, the command on a real small study."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from safetensors.numpy import load_file

from clstudy.analysis.loss_path_figures import Curve, shown_curves
from clstudy.analysis.loss_path_numbers import (
    GROUPS,
    PATH_SCHEMA,
    barrier_height,
    hill_height,
    path_curves,
    plateau_length,
    strategy_numbers,
)
from clstudy.cli.loss_path import main
from clstudy.generators.embedded_generator import EmbeddedGenerator
from clstudy.images import to_unit_range
from clstudy.metrics.lpips import LPIPS
from clstudy.settings.trial_spec import TrialSpec
from clstudy.storage.checksums import write_checked
from clstudy.study.loss_path.interpolation import interpolate
from clstudy.study.loss_path.lines import tasks, trial_lines
from tests.support.small_study import TIMESTAMPS

CURVES = arrays(np.float64, st.integers(2, 12), elements=st.floats(-10, 10, width=32))
NUMBERS = st.floats(-100, 100, width=32)


# --- interpolation ---------------------------------------------------------------------------------------------------


def network(values: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "b4.conv1.weight": values[:4].reshape(2, 2),
        "b4.conv1.bias": values[4:6],
        "b4.conv1.affine.bias": values[6:8],
        "b4.conv1.noise_strength": values[8],
        "bias_like.const": values[9:],
    }


NETWORKS = arrays(np.float32, 12, elements=NUMBERS).map(network)
BIASES = {"b4.conv1.bias", "b4.conv1.affine.bias"}


@given(NETWORKS, NETWORKS, st.floats(0, 1))
def test_interpolation_is_the_formula_and_the_groups_add_up(
    start: dict[str, np.ndarray], end: dict[str, np.ndarray], alpha: float
) -> None:
    moved = {group: interpolate(start, end, alpha, group) for group in GROUPS}
    for name in start:
        expected = (1 - alpha) * start[name].astype(float) + alpha * end[name].astype(float)
        np.testing.assert_allclose(moved["all"][name], expected, rtol=1e-5, atol=1e-4)
        still, moving = ("weights", "biases") if name in BIASES else ("biases", "weights")
        assert np.array_equal(moved[still][name], start[name])
        assert np.array_equal(moved[moving][name], moved["all"][name])
        steps = [moved[group][name] - start[name] for group in ("weights", "biases", "all")]
        assert np.array_equal(steps[0] + steps[1], steps[2])


@given(NETWORKS, NETWORKS)
def test_the_ends_are_exact_to_the_bit_even_for_negative_zero(
    start: dict[str, np.ndarray], end: dict[str, np.ndarray]
) -> None:
    end["b4.conv1.bias"] = np.array([-0.0, 0.0], np.float32)
    for alpha, wanted in ((0.0, start), (1.0, end)):
        found = interpolate(start, end, alpha, "all")
        assert {name: value.tobytes() for name, value in found.items()} == {
            name: value.tobytes() for name, value in wanted.items()
        }


def test_what_cannot_be_interpolated_is_refused() -> None:
    start = network(np.zeros(12, np.float32))
    with pytest.raises(ValueError, match="group is 'noise', expected one of all, weights, biases"):
        interpolate(start, start, 0.5, "noise")
    with pytest.raises(ValueError, match="alpha is 1.5"):
        interpolate(start, start, 1.5, "all")
    with pytest.raises(ValueError, match=r"differ in b4\.conv1\.bias"):
        interpolate(start, {**start, "b4.conv1.bias": np.zeros(3, np.float32)}, 0.5, "all")


# --- numbers ---------------------------------------------------------------------------------------------------------


def brute_barrier(losses: np.ndarray) -> float:
    n = len(losses) - 1
    return max([0.0, *(losses[i] - ((n - i) * losses[0] + i * losses[n]) / n for i in range(1, n))])


def brute_plateau(losses: np.ndarray, tolerance: float) -> float:
    """Walk along the path in small steps until the loss is away from its start."""
    places = np.linspace(0, 1, 20_001)
    away = np.abs(np.interp(places, np.linspace(0, 1, len(losses)), losses) - losses[0])
    beyond = away > tolerance * (losses.max() - losses.min())
    return float(places[beyond.argmax()]) if beyond.any() else 1.0


@given(CURVES)
def test_barrier_and_hill_are_their_definitions(losses: np.ndarray) -> None:
    assert float(barrier_height(losses)) == pytest.approx(brute_barrier(losses), abs=1e-9)
    assert float(hill_height(losses)) == max(losses) - max(losses[0], losses[-1]) >= 0
    assert float(hill_height(losses)) <= float(barrier_height(losses)) + 1e-9


@given(CURVES, NUMBERS, NUMBERS)
def test_a_tilt_changes_no_barrier_and_a_monotonic_path_has_no_hill(
    losses: np.ndarray, slope: float, level: float
) -> None:
    tilted = losses + level + slope * np.linspace(0, 1, len(losses))
    assert float(barrier_height(tilted)) == pytest.approx(float(barrier_height(losses)), abs=1e-9)
    assert float(hill_height(np.sort(losses))) == float(hill_height(np.sort(losses)[::-1])) == 0


@given(arrays(np.float64, st.integers(2, 12), elements=st.integers(-20, 20)), st.sampled_from([0.05, 0.1, 0.3]))
def test_plateau_is_what_a_walk_along_the_path_finds(losses: np.ndarray, tolerance: float) -> None:
    edge = np.abs(np.abs(losses - losses[0]) - tolerance * np.ptp(losses))
    assume(np.ptp(losses) == 0 or edge.min() > 1e-9)  # on the very edge rounding decides
    found = float(plateau_length(losses, tolerance))
    assert 0 <= found <= 1
    assert found == pytest.approx(brute_plateau(losses, tolerance), abs=1e-4)
    assert found == pytest.approx(float(plateau_length(7 - 3 * losses, tolerance)), abs=1e-9)


def test_numbers_of_known_curves() -> None:
    straight, late, bump = np.linspace(1, 0, 11), np.array([1.0] * 10 + [0.0]), np.array([1, 2, 1, 0.5, 0])
    assert float(plateau_length(straight, 0.1)) == pytest.approx(0.1)
    assert float(plateau_length(late, 0.1)) == pytest.approx(0.91)
    assert float(plateau_length(np.ones(5))) == 1.0
    assert float(barrier_height(straight)) == 0.0
    assert float(barrier_height(late)) == pytest.approx(0.9) and float(hill_height(late)) == 0.0
    assert float(barrier_height(bump)) == pytest.approx(1.25) and float(hill_height(bump)) == pytest.approx(1.0)
    stacked = np.stack([np.linspace(1, 0, 5), bump, np.ones(5)])
    for measure in (barrier_height, hill_height, plateau_length):
        assert measure(stacked).tolist() == [float(measure(row)) for row in stacked]


def test_curves_that_are_none_are_refused() -> None:
    for wrong in ([1.0], 1.0, [1.0, float("nan")]):
        with pytest.raises(ValueError, match="finite losses at 2 places or more"):
            barrier_height(wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="tolerance is 1"):
        plateau_length([1.0, 0.0], 1.0)


def test_of_many_buffer_sizes_the_largest_is_drawn() -> None:
    found = [Curve("lower", None, 0.1), Curve("er", 3, 0.1), Curve("er", 10, 0.1), Curve("er", 3, 0.2)]
    assert shown_curves(found) == [found[0], found[2], found[3]]


# --- what is computed ------------------------------------------------------------------------------------------------


def spec(strategy: str) -> TrialSpec:
    return TrialSpec(identity="anna", strategy=strategy, buffer_size=None, learning_rate=0.003, seed=0)


def test_shared_stages_and_equal_networks_are_computed_once() -> None:
    lines = [*trial_lines(spec("lower"), ["a", "b", "c"]), *trial_lines(spec("other"), ["a", "b", "d"])]
    assert [line.start_key + line.end_key for line in lines] == ["ab", "bc", "ac", "ab", "bd", "ad"]
    todo = tasks(lines, [0.0, 0.5, 1.0])
    asked = [(task.point, k) for task in todo for k in task.timestamps]
    assert len(asked) == len(set(asked))
    # stages a, b, c, d; between: 5 different lines, halfway in 3 groups, and the far end of 2 groups
    assert len({point for point, _ in asked}) == 4 + 5 * (3 + 2)
    assert trial_lines(spec("upper"), ["a"]) == []


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study(small_study: Path) -> Path:
    return small_study


@pytest.fixture(scope="module")
def done(study: Path) -> Path:
    """The study with its loss path."""
    assert main([str(study), "--points", "5", "--data", str(study.parents[1] / "photos")]) == 0
    return study


def stages_of(study: Path, trial: str) -> list[Path]:
    """Folders with the weights of a trial's stages."""
    metadata = pq.read_schema(study / "results" / f"{trial}.parquet").metadata
    return [study / "weights" / key[:2] / key for key in json.loads(metadata[b"clstudy.stage_keys"])]


def independent_loss(study: Path, weights: dict[str, np.ndarray], k: int) -> float:
    """LPIPS + MSE of the test photos of k at the encoder's latents, from the photos and a module made by hand."""
    generator = EmbeddedGenerator()
    module = generator.fresh({name: torch.tensor(value) for name, value in weights.items()})
    files = sorted((study.parents[1] / "photos" / "anna" / f"t{k}" / "test").glob("*.png"))
    photos = to_unit_range(np.stack([np.asarray(Image.open(file)) for file in files]))
    with torch.no_grad():
        images = module(generator.anchors(photos))
        return float((LPIPS()(images, photos) + (images - photos).square().mean(dim=(1, 2, 3))).mean())


def test_there_is_one_row_for_every_place_and_the_ends_are_the_stages_own_losses(done: Path) -> None:
    rows = pq.read_table(done / "report" / "loss_path.parquet")
    assert rows.schema.equals(PATH_SCHEMA)
    assert set(rows["trial"].to_pylist()) == {"anna-lower-lr0.003-s0", "anna-er_rand-k2-lr0.003-s0"}
    tests = sum(end + 1 for end in (1, 2, 2))
    assert rows.num_rows == 2 * tests * len(GROUPS) * 5
    keys = ["trial", "from_timestamp", "to_timestamp", "group", "alpha", "test_timestamp"]
    assert rows.group_by(keys).aggregate([]).num_rows == rows.num_rows
    frame = rows.to_pandas()
    for trial, mine in frame[frame.group == "all"].groupby("trial"):
        weights = [load_file(folder / "weights.safetensors") for folder in stages_of(done, str(trial))]
        for t in range(TIMESTAMPS):
            for k in range(t + 1):
                expected = independent_loss(done, weights[t], k)
                ends = mine[(mine.alpha == 1) & (mine["to_timestamp"] == t) & (mine["test_timestamp"] == k)].loss
                starts = mine[(mine.alpha == 0) & (mine["from_timestamp"] == t) & (mine["test_timestamp"] == k)].loss
                found = [*ends, *starts]
                assert found and found == pytest.approx([expected] * len(found), rel=1e-5)


def test_halfway_and_single_groups_are_the_losses_of_networks_put_together_by_hand(done: Path) -> None:
    frame = pq.read_table(done / "report" / "loss_path.parquet").to_pandas()
    first, second = (
        load_file(folder / "weights.safetensors") for folder in stages_of(done, "anna-lower-lr0.003-s0")[:2]
    )
    path = frame[
        (frame.trial == "anna-lower-lr0.003-s0") & (frame["from_timestamp"] == 0) & (frame["to_timestamp"] == 1)
    ]
    losses = path.set_index(["group", "alpha", "test_timestamp"]).loss
    half = {name: ((value.astype(float) + second[name]) / 2).astype(np.float32) for name, value in first.items()}
    biases = {name: second[name] if name.endswith(".bias") else value for name, value in first.items()}
    assert losses["all", 0.5, 0] == pytest.approx(independent_loss(done, half, 0), rel=1e-4)
    assert losses["biases", 1.0, 1] == pytest.approx(independent_loss(done, biases, 1), rel=1e-5)
    assert losses["biases", 1.0, 1] != pytest.approx(losses["weights", 1.0, 1], rel=1e-3), "the groups do differ"
    for k in (0, 1):
        assert len({losses[group, 0.0, k] for group in GROUPS}) == 1, "one start, to the bit"


def test_the_numbers_are_means_of_the_rows(done: Path) -> None:
    frame = pq.read_table(done / "report" / "loss_path.parquet").to_pandas()
    numbers = pyarrow.csv.read_csv(done / "report" / "loss_path.csv").to_pandas()
    steps = frame[
        (frame.strategy == "er_rand") & (frame.group == "all") & (frame["to_timestamp"] == frame["from_timestamp"] + 1)
    ]
    old = steps[steps["test_timestamp"] < steps["to_timestamp"]]
    curves = [
        path.groupby("alpha").loss.mean().to_numpy() for _, path in old.groupby(["from_timestamp", "to_timestamp"])
    ]
    assert len(curves) == 2
    cell = numbers[
        (numbers.strategy == "er_rand")
        & (numbers.span == "step")
        & (numbers.photos == "old")
        & (numbers.group == "all")
    ].set_index("measure")
    assert cell["mean"]["barrier"] == pytest.approx(np.mean([brute_barrier(curve) for curve in curves]), abs=1e-9)
    assert cell["mean"]["plateau"] == pytest.approx(np.mean([brute_plateau(curve, 0.1) for curve in curves]), abs=1e-4)
    assert cell["mean"]["change"] == pytest.approx(np.mean([curve[-1] - curve[0] for curve in curves]))
    assert set(cell.identities) == {1} and cell.low.isna().all(), "one identity has no interval"


def test_two_identities_have_intervals_and_each_counts_once() -> None:
    rows = []
    for identity, seeds, end in (("anna", (0, 1), 3.0), ("ben", (0,), 5.0)):
        for seed in seeds:
            for alpha, loss in ((0.0, 1.0), (1.0, end + seed)):
                rows.append(
                    {
                        "trial": f"{identity}-{seed}",
                        "identity": identity,
                        "strategy": "lower",
                        "learning_rate": 0.1,
                        "seed": seed,
                        "from_timestamp": 0,
                        "to_timestamp": 1,
                        "group": "all",
                        "alpha": alpha,
                        "test_timestamp": 0,
                        "loss": loss,
                    }
                )
    curves = path_curves(pyarrow.Table.from_pylist(rows, PATH_SCHEMA))
    assert set(curves["span"].to_pylist()) == {"step", "whole"}, "with two timestamps the step is the whole"
    changes = [row for row in strategy_numbers(curves).to_pylist() if row["measure"] == "change"]
    for row in changes:
        assert row["mean"] == pytest.approx((2.5 + 4.0) / 2) and row["identities"] == 2
        assert row["low"] == pytest.approx(3.25 - 12.706 * 0.75, rel=1e-3), "Student t with one degree of freedom"


def test_the_figures_are_there_and_name_the_strategies(done: Path) -> None:
    for name in ("loss_path_step", "loss_path_whole", "loss_path_numbers"):
        svg = (done / "report" / f"{name}.svg").read_text()
        xml.etree.ElementTree.fromstring(svg)
        assert "lower" in svg and "er_rand" in svg
        with Image.open(done / "report" / f"{name}.png") as image:
            assert image.width > 800 and len(set(image.convert("L").tobytes())) > 20


def test_a_dry_run_says_the_cost_and_writes_nothing(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "runs" / "small"
    shutil.copytree(study, copy, ignore=shutil.ignore_patterns("report"))
    monkeypatch.chdir(study.parents[1])  # from where the study was started, its folder photos/ is found
    assert main([str(copy), "--points", "3", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "6 paths of 2 trials, 3 points each" in said
    assert "forward passes x" in said and "minutes" in said
    assert "1 trials have a single stage, so no path: anna-upper-lr0.003-s0" in said
    assert not (copy / "report").exists()


def test_what_is_wrong_is_one_clear_message(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = str(study.parents[1] / "photos")

    def refused(folder: Path, *options: str) -> str:
        assert main([str(folder), *options]) == 2
        text = capsys.readouterr().err
        assert text.startswith("error: ") and "Traceback" not in text
        return text

    assert "is not a study" in refused(tmp_path)
    assert "--points is 1" in refused(study, "--points", "1")
    assert "between 0 and 1" in refused(study, "--tolerance", "2")
    assert "Did you mean 'anna-lower-lr0.003-s0'" in refused(study, "--trials", "anna-lower-lr0.03-s0")
    assert "no trial has two finished stages" in refused(study, "--trials", "*upper*", "--data", photos)
    assert "--data FOLDER" in refused(study)
    other = tmp_path / "photos"
    shutil.copytree(photos, other)
    (other / "anna" / "t0" / "test" / "0.png").unlink()
    assert "the photos of anna" in refused(study, "--data", str(other))
    copy = tmp_path / "copy"
    shutil.copytree(study, copy)
    shutil.rmtree(stages_of(copy, "anna-lower-lr0.003-s0")[1])
    settings = yaml.safe_load((copy / "study.yaml").read_text())
    settings["profile"]["trainer"]["passes"] = 99  # made otherwise than it can be made here
    write_checked(copy / "study.yaml", yaml.safe_dump(settings).encode())
    text = refused(copy, "--data", photos)
    assert "the weights of 1 stages were dropped" in text and "anna-lower-lr0.003-s0 t = 1" in text
    (copy / "results" / "anna-lower-lr0.003-s0.parquet").unlink()
    assert main([str(copy), "--data", photos, "--dry-run"]) == 0
    assert "1 trials are not finished and left out: anna-lower-lr0.003-s0" in capsys.readouterr().out


@pytest.mark.slow
def test_dropped_weights_are_trained_again_and_give_the_same_numbers(done: Path, tmp_path: Path) -> None:
    copy = tmp_path / "runs" / "small"
    shutil.copytree(done, copy)
    shutil.copytree(done.parents[1] / "photos", tmp_path / "photos")
    for trial in ("anna-lower-lr0.003-s0", "anna-er_rand-k2-lr0.003-s0"):
        for folder in stages_of(copy, trial)[1:-1]:
            shutil.rmtree(folder)
    shutil.rmtree(copy / "stages")
    options = [str(copy), "--points", "5", "--data", str(tmp_path / "photos")]
    assert main([*options, "--dry-run"]) == 0
    assert not stages_of(copy, "anna-lower-lr0.003-s0")[1].exists(), "a dry run trains nothing"
    assert main(options) == 0
    again, before = (pq.read_table(folder / "report" / "loss_path.parquet") for folder in (copy, done))
    assert again.equals(before)
