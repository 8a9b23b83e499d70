r"""Refinement of a map by occlusion: it occludes its own highest pixels, and the gradient there re-ranks them.

Every round takes the heights :math:`h` (a map up to scale), lays a soft mask over the share a of the pixels that are highest,

.. math:: m = \sigma\Big(\frac{h - q}{\mathrm{std}\,h}\Big), \qquad \mathrm{mean}\, m = a,

and looks at the image with these pixels replaced, :math:`x + m \odot (x' - x)`, whose similarity should be low, or at the image with
nothing but these pixels kept, :math:`x' + m \odot (x - x')`, whose similarity should be high. The heights move along the gradient of that
similarity, smoothed and divided by its standard deviation. Areas from 5 to 40 % take turns, so that *one* ranking serves
every fraction; a mask made for one area is :class:`~captum_leam.explainers.ExtremalPerturbation`.

A gradient at the image itself describes infinitesimal changes; a gradient on a straight path describes a face that is blurred
everywhere. Here it is taken at the images that the map's own occlusion produces.

Source: this package. The soft mask of a given area is that of Fong et al. 2019 (arXiv 1910.08485); moving a ranking by sums of
normalised gradients with a step of 1/√rounds is dual averaging (Nesterov 2009).
"""

from collections.abc import Callable, Sequence
from itertools import cycle, islice
from typing import Literal

import torch
from torch import Tensor

from captum_leam._engine.modes import at_least_float32, differentiate
from captum_leam.maps import gaussian_blur, soft_mask

Score = Callable[[Tensor], Tensor]
Schedule = Sequence[tuple[float, Literal["remove", "keep"]]]

SCHEDULE: Schedule = ((0.2, "remove"), (0.1, "keep"), (0.05, "remove"), (0.4, "remove"), (0.1, "remove"))
"""Area and kind of successive rounds, repeated: areas double from 5 to 40 %; one round in five keeps pixels, which insertion needs."""

SCALES = (2.0, 4.0)
"""Gaussian σ at which a gradient is read, in pixels per 112 px of width: the cells of the two finest layers of an overall map."""


def smooth(maps: Tensor, scale: float = SCALES[0]) -> Tensor:
    """Blur maps (N, H, W) with a σ of ``scale`` px per 112 px of width. Default: a cell of the finest layer of an overall map.

    Example:
        >>> smooth(torch.ones(1, 4, 56)).unique().tolist()
        [1.0]
    """
    return gaussian_blur(maps, scale * maps.shape[-1] / 112)


def refine(
    score: Score,
    images: Tensor,
    replaced: Tensor,
    start: Tensor,
    rounds: int,
    *,
    schedule: Schedule = SCHEDULE,
    scales: Sequence[float] = SCALES,
) -> Tensor:
    r"""Return the heights of a map after rounds of occlusion, each one forward and one backward pass.

    Args:
        score: Differentiable function of images (N, C, H, W) that returns similarities (N,).
        images: Images, shape (N, C, H, W).
        replaced: Replacement of occluded pixels, same shape as the images.
        start: Initial map, shape (N, H, W).
        rounds: Number of rounds. The step of each is :math:`1/\sqrt{\mathrm{rounds}}` standard deviations of the map.
        schedule: Areas and kinds (``"remove"`` or ``"keep"``) of successive rounds, repeated. Default: :data:`SCHEDULE`.
        scales: Gaussian σ at which gradients are read, in pixels per 112 px of width. Default: :data:`SCALES`.

    Returns:
        Shape (N, H, W), float32 or float64, mean 0 and standard deviation 1 (or all 0). Only the order of the pixels has a meaning.

    Example:
        The similarity depends on one pixel, which a start elsewhere finds:

        >>> images, start = torch.ones(1, 1, 16, 16), torch.zeros(1, 16, 16)
        >>> start[0, 2, 2] = 1.0
        >>> heights = refine(lambda x: x[:, 0, 12, 12], images, torch.zeros_like(images), start, 8)
        >>> divmod(int(heights.argmax()), 16)
        (12, 12)
    """
    heights = standardise(at_least_float32(start))
    for area, kind in islice(cycle(schedule), rounds):
        gradient = _gradient(score, images, replaced, heights, area, keep=kind == "keep")
        move = torch.stack([standardise(smooth(gradient, scale)) for scale in scales]).sum(0)
        heights = standardise(heights + standardise(move) / rounds**0.5)
    return heights


def _gradient(score: Score, images: Tensor, replaced: Tensor, heights: Tensor, area: float, keep: bool) -> Tensor:
    """Return the direction of the heights that lowers the score of the remaining pixels, or raises that of the kept ones."""
    with torch.enable_grad():
        heights = heights.detach().requires_grad_()
        mask = soft_mask(heights[:, None], area, 1.0).to(images)
        seen = torch.lerp(replaced, images, mask if keep else 1 - mask)
        gradient: Tensor = differentiate(score(seen).sum(), heights)[0]
    return gradient if keep else -gradient


def standardise(maps: Tensor) -> Tensor:
    """Subtract the mean of each map and divide by its standard deviation; a constant map becomes 0.

    Example:
        >>> standardise(torch.tensor([[[1.0, 3.0]], [[2.0, 2.0]]])).tolist()
        [[[-1.0, 1.0]], [[0.0, 0.0]]]
    """
    centred = maps - maps.mean((1, 2), keepdim=True)
    # a peak of 1 first: squares of the gradients of a cosine would underflow
    centred = centred / centred.abs().amax((1, 2), keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)
    spread = centred.square().mean((1, 2), keepdim=True).sqrt()
    return centred / torch.where(spread > 0, spread, torch.ones_like(spread))


def transfer_ranks(maps: Tensor, heights: Tensor) -> Tensor:
    """Assign the sorted values of each map to the pixels in the order of the heights: the highest value where the height is highest.

    Heights have an order and no scale, so the concentration of the map is kept.

    Args:
        maps: Maps whose values are kept, shape (N, H, W).
        heights: Heights whose order is kept, shape (N, H, W).

    Example:
        >>> transfer_ranks(torch.tensor([[[0.1, 0.7, 0.2]]]), torch.tensor([[[5.0, -1.0, 9.0]]])).tolist()
        [[[0.20000000298023224, 0.10000000149011612, 0.699999988079071]]]
    """
    values = maps.flatten(1).sort(1).values
    order = heights.flatten(1).argsort(dim=1, stable=True)
    return torch.empty_like(values).scatter_(1, order, values).view_as(maps)
