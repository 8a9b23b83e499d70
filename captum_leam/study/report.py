"""The report of a study: one page of HTML that a person reads in five minutes, with every number beside its drawing.

The page is self-contained and asks nothing of any network. It is written from the summaries of the study, so that its size does not depend
on the number of people; no face is on it.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from captum_leam.names import shown
from captum_leam.study import figures
from captum_leam.study.answers import answers
from captum_leam.study.config import Config
from captum_leam.study.findings import Findings, read_findings
from captum_leam.study.page import (
    Block,
    DrawnPlate,
    Facts,
    Note,
    Plate,
    Points,
    Section,
    Sheet,
    Show,
    draw,
    number,
    p_value,
    percent,
    render,
    sheet,
    write_page,
)
from captum_leam.study.person_page import check_people, write_person
from captum_leam.study.tables import GROUP_PREFIX, OVERALL

PANELS = 12
"""Panels of one drawing; further models are in its numbers."""

MOST = 14
"""Differences in one panel: those with the smallest p."""

BINS = np.linspace(-1, 1, 41)

PAPER_SAME, PAPER_DIFFERENT = (0.32, 0.57), (0.04, 0.13)

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
    "A difference between groups is one between the people that were studied, given labels that someone wrote "
    "down; it is no statement about "
    "a cause. A difference that was not found is not shown to be absent.",
)


def write_report(
    results: str | Path, out: str | Path | None = None, *, people: Sequence[str] = (), show_faces: bool = False
) -> Path:
    """Write the report of a finished study, and beside it every figure as SVG with its numbers as CSV.

    Args:
        results: folder of the study.
        out: the page; by default ``report.html`` in that folder. ``figures/`` and ``people/`` are made beside it.
        people: who gets a page of their own: mean map, regions, drops. Nobody by default.
        show_faces: put the crops of these people on their pages; everybody who opens the page sees them.

    Returns:
        Path of the page.

    Raises:
        ValueError: if the folder is not that of a finished study, for people that it does not know, or for ``show_faces`` without
            people.

    Example:
        >>> write_report("/nowhere")
        Traceback (most recent call last):
            ...
        ValueError: /nowhere is not the results folder of a finished study: ...
    """
    study = read_findings(Path(results))
    check_people(study, people, show_faces)
    page = Path(out) if out is not None else study.folder / "report.html"
    folder = page.parent / "figures"
    compared = study.against_controls()
    sections = [
        studied(study, folder),
        specific(study, folder),
        regions(study, folder),
        faithful(study, compared, folder),
        agreement(study, folder),
        groups(study, folder),
        anchors(study, folder),
        Section("limits", "Limits", "What this report does not show.", [Points(list(LIMITS))]),
        made(study),
    ]
    asked = dict.fromkeys(map(shown, people))
    links = [(person, f"people/{write_person(study, person, page, show_faces).name}") for person in asked]
    text = render(
        title=_title(study),
        lead=_lead(study),
        warnings=_warnings(study),
        answers=answers(study, compared),
        heroes=_heroes(study, folder),
        sections=sections,
        links=links,
    )
    return write_page(page, text)


def by_model(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The rows of every model, in order of appearance."""
    for model, part in table.groupby("model", sort=False):
        yield str(model), part


# -- the top -------------------------------------------------------------------------------------------


def _title(study: Findings) -> str:
    configuration = study.manifest.get("configuration")
    named = configuration.get("title") if isinstance(configuration, Mapping) else None
    return str(named) if named and named != Config.title else "What these networks recognise people by"


def _lead(study: Findings) -> str:
    images = study["images"]
    used = int((images["status"] == "ok").sum())
    layers = study["layers"].groupby("model")["layer"].nunique()
    few, many = (int(layers.min()), int(layers.max())) if len(layers) else (0, 0)
    span = str(many) if few == many else f"{few} to {many}"
    return (
        f"{_count(len(study.people), 'person', 'people')}, {_count(used, 'image')}, {_count(len(study.models), 'network')}, "
        f"{span} layer{'s' * (many != 1)} each."
    )


