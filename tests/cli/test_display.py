"""What a terminal shows while a study runs, and how its plan is laid out."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from clstudy.cli.display import _Board, plan_lines, print_plan
from clstudy.identities.dataset import DataSet
from clstudy.settings.trial_spec import TrialSpec
from clstudy.storage.content_addressed_store import StudyStore
from clstudy.study.plan import START_SECONDS, Plan, make_plan
from tests.support.furnished import BASIS, person

TRIALS = tuple(
    TrialSpec(identity="ann", strategy=strategy, buffer_size=size, learning_rate=0.003, seed=0)
    for strategy, size in (("lower", None), ("mergan_jtr", 10))
)


@pytest.fixture
def plan(tmp_path) -> Plan:
    return make_plan(TRIALS, {"ann": person("ann", 3)}, BASIS, StudyStore(tmp_path), tmp_path, workers=2)


def shown(what, width: int, *, terminal: bool = True) -> list[str]:
    sink = io.StringIO()
    console = Console(file=sink, width=width, force_terminal=terminal, color_system=None)
    if isinstance(what, list):
        print_plan(what, console)
    else:
        console.print(what)
    return sink.getvalue().splitlines()


def snapshot(*names: str):
    state = {"t": 1, "phase": "train", "done": 120, "total": 600, "loss": 0.1234}
    return {
        "running": dict.fromkeys(names, state),
        "finished": {},
        "stages": {"computed": 1, "reused": 0, "seconds": 9.0, "repeated": 0},
    }


@pytest.mark.parametrize("width", [80, 120])
def test_the_bar_and_every_trial_have_a_line_of_their_own(plan: Plan, width: int):
    names = [spec.trial_id for spec in TRIALS]
    lines = shown(_Board(plan, 2).render(snapshot(*names)), width)
    (bar,) = [place for place, line in enumerate(lines) if "━" in line]
    assert not lines[bar].strip(" ━╸╺"), "nothing is glued to the bar"
    for name in names:
        (line,) = [line for line in lines if name in line]
        assert line.split()[1:] == [name, "t=1", "train", "120/600", "loss", "0.1234"]
    assert max(map(len, lines)) <= width


def test_of_a_name_that_does_not_fit_the_end_goes_and_the_progress_stays(plan: Plan):
    lines = shown(_Board(plan, 2).render(snapshot("person_with_a_very_long_name" * 4)), 80)
    (line,) = [line for line in lines if "…" in line]
    assert line.split()[-5:] == ["t=1", "train", "120/600", "loss", "0.1234"]


def test_every_worker_has_a_line_and_a_trial_keeps_its_line(plan: Plan):
    board = _Board(plan, 2)

    def workers(*names: str) -> list[str]:
        """What the lines of the workers begin with."""
        lines = shown(board.render(snapshot(*names)), 80)
        return [" ".join(line.split()[:2]) for line in lines if line.strip()[:1].isdigit()]

    assert workers() == ["1 waits", "2 waits"]
    assert workers("b") == ["1 b", "2 waits"]
    assert workers("a", "b") == ["1 b", "2 a"], "it is not sorted anew"
    assert workers("a") == ["1 waits", "2 a"]
    assert workers("a", "c") == ["1 c", "2 a"]
    assert workers("a", "c", "d") == ["1 c", "2 a", "3 d"], "more nodes may join"


@pytest.mark.parametrize("width", [80, 120])
def test_the_plan_breaks_between_words_and_says_what_starting_takes(plan: Plan, width: int):
    people = DataSet("made_up", Path("nowhere"), (person("ann", 3),))
    lines = plan_lines(plan, "2 trials", BASIS.profile, people, workers=2)
    whole = {word for line in shown(lines, width, terminal=False) for word in line.split()}
    wrapped = shown(lines, width)
    assert max(map(len, wrapped)) <= width and len(wrapped) > len(lines)
    assert {word for line in wrapped for word in line.split()} == whole, "no word is broken"
    assert len(shown(lines, width, terminal=False)) == len(lines), "a pipe gets one line each"
    assert plan.seconds > plan.start_seconds == START_SECONDS
    assert any(f"{START_SECONDS:.0f} s of it to start Ray" in line for line in shown(lines, 500))
