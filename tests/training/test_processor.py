"""Studies on processors of different kinds: what is recorded, and holding them to one instruction set."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from clstudy.errors import UserError
from clstudy.settings.instruction_sets import INSTRUCTION_SETS, NATIVE
from clstudy.settings.overrides import SettingError, checked_settings, with_settings
from clstudy.settings.profiles import ComputeSettings, Resources, smoke
from clstudy.training.numerics import configure_torch
from clstudy.training.processor import kind_of_processor
from clstudy.trial.requests import Basis

X86 = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
PROGRAM = """
import torch
from clstudy.settings.profiles import ComputeSettings, Resources
from clstudy.training.numerics import configure_torch
from clstudy.training.processor import kind_of_processor
configure_torch(ComputeSettings(instruction_set="avx2"), Resources())
torch.manual_seed(0)
conv = torch.nn.Conv2d(20, 40, 3)
print(kind_of_processor(torch.device("cpu")), conv(torch.randn(2, 20, 16, 16)).double().sum().item())
"""


def test_the_kind_is_the_instruction_set_in_use() -> None:
    assert torch.backends.cpu.get_cpu_capability() in kind_of_processor(torch.device("cpu"))


@pytest.mark.skipif(not X86, reason="needs an x86 processor with AVX2")
@pytest.mark.parametrize("variables", [{}, dict(INSTRUCTION_SETS["avx2"].environment), {"ONEDNN_MAX_CPU_ISA": "AVX2"}])
def test_a_plan_knows_the_kind_without_torch(variables: dict[str, str]) -> None:
    program = """
import sys, torch
from clstudy.training.processor import kind_of_processor
from clstudy.settings.instruction_sets import likely_processor
print(likely_processor("native"), kind_of_processor(torch.device("cpu")), sep="|")
"""
    run = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | variables, capture_output=True, text=True, timeout=120
    )
    expected, found = run.stdout.strip().split("|")
    assert expected == found


@pytest.mark.skipif(not X86, reason="needs an x86 processor with AVX2")
def test_a_process_with_the_variables_computes_as_the_setting_says() -> None:
    environment = os.environ | dict(INSTRUCTION_SETS["avx2"].environment)
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[:2] == [kind_of_processor(torch.device("cpu")).split()[0], "AVX2"]


def test_a_process_without_them_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    with pytest.raises(UserError, match=r"instruction_set is 'avx2'.*set these variables.*ONEDNN_MAX_CPU_ISA=AVX2"):
        configure_torch(ComputeSettings(instruction_set="avx2"), Resources())


def test_only_a_chosen_instruction_set_enters_keys() -> None:
    profile = smoke()
    fixed = with_settings(profile, {"compute": {"instruction_set": "avx2"}})
    before, after = (Basis(one, "generator").fingerprint() for one in (profile, fixed))
    assert after == {**before, "instruction_set": "avx2"} and "instruction_set" not in before
    assert with_settings(fixed, {"compute": {"instruction_set": NATIVE}}) == profile


def test_an_unknown_one_is_refused_by_name() -> None:
    with pytest.raises(SettingError, match=r"unknown instruction set.*Did you mean 'avx2'.*native, avx2, avx512"):
        checked_settings({"compute": {"instruction_set": "avx"}}, smoke())
