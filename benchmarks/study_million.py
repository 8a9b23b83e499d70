"""Does what a study does after its passes grow with the number of people, and not faster? Simulated embeddings and maps, no network.

    python benchmarks/study_million.py --people 1000 10000 100000 [--images 5] [--layers 2] [--size 112] [--shard-size 250] [--out DIR]
    python benchmarks/study_million.py --people 1000000 --comparing-only --distinct 10000 [--out DIR]

Shards of crops (embeddings and thumbnails, no pixels), of maps, controls, other people and untrained twins are simulated: everyone has
places of their own in every map, and an embedding of their own. Then the package's own stages run on them, one after the other in one
process with one thread: search for copies, sums of maps, strangers, person patterns, agreement, tables (with verification, drops, regions
and groups), manifest and report. Printed are, for each, wall and CPU seconds and the largest resident memory while it ran (VmHWM, reset
before each), the bytes on the disk for each person, and the ratio of CPU seconds from one number of people to the next. Every number of
people runs in a process of its own.

With --comparing-only the stages strangers, patterns and agreement run alone: the shards hold what these read (no sums of maps, no drops),
and --distinct says how many people have maps of their own; those of the others are hard links to them, so that a million people fit on a
disk. That changes neither the work nor the memory of the comparisons, but files that were read before come from the cache of the system.
Not shown: reading pictures, passes, the pixels of the crops (37 kB an image of 112 px, which shards of real studies hold and these do not).
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle, pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from captum_leam._storage import Shard, write_shard
from captum_leam.controls import OWN_CONTROLS
from captum_leam.maps import pixel_count
from captum_leam.reporting.schema import OVERALL
from captum_leam.reporting.study_report import write_report
from captum_leam.stats.sampling import MAX_PAIRS
from captum_leam.study import assembling
from captum_leam.study.config import config_from
from captum_leam.study.executor import Executor
from captum_leam.study.identity import Fingerprint
from captum_leam.study.listing import Listing, Picture, split
from captum_leam.study.manifest import manifest_of
from captum_leam.study.networks import Layer, Network
from captum_leam.study.plan import STAGE_OF, Plan
from captum_leam.study.task import Index
from captum_leam.study.worker import this_worker

DIMENSIONS = 128
COMPARING = ("strangers", "patterns", "model_agreement", "layer_agreement")
GROUPS = ("a", "b")
MIB = 2**20


# -- the study -------------------------------------------------------------------------------------------


def simulated_plan(options: argparse.Namespace, people: int, out: Path) -> Plan:
    """Return the plan of a study of one network, of pictures that do not exist."""
    settings = {
        "people": str(out),
        "models": {"net": "torch.nn:Flatten"},
        "pictures": {"how": "crops", "size": options.size},
        "shard_size": options.shard_size,
        "max_pairs": options.max_pairs,
        "patterns": {"permutations": options.permutations},
        "out": str(out / "results"),
    }
    config = config_from(settings)
    names = [f"p{i:07d}" for i in range(people)]
    pictures = tuple(
        Picture(p * options.images + i, name, f"{name}/{i}.png", group, f"{p:058d}{i:06d}")
        for p, (name, group) in enumerate(zip(names, cycle([(group,) for group in GROUPS])))
        for i in range(options.images)
    )
    fingerprint = Fingerprint("simulated", ((1.0, 0.5),), 1e-4)
    layers = [Layer(f"layer{i}", (16, 56 >> i, 56 >> i), 2.0 * 2**i, i == 0) for i in range(options.layers)]
    network = Network(config.models[0], fingerprint, 0, tuple(layers), (0, 0, options.size, options.size))
    parser = this_worker().identify_parser(config)
    listing = Listing(pictures, ("group",))
    return Plan(config, listing, (network,), parser, tuple(split(listing.usable, config.shard_size)))


class Simulation:
    """Shards of one study, drawn with a seed of their own each."""

    def __init__(self, plan: Plan, options: argparse.Namespace) -> None:
        self.plan, self.options, config = plan, options, plan.config
        pixels = options.size**2
        self.kept = pixel_count(config.patterns.fraction, pixels)
        self.regions = len(plan.parser.regions)
        labels = plan.parser.parse(torch.zeros(1, 3, options.size, options.size))
        self.labels = plan.parser.scheme.merge_sides().relabel(labels).numpy().astype(np.uint8)
        counts = np.array([(self.labels == label).sum() for label, _ in plan.parser.regions])
        self.area = (counts / pixels).astype(np.float32)
        layers = [layer.name for layer in plan.networks[0].layers]
        own, shared = ["", *config.own_controls], [name for name in config.controls if name not in OWN_CONTROLS]
        cells = self.cells
        self.cells_of = {
            "controls": cells("", shared, config.fractions),
            "maps": cells(OVERALL, own, config.fractions)
            + [cell for layer in layers for cell in cells(layer, [""], config.layer_fractions)],
            "others": cells(OVERALL, ["other people"], config.fractions),
        }

    def cells(self, layer: str, controls: list[str], fractions: tuple[float, ...]) -> list[tuple[Any, ...]]:
        """Return the cells of drops, in the order of a study."""
        return [(layer, *cell, "net") for cell in product(controls, self.plan.config.fills, fractions)]

    def write(self, stages: tuple[str, ...], distinct: int) -> None:
        """Write the shards of some stages; from ``distinct`` people on they are hard links to earlier ones."""
        per_shard = self.options.shard_size // self.options.images
        first = max(1, distinct // per_shard)
        for i, shard in enumerate(self.plan.shards):
            for stage in stages:
                index = Index(i) if stage in ("crops", "controls") else Index(i, 0)
                path = self.plan.path(stage, index)
                source = self.plan.path(stage, index._replace(shard=i % first))
                is_full = len(shard) == len(self.plan.shards[i % first])
                if i >= first and stage != "crops" and is_full:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.unlink(missing_ok=True)
                    os.link(source, path)
                else:
                    write_shard(path, self.shard(stage, i))

    def shard(self, stage: str, number: int) -> Shard:
        """Return a shard of a stage."""
        rng, pictures = np.random.default_rng([number, len(stage)]), self.plan.shards[number]
        people = [picture.person for picture in pictures]
        codes = np.unique(people, return_inverse=True)[1]
        if stage == "crops":
            return self.crops(rng, people, codes)
        rows = {"rows": np.arange(len(pictures), dtype=np.int32)}
        notes = {"failed": [], "cells": [list(cell) for cell in self.cells_of.get(stage, [])], "people": people}
        drops = rng.normal(0.1, 0.05, (len(pictures), len(notes["cells"]))).astype(np.float32)
        if stage == "others":
            return Shard({**rows, "drops": drops}, notes)
        arrays = {**rows, **self.described(rng, codes, 1 if stage == "controls" else 1 + self.options.layers)}
        if stage != "controls":
            arrays["shown"] = np.ones(arrays["share"].shape[:2], dtype=bool)
        if not self.options.comparing_only and stage != "untrained":
            arrays["drops"] = drops
        if not self.options.comparing_only and stage == "maps":
            arrays |= self.sums(rng, codes)
        return Shard(arrays, notes)

    def crops(self, rng: np.random.Generator, people: list[str], codes: np.ndarray) -> Shard:
        """Return embeddings, thumbnails and labels; no pixels."""
        n, none = len(people), np.zeros((len(people), 0), np.float32)
        arrays = {
            "kept": np.arange(n, dtype=np.int32),
            "crops": np.zeros((n, 3, 0, 0), np.uint8),
            "labels": self.labels,
        }
        waves = np.cos(np.outer(np.arange(28) + 0.5, np.arange(1, 11)) * np.pi / 28) / np.arange(1, 11)
        places = np.einsum("ia,jb->abij", waves, waves).reshape(100, 784)  # smooth, as pictures are
        own = rng.normal(size=(codes.max() + 1, 100))[codes]
        small = (own + 0.5 * rng.normal(size=(n, 100))) @ places if self.options.thumbnails else none
        small = small / np.maximum(np.linalg.norm(small, axis=1, keepdims=True), 1e-9)
        arrays["thumbnails"] = small.astype(np.float32)
        landmarks = np.array([[38, 52], [74, 52], [56, 72], [42, 92], [71, 92]]) + rng.normal(size=(n, 5, 2))
        arrays["landmarks"] = np.full((n, 5, 2), np.nan) if self.options.thumbnails else landmarks
        arrays["photographs"] = np.zeros((n, 784 if self.options.thumbnails else 0), np.float32)
        arrays["boxes"] = np.zeros((n, 4), np.float32)
        size = 1 if self.options.comparing_only else DIMENSIONS
        embeddings = rng.normal(size=(codes.max() + 1, size))[codes] + 0.8 * rng.normal(size=(n, size))
        arrays["embedding.0"] = embeddings.astype(np.float32)
        arrays["reference.0"] = (embeddings + rng.normal(size=(n, size))).astype(np.float32)
        notes = {"failed": [], "how": ["crop"] * n, "faces": [-1] * n, "turns": [-1] * n, "people": people}
        return Shard(arrays, notes)

    def described(self, rng: np.random.Generator, codes: np.ndarray, maps: int) -> dict[str, np.ndarray]:
        """Return regions and signatures: half of the top pixels of a map are where they are in all maps of the person."""
        n, cell = len(codes), self.options.size**2 // self.kept
        own = rng.integers(0, cell, (codes.max() + 1, maps, self.kept))[codes]
        new = rng.integers(0, cell, own.shape)
        offset = np.where(rng.random(own.shape) < 0.5, own, new) // 4
        kind = np.uint16 if self.options.size <= 256 else np.int32
        top = rng.random((n, maps, self.kept), dtype=np.float32) + 0.1
        grid = self.plan.config.patterns.grid**2
        dense = rng.random((codes.max() + 1, maps, grid), dtype=np.float32)[codes]
        dense = dense + 0.5 * rng.random((n, maps, grid), dtype=np.float32)
        mass = rng.random((n, maps, self.regions), dtype=np.float32) * self.area
        return {
            "top_pixels": (np.arange(self.kept) * cell + offset).astype(kind),
            "top_roots": np.sqrt(top / top.sum(-1, keepdims=True)),
            "dense": np.sqrt(dense / dense.sum(-1, keepdims=True)).astype(np.float16),
            "mass": mass / mass.sum(-1, keepdims=True),
            "share": mass / mass.sum(-1, keepdims=True),
            "area": np.broadcast_to(self.area, (n, self.regions)).copy(),
        }

    def sums(self, rng: np.random.Generator, codes: np.ndarray) -> dict[str, np.ndarray]:
        """Return sums of maps of each person and of all, and cosines."""
        size, people, maps = self.options.size, codes.max() + 1, 1 + self.options.layers
        count = np.bincount(codes).astype(np.int32)
        one = rng.random((size, size), dtype=np.float32) / size**2 * 2
        return {
            "cosine": rng.normal(0.6, 0.1, len(codes)),
            "person_sums": one * count[:, None, None] * (0.5 + rng.random((people, 1, 1), dtype=np.float32)),
            "person_counts": count,
            "layer_sums": np.broadcast_to(one * len(codes), (maps, size, size)).copy(),
            "layer_counts": np.full(maps, len(codes), np.int32),
        }


# -- measuring -------------------------------------------------------------------------------------------


class Measured:
    """Seconds and memory of steps, printed as they end."""

    def __init__(self) -> None:
        self.steps: dict[str, dict[str, float]] = {}
        self._inner = 0.0  # largest memory of the steps within the running one

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure a block; the largest memory is that since its start."""
        Path("/proc/self/clear_refs").write_text("5")
        wall, cpu = time.perf_counter(), time.process_time()
        before, self._inner = self._inner, 0.0
        yield
        most = max(peak_mib(), self._inner)
        self._inner = max(before, most)
        step = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "mib": most}
        self.steps[name] = step
        print(f"  {name:28} {step['wall']:9.1f} s {step['cpu']:9.1f} s CPU {step['mib']:8.0f} MiB", flush=True)

    def wrapped(self, name: str) -> None:
        """Measure a function of the tables wherever it is called."""
        function: Callable[..., Any] = getattr(assembling, name)

        def measured(*arguments: Any, **more: Any) -> Any:
            with self.step(f"tables: {name}"):
                return function(*arguments, **more)

        setattr(assembling, name, measured)


