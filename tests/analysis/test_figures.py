"""Figures of a study: what is drawn is what the tables and the stages say."""

from __future__ import annotations

import io
import itertools
import re
import shutil
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import save
from scipy import stats
from scipy.optimize import minimize

from clstudy.analysis.figures import COLOURS, FIGURES, NothingToDrawError, differences, draw, forest_plot
from clstudy.analysis.figures.curves import over_identities
from clstudy.analysis.figures.faces import cell_side, shown_people
from clstudy.analysis.figures.improvement import improvements, shares_of_ranks
from clstudy.analysis.figures.matrices import mean_matrix
from clstudy.analysis.figures.memory import hull_outline, principal_plane, stored_counts
from clstudy.analysis.figures.style import shades, spread
from clstudy.analysis.matrix import ScoreCell
from clstudy.analysis.report_data import Arm, gather
from clstudy.analysis.study_folder import anchor_latents, stage_faces, trial_stages
from clstudy.analysis.summary import summarise
from clstudy.storage.content_addressed_store import StudyStore
from clstudy.trial import requests as fold
from tests.analysis.test_report import Study
from tests.support.furnished import BASIS, furnish, latents, person

LPIPS = ("reconstruction", "lpips")


@pytest.fixture
def summary(tmp_path):
    return summarise(Study(tmp_path / "study").folder)


@pytest.fixture(scope="module")
def furnished(tmp_path_factory):
    """(study, stage requests by trial, material) of two people with everything in the folder."""
    study = Study(tmp_path_factory.mktemp("figures") / "study", identities=("ann", "bob"), seeds=(0,), size=4)
    requests = furnish(study)
    return study, requests, gather(summarise(study.folder))


@pytest.fixture(scope="module")
def gallery(furnished):
    return draw(furnished[2])


def drawn(gallery, name):
    return next(drawing for drawing in gallery.drawings if drawing.name == name)


# --- forest plots ---------------------------------------------------------------------------------------------------


def test_every_comparison_with_lower_is_one_line_at_its_numbers(summary):
    rows = differences(summary, "forgetting", "lower")
    assert [(row["strategy"], row["buffer_size"]) for row in rows] == [
        ("er_rand", 3), ("er_rand", 5), ("er_hull", 3), ("er_hull", 5)
    ]  # fmt: skip
    (axes,) = forest_plot(rows, score="forgetting", baseline="lower").axes
    points = [line for line in axes.get_lines() if len(line.get_xdata()) == 1]
    spans = [line for line in axes.get_lines() if len(line.get_xdata()) == 2][1:]  # the first one is zero
    assert [line.get_xdata()[0] for line in points] == [row["mean"] for row in rows]
    assert [list(line.get_xdata()) for line in spans] == [[row["low"], row["high"]] for row in rows]
    assert [line.get_color() for line in points] == [COLOURS[row["verdict"]] for row in rows]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == [f"{row['strategy']}  K = {row['buffer_size']}" for row in rows]


def test_minus_bwt_stands_under_the_line_of_its_cell(summary):
    rows, beside = (differences(summary, score, "lower") for score in ("forgetting", "bwt"))
    (axes,) = forest_plot(rows, beside, score="forgetting", baseline="lower").axes
    points = [line for line in axes.get_lines() if len(line.get_xdata()) == 1]
    hollow = [line for line in points if line.get_markerfacecolor() == "white"]
    assert [line.get_xdata()[0] for line in hollow] == [-row["mean"] for row in beside] and len(points) == 2 * len(rows)
    assert all(-place - 0.5 < line.get_ydata()[0] < -place for place, line in enumerate(hollow))
    spans = [list(line.get_xdata()) for line in axes.get_lines() if len(line.get_xdata()) == 2]
    assert all([-row["high"], -row["low"]] in spans for row in beside)


def test_one_identity_has_a_point_and_no_line(tmp_path):
    summary = summarise(Study(tmp_path / "study", identities=("ann",)).folder)
    rows = differences(summary, "aip", "lower")
    (axes,) = forest_plot(rows, score="aip", baseline="lower").axes
    assert len(axes.get_lines()) == 1 + len(rows)
    assert all(row["low"] is None and row["verdict"] == "no interval" for row in rows)


