"""Do models, or layers, show the same? Agreement of their maps on the same images, beside what chance gives.

For two sets of maps of the same images: the mean Bhattacharyya coefficient of an image's two maps, with intervals over people; and the
*chance level*, that of the maps of different people: faces are aligned, so that any two maps overlap.
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
    """Agreement of every two sets of maps.

    Attributes:
        names: of the sets, as given.
        table: one row for every two: first, second, agreement, low, high, chance (different people), above (agreement − chance),
            above_low, above_high.
        linkage: of the clustering by average linkage of √(1 − agreement), the Hellinger distance of mean coefficients; as scipy has it.
        settings: kind, people, images, confidence, resamples, seed.

    Example:
        >>> import torch
        >>> from captum_leam.patterns import signatures
        >>> one = torch.eye(4).reshape(4, 1, 4)
        >>> found = agreement({"a": signatures(one, "dense"), "b": signatures(1 - one, "dense")}, list("wxyz"))
        >>> found.matrix().round(2).values.tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """

    names: tuple[str, ...]
    table: pd.DataFrame
    linkage: Floats
    settings: Mapping[str, Any] = field(default_factory=dict)

    def matrix(self, column: str = "agreement") -> pd.DataFrame:
        """Return a column of the table as a symmetric matrix; 1 on the diagonal of the agreement, NaN on that of others."""
        full = pd.DataFrame(np.nan, index=list(self.names), columns=list(self.names))
        for row in self.table.to_dict("records"):
            full.loc[row["first"], row["second"]] = full.loc[row["second"], row["first"]] = row[column]
        if column == "agreement":
            full = full.where(~np.eye(len(full), dtype=bool), 1.0)
        return full

    @property
    def order(self) -> list[str]:
        """Names in the order of the clustering: alike beside alike."""
        if len(self.names) < 3:
            return list(self.names)
        return [self.names[i] for i in hierarchy.leaves_list(self.linkage)]

    def clusters(self, count: int) -> dict[str, int]:
        """Name → number of its cluster, from 1, when cut into at most ``count``."""
        return dict(zip(self.names, hierarchy.fcluster(self.linkage, count, "maxclust").tolist(), strict=True))

    def to_frame(self) -> pd.DataFrame:
        """Return a copy of the table."""
        return self.table.copy()

    def plot(self) -> Figure:
        """Heat map in the order of the clustering, with its tree."""
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
    """Agreement of models (or layers) on the same images, by their maps or region profiles.

    Every person counts alike: coefficients are averaged over a person's images first.

    Args:
        maps: name → :class:`Signatures` of the same N images, all made alike; or maps (N, H, W), compared at their top 1 %.
        people: the person of each image, two or more.
        confidence: Confidence level of the intervals, in (0, 1). Default: 0.95.
        resamples: Number of bootstrap draws of people. Default: 2000.
        seed: Seed of the draws. Default: 0.

    Raises:
        CaptumLeamError: for fewer than two sets, sets of different images or made differently, or one person only.

    Example:
        >>> import torch
        >>> from captum_leam.patterns import signatures
        >>> one = torch.eye(4).reshape(4, 1, 4)
        >>> found = agreement({"a": signatures(one, "dense"), "b": signatures(one, "dense")}, list("wxyz"))
        >>> found.to_frame()[["first", "second", "agreement", "chance"]].values.tolist()
        [['a', 'b', 1.0, 0.0]]
    """
    check_options(confidence, resamples)
    if len(maps) < 2:
        raise CaptumLeamError(f"{len(maps)} sets of maps are given; expected two or more to agree.")
    made = {str(name): as_signatures(given) for name, given in maps.items()}
    names, first = tuple(made), next(iter(made.values()))
    for name, other in made.items():
        check_comparable(first, other, f"{names[0]!r} and {name!r}")
        if len(other) != len(first):
            raise CaptumLeamError(
                f"{names[0]!r} has {len(first)} maps, {name!r} {len(other)}; expected those of the same images."
            )
    individuals, codes = person_codes(people, len(first))
    if len(individuals) < 2:
        raise CaptumLeamError(f"all maps are of one person, {individuals[0]!r}; expected two people or more.")
    drawn = people_draws(len(individuals), resamples, seed)
    sums = {name: person_sums(of_set, people) for name, of_set in made.items()}
    rows = []
    for i, one in enumerate(names):
        for two in names[i + 1 :]:
            images = row_products(made[one].roots, made[two].roots)
            rows.append({"first": one, "second": two, **_row(images, codes, sums[one], sums[two], drawn, confidence)})
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
    images: Floats, codes: NDArray[np.int64], one: PersonSums, two: PersonSums, drawn: Floats, confidence: float
) -> dict[str, float]:
    count = len(one.names)
    means = np.bincount(codes, images, count) / np.bincount(codes, minlength=count)
    agreed = weighted_mean(means, np.ones(count), drawn)
    chance = mean_between(one.vectors, two.vectors, one.mass, drawn)
    return agreement_row(agreed, chance, drawn, confidence)


def agreement_row(agreed: Estimate, chance: Estimate, drawn: Floats, confidence: float) -> dict[str, float]:
    """Return the columns of a row of :class:`Agreement` from the estimates of maps of one image, and of two people."""
    above = agreed - chance
    low, high = agreed.interval(drawn, confidence, (0, 1))
    above_low, above_high = above.interval(drawn, confidence)
    values = {"agreement": agreed.value, "low": low, "high": high, "chance": chance.value, "above": above.value}
    return {**values, "above_low": above_low, "above_high": above_high}


def _linkage(agreements: Floats) -> Floats:
    """Average linkage of Hellinger distances; the pairs are in the order that scipy has."""
    distances = np.sqrt(np.clip(1 - agreements, 0, None))
    linked: Floats = hierarchy.linkage(distances, "average", optimal_ordering=True)
    return linked
