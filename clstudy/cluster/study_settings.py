"""The settings of a study's run: its space and data, where it writes, and how many workers it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from clstudy.generators.base import GeneratorWeights
from clstudy.identities.dataset import DataSet
from clstudy.settings.space import SearchSpace
from clstudy.storage.places import Place
from clstudy.trial.requests import Basis


@dataclass(frozen=True, kw_only=True)
class StudySettings:
    """Where and with how many workers a study runs.

    ``files`` are the weights from outside the package, by role; ``weights`` are those of the generator if they have
    been read already. ``part`` is the folder for the trials' rows (a learning-rate search has one of its own).
    ``others``: studies to take finished stages over from.
    ``budget_seconds``: no stage begins after this time. ``most_stages``: stop after this many computed stages.
    ``tracking_patience_s``: how long to wait at the end for a tracking server that does not answer.
    """

    space: SearchSpace
    basis: Basis
    data: DataSet
    out: Place
    tracking_uri: str
    experiment: str
    files: Mapping[str, Path] = field(default_factory=dict)
    weights: GeneratorWeights | None = None
    address: str | None = None
    max_concurrent: int | None = None
    part: str = "results"
    keep_weights: str = "last"
    others: tuple[Place, ...] = ()
    budget_seconds: float | None = None
    most_stages: int | None = None
    images: bool = True
    tracking_patience_s: float = 60.0
