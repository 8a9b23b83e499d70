"""Format numbers and lists for pages, with a fixed number of digits, a true minus, and a dash for unknown numbers."""

import math
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

UNKNOWN = "–"


def number(value: Any, digits: int = 2) -> str:
    """Return a number with fixed digits and a true minus, or a dash for an unknown number.

    Args:
        value: Number; None or NaN if unknown.
        digits: Digits after the point. Default: 2.
    """
    if value is None or not math.isfinite(value):
        return UNKNOWN
    text = f"{value:.{digits}f}"
    return text.replace("-", "−") if float(text) else f"{0:.{digits}f}"


def percent(value: Any, digits: int = 0) -> str:
    """Return a share in [0, 1] as a percentage."""
    text = number(None if value is None else 100 * value, digits)
    return text if text == UNKNOWN else f"{text}\N{NO-BREAK SPACE}%"


def significant(value: Any, digits: int = 4) -> str:
    """Return a number with significant digits."""
    return UNKNOWN if value is None or not math.isfinite(value) else f"{value:.{digits}g}".replace("-", "−")


def p_value(value: Any) -> str:
    """Return a p-value with three digits, or ``"< 0.001"``."""
    return "<\N{NO-BREAK SPACE}0.001" if value is not None and value < 0.001 else number(value, 3)


def interval(low: Any, high: Any, digits: int = 2) -> str:
    """Return an interval in brackets, or an empty text for an unknown interval."""
    known = math.isfinite(low) and math.isfinite(high)
    return f"[{number(low, digits)},\N{NO-BREAK SPACE}{number(high, digits)}]" if known else ""


def estimate(value: Any, low: Any, high: Any, digits: int = 2) -> str:
    """Return a number followed by its interval."""
    return f"{number(value, digits)}\N{NO-BREAK SPACE}{interval(low, high, digits)}".strip()


whole_number, one_digit, three_digits = (partial(number, digits=digits) for digits in (0, 1, 3))
percent_1 = partial(percent, digits=1)


def counted(count: int, one: str, many: str = "") -> str:
    """Return a number with the noun that it counts.

    Args:
        count: Number.
        one: Noun in the singular.
        many: Noun in the plural. Default: the singular and an s.

    Example:
        >>> counted(1, "person", "people"), counted(2, "image")
        ('1 person', '2 images')
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def listed(names: Sequence[str]) -> str:
    """Return names as a list in a sentence.

    Example:
        >>> listed(["nose"]), listed(["nose", "eyes", "mouth"])
        ('nose', 'nose, eyes and mouth')
    """
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def value_range(values: Iterable[float], digits: int = 3) -> str:
    """Return the smallest and the largest of some numbers, or the number if all are written alike.

    Example:
        >>> value_range([0.5, 0.25]), value_range([0.5])
        ('0.250 to 0.500', '0.500')
    """
    known = list(values)
    low, high = number(min(known), digits), number(max(known), digits)
    return low if low == high else f"{low} to {high}"
