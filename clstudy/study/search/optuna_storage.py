"""Opens the Optuna storage of a search, and the Optuna study of each of its cells."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy.exc import IntegrityError, OperationalError

from clstudy.errors import UserError

_SETTINGS = "clstudy.settings"

_CREATION_TRIES = 40
_CREATION_PAUSE = 0.05
"""Seconds between two tries to open a storage that another process is creating."""


def open_storage(url: str) -> RDBStorage:
    """Open or create the storage at a SQLAlchemy URL, e.g. ``sqlite:///…``.

    Another process (a second driver, a dashboard) may be creating it at the same time: Optuna looks whether a table is
    there and creates it in two steps, so one of them finds a table it did not expect. What is there then is whole or
    becomes so, and opening it again completes it.

    Raises:
        UserError: it is damaged, or its folder does not exist.
    """
    # a dashboard locks a SQLite file only for moments while it reads; the default gives up after 5 s
    waiting = {"connect_args": {"timeout": 60}} if url.startswith("sqlite:") else {}
    for tries_left in reversed(range(_CREATION_TRIES)):
        try:
            return RDBStorage(url, engine_kwargs=waiting)
        except Exception as error:  # SQLAlchemy's, Alembic's and Optuna's own, of many kinds
            if not tries_left or not _is_being_created(error):
                raise damaged_storage(url, error) from error
        time.sleep(_CREATION_PAUSE)
    raise AssertionError("the last try returns or raises")


def _is_being_created(error: Exception) -> bool:
    """Whether a table or its first row was created by another process after this one had looked for it."""
    return isinstance(error, IntegrityError) or (isinstance(error, OperationalError) and "already exists" in str(error))


def damaged_storage(url: str, error: Exception) -> UserError:
    """The error to raise when a storage cannot be used: the storage's own message, and what to do."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
    return UserError(
        f"{url} cannot be opened as an Optuna storage ({reason}); expected the file of an earlier search, or none in a "
        "folder that exists. Move the file away and run the same command again: the search proposes the same rates, "
        "and their finished stages are used again"
    )


def open_study(
    storage: BaseStorage, name: str, sampler: BaseSampler, pruner: BasePruner, settings: Mapping[str, Any]
) -> optuna.Study:
    """Open or create the study of one cell.

    Raises:
        UserError: it exists with other settings.
    """
    with _quiet():
        study = optuna.create_study(
            storage=storage, study_name=name, sampler=sampler, pruner=pruner, direction="minimize", load_if_exists=True
        )
    found = study.user_attrs.get(_SETTINGS)
    if found is None and not study.get_trials(deepcopy=False):
        study.set_user_attr(_SETTINGS, dict(settings))
    elif found != settings:
        there = found or {}
        differing = "; ".join(
            f"{key} {there.get(key)!r} there, {value!r} now"
            for key, value in settings.items()
            if there.get(key) != value
        )
        raise UserError(
            f"the Optuna storage holds a search {name!r} with other settings ({differing}), whose objectives cannot be "
            "compared. Choose another study folder with --out, or move the storage's file away: finished stages that "
            "still hold are used again"
        )
    return study


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna from printing a line to stderr for every study that it creates."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(before, optuna.logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
