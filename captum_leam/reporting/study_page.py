"""Building blocks of a study's pages: drawings with their numbers, sortable tables, and the page that holds them.

A page asks nothing of any network: its policy forbids every request, its one script is named by its hash, and everything that comes from
files, people or models is escaped.
"""

import base64
import hashlib
import io
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure

from captum_leam._storage import atomic_write, write_bytes
from captum_leam._text import safe_cells, shown
from captum_leam._version import __version__
from captum_leam.plots import COLOURS
from captum_leam.reporting.figures import INK, LINE, NOTE, PAPER, STYLE

INLINE_CSV = 100_000
"""Bytes up to which the numbers of a drawing are held by the page too; over it, it points to the file beside it."""

ROWS = 100
"""Rows of a table that the page shows; all of them are in the file."""

THEME = {INK: "var(--ink)", NOTE: "var(--note)", LINE: "var(--line)", PAPER: "var(--paper)"} | {
    colour: f"var(--c{i})" for i, colour in enumerate(COLOURS[:6])
}

NAN = "–"


# -- numbers -------------------------------------------------------------------------------------------


def number(value: Any, digits: int = 2) -> str:
    """A number with a fixed count of digits and a true minus; a dash where it is not known.

    Example:
        >>> number(-0.126), number(float("nan"))
        ('−0.13', '–')
    """
    if value is None or not math.isfinite(value):
        return NAN
    text = f"{value:.{digits}f}"
    return text.replace("-", "−") if float(text) else f"{0:.{digits}f}"


def percent(value: Any, digits: int = 0) -> str:
    """A share as percent.

    Example:
        >>> percent(0.286, 1).split()
        ['28.6', '%']
    """
    text = number(None if value is None else 100 * value, digits)
    return text if text == NAN else f"{text}\N{NO-BREAK SPACE}%"


def p_value(value: Any) -> str:
    """A p-value: three digits, or under 0.001.

    Example:
        >>> p_value(0.00004).split(), p_value(0.2)
        (['<', '0.001'], '0.200')
    """
    if value is None or not math.isfinite(value):
        return NAN
    return "<\N{NO-BREAK SPACE}0.001" if value < 0.001 else f"{value:.3f}"


def interval(low: Any, high: Any, digits: int = 2) -> str:
    """An interval in brackets; nothing where it is not known.

    Example:
        >>> interval(0.1, 0.25).split()
        ['[0.10,', '0.25]']
    """
    known = math.isfinite(low) and math.isfinite(high)
    return f"[{number(low, digits)},\N{NO-BREAK SPACE}{number(high, digits)}]" if known else ""


def estimate(value: Any, low: Any, high: Any, digits: int = 2) -> str:
    """A number with its interval behind it, in one piece.

    Example:
        >>> estimate(0.2, 0.1, 0.25).split()
        ['0.20', '[0.10,', '0.25]']
    """
    return f"{number(value, digits)}\N{NO-BREAK SPACE}{interval(low, high, digits)}".strip()


def as_csv(table: pd.DataFrame) -> str:
    """A table as CSV with six digits."""
    return safe_cells(table).to_csv(index=False, float_format="%.6g", lineterminator="\n")


# -- tables --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """What a table shows at one place, and what it is sorted by."""

    text: str
    value: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Show:
    """One column of a shown table.

    Attributes:
        column: of the frame.
        label: at its head.
        how: a number to its text; None for texts.
        ends: columns of its interval.
    """

    column: str
    label: str
    how: Callable[[Any], str] | None = None
    ends: tuple[str, str] | None = None
    digits: int = 2


@dataclass(frozen=True)
class Sheet:
    """A sortable table."""

    title: str
    heads: list[tuple[str, bool]]
    """Label, and whether the column holds numbers."""
    rows: list[list[Cell]]
    total: int
    closed: bool = False
    kind: str = "sheet"


