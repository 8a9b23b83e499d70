"""Run the code of pages, and write what it prints and draws into them: ``python tools/page_outputs.py docs/howto/layers.md``.

A block of Python may be followed by a block ``text``, which becomes what the code prints, and by an image, which becomes the figure that
the code binds to ``figure``. A block that begins with ``# not run`` is left as it is.
"""

import argparse
import contextlib
import io
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK = re.compile(
    r"^```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<printed>.*?)^```\n)?(?:\n!\[[^\]]*\]\((?P<image>[^)]+)\))?",
    flags=re.MULTILINE | re.DOTALL,
)
DPI = 110


def run_blocks(text: str, names: dict[str, Any]) -> Iterator[tuple[re.Match[str], str]]:
    """Run the blocks of a page from top to bottom, and yield each with what it prints."""
    for block in BLOCK.finditer(text):
        if block["code"].startswith("# not run"):
            continue
        printed = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(printed):
            warnings.simplefilter("ignore")
            exec(compile(block["code"], "page", "exec"), names)  # noqa: S102 - our own page
        yield block, "\n".join(line.rstrip() for line in printed.getvalue().splitlines())


def write_outputs(page: Path) -> None:
    """Write the printed text and the figures of a page."""
    before, names = page.read_text(encoding="utf-8"), {"__name__": "page"}
    text = before
    for block, printed in run_blocks(before, names):
        if block["printed"] is not None:
            written = block[0].replace(f"```text\n{block['printed']}", f"```text\n{printed}\n")
            text = text.replace(block[0], written)
        if block["image"] is not None:
            names["figure"].savefig(page.parent / block["image"], dpi=DPI)
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pages", nargs="+", type=Path, help="Pages whose outputs are written.")
    for path in parser.parse_args().pages:
        write_outputs(path)
