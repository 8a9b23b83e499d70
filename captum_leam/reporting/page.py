"""Build the pages of explanations and studies from blocks, one template and one style sheet.

A page makes no request to any network: its policy forbids all requests, its script is allowed by its hash, and all text from files, people
or models is escaped. A figure is a picture in the page and a file beside it, with its numbers.
"""

from __future__ import annotations

import base64
import hashlib
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from captum_leam._optional import import_optional, pd
from captum_leam._text import printable, safe_cells
from captum_leam._version import __version__
from captum_leam.reporting.figure_style import as_svg, colour_bar_rules, themed
from captum_leam.reporting.numbers import interval, significant

MAX_INLINE_CSV = 100_000
"""Largest size in bytes of a figure's numbers in the page; larger ones are linked as a file."""

MAX_ROWS = 100
"""Largest number of rows of a table in the page; the file has all rows."""

ENLARGED = 1.3
"""Scale of figures on pages that are wider than they are."""

# -- blocks --------------------------------------------------------------------------------------------


class Block:
    """Part of a section, for which the template has a macro."""

    @property
    def kind(self) -> str:
        """Name of the macro in the template."""
        return type(self).__name__.lower()


@dataclass(frozen=True)
class Note(Block):
    """Paragraph; ``tone`` is ``""``, ``"note"`` (small), ``"label"`` or ``"warning"``."""

    text: str
    tone: str = ""


@dataclass(frozen=True)
class Facts(Block):
    """Names and values, folded in if ``closed``."""

    title: str
    items: Sequence[tuple[str, Any]]
    closed: bool = False


@dataclass(frozen=True)
class Points(Block):
    """List; ``tone`` as in :class:`Note`."""

    items: Sequence[str]
    tone: str = ""


class ColourBar(NamedTuple):
    """Colour bar of a map.

    Attributes:
        colours: Key of :data:`captum_leam.reporting.figure_style.COLOUR_BARS`.
        low: Text at the left end.
        high: Text at the right end.
    """

    colours: str
    low: str
    high: str


class Picture(NamedTuple):
    """Picture of a page.

    Attributes:
        address: Data address of the pixels.
        caption: Text under the picture.
        alt: Text for readers who cannot see it.
        width: Width in CSS pixels. Default: that of the column.
        bar: Colour bar. Default: none.
    """

    address: str
    caption: str
    alt: str
    width: int | None = None
    bar: ColourBar | None = None


@dataclass(frozen=True)
class PictureRow(Block):
    """Row of pictures; ``size`` is ``"small"``, ``"large"`` or ``"wide"``."""

    items: Sequence[Picture]
    size: str = "small"


@dataclass(frozen=True)
class Cards(Block):
    """Titled groups of blocks in a grid, half a row each if ``wide``."""

    items: Sequence[tuple[str, Sequence[Block]]]
    wide: bool = False


class Cell(NamedTuple):
    """Text of a cell, the number that it is sorted by, and its interval."""

    text: str
    value: float | None = None
    note: str = ""


class Column(NamedTuple):
    """Column of a table in the page.

    Attributes:
        name: Name of the column in the data frame.
        label: Text at the head of the column. Default: ``name``.
        show: Function from a number to its text. Default: None, for a column of texts.
        ends: Columns with the low and high end of the interval. Default: no interval.
    """

    name: str
    label: str = ""
    show: Callable[[Any], str] | None = None
    ends: tuple[str, str] | None = None


@dataclass(frozen=True)
class Sheet(Block):
    """Sortable table.

    Attributes:
        title: Title; empty for none.
        heads: Label of each column, and whether it has numbers.
        rows: Cells of the rows in the page.
        total: Number of rows of the whole table.
        note: Sentence with units and what is good; empty for none.
        closed: Whether the table is folded in at first.
    """

    title: str
    heads: list[tuple[str, bool]]
    rows: list[list[Cell]]
    total: int
    note: str = ""
    closed: bool = False


