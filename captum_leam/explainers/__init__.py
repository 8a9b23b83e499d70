"""The field's other methods for embedding similarity, as Captum attributions with one interface and counted cost."""

from captum_leam.explainers.base import Cost, Explainer, SimilarityMaps, TwoSidedExplainer
from captum_leam.explainers.gradient import FAME, FGGB, XSSAB

__all__ = ["FAME", "FGGB", "XSSAB", "Cost", "Explainer", "SimilarityMaps", "TwoSidedExplainer"]