def _count(n: int, one: str, many: str = "") -> str:
    return f"{n:,} {one if n == 1 else many or one + 's'}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def _warnings(study: Findings) -> list[str]:
    found = [
        f"{row['model']}: {row['warning'] or 'it hardly separates these people'}. What follows about it says little."
        for row in study["verification"].to_dict("records")
        if row["warning"] or not row["separates"]
    ]
    if study.manifest.get("finished") is False:
        found.append("The study did not run to its end: some of what follows is missing.")
    images = study["images"]
    if (skipped := int((images["status"] != "ok").sum())) > 0.1 * len(images):
        found.append(f"{skipped} of {len(images)} images were skipped: see what was studied.")
    return found


def _heroes(study: Findings, folder: Path) -> list[DrawnPlate]:
    """What is looked at first: the headline, and the regions of all networks together."""
    plates = []
    table = study.leam()
    table = table[(table["layer"] == study.place) & np.isfinite(table["above_control"])]
    if len(table):
        columns = ["model", "strongest", "same", "different", "gap", "above_control", "above_low", "above_high"]
        caption = (
            f"How much more alike maps are within people than between them, beyond the strongest control ({_place(study)}, "
            f"{_critical(table)}). Lines are intervals over people; right of 0 is person-specific."
        )
        figure = figures.above_controls(table.head(2 * PANELS))
        plates.append(
            Plate(
                "headline",
                "How person-specific?",
                [("", figure)],
                "gap above the strongest control",
                caption,
                table[columns],
            )
        )
    lifts = study["region_summary"]
    lifts = lifts[(lifts["layer"] == study.place) & (lifts["quantity"] == "lift")]
    if len(lifts):
        means = lifts.groupby("region", sort=False)["mean"].mean().reset_index(name="lift")
        caption = (
            f"Lift of every region ({_place(study)}), mean over people{' and networks' if len(study.models) > 1 else ''}, "
            "on a drawing: 1 is chance."
        )
        plates.append(
            Plate(
                "headline_regions",
                "Which regions?",
                [("", figures.lift_face(means))],
                "lift on a drawn face",
                caption,
                means,
            )
        )
    return [draw(plate, folder) for plate in plates]


def _place(study: Findings) -> str:
    return "overall map" if study.place == OVERALL else f"layer {study.place}"


def _critical(patterns: pd.DataFrame) -> str:
    return f"top {percent(patterns['fraction'].min()).replace('.0', '')} of the pixels"


# -- what was studied ----------------------------------------------------------------------------------


def studied(study: Findings, folder: Path) -> Section:
    """People, images, models, how well these tell people apart, and what was left out."""
    images, checks = study["images"], study["verification"]
    used = images[images["status"] == "ok"]
    per = used.groupby("person").size()
    spread = f"{per.min()}" if per.min() == per.max() else f"{per.min()} to {per.max()}, median {per.median():g}"
    facts = [
        ("people", f"{len(per)}"),
        ("images", f"{len(used)} used, {len(images) - len(used)} skipped"),
        ("images of a person", spread),
        ("pictures", ", ".join(f"{n} {kind}s" for kind, n in used["crop"].value_counts(sort=False).items())),
    ]
    columns = [
        Show("model", "network"),
        Show("eer", "equal error rate", lambda v: percent(v, 1)),
        Show("eer_threshold", "at cosine", number),
        Show("tar", "accepted", lambda v: percent(v, 1)),
        Show("fmr", "at false match rate", lambda v: f"{v:g}" if np.isfinite(v) else "–"),
        Show("images", "images", _whole),
        Show("genuine", "genuine pairs", _whole),
        Show("impostor", "impostor pairs", _whole),
    ]
    blocks: list[Block] = [Facts("", facts), sheet("Do the networks tell these people apart?", checks, columns)]
    blocks += _cosines(study, folder)
    blocks += _group_sizes(used)
    blocks += _skipped(study)
    return Section("studied", "What was studied", "", blocks)


def _whole(value: Any) -> str:
    return f"{int(value)}" if np.isfinite(value) else "–"


