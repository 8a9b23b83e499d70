"""Arrows point down only: what docs/architecture.md says, checked against the imports in the code."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "captum_leam"

LEVELS = [
    {"_version", "_captum", "maps", "objectives", "layers", "decisions"},  # the ground
    {"faces", "models"},  # adapters to the outside
    {"passes", "leam", "suggest", "rounds", "explain", "explainers"},  # attribution
    {"regions", "synthetic", "patterns", "faithfulness", "plots", "pairs"},  # what a map is used for
    {"report", "cli", "study"},  # the front
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