def peak_mib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def bytes_of(folder: Path) -> int:
    """Bytes on the disk, files with several links once."""
    found = {(s.st_dev, s.st_ino): s.st_size for p in folder.rglob("*") if p.is_file() for s in [p.stat()]}
    return sum(found.values())


def run(options: argparse.Namespace, people: int) -> dict[str, Any]:
    """Simulate a study, run what follows its passes, and return what was measured."""
    out = options.out / f"{people}"
    shutil.rmtree(out, ignore_errors=True)
    (out / "results" / "work").mkdir(parents=True)
    measured = Measured()
    print(f"{people} people × {options.images} images; load {os.getloadavg()[0]:.1f}", flush=True)
    with measured.step("(plan)"):
        plan = simulated_plan(options, people, out)
    stages = ("crops", "controls", "maps", "untrained")
    stages = stages if options.comparing_only else (*stages, "others")
    sync, os.fsync = os.fsync, lambda handle: None
    with measured.step("(simulation)"):
        Simulation(plan, options).write(stages, options.distinct or people)
    os.fsync = sync
    print(f"  {bytes_of(out) / people / 1000:.1f} kB of shards for each person", flush=True)
    executor = Executor(plan.config)
    with executor.started():
        if options.comparing_only:
            compare(measured, executor, plan)
        else:
            whole(measured, executor, plan)
    steps = {name: step for name, step in measured.steps.items() if not name.startswith("(")}
    counted = [step for name, step in steps.items() if not name.startswith("tables: ")]
    total = {"wall": sum(step["wall"] for step in counted), "cpu": sum(step["cpu"] for step in counted)}
    total["mib"] = max(step["mib"] for step in counted)
    print(f"  {'all':28} {total['wall']:9.1f} s {total['cpu']:9.1f} s CPU {total['mib']:8.0f} MiB", flush=True)
    if not options.comparing_only:
        tables = bytes_of(out / "results" / "tables")
        print(f"  tables: {tables / people / 1000:.1f} kB for each person", flush=True)
    if not options.keep:
        shutil.rmtree(out, ignore_errors=True)
    return {"people": people, **total}


