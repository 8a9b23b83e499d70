"""The networks of a study: named, hashed, described, and loaded once in every process."""

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from captum_leam._engine.guards import raise_if_active
from captum_leam._engine.outputs import as_embeddings
from captum_leam._engine.shapes import Reshape
from captum_leam._engine.types import Field
from captum_leam._neighbours import recorded_sources
from captum_leam._storage import file_sha256
from captum_leam.errors import ConfigError
from captum_leam.layers import get_layer
from captum_leam.models import load_model
from captum_leam.models.sizes import size_problem
from captum_leam.objectives import embed
from captum_leam.study.config import Model
from captum_leam.study.identity import (
    Fingerprint,
    as_known,
    code_of,
    distance,
    fixed_images,
    outputs_of,
    weights_sha256,
)
from captum_leam.suggest import LayerSuggestion, LayerSuggestions, layer_suggestion, suggest_layers

CPU_TOLERANCE, ACCELERATOR_TOLERANCE = 1e-4, 2e-3
"""Relative distance of embeddings up to which two networks are the same; accelerators may multiply with ten bits of precision."""


@dataclass(frozen=True)
class Layer:
    """A layer by its name, with what is known of it.

    Attributes:
        name: within the model.
        shape: (C, h, w) of its map.
        cell: width of one of its cells in pixels.
        in_overall: whether the overall map is made of it, too.
        reshape: brings its output to (N, C, h, w); None where it is so already.
    """

    name: str
    shape: tuple[int, int, int]
    cell: float
    in_overall: bool
    reshape: Reshape | None = None


@dataclass(frozen=True)
class Network:
    """One network of the study, small enough to be sent to every worker.

    Attributes:
        model: what the configuration says of it.
        fingerprint: Its identity.
        size: Side of the crops in pixels.
        parameters: how many numbers it has learned.
        layers: that are explained; none before :func:`described`.
        field: (top, left, height, width) of the crop that it reads.
    """

    model: Model
    fingerprint: Fingerprint
    size: int
    parameters: int
    layers: tuple[Layer, ...] = ()
    field: Field = (0, 0, 0, 0)

    @property
    def name(self) -> str:
        """As tables call it."""
        return self.model.name

    @property
    def sha256(self) -> str:
        """Name of its identity."""
        return self.fingerprint.sha256

    def identity(self) -> list[Any]:
        """What results depend on."""
        layers = [[layer.name, list(layer.shape), layer.in_overall] for layer in self.layers]
        return [self.sha256, self.model.preprocessing, layers, list(self.field)]


# -- one copy in every process -------------------------------------------------------------------------

_LOADED: dict[tuple[str, str | None, str, str], nn.Module] = {}


def loaded(network: Network, device: str) -> nn.Module:
    """The network itself, loaded once in this process.

    Raises:
        ConfigError: if it is another than when the study began.
    """
    key = (network.model.where, network.model.preprocessing, network.sha256, device)
    if key not in _LOADED:
        module, fingerprint = _load(network.model, device, network.size)
        if not network.fingerprint.agrees(fingerprint):
            raise ConfigError(
                f"Expected model {network.name!r} to be the one that the study began with, got another. It changed meanwhile, or is "
                "made at random: seed its weights, or run again."
            )
        _LOADED[key] = module
    return _LOADED[key]


def embeddings_of(module: nn.Module, crops: Tensor) -> Tensor:
    """One batch of embeddings without gradients. What :func:`captum_leam.objectives.embed` looks at every time was looked at on loading.

    Raises:
        CaptumLeamError: if the network does not return one finite embedding for every crop.
    """
    with torch.no_grad():
        keeps = _KEEPS_INPUT.get(module)
        given = crops if keeps else crops.clone()
        made = as_embeddings(module(given), len(crops))
        if keeps is None:  # seen once: most networks leave their input alone, and get it without a copy from then on
            _KEEPS_INPUT[module] = given._version == 0
        return made


_KEEPS_INPUT: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def unload() -> None:
    """Forget all networks of this process."""
    _LOADED.clear()


def _load(model: Model, device: str, size: int) -> tuple[nn.Module, Fingerprint]:
    tolerance = CPU_TOLERANCE if device == "cpu" else ACCELERATOR_TOLERANCE
    try:
        with recorded_sources() as sources, torch.random.fork_rng(devices=[]):  # the user's random numbers stay
            module = load_model(model.where, model.preprocessing).to(device)
            raise_if_active(module)
            outputs = outputs_of(lambda images: embeddings_of(module, images), fixed_images(size).to(device), tolerance)
        files = [*sources.values(), *named_file_sha256(model.where)]
        weights = [] if any(outputs) else [weights_sha256(module)]  # it ran on none of the fixed images
        return module, Fingerprint(code_of(module, files, *weights), outputs, tolerance)
    except ImportError:
        raise
    except Exception as error:
        raise ConfigError(f"models.{model.name}: {error}") from error


