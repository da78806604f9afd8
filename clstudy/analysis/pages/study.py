"""A study's report as one self-contained HTML page: no network, no other file, and nothing that needs its script.

Equal studies give equal bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from clstudy.analysis.answer import answer
from clstudy.analysis.between_studies import Difference
from clstudy.analysis.claim_notes import primary_notes
from clstudy.analysis.figures import Drawing, Gallery
from clstudy.analysis.limits import not_concluded
from clstudy.analysis.pages.between import Pairs, between_sections, differing_section
from clstudy.analysis.pages.blocks import Files, Heading, Section, paragraph
from clstudy.analysis.pages.comparisons import comparison_section
from clstudy.analysis.pages.efficiency import efficiency_section
from clstudy.analysis.pages.faces import face_sections
from clstudy.analysis.pages.headroom import headroom_sections
from clstudy.analysis.pages.pictures import figure_section, glance_section
from clstudy.analysis.pages.render import render
from clstudy.analysis.pages.run_record import missing_section, processor_text, settings_section, timing_section
from clstudy.analysis.pages.scores import identity_section, main_section
from clstudy.analysis.report_data import ReportData
from clstudy.analysis.study_folder import kinds_of_processor
from clstudy.records.study_record import read_study_record
from clstudy.settings.metric_facts import Metrics


def study_page(material: ReportData, gallery: Gallery, extra: Sequence[Section] = (), files: Iterable[str] = ()) -> str:
    """The whole report; ``extra`` sections come after the paired comparisons.

    Args:
        material: the study's numbers.
        gallery: its figures, and those that could not be drawn.
        extra: further sections, for instance of ``rows_section``.
        files: names of tables beside the page.
    """
    summary = material.summary
    record = read_study_record(summary.study.folder)
    kinds = kinds_of_processor(summary.study.folder, (trial.trial for trial in summary.study.planned))
    return render(
        "study.html.j2",
        title=f"{summary.study.name}: clstudy report",
        name=summary.study.name,
        description=record.description or "",
        answer=_answer(material),
        facts=_facts(material),
        alerts=_alerts(material, gallery, kinds),
        sections=[
            *glance_section(gallery),
            *face_sections(material),
            main_section(material),
            figure_section(gallery),
            *headroom_sections(material),
            comparison_section(material),
            *extra,
            *efficiency_section(material),
            identity_section(material),
            missing_section(summary),
            settings_section(record, kinds),
            timing_section(material),
            *_file_sections(files),
        ],
    )


def comparison_page(
    materials: Mapping[str, ReportData],
    differences: Sequence[Difference],
    pairs: Pairs,
    metrics: Metrics,
    drawings: Mapping[tuple[str, str], Drawing],
) -> str:
    """Several studies: paired differences, what is not the same in them, and their main tables side by side.

    Args:
        materials: study name -> material.
        differences: what is not the same in all of them (``what_differs``).
        pairs: names of two studies -> who is in both, and their cells (``between``).
        metrics: of all of them.
        drawings: names of two studies -> their figure.
    """
    sections = [*between_sections(pairs, metrics, drawings), differing_section(list(materials), differences)]
    studies = []
    for place, (name, material) in enumerate(materials.items()):
        table = main_section(material)
        blocks = (*map(paragraph, _answer(material)), Heading(table.title), *table.blocks)
        studies.append(Section(anchor=f"study-{place}", title=name, blocks=blocks))
    return render("side_by_side.html.j2", title="clstudy studies", studies=studies, sections=sections)


def _file_sections(files: Iterable[str]) -> list[Section]:
    names = tuple(sorted(files))
    return [Section(anchor="files", title="Tables as files", blocks=(Files(names),))] if names else []


def _answer(material: ReportData) -> list[str]:
    """The purpose and outcome of a study, then its answer."""
    return [*primary_notes(material.summary, material.digits), *answer(material)]


def _facts(material: ReportData) -> list[tuple[str, str]]:
    """The size of the study: pairs of a number and what it counts."""
    study = material.summary.study
    counts = [
        (len(study.identities), "identity", "identities"),
        (len(study.strategies), "strategy", "strategies"),
        (len({trial.seed for trial in study.trials}), "seed", "seeds"),
    ]
    facts = [(str(n), one if n == 1 else more) for n, one, more in counts]
    if study.buffer_sizes:
        facts.append((", ".join(map(str, study.buffer_sizes)), "stored photos (K)"))
    done = len(study.planned) - len(material.summary.missing)
    return [*facts, (f"{done}/{len(study.planned)}", "trials in the numbers")]


def _alerts(material: ReportData, gallery: Gallery, kinds: Mapping[str, int]) -> list[str]:
    """Notices at the top: what cannot be concluded, and what is missing from this page."""
    summary = material.summary
    said = not_concluded(summary)
    if summary.missing:
        said.append(f"{len(summary.missing)} of {len(summary.study.planned)} trials are missing, in whole or in part.")
    if len(kinds) > 1:
        said.append(
            f"Computed on {processor_text(kinds)}. Stages of different kinds differ in their last digits, and training "
            "carries that on."
        )
    return said + [f"{broken.title}: {broken.reason}" for broken in gallery.skipped if broken.broken]
