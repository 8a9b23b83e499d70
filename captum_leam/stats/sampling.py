"""Sample people where all pairs of images are too many: by a hash of the name, so that neither order nor workers change the sample."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

MAX_PAIRS = 10_000_000
"""Pairs of images up to which all are compared; of more, those of as many random people as have no more together."""
THINNED_PEOPLE = 100
"""People for whom there is room in a sample, however many images each has."""


def sample_people(
    names: Sequence[Any], images: ArrayLike, *, max_pairs: int = MAX_PAIRS, seed: int = 0
) -> NDArray[np.intp]:
    r"""Return the people whose images are compared with each other: all of them, or a simple random sample without replacement.

    Every person gets a key, the BLAKE2b hash of seed and name; the sample are the people with the smallest keys. It therefore depends on
    the names and the seed alone: not on the order of the people, on shards, on the engine or on the number of workers. A U-statistic
    :math:`\hat\theta` of the pairs of a sample of n of P people estimates that of all pairs; its standard error by the sampling is
    :math:`\sqrt{1 - n/P}\; s`, with the standard error :math:`s` over people (influence values or jackknife), see
    :func:`sampling_error`.

    Source: Hoeffding 1948 for the statistic and its error; Cochran 1977, section 2.6, for the factor of a finite population; Cohen & Kaplan
    2007, "Summarizing data using bottom-k sketches", for sampling by hashes.

    Args:
        names: Names of the P people, all different.
        images: Number of images of each person, shape (P,).
        max_pairs: Number of pairs of images up to which all people are taken. Default: 10 million.
        seed: Seed of the sample. Default: 0.

    Returns:
        Indices (n,) of the people, ascending. At least two people, one with two images, if there are such.

    Example:
        >>> sample_people(["ann", "bob", "eve"], [2, 2, 2]).tolist()
        [0, 1, 2]
        >>> names = [f"p{i}" for i in range(100)]
        >>> drawn = sample_people(names, np.full(100, 2), max_pairs=45)
        >>> len(drawn), {names[::-1][i] for i in sample_people(names[::-1], np.full(100, 2), max_pairs=45)} == {names[i] for i in drawn}
        (5, True)
    """
    counts = np.asarray(images, dtype=np.int64)
    total = int(counts.sum())
    if total * (total - 1) // 2 <= max_pairs:
        return np.arange(len(counts))
    keys = np.array([_key(name, seed) for name in names], dtype=np.uint64)
    order = np.argsort(keys, kind="stable")
    together = np.cumsum(counts[order])
    kept = max(2, int((together * (together - 1) // 2 <= max_pairs).sum()))
    with_pairs = np.flatnonzero(counts[order] > 1)
    if len(with_pairs):
        kept = max(kept, int(with_pairs[0]) + 1)
    return np.sort(order[:kept])


def sample_images(
    names: Sequence[Any], codes: NDArray[Any], *, max_pairs: int = MAX_PAIRS, thin: bool = True, seed: int = 0
) -> NDArray[np.intp]:
    """Return the images whose pairs are compared: all of them, or those of :func:`sample_people`.

    Of people with very many images as many are taken, evenly spaced, as leave room for a hundred people. Where every person counts alike
    that changes no expectation: a person's mean over some pairs estimates that over all.

    Args:
        names: Names of the P people, all different.
        codes: Number of the person of each image, shape (N,).
        max_pairs: Number of pairs of images up to which all are taken. Default: 10 million.
        thin: Whether to leave out images of people who have very many. Default: True.
        seed: Seed of the sample. Default: 0.

    Returns:
        Indices (n,) of the images, ascending.

    Example:
        >>> sample_images(["ann", "bob"], np.array([0, 0, 1])).tolist()
        [0, 1, 2]
        >>> sample_images(["ann", "bob"], np.repeat([0, 1], 100), max_pairs=6).tolist()
        [0, 50, 100, 150]
    """
    count = len(codes)
    if count * (count - 1) // 2 <= max_pairs:
        return np.arange(count)
    order, images = np.argsort(codes, kind="stable"), np.bincount(codes, minlength=len(names))
    room = max(2, int(np.sqrt(2 * max_pairs)) // min(len(names), THINNED_PEOPLE)) if thin else count
    kept = np.minimum(images, room)
    people = sample_people(names, kept, max_pairs=max_pairs, seed=seed)
    starts = np.cumsum(images) - images
    place = np.arange(int(kept[people].sum())) - np.repeat(np.cumsum(kept[people]) - kept[people], kept[people])
    spaced = place * np.repeat(images[people], kept[people]) // np.repeat(kept[people], kept[people])
    return np.sort(order[np.repeat(starts[people], kept[people]) + spaced])


def _key(name: Any, seed: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest(), "big")


def sampling_error(error: float, sampled: int, count: int) -> float:
    """Return the standard error of an estimate from a sample around what all give; 0 where all are taken.

    Args:
        error: Standard error over people of the estimate from the sample.
        sampled: Number of images (or people) in the sample.
        count: Number of images (or people) sampled from.

    Example:
        >>> sampling_error(0.02, 100, 100), round(sampling_error(0.02, 75, 100), 3)
        (0.0, 0.01)
    """
    return error * float(np.sqrt(max(1 - sampled / count, 0)))