def test_without_lower_there_is_no_difference_to_draw(tmp_path):
    names = [f"{person}-lower-lr0.001-s{seed}" for person in ("ann", "bob", "cat") for seed in (0, 1)]
    material = gather(summarise(Study(tmp_path / "study", skip=names).folder))
    with pytest.raises(NothingToDrawError, match="lower"):
        FIGURES["Differences to lower"](material)
    assert FIGURES["Scores over timestamps"](material)


# --- all of them ----------------------------------------------------------------------------------------------------


def test_a_full_study_has_every_figure_as_svg_and_png(furnished, gallery):
    assert [s.title for s in gallery.skipped] == ["Scores over the number of timestamps", "Learning-rate response"]
    assert {drawing.name for drawing in gallery.drawings} == {
        "forgetting_minus_lower", "aip_minus_lower", "over_time_reconstruction_lpips", "over_time_reconstruction_id",
        "buffer_size_reconstruction_lpips", "buffer_size_reconstruction_id", "timestamps_over_time", "result_matrices",
        "stored_bytes", "buffer_composition", "faces_ann", "faces_bob",
        "latents_ann_K3", "latents_ann_K5", "latents_bob_K3", "latents_bob_K5",
        f"oldest_face_{ranking(furnished[0])[-1]}", "strategies_over_time_k3", "strategies_over_time_k5",
        "probability_of_improvement", "ranks_aip",
    }  # fmt: skip
    assert [drawing.name for drawing in gallery.drawings if drawing.first] == [
        "strategies_over_time_k3", f"oldest_face_{ranking(furnished[0])[-1]}",
    ]  # fmt: skip
    assert [drawing.name for drawing in gallery.drawings if drawing.folded] == [
        "latents_ann_K5", "latents_bob_K3", "latents_bob_K5",
    ]  # fmt: skip
    for drawing in gallery.drawings:
        picture = Image.open(io.BytesIO(drawing.files["png"]))
        assert min(picture.size) > 200 and drawing.alt and drawing.caption.endswith(".")
        svg = drawing.files["svg"].decode()
        assert "<dc:date>" not in svg
    svg = re.sub(r"&#160;", " ", drawn(gallery, "forgetting_minus_lower").files["svg"].decode())
    assert "er_hull  K = 5" in svg, "text stays text"


def reason(title, folder):
    """The sentence that a figure gives for not being there."""
    with pytest.raises(NothingToDrawError) as raised:
        FIGURES[title](gather(summarise(folder)))
    return str(raised.value)


def test_a_study_without_its_stages_says_what_is_lacking(tmp_path):
    folder = Study(tmp_path / "study", seeds=(0,)).folder
    for title in ("Buffer composition", "Latents and hull", "Faces"):
        assert "stages/" in reason(title, folder)


def test_damaged_values_are_skipped_and_left_alone(furnished, tmp_path):
    folder = tmp_path / "study"
    shutil.copytree(furnished[0].folder, folder)
    for path in [*folder.glob("stages/*/*/faces.png"), *folder.glob("anchors/*/*/anchors.safetensors")]:
        path.write_bytes(path.read_bytes()[:20])
    before = sorted(folder.rglob("*"))
    assert "faces.png" in reason("Faces", folder) and "anchors/" in reason("Latents and hull", folder)
    assert FIGURES["Buffer composition"](gather(summarise(folder))) and sorted(folder.rglob("*")) == before
    for path in folder.glob("stages/*/*/stage.json"):
        path.write_text("{")
    assert "stages/" in reason("Buffer composition", folder)


def test_a_figure_that_fails_is_named_as_a_bug_and_the_others_are_drawn(summary, monkeypatch, caplog):
    def fails(material):
        raise ZeroDivisionError("a slip")

    for title in set(FIGURES) - {"Differences to lower", "Buffer composition"}:
        monkeypatch.delitem(FIGURES, title)
    monkeypatch.setitem(FIGURES, "Buffer composition", fails)
    gallery = draw(gather(summary))
    (broken,) = gallery.skipped
    assert broken.broken and broken.title == "Buffer composition" and "bug" in broken.reason
    assert "a slip" in broken.reason and "aip_minus_lower.svg" in gallery.files and "Traceback" in caplog.text


