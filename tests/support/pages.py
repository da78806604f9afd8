"""Sections of the HTML report as the page shows them."""

from __future__ import annotations

from clstudy.analysis.pages.blocks import Section
from clstudy.analysis.pages.render import environment


def shown(section: Section) -> str:
    """HTML of a section's blocks."""
    return environment().get_template("blocks.html.j2").render(section=section)
