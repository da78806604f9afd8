"""The contracts of workloads and generators: the documented ones keep them, and each check finds its broken promise."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from clstudy.generators.conformance import CHECKS as GENERATOR_CHECKS
from clstudy.registry import Finding, findings_of
from clstudy.settings.profiles import Profile, smoke
from clstudy.study.opened_parts import opened_generator, opened_workload
from clstudy.workloads.conformance import CHECKS, WorkloadInHand
from tests.support.documentation import documented_block

Found = dict[str, str]


@pytest.fixture
def profile_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Profile]:
    """The profile of one of the documented modules, with some of its text replaced."""
    monkeypatch.syspath_prepend(tmp_path)

    def made(kind: str, function: str, *changes: tuple[str, str]) -> Profile:
        source = documented_block(kind)
        for old, new in changes:
            assert old in source, f"the documentation says no {old!r} any more"
            source = source.replace(old, new)
        (tmp_path / f"my_{kind}.py").write_text(source)
        monkeypatch.delitem(sys.modules, f"my_{kind}", raising=False)
        importlib.invalidate_caches()
        profile: Profile = getattr(importlib.import_module(f"my_{kind}"), function)()
        return profile

    return made


def failed(findings: list[Finding]) -> Found:
    return {finding.check: finding.message for finding in findings if not finding.passed}


def require(found: Found, check: str, message: str) -> None:
    """The check failed with such a message; where none is named, no check did."""
    if not check:
        assert not found
    else:
        assert message in found.get(check, ""), found


OTHER_OBJECTIVE = """def objective(self, profile):
        from clstudy.workloads.base import Objective
        return Objective("generation_mse", False)

    def sections"""
SHARED_NETWORK = """network = self.__dict__.setdefault("kept", nn.Sequential(
            nn.Upsample(scale_factor=8, mode="bilinear"), nn.Conv2d(3, 3, 9, padding=4)))
        nn.Sequential("""
QUICK = ("steps: int = 60", "steps: int = 3")


@pytest.mark.parametrize(
    ("check", "message", "old", "new"),
    [
        ("", "", "steps: int", "steps: int"),
        ("candidates", "expected [4, *latent_shape]", "encoder(samples.images)", "encoder(samples.images).mean(dim=1)"),
        ("candidates", "carry a gradient", "@torch.no_grad()\n    def candidates", "def candidates"),
        ("trains", "losses are float64", "np.float32(losses)", "np.array(losses)"),
        ("trains", "on_step was never called", "on_step(step + 1, steps, losses[-1])", "pass"),
        ("repeatable", "the weights differ", "given.new_rng.permutation", "np.random.permutation"),
        ("stored", "gives other rows", 'unpack(weights, state.networks, {"adam": state.adam})', "pass"),
        ("rows", "is not one of its measures", '"reconstruction", "mse", digest', '"reconstruction", "mae", digest'),
        ("rows", "expected rows with train_timestamp", "Row(timestamp, test.", "Row(timestamp + 1, test."),
        ("rows", "the same timestamps, protocol, metric and image", '"mse", digest, error', '"mse", "one", error'),
        ("pictures", "the picture is float", "to_uint8(torch.cat(shown, dim=2)[None])[0]", "np.zeros((4, 4, 3))"),
        ("hooks", "expected once per step", "if given.penalty is not None:", "if given.penalty and not step:"),
        ("facts", "is not one of its measures", "def sections", OTHER_OBJECTIVE),
    ],
)
def test_a_broken_promise_of_a_workload_is_found_by_its_check(
    profile_of: Callable[..., Profile], check: str, message: str, old: str, new: str
) -> None:
    profile = profile_of("workload", "codes", QUICK, *([(old, new)] if check else []))
    require(failed(findings_of(CHECKS, WorkloadInHand(*opened_workload(profile)))), check, message)


@pytest.mark.parametrize(
    ("check", "message", "old", "new"),
    [
        ("", "", "bilinear", "bilinear"),
        ("anchors", "have the shape", "latent_shape = (3, 8, 8)", "latent_shape = (192,)"),
        ("images", "have the shape", "scale_factor=8", "scale_factor=4"),
        ("same", "images differ", "nn.init.dirac_(network[1].weight)", "pass"),
        ("gradients", "no parameter of a copy", "network.to(self.device)", "network.requires_grad_(False)"),
        ("stored", "images differ", "network.load_state_dict(tunable)", "pass"),
        ("copies", "they share tensors", "network = nn.Sequential(", SHARED_NETWORK),
    ],
)
def test_a_broken_promise_of_a_generator_is_found_by_its_check(
    profile_of: Callable[..., Profile], check: str, message: str, old: str, new: str
) -> None:
    profile = profile_of("generator", "mosaic", *([(old, new)] if check else []))
    if check == "copies":  # what is trained once is not made anew
        profile = profile_of("generator", "mosaic", (old, new), ("nn.init.dirac_(network[1].weight)", "pass"),
                             ("nn.init.zeros_(network[1].bias)", "pass"))  # fmt: skip
    require(failed(findings_of(GENERATOR_CHECKS, opened_generator(profile))), check, message)


def test_the_packaged_generator_keeps_the_contract() -> None:
    assert not failed(findings_of(GENERATOR_CHECKS, opened_generator(smoke())))


@pytest.mark.slow
@pytest.mark.ci_slow
def test_personalising_keeps_the_contract() -> None:
    assert not failed(findings_of(CHECKS, WorkloadInHand(*opened_workload(smoke()))))
