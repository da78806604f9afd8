"""Weights from outside the package: found, named, missed; and what a profile can still do without them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from clstudy.assets import manifest
from clstudy.assets.model_files import ROLES, find_files, generator_digest, metric_digests
from clstudy.errors import UserError
from clstudy.settings.metric_facts import packaged_metrics
from clstudy.settings.profiles import PROFILES, Profile
from clstudy.study.preflight import equip

MYSTYLE = PROFILES["mystyle"]()


def touch(folder: Path, *names: str) -> list[Path]:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(name.encode())
    return [folder / name for name in names]


def ready(tmp_path: Path, *names: str) -> list[str]:
    """Options for weights, with a photo folder beside them."""
    (tmp_path / "photos").mkdir()
    touch(tmp_path / "w", *names)
    return [str(tmp_path / "w")]


def on_cpu(tmp_path: Path, options: list[str], **more: object):
    return equip(MYSTYLE, weights=options, device="cpu", data=str(tmp_path / "photos"), **more)


def test_files_are_found_by_their_usual_names_and_digested(tmp_path: Path) -> None:
    touch(tmp_path, "ffhq.pkl", "w600k_r50.onnx", "unrelated.bin")
    found = find_files(MYSTYLE, [str(tmp_path)])
    assert {role: path.name for role, path in found.paths.items()} == {
        "generator": "ffhq.pkl",
        "arcface": "w600k_r50.onnx",
    }
    assert found.digests["generator"] == hashlib.sha256(b"ffhq.pkl").hexdigest()
    assert found.missing_required == () and found.missing_optional == ("encoder", "base", "dists", "inception")


def test_a_named_file_goes_before_the_folder(tmp_path: Path) -> None:
    touch(tmp_path, "ffhq.pkl", "mine.pkl", "arcface.onnx")
    found = find_files(MYSTYLE, [str(tmp_path), f"generator={tmp_path / 'mine.pkl'}"])
    assert found.paths["generator"].name == "mine.pkl"


def test_a_pack_of_insightface_is_looked_into(tmp_path: Path) -> None:
    touch(tmp_path / "buffalo_l", "det_10g.onnx", "w600k_r50.onnx", "genderage.onnx")
    found = find_files(MYSTYLE, [f"arcface={tmp_path / 'buffalo_l'}"])
    assert found.paths["arcface"].name == "w600k_r50.onnx"
    with pytest.raises(UserError, match="generator: .*buffalo_l is a folder; expected a file"):
        find_files(MYSTYLE, [f"generator={tmp_path / 'buffalo_l'}"])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["generater=x.pkl"], "unknown role 'generater'. Did you mean 'generator'?"),
        (["generator=missing.pkl"], "--weights generator=missing.pkl: no such file. NVIDIA's networks for FFHQ"),
        (["nowhere"], "--weights nowhere: no such folder"),
        (["a", "b"], "two folders"),
        (["encoder=a", "encoder=b"], "gives encoder twice"),
    ],
)
def test_wrong_options_are_refused(options: list[str], says: str) -> None:
    with pytest.raises(UserError) as error:
        find_files(MYSTYLE, options)
    assert says in str(error.value)


def test_a_profile_with_packaged_weights_takes_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'embedded' has all its weights in the package"):
        find_files(PROFILES["embedded"](), [str(tmp_path)])
    profile = PROFILES["embedded"]()
    found = find_files(profile, [])
    assert generator_digest(profile, found) == manifest()["embedded_generator.safetensors"]["sha256"]
    assert metric_digests(found) == {}


def test_everything_that_is_missing_is_said_at_once_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError) as error:
        equip(MYSTYLE)
    text = str(error.value)
    assert "4 missing" in text
    for part in (
        "catalog.ngc.nvidia.com",
        "buffalo_l",
        "clstudy.identities prepare",
        "--device cpu",
        "--weights generator=",
    ):
        assert part in text
    with pytest.raises(UserError, match="1 missing:\n  - photos"):
        touch(tmp_path / "w", "ffhq.pkl", "arcface.onnx")
        equip(MYSTYLE, weights=[str(tmp_path / "w")], address="auto")


def test_metrics_without_weights_are_left_out_by_name(tmp_path: Path) -> None:
    have = on_cpu(tmp_path, ready(tmp_path, "ffhq.pkl", "arcface.onnx", "dists.safetensors"))
    assert have.profile.evaluation.metrics == ("lpips", "id", "psnr", "dists")
    assert set(have.left_out) == {"fid", "kid"} and "pytorch-fid" in have.left_out["fid"]
    assert set(have.metric_files) == {"arcface", "dists"} and set(have.files) == {"generator", "arcface", "dists"}
    assert not have.profile.resources.gpus


def test_the_id_metric_may_be_left_out_instead_of_its_weights(tmp_path: Path) -> None:
    options = ready(tmp_path, "ffhq.pkl")
    with pytest.raises(UserError, match="arcface: no ArcFace network"):
        on_cpu(tmp_path, options)
    have = on_cpu(tmp_path, options, without=["id"])
    assert "id" not in have.profile.evaluation.metrics and have.left_out["id"] == "as --without says"
    with pytest.raises(UserError, match="--without blur: profile 'mystyle' has the metrics lpips"):
        on_cpu(tmp_path, options, without=["blur"])
    with pytest.raises(UserError, match="no metric is left"):
        on_cpu(tmp_path, options, without=["lpips", "id", "psnr"])


def test_the_generators_digest_follows_what_its_anchors_are_made_with(tmp_path: Path) -> None:
    def digest(profile: Profile, *names: str) -> str:
        folder = tmp_path / "-".join(names)
        touch(folder, *names)
        return generator_digest(profile, find_files(profile, [str(folder)]))

    slower = replace(MYSTYLE, anchors=replace(MYSTYLE.anchors, steps=10))
    plain = digest(MYSTYLE, "ffhq.pkl")
    assert plain != digest(slower, "ffhq.pkl"), "optimised anchors depend on the steps"
    with_encoder = digest(MYSTYLE, "ffhq.pkl", "encoder.pt")
    with_base = digest(MYSTYLE, "ffhq.pkl", "base.pkl")
    assert with_base != plain, "anchors start from its mean latent"
    assert with_encoder != plain and with_encoder == digest(slower, "ffhq.pkl", "encoder.pt")
    with pytest.raises(UserError, match="needs a StyleGAN2 or EG3D checkpoint"):
        digest(MYSTYLE, "arcface.onnx")


def test_every_role_a_metric_needs_is_known() -> None:
    assert {role for facts in packaged_metrics().values() for role in facts.needs} <= set(ROLES)
