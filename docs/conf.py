"""Sphinx settings. Builds offline; CAPTUM_LEAM_DOCS_ONLINE=1 adds links to other projects' pages."""

import os
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

from captum_leam import __version__  # noqa: E402

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
    "sphinx_gallery.gen_gallery",
    "mathml",
    "public_names",
    "commands",
    "measured",
]
html_math_renderer = "mathml"
myst_enable_extensions = ["dollarmath", "deflist", "colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "gallery/*.ipynb", "gallery/*.py"]

autosummary_generate = False
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False  # "(N, H, W): maps" is prose: shapes are no types to link to

# Every reference must lead somewhere; names of other projects do so only when built online.
nitpicky = True
OTHERS = r"(torch|torchvision|captum|numpy|np|pandas|pd|matplotlib|onnx|collections|pathlib|typing|abc|PIL)(\..*)?"
nitpick_ignore_regex = [(r"py:.*", OTHERS)]

intersphinx_mapping = (
    {
        "python": ("https://docs.python.org/3", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
        "captum": ("https://captum.ai/api", None),
    }
    if os.environ.get("CAPTUM_LEAM_DOCS_ONLINE")
    else {}
)

# The examples run from a copy, because they write their pictures into the folder that they are run in.
EXAMPLES = HERE / "_build" / "examples"
shutil.rmtree(EXAMPLES, ignore_errors=True)
shutil.copytree(HERE.parent / "examples", EXAMPLES, ignore=shutil.ignore_patterns("__pycache__"))
sphinx_gallery_conf = {
    "examples_dirs": str(EXAMPLES),
    "gallery_dirs": "gallery",
    "filename_pattern": r"/(?!pair_from_photos)\w+\.py$",  # that one needs photographs and weights, which are not here
    "within_subsection_order": "figures.ReadingOrder",
    "image_scrapers": ("figures",),
    "reset_modules": ("figures.prepare",),
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_signature": False,
    "write_computation_times": False,
    "min_reported_time": 10_000,  # seconds: times of one machine help nobody
    "capture_repr": (),
    "default_thumb_file": str(HERE / "_static" / "planted.png"),
    "copyfile_regex": r"^$",
}

html_theme = "pydata_sphinx_theme"
html_title = "captum-leam"
html_theme_options = {
    "show_prev_next": True,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "header_links_before_dropdown": 6,
    "show_toc_level": 2,
}
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_show_sourcelink = False


def as_prose(app, what, name, obj, options, lines):
    """Docstrings of constants and properties are prose; napoleon takes what stands before a colon for a type. Put it back."""
    types = [i for i, line in enumerate(lines) if line.startswith(":type: ")]
    if not types:
        return
    said = lines.pop(types[-1]).removeprefix(":type: ")
    first = next(i for i, line in enumerate(lines) if line.strip())
    lines[first] = f"{said}: {lines[first]}"


def setup(app):
    app.connect("autodoc-process-docstring", as_prose, priority=600)  # after napoleon
