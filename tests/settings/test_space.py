from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clstudy.errors import UserError
from clstudy.settings.expansion import (
    MAX_TRIALS_WITHOUT_YES,
    Expansion,
    check_buffer_sizes,
    check_trial_count,
    choose_identities,
    expand,
    expand_cells,
)
from clstudy.settings.packaged_spaces import known_spaces
from clstudy.settings.space import MAX_PROPOSALS, RateRange, SearchSpace
from clstudy.settings.space_file import load_space, override
from clstudy.settings.trial_spec import GridCell, TrialSpec, refuse_equal_ids

PEOPLE = [f"person_{i:02d}" for i in range(8)]
BOUNDS = ("lower", "upper")

GOOD = """\
name: mine
grid:
  identity: [anna, ben]
  strategy: [lower, er_rand]
  buffer_size: [3, 5]
  learning_rate: [1e-3]
seeds: [0, 1]
"""

SEARCHED = """\
name: mine
grid:
  identity: [anna, ben]
  strategy: [lower, er_rand]
  buffer_size: [3, 5]
  learning_rate:
    low: 1e-4
    high: 0.01
    trials: 8
search:
  validation: [cleo, dora]
  asha: true
"""


def uses_buffer_size(strategy: str) -> bool:
    return strategy not in BOUNDS


def expand_named(space: SearchSpace, identities: Sequence[str] = PEOPLE) -> Expansion:
    return expand(space, identities, uses_buffer_size)


def complaint(tmp_path: Path, text: str | bytes) -> str:
    file = tmp_path / "space.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as caught:
        load_space(file)
    return str(caught.value)


# --- packaged spaces -------------------------------------------------------------------------------------------------


def test_hull_sizes_expands_to_66_trials_and_says_why():
    expansion = expand_named(load_space("hull_sizes"))
    assert len(expansion.trials) == 66
    assert expansion.collapsed == 24
    assert expansion.sentence.startswith("90 combinations, 66 trials: lower and upper do not depend on the buffer size")
    assert sum(trial.strategy == "upper" for trial in expansion.trials) == 6
    assert all((trial.buffer_size is None) == (trial.strategy in BOUNDS) for trial in expansion.trials)


def test_learning_rate_searches_a_rate_for_every_strategy_and_buffer_size():
    space = load_space("learning_rate")
    assert space.grid.learning_rate == RateRange(low=3e-4, high=3e-2, log=True, trials=8)
    assert space.search is not None and space.search.validation == "third"
    assert [cell.label for cell in expand_cells(space, uses_buffer_size)] == [
        "lower",
        "er_rand K=3",
        "er_rand K=10",
        "er_hull K=3",
        "er_hull K=10",
    ]


def test_smoke_is_two_identities_and_three_strategies():
    space = load_space("smoke")
    assert space.profile == "smoke"
    assert len(expand_named(space).trials) == 6


def test_every_packaged_space_is_valid_and_called_like_its_file():
    names = known_spaces()
    assert {"hull_sizes", "smoke"} <= names.keys()
    for name in names:
        space = load_space(name)
        assert space.name == name
        assert space.description


def test_unknown_name_gives_the_nearest_and_the_way_to_a_file():
    with pytest.raises(UserError, match=r"unknown search space 'hul_sizes'.*'hull_sizes'.*--space path/to/file.yaml"):
        load_space("hul_sizes")


def test_packaged_name_with_an_ending_is_recognised():
    with pytest.raises(UserError, match=r"no search space file smoke.yaml.*--space smoke"):
        load_space("smoke.yaml")