@pytest.mark.parametrize("kind", ["one identity with an odd name", "one timestamp", "nothing finished"])
def test_small_studies_have_the_figures_that_make_sense(tmp_path, kind):
    arguments = {"one timestamp": {"size": 1}, "one identity with an odd name": {"identities": ("$a_n{n",)}}
    study = Study(tmp_path / "study", **arguments.get(kind, {"seeds": (0,)}))
    if kind == "nothing finished":
        for path in (study.folder / "results").glob("*.parquet"):
            path.unlink()
    gallery = draw(gather(summarise(study.folder)))
    assert not [s for s in gallery.skipped if s.broken]
    assert all(s.reason[0].isupper() and s.reason.endswith(".") for s in gallery.skipped)
    names = {drawing.name for drawing in gallery.drawings}
    expected = {
        "one identity with an odd name": {"aip_minus_lower", "over_time_reconstruction_lpips", "result_matrices"},
        "one timestamp": {"aip_minus_lower", "buffer_size_reconstruction_lpips"},
        "nothing finished": set(),
    }[kind]
    assert expected <= names and bool(names) == bool(expected)
    if kind == "one timestamp":
        assert not names & {"over_time_reconstruction_lpips", "timestamps_over_time", "result_matrices"}


def test_several_learning_rates_have_a_response(tmp_path):
    study = Study(tmp_path / "study", identities=("ann", "bob"), seeds=(0,), rates=(0.001, 0.01))
    (drawing,) = FIGURES["Learning-rate response"](gather(summarise(study.folder)))
    aip, forgetting, minus_bwt, final = drawing.figure.axes
    for axes, score, sign in ((forgetting, "forgetting", 1), (minus_bwt, "bwt", -1)):
        lines = [line for line in axes.get_lines() if line.get_marker() != "None"]
        expected = []
        for strategy, size in (("lower", None), ("er_rand", 3), ("er_hull", 3)):
            for rate in (0.001, 0.01):
                expected.append(sign * np.mean(list(study.per_identity(LPIPS, score, strategy, size, rate).values())))
        np.testing.assert_allclose([y for line in lines for y in line.get_ydata()], expected, rtol=1e-12)
    assert minus_bwt.get_title(loc="left") == "−BWT (lower is better)"
    assert len([line for line in final.get_lines() if line.get_marker() != "None"]) == 4, "upper has a final value"


# --- curves and matrices --------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=1, max_size=6), st.floats(0.05, 0.5))
def test_labels_keep_their_distance_and_move_as_little_as_possible(wanted, gap):
    places = spread(wanted, gap, -50, 50)
    assert np.all(np.diff(np.sort(places)) >= gap - 1e-9)
    order = np.argsort(np.asarray(wanted), kind="stable")
    bounds = [{"type": "ineq", "fun": lambda z, i=i: z[i + 1] - z[i] - gap} for i in range(len(wanted) - 1)]
    goal = np.asarray(wanted)[order]
    best = minimize(lambda z: np.sum((z - goal) ** 2), goal + gap * np.arange(len(goal)), constraints=bounds)
    assert np.sum((places - wanted) ** 2) <= best.fun + 1e-5


def test_labels_stay_inside_where_they_fit():
    assert spread([0.0, 0.0, 0.0], 1.0, 0.0, 10.0).tolist() == [0.0, 1.0, 2.0]
    assert spread([9.9, 10.0, 4.0], 1.0, 0.0, 10.0).tolist() == [9.0, 10.0, 4.0]
    crowded = spread([1.0, 1.0, 1.0], 1.0, 0.0, 1.0)
    assert np.diff(np.sort(crowded)).min() >= 1.0
    assert spread([], 1.0, 0.0, 1.0).size == 0


