"""Person-specific? Same and different people, the map beside its controls, for every layer."""

from pathlib import Path

import pandas as pd

from captum_leam.reporting import figures
from captum_leam.reporting.findings import Findings
from captum_leam.reporting.sections.words import PANELS, by_model, controls_text, critical
from captum_leam.reporting.study_page import Block, Note, Plate, Section, Sheet, Show, draw, number, p_value, sheet

LEAD = (
    "Two maps overlap by their Bhattacharyya coefficient (0: nowhere, 1: the same map). If maps are about the person, two images of one "
    "person give a larger one than images of two people. Any picture of a face does that to some degree, so the gap counts only above the "
    "controls."
)
OTHER_KINDS = {
    "dense": "The whole map instead of its top",
    "regions": "Profiles over regions instead of maps",
}


def specific(study: Findings, folder: Path) -> Section:
    """Same and different people, map beside controls, for every layer."""
    table = study.leam(control=None)
    if not len(table):
        return Section("specific", "Person-specific?", "", [Note("The study compared no maps of people.")])
    every = study.leam()
    at_place = every[every["layer"] == study.place]
    blocks: list[Block] = [draw(_gaps(table), folder), comparison_sheet("In numbers", at_place)]
    if every["layer"].nunique() > 1:
        blocks.append(comparison_sheet("All layers in numbers", every, closed=True))
    for kind, title in OTHER_KINDS.items():
        if len(other := study.leam(kind)):
            blocks.append(comparison_sheet(title, other[other["layer"] == study.place], closed=True))
    return Section("specific", "Person-specific?", LEAD, blocks)


def _gaps(table: pd.DataFrame) -> Plate:
    controls = [c for c in dict.fromkeys(table["control"]) if c]
    panels = [(model, figures.gaps(part, controls)) for model, part in by_model(table)]
    caption = f"Gap between same and different people, {critical(table)}; lines are intervals over people. {controls_text(controls)}"
    columns = ["model", "layer", "control", "same", "different", "gap", "gap_low", "gap_high"]
    alt = "gap between same and different people"
    return Plate("gaps", "Map and controls, by layer", panels[:PANELS], alt, caption, table[columns])


def comparison_sheet(title: str, table: pd.DataFrame, *, closed: bool = False) -> Sheet:
    """Same, different, above control, AUC and p of every network (and layer)."""
    columns = [
        Show("model", "network"),
        Show("layer", "layer"),
        Show("same", "same", number, ("same_low", "same_high")),
        Show("different", "different", number, ("different_low", "different_high")),
        Show("above_control", "above control", number, ("above_low", "above_high")),
        Show("strongest", "strongest control"),
        Show("auc", "AUC", number, ("auc_low", "auc_high")),
        Show("p", "p", p_value),
    ]
    return sheet(title, table, columns, closed=closed)