def sheet(title: str, table: pd.DataFrame, columns: Sequence[Column], *, note: str = "", closed: bool = False) -> Sheet:
    """Return the sheet of a table.

    Args:
        title: Title of the sheet; empty for none.
        table: Table, of which the first :data:`MAX_ROWS` rows are shown.
        columns: Columns to show; those that the table lacks are left out.
        note: Sentence under the title with units and what is good. Default: none.
        closed: Whether the sheet is folded in at first. Default: False.

    Example:
        >>> found = sheet("t", pd.DataFrame({"a": ["x"], "b": [0.5]}), [Column("a", "name"), Column("b", show=significant)])
        >>> [cell.value for cell in found.rows[0]]
        [None, 0.5]
    """
    present = [column for column in columns if column.name in table.columns]
    rows = [[_cell(row, column) for column in present] for row in table.head(MAX_ROWS).to_dict("records")]
    heads = [(column.label or column.name, column.show is not None) for column in present]
    return Sheet(title, heads, rows, len(table), note, closed)


def _cell(row: Mapping[Any, Any], column: Column) -> Cell:
    value = row[column.name]
    if column.show is None:
        return Cell(value)
    text = column.show(value)
    digits = len(text.partition(".")[2])
    note = interval(row[column.ends[0]], row[column.ends[1]], digits) if column.ends else ""
    return Cell(text, float(value) if value is not None and math.isfinite(value) else None, note)


