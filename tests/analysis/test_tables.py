"""Tables of one and several studies: marks, published values, LaTeX, costs, files; against loops and scipy."""

from __future__ import annotations

import html
import io
import itertools
import json
import re
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import assume, example, given
from hypothesis import strategies as st
from scipy import optimize, stats

from benchmarks.analysis import write_study
from clstudy.analysis import report
from clstudy.analysis.efficiency import StrategyCost, efficiency_table, gap_interval, trial_costs
from clstudy.analysis.limits import not_concluded
from clstudy.analysis.matrix import Trial
from clstudy.analysis.notes import notes
from clstudy.analysis.paper import escape_latex, paper_tables
from clstudy.analysis.published import SETTINGS, Practice, comparable, published, read_practice
from clstudy.analysis.score_tables import Column
from clstudy.analysis.summary import combine, curve_table, read_studies, summarise, summarise_many
from clstudy.analysis.tables import efficiency_markdown, table_files, to_latex, to_markdown
from clstudy.errors import UserError
from clstudy.records.rows import RESULT_SCHEMA, STAGE_KEYS
from clstudy.storage.content_addressed_store import STAGE_FILES, StudyStore, digest_of
from tests.analysis.test_report import PANELS, Study, spoken

LPIPS = ("reconstruction", "lpips")
HIGHER = {"lpips": False, "id": True, "psnr": True}


def rewrite(study, **entries):
    """Change entries of study.yaml."""
    path = study.folder / "study.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | entries))


def shift(study, strategy, buffer_size, by):
    """Add ``by`` to all LPIPS values of a strategy, in the rows and in the study's own arrays."""
    for spec in study.trials:
        if (spec["strategy"], spec["buffer_size"]) != (strategy, buffer_size):
            continue
        path = study.results(spec["trial"])
        table = pq.read_table(path)
        moved = pc.add(table["value"], pc.if_else(pc.equal(table["metric"], "lpips"), by, 0.0))
        pq.write_table(table.set_column(table.column_names.index("value"), "value", moved), path)
        study.r[spec["trial"]][LPIPS] = study.r[spec["trial"]][LPIPS] + by


# --- best of a column ---------------------------------------------------------------------------------------------


def best_by_scipy(study):
    """The best of every column where it beats all others but upper, by loops and scipy's paired test."""
    expected = {}
    for panel, score, size in itertools.product(PANELS, ("aip", "forgetting", "final"), (3, 5)):
        rivals = {name: study.per_identity(panel, score, name, size) for name in ("er_rand", "er_hull")}
        rivals["lower"] = study.per_identity(panel, score, "lower", None)
        sign = 1 if HIGHER[panel[1]] and score != "forgetting" else -1
        for name, mine in rivals.items():
            tests = [
                stats.ttest_rel([sign * mine[p] for p in mine], [sign * other[p] for p in mine]).confidence_interval(
                    0.95
                )
                for rival, other in rivals.items()
                if rival != name
            ]
            if all(test.low > 0 for test in tests):
                expected[Column(*panel, score, 0.001, size)] = name
    return expected


def test_best_is_marked_exactly_where_every_paired_interval_excludes_zero(tmp_path):
    study = Study(tmp_path / "study", identities=("ann", "bob", "cat", "dan"))
    shift(study, "er_hull", 3, -5.0)  # apart from all others
    shift(study, "er_rand", 5, -5.0)  # best of its column, but so is the next one
    shift(study, "er_hull", 5, -5.0)
    shift(study, "upper", None, -9.0)  # does not compete
    summary, expected = summarise(study.folder), best_by_scipy(study)
    assert summary.best == expected and expected[Column(*LPIPS, "final", 0.001, 3)] == "er_hull"
    assert expected[Column(*LPIPS, "aip", 0.001, 3)] == "er_hull" and Column(*LPIPS, "aip", 0.001, 5) not in expected
    marked = [line for line in (to_markdown(summary)).splitlines() if "**" in line and line.startswith("| er_hull")]
    assert marked and all("best" not in line for line in marked)
    assert re.search(r"er_hull .*\] best", spoken(summary, 120)) and r"er\_hull & $\mathbf{" in to_latex(summary)


def test_a_strategy_without_a_buffer_competes_in_every_column(tmp_path):
    study = Study(tmp_path / "study", identities=("ann", "bob", "cat", "dan"))
    shift(study, "lower", None, -5.0)
    shift(study, "er_hull", 3, -3.0)  # best among buffers, and still not best
    summary = summarise(study.folder)
    assert summary.best == best_by_scipy(study)
    assert [summary.best[Column(*LPIPS, "aip", 0.001, size)] for size in (3, 5)] == ["lower", "lower"]
    (lower,) = paper_tables(summary)[0].blocks[0][1]
    assert lower.cells[0].best


