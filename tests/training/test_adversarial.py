"""Adversarial losses against slow renderings of their formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from clstudy.generators.class_conditional import Critic
from clstudy.training.adversarial import ADVERSARIAL, class_loss

REAL, MADE = torch.tensor([0.3, -1.2, 2.0]), torch.tensor([1.1, -0.4, 0.2])


def test_the_wasserstein_loss_is_a_difference_of_means() -> None:
    loss = ADVERSARIAL["wgan_gp"]()
    assert float(loss.critic(REAL, MADE)) == pytest.approx((1.1 - 0.4 + 0.2) / 3 - (0.3 - 1.2 + 2.0) / 3)
    assert float(loss.generator(MADE)) == pytest.approx(-(1.1 - 0.4 + 0.2) / 3)


def test_the_non_saturating_loss_is_of_log_sigmoids() -> None:
    loss = ADVERSARIAL["non_saturating"]()

    def log_sigmoid(x: float) -> float:
        return math.log(1 / (1 + math.exp(-x)))

    real = -sum(log_sigmoid(x) for x in REAL.tolist()) / 3
    made = -sum(log_sigmoid(-x) for x in MADE.tolist()) / 3
    assert float(loss.critic(REAL, MADE)) == pytest.approx(real + made, rel=1e-6)
    assert float(loss.generator(MADE)) == pytest.approx(-sum(log_sigmoid(x) for x in MADE.tolist()) / 3, rel=1e-6)
    assert loss.penalty(lambda images: images.sum((1, 2, 3)), *torch.zeros(2, 1, 3, 2, 2), torch.zeros(1)) is None


def test_the_gradient_penalty_is_of_each_image_by_finite_differences() -> None:
    torch.manual_seed(0)
    critic = Critic(classes=3, width=2, size=8).double()
    real, made = torch.rand(2, 4, 3, 8, 8, dtype=torch.float64)
    shares = torch.tensor([0.0, 1.0, 0.25, 0.6], dtype=torch.float64)

    def score(image: Tensor) -> float:
        with torch.no_grad():
            return float(critic(image[None])[0])

    expected, step = 0.0, 1e-6
    for one, other, share in zip(real, made, shares, strict=True):
        between = share * one + (1 - share) * other
        slopes = []
        for place in range(between.numel()):
            there, back = between.clone().flatten(), between.clone().flatten()
            there[place] += step
            back[place] -= step
            slopes.append((score(there.view_as(between)) - score(back.view_as(between))) / (2 * step))
        expected += (math.sqrt(sum(slope**2 for slope in slopes)) - 1) ** 2 / 4
    found = ADVERSARIAL["wgan_gp"]().penalty(lambda images: critic(images)[0], real, made, shares)
    assert found is not None and float(found) == pytest.approx(expected, rel=1e-5)
    (gradient,) = torch.autograd.grad(found, critic.convs[0].weight)  # type: ignore[union-attr]
    assert bool(gradient.any()), "the critic learns from it"


def test_the_penalty_of_a_linear_critic_is_known() -> None:
    weights = torch.tensor([3.0, 4.0])
    images = torch.zeros(5, 2, 1, 1)
    found = ADVERSARIAL["wgan_gp"]().penalty(
        lambda x: (x.flatten(1) * weights).sum(1), images, images + 1, torch.full((5,), 0.5)
    )
    assert found is not None and float(found) == pytest.approx((5 - 1) ** 2)


def test_classes_may_be_shares() -> None:
    logits = torch.tensor([[1.0, 2.0, 0.5]])
    log = logits - logits.logsumexp(1, keepdim=True)
    shares = torch.tensor([[0.25, 0.75, 0.0]])
    assert float(class_loss(logits, shares)) == pytest.approx(-float((shares * log).sum()))
    assert float(class_loss(logits, torch.eye(3)[[1]])) == pytest.approx(
        float(nn.functional.cross_entropy(logits, torch.tensor([1])))
    )
