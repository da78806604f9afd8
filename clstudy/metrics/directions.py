"""Which way each metric points; importable without torch (the analysis needs nothing else)."""

from __future__ import annotations

HIGHER_IS_BETTER: dict[str, bool] = {
    "lpips": False,
    "lpips_eyes_mouth": False,
    "id": True,
    "psnr": True,
    "dists": False,
    "fid": False,
    "kid": False,
}
"""metric name -> True where a higher value is better."""
