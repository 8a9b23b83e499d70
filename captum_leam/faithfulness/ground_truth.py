r"""Maps against a truth that is known: planted evidence, the importance of parts, and a network with additive contributions.

Maps are (N, H, W) or (N, 1, H, W), truths boolean (N, H, W); results are one number per image, (N,), float64.
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

# -- a map against the pixels that matter ----------------------------------------------------------------


def pointing_game(maps: Tensor, truth: Tensor, *, tolerance: int = 0, seed: int = 0) -> Tensor:
    """Whether the highest pixel hits: 1 or 0.

    Source: Zhang et al., "Top-down neural attention by excitation backprop", IJCV 2018, section 4.1 (tolerance of 15 px on photos).

    Args:
        maps: Maps (N, H, W) or (N, 1, H, W).
        truth: Booleans (N, H, W).
        tolerance: how many pixels beside it still count, in both directions.
        seed: Seed of ties. Default: 0.

    Returns:
        (N,), 0 or 1; by chance the share of the truth in the image.

    Raises:
        CaptumLeamError: if shapes differ, or the truth is empty or everything.

    Example:
        >>> truth = torch.tensor([[[True, False], [False, False]]])
        >>> pointing_game(torch.tensor([[[0.9, 0.1], [0.0, 0.3]]]), truth).tolist()
        [1.0]
    """
    maps, truth = _matching(maps, truth)
    near = torch.nn.functional.max_pool2d(truth[:, None].float(), 2 * tolerance + 1, 1, tolerance)[:, 0] > 0
    return ((rank_pixels(maps, seed=seed) == 0) & near).flatten(1).any(1).double()


def mass_accuracy(maps: Tensor, truth: Tensor) -> Tensor:
    """Share of the positive attribution that lies in the truth.

    Source: Arras et al., "CLEVR-XAI", Information Fusion 2022, equation 2.

    Returns:
        (N,), within [0, 1]; by chance the share of the truth in the image; NaN for a map without positive values.

    Example:
        >>> truth = torch.tensor([[[True, False], [False, False]]])
        >>> mass_accuracy(torch.tensor([[[3.0, 1.0], [-9.0, 0.0]]]), truth).tolist()
        [0.75]
    """
    maps, truth = _matching(maps, truth)
    positive = maps.double().clamp(min=0)
    return (positive * truth).sum((1, 2)) / positive.sum((1, 2))


def rank_accuracy(maps: Tensor, truth: Tensor, *, seed: int = 0) -> Tensor:
    """Of as many highest pixels as the truth has, the share that lies in it.

    Source: Arras et al., "CLEVR-XAI", Information Fusion 2022, equation 3.

    Returns:
        (N,), within [0, 1]; by chance the share of the truth in the image.

    Example:
        >>> truth = torch.tensor([[[True, True], [False, False]]])
        >>> rank_accuracy(torch.tensor([[[0.9, 0.1], [0.3, 0.0]]]), truth).tolist()
        [0.5]
    """
    maps, truth = _matching(maps, truth)
    top = rank_pixels(maps, seed=seed) < truth.sum((1, 2))[:, None, None]
    return (top & truth).sum((1, 2)).double() / truth.sum((1, 2))


def iou(maps: Tensor, truth: Tensor, *, seed: int = 0) -> Tensor:
    """Intersection over union of the truth and as many highest pixels.

    Returns:
        (N,), within [0, 1].

    Example:
        >>> truth = torch.tensor([[[True, True], [False, False]]])
        >>> round(iou(torch.tensor([[[0.9, 0.1], [0.3, 0.0]]]), truth).item(), 3)
        0.333
    """
    hit = rank_accuracy(maps, truth, seed=seed)
    return hit / (2 - hit)


def roc_auc(maps: Tensor, truth: Tensor) -> Tensor:
    """Chance that a pixel of the truth has a higher value than one outside, ties counted half (Mann & Whitney 1947).

    Returns:
        (N,), within [0, 1]; 0.5 for a constant map.

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
            f"truth has shape {tuple(truth.shape)} and {truth.dtype}, the maps {tuple(maps.shape)}; expected boolean of their shape."
        )
    share = truth.flatten(1).double().mean(1)
    flat = caller_rows(((share == 0) | (share == 1)).nonzero().flatten().tolist())
    if flat:
        raise CaptumLeamError(
            f"the truth of images {flat} is empty, or everything: there is nothing to hit. Leave these out."
        )
    return maps, truth.to(maps.device)


