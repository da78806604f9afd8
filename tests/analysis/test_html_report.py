"""The HTML report: one page that needs nothing, says what the numbers say, and says what they cannot."""

from __future__ import annotations

import base64
import hashlib
import html
import itertools
import json
import re
import shutil
import subprocess
import tarfile
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from jinja2 import UndefinedError
from scipy import stats

from clstudy.analysis import report
from clstudy.analysis.answer import answer
from clstudy.analysis.figures import FIGURES, Gallery, draw
from clstudy.analysis.pages import faces, pictures
from clstudy.analysis.pages.blocks import Code, Paragraph, rows_section, text_table
from clstudy.analysis.pages.render import environment
from clstudy.analysis.pages.study import study_page
from clstudy.analysis.report_data import gather
from clstudy.analysis.shown_faces import people_over_time
from clstudy.analysis.summary import summarise
from clstudy.cli import report as cli_report
from clstudy.records.rows import RESULT_SCHEMA
from clstudy.trial.requests import canonical_test
from tests.analysis.test_report import Study
from tests.support.browser import chromium, executable
from tests.support.furnished import furnish
from tests.support.furnished import person as owner

LPIPS = ("reconstruction", "lpips")
NOTHING_DRAWN = Gallery(drawings=(), skipped=())
VOID = {"img", "meta", "link", "br"}
NASTY = "<script>alert('1')</script>\"&x"