def _cosines(study: Findings, folder: Path) -> list[Block]:
    thresholds = study["verification"].set_index("model")["eer_threshold"]
    bins = [_binned(part["cosine"], model) for model, part in by_model(study["scores"])]
    if not bins:
        return []
    panels = [
        (model, figures.cosine_histogram(table, float(thresholds.get(model, np.nan))))
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
        Show("people", "people", _whole),
        Show("images", "images", _whole),
    ]
    return [sheet("Groups", pd.concat(parts, ignore_index=True), columns)]


def _skipped(study: Findings) -> list[Block]:
    table = study["skipped"]
    if not len(table):
        return [Note("Nothing was skipped.", "note")]
    same = ["what", "stage", "model", "layer", "reason"]
    counts = (
        table.groupby(same, sort=False)
        .size()
        .reset_index(name="times")
        .sort_values("times", ascending=False, kind="stable")
    )
    columns = [
        Show("what", "what"),
        Show("times", "times", _whole),
        Show("stage", "stage"),
        Show("model", "network"),
        Show("layer", "layer"),
        Show("reason", "why"),
    ]
    return [sheet("What was skipped, and why", counts, columns)]


# -- person-specific -----------------------------------------------------------------------------------


def specific(study: Findings, folder: Path) -> Section:
    """Same and different people, map beside controls, for every layer."""
    lead = (
        "Two maps overlap by their Bhattacharyya coefficient (0: nowhere, 1: the same map). If maps are about the "
        "person, two images of one "
        "person give a larger one than images of two people. Any picture of a face does that to some degree, so the "
        "gap counts only above the controls."
    )
    table = study.leam(control=None)
    if not len(table):
        return Section("specific", "Person-specific?", "", [Note("The study compared no maps of people.")])
    controls = [c for c in dict.fromkeys(table["control"]) if c]
    panels = [(model, figures.gaps(part, controls)) for model, part in by_model(table)]
    caption = f"Gap between same and different people, {_critical(table)}; lines are intervals over people. {_controls_text(controls)}"
    columns = ["model", "layer", "control", "same", "different", "gap", "gap_low", "gap_high"]
    plate = Plate(
        "gaps",
        "Map and controls, by layer",
        panels[:PANELS],
        "gap between same and different people",
        caption,
        table[columns],
    )
    every = study.leam()
    blocks: list[Block] = [draw(plate, folder), _specific_sheet("In numbers", every[every["layer"] == study.place])]
    if every["layer"].nunique() > 1:
        blocks.append(_specific_sheet("All layers in numbers", every, closed=True))
    for kind, title in (
        ("dense", "The whole map instead of its top"),
        ("regions", "Profiles over regions instead of maps"),
    ):
        if len(other := study.leam(kind)):
            blocks.append(_specific_sheet(title, other[other["layer"] == study.place], closed=True))
    return Section("specific", "Person-specific?", lead, blocks)


