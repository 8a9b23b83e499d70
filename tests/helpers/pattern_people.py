"""Maps of made-up people, and the slow double loops that fast sums are held against."""

import numpy as np
import torch
from torch import Tensor

from captum_leam import bhattacharyya


def made_maps(counts=(3, 2, 4, 1), size=(8, 9), seed=0, own=2.0) -> tuple[Tensor, list[str]]:
    """Signed maps without ties; each person has a pattern that shows ``own`` times as strong as noise."""
    rng = np.random.default_rng(seed)
    people = [f"p{i}" for i, count in enumerate(counts) for _ in range(count)]
    patterns = {person: rng.normal(size=size) for person in dict.fromkeys(people)}
    maps = np.stack([own * patterns[person] + rng.normal(size=size) for person in people])
    return torch.from_numpy(maps), people


def table_of(maps: Tensor, fraction: float = 0.2) -> np.ndarray:
    return bhattacharyya(maps, fraction=fraction).numpy()


def slow_means(table, people, drawn=None, weights="people"):
    """Same and different, pair by pair; a pair of two people weighs as both together, of one person as that person."""
    names = list(dict.fromkeys(people))
    drawn = dict.fromkeys(names, 1.0) if drawn is None else dict(zip(names, drawn, strict=True))
    images = {name: people.count(name) for name in names}
    sums = {"same": [0.0, 0.0], "different": [0.0, 0.0]}
    for i, a in enumerate(people):
        for j, b in enumerate(people):
            if j <= i:
                continue
            kind = "same" if a == b else "different"
            load = drawn[a] if a == b else drawn[a] * drawn[b]
            if weights == "people":
                load /= images[a] * (images[a] - 1) / 2 if a == b else images[a] * images[b]
            sums[kind][0] += load * table[i, j]
            sums[kind][1] += load
    return {kind: total / count for kind, (total, count) in sums.items()}


def slow_auc(table, people, weights="people"):
    """Every pair of one person against every pair of two."""
    images = {name: people.count(name) for name in people}
    same, different = [], []
    for i, a in enumerate(people):
        for j in range(i + 1, len(people)):
            b = people[j]
            pairs = images[a] * (images[a] - 1) / 2 if a == b else images[a] * images[b]
            (same if a == b else different).append((table[i, j], 1 / pairs if weights == "people" else 1.0))
    won = sum(u * v * ((x > y) + (x == y) / 2) for x, u in same for y, v in different)
    return won / (sum(u for _, u in same) * sum(v for _, v in different))
