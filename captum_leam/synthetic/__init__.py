"""Synthetic faces with planted evidence, and a small network that trains on them: where the right answer is known.

A face is a set of *parts* (eyes, brows, nose, mouth, face, hair), each described by a few numbers in [0, 1]. A person is a set of such
numbers; an image of a person adds nuisance: shift, light, expression, background, sometimes an occluder. With
``evidence="nose"`` only the nose belongs to the person: all other parts are drawn anew for every image and carry nothing.

Faces are drawn in the standard five-point alignment of a 112×112 crop. Left and right are those of the image.
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
