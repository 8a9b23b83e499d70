"""Agreement of the maps of models or layers on the same images, beside the chance level.

The agreement of two sets of maps is the mean Bhattacharyya coefficient of the two maps of each image, with an interval over people. The
*chance level* is the mean coefficient of maps of different people, because any two maps of aligned faces overlap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.cluster import hierarchy
from torch import Tensor

from captum_leam._optional import pd
from captum_leam.errors import CaptumLeamError
from captum_leam.patterns.person_sums import PersonSums, person_sums
from captum_leam.patterns.signatures import Signatures, as_signatures, check_comparable
from captum_leam.stats.bootstrap import Floats
from captum_leam.stats.estimates import Estimate, mean_between, people_draws, row_products, weighted_mean
from captum_leam.stats.inference import check_options
from captum_leam.stats.labels import person_codes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False)
class Agreement:
    """Result of :func:`agreement`: how far each two models or layers look at the same places.

    The *agreement* of two sets of maps is the mean overlap (Bhattacharyya coefficient) of the two maps of each image: 1 if both models
    look at the same places, 0 if at different ones. The *chance level* is the overlap of maps of different people, which is above 0
    because all faces are aligned.

    Attributes:
        names: Names of the sets of maps, in the order in which they were passed.
        table: Table with one row per pair of sets and the columns

            * ``first``, ``second``: Names of both sets.
            * ``agreement``: Mean overlap, in [0, 1].
            * ``low``, ``high``: Ends of its interval over people.
            * ``chance``: Chance level, in [0, 1].
            * ``above``: Agreement minus chance level.
            * ``above_low``, ``above_high``: Ends of the interval of ``above``.
        linkage: Clustering of the sets in the form of ``scipy.cluster.hierarchy.linkage``, shape (sets − 1, 4). It is the average
            linkage of the distances √(1 − agreement).
        settings: Settings by name: kind, people, images, confidence, resamples, label_seed (the argument ``seed``), and those of
            the maps.

    Example:
        >>> import torch
        >>> from captum_leam.patterns import signatures
        >>> one = torch.eye(4).reshape(4, 1, 4)  # four people, four pixels: a different pixel for each person
        >>> sets = {"a": signatures(one, "dense"), "b": signatures(one + 0.1, "dense"), "c": signatures(1 - one, "dense")}
        >>> found = agreement(sets, list("wxyz"))
        >>> found.to_frame()[["first", "second", "agreement", "chance"]].round(2)
          first second  agreement  chance
        0     a      b       0.89    0.27
        1     a      c       0.00    0.58
        2     b      c       0.46    0.82
        >>> found.clusters(2)  # a and b agree
        {'a': 1, 'b': 1, 'c': 2}
    """

    names: tuple[str, ...]
    table: pd.DataFrame
    linkage: Floats
    settings: Mapping[str, Any] = field(default_factory=dict)

    def matrix(self, column: str = "agreement") -> pd.DataFrame:
        """Return one column of the table as a symmetric matrix.

        Args:
            column: Name of a numeric column of :attr:`table`, such as ``"agreement"``, ``"chance"`` or ``"above"``. Default:
                ``"agreement"``.

        Returns:
            Table with the names of the sets as rows and columns. The diagonal is 1 for the agreement, and NaN for other columns.

        Example:
            >>> import torch
            >>> from captum_leam.patterns import signatures
            >>> one = torch.eye(4).reshape(4, 1, 4)
            >>> found = agreement({"a": signatures(one, "dense"), "b": signatures(one + 0.1, "dense")}, list("wxyz"))
            >>> found.matrix().round(2)
                  a     b
            a  1.00  0.89
            b  0.89  1.00
        """
        full = pd.DataFrame(np.nan, index=list(self.names), columns=list(self.names))
        for row in self.table.to_dict("records"):
            full.loc[row["first"], row["second"]] = full.loc[row["second"], row["first"]] = row[column]
        if column == "agreement":
            full = full.where(~np.eye(len(full), dtype=bool), 1.0)
        return full

    @property
    def order(self) -> list[str]:
        """Names in the order of the clustering, so that similar sets are adjacent."""
        if len(self.names) < 3:
            return list(self.names)
        return [self.names[i] for i in hierarchy.leaves_list(self.linkage)]

    def clusters(self, count: int) -> dict[str, int]:
        """Group the sets of maps into clusters that look at the same places.

        Use it to find families of networks or layers. Clusters are those of average linkage with the distance √(1 − agreement).

        Args:
            count: Maximum number of clusters, 1 or more. There are fewer if distances are equal.

        Returns:
            Dictionary from the name of each set to the number of its cluster, an int from 1, in the order of :attr:`names`.

        Example:
            >>> import torch
            >>> from captum_leam.patterns import signatures
            >>> one = torch.eye(4).reshape(4, 1, 4)  # a and b have their highest values at the same pixels, c at the others
            >>> sets = {"a": signatures(one, "dense"), "b": signatures(one + 0.1, "dense"), "c": signatures(1 - one, "dense")}
            >>> agreement(sets, list("wxyz")).clusters(2)
            {'a': 1, 'b': 1, 'c': 2}
        """
        return dict(zip(self.names, hierarchy.fcluster(self.linkage, count, "maxclust").tolist(), strict=True))

    def to_frame(self) -> pd.DataFrame:
        """Return a copy of the table.

        Returns:
            Table with one row per pair of sets, and the columns of :attr:`table`.

        Example:
            >>> import torch
            >>> from captum_leam.patterns import signatures
            >>> one = torch.eye(4).reshape(4, 1, 4)
            >>> found = agreement({"a": signatures(one, "dense"), "b": signatures(one, "dense")}, list("wxyz"))
            >>> found.to_frame()[["first", "second", "agreement", "chance", "above"]]
              first second  agreement  chance  above
            0     a      b        1.0     0.0    1.0
        """
        return self.table.copy()

    def plot(self) -> Figure:
        """Plot the agreement of all pairs of sets as a heat map.

        Rows and columns are in the order of the clustering, so that sets that agree are adjacent. The tree of the clustering is drawn
        beside the heat map.

        Returns:
            Figure, which is not shown: call ``figure.savefig(path)``, or let a notebook display it.

        Example:
            >>> import torch
            >>> from captum_leam.patterns import signatures
            >>> one = torch.eye(4).reshape(4, 1, 4)
            >>> sets = {"a": signatures(one, "dense"), "b": signatures(one + 0.1, "dense"), "c": signatures(1 - one, "dense")}
            >>> type(agreement(sets, list("wxyz")).plot()).__name__
            'Figure'
        """
        from captum_leam.patterns.pattern_plots import agreement_figure

        return agreement_figure(self)

    def __repr__(self) -> str:
        head = (
            f"Agreement of {len(self.names)} sets of maps ({self.settings['kind']}), {self.settings['people']} people"
        )
        return f"{head}\n{self.table.round(3).to_string(index=False)}"


def agreement(
    maps: Mapping[str, Signatures | Tensor | ArrayLike],
    people: Sequence[Any],
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Agreement:
    r"""Measure how far models or layers look at the same places of the same images.

    The agreement of two sets of maps is the mean overlap of both maps of each image, the Bhattacharyya coefficient of the maps p and q as
    distributions over pixels or regions:

    .. math:: BC(p, q) = \sum_i \sqrt{p_i q_i}

    Overlaps are averaged over the images of a person first, so that each person has the same weight. The chance level is the overlap of
    maps of different people.

    Args:
        maps: Two or more sets of maps of the same N images, a dictionary by name of the model or layer. A set is
            :class:`~captum_leam.patterns.Signatures`, with the same options for all sets, or maps of shape (N, H, W), which are compared at
            their top 1 %.
        people: Person of each of the N images; at least two people.
        confidence: Confidence level of the intervals, in (0, 1). Default: 0.95.
        resamples: Number of bootstrap draws of people. Default: 2000.
        seed: Seed of the draws. Default: 0.

    Returns:
        :class:`Agreement` with the agreement and the chance level, in [0, 1], and the intervals of each pair of sets.

    Raises:
        CaptumLeamError: If there are fewer than two sets, sets of different images or options, or one person only.

    See Also:
        :func:`~captum_leam.patterns.person_specificity`: Agreement of images of one person.

    Example:
        >>> import torch
        >>> from captum_leam.patterns import signatures
        >>> one = torch.eye(4).reshape(4, 1, 4)  # four people, four pixels: a different pixel for each person
        >>> found = agreement({"a": signatures(one, "dense"), "b": signatures(one + 0.1, "dense")}, list("wxyz"))
        >>> found.to_frame()[["first", "second", "agreement", "chance"]].round(2)
          first second  agreement  chance
        0     a      b       0.89    0.27
    """
    check_options(confidence, resamples)
    if len(maps) < 2:
        raise CaptumLeamError(f"Expected two sets of maps or more, got {len(maps)}.")
    sets = {str(name): as_signatures(of_set) for name, of_set in maps.items()}
    names, first = tuple(sets), next(iter(sets.values()))
    for name, other in sets.items():
        check_comparable(first, other, f"{names[0]!r} and {name!r}")
        if len(other) != len(first):
            raise CaptumLeamError(
                f"Expected maps of the same images, got {len(first)} of {names[0]!r} and {len(other)} of {name!r}."
            )
    individuals, codes = person_codes(people, len(first))
    if len(individuals) < 2:
        raise CaptumLeamError(f"Expected maps of two people or more, got one person, {individuals[0]!r}.")
    draw_counts = people_draws(len(individuals), resamples, seed)
    sums = {name: person_sums(of_set, people) for name, of_set in sets.items()}
    rows = []
    for i, one in enumerate(names):
        for two in names[i + 1 :]:
            images = row_products(sets[one].roots, sets[two].roots)
            rows.append(
                {"first": one, "second": two, **_row(images, codes, sums[one], sums[two], draw_counts, confidence)}
            )
    settings = {
        "kind": first.kind,
        **first.settings,
        "people": len(individuals),
        "images": len(first),
        "confidence": confidence,
        "resamples": resamples,
        "label_seed": seed,
    }
    table = pd.DataFrame(rows)
    return Agreement(names, table, _linkage(table["agreement"].to_numpy()), settings)


def _row(
    images: Floats, codes: NDArray[np.int64], one: PersonSums, two: PersonSums, draw_counts: Floats, confidence: float
) -> dict[str, float]:
    count = len(one.names)
    means = np.bincount(codes, images, count) / np.bincount(codes, minlength=count)
    mean = weighted_mean(means, np.ones(count), draw_counts)
    chance = mean_between(one.vectors, two.vectors, one.mass, draw_counts)
    return agreement_row(mean, chance, draw_counts, confidence)


def agreement_row(mean: Estimate, chance: Estimate, draw_counts: Floats, confidence: float) -> dict[str, float]:
    """Return the columns of a row of :class:`Agreement` from the estimates of maps of one image, and of two people."""
    above = mean - chance
    low, high = mean.interval(draw_counts, confidence, (0, 1))
    above_low, above_high = above.interval(draw_counts, confidence)
    values = {"agreement": mean.value, "low": low, "high": high, "chance": chance.value, "above": above.value}
    return {**values, "above_low": above_low, "above_high": above_high}


def _linkage(agreements: Floats) -> Floats:
    """Return the average linkage of Hellinger distances; pairs are in the order of scipy."""
    distances = np.sqrt(np.clip(1 - agreements, 0, None))
    linked: Floats = hierarchy.linkage(distances, "average", optimal_ordering=True)
    return linked
