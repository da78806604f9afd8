"""Settings of a profile from a space or the command line: checked by type and range, applied, said in the plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clstudy.cli.run import main
from clstudy.errors import UserError
from clstudy.settings.named_profiles import section_names
from clstudy.settings.overrides import (
    SettingError,
    checked_settings,
    parse_settings,
    setting_words,
    with_settings,
)
from clstudy.settings.profiles import PROFILES
from clstudy.settings.space_file import load_space, override

EMBEDDED = PROFILES["embedded"]()
SPACE = """\
name: mine
profile: smoke
grid:
  identity: 1
  strategy: [lower]
  learning_rate: [1e-3]
settings:
  inversion:
    latent_space: w_plus
    learning_rate: 5e-3
  evaluation: {metrics: [lpips, psnr], synthesis_images: 0}
"""


def space_file(folder: Path, text: str = SPACE) -> str:
    path = folder / "mine.yaml"
    path.write_text(text)
    return str(path)


def test_a_space_changes_settings_of_its_profile_and_nothing_else(tmp_path: Path) -> None:
    space = load_space(space_file(tmp_path))
    profile = PROFILES["smoke"]()
    changed = with_settings(profile, space.settings)
    expected = asdict(profile)
    expected["inversion"] |= {"latent_space": "w_plus", "learning_rate": 0.005}
    expected["evaluation"] |= {"metrics": ("lpips", "psnr"), "synthesis_images": 0}
    assert asdict(changed) == expected
    assert with_settings(profile, load_space("smoke").settings) == profile


def test_the_command_line_goes_before_the_file(tmp_path: Path) -> None:
    space = load_space(space_file(tmp_path))
    options = ["inversion.latent_space=w", "trainer.betas=0.5,0.9", "evaluation.metrics= lpips , id"]
    settings = override(space, settings=options).settings
    assert settings == {
        "inversion": {"latent_space": "w", "learning_rate": 0.005},
        "evaluation": {"metrics": ("lpips", "id"), "synthesis_images": 0},
        "trainer": {"betas": (0.5, 0.9)},
    }
    again = override(load_space("smoke"), settings=setting_words(settings)).settings
    assert again == settings, "words are what --set takes"


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("inversion.latent_space=wplus", r"--set inversion.latent_space: .*'wplus': input should be 'w' or 'w_plus'"),
        ("inversion.step=3", r"unknown setting 'step'. Did you mean 'steps'\?"),
        ("inversoin.steps=3", r"unknown section 'inversoin'. Did you mean 'inversion'\?"),
        ("data.train=0", r"data.train: '0': input should be greater than or equal to 1"),
        ("data.name=orl", r"data.name cannot be changed here: `data:` of the space and --data"),
        ("data.image_size=32", r"photos have the size that the generator makes"),
        ("data.alignment=ffhq", r"cannot be changed here: photos are aligned"),
        ("resources.gpus=1", r"each run says it: --device, --gpu-share"),
        ("compute.precision=tf3", r"unknown precision. Did you mean 'tf32'\?"),
        ("generator.name=1", r"unknown section 'generator'. It belongs to the profile as a whole"),
        ("evaluation.metrics=lpips,idd", r"unknown metric 'idd'. Did you mean 'id'\?"),
        ("evaluation.metrics=id,id", r"none of them twice"),
        ("evaluation.metrics=", r"at least one metric"),
        ("inversion.steps=-1", r"'-1': input should be greater than or equal to 0"),
        ("inversion.learning_rate=nan", r"input should be a finite number"),
        ("trainer.epochs=many", r"'many': input should be a valid integer"),
        ("trainer.short_batch_replay=half", r"input should be 'full' or 'as_new'"),
        ("evaluation.synthesis_weights=normal", r"input should be 'uniform' or 'normalised'"),
        ("steps", r"--set steps: expected SECTION.NAME=VALUE, e.g. inversion.latent_space=w_plus"),
    ],
)
def test_a_wrong_option_is_one_message(option: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        override(load_space("smoke"), settings=[option])
    assert "\n" not in str(caught.value)


def test_a_setting_given_twice_is_refused() -> None:
    with pytest.raises(UserError, match="--set gives inversion.steps twice"):
        parse_settings(["inversion.steps=1", "inversion.steps=2"], EMBEDDED)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SPACE.replace("w_plus", "w_minus"), "line 9: settings.inversion.latent_space: 'w_minus'"),
        (SPACE.replace("latent_space: w_plus", "prior_weight: true"), "line 9: .*true is neither a number nor a word"),
        (SPACE.replace("  evaluation: {", "  metrics: {"), "line 11: settings.metrics: unknown section"),
        (SPACE[: SPACE.index("settings:")] + "settings: [3]\n", "line 7: settings: .* is not a group of keys"),
        (SPACE[: SPACE.index("settings:")] + "settings: {trainer: 3}\n", "settings.trainer: 3 is not a group of"),
    ],
)
def test_a_wrong_file_is_one_message_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        load_space(space_file(tmp_path, text))


_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_SECTIONS = sorted(section_names(EMBEDDED))
_NAMES = sorted({name for section in _SECTIONS for name in asdict(getattr(EMBEDDED, section))})


@given(st.dictionaries(st.sampled_from(_SECTIONS), st.dictionaries(st.sampled_from(_NAMES), _ANYTHING)))
def test_whatever_is_given_is_taken_or_refused_in_words(raw: Mapping[str, Any]) -> None:
    try:
        settings = checked_settings(raw, EMBEDDED)
    except SettingError as error:
        assert str(error) and len(error.place) <= 2
        return
    assert checked_settings(settings, EMBEDDED) == settings
    assert with_settings(EMBEDDED, settings)


def test_the_plan_says_what_is_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    space_file(tmp_path)
    assert main(["--space", "mine.yaml", "--set", "trainer.epochs=1", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "test photos inverted in W+ (one latent for each layer)" in said
    assert "settings inversion.latent_space=w_plus, inversion.learning_rate=0.005" in said
    assert "trainer.epochs=1" in said
    assert main(["--space", "smoke", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "test photos inverted in W (one latent for all layers)" in said and "settings " not in said
    assert main(["--space", "smoke", "--set", "inversion.latent_space=v", "--dry-run"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_metric_that_is_asked_for_without_its_file_is_left_out_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--space", "smoke", "--set", "evaluation.metrics=lpips,dists", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "metrics  lpips;" in said and "left out dists: no DISTS weights" in " ".join(said.split())
