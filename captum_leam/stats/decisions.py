"""Decisions of face verification: pairs of images, thresholds on their similarity, and error rates.

Terms: ISO/IEC 19795-1. A pair matches when its score reaches the threshold; FMR is the share of impostor pairs that match, FNMR that
of genuine pairs that do not.
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
    """Pairs of images, by their index.

    Attributes:
        first: (P,), int64, the probes.
        second: (P,), int64, what they are compared with.
        genuine: boolean (P,), True for two images of one person.

    Example:
        >>> pairs = Pairs(torch.tensor([0, 0]), torch.tensor([1, 2]), torch.tensor([True, False]))
        >>> len(pairs)
        2
    """

    first: Tensor
    second: Tensor
    genuine: Tensor

    def __post_init__(self) -> None:
        shapes = [tuple(t.shape) for t in (self.first, self.second, self.genuine)]
        if len(set(shapes)) != 1 or len(shapes[0]) != 1 or self.genuine.dtype != torch.bool:
            raise CaptumLeamError(
                f"pairs have shapes {shapes} and genuine is {self.genuine.dtype}; expected two rows of indices and one of booleans."
            )
        if min(int(self.first.min()), int(self.second.min())) < 0:
            raise CaptumLeamError("pairs hold negative indices; expected those of the images, from 0.")
        if bool(self.genuine.all()) or not bool(self.genuine.any()):
            raise CaptumLeamError("all pairs are genuine, or all are impostors; a decision needs both.")

    def __len__(self) -> int:
        return len(self.genuine)


def draw_pairs(labels: Sequence[Any] | Tensor, per_class: int | None = None, *, seed: int = 0) -> Pairs:
    """As many genuine as impostor pairs, each unordered pair of images at most once.

    Args:
        labels: Person of each image.
        per_class: genuine pairs, and impostor pairs; as many as there are of the rarer by default.
        seed: Seed of the draws. Default: 0.

    Raises:
        CaptumLeamError: without two images of one person and two people, or if there are fewer pairs than asked for.

    Example:
        >>> pairs = draw_pairs(["ann", "ann", "bob", "bob"])
        >>> len(pairs), pairs.genuine.tolist()
        (4, [True, True, False, False])
    """
    people = person_codes(labels)[1]
    every = np.stack(np.triu_indices(len(people), 1), 1)
    same = people[every[:, 0]] == people[every[:, 1]]
    groups = [every[same], every[~same]]
    there = min(map(len, groups))
    wanted = there if per_class is None else per_class
    if not 0 < wanted <= there:
        raise CaptumLeamError(
            f"{wanted} pairs of each kind are asked for; of {len(people)} images there are {len(groups[0])} genuine and "
            f"{len(groups[1])} impostor pairs."
        )
    generator = np.random.default_rng(seed)
    drawn = np.concatenate([g[np.sort(generator.choice(len(g), wanted, replace=False))] for g in groups])
    first, second = torch.from_numpy(drawn).T
    return Pairs(first.clone(), second.clone(), torch.arange(2 * wanted, device="cpu") < wanted)


# -- thresholds and rates --------------------------------------------------------------------------------


def thresholds_between(scores: ArrayLike) -> NDArray[np.float64]:
    """Every threshold that decides differently: between neighbouring scores, and beyond both ends. Ties cannot be split.

    Example:
        >>> thresholds_between([0.5, 0.25, 0.5]).tolist()
        [-0.75, 0.375, 1.5]
    """
    values = np.unique(as_array(scores))
    between = (values[1:] + values[:-1]) / 2
    between = np.where(
        between > values[:-1], between, values[1:]
    )  # of neighbouring floats, the middle rounds to either
    return np.concatenate([[values[0] - 1], between, [values[-1] + 1]])


def error_rates(
    scores: ArrayLike, genuine: ArrayLike, thresholds: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the false match rate (FMR) and false non-match rate (FNMR) at thresholds; a pair matches when its score reaches it.

    Example:
        >>> fmr, fnmr = error_rates([0.1, 0.6, 0.4, 0.9], [False, False, True, True], [0.5])
        >>> fmr.tolist(), fnmr.tolist()
        ([0.5], [0.5])
    """
    values, same = as_array(scores), as_array(genuine, bool)
    if not np.isfinite(values).all():
        raise CaptumLeamError(f"{int((~np.isfinite(values)).sum())} scores are NaN or infinite; leave these pairs out.")
    if not same.any() or same.all():
        raise CaptumLeamError("error rates need genuine and impostor pairs; one of them is missing.")
    at = as_array(thresholds)
    impostors, genuines = np.sort(values[~same]), np.sort(values[same])
    fmr = (len(impostors) - np.searchsorted(impostors, at, side="left")) / len(impostors)
    return fmr, np.searchsorted(genuines, at, side="left") / len(genuines)


def threshold_at_eer(scores: ArrayLike, genuine: ArrayLike) -> float:
    """Where FMR and FNMR are closest; of several such places that with the smaller sum, then the lowest.

    Example:
        >>> threshold_at_eer([0.1, 0.3, 0.5, 0.9], [False, False, True, True])
        0.4
    """
    at = thresholds_between(scores)
    fmr, fnmr = error_rates(scores, genuine, at)
    # rounded: rates that differ by the last bit only are equal
    return float(at[np.lexsort((at, (fmr + fnmr).round(12), np.abs(fmr - fnmr).round(12)))[0]])


def threshold_at_fmr(scores: ArrayLike, genuine: ArrayLike, fmr: float) -> float:
    """Return the lowest threshold whose false match rate is at most ``fmr``.

    Raises:
        CaptumLeamError: with fewer than 1 / fmr impostor pairs, which cannot tell that rate from 0.

    Example:
        >>> threshold_at_fmr([0.1, 0.3, 0.5, 0.9], [False, False, True, True], 0.5)
        0.2
    """
    impostors = int((~as_array(genuine, bool)).sum())
    if not 0 < fmr < 1:
        raise CaptumLeamError(f"fmr is {fmr}; expected a rate in (0, 1), for example 1e-3.")
    needed = math.ceil(1 / fmr - 1e-9)
    if impostors < needed:
        raise CaptumLeamError(
            f"{impostors} impostor pairs cannot show a false match rate of {fmr:g}: expected {needed} or more. Give the "
            "scores of more pairs as calibration, or a higher rate."
        )
    at = thresholds_between(scores)
    return float(at[error_rates(scores, genuine, at)[0] <= fmr][0])


def decision_rates(accepted: ArrayLike, genuine: ArrayLike) -> tuple[float, float, float]:
    """Genuine accept rate (GAR), impostor reject rate (IRR), and balanced accuracy, their mean.

    Example:
        >>> decision_rates([True, False, False], [True, True, False])
        (0.5, 1.0, 0.75)
    """
    yes, same = as_array(accepted, bool), as_array(genuine, bool)
    gar, irr = float(yes[same].mean()), float((~yes[~same]).mean())
    return gar, irr, (gar + irr) / 2


def area_under(fractions: ArrayLike, rates: ArrayLike) -> float:
    """Area under a curve by the trapezoid, over the range of the fractions: the mean height.

    Example:
        >>> area_under([0.0, 0.5, 1.0], [1.0, 0.5, 0.0])
        0.5
    """
    x, y = as_array(fractions), as_array(rates)
    return float(((x[1:] - x[:-1]) @ (y[1:] + y[:-1]) / 2) / (x[-1] - x[0]))
