"""What the pages say is so: code on them runs, headings are messages, every public name has an executed example."""

import ast
import inspect
import re
import sys
import warnings
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import torch

import captum_leam
from captum_leam.synthetic import SyntheticPopulation
from tools.page_outputs import run_blocks

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PACKAGE = ROOT / "captum_leam"

sys.path.insert(0, str(DOCS / "_ext"))
from measured import cells, ordered, picture  # noqa: E402
from public_names import doc_of, names_to_know, public_modules, public_names  # noqa: E402

sys.path.pop(0)

CODE = re.compile(r"^```python\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
PAGES = sorted(
    page.relative_to(DOCS)
    for page in DOCS.rglob("*.md")
    if CODE.search(page.read_text())
    and not {"_build", "gallery", "upstream.md", "faces_and_models.md"} & set(page.parts)
)


NAMES = public_names()

# -- the reference ---------------------------------------------------------------------------------------


def test_the_reference_documents_every_module_that_exports_names():
    exporting = {
        ".".join(("captum_leam", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        for path in PACKAGE.rglob("*.py")
        if re.search(r"^__all__", path.read_text(), flags=re.MULTILINE)
        and not path.match("*/_engine/*")
        and path.name != "_optional.py"
    }
    documented = public_modules()
    assert len(documented) == len(set(documented))
    assert set(documented) - {"captum_leam.reporting.schema"} == exporting


def test_the_names_to_know_are_public_and_at_most_sixty():
    known = names_to_know()
    assert 40 <= len(known) <= 60
    assert len(known) == len(set(known))
    assert not set(known) - set(NAMES)


def test_every_exception_and_warning_is_public():
    classes = [name for path in (PACKAGE / "errors.py", PACKAGE / "_engine" / "memory.py") for name in raised(path)]
    assert {name.rpartition(".")[2] for name in NAMES} >= set(classes)


def raised(path: Path) -> list[str]:
    """The exceptions and warnings that a module defines."""
    found = (node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef))
    return [node.name for node in found if node.name.endswith(("Error", "Warning"))]


@pytest.mark.parametrize(("name", "value"), NAMES.items(), ids=NAMES)
def test_every_public_name_is_explained_with_an_executed_example(name, value):
    assert not missing(name, value)


def missing(name: str, value: object) -> str:
    """Return what the description of a public name lacks; nothing if it is complete."""
    doc, short = doc_of(name, value), name.rpartition(".")[2]
    if not doc:
        return f"{name} has no docstring (or no string below it)"
    examples = [line for line in doc.splitlines() if line.strip().startswith(">>> ")]
    executed = [line for line in examples if "doctest: +SKIP" not in line]
    if executed or short in RETURNED or used_in_examples(short):
        return ""
    return f"{name} has no executed example"


def returned() -> set[str]:
    """Return the names of classes that public functions return: they are shown where they are returned."""
    functions = [value for value in NAMES.values() if inspect.isfunction(value)]
    results = [f.__annotations__.get("return", "") for f in functions]  # a text where annotations are not evaluated
    return {str(getattr(result, "__name__", result)) for result in results}


RETURNED = returned()


def test_a_name_without_an_example_is_noticed():
    def described():
        """Says what it does, and shows nothing."""

    def skipped():
        """Shows what is not run.

        >>> skipped()  # doctest: +SKIP
        """

    def bare():
        pass

    assert missing("described", described) == "described has no executed example"
    assert missing("skipped", skipped) == "skipped has no executed example"
    assert missing("bare", bare).startswith("bare has no docstring")


def used_in_examples(name: str) -> bool:
    """Whether a constant, or an import of a name, stands in a doctest, an executed page or an example."""
    doctests = (line for path in PACKAGE.rglob("*.py") for line in path.read_text().splitlines() if ">>> " in line)
    pages = (block for page in PAGES for block in CODE.findall((DOCS / page).read_text()))
    scripts = (path.read_text() for path in (ROOT / "examples").glob("*.py"))
    pattern = rf"\b{name}\b" if name.isupper() or "_" in name else rf"import .*\b{name}\b"
    return any(re.search(pattern, text) for text in (*doctests, *pages, *scripts))


def test_doctests_are_collected():
    """The examples are executed, since pytest collects them from the package."""
    settings = (ROOT / "pyproject.toml").read_text()
    assert "--doctest-modules" in settings
    assert 'testpaths = ["tests", "captum_leam"]' in settings


def test_constants_are_described_by_the_string_below_them():
    assert doc_of("captum_leam.synthetic.PARTS", NAMES["captum_leam.synthetic.PARTS"]).startswith("Parts of a face")
    assert doc_of("captum_leam.synthetic.NOTHING", ()) == ""


# -- code on pages ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.parametrize("page", PAGES, ids=str)
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    """From top to bottom, as pasted, and prints what the page shows; figures are named ``figure`` and exist."""
    if page.stem == "onnx":
        pytest.importorskip("onnx2torch")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names = {"__name__": "page"}
    for block, printed in run_blocks((DOCS / page).read_text(), names):
        if block["printed"] is not None:
            assert close(printed, block["printed"]), f"run: python tools/page_outputs.py docs/{page}"
        if block["image"] is not None:
            assert names["figure"].axes
            assert (DOCS / page.parent / block["image"]).exists()
    assert not list(tmp_path.iterdir())


def close(printed: str, shown: str) -> bool:
    """Whether two texts have the same words, and numbers that differ by .02 at most."""
    numbers = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")
    pairs = zip(map(float, numbers.findall(printed)), map(float, numbers.findall(shown)), strict=False)
    rest = [numbers.sub("#", text).split() for text in (printed, shown)]
    return rest[0] == rest[1] and all(abs(a - b) <= 0.021 for a, b in pairs)


def test_the_readme_runs_as_pasted(tmp_path, monkeypatch):
    """The first code that anyone sees, in an empty folder; the figures below it are those that it prints."""
    monkeypatch.chdir(tmp_path)
    readme = (ROOT / "README.md").read_text()
    code, *_ = CODE.findall(readme)
    assert len([line for line in code.splitlines() if line and "import" not in line]) == 8
    given = {"__name__": "page"}
    exec(compile(code, "README.md", "exec"), given)  # noqa: S102 - our own page
    assert Path("maps.png").stat().st_size > 10_000
    from captum_leam.faithfulness import OcclusionEvaluator
    from captum_leam.regions import region_report

    regions = given["regions"]
    rows = region_report(given["maps"], regions(given["faces"]), regions.scheme).groupby("region")
    nose = rows[["share", "area", "lift"]].mean().loc["nose"]
    check = OcclusionEvaluator(given["model"], fractions=(0.05,), controls=("random pixels",))
    drops = check.evaluate(given["faces"], given["maps"], labels=given["people"]).summary()["drop"]
    said = re.search(
        r"holds (\d+) % .* on (\d+) % of the area \(lift (\d+)\).* by ([\d.]+), as many\s+random pixels by ([\d.]+)\.",
        readme,
        re.S,
    )
    measured = (100 * nose["share"], 100 * nose["area"], nose["lift"], *drops)
    assert [float(number) for number in said.groups()] == pytest.approx(measured, abs=0.51)
    assert [float(number) for number in said.groups()[3:]] == pytest.approx(measured[3:], abs=0.0051)


def test_the_readme_runs_with_a_model_and_pictures_of_ones_own(tmp_path, monkeypatch):
    """The second block in place of the lines that it names."""
    from torchvision.models import resnet18
    from torchvision.utils import save_image

    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    sample = SyntheticPopulation(2, evidence="eyes").sample(2, seed=1)
    for name, image in zip(("ann/1", "ann/2", "bob/1", "bob/2"), sample.images, strict=True):
        Path(name).parent.mkdir(exist_ok=True)
        save_image(image, f"{name}.png")
    first, own, one_layer = CODE.findall((ROOT / "README.md").read_text())
    replaced = re.search(r"^population = .*?^faces, people = .*?$", first, re.MULTILINE | re.DOTALL)[0]
    assert len(replaced.splitlines()) == 3
    given = {"__name__": "page", "my_network": lambda: resnet18(num_classes=16)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an untrained network tells nobody apart
        exec(compile(first.replace(replaced, own), "README.md", "exec"), given)  # noqa: S102 - our own page
        assert given["maps"].shape == (4, 112, 112)
        exec(compile(one_layer, "README.md", "exec"), given)  # noqa: S102 - our own page
    assert (given["maps"].shape, given["raw"].shape[:2]) == ((4, 112, 112), (4, 1))
    assert Path("maps.png").stat().st_size > 10_000


# -- how pages begin and what words mean -----------------------------------------------------------------


WRITTEN = [page for page in sorted(DOCS.rglob("*.md")) if not {"_build", "gallery"} & set(page.parts)]


@pytest.mark.parametrize("page", [p for p in WRITTEN if p.stem not in ("index", "changelog")], ids=lambda p: p.stem)
def test_every_page_begins_with_what_its_reader_can_do(page):
    text = re.sub(r"<!--.*?-->\s*", "", page.read_text(), flags=re.DOTALL)
    first = re.match(r"# [^\n]+\n+([^\n]+)", text)[1]
    assert first.startswith(("After this page you ", "With these names you can "))


def test_every_example_begins_with_what_its_reader_can_do():
    for script in (ROOT / "examples").glob("*.py"):
        _, _, text = ast.get_docstring(ast.parse(script.read_text())).partition("=\n\n")
        assert text.startswith("After this tutorial you can "), script.name


def test_the_glossary_defines_the_words_of_the_field():
    terms = re.findall(r"^(\w[^\n]*)\n  ", (DOCS / "reference" / "glossary.md").read_text(), flags=re.MULTILINE)
    assert terms == sorted(terms, key=str.casefold)
    assert set(terms) >= {
        *(
            "attribution map",
            "layer",
            "embedding",
            "reference",
            "probe",
            "gallery",
            "pair",
            "genuine",
            "impostor",
            "threshold",
        ),
        *(
            "FMR",
            "FNMR",
            "critical pixels",
            "region",
            "share",
            "lift",
            "fill",
            "control",
            "drop",
            "transfer",
            "fragment",
        ),
    }


# -- messages --------------------------------------------------------------------------------------------


def literals() -> str:
    """All text that is not a docstring; what is filled in becomes an ellipsis."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        for node in nodes:
            if id(node) in docstrings:
                continue
            if isinstance(node, ast.JoinedStr):
                found.append("".join(str(v.value) if isinstance(v, ast.Constant) else "…" for v in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


def test_headings_of_troubleshooting_are_literal_messages():
    page = (DOCS / "troubleshooting.md").read_text()
    headings = re.findall(r"^### (.*)$", page, flags=re.MULTILINE)
    said = literals().replace("`", "")
    assert len(headings) > 30
    assert len(set(headings)) == len(headings)
    for heading in headings:
        for piece in filter(None, (part.strip() for part in re.split("…| / ", heading.replace("`", "")))):
            assert piece in said, f"no message says {piece!r}"


def test_pages_name_files_that_exist():
    """`benchmarks/x.py`, `examples/x.py`, `docs/x.md`, `tests/x.py`, `tools/x.py` in pages and in the files at the top."""
    pages = [*DOCS.glob("*.md"), *DOCS.glob("[a-z]*/*.md"), *ROOT.glob("*.md")]
    for page in (p for p in pages if p.name != "CHANGELOG.md"):  # which also names what is gone
        for path in re.findall(
            r"\b(?:benchmarks|examples|docs|tests|tools)/[\w/.]+\.(?:py|md\.j2|md|csv|png)\b", page.read_text()
        ):
            assert (ROOT / path).exists(), f"{page.relative_to(ROOT)} names {path}"


def test_links_of_the_files_at_the_top_lead_somewhere():
    for page in ROOT.glob("*.md"):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (ROOT / target).exists(), f"{page.name} links to {target}"


def test_no_page_fetches_anything():
    """Styles and extensions name no other host; pages must work offline."""
    for path in [*(DOCS / "_static").glob("*.css"), *(DOCS / "_ext").glob("*.py")]:
        assert "http" not in path.read_text(), path


def test_version_is_said_once():
    assert re.search(r'^version: "?([^"\n]+)', (ROOT / "CITATION.cff").read_text(), re.M)[1] == captum_leam.__version__
    released = re.findall(r"^## (\d+\.\d+\.\d+) \((\d{4}-\d\d-\d\d)\)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    cited = re.search(r"^date-released: (.*)$", (ROOT / "CITATION.cff").read_text(), re.M)[1]
    assert released[0] == (captum_leam.__version__, cited)
    others = [p for p in PACKAGE.rglob("*.py") if f'"{captum_leam.__version__}"' in p.read_text()]
    assert [p.name for p in others] == ["_version.py"]
    assert 'dynamic = ["version"]' in (ROOT / "pyproject.toml").read_text()


# -- numbers ---------------------------------------------------------------------------------------------


def test_every_measured_table_is_written_by_a_benchmark_and_shown():
    benchmarks = "\n".join(
        path.read_text() for path in (ROOT / "benchmarks").iterdir() if path.suffix in (".py", ".yaml")
    )
    pages = "\n".join(page.read_text() for page in DOCS.rglob("*.md") if "_build" not in page.parts)
    there = sorted(path.name for path in (DOCS / "_data").glob("*.csv"))
    assert there
    for name in there:
        assert f"docs/_data/{name}" in benchmarks, f"no benchmark says that it writes {name}"
        assert f"{{measured}} {name}" in pages, f"no page shows {name}"


def test_the_sentences_about_real_faces_fit_the_numbers():
    """docs/results.md, "Is the explanation true?": if this fails after a new run, the sentences there must be written anew."""
    table = pd.read_csv(DOCS / "_data" / "faithfulness.csv")
    every = table.pivot_table(index=["explained", "measured", "occluded"], columns="map", values="drop")
    black = every.index.get_level_values("occluded").str.startswith("zero")
    wide, controls = every[~black], [name for name in every if name.startswith("control")]
    assert len(wide) == 40
    ahead = wide["LEAM, fast"] > wide[controls].max(axis=1)
    assert Counter(wide.index[~ahead].get_level_values("explained"))["dlib"] == 6
    assert (~ahead).sum() == 10
    assert (wide["LEAM, best"] > wide["LEAM, default"]).sum() == 35
    gained = (wide["LEAM, default"] - wide["LEAM, fast"]).rename("gain").reset_index()
    gained = gained.groupby(["occluded", "measured"])["gain"].agg(["min", "max"])
    spans = {"blur 5 %": [(0.28, 0.37), (0.12, 0.19)], "noisy linear 5 %": [(0.12, 0.17), (0.08, 0.10)]}
    for occluded, (own, transfer) in spans.items():
        assert tuple(gained.loc[occluded, "own"]) == pytest.approx(own, abs=0.0051)
        assert tuple(gained.loc[occluded, "transfer"]) == pytest.approx(transfer, abs=0.0051)
    black_5 = every[every.index.get_level_values("occluded") == "zero 5 %"]
    assert (black_5["control: random face pixels"] > black_5["LEAM, default"]).sum() == 9
    counted = pd.read_csv(DOCS / "_data" / "faithfulness_cells.csv").set_index("fill")
    assert counted["map ahead"][["blur", "noisy linear"]].sum() == 274
    assert counted["control ahead"].to_dict() == {"blur": 0, "noisy linear": 2, "zero": 23}
    masks = pd.read_csv(DOCS / "_data" / "person_masks.csv").query("fraction in [0.05, 0.2]")
    assert (masks.loc[masks["control"] == "another person's mask", "low"] > 0).all()
    mean = masks[masks["control"] == "population mean"]
    ties = mean[mean["low"] <= 0]
    assert set(zip(ties["explained"], ties["measured"], ties["occluded"], strict=True)) == {
        ("dlib", "own", "blur 20 %"),
        ("dlib", "transfer", "blur 20 %"),
    }


def test_the_numbers_of_the_readme_are_those_of_the_table():
    table = pd.read_csv(DOCS / "_data" / "main_job.csv").set_index(["map", "faces", "explained", "quantity"])["value"]
    names = {
        "Captum `LayerGradCam`": "Captum LayerGradCam, best of its layers and norms",
        "Captum `IntegratedGradients`": "Captum IntegratedGradients, 20 steps, positive, σ 2 px",
        "LEAM, middle layer": "LEAM, middle layer, one pass",
        '`explain_faces`, `"fast"`': "LEAM, fast",
        "`explain_faces`, the default": "LEAM, default",
        '`explain_faces`, `"best"`': "LEAM, best",
        "random pixels": "random pixels",
    }
    readme = (ROOT / "README.md").read_text()
    for start, name in names.items():
        (row,) = re.findall(rf"^\| {re.escape(start)}[^|]*\|[^|]*\|(.*)\|$", readme, flags=re.MULTILINE)
        written = [float(number) for number in re.findall(r"\d*\.\d+", row)]
        cells = [(name, f, "mean of the networks", w) for f in ("faces", "faces_colour") for w in ("own", "transfer")]
        assert written == pytest.approx([table[cell] for cell in cells], abs=0.0051), name
    plain, held = ("LEAM, middle layer, one pass, plain cosine", "LEAM, middle layer, one pass")
    found = [
        table[m, "faces", "ms1m", f"BC {who}"] for m in (plain, held) for who in ("same person", "different people")
    ]
    page = (DOCS / "with_captum.md").read_text()
    numbers = re.search(
        r"overlap of (\.\d+), and those of different people (\.\d+);.* overlaps were (\.\d+) and (\.\d+)",
        page,
        re.DOTALL,
    )
    assert found == pytest.approx([float(n) for n in numbers.groups()], abs=0.0051)


def test_cells_of_measured_tables():
    table = pd.DataFrame(
        {
            "network": ["A", "A", "B"],
            "region": ["nose", "skin", "nose"],
            "mean": [11.16, 0.5, float("nan")],
            "low": [9.0, -0.25, 1.0],
            "high": [13.3, 0.75, 2.0],
        }
    )
    head, body = cells(table, {"rows": "network", "columns": "region", "value": "mean", "interval": "low high"})
    assert head == ["network", "nose", "skin"]
    assert body == [["A", "11.16 [9.00,\xa013.30]", ".50 [-.25,\xa0.75]"], ["B", " [1.00,\xa02.00]", ""]]
    twice = pd.concat([table, table.assign(mean=table["mean"] + 1)])
    _, body = cells(twice, {"rows": "network", "columns": "region", "value": "mean", "digits": 1})
    assert body[0] == ["A", "11.2\xa0/\xa012.2", ".5\xa0/\xa01.5"]
    head, body = cells(table, {"show": "region, mean"})
    assert (head, body[0]) == (["region", "mean"], ["nose", "11.16"])
    head, body = cells(table[["network", "mean"]], {"rows": "network", "digits": 0})
    assert (head, body[0]) == (["network", "mean"], ["A", "11"])


def test_pictures_of_measured_tables_show_the_numbers():
    table = pd.read_csv(DOCS / "_data" / "region_lift.csv").query('quantity == "lift"')
    options = {"rows": "network layer", "columns": "region", "order": "nose, skin", "interval": "low high"}
    nose, skin = picture(ordered(table, options), {**options, "value": "mean", "plot": "lift"}).axes
    assert (nose.get_title(), skin.get_title()) == ("nose", "skin")
    shown = sorted(x for line in nose.get_lines() if line.get_marker() in "os^Dv" for x in line.get_xdata())
    assert shown == sorted(table.loc[table["region"] == "nose", "mean"])
