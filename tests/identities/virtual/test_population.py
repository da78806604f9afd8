"""The benchmark that measures the people (``python -m benchmarks.population``)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.population import VIEWS, occasion, told_apart


def test_people_are_told_apart_by_the_share_of_pairs_in_the_right_order() -> None:
    embeddings = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]])
    same, different, area = told_apart(np.array([0, 0, 1, 1]), embeddings)
    assert same == pytest.approx(0.8)
    assert different == pytest.approx((0 - 0.6 + 0.6 + 0) / 4)
    assert area == 1.0


def test_an_occasion_is_the_same_when_drawn_again_and_no_two_are_alike() -> None:
    first = [occasion(0, 1, number, view) for number, view in enumerate(VIEWS)]
    assert first == [occasion(0, 1, number, view) for number, view in enumerate(VIEWS)]
    assert len(set(map(repr, first))) == len(VIEWS)
    assert all(abs(moment.pose.yaw) <= 30 for moment in first)


def test_the_contact_sheet_has_people_down_and_occasions_across(tmp_path: Path) -> None:
    file = tmp_path / "sheet.png"
    command = [sys.executable, "-m", "benchmarks.population", "--people", "2", "--sheet", str(file)]
    subprocess.run(command, check=True, timeout=120)
    assert Image.open(file).size == (8 * 64, 2 * 64)
