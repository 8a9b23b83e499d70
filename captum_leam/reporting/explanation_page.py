"""The page, pictures and tables of explained faces in one folder."""

import base64
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from captum_leam._text import safe_cells, safe_name, shown
from captum_leam._version import __version__
from captum_leam.faithfulness import OcclusionResult
from captum_leam.pairs import SIDES
from captum_leam.plots import occlusion_curves, overlay, region_bars, region_outlines
from captum_leam.regions import lift_drawing
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

WRITTEN = "settings.json"
"""How a page was made, and which files belong to it."""


def write(
    explanations: Sequence[Explanation], folder: Path, *, title: str, lead: str, settings: Mapping[str, Any]
) -> Path:
    """Write ``index.html``, PNG overlays, CSV tables, and ``settings.json`` with how they were made.

    Args:
        explanations: one section each.
        folder: made if it is not there. Files that an earlier call wrote there are removed; of others, those of the same names are
            replaced.
        title: of the page.
        lead: the sentence under it.
        settings: how all of it was made.

    Returns:
        Path of the page.
    """
    with _all_or_nothing(folder) as place:
        written: list[str] = []
        for number, explanation in enumerate(explanations, 1):
            prefix = f"{number}_" if len(explanations) > 1 else ""
            written += _write_tables(explanation, place, prefix)
            written += _write_pictures(explanation, place, prefix)
        page = place / "index.html"
        page.write_text(render_page(explanations, title=title, lead=lead, settings=settings), encoding="utf-8")
        made = {"captum-leam": __version__, "title": title, "settings": {k: str(v) for k, v in settings.items()}}
        notes = [note for explanation in explanations for note in explanation.messages]
        record = {**made, "notes": notes, "files": sorted([*written, page.name, WRITTEN])}
        told = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
        (place / WRITTEN).write_text(told, encoding="utf-8", errors="backslashreplace")
    return folder / page.name


@contextmanager
def _all_or_nothing(folder: Path) -> Iterator[Path]:
    """A place to write files to, which come into the folder together once all are whole, and an earlier page goes.

    Whatever goes wrong, the folder holds what it held before; one that was not there is not there.
    """
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder, prefix=".", suffix=".part") as place:
            made, earlier = Path(place, "made"), Path(place, "earlier")
            made.mkdir()
            earlier.mkdir()
            yield made
            names = sorted(path.name for path in made.iterdir())
            gone = [name for name in {*_earlier(folder), *names} if (folder / name).is_file()]
            _move([(folder / name, earlier / name) for name in gone] + [(made / n, folder / n) for n in names])
    except BaseException:
        for path in new:
            with suppress(OSError):
                path.rmdir()
        raise


def _move(files: Sequence[tuple[Path, Path]]) -> None:
    """Move files, all or none."""
    try:
        for source, target in files:
            source.replace(target)
    except BaseException:
        for source, target in reversed(files):
            if not source.exists():
                target.replace(source)
        raise


def _earlier(folder: Path) -> list[str]:
    """What an earlier page of this package left in the folder, as far as its record says so."""
    try:
        record = json.loads((folder / WRITTEN).read_text(encoding="utf-8"))
        names = [str(name) for name in record["files"]] if "captum-leam" in record else []
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [name for name in names if safe_name(name) == name]


def _write_pictures(explanation: Explanation, folder: Path, prefix: str) -> list[str]:
    drawn = {}
    for i, name in enumerate(explanation.names):
        stem = f"{prefix}{i:02d}_{safe_name(Path(name).stem)}"
        picture = overlay(explanation.images[i], explanation.overall[i])
        large = (448, 448 * picture.shape[0] // picture.shape[1])
        drawn[f"{stem}.png"] = Image.fromarray(picture).resize(large, Image.Resampling.BICUBIC)
        if (photograph := _photograph(explanation, i)) is not None:
            drawn[f"{stem}_photo.png"] = Image.fromarray(photograph)
    for name, image in drawn.items():
        image.save(folder / name)
    if explanation.pair is None:
        return list(drawn)
    explanation.pair.plot(pictures=explanation.photographs).savefig(folder / f"{prefix}pair.png", dpi=150)
    return [*drawn, f"{prefix}pair.png"]


def _photograph(explanation: Explanation, i: int) -> NDArray[np.uint8] | None:
    return explanation.photographs[i] if explanation.photographs else None


def _write_tables(explanation: Explanation, folder: Path, prefix: str) -> list[str]:
    named = dict(enumerate(explanation.names))
    tables = {"regions": explanation.regions, "drops": explanation.occlusion.to_frame()}
    tables = {kind: table.assign(name=table["image"].map(named)) for kind, table in tables.items()}
    if (both := _pair_regions(explanation)) is not None:
        sides = dict(zip(SIDES, explanation.names, strict=True))
        tables["pair_regions"] = both.assign(name=both["face"].map(sides))
    for kind, table in tables.items():
        safe_cells(table).to_csv(folder / f"{prefix}{kind}.csv", index=False, errors="backslashreplace")
    return [f"{prefix}{kind}.csv" for kind in tables]


def _pair_regions(explanation: Explanation) -> pd.DataFrame | None:
    """What speaks for and against, by region and face; None without a pair or its regions."""
    if explanation.pair is None or explanation.parts is None:
        return None
    options, parts = explanation.options, explanation.parts
    return explanation.pair.regions(parts.labels, parts.scheme, fraction=options.fraction, seed=options.seed)


def render_page(explanations: Sequence[Explanation], *, title: str, lead: str, settings: Mapping[str, Any]) -> str:
    """The page as a string of HTML: self-contained, every name escaped, no request to anywhere."""
    from jinja2 import Environment, PackageLoader
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("captum_leam"),
        autoescape=True,
        trim_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else shown(value),
    )
    sections = [_section(explanation) for explanation in explanations]
    context = {"title": title, "lead": lead, "settings": settings, "limits": LIMITS, "version": __version__}
    return environment.get_template("page.html.j2").render(sections=sections, **context)


