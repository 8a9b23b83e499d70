"""Faithfulness: does the similarity fall when the pixels that a map names are taken away, and more than under controls?"""

from captum_leam.decisions import Pairs, draw_pairs
from captum_leam.faithfulness.captum_metrics import infidelity, input_attributions, sensitivity_max
from captum_leam.faithfulness.controls import CONTROLS, Scene, central_ellipse
from captum_leam.faithfulness.fills import FILLS, Fill, as_fill
from captum_leam.faithfulness.ground_truth import (
    AdditiveSimilarity,
    iou,
    mass_accuracy,
    part_agreement,
    part_importance,
    pointing_game,
    rank_accuracy,
    roc_auc,
)
from captum_leam.faithfulness.occlusion import OcclusionEvaluator, occlude
from captum_leam.faithfulness.patch_pairs import PatchPairs, PatchResult, evaluate_patch_pairs, paste_patches
from captum_leam.faithfulness.person_masks import evaluate_person_masks, person_mask
from captum_leam.faithfulness.ranking import LayerRanking, rank_layers
from captum_leam.faithfulness.result import OcclusionResult
from captum_leam.faithfulness.sanity import SanityReport, randomised, sanity_checks
from captum_leam.faithfulness.verification import VerificationEvaluator, VerificationResult

__all__ = [
    "CONTROLS",
    "FILLS",
    "AdditiveSimilarity",
    "Fill",
    "LayerRanking",
    "OcclusionEvaluator",
    "OcclusionResult",
    "Pairs",
    "PatchPairs",
    "PatchResult",
    "SanityReport",
    "Scene",
    "VerificationEvaluator",
    "VerificationResult",
    "as_fill",
    "central_ellipse",
    "draw_pairs",
    "evaluate_patch_pairs",
    "evaluate_person_masks",
    "infidelity",
    "input_attributions",
    "iou",
    "mass_accuracy",
    "occlude",
    "part_agreement",
    "part_importance",
    "paste_patches",
    "person_mask",
    "pointing_game",
    "randomised",
    "rank_accuracy",
    "rank_layers",
    "roc_auc",
    "sanity_checks",
    "sensitivity_max",
]
