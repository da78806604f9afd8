"""Lists, removes, copies and views whole folders, local or in an object store."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import TypeVar

import pyarrow.fs as pafs

from clstudy.storage.checksum_names import checked_name
from clstudy.storage.places import Place, RemotePath, write_atomically

T = TypeVar("T")
_THREADS = 16
"""Most simultaneous requests to an object store when many small files are read."""


def list_files(place: Place) -> dict[str, int]:
    """All files below a folder: path relative to it (with ``/``) -> bytes; empty if there is no folder."""
    if isinstance(place, RemotePath):
        selector = pafs.FileSelector(place.path, recursive=True, allow_not_found=True)
        found = (info for info in place.system.get_file_info(selector) if info.type == pafs.FileType.File)
        return {str(PurePosixPath(info.path).relative_to(place.path)): info.size for info in found}
    listed = {}
    for path in place.rglob("*"):
        try:
            if path.is_file():
                listed[path.relative_to(place).as_posix()] = path.stat().st_size
        except FileNotFoundError:  # removed by another process meanwhile
            continue
    return listed


def folders_in(place: Place) -> list[Place]:
    """The folders directly in a folder, by name; empty if there is none."""
    if isinstance(place, RemotePath):
        return [place / name for name in sorted(place.folder_names())]
    return [path for path in sorted(place.glob("*")) if path.is_dir()] if place.is_dir() else []


def written_at(place: Place) -> dict[str, float]:
    """When each file directly in a folder was last written (Unix time); empty if there is no folder."""
    if isinstance(place, RemotePath):
        selector = pafs.FileSelector(place.path, recursive=False, allow_not_found=True)
        found = (info for info in place.system.get_file_info(selector) if info.type == pafs.FileType.File)
        return {info.base_name: info.mtime.timestamp() for info in found if info.mtime is not None}
    times = {}
    for path in place.glob("*"):
        with suppress(FileNotFoundError):  # removed by another process meanwhile
            times[path.name] = path.stat().st_mtime
    return times


def remove_tree(place: Place) -> None:
    """Remove a folder with everything in it; does nothing if there is none."""
    if isinstance(place, RemotePath):
        if place.is_dir():
            place.system.delete_dir(place.path)
        return
    shutil.rmtree(place, ignore_errors=True)


def together(action: Callable[[str], T], names: Sequence[str], place: Place) -> list[T]:
    """The result of ``action`` for every name, many at a time if each waits for an object store."""
    if not isinstance(place, RemotePath):
        return [action(name) for name in names]
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(action, names))


def copy_tree(
    source: Place, target: Place, wanted: Callable[[str], bool] = lambda name: True, *, replace: bool = False
) -> int:
    """Copy the wanted files that the target lacks or has with another size; returns how many were copied.

    Markers (``COMPLETE``) and checksums come last, as when a value is written. A file with a different checksum is
    copied whatever its size.

    Args:
        replace: also copy files that are there with the same size; files may change without changing their size.
    """
    there = {} if replace else list_files(target)
    sizes = {name: size for name, size in list_files(source).items() if wanted(name)}
    remote = source if isinstance(source, RemotePath) else target

    def changed(name: str) -> bool:
        return (source / name).read_bytes() != (target / name).read_bytes()

    # a checksum never changes its size, and its file need not either
    same = [name for name in sizes if checked_name(name) and there.get(name) == sizes[name]]
    stale = {name for name, differs in zip(same, together(changed, same, remote), strict=True) if differs}
    stale |= {checked_name(name) or name for name in stale}
    names = [name for name, size in sizes.items() if there.get(name) != size or name in stale]
    last = {name for name in names if PurePosixPath(name).name == "COMPLETE" or checked_name(name)}

    def copy(name: str) -> None:
        write_atomically(target / name, (source / name).read_bytes())

    for part in ([name for name in names if name not in last], sorted(last)):
        together(copy, part, remote)
    return len(names)


@contextmanager
def local_view(place: Place, wanted: Callable[[str], bool] = lambda name: True) -> Iterator[Path]:
    """A local folder with the wanted files of a study, for code that reads many of them in any order.

    A local study is its own view. For a remote study it is a copy that is removed at the end, so that people's pictures
    do not stay outside the named storage.
    """
    if isinstance(place, Path):
        yield place
        return
    with tempfile.TemporaryDirectory(prefix="clstudy-view-") as folder:
        view = Path(folder) / place.name
        view.mkdir()
        copy_tree(place, view, wanted)
        yield view
