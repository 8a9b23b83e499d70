r"""Functions of attribution maps that need no model: weighting, placing, blurring, ranking, averaging, comparing.

A *layer map* has shape (N, 1, h, w), is signed and on the raw scale of the objective. A *map* has the size
of the image, shape (N, H, W).
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from captum_leam._engine.arithmetic import as_tensor, at_least_float32, own_arithmetic
from captum_leam._engine.checks import caller_rows, check_choice
from captum_leam._engine.draws import draw_by_image
from captum_leam._engine.types import Field
from captum_leam.errors import CaptumLeamError, NoEvidenceError

__all__ = [
    "gaussian_blur",
    "normalize_max",
    "normalize_sum",
    "place_on_field",
    "rank_pixels",
    "soft_mask",
    "weigh",
]

# -- from gradients to a layer map ---------------------------------------------------------------------


def elementwise_weights(gradients: Tensor) -> Tensor:
    """Return the gradients unchanged (HiResCAM, and the default of LEAM)."""
    return gradients


def positive_weights(gradients: Tensor) -> Tensor:
    """Return the positive part of the gradients (LayerCAM)."""
    return gradients.clamp(min=0)


def channel_weights(gradients: Tensor) -> Tensor:
    """Return one weight per channel, its mean gradient over all positions (Grad-CAM)."""
    return gradients.mean(dim=tuple(range(2, gradients.ndim)), keepdim=True)


WEIGHTINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "elementwise": elementwise_weights,
    "positive": positive_weights,
    "channel": channel_weights,
}


def weigh(
    gradients: Tensor, activations: Tensor, weighting: str = "elementwise", *, sum_channels: bool = True
) -> Tensor:
    r"""Compute a layer map from gradients and activations.

    .. math:: M = \sum_c w(G)_c \odot A_c

    Args:
        gradients: Gradients :math:`G = \partial s / \partial A` of the score, shape (N, C, h, w).
        activations: Activations :math:`A`, or a difference of activations, shape (N, C, h, w).
        weighting: Weighting :math:`w` of the gradients. Default: ``"elementwise"``.

            * ``"elementwise"``: Gradients as they are (HiResCAM, LEAM).
            * ``"positive"``: Positive part of the gradients (LayerCAM).
            * ``"channel"``: Mean gradient of each channel (Grad-CAM).
        sum_channels: Whether to sum over the channels. Default: True.

    Returns:
        Signed maps of shape (N, 1, h, w), or (N, C, h, w) without the sum.

    Raises:
        CaptumLeamError: If ``weighting`` is none of these.

    Example:
        >>> gradients = torch.tensor([[[[1.0, -1.0]], [[2.0, 0.0]]]])
        >>> activations = torch.tensor([[[[3.0, 3.0]], [[1.0, 5.0]]]])
        >>> weigh(gradients, activations).tolist()
        [[[[5.0, -3.0]]]]
        >>> weigh(gradients, activations, "channel").tolist()
        [[[[1.0, 5.0]]]]
    """
    check_choice("weighting", weighting, WEIGHTINGS)
    product = WEIGHTINGS[weighting](gradients) * activations
    return product.sum(dim=1, keepdim=True) if sum_channels else product


# -- from a layer map to a map of the image ------------------------------------------------------------


def as_maps(maps: Tensor | ArrayLike) -> Tensor:
    """Return maps of any accepted shape as (N, H, W), in float32 or float64.

    Args:
        maps: Maps (H, W), (N, H, W) or (N, 1, H, W), a tensor or an array.

    Returns:
        Maps of shape (N, H, W).

    Raises:
        CaptumLeamError: If the shape differs, or if values are NaN or infinite.

    Example:
        >>> as_maps(torch.ones(2, 1, 4, 4)).shape
        torch.Size([2, 4, 4])
    """
    maps = as_tensor(maps)
    shape = tuple(maps.shape)
    if maps.ndim == 2:
        maps = maps[None]
    elif maps.ndim == 4 and maps.shape[1] == 1:
        maps = maps[:, 0]
    if maps.ndim != 3:
        raise CaptumLeamError(
            f"Expected maps to have shape (N, H, W) or (N, 1, H, W), got {shape}. Sum the channels or select one first."
        )
    maps = at_least_float32(maps)
    if not bool(torch.isfinite(maps).all()):
        bad = caller_rows((~torch.isfinite(maps)).flatten(1).any(1).nonzero().flatten().tolist())
        raise CaptumLeamError(
            f"Expected finite maps, got NaN or infinite values in maps {bad}. Leave these images out."
        )
    return maps


def place_on_field(maps: Tensor, size: tuple[int, int], field: Field | None = None) -> Tensor:
    """Enlarge layer maps to the size of the images.

    Maps are resized bilinearly. If the network reads a part of the image only, the field, they are placed there, and padded with zeros.

    Args:
        maps: Layer maps of shape (N, 1, h, w) or (N, h, w).
        size: Height and width (H, W) of the images in pixels.
        field: Part (top, left, height, width) of the images that the network reads, in pixels. Default: the whole image.

    Returns:
        Maps of shape (N, H, W).

    Raises:
        CaptumLeamError: If ``size`` is not two numbers, or the field is not inside the image.

    See Also:
        * :func:`~captum_leam.suggest.find_field`: Field of a network.
        * :func:`~captum_leam.overall_map`: Mean of several layer maps.

    Example:
        >>> placed = place_on_field(torch.ones(1, 1, 7, 6), (112, 112), field=(0, 8, 112, 96))
        >>> placed.shape, placed[0, 0, 7:9].tolist()  # zero left of the field
        (torch.Size([1, 112, 112]), [0.0, 1.0])
    """
    maps = as_maps(maps)
    if isinstance(size, Tensor) or not isinstance(size, Sequence) or len(size) != 2:
        raise CaptumLeamError(
            f"Expected size to be (height, width) of the images, got a {type(size).__name__}. Pass images.shape[-2:]."
        )
    top, left, height, width = field or (0, 0, *size)
    if min(top, left) < 0 or min(height, width) < 1 or top + height > size[0] or left + width > size[1]:
        raise CaptumLeamError(
            f"Expected field to be (top, left, height, width) inside an image of {size[0]} × {size[1]} px, got {field}."
        )
    on_field = F.interpolate(maps[:, None], (height, width), mode="bilinear", align_corners=False)[:, 0]
    return F.pad(on_field, (left, size[1] - left - width, top, size[0] - top - height))


def overall_map(
    maps: Sequence[Tensor],
    size: tuple[int, int],
    field: Field | None = None,
    weights: Sequence[float] | None = None,
) -> Tensor:
    r"""Combine maps of several layers into one map per image.

    The positive part of each layer map is enlarged to the size of the image and divided by its sum. The overall map is the mean of these:

    .. math:: M = \sum_l w_l \frac{\max(M_l, 0)}{\sum \max(M_l, 0)}

    Args:
        maps: List of layer maps, (N, 1, h, w) each, usually one for every spatial size.
        size: Height and width (H, W) of the images in pixels.
        field: Part (top, left, height, width) of the images that the network reads, in pixels. Default: the whole image.
        weights: Weights of the layers, 0 or more, which are divided by their sum. Default: equal weights.

    Returns:
        Maps of shape (N, H, W), 0 or more. Each sums to 1.

    Raises:
        NoEvidenceError: If a layer map has no positive value.
        CaptumLeamError: If there is no layer, the numbers of images differ, or the weights do not fit the layers.

    See Also:
        * :func:`~captum_leam.explain_faces`: Layers, maps and overall map in one call.
        * :func:`~captum_leam.maps.place_on_field`: A single layer map at the size of the image.

    Example:
        >>> coarse = torch.tensor([[[[1.0, 0.0]]]])
        >>> fine = torch.tensor([[[[4.0, 1.0, 3.0, -2.0]]]])
        >>> overall_map([coarse, fine], (1, 4)).round(decimals=3).tolist()
        [[[0.5, 0.25, 0.25, 0.0]]]
    """
    if isinstance(maps, Tensor) or not maps:
        got = f"a tensor {tuple(maps.shape)}" if isinstance(maps, Tensor) else repr(maps)
        raise CaptumLeamError(f"Expected maps to be a list of layer maps, one tensor per layer, got {got}.")
    shares = torch.tensor([1.0] * len(maps) if weights is None else list(weights), device="cpu", dtype=torch.float64)
    if len(shares) != len(maps) or bool((shares < 0).any()) or not bool(shares.sum() > 0):
        raise CaptumLeamError(
            f"Expected `weights` to be {len(maps)} numbers of 0 or more, one per layer and not all 0, got {weights}."
        )
    if len({len(m) for m in maps}) != 1:
        raise CaptumLeamError(f"Expected layer maps of the same number of images, got {[len(m) for m in maps]}.")
    shares = shares / shares.sum()
    placed = (
        share * normalize_sum(place_on_field(m, size, field)) for m, share in zip(maps, shares.tolist(), strict=True)
    )
    return torch.stack(list(placed)).sum(0)


# -- normalisations ------------------------------------------------------------------------------------


def normalize_sum(maps: Tensor) -> Tensor:
    """Divide the positive part of each map by its sum.

    The result is a distribution over the pixels, which shows the share of each in the evidence for the match.

    Args:
        maps: Maps (N, H, W) or (N, 1, H, W).

    Returns:
        Maps of shape (N, H, W), 0 or more. Each sums to 1.

    Raises:
        NoEvidenceError: If a map has no positive value.

    See Also:
        :func:`~captum_leam.maps.normalize_max`: Signed maps in [−1, 1].

    Example:
        >>> normalize_sum(torch.tensor([[[1.0, -5.0], [0.0, 3.0]]])).tolist()
        [[[0.25, 0.0], [0.0, 0.75]]]
    """
    shares, has_positive = positive_shares(as_maps(maps))
    if not bool(has_positive.all()):
        empty = caller_rows((~has_positive).nonzero().flatten().tolist())
        raise NoEvidenceError(
            f"Expected maps with a positive value, got no positive value in maps {empty}. Leave these images out."
        )
    return shares


def positive_shares(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Divide the positive part of each map by its sum, with 0 for maps that have none.

    Args:
        maps: Finite maps (..., H, W), signed.

    Returns:
        Tuple of two values:

        * Maps of shape (..., H, W) that sum to 1, or are 0 if no value is positive.
        * Whether each map has a positive value, booleans (...).

    Example:
        >>> shares, has_positive = positive_shares(torch.tensor([[[1.0, 3.0]], [[-1.0, 0.0]]]))
        >>> shares.tolist(), has_positive.tolist()
        ([[[0.25, 0.75]], [[0.0, 0.0]]], [True, False])
    """
    positive = maps.clamp(min=0)
    peak = positive.amax((-2, -1), keepdim=True)
    has_positive = peak > 0
    positive = positive / torch.where(has_positive, peak, 1)  # because sums of very small values would underflow
    total = positive.sum((-2, -1), keepdim=True)
    return positive / torch.where(has_positive, total, 1), has_positive[..., 0, 0]