CONTROL_WORDS = {
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


def _controls_text(controls: Sequence[str]) -> str:
    if not controls:
        return "No controls were run."
    return "Controls: " + "; ".join(f"{c} ({CONTROL_WORDS[c]})" if c in CONTROL_WORDS else c for c in controls) + "."


def _specific_sheet(title: str, table: pd.DataFrame, *, closed: bool = False) -> Sheet:
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


# -- regions -------------------------------------------------------------------------------------------


def regions(study: Findings, folder: Path) -> Section:
    """Lift on a drawn face, shares with intervals, lift by layer, mean maps."""
    table = study["region_summary"]
    if not len(table):
        return Section("regions", "Regions", "", [Note("The study had no regions.")])
    main = table[table["layer"] == study.place]
    lifts = main[main["quantity"] == "lift"]
    order = list(
        lifts.groupby("region", sort=False)["mean"].mean().sort_values(ascending=False, na_position="last").index
    )
    told = notable(table)
    order = [region for region in order if region in told]
    rest = (
        " Regions that are small and hold next to nothing are in the numbers."
        if len(told) < lifts["region"].nunique()
        else ""
    )
    faces, bars, layers = [], [], []
    for model, part in by_model(main):
        of_model = part[part["quantity"] == "lift"].rename(columns={"mean": "lift"})[["region", "lift"]]
        faces.append((model, figures.lift_face(of_model)))
        bars.append((model, figures.region_shares(part, order)))
    every = table[table["quantity"] == "lift"]
    for model, part in by_model(every):
        wide = part.pivot_table(index="region", columns="layer", values="mean", sort=False, dropna=False).reindex(order)
        layers.append((model, figures.lift_by_layer(wide)))
    where = _place(study)
    plates = [
        Plate(
            "lift_face",
            "Lift on a drawn face",
            faces[:PANELS],
            "lift of every region on a drawing",
            f"{where.capitalize()}, means over people. Orange regions hold more of the critical pixels than their area, purple ones fewer.",
            lifts[["model", "region", "mean", "low", "high", "people"]],
        ),
        Plate(
            "regions",
            "Share of the critical pixels",
            bars[:PANELS],
            "share and lift of every region",
            f"{where.capitalize()}. Lines are intervals over people, each of whom counts once. The orange tick is the "
            "region's area: where chance would end the bar." + rest,
            main[["model", "region", "quantity", "mean", "low", "high", "people"]],
        ),
        Plate(
            "regions_by_layer",
            "Lift by layer",
            layers[:PANELS],
            "lift of regions by layer",
            "Layers from fine to coarse. Colours end at 8 and ⅛." + rest,
            every[["model", "layer", "region", "mean", "low", "high", "people"]],
        ),
    ]
    blocks: list[Block] = [draw(plate, folder) for plate in plates]
    blocks += _mean_maps(study, folder)
    lead = (
        "The critical pixels are the top fraction of a map. A region's lift is its share of them over its share of "
        "the crop: 1 is chance."
    )
    return Section("regions", "Regions", lead, blocks)


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
    names = ["model", "layer", *figures.NINTHS]
    caption = (
        "Mean over all people, each map as bright as its brightest point; lines are the template, not a person. The "
        "numbers give the share of each ninth of the crop."
    )
    return [
        draw(
            Plate("mean_maps", "Mean maps", panels, "mean maps by layer", caption, pd.DataFrame(rows, columns=names)),
            folder,
        )
    ]


# -- faithfulness --------------------------------------------------------------------------------------


def faithful(study: Findings, compared: pd.DataFrame, folder: Path) -> Section:
    """Drops beside controls, differences with intervals, and transfer between models."""
    table = study["drop_summary"]
    if not len(table):
        return Section("true", "Are the maps true?", "", [Note("Nothing was occluded.")])
    own = table[(table["measured"] == table["explained"]) & (table["layer"] == study.place) | (table["method"] == "")]
    own = own[own["fill"] == study.fill]
    controls = [c for c in dict.fromkeys(own["control"]) if c]
    panels = [(model, figures.drop_curves(own[own["measured"] == model], controls)) for model in study.explained]
    names = [
        "explained",
        "measured",
        "method",
        "control",
        "fill",
        "fraction",
        "drop",
        "low",
        "high",
        "images",
        "people",
    ]
    fills = [f for f in dict.fromkeys(table["fill"]) if f != study.fill]
    caption = (
        f"{_place(study).capitalize()}, {study.fill} fill, the explained network itself. Bands are intervals over "
        f"people. {_controls_text(controls)}"
    )
    if fills:
        caption += f" Other fills ({', '.join(fills)}) are in tables/drop_summary.parquet."
    blocks: list[Block] = [
        draw(
            Plate(
                "drops", "Fall of the cosine", panels[:PANELS], "mean drop by fraction occluded", caption, own[names]
            ),
            folder,
        )
    ]
    if len(compared):
        columns = [
            Show("explained", "network"),
            Show("control", "control"),
            Show("map", "map", lambda v: number(v, 3)),
            Show("other", "control’s", lambda v: number(v, 3)),
            Show("difference", "difference", lambda v: number(v, 3), ("low", "high"), 3),
            Show("p_holm", "p (Holm)", p_value),
        ]
        blocks.append(sheet(f"Map against control at {percent(study.fraction)}, image by image", compared, columns))
    else:
        blocks.append(Note("No controls were run: a fall of the cosine alone says little.", "note"))
    blocks += _layer_drops(study)
    blocks += _transfer(study, folder)
    lead = (
        "If a map is true, hiding what it names first makes the network less sure that it is this person: more than "
        "hiding the same amount elsewhere."
    )
    return Section("true", "Are the maps true?", lead, blocks)


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
    panels = []
    shown = sorted({min(chosen["fraction"], default=study.fraction), study.fraction})
    for fraction in shown:
        wide = chosen[np.isclose(chosen["fraction"], fraction)].pivot_table(
            index="explained", columns="measured", values="drop", sort=False
        )
        if len(wide) >= 2:
            panels.append(
                (f"top {percent(fraction)}", figures.matrix(wide, rows="explained", columns="measured", digits=3))
            )
    if not panels:
        return []
    caption = (
        f"Mean drop when pixels named by one network’s map are hidden from another, {study.fill} fill. The diagonal is "
        "the network itself."
    )
    random = table[table["control"].str.startswith("random") & (table["fill"] == study.fill)]
    means = random.groupby("fraction")["drop"].mean()
    beside = [f"{number(means[f], 3)} at {percent(f)}" for f in shown if f in means.index]
    if beside:
        caption += f" Random pixels: {', '.join(beside)}."
    names = ["explained", "measured", "fraction", "drop", "low", "high"]
    return [
        draw(
            Plate(
                "transfer",
                "Does it transfer to other networks?",
                panels,
                "drops by explained and measured network",
                caption,
                chosen[names],
            ),
            folder,
        )
    ]


# -- agreement -----------------------------------------------------------------------------------------


def agreement(study: Findings, folder: Path) -> Section:
    """Model × model, layer × layer, and what belongs together."""
    table = study["agreement"]
    models, layers = table[table["what"] == "models"], table[table["what"] == "layers"]
    names = ["kind", "a", "b", "value", "low", "high", "chance"]
    blocks: list[Block] = []
    if len(models):
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
            f"Similarity of two networks’ maps of one image, 1 is the same. Maps of different people reach {beside}: only "
            "what is above is about the face."
        )
        blocks.append(
            draw(
                Plate("model_agreement", "Network by network", panels, "agreement of networks", caption, models[names]),
                folder,
            )
        )
    else:
        blocks.append(Note("There is one network only: nothing to compare it with."))
    if len(layers):
        maps = layers[layers["kind"] == "maps"]
        panels = [
            (model, figures.matrix(square(part, study.layers(model)), limits=(0, 1))) for model, part in by_model(maps)
        ]
        caption = f"Similarity of two layers’ maps of one image; maps of different people reach {number(maps['chance'].mean())}."
        blocks.append(
            draw(
                Plate(
                    "layer_agreement",
                    "Layer by layer",
                    panels[:PANELS],
                    "agreement of layers",
                    caption,
                    layers[["model", *names]],
                ),
                folder,
            )
        )
    else:
        blocks.append(Note("There is one layer only in every network."))
    return Section("agreement", "Agreement", "", blocks)


