"""Damaged files and hostile names: every call returns a value or raises one line; nothing runs, and nothing else is shown.

What once failed is kept in ``tests/robustness/corpus`` and read again with every run.
"""

import csv
import io
import json
import pickle
import random
import re
import shutil
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hypothesis import assume, example, given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from captum_leam._text import FORMULA, as_text, for_terminal, printable, safe_cell, safe_cells, safe_name
from captum_leam._weights import load_state
from captum_leam.errors import ConfigError
from captum_leam.faces import read_crop, read_photo
from captum_leam.models.onnx_file import read_onnx
from captum_leam.regions.label_files import read_labels
from captum_leam.reporting.findings import read_findings
from captum_leam.reporting.page import Column, Facts, Note, Page, Points, Section, as_csv, sheet
from captum_leam.reporting.person_page import page_name
from captum_leam.study.config import config_from, read_config
from captum_leam.study.listing import list_people
from tests.helpers.fake_study import fake_results
from tests.helpers.profiles import EXAMPLES

CORPUS = Path(__file__).with_name("corpus")


@st.composite
def damaged(draw: st.DrawFn, wholes: dict[str, bytes]) -> tuple[str, bytes]:
    """One of some whole files, with bytes changed, cut out, doubled or put in; its key."""
    key = draw(st.sampled_from(sorted(wholes)))
    content = bytearray(wholes[key])
    for _ in range(draw(st.integers(0, 6))):
        at, length = draw(st.integers(0, max(0, len(content) - 1))), draw(st.integers(1, 40))
        kind = draw(st.sampled_from(["change", "flip", "cut", "double", "put in", "end"]))
        if kind == "change":
            content[at : at + 4] = draw(st.binary(min_size=1, max_size=4))
        elif kind == "flip" and content:
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del content[at : at + length]
        elif kind == "double":
            content[at:at] = content[at : at + length]
        elif kind == "put in":
            content[at:at] = draw(
                st.sampled_from([b"\0" * 4, b"\xff" * 8, b"../", b"\x7f\xff\xff\xff", b"%PNG", b"\n"])
            )
        else:
            del content[at:]
    return key, bytes(content)


def one_line(error: Exception, path: Path) -> None:
    assert isinstance(error, ValueError)
    assert str(error).startswith(f"{path}")
    assert "\n" not in str(error)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("hostile")


# -- pictures and labels -------------------------------------------------------------------------------------


