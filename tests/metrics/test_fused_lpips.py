"""The loss's fused LPIPS against the plain one, which the official package vouches for (test_lpips)."""

import pytest
import torch
from torch import Tensor

from clstudy.metrics.fused_lpips import FusedLPIPS
from clstudy.metrics.lpips import LPIPS, index_features


def images(count: int, height: int, width: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, height, width, generator=generator, dtype=torch.float64) * 2 - 1


def distances_and_gradient(lpips: LPIPS, ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
    ours = ours.clone().requires_grad_(True)
    with torch.no_grad():
        targets = lpips.features(theirs)
    found = lpips.distance(lpips.features(ours), targets)
    (gradient,) = torch.autograd.grad((found * torch.arange(1.0, len(ours) + 1)).sum(), ours)
    return found.detach(), gradient


@pytest.mark.parametrize(("height", "width"), [(64, 64), (32, 47), (66, 35), (33, 128)])
def test_distances_and_gradients_are_those_of_the_plain_network(height, width):
    ours, theirs = images(3, height, width, 0), images(3, height, width, 1)
    found, gradient = distances_and_gradient(FusedLPIPS().double(), ours, theirs)
    expected, expected_gradient = distances_and_gradient(LPIPS().double(), ours, theirs)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-8, atol=1e-12)


def test_the_plain_call_and_rows_of_stored_features_work_too():
    lpips = FusedLPIPS().double()
    ours, theirs = images(2, 64, 64, 0), images(2, 64, 64, 1)
    targets = index_features(lpips.features(theirs), torch.tensor([1, 0]))
    torch.testing.assert_close(lpips.distance(lpips.features(ours.flip(0)), targets), lpips(ours, theirs).flip(0))


def test_equal_images_have_distance_and_gradient_0():
    found, gradient = distances_and_gradient(FusedLPIPS(), images(1, 64, 64, 0).float(), images(1, 64, 64, 0).float())
    assert found.item() == 0 and not gradient.any()


def test_positions_where_no_feature_is_active_have_a_finite_gradient():
    grey = torch.zeros(1, 3, 64, 64)
    _, gradient = distances_and_gradient(FusedLPIPS(), grey, images(1, 64, 64, 0).float())
    assert gradient.isfinite().all()
