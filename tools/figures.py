"""Print the size of the package: per folder files, lines, lines of code, public names, classes; and circular imports.

Lines of code are lines with a token other than a comment or a bare string (docstrings, and the texts below constants). Public names
are those in an ``__all__``. Circular imports are sets of modules that each reach the other ones by imports, those in functions
included, those under ``if TYPE_CHECKING`` and the lazy names of packages not; a name taken from a package counts as an import of
its ``__init__``. Circular folders are the same with all modules of a folder as one.
"""

import ast
import io
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "captum_leam"
BESIDE = ("tests", "benchmarks", "examples", "docs", "tools")

LAYOUT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}


@dataclass(frozen=True)
class Source:
    """One file of Python, parsed."""

    path: Path
    text: str
    tree: ast.Module

    @property
    def module(self) -> str:
        """Dotted name from the root of the repository."""
        return ".".join(self.path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")

    @property
    def folder(self) -> str:
        """First folder inside the package, or "top level"."""
        parts = self.path.relative_to(ROOT / PACKAGE).parts
        return parts[0] if len(parts) > 1 else "top level"

    @property
    def lines(self) -> int:
        """Number of lines."""
        return len(self.text.splitlines())

    @property
    def code(self) -> int:
        """Number of lines of code."""
        bare = set()
        for node in ast.walk(self.tree):
            if (
                isinstance(node, ast.Expr)
                and isinstance(node.value, ast.Constant)
                and isinstance(node.value.value, str)
            ):
                bare |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        lines: set[int] = set()
        for token in tokenize.generate_tokens(io.StringIO(self.text).readline):
            if token.type not in LAYOUT:
                lines |= set(range(token.start[0], token.end[0] + 1))
        return len(lines - bare)

    @property
    def classes(self) -> int:
        """Number of classes, nested ones included."""
        return sum(isinstance(node, ast.ClassDef) for node in ast.walk(self.tree))

    @property
    def public(self) -> int:
        """Number of names in ``__all__``."""
        for node in self.tree.body:
            if isinstance(node, ast.Assign) and any(
                isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets
            ):
                return len(ast.literal_eval(node.value))
        return 0


def sources(folder: Path) -> list[Source]:
    """Return the files of Python below a folder, in order."""
    texts = {path: path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.py"))}
    return [Source(path, text, ast.parse(text)) for path, text in texts.items()]


# -- circular imports ----------------------------------------------------------------------------------


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield all nodes below one, except those under ``if TYPE_CHECKING``."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for other in child.orelse:
                yield other
                yield from statements(other)
            continue
        yield child
        yield from statements(child)


def imports(source: Source, modules: set[str]) -> set[str]:
    """Return the modules of the package that a file imports."""
    own = source.module if source.path.name == "__init__.py" else source.module.rpartition(".")[0]
    found = set()
    for node in statements(source.tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = own.split(".")[: len(own.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found |= {f"{base}.{alias.name}" if f"{base}.{alias.name}" in modules else base for alias in node.names}
    return found & modules - {source.module}


def circles(edges: Iterable[tuple[str, str]]) -> list[list[str]]:
    """Return the sets of names that all reach each other, each sorted."""
    pairs = sorted(set(edges))
    names = sorted({name for pair in pairs for name in pair})
    number = {name: i for i, name in enumerate(names)}
    rows, columns = [number[a] for a, _ in pairs], [number[b] for _, b in pairs]
    graph = coo_array(([1] * len(pairs), (rows, columns)), shape=(len(names), len(names)))
    _, of_name = connected_components(graph, directed=True, connection="strong")
    sets = [[name for name, one in zip(names, of_name, strict=True) if one == i] for i in sorted(set(of_name))]
    return sorted(members for members in sets if len(members) > 1)


# -- printing ------------------------------------------------------------------------------------------


def print_row(name: str, files: list[Source]) -> None:
    """Print one line of the table."""
    sums = [
        len(files),
        *(sum(getattr(file, what) for file in files) for what in ("lines", "code", "public", "classes")),
    ]
    print(f"{name:<14}" + "".join(f"{number:>9,}" for number in sums))


def main() -> None:
    """Print the tables of the package and of what stands beside it, and the circular imports."""
    files = sources(ROOT / PACKAGE)
    print(f"{'':<14}" + "".join(f"{name:>9}" for name in ("files", "lines", "code", "public", "classes")))
    for folder in sorted({file.folder for file in files}, key=lambda name: (name != "top level", name)):
        print_row(folder, [file for file in files if file.folder == folder])
    print_row("package", files)
    for name in BESIDE:
        print_row(name, sources(ROOT / name))
    modules = {file.module for file in files}
    edges = [(file.module, other) for file in files for other in imports(file, modules)]
    folder_of = {file.module: file.folder for file in files}
    across = [(folder_of[a], folder_of[b]) for a, b in edges if "top level" not in (folder_of[a], folder_of[b])]
    print(f"\nimports between modules: {len(edges)}")
    for what, found in (("modules", circles(edges)), ("folders", circles((a, b) for a, b in across if a != b))):
        print(f"circular {what}: {len(found)}")
        for members in found:
            print(f"  {', '.join(members)}")


if __name__ == "__main__":
    main()
