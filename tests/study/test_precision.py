"""Forward passes in half precision, and the caller's autocast."""

from dataclasses import replace

import pytest
import torch

from captum_leam.errors import ConfigError
from captum_leam.study import Study
from tests.helpers.tiny_study import MODELS, tables_of, write_study

AUTOCAST_INSIDE = (
    MODELS
    + """

plain = Small.forward


def forward(self, x):
    with torch.autocast("cpu", torch.bfloat16):
        return plain(self, x)


Small.forward = forward
"""
)


def run(path, **changes):
    Study(replace(Study(path).config, **changes)).run(progress=False, report=False)


def test_bf16_is_autocast_in_the_forward_passes_and_nowhere_else(tmp_path):
    """The same bytes as from networks that switch autocast on in their forward, and other than without."""
    for name, models in (("around", MODELS), ("inside", AUTOCAST_INSIDE)):
        (tmp_path / name).mkdir()
        path = write_study(tmp_path / name, patterns={"permutations": 19, "resamples": 100, "controls": ["edges"]})
        (tmp_path / name / "nets.py").write_text(models)
    run(tmp_path / "around" / "study.yaml", precision="bf16")
    run(path)
    tables = tables_of(tmp_path / "around" / "results")
    assert tables == tables_of(tmp_path / "inside" / "results")
    run(tmp_path / "around" / "study.yaml", out=tmp_path / "float32")
    assert tables_of(tmp_path / "float32")["maps/mean.npz"] != tables["maps/mean.npz"]


def test_the_callers_autocast_does_not_reach_a_study(undisturbed, right, tmp_path):
    with torch.autocast("cpu", torch.bfloat16):
        run(undisturbed / "study.yaml", out=tmp_path / "out")
        assert torch.is_autocast_enabled("cpu")
    assert tables_of(tmp_path / "out") == right


def test_bf16_on_a_device_without_autocast_raises(undisturbed, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.amp, "is_autocast_available", lambda kind: False)
    with pytest.raises(ConfigError, match="precision: Expected float32 on device 'cpu', where PyTorch has no autocast"):
        run(undisturbed / "study.yaml", out=tmp_path / "out", precision="bf16")