def test_bands_are_t_intervals_over_those_who_have_seen_so_much():
    values = {"a": np.array([1.0, 2.0, 4.0]), "b": np.array([2.0, 5.0]), "c": np.array([4.0, 3.0])}
    mean, low, high = over_identities(values)
    for t in (0, 1):
        there = [value[t] for value in values.values()]
        expected = stats.ttest_1samp(there, 0).confidence_interval(0.95)
        np.testing.assert_allclose([mean[t], low[t], high[t]], [np.mean(there), *expected], rtol=1e-12)
    assert mean[2] == 4.0 and np.isnan(low[2]) and np.isnan(high[2])


def test_curves_are_the_mean_over_the_timestamps_seen(furnished, gallery):
    study = furnished[0]
    figure = drawn(gallery, "over_time_reconstruction_lpips").figure
    panels = {axes.get_title(loc="left"): axes for axes in figure.axes}
    assert set(panels) == {"er_rand", "er_hull"}
    for strategy, axes in panels.items():
        curves = [line.get_ydata() for line in axes.get_lines() if len(line.get_xdata()) == study.size]
        for size, curve in zip((None, 3, 5), curves, strict=True):  # the dashed one is lower's
            middle = "lower" if size is None else f"{strategy}-k{size}"
            by_hand = [
                np.mean([study.r[f"{name}-{middle}-lr0.001-s0"][LPIPS][t, : t + 1].mean() for name in ("ann", "bob")])
                for t in range(study.size)
            ]
            np.testing.assert_allclose(curve, by_hand, rtol=1e-12)
        assert {"lower", "upper", "K = 3", "K = 5"} <= {text.get_text() for text in axes.texts}, "direct labels"
        assert axes.get_legend() is None


def curves_of(axes):
    """Label -> y values of the curves, read off the labels at their ends (which have the curves' colours and order)."""
    drawn_curves = [line.get_ydata() for line in axes.get_lines() if line.get_marker() == "o"]
    return dict(zip([text.get_text() for text in axes.texts], drawn_curves, strict=True))


def forgetting_after(r, t):
    """Forgetting of the study that ends after t, in loops (LPIPS: lower is better)."""
    return np.mean([r[t, k] - min(r[seen, k] for seen in range(k, t)) for k in range(t)])


def test_all_strategies_are_on_one_axis_and_their_paired_differences_below(furnished, gallery):
    study = furnished[0]
    performance, lost, performance_apart, lost_apart = drawn(gallery, "strategies_over_time_k3").figure.axes
    names = {"lower": "lower", "er_rand": "er_rand-k3", "er_hull": "er_hull-k3"}
    r = {
        name: [study.r[f"{person}-{middle}-lr0.001-s0"][LPIPS] for person in ("ann", "bob")]
        for name, middle in names.items()
    }
    moments = range(study.size)
    by_hand = {name: [[each[t, : t + 1].mean() for t in moments] for each in both] for name, both in r.items()}
    by_hand_lost = {
        name: [[forgetting_after(each, t) if t else np.nan for t in moments] for each in both]
        for name, both in r.items()
    }
    for axes, below, expected in ((performance, performance_apart, by_hand), (lost, lost_apart, by_hand_lost)):
        shown = curves_of(axes)
        assert shown.keys() == names.keys()
        for name, curve in shown.items():
            np.testing.assert_allclose(curve, np.mean(expected[name], axis=0), rtol=1e-12)
        apart = np.subtract(expected["er_hull"], expected["er_rand"])
        ((name, curve),) = curves_of(below).items()
        assert name == "er_hull"
        np.testing.assert_allclose(curve, apart.mean(axis=0), rtol=1e-9, atol=1e-15)
        (band,) = below.collections
        last = stats.ttest_1samp(apart[:, -1], 0).confidence_interval(0.95)
        heights = [y for x, y in band.get_paths()[0].vertices if x == study.size - 1]
        np.testing.assert_allclose([min(heights), max(heights)], last, rtol=1e-9)


