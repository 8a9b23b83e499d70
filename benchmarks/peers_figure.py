"""Faithfulness against cost: a point for each method, the best at each cost, labels that do not cover each other."""

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from contest import CHOSEN, OWN
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from peers_measures import ALL
from peers_methods import DEFAULT, PRESETS

from captum_leam.plots import COLOURS

STYLES = {
    "LEAM": (COLOURS[1], "D"),
    "peer": (COLOURS[0], "o"),
    "Captum": (COLOURS[2], "s"),
    "pytorch-grad-cam": (COLOURS[3], "^"),
    "torch-cam": (COLOURS[4], "v"),
}
NAMES = {
    "peer": "captum_leam.explainers",
    "Captum": "Captum, EmbeddingSimilarity",
    "pytorch-grad-cam": "pytorch-grad-cam (p)",
    "torch-cam": "torch-cam (t)",
}
FRACTION = 0.05


def points(table: pd.DataFrame, fraction: float = FRACTION) -> pd.DataFrame:
    """Return network, method, family, passes per image and drop (grey faces, blur, own network, chosen reading).

    Rows of :data:`~peers_measures.ALL` have drops in gaps and the mean passes over the networks.
    """
    own = (table["measure"] == "drop") & (table["where"] == OWN) & (table["fill"] == "blur") & (table["view"] == CHOSEN)
    own &= (table["faces"] == "faces") & (table["fraction"] == fraction)
    drop = table[own].set_index(["network", "method", "family"])["value"].rename("drop").reset_index()
    counted = table[table["measure"].isin(["forwards", "backwards"])]
    counted = counted.drop_duplicates(["network", "method", "measure"])
    passes = counted.groupby(["network", "method"])["value"].sum().rename("passes").reset_index()
    average = passes.groupby("method", as_index=False)["passes"].mean().assign(network=ALL)
    return drop.merge(pd.concat([passes, average]), "left")


def pareto(found: pd.DataFrame) -> pd.DataFrame:
    """Return the points that no cheaper one reaches."""
    ordered = found.sort_values(["passes", "drop"], ascending=[True, False])
    return ordered[ordered["drop"] > ordered["drop"].cummax().shift(fill_value=-np.inf)]


def figure(table: pd.DataFrame, network: str = ALL) -> Figure:
    """Return drops against passes; the limit and the controls, which explain nothing, are lines.

    Methods below the strongest control are points without a name, LEAM's presets aside.

    Args:
        table: What peers.py measured.
        network: Network that is explained. Default: the average over networks, in gaps.
    """
    found = points(table)
    found = found[found["network"] == network]
    shown = found[found["family"].isin(STYLES)].sort_values("drop", ascending=False)
    lines = found[~found["family"].isin(STYLES)]
    fig, axis = plt.subplots(figsize=(11, 4.8))
    fig.subplots_adjust(left=0.08, right=0.82, top=0.98, bottom=0.1)
    for family, (colour, marker) in STYLES.items():
        part = shown[shown["family"] == family]
        if len(part):
            label = NAMES.get(family, family)
            axis.scatter(part["passes"], part["drop"], c=colour, marker=marker, s=26, zorder=3, label=label)
    front = pareto(shown)
    axis.step(front["passes"], front["drop"], where="post", color="0.3", linewidth=1, label="best at this cost")
    axis.set(xscale="log", xlabel="forward and backward passes per image (counted)")
    unit = ", in gaps" if network == ALL else ""
    axis.set_ylabel(f"drop of the cosine{unit}, top {FRACTION:.0%} of the pixels blurred".replace("%", " %"))
    axis.set_xlim(shown["passes"].min() / 3, shown["passes"].max() * 4)
    axis.set_ylim(min(-0.03 * shown["drop"].max(), 1.1 * shown["drop"].min()), 1.12 * shown["drop"].max())
    axis.spines[["top", "right"]].set_visible(False)
    _lines(axis, lines)
    axis.legend(fontsize=8, frameon=False, loc="upper left")  # few passes reach little: that corner is free
    strongest = lines.loc[lines["family"] == "control", "drop"].max()
    is_preset = shown["method"].isin([f"LEAM, {preset}" for preset in PRESETS])
    _label(axis, shown, front, named=is_preset | ~(shown["drop"] <= strongest))
    return fig


