"""Addresses of tracking: the database or server, the pages to open in a browser, and the folder of images."""

from __future__ import annotations

import json
import os
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

from clstudy.storage.documents import MOST_JSON_BYTES, load_json
from clstudy.storage.places import Place, read_plain, write_atomically
from clstudy.tracking.local_database import sqlite_uri


def tracking_address(home: Path) -> str:
    """Return the environment's tracking URI, otherwise that of the database in a local folder of studies."""
    return os.environ.get("MLFLOW_TRACKING_URI") or sqlite_uri(home / "mlflow.db")


LOCAL_SERVER = "http://127.0.0.1:5000"
"""Where ``mlflow ui`` listens."""
TRACKED = "tracked.json"
"""In a study's folder: the id of its experiment, for the address of its runs in the report."""


def runs_page(address: str, experiment_id: str | None) -> str:
    """Return the page of a tracking server that lists an experiment's runs; without an id, the server's first page.

    MLflow 3 opens the experiment itself on an overview of GenAI traces, which is empty here; no tag changes that.
    """
    server = address.rstrip("/")
    return server if experiment_id is None else f"{server}/#/experiments/{quote(experiment_id, safe='')}/runs"


def server_address(tracking_uri: str) -> str | None:
    """Address of a tracking server for a browser, without credentials; None for a local database."""
    if not tracking_uri.startswith("http"):
        return None
    parts = urlsplit(tracking_uri)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def keep_address(study: Place, tracking_uri: str, experiment_id: str | None) -> None:
    """Write ``tracked.json``, without a server's credentials; does nothing if the server did not answer."""
    if experiment_id is None:
        return
    document = {"experiment_id": experiment_id, "server": server_address(tracking_uri)}
    write_atomically(study / TRACKED, (json.dumps(document) + "\n").encode())


def tracked_at(study: Place) -> tuple[str, str | None] | None:
    """Experiment id and server (None: a local database) of a study; None if the file is not there, or is another."""
    try:
        document = load_json(read_plain(study / TRACKED, MOST_JSON_BYTES))
        experiment, server = document["experiment_id"], document["server"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return (experiment, server) if isinstance(experiment, str) and isinstance(server, str | None) else None


def artifact_folder(study: Place, tracking_uri: str) -> Path | None:
    """Folder of a study's images in MLflow: inside the study for a local database; None if a server chooses it."""
    if isinstance(study, Path) and tracking_uri.startswith("sqlite:"):
        return (study / "mlflow-artifacts").resolve()
    return None
