"""Does a study scale? Memory, throughput beside the passes that cannot be avoided, and 1000 synthetic people × 5 images × 9 networks.

    python benchmarks/study_scale.py [--people 1000] [--images 5] [--networks 9] [--jobs 2] [--out DIR] [--sample 4] [--repeats 3]
        [--preset layers] [--data ../shared/real]

First, on a few shards in one process with one thread: CPU time of the study's own stages (reading, labels, embedding, maps, regions,
signatures, occlusion, writing), task by task beside a bare loop of exactly the forward and backward passes that the settings need, on the
same crops in the same batches: every network on every crop (embeddings); LEAM on each network and on its untrained twin (both ends of the
path, then forward and backward at every step, without a graph before the first layer) and, with another --preset than layers, the passes
of the overall map; the twin's statistics and embeddings; and every
network on every occluded image, of maps, layers and controls. Both are counted, and their counts printed. The bare loop makes no occluded
images, references, maps or tables: other images stand in for the occluded ones. Several runs in turn, the median counts (--repeats). Then
the whole study with worker processes, in a child process: seconds, and the memory of the child and all its workers over time (memory.png,
memory.csv). The networks are captum_leam.synthetic.EmbeddingNet (56, 28 and 14 px, 32 numbers) with random weights: small, so that what
the study adds is seen at its worst. Not shown: GPUs, real networks (their passes cost 10 to 100 times as much, what the study adds does
not).
"""

import argparse
import csv
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from captum_leam._storage import Shard, read_shard
from captum_leam.controls import OWN_CONTROLS
from captum_leam.explain import PRESETS
from captum_leam.study import Study
from captum_leam.study.config import Config
from captum_leam.study.engines import perform
from captum_leam.study.evaluating import TWIN_FACES
from captum_leam.study.networks import suggestions
from captum_leam.study.plan import STAGE_OF, make_plan
from captum_leam.study.task import Task
from captum_leam.study.worker import Worker, crops_of, deterministic_arithmetic, keep_freed_memory, this_worker
from captum_leam.synthetic import EmbeddingNet, SyntheticPopulation

NETS = """
import torch
from captum_leam.synthetic import EmbeddingNet

def _net(seed):
    torch.manual_seed(seed)
    return EmbeddingNet(32)

{makers}
"""


def write_people(folder: Path, people: int, images: int) -> None:
    """Faces of synthetic people as PNG files; those that are there stay."""
    population = SyntheticPopulation(people, seed=0)
    for start in range(0, people, 50):
        who = list(range(start, min(start + 50, people)))
        last = folder / f"p{who[-1]:05d}" / f"{images - 1}.png"
        if last.exists():
            continue
        faces = population.sample([p for p in who for _ in range(images)], seed=start)
        pixels = (faces.images.movedim(1, -1) * 255).round().to(torch.uint8).numpy()
        for i, (picture, person) in enumerate(zip(pixels, faces.people.tolist(), strict=True)):
            path = folder / f"p{person:05d}" / f"{i % images}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)


def write_config(folder: Path, networks: int, permutations: int, preset: str = "layers") -> Path:
    makers = "\n".join(f"def n{i}():\n    return _net({i})\n" for i in range(networks))
    (folder / "nets.py").write_text(NETS.format(makers=makers))
    config = {
        "people": "faces",
        "models": {f"n{i}": f"nets.py:n{i}" for i in range(networks)},
        "pictures": "crops",
        "preset": preset,
        "patterns": {"permutations": permutations, "resamples": 500},
        "out": "results",
    }
    path = folder / "study.yaml"
    path.write_text(json.dumps(config))  # JSON is YAML
    return path


