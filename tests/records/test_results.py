"""Damaged results are not believed: checksums, rebuilding from stages, and old studies without checksums."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from benchmarks.fuzz.harness import Outcome, run_child
from benchmarks.fuzz.study_files import (
    NAME,
    SPECS,
    answers,
    make_old_study,
    make_study,
    open_search,
    plan_of,
    search_on,
)
from clstudy.analysis.matrix import read_rows
from clstudy.analysis.pages.loss_path import loss_path_sections
from clstudy.analysis.pages.rates import rate_sections
from clstudy.analysis.pages.tracking import tracking_sections
from clstudy.analysis.study_plan import read_study
from clstudy.analysis.summary import summarise
from clstudy.errors import UserError
from clstudy.records.failures import FAILURES, read_failures
from clstudy.records.results import parquet_bytes, read_result, restore_results, result_path, same_rows
from clstudy.records.sessions import add_session, read_sessions
from clstudy.records.study_record import NAME as STUDY_FILE
from clstudy.records.study_record import read_study_record
from clstudy.storage.checksum_names import SUFFIX
from clstudy.storage.checksums import State, checksum_place, read_checked, write_checked
from clstudy.storage.content_addressed_store import MARKER, StudyStore
from clstudy.storage.places import write_atomically
from clstudy.storage.trees import copy_tree
from clstudy.tracking.addresses import TRACKED
from tests.support.pages import shown

TRIAL = SPECS[1].trial_id


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    make_study(folder, np.random.default_rng(0))
    return folder / "given" / NAME


@pytest.fixture
def study(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / NAME))


@pytest.fixture
def old_study(study: Path) -> Path:
    """As versions without checksums left it."""
    for path in study.rglob(f"*{SUFFIX}"):
        path.unlink()
    return study


def tenfold(path: Path) -> None:
    """One value x 10, in a file that is otherwise as it was."""
    table = pq.read_table(path)
    values = table["value"].to_numpy().copy()
    values[3] *= 10
    changed = table.set_column(table.schema.get_field_index("value"), "value", [values])
    path.write_bytes(parquet_bytes(changed.cast(table.schema)))


def restore(study: Path) -> list[str]:
    plan = plan_of(study)
    wanted = {spec: plan.chains[spec.trial_id].keys for spec in plan.trials if spec.trial_id in plan.restorable}
    return restore_results(StudyStore(study), study, wanted)


def test_a_value_times_ten_is_left_out_of_the_report_and_rebuilt_by_the_run(study: Path) -> None:
    before = answers(study)[0]
    tenfold(result_path(study, TRIAL))
    summary = summarise(study)
    (missing,) = summary.missing
    assert missing.trial == TRIAL and f"{TRIAL}.parquet is damaged" in missing.reason
    assert "run the study again" in missing.reason
    plan = plan_of(study)
    assert plan.restorable == {TRIAL: State.DAMAGED} and TRIAL not in plan.done
    assert restore(study) == [TRIAL]
    assert answers(study)[0] == before and len(plan_of(study).done) == len(SPECS)


def test_no_flipped_bit_of_a_result_goes_unnoticed(study: Path) -> None:
    place = result_path(study, TRIAL)
    content = place.read_bytes()
    rng = np.random.default_rng(1)
    for bit in rng.integers(0, 8 * len(content), 300):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        place.write_bytes(changed)
        assert read_result(place).state is State.DAMAGED
    place.write_bytes(content)
    assert read_result(place).state is State.WHOLE


def test_a_study_without_checksums_opens_says_so_and_gets_them(old_study: Path) -> None:
    tables, summary = answers(old_study)
    assert not summary.missing and len(summary.unchecked) == len(SPECS) and not summary.unconfirmed
    assert f"{len(SPECS)} result files carry no checksum" in summary.checksum_note
    assert sorted(restore(old_study)) == sorted(spec.trial_id for spec in SPECS)
    again, summary = answers(old_study)
    assert again == tables and not summary.checksum_note


def test_without_a_checksum_the_stages_tell(old_study: Path) -> None:
    tenfold(result_path(old_study, TRIAL))
    summary = summarise(old_study)
    assert [one.trial for one in summary.missing] == [TRIAL] and "not those of its stages" in summary.missing[0].reason
    shutil.rmtree(old_study / "stages")  # a copy without stages: nothing to compare with, and the report says that
    assert len(summarise(old_study).unconfirmed) == len(SPECS)


def test_rows_that_are_restored_are_the_same_bytes(study: Path) -> None:
    place = result_path(study, TRIAL)
    before, checksum = place.read_bytes(), checksum_place(place).read_bytes()
    place.unlink()
    assert restore(study) == [TRIAL]
    assert (place.read_bytes(), checksum_place(place).read_bytes()) == (before, checksum)


def test_a_result_with_a_damaged_stage_is_left_for_the_run(study: Path) -> None:
    plan = plan_of(study)
    rows = StudyStore(study).stages.folder(plan.chains[TRIAL].keys[-1]) / "rows.parquet"
    rows.write_bytes(rows.read_bytes()[:-1] + b"x")
    tenfold(result_path(study, TRIAL))
    assert restore(study) == []
    assert TRIAL in {spec.trial_id for spec in plan_of(study).to_run}


@pytest.mark.parametrize("harm", ['"sha256"', '"bytes"', "rows.parquet", "{", "deep", "[]", "{}"])
def test_a_damaged_marker_is_a_damaged_stage(study: Path, harm: str) -> None:
    """A bit flip in COMPLETE made the study unstartable (KeyError)."""
    stages = StudyStore(study).stages
    key = plan_of(study).chains[TRIAL].keys[1]
    marker = stages.folder(key) / MARKER
    text = marker.read_text()
    marker.write_text({"deep": "[" * 100_000, "[]": "[]", "{}": "{}"}.get(harm, text.replace(harm, harm[:-1] + "x", 1)))
    plan = plan_of(study)
    assert plan.stages_to_run == 1 and TRIAL in {spec.trial_id for spec in plan.to_run}
    assert stages.file(key, "rows.parquet") is None and stages.get(key) is None
    assert not stages.folder(key).exists(), "moved aside, so that it can be computed again"


def test_a_missing_column_is_damage(study: Path) -> None:
    place = result_path(study, TRIAL)
    write_checked(place, parquet_bytes(pq.read_table(place).drop_columns(["metric"])))
    assert "expected trial, identity" in read_result(place).trouble
    assert "has the columns" in summarise(study).missing[0].reason


def test_every_kill_between_two_lines_leaves_a_file_that_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "a.parquet"
    for stop in range(4):
        write_checked(place, b"old")
        calls = []

        def step(name: str, real, stop: int = stop, calls: list[str] = calls):
            def wrapped(*arguments, **named):
                if len(calls) == stop:
                    raise KeyboardInterrupt(name)
                calls.append(name)
                return real(*arguments, **named)

            return wrapped

        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", step("unlink", Path.unlink))
            patch.setattr(
                "clstudy.storage.checksums.write_atomically",
                step("write", write_atomically),
            )
            try:
                write_checked(place, b"new")
            except KeyboardInterrupt:
                assert stop < 3
        state, content = read_checked(place)
        assert state in (State.WHOLE, State.UNCHECKED) and content in (b"old", b"new")
    assert (state, content) == (State.WHOLE, b"new")


def test_a_copy_follows_a_result_that_was_rebuilt_to_the_same_size(study: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    copy_tree(study, home)
    assert copy_tree(study, home) == 0
    place = result_path(study, TRIAL)
    content = place.read_bytes()
    write_checked(place, content[:-1] + bytes([content[-1] ^ 1]))
    assert copy_tree(study, home) == 2
    assert read_checked(result_path(home, TRIAL)) == read_checked(place)


def test_same_rows_in_another_order_are_the_same_and_one_bit_is_not() -> None:
    import pyarrow as pa

    from clstudy.records.rows import RESULT_SCHEMA

    row = dict(zip(RESULT_SCHEMA.names, ["t", "a", "s", 1, 0.1, 0, 0, 0, "p", "m", "i", 0.5], strict=True))
    rows = [row, row | {"image": "j", "value": float("nan")}]
    one, other = pa.Table.from_pylist(rows, RESULT_SCHEMA), pa.Table.from_pylist(rows[::-1], RESULT_SCHEMA)
    assert same_rows(one, other)
    other = other.set_column(11, "value", pc.add(other["value"], 1e-16 * 8))
    assert not same_rows(one, other)


def test_study_yaml_that_changed_is_refused(study: Path) -> None:
    path = study / "study.yaml"
    path.write_text(path.read_text().replace("buffer_size: 2", "buffer_size: 3"))
    with pytest.raises(UserError, match=r"study.yaml does not match its checksum.*run the study again"):
        summarise(study)


@pytest.mark.parametrize("count", ["1000000000", "0", "-3", "2.5", ".inf"])
def test_impossible_timestamps_are_one_message(old_study: Path, count: str) -> None:
    path = old_study / "study.yaml"
    path.write_text(path.read_text().replace("anna: 3", f"anna: {count}", 1))
    with pytest.raises(UserError, match="expected a number from 1 to 1000"):
        summarise(old_study)


def test_an_old_study_is_what_the_fuzzer_calls_one(tmp_path: Path) -> None:
    make_old_study(tmp_path, np.random.default_rng(0))
    assert not list(tmp_path.rglob(f"*{SUFFIX}")) and not summarise(tmp_path / "given" / NAME).missing


@pytest.mark.parametrize(
    "content", ["[" * 100_000, '[{"began": 1}]', "{}", "null", '[{"began": {"a": 1}}, 3]', "\x00", "NaN"]
)
def test_a_damaged_record_of_runs_is_no_record(old_study: Path, content: str) -> None:
    """Deep brackets ended the report's page with a RecursionError."""
    (session,) = read_sessions(old_study)
    (old_study / "sessions.json").write_text(content)
    assert read_sessions(old_study) == []
    answers(old_study)
    add_session(old_study, session)
    assert read_sessions(old_study) == [session]
    path = old_study / "sessions.json"
    path.write_text(path.read_text().replace("90.0", "900.0"))
    assert read_sessions(old_study) == [], "its checksum tells"


