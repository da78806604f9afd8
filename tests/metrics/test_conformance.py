"""The conformance suite: every packaged metric passes, and each promise that a metric breaks is found."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from clstudy.cli.metrics import main
from clstudy.metrics import load_metrics
from clstudy.metrics.base import METRICS, Metric
from clstudy.metrics.conformance import CHECKS, check_metric

load_metrics()
FREE = [name for name, metric in METRICS.items() if not metric.needs]
"""Those that need no file from outside."""


class Good(Metric):
    """Mean absolute error, and how near a generated image is to its nearest test photo."""

    name = "good"
    higher_is_better = False
    title = "absolute error"
    unit = "levels"
    bounds = (0.0, 3.0)
    description = "mean absolute error of a reconstruction"
    in_synthesis = True

    def prepare(self, targets: Tensor) -> Any:
        return targets

    def pairs(self, images: Tensor, prepared: Any) -> Tensor:
        return (images - prepared).abs().mean(dim=(1, 2, 3)).cpu()

    def synthesis(self, images: Tensor, prepared: Any) -> Tensor:
        return (images[:, None] - prepared[None]).abs().mean(dim=(2, 3, 4)).min(dim=1).values.cpu()


def pairs(value: Any) -> dict[str, Any]:
    """Attributes of a metric whose ``pairs`` are this function of images and targets."""
    return {"pairs": lambda self, images, prepared: value(images, prepared)}


def error(images: Tensor, targets: Tensor) -> Tensor:
    return (images - targets).abs().mean(dim=(1, 2, 3))


BROKEN: dict[str, tuple[str, dict[str, Any]]] = {
    "no title": ("facts", {"title": ""}),
    "a packaged metric's name": ("facts", {"name": "lpips"}),
    "a name with a blank": ("facts", {"name": "my metric"}),
    "bounds the wrong way round": ("facts", {"bounds": (1.0, 0.0)}),
    "a role that is none": ("facts", {"needs": ("inceptoin",)}),
    "decimals that are none": ("facts", {"decimals": 2.5}),
    "no pairs": ("runs", {"pairs": Metric.pairs}),
    "one value for all": ("shapes", pairs(lambda images, targets: error(images, targets).mean())),
    "whole numbers": ("shapes", pairs(lambda images, targets: error(images, targets).round().long())),
    "infinite values": ("finite", pairs(lambda images, targets: error(images, targets).log() * 0 + torch.inf)),
    "values beyond its bounds": ("bounds", pairs(lambda images, targets: error(images, targets) - 1)),
    "changed images": ("arguments", pairs(lambda images, targets: error(images.clamp_(-0.1, 0.1), targets))),
    "chance": ("repeatable", pairs(lambda images, targets: error(images, targets) + torch.rand(len(images)) / 100)),
    "the batch's mean": ("batch", pairs(lambda images, targets: error(images, targets) / images.abs().mean())),
    "the wrong direction": ("direction", {"higher_is_better": True}),
    "a constant": ("direction", pairs(lambda images, targets: error(images, targets) * 0)),
}


@pytest.mark.parametrize("name", FREE)
def test_every_packaged_metric_that_needs_no_file_keeps_the_contract(name: str) -> None:
    assert [finding.message for finding in check_metric(METRICS[name]) if not finding.passed] == []


def test_a_metric_of_ones_own_passes() -> None:
    findings = check_metric(Good)
    assert [finding.check for finding in findings] == list(CHECKS) and all(finding.passed for finding in findings)


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_promise_is_found_by_its_check(what: str) -> None:
    check, attributes = BROKEN[what]
    findings = {finding.check: finding for finding in check_metric(type("Bad", (Good,), attributes))}
    assert not findings[check].passed and findings[check].message


def test_one_that_does_not_run_is_not_said_to_keep_the_rest() -> None:
    findings = check_metric(type("Bad", (Good,), {"prepare": lambda self, targets: 1 / 0}))
    assert [finding.passed for finding in findings] == [True, *[False] * (len(CHECKS) - 1)]
    assert findings[1].message.startswith("ZeroDivisionError")


def test_the_command_says_what_is_not_there(
    capsys: pytest.CaptureFixture[str], tmp_path: Any, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["check", "psnr"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "psnr" and len(printed) == len(CHECKS) + 2 and printed[-1] == "every check passed"
    assert main(["check", "psmr"]) == 2 and "Did you mean 'psnr'" in capsys.readouterr().err
    assert main(["check", "kid"]) == 2 and "Inception" in capsys.readouterr().err
