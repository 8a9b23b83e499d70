"""Is the explanation true? Every method and control on real faces, on both networks, with intervals.

    python benchmarks/faithfulness.py --data ../shared/real [--per-person 3] [--quick] [--tables docs/_data]

Prints, for each explained network, the mean cosine drop at 5 and 20 % blurred, noisy-linear and black and at 1 and 10 % blurred, on that
network and on the others, with 95 % bootstrap intervals over people; the default preset against every control (those made from a method's
own maps are made from its maps only); person masks; sanity checks on two images of twelve people. Writes drops.csv, summary.csv,
comparison.csv, person_masks.csv and curves.png into ``--out`` (results/faithfulness); with ``--tables`` also what the documentation
shows: docs/_data/faithfulness.csv, docs/_data/faithfulness_controls.csv, docs/_data/faithfulness_cells.csv, docs/_data/person_masks.csv,
docs/_data/sanity.csv. References are leave-one-out centroids, seed 0. Any folder with faces/PERSON/*.png and models.py (RECOGNISERS,
FIELDS) works. Not shown: colour faces, other networks. ``--quick``: two images of every person, fills blur and zero, 5 % only, no
Occlusion, no preset "best".
"""

import argparse
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from captum.attr import IntegratedGradients, LayerGradCam, Occlusion, Saliency
from main_job import load_faces, load_models, load_networks
from torch import Tensor, nn
from tqdm import tqdm

from captum_leam import (
    LEAM,
    EmbeddingSimilarity,
    explain_faces,
    leave_one_out_centroids,
    overall_map,
    suggest_layers,
)
from captum_leam._engine.types import Field
from captum_leam.controls import OWN_CONTROLS, SHARED_CONTROLS
from captum_leam.explain import Preset
from captum_leam.faithfulness import OcclusionEvaluator, OcclusionResult, evaluate_person_masks, sanity_checks
from captum_leam.maps import gaussian_blur, place_on_field
from captum_leam.suggest import LayerSuggestions

HEADLINE = "LEAM, default"
PRESETS = ("fast", "default", "best")
Maps = Callable[[Tensor, Tensor], Tensor]


def pixel_map(attributions: Tensor) -> Tensor:
    """Return input attributions (N, C, H, W) as maps: absolute value, summed over colours, blurred with σ = 2 px."""
    return gaussian_blur(attributions.detach().abs().sum(1), 2.0)


def signed_map(attributions: Tensor) -> Tensor:
    """Return input attributions (N, C, H, W) as maps: signed sum over colours, as it is."""
    return attributions.detach().sum(1)


def methods_of(model: nn.Module, found: LayerSuggestions, field: Field, quick: bool) -> dict[str, Maps]:
    size = found.image_size
    overall = found.for_overall_map()
    middle, last = overall[min(1, len(overall) - 1)], found[-1]
    cosine, fixed = EmbeddingSimilarity(model, norm="differentiate"), EmbeddingSimilarity(model, norm="fixed")
    one = LEAM(model, middle.module, reshape=middle.reshape)
    every = LEAM(model, overall)
    cam = LayerGradCam(cosine, last.module)

    def integrated(read: Callable[[Tensor], Tensor], x: Tensor, r: Tensor) -> Tensor:
        weights = (fixed.fixed_weights(x, r),)
        options = {"additional_forward_args": weights, "n_steps": 20, "internal_batch_size": 64}
        return read(IntegratedGradients(fixed).attribute(x, **options))

    def occlusion(x: Tensor, r: Tensor) -> Tensor:
        windows = {"sliding_window_shapes": (3, 14, 14), "strides": (3, 7, 7), "perturbations_per_eval": 4}
        return Occlusion(cosine).attribute(x, additional_forward_args=(r,), **windows).detach().mean(1)

    def of_preset(preset: Preset, x: Tensor, r: Tensor) -> Tensor:
        return explain_faces(model, x, preset, layers=found, field=field, reference=r)

    methods: dict[str, Maps] = {
        f"LEAM, {middle.shape[1]} px, one pass": lambda x, r: place_on_field(
            one.attribute(x, reference=r), size, field
        ),
        "LEAM, overall, path of 4": lambda x, r: overall_map(every.attribute(x, reference=r, n_steps=4), size, field),
        **{f"LEAM, {preset}": partial(of_preset, preset) for preset in PRESETS},
        "LayerGradCam, last layer": lambda x, r: place_on_field(
            cam.attribute(x, additional_forward_args=(r,)).detach(), size, field
        ),
        "Saliency": lambda x, r: pixel_map(Saliency(cosine).attribute(x, additional_forward_args=(r,))),
        "IntegratedGradients, 20 steps": partial(integrated, pixel_map),
        "IntegratedGradients, 20 steps, signed": partial(integrated, signed_map),
        "Occlusion, 14 px": occlusion,
    }
    slow = {"Occlusion, 14 px", "LEAM, best"}
    return {name: method for name, method in methods.items() if not (quick and name in slow)}


