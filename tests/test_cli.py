"""The command line, as a user types it."""

import hashlib
import json
import os
import re
import subprocess
import sys
from contextlib import nullcontext
from html import unescape
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from captum_leam import cli
from captum_leam.errors import CaptumLeamError, FileError, InputTypeError
from captum_leam.reporting.files import _distinct
from captum_leam.synthetic import SyntheticPopulation

MODEL = """
import torch
from torch import nn
from captum_leam.synthetic import EmbeddingNet

def small():
    torch.manual_seed(0)
    return EmbeddingNet()

def broken():
    raise RuntimeError("no weights here")

def picky():
    return nn.Sequential(nn.Flatten(), nn.Linear(7, 4))

number = 3
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three crops of one person, one of them with a hostile name, and a model file."""
    faces = SyntheticPopulation(2, seed=1).sample([0, 0, 0], seed=3)
    for name, image in zip(["a.png", "b.png", "<script>alert(1)<_script>.png"], faces.images, strict=True):
        pixels = (image.movedim(0, -1) * 255).round().to(torch.uint8).numpy()
        Image.fromarray(pixels).save(tmp_path / name)
    (tmp_path / "same.png").write_bytes((tmp_path / "a.png").read_bytes())
    (tmp_path / "my_models.py").write_text(MODEL)
    return tmp_path


