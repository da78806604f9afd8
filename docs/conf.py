"""The documentation site: Markdown pages of this folder, and the API from the docstrings.

    python -m sphinx -W --keep-going -b html docs build/site      # then open build/site/index.html

Everything a page needs is in the site: no fonts, scripts or pictures from elsewhere.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parents[1]))  # a clone need not be installed for its pages to be built
from clstudy.settings.version import __version__

project = "clstudy"
author = "The clstudy authors"
copyright = "The clstudy authors; MIT licence"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["studies/**"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"clstudy {release}"
html_copy_source = False
html_show_sourcelink = False

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "undoc-members": False, "show-inheritance": True}
napoleon_custom_sections = [("Class attributes", "params_style")]
napoleon_use_ivar = True


def setup(app: Sphinx) -> None:
    # GitHub draws these; here they are read as they are written
    app.add_lexer("mermaid", TextLexer)
