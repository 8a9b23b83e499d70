"""Other attribution methods for embedding similarity, as Captum attributions with one interface and counted cost."""

from captum_leam.explainers.base import Cost, Explainer, SimilarityMaps, TwoSidedExplainer
from captum_leam.explainers.cams import GradCAM, HiResCAM, LayerCAM
from captum_leam.explainers.captum_methods import CaptumExplainer
from captum_leam.explainers.exact import Correspondences, GapDecomposition, PositionDecomposition
from captum_leam.explainers.extremal import ExtremalPerturbation
from captum_leam.explainers.gradient import FAME, FGGB, XSSAB
from captum_leam.explainers.perturbation import RISE, CorrRISE, XFace
from captum_leam.explainers.shapley import RegionShapley

__all__ = [
    "FAME",
    "FGGB",
    "RISE",
    "XSSAB",
    "CaptumExplainer",
    "CorrRISE",
    "Correspondences",
    "Cost",
    "Explainer",
    "ExtremalPerturbation",
    "GapDecomposition",
    "GradCAM",
    "HiResCAM",
    "LayerCAM",
    "PositionDecomposition",
    "RegionShapley",
    "SimilarityMaps",
    "TwoSidedExplainer",
    "XFace",
]
