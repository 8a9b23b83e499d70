"""FGGB and CorrRISE against their literal loops, on one face: time, and that both say the same.

    python benchmarks/peers_speed.py --data ../shared/real [--masks 500] [--device cpu]

Literal FGGB: a forward and a backward pass for each dimension. Literal CorrRISE: a forward pass for each mask, scipy's Spearman for each
pixel. The first network of models.py (RECOGNISERS), the first face, the second image's embedding as the reference, seed 0.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from main_job import load_faces, load_models
from scipy.stats import ConstantInputWarning, spearmanr
from torch import Tensor, nn

from captum_leam.explainers import FGGB, CorrRISE
from captum_leam.explainers.perturbation import patch_masks


def literal_fggb(model: nn.Module, face: Tensor, reference: Tensor) -> Tensor:
    g, total = nn.functional.normalize(reference, dim=0), torch.zeros_like(face)
    for k in range(len(g)):
        x = face.clone().requires_grad_()
        f = nn.functional.normalize(model(x))[0]
        (gradient,) = torch.autograd.grad(f[k], x)
        total += gradient / gradient.norm() * (f[k] * g[k]).item()
    return total.mean(1)


def literal_corrrise(model: nn.Module, face: Tensor, reference: Tensor, masks: int) -> Tensor:
    size = (face.shape[2], face.shape[3])
    shown = patch_masks(masks, size, round(30 * size[1] / 112), 3, seed=0)
    with torch.no_grad():
        scores = [nn.functional.cosine_similarity(model(face * m.to(face)), reference[None]).item() for m in shown]
    return torch.tensor(
        [[[spearmanr(shown[:, r, c].numpy(), scores).statistic for c in range(size[1])] for r in range(size[0])]]
    ).nan_to_num()


def timed(function: Callable[[], Tensor]) -> tuple[Tensor, float]:
    started = time.perf_counter()
    result = function().cpu()
    return result, time.perf_counter() - started


def compare(name: str, ours: Callable[[], Tensor], literal: Callable[[], Tensor]) -> None:
    ours()  # warm up
    (fast, quick), (slow, long) = timed(ours), timed(literal)
    difference = (fast.double().flatten() - slow.double().flatten()).abs().max() / slow.abs().max()
    print(
        f"{name}: {quick:.2f} s, literal loop {long:.2f} s: {long / quick:.1f} ×; largest difference {difference:.1e}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--masks", type=int, default=500)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=ConstantInputWarning)
    source = load_models(options.data)
    name, make = next(iter(source.RECOGNISERS.items()))
    model = make().eval().to(options.device)
    faces = load_faces(options.data, 1, 2)[0].to(options.device)
    face, reference = faces[:1], model(faces[1:]).detach()[0]
    print(f"network {name}, {len(reference)} dimensions, {torch.get_num_threads()} threads, {options.device}")
    fggb, corrrise = FGGB(model), CorrRISE(model, masks=options.masks)
    compare("FGGB", lambda: fggb.attribute(face, reference), lambda: literal_fggb(model, face, reference))
    compare(
        f"CorrRISE, {options.masks} masks",
        lambda: corrrise.attribute(face, reference),
        lambda: literal_corrrise(model, face, reference, options.masks),
    )


if __name__ == "__main__":
    main()
