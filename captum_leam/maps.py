r"""Pure functions on attribution maps: weighting, placing, normalising, ranking, averaging.

A *layer map* has shape (N, 1, h, w), is signed and on the raw scale of the objective. A *map* has the size
of the image, shape (N, H, W). Nothing here knows about models.
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
from captum_leam._engine.checks import caller_rows
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
    """Return the gradients as they are (HiResCAM's weighting; LEAM's default)."""
    return gradients


def positive_weights(gradients: Tensor) -> Tensor:
    """Keep positive gradients only (LayerCAM, Jiang et al. 2021, equation 6)."""
    return gradients.clamp(min=0)


def channel_weights(gradients: Tensor) -> Tensor:
    """Return one weight per channel, its mean over all positions (Grad-CAM, Selvaraju et al. 2017, equation 1)."""
    return gradients.mean(dim=tuple(range(2, gradients.ndim)), keepdim=True)


WEIGHTINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "elementwise": elementwise_weights,
    "positive": positive_weights,
    "channel": channel_weights,
}


def weigh(
    gradients: Tensor, activations: Tensor, weighting: str = "elementwise", *, sum_channels: bool = True
) -> Tensor:
    r"""Layer map :math:`M = \sum_c w(G)_c \odot A_c`.

    Args:
        gradients: :math:`G = \partial s / \partial A`, shape (N, C, h, w).
        activations: :math:`A` (or a difference of activations), shape (N, C, h, w).
        weighting: ``"elementwise"``, ``"positive"`` or ``"channel"``.
        sum_channels: False keeps the channels.

    Returns:
        Shape (N, 1, h, w), or (N, C, h, w) without the sum; signed.

    Example:
        >>> gradients = torch.tensor([[[[1.0, -1.0]], [[2.0, 0.0]]]])
        >>> activations = torch.tensor([[[[3.0, 3.0]], [[1.0, 5.0]]]])
        >>> weigh(gradients, activations).tolist()
        [[[[5.0, -3.0]]]]
        >>> weigh(gradients, activations, "channel").tolist()
        [[[[1.0, 5.0]]]]
    """
    product = WEIGHTINGS[weighting](gradients) * activations
    return product.sum(dim=1, keepdim=True) if sum_channels else product


# -- from a layer map to a map of the image ------------------------------------------------------------


def as_maps(maps: Tensor | ArrayLike) -> Tensor:
    """Bring (H, W), (N, H, W) or (N, 1, H, W) to (N, H, W), float32 or float64, and refuse what cannot be ranked.

    Half precision becomes float32: the sum of a map overflows in float16, and bfloat16 has 256 values between two powers of two.

    Raises:
        CaptumLeamError: for another shape, or NaN or infinite values.

    Example:
        >>> as_maps(torch.ones(2, 1, 4, 4)).shape
        torch.Size([2, 4, 4])
    """
    maps = as_tensor(maps)
    given = tuple(maps.shape)
    if maps.ndim == 2:
        maps = maps[None]
    elif maps.ndim == 4 and maps.shape[1] == 1:
        maps = maps[:, 0]
    if maps.ndim != 3:
        raise CaptumLeamError(
            f"maps have shape {given}; expected (N, H, W) or (N, 1, H, W): sum or take one channel first."
        )
    maps = at_least_float32(maps)
    if not bool(torch.isfinite(maps).all()):
        bad = caller_rows((~torch.isfinite(maps)).flatten(1).any(1).nonzero().flatten().tolist())
        raise CaptumLeamError(
            f"maps {bad} hold NaN or infinite values, which cannot be ranked; leave these images out."
        )
    return maps


def place_on_field(maps: Tensor, size: tuple[int, int], field: Field | None = None) -> Tensor:
    """Bring layer maps to image size: bilinear to the field the network reads, zero outside.

    Args:
        maps: layer maps, shape (N, 1, h, w) or (N, h, w).
        size: (H, W) of the image.
        field: (top, left, height, width) of the part that the network reads; the whole image by default.

    Returns:
        Shape (N, H, W).

    Raises:
        CaptumLeamError: if the field does not lie inside the image.

    Example:
        >>> placed = place_on_field(torch.ones(1, 1, 7, 6), (112, 112), field=(0, 8, 112, 96))
        >>> placed.shape, placed[0, 0, 7:9].tolist()
        (torch.Size([1, 112, 112]), [0.0, 1.0])
    """
    maps = as_maps(maps)
    top, left, height, width = field or (0, 0, *size)
    if min(top, left) < 0 or min(height, width) < 1 or top + height > size[0] or left + width > size[1]:
        raise CaptumLeamError(
            f"field (top, left, height, width) = {field} does not lie inside the image of size {size}."
        )
    on_field = F.interpolate(maps[:, None], (height, width), mode="bilinear", align_corners=False)[:, 0]
    return F.pad(on_field, (left, size[1] - left - width, top, size[0] - top - height))


def overall_map(
    maps: Sequence[Tensor],
    size: tuple[int, int],
    field: Field | None = None,
    weights: Sequence[float] | None = None,
) -> Tensor:
    r"""Average of the positive parts of several layer maps, each placed on the image and divided by its sum.

    Args:
        maps: layer maps, each (N, 1, h, w), usually one layer for every spatial size.
        size: (H, W) of the image.
        field: the part that the network reads, see :func:`place_on_field`.
        weights: one weight for every layer; equal by default.

    Returns:
        Shape (N, H, W), not negative; every image sums to 1.

    Raises:
        CaptumLeamError: without layers, for layers that disagree on N, or for a map without any positive value.

    Example:
        >>> coarse, fine = torch.rand(2, 1, 7, 7), torch.rand(2, 1, 28, 28)
        >>> overall = overall_map([coarse, fine], (112, 112))
        >>> overall.shape, overall.sum((1, 2)).round(decimals=4).tolist()
        (torch.Size([2, 112, 112]), [1.0, 1.0])
    """
    if isinstance(maps, Tensor) or not maps:
        raise CaptumLeamError("overall_map takes a list of layer maps, one tensor for every layer.")
    shares = torch.tensor([1.0] * len(maps) if weights is None else list(weights), device="cpu", dtype=torch.float64)
    if len(shares) != len(maps) or bool((shares < 0).any()) or not bool(shares.sum() > 0):
        raise CaptumLeamError(f"weights {weights} do not fit {len(maps)} layers: one number ≥ 0 each, not all 0.")
    if len({len(m) for m in maps}) != 1:
        raise CaptumLeamError(f"layer maps disagree on the number of images: {[len(m) for m in maps]}.")
    shares = shares / shares.sum()
    placed = (
        share * normalize_sum(place_on_field(m, size, field)) for m, share in zip(maps, shares.tolist(), strict=True)
    )
    return torch.stack(list(placed)).sum(0)


# -- normalisations ------------------------------------------------------------------------------------


def normalize_sum(maps: Tensor) -> Tensor:
    """Positive part of every map, divided by its sum: a distribution over pixels.

    Args:
        maps: shape (N, H, W) or (N, 1, H, W).

    Returns:
        Shape (N, H, W), sums to 1.

    Raises:
        NoEvidenceError: for a map without any positive value (there is no evidence for the match to show).

    Example:
        >>> normalize_sum(torch.tensor([[[1.0, -5.0], [0.0, 3.0]]])).tolist()
        [[[0.25, 0.0], [0.0, 0.75]]]
    """
    shares, has_positive = positive_shares(as_maps(maps))
    if not bool(has_positive.all()):
        empty = caller_rows((~has_positive).nonzero().flatten().tolist())
        raise NoEvidenceError(f"maps {empty} have no positive value. Leave these images out.")
    return shares


def positive_shares(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Return the positive part of every map divided by its sum, and which maps have a positive value.

    Args:
        maps: Finite maps (..., H, W), signed.

    Returns:
        Maps (..., H, W) that sum to 1, or are zero where no value is positive; booleans (...).

    Example:
        >>> shares, has_positive = positive_shares(torch.tensor([[[1.0, 3.0]], [[-1.0, 0.0]]]))
        >>> shares.tolist(), has_positive.tolist()
        ([[[0.25, 0.75]], [[0.0, 0.0]]], [True, False])
    """
    positive = maps.clamp(min=0)
    peak = positive.amax((-2, -1), keepdim=True)
    has_positive = peak > 0
    positive = positive / torch.where(has_positive, peak, 1)  # sums of very small values would underflow
    total = positive.sum((-2, -1), keepdim=True)
    return positive / torch.where(has_positive, total, 1), has_positive[..., 0, 0]