def test_nothing_is_marked_without_an_interval_or_a_rival(tmp_path):
    one = Study(tmp_path / "one", identities=("ann",))
    shift(one, "er_hull", 3, -5.0)
    assert summarise(one.folder).best == {}
    equal = Study(tmp_path / "equal")
    for spec in equal.trials:  # the same buffers, hence the same numbers: a difference of exactly 0
        if spec["strategy"] == "er_hull":
            twin = spec["trial"].replace("er_hull", "er_rand")
            rows = [row | spec for row in pq.read_table(equal.results(twin)).to_pylist()]
            pq.write_table(pa.Table.from_pylist(rows, schema=RESULT_SCHEMA), equal.results(spec["trial"]))
    assert not {name for name in summarise(equal.folder).best.values() if name != "lower"}
    assert "Nothing is marked best" in to_markdown(replace(summarise(equal.folder), best={}))


# --- the paper's layout and its values -----------------------------------------------------------------------------


def test_published_values_are_those_printed():
    table = published(SETTINGS["mystyle"])
    assert table["reconstruction", "lpips", "aip", "lower", None] == 0.117
    assert table["reconstruction", "id", "forgetting", "er_hull", 3] == 0.047
    assert table["synthesis", "fid", "aip", "er_rand", 10] == 79.2
    assert table["synthesis", "fid", "final", "upper", None] == 82.1
    assert not any(score == "aip" for _, _, score, strategy, _ in table if strategy == "upper")
    # lower, 3 strategies at 3 sizes: 2 scores; upper: 1; 2 protocols of 2 metrics
    assert len(table) == 2 * 2 * (2 * (1 + 9) + 1)
    assert published(SETTINGS["my3dgen"])["synthesis", "fid", "aip", "er_hull", 3] == 135.1


def test_only_a_repetition_of_the_papers_experiment_stands_beside_it():
    assert comparable("mystyle", [10, 10])[0] is SETTINGS["mystyle"]
    for profile, timestamps, said in (
        ("embedded", [10], "profile embedded is not comparable with the paper's"),
        (None, [10], "not name"),
        ("mystyle", [10, 5], "T = 5 here and 10 in the paper"),
    ):
        setting, sentence = comparable(profile, timestamps)
        assert setting is None and said in sentence


FIXED = (
    "other people and photos",
    "stretched to their own minimum",
    "to 3 decimals",
    "face crop",
    "IR-SE-50",
    "they always come from the encoder",
)
CHOICES = {
    ("inversion", "latent_space", "w_plus"): "inverted in W, there in W+",
    ("evaluation", "synthesis_weights", "normalised"): "uniform on the simplex",
    ("trainer", "short_batch_replay", "as_new"): "the last batch of an epoch",
}


@given(st.sets(st.sampled_from(sorted(CHOICES))))
def test_the_note_names_every_difference_that_remains_and_no_other(alike):
    profile = {"name": "mystyle", "inversion": {"steps": 800}}
    for part, setting, value in alike:
        profile.setdefault(part, {})[setting] = value
    _, note = comparable("mystyle", [10], read_practice(profile), {"lpips", "id"})
    assert all(said in note for said in FIXED) and "compare differences between strategies, not levels" in note
    assert {choice for choice, said in CHOICES.items() if said in note} == set(CHOICES) - alike
    assert note.count("; (") == len(FIXED) + len(CHOICES) - len(alike) - 1 and "columns as published" not in note


@pytest.mark.parametrize("profile", ["mystyle", None, {"name": "mystyle"}, {"inversion": None}, {"inversion": 3}])
def test_a_study_that_does_not_say_how_it_worked_worked_as_older_ones_did(profile):
    assert read_practice(profile) == Practice()


def test_a_setting_that_is_no_name_is_an_error_of_study_yaml(tmp_path):
    study = Study(tmp_path / "study", identities=("ann",), seeds=(0,))
    rewrite(study, profile={"name": "mystyle", "trainer": {"short_batch_replay": [1]}})
    with pytest.raises(UserError, match=r"study.yaml cannot be understood .*profile.trainer.short_batch_replay is"):
        summarise(study.folder)


def test_the_note_follows_what_is_measured():
    _, without_id = comparable("mystyle", [10], Practice(), {"lpips"})
    assert "face crop" not in without_id and "IR-SE-50" not in without_id
    _, some = comparable("mystyle", [10], Practice(), {"lpips", "id", "lpips_as_published"})
    assert some.count("not so in the columns as published, LPIPS: they") == 2
    _, both = comparable("mystyle", [10], Practice(), {"lpips", "id", "lpips_as_published", "id_as_published"})
    assert both.count("not so in the columns as published, LPIPS, ID: they") == 2
    assert both.count("not so in the columns as published, ID: they") == 2


