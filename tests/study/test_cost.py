"""What a study is expected to take: photo passes, seconds per pass from measured stages, money."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from clstudy.records.sessions import hours_unit, unit_hours
from clstudy.settings.precision import PRECISIONS
from clstudy.settings.profiles import InversionSettings, Profile, Resources, TrainerSettings, embedded, mystyle, smoke
from clstudy.storage.content_addressed_store import STAGE_FILES, StudyStore, Timing
from clstudy.study.cost import pace_from, pace_of_neighbours, pace_of_profile, write_history
from clstudy.study.plan import disk_estimate, make_plan
from clstudy.trial.requests import stage_requests
from clstudy.trial.work import cost_kind, likely_work, stage_work, training_work, work_of
from tests.trial.test_requests import BASIS, person, remember, spec

PROFILE: Profile = replace(
    embedded(),
    trainer=TrainerSettings(epochs=10, batch_size=2, replay_batch_size=2),
    inversion=InversionSettings(steps=20),
)


def test_work_is_the_photo_passes_counted_by_hand() -> None:
    # 5 photos in batches of 2: 3 steps an epoch; 10 epochs of 5 photos; 2 replayed photos with each of the 30 steps
    assert work_of(PROFILE, new=5, replayed=False, tested=[]) == 50
    assert work_of(PROFILE, new=5, replayed=True, tested=[]) == 50 + 60
    assert work_of(PROFILE, new=5, replayed=True, tested=[4, 3]) == 110 + 7 * 20


def test_a_known_stage_costs_what_was_likely_before_its_buffer_was_chosen() -> None:
    requests = list(stage_requests(spec(), person(), BASIS, remember))
    for request in requests:
        assert stage_work(request) == likely_work(BASIS.profile, person(), request.t)
        assert 0 < training_work(request) < stage_work(request)
    works = [stage_work(request) for request in requests]
    assert works == sorted(works) and works[0] < works[-1], "later stages test more photos"


def test_the_pace_is_seconds_over_work_of_stages_of_the_same_kind() -> None:
    kind = cost_kind(BASIS)
    timings = [
        Timing(seconds=10.0, work=100.0, kind=kind),
        Timing(seconds=50.0, work=300.0, kind=kind),
        Timing(seconds=999.0, work=1.0, kind="other"),
        Timing(seconds=999.0, work=None, kind=None),
    ]
    pace = pace_from(timings, kind)
    assert pace is not None and pace.seconds_per_pass == 60 / 400 and pace.stages == 2
    assert pace_from(timings[2:], kind) is None
    slower = replace(BASIS, profile=replace(BASIS.profile, resources=Resources(threads=2)))
    assert cost_kind(slower) != kind
    tf32 = replace(BASIS.profile.compute, precision=next(name for name in PRECISIONS if name != "float32"))
    assert cost_kind(replace(BASIS, profile=replace(BASIS.profile, compute=tf32))) != kind


def test_a_new_study_learns_from_its_neighbours(tmp_path: Path) -> None:
    kind = cost_kind(BASIS)
    write_history(tmp_path / "old", [Timing(seconds=30.0, work=100.0, kind=kind)] * 2)
    write_history(tmp_path / "other", [Timing(seconds=1.0, work=100.0, kind="another kind")])
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "history.json").write_text("{")
    pace = pace_of_neighbours(tmp_path / "new", kind)
    assert pace is not None and pace.seconds_per_pass == pytest.approx(0.3) and "2 stages of other" in pace.source
    assert pace_of_neighbours(tmp_path / "old", kind) is None, "a study is no neighbour of its own"
    assert pace_of_neighbours(tmp_path / "absent" / "new", kind) is None


def test_a_plan_takes_its_own_stages_before_its_neighbours_before_the_guess(tmp_path: Path) -> None:
    out, people, kind = tmp_path / "new", {"anna": person()}, cost_kind(BASIS)
    store = StudyStore(out)

    def plan():
        return make_plan([spec("lower", None)], people, BASIS, store, out, workers=1)

    guess = plan()
    assert guess.estimate_from == BASIS.profile.estimate_from
    assert guess.worker_seconds == pytest.approx(guess.work * pace_of_profile(BASIS.profile).seconds_per_pass)
    write_history(tmp_path / "old", [Timing(seconds=2.0, work=1.0, kind=kind)])
    assert plan().worker_seconds == pytest.approx(2.0 * plan().work)
    store.record_seconds("0" * 64, Timing(seconds=7.0, work=1.0, kind=kind))
    assert plan().worker_seconds == pytest.approx(7.0 * plan().work)
    assert plan().estimate_from == "the stages computed so far"
    many = make_plan([spec("lower", None)], people, BASIS, store, out, workers=4)
    assert many.worker_seconds == plan().worker_seconds and many.seconds < plan().seconds


def test_dropped_weights_are_counted_where_something_new_builds_on_them(tmp_path: Path) -> None:
    store, people = StudyStore(tmp_path), {"anna": person()}
    requests = list(stage_requests(spec("lower", None), person(), BASIS, remember))
    for request in requests[:-1]:
        store.stages.put(request.key, dict.fromkeys(STAGE_FILES, b"r"))
    store.weights.put(requests[0].key, {"weights.safetensors": b"w"})
    plan = make_plan([spec("lower", None)], people, BASIS, store, tmp_path, workers=1)
    assert plan.retrained == len(requests) - 2 and plan.stages_to_run == 1
    again = sum(training_work(request) for request in requests[1:-1])
    assert plan.work == pytest.approx(stage_work(requests[-1]) + again)
    store.weights.put(requests[-2].key, {"weights.safetensors": b"w"})
    assert make_plan([spec("lower", None)], people, BASIS, store, tmp_path, workers=1).retrained == 0


def test_disk_follows_the_policy() -> None:
    trials = [spec("er_rand", size) for size in (3, 5, 10)] + [spec("ewc", None)]
    everything = disk_estimate(PROFILE, trials, 40, 10, 2, "all")
    assert everything > 40 * PROFILE.stage_bytes, "and what ewc learns"
    last = disk_estimate(PROFILE, trials, 40, 10, 2, "last")
    assert PROFILE.stage_bytes * (len(trials) + 1) < last < everything


def test_money_is_in_hours_of_what_is_scarce() -> None:
    gpu, cpu = Resources(cpus=2, gpus=0.5), Resources(cpus=2)
    assert (hours_unit(gpu), unit_hours(gpu, 7200)) == ("GPU-hours", 1.0)
    assert (hours_unit(cpu), unit_hours(cpu, 7200)) == ("core-hours", 4.0)


def test_the_profiles_guess_is_an_average_stage() -> None:
    for profile in (smoke(), embedded(), mystyle()):
        data = profile.data
        works = [
            work_of(profile, new=data.train, replayed=t > 0, tested=[data.test] * (t + 1))
            for t in range(data.timestamps)
        ]
        seconds = pace_of_profile(profile).seconds_per_pass * sum(works)
        assert seconds == pytest.approx(data.timestamps * profile.stage_seconds)


def test_more_photos_or_epochs_take_more_time_at_the_profiles_pace() -> None:
    profile = embedded()
    larger = replace(
        profile, data=replace(profile.data, train=40, test=40), trainer=replace(profile.trainer, epochs=96)
    )
    assert pace_of_profile(larger).seconds_per_pass == pytest.approx(pace_of_profile(profile).seconds_per_pass)
