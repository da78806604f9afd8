"""Small files that ask for far more time, memory or depth than they have bytes, by the reader they are meant for.

Each function returns the bytes of one file; ``scale`` makes it worse (1: enough to hang or to end a process that reads
it without bounds, except where a comment says otherwise).
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator

import numpy as np
import torch

Bomb = Callable[[float], bytes]

_LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_LEGACY_VERSION = b"\x80\x02M\xe9\x03."
_LEGACY_SYSTEM = b"\x80\x02}q\x00X\x0d\x00\x00\x00little_endianq\x01\x88s."
_LEGACY_HEAD = _LEGACY_MAGIC + _LEGACY_VERSION + _LEGACY_SYSTEM


# --- pickles -------------------------------------------------------------------------------------------------------


def _doubling(scale: float, close: bytes) -> bytes:
    """A tuple of one tuple twice, of one tuple twice, … (40 levels: 2**40 hashes)."""
    levels = int(40 * scale)
    body = b")q\x00"
    for level in range(levels):
        body += b"h" + bytes([level]) + b"\x86q" + bytes([level + 1])
    return b"\x80\x02" + close.replace(b"?", body)


def nested_hash_key(scale: float) -> bytes:
    """As a key of a dictionary."""
    return _doubling(scale, b"}?K\x01s.")


def nested_hash_set(scale: float) -> bytes:
    """As the member of a frozenset."""
    return _doubling(scale, b"(?\x91.").replace(b"\x80\x02", b"\x80\x04", 1)


def nested_hash_pairs(scale: float) -> bytes:
    """As the key of a pair that an OrderedDict is called with."""
    return _doubling(scale, b"ccollections\nOrderedDict\n]?K\x01\x86a\x85R.")


def nested_hash_legacy_key(scale: float) -> bytes:
    """As the name of a storage at the end of an old torch file."""
    return _LEGACY_HEAD + b"\x80\x02N." + _doubling(scale, b"]?a.")


def deep_key(scale: float) -> bytes:
    """A tuple in a tuple in a tuple …, as a key: hashing it overflows the C stack."""
    return b"\x80\x02})" + b"\x85" * int(200_000 * scale) + b"K\x01s."


def deep_list(scale: float) -> bytes:
    """A list in a list in a list …."""
    return b"\x80\x02" + b"]" * int(200_000 * scale) + b"a" * (int(200_000 * scale) - 1) + b"."


def copied_dict(scale: float) -> bytes:
    """One dictionary that OrderedDict is called with again and again; all copies are kept."""
    count = int(50_000 * scale)
    entries = b"".join(b"J" + struct.pack("<i", i) + b"K\x00" for i in range(count))
    copies = b"ccollections\nOrderedDict\nq\x01](" + b"h\x01h\x00\x85R" * count + b"e."
    return b"\x80\x02}q\x00(" + entries + b"u" + copies


def encoded_text(scale: float) -> bytes:
    """One text that is encoded again and again; all copies are kept."""
    text = b"x" * int(1_000_000 * scale)
    head = (
        b"\x80\x02X" + struct.pack("<I", len(text)) + text + b"q\x00X\x06\x00\x00\x00latin1q\x01c_codecs\nencode\nq\x02"
    )
    return head + b"](" + b"h\x02h\x00h\x01\x86R" * 20_000 + b"e."


def many_instructions(scale: float) -> bytes:
    """Thirty million marks."""
    return b"\x80\x02" + b"(" * int(30_000_000 * scale) + b"."


def old_protocol(scale: float) -> bytes:
    """The same without a mark of the protocol at the start."""
    return b"(" * int(30_000_000 * scale) + b"."


def huge_number(scale: float) -> bytes:
    """A whole number of a million bytes as conv_clamp, say."""
    number = b"\x8b" + struct.pack("<i", int(1_000_000 * scale)) + b"\x7f" * int(1_000_000 * scale)
    return b"\x80\x02}X\x05\x00\x00\x00G_ema" + number + b"s."


def nested_torch(scale: float) -> bytes:
    """Old torch files in old torch files, each naming the one inside twice: 2**20 readings."""
    content = _LEGACY_HEAD + b"\x80\x02K\x00.\x80\x02]."
    for _ in range(int(20 * scale)):
        raw = b"B" + struct.pack("<I", len(content)) + content + b"q\x00"
        call = b"ctorch.storage\n_load_from_bytes\nq\x01h\x00\x85R0h\x01h\x00\x85R"
        content = _LEGACY_HEAD + b"\x80\x03" + raw + b"0" + call + b".\x80\x02]."
    return content


def storage_named_often(scale: float) -> bytes:
    """A torch file with 403 names for views of one storage of 16 MB."""
    base = torch.zeros(int(4_000_000 * scale))
    state = dict.fromkeys(("input.input", "conv1.conv.weight", "to_rgb1.conv.weight"), base)
    state |= {f"a{index}": base[: base.numel() - index] for index in range(400)}
    stream = io.BytesIO()
    torch.save({"g_ema": state}, stream)
    return stream.getvalue()


def storage_named_often_encoder(scale: float) -> bytes:
    """The same under the names of a W encoder."""
    base = torch.zeros(int(4_000_000 * scale))
    state = {f"encoder.a{index}": base[: base.numel() - index] for index in range(403)}
    stream = io.BytesIO()
    torch.save({"state_dict": state, "latent_avg": base[:4]}, stream)
    return stream.getvalue()


def overlapping_zip(scale: float) -> bytes:
    """A torch zip whose directory names one storage of 16 MB under 1,000 names."""
    size, count = int(16_000_000 * scale), 1_000
    names = [f"a/data/{index}".encode() for index in range(count)]
    refs = b"".join(
        b"(X\x07\x00\x00\x00storagectorch\nByteStorage\nX"
        + struct.pack("<I", len(str(index)))
        + str(index).encode()
        + b"X\x03\x00\x00\x00cpuJ"
        + struct.pack("<i", size)
        + b"tQ"
        for index in range(count)
    )
    program = b"\x80\x02](" + refs + b"e."
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a/data.pkl", program)
        archive.writestr("a/data/0", bytes(size))
        for name in names[1:]:
            entry = zipfile.ZipInfo(name.decode())
            entry.header_offset = archive.getinfo("a/data/0").header_offset
            entry.file_size = entry.compress_size = size
            entry.CRC = archive.getinfo("a/data/0").CRC
            archive.filelist.append(entry)
    return stream.getvalue()


def large_sides(scale: float) -> bytes:
    """rosinality's names for 30 blocks without noise images: those of the last would have 2**32 pixels a side."""
    one = torch.zeros(1, 1, 1, 1, 1)
    layer = ("conv.weight", "conv.modulation.weight", "conv.modulation.bias", "activate.bias", "noise.weight", "bias")
    blocks = int(30 * scale)
    names = ["conv1", "to_rgb1", *(f"convs.{i}" for i in range(2 * blocks)), *(f"to_rgbs.{i}" for i in range(blocks))]
    state = {f"{name}.{part}": one for name in names for part in layer}
    state |= {"input.input": torch.zeros(1, 1, 4, 4), "style.1.weight": one, "style.1.bias": one}
    stream = io.BytesIO()
    torch.save({"g_ema": state}, stream)
    return stream.getvalue()