def test_search_path_earlier_folder_wins(tmp_path: Path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.yaml").write_text(GOOD.replace("grid:", f"description: {folder}\ngrid:"))
    assert load_space("mine", [tmp_path / "one", tmp_path / "two"]).description == "one"


# --- reading ---------------------------------------------------------------------------------------------------------


def test_a_file_of_ones_own(tmp_path: Path):
    file = tmp_path / "any name.yml"
    file.write_text(GOOD)
    space = load_space(file)
    assert space.profile == "embedded"
    assert space.data is None
    assert space.grid.identity == ("anna", "ben")
    assert space.grid.learning_rate == (0.001,)  # 1e-3 is text in YAML 1.1
    assert space.seeds == (0, 1)


def test_every_problem_is_listed_with_its_line_and_place(tmp_path: Path):
    text = """\
name: a b
profil: embedded
grid:
  identity: 0
  strategy: [lower, 3]
  buffer_size: [3, 0, true, 5.5]
  learning_rate: [0, .nan, .inf, -1, fast, 0.003]
seeds: 7
"""
    message = complaint(tmp_path, text)
    assert "has 13 problems" in message
    for expected in (
        "line 1: name: 'a b' cannot name a study",
        "line 2: profil: unknown key 'profil'. Did you mean 'profile'?",
        "line 4: grid.identity: 0 is not a number of identities",
        "line 5: grid.strategy[1]: 3 is not a name",
        "line 6: grid.buffer_size[1]: 0 is not a buffer size",
        "line 6: grid.buffer_size[2]: true is not a buffer size",
        "line 6: grid.buffer_size[3]: 5.5 is not a buffer size",
        "line 7: grid.learning_rate[0]: 0 is not a learning rate",
        "line 7: grid.learning_rate[1]: nan is not a learning rate",
        "line 7: grid.learning_rate[2]: inf is not a learning rate",
        "line 7: grid.learning_rate[3]: -1 is not a learning rate",
        "line 7: grid.learning_rate[4]: 'fast' is not a learning rate",
        "line 8: seeds: 7 is not a list; write [7]",
    ):
        assert expected in message, f"{expected!r} not in {message}"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("[3, 5]", "[3, 5, 3]", r"line 5: grid.buffer_size: 3 is listed more than once"),
        ("[lower, er_rand]", "[lower, lower]", r"line 4: grid.strategy: 'lower' is listed more than once"),
        ("[1e-3]", "[1e-3, 0.001]", r"line 6: grid.learning_rate: 0.001 is listed more than once"),
        ("[anna, ben]", "[]", r"line 3: grid.identity: the list is empty, so the space expands to no trial"),
        ("[0, 1]", "[]", r"line 7: seeds: the list is empty"),
        ("[0, 1]", "[-1]", r"line 7: seeds\[0\]: -1 is not a seed"),
        ("[anna, ben]", "2.5", r"line 3: grid.identity: 2.5 is not a number of identities"),
        ("[anna, ben]", "anna", r"line 3: grid.identity: 'anna' is not a list; write \[anna\]"),
        ("  strategy: [lower, er_rand]\n", "", r"line 2: grid.strategy: is missing"),
        ("  buffer", "  bufer_size: [3]\n  buffer", r"line 5: grid.bufer_size: unknown key.*'buffer_size'"),
        ("name: mine", "name: ../up", r"line 1: name: '../up' cannot name a study"),
        ("[1e-3]", f"[1{'0' * 400}]", r"line 6: grid.learning_rate\[0\]: 10+\.\.\.0+ is not a learning rate"),
    ],
)
def test_one_problem_is_one_line(tmp_path: Path, old: str, new: str, expected: str):
    message = complaint(tmp_path, GOOD.replace(old, new))
    assert "\n" not in message
    assert str(tmp_path / "space.yaml") in message
    assert re.search(expected, message), message


def test_a_range_of_learning_rates(tmp_path: Path):
    file = tmp_path / "mine.yaml"
    file.write_text(SEARCHED)
    space = load_space(file)
    assert space.grid.learning_rate == RateRange(low=1e-4, high=0.01, log=True, trials=8)
    assert space.search is not None
    assert (space.search.validation, space.search.asha) == (("cleo", "dora"), True)
    file.write_text(SEARCHED[: SEARCHED.index("search:")])
    assert (searched := load_space(file).search) is not None
    assert (searched.validation, searched.asha) == ("third", False)
    assert load_space("smoke").search is None


