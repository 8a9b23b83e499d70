r"""Person specificity of maps: coefficients of the same and of different people, their gap, and a permutation test.

For a set of maps, this is the mean Bhattacharyya coefficient of two images of one person and of two people, with bootstrap intervals over
people; the area under the curve (AUC) of the coefficient as a same-or-different classifier; and a permutation test of the gap over
person labels. The AUC is computed from blocks of pairs, and everything else from sums of root distributions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from torch import Tensor

from captum_leam._optional import pd
from captum_leam.errors import CaptumLeamError
from captum_leam.patterns.person_sums import PersonSums, person_sums
from captum_leam.patterns.signatures import Signatures, as_signatures
from captum_leam.stats.auc import SameOrDifferent, auc_of_histograms, exact_auc
from captum_leam.stats.bootstrap import Floats
from captum_leam.stats.estimates import Estimate, is_sparse, people_draws, row_products
from captum_leam.stats.inference import check_options
from captum_leam.stats.labels import person_codes
from captum_leam.stats.sampling import MAX_PAIRS, sample_images, sampling_error

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXACT_PAIRS = 4_000_000
"""Largest number of pairs with an exact AUC; with more, it comes from a histogram of ``BINS`` bins, whose error is bounded."""
BINS = 1 << 16
SHUFFLED_IMAGES = 3000
"""Largest number of images whose labels are permuted."""
COARSE = 128
"""Number of bins of each person's own histogram, from which the interval of the AUC comes."""


@dataclass(frozen=True, repr=False)
class Specificity:
    """Result of :func:`person_specificity`: overlap of the maps of one person and of different people, with a test.

    ``result["gap"]`` is the value of one quantity, and :meth:`to_frame` returns all of them with intervals.

    Attributes:
        table: Table with the columns ``quantity``, ``value``, ``low`` and ``high`` (ends of the interval over people), and one row for
            each of

            * ``same``: Mean overlap of the maps of two images of one person, in [0, 1].
            * ``different``: Mean overlap of the maps of two people, in [0, 1].
            * ``gap``: ``same`` minus ``different``.
            * ``auc``: Area under the ROC curve of the overlap as a classifier of pairs of one person; 0.5 is chance.
        p_value: p-value of the gap in (0, 1], from permutations of the person labels; NaN without permutations.
        auc_error: Largest error of the AUC from its binning; 0 if it is exact.
        curve: Histogram of the overlap, a table with one row per bin and the columns

            * ``low``, ``high``: Ends of the bin.
            * ``same``: Share of the pairs of one person in the bin.
            * ``different``: Share of the pairs of two people in the bin.
        settings: Settings by name: kind, people, images, weights, confidence, resamples, permutations, label_seed (the argument ``seed``),
            and those of the maps.
        auc_sampling_error: Standard error of the AUC from comparing a sample of the pairs; 0 if all were compared.

    Example:
        >>> import torch
        >>> from captum_leam.patterns import signatures
        >>> maps = signatures(torch.eye(3).reshape(3, 1, 3).repeat_interleave(2, 0), "dense")
        >>> found = person_specificity(maps, list("aabbcc"), permutations=99)
        >>> found["same"], found["different"], found["gap"]
        (1.0, 0.0, 1.0)
    """

    table: pd.DataFrame
    p_value: float
    auc_error: float
    curve: pd.DataFrame
    settings: Mapping[str, Any] = field(default_factory=dict)
    auc_sampling_error: float = 0.0

    def __getitem__(self, quantity: str) -> float:
        """Return the value of ``"same"``, ``"different"``, ``"gap"`` or ``"auc"``."""
        return float(self.table["value"].to_numpy()[self.table["quantity"].tolist().index(quantity)])

    def to_frame(self) -> pd.DataFrame:
        """Return a copy of the table with the p-value of the gap.

        Returns:
            Table with one row for each of ``same``, ``different``, ``gap`` and ``auc``, and the columns

            * ``quantity``: Name of the quantity.
            * ``value``: Value.
            * ``low``, ``high``: Ends of its interval over people.
            * ``p_value``: p-value of the gap; NaN for the other quantities.

        Example:
            >>> import torch
            >>> from captum_leam.patterns import signatures
            >>> maps = signatures(torch.eye(3).reshape(3, 1, 3).repeat_interleave(2, 0), "dense")
            >>> person_specificity(maps, list("aabbcc"), permutations=99).to_frame()[["quantity", "value"]]
                quantity  value
            0       same    1.0
            1  different    0.0
            2        gap    1.0
            3        auc    1.0
        """
        return self.table.assign(p_value=np.where(self.table["quantity"] == "gap", self.p_value, np.nan))

    def plot(self) -> Figure:
        """Plot the histograms of the overlap for pairs of one person and of two people.

        Dashed lines are the means; the legend has them with their intervals, and the AUC. Maps are person-specific if the two histograms
        are apart.

        Returns:
            Figure with one axis. It is not shown: call ``figure.savefig(path)``, or let a notebook display it.

        Example:
            >>> import torch
            >>> from captum_leam.patterns import signatures
            >>> maps = signatures(torch.eye(3).reshape(3, 1, 3).repeat_interleave(2, 0), "dense")
            >>> figure = person_specificity(maps, list("aabbcc"), permutations=99).plot()
            >>> figure.axes[0].get_xlabel()
            'Bhattacharyya coefficient of two maps'
        """
        from captum_leam.patterns.pattern_plots import specificity_figure

        return specificity_figure(self)

    def __repr__(self) -> str:
        rows = [f"{r.quantity:9}  {r.value:.3f} [{r.low:.3f}, {r.high:.3f}]" for r in self.table.itertuples()]
        head = "Person specificity of {images} maps of {people} people ({kind})".format(**self.settings)
        return "\n".join([head, *rows, f"shuffled labels: p = {self.p_value:.3g}"])