def many_layers(scale: float) -> bytes:
    """rosinality's names for 20,000 mapping layers."""
    state = {f"style.{index + 1}.{part}": torch.zeros(1, 1) for index in range(3) for part in ("weight", "bias")}
    state |= {f"style.{index + 1}.weight": state["style.1.weight"] for index in range(int(20_000 * scale))}
    state |= {f"style.{index + 1}.bias": state["style.1.bias"] for index in range(int(20_000 * scale))}
    for name in ("conv1", "to_rgb1"):
        for part in ("conv.weight", "conv.modulation.weight", "conv.modulation.bias", "activate.bias", "noise.weight"):
            state[f"{name}.{part}"] = torch.zeros(1, 1, 1, 1, 1)
    state["input.input"] = torch.zeros(1, 1, 4, 4)
    stream = io.BytesIO()
    torch.save({"g_ema": state}, stream)
    return stream.getvalue()


def shared_members(scale: float) -> bytes:
    """NVIDIA networks, 20,000 of them, that all have one dictionary of 50,000 entries as their parts."""
    count, shared = int(20_000 * scale), int(50_000 * scale)
    entries = b"".join(b"J" + struct.pack("<i", index) + b"N" for index in range(shared))
    rebuild = b"ctorch_utils.persistence\n_reconstruct_persistent_obj\nq\x02"

    def text(word: str) -> bytes:
        return b"X" + struct.pack("<I", len(word)) + word.encode()

    def network(state: bytes) -> bytes:
        return (
            b"h\x02}("
            + text("type")
            + text("class")
            + text("class_name")
            + text("G")
            + text("state")
            + state
            + b"u\x85R"
        )

    leaf = network(b"}" + text("_modules") + b"h\x01s")
    children = b"".join(b"J" + struct.pack("<i", index) + b"h\x03" for index in range(count))
    whole = network(b"}" + text("_modules") + b"}(" + children + b"us")
    return b"\x80\x02" + rebuild + b"0}q\x01(" + entries + b"u0" + leaf + b"q\x030" + whole + b"."


