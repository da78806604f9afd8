"""A synthetic study folder through summary and report, against numbers computed independently here."""

from __future__ import annotations

import csv
import itertools
import json
import subprocess
import sys
import textwrap

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from rich.console import Console
from scipy import stats

from clstudy.analysis import report
from clstudy.analysis.score_tables import JOINT_NOTE
from clstudy.analysis.summary import summarise
from clstudy.analysis.tables import to_terminal
from clstudy.cli import report as cli_report
from clstudy.errors import UserError
from clstudy.records.rows import RESULT_SCHEMA

PANELS = [("reconstruction", "lpips"), ("reconstruction", "id"), ("reconstruction", "psnr"), ("synthesis", "id")]
STRATEGIES = [("lower", None), ("upper", None), *itertools.product(["er_rand", "er_hull"], [3, 5])]


class Study:
    """A study folder, and R of every trial and panel as plain arrays: ``r[trial][panel]`` is [T, T]."""

    def __init__(self, folder, identities=("ann", "bob", "cat"), seeds=(0, 1), rates=(0.001,), size=3, skip=()):
        self.folder, self.size, self.trials, self.r = folder, size, [], {}
        (folder / "results").mkdir(parents=True)
        rng = np.random.default_rng(7)
        for identity, rate, seed, (strategy, buffer_size) in itertools.product(identities, rates, seeds, STRATEGIES):
            middle = "" if buffer_size is None else f"-k{buffer_size}"
            name = f"{identity}-{strategy}{middle}-lr{rate:g}-s{seed}"
            spec = {"trial": name, "identity": identity, "strategy": strategy, "buffer_size": buffer_size}
            spec |= {"learning_rate": rate, "seed": seed}
            self.trials.append(spec)
            if name in skip:
                continue
            rows, self.r[name] = [], {}
            for protocol, metric in PANELS:
                values = rng.uniform(size=(size, size, 2))
                self.r[name][protocol, metric] = values.mean(axis=-1)
                for t, k, i in np.ndindex(values.shape):
                    if k <= t and (strategy != "upper" or t == size - 1):
                        where = {"train_timestamp": t, "test_timestamp": k, "protocol": protocol, "metric": metric}
                        rows.append(spec | where | {"image": f"{k}-{i}", "value": values[t, k, i]})
            pq.write_table(pa.Table.from_pylist(rows, schema=RESULT_SCHEMA), self.results(name))
        sizes = sorted({spec["buffer_size"] for spec in self.trials} - {None})
        plan = {"name": "test_study", "timestamps": size, "buffer_sizes": sizes, "trials": self.trials}
        (folder / "study.yaml").write_text(yaml.safe_dump(plan))

    def results(self, name):
        return self.folder / "results" / f"{name}.parquet"

    def per_identity(self, panel, score, strategy, buffer_size, rate=0.001):
        """identity -> mean over seeds of the score, by loops."""
        values = {}
        for spec in self.trials:
            key = (spec["strategy"], spec["buffer_size"], spec["learning_rate"])
            if key == (strategy, buffer_size, rate) and spec["trial"] in self.r:
                number = loop_score(self.r[spec["trial"]][panel], score, panel[1] != "lpips")
                values.setdefault(spec["identity"], []).append(number)
        return {identity: np.mean(numbers) for identity, numbers in values.items()}


def loop_score(r, score, higher):
    last, s = len(r) - 1, 1 if higher else -1
    if score == "aip":
        return np.mean([np.mean([r[t][k] for k in range(t + 1)]) for t in range(last + 1)])
    if score == "final":
        return np.mean(r[last])
    if score == "bwt":
        return np.mean([s * (r[last][k] - r[k][k]) for k in range(last)])
    return np.mean([max(s * r[m][k] for m in range(k, last)) - s * r[last][k] for k in range(last)])


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def spoken(summary, width=100):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(to_terminal(summary, width))
    return console.export_text()


def interval_of(values):
    return stats.ttest_1samp(list(values), 0).confidence_interval(0.95)


