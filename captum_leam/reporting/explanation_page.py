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
from torch import Tensor

from captum_leam._optional import pd
from captum_leam._progress import begin_step, count_images
from captum_leam._storage import atomic_folder
from captum_leam._text import printable, safe_name
from captum_leam._version import __version__
from captum_leam.pairs import SIDES
from captum_leam.plots import correspondence_lines, overlay, region_bars, region_outlines
from captum_leam.reporting import quantities
from captum_leam.reporting.explorer import explorer
from captum_leam.reporting.figure_style import styled
from captum_leam.reporting.figures import drop_curves, humanise, lift_face
from captum_leam.reporting.json_result import as_json, explanation_record
from captum_leam.reporting.match_page import match_blocks, match_tables
from captum_leam.reporting.numbers import (
    counted,
    number,
    one_digit,
    p_value,
    percent,
    percent_1,
    significant,
    three_digits,
)
from captum_leam.reporting.page import (
    Block,
    Cards,
    ColourBar,
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
from captum_leam.reporting.quantities import reading_section
from captum_leam.reporting.summary import explanation_summary

if TYPE_CHECKING:
    from captum_leam.reporting.explanation import Explanation

LIMITS = (
    "LEAM is reconstructed from the published abstract of the paper; this page does not reproduce the authors' results.",
    "A map shows evidence of this network's embedding for these images and this reference. It does not show why the network became so, "
    "or what people would look at.",
    "Without a reference a map shows what drives the strength of the embedding, and not what makes it match anyone.",
    "A map cannot resolve anything smaller than a cell of the layer, because it is interpolated between cells.",
    "Occluded images are unlike those that the network was trained on, so that no fill is neutral. Few images give noisy drops, and "
    "random pixels are one control of several (captum_leam.faithfulness has the others, with statistics over people).",
    "Lift and share depend on the labels of the regions. The template is drawn for the standard aligned crop and not parsed from the face.",
)

MAX_CERTAINTY_FIGURES = 4
"""Largest number of faces whose certainty is drawn; every face has a sentence."""

BARS_WIDTH = 4.6
"""Width of the bars of regions in inches, half of a page."""

MAPS = "maps.npz"
"""Name of the file of all maps with the arrays ``overall`` and ``against`` (N, H, W), ``signed`` (L, N, H, W), ``layers`` and ``names``."""

NOTE_ON_DROPS = "Mean fall of the cosine by the share of the pixels that is replaced. A faithful map falls further than random pixels."

LINES = 10
"""Number of the strongest correspondences that are drawn and listed."""

RESULT = "explanation.json"
"""Name of the machine-readable result."""

RECORD = "settings.json"
"""Name of the file with the settings of a page and the files that belong to it."""


def write_page(
    explanations: Sequence[Explanation], folder: Path, *, title: str, lead: str = "", settings: Mapping[str, Any]
) -> Path:
    """Write the page of explanations with its pictures, tables and settings into a folder.

    The folder then has ``index.html``, PNG overlays, figures, CSV tables, ``explanation.json`` and ``settings.json``.

    Args:
        explanations: Explanations, one section of the page each.
        folder: Folder, which is created if it does not exist. Files that an earlier call wrote are removed, and other files of the
            same names are replaced.
        title: Title of the page.
        lead: Sentence under the title, above the summary. Default: none.
        settings: Settings by name, listed at the end of the page.

    Returns:
        Path of the page.

    Raises:
        OSError: If the folder cannot be written to.

    See Also:
        :func:`~captum_leam.reporting.explain_files`: Explanation of files.

    Example:
        >>> import tempfile
        >>> from captum_leam import suggest_layers
        >>> from captum_leam.regions import TemplateParser
        >>> from captum_leam.reporting import ExplainOptions, explain_images
        >>> from captum_leam.synthetic import EmbeddingNet, SyntheticPopulation
        >>> model, faces, parser = EmbeddingNet().eval(), SyntheticPopulation(2).sample(1).images[:1], TemplateParser()
        >>> options = ExplainOptions(preset="fast", n_steps=1, explored=0)
        >>> layers = suggest_layers(model, faces)
        >>> found = explain_images(model, faces, ["ann"], layers, parser(faces), parser.scheme, options=options)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_page([found], Path(folder), title="ann", settings=found.settings).name
        'index.html'
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
    map_files = []
    for i, name in enumerate(explanation.names):
        stem = f"{prefix}{i:02d}_{safe_name(Path(name).stem)}"
        picture = overlay(explanation.images[i], explanation.overall[i])
        size = (448, 448 * picture.shape[0] // picture.shape[1])
        Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC).save(folder / f"{stem}.png")
        map_files.append({"overall": f"{stem}.png"})
        if (photograph := _photograph(explanation, i)) is not None:
            Image.fromarray(photograph).save(folder / f"{stem}_photo.png")
            map_files[i]["photograph"] = f"{stem}_photo.png"
    if explanation.pair is not None:
        explanation.pair.plot(pictures=explanation.photographs or None).savefig(folder / f"{prefix}pair.png", dpi=150)
    if explanation.match is not None:
        explanation.match.plot().savefig(folder / f"{prefix}match.png", dpi=150)
    return map_files


def _maps(explanation: Explanation) -> bytes:
    """Return the content of the file of all maps."""
    buffer = io.BytesIO()
    signed = [maps.detach().cpu().float().numpy() for maps in explanation.layers.values()]
    np.savez_compressed(
        buffer,
        overall=explanation.overall.detach().cpu().float().numpy(),
        against=explanation.against.detach().cpu().float().numpy(),
        signed=np.stack(signed) if signed else np.empty((0, *explanation.overall.shape), np.float32),
        layers=np.array([printable(name) for name in explanation.layers], dtype=np.str_),
        names=np.array([printable(name) for name in explanation.names], dtype=np.str_),
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
    explanations: Sequence[Explanation], *, title: str, lead: str = "", settings: Mapping[str, Any]
) -> Page:
    """Return the page, one section for each explanation."""
    sections = [_section(explanation, prefix) for prefix, explanation in _prefixed(explanations)]
    sections.append(reading_section(_quantities(explanations)))
    sections.append(Section("limits", "What this does not show", "", [Points(LIMITS)]))
    sections.append(Section("made", "How it was made", "", [Facts("", list(settings.items()))]))
    return Page(title, lead, sections, summary=explanation_summary(explanations))


def _quantities(explanations: Sequence[Explanation]) -> list[str]:
    """Return the quantities that the page shows."""
    certain = any(explanation.certainty is not None for explanation in explanations)
    paired = any(explanation.pair is not None for explanation in explanations)
    matched = any(explanation.match is not None for explanation in explanations)
    return [*quantities.FACES, *quantities.CERTAINTY * certain, *quantities.PAIR * paired, *quantities.MATCH * matched]


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
        comparable = explanation.parts is None or explanation.parts.is_comparable
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
    """Return a sentence and a table about the certainty of the map of a face, on each model; nothing where it was not measured."""
    if explanation.certainty is None:
        return []
    table = explanation.certainty.to_frame()
    columns = [
        Column("model", "network"),
        Column("drop", "cosine fall", three_digits),
        Column("moved", "elsewhere", three_digits),
        Column("p", "p", p_value),
        Column("overlap", "kept", percent),
    ]
    return [Note(explanation.certainty.sentence(i)), sheet("", table[table["image"] == i], columns)]


def _face(explanation: Explanation, i: int, both: pd.DataFrame | None, *, explored: bool = False) -> list[Block]:
    """Return the maps and regions of a face as pictures and a table; small where the face can be explored above them."""
    name, image = explanation.names[i], explanation.images[i]
    pixels = image.detach().cpu().float().clamp(0, 1).expand(3, -1, -1).movedim(0, -1).numpy()
    width, title = 112 if explored else 224, "overall map"
    if explanation.pair is not None:
        title = "overall map: for the match"
    large = [picture((pixels * 255).round().astype(np.uint8), width, "face", f"{name}, face")]
    maps = {title: explanation.overall[i]}
    if explanation.pair is not None or explored:
        maps["against the match"] = explanation.against[i]
    large += [
        picture(overlay(image, values), width, caption, f"{name}, {caption}", colour_bar(values))
        for caption, values in maps.items()
    ]
    small = [
        picture(
            overlay(image, signed[i], signed=True),
            112,
            layer,
            f"{name}, layer {layer}",
            colour_bar(signed[i], signed=True),
        )
        for layer, signed in explanation.layers.items()
    ]
    if explanation.parts is not None:
        outlines = region_outlines(image, explanation.parts.labels[i])
        small.append(picture(outlines, width * 3 // 2, "regions", f"{name}, outlines of its regions"))
    on_photo: list[Block] = []
    if (photo := _photograph(explanation, i)) is not None:
        width, caption = min(720, photo.shape[1]), "overall map on the photograph; the outline is the crop"
        bar = colour_bar(explanation.overall[i])
        on = picture(photo, width, caption, f"{name}, overall map on the photograph", bar, is_photograph=True)
        on_photo = [PictureRow([on], "wide")]
    rows = explanation.regions[explanation.regions["image"] == i]
    table = _region_sheet(rows, None if both is None else both[both["face"] == SIDES[i]])
    note = Note(_focus(rows.iloc[0]), "note")
    if explored:
        return [PictureRow([*large, *small]), *on_photo, *([] if both is None else [table]), note]
    return [PictureRow(large, "large"), *on_photo, PictureRow(small), table, note]


def colour_bar(values: Tensor, *, signed: bool = False) -> ColourBar:
    """Return the colour bar of a map that is scaled by its largest absolute value, as :func:`captum_leam.plots.overlay` does.

    Args:
        values: Map, shape (H, W).
        signed: Whether negative values are drawn. Default: False.

    Example:
        >>> import torch
        >>> colour_bar(torch.tensor([[0.5, -2.0]]), signed=True)
        ColourBar(colours='signed', low='−2', high='2')
    """
    peak = significant(float(values.abs().max()), 2)
    return ColourBar("signed", f"−{peak}", peak) if signed else ColourBar("positive", "0", peak)


def _region_sheet(rows: pd.DataFrame, both: pd.DataFrame | None) -> Sheet:
    """Return the regions with critical pixels, the highest lift first; for a pair with the evidence against the match beside."""
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
    return (
        f"The critical pixels form {counted(row['fragments'], 'fragment')}, the largest with {percent(row['largest_fragment'])} of them. "
        f"They spread over {row['effective_regions']:.1f} effective regions, {row['landmark_distance']:.0f} px from the nearest landmark "
        f"({humanise(row['nearest_landmark'])})."
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
        "The thicker a line, the more the two positions at its ends add to the cosine. The values are exact, because the model is affine "
        f"after its last positions ({found.grid[0]} × {found.grid[1]}). The strongest {count} of {found.matrix[0].numel()} pairs are "
        f"drawn; all pairs together add {number(float(found.matrix[0].sum()), 3)} and the offset of the head "
        f"{number(float(found.rest[0]), 3)}."
    )
    alt = "lines between positions of the two faces that add most to their cosine"
    return [Plate(f"{prefix}correspondences", "What corresponds", [("", figure)], alt, caption, table)]


def _regions(explanation: Explanation, prefix: str) -> list[Block]:
    parts, count = explanation.parts, len(explanation.names)
    if parts is not None and not parts.is_comparable:
        return [
            Note(
                "Regions of different pictures are different parts of the face, so that there is no mean over faces.",
                "note",
            )
        ]
    panels = [("", styled(region_bars)(explanation.regions))]
    panels[0][1].set_figwidth(BARS_WIDTH)
    if parts is not None:
        panels.append(("", lift_face(explanation.regions, parts.scheme)))
    of_faces = f"Bars are means over {count} faces, and dots are single faces." if count > 1 else "There is one face."
    caption = (
        "The map names a region more often than by chance where its bar reaches beyond the line at 1, which is orange in the drawing. "
        f"{of_faces} Lift is the share of the critical pixels (top {100 * explanation.options.fraction:g} % of the crop) over the area."
    )
    numbers = _tables(explanation)["regions"]
    alt = "lift of every region, mean over the faces"
    return [Plate(f"{prefix}lift", "Which regions", panels, alt, caption, numbers)]


def _drops(explanation: Explanation, prefix: str) -> list[Block]:
    if explanation.occlusion is None:
        return []
    count, table = len(explanation.names), explanation.mean_drops
    caption = (
        "The map is faithful where its line lies above those of Grad-CAM and random pixels. Lines are the mean fall of the cosine to the "
        f"reference after replacing the pixels that a map names first ({explanation.options.fill} fill), over "
        f"{counted(count, 'image')}{', and bands are 95 % intervals over the images' * (count > 1)}."
    )
    names = table["method"].where(table["method"] != "", table["control"])
    first, *others = dict.fromkeys(names)
    wide = table.assign(map=names).pivot_table(index="map", columns="fraction", values="drop", sort=False)
    wide.columns = pd.Index([f"{100 * fraction:g} %" for fraction in wide.columns])
    columns = [Column("map", "pixels named by"), *[Column(name, name, three_digits) for name in wide.columns]]
    figure = drop_curves(table.assign(control=names.where(names != first, "")), others)
    alt = "mean fall of the cosine against the share of pixels occluded"
    return [
        sheet("Is the map faithful?", wide.reset_index(), columns, note=NOTE_ON_DROPS),
        Plate(f"{prefix}curves", "", [("", figure)], alt, caption, table),
    ]


def _certainties(explanation: Explanation, prefix: str) -> list[Block]:
    """Return the figure of the certainty of the first faces' maps."""
    found = explanation.certainty
    if found is None:
        return []
    panels = [(name, styled(found.plot)(i)) for i, name in enumerate(explanation.names[:MAX_CERTAINTY_FIGURES])]
    share = f"{100 * found.settings['fraction']:g} %"
    caption = (
        "The place of a map matters if its diamond lies to the right of most dots, and the map is stable if the dots on the right lie near "
        f"1. Left: fall of the cosine with the top {share} of the pixels occluded (diamond), and with the same shape at other places "
        "of the face that cover as much of it (dots). Right: share of these pixels that stay critical when the map is made again "
        f"under small changes; {number(found.settings['fraction'])} is chance."
    )
    alt = "falls of the cosine for the map and its placements; critical pixels kept under small changes"
    table = _tables(explanation)["certainty"]
    return [Plate(f"{prefix}certainty", "How sure is each map?", panels, alt, caption, table)]