def person_specificity(
    maps: Signatures | Tensor | ArrayLike,
    people: Sequence[Any],
    *,
    weights: str = "people",
    confidence: float = 0.95,
    resamples: int = 2000,
    permutations: int = 999,
    block: int = 1024,
    max_pairs: int = MAX_PAIRS,
    seed: int = 0,
) -> Specificity:
    r"""Measure how much more alike the maps of one person are than the maps of different people.

    Maps are person-specific if two images of one person have more similar maps than images of two people. The similarity of two maps is
    their overlap, the Bhattacharyya coefficient of the maps p and q as distributions over pixels or regions:

    .. math:: BC(p, q) = \sum_i \sqrt{p_i q_i}

    The result has the mean overlap for one person (``same``) and for two people (``different``), their difference (``gap``), and the area
    under the ROC curve of the overlap as a classifier of pairs of one person (``auc``). A permutation test over person labels gives the
    p-value of the gap.

    Args:
        maps: :class:`~captum_leam.patterns.Signatures`, or maps of shape (N, H, W), which are compared at their top 1 %.
        people: Person of each of the N maps; at least two people, one of them with two images. People with one image count in
            ``different`` only.
        weights: What has the same weight in the means. Default: ``"people"``.

            * ``"people"``: Each person, and each pair of people.
            * ``"pairs"``: Each pair of images.
        confidence: Confidence level of the intervals, in (0, 1). Default: 0.95.
        resamples: Number of bootstrap draws of people. Default: 2000.
        permutations: Number of permutations of the labels; 0 for no test. Default: 999.
        block: Number of rows of pairs in memory at a time. Default: 1024.
        max_pairs: Number of pairs of images up to which all are compared. Default: 10 million.
        seed: Seed of draws, permutations and samples. Default: 0.

    Returns:
        :class:`Specificity` with ``same``, ``different`` and ``auc`` in [0, 1], ``gap`` in [−1, 1], their intervals, and the p-value of
        the gap.

    Raises:
        CaptumLeamError: If there is one person only, no person has two images, or an argument is out of range.

    Note:
        ``same``, ``different`` and the gap use all pairs. With more than ``max_pairs`` pairs, the AUC, its curve and the test use a random
        sample of people, which is drawn without regard to their maps, so that the test stays exact. The interval of the AUC is then a
        jackknife over the sampled people, and ``auc_sampling_error`` is its standard error around the AUC of all pairs. With more than
        5000 people, intervals are Student's t.

    See Also:
        * :func:`~captum_leam.patterns.pattern_claim`: Gap above that of the strongest control.
        * :func:`~captum_leam.patterns.signatures`: Maps in comparable form.

    Example:
        >>> import torch
        >>> from captum_leam.patterns import signatures
        >>> maps = torch.eye(3).reshape(3, 1, 3).repeat_interleave(2, 0) + 0.1  # three people with two equal maps each
        >>> found = person_specificity(signatures(maps, "dense"), list("aabbcc"), permutations=99)
        >>> found.to_frame()[["quantity", "value"]].round(2)
            quantity  value
        0       same   1.00
        1  different   0.59
        2        gap   0.41
        3        auc   1.00
    """
    signatures = as_signatures(maps)
    check_options(confidence, resamples, permutations, block)
    sums = person_sums(signatures, people, weights)
    check_people(sums)
    names, codes = person_codes(people, len(signatures))
    draw_counts = people_draws(len(names), resamples, seed)
    same, different = sums.same(draw_counts), sums.different(draw_counts)
    chosen = sample_images(names, codes, max_pairs=max_pairs, thin=weights == "people", seed=seed)
    is_sample = len(chosen) < len(signatures)
    compared, codes = (signatures[chosen], renumbered(codes[chosen])) if is_sample else (signatures, codes)
    auc = same_or_different(compared, codes, weights=weights, block=block)
    settings = {
        "kind": signatures.kind,
        **signatures.settings,
        "people": len(sums.names),
        "images": len(signatures),
        "weights": weights,
        "confidence": confidence,
        "resamples": resamples,
        "permutations": permutations,
        "label_seed": seed,
    }
    table = specificity_table(same, different, auc, draw_counts, confidence)
    p_value = permutation_p_value(compared, codes, weights=weights, permutations=permutations, seed=seed)
    error = sampling_error(auc.standard_error(), len(chosen), len(signatures)) if is_sample else 0.0
    return Specificity(table, p_value, auc.error, auc.curve(), settings, error)


