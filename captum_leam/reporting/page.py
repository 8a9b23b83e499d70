"""Build the pages of this package: blocks, one template, one style sheet, for explanations and studies alike.

A page asks nothing of any network: its policy forbids every request, its one script is named by its hash, and everything that comes from
files, people or models is escaped. A drawing is a picture of the page, and a file beside it together with its numbers.
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
from captum_leam._text import safe_cells, shown
from captum_leam._version import __version__
from captum_leam.reporting.figure_style import as_svg, themed
from captum_leam.reporting.numbers import interval, significant

MAX_INLINE_CSV = 100_000
"""Bytes up to which the page holds the numbers of a drawing itself; above, it links to the file beside it."""

MAX_ROWS = 100
"""Rows of a table that the page shows; the file holds all of them."""

ENLARGED = 1.3
"""Scale of drawings on pages that are wider than they are."""

# -- blocks --------------------------------------------------------------------------------------------


class Block:
    """A part of a section; the template has a macro for each kind."""

    @property
    def kind(self) -> str:
        """Name of the macro."""
        return type(self).__name__.lower()


@dataclass(frozen=True)
class Note(Block):
    """A paragraph; ``tone`` is ``""``, ``"note"`` (small), ``"label"`` or ``"warning"``."""

    text: str
    tone: str = ""


@dataclass(frozen=True)
class Facts(Block):
    """Names and values, folded in when ``closed``."""

    title: str
    items: Sequence[tuple[str, Any]]
    closed: bool = False


@dataclass(frozen=True)
class Points(Block):
    """A list; ``tone`` as in :class:`Note`."""

    items: Sequence[str]
    tone: str = ""


class Picture(NamedTuple):
    """A picture as a data address, with its caption, the text for readers who cannot see it, and its width in pixels."""

    address: str
    caption: str
    alt: str
    width: int | None = None


@dataclass(frozen=True)
class PictureRow(Block):
    """Row of pictures; ``size`` is ``"small"``, ``"large"`` or ``"wide"``."""

    items: Sequence[Picture]
    size: str = "small"


@dataclass(frozen=True)
class Cards(Block):
    """Titled groups of blocks in a grid; ``wide`` ones take half a row each."""

    items: Sequence[tuple[str, Sequence[Block]]]
    wide: bool = False


class Cell(NamedTuple):
    """The text of a cell, the number that it is sorted by, and its interval."""

    text: str
    value: float | None = None
    note: str = ""


class Column(NamedTuple):
    """One column of a shown table.

    Attributes:
        name: Name of the column in the frame.
        label: Text at its head. Default: its name.
        show: Function from a number to its text; None for texts.
        ends: Columns of the interval behind the number.
    """

    name: str
    label: str = ""
    show: Callable[[Any], str] | None = None
    ends: tuple[str, str] | None = None


@dataclass(frozen=True)
class Sheet(Block):
    """A sortable table; ``heads`` are labels, and whether the column holds numbers."""

    title: str
    heads: list[tuple[str, bool]]
    rows: list[list[Cell]]
    total: int
    closed: bool = False


def sheet(title: str, table: pd.DataFrame, columns: Sequence[Column], *, closed: bool = False) -> Sheet:
    """Return the named columns of a table that it has, its first :data:`MAX_ROWS` rows; folded in when ``closed``.

    Example:
        >>> found = sheet("t", pd.DataFrame({"a": ["x"], "b": [0.5]}), [Column("a", "name"), Column("b", show=significant)])
        >>> [cell.value for cell in found.rows[0]]
        [None, 0.5]
    """
    present = [column for column in columns if column.name in table.columns]
    rows = [[_cell(row, column) for column in present] for row in table.head(MAX_ROWS).to_dict("records")]
    return Sheet(title, [(c.label or c.name, c.show is not None) for c in present], rows, len(table), closed)


def _cell(row: Mapping[Any, Any], column: Column) -> Cell:
    value = row[column.name]
    if column.show is None:
        return Cell(value)
    text = column.show(value)
    digits = len(text.partition(".")[2])
    note = interval(row[column.ends[0]], row[column.ends[1]], digits) if column.ends else ""
    return Cell(text, float(value) if value is not None and math.isfinite(value) else None, note)


# -- drawings ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plate(Block):
    """Drawings side by side that share one caption and one table of numbers.

    Attributes:
        name: Name of its files.
        title: Text over it.
        panels: Title and figure of every drawing.
        alt: What a reader who cannot see it should know.
        caption: Text under it.
        numbers: What is drawn.
    """

    name: str
    title: str
    panels: Sequence[tuple[str, Figure]]
    alt: str
    caption: str
    numbers: pd.DataFrame

    @cached_property
    def csv(self) -> bytes:
        """The numbers, with six digits; characters that cannot be seen are written as their code."""
        is_text = [not pd.api.types.is_numeric_dtype(kind) for kind in self.numbers.dtypes]
        texts = {str(name): self.numbers[name].map(shown) for name in self.numbers.columns[is_text]}
        return as_csv(self.numbers.assign(**texts), "%.6g").encode("utf-8", "backslashreplace")

    @cached_property
    def drawings(self) -> list[str]:
        """Every drawing as SVG."""
        return [as_svg(figure, f"{self.name}_{i}") for i, (_, figure) in enumerate(self.panels, 1)]

    @property
    def sheet(self) -> Sheet:
        """The numbers as the page shows them, with four significant digits."""
        kinds = self.numbers.dtypes.items()
        show = {str(name): significant if pd.api.types.is_numeric_dtype(kind) else None for name, kind in kinds}
        return sheet(f"Numbers of {self.title}", self.numbers, [Column(name, show=how) for name, how in show.items()])

    def address(self, folder: str) -> str:
        """Return the address of the numbers: data, or the file in a folder beside the page."""
        held = len(self.csv) <= MAX_INLINE_CSV
        return _data_uri(self.csv, "text/csv;charset=utf-8") if held else f"{folder}{self.name}.csv"

    def pictures(self) -> list[tuple[str, Picture]]:
        """Return the title and the picture of every drawing; it follows the reader's choice of light or dark."""
        found = []
        for (title, figure), svg in zip(self.panels, self.drawings, strict=True):
            alt, width = f"{title}: {self.alt}" if title else self.alt, round(ENLARGED * 96 * figure.get_figwidth())
            found.append((title, Picture(_data_uri(themed(svg).encode(), "image/svg+xml"), "", alt, width)))
        return found

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Yield names and contents of ``NAME.csv`` and the drawings, ``NAME.svg`` or ``NAME_1.svg`` and so on."""
        yield f"{self.name}.csv", self.csv
        for i, svg in enumerate(self.drawings, 1):
            yield (f"{self.name}_{i}.svg" if len(self.panels) > 1 else f"{self.name}.svg"), svg.encode()


def as_csv(table: pd.DataFrame, float_format: str | None = None) -> str:
    """Return a table as CSV in which no text is a formula of a spreadsheet."""
    return safe_cells(table).to_csv(index=False, float_format=float_format, lineterminator="\n")


JPEG = {"format": "JPEG", "quality": 88, "subsampling": 0}
"""How photographs are stored on a page: a fifth of the bytes of a PNG. The PNG is beside the page."""


def picture(pixels: NDArray[np.uint8], width: int, caption: str, alt: str, *, is_photograph: bool = False) -> Picture:
    """Return pixels, (H, W, 3), as a PNG of a width in pixels; as a JPEG if it is a photograph.

    Example:
        >>> picture(np.zeros((2, 2, 3), np.uint8), 2, "", "black").address[:22]
        'data:image/png;base64,'
    """
    height = width * pixels.shape[0] // pixels.shape[1]
    buffer = io.BytesIO()
    options: dict[str, Any] = JPEG if is_photograph else {"format": "PNG"}
    Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC).save(buffer, **options)
    return Picture(_data_uri(buffer.getvalue(), Image.MIME[options["format"]]), caption, alt)


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


# -- the page ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Section:
    """A headed part of the page; ``key`` is its address."""

    key: str
    title: str
    lead: str
    blocks: Sequence[Block] = ()


class Answer(NamedTuple):
    """A question of the study and its answer.

    Attributes:
        question: The question.
        verdict: One or two words.
        tone: ``"yes"``, ``"partly"``, ``"no"`` or ``"open"``.
        text: One or two sentences with the numbers.
        key: Section that shows it.
    """

    question: str
    verdict: str
    tone: str
    text: str
    key: str


@dataclass(frozen=True)
class Page:
    """Everything that a page shows.

    Attributes:
        title: Title.
        lead: Sentence under it.
        sections: Its parts.
        warnings: What must be read first.
        answers: Answers of the part "In short".
        headline: Table above them.
        heroes: Drawings beside them.
        links: Names and addresses of pages of people.
        back: Address of the page above.
        figures: Address of the folder of its drawings, ``""`` or with ``/`` at its end.
    """

    title: str
    lead: str
    sections: Sequence[Section]
    warnings: Sequence[str] = ()
    answers: Sequence[Answer] = ()
    headline: Sheet | None = None
    heroes: Sequence[Plate] = ()
    links: Sequence[tuple[str, str]] = ()
    back: str = ""
    figures: str = "figures/"

    def render(self) -> str:
        """Return the page as HTML: self-contained, every name escaped, no request to anywhere."""
        jinja2 = import_optional("jinja2")
        environment = jinja2.Environment(
            loader=jinja2.PackageLoader("captum_leam.reporting"),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=jinja2.StrictUndefined,
            finalize=lambda value: value if isinstance(value, Markup) else shown(value),
        )
        parts = ("page", "explorer") if self._is_explorable else ("page",)
        script, style = (Markup("".join(_template(part + end) for part in parts)) for end in (".js", ".css"))  # noqa: S704 - of this package
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        template = environment.get_template("page.html.j2")
        text: str = template.render(page=self, version=__version__, style=style, script=script, script_hash=digest)
        return text

    @property
    def _is_explorable(self) -> bool:
        return any(block.kind == "explorer" for section in self.sections for block in section.blocks)

    def write(self, path: Path) -> None:
        """Write the page, and its drawings with their numbers into the folder of figures beside it."""
        plates = [block for section in self.sections for block in section.blocks if isinstance(block, Plate)]
        folder = path.parent / self.figures
        for parent in (path.parent, folder):
            if not parent.is_dir():
                parent.mkdir()
        for drawn in (*self.heroes, *plates):
            for name, content in drawn.files():
                (folder / name).write_bytes(content)
        path.write_text(self.render(), encoding="utf-8", errors="backslashreplace", newline="\n")


def _template(name: str) -> str:
    return (resources.files("captum_leam.reporting") / "templates" / name).read_text(encoding="utf-8")