def normalize_max(maps: Tensor) -> Tensor:
    """Divide each map by its largest absolute value.

    The result keeps the sign, and is what figures show.

    Args:
        maps: Maps (N, H, W) or (N, 1, H, W).

    Returns:
        Signed maps of shape (N, H, W) in [−1, 1]. A map of zeros is returned unchanged.

    See Also:
        :func:`~captum_leam.maps.normalize_sum`: Maps that sum to 1.

    Example:
        >>> normalize_max(torch.tensor([[[1.0, -4.0], [0.0, 2.0]]])).tolist()
        [[[0.25, -1.0], [0.0, 0.5]]]
    """
    maps = as_maps(maps)
    peak = maps.abs().amax((1, 2), keepdim=True)
    return maps / torch.where(peak > 0, peak, torch.ones_like(peak))


# -- ranking -------------------------------------------------------------------------------------------


def pixel_count(fraction: float, pixels: int) -> int:
    """Return the number of pixels in a fraction of them, at least 1.

    Args:
        fraction: Fraction in (0, 1].
        pixels: Number of all pixels.

    Example:
        >>> pixel_count(0.01, 112 * 112), pixel_count(1e-9, 100)
        (125, 1)
    """
    return max(1, round(fraction * pixels))


def rank_pixels(maps: Tensor, *, seed: int = 0, start: int = 0) -> Tensor:
    """Rank the pixels of each map, from 0 for the highest value.

    Args:
        maps: Maps (N, H, W) or (N, 1, H, W).
        seed: Seed of the random order of equal values. Default: 0.
        start: Index of the first image in a larger set, so that the order of equal values does not depend on the batch. Default: 0.

    Returns:
        Ranks of shape (N, H, W), int64, on the device of the maps.

    See Also:
        :func:`~captum_leam.top_fraction`: Mask of the highest pixels.

    Example:
        >>> rank_pixels(torch.tensor([[[0.1, 0.9], [0.5, 0.3]]])).tolist()
        [[[3, 0], [1, 2]]]
    """
    maps = as_maps(maps)
    flat = maps.flatten(1)
    order = _order_by_value(flat, _permutations(flat, seed, start))
    ranks = torch.empty_like(order).scatter_(1, order, torch.arange(flat.shape[1], device=flat.device).expand_as(order))
    return ranks.view(maps.shape)