def write_real(folder: Path, data: Path, preset: str, **more: object) -> Path:
    """Write the settings of a study of real networks and faces."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "people": str(data.resolve() / "faces"),
        "models": {name: f"{data.resolve()}/models.py:{name}" for name in ("ms1m", "casia")},
        "pictures": "crops",
        "preset": preset,
        **more,
    }
    path = folder / "study.yaml"
    path.write_text(json.dumps(config))  # JSON is YAML
    return path


# -- throughput beside the bare passes -------------------------------------------------------------------


@dataclass(frozen=True)
class Bare:
    """The forwards and backwards that a study's settings need, on the same crops in the same batches, and nothing else."""

    worker: Worker
    twins: set[int] = field(default_factory=set)  # networks whose untrained twin was made

    @property
    def config(self) -> Config:
        """Configuration of the study."""
        return self.worker.config

    @property
    def modules(self) -> list[nn.Module]:
        """Its networks."""
        return [self.worker.module(network) for network in self.worker.networks]

    def occluded(
        self, crops: torch.Tensor, measured: Sequence[nn.Module], maps: int, fractions: Sequence[float]
    ) -> None:
        """Forwards of as many images as ``maps`` maps occlude; other images stand in for the occluded ones."""
        others = itertools.cycle([crops.roll(i + 1, 3) for i in range(6)])
        with torch.no_grad():
            for _ in range(maps * len(fractions) * len(self.config.fills)):
                for module in measured:
                    module(next(others))

    def embedding(self, crops: torch.Tensor) -> None:
        """Every network, every crop, once."""
        with torch.no_grad():
            for module in self.modules:
                for batch in crops.split(self.config.batch_size):
                    module(batch)

    def shared(self, crops: torch.Tensor) -> None:
        """Occlusion by controls that need no network to be made: on every network."""
        maps = sum(control not in OWN_CONTROLS for control in self.config.controls)
        for batch in crops.split(self.config.batch_size):
            self.occluded(batch, self.modules, maps, self.config.fractions)

    def maps(self, crops: torch.Tensor, references: torch.Tensor, number: int) -> None:
        """LEAM on one network; occlusion by its overall map and by that map moved, and by the map of every layer."""
        config, module = self.config, self.modules[number]
        everyone, layers = self.modules if config.transfer else [module], self.layers(number)
        alone = everyone if config.layer_transfer else [module]
        for batch, towards in zip(crops.split(config.batch_size), references.split(config.batch_size), strict=True):
            self.explain(number, batch, towards)
            self.occluded(batch, everyone, 1 + ("moved" in config.controls), config.fractions)
            self.occluded(batch, alone, len(layers), config.layer_fractions)

    def untrained(self, crops: torch.Tensor, references: torch.Tensor, number: int) -> None:
        """The twin's statistics and embeddings, and LEAM on it; the network itself, which costs the same, stands in for it."""
        if "untrained" in self.config.patterns.controls:
            if number not in self.twins:  # the statistics of its BatchNorms, once
                self.twins.add(number)
                with torch.no_grad():
                    self.modules[number](crops[:TWIN_FACES])
            for batch, towards in zip(*(t.split(self.config.batch_size) for t in (crops, references)), strict=True):
                with torch.no_grad():
                    self.modules[number](batch)
                self.explain(number, batch, towards)

    def explain(self, number: int, batch: torch.Tensor, towards: torch.Tensor) -> None:
        """The signed layer maps and the overall map of one network."""
        module, preset = self.modules[number], self.config.preset
        leam_passes(module, self.layers(number), batch, towards, self.config.leam.n_steps)
        if preset == "layers":
            return
        for _ in range(PRESETS[preset].passes()[1]):  # the first pass and the rounds: gradients go back to the image
            with torch.enable_grad():
                images = batch.detach().requires_grad_()
                torch.autograd.grad((module(images) * towards).sum(), images)

    def other_people(self, crops: torch.Tensor, number: int) -> None:
        """Occlusion where other people's mean map is highest."""
        measured = self.modules if self.config.transfer else [self.modules[number]]
        for batch in crops.split(self.config.batch_size) if "other people" in self.config.controls else ():
            self.occluded(batch, measured, 1, self.config.fractions)

    def layers(self, number: int) -> list[nn.Module]:
        """Those of a network that are explained."""
        size = (self.config.pictures.size, self.config.pictures.size)
        return [s.module for s in suggestions(self.worker.networks[number], self.modules[number], size)]


