"""Profiles by name, checked whole; their sections, a user's own among them; and as documents."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clstudy.errors import UserError
from clstudy.settings.named_profiles import named_profile, profile_problems, profile_sources
from clstudy.settings.overrides import SettingError, checked_settings, setting_words, with_settings
from clstudy.settings.profile_documents import profile_from_document, search_document
from clstudy.settings.profiles import PROFILES, Profile, embedded, smoke
from clstudy.settings.space_file import load_space, override
from tests.support.documentation import users_folder

TILES = """
from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Annotated

from pydantic import Field

from clstudy.settings.profiles import Profile, smoke

@dataclass(frozen=True, kw_only=True)
class TileSettings:
    size: Annotated[int, Field(ge=1)] = 4
    shifts: tuple[int, ...] = (0, 1)
    wrap: bool = False
    word: str | None = None

    def __post_init__(self) -> None:
        if self.wrap and self.size == 13:
            raise ValueError("13 tiles cannot wrap")

@dataclass(frozen=True, kw_only=True)
class Tiled(Profile):
    tiles: TileSettings = field(default_factory=TileSettings)

def tiled() -> Tiled:
    base = smoke()
    return Tiled(**{entry.name: getattr(base, entry.name) for entry in fields(base)} | {"name": "tiled"})

def plain():
    return smoke()

def wrong():
    return 3

def raising():
    raise KeyError("x")

def needy(size):
    return smoke()

not_a_function = 3
"""
SPACE = """\
name: mine
profile:
  base: "{name}"
  tiles:
    size: {size}
  trainer: {{epochs: 5}}
grid:
  identity: 1
  strategy: [lower]
  learning_rate: [1e-3]
