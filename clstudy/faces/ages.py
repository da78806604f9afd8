"""How old a face looks: the packaged identity embedder, trained on for ages, and a linear layer."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from clstudy.errors import UserError
from clstudy.faces.torch_embedder import TorchIdentityEmbedder

EMBEDDING = 512

_MIDDLE, _UNIT = 50.0, 20.0
"""Years of 0, and years of 1, in the last layer's output."""

_SPREAD = 8.0
"""By which unit embeddings are enlarged, so that the last layer's weights are of the usual size."""


class AgeNetwork(nn.Module):
    """Years ``[n]`` of aligned images ``[n, 3, s, s]`` in [-1, 1].

    Begins as the packaged identity embedder (``clstudy.faces.torch_embedder``), all of whose weights are trained, with
    a last layer that says 50 of everybody.

    Args:
        dropout: share of the embedding's numbers that are dropped in training.
        alignment: of the photos (``clstudy.faces.embedding``).
    """

    def __init__(self, dropout: float = 0.0, alignment: str = "embedded"):
        super().__init__()
        self.body = TorchIdentityEmbedder(alignment, trained=True)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(EMBEDDING, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.head(self.dropout(self.body(images) * _SPREAD))[:, 0]
        return found * _UNIT + _MIDDLE

    @torch.no_grad()
    def begin_with(self, slopes: Tensor, constant: float) -> None:
        """Let the last layer say ``embeddings @ slopes + constant``, slopes ``[512]``, in years."""
        self.head.weight.copy_(slopes / (_SPREAD * _UNIT))
        self.head.bias.fill_((constant - _MIDDLE) / _UNIT)


class AgeEstimator:
    """Years ``[n]`` of aligned images ``[n, 3, s, s]`` in [-1, 1]: mean of an image's and its mirror image's.

    What it was trained on, and how far it is off: ``clstudy.generators.pretraining.age_estimator``.

    Args:
        path: of the weights, as ``save_estimator`` writes them.
        alignment: of the photos (``clstudy.faces.embedding``).
        device: where it computes; results return on the CPU.

    Raises:
        UserError: another kind of file.
    """

    def __init__(
        self,
        path: Path,
        *,
        alignment: str = "embedded",
        device: torch.device = torch.device("cpu"),  # noqa: B008  # immutable
    ):
        network = AgeNetwork(alignment=alignment)
        try:
            network.load_state_dict({name: value.float() for name, value in load_file(path).items()})
        except (OSError, SafetensorError, RuntimeError) as error:
            raise UserError(
                f"age_estimator: {path} is no age estimator; expected a file of `python -m "
                "clstudy.generators.pretraining train-ages`"
            ) from error
        self._network = network.eval().requires_grad_(False).to(device)
        self._device = device

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        parts = [self._network(both) for both in _with_mirror_images(images.to(self._device))]
        # one image and its mirror image at a time: what is said of one must not depend on the others
        return torch.stack([part.mean() for part in parts]).cpu() if parts else torch.zeros(0)


def _with_mirror_images(images: Tensor) -> list[Tensor]:
    """Each of the images with its mirror image ``[2, 3, s, s]``."""
    return [torch.stack([image, image.flip(2)]) for image in images]


def save_estimator(network: AgeNetwork, path: Path) -> None:
    """Write ``path`` (safetensors, float16)."""
    save_file({name: value.detach().half().contiguous() for name, value in network.state_dict().items()}, path)
