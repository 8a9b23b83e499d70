"""Faithfulness: does the similarity fall when the pixels that a map names are taken away?"""

from captum_leam.faithfulness.fills import FILLS, as_fill, blur, mean_colour, zero
from captum_leam.faithfulness.occlusion import OcclusionEvaluator, OcclusionResult, occlude, uniform_random

__all__ = [
    "FILLS",
    "OcclusionEvaluator",
    "OcclusionResult",
    "as_fill",
    "blur",
    "mean_colour",
    "occlude",
    "uniform_random",
    "zero",
]
