"""A failed detector, missing weights or a missing package: the message ends with the exact command to run next."""

import ast
import re
import shlex
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from captum_leam import cli
from captum_leam._optional import EXTRAS, import_optional
from captum_leam._weights import FACEXLIB_WEIGHTS, find_weights
from captum_leam.errors import CaptumLeamError, FileError, MissingExtraError, MissingWeightsError, next_command
from captum_leam.faces import FaceAligner, read_face
from captum_leam.faces.formats import why_unreadable

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "captum_leam"


def command_of(error: BaseException | str) -> list[str]:
    """Return the words of the command at the end of a message."""
    return shlex.split(re.search(r"Run: (.+)$", str(error)).group(1))


@pytest.fixture
def with_facexlib(monkeypatch, tmp_path):
    monkeypatch.setattr("captum_leam._weights.find_spec", lambda name: SimpleNamespace(origin=f"{tmp_path}/a b/x.py"))
    monkeypatch.delenv("CAPTUM_LEAM_WEIGHTS", raising=False)


@pytest.mark.parametrize("given", [None, "new folder", "net.pth"])
@pytest.mark.parametrize("network", FACEXLIB_WEIGHTS)
def test_what_the_command_fetches_is_found_by_the_same_call(with_facexlib, tmp_path, network, given):
    weights = None if given is None else tmp_path / given
    with pytest.raises(MissingWeightsError) as error:
        find_weights(network, weights)
    curl, *_, option, place, url = command_of(error.value)
    assert (curl, option, url) == ("curl", "-o", FACEXLIB_WEIGHTS[network])
    Path(place).parent.mkdir(parents=True, exist_ok=True)
    Path(place).touch()
    assert find_weights(network, weights) == Path(place)


@pytest.mark.parametrize("make", ["FaceAligner", "FacexlibParser", "facexlib_arcface"])
def test_all_that_load_weights_offer_the_command(with_facexlib, make):
    from captum_leam.models import facexlib_arcface
    from captum_leam.regions import FacexlibParser

    makers = {"FaceAligner": FaceAligner, "FacexlibParser": FacexlibParser, "facexlib_arcface": facexlib_arcface}
    with pytest.raises(MissingWeightsError) as error:
        makers[make]()
    assert command_of(error.value)[0] == "curl"


USES = {
    "face": ("facexlib", lambda: import_optional("facexlib.detection")),
    "onnx": ("onnx", lambda: import_optional("onnx")),
    "study": ("yaml", lambda: __import__("captum_leam.study.config", fromlist="x").read_config(Path("study.yaml"))),
}


@pytest.mark.parametrize("extra", USES)
def test_a_missing_package_offers_its_extra(monkeypatch, tmp_path, extra):
    module, use = USES[extra]
    monkeypatch.chdir(tmp_path)
    Path("study.yaml").write_text("people: .\n")
    for name in [module, *(m for m in sys.modules if m.startswith(f"{module}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError) as error:
        use()
    assert command_of(error.value) == ["pip", "install", f"captum-leam[{extra}]"]


def test_every_extra_that_is_named_exists():
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert len(calls("MissingExtraError.of")) == 1  # with an extra of the table
    assert {name for extras in EXTRAS.values() for name in extras.split(",")} <= set(known)


def test_a_picture_that_cannot_be_decoded_offers_its_package(monkeypatch):
    monkeypatch.setattr("captum_leam.faces.formats.readable_formats", lambda: ["PNG"])
    assert command_of(why_unreadable(Path("a.heic"))) == ["pip", "install", "pillow-heif"]


def test_no_command_is_written_beside_the_one_helper():
    """A message that names an installation or a download is made by `next_command`."""
    texts = {path: path.read_text() for path in PACKAGE.rglob("*.py")}
    loose = [
        f"{path.name}: {line.strip()}"
        for path, text in texts.items()
        for line in text.splitlines()
        if re.search(r"pip install|\bcurl\b", line) and "next_command(" not in line and ">>>" not in line
    ]
    assert [line for line in loose if not line.startswith("errors.py: ")] == []
    assert not [path for path, text in texts.items() if 'f"Run: ' in text and path.name != "errors.py"]


def test_errors_of_missing_things_are_made_by_their_kinds():
    """No place raises them with a text of its own."""
    assert len(calls("MissingExtraError")) == 1  # gcsfs, which no extra installs
    assert all("_download_command(" in ast.unparse(call) for call in calls("MissingWeightsError"))
    errors = [call for call in calls("_photo_error") if call.lineno]
    assert len(errors) == 4  # each with options, see the cases below


def calls(name: str) -> list[ast.Call]:
    """Return the calls of a function or method in the package."""
    trees = [ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))]
    nodes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [node for node in nodes if ast.unparse(node.func) == name]


# -- a failed detector ---------------------------------------------------------------------------------


def face_at(x: float, side: float = 60.0, score: float = 0.99) -> np.ndarray:
    """A row of facexlib's detector: box, score, and the five points of an upright face."""
    points = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]]) * side + [x, 50]
    return np.array([x, 50, x + side, 50 + side, score, *points.ravel()])