def scored_as_published(study):
    """Give every result of a study the metrics of reconstruction and synthesis as published, 0.01 higher."""
    twins = {"lpips": "lpips_as_published", "id": "id_as_published"}
    for spec in study.trials:
        rows = pq.read_table(study.results(spec["trial"])).to_pylist()
        more = [
            row | {"metric": twins[row["metric"]], "value": row["value"] + 0.01}
            for row in rows
            if row["metric"] in twins
        ]
        pq.write_table(pa.Table.from_pylist(rows + more, schema=RESULT_SCHEMA), study.results(spec["trial"]))


@pytest.mark.usefixtures("few_figures")
def test_published_values_stand_beside_the_columns_that_are_scored_their_way(tmp_path):
    study = Study(tmp_path / "study", identities=("ann", "bob"), seeds=(0,), rates=(0.0003,), size=10)
    rewrite(study, profile={"name": "mystyle", "inversion": {"latent_space": "w_plus"}})
    scored_as_published(study)
    summary = summarise(study.folder)
    beside = {(row["protocol"], row["metric"]) for row in summary.scores.to_pylist() if row["published"] is not None}
    twins = [("reconstruction", "lpips_as_published"), ("reconstruction", "id_as_published")]
    assert beside == {*twins, ("synthesis", "id_as_published")}
    panels = list(dict.fromkeys((row["protocol"], row["metric"]) for row in summary.scores.to_pylist()))
    assert panels[: len(PANELS)] == PANELS, "the main metric is an ordinary one"
    reconstruction, synthesis = paper_tables(summary)
    first = [metric for _, metric in reconstruction.columns[:4]]
    assert first == ["lpips", "lpips_as_published", "id", "id_as_published"]
    assert reconstruction.heads[:4] == ("LPIPS ×10 ↓", "LPIPS ×10 as published ↓", "ID ×10 ↑", "ID ×10 as published ↑")
    assert [metric for _, metric in synthesis.columns[:2]] == ["id", "id_as_published"]
    ours, theirs = next(rows for title, rows in reconstruction.blocks if title == "joint training")
    assert float(ours.cells[1].value) == pytest.approx(float(ours.cells[0].value) + 0.1, abs=0.002)
    assert [cell.value for cell in theirs.cells[:4]] == ["–", "0.89", "–", "9.45"]
    report.write_report(study.folder)
    page = html.unescape((study.folder / "report" / "index.html").read_text())
    latex = (study.folder / "report" / "tables.tex").read_text()
    for text in (page, (study.folder / "report" / "tables.md").read_text(), latex, "\n".join(notes(summary))):
        assert "compare differences between strategies, not levels" in text
        assert "not so in the columns as published, LPIPS, ID" in text and "inverted in W, there" not in text
        assert "they always come from the encoder" in text
    check_latex(latex)
    assert "Reconstruction LPIPS as published" in page


def test_published_values_stand_beside_ours_at_the_papers_learning_rate(tmp_path):
    study = Study(tmp_path / "study", identities=("ann", "bob"), seeds=(0,), rates=(0.0003, 0.003), size=10)
    rewrite(study, profile={"name": "mystyle"})
    summary = summarise(study.folder)
    beside = {
        (row["protocol"], row["metric"], row["score"], row["strategy"], row["buffer_size"]): row["published"]
        for row in summary.scores.to_pylist()
        if row["published"] is not None and row["learning_rate"] == 0.0003
    }
    assert beside[(*LPIPS, "aip", "er_hull", 3)] == 0.099 and beside[(*LPIPS, "final", "upper", None)] == 0.089
    assert len(beside) == 3 * (2 * (1 + 4) + 1)  # LPIPS and ID, synthesis ID; the paper has no PSNR
    assert not any(row["published"] for row in summary.scores.to_pylist() if row["learning_rate"] == 0.003)
    ours = [table for table in paper_tables(summary) if "0.0003" in table.title]
    assert len(ours) == 2 and len(paper_tables(summary)) == 4
    (upper, theirs) = next(rows for title, rows in ours[0].blocks if title == "joint training")
    assert theirs.published and [cell.value for cell in theirs.cells] == ["0.89", "9.45", "–", "–", "–", "–"]
    final = np.mean(list(study.per_identity(LPIPS, "final", "upper", None, 0.0003).values()))
    assert upper.cells[0].value == f"{10 * final:.3f}" and upper.cells[2].value == "–"
    assert "(paper 0.0990)" in to_markdown(summary) and r"\textit{er\_hull, published} & $0.99$" in to_latex(summary)
    assert any("compare differences between strategies, not levels" in note for note in notes(summary))


