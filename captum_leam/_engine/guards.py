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
        InputTypeError: for TorchScript modules and modules made by ``torch.export``.
        CaptumLeamError: for active BatchNorm or Dropout, or parameters made under ``inference_mode``.
    """
    if type(forward_func).__name__ == "ExportedProgram":
        raise InputTypeError(
            "forward_func is an ExportedProgram: hooks do not reach into it. Explain the eager module it was exported from."
        )
    raise_if_active(forward_func)
    seen: set[nn.Module] = set()  # each module once: as a rule, the layers are in the model
    for root in [*modules_behind(forward_func), *layers]:
        for name, module in root.named_modules(seen):
            if _is_exported(module):
                raise InputTypeError(
                    f"module {name!r} was made by torch.export: its modules are flattened or run in copies, so that hooks do not fire, "
                    "and its batch size may be fixed. Explain the eager module it was exported from."
                )
            if isinstance(module, torch.jit.ScriptModule):
                raise InputTypeError(
                    f"module {name!r} is TorchScript ({type(module).__name__}): hooks never fire inside. "
                    "Explain the eager module it was scripted or traced from."
                )
            if any(p is not None and p.is_inference() for p in module._parameters.values()):
                raise CaptumLeamError(
                    "the model's parameters were made under torch.inference_mode() and have no gradients; build or load it outside."
                )


def _is_exported(module: nn.Module) -> bool:
    """Return whether ``torch.export`` made a module: that of an ExportedProgram, flat or unflattened."""
    return any(kind.__module__.startswith("torch.export") for kind in type(module).__mro__)


def raise_if_active(forward_func: Callable[..., Any]) -> None:
    """Raise if the output of a model for one image depends on the others, on chance, or on how often it ran.

    Raises:
        CaptumLeamError: for active BatchNorm, Dropout and the like.

    Example:
        >>> raise_if_active(nn.Sequential(nn.Dropout()).train())
        Traceback (most recent call last):
        ...
        captum_leam.errors.CaptumLeamError: Dropout '0' is active: results would be random. Call model.eval() first.
    """
    for root in modules_behind(forward_func):
        for name, module in root.named_modules():
            _raise_if_module_active(name, module)


@contextmanager
def check_forward_is_deterministic(
    forward_func: Callable[..., Any], layers: Sequence[nn.Module] = ()
) -> Iterator[None]:
    """Context manager that raises if a hidden module is in training mode or consumes random numbers.

    :func:`raise_if_active` sees modules from outside; this one sees those behind an opaque callable while they run.

    Where a module in training mode ran, the random numbers of the CPU must not have moved (``F.dropout`` is no module); if they
    have, they are put back.

    Args:
        forward_func: Function that runs in the block.
        layers: Modules that run in it. If they are not found in it, other modules are hidden, too.

    Raises:
        CaptumLeamError: for an active module that runs in this thread, or a module in training mode that draws random numbers.

    Example:
        >>> hidden = nn.Dropout()
        >>> with check_forward_is_deterministic([hidden].__getitem__):
        ...     _ = hidden(torch.ones(2))
        Traceback (most recent call last):
        ...
        captum_leam.errors.CaptumLeamError: Dropout '' is active: results would be random. Call model.eval() first.
    """
    caller, before = threading.get_ident(), torch.get_rng_state()
    visible = {m for root in modules_behind(forward_func) for m in root.modules()}
    in_training = [type(m).__name__ for m in visible if m.training]

    def look(module: nn.Module, args: Any) -> None:
        if module.training and threading.get_ident() == caller:
            in_training.append(type(module).__name__)
            _raise_if_module_active("", module)

    opaque = not visible or any(layer not in visible for layer in layers)
    handles = [register_module_forward_pre_hook(look)] if opaque else []
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
    if in_training and not torch.equal(torch.get_rng_state(), before):
        torch.set_rng_state(before)
        raise CaptumLeamError(
            f"{in_training[0]} is in training mode and draws random numbers: results would be random. Call model.eval() first."
        )


def _raise_if_module_active(name: str, module: nn.Module) -> None:
    kind = type(module).__name__
    if not module.training and not isinstance(module, nn.modules.batchnorm._BatchNorm):
        return
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        if module.training or module.running_mean is None:
            fix = "call model.eval() first" if module.training else "it keeps no running statistics; give it some"
            raise CaptumLeamError(
                f"{kind} {name!r} uses the statistics of the batch: every image's map would depend on the others. To mend it, {fix}."
            )
    elif _drops(module, kind):
        raise CaptumLeamError(f"{kind} {name!r} is active: results would be random. Call model.eval() first.")
    elif _learns(module, kind):
        raise CaptumLeamError(f"{kind} {name!r} changes its buffers whenever it runs: call model.eval() first.")


def _drops(module: nn.Module, kind: str) -> bool:
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return module.p > 0
    if isinstance(module, nn.MultiheadAttention | nn.RNNBase):
        return module.dropout > 0
    return isinstance(module, nn.RReLU) or kind in ("StochasticDepth", "DropPath")


def _learns(module: nn.Module, kind: str) -> bool:
    """Return whether a module in training mode updates buffers: running statistics, or the power iteration of a spectral norm."""
    spectral = kind == "_SpectralNorm" or any(
        type(h).__name__ == "SpectralNorm" for h in module._forward_pre_hooks.values()
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


def eager() -> AbstractContextManager[Any]:
    """Return a context manager that runs compiled modules eagerly: ``torch.compile`` loses hooks that are set later."""
    # Importing torch._dynamo takes seconds. Where nobody has imported it, nothing is compiled.
    return _EAGER if "torch._dynamo" in sys.modules else nullcontext()


@contextmanager
def with_gradients() -> Iterator[None]:
    """Context manager that switches gradients on, whatever the caller turned off, and runs compiled modules eagerly."""
    with torch.inference_mode(False), torch.enable_grad(), eager():
        yield
