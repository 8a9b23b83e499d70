"""Write the page, pictures and tables of explained faces into one folder."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from captum_leam._progress import begin_step, count_images
from captum_leam._storage import atomic_folder
from captum_leam._text import safe_name
from captum_leam._version import __version__
from captum_leam.pairs import SIDES
from captum_leam.plots import overlay, region_bars, region_outlines
from captum_leam.reporting.explanation import Explanation
from captum_leam.reporting.figure_style import styled
from captum_leam.reporting.figures import drop_curves, lift_face
from captum_leam.reporting.match_page import match_blocks, match_tables
from captum_leam.reporting.numbers import one_digit, percent, percent_1, three_digits
from captum_leam.reporting.page import (
    Block,
    Cards,
    Column,
    Facts,
    Note,
    Page,
    PictureRow,
    Plate,
    Points,
    Section,
    Sheet,
    as_csv,
    picture,
    sheet,
)

LIMITS = (
    "LEAM is reconstructed from the published abstract of the paper; this page does not reproduce the authors' results.",
    "A map shows evidence of this network's embedding, for these images and this reference: not why the network became so, "
    "nor what people would look at.",
    "Without a reference a map shows what drives the strength of the embedding, not what makes it match anyone.",
    "Nothing smaller than a cell of the layer can be told apart; maps are interpolated between cells.",
    "Removing pixels makes images the network has never seen: no fill is neutral. Few images give noisy drops; the random pixels "
    "beside them are one control of several (captum_leam.faithfulness has the others, with statistics over people).",
    "Lift and share depend on the labels of the regions; the template is drawn for the standard aligned crop, not parsed from the face.",
)

BARS_WIDTH = 4.6
"""Width of the bars of regions in inches: half of a page."""

RECORD = "settings.json"
"""Name of the file that says how a page was made, and which files belong to it."""


def write_page(
    explanations: Sequence[Explanation], folder: Path, *, title: str, lead: str, settings: Mapping[str, Any]
) -> Path:
    """Write ``index.html``, PNG overlays, figures, CSV tables, and ``settings.json`` with how they were made.

    Args:
        explanations: Explanations, one section each.
        folder: Folder, made if it does not exist. Files that an earlier call wrote there are removed; of others, those of the same names
            are replaced.
        title: Title of the page.
        lead: Sentence under it.
        settings: How all of it was made, by name.

    Returns:
        Path of the page.
    """
    begin_step("writing the page", len(explanations))
    with atomic_folder(folder, _earlier_files(folder)) as place:
        for prefix, explanation in _prefixed(explanations):
            count_images()
            _write_pictures(explanation, place, prefix)
            for kind, table in _tables(explanation).items():
                (place / f"{prefix}{kind}.csv").write_bytes(as_csv(table).encode("utf-8", "backslashreplace"))
        explanation_page(explanations, title=title, lead=lead, settings=settings).write(place / "index.html")
        record = {
            "captum-leam": __version__,
            "title": title,
            "settings": {name: str(value) for name, value in settings.items()},
            "notes": [note for explanation in explanations for note in explanation.messages],
            "files": sorted([*(p.relative_to(place).as_posix() for p in place.rglob("*.*") if p.is_file()), RECORD]),
        }
        text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
        (place / RECORD).write_text(text, encoding="utf-8", errors="backslashreplace")
    return folder / "index.html"


def _prefixed(explanations: Sequence[Explanation]) -> Iterator[tuple[str, Explanation]]:
    """Yield the prefix of the file names of each explanation, and the explanation."""
    for i, explanation in enumerate(explanations, 1):
        yield (f"{i}_" if len(explanations) > 1 else ""), explanation


def _earlier_files(folder: Path) -> list[str]:
    """Return the names of files that an earlier page left in the folder, as far as its record says so."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        names = [str(name) for name in record["files"]] if "captum-leam" in record else []
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [name for name in names if safe_name(name.removeprefix("figures/")) == name.removeprefix("figures/")]


