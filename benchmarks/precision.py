"""What do forward passes in bfloat16 change? Scores, maps and drops of the same faces in float32 and under autocast.

    python benchmarks/precision.py --data ../shared/real [--people 24] [--presets fast default] [--device cpu]
        [--csv docs/_data/precision.csv]

One image of each person, its reference another image of that person, both networks of models.py, one thread. Of each network and preset:
the largest and the mean difference of the scores; the cosine of the maps of the two precisions, mean and least; the share of the top 5 %
of pixels that both name; mean drops of the cosine after blurring the top 1 and 5 %, of maps of either precision, measured in either.
Not shown: time (on a processor bfloat16 saves memory, seldom time), float16, colour, other networks.
"""

import argparse
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from research_data import load_faces, load_networks
from torch import Tensor, nn

from captum_leam import explain_faces, top_fraction
from captum_leam.faithfulness import occlude

FRACTIONS = (0.01, 0.05)
BATCH = 24


def precisions(device: str) -> dict[str, Any]:
    kind = torch.device(device).type
    return {"float32": nullcontext(), "bf16": torch.autocast(kind, torch.bfloat16)}


def scores(model: nn.Module, images: Tensor, references: Tensor) -> Tensor:
    with torch.no_grad():
        embeddings = torch.cat([model(part) for part in images.split(BATCH)]).double()
    return F.cosine_similarity(embeddings, references.double())


def measures(
    model: nn.Module, images: Tensor, references: Tensor, preset: Any, device: str
) -> Iterator[tuple[str, float]]:
    modes = precisions(device)
    maps, before = {}, {}
    for name, mode in modes.items():
        with mode:
            maps[name] = explain_faces(model, images, preset, reference=references, batch_size=BATCH).double()
            before[name] = scores(model, images, references)
    apart = (before["bf16"] - before["float32"]).abs()
    yield "score, largest difference", float(apart.max())
    yield "score, mean difference", float(apart.mean())
    cosine = F.cosine_similarity(maps["bf16"].flatten(1), maps["float32"].flatten(1))
    yield "cosine of maps, mean", float(cosine.mean())
    yield "cosine of maps, least", float(cosine.min())
    shared = top_fraction(maps["bf16"], 0.05) & top_fraction(maps["float32"], 0.05)
    yield "shared of top 5%", float(shared.double().mean() / 0.05)
    for fraction in FRACTIONS:
        for of, each in maps.items():
            occluded = occlude(images, top_fraction(each, fraction), "blur")
            for measured, mode in modes.items():
                with mode:
                    drop = (before[measured] - scores(model, occluded, references)).mean()
                yield f"drop {fraction:.0%}, map {of}, measured {measured}", float(drop)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--people", type=int, default=24)
    parser.add_argument("--presets", nargs="+", default=["fast", "default"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    images, _ = load_faces(options.data, options.people, 2)
    images = images.to(options.device)
    rows = []
    for network, model in load_networks(options.data, ["ms1m", "casia"]).items():
        model.to(options.device)
        with torch.no_grad():
            references = torch.cat([model(part) for part in images[1::2].split(BATCH)])
        for preset in options.presets:
            for measure, value in measures(model, images[::2], references, preset, options.device):
                rows.append({"network": network, "preset": preset, "measure": measure, "value": round(value, 5)})
                print(f"{network} {preset} {measure}: {value:.5f}", flush=True)
    if options.csv:
        pd.DataFrame(rows).to_csv(options.csv, index=False)


if __name__ == "__main__":
    main()