def test_a_timing_that_changed_is_not_known(study: Path) -> None:
    path = next((study / "timings").iterdir())
    store = StudyStore(study)
    assert store.timing(path.stem) is not None and len(store.stage_timings()) == 12
    path.write_text(path.read_text().replace('"seconds": 1', '"seconds": 7'))
    assert store.timing(path.stem) is None and len(store.stage_timings()) == 11


def test_a_rate_that_changed_in_the_database_does_not_choose(tmp_path: Path) -> None:
    database = tmp_path / "optuna.db"
    chosen = search_on(open_search(database))
    assert search_on(open_search(database)) == chosen
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE trial_params SET param_value = param_value * 1.5 WHERE trial_id = 2")
    connection.close()
    with pytest.raises(UserError, match=r"has changed since it was written.*Move the file away.*same rates"):
        open_search(database)
    database.rename(tmp_path / "aside.db")
    assert search_on(open_search(database)) == chosen, "and nothing is lost"


@pytest.mark.parametrize("name", ["report/loss_path.parquet", "search/proposals.csv"])
def test_a_damaged_part_of_the_report_is_one_sentence(study: Path, name: str) -> None:
    path = study / name
    path.write_bytes(path.read_bytes()[:-30])
    (section,) = loss_path_sections(study) if "loss" in name else rate_sections(read_study(study))
    assert f"{path.name} does not match its checksum" in shown(section)
    checksum_place(path).unlink()
    path.write_bytes(b"\x00\xff garbage")
    (section,) = loss_path_sections(study) if "loss" in name else rate_sections(read_study(study))
    assert "cannot be read" in shown(section)


