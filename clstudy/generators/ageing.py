"""Networks that age latents: a global prior, and a person's adapter beside it.

Sources: L. Qi et al., "MyTimeMachine" (2411.14521), section 3; Y. Alaluf et al., "Only a Matter of Style" (SAM,
2102.02754), whose role the prior has.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from clstudy.assets.readers.tensor_files import read_with_metadata
from clstudy.errors import UserError
from clstudy.generators.synthesis_copies import arrays_under

_YEARS = 100.0
"""Ages enter networks in units of so many years."""

_LATENT_YEARS = 128.0
"""And latents in units of so many: a power of two, so that an age comes back as it was, to the last bit."""

_SLOPE = 0.2


@dataclass(frozen=True, kw_only=True)
class PriorSizes:
    """Sizes of an ``AgePrior``: layers that take a w, numbers of a w, and the transformer's width, depth and heads."""

    num_ws: int
    w_dim: int
    width: int = 128
    depth: int = 2
    heads: int = 4


class Prior(nn.Module):
    """What anybody looks like at an age: w ``[n, w_dim]`` and ages ``[n]`` in years -> ws ``[n, num_ws, w_dim]``.

    Attributes:
        num_ws: layers of the generator that take a w.
        w_dim: numbers of a w.
    """

    num_ws: int
    w_dim: int


class AgePrior(Prior):
    """w and an age -> one w for each layer of the generator, of the same person at that age.

    A transformer of the layers' tokens, each w plus the layer's and the age's embedding (pre-norm; Vaswani et al.,
    1706.03762); what it adds to w is 0 before training.
    """

    def __init__(self, sizes: PriorSizes):
        super().__init__()
        self.sizes = sizes
        self.num_ws, self.w_dim = sizes.num_ws, sizes.w_dim
        self.enter = nn.Linear(sizes.w_dim, sizes.width)
        self.layer = nn.Parameter(torch.randn(sizes.num_ws, sizes.width) * 0.02)
        self.age = nn.Sequential(nn.Linear(2, sizes.width), nn.SiLU(), nn.Linear(sizes.width, sizes.width))
        self.blocks = nn.ModuleList(_Block(sizes.width, sizes.heads) for _ in range(sizes.depth))
        self.norm = nn.LayerNorm(sizes.width)
        self.leave = nn.Linear(sizes.width, sizes.w_dim)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, w: Tensor, ages: Tensor) -> Tensor:
        """ws ``[n, num_ws, w_dim]`` of w ``[n, w_dim]`` and ages ``[n]`` in years."""
        tokens = (self.enter(w) + self.age(_age_numbers(ages)))[:, None] + self.layer
        for block in self.blocks:
            tokens = block(tokens)
        moved: Tensor = w[:, None] + self.leave(self.norm(tokens))
        return moved