def square(pairs: pd.DataFrame, order: Sequence[str]) -> pd.DataFrame:
    """Pairs (a, b, value) as a symmetric table with ones on the diagonal.

    Example:
        >>> square(pd.DataFrame({"a": ["x"], "b": ["y"], "value": [0.5]}), ["x", "y", "z"]).to_numpy().tolist()
        [[1.0, 0.5], [0.5, 1.0]]
    """
    there = set(pairs["a"]) | set(pairs["b"])
    names = [name for name in order if name in there]
    full = pd.DataFrame(np.where(np.eye(len(names)) > 0, 1.0, np.nan), index=names, columns=names)
    for a, b, value in pairs[["a", "b", "value"]].itertuples(index=False, name=None):
        if a in full.index and b in full.index:
            full.loc[a, b] = full.loc[b, a] = value
    return full


# -- groups --------------------------------------------------------------------------------------------


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


# -- the paper -----------------------------------------------------------------------------------------


def anchors(study: Findings, folder: Path) -> Section:
    """The paper's figures beside this study's."""
    table = study.leam()
    table = table[table["layer"] == study.place]
    rows = [
        ("overlap of maps, same person", "0.32 to 0.57", _span(table["same"])),
        ("overlap of maps, different people", "0.04 to 0.13", _span(table["different"])),
        ("nose among the critical regions", "18.9 to 29.7 %", _nose(study)),
        ("fall of the cosine after the top 1 %, other networks", "0.1148", _one_percent(study, "")),
        ("the same, random positions", "0.0286", _one_percent(study, "random")),
        ("layers of one network", "vary strongly", _pairs(study, "layers")),
        ("networks, overall maps", "similar regions", _pairs(study, "models")),
        (
            "groups",
            "occlusions more effective on images of women",
            "see groups" if len(study["groups"]) else "no labels",
        ),
    ]
    frame = pd.DataFrame(rows, columns=["finding", "paper", "here"])
    note = (
        "As reported in the abstract: other data (1000 people), other networks (9), another parser, and choices that "
        "are not public. The figures "
        "are anchors for the order of magnitude; agreement would not show that the method is the same, nor disagreement that one is wrong."
    )
    blocks: list[Block] = [
        sheet("", frame, [Show("finding", "finding"), Show("paper", "paper"), Show("here", "this study")])
    ]
    if len(table):
        figure = figures.anchor_bands(table.head(2 * PANELS), PAPER_SAME, PAPER_DIFFERENT)
        caption = (
            f"Overlap of maps, {_place(study)}, {_critical(table)}. Bands are the paper’s ranges over its networks."
        )
        numbers = table[["model", "same", "same_low", "same_high", "different", "different_low", "different_high"]]
        blocks.append(
            draw(
                Plate(
                    "anchors",
                    "Same and different people",
                    [("", figure)],
                    "coefficients beside the paper's ranges",
                    caption,
                    numbers,
                ),
                folder,
            )
        )
    return Section("anchors", "Beside the paper", note, blocks)


