"""Sets torch's device, precision and determinism.

torch's defaults are not enough: it lets cuDNN convolutions run in TF32 unless this is switched off, and ``float32``
would then not mean float32.
"""

from __future__ import annotations

import os

import torch

from clstudy.errors import UserError
from clstudy.metrics.fused_lpips import FusedLPIPS
from clstudy.metrics.lpips import LPIPS
from clstudy.settings.kernels import KERNELS
from clstudy.settings.precision import PRECISIONS
from clstudy.settings.profiles import ComputeSettings, Resources
from clstudy.storage.private_folder import private_node_folder
from clstudy.training.processor import require_instruction_set

_MOST_COMPILED = 64
"""Versions of a network that torch.compile keeps for numbers of photos, trained or not; with more, a trial fails."""


def torch_device(resources: Resources) -> torch.device:
    """The device a worker computes on: the GPU that Ray assigned to it, or the CPU.

    Raises:
        UserError: the profile needs a GPU, but torch sees none.
    """
    if not resources.gpus:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError(
            f"the profile needs {resources.gpus:g} GPU per trial, but torch {torch.__version__} sees none in this "
            "worker; install a CUDA build of torch, or compute on the CPU with --device cpu"
        )
    return torch.device("cuda")


def configure_torch(compute: ComputeSettings, resources: Resources) -> list[str]:
    """Set this process's numerics once: threads, TF32, deterministic kernels.

    Returns caveats as sentences (none on a CPU): the same settings give the same bits there, and on CUDA wherever torch
    has a deterministic kernel.

    Raises:
        UserError: this process does not compute with the instruction set that the settings name.
    """
    if not resources.gpus:
        require_instruction_set(compute.instruction_set)
    if compute.compile:
        keep_compiled()
    torch.set_num_threads(resources.threads)
    tf32 = PRECISIONS[compute.precision].tf32
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32
    if not resources.gpus:
        return []
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    return ["CUDA: equal bits only where torch has a deterministic kernel"]


def keep_compiled() -> None:
    """Keep what torch.compile makes in this user's private folder of the node, for other workers and later runs.

    A first step that takes a minute to compile then takes seconds. torch's own default is one folder per machine and
    user name in the temporary folder; ours is checked first, because code is loaded from it. A folder that the user
    named (``TORCHINDUCTOR_CACHE_DIR``) stays.

    Raises:
        UserError: the folder is open to others.
    """
    if "TORCHINDUCTOR_CACHE_DIR" not in os.environ:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(private_node_folder("compiled"))
    torch.compiler.config.recompile_limit = _MOST_COMPILED


def loss_lpips(compute: ComputeSettings, device: torch.device) -> LPIPS:
    """The LPIPS that training and inversion minimise, with the kernels that the settings name."""
    return (FusedLPIPS() if KERNELS[compute.kernels].fused else LPIPS()).to(device)
