"""A study knows its networks and its parser by what they compute: other results start it anew, another processor's rounding does not."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_leam.errors import ConfigError, IncompleteError
from captum_leam.reporting.findings import read_findings
from captum_leam.reporting.study_report import warnings_of
from captum_leam.study import Study, StudyResult
from captum_leam.study.config import Model
from captum_leam.study.identity import distance, fixed_images, outputs_of
from captum_leam.study.networks import identify
from captum_leam.study.worker import Worker
from tests.helpers.tiny_study import tables_of, write_study

NET = """
import os
import numpy as np
import torch
from pathlib import Path
from torch import nn
from prep import SIGN

FOLDER = Path(__file__).parent

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(3, 4, 3, 2, 1), nn.Linear(4 * 24 * 24, 16)
        nn.init.normal_(self.conv.weight)

    def forward(self, x):
        from late import GAIN
        mean = float((FOLDER / "mean.txt").read_text())
        x = SIGN * GAIN * (x - mean) * float(os.environ.get("TEST_GAIN", "1"))
        return self.head(self.conv(x).relu().flatten(1))
"""
PARSER = """
import torch
from captum_leam.regions import RegionScheme
from edge import EDGE

class Halves:
    scheme = RegionScheme({0: "background", 1: "top"}, name="halves")

    def __call__(self, images):
        labels = torch.zeros(len(images), *images.shape[2:], dtype=torch.long)
        labels[:, :EDGE] = 1
        return labels
"""
SMALL = {
    "fractions": [0.1],
    "layer_fractions": [],
    "controls": ["random pixels"],
    "patterns": {"fraction": 0.05, "grid": 12, "permutations": 19, "resamples": 100, "controls": []},
}


def write_repository(folder: Path, **files: str) -> None:
    folder.mkdir(exist_ok=True)
    content = {"net.py": NET, "prep.py": "SIGN = 1.0\n", "late.py": "GAIN = 1.0\n", "mean.txt": "0.5"} | files
    for name, text in content.items():
        (folder / name).write_text(text)


def run(path: Path, **changes):
    return Study(replace(Study(path).config, **changes)).run(progress=False, report=False)


def shards_made(result) -> int:
    return sum(result.manifest["run"]["shards made"].values())


@pytest.fixture
def study(tmp_path) -> Path:
    """A finished study of a network whose behaviour lies in several files, and of a parser of two."""
    write_repository(tmp_path / "repository", **{"halves.py": PARSER, "edge.py": "EDGE = 24\n"})
    models = {"a": "repository/net.py:Net"}
    path = write_study(tmp_path, models=models, parser="repository/halves.py:Halves", **SMALL)
    assert shards_made(run(path))
    return path


CHANGES = {
    "a module beside the file": lambda r, m: (r / "prep.py").write_text("SIGN = -1.\n"),
    "a module imported in forward": lambda r, m: (r / "late.py").write_text("GAIN = 3.0\n"),
    "a file of data": lambda r, m: (r / "mean.txt").write_text("0.2"),
    "an environment variable": lambda r, m: m.setenv("TEST_GAIN", "2"),
    "an installed package": lambda r, m: m.setattr(torch.Tensor, "relu", torch.Tensor.tanh),
    "the parser's module": lambda r, m: (r / "edge.py").write_text("EDGE = 12\n"),
}


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_results_starts_the_study_anew(study, monkeypatch, tmp_path, change):
    before = tables_of(study.parent / "results")
    CHANGES[change](study.parent / "repository", monkeypatch)
    checked = Study(study).check(recompute=0, progress=False)
    assert ("WRONG: parser: another" if "parser" in change else "WRONG: networks: others: a") in repr(checked)
    assert shards_made(run(study)) > 0
    assert tables_of(study.parent / "results") == tables_of(run(study, out=tmp_path / "new").folder) != before
    assert Study(study).check(progress=False).passed


def test_a_change_within_rounding_keeps_the_results(study, monkeypatch):
    """And a change that is taken back finds the shards from before."""
    before = tables_of(study.parent / "results")
    monkeypatch.setenv("TEST_GAIN", "1.000001")
    assert shards_made(run(study)) == 0
    assert tables_of(study.parent / "results") == before
    assert Study(study).check(progress=False).passed
    monkeypatch.setenv("TEST_GAIN", "2")
    assert shards_made(run(study)) > 0
    monkeypatch.delenv("TEST_GAIN")
    assert shards_made(run(study)) == 0
    assert tables_of(study.parent / "results") == before


@pytest.mark.slow
@pytest.mark.ci
def test_a_processor_with_other_instructions_keeps_the_results(study):
    """Drawn weights differ in their last bits there, too."""
    code = "import sys; from captum_leam.study import Study; Study(sys.argv[1]).run(progress=False, report=False)"
    other = {**os.environ, "ATEN_CPU_CAPABILITY": "default", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code, str(study)], env=other, check=True)  # noqa: S603
    assert shards_made(StudyResult(study.parent / "results")) == 0


def test_worker_processes_compare_outputs(study, monkeypatch, tmp_path):
    """A network that computes something else in a worker is an error, and no shard of it is written."""
    config = replace(Study(study).config, out=tmp_path / "out")
    real = Worker.identify

    def identify_and_change(self, *args):
        network = real(self, *args)
        self._modules.clear()
        monkeypatch.setenv("TEST_GAIN", "2")
        return network

    monkeypatch.setattr(Worker, "identify", identify_and_change)
    with pytest.raises(IncompleteError, match="Expected model 'a' to be unchanged since the study began, got another"):
        Study(config).run(progress=False, report=False)


@pytest.mark.slow
@pytest.mark.ci
def test_worker_processes_load_two_repositories(tmp_path):
    """Packages of the same name, in worker processes: each network is measured as it is alone."""
    for name, sign in (("A", 1.0), ("B", -1.0)):
        write_repository(tmp_path / name, **{"prep.py": f"SIGN = {sign}\n"})
    both = write_study(tmp_path, models={name: f"{name}/net.py:Net" for name in "AB"}, **SMALL)
    serial = run(both)
    parallel = Study(replace(Study(both).config, out=tmp_path / "out")).run(
        engine="processes", jobs=2, progress=False, report=False
    )
    assert tables_of(serial.folder) == tables_of(parallel.folder)
    cosines = {name: serial.table("scores", model=name)["cosine"] for name in "AB"}
    assert not np.allclose(cosines["A"], cosines["B"], atol=1e-3)
    assert serial.manifest["notes"] == []


def test_two_files_with_one_network_are_noted(tmp_path):
    for name in "AB":
        write_repository(tmp_path / name)
    result = run(write_study(tmp_path, models={name: f"{name}/net.py:Net" for name in "AB"}, **SMALL))
    (note,) = result.manifest["notes"]
    assert "A/net.py:Net) and B (" in note
    assert "return the same embeddings for fixed images" in note
    assert f"note: {note}" in repr(result)
    assert note in warnings_of(read_findings(result.folder))


def test_the_manifest_states_outputs_and_tolerance(study):
    told = Study(study).run(progress=False, report=False).manifest
    assert told["models"]["a"]["tolerance"] == 1e-4
    assert [len(row) for row in told["models"]["a"]["outputs"]] == [16, 16, 16]
    assert told["parser"]["tolerance"] == 0.01


def test_a_manifest_of_another_version_is_not_compared(study):
    path = study.parent / "results" / "manifest.json"
    told = json.loads(path.read_text())
    told |= {"models": {"a": {"sha256": "0"}}, "parser": "0", "format": 1}
    path.write_text(json.dumps(told))
    found = repr(Study(study).check(progress=False))
    assert "ok: inputs: not compared" in found
    assert "networks: others" not in found


# -- what no study can rely on ---------------------------------------------------------------------------

CHANCE = {
    "dropout": "nn.functional.dropout(e, 0.1, training=True)",
    "noise": "e + 0.01 * torch.randn_like(e)",
    "calls": "e * (1 + 0.1 * next(COUNT))",
    "numpy": "e + torch.from_numpy(np.random.rand(*e.shape)).float()",
}
COMPANY = {
    "batch mean": "e - e.mean(0)",
    "batch norm": "nn.functional.batch_norm(e, None, None, training=True)",
    "largest": "e / e.abs().max()",
    "reversed": "e.flip(0)",
    "sorted": "e[e[:, 0].argsort()]",
}
UNRELIABLE = """
import itertools
import numpy as np
import torch
from torch import nn
COUNT = itertools.count()
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Flatten(), nn.LazyLinear(8))
    def forward(self, x):
        e = self.net(x)
        return {}
