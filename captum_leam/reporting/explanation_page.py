"""Write the page, pictures and tables of explained faces into one folder."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from captum_leam._optional import pd
from captum_leam._progress import begin_step, count_images
from captum_leam._storage import atomic_folder
from captum_leam._text import safe_name, shown
from captum_leam._version import __version__
from captum_leam.pairs import SIDES
from captum_leam.plots import correspondence_lines, overlay, region_bars, region_outlines
from captum_leam.reporting.explorer import explorer
from captum_leam.reporting.figure_style import styled
from captum_leam.reporting.figures import drop_curves, lift_face
from captum_leam.reporting.json_result import as_json, explanation_record
from captum_leam.reporting.match_page import match_blocks, match_tables
from captum_leam.reporting.numbers import number, one_digit, p_value, percent, percent_1, three_digits
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

if TYPE_CHECKING:
    from captum_leam.reporting.explanation import Explanation

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

MAX_CERTAINTY_FIGURES = 4
"""Faces whose certainty is drawn; all have a sentence."""

BARS_WIDTH = 4.6
"""Width of the bars of regions in inches: half of a page."""

MAPS = "maps.npz"
"""Name of the file of all maps: ``overall`` and ``against`` (N, H, W), ``signed`` (L, N, H, W) of the ``layers``, and the ``names``."""

LINES = 10
"""Strongest correspondences that are drawn and listed."""

RESULT = "explanation.json"
"""Name of the machine-readable result."""

RECORD = "settings.json"
"""Name of the file that says how a page was made, and which files belong to it."""


def write_page(
    explanations: Sequence[Explanation], folder: Path, *, title: str, lead: str, settings: Mapping[str, Any]
) -> Path:
    """Write ``index.html``, PNG overlays, figures, CSV tables, ``explanation.json``, and ``settings.json`` with how they were made.

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
            map_files, tables = _write_pictures(explanation, place, prefix), _tables(explanation)
            (place / f"{prefix}{MAPS}").write_bytes(_maps(explanation))
            table_files = {kind: f"{prefix}{kind}.csv" for kind in tables}
            for kind, table in tables.items():
                (place / table_files[kind]).write_bytes(as_csv(table).encode("utf-8", "backslashreplace"))
            result = explanation_record(explanation, settings=settings, map_files=map_files, table_files=table_files)
            (place / f"{prefix}{RESULT}").write_text(as_json(result), encoding="utf-8")
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


def _write_pictures(explanation: Explanation, folder: Path, prefix: str) -> list[dict[str, str]]:
    """Write the pictures and return kind → file name for each face."""
    written = []
    for i, name in enumerate(explanation.names):
        stem = f"{prefix}{i:02d}_{safe_name(Path(name).stem)}"
        picture = overlay(explanation.images[i], explanation.overall[i])
        size = (448, 448 * picture.shape[0] // picture.shape[1])
        Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC).save(folder / f"{stem}.png")
        written.append({"overall": f"{stem}.png"})
        if (photograph := _photograph(explanation, i)) is not None:
            Image.fromarray(photograph).save(folder / f"{stem}_photo.png")
            written[i]["photograph"] = f"{stem}_photo.png"
    if explanation.pair is not None:
        explanation.pair.plot(pictures=explanation.photographs).savefig(folder / f"{prefix}pair.png", dpi=150)
    if explanation.match is not None:
        explanation.match.plot().savefig(folder / f"{prefix}match.png", dpi=150)
    return written


def _maps(explanation: Explanation) -> bytes:
    """Return the content of the file of all maps."""
    buffer = io.BytesIO()
    signed = [maps.detach().cpu().float().numpy() for maps in explanation.layers.values()]
    np.savez_compressed(
        buffer,
        overall=explanation.overall.detach().cpu().float().numpy(),
        against=explanation.against.detach().cpu().float().numpy(),
        signed=np.stack(signed) if signed else np.empty((0, *explanation.overall.shape), np.float32),
        layers=np.array([shown(name) for name in explanation.layers], dtype=np.str_),
        names=np.array([shown(name) for name in explanation.names], dtype=np.str_),
    )
    return buffer.getvalue()