@pytest.mark.usefixtures("few_figures")
def test_csv_equals_numbers_computed_here(tmp_path):
    study = Study(tmp_path / "study")
    summary = report.write_report(study.folder)
    assert summary.complete
    rows = read_csv(study.folder / "report" / "summary.csv")
    # 4 panels x (lower and 4 replay cells with 4 scores, upper with one)
    assert len(rows) == 4 * (5 * 4 + 1)
    for row in rows:
        size = int(row["buffer_size"]) if row["buffer_size"] else None
        values = study.per_identity((row["protocol"], row["metric"]), row["score"], row["strategy"], size)
        expected = interval_of(values.values())
        assert float(row["mean"]) == pytest.approx(np.mean(list(values.values())), rel=1e-12, abs=1e-12)
        np.testing.assert_allclose([float(row["low"]), float(row["high"])], expected, rtol=1e-9, atol=1e-9)
        assert (row["n_identities"], row["n_seeds"], row["n_trials"], row["n_planned"]) == ("3", "2", "6", "6")
        assert row["population"] == "new identities"
        assert (size is None) == (row["strategy"] in ("lower", "upper"))
    assert {row["score"] for row in rows if row["strategy"] == "upper"} == {"final"}
    assert {row["note"] for row in rows if row["strategy"] == "upper"} == {JOINT_NOTE}

    paired = read_csv(study.folder / "report" / "paired.csv")
    # AIP, Forgetting, BWT: er_hull and er_rand to lower, er_hull to er_rand, at 2 sizes; final: upper besides.
    assert len(paired) == 4 * (4 * 6 + 3)
    for row in paired:
        panel, score = (row["protocol"], row["metric"]), row["score"]
        size = int(row["buffer_size"]) if row["buffer_size"] else None
        ours = study.per_identity(panel, score, row["strategy"], None if row["strategy"] == "upper" else size)
        theirs = study.per_identity(panel, score, row["baseline"], None if row["baseline"] == "lower" else size)
        names = sorted(ours)
        test = stats.ttest_rel([ours[n] for n in names], [theirs[n] for n in names])
        low, high = test.confidence_interval(0.95)
        np.testing.assert_allclose([float(row["low"]), float(row["high"])], [low, high], rtol=1e-8, atol=1e-9)
        negative = score == "forgetting" or (row["metric"] == "lpips" and score != "bwt")
        assert row["better_when"] == ("negative" if negative else "positive")
        decided = "better" if (high < 0) == negative else "worse"
        assert row["verdict"] == ("interval includes 0" if low <= 0 <= high else decided)


@pytest.mark.usefixtures("few_figures")
def test_equal_rows_give_equal_bytes(tmp_path):
    study = Study(tmp_path / "study")
    names = ("summary.csv", "paired.csv", "tables.md")
    report.write_report(study.folder)
    first = [(study.folder / "report" / name).read_bytes() for name in names]
    for path in (study.folder / "results").glob("*.parquet"):  # same rows, in other compression and row groups
        pq.write_table(pq.read_table(path), path, compression="zstd", row_group_size=5)
    report.write_report(study.folder)
    assert [(study.folder / "report" / name).read_bytes() for name in names] == first


@pytest.mark.usefixtures("few_figures")
def test_tables_read_well(tmp_path):
    study = Study(tmp_path / "study")
    summary = report.write_report(study.folder)
    text = spoken(summary)
    assert max(map(len, text.splitlines())) <= 100
    forgetting = study.per_identity(("reconstruction", "lpips"), "forgetting", "lower", None)
    low, high = interval_of(forgetting.values())
    shown = f"{np.mean(list(forgetting.values())):.4f} [{low:.4f}, {high:.4f}]"
    lines = [line for line in text.splitlines() if "lower" in line and shown in line]
    assert lines and lines[0].count(shown) == 2, "lower stands in both buffer-size columns"
    assert "n = 3 identities" in text and "new identities" in text and JOINT_NOTE in text
    for title in ("Reconstruction LPIPS", "Reconstruction ID", "Reconstruction PSNR", "Synthesis ID"):
        assert title in text
    aip = text[text.index("AIP (lower is better)") : text.index("Forgetting (lower is better)")]
    assert "er_hull" in aip and "upper" not in aip
    markdown = (study.folder / "report" / "tables.md").read_text()
    assert shown in markdown and JOINT_NOTE in markdown and "Missing" not in markdown
    narrow = spoken(summary, width=60)
    assert max(map(len, narrow.splitlines())) <= 60 and "…" not in narrow