def test_the_papers_layout_holds_every_planned_strategy_at_ten_times_its_value(tmp_path):
    study = Study(
        tmp_path / "study", skip=[f"{p}-er_hull-k3-lr0.001-s{s}" for p in ("ann", "bob", "cat") for s in (0, 1)]
    )
    summary = summarise(study.folder)
    reconstruction, synthesis = paper_tables(summary)
    assert reconstruction.heads == ("LPIPS ×10 ↓", "ID ×10 ↑", *["LPIPS ×10 ↓", "ID ×10 ↓"] * 2)
    assert synthesis.heads == ("ID ×10 ↑", "ID ×10 ↓", "ID ×10 ↓")
    blocks = {title: [row.label for row in rows] for title, rows in reconstruction.blocks}
    assert blocks == {
        "no buffer": ["lower"], "K = 3": ["er_rand", "er_hull"], "K = 5": ["er_rand", "er_hull"],
        "joint training": ["upper"],
    }  # fmt: skip
    (_, at_three, at_five, _) = reconstruction.blocks
    assert {cell.value for cell in at_three[1][1].cells} == {"missing"}
    values = list(study.per_identity(LPIPS, "forgetting", "er_hull", 5).values())
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    cell = at_five[1][1].cells[2]
    assert (cell.value, cell.interval) == (f"{10 * np.mean(values):.3f}", f"[{10 * low:.3f}, {10 * high:.3f}]")


def test_minus_bwt_stands_beside_forgetting_in_every_table(tmp_path):
    study = Study(tmp_path / "study")
    summary = summarise(study.folder)
    values = [-value for value in study.per_identity(LPIPS, "bwt", "er_hull", 5).values()]
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    shown = f"{np.mean(values):.4f} [{low:.4f}, {high:.4f}]"
    markdown, latex = to_markdown(summary), to_latex(summary)
    blocks = re.findall(r"\*\*([^*]+) \((?:higher|lower) is better\)\*\*", markdown)
    assert blocks[:4] == ["AIP", "Forgetting", "−BWT", "Final performance"]
    assert shown in markdown and "**−BWT minus lower's (negative is better)**" in markdown
    assert f"{10 * np.mean(values):.3f}" in latex and "$-$BWT" in latex
    check_latex(latex)
    assert shown.split(" [")[0] in spoken(summary) and "−BWT (lower is better)" in spoken(summary)
    assert any(note.startswith("−BWT stands beside Forgetting") for note in notes(summary))
    theirs = study.per_identity(LPIPS, "bwt", "lower", None).values()
    low, high = stats.ttest_rel(values, [-value for value in theirs]).confidence_interval(0.95)
    assert f"[{low:.4f}, {high:.4f}]" in markdown


# --- LaTeX ---------------------------------------------------------------------------------------------------------


def check_latex(text):
    """Environments nest, braces balance, every row has the columns its tabular declares, nothing special is bare."""
    text = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    opened = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        assert kind == "begin" or opened.pop() == name
        if kind == "begin":
            opened.append(name)
    assert not opened
    plain = re.sub(r"\\[\\{}&%$#_]", "", text)
    depth = list(itertools.accumulate({"{": 1, "}": -1}.get(sign, 0) for sign in plain))
    assert depth[-1] == 0 and min(depth) >= 0 and plain.count("$") % 2 == 0
    assert not set(re.sub(r"\$[^$]*\$", "", plain)) & set("%#_^~"), "bare special characters outside of formulas"
    for spec, body in re.findall(r"\\begin\{tabular\}\{(\w+)\}(.*?)\\end\{tabular\}", text, re.DOTALL):
        rows = [line.removesuffix(r" \\") for line in body.splitlines() if line.endswith(r" \\")]
        assert len(rows) > 3
        for row in rows:
            cells = re.split(r"(?<!\\)&", row)
            spans = [int(n) for cell in cells for n in re.findall(r"\\multicolumn\{(\d+)\}", cell)]
            assert len(cells) - len(spans) + sum(spans) == len(spec), row
        assert [body.count(rule) for rule in (r"\toprule", r"\bottomrule")] == [1, 1]


