"""Everything a stage computes stays on its device, and a GPU gives the same numbers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from clstudy.settings.profiles import InversionSettings
from clstudy.training.inversion import invert
from tests.support.imaginary_device import Small, parts, train

GPU = torch.device("cuda")


@pytest.mark.slow
@pytest.mark.ci_slow
def test_a_stage_stays_on_its_device() -> None:
    """On a device that is not the CPU and needs no driver; in a process of its own, which it changes for good."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/support/imaginary_device.py"],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    if "skipped" in done.stdout:
        pytest.skip("this torch has no backend without a driver")
    assert "3 passed" in done.stdout


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_a_gpu_gives_the_same_numbers() -> None:
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    found = []
    for device in (torch.device("cpu"), GPU):
        lpips, network, encoder = parts()
        work = Small(device, lpips.to(device), network, encoder)
        module = train(work, work.optimising.fresh())
        photos = work.photos(2, 4)
        start = work.encoding.anchors(photos.images)
        settings = InversionSettings(steps=3)
        w = invert(module, photos.images, photos.features, start, settings=settings, lpips=work.lpips)
        found.append([start.cpu(), w.cpu(), module(w).cpu()])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-2)
