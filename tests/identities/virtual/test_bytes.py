"""The same bytes on every machine: photos under each set of instructions that numpy can be kept from using."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from tests.identities.virtual.moments import digests

SHA256 = {
    "plain": "71eaaada545651151343e5e08835002b823196738b2f2475224d2b5a2f1b0e63",
    "everything": "f34e90d061cc79a77d43ee8dbfe620953c12ea597865387e06801db5235c68b3",
    "blended": "627ee641ccbdd6aff2b082dbf94fed581313f21e04b9d63b59379a05641d886f",
    "large": "a15053d28248ab16d4db2a293f382a39555894f67f5c9ec2efc9ef6374a28af5",
}


def _dispatched() -> list[str]:
    from numpy._core._multiarray_umath import __cpu_dispatch__ as names

    return list(names)


def _wider_than_avx2() -> list[str]:
    return [name for name in _dispatched() if "512" in name or name == "X86_V4"]


def test_photos_have_the_bytes_they_had_when_this_was_written() -> None:
    assert digests() == SHA256


@pytest.mark.parametrize("disabled", [_wider_than_avx2, _dispatched], ids=["up to AVX2", "baseline only"])
def test_photos_do_not_depend_on_the_instructions_that_numpy_uses(disabled: Callable[[], list[str]]) -> None:
    names = disabled()
    if not names:
        pytest.skip(f"this build of numpy {np.__version__} dispatches nothing to switch off")
    environment = {**os.environ, "NPY_DISABLE_CPU_FEATURES": " ".join(names), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-m", "tests.identities.virtual.moments"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    assert json.loads(done.stdout) == SHA256


def test_the_subprocess_really_runs_without_those_instructions() -> None:
    names = _wider_than_avx2()
    if not names:
        pytest.skip("no wide instructions are dispatched")
    code = (
        "from numpy._core._multiarray_umath import __cpu_features__ as f; "
        f"print(any(f.get(name, False) for name in {names!r}))"
    )
    environment = {**os.environ, "NPY_DISABLE_CPU_FEATURES": " ".join(names)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
