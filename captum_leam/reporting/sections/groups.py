"""Groups of people, always beside their base similarity."""

from pathlib import Path

import numpy as np
import pandas as pd

from captum_leam.reporting import figures
from captum_leam.reporting.findings import Findings
from captum_leam.reporting.study_page import Block, Note, Plate, Section, Show, draw, number, p_value, sheet

MOST = 14
"""Differences in one panel: those with the smallest p."""


def groups(study: Findings, folder: Path) -> Section:
    """Differences between groups, always beside their base similarity."""
    table = study["groups"]
    if not len(table):
        text = "No groups were given. Labels of people go into the configuration or the manifest of images."
        return Section("groups", "Groups", "", [Note(text)])
    lead = (
        "Labels are the user’s. Differences are tested by permuting labels over people and corrected for all comparisons (Holm). Read each "
        "beside the base similarity: where a group is recognised more surely to begin with, its cosine can fall further."
    )
    known = table[np.isfinite(table["difference"])]
    named = known.assign(name=_row_names(known), family=known["quantity"].str.split(" of ").str[0])
    named = named.sort_values("p", kind="stable")
    panels = [
        (f"{family}, a − b", figures.differences(part.head(MOST)))
        for family, part in named.groupby("family", sort=False)
    ]
    blocks: list[Block] = []
    numbers = table.drop(columns=["note"])
    if panels:
        caption = (
            "Filled: p under 0.05 after correction. Lines are intervals over people. At most "
            f"{MOST} of a kind, those with the smallest p; all are in the table."
        )
        blocks.append(
            draw(Plate("groups", "Differences", panels, "differences between groups", caption, numbers), folder)
        )
    blocks += _group_sheets(table)
    return Section("groups", "Groups", lead, blocks)


def _group_sheets(table: pd.DataFrame) -> list[Block]:
    """The comparisons with the smallest p, all of them folded, and those that could not be made with the reason."""
    sides = [
        f"{row['label']}: {row['group_a']} ({row['people_a']}) − {row['group_b']} ({row['people_b']})"
        for row in table.to_dict("records")
    ]
    quantities = [figures.spoken(quantity) for quantity in table["quantity"]]
    ordered = table.assign(groups=sides, quantity=quantities).sort_values(["p_holm", "p"], kind="stable")
    tested = ordered[np.isfinite(ordered["difference"])]
    left = ordered[~np.isfinite(ordered["difference"])]
    columns = [
        Show("groups", "groups (people)"),
        Show("quantity", "quantity"),
        Show("model", "network"),
        Show("difference", "difference", lambda v: number(v, 3), ("low", "high"), 3),
        Show("p_holm", "p (Holm)", p_value),
        Show("base_a", "base of the first", number),
        Show("base_b", "of the second", number),
    ]
    blocks: list[Block] = [sheet("Comparisons with the smallest p", tested.head(MOST), columns)] if len(tested) else []
    if len(tested) > MOST:
        blocks.append(sheet(f"All {len(tested)} comparisons", tested, columns, closed=True))
    if len(left):
        why = [*columns[:3], Show("note", "why")]
        blocks.append(sheet(f"{len(left)} comparisons that could not be made", left, why, closed=True))
    return blocks


def _row_names(table: pd.DataFrame) -> list[str]:
    """What tells the rows of one drawing apart: the region, and network and groups where there are several."""
    several = [column for column in ("label", "model") if table[column].nunique() > 1]
    pairs = len(table[["label", "group_a", "group_b"]].drop_duplicates()) > 1
    names = []
    for row in table.to_dict("records"):
        what = figures.spoken(str(row["quantity"]).partition(" of ")[2])
        parts = [
            what,
            *[str(row[column]) for column in several],
            f"{row['group_a']} − {row['group_b']}" if pairs else "",
        ]
        names.append(" · ".join(part for part in parts if part) or f"{row['group_a']} − {row['group_b']}")
    return names
