"""Which regions LEAM names, by hand-made labels: share and lift of the top 1 % of pixels, with intervals over people.

    python benchmarks/region_lift.py --data ../shared/real [--csv docs/_data/region_lift.csv]

The folder holds networks (``research_data.py``; all are explained) and masks/NN.png with NN_labels.png (aligned colour crops, CelebAMask-HQ
integers). Every person has one image there, so that the reference is its own embedding.
"""

import argparse
from pathlib import Path

import pandas as pd
import torch
from research_data import load_networks
from torch import Tensor, nn

from captum_leam import LEAM, explain_faces, overall_map, suggest_layers
from captum_leam.faces import read_crops
from captum_leam.maps import place_on_field
from captum_leam.regions import COARSE, LabelMapParser, over_people, region_report


def maps_of(model: nn.Module, images: Tensor, n_steps: int) -> dict[str, Tensor]:
    """Return the maps (N, H, W) of every suggested layer, their mean, and that of the default preset."""
    found = suggest_layers(model, images[:4])
    parts = [LEAM(model, found).attribute(x, n_steps=n_steps) for x in images.split(8)]
    layers = {layer.name: torch.cat(of) for layer, of in zip(found, zip(*parts, strict=True), strict=True)}
    placed = {name: place_on_field(m, found.image_size, found.field) for name, m in layers.items()}
    chosen = [layers[layer.name] for layer in found.for_overall_map()]
    overall = overall_map(chosen, found.image_size, found.field)
    preset = torch.cat([explain_faces(model, x, layers=found) for x in images.split(8)])
    return {**placed, "layers, path": overall, "default preset": preset}


def table(maps: dict[str, Tensor], labels: Tensor) -> pd.DataFrame:
    """Share and lift of every coarse region, over people."""
    rows = []
    for name, of_layer in maps.items():
        report = region_report(of_layer.clamp(min=0), labels, COARSE)
        over = over_people(report, list(range(len(labels))))
        rows.append(over[over["quantity"].isin(["share", "lift"])].assign(layer=name))
    return pd.concat(rows, ignore_index=True)


def printed(result: pd.DataFrame) -> str:
    said = [f"{m:.2f} [{low:.2f}, {high:.2f}]" for m, low, high in result[["mean", "low", "high"]].to_numpy()]
    wide = result.assign(said=said).pivot_table(
        index=["quantity", "layer"], columns="region", values="said", aggfunc="first", sort=False
    )
    return str(wide.to_string())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--networks", nargs="+", help="names in the zoo; all by default")
    parser.add_argument("--steps", type=int, default=4, help="of the path")
    parser.add_argument("--csv", type=Path, help="also write the table to this file")
    options = parser.parse_args()
    tables = []
    labels = LabelMapParser(options.data / "masks", suffix="_labels")
    images = read_crops([options.data / "masks" / f"{name}.png" for name in labels.names])
    for name, model in load_networks(options.data, options.networks).items():
        result = table(maps_of(model, images, options.steps), labels(images))
        tables.append(result.assign(network=name))
        print(
            f"\n{name}: {len(images)} hand-labelled faces, top 1 %, mean [95 % interval over people]\n{printed(result)}"
        )
        lifts = result[result["quantity"] == "lift"].groupby("region")["mean"]
        print(
            f"least lift of the nose {lifts.min()['nose']:.1f} (≥ 5), largest of skin {lifts.max()['skin']:.2f} (≤ 1.5)"
        )
    if options.csv:
        pd.concat(tables).round(4).to_csv(options.csv, index=False)


if __name__ == "__main__":
    main()
