"""Faithfulness: whether occluding the pixels that a map names lowers the similarity more than controls do."""

from captum_leam.faithfulness.captum_metrics import infidelity, input_attributions, sensitivity_max
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
from captum_leam.faithfulness.occlusion_result import OcclusionResult
from captum_leam.faithfulness.patch_pairs import PatchPairs, PatchResult, evaluate_patch_pairs, paste_patches
from captum_leam.faithfulness.person_masks import evaluate_person_masks, person_mask
from captum_leam.faithfulness.ranking import LayerRanking, rank_layers
from captum_leam.faithfulness.sanity import SanityReport, sanity_checks

__all__ = [
    "FILLS",
    "AdditiveSimilarity",
    "Fill",
    "LayerRanking",
    "OcclusionEvaluator",
    "OcclusionResult",
    "PatchPairs",
    "PatchResult",
    "SanityReport",
    "as_fill",
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
    "rank_accuracy",
    "rank_layers",
    "roc_auc",
    "sanity_checks",
    "sensitivity_max",
]
