"""Intervals and tests in which a person, and not an image, is one independent observation."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from captum_leam._engine.arithmetic import as_array
from captum_leam.errors import CaptumLeamError
from captum_leam.stats.bootstrap import Floats, divided, interval_of_sums
from captum_leam.stats.labels import person_codes
from captum_leam.stats.student import t_quantile

MIN_PEOPLE = 10
"""Fewest people for a p-value; a signed-rank test of fewer can hardly reach 0.01 after correction."""
ROUNDING = 1e-9
"""Rounding error by which a summed share may lie outside [0, 1]."""


def by_person(values: ArrayLike, people: Sequence[Any]) -> tuple[Floats, Floats]:
    """Return the sum and the number of the values of each person, in order of first appearance.

    Args:
        values: Values, shape (N,) or (N, K).
        people: Person of each of the N rows.

    Returns:
        Sums, shape (P,) or (P, K), and counts, shape (P,).

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
    """Accumulator of the sums and counts of quantities over the images of each person.

    Attributes:
        people: Number of people.
        quantities: Number of quantities.
        sums: Sums so far, shape (people, quantities).
        counts: Numbers of known values so far, shape (people, quantities).

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
            codes: Index of the person of each image, shape (N,); equal ones must be adjacent.
            values: Values, shape (N, quantities), NaN for missing ones.
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
        """Return the means of each person, shape (people, quantities); NaN for quantities without a value."""
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
    """Return the confidence interval of a mean over images of several people.

    Images of one person are not independent. The bootstrap therefore draws people, with all their images. It is studentised, because plain
    percentiles are too narrow for few people. With fewer than ten people the interval is Student's t.

    Source: the cluster bootstrap and the studentised interval, Davison & Hinkley 1997, sections 3.8, 2.4 and 2.7.2.

    Args:
        values: Values, shape (N,) or (N, K) for K quantities.
        people: Person of each of the N rows.
        confidence: Confidence level of the interval, in (0, 1). Default: 0.95.
        resamples: Number of bootstrap draws of people. Default: 2000.
        seed: Seed of the draws. Default: 0.
        bounds: Lowest and highest possible value of the quantity, at which the ends are cut. Default: no bounds.

    Returns:
        Pair of the low and the high end, arrays of shape () or (K,), float64; NaN with fewer than two people.

    See Also:
        :func:`~captum_leam.stats.interval_of_pairs`: Means over pairs that share people.

    Example:
        >>> low, high = bootstrap_interval([0.2, 0.4, 0.5, 0.5, 0.6], ["ann", "ann", "bob", "cy", "di"])
        >>> print(low.round(2), high.round(2))  # around the mean, 0.44
        0.19 0.69
    """
    sums, counts = by_person(values, people)
    return interval_of_sums(sums, counts, confidence=confidence, resamples=resamples, seed=seed, bounds=bounds)


def interval_of_pairs(values: ArrayLike, people: ArrayLike, *, confidence: float = 0.95) -> tuple[float, float]:
    r"""Return the confidence interval of a mean over pairs that share people.

    Use it for shares in [0, 1], such as areas under curves of decisions. Pairs that share a person are not independent. The interval
    accounts for this dependence and is Student's t on the logit scale.

    Source: Aronow, Samii & Assenova 2015, "Cluster-robust variance estimation for dyadic data"; leaving out: MacKinnon & White 1985.

    Args:
        values: Value of each pair in [0, 1], shape (P,).
        people: Both people of each pair, shape (P, 2); the same person twice for genuine pairs.
        confidence: Confidence level of the interval, in (0, 1). Default: 0.95.

    Returns:
        Pair of the low and the high end, floats in [0, 1]. Both are the mean if all values are equal, and NaN if all pairs are of the same
        people.

    Raises:
        CaptumLeamError: If a value is outside [0, 1], or the shapes do not fit.

    Note:
        The variance of the mean of n pairs is :math:`(\sum_i s_i^2 / (1 - h_i)^2 - \sum_{i \ne j} e_{ij}^2) / n^2`, where :math:`e_{ij}`
        is the sum of deviations over the pairs of two people, :math:`s_i` that over the pairs of one person, and :math:`h_i` that person's
        share of all pairs. It is at least that of independent pairs of people. There is one degree of freedom less than people.

    Example:
        >>> low, high = interval_of_pairs([0.2, 0.4, 0.5, 0.3], [("ann", "bob"), ("ann", "eve"), ("bob", "eve"), ("eve", "joe")])
        >>> print(f"{low:.2f} {high:.2f}")  # around the mean, 0.35
        0.06 0.81
    """
    areas, pairs = as_array(values), np.asarray(people)
    if areas.ndim != 1 or pairs.shape != (len(areas), 2):
        raise CaptumLeamError(
            f"Expected `values` of shape (P,) and `people` of shape (P, 2), got {areas.shape} and {pairs.shape}."
        )
    if len(areas) < 2:
        return float("nan"), float("nan")
    if not ((areas >= -ROUNDING) & (areas <= 1 + ROUNDING)).all():
        raise CaptumLeamError(
            f"Expected `values` to be shares in [0, 1], got values from {areas.min():.3g} to {areas.max():.3g}."
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
    # a person in every pair cannot be left out, so that the term of this person is 0
    without = np.nan_to_num(divided(sums, 1 - share))
    of_couple, apart = np.bincount(couple.ravel(), off), couples[0] != couples[1]
    alone = (of_couple**2).sum() * len(of_couple) / (len(of_couple) - 1)
    spread = max((without**2).sum() - (of_couple[apart] ** 2).sum(), alone)
    far = t_quantile(persons - 1, confidence) * np.sqrt(spread) / count
    at, reach = np.log(mean / (1 - mean)), far / (mean * (1 - mean))
    return float(1 / (1 + np.exp(reach - at))), float(1 / (1 + np.exp(-reach - at)))


def paired_p_value(differences: ArrayLike, people: Sequence[Any], *, min_people: int = MIN_PEOPLE) -> float:
    """Return the p-value of a paired comparison over people, by the two-sided Wilcoxon signed-rank test.

    The null hypothesis is that the mean differences of people are symmetric around 0, so that neither side of the comparison is larger.

    Source: Wilcoxon 1945.

    Args:
        differences: Difference of each image, method minus control, shape (N,).
        people: Person of each of the N images; differences are averaged per person first.
        min_people: Fewest people for a p-value. Default: 10.

    Returns:
        p-value in [0, 1], 1 if all differences are 0; NaN with fewer than ``min_people`` people.

    See Also:
        * :func:`~captum_leam.stats.effect_size`: Size of the effect.
        * :func:`~captum_leam.stats.holm`: Adjustment for several tests.

    Example:
        >>> differences = [0.1, 0.2, 0.3, 0.15, 0.5, 0.25, 0.7, 0.35, 0.4, 0.6]
        >>> round(paired_p_value(differences, list("abcdefghij")), 4)
        0.002
        >>> paired_p_value([0.1] * 4, list("abcd"))  # too few people
        nan
    """
    from scipy.stats import wilcoxon

    sums, counts = by_person(differences, people)
    means = sums / counts
    if len(means) < min_people:
        return float("nan")
    return 1.0 if not means.any() else float(wilcoxon(means).pvalue)


def randomisation_p_value(value: float, others: ArrayLike, tie_key: float = 0.5) -> float:
    r"""Return the one-sided p-value of a value among exchangeable others, with ties broken at random.

    .. math:: p = \frac{1 + \#\{o > v\} + \lfloor u\,(1 + \#\{o = v\}) \rfloor}{1 + n}

    The test is exact: if the value and the others are exchangeable, p is uniform on 1/(n + 1), …, 1. A constant statistic, for which all
    values are ties, gives each of these with equal probability.

    Source: randomisation tests with random tie-breaking, Lehmann & Romano 2005, section 15.2; the 1 in both parts, Phipson & Smyth 2010.

    Args:
        value: Value to test; large values are significant.
        others: Values to compare with, shape (n,).
        tie_key: Uniform random number u in [0, 1) that breaks ties. Default: 0.5.

    Returns:
        p-value in (0, 1]; NaN if the value or all others are NaN.

    Example:
        >>> randomisation_p_value(0.5, [0.1, 0.2, 0.3])  # larger than all three others
        0.25
        >>> randomisation_p_value(0.5, [0.5, 0.7, 0.3], tie_key=0.9)
        0.75
    """
    known = as_array(others)
    known = known[~np.isnan(known)]
    if np.isnan(value) or not len(known):
        return float("nan")
    above, equal = int((known > value).sum()), int((known == value).sum())
    return (1 + above + int(tie_key * (1 + equal))) / (1 + len(known))


def holm(p_values: ArrayLike) -> Floats:
    """Return p-values adjusted for several tests by Holm's step-down method.

    The chance that any true null hypothesis is rejected is then at most the level of the tests.

    Source: Holm 1979.

    Args:
        p_values: p-values, shape (K,); NaN is not counted as a test.

    Returns:
        Adjusted p-values in [0, 1], shape (K,); NaN where the p-value is NaN.

    See Also:
        :func:`~captum_leam.stats.paired_p_value`: p-value of one comparison.

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
    r"""Return the effect size of a paired comparison over people, the matched-pairs rank-biserial correlation.

    .. math:: r = (W_+ - W_-) / (W_+ + W_-)

    :math:`W_+` and :math:`W_-` are the sums of the ranks of the absolute mean differences of people whose mean is positive or negative.
    People whose mean is 0 are left out.

    Source: Kerby 2014, "The simple difference formula: an approach to teaching nonparametric correlation", Comprehensive Psychology 3.

    Args:
        differences: Difference of each image, shape (N,).
        people: Person of each of the N images; differences are averaged per person first.

    Returns:
        Correlation in [−1, 1], 1 if every mean that is not 0 is positive; NaN if all are 0.

    See Also:
        :func:`~captum_leam.stats.paired_p_value`: Test of the differences.

    Example:
        >>> round(effect_size([0.1, 0.2, -0.05], list("abc")), 2)
        0.67
    """
    from scipy.stats import rankdata

    sums, counts = by_person(differences, people)
    means = (sums / counts)[sums != 0]
    if not len(means):
        return float("nan")
    ranks = rankdata(np.abs(means))
    return float((ranks * np.sign(means)).sum() / ranks.sum())


def check_options(confidence: float, resamples: int, permutations: int = 0, block: int = 1) -> None:
    """Raise if options of an interval or test are out of range.

    Args:
        confidence: Confidence level, in (0, 1).
        resamples: Number of bootstrap draws, 1 or more.
        permutations: Number of permutations, 0 or more. Default: 0.
        block: Size of a block, 1 or more. Default: 1.

    Raises:
        CaptumLeamError: If an option is out of its range.
    """
    if not 0 < confidence < 1 or resamples < 1 or permutations < 0 or block < 1:
        raise CaptumLeamError(
            f"Expected `confidence` in (0, 1), `resamples` >= 1, `permutations` >= 0 and `block` >= 1, got {confidence}, {resamples}, "
            f"{permutations} and {block}."
        )
