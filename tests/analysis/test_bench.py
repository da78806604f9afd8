"""clstudy-bench: entries, whether they hold, places and differences, against loops and scipy."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from scipy import stats

from clstudy.analysis.bench import BENCHMARKS, Benchmark, against_all, complaints, entry_of, standings
from clstudy.cli import bench as cli
from clstudy.errors import UserError
from clstudy.records.bench_entry import Entry, read_entry, write_entry
from clstudy.records.rows import RESULT_SCHEMA
from clstudy.settings.profiles import PROFILES
from tests.analysis.test_html_report import check
from tests.analysis.test_report import STRATEGIES, Study
from tests.support.smoke_study import SmokeStudy

LPIPS = ("reconstruction", "lpips")
PEOPLE = ("ann", "bob", "cat", "dan", "eve")


def made(folder: Path, **changes: Any) -> Study:
    """A study with everything in its record that an entry needs; its rows do not depend on ``changes``."""
    study = Study(folder, identities=PEOPLE, seeds=(0,))
    plan = yaml.safe_load((folder / "study.yaml").read_text())
    plan |= {
        "profile": PROFILES["embedded"]().to_dict(),
        "generator": "a generator",
        "fingerprint": {"device": "cpu"},
        "data_digests": {name: f"photos of {name}" for name in PEOPLE},
        "timestamps": dict.fromkeys(PEOPLE, study.size),
        "versions": {"clstudy": "1.0"},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(plan | changes))
    for name in PEOPLE:
        _begin_alike(study, name)
    return study


def _begin_alike(study: Study, identity: str) -> None:
    """Give all of a person's trials the same R[0, 0], as real ones have."""
    own = [spec["trial"] for spec in study.trials if spec["identity"] == identity and spec["strategy"] != "upper"]
    first = {_cell(row): row["value"] for row in pq.read_table(study.results(own[0])).to_pylist()}
    for trial in own[1:]:
        rows = pq.read_table(study.results(trial)).to_pylist()
        for row in rows:
            if row["train_timestamp"] == 0:
                row["value"] = first[_cell(row)]
        pq.write_table(pa.Table.from_pylist(rows, schema=RESULT_SCHEMA), study.results(trial))
        for panel, r in study.r[trial].items():
            r[0, 0] = study.r[own[0]][panel][0, 0]


def _cell(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("train_timestamp", "test_timestamp", "protocol", "metric", "image"))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return made(tmp_path_factory.mktemp("bench") / "study")


@pytest.fixture
def benchmark(study: Study, tmp_path: Path) -> Benchmark:
    """Its reference has everything but ``er_hull``, which is entered."""
    found = Benchmark(name="small", space="smoke", buffer_size=3, file=str(tmp_path / "reference.parquet"))
    names = [name for name, _ in STRATEGIES if name != "er_hull"]
    write_entry(Path(found.file), entry_of(study.folder, found, names))
    return found


@pytest.fixture
def entry(study: Study, benchmark: Benchmark) -> Entry:
    return entry_of(study.folder, benchmark, ["er_hull"])


def changed(entry: Entry, column: str, change: Callable[[dict[str, Any]], Any]) -> Entry:
    """The entry with other values in a column of its cells."""
    rows = [row | {column: change(row)} for row in entry.cells.to_pylist()]
    return replace(entry, cells=pa.Table.from_pylist(rows, schema=RESULT_SCHEMA))


def test_cells_are_means_over_the_photos_of_a_timestamp(study: Study, entry: Entry) -> None:
    rows = pq.read_table(study.results("bob-er_hull-k3-lr0.001-s0")).to_pylist()
    mine = entry.cells.filter(pc.field("identity") == "bob").to_pylist()
    assert {(row["protocol"], row["metric"]) for row in mine} == {LPIPS, ("reconstruction", "id")}, (
        "no psnr, no synthesis"
    )
    for cell in mine:
        where = ("train_timestamp", "test_timestamp", "protocol", "metric")
        values = [row["value"] for row in rows if all(row[name] == cell[name] for name in where)]
        assert len(values) == 2 and cell["value"] == pytest.approx(np.mean(values), rel=1e-15)
    photos = {(row["test_timestamp"], row["image"]) for row in mine}
    assert len(photos) == study.size, "one name for the photos of a timestamp, whatever t is"
    assert set(entry.cells["buffer_size"].to_pylist()) == {3}


