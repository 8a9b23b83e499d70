"""Faithfulness: does the similarity fall when the pixels that a map names are taken away, and more than under controls?"""

from captum_leam.faithfulness.controls import CONTROLS, Scene, central_ellipse
from captum_leam.faithfulness.fills import FILLS, Fill, as_fill
from captum_leam.faithfulness.occlusion import OcclusionEvaluator, occlude
from captum_leam.faithfulness.person_masks import evaluate_person_masks, person_mask
from captum_leam.faithfulness.ranking import LayerRanking, rank_layers
from captum_leam.faithfulness.result import OcclusionResult

__all__ = [
    "CONTROLS",
    "FILLS",
    "Fill",
    "LayerRanking",
    "OcclusionEvaluator",
    "OcclusionResult",
    "Scene",
    "as_fill",
    "central_ellipse",
    "evaluate_person_masks",
    "occlude",
    "person_mask",
    "rank_layers",
]
