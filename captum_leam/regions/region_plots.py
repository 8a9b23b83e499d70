"""Draw the lift of regions on a schematic face, which shows no real person."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np

from captum_leam._optional import pd
from captum_leam.errors import CaptumLeamError
from captum_leam.regions.scheme import RegionScheme, other_side
from captum_leam.regions.template import STANDARD_SIZE, template_outlines

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = "PuOr_r"  # as for signed maps, orange above chance and purple below

GROUPS = {
    "brow": ("brows", "eyebrows"),
    "eye": ("eyes",),
    "cheek": ("cheeks", "skin"),
    "forehead": ("skin",),
    "chin": ("chin_jawline", "skin"),
    "outline": ("face_head_outline",),
}
"""Names of merged regions that include a part of the drawing, the closest first."""


def lift_drawing(
    report: pd.DataFrame,
    scheme: RegionScheme | None = None,
    *,
    limit: float = 8.0,
    min_listed_lift: float = 0.0,
    title: str = "",
) -> Figure:
    """Draw a schematic face with regions coloured by mean lift: orange above chance, white at chance, purple below.

    Merged regions colour all parts that they include, as ``eyes`` both eyes and ``skin`` forehead, cheeks and chin. Regions without a part
    in the drawing, such as hair and ears, are listed below it with their lift. Parts without a region in the report are grey. Images that
    lack a region do not enter its mean. Merge the lips of CelebAMask-HQ with the mouth first, as in ``COARSE``.

    Args:
        report: Report of :func:`~captum_leam.regions.region_report`, or a table with columns region and lift.
        scheme: Scheme of the report, which states whether left is that of the image or of the person. Default: None, left of the image.
        limit: Lift above 1 with the darkest orange; 1 / limit has the darkest purple. Default: 8.0.
        min_listed_lift: Minimum lift of regions that are listed below the drawing. Default: 0.0.
        title: Title of the figure. Default: ``""``.

    Returns:
        Matplotlib figure.

    Raises:
        CaptumLeamError: If the report lacks a column, or the limit is not above 1.

    See Also:
        :func:`~captum_leam.plots.region_bars`: Lift of each region as bars.

    Example:
        >>> report = pd.DataFrame({"region": ["nose", "eyes", "skin", "hair"], "lift": [8.5, 4.0, 0.6, 0.0]})
        >>> figure = lift_drawing(report)
        >>> [text.get_text() for text in figure.axes[0].texts][:3]
        ['0.6', '0.6', '0.6']
    """
    from matplotlib.figure import Figure

    if missing := [name for name in ("region", "lift") if name not in report.columns]:
        raise CaptumLeamError(
            f"Expected report to have columns region and lift, got a table without {', '.join(missing)}."
        )
    if not limit > 1:
        raise CaptumLeamError(f"Expected limit to be a lift above 1, got {limit}.")
    lifts = report.groupby("region", sort=False)["lift"].mean()
    is_persons_left = scheme is not None and scheme.left == "person"
    parts = [part for part, _, _ in template_outlines()]
    names = {part: _region_name(other_side(part) if is_persons_left else part, lifts) for part in parts}
    figure = Figure(figsize=(4.6, 4.8), layout="constrained")
    _draw(figure, {part: None if name is None else float(lifts[name]) for part, name in names.items()}, limit)
    others = [name for name in lifts.index if name not in names.values()]
    present = [f"{name} {_lift_text(lifts[name])}" for name in others if lifts[name] >= min_listed_lift]
    absent = [name for name in others if np.isnan(lifts[name]) and not min_listed_lift]
    groups = [("not drawn: ", present), ("absent: ", absent)]
    if caption := "; ".join(heading + ", ".join(entries) for heading, entries in groups if entries):
        figure.axes[0].set_xlabel("\n".join(wrap(caption, 54)), fontsize=8)
    if title:
        figure.axes[0].set_title(title, fontsize=10)
    return figure


def _region_name(part: str, lifts: pd.Series) -> str | None:
    base = part.removeprefix("left_").removeprefix("right_")
    return next((name for name in (part, base, *GROUPS.get(base, ())) if name in lifts.index), None)


def _lift_text(lift: float) -> str:
    return "absent" if np.isnan(lift) else f"{lift:.1f}"


def _draw(figure: Figure, lifts: dict[str, float | None], limit: float) -> None:
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm
    from matplotlib.patches import Polygon

    axes = figure.subplots()
    norm = LogNorm(1 / limit, limit, clip=True)
    outlines = {part: outline for part, outline, _ in template_outlines()}
    face = Polygon(outlines["forehead"], transform=axes.transData)  # the outline of the forehead is that of the face
    for part, outline, is_clipped in template_outlines():
        lift = lifts[part]
        has_lift = lift is not None and not np.isnan(lift)
        depth = float(norm(max(lift or 0.0, 1 / limit))) if has_lift else 0.5  # dark at 0 and 1, white in the middle
        colour = colormaps[COLOURS](depth) if has_lift else "0.85"
        patch = Polygon(outline, facecolor=colour, edgecolor="0.25", linewidth=0.8)
        axes.add_patch(patch)
        if is_clipped:
            patch.set_clip_path(face)
        if lift is not None:
            x, y = _text_position(part, outline)
            text_colour = "white" if has_lift and abs(depth - 0.5) > 0.35 else "black"
            axes.text(x, y, _lift_text(lift), ha="center", va="center", fontsize=7, color=text_colour)
    axes.add_patch(Polygon(outlines["forehead"], fill=False, edgecolor="0.25", linewidth=0.8))
    axes.set(xlim=(0, STANDARD_SIZE[1]), ylim=(STANDARD_SIZE[0] + 2, 0), aspect="equal", xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(ScalarMappable(norm, COLOURS), ax=axes, shrink=0.6, aspect=25, extend="both")
    ticks = [tick for tick in (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8) if 1 / limit <= tick <= limit]
    bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    bar.ax.minorticks_off()
    bar.set_label("lift (share / area); 1 is chance", fontsize=8)


def _text_position(part: str, outline: np.typing.NDArray[np.float64]) -> tuple[float, float]:
    """Return the position of a part's number, which is not the middle where other parts cover it."""
    positions = {
        "outline": (56, 9),
        "forehead": (56, 29),
        "left_cheek": (33, 72),
        "right_cheek": (79, 72),
        "chin": (56, 104),
    }
    x, y = positions.get(part, tuple(outline.mean(axis=0)))
    return float(x), float(y)
