"""The documentation's build: ``sphinx-build -W docs build/docs`` (needs ``navtalk[all,docs]``).

Sphinx, because it imports what it documents: attrs' classes appear with the signatures that they
really have, and the docstrings' roles become links.
"""

from __future__ import annotations

from importlib.metadata import version as installed_version

project = "navtalk"
author = "the navtalk maintainers"
copyright = author
version = release = installed_version("navtalk")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["README.md"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
python_display_short_literal_types = True

html_theme = "furo"
html_title = "navtalk"
html_theme_options = {"footer_icons": []}
highlight_language = "text"

# Both adapters have classes of the same names; a docstring that is inherited means its own.
suppress_warnings = ["ref.python"]