def leam_passes(
    module: nn.Module, layers: Sequence[nn.Module], batch: torch.Tensor, towards: torch.Tensor, steps: int
) -> None:
    """A mean-gradient path: forwards at both ends (none for one step), then forward and backward at every step, from the first layer on."""
    kept: list[torch.Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        kept.append(output if kept else output.detach().requires_grad_())
        torch.set_grad_enabled(True)
        return kept[-1]

    with torch.no_grad():
        for _ in range(2 if steps > 1 else 0):
            module(batch)
    handles = [layer.register_forward_hook(keep) for layer in layers]
    try:
        for _ in range(steps):
            kept.clear()
            with torch.no_grad():  # what comes before the first layer needs no graph
                score = (module(batch) * towards).sum()
            torch.autograd.grad(score, kept)
    finally:
        for handle in handles:
            handle.remove()


@dataclass
class Spent:
    """Seconds, and passes, of a study and of the bare loop."""

    clock: Callable[[], float] = time.process_time
    study: float = 0.0
    bare: float = 0.0
    study_passes: Counter = field(default_factory=Counter)
    bare_passes: Counter = field(default_factory=Counter)

    @property
    def ratio(self) -> float:
        """Throughput of the study beside the bare loop's."""
        return self.bare / self.study

    def both(self, study: Callable[[], object], bare: Callable[[], object]) -> None:
        """One after the other."""
        self.study += timed(study, self.study_passes, self.clock)
        self.bare += timed(bare, self.bare_passes, self.clock)


PASSES: Counter = Counter()


@contextmanager
def counting() -> Iterator[None]:
    """Count images that go forward through an EmbeddingNet, and backward passes."""
    forward, grad = EmbeddingNet.forward, torch.autograd.grad

    def counted_forward(self: EmbeddingNet, x: torch.Tensor) -> torch.Tensor:
        PASSES["images forward"] += len(x)
        return forward(self, x)

    def counted_grad(*args: Any, **more: Any) -> Any:
        PASSES["backward passes"] += 1
        return grad(*args, **more)

    EmbeddingNet.forward, torch.autograd.grad = counted_forward, counted_grad
    try:
        yield
    finally:
        EmbeddingNet.forward, torch.autograd.grad = forward, grad


def timed(function: Callable[[], object], passes: Counter, clock: Callable[[], float]) -> float:
    PASSES.clear()
    before = clock()
    outcome = function()
    spent = clock() - before
    passes.update(PASSES)
    if outcome:  # why there is no shard
        raise SystemExit(str(outcome))
    return spent


def beside(path: Path, sample: int, clock: Callable[[], float] = time.process_time, **changes: Any) -> Spent:
    """The stages of a study on its first shards, each task beside the bare passes that it needs; one process, one thread.

    Args:
        path: Configuration of the study.
        sample: Number of shards.
        clock: Returns seconds. Default: those of this process on the processor.
        changes: Settings other than those of the configuration.
    """
    out = path.parent / "sample"
    shutil.rmtree(out, ignore_errors=True)
    config = replace(Study(path).config, out=out, **changes)
    keep_freed_memory()  # as in a worker
    plan = make_plan(config, this_worker(), [], progress=False)
    plan.shards = plan.shards[:sample]
    spent = Spent(clock)
    with deterministic_arithmetic(config.threads), counting():
        reading = plan.tasks([STAGE_OF["crops"]])
        for task in reading:
            spent.study += timed(lambda t=task: perform(plan.context, t).problem, spent.study_passes, clock)
        shards = {task.path: read_shard(task.path) for task in reading}
        crops = {path: crops_of(shard).to(config.device) for path, shard in shards.items()}
        plan.describe(this_worker())
        bare = Bare(this_worker().works_for(plan.context))
        for of_shard in crops.values():
            with this_worker().in_precision():
                spent.bare += timed(lambda c=of_shard: bare.embedding(c), spent.bare_passes, clock)
        for names in (["controls", "maps", "untrained"], ["totals"], ["others"]):
            for task in plan.tasks([STAGE_OF[name] for name in names]):
                spent.both(
                    lambda t=task: perform(plan.context, t).problem, lambda t=task: of_task(bare, t, crops, shards)
                )
    return spent


def of_task(bare: Bare, task: Task, crops: Mapping[Path, torch.Tensor], shards: Mapping[Path, Shard]) -> None:
    """The bare passes of one task, in the precision of the study."""
    with bare.worker.in_precision():
        _of_task(bare, task, crops, shards)


def _of_task(bare: Bare, task: Task, crops: Mapping[Path, torch.Tensor], shards: Mapping[Path, Shard]) -> None:
    if task.stage == "totals":  # sums need no pass
        return
    path, number = task.input("crops"), task.index.network
    if task.stage == "controls":
        bare.shared(crops[path])
    elif task.stage == "others":
        bare.other_people(crops[path], number)
    else:
        references = torch.from_numpy(shards[path][f"reference.{number}"]).to(bare.config.device)
        (bare.maps if task.stage == "maps" else bare.untrained)(crops[path], references, number)


def throughput(path: Path, sample: int, repeats: int) -> None:
    """Print the ratio of the two, of several runs."""
    beside(path, 1)  # the first run of a network makes its kernels
    runs = []
    for i in range(repeats):
        runs.append(beside(path, sample))
        print(
            f"run {i + 1}: study {runs[-1].study:.1f} s CPU, bare passes {runs[-1].bare:.1f} s: {runs[-1].ratio:.3f} of their "
            f"throughput; load {os.getloadavg()[0]:.1f}",
            flush=True,
        )
    ratios = sorted(run.ratio for run in runs)
    print(f"median of {repeats}: {statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})")
    for name in runs[0].study_passes:
        ours, theirs = runs[0].study_passes[name], runs[0].bare_passes[name]
        print(f"{name}: study {ours}, bare loop {theirs}")


# -- the whole of it -----------------------------------------------------------------------------------


def resident(pid: int) -> tuple[float, float, int]:
    """MiB of a process and all its descendants: proportional set size of all, the largest one, and how many there are."""
    pids, found = [pid], []
    while pids:
        current = pids.pop()
        try:
            found.append(_pss(current))
            for task in Path(f"/proc/{current}/task").iterdir():
                pids += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue
    return sum(found), max(found, default=0.0), len(found)


def _pss(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def whole(path: Path, jobs: int) -> float:
    """Run the study in child processes, again where one was killed, and write down their memory every other second; seconds of work."""
    code = "from captum_leam.cli import main; main()"
    command = [sys.executable, "-c", code, "study", str(path), "--jobs", str(jobs), "--no-report"]
    worked, memory = 0.0, path.parent / "memory.csv"
    if not memory.exists():
        memory.write_text("seconds,all_mib,largest_mib,processes\n")
    else:  # a run that goes on
        worked = float(memory.read_text().splitlines()[-1].split(",")[0])
    for _ in range(5):
        began = time.monotonic()
        child = subprocess.Popen(command)  # noqa: S603
        while child.poll() is None:
            total, most, count = resident(child.pid)
            with open(memory, "a") as file:
                file.write(f"{worked + time.monotonic() - began:.0f},{total:.0f},{most:.0f},{count}\n")
            time.sleep(2)
        worked += time.monotonic() - began
        if child.returncode == 0:
            return worked
        print(f"the study ended with {child.returncode}; going on where it stopped", flush=True)
    raise SystemExit("the study did not come to its end")


def read_memory(folder: Path) -> np.ndarray:
    """Seconds, MiB of all processes, of the largest, their number; moments at which a process was just gone are left out."""
    with open(folder / "memory.csv", newline="") as file:
        rows = np.array([[float(cell) for cell in row] for row in list(csv.reader(file))[1:]])
    return rows[rows[:, 3] > 0]


def draw(samples: np.ndarray, folder: Path) -> None:
    from matplotlib.figure import Figure

    seconds, total, most, _ = samples.T
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(seconds / 60, total, label="all processes", color="#0072b2")
    axes.plot(seconds / 60, most, label="largest process", color="#d55e00")
    axes.set_xlabel("minutes")
    axes.set_ylabel("memory (PSS), MiB")
    axes.set_ylim(0)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(folder / "memory.png", dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=1000)
    parser.add_argument("--images", type=int, default=5)
    parser.add_argument("--networks", type=int, default=9)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument(
        "--sample", type=int, default=4, help="shards of the comparison with the bare passes; 0 for none"
    )
    parser.add_argument("--repeats", type=int, default=3, help="of the comparison")
    parser.add_argument("--permutations", type=int, default=99)
    parser.add_argument("--preset", default="layers", help="overall map of the study")
    parser.add_argument("--data", type=Path, help="folder of real networks and faces, for the comparison")
    parser.add_argument("--out", type=Path, default=Path("results/study_scale"))
    parser.add_argument("--no-whole", action="store_true", help="only the comparison")
    options = parser.parse_args()
    if options.data is not None:
        throughput(
            write_real(options.out, options.data, options.preset, shard_size=12, out="results"),
            options.sample,
            options.repeats,
        )
        return
    write_people(options.out / "faces", options.people, options.images)
    path = write_config(options.out, options.networks, options.permutations, options.preset)
    if options.sample:
        throughput(path, options.sample, options.repeats)
    if options.no_whole:
        return
    seconds = whole(path, options.jobs)
    samples = read_memory(options.out)
    draw(samples, options.out)
    manifest = json.loads((options.out / "results" / "manifest.json").read_text())
    count = options.people * options.images * options.networks
    quarters = [part[:, 1].mean() for part in np.array_split(samples[samples[:, 0] > 0.05 * seconds], 4)]
    print(json.dumps(manifest["run"], indent=1))
    print(
        f"{options.people} people × {options.images} × {options.networks} networks, {options.jobs} processes: {seconds:.0f} s, "
        f"{count / seconds:.1f} explained images per second; memory of all processes {samples[:, 1].max():.0f} MiB at most, by quarters of "
        f"the run {', '.join(f'{q:.0f}' for q in quarters)}"
    )


if __name__ == "__main__":
    main()
