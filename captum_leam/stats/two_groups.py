"""Interval and permutation test of Welch's t for the difference of means of two groups of people."""

import numpy as np

from captum_leam.stats.bootstrap import MIN_FOR_DRAWS, Floats, divided, studentised
from captum_leam.stats.student import t_quantile

AT_A_TIME = 20_000_000
"""Numbers of a table of draws, or of splits, by people that are in memory at a time."""


def difference_interval(
    left: Floats, right: Floats, confidence: float, resamples: int, generator: np.random.Generator
) -> tuple[Floats, Floats]:
    """Return the interval of the difference of means of two groups.

    It is the studentised bootstrap with people drawn within each group, or Welch's t with fewer than ten people in a group.

    Args:
        left: Values of the first group, shape (people, quantities); NaN where unknown.
        right: Values of the second group, shape (people, quantities).
        confidence: Confidence level, in (0, 1).
        resamples: Number of bootstrap draws.
        generator: Generator of the draws.

    Returns:
        Low and high ends, shape (quantities,).
    """
    sides = (left, right)
    means, squared = zip(*(_mean_and_error(np.ones((1, len(side))), side) for side in sides), strict=True)
    draws, squares = zip(*(_drawn_means(side, resamples, generator) for side in sides), strict=True)
    value, error = (means[0] - means[1])[0], np.sqrt(squared[0] + squared[1])[0]
    of_draws, errors = draws[0] - draws[1], np.sqrt(squares[0] + squares[1])
    counts = [(~np.isnan(side)).sum(0) for side in sides]
    far = t_quantile(welch_freedom(squared[0][0], squared[1][0], *counts), confidence) * error
    ends = [
        studentised(value[k], of_draws[:, k], error[k], errors[:, k], confidence)
        if min(counts[0][k], counts[1][k]) >= MIN_FOR_DRAWS
        else (value[k] - far[k], value[k] + far[k])
        for k in range(len(value))
    ]
    low, high = np.array(ends, dtype=np.float64).T
    return low, high


def _drawn_means(side: Floats, resamples: int, generator: np.random.Generator) -> tuple[Floats, Floats]:
    """Return means of drawn people and their squared standard errors, (B, quantities)."""
    shares, parts = np.full(len(side), 1 / len(side)), []
    for count in _chunks(resamples, len(side)):
        drawn = generator.multinomial(len(side), shares, count).astype(np.float64)
        parts.append(_mean_and_error(drawn, side))
    means, errors = (np.concatenate(part) for part in zip(*parts, strict=True))
    return means, errors


def _chunks(rows: int, columns: int) -> list[int]:
    """Return the numbers of rows that are worked on at a time.

    Example:
        >>> _chunks(1000, 20_000), _chunks(1000, 50_000)
        ([1000], [400, 400, 200])
    """
    step = max(1, AT_A_TIME // columns)
    return [min(step, rows - start) for start in range(0, rows, step)]


def _mean_and_error(weights: Floats, table: Floats) -> tuple[Floats, Floats]:
    """Return weighted means of the known values and their squared standard errors, shape (B, quantities) each."""
    known = ~np.isnan(table)
    count, centre = weights @ known, np.nan_to_num(mean_of_known(np.ones((1, len(table))), table))
    centred = np.where(known, table - centre, 0)
    mean = divided(weights @ centred, count)
    variance = divided(weights @ centred**2, count) - mean**2
    error = divided(np.maximum(variance, 0), count - 1)
    return mean + centre, error


def welch_freedom(first: Floats, second: Floats, people_first: Floats, people_second: Floats) -> Floats:
    """Return the Welch–Satterthwaite degrees of freedom of the difference of two means.

    Args:
        first: Squared standard errors of the means of the first group, shape (quantities,).
        second: Squared standard errors of the means of the second group, shape (quantities,).
        people_first: Numbers of people with a value in the first group, shape (quantities,).
        people_second: Numbers of people with a value in the second group, shape (quantities,).

    Example:
        >>> welch_freedom(np.array([1.0]), np.array([1.0]), np.array([10]), np.array([10])).tolist()
        [18.0]
    """
    parts = [
        v**2 / np.maximum(n - 1, 1) for v, n in ((np.asarray(first), people_first), (np.asarray(second), people_second))
    ]
    total = (first + second) ** 2
    fewest = np.maximum(np.minimum(people_first, people_second) - 1, 1).astype(np.float64)
    freedom: Floats = np.divide(total, parts[0] + parts[1], out=fewest, where=(parts[0] + parts[1]) > 0)
    return freedom


def permutation_p(both: Floats, size: int, permutations: int, generator: np.random.Generator) -> Floats:
    """Return the two-sided permutation p-value of Welch's t of each column.

    Args:
        both: Values of both groups, the first group first, shape (people, quantities).
        size: Number of people in the first group.
        permutations: Number of permutations of the groups.
        generator: Generator of the permutations.

    Returns:
        p-values in (0, 1], shape (quantities,); NaN where t is not defined.
    """
    order, parts = np.arange(len(both)), list[Floats]()
    for count in _chunks(1 + permutations, len(both)):
        members = [generator.permutation(order) < size for _ in range(count - (not parts))]
        splits = np.stack(members if parts else [order < size, *members])
        parts.append(np.abs(welch_t(both, splits.astype(np.float64))))
    t = np.concatenate(parts)
    reached = (t[1:] >= t[0] * (1 - 1e-9)).sum(0)
    p = (1 + reached) / (1 + permutations)
    defined: Floats = np.where(np.isnan(t[0]), np.nan, p)
    return defined


def welch_t(both: Floats, members: Floats) -> Floats:
    """Return Welch's t of each split of people into two groups.

    Args:
        both: Values, shape (people, quantities); NaN where unknown.
        members: 1 for members of the first group and 0 for the others, shape (B, people).

    Returns:
        t, shape (B, quantities).
    """
    known = (~np.isnan(both)).astype(np.float64)
    centred = np.where(known > 0, both - mean_of_known(np.ones((1, len(both))), both), 0)
    means, errors = [], []
    for side in (members, 1 - members):
        n = side @ known
        mean = divided(side @ centred, n)
        squares = np.maximum(side @ centred**2 - n * np.nan_to_num(mean) ** 2, 0)
        errors.append(divided(squares, n * (n - 1)))
        means.append(mean)
    difference, error = means[0] - means[1], np.sqrt(errors[0] + errors[1])
    scale = np.abs(centred).max(0)
    difference = np.where(np.abs(difference) <= 1e-12 * scale, 0.0, difference)
    without_spread = np.where(difference == 0, 0.0, np.copysign(np.inf, difference))
    steady = np.isfinite(error) & (error <= 1e-12 * scale)
    t: Floats = np.where(steady, without_spread, divided(difference, error))
    return t


def mean_of_known(weights: Floats, table: Floats) -> Floats:
    """Return the weighted means of the known values over people, shape (B, quantities)."""
    known = ~np.isnan(table)
    totals = weights @ known
    return divided(weights @ np.where(known, table, 0), totals)


def variance_of_known(table: Floats) -> Floats:
    """Return the variance of the known values over people, shape (quantities,)."""
    known = ~np.isnan(table)
    count = known.sum(0)
    squares = np.where(known, table - mean_of_known(np.ones((1, len(table))), table), 0) ** 2
    return divided(squares.sum(0), count - 1)