def put_pipe(path: Path) -> None:
    os.mkfifo(path)


def put_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def put_loop(path: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.parametrize("put", [put_pipe, put_device, put_loop])
def test_no_file_of_a_study_is_waited_for(study: Path, put: Callable[[Path], None], tmp_path: Path) -> None:
    """The fuzz benchmark found that a pipe in place of study.yaml was waited for without end, and /dev/zero read until
    memory ran out.
    """
    whole = read_result(result_path(study, TRIAL)).rows
    stages = StudyStore(study).stages
    first, second = plan_of(study).chains[SPECS[0].trial_id].keys[:2]

    def replace(path: Path) -> None:
        path.unlink(missing_ok=True)
        put(path)

    def read() -> Outcome:
        for path in (result_path(study, TRIAL), *(study / name for name in ("sessions.json", FAILURES, TRACKED))):
            replace(path)
        assert restore(study) == [TRIAL] and read_result(result_path(study, TRIAL)).rows == whole
        assert read_sessions(study) == [] and read_failures(study) == {} and tracking_sections(study) == []
        replace(stages.folder(first) / MARKER)
        replace(stages.folder(second) / "rows.parquet")
        assert stages.get(first) is None and stages.get(second) is None
        replace(study / STUDY_FILE)
        read_study_record(study)
        return Outcome.SAME

    outcome, words, _, _ = run_child(read, tmp_path / "output.txt")
    assert outcome is Outcome.CLEAR_ERROR and "study.yaml does not match its checksum" in words, words


def test_statistics_in_a_file_do_not_choose_its_rows(old_study: Path) -> None:
    """Found by the fuzz benchmark: a person was gone from an interval, because bytes that Parquet keeps to skip row
    groups were damaged in a file without checksum; its rows were whole.
    """
    path = result_path(old_study, TRIAL)
    content = path.read_bytes()
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    damaged = content[footer:].replace(b"reconstruction", b"zzzzzzzzzzzzzz")
    assert damaged != content[footer:]
    path.write_bytes(content[:footer] + damaged)
    wanted = pc.field("protocol") == "reconstruction"
    assert read_rows([path], ["value"], where=wanted).num_rows == pq.read_table(path).num_rows > 0
