"""Formatting of inputs, baselines and arguments by Captum's private helpers, which no other module uses."""

from typing import Any

from captum._utils.common import (
    _expand_additional_forward_args,
    _format_baseline,
)
from captum._utils.typing import BaselineType, TargetType
from torch import Tensor

from captum_leam.errors import CaptumLeamError, InputTypeError

Inputs = Tensor | tuple[Tensor, ...]

__all__ = [
    "BaselineType",
    "Inputs",
    "TargetType",
    "as_tuple",
    "baseline_tensors",
    "forward_args",
    "raise_if_target",
    "repeat_args",
]


def as_tuple(inputs: Inputs) -> tuple[Tensor, ...]:
    """Return Captum's inputs, one tensor or a tuple of tensors, as a tuple.

    Raises:
        InputTypeError: If an input is not a tensor.
        CaptumLeamError: If the tensors have different batch sizes.
    """
    tensors = inputs if isinstance(inputs, tuple) else (inputs,)
    for tensor in tensors:
        if not isinstance(tensor, Tensor):
            raise InputTypeError(
                f"Expected `inputs` to be a tensor or a tuple of tensors, got a {type(tensor).__name__}."
            )
    if len({tensor.shape[:1] for tensor in tensors}) != 1 or tensors[0].ndim == 0:
        raise CaptumLeamError(
            f"Expected all inputs to have the same batch size, got shapes {[tuple(t.shape) for t in tensors]}."
        )
    return tensors


def forward_args(additional_forward_args: Any) -> tuple[Any, ...]:
    """Return Captum's additional forward arguments, a value, a tuple or None, as a tuple."""
    if additional_forward_args is None:
        return ()
    return additional_forward_args if isinstance(additional_forward_args, tuple) else (additional_forward_args,)


def raise_if_target(target: Any) -> None:
    """Raise if a target is given, which in Captum's methods selects a class.

    Example:
        >>> raise_if_target(3)
        Traceback (most recent call last):
        ...
        captum_leam.errors.CaptumLeamError: Expected `target` to be None because embeddings have no classes, got 3. Pass `reference=` ...
    """
    if target is not None:
        got = f"a tensor {tuple(target.shape)}" if isinstance(target, Tensor) else repr(target)
        raise CaptumLeamError(
            f"Expected `target` to be None because embeddings have no classes, got {got}. Pass `reference=` instead."
        )


def repeat_args(args: tuple[Any, ...], times: int, batch: int) -> tuple[Any, ...]:
    """Repeat the additional arguments that have one row per image, and return those that all images share unchanged.

    Args:
        args: Additional forward arguments.
        times: Number of repetitions of the batch.
        batch: Number of images in the batch.

    Example:
        >>> import torch
        >>> per_image, shared = repeat_args((torch.zeros(2, 3), torch.zeros(5)), 4, 2)
        >>> per_image.shape, shared.shape
        (torch.Size([8, 3]), torch.Size([5]))
    """
    if times == 1:
        return args
    per_image = [isinstance(arg, Tensor) and arg.ndim > 0 and len(arg) == batch for arg in args]
    repeated = _expand_additional_forward_args(args, times) or ()
    return tuple(r if each else arg for arg, r, each in zip(args, repeated, per_image, strict=True))


def baseline_tensors(baselines: BaselineType, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return Captum's baselines (number, tensor, one row, or a tuple of these) as tensors of the inputs' shapes.

    Raises:
        CaptumLeamError: If a baseline is missing or has a shape that does not fit its input.
    """
    formatted = _format_baseline(baselines, inputs)
    if len(formatted) != len(inputs):
        raise CaptumLeamError(
            f"Expected `baselines` to have one entry for each of {len(inputs)} inputs, got {len(formatted)}."
        )
    return tuple(_baseline_tensor(b, x) for b, x in zip(formatted, inputs, strict=True))


def _baseline_tensor(baseline: Tensor | int | float, x: Tensor) -> Tensor:
    if not isinstance(baseline, Tensor):
        return x.new_full(x.shape, baseline)
    if baseline.shape[1:] != x.shape[1:] or baseline.shape[0] not in (1, x.shape[0]):
        raise CaptumLeamError(
            f"Expected `baselines` to be a number or to have shape {tuple(x.shape)} or (1, {', '.join(map(str, x.shape[1:]))}), got "
            f"{tuple(baseline.shape)}."
        )
    return baseline.detach().to(x).expand_as(x)
