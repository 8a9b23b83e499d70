"""Layers: naming them, recording what they output, the part of the input they read, and which to explain."""

import inspect
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from captum_leam.checks import refuse

Reshape = Callable[[Tensor], Tensor]


MOST_PREFIX_TOKENS = 16
"""Class and register tokens that may come before the patches."""


# -- models and their modules --------------------------------------------------------------------------


def modules_behind(forward_func: Callable[..., Any]) -> list[nn.Module]:
    """The root modules that a forward function runs, as far as they can be seen.

    A module itself; the owner of a bound method; what a ``functools.partial`` or a closure holds.

    Example:
        >>> model = nn.Linear(2, 2)
        >>> modules_behind(lambda x: model(x))
        [Linear(in_features=2, out_features=2, bias=True)]
    """
    if isinstance(forward_func, nn.Module):
        return [forward_func]
    if isinstance(forward_func, partial):
        held = [forward_func.func, *forward_func.args, *forward_func.keywords.values()]
        return [m for h in held if callable(h) for m in modules_behind(h)]
    owner = getattr(forward_func, "__self__", None)
    if isinstance(owner, nn.Module):
        return [owner]
    if inspect.isfunction(forward_func):
        seen = inspect.getclosurevars(inspect.unwrap(forward_func))
        held = [*seen.nonlocals.values(), *seen.globals.values()]
        return list({id(h): h for h in held if isinstance(h, nn.Module)}.values())
    return []


def layer_name(layer: nn.Module, forward_func: Callable[..., Any]) -> str:
    """Name of a layer within the model, for messages; its class where the model cannot be seen.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
        >>> layer_name(model[1], model)
        "'1' (ReLU)"
    """
    for root in modules_behind(forward_func):
        for name, module in root.named_modules():
            if module is layer:
                return f"{name!r} ({type(layer).__name__})"
    return f"({type(layer).__name__})"


def get_layer(model: nn.Module, name: str) -> nn.Module:
    """The layer of this name.

    Raises:
        ValueError: with the nearest names, if there is none.

    Example:
        >>> get_layer(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), "1")
        ReLU()
    """
    import difflib

    modules = dict(model.named_modules())
    if name not in modules:
        near = difflib.get_close_matches(name, [n for n in modules if n], n=5, cutoff=0.3)
        raise ValueError(
            f"the model has no layer {name!r}. Near it: {', '.join(near) or 'nothing'}. suggest_layers(model, faces) proposes some."
        )
    return model.get_submodule(name)


def refuse_unexplainable(forward_func: Callable[..., Any], layers: Sequence[nn.Module]) -> None:
    """Refuse, in words, models whose layers cannot be hooked or whose output for one image depends on others.

    Raises:
        TypeError: for TorchScript modules and what torch.export made.
        ValueError: for active BatchNorm or Dropout, or parameters made under ``inference_mode``.
    """
    if type(forward_func).__name__ == "ExportedProgram":
        raise TypeError(
            "forward_func is an ExportedProgram: hooks do not reach into it. Explain the eager module it was exported from."
        )
    refuse_active(forward_func)
    seen: set[nn.Module] = set()  # the layers are in the model, as a rule: every module is looked at once
    for root in [*modules_behind(forward_func), *layers]:
        for name, module in root.named_modules(seen):
            if _is_exported(module):
                raise TypeError(
                    f"module {name!r} was made by torch.export: its modules are flattened or run in copies, so that hooks do not fire, "
                    "and its batch size may be fixed. Explain the eager module it was exported from."
                )
            if isinstance(module, torch.jit.ScriptModule):
                raise TypeError(
                    f"module {name!r} is TorchScript ({type(module).__name__}): hooks never fire inside. "
                    "Explain the eager module it was scripted or traced from."
                )
            if any(p is not None and p.is_inference() for p in module._parameters.values()):
                raise ValueError(
                    "the model's parameters were made under torch.inference_mode() and have no gradients; build or load it outside."
                )


def _is_exported(module: nn.Module) -> bool:
    """Whether ``torch.export`` made it: the module of an ExportedProgram, flat or unflattened."""
    return any(kind.__module__.startswith("torch.export") for kind in type(module).__mro__)


