"""Measure the maps that a pair shows: each face is explained towards one other image of the same person.

    python benchmarks/pairs.py --data ../shared/real [--per-person 3] [--csv docs/_data/pairs.csv]

The overall maps of two presets beside the mean of the signed layer maps (path of 4), which pairs showed before. Drop: mean fall of the
cosine to the other image after blurring the top 5 % of the pixels. BC: Bhattacharyya coefficients of the top 1 % of the maps of the same
person and of different people. AUC: how well the coefficients of the top 1 % and 10 % tell the two apart. Seed 0. Every network
of the folder (``research_data.py``) is explained. Not shown: colour faces, other fills, intervals.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from research_data import load_faces, load_networks
from torch import Tensor, nn

from captum_leam import bhattacharyya, explain_faces, overall_map, suggest_layers
from captum_leam.explain import layer_maps
from captum_leam.faithfulness import OcclusionEvaluator
from captum_leam.objectives import embed


def maps_of(model: nn.Module, images: Tensor, references: Tensor) -> dict[str, Tensor]:
    """Return the maps of every method, shape (N, H, W)."""
    found = suggest_layers(model, images)
    layers = replace(found, layers=found.for_overall_map())
    signed = layer_maps(model, images, layers, reference=references)
    return {
        "path of 4": overall_map([*signed.values()], found.image_size),
        "fast": explain_faces(model, images, "fast", layers=found, reference=references),
        "default": explain_faces(model, images, "default", layers=found, reference=references),
    }


def specificity(maps: Tensor, people: np.ndarray) -> dict[str, float]:
    """Return the coefficients of same and different people, and the AUC between them."""
    first, second = np.triu_indices(len(people), 1)
    same = people[first] == people[second]
    values = {}
    for fraction in (0.01, 0.1):
        overlap = bhattacharyya(maps, fraction=fraction).numpy()[first, second]
        if fraction == 0.01:
            values |= {"BC same person": overlap[same].mean(), "BC different people": overlap[~same].mean()}
        higher = overlap[same][:, None] - overlap[~same][None]
        values[f"AUC at {fraction:.0%}"] = (higher > 0).mean() + 0.5 * (higher == 0).mean()
    return values


def main() -> None:
    """Measure all networks, print a table and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--networks", nargs="+", help="names in the zoo; all by default")
    parser.add_argument("--people", type=int)
    parser.add_argument("--per-person", type=int, default=3)
    parser.add_argument("--csv", type=Path, help="also write the documentation's numbers to this file")
    options = parser.parse_args()
    images, labels = load_faces(options.data, options.people, options.per_person)
    people = np.asarray(labels)
    partners = [next(j for j, other in enumerate(people) if other == who and j != i) for i, who in enumerate(people)]
    rows = []
    for network, model in load_networks(options.data, options.networks).items():
        references = embed(model, images)[partners]
        maps = maps_of(model, images, references)
        evaluator = OcclusionEvaluator(model, (0.05,), controls=(), seed=0)
        drops = evaluator.evaluate(images, maps, references).summary().set_index("method")["drop"]
        for name, of_method in maps.items():
            values = {"drop at 5 %": drops[name], **specificity(of_method, people)}
            rows += [{"network": network, "map": name, "quantity": q, "value": value} for q, value in values.items()]
    table = pd.DataFrame(rows).round(4)
    print(table.pivot(index=["network", "map"], columns="quantity", values="value").to_string())
    if options.csv:
        table.to_csv(options.csv, index=False)


if __name__ == "__main__":
    main()