def maps_of(methods: dict[str, Maps], images: Tensor, references: Tensor, name: str) -> dict[str, Tensor]:
    parts = list(zip(images.split(16), references.split(16), strict=True))
    bar = tqdm(methods.items(), desc=f"explaining {name}")
    return {method: torch.cat([explain(x, r) for x, r in parts]) for method, explain in bar}


def evaluate(
    networks: dict, images: Tensor, labels: list[str], maps: dict[str, Tensor], name: str, quick: bool
) -> OcclusionResult:
    full = [((0.05, 0.2), ("blur", "noisy linear", "zero")), ((0.01, 0.1), ("blur",))]
    results = []
    for fractions, fills in [((0.05,), ("blur", "zero"))] if quick else full:
        for given, controls in ((maps, SHARED_CONTROLS), ({HEADLINE: maps[HEADLINE]}, OWN_CONTROLS)):
            evaluator = OcclusionEvaluator(networks, fractions, fills=fills, controls=controls, progress=True)
            results.append(evaluator.evaluate(images, given, labels=labels, explained=name))
    return OcclusionResult.concat(results)


def show(result: OcclusionResult) -> None:
    table = result.summary()
    table["name"] = [
        f"{m} · {c}" if m and c else m or c for m, c in zip(table["method"], table["control"], strict=True)
    ]
    table["cell"] = [
        f"{d:.3f} [{lo:.3f}, {hi:.3f}]" for d, lo, hi in table[["drop", "low", "high"]].itertuples(index=False)
    ]
    table["column"] = [f"{fill} {p:.0%}" for fill, p in table[["fill", "fraction"]].itertuples(index=False)]
    for (explained, model), part in table.groupby(["explained", "model"], sort=False):
        own = "itself" if explained == model else f"{model} (transfer)"
        print(f"\nexplained network {explained}, drop measured on {own}")
        print(part.pivot_table(index="name", columns="column", values="cell", sort=False, aggfunc="first").to_string())


def show_comparison(comparison: pd.DataFrame, method: str) -> None:
    chosen = comparison[(comparison["method"] == method) & (comparison["fill"] == "blur")]
    columns = ["explained", "model", "fraction", "control", "ratio", "difference", "low", "high", "effect", "p_holm"]
    print(f"\n{method} against every control, blur (difference with 95 % interval over people)")
    print(chosen[columns].round(3).to_string(index=False))
    lost = chosen[chosen["difference"] <= 0]
    tied = chosen[(chosen["difference"] > 0) & (chosen["low"] <= 0)]
    print(
        f"cells: {len(chosen)}; the control is ahead in {len(lost)}, ahead of it but within the interval in {len(tied)}"
    )


def sanity(model: nn.Module, images: Tensor, labels: list[str]) -> pd.DataFrame:
    """Six checks of the default preset, on two images of each of twelve people."""
    people = sorted(set(labels))[:12]
    chosen = [i for person in people for i in [j for j, label in enumerate(labels) if label == person][:2]]
    return sanity_checks(model, images[chosen], [labels[i] for i in chosen]).to_frame()


# -- what the documentation shows ----------------------------------------------------------------------------


def shown_drops(summary: pd.DataFrame) -> pd.DataFrame:
    """Every method, and the controls: those that are made from a method's maps, from the headline's."""
    table = summary[(summary["control"] == "") | summary["method"].isin(["", HEADLINE])]
    names = table["method"].where(table["control"] == "", "control: " + table["control"])
    kinds = table["method"].str.startswith("LEAM").map({True: "LEAM", False: "Captum"})
    return placed(table).assign(map=names, kind=kinds.where(table["control"] == "", "control"))[
        ["explained", "measured", "kind", "map", "fill", "fraction", "occluded", "drop", "low", "high"]
    ]


