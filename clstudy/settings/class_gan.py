"""Settings of the workload ``class_gan``: networks, losses and steps of a class-conditional GAN."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from clstudy.settings.profile_sections import DataSettings, EvaluationSettings, Profile

_Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True)
class ClassGANSettings:
    """A class-conditional GAN that learns one category after the other (Wu et al., 1809.02058).

    ``classes``: how many categories there are in all. ``z_dim``: numbers of a latent besides its class. ``width``:
    channels of the generator's last layer; others have 2 and 4 times as many. ``adversarial``: "wgan_gp" (Gulrajani et
    al., 1704.00028) or "non_saturating" (Goodfellow et al., 1406.2661). ``gradient_penalty``: its weight, with
    "wgan_gp". ``critic_steps`` of the critic for each of the generator. ``steps`` of the generator for each category.
    ``batch_size`` and ``replay_batch_size``: new and replayed images in a step. ``betas`` of Adam.
    ``class_weight``: of the auxiliary classifier's loss. ``scored_images``: generated of each category to be scored.
    ``reverse_steps``: training steps of the classifier that learns from generated images alone (64 in a step).
    """

    classes: Annotated[int, Field(ge=2, le=1000)] = 10
    z_dim: _Count = 128
    width: _Count = 32
    adversarial: Literal["wgan_gp", "non_saturating"] = "wgan_gp"
    gradient_penalty: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 10.0
    critic_steps: _Count = 5
    steps: _Count = 4001
    batch_size: _Count = 64
    replay_batch_size: _Count = 64
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.0, 0.9)
    class_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    scored_images: Annotated[int, Field(ge=2)] = 200
    reverse_steps: _Count = 400


@dataclass(frozen=True, kw_only=True)
class ClassGANProfile(Profile):
    """A profile with the section ``class_gan``.

    Of ``evaluation.metrics`` only those of sets of generated images (fid, kid) are computed, where their file is there,
    beside the workload's own scores, which are always; psnr stands for these, since the list must not be empty.
    """

    workload: str = "class_gan"
    generator: str = "image_classifier"
    weights: str | None = None
    required_files: tuple[str, ...] = ("classifier",)
    data: DataSettings = field(
        default_factory=lambda: DataSettings(name="digits", timestamps=10, train=600, test=100, image_size=32)
    )
    optional_files: tuple[str, ...] = ("inception",)
    evaluation: EvaluationSettings = field(default_factory=lambda: EvaluationSettings(metrics=("psnr", "fid", "kid")))
    class_gan: ClassGANSettings = field(default_factory=ClassGANSettings)
