"""``{measured} file.csv``: a table of what a benchmark wrote, or a picture of it, from the numbers committed under ``docs/_data``.

::

    ```{measured} region_lift.csv
    :rows: network layer
    :columns: region
    :value: mean
    :interval: low high
    :where: quantity == "lift"
    :order: nose, skin
    ```

``rows`` and ``columns`` name the columns of the file that become rows and columns of the table (``columns`` may be missing: every
other column is then shown, or those that ``show`` names), ``order`` which of them in which order, ``value`` and ``interval`` what stands
in the cells (several lines of one cell are parted by a slash), ``where`` which lines count, ``digits`` after the point. With
``:plot: label`` there is a picture instead: one panel for every value of ``columns``, a point with its interval for every row, and a
line at ``line``.
"""

from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

DATA = Path(__file__).resolve().parents[1] / "_data"
PICTURES = Path(__file__).resolve().parents[1] / "_build" / "measured"


class Measured(SphinxDirective):
    """A table or picture of one CSV file."""

    required_arguments = 1
    option_spec: ClassVar = {
        "rows": directives.unchanged,
        "columns": directives.unchanged,
        "show": directives.unchanged,
        "value": directives.unchanged,
        "interval": directives.unchanged,
        "where": directives.unchanged,
        "order": directives.unchanged,
        "digits": directives.nonnegative_int,
        "plot": directives.unchanged,
        "line": directives.unchanged,
        "alt": directives.unchanged,
    }

    def run(self) -> list[nodes.Node]:
        path = DATA / self.arguments[0]
        if not path.is_file():
            raise self.error(f"docs/_data/{self.arguments[0]} is not there: which benchmark writes it?")
        self.env.note_dependency(str(path))
        table = pd.read_csv(path)
        if "where" in self.options:
            table = table.query(self.options["where"])
        if "order" in self.options:
            table = ordered(table, self.options)
        if table.empty:
            raise self.error(f"no line of {path.name} is left.")
        if "plot" in self.options:
            return [self._picture(table, path.stem)]
        return [as_table(*cells(table, self.options))]

    def _picture(self, table: pd.DataFrame, stem: str) -> nodes.Node:
        PICTURES.mkdir(parents=True, exist_ok=True)
        target = PICTURES / f"{self.env.docname.replace('/', '_')}_{self.lineno}_{stem}.png"
        picture(table, self.options).savefig(target, dpi=140)
        relative = "/" + str(target.relative_to(self.env.srcdir))
        return nodes.image(uri=relative, alt=self.options.get("alt", self.options["plot"]), classes=["measured"])


def ordered(table: pd.DataFrame, options: dict[str, Any]) -> pd.DataFrame:
    """The lines whose column is named in ``order``, in that order."""
    names, column = [name.strip() for name in options["order"].split(",")], options["columns"].strip()
    unknown = set(names) - set(table[column].astype(str))
    if unknown:
        raise ValueError(f"{column} has no {sorted(unknown)}.")
    return pd.concat([table[table[column].astype(str) == name] for name in names])


def cells(table: pd.DataFrame, options: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Headings, and the text of every row."""
    rows, digits = options.get("rows", "").split(), options.get("digits", 2)
    if "columns" not in options:
        shown = table[[c.strip() for c in options["show"].split(",")]] if "show" in options else table
        return list(shown.columns), [[text(v, digits) for v in row] for row in shown.itertuples(index=False)]
    said = [cell(row, options, digits) for row in table.to_dict("records")]
    wide = table.assign(said=said).pivot_table(
        index=rows,
        columns=options["columns"].split(),
        values="said",
        aggfunc="\N{NO-BREAK SPACE}/\N{NO-BREAK SPACE}".join,
        sort=False,
    )
    columns = [" ".join(map(str, c)) if isinstance(c, tuple) else str(c) for c in wide.columns]
    flat = wide.fillna("").reset_index()
    return [*rows, *columns], [[text(v, digits) for v in row] for row in flat.itertuples(index=False)]


def cell(row: dict[str, Any], options: dict[str, Any], digits: int) -> str:
    """A value, with its interval where it has one."""
    said = text(row[options["value"]], digits)
    bounds = [text(row[name], digits) for name in options.get("interval", "").split()]
    return f"{said} [{bounds[0]},\N{NO-BREAK SPACE}{bounds[1]}]" if bounds and all(bounds) else said


def text(value: Any, digits: int) -> str:
    """A number with so many digits after the point, without the zero before it; anything else as it is."""
    if not isinstance(value, float):
        return str(value)
    if pd.isna(value):
        return ""
    said = f"{value:.{digits}f}"
    return said.replace("0.", ".", 1) if said.startswith(("0.", "-0.")) and digits else said


def as_table(head: list[str], body: list[list[str]]) -> nodes.Node:
    """A docutils table within a box that scrolls sideways on a narrow screen."""
    group = nodes.tgroup(cols=len(head))
    group += [nodes.colspec(colwidth=1) for _ in head]
    for kind, lines in ((nodes.thead, [head]), (nodes.tbody, body)):
        part = kind()
        for line in lines:
            row = nodes.row()
            for cell in line:
                entry = nodes.entry()
                entry += nodes.paragraph(text=cell)
                row += entry
            part += row
        group += part
    return nodes.table("", group, classes=["measured"])


def picture(table: pd.DataFrame, options: dict[str, Any]) -> Any:
    """A panel for every value of ``columns``; points and intervals, one colour for every value of the first of ``rows``."""
    from matplotlib.figure import Figure

    first, *rest = options["rows"].split()
    by = options["columns"].strip()
    table = table.assign(place=table[rest].astype(str).agg(" ".join, axis=1))
    panels, groups, places = (list(dict.fromkeys(table[name])) for name in (by, first, "place"))
    width = 1.6 * len(panels) + 0.075 * max(map(len, places)) + 0.4
    figure = Figure(figsize=(width, max(0.42, 0.17 * len(groups)) * len(places) + 1.5), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, panel in zip(axes, panels, strict=True):
        for i, group in enumerate(groups):
            part = table[(table[by] == panel) & (table[first] == group)]
            draw_points(axis, part, options, places, i, len(groups))
        if "line" in options:
            axis.axvline(float(options["line"]), color="0.6", linewidth=1)
        axis.set_xlim(left=min(0, axis.get_xlim()[0]) if table[options["value"]].min() < 0 else 0)
        axis.set_title(str(panel), fontsize=10)
        axis.set_yticks(range(len(places)), places)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=9)
    axes[0].invert_yaxis()
    figure.supxlabel(options["plot"], fontsize=9)
    labels = {"ncols": len(groups), "fontsize": 9, "frameon": False}
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", **labels)
    return figure


def draw_points(
    axis: Any, part: pd.DataFrame, options: dict[str, Any], places: list[str], group: int, groups: int
) -> None:
    """The points of one group in one panel, a little above or below the place of their row."""
    from captum_leam.plots import COLOURS

    low, high = options["interval"].split()
    apart = min(0.3, 0.8 / groups)
    height = [places.index(place) + apart * (group - (groups - 1) / 2) for place in part["place"]]
    value = part[options["value"]]
    errors = [(value - part[low]).clip(lower=0), (part[high] - value).clip(lower=0)]
    style = {"fmt": "os^Dv"[group % 5], "markersize": 4, "color": COLOURS[group], "capsize": 2}
    axis.errorbar(value, height, xerr=errors, **style, label=str(part[options["rows"].split()[0]].iloc[0]))


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("measured", Measured)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
