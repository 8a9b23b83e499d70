"""Cost of a study before it starts: shards, passes, bytes, time and memory, from one shard that is run and timed on this machine."""

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from captum_leam.errors import IncompleteError
from captum_leam.explain import PRESETS, path_passes
from captum_leam.patterns import closest_strangers, signatures
from captum_leam.patterns.specificity import same_or_different
from captum_leam.stats.estimates import DRAWN_PEOPLE
from captum_leam.study.comparing import PART
from captum_leam.study.config import Config
from captum_leam.study.engines import Engine, perform
from captum_leam.study.plan import Plan, make_plan
from captum_leam.study.stages import STAGES, Stage
from captum_leam.study.worker import this_worker

BYTES_OF_SIGNATURES = 6000
"""Bytes in memory of the signatures of one map: top pixels as sparse rows, and the coarse map, before and after it is normalised."""
BYTES_OF_PERSON = 64
"""Bytes in memory of a person for one set of maps of one kind, where they are compared without their vectors."""
TIMED_PAIRS = 512
"""Signatures whose pairs are timed."""


@dataclass(frozen=True)
class StageCost:
    """Cost of one stage.

    Attributes:
        name: Name of the stage.
        shards: Number of its shards.
        forward: Images that pass forward through networks.
        backward: Images that pass backward.
        bytes: Bytes of its shards.
        seconds: Seconds of one worker.
        workers: Number of workers that share them.
    """

    name: str
    shards: int
    forward: int
    backward: int
    bytes: int
    seconds: float
    workers: int


@dataclass(frozen=True, repr=False)
class Cost:
    """Cost of a study, as :meth:`Study.plan <captum_leam.study.Study.plan>` estimates it.

    Attributes:
        stages: Cost of every stage that the configuration needs.
        people: Number of people.
        images: Number of images, including copies.
        timed: Number of images of the timed shard.
        engine: Engine of the run.
        jobs: Number of its workers.
        worker_mib: Memory of a worker in MiB.
        comparing_mib: Additional memory of the comparisons of one network and layer in MiB.
        switches: Settings that together halve the passes, and the share of all passes that each saves.
    """

    stages: tuple[StageCost, ...]
    people: int
    images: int
    timed: int
    engine: Engine
    jobs: int
    worker_mib: float
    comparing_mib: float
    switches: tuple[tuple[str, float], ...]

    @property
    def seconds(self) -> float:
        """Seconds of the whole run on this machine."""
        return sum(stage.seconds / stage.workers for stage in self.stages)

    def __repr__(self) -> str:
        head = f"{self.people} people, {self.images} images; engine {self.engine}, {self.jobs} worker{'s' * (self.jobs != 1)}"
        columns = ("stage", "shards", "forward", "backward", "MB", "seconds of one worker")
        rows: list[Sequence[Any]] = [
            (s.name, s.shards, s.forward, s.backward, f"{s.bytes / 1e6:.1f}", f"{s.seconds:.1f}") for s in self.stages
        ]
        sums = [
            sum(getattr(s, name) for s in self.stages) for name in ("shards", "forward", "backward", "bytes", "seconds")
        ]
        rows.append(("all", *sums[:3], f"{sums[3] / 1e6:.1f}", f"{sums[4]:.1f}"))
        lines = [f"{c[0]:16}{c[1]:>8}{c[2]:>12}{c[3]:>12}{c[4]:>12}{c[5]:>24}" for c in (columns, *rows)]
        saved = ", ".join(f"{setting} (−{share:.0%})" for setting, share in self.switches)
        return "\n".join(
            [
                head,
                *lines,
                f"time: about {_duration(self.seconds)}, from a shard of {self.timed} images on this machine",
                f"memory: about {self.worker_mib:.0f} MiB in each worker, {self.comparing_mib:.0f} MiB more where one compares",
                f"to halve the passes: {saved or 'no setting does'}",
            ]
        )


def _duration(seconds: float) -> str:
    """Return a duration for people.

    Example:
        >>> _duration(42), _duration(600), _duration(9000)
        ('42 s', '10 min', '2.5 h')
    """
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )


