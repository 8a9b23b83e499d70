"""Is the explanation true? LEAM's presets beside controls that could fool a reader, on every network, with intervals.

    python benchmarks/faithfulness.py --data ../shared/real [--per-person 2] [--networks NAME ...] [--quick] [--tables docs/_data]

Every network of the folder (``research_data.py``) is explained. Drops at 5 and 20 %, blurred, noisy-linear and black, in gaps between the
network's genuine and impostor mean cosines: on the explained network (own) and their mean over the networks of other architectures
(transfer), with 95 % bootstrap intervals over people; the default preset against every control (those made from a method's own maps are
made from its maps only); person masks; sanity checks. Other methods, in the readings that suit them:
``peers.py``. Writes drops.csv, summary.csv, comparison.csv, person_masks.csv into ``--out`` (results/faithfulness); with ``--tables`` also
what the documentation shows: docs/_data/faithfulness.csv, docs/_data/faithfulness_controls.csv, docs/_data/faithfulness_cells.csv,
docs/_data/person_masks.csv, docs/_data/sanity.csv. References are leave-one-out centroids, seed 0. Not shown: colour faces. ``--quick``:
fills blur and zero, 5 % only, no preset "best".
"""

import argparse
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from research_data import gap_of, load_faces, load_networks, own_and_transfer
from torch import Tensor, nn
from tqdm import tqdm

from captum_leam import explain_faces, leave_one_out_centroids, suggest_layers
from captum_leam.controls import OWN_CONTROLS, SHARED_CONTROLS
from captum_leam.explain import Preset
from captum_leam.faithfulness import OcclusionEvaluator, OcclusionResult, evaluate_person_masks, sanity_checks
from captum_leam.objectives import embed

HEADLINE = "LEAM, default"
PRESETS: tuple[Preset, ...] = ("fast", "default", "best")
Maps = Callable[[Tensor, Tensor], Tensor]


def methods_of(model: nn.Module, images: Tensor, quick: bool) -> dict[str, Maps]:
    """Return name → function of images and references, for every preset."""
    found = suggest_layers(model, images)

    def of_preset(preset: Preset, x: Tensor, r: Tensor) -> Tensor:
        return explain_faces(model, x, preset, layers=found, reference=r)

    return {f"LEAM, {preset}": partial(of_preset, preset) for preset in PRESETS[: 2 if quick else 3]}


def maps_of(methods: dict[str, Maps], images: Tensor, references: Tensor, name: str) -> dict[str, Tensor]:
    parts = list(zip(images.split(16), references.split(16), strict=True))
    bar = tqdm(methods.items(), desc=f"explaining {name}")
    return {method: torch.cat([explain(x, r) for x, r in parts]) for method, explain in bar}


def evaluate(
    networks: dict, images: Tensor, labels: list[str], maps: dict[str, Tensor], name: str, quick: bool
) -> OcclusionResult:
    results = []
    fractions, fills = ((0.05,), ("blur", "zero")) if quick else ((0.05, 0.2), ("blur", "noisy linear", "zero"))
    for given, controls in ((maps, SHARED_CONTROLS), ({HEADLINE: maps[HEADLINE]}, OWN_CONTROLS)):
        evaluator = OcclusionEvaluator(networks, fractions, fills=fills, controls=controls, progress=True)
        results.append(evaluator.evaluate(images, given, labels=labels, explained=name))
    return OcclusionResult.concat(results)


def show(result: OcclusionResult) -> None:
    """Print mean drops, one table for every explained network."""
    table = result.summary()
    table["name"] = [
        f"{m} · {c}" if m and c else m or c for m, c in zip(table["method"], table["control"], strict=True)
    ]
    table["cell"] = [
        f"{d:.3f} [{lo:.3f}, {hi:.3f}]" for d, lo, hi in table[["drop", "low", "high"]].itertuples(index=False)
    ]
    table["column"] = [f"{fill} {p:.0%}" for fill, p in table[["fill", "fraction"]].itertuples(index=False)]
    for (explained, where), part in table.groupby(["explained", "model"], sort=False):
        print(f"\n{explained} explained, drop in gaps, {where}")
        print(part.pivot_table(index="name", columns="column", values="cell", sort=False, aggfunc="first").to_string())


# -- what the documentation shows ----------------------------------------------------------------------------


def shown_drops(summary: pd.DataFrame) -> pd.DataFrame:
    """Return every preset, and the controls: those that are made from a method's maps, from the headline's."""
    table = summary[(summary["control"] == "") | summary["method"].isin(["", HEADLINE])]
    names = table["method"].where(table["control"] == "", "control: " + table["control"])
    return with_labels(table).assign(map=names)[
        ["explained", "measured", "map", "fill", "fraction", "occluded", "drop", "low", "high"]
    ]


