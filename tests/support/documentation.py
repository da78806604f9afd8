"""The README's examples as a user would have them: files in a folder of their own."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"


def readme_block(name: str) -> str:
    """The Python block that the README marks with ``<!-- test:custom-NAME -->``."""
    found = re.search(rf"<!-- test:custom-{name} -->\n```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert found is not None
    return found[1]


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
