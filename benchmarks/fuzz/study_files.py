"""Every file of a study's folder, damaged: what the report says of it, and what the next run makes of it.

The study is finished and has everything that a real one has (stages, anchors, memories, results, settings, records of
runs, a loss path, proposals); its scores are made up, so that no training is needed. A case does what a user does:
report, ``tracking rebuild``, the run again (plan, rows from stages, stages that are not there any more), report.
The numbers of the second report must be those of the undamaged study, those of the first one too, unless it says which
trials are missing.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from safetensors.numpy import save as save_arrays

from benchmarks.fuzz.harness import GIVEN, Outcome, Target
from benchmarks.fuzz.mutations import damage_one_file, kinds_of_files
from clstudy.analysis.evidence import evidence_files, judge
from clstudy.analysis.figures import Gallery
from clstudy.analysis.loss_path_numbers import FILE as LOSS_PATH
from clstudy.analysis.loss_path_numbers import PATH_SCHEMA, path_curves, read_loss_path, strategy_numbers
from clstudy.analysis.pages.evidence import evidence_sections
from clstudy.analysis.pages.rates import rate_sections
from clstudy.analysis.pages.study import study_page
from clstudy.analysis.report_data import gather
from clstudy.analysis.study_folder import anchor_latents, stage_faces, trial_stages
from clstudy.analysis.summary import Summary, summarise
from clstudy.analysis.tables import table_files
from clstudy.errors import UserError
from clstudy.identities.dataset import DataSet, Identity
from clstudy.images import encode_png
from clstudy.records.failures import write_failures
from clstudy.records.results import parquet_bytes, restore_results, result_path, trial_table, write_result
from clstudy.records.rows import Row, stage_table
from clstudy.records.sessions import Session, add_session, read_sessions
from clstudy.records.stage_record import StageRecord, owned_by
from clstudy.records.study_record import StudyRecord, read_complete_record, require_study, write_study_record
from clstudy.settings.space import RateRange, SearchSpace
from clstudy.settings.trial_spec import GridCell, TrialSpec
from clstudy.storage.checksum_names import SUFFIX
from clstudy.storage.checksums import write_checked
from clstudy.storage.content_addressed_store import StudyStore, Timing
from clstudy.storage.driver_lock import only_driver
from clstudy.strategies.base import Memory, memory_to_dict
from clstudy.study.cost import write_history
from clstudy.study.plan import Plan, make_plan
from clstudy.study.privacy.census import take_census
from clstudy.study.privacy.traces import find_traces
from clstudy.study.search.rate_search import RateSearch
from clstudy.study.study_file import write_study_file
from clstudy.study.tracking_rebuild import StudyReplay
from clstudy.tracking.local_database import sqlite_uri
from clstudy.trial.requests import MemoryRequest, StageRequest, anchors_key, canonical_test, recall, stage_requests
from clstudy.trial.work import cost_kind, stage_work
from tests.support.furnished import BASIS, TEST, WIDTH, faces, latents, person, remember

TIMESTAMPS = 3
PEOPLE = {name: person(name, TIMESTAMPS) for name in ("anna", "ben")}
SPECS = tuple(
    TrialSpec(identity=name, strategy=strategy, buffer_size=size, learning_rate=0.003, seed=0)
    for name in PEOPLE
    for strategy, size in (("lower", None), ("er_rand", 2), ("upper", None))
)
SPACE = SearchSpace.model_validate(
    {
        "name": "fuzzed",
        "profile": "embedded",
        "grid": {
            "identity": list(PEOPLE),
            "strategy": ["lower", "er_rand", "upper"],
            "buffer_size": [2],
            "learning_rate": [0.003],
        },
        "seeds": [0],
    }
)
NAME = "fuzzed"
EXPECTED = "expected.json"


# --- the study -------------------------------------------------------------------------------------------------------


def made_up_rows(request: StageRequest) -> list[Row]:
    """Rows of a stage, fixed by its key."""
    rng = np.random.default_rng(int(request.key[:12], 16))
    return [
        Row(request.t, k, "reconstruction", metric, f"{index:02d}", float(rng.random()))
        for k in range(request.t + 1)
        for metric in ("lpips", "id")
        for index in range(TEST)
    ]


def compute_stage(store: StudyStore, request: StageRequest) -> None:
    """Put a stage there as a worker does."""
    store.stages.put(
        request.key,
        {
            "rows.parquet": parquet_bytes(stage_table(made_up_rows(request))),
            "faces.png": encode_png(faces(request)),
            "stage.json": StageRecord(request=request.document, loss=0.5).encode(),
            **owned_by(request.identity.name),
        },
    )
    work = stage_work(request)
    store.record_seconds(request.key, Timing(seconds=10.0 + request.t, work=work, kind=cost_kind(BASIS)))


def compute_memory(store: StudyStore, request: MemoryRequest) -> Memory:
    """What the strategy remembers, from the store or chosen now, as a worker does it."""
    known = recall(store, request)
    if known is not None:
        return known
    timestamp = request.identity.timestamps[request.t]
    key = anchors_key(BASIS, timestamp)
    if store.anchors.get(key) is None:
        test = np.zeros((len(canonical_test(timestamp)), WIDTH), np.float32)
        store.anchors.put(key, {"anchors.safetensors": save_arrays({"train": latents(timestamp), "test": test})})
    memory = remember(request)
    store.memories.put(request.key, {"memory.json": json.dumps(memory_to_dict(memory), sort_keys=True).encode()})
    return memory


def run_trials(out: Path, specs: tuple[TrialSpec, ...]) -> int:
    """Finish these trials as workers do, with made-up scores; returns how many stages were computed."""
    store, computed = StudyStore(out), 0
    for spec in specs:
        tables, keys = [], []
        for request in stage_requests(spec, PEOPLE[spec.identity], BASIS, lambda one: compute_memory(store, one)):
            if store.stages.get(request.key) is None:
                compute_stage(store, request)
                computed += 1
            tables.append(stage_table(made_up_rows(request)))
            keys.append(request.key)
        write_result(result_path(out, spec.trial_id), trial_table(spec, tables, keys))
    return computed


def plan_of(out: Path) -> Plan:
    """The plan as of now."""
    return make_plan(SPECS, PEOPLE, BASIS, StudyStore(out), out, workers=1)


def data_set() -> DataSet:
    """The people whose photos exist by digest only."""
    people: tuple[Identity, ...] = tuple(PEOPLE.values())
    return DataSet("made up", Path("photos"), people)


def write_records(out: Path) -> None:
    """Everything that the main command writes beside the trials."""
    write_study_file(out, SPACE, BASIS, data_set(), plan_of(out))
    write_failures(out, {})
    add_session(
        out,
        Session(
            began="2026-01-01 00:00:00",
            part="trials",
            ended="finished",
            stages_planned=12,
            stages_computed=12,
            stages_reused=0,
            stages_repeated=0,
            expected_seconds=100.0,
            seconds=90.0,
            expected_worker_seconds=100.0,
            worker_seconds=90.0,
            gpus=0.0,
            cpus=1.0,
            price_per_hour=None,
            deaths=0,
            weights_dropped=0,
        ),
    )
    write_history(out, StudyStore(out).stage_timings())


def loss_path_rows() -> pa.Table:
    """A loss path of one trial."""
    values: dict[str, Any] = {
        "trial": SPECS[0].trial_id,
        "identity": "anna",
        "strategy": "lower",
        "buffer_size": None,
        "learning_rate": 0.003,
        "seed": 0,
        "from_timestamp": 0,
        "to_timestamp": 1,
        "group": "all",
    }
    rows = [
        {**values, "alpha": alpha, "test_timestamp": k, "loss": 0.1 + alpha * k}
        for alpha in (0.0, 0.25, 0.5, 0.75, 1.0)
        for k in (0, 1)
    ]
    return pa.Table.from_pylist([{name: row.get(name) for name in PATH_SCHEMA.names} for row in rows], PATH_SCHEMA)


PROPOSALS = b"""strategy,buffer_size,proposal,learning_rate,objective,state
"lower",,0,0.003,0.05,"finished"
"er_rand",2,0,0.003,0.04,"finished"
"er_rand",2,1,0.01,,"diverged"
"""


def make_study(folder: Path, rng: np.random.Generator) -> None:
    """The finished study, another one beside it that its plan asks for its pace, and the expected answers."""
    out = folder / GIVEN / NAME
    run_trials(out, SPECS)
    write_records(out)
    write_checked(out / "report" / LOSS_PATH, parquet_bytes(loss_path_rows()))
    write_checked(out / "search" / "proposals.csv", PROPOSALS)
    (out / "logs").mkdir()
    (out / "logs" / f"{SPECS[0].trial_id}.txt").write_text("Traceback: of an earlier try\n")
    with only_driver(out):
        pass
    expected = {"tables": answers(out)[0], "mlflow": told_to_mlflow(out), "study.yaml": require_study(out).decode()}
    (folder / EXPECTED).write_text(json.dumps(expected))


def make_old_study(folder: Path, rng: np.random.Generator) -> None:
    """As versions without checksums of results left it."""
    make_study(folder, rng)
    for path in (folder / GIVEN).rglob(f"*{SUFFIX}"):
        path.unlink()


# --- what a user sees ------------------------------------------------------------------------------------------------


def answers(out: Path) -> tuple[dict[str, str], Summary]:
    """All tables of numbers of a study by name, and the summary beside them; the page is made, too."""
    summary = summarise(out)
    found = judge(summary)
    files = {**table_files(summary), **evidence_files(found)}
    tables = {name: content.decode() for name, content in files.items() if name.endswith(".csv")}
    try:
        rows = read_loss_path(out)
    except UserError as error:
        tables["loss path"] = f"error: {error}"
    else:
        tables["loss path"] = "" if rows is None else str(strategy_numbers(path_curves(rows)).to_pylist())
    material = gather(summary)
    for trial in summary.study.trials:
        for note in trial_stages(out, trial.trial):
            stage_faces(note)
            anchor_latents(out, note, note.asked.t)
    study_page(
        material, Gallery(drawings=(), skipped=()), [*evidence_sections(material, found), *rate_sections(summary.study)]
    )
    return tables, summary


class Listener:
    """Takes what MLflow would be told: trial -> t -> metrics."""

    def __init__(self) -> None:
        self.heard: dict[str, dict[int, Mapping[str, float]]] = {}

    def log_stage(
        self, trial: str, t: int, metrics: Mapping[str, float], pictures: Any = None, losses: Any = None
    ) -> None:
        """One timestamp of a trial."""
        self.heard.setdefault(trial, {})[t] = {name: value for name, value in metrics.items() if "loss" not in name}

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


def told_to_mlflow(out: Path) -> dict[str, dict[int, Mapping[str, float]]]:
    """What ``tracking rebuild`` tells MLflow."""
    listener = Listener()
    StudyReplay(out, listener, images=False).run()  # type: ignore[arg-type]
    return listener.heard


def differences(expected: Mapping[str, str], found: Mapping[str, str]) -> Iterator[str]:
    """Numbers that differ, in words; one that is not there any more differs from none."""
    for name, text in expected.items():
        if name not in found or found[name].startswith("error: "):
            continue
        if name == "loss path":
            if found[name] not in ("", text):
                yield f"{name}: {found[name][:200]}"
            continue
        before, after = (list(csv.reader(io.StringIO(one))) for one in (text, found[name]))
        if len(before) != len(after):
            yield f"{name}: {len(after)} lines instead of {len(before)}"
        for old, new in zip(before, after, strict=False):
            wrong = [(a, b) for a, b in zip(old, new, strict=False) if b not in ("", a)]
            if wrong:
                yield f"{name}: {wrong[:3]} in {new[:8]}"


def said(summary: Summary) -> bool:
    """Whether the report says that numbers rest on fewer trials, or on others."""
    return bool(summary.missing or summary.left_out)


def check_study(folder: Path) -> tuple[Outcome, str]:
    """Report, rebuild MLflow's runs, look at people's traces, run again, report again."""
    os.chdir(folder)
    out = folder / GIVEN / NAME
    known = json.loads((folder / EXPECTED).read_text())
    expected = known["tables"]
    errors: list[str] = []

    def clear(action: Any) -> Any:
        try:
            return action()
        except UserError as error:
            errors.append(str(error))
            return None

    report = clear(lambda: answers(out))
    if report is not None:
        tables, summary = report
        if summary.missing:
            errors.append(summary.missing[0].reason)
        wrong = list(differences(expected, tables))
        if wrong and not said(summary):
            return Outcome.WRONG, "the report: " + "; ".join(wrong)
        errors += [text for text in tables.values() if text.startswith("error: ")]
    heard = clear(lambda: told_to_mlflow(out))
    for trial, stages in (heard or {}).items():
        for t, metrics in stages.items():
            if metrics != known["mlflow"].get(trial, {}).get(str(t)):
                return Outcome.WRONG, f"MLflow: {trial} t={t}: {metrics}"
    clear(lambda: find_traces(out, take_census(out, read_complete_record(out).trials), "anna"))
    with only_driver(out):
        plan = plan_of(out)
        wanted = {spec: plan.chains[spec.trial_id].keys for spec in plan.trials if spec.trial_id in plan.restorable}
        restored = restore_results(StudyStore(out), out, wanted)
        plan = plan_of(out) if restored else plan
        computed = run_trials(out, plan.to_run)
        write_study_record(out, StudyRecord.decode(known["study.yaml"].encode()))
        for session in read_sessions(out)[:1]:
            add_session(out, session)
        write_history(out, StudyStore(out).stage_timings())
    if not (errors or restored or computed or plan.to_run):
        return Outcome.SAME, ""
    tables, summary = answers(out)
    wrong = list(differences(expected, tables))
    if wrong or said(summary):
        return Outcome.WRONG, f"the report after the next run: {'; '.join(wrong) or summary.missing}"
    if restored or computed or plan.to_run:
        return Outcome.RECOMPUTED, f"{len(restored)} results restored, {computed} stages computed; {errors[:1]}"
    return Outcome.CLEAR_ERROR, errors[0]


# --- the record of a search ------------------------------------------------------------------------------------------

CELLS = (GridCell(strategy="lower", buffer_size=None), GridCell(strategy="er_rand", buffer_size=2))
RATES = RateRange(low=0.001, high=0.1, trials=6)


def open_search(database: Path) -> RateSearch:
    """The search of two cells, whose proposals lie in a database."""
    return RateSearch(
        CELLS,
        ["anna"],
        [0],
        RATES,
        storage=sqlite_uri(database),
        study_name="fuzzed",
        seed=0,
        asha=False,
        timestamps=TIMESTAMPS,
        basis="fuzzed",
    )


def search_on(search: RateSearch) -> dict[str, float]:
    """Go on to the end, with objectives that are a function of the rate; cell -> chosen rate."""
    while (spec := search.next()) is not None:
        search.finish(spec.trial_id, 0.05 + (np.log10(spec.learning_rate) + 2.2) ** 2 / 100)
    return {cell.label: rate for cell, rate in search.best().items()}


def make_search(folder: Path, rng: np.random.Generator) -> None:
    """A finished search."""
    chosen = search_on(open_search(folder / GIVEN / "optuna.db"))
    (folder / EXPECTED).write_text(json.dumps(chosen))


def check_search(folder: Path) -> tuple[Outcome, str]:
    """Open the search again, go on with it, and choose."""
    search = open_search(folder / GIVEN / "optuna.db")
    complete = search.complete()
    chosen = search_on(search)
    if chosen != json.loads((folder / EXPECTED).read_text()):
        return Outcome.WRONG, f"chosen: {chosen}"
    return (Outcome.SAME, "") if complete else (Outcome.RECOMPUTED, "proposals were missing")


def damage_results(given: Path, rng: np.random.Generator) -> str:
    """Damage one result file."""
    kinds = kinds_of_files(given)
    return damage_one_file(given, rng, [[path for kind in kinds for path in kind if path.parent.name == "results"]])


TARGETS = (
    Target(name="study", prepare=make_study, check=check_study, share=4),
    Target(name="results", prepare=make_study, check=check_study, damage=damage_results),
    Target(name="search", prepare=make_search, check=check_search),
    Target(name="old-results", prepare=make_old_study, check=check_study, damage=damage_results),
)
