"""The fuzz benchmark: its harness tells the endings apart."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.fuzz.harness import FAILURES, GIVEN, Outcome, Target, case_rng, prepare, run_child, shares
from benchmarks.fuzz.mutations import BINARY, TEXT, damage_one_file
from benchmarks.fuzz.study_files import TARGETS
from clstudy.errors import UserError

SLICE = 6


def _clear() -> Outcome:
    raise UserError("the file is damaged")


def _bug() -> Outcome:
    raise KeyError("sha256")


def _hang() -> Outcome:
    time.sleep(60)
    return Outcome.SAME


def _large() -> Outcome:
    assert len(b"x" * 300_000_000) == 300_000_000
    return Outcome.SAME


def _crash() -> Outcome:
    os.abort()


@pytest.mark.parametrize(
    ("work", "outcome", "words"),
    [
        (lambda: Outcome.SAME, Outcome.SAME, ""),
        (lambda: (Outcome.WRONG, "1 for 2"), Outcome.WRONG, "1 for 2"),
        (_clear, Outcome.CLEAR_ERROR, "the file is damaged"),
        (_bug, Outcome.TRACEBACK, "KeyError"),
        (_hang, Outcome.OVER, "not over after 1 s"),
        (_large, Outcome.OVER, "GB"),
        (_crash, Outcome.TRACEBACK, "status"),
    ],
)
def test_the_child_is_bounded_and_its_end_is_named(work, outcome: Outcome, words: str, tmp_path: Path) -> None:
    limit = 1.0 if work is _hang else 60.0
    found, said, seconds, _ = run_child(work, tmp_path / "output.txt", seconds=limit, memory=200_000_000)
    assert (found, words in said) == (outcome, True), said
    assert work is not _hang or seconds < 10


def _numbers(folder: Path, rng: np.random.Generator) -> None:
    (folder / GIVEN / "numbers.txt").write_text("1 2 3\n" * 20)
    (folder / "expected.txt").write_text("1 2 3\n" * 20)


def _reads_numbers(folder: Path) -> Outcome:
    try:
        found = (folder / GIVEN / "numbers.txt").read_bytes()
    except FileNotFoundError as error:
        raise UserError("no numbers.txt") from error
    return Outcome.SAME if found == (folder / "expected.txt").read_bytes() else Outcome.WRONG


def test_a_case_is_the_same_whenever_it_is_run_and_a_failing_one_is_kept(tmp_path: Path) -> None:
    target = Target(name="numbers", prepare=_numbers, check=_reads_numbers)
    keep = tmp_path / "kept"
    prepared = prepare(target, tmp_path / "work", 3, keep)
    first = [prepared.case(number) for number in range(20)]
    again = prepared.case(7)
    assert (again.damage, again.outcome) == (first[7].damage, first[7].outcome)
    assert len({ending.damage for ending in first}) > 5
    wrong = {f"numbers-{ending.case}" for ending in first if ending.outcome is Outcome.WRONG}
    assert wrong and {path.name for path in keep.iterdir()} == wrong
    assert (prepared.folder / GIVEN / "numbers.txt").read_bytes() == (prepared.folder / "expected.txt").read_bytes()
    assert shares([target, Target(name="b", prepare=_numbers, check=_reads_numbers, share=3)], 100) == {
        "numbers": 25,
        "b": 75,
    }


def test_every_mutation_takes_every_content(tmp_path: Path) -> None:
    rng = case_rng(0, "mutations", 0)
    for mutation in {*BINARY, *TEXT}:
        for content in (b"\0", b"a", b"{}", b'{"a": 1, "b": [1, 2]}\n', bytes(range(256)) * 20):
            changed = [mutation(content, rng) for _ in range(5)]
            assert all(isinstance(one, bytes) for one in changed)
    (tmp_path / "a.json").write_text('{"a": 1}')
    (tmp_path / "empty").touch()
    for number in range(50):
        if not any(tmp_path.iterdir()):
            break
        assert damage_one_file(tmp_path, case_rng(1, "files", number))


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_slice_of_the_benchmark(target: Target, tmp_path: Path) -> None:
    """A few of its cases; all of them: ``python -m benchmarks.fuzz``."""
    prepared = prepare(target, tmp_path, 0)
    endings = [prepared.case(number) for number in range(SLICE)]
    assert not [ending for ending in endings if ending.outcome in FAILURES]
    assert any(ending.outcome is not Outcome.SAME for ending in endings)