def with_labels(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with where a drop is measured, and with fill and fraction as one label."""
    labels = [f"{fill} {p:.0%}".replace("%", " %") for fill, p in table[["fill", "fraction"]].itertuples(index=False)]
    return table.assign(measured=table["model"], occluded=labels)


def cells(comparison: pd.DataFrame) -> pd.DataFrame:
    """In how many cells (networks × fractions × controls) the headline is ahead of a control, surely or within the interval."""
    table = comparison[comparison["method"] == HEADLINE]
    ahead = table["difference"] > 0
    outcomes = {
        "cells": 1,
        "map ahead": ahead & (table["low"] > 0),
        "ahead, within the interval": ahead & (table["low"] <= 0),
        "control ahead": ~ahead,
    }
    return table.assign(**outcomes).groupby("fill", sort=False)[list(outcomes)].sum().reset_index()


def write_tables(
    folder: Path, result: OcclusionResult, comparison: pd.DataFrame, masks: pd.DataFrame, checks: pd.DataFrame
) -> None:
    """Write the documentation's tables."""
    folder.mkdir(parents=True, exist_ok=True)
    headline = with_labels(comparison[comparison["method"] == HEADLINE])
    columns = ["explained", "measured", "fill", "fraction", "occluded", "control", "ratio", "difference", "low", "high"]
    shown_drops(result.summary()).round(4).to_csv(folder / "faithfulness.csv", index=False)
    headline[[*columns, "p_holm"]].round(4).to_csv(folder / "faithfulness_controls.csv", index=False)
    cells(comparison).to_csv(folder / "faithfulness_cells.csv", index=False)
    with_labels(masks)[columns].round(4).to_csv(folder / "person_masks.csv", index=False)
    checks.round(4).to_csv(folder / "sanity.csv", index=False)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--people", type=int)
    parser.add_argument("--per-person", type=int, help="images of every person; all by default")
    parser.add_argument("--networks", nargs="+", help="names in the zoo; all by default")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("results/faithfulness"))
    parser.add_argument("--tables", type=Path, help="also write the documentation's tables into this folder")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    warnings.filterwarnings("ignore", message="(Setting forward|Input Tensor)")
    started = time.perf_counter()
    images, labels = load_faces(options.data, options.people, options.per_person)
    networks = load_networks(options.data, options.networks)
    gaps = {name: gap_of(model, images, labels) for name, model in networks.items()}
    print(f"{len(images)} faces of {len(set(labels))} people; gaps {gaps}; references leave-one-out; seed 0")
    results, masks, checks = [], [], []
    for name, model in networks.items():
        references = leave_one_out_centroids(embed(model, images, 16), labels)
        maps = maps_of(methods_of(model, images[:4], options.quick), images, references, name)
        results.append(evaluate(networks, images, labels, maps, name, options.quick))
        fractions = (0.05,) if options.quick else (0.05, 0.2)
        masks.append(
            evaluate_person_masks(networks, images, maps[HEADLINE], labels, explained=name, fractions=fractions)
        )
        checks.append(sanity_checks(model, images, labels).to_frame().assign(network=name))
    print(
        "\ntransfer matrix of the default preset, cosine drop at 5 % with blur (rows: explained, columns: measured on)"
    )
    print(OcclusionResult.concat(results).transfer_matrix(HEADLINE, fraction=0.05).round(3).to_string())
    result, of_masks = (own_and_transfer(OcclusionResult.concat(r), networks, gaps) for r in (results, masks))
    comparison, compared_masks, checked = result.compare(), of_masks.compare(), pd.concat(checks)
    show_all(result, comparison, compared_masks, checked)
    write_all(options.out, result, comparison, compared_masks)
    if options.tables:
        write_tables(options.tables, result, comparison, compared_masks, checked)
    print(f"\nwritten to {options.out}; {time.perf_counter() - started:.0f} s")


def show_all(result: OcclusionResult, comparison: pd.DataFrame, masks: pd.DataFrame, checks: pd.DataFrame) -> None:
    """Print all tables."""
    show(result)
    columns = ["explained", "model", "fraction", "control", "ratio", "difference", "low", "high", "p_holm"]
    headline = comparison[(comparison["method"] == HEADLINE) & (comparison["fill"] == "blur")]
    print(f"\n{HEADLINE} minus every control, blur, in gaps\n{headline[columns].round(3).to_string(index=False)}")
    print(f"\n{cells(comparison).to_string(index=False)}")
    print(f"\nperson's own mask on unseen images of the person, blur\n{masks[columns].round(3).to_string(index=False)}")
    print(f"\nsanity checks of the default preset\n{checks.round(3).to_string(index=False)}")


def write_all(out: Path, result: OcclusionResult, comparison: pd.DataFrame, masks: pd.DataFrame) -> None:
    """Write all tables into the folder of results."""
    out.mkdir(parents=True, exist_ok=True)
    result.to_frame().to_csv(out / "drops.csv", index=False)
    result.summary().to_csv(out / "summary.csv", index=False)
    comparison.to_csv(out / "comparison.csv", index=False)
    masks.to_csv(out / "person_masks.csv", index=False)


if __name__ == "__main__":
    main()