def test_without_a_second_learner_or_timestamp_there_is_nothing_to_set_beside(tmp_path):
    with pytest.raises(NothingToDrawError, match="two timestamps"):
        FIGURES["Strategies over timestamps"](gather(summarise(Study(tmp_path / "study", size=1).folder)))


def test_heat_maps_show_the_mean_matrix(furnished, gallery):
    study = furnished[0]
    figure = drawn(gallery, "result_matrices").figure
    shown = {axes.get_title(loc="left"): axes for axes in figure.axes if axes.get_title(loc="left")}
    assert list(shown) == ["lower", "upper", "er_rand, K = 3", "er_rand, K = 5", "er_hull, K = 3", "er_hull, K = 5"]
    (mesh,) = shown["er_hull, K = 5"].collections
    values = np.ma.filled(mesh.get_array(), np.nan)
    for t, k in np.ndindex(values.shape):
        pair = [study.r[f"{name}-er_hull-k5-lr0.001-s0"][LPIPS][t, k] for name in ("ann", "bob")]
        assert np.isnan(values[t, k]) if k > t else values[t, k] == pytest.approx(np.mean(pair), rel=1e-12)
    short, long = np.full((1, 1), 4.0), np.array([[2.0, np.nan], [1.0, 3.0]])
    np.testing.assert_array_equal(mean_matrix([short, long]), [[3.0, np.nan], [1.0, 3.0]])


# --- memory ---------------------------------------------------------------------------------------------------------


def test_composition_counts_what_each_stage_replays(furnished, gallery):
    study, requests, material = furnished
    for strategy, size in itertools.product(("er_rand", "er_hull"), (3, 5)):
        counts = stored_counts(material, Arm(strategy, size))
        for t, k in np.ndindex(counts.shape):
            found = [
                Counter(item.timestamp for item in requests[f"{name}-{strategy}-k{size}-lr0.001-s0"][t].replay)[k]
                for name in ("ann", "bob")
            ]
            assert counts[t, k] == np.mean(found)
        assert counts[1:].sum(axis=1).tolist() == [size] * (study.size - 1)
    bars = {axes.get_title(loc="left"): axes.patches for axes in drawn(gallery, "buffer_composition").figure.axes}
    assert sum(bar.get_height() for bar in bars["er_hull, K = 5"]) == pytest.approx(5 * (study.size - 1))


def test_anchors_are_found_by_the_key_that_the_trainer_used(furnished):
    study, requests, _ = furnished
    name = "bob-er_hull-k3-lr0.001-s0"
    notes = trial_stages(study.folder, name)
    assert [note.asked.t for note in notes] == [0, 1, 2, 3]
    for k, timestamp in enumerate(person("bob", study.size).timestamps):
        assert notes[-1].asked.anchors_key(k) == fold.anchors_key(BASIS, timestamp)
        np.testing.assert_array_equal(anchor_latents(study.folder, notes[-1], k), latents(timestamp))
    for note, request in zip(notes, requests[name], strict=True):
        assert list(note.asked.stored) == [(item.timestamp, item.digest) for item in request.replay]
    assert trial_stages(study.folder, "nobody") == ()


