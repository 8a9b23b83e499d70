"""The state of one process of a study: what all tasks share, and what is kept from one task to the next."""

import ctypes
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from captum_leam._optional import import_optional
from captum_leam._storage import Shard, read_shard
from captum_leam._stores import AnyPath
from captum_leam.errors import ConfigError
from captum_leam.faces import FaceAligner
from captum_leam.maps import default_blur
from captum_leam.models.randomised import randomised
from captum_leam.regions import TemplateParser, parse
from captum_leam.study.config import Config, Model
from captum_leam.study.identity import Fingerprint
from captum_leam.study.networks import Network, embeddings_of, identify
from captum_leam.study.parsing import LoadedParser, load_parser

KEPT_BATCHES = 4

MALLOC_THRESHOLDS = {-1: 1 << 30, -3: 1 << 30}
"""Parameters M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of the C library's ``mallopt``, in bytes."""


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

    Networks are loaded once. Of everything else only the last is kept, since tasks on one shard, and tasks on one untrained twin, follow
    each other.

    Attributes:
        context: Settings of the study that the process works for, after :meth:`works_for`.
        loads: Number of networks that were loaded.
        load_seconds: Seconds that loading them took.
    """

    context: WorkerContext
    loads: int = 0
    load_seconds: float = 0.0
    _autocast: str = ""

    def __init__(self) -> None:
        self._modules: dict[Any, nn.Module] = {}
        self._keeps_input: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
        self._latest: dict[str, dict[Any, Any]] = {}

    def _last(self, what: str, key: Any, make: Callable[[], Any], kept: int = 1) -> Any:
        """Return one of the last things of its kind, of which some are kept; made anew for another key."""
        latest = self._latest.setdefault(what, {})
        latest[key] = latest.pop(key) if key in latest else make()
        while len(latest) > kept:
            del latest[next(iter(latest))]
        return latest[key]

    # -- what all tasks share

    def works_for(self, context: WorkerContext) -> "Worker":
        """Take up the settings of a study."""
        self.context = context
        self._autocast = torch.device(self.config.device).type if self.config.precision == "bf16" else ""
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
        """Load a network that the configuration names, identify it in float32, and keep it for the tasks.

        Raises:
            ConfigError: If it cannot be loaded, or the device does not have the precision.
        """
        kind = torch.device(config.device).type
        if config.precision == "bf16" and not torch.amp.is_autocast_available(kind):
            raise ConfigError(
                f"precision: Expected float32 on device {kind!r}, where PyTorch has no autocast, got 'bf16'. Set precision: float32."
            )
        began = time.perf_counter()
        network, module = identify(model, config.device, config.pictures.size, earlier)
        self.loads, self.load_seconds = self.loads + 1, self.load_seconds + time.perf_counter() - began
        self._modules[_key(network, config)] = module
        return network

    def module(self, network: Network) -> nn.Module:
        """Return the network itself, loaded once in this process.

        Raises:
            ConfigError: If it is another than when the study began.
        """
        key = _key(network, self.config)
        if key not in self._modules:
            loaded = self.identify(network.model, self.config, [network.fingerprint])
            _check_is_same(f"model {network.name!r}", network.fingerprint, loaded.fingerprint)
        return self._modules[key]

    def embed(self, module: nn.Module, crops: Tensor) -> Tensor:
        """Return the embeddings (N, D) of one batch, which stays as it is; it is copied only for networks that change their input.

        Raises:
            CaptumLeamError: If the network does not return one finite embedding for every crop.
        """
        keeps = self._keeps_input.get(module)
        given = crops if keeps else crops.clone()
        with self.in_precision():
            embeddings = embeddings_of(module, given)
        if keeps is None:  # the first batch shows it
            self._keeps_input[module] = given._version == 0
        return embeddings

    def in_precision(self) -> AbstractContextManager[Any]:
        """Return a context manager for the forward passes of networks: autocast, if the configuration asks for it."""
        return torch.autocast(self._autocast, torch.bfloat16) if self._autocast else nullcontext()

    def twin(self, network: Network, faces: Tensor, key: str) -> nn.Module:
        """Return the network with new random weights; the global random numbers are left alone.

        Args:
            network: Network that is copied.
            faces: Crops (N, 3, H, W) that the statistics of its BatchNorms are taken from.
            key: Name of these crops, so that every process makes the same twin.
        """
        device, seed = self.config.device, self.config.seed
        twin: nn.Module = self._last(
            "twin",
            (network.sha256, device, key, seed),
            lambda: randomised(self.module(network), faces.to(device), seed=seed),
        )
        return twin

    # -- pictures

    def aligner(self) -> FaceAligner:
        """Return the aligner of photographs."""
        pictures, device = self.config.pictures, self.config.device
        options: dict[str, Any] = {"size": pictures.size, "detector": pictures.detector, "weights": pictures.weights}
        aligner: FaceAligner = self._last("aligner", (pictures, device), lambda: FaceAligner(device=device, **options))
        return aligner

    def identify_parser(self, config: Config, earlier: Iterable[Fingerprint] = ()) -> LoadedParser:
        """Load the parser that the configuration names, identify it, and keep it for the tasks."""
        parser = load_parser(config, earlier)
        self._latest["parser"] = {(config.parser, config.device, parser.fingerprint): parser}
        return parser

    def _load_parser(self) -> LoadedParser:
        parser = load_parser(self.config)
        _check_is_same("the parser", self.context.parser, parser.fingerprint)
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
        loaded: LoadedParser = self._last("parser", key, self._load_parser)
        if isinstance(loaded.parse, TemplateParser):
            labels = loaded.parse(crops[:1])
        else:
            parts = torch.split(crops, config.batch_size)
            labels = torch.cat([parse(loaded.parse, part.to(config.device)).cpu() for part in parts])
        merged: NDArray[np.uint8] = loaded.scheme.merge_sides().relabel(labels).numpy().astype(np.uint8)
        return merged

    def crops_shard(self, path: AnyPath) -> Shard:
        """Return a shard of crops; the last ones are kept."""
        shard: Shard = self._last("crops", path, lambda: read_shard(path), KEPT_BATCHES)
        return shard

    def crops_and_blur(self, faces: Shard, rows: NDArray[np.intp]) -> tuple[Tensor, Tensor]:
        """Return crops of some rows of a shard, and the same blurred; the last ones are kept for the next tasks on the shard.

        Args:
            faces: Shard of crops.
            rows: Rows of a batch.
        """

        def make() -> tuple[Shard, Tensor, Tensor]:
            crops = crops_of(faces, rows).to(self.config.device)
            return faces, crops, default_blur(crops)  # with the shard, so that no other takes its identity

        _, crops, blurred = self._last("blurred", (id(faces), rows.tobytes()), make, KEPT_BATCHES)
        return crops, blurred


def _check_is_same(what: str, expected: Fingerprint, loaded: Fingerprint) -> None:
    """Raise if a worker loaded something else than the study began with."""
    if not expected.agrees(loaded):
        raise ConfigError(
            f"Expected {what} to be unchanged since the study began, got another. Run again, or seed its weights if they are random."
        )


def _key(network: Network, config: Config) -> tuple[str, str | None, str, str]:
    return network.model.where, network.model.preprocessing, network.sha256, config.device


@cache
def this_worker() -> Worker:
    """Return the worker of this process."""
    return Worker()


@cache
def keep_freed_memory() -> None:
    """Let this process keep freed memory, up to 1 GiB, for the next batch, from now on.

    By default glibc gives the memory of activations back to the system after every pass; to get it again takes a tenth of a small
    network's time. Other C libraries are left as they are. Only for processes of the package's own: workers, and the command line.
    """
    with suppress(AttributeError, OSError, TypeError):  # no such function, or no such library
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in MALLOC_THRESHOLDS.items():
            mallopt(parameter, value)


def crops_of(shard: Shard, rows: NDArray[Any] | None = None) -> Tensor:
    """Return crops of a shard (n, 3, H, W) as they were read, float32 in [0, 1], in memory that torch allocated."""
    stored = torch.from_numpy(shard["crops"] if rows is None else shard["crops"][rows])
    return stored.float() / 255 if stored.dtype == torch.uint8 else stored.clone()


@contextmanager
def deterministic_arithmetic(threads: int) -> Iterator[None]:
    """Fix threads and the choice of kernels, so that every machine of one kind gives the same numbers.

    The threads of NumPy are fixed where it computes by OpenBLAS, MKL or BLIS; Apple's Accelerate keeps its own.
    """
    before = torch.get_num_threads(), torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    torch.set_num_threads(threads)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    try:
        with import_optional("threadpoolctl").threadpool_limits(threads, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before[0])
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before[1:]
