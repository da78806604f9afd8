"""A space's primary comparison and smallest differences: checked at the edge, and kept in study.yaml from the start."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from clstudy.analysis.comparisons import COMPARED_SCORES
from clstudy.analysis.study_plan import read_study
from clstudy.cli.run import main
from clstudy.errors import UserError
from clstudy.records.study_record import read_study_record
from clstudy.settings.claims import (
    BASELINE,
    ClaimedScore,
    Effects,
    Primary,
    Statement,
    check_claims,
    claim_lines,
    parse_effect,
    primary_before_results,
    read_statements,
    state,
)
from clstudy.settings.expansion import expand
from clstudy.settings.space import SearchSpace
from clstudy.settings.space_file import load_space, override
from clstudy.storage.checksums import write_checked
from clstudy.storage.content_addressed_store import StudyStore
from clstudy.strategies.lookup import strategy_class
from clstudy.study.plan import make_plan
from clstudy.study.privacy.names import without
from clstudy.study.study_file import statements, write_study_file
from tests.support.furnished import BASIS, person
from tests.support.small_study import make_photos

GRID = """\
name: mine
grid:
  identity: [anna, ben]
  strategy: [lower, er_rand, er_hull, upper]
  buffer_size: [3, 5]
  learning_rate: [1e-3]
