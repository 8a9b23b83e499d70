"""Which people methods are tuned on, and which they are reported on: one function for every script."""

from collections.abc import Iterable

import numpy as np


def halves(people: Iterable[str], seed: int = 0) -> tuple[list[str], list[str]]:
    """Return people to tune on and people to report on: sorted by name, permuted with the seed, split in the middle.

    Args:
        people: Names; repeated ones count once.
        seed: Seed of the permutation. Default: 0.

    Returns:
        The first half (tunes; the smaller one of an odd number) and the second (reports), each sorted.

    Example:
        >>> halves(["s1", "s2", "s3", "s4"])
        (['s1', 's3'], ['s2', 's4'])
    """
    names = np.array(sorted(set(people)))
    order = np.random.default_rng(seed).permutation(len(names))
    first, second = order[: len(names) // 2], order[len(names) // 2 :]
    return sorted(names[first].tolist()), sorted(names[second].tolist())
