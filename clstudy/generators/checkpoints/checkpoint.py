"""A generator read from a file, what the reader of a format returns, and the error for what is not a generator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from clstudy.assets.readers.errors import CheckpointError
from clstudy.generators.eg3d import EG3DSettings
from clstudy.generators.stylegan2 import StyleGAN2Settings

_EXPECTED = (
    "expected a StyleGAN2 or EG3D generator in one of the formats of python -m clstudy.generators inspect --help"
)
_BUFFERS = (".noise_const", ".resample_filter", ".w_avg")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A generator read from a file.

    Attributes:
        kind: "stylegan2" or "eg3d"; every other kind is refused.
        format: what the file is, in words, e.g. "NVIDIA pickle (G_ema)".
        settings: sizes that build the network.
        tensors: float32 arrays under the names of ``settings.network().state_dict()``, all of them.
        sha256: of the file.
        notes: what a user should know, one sentence each.
    """

    kind: str
    format: str
    settings: StyleGAN2Settings | EG3DSettings
    tensors: Mapping[str, np.ndarray]
    sha256: str
    notes: tuple[str, ...] = ()

    @property
    def parameters(self) -> int:
        """How many trainable numbers there are (constant noise, filters and the mean w are not among them)."""
        return sum(value.size for name, value in self.tensors.items() if not name.endswith(_BUFFERS))


@dataclass(frozen=True, kw_only=True)
class FoundNetwork:
    """What a reader of one format found; sizes follow from the tensors unless the file holds the settings."""

    format: str
    tensors: Mapping[str, np.ndarray]
    conv_clamp: float | None = None
    settings: StyleGAN2Settings | EG3DSettings | None = None
    notes: tuple[str, ...] = ()


def refusal(sentence: str, *, kind: str = "") -> CheckpointError:
    """Return the error for what is no generator of ours: the sentence, followed by what was expected."""
    return CheckpointError(f"{sentence}; {_EXPECTED}", kind=kind)


def short_repr(value: object) -> str:
    """Return a short string for a value from a file, for use in an error."""
    return repr(value)[:60] if isinstance(value, str | int | float | bool | np.generic) else f"a {type(value).__name__}"