@pytest.mark.usefixtures("few_figures")
def test_missing_and_failed_trials_are_named_and_counted(tmp_path):
    skip = ("ann-er_hull-k3-lr0.001-s0", "bob-lower-lr0.001-s0")
    study = Study(tmp_path / "study", seeds=(0,), skip=skip)
    (study.folder / "failures.json").write_text(
        json.dumps(
            {skip[1]: "photo /data/bob/1.png\nis [unreadable]", "cat-upper-lr0.001-s0": "old failure, run since"}
        )
    )
    summary = report.write_report(study.folder)
    assert [(m.trial, m.reason) for m in summary.missing] == [
        (skip[1], "failed: photo /data/bob/1.png is [unreadable]"),
        (skip[0], "not finished"),
    ]
    text, markdown = spoken(summary, width=120), (study.folder / "report" / "tables.md").read_text()
    for said in (text, markdown):
        assert "2 of 18 trials are missing" in said
        assert all(f"{m.trial}: {m.reason}" in said for m in summary.missing)
        assert " n=2 " in said
    rows = {
        (row["protocol"], row["metric"], row["score"], row["strategy"], row["buffer_size"]): row
        for row in summary.scores.to_pylist()
    }
    cell = rows["reconstruction", "lpips", "aip", "er_hull", 3]
    assert (cell["n_identities"], cell["n_planned"]) == (2, 3)
    assert rows["reconstruction", "lpips", "aip", "er_hull", 5]["n_identities"] == 3
    paired = {
        (row["metric"], row["protocol"], row["score"], row["strategy"], row["buffer_size"], row["baseline"]): row
        for row in summary.paired.to_pylist()
    }
    panel = ("reconstruction", "lpips")
    ours = study.per_identity(panel, "aip", "er_hull", 3)
    theirs = study.per_identity(panel, "aip", "er_rand", 3)
    found = paired["lpips", "reconstruction", "aip", "er_hull", 3, "er_rand"]
    assert found["n_identities"] == 2
    assert found["mean"] == pytest.approx(np.mean([ours[n] - theirs[n] for n in ("bob", "cat")]))
    only = paired["lpips", "reconstruction", "aip", "er_hull", 3, "lower"]  # cat alone has both
    assert (only["n_identities"], only["low"], only["verdict"]) == (1, None, "no interval")


def test_a_missing_seed_is_told_apart_from_a_missing_identity(tmp_path):
    study = Study(tmp_path / "study", skip=("ann-er_hull-k3-lr0.001-s1",))
    summary = summarise(study.folder)
    row = next(r for r in summary.scores.to_pylist() if (r["strategy"], r["buffer_size"]) == ("er_hull", 3))
    assert (row["n_identities"], row["n_seeds"], row["n_trials"], row["n_planned"]) == (3, 1, 5, 6)
    assert "5/6 trials" in spoken(summary)


def test_a_trial_with_a_hole_is_left_out_by_name(tmp_path):
    study = Study(tmp_path / "study", seeds=(0,))
    name = "ann-er_hull-k3-lr0.001-s0"
    rows = pq.read_table(study.results(name)).to_pylist()
    rows = [r for r in rows if not (r["metric"] == "lpips" and (r["train_timestamp"], r["test_timestamp"]) == (2, 0))]
    rows = [r for r in rows if r["metric"] != "psnr"]
    pq.write_table(pa.Table.from_pylist(rows, schema=RESULT_SCHEMA), study.results(name))
    summary = summarise(study.folder)
    ((missing,), counts) = summary.missing, {}
    assert missing.trial == name
    assert "reconstruction lpips: missing cells R[2, 0]" in missing.reason
    assert "reconstruction psnr: no rows" in missing.reason
    for row in summary.scores.to_pylist():
        counts[row["protocol"], row["metric"], row["strategy"], row["buffer_size"]] = row["n_identities"]
    assert counts["reconstruction", "lpips", "er_hull", 3] == 2
    assert counts["reconstruction", "psnr", "er_hull", 3] == 2
    assert counts["reconstruction", "id", "er_hull", 3] == 3


@pytest.mark.usefixtures("few_figures")
def test_one_identity_has_no_interval_in_words(tmp_path):
    study = Study(tmp_path / "study", identities=("ann",), seeds=(0,))
    summary = report.write_report(study.folder)
    assert all(row["low"] is None and row["high"] is None for row in summary.scores.to_pylist())
    for said in (" ".join(spoken(summary).split()), (study.folder / "report" / "tables.md").read_text()):
        assert "no interval can be given" in said and "new identities" in said
        assert "nan" not in said
    assert all(row["low"] == "" for row in read_csv(study.folder / "report" / "summary.csv"))


