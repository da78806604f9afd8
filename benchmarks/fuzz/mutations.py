"""Ways to damage files at random, for binary files and for text. All take the bytes and a generator."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

Mutation = Callable[[bytes, np.random.Generator], bytes]

ODD_NUMBERS = (
    *("0", "-1", "1", "7", "1e9", "-1e9", "1e400", "1000000000", "99999999999999999999", "0.5", "NaN", "nan", ".inf"),
    *('"7"', "null", "true", "[]", "{}", '""', "[1, 2]", "9" * 5000),
)
"""What a number in a text is replaced by: other numbers, and values of another type."""
MOST_DEPTH = 200_000


def _span(content: bytes, rng: np.random.Generator) -> tuple[int, int]:
    """A random part of the content, mostly short."""
    start = int(rng.integers(0, len(content)))
    length = int(rng.integers(1, max(2, min(len(content) - start, int(10 ** rng.uniform(0, 4))) + 1)))
    return start, min(len(content), start + length)


def flip_bits(content: bytes, rng: np.random.Generator) -> bytes:
    """One bit, or a few."""
    changed = bytearray(content)
    for _ in range(int(rng.choice([1, 1, 1, 2, 8]))):
        changed[int(rng.integers(len(changed)))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def flip_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    """One byte becomes another, or a few do."""
    changed = bytearray(content)
    for _ in range(int(rng.choice([1, 1, 2, 16]))):
        changed[int(rng.integers(len(changed)))] = int(rng.integers(256))
    return bytes(changed)


def truncate(content: bytes, rng: np.random.Generator) -> bytes:
    """The end is missing; sometimes everything is."""
    return content[: int(rng.choice([0, rng.integers(len(content)), len(content) - 1]))]


def splice(content: bytes, rng: np.random.Generator) -> bytes:
    """One part is copied over another."""
    start, end = _span(content, rng)
    target = int(rng.integers(len(content)))
    return content[:target] + content[start:end] + content[target + (end - start) :]


def zero_block(content: bytes, rng: np.random.Generator) -> bytes:
    """One part is zero, as after a power cut."""
    start, end = _span(content, rng)
    return content[:start] + bytes(end - start) + content[end:]


def duplicate_block(content: bytes, rng: np.random.Generator) -> bytes:
    """One part stands there twice."""
    start, end = _span(content, rng)
    return content[:end] + content[start:end] + content[end:]


def remove_block(content: bytes, rng: np.random.Generator) -> bytes:
    """One part is missing."""
    start, end = _span(content, rng)
    return content[:start] + content[end:]


def insert_noise(content: bytes, rng: np.random.Generator) -> bytes:
    """Random bytes are put in."""
    place = int(rng.integers(len(content) + 1))
    return content[:place] + rng.bytes(int(rng.choice([1, 4, 100]))) + content[place:]


def all_noise(content: bytes, rng: np.random.Generator) -> bytes:
    """Random bytes of about the same length instead."""
    return rng.bytes(min(len(content), 10_000))


def edit_number(content: bytes, rng: np.random.Generator) -> bytes:
    """One number of a text becomes another one, or a value of another type."""
    numbers = list(re.finditer(rb"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?", content))
    if not numbers:
        return flip_bytes(content, rng)
    number = numbers[int(rng.integers(len(numbers)))]
    odd = ODD_NUMBERS[int(rng.integers(len(ODD_NUMBERS)))].encode()
    text = number[0] + b"0" if rng.random() < 0.2 else odd  # times ten: looks like any other value
    return content[: number.start()] + text + content[number.end() :]


def edit_line(content: bytes, rng: np.random.Generator) -> bytes:
    """One line of a text is missing, stands there twice, or changes places with another."""
    lines = content.splitlines(keepends=True) or [content]
    first, second = (int(rng.integers(len(lines))) for _ in range(2))
    kind = rng.integers(3)
    if kind == 0:
        del lines[first]
    elif kind == 1:
        lines.insert(second, lines[first])
    else:
        lines[first], lines[second] = lines[second], lines[first]
    return b"".join(lines)


def edit_word(content: bytes, rng: np.random.Generator) -> bytes:
    """One word of a text becomes another word of it: a key that is missing, a name that means something else."""
    words = list(re.finditer(rb"[A-Za-z_]\w*", content))
    if len(words) < 2:
        return flip_bytes(content, rng)
    word, other = (words[int(rng.integers(len(words)))] for _ in range(2))
    return content[: word.start()] + other[0] + content[word.end() :]


def nest(content: bytes, rng: np.random.Generator) -> bytes:
    """A value of a text becomes a list in a list in a list …."""
    depth = int(rng.choice([1_000, 20_000, MOST_DEPTH]))
    opening, closing = [(b"[", b"]"), (b'{"a":', b"}")][int(rng.integers(2))]
    middle = b"" if opening == b"[" else b"1"
    nested = opening * depth + middle + (closing * depth if rng.random() < 0.5 else b"")
    values = list(re.finditer(rb"(?<=[:\[,] )\S+|(?<=[:\[,])[^\s:\[,]+", content))
    if not values or rng.random() < 0.3:
        return nested
    value = values[int(rng.integers(len(values)))]
    return content[: value.start()] + nested + content[value.end() :]


BINARY: tuple[Mutation, ...] = (
    *(flip_bits, flip_bits, flip_bits, flip_bytes, flip_bytes, truncate, splice, zero_block, duplicate_block),
    *(remove_block, insert_noise, all_noise),
)
TEXT: tuple[Mutation, ...] = (
    *(edit_number, edit_number, edit_number, edit_number, edit_line, edit_line, edit_word, edit_word, nest, flip_bits),
    *(flip_bytes, truncate, splice, zero_block, duplicate_block, remove_block, insert_noise, all_noise),
)


def is_text(content: bytes) -> bool:
    """Whether it is printable UTF-8."""
    try:
        return content.decode().replace("\n", "").replace("\t", "").replace("\r", "").isprintable()
    except UnicodeDecodeError:
        return False


def kinds_of_files(folder: Path) -> list[list[Path]]:
    """All files below a folder by kind (paths that differ in keys and numbers only): each kind has equal odds."""
    kinds: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            kinds.setdefault(re.sub(r"[0-9a-f]{2,64}(?=[/.])|\d+", "*", name), []).append(path)
    return list(kinds.values())


def damage_one_file(
    folder: Path, rng: np.random.Generator, kinds: Sequence[Sequence[Path]] | None = None, *, mutations: int = 1
) -> str:
    """Damage one file below a folder in place; returns what was done, in words."""
    kinds = kinds or kinds_of_files(folder)
    kind = kinds[int(rng.integers(len(kinds)))]
    path = kind[int(rng.integers(len(kind)))]
    name = path.relative_to(folder).as_posix()
    content = path.read_bytes()
    if rng.random() < 0.03:
        path.unlink()
        return f"{name}: removed"
    if rng.random() < 0.03:
        other = kinds[int(rng.integers(len(kinds)))][0]
        path.write_bytes(other.read_bytes())
        return f"{name}: replaced by {other.relative_to(folder).as_posix()}"
    done = []
    for _ in range(mutations):
        if not content:
            content = b"\0"
        choices = TEXT if is_text(content) else BINARY
        mutation = choices[int(rng.integers(len(choices)))]
        content = mutation(content, rng)
        done.append(mutation.__name__)
    path.write_bytes(content)
    return f"{name}: {', '.join(done)}"
