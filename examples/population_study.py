"""
A study of many people
======================

After this tutorial you can turn maps into a finding about people: which regions they cover, with intervals; whether maps of one
person are more alike than those of strangers; whether the pixels matter, beside controls; and whether an untrained network
would give the same result.
"""

import pandas as pd
import torch
from matplotlib.figure import Figure

from captum_leam import bhattacharyya, explain_faces, leave_one_out_centroids
from captum_leam.faithfulness import OcclusionEvaluator, sanity_checks
from captum_leam.plots import COLOURS
from captum_leam.regions import over_people, region_report
from captum_leam.synthetic import SyntheticPopulation, train

population = SyntheticPopulation(
    8, evidence="eyes"
)  # the people differ in their eyes, and in nothing else
model = train(population, steps=200)
sample = population.sample(4, seed=60_000)
faces, people = sample.images, [f"person {person}" for person in sample.people.tolist()]
references = leave_one_out_centroids(model(faces).detach(), people)
maps = explain_faces(model, faces, reference=references)

# %%
# Which regions
# -------------
# Intervals are over *people*, because images of one person are not independent.

report = region_report(maps, sample.labels, sample.scheme.merge_sides())
regions = over_people(report, people)
lift = (
    regions[regions["quantity"] == "lift"].dropna(subset=["mean"]).sort_values("mean")
)
print(lift[["region", "people", "mean", "low", "high"]].round(2).to_string(index=False))

figure = Figure(figsize=(6, 3), layout="constrained")
axes = figure.subplots()
errors = [lift["mean"] - lift["low"], lift["high"] - lift["mean"]]
axes.errorbar(
    lift["mean"], lift["region"], xerr=errors, fmt="o", color=COLOURS[0], capsize=3
)
axes.axvline(1, color=COLOURS[1], linewidth=1)
axes.set_xlabel("lift of the top 1 % of pixels; mean over people, 95 % interval")
axes.spines[["top", "right"]].set_visible(False)
figure.savefig("lift.png")

# %%
# Maps of one person and of others
# --------------------------------
# The Bhattacharyya coefficient compares the top 1 % of two maps. Maps of one person that are more alike prove little by
# themselves: an edge detector passes this test, too.

table = bhattacharyya(maps)
same = torch.tensor([[a == b for b in people] for a in people])
off_diagonal = ~torch.eye(len(people), dtype=torch.bool)
print(
    f"same person {table[same & off_diagonal].mean():.2f}, different people {table[~same].mean():.2f}"
)

# %%
# Do these pixels matter?
# -----------------------
# Each control has a difference with its interval over people and a p-value corrected for the number of comparisons (Holm).
# "Other people" is the mean map of the others: a map with an equal drop shows where faces are, not who this is.

result = OcclusionEvaluator(model, fractions=(0.01, 0.05)).evaluate(
    faces, maps, labels=people
)
comparison = result.compare()
shown = ["fraction", "control", "difference", "low", "high"]
print(comparison[[c for c in shown if c in comparison]].round(3).to_string(index=False))
drops = result.plot()

# %%
# In this population all people have the same part planted, so the mean map of others also highlights the eyes and has a similar
# drop.
#
# Would any network give this result?
# -----------------------------------
# A convincing picture that does not depend on the network, the person or the image fails one of these six checks.

checks = sanity_checks(model, faces, people, stages=(0.5, 1.0))
print(checks)

# %%
# All results in one table:

summary = pd.concat(
    [regions.assign(part="regions"), result.summary().assign(part="drops")]
)
print(len(summary), "rows")
print("picture: lift.png")