def test_places_and_differences_are_those_of_loops_and_scipy(study: Study, benchmark: Benchmark, entry: Entry) -> None:
    found = {one.strategy: one for one in standings(benchmark, [entry])}
    aip = {name: study.per_identity(LPIPS, "aip", name, 3) for name in ("er_rand", "er_hull")}
    best = sorted(aip, key=lambda name: np.mean(list(aip[name].values())))
    assert [found[name].rank for name in best] == [1, 2]
    assert found["lower"].rank is None and found["upper"].rank is None and found["upper"].aip is None
    for score in ("aip", "forgetting"):
        ours, theirs = (study.per_identity(LPIPS, score, name, 3) for name in ("er_hull", "er_rand"))
        paired = stats.ttest_rel([ours[name] for name in PEOPLE], [theirs[name] for name in PEOPLE])
        difference = found["er_hull"].to_baseline[score].comparison.difference
        low, high = paired.confidence_interval(0.95)
        assert (difference.low, difference.high) == pytest.approx((low, high))
        members = {one.comparison.baseline: one for one in against_all(benchmark, entry)[score]}
        assert members.keys() == {"er_rand", "lower"}
        flips = stats.permutation_test(
            ([ours[name] for name in PEOPLE], [theirs[name] for name in PEOPLE]),
            lambda x, y, axis: np.mean(np.subtract(x, y), axis=axis),
            permutation_type="samples", vectorized=True,
        )  # fmt: skip
        test = members["er_rand"].test
        assert test is not None and test.p == pytest.approx(flips.pvalue)
        assert members["er_rand"].p_holm >= test.p, "of two comparisons"


def test_an_entry_that_is_right_has_no_complaint(benchmark: Benchmark, entry: Entry) -> None:
    assert complaints(entry, benchmark) == []
    assert complaints(benchmark.reference, benchmark) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"benchmark": "v0"}, "It is of the benchmark v0, not of small."),
        ({"settings": "others"}, "other settings"),
        ({"generator": "another"}, "another pretrained generator"),
        ({"data_digests": dict.fromkeys(PEOPLE, "others")}, "other photos of 5 people, e.g. ann"),
        ({"strategies": {"er_hull": None, "more": None}}, "of other strategies than it names (er_hull, more)"),
    ],
)
def test_what_was_computed_with_other_things_is_told(
    changes: dict[str, Any], said: str, benchmark: Benchmark, entry: Entry
) -> None:
    (complaint, *_) = complaints(replace(entry, facts=replace(entry.facts, **changes)), benchmark)
    assert said in complaint


def test_cells_that_lack_or_do_not_fit_are_told(benchmark: Benchmark, entry: Entry) -> None:
    one_less = replace(entry, cells=entry.cells.slice(1))
    assert complaints(one_less, benchmark) == ["er_hull lacks cells or has too many: 59 instead of 60."]
    other = changed(entry, "image", lambda row: "others" if row["test_timestamp"] == 1 else row["image"])
    assert complaints(other, benchmark) == ["er_hull was tested on other photos."]
    for value in (float("nan"), -0.1, 7.0):
        wild = changed(entry, "value", lambda row, value=value: value if row["metric"] == "lpips" else row["value"])
        assert complaints(wild, benchmark) == ["Values of lpips are outside 0 to 2."]


def test_a_strategy_cannot_begin_better_than_all_others(benchmark: Benchmark, entry: Entry) -> None:
    """Before the first update of a memory nothing can be better: R[0, 0] is the same for everybody."""

    def beginning(lower: float) -> Entry:
        return changed(entry, "value", lambda row: row["value"] - lower * (row["train_timestamp"] == 0))

    assert complaints(beginning(0.001), benchmark) == [], "processors differ"
    (said,) = complaints(beginning(0.05), benchmark)
    assert "er_hull begins elsewhere: R[0, 0] of ann" in said


def test_a_file_is_read_as_it_was_written_and_refused_once_changed(entry: Entry, tmp_path: Path) -> None:
    write_entry(tmp_path / "mine.parquet", entry)
    found = read_entry(tmp_path / "mine.parquet")
    assert found.facts == entry.facts and found.cells.equals(entry.cells) and found.digest == entry.digest
    table = pq.read_table(tmp_path / "mine.parquet")
    better = table.set_column(
        table.schema.get_field_index("value"), table.schema.field("value"), pc.multiply(table["value"], 0.9)
    )
    pq.write_table(better, tmp_path / "better.parquet")
    with pytest.raises(UserError, match="does not match its own sha256"):
        read_entry(tmp_path / "better.parquet")
    pq.write_table(table.replace_schema_metadata(None), tmp_path / "bare.parquet")
    (tmp_path / "text.parquet").write_text("hello")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "mine.parquet").read_bytes()[:500])
    for name in ("bare", "text", "cut"):
        with pytest.raises(UserError, match=f"{name}.parquet is no entry of a benchmark"):
            read_entry(tmp_path / f"{name}.parquet")
    with pytest.raises(UserError, match="there is no file"):
        read_entry(tmp_path / "none.parquet")


def test_settings_that_no_number_depends_on_are_no_other_settings(tmp_path: Path, entry: Entry) -> None:
    profile = PROFILES["embedded"]()
    small = Benchmark(name="small", space="smoke", buffer_size=3, file="none")
    words = replace(profile, description="other words", stage_seconds=1.0)
    longer = replace(profile, trainer=replace(profile.trainer, epochs=7))
    for name, changed_profile, same in (("words", words, True), ("longer", longer, False)):
        other = made(tmp_path / name, profile=changed_profile.to_dict())
        assert (entry_of(other.folder, small).facts.settings == entry.facts.settings) is same


