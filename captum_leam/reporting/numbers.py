"""Write numbers as pages show them: a fixed count of digits, a true minus, and a dash where a number is not known."""

import math
from functools import partial
from typing import Any

UNKNOWN = "–"


def number(value: Any, digits: int = 2) -> str:
    """Return a number with a fixed count of digits and a true minus; a dash where it is not known."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    text = f"{value:.{digits}f}"
    return text.replace("-", "−") if float(text) else f"{0:.{digits}f}"


def percent(value: Any, digits: int = 0) -> str:
    """Return a share as percent."""
    text = number(None if value is None else 100 * value, digits)
    return text if text == UNKNOWN else f"{text}\N{NO-BREAK SPACE}%"


def significant(value: Any) -> str:
    """Return a number with four significant digits."""
    return UNKNOWN if value is None or not math.isfinite(value) else f"{value:.4g}".replace("-", "−")


def p_value(value: Any) -> str:
    """Return a p-value with three digits, or "< 0.001"."""
    return "<\N{NO-BREAK SPACE}0.001" if value is not None and value < 0.001 else number(value, 3)


def interval(low: Any, high: Any, digits: int = 2) -> str:
    """Return an interval in brackets; nothing where it is not known."""
    known = math.isfinite(low) and math.isfinite(high)
    return f"[{number(low, digits)},\N{NO-BREAK SPACE}{number(high, digits)}]" if known else ""


def estimate(value: Any, low: Any, high: Any, digits: int = 2) -> str:
    """Return a number with its interval behind it."""
    return f"{number(value, digits)}\N{NO-BREAK SPACE}{interval(low, high, digits)}".strip()


whole_number, one_digit, three_digits = (partial(number, digits=digits) for digits in (0, 1, 3))
percent_1 = partial(percent, digits=1)
