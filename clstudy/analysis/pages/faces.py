"""The section of the HTML report with everybody's faces over time, and what was measured on each of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

from clstudy.analysis.figures.faces import made_of, resized
from clstudy.analysis.pages.blocks import (
    Block,
    Face,
    FaceMoment,
    FaceRow,
    FaceTable,
    Folded,
    Section,
    paragraph,
    soft_paragraph,
)
from clstudy.analysis.pages.pictures import WEBP, data_address, webp
from clstudy.analysis.report_data import ReportData
from clstudy.analysis.shown_faces import PersonOverTime, people_over_time

MOST_BYTES = 1_100_000
"""Faces that a page holds at most, as they are embedded; people for whom there is no room are named."""
_SIDE = 96
_QUALITY = 80


def face_sections(material: ReportData) -> list[Section]:
    """Everybody's faces after every timestamp, whoever is forgotten most first; empty without pictures of faces."""
    tables: list[Folded] = []
    left_out: list[str] = []
    room = MOST_BYTES
    for person in people_over_time(material):
        if left_out:  # whoever comes later has no room either, and need not be encoded to know it
            left_out.append(person.identity)
            continue
        table = _table(material, person)
        room -= _size(table)
        if room < 0 and tables:
            left_out.append(person.identity)
            continue
        title = ": ".join(filter(None, (person.identity, person.said)))
        tables.append(Folded(title=title, blocks=(table,), opened=not tables))
    if not tables:
        return []
    made = made_of(material)
    blocks: list[Block] = [
        paragraph(
            f"The first test photo of every timestamp k, and {made} by the model of each strategy, after training on "
            "timestamp t. What is forgotten drifts away from its photo as t grows; people who are forgotten most come "
            "first."
        ),
        *tables,
    ]
    if left_out:
        blocks.append(soft_paragraph(f"There is no room on this page for {len(left_out)} more: {', '.join(left_out)}."))
    return [Section(anchor="faces", title="Faces over time", blocks=tuple(blocks))]


def _table(material: ReportData, person: PersonOverTime) -> FaceTable:
    photos = tuple(
        Face(source=_source(photo), alt=f"{person.identity}, test photo of k = {k}")
        for k, photo in enumerate(person.photos)
    )
    moments = tuple(
        FaceMoment(
            t=t,
            rows=tuple(
                FaceRow(
                    label=label,
                    faces=tuple(
                        Face(source=_source(face.image), alt=f"{label}, k = {k}, after t = {t}", said=face.measured)
                        for k, face in enumerate(faces)
                    ),
                )
                for label, faces in rows.items()
            ),
        )
        for t, rows in person.made.items()
    )
    caption = f"{person.identity}: test photos, and what the models make of them after training on timestamp t"
    return FaceTable(caption=caption, photos=FaceRow(label="test photo", faces=photos), moments=moments)


def _size(table: FaceTable) -> int:
    return sum(len(face.source) for face in _faces(table))


def _faces(table: FaceTable) -> Iterator[Face]:
    yield from table.photos.faces
    for moment in table.moments:
        for row in moment.rows:
            yield from row.faces


def _source(image: np.ndarray) -> str:
    small = Image.fromarray(resized(image, min(_SIDE, len(image))))
    return data_address(WEBP, webp(small, quality=_QUALITY))
