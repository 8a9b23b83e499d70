"""Deletion and insertion for face verification, and patch pairs: what maps do to the decision about a pair of real faces.

    python benchmarks/verification.py --data ../shared/real [--pairs 60] [--out results/verification] [--tables docs/_data]

For each network, on balanced pairs (seed 0): area under the genuine accept rate (similar maps) and the impostor reject rate
(dissimilar maps) as pixels are deleted or inserted in steps of 10 %, probe only, black as in the papers and blurred, threshold at
the equal error rate of all pairs of the images; with 95 % intervals over people. Then 27 patches of 16 × 16 pasted into the probes.
Maps explain the probe towards the other image of its pair; that of the preset is not signed, and scored as a similar map only.
With ``--tables`` also docs/_data/verification.csv and docs/_data/patch_pairs.csv. Every network of the folder (``research_data.py``) is
explained. Not shown: other operating points, colour faces.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from captum.attr import LayerGradCam, Saliency
from research_data import load_faces, load_networks
from torch import Tensor, nn

from captum_leam import LEAM, EmbeddingSimilarity, explain_faces, suggest_layers
from captum_leam.faithfulness import evaluate_patch_pairs, paste_patches
from captum_leam.maps import gaussian_blur, normalize_max, place_on_field
from captum_leam.objectives import embed, unit
from captum_leam.verification import Pairs, VerificationEvaluator, draw_pairs

Maps = Callable[[Tensor, Tensor], Tensor]
UNSIGNED = "LEAM, default"
CONTROLS = ("random pixels", "centre")


def methods_of(model: nn.Module, images: Tensor) -> dict[str, Maps]:
    """Maps at image size, high where the pair is similar, low where it is not; the preset's end at zero."""
    found = suggest_layers(model, images)
    size, field, overall = found.image_size, found.field, found.for_overall_map()
    every = LEAM(model, overall)
    one = LEAM(model, overall[min(1, len(overall) - 1)])
    cosine = EmbeddingSimilarity(model, norm="differentiate")
    cam = LayerGradCam(cosine, found[-1].module)

    def path(x: Tensor, r: Tensor) -> Tensor:
        maps = every.attribute(x, reference=r, n_steps=4)
        return torch.stack([normalize_max(place_on_field(m, size, field)) for m in maps]).mean(0)

    def saliency(x: Tensor, r: Tensor) -> Tensor:
        slopes = Saliency(cosine).attribute(x, additional_forward_args=(r,), abs=False)
        return gaussian_blur((slopes.detach() * x).sum(1), 2.0)

    return {
        "LEAM, middle layer, one pass": lambda x, r: place_on_field(one.attribute(x, reference=r), size, field),
        "LEAM, layers, path of 4, signed": path,
        UNSIGNED: lambda x, r: explain_faces(model, x, layers=found, reference=r),
        "LayerGradCam, last layer": lambda x, r: place_on_field(
            cam.attribute(x, additional_forward_args=(r,)).detach(), size, field
        ),
        "InputXGradient, blurred": saliency,
    }


def in_parts(method: Maps, images: Tensor, references: Tensor) -> Tensor:
    return torch.cat([method(x, r) for x, r in zip(images.split(16), references.split(16), strict=True)])


def all_scores(embeddings: Tensor, labels: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Scores of all pairs of the images: thresholds are taken from these."""
    f = unit(embeddings.double())
    pairs = list(combinations(range(len(f)), 2))
    first, second = torch.tensor(pairs).T
    return (f[first] * f[second]).sum(1).numpy(), np.array([labels[i] == labels[j] for i, j in pairs])


def areas(
    model: nn.Module,
    name: str,
    images: Tensor,
    labels: list[str],
    pairs: Pairs,
    maps: dict[str, Tensor],
    out: Path,
) -> pd.DataFrame:
    """Area under the rate that scores each map, by fill and protocol."""
    negated = {method: -m for method, m in maps.items() if method != UNSIGNED}
    calibration = {name: all_scores(embed(model, images), labels)}
    tables = []
    for fill in ("zero", "blur"):
        evaluator = VerificationEvaluator({name: model}, fill=fill, controls=CONTROLS, progress=True)
        result = evaluator.evaluate(images, pairs, maps, negated, calibration=calibration, labels=labels)
        tables.append(result.summary().assign(fill={"zero": "black"}.get(fill, fill), network=name))
        result.plot().savefig(out / f"{name}_{fill}_deletion.png", dpi=150)
    summary = pd.concat(tables)
    summary.to_csv(out / f"{name}.csv", index=False)
    named = summary["method"].where(~summary["method"].isin(CONTROLS), "control: " + summary["method"])
    curve = summary["kind"] + " " + summary["protocol"] + " " + summary["fill"]
    return summary.assign(map=named, curve=curve)[["network", "map", "curve", "auc", "low", "high"]]


def show(table: pd.DataFrame, name: str) -> None:
    said = [f"{a:.2f} [{lo:.2f}, {hi:.2f}]" for a, lo, hi in table[["auc", "low", "high"]].itertuples(index=False)]
    wide = table.assign(said=said).pivot_table(index="map", columns="curve", values="said", sort=False, aggfunc="first")
    print(f"\n{name}: area under GAR (similar) or IRR (dissimilar); deletion: lower is better, insertion: higher")
    print(wide.fillna("").to_string())


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--networks", nargs="+", help="names in the zoo; all by default")
    parser.add_argument("--people", type=int)
    parser.add_argument("--pairs", type=int, default=60, help="genuine pairs, and impostor pairs")
    parser.add_argument("--out", type=Path, default=Path("results/verification"))
    parser.add_argument("--tables", type=Path, help="also write the documentation's tables into this folder")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    warnings.filterwarnings("ignore", message="(Setting forward|Input Tensor)")
    started = time.perf_counter()
    images, labels = load_faces(options.data, options.people)
    pairs = draw_pairs(labels, options.pairs)
    patched = paste_patches(images, pairs, labels)
    options.out.mkdir(parents=True, exist_ok=True)
    print(f"{options.pairs} genuine and {options.pairs} impostor pairs of {len(set(labels))} people, seed 0")
    curves, patches = [], []
    for name, model in load_networks(options.data, options.networks).items():
        methods, others = methods_of(model, images[:4]), embed(model, images)[pairs.second]
        maps = {method: in_parts(explain, images[pairs.first], others) for method, explain in methods.items()}
        curves.append(areas(model, name, images, labels, pairs, maps, options.out))
        show(curves[-1], name)
        signed = {method: explain for method, explain in methods.items() if method != UNSIGNED}
        on_patches = {method: in_parts(explain, patched.images, others) for method, explain in signed.items()}
        found = evaluate_patch_pairs(model, patched, on_patches)
        found.plot().savefig(options.out / f"{name}_patches.png", dpi=150)
        patches.append(found.summary().reset_index(names="map").assign(network=name))
        print(
            f"\n{name}, patch pairs: mean FMR and FNMR over 0 to 95 % given back (lower is better), agreement with the patches"
        )
        print(patches[-1].round(3).to_string(index=False))
    if options.tables:
        pd.concat(curves).round(4).to_csv(options.tables / "verification.csv", index=False)
        pd.concat(patches).round(4).to_csv(options.tables / "patch_pairs.csv", index=False)
    print(f"\nwritten to {options.out}; {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
