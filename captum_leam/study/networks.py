"""The networks of a study: loaded, identified and described."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from captum_leam._engine.guards import raise_if_active
from captum_leam._engine.memory import is_out_of_memory
from captum_leam._engine.outputs import as_embeddings
from captum_leam._engine.shapes import Reshape
from captum_leam._engine.types import Field
from captum_leam._neighbours import record_sources
from captum_leam.errors import CaptumLeamError, ConfigError
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
    named_file_sha256,
    outputs_of,
    weights_sha256,
)
from captum_leam.suggest import LayerSuggestion, LayerSuggestions, layer_suggestion, suggest_layers

CPU_TOLERANCE, ACCELERATOR_TOLERANCE = 1e-4, 2e-3
"""Relative distance of embeddings up to which two networks are the same; accelerators may multiply with ten bits of precision."""


@dataclass(frozen=True)
class Layer:
    """A layer that is explained.

    Attributes:
        name: Name within the model.
        shape: Shape (C, h, w) of its output.
        cell: Width of one of its cells in pixels.
        in_overall: Whether the overall map is made of it, too.
        reshape: Function that brings its output to (N, C, h, w); None where it has this shape.
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
        model: Its entry of the configuration.
        fingerprint: Its identity.
        parameters: Number of its parameters.
        layers: Layers that are explained; none before :func:`describe`.
        field: Part (top, left, height, width) of the crop that it reads.
    """

    model: Model
    fingerprint: Fingerprint
    parameters: int
    layers: tuple[Layer, ...] = ()
    field: Field = (0, 0, 0, 0)

    @property
    def name(self) -> str:
        """Name in the tables."""
        return self.model.name

    @property
    def sha256(self) -> str:
        """Name of its identity."""
        return self.fingerprint.sha256

    def identity(self) -> list[Any]:
        """Return what results depend on."""
        layers = [[layer.name, list(layer.shape), layer.in_overall] for layer in self.layers]
        return [self.sha256, self.model.preprocessing, layers, list(self.field)]


def embeddings_of(module: nn.Module, crops: Tensor) -> Tensor:
    """Return the embeddings of one batch without gradients; the checks of :func:`captum_leam.objectives.embed` are done on loading.

    Raises:
        CaptumLeamError: If the network does not return one finite embedding for every crop.
    """
    with torch.no_grad():
        return as_embeddings(module(crops), len(crops))


def identify(model: Model, device: str, size: int, earlier: Iterable[Fingerprint] = ()) -> tuple[Network, nn.Module]:
    """Load a network that the configuration names, and identify it.

    Args:
        model: Its entry of the configuration.
        device: Device to run it on.
        size: Side of the crops in pixels.
        earlier: Identities of the same study; the first that agrees is kept. Default: none.

    Raises:
        ConfigError: If it cannot be loaded, if two passes over the same image differ, if its embeddings depend on the other images of
            the batch, or if it lacks a layer that the configuration names.

    Example:
        >>> identify(Model("same", "torch.nn:Flatten"), "cpu", 8)[0].parameters
        0
    """
    tolerance = CPU_TOLERANCE if device == "cpu" else ACCELERATOR_TOLERANCE
    try:
        with record_sources() as sources, torch.random.fork_rng(devices=[]):  # the user's random numbers stay
            module = load_model(model.where, model.preprocessing).to(device)
            raise_if_active(module)
            images = fixed_images(size).to(device)
            outputs = outputs_of(lambda some: embeddings_of(module, some.clone()), images, tolerance)
        weights = [] if any(outputs) else [weights_sha256(module)]  # it ran on none of the fixed images
        code = code_of(module, [*sources.values(), *named_file_sha256(model.where)], *weights)
    except ImportError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise ConfigError(f"models.{model.name}: {error}") from error
    _check_layer_names(model, module)
    parameters = sum(p.numel() for p in module.parameters())
    return Network(model, as_known(Fingerprint(code, outputs, tolerance), earlier), parameters), module


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


def _check_layer_names(model: Model, module: nn.Module) -> None:
    """Raise for unknown layers at once, not when everything is embedded."""
    for name in (model.layers or ()) if model.explain else ():
        try:
            get_layer(module, name)
        except CaptumLeamError as error:
            raise ConfigError(
                f"models.{model.name}: {error} The key `layers` applies to every model; set models.{model.name}.layers for "
                "a network with other names."
            ) from None


# -- layers --------------------------------------------------------------------------------------------


def describe(network: Network, module: nn.Module, faces: Tensor, device: str) -> Network:
    """Return the network with the layers that are explained and the field that it reads.

    Args:
        network: Result of :func:`identify`.
        module: The network itself.
        faces: A few crops (N, 3, H, W), on the CPU.
        device: Device to run it on.

    Raises:
        ConfigError: If it does not run on these crops, or a layer that was named cannot be explained.
    """
    crops = faces.to(device)
    if problem := size_problem(module, (faces.shape[2], faces.shape[3]), device, is_explicit=True):
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
        if is_out_of_memory(error):
            raise
        height, width = faces.shape[2:]
        raise ConfigError(
            f"models.{network.name}: on crops of {width} × {height} px it raised {type(error).__name__}: {str(error).splitlines()[0]}"
        ) from error
    inside = {layer.name for layer in found.for_overall_map()}
    layers = [Layer(s.name, s.shape, s.cell, s.name in inside, s.reshape) for s in found]
    return replace(network, layers=tuple(layers), field=found.field)


def suggestions(network: Network, module: nn.Module, size: tuple[int, int]) -> LayerSuggestions:
    """Return the layers of a network with the modules of one copy of it, or of a twin."""
    layers = [
        LayerSuggestion(layer.name, module.get_submodule(layer.name), layer.shape, layer.cell, layer.reshape)
        for layer in network.layers
    ]
    return LayerSuggestions(tuple(layers), network.field, size)
