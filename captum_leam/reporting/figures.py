"""Draw the figures of pages from tables, with panels as wide as a phone.

Markers and dashes distinguish lines without colour, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from captum_leam._optional import pd
from captum_leam._text import printable
from captum_leam.plots import COLOURS, POSITIVE
from captum_leam.regions.region_plots import COLOURS as LIFT_COLOURS
from captum_leam.regions.region_plots import lift_drawing
from captum_leam.regions.scheme import RegionScheme
from captum_leam.regions.template import STANDARD_SIZE, template_outlines
from captum_leam.reporting.figure_style import INK, LINE, NOTE, PAPER, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar

WIDTH = 3.7
"""Width of a panel in inches, 355 CSS pixels, which a phone shows without shrinking."""

MAP_COLOUR, OTHER_COLOUR = COLOURS[:2]
MATRIX = "Blues"  # values differ in lightness only, so that they are readable without colour vision
CONTROL_STYLES = (
    (COLOURS[1], "s", (0, (4, 1.5))),
    (COLOURS[2], "D", (0, (1, 1))),
    (COLOURS[3], "^", (0, (5, 1, 1, 1))),
    (COLOURS[4], "v", (0, (2, 1))),
    (NOTE, "P", (0, (6, 2))),
    (COLOURS[5], "X", (0, (1, 2))),
)


def short(text: object, length: int = 24) -> str:
    """Return text of at most ``length`` characters, with an ellipsis in its middle.

    Args:
        text: Text.
        length: Largest number of characters. Default: 24.
    """
    whole = printable(text)
    if len(whole) <= length:
        return whole
    return whole[: length // 2] + "…" + whole[len(whole) - (length - 1) // 2 :]


def humanise(region: object) -> str:
    """Return the name of a region without underscores.

    Example:
        >>> humanise("upper_lip")
        'upper lip'
    """
    return printable(region).replace("_", " ")


# -- verification --------------------------------------------------------------------------------------


@styled
def cosine_histogram(bins: pd.DataFrame, threshold: float, label: str) -> Figure:
    """Draw histograms of cosines with a threshold.

    Args:
        bins: Bins, columns kind, low, high and share; each kind has its colour.
        threshold: Threshold of the cosine; NaN for none.
        label: Label of the threshold.
    """
    figure, axes = _panel(1.9)
    for i, (kind, part) in enumerate(bins.groupby("kind", sort=False)):
        colour, dashes = ((MAP_COLOUR, "-"), (OTHER_COLOUR, (0, (3, 1))))[i % 2]
        edges = [*part["low"], part["high"].iloc[-1]]
        axes.stairs(100 * part["share"], edges, fill=True, color=colour, alpha=0.35, label=str(kind))
        axes.stairs(100 * part["share"], edges, color=colour, linestyle=dashes, linewidth=1.2)
    if np.isfinite(threshold):
        axes.axvline(threshold, color=INK, linewidth=1, linestyle=(0, (3, 2)))
        side, room = ("left", 4) if threshold < sum(axes.get_xlim()) / 2 else ("right", -4)
        place: Any = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "xytext": (room, 0)}
        axes.annotate(f"{label}\ncosine {threshold:.2f}", (threshold, 1.0), ha=side, va="top", fontsize=7.5, **place)
        axes.margins(y=0.35)
    axes.set_ylim(bottom=0)
    axes.set(xlabel="cosine", ylabel="share, %")
    if bins["kind"].nunique() > 1:
        figure.legend(loc="outside upper left", ncols=2)
    return figure


# -- person-specific -----------------------------------------------------------------------------------


@styled
def above_controls(patterns: pd.DataFrame) -> Figure:
    """Draw the gap above the strongest control with its interval, a row for each model.

    Args:
        patterns: Columns model, above_control, above_low and above_high.
    """
    figure, axes, rows = _row_panel(patterns["model"], 0.42 if len(patterns) < 5 else 0.3, 0.75)
    _whiskers(axes, patterns, rows, ("above_control", "above_low", "above_high"), marker="o", markersize=7)
    for y, gap in zip(rows, patterns["above_control"], strict=True):
        if np.isfinite(gap):
            place: Any = {"textcoords": "offset points", "xytext": (0, 6), "ha": "center"}
            axes.annotate(f"{gap:.2f}", (gap, y), fontsize=8.5, fontweight="bold", **place)
    axes.axvline(0, color=NOTE, linewidth=1)
    low, high = axes.get_xlim()
    room = 0.08 * (max(high, 0) - min(low, 0))
    axes.set_xlim(min(low, -room), max(high, room))
    axes.set_xlabel("gap above control")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    return figure


@styled
def gaps(patterns: pd.DataFrame, controls: Sequence[str]) -> Figure:
    """Draw the gaps of the map and of each control of one model, a row for each layer.

    Args:
        patterns: Columns layer, control, gap, gap_low and gap_high.
        controls: Names of the controls.
    """
    layers = list(dict.fromkeys(patterns["layer"]))
    figure, axes, rows = _row_panel(layers, 0.34, 1.1 + 0.18 * -(-(len(controls) + 1) // 3), length=18)
    for control, (colour, marker, _) in _styles(controls).items():
        part = patterns[patterns["control"] == control]
        y = rows[[layers.index(layer) for layer in part["layer"]]] + (0.14 if control else -0.14)
        look = {"marker": marker, "markersize": 4 if control else 6, "label": control or "LEAM"}
        _whiskers(axes, part, y, ("gap", "gap_low", "gap_high"), colour, **look)
    axes.axvline(0, color=NOTE, linewidth=1)
    axes.set_xlabel("gap of the coefficient, same − different")
    figure.legend(loc="outside lower center", ncols=3, columnspacing=1.2, handletextpad=0.3)
    return figure


@styled
def paper_bands(patterns: pd.DataFrame, same: tuple[float, float], different: tuple[float, float]) -> Figure:
    """Draw the overlaps of same and different people of each model over the ranges that the paper reports.

    Args:
        patterns: Columns model, same, different, and the ends of their intervals.
        same: Range of the paper for the same person.
        different: Range of the paper for different people.
    """
    figure, axes, rows = _row_panel(patterns["model"], 0.36, 1.2)
    for name, band, colour, marker in (("same", same, MAP_COLOUR, "o"), ("different", different, OTHER_COLOUR, "s")):
        axes.axvspan(*band, color=colour, alpha=0.13, linewidth=0)
        look = {"marker": marker, "markersize": 6, "label": f"{name}, ours"}
        _whiskers(axes, patterns, rows, (name, f"{name}_low", f"{name}_high"), colour, **look)
    axes.set_xlim(0, max(same[1], _largest(patterns[["same", "same_high"]])) + 0.05)
    axes.set_xlabel("Bhattacharyya coefficient; bands: as reported")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


# -- regions -------------------------------------------------------------------------------------------


@styled
def region_shares(summary: pd.DataFrame, regions: Sequence[str]) -> Figure:
    """Draw the shares of regions as bars with intervals, the area as a tick, and the lift beside them.

    Args:
        summary: Columns region, quantity, mean, low and high.
        regions: Regions to draw, in order.
    """
    wide = {name: part.set_index("region").reindex(list(regions)) for name, part in summary.groupby("quantity")}
    share, area, lift = wide["share"], wide["area"], wide["lift"]
    figure = Figure(figsize=(WIDTH, 0.26 * len(regions) + 0.8), layout="constrained")
    bars, lifts = figure.subplots(1, 2, sharey=True, width_ratios=[1.5, 1])
    rows = _rows(bars, [short(humanise(region), 16) for region in regions])
    bars.barh(rows, 100 * share["mean"], height=0.62, color=MAP_COLOUR, alpha=0.8)
    bars.hlines(rows, 100 * share["low"], 100 * share["high"], color=INK, linewidth=1)
    bars.plot(100 * area["mean"], rows, "|", color=OTHER_COLOUR, markersize=10, markeredgewidth=2)
    bars.set_xlim(left=0)
    bars.set_xlabel("share, %  (| area)")
    is_positive = (lift["mean"] > 0).to_numpy()
    positive = lift[is_positive].assign(low=lambda table: table["low"].clip(lower=0.02))
    _whiskers(lifts, positive, rows[is_positive], ("mean", "low", "high"), marker="o", markersize=4)
    lifts.set_xscale("log")
    lifts.set_xlim(0.05, max(20.0, 1.3 * _largest(lift[["mean", "high"]])))
    lifts.set_xticks((0.1, 1, 10), ["0.1", "1", "10"])
    lifts.minorticks_off()
    lifts.axvline(1, color=NOTE, linewidth=1)
    lifts.set_xlabel("lift (1: chance)")
    return figure


@styled
def among_others(table: pd.DataFrame) -> Figure:
    """Draw the shares of one person as dots over the range of all people.

    Args:
        table: Columns region, person, median, low and high.
    """
    figure, axes, rows = _row_panel(map(humanise, table["region"]), 0.26, 0.7, length=16)
    axes.hlines(rows, 100 * table["low"], 100 * table["high"], color=LINE, linewidth=6)
    axes.plot(100 * table["median"], rows, "|", color=NOTE, markersize=9, markeredgewidth=1.5)
    axes.plot(100 * table["person"], rows, "o", color=MAP_COLOUR, markersize=6, clip_on=False, zorder=3)
    axes.set_xlim(left=0)
    axes.set_xlabel("share of the critical pixels, %")
    return figure


@styled
def lift_face(lifts: pd.DataFrame, scheme: RegionScheme | None = None) -> Figure:
    """Draw the lift of regions on the face of :func:`~captum_leam.regions.lift_drawing`.

    Args:
        lifts: Columns region and lift.
        scheme: Scheme of the regions, which defines left and right. Default: left and right of the image.
    """
    readable = lifts.assign(region=[printable(region) for region in lifts["region"]])
    figure = lift_drawing(readable, scheme, min_listed_lift=0.0 if scheme else 1.0)
    figure.set_size_inches(WIDTH, 0.92 * WIDTH)
    face, bar = figure.axes
    bar.tick_params(labelcolor=NOTE, color=LINE)
    for label in (bar.yaxis.label, face.xaxis.label):
        label.set_color(NOTE)
    return figure


@styled
def lift_by_layer(lifts: pd.DataFrame) -> Figure:
    """Draw the lift of regions (index) by layer (columns), in logarithmic colours around 1."""
    values = lifts.rename(index=humanise).rename_axis(index=None, columns=None).clip(lower=1 / 8)
    texts = lifts.map(lambda v: "–" if not np.isfinite(v) else f"{v:.{int(v < 9.95)}f}")
    size = 7.5 if lifts.size <= 160 else 0
    norm, height = LogNorm(1 / 8, 8, clip=True), 0.3 * len(lifts) + 1.25
    figure, bar = _heat_map(values, texts, LIFT_COLOURS, norm, height, size)
    bar.set_ticks([1 / 8, 1, 8], labels=["⅛", "1", "8"])
    bar.ax.minorticks_off()
    bar.set_label("lift; 1 is chance")
    return figure


@styled
def mean_maps(maps: Mapping[str, NDArray[Any]]) -> Figure:
    """Draw mean maps with the outlines of the template, which shows no person.

    Args:
        maps: Layer → map, shape (H, W); each is scaled by its maximum.
    """
    columns = min(3, len(maps))
    size = (WIDTH * columns / 3, 1.36 * -(-len(maps) // columns)) if len(maps) > 1 else (0.6 * WIDTH, 0.6 * WIDTH)
    figure = Figure(figsize=(size[0], size[1] + 0.35), layout="constrained")
    axes = figure.subplots(-(-len(maps) // columns), columns, squeeze=False)
    extent = (-0.5, STANDARD_SIZE[1] - 0.5, STANDARD_SIZE[0] - 0.5, -0.5)
    outlines = [
        outline for _, outline, is_clipped in template_outlines() if not is_clipped
    ]  # clipped outlines continue beyond the face
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, (layer, values) in zip(axes.flat, maps.items(), strict=False):
        scaled = np.asarray(values, dtype=np.float64) / (max(values.max(), 0) or 1)
        axis.imshow(scaled, cmap=POSITIVE, vmin=0, vmax=1, interpolation="none", extent=extent)
        for outline in outlines:
            axis.plot(*np.vstack([outline, outline[:1]]).T, color="white", linewidth=0.5, alpha=0.6)
        axis.set(xlim=extent[:2], ylim=extent[2:])
        axis.set_title(short(layer, 16), fontsize=8)
    colours = ScalarMappable(Normalize(0, 1), POSITIVE)
    bar = figure.colorbar(colours, ax=axes.ravel().tolist(), location="bottom", aspect=30, pad=0.02, shrink=0.8)
    bar.set_ticks([0, 1], labels=["0", "maximum"])
    bar.ax.tick_params(labelsize=7, labelcolor=NOTE, color=LINE)
    bar.outline.set_visible(False)
    return figure


def shares_of_ninths(maps: Mapping[tuple[str, str], NDArray[Any]]) -> pd.DataFrame:
    """Return the share of each ninth of maps, which summarises a map in nine numbers.

    Args:
        maps: Model and layer → map, shape (H, W).
    """
    rows = []
    for place, values in maps.items():
        thirds = np.array_split(np.asarray(values, dtype=np.float64), 3)
        cells = np.array([part.sum() for third in thirds for part in np.array_split(third, 3, axis=1)])
        rows.append((*place, *(cells / max(cells.sum(), 1e-12)).tolist()))
    ninths = [f"{v} {h}" for v in ("top", "middle", "bottom") for h in ("left", "middle", "right")]
    return pd.DataFrame(rows, columns=["model", "layer", *ninths])


# -- faithfulness --------------------------------------------------------------------------------------


@styled
def drop_curves(summary: pd.DataFrame, controls: Sequence[str]) -> Figure:
    """Draw the mean drops of the map and of controls against the fraction of occluded pixels, with bands.

    Args:
        summary: Columns control (empty for the map), fraction, drop, low and high.
        controls: Names of the controls.
    """
    figure, axes = _panel(2.3 + 0.18 * -(-(len(controls) + 1) // 2))
    for control, (colour, marker, dashes) in _styles(controls).items():
        part = summary[summary["control"] == control].sort_values("fraction")
        if len(part):
            percent = 100 * part["fraction"]
            axes.fill_between(percent, part["low"], part["high"], color=colour, alpha=0.13, linewidth=0)
            look: dict[str, Any] = {"color": colour, "linestyle": dashes, "linewidth": 1.2 if control else 2}
            axes.plot(percent, part["drop"], marker=marker, markersize=4, label=control or "LEAM", **look)
    axes.grid(axis="y")
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    axes.set_xlim(left=0)
    axes.set(xlabel="pixels occluded, %", ylabel="mean fall of the cosine")
    figure.legend(loc="outside lower center", ncols=2, columnspacing=1.2)
    return figure


@styled
def margin_falls(summary: pd.DataFrame, falls: pd.DataFrame) -> Figure:
    """Draw the fall of the margin for the map and its controls.

    Args:
        summary: Means with intervals, columns control, value, low and high.
        falls: Falls of single probes, columns control and fall.
    """
    figure, axes, rows = _row_panel(summary["control"], 0.3, 0.7)
    axes.axvline(0, color=NOTE, linewidth=1)
    _whiskers(axes, summary, rows, ("value", "low", "high"), marker="o", markersize=5.5)
    of_row = dict(zip(summary["control"], rows, strict=True))
    axes.plot(falls["fall"], falls["control"].map(of_row) + 0.22, ".", color=OTHER_COLOUR, markersize=3)
    axes.set_xlabel("fall of the margin")
    return figure


@styled
def matrix(values: pd.DataFrame, label: str, *, digits: int = 2, limits: tuple[float, float] | None = None) -> Figure:
    """Draw a heat map with its numbers, up to 12 × 12 of them.

    Args:
        values: Values by row and column.
        label: Label of the colour bar.
        digits: Decimals of the numbers. Default: 2.
        limits: Values at which colours end. Default: 0, or the smallest value below it, and the largest value.
    """
    finite = values.to_numpy()[np.isfinite(values)]
    low, high = limits or (min(0.0, float(finite.min(initial=0))), float(finite.max(initial=0)))
    norm = Normalize(low, low + (high - low or 1) / 0.85)  # the darkest blues would hide the numbers
    texts = values.map(lambda v: f"{v:.{digits}f}".replace("-", "−") if np.isfinite(v) else "")
    size = 0 if values.size > 144 else 9 if len(values) < 6 else 7
    height = min((0.36 if len(values) > 4 else 0.42) * len(values) + 1.0, WIDTH)
    figure, bar = _heat_map(values, texts, MATRIX, norm, height, size)
    bar.ax.set_ylim(low, high if high > low else low + 1)
    bar.set_label(label)
    return figure


@styled
def dendrogram(values: pd.DataFrame) -> Figure:
    """Draw the average linkage of 1 − agreement.

    Args:
        values: Symmetric agreement in [0, 1] of three rows or more.
    """
    from scipy.cluster.hierarchy import dendrogram as draw
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import squareform

    distances = np.array(1 - values.to_numpy(dtype=np.float64))
    np.fill_diagonal(distances, 0)
    tree, labels = linkage(squareform(distances, checks=False), "average"), [short(m, 18) for m in values.index]
    figure, axes = _panel(0.26 * len(values) + 0.8)
    draw(tree, orientation="left", labels=labels, ax=axes, color_threshold=0, above_threshold_color=MAP_COLOUR)
    axes.spines[["left"]].set_visible(False)
    axes.tick_params(axis="y", labelsize=8)
    axes.set_xlabel("1 − agreement, average linkage")
    return figure


# -- groups --------------------------------------------------------------------------------------------


@styled
def differences(groups: pd.DataFrame) -> Figure:
    """Draw differences between groups with intervals, filled where the corrected p is below 0.05.

    Args:
        groups: Columns name, difference, low, high and p_holm.
    """
    figure, axes, rows = _row_panel(groups["name"], 0.26, 0.7, length=30)
    axes.axvline(0, color=NOTE, linewidth=1)
    axes.hlines(rows, groups["low"], groups["high"], color=MAP_COLOUR, linewidth=1.5)
    is_significant = (groups["p_holm"] < 0.05).to_numpy()
    for mask, face in ((is_significant, MAP_COLOUR), (~is_significant, PAPER)):
        look: dict[str, Any] = {"markersize": 5.5, "markerfacecolor": face, "markeredgecolor": MAP_COLOUR}
        axes.plot(groups["difference"][mask], rows[mask], "o", **look)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("difference, with interval")
    return figure


# -- shared --------------------------------------------------------------------------------------------


def _styles(controls: Sequence[str]) -> dict[str, tuple[str, str, Any]]:
    """Return colour, marker and dashes of each control and, last, of the map."""
    styles = {control: CONTROL_STYLES[i % len(CONTROL_STYLES)] for i, control in enumerate(controls)}
    return {**styles, "": (MAP_COLOUR, "o", "-")}


def _panel(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def _row_panel(
    labels: Iterable[object], row: float, rest: float, length: int = 24
) -> tuple[Figure, Axes, NDArray[np.intp]]:
    """Return a panel with a labelled row for each label; ``row`` and ``rest`` are heights in inches."""
    texts = [short(label, length) for label in labels]
    figure, axes = _panel(row * len(texts) + rest)
    return figure, axes, _rows(axes, texts)


def _rows(axes: Axes, labels: Sequence[str]) -> NDArray[np.intp]:
    """Label rows from the top down, and return their positions."""
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.spines[["left"]].set_visible(False)
    axes.grid(axis="x")
    return np.arange(len(labels))


def _whiskers(
    axes: Axes, table: pd.DataFrame, y: Any, columns: tuple[str, str, str], colour: str = MAP_COLOUR, **look: Any
) -> None:
    """Draw a value and its interval in each row."""
    value, low, high = columns
    axes.hlines(y, table[low], table[high], color=colour, linewidth=1.6)
    axes.plot(table[value], y, linestyle="none", color=colour, **look)


def _heat_map(
    values: pd.DataFrame, texts: pd.DataFrame, colours: str, norm: Any, height: float, size: float
) -> tuple[Figure, Colorbar]:
    """Draw values as colours with a text in each cell (size 0: no texts), and return the figure and its colour bar."""
    from matplotlib import colormaps

    figure, axes = _panel(height)
    numbers = np.ma.masked_invalid(values.to_numpy(dtype=np.float64))
    image = axes.imshow(numbers, cmap=colours, norm=norm, aspect="auto", interpolation="none")
    masked = np.ma.getmaskarray(numbers)
    shades = colormaps[colours](norm(numbers))[..., :3] @ (0.3, 0.59, 0.11)
    for (y, x), text in np.ndenumerate(texts.to_numpy()) if size else ():
        ink = NOTE if masked[y, x] else "black" if shades[y, x] > 0.5 else "white"
        axes.text(x, y, text, ha="center", va="center", fontsize=size, color=ink)
    labels = [short(column, 14) for column in values.columns]
    is_long = max(map(len, labels), default=0) * len(labels) > 34
    axes.set_xticks(range(len(labels)), labels, rotation=40 if is_long else 0, ha="right" if is_long else "center")
    axes.set_yticks(range(len(values)), [short(row, 14) for row in values.index])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlabel=values.columns.name or "", ylabel=values.index.name or "")
    bar = figure.colorbar(image, ax=axes, aspect=25, pad=0.03)
    bar.ax.tick_params(labelsize=7, labelcolor=NOTE, color=LINE)
    bar.outline.set_visible(False)
    return figure, bar


def _largest(values: pd.DataFrame) -> float:
    """Return the largest known number; 0 without any."""
    return float(np.nan_to_num(values.to_numpy(dtype=np.float64), nan=0.0).max(initial=0.0))
