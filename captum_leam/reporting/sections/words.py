"""What several sections of the report say: places, controls, counts; and how many drawings they show."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from captum_leam.reporting.findings import Findings
from captum_leam.reporting.study_page import percent
from captum_leam.reporting.tables import OVERALL

PANELS = 12
"""Panels of one drawing; further models are in its numbers."""

CONTROL_WORDS = {
    "edges": "edges of the image, no network",
    "untrained": "the same network with random weights",
    "parser": "the regions of the face, no network",
    "pose": "strangers in the same pose in place of the person",
    "random pixels": "as many, anywhere in the crop",
    "random face pixels": "as many, anywhere in the face",
    "random field": "spots of the same size, anywhere",
    "centre": "the middle of the crop",
    "moved": "the map’s shape, elsewhere",
    "other people": "the mean map of others",
}
"""What every control is, in words."""


def by_model(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The rows of every model, in order of appearance."""
    for model, part in table.groupby("model", sort=False):
        yield str(model), part


def place_of(study: Findings) -> str:
    """Whose numbers come first, in words."""
    return "overall map" if study.place == OVERALL else f"layer {study.place}"


def critical(patterns: pd.DataFrame) -> str:
    """The pixels that maps are compared on, in words."""
    return f"top {percent(patterns['fraction'].min()).replace('.0', '')} of the pixels"


def controls_text(controls: Sequence[str]) -> str:
    """The controls that were run, and what they are."""
    if not controls:
        return "No controls were run."
    return "Controls: " + "; ".join(f"{c} ({CONTROL_WORDS[c]})" if c in CONTROL_WORDS else c for c in controls) + "."


def counted(n: int, one: str, many: str = "") -> str:
    """A number with what it counts.

    Example:
        >>> counted(1, "person", "people"), counted(2, "image")
        ('1 person', '2 images')
    """
    return f"{n:,} {one if n == 1 else many or one + 's'}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def whole_number(value: Any) -> str:
    """A count, or a dash."""
    return f"{int(value)}" if np.isfinite(value) else "–"
