r"""Measures of maps against known truth: planted evidence, importance of parts, and a network with additive contributions.

Maps have shape (N, H, W) or (N, 1, H, W), and truths are boolean (N, H, W). Results are one number per image, shape (N,), float64.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from captum_leam._engine.arithmetic import as_array, as_tensor
from captum_leam._engine.checks import caller_rows
from captum_leam.errors import CaptumLeamError
from captum_leam.faithfulness.fills import Fill, as_fill
from captum_leam.maps import as_maps, rank_pixels
from captum_leam.objectives import embed, match_rows, unit
from captum_leam.stats.auc import rank_auc

# -- pixels ----------------------------------------------------------------------------------------------


def pointing_game(maps: Tensor, truth: Tensor, *, tolerance: int = 0, seed: int = 0) -> Tensor:
    """Return whether the highest pixel of each map lies in the ground truth (pointing game).

    Source: Zhang et al., "Top-down neural attention by excitation backprop", IJCV 2018, section 4.1 (tolerance of 15 px on photos).

    Args:
        maps: Maps, shape (N, H, W) or (N, 1, H, W).
        truth: Pixels of the known evidence (ground truth), boolean, shape (N, H, W).
        tolerance: Distance in pixels at which a pixel beside the truth still counts. Default: 0.
        seed: Seed that breaks ties. Default: 0.

    Returns:
        0 or 1 for each image, shape (N,). Chance is the share of the truth in the image.

    Raises:
        CaptumLeamError: If shapes differ, or a ground truth has no pixel or all pixels.

    See Also:
        * :func:`~captum_leam.faithfulness.mass_accuracy`: Share of the positive attribution in the truth.
        * :func:`~captum_leam.faithfulness.rank_accuracy`: Share of the highest pixels in the truth.

    Example:
        >>> truth = torch.tensor([[[True, False], [False, False]]])
        >>> pointing_game(torch.tensor([[[0.9, 0.1], [0.0, 0.3]]]), truth).tolist()
        [1.0]
    """
    maps, truth = _matching(maps, truth)
    near = torch.nn.functional.max_pool2d(truth[:, None].float(), 2 * tolerance + 1, 1, tolerance)[:, 0] > 0
    return ((rank_pixels(maps, seed=seed) == 0) & near).flatten(1).any(1).double()


def mass_accuracy(maps: Tensor, truth: Tensor) -> Tensor:
    """Return the share of the positive attribution that lies in the ground truth.

    Source: Arras et al., "CLEVR-XAI", Information Fusion 2022, equation 2.

    Args:
        maps: Maps, shape (N, H, W) or (N, 1, H, W).
        truth: Pixels of the known evidence (ground truth), boolean, shape (N, H, W).

    Returns:
        Shares in [0, 1], shape (N,); NaN for a map without a positive value. Chance is the share of the truth in the image.

    Raises:
        CaptumLeamError: If shapes differ, or a ground truth has no pixel or all pixels.

    See Also:
        * :func:`~captum_leam.faithfulness.pointing_game`: Whether the highest pixel lies in the truth.
        * :func:`~captum_leam.faithfulness.rank_accuracy`: Share of the highest pixels in the truth.

    Example:
        >>> truth = torch.tensor([[[True, False], [False, False]]])
        >>> mass_accuracy(torch.tensor([[[3.0, 1.0], [-9.0, 0.0]]]), truth).tolist()
        [0.75]
    """
    maps, truth = _matching(maps, truth)
    positive = maps.double().clamp(min=0)
    return (positive * truth).sum((1, 2)) / positive.sum((1, 2))


def rank_accuracy(maps: Tensor, truth: Tensor, *, seed: int = 0) -> Tensor:
    """Return the share of the highest pixels, as many as the ground truth has, that lies in the ground truth.

    Source: Arras et al., "CLEVR-XAI", Information Fusion 2022, equation 3.

    Args:
        maps: Maps, shape (N, H, W) or (N, 1, H, W).
        truth: Pixels of the known evidence (ground truth), boolean, shape (N, H, W).
        seed: Seed that breaks ties. Default: 0.

    Returns:
        Shares in [0, 1], shape (N,). Chance is the share of the truth in the image.

    Raises:
        CaptumLeamError: If shapes differ, or a ground truth has no pixel or all pixels.

    See Also:
        * :func:`~captum_leam.faithfulness.pointing_game`: Whether the highest pixel lies in the truth.
        * :func:`~captum_leam.faithfulness.mass_accuracy`: Share of the positive attribution in the truth.

    Example:
        >>> truth = torch.tensor([[[True, True], [False, False]]])
        >>> rank_accuracy(torch.tensor([[[0.9, 0.1], [0.3, 0.0]]]), truth).tolist()
        [0.5]
    """
    maps, truth = _matching(maps, truth)
    top = rank_pixels(maps, seed=seed) < truth.sum((1, 2))[:, None, None]
    return (top & truth).sum((1, 2)).double() / truth.sum((1, 2))


def iou(maps: Tensor, truth: Tensor, *, seed: int = 0) -> Tensor:
    """Return the intersection over union of the ground truth and equally many of the highest pixels.

    Args:
        maps: Maps, shape (N, H, W) or (N, 1, H, W).
        truth: Pixels of the known evidence (ground truth), boolean, shape (N, H, W).
        seed: Seed that breaks ties. Default: 0.

    Returns:
        Values in [0, 1], shape (N,).

    Raises:
        CaptumLeamError: If shapes differ, or a ground truth has no pixel or all pixels.

    See Also:
        * :func:`~captum_leam.faithfulness.pointing_game`: Whether the highest pixel lies in the truth.
        * :func:`~captum_leam.faithfulness.mass_accuracy`: Share of the positive attribution in the truth.

    Example:
        >>> truth = torch.tensor([[[True, True], [False, False]]])
        >>> round(iou(torch.tensor([[[0.9, 0.1], [0.3, 0.0]]]), truth).item(), 3)
        0.333
    """
    hit = rank_accuracy(maps, truth, seed=seed)
    return hit / (2 - hit)


def roc_auc(maps: Tensor, truth: Tensor) -> Tensor:
    """Return the area under the ROC curve of the map values as a classifier of the ground truth.

    It is the chance that a pixel of the ground truth has a higher value than one outside it, with ties counted half.

    Source: area under the ROC curve, Mann & Whitney 1947.

    Args:
        maps: Maps, shape (N, H, W) or (N, 1, H, W).
        truth: Pixels of the known evidence (ground truth), boolean, shape (N, H, W).

    Returns:
        Areas in [0, 1], shape (N,); 0.5 for a constant map.

    Raises:
        CaptumLeamError: If shapes differ, or a ground truth has no pixel or all pixels.

    See Also:
        * :func:`~captum_leam.faithfulness.pointing_game`: Whether the highest pixel lies in the truth.
        * :func:`~captum_leam.faithfulness.mass_accuracy`: Share of the positive attribution in the truth.

    Example:
        >>> truth = torch.tensor([[[True, True], [False, False]]])
        >>> roc_auc(torch.tensor([[[0.9, 0.1], [0.3, 0.0]]]), truth).tolist()
        [0.75]
    """
    maps, truth = _matching(maps, truth)
    return torch.from_numpy(rank_auc(as_array(maps.flatten(1)), truth.flatten(1).cpu().numpy()))


def _matching(maps: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    maps, truth = as_maps(maps).detach(), as_tensor(truth)
    if truth.dtype != torch.bool or truth.shape != maps.shape:
        raise CaptumLeamError(
            f"Expected `truth` to be boolean of shape {tuple(maps.shape)}, got {truth.dtype} of shape {tuple(truth.shape)}."
        )
    share = truth.flatten(1).double().mean(1)
    flat = caller_rows(((share == 0) | (share == 1)).nonzero().flatten().tolist())
    if flat:
        raise CaptumLeamError(
            f"Expected `truth` to have both True and False pixels in every image, got one value only for images {flat}. Omit these images."
        )
    return maps, truth.to(maps.device)


# -- parts -----------------------------------------------------------------------------------------------


def part_importance(
    model: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    parts: Sequence[int],
    references: Tensor,
    *,
    fill: str | Fill | Callable[..., Tensor] = "blur",
    batch_size: int = 64,
) -> Tensor:
    """Return how much each part of the face matters to a model, the drop of the cosine when the part is occluded.

    Use it as the known truth for maps, see :func:`part_agreement`.

    Args:
        model: Function from images (N, C, H, W) to embeddings (N, D).
        images: Images, shape (N, C, H, W).
        labels: Region labels, integers, shape (N, H, W).
        parts: Labels of the parts, which are occluded one at a time.
        references: Embeddings of other images, shape (D,), (1, D) or (N, D).
        fill: Replacement of occluded pixels: ``"zero"``, ``"mean"``, ``"blur"``, ``"noisy linear"``, ``"shuffle"``, or a function.
            Default: ``"blur"``.
        batch_size: Number of images in one pass. Default: 64.

    Returns:
        Drops in [−2, 2], shape (N, parts), float64; NaN where an image lacks the part.

    See Also:
        :func:`~captum_leam.faithfulness.part_agreement`: Agreement of a map with this importance.

    Example:
        >>> labels = torch.tensor([[[1, 1], [2, 0]]])
        >>> images = torch.ones(1, 1, 2, 2)
        >>> drops = part_importance(lambda x: x.flatten(1), images, labels, [1, 2], torch.ones(4), fill="zero")
        >>> print(drops.numpy().round(3))  # the embedding is the four pixels: part 1 has two of them, and part 2 one
        [[0.293 0.134]]
    """
    labels = as_tensor(labels)
    clean = embed(model, images, batch_size).double()
    towards = unit(match_rows(references, clean, "references"), "references")
    before = (unit(clean, "embeddings") * towards).sum(1)
    replace = as_fill(fill)
    drops = []
    for part in parts:
        mask = (labels == part).to(images.device)
        removed = embed(model, torch.where(mask[:, None], replace(images, mask), images), batch_size).double()
        drop = before - (unit(removed, "embeddings") * towards).sum(1)
        drops.append(drop.masked_fill(~mask.flatten(1).any(1).to(drop.device), float("nan")))
    return torch.stack(drops, 1)


def part_agreement(maps: Tensor, labels: Tensor, parts: Sequence[int], importance: Tensor) -> Tensor:
    """Return how well maps rank the parts of the face by their importance to the model.

    It is Spearman's rank correlation over parts between the positive mass of a map in each part and the importance of the part.

    Args:
        maps: Maps, shape (N, H, W) or (N, 1, H, W).
        labels: Region labels, integers, shape (N, H, W).
        parts: Labels of at least three parts.
        importance: Importance of :func:`part_importance`, shape (N, parts); NaN for parts that an image lacks.

    Returns:
        Correlations in [−1, 1], shape (N,); NaN with fewer than three parts, or if mass or importance is constant.

    Raises:
        CaptumLeamError: If labels or importance have another shape.

    See Also:
        :func:`~captum_leam.faithfulness.part_importance`: Importance of the parts.

    Example:
        >>> labels = torch.tensor([[[0, 1], [2, 2]]])
        >>> maps = torch.tensor([[[0.1, 0.2], [0.2, 0.3]]])
        >>> agreement = part_agreement(maps, labels, [0, 1, 2], torch.tensor([[0.0, 0.3, 0.9]]))
        >>> print(agreement.numpy().round(2))  # the masses of the parts, 0.1, 0.2 and 0.5, are in the same order
        [1.]
    """
    from scipy.stats import spearmanr

    positive = as_maps(maps).detach().double().clamp(min=0)
    labels, importance = as_tensor(labels).to(positive.device), as_tensor(importance)
    if labels.shape != positive.shape or importance.shape != (len(positive), len(parts)):
        raise CaptumLeamError(
            f"Expected `labels` of shape {tuple(positive.shape)} and `importance` of shape {(len(positive), len(parts))}, got "
            f"{tuple(labels.shape)} and {tuple(importance.shape)}."
        )
    mass = torch.stack([(positive * (labels == part)).sum((1, 2)) for part in parts], 1).cpu().numpy()
    out = []
    for of_map, of_model in zip(mass, importance.double().cpu().numpy(), strict=True):
        known = ~np.isnan(of_model)
        is_constant = known.sum() < 3 or np.ptp(of_map[known]) == 0 or np.ptp(of_model[known]) == 0
        out.append(float("nan") if is_constant else spearmanr(of_map[known], of_model[known]).statistic)
    return torch.tensor(out, device="cpu", dtype=torch.float64)


# -- a network with known contributions ------------------------------------------------------------------


class AdditiveSimilarity(nn.Module):
    r"""Model whose cosine to :attr:`reference` is a sum over pixels, so that the contribution of each pixel is known.

    With the mean :math:`g_p` over the channels of pixel p and :math:`s(x) = \sum_p w_p\, g_p`, the embedding is
    :math:`f(x) = (s, \sqrt{1 - s^2})` of length 1, and its cosine to (1, 0) is s(x). Replacing a set S of pixels lowers it by exactly
    :math:`\sum_{p \in S} w_p (g_p - g'_p)`. The layer ``pixels`` returns the terms :math:`w_p g_p`, shape (N, 1, H, W).

    Args:
        weights: Weights of the pixels, shape (H, W), some of them positive. They are scaled so that the positive ones sum to 1; the
            negative ones must then sum to −1 or more.

    Raises:
        CaptumLeamError: If the weights are invalid. ``forward`` raises it if images have another size or are outside [0, 1].

    Example:
        >>> network = AdditiveSimilarity(torch.tensor([[3.0, 1.0], [0.0, -2.0]]))
        >>> network(torch.ones(1, 3, 2, 2))  # the cosine is 0.75 + 0.25 − 0.5
        tensor([[0.5000, 0.8660]])
        >>> network.contributions(torch.ones(1, 3, 2, 2)).tolist()
        [[[0.75, 0.25], [0.0, -0.5]]]
    """

    weights: Tensor

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        if weights.ndim != 2 or not bool(torch.isfinite(weights).all()) or not bool((weights > 0).any()):
            raise CaptumLeamError(
                f"Expected `weights` to be finite, of shape (H, W) and positive in one pixel or more, got shape "
                f"{tuple(weights.shape)}."
            )
        scaled = weights / weights.clamp(min=0).sum()
        if float(scaled.clamp(max=0).sum()) < -1 - 1e-6:
            raise CaptumLeamError(
                "Expected the positive `weights` to have at least the sum of the negative ones, got a smaller sum. Reduce the negative "
                "ones, because the cosine must stay in [−1, 1]."
            )
        self.register_buffer("weights", scaled)
        self.pixels = _Contributions(scaled)

    @property
    def reference(self) -> Tensor:
        """Embedding (1, 0), to which the cosine is the sum of the contributions."""
        return torch.tensor([1.0, 0.0], dtype=self.weights.dtype, device=self.weights.device)

    def forward(self, images: Tensor) -> Tensor:
        """Return the embeddings of images.

        Args:
            images: Images in [0, 1], shape (N, C, H, W), of the size of the weights.

        Returns:
            Embeddings of length 1, shape (N, 2). The first value is the cosine to :attr:`reference`.

        Example:
            >>> AdditiveSimilarity(torch.tensor([[3.0, 1.0]]))(torch.tensor([[[[1.0, 0.0]]]]))[:, 0].tolist()
            [0.75]
        """
        score = self.pixels(images).flatten(1).sum(1)
        # the second value makes the length 1 and stays above 0, where its root has no gradient
        return torch.stack([score, (1 - score.square()).clamp(min=1e-12).sqrt()], 1)

    def contributions(self, images: Tensor, filled: Tensor | None = None) -> Tensor:
        """Return the exact fall of the cosine when a single pixel is replaced, the true map.

        Args:
            images: Images, shape (N, C, H, W).
            filled: Images of the same shape that hold the replacement of each pixel. Default: None, black.

        Returns:
            Contributions, shape (N, H, W), signed.

        Example:
            >>> network, images = AdditiveSimilarity(torch.tensor([[3.0, 1.0]])), torch.ones(1, 1, 1, 2)
            >>> network.contributions(images).tolist(), network.contributions(images, 0.5 * images).tolist()
            ([[[0.75, 0.25]]], [[[0.375, 0.125]]])
        """
        replacement = 0 if filled is None else filled.mean(1)
        return self.weights * (images.mean(1) - replacement)

    def template(self, channels: int = 3) -> Tensor:
        """Return the image whose embedding is the reference.

        Args:
            channels: Number of channels C, 1 or more. Default: 3.

        Returns:
            Image, shape (1, C, H, W), 1 where the weights are positive and 0 elsewhere.

        Example:
            >>> network = AdditiveSimilarity(torch.tensor([[3.0, 1.0], [0.0, -2.0]]))
            >>> network.template(1).tolist(), network(network.template())[:, 0].tolist()
            ([[[[1.0, 1.0], [0.0, 0.0]]]], [1.0])
        """
        return (self.weights > 0).to(self.weights).expand(1, channels, *self.weights.shape).clone()


class _Contributions(nn.Module):
    """Layer that returns the terms of the sum, shape (N, 1, H, W)."""

    weights: Tensor

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        if images.ndim != 4 or images.shape[2:] != self.weights.shape:
            raise CaptumLeamError(
                f"Expected images of shape (N, C, {', '.join(map(str, self.weights.shape))}), got {tuple(images.shape)}."
            )
        if float(images.detach().min()) < 0 or float(images.detach().max()) > 1:
            raise CaptumLeamError(
                "Expected images in [0, 1], got values outside this range. Undo the preprocessing, or divide by 255."
            )
        return images.mean(1, keepdim=True) * self.weights