@cache
def pictures() -> dict[str, bytes]:
    """Small pictures of every kind that is read."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 4), np.uint8)
    kinds = {
        "png": ["RGB", "L", "P", "RGBA", "LA", "1", "I;16"], "jpg": ["RGB", "L", "CMYK"], "bmp": ["RGB", "P"], "gif": ["P"],
        "tif": ["RGB", "F", "I;16"], "webp": ["RGB", "RGBA"], "ppm": ["RGB", "L"],
    }  # fmt: skip
    found = {}
    for suffix, modes in kinds.items():
        for mode in modes:
            if mode in ("I;16", "F"):
                deep = pixels[..., 0].astype(np.uint16 if mode == "I;16" else np.float32)
                picture = Image.fromarray(deep)
            else:
                picture = (
                    Image.fromarray(pixels).convert("RGB").convert(mode) if mode != "RGBA" else Image.fromarray(pixels)
                )
            out = io.BytesIO()
            picture.save(out, {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper()))
            found[f"{mode.replace(';', '')}.{suffix}"] = out.getvalue()
    return found


def looked_at(path: Path) -> None:
    for read in (read_photo, read_crop):
        try:
            picture = read(path)
        except ValueError as error:
            one_line(error, path)
            continue
        assert picture.ndim == 3
        assert picture.shape[0] == 3
        assert picture.dtype == torch.float32
        assert bool(((picture >= 0) & (picture <= 1)).all())


@EXAMPLES
@given(damaged(pictures()))
def test_damaged_pictures_are_read_or_named(place, picture):
    path = place / picture[0]
    path.write_bytes(picture[1])
    looked_at(path)


@cache
def labels() -> dict[str, bytes]:
    found = {}
    for dtype in (np.uint8, np.int64, bool, np.float32):
        out = io.BytesIO()
        np.save(out, np.arange(12).reshape(3, 4).astype(dtype))
        found[f"{np.dtype(dtype).name}.npy"] = out.getvalue()
    objects, archive = io.BytesIO(), io.BytesIO()
    np.save(objects, np.array([{}], dtype=object), allow_pickle=True)
    np.savez(archive, x=np.zeros((2, 2), np.int64))
    return {**found, "object.npy": objects.getvalue(), "archive.npy": archive.getvalue(), "L.png": pictures()["L.png"]}


def labels_looked_at(path: Path) -> None:
    try:
        found = read_labels(path)
    except ValueError as error:
        assert str(error).startswith(f"{path}: ")  # noqa: PT017
        return
    assert found.ndim == 2
    assert found.dtype == torch.int64


@EXAMPLES
@given(damaged(labels()))
def test_damaged_labels_are_read_or_named(place, file):
    path = place / file[0]
    path.write_bytes(file[1])
    labels_looked_at(path)


# -- weights ---------------------------------------------------------------------------------------------------


@cache
def checkpoints() -> dict[str, bytes]:
    state = nn.Sequential(nn.Conv2d(1, 2, 2), nn.BatchNorm2d(2)).state_dict()
    found = {}
    for name, new in (("zipped.pth", True), ("old.pth", False)):
        out = io.BytesIO()
        torch.save(state, out, _use_new_zipfile_serialization=new)
        found[name] = out.getvalue()
    return found


def weights_looked_at(path: Path) -> None:
    try:
        state, digest = load_state(path)
    except ValueError as error:
        one_line(error, path)
        return
    assert len(digest) == 64
    for value in state.values():
        assert isinstance(value, Tensor)
        assert value.numel() * value.element_size() <= path.stat().st_size


@EXAMPLES
@given(damaged(checkpoints()))
def test_damaged_checkpoints_are_read_or_named(place, file):
    path = place / file[0]
    path.write_bytes(file[1])
    weights_looked_at(path)


class Call:
    """Unpickled, it calls."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.called = function, arguments

    def __reduce__(self):
        return self.called


FUNCTIONS = {
    "open": open,
    "eval": eval,
    "exec": exec,
    "getattr": getattr,
    "remove": shutil.rmtree,
    "import": __import__,
}


@EXAMPLES
@given(st.sampled_from(sorted(FUNCTIONS)), st.integers(0, 5), st.recursive(st.none(), lambda inner: st.one_of(
    st.lists(inner, min_size=1, max_size=3), st.dictionaries(st.text(max_size=3), inner, min_size=1, max_size=3)
), max_leaves=6), st.booleans())  # fmt: skip
def test_calls_hidden_in_checkpoints_never_run(place, name, protocol, around, saved):
    """Wherever it stands in whatever structure, no function is called; the file is refused."""
    trap = place / "trap"
    trap.mkdir(exist_ok=True)
    arguments = {
        "open": (str(place / "ran"), "w"),
        "eval": (f"open({str(place / 'ran')!r}, 'w')",),
        "exec": (f"open({str(place / 'ran')!r}, 'w')",),
        "getattr": ("a", "upper"),
        "remove": (str(trap),),
        "import": ("this",),
    }[name]

    def hidden(value: object) -> object:
        if isinstance(value, list):
            return [hidden(inner) for inner in value]
        if isinstance(value, dict):
            return {key: hidden(inner) for key, inner in value.items()}
        return Call(FUNCTIONS[name], *arguments)

    path = place / "calls.pth"
    content = {"weight": torch.ones(1), "more": hidden(around)}
    if saved:
        torch.save(content, path, pickle_protocol=max(protocol, 2))
    else:
        path.write_bytes(pickle.dumps(content, protocol))
    with pytest.raises(
        ValueError, match="expected a checkpoint|expected weights|expected dense|expected a dictionary|cannot be read"
    ):
        load_state(path)
    assert trap.is_dir()
    assert not (place / "ran").exists()


@cache
def networks() -> dict[str, bytes]:
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    weight = numpy_helper.from_array(np.ones((2, 3, 3, 3), np.float32), "w")
    nodes = [helper.make_node("Conv", ["x", "w"], ["a"]), helper.make_node("Flatten", ["a"], ["y"])]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", ["n", 3, 9, 9]), ("y", ["n", "d"]))
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight]), opset_imports=[helper.make_opsetid("", 17)]
    )
    onnx.checker.check_model(model)
    return {"net.onnx": model.SerializeToString()}


