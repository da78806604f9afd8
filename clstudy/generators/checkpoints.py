"""Published generators as tensors under our names, read without running anything a file contains.

Formats: pickles of NVIDIA's stylegan2-ada-pytorch and stylegan3 repositories (StyleGAN2 networks), torch files of such
a network, whole or its synthesis network alone (MyStyle's personalised models), rosinality's state dicts, and our own
safetensors files. Sizes are inferred from the tensors; what changes a network's output without changing a shape
(architecture, activation, filter, learning rate multiplier, clamping) is read from the objects where the format keeps
it, and refused where our StyleGAN2 differs.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from clstudy.assets.readers.errors import CheckpointError, UnknownGlobals
from clstudy.assets.readers.network_tensors import arrays, modules, tensor_refs
from clstudy.assets.readers.pickle_limits import Limits
from clstudy.assets.readers.pickle_objects import PersistentObject, TensorRef
from clstudy.assets.readers.restricted_pickle import read_objects
from clstudy.assets.readers.tensor_files import LARGEST_HEADER
from clstudy.errors import UserError, nearest
from clstudy.generators.rosinality import looks_like_rosinality, translate
from clstudy.generators.stylegan2 import StyleGAN2, StyleGAN2Settings, fir_filter
from clstudy.storage.places import write_atomically

FORMAT_VERSION = 1
"""Version of our safetensors files; raised when an older clstudy could misread a newer file."""

_EXPECTED = "expected a StyleGAN2 generator in one of the formats of python -m clstudy.generators inspect --help"
_METADATA_KEY = "clstudy"
_LARGEST_HEADER = 100_000_000  # bytes; the limit of the safetensors format

_LARGEST_SIDE = 4096
_MOST_LAYERS = 64


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A generator read from a file.

    Attributes:
        kind: "stylegan2"; every other kind is refused.
        format: what the file is, in words, e.g. "NVIDIA pickle (G_ema)".
        settings: sizes that build the network.
        tensors: float32 arrays under the names of ``StyleGAN2(settings).state_dict()``, all of them.
        sha256: of the file.
        notes: what a user should know, a sentence each.
    """

    kind: str
    format: str
    settings: StyleGAN2Settings
    tensors: Mapping[str, np.ndarray]
    sha256: str
    notes: tuple[str, ...] = ()

    @property
    def parameters(self) -> int:
        """How many numbers training changes (constant noise, filters and the mean w are not among them)."""
        return sum(value.size for name, value in self.tensors.items() if not name.endswith(_BUFFERS))


