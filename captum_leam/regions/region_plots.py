"""Regions coloured by lift, on a drawing of a face: no person is shown."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np

from captum_leam._optional import pd
from captum_leam.errors import CaptumLeamError
from captum_leam.regions.scheme import RegionScheme, other_side
from captum_leam.regions.template import STANDARD_SIZE, shapes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = "PuOr_r"  # that of signed maps: orange for more than chance, purple for less

GROUPS = {
    "brow": ("brows", "eyebrows"),
    "eye": ("eyes",),
    "cheek": ("cheeks", "skin"),
    "forehead": ("skin",),
    "chin": ("chin_jawline", "skin"),
    "outline": ("face_head_outline",),
}
"""Under which names of merged schemes a part of the drawing may be found, the closest first."""


def lift_drawing(
    report: pd.DataFrame,
    scheme: RegionScheme | None = None,
    *,
    limit: float = 8.0,
    listed: float = 0.0,
    title: str = "",
) -> Figure:
    """Draw a face, every region in the colour of its mean lift: orange over chance, purple under it, white at chance.

    Regions of merged schemes colour all parts of the drawing that they cover: ``eyes`` both eyes, ``skin`` forehead, cheeks and
    chin. Regions that the drawing does not have (hair, ears, …) are listed below with their lift; parts that the report lacks are
    grey. The mean leaves out images that lack a region. Lips of CelebAMask-HQ: merge them with the mouth first, as ``COARSE`` does.

    Args:
        report: of :func:`~captum_leam.regions.region_report`; at least the columns region and lift.
        scheme: of the report; it says whose left is meant. Without one, the image's.
        limit: lift at which the colour is full; 1 / limit on the other side.
        listed: regions that the drawing does not have are listed below if their lift is this or more.
        title: over the drawing.

    Raises:
        CaptumLeamError: for a report without these columns, or a limit that is not over 1.

    Example:
        >>> report = pd.DataFrame({"region": ["nose", "eyes", "skin", "hair"], "lift": [8.5, 4.0, 0.6, 0.0]})
        >>> figure = lift_drawing(report)
        >>> [text.get_text() for text in figure.axes[0].texts][:3]
        ['0.6', '0.6', '0.6']
    """
    from matplotlib.figure import Figure

    if missing := [name for name in ("region", "lift") if name not in report.columns]:
        raise CaptumLeamError(f"the report has no column {missing}; expected what region_report returns.")
    if not limit > 1:
        raise CaptumLeamError(f"limit is {limit}; expected a lift over 1.")
    lifts = report.groupby("region", sort=False)["lift"].mean()
    persons_left = scheme is not None and scheme.left == "person"
    names = {part: _found(other_side(part) if persons_left else part, lifts) for part, _, _ in shapes()}
    figure = Figure(figsize=(4.6, 4.8), layout="constrained")
    _draw(figure, {part: None if name is None else float(lifts[name]) for part, name in names.items()}, limit)
    elsewhere = [name for name in lifts.index if name not in names.values()]
    there = [f"{name} {_written(lifts[name])}" for name in elsewhere if lifts[name] >= listed]
    absent = [name for name in elsewhere if np.isnan(lifts[name]) and not listed]
    groups = [("not drawn: ", there), ("absent: ", absent)]
    if below := "; ".join(what + ", ".join(names) for what, names in groups if names):
        figure.axes[0].set_xlabel("\n".join(wrap(below, 54)), fontsize=8)
    if title:
        figure.axes[0].set_title(title, fontsize=10)
    return figure


def _found(part: str, lifts: pd.Series) -> str | None:
    bare = part.removeprefix("left_").removeprefix("right_")
    return next((name for name in (part, bare, *GROUPS.get(bare, ())) if name in lifts.index), None)


def _written(lift: float) -> str:
    return "absent" if np.isnan(lift) else f"{lift:.1f}"


def _draw(figure: Figure, lifts: dict[str, float | None], limit: float) -> None:
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm
    from matplotlib.patches import Polygon

    axes = figure.subplots()
    norm = LogNorm(1 / limit, limit, clip=True)
    outlines = {part: outline for part, outline, _ in shapes()}
    face = Polygon(outlines["forehead"], transform=axes.transData)  # the forehead's outline is that of the face
    for part, outline, inside in shapes():
        lift = lifts[part]
        known = lift is not None and not np.isnan(lift)
        depth = float(norm(max(lift or 0.0, 1 / limit))) if known else 0.5  # 0 and 1 are dark, the middle is white
        colour = colormaps[COLOURS](depth) if known else "0.85"
        patch = Polygon(outline, facecolor=colour, edgecolor="0.25", linewidth=0.8)
        axes.add_patch(patch)
        if inside:
            patch.set_clip_path(face)
        if lift is not None:
            x, y = _place(part, outline)
            ink = "white" if known and abs(depth - 0.5) > 0.35 else "black"
            axes.text(x, y, _written(lift), ha="center", va="center", fontsize=7, color=ink)
    axes.add_patch(Polygon(outlines["forehead"], fill=False, edgecolor="0.25", linewidth=0.8))
    axes.set(xlim=(0, STANDARD_SIZE[1]), ylim=(STANDARD_SIZE[0] + 2, 0), aspect="equal", xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(ScalarMappable(norm, COLOURS), ax=axes, shrink=0.6, aspect=25, extend="both")
    ticks = [tick for tick in (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8) if 1 / limit <= tick <= limit]
    bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    bar.ax.minorticks_off()
    bar.set_label("lift (share / area); 1 is chance", fontsize=8)


def _place(part: str, outline: np.typing.NDArray[np.float64]) -> tuple[float, float]:
    """Where the number of a part is written: beside what covers its middle."""
    fixed = {
        "outline": (56, 9),
        "forehead": (56, 29),
        "left_cheek": (33, 72),
        "right_cheek": (79, 72),
        "chin": (56, 104),
    }
    x, y = fixed.get(part, tuple(outline.mean(axis=0)))
    return float(x), float(y)
