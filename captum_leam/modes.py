"""The caller's modes of PyTorch (autocast, default device, default dtype) and the package's own arithmetic.

The caller's model runs under the caller's modes. Sums, masks, blurs and draws of the package do not: every factory names its device and
dtype, values that are no tensors become tensors by :func:`as_tensor`, and products of matrices run under :func:`own_arithmetic`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
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
    has_autocast = torch.amp.is_autocast_available(device.type)
    with CPU, torch.autocast(device.type, enabled=False) if has_autocast else nullcontext():
        yield


def uniform(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Draw from [0, 1), float32 on the CPU: the same numbers whatever the device of the images and PyTorch's defaults.

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
    """Return float16 and bfloat16 as float32, which holds sums of many numbers and which NumPy knows; others as they are.

    Args:
        values: Floating-point tensor.

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
    return torch.from_numpy(np.asarray(values, order="C"))  # torch takes no array with negative strides
