"""Determine the crop size of a network, and detect sizes at which its embeddings have another length."""

import torch
from torch import nn

from captum_leam._engine.arithmetic import uniform
from captum_leam._engine.memory import is_out_of_memory
from captum_leam.objectives import embed

Size = tuple[int, int]

COMMON_SIZES: tuple[Size, ...] = (
    (112, 112),
    (112, 96),
    (160, 160),
    (128, 128),
    (224, 224),
    (96, 96),
    (256, 256),
    (64, 64),
)
"""Crop sizes (h, w) of published networks in pixels, in the order in which they are tried."""


def own_size(network: nn.Module, device: str | torch.device = "cpu") -> Size | None:
    """Return the crop size of a network, as its preprocessing declares it, or the first of the common sizes that it accepts.

    Args:
        network: Network that accepts RGB images in [0, 1].
        device: Device of the network. Default: ``"cpu"``.

    Returns:
        Height and width (h, w) in pixels, or None if the network accepts none of :data:`COMMON_SIZES`.

    Example:
        >>> own_size(nn.Sequential(nn.Flatten(), nn.Linear(3 * 160 * 160, 8)))
        (160, 160)
    """
    if declared := getattr(getattr(network, "preprocessing", None), "size", None):
        height, width = declared
        return (height, width)
    return next((size for size in COMMON_SIZES if _length(network, size, device) is not None), None)


def size_problem(
    network: nn.Module,
    size: Size,
    device: str | torch.device = "cpu",
    *,
    is_explicit: bool = False,
    own: Size | None = None,
) -> str:
    """Return the reason why a network should not be used at a size, because its embeddings have another length there.

    A network that accepts all common sizes with different lengths has no size of its own. For such a network, all common sizes and any
    explicit size are accepted.

    Args:
        network: Network that accepts RGB images in [0, 1].
        size: Height and width (h, w) of the crops in pixels.
        device: Device of the network. Default: ``"cpu"``.
        is_explicit: Whether the user specified the size. Default: False.
        own: Height and width (h, w) of the network's crops, if known. Default: the result of :func:`own_size`.

    Returns:
        One sentence with both sizes and lengths, or an empty string if the size is accepted.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 2, 3, 16), nn.Conv2d(2, 8, 7), nn.Flatten())  # a map of 7 × 7 at 112 px
        >>> size_problem(network, (112, 112))
        ''
        >>> size_problem(network, (250, 250))
        'Expected crops of 112 × 112 px, on which the embeddings have 8 numbers, got 250 × 250 px, on which they have 800.'
    """
    own = own or own_size(network, device)
    if own is None or own == size:
        return ""
    own_length, length = _length(network, own, device), _length(network, size, device)
    if length is None or length == own_length:
        return ""
    accepts_all = all(_length(network, common, device) is not None for common in COMMON_SIZES)
    if accepts_all and (is_explicit or size in COMMON_SIZES):
        return ""
    return (
        f"Expected crops of {own[1]} × {own[0]} px, on which the embeddings have {own_length} numbers, got {size[1]} × {size[0]} px, on "
        f"which they have {length}."
    )


def _length(network: nn.Module, size: Size, device: str | torch.device) -> int | None:
    """Return the length of the embeddings at a crop size, or None if the network does not accept it."""
    image = uniform((1, 3, *size), torch.Generator().manual_seed(0)).to(device)
    try:
        return int(embed(network, image).shape[1])
    except Exception as error:  # networks raise exceptions of any type at other sizes
        if is_out_of_memory(error):
            raise
        return None