"""


@pytest.mark.parametrize("what", [*CHANCE, *COMPANY])
def test_networks_with_random_or_batch_dependent_outputs_raise(tmp_path, what):
    (tmp_path / "net.py").write_text(UNRELIABLE.replace("{}", {**CHANCE, **COMPANY}[what]))
    said = "two passes over the same image" if what in CHANCE else "not to depend on the other images of its batch"
    with pytest.raises(ConfigError, match=rf"models\.a: Expected .*{said}"):
        identify(Model("a", f"{tmp_path}/net.py:Net"), "cpu", 32)


def test_a_parser_with_random_outputs_raises(tmp_path):
    code = "import torch\ndef parser(images): return torch.randint(0, 19, (len(images), *images.shape[2:]))\n"
    (tmp_path / "chance.py").write_text(code)
    with pytest.raises(ConfigError, match="parser: Expected two passes over the same image to agree"):
        run(write_study(tmp_path, parser="chance.py:parser", **SMALL))


def test_networks_that_raise_on_fixed_images_are_known_by_the_others():
    def bright(images):
        if float(images[0, 0, 0, 0]) == 0:  # the first
            raise RuntimeError("no face")
        return images.flatten(1)

    assert [len(row) for row in outputs_of(bright, fixed_images(8), 1e-4)] == [0, 16, 16]


def test_networks_that_need_two_images_are_known_by_a_batch():
    def squeezed(images):
        if len(images) == 1:
            raise ValueError("no batch left")
        return images.flatten(1)

    assert [len(row) for row in outputs_of(squeezed, fixed_images(8), 1e-4)] == [16] * 3
    with pytest.raises(ValueError, match="not to depend on the other images"):
        outputs_of(lambda images: squeezed(images) - images.flatten(1).mean(0), fixed_images(8), 1e-4)


@given(st.integers(0, 10**6), st.floats(-1e3, 1e3), st.floats(0.01, 100))
@settings(max_examples=50, deadline=None)
def test_every_map_of_embeddings_is_told_from_its_rounding(seed, offset, scale):
    """Rounding of float32 stays far below the tolerance, a change by a hundredth of the spread does not."""
    draw = np.random.default_rng(seed)
    matrix = torch.from_numpy(draw.normal(size=(3 * 64, 32)))
    embed = lambda dtype, m: lambda images: (images.flatten(1).to(dtype) @ m.to(dtype)) * scale + offset / 1e3  # noqa: E731
    exact, rounded, changed = (
        outputs_of(f, fixed_images(8), 1e-4)
        for f in (
            embed(torch.float64, matrix),
            embed(torch.float32, matrix),
            embed(torch.float64, matrix * (1 + 0.02 * torch.from_numpy(draw.normal(size=matrix.shape)))),
        )
    )
    assert distance(exact, rounded) < 1e-5
    assert distance(exact, changed) > 1e-3
