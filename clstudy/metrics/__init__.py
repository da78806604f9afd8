"""Metrics: one short file each, registered by name. This line list is where a new metric is added.

Importing the package itself stays free of torch, because the analysis needs ``clstudy.settings.metric_directions``
only.
"""

from __future__ import annotations

from importlib import import_module

_MODULES = ("lpips", "lpips_eyes_mouth", "identity", "psnr", "dists", "fid", "kid", "as_published")


def load_metrics() -> None:
    """Import every metric module so that it registers itself."""
    for module in _MODULES:
        import_module(f"{__name__}.{module}")
