"""What happens with a model or an input, case by case: the rows of the tables in docs/what_happens.md, each with the call that shows it.

``python tools/what_happens.py`` writes the tables into the page anew. tests/robustness/test_what_happens.py runs every case.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.helpers import cases_of_files as files
from tests.helpers import cases_of_models as models
from tests.helpers.cases import Case

PAGE = Path(__file__).resolve().parents[1] / "docs" / "what_happens.md"
BEGIN, END = "<!-- The tables are written by: python tools/what_happens.py -->\n", "<!-- End of the tables. -->\n"
ELLIPSIS = "…"

GROUPS = {
    "Models: batch and rows": models.BATCH,
    "Models: chance and the rest of the batch": models.CHANCE,
    "Models: geometry": models.GEOMETRY,
    "Models: what they return": models.RETURNS,
    "Models: kinds": models.KINDS,
    "PyTorch's modes": models.MODES,
    "Images": models.VALUES,
    "Pictures in files": files.FILES,
    "Photographs": files.PHOTOGRAPHS,
    "Folders": files.FOLDERS,
    "Labels and references": files.LABELS,
    "ONNX files": files.ONNX_FILES,
    "Model files and studies": files.MODEL_FILES,
}


def tables() -> str:
    """The part of the page that follows from the cases."""
    return "\n".join(f"## {name}\n\n{table(cases)}" for name, cases in GROUPS.items())


def table(cases: list[Case]) -> str:
    rows = [f"| {case.given} | {case.outcome} | {cell(case)} |\n" for case in cases]
    return "| model or input | what happens | result or message |\n|---|---|---|\n" + "".join(rows)


def cell(case: Case) -> str:
    if case.outcome == "right":
        return case.text + ("" if case.tolerance == Case.tolerance else f", within {case.tolerance:g}")
    text = case.text if case.text.endswith(ELLIPSIS) else case.text + ELLIPSIS
    return f"`{text}`"


def parts(page: str) -> tuple[str, str, str]:
    """The page before, within and after the tables."""
    before, _, rest = page.partition(BEGIN)
    within, _, after = rest.partition(END)
    return before + BEGIN, within, END + after


if __name__ == "__main__":
    first, _, last = parts(PAGE.read_text(encoding="utf-8"))
    PAGE.write_text(f"{first}\n{tables()}\n{last}", encoding="utf-8")
    sys.stdout.write(f"{sum(map(len, GROUPS.values()))} rows in {PAGE}\n")
