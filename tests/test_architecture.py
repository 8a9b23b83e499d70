"""The layout of the package: what `docs/architecture.md` and file names promise. `make lint` checks the imports (import-linter)."""

import ast
import re
import tomllib
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "captum_leam"
PAGE = (ROOT / "docs" / "architecture.md").read_text()
MODULES = [path for path in sorted(PACKAGE.rglob("*.py")) if path.name != "__init__.py"]


def test_the_page_fits_on_one_screen():
    assert len(PAGE.splitlines()) <= 45


def test_every_file_that_the_page_names_exists():
    files = re.findall(r"`([\w/]+\.py|[\w/]+/)`", PAGE)
    assert len(files) > 30
    missing = [name for name in files if not (PACKAGE / name).exists() and not (ROOT / name).exists()]
    assert not missing


def test_every_layer_of_the_contract_is_on_the_page():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    modules = {name for layer in layers for name in re.findall(r"\w+", re.sub(r"\(\w+\)", "", layer))} - {
        "__main__",
        "_version",
    }
    private = {"_neighbours"}
    missing = {name for name in modules if f"`{name}`" not in PAGE and f"`{name}/`" not in PAGE} - private
    assert not missing


def test_no_two_modules_share_a_name():
    names = Counter(path.stem for path in MODULES)
    assert not [name for name, count in names.items() if count > 1]


def test_the_first_line_of_every_module_says_what_is_inside():
    first = {path: (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n")[0] for path in MODULES}
    assert not [str(path) for path, line in first.items() if not 20 <= len(line) <= 140]
