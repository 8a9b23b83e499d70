"""Outputs of models as embeddings or scores with one row per image."""

from typing import Any

import torch
from torch import Tensor

from captum_leam._engine.checks import raise_if_any
from captum_leam.errors import CaptumLeamError, InputTypeError


def as_embeddings(returned: Any, batch: int) -> Tensor:
    """Return the output of a forward function as one embedding per image, (N, D).

    The shape (N, D, 1, 1) of some exported networks is flattened.

    Args:
        returned: Output of the forward function.
        batch: Number of images N.

    Raises:
        InputTypeError: If the output is not one floating-point tensor.
        CaptumLeamError: If the shape is not one embedding per image, or if values are not finite.

    Example:
        >>> as_embeddings(torch.ones(2, 8, 1, 1), 2).shape
        torch.Size([2, 8])
    """
    output = _as_floating_point(returned)
    shape = tuple(output.shape)
    if output.ndim > 2 and output.shape[2:].numel() == 1:
        output = output.flatten(1)
    if output.ndim != 2 or output.shape[0] != batch:
        is_concatenated = output.ndim == 2 and output.shape[0] == 1 and batch > 1 and output.shape[1] % batch == 0
        hint = (
            " The network was exported with a fixed batch of 1 and concatenates the images." if is_concatenated else ""
        )
        raise CaptumLeamError(f"Expected forward_func to return embeddings ({batch}, D), got {shape}.{hint}")
    if output.shape[1] == 1:
        raise CaptumLeamError(
            f"Expected embeddings of two dimensions or more, got {shape}, whose cosines are all ±1. Squeeze scores to (N,)."
        )
    raise_if_any(
        # The sum is NaN if a value is not finite, with a third of the operations of torch.isfinite.
        (0 * output.detach()).sum(1) != 0,
        lambda rows: (
            f"Expected finite embeddings, got NaN or infinite values for images {rows}. Check these images and the model."
        ),
    )
    return output


def _as_floating_point(output: Any) -> Tensor:
    if isinstance(output, Tensor) and torch.is_floating_point(output):
        return output
    kind = f"a tensor of {output.dtype}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
    fix = ""
    if isinstance(output, tuple | list) and output and isinstance(output[0], Tensor):
        fix = (
            f" If the embedding is its first element, {tuple(output[0].shape)}, pass lambda x: model(x)[0], or UpTo(model, layer) with the "
            "name of the layer that puts it out."
        )
    elif isinstance(output, dict):
        fix = f" Pass lambda x: model(x)[key] with the key of the embedding; there are {', '.join(map(repr, output))}."
    raise InputTypeError(
        f"Expected forward_func to return one floating-point tensor of embeddings (N, D), got {kind}.{fix}"
    )


def as_output(returned: Any, batch: int) -> Tensor:
    """Return the output of a forward function as scores (N,) or embeddings (N, D).

    Args:
        returned: Output of the forward function.
        batch: Number of images N.

    Raises:
        InputTypeError: If the output is not one floating-point tensor.
        CaptumLeamError: If it has another shape, such as that of a mean over the batch.

    Example:
        >>> as_output(torch.ones(3), 3).shape, as_output(torch.ones(3, 8), 3).shape
        (torch.Size([3]), torch.Size([3, 8]))
    """
    output = _as_floating_point(returned)
    if output.ndim > 1:
        return as_embeddings(output, batch)
    if output.ndim == 0 or len(output) != batch:
        is_squeezed = output.ndim == 1 and batch == 1
        hint = (
            f"Use flatten(1) instead of squeeze(), so that one image gives (1, {len(output)})."
            if is_squeezed
            else "Check the model for a mean or sum over the batch."
        )
        raise CaptumLeamError(
            f"Expected forward_func to return embeddings ({batch}, D) or one score per image ({batch},), got {tuple(output.shape)}. {hint}"
        )
    return output


def float16_hint(values: Tensor) -> str:
    """Return a hint about the range of float16 for messages about zero or infinite values, or an empty text for other precisions.

    Args:
        values: Tensor that the message is about.

    Example:
        >>> float16_hint(torch.zeros(1)), float16_hint(torch.zeros(1).half())[:16]
        ('', ' This is float16')
    """
    if values.dtype != torch.float16:
        return ""
    return " This is float16, which has no values between 0 and 6e-8 or over 65504; use float32 or bfloat16."


def noise_floor(embeddings: Tensor) -> float:
    """Return the length up to which a difference of two unit embeddings is rounding noise in their precision."""
    return min(1e3 * torch.finfo(embeddings.dtype).eps, 0.05)
