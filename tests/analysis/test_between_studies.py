"""Two studies set against each other: paired differences against scipy, who is paired, and what is said to differ."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from scipy import stats

from clstudy.analysis.between_studies import between, shared_people, what_differs
from clstudy.analysis.between_studies import test_photos as photos_in
from clstudy.analysis.figures.between import between_drawing
from clstudy.analysis.matrix import load_rows
from clstudy.analysis.report_data import gather
from clstudy.analysis.summary import summarise
from clstudy.cli.commands import main
from clstudy.records.study_record import StudyRecord, TrialEntry, read_study_record
from tests.analysis.test_report import Study, loop_score

PANELS = (("reconstruction", "lpips"), ("reconstruction", "id"))


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Two studies that have bob and cat in common; scores of a cell are other numbers in each."""
    folder = tmp_path_factory.mktemp("between")
    return Study(folder / "one"), Study(folder / "two", identities=("bob", "cat", "dan"), seeds=(0, 1, 2))


def photos_of(study):
    return photos_in(load_rows(study.folder))


def values_by_seed(study, panel, score, strategy, size, name, seeds):
    middle = "" if size is None else f"-k{size}"
    higher = panel[1] != "lpips"
    return np.mean(
        [loop_score(study.r[f"{name}-{strategy}{middle}-lr0.001-s{seed}"][panel], score, higher) for seed in seeds]
    )


def test_differences_are_paired_on_people_and_seeds_of_both(both):
    first, second = both
    found = between(*(gather(summarise(study.folder)) for study in both), ["bob", "cat"])
    assert {one.cell[:2] for one in found} >= set(PANELS) and found[0].cell[:2] == PANELS[0]
    assert {one.cell.score for one in found} == {"aip", "forgetting", "bwt", "final"}
    for one in found:
        cell = one.cell
        mine, theirs = (
            [
                values_by_seed(study, cell[:2], cell.score, cell.strategy, cell.buffer_size, name, (0, 1))
                for name in ("bob", "cat")
            ]
            for study in both
        )
        expected = stats.ttest_rel(theirs, mine).confidence_interval(0.95)
        np.testing.assert_allclose([one.first, one.second], [np.mean(mine), np.mean(theirs)], rtol=1e-12)
        np.testing.assert_allclose([one.difference.low, one.difference.high], expected, rtol=1e-9)
        assert one.difference.mean == pytest.approx(np.mean(theirs) - np.mean(mine), rel=1e-9)
        assert (one.n_identities, one.n_seeds) == (2, 2), "the second study's third seed has no partner"


def test_people_of_equal_names_are_paired_if_a_photo_or_the_packaged_data_say_so(both, tmp_path):
    first, second = (read_study_record(study.folder) for study in both)
    shared = shared_people(first, second, (photos_of(both[0]), photos_of(both[1])))
    assert (shared.people, shared.test_photos, shared.other_people) == (("bob", "cat"), 1.0, ())
    mine = {"bob": {"a", "b"}, "cat": {"c"}}
    theirs = {"bob": {"b", "d", "e"}, "cat": {"x"}}
    shared = shared_people(first, second, (mine, theirs))
    assert shared.people == ("bob",) and shared.test_photos == 1 / 4 and shared.other_people == ("cat",)

    def of(data_set, seed):
        return replace(first, data_set=data_set, profile={"name": "embedded", "data": {"data_seed": seed}})

    for one, other, paired in (
        (of("virtual", 0), of("virtual_strong", 0), True),  # another preset of the same people
        (of("virtual", 0), of("virtual", 1), False),
        (of("virtual", 0), of("synthetic", 0), False),
        (of("photos", 0), of("photos", 0), False),  # a folder of one's own: its name says nothing
    ):
        assert bool(shared_people(one, other, ({"bob": {"a"}}, {"bob": {"z"}})).people) == paired


def test_what_differs_is_every_setting_version_and_digest_that_does():
    def record(steps, commit, strategies):
        trials = [
            TrialEntry(trial=name, identity="ann", strategy=name, buffer_size=None, learning_rate=0.1, seed=0)
            for name in strategies
        ]
        profile = {"name": "embedded", "inversion": {"steps": steps, "latent_space": "w"}}
        return StudyRecord(
            name="x", profile=profile, trials=tuple(trials), git_commit=commit, versions={"torch": "2.13"}
        )

    one, other = record(20, "a" * 40, ["lower"]), record(40, "b" * 40, ["lower", "upper"])
    found = {difference.what: difference.values for difference in what_differs([one, other])}
    assert found == {
        "profile.inversion.steps": ("20", "40"),
        "git_commit": ("a" * 40, "b" * 40),
        "strategies": ("lower", "lower, upper"),
    }
    assert what_differs([one, replace(one, name="y", description="another")]) == []


