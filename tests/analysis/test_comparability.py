"""What is compared is comparable: the same photos, joint training by what it is, and what is unequal is said."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from scipy import stats

from clstudy.analysis.efficiency import efficiency_table
from clstudy.analysis.limits import not_concluded
from clstudy.analysis.notes import missing_notes, notes
from clstudy.analysis.photos import other_photos, photo_marks
from clstudy.analysis.report_data import gather
from clstudy.analysis.score_tables import JOINT_NOTE
from clstudy.analysis.summary import summarise
from clstudy.analysis.tables import efficiency_markdown, to_latex, to_markdown
from clstudy.errors import UserError
from clstudy.records.rows import RESULT_SCHEMA
from tests.analysis.test_report import Study, spoken
from tests.analysis.test_tables import shift
from tests.support.small_study import make_study

LPIPS = ("reconstruction", "lpips")


def change(study, trial, rename):
    """Rename the photos of a trial's rows."""
    rows = pq.read_table(study.results(trial)).to_pylist()
    for row in rows:
        row["image"] = rename(row)
    pq.write_table(pa.Table.from_pylist(rows, schema=RESULT_SCHEMA), study.results(trial))


# --- the same photos --------------------------------------------------------------------------------------------------


def test_a_trial_that_saw_other_photos_is_named_and_not_in_the_numbers(tmp_path):
    study = Study(tmp_path / "study", seeds=(0,))
    before = summarise(study.folder)
    odd = "bob-er_hull-k3-lr0.001-s0"
    change(study, odd, lambda row: f"new {row['image']}" if row["test_timestamp"] == 1 else row["image"])
    summary = summarise(study.folder)
    (missing,) = summary.missing
    assert missing.trial == odd and not summary.complete
    assert (
        "reconstruction lpips: tested on other photos than trial bob-er_hull-k5-lr0.001-s0 at timestamp 1"
        in missing.reason
    )
    assert "cannot be compared" in missing.reason and "missing cells" not in missing.reason
    assert any(odd in note for note in missing_notes(summary))
    for cell, identities in summary.values.items():
        assert ("bob" in identities) == ((cell.strategy, cell.buffer_size) != ("er_hull", 3))
    ours = {key: value for key, value in summary.values.items() if (key.strategy, key.buffer_size) != ("er_hull", 3)}
    assert ours == {key: before.values[key] for key in ours}, "nothing else changes"
    assert {
        row["n_identities"]
        for row in summary.paired.to_pylist()
        if row["strategy"] == "er_hull" and row["buffer_size"] == 3
    } == {2}
    assert len(gather(summary).matrices) == len(before.matrices) - 4


def test_photos_that_change_within_a_trial_are_no_forgetting(tmp_path):
    study = Study(tmp_path / "study", seeds=(0,))
    odd = "ann-lower-lr0.001-s0"
    change(study, odd, lambda row: f"{row['image']}, again" if row["train_timestamp"] == 2 else row["image"])
    (missing,) = summarise(study.folder).missing
    assert missing.trial == odd and "at timestamps 0, 1, 2" in missing.reason


def test_joint_training_is_held_to_the_same_photos(tmp_path):
    study = Study(tmp_path / "study", seeds=(0,))
    odd = "cat-upper-lr0.001-s0"
    change(study, odd, lambda row: f"other {row['image']}")
    assert [missing.trial for missing in summarise(study.folder).missing] == [odd]


def test_people_may_have_different_photos_and_order_does_not_matter(tmp_path):
    study = Study(tmp_path / "study", seeds=(0,))
    for spec in study.trials:
        change(study, spec["trial"], lambda row, name=spec["identity"]: f"{name} {row['image']}")
    path = study.results("ann-lower-lr0.001-s0")
    table = pq.read_table(path)
    pq.write_table(table.take(np.random.default_rng(0).permutation(table.num_rows)), path)
    assert summarise(study.folder).complete


def test_where_sets_are_equally_frequent_the_first_stands():
    marks = np.array([[7], [7], [9], [9], [7]]).reshape(5, 1, 1, 1, 1)
    odd, usual = other_photos(marks, np.full(marks.shape, 2), ["ann", "ann", "ann", "ann", "bob"])
    assert odd.ravel().tolist() == [False, False, True, True, False]
    assert usual.ravel().tolist() == [0, 0, 0, 0, -1]
    odd, _ = other_photos(marks, np.array([2, 2, 0, 0, 2]).reshape(marks.shape), ["ann"] * 5)
    assert not odd.any(), "what was not measured is not odd"


def test_marks_tell_sets_of_photos_apart():
    names = pa.chunked_array([["a", "b"], ["b", "a"], ["a", "c"]])
    sums = photo_marks(names).to_numpy().reshape(3, 2).sum(axis=1)
    assert sums[0] == sums[1] != sums[2] and sums.max() < 2**42
    assert photo_marks(names.dictionary_encode()).equals(photo_marks(names))


# --- joint training ---------------------------------------------------------------------------------------------------

