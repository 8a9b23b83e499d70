"""Is a commit slower than another? Two checkouts in turns, on the same network and images.

    git worktree add ../before COMMIT
    python benchmarks/before_after.py --before ../before [--data ../shared/real] [--turns 20] [--out results/before_after]

Each checkout runs in a process of its own, which loads the package and the network once (the first of models.py with --data, else
torchvision's ResNet-18 with random weights) and then waits. In a turn each process runs the job once, the order turned around every time;
the other one sleeps. Printed: the median ratio after / before of the turns in processor time with its 95 % bootstrap interval (10 000 draws
of turns, seed 0), in wall-clock time beside it; and, for the second checkout, the share of ``LEAM.attribute`` that looks up what is known
about the model. Random images of 112 × 112 px, seed 0; the threads of a process are those of PyTorch. Writes before_after.csv.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

JOBS = (
    "one layer, 32 images",
    "one layer, 1 image",
    "five layers, 32 images",
    "path of 4, 8 images",
    "explain_faces fast, 8 images",
)


def jobs_of(data: str) -> dict[str, Callable[[], Any]]:
    """The jobs, in a process that waits."""
    import torch

    from captum_leam import LEAM, explain_faces, suggest_layers

    torch.manual_seed(0)
    if data:
        sys.path.insert(0, data)
        import models

        model = models.ms1m()
    else:
        from torchvision.models import resnet18

        model = resnet18(num_classes=128).eval()
    x = torch.rand(32, 3, 112, 112)
    reference = torch.randn(128)
    found = suggest_layers(model, x)
    modules = [layer.module for layer in found][:5]
    one, five = LEAM(model, modules[1]), LEAM(model, modules)
    return {
        JOBS[0]: lambda: one.attribute(x, reference=reference),
        JOBS[1]: lambda: one.attribute(x[:1], reference=reference),
        JOBS[2]: lambda: five.attribute(x, reference=reference),
        JOBS[3]: lambda: one.attribute(x[:8], reference=reference, n_steps=4),
        JOBS[4]: lambda: explain_faces(model, x[:8], "fast", layers=found, reference=reference),
        "known": lambda: look_up(one, x),
    }


def look_up(leam: Any, x: Any) -> None:
    """What every call does to find that the model was probed; nothing in versions without the probe."""
    try:
        from captum_leam._engine.layer_probe import check_layers
    except ImportError:
        return
    check_layers(leam._passes((x,), (), False, None), (x,))


def wait(data: str) -> None:
    """Run jobs as they come on the standard input, and say how long each took."""
    jobs = jobs_of(data)
    for job in jobs.values():
        job()
    for line in sys.stdin:
        job, repeats = json.loads(line)
        began, cpu = time.perf_counter(), time.process_time()
        for _ in range(repeats):
            jobs[job]()
        print(json.dumps([time.perf_counter() - began, time.process_time() - cpu]), flush=True)


class Checkout:
    """A process that runs the package of one checkout."""

    def __init__(self, folder: Path, data: Path | None) -> None:
        command = [sys.executable, __file__, "--wait", str(data or "")]
        environment = {**os.environ, "PYTHONPATH": str(folder.resolve())}
        self.process = subprocess.Popen(  # noqa: S603 - this file itself
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, job: str, repeats: int) -> list[float]:
        """Wall-clock and processor seconds of a job."""
        self.process.stdin.write(json.dumps([job, repeats]) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def interval(ratios: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of the median."""
    draws = np.random.default_rng(0).choice(ratios, (10_000, len(ratios)))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    return float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--after", type=Path, default=Path(__file__).resolve().parents[1])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("results/before_after"))
    parser.add_argument("--wait", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.wait is not None:
        wait(options.wait)
        return
    sides = {"before": Checkout(options.before, options.data), "after": Checkout(options.after, options.data)}
    rows = []
    for job in JOBS:
        repeats = 8 if ", 1 image" in job else 1
        for turn in range(options.turns):
            for side in list(sides)[:: 1 if turn % 2 else -1]:
                wall, cpu = sides[side].run(job, repeats)
                rows.append({"job": job, "turn": turn, "side": side, "wall": wall / repeats, "cpu": cpu / repeats})
        table = pd.DataFrame(rows).query("job == @job").pivot_table(["wall", "cpu"], "turn", "side")
        ratio = {kind: (table[kind]["after"] / table[kind]["before"]).to_numpy() for kind in ("cpu", "wall")}
        low, high = interval(ratio["cpu"])
        print(
            f"{job}: {np.median(ratio['cpu']):.3f} [{low:.3f}, {high:.3f}] (wall clock {np.median(ratio['wall']):.3f})",
            flush=True,
        )
    known = min(sides["after"].run("known", 20)[1] for _ in range(5)) / 20
    for job in JOBS[:2]:
        whole = pd.DataFrame(rows).query("job == @job and side == 'after'")["cpu"].median()
        print(f"look-up of what is known about the model: {1000 * known:.2f} ms, {known / whole:.2%} of {job}")
    options.out.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(options.out / "before_after.csv", index=False)


if __name__ == "__main__":
    main()
