"""The W encoder of MyStyle's checkpoints, against a rendering of its papers written parameter by parameter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from clstudy.errors import UserError
from clstudy.generators.ir_se_encoder import IRSEEncoder, encoder_input, read_encoder

W_DIM = 24


def published(seed: int = 0) -> dict[str, object]:
    """A checkpoint as pixel2style2pixel writes it, with random weights."""
    torch.manual_seed(seed)
    encoder = IRSEEncoder(W_DIM)
    state = {}
    for name, value in encoder.state_dict().items():
        if name in ("latent_avg", "adds_mean"):
            continue
        if name.endswith("running_var"):
            value = 0.5 + torch.rand(value.shape)
        elif value.ndim == 1:
            value = value * 0.5 + 0.1 * torch.randn(value.shape)
        state["encoder." + name] = value
    return {"state_dict": state, "latent_avg": torch.randn(18, W_DIM), "opts": {"encoder_type": "x", "lr": 0.1}}


def normalised(x: torch.Tensor, p: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    scale = p[f"{name}.weight"] / (p[f"{name}.running_var"] + 1e-5).sqrt()
    return (x - p[f"{name}.running_mean"][:, None, None]) * scale[:, None, None] + p[f"{name}.bias"][:, None, None]


def prelu(x: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    return torch.where(x > 0, x, x * slope[:, None, None])


def cubic(distance: float) -> float:
    """The bicubic kernel (Keys 1981) with a = -0.75, as OpenCV and torch have it."""
    a, d = -0.75, abs(distance)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * (d**3 - 5 * d**2 + 8 * d - 4) if d < 2 else 0.0


def reduced(images: torch.Tensor) -> torch.Tensor:
    """Images to 256 px by the kernel at its own width (no antialiasing): four pixels a side, whatever the size."""
    size = images.shape[2]
    weights = torch.zeros(256, size)
    for row in range(256):
        centre = (row + 0.5) * size / 256 - 0.5
        for pixel in range(int(centre) - 1, int(centre) + 3):
            weights[row, min(max(pixel, 0), size - 1)] += cubic(pixel - centre)
    return (weights @ images @ weights.t()).clamp(-1, 1)


def plain_maps(x: torch.Tensor, p: dict[str, torch.Tensor]) -> Iterator[torch.Tensor]:
    """What ArcFace's IR-SE-50 (units of 64, 128, 256, 512 channels) has after each of its 24 units."""
    x = prelu(
        normalised(F.conv2d(x, p["input_layer.0.weight"], padding=1), p, "input_layer.1"), p["input_layer.2.weight"]
    )
    firsts = {0: 64, 3: 128, 7: 256, 21: 512}
    for unit in range(24):
        at = f"body.{unit}"
        stride = 2 if unit in firsts else 1
        y = F.conv2d(normalised(x, p, f"{at}.res_layer.0"), p[f"{at}.res_layer.1.weight"], padding=1)
        y = F.conv2d(prelu(y, p[f"{at}.res_layer.2.weight"]), p[f"{at}.res_layer.3.weight"], stride=stride, padding=1)
        y = normalised(y, p, f"{at}.res_layer.4")
        gate = F.relu(torch.einsum("nc,oc->no", y.mean(dim=(2, 3)), p[f"{at}.res_layer.5.fc1.weight"][:, :, 0, 0]))
        gate = torch.einsum("nc,oc->no", gate, p[f"{at}.res_layer.5.fc2.weight"][:, :, 0, 0]).sigmoid()
        if f"{at}.shortcut_layer.0.weight" in p:
            short = F.conv2d(x, p[f"{at}.shortcut_layer.0.weight"], stride=stride)
            short = normalised(short, p, f"{at}.shortcut_layer.1")
        else:
            short = x[:, :, ::stride, ::stride]
        x = short + y * gate[:, :, None, None]
        yield x


def plain(x: torch.Tensor, p: dict[str, torch.Tensor], average: torch.Tensor) -> torch.Tensor:
    """The last map, global mean, equalised linear layer."""
    x = list(plain_maps(x, p))[-1]
    assert x.shape[1:] == (512, 16, 16)
    return x.mean(dim=(2, 3)) @ p["linear.weight"].t() / 512**0.5 + p["linear.bias"] + average


@pytest.mark.parametrize("said", [None, False])
def test_equals_the_plain_rendering(tmp_path: Path, said: bool | None) -> None:
    checkpoint = published()
    if said is not None:
        checkpoint["opts"]["start_from_latent_avg"] = said
    torch.save(checkpoint, tmp_path / "encoder.pt")
    arrays = read_encoder(tmp_path / "encoder.pt", W_DIM)
    encoder = IRSEEncoder(W_DIM).eval()
    encoder.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    images = torch.rand(1, 3, 1024, 1024, generator=torch.Generator().manual_seed(1)) * 2 - 1
    state = checkpoint["state_dict"]
    assert isinstance(state, dict)
    average = checkpoint["latent_avg"][0] * (said is not False)
    parameters = {name.removeprefix("encoder."): value for name, value in state.items()}
    with torch.no_grad():
        torch.testing.assert_close(encoder(images), plain(reduced(images), parameters, average), rtol=1e-4, atol=1e-4)


def test_an_option_that_is_no_truth_value_is_refused(tmp_path: Path) -> None:
    checkpoint = published()
    checkpoint["opts"]["start_from_latent_avg"] = "no"
    torch.save(checkpoint, tmp_path / "encoder.pt")
    with pytest.raises(UserError, match="start_from_latent_avg is 'no', expected true or false"):
        read_encoder(tmp_path / "encoder.pt", W_DIM)


def test_photos_are_reduced_as_the_published_encoder_was_given_them() -> None:
    images = torch.rand(2, 3, 1024, 1024, generator=torch.Generator().manual_seed(2)) * 2.6 - 1.3
    ours = encoder_input(images)
    torch.testing.assert_close(ours, reduced(images), rtol=1e-5, atol=1e-5)
    assert ours.abs().max() == 1, "clamped"
    mean = F.adaptive_avg_pool2d(images, 256)
    assert torch.equal(encoder_input(mean), mean), "nothing to do"
    assert (ours - mean).abs().mean() > 0.1, "no area mean"


def test_files_that_are_no_such_encoder_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "encoder.pt"
    path.write_bytes(b"\x89PNG not a torch file")
    with pytest.raises(UserError, match="encoder.pt: not a torch file of plain tensors"):
        read_encoder(path, W_DIM)
    torch.save({"g_ema": {}}, path)
    with pytest.raises(
        UserError, match="no 'state_dict' in it; expected a checkpoint of pixel2style2pixel's W encoder"
    ):
        read_encoder(path, W_DIM)
    torch.save(published(), path)
    with pytest.raises(
        UserError, match=r"expected \[512\] for a generator with 512 numbers per latent|expected \[512, 512\]"
    ):
        read_encoder(path, 512)
    other = published()
    other["state_dict"].pop("encoder.linear.bias")
    torch.save(other, path)
    with pytest.raises(UserError, match="1 parameters do not fit .*linear.bias"):
        read_encoder(path, W_DIM)


class Sentinel:
    """Would create a file if it were unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (self.path,))


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    torch.save({"state_dict": Sentinel(tmp_path / "ran")}, tmp_path / "encoder.pt")
    with pytest.raises(UserError, match="not a torch file of plain tensors"):
        read_encoder(tmp_path / "encoder.pt", W_DIM)
    assert not (tmp_path / "ran").exists()
