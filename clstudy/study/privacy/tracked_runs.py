"""Finds a person's runs in MLflow and removes them with their pictures."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from clstudy.errors import UserError
from clstudy.safe_text import printable, redacted, shown_address
from clstudy.storage.places import Place, RemotePath
from clstudy.study.privacy.census import Census
from clstudy.tracking.local_database import quiet_client, sqlite_uri
from clstudy.tracking.run_contents import REPORT_TAG, TRIAL_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


NO_TRACKING = "none"
"""Given instead of MLflow's URI: leave MLflow alone."""

_SQLITE = "sqlite:///"


@dataclass(frozen=True, kw_only=True)
class Tracked:
    """A person's runs in MLflow, deleted ones too, the runs that hold the study's report, and the ids of all runs."""

    uri: str
    client: MlflowClient
    runs: tuple[Run, ...]
    reports: tuple[Run, ...]
    known: frozenset[str]

    @property
    def shown(self) -> str:
        """MLflow's address without secrets."""
        return shown_address(self.uri)

    @property
    def hard_delete(self) -> Callable[[str], None] | None:
        """Removes a run for good; only possible if the database itself was named, not a server.

        Not ``mlflow gc``: besides the given runs, it empties the bin of all experiments and models.
        """
        return getattr(self.client._tracking_client.store, "_hard_delete_run", None)

    @property
    def database(self) -> Path | None:
        """The file of a local database."""
        return Path(self.uri.removeprefix(_SQLITE).partition("?")[0]) if self.uri.startswith(_SQLITE) else None


def tracking_uri(study: Place, given: str | None) -> str | None:
    """The study's tracking URI: as given, from the environment, or the database beside the study; None: there is none.

    Raises:
        UserError: a database was named that does not exist.
    """
    if given == NO_TRACKING:
        return None
    uri = given or os.environ.get("MLFLOW_TRACKING_URI")
    if uri:
        if "://" not in uri:
            raise UserError(
                f"{uri!r} is not a tracking URI; expected sqlite:///FILE or http://…, or {NO_TRACKING} to leave MLflow "
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
    """Folders of pictures in a study that belong to no run of this MLflow, so that their person is not known."""
    folder = study / "mlflow-artifacts"
    there = {path.name for path in folder.iterdir()} if isinstance(folder, Path) and folder.is_dir() else set()
    return len(there - (tracked.known if tracked else frozenset()))


def _all_runs(client: MlflowClient, experiment: str) -> Iterator[Run]:
    from mlflow.entities import ViewType

    # a study's name has neither spaces nor brackets, so these do not belong to another study
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


def remove_pictures(tracked: Tracked, run: Run) -> None:
    """Remove a run's pictures and other artifacts; raises whatever their store raises."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    artifacts = get_artifact_repository(run.info.artifact_uri, tracking_uri=tracked.uri)
    artifacts.delete_artifacts()  # type: ignore[no-untyped-call]  # of MLflow
    parts = urlsplit(run.info.artifact_uri)
    folder = Path(unquote(parts.path)).parent
    if parts.scheme == "file" and folder.name == run.info.run_id:
        with suppress(OSError):
            folder.rmdir()


def remove_runs(tracked: Tracked, runs: Sequence[Run]) -> list[str]:
    """Remove runs with their pictures; returns what could not be done, in words.

    Pictures are removed first: afterwards nothing would say where they are.
    """
    left = []
    stuck: dict[str, int] = {}
    for run in runs:
        try:
            remove_pictures(tracked, run)
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
    """Rewrite a SQLite file without its free pages, which still hold deleted rows; returns what is left to do."""
    try:
        connection = sqlite3.connect(database, timeout=patience_s)
        try:
            connection.execute("VACUUM")
        finally:
            connection.close()
    except sqlite3.Error as error:
        return [f"deleted rows in the free pages of {database} ({error}): close whatever uses it and run this again"]
    return []
