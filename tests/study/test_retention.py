"""Which weights stay: nothing that is needed is dropped, and nothing that is not needed stays."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from clstudy.storage.content_addressed_store import STAGE_FILES, StudyStore, digest_of
from clstudy.study.retention import Chain, droppable_learned, droppable_weights
from clstudy.study.weight_cleanup import WeightKeeper, progressed

EMPTY = Chain(lineage="p", keys=(), learned=(), done=0, finished=False, whole=False)


def keys_of(choices: tuple[int, ...]) -> tuple[str, ...]:
    """Keys that contain their past, as stage keys do: equal choices so far, equal key."""
    return tuple("/".join(map(str, choices[: t + 1])) for t in range(len(choices)))


@settings(max_examples=200, deadline=None)
@given(
    trials=st.lists(
        st.tuples(st.sampled_from("pq"), st.lists(st.integers(0, 1), min_size=3, max_size=3)), min_size=1, max_size=6
    ),
    known=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_a_study_in_any_order_never_misses_weights_and_ends_with_first_and_last(
    trials: list[tuple[str, list[int]]], known: bool, seed: int
) -> None:
    """Trials run interleaved at random; each stage needs its parent's weights at the moment it is computed."""
    rng = random.Random(seed)
    whole = [keys_of((ord(person), *choices)) for person, choices in trials]  # t = 0 is shared by a person's trials
    state = [
        replace(EMPTY, lineage=person, keys=whole[i] if known else (), learned=(None,) * 4 if known else ())
        for i, (person, _) in enumerate(trials)
    ]
    stored: set[str] = set()
    computed: set[str] = set()
    while any(not chain.finished for chain in state):
        i = rng.choice([i for i, chain in enumerate(state) if not chain.finished])
        t = state[i].done
        if whole[i][t] not in computed:
            assert t == 0 or whole[i][t - 1] in stored, "the parent's weights were dropped too early"
            computed.add(whole[i][t])
            stored.add(whole[i][t])
        state[i] = progressed(state[i], [(key, None) for key in whole[i][: t + 1]], finished=t + 1 == len(whole[i]))
        stored -= droppable_weights(state)
    assert stored == {keys[0] for keys in whole} | {keys[-1] for keys in whole}


def chain(*keys: str, done: int, finished: bool = False, lineage: str = "p", learned: tuple = ()) -> Chain:
    return Chain(
        lineage=lineage,
        keys=keys,
        learned=learned or (None,) * len(keys),
        done=done,
        finished=finished,
        whole=len(keys) == 4,
    )


def test_a_trial_that_has_not_begun_may_still_build_on_its_relatives_and_on_nobody_else() -> None:
    ended = chain("0", "a", "b", "c", done=4, finished=True)
    assert droppable_weights([ended]) == {"a", "b"}
    assert droppable_weights([ended, replace(EMPTY, lineage="p")]) == set()
    assert droppable_weights([ended, replace(EMPTY, lineage="q")]) == {"a", "b"}
    assert droppable_weights([ended, chain("0", "x", done=2)]) == {"a", "b"}, "it has gone another way"
    assert droppable_weights([ended, chain("0", "a", "y", done=2)]) == {"b"}, "it trains on from a next"
    assert droppable_weights([ended, chain("0", "a", "y", done=3)]) == {"a", "b"}
    assert droppable_weights([ended, chain("0", "a", done=2)]) == set(), "what it does after a is not known"


def test_what_was_learned_goes_one_stage_later_and_the_last_one_stays() -> None:
    under_way = chain("0", "a", "b", "c", done=2, learned=(None, "l1", "l2", "l3"))
    assert droppable_learned([under_way]) == set(), "l1 is needed once more, to learn l2"
    assert droppable_learned([replace(under_way, done=3)]) == {"l1"}
    assert droppable_learned([replace(under_way, done=4, finished=True)]) == {"l1", "l2"}
    assert droppable_learned([replace(under_way, done=4, finished=True), replace(under_way, done=1)]) == set()


def test_the_keeper_removes_values_and_leaves_rows_alone(tmp_path: Path) -> None:
    store = StudyStore(tmp_path)
    keys = [digest_of({"t": t}) for t in range(4)]
    for key in keys:
        store.weights.put(key, {"weights.safetensors": b"w"})
        store.stages.put(key, dict.fromkeys(STAGE_FILES, b"r"))
    planned = {"trial": Chain(lineage="p", keys=(), learned=(), done=0, finished=False, whole=False)}
    keeper = WeightKeeper(store, planned)
    reached = [(key, None) for key in keys]
    assert keeper.sweep({"trial": reached[:2]}, set()) == 0
    assert keeper.sweep({"trial": reached}, {"trial"}) == 2
    assert set(store.weights.sizes()) == {keys[0], keys[3]} and set(store.stages.sizes()) == set(keys)
    # a search's trials were in no plan: each is a family of its own
    other = digest_of({"t": "other"})
    for key in (digest_of({"t": "first"}), other, digest_of({"t": "last"})):
        store.weights.put(key, {"weights.safetensors": b"w"})
    found = [(digest_of({"t": name}), None) for name in ("first", "other", "last")]
    keeper.sweep({"trial": reached, "proposal": found}, {"trial", "proposal"})
    assert other not in store.weights.sizes()
