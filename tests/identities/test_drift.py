"""How much there is to forget: known before a study runs, in `identities check` and in the plan."""

from __future__ import annotations

import itertools
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clstudy.cli.identities import main as identities
from clstudy.cli.run import main as run
from clstudy.identities.catalogue import open_data_set
from clstudy.identities.check import alignment_of
from clstudy.identities.dataset import DataSet, load_folder
from clstudy.identities.drift import WARNING, Drift, estimate, is_little, mean, ratio
from clstudy.identities.synthetic import make_synthetic


@given(seed=st.integers(0, 999), count=st.integers(0, 12), groups=st.integers(1, 4))
def test_the_ratio_is_that_of_mean_distances(seed, count, groups):
    rng = np.random.default_rng(seed)
    points, of = rng.standard_normal((count, 3)), rng.integers(0, groups, count)
    away = np.linalg.norm(points[:, None] - points, axis=2)
    pairs = list(itertools.combinations(range(count), 2))
    within = [away[a, b] for a, b in pairs if of[a] == of[b]]
    between = [away[a, b] for a, b in pairs if of[a] != of[b]]
    if within and between:
        assert ratio(away, of) == pytest.approx(np.mean(between) / np.mean(within))
    else:
        assert math.isnan(ratio(away, of))


def test_photos_that_are_all_the_same_have_no_ratio():
    assert math.isnan(ratio(np.zeros((4, 4)), np.array([0, 0, 1, 1])))
    unknown = Drift(looks=math.nan, face=1.0, light=1.0)
    assert mean([unknown]) is None
    assert mean([unknown, Drift(looks=2.0, face=1.0, light=1.0)]) == Drift(looks=2.0, face=1.0, light=1.0)


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("drift") / "people"
    root.mkdir()
    make_synthetic(root, people=2, timestamps=2, train=6, test=2, data_seed=0)
    return root


@pytest.fixture(scope="module")
def still(tmp_path_factory, synthetic) -> Path:
    """The same people, one occasion of each of them shared out as two."""
    root = tmp_path_factory.mktemp("still") / "people"
    for person in load_folder(synthetic).identities:
        photos = [*person.timestamps[0].train, *person.timestamps[0].test]
        for number, photo in enumerate(photos):
            part = "test" if number >= 6 else "train"
            target = root / person.name / f"t{number % 2:02d}" / part / f"{number}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(photo.path, target)
    return root


def test_occasions_that_differ_and_occasions_that_do_not(synthetic, still):
    found = [mean(estimate(load_folder(root).identities, alignment="embedded")) for root in (synthetic, still)]
    print(found)
    assert found[0].looks > 2 and found[0].light > 2 and not is_little(found[0])
    assert 0.8 < found[1].looks < 1.25 and is_little(found[1])


def test_check_says_how_much_there_is_to_forget(synthetic, still, capsys):
    assert identities(["check", str(synthetic)]) == 0
    said = capsys.readouterr().out
    assert "drift of person_00: photos of two occasions differ" in said and WARNING not in said
    assert identities(["check", str(still)]) == 0
    assert WARNING in capsys.readouterr().out
    assert identities(["check", str(still), "--no-drift"]) == 0
    assert "drift" not in capsys.readouterr().out


def test_of_one_occasion_nothing_is_known(tmp_path, still, capsys):
    shutil.copytree(still / "person_00" / "t00", tmp_path / "one" / "anna" / "t00")
    assert identities(["check", str(tmp_path / "one")]) == 0
    assert "drift of anna: not known: it takes two occasions" in capsys.readouterr().out


@pytest.mark.parametrize("little", [True, False])
def test_the_plan_warns_before_hours_are_spent(synthetic, still, little, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = still if little else synthetic
    assert run(["--space", "smoke", "--data", str(data), "--identities", "person_00", "--dry-run"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "drift photos of two occasions differ" in said
    assert (" ".join(WARNING.split()) in said) == little


def test_the_alignment_is_the_folders_own(tmp_path):
    assert [alignment_of(tmp_path, size) for size in (64, 256)] == ["embedded", "ffhq"]
    (tmp_path / "prepared.json").write_text('{"alignment": "ffhq"}')
    assert alignment_of(tmp_path, 64) == "ffhq"
    (tmp_path / "prepared.json").write_text('{"alignment": "sideways"}')
    assert alignment_of(tmp_path, 64) == "embedded"


@pytest.mark.network
def test_photos_of_no_occasion_in_particular_do_not_drift(tmp_path):
    """ORL: ten photos of each of forty people, shared out as two occasions."""
    data: DataSet = open_data_set("orl", timestamps=2, train=8, test=4, data_seed=0, cache=tmp_path)
    average = mean(estimate(data.identities, alignment="embedded"))
    assert is_little(average) and average.looks > 0.9