def _photograph(explanation: Explanation, i: int) -> NDArray[np.uint8] | None:
    return explanation.photographs[i] if explanation.photographs else None


def _tables(explanation: Explanation) -> dict[str, pd.DataFrame]:
    named = dict(enumerate(explanation.names))
    tables = {"regions": explanation.regions}
    if explanation.occlusion is not None:
        tables["drops"] = explanation.occlusion.to_frame()
    if explanation.curves is not None:
        tables["curves"] = explanation.curves
    if explanation.certainty is not None:
        tables["certainty"] = explanation.certainty.to_frame()
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
    count = len(explanation.names)
    explored = _explored(explanation)
    blocks: list[Block] = [Note(explanation.label, "label")] if explanation.label else []
    if explanation.messages:
        blocks.append(Points(explanation.messages, "warning"))
    if explanation.pair is not None:
        blocks.append(Facts("", list(explanation.pair.facts().items())))
    if explanation.match is not None:
        blocks += match_blocks(explanation.match, explanation.names, prefix)
    if explored:
        faces = [_face(explanation, i, both, explored=True) for i in range(explored)]
        certainty = [_certainty(explanation, i) for i in range(explored)]
        comparable = explanation.parts is None or explanation.parts.comparable
        blocks.append(explorer(explanation, f"{prefix}face", faces, certainty=certainty, comparable=comparable))
    if explored < count:
        cards = [
            (explanation.names[i], [*_face(explanation, i, both), *_certainty(explanation, i)])
            for i in range(explored, count)
        ]
        blocks.append(Cards(cards, wide=is_pair))
    blocks += [
        *_certainties(explanation, prefix),
        *_correspondences(explanation, prefix),
        *_regions(explanation, prefix),
        *_drops(explanation, prefix),
    ]
    return Section(f"{prefix}faces", explanation.title, explanation.text, blocks)


def _explored(explanation: Explanation) -> int:
    """Return the number of faces to explore: those with curves, or as many as may be where no drops were measured."""
    if explanation.occlusion is None:
        return min(len(explanation.names), explanation.options.explored)
    return 0 if explanation.curves is None else int(explanation.curves["image"].nunique())


def _certainty(explanation: Explanation, i: int) -> list[Block]:
    """Return how sure the map of a face is, on each model: a sentence and a table; nothing where it was not measured."""
    if explanation.certainty is None:
        return []
    table = explanation.certainty.to_frame()
    columns = [
        Column("model", "occluded on"),
        Column("drop", "cosine falls by", three_digits),
        Column("moved", "elsewhere", three_digits),
        Column("p", "p", p_value),
        Column("overlap", "pixels kept", percent),
    ]
    return [Note(explanation.certainty.sentence(i)), sheet("", table[table["image"] == i], columns)]