def normalize_max(maps: Tensor) -> Tensor:
    """Every map divided by its largest absolute value: signed, within [−1, 1], zero stays zero.

    Args:
        maps: shape (N, H, W) or (N, 1, H, W).

    Returns:
        Shape (N, H, W). A map of zeros stays a map of zeros.

    Example:
        >>> normalize_max(torch.tensor([[[1.0, -4.0], [0.0, 2.0]]])).tolist()
        [[[0.25, -1.0], [0.0, 0.5]]]
    """
    maps = as_maps(maps)
    peak = maps.abs().amax((1, 2), keepdim=True)
    return maps / torch.where(peak > 0, peak, torch.ones_like(peak))


# -- ranking -------------------------------------------------------------------------------------------


def pixel_count(fraction: float, pixels: int) -> int:
    """Return how many pixels a fraction of them is, at least one.

    Example:
        >>> pixel_count(0.01, 112 * 112), pixel_count(1e-9, 100)
        (125, 1)
    """
    return max(1, round(fraction * pixels))


def rank_pixels(maps: Tensor, *, seed: int = 0, start: int = 0) -> Tensor:
    """Return the rank of every pixel within its image, 0 for the highest value; ties by a seeded permutation per image.

    Args:
        maps: Maps (N, H, W) or (N, 1, H, W).
        seed: Seed of the tie-breaking permutations. Image ``i`` always gets the same one, whatever the batch. Default: 0.
        start: Number of the first image, for batches of a larger set. Default: 0.

    Returns:
        Shape (N, H, W), int64, on the device of the maps.

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
    drawn = draw_by_image(
        lambda generator, row: torch.randperm(pixels, generator=generator, device="cpu"),
        ("permutation", pixels),
        seed,
        count,
        start,
    )
    return torch.stack(drawn).to(flat.device) if drawn else flat.long()


def _order_by_value(flat: Tensor, permutations: Tensor) -> Tensor:
    """Return the pixels of (N, P) from the highest to the lowest value, equal ones in the order of the permutations."""
    by_value = flat.gather(1, permutations).argsort(dim=1, descending=True, stable=True)
    return permutations.gather(1, by_value)


def top_pixels(maps: Tensor, counts: Sequence[int], *, seed: int = 0, start: int | None = None) -> Tensor:
    """Return the highest pixels of every map, ordered such that for each count the first so many are the highest.

    Much faster than :func:`rank_pixels`: pixels are selected, not sorted.

    Args:
        maps: Maps (N, P) without NaN.
        counts: Numbers of pixels that will be used; as many as the largest are returned.
        seed: Seed of the permutations that break ties at one of the counts. Default: 0.
        start: Number of the first image, if each has a permutation of its own as in :func:`rank_pixels`. Default: None, one permutation
            for all, so that a map's pixels do not depend on its place among the others.

    Returns:
        Indices (N, max(counts)), int64.

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
    """Return the top pixels and which maps have ties at a cut, by selection, which is fast on a CPU."""
    order, is_tied = np.arange(largest)[None].repeat(len(maps), 0), np.zeros(len(maps), np.bool_)
    values = -maps  # the many zeros of a map then come last, where they cost little
    for count in cuts:
        width = values.shape[1]
        selected = np.argpartition(values, count, axis=1)  # above the cut, the one below it, the rest
        ends = np.take_along_axis(values, selected[:, : count + 1], 1)
        values = np.ascontiguousarray(ends[:, :count])
        is_tied |= values.max(1) == ends[:, count]
        if count < largest:  # the pixels of the larger cut, these first
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
    """Return the critical pixels: the top fraction of every map by rank within the image.

    Args:
        maps: shape (N, H, W) or (N, 1, H, W).
        fraction: of the crop, or of ``within``; in (0, 1]. At least one pixel is taken.
        within: boolean (N, H, W) or (H, W), for example the face: only these pixels count.
        seed: Seed of the permutations, one per image, that break ties. Default: 0.
        start: Number of the first image, see :func:`rank_pixels`. Default: 0.

    Returns:
        Boolean masks, shape (N, H, W), with exactly ``max(1, round(fraction · pixels))`` pixels each.

    Raises:
        CaptumLeamError: for a fraction outside (0, 1], or an image where ``within`` is empty.

    Example:
        >>> top_fraction(torch.arange(16.0).view(1, 4, 4), 0.125).long()
        tensor([[[0, 0, 0, 0],
                 [0, 0, 0, 0],
                 [0, 0, 0, 0],
                 [0, 0, 1, 1]]])
    """
    if not 0 < fraction <= 1:
        raise CaptumLeamError(
            f"fraction is {fraction}; expected a share of the pixels in (0, 1], for example 0.01 for 1 %."
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
            f"`within` is empty for images {caller_rows((pixels == 0).nonzero().flatten().tolist())}."
        )
    # what lies outside is ranked behind everything inside, whatever its value
    ranks = rank_pixels(maps, seed=seed, start=start).masked_fill(~within, maps[0].numel()).neg().double()
    ranks = rank_pixels(ranks, seed=seed, start=start)
    counts = (fraction * pixels.double()).round().clamp(min=1)
    return ranks < counts[:, None, None]


