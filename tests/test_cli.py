"""The command line, as a user types it."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from captum_leam import cli
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


def invoke(*arguments: object) -> None:
    """The command in this process: fast, and exceptions come through."""
    result = CliRunner().invoke(cli.app, [*map(str, arguments), "--no-progress"])
    if result.exception is not None:
        raise result.exception


def test_help_is_free_of_torch():
    code = (
        "import sys\nfrom captum_leam.cli import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "heavy = {'torch', 'captum', 'torchvision', 'numpy', 'matplotlib', 'pandas'} & set(sys.modules)\nassert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
    assert "explain" in done.stdout
    assert "demo" in done.stdout


def test_version():
    from captum_leam import __version__

    code, printed = run("--version")
    assert (code, printed.strip()) == (0, f"captum-leam {__version__}")


def test_explain_writes_page_pictures_and_tables(folder):
    out = folder / "out"
    crops = [folder / "a.png", folder / "b.png", folder / "<script>alert(1)<_script>.png"]
    invoke("explain", *crops, "--model", f"{folder}/my_models.py:small", "--preset", "fast", "--out", out)
    page = (out / "index.html").read_text()
    assert "each explained towards the others" in page
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert not re.search(r'(src|href)="(?!data:)', page)  # nothing is fetched
    assert "What this does not show" in page
    assert len(list(out.glob("*.png"))) == 3
    regions, drops = pd.read_csv(out / "regions.csv"), pd.read_csv(out / "drops.csv")
    assert regions["name"].nunique() == 3
    assert regions.groupby("image")["share"].sum().round(6).eq(1).all()
    assert {"LEAM, overall map"} <= set(drops["method"])
    assert "random pixels" in set(drops["control"])


def test_one_crop_is_labelled_as_embedding_strength(folder):
    invoke("explain", folder / "a.png", "--model", f"{folder}/my_models.py:small", "--out", folder / "one")
    assert "no reference: embedding-strength map" in (folder / "one" / "index.html").read_text()


def test_layers_by_name_and_the_same_numbers_again(folder):
    for out in ("x", "y"):
        arguments = ("explain", folder / "a.png", folder / "b.png", "--model", f"{folder}/my_models.py:small")
        invoke(*arguments, "--layer", "last", "--layer", "stem", "--seed", 4, "--out", folder / out)
    page = (folder / "x" / "index.html").read_text()
    assert "layer last" in page
    assert "layer middle" not in page
    for name in ("regions.csv", "drops.csv", "index.html"):
        assert (folder / "x" / name).read_bytes() == (folder / "y" / name).read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": ""}, "--model is missing"),
        ({"model": "nowhere.py:small"}, "there is no such file"),
        ({"model": "{folder}/my_models.py:smaller"}, "Near it: small"),
        ({"model": "{folder}/my_models.py:broken"}, "no weights here"),
        ({"model": "{folder}/my_models.py:number"}, "gave a int"),
        ({"model": "{folder}/my_models.py:picky"}, "on a crop of 112 × 112 px"),
        ({"crops": ["a.png", "same.png"]}, "are the same picture"),
        ({"extra": ["--out", "{folder}/a.png/sub"]}, "is a file; needed is a folder"),
        ({"model": "no.such.package:model"}, "cannot be imported"),
        ({"crops": ["missing.png"]}, "there is no such file"),
        ({"crops": ["my_models.py"]}, "this is no picture"),
        ({"extra": ["--layer", "lost"]}, "lost"),
        ({"extra": ["--layer", "project"]}, "no spatial map"),
        ({"extra": ["--preset", "slow"]}, "fast, default, best"),
        ({"extra": ["--fill", "pink"]}, "pink"),
        ({"extra": ["--fraction", "2"]}, "2"),
        ({"extra": ["--device", "abacus"]}, "cannot be used here"),
        ({"extra": ["--out", "{folder}"]}, "holds files already"),
        ({"extra": ["--out", "{folder}/a.png"]}, "is a file"),
    ],
)
def test_wrong_input(folder, change, message):
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


def test_a_crop_is_never_among_its_own_references(folder):
    """A shell's *.png repeats the probe."""
    arguments = [folder / "a.png", folder / "a.png", folder / "b.png", "--model", f"{folder}/my_models.py:small"]
    invoke("explain", *arguments, "--preset", "fast", "--out", folder / "out")
    regions = pd.read_csv(folder / "out" / "regions.csv")
    assert regions["image"].nunique() == 2


