"""A study's runs for TensorBoard and Weights & Biases, read back by these packages themselves; nothing is sent."""

from __future__ import annotations

import json
import re
import struct
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto import wandb_internal_pb2

from clstudy.cli import tracking
from clstudy.cli.commands import main
from clstudy.tracking.run_contents import MOST_CURVE_POINTS
from tests.support.smoke_study import SmokeStudy

TRIAL = "person_00-er_hull-k3-lr0.003-s0"


def expected(study: Path) -> dict[str, dict[int, float]]:
    """AP_t and R[t, 0] in reconstruction LPIPS, by loops: metric -> timestamp -> value."""
    cells: dict[tuple[int, int], list[float]] = {}
    for row in pq.read_table(study / "results" / f"{TRIAL}.parquet").to_pylist():
        if (row["protocol"], row["metric"]) == ("reconstruction", "lpips"):
            cells.setdefault((row["train_timestamp"], row["test_timestamp"]), []).append(row["value"])
    means = {place: float(np.mean(values)) for place, values in cells.items()}
    last = max(t for t, _ in means)
    return {
        "ap/reconstruction_lpips": {t: float(np.mean([means[t, k] for k in range(t + 1)])) for t in range(last + 1)},
        "r/reconstruction_lpips/k00": {t: means[t, 0] for t in range(last + 1)},
    }


def test_tensorboard_reads_metrics_losses_and_pictures(smoke_study: SmokeStudy, tmp_path: Path) -> None:
    words = ["export-runs", str(smoke_study.study), "--to", "tensorboard", "--out", str(tmp_path)]
    assert main(words) == 0
    assert len(list(tmp_path.iterdir())) == 6, "a folder for every trial"
    assert main(words) == 0, "again: in the place of what was there"
    folder = tmp_path / "person_00_er_hull_K=3"
    assert len(list(folder.iterdir())) == 1
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0, "tensors": 0}).Reload()
    for name, values in expected(smoke_study.study).items():
        found = {event.step: event.value for event in events.Scalars(name)}
        assert found == pytest.approx(values, rel=1e-6)
    assert 1 < len(events.Scalars("loss_by_step/t00")) <= MOST_CURVE_POINTS
    assert [image.step for image in events.Images("faces")] == [0, 1, 2]
    (told,) = events.Tensors("parameters/text_summary")
    assert "| strategy | er_hull |" in told.tensor_proto.string_val[0].decode()


def records(folder: Path) -> list[wandb_internal_pb2.Record]:
    """The records of a run's file, which is a log of LevelDB's form: parts of records in blocks, after a header."""
    (file,) = folder.glob("*.wandb")
    content, place, begun, found = file.read_bytes(), 7, b"", []
    assert content[:4] == b":W&B"
    while place + 7 <= len(content):
        left = 2**15 - place % 2**15
        if left < 7:
            place += left
            continue
        _, size, kind = struct.unpack("<IHB", content[place : place + 7])
        begun += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or its last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(begun)
            found.append(record)
            begun = b""
    return found


def test_wandb_has_offline_runs_with_metrics_losses_and_pictures(smoke_study: SmokeStudy, tmp_path: Path) -> None:
    words = ["export-runs", str(smoke_study.study), "--to", "wandb", "--out", str(tmp_path)]
    assert main(words) == 0 and main(words) == 0
    runs = sorted((tmp_path / "wandb").glob("offline-run-*"))
    assert len(runs) == 6, "the second export is in the place of the first"
    found = {}
    for folder in runs:
        all_of_it = records(folder)
        (run,) = (record.run for record in all_of_it if record.HasField("run"))
        assert run.project == "smoke" and run.host == "clstudy", "whose machine it was is not told"
        found[run.display_name] = (folder, run, all_of_it)
    folder, run, all_of_it = found["person_00 er_hull K=3"]
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["strategy"] == "er_hull" and config["buffer_size"] == 3
    history = [
        {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        for record in all_of_it
        if record.HasField("history")
    ]
    for name, values in expected(smoke_study.study).items():
        assert {row["timestamp"]: row[name] for row in history if name in row} == pytest.approx(values)
    losses = [row["optimiser_step"] for row in history if "loss_by_step/t01" in row]
    assert losses == sorted(losses) and 1 < len(losses) <= MOST_CURVE_POINTS
    pictures = [row["faces.path"] for row in history if "faces.path" in row]
    assert len(pictures) == 3
    with Image.open(folder / "files" / pictures[0]) as image:
        assert image.width > 0


def test_pictures_can_be_left_out(smoke_study: SmokeStudy, tmp_path: Path) -> None:
    words = ["export-runs", str(smoke_study.study), "--to", "tensorboard", "--out", str(tmp_path), "--no-images"]
    assert main(words) == 0
    events = EventAccumulator(str(tmp_path / "person_00_lower"), size_guidance={"images": 0}).Reload()
    assert events.Tags()["images"] == [] and events.Tags()["scalars"]


@pytest.mark.parametrize(("tool", "module"), [("tensorboard", "tensorboard"), ("wandb", "wandb")])
def test_without_its_package_the_extra_is_named(
    tool: str, module: str, smoke_study: SmokeStudy, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, module, None)
    assert main(["export-runs", str(smoke_study.study), "--to", tool, "--out", str(tmp_path / "out")]) == 2
    assert re.search(rf"{tool} is not installed here .*pip install 'clstudy\[{tool}\]'", capsys.readouterr().err)


def test_what_is_no_study_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export-runs", str(tmp_path), "--to", "tensorboard", "--out", str(tmp_path / "out")]) == 2
    assert "is not a study" in capsys.readouterr().err and not list(tmp_path.iterdir())
    assert tracking.export_runs.name == "export-runs"
