"""Quantiles of Student's t distribution."""

from typing import Any


def t_quantile(freedom: Any, confidence: float) -> Any:
    """Return the two-sided quantile of Student's t distribution: how many standard errors the ends of an interval lie away.

    Args:
        freedom: Degrees of freedom, a number or an array.
        confidence: Confidence level, in (0, 1).

    Returns:
        Number or array of the shape of ``freedom``.

    Example:
        >>> round(float(t_quantile(10, 0.95)), 3)
        2.228
    """
    from scipy.special import stdtrit  # here, because importing LEAM must not load it

    return stdtrit(freedom, (1 + confidence) / 2)
