"""Every registered strategy keeps the contract, and the suite that says so can fail."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clstudy.cli.strategies import main
from clstudy.strategies import STRATEGIES, AnchorStrategy, Memory, PhotoStrategy, Strategy, candidates, make_items
from clstudy.strategies.balance import draw_subset
from clstudy.strategies.base import Generated, timestamps_of
from clstudy.strategies.generative_replay import generate
from clstudy.strategies.testing.conformance import CHECKS, Finding, check_strategy
from clstudy.strategies.testing.situations import SITUATIONS, Situation

NAMES = list(STRATEGIES)
WIDEST = next(one for one in SITUATIONS if one.counts == (1, 7, 2, 9) and one.capacity == 10)
"""The situation with most subsets: a search for the best hull takes as long there as in all others together."""
SEARCHING = ("er_hull", "er_hull_refined")


def failures(make: Callable[[], Strategy], situations=SITUATIONS) -> dict[str, str]:
    """Message by check, of the checks that failed."""
    findings = check_strategy(make, situations)
    assert all(finding.passed == (finding.message == "") for finding in findings)
    return {finding.check: finding.message for finding in findings if not finding.passed}


# Every strategy


@pytest.mark.parametrize("name", NAMES)
def test_registered_strategies_conform(name):
    situations = [one for one in SITUATIONS if one != WIDEST or name not in SEARCHING]
    findings = check_strategy(STRATEGIES[name], situations)
    assert [finding.check for finding in findings] == list(CHECKS)
    assert not [finding for finding in findings if not finding.passed]


@pytest.mark.slow
@pytest.mark.ci_slow
@pytest.mark.parametrize("name", SEARCHING)
def test_searching_strategies_conform_where_there_is_most_to_search(name):
    assert failures(STRATEGIES[name], [WIDEST]) == {}


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=10, deadline=None)
@given(
    counts=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    capacity=st.integers(1, 12),
    distinct=st.none() | st.integers(1, 5),
    seed=st.integers(0, 1000),
)
def test_registered_strategies_conform_anywhere(name, counts, capacity, distinct, seed):
    assert failures(STRATEGIES[name], [Situation(tuple(counts), capacity, distinct, seed)]) == {}


def test_situations_cover_what_matters():
    assert {situation.capacity for situation in SITUATIONS} == {1, 2, 3, 5, 10}
    assert {len(situation.counts) for situation in SITUATIONS} >= {1, 2, 4, 6}
    assert any(sum(situation.counts) < situation.capacity for situation in SITUATIONS)
    assert any(situation.counts[0] == situation.capacity for situation in SITUATIONS)
    assert any(len(situation.counts) > situation.capacity for situation in SITUATIONS)
    repeated = Situation((6, 4), 3, distinct=2)
    photos = [*repeated.photos(0), *repeated.photos(1)]
    assert len({item.latent.tobytes() for item in photos}) == 2 and len({item.digest for item in photos}) == 10
    assert repeated.photos(1) == repeated.photos(1)
    assert str(repeated) == "2 timestamps of 6, 4 photos (2 different latents), K = 3, seed 0"


# Strategies with one fault each


class Good(PhotoStrategy):
    """Conforms; the broken ones differ from it in one thing."""

    name = "good"
    description = "random photos"
    balanced = True

    def choose(self, items, capacity, rng):
        return draw_subset(timestamps_of(items), capacity, rng)


class GoodAnchors(AnchorStrategy):
    name = "good_anchors"
    description = "the first anchors"
    balanced = False

    def choose(self, items, capacity, rng):
        return range(capacity)


@dataclass(frozen=True)
class WithSettings(Good):
    weight: float


class GoodHooks(GoodAnchors):
    """All three hooks, conforming."""

    name = "good_hooks"

    def replays(self, past, rng):
        return generate(past, 4, 2, rng)

    def penalty(self, past, rng):
        scale = rng.random()
        return lambda module: scale * sum(value.square().sum() for value in module.parameters())

    def consolidate(self, past, trained):
        return {"loss": trained.loss(0).detach()}


class UnseededReplays(GoodHooks):
    def replays(self, past, rng):
        return generate(past, 4, 2, np.random.default_rng())


class TorchGlobalReplays(GoodHooks):
    def replays(self, past, rng):
        latents = torch.randn(4, *past.memory.items[0].latent.shape)
        return Generated(latents, past.frozen(latents))


class ReplaysWithGradients(GoodHooks):
    def replays(self, past, rng):
        found = generate(past, 4, 2, rng)
        return Generated(found.latents.requires_grad_(True), found.images)


class ReplaysOfAnotherShape(GoodHooks):
    def replays(self, past, rng):
        found = generate(past, 4, 2, rng)
        return Generated(found.latents, found.images[0])


class ReplaysThatAreNone(GoodHooks):
    def replays(self, past, rng):
        return generate(past, 4, 2, rng).images


class PenaltyPerPhoto(GoodHooks):
    def penalty(self, past, rng):
        return lambda module: module(torch.zeros(2, 8)).square().sum(dim=(1, 2, 3))


class PenaltyThatThaws(GoodHooks):
    def penalty(self, past, rng):
        def thaw(module):
            for value in past.frozen.parameters():
                value.add_(1.0)
            return torch.zeros(())

        return thaw


class LearnsNoTensor(GoodHooks):
    def consolidate(self, past, trained):
        return {"photos": trained.photos}


class LearnsSparse(GoodHooks):
    def consolidate(self, past, trained):
        return {"sparse": torch.eye(3).to_sparse()}


class HookThatRaises(GoodHooks):
    def penalty(self, past, rng):
        raise RuntimeError("no penalty today")


class TooMany(Good):
    def select(self, memory, new, capacity, rng):
        return super().select(memory, new, capacity + 1, rng)


class TooFew(Good):
    def choose(self, items, capacity, rng):
        return [0]


class NotFilled(Good):
    """Forgets what was stored."""

    def select(self, memory, new, capacity, rng):
        return super().select(Memory(), new, capacity, rng)


class KeepsUnsaid(Good):
    stores_photos = False
    balanced = False


class Invents(Good):
    def select(self, memory, new, capacity, rng):
        kept = super().select(memory, new, capacity, rng).items
        invented = make_items(kept[-1].timestamp, ["zz"], [kept[-1].latent])
        return Memory(items=(*kept[:-1], *invented))


class Alters(Good):
    def select(self, memory, new, capacity, rng):
        kept = super().select(memory, new, capacity, rng).items
        return Memory(items=(replace(kept[0], spread=kept[0].spread + 1), *kept[1:]))


class Repeats(Good):
    def choose(self, items, capacity, rng):
        return [super().choose(items, capacity, rng)[0]] * capacity


class Unsorted(Good):
    def select(self, memory, new, capacity, rng):
        return Memory(items=super().select(memory, new, capacity, rng).items[::-1])


class Newest(Good):
    def choose(self, items, capacity, rng):
        return range(len(items) - capacity, len(items))


class GlobalNumpy(Good):
    def choose(self, items, capacity, rng):
        return np.random.permutation(len(items))[:capacity]


class GlobalPython(Good):
    def choose(self, items, capacity, rng):
        random.random()
        return super().choose(items, capacity, rng)


class Unseeded(Good):
    def choose(self, items, capacity, rng):
        return super().choose(items, capacity, np.random.default_rng())


class FirstCome(Good):
    balanced = False

    def select(self, memory, new, capacity, rng):
        return Memory(items=candidates(Memory(), [*new, *memory.items][:capacity]))


class Remembers(Good):
    """Draws differently the second time."""

    def __init__(self):
        self.calls = 0

    def choose(self, items, capacity, rng):
        self.calls += 1
        return super().choose(items, capacity, np.random.default_rng(self.calls))


class Empties(Good):
    def select(self, memory, new, capacity, rng):
        after = super().select(memory, new, capacity, rng)
        new.clear()
        return after


class Counts(Good):
    """Counts in the state that was handed in."""

    def select(self, memory, new, capacity, rng):
        memory.state["seen"] = memory.state.get("seen", 0) + len(new)
        return replace(super().select(memory, new, capacity, rng), state=memory.state)


class WithState(Good):
    value: object = None

    def select(self, memory, new, capacity, rng):
        return replace(super().select(memory, new, capacity, rng), state={"value": self.value})


class ArrayState(WithState):
    value = np.zeros(3)


class TupleState(WithState):
    value = (1, 2)


class NanState(WithState):
    value = float("nan")


class KeyState(WithState):
    value = {1: "one"}


class ReadsTypes(Good):
    """Works on a state that JSON changes."""

    def select(self, memory, new, capacity, rng):
        spoilt = memory.state and isinstance(memory.state["counts"], list)
        after = super().select(memory, new, capacity, np.random.default_rng(1) if spoilt else rng)
        return replace(after, state={"counts": tuple(range(2))})


class Crashes(Good):
    def choose(self, items, capacity, rng):
        raise RuntimeError("no such luck")


class CrashesForOne(Good):
    def choose(self, items, capacity, rng):
        if capacity == 1:
            raise ZeroDivisionError
        return super().choose(items, capacity, rng)


class CrashesOnDuplicates(Good):
    def choose(self, items, capacity, rng):
        if len({item.latent.tobytes() for item in items}) < len(items):
            raise ValueError("singular matrix")
        return super().choose(items, capacity, rng)


class CrashesReversed(Good):
    def select(self, memory, new, capacity, rng):
        if list(memory.items) != sorted(memory.items, key=lambda item: (item.timestamp, item.digest)):
            raise AssertionError("not sorted")
        return super().select(memory, new, capacity, rng)


class ReturnsItems(Good):
    def select(self, memory, new, capacity, rng):
        return list(super().select(memory, new, capacity, rng).items)


class CannotBeMade(Good):
    def __init__(self, weight):
        self.weight = weight


class NoDescription(Good):
    description = " "


class TwoLines(Good):
    description = "one\ntwo"


class WrongType(Good):
    balanced = 1


class FactMissing(Strategy):
    name, description = "fact_missing", "does not say whether it is balanced"
    stores_photos, uses_buffer_size = True, True

    def select(self, memory, new, capacity, rng):
        return Good().select(memory, new, capacity, rng)


class NameTaken(Good):
    name = "er_rand"


class BothStored(Good):
    stores_anchors = True


class SizeDenied(Good):
    uses_buffer_size = False


class NothingBalanced(Strategy):
    name, description = "nothing_balanced", "stores nothing, evenly"
    stores_photos, balanced, uses_buffer_size = False, True, False

    def select(self, memory, new, capacity, rng):
        return Memory()


class SizeUsed(NothingBalanced):
    balanced = False

    def select(self, memory, new, capacity, rng):
        return Memory(state={"capacity": capacity})


class NotAStrategy:
    name, description = "none", "looks like one"
    stores_photos, stores_anchors, balanced, uses_buffer_size, joint = True, False, False, True, False

    def select(self, memory, new, capacity, rng):
        return Good().select(memory, new, capacity, rng)


BROKEN = [
    (TooMany, "capacity", "^7 photos, K = 1, seed 0, at t = 0: keeps 2 of 7 candidates, expected 1$"),
    (TooFew, "capacity", "keeps 1 of 7 candidates, expected 2$"),
    (NotFilled, "capacity", "of 5, 5, 5, 5 photos, K = 10, seed 0, at t = 1: keeps 5 of 10 candidates, expected 10$"),
    (KeepsUnsaid, "capacity", "expected 0: it stores neither photos nor anchors$"),
    (Invents, "items", "keeps 0:zz, which is not a candidate"),
    (Alters, "items", "differs from its candidate in latent or spread"),
    (Repeats, "items", "keeps 0:[0-9a-f]{8} 2 times"),
    (Unsorted, "order", "are not in canonical order"),
    (Newest, "balance", "K = 2, seed 0, at t = 1: keeps 2 of t = 1 of 2 of t = 0, 5 of t = 1"),
    (GlobalNumpy, "global generators", "global generator of numpy.random; draw from rng"),
    (GlobalPython, "global generators", "global generator of random; draw from rng"),
    (Unseeded, "repeatable", "and once more with the same seed"),
    (FirstCome, "arrival", "with the same photos in another order"),
    (Remembers, "instances", "with an instance used before"),
    (Empties, "arguments", "the list of new photos was changed"),
    (Counts, "arguments", "the memory passed in was changed"),
    (ArrayState, "plain data", "cannot be written as JSON: TypeError: Object of type ndarray"),
    (TupleState, "plain data", r"reads back from JSON as \{'value': \[1, 2\]\}; it was \{'value': \(1, 2\)\}"),
    (NanState, "plain data", "cannot be written as JSON: ValueError"),
    (KeyState, "plain data", "reads back from JSON as"),
    (ReadsTypes, "plain data", "reads back from JSON as"),
    (Crashes, "runs", "7 photos, K = 1, seed 0, at t = 0: RuntimeError: no such luck"),
    (CrashesForOne, "runs", "K = 1, seed 0, at t = 0: ZeroDivisionError"),
    (CrashesOnDuplicates, "runs", "different latents.*ValueError: singular matrix"),
    (CrashesReversed, "arrival", "AssertionError: not sorted"),
    (ReturnsItems, "runs", "TypeError: select returned list, expected Memory"),
    (CannotBeMade, "facts", "no instance could be made: TypeError.*weight"),
    (NoDescription, "facts", "description: expected one line"),
    (TwoLines, "facts", "description: expected one line"),
    (WrongType, "facts", "class attribute 'balanced': expected bool, got 1"),
    (FactMissing, "facts", "class attribute 'balanced': expected bool, got None"),
    (NameTaken, "facts", "'er_rand' belongs to a registered strategy"),
    (BothStored, "facts", "items are kept for one or the other"),
    (SizeDenied, "facts", "uses_buffer_size is False, but it stores items"),
    (NothingBalanced, "facts", "balanced is True, but it stores neither"),
    (SizeUsed, "buffer size", "with a capacity of 0"),
    (NotAStrategy, "facts", "NotAStrategy is not a subclass of clstudy.strategies.Strategy"),
    (UnseededReplays, "hooks", "replays at t = 1: the same call gives two different answers"),
    (TorchGlobalReplays, "hooks", "replays at t = 1: draws from torch's global generator"),
    (ReplaysWithGradients, "hooks", "replays at t = 1 carry gradients"),
    (ReplaysOfAnotherShape, "hooks", r"expected latents \[n, 8\] and images \[n, 3, s, s\], got \(4, 8\) and"),
    (ReplaysThatAreNone, "hooks", "replays at t = 1 returned Tensor, expected Generated or None"),
    (PenaltyPerPhoto, "hooks", "penalty at t = 1: .*expected a finite scalar tensor"),
    (PenaltyThatThaws, "hooks", "penalty at t = 1 changed the frozen generator"),
    (LearnsNoTensor, "hooks", "expected a dict of tensors"),
    (LearnsSparse, "hooks", "cannot be stored as safetensors"),
    (HookThatRaises, "hooks", "penalty at t = 1: RuntimeError: no penalty today"),
]
"""Class, the check that must catch it, and what the message says."""

CONSEQUENCES = {
    TooMany: {"balance"},
    TooFew: {"balance"},
    NotFilled: {"balance"},
    Invents: {"balance"},
    Repeats: {"balance"},
    GlobalNumpy: {"balance", "repeatable", "instances", "arrival", "plain data"},
    Unseeded: {"instances", "arrival", "plain data"},
    ReturnsItems: set(CHECKS) - {"facts"},  # nothing is left to check
    SizeDenied: {"buffer size"},
    NothingBalanced: {"balance"},
    NotAStrategy: {"capacity"},
    FactMissing: {"balance"},
}
"""What else fails; every other fault is found by the one check that is there for it."""


def test_the_unbroken_strategies_conform():
    assert (
        failures(Good)
        == failures(GoodAnchors)
        == failures(GoodHooks)
        == failures(lambda: WithSettings(weight=2.0))
        == {}
    )


@pytest.mark.parametrize(("broken", "check", "message"), BROKEN)
def test_faults_are_caught(broken, check, message):
    found = failures(broken)
    assert set(found) == {check} | CONSEQUENCES.get(broken, set())
    assert re.search(message, found[check])


def test_every_check_can_fail():
    assert {check for _, check, _ in BROKEN} == set(CHECKS)


def test_a_registered_strategy_must_bear_its_name(monkeypatch):
    monkeypatch.setattr(STRATEGIES["er_rand"], "name", "er_random")
    assert failures(STRATEGIES["er_rand"]) == {"facts": "its name is 'er_random', but it is registered as 'er_rand'"}


def test_a_situation_in_a_message_can_be_played_again():
    situation = Situation((5, 5, 5, 5), 2)
    message = failures(Newest)["balance"]
    assert message.startswith(f"{situation}, at t = 1: ")
    assert failures(Newest, [situation])["balance"] == message


def test_the_suite_leaves_the_global_generators_alone():
    before = random.getstate(), np.random.get_state()[1].tobytes()
    check_strategy(Good)
    assert (random.getstate(), np.random.get_state()[1].tobytes()) == before


# The command line

MODULE = """
from clstudy.strategies import PhotoStrategy