# -- smoothing -----------------------------------------------------------------------------------------


def gaussian_blur(images: Tensor, sigma: float, kernel: int | None = None) -> Tensor:
    """Gaussian blur with reflected borders, one axis after the other.

    torchvision's convolves with the full two-dimensional kernel, 20 times the work at the kernel of 41
    that the fills and the path baseline use; a test checks that both give the same numbers. Of crops, each axis is one
    matrix product, which is several times faster again.

    Args:
        images: shape (..., H, W).
        sigma: standard deviation in pixels; 0 returns the images.
        kernel: odd width in pixels; by default two standard deviations to both sides (41 for σ = 10).

    Returns:
        The shape and kind of the images.

    Example:
        >>> spot = torch.zeros(1, 1, 9, 9); spot[..., 4, 4] = 1
        >>> blurred = gaussian_blur(spot, 1.0)
        >>> round(blurred.sum().item(), 4), round(blurred.max().item(), 4)
        (1.0, 0.1621)
    """
    if sigma < 0:
        raise CaptumLeamError(f"sigma is {sigma}; expected a standard deviation ≥ 0 in pixels.")
    if sigma == 0:
        return images
    radius = max(1, round(2 * sigma)) if kernel is None else kernel // 2
    radius = min(radius, min(images.shape[-2:]) - 1)  # a reflection cannot be wider than the image
    with own_arithmetic(images.device):
        if max(images.shape[-2:]) <= LARGEST_AS_PRODUCT:
            down, across = (_blur_matrix(length, radius, sigma).to(images) for length in images.shape[-2:])
            return torch.matmul(torch.matmul(down.T, images), across)
        weights = _blur_weights(radius, sigma).to(images)
        planes = images.reshape(-1, 1, *images.shape[-2:])
        padded = F.pad(planes, (radius, radius, radius, radius), mode="reflect")
        rows = F.conv2d(padded, weights.view(1, 1, 1, -1))
        return F.conv2d(rows, weights.view(1, 1, -1, 1)).reshape(images.shape)