# -- figures -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plate(Block):
    """Figures side by side that share a caption and a table of numbers.

    Attributes:
        name: Name of the files.
        title: Text above the figures.
        panels: Title of each figure, and the figure.
        alt: Text for readers who cannot see them.
        caption: Text below the figures, which begins with what to see.
        numbers: Numbers that are drawn.
    """

    name: str
    title: str
    panels: Sequence[tuple[str, Figure]]
    alt: str
    caption: str
    numbers: pd.DataFrame

    @cached_property
    def csv(self) -> bytes:
        """Numbers as CSV with six digits; invisible characters are written as their code."""
        is_text = [not pd.api.types.is_numeric_dtype(kind) for kind in self.numbers.dtypes]
        texts = {str(name): self.numbers[name].map(printable) for name in self.numbers.columns[is_text]}
        return as_csv(self.numbers.assign(**texts), "%.6g").encode("utf-8", "backslashreplace")

    @cached_property
    def drawings(self) -> list[str]:
        """Figures as SVG."""
        return [as_svg(figure, f"{self.name}_{i}") for i, (_, figure) in enumerate(self.panels, 1)]

    @property
    def sheet(self) -> Sheet:
        """Numbers as a table of the page, with four significant digits."""
        kinds = self.numbers.dtypes.items()
        show = {str(name): significant if pd.api.types.is_numeric_dtype(kind) else None for name, kind in kinds}
        return sheet(f"Numbers of {self.title}", self.numbers, [Column(name, show=how) for name, how in show.items()])

    def address(self, folder: str) -> str:
        """Return the address of the numbers, a data address or a file.

        Args:
            folder: Address of the folder of figures beside the page.
        """
        held = len(self.csv) <= MAX_INLINE_CSV
        return _data_uri(self.csv, "text/csv;charset=utf-8") if held else f"{folder}{self.name}.csv"

    def pictures(self) -> list[tuple[str, Picture]]:
        """Return the title and the picture of each figure, light or dark as the reader prefers."""
        found = []
        for (title, figure), svg in zip(self.panels, self.drawings, strict=True):
            alt, width = f"{title}: {self.alt}" if title else self.alt, round(ENLARGED * 96 * figure.get_figwidth())
            found.append((title, Picture(_data_uri(themed(svg).encode(), "image/svg+xml"), "", alt, width)))
        return found

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Yield name and content of ``NAME.csv`` and of the figures, ``NAME.svg`` or ``NAME_1.svg`` and so on."""
        yield f"{self.name}.csv", self.csv
        for i, svg in enumerate(self.drawings, 1):
            yield (f"{self.name}_{i}.svg" if len(self.panels) > 1 else f"{self.name}.svg"), svg.encode()


def as_csv(table: pd.DataFrame, float_format: str | None = None) -> str:
    """Return a table as CSV, with texts that a spreadsheet would run as formulas escaped.

    Args:
        table: Table.
        float_format: Format of numbers. Default: all digits.
    """
    return safe_cells(table).to_csv(index=False, float_format=float_format, lineterminator="\n")


JPEG = {"format": "JPEG", "quality": 88, "subsampling": 0}
"""How photographs are stored on a page: a fifth of the bytes of a PNG. The PNG is beside the page."""


def picture(
    pixels: NDArray[np.uint8],
    width: int,
    caption: str,
    alt: str,
    bar: ColourBar | None = None,
    *,
    is_photograph: bool = False,
) -> Picture:
    """Return a picture that holds pixels as a PNG, or as a JPEG if it is a photograph.

    Args:
        pixels: RGB values, shape (H, W, 3).
        width: Width of the PNG in pixels.
        caption: Text under the picture.
        alt: Text for readers who cannot see it.
        bar: Colour bar under the picture. Default: none.
        is_photograph: Whether the pixels are a photograph. Default: False.

    Example:
        >>> picture(np.zeros((2, 2, 3), np.uint8), 2, "", "black").address[:22]
        'data:image/png;base64,'
    """
    height = width * pixels.shape[0] // pixels.shape[1]
    buffer = io.BytesIO()
    options: dict[str, Any] = JPEG if is_photograph else {"format": "PNG"}
    Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC).save(buffer, **options)
    return Picture(_data_uri(buffer.getvalue(), Image.MIME[options["format"]]), caption, alt, bar=bar)


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


# -- the page ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Section:
    """Section of the page with its address ``key``."""

    key: str
    title: str
    lead: str
    blocks: Sequence[Block] = ()


class Answer(NamedTuple):
    """Question of a study and its answer.

    Attributes:
        question: Question.
        verdict: Answer in one or two words.
        tone: Kind of the answer: ``"yes"``, ``"partly"``, ``"no"`` or ``"open"``.
        text: Answer in one or two sentences with numbers.
        key: Address of the section with the details.
    """

    question: str
    verdict: str
    tone: str
    text: str
    key: str


@dataclass(frozen=True)
class Page:
    """Content of a page.

    Attributes:
        title: Title.
        lead: Sentence under the title; empty for none.
        sections: Sections.
        summary: Plain-language summary, up to three pairs of a label and a sentence, see :mod:`captum_leam.reporting.summary`.
        warnings: Warnings above everything else.
        answers: Answers of the section "In short".
        headline: Table above the answers.
        heroes: Figures beside the answers.
        links: Names and addresses of the pages of people.
        back: Address of the page that this page belongs to.
        figures: Address of the folder of figures, ``""`` or with ``/`` at its end.
    """

    title: str
    lead: str
    sections: Sequence[Section]
    summary: Sequence[tuple[str, str]] = ()
    warnings: Sequence[str] = ()
    answers: Sequence[Answer] = ()
    headline: Sheet | None = None
    heroes: Sequence[Plate] = ()
    links: Sequence[tuple[str, str]] = ()
    back: str = ""
    figures: str = "figures/"

    def render(self) -> str:
        """Return the page as self-contained HTML with all names escaped, which makes no request."""
        jinja2 = import_optional("jinja2")
        environment = jinja2.Environment(
            loader=jinja2.PackageLoader("captum_leam.reporting"),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=jinja2.StrictUndefined,
            finalize=lambda value: value if isinstance(value, Markup) else printable(value),
        )
        parts = ("page", "explorer") if self._is_explorable else ("page",)
        script = Markup("".join(_template(f"{part}.js") for part in parts))  # noqa: S704 - of this package
        style = Markup("".join([*(_template(f"{part}.css") for part in parts), colour_bar_rules()]))  # noqa: S704
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        template = environment.get_template("page.html.j2")
        text: str = template.render(page=self, version=__version__, style=style, script=script, script_hash=digest)
        return text

    @property
    def _is_explorable(self) -> bool:
        return any(block.kind == "explorer" for section in self.sections for block in section.blocks)

    def write(self, path: Path) -> None:
        """Write the page, and its figures with their numbers into the folder of figures beside it.

        Args:
            path: Path of the page.
        """
        plates = [block for section in self.sections for block in section.blocks if isinstance(block, Plate)]
        folder = path.parent / self.figures
        for parent in (path.parent, folder):
            if not parent.is_dir():
                parent.mkdir()
        for plate in (*self.heroes, *plates):
            for name, content in plate.files():
                (folder / name).write_bytes(content)
        path.write_text(self.render(), encoding="utf-8", errors="backslashreplace", newline="\n")


def _template(name: str) -> str:
    return (resources.files("captum_leam.reporting") / "templates" / name).read_text(encoding="utf-8")