def refuse_active(forward_func: Callable[..., Any]) -> None:
    """Refuse a model whose output for one image depends on the others, on chance, or on how often it ran.

    Raises:
        ValueError: for active BatchNorm, Dropout and the like, in words.

    Example:
        >>> refuse_active(nn.Sequential(nn.Dropout()).train())
        Traceback (most recent call last):
        ...
        ValueError: Dropout '0' is active: results would be random. Call model.eval() first.
    """
    for root in modules_behind(forward_func):
        for name, module in root.named_modules():
            _refuse_active(name, module)


@contextmanager
def sober(forward_func: Callable[..., Any], layers: Sequence[nn.Module] = ()) -> Iterator[None]:
    """Watch a forward pass for what :func:`refuse_active` cannot see from outside: modules behind an opaque callable, and chance.

    Where a module in training mode ran, the random numbers of the CPU must not have moved (``F.dropout`` is no module); if they
    have, they are put back.

    Args:
        forward_func: about to run.
        layers: that will run in it; if they are not seen in it, others are hidden too.

    Raises:
        ValueError: for an active module that runs in this thread, or a module in training mode that draws random numbers.

    Example:
        >>> hidden = nn.Dropout()
        >>> with sober([hidden].__getitem__):
        ...     _ = hidden(torch.ones(2))
        Traceback (most recent call last):
        ...
        ValueError: Dropout '' is active: results would be random. Call model.eval() first.
    """
    caller, before = threading.get_ident(), torch.get_rng_state()
    visible = {m for root in modules_behind(forward_func) for m in root.modules()}
    in_training = [type(m).__name__ for m in visible if m.training]

    def look(module: nn.Module, args: Any) -> None:
        if module.training and threading.get_ident() == caller:
            in_training.append(type(module).__name__)
            _refuse_active("", module)

    opaque = not visible or any(layer not in visible for layer in layers)
    handles = [register_module_forward_pre_hook(look)] if opaque else []
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    if in_training and not torch.equal(torch.get_rng_state(), before):
        torch.set_rng_state(before)
        raise ValueError(
            f"{in_training[0]} is in training mode and draws random numbers: results would be random. Call model.eval() first."
        )


def _refuse_active(name: str, module: nn.Module) -> None:
    kind = type(module).__name__
    if not module.training and not isinstance(module, nn.modules.batchnorm._BatchNorm):
        return
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        if module.training or module.running_mean is None:
            fix = "call model.eval() first" if module.training else "it keeps no running statistics; give it some"
            raise ValueError(
                f"{kind} {name!r} uses the statistics of the batch: every image's map would depend on the others. To mend it, {fix}."
            )
    elif _drops(module, kind):
        raise ValueError(f"{kind} {name!r} is active: results would be random. Call model.eval() first.")
    elif _learns(module, kind):
        raise ValueError(f"{kind} {name!r} changes its buffers whenever it runs: call model.eval() first.")


def _drops(module: nn.Module, kind: str) -> bool:
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return module.p > 0
    if isinstance(module, nn.MultiheadAttention | nn.RNNBase):
        return module.dropout > 0
    return isinstance(module, nn.RReLU) or kind in ("StochasticDepth", "DropPath")


def _learns(module: nn.Module, kind: str) -> bool:
    """Whether a module in training mode updates buffers: running statistics, or the power iteration of a spectral norm."""
    spectral = kind == "_SpectralNorm" or any(
        type(h).__name__ == "SpectralNorm" for h in module._forward_pre_hooks.values()
    )
    return spectral or (isinstance(module, nn.modules.instancenorm._InstanceNorm) and module.track_running_stats)


@dataclass
class _Eager:
    """The stance of the compiler is the process's: the first thread that needs eager modules sets it, the last one puts it back."""

    lock: Any = field(default_factory=threading.Lock)
    threads: int = 0
    stance: Any = None

    def __enter__(self) -> None:
        with self.lock:
            if not self.threads:
                self.stance = torch.compiler.set_stance("force_eager")
            self.threads += 1

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.threads -= 1
            if not self.threads:
                self.stance.__exit__(None, None, None)


_EAGER = _Eager()


def eager() -> AbstractContextManager[Any]:
    """Run compiled modules eagerly: under ``torch.compile`` hooks set later are lost or belong to another call."""
    # importing torch._dynamo takes seconds; where nobody has, nothing is compiled
    return _EAGER if "torch._dynamo" in sys.modules else nullcontext()


# -- hooks ---------------------------------------------------------------------------------------------

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


