"""The packaged DCGAN: a source of 64x64 faces of people who do not exist."""

from __future__ import annotations

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from clstudy.assets import asset_path

LATENT_SIZE = 100


class FaceSource:
    """Draws faces from latents; weights are the packaged ``gan-face-generate`` generator (DigiFace-1M)."""

    def __init__(self) -> None:
        channels = [LATENT_SIZE, 512, 256, 128, 64, 3]
        layers: list[nn.Module] = []
        for index in range(5):
            first = index == 0
            layers.append(
                nn.ConvTranspose2d(
                    channels[index], channels[index + 1], 4, 1 if first else 2, 0 if first else 1, bias=False
                )
            )
            if index < 4:
                layers += [nn.BatchNorm2d(channels[index + 1]), nn.ReLU()]
        self._net = nn.Sequential(*layers, nn.Tanh()).eval().requires_grad_(False)
        state = {name: value.float() for name, value in load_file(asset_path("dcgan_digiface.safetensors")).items()}
        for name, buffer in self._net.named_buffers():
            if name.endswith("num_batches_tracked"):
                state[name] = buffer
        self._net.load_state_dict(state)

    @torch.inference_mode()
    def draw(self, latents: np.ndarray) -> np.ndarray:
        """Return uint8 RGB faces ``[n, 64, 64, 3]`` for latents ``[n, 100]`` (standard normal)."""
        z = torch.from_numpy(np.asarray(latents, np.float32))[:, :, None, None]
        images = self._net(z).add(1).mul(127.5).round().clamp(0, 255).byte()
        faces: np.ndarray = images.permute(0, 2, 3, 1).contiguous().numpy()
        return faces