def estimate_cost(config: Config, engine: Engine, jobs: int, *, progress: bool = False) -> Cost:
    """Run every task of the first shard of a study twice in a temporary folder, and return what the whole study costs.

    The first time shows what a worker does once (probes of networks, statistics of untrained twins), the second what each image costs.
    Comparisons are the cost of their fixed part, and a time for each pair of maps and of crops, measured on random ones.

    Args:
        config: Configuration of the study.
        engine: Engine of the run.
        jobs: Number of its workers.
        progress: Whether to show a progress bar while files are read. Default: False.

    Raises:
        ConfigError: If settings, people or networks are wrong.
        IncompleteError: If a stage fails on the first shard.
    """
    worker = this_worker()
    whole = make_plan(config, worker, [], progress=progress)
    shard = _timed_shard(whole)
    plan = replace(whole, networks=shard.plan.networks)
    images, timed = sum(map(len, plan.shards)), max(shard.images, 1)
    workers = 1 if engine == "serial" else jobs
    stages = []
    for stage in STAGES:
        if count := len(plan.indices(stage)):
            first, second = shard.stages[stage.name]
            is_of_images = "shard" in stage.over
            scale = images / timed if is_of_images else 1
            forward, backward = (
                round(second[way] * scale + (first[way] - second[way]) * workers) for way in ("forward", "backward")
            )
            seconds = second["seconds"] * scale * (1 if is_of_images else count / len(shard.plan.indices(stage)))
            seconds += max(first["seconds"] - second["seconds"], 0) * workers + _comparing_seconds(stage, plan)
            size = second["bytes"] * (images / timed if is_of_images or stage.name == "strangers" else 1)
            share = min(workers, count)
            stages.append(StageCost(stage.name, count, forward, backward, round(size), seconds, share))
    return Cost(
        tuple(stages),
        len(plan.people),
        images,
        timed,
        engine,
        workers,
        _resident_mib(),
        _comparing_mib(plan),
        _halving(config, plan),
    )


# -- the timed shard -----------------------------------------------------------------------------------


@dataclass
class TimedShard:
    """Seconds, passes and bytes of every stage of a study of one shard.

    Attributes:
        plan: Plan of that study, with the layers of its networks.
        images: Images of the shard that have a crop.
        stages: Name of the stage → ``seconds``, ``forward``, ``backward`` and ``bytes`` of its tasks, done once and again.
    """

    plan: Plan
    images: int = 0
    stages: dict[str, tuple[Counter[str], Counter[str]]] = field(default_factory=dict)


def _timed_shard(whole: Plan) -> TimedShard:
    """Run the first shard in a temporary folder."""
    worker = this_worker()
    with tempfile.TemporaryDirectory() as folder:
        plan = replace(
            whole, config=replace(whole.config, out=Path(folder)), shards=whole.shards[:1], _keys={}, _kept={}
        )
        timed = TimedShard(plan)
        worker.works_for(plan.context)
        with _counted([worker.module(network) for network in plan.networks]) as counts:
            for stage in STAGES:
                _run_stage(timed, stage, counts)
                if stage.name == "crops":
                    timed.images = len(plan.pictures(0))
                    plan.describe(worker)
    return timed


def _run_stage(timed: TimedShard, stage: Stage, counts: Counter[str]) -> None:
    """Do every task once and, while the worker has what it made, again."""
    runs = timed.stages[stage.name] = Counter(), Counter()
    for task in timed.plan.tasks([stage]):
        for run in runs:
            counts.clear()
            began = time.perf_counter()
            if problem := perform(timed.plan.context, task).problem:
                raise IncompleteError(f"The first shard could not be computed, so that the cost is unknown. {problem}")
            run.update({**counts, "bytes": Path(str(task.path)).stat().st_size})
            run["seconds"] += time.perf_counter() - began  # type: ignore[assignment]


