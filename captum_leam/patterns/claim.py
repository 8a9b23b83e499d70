"""Claim that maps are person-specific: their gap above that of the strongest control.

Even an edge detector finds images of one person more alike than images of two people. A method adds its gap (same − different) above that
of the strongest control. Pose is a control, too: the coefficient of strangers in the same pose minus that of all strangers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from torch import Tensor

from captum_leam._optional import pd
from captum_leam.controls import CONTROL_NAMES
from captum_leam.errors import CaptumLeamError
from captum_leam.patterns.person_sums import person_sums
from captum_leam.patterns.signatures import Signatures, as_signatures
from captum_leam.patterns.specificity import check_people
from captum_leam.stats.bootstrap import Floats, divided
from captum_leam.stats.estimates import Estimate, people_draws, row_products
from captum_leam.stats.inference import check_options
from captum_leam.stats.labels import person_codes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAPS = "maps"
STRANGERS = "pose"


@dataclass(frozen=True, repr=False)
class PatternClaim:
    """Result of :func:`pattern_claim`: gap of the maps and of each control, and whether the maps are above all controls.

    The *gap* is the mean overlap of the maps of one person minus that of different people. Maps are person-specific beyond the controls
    if their gap is above that of every control.

    Attributes:
        table: Table with one row for the maps, named ``"maps"``, and then one per control, the largest gap first. Its columns are

            * ``name``: Name of the control.
            * ``same``, ``different``: Mean overlap of maps of one person, and of different people, in [0, 1].
            * ``gap``: ``same`` minus ``different``.
            * ``low``, ``high``: Ends of the interval of the gap over people.
            * ``above``: Gap of the maps minus gap of the control; NaN for the maps.
            * ``above_low``, ``above_high``: Ends of the interval of ``above``.
        strongest: Name of the control with the largest gap.
        headline: Gap of the maps minus that of the strongest control, in [−2, 2].
        low: Lowest of all ``above_low``, so that a value above 0 holds against every control.
        high: ``above_high`` of the strongest control.
        settings: Settings by name: kind, people, images, weights, confidence, resamples, label_seed (the argument ``seed``), and those of
            the maps.

    Example:
        >>> import torch
        >>> from captum_leam.patterns import signatures
        >>> maps = signatures(torch.eye(4).reshape(4, 1, 4).repeat_interleave(2, 0), "dense")  # a pixel for each of four people
        >>> claim = pattern_claim(maps, list("aabbccdd"), {"one map for all": signatures(torch.ones(8, 1, 4), "dense")})
        >>> claim.headline, claim.holds
        (1.0, True)
        >>> pattern_claim(maps, list("aabbccdd"), {"the same maps again": maps}).holds
        False
    """

    table: pd.DataFrame
    strongest: str
    headline: float
    low: float
    high: float
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether the maps are person-specific beyond every control, that is, ``low`` is above 0."""
        return self.low > 0

    def to_frame(self) -> pd.DataFrame:
        """Return a copy of the table.

        Returns:
            Table with a row for the maps and one per control, and the columns of :attr:`table`.

        Example:
            >>> import torch
            >>> from captum_leam.patterns import signatures
            >>> maps = signatures(torch.eye(4).reshape(4, 1, 4).repeat_interleave(2, 0), "dense")
            >>> claim = pattern_claim(maps, list("aabbccdd"), {"one map for all": signatures(torch.ones(8, 1, 4), "dense")})
            >>> claim.to_frame()[["name", "same", "different", "gap", "above"]]
                          name  same  different  gap  above
            0             maps   1.0        0.0  1.0    NaN
            1  one map for all   1.0        1.0  0.0    1.0
        """
        return self.table.copy()

    def sentence(self) -> str:
        """Return the claim with its numbers as text for a report.

        Returns:
            Four sentences: overlaps and gap of the maps, the strongest control, how far the maps are above it, and whether the claim
            holds.

        Example:
            >>> import torch
            >>> from captum_leam.patterns import signatures
            >>> maps = signatures(torch.eye(4).reshape(4, 1, 4).repeat_interleave(2, 0), "dense")
            >>> claim = pattern_claim(maps, list("aabbccdd"), {"one map for all": signatures(torch.ones(8, 1, 4), "dense")})
            >>> print(claim.sentence().rpartition(". ")[2])
            The maps are person-specific beyond it.
        """
        maps, strongest = self.table.to_dict("records")[:2]
        name = CONTROL_NAMES.get(self.strongest, self.strongest)
        verdict = {
            True: "The maps are person-specific beyond it.",
            False: "This does not show more than the control does.",
        }
        return (
            f"Maps of one person overlap by {maps['same']:.2f}, of two people by {maps['different']:.2f}: a gap of {maps['gap']:.3f} "
            f"[{maps['low']:.3f}, {maps['high']:.3f}]. The strongest control of {len(self.table) - 1}, {name}, has a gap of "
            f"{strongest['gap']:.3f}; the maps are above it by {self.headline:.3f} [{self.low:.3f}, {self.high:.3f}] "
            f"({self.settings['confidence']:.0%} interval over {self.settings['people']} people). {verdict[self.holds]}"
        )

    def plot(self) -> Figure:
        """Plot the overlaps within and between people, for the maps and for each control.

        Each row has a circle at the overlap between people and a square at the overlap within people. The line between them is the gap,
        with its interval beside it.

        Returns:
            Figure with one axis. It is not shown: call ``figure.savefig(path)``, or let a notebook display it.

        Example:
            >>> import torch
            >>> from captum_leam.patterns import signatures
            >>> maps = signatures(torch.eye(4).reshape(4, 1, 4).repeat_interleave(2, 0), "dense")
            >>> figure = pattern_claim(maps, list("aabbccdd"), {"one map for all": signatures(torch.ones(8, 1, 4), "dense")}).plot()
            >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
            ['one map for all', 'maps']
        """
        from captum_leam.patterns.pattern_plots import claim_figure

        return claim_figure(self)

    def __repr__(self) -> str:
        return f"{self.sentence()}\n{self.table.round(3).to_string(index=False)}"