_BUFFERS = (".noise_const", ".resample_filter", ".w_avg")


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What a reader of one format found; sizes follow from the tensors unless the file holds the settings."""

    format: str
    tensors: Mapping[str, np.ndarray]
    conv_clamp: float | None = None
    settings: StyleGAN2Settings | None = None
    notes: tuple[str, ...] = ()


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a published StyleGAN2 generator; see the module for the formats.

    Raises:
        CheckpointError: (a UserError) the file is missing, damaged, of another kind, unsafe, or a network that our
            StyleGAN2 does not reproduce; the message starts with the path. Nothing in the file has been executed.
    """
    try:
        data = _read_bytes(path)
        found = _reader(data)(data)
        settings = found.settings or infer_settings(found.tensors, conv_clamp=found.conv_clamp)
        tensors = _checked(found.tensors, settings)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}", kind=error.kind) from error
    except (MemoryError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        # a value of a kind or size that no published file has; which one is in the cause
        raise CheckpointError(
            f"{path}: it is damaged, or no such checkpoint ({type(error).__name__} in {len(data):,} bytes); download "
            "it again"
        ) from error
    return Checkpoint(
        kind="stylegan2",
        format=found.format,
        settings=settings,
        tensors=tensors,
        sha256=hashlib.sha256(data).hexdigest(),
        notes=found.notes,
    )


def write_safetensors(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint in our format, in one step; equal checkpoints give equal bytes.

    Raises:
        UserError: the path does not end in .safetensors or cannot be written.
    """
    if path.suffix != ".safetensors":
        raise UserError(f"{path}: expected a name that ends in .safetensors, e.g. {path.with_suffix('.safetensors')}")
    document = {
        "format_version": FORMAT_VERSION,
        "kind": checkpoint.kind,
        "settings": checkpoint.settings.to_dict(),
        "source": checkpoint.format,
        "source_sha256": checkpoint.sha256,
        "notes": checkpoint.notes,
    }
    # One key only: safetensors writes metadata keys in an order that changes from run to run.
    content = save_safetensors(dict(checkpoint.tensors), metadata={_METADATA_KEY: json.dumps(document, sort_keys=True)})
    try:
        write_atomically(path, content)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); choose another place") from error


# --- which format --------------------------------------------------------------------------------------------------

_Reader = Callable[[bytes], _Found]


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


def _refuse(sentence: str, *, kind: str = "") -> CheckpointError:
    return CheckpointError(f"{sentence}; {_EXPECTED}", kind=kind)


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
    """Choose a reader by the first bytes; names prove nothing."""
    if not data:
        raise CheckpointError("the file is empty; the download did not finish or failed: download it again")
    for head, sentence in _OTHER_FILES:
        if data.startswith(head):
            raise _refuse(sentence)
    start = data[:2048].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")):
        raise _refuse(
            "it is a web page saved under this name (a download link often leads to a page that asks for a click or a "
            "login): download the file itself in a browser and check its size"
        )
    if data[8:9] == b"{" and int.from_bytes(data[:8], "little") < _LARGEST_HEADER:
        return _read_safetensors
    if data.startswith((b"\x80", b"PK\x03\x04")) or _runs_as_pickle(data):
        return _read_torch_objects
    if _is_text(data[:2048]):
        raise _refuse("it is a text file")
    raise _refuse(f"it is none of the known kinds of file (it starts with the bytes {data[:8].hex(' ')})")


def _is_text(start: bytes) -> bool:
    text = start.decode("utf-8", errors="replace")
    return all(letter.isprintable() or letter in "\r\n\t" or letter == "\ufffd" for letter in text) and (
        text.count("\ufffd") <= 1  # the last letter may be cut
    )


def _runs_as_pickle(data: bytes) -> bool:
    """Whether the oldest protocols, which put no mark at the start, would read it: then its globals are named."""
    try:
        instructions = Limits(len(data)).instructions(io.BytesIO(data))
        return any(opcode.name == "STOP" and place for opcode, _, place in instructions)
    except Exception:  # genops fails in many ways on what is no pickle
        return False


# --- our own files -------------------------------------------------------------------------------------------------


def _read_safetensors(data: bytes) -> _Found:
    length = int.from_bytes(data[:8], "little")
    if length > LARGEST_HEADER:
        raise CheckpointError(
            f"it is a safetensors file whose header takes {length:,} bytes; expected at most {LARGEST_HEADER:,}, "
            "far more than a generator needs; convert the original checkpoint"
        )
    try:
        header = json.loads(data[8 : 8 + length])
        text = header.get("__metadata__", {}).get(_METADATA_KEY)
    except (ValueError, AttributeError, RecursionError):
        raise CheckpointError("it is a safetensors file that is cut off or damaged; copy or convert it again") from None
    if text is None:
        raise CheckpointError(
            "it is a safetensors file that `python -m clstudy.generators convert` did not write, so its sizes "
            "and its origin are unknown; convert the original checkpoint"
        )
    try:
        document = json.loads(text)
        version, sizes = document["format_version"], document["settings"]
        origin = f"converted from {document['source']}, sha256 {document['source_sha256']}"
        notes = tuple(str(note) for note in document["notes"])
        tensors = load_safetensors(data)
    except Exception:  # whatever a damaged file does to the library
        raise CheckpointError("it is a safetensors file that is cut off or damaged; copy or convert it again") from None
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"it has format version {version}; this clstudy reads version {FORMAT_VERSION}; convert the original "
            "checkpoint with this clstudy"
        )
    try:
        unknown = set(sizes) - {entry.name for entry in fields(StyleGAN2Settings)}
        if unknown:
            raise ValueError(f"unknown settings {', '.join(sorted(unknown))}")
        _bound(sizes.get("conv_clamp"))
        settings = StyleGAN2Settings(**sizes)
    except (AttributeError, TypeError, ValueError) as error:
        raise CheckpointError(f"its settings cannot be used ({error}); convert the original checkpoint again") from None
    # What the tensors say is believed over what the file says of them.
    if infer_settings(tensors, conv_clamp=settings.conv_clamp) != settings:
        raise CheckpointError("its settings do not fit its tensors; convert the original checkpoint again")
    return _Found(format="clstudy safetensors", tensors=tensors, settings=settings, notes=(*notes, origin))


# --- pickles and torch files ---------------------------------------------------------------------------------------

_TENSORFLOW = (
    "it is a TensorFlow pickle of NVIDIA's older repositories (it names dnnlib.tflib.network); expected a PyTorch one; "
    "download the PyTorch version, or, if you trust its source, convert it with `python legacy.py --source=OLD.pkl "
    "--dest=NEW.pkl` of the stylegan2-ada-pytorch or stylegan3 repository"
)
_EG3D = (
    "it is an EG3D generator (TriPlaneGenerator), a 3D checkpoint; expected a 2D StyleGAN2 generator; give a StyleGAN2 "
    "checkpoint, such as one for FFHQ"
)
_STYLEGAN3 = (
    "it is a StyleGAN3 generator; expected StyleGAN2, whose layers differ; download a StyleGAN2 checkpoint (the "
    "stylegan3 repository lists them too)"
)
_DISCRIMINATOR = (
    "it holds a discriminator and no generator; expected G_ema or g_ema; give the snapshot that holds the generator"
)


_KNOWN_BY_NAMES: tuple[tuple[tuple[str, ...], str, str, str], ...] = (
    (("dnnlib.tflib.",), "", _TENSORFLOW, "tensorflow"),
    # EG3D keeps its renderer and its decoder as ordinary modules.
    (("training.volumetric_rendering.", "torch.nn.modules."), "TriPlaneGenerator", _EG3D, "eg3d"),
)
"""Networks known by globals that we do not rebuild: prefixes of all of them, a word in the file, sentence, kind."""


def _read_torch_objects(data: bytes) -> _Found:
    try:
        content, is_torch_file = read_objects(data)
    except UnknownGlobals as error:
        for prefixes, word, sentence, kind in _KNOWN_BY_NAMES:
            # All of them: a harmful file must not pass for another kind of network, which the user may then open.
            if all(name.startswith(prefixes) for name in error.names) and word in (error.words | {""}):
                raise CheckpointError(sentence, kind=kind) from error
        raise
    if isinstance(content, PersistentObject):
        return _nvidia(content, "a bare network", is_torch_file)
    if isinstance(content, dict):
        for key in ("G_ema", "G"):
            if isinstance(content.get(key), PersistentObject):
                return _nvidia(content[key], key, is_torch_file)
        for key in ("g_ema", "g"):
            if looks_like_rosinality(content.get(key)):
                return _rosinality(content[key], content.get("latent_avg"), key)
        if looks_like_rosinality(content):
            return _rosinality(content, content.get("latent_avg"), "bare")
        if _has_discriminator(content):
            raise CheckpointError(_DISCRIMINATOR, kind="discriminator")
        keys = ", ".join(str(key)[:60] for key in list(content)[:6]) + (", …" if len(content) > 6 else "")
        raise _refuse(f"it holds a dictionary without a generator (keys: {keys or 'none'})")
    raise _refuse(f"it holds an object of type {type(content).__name__}, not a network")


def _has_discriminator(content: Mapping[Any, Any]) -> bool:
    """A snapshot with D only, or the state dict of rosinality's discriminator, alone or as ``d``."""
    return (
        isinstance(content.get("D"), PersistentObject)
        or "final_linear.0.weight" in content
        or (isinstance(content.get("d"), dict) and "final_linear.0.weight" in content["d"])
    )


def _rosinality(state: Mapping[Any, Any], latent_avg: Any, source: str) -> _Found:
    mean = latent_avg.array() if isinstance(latent_avg, TensorRef) else None
    tensors, notes = translate(arrays(state), mean, _fir())
    if source == "g":
        notes = ("g_ema is not in the file; g was read, whose weights are not averaged over training", *notes)
    return _Found(format=f"rosinality state dict ({source})", tensors=tensors, notes=notes)


def _nvidia(network: PersistentObject, source: str, is_torch_file: bool) -> _Found:
    parts = dict(modules(network))
    refs = tensor_refs(network)
    is_bare = "b4.const" in refs
    if is_bare:  # under the names that it has within a generator
        parts = {f"synthesis.{name}".removesuffix("."): part for name, part in parts.items()}
        refs = {f"synthesis.{name}": ref for name, ref in refs.items()}
    _require_stylegan2(network, parts, refs, is_bare=is_bare)
    for name, part in parts.items():
        _require_ordinary(name, part)
    notes = []
    if source == "G":
        notes.append("G_ema is not in the file; G was read, whose weights are not averaged over training")
    half = sorted(
        int(match[1]) for name, part in parts.items() if part.state.get("use_fp16") and (match := _block(name))
    )
    if half:
        span = f"{half[0]}…{half[-1]} px" if len(half) > 1 else f"{half[0]} px"
        notes.append(f"blocks {span} were trained in float16; read as float32")
    tensors = arrays(refs)
    tensors.update(_absent_noise(parts, tensors, notes))
    if "mapping.w_avg" not in tensors and "mapping.fc0.weight" in tensors:
        tensors["mapping.w_avg"] = np.zeros(len(tensors["mapping.fc0.weight"]), np.float32)
        notes.append("the file has no w_avg: it is zero, so keep truncation off (truncation_psi 1)")
    if is_bare:
        tensors["mapping.w_avg"] = np.zeros(_shape(tensors, "synthesis.b4.conv1.affine.weight", 2)[1], np.float32)
        notes.append(SYNTHESIS_ALONE)
    words = "torch file of an NVIDIA module" if is_torch_file else f"NVIDIA pickle ({source})"
    return _Found(format=words, tensors=tensors, conv_clamp=_conv_clamp(parts), notes=tuple(notes))


def _block(name: str) -> re.Match[str] | None:
    return re.fullmatch(r"synthesis\.b(\d+)", name)


SYNTHESIS_ALONE = (
    "it is a synthesis network alone, as MyStyle's train.py saves it: no mapping network, and no mean latent to start "
    "anchors from. A study takes that from MyStyle's encoder (--weights encoder=FILE) or from the network that it was "
    "tuned from (--weights base=ffhq.pkl)"
)


def _require_stylegan2(
    network: PersistentObject, parts: Mapping[str, PersistentObject], names: Iterable[str], *, is_bare: bool
) -> None:
    """Refuse every other network by what it is."""
    names = set(names)
    classes = {part.class_name for part in parts.values()}
    if network.class_name == "TriPlaneGenerator" or any(name.startswith("backbone.synthesis.") for name in names):
        raise CheckpointError(_EG3D, kind="eg3d")
    if "SynthesisInput" in classes or any(re.match(r"synthesis\.L\d+_\d+_\d+\.", name) for name in names):
        raise CheckpointError(_STYLEGAN3, kind="stylegan3")
    if "Discriminator" in network.class_name or any(".fromrgb." in f".{name}" for name in names):
        raise CheckpointError(_DISCRIMINATOR, kind="discriminator")
    if "synthesis.b4.const" not in names or ("mapping.fc0.weight" not in names and not is_bare):
        raise _refuse(f"it holds a network of class {network.class_name[:60]} that is no StyleGAN2 generator")


_ACTIVATIONS = {"conv0": "lrelu", "conv1": "lrelu", "affine": "linear", "embed": "linear"}


def _require_ordinary(name: str, part: PersistentObject) -> None:
    """Refuse what our StyleGAN2 does not do, by the plain attributes of one part; one not there is ordinary."""
    last = name.rpartition(".")[2]
    is_mapping_layer = re.fullmatch(r"mapping\.fc\d+", name) is not None
    expected = {
        "architecture": "skip",
        "activation": "lrelu" if is_mapping_layer else _ACTIVATIONS.get(last),
        "img_channels": 3,
    }
    for attribute, value in expected.items():
        found = part.state.get(attribute, value)
        if value is not None and found != value:
            where = f" of {name}" if name else ""
            raise _refuse(f"its {attribute}{where} is {_short(found)}, and this StyleGAN2 has only {value!r}")
    if is_mapping_layer or last in ("affine", "embed"):
        multiplier = 0.01 if is_mapping_layer else 1.0
        found = _attribute(part, "bias_gain", "lr_multiplier", multiplier)
        if not isinstance(found, float | int | np.number) or not math.isclose(found, multiplier, rel_tol=1e-6):
            raise _refuse(
                f"the learning rate multiplier (lr_multiplier) of {name} is {_short(found)}, and this StyleGAN2 has "
                f"only {multiplier}"
            )


def _attribute(part: PersistentObject, attribute: str, argument: str, default: Any) -> Any:
    """A plain attribute, else the argument it was made with."""
    arguments = part.state.get("_init_kwargs")
    given = arguments.get(argument, default) if isinstance(arguments, dict) else default
    return part.state.get(attribute, given)


def _short(value: object) -> str:
    return repr(value)[:60] if isinstance(value, str | int | float | bool | np.generic) else f"a {type(value).__name__}"


def _conv_clamp(parts: Mapping[str, PersistentObject]) -> float | None:
    """The one bound that all layers share."""
    layers = {name: part for name, part in parts.items() if re.fullmatch(r"synthesis\.b\d+\.(conv0|conv1|torgb)", name)}
    bounds = {_bound(_attribute(part, "conv_clamp", "conv_clamp", None)) for part in layers.values()}
    if len(bounds) > 1:
        shown = ", ".join(sorted(map(str, bounds)))
        raise _refuse(f"its layers have different conv_clamp ({shown}), and this StyleGAN2 has one for all")
    return bounds.pop() if bounds else None


def _bound(value: Any) -> float | None:
    if value is None:
        return None
    if not isinstance(value, int | float | np.number) or not 0 < value < math.inf:
        raise _refuse(f"the conv_clamp of its layers is {_short(value)}, not a positive number")
    return float(value)


def _absent_noise(
    parts: Mapping[str, PersistentObject], tensors: Mapping[str, np.ndarray], notes: list[str]
) -> dict[str, np.ndarray]:
    """Zero noise for layers that were built without it (use_noise false): the same image."""
    absent = {}
    for name, part in parts.items():
        match = re.fullmatch(r"(synthesis\.b(\d{1,5}))\.conv[01]", name)
        if match and part.state.get("use_noise") is False and f"{name}.noise_const" not in tensors:
            side = int(match[2])
            if f"{match[1]}.torgb.weight" not in tensors or side > _LARGEST_SIDE or side.bit_count() != 1:
                continue
            absent[f"{name}.noise_const"] = np.zeros((side, side), np.float32)
            absent[f"{name}.noise_strength"] = np.zeros((), np.float32)
    if absent:
        notes.append("the network has no noise inputs; they are zero here, which gives the same images")
    return absent


# --- sizes from tensors --------------------------------------------------------------------------------------------


def _fir() -> np.ndarray:
    return fir_filter().numpy()


def infer_settings(tensors: Mapping[str, np.ndarray], *, conv_clamp: float | None) -> StyleGAN2Settings:
    """Return the settings whose network has tensors of these names and shapes.

    ``channel_base`` is the smallest and ``channel_max`` the one that reproduce every resolution's channels.

    Raises:
        CheckpointError: a tensor is missing, or no settings fit.
    """
    sides = sorted({int(match[1]) for name in tensors if (match := re.match(r"synthesis\.b(\d{1,5})\.", name))})
    if len(sides) < 2 or sides != [4 * 2**power for power in range(len(sides))]:
        raise _refuse(f"its resolutions are {sides[:12]}; a StyleGAN2 has 4, 8, … up to its own")
    if sides[-1] > _LARGEST_SIDE:
        raise _refuse(f"its images have {sides[-1]} px; expected at most {_LARGEST_SIDE}")
    layers = [name for name in tensors if re.fullmatch(r"mapping\.fc\d+\.weight", name)]
    if len(layers) > _MOST_LAYERS:
        raise _refuse(f"its mapping has {len(layers):,} layers; expected at most {_MOST_LAYERS}")
    w_dim = _shape(tensors, "synthesis.b4.conv1.affine.weight", 2)[1]
    # a synthesis network alone has a mean latent (that of what it was tuned from, or zero) and nothing else
    is_bare = [name for name in tensors if name.startswith("mapping.")] == ["mapping.w_avg"]
    first = (0, w_dim) if is_bare else _shape(tensors, "mapping.fc0.weight", 2)
    c_dim = embedded = 0
    if "mapping.embed.weight" in tensors:
        embedded, c_dim = _shape(tensors, "mapping.embed.weight", 2)
        if embedded != w_dim:
            raise _refuse(
                f"its mapping embeds the condition in {embedded} numbers, and this StyleGAN2 in w_dim = {w_dim}"
            )
    channels = {side: _shape(tensors, f"synthesis.b{side}.conv1.weight", 4)[0] for side in sides}
    colours = _shape(tensors, f"synthesis.b{sides[-1]}.torgb.weight", 4)[0]
    if colours != 3:
        raise _refuse(f"its images have {colours} channels (img_channels), and this StyleGAN2 makes 3")
    base, maximum = channel_rule(channels)
    return StyleGAN2Settings(
        img_resolution=sides[-1],
        z_dim=first[1] - embedded,
        c_dim=c_dim,
        w_dim=w_dim,
        channel_base=base,
        channel_max=maximum,
        mapping_layers=len(layers),
        conv_clamp=conv_clamp,
    )


def channel_rule(channels: Mapping[int, int]) -> tuple[int, int]:
    """Return (base, maximum) with ``min(base // r, maximum)`` channels at every resolution r; the smallest such base.

    Raises:
        CheckpointError: there is no such pair.
    """
    maximum = max(channels.values())
    low = max(count * side for side, count in channels.items())
    high = min(((count + 1) * side - 1 for side, count in channels.items() if count < maximum), default=low)
    if low > high or maximum < 1:
        shown = ", ".join(f"{side} px: {count}" for side, count in sorted(channels.items()))
        raise _refuse(
            f"its channels ({shown}) follow no rule min(channel_base // resolution, channel_max), by which this "
            "StyleGAN2 is built"
        )
    return low, maximum


def _shape(tensors: Mapping[str, np.ndarray], name: str, ndim: int) -> tuple[int, ...]:
    if name not in tensors:
        raise _refuse(f"its tensor {name} is missing")
    shape = tensors[name].shape
    if len(shape) != ndim or not all(shape):
        raise _refuse(f"its tensor {name} has shape {list(shape)}; expected {ndim} axes, none of them empty")
    return shape


def _checked(tensors: Mapping[str, np.ndarray], settings: StyleGAN2Settings) -> dict[str, np.ndarray]:
    """Return float32 tensors in the order of our state dict after holding names, shapes and values to it."""
    if min(settings.z_dim, settings.w_dim) < 1:
        raise _refuse(f"its sizes cannot be (z_dim {settings.z_dim}, mapping layers {settings.mapping_layers})")
    with torch.device("meta"):
        expected = {name: tuple(value.shape) for name, value in StyleGAN2(settings).state_dict().items()}
    missing, surplus = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    if missing or surplus:
        raise _refuse(
            f"its tensors are not those of a StyleGAN2 with {settings.img_resolution} px"
            + (f"; missing: {_some(missing)}" if missing else "")
            + (f"; unknown: {_some(surplus)}" if surplus else "")
        )
    fir = _fir()
    checked = {}
    for name, shape in expected.items():
        value = tensors[name]
        if value.shape != shape:
            raise _refuse(f"its tensor {name} has shape {list(value.shape)}; a network of its sizes has {list(shape)}")
        value = np.ascontiguousarray(value, np.float32).reshape(shape)
        if not np.isfinite(value).all():
            raise CheckpointError(
                f"its tensor {name} holds NaN or infinity: the file is damaged or its training failed"
            )
        if name.endswith(".resample_filter") and not np.allclose(value, fir, atol=1e-6):
            raise _refuse(f"its filter {name} is not [1, 3, 3, 1], the only one this StyleGAN2 has")
        checked[name] = value
    return checked


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