def sheet(title: str, table: pd.DataFrame, columns: Sequence[Show], *, closed: bool = False) -> Sheet:
    """The named columns of a table, its first :data:`ROWS` rows; folded in when ``closed``.

    Example:
        >>> found = sheet("t", pd.DataFrame({"a": ["x"], "b": [0.5]}), [Show("a", "name"), Show("b", "share", percent)])
        >>> [cell.value for cell in found.rows[0]]
        [None, 0.5]
    """
    present = [c for c in columns if c.column in table.columns]
    rows = [[_cell(row, c) for c in present] for row in table.head(ROWS).to_dict("records")]
    return Sheet(title, [(c.label, c.how is not None) for c in present], rows, len(table), closed)


def _cell(row: Mapping[Any, Any], column: Show) -> Cell:
    value = row[column.column]
    if column.how is None:
        return Cell(shown(value))
    note = interval(row[column.ends[0]], row[column.ends[1]], column.digits) if column.ends else ""
    return Cell(column.how(value), None if value is None or not math.isfinite(value) else float(value), note)


def all_columns(title: str, table: pd.DataFrame) -> Sheet:
    """A table as it is, numbers with four significant digits."""
    numeric = {name: pd.api.types.is_numeric_dtype(table[name]) for name in table}
    columns = [Show(str(name), shown(name), _significant if numeric[name] else None) for name in table]
    return sheet(title, table, columns)


def _significant(value: Any) -> str:
    if value is None or not math.isfinite(value):
        return NAN
    return f"{value:.4g}".replace("-", "−")


# -- drawings ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plate:
    """Drawings side by side that share one caption and one table of numbers.

    Attributes:
        name: of its files.
        title: over it.
        panels: (title, figure) in order.
        alt: what a reader who cannot see it should know.
        caption: under it.
        numbers: what is drawn.
    """

    name: str
    title: str
    panels: list[tuple[str, Figure]]
    alt: str
    caption: str
    numbers: pd.DataFrame


@dataclass(frozen=True)
class DrawnPlate:
    """A plate as the page shows it."""

    name: str
    title: str
    panels: list[tuple[str, Markup]]
    caption: str
    csv: str
    """Address of the numbers: data, or the file beside the page."""
    numbers: Sheet
    kind: str = "plate"


def draw(plate: Plate, folder: Path, beside: str = "figures") -> DrawnPlate:
    """Write ``NAME.csv`` and ``NAME_i.svg`` into the folder and return what the page shows."""
    folder.mkdir(parents=True, exist_ok=True)
    text = as_csv(plate.numbers)
    encoded = text.encode("utf-8", "backslashreplace")
    write_bytes(folder / f"{plate.name}.csv", encoded)
    panels = []
    for i, (title, figure) in enumerate(plate.panels, 1):
        name = f"{plate.name}_{i}" if len(plate.panels) > 1 else plate.name
        drawn = svg(figure, name)
        write_bytes(folder / f"{name}.svg", drawn.encode())
        label = f"{shown(title)}: {plate.alt}" if title else plate.alt
        panels.append((shown(title), inline(drawn, name, label)))
    inlined = len(encoded) <= INLINE_CSV
    address = (
        "data:text/csv;charset=utf-8;base64," + base64.b64encode(encoded).decode()
        if inlined
        else f"{beside}/{plate.name}.csv"
    )
    return DrawnPlate(
        plate.name, plate.title, panels, plate.caption, address, all_columns(f"Numbers of {plate.title}", plate.numbers)
    )


def svg(figure: Figure, name: str) -> str:
    """The figure as SVG whose text stays text; the same figure gives the same bytes."""
    buffer = io.StringIO()
    style: Any = {**STYLE, "svg.fonttype": "none", "svg.hashsalt": name}
    with rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph \d+")  # the page's font draws what matplotlib's lacks
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return buffer.getvalue()