def test_latex_is_well_formed_whatever_a_study_is_called(tmp_path):
    study = Study(tmp_path / "study", skip=("ann-er_hull-k3-lr0.001-s0", "ann-er_hull-k3-lr0.001-s1"))
    rewrite(study, name=r"50% of {a_b} & $c ~ \d^e #1 [f]")
    text = to_latex(summarise(study.folder))
    check_latex(text)
    assert r"\caption{50\% of \{a\_b\} \& \$c \textasciitilde{} \textbackslash{}d\textasciicircum{}e \#1 {[}f]" in text
    assert "(n=2)" in text and r"upper$^{*}$" in text and "new identities" in text
    assert text.count(r"\begin{table}") == 2
    with pytest.raises(AssertionError):
        check_latex(text.replace(r"er\_rand", "er_rand", 1))


def test_latex_of_nothing_is_a_comment_that_says_so(tmp_path):
    study = Study(tmp_path / "study", seeds=(0,))
    for path in (study.folder / "results").glob("*.parquet"):
        path.unlink()
    text = to_latex(summarise(study.folder))
    assert "nothing can be concluded" in text and all(line.startswith("%") for line in text.splitlines())


@given(st.text(st.characters(codec="ascii"), max_size=20))
def test_escaped_text_has_no_bare_special_character(text):
    escaped = escape_latex(text)
    assert "\n" not in escaped
    words = r"\\text(backslash|asciitilde|asciicircum|less|greater|bar)\{\}|\{\[\}|\\[&%$#_{}]"
    rest = re.sub(words, "", escaped)
    assert not set(rest) & set("\\{}[&%$#_^~<>|")


# --- gap, gain and cost --------------------------------------------------------------------------------------------

people = st.lists(st.tuples(*[st.floats(0, 1)] * 3), min_size=2, max_size=6)


@given(people)
@example([(0.0, 1.0, 0.0), (0.0, 0.875, 0.0)])
def test_the_gaps_interval_is_every_share_that_a_t_test_does_not_reject(numbers):
    final, lower, upper = np.round(np.array(numbers), 3).T
    gap = upper - lower
    assume(gap.std() > 1e-3 and (final - lower).std() > 1e-3)
    bounds = stats.ttest_1samp(gap, 0).confidence_interval(0.95)
    found = gap_interval(final, lower, upper)
    if bounds.low <= 0 <= bounds.high:
        assert found is None
        return
    assume(abs(gap.mean()) > 0.01)

    def rejected(share):  # below 0: not rejected at 5%
        values = final - lower - share * gap
        if not values.any():  # exactly this share in everybody: the test divides 0 by 0
            return 0.05 - 1
        return 0.05 - stats.ttest_1samp(values, 0).pvalue

    assert found.mean == pytest.approx((final - lower).mean() / gap.mean())
    for end, outward in ((found.low, -1.0), (found.high, 1.0)):
        step = outward * max(1.0, abs(found.mean))
        while rejected(found.mean + step) < 0:
            step *= 2
        limit = optimize.brentq(rejected, found.mean, found.mean + step, xtol=1e-12)
        assert end == pytest.approx(limit, rel=1e-5, abs=1e-6)


def test_gap_of_one_identity_has_no_interval_and_wrong_input_is_refused():
    one = gap_interval([0.2], [0.5], [0.1])
    assert one.mean == pytest.approx(0.75) and np.isnan(one.low) and one.n == 1
    assert gap_interval([0.2], [0.5], [0.5]) is None
    for bad in (([0.1, 0.2], [0.1], [0.1]), ([], [], []), ([np.nan], [0.1], [0.2])):
        with pytest.raises(ValueError):
            gap_interval(*bad)


def test_gain_and_gap_equal_loops_in_both_directions(tmp_path):
    study = Study(tmp_path / "study", identities=("ann", "bob", "cat", "dan"))
    shift(study, "upper", None, -3.0)
    shift(study, "er_hull", 5, -2.0)
    table = efficiency_table(summarise(study.folder), costs={})
    assert table.num_rows == 4 * 6
    for row in table.to_pylist():
        panel = (row["protocol"], row["metric"])
        sign = 1 if HIGHER[row["metric"]] else -1
        mine, lower, upper = (
            np.array(list(study.per_identity(panel, "final", name, size).values()))
            for name, size in ((row["strategy"], row["buffer_size"]), ("lower", None), ("upper", None))
        )
        assert row["gain"] == pytest.approx(np.mean(sign * (mine - lower)), abs=1e-12)
        if row["strategy"] != "lower":
            test = stats.ttest_rel(sign * mine, sign * lower).confidence_interval(0.95)
            np.testing.assert_allclose([row["gain_low"], row["gain_high"]], test, rtol=1e-8, atol=1e-9)
        gap = stats.ttest_rel(upper, lower).confidence_interval(0.95)
        if gap.low <= 0 <= gap.high:
            assert row["gap_closed"] is None and "cannot be told apart" in row["note"]
        elif sign * np.mean(upper - lower) < 0:
            assert row["gap_closed"] is None and "upper is worse than lower" in row["note"]
        else:
            assert row["gap_closed"] == pytest.approx(np.mean(mine - lower) / np.mean(upper - lower), abs=1e-12)
        assert row["photos"] is row["seconds"] is row["gain_per_photo"] is None
    by_name = {
        (r["metric"], r["strategy"], r["buffer_size"]): r for r in table.to_pylist() if r["protocol"] == LPIPS[0]
    }
    assert by_name["lpips", "er_hull", 5]["gap_closed"] is not None, "the planted gap is seen"
    assert by_name["lpips", "upper", None]["gap_closed"] == 1 and by_name["lpips", "lower", None]["gap_closed"] == 0


