r"""Are maps person-specific? Coefficients of the same and of different people, their gap, and whether labels matter at all.

For each set of maps: the mean Bhattacharyya coefficient of two images of one person and of two people, with bootstrap intervals over
people; the area under the curve (AUC) of the coefficient as a same-or-different classifier; and a permutation test of the gap over
person labels. Everything but the AUC goes through sums of root distributions; the AUC goes through the pairs by blocks.
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
"""Up to here the AUC is that of the values themselves; beyond, of a histogram of ``BINS`` bins, whose error is bounded."""
BINS = 1 << 16
SHUFFLED_IMAGES = 3000
"""Images whose labels are shuffled at most."""
COARSE = 128
"""Bins of each person's own histogram, from which the interval of the AUC comes."""


@dataclass(frozen=True, repr=False)
class Specificity:
    """How person-specific maps are.

    Attributes:
        table: one row per quantity (same, different, gap, auc): value, low, high of its interval over people.
        p_value: of the permutation test that the gap is no larger than with shuffled person labels; NaN without permutations.
        auc_error: the AUC of the images that were compared is exact up to this; 0 when no histogram was needed.
        curve: shares of the pairs of one person and of two people by coefficient.
        settings: kind, people, images, weights, confidence, resamples, permutations, seed.
        auc_sampling_error: standard error of the AUC around that of all pairs; 0 when all were compared.

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
        """Return the value of same, different, gap or auc."""
        return float(self.table["value"].to_numpy()[self.table["quantity"].tolist().index(quantity)])

    def to_frame(self) -> pd.DataFrame:
        """Return a copy of the table with the p-value."""
        return self.table.assign(p_value=np.where(self.table["quantity"] == "gap", self.p_value, np.nan))

    def plot(self) -> Figure:
        """Distributions of the coefficient for the same and for different people."""
        from captum_leam.patterns.pattern_plots import specificity_figure

        return specificity_figure(self)

    def __repr__(self) -> str:
        rows = [f"{r.quantity:9}  {r.value:.3f} [{r.low:.3f}, {r.high:.3f}]" for r in self.table.itertuples()]
        said = {k: self.settings[k] for k in ("kind", "images", "people")}
        head = f"Person-specificity of {said['images']} maps of {said['people']} people ({said['kind']})"
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
    """Coefficients of the same and of different people, their gap and AUC with intervals, and a test over person labels.

    ``same``, ``different`` and the gap are sums over all people, however many. Of more than ``max_pairs`` pairs of images, the AUC, its
    curve and the test are of a random sample of people, see :func:`captum_leam.stats.sampling.sample_people`. The AUC of a sample is a
    U-statistic: its expectation is that of all pairs, its interval (a jackknife over the sampled people) is one for the people that all are
    drawn from, and its standard error around the AUC of all pairs is ``auc_sampling_error``. The test stays exact: its people are drawn
    without a look at their maps. Of more than 5000 people intervals are Student's t with the standard error that bootstrap draws tend to.

    Args:
        maps: Signatures, or maps (N, H, W), compared at their top 1 %.
        people: the person of each map; two or more, one of them with two images or more. People with one image count in
            ``different`` only.
        weights: ``"people"``: every person and every two people count alike however many images there are; ``"pairs"``: every pair
            of images does.
        confidence: of the intervals, in (0, 1).
        resamples: Number of bootstrap draws of people. Default: 2000.
        permutations: how many times labels are shuffled; 0 for no test.
        block: rows of pairs in memory at a time.
        max_pairs: Number of pairs of images up to which all are compared. Default: 10 million.
        seed: of the drawing, shuffling and sampling.

    Returns:
        :class:`Specificity`; ``["same"]``, ``["different"]``, ``["gap"]``, ``["auc"]``, ``p_value``.

    Raises:
        CaptumLeamError: for one person only, no person with two images, labels that do not fit, or options out of range.

    Example:
        >>> import torch
        >>> from captum_leam.patterns import signatures
        >>> maps = torch.eye(3).reshape(3, 1, 3).repeat_interleave(2, 0) + 0.1
        >>> person_specificity(signatures(maps, "dense"), list("aabbcc"), permutations=99)["auc"]
        1.0
    """
    made = as_signatures(maps)
    check_options(confidence, resamples, permutations, block)
    sums = person_sums(made, people, weights)
    check_people(sums)
    names, codes = person_codes(people, len(made))
    drawn = people_draws(len(names), resamples, seed)
    same, different = sums.same(drawn), sums.different(drawn)
    chosen = sample_images(names, codes, max_pairs=max_pairs, thin=weights == "people", seed=seed)
    compared, codes = (made, codes) if len(chosen) == len(made) else (made[chosen], renumbered(codes[chosen]))
    auc = same_or_different(compared, codes, weights=weights, block=block)
    settings = {
        "kind": made.kind,
        **made.settings,
        "people": len(sums.names),
        "images": len(made),
        "weights": weights,
        "confidence": confidence,
        "resamples": resamples,
        "permutations": permutations,
        "label_seed": seed,
    }
    table = specificity_table(same, different, auc, drawn, confidence)
    p_value = permutation_p_value(compared, codes, weights=weights, permutations=permutations, seed=seed)
    error = sampling_error(auc.standard_error(), len(chosen), len(made)) if len(chosen) < len(made) else 0.0
    return Specificity(table, p_value, auc.error, auc.curve(), settings, error)


def renumbered(codes: NDArray[Any]) -> NDArray[np.int64]:
    """Return the numbers of the people of some images, without gaps.

    Example:
        >>> renumbered(np.array([7, 7, 2])).tolist()
        [1, 1, 0]
    """
    return np.unique(codes, return_inverse=True)[1].astype(np.int64)


def specificity_table(
    same: Estimate, different: Estimate, auc: SameOrDifferent, drawn: Floats, confidence: float
) -> pd.DataFrame:
    """Return the rows same, different, gap and auc with their intervals."""
    rows = [
        ("same", same.value, *same.interval(drawn, confidence, (0, 1))),
        ("different", different.value, *different.interval(drawn, confidence, (0, 1))),
        ("gap", same.value - different.value, *(same - different).interval(drawn, confidence)),
        ("auc", auc.value, *auc.interval(confidence)),
    ]
    return pd.DataFrame(rows, columns=["quantity", "value", "low", "high"])


# -- labels shuffled -----------------------------------------------------------------------------------


def permutation_p_value(
    made: Signatures, codes: NDArray[np.int64], *, weights: str = "people", permutations: int = 999, seed: int = 0
) -> float:
    """Share of label shufflings whose gap is as large as the true one, the true one counted: (1 + b) / (1 + B).

    Images are shuffled among people, each keeping as many as they have; exact under the hypothesis that who is in an image does not
    matter for its map.

    Of more than :data:`SHUFFLED_IMAGES` images, those of people drawn at random are shuffled: as exact, and hardly less able to find
    anything at the smallest p that so few shufflings can give.

    Source: Phipson & Smyth 2010 for counting the true labels.
    """
    if permutations == 0:
        return float("nan")
    chosen = _images_to_shuffle(codes, seed)
    made, codes = made[chosen], renumbered(codes[chosen])
    gap = _gap_of_order(made, codes, weights)
    in_order = np.argsort(codes, kind="stable")
    generator, observed = np.random.default_rng([seed, 1]), gap(in_order)
    # who is equal but for rounding has reached the true gap
    reached = sum(gap(generator.permutation(in_order)) >= observed - 1e-9 for _ in range(permutations))
    return (1 + reached) / (1 + permutations)


def _images_to_shuffle(codes: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """All, or those of as many random people as have SHUFFLED_IMAGES together (two people or more, one with two images)."""
    if len(codes) <= SHUFFLED_IMAGES:
        return np.arange(len(codes))
    images = np.bincount(codes)
    order = np.random.default_rng([seed, 2]).permutation(len(images))
    enough = (np.cumsum(images[order]) >= SHUFFLED_IMAGES) & (np.maximum.accumulate(images[order]) > 1)
    enough[0] = False
    people = order[: int(np.argmax(enough)) + 1] if enough.any() else order
    return np.flatnonzero(np.isin(codes, people))


def _gap_of_order(made: Signatures, codes: NDArray[np.int64], weights: str) -> Callable[[NDArray[np.int64]], float]:
    """Return a function from an order of the images to the gap when they are dealt out to the people, one sum per person."""
    images = np.bincount(codes)
    starts = np.concatenate([[0], np.cumsum(images)])
    pairs = images * (images - 1) / 2
    counts = (pairs > 0).astype(np.float64) if weights == "people" else pairs
    share = 1 / images if weights == "people" else np.ones(len(images))
    mass, norms, load = share * images, made.norms(), np.repeat(share, images)
    ordered_pairs = mass.sum() ** 2 - (mass**2).sum()

    def gap(order: NDArray[np.int64]) -> float:
        lengths = _lengths_of_sums(made.roots, order, starts)
        within = (lengths - np.add.reduceat(norms[order], starts[:-1])) / 2
        same = (within * counts / np.maximum(pairs, 1)).sum() / counts.sum()
        of_image = np.empty(len(order))
        of_image[order] = load
        total = made.roots.T @ of_image
        return float(same - (total @ total - (lengths * share**2).sum()) / ordered_pairs)

    return gap


def _lengths_of_sums(roots: Any, order: NDArray[np.int64], starts: NDArray[np.int64]) -> Floats:
    """Squared length of the sum of each person's rows, (P,)."""
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
    made: Signatures, codes: NDArray[np.int64], *, weights: str = "people", block: int = 1024
) -> SameOrDifferent:
    """Return the AUC, computed by blocks of pairs; memory is of the order block², whatever the number of maps."""
    images = np.bincount(codes)
    same_pairs = int((images * (images - 1) // 2).sum())
    cases = same_pairs * (len(codes) * (len(codes) - 1) // 2 - same_pairs)
    share = 1 / images if weights == "people" else np.ones(len(images))
    pair_share = 1 / np.maximum(images * (images - 1) / 2, 1) if weights == "people" else np.ones(len(images))
    fine = np.zeros((2, BINS))
    own = np.zeros((2, len(images), COARSE))
    exact = len(codes) * (len(codes) - 1) // 2 <= EXACT_PAIRS
    kept: list[tuple[NDArray[Any], Floats, NDArray[np.bool_]]] = []
    for table, top, left in blocks_of_pairs(made, block):
        if not exact and top < left and not np.isin(codes[left : left + block], codes[top : top + block]).any():
            _count_strangers(table, codes[top : top + block], codes[left : left + block], share, fine, own)
            continue
        values, first, second = _pairs_of_block(table, codes, top, left)
        same = first == second
        load = np.where(same, pair_share[first], share[first] * share[second])
        coarse = np.minimum((values * COARSE).astype(np.int64), COARSE - 1)
        for person, chosen, into in ((first, same, 0), (first, ~same, 1), (second, ~same, 1)):
            at = person[chosen] * COARSE + coarse[chosen]
            own[into] += np.bincount(at, load[chosen], own[into].size).reshape(own[into].shape)
        if exact:
            kept.append((values, load, same))
        else:
            bins = np.minimum((values * BINS).astype(np.int64), BINS - 1)
            for into, chosen in ((0, same), (1, ~same)):
                fine[into] += np.bincount(bins[chosen], load[chosen], BINS)
    if exact:
        joined = [np.concatenate(part) for part in zip(*kept, strict=True)]
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


def blocks_of_pairs(made: Signatures, block: int) -> Iterator[tuple[NDArray[np.float32], int, int]]:
    """Yield the coefficients of a block of rows and columns at a time, with its first row and column."""
    for top in range(0, len(made), block):
        rows = made.roots[top : top + block]
        for left in range(top, len(made), block):
            product = rows @ made.roots[left : left + block].T
            yield np.clip(product.toarray() if is_sparse(product) else product, 0, 1), top, left


def _pairs_of_block(
    table: NDArray[np.float32], codes: NDArray[np.int64], top: int, left: int
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Return the coefficients of all pairs i < j of a block, with the people of both."""
    i, j = np.triu_indices(len(table), 1) if left == top else np.indices(table.shape).reshape(2, -1)
    return table[i, j], codes[top + i], codes[left + j]


def check_people(sums: PersonSums) -> None:
    """Refuse what holds no pair of the same or of different people.

    Raises:
        CaptumLeamError: for one person only, or one image of each.
    """
    if len(sums.names) < 2:
        raise CaptumLeamError(f"all maps are of one person, {sums.names[0]!r}; expected two people or more.")
    if not (sums.images > 1).any():
        raise CaptumLeamError("there is one map of each person; expected one person or more with two maps.")
