"""A trial's exported generator is the trial's generator, bit for bit, in a file that everything else reads."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.numpy import load_file
from safetensors.torch import save

from clstudy.assets import asset_path
from clstudy.assets.model_files import find_files, generator_digest
from clstudy.cli.generators import main
from clstudy.cli.run import main as run_study
from clstudy.errors import UserError
from clstudy.generators import load_generators
from clstudy.generators.base import GENERATORS, DomainGenerator
from clstudy.generators.checkpoints.reading import read_checkpoint
from clstudy.generators.embedded_generator import EmbeddedGenerator
from clstudy.generators.stylegan2 import StyleGAN2, StyleGAN2Settings
from clstudy.metrics.lpips import LPIPS
from clstudy.records.results import result_path
from clstudy.records.rows import RESULT_SCHEMA, STAGE_KEYS
from clstudy.settings.profiles import Profile, mystyle
from clstudy.settings.trial_spec import TrialSpec
from clstudy.storage.content_addressed_store import StudyStore, digest_of
from clstudy.storage.places import open_place
from clstudy.storage.trees import copy_tree
from clstudy.study.export import choose_trial
from clstudy.study.stored_study import stage_keys
from clstudy.trial.requests import Basis
from clstudy.trial.stage_runner import StageRunner
from tests.support import persistence_writer as writer
from tests.support.object_store import BUCKET, object_store
from tests.support.small_study import PROFILE, make_photos

DATA = Path(__file__).parents[1] / "data"
TRIAL = "anna-er_rand-k2-lr0.003-s0"


@pytest.fixture(scope="module")
def study(small_study: Path) -> Path:
    return small_study


@pytest.fixture(scope="module")
def exported(study: Path) -> Path:
    out = study.parent / "final.safetensors"
    assert main(["export", str(study), TRIAL, "--to", str(out)]) == 0
    return out


def images_of_file(path: Path, profile: Profile, latents: torch.Tensor) -> torch.Tensor:
    """As a study sees the file that is given to it as its generator."""
    load_generators()
    kind = GENERATORS["stylegan2"]
    device = torch.device("cpu")
    generator = kind.build(kind.read({"generator": path}), profile, device, LPIPS())
    return images(generator, None, latents)


@torch.no_grad()
def images(generator: DomainGenerator, weights: dict[str, torch.Tensor] | None, latents: torch.Tensor) -> torch.Tensor:
    return generator.fresh(weights)(latents)


def test_its_images_are_the_trials_bit_for_bit(study: Path, exported: Path) -> None:
    runner = StageRunner.personalising(Basis(PROFILE, "any"), EmbeddedGenerator(), LPIPS(), [], StudyStore(study))
    keys = stage_keys(study, TRIAL)
    assert keys is not None and len(keys) == 3
    latents = torch.randn(4, StyleGAN2Settings().w_dim, generator=torch.Generator().manual_seed(0))
    final, first = (
        images(runner.workload.generator, runner.trainer.stored_weights(key), latents) for key in (keys[-1], keys[0])
    )
    found = images_of_file(exported, replace(mystyle(), compute=PROFILE.compute), latents)
    assert torch.equal(found, final)
    assert not torch.equal(found, first) and not torch.equal(found, images(runner.workload.generator, None, latents))
    # the mapping network is the pretrained one
    network = StyleGAN2(read_checkpoint(exported).settings)
    network.load_state_dict(
        {name: torch.from_numpy(value) for name, value in read_checkpoint(exported).tensors.items()}
    )
    pretrained = EmbeddedGenerator().network
    z = latents[:, : network.settings.z_dim]
    assert torch.equal(network.mapping(z), pretrained.mapping(z))


def test_what_the_file_says(study: Path, exported: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["inspect", str(exported)]) == 0
    text = capsys.readouterr().out
    for fact in (f"trial: {TRIAL}", "study: small", "strategy: er_rand", "K: 2", "learning rate: 0.003", "clstudy: "):
        assert f"  {fact}" in text
    assert "licence of embedded_generator.safetensors: MIT" in text and "64 px" in text
    with safe_open(exported, "numpy") as file:
        header = json.dumps(file.metadata())
    assert str(study.parent) not in header and "/" not in header
    again = tmp_path / "again.safetensors"
    assert main(["export", str(study), TRIAL, "--to", str(again)]) == 0
    assert again.read_bytes() == exported.read_bytes()


def test_a_study_can_begin_with_it(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_photos(tmp_path / "photos", ("anna",))
    shutil.copy(asset_path("face_embedder.onnx"), tmp_path / "arcface.onnx")
    grid = {"identity": 1, "strategy": ["lower"], "learning_rate": [0.003]}
    (tmp_path / "space.yaml").write_text(yaml.safe_dump({"name": "next", "profile": "mystyle", "grid": grid}))
    options = ["--space", "space.yaml", "--device", "cpu", "--dry-run", "--weights", f"generator={exported}"]
    assert run_study([*options, "--weights", "arcface=arcface.onnx"]) == 0
    assert "64 px" in capsys.readouterr().out


def test_a_generator_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A study of the mystyle profile, whose pretrained network must be named; weights lie in the stage, as once."""
    reference = load_file(DATA / "stylegan2_32.safetensors")
    tensors = {name.removeprefix("net."): value for name, value in reference.items() if name.startswith("net.")}
    pickle = tmp_path / "ffhq.pkl"
    writer.dump(pickle, writer.snapshot(writer.network(tensors, writer.ordinary())))
    profile = replace(mystyle(), resources=PROFILE.resources)
    spec = TrialSpec(identity="anna", strategy="upper", buffer_size=None, learning_rate=0.0003, seed=0)
    out = tmp_path / "study"
    digest = generator_digest(profile, find_files(profile, [f"generator={pickle}"]))
    document = {
        "name": "paper",
        "profile": profile.to_dict(),
        "trials": [spec.columns()],
        "generator": digest,
        "fingerprint": {},
        "data_digests": {},
        "timestamps": {},
    }
    (out / "results").mkdir(parents=True)
    (out / "study.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(document))))
    load_generators()
    kind = GENERATORS["stylegan2"]
    generator = kind.build(kind.read({"generator": pickle}), profile, torch.device("cpu"), LPIPS())
    torch.manual_seed(0)
    tuned = {
        name: value + 0.01 * torch.randn_like(value)
        for name, value in generator.tunable_state(generator.fresh()).items()
    }
    key = digest_of({"stage": 1})
    StudyStore(out).stages.put(key, {"stage.json": b"{}", "weights.safetensors": save(tuned)})
    table = RESULT_SCHEMA.empty_table().replace_schema_metadata({STAGE_KEYS: json.dumps([key])})
    pq.write_table(table, result_path(out, spec.trial_id))

    target = tmp_path / "anna.safetensors"
    assert main(["export", str(out), "anna upper", "--to", str(target), "--weights", f"generator={pickle}"]) == 0
    latents = torch.randn(2, *generator.latent_shape, generator=torch.Generator().manual_seed(1))
    assert torch.equal(images_of_file(target, profile, latents), images(generator, tuned, latents))
    found = read_checkpoint(target)
    assert any("licence of the pretrained checkpoint" in note for note in found.notes)
    assert np.array_equal(found.tensors["synthesis.b8.conv0.noise_const"], tensors["synthesis.b8.conv0.noise_const"])

    other = tmp_path / "other.pkl"
    writer.dump(
        other,
        writer.snapshot(writer.network({**tensors, "mapping.w_avg": tensors["mapping.w_avg"] + 1}, writer.ordinary())),
    )
    capsys.readouterr()
    for weights, text in ((other, "not the one the study began with"), (tmp_path / "none.pkl", "no such file")):
        options = ["--to", str(tmp_path / "x.safetensors"), "--weights", f"generator={weights}"]
        assert main(["export", str(out), "anna upper", *options]) == 2
        assert text in capsys.readouterr().err


def test_a_study_in_an_object_store(study: Path, exported: Path, tmp_path: Path) -> None:
    key = (stage_keys(study, TRIAL) or [""])[-1]
    with object_store() as query:
        place = open_place(f"s3://{BUCKET}/{tmp_path.name}/small?{query}")
        copy_tree(study, place, lambda name: name.startswith(("study.yaml", f"results/{TRIAL}")) or key in name)
        out = tmp_path / "remote.safetensors"
        assert main(["export", place.uri, TRIAL, "--to", str(out)]) == 0
    assert out.read_bytes() == exported.read_bytes()


def test_mistakes(study: Path, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(study, copy)
    before = exported.read_bytes()

    def refused(trial: str, to: Path = tmp_path / "x.safetensors") -> str:
        assert main(["export", str(copy), trial, "--to", str(to)]) == 2
        return capsys.readouterr().err

    assert "exists already" in refused(TRIAL, exported) and exported.read_bytes() == before
    assert "ends in .safetensors" in refused(TRIAL, tmp_path / "x.pt")
    assert f"Did you mean '{TRIAL}'" in refused("ana-er_rand-k2-lr0.003-s0")
    assert "matches 3 trials" in refused("anna*")
    (key,) = (stage_keys(copy, TRIAL) or [])[-1:]
    StudyStore(copy).weights.remove(key)
    assert "the final weights" in refused(TRIAL)
    for key in (str(tmp_path), "../../photos"):  # a result file from elsewhere must not lead out of the folder
        table = pq.read_table(result_path(copy, TRIAL)).replace_schema_metadata({STAGE_KEYS: json.dumps([key])})
        pq.write_table(table, result_path(copy, TRIAL))
        assert "is not finished" in refused(TRIAL) and (tmp_path / "copy").is_dir()
    result_path(copy, TRIAL).unlink()
    assert "is not finished" in refused(TRIAL)
    (copy / "study.yaml").unlink()
    assert "is not a study" in refused(TRIAL)
    assert not (tmp_path / "x.safetensors").exists()


def test_which_trial() -> None:
    specs = [
        TrialSpec(identity=name, strategy=strategy, buffer_size=size, learning_rate=0.003, seed=0)
        for name in ("ann", "anna")
        for strategy, size in (("lower", None), ("er_rand", 3), ("er_rand", 30))
    ]
    for spec in specs:
        assert choose_trial(specs, spec.trial_id) is spec
    assert choose_trial(specs, "ann er_rand K=3") is specs[1], "a name that begins another one is meant as it is"
    assert choose_trial(specs, "anna-low") is specs[3] and choose_trial(specs, "*a-*k30-*") is specs[5]
    for several in ("ann", "ann-er", "*k3-*"):
        with pytest.raises(UserError, match="name one"):
            choose_trial(specs, several)