"""
PAIR = "primary: {metric: lpips, score: forgetting, between: [er_hull, er_rand], buffer_size: 3}\n"
HULL = Primary(metric="lpips", score="forgetting", between=("er_hull", "er_rand"), buffer_size=3)
SCORES_CLAIMED = get_args(ClaimedScore)
AIP = HULL.model_copy(update={"score": "aip"})


def space_of(folder: Path, claims: str) -> SearchSpace:
    file = folder / "space.yaml"
    file.write_text(GRID + claims)
    return load_space(file)


def test_a_space_names_its_primary_comparison_and_smallest_differences(tmp_path: Path):
    space = space_of(tmp_path, PAIR + "effects: {forgetting: 2e-3, aip: 5 % of lower, final: 2.5%}\n")
    assert space.primary == HULL
    assert space.effects is not None
    effects = space.effects.by_score()
    assert effects["forgetting"].absolute == 0.002
    assert (effects["aip"].share, effects["aip"].reference) == (0.05, "lower")
    assert (effects["final"].share, effects["final"].reference) == (0.025, BASELINE)
    again = override(space, seeds="0,1", identities="anna,")
    assert (again.primary, again.effects) == (space.primary, space.effects), "options leave claims alone"
    assert load_space("hull_sizes").primary is None, "nothing is claimed afterwards for a study that ran already"


def test_a_primary_comparison_may_be_of_several_scores(tmp_path: Path):
    space = space_of(tmp_path, PAIR.replace("forgetting", "[aip, forgetting]"))
    primary = space.primary
    assert primary is not None and primary.scores == ("aip", "forgetting")
    assert space_of(tmp_path, PAIR.replace("forgetting", "[forgetting]")).primary == HULL
    kept = Statement(primary=primary, effects=None)
    assert read_statements([kept.document()]) == (kept,)
    assert "aip and forgetting (reconstruction lpips), er_hull minus er_rand at K = 3" in claim_lines([kept])[0]
    covered = [primary.covers(("reconstruction", "lpips"), score, "er_hull", "er_rand", 3) for score in SCORES_CLAIMED]
    assert covered == [True, True, False]


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ("primary: er_hull", r"line 7: primary: 'er_hull' is not a group of keys; expected the keys protocol, metric"),
        (PAIR.replace("lpips", "lpip"), r"line 7: primary.metric: 'lpip' is not a metric. Did you mean 'lpips'"),
        (PAIR.replace("metric: lpips", "metric: Age, protocol: aged_learned"), r"line 7: primary.metric: 'Age' is not"),
        (PAIR.replace("forgetting", "forgeting"), r"line 7: primary.score: 'forgeting': .*'aip', 'forgetting'"),
        (PAIR.replace("forgetting", "[aip, fina]"), r"line 7: primary.score: 'fina': .*'aip', 'forgetting'"),
        (PAIR.replace("forgetting", "[aip, aip]"), r"line 7: primary.score: .*each score once"),
        (PAIR.replace("forgetting", "[]"), r"line 7: primary.score: .*at least one"),
        (PAIR.replace("er_hull", "er_hul"), r"line 7: primary.between\[0\]: 'er_hul' .* Did you mean 'er_hull'"),
        (PAIR.replace("er_hull", "er_rand"), r"line 7: primary.between: 'er_rand' is compared with itself"),
        (PAIR.replace("er_hull", "lower"), r"line 7: primary.between: lower is only ever .* write \[er_rand, lower\]"),
        (PAIR.replace("[er_hull, er_rand]", "[er_hull]"), r"line 7: primary.between: .*has 1 entries; expected two"),
        (PAIR.replace("[er_hull, er_rand]", "er_hull"), r"line 7: primary.between: 'er_hull' is not a list"),
        (
            PAIR.replace("size: 3", "size: 4"),
            r"line 7: primary.buffer_size: 4 is not in grid.buffer_size \(it has 3, 5",
        ),
        (PAIR.replace("size: 3", "size: true"), r"line 7: primary.buffer_size: true: .*valid integer"),
        (PAIR.replace("{", "{scor: 1, "), r"line 7: primary.scor: unknown key 'scor'. Did you mean 'score'"),
        ("primary:\n  metric: lpips\n  score: aip\n", r"line 7: primary.between: is missing"),
        ("effects:\n  aip: 0\n", r"line 8: effects.aip: 0 is not a smallest difference"),
        ("effects:\n  aip: true\n", r"line 8: effects.aip: True is not a smallest difference"),
        ("effects:\n  aip: .inf\n", r"line 8: effects.aip: inf is not a smallest difference"),
        ("effects:\n  aip: 101%\n", r"line 8: effects.aip: '101%' is not a smallest difference"),
        ("effects:\n  aip: 1.2.3%\n", r"line 8: effects.aip: '1.2.3%' is not a smallest difference"),
        ("effects:\n  aip: 5% of lowr\n", r"line 8: effects.aip: 5% of lowr: .*Did you mean 'lower'"),
        ("effects:\n  bwt: 1\n", r"line 8: effects.bwt: unknown key 'bwt'. Known: aip, forgetting, final"),
    ],
)
def test_one_problem_is_one_line_with_its_place(tmp_path: Path, claims: str, expected: str):
    with pytest.raises(UserError) as caught:
        space_of(tmp_path, claims)
    assert "\n" not in str(caught.value)
    assert re.search(expected, str(caught.value)), caught.value


def test_scores_that_may_be_claimed_are_compared():
    assert set(get_args(ClaimedScore)) <= set(COMPARED_SCORES)
    assert set(Effects.model_fields) == set(get_args(ClaimedScore))


@settings(deadline=None, max_examples=50)
@given(st.floats(1e-300, 1e300))
def test_an_absolute_effect_is_read_as_written(number: float):
    assert parse_effect(number).absolute == parse_effect(repr(number)).absolute == number


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 1000), st.sampled_from(["", " of lower", " of ewc(weight=1e5)", " of baseline"]))
def test_a_share_is_read_back_from_its_text(tenths: int, of: str):
    effect = parse_effect(f"{tenths / 10}%{of}")
    assert parse_effect(effect.text) == effect
    assert effect.share == pytest.approx(tenths / 1000)


COMPUTED = {("reconstruction", "lpips"): True, ("reconstruction", "fid"): False, ("synthesis", "lpips"): False}


@pytest.mark.parametrize(
    ("change", "effects", "timestamps", "expected"),
    [
        (
            {"metric": "psnr"},
            {},
            3,
            "reconstruction psnr is not computed here; the profile computes reconstruction lpips",
        ),
        ({"protocol": "synthesis"}, {}, 3, "synthesis lpips is not computed here"),
        ({"between": ("upper", "er_rand")}, {}, 3, "upper is joint training, which has no forgetting; expected final"),
        ({}, {}, 1, "forgetting needs two timestamps, an identity of this study has 1"),
        (
            {"score": "final", "between": ("upper", "lower")},
            {},
            3,
            "neither upper nor lower depends on the buffer size",
        ),
        ({"score": "final"}, {"aip": "5% of upper"}, 3, "effects.aip: upper is joint training"),
    ],
)
def test_claims_that_no_number_could_answer_are_refused(change, effects, timestamps, expected):
    def check(primary: Primary, effects: Effects, timestamps: int) -> None:
        check_claims(
            primary,
            effects,
            computed=COMPUTED,
            uses_buffer_size=lambda name: strategy_class(name).uses_buffer_size,
            joint=lambda name: strategy_class(name).joint,
            timestamps=timestamps,
        )

    check(HULL, Effects(aip="5% of lower"), 3)
    with pytest.raises(UserError, match=re.escape(expected)):
        check(Primary(**(HULL.model_dump() | change)), Effects(**effects), timestamps)


# --- what stays on record --------------------------------------------------------------------------------------------


def statement(primary: Primary | None, trials: int = 0, stages: int = 0) -> Statement:
    return Statement(primary=primary, effects=None, finished_trials=trials, measured_stages=stages)


def test_a_claim_may_change_until_something_is_measured_and_never_silently_after():
    first = state((), statement(HULL))
    assert first == (statement(HULL),) and primary_before_results(first) == HULL
    assert state(first, statement(AIP)) == (statement(AIP),), "nothing was measured: the file is what counts"
    assert state(first, statement(HULL, 3, 9)) == first, "the same claim later is still the first"
    changed = state(first, statement(AIP, 3, 9))
    assert changed == (statement(HULL), statement(AIP, 3, 9)) and primary_before_results(changed) is None
    assert "changed after 3 trials were finished and 9 stages measured" in claim_lines(changed)[-1]
    back = state(changed, statement(HULL, 4, 9))
    assert len(back) == 3 and primary_before_results(back) is None, "going back does not undo having looked"
    dropped = state(first, statement(None, 1, 1))
    assert len(dropped) == 2 and "1 trial was finished and 1 stage measured" in claim_lines(dropped)[-1]
    late = state((), statement(HULL, 0, 1))
    assert primary_before_results(late) is None and "named after 0 trials" in claim_lines(late)[-1]
    assert state((), statement(None, 3, 9)) == () and "exploratory" in claim_lines(())[0]


def test_statements_are_read_back_and_anything_else_is_refused():
    known = (
        Statement(primary=HULL, effects=Effects(aip="5% of lower", final=0.25)),
        Statement(primary=None, effects=None, finished_trials=3, measured_stages=14),
    )
    assert read_statements(yaml.safe_load(yaml.safe_dump([one.document() for one in known]))) == known
    assert read_statements(None) == ()
    for wrong in ("x", [3], [{"finished_trials": -1}], [{"finished_trials": True}], [{"primary": {"metric": "lpips"}}]):
        with pytest.raises(ValueError):
            read_statements(wrong)


class People:
    """A data set of photos that exist by digest only."""

    name = "made up"
    identities = (person("anna", 3), person("ben", 3))


def write(out: Path, claims: str) -> dict:
    """What a run does before its first stage; returns study.yaml."""
    space = space_of(out.parent, claims)
    people = {one.name: one for one in People.identities}
    trials = expand(space, list(people), lambda name: strategy_class(name).uses_buffer_size).trials
    plan = make_plan(trials, people, BASIS, StudyStore(out), out, workers=1)
    write_study_file(out, space, BASIS, People(), plan)
    return yaml.safe_load((out / "study.yaml").read_text())


def test_study_yaml_keeps_the_claim_and_says_what_was_measured_when_it_changed(tmp_path: Path):
    out = tmp_path / "study"
    plain = write(out, "")
    assert "claims" not in plain, "a study that claims nothing has the file it always had"
    claimed = write(out, PAIR)
    assert {key: value for key, value in claimed.items() if key != "claims"} == plain
    assert read_study(out).claims == (Statement(primary=HULL, effects=None),)
    assert write(out, PAIR)["claims"] == claimed["claims"]

    (out / "results").mkdir()
    for number in range(4):
        (out / "results" / f"{number}.parquet").touch()
    assert write(out, PAIR)["claims"] == claimed["claims"]
    write(out, PAIR.replace("forgetting", "aip"))
    assert read_study(out).claims == (statement(HULL), statement(AIP, 4))
    write(out, "")
    assert read_study(out).claims[2:] == (statement(None, 4),)

    forgotten = without(read_study_record(out), ["anna", "er_hull"])
    assert forgotten.claims[0].primary == HULL, "a person may be called like a strategy"


def test_a_claim_on_a_damaged_record_counts_as_made_late(tmp_path: Path):
    out = tmp_path / "study"
    write(out, PAIR)
    (out / "results").mkdir()
    (out / "results" / "a.parquet").touch()
    for damage in (b"\x00\xff", b"- 3", b"claims: 7", b"claims: [{primary: 3}]"):
        (out / "study.yaml").write_bytes(damage)
        (late,) = statements(out, space_of(tmp_path, PAIR), 0)
        assert not late.before_results
    write_checked(out / "study.yaml", b"{trials: [], claims: 7}")
    with pytest.raises(UserError, match="cannot be understood"):
        read_study(out)


def test_claims_change_no_stage_key(tmp_path: Path):
    people = {one.name: one for one in People.identities}
    keys = []
    for claims in ("", PAIR + "effects: {aip: 0.001}\n"):
        trials = expand(space_of(tmp_path, claims), list(people), lambda name: strategy_class(name).uses_buffer_size)
        plan = make_plan(trials.trials, people, BASIS, StudyStore(tmp_path), tmp_path, workers=1)
        keys.append({trial: chain.keys for trial, chain in plan.chains.items()})
    assert keys[0] == keys[1] and all(keys[0].values())


def test_the_plan_shows_the_claim_and_refuses_one_that_cannot_be_answered(tmp_path: Path, capsys):
    make_photos(tmp_path / "photos", ("anna", "ben"))
    space = tmp_path / "mine.yaml"
    options = ["--space", str(space), "--dry-run", "--out", str(tmp_path / "study"), "--profile", "smoke"]
    options += ["--data", str(tmp_path / "photos")]
    space.write_text(GRID + PAIR + "effects: {aip: 5% of lower}\n")
    assert main(options) == 0
    plan = capsys.readouterr().out
    assert "primary  forgetting (reconstruction lpips), er_hull minus er_rand at K = 3" in plan
    assert "effects  smallest differences of interest: aip 5% of lower" in plan and "changed" not in plan
    space.write_text(GRID)
    assert main(options) == 0
    assert "primary  none is named" in capsys.readouterr().out
    (tmp_path / "study" / "results").mkdir(parents=True)
    (tmp_path / "study" / "results" / "old.parquet").touch()
    space.write_text(GRID + PAIR)
    assert main(options) == 0
    assert "named after 1 trial was finished and 0 stages measured; the report says so" in capsys.readouterr().out
    for old, new, message in (
        ("metric: lpips", "metric: dists", "reconstruction dists is not computed here; the profile computes"),
        ("er_hull, er_rand", "upper, er_rand", "upper is joint training, which has no forgetting"),
    ):
        space.write_text(GRID + PAIR.replace(old, new))
        assert main(options) == 2
        assert message in capsys.readouterr().err
