"""What a worker does when the GPU's memory is full, with a generator that refuses batches above a size."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from clstudy.errors import UserError
from clstudy.generators.stylegan2 import StyleGAN2, StyleGAN2Settings
from clstudy.metrics.lpips import LPIPS
from clstudy.metrics.psnr import PSNRMetric
from clstudy.settings.profiles import InversionSettings, TrainerSettings, smoke
from clstudy.training import evaluation
from clstudy.training.evaluation import Evaluation, evaluate
from clstudy.training.micro_batches import TooLittleMemoryError, is_out_of_memory, with_smaller_batches
from clstudy.training.numerics import configure_torch
from clstudy.training.personalise import TrainingDivergedError, TrainingPhotos, personalise

SETTINGS = StyleGAN2Settings(img_resolution=32, z_dim=8, w_dim=8, channel_base=256, channel_max=16)
FULL = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.69 GiB of which 1.1 GiB is free. "
    "Process 17 has 22.56 GiB memory in use. If reserved but unallocated memory is large try setting …"
)


@pytest.fixture(autouse=True, scope="module")
def as_a_worker_computes() -> Iterator[None]:
    """Bits are promised for a worker's settings: with torch's own number of threads sums may be split otherwise."""
    before = torch.get_num_threads()
    configure_torch(smoke().compute, smoke().resources)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def lpips() -> LPIPS:
    return LPIPS()


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (torch.OutOfMemoryError(FULL), True),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"), True),
        (RuntimeError("CUDA driver error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"), False),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"), False),
        (MemoryError("out of memory"), False),
        (UserError("CUDA error: out of memory"), False),
    ],
)
def test_which_errors_mean_that_memory_is_full(error: Exception, full: bool) -> None:
    assert is_out_of_memory(error) is full
    sizes: list[int | None] = []

    def compute(micro_batch: int | None) -> str:
        sizes.append(micro_batch)
        if micro_batch is None:
            raise error
        return "done"

    if full:
        assert with_smaller_batches(compute, 4, lambda text: None) == ("done", 2)
    else:
        with pytest.raises(type(error)) as caught:
            with_smaller_batches(compute, 4, lambda text: None)
        assert caught.value is error and sizes == [None], "any other error goes through at once"


@settings(max_examples=12)  # collecting garbage, which every failed attempt does, takes its time
@given(largest=st.integers(1, 40), fits=st.integers(0, 45))
def test_sizes_are_halved_until_they_fit_and_every_attempt_is_told(largest: int, fits: int) -> None:
    tried: list[int] = []
    told: list[str] = []

    def compute(micro_batch: int | None) -> int:
        tried.append(largest if micro_batch is None else micro_batch)
        assert len(told) == len(tried) - 1, "said before it begins again"
        if tried[-1] > fits:
            raise torch.OutOfMemoryError(FULL)
        return len(tried)

    if fits == 0:
        with pytest.raises(
            TooLittleMemoryError, match="no room for even one photo.*Tried to allocate 2.00 GiB.*--activ"
        ):
            with_smaller_batches(compute, largest, told.append)
        assert tried[-1] == 1
    else:
        value, micro_batch = with_smaller_batches(compute, largest, told.append)
        assert value == len(tried) and tried[-1] <= fits
        assert micro_batch == (None if fits >= largest else tried[-1])
        assert len(told) == len(tried) - 1
    assert all(after == before // 2 for before, after in zip(tried, tried[1:], strict=False))
    assert all(
        f"with at most {size} photo" in text and "Tried to allocate 2.00 GiB" in text
        for size, text in zip(tried[1:], told, strict=False)
    )


def test_what_is_made_again_begins_where_its_record_says() -> None:
    """Training may fit whole where the stage was halved for its inversions: its weights are those that were scored."""
    tried: list[int | None] = []

    def compute(micro_batch: int | None) -> None:
        tried.append(micro_batch)
        if len(tried) == 2:
            raise torch.OutOfMemoryError(FULL)

    assert with_smaller_batches(compute, 8, lambda text: None, first=2) == (None, 2)
    assert with_smaller_batches(compute, 8, lambda text: None, first=2) == (None, 1)
    assert tried == [2, 2, 1]


@pytest.mark.parametrize(("largest", "first"), [(0, None), (4, 0)])
def test_a_pass_has_at_least_one_photo(largest: int, first: int | None) -> None:
    with pytest.raises(ValueError, match=f"at least 1 photo, got {largest} and {first}"):
        with_smaller_batches(lambda size: size, largest, lambda text: None, first=first)


def test_what_the_failed_attempt_held_is_gone_before_the_next_begins() -> None:
    """Frames of a traceback keep their variables alive; an exception in one of them makes a cycle."""
    held: list[weakref.ref[Tensor]] = []

    def deep() -> None:
        weights = torch.zeros(1000)
        held.append(weakref.ref(weights))
        try:
            raise torch.OutOfMemoryError(FULL)
        except torch.OutOfMemoryError as error:
            kept = error
        raise kept

    def compute(micro_batch: int | None) -> int:
        assert all(alive() is None for alive in held)
        if len(held) < 2:
            deep()
        return len(held)

    assert with_smaller_batches(compute, 8, lambda text: None) == (2, 2)


class Small(nn.Module):
    """A device with room for so many photos in a pass, while ``phase`` runs."""

    def __init__(self, module: nn.Module, room: int, phase: str):
        super().__init__()
        self.module, self.room, self.phase = module, room, phase

    def _now(self) -> str:
        if not torch.is_grad_enabled():
            return "images"
        return "training" if next(self.parameters()).requires_grad else "inversion"

    def forward(self, w: Tensor) -> Tensor:
        if len(w) > self.room and self.phase in (self._now(), "everything"):
            raise torch.OutOfMemoryError(FULL)
        return self.module(w)


def photos(count: int, lpips: LPIPS, seed: int) -> TrainingPhotos:
    rng = torch.Generator().manual_seed(seed)
    latents = torch.randn(count, 8, generator=rng)
    return TrainingPhotos.prepare(latents, torch.rand(count, 3, 32, 32, generator=rng) * 2 - 1, lpips)


Stage = tuple[float, dict[str, Tensor], Evaluation]


def stage(lpips: LPIPS, limit: Callable[[nn.Module], Small]) -> Callable[[int | None], Stage]:
    """A stage as a trial computes it: 4 photos per step, 3 inverted together, 4 images generated together."""
    metric, seen = PSNRMetric(), photos(3, lpips, 5)
    test = evaluation.TestSet(
        timestamp=0,
        digests=("a", "b", "c"),
        images=seen.images,
        features=seen.features,
        start=torch.zeros(3, 8),
        prepared={metric.name: metric.prepare(seen.images)},
        combinations=photos(4, lpips, 6).latents,
    )

    def compute(micro_batch: int | None) -> Stage:
        torch.manual_seed(0)
        module = limit(StyleGAN2(SETTINGS).synthesis)
        loss = personalise(
            module,
            photos(3, lpips, 1),
            photos(2, lpips, 2),
            settings=TrainerSettings(epochs=2),
            learning_rate=1e-3,
            lpips=lpips,
            new_rng=np.random.default_rng(3),
            replay_rng=np.random.default_rng(4),
            micro_batch=micro_batch,
        )
        module.requires_grad_(False)
        scores = evaluate(
            module,
            [test],
            [metric],
            train_timestamp=0,
            inversion=InversionSettings(steps=2, batch_size=4),
            lpips=lpips,
            micro_batch=micro_batch,
        )
        return loss, module.module.state_dict(), scores

    return compute


def same_bits(one: Stage, other: Stage) -> bool:
    return (
        one[0] == other[0]
        and all(torch.equal(value, other[1][name]) for name, value in one[1].items())
        and one[2].rows == other[2].rows
    )


@pytest.mark.parametrize(
    ("phase", "room", "expected"),
    [
        ("everything", 4, None),
        ("training", 3, 2),
        ("training", 1, 1),
        ("inversion", 2, 2),
        ("inversion", 1, 1),
        ("images", 3, 2),
        ("images", 1, 1),
        ("everything", 2, 2),
    ],
)
def test_a_stage_that_did_not_fit_is_the_one_computed_with_that_micro_batch_from_the_start(
    lpips: LPIPS, phase: str, room: int, expected: int | None
) -> None:
    """Wherever memory runs out, after any number of steps: nothing of the failed attempt is left in the numbers."""
    told: list[str] = []
    found, micro_batch = with_smaller_batches(stage(lpips, lambda module: Small(module, room, phase)), 4, told.append)
    assert micro_batch == expected and len(told) == {None: 0, 2: 1, 1: 2}[expected]
    roomy = stage(lpips, lambda module: Small(module, 99, phase))
    assert same_bits(found, roomy(micro_batch))
    whole = roomy(None)
    assert found[0] == pytest.approx(whole[0], rel=1e-3)
    assert [row.value for row in found[2].rows] == pytest.approx([row.value for row in whole[2].rows], rel=1e-2)


def test_no_room_at_all_and_a_diverging_stage_are_told_apart(lpips: LPIPS) -> None:
    with pytest.raises(TooLittleMemoryError, match="--precision bf16"):
        with_smaller_batches(stage(lpips, lambda module: Small(module, 0, "everything")), 4, lambda text: None)

    def broken(module: nn.Module) -> Small:
        nn.init.constant_(module.get_parameter("b32.torgb.bias"), float("nan"))
        return Small(module, 4, "everything")

    told: list[str] = []
    with pytest.raises(TrainingDivergedError, match="became nan at step 1"):
        with_smaller_batches(stage(lpips, broken), 4, told.append)
    assert not told
