"""The stages of a study: of each its name, its inputs, what its result depends on, and its function.

To add a stage, add a row to :data:`STAGES`. If the meaning of a stage's numbers changes, increase its ``format``: its shards of earlier
versions are then made again, with all that is made from them.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from captum_leam._storage import Shard, read_shard
from captum_leam.study.comparing import agreement_shard, patterns_shard, strangers_shard
from captum_leam.study.config import Config
from captum_leam.study.evaluating import controls_shard, maps_shard, others_shard, untrained_shard
from captum_leam.study.reading import crops_shard
from captum_leam.study.task import Task
from captum_leam.study.worker import Worker


@dataclass(frozen=True)
class Stage:
    """One step of a study, done in many shards.

    Attributes:
        name: Name of the stage, and of the folder of its shards.
        title: Title of the progress bar; stages that follow each other under one title are done together.
        function: Worker and task → shard.
        over: Fields of :class:`Index` that the stage is repeated over, from the outer to the inner. Default: none.
        inputs: Stages that it reads; ``"first crops"`` are the crops of the first shard. Default: none; it reads pictures.
        depends_on: Settings of :class:`~captum_leam.study.config.Config` that it depends on, beside those of its inputs. Default: none.
        condition: Whether a configuration needs the stage. Default: always.
    """

    name: str
    title: str
    function: Callable[[Worker, Task], Shard]
    over: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    depends_on: tuple[str, ...] = ()
    condition: Callable[[Config], bool] = lambda config: True


# -- functions: inputs are read, and given to what computes --------------------------------------------


def _controls(worker: Worker, task: Task) -> Shard:
    return controls_shard(worker, worker.crops_shard(task.input("crops")))


def _maps(worker: Worker, task: Task) -> Shard:
    return maps_shard(worker, worker.crops_shard(task.input("crops")), task.index.network)


def _untrained(worker: Worker, task: Task) -> Shard:
    crops, first = worker.crops_shard(task.input("crops")), task.input("first crops")
    return untrained_shard(worker, crops, task.index.network, read_shard(first), first.stem)


def _others(worker: Worker, task: Task) -> Shard:
    total, maps = read_shard(task.input("totals")), read_shard(task.input("maps"))
    crops = worker.crops_shard(task.input("crops"))
    return others_shard(worker, crops, maps, task.index.network, total["sum"], int(total["count"][0]))


def _totals(worker: Worker, task: Task) -> Shard:
    totals = map_totals(map(read_shard, task.inputs.values()))
    total, images = totals.get("person_sums", np.zeros((1, 1))), totals.get("person_counts", 0)
    return Shard({"sum": total, "count": np.array([int(images)])})


def map_totals(shards: Iterable[Shard]) -> dict[str, NDArray[Any]]:
    """Return the totals of the maps of one network over all shards; none if no image has a map.

    Args:
        shards: Shards of maps.

    Returns:
        Sums ``layer_sums`` (L, H, W) and counts ``layer_counts`` (L,) of each layer, the overall map first; the sum ``person_sums`` (H, W)
        of the overall maps, and their number ``person_counts``.
    """
    totals: dict[str, NDArray[Any]] = {}
    for shard in shards:
        if len(shard["rows"]):
            parts = {name: shard[name].astype(np.float64) for name in ("layer_sums", "layer_counts")}
            parts |= {name: shard[name].sum(0, dtype=np.float64) for name in ("person_sums", "person_counts")}
            totals = {name: part + totals.get(name, 0.0) for name, part in parts.items()}
    return totals


# -- the table -----------------------------------------------------------------------------------------

SIGNATURES = ("region_fraction", "patterns.fraction", "patterns.grid", "seed")
OCCLUSION = ("fills", "fractions")
INTERVALS = ("confidence", "patterns.resamples", "seed", "max_pairs")

STAGES = (
    Stage(
        "crops",
        "reading and embedding",
        over=("shard",),
        depends_on=(
            "threads",
            "precision",
            "batch_size",
            "min_images",
            "pictures.how",
            "pictures.detector",
            "pictures.size",
        ),
        function=lambda worker, task: crops_shard(worker, task.pictures),
    ),
    Stage(
        "controls",
        "explaining",
        over=("shard",),
        inputs=("crops",),
        depends_on=(*SIGNATURES, *OCCLUSION, "shared_controls"),
        function=_controls,
    ),
    Stage(
        "maps",
        "explaining",
        over=("shard", "network"),
        inputs=("crops",),
        depends_on=(
            *SIGNATURES,
            *OCCLUSION,
            "own_controls",
            "preset",
            "leam",
            "layer_fractions",
            "layer_transfer",
            "transfer",
            "store_maps",
        ),
        function=_maps,
    ),
    Stage(
        "untrained",
        "explaining",
        over=("network", "shard"),
        inputs=("crops", "first crops"),
        depends_on=(*SIGNATURES, "preset", "leam"),
        function=_untrained,
        condition=lambda config: "untrained" in config.patterns.controls,
    ),
    Stage(
        "totals",
        "adding maps",
        over=("network",),
        inputs=("maps",),
        function=_totals,
        condition=lambda config: "other people" in config.controls,
    ),
    Stage(
        "others",
        "other people",
        over=("shard", "network"),
        inputs=("crops", "maps", "totals"),
        function=_others,
        condition=lambda config: "other people" in config.controls,
    ),
    Stage(
        "strangers",
        "strangers",
        inputs=("crops",),
        depends_on=("max_pairs", "seed"),
        function=strangers_shard,
        condition=lambda config: "pose" in config.patterns.controls,
    ),
    Stage(
        "patterns",
        "comparing",
        over=("network", "layer"),
        inputs=("crops", "controls", "maps", "untrained", "strangers"),
        depends_on=(*INTERVALS, "patterns.controls", "patterns.permutations"),
        function=patterns_shard,
    ),
    Stage(
        "model_agreement",
        "comparing",
        inputs=("crops", "maps"),
        depends_on=INTERVALS,
        function=agreement_shard,
    ),
    Stage(
        "layer_agreement",
        "comparing",
        over=("network",),
        inputs=("crops", "maps"),
        depends_on=INTERVALS,
        function=agreement_shard,
    ),
)
"""All stages, each after those that it reads."""