def _write_pictures(explanation: Explanation, folder: Path, prefix: str) -> None:
    for i, name in enumerate(explanation.names):
        stem = f"{prefix}{i:02d}_{safe_name(Path(name).stem)}"
        picture = overlay(explanation.images[i], explanation.overall[i])
        size = (448, 448 * picture.shape[0] // picture.shape[1])
        Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC).save(folder / f"{stem}.png")
        if (photograph := _photograph(explanation, i)) is not None:
            Image.fromarray(photograph).save(folder / f"{stem}_photo.png")
    if explanation.pair is not None:
        explanation.pair.plot(pictures=explanation.photographs).savefig(folder / f"{prefix}pair.png", dpi=150)
    if explanation.match is not None:
        explanation.match.plot().savefig(folder / f"{prefix}match.png", dpi=150)


def _photograph(explanation: Explanation, i: int) -> NDArray[np.uint8] | None:
    return explanation.photographs[i] if explanation.photographs else None


def _tables(explanation: Explanation) -> dict[str, pd.DataFrame]:
    named = dict(enumerate(explanation.names))
    tables = {"regions": explanation.regions, "drops": explanation.occlusion.to_frame()}
    tables = {kind: table.assign(name=table["image"].map(named)) for kind, table in tables.items()}
    if (both := _pair_regions(explanation)) is not None:
        tables["pair_regions"] = both.assign(name=both["face"].map(dict(zip(SIDES, explanation.names, strict=True))))
    if explanation.match is not None:
        tables |= match_tables(explanation.match, explanation.names)
    return tables


def _pair_regions(explanation: Explanation) -> pd.DataFrame | None:
    """Return the evidence for and against the match, by region and face; None without a pair or its regions."""
    if explanation.pair is None or explanation.parts is None:
        return None
    options, parts = explanation.options, explanation.parts
    return explanation.pair.regions(parts.labels, parts.scheme, fraction=options.fraction, seed=options.seed)


# -- the page ------------------------------------------------------------------------------------------


def explanation_page(
    explanations: Sequence[Explanation], *, title: str, lead: str, settings: Mapping[str, Any]
) -> Page:
    """Return the page, one section for each explanation."""
    sections = [_section(explanation, prefix) for prefix, explanation in _prefixed(explanations)]
    sections.append(Section("limits", "What this does not show", "", [Points(LIMITS)]))
    sections.append(Section("made", "How it was made", "", [Facts("", list(settings.items()))]))
    return Page(title, lead, sections)


def _section(explanation: Explanation, prefix: str) -> Section:
    is_pair, both = explanation.pair is not None, _pair_regions(explanation)
    cards = [_card(explanation, i, both) for i in range(len(explanation.names))]
    blocks: list[Block] = [Note(explanation.label, "label")] if explanation.label else []
    if explanation.messages:
        blocks.append(Points(explanation.messages, "warning"))
    if explanation.pair is not None:
        blocks.append(Facts("", list(explanation.pair.facts().items())))
    if explanation.match is not None:
        blocks += match_blocks(explanation.match, explanation.names, prefix)
    blocks += [Cards(cards, wide=is_pair), *_regions(explanation, prefix), *_drops(explanation, prefix)]
    return Section(f"{prefix}faces", explanation.title, explanation.text, blocks)


def _card(explanation: Explanation, i: int, both: pd.DataFrame | None) -> tuple[str, list[Block]]:
    """Return the name of a face, its maps and regions."""
    name, image = explanation.names[i], explanation.images[i]
    pixels = image.detach().cpu().float().clamp(0, 1).expand(3, -1, -1).movedim(0, -1).numpy()
    faces = {
        "face": (pixels * 255).round().astype(np.uint8),
        "overall map": overlay(image, explanation.overall[i]),
    }
    if explanation.pair is not None:
        faces["overall map: for the match"] = faces.pop("overall map")
        faces["against the match"] = overlay(image, explanation.pair.dissimilar[i])
    layers = {layer: overlay(image, maps[i], signed=True) for layer, maps in explanation.layers.items()}
    pictures = [picture(pixels, 112, layer, f"{name}, layer {layer}") for layer, pixels in layers.items()]
    if explanation.parts is not None:
        outlines = region_outlines(image, explanation.parts.labels[i])
        pictures.append(picture(outlines, 336, "regions", f"{name}, outlines of its regions"))
    blocks: list[Block] = [PictureRow([picture(p, 224, what, f"{name}, {what}") for what, p in faces.items()], "large")]
    if (photo := _photograph(explanation, i)) is not None:
        width, caption = min(720, photo.shape[1]), "on the photograph; the outline is the crop"
        blocks.append(PictureRow([picture(photo, width, caption, f"{name}, overall map on the photograph")], "wide"))
    rows = explanation.regions[explanation.regions["image"] == i]
    blocks += [PictureRow(pictures), _region_sheet(rows, None if both is None else both[both["face"] == SIDES[i]])]
    return name, [*blocks, Note(_focus(rows.iloc[0]), "note")]


