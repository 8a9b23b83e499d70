"""A page in a headless Chromium, driven by Playwright, for tests."""

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

WEB = Path(sys.prefix) / "web" / "node_modules"
"""axe-core, TypeScript and ESLint, put there by `make web`."""


class Visit:
    """A page that is open: Playwright's page, what it wrote to the console, and what it asked of any network."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.console: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self.console.append(message.text))
        page.on("pageerror", lambda error: self.console.append(str(error)))
        page.on("request", self._keep)

    def _keep(self, request: Any) -> None:
        if not request.url.startswith("data:"):
            self.requests.append(request.url)

    def screenshot(self, *, full: bool = False) -> np.ndarray:
        """Grey values of what is seen."""
        png = self.page.screenshot(full_page=full)
        return np.asarray(Image.open(io.BytesIO(png)).convert("L"), dtype=float)


@contextmanager
def opened(
    chromium: Any, page: Path, *, width: int = 1200, height: int = 900, scheme: str = "light", wait: int = 0
) -> Iterator[Visit]:
    """Open a file in a new context of a browser: nothing is kept from other pages."""
    with chromium.new_context(viewport={"width": width, "height": height}, color_scheme=scheme) as context:
        visit = Visit(context.new_page())
        visit.page.goto(page.as_uri())
        if wait:
            visit.page.wait_for_timeout(wait)
        yield visit


def measured(chromium: Any, page: Path, script: str, **options: Any) -> Any:
    """What a script finds in the page."""
    with opened(chromium, page, **options) as visit:
        return visit.page.evaluate(f"() => {{ {script} }}")


def axe(visit: Visit) -> list[str]:
    """Serious and critical issues that axe-core finds."""
    source = WEB / "axe-core" / "axe.min.js"
    if not source.is_file():
        pytest.skip("needs axe-core: make web")
    visit.page.evaluate(source.read_text(encoding="utf-8"))
    found = visit.page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{issue['id']} ({issue['impact']}): {issue['help']}; {issue['nodes'][0]['html'][:200]}"
        for issue in found["violations"]
        if issue["impact"] in ("serious", "critical")
    ]


class LooseDom(HTMLParser):
    """Elements of a page with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
