"""Arithmetic of the package that does not depend on the caller's PyTorch modes (autocast, default device, default dtype).

The caller's model runs in the caller's modes. Sums, masks, blurs and random numbers of the package do not: every factory specifies its
device and dtype, other values become tensors by :func:`as_tensor`, matrix products run in :func:`own_arithmetic`, and gradients are
computed by :func:`differentiate`.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

CPU = torch.device("cpu")


@contextmanager
def own_arithmetic(device: torch.device = CPU) -> Iterator[None]:
    """Run a block without the caller's autocast and default device.

    Args:
        device: Device of the tensors in the block, whose autocast is switched off. Default: the CPU.

    Example:
        >>> ones = torch.ones(2, 2)
        >>> with torch.autocast("cpu", torch.bfloat16):
        ...     with own_arithmetic():
        ...         own = ones @ ones
        ...     own.dtype, (ones @ ones).dtype
        (torch.float32, torch.bfloat16)
    """
    with CPU, without_autocast(device):
        yield


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context manager that switches the caller's autocast off on a device."""
    has_autocast = torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)
    return torch.autocast(device.type, enabled=False) if has_autocast else nullcontext()


def callers_autocast(device: torch.device) -> Callable[[], AbstractContextManager[Any]]:
    """Return a function that returns a context manager with the current autocast of a device, for use in blocks without it.

    Args:
        device: Device of the autocast.

    Example:
        >>> with torch.autocast("cpu", torch.bfloat16):
        ...     again = callers_autocast(CPU)
        >>> with again():
        ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
        torch.bfloat16
    """
    if not torch.amp.is_autocast_available(device.type) or not torch.is_autocast_enabled(device.type):
        return nullcontext
    return partial(torch.autocast, device.type, torch.get_autocast_dtype(device.type))


def differentiate(output: Tensor, inputs: Tensor | Sequence[Tensor], **options: Any) -> tuple[Tensor, ...]:
    """Return ``torch.autograd.grad`` computed outside of the caller's autocast, as PyTorch advises.

    Each operation is then differentiated in the precision of its forward pass. Under autocast, matrix products would be differentiated in
    half precision even if the model left autocast.

    Args:
        output: Tensor to differentiate.
        inputs: Tensors to differentiate with respect to.
        **options: Additional arguments of ``torch.autograd.grad``.

    Example:
        >>> x = torch.ones(2, requires_grad=True)
        >>> differentiate((3 * x).sum(), x)[0].tolist()
        [3.0, 3.0]
    """
    with without_autocast(output.device):
        return torch.autograd.grad(output, inputs, **options)


@contextmanager
def plain_torch(device: torch.device = CPU) -> Iterator[None]:
    """Run code of another package in the default modes of PyTorch, including the default dtype.

    It is meant for code that makes tensors without a dtype. The default dtype is that of the process, so that it changes for other threads
    until the block exits.

    Args:
        device: Device whose autocast is switched off. Default: the CPU.

    Example:
        >>> with torch.device("meta"), plain_torch():
        ...     torch.Tensor([1.0]).dtype, torch.ones(1).device
        (torch.float32, device(type='cpu'))
    """
    _DEFAULT.enter()
    try:
        with own_arithmetic(device), torch.inference_mode(False):
            yield
    finally:
        _DEFAULT.leave()


class _DefaultDtype:
    """Reference-counted default dtype float32, shared by all threads of the process."""

    def __init__(self) -> None:
        self._lock, self._threads, self._before = threading.Lock(), 0, torch.float32

    def enter(self) -> None:
        with self._lock:
            if not self._threads:
                self._before = torch.get_default_dtype()
                torch.set_default_dtype(torch.float32)
            self._threads += 1

    def leave(self) -> None:
        with self._lock:
            self._threads -= 1
            if not self._threads:
                torch.set_default_dtype(self._before)


_DEFAULT = _DefaultDtype()


def uniform(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Draw uniform random numbers in [0, 1), float32 on the CPU, independent of the device of the images and PyTorch's defaults.

    Args:
        shape: Shape of the tensor.
        generator: Generator on the CPU.

    Example:
        >>> uniform((2, 3), torch.Generator().manual_seed(0)).dtype
        torch.float32
    """
    return torch.rand(shape, generator=generator, device="cpu", dtype=torch.float32)


def normal(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Draw from a standard normal distribution, float32 on the CPU, as :func:`uniform` does.

    Args:
        shape: Shape of the tensor.
        generator: Generator on the CPU.

    Example:
        >>> normal((2, 3), torch.Generator().manual_seed(0)).dtype
        torch.float32
    """
    return torch.randn(shape, generator=generator, device="cpu", dtype=torch.float32)


def at_least_float32(values: Tensor) -> Tensor:
    """Return float16, bfloat16 and integers as float32, which holds sums of many numbers and converts to NumPy; others as they are.

    Args:
        values: Tensor of real numbers.

    Example:
        >>> at_least_float32(torch.ones(1).bfloat16()).dtype, at_least_float32(torch.ones(1).double()).dtype
        (torch.float32, torch.float64)
    """
    return values.to(torch.promote_types(values.dtype, torch.float32))


def as_tensor(values: Any) -> Tensor:
    """Return a tensor as it is; arrays and numbers become a tensor on the CPU, in the precision that NumPy gives them.

    Args:
        values: Tensor, array, or nested lists of numbers.

    Example:
        >>> as_tensor([0.1, 0.2]).dtype, as_tensor(np.ones(2, np.float32)).dtype
        (torch.float64, torch.float32)
    """
    if isinstance(values, Tensor):
        return values
    return torch.from_numpy(np.asarray(values, order="C"))  # a copy where strides are negative, which PyTorch rejects


def as_array(values: Any, dtype: DTypeLike = np.float64) -> NDArray[Any]:
    """Return numbers as an array; tensors may be on any device, in any precision, and have a graph.

    Args:
        values: Tensor, array, or nested lists of numbers.
        dtype: Data type of the array. Default: float64.

    Example:
        >>> as_array(torch.ones(2, dtype=torch.bfloat16, requires_grad=True)).tolist()
        [1.0, 1.0]
    """
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = (at_least_float32(values) if values.is_floating_point() else values).numpy()
    return np.asarray(values, dtype=dtype)