PICKLES: dict[str, Bomb] = {
    bomb.__name__: bomb
    for bomb in (
        *(nested_hash_key, nested_hash_set, nested_hash_pairs, nested_hash_legacy_key, deep_key, deep_list),
        *(copied_dict, encoded_text, many_instructions, old_protocol, huge_number, nested_torch, storage_named_often),
        *(storage_named_often_encoder, overlapping_zip, large_sides, many_layers, shared_members),
    )
}
"""For everything that reads pickles and torch files."""


# --- safetensors ---------------------------------------------------------------------------------------------------


def _with_header(header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + data


def deep_header(scale: float) -> bytes:
    """A header of lists in lists."""
    return _with_header(b'{"a":' + b"[" * int(200_000 * scale))


def wide_header(scale: float) -> bytes:
    """A header of millions of empty lists."""
    return _with_header(b'{"__metadata__":{},"a":[' + b"[]," * int(20_000_000 * scale) + b"[]]}")


def long_header(scale: float) -> bytes:
    """A header that is said to be longer than the file."""
    return struct.pack("<Q", int(99_000_000 * scale)) + b'{"a":1}'


def large_shape(scale: float) -> bytes:
    """A tensor with no bytes and a shape of 2**62 numbers."""
    shape = ",".join(["2147483648", "2147483648"])
    return _with_header(b'{"a":{"dtype":"F32","shape":[' + shape.encode() + b'],"data_offsets":[0,0]}}')


SAFETENSORS: dict[str, Bomb] = {bomb.__name__: bomb for bomb in (deep_header, wide_header, long_header, large_shape)}


# --- YAML and JSON -------------------------------------------------------------------------------------------------


def laughs(scale: float) -> bytes:
    """Aliases of aliases: 412 bytes that stand for ten to the ninth values."""
    lines = ["a0: &a0 [lol,lol,lol,lol,lol,lol,lol,lol,lol,lol]"]
    for level in range(1, int(9 * scale)):
        lines.append(f"a{level}: &a{level} [{','.join([f'*a{level - 1}'] * 10)}]")
    return ("\n".join(lines) + "\n").encode()


def laughs_as_list(scale: float) -> bytes:
    """The same as one value where a group of keys is expected."""
    inner = laughs(scale).decode().splitlines()
    return ("- " + "\n- ".join(line.split(": ", 1)[1] for line in inner) + "\n").encode()


def laughs_at_a_key(scale: float) -> bytes:
    """The same as the name of a study and its list of strategies."""
    inner = [line.split(": ", 1)[1] for line in laughs(scale).decode().splitlines()]
    listed = "\n  - ".join(inner)
    return (
        f"description:\n  - {listed}\nname: *a{len(inner) - 1}\nprofile: smoke\n"
        f"grid: {{identity: *a5, strategy: *a{len(inner) - 1}, learning_rate: *a6}}\n"
    ).encode()


def merged_keys(scale: float) -> bytes:
    """Aliases of aliases as merge keys."""
    lines = ["a0: &a0 {x: 1}"]
    for level in range(1, int(25 * scale)):
        lines.append(f"a{level}: &a{level} {{<<: [{','.join([f'*a{level - 1}'] * 10)}]}}")
    return ("\n".join(lines) + "\n").encode()


def long_texts(scale: float) -> bytes:
    """One long text behind many aliases."""
    return f"name: &a {'lol' * int(130_000 * scale)}\nprofile: [{', '.join(['*a'] * 15_000)}]\n".encode()


def alias_of_itself(scale: float) -> bytes:
    """A list that contains itself."""
    return b"name: &a [*a, *a]\ngrid: *a\n"


def deep_flow(scale: float) -> bytes:
    """A list in a list in a list …."""
    return b"name: " + b"[" * int(200_000 * scale)


def deep_block(scale: float) -> bytes:
    """The same by dashes."""
    return b"- " * int(200_000 * scale) + b"a\n"


def base_sixty(scale: float) -> bytes:
    """A number in YAML's notation for minutes and seconds, with half a million places."""
    return b"seeds: [1" + b":1" * int(450_000 * scale) + b"]\n"


def many_digits(scale: float) -> bytes:
    """A number of a million digits."""
    return b"seeds: [" + b"9" * int(900_000 * scale) + b"]\n"


def hex_digits(scale: float) -> bytes:
    """A number of a million digits that Python reads, and refuses to print."""
    return b"seeds: [0x" + b"f" * int(900_000 * scale) + b"]\n"


def many_values(scale: float) -> bytes:
    """Half a million short values."""
    return b"seeds: [" + b"1," * int(490_000 * scale) + b"1]\n"


YAMLS: dict[str, Bomb] = {
    bomb.__name__: bomb
    for bomb in (
        *(laughs, laughs_as_list, laughs_at_a_key, merged_keys, long_texts, alias_of_itself, deep_flow, deep_block),
        *(base_sixty, many_digits, hex_digits, many_values),
    )
}


def deep_json(scale: float) -> bytes:
    """A list in a list in a list …."""
    return b'{"alignment": ' + b"[" * int(200_000 * scale)


def long_json_number(scale: float) -> bytes:
    """A number of a million digits."""
    return b'{"alignment": ' + b"9" * int(1_000_000 * scale) + b"}"


JSONS: dict[str, Bomb] = {bomb.__name__: bomb for bomb in (deep_json, long_json_number)}


# --- pictures ------------------------------------------------------------------------------------------------------


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width: int, height: int, rows: Iterator[bytes]) -> bytes:
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(row) for row in rows) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", packed) + _chunk(b"IEND", b"")


