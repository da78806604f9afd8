"""When GPU memory runs out, repeats the computation with fewer photos at a time.

A whole value of the store (a stage, the anchors of a timestamp) is computed again from its seeds, because half a stage
could not be reproduced.
"""

from __future__ import annotations

import gc
import textwrap
from collections.abc import Callable
from typing import TypeVar

import torch

from clstudy.errors import UserError

T = TypeVar("T")

_OTHER_ALLOCATORS = (
    "error: out of memory",  # "CUDA error: …", "CUDA driver error: …": not from torch's own allocator
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUSOLVER_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",  # its name from cuDNN 9 on
)
"""Messages of libraries that do not use torch's allocator and raise a plain RuntimeError."""


class TooLittleMemoryError(UserError):
    """The device has no room for even one photo at a time."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that the device's memory is full.

    CPU memory is left out on purpose: results there must be bit-identical, and another micro-batch rounds differently.
    """
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OTHER_ALLOCATORS)


def with_smaller_batches(
    compute: Callable[[int | None], T], largest: int, say: Callable[[str], None], *, first: int | None = None
) -> tuple[T, int | None]:
    """Call ``compute(first)`` and, when memory is out, again with a micro-batch of half ``largest``, a quarter, … 1.

    Every call starts from the same inputs, so the result depends on the micro-batch alone. Nothing is carried over from
    earlier calls in this process: a stage that starts small because another one had to would differ in its last bits
    from the same stage in a fresh worker. The price is that every stage of a trial that does not fit fails once more
    before it is halved; training fails in its first step, inversion only after training.

    Args:
        compute: makes the value with at most so many photos in one pass (None: as the settings say). Whatever it
            changes must be its own or be put right by the next call, random generators above all.
        largest: photos in the largest pass of ``compute(None)``, >= 1.
        say: called with a sentence about what happened, before every further call.
        first: where the value was made before and is made again, the micro-batch that its record names; then the
            bits are the same too. Halved from there on.

    Returns:
        The value, and the micro-batch it was made with (None: as the settings say).

    Raises:
        TooLittleMemoryError: even one photo at a time does not fit; the message lists remedies.
        ValueError: ``largest`` or ``first`` is below 1.
    """
    if largest < 1 or (first is not None and first < 1):
        raise ValueError(f"expected a largest and a first pass of at least 1 photo, got {largest} and {first}")
    micro_batch = first
    while True:
        try:
            return compute(micro_batch), micro_batch
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            reason = textwrap.shorten(str(error), 120, placeholder=" …")
        # Only here, where the exception is gone, is the memory free that the frames of its traceback held.
        _give_back_memory()
        micro_batch = (largest if micro_batch is None else micro_batch) // 2
        if micro_batch < 1:
            raise TooLittleMemoryError(
                f"the GPU has no room for even one photo at a time ({reason}). Add --activation-checkpointing "
                "(less memory, the same numbers) or --precision bf16, run fewer trials on one GPU (--max-concurrent), "
                "store fewer photos (buffer_size), or end other programs on the GPU"
            )
        say(
            f"out of GPU memory ({reason}): started again from the same seeds with at most {micro_batch} "
            f"photo{'s' if micro_batch > 1 else ''} in a pass; the mathematics is the same, last digits may differ"
        )


def _give_back_memory() -> None:
    gc.collect()  # reference cycles, of which exceptions and modules make some
    is_initialized: Callable[[], bool] = torch.cuda.is_initialized  # torch gives it no types
    if is_initialized():
        torch.cuda.empty_cache()
