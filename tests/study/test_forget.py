"""Forgetting a person: nothing of them is left in any byte, nothing of anybody else changes, a stop is made good."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType

from clstudy.analysis import loss_path_figures
from clstudy.analysis.loss_path_numbers import PATH_SCHEMA, SPANS, TOLERANCE
from clstudy.analysis.report import build_report
from clstudy.assets import manifest
from clstudy.cli.identities import main
from clstudy.cluster.coordinator import Coordinator
from clstudy.cluster.node_files import Inputs
from clstudy.cluster.recorder import Recorder
from clstudy.cluster.worker import Job, SentBasis
from clstudy.errors import UserError
from clstudy.generators.embedded_generator import EmbeddedGenerator
from clstudy.identities.catalogue import open_data_set
from clstudy.identities.dataset import DataSet, load_folder
from clstudy.metrics.lpips import LPIPS, LPIPSMetric
from clstudy.records.results import parquet_bytes, result_path
from clstudy.records.study_record import StudyRecord, TrialEntry, read_study_record
from clstudy.settings.expansion import expand
from clstudy.settings.space import RateRange, SearchSpace
from clstudy.settings.space_file import load_space
from clstudy.settings.trial_spec import GridCell, TrialSpec
from clstudy.storage.checksum_names import checked_name, checksum_name
from clstudy.storage.content_addressed_store import StudyStore, digest_of
from clstudy.storage.driver_lock import only_driver
from clstudy.storage.places import open_place
from clstudy.storage.trees import copy_tree, list_files
from clstudy.strategies.lookup import strategy_class
from clstudy.study.loss_path.results import write_results
from clstudy.study.plan import Plan, make_plan
from clstudy.study.privacy.census import take_census
from clstudy.study.privacy.forget import (
    forget as forget_people,
)
from clstudy.study.privacy.names import names_somebody, without
from clstudy.study.privacy.photo_folders import photo_folders, remove_photos
from clstudy.study.privacy.removal import carry_out
from clstudy.study.privacy.removal_plan import plan_forgetting
from clstudy.study.privacy.study_layout import KINDS
from clstudy.study.privacy.traces import find_traces
from clstudy.study.privacy.tracked_runs import vacuum
from clstudy.study.search.rate_search import RateSearch
from clstudy.study.search.validation_people import VALIDATION_MARK
from clstudy.study.study_file import write_study_file
from clstudy.tracking.local_database import sqlite_uri
from clstudy.tracking.run_contents import REPORT_TAG, TRIAL_TAG, run_names
from clstudy.tracking.writer import MlflowWriter
from clstudy.training.numerics import configure_torch
from clstudy.trial.requests import Basis
from clstudy.trial.stage_runner import StageRunner
from tests.support.object_store import BUCKET, object_store
from tests.support.small_study import PROFILE, Clusterless, Direct, make_photos

GONE, STAYS = "Zébulon Iams", "quentinard"
DERIVED = GONE + VALIDATION_MARK
STRATEGIES = ("er_rand", "ewc")
BASIS = Basis(PROFILE, manifest()["embedded_generator.safetensors"]["sha256"])
NEEDLES = (b"Z\xc3\xa9bulon", rb"Z\u00e9bulon", rb"Z\xE9bulon", b"bulon Iams", b"bulon_Iams")
"""The name as UTF-8, JSON and YAML write it, and what stays of it in file names."""


# --- a study that has everything ------------------------------------------------------------------------------------


def space_of(folder: Path, people: tuple[str, ...]) -> SearchSpace:
    grid = {"identity": list(people), "strategy": list(STRATEGIES), "buffer_size": [2], "learning_rate": [0.003]}
    (folder / "small.yaml").write_text(yaml.safe_dump({"name": "small", "profile": "smoke", "grid": grid}))
    return load_space(str(folder / "small.yaml"))


def planned_for(folder: Path, out: Path, people: tuple[str, ...], photos: Path) -> tuple[SearchSpace, DataSet, Plan]:
    data = load_folder(photos).select(people)
    space = space_of(folder, people)
    trials = expand(space, people, lambda name: strategy_class(name).uses_buffer_size).trials
    plan = make_plan(trials, {one.name: one for one in data.identities}, BASIS, StudyStore(out), out, workers=1)
    return space, data, plan


def write_plan(folder: Path, out: Path, people: tuple[str, ...], photos: Path) -> tuple[DataSet, Plan]:
    space, data, plan = planned_for(folder, out, people, photos)
    write_study_file(out, space, BASIS, data, plan)
    return data, plan


def compute(out: Path, plan: Plan, data: DataSet, mlflow: str) -> None:
    """All trials as the workers do."""
    configure_torch(PROFILE.compute, PROFILE.resources)
    recorder = Recorder(mlflow, "small", out / "mlflow-artifacts", {})
    worker = Clusterless.__new__(Clusterless)  # ``setup`` wants a cluster; all of the rest is as it is
    worker._job = Job(
        basis=SentBasis.of(BASIS),
        identities={one.name: one for one in data.identities},
        run_names=run_names(plan.trials),
        out=out,
        files={},
        coordinator=Direct(Coordinator()),
        recorder=Direct(recorder),
    )
    worker._runner = StageRunner.personalising(BASIS, EmbeddedGenerator(), LPIPS(), [LPIPSMetric()], StudyStore(out))
    for spec in plan.trials:
        worker._begin(spec.config())
        while not (state := worker.step())["done"]:
            pass
        assert "failed" not in state, state
    assert recorder.close() == 0


def furnish(out: Path, data: DataSet, mlflow: str) -> None:
    """Everything else that a study may hold of a person."""
    (out.parent / "arcface.onnx").write_bytes(b"weights")
    Inputs(out, "test").provide(data, {"arcface": out.parent / "arcface.onnx"}, {"arcface": "a" * 64})
    trials = {name: TrialSpec(identity=name, strategy="lower", buffer_size=None, learning_rate=0.003, seed=7).trial_id
              for name in (GONE, STAYS, DERIVED)}  # fmt: skip
    (out / "failures.json").write_text(json.dumps({trials[name]: f"{name} failed" for name in (GONE, STAYS)}))
    (out / "sessions.json").write_text("[]")
    (out / "logs").mkdir()
    for name in trials:
        (out / "logs" / f"{trials[name]}.txt").write_text(f"Traceback of {name}")
    tune = out / "ray" / "small" / trials[GONE]
    tune.mkdir(parents=True)
    (tune / "params.pkl").write_text(GONE)
    draft = out / "stages" / "drafts" / "0123-4567"
    draft.mkdir(parents=True)
    (draft / "about.json").write_text(json.dumps({"identity": GONE}))
    (out / "results" / f".{trials[GONE]}.parquet.0123abcd").write_text("half a file")
    half = digest_of({"half": 1})
    (out / "memories" / half[:2] / half).mkdir(parents=True)
    (out / "memories" / half[:2] / half / "about.json").write_text(json.dumps({"identity": GONE}))
    # a trial of an earlier plan of this folder
    rows = {
        name: pq.read_table(result_path(out, f"{name.replace(' ', '_')}-er_rand-k2-lr0.003-s0"))
        for name in (GONE, STAYS)
    }
    pq.write_table(rows[GONE], out / "results" / f"{trials[GONE]}.parquet")
    # a search for learning rates
    folder = out / "search"
    folder.mkdir()
    search = RateSearch(
        [GridCell(strategy="er_rand", buffer_size=2)],
        [DERIVED, STAYS + VALIDATION_MARK],
        [0],
        RateRange(low=1e-4, high=1e-2, trials=2),
        storage=f"sqlite:///{folder / 'optuna.db'}",
        study_name="small",
        seed=0,
        asha=False,
        timestamps=3,
    )
    while spec := search.next():
        search.finish(spec.trial_id, 0.5)
        table = rows[spec.identity.removesuffix(VALIDATION_MARK)].slice(0, 2)
        table = table.set_column(1, "identity", pa.array([spec.identity] * 2))
        (folder / f"{spec.trial_id}.parquet").write_bytes(parquet_bytes(table))
    pq.write_table(search.table(), folder / "proposals.parquet")
    for name in (DERIVED, STAYS + VALIDATION_MARK):
        StudyStore(out).memories.put(
            digest_of({"memory of": name}),
            {"memory.json": b"{}", "about.json": json.dumps({"identity": name}).encode()},
        )
    write_results(out, path_rows(), TOLERANCE)
    build_report(out)
    (out.parent / "comparison.html").write_text("<h2>small</h2>")
    client = MlflowClient(tracking_uri=mlflow)
    experiment = client.get_experiment_by_name("small").experiment_id
    binned = client.create_run(experiment, tags={"identity": GONE}, run_name=f"{GONE} of before")
    client.delete_run(binned.info.run_id)
    client.create_run(experiment, tags={TRIAL_TAG: trials[GONE]}, run_name=trials[GONE])
    writer = MlflowWriter(mlflow, "small", artifact_location=out / "mlflow-artifacts")
    writer.attach_report(out / "report")
    assert writer.flush() == 0


def path_rows() -> pa.Table:
    rows = [
        {
            "trial": f"{name}-lower-lr0.003-s0".replace(" ", "_"),
            "identity": name,
            "strategy": "lower",
            "learning_rate": 0.003,
            "seed": 0,
            "from_timestamp": 0,
            "to_timestamp": 1,
            "group": group,
            "alpha": alpha,
            "test_timestamp": k,
            "loss": place + alpha,
        }
        for place, name in enumerate((GONE, STAYS))
        for group in ("all", "weights", "biases")
        for alpha in (0.0, 0.5, 1.0)
        for k in (0, 1)
    ]
    return pa.Table.from_pylist(rows, schema=PATH_SCHEMA)


@pytest.fixture(scope="module", autouse=True)
def one_span() -> Iterator[None]:
    """One of the two figures of curves of the loss path, which are alike: whatever makes a report draws each twice."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loss_path_figures, "SPANS", dict([next(iter(SPANS.items()))]))
        yield


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Path:
    """``photos`` (outside the storage) and ``runs`` with the study, MLflow and a data set."""
    folder = tmp_path_factory.mktemp("original")
    make_photos(folder / "photos", (STAYS, GONE))
    # one photo that both have
    shutil.copy(folder / "photos" / STAYS / "t0/train/0.png", folder / "photos" / GONE / "t0/train/9.png")
    out = folder / "runs" / "small"
    out.mkdir(parents=True)
    mlflow = sqlite_uri(Path(shutil.copy(empty_database, folder / "runs" / "mlflow.db")))
    data, plan = write_plan(folder, out, (STAYS, GONE), folder / "photos")
    compute(out, plan, data, mlflow)
    furnish(out, data, mlflow)
    shutil.copytree(folder / "photos", folder / "runs" / "data" / "photos")
    return folder


