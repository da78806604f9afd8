"""Ray for as long as a study runs: starting or joining it, its folders, and what of it stays."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from clstudy.cluster.nodes import ask_nodes, living_nodes, ray_complaint
from clstudy.cluster.ray_folder import keep_logs, private_folder, remove_experiment
from clstudy.cluster.study_settings import StudySettings
from clstudy.errors import UserError
from clstudy.storage.content_addressed_store import digest_of
from clstudy.storage.places import Place
from clstudy.storage.trees import remove_tree
from clstudy.study.privacy.ray_sessions import experiment_name
from clstudy.tracking.telemetry import SWITCHES, without_ray_dashboard_process

TIDY_SECONDS = 60.0
"""Most that tidying up on the nodes may take."""


def start_ray(address: str | None, folder: Path | None = None) -> None:
    """Connect to a cluster, or start Ray on this machine without its dashboard.

    Args:
        folder: of the session, on this machine (None: Ray's own).
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # ours lets the stages in flight finish
    # trials that wait for a worker are what an autoscaler sees; with a searcher Tune would show it one at a time
    os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", "32")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the newer console prints a box even when told to be silent
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "ignore_reinit_error": True}
    if address is None:
        # Ray's ports let in whoever has the token. One of this process's own needs no file in the home folder (which
        # may not be there, or not be ours to write), and no other run knows it.
        named = any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
        if not named and os.environ.get("RAY_AUTH_MODE", "").lower() != "disabled":
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        # "local": without it Ray would join whatever cluster happens to run on this machine
        own = None if folder is None else str(folder)
        try:
            with without_ray_dashboard_process():
                ray.init(address="local", include_dashboard=False, _temp_dir=own, **quiet)
        except OSError as error:
            raise UserError(
                f"Ray cannot start on this machine ({error}); it keeps its files in the system's temporary folder: "
                "make room and rights there, or name another folder with RAY_TMPDIR"
            ) from error
        return
    # asked first, in a process of its own: at a wrong address Ray tries for minutes, without a token it aborts
    complaint = ray_complaint(address)
    try:
        if complaint is None:
            raise ConnectionError("nothing answers")
        if complaint:
            raise ConnectionError(complaint)
        # the nodes' workers are started by somebody else's environment, and import libraries before our code
        ray.init(address=address, runtime_env={"env_vars": dict(SWITCHES)}, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:  # nobody there; another Ray or Python; a wrong address
        raise UserError(
            f"no Ray cluster can be used at {address!r} ({error}); start one with `ray up cluster.yaml` or `ray start "
            "--head`, with the same Ray and Python as here, or leave --address out to run on this machine"
        ) from error


@dataclass
class RaySession:
    """Where Tune may keep its records (None: in the study, which all nodes see), and whether to keep Ray's logs."""

    scratch: Path | None
    keep_logs: bool = False


@contextmanager
def ray_session(settings: StudySettings) -> Iterator[RaySession]:
    """Ray for as long as the block runs, and nothing of it afterwards but the logs of a run that went wrong.

    On one machine its folder is our own; of a cluster's only the study's part goes.
    """
    if settings.address is not None:
        start_ray(settings.address)
        try:
            yield RaySession(None)
            name = tune_experiment(settings)
            with suppress(Exception):  # tidying up must not lose a study's end
                ask_nodes(living_nodes(), lambda label: remove_experiment(name), TIDY_SECONDS)
        finally:
            ray.shutdown()
            remove_tree(settings.out / "ray")
        return
    with private_folder() as folder:
        session = RaySession(folder / "tune")
        try:
            start_ray(None, folder)
            yield session
        except Exception:
            session.keep_logs = True
            raise
        finally:
            ray.shutdown()
            remove_tree(settings.out / "ray")
            if session.keep_logs:
                with suppress(OSError):
                    keep_logs(folder, settings.out / "ray" / "logs")


def tune_experiment(settings: StudySettings) -> str:
    return experiment_name(study_token(settings.out.resolve()))


def study_token(out: Place) -> str:
    """Names a study's own folders outside of it."""
    return digest_of({"study": str(out)})[:16]