def renumbered(codes: NDArray[Any]) -> NDArray[np.int64]:
    """Return the numbers of the people of some images, without gaps.

    Example:
        >>> renumbered(np.array([7, 7, 2])).tolist()
        [1, 1, 0]
    """
    return np.unique(codes, return_inverse=True)[1].astype(np.int64)


def specificity_table(
    same: Estimate, different: Estimate, auc: SameOrDifferent, draw_counts: Floats, confidence: float
) -> pd.DataFrame:
    """Return the rows same, different, gap and auc with their intervals."""
    rows = [
        ("same", same.value, *same.interval(draw_counts, confidence, (0, 1))),
        ("different", different.value, *different.interval(draw_counts, confidence, (0, 1))),
        ("gap", same.value - different.value, *(same - different).interval(draw_counts, confidence)),
        ("auc", auc.value, *auc.interval(confidence)),
    ]
    return pd.DataFrame(rows, columns=["quantity", "value", "low", "high"])


# -- permuted labels -----------------------------------------------------------------------------------


def permutation_p_value(
    signatures: Signatures, codes: NDArray[np.int64], *, weights: str = "people", permutations: int = 999, seed: int = 0
) -> float:
    """Return the p-value of the gap over permuted person labels, (1 + b) / (1 + B).

    Images are permuted among people, each of whom keeps their number of images. The test is exact under the hypothesis that the map of
    an image does not depend on the person. With more than :data:`SHUFFLED_IMAGES` images, those of people drawn at random are permuted,
    which is as exact and has hardly less power.

    Source: Phipson & Smyth 2010 for counting the true labels.

    Args:
        signatures: Signatures of N maps.
        codes: Index of the person of each map, shape (N,).
        weights: Weights of :func:`person_specificity`. Default: ``"people"``.
        permutations: Number of permutations B. Default: 999.
        seed: Seed of the permutations. Default: 0.

    Returns:
        p-value in (0, 1]; NaN without permutations.
    """
    if permutations == 0:
        return float("nan")
    permuted = _images_to_permute(codes, seed)
    signatures, codes = signatures[permuted], renumbered(codes[permuted])
    gap = _gap_of_order(signatures, codes, weights)
    in_order = np.argsort(codes, kind="stable")
    generator, observed = np.random.default_rng([seed, 1]), gap(in_order)
    # permutations within rounding error of the observed gap count as reaching it
    reached = sum(gap(generator.permutation(in_order)) >= observed - 1e-9 for _ in range(permutations))
    return (1 + reached) / (1 + permutations)