def test_a_gap_that_points_the_wrong_way_is_none(tmp_path):
    study = Study(tmp_path / "study")
    shift(study, "upper", None, +5.0)
    rows = [row for row in efficiency_table(summarise(study.folder), costs={}).to_pylist() if row["metric"] == "lpips"]
    assert rows and all(row["gap_closed"] is None and "upper is worse" in row["note"] for row in rows)


def test_without_upper_there_is_a_gain_and_no_gap_without_lower_nothing(tmp_path):
    everyone = list(itertools.product(("ann", "bob", "cat"), (0, 1)))
    no_upper = Study(tmp_path / "a", skip=[f"{p}-upper-lr0.001-s{s}" for p, s in everyone])
    table = efficiency_table(summarise(no_upper.folder), costs={})
    assert table.num_rows == 4 * 5 and table["gap_closed"].null_count == table.num_rows
    assert set(table["note"].to_pylist()) == {"no gap without upper"}
    no_lower = summarise(Study(tmp_path / "b", skip=[f"{p}-lower-lr0.001-s{s}" for p, s in everyone]).folder)
    assert efficiency_table(no_lower).num_rows == 0
    assert "Nothing can be said" in efficiency_markdown(no_lower)
    assert any("lower" in said and "finished" in said for said in not_concluded(no_lower))


def leave_costs(study, stages):
    """Write stages and timings as a study does; keys follow from names.

    ``stages``: trial -> list of (name, request, seconds), for one with hooks also the bytes held frozen.
    """
    root = study.folder
    (root / "timings").mkdir()
    header = json.dumps({"train": {"dtype": "F32", "shape": [8, 256], "data_offsets": [0, 8192]}}).encode()
    anchors = len(header).to_bytes(8, "little") + header + bytes(8192)
    store = StudyStore(root)
    store.anchors.put(digest_of({"anchors": "of somebody"}), {"anchors.safetensors": anchors})
    for trial, entries in stages.items():
        path = study.results(trial)
        table = pq.read_table(path)
        keys = json.dumps([digest_of({"stage": name}) for name, *_ in entries])
        pq.write_table(table.replace_schema_metadata({STAGE_KEYS: keys}), path)
        for name, request, seconds, *frozen in entries:
            key = digest_of({"stage": name})
            held = {"frozen_bytes": frozen[0]} if frozen else {}
            document = json.dumps({"request": request, **held}).encode()
            store.stages.put(key, dict.fromkeys(STAGE_FILES, b"") | {"stage.json": document})
            (root / "timings" / f"{key}.json").write_text(json.dumps({"seconds": seconds, "photos": 1}))


