r"""Refinement of a map by rounds of occlusion: occlude its highest pixels and re-rank all pixels by their contributions then.

The map starts from the contributions of the pixels at one image :math:`x_t` between a replacement :math:`x'` and the image :math:`x`,

.. math:: c = \sum_\mathrm{channels} (x - x') \odot \frac{\partial s}{\partial x}(x_t), \qquad x_t = x' + t\,(x - x').

Each round covers the share a of the pixels with the greatest heights :math:`h` (a map up to scale) by a soft mask,

.. math:: m = \sigma\Big(\frac{h - q}{\mathrm{std}\,h}\Big), \qquad \mathrm{mean}\, m = a,

and computes the contributions at the image with these pixels replaced, :math:`x + m \odot (x' - x)`. The heights move along the sum over
:data:`SCALES` of :math:`m (1 - m)\, c`, smoothed and standardised at each scale. In this direction the score of the remaining pixels
falls. Successive rounds use areas from 40 to 5 %, so that *one* ranking serves every fraction. A mask for a single area is
:class:`~captum_leam.explainers.ExtremalPerturbation`.

Successive rounds shift the image by up to two pixels per 112 and shift the gradient back. A gradient depends on where pixels fall on the
strides of the network; the mean over shifts depends on it less.

A gradient at the image itself describes infinitesimal changes, and a gradient on a straight path describes a face that is blurred
everywhere. Here the gradients are computed at the images that occlusion by the map itself produces.

Source: this package. Contributions along a path are those of Integrated Gradients (Sundararajan et al. 2017), with one or several points
that differ from image to image. The soft mask with a given area is that of Fong et al. 2019 (arXiv 1910.08485). Updating a ranking by sums
of normalised gradients with a step of 1/√rounds is dual averaging (Nesterov 2009). Averaging gradients over changed copies of an image is
SmoothGrad (Smilkov et al. 2017, arXiv 1706.03825), with shifts in place of noise.
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
"""Position of the first pass on the line from the replacement (0) to the image (1), its midpoint."""

AREAS = (0.4, 0.2, 0.1, 0.05)
"""Areas that successive rounds occlude, repeated."""

SCALE = 2.0
"""Gaussian σ at which layer maps are smoothed, in pixels per 112 px of width: a cell of the finest layer of an overall map."""

SCALES = (1.0, 2.0, 4.0)
"""Gaussian σ at which positive contributions and changes of the heights are blurred, in pixels per 112 px of width."""

SHIFTS = ((-2, -2), (0, -2), (-2, 0), (2, 0), (0, 2), (0, 0), (2, 2), (-2, 2), (2, -2))
"""Shifts (down, right) of the image in successive rounds, repeated, in pixels per 112 px of width."""


class RefinementResult(NamedTuple):
    """Result of rounds of occlusion.

    Attributes:
        heights: Shape (N, H, W), mean 0 and standard deviation 1 (or all 0). Only the order of the pixels has a meaning.
        contributions: Sum over the rounds of the positive contributions, each divided by its mean, (N, H, W); 0 if there are none.
    """

    heights: Tensor
    contributions: Tensor


def smooth(maps: Tensor, scale: float = SCALE) -> Tensor:
    """Blur maps with a Gaussian whose σ is proportional to their width.

    Args:
        maps: Maps (N, H, W).
        scale: Gaussian σ in pixels per 112 px of width. Default: :data:`SCALE`.

    Returns:
        Shape (N, H, W).

    Example:
        >>> smooth(torch.ones(1, 4, 56)).unique().tolist()
        [1.0]
    """
    return gaussian_blur(maps, scale * maps.shape[-1] / 112)


def evidence(contributions: Tensor) -> Tensor:
    """Return the mean over :data:`SCALES` of the positive contributions, blurred and divided by their sum.

    Fine scales rank single pixels and coarse scales regions. The negative part is removed before the blur, so that negative neighbours do
    not cancel a peak.

    Args:
        contributions: Contributions of the pixels, shape (N, H, W).

    Returns:
        Shape (N, H, W), not negative. Each map sums to 1, or is 0 if no contribution is positive.

    Example:
        >>> evidence(torch.eye(32)[None] - 0.5).sum().round().item()
        1.0
    """
    positive = contributions.clamp(min=0)
    return torch.stack([positive_shares(smooth(positive, scale))[0] for scale in SCALES]).mean(0)


def contributions(images: Tensor, replacement: Tensor, gradient: Tensor) -> Tensor:
    """Return the contributions of the pixels, the sum over channels of (x − x′) ⊙ gradient.

    Args:
        images: Images x, shape (N, C, H, W).
        replacement: Replacement x′ of the pixels, shape (N, C, H, W).
        gradient: Gradient of the score with respect to the pixels, shape (N, C, H, W).

    Returns:
        Shape (N, H, W), float32 or float64.

    Example:
        >>> contributions(torch.ones(1, 3, 2, 2), torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2)).unique().tolist()
        [3.0]
    """
    return at_least_float32(((images - replacement) * gradient).sum(1))


def refine(
    score: Score, images: Tensor, replacement: Tensor, start: Tensor, rounds: int, *, areas: Sequence[float] = AREAS
) -> RefinementResult:
    r"""Refine a map by rounds of occlusion, each of which takes one forward and one backward pass.

    Args:
        score: Differentiable function from images (N, C, H, W) to similarities (N,).
        images: Images, shape (N, C, H, W).
        replacement: Replacement of occluded pixels, shape (N, C, H, W).
        start: Initial map, shape (N, H, W).
        rounds: Number of rounds. Each has a step of :math:`1/\sqrt{\mathrm{rounds}}` standard deviations of the map.
        areas: Shares of the pixels that successive rounds occlude, repeated. Default: :data:`AREAS`.

    Returns:
        Heights and positive contributions, float32 or float64.

    Example:
        Find the only pixel that the similarity depends on, from a map of another pixel:

        >>> images, start = torch.ones(1, 1, 16, 16), torch.zeros(1, 16, 16)
        >>> start[0, 2, 2] = 1.0
        >>> refined = refine(lambda x: x[:, 0, 12, 12], images, torch.zeros_like(images), start, 8)
        >>> divmod(int(refined.heights.argmax()), 16)
        (12, 12)
    """
    heights = standardise(at_least_float32(start))
    total = torch.zeros_like(heights)
    for area, shift in islice(zip(cycle(areas), cycle(SHIFTS), strict=False), rounds):
        mask = soft_mask(heights[:, None], area, 1.0)
        gradient = _gradient(score, torch.lerp(images, replacement, mask.to(images)), shift)
        contribution = contributions(images, replacement, gradient)
        slope = (mask * (1 - mask))[:, 0]
        by_scale = torch.stack([standardise(smooth(contribution * slope, scale)) for scale in SCALES])
        update = standardise(by_scale.sum(0))
        heights = standardise(heights + update / rounds**0.5)
        positive = contribution.clamp(min=0)
        mean = positive.mean((1, 2), keepdim=True)
        total = total + positive / torch.where(mean > 0, mean, torch.ones_like(mean))
    return RefinementResult(heights, total)


def _gradient(score: Score, images: Tensor, shift: tuple[int, int]) -> Tensor:
    """Return the gradient at the shifted images, shifted back; pixels shifted out of view take that of the nearest pixel in view."""
    down, right = (round(pixels * images.shape[-1] / 112) for pixels in shift)
    with torch.enable_grad():
        shifted = shift_images(images.detach(), down, right).requires_grad_()
        gradient: Tensor = differentiate(score(shifted).sum(), shifted)[0]
    return shift_images(gradient, -down, -right)


def shift_images(images: Tensor, down: int, right: int) -> Tensor:
    """Shift images and repeat their border pixels in the area that becomes empty.

    Args:
        images: Images, shape (N, C, H, W).
        down: Number of pixels to shift down; negative for up.
        right: Number of pixels to shift right; negative for left.

    Returns:
        Shape (N, C, H, W).

    Example:
        >>> shift_images(torch.tensor([[[[1.0, 2.0, 3.0]]]]), 0, 1).tolist()
        [[[[1.0, 1.0, 2.0]]]]
    """
    if not down and not right:
        return images
    height, width = images.shape[2:]
    rows = (torch.arange(height, device=images.device) - down).clamp(0, height - 1)
    columns = (torch.arange(width, device=images.device) - right).clamp(0, width - 1)
    return images.index_select(2, rows).index_select(3, columns)


def standardise(maps: Tensor) -> Tensor:
    """Subtract the mean of each map and divide by its standard deviation.

    Args:
        maps: Maps (N, H, W).

    Returns:
        Shape (N, H, W); a constant map becomes 0.

    Example:
        >>> standardise(torch.tensor([[[1.0, 3.0]], [[2.0, 2.0]]])).tolist()
        [[[-1.0, 1.0]], [[0.0, 0.0]]]
    """
    centred = maps - maps.mean((1, 2), keepdim=True)
    # Maps are divided by their peak first, because squares of the gradients of a cosine would underflow.
    centred = centred / centred.abs().amax((1, 2), keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)
    spread = centred.square().mean((1, 2), keepdim=True).sqrt()
    return centred / torch.where(spread > 0, spread, torch.ones_like(spread))


def transfer_ranks(maps: Tensor, heights: Tensor) -> Tensor:
    """Return maps with the values of ``maps`` in the order of ``heights``.

    Heights have an order but no scale, so that the concentration of the map is kept.

    Args:
        maps: Maps that give the values, shape (N, H, W).
        heights: Heights that give the order of the pixels, shape (N, H, W).

    Returns:
        Shape (N, H, W).

    Example:
        >>> transfer_ranks(torch.tensor([[[0.1, 0.7, 0.2]]]), torch.tensor([[[5.0, -1.0, 9.0]]])).tolist()
        [[[0.20000000298023224, 0.10000000149011612, 0.699999988079071]]]
    """
    values = maps.flatten(1).sort(1).values
    order = heights.flatten(1).argsort(dim=1, stable=True)
    return torch.empty_like(values).scatter_(1, order, values).view_as(maps)