class Page(HTMLParser):
    """What a page is made of; raises where tags do not close in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.headings, self.text = [], [], [], []
        self.aside = {"style": "", "script": ""}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names))
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in self.aside:
            self.aside[self.open[-1]] += data
            return
        self.text.append(data)
        if self.open and self.open[-1] in ("h1", "h2", "h3"):
            self.headings.append((self.open[-1], data))

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def check(text):
    """Everything that holds for every page; returns it parsed."""
    page = Page(text)
    assert text.startswith("<!doctype html>") and page.all("html") == [{"lang": "en"}]
    assert page.all("script") == [{}] and not page.all("link") and not page.all("iframe")
    assert any(meta.get("name") == "viewport" for meta in page.all("meta"))
    policy = next(m["content"] for m in page.all("meta") if "http-equiv" in m)
    digest = base64.b64encode(hashlib.sha256(page.aside["script"].encode()).digest()).decode()
    assert "default-src 'none'" in policy and policy.endswith(f"script-src 'sha256-{digest}'")
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "action", "srcset"):
            assert attributes.get(name, "data:image/").startswith("data:image/")
        assert re.fullmatch(r"#[\w-]+|[\w-]+\.(csv|md|tex|parquet|svg|png|gif)", attributes.get("href", "#top"))
    style = page.aside["style"]
    assert "url(" not in style and "@import" not in style and "prefers-color-scheme: dark" in style
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {a["href"].removeprefix("#") for a in page.all("a") if a["href"].startswith("#")} <= set(ids)
    assert {a["aria-labelledby"] for _, a in page.tags if "aria-labelledby" in a} <= set(ids)
    assert all(image["alt"].strip() for image in page.all("img"))
    assert [tag for tag, _ in page.headings].count("h1") == 1
    assert sum(tag == "table" for tag, _ in page.tags) == sum("scroll" in (a.get("class") or "") for _, a in page.tags)
    return page


def quick(study, **changes):
    """The page without figures (they have tests of their own)."""
    text = study_page(gather(summarise(study.folder)), NOTHING_DRAWN, **changes)
    return check(text)


def sentences(study):
    return answer(gather(summarise(study.folder)))


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """(study, text of index.html) of two people with everything in the folder."""
    study = Study(tmp_path_factory.mktemp("html") / "study", identities=("ann", "bob"), seeds=(0,), size=4)
    furnish(study)
    report.write_report(study.folder)
    return study, (study.folder / "report" / "index.html").read_text()


def test_a_study_of_two_kinds_of_processor_says_so_at_the_top(tmp_path):
    def kind(request):
        return {"computed_on": "AMD AVX2" if request.t == 1 else "Intel AVX512"}

    study = Study(tmp_path / "study", identities=("ann", "bob"), seeds=(0,))
    furnish(study)
    assert "kind of processor:" not in quick(study).words, "stages of earlier versions do not say"
    study = Study(tmp_path / "one", identities=("ann", "bob"), seeds=(0,))
    furnish(study, lambda request: {"computed_on": "Intel AVX512"})
    assert "Computed on 1 kind of processor: Intel AVX512 (" in quick(study).words
    study = Study(tmp_path / "two", identities=("ann", "bob"), seeds=(0,))
    stages = {request.key: request.t for found in furnish(study, kind).values() for request in found}
    second = sum(t == 1 for t in stages.values())
    assert (
        f"Computed on 2 kinds of processor: Intel AVX512 ({len(stages) - second} stages), AMD AVX2 ({second} stages). "
        "Stages of different kinds differ in their last digits"
    ) in quick(study).words


# --- the whole page -------------------------------------------------------------------------------------------------


def test_the_full_page_holds_everything_and_needs_nothing(full):
    study, text = full
    page = check(text)
    assert len(text) < 3_000_000
    sections = [said for tag, said in page.headings if tag == "h2"]
    expected = [
        "At a glance", "Faces over time", "Reconstruction LPIPS", "Figures", "Paired comparisons", "Gain and cost",
        "Per identity", "Failed and missing trials", "Settings, versions, data digests", "Timings", "Tables as files",
    ]  # fmt: skip
    assert [title for title in sections if title in expected] == expected
    assert len(page.all("figure")) == 21
    # of two people: four photos and, after t = 0 to 3, the faces of three strategies; upper has only the last moment
    assert len(page.all("img")) == 21 + 2 * (4 + 3 * (1 + 2 + 3 + 4) + 4)
    for link in page.all("a"):
        assert link["href"].startswith("#") or (study.folder / "report" / link["href"]).stat().st_size > 0
    kinds = {image["src"].split(";")[0] for image in page.all("img")}
    assert kinds == {"data:image/svg+xml", "data:image/webp"}
    for figure in ("forgetting_minus_lower", "latents_bob_K5", "faces_ann"):
        assert (study.folder / "report" / f"{figure}.svg").stat().st_size > 0 and f"{figure}.svg" in page.words
    assert "Learning-rate response: The response" in page.words, "what is not drawn is said"


def test_figures_for_which_a_page_has_no_room_are_linked(full, monkeypatch):
    monkeypatch.setattr(pictures, "MOST_FOLDED", 0)
    study, _ = full
    material = gather(summarise(study.folder))
    page = Page(study_page(material, draw(material)))
    assert len(page.all("figure")) == 18
    links = {link["href"] for link in page.all("a")}
    for name in ("latents_ann_K3", "latents_ann_K5", "latents_bob_K3", "latents_bob_K5"):
        assert {f"{name}.svg", f"{name}.png"} <= links and (study.folder / "report" / f"{name}.png").is_file()


def test_equal_studies_give_equal_bytes(full):
    folder = full[0].folder / "report"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert len(before) > 13 * 2
    report.write_report(full[0].folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_the_main_table_has_the_tables_numbers(full):
    study, text = full
    page = check(text)
    for strategy, size in (("lower", None), ("er_rand", 3), ("er_hull", 5)):
        values = list(study.per_identity(LPIPS, "forgetting", strategy, size).values())
        low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
        assert f"{np.mean(values):.4f} [{low:.4f}, {high:.4f}]" in page.words
    for name, size in itertools.product(("ann", "bob"), (3, 5)):
        assert f"{study.per_identity(LPIPS, 'aip', 'er_hull', size)[name]:.4f}" in page.words


def test_timings_and_settings_are_there(full):
    study, _ = full
    plan = yaml.safe_load((study.folder / "study.yaml").read_text())
    plan |= {"versions": {"torch": "9.8.7"}, "data_digests": {"ann": "abc123"}, "git_commit": "f00d"}
    plan |= {"profile": {"name": "embedded", "trainer": {"betas": [0.9, 0.5]}, "gone": None}}
    (study.folder / "study.yaml").write_text(yaml.safe_dump(plan))
    words = quick(study).words
    for said in ("profile.trainer.betas 0.9, 0.5", "torch 9.8.7", "ann abc123", "git_commit f00d", "profile.gone none"):
        assert said in words
    seconds = [json.loads(path.read_text())["seconds"] for path in (study.folder / "timings").glob("*.json")]
    assert f"stages computed {len(seconds)}" in words and f"median stage {np.median(seconds):.1f} s" in words


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    if executable() is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    with chromium(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


def test_on_paper_everything_that_is_folded_is_shown(full, tab):
    tab.open(full[0].folder / "report" / "index.html", 1200, 900)
    folded = "[...document.querySelectorAll('details:not([open]) table')].map(t => t.checkVisibility())"
    on_screen = tab.evaluate(folded)
    assert on_screen and not any(on_screen)
    tab.call("Emulation.setEmulatedMedia", media="print")
    try:
        on_paper = tab.evaluate(folded)
        kept = tab.evaluate("[...document.querySelectorAll('h2, h3')].map(h => getComputedStyle(h).breakAfter)")
    finally:
        tab.call("Emulation.setEmulatedMedia", media="")
    assert on_paper == [True] * len(on_screen)
    assert set(kept) == {"avoid"}, "no heading at the foot of a page"


def test_on_paper_no_table_is_cut_off(full, tab):
    tab.open(full[0].folder / "report" / "index.html", 718, 1000)  # A4 within a browser's margins
    wider = "[...document.querySelectorAll('.scroll')].filter(box => box.scrollWidth > box.clientWidth + 1).length"
    tab.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert tab.evaluate(wider) > 0, "on a screen they scroll"
    tab.call("Emulation.setEmulatedMedia", media="print")
    try:
        assert tab.evaluate(wider) == 0
    finally:
        tab.call("Emulation.setEmulatedMedia", media="")


@pytest.mark.parametrize(("width", "height", "dark"), [(1280, 900, False), (390, 844, False), (390, 844, True)])
def test_a_browser_shows_it_without_error_or_overflow(full, tab, tmp_path, width, height, dark):
    path = tmp_path / "index.html"
    path.write_text(full[1])
    tab.open(path, width, height, dark=dark)
    assert tab.errors() == []
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth && innerWidth") == width
    tab.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width, "nor with everything unfolded"
    loaded = tab.evaluate("[...document.images].map(one => one.complete && one.naturalWidth > 0)")
    assert loaded == [True] * (21 + 2 * (4 + 3 * (1 + 2 + 3 + 4) + 4))
    assert {address.split(":")[0] for address in tab.requested()} == {"file", "data"}
    background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", background))) < 60) == dark
    assert tab.errors() == []


def do(tab, code):
    """Run statements in the page."""
    tab.evaluate(f"(() => {{ {code} }})()")


def test_a_slider_goes_through_time_and_a_face_is_held_against_its_photo(full, tab):
    tab.open(full[0].folder / "report" / "index.html", 1280, 900)
    seen = (
        "[...document.querySelectorAll('#faces details[open] tbody[data-after]')].filter(b => b.checkVisibility())"
        ".map(b => [Number(b.dataset.after), b.querySelectorAll('img:not(.over)').length])"
    )
    assert tab.evaluate(seen) == [[3, 4 * 4]], "the last moment of the person who is forgotten most"
    do(tab, "const s = document.getElementById('faces-after'); s.value = 1; s.dispatchEvent(new Event('input'));")
    assert tab.evaluate(seen) == [[1, 3 * 2]]
    assert tab.evaluate("document.querySelector('#faces output').textContent") == "t = 1"
    # the made-up faces are grey: photos 10 k, what is made of them 10 k + t + 100
    painted = """(async () => {
      const face = [...document.querySelectorAll('#faces .shown .face')].filter(f => f.checkVisibility())[1];
      const over = face.querySelector('.over');
      return [over ? over.src === document.querySelectorAll('#faces .photos img')[1].src : null,
              getComputedStyle(face).filter, over && getComputedStyle(over).mixBlendMode];
    })()"""
    assert tab.evaluate(painted) == [None, "none", None]
    do(tab, "document.getElementById('faces-difference').click();")
    assert tab.evaluate(painted) == [True, "brightness(3)", "difference"]
    do(tab, "document.getElementById('faces-difference').click();")
    assert tab.evaluate(painted) == [None, "none", None] and tab.errors() == []


def test_tables_are_sorted_within_their_groups_and_filtered(full, tab):
    tab.open(full[0].folder / "report" / "index.html", 1280, 900)
    read = (
        "[...document.querySelector('#table table').tBodies[0].rows].filter(r => !r.hidden)"
        ".map(r => [r.cells[0].textContent, r.cells[1] ? parseFloat(r.cells[1].textContent) : null])"
    )
    before = tab.evaluate(read)
    heads = [i for i, (_, value) in enumerate(before) if value is None]
    assert len(heads) == 4, "AIP, Forgetting, -BWT, final"
    click = "document.querySelectorAll('#table thead')[0].rows[0].cells[1].querySelector('button').click();"
    for order in ("ascending", "descending"):
        do(tab, click)
        after = tab.evaluate(read)
        assert [i for i, (_, value) in enumerate(after) if value is None] == heads
        for begin, end in itertools.pairwise([*heads, len(before)]):
            group = sorted(before[begin + 1 : end], key=lambda row: row[1], reverse=order == "descending")
            assert after[begin + 1 : end] == group
        said = tab.evaluate("document.querySelector('#table thead').rows[0].cells[1].ariaSort")
        assert said == order
    do(tab, click)
    assert tab.evaluate(read) == before, "a third time: as it was"
    do(tab, "const f = document.querySelector('#table input[type=search]'); f.value = 'Forgetting er_'; "
            "f.dispatchEvent(new Event('input'));")  # fmt: skip
    assert [label for label, _ in tab.evaluate(read)] == ["Forgetting (lower is better)", "er_rand", "er_hull"]


def test_everything_can_be_read_without_the_script(full, tab):
    tab.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        tab.open(full[0].folder / "report" / "index.html", 1280, 900)
        moments = (
            "[...document.querySelectorAll('#faces details[open] tbody[data-after]')].map(b => b.checkVisibility())"
        )
        assert tab.evaluate(moments) == [True] * 4
        assert tab.evaluate("document.querySelectorAll('.controls, th button').length") == 0
    finally:
        tab.call("Emulation.setScriptExecutionDisabled", value=False)


def test_under_every_face_stands_what_was_measured_on_it(full):
    study, text = full
    found = list(people_over_time(gather(summarise(study.folder))))
    arms = [("lower", None), ("er_rand", 3), ("er_hull", 3)]
    forgotten = {
        name: np.mean([study.per_identity(LPIPS, "forgetting", *arm)[name] for arm in arms]) for name in ("ann", "bob")
    }
    assert [person.identity for person in found] == sorted(forgotten, key=forgotten.get, reverse=True)
    for person in found:
        assert [int(photo.mean()) for photo in person.photos] == [0, 10, 20, 30]
        for t, rows in person.made.items():
            assert list(rows) == ["lower", "er_rand, K = 3", "er_hull, K = 3"] + ["upper"] * (t == 3)
            for label, made in rows.items():
                strategy, _, size = label.partition(", K = ")
                trial = f"{person.identity}-{strategy}{f'-k{size}' if size else ''}-lr0.001-s0"
                kept = pq.read_table(study.results(trial)).to_pylist()
                for k, face in enumerate(made):
                    assert int(face.image.mean()) == 10 * k + t + 100
                    first = canonical_test(owner(person.identity, 4).timestamps[k])[0].digest
                    value = {
                        row["metric"]: row["value"]
                        for row in kept
                        if (row["train_timestamp"], row["image"], row["protocol"]) == (t, first, "reconstruction")
                    }
                    assert face.measured == (f"LPIPS {value['lpips']:.3f}", f"ID {value['id']:.3f}")
                    assert f"<small>LPIPS {value['lpips']:.3f}</small>" in text


def test_people_for_whom_there_is_no_room_are_named(full, monkeypatch):
    monkeypatch.setattr(faces, "MOST_BYTES", 1)
    page = quick(full[0])
    assert "There is no room on this page for 1 more: " in page.words
    assert len(page.all("img")) == 4 + 3 * (1 + 2 + 3 + 4) + 4


@pytest.mark.network
def test_axe_finds_nothing_to_object_to(full, tab, tmp_path):
    """The accessibility checker axe-core, from npm."""
    if shutil.which("npm") is None:
        pytest.skip("no npm on this machine")
    subprocess.run(["npm", "pack", "--silent", "axe-core@4.14.1"], cwd=tmp_path, check=True, stdout=subprocess.PIPE)
    with tarfile.open(next(tmp_path.glob("*.tgz"))) as packed:
        axe = packed.extractfile("package/axe.min.js").read().decode()
    for width, dark in ((1280, False), (1280, True), (390, False)):
        tab.open(full[0].folder / "report" / "index.html", width, 900, dark=dark)
        tab.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        tab.evaluate(axe + "; 0")
        found = tab.evaluate(
            "axe.run(document).then(r => r.violations.map(v => [v.id, v.impact, v.nodes.map(n => n.html)]))"
        )
        assert found == []


# --- the answer -----------------------------------------------------------------------------------------------------


def scores(study, values):
    """Make Forgetting what the test wants: (strategy, size) -> identity -> R[T-1, k] above its best, in LPIPS."""
    for spec in study.trials:
        if (spec["strategy"], spec["buffer_size"]) not in values:
            continue
        extra = values[spec["strategy"], spec["buffer_size"]][spec["identity"]]
        rows = pq.read_table(study.results(spec["trial"])).to_pylist()
        for row in rows:
            if row["metric"] == "lpips":
                old = row["train_timestamp"] == study.size - 1 != row["test_timestamp"]
                row["value"] = 0.1 + (extra if old else 0.0)
        pq.write_table(pa.Table.from_pylist(rows, schema=RESULT_SCHEMA), study.results(spec["trial"]))


PEOPLE = ("ann", "bob", "cat")


def people(*values):
    return dict(zip(PEOPLE, values, strict=True))


def test_the_answer_is_computed_from_paired_differences(tmp_path):
    study = Study(tmp_path / "study", seeds=(0,))
    lower, best = people(0.30, 0.33, 0.36), people(0.011, 0.010, 0.012)
    middle, rand = people(0.012, 0.0105, 0.0117), people(0.05, 0.06, 0.055)
    scores(study, {("lower", None): lower, ("er_hull", 5): best, ("er_hull", 3): middle, ("er_rand", 3): rand,
                   ("er_rand", 5): rand})  # fmt: skip
    first, second = sentences(study)
    test = stats.ttest_rel(list(best.values()), list(lower.values()))
    low, high = test.confidence_interval(0.95)
    difference = np.mean(list(best.values())) - np.mean(list(lower.values()))
    assert first.startswith(
        "er_hull with 5 stored photos has the best AIP and the least Forgetting on average over n = 3"
    )
    assert f"Forgetting 0.0110 against 0.3300, a difference of {difference:+.4f} ({low:+.4f} to {high:+.4f})" in first
    assert "−BWT 0.0110 against 0.3300" in first and "for new identities" in first
    assert "Of the 3 other combinations, these cannot be told apart from it: 1 in AIP, 1 in Forgetting." in first
    low, high = stats.ttest_rel(list(middle.values()), list(best.values())).confidence_interval(0.95)
    assert second.startswith("With er_hull, 3 stored photos are the fewest that are not measurably worse than 5 in AIP")
    assert f"{low:+.4f} to {high:+.4f}" in second and "does not show that they are equal" in second

    scores(study, {("er_hull", 3): people(0.051, 0.050, 0.052)})
    first, second = sentences(study)
    assert "It differs from each of the 3 other combinations in AIP and Forgetting." in first
    assert second.startswith(
        "No buffer below the largest tried is enough: er_hull is better with 5 stored photos: with 3 stored photos, AIP"
    )
    assert "Forgetting differs by +0.0400" in second


def test_an_interval_that_includes_zero_is_not_a_finding(tmp_path):
    study = Study(tmp_path / "study", seeds=(0,))
    noise = {arm: people(0.1, 0.2 + 0.01 * i, 0.3) for i, arm in enumerate([("er_rand", 3), ("er_rand", 5),
             ("er_hull", 5)])}  # fmt: skip
    scores(study, noise | {("lower", None): people(0.3, 0.28, 0.25), ("er_hull", 3): people(0.05, 0.3, 0.1)})
    first, _ = sentences(study)
    assert first.startswith("er_hull with 3 stored photos has the best AIP") and "which includes 0" in first
    assert "Of the 3 other combinations, these cannot be told apart from it: all in AIP, all in Forgetting." in first


@pytest.mark.parametrize(
    ("arguments", "firstly", "secondly"),
    [
        ({"identities": ("ann",)}, "forgotten here in this one identity", "cannot be said from one identity"),
        ({"size": 1}, "Forgetting is not defined", "cannot be said"),
        ({"skip": "lower"}, "no lower on the same identities", "stored photos"),
        ({"skip": "er_"}, "Only lower", "needs a strategy with a buffer"),
        ({"skip": "-k5-"}, "so none is called best", "no strategy is better than lower"),
        ({"skip": "-"}, "No trial is in the numbers yet", "Run the study again"),
    ],
)
def test_what_cannot_be_said_is_said(tmp_path, arguments, firstly, secondly):
    pattern = arguments.pop("skip", None)
    study = Study(tmp_path / "study", seeds=(0,), **arguments)
    if pattern:
        for spec in study.trials:
            if pattern in spec["trial"]:
                study.results(spec["trial"]).unlink()
    first, second = sentences(study)
    assert firstly in first and secondly in second
    assert first.endswith(".") and second.endswith(".") and "nan" not in first + second
    words = quick(study).words
    assert first in words and second in words and "nan" not in words
    if not pattern or pattern == "-":
        assert "What this study cannot show" in words


# --- incomplete studies and odd names ---------------------------------------------------------------------------------


def test_missing_and_failed_trials_are_listed_with_their_reasons(tmp_path):
    skip = ("ann-er_hull-k3-lr0.001-s0", "bob-lower-lr0.001-s0")
    study = Study(tmp_path / "study", seeds=(0,), skip=skip)
    (study.folder / "failures.json").write_text(json.dumps({skip[1]: f"photo is {NASTY}"}))
    words = quick(study).words
    assert "2 of 18 trials are missing" in words and "16/18 trials in the numbers" in words
    assert f"{skip[1]} failed: photo is {NASTY}" in words and f"{skip[0]} not finished" in words
    assert "n=2" in words


def test_two_identities_are_warned_of(tmp_path):
    words = quick(Study(tmp_path / "study", identities=("ann", "bob"), seeds=(0,))).words
    assert "Two identities" in words and "One seed" in words


def test_names_are_text_whatever_they_hold(tmp_path):
    study = Study(tmp_path / "study", identities=("a&<b>", "bob"), seeds=(0,))
    plan = yaml.safe_load((study.folder / "study.yaml").read_text())
    (study.folder / "study.yaml").write_text(yaml.safe_dump(plan | {"name": NASTY, "description": NASTY, NASTY: NASTY}))
    text = study_page(gather(summarise(study.folder)), NOTHING_DRAWN)
    page = check(text)
    assert ("h1", NASTY) in page.headings and "a&<b>" in page.words
    assert text.count("<script") == 1 and html.escape(NASTY) in text


def shown(block):
    return environment().get_template(block.template).render(block=block)


def test_templates_escape_all_that_they_print():
    assert shown(Paragraph(("<b>", Code("<i>")), soft=True)) == '<p class="soft">&lt;b&gt;<code>&lt;i&gt;</code></p>'
    table = shown(text_table('a"b', ["x", "<y>"], [["K = 3", "<td>'\x1b"]]))
    assert 'aria-label="a&quot;b"' in table and '<th scope="col">&lt;y&gt;</th>' in table
    assert '<th scope="row">K\u00a0=\u00a03</th><td>&lt;td&gt;&#x27;\\x1b</td>' in table


def test_no_template_leaves_the_escaping_out():
    templates = environment()
    assert len(templates.list_templates()) > 8 and templates.autoescape is True
    for name in templates.list_templates():
        source = templates.loader.get_source(templates, name)[0]
        assert not re.search(r"\|\s*safe|autoescape", source), name


def test_a_value_that_is_missing_is_an_error():
    with pytest.raises(UndefinedError, match="spans"):
        environment().get_template("paragraph.html.j2").render(block={"soft": False})


def test_statistics_from_elsewhere_have_their_place(tmp_path):
    study = Study(tmp_path / "study", seeds=(0,))
    extra = rows_section("holm", "Corrected p-values", ["pair", "p"], [["er_hull, er_rand", "0.0625"]], ["A <note>."])
    page = quick(study, extra=[extra])
    titles = [said for tag, said in page.headings if tag == "h2"]
    assert titles.index("Corrected p-values") == titles.index("Paired comparisons") + 1
    assert "er_hull, er_rand 0.0625" in page.words and "A <note>." in page.words


def test_learning_rates_are_told_apart(tmp_path):
    study = Study(tmp_path / "study", identities=("ann", "bob"), seeds=(0,), rates=(0.001, 0.01))
    words = quick(study).words
    assert "er_hull lr 0.01" in words and "at learning rate 0.0" in sentences(study)[0]


# --- the command ------------------------------------------------------------------------------------------------------


def test_several_studies_are_shown_side_by_side(tmp_path, capsys, few_figures):
    folders = [Study(tmp_path / name, identities=("ann", "bob"), seeds=(0,)).folder for name in ("one", "two")]
    assert cli_report.main([*map(str, folders)]) == 0
    page = check((tmp_path / "comparison.html").read_text())
    assert str(tmp_path / "comparison.html").split("/")[-1] in capsys.readouterr().out
    assert (
        len({said for tag, said in page.headings if tag == "h2" and "test_study" in said and "minus" not in said}) == 2
    )
    for folder in folders:
        check((folder / "report" / "index.html").read_text())
        for sentence in answer(gather(summarise(folder))):
            assert sentence in page.words
    assert cli_report.main([str(folders[0])]) == 0


def test_a_figure_that_fails_leaves_the_report_and_shows(tmp_path, capsys, monkeypatch, few_figures):
    def fails(material):
        raise KeyError("a slip")

    monkeypatch.setitem(FIGURES, "Odd figure", fails)
    study = Study(tmp_path / "study", identities=("ann", "bob"), seeds=(0,))
    assert cli_report.main([str(study.folder)]) == 1
    assert "Odd figure" in capsys.readouterr().err
    page = check((study.folder / "report" / "index.html").read_text())
    assert "a bug in clstudy: KeyError: 'a slip'" in page.words
    assert (study.folder / "report" / "tables.md").is_file()


def test_a_page_that_fails_leaves_tables_and_figures(tmp_path, capsys, monkeypatch, few_figures):
    def fails(*_):
        raise RuntimeError("a slip")

    monkeypatch.setattr(report, "study_page", fails)
    study = Study(tmp_path / "study", identities=("ann", "bob"), seeds=(0,))
    assert report.write_report(study.folder).complete, "a finished study is not lost for its page"
    assert cli_report.main([str(study.folder)]) == 1
    assert "index.html could not be made" in capsys.readouterr().err
    written = {path.suffix for path in (study.folder / "report").iterdir()}
    assert {".md", ".png"} <= written


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, capsys, few_figures):
    study = Study(tmp_path / "study", identities=("ann", "bob"), seeds=(0,))
    (study.folder / "report").write_text("in the way")
    assert cli_report.main([str(study.folder)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
