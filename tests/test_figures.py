"""Figures of a study: what is drawn is what the tables say."""

from __future__ import annotations

import io
import re

import pytest
from PIL import Image

from clstudy.analysis.figures import COLOURS, differences, figures, forest_plot
from clstudy.analysis.tables import summarise
from tests.test_report import Study


@pytest.fixture
def summary(tmp_path):
    return summarise(Study(tmp_path / "study").folder)


def test_every_comparison_with_lower_is_one_line_at_its_numbers(summary):
    rows = differences(summary, "forgetting", "lower")
    assert [(row["strategy"], row["buffer_size"]) for row in rows] == [
        ("er_rand", 3), ("er_rand", 5), ("er_hull", 3), ("er_hull", 5)
    ]  # fmt: skip
    (axes,) = forest_plot(rows, score="forgetting", baseline="lower").axes
    drawn = [line for line in axes.get_lines() if len(line.get_xdata()) == 1]
    spans = [line for line in axes.get_lines() if len(line.get_xdata()) == 2][1:]  # the first one is zero
    assert [line.get_xdata()[0] for line in drawn] == [row["mean"] for row in rows]
    assert [list(line.get_xdata()) for line in spans] == [[row["low"], row["high"]] for row in rows]
    assert [line.get_color() for line in drawn] == [COLOURS[row["verdict"]] for row in rows]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == [f"{row['strategy']}  K = {row['buffer_size']}" for row in rows]


def test_files_are_pictures_with_text_and_equal_bytes_again(summary):
    found = figures(summary)
    assert set(found) == {f"{name}_minus_lower.{kind}" for name in ("forgetting", "aip") for kind in ("svg", "png")}
    picture = Image.open(io.BytesIO(found["forgetting_minus_lower.png"]))
    assert min(picture.size) > 200
    svg = found["forgetting_minus_lower.svg"].decode()
    assert "er_hull  K = 5" in re.sub(r"&#160;", " ", svg), "text stays text"
    again = figures(summary)
    assert all(again[name] == content for name, content in found.items() if name.endswith("svg"))


def test_one_identity_has_a_point_and_no_line(tmp_path):
    summary = summarise(Study(tmp_path / "study", identities=("ann",)).folder)
    rows = differences(summary, "aip", "lower")
    (axes,) = forest_plot(rows, score="aip", baseline="lower").axes
    assert len(axes.get_lines()) == 1 + len(rows)
    assert all(row["low"] is None and row["verdict"] == "no interval" for row in rows)


def test_without_lower_there_is_nothing_to_draw(tmp_path):
    names = [f"{person}-lower-lr0.001-s{seed}" for person in ("ann", "bob", "cat") for seed in (0, 1)]
    summary = summarise(Study(tmp_path / "study", skip=names).folder)
    assert figures(summary) == {}