@EXAMPLES
@given(st.data())
def test_damaged_onnx_files_are_read_or_named(place, data):
    """Read and checked; what then runs on it is compared with ONNX Runtime (``tests/models/test_onnx.py`` damages whole networks)."""
    name, content = data.draw(damaged(networks()))
    (place / name).write_bytes(content)
    try:
        model = read_onnx(place / name)
    except ValueError as error:
        one_line(error, place / name)
        return
    assert len(model.graph.node) > 0


# -- configurations and tables ---------------------------------------------------------------------------------

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12), st.dates(), st.datetimes(), st.binary(max_size=5),
    st.sampled_from(["auto", "blur", "~", "1e-3", "0x1F", "1:59:59", "!!python/name:os.system", "&a", "*a", "<<", "2001-02-30", "a:b"]),
)  # fmt: skip
KEYS = st.one_of(
    st.text(max_size=6),
    st.sampled_from(["people", "models", "groups", "layers", "leam", "parser", "fractions", "patterns", "pictures", "seed", "out", "fills",
                     "n_steps", "path", "file", "columns", "how", "size", "grid", "controls", "model", "batch_size", "title", "device"]),
)  # fmt: skip
SETTINGS = st.dictionaries(
    KEYS,
    st.recursive(
        SCALARS, lambda v: st.one_of(st.lists(v, max_size=3), st.dictionaries(KEYS, v, max_size=3)), max_leaves=8
    ),
    max_size=5,
)


@EXAMPLES
@given(SETTINGS, st.booleans(), st.booleans())
def test_any_settings_are_read_or_the_wrong_key_is_named(place, settings, needed, as_keywords):
    """Settings, or a mistake with its key; from keywords, too."""
    if needed:
        settings = {"people": ".", "models": {"a": "torch.nn:Identity"}, **settings}
    try:
        if as_keywords:
            config_from(settings, place)
        else:
            path = place / "any.yaml"
            path.write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8")
            read_config(path)
    except ConfigError as error:
        assert "Expected" in str(error) or "any.yaml" in str(error) or "is not a setting" in str(error)  # noqa: PT017


WHOLE = b"""# a study
people: .
models: {a: torch.nn:Identity, b: {model: torch.nn:Identity, preprocessing: unit}}
fractions: [0.01, 5e-2]
leam: {n_steps: 2, path: conductance}
title: "one \\u00e9"
when: 2001-02-28
seed: 0x1F
"""


@EXAMPLES
@given(damaged({"whole": WHOLE}))
@example(("whole", b"people: .\nseed: 2001-02-30\n"))
@example(("whole", b"people: !!bool perhaps\n"))
@example(("whole", b"people: .\n\0"))
def test_damaged_configurations_are_read_or_named(place, text):
    path = place / "damaged.yaml"
    path.write_bytes(text[1])
    try:
        read_config(path)
    except ConfigError as error:
        assert str(error).startswith(str(path))  # noqa: PT017


CELL = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["../../x", "/etc/passwd", "a\0b", "=1+1", "a\nb", '"', ",", "", " ", "\ufeff"]),
)


@EXAMPLES
@given(
    st.lists(st.lists(CELL, min_size=1, max_size=4), max_size=5),
    st.booleans(),
    damaged({"t": b'path,person\n"a.png",ann\nb.png,"b,ob"\n'}),
)
def test_any_table_of_people_is_read_or_named(place, rows, written, damage):
    path = place / "people.csv"
    if written:
        out = io.StringIO(newline="")
        csv.writer(out).writerows([["path", "person", "kind"][: random.Random(len(rows)).randint(2, 3)], *rows])  # noqa: S311
        path.write_bytes(out.getvalue().encode("utf-8", "replace"))
    else:
        path.write_bytes(damage[1])
    config = config_from({"people": str(path), "models": {"a": "torch.nn:Identity"}})
    try:
        found = list_people(config)
    except ConfigError:
        return
    assert [picture.number for picture in found.pictures] == list(range(len(found.pictures)))
    assert all(picture.person.strip() and "\0" not in picture.where for picture in found.pictures)


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    small = {"models": ("a", "b"), "layers": ("l", "m"), "people": 4, "images": 3}
    return fake_results(tmp_path_factory.mktemp("results") / "results", **small)


