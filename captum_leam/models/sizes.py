"""The size of crops that a network was made for, and sizes at which its embeddings are others."""

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
"""(h, w) of the crops of published networks; the first that a network takes is its own, unless it declares one."""


def own_size(network: nn.Module, device: str | torch.device = "cpu") -> Size | None:
    """Return the size of crops that a network was made for: as it declares, or the first common one that it takes.

    Args:
        network: Takes RGB in [0, 1].
        device: Device of the network. Default: ``"cpu"``.

    Returns:
        (h, w), or None if the network takes none of :data:`COMMON_SIZES`.

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
    chosen: bool = False,
    own: Size | None = None,
) -> str:
    """Return why a network must not be run at a size: its embeddings have another length there than at its own.

    A network that takes all common sizes, each with another length, has no size of its own. It accepts every common size, and any size
    that the user chose.

    Args:
        network: Takes RGB in [0, 1].
        size: (h, w) of the crops.
        device: Device of the network. Default: ``"cpu"``.
        chosen: Whether the user named the size. Default: False.
        own: (h, w) that the network was made for, where it is known. Default: :func:`own_size`.

    Returns:
        One sentence with both sizes and lengths; empty if there is nothing to object to.

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
    there, here = _length(network, own, device), _length(network, size, device)
    if here is None or here == there:
        return ""
    takes_all = all(_length(network, common, device) is not None for common in COMMON_SIZES)
    if takes_all and (chosen or size in COMMON_SIZES):
        return ""
    return (
        f"Expected crops of {own[1]} × {own[0]} px, on which the embeddings have {there} numbers, got {size[1]} × {size[0]} px, on which "
        f"they have {here}."
    )


def _length(network: nn.Module, size: Size, device: str | torch.device) -> int | None:
    """Return the length of embeddings of crops of a size; None if the network does not take them."""
    image = uniform((1, 3, *size), torch.Generator().manual_seed(0)).to(device)
    try:
        return int(embed(network, image).shape[1])
    except Exception as error:  # a network refuses a size as it likes
        if is_out_of_memory(error):
            raise
        return None
