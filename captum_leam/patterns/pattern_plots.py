"""Plot the results of this package in the colours of :mod:`captum_leam.plots`."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from captum_leam.controls import CONTROL_NAMES
from captum_leam.plots import COLOURS, POSITIVE, tidy

SAME, DIFFERENT = COLOURS[0], COLOURS[1]


def specificity_figure(result: Any) -> Figure:
    """Plot the shares of pairs by coefficient, with same, different and AUC and their intervals in the legend.

    Args:
        result: Result of type :class:`captum_leam.patterns.Specificity`.
    """
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    curve, table = result.curve, result.table.set_index("quantity")
    wide = curve.groupby(np.arange(len(curve)) // 4).agg(
        {"low": "first", "high": "last", "same": "sum", "different": "sum"}
    )
    edges = [*wide["low"], 1.0]
    for name, colour in (("different", DIFFERENT), ("same", SAME)):
        mean = table.loc[name]
        label = f"{'one person' if name == 'same' else 'two people'}: {mean['value']:.2f} [{mean['low']:.2f}, {mean['high']:.2f}]"
        axes.stairs(100 * wide[name], edges, fill=True, alpha=0.35, color=colour)
        axes.stairs(100 * wide[name], edges, color=colour, linewidth=1.2, label=label)
        axes.axvline(mean["value"], color=colour, linewidth=1, linestyle="--")
    auc = table.loc["auc"]
    axes.legend(title=f"AUC {auc['value']:.3f} [{auc['low']:.3f}, {auc['high']:.3f}]", frameon=False, fontsize=9)
    axes.set_xlabel("Bhattacharyya coefficient of two maps")
    axes.set_ylabel("pairs, %")
    axes.set_xlim(0, 1)
    tidy(axes)
    return figure


def claim_figure(result: Any) -> Figure:
    """Plot the gap of the maps and of each control, from different people to the same person.

    Args:
        result: Result of type :class:`captum_leam.patterns.PatternClaim`.
    """
    table = result.table.iloc[::-1]
    figure = Figure(figsize=(7.2, 0.45 * len(table) + 1.4), layout="constrained")
    axes = figure.subplots()
    for i, row in enumerate(table.to_dict("records")):
        axes.plot([row["different"], row["same"]], [i, i], color="0.6", linewidth=2, zorder=1)
        axes.plot(row["different"], i, "o", color=DIFFERENT, label="two people" if not i else None)
        axes.plot(row["same"], i, "s", color=SAME, label="one person" if not i else None)
        text = f"gap {row['gap']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
        axes.annotate(text, (1.0, i), xycoords=("axes fraction", "data"), fontsize=8, va="center")
    axes.set_yticks(range(len(table)), [CONTROL_NAMES.get(name, name) for name in table["name"]])
    axes.set_xlim(left=0)
    axes.set_ylim(-0.6, len(table) - 0.4)
    axes.set_xlabel(
        f"Bhattacharyya coefficient; above {result.strongest}: {result.headline:.2f} [{result.low:.2f}, {result.high:.2f}]"
    )
    axes.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0)
    tidy(axes)
    return figure


def agreement_figure(result: Any) -> Figure:
    """Plot the agreement as a heat map, similar sets adjacent, with the tree of the clustering above.

    Args:
        result: Result of type :class:`captum_leam.patterns.Agreement`.
    """
    from scipy.cluster.hierarchy import dendrogram

    order = result.order
    matrix = result.matrix().loc[order, order].to_numpy()
    side = max(3.6, 0.55 * len(order) + 2)
    figure = Figure(figsize=(side + 1, side + 1.2), layout="constrained")
    tree, axes = figure.subplots(2, 1, height_ratios=[1, 4])
    dendrogram(result.linkage, ax=tree, no_labels=True, color_threshold=0, above_threshold_color="0.3")
    tree.set_ylabel("√(1 − agreement)", fontsize=8)
    tree.spines["bottom"].set_visible(False)
    tidy(tree)
    picture = axes.imshow(matrix, cmap=POSITIVE, vmin=0, vmax=1, aspect="auto")
    for (i, j), value in np.ndenumerate(matrix):
        axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=8, color="black" if value > 0.6 else "white")
    axes.set_xticks(range(len(order)), order, rotation=45, ha="right")
    axes.set_yticks(range(len(order)), order)
    axes.tick_params(labelsize=8)
    chance = result.table["chance"].mean()
    figure.colorbar(picture, ax=axes, shrink=0.8, label=f"mean coefficient of one image's maps (chance {chance:.2f})")
    return figure


def groups_figure(result: Any) -> Figure:
    """Plot the differences of groups with intervals, beside the difference in base similarity.

    Args:
        result: Result of type :class:`captum_leam.patterns.GroupComparison`.
    """
    table = result.table[result.table["refused"] == ""].iloc[::-1]
    figure = Figure(figsize=(9, 0.4 * max(1, len(table)) + 1.4), layout="constrained")
    axes, base = figure.subplots(1, 2, width_ratios=[3, 2])
    at = np.arange(len(table))
    for axis, name, column, colour in ((axes, "difference", "", SAME), (base, "base_difference", "base_", DIFFERENT)):
        value, low, high = (table[c].to_numpy() for c in (name, f"{column}low", f"{column}high"))
        axis.hlines(at, low, high, color=colour)
        axis.plot(value, at, "o", color=colour)
        axis.axvline(0, color="0.5", linewidth=1, linestyle=":")
        axis.set_ylim(-0.6, len(table) - 0.4)
        axis.locator_params(axis="x", nbins=5)
        tidy(axis)
    rows = table.to_dict("records")
    axes.set_yticks(at, [f"{r['quantity']}: {r['first']} − {r['second']} (p {r['p_holm']:.2g})" for r in rows])
    base.set_yticks(at, [])
    axes.set_xlabel("difference of means over people", fontsize=9)
    base.set_xlabel("difference in base similarity", fontsize=9)
    return figure
