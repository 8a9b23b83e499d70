"""The plan of a study: from its pictures and networks to the tasks of all stages, with paths that name what a shard depends on."""

import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from operator import attrgetter
from pathlib import Path
from typing import Any

from captum_leam._storage import file_sha256, hash_of, read_shard, shard_digest
from captum_leam._version import __version__
from captum_leam._weights import find_weights
from captum_leam.errors import ConfigError
from captum_leam.study.assembling import StudyShards
from captum_leam.study.config import Config
from captum_leam.study.identity import Fingerprint
from captum_leam.study.listing import Listing, Picture, hashed, list_people, mark_copy, split
from captum_leam.study.networks import Network, describe
from captum_leam.study.parsing import LoadedParser
from captum_leam.study.reading import find_copies
from captum_leam.study.stages import STAGES, Index, Inputs, Stage, Task, sources_of
from captum_leam.study.worker import Worker, WorkerContext, crops_of

NUMERIC = ("torch", "captum", "numpy", "pillow")
ANYWHERE = Index()
STAGE_OF = {stage.name: stage for stage in STAGES}


@dataclass
class Plan:
    """Shards of people, and the tasks that make their results.

    Attributes:
        config: Configuration of the study.
        listing: All pictures.
        networks: Networks, with their layers once :meth:`describe` was called.
        parser: The parser.
        shards: Pictures of each shard.
    """

    config: Config
    listing: Listing
    networks: tuple[Network, ...]
    parser: LoadedParser
    shards: tuple[tuple[Picture, ...], ...]
    _keys: dict[tuple[str, Index], str] = field(default_factory=dict)

    @property
    def context(self) -> WorkerContext:
        """Settings that all tasks share."""
        labels = tuple(label for label, _ in self.parser.regions)
        return WorkerContext(self.config, self.networks, labels, self.parser.fingerprint)

    @property
    def identities(self) -> tuple[Fingerprint, ...]:
        """Identities of the networks and of the parser."""
        return (*(network.fingerprint for network in self.networks), self.parser.fingerprint)

    # -- tasks

    def tasks(self, stages: Sequence[Stage]) -> list[Task]:
        """Return the tasks of stages that do not read each other.

        They come shard by shard, so that pictures are read and blurred once; then, for stages that begin with the network, network by
        network, so that one untrained twin is kept.
        """
        tasks = [self.task(stage, index) for stage in stages for index in self.indices(stage)]
        outer = {stage.name: stage.over[:1] for stage in stages}
        return sorted(tasks, key=lambda t: t.index.shard if outer[t.stage] == ("shard",) else len(self.shards))

    def task(self, stage: Stage, index: Index) -> Task:
        """Return the task of one shard."""
        pictures = self.shards[index.shard] if not stage.inputs else ()
        return Task(stage.name, index, self.path(stage.name, index), self.inputs(stage, index), pictures)

    def inputs(self, stage: Stage, index: Index) -> Inputs:
        """Return the shards that a shard is made from."""
        return {(name, at): self.path(name.split()[-1], at) for name, at in self._inputs(stage, index)}

    def indices(self, stage: Stage, at: Index = ANYWHERE) -> list[Index]:
        """Return the places of the shards of a stage; none if the configuration does not need it.

        Args:
            stage: The stage.
            at: Place that they agree with, as far as both are repeated over the same. Default: all.
        """
        indices = [Index()] if stage.condition(self.config) else []
        for dimension in stage.over:
            fixed = getattr(at, dimension)
            numbers = [fixed] if fixed >= 0 else None
            indices = [
                index._replace(**{dimension: i}) for index in indices for i in numbers or self._range(dimension, index)
            ]
        return indices

    def _range(self, dimension: str, index: Index) -> Sequence[int]:
        if dimension == "shard":
            return range(len(self.shards))
        if dimension == "network":
            return [number for number, network in enumerate(self.networks) if network.layers]
        return range(1 + len(self.networks[index.network].layers))

    def _inputs(self, stage: Stage, index: Index) -> Iterator[tuple[str, Index]]:
        """Yield the shards that a shard is made from, by stage and place."""
        for name in stage.inputs:
            places = [Index(shard=0)] if name == "first crops" else self.indices(STAGE_OF[name], index)
            yield from ((name, at) for at in places)

    # -- paths

    def path(self, stage: str, index: Index) -> Path:
        """Return the path of a shard, named by what it depends on."""
        return self.config.out / "work" / stage / f"{self._key(stage, index)}.shard"

    def _key(self, name: str, index: Index) -> str:
        if (name, index) not in self._keys:
            stage = STAGE_OF[name]
            settings = {setting: self._setting(setting) for setting in stage.depends_on}
            inputs = [self._key(of.split()[-1], at) for of, at in self._inputs(stage, index)]
            network = self.networks[index.network] if index.network >= 0 else None
            of_network = [] if network is None else [index.network, network.identity()]
            origin = [] if stage.inputs else [self._origin, [[p.sha256, p.person] for p in self.shards[index.shard]]]
            self._keys[name, index] = hash_of(name, stage.format, settings, inputs, of_network, index.layer, origin)
        return self._keys[name, index]

    def _setting(self, name: str) -> Any:
        value = attrgetter(name)(self.config)
        return [value.n_steps, value.path, value.norm, value.weighting] if name == "leam" else value

    @cached_property
    def _origin(self) -> list[Any]:
        """What crops and embeddings depend on, beside settings and pictures; all other stages read them."""
        installed = versions()
        return [
            __version__,
            {name: installed.get(name, "") for name in NUMERIC},
            self.config.device.partition(":")[0],  # which card of several makes no difference
            _detector_sha256(self.config),
            self.parser.fingerprint.sha256,
            [[network.name, network.sha256, network.model.preprocessing] for network in self.networks],
        ]

    # -- what the first shards show

    def leave_out_copies(self, worker: Worker) -> bool:
        """Leave out the pictures that show the same as an earlier one, and return whether there are any.

        The shards that held one get another name and are made again, those of other people stay.
        """
        crops = [self.path("crops", index) for index in self.indices(STAGE_OF["crops"])]
        first = find_copies(worker.works_for(self.context), self.shards, crops)
        pictures = [
            mark_copy(p, first[p.number], "shows the same as") if p.number in first else p
            for p in self.listing.pictures
        ]
        self.listing = replace(self.listing, pictures=tuple(pictures))
        left = (tuple(p for p in shard if p.number not in first) for shard in self.shards)
        self.shards = tuple(shard for shard in left if shard)
        self._keys.clear()
        return bool(first)

    def describe(self, worker: Worker) -> None:
        """Find the layers of the networks, with the first crops that there are.

        Raises:
            ConfigError: If there are no crops, or a network does not run on them.
        """
        worker.works_for(self.context)
        reasons = []
        for index in self.indices(STAGE_OF["crops"]):
            shard = read_shard(self.path("crops", index))
            if len(shard["kept"]):
                crops = crops_of(shard)[:2]
                described = [describe(n, worker.module(n), crops, self.config.device) for n in self.networks]
                self.networks = tuple(described)
                worker.works_for(self.context)
                return
            reasons += [reason for _, _, _, reason in shard.notes["failed"]]
        raise ConfigError(f"people: no picture could be used: {reasons[0] if reasons else 'no reason is known'}")

    def has_crops(self) -> bool:
        """Return whether all shards of crops are there."""
        return all(shard_digest(task.path) for task in self.tasks([STAGE_OF["crops"]]))

    # -- results

    def study_shards(self) -> StudyShards:
        """Return what the tables of images are made from."""
        paths = {(s.name, at): self.path(s.name, at) for s in STAGES for at in self.indices(s) if "shard" in s.over}
        networks, numbers = len(self.networks), range(len(self.shards))
        others = tuple(tuple(paths.get(("others", Index(i, n))) for n in range(networks)) for i in numbers)
        sources = sources_of(paths, networks)
        return StudyShards(self.config, self.listing, self.networks, self.parser.regions, self.shards, sources, others)

    def rows(self, *stages: str) -> list[dict[str, Any]]:
        """Return the rows of a table that stages have made, in order."""
        tasks = self.tasks([STAGE_OF[name] for name in stages])
        return [row for task in tasks for row in read_shard(task.path).notes["rows"]]


