"""What a method costs: passes, seconds of one core, and peak memory.

    python benchmarks/peers_cost.py --data ../shared/real --network NAME [--quick]

prints the peak memory of every method in MiB, as JSON: what the process holds at most during one call with two images, beyond what it
held before. Every method runs in a process of its own, forked before torch has computed anything, which has loaded the network and
run it forwards and backwards once. Freed blocks go back to the system (MALLOC_MMAP_THRESHOLD_), so that what one step has
used and freed is not hidden from the next; the peak is the kernel's (VmHWM, reset before the call). Linux only.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from peers_methods import Method, every_method, in_parts
from peers_readings import Raw
from research_data import load_faces, load_zoo
from torch import Tensor, nn

from captum_leam import suggest_layers
from captum_leam.explainers import Cost, ExtremalPerturbation

IMAGES = 2
LIMIT_NAME = "limit (extremal perturbation)"
RETURNED = {"MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}  # blocks from 64 KiB are given back when freed


# -- passes and seconds --------------------------------------------------------------------------------


@contextmanager
def metered(model: nn.Module) -> Iterator[dict[str, int]]:
    """Images forward through the model, and gradients back from its output, counted by hooks for the time of the block."""
    counts = {"forwards": 0, "backwards": 0}

    def back(gradient: Tensor) -> None:
        counts["backwards"] += len(gradient)

    def forward(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        counts["forwards"] += len(args[0])
        if output.requires_grad:
            output.register_hook(back)

    handle = model.register_forward_hook(forward)
    try:
        yield counts
    finally:
        handle.remove()


def run(method: Method, model: nn.Module, images: Tensor, references: Tensor) -> tuple[Raw, dict[str, float]]:
    """Return raw attributions; forwards, backwards and seconds of one core, per image."""
    started = time.process_time()
    with metered(model) as counts:
        own_batches = method.explainer is not None
        raw = method.raw(images, references) if own_batches else in_parts(method, images, references)
    seconds = time.process_time() - started
    cost = Cost(counts["forwards"] / len(images), counts["backwards"] / len(images))
    if method.explainer is not None:
        cost = method.explainer.cost  # hooks on the model cannot see into a vectorised backward pass
    return raw, {
        "forwards": cost.forwards,
        "backwards": cost.backwards,
        "seconds": seconds / len(images),
    }


# -- peak memory ---------------------------------------------------------------------------------------


def peak_memories(data: Path, network: str, quick: bool) -> dict[str, float]:
    """Method → MiB, measured by this script in a process of its own; empty where the system does not tell."""
    command = [sys.executable, __file__, "--data", str(data), "--network", network, *(["--quick"] if quick else [])]
    done = subprocess.run(command, env={**os.environ, **RETURNED}, capture_output=True, text=True)  # noqa: S603
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        print(f"peak memory of {network} was not measured: {why}", flush=True)
        return {}
    return json.loads(done.stdout.splitlines()[-1])


def memory_of(explain: Callable[[], object]) -> float:
    """Peak of the resident memory during a call beyond that before it, in MiB."""
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    explain()
    return (_status("VmHWM") - before) / 1024


def _status(name: str) -> int:
    (line,) = [s for s in Path("/proc/self/status").read_text().splitlines() if s.startswith(name + ":")]
    return int(line.split()[1])


def in_a_fork(measure: Callable[[], object]) -> object:
    """What a function returns (as JSON) in a forked process; None if it fails, which it says on stderr."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        result = None
        try:
            result = measure()
        except Exception as error:  # the parent goes on with the next method
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os.write(writing, json.dumps(result).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        result = json.loads(pipe.read() or "null")
    os.waitpid(child, 0)
    return result


def measure_one(data: Path, network: str, quick: bool, which: int | str) -> object:
    """Name and peak of one method, by its place in the list; the name alone of none."""
    torch.set_num_threads(1)
    images, _ = load_faces(data, IMAGES, 1)
    model = load_zoo(data)[network]().eval()
    x = images.clone().requires_grad_()
    references = model(x)
    torch.autograd.grad(references.sum(), x)
    references = references.detach().roll(1, 0)
    if which == LIMIT_NAME:  # its memory does not depend on the number of steps
        limit = ExtremalPerturbation(model, n_steps=3, restarts=1)
        return memory_of(lambda: limit.attribute(images, reference=references))
    methods = every_method(model, suggest_layers(model, images), 0.3, quick)
    if which == "names":
        return [method.name for method in methods]
    explain = methods[int(which)].raw
    return memory_of(lambda: explain(images, references))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--network", required=True)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    where = options.data, options.network, options.quick

    def measured(which: int | str) -> object:
        return in_a_fork(lambda: measure_one(*where, which))

    names = measured("names")
    peaks = {name: measured(i) for i, name in enumerate(names)} | {LIMIT_NAME: measured(LIMIT_NAME)}
    print(json.dumps({name: peak for name, peak in peaks.items() if peak is not None}))


if __name__ == "__main__":
    main()
