"""Ray for as long as a study runs: starts or joins it, sets up its folders, and tidies up after it."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import ray

from clstudy.cluster.nodes import ask_nodes, living_nodes, ray_complaint
from clstudy.cluster.ray_folder import keep_logs, private_folder, remove_experiment
from clstudy.cluster.study_settings import StudySettings
from clstudy.errors import UserError
from clstudy.settings.instruction_sets import INSTRUCTION_SETS
from clstudy.storage.content_addressed_store import digest_of
from clstudy.storage.places import Place
from clstudy.storage.trees import remove_tree
from clstudy.study.privacy.ray_sessions import experiment_name
from clstudy.tracking.telemetry import SWITCHES, without_ray_dashboard_process

TIDY_SECONDS = 60.0
"""The longest that tidying up on the nodes may take."""

_MMAP_THRESHOLD, _TRIM_THRESHOLD = 2**25, 2**30
"""Bytes: glibc takes no larger first one; the second says how much free memory a worker may keep."""


def start_ray(
    address: str | None, folder: Path | None = None, environment: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Connect to a cluster, or start Ray on this machine without its dashboard.

    Args:
        folder: folder of the session on this machine (None: Ray's default).
        environment: variables of the workers' processes.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # ours lets the stages in flight finish
    # an autoscaler adds nodes for trials that wait for a worker; with a searcher Tune would show it only one
    os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", "32")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the newer console prints a box even when told to be silent
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "ignore_reinit_error": True}
    if address is None:
        # Ray's ports accept whoever has the token. One made by this process needs no file in the home folder (which may
        # be missing or not writable), and no other run has it.
        named = any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
        if not named and os.environ.get("RAY_AUTH_MODE", "").lower() != "disabled":
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        # "local": without it Ray would join whatever cluster happens to run on this machine
        own = None if folder is None else str(folder)
        try:
            with without_ray_dashboard_process():
                given = {"env_vars": dict(environment)} if environment else None
                ray.init(address="local", include_dashboard=False, _temp_dir=own, runtime_env=given, **quiet)
        except OSError as error:
            raise UserError(
                f"Ray cannot start on this machine ({error}); it keeps its files in the system's temporary folder: "
                "free space or fix the permissions there, or name another folder with RAY_TMPDIR"
            ) from error
        return
    # checked first, in a process of its own: at a wrong address Ray tries for minutes, without a token it aborts
    complaint = ray_complaint(address)
    try:
        if complaint is None:
            raise ConnectionError("nothing answers")
        if complaint:
            raise ConnectionError(complaint)
        # the nodes' workers get the environment that Ray was started in there, and import libraries before our code
        ray.init(address=address, runtime_env={"env_vars": {**SWITCHES, **environment}}, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:  # nobody there; another Ray or Python; a wrong address
        raise UserError(
            f"no Ray cluster can be used at {address!r} ({error}); start one with `ray up cluster.yaml` or `ray start "
            "--head`, with the same Ray and Python as here, or leave --address out to run on this machine"
        ) from error


@dataclass
class RaySession:
    """Where Tune keeps its records (None: in the study, which all nodes see), and whether to keep Ray's logs."""

    scratch: Path | None
    keep_logs: bool = False


def _allocator() -> dict[str, str]:
    """Variables by which the C library of a worker keeps the memory of freed tensors, unless the user has set others.

    A training step frees and allocates some hundred tensors of a megabyte. By default glibc gives such memory back to
    the system, which then clears every page anew: 3 to 10% of the step's time.
    """
    wanted = {"MALLOC_MMAP_THRESHOLD_": str(_MMAP_THRESHOLD), "MALLOC_TRIM_THRESHOLD_": str(_TRIM_THRESHOLD)}
    return {} if wanted.keys() & os.environ.keys() else wanted


@contextmanager
def ray_session(settings: StudySettings) -> Iterator[RaySession]:
    """Run Ray while the block runs, and leave nothing of it behind but the logs of a run that went wrong.

    On one machine Ray's session gets a folder of its own, which is removed; of a cluster's session only the study's
    part is.
    """
    environment = {**_allocator(), **INSTRUCTION_SETS[settings.basis.profile.compute.instruction_set].environment}
    if settings.address is not None:
        start_ray(settings.address, environment=environment)
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
            start_ray(None, folder, environment)
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
    """The token that names the folders a study has outside of its own."""
    return digest_of({"study": str(out)})[:16]
