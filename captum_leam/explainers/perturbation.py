r"""Methods that mask parts of the image and score the rest, without gradients: CorrRISE, RISE and xFace.

Masks have shape (M, H, W). A value of 1 keeps a pixel and 0 makes it black. All images get the same masks in any batch.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_leam._engine.arithmetic import at_least_float32, own_arithmetic, uniform
from captum_leam._engine.checks import all_of_row
from captum_leam.errors import CaptumLeamError
from captum_leam.explainers.base import Explainer, SimilarityMaps, TwoSidedExplainer, as_map_batch, cosines
from captum_leam.objectives import direction

CORRRISE_PATCH = 30 / 112
"""Width of CorrRISE's patches as a share of the image's width."""

XFACE_PATCHES = (7 / 112, 14 / 112, 28 / 112)
"""Widths of xFace's patches as shares of the image's width."""

XFACE_STRIDE = 5 / 112
"""Stride of xFace's patches as a share of the image's width."""


class PerturbationExplainer(Explainer):
    """Base class of methods that score an image under many masks."""

    def _masked_scores(self, row: int, image: Tensor, masks: Tensor, reference: Tensor) -> Tensor:
        """Return the cosines (M,) of one image (1, C, H, W) under masks (M, H, W) to a reference (1, D)."""
        with all_of_row(row):
            embeddings = (self._embed(image * part[:, None].to(image)) for part in torch.split(masks, self._pass_size))
            return torch.cat([cosines(f, direction(f, reference)) for f in embeddings])

    def _single_images(self, images: Tensor, reference: Tensor | None) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yield row, image (1, C, H, W) and reference (1, D) of each image; the own embeddings cost a forward pass."""
        rows = self._embed(images) if reference is None else reference.expand(len(images), -1)
        yield from zip(range(len(images)), torch.split(images, 1), torch.split(rows, 1), strict=True)


class CorrRISE(PerturbationExplainer, TwoSidedExplainer):
    r"""Correlation between the visibility of each pixel and the similarity (CorrRISE).

    CorrRISE covers the image with a few black squares at random positions, many times, and correlates for each pixel whether it was visible
    with the similarity s of the rest to the reference:

    .. math:: M(p) = \mathrm{corr}_i\left(m_i(p),\; \mathrm{rank}(s(x \odot m_i))\right)

    where :math:`m_i` is the i-th mask, 0 in the squares and 1 elsewhere. Positive values support the match, negative values oppose it. Use
    it for models without gradients, such as a remote service. More masks give less noise.

    ``attribute`` returns the signed map in [−1, 1], shape (N, 1, H, W), and ``attribute_both`` its positive and negative parts as
    :class:`SimilarityMaps`.

    Source: Lu, Xu, Ebrahimi, "Towards Visual Saliency Explanations of Face Verification", WACV 2024, arXiv 2305.08546. The paper masks both
    images of a pair. This class computes one of the two maps.

    Args:
        model: Function from images (N, C, H, W) to embeddings (N, D), any callable.
        masks: Number of masks, 3 or more. Each takes one forward pass. Default: 500.
        patches: Number of black squares in each mask, 1 or more. Default: 3.
        patch: Width of a square in pixels, from 1 to the shorter side of the image. Default: 30 px per 112 px of the image's width.
        seed: Seed of the positions. Default: 0.
        batch_size: Maximum number of masked images in one pass. Default: 8.

    Raises:
        CaptumLeamError: If there are too few masks or patches. When called, if a patch is larger than the image.

    Note:
        The correlation is Spearman's. A pixel that is visible in no mask or in all masks gets 0.

    See Also:
        :class:`~captum_leam.explainers.RISE`: Weighted mean instead of a correlation.

    Example:
        The embedding of this model is its pixels, and the reference is bright on the left half only. So the left half supports the match:

        >>> left = torch.zeros(8, 8)
        >>> left[:, :4] = 1
        >>> method = CorrRISE(torch.nn.Flatten(), masks=200, patch=2)
        >>> maps = method.attribute(torch.ones(1, 1, 8, 8), reference=left.flatten())
        >>> [round(half.mean().item(), 2) for half in maps.split(4, dim=3)]  # left, right
        [0.23, -0.22]
        >>> method.cost
        Cost(forwards=200.0, backwards=0.0)
    """

    def __init__(
        self,
        model: Callable[..., Tensor],
        *,
        masks: int = 500,
        patches: int = 3,
        patch: int | None = None,
        seed: int = 0,
        batch_size: int = 8,
    ) -> None:
        super().__init__(model, seed=seed, batch_size=batch_size)
        if masks < 3:
            raise CaptumLeamError(f"Expected masks to be 3 or more, got {masks}.")
        if patches < 1:
            raise CaptumLeamError(f"Expected patches to be 1 or more, got {patches}.")
        self.masks, self.patches, self.patch = masks, patches, patch

    def _both(self, images: Tensor, reference: Tensor | None) -> SimilarityMaps:
        size = (images.shape[2], images.shape[3])
        patch = round(CORRRISE_PATCH * size[1]) if self.patch is None else self.patch
        masks = patch_masks(self.masks, size, patch, self.patches, self.seed).to(at_least_float32(images))
        with torch.no_grad():
            scores = [self._masked_scores(i, x, masks, g) for i, x, g in self._single_images(images, reference)]
        signed = as_map_batch(rank_correlation(torch.stack(scores), masks).to(scores[0]))
        return SimilarityMaps(signed.clamp(min=0), (-signed).clamp(min=0))