def test_every_problem_of_a_search_is_listed_with_its_line_and_place(tmp_path: Path):
    text = (
        SEARCHED.replace("low: 1e-4", "low: 0")
        .replace("trials: 8", "trials: 0\n    log: maybe\n    hihg: 1")
        .replace("[cleo, dora]", "[cleo, cleo]")
        .replace("asha: true", "asha: 3\n  ahsa: true")
    )
    message = complaint(tmp_path, text)
    assert "has 7 problems" in message
    for expected in (
        "line 7: grid.learning_rate.low: 0 is not a learning rate",
        f"line 9: grid.learning_rate.trials: 0 is not a number of rates to try; expected a whole number from 1 to "
        f"{MAX_PROPOSALS}",
        "line 10: grid.learning_rate.log: 'maybe' is neither true nor false",
        "line 11: grid.learning_rate.hihg: unknown key 'hihg'. Did you mean 'high'? Known: low, high, log, trials",
        "line 13: search.validation: 'cleo' is listed more than once",
        "line 14: search.asha: 3 is neither true nor false",
        "line 15: search.ahsa: unknown key 'ahsa'. Did you mean 'asha'? Known: validation, asha",
    ):
        assert expected in message, f"{expected!r} not in {message}"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "high: 0.01",
            "high: 1e-4",
            r"line 6: grid.learning_rate: high \(0.0001\) is not above low \(0.0001\) by .*1.2",
        ),
        ("high: 0.01", "high: 1e-5", r"line 6: grid.learning_rate: high \(1e-05\) is not above low \(0.0001\)"),
        ("high: 0.01", "high: 1.1e-4", r"line 6: grid.learning_rate: high \(0.00011\) is not above low"),
        ("high: 0.01", "high: .inf", r"line 8: grid.learning_rate.high: inf is not a learning rate"),
        ("    high: 0.01\n", "", r"line 6: grid.learning_rate.high: is missing"),
        (
            "trials: 8",
            f"trials: {MAX_PROPOSALS + 1}",
            r"line 9: grid.learning_rate.trials: 101 is not a number of rates",
        ),
        ("trials: 8", "trials: 8.0", r"line 9: grid.learning_rate.trials: 8.0 is not a number of rates"),
        ("[cleo, dora]", "half", r"line 11: search.validation: 'half' is not a validation part; expected third"),
        ("[cleo, dora]", "[cleo, 7]", r"line 11: search.validation\[1\]: 7 is not a name"),
        ("[cleo, dora]", "[]", r"line 11: search.validation: the list is empty"),
        ("[cleo, dora]", "[ben, cleo]", r"line 11: search.validation: 'ben' is reported too \(grid.identity\)"),
        ("[cleo, dora]", "[ben, anna]", r"line 11: search.validation: 'anna', 'ben' are reported too"),
        ("search:", "names: 3\nsearch:", r"line 10: names: unknown key 'names'"),
    ],
)
def test_one_problem_of_a_search_is_one_line(tmp_path: Path, old: str, new: str, expected: str):
    message = complaint(tmp_path, SEARCHED.replace(old, new))
    assert "\n" not in message
    assert re.search(expected, message), message


def test_search_needs_a_range(tmp_path: Path):
    message = complaint(tmp_path, GOOD + "search: {asha: true}\n")
    assert re.search(r"line 8: search: grid.learning_rate is a list, so there is nothing to search", message), message


def test_a_key_is_never_taken_for_a_branch_of_the_schema(tmp_path: Path):
    message = complaint(tmp_path, GOOD.replace("  strategy", "  names: 3\n  strategy"))
    assert "line 4: grid.names: unknown key 'names'" in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: x\ngrid: [1\nfoo", "line 3: not valid YAML"),
        ("name: x\ngrid:\n\tidentity: 3\n", "line 3: not valid YAML"),
        ("name: x\nname: y\n", "line 2: not valid YAML: the key 'name' is given twice"),
        ("name: x\nseeds: \x07", "line 2: not valid YAML"),
        ("a: !!python/object/apply:os.getcwd []", "line 1: not valid YAML"),
        ("a: 1\n---\nb: 2\n", "line 2: not valid YAML"),
        ("? [1, 2]\n: 3", "line 1: not valid YAML"),
        ("name: 2024-13-45", "not valid YAML: month"),
        ("[" * 3000, "nested more than 20 deep"),
        ("", "is empty"),
        ("# nothing\n", "is empty"),
        (
            "[1, 2]",
            "with the keys name, description, profile, data, grid, seeds, weights, search",
        ),
        ("name: x\ngrid: 3\n", "grid: 3 is not a group of keys; expected the keys identity, strategy"),
        ("a: &x [*x]", "contains itself"),
        (b"name: \xff\xfe", "is not a text file in UTF-8"),
    ],
)
def test_files_that_are_no_search_space(tmp_path: Path, text: str | bytes, expected: str):
    assert expected in complaint(tmp_path, text)


def test_folder_or_missing_file(tmp_path: Path):
    with pytest.raises(UserError, match="cannot be read"):
        load_space(tmp_path)
    with pytest.raises(UserError, match="there is no search space file"):
        load_space(tmp_path / "nowhere.yaml")


# --- overrides -------------------------------------------------------------------------------------------------------


def test_override_replaces_only_what_is_given():
    space = load_space("hull_sizes")
    assert override(space) is space
    assert override(space, identities="2").grid.identity == 2
    changed = override(space, identities="person_03, person_01", seeds="4,5", profile="smoke", data="photos/mine")
    assert changed.grid.identity == ("person_03", "person_01")
    assert (changed.seeds, changed.profile, changed.data) == ((4, 5), "smoke", "photos/mine")
    assert changed.grid.strategy == space.grid.strategy
    assert override(space, identities="3,").grid.identity == ("3",)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"identities": "0"}, "--identities: grid.identity: 0 is not a number of identities"),
        ({"identities": ","}, "--identities: grid.identity: the list is empty"),
        ({"identities": "a,a"}, "--identities: grid.identity: 'a' is listed more than once"),
        ({"seeds": "1,x"}, r"--seeds: seeds\[1\]: 'x' is not a seed"),
    ],
)
def test_override_names_the_option(options: dict[str, str], expected: str):
    with pytest.raises(UserError, match=expected):
        override(load_space("smoke"), **options)


