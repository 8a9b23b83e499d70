"""Notebooks of the gallery: every example converts, and a notebook that was run holds what it printed and its figures."""

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

from matplotlib.figure import Figure

figure = Figure()
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


def test_a_notebook_that_was_run_holds_its_figures(tmp_path):
    (tmp_path / "one.py").write_text(SCRIPT)
    notebook = notebooks.execute(notebooks.notebook_of(tmp_path / "one.py"))
    outputs = notebook.cells[-1].outputs
    assert outputs[0].text == "2\n"
    assert "image/png" in outputs[-1].data


def test_a_cell_that_raises_ends_it(tmp_path):
    (tmp_path / "one.py").write_text(SCRIPT + "\n1 / 0\n")
    with pytest.raises(Exception, match="ZeroDivisionError"):
        notebooks.execute(notebooks.notebook_of(tmp_path / "one.py"))
