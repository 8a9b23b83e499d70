"""Train the networks of the demo and write their weights into the package.

``python tools/train_demo.py`` trains all three, two at a time, each on one thread, writes ``captum_leam/synthetic/trained_*.npz`` and
prints what the swap test says of each. ``--check`` compares with the weights that are there instead, and exits with status 1 if a share
of the swap test differs by more than 0.05. Training is seeded and runs on one thread: on one machine and version of PyTorch the weights
repeat bit by bit; elsewhere sums round differently, and what repeats are the figures of the swap test.
"""

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from captum_leam.synthetic import EmbeddingNet, SyntheticPopulation, load_trained, swap_test, train  # noqa: E402
from captum_leam.synthetic.trained_networks import PEOPLE, SEED, TRAINED  # noqa: E402

TOLERANCE = 0.05
"""Difference of a share of the swap test from which weights are not those that training makes."""

FOLDER = ROOT / "captum_leam" / "synthetic"


def weights_of(part: str) -> dict[str, Tensor]:
    """Train the network of one part."""
    torch.set_num_threads(1)
    return train(SyntheticPopulation(PEOPLE, part, SEED), seed=SEED, progress=False).state_dict()


def shares(part: str, net: EmbeddingNet) -> tuple[float, float, float]:
    """Return the accuracy of a network, and how often its decisions flip with the part and with the rest."""
    test = swap_test(net, SyntheticPopulation(PEOPLE, part, SEED), seed=SEED)
    return test.accuracy, test.part_flips, test.rest_flips


def sentence(found: tuple[float, float, float]) -> str:
    """Return the shares of the swap test as text."""
    return "accuracy {:.3f}, flips with the part {:.3f}, with the rest {:.3f}".format(*found)


def network(weights: dict[str, Tensor]) -> EmbeddingNet:
    """Return a network with weights, in evaluation mode."""
    net = EmbeddingNet()
    net.load_state_dict(weights)
    return net.eval()


def difference(one: EmbeddingNet, other: EmbeddingNet) -> float:
    """Return the largest absolute difference of the weights of two networks."""
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return max((a.double() - b.double()).abs().max().item() for a, b in pairs)


def main() -> None:
    """Train, then write or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the weights of the package instead")
    parser.add_argument("--only", choices=TRAINED, action="append", help="some of the networks")
    parser.add_argument("--processes", type=int, default=2, help="networks that are trained at a time")
    options = parser.parse_args()
    parts = options.only or TRAINED
    has_failed = False
    with ProcessPoolExecutor(options.processes) as pool:
        for part, weights in zip(parts, pool.map(weights_of, parts), strict=True):
            net = network(weights)
            found = shares(part, net)
            print(f"{part}, trained here: {sentence(found)}", flush=True)
            if options.check:
                has_failed |= differs(part, net, found)
            else:
                np.savez_compressed(FOLDER / f"trained_{part}.npz", **{k: v.numpy() for k, v in weights.items()})
    raise SystemExit(int(has_failed))


def differs(part: str, net: EmbeddingNet, found: tuple[float, float, float]) -> bool:
    """Print how a network compares with that of the package, and return whether a share of the swap test differs."""
    there = load_trained(SyntheticPopulation(PEOPLE, part, SEED))
    expected = shares(part, there)
    print(f"{part}, of the package: {sentence(expected)}; largest difference of weights {difference(net, there):.3g}")
    return any(abs(a - b) > TOLERANCE for a, b in zip(found, expected, strict=True))


if __name__ == "__main__":
    main()