def test_override_of_a_searched_space(tmp_path: Path):
    file = tmp_path / "mine.yaml"
    file.write_text(SEARCHED)
    space = load_space(file)
    changed = override(space, identities="3", seeds="4")
    assert (changed.grid.identity, changed.seeds) == (3, (4,))
    assert changed.grid.learning_rate == space.grid.learning_rate
    assert changed.search == space.search
    with pytest.raises(UserError, match="--identities: search.validation: 'dora' is reported too"):
        override(space, identities="anna,dora")
    assert SearchSpace.model_validate(space.model_dump()) == space
    assert SearchSpace.model_validate(space.model_dump(mode="json", exclude_none=True)) == space


# --- expansion -------------------------------------------------------------------------------------------------------


def make_space(**grid: object) -> SearchSpace:
    seeds = grid.pop("seeds", (0,))
    defaults = {"identity": 2, "strategy": ["er_rand"], "buffer_size": [3], "learning_rate": [0.01]}
    return SearchSpace.model_validate({"name": "x", "grid": {**defaults, **grid}, "seeds": seeds})


@settings(max_examples=60, deadline=None)
@given(
    identities=st.integers(1, 6),
    strategies=st.lists(st.sampled_from(["lower", "upper", "er_rand", "er_hull"]), min_size=1, unique=True),
    sizes=st.lists(st.integers(1, 50), min_size=1, max_size=4, unique=True),
    rates=st.lists(st.sampled_from([1e-4, 1e-3, 3e-3, 0.5]), min_size=1, unique=True),
    seeds=st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True),
)
def test_expansion_is_the_grid_without_repeats(identities, strategies, sizes, rates, seeds):
    space = make_space(identity=identities, strategy=strategies, buffer_size=sizes, learning_rate=rates, seeds=seeds)
    expansion = expand_named(space)
    wanted = {
        (person, strategy, size if uses_buffer_size(strategy) else None, rate, seed)
        for person in PEOPLE[:identities]
        for strategy in strategies
        for size in sizes
        for rate in rates
        for seed in seeds
    }
    found = [(t.identity, t.strategy, t.buffer_size, t.learning_rate, t.seed) for t in expansion.trials]
    assert len(found) == len(set(found))
    assert set(found) == wanted
    assert len({t.trial_id for t in expansion.trials}) == len(found)
    assert expansion.collapsed == identities * len(strategies) * len(sizes) * len(rates) * len(seeds) - len(found)
    assert len({t.identity for t in expansion.trials[:identities]}) == identities


def searched_space(**grid: object) -> SearchSpace:
    return make_space(strategy=["lower", "er_rand"], learning_rate={"low": 1e-3, "high": 0.1, "trials": 5}, **grid)


def test_a_searched_space_is_expanded_at_the_rate_of_each_cell():
    space = searched_space(buffer_size=[3, 5], seeds=(0, 7))
    cells = expand_cells(space, uses_buffer_size)
    assert [(cell.strategy, cell.buffer_size) for cell in cells] == [("lower", None), ("er_rand", 3), ("er_rand", 5)]
    rates = dict(zip(cells, (0.01, 0.02, 0.03), strict=True))
    expansion = expand(space, PEOPLE, uses_buffer_size, rates)
    assert [trial.trial_id for trial in expansion.trials] == [
        f"{person}-{cell}-s{seed}"
        for seed in (0, 7)
        for cell in ("lower-lr0.01", "er_rand-k3-lr0.02", "er_rand-k5-lr0.03")
        for person in PEOPLE[:2]
    ]
    assert expansion.sentence.startswith("16 combinations, 12 trials: lower does not depend on the buffer size")


def test_chosen_rates_are_for_every_cell_of_a_searched_space_and_for_no_other():
    space = searched_space()
    lower = GridCell(strategy="lower", buffer_size=None)
    with pytest.raises(ValueError, match="no rate is chosen for lower, er_rand K=3"):
        expand_named(space)
    with pytest.raises(ValueError, match="no rate is chosen for er_rand K=3"):
        expand(space, PEOPLE, uses_buffer_size, {lower: 0.1})
    with pytest.raises(ValueError, match="lists its learning rates"):
        expand(make_space(), PEOPLE, uses_buffer_size, {lower: 0.1})


