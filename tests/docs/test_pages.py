"""What README and documentation promise: commands that exist, tests that run them, links that lead somewhere."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path

import click
import pytest
import yaml

from clstudy.cli.commands import ENTRIES, clstudy_command
from clstudy.identities.catalogue import DATA_SETS
from clstudy.settings.packaged_spaces import known_spaces
from clstudy.settings.space_file import load_space
from clstudy.settings.version import __version__
from tests.support.documentation import PAGES, README, ROOT, Block, blocks

SITE_PAGES = tuple(sorted((ROOT / "docs").glob("*.md")))
_INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_MODULE = re.compile(r"(?:\S*/)?python(?:3)?")


def commands(text: str) -> Iterator[list[str]]:
    """Every single command of a block, also those that another one takes in quotes (``ray exec … '…'``)."""
    plain = re.sub(r"(?m)(?:^|(?<=\s))#.*$", "", text.replace("\\\n", " "))
    words = shlex.shlex(plain, posix=True, punctuation_chars="&;|\n")
    words.whitespace, words.whitespace_split, words.commenters = " \t", True, ""
    command: list[str] = []
    for word in [*words, "\n"]:
        if word.strip("&;|\n"):
            command.append(word)
            if " " in word and "clstudy" in word:
                yield from commands(word)
        elif command:
            yield command
            command = []


def of_clstudy(command: list[str]) -> list[str] | None:
    """What follows ``clstudy``, however the command is spelled."""
    match command:
        case [program, *rest] if Path(program).name == "clstudy":
            return rest
        case [python, "-m", module, *rest] if _MODULE.fullmatch(python) and module.startswith("clstudy."):
            name = module.removeprefix("clstudy.").replace("generators.pretraining", "pretraining").replace("_", "-")
            return [name, *rest] if name in ENTRIES else None
    return None


def parsed(arguments: list[str]) -> None:
    """Hand words to the command line's own parser; nothing runs.

    Raises:
        click.UsageError: it does not take them.
    """
    command: click.Command = clstudy_command
    while isinstance(command, click.Group):
        if not arguments or arguments[0].startswith("-"):
            return
        found = command.get_command(click.Context(command), arguments[0])
        if found is None:
            raise click.UsageError(f"no command {arguments[0]!r}")
        command, arguments = found, arguments[1:]
    try:
        command.make_context("documented", list(arguments))
    except click.exceptions.Exit:  # --list, --version
        pass
    except click.BadParameter as error:  # a reader has these files, a test does not
        if error.param is None or not isinstance(error.param.type, click.Path):
            raise


@pytest.mark.parametrize("block", blocks("bash"), ids=str)
def test_a_block_of_commands_says_what_runs_it_or_why_nothing_does(block: Block) -> None:
    whole_page = re.search(r"<!-- all commands: (.*?)-->", block.page.read_text(), re.DOTALL)
    said = whole_page[1] if whole_page else block.marker
    if said in ("ci:test", "aws:prepare") or said.startswith("not run by tests: "):
        assert len(said) < 200
    else:
        assert said.startswith("runs: ") or whole_page, f"no comment above the block says what runs it: {block}"
    for test in re.findall(r"tests/[\w/]+\.py", said):
        assert (ROOT / test).is_file(), test


@pytest.mark.parametrize("block", blocks("bash"), ids=str)
def test_the_commands_of_a_block_are_taken_by_the_command_line(
    block: Block, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in commands(block.text):
        if (arguments := of_clstudy(command)) is not None:
            parsed(arguments)
        elif len(command) > 2 and _MODULE.fullmatch(command[0]) and command[1] == "-m":
            assert find_spec(command[2]) is not None, command


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_named_in_the_text_exist(page: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    text = re.sub(r"^[ ]*```.*?^[ ]*```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for code in _INLINE.findall(text):
        words = " ".join(code.split()).replace("…", " ").replace("[", " ").replace("]", " ")
        if re.match(r"clstudy [a-z]|python -m clstudy\.", words) and "COMMAND" not in words:
            arguments = of_clstudy(shlex.split(words))
            try:
                parsed(arguments or [])
            except click.MissingParameter:
                pass  # named in passing, without what it is to work on
            except click.UsageError as error:
                pytest.fail(f"`{code}`: {error.format_message()}")
        elif match := re.match(r"python -m (benchmarks[\w.]*)(.*)", words):
            source = find_spec(match[1])
            assert source is not None and source.origin is not None, code
            if source.submodule_search_locations is None:
                written = Path(source.origin).read_text()
                for option in re.findall(r"--[\w-]+", match[2]):
                    assert f'"{option}"' in written, f"`{code}`: {source.origin} has no {option}"


def test_the_commands_of_a_text_are_found_wherever_they_stand() -> None:
    text = "a && .venv/bin/python -m clstudy.run --space x  # y\nray exec f 'clstudy status \\\n b; ls'\n"
    assert [command for command in commands(text) if of_clstudy(command)] == [
        [".venv/bin/python", "-m", "clstudy.run", "--space", "x"],
        ["clstudy", "status", "b"],
    ]
    with pytest.raises(click.UsageError, match="--spase"):
        parsed(["run", "--spase", "x"])
    with pytest.raises(click.UsageError, match="ruin"):
        parsed(["ruin"])


def test_whatever_there_is_to_choose_is_documented() -> None:
    pages = {page.name: page.read_text() for page in SITE_PAGES}
    everything = "\n".join(pages.values())
    assert [name for name, entry in ENTRIES.items() if entry.line and f"`{name}" not in pages["commands.md"]] == []
    assert [name for name in DATA_SETS if f"`{name}`" not in pages["data_sets.md"]] == []
    assert [name for name in known_spaces() if not re.search(rf"[`/ ]{name}\b", everything)] == []


@pytest.mark.parametrize("block", [block for block in blocks("yaml") if block.marker == "test:space"], ids=str)
def test_a_space_that_is_shown_is_one(block: Block, tmp_path: Path) -> None:
    path = tmp_path / f"{yaml.safe_load(block.text)['name']}.yaml"
    path.write_text(block.text)
    assert load_space(str(path)).grid.strategy


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_that_are_there(page: Path) -> None:
    text = page.read_text()
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    for target in targets:
        if not re.match(r"https?:|#", target):
            assert (page.parent / target.partition("#")[0]).exists(), f"{page.name}: {target}"


def test_the_readme_is_short_and_shows_something() -> None:
    text = README.read_text()
    assert len(text.splitlines()) <= 150
    assert text.index("![") < text.index("## Run it")


def test_the_citation_names_this_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["version"] == __version__ and cited["cff-version"] == "1.2.0"
    assert {"title", "authors", "message", "license"} <= cited.keys() and cited["authors"]


class _Fetched(HTMLParser):
    """What a browser fetches by itself when it opens a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("img", "script", "iframe", "source") and given.get("src"):
            self.found.append(str(given["src"]))
        if tag == "link" and given.get("rel") in ("stylesheet", "icon", "preload"):
            self.found.append(str(given["href"]))


def test_the_site_is_built_without_a_warning_and_fetches_nothing_from_elsewhere(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "docs", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    pages = sorted(tmp_path.glob("*.html"))
    assert {page.stem for page in SITE_PAGES} <= {page.stem for page in pages}
    for page in pages:
        parser = _Fetched()
        parser.feed(page.read_text())
        for address in parser.found:
            assert not re.match(r"(https?:)?//", address), f"{page.name} fetches {address}"
            assert (tmp_path / address.partition("?")[0]).is_file(), f"{page.name}: {address}"
    assert "AIP" in (tmp_path / "api.html").read_text()
