"""Build the sections of a study's page; each function takes the findings and returns one section."""

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
from captum_leam.reporting.figures import spoken
from captum_leam.reporting.findings import Findings
from captum_leam.reporting.numbers import number, p_value, percent, percent_1, significant, three_digits, whole_number
from captum_leam.reporting.page import Block, Column, Facts, Note, Plate, Points, Section, Sheet, sheet
from captum_leam.reporting.schema import GROUP_PREFIX, OVERALL

MAX_PANELS = 12
"""Panels of one drawing; further models are in its numbers."""

MAX_NAMES = 10
"""Files that are named where many share one reason; the tables name all."""

MAX_COMPARISONS = 14
"""Comparisons of groups in one panel: those with the smallest p."""

CONTROLS = {
    "edges": "edges of the image, no network",
    "untrained": "the same network with random weights",
    "parser": "the regions of the face, no network",
    "pose": "strangers in the same pose in place of the person",
    "random pixels": "as many, anywhere in the crop",
    "random face pixels": "as many, anywhere in the face",
    "random field": "spots of the same size, anywhere",
    "centre": "the middle of the crop",
    "moved": "the map’s shape, elsewhere",
    "other people": "the mean map of others",
}
"""What every control is."""

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
    """Return a plate with a drawing of every model's rows, up to :data:`MAX_PANELS`; its numbers are these columns, or all."""
    models = [*dict.fromkeys(table[by])][:MAX_PANELS]
    panels = [(model, draw(table[table[by] == model])) for model in models]
    return Plate(name, title, panels, alt, caption, table[[*columns]] if columns else table)


def place_of(study: Findings) -> str:
    """Return the name of the map whose numbers come first."""
    return "overall map" if study.place == OVERALL else f"layer {study.place}"


def critical(patterns: pd.DataFrame) -> str:
    """Return which pixels the maps are compared on."""
    return f"top {percent(patterns['fraction'].min())} of the pixels"


def counted(n: int, one: str, many: str = "") -> str:
    """Return a number with what it counts.

    Example:
        >>> counted(1, "person", "people"), counted(2, "image")
        ('1 person', '2 images')
    """
    return f"{n:,} {one if n == 1 else many or one + 's'}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def drop_curves(controls: Sequence[str]) -> Callable[[pd.DataFrame], Figure]:
    """Return :func:`figures.drop_curves` of the map and these controls."""
    return lambda part: figures.drop_curves(part, controls)


def controls_of(table: pd.DataFrame) -> list[str]:
    """Return the controls of a table, in order."""
    return [control for control in dict.fromkeys(table["control"]) if control]


def _controls_text(controls: Sequence[str]) -> str:
    if not controls:
        return "No controls were run."
    return "Controls: " + "; ".join(f"{c} ({CONTROLS[c]})" if c in CONTROLS else c for c in controls) + "."


# -- what was studied ----------------------------------------------------------------------------------

VERIFICATION = [
    NETWORK,
    Column("eer", "equal error rate", percent_1),
    Column("eer_threshold", "at cosine", number),
    Column("tar", "TAR", percent_1),
    Column("fmr", "at FMR", significant),
    Column("genuine", "genuine pairs", whole_number),
    Column("impostor", "impostor pairs", whole_number),
    IMAGES,
]


def studied(study: Findings) -> Section:
    """Return people, images, how well the networks tell the people apart, and what was skipped."""
    used = study["images"][study["images"]["status"] == "ok"]
    blocks: list[Block] = [Facts("", _sizes(study, used))]
    blocks.append(sheet("Do the networks tell these people apart?", study["verification"], VERIFICATION))
    blocks += [*_pairs(study), *_to_reference(study), *_group_sizes(used), _skipped(study["skipped"])]
    return Section("studied", "What was studied", "", blocks)


