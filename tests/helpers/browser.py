"""A page in a headless Chromium, for tests."""

import base64
import hashlib
import json
import subprocess
from html.parser import HTMLParser
from pathlib import Path


def browse(chromium: str, page: Path, folder: Path, *options: str) -> str:
    """Open a page with a profile of its own in ``folder``; what the browser wrote."""
    quiet = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--hide-scrollbars", f"--user-data-dir={folder / 'profile'}",
    ]  # fmt: skip
    done = subprocess.run([chromium, *quiet, *options, page.as_uri()], capture_output=True, text=True, timeout=120)  # noqa: S603
    return done.stdout if "--enable-logging=stderr" not in options else done.stderr


def console(chromium: str, page: Path, folder: Path) -> list[str]:
    """What a page says on the console: errors, and requests that its policy refuses."""
    said = browse(chromium, page, folder, "--enable-logging=stderr", "--dump-dom")
    return [line for line in said.splitlines() if ":CONSOLE" in line]


def with_script(page: Path, script: str, out: Path) -> Path:
    """The page with one more script, which its policy is told of; figures' scripts of names are still refused."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    text = page.read_text(encoding="utf-8").replace("script-src '", f"script-src 'sha256-{digest}' '", 1)
    out.write_text(text.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    return out


def measured(chromium: str, page: Path, script: str, folder: Path, *options: str) -> dict:
    """What a script finds in the page: it writes JSON into the attribute data-found of the body."""
    asked = with_script(
        page, f"document.body.dataset.found = JSON.stringify((() => {{ {script} }})());", folder / "asked.html"
    )
    dom = browse(chromium, asked, folder, *options, "--dump-dom")
    body = next(attrs for tag, attrs in LooseDom(dom).elements if tag == "body")
    return json.loads(body["data-found"])


class LooseDom(HTMLParser):
    """Elements of a page with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
