"""Style of the figures of light and dark pages, in the colours of :mod:`captum_leam.plots`."""

import io
import warnings
from typing import Any, cast

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from captum_leam.plots import COLOURS, POSITIVE, SIGNED

INK, NOTE, LINE, PAPER = "#1b1c1e", "#5d6167", "#d8d8d3", "#fdfdfc"
"""Colours of text, secondary text, lines and background on a light page."""

DARK = {
    INK: "#e9e9e6",
    NOTE: "#a3a8af",
    LINE: "#363a40",
    PAPER: "#15171a",
    **dict(zip(COLOURS, ("#4fa9e2", "#f08243", "#2fc09a", "#dd97bf", "#f0b429", "#8accf2"), strict=False)),
}
"""Colour of a light page → colour of a dark page, as in ``templates/page.css``."""

STYLE: dict[str, Any] = {
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.labelsize": 8.5,
    "axes.edgecolor": LINE,
    "axes.labelcolor": NOTE,
    "axes.titlecolor": INK,
    "axes.facecolor": "none",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "figure.facecolor": PAPER,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": NOTE,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.size": 2.5,
    "ytick.major.size": 0,
}
styled = rc_context(cast(Any, STYLE))
"""Decorator of functions that draw figures."""


def as_svg(figure: Figure, name: str) -> str:
    """Return a figure as SVG with text as text; the same figure and name give the same bytes.

    Args:
        figure: Figure.
        name: Name that seeds the identifiers in the SVG.
    """
    buffer = io.StringIO()
    options: Any = {**STYLE, "svg.fonttype": "none", "svg.hashsalt": name}
    with rc_context(options), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph \d+")  # the reader's font draws what matplotlib's lacks
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return buffer.getvalue()


def themed(svg: str) -> str:
    """Return SVG of :func:`as_svg` with the background and font of a page, light or dark as the reader prefers."""
    end = "</style>"  # ends matplotlib's own rules, which come before all drawn elements
    return svg.replace(end, RULES + end, 1)


def _rules() -> str:
    """Return the style rules that replace the colours in matplotlib's ``style`` attributes on dark pages."""
    dark = [
        f'[style*="{use}: {light}"]{{{use}:{colour}!important}}'
        for light, colour in DARK.items()
        for use in ("fill", "stroke")
    ]
    return (
        "#figure_1>#patch_1>path{fill:none!important}"
        "text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Noto Sans','Liberation Sans',Arial,sans-serif!important;"
        "white-space:pre}"
        f"@media(prefers-color-scheme:dark){{{''.join(dark)}"
        f"use[style*='stroke: #000000']{{fill:{DARK[INK]}!important;stroke:{DARK[INK]}!important}}}}"
    )


RULES = _rules()

COLOUR_BARS = {"positive": (POSITIVE, 0.15, 0.95), "signed": (SIGNED, 0.0, 1.0)}
"""Colours of maps by kind: colour map, and its part that :func:`captum_leam.plots.overlay` uses."""

COLOUR_BAR_STOPS = 17


def colour_bar_rules() -> str:
    """Return the style rules of the colour bars, one class for each kind of map.

    Example:
        >>> colour_bar_rules().count("linear-gradient")
        2
    """
    rules = []
    for kind, (name, low, high) in COLOUR_BARS.items():
        stops = ",".join(to_hex(colour) for colour in colormaps[name](np.linspace(low, high, COLOUR_BAR_STOPS)))
        rules.append(f".colours.{kind}{{background:linear-gradient(to right,{stops})}}")
    return "\n".join(rules) + "\n"
