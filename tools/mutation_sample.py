"""Run mutmut on a seeded sample of mutants, and write what became of each.

    python tools/mutation_sample.py [--count 200] [--seed 0] [--out results/mutants.csv]

mutmut (settings in pyproject.toml) copies the package and its tests to ``mutants/``, records once which tests reach which function, and
runs only these for a mutant, forked from a process that has imported PyTorch. ``mutmut show NAME`` prints a mutant, ``mutmut run NAME``
runs it again, and ``mutmut browse`` goes through all of them.
"""

import argparse
import csv
import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = {0: "survived", 1: "killed", 3: "killed", 5: "no tests", 33: "no tests"}
"""Exit codes of mutmut's workers; any other ended the process or ran past the limit, which kills the mutant too."""


def generate() -> dict[str, int | None]:
    """Write all mutants, record the tests that reach them, and return the mutants as :func:`exit_codes` does."""
    # mutmut has no command for this alone: it does both, then fails because no mutant has the name, and says so on stderr
    command = [sys.executable, "-m", "mutmut", "run", "a name that no mutant has"]
    done = subprocess.run(command, cwd=ROOT, check=False, stderr=subprocess.PIPE, text=True)  # noqa: S603
    if "nothing matches" not in done.stderr:
        raise SystemExit(f"{done.stderr}\nmutmut could not write the mutants or run the tests: see above.")
    return exit_codes()


def exit_codes() -> dict[str, int | None]:
    """Return every mutant with the exit code of its tests; None if it did not run."""
    files = sorted((ROOT / "mutants").rglob("*.meta"))
    return {name: code for path in files for name, code in json.loads(path.read_text())["exit_code_by_key"].items()}


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="mutants to draw; default: 200")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample; default: 0")
    parser.add_argument("--workers", type=int, default=1, help="mutants that run at the same time; default: 1")
    parser.add_argument("--out", type=Path, default=Path("mutants.csv"), help="CSV file to write; default: mutants.csv")
    args = parser.parse_args()
    names = sorted(generate())
    chosen = sorted(random.Random(args.seed).sample(names, min(args.count, len(names))))  # noqa: S311
    print(f"{len(names)} mutants; {len(chosen)} drawn with seed {args.seed}", flush=True)
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", str(args.workers), *chosen]
    if subprocess.run(command, cwd=ROOT, check=False).returncode:  # noqa: S603
        raise SystemExit("mutmut ended with an error: see its output above.")
    codes = exit_codes()
    rows = [(name, RESULTS.get(codes[name], "killed")) for name in chosen if codes[name] is not None]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with args.out.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("mutant", "result"), *rows])
    print(", ".join(f"{count} {result}" for result, count in Counter(result for _, result in rows).most_common()))


if __name__ == "__main__":
    main()
