"""Build the page of one person, made only on request: their maps, regions and drops beside everybody's."""

import hashlib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd

from captum_leam._text import safe_name
from captum_leam.errors import CaptumLeamError, InputTypeError
from captum_leam.faces import read_crop
from captum_leam.reporting import figures
from captum_leam.reporting.findings import Findings
from captum_leam.reporting.page import (
    Block,
    Column,
    Note,
    Page,
    Picture,
    Pictures,
    Section,
    number,
    percent,
    picture,
    plate,
    sheet,
    whole_number,
)
from captum_leam.reporting.study_sections import NETWORK, controls_of

LIMITS = (
    "The page shows what networks took from these images of one person, not who they are. Few images say little: differences from "
    "others may be those of light, pose or expression."
)
NO_MAPS = "Maps of single images were not kept (store_maps: overall keeps them): there is no mean map of the person."


def check_people(study: Findings, people: Sequence[str], show_faces: bool) -> None:
    """Raise if the study does not know the people.

    Raises:
        InputTypeError: For one text in place of a list.
        CaptumLeamError: For unknown people, with names that are close; for ``show_faces`` without people.
    """
    if isinstance(people, str):
        raise InputTypeError(f"Expected `people` to be a list of names, got the text {people!r}. Pass [{people!r}].")
    if show_faces and not people:
        raise CaptumLeamError("`show_faces` shows the crops of those named in people=[…], but nobody is named.")
    known = study.people
    for person in people:
        if person not in known:
            near = get_close_matches(person, known, n=3, cutoff=0.4)
            hint = f" Near: {', '.join(near)}." if near else ""
            raise CaptumLeamError(f"{person!r} has no image that the study used; it has {len(known)} people.{hint}")


def page_name(person: str) -> str:
    """Return the name of the page of one person, different for every name.

    Example:
        >>> page_name("s01"), page_name("a/b")[:4]
        ('s01.html', 'a_b-')
    """
    safe = safe_name(person)
    if safe == person != "" and not person.startswith((".", "-")):
        return f"{person}.html"
    digest = hashlib.sha256(person.encode("utf-8", "replace")).hexdigest()[:8]
    return f"{safe.strip('.-')}-{digest}.html"


def person_page(study: Findings, person: str, report: str, show_faces: bool) -> Page:
    """Return the page of a person; its drawings stand beside those of the report.

    Args:
        study: Findings of the study.
        person: Name of the person.
        report: Name of the page that it belongs to.
        show_faces: Whether it shows the crops.
    """
    stem = f"person_{page_name(person).removesuffix('.html')}"
    images = study["images"][study["images"]["person"] == person]
    used, skipped = images[images["status"] == "ok"], images[images["status"] != "ok"]
    blocks = [_scores(study, person)]
    if len(skipped):
        blocks.append(sheet("Skipped", skipped, [Column("path", "file"), Column("reason", "why")]))
    if show_faces:
        blocks += _faces(study, used)
    plates = [*_maps(study, person, stem), *_regions(study, person, stem), *_drops(study, person, stem)]
    has_maps = any((study.folder / "maps" / "people").glob("*.npz"))
    nothing = Note("The study holds nothing about it.")
    sections = [
        Section("images", "Images and scores", "", blocks),
        Section("shown", "What the networks took", "" if has_maps else NO_MAPS, plates or [nothing]),
        Section("limits", "Limits", LIMITS),
    ]
    lead, back = f"One of {len(study.people)} people.", f"../{quote(report)}"
    return Page(person, lead, sections, back=back, figures="../figures/")


def _scores(study: Findings, person: str) -> Block:
    scores = study["scores"]
    own = scores[scores["person"] == person].groupby("model", sort=False)["cosine"].agg(["size", "mean", "min"])
    own = own.reset_index()
    of_people = scores.groupby(["model", "person"], sort=False)["cosine"].mean()
    own["median"] = own["model"].map(of_people.groupby("model", sort=False).median())
    own["below"] = [float((of_people[m] < mean).mean()) for m, mean in zip(own["model"], own["mean"], strict=True)]
    columns = [
        NETWORK,
        Column("size", "images", whole_number),
        Column("mean", "mean cosine", number),
        Column("min", "least", number),
        Column("median", "median of all people", number),
        Column("below", "people below", percent),
    ]
    return sheet("Cosine to the person’s other images", own, columns)


