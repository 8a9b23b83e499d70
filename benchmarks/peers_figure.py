"""Faithfulness against cost: a point for every method, the Pareto front, labels that do not cover each other."""

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from contest import CHOSEN, OWN
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from peers_measures import ALL

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
    """Return network, method, family, passes per image and drop (grey faces, blur, own network, chosen reading)."""
    own = (table["measure"] == "drop") & (table["where"] == OWN) & (table["fill"] == "blur") & (table["view"] == CHOSEN)
    own &= (table["faces"] == "faces") & (table["fraction"] == fraction) & (table["network"] != ALL)
    drop = table[own].set_index(["network", "method", "family"])["value"]
    counted = table[table["measure"].isin(["forwards", "backwards"])]
    counted = counted.drop_duplicates(["network", "method", "measure"])
    passes = counted.groupby(["network", "method"])["value"].sum()
    return drop.rename("drop").reset_index().merge(passes.rename("passes").reset_index(), "left")


def pareto(found: pd.DataFrame) -> pd.DataFrame:
    """The points that no cheaper one reaches."""
    ordered = found.sort_values(["passes", "drop"], ascending=[True, False])
    return ordered[ordered["drop"] > ordered["drop"].cummax().shift(fill_value=-np.inf)]


def figure(table: pd.DataFrame) -> Figure:
    """A panel for each network; the limit and the controls, which explain nothing, are lines."""
    every = points(table)
    panels = list(every.groupby("network", sort=False))
    fig, axes = plt.subplots(len(panels), 1, figsize=(12.5, 8.5 * len(panels)), squeeze=False)
    fig.subplots_adjust(left=0.06, right=0.83, top=0.97, bottom=0.04, hspace=0.14)
    for axis, (name, found) in zip(axes[:, 0], panels, strict=True):
        shown = found[found["family"].isin(STYLES)].sort_values("drop", ascending=False)
        for family, (colour, marker) in STYLES.items():
            part = shown[shown["family"] == family]
            if len(part):
                label = NAMES.get(family, family)
                axis.scatter(part["passes"], part["drop"], c=colour, marker=marker, s=26, zorder=3, label=label)
        front = pareto(shown)
        axis.step(front["passes"], front["drop"], where="post", color="0.3", linewidth=1, label="Pareto front")
        axis.set(
            xscale="log", xlabel="forward and backward passes per image (counted)", title=f"network {name} explained"
        )
        axis.set_ylabel("fall of the cosine, top 5 % of the pixels blurred")
        axis.set_xlim(shown["passes"].min() / 3, shown["passes"].max() * 4)
        axis.set_ylim(-0.02, 1.12 * shown["drop"].max())
        axis.spines[["top", "right"]].set_visible(False)
        _lines(axis, found[~found["family"].isin(STYLES)])
        axis.legend(fontsize=8, frameon=False, loc="upper left")  # few passes reach little: that corner is free
        _label(axis, shown, front)
    return fig


def _lines(axis: Axes, lines: pd.DataFrame) -> None:
    """Dotted lines named at the right, names apart from each other; the limit above the axis is named with its value."""
    top = axis.get_ylim()[1]
    lowest = np.inf
    for _, line in lines.sort_values("drop", ascending=False).iterrows():
        limit, beyond = line["family"] == "limit", line["drop"] > top
        name = line["method"].replace("control: ", "").replace(" of other people", "\nof other people")
        if not beyond:
            axis.axhline(line["drop"], color="0.2" if limit else "0.7", linewidth=0.9, linestyle="--" if limit else ":")
        height = min(min(line["drop"], top), lowest - 0.035 * top)
        lowest = height
        text = f"{name}: {line['drop']:.2f}" + (" ↑" if beyond else "")
        place = {"xycoords": ("axes fraction", "data"), "xytext": (4, 0), "textcoords": "offset points"}
        axis.annotate(text, (1.0, height), fontsize=7.5, color="0.35", va="center", **place)


def _label(axis: Axes, shown: pd.DataFrame, front: pd.DataFrame) -> None:
    """A label beside every point, at the nearest place where it covers neither a point nor another label."""
    renderer = axis.figure.canvas.get_renderer()  # type: ignore[attr-defined]
    frame, to_points = axis.get_window_extent(renderer), 72 / axis.figure.dpi
    dots = axis.transData.transform(shown[["passes", "drop"]].to_numpy())
    taken = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in dots]
    corners = axis.transData.transform(front[["passes", "drop"]].to_numpy())
    for (x, y), (right, top) in pairwise(corners):  # the steps of the front
        taken += [Bbox.from_extents(x, y - 1, right, y + 1), Bbox.from_extents(right - 1, y, right + 1, top)]
    for (x, y), row in zip(dots, shown.itertuples(index=False), strict=True):
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
    """Where to move a box so that it lies inside the frame and covers nothing; the last place tried if there is none."""
    for shift in _shifts(box.width):
        moved = box.translated(*shift)
        inside = frame.x0 <= moved.x0 and moved.x1 <= frame.x1 and frame.y0 <= moved.y0 and moved.y1 <= frame.y1
        if inside and not any(moved.padded(1).overlaps(other) for other in taken):
            break
    return shift


def _shifts(width: float) -> list[tuple[float, float]]:
    """Places of a label in pixels from its point, best first: right of it, left of it, then further away."""
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