# -- recording activations -----------------------------------------------------------------------------


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
        ValueError: at the end, if a recorded tensor was changed in place meanwhile.

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
            raise ValueError(
                f"what layer {recording.name} {'takes in' if inputs else 'puts out'} is changed in place later in the pass (x += y), so "
                "that its gradient would be another tensor's. Choose a layer before or after, or write x = x + y in the model."
            )


def _check_tensors(tensors: Sequence[Any], name: str, inputs: bool) -> None:
    what = "takes in" if inputs else "puts out"
    if not tensors:
        raise ValueError(
            f"layer {name} {what} no positional tensor (all arguments by keyword?); choose a layer around or after it."
        )
    for tensor in tensors:
        if not isinstance(tensor, Tensor):
            raise TypeError(
                f"layer {name} {what} a {type(tensor).__name__}; needed are tensors. Choose a layer inside it."
            )
        if not torch.is_floating_point(tensor):
            raise TypeError(
                f"layer {name} {what} {tensor.dtype}, which has no gradient; choose a floating-point layer."
            )


def gather_runs(
    recording: Recorded, layer: nn.Module, forward_func: Any, device_ids: list[int] | None
) -> list[tuple[Tensor, ...]]:
    """The runs of a layer in batch order: one, or one per device under DataParallel.

    Raises:
        ValueError: if the layer did not run, or ran more than once on one device.
    """
    runs = recording.runs
    if not runs:
        hints = ""
        if isinstance(layer, nn.ModuleList | nn.ModuleDict):
            hints = f" A {type(layer).__name__} never runs itself: pass a list of the modules in it."
        elif not any(layer is m for root in modules_behind(forward_func) for m in root.modules()):
            hints = " It is not a module of forward_func (of another copy of the model?)."
        raise ValueError(
            f"layer {recording.name} did not run during the forward pass.{hints} Choose a layer that the images pass through."
        )
    devices = [run[0].device for run in runs]
    if len(set(devices)) < len(devices):
        raise ValueError(
            f"layer {recording.name} ran {len(runs)} times in one forward pass: it is not clear which run the map should show. "
            "Choose a module that runs once, for example a block around it; if the forward function runs the "
            "model on the reference too, compute the reference outside and pass it as a tensor."
        )
    order = device_ids or getattr(forward_func, "device_ids", None) or []
    return sorted(
        runs, key=lambda run: order.index(run[0].device.index) if run[0].device.index in order else len(order)
    )


# -- bringing layer outputs to (N, C, H, W) ------------------------------------------------------------


