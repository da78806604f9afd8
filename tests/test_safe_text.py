"""Secrets and hostile names in every kind of output: terminal, documents, errors, logs, MLflow."""

from __future__ import annotations

import csv
import io
import json
import logging
import re
import shutil
import sqlite3
import sys
import unicodedata
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.live import Live
from rich.text import Text

from clstudy.analysis import report
from clstudy.analysis.pages.blocks import (
    Face,
    FaceMoment,
    FaceRow,
    FaceTable,
    Files,
    Folded,
    Picture,
    paragraph,
    rows_section,
)
from clstudy.analysis.pages.render import render
from clstudy.analysis.paper import escape_latex
from clstudy.analysis.summary import summarise
from clstudy.analysis.tables import table_files, to_csv, to_terminal
from clstudy.cli import report as cli_report
from clstudy.cli import run
from clstudy.cli.clean_output import CleanConsole, clean_streams
from clstudy.cli.run_view import PrintedRun
from clstudy.cli.tracking import main as rebuild
from clstudy.cluster.coordinator import Coordinator
from clstudy.cluster.recorder import Recorder
from clstudy.doctor.judges import judge_tracking
from clstudy.doctor.probes import ask_tracking
from clstudy.errors import UserError
from clstudy.identities.preparation.report import report_text
from clstudy.identities.preparation.settings import PrepareSettings
from clstudy.identities.preparation.video import Found
from clstudy.safe_text import csv_cell, markdown, one_line, printable, redacted, shown_address
from clstudy.storage.places import RemotePath, open_place
from clstudy.study.run_options import RunOptions
from clstudy.tracking.local_database import sqlite_uri
from clstudy.tracking.writer import MlflowWriter
from tests.analysis.test_report import Study
from tests.support.small_study import Clusterless, Direct

CANARY, TOKEN = "kanarienvogel", "tok3n-of-nobody"
ADDRESS = f"http://someone:{CANARY}@127.0.0.1:9/mlflow?access_token={TOKEN}"
"""Nothing listens on port 9, so that every path also meets a library's error."""

HOSTILE = "\x1b]0;owned\x07\x1b[31m[/bold][link=x]=cmd|' /C calc'!A0 \u202egnp.exe <script>1</script>\x9b2J\x08\r"


def leaks(text: str | bytes) -> bool:
    content = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    return CANARY.encode() in content or TOKEN.encode() in content


def acts(text: str) -> list[str]:
    """Characters that would do something to a terminal."""
    return [
        sign for sign in text if sign != "\n" and unicodedata.category(sign) in ("Cc", "Zl", "Zp") or sign == "\u202e"
    ]


# --- secrets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://u:p@host:5000/x", "http://***@host:5000/x"),
        ("http://token@host/", "http://***@host/"),
        ("http://u:p@w@host/x", "http://***@host/x"),
        ("http://u:p/w#o@host/path", "http://***@host/path"),
        ("https://host/?api_key=1&region=eu", "https://host/?api_key=***&region=eu"),
        ("https://host/#access_token=1", "https://host/#access_token=***"),
        ("postgresql://u:s@h/db?sslpassword=z", "postgresql://***@h/db?sslpassword=***"),
        ("s3://key:secret@bucket/a?region=eu", "s3://***@bucket/a?region=eu"),
        ("http://127.0.0.1:5000/#/experiments/3/runs?order=desc", None),
        ("sqlite:////home/a@b/mlflow.db", None),
        ("s3://bucket/user@mail/x?endpoint_override=localhost:9000", None),
        ("runs/mlflow.db", None),
    ],
)
def test_an_address_is_shown_without_secrets(address: str, shown: str | None) -> None:
    assert shown_address(address) == (shown or address)
    assert redacted(f"at ({address}), today") == f"at ({shown or address}), today"


WORDS = st.text(
    st.characters(codec="ascii", exclude_characters=" \"'<>`\t\n\r\x0b\x0c\x1c\x1d\x1e\x1f\x85", min_codepoint=33)
)


@settings(max_examples=50, deadline=None)
@given(WORDS, WORDS)
def test_whatever_the_password_is_nothing_of_it_is_shown(before: str, after: str) -> None:
    assert CANARY not in shown_address(f"http://user:{before}{CANARY}{after}@host.example/path")


