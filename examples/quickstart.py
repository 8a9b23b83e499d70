"""
Your first map in five minutes
==============================

After this tutorial you can make a map of a face, report its regions, and test whether it is true. The package draws the faces and
trains the network, so that the right answer is known: the people differ in their **eyes** and in nothing else.
"""

# %%
# A network and faces
# -------------------
# ``model`` takes images (N, 3, 112, 112) and returns embeddings (N, 32). :doc:`own_model` puts yours in its place.

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
# The reference
# -------------
# A map explains the similarity to a *reference*. Here the reference of every image is the mean of the unit embeddings of the
# person's other images.

references = leave_one_out_centroids(model(faces).detach(), people)
print(references.shape)

# %%
# The map
# -------
# ``explain_faces`` finds the layers, averages their maps, and refines the ranking by occluding the highest pixels. A map has the
# size of the image and sums to 1.

maps = explain_faces(model, faces, reference=references)
first = [0, 3, 6, 9, 12, 15]  # one image of each of six people
figure = overlay_grid(
    faces[first], maps[first], [f"person {person}" for person in people[first].tolist()]
)
figure.savefig("first_map.png")

# %%
# These are the layers and the part of the image that the network reads:

print(suggest_layers(model, faces))

# %%
# Which parts of the face
# -----------------------
# *Share* is the share of the critical pixels (the top 1 %) in a region, *area* the share of the image, and **lift** is share
# over area: 1 is chance. On real faces the labels come from a parser (:doc:`/howto/report_regions`); synthetic faces have exact
# labels.

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
# If the map is right, occluding its critical pixels must lower the similarity more than occluding as many pixels elsewhere.

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
