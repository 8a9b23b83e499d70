"""Names of files, people and networks that others chose to harm: on pages, in tables, on a terminal, as names of files; and no network."""

import csv
import json
import os
import re
import socket
import urllib.request
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from captum_leam import cli
from captum_leam._text import for_terminal, printable, safe_cell, safe_cells
from captum_leam.reporting.explanation_page import write_page
from captum_leam.reporting.files import FileOptions, explain_files
from captum_leam.reporting.study_report import write_report
from captum_leam.study import Study
from captum_leam.synthetic import SyntheticPopulation
from tests.helpers.browser import LooseDom, opened
from tests.helpers.tiny_study import write_study

OWNED = "document.title='owned'"
FILES = (
    f'"><img src=x onerror="{OWNED}">.png',
    f"<svg onload={OWNED}>.png",
    f"javascript:{OWNED}.png",
    '=HYPERLINK("http:example.invalid")&{{7*7}}.png',
    "a\u202egnp.exe.png",
    "\x1b]0;owned\x07 [bold].png",
)
"""Names that a file system takes (no slash)."""
NAMES = (
    f"<script>{OWNED}</script>",
    f"</title></style></td><script>{OWNED}</script>",
    "../../evil",
    "@SUM(A1)",
    FILES[0],
)
MODEL = """
import torch
from captum_leam.synthetic import EmbeddingNet

def small():
    torch.manual_seed(0)
    return EmbeddingNet()
"""


@pytest.fixture(scope="module")
def no_network():
    """Whoever asks for an address or a connection fails the test."""

    def refuse(*args: object, **_: object) -> None:
        raise AssertionError(f"the network was asked for: {args[:2]}")

    with pytest.MonkeyPatch.context() as patch:
        for name in ("getaddrinfo", "gethostbyname", "create_connection"):
            patch.setattr(socket, name, refuse)
        for name in ("connect", "connect_ex", "sendto", "bind"):
            patch.setattr(socket.socket, name, refuse)
        patch.setattr(urllib.request, "urlopen", refuse)
        patch.setattr(torch.hub, "load_state_dict_from_url", refuse)
        yield


def write_crops(folder: Path, names: tuple[str, ...], px: int = 112) -> list[Path]:
    folder.mkdir(parents=True)
    faces = SyntheticPopulation(2, seed=1).sample([0] * len(names), seed=3).images
    faces = torch.nn.functional.interpolate(faces, (px, px), mode="bilinear", antialias=True)
    for name, image in zip(names, faces, strict=True):
        Image.fromarray((image.movedim(0, -1) * 255).round().byte().numpy()).save(folder / name, "PNG")
    return [folder / name for name in names]


@pytest.fixture(scope="module")
def explained(tmp_path_factory, no_network):
    """Pages of one face after the other and of a pair, from files of such names in a folder of such a name."""
    folder = tmp_path_factory.mktemp("explain") / f"<img src=x onerror={OWNED}>"
    crops = write_crops(folder, FILES)
    (folder / "nets.py").write_text(MODEL)
    pages = {}
    for kind, files in (("many", crops), ("pair", crops[:2])):
        found = explain_files(files, f"{folder / 'nets.py'}:small", FileOptions(preset="fast", pictures="crops"))
        settings = {"model": folder, **found.settings}
        pages[kind] = write_page([found], folder.parent / kind, title=found.title, settings=settings)
    return pages


