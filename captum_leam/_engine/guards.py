"""Checks of a model before and while it runs: hooks that fire, evaluation mode, no random numbers."""

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from captum_leam._engine.modules import modules_behind
from captum_leam.errors import CaptumLeamError, InputTypeError


def raise_if_unexplainable(forward_func: Callable[..., Any], layers: Sequence[nn.Module]) -> None:
    """Raise if the model's layers cannot be hooked or its outputs depend on other images in the batch.

    Raises:
        InputTypeError: If a module is TorchScript or was made by ``torch.export``.
        CaptumLeamError: If BatchNorm or Dropout is active, or if parameters were made under ``inference_mode``.
    """
    if type(forward_func).__name__ == "ExportedProgram":
        raise InputTypeError(
            "Expected forward_func to be an eager module, got an ExportedProgram, in which hooks do not fire. Explain the eager module it "
            "was exported from."
        )
    raise_if_active(forward_func)
    seen: set[nn.Module] = set()  # visits each module once, because most layers are in the model
    for root in [*modules_behind(forward_func), *layers]:
        for name, module in root.named_modules(seen):
            if _is_exported(module):
                raise InputTypeError(
                    f"Expected eager modules, but module {name!r} was made by torch.export, so that hooks do not fire and its batch size "
                    "may be fixed. Explain the eager module it was exported from."
                )
            if isinstance(module, torch.jit.ScriptModule):
                raise InputTypeError(
                    f"Expected eager modules, but module {name!r} is TorchScript ({type(module).__name__}), in which hooks never fire. "
                    "Explain the eager module it was scripted or traced from."
                )
            if any(p is not None and p.is_inference() for p in module._parameters.values()):
                raise CaptumLeamError(
                    "Expected parameters that can have gradients, but the model's parameters were made under torch.inference_mode(). Build "
                    "or load the model outside of it."
                )


def _is_exported(module: nn.Module) -> bool:
    """Return whether ``torch.export`` made a module: that of an ExportedProgram, flat or unflattened."""
    return any(kind.__module__.startswith("torch.export") for kind in type(module).__mro__)


def raise_if_active(forward_func: Callable[..., Any]) -> None:
    """Raise if the output of a model for one image depends on other images, on random numbers, or on earlier calls.

    Args:
        forward_func: Module or callable.

    Raises:
        CaptumLeamError: If BatchNorm, Dropout or a similar module is active.

    Example:
        >>> raise_if_active(nn.Sequential(nn.Dropout()).train())
        Traceback (most recent call last):
        ...
        captum_leam.errors.CaptumLeamError: Expected a deterministic model, but Dropout '0' is active: results would be random. Call ...
    """
    for root in modules_behind(forward_func):
        for name, module in root.named_modules():
            _raise_if_module_active(name, module)


@contextmanager
def check_forward_is_deterministic(
    forward_func: Callable[..., Any], layers: Sequence[nn.Module] = ()
) -> Iterator[None]:
    """Context manager that raises if a hidden module is in training mode or consumes random numbers.

    :func:`raise_if_active` checks the modules that are visible from outside. This function checks those behind an opaque callable while
    they run, and functions such as ``F.dropout`` by the state of the CPU's random numbers, which it restores.

    Args:
        forward_func: Function that runs in the block.
        layers: Modules that run in the function. If they are not visible in it, other modules may be hidden, too. Default: none.

    Raises:
        CaptumLeamError: If an active module runs in this thread, or if a module in training mode draws random numbers.

    Example:
        >>> hidden = nn.Dropout()
        >>> with check_forward_is_deterministic([hidden].__getitem__):
        ...     _ = hidden(torch.ones(2))
        Traceback (most recent call last):
        ...
        captum_leam.errors.CaptumLeamError: Expected a deterministic model, but Dropout '' is active: results would be random. Call ...
    """
    thread, before = threading.get_ident(), torch.get_rng_state()
    visible = {m for root in modules_behind(forward_func) for m in root.modules()}
    in_training = [type(m).__name__ for m in visible if m.training]

    def check(module: nn.Module, args: Any) -> None:
        if module.training and threading.get_ident() == thread:
            in_training.append(type(module).__name__)
            _raise_if_module_active("", module)

    is_opaque = not visible or any(layer not in visible for layer in layers)
    handles = [register_module_forward_pre_hook(check)] if is_opaque else []
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    if in_training and not torch.equal(torch.get_rng_state(), before):
        torch.set_rng_state(before)
        raise CaptumLeamError(
            f"Expected a deterministic model, but {in_training[0]} is in training mode and draws random numbers. Call model.eval() first."
        )


def _raise_if_module_active(name: str, module: nn.Module) -> None:
    kind = type(module).__name__
    if not module.training and not isinstance(module, nn.modules.batchnorm._BatchNorm):
        return
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        if module.training or module.running_mean is None:
            hint = (
                "Call model.eval() first" if module.training else "Replace it, because it keeps no running statistics"
            )
            raise CaptumLeamError(
                f"Expected maps that do not depend on other images, but {kind} {name!r} uses the statistics of the batch. {hint}."
            )
    elif _is_random(module, kind):
        raise CaptumLeamError(
            f"Expected a deterministic model, but {kind} {name!r} is active: results would be random. Call model.eval() first."
        )
    elif _updates_buffers(module, kind):
        raise CaptumLeamError(
            f"Expected a model whose state is constant, but {kind} {name!r} updates its buffers in every pass. Call model.eval() first."
        )


def _is_random(module: nn.Module, kind: str) -> bool:
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return module.p > 0
    if isinstance(module, nn.MultiheadAttention | nn.RNNBase):
        return module.dropout > 0
    return isinstance(module, nn.RReLU) or kind in ("StochasticDepth", "DropPath")


def _updates_buffers(module: nn.Module, kind: str) -> bool:
    """Return whether a module in training mode updates buffers: running statistics, or the power iteration of a spectral norm."""
    spectral = kind == "_SpectralNorm" or any(
        type(h).__name__ == "SpectralNorm" for h in tuple(module._forward_pre_hooks.values())
    )
    return spectral or (isinstance(module, nn.modules.instancenorm._InstanceNorm) and module.track_running_stats)


@dataclass
class _Eager:
    """Reference-counted ``force_eager`` stance of the compiler, shared by all threads of the process."""

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


def force_eager() -> AbstractContextManager[Any]:
    """Return a context manager that runs compiled modules eagerly, because ``torch.compile`` ignores hooks that are added later."""
    # Importing torch._dynamo takes seconds. If it is not imported yet, nothing is compiled.
    return _EAGER if "torch._dynamo" in sys.modules else nullcontext()


@contextmanager
def enable_gradients() -> Iterator[None]:
    """Context manager that enables gradients in any mode of the caller and runs compiled modules eagerly."""
    with torch.inference_mode(False), torch.enable_grad(), force_eager():
        yield
