"""The tasks of a study: one shard each, with its place among all shards."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from captum_leam._stores import AnyPath
from captum_leam.study.listing import Picture


class Index(NamedTuple):
    """Number of the shard of people, of the network and of the layer (0: overall map); -1 where a stage is not repeated over them."""

    shard: int = -1
    network: int = -1
    layer: int = -1


Inputs = Mapping[tuple[str, Index], AnyPath]
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
    path: AnyPath
    inputs: Inputs
    pictures: tuple[Picture, ...] = ()

    def input(self, stage: str) -> AnyPath:
        """Return the only input of a stage."""
        (path,) = (path for (name, _), path in self.inputs.items() if name == stage)
        return path

    @property
    def shards(self) -> int:
        """Number of shards of people among the inputs."""
        return 1 + max(index.shard for _, index in self.inputs)
