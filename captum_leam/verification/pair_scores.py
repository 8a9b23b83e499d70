"""Accumulate embeddings batch by batch, and compare them as genuine and impostor pairs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from captum_leam._engine.arithmetic import as_array
from captum_leam.stats.bootstrap import Floats
from captum_leam.stats.labels import people_of, person_codes
from captum_leam.verification.verify_model import Verification

BLOCK = 65_536
"""Number of pairs whose embeddings are in memory at a time."""


@dataclass
class PairScores:
    """Accumulator of embeddings, from which the error rates of face verification are computed.

    Use it instead of :func:`~captum_leam.verification.verify` if the images come in batches or from several processes. Call
    :meth:`update` for each batch, :meth:`merge` for each other process, and then :meth:`compute`.

    Attributes:
        embeddings: Embeddings of the batches so far, a list of arrays of shape (N, D).
        people: Person of each image so far, a list.

    See Also:
        :func:`~captum_leam.verification.verify`: The same in one call.

    Example:
        >>> scores = PairScores()
        >>> scores.update([[1.0, 0.0], [2.0, 0.0]], ["ann", "ann"])  # two images of ann
        >>> scores.update([[0.0, 1.0]], ["bob"])
        >>> result = scores.compute()
        >>> result.genuine, result.impostor, result.eer
        (array([1.]), array([0., 0.]), 0.0)
    """

    embeddings: list[NDArray[Any]] = field(default_factory=list)
    people: list[Any] = field(default_factory=list)

    def update(self, embeddings: ArrayLike, people: Sequence[Any]) -> None:
        """Add the embeddings of a batch.

        Args:
            embeddings: Embeddings, shape (N, D), finite and not zero, of any length; D is the same in all batches.
            people: Name of the person in each of the N images. Images of one person may be in several batches.

        Raises:
            CaptumLeamError: If there is not one person per image.

        Example:
            >>> scores = PairScores()
            >>> scores.update([[1.0, 0.0], [0.0, 1.0]], ["ann", "bob"])
            >>> scores.update([[2.0, 0.0]], ["ann"])
            >>> scores.people, scores.compute().genuine
            (['ann', 'bob', 'ann'], array([1.]))
        """
        rows = np.asarray(embeddings) if isinstance(embeddings, np.ndarray) else as_array(embeddings)
        self.people += people_of(people, len(rows))
        self.embeddings.append(rows)

    def merge(self, other: "PairScores") -> None:
        """Add the images of another accumulator.

        Use it to join the accumulators of several processes. Pairs between the images of both are then compared, too.

        Args:
            other: :class:`PairScores` of other images, with embeddings of the same model. It is not changed.

        Example:
            >>> first, second = PairScores(), PairScores()
            >>> first.update([[1.0, 0.0]], ["ann"])
            >>> second.update([[2.0, 0.0], [0.0, 1.0]], ["ann", "bob"])
            >>> first.merge(second)
            >>> first.compute()
            Verification(EER 0.000; 1 genuine, 2 impostor pairs)
        """
        self.embeddings += other.embeddings
        self.people += other.people

    def compute(self, max_pairs: int | None = None, seed: int = 0) -> Verification:
        """Compute the cosines of all genuine and impostor pairs of the images added so far.

        A genuine pair is two images of one person, and an impostor pair is images of two people. The accumulator is not changed, so that
        batches can be added afterwards.

        Args:
            max_pairs: Maximum number of pairs of each kind, 1 or more. If there are more, pairs are drawn at random. Default: None, all
                pairs.
            seed: Seed of the random pairs. It has no effect without ``max_pairs``. Default: 0.

        Returns:
            :class:`Verification` with the error rates and with

            * ``genuine``: Cosines of the G genuine pairs in rising order, shape (G,).
            * ``impostor``: Cosines of the I impostor pairs in rising order, shape (I,).

            Either is empty if there is no pair of its kind.

        Note:
            n images have n (n − 1) / 2 pairs, so pass ``max_pairs`` for many thousands of images.

        Example:
            >>> scores = PairScores()
            >>> scores.update(np.eye(4)[[0, 0, 1, 2, 3]], ["ann", "ann", "bob", "cy", "di"])
            >>> result = scores.compute()
            >>> len(result.genuine), len(result.impostor), result.eer
            (1, 9, 0.0)
            >>> len(scores.compute(max_pairs=3).impostor)
            3
        """
        if not self.people:
            return Verification(np.zeros(0), np.zeros(0))
        codes = person_codes(self.people)[1]
        order = np.argsort(codes, kind="stable")
        codes = codes[order]
        units = np.concatenate(self.embeddings)[order].astype(np.float64)
        units /= np.linalg.norm(units, axis=1, keepdims=True)
        generator = np.random.default_rng(seed)
        genuine = _genuine_pairs(codes)
        if max_pairs is not None and len(genuine) > max_pairs:
            genuine = genuine[np.sort(generator.choice(len(genuine), max_pairs, replace=False))]
        impostor = _impostor_pairs(codes, max_pairs, generator)
        return Verification(np.sort(_cosines(units, genuine)), np.sort(_cosines(units, impostor)))


def _cosines(units: Floats, pairs: NDArray[np.int64]) -> Floats:
    blocks = np.array_split(pairs, len(pairs) // BLOCK + 1)
    return np.concatenate([np.einsum("ij,ij->i", units[block[:, 0]], units[block[:, 1]]) for block in blocks])


def _genuine_pairs(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return all pairs of images of one person, from sorted codes."""
    starts = np.flatnonzero(np.diff(codes, prepend=-1))
    ends = np.append(starts[1:], len(codes))
    parts = [np.stack(np.triu_indices(end - start, 1), 1) + start for start, end in zip(starts, ends, strict=True)]
    return np.concatenate([np.zeros((0, 2), np.int64), *parts])


def _impostor_pairs(
    codes: NDArray[np.int64], max_pairs: int | None, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Return pairs of images of two people, from sorted codes: all, or ``max_pairs`` of them, each equally likely."""
    later = np.searchsorted(codes, codes, side="right")  # where the images of later people begin
    ends = np.cumsum(len(codes) - later)
    total = int(ends[-1])
    numbers = np.arange(total) if max_pairs is None or total <= max_pairs else _distinct(total, max_pairs, generator)
    first = np.searchsorted(ends, numbers, side="right")
    return np.stack([first, len(codes) - (ends[first] - numbers)], axis=1)


def _distinct(total: int, count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Return distinct numbers below ``total`` in rising order, in memory that does not grow with ``total``."""
    if total <= 2 * count:
        return np.sort(generator.choice(total, count, replace=False))
    numbers = np.zeros(0, dtype=np.int64)
    while len(numbers) < count:
        numbers = np.union1d(numbers, generator.integers(0, total, count - len(numbers)))
    return numbers
