r"""Estimates over people with studentised bootstrap intervals: means of values, and means over pairs of two people.

A person who is drawn twice is not compared with themselves: pairs of different people are pairs of different *original* people.
Coefficients are skewed and people few, so that the plain percentile interval is too narrow. The studentised bootstrap divides each draw
by its own standard error, which comes from the influence of each person on the estimate. `benchmarks/calibration.py` measures how often
intervals contain the true value.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import sparse

from captum_leam.stats.bootstrap import MIN_FOR_DRAWS, Floats, divided, studentised
from captum_leam.stats.student import t_quantile

MIN_FOR_INTERVAL = 3
"""Fewest people for an interval."""
DRAWN_PEOPLE = 5000
"""Most people for bootstrap intervals; those of more are Student's t with the same standard error, to which draws tend."""


def draw_people(people: int, resamples: int, seed: int) -> Floats:
    """Draw people with replacement and return how often each is drawn.

    Args:
        people: Number of people.
        resamples: Number of draws.
        seed: Seed of the draws; the same seed gives the same draws.

    Returns:
        Counts, shape (resamples, people).

    Example:
        >>> draw_people(3, 2, seed=0).sum(axis=1).tolist()
        [3.0, 3.0]
    """
    draw_counts = np.random.default_rng(seed).multinomial(people, np.full(people, 1 / people), resamples)
    return draw_counts.astype(np.float64)


def people_draws(people: int, resamples: int, seed: int) -> Floats:
    """Return the draws of people for intervals (resamples, people); (0, people) of more than :data:`DRAWN_PEOPLE`.

    Example:
        >>> people_draws(10, 3, 0).shape, people_draws(100_000, 3, 0).shape
        ((3, 10), (0, 100000))
    """
    return draw_people(people, resamples, seed) if people <= DRAWN_PEOPLE else np.zeros((0, people))


@dataclass(frozen=True)
class Estimate:
    """Estimate with its bootstrap draws and the influence of each person.

    Attributes:
        value: Estimate.
        draws: Estimate of each draw of people, shape (B,).
        influence: Influence of each person, P times the derivative by the person's weight, shape (P,); sums to 0.
    """

    value: float
    draws: Floats
    influence: Floats

    def __sub__(self, other: "Estimate") -> "Estimate":
        return Estimate(self.value - other.value, self.draws - other.draws, self.influence - other.influence)

    def interval(
        self, draw_counts: Floats, confidence: float = 0.95, bounds: tuple[float, float] = (-1, 1)
    ) -> tuple[float, float]:
        """Return the studentised bootstrap interval.

        Without draws it is Student's t with the standard error from influence values, which the bootstrap tends to as people grow many.

        Source: Davison & Hinkley 1997, sections 2.4 and 2.7.2 (standard errors from influence values).

        Args:
            draw_counts: Counts of :func:`draw_people` that the draws belong to, shape (B, P), or (0, P) without draws.
            confidence: Confidence level, in (0, 1). Default: 0.95.
            bounds: Bounds of the quantity, at which the ends are cut. Default: (−1, 1).

        Returns:
            Low and high end; NaN with fewer than three people.

        Example:
            >>> values, drawn = np.arange(30.0) % 7, draw_people(30, 2000, seed=0)
            >>> low, high = weighted_mean(values, np.ones(30), drawn).interval(drawn, bounds=(0, 6))
            >>> bool(1.9 < low < values.mean() < high < 3.8)
            True
        """
        people = len(self.influence)
        if people < MIN_FOR_INTERVAL:
            return float("nan"), float("nan")
        error = standard_error(self.influence)
        if people < MIN_FOR_DRAWS or not len(self.draws):
            far = float(t_quantile(people - 1, confidence))
            ends = (self.value - far * error, self.value + far * error)
        else:
            means = draw_counts @ self.influence / people
            errors = np.sqrt(np.maximum(draw_counts @ self.influence**2 / people - means**2, 0) / (people - 1))
            below, above = studentised(self.value, self.draws, error, errors, confidence)
            ends = (float(below), float(above))
        low, high = np.clip(ends, *bounds)
        return float(low), float(high)


def standard_error(influence: Floats) -> float:
    """Return the standard error of an estimate from its influence values, with independent people.

    Args:
        influence: Influence of each person, shape (P,).

    Example:
        >>> standard_error(np.array([1.0, -1.0]))
        1.0
    """
    people = len(influence)
    return float(np.sqrt((influence**2).sum() / (people * (people - 1))))


def weighted_mean(totals: Floats, counts: Floats, draw_counts: Floats) -> Estimate:
    """Return the estimate of a ratio of sums over people, Σ totals / Σ counts.

    Args:
        totals: Sum of the values of each person, shape (P,).
        counts: Number of values of each person, shape (P,).
        draw_counts: Counts of :func:`draw_people`, shape (B, P).

    Example:
        >>> weighted_mean(np.array([1.0, 4.0]), np.array([1.0, 2.0]), np.array([[2.0, 0.0]])).draws.tolist()
        [1.0]
    """
    count = counts.sum()
    value = totals.sum() / count
    draws = divided(draw_counts @ totals, draw_counts @ counts)
    return Estimate(float(value), draws, len(totals) * (totals - value * counts) / count)


