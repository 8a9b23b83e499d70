"""Decisions of face verification: pairs of images, thresholds on their similarity, and error rates.

Terms are those of ISO/IEC 19795-1. A pair matches if its score reaches the threshold. The FMR is the share of the impostor pairs that
match, and the FNMR is the share of the genuine pairs that do not match.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from captum_leam._engine.arithmetic import as_array
from captum_leam.errors import CaptumLeamError
from captum_leam.stats.labels import person_codes

# -- pairs -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pairs:
    """Genuine and impostor pairs of images, by their indices.

    A genuine pair is two images of one person, and an impostor pair is images of two people. :func:`draw_pairs` returns them at random.
    P is the number of pairs.

    Attributes:
        first: Index of the first image (probe) of each pair, int64, shape (P,).
        second: Index of the second image of each pair, int64, shape (P,).
        genuine: Whether both images show one person, boolean, shape (P,).

    Raises:
        CaptumLeamError: If shapes or types are wrong, an index is negative, or there are pairs of one kind only.

    Example:
        >>> pairs = Pairs(torch.tensor([0, 0]), torch.tensor([1, 2]), torch.tensor([True, False]))
        >>> len(pairs), pairs.genuine.tolist()  # images 0 and 1 show one person, and 0 and 2 two people
        (2, [True, False])
    """

    first: Tensor
    second: Tensor
    genuine: Tensor

    def __post_init__(self) -> None:
        shapes = [tuple(t.shape) for t in (self.first, self.second, self.genuine)]
        if len(set(shapes)) != 1 or len(shapes[0]) != 1 or self.genuine.dtype != torch.bool:
            raise CaptumLeamError(
                f"Expected `first`, `second` and a boolean `genuine` of one shape (P,), got shapes {shapes} and {self.genuine.dtype}."
            )
        if min(int(self.first.min()), int(self.second.min())) < 0:
            raise CaptumLeamError("Expected `first` and `second` to be indices of 0 or more, got a negative one.")
        if bool(self.genuine.all()) or not bool(self.genuine.any()):
            raise CaptumLeamError(_one_kind(is_genuine=bool(self.genuine.all())))

    def __len__(self) -> int:
        return len(self.genuine)


def draw_pairs(labels: Sequence[Any] | Tensor, per_class: int | None = None, *, seed: int = 0) -> Pairs:
    """Draw as many genuine as impostor pairs, each unordered pair of images at most once.

    Args:
        labels: Person of each image.
        per_class: Number of pairs of each kind, 1 or more. Default: None, all pairs of the rarer kind and as many of the other.
        seed: Seed of the draws. Default: 0.

    Returns:
        :class:`Pairs`, first the genuine and then the impostor pairs.

    Raises:
        CaptumLeamError: If a person or a second image of one person is missing, or there are fewer than ``per_class`` pairs of a kind.

    See Also:
        :func:`~captum_leam.verification.verify`: Comparison of all pairs.

    Example:
        >>> pairs = draw_pairs(["ann", "ann", "bob", "bob"])
        >>> len(pairs), pairs.genuine.tolist()
        (4, [True, True, False, False])
    """
    people = person_codes(labels)[1]
    every = np.stack(np.triu_indices(len(people), 1), 1)
    same = people[every[:, 0]] == people[every[:, 1]]
    groups = [every[same], every[~same]]
    available = min(map(len, groups))
    count = available if per_class is None else per_class
    if not 0 < count <= available:
        raise CaptumLeamError(
            f"Expected at least {max(count, 1)} genuine and impostor pairs each, got {len(groups[0])} genuine and {len(groups[1])} "
            f"impostor pairs of {len(people)} images."
        )
    generator = np.random.default_rng(seed)
    indices = np.concatenate([g[np.sort(generator.choice(len(g), count, replace=False))] for g in groups])
    first, second = torch.from_numpy(indices).T
    return Pairs(first.clone(), second.clone(), torch.arange(2 * count, device="cpu") < count)


# -- thresholds and rates --------------------------------------------------------------------------------


def _one_kind(*, is_genuine: bool) -> str:
    """Return the message for pairs of one kind only."""
    kind, missing = ("genuine", "impostor") if is_genuine else ("impostor", "genuine")
    people = "two people" if is_genuine else "one person"
    return (
        f"Expected both genuine and impostor pairs, got only {kind} pairs. Add {missing} pairs, two images of {people}."
    )


def thresholds_between(scores: ArrayLike) -> NDArray[np.float64]:
    """Return all thresholds with different decisions: between neighbouring scores, and beyond both ends.

    Args:
        scores: Scores of pairs, shape (P,).

    Returns:
        Thresholds in rising order; equal scores are never split.

    Example:
        >>> thresholds_between([0.5, 0.25, 0.5]).tolist()
        [-0.75, 0.375, 1.5]
    """
    values = np.unique(as_array(scores))
    between = (values[1:] + values[:-1]) / 2
    between = np.where(
        between > values[:-1], between, values[1:]
    )  # the middle of two neighbouring floats rounds to one of them
    return np.concatenate([[values[0] - 1], between, [values[-1] + 1]])


def error_rates(
    scores: ArrayLike, genuine: ArrayLike, thresholds: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the false match rate (FMR) and the false non-match rate (FNMR) at thresholds.

    Args:
        scores: Scores of P pairs, shape (P,), higher for pairs that are more similar.
        genuine: Whether each pair is genuine, booleans, shape (P,).
        thresholds: Thresholds, shape (T,). A pair matches if its score is at least the threshold.

    Returns:
        Pair of arrays of shape (T,), float64, in [0, 1]:

        * FMR: Share of the impostor pairs that match.
        * FNMR: Share of the genuine pairs that do not match.

    Raises:
        CaptumLeamError: If a score is not finite, or there are pairs of one kind only.

    Example:
        >>> fmr, fnmr = error_rates([0.1, 0.6, 0.4, 0.9], [False, False, True, True], [0.5])
        >>> fmr.tolist(), fnmr.tolist()
        ([0.5], [0.5])
    """
    values, same = as_array(scores), as_array(genuine, bool)
    if not np.isfinite(values).all():
        raise CaptumLeamError(
            f"Expected finite scores, got {int((~np.isfinite(values)).sum())} that are NaN or infinite. Leave these pairs out."
        )
    if not same.any() or same.all():
        raise CaptumLeamError(_one_kind(is_genuine=bool(same.all())))
    at = as_array(thresholds)
    impostors, genuines = np.sort(values[~same]), np.sort(values[same])
    fmr = (len(impostors) - np.searchsorted(impostors, at, side="left")) / len(impostors)
    return fmr, np.searchsorted(genuines, at, side="left") / len(genuines)


