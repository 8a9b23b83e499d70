"""The stages of a study: of each its name, its inputs, what its result depends on, and its function.

To add a stage, add a row to :data:`STAGES`. If the meaning of a stage's numbers changes, increase its ``format``: its shards of earlier
versions are then made again, with all that is made from them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from captum_leam._storage import Shard, read_shard
from captum_leam.study.assembling import layer_totals
from captum_leam.study.comparing import Source, agreement_shard, patterns_shard, strangers_shard
from captum_leam.study.config import Config
from captum_leam.study.evaluating import controls_shard, maps_shard, others_shard, untrained_shard
from captum_leam.study.listing import Picture
from captum_leam.study.reading import crops_shard
from captum_leam.study.worker import Worker


class Index(NamedTuple):
    """Number of the shard of people, of the network and of the layer (0: overall map); -1 where a stage is not repeated over them."""

    shard: int = -1
    network: int = -1
    layer: int = -1


Inputs = Mapping[tuple[str, Index], Path]
"""Name of a stage and index → shard."""


@dataclass(frozen=True)
class Task:
    """One shard to be made.

    Attributes:
        stage: Name of the stage.
        index: Place among the shards of the stage.
        path: Path of the shard, named by what it depends on.
        inputs: Shards that it is made from.
        pictures: Pictures of whole people, where the stage reads any.
    """

    stage: str
    index: Index
    path: Path
    inputs: Inputs
    pictures: tuple[Picture, ...] = ()

    def input(self, stage: str) -> Path:
        """Return the only input of a stage."""
        (path,) = (path for (name, _), path in self.inputs.items() if name == stage)
        return path


@dataclass(frozen=True)
class Stage:
    """One step of a study, done in many shards.

    Attributes:
        name: Name of the stage, and of the folder of its shards.
        title: Title of the progress bar; stages that follow each other under one title are done together.
        over: Fields of :class:`Index` that the stage is repeated over, from the outer to the inner.
        inputs: Stages that it reads; ``"first crops"`` are the crops of the first shard.
        depends_on: Settings of :class:`~captum_leam.study.config.Config` that it depends on, beside those of its inputs.
        function: Worker and task → shard.
        format: Number of the meaning of its result.
        condition: Whether a configuration needs the stage. Default: always.
    """

    name: str
    title: str
    over: tuple[str, ...]
    inputs: tuple[str, ...]
    depends_on: tuple[str, ...]
    function: Callable[[Worker, Task], Shard]
    format: int = 1
    condition: Callable[[Config], bool] = lambda config: True


# -- functions: inputs are read, and given to what computes --------------------------------------------


def _crops(worker: Worker, task: Task) -> Shard:
    return crops_shard(worker, task.pictures)


def _controls(worker: Worker, task: Task) -> Shard:
    return controls_shard(worker, worker.crops_shard(task.input("crops")))


def _maps(worker: Worker, task: Task) -> Shard:
    return maps_shard(worker, worker.crops_shard(task.input("crops")), task.index.network)


def _untrained(worker: Worker, task: Task) -> Shard:
    crops, first = worker.crops_shard(task.input("crops")), task.input("first crops")
    return untrained_shard(worker, crops, task.index.network, read_shard(first), first.stem)


def _totals(worker: Worker, task: Task) -> Shard:
    try:
        _, _, total, images = layer_totals(list(task.inputs.values()))
    except ValueError:  # no image has a map
        total, images = np.zeros((1, 1)), 0
    return Shard({"sum": total, "count": np.array([images])})


def _others(worker: Worker, task: Task) -> Shard:
    total, maps = read_shard(task.input("totals")), read_shard(task.input("maps"))
    crops = worker.crops_shard(task.input("crops"))
    return others_shard(worker, crops, maps, task.index.network, total["sum"], int(total["count"][0]))


def _strangers(worker: Worker, task: Task) -> Shard:
    return strangers_shard(sources_of(task.inputs, len(worker.networks)))


def _patterns(worker: Worker, task: Task) -> Shard:
    strangers = task.inputs.get(("strangers", Index()))
    sources = sources_of(task.inputs, len(worker.networks))
    return patterns_shard(worker, task.index.network, task.index.layer, sources, strangers)


def _model_agreement(worker: Worker, task: Task) -> Shard:
    return agreement_shard(worker, "models", -1, sources_of(task.inputs, len(worker.networks)))


def _layer_agreement(worker: Worker, task: Task) -> Shard:
    return agreement_shard(worker, "layers", task.index.network, sources_of(task.inputs, len(worker.networks)))


def sources_of(inputs: Inputs, networks: int) -> tuple[Source, ...]:
    """Return the inputs by the people they hold."""
    count = 1 + max(index.shard for _, index in inputs)
    return tuple(
        Source(
            inputs["crops", Index(i)],
            tuple(inputs.get(("maps", Index(i, n))) for n in range(networks)),
            tuple(inputs.get(("untrained", Index(i, n))) for n in range(networks)),
            inputs.get(("controls", Index(i))),
        )
        for i in range(count)
    )


# -- the table -----------------------------------------------------------------------------------------

SIGNATURES = ("region_fraction", "patterns.fraction", "patterns.grid", "seed")
OCCLUSION = ("fills", "fractions")
INTERVALS = ("confidence", "patterns.resamples", "seed")

STAGES = (
    Stage(
        "crops",
        "reading and embedding",
        over=("shard",),
        inputs=(),
        depends_on=(
            "threads",
            "batch_size",
            "min_images",
            "pictures.how",
            "pictures.detector",
            "pictures.size",
        ),
        function=_crops,
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
        depends_on=(),
        function=_totals,
        condition=lambda config: "other people" in config.controls,
    ),
    Stage(
        "others",
        "other people",
        over=("shard", "network"),
        inputs=("crops", "maps", "totals"),
        depends_on=(),
        function=_others,
        condition=lambda config: "other people" in config.controls,
    ),
    Stage(
        "strangers",
        "strangers",
        over=(),
        inputs=("crops",),
        depends_on=(),
        function=_strangers,
        condition=lambda config: "pose" in config.patterns.controls,
    ),
    Stage(
        "patterns",
        "comparing",
        over=("network", "layer"),
        inputs=("crops", "controls", "maps", "untrained", "strangers"),
        depends_on=(*INTERVALS, "patterns.controls", "patterns.permutations"),
        function=_patterns,
    ),
    Stage(
        "model_agreement",
        "comparing",
        over=(),
        inputs=("crops", "maps"),
        depends_on=INTERVALS,
        function=_model_agreement,
    ),
    Stage(
        "layer_agreement",
        "comparing",
        over=("network",),
        inputs=("crops", "maps"),
        depends_on=INTERVALS,
        function=_layer_agreement,
    ),
)
"""All stages, each after those that it reads."""
