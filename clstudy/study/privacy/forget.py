"""Forget a person: remove everything that studies and MLflow hold of one identity (no torch, no Ray).

Every value says of whom it is (``about.json``). Those of earlier versions do not: a stage's own record does, and from
the records follow the keys of what belongs to it. What cannot be shown to be another person's goes as well, where it
can be had again at any time (anchors, for instance, are computed anew). Nothing of anybody else is touched: their rows
and stages are the same bytes afterwards, under the same keys.

Everything may be repeated: ``study.yaml`` is changed last, so that after a kill the same command finds what is left.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path, PurePosixPath
from shutil import rmtree
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from clstudy.analysis.loss_path_numbers import PATH_SCHEMA
from clstudy.analysis.report import build_report, needed_by_reports
from clstudy.assets import sha256_file
from clstudy.errors import UserError, nearest
from clstudy.records.stage_record import StageInputs
from clstudy.records.study_document import write_document, write_failures
from clstudy.safe_text import printable, redacted, shown_address
from clstudy.settings.trial_spec import TrialSpec
from clstudy.storage.checksum_names import checked_name, checksum_name
from clstudy.storage.checksums import State, read_checked, remove_checked
from clstudy.storage.content_addressed_store import MARKER, StudyStore, digest_of
from clstudy.storage.documents import json_object, read_json
from clstudy.storage.driver_lock import NAME as LOCK
from clstudy.storage.driver_lock import only_driver
from clstudy.storage.patience import patiently
from clstudy.storage.places import Place, RemotePath, open_place, write_atomically
from clstudy.storage.private_folder import is_private, node_folder
from clstudy.storage.trees import list_files, local_view, remove_tree, together
from clstudy.strategies.lookup import strategy_document
from clstudy.study.privacy.ray_sessions import forget_in_sessions
from clstudy.study.search.validation_people import VALIDATION_MARK
from clstudy.study.stored_study import read_study_file
from clstudy.tracking.addresses import TRACKED, artifact_folder
from clstudy.tracking.local_database import quiet_client, sqlite_uri
from clstudy.tracking.run_contents import REPORT_TAG, TRIAL_TAG
from clstudy.tracking.writer import MlflowWriter
from clstudy.trial.requests import HOOKS_VERSION

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

KINDS = ("anchors", "memories", "learned", "weights", "stages")
"""Values of a study in the order in which they go: stages last, because their records say whose the others are."""
NO_TRACKING = "none"
"""In place of MLflow's URI: leave MLflow alone."""

_PHOTOS = (".png", ".jpg", ".jpeg")
_SEARCHED = ("search/", "optuna.db")
"""Where a learning-rate search keeps its rows and its record."""
_SETTINGS = (
    "name", "description", "profile", "claims", "generator", "metric_files", "fingerprint", "versions", "git_commit"
)  # fmt: skip
"""Parts of ``study.yaml`` that hold no names of people (and may hold words that are somebody's name)."""
_CHECKED = ("study.yaml", "sessions.json", "failures.json")
_SUMMARIES = (*_CHECKED, *map(checksum_name, _CHECKED), "history.json", TRACKED, LOCK)
_DRAFT = re.compile(r"\..+\.[0-9a-f]{8}")
"""What ``write_atomically`` leaves behind when it is killed."""
_VIEW = ".forgetting"
_MOST_SEARCHED_BYTES = 200_000_000
_SQLITE = "sqlite:///"


# --- whose is what ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class StageFacts:
    """What a stage's record (``stage.json``) says: of whom it is, the photos it has seen, what belongs to it.

    ``anchors`` and ``learned`` are keys; ``learned`` also has those of what may have been learned after the stage.
    """

    identity: str
    photos: frozenset[str]
    anchors: frozenset[str]
    learned: frozenset[str]


