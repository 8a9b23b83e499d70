"""Drawings of a study's report: tables in, matplotlib figures out; one panel is as wide as a phone.

Markers and dashes tell the same things apart without colour.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from captum_leam._text import shown
from captum_leam.plots import COLOURS, POSITIVE
from captum_leam.regions.region_plots import COLOURS as LIFT_COLOURS
from captum_leam.regions.region_plots import lift_drawing
from captum_leam.regions.template import STANDARD_SIZE, shapes
from captum_leam.reporting.style import INK, LINE, NOTE, PAPER, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]

WIDTH = 3.7
"""Of a panel in inches: 355 CSS pixels, what a phone shows without shrinking."""

MAP_COLOUR = COLOURS[0]
MATRIX = "Blues"  # one hue: lightness alone tells values apart
CONTROL_STYLES = (
    (COLOURS[1], "s", (0, (4, 1.5))),
    (COLOURS[2], "D", (0, (1, 1))),
    (COLOURS[3], "^", (0, (5, 1, 1, 1))),
    (COLOURS[4], "v", (0, (2, 1))),
    (NOTE, "P", (0, (6, 2))),
    (COLOURS[5], "X", (0, (1, 2))),
)


def short(text: object, length: int = 24) -> str:
    """Text of at most ``length`` characters, cut in the middle.

    Example:
        >>> short("a_very_long_name_of_a_network", 12)
        'a_very…twork'
    """
    whole = shown(text)
    if len(whole) <= length:
        return whole
    return whole[: length // 2] + "…" + whole[len(whole) - (length - 1) // 2 :]


def spoken(region: object) -> str:
    """Name of a region in words.

    Example:
        >>> spoken("upper_lip")
        'upper lip'
    """
    return shown(region).replace("_", " ")


def control_styles(controls: Sequence[str]) -> dict[str, tuple[str, str, Any]]:
    """Colour, marker and dashes of every control: the same in all panels of a drawing."""
    return {control: CONTROL_STYLES[i % len(CONTROL_STYLES)] for i, control in enumerate(controls)}


# -- verification --------------------------------------------------------------------------------------


@styled
def cosine_histogram(bins: pd.DataFrame, threshold: float, said: str) -> Figure:
    """Shares of the cosines in every bin, one colour and outline for each kind, with a threshold.

    Args:
        bins: kind, low, high, share.
        threshold: a cosine, or NaN.
        said: of the threshold, in words.
    """
    figure, axes = _panel(1.9)
    for i, (kind, part) in enumerate(bins.groupby("kind", sort=False)):
        colour, dashes = ((MAP_COLOUR, "-"), (COLOURS[1], (0, (3, 1))))[i % 2]
        edges = [*part["low"], part["high"].iloc[-1]]
        axes.stairs(100 * part["share"], edges, fill=True, color=colour, alpha=0.35, label=str(kind))
        axes.stairs(100 * part["share"], edges, color=colour, linestyle=dashes, linewidth=1.2)
    if np.isfinite(threshold):
        axes.axvline(threshold, color=INK, linewidth=1, linestyle=(0, (3, 2)))
        right = threshold < sum(axes.get_xlim()) / 2  # where there is room for it
        axes.annotate(
            f"{said}\ncosine {threshold:.2f}",
            (threshold, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(4 if right else -4, 0),
            textcoords="offset points",
            ha="left" if right else "right",
            va="top",
            fontsize=7.5,
        )
        axes.margins(y=0.35)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("cosine")
    axes.set_ylabel("%")
    if bins["kind"].nunique() > 1:
        figure.legend(loc="outside upper left", ncols=2)
    return figure


# -- person-specific -----------------------------------------------------------------------------------


@styled
def above_controls(patterns: pd.DataFrame) -> Figure:
    """Gap above the strongest control with its interval, a row for every model: the headline.

    Args:
        patterns: LEAM rows of one layer and kind: model, strongest, above_control, above_low, above_high.
    """
    figure, axes = _panel((0.42 if len(patterns) < 5 else 0.3) * len(patterns) + 0.75)
    where = _rows(axes, [short(m) for m in patterns["model"]])
    _whiskers(axes, patterns, where, "above_control", "above_low", "above_high", MAP_COLOUR, "o", size=7)
    for y, row in zip(where, patterns.to_dict("records"), strict=True):
        if np.isfinite(row["above_control"]):
            axes.annotate(
                f"{row['above_control']:.2f}",
                (row["above_control"], y),
                xytext=(0, 6),
                textcoords="offset points",
                ha="center",
                fontsize=8.5,
                fontweight="bold",
            )
    axes.axvline(0, color=NOTE, linewidth=1)
    axes.set_xlim(*_reaching_zero(axes))
    axes.set_xlabel("gap above control")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    return figure


@styled
def gaps(patterns: pd.DataFrame, controls: Sequence[str]) -> Figure:
    """Gap between same and different people, a row for every layer: the map, and every control beside it.

    Args:
        patterns: of one model and kind: layer, control, gap, gap_low, gap_high.
        controls: in the order of their styles.
    """
    layers = list(dict.fromkeys(patterns["layer"]))
    figure, axes = _panel(0.34 * len(layers) + 1.1 + 0.18 * -(-(len(controls) + 1) // 3))
    where = dict(zip(layers, _rows(axes, [short(layer, 18) for layer in layers]), strict=True))
    for control, (colour, marker, _) in control_styles(controls).items():
        part = patterns[patterns["control"] == control]
        y = np.array([where[layer] for layer in part["layer"]]) + 0.14
        _whiskers(axes, part, y, "gap", "gap_low", "gap_high", colour, marker, size=4, label=control)
    part = patterns[patterns["control"] == ""]
    y = np.array([where[layer] for layer in part["layer"]]) - 0.14
    _whiskers(axes, part, y, "gap", "gap_low", "gap_high", MAP_COLOUR, "o", size=6, label="LEAM")
    axes.axvline(0, color=NOTE, linewidth=1)
    axes.set_xlabel("gap of the coefficient, same − different")
    figure.legend(loc="outside lower center", ncols=3, columnspacing=1.2, handletextpad=0.3)
    return figure


@styled
def anchor_bands(patterns: pd.DataFrame, same: tuple[float, float], different: tuple[float, float]) -> Figure:
    """Coefficients of same and different people of every model, over the ranges that the paper reports.

    Args:
        patterns: LEAM rows of one layer and kind, with same and different and their intervals.
        same: the paper's range.
        different: the paper's range.
    """
    figure, axes = _panel(0.36 * len(patterns) + 1.2)
    where = _rows(axes, [short(m) for m in patterns["model"]])
    for (low, high), colour in ((same, MAP_COLOUR), (different, COLOURS[1])):
        axes.axvspan(low, high, color=colour, alpha=0.13, linewidth=0)
    for name, colour, marker in (("same", MAP_COLOUR, "o"), ("different", COLOURS[1], "s")):
        _whiskers(
            axes, patterns, where, name, f"{name}_low", f"{name}_high", colour, marker, size=6, label=f"{name}, ours"
        )
    axes.set_xlim(0, max(same[1], _largest(patterns[["same", "same_high"]])) + 0.05)
    axes.set_xlabel("Bhattacharyya coefficient; bands: as reported")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


# -- regions -------------------------------------------------------------------------------------------


@styled
def region_shares(summary: pd.DataFrame, regions: Sequence[str]) -> Figure:
    """Share of the critical pixels as bars with intervals, the area that chance would give as a tick, and lift beside it.

    Args:
        summary: of one model and layer: region, quantity, mean, low, high.
        regions: rows, from the top down.
    """
    wide = {
        name: part.set_index("region").reindex(list(regions)) for name, part in summary.groupby("quantity", sort=False)
    }
    figure = Figure(figsize=(WIDTH, 0.26 * len(regions) + 0.8), layout="constrained")
    bars, lifts = figure.subplots(1, 2, sharey=True, width_ratios=[1.5, 1])
    where = _rows(bars, [short(spoken(r), 16) for r in regions])
    share, area, lift = wide["share"], wide["area"], wide["lift"]
    bars.barh(where, 100 * share["mean"], height=0.62, color=MAP_COLOUR, alpha=0.8)
    bars.hlines(where, 100 * share["low"], 100 * share["high"], color=INK, linewidth=1)
    bars.plot(100 * area["mean"], where, "|", color=COLOURS[1], markersize=10, markeredgewidth=2)
    bars.set_xlabel("share, %  (| area)")
    positive = lift[lift["mean"] > 0]
    y = np.asarray(where)[(lift["mean"] > 0).to_numpy()]
    lifts.hlines(y, positive["low"].clip(lower=0.02), positive["high"], color=MAP_COLOUR, linewidth=1.5)
    lifts.plot(positive["mean"], y, "o", color=MAP_COLOUR, markersize=4)
    lifts.set_xscale("log")
    lifts.set_xlim(0.05, max(20.0, 1.3 * _largest(lift[["mean", "high"]])))
    ticks = (0.1, 1, 10)
    lifts.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    lifts.minorticks_off()
    lifts.axvline(1, color=NOTE, linewidth=1)
    lifts.set_xlabel("lift (1: chance)")
    bars.set_xlim(left=0)
    return figure


@styled
def among_others(table: pd.DataFrame) -> Figure:
    """One person's numbers as dots over the range of everybody's.

    Args:
        table: region, person, median, low, high.
    """
    figure, axes = _panel(0.26 * len(table) + 0.7)
    where = _rows(axes, [short(spoken(r), 16) for r in table["region"]])
    axes.hlines(where, 100 * table["low"], 100 * table["high"], color=LINE, linewidth=6)
    axes.plot(100 * table["median"], where, "|", color=NOTE, markersize=9, markeredgewidth=1.5)
    axes.plot(100 * table["person"], where, "o", color=MAP_COLOUR, markersize=6, clip_on=False, zorder=3)
    axes.set_xlabel("share of the critical pixels, %")
    axes.set_xlim(left=0)
    return figure


@styled
def lift_face(lifts: pd.DataFrame) -> Figure:
    """Draw the face of :func:`~captum_leam.regions.lift_drawing` at the size of a panel.

    Args:
        lifts: region and lift, means over people.
    """
    figure = lift_drawing(lifts.assign(region=[shown(region) for region in lifts["region"]]), listed=1.0)
    figure.set_size_inches(WIDTH, 0.92 * WIDTH)
    bar = figure.axes[1]
    bar.yaxis.label.set_color(NOTE)
    bar.tick_params(labelcolor=NOTE, color=LINE)
    figure.axes[0].xaxis.label.set_color(NOTE)
    return figure


@styled
def lift_by_layer(lifts: pd.DataFrame) -> Figure:
    """Draw the lift of regions (rows) by layer (columns), logarithmic colours around chance.

    Args:
        lifts: Lifts, an index of regions, columns of layers.
    """
    from matplotlib.colors import LogNorm

    values = lifts.to_numpy(dtype=np.float64)
    colours = np.ma.masked_invalid(np.maximum(values, 1 / 8))
    texts = np.vectorize(lambda v: "–" if not np.isfinite(v) else f"{v:.{int(v < 9.95)}f}", otypes=[str])(values)
    figure, axes = _panel(0.3 * len(lifts) + 1.25)
    size = 7.5 if lifts.size <= 160 else 0
    _heat_map(axes, colours, texts, LIFT_COLOURS, LogNorm(1 / 8, 8, clip=True), size)
    _grid_labels(axes, [short(spoken(r), 14) for r in lifts.index], [short(c, 14) for c in lifts.columns])
    return figure


@styled
def mean_maps(maps: Mapping[str, NDArray[Any]]) -> Figure:
    """Mean maps over all people with the template's outlines: no person is shown.

    Args:
        maps: layer → (H, W).
    """
    columns = min(3, len(maps))
    rows = -(-len(maps) // columns)
    width = WIDTH * columns / 3 if len(maps) > 1 else 0.6 * WIDTH
    figure = Figure(figsize=(width, 1.36 * rows if len(maps) > 1 else width), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, (layer, values) in zip(axes.flat, maps.items(), strict=False):
        _map_with_outlines(axis, np.asarray(values, dtype=np.float64))
        if layer:
            axis.set_title(short(layer, 16), fontsize=8)
    return figure


def _map_with_outlines(axis: "Axes", values: Floats) -> None:
    top = values.max()
    extent = (-0.5, STANDARD_SIZE[1] - 0.5, STANDARD_SIZE[0] - 0.5, -0.5)
    axis.imshow(values / top if top > 0 else values, cmap=POSITIVE, vmin=0, vmax=1, interpolation="none", extent=extent)
    for _, outline, inside in shapes():
        if not inside:  # cheeks and chin have edges that only a parser needs
            axis.plot(*np.vstack([outline, outline[:1]]).T, color="white", linewidth=0.5, alpha=0.6)
    axis.set(xlim=extent[:2], ylim=extent[2:])


def shares_of_ninths(maps: Mapping[Any, NDArray[Any]], index: Sequence[str]) -> pd.DataFrame:
    """Return the share of each ninth of every map: a map in few numbers.

    Args:
        maps: Maps, (H, W), by a tuple of the values of the index.
        index: Names of the first columns.

    Example:
        >>> shares_of_ninths({("a",): np.eye(3)}, ["model"]).iloc[0, :4].tolist()
        ['a', 0.333..., 0.0, 0.0]
    """
    ninths = [f"{v} {h}" for v in ("top", "middle", "bottom") for h in ("left", "middle", "right")]
    rows = []
    for key, values in maps.items():
        thirds = np.array_split(np.asarray(values, dtype=np.float64), 3)
        cells = np.array([part.sum() for third in thirds for part in np.array_split(third, 3, axis=1)])
        rows.append((*key, *(cells / max(cells.sum(), 1e-12)).tolist()))
    return pd.DataFrame(rows, columns=[*index, *ninths])


# -- faithfulness --------------------------------------------------------------------------------------


@styled
def drop_curves(summary: pd.DataFrame, controls: Sequence[str]) -> Figure:
    """Mean drop against the fraction occluded: the map in blue with its band, controls beside it.

    Args:
        summary: of one explained and measured model, one fill: control, fraction, drop, low, high.
        controls: in the order of their styles.
    """
    figure, axes = _panel(2.3 + 0.18 * -(-(len(controls) + 1) // 2))
    styles = {**control_styles(controls), "": (MAP_COLOUR, "o", "-")}
    for control, (colour, marker, dashes) in styles.items():
        part = summary[summary["control"] == control].sort_values("fraction")
        if not len(part):
            continue
        percent = 100 * part["fraction"]
        width = 2 if not control else 1.2
        axes.fill_between(percent, part["low"], part["high"], color=colour, alpha=0.13, linewidth=0)
        axes.plot(
            percent,
            part["drop"],
            color=colour,
            linestyle=dashes,
            marker=marker,
            markersize=4,
            linewidth=width,
            label=control or "LEAM",
        )
    axes.grid(axis="y")
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    axes.set_xlim(left=0)
    axes.set_xlabel("pixels occluded, %")
    axes.set_ylabel("mean fall of the cosine")
    figure.legend(loc="outside lower center", ncols=2, columnspacing=1.2)
    return figure


@styled
def matrix(
    values: pd.DataFrame,
    *,
    rows: str = "",
    columns: str = "",
    digits: int = 2,
    limits: tuple[float, float] | None = None,
) -> Figure:
    """Draw a heat map with its numbers.

    Args:
        values: index and columns are the labels.
        rows: what the rows are, written at the side.
        columns: what the columns are, written below.
        digits: of the numbers, which are left out over 12 × 12.
        limits: of the colours; from 0 to the largest value by default.
    """
    from matplotlib.colors import Normalize

    side = (0.36 if len(values) > 4 else 0.42) * len(values)
    figure, axes = _panel(min(side + 1.0, WIDTH))
    numbers = values.to_numpy(dtype=np.float64)
    finite = numbers[np.isfinite(numbers)]
    low, high = limits or (min(0.0, float(finite.min(initial=0))), float(finite.max(initial=0)))
    norm = Normalize(low, low + (high - low or 1) / 0.85)  # the darkest blues hide the numbers' edges
    texts = np.vectorize(lambda v: f"{v:.{digits}f}".replace("-", "−") if np.isfinite(v) else "", otypes=[str])(numbers)
    size = 0 if values.size > 144 else 9 if len(values) < 6 else 7
    _heat_map(axes, np.ma.masked_invalid(numbers), texts, MATRIX, norm, size)
    _grid_labels(axes, [short(r, 14) for r in values.index], [short(c, 14) for c in values.columns])
    axes.set_xlabel(columns)
    axes.set_ylabel(rows)
    return figure


@styled
def dendrogram(values: pd.DataFrame) -> Figure:
    """Average linkage of 1 − agreement.

    Args:
        values: symmetric, agreement in [0, 1]; three or more rows.
    """
    from scipy.cluster.hierarchy import dendrogram as draw
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import squareform

    distances = np.array(1 - values.to_numpy(dtype=np.float64))
    np.fill_diagonal(distances, 0)
    tree = linkage(squareform(distances, checks=False), "average")
    figure, axes = _panel(0.26 * len(values) + 0.8)
    draw(
        tree,
        orientation="left",
        labels=[short(m, 18) for m in values.index],
        ax=axes,
        color_threshold=0,
        above_threshold_color=MAP_COLOUR,
    )
    axes.spines[["left"]].set_visible(False)
    axes.tick_params(axis="y", labelsize=8)
    axes.set_xlabel("1 − agreement, average linkage")
    return figure


# -- groups --------------------------------------------------------------------------------------------


@styled
def differences(groups: pd.DataFrame) -> Figure:
    """Differences between groups with intervals; filled where Holm's p is under 0.05.

    Args:
        groups: of one kind of quantity: name (of the row), difference, low, high, p_holm.
    """
    figure, axes = _panel(0.26 * len(groups) + 0.7)
    where = np.asarray(_rows(axes, [short(name, 30) for name in groups["name"]]))
    axes.axvline(0, color=NOTE, linewidth=1)
    axes.hlines(where, groups["low"], groups["high"], color=MAP_COLOUR, linewidth=1.5)
    found = (groups["p_holm"] < 0.05).to_numpy()
    for chosen, face in ((found, MAP_COLOUR), (~found, PAPER)):
        axes.plot(
            groups["difference"][chosen],
            where[chosen],
            "o",
            markersize=5.5,
            markerfacecolor=face,
            markeredgecolor=MAP_COLOUR,
        )
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("difference, with interval")
    return figure


# -- shared --------------------------------------------------------------------------------------------


def _panel(height: float) -> "tuple[Figure, Axes]":
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def _rows(axes: "Axes", labels: Sequence[str]) -> list[int]:
    """Rows from the top down; their labels at the left."""
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.spines[["left"]].set_visible(False)
    axes.grid(axis="x")
    return list(range(len(labels)))


def _whiskers(
    axes: "Axes",
    table: pd.DataFrame,
    where: Any,
    value: str,
    low: str,
    high: str,
    colour: str,
    marker: str,
    *,
    size: float,
    label: str | None = None,
) -> None:
    axes.hlines(where, table[low], table[high], color=colour, linewidth=1.6)
    axes.plot(table[value], where, marker, color=colour, markersize=size, label=label)


def _heat_map(
    axes: "Axes", values: "np.ma.MaskedArray[Any, Any]", texts: NDArray[Any], colours: str, norm: Any, size: float
) -> None:
    """Draw values as colours with a text in every cell, black or white; size 0: none."""
    from matplotlib import colormaps

    axes.imshow(values, cmap=colours, norm=norm, aspect="auto", interpolation="none")
    masked = np.ma.getmaskarray(values)
    shades = colormaps[colours](norm(values))[..., :3] @ (0.3, 0.59, 0.11)
    for (y, x), text in np.ndenumerate(texts):
        if size:
            ink = "black" if shades[y, x] > 0.5 or masked[y, x] else "white"
            axes.text(x, y, text, ha="center", va="center", fontsize=size, color=ink)


def _largest(values: pd.DataFrame) -> float:
    """Return the largest number that is known; 0 where none is."""
    return float(np.nan_to_num(values.to_numpy(dtype=np.float64), nan=0.0).max(initial=0.0))


def _reaching_zero(axes: "Axes") -> tuple[float, float]:
    low, high = axes.get_xlim()
    room = 0.08 * (max(high, 0) - min(low, 0))
    return min(low, -room), max(high, room)


def _grid_labels(axes: "Axes", rows: Sequence[str], columns: Sequence[str]) -> None:
    long = max((len(c) for c in columns), default=0) * len(columns) > 34
    axes.set_xticks(range(len(columns)), columns, rotation=40 if long else 0, ha="right" if long else "center")
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
