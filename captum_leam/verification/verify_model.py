"""Verify that a model tells people apart, which explanations of it require."""

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
"""Equal error rate above which :func:`verify` warns; working networks have less than 0.1 on readable faces."""


@dataclass(frozen=True)
class Verification:
    """Result of :func:`verify` and :meth:`PairScores.compute`: cosines of pairs of images, with the error rates of the model.

    A *genuine pair* is two images of one person, and an *impostor pair* is images of two people. A pair is accepted if its cosine is at
    least a threshold. The false match rate (FMR) is the share of the impostor pairs that is accepted, and the false non-match rate (FNMR)
    is the share of the genuine pairs that is rejected.

    Attributes:
        genuine: Cosines of the genuine pairs in rising order, shape (G,).
        impostor: Cosines of the impostor pairs in rising order, shape (I,).

    Example:
        >>> result = Verification(np.array([0.6, 0.8]), np.array([-0.1, 0.0, 0.1, 0.2]))
        >>> result.eer, round(result.threshold(0.25), 3), result.tar(0.25)
        (0.0, 0.15, 1.0)
    """

    genuine: Floats = field(repr=False)
    impostor: Floats = field(repr=False)

    @property
    def eer(self) -> float:
        """Equal error rate in [0, 1], at the threshold where FMR and FNMR are closest."""
        false_match, false_reject = error_rates(*self._pairs(), [self.eer_threshold])
        return float((false_match[0] + false_reject[0]) / 2)

    @property
    def eer_threshold(self) -> float:
        """Threshold of the cosine at which both error rates are closest."""
        return threshold_at_eer(*self._pairs())

    @property
    def has_both_kinds(self) -> bool:
        """Whether there are both genuine and impostor pairs, which all rates require."""
        return len(self.genuine) > 0 and len(self.impostor) > 0

    def _pairs(self) -> tuple[Floats, NDArray[np.bool_]]:
        """Return all scores, and whether each is of a genuine pair."""
        return np.concatenate([self.genuine, self.impostor]), np.arange(len(self.genuine) + len(self.impostor)) < len(
            self.genuine
        )

    def threshold(self, fmr: float) -> float:
        """Return the lowest threshold that accepts at most a share ``fmr`` of the impostor pairs.

        A pair is accepted if its cosine is at least the threshold.

        Args:
            fmr: False match rate: share of the impostor pairs that may be accepted, in (0, 1).

        Returns:
            Threshold of the cosine, a float: halfway between two scores, or above the highest.

        Raises:
            CaptumLeamError: If there are fewer than 1 / ``fmr`` impostor pairs.

        Example:
            >>> result = Verification(np.array([0.6, 0.8]), np.array([-0.1, 0.0, 0.1, 0.2]))
            >>> round(result.threshold(0.25), 3)  # one of four impostor pairs, that with 0.2, is accepted
            0.15
        """
        return threshold_at_fmr(*self._pairs(), fmr)

    def tar(self, fmr: float) -> float:
        """Return the true accept rate, the share of the genuine pairs that is accepted at a false match rate.

        Args:
            fmr: False match rate: share of the impostor pairs that may be accepted, in (0, 1). It sets the :meth:`threshold`.

        Returns:
            True accept rate, a float in [0, 1].

        Raises:
            CaptumLeamError: If there are fewer than 1 / ``fmr`` impostor pairs.

        Example:
            >>> result = Verification(np.array([0.1, 0.8]), np.array([-0.1, 0.0, 0.1, 0.2]))
            >>> result.tar(0.25)  # only 0.8 is above the threshold 0.15
            0.5
        """
        return float(np.mean(self.genuine >= self.threshold(fmr)))

    def to_frame(self) -> pd.DataFrame:
        """Return the true accept rates at the usual false match rates.

        Returns:
            Table with one row for each of the false match rates 0.1, 0.01, …, 1e-6 for which there are enough impostor pairs, at least
            1 / rate, and the columns

            * ``fmr``: False match rate.
            * ``threshold``: Threshold of the cosine.
            * ``tar``: True accept rate, in [0, 1].

        Example:
            >>> Verification(np.array([0.6, 0.8]), np.linspace(-0.5, 0.49, 100)).to_frame().round(3)
                fmr  threshold  tar
            0  0.10      0.395  1.0
            1  0.01      0.485  1.0
        """
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
        """Plot the histograms of genuine and impostor cosines, with the equal error rate as the title.

        The further apart the two histograms are, the better the model tells people apart. There must be pairs of both kinds.

        Returns:
            Figure with one axis. It is not shown: call ``figure.savefig(path)``, or let a notebook display it.

        Example:
            >>> figure = Verification(np.array([0.6, 0.8]), np.array([-0.1, 0.0, 0.1, 0.2])).plot()
            >>> figure.axes[0].get_title(), [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
            ('equal error rate 0.0%', ['different people (4 pairs)', 'same person (2 pairs)'])
        """
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
    """Measure how well a model tells people apart, from all pairs of images.

    Use it before maps of a model are computed. A wrong preprocessing or alignment shows here as a high equal error rate.

    Args:
        model: Model in evaluation mode that returns embeddings (N, D).
        images: Images as the model takes them, shape (N, C, H, W).
        labels: Person of each image; at least two people, and two images of one of them.
        batch_size: Number of images in one pass. Default: 32.

    Returns:
        :class:`Verification` with the cosines of all pairs and the error rates.

    Raises:
        CaptumLeamError: If there is not one label per image, or if genuine or impostor pairs are missing.

    Warns:
        SeparationWarning: If the equal error rate is above 20 %.

    See Also:
        * :class:`~captum_leam.verification.PairScores`: The same from several batches.
        * :class:`~captum_leam.verification.VerificationEvaluator`: Decisions with pixels deleted or inserted.

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
            "Expected at least two people and two images of one of them, so that there are genuine and impostor pairs, got "
            f"{len(people)} people with {len(codes)} images."
        )
    first, second = np.triu_indices(len(codes), k=1)
    same = codes[first] == codes[second]
    directions = unit(embed(model, images, batch_size).double(), "embeddings")
    # one product of all embeddings; PairScores compares more images than fit into it
    cosines = (directions @ directions.T).cpu().numpy()[first, second]
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
