"""Labels of the people on images."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from captum_leam.errors import CaptumLeamError, InputTypeError

MISSING = frozenset({"", "nan", "NaN", "None", "<NA>", "NaT"})
"""Texts that NumPy and pandas write for a missing label."""


def person_codes(
    labels: Any, count: int | None = None, rows: str = "images"
) -> tuple[tuple[Any, ...], NDArray[np.int64]]:
    """Return the people in order of first appearance, and the index of the person of each row.

    Args:
        labels: Names or numbers of N rows, as a sequence, an array or a tensor.
        count: Expected number of labels. Default: any.
        rows: Plural noun for the rows in messages. Default: "images".

    Returns:
        Distinct labels, and indices into them, shape (N,).

    Raises:
        CaptumLeamError: For another number of labels, or a missing one (None, NaN, an empty name, or their texts).
        InputTypeError: For labels that are no sequence, array or tensor.

    Example:
        >>> names, codes = person_codes(["bob", "ann", "bob"])
        >>> names, codes.tolist()
        (('bob', 'ann'), [0, 1, 0])
        >>> person_codes(["ann", None])
        Traceback (most recent call last):
        ...
        captum_leam.errors.CaptumLeamError: Expected a label for each of the images, got none (None, NaN or "") in rows [1]. Name the ...
    """
    people = as_list(labels)
    if count is not None and len(people) != count:
        raise CaptumLeamError(f"Expected one label for each of the {count} {rows}, got {len(people)}.")
    missing = [row for row, label in enumerate(people) if is_missing(label)]
    if missing:
        raise CaptumLeamError(
            f'Expected a label for each of the {rows}, got none (None, NaN or "") in rows {missing}. Name the person or leave these out.'
        )
    number = {person: i for i, person in enumerate(dict.fromkeys(people))}
    return tuple(number), np.array([number[label] for label in people], dtype=np.int64)


def people_of(labels: Any, count: int | None = None, rows: str = "images") -> list[Any]:
    """Return the labels as a list after the checks of :func:`person_codes`.

    Example:
        >>> people_of(np.array([3, 1, 3]))
        [3, 1, 3]
    """
    person_codes(labels, count, rows)
    return as_list(labels)


def as_list(labels: Any) -> list[Any]:
    """Return labels as a list of Python values."""
    if isinstance(labels, str | bytes) or not (isinstance(labels, Sequence) or hasattr(labels, "tolist")):
        raise InputTypeError(
            f"Expected labels to be a sequence, an array or a tensor with one label for each row, got {type(labels).__name__}."
        )
    listed = labels.tolist() if hasattr(labels, "tolist") else list(labels)
    if not isinstance(listed, list) or any(isinstance(label, list) for label in listed):
        raise CaptumLeamError(
            f"Expected labels of shape (N,), got {tuple(getattr(labels, 'shape', ()))}. Pass one label for each row."
        )
    return listed


def is_missing(label: Any) -> bool:
    """Return whether a label is missing: None, NaN, pandas' NA, an empty name, or one of their texts."""
    if label is None or (isinstance(label, str) and label.strip() in MISSING):
        return True
    try:
        return bool(label != label)  # noqa: PLR0124  # NaN of any type
    except (TypeError, ValueError):  # pandas' NA is neither equal nor unequal to itself
        return True
