"""Check that the package works without its extras and that every missing one names its command.

Run in a clean environment:

    make core

In an environment that has the extras, their part is skipped, in words.
"""

import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

import captum_leam
from captum_leam import LEAM, EmbeddingSimilarity, explain_faces
from captum_leam.faces import FaceAligner
from captum_leam.faithfulness import OcclusionEvaluator
from captum_leam.models import facexlib_arcface, from_onnx
from captum_leam.regions import FacexlibParser, TemplateParser, region_report


def leam_runs() -> None:
    """The README's example, on a small network."""
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, 4, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.Flatten(), nn.Linear(1568, 8)
    ).eval()
    faces, people = torch.rand(4, 3, 112, 112), ["ann", "ann", "bob", "bob"]
    maps = explain_faces(model, faces, layers=[model[1], model[2]])
    assert LEAM(EmbeddingSimilarity(model, torch.randn(8)), model[1]).attribute(faces).shape == (4, 1, 28, 28)
    parser = TemplateParser()
    assert len(region_report(maps, parser(faces), parser.scheme))
    assert len(OcclusionEvaluator(model, (0.05,)).evaluate(faces, maps, labels=people).summary())


def names_its_command(package: str, extra: str, call: Callable[[], object]) -> None:
    if importlib.util.find_spec(package) is not None:
        print(f"{package} is installed: nothing to see of its absence")
        return
    said = refusal(call)
    assert f'pip install "captum-leam[{extra}]"' in said, f"{package} is missing, and what was said is {said!r}"
    print(said)


def refusal(call: Callable[[], object]) -> str:
    try:
        call()
    except ImportError as error:
        return str(error)
    return ""


def main() -> None:
    print(f"captum-leam {captum_leam.__version__}")
    leam_runs()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "file"
        file.write_bytes(b"x")
        names_its_command("onnx", "onnx", lambda: from_onnx(file))
        names_its_command("facexlib", "face", lambda: FaceAligner(weights=file))
        names_its_command("facexlib", "face", lambda: FacexlibParser(weights=file))
        names_its_command("facexlib", "face", lambda: facexlib_arcface(weights=file))
    print("LEAM runs without the extras")


if __name__ == "__main__":
    main()