def test_trials_that_lack_are_named(tmp_path: Path) -> None:
    unfinished = made(tmp_path / "study")
    unfinished.results("bob-er_hull-k3-lr0.001-s0").unlink()
    small = Benchmark(name="small", space="smoke", buffer_size=3, file="none")
    with pytest.raises(UserError, match="1 of 5 trials are not finished, e.g. bob-er_hull-k3"):
        entry_of(unfinished.folder, small, ["er_hull"])
    with pytest.raises(UserError, match="has no trial of kmeans with K = 3"):
        entry_of(unfinished.folder, small, ["kmeans"])


def test_the_same_strategy_cannot_be_entered_twice(benchmark: Benchmark, entry: Entry) -> None:
    with pytest.raises(UserError, match="strategy er_hull is in two entries"):
        standings(benchmark, [entry, entry])


# --- the packaged one, and the command --------------------------------------------------------------------------------


def test_the_packaged_reference_says_what_the_study_of_selection_says() -> None:
    """As docs/selection.md: er_hull minus er_rand in AIP -0.0001 [-0.0003, +0.0000]."""
    places = {one.strategy: one for one in standings(BENCHMARKS["v1"])}
    difference = places["er_hull"].to_baseline["aip"].comparison.difference
    assert [round(value, 4) for value in (difference.mean, difference.low, difference.high)] == [-0.0001, -0.0003, 0.0]
    assert difference.n == 20 and complaints(BENCHMARKS["v1"].reference, BENCHMARKS["v1"]) == []


def test_places_are_printed_and_shown_on_a_page(
    benchmark: Benchmark,
    entry: Entry,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(BENCHMARKS._entries, "small", benchmark)
    write_entry(tmp_path / "mine.parquet", entry)
    words = ["board", str(tmp_path / "mine.parquet"), "--benchmark", "small", "--out", str(tmp_path / "board.html")]
    assert cli.main(words) == 0
    printed = capsys.readouterr().out
    page = check((tmp_path / "board.html").read_text())
    for strategy in ("er_hull", "er_rand", "lower", "upper"):
        assert strategy in printed and strategy in page.words
    assert cli.main(["verify", str(tmp_path / "mine.parquet"), "--benchmark", "small"]) == 0
    assert entry.digest[:12] in capsys.readouterr().out
    write_entry(tmp_path / "other.parquet", replace(entry, facts=replace(entry.facts, generator="another")))
    for command in ("verify", "board"):
        assert cli.main([command, str(tmp_path / "other.parquet"), "--benchmark", "small"]) == 1
        assert "other.parquet: It was computed with another pretrained generator." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["er_hull"], "er_hull is in the benchmark already"),
        (["no_such"], "unknown strategy 'no_such'"),
        (["reservoir", "--seeds", "1"], "--seeds would make another task of the benchmark"),
        (["reservoir", "--space", "smoke"], "--space would make another task of the benchmark"),
        (["reservoir", "--set", "trainer.epochs=1"], "--set would make another task of the benchmark"),
        (["reservoir", "--benchmark", "v9"], "unknown benchmark 'v9'"),
    ],
)
def test_what_is_no_run_of_the_benchmark_is_refused(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["run", *words]) == 2
    assert said in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_dry_run_plans_the_strategy_alone(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["run", "reservoir", "--dry-run"]) == 0
    assert "20 trials" in capsys.readouterr().out and not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.ci_slow
def test_a_strategy_of_ones_own_is_entered(smoke_study: SmokeStudy, tmp_path: Path) -> None:
    """The whole way on a benchmark of smoke's size: nothing but the new strategy is computed, and its entry holds."""
    small = Benchmark(name="small", space="smoke", buffer_size=3, file=str(tmp_path / "reference.parquet"))
    write_entry(Path(small.file), entry_of(smoke_study.study, small))
    (tmp_path / "small.py").write_text(f"from clstudy.analysis.bench import Benchmark\n\nSMALL = {small!r}\n")
    (tmp_path / "newest.py").write_text(
        "import numpy as np\nfrom clstudy.strategies import PhotoStrategy\n\n\n"
        "class Newest(PhotoStrategy):\n    name = 'newest'\n    description = 'the last ones'\n    balanced = False\n\n"
        "    def choose(self, items, capacity, rng):\n"
        "        return np.argsort([-item.timestamp for item in items], kind='stable')[:capacity]\n"
    )
    words = ["bench", "run", "newest:Newest", "--benchmark", "small:SMALL", "--entry", "mine.parquet"]
    done = subprocess.run(
        [sys.executable, "-m", "clstudy", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "6 stages computed" in done.stdout and "newest:Newest minus each of them" in done.stdout
    found = read_entry(tmp_path / "mine.parquet")
    assert list(found.facts.strategies) == ["newest:Newest"] and complaints(found, small) == []
    assert found.facts.strategies["newest:Newest"] is not None, "its source is named by its digest"