def _lines(axis: Axes, lines: pd.DataFrame) -> None:
    """Draw dotted lines with their names at the right, apart from each other; a limit above the axis is named with its value."""
    top = axis.get_ylim()[1]
    lowest = np.inf
    for _, line in lines.sort_values("drop", ascending=False).iterrows():
        limit, beyond = line["family"] == "limit", line["drop"] > top
        name = line["method"].replace("control: ", "").replace(f" of other people ({DEFAULT})", "\nof other people")
        if not beyond:
            axis.axhline(line["drop"], color="0.2" if limit else "0.7", linewidth=0.9, linestyle="--" if limit else ":")
        extra = 0.02 * top if "\n" in name else 0
        height = min(min(line["drop"], top), lowest - 0.04 * top - extra)
        lowest = height - extra
        text = f"{name.partition(' (extremal')[0]}: {line['drop']:.2f}" + (" ↑" if beyond else "")
        place = {"xycoords": ("axes fraction", "data"), "xytext": (4, 0), "textcoords": "offset points"}
        axis.annotate(text, (1.0, height), fontsize=7.5, color="0.35", va="center", **place)


def _label(axis: Axes, shown: pd.DataFrame, front: pd.DataFrame, named: "pd.Series[bool]") -> None:
    """Label the named points, each at the nearest place where its label covers neither a point nor another label."""
    renderer = axis.figure.canvas.get_renderer()  # type: ignore[attr-defined]
    frame, to_points = axis.get_window_extent(renderer), 72 / axis.figure.dpi
    dots = axis.transData.transform(shown[["passes", "drop"]].to_numpy())
    taken = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in dots]
    corners = axis.transData.transform(front[["passes", "drop"]].to_numpy())
    for (x, y), (right, top) in pairwise(corners):  # the steps of the front
        taken += [Bbox.from_extents(x, y - 1, right, y + 1), Bbox.from_extents(right - 1, y, right + 1, top)]
    for (x, y), row in zip(dots[named.to_numpy()], shown[named].itertuples(index=False), strict=True):
        style = {"fontsize": 7.5, "color": STYLES["LEAM"][0] if row.family == "LEAM" else "0.2", "va": "center"}
        sized = axis.text(row.passes, row.drop, _short(row.method), **style)
        size = sized.get_window_extent(renderer).size
        sized.remove()
        box = Bbox.from_bounds(x, y - size[1] / 2, *size)  # the text's start at the point
        dx, dy = _first_free(box, frame, taken)
        taken.append(box.translated(dx, dy))
        line = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2}
        line["relpos"] = (0, 0.5) if dx > 0 else (1, 0.5)  # from the end of the text that is nearer
        far = abs(dy) > 8 or dx > 9 or -dx > size[0] + 9
        place = {"xytext": (dx * to_points, dy * to_points), "textcoords": "offset points"}
        axis.annotate(_short(row.method), (row.passes, row.drop), arrowprops=line if far else None, **place, **style)


def _first_free(box: Bbox, frame: Bbox, taken: list[Bbox]) -> tuple[float, float]:
    """Return where to move a box so that it lies inside the frame and covers nothing, or the last place tried."""
    for shift in _shifts(box.width):
        moved = box.translated(*shift)
        inside = frame.x0 <= moved.x0 and moved.x1 <= frame.x1 and frame.y0 <= moved.y0 and moved.y1 <= frame.y1
        if inside and not any(moved.padded(1).overlaps(other) for other in taken):
            break
    return shift


def _shifts(width: float) -> list[tuple[float, float]]:
    """Return places of a label in pixels from its point, best first: right of it, left of it, then further away."""
    sides = ((0, 9, 1), (25, -width - 9, -1))
    every = [
        (further + 2.5 * abs(dy) + cost, start + sign * further, dy)
        for cost, start, sign in sides
        for further in range(0, 400, 10)
        for dy in range(-200, 201, 4)
    ]
    return [(dx, dy) for _, dx, dy in sorted(every)]


def _short(method: str) -> str:
    packages = method.replace("(pytorch-grad-cam)", "(p)").replace("(torch-cam)", "(t)")
    return packages.replace(" layer", "").replace("Integrated", "Int.").replace("Gradients", "Grad.")