def test_costs_are_what_the_study_left_behind(tmp_path):
    study = Study(tmp_path / "study", identities=("ann",), seeds=(0,))
    base = {"image_size": 64, "new": [[2, ["a"] * 8]], "replay": [], "stream": [0, "ann", 2], "generator": "any"}
    base |= {"fingerprint": {}, "anchored": [], "tested": []}
    first = ("shared0", base, 10.0)
    fisher = digest_of({"learned": "fisher"})
    StudyStore(study.folder).learned.put(fisher, {"learned.safetensors": bytes(1000)})
    leave_costs(
        study,
        {
            "ann-lower-lr0.001-s0": [first, ("lower1", base, 5.0)],
            "ann-er_rand-k3-lr0.001-s0": [first, ("rand1", base | {"replay": [[0, "x"], [0, "y"], [1, "z"]]}, 7.0)],
            "ann-er_hull-k3-lr0.001-s0": [
                first,
                ("hull1", base | {"support": {"items": [[0, "x"], [1, "y"]], "learned": fisher}}, 1.0, 400),
            ],
            "ann-upper-lr0.001-s0": [("upper", base | {"new": [[0, ["a"] * 8], [1, ["b"] * 8]]}, 20.0)],
        },
    )
    (study.folder / "timings" / f"{digest_of({'stage': 'upper'})}.json").unlink()
    summary = summarise(study.folder)
    costs = trial_costs(study.folder, summary.study.trials)
    photo, latent = 64 * 64 * 3, 1024
    assert costs["ann-lower-lr0.001-s0"] == StrategyCost(photos=0, megabytes=0, frozen_megabytes=0, seconds=15)
    assert costs["ann-er_rand-k3-lr0.001-s0"] == StrategyCost(
        photos=3, megabytes=3 * (photo + latent) / 1e6, frozen_megabytes=0, seconds=17
    )
    assert costs["ann-er_hull-k3-lr0.001-s0"] == StrategyCost(
        photos=0, megabytes=(2 * latent + 1000) / 1e6, frozen_megabytes=400 / 1e6, seconds=11
    )
    upper = costs["ann-upper-lr0.001-s0"]
    assert (upper.photos, upper.megabytes) == (16, 16 * (photo + latent) / 1e6) and np.isnan(upper.seconds)
    assert "ann-er_rand-k5-lr0.001-s0" not in costs
    rows = {
        (r["strategy"], r["buffer_size"]): r for r in efficiency_table(summary).to_pylist() if r["metric"] == "psnr"
    }
    rand = rows["er_rand", 3]
    assert rand["gain_per_photo"] == pytest.approx(rand["gain"] / 3)
    assert rows["er_hull", 3]["frozen_megabytes"] == 4e-4 and rand["frozen_megabytes"] == 0
    assert rand["gain_per_second"] == pytest.approx(rand["gain"] / 17)
    assert rand["gap_per_megabyte"] == pytest.approx(rand["gap_closed"] / (3 * (photo + latent) / 1e6))
    assert rows["er_hull", 3]["gain_per_photo"] is None, "nothing is divided by no photo"
    assert rows["upper", None]["seconds"] is rows["er_rand", 5]["photos"] is None
    assert "| er_rand | 3 |" in efficiency_markdown(summary) and "nan" not in efficiency_markdown(summary)


# --- curves, files, several studies ---------------------------------------------------------------------------------


def test_curves_are_ap_per_timestamp(tmp_path):
    study = Study(tmp_path / "study", identities=("ann", "bob", "cat"), size=4)
    for row in curve_table(summarise(study.folder)).to_pylist():
        t, panel = row["timestamp"], (row["protocol"], row["metric"])
        if row["strategy"] == "upper":
            assert t == 3
        per_person = {}
        for spec in study.trials:
            if (spec["strategy"], spec["buffer_size"]) == (row["strategy"], row["buffer_size"]):
                per_person.setdefault(spec["identity"], []).append(study.r[spec["trial"]][panel][t, : t + 1].mean())
        values = [np.mean(numbers) for numbers in per_person.values()]
        assert row["mean"] == pytest.approx(np.mean(values), rel=1e-9)
        low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
        np.testing.assert_allclose([row["low"], row["high"]], [low, high], rtol=1e-8)
        assert (row["n_identities"], row["n_seeds"]) == (3, 2)


def test_table_files_are_complete_and_equal_again(tmp_path):
    study = Study(tmp_path / "study")
    summary = summarise(study.folder)
    files = table_files(summary)
    assert {"tables.md", "tables.tex", "summary.csv", "paired.csv", "summary.parquet", "paired.parquet"} < set(files)
    assert pq.read_table(io.BytesIO(files["summary.parquet"])).equals(summary.scores)
    assert pq.read_table(io.BytesIO(files["paired.parquet"])).equals(summary.paired)
    assert table_files(summarise(study.folder)) == files


def test_markdown_cells_keep_their_row(tmp_path):
    study = Study(tmp_path / "study", identities=("ann", "bob"), seeds=(0,))
    for spec in study.trials:
        if spec["strategy"] == "er_hull":
            spec["strategy"] = "mine|and\nyours"
            rows = [row | spec for row in pq.read_table(study.results(spec["trial"])).to_pylist()]
            pq.write_table(pa.Table.from_pylist(rows, schema=RESULT_SCHEMA), study.results(spec["trial"]))
    rewrite(study, trials=study.trials)
    text = to_markdown(summarise(study.folder))
    lines = [line for line in text.splitlines() if line.startswith("| mine")]
    assert lines and all(line.startswith("| mine\\|and yours |") and line.endswith(" |") for line in lines)
    check_latex(to_latex(summarise(study.folder)))


