"""Sanitising of untrusted names of files, people and networks for display, for CSV files and for file names."""

from __future__ import annotations

import unicodedata
from typing import Any

from captum_leam._optional import pd

FORMULA = ("=", "+", "-", "@", "\t", "\n", "＝", "＋", "－", "＠")
"""Characters that a spreadsheet interprets as the beginning of a formula."""


def printable(text: object) -> str:
    r"""Return a text with invisible characters and characters that change the direction of others replaced by their codes.

    These include escape sequences of terminals and the surrogates of file names that are not valid UTF-8.

    Args:
        text: Text, or any other object.

    Example:
        >>> printable("ann\u202ebob\n")
        'ann\\u202ebob\\u000a'
    """
    text = str(text)
    if text.isprintable():
        return text
    return "".join(c if unicodedata.category(c)[0] != "C" else f"\\u{ord(c):04x}" for c in text)


def as_text(name: str) -> str:
    r"""Return a file name as valid text, with bytes that are not valid UTF-8 replaced by escapes.

    Args:
        name: File name as Python decodes it.

    Example:
        >>> as_text("ümlaut"), as_text("\udcff.png")
        ('ümlaut', '\\xff.png')
    """
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def for_terminal(value: object) -> str:
    r"""Return a text for rich to print, with markup and control characters other than newlines escaped.

    Args:
        value: Text, or any other object.

    Example:
        >>> for_terminal("a\x1b]0;owned\x07 [bold]")
        'a\\u001b]0;owned\\u0007 \\[bold]'
    """
    from rich.markup import escape

    return escape("\n".join(printable(line) for line in str(value).split("\n")))


def safe_cell(value: Any) -> Any:
    r"""Return a value that is safe in a CSV file, with an apostrophe before texts that a spreadsheet would interpret as a formula.

    Carriage returns, which CSV writers do not quote and which would begin a row, are replaced by their code.

    Source: OWASP, CSV injection.

    Args:
        value: Value of a cell.

    Example:
        >>> safe_cell("=1+1"), safe_cell(-2.5), safe_cell("a\r=1")
        ("'=1+1", -2.5, 'a\\u000d=1')
    """
    if not isinstance(value, str):
        return value
    text = value.replace("\r", "\\u000d")
    return f"'{text}" if text.startswith(FORMULA) else text


def safe_cells(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with :func:`safe_cell` applied to every text.

    Args:
        table: Table to write to a CSV file.

    Example:
        >>> import pandas as pd
        >>> safe_cells(pd.DataFrame({"name": ["@ann"], "drop": [-0.1]})).to_numpy().tolist()
        [["'@ann", -0.1]]
    """
    from pandas.api.types import is_numeric_dtype

    texts = {str(name): [safe_cell(v) for v in table[name]] for name in table if not is_numeric_dtype(table[name])}
    return table.assign(**texts)


def safe_name(name: str) -> str:
    """Return a file name of letters, digits, dots, dashes and underscores, at most 80 characters long.

    Args:
        name: Any name.

    Example:
        >>> safe_name("<b>../ann 1.png")
        '_b_.._ann_1.png'
    """
    return "".join(c if c.isascii() and (c.isalnum() or c in ".-_") else "_" for c in name)[-80:]
