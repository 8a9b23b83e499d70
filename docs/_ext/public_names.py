"""Public names: links by the name that people import, a table of all of them, and a warning for one that no page documents.

``captum_leam.regions.region_report`` is defined in ``captum_leam.regions.report``, and documented there. The imports of the
packages' ``__init__`` say what stands for what; nothing is imported for it.
"""

import ast
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.domains.python import PythonDomain
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).resolve().parents[2] / "captum_leam"
NOT_DOCUMENTED = {"captum_leam.__version__"}
log = logging.getLogger(__name__)


def public_names() -> dict[str, str]:
    """Public name → where it is defined: ``captum_leam.LEAM`` → ``captum_leam.leam.LEAM``."""
    found: dict[str, str] = {}
    for init in [ROOT / "__init__.py", *sorted(ROOT.glob("[a-z]*/__init__.py"))]:
        package = ".".join(init.relative_to(ROOT.parent).parent.parts)
        tree = ast.parse(init.read_text())
        where = {
            alias.asname or alias.name: f"{node.module}.{alias.name}"
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("captum_leam")
            for alias in node.names
        }
        exported = [
            ast.literal_eval(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
        ]
        found |= {f"{package}.{name}": where.get(name, f"{package}.{name}") for names in exported for name in names}
    # a package may hand on what another package exports
    return {name: found.get(defined, defined) for name, defined in found.items()}


NAMES = public_names()


def defined_as(target: str) -> str | None:
    """The full name of what a public name, or a method of it, stands for."""
    parts = target.split(".")
    for cut in range(len(parts), 1, -1):
        head = ".".join(parts[:cut])
        if head in NAMES:
            return ".".join([NAMES[head], *parts[cut:]])
    return None


def resolve(app: Sphinx, env: BuildEnvironment, node: Any, content: nodes.Element) -> nodes.Element | None:
    """Links that name an object as it is imported, in full or within the module that the text is from."""
    if node.get("refdomain") != "py":
        return None
    packages = [".".join(str(node.get("py:module")).split(".")[:n]) for n in (2, 1)]
    candidates = [node["reftarget"], *(f"{package}.{node['reftarget']}" for package in packages)]
    for full in filter(None, map(defined_as, candidates)):
        domain = env.domains["py"]
        found = domain.resolve_xref(env, node["refdoc"], app.builder, "obj", full, node, content)
        if found is not None:
            return found
    return None


class PublicNames(SphinxDirective):
    """``.. public-names::`` (in ``eval-rst``): every public name with what it is for, package by package."""

    def run(self) -> list[nodes.Node]:
        from importlib import import_module

        lines: list[str] = []
        for package in dict.fromkeys(name.rpartition(".")[0] for name in NAMES):
            names = [name for name in NAMES if name.rpartition(".")[0] == package and name not in NOT_DOCUMENTED]
            module = import_module(package)
            lines += [f".. rubric:: {package}", "", ".. list-table::", "   :widths: 30 70", ""]
            for name in sorted(names, key=lambda n: n.rpartition(".")[2].lower()):
                short = name.rpartition(".")[2]
                lines += [f"   * - :py:obj:`~{name}`", f"     - {summary(getattr(module, short), NAMES[name])}"]
            lines += [""]
        container = nodes.container()
        self.state.nested_parse(StringList(lines, "public-names"), 0, container)
        return container.children


def summary(value: Any, defined: str) -> str:
    """First sentence of the docstring; of a constant, of the string below it."""
    documented = callable(value) and not isinstance(value, dict | tuple)
    text = (value.__doc__ or "") if documented else below(defined)
    first = text.strip().split("\n\n")[0].replace("\n", " ")
    return re.sub(r":(?!math)[\w:]+:`[~!]?([^`]*)`", r"``\1``", " ".join(first.split()))  # names, not links


def below(defined: str) -> str:
    """The string literal under a constant, from the source."""
    module, _, name = defined.rpartition(".")
    path = ROOT.parent.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    body = ast.parse(path.read_text()).body
    for node, after in zip(body, [*body[1:], ast.Pass()], strict=True):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        named = any(getattr(target, "id", None) == name for target in targets)
        if named and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            return str(after.value.value)
    return ""


def check(app: Sphinx, env: BuildEnvironment) -> None:
    """A public name that no page documents is a warning, and so an error of the build."""
    domain = env.domains["py"]
    assert isinstance(domain, PythonDomain)  # noqa: S101
    for name, defined in NAMES.items():
        if defined not in domain.objects and name not in NOT_DOCUMENTED:
            log.warning("%s is public, but %s is on no page of the reference", name, defined)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("missing-reference", resolve, priority=400)
    app.connect("env-check-consistency", check)
    app.add_directive("public-names", PublicNames)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
