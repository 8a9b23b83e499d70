"""How many small faults of the code do the tests see? A seeded sample of mutants over the modules that hold the mathematics.

    python tools/mutation_sample.py --out mutants.csv [--count 200] [--seed 0] [--workers 1] [--resume] [--list] [--only TEXT]
                                    [--sample FILE.csv]

One mutant is one change of one expression: a comparison, an arithmetic operator, a constant, ``not``, ``and`` for ``or``, a keyword
argument left out, a value not returned. It is written into a copy of the package, and the tests of that module run on the copy, the nearest
first (:data:`NEAREST`), then everything that uses the module (:data:`WIDER`), until one fails; those marked slow are left out. What fails,
ends the process, or takes far longer than the unchanged package counts as killed. Every row of the CSV is written when it is known;
``--resume`` goes on from there.

mutmut and cosmic-ray run every mutant of a file against one command for all; what is needed here is a seeded sample over many files with
tests chosen for each, and one process that has imported PyTorch already, from which every run forks: a mutant costs seconds. Linux and
macOS only.
"""

import argparse
import ast
import csv
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "captum_leam"
FACTOR, LEAST = 10, 300
"""Seconds a run may take: so many times what the unchanged package takes, and at least so many."""

CONTRACT = ["test_exact.py", "test_captum_contract.py", "test_guards.py"]
OF_MAPS = ["test_maps.py", "deep/test_parts_properties.py"]
DEFAULTS = "test_defaults.py"

# The tests nearest to a file; for a folder's other files, those of the same name.
NEAREST: dict[str, list[str]] = {
    "leam.py": CONTRACT,
    "objectives.py": CONTRACT,
    "maps.py": OF_MAPS,
    "faithfulness/fills.py": ["faithfulness/test_fills_and_controls.py", "deep/test_parts_properties.py"],
    "faithfulness/controls.py": ["faithfulness/test_fills_and_controls.py", "deep/test_parts_properties.py"],
    "faithfulness/statistics.py": ["faithfulness/test_statistics.py", "deep/test_parts_properties.py"],
    "faithfulness/result.py": ["faithfulness/test_occlusion.py"],
    "faithfulness/ranking.py": ["faithfulness/test_ranking_and_masks.py"],
    "faithfulness/person_masks.py": ["faithfulness/test_ranking_and_masks.py"],
    "stats/estimates.py": ["patterns/test_specificity.py", "test_bootstrap.py"],
    "patterns/controls.py": ["patterns/test_claim.py"],
    "patterns/figures.py": ["patterns/test_claim.py", "patterns/test_agreement.py", "patterns/test_groups.py"],
    "regions/components.py": ["regions/test_scheme.py", "regions/test_parsers.py"],
    "regions/figure.py": ["regions/test_people.py", "regions/test_report.py"],
    "regions/label_files.py": ["regions/test_parsers.py"],
    "regions/named.py": ["regions/test_parsers.py"],
    "regions/superpixels.py": ["regions/test_parsers.py"],
    "regions/template.py": ["regions/test_template.py", "deep/test_parts_properties.py"],
    "regions/report.py": ["regions/test_report.py", "deep/test_parts_properties.py"],
    "regions/scheme.py": ["regions/test_scheme.py", "deep/test_parts_properties.py"],
}
WIDER: dict[str, list[str]] = {
    "leam.py": ["test_cost.py", "deep", "test_properties.py", "test_rounds.py", "test_pairs.py", "faithfulness"],
    "objectives.py": ["deep", "test_cost.py", "test_pairs.py", "test_rounds.py", "faithfulness", "patterns"],
    "maps.py": ["test_exact.py", "test_rounds.py", "test_suggest.py", "test_report.py", "patterns", "faithfulness"],
    "faithfulness": ["faithfulness", "deep/test_parts_properties.py", "test_report.py", "test_plots.py"],
    "patterns": ["patterns", "study/test_study.py", "study/test_report.py"],
    "regions": ["regions", "deep/test_parts_properties.py", "test_report.py", "test_cli.py"],
}
FILES = ("leam.py", "objectives.py", "maps.py", "faithfulness/*.py", "patterns/*.py", "regions/*.py")


