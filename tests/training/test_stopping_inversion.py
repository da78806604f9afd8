"""Inversion that stops: each photo by itself, with the latent that it has by then."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from clstudy.generators.embedded_generator import EmbeddedGenerator
from clstudy.generators.stylegan2 import StyleGAN2Settings
from clstudy.metrics.lpips import LPIPS
from clstudy.settings.overrides import SettingError, checked_settings, with_settings
from clstudy.settings.profiles import InversionSettings, mystyle
from clstudy.training.inversion import invert

W_DIM = StyleGAN2Settings().w_dim

STOPPING = InversionSettings(steps=40, learning_rate=0.05, final_lr_fraction=1.0, stop_below=0.05, stop_after=5)


class Counting(nn.Module):
    """A generator that counts the images it drew."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module
        self.drawn = 0

    def forward(self, w: Tensor) -> Tensor:
        self.drawn += len(w)
        return self.module(w)


@pytest.fixture(scope="module")
def module() -> nn.Module:
    return EmbeddedGenerator().fresh().requires_grad_(False).double()  # Adam carries rounding on


@pytest.fixture(scope="module")
def targets(module: nn.Module) -> Tensor:
    """Images whose latents are 0.02 to 0.5 from where the search starts."""
    latents = torch.randn(4, W_DIM, generator=torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        return module(latents * torch.tensor([[0.02], [0.1], [0.3], [0.5]]))


def found(module: nn.Module, targets: Tensor, settings: InversionSettings) -> tuple[Tensor, int]:
    lpips, counting = LPIPS().double(), Counting(module)
    with torch.no_grad():
        features = lpips.features(targets)
    start = torch.zeros(len(targets), W_DIM).double()
    return invert(counting, targets, features, start, settings=settings, lpips=lpips), counting.drawn


def test_photos_stop_by_themselves_and_each_ends_where_it_would_alone(module: nn.Module, targets: Tensor) -> None:
    together, drawn = found(module, targets, STOPPING)
    alone = [found(module, targets[place : place + 1], STOPPING) for place in range(len(targets))]
    counts = [count for _, count in alone]
    assert drawn == sum(counts) and len(set(counts)) > 1, counts
    assert max(counts) < STOPPING.steps * len(targets) and all(count % STOPPING.stop_after == 0 for count in counts)
    torch.testing.assert_close(together, torch.cat([w for w, _ in alone]), rtol=0, atol=1e-6)
    for (w, count), target in zip(alone, targets, strict=True):
        plain = replace(STOPPING, stop_below=0.0, steps=count)
        assert torch.equal(w, found(module, target[None], plain)[0]), "as with so many steps from the beginning"


def test_a_threshold_that_is_never_met_changes_no_bit(module: nn.Module, targets: Tensor) -> None:
    short = replace(STOPPING, steps=8)
    never, always = (replace(short, stop_below=share) for share in (1e-9, 0.0))
    assert torch.equal(found(module, targets, never)[0], found(module, targets, always)[0])


def test_the_settings_enter_keys_only_when_they_stop() -> None:
    profile = mystyle()
    stopping = with_settings(profile, {"inversion": {"stop_below": 0.01}})
    assert stopping.inversion.stop_below == 0.01 and stopping != profile
    assert with_settings(stopping, {"inversion": {"stop_below": 0}}) == profile
    with pytest.raises(SettingError, match="1.5: input should be less than 1"):
        checked_settings({"inversion": {"stop_below": 1.5}}, profile)