@pytest.fixture(scope="module")
def studied(tmp_path_factory, no_network):
    """A study over a table of people of such names, whose paths lead out of the folder, with networks of such names."""
    folder = tmp_path_factory.mktemp("study")
    crops = write_crops(folder / "elsewhere", tuple(f"{i}.png" for i in range(2 * len(NAMES))), px=48)
    inner = folder / "inner"
    inner.mkdir()
    (inner / "link.png").symlink_to(crops[1])
    places = [f"../elsewhere/{path.name}" for path in crops]
    places[0], places[1] = str(crops[0]), "link.png"
    with (inner / "people.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "person"])
        rows.writerows([place, NAMES[i // 2]] for i, place in enumerate(places))
    networks = {f"<script>{OWNED}<script>": "nets.py:one", "=cmd|' calc'!A0": "nets.py:two"}
    (inner / "faces").mkdir()  # tiny_study makes its own otherwise
    config = write_study(inner, people="people.csv", models=networks, title=f"<script>{OWNED}</script>", shard_size=20)
    result = Study(config).run(progress=False, report=False)
    page = write_report(result.folder, people=NAMES)
    return folder, result.folder, page


# -- pages ---------------------------------------------------------------------------------------------------


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))


def all_pages(explained, studied) -> list[Path]:
    _, results, page = studied
    people = sorted((results / "people").glob("*.html"))
    assert len(people) == len(NAMES)
    return [*explained.values(), page, *people]


@pytest.mark.slow
@pytest.mark.ci
def test_every_page_has_a_policy_and_nothing_that_runs(explained, studied):
    for page in all_pages(explained, studied):
        elements = Tags(page.read_text(encoding="utf-8")).elements
        policy = next(a["content"] for t, a in elements if a.get("http-equiv") == "Content-Security-Policy")
        assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")
        assert "base-uri 'none'; form-action 'none'" in policy
        assert "unsafe-eval" not in policy
        assert sum(tag == "script" for tag, _ in elements) == ("script-src 'sha256-" in policy)
        assert not {tag for tag, _ in elements} & {"iframe", "object", "embed", "link", "base", "form"}
        for _, attributes in elements:
            assert not [name for name in attributes if name.startswith("on")]
            for name in ("src", "href", "xlink:href", "action", "formaction"):
                assert not re.match(
                    r"\s*(javascript|vbscript|https?|file|data:text/html)", attributes.get(name) or "", re.I
                )


def test_names_are_shown_as_they_are(explained, studied):
    text = explained["many"].read_text(encoding="utf-8")
    assert "&lt;svg onload=" in text
    assert "{{7*7}}" in text
    assert "\u202e" not in text
    assert "a\\u202egnp.exe.png" in text
    assert "\x1b" not in text
    assert "&lt;script&gt;document.title=" in studied[2].read_text(encoding="utf-8")


def test_nothing_runs_in_a_browser(chromium, explained, studied):
    """What is injected would change the title; the heading says what it must be."""
    _, _, page = studied
    people = sorted((page.parent / "people").glob("*.html"))
    for path in [*explained.values(), page, people[0]]:
        with opened(chromium, path, wait=300) as visit:
            for control in visit.page.locator("select[data-control], input[data-control]").all():
                control.dispatch_event("input")
            for region in visit.page.locator("tr[data-region] button").all()[:3]:
                region.click()
            for over in visit.page.locator("canvas.over").all():
                over.focus()
            dom = visit.page.content()
            assert "\u202e" not in dom
            assert visit.console == []
            assert visit.requests == [path.as_uri()]
        title = re.search(r"<title>(.*?)</title>", dom, re.DOTALL)[1]
        heading = re.search(r"<h1>(.*?)</h1>", dom, re.DOTALL)[1]
        assert title == heading != "owned"
        assert sum(tag == "script" for tag, _ in LooseDom(dom).elements) <= 1
        assert not [
            a
            for tag, a in LooseDom(dom).elements
            if tag == "img" and not a["src"].startswith(("data:image/png", "data:image/svg+xml"))
        ]


@pytest.mark.parametrize("which", ["explained", "studied"])
def test_the_policy_holds_even_where_escaping_would_fail(chromium, request, tmp_path, which):
    """A script, a handler and a picture from elsewhere, put into the page as they are: none runs. Without the policy they do."""
    page = request.getfixturevalue(which)["many"] if which == "explained" else request.getfixturevalue(which)[2]
    attack = f'<script>{OWNED}</script><img src=x onerror="{OWNED}"><svg onload="{OWNED}"></svg><base href=\'http://x.invalid\'>'
    text = page.read_text(encoding="utf-8").replace("<main", f"{attack}<main", 1)
    (tmp_path / "held.html").write_text(text, encoding="utf-8")
    bare, count = re.subn(r"<meta http-equiv=\"Content-Security-Policy\"[^>]*>", "", text)
    assert count == 1
    (tmp_path / "bare.html").write_text(bare, encoding="utf-8")
    titles = {}
    for name in ("held", "bare"):
        with opened(chromium, tmp_path / f"{name}.html", wait=300) as visit:
            dom = visit.page.content()
        titles[name] = re.search(r"<title>(.*?)</title>", dom, re.DOTALL)[1]
    assert titles["bare"] == "owned"
    assert titles["held"] != "owned"


# -- tables ----------------------------------------------------------------------------------------------------


def test_no_cell_is_a_formula(explained, studied):
    tables = [
        *explained["many"].parent.glob("*.csv"),
        *explained["pair"].parent.glob("*.csv"),
        *studied[1].rglob("*.csv"),
    ]
    assert len(tables) > 10
    texts = set()
    for path in tables:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.reader(file):
                texts |= set(row)
    bad = [t for t in texts if t[:1] in "=+@\t\r-" and t and not re.fullmatch(r"[+-]?(\d|inf|nan|\.)[\de.+-]*", t)]
    assert not bad
    assert any(t.startswith("'=HYPERLINK") for t in texts)
    assert any(t.startswith("'=cmd") for t in texts)


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\n", "＝", "＋", "－", "＠"])
def test_every_start_of_a_formula_is_quoted(start):
    assert safe_cell(f"{start}1") == f"'{start}1"
    assert safe_cell(f"a{start}1") == f"a{start}1"


def test_a_carriage_return_begins_no_row(tmp_path):
    """pandas writes it without quotes, and whoever reads the table finds a row that begins with a formula."""
    safe_cells(pd.DataFrame({"name": ["ann\r=1+1", "\r=2"]})).to_csv(tmp_path / "t.csv", index=False)
    with (tmp_path / "t.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["name"], ["ann\\u000d=1+1"], ["\\u000d=2"]]


def test_names_that_are_no_utf_8_are_explained_and_shown(tmp_path, no_network):
    """File names are bytes; half a character must not end the command when everything is computed."""
    folder = tmp_path / "crops"
    try:
        crops = write_crops(folder, ("a.png", os.fsdecode(b"b\xff.png"), "c.png"))
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    (tmp_path / "nets.py").write_text(MODEL)
    found = explain_files(crops, f"{tmp_path / 'nets.py'}:small", FileOptions(preset="fast", pictures="crops"))
    page = write_page([found], tmp_path / "out", title=found.title, settings={"folder": crops[1]})
    assert "b\\xff.png" in page.read_text(encoding="utf-8")
    assert "b\\xff.png" in (tmp_path / "out" / "drops.csv").read_text(encoding="utf-8")
    json.loads((tmp_path / "out" / "settings.json").read_text(encoding="utf-8"))


# -- files -----------------------------------------------------------------------------------------------------


def test_nothing_is_written_outside(explained, studied):
    folder, results, _ = studied
    assert {p.name for p in folder.iterdir()} == {"elsewhere", "inner"}
    assert results.parent == folder / "inner"
    assert {p.name for p in (folder / "inner").iterdir()} <= {
        "people.csv",
        "link.png",
        "faces",
        "nets.py",
        "study.yaml",
        "results",
        "__pycache__",
    }
    assert len(list((folder / "elsewhere").iterdir())) == 2 * len(NAMES)
    for path in [*results.rglob("*"), *explained["many"].parent.rglob("*"), *explained["pair"].parent.rglob("*")]:
        assert re.fullmatch(r"[\w][\w.-]*|\.lock", path.name), path


# -- the terminal ----------------------------------------------------------------------------------------------


def test_escape_sequences_of_names_do_not_reach_the_terminal(tmp_path):
    crops = write_crops(tmp_path / "crops", FILES[-2:])
    result = CliRunner().invoke(
        cli.app, ["explain", *map(str, crops), "--model", f"{tmp_path}/lost.py:x", "--out", str(tmp_path / "o")]
    )
    assert isinstance(result.exception, ValueError)
    (tmp_path / "nets.py").write_text(MODEL)
    out = ["--out", str(tmp_path / "out"), "--preset", "fast", "--pictures", "crops", "--no-progress"]
    result = CliRunner().invoke(cli.app, ["explain", *map(str, crops), "--model", f"{tmp_path}/nets.py:small", *out])
    assert result.exit_code == 0, result.output
    assert "\x07" not in result.output
    assert "]0;owned" not in re.sub(r"\\u001b\]0;owned", "", result.output)
    assert "\u202e" not in result.output
    assert for_terminal("\x1b[2J\x9b31m\u2066[red]\nnext") == "\\u001b[2J\\u009b31m\\u2066\\[red]\nnext"
    assert printable("山田 ümlaut a\u00a0b") == "山田 ümlaut a\u00a0b"


# -- the network -----------------------------------------------------------------------------------------------


def test_the_guard_sees_a_connection(no_network):
    with pytest.raises(AssertionError, match="the network was asked for"):
        urllib.request.urlopen("http://example.invalid")
    with socket.socket() as one, pytest.raises(AssertionError, match="the network was asked for"):
        one.connect(("127.0.0.1", 9))


def test_the_demo_asks_nothing_of_the_network(no_network, tmp_path, monkeypatch):
    """With networks of three steps; explain and study ran under the same guard above."""
    import captum_leam.synthetic as synthetic

    monkeypatch.setattr(synthetic, "train", partial(synthetic.train, steps=3, batch_size=4))
    result = CliRunner().invoke(cli.app, ["demo", "--out", str(tmp_path / "demo"), "--people", "2", "--no-progress"])
    assert result.exit_code == 0, result.exception
    assert (tmp_path / "demo" / "index.html").is_file()
