"""
LEAM beside other Captum methods
================================

After this tutorial you can explain an embedding with any Captum method and compare the maps with LEAM's. The network is trained
on people who differ in their **eyes** only, so that the evidence is known. Captum's methods explain a class score;
:class:`~captum_leam.EmbeddingSimilarity` turns the similarity to a reference into such a score.
"""

import torch
from captum.attr import (
    IntegratedGradients,
    LayerAttribution,
    LayerGradCam,
    NoiseTunnel,
    Occlusion,
    Saliency,
)
from matplotlib.figure import Figure

from captum_leam import LEAM, EmbeddingSimilarity
from captum_leam.maps import normalize_sum
from captum_leam.plots import overlay
from captum_leam.synthetic import SyntheticPopulation, centroids, train

population = SyntheticPopulation(8, evidence="eyes")
model = train(population, steps=200)
sample = population.sample([3], seed=50_000)
face = sample.images.requires_grad_()
reference = centroids(model, population)[3]  # of other images of the person

# %%
# The objective, with the norm that each kind of method needs
# -----------------------------------------------------------
# - one gradient at the image (LayerGradCam, Saliency): ``"detach"``, which holds the norm constant;
# - a path with a completeness axiom (IntegratedGradients): ``"fixed"``, with weights that are taken once at the image and
#   passed as an argument;
# - no gradient (Occlusion): any, because only the value counts, which is the cosine for every norm.

detached = EmbeddingSimilarity(model, reference)
fixed = EmbeddingSimilarity(model, norm="fixed")
weights = fixed.fixed_weights(face, reference)
cosine = EmbeddingSimilarity(model, reference, norm="differentiate")
print(f"similarity {detached(face).item():.3f}")

# %%
# The maps
# --------
# Layer methods return maps at the size of the layer; Captum's ``interpolate`` resizes them to the image. For the picture, the
# channels of input methods are summed.


def resized(layer_map):
    """Return a layer's map at the size of the face."""
    return LayerAttribution.interpolate(layer_map, (112, 112), "bilinear")


torch.manual_seed(0)  # NoiseTunnel draws from the global generator
found = {
    "LEAM": resized(LEAM(model, model.last).attribute(face, reference=reference)),
    "LayerGradCam": resized(LayerGradCam(detached, model.last).attribute(face)),
    "Saliency": Saliency(detached).attribute(face),
    "IntegratedGradients": IntegratedGradients(fixed).attribute(
        face, additional_forward_args=(weights,)
    ),
    "Occlusion": Occlusion(cosine).attribute(
        face, sliding_window_shapes=(3, 12, 12), strides=(3, 4, 4)
    ),
    "NoiseTunnel": NoiseTunnel(Saliency(detached)).attribute(
        face, nt_samples=16, stdevs=0.05
    ),
}
maps = {name: attribution.detach().sum(1)[0] for name, attribution in found.items()}

# %%
# How much of each map lies in the eyes
# -------------------------------------
# The eyes, with one 8-px cell of the layer around them, cover a small part of the image. A method that highlights random places
# would have that share of its positive mass there.

eyes = (
    torch.nn.functional.max_pool2d(sample.mask(["eyes"])[:, None].float(), 17, 1, 8)[
        0, 0
    ]
    > 0
)
print(f"{'area of the eyes':20s} {eyes.double().mean():.0%}")
inside = {
    name: normalize_sum(m[None])[0][eyes].sum().item() for name, m in maps.items()
}
for name, share in inside.items():
    print(f"{name:20s} {share:.0%}")

# %%
# One face and one network prove nothing about the methods (:doc:`/results` has many). The picture shows how much six maps of
# the same score differ.

figure = Figure(figsize=(8, 4.8), layout="constrained")
axes = figure.subplots(2, 4).ravel()
axes[0].imshow(face.detach()[0].movedim(0, -1))
axes[0].set_title(f"the face\neyes: {eyes.double().mean():.0%} of it", fontsize=10)
for axis, (name, one) in zip(axes[1:], maps.items(), strict=False):
    axis.imshow(overlay(face[0], one))
    axis.set_title(f"{name}\n{inside[name]:.0%} in the eyes", fontsize=10)
for axis in axes:
    axis.set_axis_off()
figure.savefig("beside_captum.png", dpi=150)
print("picture: beside_captum.png")
