"""The notebook docs/tour.ipynb runs to its end, from a folder of its own, and its saved outputs hold no path."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "docs" / "tour.ipynb"


def test_what_is_saved_in_it_says_nothing_of_the_machine() -> None:
    saved = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(saved)
    text = NOTEBOOK.read_text()
    assert "/tmp/" not in text and "/home/" not in text and str(Path.home()) not in text
    outputs = [output for cell in saved.cells for output in cell.get("outputs", ())]
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]
    assert any("image/png" in output.get("data", {}) for output in outputs), "its figure can be seen without running it"


@pytest.mark.slow
@pytest.mark.ci_slow
def test_it_runs_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # `!clstudy …` in a cell is this environment's command
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(
        notebook, timeout=400, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    said = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ()))
    assert "every check passed" in said and "Forgetting" in said
    assert (tmp_path / "runs" / "tour" / "report" / "index.html").is_file()
