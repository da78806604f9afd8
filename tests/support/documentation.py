"""The pages a user reads: the README, the documentation, and what stands in them as a user would have it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = (
    README,
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "docs" / "studies" / "README.md",
    ROOT / "clstudy" / "assets" / "MODEL_CARD.md",
    ROOT / "clstudy" / "assets" / "MODEL_CARD_3D.md",
    ROOT / "clstudy" / "assets" / "VIRTUAL_PEOPLE.md",
)
_BLOCK = re.compile(
    r"(?:^(?P<marker>[ ]*<!--(?:(?!-->).)*-->)\n)?^(?P<indent>[ ]*)```(?P<language>\w+)\n(?P<text>.*?)^[ ]*```$",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """A block of code on a page, and the words of the comment directly above it."""

    page: Path
    language: str
    marker: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}: {self.text.splitlines()[0]}"


def blocks(language: str, pages: tuple[Path, ...] = PAGES) -> list[Block]:
    """Every block in one language."""
    found = []
    for page in pages:
        for match in _BLOCK.finditer(page.read_text()):
            if match["language"] == language:
                marker = (match["marker"] or "").strip().removeprefix("<!--").removesuffix("-->").strip()
                found.append(Block(page, language, marker, match["text"]))
    return found


def documented_block(name: str) -> str:
    """The Python block that a page marks with ``<!-- test:custom-NAME -->``."""
    return marked("python", f"test:custom-{name}").text


def marked(language: str, marker: str) -> Block:
    """The one block with these words in the comment above it."""
    (found,) = (block for block in blocks(language) if block.marker == marker)
    return found


def users_folder(folder: Path, monkeypatch: pytest.MonkeyPatch, files: Mapping[str, str]) -> Iterator[Path]:
    """A user's folder with files in it, as ``python -m`` sees it: modules that lie in it can be imported."""
    for name, content in files.items():
        (folder / name).write_text(content)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    modules = [Path(name).stem for name in files]
    for module in modules:  # whatever another test left behind would be found before these files
        sys.modules.pop(module, None)
    yield folder
    for module in modules:
        sys.modules.pop(module, None)