def test_anchors_in_w_plus_are_drawn_as_vectors(tmp_path):
    anchors = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    key = "a" * 64
    StudyStore(tmp_path).anchors.put(key, {"anchors.safetensors": save({"train": anchors, "test": anchors})})
    asked = SimpleNamespace(anchored=(("x", "y"),), anchors_key=lambda k: key)
    found = anchor_latents(tmp_path, SimpleNamespace(asked=asked), 0)
    np.testing.assert_array_equal(found, anchors.reshape(2, 12))
    assert principal_plane(found)[0].shape == (2, 2)


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("identity", ["ann", "bob"])
def test_ringed_dots_are_the_stored_photos(furnished, gallery, identity, size):
    study, requests, _ = furnished
    every = np.concatenate([latents(timestamp) for timestamp in person(identity, study.size).timestamps]).astype(float)
    plane, _ = principal_plane(every)
    place = {}
    for t, timestamp in enumerate(person(identity, study.size).timestamps):
        digests = sorted(photo.digest for photo in timestamp.train)
        place |= {digest: plane[6 * t + i] for i, digest in enumerate(digests)}
    panels = drawn(gallery, f"latents_{identity}_K{size}").figure.axes
    assert len(panels) == 2 * 3  # er_rand and er_hull at t = 1, 2, 3
    for number, axes in enumerate(panels):
        strategy, t = ("er_rand", "er_hull")[number // 3], 1 + number % 3
        ringed = axes.collections[-1].get_offsets()
        stored = requests[f"{identity}-{strategy}-k{size}-lr0.001-s0"][t].replay
        assert sorted(map(tuple, ringed)) == sorted(tuple(place[item.digest]) for item in stored)


@settings(max_examples=50, deadline=None)
@given(st.integers(3, 9), st.integers(3, 6), st.integers(0, 1000))
def test_the_plane_holds_the_most_variance(n, d, seed):
    points = np.random.default_rng(seed).normal(size=(n, d)) * np.arange(1, d + 1)
    plane, share = principal_plane(points)
    variances = np.sort(np.linalg.eigvalsh(np.cov(points.T)))[::-1]
    np.testing.assert_allclose(np.cov(plane.T, ddof=1), np.diag(variances[:2]), atol=1e-8 * variances[0])
    assert share == pytest.approx(variances[:2].sum() / variances.sum())
    turned, _ = principal_plane(points[::-1])
    np.testing.assert_allclose(turned[::-1], plane, atol=1e-6 * np.abs(plane).max())


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=1, max_size=9))
def test_the_outline_holds_all_points(points):
    cloud = np.array(points, dtype=float)
    outline = hull_outline(cloud)
    assert {tuple(corner) for corner in outline} <= {tuple(point) for point in cloud}
    for a, b in zip(outline, np.roll(outline, -1, axis=0), strict=True):
        side = (b[0] - a[0]) * (cloud[:, 1] - a[1]) - (b[1] - a[1]) * (cloud[:, 0] - a[0])
        assert (side >= -1e-9).all(), "every point lies left of every edge"
    if len(outline) == 2:  # a segment: nothing reaches further than its ends
        assert np.ptp(cloud, axis=0).tolist() == np.ptp(outline, axis=0).tolist()


# --- faces ----------------------------------------------------------------------------------------------------------


def test_faces_are_cut_from_the_stage_and_put_in_their_rows(furnished, gallery):
    study = furnished[0]
    photos, rebuilt = stage_faces(trial_stages(study.folder, "ann-er_hull-k3-lr0.001-s0")[2])
    assert photos.shape == (3, 16, 16, 3)
    assert [int(cell.max()) for cell in photos] == [0, 10, 20] and [int(c.min()) for c in rebuilt] == [102, 112, 122]
    figure = drawn(gallery, "faces_ann").figure
    rows = {axes.texts[0].get_text(): axes.get_images()[0].get_array() for axes in figure.axes}
    assert list(rows) == ["test photo", "lower", "er_rand, K = 3", "er_hull, K = 3", "upper"]
    assert [int(rows["test photo"][8, 8 + 16 * k, 0]) for k in range(4)] == [0, 10, 20, 30]
    assert [int(rows["er_hull, K = 3"][8, 8 + 16 * k, 0]) for k in range(4)] == [103, 113, 123, 133]
    over_time = drawn(gallery, f"oldest_face_{ranking(study)[-1]}").figure
    rows = {axes.texts[0].get_text(): axes.get_images()[0].get_array() for axes in over_time.axes}
    assert "upper" not in rows, "joint training has no history"
    assert [int(rows["lower"][8, 8 + 16 * t, 0]) for t in range(4)] == [100, 101, 102, 103]


def final_scores(study, panel=LPIPS, arms=("lower", "er_rand-k3", "er_hull-k3", "upper")):
    """person -> mean of the last row over the shown strategies, by the study's own arrays."""
    names = {spec["identity"] for spec in study.trials}
    return {name: np.mean([study.r[f"{name}-{arm}-lr0.001-s0"][panel][-1] for arm in arms]) for name in names}