@dataclass(frozen=True)
class Mutant:
    """One change: bytes ``start`` to ``end`` of a file become ``after``."""

    number: int
    file: str
    line: int
    kind: str
    before: str
    after: str
    start: int
    end: int


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant."""

    number: int
    file: str
    line: int
    kind: str
    before: str
    after: str
    result: str
    """``killed``, ``timeout`` (killed, too), or ``survived``."""
    by: str
    """The first test that failed."""
    seconds: float


# -- what can be changed -----------------------------------------------------------------------------------

COMPARED = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
COMPUTED = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.MatMult: ast.Add,
}  # fmt: skip


def changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Kinds of change and what the node becomes."""
    if isinstance(node, ast.Compare):
        for i, one in enumerate(node.ops):
            ops = [COMPARED[type(one)]() if i == j else other for j, other in enumerate(node.ops)]
            yield "comparison", ast.Compare(node.left, ops, node.comparators)
    elif isinstance(node, ast.BinOp) and type(node.op) in COMPUTED:
        yield "arithmetic", ast.BinOp(node.left, COMPUTED[type(node.op)](), node.right)
    elif isinstance(node, ast.BoolOp):
        yield "logic", ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "not", node.operand
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Invert):
        yield "sign", node.operand
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield "constant", ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield "constant", ast.Constant(node.value + 1 if isinstance(node.value, int) else node.value * 1.5 + 0.01)
        yield "constant", ast.Constant(node.value - 1 if isinstance(node.value, int) else node.value / 2 - 0.01)
    elif isinstance(node, ast.Call):
        for i, keyword in enumerate(node.keywords):
            if keyword.arg not in (None, "stacklevel"):
                yield "keyword", ast.Call(node.func, node.args, [k for j, k in enumerate(node.keywords) if j != i])
    elif isinstance(node, ast.Return) and node.value is not None and not _is_none(node.value):
        yield "return", ast.Return(ast.Constant(None))
    elif isinstance(node, ast.IfExp):
        yield "condition", ast.IfExp(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def reached(node: ast.AST) -> Iterator[ast.AST]:
    """Nodes that do something: no annotations, decorators, types, texts of messages."""
    yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params", "bases"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.Raise | ast.JoinedStr) or not isinstance(child, ast.AST):
                continue
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                continue
            if isinstance(child, ast.Assign) and isinstance(node, ast.Module) and _is_a_type(child):
                continue
            yield from reached(child)


def _is_a_type(node: ast.Assign) -> bool:
    """``Fill = Callable[…]`` or ``A | B`` at the top of a module."""
    return isinstance(node.value, ast.Subscript) or (
        isinstance(node.value, ast.BinOp) and "BitOr" in ast.dump(node.value)
    )


def mutants_of(file: str) -> list[Mutant]:
    """Every change of a file, in order."""
    content = (PACKAGE / file).read_bytes()
    starts = [0]
    for line in content.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found = []
    for node in reached(ast.parse(content)):
        for kind, changed in changes(node):
            start = starts[node.lineno - 1] + node.col_offset
            end = starts[node.end_lineno - 1] + node.end_col_offset
            text = ast.unparse(ast.fix_missing_locations(changed))
            after = text if kind in ("return", "keyword") else f"({text})"
            before = " ".join(content[start:end].decode().split())
            found.append(Mutant(0, file, node.lineno, kind, before, after, start, end))
    return found


def sample(count: int, seed: int) -> list[Mutant]:
    """So many of all mutants, each as likely as the other, by file and line."""
    files = sorted(path.relative_to(PACKAGE).as_posix() for pattern in FILES for path in PACKAGE.glob(pattern))
    every = [mutant for file in files if not file.endswith("__init__.py") for mutant in mutants_of(file)]
    chosen = sorted(random.Random(seed).sample(range(len(every)), min(count, len(every))))  # noqa: S311
    print(f"{len(every)} mutants in {len(files)} files; {len(chosen)} drawn with seed {seed}", flush=True)
    return [Mutant(**{**asdict(every[i]), "number": i}) for i in chosen]


def again(rows: list["Outcome"]) -> list[Mutant]:
    """The mutants of an earlier run in the code as it is now: by their text, the nearest line first; what is gone is left out."""
    found = []
    for row in rows:
        same = [m for m in mutants_of(row.file) if (m.kind, m.before, m.after) == (row.kind, row.before, row.after)]
        if same:
            nearest_line = min(same, key=lambda m: abs(m.line - row.line))
            found.append(Mutant(**{**asdict(nearest_line), "number": row.number}))
    print(f"{len(found)} of {len(rows)} mutants are in the code as it is now", flush=True)
    return found


# -- running ---------------------------------------------------------------------------------------------


def nearest(file: str) -> list[str]:
    """Test files that are run first."""
    folder, _, name = file.rpartition("/")
    found = [*NEAREST.get(file, [f"{folder}/test_{name}"]), DEFAULTS]
    return [str(ROOT / "tests" / test) for test in found] + [f"DOCTESTS {file}"]


def wider(file: str) -> list[str]:
    """What is run where the nearest let a mutant live."""
    found = WIDER.get(file) or WIDER[file.partition("/")[0]]
    done = nearest(file)
    tests = [p for name in found for p in sorted((ROOT / "tests" / name).rglob("test_*.py")) or [ROOT / "tests" / name]]
    return [str(path) for path in dict.fromkeys(tests) if str(path) not in done]


def import_what_is_slow() -> None:
    """Everything but the package, once: runs fork from here."""
    import captum.attr
    import captum.metrics
    import hypothesis
    import matplotlib as mpl
    import pandas as pd
    import pytest
    import scipy.stats
    import skimage.segmentation
    import torch
    import torchvision

    torch.set_num_threads(1)
    mpl.use("agg")
    del captum, hypothesis, pd, pytest, scipy, skimage, torchvision
    if any(name.partition(".")[0] == "captum_leam" for name in sys.modules):
        raise SystemExit("captum_leam is imported already: runs would share it.")


class _First:
    """Remembers the first failure."""

    def __init__(self, report: Path, package: Path) -> None:
        self.report, self.package = report, package

    def pytest_runtest_logreport(self, report: object) -> None:
        self._note(report)

    def pytest_collectreport(self, report: object) -> None:
        self._note(report)

    def _note(self, report: object) -> None:
        if report.failed and not self.report.read_text():
            self.report.write_text(f"{report.nodeid} ({report.when})".replace(str(self.package), "captum_leam"))

    def pytest_sessionstart(self) -> None:
        import captum_leam  # the copy, and no other

        if not str(Path(captum_leam.__file__)).startswith(str(self.package)):
            os._exit(99)


def run(folder: Path, tests: list[str], seconds: float) -> tuple[str, str]:
    """Fork, run tests on the package in a folder, and tell ``passed``, ``failed`` or ``timeout``, and which test failed first."""
    report = folder / "first"
    report.write_text("")
    child = os.fork()
    if child == 0:
        _in_child(folder, tests, report)
    deadline = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() > deadline:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "timeout", report.read_text()
        time.sleep(0.05)
    code = os.waitstatus_to_exitcode(status)
    if code in (4, 5, 99):
        raise SystemExit(f"the tests {tests} did not run ({code}): {(folder / 'said').read_text()[-3000:]}")
    return ("passed" if code == 0 else "failed"), report.read_text() or f"exit code {code}"


def _in_child(folder: Path, tests: list[str], report: Path) -> None:
    os.setpgid(0, 0)
    said = os.open(folder / "said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(said, 1)
    os.dup2(said, 2)
    os.environ.update({"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"})
    sys.path.insert(0, str(folder))
    os.chdir(ROOT)
    import pytest

    given = [
        str(folder / "captum_leam" / t.removeprefix("DOCTESTS ")) if t.startswith("DOCTESTS ") else t for t in tests
    ]
    options = [
        "-x",
        "-q",
        "-m",
        "not slow",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:benchmark",
        "--rootdir",
        str(ROOT),
        "-c",
        str(ROOT / "pyproject.toml"),
    ]
    paths = f"pythonpath={folder} {ROOT / 'tests'} {ROOT / 'tests' / 'deep'} {ROOT}"
    code = 1
    try:
        code = int(pytest.main([*options, "-o", paths, *given], plugins=[_First(report, folder)]))
    finally:
        sys.stdout.flush()
        os._exit(code)


class Runs:
    """Copies of the package with a change, and how long the unchanged one takes."""

    def __init__(self, only_nearest: bool = False) -> None:
        self.only_nearest = only_nearest
        self.takes: dict[tuple[str, ...], float] = {}

    def seconds(self, tests: list[str]) -> float:
        """What the unchanged package takes; it has to pass."""
        key = tuple(tests)
        if key not in self.takes:
            with self.copy() as folder:
                began = time.monotonic()
                result, by = run(folder, tests, 3600)
                if result != "passed":
                    raise SystemExit(f"the unchanged package fails {by}:\n{(folder / 'said').read_text()[-3000:]}")
            self.takes[key] = time.monotonic() - began
            print(f"  {self.takes[key]:5.1f} s: {' '.join(Path(t).name for t in tests)}", flush=True)
        return self.takes[key]

    @staticmethod
    def copy(mutant: Mutant | None = None) -> "_Copy":
        """A folder that holds the package, changed."""
        return _Copy(mutant)

    def outcome(self, mutant: Mutant) -> Outcome:
        """Run a mutant against the nearest tests, then the wider ones."""
        began, result, by = time.monotonic(), "passed", ""
        with self.copy(mutant) as folder:
            for tests in (nearest(mutant.file), *([] if self.only_nearest else [wider(mutant.file)])):
                result, by = run(folder, tests, max(LEAST, FACTOR * self.seconds(tests)))
                if result != "passed":
                    break
        told = {"passed": "survived", "failed": "killed"}.get(result, result)
        shared = {k: v for k, v in asdict(mutant).items() if k not in ("start", "end")}
        by = by.removeprefix(f"{ROOT}/") if told != "survived" else ""
        return Outcome(**shared, result=told, by=by, seconds=round(time.monotonic() - began, 1))


class _Copy:
    def __init__(self, mutant: Mutant | None) -> None:
        self.mutant = mutant

    def __enter__(self) -> Path:
        self.folder = Path(tempfile.mkdtemp(prefix="mutant"))
        shutil.copytree(PACKAGE, self.folder / "captum_leam", ignore=shutil.ignore_patterns("__pycache__"))
        if (m := self.mutant) is not None:
            path = self.folder / "captum_leam" / m.file
            content = path.read_bytes()
            path.write_bytes(content[: m.start] + m.after.encode() + content[m.end :])
        return self.folder

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


# -- the command -------------------------------------------------------------------------------------------


def known(path: Path) -> list[Outcome]:
    """Rows that are written already."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        Outcome(**{**r, "number": int(r["number"]), "line": int(r["line"]), "seconds": float(r["seconds"])})
        for r in rows
    ]


def told(outcomes: list[Outcome]) -> str:
    """The share killed, by folder, and who lives."""
    lines = []
    for group in ("", *sorted({o.file.partition("/")[0] for o in outcomes})):
        own = [o for o in outcomes if not group or o.file.partition("/")[0] == group]
        killed = sum(o.result != "survived" for o in own)
        lines.append(f"{group or 'all':16s} {killed:3d} of {len(own):3d} killed ({killed / max(1, len(own)):.1%})")
    alive = [
        f"  {o.number} {o.file}:{o.line} {o.kind}: {o.before}  →  {o.after}" for o in outcomes if o.result == "survived"
    ]
    return "\n".join([*lines, "survivors:", *alive])


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("mutants.csv"))
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", default="", help="mutants whose FILE:LINE holds this text")
    parser.add_argument("--sample", type=Path, help="instead of drawing: the mutants of this CSV")
    parser.add_argument("--resume", action="store_true", help="keep the rows of --out")
    parser.add_argument("--survivors", action="store_true", help="with --resume: run those again that lived")
    parser.add_argument("--nearest", action="store_true", help="leave the wider tests out, for a quick look")
    parser.add_argument("--list", action="store_true", help="show the mutants, run none")
    args = parser.parse_args()
    drawn = again(known(args.sample)) if args.sample else sample(args.count, args.seed)
    chosen = [m for m in drawn if args.only in f"{m.file}:{m.line}"]
    if args.list:
        for m in chosen:
            print(f"{m.number} {m.file}:{m.line} {m.kind}: {m.before}  →  {m.after}")
        return
    done = [o for o in known(args.out) if o.result != "survived" or not args.survivors] if args.resume else []
    have = {(o.number, o.file, o.before, o.after) for o in done}
    left = [m for m in chosen if (m.number, m.file, m.before, m.after) not in have]
    random.Random(args.seed).shuffle(left)  # noqa: S311 - what is done first is a sample, too
    import_what_is_slow()
    runs = Runs(args.nearest)
    with args.out.open("w", newline="") as file, ThreadPoolExecutor(args.workers) as pool:
        rows = csv.DictWriter(file, [f.name for f in fields(Outcome)])
        rows.writeheader()
        rows.writerows(asdict(o) for o in done)
        for o in pool.map(runs.outcome, left):
            rows.writerow(asdict(o))
            file.flush()
            done.append(o)
            print(
                f"{o.result:9s} {o.seconds:6.1f} s  {o.file}:{o.line} {o.kind}: {o.before[:60]} → {o.after[:60]}  {o.by}",
                flush=True,
            )
    print(told(sorted(done, key=lambda o: o.number)))


if __name__ == "__main__":
    main()
