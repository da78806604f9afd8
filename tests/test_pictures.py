"""Image files are opened in one place: few formats, their size first, no pipes, and nothing else is ever started."""

from __future__ import annotations

import ast
import io
import os
import socket
import struct
import subprocess
import time
import zlib
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

import clstudy
from clstudy.errors import UserError
from clstudy.identities.check import decode_photo, inspect_folder
from clstudy.identities.dataset import Photo
from clstudy.identities.preparation.video import PHOTO_SUFFIXES, Sampling, find_occasions, read_photo, video_frames
from clstudy.images import MOST_PIXELS, decode_png, opened_picture, read_picture_file, require_heif

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n%%EOF\n"


def saved(kind: str, size: tuple[int, int] = (64, 64)) -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", size, (1, 2, 3)).save(sink, kind)
    return sink.getvalue()


def hollow_png(width: int, height: int) -> bytes:
    """A PNG of a few hundred bytes whose header promises more pixels than it holds."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.fixture
def ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ``gs`` that only leaves a mark; returns where."""
    mark, program = tmp_path / "gs-was-started", tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exit 0\ntouch {mark}\nexit 1\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)  # it is looked for once
    return mark


def photo_folder(root: Path, photo: bytes) -> Path:
    """A data folder with one good test photo and the given training photo."""
    for split, content in (("train", photo), ("test", saved("PNG"))):
        (root / "anna" / "t0" / split).mkdir(parents=True)
        (root / "anna" / "t0" / split / "a.png").write_bytes(content)
    return root


def test_a_photo_does_not_start_ghostscript(tmp_path: Path, ghostscript: Path) -> None:
    with pytest.raises((OSError, subprocess.CalledProcessError)), Image.open(io.BytesIO(EPS)) as image:
        image.load()
    assert ghostscript.exists(), "Pillow left to itself no longer starts it: this test shows nothing any more"
    ghostscript.unlink()

    root = photo_folder(tmp_path / "photos", EPS)
    (problem,) = inspect_folder(root, image_size=64).problems
    assert problem == "anna/t0/train/a.png: unreadable image (it is no PNG or JPEG file, whatever its name says)"
    (tmp_path / "2024-01-01").mkdir()
    (tmp_path / "2024-01-01" / "b.jpg").write_bytes(EPS)
    with pytest.raises(UserError, match=r"it is no PNG, JPEG, WEBP or TIFF file"):
        read_photo(tmp_path / "2024-01-01" / "b.jpg")
    with pytest.raises(UserError, match="without a date"):
        (tmp_path / "source").mkdir()
        (tmp_path / "source" / "c.jpg").write_bytes(EPS)
        find_occasions(tmp_path / "source")
    with pytest.raises(ValueError, match="it is no PNG file"):
        decode_png(EPS)
    assert not ghostscript.exists()


def test_formats() -> None:
    for kind in ("PNG", "JPEG"):
        assert decode_photo(saved(kind), 64).shape == (64, 64, 3)
    for kind in ("BMP", "GIF", "TIFF", "WEBP", "PPM", "ICNS", "PCX", "PDF"):
        with pytest.raises(ValueError, match="it is no PNG or JPEG file, whatever its name says"):
            decode_photo(saved(kind), None)