def pattern_claim(
    maps: Signatures | Tensor | ArrayLike,
    people: Sequence[Any],
    controls: Mapping[str, Signatures | Tensor | ArrayLike],
    *,
    strangers: Mapping[str, ArrayLike] | ArrayLike | None = None,
    weights: str = "people",
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> PatternClaim:
    """Test whether maps are more person-specific than control maps are.

    The *gap* of a set of maps is the mean overlap of maps of one person minus that of different people, see :func:`person_specificity`.
    Even an edge detector has a gap above 0, because images of one person look alike. This function therefore compares the gap of the maps
    with that of every control, on the same images and the same bootstrap draws of people.

    Args:
        maps: :class:`~captum_leam.patterns.Signatures`, or maps of shape (N, H, W), which are compared at their top 1 %.
        people: Person of each of the N maps.
        controls: Control maps of the same images by name, in the same form as ``maps``. :func:`~captum_leam.patterns.control_maps` returns
            the usual ones.
        strangers: Indices of images of other people in the same pose as each image, integers, shape (N,) or (N, k). They are one more
            control, named ``"pose"``. Pass a dictionary of such indices for several controls or other names.
            :func:`~captum_leam.patterns.closest_strangers` returns them. Default: None.
        weights: What has the same weight in the means, ``"people"`` or ``"pairs"`` of images. Default: ``"people"``.
        confidence: Confidence level of the intervals, in (0, 1). Default: 0.95.
        resamples: Number of bootstrap draws of people. Default: 2000.
        seed: Seed of the draws. Default: 0.

    Returns:
        :class:`PatternClaim` with a table of the gaps of the maps and of all controls, the difference to the strongest control, and whether
        the claim holds.

    Raises:
        CaptumLeamError: If there is no control, a control has other images or options, a stranger is the same person, or
            :func:`person_specificity` would raise it.

    See Also:
        * :func:`~captum_leam.patterns.control_maps`: Maps of the controls.
        * :func:`~captum_leam.patterns.person_specificity`: Gap of the maps alone.

    Example:
        >>> import torch
        >>> from captum_leam.patterns import signatures
        >>> maps = signatures(torch.eye(4).reshape(4, 1, 4).repeat_interleave(2, 0), "dense")  # a pixel for each of four people
        >>> control = signatures(torch.ones(8, 1, 4), "dense")  # the same map for all images
        >>> claim = pattern_claim(maps, list("aabbccdd"), {"one map for all": control})
        >>> claim.to_frame()[["name", "same", "different", "gap"]]
                      name  same  different  gap
        0             maps   1.0        0.0  1.0
        1  one map for all   1.0        1.0  0.0
        >>> claim.holds
        True
    """
    check_options(confidence, resamples)
    signatures = as_signatures(maps)
    sums = {MAPS: person_sums(signatures, people, weights)}
    check_people(sums[MAPS])
    if not controls and not (strangers if isinstance(strangers, Mapping) else strangers is not None):
        raise CaptumLeamError("Expected one control or more, got none. Pass those of control_maps(images, people).")
    for name, control in controls.items():
        if name == MAPS:
            raise CaptumLeamError(
                f"Expected names of controls other than {MAPS!r}, which is the name of the maps, got {list(controls)}. Rename it."
            )
        sums[name] = person_sums(_fitting(as_signatures(control), signatures, name), people, weights)
    count = len(sums[MAPS].names)
    draw_counts = people_draws(count, resamples, seed)
    same = {name: part.same(draw_counts) for name, part in sums.items()}
    different = {name: part.different(draw_counts) for name, part in sums.items()}
    matched = strangers if isinstance(strangers, Mapping) else {} if strangers is None else {STRANGERS: strangers}
    codes = person_codes(people, len(signatures))[1]
    for name, indices in matched.items():
        same[name] = _with_strangers(signatures, codes, np.asarray(indices), weights, draw_counts)
        different[name] = different[MAPS]
    settings = {
        "kind": signatures.kind,
        **signatures.settings,
        "people": count,
        "images": len(signatures),
        "weights": weights,
        "confidence": confidence,
        "resamples": resamples,
        "label_seed": seed,
    }
    table = claim_table(same, different, draw_counts, confidence)
    beyond = table.iloc[1:]
    # any of several controls may be the strongest, so that the lowest end of all counts
    low, high = float(beyond["above_low"].min()), float(beyond["above_high"].iloc[0])
    return PatternClaim(table, str(beyond["name"].iloc[0]), float(beyond["above"].iloc[0]), low, high, settings)


def claim_table(
    same: Mapping[str, Estimate], different: Mapping[str, Estimate], draw_counts: Floats, confidence: float
) -> pd.DataFrame:
    """Return the table of :class:`PatternClaim` from the estimates of the maps, named "maps", and of every control."""
    gap = {name: same[name] - different[name] for name in same}
    ranked = [MAPS, *sorted((name for name in gap if name != MAPS), key=lambda name: -gap[name].value)]
    return pd.DataFrame(
        [_row(name, same[name], different[name], gap[MAPS], draw_counts, confidence) for name in ranked]
    )


def _row(
    name: str, same: Estimate, different: Estimate, of_maps: Estimate, draw_counts: Floats, confidence: float
) -> dict[str, Any]:
    gap = same - different
    low, high = gap.interval(draw_counts, confidence)
    row = {"name": name, "same": same.value, "different": different.value, "gap": gap.value, "low": low, "high": high}
    if name == MAPS:
        return {**row, "above": np.nan, "above_low": np.nan, "above_high": np.nan}
    above_low, above_high = (of_maps - gap).interval(draw_counts, confidence, (-2, 2))
    return {**row, "above": of_maps.value - gap.value, "above_low": above_low, "above_high": above_high}


def _with_strangers(
    signatures: Signatures, codes: NDArray[np.int64], strangers: NDArray[Any], weights: str, draw_counts: Floats
) -> Estimate:
    """Return the mean coefficient with the strangers; the weight of a pair in a draw is the product of those of its people."""
    fits = strangers.ndim in (1, 2) and len(strangers) == len(signatures) and strangers.size
    if not fits or not np.issubdtype(strangers.dtype, np.integer):
        raise CaptumLeamError(
            f"Expected `strangers` to be indices (N,) or (N, k) with N = {len(signatures)}, got {strangers.dtype} {strangers.shape}."
        )
    partners = strangers.reshape(len(signatures), -1)
    if partners.min() < 0 or partners.max() >= len(signatures):
        raise CaptumLeamError(
            f"Expected `strangers` from 0 to {len(signatures) - 1}, got {partners.min()} to {partners.max()}."
        )
    first, second = np.repeat(np.arange(len(signatures)), partners.shape[1]), partners.reshape(-1)
    if (codes[first] == codes[second]).any():
        wrong = first[codes[first] == codes[second]].tolist()[:5]
        raise CaptumLeamError(
            f"Expected `strangers` to be images of other people, got images of the same person for maps {wrong}."
        )
    images = np.bincount(codes)
    load = 1 / images[codes[first]] if weights == "people" else np.ones(len(first))
    overlap = row_products(signatures.roots[first], signatures.roots[second])
    return mean_of_pairs(overlap, load, codes[first], codes[second], draw_counts)


def mean_of_pairs(
    overlap: Floats, load: Floats, first: NDArray[np.int64], second: NDArray[np.int64], draw_counts: Floats
) -> Estimate:
    """Return the weighted mean over pairs of images; in a draw a pair counts as often as both its people together.

    Where the first images are those of a random sample of people, it estimates the mean over all, and its influence values (0 for people
    without a pair) give the standard error of the sample.

    Args:
        overlap: Coefficient of each pair, shape (n,).
        load: Weight of each pair, shape (n,).
        first: Index of the person of the first image, of P people, shape (n,).
        second: Index of the person of the second image, shape (n,).
        draw_counts: Counts of each person in B draws, shape (B, P).
    """
    people = draw_counts.shape[1]
    shape = (people, people)
    totals: Any
    counts: Any
    totals, counts = (
        sparse.coo_array((values, (first, second)), shape=shape).tocsr() for values in (overlap * load, load)
    )
    value = totals.sum() / counts.sum()
    excess = totals - value * counts
    influence = people * (excess.sum(axis=0) + excess.sum(axis=1)) / counts.sum()
    draws = divided(((draw_counts @ totals) * draw_counts).sum(1), ((draw_counts @ counts) * draw_counts).sum(1))
    return Estimate(float(value), draws, np.asarray(influence, dtype=np.float64))


def _fitting(control: Signatures, signatures: Signatures, name: str) -> Signatures:
    if (len(control), control.kind, control.cells) != (len(signatures), signatures.kind, signatures.cells):
        raise CaptumLeamError(
            f"Expected the control {name!r} to be of the same images and kind as the maps, {signatures!r}, got {control!r}."
        )
    return control