# -- the importance of parts -----------------------------------------------------------------------------


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
    """How far the cosine to a reference falls when one part of the face is removed.

    Args:
        model: images → embeddings.
        images: Images (N, C, H, W).
        labels: Regions (N, H, W), integers.
        parts: the labels that are removed, one at a time.
        references: (D,), (1, D) or (N, D), from other images.
        fill: what is put in place.
        batch_size: Number of images in one pass.

    Returns:
        (N, parts), the drop of the cosine; NaN where an image does not have the part.

    Example:
        >>> labels = torch.tensor([[[1, 1], [2, 0]]])
        >>> images = torch.ones(1, 1, 2, 2)
        >>> part_importance(lambda x: x.flatten(1), images, labels, [1, 2], torch.ones(4), fill="zero").round(decimals=3).tolist()
        [[0.293, 0.134]]
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
    """Spearman's rank correlation, over parts, of a map's positive mass with their importance.

    Args:
        maps: Maps (N, H, W) or (N, 1, H, W).
        labels: Regions (N, H, W), integers.
        parts: labels, three or more.
        importance: (N, parts), of :func:`part_importance`; NaN for parts that are not there.

    Returns:
        (N,), within [−1, 1]; NaN with fewer than three parts there, or where one side is constant.

    Example:
        >>> labels = torch.tensor([[[0, 1], [2, 2]]])
        >>> maps = torch.tensor([[[0.1, 0.2], [0.2, 0.3]]])
        >>> part_agreement(maps, labels, [0, 1, 2], torch.tensor([[0.0, 0.3, 0.9]])).round(decimals=6).tolist()
        [1.0]
    """
    from scipy.stats import spearmanr

    positive = as_maps(maps).detach().double().clamp(min=0)
    labels, importance = as_tensor(labels).to(positive.device), as_tensor(importance)
    if labels.shape != positive.shape or importance.shape != (len(positive), len(parts)):
        raise CaptumLeamError(
            f"labels have shape {tuple(labels.shape)} and importance {tuple(importance.shape)}; expected {tuple(positive.shape)} and "
            f"{(len(positive), len(parts))}."
        )
    mass = torch.stack([(positive * (labels == part)).sum((1, 2)) for part in parts], 1).cpu().numpy()
    out = []
    for of_map, of_model in zip(mass, importance.double().cpu().numpy(), strict=True):
        there = ~np.isnan(of_model)
        flat = there.sum() < 3 or np.ptp(of_map[there]) == 0 or np.ptp(of_model[there]) == 0
        out.append(float("nan") if flat else spearmanr(of_map[there], of_model[there]).statistic)
    return torch.tensor(out, device="cpu", dtype=torch.float64)


# -- a network with known contributions ------------------------------------------------------------------


class AdditiveSimilarity(nn.Module):
    r"""An embedding whose cosine to :attr:`reference` is a sum over pixels, so that every pixel's contribution is known.

    With :math:`g_p` the mean over the channels of pixel p, :math:`s(x) = \sum_p w_p\, g_p` and the embedding
    :math:`f(x) = (s, \sqrt{1 - s^2})`, of length 1, the cosine to (1, 0) is s(x): replacing a set S of pixels lowers it by exactly
    :math:`\sum_{p \in S} w_p (g_p - g'_p)`. The layer ``pixels`` puts out the terms :math:`w_p g_p` as (N, 1, H, W).

    Args:
        weights: (H, W), with positive values; scaled so that these sum to 1. The negative ones may then sum to −1 at most.

    Raises:
        CaptumLeamError: for weights that do not allow it; in ``forward`` for images of another size or outside [0, 1].

    Example:
        >>> network = AdditiveSimilarity(torch.tensor([[3.0, 1.0], [0.0, -2.0]]))
        >>> network(torch.ones(1, 3, 2, 2)).tolist()   # 0.75 + 0.25 − 0.5
        [[0.5, 0.8660253882408142]]
        >>> network.contributions(torch.ones(1, 3, 2, 2)).tolist()
        [[[0.75, 0.25], [0.0, -0.5]]]
    """

    weights: Tensor

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        if weights.ndim != 2 or not bool(torch.isfinite(weights).all()) or not bool((weights > 0).any()):
            raise CaptumLeamError(
                f"weights have shape {tuple(weights.shape)}; expected finite (H, W), some of them positive."
            )
        scaled = weights / weights.clamp(min=0).sum()
        if float(scaled.clamp(max=0).sum()) < -1 - 1e-6:
            raise CaptumLeamError("the negative weights outweigh the positive ones: the cosine could leave [−1, 1].")
        self.register_buffer("weights", scaled)
        self.pixels = _Contributions(scaled)

    @property
    def reference(self) -> Tensor:
        """(1, 0): the cosine to it is the sum of the contributions."""
        return torch.tensor([1.0, 0.0], dtype=self.weights.dtype, device=self.weights.device)

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings (N, 2) of length 1."""
        score = self.pixels(images).flatten(1).sum(1)
        # the second number only fills the length up to 1; kept off 0, where its root has no gradient
        return torch.stack([score, (1 - score.square()).clamp(min=1e-12).sqrt()], 1)

    def contributions(self, images: Tensor, filled: Tensor | None = None) -> Tensor:
        """By how much the cosine falls when a pixel is replaced by that of ``filled`` (black by default): (N, H, W), exact."""
        gone = 0 if filled is None else filled.mean(1)
        return self.weights * (images.mean(1) - gone)

    def template(self, channels: int = 3) -> Tensor:
        """Return the image (1, C, H, W) whose embedding is the reference: 1 where weights are positive, 0 elsewhere."""
        return (self.weights > 0).to(self.weights).expand(1, channels, *self.weights.shape).clone()


class _Contributions(nn.Module):
    """Images to the terms of the sum, (N, 1, H, W)."""

    weights: Tensor

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        if images.ndim != 4 or images.shape[2:] != self.weights.shape:
            raise CaptumLeamError(
                f"images have shape {tuple(images.shape)}; expected (N, C, {', '.join(map(str, self.weights.shape))})."
            )
        if float(images.detach().min()) < 0 or float(images.detach().max()) > 1:
            raise CaptumLeamError("images leave [0, 1], where the contributions are not bounded.")
        return images.mean(1, keepdim=True) * self.weights
