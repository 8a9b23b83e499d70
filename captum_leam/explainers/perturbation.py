r"""Methods that hide parts of the image and watch the cosine: CorrRISE, RISE and xFace. They need no gradients.

Masks have shape (M, H, W): 1 shows a pixel, 0 makes it black. All images get the same masks, whatever the batch.
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

BLACK_PATCH = 30 / 112
"""Width of CorrRISE's patches in widths of the image."""

XFACE_PATCHES = (7 / 112, 14 / 112, 28 / 112)
"""Widths of xFace's squares in widths of the image."""

XFACE_STRIDE = 5 / 112
"""xFace's stride in widths of the image."""


class Masking(Explainer):
    """A method that scores one image under many masks; subclasses say which masks, and what the scores mean."""

    def _masked_scores(self, row: int, image: Tensor, masks: Tensor, reference: Tensor) -> Tensor:
        """Cosines (M,) of one image (1, C, H, W) under masks (M, H, W) to a reference (1, D), a batch of them at a time."""
        with all_of_row(row):
            embeddings = (self._embed(image * part[:, None].to(image)) for part in torch.split(masks, self._at_once))
            return torch.cat([cosines(f, direction(f, reference)) for f in embeddings])

    def _each(self, images: Tensor, reference: Tensor | None) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Rows, single images and their references; only where there is none does that cost a pass."""
        rows = self._embed(images) if reference is None else reference.expand(len(images), -1)
        yield from zip(range(len(images)), torch.split(images, 1), torch.split(rows, 1), strict=True)


class CorrRISE(Masking, TwoSidedExplainer):
    r"""CorrRISE: per pixel, the rank correlation of being shown and the score, over random black patches.

    .. math:: M(p) = \mathrm{corr}_i\left(m_i(p),\; \mathrm{rank}(s(x \odot m_i))\right)

    over N masks with three black squares of 30 px (on crops of 112 px) each. A mask has two values, so Spearman's coefficient is the
    correlation of its values with the ranks of the scores (ties get their mean rank), for all pixels in one matrix product. A pixel
    that no mask, or every mask, hides gets 0. Positive: similar, negative: dissimilar.

    Source: Lu, Xu, Ebrahimi, "Towards Visual Saliency Explanations of Face Verification", WACV 2024, arXiv 2305.08546. The paper masks both
    images of a pair, N times each; this is one of the two maps.

    Args:
        model: images to embeddings; any callable.
        masks: N.
        patches: black squares in every mask.
        patch: width of a square in pixels; 30 px per 112 px of the image's width by default.
        seed: of the places.
        batch_size: masked images in one pass.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 8)).eval()
        >>> method = CorrRISE(model, masks=40)
        >>> both = method.attribute_both(torch.rand(2, 3, 8, 8), reference=torch.randn(2, 8))
        >>> bool(both.similar.max() <= 1), method.cost
        (True, Cost(forwards=40.0, backwards=0.0))
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
        if masks < 3 or patches < 1:
            raise CaptumLeamError(f"masks is {masks}, patches {patches}; expected 3 masks or more of 1 patch or more.")
        self.masks, self.patches, self.patch = masks, patches, patch

    def _both(self, images: Tensor, reference: Tensor | None) -> SimilarityMaps:
        size = (images.shape[2], images.shape[3])
        patch = round(BLACK_PATCH * size[1]) if self.patch is None else self.patch
        masks = patch_masks(self.masks, size, patch, self.patches, self.seed).to(at_least_float32(images))
        with torch.no_grad():
            scores = [self._masked_scores(i, x, masks, g) for i, x, g in self._each(images, reference)]
        signed = as_map_batch(rank_correlation(torch.stack(scores), masks).to(scores[0]))
        return SimilarityMaps(signed.clamp(min=0), (-signed).clamp(min=0))


