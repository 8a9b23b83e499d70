"""
Your first map in five minutes
==============================

From faces and an embedding network to a map, to the regions that it names, to the question whether it is true. The faces are drawn by
the package and the network is trained here, so that the right answer is known: the people differ in their **eyes** and in nothing
else.
"""

# %%
# A network and faces
# -------------------
# ``model`` takes images (N, 3, 112, 112) and returns embeddings (N, 32). Yours takes its place: see :doc:`own_model`.

from captum_leam import LEAM, explain_faces, leave_one_out_centroids, suggest_layers
from captum_leam.faithfulness import OcclusionEvaluator
from captum_leam.plots import overlay_grid
from captum_leam.regions import region_report
from captum_leam.synthetic import SyntheticPopulation, train

population = SyntheticPopulation(8, evidence="eyes")
model = train(population, steps=200)

sample = population.sample(3, seed=50_000)  # three new images of each of eight people
faces, people = sample.images, sample.people
print(faces.shape, "faces of", len(people.unique()), "people")

# %%
# Whom should a face match?
# -------------------------
# A map explains a similarity, and a similarity needs a *reference*. Here it is, for every image, the mean of the unit embeddings of the
# person's other images.

references = leave_one_out_centroids(model(faces).detach(), people)
print(references.shape)

# %%
# The map
# -------
# ``explain_faces`` finds the layers, explains and averages them, and ranks the pixels anew by occluding the highest ones. A map has the
# size of the image and sums to 1.

maps = explain_faces(model, faces, reference=references)
first = [0, 3, 6, 9, 12, 15]  # one image of each of six people
figure = overlay_grid(
    faces[first], maps[first], [f"person {person}" for person in people[first].tolist()]
)
figure.savefig("first_map.png")

# %%
# The layers it chose, and the part of the image that the network reads:

print(suggest_layers(model, faces))

# %%
# Which parts of the face
# -----------------------
# *Share* is how many of the critical pixels (the top 1 %) lie in a region, *area* how much of the image the region is, and **lift** is
# share over area: 1 is chance. On real faces the labels come from a parser (:doc:`/howto/report_regions`); these faces bring theirs.

report = region_report(maps, sample.labels, sample.scheme.merge_sides())
print(
    report.groupby("region")[["share", "area", "lift"]]
    .mean()
    .sort_values("lift", ascending=False)
    .round(2)
)

# %%
# Is it true?
# -----------
# If the map is right, taking away what it names must lower the similarity more than taking away as many pixels elsewhere.

result = OcclusionEvaluator(
    model, controls=("random pixels", "centre", "other people")
).evaluate(faces, maps, labels=people.tolist())
print(result)
curves = result.plot()

# %%
# One layer, as any Captum method
# -------------------------------
# ``LEAM`` is a Captum ``LayerAttribution``: signed maps on the raw scale, at the size of the layer.

attribution = LEAM(model, model.last).attribute(faces, reference=references)
print(
    attribution.shape,
    f"for the match {attribution.clamp(min=0).sum():.1f}, against {attribution.clamp(max=0).sum():.1f}",
)
print("picture: first_map.png")