def _sizes(study: Findings, used: pd.DataFrame) -> list[tuple[str, str]]:
    per = used.groupby("person").size()
    spread = f"{per.min()}" if per.min() == per.max() else f"{per.min()} to {per.max()}, median {per.median():g}"
    facts = {
        "people": f"{len(per)}",
        "images": f"{len(used)} used, {len(study['images']) - len(used)} skipped",
        "images of a person": spread,
        "pictures": ", ".join(f"{n} {kind}s" for kind, n in used["crop"].value_counts(sort=False).items()),
        "several faces, the largest taken": _first_names(used.loc[used["faces_found"] > 1, "path"]),
        "photographs turned upright": _first_names(used.loc[used["turn"] > 0, "path"]),
    }
    return [(name, value) for name, value in facts.items() if value] + _maps(study)


def _maps(study: Findings) -> list[tuple[str, str]]:
    """Return how the overall map and the layer maps were made."""
    of_models = [model.get("maps") for model in study.manifest.get("models", {}).values()]
    for maps in filter(None, of_models):
        steps, passes = (maps[f"{what} of the signed layer maps"] for what in ("steps", "passes"))
        return [
            ("overall map", f"preset {maps['preset']}; passes of an image: {maps['passes']}"),
            ("layer maps", f"steps of the path: {steps}; passes of an image: {passes}"),
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
        "Cosines of the pairs of images that verification compared: genuine pairs are of one person, impostor pairs of two people. "
        "The dashed line is the threshold at a false match rate (FMR) of 0.001; TAR, the true accept rate, is the share of genuine pairs "
        "beyond it."
    )
    if rates["threshold_1e3"].isna().any():
        caption += " With fewer than 1000 impostor pairs that rate cannot be measured, and there is no line."
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
        "Cosine of every image to its reference, the other images of its person. The dashed line is the threshold at which single pairs of "
        "images are falsely accepted as often as falsely rejected. Images left of it are hardly recognised: their maps explain little."
    )
    title, numbers = "How sure is the recognition?", pd.concat(bins, ignore_index=True)
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
        return Note("Nothing was skipped.", "note")
    same = ["what", "stage", "model", "layer", "reason"]
    counts = table.groupby(same, sort=False).agg(times=("path", "size"), files=("path", _first_names)).reset_index()
    kind = [Column("what"), Column("times", show=whole_number), Column("stage"), NETWORK, LAYER]
    columns = [*kind, Column("reason", "why"), Column("files")]
    counts = counts.sort_values("times", ascending=False, kind="stable")
    return sheet("What was skipped, and why", counts, columns)


# -- person-specific -----------------------------------------------------------------------------------

SPECIFIC = (
    "Two maps overlap by their Bhattacharyya coefficient (0: nowhere, 1: the same map). If maps are about the person, two images of one "
    "person give a larger one than images of two people. Any picture of a face does that to some degree, so the gap counts only above the "
    "controls."
)
COMPARED = [
    NETWORK,
    LAYER,
    Column("same", "same", number, ("same_low", "same_high")),
    Column("different", "different", number, ("different_low", "different_high")),
    ABOVE_CONTROL,
    Column("strongest", "strongest control"),
    Column("auc", "AUC", number, ("auc_low", "auc_high")),
    Column("p", show=p_value),
]


def specific(study: Findings) -> Section:
    """Return overlaps of the same and of different people, map beside controls, for every layer."""
    table = study.leam(control=None)
    if not len(table):
        return Section("specific", "Person-specific?", "", [Note("The study compared no maps of people.")])
    layers = study.leam()
    blocks = [_gaps(table), sheet("In numbers", study.headline(), COMPARED)]
    if layers["layer"].nunique() > 1:
        blocks.append(sheet("All layers in numbers", layers, COMPARED, closed=True))
    kinds = {"dense": "The whole map instead of its top", "regions": "Profiles over regions instead of maps"}
    for kind, title in kinds.items():
        if len(study.leam(kind)):
            blocks.append(sheet(title, study.headline(kind), COMPARED, closed=True))
    return Section("specific", "Person-specific?", SPECIFIC, blocks)


def _gaps(table: pd.DataFrame) -> Block:
    controls = controls_of(table)
    caption = (
        f"Gap between same and different people, {critical(table)}; lines are intervals over people. "
        f"{_controls_text(controls)}"
    )
    columns = ["model", "layer", "control", "same", "different", "gap", "gap_low", "gap_high"]
    title, alt = "Map and controls, by layer", "gap between same and different people"
    return per_model("gaps", title, table, lambda part: figures.gaps(part, controls), alt, caption, columns)


