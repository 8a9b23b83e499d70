"""Statistics that respect that images share people: a person, not an image, is one independent observation."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

MIN_PEOPLE = 10
"""Under this many people no p-value is given: a signed-rank test of fewer can hardly reach 0.01 after correction."""

Floats = NDArray[np.float64]


def by_person(values: ArrayLike, people: Sequence[Any]) -> tuple[Floats, Floats]:
    """Sums and counts of the values of each person, people in order of first appearance.

    Args:
        values: (N,) or (N, K).
        people: N labels.

    Returns:
        Sums (P,) or (P, K) and counts (P,).

    Example:
        >>> by_person([1.0, 2.0, 5.0], ["ann", "ann", "bob"])
        (array([3., 5.]), array([2., 1.]))
    """
    table = np.asarray(values, dtype=np.float64)
    number = {person: i for i, person in enumerate(dict.fromkeys(people))}
    index = np.array([number[person] for person in people])
    sums = np.zeros((len(number), *table.shape[1:]))
    np.add.at(sums, index, table)
    return sums, np.bincount(index, minlength=len(number)).astype(np.float64)


def bootstrap_interval(
    values: ArrayLike, people: Sequence[Any], *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[Floats, Floats]:
    """Interval of a mean by the percentile bootstrap over people: whole people are drawn, with all their images.

    Source: the cluster bootstrap, Davison & Hinkley 1997, section 3.8.

    Args:
        values: (N,) or (N, K), one column per quantity.
        people: N labels.
        confidence: of the interval.
        resamples: how many times people are drawn.
        seed: of the drawing.

    Returns:
        Low and high ends, () or (K,); NaN with fewer than two people.

    Example:
        >>> low, high = bootstrap_interval([0.0, 1.0, 0.0, 1.0, 0.0, 1.0], list("abcdef"))
        >>> bool(0 <= low < 0.5 < high <= 1)
        True
    """
    return interval_of_sums(*by_person(values, people), confidence=confidence, resamples=resamples, seed=seed)


def interval_of_sums(
    sums: ArrayLike, counts: ArrayLike, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[Floats, Floats]:
    """:func:`bootstrap_interval` where the sums and counts of each person are there already; memory does not grow with their number.

    Args:
        sums: (P,) or (P, K).
        counts: (P,); or (P, K), where people have values of some quantities only.
        confidence: of the interval.
        resamples: how many times people are drawn.
        seed: of the drawing.

    Returns:
        Low and high ends, () or (K,); NaN with fewer than two people.

    Example:
        >>> low, high = interval_of_sums([0.0, 2.0, 1.0], [1, 2, 1], resamples=100)
        >>> bool(0 <= low < high <= 1)
        True
    """
    totals, numbers = np.asarray(sums, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    people = len(numbers)
    if people < 2:
        missing = np.full(totals.shape[1:], np.nan)
        return missing, missing
    generator, parts = np.random.default_rng(seed), []
    step = max(1, 4_000_000 // people)
    for start in range(0, resamples, step):
        drawn = generator.multinomial(people, np.full(people, 1 / people), min(step, resamples - start))
        over = drawn @ numbers
        over = over.reshape(len(over), *[1] * (totals.ndim - 1)) if numbers.ndim < totals.ndim else over
        parts.append(
            np.divide(drawn @ totals, over, out=np.full((len(drawn), *totals.shape[1:]), np.nan), where=over > 0)
        )
    means = np.concatenate(parts)
    known = ~np.isnan(means).all(0)
    if not known.all():  # quantities that nobody has
        means = np.where(known, means, 0)
    low, high = np.nanquantile(means, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    return np.where(known, low, np.nan)[()], np.where(known, high, np.nan)[()]


def paired_p_value(differences: ArrayLike, people: Sequence[Any], *, min_people: int = MIN_PEOPLE) -> float:
    """Two-sided Wilcoxon signed-rank test that the mean differences of people centre on 0.

    Args:
        differences: (N,), method minus control, image by image.
        people: N labels; differences are averaged per person first.
        min_people: fewer give NaN, a refusal.

    Returns:
        p within [0, 1]; 1 when all differences are 0; NaN under the minimum of people.

    Example:
        >>> paired_p_value([0.1] * 4, list("abcd"))
        nan
        >>> paired_p_value([0.1, 0.2, 0.3, 0.1, 0.5, 0.2, 0.7, 0.3, 0.4, 0.6], list("abcdefghij")) < 0.01
        True
    """
    from scipy.stats import wilcoxon

    sums, counts = by_person(differences, people)
    means = sums / counts
    if len(means) < min_people:
        return float("nan")
    return 1.0 if not means.any() else float(wilcoxon(means).pvalue)


def holm(p_values: ArrayLike) -> Floats:
    """Holm's step-down adjustment for several tests (Holm 1979); NaN stays NaN and is not counted.

    Example:
        >>> holm([0.01, 0.04, float("nan"), 0.03]).tolist()
        [0.03, 0.06, nan, 0.06]
    """
    p = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(p.shape, np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def effect_size(differences: ArrayLike, people: Sequence[Any]) -> float:
    """Matched-pairs rank-biserial correlation (Kerby 2014): (favourable − unfavourable rank sum) / all, over people.

    Returns:
        Within [−1, 1]: 1 when every person's mean difference is positive; NaN when all are 0.

    Example:
        >>> effect_size([0.1, 0.2, -0.05], list("abc"))
        0.6666666666666666
    """
    from scipy.stats import rankdata

    sums, counts = by_person(differences, people)
    means = (sums / counts)[sums != 0]
    if not len(means):
        return float("nan")
    ranks = rankdata(np.abs(means))
    return float((ranks * np.sign(means)).sum() / ranks.sum())
