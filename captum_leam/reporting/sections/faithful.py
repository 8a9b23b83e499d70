"""Are the maps true? Drops beside controls, differences with intervals, and transfer between networks."""

from pathlib import Path

import numpy as np
import pandas as pd

from captum_leam.reporting import figures
from captum_leam.reporting.findings import Findings
from captum_leam.reporting.sections.words import PANELS, controls_text, place_of
from captum_leam.reporting.study_page import (
    Block,
    Note,
    Plate,
    Section,
    Sheet,
    Show,
    draw,
    number,
    p_value,
    percent,
    sheet,
)

LEAD = (
    "If a map is true, hiding what it names first makes the network less sure that it is this person: more than hiding the same amount "
    "elsewhere."
)
CELL = ["explained", "measured", "method", "control", "fill", "fraction", "drop", "low", "high", "images", "people"]


def faithful(study: Findings, compared: pd.DataFrame, folder: Path) -> Section:
    """Drops beside controls, differences with intervals, and transfer between models."""
    if not len(study["drop_summary"]):
        return Section("true", "Are the maps true?", "", [Note("Nothing was occluded.")])
    blocks: list[Block] = [draw(_drops(study), folder)]
    if len(compared):
        blocks.append(_against_controls(study, compared))
    else:
        blocks.append(Note("No controls were run: a fall of the cosine alone says little.", "note"))
    blocks += _layer_drops(study)
    blocks += _transfer(study, folder)
    return Section("true", "Are the maps true?", LEAD, blocks)


def _drops(study: Findings) -> Plate:
    table = study["drop_summary"]
    own = table[(table["measured"] == table["explained"]) & (table["layer"] == study.place) | (table["method"] == "")]
    own = own[own["fill"] == study.fill]
    controls = [c for c in dict.fromkeys(own["control"]) if c]
    panels = [(model, figures.drop_curves(own[own["measured"] == model], controls)) for model in study.explained]
    caption = (
        f"{place_of(study).capitalize()}, {study.fill} fill, the explained network itself. Bands are intervals over "
        f"people. {controls_text(controls)}"
    )
    if fills := [fill for fill in dict.fromkeys(table["fill"]) if fill != study.fill]:
        caption += f" Other fills ({', '.join(fills)}) are in tables/drop_summary.parquet."
    return Plate("drops", "Fall of the cosine", panels[:PANELS], "mean drop by fraction occluded", caption, own[CELL])


def _against_controls(study: Findings, compared: pd.DataFrame) -> Sheet:
    columns = [
        Show("explained", "network"),
        Show("control", "control"),
        Show("map", "map", lambda v: number(v, 3)),
        Show("other", "control’s", lambda v: number(v, 3)),
        Show("difference", "difference", lambda v: number(v, 3), ("low", "high"), 3),
        Show("p_holm", "p (Holm)", p_value),
    ]
    return sheet(f"Map against control at {percent(study.fraction)}, image by image", compared, columns)


def _layer_drops(study: Findings) -> list[Block]:
    table = study["drop_summary"]
    chosen = table[(table["explained"] == table["measured"]) & (table["control"] == "") & (table["fill"] == study.fill)]
    chosen = chosen[np.isclose(chosen["fraction"], study.fraction)]
    if chosen["layer"].nunique() < 2:
        return []
    columns = [
        Show("explained", "network"),
        Show("layer", "layer"),
        Show("drop", "drop", lambda v: number(v, 3), ("low", "high"), 3),
    ]
    return [sheet(f"All layers at {percent(study.fraction)}", chosen, columns, closed=True)]


def _transfer(study: Findings, folder: Path) -> list[Block]:
    table = study["drop_summary"]
    chosen = table[(table["control"] == "") & (table["layer"] == study.place) & (table["fill"] == study.fill)]
    fractions = sorted({min(chosen["fraction"], default=study.fraction), study.fraction})
    panels = []
    for fraction in fractions:
        of_fraction = chosen[np.isclose(chosen["fraction"], fraction)]
        wide = of_fraction.pivot_table(index="explained", columns="measured", values="drop", sort=False)
        if len(wide) >= 2:
            drawn = figures.matrix(wide, rows="explained", columns="measured", digits=3)
            panels.append((f"top {percent(fraction)}", drawn))
    if not panels:
        return []
    caption = (
        f"Mean drop when pixels named by one network’s map are hidden from another, {study.fill} fill. The diagonal is the network itself."
        f"{_beside_random(study, fractions)}"
    )
    numbers = chosen[["explained", "measured", "fraction", "drop", "low", "high"]]
    title, alt = "Does it transfer to other networks?", "drops by explained and measured network"
    return [draw(Plate("transfer", title, panels, alt, caption, numbers), folder)]


def _beside_random(study: Findings, fractions: list[float]) -> str:
    table = study["drop_summary"]
    random = table[table["control"].str.startswith("random") & (table["fill"] == study.fill)]
    means = random.groupby("fraction")["drop"].mean()
    beside = [f"{number(means[f], 3)} at {percent(f)}" for f in fractions if f in means.index]
    return f" Random pixels: {', '.join(beside)}." if beside else ""
