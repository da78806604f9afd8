"""FID and KID against the definitions, clean-fid and pytorch-fid; the evaluation's rows of set metrics."""

from __future__ import annotations

import importlib.util
import itertools
import pickle
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from clstudy.errors import UserError
from clstudy.generators.stylegan2 import StyleGAN2, StyleGAN2Settings
from clstudy.images import to_unit_range
from clstudy.metrics.base import MetricSettings
from clstudy.metrics.fid import FIDMetric
from clstudy.metrics.identity import IdentityMetric
from clstudy.metrics.inception import InceptionFeatures, load_inception, resize_for_inception
from clstudy.metrics.kid import KIDMetric
from clstudy.metrics.lpips import LPIPS
from clstudy.metrics.psnr import PSNRMetric
from clstudy.metrics.set_statistics import fid, frechet_distance, kid
from clstudy.settings.profiles import InversionSettings
from clstudy.training import evaluation
from tests.support.oracles import official_lpips


def needs(module: str) -> None:
    """Skip where the reference package is absent; make torchvision importable for it (the LPIPS oracle knows how)."""
    for name in ("lpips", module):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"install {name} to compare with {module}")
    official_lpips()


def samples(count: int, size: int, seed: int, shift: float = 0.0) -> np.ndarray:
    """Correlated features ``[count, size]``."""
    mixing = np.random.default_rng(99).standard_normal((size, size)) / np.sqrt(size)
    return np.random.default_rng(seed).standard_normal((count, size)) @ mixing + shift


# --- resizing -------------------------------------------------------------------------------------------------------


def bicubic_matrix(size: int, target: int) -> np.ndarray:
    """Weights ``[target, size]`` of a cubic convolution (a = -1/2), widened when it shrinks (antialiasing)."""
    scale = size / target
    width = max(scale, 1.0)
    distance = np.abs(((np.arange(target) + 0.5) * scale)[:, None] - (np.arange(size) + 0.5)[None]) / width
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    weights = np.where(distance < 1, near, np.where(distance < 2, far, 0))
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("shape", [(64, 64), (500, 333)])
def test_resizing_is_an_antialiased_cubic_convolution(shape: tuple[int, int]) -> None:
    images = np.random.default_rng(1).integers(0, 256, (1, *shape, 3), dtype=np.uint8)
    rows, columns = bicubic_matrix(shape[0], 299), bicubic_matrix(shape[1], 299)
    expected = (rows @ images.transpose(0, 3, 1, 2).astype(float) @ columns.T).clip(0, 255)
    found = resize_for_inception(images)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-2)


@pytest.mark.parametrize("shape", [(64, 64), (256, 256), (299, 299), (512, 400)])
def test_resizing_equals_clean_fid(shape: tuple[int, int]) -> None:
    needs("cleanfid")
    from cleanfid.resize import make_resizer

    image = np.random.default_rng(2).integers(0, 256, (*shape, 3), dtype=np.uint8)
    expected = make_resizer("PIL", False, "bicubic", (299, 299))(image)
    assert np.array_equal(resize_for_inception(image[None])[0], expected.transpose(2, 0, 1))


def test_resizing_wants_uint8() -> None:
    with pytest.raises(ValueError, match=r"expected uint8 images \[n, h, w, 3\], got float32 \[1, 8, 8, 3\]"):
        resize_for_inception(np.zeros((1, 8, 8, 3), np.float32))


# --- the network ----------------------------------------------------------------------------------------------------


def random_state(network: torch.nn.Module) -> dict[str, Tensor]:
    """Random tensors for every name of ``network``, such that activations neither vanish nor explode."""
    rng = torch.Generator().manual_seed(0)
    state = {}
    for name, tensor in network.state_dict().items():
        if tensor.ndim == 4:
            state[name] = torch.randn(tensor.shape, generator=rng) * (2 / tensor[0].numel()) ** 0.5
        elif name.endswith(("bn.weight", "running_var")):
            state[name] = 0.5 + torch.rand(tensor.shape, generator=rng)
        else:
            state[name] = 0.1 * torch.randn(tensor.shape, generator=rng) if tensor.is_floating_point() else tensor
    return state


@pytest.fixture(scope="module")
def torchvision_inception() -> torch.nn.Module:
    """torchvision's published architecture with as many classes as FID's graph has."""
    needs("torchvision")
    from torchvision.models import inception

    return inception.Inception3(num_classes=1008, aux_logits=False, init_weights=False).eval()


@pytest.fixture(scope="module")
def state(torchvision_inception: torch.nn.Module) -> dict[str, Tensor]:
    return random_state(torchvision_inception)


