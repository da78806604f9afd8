"""What a pickle would import and do, listed from its instructions before any of them is executed."""

from __future__ import annotations

import io
import pickletools
from dataclasses import dataclass, field

from clstudy.assets.readers.errors import CheckpointError, UnknownGlobals
from clstudy.assets.readers.pickle_limits import BeyondLimits, Limits
from clstudy.assets.readers.pickle_objects import KNOWN_GLOBALS

INSTRUCTIONS = frozenset(opcode.name for opcode in pickletools.opcodes if opcode.proto <= 4) - {
    "INST",
    "OBJ",
    "NEWOBJ_EX",
    "PERSID",
    "EXT1",
    "EXT2",
    "EXT4",
}
"""Instructions that may occur: those of protocol 4 without the other ways to build instances, extension codes and
persistent ids as text. Later protocols may be declared as long as they use no more."""

_LEGACY_HEADER = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""The magic number of torch files before 1.6, pickled, without the two bytes of its protocol."""

NESTED_TWICE = "it has torch files nested in torch files"


@dataclass(kw_only=True)
class Scan:
    """What pickles name: globals and instructions that are not known."""

    limits: Limits
    unknown: dict[str, None] = field(default_factory=dict)
    instructions: dict[str, None] = field(default_factory=dict)
    nested: bool = False

    def read(self, stream: io.BytesIO, depth: int = 0) -> None:
        """Read one pickle up to its STOP; the names of STACK_GLOBAL are followed through the memo where possible.

        Args:
            stream: positioned at the start of the pickle.
            depth: how many torch files the pickle is nested in.

        Raises:
            ValueError: it is not a pickle, or it is cut off.
        """
        pushed: list[str | None] = []
        memo: dict[int, str | None] = {}
        for opcode, argument, _ in self.limits.instructions(stream):
            name = opcode.name
            if name not in INSTRUCTIONS:
                self.instructions[name] = None
            if name in ("GLOBAL", "INST"):
                self._note(str(argument).replace(" ", "."))
            elif name == "STACK_GLOBAL" and None not in pushed[-2:] and len(pushed) > 1:
                self._note(".".join(map(str, pushed[-2:])))
            if name in ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"):
                memo[len(memo) if argument is None else argument] = pushed[-1] if pushed else None
            elif name in ("GET", "BINGET", "LONG_BINGET"):
                pushed.append(memo.get(int(str(argument))))
            elif isinstance(argument, str) and name not in ("GLOBAL", "INST"):
                pushed.append(argument)
            elif name not in ("PROTO", "FRAME"):
                pushed.append(None)
            if isinstance(argument, bytes) and is_legacy_torch_file(argument):
                self.nested |= depth > 0
                if depth < 2:
                    self.read_all(argument, depth + 1)
            del pushed[:-2]

    def read_all(self, data: bytes, depth: int = 1) -> None:
        """Read the five pickles at the start of a torch file from before 1.6."""
        stream = io.BytesIO(data)
        for _ in range(5):
            self.read(stream, depth)

    def _note(self, name: str) -> None:
        if name not in KNOWN_GLOBALS:
            self.unknown[name] = None

    def check(self) -> None:
        """Raise UnknownGlobals or CheckpointError for what has been found."""
        if self.unknown:
            raise UnknownGlobals(tuple(self.unknown))
        if self.instructions:
            raise CheckpointError(
                f"it uses the pickle instructions {', '.join(self.instructions)}, which no published checkpoint uses; "
                "nothing was executed. Expected an official checkpoint; get the file from its publisher again"
            )
        if self.nested:
            raise BeyondLimits(NESTED_TWICE)


def is_legacy_torch_file(data: bytes) -> bool:
    """Whether these bytes begin as ``torch.save`` began its files before 1.6."""
    return data[:1] == b"\x80" and data[2 : 2 + len(_LEGACY_HEADER)] == _LEGACY_HEADER
