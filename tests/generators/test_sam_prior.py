"""SAM's published age prior, against a rendering of its papers written parameter by parameter."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from clstudy.errors import UserError
from clstudy.generators.age_priors import open_prior
from clstudy.generators.ageing import AgePrior, PriorSizes, save_prior
from clstudy.generators.sam_prior import SAMPrior, StylePyramid
from tests.generators.test_ir_se_encoder import plain_maps

STYLES = 8
"""Coarse, middle and one fine one."""


class Shown(torch.nn.Module):
    """A generator whose image is its w."""

    num_ws = STYLES

    def forward(self, w: torch.Tensor) -> torch.Tensor:
        return F.interpolate(w.view(-1, 2, 16, 16).repeat(1, 2, 1, 1)[:, :3].tanh(), (256, 256), mode="bilinear")


@cache
def published() -> dict[str, Any]:
    """A checkpoint as SAM's training writes it, with random weights, but for its decoder. Made once: it is large."""
    torch.manual_seed(0)
    state: dict[str, torch.Tensor] = {"decoder.input.input": torch.randn(1, 4)}
    for prefix, inputs in (("encoder", 4), ("pretrained_encoder", 3)):
        with torch.device("meta"):
            shapes = {name: value.shape for name, value in StylePyramid(STYLES, inputs).state_dict().items()}
        for name, shape in shapes.items():
            if name.endswith("num_batches_tracked"):
                continue
            if name.endswith("running_var"):
                value = 0.5 + torch.rand(shape)
            elif len(shape) == 1:
                value = 0.3 + 0.1 * torch.randn(shape)
            elif "linear" in name:
                value = torch.randn(shape)  # at unit variance, as it is stored
            else:
                value = torch.randn(shape) / shape[1:].numel() ** 0.5
            state[f"{prefix}.{name}"] = value
    return {"state_dict": state, "latent_avg": torch.randn(STYLES, 512), "opts": {"input_nc": 4, "lr": 0.1}}


def enlarged(x: torch.Tensor) -> torch.Tensor:
    """Twice the side, corners on corners."""
    side = x.shape[2]
    at = torch.linspace(0, side - 1, 2 * side)
    below = at.floor().long().clamp(max=side - 2)
    share = at - below
    weights = torch.zeros(2 * side, side)
    weights[torch.arange(2 * side), below] = 1 - share
    weights[torch.arange(2 * side), below + 1] += share
    return weights @ x @ weights.t()


def plain(images: torch.Tensor, p: dict[str, torch.Tensor]) -> torch.Tensor:
    """Styles of pSp's pyramid: three of the coarsest map, four of the middle one, the others of the finest."""
    maps = list(plain_maps(images, p))
    coarse = maps[23]
    middle = enlarged(coarse) + F.conv2d(maps[20], p["latlayer1.weight"], p["latlayer1.bias"])
    fine = enlarged(middle) + F.conv2d(maps[6], p["latlayer2.weight"], p["latlayer2.bias"])
    styles = []
    for number, (x, halvings) in enumerate([(coarse, 4)] * 3 + [(middle, 5)] * 4 + [(fine, 6)]):
        for turn in range(halvings):
            at = f"styles.{number}.convs.{2 * turn}"
            x = F.conv2d(x, p[f"{at}.weight"], p[f"{at}.bias"], stride=2, padding=1)
            x = torch.where(x > 0, x, 0.01 * x)
        weight, bias = p[f"styles.{number}.linear.weight"], p[f"styles.{number}.linear.bias"]
        styles.append(x[:, :, 0, 0] @ weight.t() / 512**0.5 + bias)
    return torch.stack(styles, dim=1)


def test_equals_the_plain_rendering(tmp_path: Path) -> None:
    checkpoint = published()
    torch.save(checkpoint, tmp_path / "sam_ffhq_aging.pt")
    prior = open_prior(tmp_path / "sam_ffhq_aging.pt", Shown(), 512)
    assert isinstance(prior, SAMPrior) and not any(value.requires_grad for value in prior.parameters())
    w, age = torch.randn(1, 512, generator=torch.Generator().manual_seed(1)), 47.0
    images = Shown()(w)
    with_age = torch.cat([images, torch.full((1, 1, 256, 256), age / 100)], dim=1)
    parts = []
    for prefix, seen in (("encoder.", with_age), ("pretrained_encoder.", images)):
        named = {
            name.removeprefix(prefix): x for name, x in checkpoint["state_dict"].items() if name.startswith(prefix)
        }
        parts.append(plain(seen, named))
    with torch.no_grad():
        found = prior(w, torch.tensor([age]))
    torch.testing.assert_close(found, parts[0] + parts[1] + checkpoint["latent_avg"], rtol=1e-4, atol=1e-4)


def test_without_an_encoder_of_faces_styles_are_relative_to_the_mean(tmp_path: Path) -> None:
    checkpoint, path = published(), tmp_path / "sam_ffhq_aging.pt"
    torch.save(checkpoint, path)
    w, ages = torch.randn(1, 512), torch.tensor([30.0])
    with torch.no_grad():
        both = open_prior(path, Shown(), 512)
        assert isinstance(both, SAMPrior) and both.face is not None
        of_face = both.face(Shown()(w))
        expected = both(w, ages) - of_face
        alone = {name: x for name, x in checkpoint["state_dict"].items() if not name.startswith("pretrained")}
        torch.save(checkpoint | {"state_dict": alone}, path)
        torch.testing.assert_close(open_prior(path, Shown(), 512)(w, ages), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: {"g_ema": {}}, "no 'state_dict' in it; expected SAM's checkpoint, sam_ffhq_aging.pt"),
        (lambda c: {"state_dict": {}}, "no 'latent_avg' in it"),
        (lambda c: c | {"state_dict": {}}, "no encoder in it"),
        (lambda c: c | {"latent_avg": torch.zeros(5, 512)}, r"latent_avg has shape [5, 512], expected [8, 512]"),
        (
            lambda c: c | {"state_dict": c["state_dict"] | {"encoder.latlayer1.weight": torch.zeros(512, 3, 1, 1)}},
            "1 parameters do not fit (e.g. encoder.latlayer1.weight)",
        ),
    ],
)
def test_files_that_are_no_such_prior_are_refused(change: Any, message: str, tmp_path: Path) -> None:
    torch.save(change(published()), tmp_path / "sam.pt")
    with pytest.raises(UserError, match=re.escape(message)):
        open_prior(tmp_path / "sam.pt", Shown(), 512)


def test_a_file_that_is_no_torch_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sam.pt").write_bytes(b"\x89PNG not a torch file")
    with pytest.raises(UserError, match=r"age_prior sam\.pt: not a torch file of plain tensors"):
        open_prior(tmp_path / "sam.pt", Shown(), 512)


def test_a_prior_of_another_generator_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "age_prior.safetensors"
    save_prior(AgePrior(PriorSizes(num_ws=3, w_dim=8, width=8, heads=2)), path)
    with pytest.raises(UserError, match="for a generator of 3 layers and w of 8 numbers; this one has 8 and 512"):
        open_prior(path, Shown(), 512)
