"""Sums over the maps of each person, from which means over pairs follow."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from captum_leam.errors import CaptumLeamError
from captum_leam.patterns.signatures import Signatures
from captum_leam.stats.bootstrap import Floats
from captum_leam.stats.estimates import Estimate, MeanBetween, mean_between, row_products, weighted_mean
from captum_leam.stats.labels import person_codes

WEIGHTS = ("people", "pairs")


@dataclass(frozen=True)
class PersonSums:
    """Sums over the maps of each person, from which means over pairs follow.

    Attributes:
        names: P people in order of first appearance.
        vectors: Sum of each person's root distributions (mean if people have equal weight), shape (P, cells).
        mass: Weight of each person in pairs of different people, shape (P,).
        within: Sum (or mean) of the coefficients of each person's own pairs, shape (P,).
        pairs: Weight of these pairs, shape (P,).
        images: Number of images of each person, shape (P,).
    """

    names: tuple[Any, ...]
    vectors: Any
    mass: Floats
    within: Floats
    pairs: Floats
    images: NDArray[np.int64]

    def same(self, draw_counts: Floats) -> Estimate:
        """Return the mean coefficient of two images of one person, with the draws of people."""
        return weighted_mean(self.within, self.pairs, draw_counts)

    def different(self, draw_counts: Floats) -> Estimate:
        """Return the mean coefficient of images of two people, with the draws of people."""
        return mean_between(self.vectors, self.vectors, self.mass, draw_counts)


@dataclass
class PersonStream:
    """The means of :class:`PersonSums` from maps that come part after part, in two passes over the same parts in the same order.

    Every part holds whole people: none is in two parts. Memory is a few numbers for each person, whatever the number of images, but that
    the vectors of up to 5000 people are kept.

    Example:
        >>> from captum_leam.patterns import signatures
        >>> import torch
        >>> maps, people = signatures(torch.eye(4).reshape(4, 2, 2)[[0, 0, 1, 1]]), ["ann", "ann", "bob", "bob"]
        >>> stream = PersonStream()
        >>> for part in (slice(0, 2), slice(2, 4)):
        ...     stream.add(person_sums(maps[part], people[part]))
        >>> for part in (slice(0, 2), slice(2, 4)):
        ...     stream.relate(person_sums(maps[part], people[part]))
        >>> nobody = np.ones((0, 2))
        >>> stream.same(nobody).value, stream.different(nobody).value
        (1.0, 0.0)
    """

    _sums: dict[str, list[NDArray[Any]]] = field(default_factory=dict)
    _between: MeanBetween = field(default_factory=MeanBetween)

    def add(self, sums: PersonSums) -> None:
        """Add the people of a part (first pass)."""
        for name in ("names", "within", "pairs", "images"):
            self._sums.setdefault(name, []).append(np.asarray(getattr(sums, name)))
        self._between.add(sums.vectors, sums.vectors, sums.mass)

    def relate(self, sums: PersonSums) -> None:
        """Relate the people of a part to all (second pass)."""
        self._between.relate(sums.vectors, sums.vectors)

    def all_of(self, name: str) -> NDArray[Any]:
        """Return ``names``, ``within``, ``pairs`` or ``images`` of :class:`PersonSums`, of all people."""
        return np.concatenate(self._sums[name])

    def same(self, drawn: Floats) -> Estimate:
        """Mean coefficient of two images of one person, for the draws of :func:`~captum_leam.stats.estimates.people_draws`."""
        return weighted_mean(self.all_of("within"), self.all_of("pairs"), drawn)

    def different(self, drawn: Floats) -> Estimate:
        """Mean coefficient of images of two people, for the same draws."""
        return self._between.estimate(drawn)


def person_sums(signatures: Signatures, people: Sequence[Any], weights: str = "people") -> PersonSums:
    """Return the sums of the root distributions of each person.

    Args:
        signatures: Signatures of N maps.
        people: Person of each of the N maps.
        weights: ``"people"`` gives each person and each pair of people the same weight, and ``"pairs"`` each pair of images. Default:
            ``"people"``.

    Raises:
        CaptumLeamError: For another number of people, or unknown weights.

    Example:
        >>> from captum_leam.patterns import signatures
        >>> import torch
        >>> maps = torch.eye(4).reshape(4, 2, 2)[[0, 0, 1, 1, 1]]
        >>> sums = person_sums(signatures(maps, "dense"), ["ann", "ann", "bob", "bob", "bob"])
        >>> nobody = np.ones((0, 2))
        >>> sums.same(nobody).value, sums.different(nobody).value
        (1.0, 0.0)
    """
    if weights not in WEIGHTS:
        raise CaptumLeamError(f"Expected `weights` to be 'people' or 'pairs', got {weights!r}.")
    names, codes = person_codes(people, len(signatures), "maps")
    return sums_of_codes(signatures, names, codes, weights)


def sums_of_codes(
    signatures: Signatures, names: Sequence[Any], codes: NDArray[np.int64], weights: str = "people"
) -> PersonSums:
    """Return :func:`person_sums` from the number of the person of each row, none of the P without one."""
    images = np.bincount(codes, minlength=len(names))
    row = np.arange(len(codes))
    members: Any = sparse.coo_array((np.ones(len(codes)), (codes, row)), shape=(len(names), len(codes))).tocsr()
    vectors = members @ signatures.roots
    pairs = images * (images - 1) / 2
    own = np.maximum(row_products(vectors, vectors) - members @ signatures.norms(), 0) / 2
    within = np.where(pairs > 0, own, 0.0)
    if weights == "pairs":
        return PersonSums(tuple(names), vectors, images.astype(np.float64), within, pairs, images)
    means = sparse.diags_array(1 / images) @ vectors
    with_pairs = (pairs > 0).astype(np.float64)
    return PersonSums(tuple(names), means, np.ones(len(names)), within / np.maximum(pairs, 1), with_pairs, images)
