"""Sphinx settings. Builds offline; CAPTUM_LEAM_DOCS_ONLINE=1 adds links to other projects' pages."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from captum_leam import __version__

project = "captum-leam"
author = "the captum-leam developers"
copyright = "2026, the captum-leam developers"  # noqa: A001 (the name Sphinx wants)
version = release = __version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx.ext.intersphinx",
    "myst_parser",
    "mathml",
]
html_math_renderer = "mathml"
myst_enable_extensions = ["dollarmath", "deflist", "colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

autosummary_generate = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

intersphinx_mapping = (
    {
        "python": ("https://docs.python.org/3", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
        "captum": ("https://captum.ai/api", None),
    }
    if os.environ.get("CAPTUM_LEAM_DOCS_ONLINE")
    else {}
)

html_theme = "pydata_sphinx_theme"
html_title = "captum-leam"
html_theme_options = {"show_prev_next": True, "navigation_with_keys": False, "secondary_sidebar_items": ["page-toc"]}
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_show_sourcelink = False
