"""Metrics scored the published scripts' way, against Pillow, NumPy and networks written out by hand."""

from __future__ import annotations

import importlib.util
import io
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from clstudy.assets.model_files import wanted_roles
from clstudy.cli.run import main
from clstudy.errors import UserError
from clstudy.metrics import load_metrics
from clstudy.metrics.as_published import (
    AsPublished,
    IdentityAsPublished,
    LPIPSAsPublished,
    PSNRAsPublished,
    as_stored,
    stretched,
    to_decimals,
    to_whole_decibels,
)
from clstudy.metrics.base import METRICS, MetricSettings
from clstudy.metrics.dists import DISTSMetric
from clstudy.metrics.ir_se_50 import IRSE50, load_ir_se_50
from clstudy.metrics.lpips import LPIPS
from clstudy.metrics.psnr import PSNRMetric
from clstudy.settings.claims import Primary
from clstudy.settings.metric_facts import as_published
from clstudy.settings.profiles import PROFILES, InversionSettings, key_document
from clstudy.storage.content_addressed_store import digest_of
from clstudy.study.preflight import equip
from clstudy.study.preparation import with_as_published
from clstudy.study.run_options import RunOptions
from clstudy.training.evaluation import TestSet as PreparedPhotos
from clstudy.training.evaluation import evaluate
from tests.generators.test_ir_se_encoder import Sentinel, normalised, prelu
from tests.metrics.test_metrics import write_dists
from tests.support.oracles import official_lpips

load_metrics()