LARGEST_AS_PRODUCT = 512  # side up to which a blur as two matrix products is faster than as two convolutions


def _blur_weights(radius: int, sigma: float) -> Tensor:
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64, device="cpu")
    return torch.softmax(-0.5 * (offsets / sigma) ** 2, 0)


@lru_cache(maxsize=32)
def _blur_matrix(length: int, radius: int, sigma: float) -> Tensor:
    """Return the blur of a line of pixels as a matrix (length, length), float64: line @ matrix."""
    with torch.inference_mode(False), torch.no_grad():  # it is kept, and the next call may want gradients through it
        lines = F.pad(torch.eye(length, dtype=torch.float64, device="cpu")[:, None], (radius, radius), mode="reflect")
        return F.conv1d(lines, _blur_weights(radius, sigma).view(1, 1, -1))[:, 0]


def default_blur(images: Tensor) -> Tensor:
    """Return the blur of the path baseline and of the blur fill: σ = 10 px on a crop of 112 px, scaled with its width.

    Example:
        >>> default_blur(torch.rand(2, 3, 112, 112)).shape
        torch.Size([2, 3, 112, 112])
    """
    return gaussian_blur(images, 10 * images.shape[-1] / 112)


def path_midpoints(n_steps: int) -> list[float]:
    """Return the midpoints ``(i + ½) / n`` of the path from the baseline (0) to the image (1).

    Example:
        >>> path_midpoints(4)
        [0.125, 0.375, 0.625, 0.875]
    """
    return [(i + 0.5) / n_steps for i in range(n_steps)]


