"""torch.compile: whole networks only, kept between processes, refused in words where there is no compiler."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from clstudy.errors import UserError
from clstudy.settings.profiles import ComputeSettings, smoke
from clstudy.study.preflight import equip

PROGRAM = """
import os, hashlib, stat, torch
from torch._dynamo.utils import counters
from clstudy.generators.stylegan2 import StyleGAN2, StyleGAN2Settings
from clstudy.generators.synthesis_copies import apply_compute
from clstudy.settings.profiles import ComputeSettings, Resources
from clstudy.training.numerics import configure_torch
compute = ComputeSettings(compile=True)
configure_torch(compute, Resources())
torch.manual_seed(0)
network = StyleGAN2(StyleGAN2Settings(img_resolution=8, w_dim=8, z_dim=8, channel_base=64, channel_max=8)).synthesis
plain = network(torch.ones(2, 8)).detach()
apply_compute(network, compute)
image = network(torch.ones(2, 8))
image.square().mean().backward()
folder = os.environ["TORCHINDUCTOR_CACHE_DIR"]
found = counters["inductor"]
print(found["fxgraph_cache_hit"], found["fxgraph_cache_miss"], len(counters["graph_break"]), sep=" ", end=" ")
print(hashlib.sha256(image.detach().numpy().tobytes()).hexdigest(), float((image - plain).abs().max()) < 1e-5, end=" ")
print(oct(stat.S_IMODE(os.stat(os.path.dirname(folder)).st_mode)), folder)
"""


def compiled(temporary: Path) -> list[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TORCHINDUCTOR")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**environment, "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.split()


@pytest.mark.slow
def test_the_next_process_finds_what_the_first_compiled(tmp_path: Path) -> None:
    first, second = compiled(tmp_path), compiled(tmp_path)
    assert int(first[1]) > 0 and first[0] == "0", "compiled"
    assert int(second[0]) == int(first[1]) and second[1] == "0", "found"
    assert first[2] == second[2] == "0", "nothing runs eagerly"
    assert first[3] == second[3] and first[4] == second[4] == "True", "to the same bits, near those of the eager one"
    assert first[5] == "0o700" and Path(first[6]).is_relative_to(tmp_path)


def test_a_machine_without_compiler_is_told_before_anything_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    profile = replace(smoke(), compute=ComputeSettings(compile=True))
    with pytest.raises(UserError, match=r"compute\.compile needs 'no-such-compiler'.*install it.*CXX"):
        equip(profile)
    equip(profile, address="auto")
    equip(smoke())