def run(*arguments: object) -> tuple[int, str]:
    """Exit code and everything printed, as the installed command gives them."""
    code = "import sys; from captum_leam.cli import main; main()"
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def main(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """The same without a process of its own, which would import everything anew."""
    monkeypatch.setattr(sys, "argv", ["captum-leam", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    printed = capsys.readouterr()
    return stopped.value.code, printed.out + printed.err


def invoke(*arguments: object, drawn: bool = False) -> None:
    """The command in this process: fast, and exceptions come through. Figures are built, and drawn only if asked."""
    drawing = nullcontext() if drawn else patch("matplotlib.figure.Figure.savefig")
    if arguments[0] == "explain" and not {"--certainty", "--no-certainty"} & set(arguments):
        arguments = (*arguments, "--no-certainty")  # two hundred passes a face, which few tests are about
    with drawing:
        result = CliRunner().invoke(cli.app, [*map(str, arguments), "--no-progress"])
    if result.exception is not None:
        raise result.exception


def test_help_does_not_import_torch():
    code = (
        "import sys\nfrom captum_leam.cli import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "heavy = {'torch', 'captum', 'torchvision', 'numpy', 'matplotlib', 'pandas'} & set(sys.modules)\nassert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
    assert "explain" in done.stdout
    assert "demo" in done.stdout


@pytest.mark.parametrize("module", ["captum_leam", "captum_leam.cli"])
def test_python_m_runs_the_command_and_its_module(module):
    """Not silent success: both are typed by people without the entry point on their path."""
    done = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout.startswith("captum-leam ")


def test_version_prints_the_version():
    from captum_leam import __version__

    code, printed = run("--version")
    assert (code, printed.strip()) == (0, f"captum-leam {__version__}")


def test_explain_writes_page_pictures_and_tables(folder):
    out = folder / "out"
    crops = [folder / "a.png", folder / "b.png", folder / "<script>alert(1)<_script>.png"]
    invoke("explain", *crops, "--model", f"{folder}/my_models.py:small", "--preset", "fast", "--out", out, drawn=True)
    page = (out / "index.html").read_text()
    assert "3 faces were compared with other images of the same person" in page
    assert page.count("<script") == 1  # that of the page, which sorts its tables
    assert "&lt;script&gt;alert(1)" in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)  # nothing is fetched
    assert "What this does not show" in page
    settings = json.loads((out / "settings.json").read_text())["settings"]
    assert settings["preset"] == "fast"
    assert (settings["passes"], settings["steps of the signed layer maps"]) == ("2 forward, 2 backward", "4")
    assert len(list(out.glob("*.png"))) == 3
    regions, drops = pd.read_csv(out / "regions.csv"), pd.read_csv(out / "drops.csv")
    assert regions["name"].nunique() == 3
    assert regions.groupby("image")["share"].sum().round(6).eq(1).all()
    assert {"LEAM, overall map"} <= set(drops["method"])
    assert "random pixels" in set(drops["control"])


def test_result_fits_its_schema_and_the_files_beside_it(folder, monkeypatch, capsysbinary):
    from jsonschema import Draft202012Validator

    from captum_leam.reporting import explanation_schema

    out, model = folder / "out", f"{folder}/my_models.py:small"
    arguments = ["explain", folder / "a.png", folder / "b.png", "--model", model, "--preset", "fast", "--out", out]
    arguments += ["--threshold", "0.9", "--same-person", "--other-model", model, "--no-progress", "--json", "-"]
    monkeypatch.setattr(sys, "argv", ["captum-leam", *map(str, arguments)])
    with patch("matplotlib.figure.Figure.savefig"), pytest.raises(SystemExit) as stopped:
        cli.main()
    assert not stopped.value.code
    printed = capsysbinary.readouterr().out
    assert printed == (out / "explanation.json").read_bytes()  # and nothing else is on stdout
    result, schema = json.loads(printed), explanation_schema()
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(result)
    decision, faces = result["decision"], result["faces"]
    assert decision["margin"] == pytest.approx(decision["score"] - 0.9)
    assert decision["accepted"] == (decision["score"] >= 0.9)
    assert faces[0]["sha256"] == hashlib.sha256((folder / "a.png").read_bytes()).hexdigest()
    assert result["model"]["file_sha256"] == hashlib.sha256((folder / "my_models.py").read_bytes()).hexdigest()
    drops, regions, certainty = (
        pd.read_csv(out / result["tables"][kind]) for kind in ("drops", "regions", "certainty")
    )
    for i, face in enumerate(faces):
        assert (out / face["maps"]["overall"]).is_file()
        assert [row["drop"] for row in face["drops"]] == pytest.approx(drops.query(f"image == {i}")["drop"].tolist())
        assert [row["lift"] for row in face["regions"]] == pytest.approx(
            regions.query(f"image == {i}")["lift"].tolist()
        )
        tests = face["certainty"]["tests"]
        assert [test["p"] for test in tests.values()] == pytest.approx(certainty.query(f"image == {i}")["p"].tolist())
        assert [*tests] == ["model", model]
        assert face["certainty"]["sentence"] in unescape((out / "index.html").read_text())


def test_result_without_a_pair_and_without_certainty(folder):
    from jsonschema import Draft202012Validator

    from captum_leam.reporting import explanation_schema

    (folder / "bad.png").write_bytes(b"not an image")
    crops = [folder / name for name in ("a.png", "b.png", "<script>alert(1)<_script>.png", "bad.png")]
    copied = folder / "copy.json"
    with pytest.raises(SystemExit):
        invoke(
            *(
                "explain",
                *crops,
                "--model",
                f"{folder}/my_models.py:small",
                "--preset",
                "fast",
                "--out",
                folder / "out",
            ),
            *("--json", copied),
        )
    result = json.loads(copied.read_text())
    Draft202012Validator(explanation_schema()).validate(result)
    assert result["decision"] is None
    assert [face["certainty"] for face in result["faces"]] == [None] * 3
    assert [item["file"].rsplit("/", 1)[-1] for item in result["left_out"]] == ["bad.png"]
    assert result["settings"]["maps"]["preset"] == "fast"
    assert "certainty" not in result["tables"]


def test_one_crop_is_labelled_as_embedding_strength(folder):
    invoke("explain", folder / "a.png", "--model", f"{folder}/my_models.py:small", "--out", folder / "one")
    assert "no reference: embedding-strength map" in (folder / "one" / "index.html").read_text()


def test_named_layers_are_explained_and_a_seed_repeats_the_numbers(folder):
    for out in ("x", "y"):
        arguments = ("explain", folder / "a.png", folder / "b.png", "--model", f"{folder}/my_models.py:small")
        invoke(
            *arguments,
            "--layer",
            "last",
            "--layer",
            "stem",
            "--n-steps",
            2,
            "--seed",
            4,
            "--out",
            folder / out,
            drawn=True,
        )
    page = (folder / "x" / "index.html").read_text()
    assert "layer last" in page
    assert "layer middle" not in page
    assert "<dt>steps of the signed layer maps</dt><dd>2</dd>" in page
    for name in ("regions.csv", "drops.csv", "index.html"):
        assert (folder / "x" / name).read_bytes() == (folder / "y" / name).read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": ""}, "--model is missing"),
        ({"model": "nowhere.py:small"}, "there is no such file"),
        ({"model": "{folder}/my_models.py:smaller"}, "Similar names: small"),
        ({"model": "{folder}/my_models.py:broken"}, "no weights here"),
        ({"model": "{folder}/my_models.py:number"}, "returns embeddings, got a int"),
        ({"model": "{folder}/my_models.py:picky"}, "on a crop of 112 × 112 px"),
        ({"crops": ["a.png", "same.png"]}, "are the same picture"),
        ({"extra": ["--out", "{folder}/a.png/sub"]}, "Expected a folder, got the file"),
        ({"model": "no.such.package:model"}, "cannot be imported"),
        ({"crops": ["missing.png"]}, "there is no such file"),
        ({"crops": ["my_models.py"]}, "not a picture"),
        ({"extra": ["--face", "0", "--face", "1", "--face", "2"]}, "each of the 2 pictures in their order, got 3"),
        ({"extra": ["--colour", "grb"]}, "Expected colour to be rgb or bgr"),
        ({"extra": ["--layer", "lost"]}, "lost"),
        ({"extra": ["--layer", "project"]}, "to return one tensor of shape (N, C, h, w), got ("),
        ({"extra": ["--preset", "slow"]}, "Expected preset to be one of 'fast', 'default', 'best', got 'slow'"),
        ({"extra": ["--fill", "pink"]}, "pink"),
        ({"extra": ["--fraction", "2"]}, "2"),
        ({"extra": ["--size", "0"]}, "Expected --size to be a number above 0"),
        ({"extra": ["--threshold", "7"]}, "Expected `threshold` to be a cosine from -1 to 1, got 7"),
        ({"extra": ["--device", "abacus"]}, "cannot be used here"),
        ({"extra": ["--out", "{folder}"]}, "has files already"),
        ({"extra": ["--out", "{folder}/a.png"]}, "Expected a folder, got the file"),
    ],
)
def test_wrong_input_raises_what_is_wrong_and_writes_nothing(folder, change, message):
    crops = [folder / name for name in change.get("crops", ["a.png", "b.png"])]
    model = change.get("model", "{folder}/my_models.py:small").format(folder=folder)
    extra = [part.format(folder=folder) for part in change.get("extra", [])]
    out = [] if "--out" in extra else ["--out", folder / "out"]
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        invoke("explain", *crops, "--model", model, *out, *extra)
    assert not (folder / "out").exists()  # nothing half done is left behind


def test_wrong_input_is_one_line_and_exit_code_two(folder):
    code, printed = run("explain", folder / "a.png", "--model", f"{folder}/my_models.py:lost", "--out", folder / "out")
    assert code == 2
    assert "Traceback" not in printed
    assert printed.strip().count("\n") == 0
    assert printed.startswith("error: ")


REFUSALS = {
    "refusal": CaptumLeamError("no such preset"),
    "wrong type": InputTypeError("a list is needed"),
    "bad picture": FileError("a.png", "the file is empty."),
    "missing file": FileNotFoundError(2, "No such file or directory", "study.yaml"),
    "no permission": PermissionError(13, "Permission denied", "out"),
    "folder": IsADirectoryError(21, "Is a directory", "out"),
    "full disk": OSError(28, "No space left on device"),
    "memory": MemoryError("too little memory"),
    "GPU memory": torch.OutOfMemoryError("CUDA out of memory."),
    "allocator": RuntimeError("DefaultCPUAllocator: can't allocate memory"),
}
FAULTS = [RuntimeError("shapes differ"), ValueError("a bug"), TypeError("a bug"), KeyError("lost"), OSError("a bug")]


@pytest.fixture
def failing(monkeypatch):
    """Let every command raise this error from within."""

    def fail(error: Exception) -> None:
        def explode(*arguments, **options):
            raise error

        monkeypatch.setattr("captum_leam.reporting.files.explain_files", explode)
        monkeypatch.setattr("captum_leam.study.config.read_config", explode)
        monkeypatch.setattr("captum_leam.cli._planted", explode)

    return fail


COMMANDS = {"explain": ("explain", "a.png", "--model", "m:n"), "demo": ("demo",), "study": ("study", "study.yaml")}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", REFUSALS)
def test_user_errors_are_one_line_and_exit_code_two(failing, monkeypatch, capsys, tmp_path, command, kind):
    monkeypatch.chdir(tmp_path)
    failing(REFUSALS[kind])
    code, printed = main(monkeypatch, capsys, *COMMANDS[command])
    assert (code, printed.strip()) == (2, f"error: {REFUSALS[kind]}")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("error", FAULTS, ids=lambda error: type(error).__name__)
def test_an_unexpected_error_keeps_its_traceback(failing, monkeypatch, capsys, tmp_path, command, error):
    monkeypatch.chdir(tmp_path)
    failing(error)
    with pytest.raises(type(error)) as raised:
        main(monkeypatch, capsys, *COMMANDS[command])
    assert raised.value is error


@pytest.mark.parametrize("arguments", [("--debug", *COMMANDS["study"]), (*COMMANDS["study"], "--debug")])
def test_debug_shows_the_traceback_of_user_errors(failing, monkeypatch, capsys, tmp_path, arguments):
    monkeypatch.chdir(tmp_path)
    failing(REFUSALS["refusal"])
    with pytest.raises(CaptumLeamError, match="no such preset"):
        main(monkeypatch, capsys, *arguments)


@pytest.mark.ci
def test_a_traceback_ends_with_exit_code_one(tmp_path):
    def fail(error: str, *options: str) -> tuple[int, str]:
        code = (
            "import sys, captum_leam.study.config as config\n"
            f"def explode(path): raise {error}('inside')\n"
            "config.read_config = explode\n"
            f"sys.argv = ['captum-leam', 'study', 'x.yaml', *{options}]\n"
            "from captum_leam.cli import main; main()"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)  # noqa: S603
        return done.returncode, done.stdout + done.stderr

    code, printed = fail("RuntimeError")
    assert code == 1
    assert "Traceback" in printed
    assert "RuntimeError: inside" in printed
    code, printed = fail("config.ConfigError", "--debug")
    assert code == 1
    assert "Traceback" in printed
    assert fail("config.ConfigError") == (2, "error: inside\n")


@pytest.mark.parametrize(
    ("kind", "message"),
    [("ValueError", "not my day"), ("TypeError", "not my day"), ("RuntimeError", "not my day"), ("AssertionError", "")],
)
def test_a_model_that_raises_is_named_in_one_line(folder, monkeypatch, capsys, kind, message):
    (folder / "raising.py").write_text(RAISING.format(kind=kind, message=message))
    arguments = ("explain", folder / "a.png", "--model", f"{folder}/raising.py:Raising", "--out", folder / "out")
    code, printed = main(monkeypatch, capsys, *arguments)
    assert code == 2
    assert printed.strip().count("\n") == 0
    assert f"raising.py:Raising raised {kind} on a crop of 112 × 112 px: {message or 'no message'}" in printed


RAISING = """
from torch import nn

class Raising(nn.Module):
    def forward(self, x):
        raise {kind}("{message}")
"""


def test_a_missing_extra_is_one_line_with_its_command(folder, monkeypatch, capsys):
    Image.new("RGB", (300, 300)).save(folder / "photo.png")
    for name in ["facexlib", *(m for m in sys.modules if m.startswith("facexlib."))]:
        monkeypatch.setitem(sys.modules, name, None)
    model = ("--model", f"{folder}/my_models.py:small")
    code, printed = main(monkeypatch, capsys, "explain", folder / "photo.png", *model, "--out", folder / "out")
    assert code == 2
    assert printed.strip().count("\n") == 0
    assert 'pip install "captum-leam[face]"' in printed


def test_a_crop_is_never_among_its_own_references(folder):
    """A shell's *.png repeats the probe."""
    arguments = [folder / "a.png", folder / "a.png", folder / "b.png", "--model", f"{folder}/my_models.py:small"]
    invoke("explain", *arguments, "--preset", "fast", "--out", folder / "out")
    regions = pd.read_csv(folder / "out" / "regions.csv")
    assert regions["image"].nunique() == 2


@pytest.mark.parametrize(("threshold", "said"), [(1.1, True), (-1.1, False)])
def test_pictures_unlike_the_others_are_named(folder, monkeypatch, threshold, said):
    """A folder of several people is not taken for one person's in silence."""
    monkeypatch.setattr("captum_leam.reporting.files.DOUBTFUL", threshold)
    pictures = [folder / name for name in ("a.png", "b.png", "<script>alert(1)<_script>.png")]
    invoke("explain", *pictures, "--model", f"{folder}/my_models.py:small", "--preset", "fast", "--out", folder / "out")
    notes = json.loads((folder / "out" / "settings.json").read_text())["notes"]
    assert any("Check the person" in note and "b.png (" in note for note in notes) == said


def test_files_stay_in_the_order_given(folder):
    a, b, same = (folder / name for name in ("a.png", "b.png", "same.png"))
    assert _distinct([a, b, a], ()) == ([(a, "largest"), (b, "largest")], [])
    assert _distinct([b, a, b, a], [0, 1, 1, 1]) == ([(b, 0), (a, 1), (b, 1)], [])
    with pytest.raises(ValueError, match=r"a\.png and .*same\.png are the same picture"):
        _distinct([a, b, same], ())


def test_crops_of_two_sizes_raise_and_name_the_file(folder):
    Image.new("RGB", (50, 60)).save(folder / "small.png")
    with pytest.raises(ValueError, match=r"small\.png: 50 × 60 px, but .*a\.png has 112 × 112"):
        invoke("explain", folder / "a.png", folder / "small.png", "--model", f"{folder}/my_models.py:small")


def test_the_demo_writes_the_same_page_and_its_tables(tmp_path, monkeypatch, capsys):
    """With a network of three steps; `make demo` is the real one."""
    from functools import partial

    import captum_leam.synthetic as synthetic

    monkeypatch.setattr(synthetic, "train", partial(synthetic.train, steps=3, batch_size=4))
    code, printed = main(monkeypatch, capsys, "demo", "--out", tmp_path / "demo", "--people", 3, "--no-progress")
    page = (tmp_path / "demo" / "index.html").read_text()
    assert all(f"Evidence planted in the {part}" in page for part in ("nose", "eyes", "mouth"))
    assert "Three networks recognise synthetic faces" in page
    assert "trained here" in page
    assert "Its decision between two people changes in" in page
    assert len(list((tmp_path / "demo").glob("*.csv"))) == 3 * 3
    assert code == 0
    assert "captum-leam explain ann/*.jpg --model my_models.py:my_network" in printed


def test_the_demo_uses_the_networks_of_the_package_and_trains_others(monkeypatch):
    import captum_leam.synthetic as synthetic
    from captum_leam import cli

    trained, loaded = [], synthetic.load_trained
    monkeypatch.setattr(synthetic, "train", lambda population, **_: trained.append(population) or loaded(population))
    for is_trained_here, count in ((False, 0), (True, 1)):
        monkeypatch.setattr(synthetic, "swap_test", lambda *_, **__: 1 / 0)  # far enough, and in any case run
        with pytest.raises(ZeroDivisionError):
            cli._planted(
                "nose", synthetic.SyntheticPopulation(12, evidence="nose"), 0, torch.device("cpu"), is_trained_here
            )
        assert len(trained) == count


@pytest.mark.real
@pytest.mark.parametrize("name", ["ms1m", pytest.param("casia", marks=pytest.mark.ci)])
def test_critical_pixels_of_real_people_lie_on_the_face_and_beat_random_ones(real_dir, tmp_path, name):
    """The page of a real person: the critical pixels lie on the face, and matter more than random ones."""
    crops = sorted((real_dir / "faces" / "s01").glob("*.png"))
    invoke("explain", *crops, "--model", f"{real_dir}/models.py:{name}", "--out", tmp_path / "out", drawn=True)
    regions = pd.read_csv(tmp_path / "out" / "regions.csv")
    found = regions.groupby("region")[["share", "area"]].mean()
    assert found.loc[["background", "outline"], "share"].sum() < 0.1
    features = found.loc[["nose", "brows", "eyes", "mouth"]].sum()
    assert features["share"] > 2 * features["area"]
    drops = pd.read_csv(tmp_path / "out" / "drops.csv").query("fraction == 0.05")
    ours = drops.loc[drops["method"] == "LEAM, overall map", "drop"].mean()
    assert ours > 3 * drops.loc[drops["control"] == "random pixels", "drop"].mean()


# -- files that are bad, regions, sizes ----------------------------------------------------------------


def test_bad_files_are_left_out_and_named(folder, monkeypatch, capsys):
    """In a batch the others are still done; the exit code says that not all were."""
    (folder / "empty.png").touch()
    (folder / "text.png").write_text("not an image")
    pictures = [folder / name for name in ("a.png", "empty.png", "b.png", "text.png")]
    model = ("--model", f"{folder}/my_models.py:small", "--preset", "fast")
    code, printed = main(monkeypatch, capsys, "explain", *pictures, *model, "--out", folder / "out", "--no-progress")
    assert code == 1
    assert "Traceback" not in printed
    assert re.search(r"note: left out: .*empty\.png: the file is empty", printed)
    page = (folder / "out" / "index.html").read_text()
    assert "text.png: not a picture" in page
    assert pd.read_csv(folder / "out" / "regions.csv")["name"].unique().tolist() == ["a.png", "b.png"]
    with pytest.raises(ValueError, match=r"only .*a\.png is left of 3 pictures: .*empty\.png"):
        invoke(
            "explain",
            *[folder / n for n in ("a.png", "empty.png", "text.png")],
            "--model",
            f"{folder}/my_models.py:small",
        )
    with pytest.raises(ValueError, match=r"empty\.png: the file is empty\. \(1 more could not be read either\)"):
        invoke("explain", folder / "empty.png", folder / "text.png", "--model", f"{folder}/my_models.py:small")


PARSER = """
import torch
from torch import nn
from captum_leam.regions import RegionScheme

def labels(images):
    return (torch.arange(images.shape[-1]) // 56 + 1).expand(len(images), *images.shape[-2:]).long()

class Halves(nn.Module):
    scheme = RegionScheme({0: "background", 1: "left_side", 2: "right_side"})
    def forward(self, images):
        return nn.functional.one_hot(labels(images), 3).movedim(-1, 1).float()

def few():
    return nn.Conv2d(3, 4, 1)

def breaks(images):
    raise RuntimeError("no weights here")
"""


@pytest.mark.parametrize(
    ("regions", "names"),
    [
        ("{folder}/parsers.py:Halves", {"background", "sides"}),
        ("{folder}/parsers.py:labels", None),
        ("superpixels", None),
        ("{folder}/labels", None),
    ],
)
def test_every_kind_of_regions_gives_a_table_of_regions(folder, regions, names):
    (folder / "parsers.py").write_text(PARSER)
    (folder / "labels").mkdir()
    for name in ("a", "b"):
        np.save(folder / "labels" / f"{name}.npy", np.full((112, 112), 2))
    arguments = (
        "explain",
        folder / "a.png",
        folder / "b.png",
        "--model",
        f"{folder}/my_models.py:small",
        "--preset",
        "fast",
    )
    invoke(*arguments, "--regions", regions.format(folder=folder), "--out", folder / "out")
    found = pd.read_csv(folder / "out" / "regions.csv")
    pair = pd.read_csv(folder / "out" / "pair_regions.csv")
    assert found.groupby("image")["share"].sum().round(6).eq(1).all()
    assert set(pair["speaks"]) == {"for", "against"}
    assert pair.groupby(["name", "speaks"])["share"].sum().round(6).eq(1).all()
    if names is not None:
        assert set(found["region"]) == names
    if regions.endswith(":labels"):  # integers without a scheme are those of CelebAMask-HQ
        assert found.groupby("region")["area"].mean()[["skin", "nose"]].tolist() == [0.5, 0.5]
    if regions.endswith("/labels"):
        assert (found.query("region == 'nose'")["share"] == 1).all()
    page = (folder / "out" / "index.html").read_text()
    assert ("there is no mean over faces" in page) == (regions == "superpixels")
    assert page.count("outlines of its regions") == 2


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        ("mouths", "Expected regions to be template, bisenet"),
        ("{folder}/parsers.py:few", "19 classes of scheme 'celebamask_hq', got scores of 4 classes"),
        ("{folder}/parsers.py:breaks", "raised RuntimeError: no weights here"),
        ("{folder}/parsers.py:lost", "got 'lost'"),
        ("math:pi", "to label maps, got a float"),
        ("{folder}/labels", "expected a label file for a.png"),
        ("parsenet", "no such file or folder"),
    ],
)
def test_unusable_regions_raise_and_write_nothing(folder, regions, message):
    (folder / "parsers.py").write_text(PARSER)
    (folder / "labels").mkdir()
    with pytest.raises((ValueError, ImportError), match=re.escape(message)):
        invoke(
            *("explain", folder / "a.png", "--model", f"{folder}/my_models.py:small", "--out", folder / "out"),
            *("--regions", regions.format(folder=folder), "--region-weights", folder / "nowhere"),
        )
    assert not (folder / "out").exists()


