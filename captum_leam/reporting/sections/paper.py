"""The paper's figures beside this study's."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from captum_leam.reporting import figures
from captum_leam.reporting.findings import Findings
from captum_leam.reporting.sections.words import PANELS, critical, place_of
from captum_leam.reporting.study_page import Block, Plate, Section, Show, draw, number, percent, sheet

SAME, DIFFERENT = (0.32, 0.57), (0.04, 0.13)

NOTE = (
    "As reported in the abstract: other data (1000 people), other networks (9), another parser, and choices that are not public. "
    "The figures are anchors for the order of magnitude; agreement would not show that the method is the same, nor disagreement that one "
    "is wrong."
)


def anchors(study: Findings, folder: Path) -> Section:
    """The paper's figures beside this study's."""
    table = study.leam()
    table = table[table["layer"] == study.place]
    frame = pd.DataFrame(_rows(study, table), columns=["finding", "paper", "here"])
    columns = [Show("finding", "finding"), Show("paper", "paper"), Show("here", "this study")]
    blocks: list[Block] = [sheet("", frame, columns)]
    if len(table):
        blocks.append(draw(_bands(study, table), folder))
    return Section("anchors", "Beside the paper", NOTE, blocks)


def _rows(study: Findings, table: pd.DataFrame) -> list[tuple[str, str, str]]:
    groups = "see groups" if len(study["groups"]) else "no labels"
    return [
        ("overlap of maps, same person", "0.32 to 0.57", _span(table["same"])),
        ("overlap of maps, different people", "0.04 to 0.13", _span(table["different"])),
        ("nose among the critical regions", "18.9 to 29.7 %", _nose(study)),
        ("fall of the cosine after the top 1 %, other networks", "0.1148", _one_percent(study, "")),
        ("the same, random positions", "0.0286", _one_percent(study, "random")),
        ("layers of one network", "vary strongly", _pairs(study, "layers")),
        ("networks, overall maps", "similar regions", _pairs(study, "models")),
        ("groups", "occlusions more effective on images of women", groups),
    ]


def _bands(study: Findings, table: pd.DataFrame) -> Plate:
    figure = figures.anchor_bands(table.head(2 * PANELS), SAME, DIFFERENT)
    caption = f"Overlap of maps, {place_of(study)}, {critical(table)}. Bands are the paper’s ranges over its networks."
    numbers = table[["model", "same", "same_low", "same_high", "different", "different_low", "different_high"]]
    alt = "coefficients beside the paper's ranges"
    return Plate("anchors", "Same and different people", [("", figure)], alt, caption, numbers)


def _span(values: pd.Series, how: Callable[[float], str] = number) -> str:
    known = values[np.isfinite(values)]
    if not len(known):
        return "not measured"
    low, high = how(known.min()), how(known.max())
    return low if low == high else f"{low.removesuffix(chr(160) + '%')} to {high}"


def _nose(study: Findings) -> str:
    table = study["region_summary"]
    chosen = table[(table["region"] == "nose") & (table["layer"] == study.place) & (table["quantity"] == "share")]
    return _span(chosen["mean"], lambda v: percent(v, 1))


def _one_percent(study: Findings, control: str) -> str:
    table = study["drop_summary"]
    table = table[np.isclose(table["fraction"], 0.01)]
    if control:
        chosen = table[table["control"].str.startswith(control)]
    else:
        chosen = table[
            (table["control"] == "") & (table["layer"] == study.place) & (table["explained"] != table["measured"])
        ]
    found = [
        f"{_span(part['drop'], lambda v: number(v, 4))} ({fill})" for fill, part in chosen.groupby("fill", sort=False)
    ]
    return ", ".join(found) or "not measured"


def _pairs(study: Findings, what: str) -> str:
    table = study["agreement"]
    chosen = table[(table["what"] == what) & (table["kind"] == "maps")]
    return f"agree at {_span(chosen['value'])}; chance {_span(chosen['chance'])}" if len(chosen) else "not measured"