def compare(measured: Measured, executor: Executor, plan: Plan) -> None:
    for name in COMPARING:
        with measured.step(name):
            executor.run(plan.context, plan.tasks([STAGE_OF[name]]), name)


def whole(measured: Measured, executor: Executor, plan: Plan) -> None:
    out = plan.config.out
    with measured.step("copies"):
        if plan.leave_out_copies(this_worker()):
            raise SystemExit("simulated thumbnails must not be copies")
    with measured.step("totals"):
        executor.run(plan.context, plan.tasks([STAGE_OF["totals"]]), "totals")
    compare(measured, executor, plan)
    for name in ("picture_tables", "write_measurements", "verification_rows", "group_rows", "write_mean_maps"):
        measured.wrapped(name)
    with measured.step("tables"):
        images, skipped = assembling.write_tables(plan, out)
    with measured.step("manifest"):
        (out / "manifest.json").write_text(json.dumps(manifest_of(plan, executor, images, skipped)))
    del images
    with measured.step("report"):
        write_report(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--images", type=int, default=5)
    parser.add_argument("--layers", type=int, default=2, help="explained layers beside the overall map")
    parser.add_argument("--size", type=int, default=112, help="side of a crop in pixels")
    parser.add_argument("--shard-size", type=int, default=250, help="images of a shard")
    parser.add_argument("--max-pairs", type=int, default=MAX_PAIRS, help="pairs of images up to which all are compared")
    parser.add_argument("--permutations", type=int, default=999)
    parser.add_argument("--comparing-only", action="store_true")
    parser.add_argument("--distinct", type=int, help="people with maps of their own; all by default")
    parser.add_argument(
        "--landmarks", action="store_false", dest="thumbnails", help="strangers by landmarks, not crops"
    )
    parser.add_argument("--keep", action="store_true", help="leave the shards and results")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=Path("results/study_million"))
    options = parser.parse_args()
    if options.child:
        found = run(options, options.people[0])
        (options.out / f"{options.people[0]}.json").write_text(json.dumps(found))
        return
    options.out.mkdir(parents=True, exist_ok=True)
    found = []
    for people in options.people:
        at = sys.argv.index("--people") if "--people" in sys.argv else 1
        rest = [*sys.argv[1:at], *sys.argv[at + 1 + (len(options.people) if "--people" in sys.argv else 0) :]]
        subprocess.run([sys.executable, __file__, *rest, "--child", "--people", str(people)], check=True)  # noqa: S603
        found.append(json.loads((options.out / f"{people}.json").read_text()))
    for one, two in pairwise(found):
        print(f"{one['people']} → {two['people']} people: {two['cpu'] / one['cpu']:.1f} × the CPU seconds")


if __name__ == "__main__":
    main()
