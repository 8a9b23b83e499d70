"""Build the sections of a study's page, one function for each section."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from captum_leam._optional import pd
from captum_leam.reporting import figures
from captum_leam.reporting.figures import humanise
from captum_leam.reporting.findings import Findings
from captum_leam.reporting.numbers import (
    listed,
    number,
    p_value,
    percent,
    percent_1,
    significant,
    three_digits,
    whole_number,
)
from captum_leam.reporting.page import Block, Column, Facts, Note, Plate, Points, Section, Sheet, sheet
from captum_leam.reporting.schema import GROUP_PREFIX, OVERALL

MAX_PANELS = 12
"""Largest number of panels of a drawing; further models are in its numbers."""

MAX_NAMES = 10
"""Largest number of files that are named for one reason; the tables name all."""

MAX_COMPARISONS = 14
"""Largest number of comparisons of groups in a panel; those with the smallest p are drawn."""

CONTROLS = {
    "edges": "edges of the image, without a network",
    "untrained": "the same network with random weights",
    "parser": "regions of the face, without a network",
    "pose": "strangers in the same pose instead of the person",
    "random pixels": "as many pixels anywhere in the crop",
    "random face pixels": "as many pixels anywhere in the face",
    "random field": "spots of the same size anywhere",
    "centre": "middle of the crop",
    "moved": "shape of the map elsewhere",
    "other people": "mean map of other people",
}
"""Control → description."""

NETWORK, LAYER, IMAGES = Column("model", "network"), Column("layer"), Column("images", show=whole_number)
DIFFERENCE = Column("difference", "difference", three_digits, ("low", "high"))
P_HOLM = Column("p_holm", "p (Holm)", p_value)
ABOVE_CONTROL = Column("above_control", "above control", number, ("above_low", "above_high"))


# -- shared --------------------------------------------------------------------------------------------


def per_model(
    name: str,
    title: str,
    table: pd.DataFrame,
    draw: Callable[[pd.DataFrame], Figure],
    alt: str,
    caption: str,
    columns: Sequence[str] = (),
    by: str = "model",
) -> Plate:
    """Return a plate with one drawing per model, up to :data:`MAX_PANELS`.

    Args:
        name: Name of the plate's files.
        title: Title of the plate.
        table: Rows to draw, with the model in the column ``by``.
        draw: Function from the rows of one model to a figure.
        alt: Text for readers who cannot see the drawings.
        caption: Text under the drawings.
        columns: Columns of the numbers. Default: all columns.
        by: Column with the model. Default: ``"model"``.
    """
    models = [*dict.fromkeys(table[by])][:MAX_PANELS]
    panels = [(model, draw(table[table[by] == model])) for model in models]
    return Plate(name, title, panels, alt, caption, table[[*columns]] if columns else table)


def place_of(study: Findings) -> str:
    """Return the name of the map whose numbers are shown first."""
    return "overall map" if study.place == OVERALL else f"layer {study.place}"


def critical(patterns: pd.DataFrame) -> str:
    """Return the share of the pixels on which maps are compared, as text."""
    return f"top {percent(patterns['fraction'].min())} of the pixels"


def drop_curves(controls: Sequence[str]) -> Callable[[pd.DataFrame], Figure]:
    """Return :func:`figures.drop_curves` of the map and these controls."""
    return lambda part: figures.drop_curves(part, controls)


def controls_of(table: pd.DataFrame) -> list[str]:
    """Return the controls of a table, in order."""
    return [control for control in dict.fromkeys(table["control"]) if control]


def _controls_text(controls: Sequence[str]) -> str:
    if not controls:
        return "No controls were run."
    return f"Controls are {listed([f'{c} ({CONTROLS[c]})' if c in CONTROLS else c for c in controls])}."


# -- data ----------------------------------------------------------------------------------------------

VERIFICATION = [
    NETWORK,
    Column("eer", "equal error rate", percent_1),
    Column("eer_threshold", "at the cosine", number),
    Column("tar", "TAR", percent_1),
    Column("fmr", "at the FMR", significant),
    Column("genuine", "genuine pairs", whole_number),
    Column("impostor", "impostor pairs", whole_number),
    IMAGES,
]


NOTE_ON_VERIFICATION = (
    "A low equal error rate (50 % is chance) and a high TAR at a low FMR mean that the network recognises these people."
)


def data(study: Findings) -> Section:
    """Return the section of the data: people, images, verification and skipped files."""
    used = study["images"][study["images"]["status"] == "ok"]
    blocks: list[Block] = [Facts("", _sizes(study, used))]
    blocks.append(
        sheet(
            "Do the networks tell these people apart?", study["verification"], VERIFICATION, note=NOTE_ON_VERIFICATION
        )
    )
    blocks += [*_pairs(study), *_to_reference(study), *_group_sizes(used), _skipped(study["skipped"])]
    return Section("data", "Data", "", blocks)


def _sizes(study: Findings, used: pd.DataFrame) -> list[tuple[str, str]]:
    per = used.groupby("person").size()
    spread = f"{per.min()}" if per.min() == per.max() else f"{per.min()} to {per.max()}, median {per.median():g}"
    facts = {
        "people": f"{len(per)}",
        "images": f"{len(used)} used, {len(study['images']) - len(used)} skipped",
        "images per person": spread,
        "pictures": ", ".join(f"{n} {kind}s" for kind, n in used["crop"].value_counts(sort=False).items()),
        "photographs with several faces (the largest was used)": _first_names(
            used.loc[used["faces_found"] > 1, "path"]
        ),
        "photographs that were turned upright": _first_names(used.loc[used["turn"] > 0, "path"]),
    }
    return [(name, value) for name, value in facts.items() if value] + _maps(study)


def _maps(study: Findings) -> list[tuple[str, str]]:
    """Return the settings of the overall map and of the layer maps."""
    of_models = [model.get("maps") for model in study.manifest.get("models", {}).values()]
    for maps in filter(None, of_models):
        steps, passes = (maps[f"{what} of the signed layer maps"] for what in ("steps", "passes"))
        return [
            ("overall map", f"preset {maps['preset']}, passes per image: {maps['passes']}"),
            ("layer maps", f"steps of the path: {steps}, passes per image: {passes}"),
        ]
    return []


def _first_names(paths: pd.Series) -> str:
    """Return the first names of a column, and how many more there are."""
    names = [name for name in paths if name]
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more


def _pairs(study: Findings) -> list[Block]:
    """Return genuine and impostor cosines with the threshold."""
    table, rates = study["cosines"], study["verification"].set_index("model")
    if not len(table):
        return []

    def draw(part: pd.DataFrame) -> Figure:
        of_model = rates.loc[part["model"].iloc[0]]
        label = f"TAR {percent(of_model['tar_1e3'], 1)} at FMR 0.001"
        return figures.cosine_histogram(_shares(part, "pairs"), float(of_model["threshold_1e3"]), label)

    caption = (
        "The less the two histograms overlap, the better the network tells these people apart. Genuine pairs show one person, and impostor "
        "pairs two people; the dashed line is the threshold at a false match rate (FMR) of 0.001, and TAR is the share of the genuine "
        "pairs to its right."
    )
    if rates["threshold_1e3"].isna().any():
        caption += " There is no line with fewer than 1000 impostor pairs, because they cannot show that rate."
    return [per_model("pairs", "Verification", table, draw, "genuine and impostor cosines", caption)]


def _shares(table: pd.DataFrame, count: str) -> pd.DataFrame:
    """Return the bins from the first to the last that is not empty, with their share of the counts of their kind."""
    shares = table[count] / table.groupby("kind")[count].transform("sum").clip(lower=1)
    seen = table[table[count] > 0]
    found: pd.DataFrame = table.assign(share=shares)[table["low"].between(seen["low"].min(), seen["low"].max())]
    return found


def _to_reference(study: Findings) -> list[Block]:
    edges, bins = np.linspace(-1, 1, 41), []
    for model, part in study["scores"].groupby("model", sort=False):
        counts, _ = np.histogram(part["cosine"].clip(-1, 1), edges)
        table = {"model": model, "kind": "same person", "low": edges[:-1], "high": edges[1:], "images": counts}
        bins.append(_shares(pd.DataFrame(table), "images"))
    if not bins:
        return []
    thresholds = study["verification"].set_index("model")["eer_threshold"]

    def draw(part: pd.DataFrame) -> Figure:
        return figures.cosine_histogram(part, float(thresholds.get(part["model"].iloc[0], np.nan)), "equal errors")

    caption = (
        "Images to the right of the dashed line are recognised, and the maps of those to its left explain little. The histogram is of the "
        "cosine of each image to its reference, the mean of the person’s other images; the line is the threshold of equal errors of single "
        "pairs."
    )
    title, numbers = "Cosine to the reference", pd.concat(bins, ignore_index=True)
    return [per_model("cosines", title, numbers, draw, "histogram of cosines", caption)]


def _group_sizes(used: pd.DataFrame) -> list[Block]:
    parts = []
    for column in [str(c) for c in used.columns if str(c).startswith(GROUP_PREFIX)]:
        of_group = used.groupby(column, sort=False)
        counts = of_group.agg(people=("person", "nunique"), images=("image", "size")).reset_index(names="group")
        parts.append(counts.assign(label=column.removeprefix(GROUP_PREFIX)))
    columns = [Column("label"), Column("group"), Column("people", show=whole_number), IMAGES]
    return [sheet("Groups", pd.concat(parts, ignore_index=True), columns)] if parts else []


def _skipped(table: pd.DataFrame) -> Block:
    if not len(table):
        return Note("No file was skipped.", "note")
    same = ["what", "stage", "model", "layer", "reason"]
    counts = table.groupby(same, sort=False).agg(times=("path", "size"), files=("path", _first_names)).reset_index()
    kind = [Column("what", "kind"), Column("times", "count", whole_number), Column("stage"), NETWORK, LAYER]
    columns = [*kind, Column("reason"), Column("files")]
    counts = counts.sort_values("times", ascending=False, kind="stable")
    return sheet("Skipped files, layers and models", counts, columns)


# -- person-specific -----------------------------------------------------------------------------------

SPECIFIC = (
    "The overlap of two maps is their Bhattacharyya coefficient, from 0 (no common pixel) to 1 (the same map). If maps are about the "
    "person, two images of one person overlap more than images of two people. Any picture of a face does so to some degree, so that only "
    "the gap above the controls counts."
)
COMPARED = [
    NETWORK,
    LAYER,
    Column("same", "overlap, same person", number, ("same_low", "same_high")),
    Column("different", "different people", number, ("different_low", "different_high")),
    ABOVE_CONTROL,
    Column("strongest", "strongest control"),
    Column("auc", "AUC", number, ("auc_low", "auc_high")),
    Column("p", show=p_value),
]


NOTE_ON_OVERLAP = (
    "Maps are person-specific where the gap above the strongest control has an interval above 0. An AUC of 0.5 is chance, and 1 tells all "
    "pairs apart. Intervals are over people."
)


def specific(study: Findings) -> Section:
    """Return the section of person specificity: overlaps of maps beside controls, for each layer."""
    table = study.leam(control=None)
    if not len(table):
        return Section("specific", "Person specificity", "", [Note("The study compared no maps of people.")])
    layers = study.leam()
    blocks = [_gaps(table), sheet("Overlap of maps", study.headline(), COMPARED, note=NOTE_ON_OVERLAP)]
    if layers["layer"].nunique() > 1:
        blocks.append(sheet("Overlap of maps, all layers", layers, COMPARED, closed=True))
    kinds = {"dense": "Overlap of whole maps instead of their top", "regions": "Overlap of profiles over regions"}
    for kind, title in kinds.items():
        if len(study.leam(kind)):
            blocks.append(sheet(title, study.headline(kind), COMPARED, closed=True))
    return Section("specific", "Person specificity", SPECIFIC, blocks)


def _gaps(table: pd.DataFrame) -> Block:
    controls = controls_of(table)
    caption = (
        "Maps of a layer are person-specific where the blue point and its line lie to the right of all controls. Points are the gap "
        f"between the overlap of same and of different people ({critical(table)}), and lines are intervals over people. "
        f"{_controls_text(controls)}"
    )
    columns = ["model", "layer", "control", "same", "different", "gap", "gap_low", "gap_high"]
    title, alt = "Gap by layer, beside controls", "gap between same and different people"
    return per_model("gaps", title, table, lambda part: figures.gaps(part, controls), alt, caption, columns)


# -- regions -------------------------------------------------------------------------------------------

REGIONS = (
    "The critical pixels are the top fraction of a map. The lift of a region is its share of them divided by its share of the crop, so "
    "that 1 is chance."
)
REGION_NUMBERS = ["region", "mean", "low", "high", "people"]


def regions(study: Findings) -> Section:
    """Return the section of the regions: lift on a drawn face, shares with intervals, lift by layer, and mean maps."""
    table, main = study["region_summary"], study.at_place("region_summary")
    if not len(table):
        return Section("regions", "Regions", "", [Note("The study had no regions.")])
    order, where = _order(table, main), place_of(study).capitalize()
    blocks = [_on_a_face(main, where), _region_shares(main, order, where), _by_layer(table, order), *_mean_maps(study)]
    return Section("regions", "Regions", REGIONS, blocks)


def _order(table: pd.DataFrame, main: pd.DataFrame) -> list[str]:
    """Return the regions to draw, the highest lift first."""
    lifts = main[main["quantity"] == "lift"].groupby("region", sort=False)["mean"].mean()
    visible = notable(table)
    return [str(region) for region in lifts.sort_values(ascending=False, na_position="last").index if region in visible]


def _rest(table: pd.DataFrame, order: list[str]) -> str:
    left_out = len(order) < table["region"].nunique()
    return " Small regions with hardly any critical pixels are in the numbers only." if left_out else ""


def _on_a_face(main: pd.DataFrame, where: str) -> Block:
    lifts = main[main["quantity"] == "lift"].rename(columns={"mean": "lift"})
    caption = f"Orange regions have more of the critical pixels than their area, and purple ones fewer. {where}, means over people."
    alt, columns = "lift of every region on a drawing", ["model", "region", "lift", "low", "high", "people"]
    return per_model("lift_face", "Lift on a drawn face", lifts, figures.lift_face, alt, caption, columns)


def _region_shares(main: pd.DataFrame, order: list[str], where: str) -> Block:
    caption = (
        "A region matters more than by chance where its bar reaches beyond the orange tick, which is its area, and where its lift is above "
        f"1. {where}; lines are intervals over people, each of whom counts once.{_rest(main, order)}"
    )
    alt, columns = "share and lift of every region", ["model", "quantity", *REGION_NUMBERS]
    title = "Share of the critical pixels"
    return per_model("regions", title, main, lambda part: figures.region_shares(part, order), alt, caption, columns)


def _by_layer(table: pd.DataFrame, order: list[str]) -> Block:
    def draw(part: pd.DataFrame) -> Figure:
        wide = part.pivot_table(index="region", columns="layer", values="mean", sort=False, dropna=False)
        return figures.lift_by_layer(wide.reindex(order))

    lifts = table[table["quantity"] == "lift"]
    caption = (
        "Orange cells are regions that a layer names more often than by chance, and purple ones less often. Numbers are the lift; layers "
        f"go from fine to coarse, and colours end at 8 and ⅛.{_rest(table, order)}"
    )
    alt, columns = "lift of regions by layer", ["model", "layer", *REGION_NUMBERS]
    return per_model("regions_by_layer", "Lift by layer", lifts, draw, alt, caption, columns)


def notable(summary: pd.DataFrame) -> set[str]:
    """Return the regions with at least 1 % of the critical pixels of some map, or 5 % of the crop; the others are not drawn.

    Example:
        >>> rows = [("nose", "share", 0.3), ("nose", "area", 0.03), ("hat", "share", 0.0), ("hat", "area", 0.01)]
        >>> notable(pd.DataFrame(rows, columns=["region", "quantity", "mean"]))
        {'nose'}
    """
    most = summary.groupby(["region", "quantity"], sort=False)["mean"].max().unstack("quantity")
    return set(most.index[(most["share"] >= 0.01) | (most["area"] >= 0.05)]) or set(most.index)


def _mean_maps(study: Findings) -> list[Block]:
    maps = {model: study.mean_maps(model) for model in study.explained[:MAX_PANELS]}
    caption = (
        "Bright places are those that the maps of all people name on average. Each map is scaled by its own maximum; lines are the "
        "template and not a person, and the numbers are the share of each ninth of the crop."
    )
    return maps_plate("mean_maps", "Mean maps", maps, "mean maps by layer", caption)


def maps_plate(
    name: str, title: str, maps: Mapping[str, Mapping[str, NDArray[Any]]], alt: str, caption: str
) -> list[Block]:
    """Return a plate of maps by model and layer, with the share of each ninth of the crop as its numbers; nothing without maps."""
    panels = [(model, figures.mean_maps(of_model)) for model, of_model in maps.items() if of_model]
    numbers = figures.shares_of_ninths(
        {(m, layer): values for m, layers in maps.items() for layer, values in layers.items()}
    )
    return [Plate(name, title, panels, alt, caption, numbers)] if panels else []


# -- faithfulness --------------------------------------------------------------------------------------

FAITHFUL = (
    "If a map is faithful, occluding the pixels that it names first lowers the cosine to the person’s other images more than occluding as "
    "many pixels elsewhere."
)
DROPS = ["explained", "measured", "method", "control", "fill", "fraction", "drop", "low", "high", "images", "people"]


def faithful(study: Findings, compared: pd.DataFrame) -> Section:
    """Return the section of faithfulness: drops beside controls, differences with intervals, and transfer between networks."""
    if not len(study["drop_summary"]):
        return Section("faithful", "Faithfulness", "", [Note("The study occluded no pixels.")])
    blocks = [_drops(study), _against_controls(study, compared), *_layer_drops(study), *_transfer(study)]
    return Section("faithful", "Faithfulness", FAITHFUL, blocks)


def _drops(study: Findings) -> Plate:
    table = study["drop_summary"]
    own = study.own(table[table["fill"] == study.fill])
    own, controls = own[own["measured"].isin(study.explained)], controls_of(own)
    caption = (
        "The map is faithful where the blue line lies above those of all controls. Lines are the mean fall of the cosine of the explained "
        f"network ({place_of(study)}, {study.fill} fill), and bands are intervals over people. {_controls_text(controls)}"
    )
    if fills := [fill for fill in dict.fromkeys(table["fill"]) if fill != study.fill]:
        caption += f" Other fills ({', '.join(fills)}) are in tables/drop_summary.parquet."
    title, alt = "Fall of the cosine", "mean drop by fraction occluded"
    return per_model("drops", title, own, drop_curves(controls), alt, caption, DROPS, by="measured")


def _against_controls(study: Findings, compared: pd.DataFrame) -> Block:
    if not len(compared):
        return Note("No controls were run, and a fall of the cosine alone says little.", "note")
    drops = [Column("map", "fall, map", three_digits), Column("other", "fall, control", three_digits)]
    columns = [Column("explained", "network"), Column("control"), *drops, DIFFERENCE, P_HOLM]
    note = "Mean fall of the cosine, image by image. A difference whose interval lies above 0 favours the map."
    return sheet(
        f"Map and controls with {percent(study.fraction)} of the pixels occluded", compared, columns, note=note
    )


def _layer_drops(study: Findings) -> list[Block]:
    table = study["drop_summary"]
    rows = table[(table["explained"] == table["measured"]) & (table["control"] == "") & (table["fill"] == study.fill)]
    rows = rows[np.isclose(rows["fraction"], study.fraction)]
    if rows["layer"].nunique() < 2:
        return []
    columns = [Column("explained", "network"), LAYER, Column("drop", show=three_digits, ends=("low", "high"))]
    title = f"Fall of the cosine with {percent(study.fraction)} of the pixels occluded, all layers"
    return [sheet(title, rows, columns, closed=True)]


def _transfer(study: Findings) -> list[Block]:
    table = study.at_place("drop_summary")
    rows = table[(table["control"] == "") & (table["fill"] == study.fill)]
    fractions = sorted({min(rows["fraction"], default=study.fraction), study.fraction})
    panels = []
    for fraction in fractions:
        of_fraction = rows[np.isclose(rows["fraction"], fraction)]
        wide = of_fraction.pivot_table(index="explained", columns="measured", values="drop", sort=False)
        if len(wide) >= 2:
            panels.append((f"top {percent(fraction)}", figures.matrix(wide, "fall of the cosine", digits=3)))
    if not panels:
        return []
    caption = (
        "Maps transfer where numbers beside the diagonal are nearly as large as those on it. Numbers are the mean fall of the cosine of "
        f"the network of the column, with the pixels occluded that the map of the network of the row names ({study.fill} fill)."
        f"{_beside_random(study, fractions)}"
    )
    numbers = rows[["explained", "measured", "fraction", "drop", "low", "high"]]
    title, alt = "Transfer to other networks", "drops by explained and measured network"
    return [Plate("transfer", title, panels, alt, caption, numbers)]


def _beside_random(study: Findings, fractions: list[float]) -> str:
    table = study["drop_summary"]
    random = table[table["control"].str.startswith("random") & (table["fill"] == study.fill)]
    means = random.groupby("fraction")["drop"].mean()
    beside = [f"{number(means[f], 3)} at {percent(f)}" for f in fractions if f in means.index]
    return f" With random pixels the cosine falls by {listed(beside)}." if beside else ""


# -- agreement -----------------------------------------------------------------------------------------

AGREEMENT_NUMBERS = ["kind", "a", "b", "value", "low", "high", "chance"]


def agreement(study: Findings) -> Section:
    """Return the section of agreement: of networks, of layers, and the tree of networks."""
    table = study["agreement"]
    models, layers = table[table["what"] == "models"], table[table["what"] == "layers"]
    blocks = [
        _models(study, models)
        if len(models)
        else Note("There is one network only, so that there is no agreement of networks."),
        _layers(study, layers)
        if len(layers)
        else Note("There is one layer only in each network, so that there is no agreement of layers."),
    ]
    return Section("agreement", "Agreement", "", blocks)


def _models(study: Findings, models: pd.DataFrame) -> Block:
    panels = []
    for kind, title in (("maps", "overall maps"), ("regions", "profiles over regions")):
        if len(part := models[models["kind"] == kind]):
            panels.append((title, figures.matrix(square(part, study.models), "overlap", limits=(0, 1))))
    full = square(models[models["kind"] == "maps"], study.models)
    if len(full) >= 3 and np.isfinite(full.to_numpy()).all():
        panels.append(("networks that agree", figures.dendrogram(full)))
    chance = models.groupby("kind", sort=False)["chance"].mean()
    beside = ", ".join(f"{number(value)} for {kind}" for kind, value in chance.items())
    caption = (
        f"Networks agree about a face where numbers are above {beside}, which maps of different people reach. Numbers are the overlap of "
        "two networks’ maps of one image, and 1 is the same map."
    )
    numbers = models[AGREEMENT_NUMBERS]
    return Plate("model_agreement", "Network by network", panels, "agreement of networks", caption, numbers)


def _layers(study: Findings, layers: pd.DataFrame) -> Block:
    def draw(part: pd.DataFrame) -> Figure:
        maps = part[part["kind"] == "maps"]
        return figures.matrix(square(maps, study.layers(maps["model"].iloc[0])), "overlap", limits=(0, 1))

    chance = number(layers.loc[layers["kind"] == "maps", "chance"].mean())
    caption = (
        f"Layers agree about a face where numbers are above {chance}, which maps of different people reach. Numbers are the overlap of two "
        "layers’ maps of one image, and 1 is the same map."
    )
    columns = ["model", *AGREEMENT_NUMBERS]
    return per_model("layer_agreement", "Layer by layer", layers, draw, "agreement of layers", caption, columns)


def square(pairs: pd.DataFrame, order: Sequence[str]) -> pd.DataFrame:
    """Return pairs (a, b, value) as a symmetric table with ones on the diagonal."""
    names = [name for name in order if name in {*pairs["a"], *pairs["b"]}]
    both = pd.concat([pairs, pairs.rename(columns={"a": "b", "b": "a"})])
    full = both.pivot_table(index="a", columns="b", values="value").reindex(index=names, columns=names)
    return full.mask(np.eye(len(names)) > 0, 1.0).rename_axis(index=None, columns=None)


# -- groups --------------------------------------------------------------------------------------------

GROUPS = (
    "The labels are those of the user. Differences are tested by permuting labels over people and corrected for all comparisons (Holm). "
    "Read each beside the base similarity, because the cosine can fall further in a group with a higher cosine to begin with."
)


def groups(study: Findings) -> Section:
    """Return the section of the groups: differences between them, beside their base similarity."""
    table = study["groups"]
    if not len(table):
        text = "The study has no groups. Add labels of people to the configuration or to the manifest of images."
        return Section("groups", "Groups", "", [Note(text)])
    known = table[np.isfinite(table["difference"])]
    blocks = [_differences(known, table)] if len(known) else []
    return Section("groups", "Groups", GROUPS, [*blocks, *_comparisons(table)])


def _differences(known: pd.DataFrame, table: pd.DataFrame) -> Block:
    named = known.assign(name=_row_names(known), family=known["quantity"].str.split(" of ").str[0])
    panels = []
    for family, part in named.sort_values("p", kind="stable").groupby("family", sort=False):
        panels.append((f"{family}, a − b", figures.differences(part.head(MAX_COMPARISONS))))
    caption = (
        "Groups differ where a point is filled, which means p below 0.05 after correction. Lines are intervals over people. At most "
        f"{MAX_COMPARISONS} comparisons of a kind are drawn, those with the smallest p, and the table has all."
    )
    numbers = table.drop(columns=["note"])
    return Plate("groups", "Differences", panels, "differences between groups", caption, numbers)


def _row_names(table: pd.DataFrame) -> list[str]:
    """Return the labels of the rows of a drawing: the region, and network and groups where there are several."""
    several = [column for column in ("label", "model") if table[column].nunique() > 1]
    has_pairs = len(table[["label", "group_a", "group_b"]].drop_duplicates()) > 1
    names = []
    for row in table.to_dict("records"):
        pair = f"{row['group_a']} − {row['group_b']}"
        parts = [humanise(str(row["quantity"]).partition(" of ")[2]), *[str(row[column]) for column in several]]
        names.append(" · ".join(part for part in (*parts, pair if has_pairs else "") if part) or pair)
    return names


def _comparisons(table: pd.DataFrame) -> list[Sheet]:
    """Return the comparisons with the smallest p, all comparisons, and those that could not be made with the reason."""
    sides = [
        f"{row['label']}: {row['group_a']} ({row['people_a']}) − {row['group_b']} ({row['people_b']})"
        for row in table.to_dict("records")
    ]
    ordered = table.assign(groups=sides, quantity=[humanise(quantity) for quantity in table["quantity"]])
    ordered = ordered.sort_values(["p_holm", "p"], kind="stable")
    is_known = np.isfinite(ordered["difference"])
    tested, left = ordered[is_known], ordered[~is_known]
    what = [Column("groups", "groups (people)"), Column("quantity"), NETWORK]
    bases = [Column("base_a", "base cosine, first", number), Column("base_b", "base cosine, second", number)]
    columns = [*what, DIFFERENCE, P_HOLM, *bases]
    note = "A p (Holm) below 0.05 is a difference that is unlikely to be chance; differences are in the unit of the quantity."
    title = "Comparisons with the smallest p"
    sheets = [sheet(title, tested.head(MAX_COMPARISONS), columns, note=note)] if len(tested) else []
    if len(tested) > MAX_COMPARISONS:
        sheets.append(sheet(f"All {len(tested)} comparisons", tested, columns, closed=True))
    if len(left):
        title = f"{len(left)} comparisons that could not be made"
        sheets.append(sheet(title, left, [*what, Column("note", "reason")], closed=True))
    return sheets


# -- the paper's figures -------------------------------------------------------------------------------

PAPER = (
    "The paper’s numbers are those of its abstract, with other data (1000 people), other networks (9), another parser, and choices that "
    "are not public. They show the order of magnitude: agreement would not show that the method is the same, and disagreement would not "
    "show that one is wrong."
)


def paper(study: Findings) -> Section:
    """Return the section with the paper's numbers beside those of this study."""
    table = study.headline()
    nose = study.at_place("region_summary", "share")
    nose = nose[nose["region"] == "nose"]
    labels = "see groups" if len(study["groups"]) else "no labels"
    rows = [
        ("overlap of maps, same person", "0.32 to 0.57", _span(table["same"])),
        ("overlap of maps, different people", "0.04 to 0.13", _span(table["different"])),
        ("nose among the critical regions", "18.9 to 29.7 %", _span(nose["mean"], percent_1)),
        ("fall of the cosine after the top 1 %, other networks", "0.1148", _drops_at_one_percent(study, "")),
        ("the same, random positions", "0.0286", _drops_at_one_percent(study, "random")),
        ("layers of one network", "vary strongly", _agreement_of(study, "layers")),
        ("networks, overall maps", "similar regions", _agreement_of(study, "models")),
        ("groups", "occlusions more effective on images of women", labels),
    ]
    names = ["finding", "paper", "this study"]
    blocks: list[Block] = [sheet("", pd.DataFrame(rows, columns=names), [Column(name) for name in names])]
    if len(table):
        blocks.append(_bands(study, table))
    return Section("paper", "Comparison with the paper", PAPER, blocks)


