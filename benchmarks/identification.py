"""Measure what an identification depends on: occlude what makes the first candidate win, and rank the gallery again.

    python benchmarks/identification.py --data ../shared/real [--per-person 2] [--csv docs/_data/identification.csv]

Gallery: the first image of each of the 24 people; probes: the next images of each person (--per-person of them). `explain_match` with
the default preset occludes the top 5 % of the pixels of each map, and as many pixels of controls: random pixels of the crop and of the
face, the map moved within the face (10 draws each), the centre of the crop, and the mean map of the other people. Occluded pixels are
blurred (σ 10 px) or filled in from their surroundings (noisy linear). Followed, on the explained network and on the others: the rank of
the probe's person among 24, its margin (score minus the highest score of another name), and the share of probes at rank 1 that lose it,
with 95 % intervals over people. Seed 0. Every network of the folder (``research_data.py``) is explained. Not shown: colour faces,
galleries of thousands, people who are not in the gallery.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import pandas as pd
from research_data import load_faces, load_networks
from torch import Tensor, nn

from captum_leam import MatchExplanation, explain_match
from captum_leam.faithfulness.fills import as_fill
from captum_leam.match import Occlusion
from captum_leam.objectives import embed, unit

CONTROLS = ("random pixels", "random face pixels", "moved", "centre", "other people")
FILLS = ("blur", "noisy linear")
DRAWS = 10


def on_another(match: MatchExplanation, model: nn.Module, gallery: Tensor) -> MatchExplanation:
    """Return the same maps with ranks, margins and changes of another network."""
    centroids = unit(embed(model, gallery).double())

    def score(images: Tensor) -> Tensor:
        return unit(embed(model, images).double()) @ centroids.T

    scores = score(match.images)
    occlusion = Occlusion(match.images, match.maps, match.people, match.fraction, as_fill(match.fill), seed=0)
    changes = occlusion.changes(score, scores, match.gallery.names, CONTROLS, DRAWS)
    return replace(match, scores=scores, changes=changes)


def measured(match: MatchExplanation) -> pd.DataFrame:
    """Return one row per occluded map and quantity: the means before and after, the changes, and the differences from the controls."""
    named = {"": f"LEAM, {match.settings.preset}"}
    rows = []
    for control, part in match.changes[match.changes["of"] == "person"].groupby("control", sort=False):
        means = {"mean rank before": part["rank_before"].mean(), "mean rank after": part["rank_after"].mean()}
        means |= {"margin before": part["margin_before"].mean(), "margin after": part["margin_after"].mean()}
        rows += [{"control": control, "quantity": name, "value": value} for name, value in means.items()]
    changes = match.summary().query("of == 'person'")
    head = ["control", "quantity", "value", "low", "high"]
    difference = changes[changes["control"] != ""].assign(quantity=lambda t: t["quantity"] + ", LEAM minus control")
    columns = ["control", "quantity", "difference", "difference_low", "difference_high"]
    tables = [pd.DataFrame(rows), changes[head], difference[columns].set_axis(head, axis=1)]
    table = pd.concat(tables, ignore_index=True)
    return table.assign(occluded=table["control"].replace(named)).drop(columns="control")


def main() -> None:
    """Measure all networks, print a table and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--networks", nargs="+", help="names in the zoo; all by default")
    parser.add_argument("--people", type=int)
    parser.add_argument("--per-person", type=int, default=2, help="probes of each person")
    parser.add_argument("--preset", default="default", choices=("fast", "default", "best"))
    parser.add_argument("--csv", type=Path, help="also write the documentation's numbers to this file")
    options = parser.parse_args()
    images, people = load_faces(options.data, options.people, 1 + options.per_person)
    is_first = [i == 0 or people[i - 1] != who for i, who in enumerate(people)]
    gallery = [i for i, first in enumerate(is_first) if first]
    probes = [i for i, first in enumerate(is_first) if not first]
    print(f"gallery of {len(gallery)} people, {len(probes)} probes, preset {options.preset}, seed 0")
    networks, tables = load_networks(options.data, options.networks), []
    for name, model in networks.items():
        for fill in FILLS:
            match = explain_match(
                model,
                images[probes],
                images[gallery],
                [people[i] for i in gallery],
                preset=options.preset,
                people=[people[i] for i in probes],
                fill=fill,
                controls=CONTROLS,
                draws=DRAWS,
            )
            for other, network in networks.items():
                found = match if other == name else on_another(match, network, images[gallery])
                cell = {"explained": name, "measured": "itself" if other == name else other, "fill": fill}
                table = measured(found)
                tables.append(table.assign(**cell))
                ranks = found.changes.query("of == 'person' and control == ''")
                print(f"\n{cell}: {(ranks['rank_before'] == 1).sum()} of {len(ranks)} probes at rank 1")
                wide = table.assign(text=[_text(*row) for row in table[["value", "low", "high"]].to_numpy()])
                print(wide.pivot(index="quantity", columns="occluded", values="text").to_string())
                print(f"ranks after: {sorted(ranks['rank_after'].astype(int))}")
    if options.csv:
        head = ["explained", "measured", "fill", "occluded", "quantity", "value", "low", "high"]
        pd.concat(tables, ignore_index=True)[head].round(4).to_csv(options.csv, index=False)


def _text(value: float, low: float, high: float) -> str:
    return f"{value:.3f}" if pd.isna(low) else f"{value:.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    main()
