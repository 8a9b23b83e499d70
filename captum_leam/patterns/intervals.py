r"""Intervals for sums over pairs: people are drawn, a pair counts with the product of its people's weights.

A person drawn twice is not compared with itself as if it were two: pairs of different people are those of different *original*
people. With few people a percentile interval is too narrow; its ends are moved out as Student's t moves those of a mean.
`benchmarks/calibration.py` measures the coverage.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, stats

from captum_leam.patterns.signatures import Floats, Signatures, row_products

MIN_FOR_INTERVAL = 3
"""Under this many people no interval is given."""

WEIGHTS = ("people", "pairs")


def draw_people(people: int, resamples: int, seed: int) -> Floats:
    """How often each person is drawn, (resamples, people); the same draws for everything compared.

    Example:
        >>> draw_people(3, 2, seed=0).sum(axis=1).tolist()
        [3.0, 3.0]
    """
    drawn = np.random.default_rng(seed).multinomial(people, np.full(people, 1 / people), resamples)
    return drawn.astype(np.float64)


def expanded_levels(confidence: float, people: int) -> tuple[float, float]:
    r"""Quantiles to read from the draws: :math:`\Phi(\mp \sqrt{n/(n-1)}\; t_{n-1})` in place of :math:`(1 \mp c)/2`.

    Source: the expanded percentile interval, Hesterberg 2015, "What teachers should know about the bootstrap", section 5.2.

    Example:
        >>> [round(level, 4) for level in expanded_levels(0.95, 24)], [round(x, 4) for x in expanded_levels(0.95, 10_000)]
        ([0.0173, 0.9827], [0.025, 0.975])
    """
    t = stats.t.ppf((1 + confidence) / 2, people - 1) * np.sqrt(people / (people - 1))
    return float(stats.norm.cdf(-t)), float(stats.norm.cdf(t))


def interval(draws: Floats, people: int, confidence: float = 0.95) -> tuple[float, float]:
    """Expanded percentile interval of bootstrap draws; NaN under three people.

    Args:
        draws: (resamples,); NaN where a resample held no such pair.
        people: how many were drawn from.
        confidence: in (0, 1).
    """
    known = draws[~np.isnan(draws)]
    if people < MIN_FOR_INTERVAL or not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, expanded_levels(confidence, people))
    return float(low), float(high)


@dataclass(frozen=True)
class PersonSums:
    """Everything about the maps of each person that means over pairs need.

    Attributes:
        names: the P people, in order of first appearance.
        vectors: (P, cells), the sum (or mean, where people count alike) of each person's root distributions.
        mass: (P,), what each person counts in pairs of different people.
        within: (P,), sum (or mean) of the coefficients of the person's own pairs.
        pairs: (P,), what these count.
        images: (P,), how many there are.
    """

    names: tuple[Any, ...]
    vectors: Any
    mass: Floats
    within: Floats
    pairs: Floats
    images: NDArray[np.int64]

    def same(self, drawn: Floats) -> Floats:
        """Mean coefficient of two images of one person, for each row of weights (B, P) → (B,)."""
        return divided(drawn @ self.within, drawn @ self.pairs)

    def different(self, drawn: Floats) -> Floats:
        """Mean coefficient of images of two people, for each row of weights (B, P) → (B,)."""
        return between(self.vectors, self.vectors, self.mass, drawn)

    def gap(self, drawn: Floats) -> Floats:
        """Same − different."""
        return self.same(drawn) - self.different(drawn)


def between(left: Any, right: Any, mass: Floats, drawn: Floats) -> Floats:
    r"""Mean over ordered pairs of different people, for each row of weights (B, P) → (B,).

    .. math:: \frac{\langle \sum_p w_p L_p, \sum_q w_q R_q \rangle - \sum_p w_p^2 \langle L_p, R_p \rangle}{(\sum_p w_p m_p)^2 - \sum_p w_p^2 m_p^2}
    """
    own = drawn**2
    counts = (drawn @ mass) ** 2 - own @ mass**2
    totals = np.empty(len(drawn))
    for start in range(0, len(drawn), 256):  # 256 sums of vectors at a time
        part = slice(start, start + 256)
        summed = np.asarray(left.T @ drawn[part].T)
        other = summed if right is left else np.asarray(right.T @ drawn[part].T)
        totals[part] = np.einsum("ij,ij->j", summed, other)
    return divided(totals - own @ row_products(left, right), counts)


def divided(totals: Floats, counts: Floats) -> Floats:
    """Totals / counts, NaN where there are none."""
    return np.divide(totals, counts, out=np.full(np.shape(totals), np.nan), where=counts > 0)


def person_sums(signatures: Signatures, people: Sequence[Any], weights: str = "people") -> PersonSums:
    """Sums of the root distributions of each person.

    Args:
        signatures: N.
        people: N labels.
        weights: ``"people"``: every person, and every two people, count alike however many images there are; ``"pairs"``: every
            pair of images.

    Raises:
        ValueError: if the numbers differ, or for unknown weights.

    Example:
        >>> from captum_leam.patterns import signatures
        >>> import torch
        >>> maps = torch.eye(4).reshape(4, 2, 2)[[0, 0, 1, 1, 1]]
        >>> sums = person_sums(signatures(maps, "dense"), ["ann", "ann", "bob", "bob", "bob"])
        >>> sums.same(np.ones((1, 2))).tolist(), sums.different(np.ones((1, 2))).tolist()
        ([1.0], [0.0])
    """
    if weights not in WEIGHTS:
        raise ValueError(f"weights is {weights!r}; needed is 'people' or 'pairs'.")
    names, codes = person_codes(people, len(signatures))
    images = np.bincount(codes, minlength=len(names))
    return sums_by_code(signatures.roots, signatures.norms(), codes, names, images, weights)


def sums_by_code(
    roots: Any, norms: Floats, codes: NDArray[np.int64], names: tuple[Any, ...], images: NDArray[np.int64], weights: str
) -> PersonSums:
    """:func:`person_sums` of numbered people."""
    members = sparse.csr_array(
        (np.ones(len(codes)), (codes, np.arange(len(codes)))), shape=(len(names), len(codes)), dtype=np.float64
    )
    vectors = members @ roots
    lengths = row_products(vectors, vectors)
    pairs = images * (images - 1) / 2
    within = np.where(pairs > 0, np.maximum(lengths - members @ norms, 0) / 2, 0.0)
    if weights == "pairs":
        return PersonSums(names, vectors, images.astype(np.float64), within, pairs, images)
    means = sparse.diags_array(1 / images) @ vectors
    with_pairs = (pairs > 0).astype(np.float64)
    return PersonSums(names, means, np.ones(len(names)), within / np.maximum(pairs, 1), with_pairs, images)


def person_codes(people: Sequence[Any], images: int) -> tuple[tuple[Any, ...], NDArray[np.int64]]:
    """The people in order of first appearance, and the number of each image's person.

    Raises:
        ValueError: if there are not as many labels as images, or a label is missing (None or NaN).
    """
    labels = people.tolist() if hasattr(people, "tolist") else list(people)
    if len(labels) != images:
        raise ValueError(f"{len(labels)} people are given for {images} maps; needed is the person of each map.")
    missing = [i for i, label in enumerate(labels) if label is None or label != label]
    if missing:
        raise ValueError(f"maps {missing[:5]} have no person (None or NaN); name the person or leave these images out.")
    number = {person: i for i, person in enumerate(dict.fromkeys(labels))}
    return tuple(number), np.array([number[label] for label in labels], dtype=np.int64)
