r"""Compare groups of people by differences of group means, with intervals and permutation tests.

Groups come from labels of the user and are never guessed from a face. A person is one observation. Groups that are too small are not
compared, with the reason in the table, and all p-values of one call are adjusted together (Holm). Each difference has the *base
similarity* of both groups beside it, the mean cosine to the reference without occlusion: if it differs, all drops differ for a reason
that has nothing to do with regions or patterns.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from captum_leam._engine.arithmetic import as_array
from captum_leam._optional import pd
from captum_leam.errors import CaptumLeamError
from captum_leam.stats.bootstrap import MIN_FOR_DRAWS, Floats, divided
from captum_leam.stats.inference import check_options, holm
from captum_leam.stats.labels import is_missing, person_codes
from captum_leam.stats.two_groups import difference_interval, mean_of_known, permutation_p, variance_of_known

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False)
class GroupComparison:
    """Result of :func:`compare_groups`: differences between groups of people, with intervals and tests.

    Attributes:
        table: Table with one row per quantity and pair of groups, and the columns

            * ``quantity``: Name of the quantity.
            * ``first``, ``second``: Names of both groups.
            * ``people_first``, ``people_second``: Numbers of people.
            * ``mean_first``, ``mean_second``: Means over people.
            * ``difference``: ``mean_first`` minus ``mean_second``.
            * ``low``, ``high``: Ends of its interval over people.
            * ``effect``: Difference divided by the pooled standard deviation of people.
            * ``p``, ``p_holm``: p-value of the permutation test, and after Holm's adjustment for all tests of the call.
            * ``base_first``, ``base_second``: Mean cosine to the reference without occlusion.
            * ``base_difference``, ``base_low``, ``base_high``: Their difference, with its interval.
            * ``refused``: Reason why the groups were not compared, and numbers are missing; ``""`` if they were.
        settings: Settings by name: min_people, confidence, resamples, permutations and seed.

    Example:
        >>> drop = [0.1, 0.2, 0.15, 0.12, 0.6, 0.7, 0.65, 0.72]
        >>> found = compare_groups({"drop": drop}, list("abcdefgh"), list("xxxxyyyy"), [0.5] * 8, min_people=4)
        >>> found.findings()["quantity"].tolist(), found.refused
        (['drop'], [])
    """

    table: pd.DataFrame
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def refused(self) -> list[str]:
        """Reasons why comparisons were not made, each once."""
        return [reason for reason in dict.fromkeys(self.table["refused"]) if reason]

    def findings(self, level: float = 0.05) -> pd.DataFrame:
        """Return the differences that are significant after the adjustment for several tests.

        Args:
            level: Significance level, in (0, 1): rows with ``p_holm`` of at most this are returned. Default: 0.05.

        Returns:
            Table with the significant rows and the columns of :attr:`table`; no rows if nothing is significant.

        Example:
            >>> values = {"drop": [0.1, 0.2, 0.15, 0.12, 0.6, 0.7, 0.65, 0.72], "area": [0.3, 0.1, 0.2, 0.4, 0.2, 0.3, 0.4, 0.1]}
            >>> found = compare_groups(values, list("abcdefgh"), list("xxxxyyyy"), [0.5] * 8, min_people=4)
            >>> found.findings(0.1)[["quantity", "first", "second", "difference"]].round(3)
              quantity first second  difference
            0     drop     x      y      -0.525
        """
        return self.table[self.table["p_holm"] <= level].reset_index(drop=True)

    def to_frame(self) -> pd.DataFrame:
        """Return a copy of the table.

        Returns:
            Table with one row per quantity and pair of groups, and the columns of :attr:`table`.

        Example:
            >>> drop = [0.1, 0.2, 0.15, 0.12, 0.6, 0.7, 0.65, 0.72]
            >>> found = compare_groups({"drop": drop}, list("abcdefgh"), list("xxxxyyyy"), [0.5] * 8, min_people=4)
            >>> found.to_frame()[["quantity", "mean_first", "mean_second", "difference"]].round(3)
              quantity  mean_first  mean_second  difference
            0     drop       0.143        0.668      -0.525
        """
        return self.table.copy()

    def plot(self) -> Figure:
        """Plot the difference of each quantity with its interval, beside the difference in base similarity.

        Where the base similarity differs, too, a difference in drops may come from it.

        Returns:
            Figure, which is not shown: call ``figure.savefig(path)``, or let a notebook display it.

        Example:
            >>> drop = [0.1, 0.2, 0.15, 0.12, 0.6, 0.7, 0.65, 0.72]
            >>> found = compare_groups({"drop": drop}, list("abcdefgh"), list("xxxxyyyy"), [0.5] * 8, min_people=4)
            >>> type(found.plot()).__name__
            'Figure'
        """
        from captum_leam.patterns.pattern_plots import groups_figure

        return groups_figure(self)

    def __repr__(self) -> str:
        columns = ["quantity", "first", "second", "difference", "low", "high", "p_holm", "base_difference"]
        compared = self.table.loc[self.table["refused"] == "", columns]
        head = "Differences between groups (of means over people; p adjusted by Holm)"
        return "\n".join([head, compared.round(4).to_string(index=False), *(f"refused: {r}" for r in self.refused)])


def compare_groups(
    values: Mapping[str, ArrayLike] | pd.DataFrame,
    people: Sequence[Any],
    groups: Mapping[Any, Hashable] | Sequence[Hashable],
    base_similarity: ArrayLike,
    *,
    min_people: int = MIN_FOR_DRAWS,
    confidence: float = 0.95,
    resamples: int = 2000,
    permutations: int = 1999,
    seed: int = 0,
) -> GroupComparison:
    """Compare groups of people in one or several quantities, such as the fall of the cosine by occlusion.

    The values of a person are averaged first, so that a person is one observation. Each pair of groups gets the difference of the means of
    each quantity, with an interval (studentised bootstrap over people) and a p-value (permutation test of Welch's t). The p-values of all
    comparisons are adjusted together by Holm's method. Beside each difference stands that of the *base similarity*, because groups with
    another base similarity differ in their drops for this reason alone.

    Source: Janssen 1997, "Studentized permutation tests for non-i.i.d. hypotheses"; Holm 1979; Davison & Hinkley 1997, section 2.4,
    for the interval.

    Args:
        values: Values of each image by name of the quantity, such as ``{"drop": drops}``, shape (N,) each. NaN is omitted.
        people: Person of each of the N images.
        groups: Dictionary from a person to a group, or the group of each image, shape (N,). People without a group (None or NaN) are
            omitted.
        base_similarity: Cosine of each image to its reference without occlusion, shape (N,).
        min_people: Fewest people in a group that is compared, at least 3. Default: 10.
        confidence: Confidence level of the intervals, in (0, 1). Default: 0.95.
        resamples: Number of bootstrap draws of people. Default: 2000.
        permutations: Number of permutations of the group labels, at least 1. Default: 1999.
        seed: Seed of draws and permutations. Default: 0.

    Returns:
        :class:`GroupComparison` with one row for each pair of groups and quantity. Groups that are too small are not compared.

    Raises:
        CaptumLeamError: If numbers of images differ, a value is infinite, a person is in two groups, there are fewer than two groups, or
            an option is out of range.

    See Also:
        :func:`~captum_leam.regions.over_people`: Means within groups.

    Example:
        >>> drop = [0.1, 0.2, 0.15, 0.12, 0.6, 0.7, 0.65, 0.72]
        >>> found = compare_groups({"drop": drop}, list("abcdefgh"), list("xxxxyyyy"), [0.5] * 8, min_people=4)
        >>> found.to_frame()[["quantity", "first", "second", "difference"]].round(3)
          quantity first second  difference
        0     drop     x      y      -0.525
        >>> compare_groups({"drop": drop}, list("abcdefgh"), list("xxxxyyyy"), [0.5] * 8).refused
        ['drop: group x has 4 people, group y has 4; expected 10 or more in both']
    """
    check_options(confidence, resamples, permutations)
    if min_people < 3 or permutations < 1:
        raise CaptumLeamError(
            f"Expected `min_people` >= 3 and `permutations` >= 1, got {min_people} and {permutations}."
        )
    individuals, codes = person_codes(people, len(people))
    quantities = _quantities(values, len(codes))
    base = _quantities({"base_similarity": base_similarity}, len(codes))
    of_person = _groups_of_people(groups, individuals, codes)
    names = [group for group in dict.fromkeys(of_person) if group is not None]
    if len(names) < 2:
        raise CaptumLeamError(f"Expected two groups or more, got {len(names)}: {names}.")
    means = np.stack([_per_person(column, codes) for column in (*quantities.values(), *base.values())], axis=1)
    generator = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for first, second in combinations(names, 2):
        sides = [means[[group == side for group in of_person]] for side in (first, second)]
        compared = _compare(sides[0], sides[1], confidence, resamples, permutations, generator)
        for k, quantity in enumerate(quantities):
            row = {"quantity": quantity, "first": first, "second": second}
            rows.append({**row, **_row(compared, k, row, min_people)})
    table = pd.DataFrame(rows)
    table.insert(table.columns.tolist().index("p") + 1, "p_holm", holm(table["p"]))
    settings = {
        "min_people": min_people,
        "confidence": confidence,
        "resamples": resamples,
        "permutations": permutations,
        "seed": seed,
    }
    return GroupComparison(table, settings)


# -- two groups ----------------------------------------------------------------------------------------


def _compare(
    left: Floats, right: Floats, confidence: float, resamples: int, permutations: int, generator: np.random.Generator
) -> dict[str, Floats]:
    """Return the statistics of two groups, shape (people, quantities) each, with NaN for unknown values."""
    count = np.stack([(~np.isnan(side)).sum(0) for side in (left, right)])
    mean = np.stack([mean_of_known(np.ones((1, len(side))), side)[0] for side in (left, right)])
    low, high = difference_interval(left, right, confidence, resamples, generator)
    spread = np.sqrt(np.stack([variance_of_known(side) for side in (left, right)]))
    pooled = np.sqrt(((count - 1) * spread**2).sum(0) / np.maximum(count.sum(0) - 2, 1))
    difference = mean[0] - mean[1]
    effect = divided(difference, pooled)
    p = permutation_p(np.concatenate([left, right]), len(left), permutations, generator)
    return {"count": count, "mean": mean, "difference": difference, "low": low, "high": high, "effect": effect, "p": p}


def _row(compared: dict[str, Floats], k: int, names: Mapping[str, Any], min_people: int) -> dict[str, Any]:
    """Return the row of a quantity with the base similarity (the last column); numbers are NaN where a group is too small."""
    people = compared["count"][:, k].astype(int).tolist()
    reason = ""
    if min(people) < min_people:
        reason = (
            f"{names['quantity']}: group {names['first']} has {people[0]} people, group {names['second']} has {people[1]}; expected "
            f"{min_people} or more in both"
        )
    figures = {
        "mean_first": compared["mean"][0, k],
        "mean_second": compared["mean"][1, k],
        **{name: compared[name][k] for name in ("difference", "low", "high", "effect", "p")},
        "base_first": compared["mean"][0, -1],
        "base_second": compared["mean"][1, -1],
        **{f"base_{name}": compared[name][-1] for name in ("difference", "low", "high")},
    }
    row = {name: float("nan") if reason else float(value) for name, value in figures.items()}
    return {"people_first": people[0], "people_second": people[1], **row, "refused": reason}


# -- inputs --------------------------------------------------------------------------------------------


def _quantities(values: Mapping[str, ArrayLike] | pd.DataFrame, images: int) -> dict[str, Floats]:
    columns = {str(name): as_array(column) for name, column in values.items()}
    if not columns:
        raise CaptumLeamError(
            "Expected `values` to have one quantity or more, each with one number per image, got none."
        )
    for name, column in columns.items():
        if column.shape != (images,):
            raise CaptumLeamError(
                f"Expected {name} to have one number for each of the {images} images, got shape {column.shape}."
            )
        if np.isinf(column).any():
            raise CaptumLeamError(
                f"Expected {name} to be finite or NaN, got infinite values of images {np.flatnonzero(np.isinf(column)).tolist()[:5]}."
            )
    return columns


def _per_person(column: Floats, codes: NDArray[np.int64]) -> Floats:
    """Return the mean of the known values of each person, NaN without any."""
    known = ~np.isnan(column)
    totals = np.bincount(codes, np.where(known, column, 0)).astype(np.float64)
    return divided(totals, np.bincount(codes, known).astype(np.float64))


def _groups_of_people(
    groups: Mapping[Any, Hashable] | Sequence[Hashable], individuals: tuple[Any, ...], codes: NDArray[np.int64]
) -> list[Hashable | None]:
    if isinstance(groups, Mapping):
        if missing := [person for person in individuals if person not in groups]:
            raise CaptumLeamError(
                f"Expected `groups` to have a group for each person, got none for {missing[:5]}. Use None to omit a person."
            )
        return [_known(groups[person]) for person in individuals]
    labels = groups.tolist() if hasattr(groups, "tolist") else list(groups)
    if len(labels) != len(codes):
        raise CaptumLeamError(
            f"Expected `groups` to have one group for each of the {len(codes)} images, or to be a dictionary by person, got {len(labels)}."
        )
    found: list[Hashable | None] = [None] * len(individuals)
    seen: dict[int, Hashable | None] = {}
    for code, label in zip(codes.tolist(), map(_known, labels), strict=True):
        if seen.setdefault(code, label) != label:
            raise CaptumLeamError(f"Expected one group for {individuals[code]!r}, got {seen[code]!r} and {label!r}.")
        found[code] = label
    return found


def _known(group: Any) -> Hashable | None:
    """Return the group, or None for a missing label."""
    return None if is_missing(group) else group
