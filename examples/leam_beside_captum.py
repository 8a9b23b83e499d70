"""LEAM next to five Captum methods, on one face: the same objective, six answers.

    python examples/leam_beside_captum.py [--out beside_captum.png] [--steps 500]

The network is trained here on synthetic faces whose identity lies in the eyes, so the right answer is known. Under every map stands the
share of its positive mass in the eyes (their area is in brackets above the face).
"""

import argparse

import torch
from captum.attr import IntegratedGradients, LayerAttribution, LayerGradCam, NoiseTunnel, Occlusion, Saliency
from matplotlib.figure import Figure
from torch import Tensor

from captum_leam import LEAM, EmbeddingSimilarity
from captum_leam.maps import normalize_sum
from captum_leam.plots import overlay
from captum_leam.synthetic import SyntheticPopulation, centroids, train


def explain(model: torch.nn.Module, face: Tensor, reference: Tensor) -> dict[str, Tensor]:
    """Six maps of one face, (H, W) each; Captum's methods explain the same similarity through EmbeddingSimilarity."""
    face = face.clone().requires_grad_()
    detached = EmbeddingSimilarity(model, reference)  # the norm held constant: for methods of one gradient
    fixed = EmbeddingSimilarity(
        model, norm="fixed"
    )  # constant weights w = r/|f(x)|: for methods with a completeness axiom
    weights = fixed.fixed_weights(face, reference)
    size = face.shape[-2:]

    def resized(maps: Tensor) -> Tensor:
        return LayerAttribution.interpolate(maps, size, "bilinear")

    torch.manual_seed(0)  # NoiseTunnel draws from the global generator
    found = {
        "LEAM": resized(LEAM(model, model.last).attribute(face, reference=reference)),
        "LayerGradCam": resized(LayerGradCam(detached, model.last).attribute(face)),
        "Saliency": Saliency(detached).attribute(face),
        "IntegratedGradients": IntegratedGradients(fixed).attribute(face, additional_forward_args=(weights,)),
        "Occlusion": Occlusion(EmbeddingSimilarity(model, reference, norm="differentiate")).attribute(
            face, sliding_window_shapes=(3, 12, 12), strides=(3, 4, 4)
        ),
        "NoiseTunnel(Saliency)": NoiseTunnel(Saliency(detached)).attribute(face, nt_samples=16, stdevs=0.05),
    }
    return {name: maps.detach().sum(1)[0] for name, maps in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="beside_captum.png")
    parser.add_argument("--steps", type=int, default=500)
    options = parser.parse_args()
    population = SyntheticPopulation(12, evidence="eyes")
    model = train(population, steps=options.steps)
    faces = population.sample([3], seed=50_000)
    maps = explain(model, faces.images, centroids(model, population)[3])
    eyes = (
        torch.nn.functional.max_pool2d(faces.mask(["eyes"])[:, None].float(), 17, 1, 8)[0, 0] > 0
    )  # and one 8-px cell around

    figure = Figure(figsize=(11, 2.2), layout="constrained")
    axes = figure.subplots(1, 1 + len(maps))
    axes[0].imshow(faces.images[0].movedim(0, -1))
    axes[0].set_title(f"the face\n(eyes: {eyes.double().mean():.0%})", fontsize=9)
    for axis, (name, found) in zip(axes[1:], maps.items(), strict=True):
        inside = normalize_sum(found[None])[0][eyes].sum().item()
        print(f"{name:22s} {inside:.0%} of the positive mass in the eyes")
        axis.imshow(overlay(faces.images[0], found))
        axis.set_title(f"{name}\n{inside:.0%}", fontsize=9)
    for axis in axes:
        axis.set_axis_off()
    figure.savefig(options.out, dpi=150)
    print(f"picture: {options.out}")


if __name__ == "__main__":
    main()
