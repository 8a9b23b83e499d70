"""The plan of a study: the tasks of all stages, and the paths of their shards, named by what a shard depends on."""

import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from captum_leam._storage import Shard, file_sha256, hash_of, read_shard, shard_digest
from captum_leam._stores import AnyPath
from captum_leam._version import __version__
from captum_leam._weights import find_weights
from captum_leam.errors import ConfigError
from captum_leam.study.config import Config
from captum_leam.study.identity import Fingerprint
from captum_leam.study.listing import Listing, Picture, hashed, list_people, mark_copy, split
from captum_leam.study.networks import Network, describe
from captum_leam.study.parsing import LoadedParser
from captum_leam.study.reading import find_copies
from captum_leam.study.stages import STAGES, Stage
from captum_leam.study.task import Index, Task
from captum_leam.study.worker import Worker, WorkerContext, crops_of

NUMERIC = ("torch", "captum", "numpy", "pillow")
CODE = "captum-leam code"
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
    _kept: dict[int, NDArray[np.int32]] = field(default_factory=dict)

    @property
    def context(self) -> WorkerContext:
        """Settings that all tasks share."""
        labels = tuple(label for label, _ in self.parser.regions)
        return WorkerContext(self.config, self.networks, labels, self.parser.fingerprint)

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
        inputs = {(name, at): self.path(name.split()[-1], at) for name, at in self._inputs(stage, index)}
        pictures = self.shards[index.shard] if not inputs else ()
        return Task(stage.name, index, self.path(stage.name, index), inputs, pictures)

    def indices(self, stage: Stage, at: Index = ANYWHERE) -> list[Index]:
        """Return the places of the shards of a stage; none if the configuration does not need it.

        Args:
            stage: The stage.
            at: Place that they agree with, as far as both are repeated over the same. Default: all.
        """
        indices = [Index()] if stage.condition(self.config) else []
        for dimension in stage.over:
            fixed = getattr(at, dimension)
            indices = [
                index._replace(**{dimension: i})
                for index in indices
                for i in ((fixed,) if fixed >= 0 else self._range(dimension, index))
                if fixed < 0 or i in self._range(dimension, index)
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

    def path(self, stage: str, index: Index) -> AnyPath:
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
            self._keys[name, index] = hash_of(name, settings, inputs, of_network, index.layer, origin)
        return self._keys[name, index]

    def _setting(self, name: str) -> Any:
        value = attrgetter(name)(self.config)
        return [value.n_steps, value.path, value.norm, value.weighting] if name == "leam" else value

    @cached_property
    def _origin(self) -> list[Any]:
        """What crops and embeddings depend on, beside settings and pictures; all other stages read them."""
        installed = versions()
        return [
            {name: installed.get(name, "") for name in (*NUMERIC, "captum-leam", CODE)},
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
        pictures = [picture for i in range(len(self.shards)) for picture in self.pictures(i)]
        first = find_copies(
            worker.works_for(self.context), pictures, lambda: (shard for _, shard in self.read("crops"))
        )
        marked = tuple(
            mark_copy(p, first[p.number], "shows the same as") if p.number in first else p
            for p in self.listing.pictures
        )
        self.listing = replace(self.listing, pictures=marked)
        left = (tuple(p for p in shard if p.number not in first) for shard in self.shards)
        self.shards = tuple(shard for shard in left if shard)
        for cached in ("people", "person_numbers"):
            self.__dict__.pop(cached, None)
        self._keys.clear()
        self._kept.clear()
        return bool(first)

    def describe(self, worker: Worker) -> None:
        """Find the layers of the networks, with the first crops that there are.

        Raises:
            ConfigError: If there are no crops, or a network does not run on them.
        """
        worker.works_for(self.context)
        reasons = []
        for _, shard in self.read("crops"):
            if len(shard["kept"]):
                crops = crops_of(shard)[:2]
                described = [describe(n, worker.module(n), crops, self.config.device) for n in self.networks]
                self.networks = tuple(described)
                worker.works_for(self.context)
                return
            reasons += [reason for _, _, _, reason in shard.notes["failed"]]
        raise ConfigError(
            f"people: expected one usable picture or more, got none ({reasons[0] if reasons else 'unknown'})."
        )

    def has_crops(self) -> bool:
        """Return whether all shards of crops are there."""
        return all(shard_digest(task.path) for task in self.tasks([STAGE_OF["crops"]]))

    # -- results

    @cached_property
    def people(self) -> list[str]:
        """Everybody with a usable picture, in order."""
        return list(self.person_numbers)

    @cached_property
    def person_numbers(self) -> dict[str, int]:
        """Everybody with a usable picture → the number in that order."""
        names = dict.fromkeys(picture.person for shard in self.shards for picture in shard)
        return {name: i for i, name in enumerate(names)}

    def read(self, stage: str, *, shard: int = -1, network: int = -1) -> Iterator[tuple[Index, Shard]]:
        """Yield the shards of a stage, in order; none if the configuration does not need it.

        Args:
            stage: Name of the stage.
            shard: Number of the shard of people. Default: all.
            network: Number of the network. Default: all.
        """
        for index in self.indices(STAGE_OF[stage], Index(shard, network)):
            yield index, read_shard(self.path(stage, index))

    def pictures(self, shard: int) -> list[Picture]:
        """Return the pictures of a shard that have a crop."""
        if shard not in self._kept:
            self._kept[shard] = read_shard(self.path("crops", Index(shard)))["kept"]
        return [self.shards[shard][i] for i in self._kept[shard]]

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
        ConfigError: If none of the pictures can be used, or a network or the parser cannot be loaded.
    """
    listing = hashed(list_people(config), config.people.folder, config.min_images, progress=progress)
    if not listing.usable:
        reasons = "; ".join(dict.fromkeys(p.reason for p in listing.pictures))
        raise ConfigError(
            f"people: expected one usable picture or more, got none among {len(listing.pictures)} ({reasons[:500]})."
        )
    networks = tuple(worker.identify(model, config, earlier) for model in config.models)
    parser = worker.identify_parser(config, earlier)
    return Plan(config, listing, networks, parser, tuple(split(listing.usable, config.shard_size)))


PACKAGES = ("torchvision", "scipy", "pandas", "pyarrow", "facexlib", "onnx2torch", *NUMERIC)


def code_sha256() -> str:
    """Return a hash of the package's source but for pages and the command line: shards of other code are made again."""
    package = Path(__file__).resolve().parents[1]
    names = sorted(path.relative_to(package).as_posix() for path in package.rglob("*.py"))
    computing = [name for name in names if not name.startswith(("reporting/", "cli.py", "study/command.py"))]
    return hash_of([[name, file_sha256(package / name)] for name in computing])


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that numbers depend on."""
    found = {"python": platform.python_version(), "captum-leam": __version__, CODE: code_sha256()}
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
