"""Build the page of one person, made only on request: their maps, regions and drops beside everybody's."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from urllib.parse import quote

import numpy as np
from matplotlib.figure import Figure

from captum_leam._optional import pd
from captum_leam._text import safe_name
from captum_leam.errors import CaptumLeamError, InputTypeError
from captum_leam.faces import read_crop
from captum_leam.reporting import figures
from captum_leam.reporting.findings import Findings
from captum_leam.reporting.numbers import number, percent, whole_number
from captum_leam.reporting.page import Block, Column, Note, Page, Picture, PictureRow, Section, picture, sheet
from captum_leam.reporting.schema import OVERALL
from captum_leam.reporting.study_sections import NETWORK, controls_of, drop_curves, maps_plate, per_model

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
    """Return the name of the page of one person, different for every name."""
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
    by_model = scores[scores["person"] == person].groupby("model", sort=False)["cosine"]
    own = by_model.agg(["size", "mean", "min"]).reset_index()
    of_people = scores.groupby(["model", "person"], sort=False)["cosine"].mean()
    own["median"] = own["model"].map(of_people.groupby("model", sort=False).median())
    own["below"] = [float((of_people[m] < mean).mean()) for m, mean in zip(own["model"], own["mean"], strict=True)]
    own_columns = [
        Column("size", "images", whole_number),
        Column("mean", "mean cosine", number),
        Column("min", "least", number),
    ]
    others = [Column("median", "median of all people", number), Column("below", "people below", percent)]
    columns = [NETWORK, *own_columns, *others]
    return sheet("Cosine to the person’s other images", own, columns)


def _maps(study: Findings, person: str, stem: str) -> list[Block]:
    found = {model: study.person_map(model, person) for model in study.explained}
    maps = {model: {OVERALL: values} for model, values in found.items() if values is not None}
    caption = "Mean of the person’s maps; lines are the template, not the person."
    return maps_plate(f"{stem}_maps", "Mean map", maps, "mean map", caption)


def _regions(study: Findings, person: str, stem: str) -> list[Block]:
    tables = []
    for model in study.explained:
        rows = study.rows("regions", model=model, layer=study.place)
        means = rows.groupby(["person", "region"], sort=False)["share"].mean().unstack("person")
        if person in means:
            low, median, high = (means.quantile(level, axis=1) for level in (0.05, 0.5, 0.95))
            table = pd.DataFrame({"model": model, "person": means[person], "median": median, "low": low, "high": high})
            tables.append(table.reset_index().sort_values("median", ascending=False, kind="stable"))
    if not tables:
        return []

    def draw(part: pd.DataFrame) -> Figure:
        return figures.among_others(part[part[["person", "high"]].max(axis=1) >= 0.005])

    caption = (
        "Share of the critical pixels: the dot is this person’s mean, the line what 90 % of the people lie within, "
        "the tick their median."
    )
    title, numbers = "Regions, beside everybody", pd.concat(tables, ignore_index=True)
    columns = ["model", "region", "person", "median", "low", "high"]
    return [per_model(f"{stem}_regions", title, numbers, draw, "shares of regions", caption, columns)]


def _drops(study: Findings, person: str, stem: str) -> list[Block]:
    own = study.own(study.rows("drops", person=person, fill=study.fill, measured=study.explained))
    if not len(own):
        return []
    by_fraction = own.groupby(["measured", "control", "fraction"], sort=False)["drop"]
    table = by_fraction.agg(drop="mean", low="min", high="max").reset_index()
    draw, alt = drop_curves(controls_of(table)), "mean drop by fraction"
    caption = f"Mean fall of the cosine over the person’s images, {study.fill} fill; bands reach from the least to the largest."
    return [per_model(f"{stem}_drops", "Fall of the cosine", table, draw, alt, caption, by="measured")]


def _faces(study: Findings, used: pd.DataFrame) -> list[Block]:
    """Return the person's crops, of the very bytes that were studied."""
    root, crops = _root(study), used[used["crop"] == "crop"]
    read = [_crop(root, path, sha256) for path, sha256 in zip(crops["path"], crops["sha256"], strict=True) if root]
    pictures = [crop for crop in read if crop is not None]
    found: list[Block] = [PictureRow(pictures)] if pictures else []
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


def _crop(root: Path, name: str, sha256: str) -> Picture | None:
    try:
        if hashlib.sha256((root / name).read_bytes()).hexdigest() != sha256:
            return None
        pixels = (read_crop(root / name).movedim(0, -1).numpy() * 255).round().astype(np.uint8)
    except (OSError, ValueError):
        return None
    return picture(pixels, pixels.shape[1], name, name)
