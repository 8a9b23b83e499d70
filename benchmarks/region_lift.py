"""Which regions LEAM names, by hand-made labels: share and lift of the top 1 % of pixels, with intervals over people.

    python benchmarks/region_lift.py --data ../shared/real [--csv docs/_data/region_lift.csv]

The folder holds models.py (RECOGNISERS, FIELDS) and masks/NN.png with NN_labels.png (aligned crops, CelebAMask-HQ integers).
Every person has one image there, so that the reference is its own embedding.
"""

import argparse
from pathlib import Path

import pandas as pd
import torch
from main_job import load_models
from torch import Tensor, nn

from captum_leam import LEAM, overall_map
from captum_leam.faces import read_crops
from captum_leam.maps import place_on_field
from captum_leam.regions import COARSE, LabelMapParser, over_people, region_report

LAYERS = {
    "56 px": "stem",
    "28 px": "stages.0.4",
    "14 px": "stages.1.0",
    "14 px, last": "stages.2.5",
    "7 px": "stages.4.1",
}
OVERALL = ("56 px", "28 px", "14 px, last")


def maps_of(model: nn.Module, images: Tensor, field: tuple[int, int, int, int], n_steps: int) -> dict[str, Tensor]:
    """Map of every layer and the overall one, (N, H, W)."""
    leam = LEAM(model, [model.get_submodule(name) for name in LAYERS.values()])
    parts = [leam.attribute(x, n_steps=n_steps) for x in torch.split(images, 8)]
    layers = dict(zip(LAYERS, [torch.cat(of_layer) for of_layer in zip(*parts, strict=True)], strict=True))
    size = (images.shape[2], images.shape[3])
    placed = {name: place_on_field(m, size, field) for name, m in layers.items()}
    return {**placed, "overall": overall_map([layers[name] for name in OVERALL], size, field)}


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
    parser.add_argument("--steps", type=int, default=4, help="of the path")
    parser.add_argument("--csv", type=Path, help="also write the table to this file")
    options = parser.parse_args()
    tables = []
    module, labels = load_models(options.data), LabelMapParser(options.data / "masks", suffix="_labels")
    images = read_crops([options.data / "masks" / f"{name}.png" for name in labels.names])
    for name, make in module.RECOGNISERS.items():
        result = table(maps_of(make(), images, module.FIELDS[name], options.steps), labels(images))
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