def tokens_to_map(tokens: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
    """Transformer tokens (N, T, C) as (N, C, h, w): drops the class and register tokens that come first.

    Args:
        tokens: shape (N, T, C), patches last, in reading order.
        grid: (h, w) of the patches; by default the largest square that fits into T.

    Raises:
        ValueError: for a grid that does not fit, or without one for tokens that are no square.

    Example:
        >>> tokens_to_map(torch.rand(2, 1 + 14 * 14, 192)).shape
        torch.Size([2, 192, 14, 14])
    """
    if tokens.ndim != 3:
        raise ValueError(f"tokens have shape {tuple(tokens.shape)}; needed is (N, T, C).")
    side = int(tokens.shape[1] ** 0.5)
    if grid is None and tokens.shape[1] - side * side > MOST_PREFIX_TOKENS:
        raise ValueError(
            f"{tokens.shape[1]} tokens are no square of patches after at most {MOST_PREFIX_TOKENS} others; give the grid: "
            "reshape=functools.partial(tokens_to_map, grid=(h, w))."
        )
    height, width = grid or (side, side)
    if not 0 <= tokens.shape[1] - height * width <= MOST_PREFIX_TOKENS:
        raise ValueError(
            f"Expected a grid of {height} × {width} patches to have {height * width} tokens and at most {MOST_PREFIX_TOKENS} class or "
            f"register tokens before them, got {tokens.shape[1]}. Was the grid found at another image size?"
        )
    patches = tokens[:, tokens.shape[1] - height * width :]
    return patches.transpose(1, 2).reshape(*patches.shape[::2], height, width)


def channels_last_to_first(activations: Tensor) -> Tensor:
    """(N, h, w, C), as inside torchvision's Swin, as (N, C, h, w).

    Example:
        >>> channels_last_to_first(torch.rand(2, 56, 56, 96)).shape
        torch.Size([2, 96, 56, 56])
    """
    return activations.movedim(-1, 1)


def looks_channels_last(activations: Tensor, image_size: Sequence[int]) -> bool:
    """Whether a tensor (N, a, b, c) is rather (N, h, w, C) than (N, C, h, w).

    The height-to-width ratio of the image decides. Where both readings fit it (a = b = c) or neither does (a
    network that crops), neighbours along a spatial axis are alike and channels are not.

    Example:
        >>> looks_channels_last(torch.rand(2, 14, 14, 384), (224, 224)), looks_channels_last(torch.rand(2, 64, 56, 56), (112, 112))
        (True, False)
    """
    return bool(_channels_last(activations, image_size))


def _channels_last(activations: Tensor, image_size: Sequence[int]) -> Tensor:
    """The answer as a boolean (1,) on the device."""
    a, b, c = activations.shape[1:]
    first, last = _fits(b, c, image_size), _fits(a, b, image_size)
    if first == last and min(a, b, c) > 2:
        values = activations.detach()[:2].float()  # two images tell, and the rest costs as much as a layer
        return (_roughness(values, 3) > 1.5 * _roughness(values, 1))[None]
    return torch.full((1,), last and not first, dtype=torch.bool, device=activations.device)


def _fits(height: int, width: int, image_size: Sequence[int]) -> bool:
    # within one cell of rounding
    return abs(height * image_size[1] - width * image_size[0]) < max(image_size)


def _roughness(values: Tensor, axis: int) -> Tensor:
    centred = values - values.mean(axis, keepdim=True)
    return centred.diff(dim=axis).square().mean() / (2 * centred.square().mean() + 1e-30)


def spatial(
    activations: Tensor, name: str, images: int, image_size: Sequence[int] | None, reshape: Reshape | None
) -> Tensor:
    """Return activations as (N, C, h, w), reshaped if the caller declared how.

    Args:
        activations: What the layer puts out.
        name: Of the layer, for messages.
        images: N, the number of images.
        image_size: (H, W) of the images. None for inputs that are no images.
        reshape: Brings the activations to (N, C, h, w). None: they are so already.

    Raises:
        ValueError: for another number of rows than images, tokens or channels-last activations without a reshape, and layers without
            positions.

    Example:
        >>> spatial(torch.rand(2, 8, 7, 7), "'body'", 1, None, None)
        Traceback (most recent call last):
        ...
        ValueError: Expected layer 'body' to put out one row per image, got 2 rows for each image, each (8, 7, 7): ...
    """
    shape = tuple(activations.shape)
    if reshape is not None:
        activations = reshape(activations)
        if activations.ndim != 4 or activations.shape[0] != images:
            raise ValueError(
                f"Expected `reshape` to bring layer {name} to ({images}, C, h, w), one map per image, got {tuple(activations.shape)} from "
                f"{shape}."
            )
        return activations
    if shape[:1] != (images,):
        raise ValueError(rows_message(name, shape, images))
    if activations.ndim == 3:
        raise ValueError(
            f"layer {name} has shape {shape}: tokens (N, T, C), not a map (N, C, h, w). Pass "
            "reshape=captum_leam.layers.tokens_to_map, or a function of your own."
        )
    if activations.ndim != 4:
        raise ValueError(
            f"layer {name} has shape {shape}, which has no positions; choose a layer with output (N, C, h, w)."
        )
    if image_size is not None:
        refuse(
            _channels_last(activations, image_size),
            lambda _: (
                f"layer {name} has shape {shape}, which looks like (N, h, w, C), channels last. Pass "
                "reshape=captum_leam.layers.channels_last_to_first, or reshape=lambda a: a if it is (N, C, h, w)."
            ),
        )
    return activations


def rows_message(name: str, shape: tuple[int, ...], images: int) -> str:
    """Return the refusal of a layer whose rows are not the images."""
    rows = shape[0] if shape else 0
    count = f"{rows // images} rows for each image" if rows % images == 0 else f"{rows} rows for {images} images"
    found = f"Expected layer {name} to put out one row per image, got {count}, each {shape[1:]}: "
    if len(shape) == 3 and shape[1] == images:
        return (
            found + "tokens (T, N, C) with the images second. Pass reshape=lambda t: tokens_to_map(t.transpose(0, 1))."
        )
    return found + (
        "the model runs several views of an image in one batch, or splits, pads or reorders it. Explain the network inside, or pass a "
        "`reshape` that returns one map (C, h, w) per image."
    )