"""
TILED = "own_tiles:tiled"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    yield from users_folder(tmp_path, monkeypatch, {"own_tiles.py": TILES})


def space_file(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text)
    return str(path)


def stored(profile: Profile) -> Any:
    """As ``study.yaml`` gives it back."""
    return json.loads(json.dumps(profile.to_dict()))


@pytest.mark.parametrize("name", list(PROFILES))
def test_a_registered_profile_is_sound_and_comes_back_from_its_document(name: str) -> None:
    profile = named_profile(name)
    assert ("class" in profile.to_dict()) == (type(profile) is not Profile)
    assert profile_from_document(stored(profile)) == profile


def test_a_document_from_before_a_setting_has_its_default_and_an_unknown_one_is_refused() -> None:
    document = stored(smoke())
    del document["inversion"]["latent_space"], document["evaluation"]["lpips_network"]
    assert profile_from_document(document) == smoke()
    document["trainer"]["pases"] = 3
    with pytest.raises(UserError, match=r"setting profile.trainer.pases, .* Did you mean 'passes'\?"):
        profile_from_document(document)


def test_a_profile_of_the_users_own_has_sections_of_its_own(module: Path) -> None:
    space = load_space(space_file(module, SPACE.format(name=TILED, size=7)))
    space = override(space, settings=["tiles.shifts=2,3", "tiles.wrap=true", "tiles.word=left"])
    assert space.settings["tiles"] == {"size": 7, "shifts": (2, 3), "wrap": True, "word": "left"}
    assert "tiles.shifts=2,3" in setting_words(space.settings)
    profile = with_settings(named_profile(space.profile), space.settings)
    document = stored(profile)
    assert document["class"] == "own_tiles:Tiled" and document["tiles"]["size"] == 7
    assert profile_from_document(document) == profile and type(profile_from_document(document)) is type(profile)
    assert "class" not in search_document(profile), "a class's name enters no key"
    assert profile_sources(profile) == {"own_tiles": TILES} and profile_sources(smoke()) == {}
    assert named_profile("own_tiles:plain") == smoke()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("size: 7", "size: 0", r"line 5: profile.tiles.size: 0: input should be greater than or equal to 1"),
        ("size: 7", "sise: 7", r"line 5: profile.tiles.sise: unknown setting 'sise'. Did you mean 'size'\?"),
        ("size: 7", "shifts: [a]", r"line 5: profile.tiles.shifts: 'a': input should be a valid integer"),
        ("size: 7", "wrap: 3", r"line 5: profile.tiles.wrap"),
        ("size: 7", "size: true", r"line 5: profile.tiles.size: true is neither a number nor a word"),
        ("tiles:\n    size: 7", "tiles: {size: 13, wrap: true}", r"line 4: profile.tiles: .* 13 tiles cannot wrap"),
        ("  tiles:", "  tile:", r"line 4: profile.tile: unknown section 'tile'. Did you mean 'tiles'\?"),
        (TILED, "embedded", r"line 4: profile.tiles: unknown section 'tiles'"),
        (TILED, "own_tiles:tild", r"line 2: profile: profile own_tiles:tild: own_tiles has no 'tild'. Did you mean"),
        (TILED, "no_such_tiles:x", r"line 2: .* no module 'no_such_tiles'"),
        (TILED, "own_tiles:wrong", r"line 2: .* returns 3; expected a clstudy.Profile"),
        (TILED, "own_tiles:raising", r"line 2: .* failed with KeyError: 'x'"),
        (TILED, "own_tiles:needy", r"line 2: .* has the arguments size; expected a function without"),
        (TILED, "own_tiles:not_a_function", r"line 2: .* is not a function"),
        (TILED, "os:abort", r"line 2: .* is not a function"),
        ('  base: "own_tiles:tiled"\n', "", r"line 2: profile: names no base; write which profile it changes"),
        ("grid:", "settings: {trainer: {epochs: 3}}\ngrid:", r"line 2: profile: changes settings of its base, and"),
        ("epochs: 5", "epochs: 0", r"line 6: profile.trainer.epochs: 0: input should be greater than or equal to 1"),
    ],
)
def test_a_wrong_profile_of_a_space_is_one_message_with_its_line(module: Path, old: str, new: str, said: str) -> None:
    text = SPACE.format(name=TILED, size=7)
    assert old in text
    with pytest.raises(UserError, match=said) as caught:
        load_space(space_file(module, text.replace(old, new)))
    assert "\n" not in str(caught.value)


def test_another_profile_takes_the_settings_of_the_file_and_checks_them_as_its_own(module: Path) -> None:
    file = space_file(module, SPACE.format(name=TILED, size=7))
    with pytest.raises(UserError, match=r"line 4: profile.tiles: unknown section 'tiles'"):
        load_space(file, profile="smoke")
    file = space_file(module, SPACE.format(name="embedded", size=7))
    assert load_space(file, profile=TILED).settings == {"tiles": {"size": 7}, "trainer": {"epochs": 5}}
    with pytest.raises(UserError, match="unknown profile 'smok'"):
        load_space(file, profile="smok")


def test_a_class_that_is_not_there_when_a_study_is_read_is_one_message(module: Path) -> None:
    document = stored(named_profile(TILED))
    for name, said in [
        ("gone_tiles:Tiled", "class of the profile gone_tiles:Tiled: there is no module 'gone_tiles'"),
        ("own_tiles:Tild", "has no 'Tild'. Did you mean 'Tiled'"),
        ("own_tiles:TileSettings", "is not a Profile"),
    ]:
        with pytest.raises(UserError, match=said):
            profile_from_document(document | {"class": name})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p: replace(p, trainer=replace(p.trainer, epochs=0)), "trainer.epochs: 0: input should be greater"),
        (lambda p: replace(p, trainer=replace(p.trainer, batch_size=-3)), "trainer.batch_size: -3: input"),
        (lambda p: replace(p, trainer=replace(p.trainer, epochs="24")), "trainer.epochs: '24': input should be a"),
        (lambda p: replace(p, inversion=replace(p.inversion, mse_weight=math.nan)), "inversion.mse_weight: nan: input"),
        (lambda p: replace(p, evaluation=replace(p.evaluation, metrics=["lpips"])), "evaluation.metrics: .* tuple"),
        (
            lambda p: replace(p, evaluation=replace(p.evaluation, metrics=("lpisp",))),
            "evaluation.metrics: unknown metric 'lpisp'.",
        ),
        (lambda p: replace(p, compute=replace(p.compute, precision="tf3")), "compute.precision: 'tf3': unknown prec"),
        (lambda p: replace(p, data=replace(p.data, train=0)), "data.train: 0: input should be greater"),
        (lambda p: replace(p, resources=replace(p.resources, threads=0)), "resources.threads: 0: input"),
        (lambda p: replace(p, stage_seconds=math.inf), "stage_seconds: inf: input should be a finite"),
    ],
)
def test_senseless_values_given_in_python_are_refused_where_the_profile_is_named(
    change: Callable[[Any], Profile], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PROFILES, "_entries", {**dict(PROFILES.items()), "mine": lambda: change(embedded())})
    with pytest.raises(UserError, match=f"profile mine has invalid settings: {said}"):
        named_profile("mine")


def test_whole_numbers_do_for_fractions_and_stay_as_they_are_in_keys() -> None:
    profile = replace(embedded(), inversion=replace(embedded().inversion, learning_rate=1))
    assert profile_problems(profile) == []
    assert '"learning_rate": 1,' in json.dumps(stored(profile))
    assert profile_from_document(stored(profile)).to_dict() == profile.to_dict()


def test_an_older_name_of_a_setting_is_the_setting_and_is_what_keys_and_files_say() -> None:
    """Studies that were made before a setting had its present name keep their keys and are read back."""
    assert checked_settings({"trainer": {"passes": 5}}, smoke()) == {"trainer": {"epochs": 5}}
    document = smoke().to_dict()
    assert document["trainer"]["passes"] == 4 and "epochs" not in document["trainer"]
    assert document["inversion"]["final_rate"] == 0.05 and document["compute"]["recompute"] is False
    assert profile_from_document(document) == smoke()
    document["trainer"]["epochs"] = document["trainer"].pop("passes")
    assert profile_from_document(document) == smoke()
    with pytest.raises(SettingError, match="'passes' is an older name of 'epochs', which is given as well"):
        checked_settings({"trainer": {"epochs": 5, "passes": 5}}, smoke())


def test_a_study_from_before_fused_kernels_is_read_as_it_was_computed() -> None:
    document = stored(embedded())
    assert document["compute"]["kernels"] == "fused" and document["inversion"]["test_sets_together"] is True
    del document["compute"]["kernels"], document["inversion"]["test_sets_together"]
    read = profile_from_document(document)
    assert read.compute.kernels == "plain" and not read.inversion.test_sets_together
    assert profile_from_document(stored(read)) == read