def test_crops_of_two_sizes(folder):
    Image.new("RGB", (50, 60)).save(folder / "small.png")
    with pytest.raises(ValueError, match=r"small\.png: 50 × 60 px, but .*a\.png has 112 × 112"):
        invoke("explain", folder / "a.png", folder / "small.png", "--model", f"{folder}/my_models.py:small")


def test_demo_is_made_of_the_same_page(tmp_path, monkeypatch):
    """With a network of three steps; `make demo` is the real one."""
    from functools import partial

    import captum_leam.synthetic as synthetic

    monkeypatch.setattr(synthetic, "train", partial(synthetic.train, steps=3, batch_size=4))
    invoke("demo", "--out", tmp_path / "demo", "--people", 3)
    page = (tmp_path / "demo" / "index.html").read_text()
    assert all(f"Evidence planted in the {part}" in page for part in ("nose", "eyes", "mouth"))
    assert "its decision between two people flips in" in page
    assert len(list((tmp_path / "demo").glob("*.csv"))) == 6


@pytest.mark.real
@pytest.mark.parametrize("name", ["ms1m", "casia"])
def test_real_faces(real_dir, tmp_path, name):
    """The page of a real person: the critical pixels lie on the face, and matter more than random ones."""
    crops = sorted((real_dir / "faces" / "s01").glob("*.png"))
    invoke("explain", *crops, "--model", f"{real_dir}/models.py:{name}", "--out", tmp_path / "out")
    regions = pd.read_csv(tmp_path / "out" / "regions.csv")
    found = regions.groupby("region")[["share", "area"]].mean()
    assert found.loc[["background", "outline"], "share"].sum() < 0.1
    features = found.loc[["nose", "brows", "eyes", "mouth"]].sum()
    assert features["share"] > 2 * features["area"]
    drops = pd.read_csv(tmp_path / "out" / "drops.csv").query("fraction == 0.05")
    ours = drops.loc[drops["method"] == "LEAM, overall map", "drop"].mean()
    assert ours > 3 * drops.loc[drops["control"] == "random pixels", "drop"].mean()


# -- photographs and pairs -----------------------------------------------------------------------------


def test_two_crops_are_a_pair(folder):
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
    invoke(*arguments, "--threshold", 0.2, "--out", out)
    page = (out / "index.html").read_text()
    assert re.search(r"Cosine 0\.\d{3}: accepted at threshold 0\.2 \(margin \+0\.\d{3}\)", page)
    assert page.count("against the match</figcaption>") == 2
    with pytest.raises(ValueError, match="--threshold decides about two pictures; there are 1"):
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


def test_pictures_are_one_of_three_kinds(folder):
    with pytest.raises(ValueError, match="--pictures is 'faces'"):
        invoke("explain", folder / "a.png", "--model", f"{folder}/my_models.py:small", "--pictures", "faces")


@pytest.mark.real
@pytest.mark.parametrize(
    "model",
    [("models.py:ms1m",), ("mobilefacenet_ms1m_fixed_batch.onnx", "--preprocessing", "imagenet")],
    ids=["native", "onnx"],
)
def test_from_raw_photographs_to_the_face_on_them(real_dir, tmp_path, model):
    """Two photographs of one person: accepted, and the map lies on the face in the original photograph."""
    pytest.importorskip("facexlib")
    from captum_leam.faces import FaceAligner

    photos = [real_dir / "photos" / name for name in ("img20.jpg", "img21.jpg")]
    where, *more = model
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