def _bands(study: Findings, table: pd.DataFrame) -> Block:
    figure = figures.paper_bands(table.head(2 * MAX_PANELS), same=(0.32, 0.57), different=(0.04, 0.13))
    caption = (
        "Points inside the bands agree with the ranges that the paper reports over its networks. Points are the overlap of maps of same "
        f"and of different people ({place_of(study)}, {critical(table)})."
    )
    numbers = table[["model", "same", "same_low", "same_high", "different", "different_low", "different_high"]]
    alt = "coefficients beside the paper's ranges"
    return Plate("paper", "Same and different people", [("", figure)], alt, caption, numbers)


def _span(values: pd.Series, show: Callable[[Any], str] = number) -> str:
    known = values[np.isfinite(values)]
    if not len(known):
        return "not measured"
    low, high = show(known.min()), show(known.max())
    return low if low == high else f"{low.removesuffix(chr(160) + '%')} to {high}"


def _drops_at_one_percent(study: Findings, control: str) -> str:
    table = study["drop_summary"]
    table = table[np.isclose(table["fraction"], 0.01)]
    if control:
        rows = table[table["control"].str.startswith(control)]
    else:
        is_map = (table["control"] == "") & (table["layer"] == study.place)
        rows = table[is_map & (table["explained"] != table["measured"])]
    drops = rows.groupby("fill", sort=False)["drop"]
    found = [f"{_span(part, partial(number, digits=4))} ({fill})" for fill, part in drops]
    return ", ".join(found) or "not measured"