# -- regions -------------------------------------------------------------------------------------------

REGIONS = "The critical pixels are the top fraction of a map. A region's lift is its share of them over its share of the crop: 1 is chance."
REGION_NUMBERS = ["region", "mean", "low", "high", "people"]


def regions(study: Findings) -> Section:
    """Return lift on a drawn face, shares with intervals, lift by layer, and mean maps."""
    table, main = study["region_summary"], study.at_place("region_summary")
    if not len(table):
        return Section("regions", "Regions", "", [Note("The study had no regions.")])
    order, where = _order(table, main), place_of(study).capitalize()
    blocks = [_on_a_face(main, where), _region_shares(main, order, where), _by_layer(table, order), *_mean_maps(study)]
    return Section("regions", "Regions", REGIONS, blocks)


def _order(table: pd.DataFrame, main: pd.DataFrame) -> list[str]:
    """Return the regions that are drawn, those with the highest lift first."""
    lifts = main[main["quantity"] == "lift"].groupby("region", sort=False)["mean"].mean()
    drawn = notable(table)
    return [str(region) for region in lifts.sort_values(ascending=False, na_position="last").index if region in drawn]


def _rest(table: pd.DataFrame, order: list[str]) -> str:
    left_out = len(order) < table["region"].nunique()
    return " Regions that are small and hold next to nothing are in the numbers." if left_out else ""


def _on_a_face(main: pd.DataFrame, where: str) -> Block:
    lifts = main[main["quantity"] == "lift"].rename(columns={"mean": "lift"})
    caption = f"{where}, means over people. Orange regions hold more of the critical pixels than their area, purple ones fewer."
    alt, columns = "lift of every region on a drawing", ["model", "region", "lift", "low", "high", "people"]
    return per_model("lift_face", "Lift on a drawn face", lifts, figures.lift_face, alt, caption, columns)


def _region_shares(main: pd.DataFrame, order: list[str], where: str) -> Block:
    caption = (
        f"{where}. Lines are intervals over people, each of whom counts once. The orange tick is the region's area: where chance would end "
        f"the bar.{_rest(main, order)}"
    )
    alt, columns = "share and lift of every region", ["model", "quantity", *REGION_NUMBERS]
    title = "Share of the critical pixels"
    return per_model("regions", title, main, lambda part: figures.region_shares(part, order), alt, caption, columns)


def _by_layer(table: pd.DataFrame, order: list[str]) -> Block:
    def draw(part: pd.DataFrame) -> Figure:
        wide = part.pivot_table(index="region", columns="layer", values="mean", sort=False, dropna=False)
        return figures.lift_by_layer(wide.reindex(order))

    lifts = table[table["quantity"] == "lift"]
    caption = f"Layers from fine to coarse. Colours end at 8 and ⅛.{_rest(table, order)}"
    alt, columns = "lift of regions by layer", ["model", "layer", *REGION_NUMBERS]
    return per_model("regions_by_layer", "Lift by layer", lifts, draw, alt, caption, columns)