class RISE(Masking):
    r"""RISE: the mean of random smooth masks, weighted by the score of what they show.

    .. math:: M(p) = \frac{1}{N\,\bar m} \sum_i s(x \odot m_i)\, m_i(p)

    with :math:`\bar m` the share of cells that are shown. Masks are grids of random cells, enlarged bilinearly and moved at random by
    less than a cell. The map tells what raises the score; where it is low, nothing speaks against the match.

    Source: Petsiuk, Das, Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box Models", BMVC 2018, equation 6.

    Args:
        model: images to embeddings; any callable.
        masks: N.
        cells: of the grid, in each direction.
        shown: probability that a cell is shown.
        seed: of the masks.
        batch_size: masked images in one pass.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 8)).eval()
        >>> method = RISE(model, masks=40, cells=4)
        >>> method.attribute(torch.rand(2, 3, 8, 8), reference=torch.randn(2, 8)).shape, method.cost
        (torch.Size([2, 1, 8, 8]), Cost(forwards=40.0, backwards=0.0))
    """

    def __init__(
        self,
        model: Callable[..., Tensor],
        *,
        masks: int = 500,
        cells: int = 7,
        shown: float = 0.5,
        seed: int = 0,
        batch_size: int = 8,
    ) -> None:
        super().__init__(model, seed=seed, batch_size=batch_size)
        if masks < 1 or cells < 1 or not 0 < shown < 1:
            raise CaptumLeamError(
                f"masks is {masks}, cells {cells}, shown {shown}; expected 1 or more masks and cells, and a share within (0, 1)."
            )
        self.masks, self.cells, self.shown = masks, cells, shown

    def _signed(self, images: Tensor, reference: Tensor | None) -> Tensor:
        size = (images.shape[2], images.shape[3])
        masks = smooth_masks(self.masks, size, self.cells, self.shown, self.seed).to(at_least_float32(images))
        with torch.no_grad():
            scores = torch.stack([self._masked_scores(i, x, masks, g) for i, x, g in self._each(images, reference)])
        with own_arithmetic(scores.device):
            mean = scores @ masks.flatten(1).to(scores) / (self.masks * self.shown)
        return as_map_batch(mean.view(-1, *size))


