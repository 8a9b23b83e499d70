"""What was studied: people and images, how well the networks tell them apart, groups, and what was left out."""

from pathlib import Path

import numpy as np
import pandas as pd

from captum_leam.reporting import figures
from captum_leam.reporting.findings import Findings
from captum_leam.reporting.sections.words import PANELS, by_model, whole_number
from captum_leam.reporting.study_page import Block, Facts, Note, Plate, Section, Show, draw, number, percent, sheet
from captum_leam.reporting.tables import GROUP_PREFIX

BINS = np.linspace(-1, 1, 41)
FEW = 10
"""Files that are named where the same is said of many; the tables name all."""


def studied(study: Findings, folder: Path) -> Section:
    """People, images, models, how well these tell people apart, and what was left out."""
    used = study["images"][study["images"]["status"] == "ok"]
    blocks: list[Block] = [Facts("", _facts(study, used))]
    blocks.append(sheet("Do the networks tell these people apart?", study["verification"], VERIFICATION))
    blocks += _pairs(study, folder)
    blocks += _to_reference(study, folder)
    blocks += _group_sizes(used)
    blocks += _skipped(study)
    return Section("studied", "What was studied", "", blocks)


def _facts(study: Findings, used: pd.DataFrame) -> list[tuple[str, str]]:
    per = used.groupby("person").size()
    spread = f"{per.min()}" if per.min() == per.max() else f"{per.min()} to {per.max()}, median {per.median():g}"
    facts = [
        ("people", f"{len(per)}"),
        ("images", f"{len(used)} used, {len(study['images']) - len(used)} skipped"),
        ("images of a person", spread),
        ("pictures", ", ".join(f"{n} {kind}s" for kind, n in used["crop"].value_counts(sort=False).items())),
    ]
    several, turned = used[used["faces_found"] > 1], used[used["turn"] > 0]
    if len(several):
        facts.append(("several faces, the largest taken", _first_names(several["path"])))
    if len(turned):
        facts.append(("photographs turned upright", _first_names(turned["path"])))
    return facts


def _first_names(paths: pd.Series) -> str:
    """The first names of a column, and how many more there are."""
    names = [name for name in paths if name]
    more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
    return ", ".join(names[:FEW]) + more


VERIFICATION = (
    Show("model", "network"),
    Show("eer", "equal error rate", lambda v: percent(v, 1)),
    Show("eer_threshold", "at cosine", number),
    Show("tar", "TAR", lambda v: percent(v, 1)),
    Show("fmr", "at FMR", lambda v: f"{v:g}" if np.isfinite(v) else "–"),
    Show("genuine", "genuine pairs", whole_number),
    Show("impostor", "impostor pairs", whole_number),
    Show("images", "images", whole_number),
)


def _pairs(study: Findings, folder: Path) -> list[Block]:
    """Genuine and impostor cosines of every network, counted, with the threshold; of older studies there are none."""
    table = study["cosines"]
    if not len(table):
        return []
    rates = study["verification"].set_index("model")
    panels = []
    for model, part in by_model(table):
        said = f"TAR {percent(rates['tar_1e3'][model], 1)} at FMR 0.001"
        panels.append((model, figures.cosine_histogram(_shares(part), float(rates["threshold_1e3"][model]), said)))
    caption = (
        "Cosines of the pairs of images that verification compared: genuine pairs are of one person, impostor pairs of two people. "
        "The dashed line is the threshold at a false match rate (FMR) of 0.001; TAR, the true accept rate, is the share of genuine pairs "
        "beyond it."
    )
    if rates["threshold_1e3"].isna().any():
        caption += " With fewer than 1000 impostor pairs that rate cannot be measured, and there is no line."
    return [
        draw(Plate("pairs", "Verification", panels[:PANELS], "genuine and impostor cosines", caption, table), folder)
    ]


def _shares(table: pd.DataFrame) -> pd.DataFrame:
    """The bins between the first and the last that hold a pair, with their share of the pairs of their kind."""
    shares = table["pairs"] / table.groupby("kind")["pairs"].transform("sum").clip(lower=1)
    seen = table[table["pairs"] > 0]
    inside = (table["low"] >= seen["low"].min()) & (table["low"] <= seen["low"].max())
    shown: pd.DataFrame = table.assign(share=shares)[inside]
    return shown


def _to_reference(study: Findings, folder: Path) -> list[Block]:
    thresholds = study["verification"].set_index("model")["eer_threshold"]
    bins = [_binned(part["cosine"], model) for model, part in by_model(study["scores"])]
    if not bins:
        return []
    panels = [
        (model, figures.cosine_histogram(table, float(thresholds.get(model, np.nan)), "equal errors"))
        for model, table in zip(study.models, bins, strict=False)
    ]
    caption = (
        "Cosine of every image to its reference, the other images of its person. The dashed line is the threshold at which single pairs of "
        "images are falsely accepted as often as falsely rejected. Images left of it are hardly recognised: their maps explain little."
    )
    numbers = pd.concat(bins, ignore_index=True)
    return [
        draw(
            Plate("cosines", "How sure is the recognition?", panels[:PANELS], "histogram of cosines", caption, numbers),
            folder,
        )
    ]


def _binned(cosines: pd.Series, model: str) -> pd.DataFrame:
    counts, _ = np.histogram(cosines.clip(-1, 1), BINS)
    used = np.flatnonzero(counts)
    keep = slice(used[0], used[-1] + 1) if len(used) else slice(0, 0)
    table = pd.DataFrame({"model": model, "kind": "same person", "low": BINS[:-1], "high": BINS[1:], "images": counts})
    return table.assign(share=counts / max(1, counts.sum()))[keep]


def _group_sizes(used: pd.DataFrame) -> list[Block]:
    labels = [c for c in used.columns if str(c).startswith(GROUP_PREFIX)]
    if not labels:
        return []
    parts = []
    for label in labels:
        counts = (
            used.groupby(label, sort=False)
            .agg(people=("person", "nunique"), images=("image", "size"))
            .reset_index(names="group")
        )
        parts.append(counts.assign(label=str(label).removeprefix(GROUP_PREFIX)))
    columns = [
        Show("label", "label"),
        Show("group", "group"),
        Show("people", "people", whole_number),
        Show("images", "images", whole_number),
    ]
    return [sheet("Groups", pd.concat(parts, ignore_index=True), columns)]


def _skipped(study: Findings) -> list[Block]:
    table = study["skipped"]
    if not len(table):
        return [Note("Nothing was skipped.", "note")]
    same = ["what", "stage", "model", "layer", "reason"]
    counts = (
        table.groupby(same, sort=False)
        .agg(times=("path", "size"), files=("path", _first_names))
        .reset_index()
        .sort_values("times", ascending=False, kind="stable")
    )
    columns = [
        Show("what", "what"),
        Show("times", "times", whole_number),
        Show("stage", "stage"),
        Show("model", "network"),
        Show("layer", "layer"),
        Show("reason", "why"),
        Show("files", "files"),
    ]
    return [sheet("What was skipped, and why", counts, columns)]