def _face(explanation: Explanation, i: int, both: pd.DataFrame | None, *, explored: bool = False) -> list[Block]:
    """Return the maps and regions of a face as pictures and a table; small where the face can be explored above them."""
    name, image = explanation.names[i], explanation.images[i]
    pixels = image.detach().cpu().float().clamp(0, 1).expand(3, -1, -1).movedim(0, -1).numpy()
    faces = {
        "face": (pixels * 255).round().astype(np.uint8),
        "overall map": overlay(image, explanation.overall[i]),
    }
    if explanation.pair is not None:
        faces["overall map: for the match"] = faces.pop("overall map")
    if explanation.pair is not None or explored:
        faces["against the match"] = overlay(image, explanation.against[i])
    layers = {layer: overlay(image, maps[i], signed=True) for layer, maps in explanation.layers.items()}
    width = 112 if explored else 224
    large = [picture(p, width, what, f"{name}, {what}") for what, p in faces.items()]
    small = [picture(pixels, 112, layer, f"{name}, layer {layer}") for layer, pixels in layers.items()]
    if explanation.parts is not None:
        outlines = region_outlines(image, explanation.parts.labels[i])
        small.append(picture(outlines, width * 3 // 2, "regions", f"{name}, outlines of its regions"))
    on_photo: list[Block] = []
    if (photo := _photograph(explanation, i)) is not None:
        width, caption = min(720, photo.shape[1]), "on the photograph; the outline is the crop"
        on = picture(photo, width, caption, f"{name}, overall map on the photograph", is_photograph=True)
        on_photo = [PictureRow([on], "wide")]
    rows = explanation.regions[explanation.regions["image"] == i]
    table = _region_sheet(rows, None if both is None else both[both["face"] == SIDES[i]])
    note = Note(_focus(rows.iloc[0]), "note")
    if explored:
        return [PictureRow([*large, *small]), *on_photo, *([] if both is None else [table]), note]
    return [PictureRow(large, "large"), *on_photo, PictureRow(small), table, note]


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


def _correspondences(explanation: Explanation, prefix: str) -> list[Block]:
    """Return the strongest pairs of positions of the two faces of a pair; nothing where they are not known."""
    found = explanation.correspondences
    if found is None:
        return []
    size = (int(explanation.overall.shape[1]), int(explanation.overall.shape[2]))
    count = min(LINES, found.matrix[0].numel())
    lines, strengths = (
        t[0].detach().cpu()
        for t in (found.lines(size, explanation.maps.field, count=count), found.strengths(count=count))
    )
    figure = styled(correspondence_lines)(explanation.images[0], explanation.images[1], lines, strengths)
    figure.axes[0].set_title("")  # the caption says it
    labels, names = explanation.scheme.relabel(explanation.labels), explanation.scheme.regions
    places = [[names.get(int(labels[i, int(y), int(x)]), "") for x, y in lines[:, 2 * i : 2 * i + 2]] for i in (0, 1)]
    points = pd.DataFrame(lines.numpy(), columns=["x_a", "y_a", "x_b", "y_b"])
    table = points.assign(region_a=places[0], region_b=places[1], strength=strengths.numpy())
    caption = (
        f"What pairs of positions add to the cosine, exactly, because the model is affine after its last positions ({found.grid[0]} × "
        f"{found.grid[1]}): the strongest {count} of {found.matrix[0].numel()}. All pairs together add "
        f"{number(float(found.matrix[0].sum()), 3)}, the offset of the head {number(float(found.rest[0]), 3)}."
    )
    alt = "lines between positions of the two faces that add most to their cosine"
    return [Plate(f"{prefix}correspondences", "What corresponds", [("", figure)], alt, caption, table)]


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
    if explanation.occlusion is None:
        return []
    count, table = len(explanation.names), explanation.mean_drops
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


def _certainties(explanation: Explanation, prefix: str) -> list[Block]:
    """Return the figure of how sure the maps of the first faces are."""
    found = explanation.certainty
    if found is None:
        return []
    panels = [(name, styled(found.plot)(i)) for i, name in enumerate(explanation.names[:MAX_CERTAINTY_FIGURES])]
    share = f"{100 * found.settings['fraction']:g} %"
    caption = (
        f"Fall of the cosine with the map's top {share} of the pixels occluded, and with the same shape at other places of the face that "
        "cover as much of it. p is the chance that a map of this shape at a random place does as well. Right: how "
        "many of these pixels stay critical when the map is remade under small changes; 5 % is chance."
    )
    alt = "falls of the cosine for the map and its placements; critical pixels kept under small changes"
    table = _tables(explanation)["certainty"]
    return [Plate(f"{prefix}certainty", "How sure is each map?", panels, alt, caption, table)]
