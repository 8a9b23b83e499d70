"""Intervals of means over people: whole people are drawn, and every draw is measured in its own standard error."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

MIN_FOR_DRAWS = 10
"""Under this many people draws are of too few kinds: the interval is Student's t with the same standard error."""

FAR = 1e6
"""Standard errors that count as endlessly far; one that is as many times smaller than another is rounding, of squares that cancel."""

Floats = NDArray[np.float64]


def interval_of_sums(
    sums: ArrayLike,
    counts: ArrayLike,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> tuple[Floats, Floats]:
    """Interval of a mean from the sums and counts of each person, by the studentised bootstrap: whole people are drawn.

    Every draw is measured in its own standard error, as values are skewed and people few, for which plain percentiles are too narrow
    (``benchmarks/calibration.py``). Memory does not grow with the number of people.

    Source: Davison & Hinkley 1997, sections 3.8, 2.4 and 2.7.2.

    Args:
        sums: (P,) or (P, K).
        counts: (P,); or (P, K), where people have values of some quantities only.
        confidence: Confidence level of the interval, in (0, 1). Default: 0.95.
        resamples: Number of bootstrap draws of people. Default: 2000.
        seed: Seed of the draws. Default: 0.
        bounds: Bounds of the quantity, at which the ends are cut. Default: none.

    Returns:
        Low and high ends, () or (K,); NaN where fewer than two people have the quantity.

    Example:
        >>> low, high = interval_of_sums([0.0, 2.0, 1.0], [1, 2, 1], resamples=100, bounds=(0, 1))
        >>> bool(0 <= low < high <= 1)
        True
    """
    totals, numbers = np.asarray(sums, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    people, shape = len(totals), totals.shape[1:]
    if people < 2:
        missing: Floats = np.full(shape, np.nan)[()]
        return missing, missing
    totals = totals.reshape(people, -1)
    numbers = np.broadcast_to(numbers.reshape(people, -1), totals.shape)
    have = (numbers > 0).sum(0)  # people who have the quantity
    value = divided(totals.sum(0), numbers.sum(0))
    influence = np.nan_to_num(people * divided(totals - value * numbers, numbers.sum(0)))
    scale = np.sqrt(divided(have, people * np.maximum(have - 1, 0)))  # NaN of one person
    error = scale * np.sqrt((influence**2).mean(0))
    far = stdtrit(np.maximum(have - 1, 1), (1 + confidence) / 2)
    low, high = value - far * error, value + far * error
    if (drawn := have >= MIN_FOR_DRAWS).any():
        one = _draws(totals[:, drawn], numbers[:, drawn], influence[:, drawn], resamples, seed)
        ends = studentised(value[drawn], one[0], error[drawn], scale[drawn] * one[1], confidence)
        low[drawn], high[drawn] = ends
    low, high = np.clip(low, *bounds), np.clip(high, *bounds)
    return low.reshape(shape)[()], high.reshape(shape)[()]


def _draws(totals: Floats, numbers: Floats, influence: Floats, resamples: int, seed: int) -> tuple[Floats, Floats]:
    """Means of drawn people, NaN where they have no value, and the spread of the influence within each draw; (B, K) each."""
    people, generator, means, spreads = len(totals), np.random.default_rng(seed), [], []
    step = max(1, 4_000_000 // people)
    for start in range(0, resamples, step):
        shares = np.full(people, 1 / people)
        drawn = generator.multinomial(people, shares, min(step, resamples - start)).astype(np.float64)
        means.append(divided(drawn @ totals, drawn @ numbers))
        squares = drawn @ influence**2 / people - (drawn @ influence / people) ** 2
        spreads.append(np.sqrt(np.maximum(squares, 0)))
    return np.concatenate(means), np.concatenate(spreads)


def divided(totals: ArrayLike, counts: ArrayLike) -> Floats:
    """Totals / counts, NaN where there are none.

    Example:
        >>> divided([1.0, 2.0], [2, 0]).tolist()
        [0.5, nan]
    """
    above, below = np.asarray(totals, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    shape = np.broadcast_shapes(above.shape, below.shape)
    quotients: Floats = np.divide(above, below, out=np.full(shape, np.nan), where=below > 0)
    return quotients


def studentised(value: Any, draws: Floats, error: Any, errors: Floats, confidence: float) -> tuple[Floats, Floats]:
    """Interval from draws in units of their own standard errors; draws without any spread count as far off.

    Where one or two people alone have anything but 0, so many draws leave them out that an end would lie infinitely far off: there it is
    the plain percentiles of the draws.

    Source: Davison & Hinkley 1997, section 2.4.

    Args:
        value: (), or (K,): the estimates.
        draws: (B,) or (B, K): the same for drawn people; NaN for draws that have no value.
        error: of the estimates.
        errors: of each draw.
        confidence: Confidence level of the interval, in (0, 1). Default: 0.95.

    Returns:
        Low and high ends; the value itself where there is no error.

    Example:
        >>> draws = np.linspace(-1, 1, 1001)
        >>> [round(float(end), 2) for end in studentised(0.0, draws, 2.0, np.ones(1001), 0.9)]
        [-1.8, 1.8]
    """
    off, spread, tails = draws - value, errors > np.asarray(error) / FAR, [(1 - confidence) / 2, (1 + confidence) / 2]
    t = np.clip(np.divide(off, errors, out=FAR * np.sign(off), where=spread), -FAR, FAR)
    low, high = np.nanquantile(t, tails, axis=0)
    reach = np.max(np.abs(t), axis=0, initial=0, where=spread & ~np.isnan(t))
    endless = np.maximum(np.abs(low), np.abs(high)) > reach
    least, most = np.nanquantile(draws, tails, axis=0)
    flat = np.asarray(error) == 0
    low, high = np.where(endless, least, value - high * error), np.where(endless, most, value - low * error)
    return np.where(flat, value, low)[()], np.where(flat, value, high)[()]
