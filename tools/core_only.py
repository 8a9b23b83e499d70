"""Check that the package works without its extras and that every missing one names its command.

Run in a clean environment:

    make core

In an environment that has the extras, ``python tools/core_only.py --hide`` runs the same checks with their packages hidden.
"""

import argparse
import contextlib
import importlib.util
import io
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from captum_leam._optional import EXTRAS

WITH_CAPTUM = {"matplotlib", "PIL", "fsspec"}
"""Packages of extras that Captum or PyTorch needs, and that are therefore always there."""


class Hiding(MetaPathFinder):
    """Finder that passes on what another one finds, except packages of extras."""

    def __init__(self, finder: Any) -> None:
        self.finder = finder

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return the place of a module, or None for packages of extras."""
        if name.partition(".")[0] in EXTRAS.keys() - WITH_CAPTUM:
            return None
        found: ModuleSpec | None = self.finder.find_spec(name, path, target)
        return found


def check_core() -> None:
    """Run what needs no extra, on a small network; no package of an extra may be imported by it."""
    before = set(sys.modules)
    import torch
    from captum.attr import LayerGradCam
    from torch import nn

    from captum_leam import (
        LEAM,
        EmbeddingSimilarity,
        bhattacharyya,
        explain_faces,
        explain_pair,
        layer_maps,
        leave_one_out_centroids,
        suggest_layers,
        top_fraction,
    )
    from captum_leam.explainers import RISE, GradCAM
    from captum_leam.faithfulness import infidelity, occlude, sensitivity_max
    from captum_leam.synthetic import EmbeddingNet, SyntheticPopulation
    from captum_leam.verification import verify

    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, 4, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.Flatten(), nn.Linear(1568, 8)
    ).eval()
    faces, people = torch.rand(4, 3, 112, 112), ["ann", "ann", "bob", "bob"]
    references = leave_one_out_centroids(model(faces).detach(), people)
    maps = explain_faces(model, faces, reference=references)
    assert len(layer_maps(model, faces, [model[1], model[2]])) == 2
    assert LEAM(EmbeddingSimilarity(model, torch.randn(8)), model[1]).attribute(faces).shape == (4, 1, 28, 28)
    assert LayerGradCam(EmbeddingSimilarity(model, torch.randn(8)), model[1]).attribute(faces).shape == (4, 1, 28, 28)
    assert bhattacharyya(maps, maps).shape == (4, 4)
    assert occlude(faces, top_fraction(maps, 0.05), "blur").shape == faces.shape
    assert explain_pair(model, faces[:1], faces[1:2], preset="fast").score is not None
    assert len(suggest_layers(model, faces))
    assert GradCAM(model, model[1]).attribute(faces, reference=references).shape == (4, 1, 112, 112)
    assert RISE(model, masks=8).attribute(faces, reference=references).shape == (4, 1, 112, 112)
    assert verify(model, faces, people).genuine.size
    assert callable(infidelity)
    assert callable(sensitivity_max)
    assert EmbeddingNet().eval()(SyntheticPopulation(2).sample(1).images).shape == (2, 32)
    imported = {name.partition(".")[0] for name in set(sys.modules) - before}
    assert not imported & (EXTRAS.keys() - WITH_CAPTUM), imported & EXTRAS.keys()
    print("LEAM, objectives, maps, explainers, pairs and synthetic faces run without the extras")


def check_errors() -> None:
    """Use one thing of every extra: the error names the command that installs it."""
    import torch

    from captum_leam._stores import as_path
    from captum_leam.faces import FaceAligner
    from captum_leam.faithfulness import OcclusionEvaluator
    from captum_leam.models import facexlib_arcface, from_onnx
    from captum_leam.regions import FacexlibParser, TemplateParser

    faces, maps, people = torch.rand(4, 3, 112, 112), torch.rand(4, 112, 112), ["ann", "ann", "bob", "bob"]
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 112 * 112, 8)).eval()
    evaluator = OcclusionEvaluator(model, (0.05,), controls=("random pixels",))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "file"
        file.write_bytes(b"x")
        names_its_command("pandas", "report", lambda: evaluator.evaluate(faces, maps, labels=people))
        names_its_command("skimage", "report", lambda: TemplateParser()(faces))
        names_its_command("jinja2", "report", _render)
        names_its_command("onnx", "onnx", lambda: from_onnx(file))
        names_its_command("facexlib", "face", lambda: FaceAligner(weights=file))
        names_its_command("facexlib", "face", lambda: FacexlibParser(weights=file))
        names_its_command("facexlib", "face", lambda: facexlib_arcface(weights=file))
        names_its_command("pydantic", "study", _read_config)
        names_its_command("ray", "ray", _start_ray)
        names_its_command("s3fs", "cloud", lambda: as_path("s3://bucket").exists())


def _render() -> None:
    from captum_leam.reporting.page import Page

    Page("title", "lead", ()).render()


def _read_config() -> None:
    from captum_leam.study import read_config

    read_config("study.yaml")


def _start_ray() -> None:
    from captum_leam._optional import import_optional

    import_optional("ray.util.joblib")


def names_its_command(package: str, extra: str, call: Callable[[], object]) -> None:
    """Check that a call raises the error that names an extra's command, if the package is missing."""
    if importlib.util.find_spec(package) is not None:
        print(f"{package} is installed: its absence was not checked")
        return
    message = message_of(call)
    assert f'pip install "captum-leam[{extra}]"' in message, f"{package} is missing, and the message is {message!r}"
    print(message)


def message_of(call: Callable[[], object]) -> str:
    """Return the message of the ImportError that a call raises, or nothing."""
    try:
        call()
    except ImportError as error:
        return str(error)
    return ""


def check_command() -> None:
    """Run the command: without its extras it prints what installs them, and exits with status 2."""
    from captum_leam.__main__ import main

    if importlib.util.find_spec("typer") is not None:
        print("typer is installed: its absence was not checked")
        return
    printed, status = io.StringIO(), None
    try:
        with contextlib.redirect_stderr(printed):
            main()
    except SystemExit as end:
        status = end.code
    assert status == 2, status
    assert 'pip install "captum-leam[cli,report]"' in printed.getvalue(), printed.getvalue()
    print(printed.getvalue().strip())


def main() -> None:
    """Run the checks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hide", action="store_true", help="hide the packages of the extras, if they are installed")
    if parser.parse_args().hide:
        sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
    check_core()
    check_errors()
    check_command()


if __name__ == "__main__":
    main()
