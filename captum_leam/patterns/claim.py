"""The claim that maps are person-specific, as what is left of their gap beyond the strongest control.

An edge detector already finds images of one person more alike than those of two. What a method adds is its gap (same − different) above
that of the strongest control. Who looks alike by pose counts as a control too: the coefficient of strangers in the same pose, less that
of strangers.
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
    """The gap of maps beside that of every control.

    Attributes:
        table: one row for the maps and each control, the strongest first: name, same, different, gap, low, high, above (gap of the maps
            − gap of the control), above_low, above_high.
        strongest: the control with the largest gap.
        headline: gap of the maps above the strongest control.
        low: of its interval over people: the lowest end against any control, so that above 0 means above each of them.
        high: of the interval against the strongest control.
        settings: kind, people, images, weights, confidence, resamples, seed.

    Example:
        >>> import torch
        >>> from captum_leam.patterns import signatures
        >>> maps = signatures(torch.eye(4).reshape(4, 1, 4).repeat_interleave(2, 0), "dense")
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
        """Whether the interval lies above 0."""
        return self.low > 0

    def to_frame(self) -> pd.DataFrame:
        """Return a copy of the table."""
        return self.table.copy()

    def sentence(self) -> str:
        """Return the claim as a sentence with its numbers."""
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
        """Coefficients of the same and of different people, maps and controls below each other."""
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
    """Gap of the maps above that of the strongest control, all on the same images and the same draws of people.

    Args:
        maps: Signatures, or maps (N, H, W), compared at their top 1 %.
        people: Person of each map.
        controls: name → control maps of the same images, in the same form; see :func:`~captum_leam.patterns.control_maps`.
        strangers: (N,) or (N, k) indices of images of other people in the same pose, see
            :func:`~captum_leam.patterns.closest_strangers`: one more control. Or name → indices, to say what they were matched on.
        weights: ``"people"`` or ``"pairs"``, see :func:`person_specificity`.
        confidence: Confidence level of the intervals, in (0, 1). Default: 0.95.
        resamples: Number of bootstrap draws of people. Default: 2000.
        seed: Seed of the draws. Default: 0.

    Raises:
        CaptumLeamError: without any control, for controls of other images or made otherwise, strangers that are the ...
            :func:`person_specificity` refuses.

    Example:
        >>> import torch
        >>> from captum_leam.patterns import signatures
        >>> of_person = torch.eye(4).reshape(4, 1, 4).repeat_interleave(2, 0)
        >>> claim = pattern_claim(
        ...     signatures(of_person, "dense"), list("aabbccdd"), {"the same for all": signatures(torch.ones(8, 1, 4), "dense")})
        >>> claim.strongest, claim.headline, claim.holds
        ('the same for all', 1.0, True)
    """
    check_options(confidence, resamples)
    made = as_signatures(maps)
    sums = {MAPS: person_sums(made, people, weights)}
    check_people(sums[MAPS])
    if not controls and not (strangers if isinstance(strangers, Mapping) else strangers is not None):
        raise CaptumLeamError(
            "no controls are given; expected one or more: an edge detector already passes 'same > different'."
        )
    for name, control in controls.items():
        if name == MAPS:
            raise CaptumLeamError(f"a control is called {MAPS!r}, as the maps themselves are; give it another name.")
        sums[name] = person_sums(_fitting(as_signatures(control), made, name), people, weights)
    count = len(sums[MAPS].names)
    drawn = people_draws(count, resamples, seed)
    same = {name: part.same(drawn) for name, part in sums.items()}
    different = {name: part.different(drawn) for name, part in sums.items()}
    matched = strangers if isinstance(strangers, Mapping) else {} if strangers is None else {STRANGERS: strangers}
    codes = person_codes(people, len(made))[1]
    for name, indices in matched.items():
        same[name] = _with_strangers(made, codes, np.asarray(indices), weights, drawn)
        different[name] = different[MAPS]
    settings = {
        "kind": made.kind,
        **made.settings,
        "people": count,
        "images": len(made),
        "weights": weights,
        "confidence": confidence,
        "resamples": resamples,
        "label_seed": seed,
    }
    table = claim_table(same, different, drawn, confidence)
    beyond = table.iloc[1:]
    # of several controls any may be the strongest: the maps are above all of them only if they are above each
    low, high = float(beyond["above_low"].min()), float(beyond["above_high"].iloc[0])
    return PatternClaim(table, str(beyond["name"].iloc[0]), float(beyond["above"].iloc[0]), low, high, settings)