@pytest.fixture
def world(original: Path, tmp_path: Path) -> Path:
    """All of it somewhere else, to be harmed."""
    return copied(original, tmp_path / "world")


def copied(original: Path, folder: Path) -> Path:
    """The same with other run ids: MLflow remembers per run, for all of a process, where its files are."""
    shutil.copytree(original, folder)
    artifacts = folder / "runs" / "small" / "mlflow-artifacts"
    database = sqlite3.connect(folder / "runs" / "mlflow.db")
    database.execute(
        "UPDATE experiments SET artifact_location = replace(artifact_location, ?, ?)",
        (original.as_uri(), folder.as_uri()),
    )
    for (old,) in database.execute("SELECT run_uuid FROM runs").fetchall():
        new = uuid.uuid4().hex
        for table in ("runs", "params", "tags", "metrics", "latest_metrics"):
            database.execute(f"UPDATE {table} SET run_uuid = ? WHERE run_uuid = ?", (new, old))
        uri = (artifacts / new / "artifacts").as_uri()
        database.execute("UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?", (uri, new))
        if (artifacts / old).exists():
            (artifacts / old).rename(artifacts / new)
    database.commit()
    database.close()
    return folder


def forget(world: Path, *options: str, name: str = GONE) -> int:
    return main(["forget", name, "--study", str(world / "runs" / "small"), "--yes", *options])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def digests_of(photos: Path, name: str) -> set[str]:
    return {hashlib.sha256(path.read_bytes()).hexdigest() for path in (photos / name).rglob("*.png")}


