"""Synthetic faces with planted evidence and networks trained on them, as a ground truth for attribution methods.

A face has *parts* (eyes, brows, nose, mouth, face, hair), each described by a few numbers in [0, 1]. A person is a set of these numbers. An
image of the person adds nuisance factors: translation, light, expression, background and sometimes an occluder. With
``evidence="nose"``, only the nose belongs to the person. All other parts are random in each image and carry no information.

Faces have the standard five-point alignment of a 112 × 112 px crop. Left and right are those of the image.
"""

from captum_leam.synthetic.drawing import PARTS, REGIONS
from captum_leam.synthetic.network import EmbeddingNet, SwapTest, centroids, swap_test, train
from captum_leam.synthetic.population import SyntheticFaces, SyntheticPopulation, render, swap
from captum_leam.synthetic.trained_networks import has_weights, load_trained

__all__ = [
    "PARTS",
    "REGIONS",
    "EmbeddingNet",
    "SwapTest",
    "SyntheticFaces",
    "SyntheticPopulation",
    "centroids",
    "has_weights",
    "load_trained",
    "render",
    "swap",
    "swap_test",
    "train",
]
