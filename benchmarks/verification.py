"""Deletion and insertion for face verification, and patch pairs: what maps do to the decision about a pair of real faces.

    python benchmarks/verification.py --data ../shared/real [--pairs 60] [--out results/verification]

For each network, on balanced pairs (seed 0): area under the genuine accept rate (similar maps) and the impostor reject rate
(dissimilar maps) as pixels are deleted or inserted in steps of 10 %, probe only, black as in the papers and blurred, threshold at
the equal error rate of all pairs of the images; with 95 % intervals over people. Then 27 patches of 16 × 16 pasted into the probes.
Maps explain the probe towards the other image of its pair. Any folder with faces/PERSON/*.png and models.py (RECOGNISERS, FIELDS)
works. Not shown: other operating points, colour faces, other networks.
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
from main_job import load_faces, load_models
from torch import Tensor, nn

from captum_leam import LEAM, EmbeddingSimilarity, suggest_layers
from captum_leam.faithfulness import VerificationEvaluator, draw_pairs, evaluate_patch_pairs, paste_patches
from captum_leam.maps import Field, gaussian_blur, normalize_max, place_on_field
from captum_leam.objectives import embed, unit

Maps = Callable[[Tensor, Tensor], Tensor]


def signed_methods(model: nn.Module, images: Tensor, field: Field) -> dict[str, Maps]:
    """Signed maps at image size: high where the pair is similar, low where it is not."""
    found = suggest_layers(model, images)
    size, overall = found.image_size, found.for_overall_map()
    every = LEAM(model, [layer.module for layer in overall], reshape=[layer.reshape for layer in overall])
    one = LEAM(model, overall[1].module, reshape=overall[1].reshape)
    cosine = EmbeddingSimilarity(model, norm="differentiate")
    cam = LayerGradCam(cosine, found[-1].module)

    def path(x: Tensor, r: Tensor) -> Tensor:
        maps = every.attribute(x, reference=r, n_steps=4)
        return torch.stack([normalize_max(place_on_field(m, size, field)) for m in maps]).mean(0)

    def saliency(x: Tensor, r: Tensor) -> Tensor:
        slopes = Saliency(cosine).attribute(x, additional_forward_args=(r,), abs=False)
        return gaussian_blur((slopes.detach() * x).sum(1), 2.0)

    return {
        "LEAM 28 px, one pass": lambda x, r: place_on_field(one.attribute(x, reference=r), size, field),
        "LEAM 56, 28, 14 px, path of 4": path,
        "LayerGradCam": lambda x, r: place_on_field(
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--people", type=int)
    parser.add_argument("--pairs", type=int, default=60, help="genuine pairs, and impostor pairs")
    parser.add_argument("--out", type=Path, default=Path("results/verification"))
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message="(Setting forward|Input Tensor)")
    started = time.perf_counter()
    source = load_models(options.data)
    images, labels = load_faces(options.data, options.people)
    pairs = draw_pairs(labels, options.pairs)
    patched = paste_patches(images, pairs, labels)
    options.out.mkdir(parents=True, exist_ok=True)
    print(f"{options.pairs} genuine and {options.pairs} impostor pairs of {len(set(labels))} people, seed 0")
    for name, make in source.RECOGNISERS.items():
        model = make().eval()
        embeddings = embed(model, images)
        scores, genuine = all_scores(embeddings, labels)
        methods = signed_methods(model, images, source.FIELDS[name])
        probes, others = images[pairs.first], embeddings[pairs.second]
        maps = {method: in_parts(explain, probes, others) for method, explain in methods.items()}
        tables = []
        for fill in ("zero", "blur"):
            evaluator = VerificationEvaluator(
                {name: model}, fill=fill, controls=("random pixels", "centre"), progress=True
            )
            negated = {method: -m for method, m in maps.items()}
            calibration = {name: (scores, genuine)}
            result = evaluator.evaluate(images, pairs, maps, negated, calibration=calibration, labels=labels)
            tables.append(result.summary().assign(fill=fill))
            result.plot().savefig(options.out / f"{name}_{fill}_deletion.png", dpi=150)
        summary = pd.concat(tables)
        summary.to_csv(options.out / f"{name}.csv", index=False)
        summary["cell"] = [
            f"{a:.2f} [{lo:.2f}, {hi:.2f}]" for a, lo, hi in summary[["auc", "low", "high"]].itertuples(index=False)
        ]
        print(f"\n{name}: area under GAR (similar) or IRR (dissimilar); deletion: lower is better, insertion: higher")
        print(
            summary.pivot(index="method", columns=["fill", "kind", "protocol"], values="cell")
            .loc[[*maps, "random pixels", "centre"]]
            .to_string()
        )
        on_patches = {method: in_parts(explain, patched.images, others) for method, explain in methods.items()}
        found = evaluate_patch_pairs(model, patched, on_patches)
        found.plot().savefig(options.out / f"{name}_patches.png", dpi=150)
        print(
            f"\n{name}, patch pairs: mean FMR and FNMR over 0 to 95 % given back (lower is better), agreement with the patches"
        )
        print(found.summary().round(3).to_string())
    print(f"\nwritten to {options.out}; {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
