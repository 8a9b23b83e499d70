"""How well the drawn template fits hand-labelled faces: mean intersection over union of every region.

    python benchmarks/template_iou.py --data ../shared/real [--csv docs/_data/template_iou.csv]

Any folder with masks/NN_labels.png (aligned 112 × 112 crops, CelebAMask-HQ integers) works. Left and right are merged, the
mouth is its inside and both lips; images where the hand labels lack a region are left out of its mean. The template was
tuned on the 40 crops of ../shared/real, so on those the numbers are optimistic; on others they were not measured.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from captum_leam.regions import CELEBAMASK_HQ, TemplateParser

REGIONS = ("nose", "mouth", "eyes", "brows")
HAND = CELEBAMASK_HQ.merge({"mouth": ["mouth", "upper_lip", "lower_lip"]}).merge_sides()


def load_labels(folder: Path) -> Tensor:
    paths = sorted((folder / "masks").glob("*_labels.png"))
    return torch.from_numpy(np.stack([np.asarray(Image.open(path)) for path in paths]))


def iou(a: Tensor, b: Tensor) -> Tensor:
    return (a & b).sum((1, 2)) / (a | b).sum((1, 2))


def table(labels: Tensor) -> pd.DataFrame:
    parser = TemplateParser()
    drawn = parser(labels[:, None])
    scheme = parser.scheme.merge_sides()
    rows = {}
    for region in REGIONS:
        hand = HAND.mask(labels, region)
        shown = hand.flatten(1).any(1)
        values = iou(hand, scheme.mask(drawn, region))[shown]
        rows[region] = {"images": len(values), "mean IoU": values.mean().item(), "worst": values.min().item()}
    return pd.DataFrame(rows).T.astype({"images": int})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--csv", type=Path, help="also write the table to this file")
    options = parser.parse_args()
    labels = load_labels(options.data)
    found = table(labels)
    print(f"{len(labels)} hand-labelled crops\n{found.round(3).to_string()}")
    if options.csv:
        found.round(4).rename_axis("region").to_csv(options.csv)


if __name__ == "__main__":
    main()