def ranking(study):
    """People from best to worst."""
    return sorted(final_scores(study), key=lambda name: (final_scores(study)[name], name))


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    """(study, material) of five people."""
    names = ("ann", "bob", "cat", "dan", "eve")
    study = Study(tmp_path_factory.mktemp("crowd") / "study", identities=names, seeds=(0,), size=2)
    furnish(study)
    return study, gather(summarise(study.folder))


def test_faces_are_those_of_the_best_the_median_and_the_worst_person(crowd):
    study, material = crowd
    ranked, scores = ranking(study), final_scores(study)
    drawings = FIGURES["Faces"](material)
    chosen = [ranked[0], ranked[2], ranked[4]]
    assert chosen != ["ann", "bob", "cat"], "or the test could not tell a choice from the first three names"
    assert [drawing.name for drawing in drawings] == [*(f"faces_{name}" for name in chosen), f"oldest_face_{ranked[4]}"]
    for drawing, name, place in zip(drawings, [*chosen, ranked[4]], ["best", "median", "worst", "worst"], strict=True):
        said = f"{name} ({place} of 5 people: Reconstruction LPIPS {scores[name]:.4f})"
        assert drawing.title.startswith(said) and said in drawing.alt
    assert all("the best, the median and the worst" in drawing.caption for drawing in drawings[:3])
    assert "worst final score" in drawings[3].caption and "not a typical one" in drawings[3].caption