def test_two_learning_rates_are_a_key(tmp_path):
    study = Study(tmp_path / "study", identities=("ann", "bob"), seeds=(0,), rates=(0.001, 0.01))
    summary = summarise(study.folder)
    for row in summary.scores.to_pylist():
        values = study.per_identity(
            (row["protocol"], row["metric"]), row["score"], row["strategy"], row["buffer_size"], row["learning_rate"]
        )
        assert row["mean"] == pytest.approx(np.mean(list(values.values())))
    assert "er_hull lr=0.01" in spoken(summary)


def test_one_timestamp_has_no_forgetting(tmp_path):
    study = Study(tmp_path / "study", size=1)
    summary = summarise(study.folder)
    assert set(summary.scores["score"].to_pylist()) == {"aip", "final"}
    assert "not defined" in spoken(summary)


def test_nothing_finished_says_so(tmp_path, capsys):
    study = Study(tmp_path / "study", seeds=(0,))
    for path in (study.folder / "results").glob("*.parquet"):
        path.unlink()
    assert cli_report.main([str(study.folder)]) == 1
    out = capsys.readouterr().out
    assert "No trial of 'test_study' is in the numbers yet" in out
    assert "18 of 18 trials are missing" in out and "more: see tables.md" in out
    assert read_csv(study.folder / "report" / "summary.csv") == []
    assert (study.folder / "report" / "tables.md").read_text().count("not finished") == 18


def test_results_of_another_plan_are_left_out_and_contradictions_refused(tmp_path):
    study = Study(tmp_path / "study", seeds=(0,))
    before = summarise(study.folder)
    rows = pq.read_table(study.results("ann-lower-lr0.001-s0")).to_pylist()
    other = [row | {"trial": "zoe", "identity": "zoe"} for row in rows]
    pq.write_table(pa.Table.from_pylist(other, schema=RESULT_SCHEMA), study.results("zoe"))
    after = summarise(study.folder)
    assert after.scores.equals(before.scores) and after.left_out == ("zoe",) and after.complete
    assert "left out: zoe" in spoken(after)
    wrong = [row | {"seed": 5} for row in rows]
    pq.write_table(pa.Table.from_pylist(wrong, schema=RESULT_SCHEMA), study.results("ann-lower-lr0.001-s0"))
    with pytest.raises(UserError, match="ann-lower-lr0.001-s0"):
        summarise(study.folder)


@pytest.mark.usefixtures("few_figures")
def test_exit_codes_and_one_line_errors(tmp_path, capsys):
    good = Study(tmp_path / "good", identities=("ann", "bob"), seeds=(0,)).folder
    short = Study(tmp_path / "short", seeds=(0,), skip=("ann-lower-lr0.001-s0",)).folder
    assert cli_report.main([str(good)]) == 0
    assert cli_report.main([str(good), str(short)]) == 1
    capsys.readouterr()
    (tmp_path / "empty").mkdir()
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "study.yaml").write_text("trials: [{trial: a")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "study.yaml").write_text("name: odd")
    for bad in ("nowhere", "empty", "torn", "odd"):
        assert cli_report.main([str(tmp_path / bad)]) == 2
        out, err = capsys.readouterr()
        assert out == "" and len(err.splitlines()) == 1 and str(tmp_path / bad) in err
    assert cli_report.main([str(tmp_path / "nowhere"), str(good)]) == 2
    assert "test_study" in capsys.readouterr().out, "the good one is still reported"


def test_works_where_torch_and_ray_are_not_installed(tmp_path):
    study = Study(tmp_path / "study", identities=("ann", "bob"), seeds=(0,))
    program = textwrap.dedent(
        """
        import runpy, sys

        class Blocker:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in ("torch", "ray"):
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        sys.meta_path.insert(0, Blocker())
        runpy.run_module("clstudy.report", run_name="__main__", alter_sys=True)
        """
    )
    for arguments, expected in ((["--help"], "STUDY"), ([str(study.folder)], "Reconstruction LPIPS")):
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        assert expected in done.stdout
    assert (study.folder / "report" / "tables.md").is_file()
