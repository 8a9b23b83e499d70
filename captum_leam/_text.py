"""Names of files, people and networks, which others gave: as text that can be shown, as cells of a table, as names of files."""

from __future__ import annotations

import unicodedata
from typing import Any

from captum_leam._optional import pd

FORMULA = ("=", "+", "-", "@", "\t", "\n", "＝", "＋", "－", "＠")
"""What a spreadsheet takes for the beginning of a formula."""


def shown(text: object) -> str:
    r"""Text as it may be shown: characters that cannot be seen, or that turn others around, are written as their code.

    Escape sequences of terminals and halves of characters (file names that are no UTF-8) are among them.

    Example:
        >>> shown("ann\u202ebob\n")
        'ann\\u202ebob\\u000a'
    """
    text = str(text)
    if text.isprintable():
        return text
    return "".join(c if unicodedata.category(c)[0] != "C" else f"\\u{ord(c):04x}" for c in text)


def as_text(name: str) -> str:
    r"""Return a file name as valid text, with bytes that are not UTF-8 written as escapes.

    Example:
        >>> as_text("ümlaut"), as_text("\udcff.png")
        ('ümlaut', '\\xff.png')
    """
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def for_terminal(value: object) -> str:
    r"""Text for rich to print: nothing in it is markup, nothing steers the terminal; lines stay lines.

    Example:
        >>> for_terminal("a\x1b]0;owned\x07 [bold]")
        'a\\u001b]0;owned\\u0007 \\[bold]'
    """
    from rich.markup import escape

    return escape("\n".join(shown(line) for line in str(value).split("\n")))


def safe_cell(value: Any) -> Any:
    r"""Return a value that is safe in a CSV file: text that a spreadsheet would read as a formula gets an apostrophe in front.

    A carriage return, which writers of CSV leave unquoted and which would begin a row, is written as its code.

    Source: OWASP, CSV injection.

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

    Example:
        >>> import pandas as pd
        >>> safe_cells(pd.DataFrame({"name": ["@ann"], "drop": [-0.1]})).to_numpy().tolist()
        [["'@ann", -0.1]]
    """
    from pandas.api.types import is_numeric_dtype

    texts = {str(name): [safe_cell(v) for v in table[name]] for name in table if not is_numeric_dtype(table[name])}
    return table.assign(**texts)


def safe_name(name: str) -> str:
    """Return a file name of letters, digits, dots, dashes and underscores for any name.

    Example:
        >>> safe_name("<b>../ann 1.png")
        '_b_.._ann_1.png'
    """
    return "".join(c if c.isascii() and (c.isalnum() or c in ".-_") else "_" for c in name)[-80:]