def found_in(files: Mapping[str, bytes], needles: tuple[bytes, ...]) -> set[str]:
    """Files with one of the needles in their name, in their bytes, or in the values of a table."""
    named = set()
    for path, content in files.items():
        if path.endswith(".parquet"):
            content += json.dumps(pq.read_table(pa.BufferReader(content)).to_pylist(), ensure_ascii=False).encode()
        if any(needle in path.encode() or needle in content for needle in needles):
            named.add(path)
    return named


def owned_by(files: Mapping[str, bytes], name: str) -> set[str]:
    """Files of the values that say they are this person's."""
    folders = {
        path.removesuffix("about.json")
        for path, content in files.items()
        if path.endswith("/about.json") and json.loads(content)["identity"] == name and f"{path[:-10]}COMPLETE" in files
    }
    return {path for path in files if path[: path.rfind("/") + 1] in folders}


def runs_of(world: Path) -> list[Run]:
    client = MlflowClient(tracking_uri=sqlite_uri(world / "runs" / "mlflow.db"))
    ids = [one.experiment_id for one in client.search_experiments(view_type=ViewType.ALL)]
    return list(client.search_runs(ids, run_view_type=ViewType.ALL))


# --- the whole -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Forgotten:
    """A world after its person was forgotten, photos in the storage too, and what was there before."""

    world: Path
    study_before: Mapping[str, bytes]
    photos_before: Mapping[str, bytes]
    runs_before: Mapping[str, Run]
    needles: tuple[bytes, ...]

    @property
    def study(self) -> Path:
        return self.world / "runs" / "small"