@pytest.fixture(scope="module")
def weights(state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(state, path)
    return path


def pixels() -> Tensor:
    """Smaller than Inception's 299 px: every layer still sees more than one pixel, in a sixth of the time."""
    return torch.rand(2, 3, 123, 123, generator=torch.Generator().manual_seed(1)) * 255


@torch.no_grad()
def test_network_is_torchvisions_with_the_two_changes_of_fids_graph(
    torchvision_inception: torch.nn.Module, state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.models import inception

    torchvision_inception.load_state_dict(state)
    calls = itertools.count(1)

    def pooling(x: Tensor, **options: int) -> Tensor:
        if next(calls) == 9:  # the last block's
            return F.max_pool2d(x, **options)
        return F.avg_pool2d(x, **options, count_include_pad=False)

    functions = {name: getattr(F, name) for name in dir(F) if not name.startswith("__")}
    monkeypatch.setattr(inception, "F", SimpleNamespace(**functions | {"avg_pool2d": pooling}))
    torchvision_inception.fc = torch.nn.Identity()
    expected = torchvision_inception((pixels() - 128) / 128)
    assert next(calls) == 10, "nine blocks pool"
    found = InceptionFeatures(state)(pixels())
    assert found.shape == (2, 2048) and 0.01 < found.std() < 100
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


@torch.no_grad()
def test_network_equals_pytorch_fid(state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    needs("pytorch_fid")
    from pytorch_fid import inception

    monkeypatch.setattr(inception, "load_state_dict_from_url", lambda *_, **__: state)
    official = inception.InceptionV3(resize_input=False, normalize_input=False).eval()
    expected = official((pixels() - 128) / 128)[0].flatten(1)
    found = InceptionFeatures(state)(pixels())
    print("largest difference from pytorch-fid:", float((found - expected).abs().max() / expected.abs().max()))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


class _Evil:
    def __init__(self, sentinel: Path):
        self.sentinel = sentinel

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.sentinel,)  # type: ignore[return-value]


def test_a_weights_file_that_would_run_code_or_is_another_is_refused(tmp_path: Path, state: dict[str, Tensor]) -> None:
    cpu = torch.device("cpu")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "script.pt")
    with pytest.raises(UserError, match=r"is TorchScript.*would run code.*pytorch-fid"):
        load_inception(tmp_path / "script.pt", cpu)
    sentinel = tmp_path / "ran"
    torch.save({"Conv2d_1a_3x3.conv.weight": _Evil(sentinel)}, tmp_path / "evil.pth")
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(_Evil(sentinel)))
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({k: v for k, v in state.items() if k != "Mixed_7c.branch1x1.conv.weight"}, tmp_path / "part.pth")
    (tmp_path / "empty.pth").touch()
    (tmp_path / "broken.safetensors").write_text("no")
    for name in ("evil.pth", "evil.pkl", "list.pth", "part.pth", "empty.pth", "broken.safetensors"):
        with pytest.raises(UserError, match="does not hold the Inception weights of FID"):
            load_inception(tmp_path / name, cpu)
    with pytest.raises(UserError, match=r"another shape: Mixed_7c\.branch1x1\.conv\.weight\. Expected"):
        load_inception(tmp_path / "part.pth", cpu)
    assert not sentinel.exists()


# --- FID ------------------------------------------------------------------------------------------------------------


def psd_root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(values.clip(0))) @ vectors.T


def fid_by_definition(a: np.ndarray, b: np.ndarray) -> float:
    """tr (Ca Cb)^½ = tr (Ca^½ Cb Ca^½)^½, by symmetric eigenvalues: exact without full rank as well."""
    covariance_a, covariance_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = psd_root(covariance_a)
    cross = np.sqrt(np.linalg.eigvalsh(root @ covariance_b @ root).clip(0)).sum()
    difference = a.mean(0) - b.mean(0)
    return float(difference @ difference + np.trace(covariance_a) + np.trace(covariance_b) - 2 * cross)


@settings(deadline=None, max_examples=60)
@given(n=st.integers(2, 30), m=st.integers(2, 30), size=st.integers(2, 20), seed=st.integers(0, 99))
def test_fid_is_its_definition_at_any_rank(n: int, m: int, size: int, seed: int) -> None:
    a, b = samples(n, size, seed), samples(m, size, seed + 1000, shift=0.3)
    found = fid(a, b)
    assert found == pytest.approx(fid_by_definition(a, b), rel=1e-6, abs=1e-6)
    assert found == pytest.approx(fid(b, a), rel=1e-9, abs=1e-9)
    assert fid(a, a) == pytest.approx(0, abs=1e-9)
    rotation = np.linalg.qr(np.random.default_rng(seed).standard_normal((size, size)))[0]
    assert fid(a @ rotation + 5, b @ rotation + 5) == pytest.approx(found, rel=1e-7, abs=1e-7)
    assert fid(a, a + 2) == pytest.approx(4 * size)


