"""The workload ``personalise``: tune a generator to a person's photos, score it by inverting unseen ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clstudy.settings.profiles import Profile
from clstudy.workloads.base import WORKLOADS, Objective, WorkloadKind

if TYPE_CHECKING:
    import torch

    from clstudy.generators.base import GeneratorWeights
    from clstudy.workloads.personalised_generator import PersonalisedGenerator


class PersonaliseKind(WorkloadKind):
    """Photos as anchored latents, LPIPS + MSE, test-time inversion (protocol, steps 1 to 5)."""

    description = "tune a generator to a person's photos; scored by inverting unseen photos"
    has_photo_loss = True

    def objective(self, profile: Profile) -> Objective:
        """LPIPS of reconstructions, whatever other metrics are computed."""
        return Objective(panel="reconstruction_lpips", higher_is_better=False)

    def sections(self, profile: Profile) -> Mapping[str, Any]:
        """Trainer, inversion and evaluation."""
        return {"trainer": profile.trainer, "inversion": profile.inversion, "evaluation": profile.evaluation}

    def training_work(self, profile: Profile, *, new: int, replayed: bool) -> float:
        """Every epoch takes each new photo once, and a replay batch with every batch of new photos."""
        trainer = profile.trainer
        steps = -(-new // trainer.batch_size)
        return float(trainer.epochs * (new + (steps * trainer.replay_batch_size if replayed else 0)))

    def test_work(self, profile: Profile, tested: Sequence[int]) -> float:
        """Every inversion step takes each test photo once."""
        return float(sum(tested) * profile.inversion.steps)

    def build(
        self, profile: Profile, weights: GeneratorWeights, files: Mapping[str, Path], device: torch.device
    ) -> PersonalisedGenerator:
        """Generator, LPIPS and metrics."""
        from clstudy.workloads.personalised_generator import PersonalisedGenerator

        return built(PersonalisedGenerator, profile, weights, files, device)


def built(
    make: type[PersonalisedGenerator],
    profile: Profile,
    weights: GeneratorWeights,
    files: Mapping[str, Path],
    device: torch.device,
) -> PersonalisedGenerator:
    """A workload with the generator, LPIPS and metrics of a profile; arguments as for ``WorkloadKind.build``."""
    from clstudy.generators import load_generators
    from clstudy.generators.base import GENERATORS
    from clstudy.metrics import load_metrics
    from clstudy.metrics.base import METRICS, MetricSettings
    from clstudy.training.numerics import loss_lpips

    load_metrics()
    load_generators()
    lpips = loss_lpips(profile.compute, device)
    measuring = MetricSettings(
        threads=profile.resources.threads,
        files=files,
        device=device,
        alignment=profile.data.alignment,
        evaluation=profile.evaluation,
    )
    return make(
        profile,
        generator=GENERATORS[profile.generator].build(weights, profile, device, lpips),
        lpips=lpips,
        metrics=[METRICS[name](measuring) for name in profile.evaluation.metrics],
    )


WORKLOADS.register("personalise")(PersonaliseKind())