@contextmanager
def _counted(modules: Sequence[nn.Module]) -> Iterator[Counter[str]]:
    """Count the images that go forward and backward through networks, and through copies made of them meanwhile."""
    counts: Counter[str] = Counter()

    def count(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            counts["forward"] += len(output)
            if output.requires_grad:
                output.register_hook(count_backward)  # type: ignore[no-untyped-call]

    def count_backward(gradient: Tensor) -> None:
        counts["backward"] += len(gradient)

    handles = [module.register_forward_hook(count) for module in modules]
    try:
        yield counts
    finally:
        for handle in handles:
            handle.remove()


# -- what does not grow with the images alone ------------------------------------------------------------


def _sampled_images(plan: Plan) -> int:
    images = sum(map(len, plan.shards))
    return min(images, int(np.sqrt(2 * plan.config.max_pairs)) + 1)


def _comparing_seconds(stage: Stage, plan: Plan) -> float:
    """Return the seconds of the pairs of a stage: those of maps of a sample, or those of a sample of crops with all."""
    images, sample = sum(map(len, plan.shards)), _sampled_images(plan)
    rng = np.random.default_rng(0)
    codes = np.arange(TIMED_PAIRS) // 2
    if stage.name == "strangers":
        pairs, features = sample * images, rng.random((TIMED_PAIRS, 784))
        return pairs * _seconds(lambda: closest_strangers(features, codes.tolist())) / TIMED_PAIRS**2
    if stage.name != "patterns":
        return 0.0
    maps = signatures(torch.from_numpy(rng.random((TIMED_PAIRS, 112, 112))), fraction=plan.config.patterns.fraction)
    sets = sum(_sets(plan, index.layer) * (3 if index.layer == 0 else 1) for index in plan.indices(stage))
    pairs = sample * (sample - 1) // 2 * sets
    return pairs * _seconds(lambda: same_or_different(maps, codes)) / (TIMED_PAIRS * (TIMED_PAIRS - 1) / 2)


def _seconds(function: Callable[[], Any]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def _sets(plan: Plan, layer: int) -> int:
    """Return the number of sets of maps that are compared: the maps, and the controls that have maps."""
    controls = {"edges", "untrained"} | ({"parser"} if layer == 0 else set())
    return 1 + len(controls & set(plan.config.patterns.controls))


def _comparing_mib(plan: Plan) -> float:
    """Return the memory that the comparisons of one network and layer need, by what is kept for an image and a person."""
    images, people, sample = sum(map(len, plan.shards)), len(plan.people), _sampled_images(plan)
    signatures_kept = images if images <= sample else 2 * sample + PART
    vectors = min(people, DRAWN_PEOPLE) if people <= DRAWN_PEOPLE else 0
    of_maps = _sets(plan, 0) * (BYTES_OF_SIGNATURES * (signatures_kept + vectors) + 3 * BYTES_OF_PERSON * people)
    of_pairs = 24 * min(sample * (sample - 1) // 2, 4_000_000)
    return (of_maps + of_pairs + 16 * images) / 2**20


def _resident_mib() -> float:
    """Return the largest memory of this process so far; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# -- to make it cheaper ----------------------------------------------------------------------------------


def _halving(config: Config, plan: Plan) -> tuple[tuple[str, float], ...]:
    """Return the settings that, changed one after the other, halve the passes, those that save most first; with the share of each."""
    without_twin = tuple(name for name in config.patterns.controls if name != "untrained")
    changes: dict[str, Callable[[Config], Config]] = {
        "transfer: false": lambda c: replace(c, transfer=False),
        "patterns: {controls: " + str(list(without_twin)).replace("'", "") + "}": lambda c: replace(
            c, patterns=replace(c.patterns, controls=without_twin)
        ),
        "preset: fast": lambda c: replace(c, preset="fast") if c.preset in ("default", "best") else c,
        "leam: {n_steps: 1}": lambda c: replace(c, leam=replace(c.leam, n_steps=1, path="mean_gradient")),
        f"fractions: [{config.fractions[0]:g}]": lambda c: replace(c, fractions=c.fractions[:1]),
        "layer_fractions: []": lambda c: replace(c, layer_fractions=()),
        "controls: []": lambda c: replace(c, controls=()),
    }
    all_passes, chosen, now = passes_of(config, plan), [], config
    while changes and passes_of(now, plan) > all_passes / 2:
        best = min(changes, key=lambda name: passes_of(changes[name](now), plan))
        changed = changes.pop(best)(now)
        if (saved := passes_of(now, plan) - passes_of(changed, plan)) > 0:
            chosen.append((best, saved / all_passes))
            now = changed
    return tuple(chosen)


def passes_of(config: Config, plan: Plan) -> float:
    """Return the passes of one image by all networks, a backward pass counted as one forward pass: the formula of the page on studies."""
    explained = [network for network in plan.networks if network.layers]
    measured = len(plan.networks) if config.transfer else 1
    maps = sum(path_passes(config.leam.n_steps, config.leam.path))  # type: ignore[arg-type]
    maps += sum(PRESETS[config.preset].passes()) if config.preset in PRESETS else 0
    twins = (maps + 1) if "untrained" in config.patterns.controls else 0
    own = 1 + len(config.controls) - len(config.shared_controls)
    occluded = len(config.fractions) * len(config.fills)
    of_layers = len(config.layer_fractions) * len(config.fills) * (measured if config.layer_transfer else 1)
    shared = len(plan.networks) * occluded * len(config.shared_controls) + len(plan.networks)
    each = maps + twins + measured * occluded * own
    return shared + sum(each + of_layers * len(network.layers) for network in explained)