def test_a_metric_with_the_other_direction_turns_the_ranks(crowd, monkeypatch):
    study, material = crowd
    best_id = {name: -score for name, score in final_scores(study, ("reconstruction", "id")).items()}
    monkeypatch.setattr(type(material), "panel", ("reconstruction", "id"))
    ranked = sorted(best_id, key=lambda name: best_id[name])
    assert [person.identity for person in shown_people(material)] == [ranked[0], ranked[2], ranked[4]]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_few_people_are_all_shown_and_equal_scores_go_by_name(tmp_path, count):
    names = ["dan", "cat", "bob", "ann"][:count]
    study = Study(tmp_path / "study", identities=names, seeds=(0,), size=2)
    furnish(study)
    material = gather(summarise(study.folder))
    for matrix in material.matrices:
        matrix.r[:] = 0.25
    shown = shown_people(material)
    ranked = sorted(names)
    assert [person.identity for person in shown] == [ranked[i] for i in sorted({0, (count - 1) // 2, count - 1})]
    assert [person.place for person in shown][-1:] == (["worst"] if count > 1 else [shown[0].place])
    if count == 1:
        assert str(shown[0]) == "the only person: Reconstruction LPIPS 0.2500"


def test_a_strategy_that_some_people_lack_does_not_rank_them(tmp_path):
    """Joint training is the best: whoever has it alone would pass for the best person."""
    missing = [f"{name}-upper-lr0.001-s0" for name in ("bob", "cat")]
    study = Study(tmp_path / "study", identities=("ann", "bob", "cat"), seeds=(0,), size=2, skip=missing)
    furnish(study)
    scores = final_scores(study, arms=("lower", "er_rand-k3", "er_hull-k3"))
    shown = shown_people(gather(summarise(study.folder)))
    assert [person.identity for person in shown] == sorted(scores, key=lambda name: scores[name])
    assert [person.score for person in shown] == [f"Reconstruction LPIPS {scores[p.identity]:.4f}" for p in shown]


def test_many_large_faces_are_made_smaller():
    assert cell_side(30, 64) == 64 and cell_side(30, 256) == 256 and cell_side(10, 1024) == 256
    assert cell_side(15 * 10, 256) == 128 and cell_side(5000, 256) == 64


def test_rates_other_than_the_first_do_not_mix_in(tmp_path):
    study = Study(tmp_path / "study", identities=("ann", "bob"), seeds=(0,), rates=(0.01, 0.001))
    material = gather(summarise(study.folder))
    assert material.rate == 0.01 and "0.01" in material.rate_note
    values = material.identity_values(LPIPS, lambda r: r[-1])
    np.testing.assert_allclose(values[Arm("lower", None)]["ann"], study.r["ann-lower-lr0.01-s0"][LPIPS][-1], rtol=1e-12)


def test_rows_without_a_plan_do_not_enter(tmp_path):
    study = Study(tmp_path / "study", seeds=(0,))
    rows = pq.read_table(study.results("ann-lower-lr0.001-s0"))
    pq.write_table(rows, study.folder / "results" / "stranger.parquet")
    assert {matrix.trial.trial for matrix in gather(summarise(study.folder)).matrices} == set(study.r)


def test_there_is_a_shade_for_every_buffer_size_also_where_there_is_none():
    """A study of ``lower`` alone has no buffer size; its curves could not be drawn."""
    for count in range(6):
        assert len(set(shades(count))) == count


# --- how often better -------------------------------------------------------------------------------------------------


def test_probabilities_are_shares_of_people_with_exact_limits(summary):
    material = gather(summary)
    found = next(one for one in improvements(material) if one.name == "probability_of_improvement")
    aip = found.figure.axes[0]
    labels = [label.get_text() for label in aip.get_yticklabels()]
    assert labels == ["er_hull, K = 3", "er_hull, K = 5"], "against er_rand; lower is only ever a baseline"
    spans = [line for line in aip.get_lines() if len(line.get_xdata()) == 2][1:]
    points = [line for line in aip.get_lines() if len(line.get_xdata()) == 1]
    for size, span, point in zip((3, 5), spans, points, strict=True):
        ours, theirs = (
            material.values[ScoreCell("reconstruction", "lpips", "aip", 0.001, name, size)]
            for name in ("er_hull", "er_rand")
        )
        better = sum(np.mean(list(ours[name].values())) < np.mean(list(theirs[name].values())) for name in ours)
        exact = stats.binomtest(better, len(ours)).proportion_ci(0.95, "exact")
        assert list(point.get_xdata()) == [better / len(ours)]
        np.testing.assert_allclose(span.get_xdata(), [exact.low, exact.high], atol=1e-12)


@given(
    st.integers(1, 5).flatmap(
        lambda n: st.lists(st.lists(st.integers(0, 3), min_size=n, max_size=n), min_size=1, max_size=6)
    ),
    st.booleans(),
)
def test_ranks_are_those_of_scipy_and_ties_share_theirs(table, upward):
    """Mean ranks, which are what ties leave alone, and every row and column adds up to one."""
    names = [f"s{i}" for i in range(len(table[0]))]
    scores = {name: {f"p{j}": float(row[i]) for j, row in enumerate(table)} for i, name in enumerate(names)}
    order, shares = shares_of_ranks(scores, higher_is_better=upward)
    sign = -1 if upward else 1
    ranks = stats.rankdata(sign * np.array(table, dtype=float), axis=1).mean(axis=0)
    mean_ranks = dict(zip(names, ranks, strict=True))
    np.testing.assert_allclose(shares @ np.arange(1, len(names) + 1), [mean_ranks[name] for name in order])
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    np.testing.assert_allclose(shares.sum(axis=0), 1)
    assert [mean_ranks[name] for name in order] == pytest.approx(sorted(ranks))


def test_one_person_has_no_share(tmp_path):
    with pytest.raises(NothingToDrawError, match="that two people have in common"):
        improvements(gather(summarise(Study(tmp_path / "study", identities=("ann",)).folder)))


def test_above_every_line_are_the_differences_of_single_people(furnished, gallery):
    study, _, _ = furnished
    axes = drawn(gallery, "forgetting_minus_lower").figure.axes[0]
    rows = [("er_rand", 3), ("er_rand", 5), ("er_hull", 3), ("er_hull", 5)]
    assert len(axes.collections) == len(rows)
    base = study.per_identity(LPIPS, "forgetting", "lower", None)
    for (strategy, size), dots in zip(rows, axes.collections, strict=True):
        ours = study.per_identity(LPIPS, "forgetting", strategy, size)
        np.testing.assert_allclose(sorted(dots.get_offsets()[:, 0]), sorted(ours[name] - base[name] for name in ours))
