"""The options of one run of a study, as ``python -m clstudy.run`` takes them, checked."""

from __future__ import annotations

import math
from dataclasses import dataclass

from clstudy.errors import UserError


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """One run of the main job. None, empty or False mean: as the space and its profile say.

    Args:
        space: packaged search space, or path of a YAML file.
        data: data set or photo folder, instead of the space's.
        identities: how many, or names separated by commas.
        seeds: separated by commas.
        timestamps: per identity.
        variant: of a space that has some.
        profile: instead of the space's.
        weights: FOLDER or ROLE=FILE, where weights from outside the package are.
        settings: SECTION.NAME=VALUE, settings of the profile.
        without: metrics to leave out, separated by commas.
        as_published: score some metrics the published scripts' way, too.
        device: ``cpu`` or ``cuda``.
        gpu_share: share of a GPU per trial, in (0, 1].
        precision: a name of ``clstudy.settings.precision.PRECISIONS``.
        compile: torch.compile for the synthesis network.
        activation_checkpointing: recompute activations instead of keeping them.
        storage: folder or URI that holds studies.
        out: the study's own folder or URI.
        keep_weights: a policy of ``clstudy.study.retention``.
        alone: take nothing over from other studies in the same storage.
        mlflow_images: pictures in MLflow; None: as the profile says.
        budget_hours: wall-clock hours.
        price_per_hour: of one GPU, or of one core if trials use no GPU.
        pilot: compute one stage only.
        max_concurrent: trials at a time.
        address: of a running Ray cluster; None: this machine.
        dry_run: plan and stop; nothing is written.
        yes: start a study of any size, even beyond its budget.

    Raises:
        UserError: no space, a count below 1, or a share, budget or price out of its range; names the option.
    """

    space: str
    data: str | None = None
    identities: str | None = None
    seeds: str | None = None
    timestamps: int | None = None
    variant: str | None = None
    profile: str | None = None
    weights: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    as_published: bool = False
    device: str | None = None
    gpu_share: float | None = None
    precision: str | None = None
    compile: bool = False
    activation_checkpointing: bool = False
    storage: str | None = None
    out: str | None = None
    keep_weights: str | None = None
    alone: bool = False
    mlflow_images: bool | None = None
    budget_hours: float | None = None
    price_per_hour: float | None = None
    pilot: bool = False
    max_concurrent: int | None = None
    address: str | None = None
    dry_run: bool = False
    yes: bool = False

    def __post_init__(self) -> None:
        if not self.space:
            raise UserError("no search space given; use --space hull_sizes, or --list to see what there is")
        for option, count in (("--max-concurrent", self.max_concurrent), ("--timestamps", self.timestamps)):
            if count is not None and count < 1:
                raise UserError(f"{option} is {count}; expected at least 1")
        if self.gpu_share is not None and not 0 < self.gpu_share <= 1:
            raise UserError(f"--gpu-share is {self.gpu_share}; expected a share of one GPU, above 0 and at most 1")
        for option, number in (("--budget-hours", self.budget_hours), ("--price-per-hour", self.price_per_hour)):
            if number is not None and not (math.isfinite(number) and number > 0):
                raise UserError(f"{option} is {number}; expected a number above 0")
        if self.out and self.storage:
            raise UserError(
                "--out and --storage are both given; --storage FOLDER puts the study into FOLDER/<space name>"
            )
