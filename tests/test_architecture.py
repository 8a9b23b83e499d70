"""Arrows point down only: what docs/architecture.md says, checked against the imports in the code."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "captum_leam"

LEVELS = [
    {
        "_version",
        "_captum",
        "maps",
        "objectives",
        "layers",
        "decisions",
        "checks",
        "memory",
        "modes",
        "names",
        "probe",
        "fingerprint",
        "labels",
        "bootstrap",
    },  # the ground
    {"faces", "models"},  # adapters to the outside
    {"passes", "layer_probe", "leam", "suggest", "refinement", "explain", "explainers"},  # attribution
    {"regions", "synthetic", "patterns", "faithfulness", "plots", "pairs"},  # what a map is used for
    {"report", "cli", "__main__", "study", "explain_files"},  # the front
]
LEVEL_OF = {name: i for i, names in enumerate(LEVELS) for name in names}
FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def part(module: str) -> str:
    """captum_leam.regions.scheme → regions."""
    return module.split(".")[1] if "." in module else ""


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
            if node.module == "captum_leam":
                found |= {f"captum_leam.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    used = {part(m) for m in imported(path) if m.startswith("captum_leam.")} - {own, ""}
    wrong = {name for name in used if LEVEL_OF[name] > LEVEL_OF[own]}
    assert not wrong, f"{own} is on a lower level than {wrong}"


def test_one_module_touches_captums_private_helpers():
    private = [p.name for p in FILES if any(m.startswith("captum._utils") for m in imported(p))]
    assert private == ["_captum.py"]


def test_every_folder_and_module_has_its_place():
    there = {p.stem for p in PACKAGE.iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()} - {"__init__"}
    assert there <= set(LEVEL_OF), f"say where {there - set(LEVEL_OF)} belongs, here and in docs/architecture.md"
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text()
    missing = {name for name in there if f"`{name}" not in page} - {"_version"}
    assert not missing, f"docs/architecture.md does not name {missing}"


def test_every_module_has_its_row():
    """A contributor finds the file for a concept in one look: the page names every file, with its folder where it has one."""
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("|")]
    missing = []
    for path in FILES:
        inside = path.relative_to(PACKAGE)
        if path.name == "__init__.py" or path.name == "_version.py":
            continue
        names = {f"`{path.stem}`", f"`{inside}`", f"`{path.name}`"}
        folder = f"`{inside.parts[0]}/" if len(inside.parts) > 1 else ""
        if not any(folder in row and any(name in row for name in names) for row in rows):
            missing.append(str(inside))
    assert not missing, f"docs/architecture.md has no row that names {missing}"


def test_the_page_names_no_file_that_is_gone():
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text()
    there = {p.name for p in PACKAGE.rglob("*.py")} | {str(p.relative_to(PACKAGE)) for p in PACKAGE.rglob("*.py")}
    benchmarks = PACKAGE.parent / "benchmarks"
    there |= {name for p in benchmarks.glob("*.py") for name in (p.name, f"benchmarks/{p.name}")}
    named = set(re.findall(r"`([\w/]+\.py)`", page))
    assert named <= there, f"docs/architecture.md names {sorted(named - there)}"


def test_levels_are_those_of_the_page():
    """The table of levels, from the front down to the ground, holds the modules in the order that the imports keep."""
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text()
    table = [line for line in page.split("| I look for")[0].splitlines() if line.startswith("| ")][1:]
    level_of_row = {
        name: len(table) - 1 - row
        for row, line in enumerate(table)
        for name in re.findall(r"`(\w+)/?`", line.split("|")[2])
    }
    order = {"attribution": 2, "adapters": 1}
    assert [line.split("|")[1].strip().split()[0] for line in table][2:4] == list(order)
    wrong = {n: (level_of_row[n], LEVEL_OF[n]) for n in level_of_row if level_of_row[n] != LEVEL_OF.get(n)}
    assert not wrong, f"docs/architecture.md and this test disagree on the level of {wrong}"
