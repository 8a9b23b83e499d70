"""Is the explanation true? Every method and control on real faces, on both networks, with intervals.

    python benchmarks/faithfulness.py --data ../shared/real [--people N] [--quick] [--out results/faithfulness]

Prints, for each explained network, the mean cosine drop at 5 and 20 % with every fill and at 1, 2 and 10 % with blur, on that
network and on the others, with 95 % bootstrap intervals over people; the overall path map against every control; person masks.
Writes drops.csv, summary.csv, comparison.csv, person_masks.csv and curves.png. References are leave-one-out centroids, seed 0.
Any folder with faces/PERSON/*.png and models.py (RECOGNISERS, FIELDS) works. Not shown: colour faces, other networks, other
presets of the methods. ``--quick``: two images of every person, fills blur and zero, 5 % only, no Occlusion.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from captum.attr import IntegratedGradients, LayerGradCam, Occlusion, Saliency
from main_job import load_faces, load_models
from torch import Tensor, nn
from tqdm import tqdm

from captum_leam import LEAM, EmbeddingSimilarity, leave_one_out_centroids, overall_map, suggest_layers
from captum_leam.faithfulness import CONTROLS, OcclusionEvaluator, OcclusionResult, evaluate_person_masks
from captum_leam.maps import Field, gaussian_blur, place_on_field
from captum_leam.suggest import LayerSuggestions

OVERALL = "LEAM overall, path of 4"
Maps = Callable[[Tensor, Tensor], Tensor]


def pixel_map(attributions: Tensor) -> Tensor:
    """Input attributions (N, C, H, W) to maps: absolute value, summed over colours, blurred with σ = 2 px (as is custom)."""
    return gaussian_blur(attributions.detach().abs().sum(1), 2.0)


def methods_of(model: nn.Module, found: LayerSuggestions, field: Field, quick: bool) -> dict[str, Maps]:
    size = found.image_size
    overall = found.for_overall_map()
    middle, last = overall[min(1, len(overall) - 1)], found[-1]
    cosine, fixed = EmbeddingSimilarity(model, norm="differentiate"), EmbeddingSimilarity(model, norm="fixed")
    one = LEAM(model, middle.module, reshape=middle.reshape)
    every = LEAM(model, [layer.module for layer in overall], reshape=[layer.reshape for layer in overall])
    cam = LayerGradCam(cosine, last.module)

    def integrated(x: Tensor, r: Tensor) -> Tensor:
        weights = (fixed.fixed_weights(x, r),)
        options = {"additional_forward_args": weights, "n_steps": 20, "internal_batch_size": 64}
        return pixel_map(IntegratedGradients(fixed).attribute(x, **options))

    def occlusion(x: Tensor, r: Tensor) -> Tensor:
        windows = {"sliding_window_shapes": (3, 14, 14), "strides": (3, 7, 7), "perturbations_per_eval": 4}
        return Occlusion(cosine).attribute(x, additional_forward_args=(r,), **windows).detach().mean(1)

    methods: dict[str, Maps] = {
        f"LEAM {middle.shape[1]} px": lambda x, r: place_on_field(one.attribute(x, reference=r), size, field),
        f"LEAM {middle.shape[1]} px, path of 4": lambda x, r: place_on_field(
            one.attribute(x, reference=r, n_steps=4), size, field
        ),
        OVERALL: lambda x, r: overall_map(every.attribute(x, reference=r, n_steps=4), size, field),
        "LayerGradCam": lambda x, r: place_on_field(
            cam.attribute(x, additional_forward_args=(r,)).detach(), size, field
        ),
        "Saliency": lambda x, r: pixel_map(Saliency(cosine).attribute(x, additional_forward_args=(r,))),
        "IntegratedGradients": integrated,
        "Occlusion": occlusion,
    }
    return {name: method for name, method in methods.items() if not (quick and name == "Occlusion")}


def maps_of(methods: dict[str, Maps], images: Tensor, references: Tensor, name: str) -> dict[str, Tensor]:
    parts = list(zip(images.split(16), references.split(16), strict=True))
    bar = tqdm(methods.items(), desc=f"explaining {name}")
    return {method: torch.cat([explain(x, r) for x, r in parts]) for method, explain in bar}


def evaluate(
    networks: dict, images: Tensor, labels: list[str], maps: dict[str, Tensor], name: str, quick: bool
) -> OcclusionResult:
    settings = (
        [((0.05,), ("blur", "zero"))] if quick else [((0.05, 0.2), ("zero", "mean", "blur", "noisy linear", "shuffle"))]
    )
    settings += [] if quick else [((0.01, 0.02, 0.1), ("blur",))]
    results = []
    for fractions, fills in settings:
        evaluator = OcclusionEvaluator(networks, fractions, fills=fills, controls=tuple(CONTROLS), progress=True)
        results.append(evaluator.evaluate(images, maps, labels=labels, explained=name))
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--people", type=int)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("results/faithfulness"))
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message="(Setting forward|Input Tensor)")
    started = time.perf_counter()
    source = load_models(options.data)
    images, labels = load_faces(options.data, options.people, 2 if options.quick else None)
    networks = {name: make().eval() for name, make in source.RECOGNISERS.items()}
    print(
        f"{len(images)} faces of {len(set(labels))} people; networks {', '.join(networks)}; references leave-one-out; seed 0"
    )
    results, masks = [], []
    for name, model in networks.items():
        found = suggest_layers(model, images)
        with torch.no_grad():
            references = leave_one_out_centroids(torch.cat([model(x) for x in images.split(64)]), labels)
        maps = maps_of(methods_of(model, found, source.FIELDS[name], options.quick), images, references, name)
        results.append(evaluate(networks, images, labels, maps, name, options.quick))
        fractions = (0.05,) if options.quick else (0.01, 0.05, 0.1, 0.2)
        masks.append(
            evaluate_person_masks(networks, images, maps[OVERALL], labels, explained=name, fractions=fractions)
        )
    result, own = OcclusionResult.concat(results), OcclusionResult.concat(masks)
    show(result)
    comparison = result.compare()
    show_comparison(comparison, OVERALL)
    print("\ntransfer matrix, drop at 5 % with blur (rows: explained, columns: measured on)")
    print(result.transfer_matrix(OVERALL, fraction=0.05).round(3).to_string())
    masks_compared = own.compare()
    print("\nperson's own mask on unseen images of the person, blur")
    print(
        masks_compared[["explained", "model", "fraction", "control", "ratio", "difference", "low", "high", "p_holm"]]
        .round(3)
        .to_string(index=False)
    )
    options.out.mkdir(parents=True, exist_ok=True)
    result.to_frame().to_csv(options.out / "drops.csv", index=False)
    result.summary().to_csv(options.out / "summary.csv", index=False)
    comparison.to_csv(options.out / "comparison.csv", index=False)
    masks_compared.to_csv(options.out / "person_masks.csv", index=False)
    result.plot().savefig(options.out / "curves.png", dpi=150)
    print(f"\nwritten to {options.out}; {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