JOINT_SOURCE = """
from clstudy.strategies.base import Memory, Strategy


class Everything(Strategy):
    name = "everything"
    description = "joint training of a user's own"
    stores_photos = balanced = uses_buffer_size = False
    joint = True

    def select(self, memory, new, capacity, rng):
        return Memory()
"""


def test_a_users_joint_strategy_gives_a_complete_study(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_joint.py").write_text(JOINT_SOURCE)
    folder = make_study(tmp_path, ("lower", "my_joint:Everything"))
    plan = yaml.safe_load((folder / "study.yaml").read_text())
    assert {entry["strategy"]: entry.get("joint") for entry in plan["trials"]} == {
        "lower": None, "my_joint:Everything": True,
    }  # fmt: skip
    summary = summarise(folder)
    assert summary.complete, summary.missing
    assert (
        summary.study.joint_strategies == {"my_joint:Everything"}
        and summary.study.strategies[-1] == "my_joint:Everything"
    )
    rows = [row for row in summary.scores.to_pylist() if row["strategy"] == "my_joint:Everything"]
    assert {row["score"] for row in rows} == {"final"} and {row["note"] for row in rows} == {JOINT_NOTE}
    assert "my_joint:Everything *" in to_markdown(summary)


def test_a_study_that_does_not_say_what_is_joint_goes_by_the_name(tmp_path):
    study = Study(tmp_path / "study", seeds=(0,))
    assert summarise(study.folder).study.joint_strategies == {"upper"}
    plan = yaml.safe_load((study.folder / "study.yaml").read_text())
    plan["trials"][0]["joint"] = "yes"
    (study.folder / "study.yaml").write_text(yaml.safe_dump(plan))
    with pytest.raises(UserError, match="joint is 'yes'"):
        summarise(study.folder)


# --- unequal histories ------------------------------------------------------------------------------------------------


def test_different_numbers_of_timestamps_are_said_with_their_counts(tmp_path):
    study = Study(tmp_path / "study", seeds=(0,), size=4)
    for spec in study.trials:
        if spec["identity"] == "ann":
            rows = pq.read_table(study.results(spec["trial"])).to_pylist()
            # ann's third timestamp is her last: joint training has that row, the others have it already
            kept = [row for row in rows if row["test_timestamp"] < 3]
            if spec["strategy"] == "upper":
                kept = [row | {"train_timestamp": 2} for row in kept]
            kept = [row for row in kept if row["train_timestamp"] < 3]
            pq.write_table(pa.Table.from_pylist(kept, schema=RESULT_SCHEMA), study.results(spec["trial"]))
    plan = yaml.safe_load((study.folder / "study.yaml").read_text())
    (study.folder / "study.yaml").write_text(yaml.safe_dump(plan | {"timestamps": {"ann": 3, "bob": 4, "cat": 4}}))
    summary = summarise(study.folder)
    assert summary.complete
    sentence = "Identities have different numbers of timestamps (T = 3: ann; T = 4: bob, cat)."
    for text in (to_markdown(summary), to_latex(summary), " ".join(notes(summary)), " ".join(spoken(summary).split())):
        assert sentence in text
    assert not any("numbers of timestamps" in note for note in notes(summarise(Study(tmp_path / "equal").folder)))


# --- upper is not always above ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_what_ends_better_than_upper_is_said(tmp_path, seeds):
    study = Study(tmp_path / "study", seeds=seeds)
    for strategy, size, by in (("lower", None, 5.0), ("upper", None, 2.0), ("er_hull", 3, 1.0), ("er_rand", 3, 3.0),
                               ("er_rand", 5, 3.0), ("er_hull", 5, 3.0)):  # fmt: skip
        shift(study, strategy, size, by)
    summary = summarise(study.folder)
    arms = (("er_hull", 3), ("upper", None))
    ours, theirs = (list(study.per_identity(LPIPS, "final", *arm).values()) for arm in arms)
    low, high = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    (said,) = [note for note in not_concluded(summary) if "upper" in note]
    assert said.startswith("upper is not an upper bound of the means here: better at the end is er_hull with K = 3 in ")
    difference = np.mean(ours) - np.mean(theirs)
    assert f"with K = 3 in Reconstruction LPIPS by {difference:+.4f} [{low:+.4f}, {high:+.4f}]" in said
    assert "A gap closed above 100% says the same" in said and "Reconstruction ID similarity by +0" in said
    rows = {(row["metric"], row["strategy"], row["buffer_size"]): row for row in efficiency_table(summary).to_pylist()}
    assert rows["lpips", "er_hull", 3]["gap_closed"] > 1 and "above 100%" in rows["lpips", "er_hull", 3]["note"]
    assert "above 100%" not in rows["lpips", "er_rand", 3]["note"] and "above 100%" in efficiency_markdown(summary)

    shift(study, "upper", None, -9.0)
    assert not any("Reconstruction LPIPS by" in note for note in not_concluded(summarise(study.folder)))
