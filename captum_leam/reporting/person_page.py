"""A page about one person, made only on request: their maps, regions and drops beside everybody's."""

import hashlib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd

from captum_leam._text import safe_name, shown
from captum_leam.errors import CaptumLeamError, InputTypeError
from captum_leam.faces import read_crop
from captum_leam.reporting import figures
from captum_leam.reporting.explanation_page import picture_uri
from captum_leam.reporting.findings import Findings
from captum_leam.reporting.study_page import (
    Block,
    Note,
    Pictures,
    Plate,
    Section,
    Show,
    draw,
    number,
    render,
    sheet,
    write_page,
)

LIMITS = (
    "The page shows what networks took from these images of one person, not who they are. Few images say little: differences from "
    "others may be those of light, pose or expression."
)

NO_MAPS = "Maps of single images were not kept (store_maps: overall keeps them): there is no mean map of the person."


def check_people(study: Findings, people: Sequence[str], show_faces: bool) -> None:
    """Refuse people that the study does not know.

    Raises:
        InputTypeError: for one text in place of a list.
        CaptumLeamError: for unknown people, with names that are close; for ``show_faces`` without people.
    """
    if isinstance(people, str):
        raise InputTypeError(f"people is the text {people!r}; needed is a list of names: [{people!r}].")
    if show_faces and not people:
        raise CaptumLeamError("show_faces shows the crops of those named in people=[…]; nobody is named.")
    known = study.people
    for person in people:
        if shown(person) not in known:
            near = get_close_matches(shown(person), known, n=3, cutoff=0.4)
            hint = f" Near: {', '.join(near)}." if near else ""
            raise CaptumLeamError(f"{person!r} has no image that the study used; it has {len(known)} people.{hint}")


def page_name(person: str) -> str:
    """A file name of one person only, whatever the name.

    Example:
        >>> page_name("s01"), page_name("a/b")[:4]
        ('s01.html', 'a_b-')
    """
    safe = safe_name(person)
    plain = safe == person != "" and not person.startswith((".", "-"))
    return (
        f"{person}.html"
        if plain
        else f"{safe.strip('.-')}-{hashlib.sha256(person.encode('utf-8', 'replace')).hexdigest()[:8]}.html"
    )


def write_person(study: Findings, person: str, report: Path, show_faces: bool) -> Path:
    """Write ``people/NAME.html`` beside the report, its figures beside those of the report.

    Args:
        study: results.
        person: who.
        report: the page that it belongs to.
        show_faces: show the crops.

    Returns:
        Path of the page.
    """
    person, folder = shown(person), report.parent
    path = folder / "people" / page_name(person)
    stem = f"person_{path.stem}"
    blocks = [*_scores(study, person), *(_faces(study, person) if show_faces else [])]
    plates = [*_maps(study, person, stem), *_regions(study, person, stem), *_drops(study, person, stem)]
    kept = any((study.folder / "maps" / "people").glob("*.npz"))
    drawn: list[Block] = [draw(plate, folder / "figures", "../figures") for plate in plates]
    sections = [
        Section("images", "Images and scores", "", blocks),
        Section(
            "shown",
            "What the networks took",
            "" if kept else NO_MAPS,
            drawn or [Note("The study holds nothing about it.")],
        ),
        Section("limits", "Limits", LIMITS),
    ]
    text = render(
        title=person, lead=f"One of {len(study.people)} people.", sections=sections, back=f"../{quote(report.name)}"
    )
    return write_page(path, text)


def _scores(study: Findings, person: str) -> list[Block]:
    scores = study["scores"]
    own = (
        scores[scores["person"] == person]
        .groupby("model", sort=False)["cosine"]
        .agg(["size", "mean", "min"])
        .reset_index()
    )
    per_person = scores.groupby(["model", "person"], sort=False)["cosine"].mean()
    everyone = per_person.groupby("model", sort=False)
    own["median"] = own["model"].map(everyone.median())
    own["below"] = [float((per_person[m] < mean).mean()) for m, mean in zip(own["model"], own["mean"], strict=True)]
    columns = [
        Show("model", "network"),
        Show("size", "images", lambda v: f"{int(v)}"),
        Show("mean", "mean cosine", number),
        Show("min", "least", number),
        Show("median", "median of all people", number),
        Show("below", "people below", lambda v: f"{100 * v:.0f} %"),
    ]
    skipped = study["images"]
    skipped = skipped[(skipped["person"] == person) & (skipped["status"] != "ok")]
    found: list[Block] = [sheet("Cosine to the person’s other images", own, columns)]
    if len(skipped):
        found.append(sheet("Skipped", skipped, [Show("path", "file"), Show("reason", "why")]))
    return found


