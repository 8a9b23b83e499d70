"""What does the evaluator cost beside the forward passes that cannot be avoided?

    python benchmarks/evaluator_overhead.py [--data ../shared/real] [--images 48] [--repeats 3]

Time of OcclusionEvaluator.evaluate (3 methods, all controls, 2 fractions, blur and zero fill) over the time of the same batches through the
bare model, interleaved in one process, medians. Models: torchvision's ResNet-18 with random weights and, with
--data, the first network there. Then the peak memory of the process with 3 methods and with 9. Not shown: GPUs.
"""

import argparse
import resource
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from captum_leam.controls import CONTROLS
from captum_leam.faithfulness import OcclusionEvaluator

FRACTIONS, FILLS, BATCH = (0.05, 0.2), ("blur", "zero"), 64


class Watched(nn.Module):
    """Notes the sizes of the batches that a model embeds."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.batches: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        """Embed, and note."""
        self.batches.append(len(x))
        return self.model(x)


def bare(model: nn.Module, images: Tensor, batches: list[int]) -> float:
    """Seconds for the same batches without an evaluator."""
    started = time.perf_counter()
    with torch.no_grad():
        for size in batches:
            model(images[:size])
    return time.perf_counter() - started


def evaluated(model: nn.Module, images: Tensor, methods: dict[str, Tensor]) -> float:
    evaluator = OcclusionEvaluator(model, FRACTIONS, fills=FILLS, batch_size=BATCH)
    labels = [i // 2 for i in range(len(images))]
    started = time.perf_counter()
    evaluator.evaluate(images, methods, labels=labels)
    return time.perf_counter() - started


def measure(name: str, model: nn.Module, images: Tensor, repeats: int) -> None:
    generator = torch.Generator().manual_seed(0)
    methods = {f"map {i}": torch.rand(len(images), 112, 112, generator=generator) for i in range(3)}
    watched = Watched(model).eval()
    evaluated(watched, images, methods)  # warm, and what is embedded
    ratios = []
    for _ in range(repeats):
        ours = evaluated(model, images, methods)
        ratios.append(ours / bare(model, images, watched.batches))
    print(
        f"{name}: {sum(watched.batches)} images embedded ({len(methods)} methods, {len(CONTROLS)} controls); "
        f"evaluator / bare forwards = {statistics.median(ratios):.3f} (min {min(ratios):.3f}, max {max(ratios):.3f}, n {repeats})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    images = torch.rand(options.images, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    models = {"resnet18, random weights": resnet18(num_classes=128).eval()}
    if options.data is not None:
        from research_data import load_zoo

        name, make = next(iter(load_zoo(options.data).items()))
        models[name] = make().eval()
    for name, model in models.items():
        measure(name, model, images, options.repeats)
    few = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    methods = {f"map {i}": torch.rand(len(images), 112, 112) for i in range(9)}
    evaluated(models["resnet18, random weights"], images, methods)
    many = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(f"peak memory of the process: {few:.0f} MiB with 3 methods, {many:.0f} MiB with 9")


if __name__ == "__main__":
    main()
