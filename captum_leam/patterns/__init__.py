"""Person patterns: overlap of the maps of one person and of different people, beside controls."""

from captum_leam.patterns.baselines import (
    closest_strangers,
    control_maps,
    crop_features,
    edge_maps,
    pose_features,
    region_maps,
    untrained_maps,
)
from captum_leam.patterns.claim import PatternClaim, pattern_claim
from captum_leam.patterns.group_comparison import GroupComparison, compare_groups
from captum_leam.patterns.map_agreement import Agreement, agreement
from captum_leam.patterns.signatures import Signatures, profile_signatures, signatures
from captum_leam.patterns.specificity import Specificity, person_specificity

__all__ = [
    "Agreement",
    "GroupComparison",
    "PatternClaim",
    "Signatures",
    "Specificity",
    "agreement",
    "closest_strangers",
    "compare_groups",
    "control_maps",
    "crop_features",
    "edge_maps",
    "pattern_claim",
    "person_specificity",
    "pose_features",
    "profile_signatures",
    "region_maps",
    "signatures",
    "untrained_maps",
]