class First(PhotoStrategy):
    name = "first"
    description = "the first photos"
    balanced = False

    def choose(self, items, capacity, rng):
        return range(capacity)

class Uneven(First):
    balanced = True

class Fails(First):
    def __init__(self):
        raise RuntimeError("no licence")
"""


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    (tmp_path / "own_strategies_of_a_test.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "own_strategies_of_a_test"
    sys.modules.pop("own_strategies_of_a_test", None)


def test_list_lines_up(capsys):
    assert main(["list"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == NAMES
    columns = [head.index(word) for word in ("stores", "balanced", "what")]
    stored = {"er_rand": ("photos", "yes"), "reservoir": ("photos", "no"), "ewc": ("nothing", "no")}
    for line in lines:
        name, cells = line.split()[0], [line[column:].split()[0] for column in columns]
        assert all(line[column - 1] == " " for column in columns)
        assert tuple(cells[:2]) == stored.get(name, tuple(cells[:2]))
        assert line.endswith(STRATEGIES[name].description)


def test_check_prints_a_line_per_check(own_module, capsys):
    assert main(["check", "gdumb", f"{own_module}:First"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines].count("ok") == 2 * len(CHECKS)
    assert lines[0] == "gdumb" and lines[-1] == "every check passed"
    assert main(["check", f"{own_module}:Uneven"]) == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if "FAILED" in line]
    assert len(failed) == 1 and re.match(r"  FAILED  balance +4 timestamps of 5, 5, 5, 5 photos, K = 2, ", failed[0])
    assert main(["check", f"{own_module}:Fails"]) == 1
    assert "no instance could be made: RuntimeError: no licence" in capsys.readouterr().out


def test_check_without_names_takes_all(monkeypatch, capsys):
    monkeypatch.setattr("clstudy.cli.strategies.check_strategy", lambda make: [Finding("runs")])
    assert main(["check"]) == 0
    assert [line for line in capsys.readouterr().out.splitlines()[:-1] if not line.startswith(" ")] == NAMES


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("er_hul", "unknown strategy 'er_hul'. Did you mean 'er_hull'?"),
        ("no_such_module_here:Class", "there is no module 'no_such_module_here'"),
        ("own_strategies_of_a_test:Frist", "Did you mean 'First'?"),
        ("own_strategies_of_a_test:MODULE", "has no 'MODULE'"),
        ("clstudy.errors:UserError", "is not a Strategy"),
        ("ewc(wieght=1)", "Did you mean 'weight'?"),
        ("ewc(", "cannot be read"),
    ],
)
def test_bad_names_are_explained(own_module, capsys, text, message):
    assert main(["check", "er_rand", text]) == 2
    output = capsys.readouterr()
    assert output.err.startswith("error: ") and message in output.err and output.err.count("\n") == 1
    assert output.out == ""  # nothing was checked before


def test_the_command(tmp_path):
    """As a user types it: a class in the current folder."""
    (tmp_path / "mine.py").write_text(MODULE)
    command = [sys.executable, "-m", "clstudy.strategies", "check", "mine:First", "mine:Uneven"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stderr) == (1, "")
    assert result.stdout.count("  ok  ") == 2 * len(CHECKS) - 1 and result.stdout.endswith("failed checks: 1\n")
