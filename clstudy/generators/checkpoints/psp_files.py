"""Reads files of pixel2style2pixel and what was built on it: a dict with ``state_dict``, ``latent_avg`` and options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from clstudy.assets.readers.errors import CheckpointError
from clstudy.assets.readers.network_tensors import arrays
from clstudy.assets.readers.pickle_objects import TensorRef
from clstudy.assets.readers.restricted_pickle import read_state
from clstudy.errors import UserError


@dataclass(frozen=True)
class PSPFile:
    """Such a file's content; nothing in it was executed.

    Attributes:
        what: role and name, for messages.
        remedy: what to give instead, for messages.
        content: everything.
        state: tensors of ``state_dict`` by name.
    """

    what: str
    remedy: str
    content: Mapping[Any, Any]
    state: Mapping[str, TensorRef]

    @classmethod
    def read(cls, path: Path, role: str, remedy: str) -> PSPFile:
        """Read it.

        Raises:
            UserError: it is another kind of file.
        """
        what = f"{role} {path.name}"
        try:
            content = read_state(path)
        except (CheckpointError, OSError) as error:
            raise UserError(f"{what}: not a torch file of plain tensors ({error}); {remedy}") from error
        state = content.get("state_dict") if isinstance(content, dict) else None
        if not isinstance(content, dict) or not isinstance(state, dict):
            raise UserError(f"{what}: no 'state_dict' in it; {remedy}")
        named = {str(name): value for name, value in state.items() if isinstance(value, TensorRef)}
        return cls(what, remedy, content, named)

    def under(self, prefix: str) -> dict[str, np.ndarray]:
        """Arrays whose names begin with ``prefix``, without it.

        Raises:
            UserError: one cannot be read.
        """
        return self._arrays(
            {name.removeprefix(prefix): ref for name, ref in self.state.items() if name.startswith(prefix)}
        )

    def mean_latent(self) -> np.ndarray | None:
        """``latent_avg``, if it is there.

        Raises:
            UserError: it cannot be read.
        """
        return self._arrays({"latent_avg": self.content.get("latent_avg")}).get("latent_avg")

    def _arrays(self, named: Mapping[str, Any]) -> dict[str, np.ndarray]:
        try:
            return arrays(named)
        except CheckpointError as error:
            raise UserError(f"{self.what}: {error}; {self.remedy}") from error


def with_counters(found: dict[str, np.ndarray], expected: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """With the counters of batch normalisation, which files of old torch versions lack, and which nothing reads."""
    counters = (name for name in expected if name.endswith("num_batches_tracked"))
    return {**dict.fromkeys(counters, np.array(0)), **found}
