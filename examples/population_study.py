"""
A study of many people
======================

One map is an anecdote. Over people it becomes a finding, or does not: which regions, with intervals; whether maps of one person are
alike and those of strangers are not; whether the pixels matter, beside controls; and whether all of it would also be said of a network
that learnt nothing.
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
# Intervals are over *people*: images of one person are no independent witnesses.

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
# Whose map
# ---------
# Bhattacharyya coefficient of the top 1 % of two maps. That those of one person are more alike says little by itself: an edge detector
# passes this test, too.

table = bhattacharyya(maps)
same = torch.tensor([[a == b for b in people] for a in people])
off_diagonal = ~torch.eye(len(people), dtype=torch.bool)
print(
    f"same person {table[same & off_diagonal].mean():.2f}, different people {table[~same].mean():.2f}"
)

# %%
# Do these pixels matter
# ----------------------
# Differences to every control, with intervals over people and p-values held to the number of comparisons (Holm). "Other people" is the
# mean map of the others: a map that does no better shows where faces are, and not who this is.

result = OcclusionEvaluator(model, fractions=(0.01, 0.05)).evaluate(
    faces, maps, labels=people
)
comparison = result.compare()
shown = ["fraction", "control", "difference", "low", "high"]
print(comparison[[c for c in shown if c in comparison]].round(3).to_string(index=False))
drops = result.plot()

# %%
# In this population all people have the same part planted, so that the mean map of others points to the eyes as well, and comes near.
#
# Would this be said of any network?
# ----------------------------------
# Six checks, each of which a convincing picture of something else fails.

checks = sanity_checks(model, faces, people, stages=(0.5, 1.0))
print(checks)

# %%
# Everything in one table, for a file of your choice:

summary = pd.concat(
    [regions.assign(part="regions"), result.summary().assign(part="drops")]
)
print(len(summary), "rows")
print("picture: lift.png")
