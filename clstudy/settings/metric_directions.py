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

AS_PUBLISHED: dict[str, str] = {name: f"{name}_as_published" for name in ("lpips", "id", "psnr", "dists")}
"""metric -> the same metric scored the published scripts' way (``clstudy.metrics.as_published``)."""

ORDINARY: dict[str, str] = {twin: name for name, twin in AS_PUBLISHED.items()}
"""The other way round."""

HIGHER_IS_BETTER |= {twin: HIGHER_IS_BETTER[name] for name, twin in AS_PUBLISHED.items()}
