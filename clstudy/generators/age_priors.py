"""Opens age priors of either kind: our own files, and SAM's published checkpoint."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from clstudy.errors import UserError
from clstudy.generators.ageing import Prior, read_prior
from clstudy.generators.base import DomainGenerator
from clstudy.generators.sam_prior import read_sam_prior


def frozen_synthesis(generator: DomainGenerator) -> nn.Module:
    """The pretrained generator, ws ``[n, num_ws, w_dim]`` or w -> images, of which nothing is trained."""
    return generator.fresh().eval().requires_grad_(False)


def open_prior(path: Path, synthesis: nn.Module, w_dim: int) -> Prior:
    """The prior in a file.

    Args:
        path: ``.safetensors``: of ``train-age-prior``; anything else: SAM's checkpoint.
        synthesis: the generator that it is for (``frozen_synthesis``), with ``num_ws``.
        w_dim: numbers of that generator's w.

    Raises:
        UserError: another kind of file, or it is for a generator of another size.
    """
    prior = read_prior(path) if path.suffix == ".safetensors" else read_sam_prior(path, synthesis)
    num_ws = int(getattr(synthesis, "num_ws"))  # noqa: B009 (torch says it may be a tensor or a module)
    if (prior.num_ws, prior.w_dim) != (num_ws, w_dim):
        raise UserError(
            f"age_prior: {path} is for a generator of {prior.num_ws} layers and w of {prior.w_dim} numbers; this one "
            f"has {num_ws} and {w_dim}. Give the prior that was trained for it: --weights age_prior=FILE"
        )
    return prior