def notable(summary: pd.DataFrame) -> set[str]:
    """Return the regions with 1 % of some map's critical pixels, or 5 % of the crop; the others would only fill the drawings.

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
        "Mean over all people, each map as bright as its brightest point; lines are the template, not a person. The numbers give the share "
        "of each ninth of the crop."
    )
    return maps_plate("mean_maps", "Mean maps", maps, "mean maps by layer", caption)


def maps_plate(
    name: str, title: str, maps: Mapping[str, Mapping[str, NDArray[Any]]], alt: str, caption: str
) -> list[Block]:
    """Return a plate of maps by model and layer, the shares of their ninths as its numbers; nothing without maps."""
    panels = [(model, figures.mean_maps(of_model)) for model, of_model in maps.items() if of_model]
    numbers = figures.shares_of_ninths(
        {(m, layer): values for m, layers in maps.items() for layer, values in layers.items()}
    )
    return [Plate(name, title, panels, alt, caption, numbers)] if panels else []


# -- faithfulness --------------------------------------------------------------------------------------

FAITHFUL = (
    "If a map is true, hiding what it names first makes the network less sure that it is this person: more than hiding the same amount "
    "elsewhere."
)
DROPS = ["explained", "measured", "method", "control", "fill", "fraction", "drop", "low", "high", "images", "people"]


def faithful(study: Findings, compared: pd.DataFrame) -> Section:
    """Return drops beside controls, differences with intervals, and transfer between networks."""
    if not len(study["drop_summary"]):
        return Section("true", "Are the maps true?", "", [Note("Nothing was occluded.")])
    blocks = [_drops(study), _against_controls(study, compared), *_layer_drops(study), *_transfer(study)]
    return Section("true", "Are the maps true?", FAITHFUL, blocks)


def _drops(study: Findings) -> Plate:
    table = study["drop_summary"]
    own = study.own(table[table["fill"] == study.fill])
    own, controls = own[own["measured"].isin(study.explained)], controls_of(own)
    caption = (
        f"{place_of(study).capitalize()}, {study.fill} fill, the explained network itself. Bands are intervals over "
        f"people. {_controls_text(controls)}"
    )
    if fills := [fill for fill in dict.fromkeys(table["fill"]) if fill != study.fill]:
        caption += f" Other fills ({', '.join(fills)}) are in tables/drop_summary.parquet."
    title, alt = "Fall of the cosine", "mean drop by fraction occluded"
    return per_model("drops", title, own, drop_curves(controls), alt, caption, DROPS, by="measured")


def _against_controls(study: Findings, compared: pd.DataFrame) -> Block:
    if not len(compared):
        return Note("No controls were run: a fall of the cosine alone says little.", "note")
    drops = [Column("map", show=three_digits), Column("other", "control’s", three_digits)]
    columns = [Column("explained", "network"), Column("control"), *drops, DIFFERENCE, P_HOLM]
    return sheet(f"Map against control at {percent(study.fraction)}, image by image", compared, columns)


def _layer_drops(study: Findings) -> list[Block]:
    table = study["drop_summary"]
    chosen = table[(table["explained"] == table["measured"]) & (table["control"] == "") & (table["fill"] == study.fill)]
    chosen = chosen[np.isclose(chosen["fraction"], study.fraction)]
    if chosen["layer"].nunique() < 2:
        return []
    columns = [Column("explained", "network"), LAYER, Column("drop", show=three_digits, ends=("low", "high"))]
    return [sheet(f"All layers at {percent(study.fraction)}", chosen, columns, closed=True)]


def _transfer(study: Findings) -> list[Block]:
    table = study.at_place("drop_summary")
    chosen = table[(table["control"] == "") & (table["fill"] == study.fill)]
    fractions = sorted({min(chosen["fraction"], default=study.fraction), study.fraction})
    panels = []
    for fraction in fractions:
        of_fraction = chosen[np.isclose(chosen["fraction"], fraction)]
        wide = of_fraction.pivot_table(index="explained", columns="measured", values="drop", sort=False)
        if len(wide) >= 2:
            panels.append((f"top {percent(fraction)}", figures.matrix(wide, digits=3)))
    if not panels:
        return []
    caption = (
        f"Mean drop when pixels named by one network’s map are hidden from another, {study.fill} fill. The diagonal is the network itself."
        f"{_beside_random(study, fractions)}"
    )
    numbers = chosen[["explained", "measured", "fraction", "drop", "low", "high"]]
    title, alt = "Does it transfer to other networks?", "drops by explained and measured network"
    return [Plate("transfer", title, panels, alt, caption, numbers)]


def _beside_random(study: Findings, fractions: list[float]) -> str:
    table = study["drop_summary"]
    random = table[table["control"].str.startswith("random") & (table["fill"] == study.fill)]
    means = random.groupby("fraction")["drop"].mean()
    beside = [f"{number(means[f], 3)} at {percent(f)}" for f in fractions if f in means.index]
    return f" Random pixels: {', '.join(beside)}." if beside else ""


# -- agreement -----------------------------------------------------------------------------------------

AGREEMENT_NUMBERS = ["kind", "a", "b", "value", "low", "high", "chance"]


def agreement(study: Findings) -> Section:
    """Return agreement of networks, agreement of layers, and the tree of networks."""
    table = study["agreement"]
    models, layers = table[table["what"] == "models"], table[table["what"] == "layers"]
    blocks = [
        _models(study, models) if len(models) else Note("There is one network only: nothing to compare it with."),
        _layers(study, layers) if len(layers) else Note("There is one layer only in every network."),
    ]
    return Section("agreement", "Agreement", "", blocks)


def _models(study: Findings, models: pd.DataFrame) -> Block:
    panels = []
    for kind, title in (("maps", "overall maps"), ("regions", "profiles over regions")):
        if len(part := models[models["kind"] == kind]):
            panels.append((title, figures.matrix(square(part, study.models), limits=(0, 1))))
    full = square(models[models["kind"] == "maps"], study.models)
    if len(full) >= 3 and np.isfinite(full.to_numpy()).all():
        panels.append(("what belongs together", figures.dendrogram(full)))
    chance = models.groupby("kind", sort=False)["chance"].mean()
    beside = ", ".join(f"{number(value)} for {kind}" for kind, value in chance.items())
    caption = (
        f"Similarity of two networks’ maps of one image, 1 is the same. Maps of different people reach {beside}: only what is above is "
        "about the face."
    )
    numbers = models[AGREEMENT_NUMBERS]
    return Plate("model_agreement", "Network by network", panels, "agreement of networks", caption, numbers)


def _layers(study: Findings, layers: pd.DataFrame) -> Block:
    def draw(part: pd.DataFrame) -> Figure:
        maps = part[part["kind"] == "maps"]
        return figures.matrix(square(maps, study.layers(maps["model"].iloc[0])), limits=(0, 1))

    chance = number(layers.loc[layers["kind"] == "maps", "chance"].mean())
    caption = f"Similarity of two layers’ maps of one image; maps of different people reach {chance}."
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
    "Labels are the user’s. Differences are tested by permuting labels over people and corrected for all comparisons (Holm). Read each "
    "beside the base similarity: where a group is recognised more surely to begin with, its cosine can fall further."
)


def groups(study: Findings) -> Section:
    """Return differences between groups, beside their base similarity."""
    table = study["groups"]
    if not len(table):
        text = "No groups were given. Labels of people go into the configuration or the manifest of images."
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
        "Filled: p under 0.05 after correction. Lines are intervals over people. At most "
        f"{MAX_COMPARISONS} of a kind, those with the smallest p; all are in the table."
    )
    numbers = table.drop(columns=["note"])
    return Plate("groups", "Differences", panels, "differences between groups", caption, numbers)


def _row_names(table: pd.DataFrame) -> list[str]:
    """Return what tells the rows of one drawing apart: the region, and network and groups where there are several."""
    several = [column for column in ("label", "model") if table[column].nunique() > 1]
    has_pairs = len(table[["label", "group_a", "group_b"]].drop_duplicates()) > 1
    names = []
    for row in table.to_dict("records"):
        pair = f"{row['group_a']} − {row['group_b']}"
        parts = [spoken(str(row["quantity"]).partition(" of ")[2]), *[str(row[column]) for column in several]]
        names.append(" · ".join(part for part in (*parts, pair if has_pairs else "") if part) or pair)
    return names


def _comparisons(table: pd.DataFrame) -> list[Sheet]:
    """Return the comparisons with the smallest p, all of them folded, and those that could not be made with the reason."""
    sides = [
        f"{row['label']}: {row['group_a']} ({row['people_a']}) − {row['group_b']} ({row['people_b']})"
        for row in table.to_dict("records")
    ]
    ordered = table.assign(groups=sides, quantity=[spoken(quantity) for quantity in table["quantity"]])
    ordered = ordered.sort_values(["p_holm", "p"], kind="stable")
    is_known = np.isfinite(ordered["difference"])
    tested, left = ordered[is_known], ordered[~is_known]
    what = [Column("groups", "groups (people)"), Column("quantity"), NETWORK]
    bases = [Column("base_a", "base of the first", number), Column("base_b", "of the second", number)]
    columns = [*what, DIFFERENCE, P_HOLM, *bases]
    sheets = [sheet("Comparisons with the smallest p", tested.head(MAX_COMPARISONS), columns)] if len(tested) else []
    if len(tested) > MAX_COMPARISONS:
        sheets.append(sheet(f"All {len(tested)} comparisons", tested, columns, closed=True))
    if len(left):
        title = f"{len(left)} comparisons that could not be made"
        sheets.append(sheet(title, left, [*what, Column("note", "why")], closed=True))
    return sheets


# -- the paper's figures -------------------------------------------------------------------------------

PAPER = (
    "As reported in the abstract: other data (1000 people), other networks (9), another parser, and choices that are not public. "
    "The figures are anchors for the order of magnitude; agreement would not show that the method is the same, nor disagreement that one "
    "is wrong."
)


def paper(study: Findings) -> Section:
    """Return the paper's figures beside this study's."""
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
    return Section("anchors", "Beside the paper", PAPER, blocks)


def _bands(study: Findings, table: pd.DataFrame) -> Block:
    figure = figures.anchor_bands(table.head(2 * MAX_PANELS), same=(0.32, 0.57), different=(0.04, 0.13))
    caption = f"Overlap of maps, {place_of(study)}, {critical(table)}. Bands are the paper’s ranges over its networks."
    numbers = table[["model", "same", "same_low", "same_high", "different", "different_low", "different_high"]]
    alt = "coefficients beside the paper's ranges"
    return Plate("anchors", "Same and different people", [("", figure)], alt, caption, numbers)


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
        chosen = table[table["control"].str.startswith(control)]
    else:
        is_map = (table["control"] == "") & (table["layer"] == study.place)
        chosen = table[is_map & (table["explained"] != table["measured"])]
    drops = chosen.groupby("fill", sort=False)["drop"]
    found = [f"{_span(part, partial(number, digits=4))} ({fill})" for fill, part in drops]
    return ", ".join(found) or "not measured"


def _agreement_of(study: Findings, what: str) -> str:
    table = study["agreement"]
    chosen = table[(table["what"] == what) & (table["kind"] == "maps")]
    return f"agree at {_span(chosen['value'])}; chance {_span(chosen['chance'])}" if len(chosen) else "not measured"


# -- limits and settings -------------------------------------------------------------------------------

LIMITS = (
    "LEAM is reconstructed from the published abstract of the paper: nothing here reproduces the authors' tables.",
    "A map shows evidence of one network's embedding for these images and these references: not why the network became so, nor what "
    "people would look at, nor who someone is.",
    "“Person-specific” means: more alike within people than between them, beyond the controls that were run. A control that was not run is "
    "not excluded, and neither is anything that images of one person share besides the face: light, camera, expression, haircut.",
    "Intervals and tests say how far other people of the same kind would change a number; other photographs, networks or populations may "
    "differ more. They are too narrow for a handful of people.",
    "Occluded images are images that no network was trained on: no fill is neutral.",
    "Shares and lifts depend on the parser, and lifts of very small regions on a few pixels. Nothing smaller than a cell of a layer can be "
    "told apart.",
    "A difference between groups is one between the people that were studied, given labels that someone wrote down; it is no statement "
    "about a cause. A difference that was not found is not shown to be absent.",
)


def limits(_: Findings) -> Section:
    """Return what the page does not show."""
    return Section("limits", "Limits", "What this report does not show.", [Points(LIMITS)])


def settings(study: Findings) -> Section:
    """Return the beginning of every part of the manifest, folded."""
    elsewhere = ("skipped", "shards", "notes")  # has its own section, or is too long to read
    parts = {key.replace("_", " "): value for key, value in study.manifest.items() if key not in elsewhere}
    blocks = [Facts("", [(key, value) for key, value in parts.items() if not isinstance(value, Mapping | list)])]
    for key, value in parts.items():
        if isinstance(value, Mapping | list):
            items = value.items() if isinstance(value, Mapping) else enumerate(value, 1)
            blocks.append(Facts(key, [(str(name), _short_json(inner)) for name, inner in items], closed=True))
    text = "All of it is in manifest.json; captum-leam study --check repeats the study and compares."
    return Section("made", "Made with", text, blocks)


def _short_json(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text[:500] + "…" * (len(text) > 500)