@pytest.fixture(scope="module")
def forgotten(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Forgotten:
    world = copied(original, tmp_path_factory.mktemp("forgotten") / "world")
    hidden = digests_of(world / "photos", GONE) - digests_of(world / "photos", STAYS)
    found = Forgotten(
        world=world,
        study_before=contents(world / "runs" / "small"),
        photos_before=contents(world / "photos"),
        runs_before={run.info.run_id: run for run in runs_of(world)},
        needles=(*NEEDLES, *(digest.encode() for digest in hidden)),
    )
    assert len(hidden) == 15 and len(found_in(contents(world / "runs"), found.needles)) > 50
    assert forget(world, "--photos") == 0
    return found


def test_no_byte_names_the_person_or_their_photos(forgotten: Forgotten) -> None:
    assert not found_in(contents(forgotten.world / "runs"), forgotten.needles)
    assert not (forgotten.world / "runs" / "comparison.html").exists(), "its means have them in"
    assert contents(forgotten.world / "photos") == forgotten.photos_before, "outside the storage nothing is touched"


def test_everything_of_the_others_is_as_it_was(forgotten: Forgotten) -> None:
    before, after = forgotten.study_before, contents(forgotten.study)
    theirs = owned_by(before, STAYS) | owned_by(before, STAYS + VALIDATION_MARK)
    assert {path.split("/")[0] for path in theirs} == set(KINDS)
    theirs |= {
        path
        for path in before
        if (checked_name(path) or path).startswith(tuple(f"{top}/{STAYS}" for top in ("results", "logs", "search")))
    }
    theirs |= {f"inputs/{digest}.png" for digest in digests_of(forgotten.world / "photos", STAYS)}
    theirs |= {path for path in before if path.startswith("inputs/") and path.endswith(".onnx")}
    theirs |= {f"timings/{path.split('/')[2]}.json" for path in theirs if path.startswith("stages/")} | {
        "sessions.json"
    }
    assert {path: before[path] for path in theirs} == {path: after.get(path) for path in theirs}
    made = {path for path in after if path.startswith(("report/", "mlflow-artifacts/"))}
    assert after.keys() - theirs - made == {
        *("study.yaml", checksum_name("study.yaml"), "failures.json", checksum_name("failures.json"), "driver.lock"),
    }
    assert list(json.loads(after["failures.json"])) == [f"{STAYS}-lower-lr0.003-s7"]


def test_the_study_is_as_if_planned_without_them(forgotten: Forgotten, tmp_path: Path) -> None:
    photos = forgotten.world / "photos"
    write_plan(tmp_path, tmp_path, (STAYS,), photos)
    planned = yaml.safe_load((tmp_path / "study.yaml").read_text())
    assert yaml.safe_load((forgotten.study / "study.yaml").read_text()) == planned
    _, _, plan = planned_for(tmp_path, forgotten.study, (STAYS,), photos)
    assert not plan.to_run and plan.stages_to_run == 0
    _, _, plan = planned_for(tmp_path, forgotten.study, (STAYS, GONE), photos)
    assert {spec.identity for spec in plan.to_run} == {GONE}, "a space that names them computes them anew"


def test_the_report_is_one_made_without_them(forgotten: Forgotten, tmp_path: Path) -> None:
    report = contents(forgotten.study / "report")
    assert "loss_path.csv" in report and f"faces_{STAYS}.png" in report
    rows = pq.read_table(forgotten.study / "report" / "loss_path.parquet")
    assert rows.equals(path_rows().filter(pa.compute.equal(path_rows()["identity"], STAYS)))
    again = tmp_path / "small"
    shutil.copytree(forgotten.study, again, ignore=shutil.ignore_patterns("weights", "mlflow-artifacts"))
    build_report(again)
    assert contents(again / "report") == report


def test_mlflow_has_the_others_runs_and_the_new_report(forgotten: Forgotten) -> None:
    before = {
        key: run.to_dictionary() for key, run in forgotten.runs_before.items() if run.data.tags.get("identity") == STAYS
    }
    assert len(before) == 2 and len(forgotten.runs_before) == 2 + 2 + 2 + 1
    runs = {run.info.run_id: run for run in runs_of(forgotten.world)}
    assert {key: runs[key].to_dictionary() for key in before} == before
    (attached,) = [run for key, run in runs.items() if key not in before]
    assert attached.data.tags[REPORT_TAG] == "yes"
    pictures = forgotten.study / "mlflow-artifacts"
    assert contents(pictures / attached.info.run_id / "artifacts" / "report") == contents(forgotten.study / "report")
    assert {path.name for path in pictures.iterdir()} == set(runs)


class Stop(BaseException):
    """A kill."""


_countdown = [0]


def _stop_at_zero(event: str, arguments: tuple[Any, ...]) -> None:
    # every removal, renaming and database connection passes here; a hook cannot be taken out again
    if _countdown[0] and event in ("os.remove", "os.rmdir", "os.rename", "sqlite3.connect"):
        _countdown[0] -= 1
        if not _countdown[0]:
            raise Stop


def test_stopped_anywhere_the_same_command_goes_on(forgotten: Forgotten, world: Path) -> None:
    done = contents(forgotten.world / "runs")
    sys.addaudithook(_stop_at_zero)
    stops = 0
    for count in (5, 30, 60, 90, 10_000):  # in MLflow, photos, values, report
        _countdown[0] = count
        try:
            assert forget(world, "--photos") == 0
        except Stop:
            stops += 1
    _countdown[0] = 0
    assert stops == 4
    after = contents(world / "runs")

    def comparable(files: Mapping[str, bytes]) -> dict[str, bytes]:
        # a run's id is in the paths of its pictures
        return {path: files[path] for path in files if "mlflow" not in path and not path.endswith("driver.lock")}

    assert comparable(after) == comparable(done)
    assert not found_in(after, forgotten.needles)
    assert len(runs_of(world)) == 3


def test_values_that_do_not_say_whose_they_are(world: Path) -> None:
    """Values of earlier versions: whose they are follows from the stages; the oracle is what they said before."""
    study = world / "runs" / "small"
    store, trials = StudyStore(study), read_study_record(study).trials
    said = take_census(study, trials).owners
    unknown = {("memories", digest_of({"memory of": name})) for name in (DERIVED, STAYS + VALIDATION_MARK)}
    half = {value for value, owners in said.items() if not owners}
    assert len(half) == 1
    for kind, key in said.keys() - half:
        values = getattr(store, kind)
        files = values.get(key)
        del files["about.json"]
        values.remove(key)
        values.put(key, files)
    key = next(key for kind, key in said if kind == "stages")
    old = {**store.stages.get(key), **store.weights.get(key)}  # weights lay in the stages once
    store.stages.remove(key)
    store.weights.remove(key)
    store.stages.put(key, old)
    owners = take_census(study, trials).owners
    known = said.keys() - half - unknown - {("weights", key)}
    assert {value: owners[value] for value in known} == {value: said[value] for value in known}
    assert all(owners[value] == frozenset() for value in unknown)

    shutil.rmtree(study / "report")
    assert forget(world, "--to", "none") == 1
    left = take_census(study, read_study_record(study).trials).owners
    assert left == {value: said[value] for value in known if said[value] == {STAYS}}


def test_a_storage_that_does_not_answer_is_no_reason_to_remove(
    world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What does not say whose it is may go; what cannot be asked may not."""
    monkeypatch.setattr("clstudy.storage.patience._PAUSES_S", ())
    study = world / "runs" / "small"
    owners = take_census(study, read_study_record(study).trials).owners
    key = next(key for (kind, key), who in owners.items() if kind == "anchors" and who == {STAYS})
    about = study / "anchors" / key[:2] / key / "about.json"
    about.unlink()
    about.symlink_to("/proc/self/mem")  # reading it fails
    before = {path: path.stat().st_size for path in world.rglob("*") if path.name != "driver.lock"}
    assert forget(world) == 2
    assert "stopped: [Errno 5]" in capsys.readouterr().err
    assert {path: path.stat().st_size for path in world.rglob("*") if path.name != "driver.lock"} == before


# --- who, and whether ------------------------------------------------------------------------------------------------


def test_nothing_goes_where_it_was_not_meant(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = world / "runs" / "small"
    before = contents(world)

    def refused(*options: str, name: str = GONE) -> str:
        assert main(["forget", name, "--study", str(study), *options]) == 2
        return capsys.readouterr().err

    assert "Did you mean 'Zébulon Iams'" in refused("--yes", name="Zebulon Iams")
    assert DERIVED not in refused("--yes", name=DERIVED).partition("Known")[2], "derived people are no people"
    assert "--yes" in refused()
    assert "there is no database" in refused("--to", "sqlite:///nowhere.db", "--yes")
    assert "not a tracking URI" in refused("--to", "runs", "--yes")
    assert "MLflow at http://127.0.0.1:9 does not answer" in refused("--to", "http://127.0.0.1:9", "--yes")
    with only_driver(study):
        assert "another driver is at work" in refused("--yes")
    assert main(["forget", GONE, "--study", str(world), "--yes"]) == 2
    assert "is not a study" in capsys.readouterr().err
    said: list[str] = []
    assert forget_people(GONE, [str(study)], confirm=lambda: False, say=said.append) is None
    assert said[0].startswith(f"{GONE} in ")
    after = contents(world)
    after.pop("runs/small/driver.lock")
    assert after == before


@pytest.mark.usefixtures("few_figures")
def test_other_studies_that_hold_the_person_are_named(world: Path) -> None:
    study, other = world / "runs" / "small", world / "runs" / "it's another"
    shutil.copytree(study, other)
    (world / "runs" / "no study").mkdir()
    said: list[str] = []
    forget_people(GONE, [str(study)], to="none", confirm=lambda: True, say=said.append)
    assert said[-1] == (
        f"Other studies of this storage still hold {GONE}; to forget them there, too: --study {shlex.quote(str(other))}"
    )
    forget_people(GONE, [str(other)], to="none", confirm=lambda: True, say=said.append)
    assert "Other studies" not in said[-1]


@pytest.mark.usefixtures("few_figures")
def test_the_last_person_takes_the_study_along(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = world / "runs" / "small"
    (study / "notes.txt").write_text("mine")
    assert forget(world) == 0
    assert forget(world, name=STAYS) == 0
    assert "the whole study goes" in capsys.readouterr().out
    assert list(contents(study)) == ["notes.txt"]
    assert runs_of(world) == []
    assert not (world / "runs" / "small" / "results").exists()


@pytest.mark.usefixtures("few_figures")
def test_people_of_earlier_plans_stay(world: Path, tmp_path: Path) -> None:
    study = world / "runs" / "small"
    write_plan(tmp_path, study, (GONE,), world / "photos")  # the folder is planned anew for one of the two
    before = contents(study)
    assert forget(world) == 0
    after = contents(study)
    theirs = owned_by(before, STAYS)
    assert theirs and {path: after[path] for path in theirs} == {path: before[path] for path in theirs}
    assert not {path for path in after if path.startswith(("report/", "mlflow-artifacts", "study.yaml"))}
    assert not found_in(after, NEEDLES)


def test_only_this_persons_photos_in_the_storage_go(world: Path, tmp_path: Path) -> None:
    data = world / "runs" / "data"
    outside = tmp_path / "outside"
    shutil.move(data / "photos", outside)
    (data / "photos").symlink_to(outside)
    namesake = data / "other" / GONE / "t0" / "train"
    namesake.mkdir(parents=True)
    shutil.copy(next(outside.rglob("*.png")), namesake)
    stranger = data / f"photos-{'0' * 16}" / GONE / "t0" / "train"
    stranger.mkdir(parents=True)
    shutil.copy(world / "photos" / STAYS / "t1/train/0.png", stranger)
    before = contents(data), contents(outside)
    shutil.rmtree(world / "runs" / "small" / "report")
    assert forget(world, "--photos", "--to", "none") == 1
    assert (contents(data), contents(outside)) == before


def test_a_packaged_data_set_goes_on_without_the_person(tmp_path: Path) -> None:
    """The manifest and the scans of preparing are mended, so that the others can be used as before."""
    wanted = {"timestamps": 1, "train": 2, "test": 1, "data_seed": 0, "cache": tmp_path / "data"}
    people = open_data_set("synthetic", identities=2, **wanted)
    out = tmp_path / "small"
    out.mkdir()
    digests = {photo.digest for photo in people.identities[1].timestamps[0].train}
    (people.root / ".prepare").mkdir()
    (people.root / ".prepare" / "scan-1.npz").write_bytes(b"thumbnails")

    (folder,) = photo_folders(out, "synthetic", "person_01", digests)
    remove_photos(folder)
    assert not found_in(contents(people.root), (b"person_01", *(digest.encode() for digest in digests)))
    assert not (people.root / ".prepare").exists()
    with pytest.raises(UserError, match="unknown identity 'person_01'"):
        open_data_set("synthetic", names=["person_01"], **wanted)


def test_deleted_rows_leave_the_database_file(tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    database = sqlite3.connect(file)
    database.execute("PRAGMA secure_delete = OFF")  # some builds of SQLite overwrite what is deleted, others do not
    database.execute("CREATE TABLE tags (value TEXT)")
    database.executemany("INSERT INTO tags VALUES (?)", [(GONE,)] * 100)
    database.commit()
    database.execute("DELETE FROM tags")
    database.commit()
    assert GONE.encode() in file.read_bytes()
    reader = sqlite3.connect(file)
    reader.execute("BEGIN EXCLUSIVE")
    (left,) = vacuum(file, patience_s=0.1)
    assert "free pages" in left and GONE.encode() in file.read_bytes()
    reader.close()
    assert vacuum(file) == []
    assert GONE.encode() not in file.read_bytes()
    database.close()


def test_names() -> None:
    for content in (b"-Ann-", b'"Ann"', b"Ann's", b"file:Ann-lower-s0.txt"):
        assert names_somebody(content, ["Ann"])
    for content in (b"Anna", b"JoAnn", b"Ann_2", b"ann"):
        assert not names_somebody(content, ["Ann"])
    for text in (json.dumps("Zoë: x"), yaml.safe_dump({"a": "Zoë: x"}), "Zoë: x"):
        assert names_somebody(text.encode(), ["Zoë: x"])


def test_a_trial_is_of_the_person_with_the_longest_fitting_name(tmp_path: Path) -> None:
    def trial(name: str, strategy: str) -> TrialSpec:
        return TrialSpec(identity=name, strategy=strategy, buffer_size=None, learning_rate=1e-5, seed=0)

    specs = [trial(name, "lower") for name in ("ann", "ann-b", "ann b")]
    census = take_census(tmp_path, [TrialEntry.of(spec, joint=False) for spec in specs])
    for spec in specs:
        assert census.of_trial(trial(spec.identity, "upper").trial_id) in (spec.identity, "ann b", "ann-b")
        assert census.of_trial(spec.trial_id) == spec.identity
        assert census.of_trial(trial(spec.identity + VALIDATION_MARK, "x").trial_id) == spec.identity + VALIDATION_MARK
    assert census.of_trial("anna-lower-lr1e-05-s0") == ""
    traces = find_traces(tmp_path, census, "ann")
    assert (traces.trials, traces.others) == (1, ("ann b", "ann-b"))


def test_words_that_are_names_stay_settings() -> None:
    def trial(name: str, size: int | None) -> TrialEntry:
        return TrialEntry(trial=f"{name}-x", identity=name, strategy="x", buffer_size=size, learning_rate=0.1, seed=0)

    record = StudyRecord(
        name="id",
        profile={"evaluation": {"metrics": ["id", "lpips"]}},
        timestamps={"id": 3, "bob": 3},
        trials=(trial("id", 3), trial("bob", None)),
        buffer_sizes=(3,),
        other={"validation": ["id", "bob"]},
    )
    assert without(record, {"id"}) == replace(
        record,
        timestamps={"bob": 3},
        trials=record.trials[1:],
        buffer_sizes=(),
        other={"validation": ["bob"]},
    )


# --- elsewhere -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_study_in_an_object_store(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a remote study's database is in ./runs
    with object_store() as query:

        def wanted(name: str) -> bool:
            return not name.startswith(("mlflow", "driver", "report/")) or name == "report/index.html"

        place = open_place(f"s3://{BUCKET}/{tmp_path.name}/small?{query}")
        copy_tree(world / "runs" / "small", place, wanted)
        assert main(["forget", GONE, "--study", place.uri, "--yes"]) == 0
        files = {name: (place / name).read_bytes() for name in list_files(place)}
        assert forget(world, "--to", "none") == 1, "the study's folder has pictures of runs, and MLflow was left alone"
    here = {name: content for name, content in contents(world / "runs" / "small").items() if "mlflow" not in name}
    here.pop("driver.lock")
    loss_path = {name for name in here if "loss_path" in name}
    assert files.keys() == here.keys() - loss_path
    assert all(files[name] == here[name] for name in files if name != "report/index.html")


@pytest.mark.slow
def test_behind_a_server_runs_go_to_the_bin_and_the_rest_is_said(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", sqlite_uri(tmp_path / "server.db")]
    command += ["--artifacts-destination", str(tmp_path / "served")]
    quiet = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(command, env=quiet, stdout=log, stderr=log, start_new_session=True)
    try:
        study, photos = str(world / "runs" / "small"), str(world / "photos")
        from clstudy.cli.tracking import main as rebuild

        deadline = time.monotonic() + 90
        while rebuild(["rebuild", study, "--to", uri, "--data", photos]) and time.monotonic() < deadline:
            time.sleep(1)
        assert {path for path in contents(tmp_path / "served") if "/faces/" in path}
        held = found_in(contents(tmp_path / "served"), NEEDLES)
        assert forget(world, "--to", uri) == 1
        assert "mlflow gc" in capsys.readouterr().err
        assert held and not found_in(contents(tmp_path / "served"), NEEDLES)
        client = MlflowClient(tracking_uri=uri)
        experiment = client.get_experiment_by_name("small").experiment_id
        names = {run.info.run_name for run in client.search_runs([experiment])}
        assert names == {f"{STAYS} er_rand K=2", f"{STAYS} ewc", "report"}
        pictures = {Path(path).parts[1] for path in contents(tmp_path / "served")}
        assert len(pictures) == 3, "two runs and the report"
    finally:
        os.killpg(server.pid, 15)
        server.wait(timeout=30)


@pytest.mark.usefixtures("few_figures")
def test_said_before_it_is_done(world: Path) -> None:
    study = world / "runs" / "small"
    plan = plan_forgetting(GONE, study, None, False)
    assert plan is not None
    text = "\n".join(plan.lines())
    assert "2 of 4 planned trials" in text and "4 runs, the attached report is replaced" in text
    assert "searches again" in text and "--photos removes them too" in text
    steps: list[str] = []
    assert carry_out(plan, steps.append) == []
    assert steps[0] == "runs in MLflow" and steps[-2:] == ["free pages of MLflow's database", "study.yaml"]
    assert plan_forgetting(GONE, study, None, False) is None
    with pytest.raises(UserError, match="is not a study"):
        plan_forgetting(GONE, world, None, False)
