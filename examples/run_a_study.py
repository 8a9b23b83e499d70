"""
A study from the command line
=============================

After this tutorial you can run, resume and check a study. One file names people, networks and settings; the results are tables,
maps, a manifest and a page. A run that is killed at any moment continues where it stopped and writes the same tables. This
script writes such a file, for people that the package draws, and runs what ``captum-leam study study/study.yaml`` runs.
"""

from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.torch import save_file

from captum_leam.study import Study
from captum_leam.synthetic import SyntheticPopulation, train

folder = Path("study")

# %%
# Pictures: a folder for each person
# ----------------------------------

population = SyntheticPopulation(
    12, evidence="eyes"
)  # the people differ in their eyes, and in nothing else
sample = population.sample(3, seed=60_000)
for i, (image, person) in enumerate(
    zip(sample.images, sample.people.tolist(), strict=True)
):
    path = folder / "faces" / f"person{person:02d}" / f"{i}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.uint8((255 * image.movedim(0, -1).numpy()).round()), "RGB").save(
        path
    )

# %%
# Networks: a file with a function for each
# -----------------------------------------
# The function returns a module that takes RGB in [0, 1].

save_file(train(population, steps=200).state_dict(), folder / "eyes.safetensors")
(folder / "networks.py").write_text(
    """
from pathlib import Path
from safetensors.torch import load_file
from captum_leam.synthetic import EmbeddingNet

def eyes():
    network = EmbeddingNet()
    network.load_state_dict(load_file(Path(__file__).parent / "eyes.safetensors"))
    return network.eval()
"""
)

# %%
# The configuration
# -----------------
# Only the first two keys are required. An error names its line.

(folder / "study.yaml").write_text(
    """
people: faces
models:
  eyes: networks.py:eyes
title: People who differ in their eyes
pictures: crops
preset: default   # the overall map of explain_faces
fractions: [0.01, 0.05]
patterns:
  permutations: 199
  resamples: 200
"""
)

result = Study(folder / "study.yaml").run(progress=False)
print(result)

# %%
# Tables
# ------
# The headline is the gap between the same and different people *above the strongest control*.

patterns = result.to_frame()
print(
    patterns[["control", "same", "different", "gap", "gap_low", "gap_high"]]
    .round(2)
    .to_string(index=False)
)

regions = result.table("region_summary", model="eyes", layer="overall", quantity="lift")
print(
    regions.dropna()
    .nlargest(4, "mean")[["region", "mean", "low", "high"]]
    .round(1)
    .to_string(index=False)
)

# %%
# Check the results
# -----------------
# This is the same as ``captum-leam study study/study.yaml --check``.

print(Study(folder / "study.yaml").check(progress=False))
print("page: study/results/report.html")