def _section(explanation: Explanation) -> dict[str, Any]:
    count = len(explanation.names)
    comparable = explanation.parts is None or explanation.parts.comparable
    against = _pair_regions(explanation)
    return {
        "title": explanation.title,
        "text": explanation.text,
        "label": explanation.label,
        "notes": explanation.messages,
        "pair": explanation.pair,
        "facts": {} if explanation.pair is None else explanation.pair.facts(),
        "faces": [_face(explanation, i, against) for i in range(count)],
        "bars": _figure(region_bars(explanation.regions)) if comparable else None,
        "drawing": _drawing(explanation) if comparable else None,
        "regions_note": f"Mean over {count} face{'s' * (count > 1)}; dots are single faces. Share is that of the critical pixels "
        f"(top {explanation.options.fraction:.1%} of the crop), lift is share over area."
        if comparable
        else "These regions are made anew in every picture, so that there is no mean over faces.",
        "occlusion_text": f"Mean fall of the cosine to the reference after replacing the pixels that a map names first "
        f"({explanation.options.fill} fill), {count} image{'s' * (count > 1)}. A map that says something falls further "
        "than random pixels. Bands are 95 % intervals over the images.",
        "drops": _drops(explanation.occlusion),
        "curves": _figure(occlusion_curves(explanation.occlusion)),
    }


def _drawing(explanation: Explanation) -> str | None:
    if explanation.parts is None:
        return None
    return _figure(lift_drawing(explanation.regions, explanation.parts.scheme))


def _face(explanation: Explanation, i: int, both: pd.DataFrame | None) -> dict[str, Any]:
    rows = explanation.regions[explanation.regions["image"] == i]
    first = rows.iloc[0]
    pieces = "1 fragment" if first["fragments"] == 1 else f"{first['fragments']} fragments"
    image = explanation.images[i].detach().cpu().float().clamp(0, 1).expand(3, -1, -1).movedim(0, -1).numpy()
    parts, photo = explanation.parts, _photograph(explanation, i)
    return {
        "name": explanation.names[i],
        "image": picture_uri((image * 255).round().astype(np.uint8)),
        "map": picture_uri(overlay(explanation.images[i], explanation.overall[i])),
        "against": None
        if explanation.pair is None
        else picture_uri(overlay(explanation.images[i], explanation.pair.dissimilar[i])),
        "photograph": None if photo is None else picture_uri(photo, min(720, photo.shape[1])),
        "outlines": None
        if parts is None
        else picture_uri(region_outlines(explanation.images[i], parts.labels[i]), 336),
        "layers": [
            {"name": name, "map": picture_uri(overlay(explanation.images[i], maps[i], signed=True), 112)}
            for name, maps in explanation.layers.items()
        ],
        "two_sided": both is not None,
        "regions": _region_rows(rows, None if both is None else both[both["face"] == SIDES[i]]),
        "focus": f"{pieces}, the largest with {first['largest_fragment']:.0%} of the critical pixels; "
        f"{first['effective_regions']:.1f} effective regions; nearest landmark {str(first['nearest_landmark']).replace('_', ' ')}, "
        f"{first['landmark_distance']:.0f} px.",
    }


def _region_rows(rows: pd.DataFrame, both: pd.DataFrame | None) -> list[dict[Any, Any]]:
    """Regions that hold critical pixels, the highest lift first; of a pair with what speaks against beside."""
    table = rows.set_index("region")[["lift", "share", "area"]]
    if both is not None:
        other = both[both["speaks"] == "against"].set_index("region")[["lift", "share"]]
        table = table.join(other.add_suffix("_against")).fillna(0.0)
    some = table[table.filter(like="share").max(axis=1) > 0]
    return some.nlargest(6, "lift").reset_index().to_dict("records")


def _drops(result: OcclusionResult) -> pd.DataFrame:
    table = result.summary()
    table["map"] = table["method"].where(table["method"] != "", table["control"])
    wide = table.pivot_table(index="map", columns="fraction", values="drop", sort=False)
    wide.columns = pd.Index([f"{100 * fraction:g} %" for fraction in wide.columns])
    return wide.map(lambda drop: f"{drop:.3f}").reset_index()


def picture_uri(pixels: NDArray[np.uint8], width: int = 224) -> str:
    """A picture (H, W, 3), uint8, as the address of a PNG of that width which needs no file.

    Example:
        >>> picture_uri(np.zeros((2, 2, 3), np.uint8), 2)[:22]
        'data:image/png;base64,'
    """
    height = width * pixels.shape[0] // pixels.shape[1]
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _figure(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
