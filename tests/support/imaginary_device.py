"""Everything a stage computes stays on its device.

There is no GPU on the development machines. torch's fake tensors carry a device without having one: every operation
that would mix devices fails as it would on a GPU, and values do not exist, so nothing can be read back inside a loop.
The device is torch's placeholder for backends it does not know, because CUDA's would ask for a driver. Registering it
changes the whole process, so ``tests/training/test_devices.py`` runs this file in one of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from clstudy.generators.checkpoint_generator import CheckpointGenerator
from clstudy.generators.ir_se_encoder import IRSEEncoder
from clstudy.generators.stylegan2 import StyleGAN2, StyleGAN2Settings
from clstudy.generators.synthesis_copies import SynthesisCopies
from clstudy.metrics.lpips import LPIPS
from clstudy.metrics.psnr import psnr
from clstudy.settings.profiles import AnchorSettings, ComputeSettings, EvaluationSettings, InversionSettings, mystyle
from clstudy.strategies.base import Memory, Past, Trained, make_items
from clstudy.strategies.ewc import ElasticWeightConsolidation
from clstudy.strategies.mergan_jtr import MerganJointRetraining
from clstudy.strategies.mergan_ra import MerganReplayAlignment
from clstudy.training.evaluation import convex_combinations
from clstudy.training.inversion import invert
from clstudy.training.personalise import LossLog, TrainingPhotos, personalise, photo_losses

SETTINGS = StyleGAN2Settings(img_resolution=32, z_dim=8, w_dim=8, channel_base=256, channel_max=16)
PROFILE = replace(
    mystyle(),
    trainer=replace(mystyle().trainer, epochs=2),
    anchors=AnchorSettings(steps=2),
    compute=ComputeSettings(activation_checkpointing=True),
)


class Small:
    """The parts of a worker, on one device."""

    def __init__(self, device: torch.device, lpips: LPIPS, network: StyleGAN2, encoder: IRSEEncoder):
        self.device, self.lpips = device, lpips
        self.optimising = CheckpointGenerator(network, PROFILE, device, lpips)
        self.encoding = CheckpointGenerator(network, PROFILE, device, lpips, encoder)

    def photos(self, count: int, seed: int) -> TrainingPhotos:
        rng = np.random.default_rng(seed)
        images = torch.from_numpy(rng.uniform(-1, 1, (count, 3, 32, 32)).astype(np.float32)).to(self.device)
        latents = torch.from_numpy(rng.standard_normal((count, 8)).astype(np.float32)).to(self.device)
        return TrainingPhotos.prepare(latents, images, self.lpips)

    def past(self, module: nn.Module, learned: dict[str, torch.Tensor]) -> Past:
        latents = np.random.default_rng(3).standard_normal((4, 8))
        return Past(Memory(items=tuple(make_items(0, list("abcd"), latents))), learned, module)


def parts(seed: int = 0) -> tuple[LPIPS, StyleGAN2, IRSEEncoder]:
    torch.manual_seed(seed)
    return LPIPS(), StyleGAN2(SETTINGS), IRSEEncoder(8)


@pytest.fixture(scope="module")
def nowhere() -> torch.device:
    """A device other than the CPU that needs no driver."""
    registration = pytest.importorskip("torch.utils.backend_registration")
    set_up = getattr(registration, "_setup_privateuseone_for_python_backend", None)
    if set_up is None:
        pytest.skip("this torch has no backend without a driver")
    set_up("imaginary")
    return torch.device("imaginary:0")


def imaginary(module: nn.Module, device: torch.device) -> nn.Module:
    """The module with tensors that have shape, type and device but no values (call it inside the fake mode)."""
    for part in module.modules():
        for name, value in list(part.named_parameters(recurse=False)):
            setattr(
                part, name, nn.Parameter(torch.empty(value.shape, device=device), requires_grad=value.requires_grad)
            )
        for name, value in list(part.named_buffers(recurse=False)):
            setattr(part, name, torch.empty(value.shape, dtype=value.dtype, device=device))
    return module


@pytest.fixture
def small(nowhere: torch.device, monkeypatch: pytest.MonkeyPatch) -> Iterator[Small]:
    made = parts()
    # the losses' values are all that is read back, every few steps; there are none here
    monkeypatch.setattr(LossLog, "add", lambda self, loss: self.values.append(0.0))
    # a module without values cannot be moved or copied into; it is made where it belongs
    monkeypatch.setattr(nn.Module, "to", lambda self, device: self)
    monkeypatch.setattr(
        SynthesisCopies, "fresh", lambda self, tunable=None: imaginary(StyleGAN2(SETTINGS).synthesis, nowhere)
    )
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield Small(nowhere, *(imaginary(module, nowhere) for module in made))


def train(work: Small, module: nn.Module, **more: object) -> nn.Module:
    personalise(
        module,
        work.photos(5, 1),
        work.photos(3, 2),
        settings=PROFILE.trainer,
        learning_rate=1e-3,
        lpips=work.lpips,
        new_rng=np.random.default_rng(1),
        replay_rng=np.random.default_rng(2),
        **more,
    )
    return module


def test_the_fake_device_notices_a_mixture(small: Small) -> None:
    with pytest.raises(RuntimeError, match="same device"):
        small.photos(2, 0).latents + torch.zeros(2, 8)


def test_anchors_training_and_inversion_stay_on_the_device(small: Small) -> None:
    photos = small.photos(3, 4)
    for generator in (small.optimising, small.encoding):
        anchors = generator.anchors(photos.images)
        assert anchors.device == small.device and anchors.shape == (3, 8)
    module = train(small, small.optimising.fresh())
    again = small.optimising.fresh(small.optimising.tunable_state(module)).requires_grad_(False)
    settings = InversionSettings(steps=2, batch_size=2)
    w = invert(again, photos.images, photos.features, anchors, settings=settings, lpips=small.lpips)
    assert w.device == small.device
    assert psnr(again(w), photos.images).device == small.device
    mixed = convex_combinations(anchors, EvaluationSettings(), np.random.default_rng(0))
    assert again(mixed).device == small.device


def test_hooks_stay_on_the_device(small: Small) -> None:
    module = small.optimising.fresh()
    fisher = {name: torch.empty_like(value) for name, value in module.named_parameters()}
    past = small.past(small.optimising.fresh().requires_grad_(False), fisher)
    rng = np.random.default_rng(5)
    for strategy in (ElasticWeightConsolidation(), MerganReplayAlignment()):
        train(small, module, penalty=strategy.penalty(past, rng))
    replays = MerganJointRetraining().replays(past, rng)
    assert replays is not None and replays.images.device == small.device
    photos = small.photos(2, 6)

    def loss(index: int) -> torch.Tensor:
        row = photos.rows(torch.arange(index, index + 1, device=small.device))
        return photo_losses(module, row, PROFILE.trainer, small.lpips)[0]

    learned = ElasticWeightConsolidation().consolidate(past, Trained(module.requires_grad_(True), 2, loss))
    assert {value.device for value in learned.values()} == {small.device}
