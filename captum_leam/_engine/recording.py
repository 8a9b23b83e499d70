"""Recorders of the inputs or outputs of layers in one forward pass.

:class:`ValueRecorder` copies values. :class:`LayerGraphRecorder` starts the graph at the first layer, so that nothing before it is kept.
:class:`InputGraphRecorder` also records tensors that are used outside of a layer, for which the graph must start at the inputs.
"""

import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from captum_leam._engine.modules import layer_name, modules_behind
from captum_leam.errors import CaptumLeamError, InputTypeError

ForwardHook = Callable[[nn.Module, Any, Any], Any]


@contextmanager
def forward_hooks(hooks: Iterable[tuple[nn.Module, ForwardHook]]) -> Iterator[None]:
    """Register forward hooks within a block, which are called for runs of this thread only.

    Args:
        hooks: Pairs of a module and a hook.

    Example:
        >>> seen = []
        >>> layer = nn.ReLU()
        >>> with forward_hooks([(layer, lambda module, args, output: seen.append(output))]):
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


class Recorder(ABC):
    """Context manager that records layers in one forward pass of this thread.

    Args:
        layers: Distinct modules.
        forward_func: Function that runs them, for messages.
        inputs: Whether to record the inputs of the layers rather than their outputs. Default: False.

    Raises:
        CaptumLeamError: If a recorded tensor was changed in place when the block exits.
    """

    has_aliases = False
    """Whether a layer returned one of its inputs, whose other uses the recorder misses, so that the pass must be repeated."""

    def __init__(self, layers: Sequence[nn.Module], forward_func: Callable[..., Any], *, inputs: bool = False) -> None:
        self.layers, self.forward_func, self.inputs = layers, forward_func, inputs
        self.runs: dict[nn.Module, list[tuple[Tensor, ...]]] = {layer: [] for layer in layers}
        self._versions: list[tuple[nn.Module, Tensor, int]] = []  # of the recorded tensors: count changes in place
        self._caller = threading.get_ident()
        self._handles: list[Any] = []

    def __enter__(self) -> "Recorder":
        try:
            for layer in self.layers:
                register = layer.register_forward_pre_hook if self.inputs else layer.register_forward_hook
                self._handles.append(register(partial(self._on_run, layer)))
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, error: Any, *_: object) -> None:
        self._remove()
        if error is not None:
            self.release()
        elif not self.has_aliases and (changed := self._changed_layer()) is not None:
            self._on_change(changed)

    def _remove(self) -> None:
        while self._handles:
            self._handles.pop().remove()

    def _on_run(self, layer: nn.Module, module: nn.Module, args: Any, output: Any = None) -> Any:
        """Record one run of a layer and return what the model continues with."""
        # Runs of the same module in other threads are ignored. Replicas of DataParallel are other modules and are recorded.
        if module is layer and threading.get_ident() != self._caller:
            return None
        value = args if self.inputs else output
        is_sequence = isinstance(value, tuple | list)
        tensors = value if is_sequence else (value,)
        if not tensors or not all(isinstance(t, Tensor) and t.is_floating_point() for t in tensors):
            raise self._unusable(tensors, layer)
        kept, copies = self._keep(layer, tensors, args)
        self.runs[layer].append(kept)
        self._versions += [(layer, t, version_of(t)) for t in kept]
        if copies is None:
            return None
        if not is_sequence:
            return copies[0]
        return type(value)(copies) if type(value) in (tuple, list) else type(value)(*copies)

    @abstractmethod
    def _keep(
        self, layer: nn.Module, tensors: Sequence[Tensor], args: Any
    ) -> tuple[tuple[Tensor, ...], list[Tensor] | None]:
        """Return the tensors to record, and the copies that the model continues with; None for its own tensors."""

    def release(self) -> None:  # noqa: B027 (most recorders change nothing)
        """Restore tensors of the caller and the model; called after the backward pass, or if the forward pass raises."""

    def runs_of(self, layer: nn.Module, device_ids: list[int] | None = None) -> list[tuple[Tensor, ...]]:
        """Return the runs of a layer in batch order: one, or one per device under ``DataParallel``.

        Args:
            layer: One of the recorded layers.
            device_ids: Devices in batch order. Default: those of the forward function.

        Raises:
            CaptumLeamError: If the layer did not run, or ran more than once on one device.
        """
        runs = self.runs[layer]
        if not runs:
            raise CaptumLeamError(self._did_not_run_message(layer))
        if len(runs) == 1:
            return runs
        devices = [run[0].device for run in runs]
        if len(set(devices)) < len(devices):
            raise CaptumLeamError(
                f"Expected layer {self._name(layer)} to run once, but it ran {len(runs)} times in one forward pass. Choose a module that "
                "runs once, such as a block around it, or compute the reference outside of the forward function."
            )
        order = device_ids or getattr(self.forward_func, "device_ids", None) or []
        return sorted(
            runs, key=lambda run: order.index(run[0].device.index) if run[0].device.index in order else len(order)
        )

    def _name(self, layer: nn.Module) -> str:
        return layer_name(layer, self.forward_func)

    def _did_not_run_message(self, layer: nn.Module) -> str:
        hint = ""
        if isinstance(layer, nn.ModuleList | nn.ModuleDict):
            hint = f" A {type(layer).__name__} never runs itself: pass a list of its modules."
        elif not any(layer is m for root in modules_behind(self.forward_func) for m in root.modules()):
            hint = " It is not a module of forward_func (of another copy of the model?)."
        return f"Expected layer {self._name(layer)} to run in the forward pass, but it did not run.{hint} Choose another layer."

    def _unusable(self, tensors: Sequence[Any], layer: nn.Module) -> CaptumLeamError:
        expected = f"Expected layer {self._name(layer)} to {self._verb}"
        for tensor in tensors:
            if not isinstance(tensor, Tensor):
                return InputTypeError(f"{expected} tensors, got a {type(tensor).__name__}. Choose a layer inside it.")
            if not torch.is_floating_point(tensor):
                return InputTypeError(
                    f"{expected} floating-point tensors, got {tensor.dtype}, which has no gradient. Choose another layer."
                )
        return CaptumLeamError(
            f"{expected} a positional tensor, got none (all arguments by keyword?). Choose a layer around or after it."
        )

    @property
    def _verb(self) -> str:
        return "take in" if self.inputs else "put out"

    def _changed_layer(self) -> nn.Module | None:
        """Return a layer with a recorded tensor that was changed in place, whose value would not fit its gradient; None without one."""
        return next((layer for layer, tensor, version in self._versions if version_of(tensor) != version), None)

    def _on_change(self, layer: nn.Module) -> None:
        raise CaptumLeamError(
            f"Expected the {'input' if self.inputs else 'output'} of layer {self._name(layer)} to keep its values, but it is changed in "
            "place later in the pass (x += y). Choose a layer before or after, or write x = x + y in the model."
        )


class ValueRecorder(Recorder):
    """Recorder of copies of the values; the model continues with its own tensors.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(inplace=True))
        >>> with torch.no_grad(), ValueRecorder([model[0]], model) as recorder:
        ...     out = model(torch.ones(1, 2))
        >>> torch.equal(recorder.runs_of(model[0])[0][0], model[0](torch.ones(1, 2)))
        True
    """

    def _keep(
        self, layer: nn.Module, tensors: Sequence[Tensor], args: Any
    ) -> tuple[tuple[Tensor, ...], list[Tensor] | None]:
        return tuple(t.detach().clone() for t in tensors), None


class LayerGraphRecorder(Recorder):
    """Recorder that starts the graph at the first layer to run, for a forward pass under ``no_grad``.

    Args:
        layers: Distinct modules.
        forward_func: Function that runs them, for messages.
        copies: Whether the model continues with copies, so that later changes in place do not affect the recorded tensors. Without copies,
            PyTorch raises a ``RuntimeError`` for such a change, or ``has_aliases`` shows that the pass must be repeated with copies.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(inplace=True))
        >>> with torch.no_grad(), LayerGraphRecorder([model[0]], model, copies=True) as recorder:
        ...     out = model(torch.ones(1, 2))
        >>> recorder.runs_of(model[0])[0][0].is_leaf, out.requires_grad
        (True, True)
    """

    def __init__(self, layers: Sequence[nn.Module], forward_func: Callable[..., Any], *, copies: bool) -> None:
        super().__init__(layers, forward_func)
        self.copies = copies

    def _on_change(self, layer: nn.Module) -> None:
        if self.copies:
            super()._on_change(layer)
        self.has_aliases = True

    def _keep(
        self, layer: nn.Module, tensors: Sequence[Tensor], args: Any
    ) -> tuple[tuple[Tensor, ...], list[Tensor] | None]:
        # Hooks do not receive keyword arguments, one of which may be returned.
        if self.has_aliases or not args or any(t is argument for argument in flatten_nested(args) for t in tensors):
            self.has_aliases = True
            return tuple(tensors), None
        is_first = not any(self.runs.values())
        if is_first:
            torch.set_grad_enabled(True)
        with torch.enable_grad():  # the model may have switched gradients off around the layer
            own = copy_repeated(tensors)
            kept = tuple(t if t.requires_grad and not is_first else t.detach().requires_grad_() for t in own)
            return kept, [t.clone() for t in kept] if self.copies else list(kept)


class InputGraphRecorder(Recorder):
    """Recorder in a graph that starts at the inputs, which also records tensors that are used outside of a layer.

    An input of a layer, or an output that is one of its inputs, may be used elsewhere, as in a skip connection. The tensor itself is then
    recorded and the model continues with a copy. If the tensor is the caller's or a frozen parameter, its ``requires_grad`` is set until
    :meth:`release`.
    """

    def __init__(self, layers: Sequence[nn.Module], forward_func: Callable[..., Any], *, inputs: bool = False) -> None:
        super().__init__(layers, forward_func, inputs=inputs)
        self.has_nested_layers = False  # whether a layer returned the copy that was made for another one
        self._copies: list[tuple[nn.Module, Tensor]] = []  # of shared tensors, with which the model continues
        self._lent: list[Tensor] = []  # tensors whose requires_grad is on for the length of the pass

    @property
    def has_changed_copies(self) -> bool:
        """Whether the model changed a copy in place, which without hooks would change a tensor that may be used elsewhere."""
        return any(version_of(t) > 0 for _, t in self._copies)

    def _keep(
        self, layer: nn.Module, tensors: Sequence[Tensor], args: Any
    ) -> tuple[tuple[Tensor, ...], list[Tensor] | None]:
        arguments = flatten_nested(args)
        is_shared = [self.inputs or not args or any(t is u for u in arguments) for t in tensors]
        own = [t if shared else u for t, u, shared in zip(tensors, copy_repeated(tensors), is_shared, strict=True)]
        kept = tuple(self._node(t, shared) for t, shared in zip(own, is_shared, strict=True))
        earlier = [copy for other, copy in self._copies if other is not layer]
        self.has_nested_layers |= any(
            shared and any(t is copy for copy in earlier) for t, shared in zip(tensors, is_shared, strict=True)
        )
        with torch.enable_grad():
            copies = [t.clone() for t in kept]
        self._copies += [(layer, copy) for copy, shared in zip(copies, is_shared, strict=True) if shared]
        return kept, copies

    def _node(self, tensor: Tensor, is_shared: bool) -> Tensor:
        """Return the tensor to differentiate with respect to: itself if it is in the graph or used elsewhere, else a new leaf."""
        if not is_shared:
            return tensor if tensor.requires_grad else tensor.detach().requires_grad_()
        with _LENDING:
            if not tensor.requires_grad or id(tensor) in _LENT:
                self._lent.append(tensor)
                _LENT[id(tensor)] += 1
            return tensor.requires_grad_()

    def release(self) -> None:
        """Reset ``requires_grad`` of tensors that are not the recorder's own, if no other pass needs it.

        Example:
            >>> model, images = nn.Sequential(nn.Identity(), nn.Flatten()), torch.ones(1, 2)
            >>> with InputGraphRecorder([model[0]], model) as recorder:
            ...     _ = model(images)
            >>> images.requires_grad, recorder.release(), images.requires_grad
            (True, None, False)
        """
        while self._lent:
            tensor = self._lent.pop()
            with _LENDING:
                _LENT[id(tensor)] -= 1
                if _LENT[id(tensor)] > 0:
                    continue
                del _LENT[id(tensor)]
                if tensor.is_leaf:
                    tensor.requires_grad_(False)


_LENDING = threading.Lock()

_LENT: Counter[int] = Counter()
"""Number of passes in all threads that need gradients of a tensor without ``requires_grad``, by its identity."""


# -- small functions -----------------------------------------------------------------------------------


def copy_repeated(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """Return the tensors with copies of repeated ones, because a tensor that is put out twice has two gradients.

    Args:
        tensors: Tensors that a layer puts out.
    """
    if len(tensors) == 1:
        return tensors
    return [t.clone() if sum(t is u for u in tensors) > 1 else t for t in tensors]


def flatten_nested(values: Any) -> list[Any]:
    """Return values nested in tuples, lists and dictionaries as one list.

    Args:
        values: Nested values.
    """
    found, waiting = [], [values]
    while waiting:
        value = waiting.pop()
        if isinstance(value, tuple | list):
            waiting += value
        elif isinstance(value, dict):
            waiting += value.values()
        else:
            found.append(value)
    return found


def version_of(tensor: Tensor) -> int:
    """Return the number of in-place changes of a tensor; 0 for tensors of ``inference_mode``, which have no counter.

    Args:
        tensor: The tensor.
    """
    return 0 if tensor.is_inference() else tensor._version
