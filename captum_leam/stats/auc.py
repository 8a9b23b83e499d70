"""Areas under the ROC curve (AUC) from ranks, weighted values and histograms, with an interval over people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from captum_leam._optional import pd
from captum_leam.stats.bootstrap import Floats, divided
from captum_leam.stats.estimates import MIN_FOR_INTERVAL
from captum_leam.stats.student import t_quantile


def rank_auc(values: Floats, is_positive: NDArray[np.bool_]) -> Floats:
    """Return the AUC of each row of values, with ties counted half.

    Source: Mann & Whitney 1947.

    Args:
        values: Values, shape (N, P).
        is_positive: Whether each value belongs to the positive class, shape (N, P).

    Returns:
        Areas in [0, 1], shape (N,).

    Example:
        >>> rank_auc(np.array([[0.9, 0.1, 0.3, 0.0]]), np.array([[True, True, False, False]])).tolist()
        [0.75]
    """
    from scipy.stats import rankdata  # over a second of processor time, which a page of faces does without

    ranks = rankdata(values, axis=1)
    n, m = is_positive.sum(1), (~is_positive).sum(1)
    areas: Floats = ((ranks * is_positive).sum(1) - n * (n + 1) / 2) / (n * m)
    return areas


def exact_auc(values: NDArray[Any], load: Floats, same: NDArray[np.bool_]) -> float:
    """Return the weighted AUC of values, with ties counted half.

    Args:
        values: Values of pairs, shape (N,).
        load: Weight of each pair, shape (N,).
        same: Whether each pair is of one person, shape (N,).

    Example:
        >>> exact_auc(np.array([0.9, 0.2, 0.5]), np.ones(3), np.array([True, False, False]))
        1.0
    """
    order = np.argsort(values[~same], kind="stable")
    others, below = values[~same][order], np.concatenate([[0.0], np.cumsum(load[~same][order])])
    left, right = (np.searchsorted(others, values[same], side=side) for side in ("left", "right"))
    return float((load[same] * (below[left] + below[right]) / 2).sum() / (load[same].sum() * below[-1]))


@dataclass(frozen=True)
class SameOrDifferent:
    """Coefficient of two maps as a classifier of pairs.

    Attributes:
        value: AUC in [0, 1], the chance that a pair of one person is more alike than a pair of two people; ties count half.
        error: Upper bound of the error of the AUC from the histogram.
        cases: Number of comparisons between a pair of one person and a pair of two people.
        same: Histogram of the coefficients of each person's own pairs, shape (P, bins).
        different: Histogram of the coefficients of each person's pairs with others, shape (P, bins).
    """

    value: float
    error: float
    cases: int
    same: Floats
    different: Floats

    def standard_error(self) -> float:
        """Return the jackknife's standard error over people of the AUC itself; NaN under three people."""
        without = self._without()
        if len(without) < MIN_FOR_INTERVAL:
            return float("nan")
        people = len(self.same)
        return float(np.sqrt((people - 1) / people * ((without - without.mean()) ** 2).sum()))

    def _without(self) -> Floats:
        """Return the AUC without each person, where it is known."""
        without = auc_of_histograms(self.same.sum(0) - self.same, self.different.sum(0) / 2 - self.different)
        known: Floats = without[~np.isnan(without)]
        return known

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Return the interval of the AUC by Student's t on the logit scale, with the standard error of the jackknife over people.

        Source: Arvesen 1969, "Jackknifing U-statistics".

        Args:
            confidence: Confidence level, in (0, 1). Default: 0.95.

        Returns:
            Low and high end in [0, 1]; NaN with fewer than three people. The interval has no width if each pair of one person is
            more alike than each pair of two people.
        """
        people, without = len(self.same), self._without()
        if len(without) < MIN_FOR_INTERVAL:
            return float("nan"), float("nan")
        little = 1 / (2 * self.cases)  # keeps the logit of 1 finite
        leaps = _logit(without, little)
        error = np.sqrt((people - 1) / people * ((leaps - leaps.mean()) ** 2).sum())
        far = t_quantile(people - 1, confidence) * error
        if far == 0:
            return self.value, self.value
        at = _logit(np.array(self.value), little)
        low, high = np.clip((1 + 2 * little) / (1 + np.exp(-(at + np.array([-far, far])))) - little, 0, 1)
        return float(low), float(high)

    def curve(self) -> pd.DataFrame:
        """Return the shares of the pairs of one person and of two people by coefficient.

        Returns:
            One row per bin: ``low``, ``high``, and the shares ``same`` and ``different``, which sum to 1 each.
        """
        edges = np.linspace(0, 1, self.same.shape[1] + 1)
        same, different = self.same.sum(0), self.different.sum(0)
        columns = {
            "low": edges[:-1],
            "high": edges[1:],
            "same": same / same.sum(),
            "different": different / different.sum(),
        }
        return pd.DataFrame(columns)

    def curve_errors(self) -> tuple[Floats, Floats]:
        r"""Return the standard errors over people of the shares of :meth:`curve`, (bins,) each.

        A share is a ratio of sums over people; its standard error is that of its influence values,
        :math:`\psi_p = P\,(h_p - s\,w_p) / \sum w`, with the weight :math:`h_p` of the pairs of person p in the bin, :math:`w_p` in all.
        A pair of two people counts for both (the first-order term of a U-statistic of degree 2, Hoeffding 1948).
        """
        return _share_errors(self.same, 1), _share_errors(self.different, 2)


def _share_errors(histograms: Floats, people_of_pair: int) -> Floats:
    weights, people = histograms.sum(1), len(histograms)
    shares = histograms.sum(0) / weights.sum()
    influence = people * people_of_pair * (histograms - shares * weights[:, None]) / weights.sum()
    errors: Floats = np.sqrt((influence**2).sum(0) / (people * max(people - 1, 1)))
    return errors


def _logit(share: Floats, little: float) -> Floats:
    odds: Floats = np.log((share + little) / (1 - share + little))
    return odds


def auc_of_histograms(same: Floats, different: Floats) -> Floats:
    """Return the AUC of histograms over the same bins, with ties within a bin counted half.

    Args:
        same: Counts of the pairs of one person, shape (B, bins).
        different: Counts of the pairs of two people, shape (B, bins).

    Returns:
        Areas in [0, 1], shape (B,); NaN without pairs of a kind.

    Example:
        >>> auc_of_histograms(np.array([[0.0, 2.0]]), np.array([[3.0, 0.0]])).tolist()
        [1.0]
    """
    below = np.cumsum(different, axis=1) - different / 2
    totals = same.sum(1) * different.sum(1)
    return divided((same * below).sum(1), totals)
