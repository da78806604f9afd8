"""Spaces with variants: what they may say, and what each one is alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from clstudy.errors import UserError
from clstudy.settings.packaged_spaces import known_spaces
from clstudy.settings.space_file import load_space, override
from clstudy.study.run_options import RunOptions
from clstudy.study.variants import studies_of

SPACE = """name: two_ways
description: two ways
profile: smoke
settings: {trainer: {epochs: 3}, inversion: {steps: 7}}
grid: {identity: 1, strategy: [lower, er_rand], buffer_size: [3], learning_rate: [0.003]}
variants:
"""


def write(folder: Path, variants: str) -> str:
    path = folder / "two_ways.yaml"
    path.write_text(SPACE + variants)
    return str(path)


def test_a_variant_is_the_space_with_its_settings_over_the_others(tmp_path: Path) -> None:
    space = load_space(write(tmp_path, "  plain:\n  longer: {trainer: {epochs: 9}, data: {train: 5}}\n"))
    plain, longer = space.of_variant("plain"), space.of_variant("longer")
    assert (plain.name, longer.name) == ("two_ways_plain", "two_ways_longer")
    assert plain.settings == {"trainer": {"epochs": 3}, "inversion": {"steps": 7}}
    assert longer.settings == {"trainer": {"epochs": 9}, "inversion": {"steps": 7}, "data": {"train": 5}}
    assert plain.variants is None and plain.grid == space.grid and "longer" in longer.description
    with pytest.raises(UserError, match="no variant 'short'; it has: plain, longer"):
        space.of_variant("short")


def test_the_command_lines_settings_go_under_the_variants_own(tmp_path: Path) -> None:
    space = override(
        load_space(write(tmp_path, "  plain:\n  longer: {trainer: {epochs: 9}}\n")),
        settings=("trainer.epochs=5", "inversion.steps=8"),
    )
    assert space.of_variant("plain").settings == {"trainer": {"epochs": 5}, "inversion": {"steps": 8}}
    assert space.of_variant("longer").settings["trainer"] == {"epochs": 9}


@pytest.mark.parametrize(
    ("variants", "said"),
    [
        ("  only: {}\n", "two or more names"),
        ("  a: {}\n  b: {trainer: {epocs: 9}}\n", "variants.b.trainer.epocs"),
        ("  a: {}\n  b: {trainr: {epochs: 9}}\n", "unknown section 'trainr'"),
        ("  a: {}\n  b: {trainer: {epochs: many}}\n", "variants.b.trainer"),
        ("  a: {}\n  b/c: {}\n", "cannot name a study"),
        ("  [a, b]\n", "two or more names"),
    ],
)
def test_mistakes_name_their_place(tmp_path: Path, variants: str, said: str) -> None:
    with pytest.raises(UserError) as raised:
        load_space(write(tmp_path, variants))
    assert said in str(raised.value)


def test_a_run_is_one_study_for_each(tmp_path: Path) -> None:
    space = write(tmp_path, "  plain: {}\n  longer: {trainer: {epochs: 9}}\n")
    assert [(one.variant, one.out) for one in studies_of(RunOptions(space=space, out="runs/x/"))] == [
        ("plain", "runs/x/plain"),
        ("longer", "runs/x/longer"),
    ]
    assert [one.out for one in studies_of(RunOptions(space=space))] == [None, None]
    one = RunOptions(space=space, variant="longer", out="there")
    assert studies_of(one) == [one]
    smoke = RunOptions(space="smoke")
    assert studies_of(smoke) == [smoke]


def test_every_variant_of_a_packaged_space_can_be_run_alone() -> None:
    spaces = [load_space(path) for path in known_spaces().values()]
    named = {space.name: list(space.variants) for space in spaces if space.variants}
    assert "photos_10" in named["ageing_paper"]
    for space in spaces:
        for name in space.variants or ():
            assert space.of_variant(name).name == f"{space.name}_{name}"