class XFace(Masking):
    r"""xFace: how much the distance grows, per pixel hidden, when black squares of several sizes are slid over the image.

    .. math:: M(p) = \frac{1}{N} \sum_i (1 - m_i(p))\, \frac{d(x \odot m_i) - d(x)}{\mathrm{patch}_i^2}, \qquad d = 1 - s

    over all N positions of squares of 7, 14 and 28 px in steps of 5 px (on crops of 112 px), with the partner left as it is. Positive:
    hiding it lowers the similarity. The paper also slides squares over the partner; that needs its image, not its embedding.

    Source: Knoche, Teepe, Hörmann, Rigoll, "Explainable Model-Agnostic Similarity and Confidence in Face Verification", WACV workshops
    2023, arXiv 2211.13735.

    Args:
        model: images to embeddings; any callable.
        patches: widths of the squares in pixels; 7, 14 and 28 px per 112 px by default.
        stride: in pixels; 5 px per 112 px by default.
        seed: not used: nothing is drawn.
        batch_size: masked images in one pass.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 8)).eval()
        >>> method = XFace(model, patches=(2, 4), stride=2)
        >>> method.attribute(torch.rand(2, 3, 8, 8), reference=torch.randn(2, 8)).shape, method.cost
        (torch.Size([2, 1, 8, 8]), Cost(forwards=14.0, backwards=0.0))
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
        hidden = (1 - masks).flatten(1)
        weights = hidden / hidden.sum(1, keepdim=True) / len(masks)
        rises = []
        with torch.no_grad():
            for i, x, g in self._each(images, reference):
                clean = self._masked_scores(i, x, torch.ones_like(masks[:1]), g)
                rises.append(clean - self._masked_scores(i, x, masks, g))
        with own_arithmetic(images.device):
            maps = torch.stack(rises) @ weights.to(rises[0])
        return as_map_batch(maps.view(-1, *size))


# -- masks ---------------------------------------------------------------------------------------------


def patch_masks(count: int, size: tuple[int, int], patch: int, patches: int, seed: int) -> Tensor:
    """Masks with black squares at random places, wholly inside the image; they may overlap.

    Args:
        count: M masks.
        size: (H, W).
        patch: width of a square in pixels.
        patches: squares in every mask.
        seed: of the places.

    Returns:
        (M, H, W), 0 in the squares, 1 elsewhere.

    Raises:
        CaptumLeamError: for squares that do not fit.

    Example:
        >>> patch_masks(2, (8, 8), 3, 1, seed=0).sum((1, 2)).tolist()
        [55.0, 55.0]
    """
    if not 1 <= patch <= min(size):
        raise CaptumLeamError(f"patch is {patch} px; expected a width between 1 and that of the image, {size}.")
    generator = torch.Generator().manual_seed(seed)
    tops, lefts = (torch.randint(s - patch + 1, (count, patches, 1), generator=generator, device="cpu") for s in size)
    rows, columns = (torch.arange(s, device="cpu") for s in size)
    in_rows = (rows >= tops) & (rows < tops + patch)
    in_columns = (columns >= lefts) & (columns < lefts + patch)
    return 1 - (in_rows[:, :, :, None] & in_columns[:, :, None, :]).any(1).float()


def smooth_masks(count: int, size: tuple[int, int], cells: int, share: float, seed: int) -> Tensor:
    """RISE's masks: random grids, enlarged bilinearly, and moved by less than a cell.

    Args:
        count: M masks.
        size: (H, W).
        cells: of the grid, in each direction.
        share: probability that a cell is shown.
        seed: of grids and places.

    Returns:
        (M, H, W), within [0, 1].

    Example:
        >>> smooth_masks(3, (8, 8), 4, 0.5, seed=0).shape
        torch.Size([3, 8, 8])
    """
    generator = torch.Generator().manual_seed(seed)
    height, width = (-(-s // cells) for s in size)  # of a cell, rounded up
    grids = (uniform((count, 1, cells, cells), generator) < share).float()
    enlarged = F.interpolate(grids, ((cells + 1) * height, (cells + 1) * width), mode="bilinear", align_corners=False)
    tops, lefts = (torch.randint(s, (count,), generator=generator, device="cpu").tolist() for s in (height, width))
    cut = [m[0, t : t + size[0], left : left + size[1]] for m, t, left in zip(enlarged, tops, lefts, strict=True)]
    return torch.stack(cut)


def sliding_masks(size: tuple[int, int], patches: tuple[int, ...], stride: int) -> Tensor:
    """One mask for every position of black squares of several widths, as xFace slides them: below size − width.

    Args:
        size: (H, W).
        patches: widths of the squares in pixels.
        stride: in pixels.

    Returns:
        (M, H, W), 0 in the square, 1 elsewhere; 1130 for the paper's widths on 112 px.

    Raises:
        CaptumLeamError: for squares as large as the image.

    Example:
        >>> len(sliding_masks((112, 112), (7, 14, 28), 5))
        1130
    """
    if stride < 1 or not patches or min(patches) < 1 or max(patches) >= min(size):
        raise CaptumLeamError(
            f"patches are {patches} px, stride {stride}; expected widths ≥ 1 below {min(size)}, stride ≥ 1."
        )
    places = [(p, t, s) for p in patches for t in range(0, size[0] - p, stride) for s in range(0, size[1] - p, stride)]
    masks = torch.ones(len(places), *size, device="cpu", dtype=torch.float32)
    for mask, (patch, top, left) in zip(masks, places, strict=True):
        mask[top : top + patch, left : left + patch] = 0
    return masks


# -- statistics ----------------------------------------------------------------------------------------


def ranks(values: Tensor) -> Tensor:
    """Ranks from 1 along the last axis, ties at their mean rank, in float64.

    Example:
        >>> ranks(torch.tensor([0.3, 0.1, 0.3])).tolist()
        [2.5, 1.0, 2.5]
    """
    below = (values[..., None] > values[..., None, :]).sum(-1)
    equal = (values[..., None] == values[..., None, :]).sum(-1)
    return below + (equal.double() + 1) / 2


def rank_correlation(scores: Tensor, masks: Tensor) -> Tensor:
    """Spearman's coefficient of scores and two-valued masks, for every pixel at once.

    Args:
        scores: (N, M), one row per image.
        masks: (M, H, W), of two values at most.

    Returns:
        (N, H, W), float64, within [−1, 1]; 0 where a mask or the scores never change.

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