def test_several_studies_stand_in_one_table_under_names_of_their_own(tmp_path):
    studies = [Study(tmp_path / place, identities=("ann", "bob"), seeds=(0,)) for place in ("a/s", "b/s", "c")]
    folders = [study.folder for study in studies]
    rewrite(studies[2], name="other")
    summaries = summarise_many([*folders, folders[0]])
    assert list(summaries) == ["test_study (a/s)", "test_study (b/s)", "other"]
    table = combine({name: summary.scores for name, summary in summaries.items()})
    assert table.column_names[0] == "study"
    assert table.num_rows == sum(summary.scores.num_rows for summary in summaries.values())
    assert table.filter(pc.equal(table["study"], "other")).drop_columns("study").equals(summaries["other"].scores)
    rows = read_studies(folders, columns=["trial", "value"], where=pc.field("train_timestamp") == 0)
    assert rows.column_names == ["study", "trial", "value"]
    # per study: 2 people, 5 continual trials, 4 panels, 2 images of the first timestamp
    assert rows.num_rows == 3 * 2 * 5 * 4 * 2 and set(rows["study"].to_pylist()) == set(summaries)
    with pytest.raises(UserError, match="no such study"):
        summarise_many([*folders, tmp_path / "nowhere"])
    with pytest.raises(ValueError):
        combine({})


# --- what cannot be concluded ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("people", "seeds", "skip", "expected"),
    [
        (("ann",), (0, 1), (), "no interval can be given"),
        (("ann", "bob"), (0, 1), (), "Two identities"),
        (("ann", "bob", "cat"), (0,), (), "One seed"),
        (("ann", "bob"), (0,), ("ann-upper-lr0.001-s0", "bob-upper-lr0.001-s0"), "Without upper (none of its trials"),
        (("ann", "bob", "cat"), (0,), ("ann-lower-lr0.001-s0",), "Trials are missing"),
        (
            ("ann",),
            (0,),
            ("ann-er_hull-k3-lr0.001-s0", "ann-er_hull-k5-lr0.001-s0"),
            "Nothing is known of er_hull",
        ),
    ],
)
def test_an_incomplete_study_has_tables_and_says_what_it_cannot_show(tmp_path, people, seeds, skip, expected):
    summary = summarise(Study(tmp_path / "study", identities=people, seeds=seeds, skip=skip).folder)
    assert any(expected in said for said in not_concluded(summary))
    files = table_files(summary)
    assert expected in files["tables.md"].decode() and escape_latex(expected) in files["tables.tex"].decode()
    check_latex(files["tables.tex"].decode())
    assert "nan" not in files["tables.md"].decode() + files["efficiency.md"].decode()


def test_a_whole_study_of_three_and_two_seeds_has_nothing_to_excuse(tmp_path):
    study = Study(tmp_path / "study")
    assert [said for said in not_concluded(summarise(study.folder)) if "upper" not in said] == []


def test_a_plan_without_a_reference_says_so(tmp_path):
    study = Study(tmp_path / "study")
    rewrite(study, trials=[spec for spec in study.trials if spec["strategy"] not in ("lower", "upper")])
    summary = summarise(study.folder)
    assert sum("it is not in the plan" in said for said in not_concluded(summary)) == 2
    assert len(summary.left_out) == 12


def test_the_benchmarks_study_is_read_whole(tmp_path):
    rows = write_study(tmp_path / "made_up", rows=1, people=1)
    summary = summarise(tmp_path / "made_up")
    assert summary.complete and rows == sum(
        pq.read_metadata(path).num_rows for path in (tmp_path / "made_up" / "results").glob("*.parquet")
    )
    assert Trial(
        trial="person_00-upper-lr0.0003-s0", identity="person_00", strategy="upper", buffer_size=None,
        learning_rate=0.0003, seed=0, joint=True,
    ) in summary.study.trials  # fmt: skip


def test_another_network_of_lpips_is_a_difference():
    _, note = comparable("mystyle", [10], read_practice({"evaluation": {"lpips_network": "vgg"}}), {"lpips", "id"})
    assert "LPIPS is computed on another network, there on AlexNet" in note


@pytest.mark.usefixtures("few_figures")
@pytest.mark.parametrize(
    ("profile", "said"),
    [
        ("mystyle", "Test photos were inverted in W (one latent for all layers)."),
        ({"name": "mystyle", "inversion": {"latent_space": "w_plus"}}, "in W+ (one latent for each layer), which fits"),
    ],
)
def test_every_report_says_where_test_photos_were_inverted(tmp_path, profile, said):
    study = Study(tmp_path / "study", identities=("ann", "ben"), seeds=(0,))
    rewrite(study, profile=profile)
    assert said in " ".join(notes(summarise(study.folder)))
    report.write_report(study.folder)
    assert said in html.unescape((study.folder / "report" / "index.html").read_text())