def stage_facts(key: str, record: Mapping[str, Any], strategies: Sequence[Mapping[str, Any]]) -> StageFacts | None:
    """Read a stage's record; None for what is none.

    Args:
        key: of the stage.
        record: content of ``stage.json``.
        strategies: documents of the strategies that may have learned from a first stage (later ones name theirs).
    """
    try:
        asked = StageInputs.read(record["request"])
        before = asked.support
        after = strategies if before is None else [before["strategy"]]
        learned = {_learned_key(key, strategy, before) for strategy in after}
        if before is not None and before["learned"] is not None:
            learned.add(before["learned"])
        return StageFacts(
            identity=asked.identity,
            photos=frozenset(chain(*asked.anchored, *asked.tested)),
            anchors=frozenset(asked.anchors_key(k) for k in range(len(asked.anchored))),
            learned=frozenset(learned),
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        return None


def _learned_key(stage: str, strategy: Mapping[str, Any], before: Mapping[str, Any] | None) -> str:
    """As ``clstudy.trial.requests.LearnedRequest.key``, from a stage's record (tested)."""
    return digest_of(
        {"what": "learned", "version": HOOKS_VERSION, "strategy": strategy, "stage": stage, "before": before}
    )


@dataclass(frozen=True, kw_only=True)
class Census:
    """Whose everything in a study's folder is.

    Attributes:
        files: path -> bytes.
        planned: trial of ``study.yaml`` -> person.
        unplanned: result file of a trial that is in no plan any more -> person (empty: it does not say).
        owners: (kind, key) of every value -> people; nobody where it is not known, or the value is not whole.
        photos: person -> digests of their photos, as far as stages have seen them.
    """

    files: Mapping[str, int]
    planned: Mapping[str, str]
    unplanned: Mapping[str, str]
    owners: Mapping[tuple[str, str], frozenset[str]]
    photos: Mapping[str, frozenset[str]]

    @cached_property
    def people(self) -> tuple[str, ...]:
        """Everybody who is named anywhere; the derived people of a search count as the person they are made from."""
        found = {*self.planned.values()}
        for name in chain(self.unplanned.values(), *self.owners.values()):
            found.add(name if name in found else name.removesuffix(VALIDATION_MARK))
        return tuple(sorted(found - {""}))

    def of_trial(self, trial: str) -> str:
        """The person of a trial by its name; empty if that is nobody known."""
        if trial in self.planned:
            return self.planned[trial]
        known = [name for name in self._everybody if trial.startswith(f"{_file_name(name)}-")]
        return max(known, key=lambda name: len(_file_name(name)), default="")

    def of_rows(self, path: str) -> str:
        """The person of a result file: as its rows say, else by its name."""
        return self.unplanned.get(path) or self.of_trial(PurePosixPath(path).stem)

    @cached_property
    def _everybody(self) -> tuple[str, ...]:
        return tuple(chain.from_iterable(_with_derived(name) for name in self.people))


def _with_derived(name: str) -> frozenset[str]:
    """The person, and the one that a learning-rate search makes from two thirds of their photos."""
    return frozenset({name, name + VALIDATION_MARK})


def _file_name(name: str) -> str:
    """How a person's name begins a trial's (``TrialSpec.trial_id``)."""
    spec = TrialSpec(identity=name, strategy="x", buffer_size=None, learning_rate=1.0, seed=0)
    return spec.trial_id.removesuffix("-x-lr1-s0")


def take_census(study: Place, document: Mapping[str, Any]) -> Census:
    """Read whose everything is: one small file per value, and the listing."""
    files = list_files(study)
    planned = {str(entry["trial"]): str(entry["identity"]) for entry in document["trials"]}
    values: dict[tuple[str, str], set[str]] = {}
    for parts in (PurePosixPath(name).parts for name in files):
        if _is_value(parts):
            values.setdefault((parts[0], parts[2]), set()).add(parts[3])
    whole = {value for value, held in values.items() if MARKER in held}
    strategies = _strategy_documents({str(entry["strategy"]) for entry in document["trials"]})
    records = _read_values(study, [value for value in values if value[0] == "stages"], "stage.json")
    facts = {
        key: found
        for (_, key), record in records.items()
        if (found := stage_facts(key, record, strategies)) is not None
    }
    photos: dict[str, frozenset[str]] = {}
    for stage in facts.values():
        photos[stage.identity] = photos.get(stage.identity, frozenset()) | stage.photos
    said = _read_values(study, [value for value in whole if "about.json" in values[value]], "about.json")
    named = {value: frozenset({str(about["identity"])}) for value, about in said.items() if about.get("identity")}
    rows = [name for name in files if _is_result(name) and PurePosixPath(name).stem not in planned]
    return Census(
        files=files,
        planned=planned,
        unplanned=dict(zip(rows, together(lambda name: _identity_of_rows(study / name), rows, study), strict=True)),
        owners={
            **dict.fromkeys(values, frozenset()),
            **_legacy_owners(study, whole - named.keys(), facts, photos),
            **named,
        },
        photos=photos,
    )


def _is_value(parts: tuple[str, ...]) -> bool:
    return len(parts) == 4 and parts[0] in KINDS and parts[1] == parts[2][:2]


def _is_result(name: str) -> bool:
    return name.startswith(("results/", "search/")) and name.endswith(".parquet") and not _is_draft(name)


def _is_draft(name: str) -> bool:
    return _DRAFT.fullmatch(PurePosixPath(name).name) is not None


def _read_json(place: Place) -> dict[str, Any]:
    """A small document; empty where there is none.

    A storage that does not answer is an error: what is not known to be another person's would be removed.
    """
    try:
        return json_object(patiently(place.read_bytes))
    except (FileNotFoundError, ValueError):
        return {}


def _read_values(study: Place, values: Sequence[tuple[str, str]], name: str) -> dict[tuple[str, str], dict[str, Any]]:
    """One small document of each value, many at a time where each is a request."""
    store = StudyStore(study)

    def read(value: str) -> dict[str, Any]:
        kind, key = value.split("/")
        try:  # checked: a name that changed by itself must not keep (or lose) somebody else's value
            return json_object(getattr(store, kind).read_file(key, name) or b"")
        except ValueError:
            return {}

    return dict(zip(values, together(read, [f"{kind}/{key}" for kind, key in values], study), strict=True))


def _strategy_documents(names: Iterable[str]) -> list[dict[str, Any]]:
    found = []
    for name in sorted(names):
        with suppress(UserError):  # one of the user's own that is not here: what it learned belongs to nobody known
            found.append(json.loads(json.dumps(strategy_document(name))))
    return found


def _legacy_owners(
    study: Place,
    values: Collection[tuple[str, str]],
    facts: Mapping[str, StageFacts],
    photos: Mapping[str, frozenset[str]],
) -> dict[tuple[str, str], frozenset[str]]:
    """People of values without ``about.json``, from the stages' records."""
    owners: dict[tuple[str, str], set[str]] = {}
    for key, stage in facts.items():
        named = [("stages", key), ("weights", key)]
        named += [("anchors", other) for other in stage.anchors] + [("learned", other) for other in stage.learned]
        for value in named:
            owners.setdefault(value, set()).add(stage.identity)
    memories = _read_values(study, [value for value in values if value[0] == "memories"], "memory.json")
    for value, memory in memories.items():
        stored = {item.get("digest") for item in memory.get("items", [])}
        owners[value] = {name for name, seen in photos.items() if stored and stored <= seen}
    return {value: frozenset(owners.get(value, ())) for value in values}


def _identity_of_rows(place: Place) -> str:
    """The person of a result file; empty where it does not say."""
    try:
        state, content = patiently(lambda: read_checked(place))
        if state not in (State.WHOLE, State.UNCHECKED):
            return ""
        table = pq.read_table(pa.BufferReader(content), columns=["identity"])
        return str(table["identity"][0].as_py()) if table.num_rows else ""
    except (pa.ArrowException, KeyError):
        return ""


# --- what goes -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Traces:
    """What a study's folder holds of a person.

    Attributes:
        names: the person's, and that of the person a search derives from them.
        values: kind -> keys.
        files: what they are -> paths, in the order in which they go.
        failures: their failed trials.
        trials: how many of the planned ones are theirs.
        digests: of their photos.
        size: bytes of values and files.
        others: people that stay in the plan.
        strangers: people who are in no plan any more and have values here all the same.
    """

    names: frozenset[str]
    values: Mapping[str, tuple[str, ...]]
    files: Mapping[str, tuple[str, ...]]
    failures: tuple[str, ...]
    trials: int
    digests: frozenset[str]
    size: int
    others: tuple[str, ...]
    strangers: tuple[str, ...]


def find_traces(study: Place, census: Census, name: str) -> Traces:
    """Everything of a person, who must be one of ``census.people``."""
    names = _with_derived(name)
    goes = {value for value, owners in census.owners.items() if owners <= names}
    values = {kind: tuple(sorted(key for found, key in goes if found == kind)) for kind in KINDS}
    stays = {key for kind, key in census.owners.keys() - goes if kind == "stages"}
    elsewhere = frozenset(chain.from_iterable(seen for other, seen in census.photos.items() if other not in names))
    groups: dict[str, list[str]] = {
        what: [] for what in ("photos for workers", "search", "rows", "logs", "timings", "unfinished writes")
    }
    for path in sorted(census.files):
        what = _group_of(path, census, names, elsewhere, stays)
        if what:
            groups[what].append(path)
    groups["search"] = _search_records(study, census, names)
    theirs = [path for path in census.files if _is_value(parts := PurePosixPath(path).parts) and parts[::2][:2] in goes]
    planned = set(census.planned.values())
    return Traces(
        names=names,
        values=values,
        files={what: tuple(paths) for what, paths in groups.items()},
        failures=tuple(trial for trial in _read_json(study / "failures.json") if census.of_trial(trial) in names),
        trials=sum(person in names for person in census.planned.values()),
        digests=frozenset(chain.from_iterable(census.photos.get(one, ()) for one in names)),
        size=sum(census.files[path] for path in chain(theirs, *groups.values())),
        others=tuple(sorted(planned - names)),
        strangers=tuple(sorted({*census.people} - planned - names)),
    )


def _group_of(
    path: str, census: Census, names: frozenset[str], elsewhere: frozenset[str], stays: Collection[str]
) -> str:
    """Why a file that is no value goes; empty if it stays. A checksum goes with the file that it is of."""
    path = checked_name(path) or path
    place = PurePosixPath(path)
    top, stem = place.parts[0], place.stem
    if top in ("ray", _VIEW) or (top in KINDS and place.parts[1] in ("drafts", "damaged")) or _is_draft(path):
        return "unfinished writes"
    if top == "inputs" and place.suffix.lower() in _PHOTOS and stem not in elsewhere:
        return "photos for workers"
    if _is_result(path):
        return "rows" if census.of_rows(path) in names else ""
    if top == "logs" and census.of_trial(stem) in names:
        return "logs"
    return "timings" if top == "timings" and stem not in stays else ""


def _search_records(study: Place, census: Census, names: frozenset[str]) -> list[str]:
    """The record of a search that the person took part in, that which names them last.

    A rate's objective is a mean over people, so the record cannot be mended, only made again.
    """
    found = [
        path
        for path in sorted(census.files)
        if path.startswith(_SEARCHED) and not (_is_result(checked_name(path) or path) or _is_draft(path))
    ]
    found += [path for path in census.unplanned if path.startswith("search/") and not census.of_rows(path)]
    naming = [path for path in found if names_somebody((study / path).read_bytes(), names)]
    took_part = naming or any(
        census.of_rows(path) in names for path in census.files if path.startswith("search/") and _is_result(path)
    )
    return [*(path for path in found if path not in naming), *naming] if took_part else []


def names_somebody(content: bytes, names: Iterable[str]) -> bool:
    """Whether one of the names stands in a file as a word, as it is or escaped as JSON and YAML do."""
    in_yaml = {yaml.safe_dump(name, width=10_000).splitlines()[0].strip("\"'") for name in names}
    forms = {*names, *(json.dumps(name)[1:-1] for name in names), *in_yaml}
    words = "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
    return re.search(rf"(?<!\w)(?:{words})(?!\w)".encode(), content) is not None


def without(document: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """``study.yaml`` as if the study had been planned without these people."""
    trials = [entry for entry in document["trials"] if entry["identity"] not in names]
    kept = {key: value if key in _SETTINGS else _dropped(value, names) for key, value in document.items()}
    sizes = {entry["buffer_size"] for entry in trials} - {None}
    return kept | {"trials": trials} | ({"buffer_sizes": sorted(sizes)} if "buffer_sizes" in document else {})


def _dropped(value: Any, names: Collection[str]) -> Any:
    if isinstance(value, dict):
        return {key: _dropped(entry, names) for key, entry in value.items() if key not in names}
    if isinstance(value, list):
        return [_dropped(entry, names) for entry in value if not (isinstance(entry, str) and entry in names)]
    return value


# --- MLflow ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Tracked:
    """Runs of a person in MLflow, deleted ones too, the runs that hold the study's report, and the ids of all runs."""

    uri: str
    client: MlflowClient
    runs: tuple[Run, ...]
    reports: tuple[Run, ...]
    known: frozenset[str]

    @property
    def shown(self) -> str:
        """Its address without what must not be shown."""
        return shown_address(self.uri)

    @property
    def hard_delete(self) -> Callable[[str], None] | None:
        """Removes a run for good; only where the database itself was named, not a server before it.

        Not ``mlflow gc``: beside the runs it is told, it empties the bin of all experiments and models.
        """
        return getattr(self.client._tracking_client.store, "_hard_delete_run", None)

    @property
    def database(self) -> Path | None:
        """The file of a local database."""
        return Path(self.uri.removeprefix(_SQLITE).partition("?")[0]) if self.uri.startswith(_SQLITE) else None


def tracking_uri(study: Place, given: str | None) -> str | None:
    """Where the study's runs are: as given, as the environment says, or the database beside the study; None: nowhere.

    Raises:
        UserError: a database was named that is not there.
    """
    if given == NO_TRACKING:
        return None
    uri = given or os.environ.get("MLFLOW_TRACKING_URI")
    if uri:
        if "://" not in uri:
            raise UserError(
                f"{uri!r} is no tracking URI; expected sqlite:///FILE or http://…, or {NO_TRACKING} to leave MLflow "
                "alone"
            )
        file = Path(uri.removeprefix(_SQLITE).partition("?")[0])
        if uri.startswith(_SQLITE) and not file.is_file():
            raise UserError(
                f"there is no database {file}; name the one that has the study's runs, or --to {NO_TRACKING}"
            )
        return uri
    beside = (Path("runs") if isinstance(study, RemotePath) else study.parent) / "mlflow.db"
    return sqlite_uri(beside) if beside.is_file() else None


def find_tracked(uri: str, experiment: str, census: Census, names: frozenset[str]) -> Tracked:
    """Look for a person's runs in the study's experiment (and in those of its search, named after it).

    Raises:
        UserError: MLflow does not answer.
    """
    try:
        client = quiet_client(uri)
        runs = list(_all_runs(client, experiment))
    except Exception as error:  # MLflow raises its own, requests' and SQLAlchemy's
        raise UserError(
            f"MLflow at {uri} does not answer ({type(error).__name__}); nothing was removed. Start it, or leave its "
            f"runs for later with --to {NO_TRACKING}"
        ) from error
    return Tracked(
        uri=uri,
        client=client,
        runs=tuple(run for run in runs if _is_of(run, census, names)),
        reports=tuple(run for run in runs if REPORT_TAG in run.data.tags),
        known=frozenset(run.info.run_id for run in runs),
    )


def strange_pictures(study: Place, tracked: Tracked | None) -> int:
    """Folders of pictures in a study that belong to no run of this MLflow: whose they are is not known."""
    folder = study / "mlflow-artifacts"
    there = {path.name for path in folder.iterdir()} if isinstance(folder, Path) and folder.is_dir() else set()
    return len(there - (tracked.known if tracked else frozenset()))


def _all_runs(client: MlflowClient, experiment: str) -> Iterator[Run]:
    from mlflow.entities import ViewType

    # the name of a study has neither spaces nor brackets: these are no other study's
    own = re.compile(rf"{re.escape(experiment)}([ :(/+].*)?")
    experiments = client.search_experiments(view_type=ViewType.ALL)
    found = list(experiments)
    while experiments.token:
        experiments = client.search_experiments(view_type=ViewType.ALL, page_token=experiments.token)
        found += experiments
    ids = [one.experiment_id for one in found if own.fullmatch(one.name)]
    token: str | None = None
    while ids and (token is None or token):
        page = client.search_runs(ids, run_view_type=ViewType.ALL, page_token=token)
        yield from page
        token = page.token or ""


def _is_of(run: Run, census: Census, names: frozenset[str]) -> bool:
    said = {
        run.data.tags.get("identity"),
        run.data.params.get("identity"),
        census.of_trial(run.data.tags.get(TRIAL_TAG, "")),
    }
    return bool(said & (names | {printable(name) for name in names}))


def _remove_artifacts(tracked: Tracked, run: Run) -> None:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    get_artifact_repository(run.info.artifact_uri, tracking_uri=tracked.uri).delete_artifacts()
    parts = urlsplit(run.info.artifact_uri)
    folder = Path(unquote(parts.path)).parent
    if parts.scheme == "file" and folder.name == run.info.run_id:
        with suppress(OSError):
            folder.rmdir()


def remove_runs(tracked: Tracked, runs: Sequence[Run]) -> list[str]:
    """Remove runs with their pictures; returns what could not be done, in words.

    The pictures first: afterwards nothing would say where they are.
    """
    left = []
    stuck: dict[str, int] = {}
    for run in runs:
        try:
            _remove_artifacts(tracked, run)
        except Exception as error:  # of whatever store the server keeps them in
            reason = redacted(f"{type(error).__name__}: {error}").splitlines()[0][:200]
            stuck[reason] = stuck.get(reason, 0) + 1
        if tracked.hard_delete is not None:
            tracked.hard_delete(run.info.run_id)
        elif run.info.lifecycle_stage != "deleted":
            tracked.client.delete_run(run.info.run_id)
    left += [f"the pictures of {count} runs in {tracked.shown} ({reason})" for reason, count in stuck.items()]
    if runs and tracked.hard_delete is None:
        left.append(
            f"{len(runs)} runs in the bin of {tracked.shown}: only the owner of its database can remove them for good, "
            "with `mlflow gc --backend-store-uri DATABASE` there (which empties the whole bin)"
        )
    return left


def vacuum(database: Path, patience_s: float = 30.0) -> list[str]:
    """Rewrite a SQLite file without what was deleted, which otherwise stays in its free pages; returns what is left."""
    try:
        connection = sqlite3.connect(database, timeout=patience_s)
        try:
            connection.execute("VACUUM")
        finally:
            connection.close()
    except sqlite3.Error as error:
        return [f"deleted rows in the free pages of {database} ({error}): close whatever uses it and run this again"]
    return []


# --- photos beside the study -----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class PhotoFolder:
    """A person in a data set that lies in the storage: ``<home>/data/<data set>/<person>``."""

    root: Path
    name: str

    @property
    def photos(self) -> Path:
        """Their photos."""
        return self.root / self.name

    @property
    def doomed(self) -> Path:
        """Where they are while they are removed: a stop leaves nothing there that could not be told for theirs."""
        return self.root / _VIEW / self.name

    @property
    def beside(self) -> tuple[Path, ...]:
        """What ``python -m clstudy.identities prepare`` left of them; its scans do not say whose they are."""
        report = self.root.with_name(f"{self.root.name}-report") / self.name
        return (report, self.root / ".report", self.root / ".prepare")


def photo_folders(study: Place, document: Mapping[str, Any], name: str, digests: Collection[str]) -> list[PhotoFolder]:
    """Folders in the storage's ``data`` with photos of this very person (others may be called the same)."""
    data = (Path("runs") if isinstance(study, RemotePath) else study.parent) / "data"
    made = re.compile(rf"{re.escape(str(document.get('data_set')))}(-[0-9a-f]{{16}})?")
    found: list[PhotoFolder] = []
    if PurePosixPath(name).name != name or name in (".", ".."):  # of a study.yaml from elsewhere: no folder's name
        return found
    for root in sorted(data.glob("*")):
        folder = PhotoFolder(root=root, name=name)
        if made.fullmatch(root.name) and folder.doomed.is_dir():
            found.append(folder)
            continue
        if not (made.fullmatch(root.name) and folder.photos.is_dir()):
            continue
        if data.resolve() not in folder.photos.resolve().parents:  # a link: the originals, or another storage
            continue
        if any(sha256_file(photo) in digests for photo in _photos_in(folder.photos)):
            found.append(folder)
    return found


def _photos_in(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.suffix.lower() in _PHOTOS and path.is_file())


def remove_photos(folder: PhotoFolder) -> None:
    """Remove a person from a data set: photos, the manifest's lines, what preparing left."""
    manifest = folder.root / "manifest.json"
    with suppress(OSError, ValueError):
        document = read_json(manifest)
        write_atomically(manifest, (json.dumps(_without_paths(document, folder.name), indent=1) + "\n").encode())
    for place in folder.beside:
        rmtree(place, ignore_errors=True)
    folder.doomed.parent.mkdir(exist_ok=True)
    with suppress(FileNotFoundError):
        folder.photos.rename(folder.doomed)
    rmtree(folder.doomed.parent)
    left = {path.name for path in folder.root.iterdir()}
    if left <= {"manifest.json", "prepared.json"}:  # nobody is left in it
        rmtree(folder.root)


def _without_paths(value: Any, name: str) -> Any:
    """A manifest without entries of a person (``person_00/t00/…``)."""
    if not isinstance(value, dict):
        return value
    return {
        key: _without_paths(entry, name)
        for key, entry in value.items()
        if key != name and not key.startswith(f"{name}/")
    }


# --- doing it --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Forgetting:
    """What is going to be removed from one study, all of it known before anything is."""

    name: str
    study: Place
    document: Mapping[str, Any]
    census: Census
    traces: Traces
    tracked: Tracked | None
    folders: tuple[PhotoFolder, ...]
    photos: bool

    @property
    def last(self) -> bool:
        """Whether nobody would be left in the plan."""
        return not self.traces.others

    def lines(self) -> list[str]:
        """What will be removed, for the user to confirm."""
        traces = self.traces
        counts = [
            *((kind, len(keys)) for kind, keys in traces.values.items()),
            *((what, len(paths)) for what, paths in traces.files.items()),
            ("failures", len(traces.failures)),
        ]
        held = ", ".join(f"{count} {what}" for what, count in counts if count)
        text = [
            f"{self.name} in {self.study}: {traces.trials} of {len(self.census.planned)} planned trials, "
            f"{traces.size / 1e6:.1f} MB ({held or 'no values'})"
        ]
        if self.last:
            stays = f"; what is finished of {', '.join(traces.strangers)} stays" if traces.strangers else ""
            text.append(f"  nobody is left in its plan: the whole study goes, report and study.yaml too{stays}")
        else:
            text.append("  study.yaml and the report are made anew without them")
        if traces.files["search"]:
            text.append("  the record of the learning-rate search goes: the next run of the space searches again")
        if self.tracked is not None:
            pictures = ", the attached report is replaced" if self.tracked.reports else ""
            text.append(f"  MLflow at {self.tracked.shown}: {len(self.tracked.runs)} runs{pictures}")
        for folder in self.folders:
            text.append(f"  photos in {folder.photos}" + ("" if self.photos else " stay (--photos removes them too)"))
            if beside := [str(place) for place in folder.beside if place.exists()]:
                text.append(
                    f"  what preparing left beside them ({', '.join(beside)}), with faces of others in the footage, "
                    + ("too" if self.photos else "stays as well")
                )
        return text


def plan_forgetting(name: str, study: Place, to: str | None, photos: bool) -> Forgetting | None:
    """Look at everything; None where the study knows nobody of this name.

    Raises:
        UserError: the folder is no study, or MLflow does not answer.
    """
    document = read_document(study)
    census = take_census(study, document)
    if name not in census.people:
        return None
    traces = find_traces(study, census, name)
    uri = tracking_uri(study, to)
    return Forgetting(
        name=name,
        study=study,
        document=document,
        census=census,
        traces=traces,
        tracked=find_tracked(uri, document["name"], census, traces.names) if uri else None,
        folders=tuple(photo_folders(study, document, name, traces.digests)),
        photos=photos,
    )


def read_document(study: Place) -> dict[str, Any]:
    """``study.yaml``, wherever the study lies.

    Raises:
        UserError: the folder is no study.
    """
    if not (study / "study.yaml").is_file():
        raise UserError(f"{study} is no study: it has no study.yaml; expected a folder such as runs/hull_sizes")
    with local_view(study, lambda path: (checked_name(path) or path) == "study.yaml") as view:
        return read_study_file(view)


def carry_out(plan: Forgetting, say: Callable[[str], None] = lambda text: None) -> list[str]:
    """Remove what was planned; the study must be held (``only_driver``).

    Args:
        say: hears what comes next.

    Returns:
        What is left to be done by somebody else, in words.
    """
    study, traces, tracked = plan.study, plan.traces, plan.tracked
    left: list[str] = []
    if not plan.last and (count := strange_pictures(study, tracked)):
        left.append(
            f"{count} folders of pictures in {study}/mlflow-artifacts, of runs that are not in "
            f"{tracked.shown if tracked else 'any MLflow that was named'}: say with --to which has them"
        )
    if tracked is not None:
        say("runs in MLflow")
        left += remove_runs(tracked, [*tracked.runs, *(tracked.reports if plan.last else ())])
    for folder in plan.folders if plan.photos else ():
        say(f"photos in {folder.photos}")
        remove_photos(folder)
    for what, paths in traces.files.items():
        say(what)
        for path in paths:
            (study / path).unlink(missing_ok=True)
    for folder_name in ("ray", *(f"{kind}/{part}" for kind in KINDS for part in ("drafts", "damaged"))):
        remove_tree(study / folder_name)
    _drop_local_copies(traces.digests)
    store = StudyStore(study)
    for kind, keys in traces.values.items():
        say(kind)
        together(getattr(store, kind).remove, keys, study)
    _rewrite_failures(study, traces.failures)
    say("the report")
    if plan.last:
        _remove_rest(plan)
    else:
        left += _remake_report(plan)
    _remove_comparison(plan)
    if tracked is not None and tracked.database is not None:
        say("free pages of MLflow's database")
        left += vacuum(tracked.database)
    say("study.yaml")
    if plan.last:
        _remove_study_file(plan)
    else:
        write_document(study, without(plan.document, traces.names))
    if not plan.last and names_somebody(str(plan.document.get("description", "")).encode(), traces.names):
        left.append(f"the description in {study / 'study.yaml'} (from the space's file) has the name in it")
    left += forget_in_sessions(plan.document["name"], lambda content: _names_in_files(content, traces.names))
    return left + [
        f"{path} has the name in it; it is not known what that is" for path in still_named(study, traces.names)
    ]


def _names_in_files(content: bytes, names: Collection[str]) -> bool:
    """As ``names_somebody``, also as the name begins a trial's and with that the names of its files."""
    return names_somebody(content, names) or any(f"{_file_name(name)}-".encode() in content for name in names)


def _drop_local_copies(digests: Collection[str]) -> None:
    """Photos that a killed worker on this machine had fetched."""
    if not is_private(node_folder()):
        return
    for copy in node_folder().glob("*/*"):
        if copy.stem in digests:
            copy.unlink(missing_ok=True)


def _rewrite_failures(study: Place, theirs: Collection[str]) -> None:
    if theirs:
        kept = {trial: why for trial, why in _read_json(study / "failures.json").items() if trial not in theirs}
        write_failures(study, kept)


def _remake_report(plan: Forgetting) -> list[str]:
    """Write the report as the study is without the person, and put it in the place of the old one, in MLflow too."""
    study, tracked = plan.study, plan.tracked
    old = list_files(study / "report")
    if not old and not (tracked and tracked.reports):
        return []
    left = []
    with _view(study, without(plan.document, plan.traces.names)) as view:
        try:
            _remake_loss_path(study, view, plan.traces.names)
            build_report(view)
        except UserError as error:
            left.append(f"the report, which could not be made anew ({error}): `python -m clstudy.report`")
        new = list_files(view / "report")
        for path in new:
            write_atomically(study / "report" / path, (view / "report" / path).read_bytes())
        for path in old.keys() - new.keys():
            (study / "report" / path).unlink(missing_ok=True)
        if tracked is not None and tracked.reports:
            left += _replace_report(plan, tracked, view / "report")
    if isinstance(study, Path):
        rmtree(study / _VIEW, ignore_errors=True)
    return left


@contextmanager
def _view(study: Place, document: Mapping[str, Any]) -> Iterator[Path]:
    """A local folder that looks like the study with another ``study.yaml`` and without a report."""
    with local_view(study, lambda path: needed_by_reports(path) and not path.startswith("report/")) as folder:
        view = folder
        if isinstance(study, Path):  # links, in the study itself: people's pictures stay in its storage
            rmtree(study / _VIEW, ignore_errors=True)
            view = study / _VIEW / study.name
            view.mkdir(parents=True)
            for entry in study.iterdir():
                if entry.name not in (_VIEW, "study.yaml", checksum_name("study.yaml"), "report"):
                    (view / entry.name).symlink_to(entry)
        write_document(view, document)
        yield view


def _remake_loss_path(study: Place, view: Path, names: Collection[str]) -> None:
    """The loss path of the others (at the usual tolerance), where it was computed."""
    try:
        rows = pq.read_table(pa.BufferReader((study / "report" / "loss_path.parquet").read_bytes()), schema=PATH_SCHEMA)
    except (OSError, pa.ArrowException):
        return
    kept = rows.filter(pc.invert(pc.is_in(rows["identity"], pa.array(sorted(names)))))
    if kept.num_rows:
        from clstudy.analysis.loss_path_numbers import TOLERANCE
        from clstudy.study.loss_path.results import write_results  # matplotlib only where there is one

        write_results(view, kept, TOLERANCE)


def _replace_report(plan: Forgetting, tracked: Tracked, report: Path) -> list[str]:
    for run in tracked.reports:
        try:
            _remove_artifacts(tracked, run)
        except Exception as error:  # of whatever store the server keeps them in
            return [f"the old report in {tracked.shown} ({type(error).__name__}: {redacted(str(error))})"]
    writer = MlflowWriter(
        tracked.uri, plan.document["name"], artifact_location=artifact_folder(plan.study, tracked.uri)
    )
    if report.is_dir():
        writer.attach_report(report)
    return [f"the new report is not in {tracked.shown}: `python -m clstudy.tracking rebuild`"] if writer.flush() else []


def _remove_rest(plan: Forgetting) -> None:
    """Remove what is left of a study without people, but for ``study.yaml`` and what is not ours."""
    study = plan.study
    remove_tree(study / "report")
    remove_tree(study / "mlflow-artifacts")
    if not plan.traces.strangers:
        for folder in (*KINDS, "results", "search", "logs", "timings", "inputs"):
            remove_tree(study / folder)
        for file in _SUMMARIES:
            if file not in ("study.yaml", LOCK):
                (study / file).unlink(missing_ok=True)


def _remove_study_file(plan: Forgetting) -> None:
    study = plan.study
    remove_checked(study / "study.yaml")
    if isinstance(study, Path) and not plan.traces.strangers:
        (study / LOCK).unlink(missing_ok=True)
        with suppress(OSError):  # something of the user's own lies there
            study.rmdir()


def _remove_comparison(plan: Forgetting) -> None:
    """The page that compares studies (``python -m clstudy.report A B``) shows means that the person is in."""
    page = plan.study.parent / "comparison.html"
    with suppress(FileNotFoundError):
        if names_somebody(page.read_bytes(), [plan.document["name"]]):
            page.unlink()


def still_named(study: Place, names: Collection[str]) -> list[str]:
    """Files that name a person after all: a log of somebody else's, or files that are not ours.

    What was just made without the person is not looked at: a short name is found in many a word of it.
    """
    found = []
    for path, size in sorted(list_files(study).items()):
        made = PurePosixPath(path).parts[0] in (*KINDS, *_SUMMARIES, "report", "mlflow-artifacts", "timings", "inputs")
        if not made and size < _MOST_SEARCHED_BYTES and names_somebody((study / path).read_bytes(), names):
            found.append(str(study / path))
    return found


# --- the command -----------------------------------------------------------------------------------------------------


def forget(
    name: str,
    studies: Sequence[str],
    *,
    to: str | None = None,
    photos: bool = False,
    confirm: Callable[[], bool],
    say: Callable[[str], None] = print,
) -> list[str] | None:
    """Forget a person in one or more studies.

    Args:
        name: of the person, as their photo folder is called.
        studies: folders or URIs.
        to: MLflow's tracking URI, or "none"; None: as the environment says, else the database beside each study.
        photos: also remove their photos from the storage's own data sets.
        confirm: asked once, after everything that will go was said.
        say: hears what goes and how it went.

    Returns:
        What is left to be done by somebody else; None where it was not confirmed.

    Raises:
        UserError: no such study or person, a study in use, or MLflow does not answer. Nothing was removed then.
    """
    places = list(dict.fromkeys(open_place(text).resolve() for text in studies))
    for place in places:
        read_document(place)  # before a lock is made in a folder that is no study
    with ExitStack() as held:
        for place in places:
            held.enter_context(only_driver(place))
        plans = {place: plan_forgetting(name, place, to, photos) for place in places}
        found = [plan for plan in plans.values() if plan is not None]
        if not found:
            known = sorted({one for place in places for one in take_census(place, read_document(place)).people})
            raise UserError(
                f"nobody called {name!r} is in {', '.join(map(str, places))}, so nothing was removed."
                f"{nearest(name, known)} Known: {', '.join(known)}"
            )
        for place, plan in plans.items():
            for line in plan.lines() if plan else [f"{place}: nobody called {name!r}"]:
                say(line)
        if not confirm():
            return None
        left = [what for plan in found for what in carry_out(plan)]
    for sentence in _aftermath(found, photos):
        say(sentence)
    return left


def _aftermath(plans: Sequence[Forgetting], photos: bool) -> list[str]:
    name = plans[0].name
    sets = ", ".join(sorted({repr(str(plan.document.get("data_set"))) for plan in plans}))
    kept = [str(folder.photos) for plan in plans for folder in plan.folders if not photos]
    where = f"in {', '.join(kept)} and " if kept else ""
    return [
        f"{name} is forgotten.",
        f"Not touched: their photos {where}wherever the originals of data set {sets} lie, what `prepare` left beside "
        "them (OUT-report, OUT/.prepare), copies and backups, and exported generators. While a space still names them, "
        "the next `python -m clstudy.run` computes them anew.",
    ]


def run(name: str, studies: Sequence[str], *, to: str | None, photos: bool, yes: bool) -> int:
    """The command; returns its exit code.

    Raises:
        UserError: as ``forget``, or there is nobody to ask.
    """

    def confirm() -> bool:
        if yes:
            return True
        if not sys.stdin.isatty():
            raise UserError("this cannot be undone and there is nobody to ask; add --yes. Nothing was removed")
        return input("Remove all of this for good? [y/N] ").strip().lower() in ("y", "yes")

    try:
        left = forget(name, studies, to=to, photos=photos, confirm=confirm)
    except OSError as error:
        raise UserError(f"stopped: {error}. The same command goes on from here") from error
    if left is None:
        print("nothing was removed")
        return 2
    for what in left:
        print(f"left: {what}", file=sys.stderr)
    return 1 if left else 0