class RISE(PerturbationExplainer):
    r"""Randomized input sampling for explanation (RISE): masks weighted by similarity.

    RISE covers a random half of the image, many times, and averages the masks, each weighted by the similarity s of the visible rest to the
    reference:

    .. math:: M(p) = \frac{1}{N\,\bar m} \sum_i s(x \odot m_i)\, m_i(p)

    where :math:`m_i` are N masks, coarse random grids with soft edges, and :math:`\bar m` is the probability that a cell is visible. Pixels
    that are visible when the similarity is high get high values. Use it for models without gradients. Values are comparable within a map
    only, and a low value is no evidence against the match; for signed maps use :class:`CorrRISE`.

    ``attribute`` returns maps at the size of the images, shape (N, 1, H, W).

    Source: Petsiuk, Das, Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box Models", BMVC 2018, equation 6.

    Args:
        model: Function from images (N, C, H, W) to embeddings (N, D), any callable.
        masks: Number of masks, 1 or more. Each takes one forward pass. Default: 500.
        cells: Number of cells of the grid in each direction, 1 or more. Default: 7.
        probability: Probability that a cell is visible, in (0, 1). Default: 0.5.
        seed: Seed of the masks. Default: 0.
        batch_size: Maximum number of masked images in one pass. Default: 8.

    Raises:
        CaptumLeamError: If an argument is out of range.

    See Also:
        :class:`~captum_leam.explainers.CorrRISE`: Rank correlation, with evidence against the match.

    Example:
        The embedding of this model is its pixels, and the reference is bright on the left half only. So the left half supports the match:

        >>> left = torch.zeros(8, 8)
        >>> left[:, :4] = 1
        >>> method = RISE(torch.nn.Flatten(), masks=200, cells=4)
        >>> maps = method.attribute(torch.ones(1, 1, 8, 8), reference=left.flatten())
        >>> [round(half.mean().item(), 2) for half in maps.split(4, dim=3)]  # left, right
        [0.64, 0.57]
        >>> method.cost
        Cost(forwards=200.0, backwards=0.0)
    """

    def __init__(
        self,
        model: Callable[..., Tensor],
        *,
        masks: int = 500,
        cells: int = 7,
        probability: float = 0.5,
        seed: int = 0,
        batch_size: int = 8,
    ) -> None:
        super().__init__(model, seed=seed, batch_size=batch_size)
        if masks < 1:
            raise CaptumLeamError(f"Expected masks to be 1 or more, got {masks}.")
        if cells < 1:
            raise CaptumLeamError(f"Expected cells to be 1 or more, got {cells}.")
        if not 0 < probability < 1:
            raise CaptumLeamError(f"Expected probability to be in (0, 1), got {probability}.")
        self.masks, self.cells, self.probability = masks, cells, probability

    def _signed(self, images: Tensor, reference: Tensor | None) -> Tensor:
        size = (images.shape[2], images.shape[3])
        masks = smooth_masks(self.masks, size, self.cells, self.probability, self.seed).to(at_least_float32(images))
        with torch.no_grad():
            rows = [self._masked_scores(i, x, masks, g) for i, x, g in self._single_images(images, reference)]
        scores = torch.stack(rows)
        with own_arithmetic(scores.device):
            mean = scores @ masks.flatten(1).to(scores) / (self.masks * self.probability)
        return as_map_batch(mean.view(-1, *size))


