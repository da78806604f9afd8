"""Which metrics need weights files from outside the package; importable without torch (the plan needs no more).

Roles and where their files come from: ``clstudy.model_files.ROLES``. A metric whose file is absent cannot be made
(``clstudy.metrics.base.Metric``): nothing is ever computed with random weights.
"""

from __future__ import annotations

NEEDED_FILES: dict[str, tuple[str, ...]] = {
    "dists": ("dists",),
    "fid": ("inception",),
    "kid": ("inception",),
    "id_as_published": ("ir_se_50",),
    "dists_as_published": ("dists",),
}
"""metric name -> roles without which the metric cannot be computed; metrics that are not here need none."""