def _permutations(flat: Tensor, seed: int, start: int) -> Tensor:
    """Return a permutation of the pixels for each image of (N, P)."""
    count, pixels = flat.shape
    permutations = draw_by_image(
        lambda generator, row: torch.randperm(pixels, generator=generator, device="cpu"),
        ("permutation", pixels),
        seed,
        count,
        start,
    )
    return torch.stack(permutations).to(flat.device) if permutations else flat.long()


def _order_by_value(flat: Tensor, permutations: Tensor) -> Tensor:
    """Return the pixels of (N, P) from the highest to the lowest value, those with equal values in the order of the permutations."""
    by_value = flat.gather(1, permutations).argsort(dim=1, descending=True, stable=True)
    return permutations.gather(1, by_value)


def top_pixels(maps: Tensor, counts: Sequence[int], *, seed: int = 0, start: int | None = None) -> Tensor:
    """Select the highest pixels of each map for several counts at once.

    The first n of the pixels are the n highest for each count n. This is much faster than :func:`rank_pixels`.

    Args:
        maps: Maps (N, P) without NaN.
        counts: Counts n of pixels. The largest sets how many pixels are returned.
        seed: Seed of the random order of equal values at one of the counts. Default: 0.
        start: Index of the first image in a larger set, to order equal values as :func:`rank_pixels` does. Default: None, one order for
            all maps, so that the pixels of a map do not depend on its index.

    Returns:
        Indices of pixels, shape (N, max(counts)), int64.

    Example:
        >>> top_pixels(torch.tensor([[0.1, 0.9, 0.5, 0.3]]), [1, 2]).tolist()
        [[1, 2]]
    """
    pixels = maps.shape[1]
    largest = min(max(counts), pixels)
    cuts = sorted({count for count in counts if count < pixels}, reverse=True)
    if maps.device.type == "cpu" and maps.dtype in (torch.float32, torch.float64):
        order, is_tied = map(torch.from_numpy, _select_top(maps.detach().numpy(), cuts, largest))
    else:
        order, is_tied = _sort_top(maps, cuts, largest)
    if bool(is_tied.any()):
        order[is_tied] = _break_ties(maps, is_tied, seed, start, largest)
    return order


