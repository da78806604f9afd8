"""The report's section on learning rates says what the search went by, in numbers as they were measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from clstudy.analysis.pages.rates import rate_sections
from clstudy.analysis.study_plan import OBJECTIVE, Study
from clstudy.settings.profiles import smoke
from clstudy.storage.checksums import write_checked
from clstudy.workloads import WORKLOADS
from tests.support.pages import shown

PROPOSALS = b"""strategy,buffer_size,proposal,learning_rate,objective,state
"er_rand",2,0,0.003,-21.5,"finished"
"er_rand",2,1,0.01,-24.25,"finished"
"""


def section(folder: Path, objective: str) -> str:
    write_checked(folder / "search" / "proposals.csv", PROPOSALS)
    study = Study(folder=folder, name="x", timestamps=2, buffer_sizes=(2,), trials=(), failures={}, objective=objective)
    (found,) = rate_sections(study)
    return shown(found)


@pytest.mark.parametrize(
    ("objective", "said", "value"),
    [
        ("reconstruction_lpips", "AIP (reconstruction LPIPS;", "-24.2500"),
        ("reconstruction_psnr", "AIP (reconstruction PSNR (dB);", "24.2500"),
        ("gone_measure", "AIP (gone_measure;", "-24.2500"),
    ],
)
def test_the_objective_is_named_with_its_direction_and_its_values_have_their_sign(
    tmp_path: Path, objective: str, said: str, value: str
) -> None:
    text = section(tmp_path, objective)
    assert said in text and ("Higher is better" if "psnr" in objective else "Lower is better") in text
    assert f"<td>{value}</td>" in text


def test_what_a_study_does_not_say_is_what_its_workload_went_by() -> None:
    profile = smoke()
    assert WORKLOADS[profile.workload].objective(profile).panel == OBJECTIVE