def claim_table(
    same: Mapping[str, Estimate], different: Mapping[str, Estimate], drawn: Floats, confidence: float
) -> pd.DataFrame:
    """Return the table of :class:`PatternClaim` from the estimates of the maps, named "maps", and of every control."""
    gap = {name: same[name] - different[name] for name in same}
    ranked = [MAPS, *sorted((name for name in gap if name != MAPS), key=lambda name: -gap[name].value)]
    return pd.DataFrame([_row(name, same[name], different[name], gap[MAPS], drawn, confidence) for name in ranked])


def _row(
    name: str, same: Estimate, different: Estimate, of_maps: Estimate, drawn: Floats, confidence: float
) -> dict[str, Any]:
    gap = same - different
    low, high = gap.interval(drawn, confidence)
    row = {"name": name, "same": same.value, "different": different.value, "gap": gap.value, "low": low, "high": high}
    if name == MAPS:
        return {**row, "above": np.nan, "above_low": np.nan, "above_high": np.nan}
    above_low, above_high = (of_maps - gap).interval(drawn, confidence, (-2, 2))
    return {**row, "above": of_maps.value - gap.value, "above_low": above_low, "above_high": above_high}


def _with_strangers(
    made: Signatures, codes: NDArray[np.int64], strangers: NDArray[Any], weights: str, drawn: Floats
) -> Estimate:
    """Mean coefficient with the strangers that are given; in a draw a pair counts as often as both its people together."""
    fits = strangers.ndim in (1, 2) and len(strangers) == len(made) and strangers.size
    if not fits or not np.issubdtype(strangers.dtype, np.integer):
        raise CaptumLeamError(
            f"strangers are {strangers.dtype} {strangers.shape}; expected indices (N,) or (N, k) for {len(made)} maps."
        )
    partners = strangers.reshape(len(made), -1)
    if partners.min() < 0 or partners.max() >= len(made):
        raise CaptumLeamError(f"strangers reach from {partners.min()} to {partners.max()}; there are {len(made)} maps.")
    first, second = np.repeat(np.arange(len(made)), partners.shape[1]), partners.reshape(-1)
    if (codes[first] == codes[second]).any():
        wrong = first[codes[first] == codes[second]].tolist()[:5]
        raise CaptumLeamError(
            f"the strangers given for maps {wrong} are of the same person; expected images of somebody else."
        )
    images = np.bincount(codes)
    load = 1 / images[codes[first]] if weights == "people" else np.ones(len(first))
    overlap = row_products(made.roots[first], made.roots[second])
    return mean_of_pairs(overlap, load, codes[first], codes[second], drawn)


def mean_of_pairs(
    overlap: Floats, load: Floats, first: NDArray[np.int64], second: NDArray[np.int64], drawn: Floats
) -> Estimate:
    """Return the weighted mean over pairs of images; in a draw a pair counts as often as both its people together.

    Where the first images are those of a random sample of people, it estimates the mean over all, and its influence values (0 for people
    without a pair) give the standard error of the sample.

    Args:
        overlap: Coefficient of each pair, shape (n,).
        load: How much each pair counts, shape (n,).
        first: Number of the person of the first image, of P, shape (n,).
        second: Number of the person of the second image, shape (n,).
        drawn: Draws of people (B, P).
    """
    people = drawn.shape[1]
    shape = (people, people)
    totals: Any
    counts: Any
    totals, counts = (
        sparse.coo_array((values, (first, second)), shape=shape).tocsr() for values in (overlap * load, load)
    )
    value = totals.sum() / counts.sum()
    excess = totals - value * counts
    influence = people * (excess.sum(axis=0) + excess.sum(axis=1)) / counts.sum()
    draws = divided(((drawn @ totals) * drawn).sum(1), ((drawn @ counts) * drawn).sum(1))
    return Estimate(float(value), draws, np.asarray(influence, dtype=np.float64))


def _fitting(control: Signatures, made: Signatures, name: str) -> Signatures:
    if (len(control), control.kind, control.cells) != (len(made), made.kind, made.cells):
        raise CaptumLeamError(
            f"the control {name!r} is {control!r}; the maps are {made!r}: expected both of the same images and kind."
        )
    return control
