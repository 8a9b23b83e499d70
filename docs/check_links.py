"""Do the links within the built pages lead somewhere? Every file and every anchor, without the network.

    python docs/check_links.py docs/_build/html

Prints what is broken; exit code 1 if anything is. Links to other hosts are counted, not followed.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# pages that are made by a script in the browser, or hold no links of ours
SKIPPED = ("_modules", "_static")


class Page(HTMLParser):
    """Anchors and links of one page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.anchors |= {named[key] or "" for key in ("id", "name") if key in named}
        target = named.get("href" if tag in ("a", "link") else "src" if tag in ("img", "script") else "")
        if target:
            self.links.append(target)


def broken(root: Path) -> tuple[list[str], int, int]:
    """What leads nowhere, how many links there are within, and how many to other hosts."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in root.rglob("*.html")}
    wrong, within, outside = [], 0, 0
    for path, page in pages.items():
        if path.relative_to(root).parts[0] in SKIPPED:
            continue
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                outside += 1
                continue
            within += 1
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path.resolve()
            if not target.is_file():
                wrong.append(f"{path.relative_to(root)}: {link} (no such file)")
            elif parts.fragment and target.suffix == ".html":
                there = pages[root / target.relative_to(root.resolve())].anchors
                if unquote(parts.fragment) not in there:
                    wrong.append(f"{path.relative_to(root)}: {link} (no such anchor)")
    return wrong, within, outside


def main() -> int:
    wrong, within, outside = broken(Path(sys.argv[1]))
    print("\n".join(sorted(set(wrong))))
    print(f"{within} links within the pages, {len(set(wrong))} broken; {outside} to other hosts, not followed")
    return 1 if wrong or not within else 0


if __name__ == "__main__":
    raise SystemExit(main())