def make_plan(config: Config, worker: Worker, earlier: Sequence[Fingerprint], *, progress: bool) -> Plan:
    """List the pictures, load the networks and the parser, and cut the people into shards.

    Args:
        config: Configuration of the study.
        worker: Worker of this process.
        earlier: Identities that the study had before; where they agree, its shards keep their names.
        progress: Whether to show a progress bar.

    Raises:
        ConfigError: If no picture can be used, or a network or the parser cannot be loaded.
    """
    listing = hashed(list_people(config), config.min_images, progress=progress)
    if not listing.usable:
        reasons = "; ".join(dict.fromkeys(p.reason for p in listing.pictures))
        raise ConfigError(f"people: of {len(listing.pictures)} pictures none can be used: {reasons[:500]}")
    networks = tuple(worker.identify(model, config, earlier) for model in config.models)
    parser = worker.identify_parser(config, earlier)
    return Plan(config, listing, networks, parser, tuple(split(listing.usable, config.shard_size)))


PACKAGES = ("torchvision", "scipy", "pandas", "pyarrow", "facexlib", "onnx2torch", *NUMERIC)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that numbers depend on."""
    found = {"python": platform.python_version(), "captum-leam": __version__}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _detector_sha256(config: Config) -> str:
    """Return the SHA-256 of the detector's weights; empty where crops need none or there are none."""
    if config.pictures.how == "crops":
        return ""
    try:
        return file_sha256(find_weights(config.pictures.detector, config.pictures.weights))
    except (ImportError, ValueError, KeyError, OSError):
        return ""  # the first photograph that needs it raises
