"""The networks of a study: named, hashed, described, and loaded once in every process."""

import hashlib
import importlib.util
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from captum_leam.layers import Reshape, get_layer, refuse_active
from captum_leam.maps import Field
from captum_leam.models import load_model
from captum_leam.models.sizes import size_problem
from captum_leam.objectives import as_embeddings, embed
from captum_leam.study.config import ConfigError, Model
from captum_leam.study.store import file_sha256
from captum_leam.suggest import LayerSuggestion, LayerSuggestions, layer_suggestion, suggest_layers

ADDRESS = re.compile(r" at 0x[0-9a-f]+")


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
        sha256: of its architecture, its weights and the file that makes it.
        parameters: how many numbers it has learned.
        layers: that are explained; none before :func:`described`.
        field: (top, left, height, width) of the crop that it reads.
    """

    model: Model
    sha256: str
    parameters: int
    layers: tuple[Layer, ...] = ()
    field: Field = (0, 0, 0, 0)

    @property
    def name(self) -> str:
        """As tables call it."""
        return self.model.name

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
        module = _load(network.model, device)
        if model_sha256(module, network.model.where) != network.sha256:
            raise ConfigError(f"model {network.name!r} changed while the study ran, or is made at random; run again.")
        _LOADED[key] = module
    return _LOADED[key]


def embeddings_of(module: nn.Module, crops: Tensor) -> Tensor:
    """One batch of embeddings without gradients. What :func:`captum_leam.objectives.embed` looks at every time was looked at on loading.

    Raises:
        ValueError: if the network does not return one finite embedding for every crop.
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


def _load(model: Model, device: str) -> nn.Module:
    try:
        with torch.random.fork_rng(devices=[]):  # what makes networks may seed; the user's random numbers stay
            module = load_model(model.where, model.preprocessing).to(device)
        refuse_active(module)
        return module
    except ImportError:
        raise
    except Exception as error:
        raise ConfigError(f"models.{model.name}: {error}") from error


def known(model: Model, device: str) -> Network:
    """The network that the configuration names, loaded and hashed.

    Raises:
        ConfigError: if it cannot be loaded.

    Example:
        >>> known(Model("same", "torch.nn:Identity"), "cpu").parameters
        0
    """
    module = _load(model, device)
    _refuse_unknown_layers(model, module)
    network = Network(model, model_sha256(module, model.where), sum(p.numel() for p in module.parameters()))
    _LOADED[(model.where, model.preprocessing, network.sha256, device)] = module
    return network


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


def model_sha256(module: nn.Module, where: str) -> str:
    """SHA-256 of a network: its modules, every tensor, and the file that it comes from.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> one, other = nn.Linear(2, 2), nn.Linear(2, 2)
        >>> model_sha256(one, "") == model_sha256(one, ""), model_sha256(one, "") == model_sha256(other, "")
        (True, False)
    """
    digest = hashlib.sha256(ADDRESS.sub("", repr(module)).encode())
    for name, tensor in sorted(module.state_dict().items()):
        if not isinstance(tensor, Tensor):
            continue
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    if (source := _source(where)) is not None:
        digest.update(file_sha256(source).encode())
    return digest.hexdigest()


def _source(where: str) -> Path | None:
    """The file that a model comes from, where there is one."""
    if where.endswith(".onnx"):
        return Path(where)
    named = where.rpartition(":")[0]
    if named.endswith(".py"):
        return Path(named)
    try:
        spec = importlib.util.find_spec(named) if named else None
    except (ImportError, ValueError):
        spec = None
    origin = None if spec is None or spec.origin is None else Path(spec.origin)
    return origin if origin is not None and origin.is_file() else None


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
    from captum_leam.faithfulness.sanity import randomised

    called = (network.sha256, device, key, str(seed))
    if called not in _TWINS:
        _TWINS.clear()  # one at a time: tasks of one network follow each other
        _TWINS[called] = randomised(loaded(network, device), faces.to(device), seed=seed)
    return _TWINS[called]
