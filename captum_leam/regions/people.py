"""Summarise region reports per person, and over people with confidence intervals."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from captum_leam._optional import pd
from captum_leam.errors import CaptumLeamError
from captum_leam.stats.bootstrap import interval_of_sums

QUANTITIES = ("share", "mass", "area", "lift")


def per_person(report: pd.DataFrame, people: Sequence[Hashable]) -> pd.DataFrame:
    """Return the mean of each region's quantities over the images of each person.

    Each person then has the same weight, whatever the number of images.

    Args:
        report: Report of :func:`~captum_leam.regions.region_report`.
        people: Person in each image, in the order of the images.

    Returns:
        Data frame with one row per person and region, in order of appearance, and the columns:

        * person: Person.
        * region: Name of the region.
        * images: Number of images of the person.
        * share, mass, area, lift: Means over the images, see :func:`region_report`. Images that lack a region do not enter its lift.

    Raises:
        CaptumLeamError: If the number of people differs from the number of images, or the report lacks a column.

    See Also:
        :func:`~captum_leam.regions.over_people`: Means over people with intervals.

    Example:
        >>> report = pd.DataFrame({"image": [0, 1, 2], "region": "nose", "share": [0.2, 0.4, 0.6], "mass": 0.1, "area": 0.1,
        ...                        "lift": [2.0, 4.0, 6.0]})
        >>> per_person(report, ["ann", "ann", "bob"])[["person", "region", "images", "lift"]]
          person region  images  lift
        0    ann   nose       2   3.0
        1    bob   nose       1   6.0
    """
    if missing := [name for name in ("image", "region", *QUANTITIES) if name not in report.columns]:
        raise CaptumLeamError(
            f"Expected report to have the columns of region_report, got a table without {', '.join(missing)}."
        )
    images = int(report["image"].max()) + 1 if len(report) else 0
    if len(people) != images:
        raise CaptumLeamError(f"Expected people to name one person for each of {images} images, got {len(people)}.")
    table = report.assign(person=report["image"].map(dict(enumerate(people))))
    grouped = table.groupby(["person", "region"], sort=False, dropna=False)
    means = grouped[list(QUANTITIES)].mean()
    means.insert(0, "images", grouped["image"].nunique())
    return means.reset_index()


def over_people(
    report: pd.DataFrame,
    people: Sequence[Hashable],
    *,
    groups: Mapping[Hashable, Hashable] | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Return the mean of each region's quantities over people, with studentised bootstrap intervals.

    People are resampled, not images. The intervals describe the variation between people for one network and one set of labels. With fewer
    than ten people they are Student's t intervals. They are too narrow for the lift of a region so small that few people determine it.

    Source: :func:`~captum_leam.stats.bootstrap.interval_of_sums`.

    Args:
        report: Report of :func:`~captum_leam.regions.region_report`.
        people: Person in each image, in the order of the images.
        groups: Group of each person, to compute means within groups. Default: None, for one group.
        confidence: Confidence level of the intervals, in (0, 1). Default: 0.95.
        resamples: Number of bootstrap resamples of people. Default: 2000.
        seed: Seed of the resamples. Default: 0.

    Returns:
        Data frame with one row per region and quantity, and per group if there are any, and the columns:

        * group: Group of the people. Only with ``groups``.
        * region: Name of the region.
        * quantity: ``"share"``, ``"mass"``, ``"area"`` or ``"lift"``, see :func:`region_report`.
        * people: Number of people whose images have the region.
        * mean: Mean over these people.
        * low, high: Limits of the interval of the mean. NaN for fewer than two people.

    Raises:
        CaptumLeamError: If the number of people differs from the number of images, the report lacks a column, a person has no group, or
            an argument is out of range.

    See Also:
        * :func:`~captum_leam.regions.per_person`: Means of each person.
        * :func:`~captum_leam.regions.region_report`: Table of the images.

    Example:
        >>> report = pd.DataFrame({"image": [0, 1, 2], "region": "nose", "share": [0.2, 0.4, 0.6], "mass": 0.1, "area": 0.1,
        ...                        "lift": [2.0, 4.0, 6.0]})
        >>> table = over_people(report, ["ann", "ann", "bob"])
        >>> table.loc[table["quantity"] == "lift", ["region", "people", "mean", "low", "high"]].round(1)  # two people: a wide interval
          region  people  mean  low  high
        3   nose       2   4.5  0.0  23.6
    """
    if not 0 < confidence < 1:
        raise CaptumLeamError(f"Expected confidence to be in (0, 1), got {confidence}.")
    if resamples < 1:
        raise CaptumLeamError(f"Expected resamples to be 1 or more, got {resamples}.")
    table = per_person(report, people)
    keys = ["region"]
    if groups is not None:
        if missing := [person for person in dict.fromkeys(people) if person not in groups]:
            raise CaptumLeamError(f"Expected groups to hold every person, got no group for {missing[:5]}.")
        table = table.assign(group=table["person"].map(dict(groups)))
        keys = ["group", "region"]
    rows = []
    for key, part in table.groupby(keys, sort=False):
        for quantity in QUANTITIES:
            values = part[quantity].dropna().to_numpy(dtype=np.float64)
            low, high = _interval(values, confidence, resamples, seed)
            mean = float(values.mean()) if len(values) else float("nan")
            rows.append((*key, quantity, len(values), mean, low, high))
    return pd.DataFrame(rows, columns=[*keys, "quantity", "people", "mean", "low", "high"])


def _interval(values: NDArray[np.float64], confidence: float, resamples: int, seed: int) -> tuple[float, float]:
    weights = np.ones(len(values))
    low, high = interval_of_sums(
        values, weights, confidence=confidence, resamples=resamples, seed=seed, bounds=(0.0, np.inf)
    )
    return float(low), float(high)
