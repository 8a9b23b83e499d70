"""What is public: the names in ``__all__`` of the modules that the reference documents.

Sphinx documents them by ``automodule``; this extension adds the text below constants, links that name a public object by the
module that defines it, and a warning for a public name that no page documents.
"""

import ast
import importlib
import inspect
import pkgutil
import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.pycode import ModuleAnalyzer
from sphinx.util import logging

API = Path(__file__).resolve().parents[1] / "api"
log = logging.getLogger(__name__)


def public_modules() -> list[str]:
    """Return the modules that the pages of the reference document."""
    pages = "\n".join(page.read_text() for page in sorted(API.glob("*.md")))
    return re.findall(r"^\.\. automodule:: (\S+)$", pages, flags=re.MULTILINE)


def public_names() -> dict[str, Any]:
    """Return every public name with its value: ``captum_leam.LEAM`` and so on."""
    modules = {name: importlib.import_module(name) for name in public_modules()}
    found = {
        f"{name}.{short}": getattr(module, short)
        for name, module in modules.items()
        for short in getattr(module, "__all__", ())
    }
    return {name: value for name, value in found.items() if not name.endswith("__")}


def names_to_know() -> list[str]:
    """Return the names that the first page of the reference lists by task."""
    return re.findall(r"^   ~(captum_leam\.\S+)$", (API / "index.md").read_text(), flags=re.MULTILINE)


def doc_of(name: str, value: Any) -> str:
    """Return the docstring of a public name; of a constant, the string below its assignment."""
    if inspect.isclass(value) or inspect.isfunction(value):
        return inspect.cleandoc(value.__doc__ or "")
    short = name.rpartition(".")[2]
    homes = [m for n, m in sorted(sys.modules.items()) if n.startswith("captum_leam") and vars(m).get(short) is value]
    return next(filter(None, (_below(Path(str(home.__file__)), short) for home in homes)), "")


def _below(path: Path, name: str) -> str:
    body = ast.parse(path.read_text()).body
    for node, after in zip(body, [*body[1:], ast.Pass()], strict=True):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        named = any(getattr(target, "id", None) == name for target in targets)
        if named and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            return inspect.cleandoc(str(after.value.value))
    return ""


def describe_constants(app: Sphinx) -> None:
    """Give autodoc the text below constants, which it looks for in the module that imports them."""
    for name, value in public_names().items():
        module, _, short = name.rpartition(".")
        if not (inspect.isclass(value) or inspect.isfunction(value)):
            analyzer = ModuleAnalyzer.for_module(module)
            analyzer.analyze()
            analyzer.attr_docs["", short] = [*doc_of(name, value).splitlines(), ""]


def resolve(app: Sphinx, env: BuildEnvironment, node: Any, content: nodes.Element) -> nodes.Element | None:
    """Link an object by its public name; one that exists and is not public stays plain text."""
    target, module = node["reftarget"], str(node.get("py:module"))
    below = [name for name in sorted(sys.modules) if f"{name}.".startswith(f"{module}.")]
    found = [value for full in (target, *(f"{name}.{target}" for name in below)) for value in _values(full)]
    if node.get("refdomain") != "py" or not found:
        return None
    for name, value in public_names().items():
        if value is found[0]:
            return (
                env.domains["py"].resolve_xref(env, node["refdoc"], app.builder, "obj", name, node, content) or content
            )
    return content


def _values(full: str) -> list[Any]:
    """Return the value of the package that has this full name, or nothing."""
    if full.partition(".")[0] != "captum_leam":
        return []
    try:
        return [pkgutil.resolve_name(full)]
    except (AttributeError, ImportError):
        return []


def check(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn, which fails the build, about a public name that no page documents."""
    names = public_names()
    documented = [names[entry[0]] for entry in env.domains["py"].get_objects() if entry[0] in names]
    for name in (name for name, value in names.items() if not any(value is known for known in documented)):
        log.warning("%s is public, but on no page of the reference", name)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", describe_constants)
    app.connect("missing-reference", resolve, priority=400)
    app.connect("env-check-consistency", check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
