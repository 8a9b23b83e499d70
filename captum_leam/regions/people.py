"""Region reports over people: image by image, then one number for every person, then means with intervals."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from captum_leam._optional import pd
from captum_leam.errors import CaptumLeamError
from captum_leam.stats.bootstrap import interval_of_sums

QUANTITIES = ("share", "mass", "area", "lift")


def per_person(report: pd.DataFrame, people: Sequence[Hashable]) -> pd.DataFrame:
    """Mean of every region's quantities over the images of each person, so that a person counts once however many images there are.

    Args:
        report: of :func:`~captum_leam.regions.region_report`.
        people: who is in each image, in the order of the images.

    Returns:
        One row for every person and region, in order of appearance: person, region, images, share, mass, area, lift. Images that
        lack a region (lift NaN) are left out of that lift.

    Raises:
        CaptumLeamError: if there are not as many people as images, or the report lacks columns.

    Example:
        >>> report = pd.DataFrame({"image": [0, 1, 2], "region": "nose", "share": [0.2, 0.4, 0.6], "mass": 0.1, "area": 0.1,
        ...                        "lift": [2.0, 4.0, 6.0]})
        >>> per_person(report, ["ann", "ann", "bob"])[["person", "images", "lift"]].values.tolist()
        [['ann', 2, 3.0], ['bob', 1, 6.0]]
    """
    if missing := [name for name in ("image", "region", *QUANTITIES) if name not in report.columns]:
        raise CaptumLeamError(f"the report has no column {missing}; expected what region_report returns.")
    images = int(report["image"].max()) + 1 if len(report) else 0
    if len(people) != images:
        raise CaptumLeamError(f"{len(people)} people are given for {images} images; expected one for each.")
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
    """Mean of every region's quantities over people, with studentised bootstrap intervals: people are drawn, not images.

    Intervals say how far other people would change the mean, with this network and these labels. Under ten people they are
    Student's t; they are too narrow for lifts of regions so small that a few people carry the mean.

    Source: :func:`~captum_leam.stats.bootstrap.interval_of_sums`.

    Args:
        report: of :func:`~captum_leam.regions.region_report`.
        people: who is in each image, in the order of the images.
        groups: person → group; means are then within each.
        confidence: of the intervals, in (0, 1).
        resamples: Number of bootstrap draws of people. Default: 2000.
        seed: Seed of the draws. Default: 0.

    Returns:
        One row for every (group,) region and quantity: group, region, quantity, people, mean, low, high. ``people`` counts those whose
        images have the region; under two, low and high are NaN.

    Raises:
        CaptumLeamError: as :func:`per_person`; for a person without group; or other options out of range.

    Example:
        >>> report = pd.DataFrame({"image": [0, 1, 2], "region": "nose", "share": [0.2, 0.4, 0.6], "mass": 0.1, "area": 0.1,
        ...                        "lift": [2.0, 4.0, 6.0]})
        >>> table = over_people(report, ["ann", "ann", "bob"]).set_index("quantity")
        >>> table.loc["lift", ["mean", "low", "high"]].astype(float).round(1).tolist()  # two people say next to nothing
        [4.5, 0.0, 23.6]
    """
    if not 0 < confidence < 1 or resamples < 1:
        raise CaptumLeamError(
            f"confidence={confidence}, resamples={resamples}; expected a share in (0, 1) and 1 or more."
        )
    table = per_person(report, people)
    keys = ["region"]
    if groups is not None:
        if missing := [person for person in dict.fromkeys(people) if person not in groups]:
            raise CaptumLeamError(f"{missing[:5]} have no group; expected one for every person.")
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
    of_each = np.ones(len(values))
    low, high = interval_of_sums(
        values, of_each, confidence=confidence, resamples=resamples, seed=seed, bounds=(0.0, np.inf)
    )
    return float(low), float(high)
