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
    "plain": "b63869476019c8141efa217fb8863629ab7ac411c730760c28561c666ce78314",
    "everything": "99b04a96b2b60e0db84c42ce9c69e66a58a51b1a644ef9c17bd2884548ec3f45",
    "blended": "5b5d7a58fd43b0e700f28b6a13e3b913864366a2baa67a64328cde1788b1a060",
    "large": "0e4bf0094139b9fc9d9e7b8df214e9540f661aade4848493ba8310a9056aafd2",
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
