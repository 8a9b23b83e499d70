"""Check arguments, returns and raises in the docstrings of the package with pydoclint.

``python tools/check_docstrings.py`` prints one line for each finding. Public names, which are those in an ``__all__``, need every
section; a summary that begins with "Return" or "Yield" takes the place of Returns and Yields. Internal functions need no section, but
a section that they have must agree with the code; ``--internal`` lists what they lack. An exception that a called function raises may
be documented: pydoclint cannot see it, and the finding is dropped.
"""

import argparse
import ast
import builtins
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OPTIONS = {
    "style": "google",
    "show-filenames-in-every-violation-message": True,
    "arg-type-hints-in-docstring": False,  # types are in the signatures
    "check-return-types": False,
    "check-yield-types": False,
    "check-class-attributes": False,  # fields are described below their names
    "skip-checking-private-functions": True,
}
FINDING = re.compile(r"^\s*(\S+?):(\d+): (DOC\d+): \w+ `([^`]+)`:? (.*)$", flags=re.MULTILINE)
SECTIONS = {"DOC103": "Args", "DOC201": "Returns", "DOC402": "Yields", "DOC503": "Raises"}
SUMMARISED = {"DOC201", "DOC402"}
"""Findings that a summary of what is returned answers."""
LESS_EXACT = {"DOC101", "DOC501", "DOC502"}
"""Findings that DOC103 and DOC503 repeat with names, and exceptions that a called function raises."""


def findings(folder: Path, *, has_internal: bool = False) -> list[str]:
    """Return the findings in the files of a folder as ``file:line: code name: message``."""
    public, found = exported_names(ROOT / folder), []
    for path, line, code, name, message in FINDING.findall(run_pydoclint(folder)):
        is_public = has_internal or name.partition(".")[0] in public
        text = docstring(ROOT / path, int(line))
        is_required = is_public and not (code in SUMMARISED and text.startswith(("Return", "Yield")))
        is_required |= f"{SECTIONS.get(code, '')}:" in text
        if code not in LESS_EXACT and is_required and (code != "DOC503" or undocumented(message)):
            found.append(f"{path}:{line}: {code} {name}: {shortened(message)}")
    return found


def run_pydoclint(folder: Path) -> str:
    """Return what pydoclint prints for the files of a folder."""
    options = [text for name, value in OPTIONS.items() for text in (f"--{name}", str(value))]
    command = [sys.executable, "-c", "import pydoclint.main; pydoclint.main.main()", "--quiet", *options, str(folder)]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603 - our own command
    if finished.returncode not in (0, 1):
        raise SystemExit(finished.stderr)
    return finished.stdout + finished.stderr


def undocumented(message: str) -> set[str]:
    """Return the exceptions that a function raises and its docstring does not name; what it raises anew aside."""
    documented, raised = (set(re.findall(r"'(\w+Error)\b", part)) for part in message.split("exceptions in the body"))
    return raised - documented - set(vars(builtins))


def shortened(message: str) -> str:
    """Return the part of a message that names what is missing."""
    if "Raised exceptions" in message:
        return f"raises {', '.join(sorted(undocumented(message)))}, which the docstring does not name"
    return message.rpartition("violation_codes.html#notes-on-doc103 ). ")[2]


def exported_names(folder: Path) -> set[str]:
    """Return the names in the ``__all__`` of the modules in a folder, private packages aside."""
    names: set[str] = set()
    for path in folder.rglob("*.py"):
        if any(part.startswith("_") and part != "__init__.py" for part in path.relative_to(folder).parts):
            continue
        assigned = (node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Assign))
        lists = (node.value for node in assigned if ast.unparse(node.targets[0]) == "__all__")
        names |= {name for value in lists for name in ast.literal_eval(value)}
    return names


def docstring(path: Path, line: int) -> str:
    """Return the docstring of the function or class that is defined in a line."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.lineno == line:
            return ast.get_docstring(node) or ""
    return ""


def main() -> None:
    """Print the findings; exit with status 1 if there are any."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("captum_leam"), help="Default: captum_leam.")
    parser.add_argument("--internal", action="store_true", help="Require the sections of internal functions, too.")
    given = parser.parse_args()
    found = findings(given.folder, has_internal=given.internal)
    print("\n".join(found) or "pydoclint: no findings")
    raise SystemExit(bool(found))


if __name__ == "__main__":
    main()
