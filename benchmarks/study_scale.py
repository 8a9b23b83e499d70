"""Does a study scale? Memory, throughput beside the passes that cannot be avoided, and 1000 synthetic people × 5 images × 9 networks.

    python benchmarks/study_scale.py [--people 1000] [--images 5] [--networks 9] [--jobs 2] [--out study_scale] [--sample 4]

First, on a few shards in one process with one thread: CPU time of the study's own stages (reading, labels, embedding, maps, regions,
signatures, occlusion, writing), shard by shard beside a bare loop of the same forward and backward passes on the same batches. Then the
whole study with worker processes, in a child process: seconds, and the memory of the child and all its workers over time (memory.png,
memory.csv). The networks are captum_leam.synthetic.EmbeddingNet (56, 28 and 14 px, 32 numbers) with random weights: small, so that what
the study adds is seen at its worst. Not shown: GPUs, real networks (their passes cost 10 to 100 times as much, what the study adds does
not).
"""

import argparse
import csv
import itertools
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from captum_leam.study import Study
from captum_leam.study.crops import crops_of
from captum_leam.study.evaluating import Setting
from captum_leam.study.networks import known, loaded, suggestions
from captum_leam.study.people import hashed, list_people
from captum_leam.study.stages import keep_memory, perform, steady
from captum_leam.study.store import read_shard
from captum_leam.study.study import plan_of
from captum_leam.synthetic import SyntheticPopulation

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


def write_config(folder: Path, networks: int, permutations: int) -> Path:
    makers = "\n".join(f"def n{i}():\n    return _net({i})\n" for i in range(networks))
    (folder / "nets.py").write_text(NETS.format(makers=makers))
    config = {
        "people": "faces",
        "models": {f"n{i}": f"nets.py:n{i}" for i in range(networks)},
        "pictures": "crops",
        "patterns": {"permutations": permutations, "resamples": 500},
        "out": "results",
    }
    path = folder / "study.yaml"
    path.write_text(json.dumps(config))  # JSON is YAML
    return path


# -- throughput beside the bare passes -------------------------------------------------------------------


def bare_passes(setting: Setting, crops, references, number: int) -> None:
    """The forwards and backwards that one network's maps, twin and occlusions need on one shard, and nothing else."""
    config, network = setting.config, setting.networks[number]
    modules = [loaded(n, config.device) for n in setting.networks]
    layers = [s.module for s in suggestions(network, modules[number], (112, 112))]
    for batch, towards in zip(crops.split(config.batch_size), references.split(config.batch_size), strict=True):
        others = itertools.cycle([batch.roll(i + 1, 3) for i in range(6)])  # occluded images are other images
        twins = 1 + ("untrained" in config.patterns.controls)
        for _ in range(twins):
            _leam_passes(modules[number], layers, batch, towards, config.leam.n_steps)
        with torch.no_grad():
            for _ in range(twins - 1):
                modules[number](batch)  # the twin's own embeddings
            own = [c for c in config.controls if c in ("moved", "other people")]
            for module in modules if config.transfer else [modules[number]]:
                for _ in range((1 + len(own)) * len(config.fractions) * len(config.fills)):
                    module(next(others))
            for _ in range(len(layers) * len(config.layer_fractions) * len(config.fills)):
                modules[number](next(others))


def _leam_passes(module, layers, batch, towards, steps: int) -> None:
    kept = []
    handles = [layer.register_forward_hook(lambda m, i, o: kept.append(o)) for layer in layers]
    try:
        with torch.no_grad():
            for _ in range(2):  # at the image and at the baseline
                module(batch)
        for _ in range(steps):
            kept.clear()
            score = (module(batch) * towards).sum()
            torch.autograd.grad(score, kept)
    finally:
        for handle in handles:
            handle.remove()


def bare_shared(setting: Setting, crops) -> None:
    """The forwards of embedding, and of controls that need no network."""
    shared = [c for c in setting.config.controls if c not in ("moved", "other people")]
    count = 1 + len(shared) * len(setting.config.fractions) * len(setting.config.fills)
    with torch.no_grad():
        for batch in crops.split(setting.config.batch_size):
            others = itertools.cycle([batch.roll(i + 1, 3) for i in range(6)])
            for network in setting.networks:
                module = loaded(network, "cpu")
                for _ in range(count):
                    module(next(others))


def throughput(path: Path, sample: int) -> tuple[float, float]:
    """CPU seconds of the study and of the bare passes on the first shards; interleaved, in one process, one thread."""
    config = replace(Study(path).config, out=path.parent / "sample")
    listing = hashed(list_people(config), config.min_images)
    listing = replace(listing, pictures=tuple(p for p in listing.pictures if p.number < sample * config.shard_size))
    networks = tuple(known(model, config.device) for model in config.models)
    plan = plan_of(config, listing, networks, config.out)
    ours = theirs = 0.0
    setting = Setting(config, plan.networks, plan.regions)
    keep_memory()  # as in every worker; the bare passes have it, too
    with steady(config.threads):
        for network in networks:  # the first run of a network makes its kernels
            with torch.no_grad():
                loaded(network, "cpu")(torch.rand(config.batch_size, 3, 112, 112))
        for task in plan.crops_tasks():
            ours += timed(lambda task=task: told(perform(setting, task)))
        plan.describe()
        setting = Setting(config, plan.networks, plan.regions)
        shards = [read_shard(crops_path) for crops_path in plan.crops_paths()]
        crops = [crops_of(shard) for shard in shards]
        for number in range(
            -1, len(networks)
        ):  # -1: what needs no network to be made; network by network, as a study does
            for task in plan.map_tasks():
                if task.explained == number:
                    ours += timed(lambda task=task: told(perform(setting, task)))
            for shard, of_shard in zip(shards, crops, strict=True):
                if number < 0:
                    theirs += timed(lambda c=of_shard: bare_shared(setting, c))
                else:
                    references = torch.from_numpy(shard[f"reference.{number}"])
                    theirs += timed(lambda c=of_shard, r=references, n=number: bare_passes(setting, c, r, n))
            print(f"  after network {number}: study {ours:.1f} s, bare {theirs:.1f} s", flush=True)
        for number, target in enumerate(_totals(plan)):
            assert target is not None, number
        for task in plan.others_tasks():
            ours += timed(lambda task=task: told(perform(setting, task)))
    return ours, theirs


def _totals(plan):
    from captum_leam.study.study import _Run

    plan.find_totals(_Run(plan.config, plan.out, "serial", 1, False))
    return plan.totals


def told(outcome):
    assert not outcome.problem, outcome.problem
    return outcome


def timed(function) -> float:
    before = time.process_time()
    function()
    return time.process_time() - before


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
    parser.add_argument("--permutations", type=int, default=99)
    parser.add_argument("--out", type=Path, default=Path("study_scale"))
    parser.add_argument("--no-whole", action="store_true", help="only the comparison")
    options = parser.parse_args()
    write_people(options.out / "faces", options.people, options.images)
    path = write_config(options.out, options.networks, options.permutations)
    if options.sample:
        ours, theirs = throughput(path, options.sample)
        print(f"study {ours:.1f} s CPU, bare passes {theirs:.1f} s: {theirs / ours:.3f} of their throughput")
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
