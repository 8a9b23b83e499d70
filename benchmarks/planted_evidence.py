"""Does LEAM find evidence where it was planted? Networks trained on synthetic faces whose identity is in one part only.

    python benchmarks/planted_evidence.py [--people 12] [--seed 0] [--csv docs/_data/planted_evidence.csv]

For nose, eyes and mouth: how often decisions flip when the part, or everything else, changes hands; then, per layer and form of the
map, the share of positive mass and of the top-1 % pixels inside the part (dilated by one cell of the layer), the area of that, and
lift = share / area; beside an untrained network. References are centroids of 8 fresh images, contrasts those of all other people.
Not shown: real faces; networks without the sparsity of this one.
"""

import argparse
import time
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_leam import LEAM, top_fraction
from captum_leam.maps import normalize_sum, place_on_field
from captum_leam.synthetic import EmbeddingNet, SyntheticFaces, SyntheticPopulation, centroids, swap_test, train

LAYERS = {"middle": 4, "last": 8}  # cell in pixels; 112 / 14 = 8
PATH = {"n_steps": 8}


def dilate(masks: Tensor, pixels: int) -> Tensor:
    return F.max_pool2d(masks[:, None].float(), 2 * pixels + 1, 1, pixels)[:, 0] > 0


def contrasts(people: Tensor, shown: Tensor) -> Tensor:
    """For every image, the centroids of all other people: (N, P − 1, D)."""
    return torch.stack([people[torch.arange(len(people)) != person] for person in shown.tolist()])


def overlap(maps: Tensor, part: Tensor) -> dict[str, float]:
    critical = top_fraction(maps)
    share = ((critical & part).sum((1, 2)) / critical.sum((1, 2))).mean().item()
    mass = (normalize_sum(maps) * part).sum((1, 2)).mean().item()
    area = part.double().mean().item()
    return {"mass": mass, "top 1 %": share, "area": area, "lift": share / area}


def rows(model: nn.Module, name: str, population: SyntheticPopulation, faces: SyntheticFaces) -> list[dict]:
    people = centroids(model, population)
    forms = {"plain": {}, "path": PATH, "path + contrast": {**PATH, "contrast": contrasts(people, faces.people)}}
    found = []
    for layer, cell in LAYERS.items():
        part = dilate(faces.mask(population.evidence_parts), cell)
        for form, options in forms.items():
            maps = LEAM(model, getattr(model, layer)).attribute(faces.images, reference=people[faces.people], **options)
            numbers = overlap(place_on_field(maps, (112, 112)), part)
            found.append({"planted": population.evidence, "network": name, "layer": layer, "map": form, **numbers})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--csv", type=Path, help="also write the table to this file")
    options = parser.parse_args()
    table = []
    for part in ("nose", "eyes", "mouth"):
        population = SyntheticPopulation(options.people, evidence=part, seed=options.seed)
        started = time.perf_counter()
        model = train(population, seed=options.seed)
        seconds = time.perf_counter() - started
        test = swap_test(model, population, seed=options.seed)
        print(
            f"{part}: trained in {seconds:.0f} s; {test.images} fresh images, accuracy {test.accuracy:.3f}; decisions that flip when "
            f"the {part} changes hands {test.part_flips:.3f}, when everything else does {test.rest_flips:.3f}"
        )
        faces = population.sample(6, seed=50_000 + options.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            untrained = EmbeddingNet().eval()
        table += rows(model, "trained", population, faces) + rows(untrained, "untrained", population, faces)
    found = pd.DataFrame(table).round(4)
    print(found.round(3).to_string(index=False))
    if options.csv:
        found.to_csv(options.csv, index=False)


if __name__ == "__main__":
    main()
