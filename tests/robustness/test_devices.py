"""Every public call on another device than the CPU: the same numbers, and no tensor meets one of the CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from torch.utils import backend_registration

from tests.helpers.public_calls import PUBLIC

ROOT = Path(__file__).resolve().parents[2]

NOT_TRIED = {
    **dict.fromkeys(["centroids", "swap_test"], "they give a network the faces of a population, which are on the CPU"),
    **dict.fromkeys(
        ["randomised", "sanity_checks", "untrained_maps"],
        "they set the statistics of BatchNorm, which PyTorch refuses on a device that is written in Python",
    ),
}
"""What is not tried elsewhere, and why."""


def on_another_device(*script: str) -> Any:
    """What a script of the helpers printed."""
    if not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
        pytest.skip("this version of PyTorch has no devices written in Python")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-m", *script], env=environment, capture_output=True, text=True, timeout=300)  # noqa: S603
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def problems() -> dict[str, str]:
    return on_another_device("tests.helpers.elsewhere")


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.parametrize("name", ["the device itself", *sorted(set(PUBLIC) - set(NOT_TRIED))])
def test_every_public_call_gives_the_same_on_another_device(name, problems):
    assert not problems[name]


@pytest.mark.slow
@pytest.mark.ci
def test_a_study_gives_the_same_on_another_device_and_brings_back_batches(tmp_path):
    """Tables are the same bytes, and twice as many images in a batch are read back as often: per batch, not per image."""
    pytest.importorskip("pyarrow", reason="studies need pip install 'captum-leam[study]'")
    found = on_another_device("tests.helpers.elsewhere_study", str(tmp_path))
    assert {images: study["tables"] for images, study in found.items()} == {"2": [], "4": []}
    assert found["2"]["copies"] == found["4"]["copies"]
    assert sum(found["4"]["copies"].values()) > 100