class _Block(nn.Module):
    """Attention between tokens ``[n, tokens, width]``, and a small network of each."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm0 = nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm1 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, width = x.shape
        parts = self.queries_keys_values(self.norm0(x)).view(n, tokens, 3, self.heads, width // self.heads)
        queries, keys, values = parts.permute(2, 0, 3, 1, 4)
        # spelled out: fused kernels are chosen by size and build, and each rounds differently
        shares = torch.softmax(queries @ keys.transpose(2, 3) / math.sqrt(width // self.heads), dim=3)
        x = x + self.out((shares @ values).transpose(1, 2).reshape(n, tokens, width))
        moved: Tensor = x + self.mlp(self.norm1(x))
        return moved


class AgeAdapter(nn.Module):
    """What a person differs by from the prior: ws and an age -> what is added to ws.

    As published, each layer's w goes through a bottleneck of its own (w_dim -> neck -> neck); all bottlenecks together
    give ``shared`` numbers, the age gives ``age_width``; each layer's w with both goes through a network of its own (->
    hidden -> w_dim). 0 before training, so that an untrained adapter leaves the prior as it is.

    Attributes:
        span: youngest and oldest age that it has been trained on ``[2]``; inf and -inf before training.
    """

    span: Tensor

    def __init__(self, *, num_ws: int, w_dim: int, neck: int, shared: int, age_width: int, hidden: int):
        super().__init__()
        self.down0 = _PerLayer(num_ws, w_dim, neck)
        self.down1 = _PerLayer(num_ws, neck, neck)
        self.together = nn.Linear(num_ws * neck, shared)
        self.age = nn.Linear(2, age_width)
        self.up0 = _PerLayer(num_ws, w_dim + shared + age_width, hidden)
        self.up1 = _PerLayer(num_ws, hidden, w_dim)
        nn.init.zeros_(self.up1.weight)
        self.register_buffer("span", torch.tensor([torch.inf, -torch.inf]))

    def forward(self, ws: Tensor, ages: Tensor) -> Tensor:
        """What is added to ws ``[n, num_ws, w_dim]`` at ages ``[n]`` in years: ``[n, num_ws, w_dim]``."""
        narrow = F.leaky_relu(self.down1(F.leaky_relu(self.down0(ws), _SLOPE)), _SLOPE)
        known = torch.cat([F.leaky_relu(self.together(narrow.flatten(1)), _SLOPE), self.age(_age_numbers(ages))], dim=1)
        each = torch.cat([ws, known[:, None].expand(-1, ws.shape[1], -1)], dim=2)
        added: Tensor = self.up1(F.leaky_relu(self.up0(each), _SLOPE))
        return added


class _PerLayer(nn.Module):
    """A linear map of its own for each of the layers' vectors ``[n, layers, inputs]``."""

    def __init__(self, layers: int, inputs: int, outputs: int):
        super().__init__()
        bound = 1 / math.sqrt(inputs)  # as nn.Linear begins
        self.weight = nn.Parameter(torch.empty(layers, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(layers, 1, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x.transpose(0, 1), self.weight).transpose(0, 1)


class AgedGenerator(nn.Module):
    """Latents with an age -> images: ``synthesis(prior(w, age) + adapter(prior(w, age), age))``.

    Its parameters are the adapter's; the prior and the synthesis network are at hand and never trained.
    """

    def __init__(self, synthesis: nn.Module, prior: Prior, adapter: AgeAdapter):
        super().__init__()
        self.adapter = adapter
        self._others = (synthesis, prior)  # in a tuple, so that they are no submodules

    @property
    def synthesis(self) -> nn.Module:
        """ws ``[n, num_ws, w_dim]`` -> images ``[n, 3, s, s]``."""
        return self._others[0]

    @property
    def prior(self) -> Prior:
        """w and ages -> ws."""
        prior = self._others[1]
        assert isinstance(prior, Prior)
        return prior

    def forward(self, latents: Tensor) -> Tensor:
        """Images ``[n, 3, s, s]`` of latents ``[n, w_dim + 1]``, each at the age that its last number says."""
        ws, added = self.aged(*split_latents(latents))
        images: Tensor = self.synthesis(ws + added)
        return images

    def aged(self, w: Tensor, ages: Tensor) -> tuple[Tensor, Tensor]:
        """What the prior makes of w ``[n, w_dim]`` at ages ``[n]``, and what the adapter adds to it."""
        with torch.no_grad():
            ws = self.prior(w, ages)
        return ws, self.adapter(ws, ages)


def latents_at(w: Tensor, ages: Tensor) -> Tensor:
    """Latents ``[n, w_dim + 1]`` of w ``[n, w_dim]`` at ages ``[n]`` in years."""
    return torch.cat([w, ages[:, None].to(w) / _LATENT_YEARS], dim=1)


def split_latents(latents: Tensor) -> tuple[Tensor, Tensor]:
    """The w and the ages of ``latents_at``."""
    return latents[:, :-1], latents[:, -1] * _LATENT_YEARS


def _age_numbers(ages: Tensor) -> Tensor:
    """Age and its square, each about -1 to 1 over a life ``[n, 2]``."""
    scaled = (ages / _YEARS - 0.5) * 2
    return torch.stack([scaled, scaled.square() * 2 - 1], dim=1)


def save_prior(prior: AgePrior, path: Path) -> None:
    """Write a prior (safetensors, float16) with its sizes."""
    tensors = {name: value.detach().half().contiguous() for name, value in prior.state_dict().items()}
    save_file(tensors, path, metadata={"sizes": json.dumps(asdict(prior.sizes), sort_keys=True)})


def read_prior(path: Path) -> AgePrior:
    """What ``save_prior`` wrote, frozen.

    Raises:
        UserError: another kind of file.
    """
    try:
        arrays, metadata = read_with_metadata(path)
        prior = AgePrior(PriorSizes(**json.loads(metadata["sizes"])))
        prior.load_state_dict(arrays_under("", arrays))
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise UserError(
            f"age_prior: {path} is no age prior; expected a file of `python -m clstudy.generators.pretraining "
            "train-age-prior`"
        ) from error
    return prior.eval().requires_grad_(False)
