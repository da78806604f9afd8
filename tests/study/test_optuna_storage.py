"""Opening the Optuna storage of a search."""

import multiprocessing
from pathlib import Path

from clstudy.study.search.optuna_storage import open_storage

PROCESSES, STORAGES = 4, 8


def url_of(folder: Path, index: int) -> str:
    return f"sqlite:///{folder / f'optuna{index}.db'}"


def open_at_once(folder: Path, barrier) -> None:
    for index in range(STORAGES):
        barrier.wait(60)
        open_storage(url_of(folder, index))


def test_processes_that_create_a_storage_at_the_same_time_all_open_it(tmp_path: Path):
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(PROCESSES)
    opening = [context.Process(target=open_at_once, args=(tmp_path, barrier)) for _ in range(PROCESSES)]
    for process in opening:
        process.start()
    for process in opening:
        process.join()
    assert [process.exitcode for process in opening] == [0] * PROCESSES
    for index in range(STORAGES):
        assert open_storage(url_of(tmp_path, index)).get_all_studies() == []
