"""The work of a stage in photo passes, from which its cost is estimated."""

from __future__ import annotations

from collections.abc import Sequence

from clstudy.identities.dataset import Identity
from clstudy.settings.profiles import Profile, key_document
from clstudy.storage.content_addressed_store import digest_of
from clstudy.trial.requests import Basis, StageRequest
from clstudy.workloads.base import workload_of


def work_of(profile: Profile, *, new: int, replayed: bool, tested: Sequence[int]) -> float:
    """Photo passes of a stage.

    Args:
        profile: its trainer and inversion settings.
        new: number of photos trained on.
        replayed: whether every step also takes replayed (or generated) photos.
        tested: number of test photos of every timestamp k <= t.
    """
    kind = workload_of(profile)
    return kind.training_work(profile, new=new, replayed=replayed) + kind.test_work(profile, tested)


def stage_work(request: StageRequest) -> float:
    """Photo passes of a stage with a known request."""
    return work_of(
        request.basis.profile,
        new=sum(len(request.identity.timestamps[k].train) for k in request.trained_on),
        replayed=bool(request.replay) or request.support is not None,
        tested=[len(timestamp.test) for timestamp in request.identity.timestamps[: request.t + 1]],
    )


def training_work(request: StageRequest) -> float:
    """Photo passes of training alone: a stage with dropped weights is trained again, but not tested again."""
    profile = request.basis.profile
    tested = [len(timestamp.test) for timestamp in request.identity.timestamps[: request.t + 1]]
    return stage_work(request) - workload_of(profile).test_work(profile, tested)


def likely_work(profile: Profile, identity: Identity, t: int) -> float:
    """Photo passes of a stage when its buffer is not chosen yet."""
    return work_of(
        profile,
        new=len(identity.timestamps[t].train),
        replayed=t > 0,
        tested=[len(timestamp.test) for timestamp in identity.timestamps[: t + 1]],
    )


def cost_kind(basis: Basis) -> str:
    """Short digest of everything but the machine that determines the cost of a photo pass."""
    profile = basis.profile
    return digest_of(
        {
            "generator": profile.generator,
            "image_size": profile.data.image_size,
            "evaluation": key_document(profile.evaluation),
            "fingerprint": basis.fingerprint(),
            "recompute": profile.compute.activation_checkpointing,
            **basis.adapted(),
        }
    )[:12]
