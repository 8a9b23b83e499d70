"""Statistics that respect that images share people: a person, not an image, is one independent observation."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from captum_leam._engine.arithmetic import as_array
from captum_leam.errors import CaptumLeamError
from captum_leam.stats.bootstrap import Floats, divided, interval_of_sums
from captum_leam.stats.labels import person_codes

MIN_PEOPLE = 10
"""Under this many people no p-value is given: a signed-rank test of fewer can hardly reach 0.01 after correction."""
ROUNDING = 1e-9
"""How far beyond [0, 1] a share may lie that was summed."""


def by_person(values: ArrayLike, people: Sequence[Any]) -> tuple[Floats, Floats]:
    """Return sums and counts of the values of each person, people in order of first appearance.

    Args:
        values: (N,) or (N, K).
        people: Person of each of the N rows.

    Returns:
        Sums (P,) or (P, K) and counts (P,).

    Example:
        >>> by_person([1.0, 2.0, 5.0], ["ann", "ann", "bob"])
        (array([3., 5.]), array([2., 1.]))
    """
    table = as_array(values)
    names, codes = person_codes(people, len(table), "values")
    sums = np.zeros((len(names), *table.shape[1:]))
    np.add.at(sums, codes, table)
    return sums, np.bincount(codes, minlength=len(names)).astype(np.float64)


@dataclass
class PersonTotals:
    """Sums and counts of quantities over the images of each person, batch after batch; states can be merged.

    Example:
        >>> sums = PersonTotals(people=2, quantities=1)
        >>> sums.update(np.array([0, 0, 1]), np.array([[1.0], [2.0], [np.nan]]))
        >>> sums.means().tolist()
        [[1.5], [nan]]
    """

    people: int
    quantities: int
    sums: Floats = field(init=False)
    counts: Floats = field(init=False)

    def __post_init__(self) -> None:
        self.sums = np.zeros((self.people, self.quantities))
        self.counts = np.zeros((self.people, self.quantities))

    def update(self, codes: NDArray[np.int64], values: NDArray[Any]) -> None:
        """Add images.

        Args:
            codes: Numbers (N,) of their people, equal ones beside each other.
            values: Values (N, quantities), NaN for missing ones.
        """
        known = ~np.isnan(values)
        filled = np.where(known, values, 0).astype(np.float64)
        starts = np.flatnonzero(np.diff(codes, prepend=-1))
        self.sums[codes[starts]] += np.add.reduceat(filled, starts, axis=0)
        self.counts[codes[starts]] += np.add.reduceat(known.astype(np.float64), starts, axis=0)

    def merge(self, other: "PersonTotals") -> None:
        """Add the images of another state of the same people."""
        self.sums += other.sums
        self.counts += other.counts

    def means(self) -> Floats:
        """Return the mean of each person (people, quantities), NaN for what a person lacks."""
        return divided(self.sums, self.counts)


def bootstrap_interval(
    values: ArrayLike,
    people: Sequence[Any],
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    bounds: tuple[float, float] = (-np.inf, np.inf),
) -> tuple[Floats, Floats]:
    """Interval of a mean by the studentised bootstrap over people: whole people are drawn, with all their images.

    Every draw is measured in its own standard error, as values are skewed and people few, for which plain percentiles are too narrow
    (``benchmarks/calibration.py``). Under ten people it is Student's t with the same standard error.

    Source: the cluster bootstrap and the studentised interval, Davison & Hinkley 1997, sections 3.8, 2.4 and 2.7.2.

    Args:
        values: (N,) or (N, K), one column per quantity.
        people: Person of each of the N rows.
        confidence: Confidence level of the interval, in (0, 1). Default: 0.95.
        resamples: Number of bootstrap draws of people. Default: 2000.
        seed: Seed of the draws. Default: 0.
        bounds: Bounds of the quantity, at which the ends are cut. Default: none.

    Returns:
        Low and high ends, () or (K,); NaN with fewer than two people.

    Example:
        >>> low, high = bootstrap_interval([0.0, 1.0, 0.0, 1.0, 0.0, 1.0], list("abcdef"), bounds=(0, 1))
        >>> bool(0 <= low < 0.5 < high <= 1)
        True
    """
    sums, counts = by_person(values, people)
    return interval_of_sums(sums, counts, confidence=confidence, resamples=resamples, seed=seed, bounds=bounds)


def interval_of_pairs(values: ArrayLike, people: ArrayLike, *, confidence: float = 0.95) -> tuple[float, float]:
    r"""Interval of the mean of pairs that share people: for shares in [0, 1], such as areas under curves of decisions.

    Pairs depend on each other where they have a person in common. The variance of the mean of n pairs is
    :math:`(\sum_i s_i^2 / (1 - h_i)^2 - \sum_{i \ne j} e_{ij}^2) / n^2`, with sums of deviations :math:`e_{ij}` over the pairs of
    two people and :math:`s_i` over those of one, whose share of all pairs is :math:`h_i` (leaving that person out); it is never taken
    for less than if every two people were independent of the others. The interval is Student's t on the scale of the logit, with a
    degree of freedom less than people; ``benchmarks/calibration.py`` measures how often it holds. (A bootstrap that draws people and
    multiplies their weights counts thrice what is a pair's own.)

    Source: Aronow, Samii & Assenova 2015, "Cluster-robust variance estimation for dyadic data"; leaving out: MacKinnon & White 1985.

    Args:
        values: (P,), within [0, 1].
        people: (P, 2), the two people of each pair; twice the same for genuine pairs.
        confidence: Confidence level of the interval, in (0, 1). Default: 0.95.

    Returns:
        Low and high end, within [0, 1]; the mean itself where all values are equal; NaN where all pairs, if any, are of
        the same people.

    Raises:
        CaptumLeamError: for values beyond [0, 1], or people that do not fit.

    Example:
        >>> low, high = interval_of_pairs([0.2, 0.4, 0.5, 0.3], [("ann", "bob"), ("ann", "eve"), ("bob", "eve"), ("eve", "joe")])
        >>> 0 < low < 0.35 < high < 1
        True
    """
    areas, pairs = as_array(values), np.asarray(people)
    if areas.ndim != 1 or pairs.shape != (len(areas), 2):
        raise CaptumLeamError(f"values are {areas.shape} and people {pairs.shape}; expected (P,) and (P, 2).")
    if len(areas) < 2:
        return float("nan"), float("nan")
    if not ((areas >= -ROUNDING) & (areas <= 1 + ROUNDING)).all():
        raise CaptumLeamError(
            f"values reach from {areas.min():.3g} to {areas.max():.3g}; expected shares within [0, 1]."
        )
    areas = np.clip(areas, 0, 1)
    names, numbers = np.unique(pairs, return_inverse=True)
    count, persons = len(areas), len(names)
    first, second = numbers.reshape(pairs.shape).T
    couples, couple = np.unique(np.sort([first, second], axis=0), axis=1, return_inverse=True)
    if couples.shape[1] < 2:
        return float("nan"), float("nan")
    mean, two = areas.mean(), first != second
    if np.ptp(areas) == 0:
        return float(mean), float(mean)
    off = areas - mean
    sums = np.bincount(first, off, persons) + np.bincount(second, off * two, persons)
    share = (np.bincount(first, minlength=persons) + np.bincount(second, two, persons)) / count
    # who is in every pair cannot be left out, and is held as they are
    without = np.nan_to_num(divided(sums, 1 - share))
    of_couple, apart = np.bincount(couple.ravel(), off), couples[0] != couples[1]
    alone = (of_couple**2).sum() * len(of_couple) / (len(of_couple) - 1)
    spread = max((without**2).sum() - (of_couple[apart] ** 2).sum(), alone)
    far = stdtrit(persons - 1, (1 + confidence) / 2) * np.sqrt(spread) / count
    at, reach = np.log(mean / (1 - mean)), far / (mean * (1 - mean))
    return float(1 / (1 + np.exp(reach - at))), float(1 / (1 + np.exp(-reach - at)))


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


def randomisation_p_value(value: float, others: ArrayLike, tie_key: float = 0.5) -> float:
    r"""One-sided p-value of a value among exchangeable others, ties broken at random.

    .. math:: p = \frac{1 + \#\{o > v\} + \lfloor u\,(1 + \#\{o = v\}) \rfloor}{1 + n}

    If the value and the others are exchangeable, p is uniform on 1/(n + 1), …, 1: the test is exact. A constant statistic, for which all
    values are ties, gives any of them with equal probability.

    Source: randomisation tests with random tie-breaking, Lehmann & Romano 2005, section 15.2; the 1 in both parts, Phipson & Smyth 2010.

    Args:
        value: Value tested; large values are significant.
        others: Values (n,) to compare with.
        tie_key: Uniform random number u in [0, 1) that breaks ties. Default: 0.5.

    Returns:
        p in (0, 1]; NaN for a value that is NaN, and without any number to compare with.

    Example:
        >>> randomisation_p_value(0.5, [0.1, 0.2, 0.3]), randomisation_p_value(0.5, [0.5, 0.7, 0.3], tie_key=0.9)
        (0.25, 0.75)
    """
    known = as_array(others)
    known = known[~np.isnan(known)]
    if np.isnan(value) or not len(known):
        return float("nan")
    above, equal = int((known > value).sum()), int((known == value).sum())
    return (1 + above + int(tie_key * (1 + equal))) / (1 + len(known))


def holm(p_values: ArrayLike) -> Floats:
    """Holm's step-down adjustment for several tests (Holm 1979); NaN stays NaN and is not counted.

    Example:
        >>> holm([0.01, 0.04, float("nan"), 0.03]).tolist()
        [0.03, 0.06, nan, 0.06]
    """
    p = as_array(p_values)
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


def check_options(confidence: float, resamples: int, permutations: int = 0, block: int = 1) -> None:
    """Refuse options out of range.

    Raises:
        CaptumLeamError: naming all of them.
    """
    if not 0 < confidence < 1 or resamples < 1 or permutations < 0 or block < 1:
        raise CaptumLeamError(
            f"confidence={confidence}, resamples={resamples}, permutations={permutations}, block={block}; expected a share in (0, 1), "
            "1 or more, 0 or more, 1 or more."
        )