def placed(table: pd.DataFrame) -> pd.DataFrame:
    """With the network that a drop is measured on, seen from the explained one, and what was occluded, in words."""
    own = table["model"] == table["explained"]
    said = [f"{fill} {p:.0%}".replace("%", " %") for fill, p in table[["fill", "fraction"]].itertuples(index=False)]
    table = table.assign(measured=own.map({True: "itself", False: "the other"}), occluded=said)
    return table.sort_values(["explained", "measured"], ascending=[False, True], kind="stable")


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
    folder.mkdir(parents=True, exist_ok=True)
    headline = placed(comparison[comparison["method"] == HEADLINE])
    columns = ["explained", "measured", "fill", "fraction", "occluded", "control", "ratio", "difference", "low", "high"]
    shown_drops(result.summary()).round(4).to_csv(folder / "faithfulness.csv", index=False)
    headline[[*columns, "p_holm"]].round(4).to_csv(folder / "faithfulness_controls.csv", index=False)
    cells(comparison).to_csv(folder / "faithfulness_cells.csv", index=False)
    placed(masks)[columns].round(4).to_csv(folder / "person_masks.csv", index=False)
    checks.round(4).to_csv(folder / "sanity.csv", index=False)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--people", type=int)
    parser.add_argument("--per-person", type=int, help="images of every person; all by default")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("results/faithfulness"))
    parser.add_argument("--tables", type=Path, help="also write the documentation's tables into this folder")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    warnings.filterwarnings("ignore", message="(Setting forward|Input Tensor)")
    started = time.perf_counter()
    source = load_models(options.data)
    images, labels = load_faces(options.data, options.people, 2 if options.quick else options.per_person)
    networks = load_networks(source)
    print(
        f"{len(images)} faces of {len(set(labels))} people; networks {', '.join(networks)}; references leave-one-out; seed 0"
    )
    results, masks, checks = [], [], []
    for name, model in networks.items():
        found = suggest_layers(model, images)
        with torch.no_grad():
            references = leave_one_out_centroids(torch.cat([model(x) for x in images.split(64)]), labels)
        maps = maps_of(methods_of(model, found, source.FIELDS[name], options.quick), images, references, name)
        results.append(evaluate(networks, images, labels, maps, name, options.quick))
        fractions = (0.05,) if options.quick else (0.01, 0.05, 0.1, 0.2)
        masks.append(
            evaluate_person_masks(networks, images, maps[HEADLINE], labels, explained=name, fractions=fractions)
        )
        checks.append(sanity(model, images, labels).assign(network=name))
    result, masks_compared = OcclusionResult.concat(results), OcclusionResult.concat(masks).compare()
    comparison, checked = result.compare(), pd.concat(checks)
    show_all(result, comparison, masks_compared, checked)
    write_all(options.out, result, comparison, masks_compared)
    if options.tables:
        write_tables(options.tables, result, comparison, masks_compared, checked)
    print(f"\nwritten to {options.out}; {time.perf_counter() - started:.0f} s")


def show_all(
    result: OcclusionResult, comparison: pd.DataFrame, masks_compared: pd.DataFrame, checks: pd.DataFrame
) -> None:
    show(result)
    show_comparison(comparison, HEADLINE)
    print(f"\n{cells(comparison).to_string(index=False)}")
    print("\ntransfer matrix, drop at 5 % with blur (rows: explained, columns: measured on)")
    print(result.transfer_matrix(HEADLINE, fraction=0.05).round(3).to_string())
    print("\nperson's own mask on unseen images of the person, blur")
    print(
        masks_compared[["explained", "model", "fraction", "control", "ratio", "difference", "low", "high", "p_holm"]]
        .round(3)
        .to_string(index=False)
    )
    print(f"\nsanity checks of the default preset\n{checks.round(3).to_string(index=False)}")


def write_all(out: Path, result: OcclusionResult, comparison: pd.DataFrame, masks_compared: pd.DataFrame) -> None:
    out.mkdir(parents=True, exist_ok=True)
    result.to_frame().to_csv(out / "drops.csv", index=False)
    result.summary().to_csv(out / "summary.csv", index=False)
    comparison.to_csv(out / "comparison.csv", index=False)
    masks_compared.to_csv(out / "person_masks.csv", index=False)
    result.plot().savefig(out / "curves.png", dpi=150)


if __name__ == "__main__":
    main()