def large_png(scale: float) -> bytes:
    """13,300 x 13,300 black pixels (0.5 GB) in 0.5 MB."""
    side = int(13_300 * scale)
    row = bytes(1 + 3 * side)
    return _png(side, side, (row for _ in range(side)))


def larger_png(scale: float) -> bytes:
    """A picture that says it has 2**31 - 1 pixels a side."""
    side = 2**31 - 1
    return _png(side, side, iter([bytes(1000)]))


def text_chunk_png(scale: float) -> bytes:
    """64 black pixels a side, and a compressed comment of 1 GB."""
    row = bytes(1 + 3 * 64)
    packer = zlib.compressobj(9)
    comment = b"".join(packer.compress(bytes(1_000_000)) for _ in range(int(1000 * scale))) + packer.flush()
    plain = _png(64, 64, (row for _ in range(64)))
    at = plain.index(b"IDAT") - 4
    return plain[:at] + _chunk(b"zTXt", b"Comment\0\0" + comment) + plain[at:]


PICTURES: dict[str, Bomb] = {bomb.__name__: bomb for bomb in (large_png, larger_png, text_chunk_png)}


# --- NumPy ---------------------------------------------------------------------------------------------------------


def npz_objects(scale: float) -> bytes:
    """An archive of arrays that are pickles."""
    stream = io.BytesIO()
    np.savez(stream, labels=np.array([{1: 2}], object), faces=pickle.dumps(1))
    return stream.getvalue()


def npz_inflated(scale: float) -> bytes:
    """A compressed archive with an array of 2 GB of zeros in 2 MB."""
    count = int(2_000_000_000 * scale)
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({count},), }}".ljust(117) + "\n"
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("labels.npy", "w") as entry:
        entry.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode())
        for _ in range(0, count, 10_000_000):
            entry.write(bytes(10_000_000))
    return stream.getvalue()


ARRAYS: dict[str, Bomb] = {bomb.__name__: bomb for bomb in (npz_objects, npz_inflated)}
