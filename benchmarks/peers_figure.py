"""Faithfulness against cost: a point for every method, the Pareto front, labels that do not cover each other."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from captum_leam.plots import COLOURS

STYLES = {
    "LEAM": (COLOURS[1], "D"),
    "peer": (COLOURS[0], "o"),
    "Captum": (COLOURS[2], "s"),
    "pytorch-grad-cam": (COLOURS[3], "^"),
    "torch-cam": (COLOURS[4], "v"),
}
NAMES = {"peer": "captum_leam.explainers", "Captum": "Captum, EmbeddingSimilarity"}
FRACTION = 0.05


def points(table: pd.DataFrame, fraction: float = FRACTION) -> pd.DataFrame:
    """Network, method, family, passes per image, drop (blur, own network, maps as they are)."""
    own = (table["measure"] == "drop") & (table["where"] == "own") & (table["fill"] == "blur") & (table["smooth"] == 0)
    drop = table[own & (table["fraction"] == fraction)].set_index(["network", "method", "family"])["value"]
    passes = table[table["measure"].isin(["forwards", "backwards"])].groupby(["network", "method"])["value"].sum()
    return drop.rename("drop").reset_index().merge(passes.rename("passes").reset_index(), "left")


def pareto(found: pd.DataFrame) -> pd.DataFrame:
    """The points that no cheaper one reaches."""
    ordered = found.sort_values(["passes", "drop"], ascending=[True, False])
    return ordered[ordered["drop"] > ordered["drop"].cummax().shift(fill_value=-np.inf)]


def figure(table: pd.DataFrame) -> Figure:
    """A panel for each network; the limit and the controls, which explain nothing, are lines."""
    every = points(table)
    panels = list(every.groupby("network", sort=False))
    fig, axes = plt.subplots(len(panels), 1, figsize=(11.5, 9.2 * len(panels)), squeeze=False, layout="constrained")
    for axis, (name, found) in zip(axes[:, 0], panels, strict=True):
        shown = found[found["family"].isin(STYLES)]
        _lines(axis, found)
        front = pareto(shown)
        axis.step(front["passes"], front["drop"], where="post", color="0.3", linewidth=1, label="Pareto front")
        for family, (colour, marker) in STYLES.items():
            part = shown[shown["family"] == family]
            if len(part):
                axis.scatter(
                    part["passes"],
                    part["drop"],
                    c=colour,
                    marker=marker,
                    s=26,
                    zorder=3,
                    label=NAMES.get(family, family),
                )
        axis.set(
            xscale="log", xlabel="forward and backward passes per image (counted)", title=f"network {name} explained"
        )
        axis.set_ylabel("fall of the cosine, top 5 % of the pixels blurred")
        axis.set_xlim(shown["passes"].min() / 1.5, shown["passes"].max() * 4)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    fig.canvas.draw()  # places are known from here on
    for axis, (_, found) in zip(axes[:, 0], panels, strict=True):
        shown = found[found["family"].isin(STYLES)].sort_values("drop", ascending=False)
        _label(axis, shown)
    return fig


def _lines(axis: Axes, found: pd.DataFrame) -> None:
    for _, line in found[~found["family"].isin(STYLES)].iterrows():
        limit = line["family"] == "limit"
        axis.axhline(line["drop"], color="0.2" if limit else "0.7", linewidth=0.9, linestyle="--" if limit else ":")
        name = line["method"].replace("control: ", "")
        axis.annotate(
            name,
            (1.0, line["drop"]),
            xycoords=("axes fraction", "data"),
            fontsize=7,
            color="0.35",
            va="center",
            xytext=(3, 0),
            textcoords="offset points",
        )


def _label(axis: Axes, shown: pd.DataFrame) -> None:
    """A label beside every point, at the nearest place where it covers neither a point nor another label."""
    renderer = axis.figure.canvas.get_renderer()  # type: ignore[attr-defined]
    frame = axis.get_window_extent(renderer)
    dots = axis.transData.transform(shown[["passes", "drop"]].to_numpy())
    taken = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in dots]
    for (x, y), (method, family) in zip(dots, shown[["method", "family"]].itertuples(index=False), strict=True):
        text = axis.annotate(
            _short(method),
            (x, y),
            xycoords="figure pixels",
            xytext=(x, y),
            textcoords="figure pixels",
            fontsize=7,
            color=STYLES[family][0],
            va="center",
            arrowprops={"arrowstyle": "-", "color": "0.75", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2},
        )
        box = text.get_window_extent(renderer)
        for shift in _shifts():
            moved = box.translated(*shift)
            inside = frame.x0 <= moved.x0 and moved.x1 <= frame.x1 and frame.y0 <= moved.y0 and moved.y1 <= frame.y1
            if inside and not any(moved.padded(1).overlaps(other) for other in taken):
                break
        text.xyann = (x + shift[0], y + shift[1])
        taken.append(box.translated(*shift))


def _shifts() -> list[tuple[float, float]]:
    """Offsets in pixels, nearest first; to the right of the point before anything else."""
    every = [(dx, dy) for dx in range(-220, 420, 12) for dy in range(-260, 261, 6) if dx >= 8 or dx <= -100]
    return sorted(every, key=lambda d: np.hypot(d[0] if d[0] > 0 else 1.5 * d[0], 1.6 * d[1]))


def _short(method: str) -> str:
    packages = method.replace(" (pytorch-grad-cam)", "").replace(" (torch-cam)", "")
    return packages.replace(" layer", "").replace("Integrated", "Int.").replace("Gradients", "Grad.")
