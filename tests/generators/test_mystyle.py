"""The mystyle profile end to end: a pickle with the published structure, an ArcFace file, a folder of photos.

Everything is the real thing in small: the checkpoint is the 32 px reference network, the ArcFace network the packaged
embedder under the name insightface gives to its own, and the profile differs from ``mystyle`` in its steps only.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from mlflow import MlflowClient
from PIL import Image
from safetensors.numpy import load_file

from clstudy.assets import asset_path
from clstudy.cli.run import main
from clstudy.errors import UserError
from clstudy.generators.checkpoint_generator import CheckpointKind
from clstudy.generators.ir_se_encoder import IRSEEncoder
from clstudy.identities.dcgan import LATENT_SIZE, FaceSource
from clstudy.settings.profiles import PROFILES
from clstudy.tracking.local_database import sqlite_uri
from tests.cli.test_run import ENV, TRIAL_RUNS
from tests.support import persistence_writer as writer

DATA = Path(__file__).parents[1] / "data"
PEOPLE, TIMESTAMPS, TRAIN, TEST = ("anna", "ben"), 2, 3, 2

PROFILE = """
from dataclasses import replace
from clstudy.settings.profiles import PROFILES, AnchorSettings, mystyle
from clstudy.cli.run import main

def small():
    profile = mystyle()
    return replace(
        profile,
        name="small",
        trainer=replace(profile.trainer, epochs=2),
        inversion=replace(profile.inversion, steps=3),
        anchors=AnchorSettings(steps=4),
        evaluation=replace(profile.evaluation, synthesis_images=2),
        resources=replace(profile.resources, cpus=1.0, threads=1),
    )

PROFILES.register("small")(small)
"""
DRIVER = f"""
import sys
from clstudy.cli.run import main
{PROFILE}
sys.exit(main(sys.argv[1:]))
"""


def reference_tensors() -> dict[str, np.ndarray]:
    tensors = load_file(DATA / "stylegan2_32.safetensors")
    return {name.removeprefix("net."): value for name, value in tensors.items() if name.startswith("net.")}


OWN = ("latent_avg", "adds_mean")
"""What lies beside the published state dict, not in it."""


def write_encoder(path: Path, w_dim: int, mean: float = 0.0) -> None:
    torch.manual_seed(0)
    state = {f"encoder.{name}": value for name, value in IRSEEncoder(w_dim).state_dict().items() if name not in OWN}
    torch.save({"state_dict": state, "latent_avg": torch.full((1, w_dim), mean)}, path)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a researcher would have it: weights, photos, a search space."""
    root = tmp_path_factory.mktemp("mystyle")
    (root / "weights").mkdir()
    writer.dump(root / "weights" / "ffhq.pkl", writer.snapshot(writer.network(reference_tensors(), writer.ordinary())))
    shutil.copy(asset_path("face_embedder.onnx"), root / "weights" / "w600k_r50.onnx")
    count = len(PEOPLE) * TIMESTAMPS * (TRAIN + TEST)
    faces = iter(FaceSource().draw(np.random.default_rng(0).standard_normal((count, LATENT_SIZE))))
    for person in PEOPLE:
        for t in range(TIMESTAMPS):
            for split, photos in (("train", TRAIN), ("test", TEST)):
                folder = root / "photos" / person / f"t{t}" / split
                folder.mkdir(parents=True)
                for number in range(photos):
                    Image.fromarray(next(faces)).resize((32, 32)).save(folder / f"{number}.png")
    grid = {"identity": 2, "strategy": ["lower", "er_rand", "mergan_jtr", "ewc"], "buffer_size": [2]}
    space = {"name": "small", "profile": "small", "grid": {**grid, "learning_rate": [0.0003]}, "seeds": [0]}
    (root / "small.yaml").write_text(yaml.safe_dump(space))
    (root / "full.yaml").write_text(yaml.safe_dump({**space, "name": "full", "profile": "mystyle"}))
    (root / "driver.py").write_text(DRIVER)
    return root


def drive(place: Path, *options: str, space: str = "small.yaml") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "driver.py", "--space", space, "--device", "cpu", *options]
    return subprocess.run(command, cwd=place, env=ENV, capture_output=True, text=True, timeout=900)


