"""Intervals of means by the studentised bootstrap, which draws whole people and scales each draw by its own standard error."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from captum_leam.stats.student import t_quantile

MIN_FOR_DRAWS = 10
"""Fewest people for bootstrap draws; with fewer, the interval is Student's t with the same standard error."""

FAR = 1e6
"""Number of standard errors that counts as infinite; a standard error this many times smaller than another is a rounding error."""

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
    """Return the confidence interval of a mean, from the sum and the number of the values of each person.

    It is that of :func:`~captum_leam.stats.bootstrap_interval`, for data that are summed per person already. People are drawn by the
    bootstrap, and each draw is scaled by its own standard error (studentised), because plain percentiles are too narrow for few people.

    Source: Davison & Hinkley 1997, sections 3.8, 2.4 and 2.7.2.

    Args:
        sums: Sum of the values of each person, shape (P,) or (P, K) for K quantities.
        counts: Number of values of each person, shape (P,), or (P, K) if people lack some quantities.
        confidence: Confidence level of the interval, in (0, 1). Default: 0.95.
        resamples: Number of bootstrap draws of people. Default: 2000.
        seed: Seed of the draws. Default: 0.
        bounds: Lowest and highest possible value of the quantity, at which the ends are cut. Default: no bounds.

    Returns:
        Pair of the low and the high end, arrays of shape () or (K,), float64; NaN where fewer than two people have the quantity.

    Example:
        >>> low, high = interval_of_sums([0.6, 0.5, 0.5, 0.6], [2, 1, 1, 1])  # four people, one of them with two images
        >>> print(low.round(2), high.round(2))  # around the mean, 0.44
        0.19 0.69
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
    far = t_quantile(np.maximum(have - 1, 1), confidence)
    low, high = value - far * error, value + far * error
    if (is_drawn := have >= MIN_FOR_DRAWS).any():
        one = _draws(totals[:, is_drawn], numbers[:, is_drawn], influence[:, is_drawn], resamples, seed)
        ends = studentised(value[is_drawn], one[0], error[is_drawn], scale[is_drawn] * one[1], confidence)
        low[is_drawn], high[is_drawn] = ends
    low, high = np.clip(low, *bounds), np.clip(high, *bounds)
    return low.reshape(shape)[()], high.reshape(shape)[()]


def _draws(totals: Floats, numbers: Floats, influence: Floats, resamples: int, seed: int) -> tuple[Floats, Floats]:
    """Return the means of each draw, NaN without a value, and the spread of the influence in each draw, shape (B, K) each."""
    people, generator, means, spreads = len(totals), np.random.default_rng(seed), [], []
    step = max(1, 4_000_000 // people)
    for start in range(0, resamples, step):
        shares = np.full(people, 1 / people)
        draw_counts = generator.multinomial(people, shares, min(step, resamples - start)).astype(np.float64)
        means.append(divided(draw_counts @ totals, draw_counts @ numbers))
        squares = draw_counts @ influence**2 / people - (draw_counts @ influence / people) ** 2
        spreads.append(np.sqrt(np.maximum(squares, 0)))
    return np.concatenate(means), np.concatenate(spreads)


def divided(totals: ArrayLike, counts: ArrayLike) -> Floats:
    """Return totals divided by counts, NaN where the count is 0.

    Args:
        totals: Totals of any shape.
        counts: Counts of a shape that broadcasts.

    Example:
        >>> divided([1.0, 2.0], [2, 0]).tolist()
        [0.5, nan]
    """
    above, below = np.asarray(totals, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    shape = np.broadcast_shapes(above.shape, below.shape)
    quotients: Floats = np.divide(above, below, out=np.full(shape, np.nan), where=below > 0)
    return quotients


def studentised(value: Any, draws: Floats, error: Any, errors: Floats, confidence: float) -> tuple[Floats, Floats]:
    """Return the studentised interval from bootstrap draws and their standard errors.

    A draw without spread counts as infinitely far off. If only one or two people have a value other than 0, many draws lack them and an
    end would be infinite; that end is then the plain percentile of the draws.

    Source: Davison & Hinkley 1997, section 2.4.

    Args:
        value: Estimates, shape () or (K,).
        draws: Estimates of the draws, shape (B,) or (B, K); NaN for a draw without a value.
        error: Standard errors of the estimates, shape () or (K,).
        errors: Standard errors of the draws, shape (B,) or (B, K).
        confidence: Confidence level of the interval, in (0, 1). Default: 0.95.

    Returns:
        Low and high ends, shape () or (K,); both are the value itself where its error is 0.

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
