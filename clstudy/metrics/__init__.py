"""Metrics: one short file each, registered by name. ``MODULES`` is where a new one is added.

Importing the package itself stays free of torch. Facts that are needed without torch are parsed from the files listed
here (``clstudy.settings.metric_facts``), whose order is also that of a study's tables.
"""

from __future__ import annotations

from importlib import import_module

MODULES = ("lpips", "identity", "lpips_eyes_mouth", "psnr", "dists", "fid", "kid", "as_published")


def load_metrics() -> None:
    """Import every metric module so that it registers itself."""
    for module in MODULES:
        import_module(f"{__name__}.{module}")
