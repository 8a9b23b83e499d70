"""Record what layers put out as nodes of the graph that the rest of a pass builds on."""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from captum_leam._engine.modules import modules_behind
from captum_leam.errors import CaptumLeamError, InputTypeError

ForwardHook = Callable[[nn.Module, Any, Any], Any]


@contextmanager
def hooked(hooks: Iterable[tuple[nn.Module, ForwardHook]]) -> Iterator[None]:
    """Forward hooks for the length of a block, which see what this thread runs and not what others run on the same model.

    Example:
        >>> seen = []
        >>> layer = nn.ReLU()
        >>> with hooked([(layer, lambda module, args, output: seen.append(output))]):
        ...     _ = layer(torch.ones(1))
        >>> _ = layer(torch.ones(1))
        >>> seen
        [tensor([1.])]
    """
    caller = threading.get_ident()

    def here(hook: ForwardHook, module: nn.Module, args: Any, output: Any) -> Any:
        return hook(module, args, output) if threading.get_ident() == caller else None

    handles = []
    try:
        for module, hook in hooks:
            handles.append(module.register_forward_hook(partial(here, hook)))
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass
class Recorded:
    """What one layer put out (or took in) during one forward pass."""

    name: str
    runs: list[tuple[Tensor, ...]] = field(default_factory=list)
    is_tuple: bool = False
    is_shared: bool = False  # a tensor that the layer takes in, or hands on as it is, and that may be used beside it
    versions: list[int] = field(default_factory=list)  # of the tensors when they were recorded: counts changes in place
    handed: list[Tensor] = field(default_factory=list)  # the copies of shared tensors that the model goes on with
    is_nested: bool = False  # a shared tensor that is itself the copy handed on for another layer

    @property
    def forks(self) -> bool:
        """Whether the model changed a copy in place where, without hooks, it would change what may be used beside it, too."""
        return any(_version(t) > 0 for t in self.handed)


Graph = Literal["as it is", "from the layers", "from the inputs"]


@contextmanager
def record(
    layers: Sequence[nn.Module],
    names: Sequence[str],
    *,
    inputs: bool = False,
    graph: Graph = "as it is",
    switched: list[Tensor] | None = None,
) -> Iterator[list[Recorded]]:
    """Record the activations of layers as leaves or nodes of the graph that the rest of the pass builds on.

    Hooks live as long as the ``with`` block. The model goes on with a copy, so that later in-place operations
    leave the recorded tensor alone. The first layer to run becomes a leaf: what came before it is not kept. What a layer takes in,
    or hands on as it is, may also be used beside the layer (a skip connection): that tensor itself is recorded, and to
    know all its uses the graph must start from the inputs.

    Args:
        layers: distinct modules.
        names: of the layers, for messages.
        inputs: record what the layers take in rather than what they put out.
        graph: ``"as it is"``: gradients stay on or off. ``"from the layers"``: the first layer to run switches them on. ``"from the
            inputs"``: no layer becomes a leaf.
        switched: gets the tensors of others (the user's, the model's) whose ``requires_grad`` is switched on, to be switched back with
            :func:`switch_back`.

    Raises:
        CaptumLeamError: at the end, if a recorded tensor was changed in place meanwhile.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(inplace=True))
        >>> with record([model[0]], ["0"]) as (linear,):
        ...     out = model(torch.ones(1, 2))
        >>> linear.runs[0][0].requires_grad
        True
    """
    caller = threading.get_ident()
    recordings = [Recorded(name) for name in names]
    handles = []

    def hook(owner: nn.Module, recording: Recorded, module: nn.Module, args: Any, output: Any = None) -> Any:
        # another thread running the same module; a DataParallel replica is another module and does count
        if module is owner and threading.get_ident() != caller:
            return None
        value = args if inputs else output
        tensors = value if isinstance(value, tuple | list) else (value,)
        _check_tensors(tensors, recording.name, inputs)
        first = not any(r.runs for r in recordings)
        if first and graph == "from the layers":
            torch.set_grad_enabled(True)
        # what is given by keyword does not reach a hook: it may be what is handed on
        shared = [inputs or not args or _is_among(t, args) for t in tensors]
        leaf = first and graph != "from the inputs"
        # a tensor that is put out twice has two gradients
        own = [
            t.clone() if sum(t is u for u in tensors) > 1 and not s else t for t, s in zip(tensors, shared, strict=True)
        ]
        kept = tuple(_node(t, s, leaf, switched) for t, s in zip(own, shared, strict=True))
        recording.is_shared |= any(shared)
        earlier = [c for r in recordings if r is not recording for c in r.handed]
        recording.is_nested |= any(s and t is c for t, s in zip(tensors, shared, strict=True) for c in earlier)
        recording.is_tuple = isinstance(value, tuple | list) and len(kept) > 1
        recording.runs.append(kept)
        recording.versions += [_version(t) for t in kept]
        # the model may have switched gradients off around the layer
        with torch.set_grad_enabled(graph != "as it is" or torch.is_grad_enabled()):
            copies = [t.clone() for t in kept]
        recording.handed += [c for c, s in zip(copies, shared, strict=True) if s]
        if not isinstance(value, tuple | list):
            return copies[0]
        return type(value)(copies) if type(value) in (tuple, list) else type(value)(*copies)

    try:
        for layer, recording in zip(layers, recordings, strict=True):
            register = layer.register_forward_pre_hook if inputs else layer.register_forward_hook
            handles.append(register(partial(hook, layer, recording)))
        yield recordings
    finally:
        for handle in handles:
            handle.remove()
    _refuse_changed(recordings, inputs)