def test_the_command_says_what_differs_and_writes_the_pairs(both, tmp_path, capsys, few_figures):
    folders = []
    for study, steps in zip(both, (20, 40), strict=True):
        folder = tmp_path / study.folder.name
        (folder / "results").mkdir(parents=True)
        for path in (study.folder / "results").glob("*.parquet"):
            (folder / "results" / path.name).write_bytes(path.read_bytes())
        plan = yaml.safe_load((study.folder / "study.yaml").read_text())
        plan["profile"] = {"name": "embedded", "inversion": {"steps": steps}}
        (folder / "study.yaml").write_text(yaml.safe_dump(plan))
        folders.append(str(folder))
    assert main(["compare", *folders]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "profile.inversion.steps" in said and "on the 2 people of both" in said and "share all of their" in said
    page = (tmp_path / "comparison.html").read_text()
    assert "What is not the same" in page and "profile.inversion.steps" in page and "(two) minus" in page
    with (tmp_path / "comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    row = next(r for r in rows if (r["metric"], r["score"], r["strategy"]) == ("lpips", "aip", "lower"))
    expected = np.mean([
        values_by_seed(both[1], PANELS[0], "aip", "lower", None, name, (0, 1))
        - values_by_seed(both[0], PANELS[0], "aip", "lower", None, name, (0, 1))
        for name in ("bob", "cat")
    ])  # fmt: skip
    assert float(row["difference"]) == pytest.approx(expected, rel=1e-9)


def test_strangers_are_said_to_be_strangers(both, tmp_path, capsys, few_figures):
    folder = tmp_path / "other"
    (folder / "results").mkdir(parents=True)
    for path in (both[0].folder / "results").glob("*.parquet"):
        table = pq.read_table(path)
        images = pa.array([f"other-{image}" for image in table["image"].to_pylist()])
        pq.write_table(
            table.set_column(table.schema.get_field_index("image"), "image", images), folder / "results" / path.name
        )
    (folder / "study.yaml").write_text((both[0].folder / "study.yaml").read_text())
    assert main(["compare", str(both[0].folder), str(folder)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "have no person in common: nothing can be paired" in said and "Left out: ann, bob, cat" in said


def test_both_studies_are_in_one_figure_with_their_differences(both):
    """Left the means of both on the people of both, right what sets them apart: the numbers of the tables."""
    first, second = (gather(summarise(study.folder)) for study in both)
    cells = between(first, second, ["bob", "cat"])
    drawn = between_drawing("one", "two", cells, first.metrics, name="comparison_0")
    assert set(drawn.files) == {"svg", "png"} and "the people of both (2)" in drawn.caption
    panels = iter(drawn.figure.axes)
    for score in ("aip", "forgetting"):
        own = [one for one in cells if one.cell[:2] == PANELS[0] and one.cell.score == score]
        levels, apart = next(panels), next(panels)
        points = {line.get_label(): line for line in levels.get_lines() if len(line.get_xdata()) == len(own) > 2}
        assert list(points["one"].get_xdata()) == [one.first for one in own]
        assert list(points["two"].get_xdata()) == [one.second for one in own]
        spans = [list(line.get_xdata()) for line in apart.get_lines() if len(line.get_xdata()) == 2][1:]
        assert spans == [[one.difference.low, one.difference.high] for one in own]
        means = [line.get_xdata()[0] for line in apart.get_lines() if len(line.get_xdata()) == 1]
        assert means == [one.difference.mean for one in own]


def test_without_a_cell_in_common_there_is_no_figure(both):
    metrics = gather(summarise(both[0].folder)).metrics
    assert between_drawing("one", "two", [], metrics, name="comparison_0") is None


def test_joint_training_alone_is_shown_by_its_final_performance(both):
    first, second = (gather(summarise(study.folder)) for study in both)
    cells = [one for one in between(first, second, ["bob", "cat"]) if one.cell.strategy == "upper"]
    drawn = between_drawing("one", "two", cells, first.metrics, name="comparison_0")
    assert len(drawn.figure.axes) == 2 and "Final performance" in drawn.figure.axes[0].get_xlabel()
