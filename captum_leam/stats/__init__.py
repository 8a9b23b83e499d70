"""Statistics over people and pairs: intervals, tests, thresholds, error rates."""

from captum_leam.stats.bootstrap import interval_of_sums
from captum_leam.stats.decisions import decision_rates, error_rates, threshold_at_eer, threshold_at_fmr
from captum_leam.stats.inference import (
    bootstrap_interval,
    effect_size,
    holm,
    interval_of_pairs,
    paired_p_value,
    randomisation_p_value,
)

__all__ = [
    "bootstrap_interval",
    "decision_rates",
    "effect_size",
    "error_rates",
    "holm",
    "interval_of_pairs",
    "interval_of_sums",
    "paired_p_value",
    "randomisation_p_value",
    "threshold_at_eer",
    "threshold_at_fmr",
]