def test_a_password_is_hidden_in_a_message_that_quotes_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:pass%40word@db/x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "abc/def+ghi")
    assert (
        redacted("no user me with pass@word or pass%40word, key 'abc/def+ghi'")
        == "no user me with *** or ***, key '***'"
    )
    assert str(UserError("not pass@word")) == "not ***"


def test_no_path_prints_the_tracking_servers_password(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", ADDRESS)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    said: list[str] = []
    # doctor
    said += map(str, judge_tracking(ask_tracking(ADDRESS)))
    # the writer's log and its errors
    with caplog.at_level(logging.WARNING):
        writer = MlflowWriter(ADDRESS, "test_study", sleep=lambda seconds: None)
        writer.start_trial("a", "a", {"x": ADDRESS}, {"identity": "a"})
        writer.flush(0)
        with pytest.raises(ConnectionError) as trouble:
            writer.whole_runs({"a": 1})
    said += [caplog.text, str(trouble.value)]
    # commands: a rebuild that is refused and one whose server is away, a forgetting, a run with bad storages
    study = Study(tmp_path / "runs" / "study", identities=("ann",), seeds=(0,))
    monkeypatch.setattr("clstudy.study.tracking_rebuild._PATIENCE_S", 0.0)
    rebuild(["rebuild", str(study.folder), "--to", ADDRESS])
    from clstudy.cli.identities import main as identities

    assert identities(["forget", "ann", "--study", str(study.folder), "--yes"]) == 2
    for storage in (f"s3://key:{CANARY}@bucket/x", f"gs://bucket/x?access_token={TOKEN}", f"nope://{CANARY}@x"):
        assert run.main(["--space", "smoke", "--storage", storage, "--dry-run"]) == 2
        with pytest.raises(UserError) as refused:
            open_place(storage)
        said.append(str(refused.value))
    said += capsys.readouterr()
    shown = "\n".join(said)
    assert "***@127.0.0.1:9" in shown and "does not answer" in shown and "credentials" in shown
    assert not leaks(shown), [line for line in shown.splitlines() if leaks(line)]
    assert str(RemotePath(f"s3://k:{CANARY}@bucket/x")) == "s3://***@bucket/x"


def test_a_failed_trial_writes_no_password(
    tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Into MLflow, the study's folder, or what the driver shows: a library's message has the whole address."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", ADDRESS)
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    recorder = Recorder(sqlite_uri(tmp_path / "mlflow.db"), "small", tmp_path / "pictures", {})
    coordinator = Coordinator()
    worker = Clusterless.__new__(Clusterless)
    worker._job = SimpleNamespace(out=tmp_path, recorder=Direct(recorder), coordinator=Direct(coordinator))
    worker._spec = SimpleNamespace(trial_id="ann-lower")
    worker._sent = []
    try:
        raise OSError(f"Max retries exceeded: {ADDRESS} ({CANARY})")
    except OSError as error:
        ended = worker._fail(f"{type(error).__name__}: {error}{worker._logged(f'Traceback: {error}')}")
    worker._say(f"note: {ADDRESS}")
    assert recorder.close() == 0
    assert "OSError: Max retries exceeded: http://***@127.0.0.1:9/mlflow?access_token=***" in ended["failed"]
    assert not leaks(json.dumps([ended, coordinator.snapshot()]))
    for path in tmp_path.rglob("*"):
        assert not (path.is_file() and leaks(path.read_bytes())), path


# --- what acts on a terminal ----------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.text())
def test_printable_text_acts_on_nothing_and_keeps_ordinary_names(text: str) -> None:
    assert not acts(printable(text).replace("\t", ""))
    assert printable(printable(text)) == printable(text)
    assert "\n" not in one_line(text)


@pytest.mark.parametrize("name", ["Zébulon", "李小龙", "علی‌رضا", "Ωμέγα", "👩‍👩‍👧", "O'Brien_2", "é"])
def test_ordinary_names_stay(name: str) -> None:
    assert printable(name) == name == one_line(name)


def test_streams_and_tracebacks_are_clean(capsys: pytest.CaptureFixture[str]) -> None:
    with clean_streams():
        print(HOSTILE, ADDRESS)
        print(HOSTILE, file=sys.stderr)
        logging.getLogger("clstudy.test").warning("%s", HOSTILE)
        CleanConsole(force_terminal=True).print("plain", style="bold")
    out, err = capsys.readouterr()
    assert "\x1b[1mplain\x1b[0m" in out, "rich's own sequences stay"
    assert not acts(out.replace("\x1b[1m", "").replace("\x1b[0m", "") + err)
    assert "\\x1b[31m" in out and "\\u202e" in err and not leaks(out)


def console(width: int = 100) -> tuple[CleanConsole, io.StringIO]:
    sink = io.StringIO()
    return CleanConsole(file=sink, width=width, highlight=False), sink


def test_the_console_styles_labels_and_shows_the_rest_as_it_is() -> None:
    sink = io.StringIO()
    styled = CleanConsole(file=sink, width=200, force_terminal=True, color_system="standard", highlight=False)
    styled.print(f"[red]failed[/red] a: {HOSTILE}", soft_wrap=True)
    shown = sink.getvalue()
    assert shown.startswith("\x1b[31mfailed\x1b[0m a: \\x1b]0;owned\\x07")
    assert "[/bold][link=x]" in shown, "brackets of a name are no markup"
    assert not acts(shown.replace("\x1b[31mfailed\x1b[0m", ""))


def test_a_live_display_is_live_and_what_it_shows_is_clean(capsys: pytest.CaptureFixture[str]) -> None:
    with clean_streams():
        screen = CleanConsole(force_terminal=True, width=80, _environ={"TERM": "xterm"})
        with Live(Text("going"), console=screen, auto_refresh=False, transient=True) as live:
            live.update(Text(f"trial {HOSTILE[:20]}"), refresh=True)
            print("beside", HOSTILE[:20])  # rich reads it, and keeps colours at most
    out, _ = capsys.readouterr()
    assert "\x1b[?25l" in out and "\x1b[2K" in out, "its own sequences steer the terminal"
    assert "trial \\x1b]0;owned" in out and "beside" in out and "\x1b]0;" not in out and "\x07" not in out


def test_messages_of_failed_trials_and_descriptions_of_spaces_are_shown_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "search_spaces").mkdir()
    grid = {"identity": 1, "strategy": ["lower"], "buffer_size": [3], "learning_rate": [0.003]}
    space = {"name": "evil", "description": HOSTILE, "profile": "smoke", "grid": grid, "seeds": [0]}
    path = tmp_path / "search_spaces" / "evil.yaml"
    path.write_text(yaml.safe_dump(space))
    screen, sink = console(400)
    monkeypatch.setattr("clstudy.settings.packaged_spaces.known_spaces", lambda: {"evil": path})
    run.print_choices(screen)
    PrintedRun(screen, RunOptions(space="any")).failed({HOSTILE: HOSTILE})
    shown = sink.getvalue()
    assert not acts(shown)
    assert shown.count("[/bold][link=x]=cmd") == 3


