"""
Your own model
==============

After this tutorial you can explain a network of your own: its pixels, the length of its embedding, and its layers, in the order
in which mistakes show. ``MyRecogniser`` stands in for your network. Like many, it reads pixels in [-1, 1] in the order blue,
green, red, and divides its embedding by its length.
"""

import torch
from torch import Tensor, nn

from captum_leam import explain_faces, leave_one_out_centroids, suggest_layers
from captum_leam.models import Prepared, Preprocessing, UpTo
from captum_leam.plots import overlay_grid
from captum_leam.synthetic import SyntheticPopulation, train
from captum_leam.verification import verify

population = SyntheticPopulation(8, evidence="eyes")
trained = train(population, steps=200)


class MyRecogniser(nn.Module):
    """Recogniser with its own scaling, colour order and normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = trained

    def forward(self, bgr: Tensor) -> Tensor:
        """Return unit embeddings of images (N, 3, 112, 112), BGR in [-1, 1]."""
        embeddings = self.backbone(bgr.flip(1) / 2 + 0.5)
        return nn.functional.normalize(embeddings)


network = (
    MyRecogniser().eval()
)  # evaluation mode: with active BatchNorm or Dropout a map would depend on chance
sample = population.sample(4, seed=50_000)
faces, people = (
    sample.images,
    sample.people.tolist(),
)  # RGB in [0, 1], as files are read

# %%
# 1. The pixels that it reads
# ---------------------------
# This package passes RGB in [0, 1]. ``Preprocessing`` describes what the network reads, and ``Prepared`` applies it before the
# network. A wrong preprocessing raises no error, so look at the error rates that ``verify`` measures, of every image with every
# other.

prepared = Prepared(
    network, Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), colour="bgr")
)
print("with it:   ", verify(prepared, faces, people))
print("without it:", verify(network, faces, people))

# %%
# 2. The embedding before it is divided by its length
# ---------------------------------------------------
# An explanation with a constant norm needs the length of the embedding. A network that divides by it allows only the plain cosine,
# whose maps are less faithful. ``UpTo`` returns the output of a module inside.

model = UpTo(prepared, "network.backbone")
print(
    "lengths of the first three:",
    [round(v, 1) for v in model(faces).norm(dim=1)[:3].tolist()],
)

# %%
# 3. The layers
# -------------
# One layer is suggested for every spatial size: the last one that lies on every path. The *field* is the part of the image that
# the network reads, which is not the whole image for some.

layers = suggest_layers(model, faces)
print(layers)

# %%
# 4. The maps
# -----------

references = leave_one_out_centroids(model(faces).detach(), people)
maps = explain_faces(model, faces, layers=layers, reference=references)
figure = overlay_grid(
    faces[::4][:6], maps[::4][:6], [f"person {person}" for person in people[::4][:6]]
)
figure.savefig("own_model.png")

# %%
# A layer of your choice, by the name that PyTorch gives it:

chosen = explain_faces(model, faces, layers=[trained.last], reference=references)
overlap = torch.minimum(chosen, maps).sum((1, 2)).mean()
print(
    f"the map of one layer and the overall map have {overlap:.0%} of their mass in common"
)
print("picture: own_model.png")
