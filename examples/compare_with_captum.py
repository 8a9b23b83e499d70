"""
LEAM beside other Captum methods
================================

One objective, six answers, on a face whose evidence is known: the network is trained here on people who differ in their **eyes** only.
Captum's methods explain a class score; :class:`~captum_leam.EmbeddingSimilarity` gives them the similarity to a reference to explain.
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
# - one gradient at the image (LayerGradCam, Saliency): the norm held constant, ``"detach"``;
# - a path with a completeness axiom (IntegratedGradients): ``"fixed"`` weights, taken once at the image, passed along;
# - no gradient (Occlusion): the value is all that counts, and is the cosine under either norm.

detached = EmbeddingSimilarity(model, reference)
fixed = EmbeddingSimilarity(model, norm="fixed")
weights = fixed.fixed_weights(face, reference)
cosine = EmbeddingSimilarity(model, reference, norm="differentiate")
print(f"similarity {detached(face).item():.3f}")

# %%
# The maps
# --------
# Layer methods give maps at the size of the layer; Captum's ``interpolate`` brings them to the image. The sum over channels of the
# input methods is a choice for the picture.


def resized(layer_map):
    """A layer's map at the size of the face."""
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
# The eyes, and one 8-px cell of the layer around them, cover a small part of the image; a method that points anywhere would have that
# share of its positive mass there.

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
# One face and one network prove nothing about the methods: :doc:`/results` has many. What the picture shows is how different six answers
# to one question look.

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
