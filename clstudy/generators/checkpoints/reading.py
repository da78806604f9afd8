"""Read a checkpoint file in any of the known formats."""

from __future__ import annotations

import hashlib
import io
import stat
from collections.abc import Callable
from pathlib import Path

from clstudy.assets.readers.errors import CheckpointError
from clstudy.assets.readers.pickle_limits import Limits
from clstudy.errors import nearest
from clstudy.generators.checkpoints.checkpoint import Checkpoint, FoundNetwork, refusal
from clstudy.generators.checkpoints.safetensors_files import read_safetensors
from clstudy.generators.checkpoints.sizes import checked_tensors, infer_settings
from clstudy.generators.checkpoints.torch_objects import read_torch_objects
from clstudy.generators.stylegan2 import StyleGAN2Settings

_LARGEST_HEADER = 100_000_000  # bytes; the limit of the safetensors format

_Reader = Callable[[bytes], FoundNetwork]


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a published StyleGAN2 or EG3D generator; see the package for the formats.

    Raises:
        CheckpointError: (a UserError) the file is missing, damaged, of another kind, unsafe, or a network that ours
            do not reproduce; the message starts with the path. Nothing in the file has been executed.
    """
    try:
        data = _read_bytes(path)
        found = _reader(data)(data)
        settings = found.settings or infer_settings(found.tensors, conv_clamp=found.conv_clamp)
        tensors = checked_tensors(found.tensors, settings)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}", kind=error.kind) from error
    except (MemoryError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        # a value of a type or size that no published file has; the cause has the details
        raise CheckpointError(
            f"{path}: it is damaged, or not such a checkpoint ({type(error).__name__} in {len(data):,} bytes); "
            "download it again"
        ) from error
    return Checkpoint(
        kind=settings.kind,
        format=found.format,
        settings=settings,
        tensors=tensors,
        sha256=hashlib.sha256(data).hexdigest(),
        notes=found.notes,
    )


def stylegan2_settings(checkpoint: Checkpoint, path: Path) -> StyleGAN2Settings:
    """The settings of a checkpoint that must be a StyleGAN2.

    Raises:
        CheckpointError: it is an EG3D.
    """
    if not isinstance(checkpoint.settings, StyleGAN2Settings):
        raise CheckpointError(
            f"{path}: it is an EG3D generator (TriPlaneGenerator), a 3D checkpoint; expected a 2D StyleGAN2 generator, "
            "such as one for FFHQ; name it: --weights generator=FILE",
            kind=checkpoint.kind,
        )
    return checkpoint.settings


def _read_bytes(path: Path) -> bytes:
    try:
        if stat.S_ISREG(path.stat().st_mode) or path.is_dir():
            return path.read_bytes()
    except FileNotFoundError:
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise CheckpointError(
            f"there is no such file; give a checkpoint's path.{nearest(path.name, siblings)}"
        ) from None
    except IsADirectoryError:
        raise CheckpointError("this is a folder; expected a checkpoint file; give the path of the file in it") from None
    except OSError as error:
        raise CheckpointError(f"it cannot be read ({error.strerror}); check its permissions") from None
    raise CheckpointError("this is a pipe or a device; expected a checkpoint file; give the path of one")


_OTHER_FILES: tuple[tuple[bytes, str], ...] = (
    (
        b"version https://git-lfs.github.com/spec/",
        "it is a git-LFS pointer, not the file it stands for: run `git lfs pull` in its repository, or download "
        "the file itself",
    ),
    (b"\x89PNG\r\n", "it is a PNG image"),
    (b"\xff\xd8\xff", "it is a JPEG image"),
    (b"GIF8", "it is a GIF image"),
    (b"%PDF", "it is a PDF document"),
    (b"\x89HDF\r\n", "it is an HDF5 file (Keras or TensorFlow weights, perhaps)"),
    (b"\x1f\x8b", "it is compressed with gzip: unpack it first"),
    (b"BZh", "it is compressed with bzip2: unpack it first"),
    (b"\xfd7zXZ", "it is compressed with xz: unpack it first"),
    (b"7z\xbc\xaf", "it is a 7-Zip archive: unpack it first"),
    (b"Rar!", "it is a RAR archive: unpack it first"),
)


def _reader(data: bytes) -> _Reader:
    """Choose a reader by the first bytes; file names prove nothing."""
    if not data:
        raise CheckpointError("the file is empty; the download did not finish or failed: download it again")
    for head, sentence in _OTHER_FILES:
        if data.startswith(head):
            raise refusal(sentence)
    start = data[:2048].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")):
        raise refusal(
            "it is a web page saved under this name (a download link often leads to a page that asks for a click or a "
            "login): download the file itself in a browser and check its size"
        )
    if data[8:9] == b"{" and int.from_bytes(data[:8], "little") < _LARGEST_HEADER:
        return read_safetensors
    if data.startswith((b"\x80", b"PK\x03\x04")) or _runs_as_pickle(data):
        return read_torch_objects
    if _is_text(data[:2048]):
        raise refusal("it is a text file")
    raise refusal(f"it is not a known kind of file (it starts with the bytes {data[:8].hex(' ')})")


def _is_text(start: bytes) -> bool:
    text = start.decode("utf-8", errors="replace")
    return all(letter.isprintable() or letter in "\r\n\t" or letter == "\ufffd" for letter in text) and (
        text.count("\ufffd") <= 1  # the last letter may be cut
    )


def _runs_as_pickle(data: bytes) -> bool:
    """Whether it is a pickle of the oldest protocols, which have no mark at the start; then errors name its globals."""
    try:
        instructions = Limits(len(data)).instructions(io.BytesIO(data))
        return any(opcode.name == "STOP" and place for opcode, _, place in instructions)
    except Exception:  # genops fails in many ways on what is not a pickle
        return False