class Detector:
    """Replace RetinaFace: return fixed detections for every picture."""

    def __init__(self, rows):
        self.rows = np.array(rows).reshape(-1, 15)

    def detect_faces(self, picture, conf_threshold):
        return self.rows


def aligner_that_finds(rows, **options) -> FaceAligner:
    aligner = FaceAligner.__new__(FaceAligner)
    aligner.template, aligner.size = __import__("captum_leam.faces.aligned", fromlist="x").resolve_template(
        "arcface112", None
    )
    aligner.device, aligner._network = torch.device("cpu"), Detector(rows)
    settings = {"min_score": 0.8, "min_face": 20, "max_faces": 2, "max_side": 1280, "antialias": True}
    for name, value in {**settings, **options}.items():
        setattr(aligner, name, value)
    return aligner


CASES = {
    "no face": ([], "largest", ("--pictures", "crops")),
    "no such face": ([face_at(10)], 7, ("--face", "0")),
    "too many faces": ([face_at(10), face_at(90), face_at(170)], "largest", ("--face", "0")),
}


@pytest.mark.parametrize("case", CASES)
def test_a_failed_detector_has_options_that_work_around_it(tmp_path, case):
    rows, which, options = CASES[case]
    Image.new("RGB", (400, 300), (90, 90, 90)).save(tmp_path / "a.png")
    with pytest.raises(FileError) as error:
        aligner_that_finds(rows)(tmp_path / "a.png", which)
    assert error.value.options == options
    with pytest.raises(CaptumLeamError) as error:
        aligner_that_finds(rows)(torch.rand(3, 300, 400), which)
    assert error.value.options == options
    with pytest.raises(FileError) as error:
        read_face(tmp_path / "a.png", aligner_that_finds(rows), which)
    assert error.value.options == options


def test_a_refused_face_offers_the_first_plausible_one(monkeypatch, tmp_path):
    from captum_leam.faces import aligner as module

    found = [SimpleNamespace(problem="too large"), SimpleNamespace(problem=None)]
    view = SimpleNamespace(detections=found, in_photo=lambda face: face, why_not_upright=lambda i: None)
    monkeypatch.setattr(module.FaceAligner, "_view", lambda self, photo: view)
    with pytest.raises(CaptumLeamError, match="cannot be aligned: too large") as error:
        aligner_that_finds([], max_faces=9)(torch.rand(3, 300, 400), "largest")
    assert error.value.options == ("--face", "1")


# -- on the command line -------------------------------------------------------------------------------


def printed(monkeypatch, capsys, error: Exception, *arguments: str) -> str:
    """Return what the command prints when it fails so."""

    def fail(*_, **__):
        raise error

    monkeypatch.setattr("captum_leam.reporting.files.explain_files", fail)
    monkeypatch.setattr(sys, "argv", ["captum-leam", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.count("\n") == 1
    return err.strip()


@pytest.mark.parametrize(
    ("options", "more", "expected"),
    [
        (("--pictures", "crops"), [], ["--pictures", "crops"]),
        (("--pictures", "crops"), ["--pictures", "photos"], ["--pictures", "crops"]),
        (("--face", "0"), ["--face", "7", "--preset", "fast"], ["--preset", "fast", "--face", "0"]),
        (("--face", "0"), ["--face=7"], ["--face", "0"]),
        (("--size", "112x112"), ["--size=10"], ["--size", "112x112"]),
    ],
)
def test_the_command_line_prints_the_same_command_with_the_options(
    monkeypatch, capsys, tmp_path, options, more, expected
):
    monkeypatch.chdir(tmp_path)
    error = FileError("a b.png", "no face was found.").with_options(*options)
    line = printed(monkeypatch, capsys, error, "explain", "a b.png", "--model", "m:n", *more)
    assert line.startswith("error: a b.png: no face was found. Run: captum-leam explain")
    assert command_of(line) == ["captum-leam", "explain", "a b.png", "--model", "m:n", *expected]


def test_an_error_without_options_has_no_command(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    line = printed(monkeypatch, capsys, FileError("a.png", "the file is empty."), "explain", "a.png", "--model", "m:n")
    assert line == "error: a.png: the file is empty."


def test_a_folder_that_holds_files_offers_force(monkeypatch, capsys, tmp_path):
    (tmp_path / "kept.txt").touch()
    arguments = ["explain", "a.png", "--model", "m:n", "--out", str(tmp_path)]
    line = printed(monkeypatch, capsys, FileError("never", "reached"), *arguments)
    assert command_of(line) == ["captum-leam", *arguments, "--force"]


def test_the_helper_writes_one_form():
    assert next_command("a b") == "Run: a b"
