"""Build the page of one person, which is made on request only: maps, regions and drops beside those of all people."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from urllib.parse import quote

import numpy as np
from matplotlib.figure import Figure

from captum_leam._optional import pd
from captum_leam._stores import AnyPath, as_path, local_file
from captum_leam._text import safe_name
from captum_leam.errors import CaptumLeamError, InputTypeError
from captum_leam.faces import read_crop
from captum_leam.reporting import figures, quantities
from captum_leam.reporting.findings import Findings
from captum_leam.reporting.numbers import number, percent, whole_number
from captum_leam.reporting.page import Block, Column, Note, Page, Picture, PictureRow, Section, picture, sheet
from captum_leam.reporting.quantities import reading_section
from captum_leam.reporting.schema import OVERALL
from captum_leam.reporting.study_sections import NETWORK, controls_of, drop_curves, maps_plate, per_model
from captum_leam.reporting.summary import person_summary

LIMITS = (
    "The page shows what networks used in these images of one person, and not who the person is. Few images say little, because "
    "differences from other people may be those of light, pose or expression."
)
NO_MAPS = "There is no mean map of the person, because the study kept no maps of single images (store_maps: overall keeps them)."


def check_people(study: Findings, people: Sequence[str], show_faces: bool) -> None:
    """Raise if the study has no image of the people.

    Args:
        study: Findings of the study.
        people: Names of people.
        show_faces: Whether their pages show their crops.

    Raises:
        InputTypeError: If ``people`` is a text instead of a list.
        CaptumLeamError: If the study used no image of a person, or ``show_faces`` is True without people.
    """
    if isinstance(people, str):
        raise InputTypeError(f"Expected `people` to be a list of names, got the text {people!r}. Pass [{people!r}].")
    if show_faces and not people:
        raise CaptumLeamError("Expected names in `people` for `show_faces`, got none. Pass people=[…].")
    known = study.people
    for person in people:
        if person not in known:
            near = get_close_matches(person, known, n=3, cutoff=0.4)
            hint = f" Similar names: {', '.join(near)}." if near else ""
            raise CaptumLeamError(
                f"Expected `people` to be among the {len(known)} people whose images the study used, got {person!r}.{hint}"
            )


def page_name(person: str) -> str:
    """Return the file name of the page of a person, which differs for each name."""
    safe = safe_name(person)
    if safe == person != "" and not person.startswith((".", "-")):
        return f"{person}.html"
    digest = hashlib.sha256(person.encode("utf-8", "replace")).hexdigest()[:8]
    return f"{safe.strip('.-')}-{digest}.html"


def person_page(study: Findings, person: str, report: str, show_faces: bool) -> Page:
    """Return the page of a person, whose figures go to the folder of those of the report.

    Args:
        study: Findings of the study.
        person: Name of the person.
        report: File name of the study's page.
        show_faces: Whether the page shows the person's crops.
    """
    stem = f"person_{page_name(person).removesuffix('.html')}"
    images = study["images"][study["images"]["person"] == person]
    used, skipped = images[images["status"] == "ok"], images[images["status"] != "ok"]
    blocks = [_scores(study, person)]
    if len(skipped):
        blocks.append(sheet("Skipped", skipped, [Column("path", "file"), Column("reason")]))
    if show_faces:
        blocks += _faces(study, used)
    plates = [*_maps(study, person, stem), *_regions(study, person, stem), *_drops(study, person, stem)]
    has_maps = any((study.folder / "maps" / "people").glob("*.npz"))
    nothing = Note("The study has no maps of this person.")
    sections = [
        Section("images", "Images and scores", "", blocks),
        Section("evidence", "Evidence of the networks", "" if has_maps else NO_MAPS, plates or [nothing]),
        reading_section(quantities.PERSON),
        Section("limits", "What this does not show", LIMITS),
    ]
    lead = f"One of the {len(study.people)} people of the study."
    summary, back = person_summary(study, person), f"../{quote(report)}"
    return Page(person, lead, sections, summary=summary, back=back, figures="../figures/")


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
        Column("min", "lowest cosine", number),
    ]
    others = [Column("median", "median of all people", number), Column("below", "people with a lower mean", percent)]
    columns = [NETWORK, *own_columns, *others]
    note = "Cosine of each image to the mean of the person’s other images, from −1 to 1. Higher means that the person is recognised better."
    return sheet("Cosine to the person’s other images", own, columns, note=note)


def _maps(study: Findings, person: str, stem: str) -> list[Block]:
    found = {model: study.person_map(model, person) for model in study.explained}
    maps = {model: {OVERALL: values} for model, values in found.items() if values is not None}
    caption = (
        "Bright places are those that the maps of this person name on average. The map is scaled by its maximum; lines are the template "
        "and not the person, and the numbers are the share of each ninth of the crop."
    )
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
        "A region is unusual for this person where the dot lies outside the grey line. Dots are this person’s mean share of the critical "
        "pixels, grey lines the range of 90 % of the people, and ticks their median."
    )
    title, numbers = "Regions beside those of all people", pd.concat(tables, ignore_index=True)
    columns = ["model", "region", "person", "median", "low", "high"]
    return [per_model(f"{stem}_regions", title, numbers, draw, "shares of regions", caption, columns)]


def _drops(study: Findings, person: str, stem: str) -> list[Block]:
    own = study.own(study.rows("drops", person=person, fill=study.fill, measured=study.explained))
    if not len(own):
        return []
    by_fraction = own.groupby(["measured", "control", "fraction"], sort=False)["drop"]
    table = by_fraction.agg(drop="mean", low="min", high="max").reset_index()
    draw, alt = drop_curves(controls_of(table)), "mean drop by fraction"
    caption = (
        "The map is faithful for this person where the blue line lies above those of the controls. Lines are the mean fall of the cosine "
        f"over the person’s images ({study.fill} fill), and bands reach from the smallest to the largest fall."
    )
    return [per_model(f"{stem}_drops", "Fall of the cosine", table, draw, alt, caption, by="measured")]


def _faces(study: Findings, used: pd.DataFrame) -> list[Block]:
    """Return the person's crops, from the same bytes that were studied."""
    root, crops = _root(study), used[used["crop"] == "crop"]
    read = [_crop(root, path, sha256) for path, sha256 in zip(crops["path"], crops["sha256"], strict=True) if root]
    pictures = [crop for crop in read if crop is not None]
    found: list[Block] = [PictureRow(pictures)] if pictures else []
    if missing := len(used) - len(pictures):
        reason = "because their files were moved or changed since, or are photographs whose crops are not kept"
        found.append(Note(f"{missing} of {len(used)} pictures are not shown, {reason}.", "note"))
    return found


def _root(study: Findings) -> AnyPath | None:
    configuration = study.manifest.get("configuration")
    people = configuration.get("people") if isinstance(configuration, Mapping) else None
    where = people.get("path") if isinstance(people, Mapping) else people
    if not isinstance(where, str):
        return None
    return as_path(where).parent if where.lower().endswith(".csv") else as_path(where)


def _crop(root: AnyPath, name: str, sha256: str) -> Picture | None:
    try:
        with local_file(as_path(name, root)) as file:
            if hashlib.sha256(file.read_bytes()).hexdigest() != sha256:
                return None
            pixels = (read_crop(file).movedim(0, -1).numpy() * 255).round().astype(np.uint8)
    except (OSError, ValueError):
        return None
    return picture(pixels, pixels.shape[1], name, name)
