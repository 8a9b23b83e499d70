"""The report of a study: inert, self-contained, right, and readable in a browser."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib.figure import Figure
from PIL import Image

from captum_leam._text import printable
from captum_leam.reporting import figures
from captum_leam.reporting.answers import answers
from captum_leam.reporting.figure_style import DARK, INK, as_svg, themed
from captum_leam.reporting.findings import read_findings
from captum_leam.reporting.numbers import estimate, interval, number, p_value, percent
from captum_leam.reporting.page import Plate, as_csv
from captum_leam.reporting.person_page import page_name
from captum_leam.reporting.schema import TABLES
from captum_leam.reporting.study_report import write_report
from captum_leam.reporting.study_sections import square
from tests.helpers.browser import axe, measured, opened
from tests.helpers.fake_study import HOSTILE, REGIONS, fake_results

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Elements with their attributes and text; refuses tags that do not close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.elements, self.scripts = [], [], []
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    folder = fake_results(tmp_path_factory.mktemp("usual") / "results")
    return folder, write_report(folder)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    folder = fake_results(
        tmp_path_factory.mktemp("hostile") / "results",
        names=HOSTILE,
        models=(HOSTILE[0], HOSTILE[2]),
        people=9,
        layers=("stem", HOSTILE[1]),
    )
    return folder, write_report(folder, people=HOSTILE)


@pytest.fixture
def undrawn(monkeypatch):
    """Pages whose figures are built and not drawn, where the words are what is looked at: drawing takes most of the time."""
    blank = '<svg xmlns="http://www.w3.org/2000/svg" width="72pt" height="72pt"><g id="figure_1"/></svg>'
    monkeypatch.setattr("captum_leam.reporting.page.as_svg", lambda figure, name: blank)


SMALL = {"models": ("a", "b"), "layers": ("l", "m"), "people": 4, "images": 3}
"""Options of a study that is drawn quickly."""


def change(folder: Path, name: str, function) -> None:
    """Rewrite one table."""
    path = folder / "tables" / f"{name}.parquet"
    frame = function(pq.read_table(path).to_pandas())
    more = tuple(c for c in frame.columns if c not in TABLES[name].names)
    pq.write_table(pa.Table.from_pandas(frame, schema=TABLES[name].schema(more), preserve_index=False), path)


# -- inert and self-contained --------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.parametrize("which", ["usual", "hostile"])
def test_the_page_requests_nothing_from_a_network(which, request):
    folder, page = request.getfixturevalue(which)
    for path in [page, *(folder / "people").glob("*.html")]:
        parsed = Page(path.read_text(encoding="utf-8"))
        policy = next(m["content"] for m in parsed.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
        assert "default-src 'none'" in policy
        assert "unsafe-eval" not in policy
        assert len(parsed.scripts) == 1
        digest = base64.b64encode(hashlib.sha256(parsed.scripts[0].encode()).digest()).decode()
        assert f"script-src 'sha256-{digest}'" in policy
        assert {tag for tag, _ in parsed.elements} & {
            "iframe",
            "object",
            "embed",
            "link",
            "base",
            "form",
            "video",
        } == set()
        for _, attrs in parsed.elements:
            assert not any(name.startswith("on") for name in attrs)
            for name in ("src", "href", "xlink:href"):
                address = attrs.get(name) or "#"
                local = re.fullmatch(r"(\.\./)?((figures|people)/)?[\w.%-]+\.(csv|html)", address)
                assert address.startswith(("#", "data:image/png", "data:image/svg+xml", "data:text/csv")) or local, (
                    address
                )
            assert not re.search(r"url\((?!#)", attrs.get("style") or "")


def test_hostile_names_are_text(hostile):
    _, page = hostile
    text = page.read_text(encoding="utf-8")
    assert HOSTILE[0] not in text
    assert "&lt;script&gt;document.title=" in text
    assert "<img src=x" not in text
    assert "{{ 7*7 }}" in text  # no template is run: neither 49 ...
    assert "\u202e" not in text  # ... nor are characters shown that turn others around
    assert "\\u202e" in "".join(p.read_text(encoding="utf-8") for p in (page.parent / "people").glob("*.html"))


def test_files_of_people_stay_in_their_folder(hostile):
    folder, page = hostile
    pages = list((folder / "people").iterdir())
    assert len(pages) == len(HOSTILE)
    assert all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*\.html", path.name) for path in pages)
    assert {path.parent.name for path in folder.rglob("*.html")} == {"results", "people"}
    assert not list(folder.rglob("*.part"))
    links = [a["href"] for a in Page(page.read_text(encoding="utf-8")).all("a") if a["href"].startswith("people/")]
    assert sorted(links) == sorted(f"people/{path.name}" for path in pages)


def test_pages_of_different_people_have_different_names():
    names = ["a/b", "a_b", "a b", "A", "..", "", ".", "x" * 300, "x" * 301]
    assert len({page_name(name) for name in names}) == len(names)


def test_csv_starts_no_formula():
    table = pd.DataFrame({"name": ["=1+1", "@x", "-a", "+b", "\tc", "plain"], "value": [-1.5] * 6})
    text = as_csv(table)
    assert not re.search(r"^[=@+\t-]", text, re.MULTILINE)
    assert "-1.5" in text


# -- drawings and their numbers ------------------------------------------------------------------------


def test_every_drawing_has_its_numbers(usual):
    folder, page = usual
    parsed = Page(page.read_text(encoding="utf-8"))
    downloads = [a for a in parsed.all("a") if "download" in a]
    assert len(downloads) == len(parsed.all("figure")) == len(list((folder / "figures").glob("*.csv")))
    for link in downloads:
        held = base64.b64decode(link["href"].partition("base64,")[2])
        assert held == (folder / "figures" / link["download"]).read_bytes()
        assert len(pd.read_csv(folder / "figures" / link["download"]))
    assert {path.stem.rstrip("_0123456789") for path in (folder / "figures").glob("*.svg")} == {
        path.stem for path in (folder / "figures").glob("*.csv")
    }


def test_numbers_are_those_of_the_tables(usual):
    folder, _ = usual
    drawn = pd.read_csv(folder / "figures" / "headline.csv").set_index("model")
    table = pq.read_table(folder / "tables" / "patterns.parquet").to_pandas()
    own = table.query("layer == 'overall' and kind == 'top' and control == ''").set_index("model")
    np.testing.assert_allclose(drawn["above_control"], own["above_control"], atol=1e-6)
    regions = pd.read_csv(folder / "figures" / "lift_face.csv")
    assert set(regions["region"]) == set(REGIONS)
    compared = read_findings(folder).against_controls().set_index(["explained", "control"])
    drops = pq.read_table(folder / "tables" / "drops.parquet").to_pandas()
    cell = drops.query("measured == 'ms1m' and fill == 'blur' and fraction == 0.05")
    leam = cell.query("explained == 'ms1m' and layer == 'overall' and control == ''")["drop"].mean()
    other = cell.query("explained == 'ms1m' and control == 'other people'")["drop"].mean()
    assert compared.loc[("ms1m", "other people"), "difference"] == pytest.approx(leam - other, abs=1e-6)
    assert compared.loc[("ms1m", "random pixels"), "map"] == pytest.approx(leam, abs=1e-6)


def test_the_same_study_gives_the_same_page_elsewhere_too(usual, tmp_path):
    folder, page = usual
    other = write_report(folder, tmp_path / "deep" / "page.html")
    assert other.read_bytes() == page.read_bytes()
    for path in (folder / "figures").iterdir():
        assert (tmp_path / "deep" / "figures" / path.name).read_bytes() == path.read_bytes()


def test_size_does_not_grow_with_people(usual, tmp_path):
    _, page = usual
    more = write_report(fake_results(tmp_path / "more", people=120, images=3))
    assert more.stat().st_size < 1.05 * page.stat().st_size
    assert page.stat().st_size < 1_500_000


def test_drawings_follow_the_page_and_hide_nothing():
    figure = Figure(figsize=(2, 2))
    figure.text(0.1, 0.5, "<b>&#0072b2 </style>", color=INK)
    figure.subplots().plot([0, 1], color=figures.MAP_COLOUR)
    drawn = as_svg(figure, "f")
    shown_on_page = themed(drawn)
    assert shown_on_page.count("prefers-color-scheme:dark") == 1
    for colour in (INK, figures.MAP_COLOUR):
        assert f": {colour}" in drawn
        assert f": {colour}" + '"]' in shown_on_page
        assert DARK[colour] in shown_on_page
    assert "&lt;b&gt;&amp;#0072b2 &lt;/style&gt;" in shown_on_page
    ElementTree.fromstring(shown_on_page)  # noqa: S314 - written by matplotlib just now


def test_large_numbers_are_beside_the_page():
    table = pd.DataFrame({"name": ["x" * 100] * 2000})
    drawn = Plate("big", "t", [("", Figure(figsize=(1, 1)))], "a", "c", table)
    assert drawn.address("figures/") == "figures/big.csv"
    assert len(drawn.sheet.rows) < drawn.sheet.total == 2000


# -- what is said --------------------------------------------------------------------------------------


def said(folder: Path):
    study = read_findings(folder)
    return {answer.key: answer for answer in answers(study, study.against_controls())}


def test_a_usual_study_is_answered_with_yes_and_its_regions(usual):
    found = said(usual[0])
    assert found["specific"].verdict == "yes"
    assert "(pose)" in found["specific"].text
    assert found["regions"].verdict.startswith(("brows", "nose", "eyes"))
    assert found["agreement"].verdict == "yes"


def test_an_interval_that_reaches_the_control_is_no_yes(tmp_path):
    folder = fake_results(tmp_path / "r")
    change(folder, "patterns", lambda t: t.assign(above_low=np.where(t["model"] == "casia", -0.01, t["above_low"])))
    answer = said(folder)["specific"]
    assert answer.verdict == "on 1 of 2"
    assert answer.tone == "partly"
    change(folder, "patterns", lambda t: t.assign(above_low=-0.01))
    assert said(folder)["specific"].tone == "no"
    change(folder, "patterns", lambda t: t.assign(above_low=np.nan, above_high=np.nan))
    assert said(folder)["specific"].verdict == "unsure"


def test_maps_that_a_control_beats_are_not_called_true(tmp_path):
    folder = fake_results(tmp_path / "r")
    change(folder, "drops", lambda t: t.assign(drop=t["drop"] + (t["control"] == "other people")))
    answer = said(folder)["faithful"]
    assert answer.tone == "partly"
    assert "not clearly better than other people" in answer.text
    change(folder, "drops", lambda t: t.assign(drop=t["drop"] + (t["control"] != "")))
    assert said(folder)["faithful"].tone == "no"


def test_groups_are_counted_after_correction(tmp_path):
    folder = fake_results(tmp_path / "r")
    change(folder, "groups", lambda t: t.assign(p_holm=np.where(np.isfinite(t["p"]), 0.2, np.nan)))
    assert said(folder)["groups"].verdict == "none found"
    change(folder, "groups", lambda t: t.assign(p_holm=np.where(t.index == 1, 0.001, t["p_holm"])))
    assert said(folder)["groups"].verdict == "1 of 10"
    assert "base similarity 0.74 and 0.69" in said(folder)["groups"].text


def test_a_network_that_separates_nobody_is_named_on_top(undrawn, tmp_path):
    folder = fake_results(tmp_path / "r", **{**SMALL, "models": ("a", "b", "c")})  # the third separates nobody
    text = write_report(folder).read_text(encoding="utf-8")
    assert text.index("hardly separates these people") < text.index("In short</h2>")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"models": ("one",)}, "There is one network only"),
        ({"layers": ("only",)}, "one layer only"),
        ({"groups": False}, "The study has no groups"),
        ({"controls": False}, "No control was run"),
        ({"overall": False}, "Layer l, means over people"),
    ],
)
def test_missing_parts_are_named_on_the_page(undrawn, tmp_path, options, words):
    page = write_report(fake_results(tmp_path / "r", **{**SMALL, **options}))
    text = page.read_text(encoding="utf-8")
    Page(text)
    assert words in text


@pytest.mark.parametrize(
    "name", ["patterns", "agreement", "region_summary", "drop_summary", "groups", "skipped", "scores"]
)
def test_an_empty_table_breaks_nothing(tmp_path, name):
    folder = fake_results(tmp_path / "r", **{**SMALL, "models": ("a",)})
    change(folder, name, lambda t: t[:0])
    if name == "drop_summary":
        change(folder, "drops", lambda t: t[:0])
    Page(write_report(folder).read_text(encoding="utf-8"))


def test_numbers_that_are_not_known_break_nothing(tmp_path):
    folder = fake_results(tmp_path / "r", **SMALL)
    for name in ("patterns", "agreement", "region_summary", "drop_summary", "verification"):
        floats = [c.name for c in TABLES[name].columns if c.kind == "float64" and c.name != "fraction"]
        change(folder, name, lambda t, floats=floats: t.assign(**dict.fromkeys(floats, np.nan)))
    (folder / "maps" / "mean.npz").unlink()
    Page(write_report(folder).read_text(encoding="utf-8"))


def test_folders_that_are_no_study_raise(tmp_path):
    with pytest.raises(ValueError, match=r"manifest\.json, tables/images\.parquet.*missing.*captum-leam study"):
        write_report(tmp_path)
    folder = fake_results(tmp_path / "r")
    (folder / "tables" / "groups.parquet").unlink()
    with pytest.raises(ValueError, match=r"tables/groups\.parquet missing"):
        write_report(folder)


# -- people --------------------------------------------------------------------------------------------


def photographs(page: Page):
    return [image for image in page.all("img") if not image["src"].startswith("data:image/svg+xml")]


def test_nobody_is_shown_unless_asked(usual):
    folder, page = usual
    assert not (folder / "people").exists()
    images = Page(page.read_text(encoding="utf-8")).all("img")
    assert all(image["src"].startswith("data:image/svg+xml") for image in images)
    text = re.sub(r'href="data:[^"]*"', "", page.read_text(encoding="utf-8"))
    assert not re.search(r"\bs02\b", text)  # a file of s01 was left out, and is named
    held = [path.read_text(encoding="utf-8") for path in (folder / "figures").glob("*.csv")]
    assert not re.search(r"\bs0[12]\b", "".join(held))


def test_the_page_of_a_person_holds_their_regions_and_no_faces(undrawn, tmp_path):
    folder = fake_results(tmp_path / "r", layers=("a",))
    page = write_report(folder, people=["s02"])
    person = folder / "people" / "s02.html"
    text = person.read_text(encoding="utf-8")
    parsed = Page(text)
    assert "people/s02.html" in page.read_text(encoding="utf-8")
    assert {"href": "../report.html"} in parsed.all("a")
    assert not photographs(parsed)
    drawn = pd.read_csv(folder / "figures" / "person_s02_regions.csv")
    table = pq.read_table(folder / "tables" / "regions.parquet").to_pandas()
    own = table.query("person == 's02' and model == 'ms1m' and layer == 'overall' and region == 'nose'")["share"].mean()
    assert drawn.query("model == 'ms1m' and region == 'nose'")["person"].item() == pytest.approx(own, rel=1e-5)
    assert len(parsed.all("figure")) == 2


def test_mean_map_of_a_person_where_maps_were_kept(undrawn, tmp_path):
    folder = fake_results(tmp_path / "r", models=("ms1m",), layers=("a",))
    (folder / "maps" / "people").mkdir()
    spot = np.zeros((112, 112), np.float16)
    spot[:30, :30] = 1
    maps = np.stack([spot.T[::-1], spot])[:, None]
    np.savez(folder / "maps" / "people" / "00-00000.npz", image=np.array([0, 4], np.int32), maps=maps)
    write_report(folder, people=["s02"])
    drawn = pd.read_csv(folder / "figures" / "person_s02_maps.csv")
    assert drawn["top left"].tolist() == [1.0]


def test_faces_only_if_asked_and_only_the_bytes_studied(undrawn, tmp_path):
    folder = fake_results(tmp_path / "r", **{**SMALL, "models": ("a",), "images": 4})
    faces = tmp_path / "faces"
    (faces / "s01").mkdir(parents=True)
    Image.new("RGB", (112, 112), "red").save(faces / "s01" / "0.png")
    Image.new("RGB", (112, 112), "blue").save(faces / "s01" / "1.png")
    sha = hashlib.sha256((faces / "s01" / "0.png").read_bytes()).hexdigest()
    change(folder, "images", lambda t: t.assign(sha256=np.where(t["path"] == "s01/0.png", sha, t["sha256"])))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["configuration"]["people"] = {"path": str(faces)}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    write_report(folder, people=["s01"])
    assert not photographs(Page((folder / "people" / "s01.html").read_text(encoding="utf-8")))
    write_report(folder, people=["s01"], show_faces=True)
    text = (folder / "people" / "s01.html").read_text(encoding="utf-8")
    assert [image["alt"] for image in photographs(Page(text))] == ["s01/0.png"]
    assert "2 of 3 pictures are not shown" in text


def test_unknown_people_raise(usual):
    folder, _ = usual
    with pytest.raises(ValueError, match=r"among the 12 people.*got 's1'\. Similar names: s"):
        write_report(folder, people=["s1"])
    with pytest.raises(ValueError, match="Expected names in `people` for `show_faces`"):
        write_report(folder, show_faces=True)
    with pytest.raises(TypeError, match=r"\['s01'\]"):
        write_report(folder, people="s01")


# -- small parts ---------------------------------------------------------------------------------------


def test_numbers_and_names_are_shortened_and_escaped():
    assert number(-0.0001) == "0.00"
    assert number(float("nan")) == "–"
    assert number(-0.126) == "−0.13"
    assert [text.split() for text in (percent(0.286, 1), p_value(0.00004), p_value(0.2))] == [
        ["28.6", "%"],
        ["<", "0.001"],
        ["0.200"],
    ]
    assert estimate(0.2, 0.1, 0.25).split() == ["0.20", "[0.10,", "0.25]"]
    assert interval(float("nan"), 0.25) == ""
    assert figures.short("a" * 10 + "b" * 10, 9) == "aaaa…bbbb"
    assert printable("a\x00\u202e\ud800") == "a\\u0000\\u202e\\ud800"


def test_pairs_become_a_square_in_the_given_order():
    pairs = pd.DataFrame({"a": ["x", "y"], "b": ["z", "x"], "value": [0.2, 0.4]})
    found = square(pairs, ["z", "y", "x", "w"])
    assert list(found.index) == ["z", "y", "x"]
    assert found.loc["x", "z"] == found.loc["z", "x"] == 0.2
    assert np.isnan(found.loc["z", "y"])


# -- in a browser --------------------------------------------------------------------------------------


def test_no_name_runs_as_a_script(chromium, hostile):
    _, page = hostile
    for path in [page, *sorted((page.parent / "people").glob("*.html"))[:2]]:
        found = measured(
            chromium,
            path,
            "return {title: document.title, heading: document.querySelector('h1').textContent,"
            " scripts: document.scripts.length,"
            " images: document.querySelectorAll('img:not([src^=\"data:image/svg+xml\"])').length,"
            " bold: document.querySelectorAll('main b').length};",
        )
        assert found["title"] == found["heading"] != "owned"  # a person's name is their page's title
        assert found["scripts"] == 1
        assert found["images"] == found["bold"] == 0


def test_tables_sort_by_click_and_say_so(chromium, usual):
    found = measured(
        chromium,
        usual[1],
        """
        const table = document.querySelector("#specific > .wide table");
        const column = (i) => [...table.tBodies[0].rows].map((row) => row.cells[i].dataset.v ?? row.cells[i].textContent);
        const [name, same] = [table.tHead.rows[0].cells[0], table.tHead.rows[0].cells[2]];
        const before = same.getAttribute("aria-sort");
        same.querySelector("button").click();
        const down = column(2), said = same.getAttribute("aria-sort");
        same.querySelector("button").click();
        const up = column(2), again = same.getAttribute("aria-sort");
        name.querySelector("button").click();
        return {before, said, again, cleared: same.getAttribute("aria-sort"), down, up, names: column(0),
                focusable: same.querySelector("button").tabIndex};
        """,
    )
    assert (found["before"], found["said"], found["again"], found["cleared"]) == (
        "none",
        "descending",
        "ascending",
        "none",
    )
    down = [float(v) for v in found["down"]]
    assert down == sorted(down, reverse=True)
    assert found["up"] == found["down"][::-1]
    assert found["names"] == sorted(found["names"])
    assert found["focusable"] == 0


def test_unknown_numbers_sort_last(undrawn, chromium, tmp_path):
    folder = fake_results(tmp_path / "r", models=("a", "b", "c"), layers=("l",), people=4)
    change(folder, "patterns", lambda t: t.assign(same=np.where(t["model"] == "b", np.nan, t["same"])))
    found = measured(
        chromium,
        write_report(folder),
        """
        const table = document.querySelector("#specific > .wide table"), head = table.tHead.rows[0].cells[2];
        const names = () => [...table.tBodies[0].rows].map((row) => row.cells[0].textContent);
        head.querySelector("button").click(); const down = names();
        head.querySelector("button").click(); return [down.at(-1), names().at(-1)];
        """,
    )
    assert found == ["b", "b"]


@pytest.mark.parametrize("width", [1200, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_the_window_and_follows_the_colour_scheme(chromium, hostile, width, scheme):
    _, page = hostile
    with opened(chromium, page, width=width, height=3000, scheme=scheme) as visit:
        wide, inner = visit.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
        pixels = visit.screenshot()
        assert visit.console == []
    assert wide <= inner  # nothing reaches over the edge, whatever the names
    assert pixels.shape[1] == width
    paper = np.median(pixels)
    assert (paper > 200) == (scheme == "light")
    rows = (np.abs(pixels - paper) > 60).any(axis=1)
    assert rows.mean() > 0.3  # text and drawings, all the way down
    assert rows[-1500:].any()
    assert (np.abs(pixels - paper) > 60).mean() < 0.4


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_issue(chromium, usual, scheme):
    folder, page = usual
    for path in [page, *sorted((folder / "people").glob("*.html"))[:1]]:
        with opened(chromium, path, scheme=scheme) as visit:
            assert axe(visit) == []
