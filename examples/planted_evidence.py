"""
Where the right answer is known
===============================

After this tutorial you can test a map on a network whose evidence is known. Each of three networks is trained on faces whose
identity lies in one part. Swapping the part between people proves that the network uses it (:doc:`/synthetic`). The maps are
overall maps of ``explain_faces`` towards the person's centroid.
"""

import torch

from captum_leam import explain_faces
from captum_leam.plots import overlay_grid
from captum_leam.synthetic import SyntheticPopulation, centroids, swap_test, train

images, maps, titles = [], [], []
for part in ("nose", "eyes", "mouth"):
    population = SyntheticPopulation(8, evidence=part)
    model = train(population, steps=200)
    print(swap_test(model, population))
    faces = population.sample([0, 1], seed=50_000)
    references = centroids(model, population)[faces.people]
    images.append(faces.images)
    maps.append(explain_faces(model, faces.images, reference=references))
    titles += [f"identity in\nthe {part}"] * len(faces)

figure = overlay_grid(torch.cat(images), torch.cat(maps), titles)
figure.savefig("planted.png", dpi=150)
print("picture: planted.png")