@pytest.fixture
def drive_here(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """``drive`` without a process of its own, for what starts no Ray."""

    def run_main(*options: str) -> subprocess.CompletedProcess[str]:
        arguments = ["--space", "small.yaml", "--device", "cpu", *options]
        capsys.readouterr()
        code = main(arguments)
        return subprocess.CompletedProcess(arguments, code, *capsys.readouterr())

    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(PROFILES, "_entries", dict(PROFILES.items()))
    exec(PROFILE, {})
    return run_main


@pytest.mark.slow
@pytest.mark.ci_slow
def test_the_study_runs_from_checkpoint_and_photos_and_resumes(
    place: Path, drive_here: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = drive(place, "--mlflow-images", "on")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 training and 2 test photos each, 32 px" in done.stdout
    assert "metrics  lpips, id, psnr" in done.stdout
    for metric in ("dists", "fid", "kid"):
        assert f"left out {metric}: no" in done.stdout
    table = pq.read_table(place / "runs" / "small" / "results")
    assert table.num_rows == 4 * 2 * (1 + 2) * (3 * TEST + 2)
    assert set(table["metric"].to_pylist()) == {"lpips", "id", "psnr"}
    assert np.isfinite(table["value"].to_numpy()).all()
    study = yaml.safe_load((place / "runs" / "small" / "study.yaml").read_text())
    assert set(study["metric_files"]) == {"arcface"}
    again = drive_here()
    assert "every trial is finished already" in again.stdout, again.stdout + again.stderr


@pytest.mark.slow
@pytest.mark.ci_slow
def test_the_tracker_has_every_step_of_every_trial(place: Path) -> None:
    """The last one too: its pictures are large enough to be lost with the worker that sends them."""
    client = MlflowClient(sqlite_uri(place / "runs" / "mlflow.db"))
    experiment = client.get_experiment_by_name("small")
    runs = client.search_runs([experiment.experiment_id], TRIAL_RUNS)
    assert len(runs) == 8
    for run in runs:
        steps = [entry.step for entry in client.get_metric_history(run.info.run_id, "ap/reconstruction_lpips")]
        assert steps == list(range(TIMESTAMPS)), run.data.tags
        assert len(client.list_artifacts(run.info.run_id, "faces")) == TIMESTAMPS


@pytest.mark.slow
@pytest.mark.ci_slow
def test_real_peoples_pictures_stay_in_the_storage_unless_told_otherwise(place: Path) -> None:
    space = yaml.safe_load((place / "small.yaml").read_text())
    space["grid"] |= {"identity": 1, "strategy": ["lower"]}
    (place / "private.yaml").write_text(yaml.safe_dump({**space, "name": "private"}))
    done = drive(place, space="private.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    client = MlflowClient(sqlite_uri(place / "runs" / "mlflow.db"))
    experiment = client.get_experiment_by_name("private")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED" and "aip/reconstruction_lpips" in run.data.metrics
    assert client.list_artifacts(run.info.run_id) == []
    assert not list((place / "runs" / "private" / "mlflow-artifacts").rglob("*"))
    assert list((place / "runs" / "private" / "stages").glob("??/*/faces.png")), "the report has them, at home"


def test_an_encoder_gives_other_anchors_and_other_stages(
    place: Path, drive_here: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    write_encoder(place / "encoder.pt", 24)
    plan = drive_here("--weights", "encoder=encoder.pt", "--dry-run")
    assert plan.returncode == 0, plan.stdout + plan.stderr
    assert "0 done already" in plan.stdout
    write_encoder(place / "encoder.pt", 32)
    refused = drive_here("--weights", "encoder=encoder.pt", "--dry-run")
    assert refused.returncode == 2 and "for a generator with 24 numbers per latent" in refused.stderr


def alone(place: Path) -> Path:
    """MyStyle's personalised model: the synthesis network of the generator, and nothing else."""
    path = place / "mystyle.pt"
    writer.torch_dump(path, writer.synthesis_alone(reference_tensors(), writer.ordinary()))
    return path


def test_a_synthesis_network_alone_takes_its_mean_latent_from_base_or_encoder(place: Path) -> None:
    kind, whole = CheckpointKind(), place / "weights" / "ffhq.pkl"
    expected = kind.read({"generator": whole}).arrays["generator/mapping.w_avg"]
    assert expected.any()
    files = {"generator": alone(place)}
    with pytest.raises(
        UserError, match=r"mystyle\.pt: it is a synthesis network alone.*--weights encoder=FILE.*base=ffhq"
    ):
        kind.read(files)
    np.testing.assert_array_equal(kind.read({**files, "base": whole}).arrays["generator/mapping.w_avg"], expected)
    write_encoder(place / "own_encoder.pt", 24, mean=0.25)
    with_encoder = kind.read({**files, "encoder": place / "own_encoder.pt"}).arrays
    np.testing.assert_array_equal(with_encoder["generator/mapping.w_avg"], np.full(24, 0.25, np.float32))
    with pytest.raises(UserError, match=r"mystyle\.pt cannot be the base of mystyle\.pt: it has 0 mapping layers"):
        kind.read({**files, "base": files["generator"]})
    with pytest.raises(UserError, match="which has a mapping network and a mean latent of its own; leave base out"):
        kind.read({"generator": whole, "base": whole})


@pytest.mark.slow
def test_a_study_of_a_synthesis_network_alone_has_the_rows_of_the_whole_generator(place: Path) -> None:
    """From the file that MyStyle's train.py saves to the end; with its base, all that the whole one has is known."""
    some = ["--identities", "anna"]
    files = {"whole": "ffhq.pkl", "alone": "mystyle.pt"}
    shutil.copy(alone(place), place / "weights" / "mystyle.pt")
    rows = {}
    for name, file in files.items():
        weights = ["--weights", f"generator=weights/{file}"]
        weights += ["--weights", "base=weights/ffhq.pkl"] if name == "alone" else []
        done = drive(place, *some, *weights, "--out", f"runs/{name}")
        assert done.returncode == 0, done.stdout + done.stderr
        table = pq.read_table(place / "runs" / name / "results").drop(["trial"])
        rows[name] = table.sort_by([(column, "ascending") for column in table.column_names if column != "value"])
    assert rows["alone"].num_rows > 50 and rows["alone"].equals(rows["whole"])
    refused = drive(place, *some, "--weights", "generator=weights/mystyle.pt", "--out", "runs/none")
    assert refused.returncode == 2 and "synthesis network alone" in refused.stderr and "Traceback" not in refused.stderr


def test_wrong_files_and_missing_things_are_one_message_each(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--space", "paper_2d"]) == 2
    text = capsys.readouterr().err
    for what in ("generator: no StyleGAN2 or EG3D checkpoint", "arcface: no ArcFace", "photos: no folder 'photos'"):
        assert text.count(what) == 1, text
    monkeypatch.chdir(place)
    (place / "wrong.pkl").write_bytes((place / "weights" / "w600k_r50.onnx").read_bytes()[:5000])
    options = ["--space", "full.yaml", "--device", "cpu", "--dry-run"]
    assert main([*options, "--weights", "generator=wrong.pkl"]) == 2
    text = capsys.readouterr().err
    assert "wrong.pkl" in text and "Traceback" not in text and len(text.strip().splitlines()) == 1
    assert main(options) == 0
    assert "measured" in capsys.readouterr().out, "the time is said to be a guess"


def test_photos_of_another_size_than_the_checkpoints_are_refused(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "test"):
        folder = tmp_path / "photos" / "anna" / "t0" / split
        folder.mkdir(parents=True)
        Image.new("RGB", (64, 64)).save(folder / "0.png")
    monkeypatch.chdir(place)
    options = ["--space", "full.yaml", "--device", "cpu", "--identities", "1", "--dry-run"]
    assert main([*options, "--data", str(tmp_path / "photos")]) == 2
    assert "wrong size 64x64, expected 32x32 pixels" in capsys.readouterr().err


def test_photos_aligned_for_another_generator_are_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    options = ["--space", "full.yaml", "--device", "cpu", "--dry-run"]
    record = place / "photos" / "prepared.json"
    for alignment, code in (("embedded", 2), ("ffhq", 0)):
        record.write_text(json.dumps({"alignment": alignment}))
        assert main(options) == code
    record.unlink()
    assert "aligned as 'embedded', profile 'mystyle' expects 'ffhq'" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.ci_slow
def test_the_stored_weights_are_the_tuned_synthesis_network(place: Path) -> None:
    """And nothing else: a stage can be reopened with the checkpoint alone."""
    stage = next((place / "runs" / "small" / "weights").glob("??/*/weights.safetensors"))
    stored = load_file(stage)
    tuned = {name.removeprefix("synthesis."): value for name, value in reference_tensors().items()}
    assert set(stored) <= set(tuned)
    assert any(not np.array_equal(stored[name], tuned[name]) for name in stored)
    document = json.loads(
        (place / "runs" / "small" / "stages" / stage.parts[-3] / stage.parts[-2] / "stage.json").read_text()
    )["request"]
    assert document["alignment"] == "ffhq" and set(document["metric_files"]) == {"arcface"}
