"""
A report for an audit
=====================

After this tutorial you can write a report for someone who must decide whether to trust the explanation of a recogniser: whether
the network tells people apart, its error rates, what its decisions depend on, whether the explanation passes checks that a
false one fails, and how it was made. The result is a folder with a page, pictures and tables.
"""

from dataclasses import replace
from pathlib import Path

from captum_leam import explain_faces, leave_one_out_centroids, suggest_layers
from captum_leam.faithfulness import sanity_checks
from captum_leam.reporting import explain_images, write_page
from captum_leam.synthetic import SyntheticPopulation, train
from captum_leam.verification import VerificationEvaluator, draw_pairs, verify

population = SyntheticPopulation(8, evidence="eyes")
model = train(population, steps=200)
sample = population.sample(3, seed=70_000)
faces, people = sample.images, [f"person {person}" for person in sample.people.tolist()]

# %%
# Check the network first
# -----------------------
# The decisions of a network that does not separate people need no explanation. The threshold is that of the system's false
# match rate, not one that suits the maps.

verification = verify(model, faces, people)
print(verification)
threshold = verification.threshold(0.01)
print(f"threshold at a false match rate of 1 %: {threshold:.2f}")
histograms = verification.plot()

# %%
# The explanation, on a page
# --------------------------
# One image of each of the first six people, beside Grad-CAM and random pixels; layers, field, fill and seed are written on the
# page.

references = leave_one_out_centroids(model(faces).detach(), people)
layers = suggest_layers(model, faces)
some = list(range(0, 18, 3))
explanation = explain_images(
    model,
    faces[some],
    [people[i] for i in some],
    layers,
    sample.labels[some],
    sample.scheme.merge_sides(),
    references=references[some],
)
explanation = replace(explanation, title="Six people", text=str(verification))

# %%
# Do decisions depend on it?
# --------------------------
# Deletion blurs pixels of the probe in the order of a map and counts the genuine pairs that are still accepted. A lower area under
# that curve is better. The rows without a method are controls, which a map must outperform.

pairs = draw_pairs(people, 20)
partners = model(faces[pairs.second]).detach()
towards = explain_faces(model, faces[pairs.first], layers=layers, reference=partners)
evaluator = VerificationEvaluator(
    model, fill="blur", protocols=("deletion",), controls=("random pixels", "centre")
)
decisions = evaluator.evaluate(faces, pairs, {"LEAM": towards}, labels=people)
print(decisions.summary().to_string(index=False))

# %%
# Would a false explanation pass?
# -------------------------------

checks = sanity_checks(model, faces, people, stages=(0.5, 1.0))
print(checks)
print("failed:", checks.failed or "none")

# %%
# The folder
# ----------

settings = {
    "data": "synthetic, evidence planted in the eyes",
    "model": "EmbeddingNet, trained here, seed 0",
    "threshold": f"{threshold:.2f} (false match rate 1 %)",
    "sanity checks": "all passed"
    if checks.passed
    else f"failed: {', '.join(checks.failed)}",
}
page = write_page(
    [explanation],
    Path("audit"),
    title="Audit of a face recogniser",
    lead=str(verification),
    settings=settings,
)
checks.to_frame().to_csv("audit/sanity.csv", index=False)
print("page:", page, "with", len(list(Path("audit").iterdir())), "files")