def known(model: Model, device: str, size: int, earlier: Iterable[Fingerprint] = ()) -> Network:
    """Load a network that the configuration names, and identify it.

    Args:
        model: Its entry of the configuration.
        device: To run it on.
        size: Side of the crops in pixels.
        earlier: Identities of the same study; the first that agrees is kept.

    Raises:
        ConfigError: If it cannot be loaded, if two passes over the same image differ, or if its embeddings depend on the other images
            of the batch.

    Example:
        >>> known(Model("same", "torch.nn:Flatten"), "cpu", 8).parameters
        0
    """
    module, fingerprint = _load(model, device, size)
    _refuse_unknown_layers(model, module)
    network = Network(model, as_known(fingerprint, earlier), size, sum(p.numel() for p in module.parameters()))
    _LOADED[(model.where, model.preprocessing, network.sha256, device)] = module
    return network


def notes_on(networks: Iterable[Network]) -> list[str]:
    """Return a note for every two networks of different files that return the same embeddings for the fixed images."""
    return [
        f"Models {a.name} ({a.model.where}) and {b.name} ({b.model.where}) return the same embeddings for fixed images. Check that each "
        "of the two files loads its own network."
        for a, b in combinations(networks, 2)
        if a.model.where != b.model.where
        and any(a.fingerprint.outputs)
        and distance(a.fingerprint.outputs, b.fingerprint.outputs) <= a.fingerprint.tolerance
    ]


def _refuse_unknown_layers(model: Model, module: nn.Module) -> None:
    """At once, and not when everything is embedded."""
    for name in (model.layers or ()) if model.explain else ():
        try:
            get_layer(module, name)
        except ValueError as error:
            raise ConfigError(
                f"models.{model.name}: {error} Names under the key layers are of every model; where networks differ, give "
                f"models.{model.name}.layers, or auto."
            ) from None


def named_file_sha256(where: str) -> list[str]:
    """SHA-256 of an ONNX file or of an installed module; files of code are recorded when they are imported."""
    named = where.rpartition(":")[0]
    if where.endswith(".onnx"):
        return [file_sha256(Path(where))]
    try:
        spec = importlib.util.find_spec(named) if named and not named.endswith(".py") else None
    except (ImportError, ValueError):
        return []
    origin = Path(spec.origin) if spec is not None and spec.origin is not None else None
    return [file_sha256(origin)] if origin is not None and origin.is_file() else []


# -- layers --------------------------------------------------------------------------------------------


def described(network: Network, faces: Tensor, device: str) -> Network:
    """The network with the layers that are explained and the field that it reads.

    Args:
        network: as :func:`known` gives it.
        faces: a few crops (N, 3, H, W), on the CPU.
        device: to run it on.

    Raises:
        ConfigError: if it does not run on these crops, or a layer that was named cannot be explained.
    """
    module, crops = loaded(network, device), faces.to(device)
    if problem := size_problem(module, (faces.shape[2], faces.shape[3]), device, chosen=True):
        raise ConfigError(
            f"models.{network.name}: {problem} Set pictures.size, or pictures: photos if the pictures are not aligned crops."
        )
    try:
        embed(module, crops)
        if not network.model.explain:
            return network
        found = suggest_layers(module, crops)
        if network.model.layers is not None:
            named = [
                layer_suggestion(module, name, get_layer(module, name), crops, found) for name in network.model.layers
            ]
            found = replace(found, layers=tuple(named))
    except Exception as error:
        height, width = faces.shape[2:]
        raise ConfigError(
            f"models.{network.name}: on crops of {width} × {height} px it raised {type(error).__name__}: {str(error).splitlines()[0]}"
        ) from error
    inside = {layer.name for layer in found.for_overall_map()}
    layers = [Layer(s.name, s.shape, s.cell, s.name in inside, s.reshape) for s in found]
    return replace(network, layers=tuple(layers), field=found.field)


def suggestions(network: Network, module: nn.Module, size: tuple[int, int]) -> LayerSuggestions:
    """The layers with their modules, of this process's copy of the network (or of a twin)."""
    layers = [
        LayerSuggestion(layer.name, module.get_submodule(layer.name), layer.shape, layer.cell, layer.reshape)
        for layer in network.layers
    ]
    return LayerSuggestions(tuple(layers), network.field, size)


_TWINS: dict[tuple[str, ...], nn.Module] = {}


def untrained(network: Network, faces: Tensor, key: str, seed: int, device: str) -> nn.Module:
    """The network with new random weights; made once in this process, the global random numbers are left alone.

    Args:
        network: it is copied.
        faces: crops (N, 3, H, W) that the statistics of its BatchNorms are taken from.
        key: of these crops, so that every process makes the same twin.
        seed: of the weights.
        device: to run it on.
    """
    from captum_leam.models.randomised import randomised

    called = (network.sha256, device, key, str(seed))
    if called not in _TWINS:
        _TWINS.clear()  # one at a time: tasks of one network follow each other
        _TWINS[called] = randomised(loaded(network, device), faces.to(device), seed=seed)
    return _TWINS[called]
