"""Does the model tell people apart at all? Before anything is explained."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from captum_leam._optional import pd
from captum_leam.errors import CaptumLeamError, SeparationWarning
from captum_leam.objectives import embed, unit
from captum_leam.stats.decisions import error_rates, threshold_at_eer, threshold_at_fmr, thresholds_between
from captum_leam.stats.labels import person_codes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]

MAX_EER = 0.2
"""Over this equal error rate :func:`verify` warns: working networks on readable faces lie under 0.1."""


@dataclass(frozen=True)
class Verification:
    """Cosines of pairs of images: of the same person (genuine) and of different people (impostor).

    Example:
        >>> result = Verification(np.array([0.6, 0.8]), np.array([-0.1, 0.0, 0.1, 0.2]))  # of verify, which makes it
        >>> result.eer, round(result.threshold(0.25), 3), result.tar(0.25)
        (0.0, 0.15, 1.0)
    """

    genuine: Floats = field(repr=False)
    """(G,), sorted."""
    impostor: Floats = field(repr=False)
    """(I,), sorted."""

    @property
    def eer(self) -> float:
        """Equal error rate: where as many impostors are accepted as genuine pairs are rejected, in [0, 1]."""
        false_match, false_reject = error_rates(*self._pairs(), [self.eer_threshold])
        return float((false_match[0] + false_reject[0]) / 2)

    @property
    def eer_threshold(self) -> float:
        """Cosine at which both errors are equal."""
        return threshold_at_eer(*self._pairs())

    @property
    def has_both_kinds(self) -> bool:
        """Whether there are genuine and impostor pairs, which all rates need."""
        return len(self.genuine) > 0 and len(self.impostor) > 0

    def _pairs(self) -> tuple[Floats, NDArray[np.bool_]]:
        """All scores, and which are genuine."""
        return np.concatenate([self.genuine, self.impostor]), np.arange(len(self.genuine) + len(self.impostor)) < len(
            self.genuine
        )

    def threshold(self, fmr: float) -> float:
        """Least threshold at which at most a share ``fmr`` of the impostors is accepted (score ≥ threshold).

        Raises:
            CaptumLeamError: if there are too few impostors to measure that share.
        """
        return threshold_at_fmr(*self._pairs(), fmr)

    def tar(self, fmr: float) -> float:
        """Share of the genuine pairs that is accepted at :meth:`threshold`, in [0, 1]."""
        return float(np.mean(self.genuine >= self.threshold(fmr)))

    def to_frame(self) -> pd.DataFrame:
        """One row for every false match rate that can be measured, of 0.1, 0.01, …: fmr, threshold, tar."""
        measurable = [rate for rate in (0.1, 0.01, 1e-3, 1e-4, 1e-5, 1e-6) if rate * len(self.impostor) >= 1]
        scores, genuine = self._pairs()
        at = thresholds_between(scores) if measurable else np.zeros(0)
        false_match = error_rates(scores, genuine, at)[0] if measurable else at
        rows = []
        for rate in measurable:
            threshold = float(at[false_match <= rate][0])
            rows.append({"fmr": rate, "threshold": threshold, "tar": float(np.mean(self.genuine >= threshold))})
        return pd.DataFrame(rows, columns=["fmr", "threshold", "tar"])

    def plot(self) -> Figure:
        """Histogram of genuine and impostor cosines."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5.2, 3), layout="constrained")
        axes = figure.subplots()
        both = np.concatenate([self.genuine, self.impostor])
        bins = np.linspace(both.min(), both.max() + 1e-9, 41).tolist()
        for scores, name, colour in (
            (self.impostor, "different people", "#d55e00"),
            (self.genuine, "same person", "#0072b2"),
        ):
            axes.hist(scores, bins, density=True, alpha=0.6, color=colour, label=f"{name} ({len(scores)} pairs)")
        axes.set_xlabel("cosine")
        axes.set_ylabel("density")
        axes.set_title(f"equal error rate {self.eer:.1%}", fontsize=10)
        axes.legend(fontsize=8, frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
        return figure

    def __repr__(self) -> str:
        rates = "".join(f", TAR {row.tar:.3f} at FMR {row.fmr:g}" for row in self.to_frame().itertuples())
        return (
            f"Verification(EER {self.eer:.3f}{rates}; {len(self.genuine)} genuine, {len(self.impostor)} impostor pairs)"
        )


def verify(model: nn.Module, images: Tensor, labels: Sequence[Hashable], *, batch_size: int = 32) -> Verification:
    """Compare every image with every other: do cosines separate people? A wrong preprocessing shows here.

    Args:
        model: returns embeddings (N, D), in evaluation mode.
        images: (N, C, H, W) as the model takes them.
        labels: who is in each image; two people or more, one of them twice or more.
        batch_size: Number of images in one pass.

    Returns:
        Cosines of all pairs, with error rates. Pairs share images, so that intervals cannot be read off their number.

    Raises:
        CaptumLeamError: for another number of labels, or without a pair of either kind.

    Warns:
        SeparationWarning: if the equal error rate is over 20 %.

    Example:
        >>> import torch
        >>> angles = torch.tensor([0.0, 0.1, 1.5, 1.6])
        >>> images = torch.stack([angles.cos(), angles.sin()], 1).view(4, 2, 1, 1)
        >>> result = verify(nn.Flatten(), images, ["ann", "ann", "bob", "bob"])
        >>> result.eer, len(result.genuine), len(result.impostor)
        (0.0, 2, 4)
    """
    people, codes = person_codes(labels, len(images))
    if not 1 < len(people) < len(codes):
        raise CaptumLeamError(
            "expected pairs of both kinds: two people or more, and two images or more of one of them; there are "
            f"{len(people)} people with {len(codes)} images."
        )
    first, second = np.triu_indices(len(codes), k=1)
    same = codes[first] == codes[second]
    directions = unit(embed(model, images, batch_size).double(), "embeddings")
    cosines = (
        (directions @ directions.T).cpu().numpy()[first, second]
    )  # one product; PairScores is for more images than that holds
    result = Verification(np.sort(cosines[same]), np.sort(cosines[~same]))
    if result.eer > MAX_EER:
        warnings.warn(
            f"the model hardly separates these people: equal error rate {result.eer:.0%}, mean cosine {result.genuine.mean():.2f} "
            f"within people and {result.impostor.mean():.2f} between. Check the alignment (template, size) and the Preprocessing "
            "(colour order, mean, std) before anything is explained.",
            SeparationWarning,
            stacklevel=2,
        )
    return result
