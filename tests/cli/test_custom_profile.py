"""The documented custom profile, as a user would have it: in a file of their own, checked, planned and studied."""

from __future__ import annotations

import pickle
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from clstudy.cli.commands import main as clstudy
from clstudy.cluster.main_job import View
from clstudy.cluster.worker import SentBasis
from clstudy.errors import UserError
from clstudy.records.study_record import read_complete_record
from clstudy.settings.named_profiles import named_profile, profile_sources
from clstudy.settings.overrides import with_settings
from clstudy.settings.profiles import PROFILES, embedded
from clstudy.storage.foreign_modules import provide_sources
from clstudy.study.preparation import PreparedStudy, prepare
from clstudy.study.run_options import RunOptions
from clstudy.study.stored_study import stored_profile, stored_trials, stored_version
from clstudy.study.study_file import write_study_file
from clstudy.trial.requests import Basis
from tests.settings.test_profiles import TILED, TILES
from tests.support.documentation import documented_block, users_folder
from tests.support.small_study import make_study

NAME = "my_profiles:long_training"
SPACE = """\
name: mine
profile: PROFILE
grid:
  identity: 1
  strategy: [lower]
  learning_rate: [0.003]
"""
_CHANGED = "trainer: {epochs: 5}, evaluation: {metrics: [lpips, psnr]}, data: {timestamps: 2, train: 3}"
AS_MAPPING, AS_SETTINGS = f"{{base: smoke, {_CHANGED}}}", f"smoke\nsettings: {{{_CHANGED}}}"
QUICK = {"trainer": {"epochs": 2}, "inversion": {"steps": 1}, "evaluation": {"metrics": ("lpips",)}}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    source = documented_block("profile")
    assert len(source.splitlines()) <= 12
    yield from users_folder(tmp_path, monkeypatch, {"my_profiles.py": source, "own_tiles.py": TILES})


def planned(folder: Path, profile: str, **options: object) -> PreparedStudy:
    file = folder / "space.yaml"
    file.write_text(SPACE.replace("PROFILE", profile))
    return prepare(RunOptions(space=str(file), dry_run=True, **options), View().busy)  # type: ignore[arg-type]


