"""
Adding a method
===============

After this tutorial you can compare a method of your own with all others. A method is one class with one function. The package
counts its passes and checks its inputs like those of the others. The example is input times gradient of the cosine (Shrikumar
et al. 2016, arXiv 1605.01713).
"""

import pandas as pd
import torch
from torch import Tensor

from captum_leam import explain_faces, leave_one_out_centroids
from captum_leam.explainers import FGGB, XSSAB, Explainer
from captum_leam.explainers.base import as_map_batch, cosines
from captum_leam.faithfulness import OcclusionEvaluator, mass_accuracy
from captum_leam.objectives import direction
from captum_leam.plots import overlay_grid
from captum_leam.synthetic import SyntheticPopulation, train

# %%
# The method
# ----------
# It gets at most ``batch_size`` images with their references, calls the model through ``_embed``, takes gradients through
# ``_gradient`` (both are counted), and returns signed maps (n, 1, H, W).


class GradientTimesInput(Explainer):
    r"""Input times gradient of the cosine, :math:`M = \sum_c x_c\, \partial s / \partial x_c`."""

    def _signed(self, images: Tensor, reference: Tensor | None) -> Tensor:
        x = images.requires_grad_()
        embeddings = self._embed(x)
        gradient = self._gradient(
            cosines(embeddings, direction(embeddings, reference)), x
        )
        return as_map_batch((gradient * x).sum(1))


# %%
# Compare it with others
# ----------------------
# The people differ in their eyes only. *Mass* is the share of the positive attribution in the eyes, *drop* the mean drop of the
# cosine after blurring the top 5 % of the pixels.

population = SyntheticPopulation(8, evidence="eyes")
model = train(population, steps=200)
sample = population.sample(3, seed=50_000)
faces, people = sample.images, sample.people.tolist()
references = leave_one_out_centroids(model(faces).detach(), people)

methods = {
    "mine": GradientTimesInput(model),
    "xSSAB": XSSAB(model),
    "FGGB": FGGB(model),
}
maps = {
    name: method.attribute(faces, reference=references)[:, 0]
    for name, method in methods.items()
}
maps["LEAM"] = explain_faces(model, faces, reference=references)

result = OcclusionEvaluator(
    model, fractions=(0.05,), controls=("random pixels",)
).evaluate(faces, maps, labels=people)
drops = result.summary().set_index("method")["drop"]
costs = {name: method.cost for name, method in methods.items()}
eyes = sample.mask(["eyes"])
rows = [
    {
        "method": name,
        "mass": mass_accuracy(of_method, eyes).mean().item(),
        "drop": drops[name],
        "forwards, backwards per image": f"{costs[name].forwards:g}, {costs[name].backwards:g}"
        if name in costs
        else "",
    }
    for name, of_method in maps.items()
]
print(pd.DataFrame(rows).round(3).to_string(index=False))
print(
    f"random pixels: drop {drops['']:.3f}; the eyes are {eyes.double().mean():.1%} of the image"
)

# %%
# The maps of one face
# --------------------

figure = overlay_grid(
    faces[:1].expand(len(maps), -1, -1, -1),
    torch.stack([m[0] for m in maps.values()]),
    list(maps),
)
figure.savefig("methods.png")
print("picture: methods.png")

# %%
# Contribute it
# -------------
# Add its name to ``captum_leam/explainers/__init__.py``, a row to ``METHODS`` of ``tests/explainers/test_contract.py``, which
# checks batches, references, counted cost and the user's state, and a test against the formula written as a slow loop.
# ``CONTRIBUTING.md`` has the details.
