r"""Refinement of a map by occlusion: it occludes its own highest pixels, and what the remaining ones contribute re-ranks them.

The map starts from the contributions of the pixels at one image :math:`x_t` between a replacement :math:`x'` and the image :math:`x`,

.. math:: c = \sum_\mathrm{channels} (x - x') \odot \frac{\partial s}{\partial x}(x_t), \qquad x_t = x' + t\,(x - x').

Every round takes the heights :math:`h` (a map up to scale), lays a soft mask over the share a of the pixels that are highest,

.. math:: m = \sigma\Big(\frac{h - q}{\mathrm{std}\,h}\Big), \qquad \mathrm{mean}\, m = a,

and takes the contributions at the image with these pixels replaced, :math:`x + m \odot (x' - x)`. The heights move along
:math:`m (1 - m)\, c`, smoothed and divided by its standard deviation: the direction in which the score of what remains falls. Areas
from 40 to 5 % take turns, so that *one* ranking serves every fraction; a mask made for one area is
:class:`~captum_leam.explainers.ExtremalPerturbation`.

A gradient at the image itself describes infinitesimal changes; a gradient on a straight path describes a face that is blurred
everywhere. Here it is taken at the images that the map's own occlusion produces.

Source: this package. Contributions along a path are those of Integrated Gradients (Sundararajan et al. 2017), with one or several points
that differ from image to image. The soft mask of a given area is that of Fong et al. 2019 (arXiv 1910.08485); moving a ranking by sums of
normalised gradients with a step of 1/√rounds is dual averaging (Nesterov 2009).
"""

from collections.abc import Callable, Sequence
from itertools import cycle, islice
from typing import NamedTuple

import torch
from torch import Tensor

from captum_leam._engine.arithmetic import at_least_float32, differentiate
from captum_leam.maps import gaussian_blur, positive_shares, soft_mask

Score = Callable[[Tensor], Tensor]

START = 0.5
"""Place of the first pass on the line from the replacement (0) to the image (1): its midpoint."""

AREAS = (0.4, 0.2, 0.1, 0.05)
"""Area that successive rounds occlude, repeated."""

SCALE = 2.0
"""Gaussian σ at which rounds move the heights, in pixels per 112 px of width: a cell of the finest layer of an overall map."""

SCALES = (1.0, 2.0, 4.0)
"""Gaussian σ at which positive contributions are added up, in pixels per 112 px of width."""


class Refined(NamedTuple):
    """Result of rounds of occlusion.

    Attributes:
        heights: Shape (N, H, W), mean 0 and standard deviation 1 (or all 0). Only the order of the pixels has a meaning.
        contributions: Sum of the positive contributions of all rounds, each divided by its mean, (N, H, W); 0 where there are none.
    """

    heights: Tensor
    contributions: Tensor


def smooth(maps: Tensor, scale: float = SCALE) -> Tensor:
    """Blur maps (N, H, W) with a σ of ``scale`` px per 112 px of width. Default: a cell of the finest layer of an overall map.

    Example:
        >>> smooth(torch.ones(1, 4, 56)).unique().tolist()
        [1.0]
    """
    return gaussian_blur(maps, scale * maps.shape[-1] / 112)


def evidence(contributions: Tensor) -> Tensor:
    """Return the positive part of contributions, blurred at each of :data:`SCALES`, each divided by its sum, averaged.

    Fine scales rank single pixels, coarse ones regions; the positive part comes first so that negative neighbours do not cancel a peak.

    Args:
        contributions: Shape (N, H, W).

    Returns:
        Shape (N, H, W), not negative, each map sums to 1, or is 0 where no contribution is positive.

    Example:
        >>> evidence(torch.eye(32)[None] - 0.5).sum().round().item()
        1.0
    """
    positive = contributions.clamp(min=0)
    return torch.stack([positive_shares(smooth(positive, scale))[0] for scale in SCALES]).mean(0)


def contributions(images: Tensor, replaced: Tensor, gradient: Tensor) -> Tensor:
    """Return the contributions of the pixels, the sum over channels of (x − x′) ⊙ gradient; (N, H, W).

    Example:
        >>> contributions(torch.ones(1, 3, 2, 2), torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2)).unique().tolist()
        [3.0]
    """
    return at_least_float32(((images - replaced) * gradient).sum(1))


def refine(
    score: Score, images: Tensor, replaced: Tensor, start: Tensor, rounds: int, *, areas: Sequence[float] = AREAS
) -> Refined:
    r"""Refine a map by rounds of occlusion, each one forward and one backward pass.

    Args:
        score: Differentiable function of images (N, C, H, W) that returns similarities (N,).
        images: Images, shape (N, C, H, W).
        replaced: Replacement of occluded pixels, same shape as the images.
        start: Initial map, shape (N, H, W).
        rounds: Number of rounds. The step of each is :math:`1/\sqrt{\mathrm{rounds}}` standard deviations of the map.
        areas: Areas of successive rounds, repeated. Default: :data:`AREAS`.

    Returns:
        Heights and positive contributions, float32 or float64.

    Example:
        The similarity depends on one pixel, which a start elsewhere finds:

        >>> images, start = torch.ones(1, 1, 16, 16), torch.zeros(1, 16, 16)
        >>> start[0, 2, 2] = 1.0
        >>> refined = refine(lambda x: x[:, 0, 12, 12], images, torch.zeros_like(images), start, 8)
        >>> divmod(int(refined.heights.argmax()), 16)
        (12, 12)
    """
    heights = standardise(at_least_float32(start))
    total = torch.zeros_like(heights)
    for area in islice(cycle(areas), rounds):
        mask = soft_mask(heights[:, None], area, 1.0)
        given = contributions(images, replaced, _gradient(score, torch.lerp(images, replaced, mask.to(images))))
        slope = (mask * (1 - mask))[:, 0]
        move = standardise(smooth(given * slope))
        heights = standardise(heights + move / rounds**0.5)
        positive = given.clamp(min=0)
        mean = positive.mean((1, 2), keepdim=True)
        total = total + positive / torch.where(mean > 0, mean, torch.ones_like(mean))
    return Refined(heights, total)


def _gradient(score: Score, images: Tensor) -> Tensor:
    with torch.enable_grad():
        images = images.detach().requires_grad_()
        gradient: Tensor = differentiate(score(images).sum(), images)[0]
    return gradient


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