class XFace(PerturbationExplainer):
    r"""Loss of similarity when a black square covers each place of the image (xFace).

    xFace slides black squares of several sizes over the image, and distributes the fall of the similarity s at each position evenly among
    the covered pixels:

    .. math:: M(p) = \frac{1}{N} \sum_i (1 - m_i(p))\, \frac{s(x) - s(x \odot m_i)}{\mathrm{patch}_i^2}

    where :math:`m_i` are the N masks, 0 in the square and 1 elsewhere. Positive values support the match, negative values oppose it. Use it
    for models without gradients if results should not depend on random masks. It takes about 1130 forward passes at 112 px.

    ``attribute`` returns signed maps at the size of the images, shape (N, 1, H, W).

    Source: Knoche, Teepe, Hörmann, Rigoll, "Explainable Model-Agnostic Similarity and Confidence in Face Verification", WACV workshops
    2023, arXiv 2211.13735. The paper masks the partner, too.

    Args:
        model: Function from images (N, C, H, W) to embeddings (N, D), any callable.
        patches: Widths of the squares in pixels. Default: 7, 14 and 28 px per 112 px of the image's width.
        stride: Distance between neighbouring positions in pixels. Default: 5 px per 112 px of the image's width.
        seed: Not used; the method is deterministic. Default: 0.
        batch_size: Maximum number of masked images in one pass. Default: 8.

    Raises:
        CaptumLeamError: When called, if the stride or a width is below 1 px, or a square is as large as the image.

    See Also:
        :class:`~captum_leam.explainers.CorrRISE`: Random masks instead of all positions.

    Example:
        The embedding of this model is its pixels, and the reference is bright on the left half only. So the left half supports the match:

        >>> left = torch.zeros(8, 8)
        >>> left[:, :4] = 1
        >>> method = XFace(torch.nn.Flatten(), patches=(2,), stride=1)
        >>> maps = method.attribute(torch.ones(1, 1, 8, 8), reference=left.flatten())
        >>> [round(half.mean().item(), 4) for half in maps.split(4, dim=3)]  # left, right
        [0.0011, -0.0002]
        >>> method.cost
        Cost(forwards=37.0, backwards=0.0)
    """

    def __init__(
        self,
        model: Callable[..., Tensor],
        *,
        patches: tuple[int, ...] | None = None,
        stride: int | None = None,
        seed: int = 0,
        batch_size: int = 8,
    ) -> None:
        super().__init__(model, seed=seed, batch_size=batch_size)
        self.patches, self.stride = patches, stride

    def _signed(self, images: Tensor, reference: Tensor | None) -> Tensor:
        size = (images.shape[2], images.shape[3])
        patches = self.patches or tuple(max(1, round(share * size[1])) for share in XFACE_PATCHES)
        stride = self.stride or max(1, round(XFACE_STRIDE * size[1]))
        masks = sliding_masks(size, patches, stride).to(at_least_float32(images))
        squares = (1 - masks).flatten(1)
        weights = squares / squares.sum(1, keepdim=True) / len(masks)
        drops = []
        with torch.no_grad():
            for i, x, g in self._single_images(images, reference):
                unmasked = self._masked_scores(i, x, torch.ones_like(masks[:1]), g)
                drops.append(unmasked - self._masked_scores(i, x, masks, g))
        with own_arithmetic(images.device):
            maps = torch.stack(drops) @ weights.to(drops[0])
        return as_map_batch(maps.view(-1, *size))


# -- masks ---------------------------------------------------------------------------------------------


def patch_masks(count: int, size: tuple[int, int], patch: int, patches: int, seed: int) -> Tensor:
    """Return masks with black squares at random positions inside the image, which may overlap.

    Args:
        count: Number M of masks.
        size: Height and width (H, W) of the image in pixels.
        patch: Width of a square in pixels.
        patches: Number of squares in each mask.
        seed: Seed of the positions.

    Returns:
        Masks of shape (M, H, W), 0 in the squares and 1 elsewhere.

    Raises:
        CaptumLeamError: If a square is larger than the image.

    Example:
        >>> patch_masks(2, (8, 8), 3, 1, seed=0).sum((1, 2)).tolist()
        [55.0, 55.0]
    """
    if not 1 <= patch <= min(size):
        raise CaptumLeamError(f"Expected patch to be a width from 1 to {min(size)} px, got {patch}.")
    generator = torch.Generator().manual_seed(seed)
    tops, lefts = (torch.randint(s - patch + 1, (count, patches, 1), generator=generator, device="cpu") for s in size)
    rows, columns = (torch.arange(s, device="cpu") for s in size)
    in_rows = (rows >= tops) & (rows < tops + patch)
    in_columns = (columns >= lefts) & (columns < lefts + patch)
    return 1 - (in_rows[:, :, :, None] & in_columns[:, :, None, :]).any(1).float()