def inline(drawn: str, name: str, alt: str) -> Markup:
    """SVG to stand within a page: no prologue, ids of its own, colours that follow the page, and a label for those who cannot see it."""
    root = ElementTree.fromstring(drawn)  # noqa: S314 - written by matplotlib just now
    used = set(re.findall(r"#([\w.-]+)", " ".join(v for e in root.iter() for v in e.attrib.values() if "#" in v)))
    for parent in list(root.iter()):
        for child in list(parent):
            background = parent.get("id") == "figure_1" and child.get("id") == "patch_1"
            if background or child.tag.endswith(("metadata", "}style")):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = _own(element.attrib, name, used)
    width = float(root.attrib.pop("width").removesuffix("pt")) * 4 / 3
    root.attrib.pop("height", None)
    root.attrib.update(
        {"role": "img", "aria-label": alt, "style": f"width:{1.3 * width:.0f}px"}
    )  # wide pages enlarge it a little
    return Markup(ElementTree.tostring(root, encoding="unicode"))  # noqa: S704 - ElementTree escapes text and attributes


def _own(attributes: dict[str, str], name: str, used: set[str]) -> dict[str, str]:
    own = {}
    for key, value in attributes.items():
        key = key.rpartition("}")[2]
        if key == "id":
            if value in used:
                own["id"] = f"{name}-{value}"
        elif key == "href" and value.startswith("#"):
            own[key] = f"#{name}-{value[1:]}"
        elif key == "clip-path":
            own[key] = value.replace("url(#", f"url(#{name}-")
        elif key == "style":
            own[key] = _themed(value)
        elif key not in ("version", "xmlns"):
            own[key] = value
    return own


def _themed(style: str) -> str:
    style = re.sub(r"#[0-9a-f]{6}", lambda m: THEME.get(m[0], m[0]), style)
    return re.sub(r"\s*font-family:[^;]*;?", "", style).strip()


# -- the page ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Note:
    """A paragraph; ``tone`` is ``""``, ``"note"`` (small), or ``"warning"``."""

    text: str
    tone: str = ""
    kind: str = "note"


@dataclass(frozen=True)
class Facts:
    """Names and values, folded in when ``closed``."""

    title: str
    items: list[tuple[str, str]]
    closed: bool = False
    kind: str = "facts"


@dataclass(frozen=True)
class Points:
    """A list."""

    items: list[str]
    kind: str = "points"


@dataclass(frozen=True)
class Pictures:
    """Pictures as data, with captions."""

    items: list[tuple[str, str]]
    kind: str = "pictures"


Block = Note | Sheet | DrawnPlate | Facts | Points | Pictures


@dataclass(frozen=True)
class Section:
    """A headed part of the page."""

    key: str
    title: str
    lead: str
    blocks: list[Block] = field(default_factory=list)


@dataclass(frozen=True)
class Answer:
    """A question of the study, answered in words.

    Attributes:
        question: in words.
        verdict: one or two words.
        tone: ``"yes"``, ``"partly"``, ``"no"`` or ``"open"``.
        text: one or two sentences with the numbers.
        key: of the section that shows it.
    """

    question: str
    verdict: str
    tone: str
    text: str
    key: str


def render(
    *,
    title: str,
    lead: str,
    warnings: Sequence[str] = (),
    answers: Sequence[Answer] = (),
    headline: Sheet | None = None,
    heroes: Sequence[DrawnPlate] = (),
    sections: Sequence[Section] = (),
    links: Sequence[tuple[str, str]] = (),
    back: str = "",
) -> str:
    """The page as HTML."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("captum_leam"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    script, style = _template("study.js"), _template("study.css")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("study.html.j2").render(
        title=shown(title),
        lead=lead,
        warnings=warnings,
        answers=answers,
        headline=headline,
        heroes=heroes,
        sections=sections,
        links=links,
        back=back,
        version=__version__,
        style=Markup(style),  # noqa: S704 - a file of this package
        script=Markup(script),  # noqa: S704 - a file of this package
        script_hash=digest,
    )


def _template(name: str) -> str:
    return (resources.files("captum_leam") / "templates" / name).read_text(encoding="utf-8")


def write_page(path: Path, text: str) -> Path:
    """Write a page so that it is there wholly or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as place:
        place.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
    return path