def threshold_at_eer(scores: ArrayLike, genuine: ArrayLike) -> float:
    """Return the threshold of the equal error rate, where FMR and FNMR are closest.

    Args:
        scores: Scores of P pairs, shape (P,), higher for pairs that are more similar.
        genuine: Whether each pair is genuine, booleans, shape (P,).

    Returns:
        Threshold, a float. Of several, the one with the smallest sum of both rates, and then the lowest.

    Raises:
        CaptumLeamError: If a score is not finite, or there are pairs of one kind only.

    See Also:
        :func:`~captum_leam.stats.threshold_at_fmr`: Threshold of a false match rate.

    Example:
        >>> threshold_at_eer([0.1, 0.3, 0.5, 0.9], [False, False, True, True])
        0.4
    """
    at = thresholds_between(scores)
    fmr, fnmr = error_rates(scores, genuine, at)
    # rates are rounded, so that those that differ by the last bit only count as equal
    return float(at[np.lexsort((at, (fmr + fnmr).round(12), np.abs(fmr - fnmr).round(12)))[0]])


def threshold_at_fmr(scores: ArrayLike, genuine: ArrayLike, fmr: float) -> float:
    """Return the lowest threshold whose false match rate is at most ``fmr``.

    The false match rate is the share of impostor pairs whose score is at least the threshold.

    Args:
        scores: Scores of P pairs, shape (P,), higher for pairs that are more similar.
        genuine: Whether each pair is genuine, booleans, shape (P,).
        fmr: Largest false match rate, in (0, 1), e.g. 1e-3.

    Returns:
        Threshold, a float: halfway between two scores, or above the highest.

    Raises:
        CaptumLeamError: If there are fewer than 1 / ``fmr`` impostor pairs, with which the rate cannot be distinguished from 0.

    See Also:
        :func:`~captum_leam.stats.threshold_at_eer`: Threshold of the equal error rate.

    Example:
        >>> threshold_at_fmr([0.1, 0.3, 0.5, 0.9], [False, False, True, True], 0.5)  # one of two impostor pairs is accepted
        0.2
    """
    impostors = int((~as_array(genuine, bool)).sum())
    if not 0 < fmr < 1:
        raise CaptumLeamError(f"Expected `fmr` to be a rate in (0, 1), e.g. 1e-3, got {fmr}.")
    fewest = math.ceil(1 / fmr - 1e-9)
    if impostors < fewest:
        raise CaptumLeamError(
            f"Expected at least {fewest} impostor pairs for a false match rate of {fmr:g}, got {impostors}. Pass the scores of more pairs "
            "as calibration, or a higher rate."
        )
    at = thresholds_between(scores)
    return float(at[error_rates(scores, genuine, at)[0] <= fmr][0])


def decision_rates(accepted: ArrayLike, genuine: ArrayLike) -> tuple[float, float, float]:
    """Return the shares of right decisions of face verification.

    Args:
        accepted: Whether each of P pairs is accepted, booleans, shape (P,).
        genuine: Whether each pair is genuine, booleans, shape (P,).

    Returns:
        Three floats in [0, 1]:

        * Genuine accept rate (GAR): Share of the genuine pairs that is accepted.
        * Impostor reject rate (IRR): Share of the impostor pairs that is rejected.
        * Balanced accuracy: Mean of both.

    Example:
        >>> decision_rates([True, False, False], [True, True, False])  # one of two genuine pairs is accepted
        (0.5, 1.0, 0.75)
    """
    matches, same = as_array(accepted, bool), as_array(genuine, bool)
    gar, irr = float(matches[same].mean()), float((~matches[~same]).mean())
    return gar, irr, (gar + irr) / 2


def area_under(fractions: ArrayLike, rates: ArrayLike) -> float:
    """Return the area under a curve by the trapezoidal rule, divided by the range of the fractions.

    Args:
        fractions: Positions of the points in rising order, shape (T,).
        rates: Values at these positions, shape (T,).

    Returns:
        Mean height of the curve.

    Example:
        >>> area_under([0.0, 0.5, 1.0], [1.0, 0.5, 0.0])
        0.5
    """
    x, y = as_array(fractions), as_array(rates)
    return float(((x[1:] - x[:-1]) @ (y[1:] + y[:-1]) / 2) / (x[-1] - x[0]))