OBLONG = """
from torch import nn
from captum_leam.models import INSIGHTFACE, Prepared

def oblong():
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.Flatten(), nn.Linear(8 * 28 * 24, 8))

def large():
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.Flatten(), nn.Linear(8 * 40 * 40, 8))

def any_size():
    return nn.Sequential(Unit().body, nn.Flatten(), nn.Linear(128, 8))

def unit_length():
    return Unit()

def prepared():
    return Prepared(Unit(), INSIGHTFACE)

class Unit(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.AdaptiveAvgPool2d(4))
        self.head = nn.Linear(128, 8)

    def forward(self, x):
        return nn.functional.normalize(self.head(self.body(x).flatten(1)))
"""


def test_crops_that_are_not_square_are_explained_with_their_own_template(folder):
    """112 × 96 has a template of its own: the middle of the square one."""
    (folder / "nets.py").write_text(OBLONG)
    for name in ("a", "b"):
        with Image.open(folder / f"{name}.png") as image:
            image.crop((8, 0, 104, 112)).save(folder / f"{name}96.png")
            image.crop((0, 0, 50, 112)).save(folder / f"{name}50.png")
    model = ("--model", f"{folder}/nets.py:oblong", "--preset", "fast")
    invoke("explain", folder / "a96.png", folder / "b96.png", *model, "--out", folder / "out")
    found = pd.read_csv(folder / "out" / "regions.csv")
    assert found.query("region == 'nose'")["area"].iloc[0] == pytest.approx(112 / 96 * 0.035, abs=2e-3)
    with Image.open(folder / "out" / "00_a96.png") as picture:
        assert picture.size == (448, 448 * 112 // 96)
    narrow = (folder / "a50.png", folder / "b50.png", "--model", f"{folder}/nets.py:any_size", "--preset", "fast")
    with pytest.raises(ValueError, match=r"standard templates, got \(h, w\) = \(112, 50\).*regions need a parser"):
        invoke("explain", *narrow, "--out", folder / "out50")
    invoke("explain", *narrow, "--regions", "superpixels", "--out", folder / "out50")


def test_crops_are_scaled_to_the_size_asked_for(folder):
    (folder / "nets.py").write_text(OBLONG)
    arguments = (
        "explain",
        folder / "a.png",
        folder / "b.png",
        "--model",
        f"{folder}/nets.py:large",
        "--preset",
        "fast",
    )
    with pytest.raises(ValueError, match=r"on a crop of 112 × 112 px: .* Pass the size of its crops \(--size\)"):
        invoke(*arguments, "--out", folder / "out")
    invoke(*arguments, "--size", 160, "--out", folder / "out")
    page = (folder / "out" / "index.html").read_text()
    assert "a.png: scaled from 112 × 112 to 160 × 160 px" in page
    with pytest.raises(ValueError, match="another alignment"):
        invoke(*arguments, "--size", "112x96", "--out", folder / "other")
    with pytest.raises(ValueError, match="Expected --size .* got 'big'"):
        invoke(*arguments, "--size", "big", "--out", folder / "other")


def test_output_cuts_off_the_division_by_the_length_that_the_page_reports(folder):
    (folder / "nets.py").write_text(OBLONG)
    arguments = (
        "explain",
        folder / "a.png",
        folder / "b.png",
        "--model",
        f"{folder}/nets.py:unit_length",
        "--preset",
        "fast",
    )
    invoke(*arguments, "--out", folder / "out")
    page = (folder / "out" / "index.html").read_text()
    assert "all embeddings have length 1" in page
    assert "(--output head)" in page
    invoke(*arguments, "--output", "head", "--colour", "bgr", "--out", folder / "cut")
    page = (folder / "cut" / "index.html").read_text()
    assert "all embeddings have length 1" not in page
    assert "colour=&#39;bgr&#39;" in page


@pytest.mark.parametrize(
    ("name", "options", "layer"),
    [("prepared", [], "network.head"), ("unit_length", ["--preprocessing", "unit"], "head")],
)
def test_the_layer_that_is_named_can_be_given(folder, name, options, layer):
    """Whether the preprocessing is the user's own or that of the command line."""
    (folder / "nets.py").write_text(OBLONG)
    pictures = (folder / "a.png", folder / "b.png")
    arguments = ("explain", *pictures, "--model", f"{folder}/nets.py:{name}", *options, "--preset", "fast")
    invoke(*arguments, "--out", folder / "out")
    assert f"(--output {layer})" in (folder / "out" / "index.html").read_text()
    invoke(*arguments, "--output", layer, "--out", folder / "cut")
    assert "--output" not in (folder / "cut" / "index.html").read_text()


def test_force_removes_what_the_earlier_page_left(folder):
    out, model = folder / "out", ("--model", f"{folder}/my_models.py:small", "--preset", "fast")
    invoke("explain", folder / "a.png", folder / "b.png", *model, "--out", out)
    (out / "mine.txt").write_text("kept")
    invoke("explain", folder / "b.png", *model, "--out", out, "--force")
    assert sorted(path.name for path in out.iterdir()) == [
        *(
            "00_b.png",
            "curves.csv",
            "drops.csv",
            "explanation.json",
            "figures",
            "index.html",
            "maps.npz",
            "mine.txt",
            "regions.csv",
            "settings.json",
        ),
    ]
    (out / "settings.json").write_text('{"captum-leam": "x", "files": ["mine.txt/../mine.txt", "..", 3]}')
    invoke("explain", folder / "b.png", *model, "--out", out, "--force")
    assert (out / "mine.txt").exists()


# -- photographs and pairs -----------------------------------------------------------------------------


def test_two_crops_give_the_page_of_a_pair(folder):
    out = folder / "pair"
    arguments = (
        "explain",
        folder / "a.png",
        folder / "b.png",
        "--model",
        f"{folder}/my_models.py:small",
        "--preset",
        "fast",
    )
    invoke(*arguments, "--threshold", 0.2, "--out", out, drawn=True)
    page = (out / "index.html").read_text()
    assert re.search(r"Cosine 0\.\d{3}: accepted at threshold 0\.2 \(margin \+0\.\d{3}\)", page)
    assert page.count("against the match</figcaption>") == 2
    assert "maps about the match" in page
    assert (out / "pair.png").stat().st_size > 10_000
    invoke(*arguments, "--threshold", 0.2, "--different-people", "--out", folder / "truth")
    page = (folder / "truth" / "index.html").read_text()
    assert "different people, so a false decision (FA)" in page
    assert "FA, false acceptance" in page
    invoke(*arguments, "--same-person", "--out", folder / "truth", "--force")
    assert re.search(r"Cosine 0\.\d{3}; the same person\.", (folder / "truth" / "index.html").read_text())
    with pytest.raises(ValueError, match="Expected two pictures for .*, got 1"):
        invoke(
            "explain",
            folder / "a.png",
            "--model",
            f"{folder}/my_models.py:small",
            "--threshold",
            0.2,
            "--out",
            folder / "t",
        )


def test_an_unknown_kind_of_pictures_raises(folder):
    with pytest.raises(ValueError, match="Expected pictures to be .*, got 'faces'"):
        invoke("explain", folder / "a.png", "--model", f"{folder}/my_models.py:small", "--pictures", "faces")


@pytest.mark.real
@pytest.mark.parametrize(
    "model",
    [
        ("models.py:ms1m",),
        ("models.py:casia", "--regions", "{real_dir}/models.py:parser", "--same-person"),
        pytest.param(("mobilefacenet_ms1m_fixed_batch.onnx", "--preprocessing", "imagenet"), marks=pytest.mark.ci),
        pytest.param(("mobilefacenet_casia.onnx",), marks=pytest.mark.ci),
    ],
    ids=["ms1m", "casia", "ms1m onnx", "casia onnx"],
)
def test_maps_of_raw_photographs_lie_on_the_face(real_dir, tmp_path, model):
    """Two photographs of one person: accepted, and the map lies on the face in the original photograph."""
    pytest.importorskip("facexlib")
    from captum_leam.faces import FaceAligner

    photos = [real_dir / "photos" / name for name in ("img20.jpg", "img21.jpg")]
    where, *more = [part.format(real_dir=real_dir) for part in model]
    invoke(
        *("explain", *photos, "--model", real_dir / where, *more, "--weights", real_dir, "--threshold", 0.4),
        *("--preset", "fast", "--out", tmp_path / "out"),
    )
    page = (tmp_path / "out" / "index.html").read_text()
    assert re.search(r"Cosine 0\.8\d\d: accepted at threshold 0\.4", page)
    assert page.count("on the photograph; the outline is the crop") == 2
    aligner = FaceAligner(weights=real_dir, device="cpu")
    for i, photo in enumerate(photos):
        (face,) = aligner(photo, "largest")
        with Image.open(tmp_path / "out" / f"{i:02d}_{photo.stem}_photo.png") as image:
            picture = torch.from_numpy(np.asarray(image).astype("float32"))
        ratio = picture.shape[1] / face.photo_size[1]
        colour = (
            picture.max(-1).values - picture.min(-1).values
        )  # the photograph is grey, the map and the outline are not
        red = colour * (picture[..., 0] > picture[..., 2])
        y, x = divmod(int(red.argmax()), red.shape[1])
        left, top, right, bottom = face.box * ratio
        assert left < x < right, photo
        assert top < y < bottom, photo
        inside = red[int(top) : int(bottom), int(left) : int(right)].sum()
        assert inside > 0.8 * red.sum(), photo


# -- what happens between the file and the result --------------------------------------------------------


def notes_of(out: Path) -> list[str]:
    return json.loads((out / "settings.json").read_text())["notes"]


COPIES = {
    "bmp": lambda image, path: image.save(path.with_suffix(".bmp")),
    "jpeg": lambda image, path: image.save(path.with_suffix(".jpg"), quality=60),
    "webp": lambda image, path: image.save(path.with_suffix(".webp"), quality=70),
    "grey": lambda image, path: image.convert("L").save(path.with_suffix(".tif")),
    "other size": lambda image, path: image.resize((160, 160)).save(path.with_suffix(".png")),
    "EXIF": lambda image, path: turned_by_exif(image).save(path.with_suffix(".png"), exif=exif_of(image)),
    "hard link": lambda image, path: os.link(path.with_name("a.png"), path.with_suffix(".png")),
    "symbolic link": lambda image, path: path.with_suffix(".png").symlink_to("a.png"),
    "linked folder": lambda image, path: path.symlink_to("."),
}


def turned_by_exif(image: Image.Image) -> Image.Image:
    return image.transpose(Image.Transpose.ROTATE_180)


def exif_of(image: Image.Image) -> Image.Exif:
    exif = image.getexif()
    exif[0x0112] = 3  # is turned by 180 degrees when it is read
    return exif


@pytest.mark.parametrize("kind", COPIES)
def test_a_copy_of_a_picture_as_its_reference_raises(folder, kind):
    """Whatever it was saved as: refused with both names, never explained towards itself."""
    with Image.open(folder / "a.png") as image:
        COPIES[kind](image.convert("RGB"), folder / "copy")
    copy = next(path for path in folder.iterdir() if path.name.startswith("copy"))
    given = copy / "a.png" if copy.is_dir() else copy
    with pytest.raises(
        ValueError, match=rf"a\.png and .*{given.name} (show|are) the same picture. Pass another picture"
    ):
        invoke(*("explain", folder / "a.png", given, "--model", f"{folder}/my_models.py:small", "--size", "112"))


def test_a_copy_among_others_is_left_out_and_named(folder, monkeypatch, capsys):
    with Image.open(folder / "a.png") as image:
        image.convert("RGB").save(folder / "copy.jpg", quality=90)
    pictures = [folder / name for name in ("a.png", "b.png", "copy.jpg")]
    model = ("--model", f"{folder}/my_models.py:small", "--preset", "fast", "--no-progress")
    code, printed = main(monkeypatch, capsys, "explain", *pictures, *model, "--out", folder / "out")
    assert code == 1
    assert re.search(r"note: left out: .*copy\.jpg: shows the same as .*a\.png", printed)


def test_one_picture_given_twice_raises(folder):
    with pytest.raises(ValueError, match="are the same picture"):
        invoke("explain", folder / "a.png", folder / "a.png", "--model", f"{folder}/my_models.py:small")


def test_a_link_among_others_is_left_out_and_named(folder, monkeypatch, capsys):
    (folder / "link.png").symlink_to("a.png")
    pictures = [folder / name for name in ("a.png", "b.png", "link.png")]
    model = ("--model", f"{folder}/my_models.py:small", "--preset", "fast", "--no-progress")
    code, printed = main(monkeypatch, capsys, "explain", *pictures, *model, "--out", folder / "out")
    assert code == 1
    assert re.search(r"note: left out: .*link\.png: the same file as .*a\.png", printed)


MESSES = {
    "text": lambda folder: (folder / "notes.txt").write_text("mine"),
    "folder": lambda folder: (folder / "more").mkdir(),
    "heic": lambda folder: (folder / "phone.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(400)),
    "empty": lambda folder: (folder / "empty.png").touch(),
    "broken link": lambda folder: (folder / "gone.png").symlink_to("nowhere.png"),
    "pipe": lambda folder: os.mkfifo(folder / "pipe.png"),
    "other ending": lambda folder: (folder / "c.bak").write_bytes((folder / "b.png").read_bytes()),
    "no UTF-8": lambda folder: Path(os.fsdecode(os.fsencode(folder) + b"/\xff.txt")).write_text("x"),
    "hidden": lambda folder: (folder / ".hidden.png").touch(),
}


@pytest.mark.parametrize("mess", MESSES)
def test_every_file_of_a_folder_is_explained_or_named_as_left_out(folder, monkeypatch, capsys, mess):
    """Files found are files explained and files left out; hidden ones are not looked at."""
    pictures = folder / "pictures"
    pictures.mkdir()
    for name in ("a.png", "b.png", "<script>alert(1)<_script>.png"):
        (folder / name).rename(pictures / name)
    MESSES[mess](pictures)
    model = ("--model", f"{folder}/my_models.py:small", "--preset", "fast", "--no-progress")
    code, printed = main(monkeypatch, capsys, "explain", pictures, *model, "--out", folder / "out")
    left_out = [note for note in notes_of(folder / "out") if note.startswith("left out: ")]
    explained = pd.read_csv(folder / "out" / "regions.csv")["name"].nunique()
    assert explained == 3
    assert explained + len(left_out) == len([path for path in pictures.iterdir() if not path.name.startswith(".")])
    assert code == (0 if mess == "hidden" else 1)
    assert printed.count("left out: ") == len(left_out)


def test_a_folder_that_cannot_be_written_to_is_found_before_anything_is_computed(folder, monkeypatch):
    """Whoever is root may write everywhere, so the system's answer is put in place."""

    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(cli, "TemporaryDirectory", refuse)
    with (
        patch("captum_leam.reporting.files.explain_files", side_effect=AssertionError("computed")),
        pytest.raises(
            ValueError, match=r"--out .*new/deep: Expected a folder that can be written to, got .*Permission denied"
        ),
    ):
        invoke("explain", folder / "a.png", "--model", f"{folder}/my_models.py:small", "--out", folder / "new" / "deep")
    assert not (folder / "new").exists()


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that nobody can write to")
def test_a_folder_of_the_system_raises(folder):
    with pytest.raises(ValueError, match="Expected a folder that can be written to, got /proc"):
        invoke("explain", folder / "a.png", "--model", f"{folder}/my_models.py:small", "--out", "/proc/explanation")
    (folder / "round").symlink_to("nowhere")
    with pytest.raises(ValueError, match=r"Expected a folder, got the file .*round"):
        invoke("explain", folder / "a.png", "--model", f"{folder}/my_models.py:small", "--out", folder / "round")


SIZES = """
from torch import nn

def pooled():  # a map of 7 × 7 at 112 px, as MobileFaceNets have it
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 7), nn.Flatten())

def flattened():
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 2, 3, 8, 1), nn.ReLU(), nn.Flatten())

def any_size():
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.AdaptiveAvgPool2d(4), nn.Flatten())
"""


@pytest.mark.parametrize(
    ("network", "px", "options", "refused", "noted"),
    [
        ("pooled", 112, (), False, False),
        ("pooled", 250, (), True, None),
        ("pooled", 160, (), True, None),
        ("pooled", 250, ("--size", "112"), False, True),
        ("pooled", 112, ("--size", "224"), True, None),
        ("flattened", 160, (), False, False),
        ("flattened", 250, (), True, None),
        ("flattened", 250, ("--size", "250"), False, True),
        ("any_size", 250, (), False, True),
        ("any_size", 224, (), False, False),
        ("any_size", 250, ("--pictures", "crops"), False, False),
    ],
)
def test_small_pictures_are_not_silently_taken_for_crops(folder, network, px, options, refused, noted):
    """A network never runs at a size at which its embeddings have another length than at its own."""
    (folder / "sizes.py").write_text(SIZES)
    for name in ("a", "b"):
        with Image.open(folder / f"{name}.png") as image:
            image.resize((px, px)).save(folder / f"{name}{px}.png")
    arguments = (
        "explain",
        folder / f"a{px}.png",
        folder / f"b{px}.png",
        "--preset",
        "fast",
        *options,
        "--out",
        folder / "out",
    )
    if refused:
        with pytest.raises(
            ValueError, match=r"Expected crops of 112 × 112 px, on which .* numbers, got .* If the pictures are not"
        ):
            invoke(*arguments, "--model", f"{folder}/sizes.py:{network}")
        return
    invoke(*arguments, "--model", f"{folder}/sizes.py:{network}")
    taken = [note for note in notes_of(folder / "out") if "taken for an aligned crop (250 × 250 px)" in note]
    assert len(taken) == (2 if noted else 0)


def test_a_face_of_a_crop_cannot_be_chosen(folder):
    model = ("--model", f"{folder}/my_models.py:small", "--preset", "fast")
    invoke("explain", folder / "a.png", folder / "b.png", *model, "--face", 1, "--out", folder / "out")
    assert (
        sum("--face chooses a face of a photograph, and this is a crop" in note for note in notes_of(folder / "out"))
        == 2
    )
    with pytest.raises(ValueError, match="show the same"):  # two faces of one crop
        invoke("explain", folder / "a.png", folder / "a.png", *model, "--face", 0, "--face", 1, "--out", folder / "two")


@pytest.mark.ci
@pytest.mark.real
def test_pictures_of_several_faces_and_unaligned_ones_are_named(real_dir, tmp_path):
    """Two portraits side by side, the stranger larger; and pictures as LFW has them."""
    pytest.importorskip("facexlib")
    with Image.open(real_dir / "photos" / "img20.jpg") as one, Image.open(real_dir / "photos" / "img21.jpg") as other:
        both = Image.new("RGB", (1300, 900))
        both.paste(one.convert("RGB"), (0, 0))
        both.paste(other.convert("RGB").resize((300, 395)), (950, 200))
        one.convert("RGB").crop((150, -10, 740, 580)).resize((250, 250)).save(tmp_path / "lfw.png")
    both.save(tmp_path / "both.png")
    model = ("--model", real_dir / "models.py:ms1m", "--weights", real_dir, "--preset", "fast")
    invoke("explain", tmp_path / "both.png", real_dir / "photos" / "img21.jpg", *model, "--out", tmp_path / "out")
    assert "both.png: 2 faces were found, the largest was taken (--face chooses another)" in notes_of(tmp_path / "out")
    assert "face 0 of 2" in json.loads((tmp_path / "out" / "settings.json").read_text())["settings"]["pictures"]
    assert "2 faces were found" in (tmp_path / "out" / "index.html").read_text()
    with pytest.raises(ValueError, match=r"got 250 × 250 px, .* --pictures photos aligns them"):
        invoke("explain", tmp_path / "lfw.png", *model, "--out", tmp_path / "lfw")
    invoke("explain", tmp_path / "lfw.png", *model, "--size", "112", "--out", tmp_path / "lfw")
    assert any("taken for an aligned crop (250 × 250 px): its face lies" in note for note in notes_of(tmp_path / "lfw"))


ZOO = ("ms1m", *(pytest.param(name, marks=pytest.mark.ci) for name in ("casia", "edgeface", "dlib", "reid0095")))


@pytest.mark.real
@pytest.mark.parametrize("name", ZOO)
def test_pixels_that_are_scaled_twice_are_noticed(real_dir, name):
    """dlib's cosines of strangers are near .87, as they should be."""
    from captum_leam.faces import read_crops
    from captum_leam.models import load_model
    from captum_leam.reporting.files import _noise_notes

    for person in ("faces/s01", "faces_colour/p22"):
        images = read_crops(sorted((real_dir / person).glob("*.png"))[:3])
        for preprocessing in (None, "unit", "insightface", "imagenet"):
            assert not _noise_notes(load_model(f"{real_dir}/zoo.py:{name}", preprocessing), images), preprocessing
        notes = _noise_notes(load_model(f"{real_dir}/zoo.py:{name}", "bytes"), images)
        if name in ("ms1m", "casia", "edgeface"):  # the other two tell people apart all the same
            assert re.search(r"with pixels 255 times smaller.*\. Check", notes[0])


def test_pixels_that_are_not_scaled_are_noticed():
    """A network that wants bytes and gets RGB in [0, 1] sees nothing but black."""
    from captum_leam.reporting.files import _noise_notes

    class Bytes(torch.nn.Module):
        def forward(self, x):
            return torch.tanh((x - 128) / 20)[:, :, ::8, ::8].flatten(1)

    images = SyntheticPopulation(2, seed=1).sample([0, 0, 0], seed=3).images
    assert "with pixels from 0 to 255). Check the preprocessing." in _noise_notes(Bytes().eval(), images)[0]
