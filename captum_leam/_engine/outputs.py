"""Outputs of models as embeddings or scores with one row per image."""

from typing import Any

import torch
from torch import Tensor

from captum_leam._engine.checks import raise_if_any
from captum_leam.errors import CaptumLeamError, InputTypeError


def as_embeddings(returned: Any, batch: int) -> Tensor:
    """Check that a forward function returned one embedding for every image, shape (N, D).

    (N, D, 1, 1), as some exported networks return, is flattened.

    Raises:
        InputTypeError: for anything but one floating-point tensor.
        CaptumLeamError: for a shape that is not one embedding per image, or values that are not finite.

    Example:
        >>> as_embeddings(torch.ones(2, 8, 1, 1), 2).shape
        torch.Size([2, 8])
    """
    output = _floating(returned)
    shape = tuple(output.shape)
    if output.ndim > 2 and output.shape[2:].numel() == 1:
        output = output.flatten(1)
    if output.ndim != 2 or output.shape[0] != batch:
        fixed = output.ndim == 2 and output.shape[0] == 1 and batch > 1 and output.shape[1] % batch == 0
        why = " The network was exported with a fixed batch of 1: it glues the images together." if fixed else ""
        raise CaptumLeamError(
            f"forward_func returned shape {shape} for {batch} images; expected embeddings ({batch}, D).{why}"
        )
    if output.shape[1] == 1:
        raise CaptumLeamError(
            f"forward_func returned shape {shape}: an embedding of one number has cosine ±1 with everything. "
            "If it is a score, squeeze it to (N,)."
        )
    raise_if_any(
        (0 * output.detach()).sum(1)
        != 0,  # NaN where a value is not finite; a third of the operations of torch.isfinite
        lambda rows: f"the embeddings of images {rows} hold NaN or infinite values; check these images and the model.",
    )
    return output


def _floating(output: Any) -> Tensor:
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
    """Check that a forward function returned scores (N,) or embeddings (N, D), one for every image.

    Raises:
        InputTypeError: for anything but one floating-point tensor.
        CaptumLeamError: for other shapes, among them the mean over a batch.

    Example:
        >>> as_output(torch.ones(3), 3).shape, as_output(torch.ones(3, 8), 3).shape
        (torch.Size([3]), torch.Size([3, 8]))
    """
    output = _floating(returned)
    if output.ndim > 1:
        return as_embeddings(output, batch)
    if output.ndim == 0 or len(output) != batch:
        squeezed = output.ndim == 1 and batch == 1
        why = (
            f"Use flatten(1) instead of squeeze(), so that one image gives (1, {len(output)})."
            if squeezed
            else "Does the model take a mean or sum over the batch?"
        )
        raise CaptumLeamError(
            f"Expected forward_func to return embeddings ({batch}, D) or one score per image ({batch},), got {tuple(output.shape)}. {why}"
        )
    return output


def float16_hint(values: Tensor) -> str:
    """Return a hint for messages about values that are zero or not finite: for float16 its narrow range, else nothing.

    Example:
        >>> float16_hint(torch.zeros(1)), float16_hint(torch.zeros(1).half())[:16]
        ('', ' This is float16')
    """
    if values.dtype != torch.float16:
        return ""
    return " This is float16: what is under 6e-8 is zero there, and over 65504 infinite; use float32 or bfloat16."


def vanishing(embeddings: Tensor) -> float:
    """Return the length below which a difference of two unit embeddings is rounding noise in their precision."""
    return min(1e3 * torch.finfo(embeddings.dtype).eps, 0.05)
