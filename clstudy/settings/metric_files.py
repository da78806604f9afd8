"""Files from outside the package that metrics need. Importable without torch, because the plan needs it.

A metric's class says which files it needs (``needs``). ``clstudy.assets.model_files.ROLES`` defines the roles and where
their files come from. A metric cannot be constructed without its file (``clstudy.metrics.base.Metric``), so nothing is
ever computed with random weights.

Some metrics can be computed by more than one library ("backends"), and some of those need files of their own.
"""

from __future__ import annotations

from clstudy.errors import UserError, nearest
from clstudy.registry import is_foreign
from clstudy.settings.metric_facts import own_facts, packaged_metrics
from clstudy.settings.profiles import EvaluationSettings

BACKENDS: dict[str, tuple[str, ...]] = {"lpips": ("packaged", "lpips"), "id": ("onnxruntime", "insightface")}
"""metric name -> backends that can compute it (setting ``<metric>_backend``), the default first."""

LPIPS_NETWORKS: dict[str, str | None] = {"alex": None, "vgg": "lpips_vgg", "squeeze": "lpips_squeeze"}
"""network of LPIPS -> role of its ImageNet weights; None if they are in the package."""


def needed_files(metric: str) -> tuple[str, ...]:
    """Roles of files without which a metric (named as in settings) cannot be computed.

    Raises:
        UserError: a metric of the user's own cannot be imported.
    """
    return (own_facts(metric) if is_foreign(metric) else packaged_metrics()[metric]).needs


def check_backends(evaluation: EvaluationSettings) -> None:
    """Refuse backend settings that cannot be computed.

    Raises:
        UserError: a backend or network is unknown, or the backend does not have the network.
    """
    for metric, known in BACKENDS.items():
        _require_known(f"evaluation.{metric}_backend", getattr(evaluation, f"{metric}_backend"), known)
    network = evaluation.lpips_network
    _require_known("evaluation.lpips_network", network, tuple(LPIPS_NETWORKS))
    if evaluation.lpips_backend == "packaged" and network != "alex":
        raise UserError(
            f"evaluation.lpips_network is {network!r}, and the packaged LPIPS has the network 'alex' only; set "
            "evaluation.lpips_backend to 'lpips' (the official package), or leave the network at 'alex'"
        )


def _require_known(setting: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        listed = ", ".join(map(repr, known))
        raise UserError(f"{setting} is {value!r}; expected one of {listed}.{nearest(value, known)}")


def required_by_settings(evaluation: EvaluationSettings) -> dict[str, tuple[str, ...]]:
    """metric name -> roles that the metric needs because of the backend that computes it.

    Raises:
        UserError: as ``check_backends``.
    """
    check_backends(evaluation)
    role = LPIPS_NETWORKS[evaluation.lpips_network]
    return {"lpips": (role,)} if role is not None and "lpips" in evaluation.metrics else {}


def used_by_settings(evaluation: EvaluationSettings) -> tuple[str, ...]:
    """Roles of files that these metrics and their backends use if the files are there.

    A metric without its files is left out. insightface reads packs of networks; without one it uses the packaged
    embedder.
    """
    files = [role for name in evaluation.metrics for role in needed_files(name)]
    return *dict.fromkeys(files), *_packs(evaluation)


def _packs(evaluation: EvaluationSettings) -> tuple[str, ...]:
    return ("arcface",) if evaluation.id_backend == "insightface" and "id" in evaluation.metrics else ()
