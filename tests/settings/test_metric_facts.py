"""What is known of metrics without torch: read from class bodies, from a user's class, from ``study.yaml``."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import clstudy
from clstudy.analysis.printed import panel_title
from clstudy.analysis.score_tables import ordered_panels
from clstudy.settings.claims import Primary, read_statements
from clstudy.settings.metric_facts import (
    BALANCED,
    EDITED,
    NOVEL_VIEW,
    RECONSTRUCTION,
    SYNTHESIS,
    TURNED,
    MetricFacts,
    OwnMetric,
    known_metrics,
    metrics_in,
    packaged_metrics,
    read_own_metrics,
)
from clstudy.settings.overrides import SettingError, checked_settings, parse_settings
from clstudy.settings.profiles import smoke
from tests.support.documentation import documented_block

PSNR = packaged_metrics()["psnr"]
TITLES = [
    "Reconstruction LPIPS",
    "Reconstruction ID similarity",
    "Reconstruction LPIPS of eyes and mouth",
    "Reconstruction PSNR (dB)",
    "Reconstruction DISTS",
    "Synthesis ID similarity",
    "Synthesis FID (few images: biased upward)",
    "Synthesis KID (few images: noisy)",
    "Reconstruction LPIPS as published",
    "Reconstruction ID similarity as published",
    "Reconstruction PSNR as published (dB)",
    "Reconstruction DISTS as published",
    "Synthesis ID similarity as published",
]
"""As they stood in reports before they were facts of classes, in the order of the tables."""


def sharpness() -> OwnMetric:
    return OwnMetric(
        place="mine:Sharpness", source="5e", facts=replace(PSNR, name="sharpness", title="sharpness", decimals=1)
    )


def test_titles_and_the_order_of_tables_are_as_they_always_were() -> None:
    metrics = packaged_metrics()
    panels = ordered_panels(metrics)
    assert [panel_title(metrics, panel) for panel in panels if panel[0] in (RECONSTRUCTION, SYNTHESIS)] == TITLES
    rebuilt = [metric for protocol, metric in panels if protocol == RECONSTRUCTION]
    for apart in (BALANCED, NOVEL_VIEW):
        assert [metric for protocol, metric in panels if protocol == apart] == rebuilt, "scored apart"
    assert [panel for panel in panels if panel[0] in (TURNED, EDITED)] == [("turned", "id"), ("edited", "id")]
    assert panel_title(metrics, (BALANCED, "lpips")) == "Balanced reconstruction LPIPS"
    assert panel_title(metrics, ("synthesis", "psnr")) == "Synthesis psnr", "psnr is not scored under it"


def test_a_metric_of_ones_own_stands_after_the_packaged_ones_and_before_those_as_published() -> None:
    panels = ordered_panels(known_metrics([sharpness()]))
    assert panels.index(("reconstruction", "sharpness")) == panels.index(("reconstruction", "dists")) + 1


def test_a_packaged_metric_is_one_file_and_one_line(tmp_path: Path) -> None:
    """The documented own metric, moved into the package as the documentation says."""
    folder = tmp_path / "metrics"
    shutil.copytree(Path(clstudy.__file__).parent / "metrics", folder)
    source = documented_block("metric").replace("class Sharpness", '@METRICS.register("sharpness")\nclass Sharpness')
    (folder / "sharpness.py").write_text(f"from clstudy.metrics.base import METRICS\n{source}")
    listed = (folder / "__init__.py").read_text()
    (folder / "__init__.py").write_text(listed.replace('"psnr", ', '"psnr", "sharpness", '))
    found = metrics_in(folder)
    assert list(found) == [*list(packaged_metrics())[:4], "sharpness", *list(packaged_metrics())[4:]]
    assert found["sharpness"] == MetricFacts(
        name="sharpness",
        higher_is_better=False,
        title="sharpness error (log ratio)",
        decimals=4,
        needs=(),
        in_reconstruction=True,
        in_synthesis=False,
        of_set=False,
    )
    (folder / "sharpness.py").write_text((folder / "sharpness.py").read_text().replace(" = False, ", " = bool(0), "))
    with pytest.raises(ValueError, match=r"sharpness\.py: line \d+: 'bool\(0\)' is not a literal"):
        metrics_in(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "Sharp"}, "name is 'Sharp'"),
        ({"higher_is_better": 1}, "higher_is_better is 1"),
        ({"title": "two\nlines"}, "one line"),
        ({"title": "x" * 61}, "at most 60"),
        ({"decimals": True}, "decimals is True"),
        ({"needs": "inception"}, "needs is 'inception'"),
        ({"in_reconstruction": False}, "both False"),
        ({"of_set": True}, "of_set is True"),
        ({"of_identity": True, "in_reconstruction": False, "in_synthesis": True}, "of_identity is True"),
    ],
)
def test_facts_that_cannot_be_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(PSNR, **change)


def test_what_study_yaml_says_of_a_metric_is_what_its_class_said() -> None:
    one = sharpness()
    assert read_own_metrics({one.place: one.document()}) == (one,)
    assert read_own_metrics(None) == ()


@pytest.mark.parametrize(
    "entries",
    [
        [],
        {"mine:Sharpness": None},
        {"mine:Sharpness": {"source": "5e"}},
        {"mine:Sharpness": sharpness().document() | {"source": 5}},
        {"mine:Sharpness": sharpness().document() | {"name": "lpips"}},
        {"mine:Sharpness": sharpness().document() | {"colour": "red"}},
        {7: sharpness().document()},
    ],
)
def test_a_damaged_study_yaml_is_refused(entries: object) -> None:
    with pytest.raises(ValueError):
        read_own_metrics(entries)


def test_settings_take_metrics_of_ones_own_and_refuse_what_is_no_name() -> None:
    asked = parse_settings(["evaluation.metrics=lpips,my_metrics:Sharpness"], smoke())
    assert checked_settings(asked, smoke())["evaluation"]["metrics"] == ("lpips", "my_metrics:Sharpness")
    for name in ("my_metrics:", ":Sharpness", "my metrics:Sharpness", "a:b:c"):
        with pytest.raises(SettingError, match="not module:Name"):
            checked_settings({"evaluation": {"metrics": ["lpips", name]}}, smoke())


def test_a_claim_may_name_what_the_study_measures() -> None:
    claim = {"metric": "sharpness", "score": "aip", "between": ["er_hull", "lower"]}
    (statement,) = read_statements([{"primary": claim}], known_metrics([sharpness()]))
    assert statement.primary is not None and statement.primary.metric == "sharpness"
    with pytest.raises(ValueError, match="not a metric"):
        read_statements([{"primary": claim}])
    assert Primary.model_validate(claim | {"metric": "mine:Sharpness"}).metric == "mine:Sharpness"
