"""Layer outputs as maps (N, C, h, w)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from captum_leam._engine.checks import raise_if_any
from captum_leam.errors import CaptumLeamError

Reshape = Callable[[Tensor], Tensor]


def looks_channels_last(activations: Tensor, image_size: Sequence[int]) -> bool:
    """Return whether a tensor (N, a, b, c) is (N, h, w, C) rather than (N, C, h, w).

    The aspect ratio of the image decides. If both readings fit it (a = b = c) or neither does (a network that crops), the
    axis with the greater differences between neighbours is that of the channels.

    Args:
        activations: Tensor (N, a, b, c).
        image_size: (H, W) of the images.

    Example:
        >>> looks_channels_last(torch.rand(2, 14, 14, 384), (224, 224)), looks_channels_last(torch.rand(2, 64, 56, 56), (112, 112))
        (True, False)
    """
    return bool(_channels_last(activations, image_size))


def _channels_last(activations: Tensor, image_size: Sequence[int]) -> Tensor:
    """Return the answer as a boolean (1,) on the device."""
    a, b, c = activations.shape[1:]
    first, last = _fits(b, c, image_size), _fits(a, b, image_size)
    if first == last and min(a, b, c) > 2:
        values = activations.detach()[:2].float()  # two images suffice, and all of them would take as long as a layer
        return (_roughness(values, 3) > 1.5 * _roughness(values, 1))[None]
    return torch.full((1,), last and not first, dtype=torch.bool, device=activations.device)


def _fits(height: int, width: int, image_size: Sequence[int]) -> bool:
    # within one cell of rounding
    return abs(height * image_size[1] - width * image_size[0]) < max(image_size)


def _roughness(values: Tensor, axis: int) -> Tensor:
    centred = values - values.mean(axis, keepdim=True)
    return centred.diff(dim=axis).square().mean() / (2 * centred.square().mean() + 1e-30)


def as_spatial(
    activations: Tensor, name: Callable[[], str], images: int, image_size: Sequence[int] | None, reshape: Reshape | None
) -> Tensor:
    """Return activations as (N, C, h, w).

    Args:
        activations: Output of the layer.
        name: Function that returns the name of the layer, for messages.
        images: Number of images N.
        image_size: (H, W) of the images. None for inputs that are not images.
        reshape: Function that brings the activations to (N, C, h, w). None if they have this shape.

    Raises:
        CaptumLeamError: If there is not one row per image, if activations are tokens or channels-last and there is no reshape, or if they
            have no positions.

    Example:
        >>> as_spatial(torch.rand(2, 8, 7, 7), lambda: "'body'", 1, None, None)
        Traceback (most recent call last):
        ...
        captum_leam.errors.CaptumLeamError: Expected layer 'body' to put out one row per image, got 2 rows for each image, each (8, 7, ...
    """
    shape = tuple(activations.shape)
    if reshape is not None:
        activations = reshape(activations)
        if activations.ndim != 4 or activations.shape[0] != images:
            raise CaptumLeamError(
                f"Expected `reshape` to bring layer {name()} to ({images}, C, h, w), one map per image, got "
                f"{tuple(activations.shape)} from {shape}."
            )
        return activations
    if shape[:1] != (images,):
        raise CaptumLeamError(rows_message(name(), shape, images))
    if activations.ndim == 3:
        raise CaptumLeamError(
            f"Expected layer {name()} to put out maps (N, C, h, w), got tokens (N, T, C) of shape {shape}. Pass "
            "reshape=captum_leam.layers.tokens_to_map, or a function of your own."
        )
    if activations.ndim != 4:
        raise CaptumLeamError(
            f"Expected layer {name()} to put out maps (N, C, h, w), got shape {shape}, which has no positions. Choose an earlier layer."
        )
    if image_size is not None:
        raise_if_any(
            _channels_last(activations, image_size),
            lambda _: (
                f"Expected layer {name()} to put out maps (N, C, h, w), got {shape}, which looks like (N, h, w, C), channels last. Pass "
                "reshape=captum_leam.layers.channels_last_to_first, or reshape=lambda a: a if it is (N, C, h, w)."
            ),
        )
    return activations


def rows_message(name: str, shape: tuple[int, ...], images: int) -> str:
    """Return the message for a layer without one row per image.

    Args:
        name: Name of the layer.
        shape: Shape of its output.
        images: Number of images.
    """
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