def soft_mask(heights: Tensor, area: float, width: float) -> Tensor:
    r"""Mask with soft edges and a given mean.

    With :math:`w = m (1 - m)`, the threshold that keeps the mean moves by the w-weighted mean of the heights' changes; that is the gradient
    it is given.

    Args:
        heights: (N, 1, H, W).
        area: mean of the mask, in (0, 1).
        width: τ, of the edges.

    Returns:
        (N, 1, H, W), within [0, 1]. Its gradient with respect to the heights leaves the mean as it is.

    Example:
        >>> heights = torch.tensor([[[[1.0, 5.0], [2.0, 4.0]]]], requires_grad=True)
        >>> mask = soft_mask(heights, 0.25, 1.0)
        >>> round(mask.mean().item(), 4), torch.autograd.grad(mask.sum(), heights)[0].abs().max().item() < 1e-6
        (0.25, True)
    """
    threshold = mean_threshold(heights.detach(), area, width)
    mask = ((heights.detach() - threshold) / width).sigmoid()
    weights = mask * (1 - mask)
    weights = weights / weights.sum((1, 2, 3), keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
    moves = (weights * (heights - heights.detach())).sum((1, 2, 3), keepdim=True)  # 0, with a gradient
    return ((heights - threshold - moves) / width).sigmoid()


def mean_threshold(heights: Tensor, area: float, width: float) -> Tensor:
    """Return the threshold at which a soft mask has a given mean, by 30 bisections; (N, 1, 1, 1).

    Example:
        >>> round(mean_threshold(torch.tensor([[[[2.0, 4.0]]]]), 0.5, 1.0).item(), 4)
        3.0
    """
    low = heights.amin((1, 2, 3), keepdim=True) - 20 * width
    high = heights.amax((1, 2, 3), keepdim=True) + 20 * width
    for _ in range(30):
        middle = (low + high) / 2
        too_many = ((heights - middle) / width).sigmoid().mean((1, 2, 3), keepdim=True) > area
        low, high = torch.where(too_many, middle, low), torch.where(too_many, high, middle)
    return (low + high) / 2


def bhattacharyya(a: Tensor, b: Tensor | None = None, *, fraction: float = 0.01, seed: int = 0) -> Tensor:
    r"""Bhattacharyya coefficient :math:`\sum_i \sqrt{p_i q_i}` of maps, each kept to its top fraction, summing to 1.

    Source: Bhattacharyya 1943; used on maps of faces by Borsukiewicz et al., arXiv 2509.17457.

    Args:
        a: maps (N, H, W) or (N, 1, H, W), or one map (H, W); the positive part counts.
        b: maps to compare with, (M, H, W) or one (H, W); by default those of ``a``.
        fraction: of the pixels kept; 1 for dense maps.
        seed: of the tie-breaking, see :func:`~captum_leam.top_fraction`.

    Returns:
        Every map with every map, (N, M), within [0, 1]: 1 for equal maps, 0 for maps without a common pixel. For two
        single maps, one number.

    Raises:
        CaptumLeamError: for maps of different size, NaN, or a map without any positive value.

    Example:
        >>> left, right = torch.zeros(4, 4), torch.zeros(4, 4)
        >>> left[0, 0], right[3, 3] = 1.0, 1.0
        >>> bhattacharyya(left, left, fraction=0.1).item(), bhattacharyya(left, right, fraction=0.1).item()
        (1.0, 0.0)
    """
    other = a if b is None else b
    if tuple(a.shape[-2:]) != tuple(other.shape[-2:]):
        raise CaptumLeamError(
            f"maps have sizes {tuple(a.shape[-2:])} and {tuple(other.shape[-2:])}; expected one aligned grid."
        )
    roots = _root_distribution(a, fraction, seed)
    others = roots if b is None else _root_distribution(b, fraction, seed)
    with own_arithmetic(roots.device):
        table = (roots @ others.T).clamp(0, 1)
    return table[0, 0] if a.ndim == 2 and other.ndim == 2 else table


def _root_distribution(maps: Tensor, fraction: float, seed: int) -> Tensor:
    kept = as_maps(maps) * top_fraction(maps, fraction, seed=seed)
    return torch.sqrt(normalize_sum(kept).flatten(1))
