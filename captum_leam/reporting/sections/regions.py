"""Regions: lift on a drawn face, shares with intervals, lift by layer, mean maps."""

from pathlib import Path

import pandas as pd

from captum_leam.reporting import figures
from captum_leam.reporting.findings import Findings
from captum_leam.reporting.sections.words import PANELS, by_model, place_of
from captum_leam.reporting.study_page import Block, Note, Plate, Section, draw

LEAD = "The critical pixels are the top fraction of a map. A region's lift is its share of them over its share of the crop: 1 is chance."
NUMBERS = ["region", "mean", "low", "high", "people"]


def regions(study: Findings, folder: Path) -> Section:
    """Lift on a drawn face, shares with intervals, lift by layer, mean maps."""
    table = study["region_summary"]
    if not len(table):
        return Section("regions", "Regions", "", [Note("The study had no regions.")])
    main = table[table["layer"] == study.place]
    order, where = _order(table, main), place_of(study).capitalize()
    plates = [_on_a_face(main, where), _shares(main, order, where), _by_layer(table, order)]
    blocks: list[Block] = [draw(plate, folder) for plate in plates]
    return Section("regions", "Regions", LEAD, blocks + _mean_maps(study, folder))


def _order(table: pd.DataFrame, main: pd.DataFrame) -> list[str]:
    """The regions that are drawn, those with the highest lift first."""
    lifts = main[main["quantity"] == "lift"].groupby("region", sort=False)["mean"].mean()
    told = notable(table)
    return [str(region) for region in lifts.sort_values(ascending=False, na_position="last").index if region in told]


def _rest(table: pd.DataFrame, order: list[str]) -> str:
    left_out = len(order) < table["region"].nunique()
    return " Regions that are small and hold next to nothing are in the numbers." if left_out else ""


def _on_a_face(main: pd.DataFrame, where: str) -> Plate:
    lifts = main[main["quantity"] == "lift"]
    faces = [
        (model, figures.lift_face(part.rename(columns={"mean": "lift"})[["region", "lift"]]))
        for model, part in by_model(lifts)
    ]
    caption = f"{where}, means over people. Orange regions hold more of the critical pixels than their area, purple ones fewer."
    alt = "lift of every region on a drawing"
    return Plate("lift_face", "Lift on a drawn face", faces[:PANELS], alt, caption, lifts[["model", *NUMBERS]])


def _shares(main: pd.DataFrame, order: list[str], where: str) -> Plate:
    bars = [(model, figures.region_shares(part, order)) for model, part in by_model(main)]
    caption = (
        f"{where}. Lines are intervals over people, each of whom counts once. The orange tick is the region's area: where chance would end "
        f"the bar.{_rest(main, order)}"
    )
    numbers = main[["model", "quantity", *NUMBERS]]
    alt = "share and lift of every region"
    return Plate("regions", "Share of the critical pixels", bars[:PANELS], alt, caption, numbers)


def _by_layer(table: pd.DataFrame, order: list[str]) -> Plate:
    lifts = table[table["quantity"] == "lift"]
    panels = []
    for model, part in by_model(lifts):
        wide = part.pivot_table(index="region", columns="layer", values="mean", sort=False, dropna=False)
        panels.append((model, figures.lift_by_layer(wide.reindex(order))))
    caption = f"Layers from fine to coarse. Colours end at 8 and ⅛.{_rest(table, order)}"
    numbers = lifts[["model", "layer", *NUMBERS]]
    return Plate("regions_by_layer", "Lift by layer", panels[:PANELS], "lift of regions by layer", caption, numbers)


def notable(summary: pd.DataFrame) -> set[str]:
    """Regions that hold 1 % of some map's critical pixels, or 5 % of the crop: the others would only fill the drawings.

    Example:
        >>> rows = [("nose", "share", 0.3), ("nose", "area", 0.03), ("hat", "share", 0.0), ("hat", "area", 0.01)]
        >>> notable(pd.DataFrame(rows, columns=["region", "quantity", "mean"]))
        {'nose'}
    """
    most = summary.groupby(["region", "quantity"], sort=False)["mean"].max().unstack("quantity")
    return set(most.index[(most["share"] >= 0.01) | (most["area"] >= 0.05)]) or set(most.index)


def _mean_maps(study: Findings, folder: Path) -> list[Block]:
    found = {model: maps for model in study.explained[:PANELS] if (maps := study.mean_maps(model))}
    if not found:
        return []
    panels = [(model, figures.mean_maps(maps)) for model, maps in found.items()]
    rows = [(model, layer, *figures.ninths(values)) for model, maps in found.items() for layer, values in maps.items()]
    numbers = pd.DataFrame(rows, columns=["model", "layer", *figures.NINTHS])
    caption = (
        "Mean over all people, each map as bright as its brightest point; lines are the template, not a person. The numbers give the share "
        "of each ninth of the crop."
    )
    return [draw(Plate("mean_maps", "Mean maps", panels, "mean maps by layer", caption, numbers), folder)]