def smooth_masks(count: int, size: tuple[int, int], cells: int, probability: float, seed: int) -> Tensor:
    """Return the masks of RISE, random grids with soft edges.

    Args:
        count: Number M of masks.
        size: Height and width (H, W) of the image in pixels.
        cells: Number of cells of the grid in each direction.
        probability: Probability that a cell is visible.
        seed: Seed of grids and shifts.

    Returns:
        Masks of shape (M, H, W) in [0, 1].

    Example:
        >>> smooth_masks(3, (8, 8), 4, 0.5, seed=0).shape
        torch.Size([3, 8, 8])
    """
    generator = torch.Generator().manual_seed(seed)
    height, width = (-(-s // cells) for s in size)  # of a cell in pixels, rounded up so that the grid covers the image
    grids = (uniform((count, 1, cells, cells), generator) < probability).float()
    enlarged = F.interpolate(grids, ((cells + 1) * height, (cells + 1) * width), mode="bilinear", align_corners=False)
    tops, lefts = (torch.randint(s, (count,), generator=generator, device="cpu").tolist() for s in (height, width))
    shifted = [m[0, t : t + size[0], s : s + size[1]] for m, t, s in zip(enlarged, tops, lefts, strict=True)]
    return torch.stack(shifted)


def sliding_masks(size: tuple[int, int], patches: tuple[int, ...], stride: int) -> Tensor:
    """Return the masks of xFace, one for each position of black squares of several widths.

    Args:
        size: Height and width (H, W) of the image in pixels.
        patches: Widths of the squares in pixels.
        stride: Distance between neighbouring positions in pixels.

    Returns:
        Masks of shape (M, H, W), 0 in the square and 1 elsewhere. M is 1130 for the paper's widths on 112 px.

    Raises:
        CaptumLeamError: If the stride or a width is below 1 px, or a square is as large as the image.

    Example:
        >>> len(sliding_masks((112, 112), (7, 14, 28), 5))
        1130
    """
    if stride < 1:
        raise CaptumLeamError(f"Expected stride to be 1 px or more, got {stride}.")
    if not patches or min(patches) < 1 or max(patches) >= min(size):
        raise CaptumLeamError(
            f"Expected every value of `patches` to be at least 1 px and below {min(size)} px, the shorter side of the image, "
            f"got {patches}."
        )
    squares = [(p, t, s) for p in patches for t in range(0, size[0] - p, stride) for s in range(0, size[1] - p, stride)]
    masks = torch.ones(len(squares), *size, device="cpu", dtype=torch.float32)
    for mask, (patch, top, left) in zip(masks, squares, strict=True):
        mask[top : top + patch, left : left + patch] = 0
    return masks


# -- statistics ----------------------------------------------------------------------------------------


def ranks(values: Tensor) -> Tensor:
    """Return ranks from 1 along the last axis in float64, with the mean rank for equal values.

    Args:
        values: Values of any shape.

    Example:
        >>> ranks(torch.tensor([0.3, 0.1, 0.3])).tolist()
        [2.5, 1.0, 2.5]
    """
    below = (values[..., None] > values[..., None, :]).sum(-1)
    equal = (values[..., None] == values[..., None, :]).sum(-1)
    return below + (equal.double() + 1) / 2


def rank_correlation(scores: Tensor, masks: Tensor) -> Tensor:
    """Return Spearman's rank correlation of scores and binary masks for each pixel.

    Args:
        scores: Scores of shape (N, M), one row per image.
        masks: Masks of shape (M, H, W) with at most two values.

    Returns:
        Correlations of shape (N, H, W) in [−1, 1], float64. They are 0 where the mask or the scores are constant.

    Example:
        >>> masks = torch.tensor([[[0.0, 1.0, 1.0]], [[1.0, 0.0, 1.0]], [[1.0, 0.0, 1.0]]])
        >>> rank_correlation(torch.tensor([[0.1, 0.5, 0.9]]), masks).round(decimals=3).tolist()
        [[[0.866, -0.866, 0.0]]]
    """
    ranked, pixels = ranks(scores), masks.double().flatten(1)
    ranked = ranked - ranked.mean(1, keepdim=True)
    pixels = pixels - pixels.mean(0)
    lengths = ranked.norm(dim=1)[:, None] * pixels.norm(dim=0)
    correlation = torch.where(lengths > 1e-9, ranked @ pixels / lengths, 0.0)
    return correlation.clamp(-1, 1).view(len(scores), *masks.shape[1:])
