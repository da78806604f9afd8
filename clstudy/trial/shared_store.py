"""Opens a study's store with other studies behind it (no torch, no Ray)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from clstudy.records.stage_record import computed_on
from clstudy.storage.content_addressed_store import StudyStore
from clstudy.storage.places import Place
from clstudy.storage.sharing import Sharing, SharingStudyStore

_LOG = logging.getLogger(__name__)


def shared_store(
    out: Place,
    others: Sequence[Place],
    processor: str,
    *,
    keep: bool,
    say: Callable[[str], None] = _LOG.warning,
) -> StudyStore:
    """The store of a study that takes over what others have computed on the same kind of processor.

    Args:
        out: the study's folder.
        others: folders of other studies; without any, this is an ordinary store.
        processor: kind of processor that this study computes on (``clstudy.settings.instruction_sets``).
        keep: whether what is taken over is stored in the study; a plan only looks.
        say: called with a message when the storage has to be waited for.
    """
    if not others:
        return StudyStore(out, say)

    def fits(files: Mapping[str, bytes]) -> bool:
        return computed_on(files) == processor

    return SharingStudyStore(out, Sharing(studies=tuple(others), fits=fits, keep=keep), say)
