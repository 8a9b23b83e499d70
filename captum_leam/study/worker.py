"""The state of one process of a study: what all tasks share, and what is kept from one task to the next."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from captum_leam._storage import Shard, read_shard
from captum_leam.errors import ConfigError
from captum_leam.faces import FaceAligner
from captum_leam.maps import default_blur
from captum_leam.models.randomised import randomised
from captum_leam.regions import TemplateParser, parse
from captum_leam.study.config import Config, Model
from captum_leam.study.identity import Fingerprint
from captum_leam.study.networks import Network, embeddings_of, identify, load
from captum_leam.study.parsing import LoadedParser, load_parser

KEPT_BATCHES = 4


@dataclass(frozen=True)
class WorkerContext:
    """Settings that all tasks of a study share, small enough to be sent to every worker.

    Attributes:
        config: Configuration of the study.
        networks: Networks with their layers, in the order of the configuration.
        regions: Label integers of the merged scheme, in the order of its names.
        parser: Identity of the parser.
    """

    config: Config
    networks: tuple[Network, ...]
    regions: tuple[int, ...]
    parser: Fingerprint


class Worker:
    """One process that does the tasks of a study.

    Networks and the parser are loaded once. Of what belongs to single shards only the last is kept, since tasks on one shard, and tasks
    on one untrained twin, follow each other.
    """

    def __init__(self) -> None:
        self._context: WorkerContext | None = None
        self._aligner: tuple[Any, FaceAligner] | None = None
        self._parsers: dict[Any, LoadedParser] = {}
        self._modules: dict[Any, nn.Module] = {}
        self._keeps_input: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
        self._twin: tuple[Any, nn.Module] | None = None
        self._crops: tuple[Path, Shard] | None = None
        self._blurred_shard: Shard | None = None
        self._blurred: dict[bytes, tuple[Tensor, Tensor]] = {}

    # -- what all tasks share

    @property
    def context(self) -> WorkerContext:
        """Settings of the study that the process works for."""
        if self._context is None:
            raise RuntimeError("the worker has no study yet")
        return self._context

    def works_for(self, context: WorkerContext) -> "Worker":
        """Take up the settings of a study."""
        self._context = context
        return self

    @property
    def config(self) -> Config:
        """Configuration of the study."""
        return self.context.config

    @property
    def networks(self) -> tuple[Network, ...]:
        """Networks of the study."""
        return self.context.networks

    @property
    def regions(self) -> tuple[int, ...]:
        """Label integers of the merged scheme."""
        return self.context.regions

    def measured(self, explained: int | None) -> list[int]:
        """Return the networks that occluded images are measured on."""
        everyone = list(range(len(self.networks)))
        return everyone if explained is None or self.config.transfer else [explained]

    # -- networks

    def identify(self, model: Model, config: Config, earlier: Iterable[Fingerprint] = ()) -> Network:
        """Load a network that the configuration names, identify it, and keep it for the tasks."""
        network, module = identify(model, config.device, config.pictures.size, earlier)
        self._modules[_key(network, config)] = module
        return network

    def module(self, network: Network) -> nn.Module:
        """Return the network itself, loaded once in this process.

        Raises:
            ConfigError: If it is another than when the study began.
        """
        key = _key(network, self.config)
        if key not in self._modules:
            module, fingerprint = load(network.model, self.config.device, network.size)
            if not network.fingerprint.agrees(fingerprint):
                raise ConfigError(
                    f"Expected model {network.name!r} to be the one that the study began with, got another. It changed meanwhile, or "
                    "is made at random: seed its weights, or run again."
                )
            self._modules[key] = module
        return self._modules[key]

    def embed(self, module: nn.Module, crops: Tensor) -> Tensor:
        """Return the embeddings (N, D) of one batch, which stays as it is; it is copied only for networks that change their input.

        Raises:
            CaptumLeamError: If the network does not return one finite embedding for every crop.
        """
        keeps = self._keeps_input.get(module)
        given = crops if keeps else crops.clone()
        embeddings = embeddings_of(module, given)
        if keeps is None:  # the first batch shows it
            self._keeps_input[module] = given._version == 0
        return embeddings

    def twin(self, network: Network, faces: Tensor, key: str) -> nn.Module:
        """Return the network with new random weights; the global random numbers are left alone.

        Args:
            network: Network that is copied.
            faces: Crops (N, 3, H, W) that the statistics of its BatchNorms are taken from.
            key: Name of these crops, so that every process makes the same twin.
        """
        of = (network.sha256, self.config.device, key, self.config.seed)
        if self._twin is None or self._twin[0] != of:
            module = randomised(self.module(network), faces.to(self.config.device), seed=self.config.seed)
            self._twin = of, module
        return self._twin[1]

    # -- pictures

    def aligner(self) -> FaceAligner:
        """Return the aligner of photographs."""
        pictures, device = self.config.pictures, self.config.device
        if self._aligner is None or self._aligner[0] != (pictures, device):
            detector: Any = pictures.detector
            made = FaceAligner(size=pictures.size, detector=detector, weights=pictures.weights, device=device)
            self._aligner = (pictures, device), made
        return self._aligner[1]

    def identify_parser(self, config: Config, earlier: Iterable[Fingerprint] = ()) -> LoadedParser:
        """Load the parser that the configuration names, identify it, and keep it for the tasks."""
        parser = load_parser(config, earlier)
        self._parsers[config.parser, config.device, parser.fingerprint] = parser
        return parser

    def labels(self, crops: Tensor) -> NDArray[np.uint8]:
        """Return the regions (N, H, W) of crops, with both sides merged; (1, H, W) of a parser that gives all crops the same.

        Raises:
            ConfigError: If the parser is another than when the study began.
        """
        config = self.config
        if not len(crops):
            return np.zeros((0, *crops.shape[2:]), dtype=np.uint8)
        key = config.parser, config.device, self.context.parser
        if key not in self._parsers:
            found = load_parser(config)
            if not self.context.parser.agrees(found.fingerprint):
                raise ConfigError("Expected the parser that the study began with, got another. Run again.")
            self._parsers[key] = found
        parser, scheme = self._parsers[key].parse, self._parsers[key].scheme.merge_sides()
        if isinstance(parser, TemplateParser):
            labels = parser(crops[:1])
        else:
            parts = [parse(parser, part.to(config.device)).cpu() for part in torch.split(crops, config.batch_size)]
            labels = torch.cat(parts)
        merged: NDArray[np.uint8] = scheme.relabel(labels).numpy().astype(np.uint8)
        return merged

    def crops_shard(self, path: Path) -> Shard:
        """Return a shard of crops; it is kept until another is read."""
        if self._crops is None or self._crops[0] != path:
            self._crops = path, read_shard(path)
        return self._crops[1]

    def crops_and_blur(self, faces: Shard, rows: NDArray[np.intp]) -> tuple[Tensor, Tensor]:
        """Return crops of some rows of a shard, and the same blurred; kept for the next task on the shard.

        Args:
            faces: Shard of crops.
            rows: Rows of a batch.
        """
        if self._blurred_shard is not faces:
            self._blurred_shard, self._blurred = faces, {}
        key = rows.tobytes()
        if key not in self._blurred:
            if len(self._blurred) >= KEPT_BATCHES:  # a large shard: its batches do not come again soon
                del self._blurred[next(iter(self._blurred))]
            crops = crops_of(faces, rows).to(self.config.device)
            self._blurred[key] = crops, default_blur(crops)
        return self._blurred[key]


def _key(network: Network, config: Config) -> tuple[str, str | None, str, str]:
    return network.model.where, network.model.preprocessing, network.sha256, config.device


@cache
def this_worker() -> Worker:
    """Return the worker of this process."""
    return Worker()


def crops_of(shard: Shard, rows: NDArray[Any] | None = None) -> Tensor:
    """Return crops of a shard (n, 3, H, W) as they were read, float32 in [0, 1], in memory that torch allocated."""
    stored = torch.from_numpy(shard["crops"] if rows is None else shard["crops"][rows])
    return stored.float() / 255 if stored.dtype == torch.uint8 else stored.clone()


@contextmanager
def deterministic_torch(threads: int) -> Iterator[None]:
    """Fix the number of threads, and the choice of kernels, so that every machine of one kind gives the same numbers."""
    before = torch.get_num_threads(), torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    torch.set_num_threads(threads)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before[1:]