def _node(tensor: Tensor, shared: bool, leaf: bool, switched: list[Tensor] | None) -> Tensor:
    """The tensor to differentiate by: itself where it is part of a graph or used elsewhere too, else a new leaf."""
    if not shared:
        return tensor if tensor.requires_grad and not leaf else tensor.detach().requires_grad_()
    with _SWITCHING:
        if switched is not None and (not tensor.requires_grad or id(tensor) in _SWITCHED_ON):
            switched.append(tensor)
            _SWITCHED_ON[id(tensor)] += 1
        return tensor.requires_grad_()


_SWITCHING = threading.Lock()


_SWITCHED_ON: Counter[int] = Counter()
"""How many passes, in whatever threads, need gradients of a tensor that had none."""


def switch_back(switched: list[Tensor]) -> None:
    """Leave tensors, which may be the user's or frozen parameters, without ``requires_grad`` again.

    Example:
        >>> given = torch.ones(1).requires_grad_()
        >>> switch_back([given])
        >>> given.requires_grad
        False
    """
    while switched:
        tensor = switched.pop()
        with _SWITCHING:
            _SWITCHED_ON[id(tensor)] -= 1
            if _SWITCHED_ON[id(tensor)] > 0:
                continue
            del _SWITCHED_ON[id(tensor)]
            if tensor.is_leaf:
                tensor.requires_grad_(False)


def _is_among(tensor: Any, values: Any) -> bool:
    """Whether a tensor is one of some values, which may be nested."""
    if isinstance(values, dict):
        values = values.values()
    elif not isinstance(values, tuple | list):
        return tensor is values
    return any(_is_among(tensor, value) for value in values)


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def _refuse_changed(recordings: Sequence[Recorded], inputs: bool) -> None:
    """Values and gradients of a tensor that is changed in place afterwards belong to two different tensors."""
    for recording in recordings:
        if recording.versions != [_version(t) for run in recording.runs for t in run]:
            raise CaptumLeamError(
                f"what layer {recording.name} {'takes in' if inputs else 'puts out'} is changed in place later in the pass (x += y), so "
                "that its gradient would be another tensor's. Choose a layer before or after, or write x = x + y in the model."
            )


def _check_tensors(tensors: Sequence[Any], name: str, inputs: bool) -> None:
    what = "takes in" if inputs else "puts out"
    if not tensors:
        raise CaptumLeamError(
            f"layer {name} {what} no positional tensor (all arguments by keyword?); choose a layer around or after it."
        )
    for tensor in tensors:
        if not isinstance(tensor, Tensor):
            raise InputTypeError(
                f"layer {name} {what} a {type(tensor).__name__}; needed are tensors. Choose a layer inside it."
            )
        if not torch.is_floating_point(tensor):
            raise InputTypeError(
                f"layer {name} {what} {tensor.dtype}, which has no gradient; choose a floating-point layer."
            )


def gather_runs(
    recording: Recorded, layer: nn.Module, forward_func: Any, device_ids: list[int] | None
) -> list[tuple[Tensor, ...]]:
    """The runs of a layer in batch order: one, or one per device under DataParallel.

    Raises:
        CaptumLeamError: if the layer did not run, or ran more than once on one device.
    """
    runs = recording.runs
    if not runs:
        hints = ""
        if isinstance(layer, nn.ModuleList | nn.ModuleDict):
            hints = f" A {type(layer).__name__} never runs itself: pass a list of the modules in it."
        elif not any(layer is m for root in modules_behind(forward_func) for m in root.modules()):
            hints = " It is not a module of forward_func (of another copy of the model?)."
        raise CaptumLeamError(
            f"layer {recording.name} did not run during the forward pass.{hints} Choose a layer that the images pass through."
        )
    devices = [run[0].device for run in runs]
    if len(set(devices)) < len(devices):
        raise CaptumLeamError(
            f"layer {recording.name} ran {len(runs)} times in one forward pass: it is not clear which run the map should show. "
            "Choose a module that runs once, for example a block around it; if the forward function runs the "
            "model on the reference too, compute the reference outside and pass it as a tensor."
        )
    order = device_ids or getattr(forward_func, "device_ids", None) or []
    return sorted(
        runs, key=lambda run: order.index(run[0].device.index) if run[0].device.index in order else len(order)
    )
