"""A study's store that takes over from other studies what it lacks.

A value is taken over if its key is equal (so everything that its numbers depend on is equal, too) and ``fits`` accepts
its files (``clstudy.records.stage_record.computed_on``: the same kind of processor, which is not part of the key). It
is copied, so that every study stays whole when another one is removed or forgets a person. Other studies are only read:
what is damaged or closed to this user there counts as absent, and nothing is moved aside.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from clstudy.storage.content_addressed_store import StudyStore, ValueStore
from clstudy.storage.places import Place
from clstudy.storage.trees import together

Fits = Callable[[Mapping[str, bytes]], bool]
"""Whether a value of another study, given as its files, may be taken over."""


@dataclass(frozen=True, kw_only=True)
class Sharing:
    """Other studies to take values over from.

    Attributes:
        studies: their folders, in the order in which they are asked.
        fits: which of their values may be taken over.
        keep: whether these are stored in the own study, too; a plan, which writes nothing, only looks.
    """

    studies: tuple[Place, ...]
    fits: Fits
    keep: bool


class SharedValues(ValueStore):
    """Values of one kind: those of a study, and behind them those of others.

    ``get`` also finds what only another study has. ``complete``, ``looks_complete`` and everything else are about this
    study's own values.
    """

    def __init__(
        self,
        root: Place,
        say: Callable[[str], None],
        needs: Collection[str],
        others: Sequence[ValueStore],
        how: Sharing,
    ):
        super().__init__(root, say, needs)
        self._others = others
        self._how = how
        self.taken_over: set[str] = set()
        """Keys of values that came from another study, by this object."""

    def get(self, key: str) -> dict[str, bytes] | None:
        """As ``ValueStore.get``; a value that only another study has is taken over."""
        files = super().get(key)
        if files is not None:
            return files
        for other in self._others:
            found = other.peek(key)
            if found is not None and self._how.fits(found):
                if self._how.keep:
                    self.put(key, found)
                    self.taken_over.add(key)
                return found
        return None

    def elsewhere(self, keys: Iterable[str]) -> dict[str, int]:
        """Key -> index of the first other study with a value that may be taken over."""
        found: dict[str, int] = {}
        for index, other in enumerate(self._others):
            names = sorted(other.visible(set(keys) - found.keys()))
            files = together(other.peek, names, other.root)
            found |= {
                key: index for key, one in zip(names, files, strict=True) if one is not None and self._how.fits(one)
            }
        return found

    def anywhere(self, key: str) -> bool:
        """Whether another study seems to have it (no file is read)."""
        return any(other.visible([key]) for other in self._others)


class SharingStudyStore(StudyStore):
    """A study's store, and behind it those of other studies."""

    def __init__(self, root: Place, how: Sharing, say: Callable[[str], None]):
        self._how = how
        super().__init__(root, say)

    def _values(self, kind: str, needs: Collection[str]) -> SharedValues:
        others = [ValueStore(study / kind, self._say, needs) for study in self._how.studies]
        return SharedValues(self.root / kind, self._say, needs, others, self._how)

    def elsewhere(self, keys: Iterable[str]) -> dict[str, str]:
        """Stage -> name of another study that it can be taken over from."""
        assert isinstance(self.stages, SharedValues)
        return {key: self._how.studies[index].name for key, index in self.stages.elsewhere(keys).items()}

    def weights_elsewhere(self, key: str) -> bool:
        """Whether another study seems to have the weights of a stage."""
        assert isinstance(self.weights, SharedValues)
        return self.weights.anywhere(key)

    def take_along(self, key: str, learned: str | None) -> None:
        """If a stage was taken over, take over what belongs to it, as far as it is there; once.

        That is its weights (from which later stages train on, and which an export needs), what its strategy had
        ``learned``, and how long it took where it was computed.
        """
        assert isinstance(self.stages, SharedValues)
        if key not in self.stages.taken_over:
            return
        self.stages.taken_over.remove(key)
        self.weights.get(key)
        if learned is not None:
            self.learned.get(learned)
        timings = (StudyStore(study, self._say).timing(key) for study in self._how.studies)
        if timing := next((found for found in timings if found is not None), None):
            with suppress(OSError):
                self.record_seconds(key, timing)