def statistics(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return features.mean(axis=0), np.cov(features, rowvar=False)


def test_frechet_distance_of_gaussians_along_the_axes() -> None:
    a, b = np.array([4.0, 1.0, 9.0]), np.array([1.0, 1.0, 4.0])
    found = frechet_distance(np.zeros(3), np.diag(a), np.array([1.0, 2.0, 2.0]), np.diag(b))
    assert found == pytest.approx(9 + np.square(np.sqrt(a) - np.sqrt(b)).sum())
    with pytest.raises(ValueError, match=r"expected two means \[d\]"):
        frechet_distance(np.zeros(3), np.eye(3), np.zeros(3), np.eye(2))


def test_frechet_distance_from_statistics_equals_fid_from_features() -> None:
    a, b = samples(200, 32, 0), samples(150, 32, 1, shift=0.2)
    assert frechet_distance(*statistics(a), *statistics(b)) == pytest.approx(fid(a, b), rel=1e-9)


@pytest.mark.filterwarnings("ignore")  # of SciPy, about arguments that the packages use
@pytest.mark.parametrize(
    ("n", "m", "size", "tolerance"), [(300, 250, 64, 1e-9), (20, 10, 64, 1e-6), (20, 10, 256, 1e-6)]
)
def test_fid_equals_clean_fid_and_pytorch_fid(n: int, m: int, size: int, tolerance: float) -> None:
    """Without full rank their matrix root loses half the digits; ours does not (see ``fid_by_definition``)."""
    needs("cleanfid")
    needs("pytorch_fid")
    from cleanfid.fid import frechet_distance as clean
    from pytorch_fid.fid_score import calculate_frechet_distance as pytorch

    a, b = samples(n, size, 0), samples(m, size, 1, shift=0.2)
    exact, theirs = fid(a, b), clean(*statistics(a), *statistics(b))
    given_statistics = frechet_distance(*statistics(a), *statistics(b))
    print(f"n {n} m {m} d {size}: ours {exact:.9f}, from statistics {given_statistics:.9f}, clean-fid {theirs:.9f}")
    assert given_statistics == pytest.approx(theirs, rel=1e-12)
    assert given_statistics == pytest.approx(pytorch(*statistics(a), *statistics(b)), rel=1e-12)
    assert exact == pytest.approx(theirs, rel=tolerance)
    assert exact == pytest.approx(fid_by_definition(a, b), rel=1e-6)


# --- KID ------------------------------------------------------------------------------------------------------------


def kid_by_definition(a: np.ndarray, b: np.ndarray) -> float:
    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return (float(x @ y) / len(x) + 1) ** 3

    def within(rows: np.ndarray) -> float:
        return float(np.mean([kernel(x, y) for x, y in itertools.permutations(rows, 2)]))

    return within(a) + within(b) - 2 * float(np.mean([kernel(x, y) for x in a for y in b]))


@settings(deadline=None, max_examples=40)
@given(n=st.integers(2, 8), m=st.integers(2, 8), size=st.integers(1, 10), seed=st.integers(0, 99))
def test_kid_is_its_definition(n: int, m: int, size: int, seed: int) -> None:
    a, b = samples(n, size, seed), samples(m, size, seed + 1000, shift=0.3)
    assert kid(a, b) == pytest.approx(kid_by_definition(a, b), rel=1e-9, abs=1e-9)
    assert kid(a, b) == pytest.approx(kid(b, a), rel=1e-9, abs=1e-9)


def test_kid_of_all_pairs_is_the_mean_over_all_subsets() -> None:
    """Which is what clean-fid's random subsets of the smaller set's size aim at."""
    a, b = samples(6, 5, 0), samples(3, 5, 1, shift=0.5)
    subsets = [kid(a[list(chosen)], b) for chosen in itertools.combinations(range(6), 3)]
    assert kid(a, b) == pytest.approx(np.mean(subsets), rel=1e-10)


def test_kid_equals_clean_fid() -> None:
    needs("cleanfid")
    from cleanfid.fid import kernel_distance

    a, b = samples(30, 64, 0), samples(30, 64, 1, shift=0.1)
    print(f"30 vs 30: ours {kid(a, b):.9f}, clean-fid {kernel_distance(a, b, num_subsets=3):.9f}")
    assert kid(a, b) == pytest.approx(kernel_distance(a, b, num_subsets=3), rel=1e-9)
    a, b = samples(20, 64, 0), samples(10, 64, 1, shift=0.1)
    np.random.seed(0)  # the package draws its subsets from the global generator
    found = np.array([kernel_distance(a, b, num_subsets=1) for _ in range(2000)])
    error = found.std() / np.sqrt(len(found))
    print(f"20 vs 10: ours {kid(a, b):.6f}, clean-fid over 2000 subsets {found.mean():.6f} +- {error:.6f}")
    assert abs(found.mean() - kid(a, b)) < 4 * error


def test_small_samples_bias_fid_and_not_kid() -> None:
    """The caveat of the documentation: two samples of one distribution, 20 against 10 and more, many times."""
    fids, kids = {}, {}
    for n, m in ((20, 10), (80, 40), (320, 160)):
        sets = [(samples(n, 32, seed), samples(m, 32, seed + 500)) for seed in range(40)]
        fids[n] = np.mean([fid(a, b) for a, b in sets])
        values = np.array([kid(a, b) for a, b in sets])
        kids[n] = values.mean() / (values.std() / np.sqrt(len(values)))
    assert fids[20] > 2 * fids[80] > 4 * fids[320] > 0
    assert all(abs(score) < 4 for score in kids.values()), kids


@pytest.mark.parametrize("statistic", [fid, kid])
@pytest.mark.parametrize("shapes", [((1, 4), (3, 4)), ((3, 4), (3, 5)), ((3,), (3,))])
def test_features_that_cannot_be_compared(statistic: object, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="at least 2 images each, got"):
        statistic(*(np.zeros(shape) for shape in shapes))  # type: ignore[operator]


# --- metrics and the evaluation -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(weights: Path) -> MetricSettings:
    return MetricSettings(files={"inception": weights})


def pictures(count: int, seed: int) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_a_set_metric_is_the_statistic_of_picture_files(made: MetricSettings, state: dict[str, Tensor]) -> None:
    rng = np.random.default_rng(0)
    files = [rng.integers(0, high, (count, 32, 32, 3), dtype=np.uint8) for count, high in ((3, 256), (2, 128))]
    network, metric = InceptionFeatures(state), KIDMetric(made)
    a, b = (network(torch.from_numpy(resize_for_inception(photos))).double().numpy() for photos in files)
    images, targets = map(to_unit_range, files)
    value = metric.synthesis(images, metric.prepare(targets))
    assert value.shape == (1,) and value.device.type == "cpu"
    assert float(value) == pytest.approx(kid_by_definition(a, b), rel=1e-4)


@pytest.mark.parametrize("metric", [FIDMetric, KIDMetric])
def test_what_a_set_metric_says(metric: type[FIDMetric] | type[KIDMetric], made: MetricSettings) -> None:
    one = metric(made)
    assert "is not pytorch-fid's file (6726825d…)" in one.notes[0]
    assert one._network is FIDMetric(made)._network, "FID and KID share the network"
    with pytest.raises(UserError, match=rf"metric {one.name} compares sets of at least 2 images and got 1 test photos"):
        one.prepare(pictures(1, 0))
    with pytest.raises(NotImplementedError):
        one.pairs(pictures(2, 0), None)


def test_evaluation_writes_one_row_per_set_and_one_per_image(made: MetricSettings) -> None:
    generator = StyleGAN2(StyleGAN2Settings(img_resolution=32, z_dim=8, w_dim=8, channel_base=256, channel_max=16))
    lpips, used = LPIPS(), [IdentityMetric(), PSNRMetric(), FIDMetric(made)]
    images = pictures(2, 4)
    test = evaluation.TestSet(
        timestamp=1,
        digests=("one", "two"),
        images=images,
        features=lpips.features(images),
        start=torch.zeros(2, 8),
        prepared={metric.name: metric.prepare(images) for metric in used},
        combinations=torch.randn(3, 8, generator=torch.Generator().manual_seed(0)),
    )
    inversion = replace(InversionSettings(), steps=1)
    done = evaluation.evaluate(generator.synthesis, [test], used, train_timestamp=2, inversion=inversion, lpips=lpips)
    names = {(row.protocol, row.metric): [] for row in done.rows}
    for row in done.rows:
        names[row.protocol, row.metric].append(row.image)
        assert (row.train_timestamp, row.test_timestamp) == (2, 1) and np.isfinite(row.value)
    assert names == {
        ("reconstruction", "id"): ["one", "two"],
        ("synthesis", "id"): ["synthesis/00", "synthesis/01", "synthesis/02"],
        ("reconstruction", "psnr"): ["one", "two"],
        ("synthesis", "fid"): ["synthesis/set"],
    }