def mean_between(left: Any, right: Any, mass: Floats, draw_counts: Floats) -> Estimate:
    r"""Return the estimate of the mean product of the vectors of two different people, over ordered pairs.

    .. math:: \frac{\langle \sum_p w_p L_p, \sum_q w_q R_q \rangle - \sum_p w_p^2 \langle L_p, R_p \rangle}
        {(\sum_p w_p m_p)^2 - \sum_p w_p^2 m_p^2}

    Args:
        left: Vector of each person, shape (P, cells).
        right: Vector of each person as the other of a pair, shape (P, cells).
        mass: Weight of each person, shape (P,).
        draw_counts: Counts of :func:`draw_people`, shape (B, P).
    """
    ones, own = np.ones(len(mass)), row_products(left, right)
    sum_left, sum_right = left.T @ ones, right.T @ ones
    pairs = mass.sum() ** 2 - (mass**2).sum()
    value = (sum_left @ sum_right - own.sum()) / pairs
    change = left @ sum_right + right @ sum_left - 2 * own
    influence = len(mass) * (change - value * 2 * mass * (mass.sum() - mass)) / pairs
    squares = draw_counts**2
    counts = (draw_counts @ mass) ** 2 - squares @ mass**2
    totals = np.empty(len(draw_counts))
    for start in range(0, len(draw_counts), 256):  # blocks bound the memory for sums of vectors
        part = slice(start, start + 256)
        summed = left.T @ draw_counts[part].T
        totals[part] = np.einsum("ij,ij->j", summed, summed if right is left else right.T @ draw_counts[part].T)
    return Estimate(float(value), divided(totals - squares @ own, counts), influence)


@dataclass
class MeanBetween:
    """Mean over pairs, as of :func:`mean_between`, of people that come part after part, in two passes over the parts.

    The first pass (:meth:`add`) sums the vectors; the second (:meth:`relate`), over the same parts in the same order, relates each person
    to the sums. Vectors are kept while there are at most :data:`DRAWN_PEOPLE` people, for draws; of more, memory is three numbers for each.

    Example:
        >>> left, ones, nobody = np.arange(12.0).reshape(4, 3), np.ones(4), np.zeros((0, 4))
        >>> found = MeanBetween()
        >>> for part in (slice(0, 3), slice(3, 4)):
        ...     found.add(left[part], left[part], ones[part])
        >>> for part in (slice(0, 3), slice(3, 4)):
        ...     found.relate(left[part], left[part])
        >>> found.estimate(nobody).value == mean_between(left, left, ones, nobody).value
        True
    """

    _left: Any = 0.0
    _right: Any = 0.0
    _own: list[Floats] = field(default_factory=list)
    _mass: list[Floats] = field(default_factory=list)
    _change: list[Floats] = field(default_factory=list)
    _vectors: list[tuple[Any, Any]] = field(default_factory=list)
    _people: int = 0

    def add(self, left: Any, right: Any, mass: Floats) -> None:
        """Add people (first pass).

        Args:
            left: Vectors (n, cells).
            right: Vectors (n, cells) that they are compared with.
            mass: How much each person counts, shape (n,).
        """
        ones = np.ones(len(mass))
        self._left, self._right = self._left + left.T @ ones, self._right + right.T @ ones
        self._own.append(row_products(left, right))
        self._mass.append(mass)
        self._people += len(mass)
        self._vectors = [*self._vectors, (left, right)] if self._people <= DRAWN_PEOPLE else []

    def relate(self, left: Any, right: Any) -> None:
        """Relate the same people to the sums of all (second pass)."""
        self._change.append(left @ self._right + right @ self._left)

    def estimate(self, drawn: Floats) -> Estimate:
        """Return the mean over pairs, for the draws of :func:`people_draws`."""
        mass = np.concatenate(self._mass)
        if len(drawn):
            left, right = (_stacked(vectors) for vectors in zip(*self._vectors, strict=True))
            return mean_between(left, right, mass, drawn)
        own, change = (np.concatenate(parts) for parts in (self._own, self._change))
        pairs = mass.sum() ** 2 - (mass**2).sum()
        value = (self._left @ self._right - own.sum()) / pairs
        influence = len(mass) * (change - 2 * own - value * 2 * mass * (mass.sum() - mass)) / pairs
        return Estimate(float(value), np.zeros(0), influence)


def _stacked(parts: Sequence[Any]) -> Any:
    return sparse.csr_array(sparse.vstack(parts)) if is_sparse(parts[0]) else np.concatenate(parts)


def is_sparse(rows: Any) -> bool:
    """Return whether an array is one of scipy.sparse."""
    return bool(sparse.issparse(rows))


def row_products(left: Any, right: Any) -> Floats:
    """Return the inner product of each row with its counterpart, float64, shape (N,)."""
    if is_sparse(left):
        product = left.astype(np.float64).multiply(right.astype(np.float64))
        return np.asarray(product.sum(axis=1), dtype=np.float64).reshape(-1)
    products: Floats = np.einsum("ij,ij->i", left, right, dtype=np.float64)
    return products