def test_photos_to_prepare_may_be_of_the_kinds_their_names_say(tmp_path: Path) -> None:
    kinds = {".png": "PNG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF"}
    kinds |= dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), "JPEG")
    kinds |= dict.fromkeys((".heic", ".heif", ".hif"), "HEIF")
    assert set(kinds) == PHOTO_SUFFIXES
    require_heif()
    for suffix, kind in kinds.items():
        (tmp_path / f"a{suffix}").write_bytes(saved(kind))
        assert read_photo(tmp_path / f"a{suffix}").shape == (64, 64, 3)
    (tmp_path / "shared by a phone.heic").write_bytes(saved("JPEG"))
    assert read_photo(tmp_path / "shared by a phone.heic").shape == (64, 64, 3)
    (tmp_path / "a.png").write_bytes(saved("HEIF"))
    with pytest.raises(UserError, match="replace it or take it out"):
        read_photo(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes(saved("BMP"))
    with pytest.raises(UserError, match="replace it or take it out"):
        read_photo(tmp_path / "a.png")


def test_the_size_is_looked_at_before_anything_is_decoded(tmp_path: Path) -> None:
    """These files hold no pixels: a decoder that got to work would say that they are cut off."""
    with pytest.raises(ValueError, match=r"^wrong size 8000x8000, expected 64x64 pixels$"):
        decode_photo(hollow_png(8000, 8000), 64)
    too_large = r"too large \(13300x13300 pixels; a picture may have 80 million\): make it smaller"
    for size in (None, 64):
        with pytest.raises(ValueError, match=too_large):
            decode_photo(hollow_png(13_300, 13_300), size)
    (tmp_path / "a.png").write_bytes(hollow_png(13_300, 13_300))
    with pytest.raises(UserError, match=rf"a\.png' is unreadable \({too_large}"):
        read_photo(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"too large \(.*a picture may have 80 million\)"):  # beyond Pillow's own limit
        decode_photo(hollow_png(60_000, 60_000), None)
    with pytest.raises(ValueError, match="unreadable image"):
        decode_photo(hollow_png(64, 64), 64)
    side = int(MOST_PIXELS**0.5)
    with opened_picture(hollow_png(side, side)) as image:
        assert image.size == (side, side)


def test_pipes_and_devices_are_refused_at_once(tmp_path: Path) -> None:
    began = time.monotonic()
    os.mkfifo(tmp_path / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket.png"))
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "folder.png").mkdir()
    for name in ("pipe", "socket", "zero", "folder"):
        with pytest.raises(OSError) as caught:
            read_picture_file(tmp_path / f"{name}.png")
        assert caught.value.strerror
    with pytest.raises(UserError, match="it is a pipe, socket or device, not a file"):
        read_photo(tmp_path / "pipe.png")
    with pytest.raises(UserError, match="it is a pipe, socket or device, not a file"):
        Photo(tmp_path / "pipe.png", "0" * 64).read()
    root = photo_folder(tmp_path / "photos", saved("PNG"))
    os.mkfifo(root / "anna" / "t0" / "train" / "b.png")
    assert any("b.png: " in problem and "pipe" in problem for problem in inspect_folder(root, image_size=64).problems)
    assert time.monotonic() - began < 10


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.png").open("wb") as handle:
        handle.truncate(10**12)  # takes no room on the disk
    with pytest.raises(OSError, match=r"it has 1,000,000 MB, a picture may have 500 MB"):
        read_picture_file(tmp_path / "a.png")


def test_a_playlist_named_as_a_video_opens_no_other_file(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "other.mkv"), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 64
        for frame in [av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")] * 3:
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert len(list(video_frames(tmp_path / "other.mkv", Sampling()))) == 3
    (tmp_path / "a.mp4").write_text("ffconcat version 1.0\nfile other.mkv\n")
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.format.name == "concat", "ffmpeg left to itself no longer follows it"
    with pytest.raises(UserError, match=r"a\.mp4' is unreadable"):
        list(video_frames(tmp_path / "a.mp4", Sampling()))


def test_images_are_opened_in_one_place() -> None:
    """Calls in the package's source that read image files: one, with ``formats=``."""
    package, found = Path(clstudy.__file__).parent, []
    readers = {"imread", "read_image", "decode_image", "Parser"}
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("PIL"):
                assert not {alias.asname or alias.name for alias in node.names} & {"open", *readers}, path
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            on_image = isinstance(node.func.value, ast.Name) and node.func.value.id == "Image"
            if (on_image and node.func.attr == "open") or node.func.attr in readers:
                found.append((path.relative_to(package).as_posix(), [word.arg for word in node.keywords]))
    assert found == [("images.py", ["formats"])]
