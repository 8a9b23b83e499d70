"""Notebooks of the gallery: every example converts, and a notebook that was run holds what it printed, its figures and its pages."""

from pathlib import Path

import nbformat
import pytest

from tools import notebooks

EXAMPLES = sorted((Path(__file__).resolve().parents[1] / "examples").glob("*.py"))

SCRIPT = '''"""
A title
=======

What it is about.
"""

# %%
# A heading
# ---------
# Text.

import torch
from matplotlib.figure import Figure

from captum_leam.explain import MapSettings
from captum_leam.pairs import PairExplanation

figure = Figure()
maps = torch.rand(2, 112, 112)
settings = MapSettings("fast", "other face", ("last",), ("last",), (0, 0, 112, 112), n_steps=1)
pair = PairExplanation(torch.rand(2, 3, 112, 112), 0.5, maps, maps, {"last": maps}, 0.8, settings)
print(1 + 1)
'''


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_is_a_notebook(script):
    notebook = notebooks.notebook_of(script)
    nbformat.validate(notebook)
    assert {cell.cell_type for cell in notebook.cells} == {"code", "markdown"}
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    compile(code, script.name, "exec")
    assert "captum_leam" in code


def test_a_notebook_that_was_run_holds_its_figures_and_pages(tmp_path):
    (tmp_path / "one.py").write_text(SCRIPT)
    notebook = notebooks.execute(notebooks.notebook_of(tmp_path / "one.py"))
    outputs = notebook.cells[-1].outputs
    assert outputs[0].text == "2\n"
    kinds = [kind for output in outputs[1:] for kind in output.data]
    assert kinds.count("image/png") == 1
    pages = [output.data["text/html"] for output in outputs[1:] if "text/html" in output.data]
    assert len(pages) == 1
    assert pages[0].startswith("<iframe")
    assert "data-explorer" in pages[0]


def test_a_cell_that_raises_ends_it(tmp_path):
    (tmp_path / "one.py").write_text(SCRIPT + "\n1 / 0\n")
    with pytest.raises(Exception, match="ZeroDivisionError"):
        notebooks.execute(notebooks.notebook_of(tmp_path / "one.py"))
