"""FGGB and CorrRISE against their literal loops, on one face: time, memory, and that both say the same.

    python benchmarks/peers_speed.py --data ../shared/real [--masks 500] [--device cpu] [--repeats 3]

Literal FGGB: a forward and a backward pass for each dimension; and a shorter one, one forward pass whose graph is kept for all
backward passes. Literal CorrRISE: a forward pass for each mask, scipy's Spearman for each pixel. Seconds are those of the process's
cores (of the clock on a GPU), the best of the repeats, taken in turns. Memory: the largest number of images in one pass, which
``batch_size`` bounds. Every network of the folder (research_data.py), the first face, the second image's embedding
as the reference, seed 0.
"""

import argparse
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from research_data import load_faces, load_zoo
from scipy.stats import ConstantInputWarning, spearmanr
from torch import Tensor, nn

from captum_leam.explainers import FGGB, CorrRISE
from captum_leam.explainers.perturbation import patch_masks

Explain = Callable[[], Tensor]


def literal_fggb(model: nn.Module, face: Tensor, reference: Tensor, keep_graph: bool = False) -> Tensor:
    g, total, x = nn.functional.normalize(reference, dim=0), torch.zeros_like(face), face.clone().requires_grad_()
    f = nn.functional.normalize(model(x))[0]
    for k in range(len(g)):
        if not keep_graph:
            f = nn.functional.normalize(model(x))[0]
        (gradient,) = torch.autograd.grad(f[k], x, retain_graph=keep_graph)
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


def timed(function: Explain, device: str) -> tuple[Tensor, float]:
    clock = time.process_time if device == "cpu" else time.perf_counter
    started = clock()
    result = function().cpu()  # waits for the device
    return result, clock() - started


def compare(name: str, ours: Explain, literals: Mapping[str, Explain], repeats: int, device: str) -> None:
    timed(ours, device)  # warm up
    results: dict[str, Tensor] = {}
    best: dict[str, float] = {}
    for _ in range(repeats):
        for what, function in {"": ours, **literals}.items():
            results[what], seconds = timed(function, device)
            best[what] = min(seconds, best.get(what, seconds))
    for what in literals:
        slow = results[what].double().flatten()
        difference = (results[""].double().flatten() - slow).abs().max() / slow.abs().max()
        print(
            f"{name}: {best['']:.2f} s; {what} {best[what]:.2f} s: {best[what] / best['']:.1f} ×; largest difference "
            f"{difference:.1e}",
            flush=True,
        )


def largest_pass(model: nn.Module, explain: Explain) -> int:
    sizes: list[int] = []
    handle = model.register_forward_hook(lambda module, args, output: sizes.append(len(args[0])))
    explain()
    handle.remove()
    return max(sizes)


def measure(model: nn.Module, faces: Tensor, masks: int, repeats: int, device: str) -> None:
    face, reference = faces[:1], model(faces[1:]).detach()[0]
    fggb, corrrise = FGGB(model, batch_size=4 if device == "cpu" else 64), CorrRISE(model, masks=masks)
    loops = {
        "a forward and a backward pass per dimension": lambda: literal_fggb(model, face, reference),
        "one graph kept": lambda: literal_fggb(model, face, reference, keep_graph=True),
    }
    compare("FGGB", lambda: fggb.attribute(face, reference=reference), loops, repeats, device)
    loop = {"a forward pass per mask": lambda: literal_corrrise(model, face, reference, masks)}
    compare(f"CorrRISE, {masks} masks", lambda: corrrise.attribute(face, reference=reference), loop, repeats, device)
    for method in (fggb, corrrise):
        sizes = []
        for method.batch_size in (2, 8):
            sizes.append(largest_pass(model, lambda: method.attribute(face, reference=reference)))  # noqa: B023 - called at once
        print(f"{method.get_name()}: at most {sizes} images in one pass with a batch_size of 2 and 8", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--masks", type=int, default=500)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=ConstantInputWarning)
    for name, make in load_zoo(options.data).items():
        model = make().eval().to(options.device)
        faces = load_faces(options.data, 1, 2)[0].to(options.device)
        print(f"network {name}, {torch.get_num_threads()} threads, {options.device}")
        measure(model, faces, options.masks, options.repeats, options.device)


if __name__ == "__main__":
    main()
