"""Switches that keep the libraries we use from reporting to their makers. Standard library only.

Importing ``clstudy`` sets them, so every entry point, test and worker has them before such a library is imported. They
are set whatever the environment says: a run is promised to need no network, and photos of people are at work in it.
``cluster.yaml`` and ``cluster.local.yaml`` set the same ones for what runs on nodes before any of our code.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

SWITCHES: Mapping[str, str] = MappingProxyType(
    {
        # onnxruntime: else its import leaves a device ID below the cache folder, and its threads look for a collector
        "ORT_DISABLE_TELEMETRY": "1",
        # MLflow: else its import leaves an installation ID below the configuration folder, and it asks what to report
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # Ray: usage statistics; `ray start` still reports that they are off, so the report goes to a closed local port
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_USAGE_STATS_REPORT_URL": "http://127.0.0.1:9/",
        # albumentations, which insightface brings: else its import asks PyPI for a newer version
        "NO_ALBUMENTATIONS_UPDATE": "1",
    }
)
"""Environment variable -> the value that means "say nothing"."""


def switch_off() -> None:
    """Set all switches in this process and for those it starts."""
    os.environ.update(SWITCHES)


@contextmanager
def without_ray_dashboard_process() -> Iterator[None]:
    """Let a local ``ray.init`` start no dashboard process.

    With ``include_dashboard=False`` Ray 2.60 starts it all the same, for usage statistics alone; when these are off it
    still asks three cloud providers' metadata services which cloud this is (``UsageStatsHead.run``), and no setting
    stops that. A Ray without this function is left as it is.
    """
    from ray._private import services

    start = getattr(services, "start_api_server", None)
    if start is None:
        yield
        return

    def not_started(*_: Any, **__: Any) -> tuple[str, None]:
        return "", None  # what Ray's own function returns as the address where there is no page to look at

    services.start_api_server = not_started
    try:
        yield
    finally:
        services.start_api_server = start