def _span(values: pd.Series, how: Any = number) -> str:
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


# -- how it was made -----------------------------------------------------------------------------------


def made(study: Findings) -> Section:
    """The manifest, folded."""
    told = {key: value for key, value in study.manifest.items() if key not in ELSEWHERE}
    nested = {key: value for key, value in told.items() if isinstance(value, Mapping | list)}
    plain = [(shown_key(key), shown(value)) for key, value in told.items() if key not in nested]
    blocks: list[Block] = [Facts(shown_key(key), _flat(value), closed=True) for key, value in nested.items()]
    if plain:
        blocks.insert(0, Facts("", plain))
    text = "All of it is in manifest.json; captum-leam study --check repeats the study and compares."
    return Section("made", "Made with", text, blocks)


def shown_key(key: str) -> str:
    """A key of the manifest as a name."""
    return shown(key).replace("_", " ")


ELSEWHERE = ("skipped", "shards")
"""Of the manifest: what has its own section, and what is too long to read."""

LINES = 120


def _flat(value: Any) -> list[tuple[str, str]]:
    """Nested values as names and texts; of long lists the beginning."""
    lines = list(_walk("", value))
    if len(lines) > LINES:
        return [*lines[:LINES], ("…", f"{len(lines) - LINES} more lines in manifest.json")]
    return lines


def _walk(name: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, Mapping):
        return [
            line
            for key, inner in value.items()
            for line in _walk(f"{name} · {shown_key(key)}" if name else shown_key(key), inner)
        ]
    if isinstance(value, list) and any(isinstance(inner, Mapping | list) for inner in value):
        return [line for i, inner in enumerate(value, 1) for line in _walk(f"{name} {i}".strip(), inner)]
    text = (
        ", ".join(map(str, value))
        if isinstance(value, list)
        else f"{value:.6g}"
        if isinstance(value, float)
        else str(value)
    )
    return [(name, shown(text[:500] + "…" * (len(text) > 500)))]