def _images_to_permute(codes: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Return all images, or those of random people who have SHUFFLED_IMAGES together (two people or more, one with two images)."""
    if len(codes) <= SHUFFLED_IMAGES:
        return np.arange(len(codes))
    images = np.bincount(codes)
    order = np.random.default_rng([seed, 2]).permutation(len(images))
    enough = (np.cumsum(images[order]) >= SHUFFLED_IMAGES) & (np.maximum.accumulate(images[order]) > 1)
    enough[0] = False
    people = order[: int(np.argmax(enough)) + 1] if enough.any() else order
    return np.flatnonzero(np.isin(codes, people))


def _gap_of_order(
    signatures: Signatures, codes: NDArray[np.int64], weights: str
) -> Callable[[NDArray[np.int64]], float]:
    """Return the function from an order of the images to the gap of the people that they are assigned to in that order."""
    images = np.bincount(codes)
    starts = np.concatenate([[0], np.cumsum(images)])
    pairs = images * (images - 1) / 2
    counts = (pairs > 0).astype(np.float64) if weights == "people" else pairs
    share = 1 / images if weights == "people" else np.ones(len(images))
    mass, norms, load = share * images, signatures.norms(), np.repeat(share, images)
    ordered_pairs = mass.sum() ** 2 - (mass**2).sum()

    def gap(order: NDArray[np.int64]) -> float:
        lengths = _lengths_of_sums(signatures.roots, order, starts)
        within = (lengths - np.add.reduceat(norms[order], starts[:-1])) / 2
        same = (within * counts / np.maximum(pairs, 1)).sum() / counts.sum()
        of_image = np.empty(len(order))
        of_image[order] = load
        total = signatures.roots.T @ of_image
        return float(same - (total @ total - (lengths * share**2).sum()) / ordered_pairs)

    return gap


def _lengths_of_sums(roots: Any, order: NDArray[np.int64], starts: NDArray[np.int64]) -> Floats:
    """Return the squared length of the sum of each person's rows, shape (P,)."""
    if not is_sparse(roots):
        sums = np.add.reduceat(roots[order].astype(np.float64), starts[:-1], axis=0)
        return row_products(sums, sums)
    ones, shape = np.ones(len(order)), (len(starts) - 1, len(order))
    vectors: Any = sparse.csr_array((ones, order.astype(np.int32), starts.astype(np.int32)), shape=shape) @ roots
    lengths: Floats = np.add.reduceat(np.append(vectors.data**2, 0.0), vectors.indptr[:-1]) * (
        np.diff(vectors.indptr) > 0
    )
    return lengths


# -- same or different ---------------------------------------------------------------------------------


def same_or_different(
    signatures: Signatures, codes: NDArray[np.int64], *, weights: str = "people", block: int = 1024
) -> SameOrDifferent:
    """Return the AUC from blocks of pairs; memory grows with block² and not with the number of maps."""
    images = np.bincount(codes)
    same_pairs = int((images * (images - 1) // 2).sum())
    cases = same_pairs * (len(codes) * (len(codes) - 1) // 2 - same_pairs)
    share = 1 / images if weights == "people" else np.ones(len(images))
    pair_share = 1 / np.maximum(images * (images - 1) / 2, 1) if weights == "people" else np.ones(len(images))
    fine = np.zeros((2, BINS))
    own = np.zeros((2, len(images), COARSE))
    exact = len(codes) * (len(codes) - 1) // 2 <= EXACT_PAIRS
    blocks: list[tuple[NDArray[Any], Floats, NDArray[np.bool_]]] = []
    for table, top, left in blocks_of_pairs(signatures, block):
        if not exact and top < left and not np.isin(codes[left : left + block], codes[top : top + block]).any():
            _count_strangers(table, codes[top : top + block], codes[left : left + block], share, fine, own)
            continue
        values, first, second = _pairs_of_block(table, codes, top, left)
        same = first == second
        load = np.where(same, pair_share[first], share[first] * share[second])
        coarse = np.minimum((values * COARSE).astype(np.int64), COARSE - 1)
        for person, mask, side in ((first, same, 0), (first, ~same, 1), (second, ~same, 1)):
            at = person[mask] * COARSE + coarse[mask]
            own[side] += np.bincount(at, load[mask], own[side].size).reshape(own[side].shape)
        if exact:
            blocks.append((values, load, same))
        else:
            bins = np.minimum((values * BINS).astype(np.int64), BINS - 1)
            for side, mask in ((0, same), (1, ~same)):
                fine[side] += np.bincount(bins[mask], load[mask], BINS)
    if exact:
        joined = [np.concatenate(part) for part in zip(*blocks, strict=True)]
        return SameOrDifferent(exact_auc(*joined), 0.0, cases, own[0], own[1])
    value = float(auc_of_histograms(fine[:1], fine[1:])[0])
    tied = float((fine[0] * fine[1]).sum() / (fine[0].sum() * fine[1].sum()) / 2)
    return SameOrDifferent(value, tied, cases, own[0], own[1])


def _count_strangers(
    table: NDArray[np.float32],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    share: Floats,
    fine: Floats,
    own: Floats,
) -> None:
    """Add a block without a pair of one person to the histograms."""
    load = np.outer(share[rows], share[columns]).ravel()
    bins = np.minimum((table * BINS).astype(np.int64), BINS - 1)
    fine[1] += np.bincount(bins.ravel(), load, BINS)
    coarse = bins // (BINS // COARSE)
    for people in (rows[:, None], columns[None]):
        at = (people * COARSE + coarse).ravel()
        own[1] += np.bincount(at, load, own[1].size).reshape(own[1].shape)


def blocks_of_pairs(signatures: Signatures, block: int) -> Iterator[tuple[NDArray[np.float32], int, int]]:
    """Yield the coefficients of a block of rows and columns at a time, with its first row and column."""
    for top in range(0, len(signatures), block):
        rows = signatures.roots[top : top + block]
        for left in range(top, len(signatures), block):
            product = rows @ signatures.roots[left : left + block].T
            yield np.clip(product.toarray() if is_sparse(product) else product, 0, 1), top, left


def _pairs_of_block(
    table: NDArray[np.float32], codes: NDArray[np.int64], top: int, left: int
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Return the coefficients of all pairs i < j of a block, with the people of both."""
    i, j = np.triu_indices(len(table), 1) if left == top else np.indices(table.shape).reshape(2, -1)
    return table[i, j], codes[top + i], codes[left + j]


def check_people(sums: PersonSums) -> None:
    """Raise if there is no pair of one person, or none of two people.

    Raises:
        CaptumLeamError: For one person only, or one image of each person.
    """
    if len(sums.names) < 2:
        raise CaptumLeamError(f"Expected maps of two people or more, got one person, {sums.names[0]!r}.")
    if not (sums.images > 1).any():
        raise CaptumLeamError("Expected two maps or more of at least one person, got one map of each.")