def photos(count: int, size: int = 64, seed: int = 0) -> Tensor:
    """Smooth images, as JPEG is made for, within a part of [-1, 1]."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 6, 6, generator=rng) * 1.2 - 0.5
    return F.interpolate(coarse, (size, size), mode="bicubic", align_corners=False)


def stored_by_hand(images: Tensor) -> np.ndarray:
    """float64 ``[n, h, w, 3]`` in [0, 255]: stretched, rounded, through a JPEG file, one image at a time."""
    read = []
    for image in images.double().numpy().transpose(0, 2, 3, 1):
        grey = (image - image.min()) / (image.max() - image.min()) * 255
        file = io.BytesIO()
        Image.fromarray(np.floor(grey + 0.5).astype(np.uint8)).save(
            file, format="jpeg", quality=75, subsampling="4:2:0"
        )
        read.append(np.asarray(Image.open(file), np.float64))
    return np.stack(read)


def read_back(images: Tensor) -> Tensor:
    """The same as networks take it: float32 ``[n, 3, h, w]`` in [-1, 1]."""
    return torch.from_numpy(stored_by_hand(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def scores(metric: AsPublished, images: Tensor, targets: Tensor) -> np.ndarray:
    return metric.pairs(images, metric.prepare(targets)).numpy()


# --- images ---------------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.floats(-3, 3), st.floats(0.01, 4))
def test_the_least_value_becomes_black_and_the_largest_white(seed: int, low: float, span: float) -> None:
    images = torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(seed)) * span + low
    shown = stretched(images)
    assert shown.shape == (2, 5, 7, 3) and shown.dtype == np.uint8
    assert (shown.min(axis=(1, 2, 3)) == 0).all() and (shown.max(axis=(1, 2, 3)) == 255).all()
    order = np.argsort(images.permute(0, 2, 3, 1).reshape(2, -1).numpy(), axis=1)
    assert (np.diff(np.take_along_axis(shown.reshape(2, -1).astype(int), order, axis=1)) >= 0).all()


@given(st.integers(0, 2**32 - 1), st.integers(-3, 1), st.integers(-8, 8))
@settings(max_examples=25, deadline=None)
def test_an_image_is_stored_alike_whatever_its_range(seed: int, power: int, shift: int) -> None:
    levels = torch.randint(0, 256, (1, 3, 16, 16), generator=torch.Generator().manual_seed(seed)).float()
    other = levels * 2.0**power + shift / 8  # exact in float32, so that the images are equal to the last bit
    torch.testing.assert_close(as_stored(other), as_stored(levels), rtol=0, atol=0)


@given(st.floats(-2, 2, width=32))
def test_a_constant_image_is_not_divided_by_zero(value: float) -> None:
    assert not stretched(torch.full((1, 3, 8, 8), value)).any()


def test_images_are_stored_as_pillow_stores_them() -> None:
    images = photos(3) * 1.7  # beyond [-1, 1], too
    torch.testing.assert_close(as_stored(images), read_back(images), rtol=0, atol=1e-6)
    plain = torch.from_numpy(stretched(images)).permute(0, 3, 1, 2) / 127.5 - 1
    lost = (as_stored(images) - plain).abs().max()
    assert lost > 2 / 255, "JPEG leaves nothing as it was"


# --- values ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=5))
def test_values_are_rounded_to_three_decimals(values: list[float]) -> None:
    assert to_decimals(torch.tensor(values)).tolist() == pytest.approx([round(value, 3) for value in values], abs=1e-12)


def test_decibels_are_cut_to_a_byte() -> None:
    values = torch.tensor([-0.5, 0.0, 19.999, 20.0, 100.0, 255.9, 300.0, float("inf")])
    assert to_whole_decibels(values).tolist() == [0, 0, 19, 20, 100, 255, 255, 255]


def test_psnr_is_that_of_the_stored_pictures_in_whole_decibels() -> None:
    images, targets = photos(4), photos(4) + 0.3 * photos(4, seed=1)
    ours, theirs = stored_by_hand(images), stored_by_hand(targets)
    expected = 10 * np.log10(255**2 / ((ours - theirs) ** 2).mean(axis=(1, 2, 3)))
    assert scores(PSNRAsPublished(), images, targets).tolist() == np.floor(expected).tolist()
    assert scores(PSNRAsPublished(), images, images).tolist() == [100.0] * 4


def test_lpips_is_the_official_one_of_the_stored_pictures() -> None:
    if importlib.util.find_spec("lpips") is None:
        pytest.skip("install the lpips extra to compare with it")
    images, targets = photos(3), photos(3, seed=1)
    ours, theirs = read_back(images), read_back(targets)
    with torch.no_grad():
        expected = official_lpips()(ours, theirs).flatten().double().numpy()
    found = scores(LPIPSAsPublished(), images, targets)
    np.testing.assert_allclose(found, expected, atol=0.0005 + 1e-6)
    assert found.tolist() == [round(value, 3) for value in found]


def test_scores_do_not_depend_on_brightness_and_contrast() -> None:
    """What the published scale hides, and why the ordinary columns are the ones to conclude from."""
    targets = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0)) / 128 - 1
    images = targets.flip(3)
    darker = images / 4 - 0.5
    for metric, ordinary in ((LPIPSAsPublished(), METRICS["lpips"]()), (PSNRAsPublished(), PSNRMetric())):
        assert scores(metric, darker, targets).tolist() == scores(metric, images, targets).tolist()
        prepared = ordinary.prepare(targets)
        assert ordinary.pairs(darker, prepared).tolist() != ordinary.pairs(images, prepared).tolist()


def test_dists_is_the_ordinary_one_of_the_stored_pictures(tmp_path: Path) -> None:
    files = MetricSettings(files={"dists": write_dists(tmp_path)})
    images, targets = photos(2), photos(2, seed=1)
    stored = [read_back(one) for one in (images, targets)]
    ordinary = DISTSMetric(files)
    expected = ordinary.pairs(stored[0], ordinary.prepare(stored[1])).double().numpy()
    metric = METRICS["dists_as_published"](files)
    np.testing.assert_allclose(metric.pairs(images, metric.prepare(targets)).numpy(), expected, atol=0.0005 + 1e-5)


# --- ID -------------------------------------------------------------------------------------------------------------


@cache
def published_state() -> dict[str, Tensor]:
    """A state dict as ``model_ir_se50.pth`` has it, with random weights."""
    torch.manual_seed(0)
    state = {}
    for name, value in IRSE50().state_dict().items():
        if name.endswith("running_var"):
            value = 0.5 + torch.rand(value.shape)
        elif value.ndim == 1:
            value = value * 0.5 + 0.1 * torch.randn(value.shape)
        state[name] = value
    return state


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ir_se_50") / "model_ir_se50.pth"
    torch.save({k: v for k, v in published_state().items() if not k.endswith("num_batches_tracked")}, path)
    return path


def embedding_by_hand(pictures: np.ndarray) -> np.ndarray:
    """Unit embeddings ``[n, 512]`` of whole pictures of 224 px, from the parameters by name."""
    p = published_state()
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
    x = x.unflatten(2, (112, 2)).unflatten(4, (112, 2)).mean(dim=(3, 5))
    x = normalised(F.conv2d(x, p["input_layer.0.weight"], padding=1), p, "input_layer.1")
    x = prelu(x, p["input_layer.2.weight"])
    for unit in range(24):
        at, stride = f"body.{unit}", 2 if unit in (0, 3, 7, 21) else 1
        y = F.conv2d(normalised(x, p, f"{at}.res_layer.0"), p[f"{at}.res_layer.1.weight"], padding=1)
        y = F.conv2d(prelu(y, p[f"{at}.res_layer.2.weight"]), p[f"{at}.res_layer.3.weight"], stride=stride, padding=1)
        y = normalised(y, p, f"{at}.res_layer.4")
        gate = F.relu(F.conv2d(y.mean(dim=(2, 3), keepdim=True), p[f"{at}.res_layer.5.fc1.weight"]))
        gate = F.conv2d(gate, p[f"{at}.res_layer.5.fc2.weight"]).sigmoid()
        short = x[:, :, ::stride, ::stride]
        if f"{at}.shortcut_layer.0.weight" in p:
            short = normalised(F.conv2d(short, p[f"{at}.shortcut_layer.0.weight"]), p, f"{at}.shortcut_layer.1")
        x = short + y * gate
    flat = normalised(x, p, "output_layer.0").reshape(len(x), 512 * 7 * 7)
    z = flat @ p["output_layer.3.weight"].t() + p["output_layer.3.bias"]
    z = (z - p["output_layer.4.running_mean"]) / (p["output_layer.4.running_var"] + 1e-5).sqrt()
    z = (z * p["output_layer.4.weight"] + p["output_layer.4.bias"]).double().numpy()
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def test_id_is_of_the_whole_stored_picture_by_ir_se_50(weights: Path) -> None:
    images, targets = photos(2, 224), photos(2, 224, seed=1)
    ours, theirs = (embedding_by_hand(stored_by_hand(one)) for one in (images, targets))
    metric = IdentityAsPublished(MetricSettings(files={"ir_se_50": weights}))
    prepared = metric.prepare(targets)
    np.testing.assert_allclose(metric.pairs(images, prepared).numpy(), (ours * theirs).sum(axis=1), atol=0.0006)
    generated = metric.synthesis(images, prepared).numpy()
    np.testing.assert_allclose(generated, (ours @ theirs.T).max(axis=1), atol=0.0006)
    assert generated.tolist() == [round(value, 3) for value in generated]


def test_files_that_are_no_such_network_are_refused(tmp_path: Path, weights: Path) -> None:
    path = tmp_path / "model_ir_se50.pth"
    state = published_state()
    whole = weights.read_bytes()
    for content, says in (
        (b"\x89PNG not a torch file", "does not hold the weights of IR-SE-50"),
        (whole[: len(whole) // 2], "does not hold the weights of IR-SE-50"),
        ([torch.zeros(2)], "it holds a list, not a state dict"),
        ({k: v for k, v in state.items() if k != "output_layer.3.bias"}, "1 parameters .*output_layer.3.bias"),
        (state | {"extra": torch.zeros(1)}, "1 parameters are missing or unknown .e.g. extra"),
        (state | {"output_layer.3.bias": torch.zeros(7)}, r"output_layer.3.bias has shape \[7\], expected \[512\]"),
        (state | {"input_layer.2.weight": Sentinel(tmp_path / "ran")}, "does not hold the weights of IR-SE-50"),
    ):
        path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
        with pytest.raises(UserError, match=says) as error:
            load_ir_se_50(path)
        assert str(path) in str(error.value) and "TreB1eN/InsightFace_Pytorch" in str(error.value)
    assert not (tmp_path / "ran").exists(), "nothing in a file is executed"


# --- in a study -----------------------------------------------------------------------------------------------------


def test_without_the_option_nothing_of_a_stage_key_changes() -> None:
    embedded = PROFILES["embedded"]()
    assert not RunOptions(space="any").as_published
    plain = {"metrics": ("lpips", "id", "psnr"), "synthesis_images": 6, "synthesis_anchors": 3}
    assert key_document(embedded.evaluation) == plain
    assert embedded.optional_files == () and "ir_se_50" not in PROFILES["mystyle"]().optional_files
    scored = with_as_published(embedded)
    assert digest_of(key_document(scored.evaluation)) != digest_of(key_document(embedded.evaluation))


def test_every_chosen_metric_of_the_scripts_is_scored_their_way_after_the_ordinary_ones() -> None:
    mystyle = PROFILES["mystyle"]()
    scored = with_as_published(mystyle)
    assert scored.evaluation.metrics == (*mystyle.evaluation.metrics, *as_published().values())
    assert set(wanted_roles(scored)[1]) == {*mystyle.optional_files, "ir_se_50"}
    assert "ir_se_50" not in wanted_roles(mystyle)[1]
    fewer = with_as_published(mystyle, ["lpips", "id"])
    assert fewer.evaluation.metrics[6:] == ("psnr_as_published", "dists_as_published")
    assert "ir_se_50" not in wanted_roles(fewer)[1]


def test_a_metric_that_the_space_asks_for_already_is_not_scored_twice() -> None:
    embedded = PROFILES["embedded"]()
    asked = replace(embedded, evaluation=replace(embedded.evaluation, metrics=("lpips", "lpips_as_published", "psnr")))
    assert with_as_published(asked).evaluation.metrics == (*asked.evaluation.metrics, "psnr_as_published")


def test_what_has_no_weights_is_left_out_by_name(tmp_path: Path) -> None:
    embedded = PROFILES["embedded"]()
    folder = tmp_path / "weights"
    folder.mkdir()
    have = equip(with_as_published(embedded), weights=[str(folder)])
    assert have.profile.evaluation.metrics == ("lpips", "id", "psnr", "lpips_as_published", "psnr_as_published")
    assert have.left_out["id_as_published"].startswith("no IR-SE-50 identity network; optional, for --as-published")
    (folder / "model_ir_se50.pth").write_bytes(b"weights")
    have = equip(with_as_published(embedded), weights=[str(folder)])
    assert "id_as_published" in have.profile.evaluation.metrics and set(have.metric_files) == {"ir_se_50"}
    have = equip(with_as_published(embedded), weights=[str(folder)], without=["id_as_published"])
    assert not have.metric_files, "what is not read is in no key"


def test_a_plan_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--space", "smoke", "--as-published", "--without", "psnr", "--dry-run"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "metrics lpips, id, lpips_as_published" in said and "psnr_as_published" not in said
    assert "left out id_as_published: no IR-SE-50 identity network" in said and "left out psnr: as --without" in said


def test_no_study_is_claimed_to_be_about_them() -> None:
    with pytest.raises(ValueError, match="expected a metric to draw conclusions from, e.g. lpips"):
        Primary(metric="lpips_as_published", score="aip", between=("er_hull", "er_rand"))
    with pytest.raises(ValueError, match=r"Known: lpips, id, lpips_eyes_mouth, psnr, dists, fid, kid;") as error:
        Primary(metric="ssim", score="aip", between=("er_hull", "er_rand"))
    assert "as_published" not in str(error.value)


class Painter(nn.Module):
    """A generator of flat networks: w is the image, brightened beyond what a pixel can show."""

    def forward(self, w: Tensor) -> Tensor:
        return 1.5 * w.reshape(-1, 3, 32, 32)


def test_an_evaluation_scores_the_generators_own_output() -> None:
    targets, lpips = photos(2, 32), LPIPS()
    metrics = [METRICS["lpips"](), PSNRMetric(), LPIPSAsPublished(), PSNRAsPublished()]
    test = PreparedPhotos(
        timestamp=0,
        digests=("a", "b"),
        images=targets,
        features=lpips.features(targets),
        start=(photos(2, 32, seed=1) * 1.5).flatten(1),
        prepared={metric.name: metric.prepare(targets) for metric in metrics},
        combinations=torch.zeros(0, 3 * 32 * 32),
    )
    still = InversionSettings(steps=1, learning_rate=0.0)
    found = evaluate(Painter(), [test], metrics, train_timestamp=0, inversion=still, lpips=lpips)
    values = {(row.metric, row.image): row.value for row in found.rows}
    assert len(values) == 4 * 2 and all(row.protocol == "reconstruction" for row in found.rows)
    made = 1.5 * test.start.reshape(-1, 3, 32, 32)
    assert made.abs().max() > 1
    ours, theirs = stored_by_hand(made), stored_by_hand(targets)
    expected = np.floor(10 * np.log10(255**2 / ((ours - theirs) ** 2).mean(axis=(1, 2, 3))))
    assert [values["psnr_as_published", name] for name in "ab"] == expected.tolist()
    assert [values["lpips_as_published", name] for name in "ab"] == scores(metrics[2], made, targets).tolist()
    clamped = metrics[1].pairs(made.clamp(-1, 1), targets)
    assert [values["psnr", name] for name in "ab"] == clamped.tolist(), "ordinary metrics get what can be shown"
    assert found.examples[0].abs().max() <= 1