def test_the_readmes_profile_is_checked_planned_and_studied_in_this_process(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert clstudy(["profiles", "check", NAME]) == 0, capsys.readouterr().out
    assert "every check passed" in capsys.readouterr().out
    (folder / "space.yaml").write_text(SPACE.replace("PROFILE", NAME))
    assert clstudy(["run", "--space", "space.yaml", "--dry-run"]) == 0
    assert "profile  long_training: embedded with twice the epochs" in capsys.readouterr().out
    profile = named_profile(NAME)
    assert profile == replace(
        embedded(),
        name="long_training",
        description="embedded with twice the epochs",
        trainer=replace(embedded().trainer, epochs=48),
    )
    study = make_study(folder, ("lower",), profile=with_settings(profile, QUICK))
    (file,) = (study / "results").glob("*.parquet")
    assert set(pq.read_table(file)["train_timestamp"].to_pylist()) == {0, 1, 2}


def test_a_profile_with_a_section_of_its_own_is_planned_written_and_read_back(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert clstudy(["profiles", "check", TILED]) == 0, capsys.readouterr().out
    text = SPACE.replace("PROFILE", f'{{base: "{TILED}", tiles: {{size: 7}}}}')
    (folder / "space.yaml").write_text(text)
    assert clstudy(["run", "--space", "space.yaml", "--set", "tiles.word=left", "--dry-run"]) == 0
    assert "settings tiles.size=7, tiles.word=left" in capsys.readouterr().out
    seven = planned(folder, f'{{base: "{TILED}", tiles: {{size: 7}}}}')
    write_study_file(folder, seven.space, seven.basis, seven.data, seven.plan)
    record = read_complete_record(folder)
    assert stored_profile(record) == seven.profile
    (spec,) = stored_trials(record)
    version = stored_version(record, spec)
    four = planned(folder, TILED)
    write_study_file(folder, four.space, four.basis, four.data, four.plan)
    assert stored_version(read_complete_record(folder), spec) != version
    keys = [{key for chain in one.plan.chains.values() for key in chain.keys} for one in (seven, four)]
    assert keys[0] and not keys[0] & keys[1], "what a section of one's own says is part of the keys"


def test_a_mapping_means_what_profile_and_settings_mean(folder: Path) -> None:
    texts = []
    for profile in (AS_MAPPING, AS_SETTINGS):
        prepared = planned(folder, profile)
        write_study_file(folder, prepared.space, prepared.basis, prepared.data, prepared.plan)
        texts.append((prepared.space, prepared.profile, prepared.plan, (folder / "study.yaml").read_bytes()))
    assert texts[0] == texts[1]
    _, profile, plan, _ = texts[0]
    assert profile == with_settings(
        named_profile("smoke"),
        {
            "trainer": {"epochs": 5},
            "evaluation": {"metrics": ("lpips", "psnr")},
            "data": {"timestamps": 2, "train": 3},
        },
    )
    assert plan.stages == 2, "as many timestamps as the space says"
    assert planned(folder, AS_MAPPING, timestamps=1).plan.stages == 1, "--timestamps goes before it"


def test_settings_of_packaged_photos_are_refused_for_a_folder(folder: Path) -> None:
    (folder / "photos").mkdir()
    with pytest.raises(UserError, match="data.train is set, but all photos of the folder 'photos' are used"):
        planned(folder, AS_MAPPING, data="photos")


def test_senseless_values_of_a_profile_from_python_end_before_anything_is_made(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = replace(embedded(), trainer=replace(embedded().trainer, epochs=0))
    monkeypatch.setattr(PROFILES, "_entries", {**dict(PROFILES.items()), "bad": lambda: bad})
    with pytest.raises(UserError, match="trainer.epochs: 0"):
        planned(folder, "bad")
    bad = replace(embedded(), weights="none.safetensors")
    with pytest.raises(UserError, match="'none.safetensors' are not in the package"):
        planned(folder, "bad")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ('generator="stylegan3"', "FAILED  parts     unknown generator 'stylegan3'"),
        ('workload="other"', "FAILED  parts     unknown workload 'other'"),
        ('weights="other.safetensors"', "FAILED  weights   weights 'other.safetensors' are not in the package"),
        ("weights=None", "FAILED  weights   weights is None, and required_files does not name"),
        ('optional_files=("nose",)', "FAILED  weights   unknown role 'nose'"),
        ("stage_bytes=-1", "FAILED  settings  profile own_profiles:mine has invalid settings: stage_bytes: -1"),
        ("name=str(next(COUNT))", "FAILED  repeated  two calls return different profiles"),
        ("trainer=replace(embedded().trainer, epochs=next(COUNT))", "FAILED  repeated  two calls return different"),
    ],
)
def test_what_is_wrong_with_a_profile_is_a_failed_check(
    folder: Path, change: str, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "own_profiles", raising=False)
    source = "from dataclasses import replace\nfrom itertools import count\n"
    source += "from clstudy.settings.profiles import embedded\nCOUNT = count(1)\n"
    (folder / "own_profiles.py").write_text(f"{source}def mine():\n    return replace(embedded(), {change})\n")
    assert clstudy(["profiles", "check", "own_profiles:mine"]) == 1
    assert said in capsys.readouterr().out
    sys.modules.pop("own_profiles", None)


def test_a_profile_that_cannot_be_found_ends_in_exit_code_2(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, said in [("embeded", "Did you mean 'embedded'"), ("nowhere:mine", "no module 'nowhere'")]:
        assert clstudy(["profiles", "check", name]) == 2
        assert said in capsys.readouterr().err


def test_profiles_are_listed_with_workload_generator_and_size(capsys: pytest.CaptureFixture[str]) -> None:
    assert clstudy(["profiles", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(PROFILES)
    (mystyle,) = (line for line in lines if line.startswith("mystyle"))
    assert re.match(r"mystyle +personalise +stylegan2 +1024 px +the paper's 2D study", mystyle)


def test_a_basis_is_opened_where_its_module_was_provided(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = named_profile(TILED)
    sent, sources = SentBasis.of(Basis(profile, "generator")), profile_sources(profile)
    del sys.modules["own_tiles"]
    (folder / "own_tiles.py").unlink()
    sent = pickle.loads(pickle.dumps(sent))  # as Ray does before anything of ours runs on a node
    with pytest.raises(UserError, match="there is no module 'own_tiles'"):
        sent.opened()
    monkeypatch.setattr(sys, "path", list(sys.path))
    provide_sources(sources, folder / "modules")
    opened = sent.opened()
    assert opened.profile.to_dict() == profile.to_dict() and opened.generator_digest == "generator"
