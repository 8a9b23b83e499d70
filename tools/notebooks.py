"""Make executed notebooks of the gallery's examples.

    make notebooks
    python tools/notebooks.py [--out docs/_build/notebooks] [NAME ...]

Each ``examples/NAME.py`` becomes ``NAME.ipynb``: sphinx-gallery turns text and code into cells, and the cells are run, so that the
notebook opens in Jupyter with what it printed and drew. The first cell shows every figure and every explorable page that a later cell holds
in a variable, since captum-leam returns results and shows none. The example that needs photographs is converted, but not run.
"""

import argparse
import json
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell
from sphinx_gallery.gen_gallery import DEFAULT_GALLERY_CONF
from sphinx_gallery.notebook import jupyter_notebook
from sphinx_gallery.py_source_parser import split_code_and_text_blocks

ROOT = Path(__file__).resolve().parents[1]
NEEDS_PHOTOGRAPHS = {"pair_from_photos"}
SECONDS = 600

SHOW_RESULTS = """# Shows every matplotlib figure and every explorable page that a cell binds to a name
from io import BytesIO

from IPython import get_ipython
from IPython.display import Image, display
from matplotlib.figure import Figure

from captum_leam.match import MatchExplanation
from captum_leam.pairs import PairExplanation
from captum_leam.reporting import Explanation

_displayed = set()


def _show_new_results(result):
    for value in list(get_ipython().user_ns.values()):
        if not isinstance(value, (Figure, Explanation, MatchExplanation, PairExplanation)) or id(value) in _displayed:
            continue
        _displayed.add(id(value))
        if isinstance(value, Figure):
            value.savefig(picture := BytesIO(), format="png")
            display(Image(picture.getvalue()))
        elif value is not result.result:  # which the cell has shown
            display(value)


get_ipython().events.register("post_run_cell", _show_new_results)"""


def notebook_of(script: Path) -> nbformat.NotebookNode:
    """Return the notebook of an example, not run."""
    _, blocks = split_code_and_text_blocks(str(script))
    content = jupyter_notebook(blocks, dict(DEFAULT_GALLERY_CONF), str(script.parent))
    notebook = nbformat.reads(json.dumps({**content, "nbformat_minor": 4}), as_version=4)
    notebook.nbformat_minor = 5
    notebook.cells.insert(0, new_code_cell(SHOW_RESULTS))
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
    nbformat.validate(notebook)
    return notebook


def execute(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Run the cells in an empty folder; the first that raises ends it."""
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(notebook, timeout=SECONDS, resources={"metadata": {"path": folder}})
        client.execute()
    return notebook


def main() -> None:
    """Write the notebooks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="examples; all by default")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "_build" / "notebooks")
    options = parser.parse_args()
    names = options.names or sorted(path.stem for path in (ROOT / "examples").glob("*.py"))
    options.out.mkdir(parents=True, exist_ok=True)
    for name in names:
        notebook = notebook_of(ROOT / "examples" / f"{name}.py")
        if name not in NEEDS_PHOTOGRAPHS:
            execute(notebook)
        nbformat.write(notebook, options.out / f"{name}.ipynb")
        print(options.out / f"{name}.ipynb", flush=True)


if __name__ == "__main__":
    main()