def _agreement_of(study: Findings, what: str) -> str:
    table = study["agreement"]
    rows = table[(table["what"] == what) & (table["kind"] == "maps")]
    return f"agree at {_span(rows['value'])}; chance {_span(rows['chance'])}" if len(rows) else "not measured"


# -- limits and settings -------------------------------------------------------------------------------

LIMITS = (
    "LEAM is reconstructed from the published abstract of the paper, and no table of its authors is reproduced here.",
    "A map shows evidence of one network's embedding for these images and these references. It does not show why the network became so, "
    "what people would look at, or who someone is.",
    "“Person-specific” means that maps are more alike within people than between them, beyond the controls that were run. A control that "
    "was not run is not excluded, and neither is anything else that images of one person share, such as light, camera, expression or "
    "haircut.",
    "Intervals and tests cover the choice of people of the same kind. Other photographs, networks or populations may differ more, and the "
    "intervals are too narrow for a handful of people.",
    "Occluded images are unlike those that the networks were trained on, so that no fill is neutral.",
    "Shares and lifts depend on the parser, and lifts of very small regions on a few pixels. A map cannot resolve anything smaller than a "
    "cell of its layer.",
    "A difference between groups is one between the people of this study, by labels that someone assigned, and not a statement about a "
    "cause. A difference that was not found is not shown to be absent.",
)


def limits(_: Findings) -> Section:
    """Return the section of the limits."""
    return Section("limits", "What this does not show", "", [Points(LIMITS)])


def settings(study: Findings) -> Section:
    """Return the section with the settings of the manifest, folded in."""
    elsewhere = ("skipped", "shards", "notes")  # these have their own section or are too long to read
    parts = {key.replace("_", " "): value for key, value in study.manifest.items() if key not in elsewhere}
    blocks = [Facts("", [(key, value) for key, value in parts.items() if not isinstance(value, Mapping | list)])]
    for key, value in parts.items():
        if isinstance(value, Mapping | list):
            items = value.items() if isinstance(value, Mapping) else enumerate(value, 1)
            blocks.append(Facts(key, [(str(name), _short_json(inner)) for name, inner in items], closed=True))
    text = (
        "The file manifest.json has all settings. captum-leam study --check repeats the study and compares the results."
    )
    return Section("made", "How it was made", text, blocks)


def _short_json(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text[:500] + "…" * (len(text) > 500)