def test_trial_ids():
    trial = TrialSpec(identity="person_00", strategy="er_hull", buffer_size=10, learning_rate=0.003, seed=0)
    assert trial.trial_id == "person_00-er_hull-k10-lr0.003-s0"
    odd = TrialSpec(identity="../My Photos/é", strategy="lower", buffer_size=None, learning_rate=1e-5, seed=7)
    assert odd.trial_id == "_._My_Photos_é-lower-lr1e-05-s7"


@given(st.text(min_size=1, max_size=30))
def test_trial_ids_are_file_names(name: str):
    trial_id = TrialSpec(identity=name, strategy="lower", buffer_size=None, learning_rate=0.1, seed=0).trial_id
    assert "/" not in trial_id
    assert "\x00" not in trial_id
    assert not trial_id.startswith(".")
    assert Path(trial_id).name == trial_id


def test_two_trials_never_share_a_file():
    with pytest.raises(UserError, match="two trials would both be called"):
        expand_named(make_space(identity=["a b", "a_b"]), ["a b", "a_b"])
    with pytest.raises(UserError, match="first six digits"):
        expand_named(make_space(learning_rate=[0.0100000001, 0.01]))


def test_identities_come_from_the_data_set():
    assert choose_identities(2, PEOPLE) == ("person_00", "person_01")
    with pytest.raises(UserError, match=r"unknown identity 'persn_03'. Did you mean 'person_03'\?"):
        choose_identities(["persn_03"], PEOPLE)
    with pytest.raises(UserError, match="asks for 9 identities, the data set has 8"):
        choose_identities(9, PEOPLE)


def test_buffer_size_may_be_left_out_only_where_nothing_needs_it():
    without = make_space(strategy=["lower", "upper"], buffer_size=None)
    assert [trial.buffer_size for trial in expand_named(without).trials] == [None] * 4
    with pytest.raises(UserError, match="grid.buffer_size is missing, and er_rand needs one"):
        expand_named(make_space(strategy=["lower", "er_rand"], buffer_size=None))


def test_unknown_strategy_is_the_callers_message():
    def refuse(name: str) -> bool:
        raise UserError(f"unknown strategy {name!r}")

    with pytest.raises(UserError, match="unknown strategy 'er_rand'"):
        expand(make_space(), PEOPLE, refuse)


def test_large_studies_need_yes():
    check_trial_count(MAX_TRIALS_WITHOUT_YES)
    check_trial_count(MAX_TRIALS_WITHOUT_YES + 1, yes=True)
    with pytest.raises(UserError, match="501 trials, more than 500.*--yes"):
        check_trial_count(MAX_TRIALS_WITHOUT_YES + 1)


def test_buffers_fit_the_training_photos():
    trials = expand_named(make_space(strategy=["lower", "er_rand"], buffer_size=[3, 20, 40])).trials
    check_buffer_sizes(trials, {"person_00": 40, "person_01": 40})
    with pytest.raises(
        UserError, match=r"buffer size 20, 40 is larger .* 'person_01' together \(12\); use sizes up to"
    ):
        check_buffer_sizes(trials, {"person_00": 30, "person_01": 12})


@pytest.mark.parametrize("name", ["data", "mlflow.db", "Data", "comparison.html", "x" * 101])
def test_a_study_may_not_take_the_place_of_what_lies_beside_it(name: str, tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(f"name: {name}\nprofile: smoke\ngrid: {{identity: 1, strategy: [lower], learning_rate: [0.1]}}\n")
    with pytest.raises(UserError, match="cannot name a study"):
        load_space(file)


def test_names_that_no_disk_can_tell_apart_or_hold_are_refused() -> None:
    def trial(identity: str) -> TrialSpec:
        return TrialSpec(identity=identity, strategy="lower", buffer_size=None, learning_rate=0.1, seed=0)

    refuse_equal_ids([trial("anna"), trial("anne")])
    with pytest.raises(UserError, match="not only in their case"):
        refuse_equal_ids([trial("anna"), trial("Anna")])
    with pytest.raises(UserError, match="too long for a file"):
        refuse_equal_ids([trial("ä" * 120)])


def test_the_storage_policy_is_last_or_all(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    text = "name: x\nprofile: smoke\ngrid: {identity: 1, strategy: [lower], learning_rate: [0.1]}\n"
    file.write_text(text)
    assert load_space(file).weights == "last"
    file.write_text(text + "weights: all\n")
    assert load_space(file).weights == "all"
    file.write_text(text + "weights: some\n")
    with pytest.raises(UserError, match="line 4.*weights"):
        load_space(file)