# --- a report of hostile names --------------------------------------------------------------------------------------


PERSON = HOSTILE.replace("/", "|")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose person, failures and name come from somebody who means harm."""
    study = Study(tmp_path_factory.mktemp("hostile") / "study", identities=("=ann", PERSON[:60]), seeds=(0,))
    plan = yaml.safe_load((study.folder / "study.yaml").read_text())
    plan["name"] = HOSTILE
    gone = plan["trials"][-1]["trial"]
    study.results(gone).unlink()
    (study.folder / "study.yaml").write_text(yaml.safe_dump(plan))
    (study.folder / "failures.json").write_text(json.dumps({gone: f"{HOSTILE} at {ADDRESS}\n# heading\n<img src=x>"}))
    return study.folder


def test_tables_of_hostile_names(hostile: Path) -> None:
    summary = summarise(hostile)
    files = {name: content.decode() for name, content in table_files(summary).items() if not name.endswith("parquet")}
    for name, text in files.items():
        assert not acts(text), name
        assert not leaks(text), name
    assert not re.search(r"<(?!!)", files["tables.md"]) and "&lt;script>" in files["tables.md"]
    assert "\n# heading" not in files["tables.md"]
    assert "<script" not in files["efficiency.md"]
    screen, sink = console()
    screen.print(to_terminal(summary, 100))
    assert not acts(sink.getvalue()) and not leaks(sink.getvalue())


def test_no_cell_of_a_csv_is_a_formula(hostile: Path) -> None:
    table = pa.table({"identity": ["=1+1", "+x", "-x", "@x", "  =x", "-1.5", "ann", None, "\t=x"], "value": [-1.0] * 9})
    rows = list(csv.DictReader(io.StringIO(to_csv(table))))
    shown = [row["identity"] for row in rows]
    assert shown == ["'=1+1", "'+x", "'-x", "'@x", "'  =x", "-1.5", "ann", "", "'\t=x"]
    assert {row["value"] for row in rows} == {"-1"}
    assert csv_cell(f"={ADDRESS}") == "'=http://***@127.0.0.1:9/mlflow?access_token=***"


def test_markdown_acts_on_nothing_that_came_from_a_file() -> None:
    lines = [
        "# title",
        "- [x](javascript:1) ![y](http://z) &lt; a < b",
        "[x]: http://z",
        "a\n# b",
        "| 1 \\| 2 | [0.1, 2] |",
    ]
    assert markdown(lines).splitlines() == [
        "# title",
        "- [x]\\(javascript:1) ![y]\\(http://z) &amp;lt; a &lt; b",
        "[x]\\: http://z",
        "a # b",
        "| 1 \\| 2 | [0.1, 2] |",
    ]
    report = report_text(
        Found(occasions=(), order=HOSTILE, ignored=(HOSTILE,)), (), (), None, HOSTILE, PrepareSettings(identity="ann")
    )
    assert "<script" not in report and not acts(report)


def test_latex_and_html_spell_out_what_would_act() -> None:
    assert not acts(escape_latex(HOSTILE)) and "\\textless{}script" in escape_latex(HOSTILE)
    names = {"name": HOSTILE, "title": HOSTILE, "alt": HOSTILE, "source": HOSTILE}
    picture = Picture(**names, caption=ADDRESS, files=(HOSTILE,), narrowest=1, widest=2)
    face = Face(source=HOSTILE, alt=HOSTILE, said=(HOSTILE, ADDRESS))
    row = FaceRow(label=HOSTILE, faces=(face,))
    faces = FaceTable(caption=HOSTILE, photos=row, moments=(FaceMoment(t=0, rows=(row,)),))
    section = rows_section(HOSTILE, HOSTILE, [HOSTILE, ADDRESS], [[HOSTILE, ADDRESS]], [HOSTILE, ADDRESS])
    folded = Folded(title=HOSTILE, blocks=(picture, faces, Files((HOSTILE,)), paragraph(ADDRESS, HOSTILE)))
    section = replace(section, blocks=(*section.blocks, folded))
    said = {"answer": [HOSTILE], "alerts": [HOSTILE, ADDRESS], "facts": [(HOSTILE, ADDRESS)]}
    page = render("study.html.j2", title=ADDRESS, name=HOSTILE, description=ADDRESS, sections=[section], **said)
    page += render("side_by_side.html.j2", title=ADDRESS, studies=[section], sections=[section])
    # the page's own script, once on each of the two
    assert page.count("<script") == 2
    assert page.count("&lt;script&gt;") > 20 and not acts(page) and not leaks(page)


def test_the_report_command_prints_nothing_that_acts(
    hostile: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(folder: Path) -> Any:  # the tables without the figures, which take seconds
        return SimpleNamespace(summary=summarise(folder), broken=(HOSTILE,))

    monkeypatch.setattr(report, "build_report", build)
    assert cli_report.main([str(hostile), str(hostile / HOSTILE.replace("/", "|"))]) == 2
    out, err = capsys.readouterr()
    assert not acts(out) and not acts(err) and not leaks(out + err)
    assert "\\x1b[31m" in out and "\\x1b[31m" in err


def test_mlflow_gets_nothing_that_acts(tmp_path: Path, empty_database: Path) -> None:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    writer = MlflowWriter(sqlite_uri(tmp_path / "mlflow.db"), "study", {"note": ADDRESS})
    writer.start_trial("a", HOSTILE, {"identity": HOSTILE}, {"identity": HOSTILE})
    writer.fail_trial("a", f"{HOSTILE} {ADDRESS}")
    assert writer.flush() == 0 and writer.dropped() == 0
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        texts = [row[0] for table in ("tags", "params") for row in database.execute(f"SELECT value FROM {table}")]
        texts += [row[0] for row in database.execute("SELECT name FROM runs")]
    assert texts and not [text for text in texts if acts(text) or leaks(text)]
