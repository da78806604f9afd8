"""What a name of the user's own leads to."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from clstudy.errors import UserError
from clstudy.registry import foreign_sources, source_digest
from tests.support.documentation import users_folder

KEPT, NAME = "class Kept:\n    pass\n\nBuilt = type('Built', (), {'__module__': 'builtins'})\n", "a_users_module:Kept"


def test_a_source_that_cannot_be_read_is_said_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in users_folder(tmp_path, monkeypatch, {"a_users_module.py": KEPT}):
        assert source_digest("metric", NAME) == hashlib.sha256(KEPT.encode()).hexdigest()
        assert foreign_sources("metric", [NAME, "lpips", "clstudy.registry:Registry"]) == {"a_users_module": KEPT}
        with pytest.raises(UserError, match="metric a_users_module:Built: its source cannot be read .* in a file"):
            source_digest("metric", "a_users_module:Built")
        (folder / "a_users_module.py").unlink()
        with pytest.raises(UserError, match=f"metric {NAME}: its source cannot be read .* in a file"):
            source_digest("metric", NAME)
