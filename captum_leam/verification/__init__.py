"""Verification: whether a model tells people apart, and whether decisions depend on the pixels that a map names."""

from captum_leam.stats.decisions import Pairs, draw_pairs
from captum_leam.verification.deletion_insertion import VerificationEvaluator, VerificationResult
from captum_leam.verification.pair_scores import PairScores
from captum_leam.verification.verify_model import Verification, verify

__all__ = ["PairScores", "Pairs", "Verification", "VerificationEvaluator", "VerificationResult", "draw_pairs", "verify"]