def _region_sheet(rows: pd.DataFrame, both: pd.DataFrame | None) -> Sheet:
    """Return the regions that hold critical pixels, the highest lift first; of a pair with what speaks against beside."""
    table = rows.set_index("region")[["area", "lift", "share"]]
    of_match = "" if both is None else " for the match"
    columns = [
        Column("region", "region"),
        Column("area", "area", percent_1),
        Column("lift", f"lift{of_match}", one_digit),
        Column("share", f"share{of_match}", percent),
    ]
    if both is not None:
        against = both[both["speaks"] == "against"].set_index("region")[["lift", "share"]]
        table = table.join(against.add_suffix("_against")).fillna(0.0)
        columns += [
            Column("lift_against", "lift against it", one_digit),
            Column("share_against", "share against it", percent),
        ]
    some = table[table.filter(like="share").max(axis=1) > 0]
    return sheet("", some.nlargest(6, "lift").reset_index(), columns)


def _focus(row: pd.Series) -> str:
    pieces = "1 fragment" if row["fragments"] == 1 else f"{row['fragments']} fragments"
    return (
        f"{pieces}, the largest with {row['largest_fragment']:.0%} of the critical pixels; {row['effective_regions']:.1f} effective "
        f"regions; nearest landmark {str(row['nearest_landmark']).replace('_', ' ')}, {row['landmark_distance']:.0f} px."
    )


def _regions(explanation: Explanation, prefix: str) -> list[Block]:
    parts, count = explanation.parts, len(explanation.names)
    if parts is not None and not parts.comparable:
        return [Note("These regions are made anew in every picture, so that there is no mean over faces.", "note")]
    panels = [("", styled(region_bars)(explanation.regions))]
    panels[0][1].set_figwidth(BARS_WIDTH)
    if parts is not None:
        panels.append(("", lift_face(explanation.regions, parts.scheme)))
    caption = (
        f"Mean over {count} face{'s' * (count > 1)}; dots are single faces. Share is that of the critical pixels "
        f"(top {explanation.options.fraction:.1%} of the crop), lift is share over area."
    )
    numbers = _tables(explanation)["regions"]
    alt = "lift of every region, mean over the faces"
    return [Plate(f"{prefix}lift", "Which regions", panels, alt, caption, numbers)]


def _drops(explanation: Explanation, prefix: str) -> list[Block]:
    count, table = len(explanation.names), explanation.occlusion.summary()
    caption = (
        f"Mean fall of the cosine to the reference after replacing the pixels that a map names first "
        f"({explanation.options.fill} fill), {count} image{'s' * (count > 1)}. A map that says something falls further "
        "than random pixels. Bands are 95 % intervals over the images."
    )
    names = table["method"].where(table["method"] != "", table["control"])
    first, *others = dict.fromkeys(names)
    wide = table.assign(map=names).pivot_table(index="map", columns="fraction", values="drop", sort=False)
    wide.columns = pd.Index([f"{100 * fraction:g} %" for fraction in wide.columns])
    columns = [Column("map", "map"), *[Column(name, name, three_digits) for name in wide.columns]]
    figure = drop_curves(table.assign(control=names.where(names != first, "")), others)
    alt = "mean fall of the cosine against the share of pixels occluded"
    return [
        sheet("Is it true?", wide.reset_index(), columns),
        Plate(f"{prefix}curves", "", [("", figure)], alt, caption, table),
    ]
