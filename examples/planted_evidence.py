"""Where the right answer is known: three networks, each trained on faces whose identity lies in one part, and LEAM's maps.

    python examples/planted_evidence.py [--out planted.png] [--steps 500]

Synthetic faces only; about a minute and a half on one core. The maps are overall maps (path of 4 steps) towards the person's centroid.
"""

import argparse

import torch

from captum_leam import explain_faces
from captum_leam.plots import overlay_grid
from captum_leam.synthetic import SyntheticPopulation, centroids, swap_test, train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="planted.png")
    parser.add_argument("--steps", type=int, default=500)
    options = parser.parse_args()
    images, maps, titles = [], [], []
    for part in ("nose", "eyes", "mouth"):
        population = SyntheticPopulation(12, evidence=part)
        model = train(population, steps=options.steps)
        print(f"{part}: {swap_test(model, population)}")
        faces = population.sample([0, 1], seed=50_000)
        references = centroids(model, population)[faces.people]
        images.append(faces.images)
        maps.append(explain_faces(model, faces.images, reference=references))
        titles += [f"identity in\nthe {part}"] * len(faces)
    figure = overlay_grid(torch.cat(images), torch.cat(maps), titles)
    figure.savefig(options.out, dpi=150)
    print(f"picture: {options.out}")


if __name__ == "__main__":
    main()
