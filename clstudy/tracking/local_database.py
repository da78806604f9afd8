"""MLflow's database in a local SQLite file: its address, creating and opening it, and the folder of its images."""

from __future__ import annotations

import logging
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient

_SQLITE = "sqlite:///"


def sqlite_uri(file: Path) -> str:
    """Return the tracking URI of a local database file (created on first use)."""
    return f"{_SQLITE}{file.expanduser().resolve()}"


def quiet_client(uri: str) -> MlflowClient:
    """Return a client that fails fast and does not narrate its database migrations."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    from mlflow import MlflowClient  # after the variables above; takes seconds, so not when this module is imported

    for name in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if (file := local_database(uri)) is not None and database_file(uri) is None:
        _create_database(file)
    return MlflowClient(tracking_uri=uri)


def database_file(uri: str) -> tuple[int, int] | None:
    """Identity of a local database's file (device and inode); None if it is missing or empty, or for a server."""
    if (file := local_database(uri)) is None:
        return None
    try:
        found = file.stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if found.st_size else None


def close_connections(client: MlflowClient) -> None:
    """Close all connections to a database: MLflow keeps one pool per address, even if the file is replaced."""
    with suppress(Exception):  # not a public interface; if it fails, SQLite refuses to write to the deleted file
        client._tracking_client.store.engine.dispose()


def _create_database(file: Path) -> None:
    """Create a new database completely or not at all.

    MLflow builds its tables in some forty migrations, which take seconds; killed in the middle, it leaves a file that
    it never opens again ("table … already exists").
    """
    from mlflow import MlflowClient

    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".mlflow-", dir=file.parent) as folder:
        draft = Path(folder) / "new.db"
        MlflowClient(tracking_uri=sqlite_uri(draft)).search_experiments(max_results=1)
        try:
            os.link(draft, file)
        except FileExistsError:
            if file.stat().st_size == 0:  # SQLite leaves an empty file if the database is deleted while open
                os.replace(draft, file)
            # otherwise another process has created it meanwhile


def local_database(uri: str) -> Path | None:
    """Return the file of a local database; None for a server."""
    return Path(uri.removeprefix(_SQLITE)) if uri.startswith(_SQLITE) else None


def images_beside(uri: str) -> Path | None:
    """Return a folder for images beside a local database; MLflow's default is the current directory."""
    file = local_database(uri)
    return None if file is None else file.parent / "mlflow-images"
