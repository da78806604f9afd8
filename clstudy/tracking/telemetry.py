"""Switches that keep the libraries we use from reporting to their makers. Standard library only.

Importing ``clstudy`` sets them, so every entry point, test and worker has them before such a library is imported. They
override the environment, because a run promises to need no network, and works on photos of people. ``cluster.yaml`` and
``cluster.local.yaml`` set the same ones for what runs on nodes before any of our code.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

SWITCHES: Mapping[str, str] = MappingProxyType(
    {
        # onnxruntime: otherwise importing it leaves a device ID in the cache folder, and threads contact a collector
        "ORT_DISABLE_TELEMETRY": "1",
        # MLflow: otherwise importing it writes an installation ID to the configuration folder, and it asks what to send
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # Ray: usage statistics; `ray start` still reports that they are off, so the report goes to a closed local port
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_USAGE_STATS_REPORT_URL": "http://127.0.0.1:9/",
        # albumentations, a dependency of insightface: otherwise importing it asks PyPI for a newer version
        "NO_ALBUMENTATIONS_UPDATE": "1",
    }
)
"""Environment variable -> the value that switches reporting off."""


def switch_off() -> None:
    """Set all switches in this process and for the processes it starts."""
    os.environ.update(SWITCHES)


@contextmanager
def without_ray_dashboard_process() -> Iterator[None]:
    """Keep a local ``ray.init`` from starting a dashboard process while the block runs.

    Even with ``include_dashboard=False`` Ray 2.60 starts it, for usage statistics alone; with these switched off it
    still asks three cloud providers' metadata services which cloud this is (``UsageStatsHead.run``), and no setting
    prevents that. A version of Ray without the function replaced here is left as it is.
    """
    from ray._private import services

    start = getattr(services, "start_api_server", None)
    if start is None:
        yield
        return

    def not_started(*_: Any, **__: Any) -> tuple[str, None]:
        return "", None  # the address that Ray's own function returns without a dashboard page

    services.start_api_server = not_started
    try:
        yield
    finally:
        services.start_api_server = start