def _maps(study: Findings, person: str, stem: str) -> list[Plate]:
    found = {model: values for model in study.explained if (values := study.person_map(model, person)) is not None}
    panels = [(model, figures.mean_maps({"": values})) for model, values in found.items()]
    rows = [(model, *figures.ninths(values)) for model, values in found.items()]
    caption = "Mean of the person’s maps; lines are the template, not the person."
    return (
        [
            Plate(
                f"{stem}_maps",
                "Mean map",
                panels,
                "mean map",
                caption,
                pd.DataFrame(rows, columns=["model", *figures.NINTHS]),
            )
        ]
        if rows
        else []
    )


def _regions(study: Findings, person: str, stem: str) -> list[Plate]:
    panels, tables = [], []
    for model in study.explained:
        rows = study.rows("regions", model=model, layer=study.place)
        if person not in set(rows["person"]):
            continue
        means = rows.groupby(["person", "region"], sort=False)["share"].mean().unstack("person")
        table = pd.DataFrame(
            {
                "model": model,
                "region": means.index,
                "person": means[person].to_numpy(),
                "median": means.median(axis=1).to_numpy(),
                "low": means.quantile(0.05, axis=1).to_numpy(),
                "high": means.quantile(0.95, axis=1).to_numpy(),
            }
        ).sort_values("median", ascending=False, kind="stable")
        seen = table[(table["person"] >= 0.005) | (table["high"] >= 0.005)]
        panels.append((model, figures.among_others(seen)))
        tables.append(table)
    if not panels:
        return []
    caption = (
        "Share of the critical pixels: the dot is this person’s mean, the line what 90 % of the people lie within, "
        "the tick their median."
    )
    numbers = pd.concat(tables, ignore_index=True)
    return [Plate(f"{stem}_regions", "Regions, beside everybody", panels, "shares of regions", caption, numbers)]


def _drops(study: Findings, person: str, stem: str) -> list[Plate]:
    rows = study.rows("drops", person=person, fill=study.fill)
    own = rows[(rows["measured"] == rows["explained"]) & (rows["layer"] == study.place) | (rows["method"] == "")]
    if not len(own):
        return []
    table = (
        own.groupby(["measured", "control", "fraction"], sort=False)["drop"].agg(["mean", "min", "max"]).reset_index()
    )
    table = table.rename(columns={"mean": "drop", "min": "low", "max": "high"})
    controls = [c for c in dict.fromkeys(table["control"]) if c]
    panels = [
        (m, figures.drop_curves(table[table["measured"] == m], controls))
        for m in study.explained
        if m in set(table["measured"])
    ]
    caption = f"Mean fall of the cosine over the person’s images, {study.fill} fill; bands reach from the least to the largest."
    return [Plate(f"{stem}_drops", "Fall of the cosine", panels, "mean drop by fraction", caption, table)]


def _faces(study: Findings, person: str) -> list[Block]:
    """The person's crops, of the very bytes that were studied."""
    images = study["images"]
    own = images[(images["person"] == person) & (images["status"] == "ok")]
    root = _root(study)
    pictures, missing = [], 0
    for row in own.to_dict("records"):
        picture = (
            None
            if root is None or row["crop"] != "crop"
            else _crop(root / study.raw.get(row["path"], row["path"]), row["sha256"])
        )
        missing += picture is None
        if picture is not None:
            pictures.append((str(row["path"]), picture))
    found: list[Block] = [Pictures(pictures)] if pictures else []
    if missing:
        found.append(
            Note(
                f"{missing} of {len(own)} pictures are not shown: moved or changed since, or photographs, whose crops are not kept.",
                "note",
            )
        )
    return found


def _root(study: Findings) -> Path | None:
    configuration = study.manifest.get("configuration")
    people = configuration.get("people") if isinstance(configuration, Mapping) else None
    where = people.get("path") if isinstance(people, Mapping) else people
    if not isinstance(where, str):
        return None
    return Path(where).parent if where.lower().endswith(".csv") else Path(where)


def _crop(path: Path, sha256: str) -> str | None:
    try:
        if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            return None
        pixels = (read_crop(path).movedim(0, -1).numpy() * 255).round().astype(np.uint8)
    except (OSError, ValueError):
        return None
    return picture_uri(pixels, pixels.shape[1])