def _break_ties(maps: Tensor, is_tied: Tensor, seed: int, start: int | None, largest: int) -> Tensor:
    tied = maps[is_tied]
    if start is not None:
        return _order_by_value(tied, _permutations(maps, seed, start)[is_tied])[:, :largest]
    generator = torch.Generator().manual_seed(seed)
    permutation = torch.randperm(maps.shape[1], generator=generator, device="cpu").to(maps.device)
    return permutation[tied[:, permutation].topk(largest, dim=1).indices]


def _select_top(maps: NDArray[Any], cuts: Sequence[int], largest: int) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return the top pixels and whether each map has a tie at a cut, by selection, which is fast on a CPU."""
    order, is_tied = np.arange(largest)[None].repeat(len(maps), 0), np.zeros(len(maps), np.bool_)
    values = -maps  # so that the many zeros of a map come last, where they cost little
    for count in cuts:
        width = values.shape[1]
        selected = np.argpartition(values, count, axis=1)  # above the cut, the one below it, the rest
        ends = np.take_along_axis(values, selected[:, : count + 1], 1)
        values = np.ascontiguousarray(ends[:, :count])
        is_tied |= values.max(1) == ends[:, count]
        if count < largest:  # reorder the pixels of the larger cut
            order[:, :width] = np.take_along_axis(order[:, :width], selected, 1)
        else:
            order = selected[:, :largest].copy()
    return order, is_tied


def _sort_top(maps: Tensor, cuts: Sequence[int], largest: int) -> tuple[Tensor, Tensor]:
    """Return the same as :func:`_select_top` by sorting, which is fast on a GPU."""
    values, order = maps.topk(min(largest + 1, maps.shape[1]), dim=1)
    below = torch.tensor(cuts, dtype=torch.int64, device=maps.device)
    return order[:, :largest], (values[:, below - 1] == values[:, below]).any(1)


def top_fraction(
    maps: Tensor, fraction: float = 0.01, *, within: Tensor | None = None, seed: int = 0, start: int = 0
) -> Tensor:
    """Select the critical pixels of each map, those with the highest values.

    Args:
        maps: Maps (N, H, W) or (N, 1, H, W).
        fraction: Share of the pixels to select, in (0, 1]. Default: 0.01, which is 125 pixels of a crop of 112 × 112 px.
        within: Pixels to select from, booleans (N, H, W) or (H, W), for example those of the face. The fraction is then of these. Default:
            the whole image.
        seed: Seed of the random order of equal values. Default: 0.
        start: Index of the first image in a larger set, see :func:`~captum_leam.maps.rank_pixels`. Default: 0.

    Returns:
        Boolean masks of shape (N, H, W), with ``max(1, round(fraction * pixels))`` pixels each.

    Raises:
        CaptumLeamError: If the fraction is outside (0, 1], or if ``within`` is empty for an image.

    See Also:
        * :func:`~captum_leam.maps.rank_pixels`: Rank of every pixel.
        * :func:`~captum_leam.regions.region_report`: Share of the critical pixels in each region.

    Example:
        >>> top_fraction(torch.arange(16.0).view(1, 4, 4), 0.125).long()
        tensor([[[0, 0, 0, 0],
                 [0, 0, 0, 0],
                 [0, 0, 0, 0],
                 [0, 0, 1, 1]]])
    """
    if not 0 < fraction <= 1:
        raise CaptumLeamError(
            f"Expected fraction to be a share of the pixels in (0, 1], got {fraction}. For 1 %, pass 0.01."
        )
    maps = as_maps(maps)
    if within is None:
        if not len(maps):
            return torch.zeros_like(maps, dtype=torch.bool)
        count = pixel_count(fraction, maps[0].numel())
        top = top_pixels(maps.flatten(1), [count], seed=seed, start=start)
        return torch.zeros_like(maps.flatten(1), dtype=torch.bool).scatter_(1, top, True).view(maps.shape)
    within = as_tensor(within).to(maps.device, torch.bool).expand_as(maps)
    pixels = within.sum((1, 2))
    if bool((pixels == 0).any()):
        raise CaptumLeamError(
            "Expected `within` to have a pixel in every image, got none for images "
            f"{caller_rows((pixels == 0).nonzero().flatten().tolist())}."
        )
    # Pixels outside are ranked behind all pixels inside, whatever their value.
    ranks = rank_pixels(maps, seed=seed, start=start).masked_fill(~within, maps[0].numel()).neg().double()
    ranks = rank_pixels(ranks, seed=seed, start=start)
    counts = (fraction * pixels.double()).round().clamp(min=1)
    return ranks < counts[:, None, None]


# -- smoothing -----------------------------------------------------------------------------------------


def gaussian_blur(images: Tensor, sigma: float, kernel: int | None = None) -> Tensor:
    """Blur images with a Gaussian, with reflected borders.

    Args:
        images: Images of shape (..., H, W).
        sigma: Standard deviation in pixels, 0 or more. 0 returns the images.
        kernel: Width of the kernel in pixels, an odd number. Default: two standard deviations to both sides, 41 px for σ = 10 px.

    Returns:
        Blurred images of the same shape, dtype and device.

    Raises:
        CaptumLeamError: If sigma is negative.

    Note:
        The result equals that of ``torchvision.transforms.functional.gaussian_blur``, which is slower for large kernels.

    See Also:
        :func:`~captum_leam.faithfulness.occlude`: Replacement of masked pixels by a blur.

    Example:
        >>> spot = torch.zeros(1, 1, 9, 9)
        >>> spot[..., 4, 4] = 1
        >>> print(gaussian_blur(spot, 1.0)[0, 0, 4].numpy().round(2))  # the row through the spot
        [0.   0.   0.02 0.1  0.16 0.1  0.02 0.   0.  ]
    """
    if sigma < 0:
        raise CaptumLeamError(f"Expected sigma to be a standard deviation in pixels, 0 or more, got {sigma}.")
    if sigma == 0:
        return images
    radius = max(1, round(2 * sigma)) if kernel is None else kernel // 2
    radius = min(radius, min(images.shape[-2:]) - 1)  # a reflection cannot be wider than the image
    with own_arithmetic(images.device):
        if max(images.shape[-2:]) <= MAX_PRODUCT_SIDE:
            down, across = (_blur_matrix(length, radius, sigma).to(images) for length in images.shape[-2:])
            return torch.matmul(torch.matmul(down.T, images), across)
        weights = _blur_weights(radius, sigma).to(images)
        planes = images.reshape(-1, 1, *images.shape[-2:])
        padded = F.pad(planes, (radius, radius, radius, radius), mode="reflect")
        rows = F.conv2d(padded, weights.view(1, 1, 1, -1))
        return F.conv2d(rows, weights.view(1, 1, -1, 1)).reshape(images.shape)


MAX_PRODUCT_SIDE = 512
"""Side of images in pixels up to which a blur by two matrix products is faster than one by two convolutions."""


def _blur_weights(radius: int, sigma: float) -> Tensor:
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64, device="cpu")
    return torch.softmax(-0.5 * (offsets / sigma) ** 2, 0)


@lru_cache(maxsize=32)
def _blur_matrix(length: int, radius: int, sigma: float) -> Tensor:
    """Return the matrix (length, length), float64, that blurs a line of pixels as line @ matrix."""
    with torch.inference_mode(False), torch.no_grad():  # a later call may need gradients through the cached matrix
        lines = F.pad(torch.eye(length, dtype=torch.float64, device="cpu")[:, None], (radius, radius), mode="reflect")
        return F.conv1d(lines, _blur_weights(radius, sigma).view(1, 1, -1))[:, 0]


def default_blur(images: Tensor) -> Tensor:
    """Blur images as the default baseline does, with σ = 10 px per 112 px of width.

    Args:
        images: Images of shape (..., H, W).

    Returns:
        Blurred images of the same shape, dtype and device.

    Example:
        >>> default_blur(torch.zeros(2, 3, 112, 112)).shape
        torch.Size([2, 3, 112, 112])
    """
    return gaussian_blur(images, 10 * images.shape[-1] / 112)


def path_midpoints(n_steps: int) -> list[float]:
    """Return the midpoints of the steps of a path from the baseline (0) to the image (1).

    Args:
        n_steps: Number n of steps.

    Returns:
        Midpoints ``(i + 1/2) / n``, a list of n numbers.

    Example:
        >>> path_midpoints(4)
        [0.125, 0.375, 0.625, 0.875]
    """
    return [(i + 0.5) / n_steps for i in range(n_steps)]


def soft_mask(heights: Tensor, area: float, width: float) -> Tensor:
    r"""Compute a mask with soft edges that covers a given share of the pixels.

    .. math:: m = \sigma\Big(\frac{h - q}{\tau}\Big)

    where the threshold q is set so that the mask has the mean ``area``. Use it to search for a mask by gradient descent on the heights h:
    its gradient keeps the mean constant.

    Args:
        heights: Heights h, shape (N, 1, H, W).
        area: Mean of the mask, in (0, 1).
        width: Width τ of the edges, on the scale of the heights.

    Returns:
        Masks of shape (N, 1, H, W) in [0, 1], differentiable with respect to the heights.

    Example:
        >>> mask = soft_mask(torch.tensor([[[[1.0, 5.0], [2.0, 4.0]]]]), area=0.5, width=0.5)
        >>> print(mask[0, 0].numpy().round(2), round(mask.mean().item(), 2))
        [[0.02 0.98]
         [0.12 0.88]] 0.5
    """
    threshold = mean_threshold(heights.detach(), area, width)
    mask = ((heights.detach() - threshold) / width).sigmoid()
    weights = mask * (1 - mask)
    weights = weights / weights.sum((1, 2, 3), keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
    shift = (weights * (heights - heights.detach())).sum((1, 2, 3), keepdim=True)  # its value is 0, its gradient is not
    return ((heights - threshold - shift) / width).sigmoid()


def mean_threshold(heights: Tensor, area: float, width: float) -> Tensor:
    """Return the threshold at which a soft mask has a certain mean.

    Args:
        heights: Heights, shape (N, 1, H, W).
        area: Mean of the mask, in (0, 1).
        width: Width of the edges, on the scale of the heights.

    Returns:
        Thresholds of shape (N, 1, 1, 1).

    Example:
        >>> round(mean_threshold(torch.tensor([[[[2.0, 4.0]]]]), 0.5, 1.0).item(), 4)
        3.0
    """
    low = heights.amin((1, 2, 3), keepdim=True) - 20 * width
    high = heights.amax((1, 2, 3), keepdim=True) + 20 * width
    for _ in range(30):
        middle = (low + high) / 2
        is_low = ((heights - middle) / width).sigmoid().mean((1, 2, 3), keepdim=True) > area
        low, high = torch.where(is_low, middle, low), torch.where(is_low, high, middle)
    return (low + high) / 2


def bhattacharyya(a: Tensor, b: Tensor | None = None, *, fraction: float = 0.01, seed: int = 0) -> Tensor:
    r"""Compute the overlap of the critical pixels of maps (Bhattacharyya coefficient).

    Use it to compare maps of two images or of two methods. Each map is reduced to the positive values of its top fraction and divided by
    their sum, which gives distributions p and q over the pixels:

    .. math:: BC = \sum_i \sqrt{p_i q_i}

    Source: Bhattacharyya 1943; applied to maps of faces by Borsukiewicz et al., arXiv 2509.17457.

    Args:
        a: Maps (N, H, W) or (N, 1, H, W), or one map (H, W).
        b: Maps to compare with, (M, H, W), or one map (H, W). Default: those of ``a``.
        fraction: Share of the pixels that are kept, in (0, 1]; 1 for whole maps. Default: 0.01.
        seed: Seed of the random order of equal values. Default: 0.

    Returns:
        Coefficients of shape (N, M) in [0, 1], 1 for equal maps and 0 for maps without a common pixel. A scalar tensor for two single maps.

    Raises:
        NoEvidenceError: If a map has no positive value.
        CaptumLeamError: If the maps have different sizes or are not finite.

    See Also:
        * :func:`~captum_leam.patterns.signatures`: Coefficients of many thousand maps.
        * :func:`~captum_leam.patterns.person_specificity`: Coefficients of the same and of different people.

    Example:
        >>> maps = torch.tensor([[[1.0, 1.0, 0.0, 0.0]], [[0.0, 1.0, 1.0, 0.0]], [[0.0, 0.0, 0.0, 1.0]]])
        >>> print(bhattacharyya(maps, fraction=1).numpy().round(2))
        [[1.  0.5 0. ]
         [0.5 1.  0. ]
         [0.  0.  1. ]]
    """
    other = a if b is None else b
    if tuple(a.shape[-2:]) != tuple(other.shape[-2:]):
        raise CaptumLeamError(
            f"Expected maps of one size, got {tuple(a.shape[-2:])} and {tuple(other.shape[-2:])}. Place both on the same image first."
        )
    roots = _root_distribution(a, fraction, seed)
    others = roots if b is None else _root_distribution(b, fraction, seed)
    with own_arithmetic(roots.device):
        table = (roots @ others.T).clamp(0, 1)
    return table[0, 0] if a.ndim == 2 and other.ndim == 2 else table


def _root_distribution(maps: Tensor, fraction: float, seed: int) -> Tensor:
    kept = as_maps(maps) * top_fraction(maps, fraction, seed=seed)
    return torch.sqrt(normalize_sum(kept).flatten(1))