@EXAMPLES
@given(st.data())
def test_damaged_results_are_read_or_named(results, data):
    """A folder of results from elsewhere is read, or one line names the file."""
    files = {path.relative_to(results).as_posix(): path.read_bytes() for path in (results / "tables").glob("*.parquet")}
    files["manifest.json"] = (results / "manifest.json").read_bytes()
    name, content = data.draw(damaged(files))
    (results / name).write_bytes(content)
    try:
        read_findings(results)
    except ValueError as error:
        assert str(error).startswith(str(results))  # noqa: PT017
    finally:
        (results / name).write_bytes(files[name])


# -- names -------------------------------------------------------------------------------------------------------

NAMES = st.one_of(
    st.text(max_size=20),
    st.text(st.characters(categories=["Cc", "Cf", "Cs", "Zl", "Zp", "Lu"]), max_size=10),
    st.sampled_from(
        [
            "<script>x</script>",
            '"><img src=x onerror=y>',
            "{{ 7*7 }}",
            "{% raw %}",
            "../..",
            "$\\frac$",
            "&amp;",
            "=1+1",
            "\x1b[2J",
        ]
    ),
)


@EXAMPLES
@given(NAMES)
def test_names_as_text_hold_no_control_characters(name):
    seen = printable(name)
    assert printable(seen) == seen
    assert not re.search(
        r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]",
        seen.replace("\u2028", "").replace("\u2029", ""),
    )
    assert re.fullmatch(r"[A-Za-z0-9._-]{0,80}", safe_name(name))
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", for_terminal(name))
    as_text(name if all(not "\ud800" <= c <= "\udfff" or "\udc80" <= c <= "\udcff" for c in name) else "a").encode()


@EXAMPLES
@given(st.lists(NAMES, min_size=1, max_size=6, unique=True))
def test_pages_of_people_are_files_of_one_folder(names):
    pages = [page_name(name) for name in names]
    assert len(set(pages)) == len(pages)
    assert all(re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*\.html", page) for page in pages)


@EXAMPLES
@given(st.lists(NAMES, min_size=1, max_size=5))
@example(["\r"])
@example(["a\r=1+1"])
def test_tables_hold_no_formula(names):
    """What a reader of CSV finds again is the name, or the name behind an apostrophe."""
    names = [as_text(name.encode("utf-8", "replace").decode()) for name in names]
    table = pd.DataFrame({"name": names, "drop": [-0.5] * len(names)})
    for text in (as_csv(table), safe_cells(table).to_csv(index=False)):
        rows = list(csv.reader(io.StringIO(text, newline="")))[1:]
        for (cell, drop), name in zip(rows, names, strict=True):
            assert not cell.startswith(FORMULA)
            assert cell == safe_cell(name)
            assert cell.removeprefix("'") == name.removeprefix("'").replace("\r", "\\u000d")
            assert float(drop) == -0.5


class Read(HTMLParser):
    """Tags, and the text of the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        assert not [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data):
        self.text.append(data)


def page_of(name: str) -> str:
    table = pd.DataFrame({"a": [printable(name)], "b": [0.5]})
    blocks = [
        Note(name),
        Points([name]),
        Facts(name, [(name, name)], closed=True),
        sheet(name, table, [Column("a", name), Column("b", name, str)]),
    ]
    sections, links = [Section("k", name, name, blocks)], [(name, "people/a.html")]
    return Page(name, name, sections, warnings=[name], links=links).render()


@cache
def plain_tags() -> list[str]:
    return Read(page_of("plain")).tags


@EXAMPLES
@given(NAMES)
def test_names_make_no_elements(name):
    assume(name.strip())
    page = Read(page_of(name))
    assert page.tags == plain_tags()
    assert sum(printable(name).strip() in text for text in page.text) >= 8


# -- what once failed ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*/*")), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_files_of_the_corpus_are_read_or_named(path, tmp_path):
    {"pictures": looked_at, "labels": labels_looked_at, "weights": weights_looked_at}[path.parent.name](
        Path(shutil.copy(path, tmp_path / path.name))
    )


def test_a_deeply_nested_manifest_raises(results):
    path, before = results / "manifest.json", (results / "manifest.json").read_bytes()
    for content in (b"[" * 100_000, b"[]", b"{", json.dumps(3).encode()):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"manifest\.json: Expected the manifest of a study"):
            read_findings(results)
    path.write_bytes(before)