def _maps(study: Findings, person: str, stem: str) -> list[Block]:
    found = {model: values for model in study.explained if (values := study.person_map(model, person)) is not None}
    if not found:
        return []
    panels = [(model, figures.mean_maps({"": values})) for model, values in found.items()]
    caption = "Mean of the person’s maps; lines are the template, not the person."
    numbers = figures.shares_of_ninths({(model,): values for model, values in found.items()}, ["model"])
    return [plate(f"{stem}_maps", "Mean map", panels, "mean map", caption, numbers)]


def _regions(study: Findings, person: str, stem: str) -> list[Block]:
    panels, tables = [], []
    for model in study.explained:
        rows = study.rows("regions", model=model, layer=study.place)
        means = rows.groupby(["person", "region"], sort=False)["share"].mean().unstack("person")
        if person not in means:
            continue
        columns = {
            "person": means[person],
            "median": means.median(axis=1),
            "low": means.quantile(0.05, axis=1),
            "high": means.quantile(0.95, axis=1),
        }
        table = pd.DataFrame(columns).reset_index().sort_values("median", ascending=False, kind="stable")
        seen = table[(table["person"] >= 0.005) | (table["high"] >= 0.005)]
        panels.append((model, figures.among_others(seen)))
        tables.append(table.assign(model=model)[["model", *table.columns]])
    if not panels:
        return []
    caption = (
        "Share of the critical pixels: the dot is this person’s mean, the line what 90 % of the people lie within, "
        "the tick their median."
    )
    numbers = pd.concat(tables, ignore_index=True)
    return [plate(f"{stem}_regions", "Regions, beside everybody", panels, "shares of regions", caption, numbers)]


def _drops(study: Findings, person: str, stem: str) -> list[Block]:
    rows = study.rows("drops", person=person, fill=study.fill)
    own = rows[(rows["measured"] == rows["explained"]) & (rows["layer"] == study.place) | (rows["method"] == "")]
    if not len(own):
        return []
    by_fraction = own.groupby(["measured", "control", "fraction"], sort=False)["drop"]
    table = by_fraction.agg(drop="mean", low="min", high="max").reset_index()
    controls = controls_of(table)
    measured = [model for model in study.explained if model in set(table["measured"])]
    panels = [(m, figures.drop_curves(table[table["measured"] == m], controls)) for m in measured]
    caption = f"Mean fall of the cosine over the person’s images, {study.fill} fill; bands reach from the least to the largest."
    return [plate(f"{stem}_drops", "Fall of the cosine", panels, "mean drop by fraction", caption, table)]


def _faces(study: Findings, used: pd.DataFrame) -> list[Block]:
    """Return the person's crops, of the very bytes that were studied."""
    root = _root(study)
    crops = used[used["crop"] == "crop"].to_dict("records") if root else []
    read = [_crop(root / row["path"], row["path"], row["sha256"]) for row in crops if root]
    pictures = [crop for crop in read if crop is not None]
    found: list[Block] = [Pictures(pictures)] if pictures else []
    if missing := len(used) - len(pictures):
        why = "moved or changed since, or photographs, whose crops are not kept"
        found.append(Note(f"{missing} of {len(used)} pictures are not shown: {why}.", "note"))
    return found


def _root(study: Findings) -> Path | None:
    configuration = study.manifest.get("configuration")
    people = configuration.get("people") if isinstance(configuration, Mapping) else None
    where = people.get("path") if isinstance(people, Mapping) else people
    if not isinstance(where, str):
        return None
    return Path(where).parent if where.lower().endswith(".csv") else Path(where)


def _crop(path: Path, name: str, sha256: str) -> Picture | None:
    try:
        if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            return None
        pixels = (read_crop(path).movedim(0, -1).numpy() * 255).round().astype(np.uint8)
    except (OSError, ValueError):
        return None
    return picture(pixels, pixels.shape[1], name, name)
