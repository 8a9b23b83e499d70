"""What an occluded pixel is replaced with. A fill is any function images (N, C, H, W) → images of that shape."""

from collections.abc import Callable

import torch
from torch import Tensor

from captum_leam.maps import default_blur

Fill = Callable[[Tensor], Tensor]


def zero(images: Tensor) -> Tensor:
    """Black (0): the published protocol. Scattered black pixels are adversarial noise; read it beside :func:`blur`.

    Example:
        >>> zero(torch.ones(1, 3, 2, 2)).sum().item()
        0.0
    """
    return torch.zeros_like(images)


def mean_colour(images: Tensor) -> Tensor:
    """The mean colour of each image.

    Example:
        >>> mean_colour(torch.tensor([[[[0.0, 1.0]]]])).tolist()
        [[[[0.5, 0.5]]]]
    """
    return images.mean((2, 3), keepdim=True).expand_as(images)


def blur(images: Tensor) -> Tensor:
    """The image, blurred with a Gaussian of σ = 10 px per 112 px of width: stays close to what faces look like.

    Example:
        >>> blur(torch.rand(1, 3, 112, 112)).shape
        torch.Size([1, 3, 112, 112])
    """
    return default_blur(images)


FILLS: dict[str, Fill] = {"zero": zero, "mean": mean_colour, "blur": blur}


def as_fill(fill: str | Fill) -> Fill:
    """A fill by its name, or the function given.

    Raises:
        ValueError: for an unknown name.

    Example:
        >>> as_fill("blur") is blur
        True
    """
    if callable(fill):
        return fill
    if fill not in FILLS:
        raise ValueError(
            f"fill is {fill!r}; needed is one of {', '.join(map(repr, FILLS))}, or a function of the images."
        )
    return FILLS[fill]
