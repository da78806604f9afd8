"""What all tests share: half of them beside the other half (``pytest -n 2``), the longest first, shared studies.

PyTorch's threads wait for each other in a loop; two processes with two threads each on two cores take several times as
long as with one. What is tested runs its trials on one thread anyway.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock

if TYPE_CHECKING:
    from tests.support.smoke_study import SmokeStudy

if "PYTEST_XDIST_WORKER" in os.environ:  # before a test module imports torch or numpy
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

LONGEST_FIRST = (
    "cluster/test_chaos.py",
    "cli/test_run.py",
    "strategies/test_conformance.py",
    "workloads/test_personalise_3d.py",
    "identities/test_prepare.py",
    "study/test_forget.py",
    "generators/test_mystyle.py",
    "strategies/test_hooks.py",
    "tracking/test_tracking.py",
    "doctor/test_doctor.py",
)
"""Files of tests that take longest: begun last, one of them would keep one process busy while the other has nothing.

``test_run`` makes the smoke study; what stands beside it needs none, so that the other process does not wait for it.
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order by file only. ``loadfile`` gives files out in this order if told ``--no-loadscope-reorder``."""
    tests = Path(__file__).parent
    place = {tests / name: number for number, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this session have in common.

    ``CLSTUDY_TESTS_SHARE`` names one that outlives the session, for the next one with the same code.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    return Path(os.environ.get("CLSTUDY_TESTS_SHARE", root))


@pytest.fixture(scope="session")
def smoke_study(shared_folder: Path) -> Iterator[SmokeStudy]:
    """A finished study of the space ``smoke``, one for all processes: to be read, not to be written to."""
    from tests.support.smoke_study import share_smoke_study, written_files

    study = share_smoke_study(shared_folder)
    before = written_files(study.folder / "runs")
    yield study
    assert written_files(study.folder / "runs") == before, "a test wrote to the study that all share; it wants a copy"


@pytest.fixture(scope="module")
def small_study(shared_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A module's own copy of a study of seconds (``tests.support.small_study``): one person, three strategies.

    Its photos are at ``small_study.parents[1] / "photos"``.
    """
    from tests.support.small_study import SHARED, make_study

    made = shared_folder / "small"
    with FileLock(shared_folder / "small.lock"):
        if not made.exists():
            draft = shared_folder / "small-draft"
            shutil.rmtree(draft, ignore_errors=True)
            make_study(draft, SHARED)
            draft.rename(made)
    copy = tmp_path_factory.mktemp("small") / "copy"
    shutil.copytree(made, copy)
    return copy / "runs" / "small"


@pytest.fixture
def few_figures() -> Iterator[None]:
    """Only the first of a report's figures, for tests of the rest of it: all of them take as long as ten reports."""
    from clstudy.analysis.figures import FIGURES

    all_of_them = dict(FIGURES)
    for title in list(FIGURES)[1:]:
        del FIGURES[title]
    yield
    FIGURES.clear()
    FIGURES.update(all_of_them)  # in their order, which monkeypatch would not keep


@pytest.fixture(scope="session")
def empty_database(shared_folder: Path) -> Path:
    """MLflow's tables without a run: making them takes seconds, copying them does not."""
    from clstudy.tracking.local_database import quiet_client, sqlite_uri

    made = shared_folder / "empty.db"
    with FileLock(shared_folder / "empty.lock"):
        if not made.exists():
            draft = shared_folder / "empty-draft.db"
            quiet_client(sqlite_uri(draft))
            made.write_bytes(draft.read_bytes())
    return made
