"""A class-conditional generator and its critic, for images of 32 px or another power of two.

Sources: C. Wu et al., "Memory Replay GANs" (1809.02058): one generator for all categories, conditioned by batch
normalisation of its own for each (V. Dumoulin et al., 1610.07629), and a critic with an auxiliary classifier (A. Odena
et al., 1610.09585).
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clstudy.errors import UserError

_FIRST = 4
"""Side of the generator's first feature maps."""


def check_size(size: int) -> None:
    """Refuse sizes that the networks do not make.

    Raises:
        UserError: not a power of two from 8 to 256.
    """
    if not (8 <= size <= 256 and size & (size - 1) == 0):
        raise UserError(f"workload class_gan: images of {size} px; expected a power of two from 8 to 256")


class ConditionalBatchNorm(nn.Module):
    """Batch normalisation with a scale and a shift of its own for each class."""

    def __init__(self, channels: int, classes: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.scale = nn.Parameter(torch.ones(classes, channels))
        self.shift = nn.Parameter(torch.zeros(classes, channels))

    def forward(self, x: Tensor, classes: Tensor) -> Tensor:
        """Maps ``[n, c, h, w]`` of samples whose classes are ``[n, classes]`` (one-hot, or shares)."""
        normed: Tensor = self.norm(x)
        return normed * (classes @ self.scale)[:, :, None, None] + (classes @ self.shift)[:, :, None, None]


class ConditionalGenerator(nn.Module):
    """Latents ``[n, z_dim + classes]``, z before a one-hot class, -> images ``[n, 3, size, size]`` in [-1, 1].

    ``seen [classes]``: which classes it was trained on.
    """

    seen: Tensor

    def __init__(self, *, z_dim: int, classes: int, width: int, size: int):
        super().__init__()
        check_size(size)
        doublings = (size // _FIRST).bit_length() - 1
        widths = [width * min(2**left, 4) for left in range(doublings, -1, -1)]
        self.z_dim = z_dim
        self.first = nn.Linear(z_dim, widths[0] * _FIRST**2)
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1) for before, after in zip(widths, widths[1:], strict=False)
        )
        self.norms = nn.ModuleList(ConditionalBatchNorm(channels, classes) for channels in widths)
        self.last = nn.Conv2d(width, 3, 3, padding=1)
        self.register_buffer("seen", torch.zeros(classes, dtype=torch.bool))

    def forward(self, latents: Tensor) -> Tensor:
        z, classes = latents[:, : self.z_dim], latents[:, self.z_dim :]
        x = F.relu(self.norms[0](self.first(z).unflatten(1, (-1, _FIRST, _FIRST)), classes))
        for conv, norm in zip(self.convs, self.norms[1:], strict=True):
            x = F.relu(norm(conv(F.interpolate(x, scale_factor=2)), classes))
        return torch.tanh(self.last(x))


class Critic(nn.Module):
    """Images ``[n, 3, size, size]`` -> scores ``[n]`` (high: real) and logits of classes ``[n, classes]``.

    No batch normalisation: the gradient penalty is one of each image (Gulrajani et al., section 4).
    """

    def __init__(self, *, classes: int, width: int, size: int):
        super().__init__()
        check_size(size)
        halvings = (size // _FIRST).bit_length() - 1
        widths = [3, *(width * min(2**level, 4) for level in range(halvings))]
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, 4, stride=2, padding=1) for before, after in zip(widths, widths[1:], strict=False)
        )
        self.score = nn.Linear(widths[-1] * _FIRST**2, 1)
        self.classify = nn.Linear(widths[-1] * _FIRST**2, classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = images
        for conv in self.convs:
            x = F.leaky_relu(conv(x), 0.2)
        flat = x.flatten(1)
        return self.score(flat)[:, 0], self.classify(flat)


class ClassGAN(nn.Module):
    """A generator as hooks see it: latents -> images, draws from its prior, and the labels that its critic gives.

    Only the generator's parameters are its own; the critic is at hand. Images are always those that are scored, with
    the running statistics of batch normalisation: a hook that looks at some in training changes nothing.
    """

    def __init__(self, generator: ConditionalGenerator, critic: Critic):
        super().__init__()
        self.generator = generator
        self._critic = [critic]  # in a list, so that it is no submodule

    def forward(self, latents: Tensor) -> Tensor:
        """Images ``[n, 3, s, s]`` of latents ``[n, z_dim + classes]``."""
        training = self.generator.training
        self.generator.eval()
        images: Tensor = self.generator(latents)
        self.generator.train(training)
        return images

    def prior(self, count: int, rng: np.random.Generator) -> Tensor:
        """Latents ``[count, z_dim + classes]``: normal z, classes uniform among those seen so far."""
        seen = np.flatnonzero(self.generator.seen.cpu().numpy())
        z = rng.standard_normal((count, self.generator.z_dim)).astype(np.float32)
        labels = torch.from_numpy(rng.choice(seen, count))
        return latents_of(torch.from_numpy(z), labels, len(self.generator.seen)).to(self.generator.seen.device)

    @torch.no_grad()
    def relabelled(self, latents: Tensor, images: Tensor) -> Tensor:
        """The latents with the classes that the critic's classifier sees in the images."""
        found = self._critic[0](images)[1].argmax(1)
        return latents_of(latents[:, : self.generator.z_dim], found, len(self.generator.seen))


def latents_of(z: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Latents ``[n, z_dim + classes]`` of z ``[n, z_dim]`` and labels int64 ``[n]``."""
    return torch.cat([z, F.one_hot(labels, classes).to(z)], dim=1)
