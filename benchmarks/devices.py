"""Images per second on one device: every preset and a study, beside the bare passes that they need.

    python benchmarks/devices.py [--device cuda] [--precision float32 bf16] [--network resnet50] [--images 128] [--batch 32]
        [--people 20] [--repeats 3] [--csv FILE]

Presets: :class:`captum_leam.explain.OverallMap` on random images of 112 × 112 px, with layers and field known, as a study calls it. *Bare*:
as many forward and backward passes of the same batches to the images, and nothing else. Study: the stages of synthetic people up to the
comparisons on two small networks (``embedding``), each task beside its passes (``beside`` of study_scale.py); reading, region shares,
occlusion and writing count, and an image counts once for each network. Both take turns; medians of ``--repeats``, after one run to
warm up. Wall clock, read after the device has finished. Networks with random weights: ``embedding`` of captum_leam.synthetic, or
``resnet50`` of torchvision. Not run on CUDA so far: no GPU was at hand. Not shown: several GPUs, decoding of large photographs,
finding layers and field (a few passes on two images).
"""

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import torch
from study_scale import beside, write_config, write_people
from torch import Tensor, nn
from torchvision.models import resnet50

from captum_leam import suggest_layers
from captum_leam.explain import PRESETS, OverallMap
from captum_leam.study.worker import keep_freed_memory
from captum_leam.synthetic import EmbeddingNet

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "embedding": partial(EmbeddingNet, 32),
    "resnet50": partial(resnet50, num_classes=512),
}
Row = dict[str, Any]


def clock(device: str) -> float:
    """Return the seconds of the wall clock, when the device is done."""
    kind = torch.device(device).type
    if kind != "cpu":
        getattr(torch, kind).synchronize()
    return time.perf_counter()


def explain(overall: OverallMap, images: Tensor, towards: Tensor) -> None:
    overall(images, reference=towards)


def bare(module: nn.Module, passes: int, images: Tensor, towards: Tensor) -> None:
    for _ in range(passes):
        x = images.detach().requires_grad_()
        torch.autograd.grad((module(x) * towards).sum(), x)


def of_presets(network: str, options: argparse.Namespace, precision: str) -> list[Row]:
    device, kind = options.device, torch.device(options.device).type
    torch.manual_seed(0)
    module = NETWORKS[network]().eval().to(device)
    images = torch.rand(options.images, 3, 112, 112).to(device)
    found = suggest_layers(module, images[:2])
    with torch.no_grad():
        towards = torch.cat([module(part) for part in images.flip(0).split(options.batch)]).detach()
    rows = []
    for preset in PRESETS:
        overall = OverallMap(module, list(found.for_overall_map()), found.field, preset)  # type: ignore[arg-type]
        calls = {"ours": partial(explain, overall), "bare": partial(bare, module, PRESETS[preset].passes()[1])}
        taken: dict[str, list[float]] = {name: [] for name in calls}
        with torch.autocast(kind, torch.bfloat16) if precision == "bf16" else nullcontext():
            for repeat in range(options.repeats + 1):
                for name, call in calls.items():
                    began = clock(device)
                    for part, to in zip(images.split(options.batch), towards.split(options.batch), strict=True):
                        call(part, to)
                    if repeat:
                        taken[name].append(clock(device) - began)
        ours, theirs = (statistics.median(taken[name]) for name in ("ours", "bare"))
        rows.append(
            {
                "what": preset,
                "images per second": options.images / ours,
                "bare": options.images / theirs,
                "ratio": theirs / ours,
            }
        )
    return rows


def of_study(options: argparse.Namespace, precision: str) -> Row:
    """A study of two small networks; its figures count the images of one of them."""
    with TemporaryDirectory() as folder:
        write_people(Path(folder) / "faces", options.people, 5)
        path = write_config(Path(folder), 2, 99, "default")
        run = partial(beside, path, options.people, lambda: clock(options.device), device=options.device)
        runs = [run(precision=precision, batch_size=options.batch) for _ in range(options.repeats + 1)][1:]
    count = 2 * 5 * options.people
    ours, theirs = (statistics.median(getattr(r, name) for r in runs) for name in ("study", "bare"))
    return {
        "what": "study (embedding)",
        "images per second": count / ours,
        "bare": count / theirs,
        "ratio": theirs / ours,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", nargs="+", choices=["float32", "bf16"], default=["float32", "bf16"])
    parser.add_argument("--network", choices=list(NETWORKS), default="resnet50", help="of the presets")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--people", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--csv", type=Path)
    options = parser.parse_args()
    keep_freed_memory()
    rows: list[Row] = []
    for precision in options.precision:
        for row in (*of_presets(options.network, options, precision), of_study(options, precision)):
            rows.append({"device": options.device, "precision": precision, **row})
            print(
                f"{options.device}, {precision}, {row['what']}: {row['images per second']:.1f} images per second, bare passes "
                f"{row['bare']:.1f}, ratio {row['ratio']:.2f}",
                flush=True,
            )
    if options.csv:
        pd.DataFrame(rows).round(3).to_csv(options.csv, index=False)


if __name__ == "__main__":
    main()
