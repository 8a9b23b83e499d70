"""Run a study on a device without hardware, and print as JSON which tables differ and how often something was brought back.

python -m tests.helpers.elsewhere_study FOLDER
"""

import json
import sys
import warnings
from dataclasses import replace
from pathlib import Path

from captum_leam.study import Study
from captum_leam.study.config import Config
from tests.helpers.elsewhere import DEVICE, Elsewhere, copies_back
from tests.helpers.tiny_study import tables_of, write_faces, write_study

NETS = """
import torch
from torch import nn


def smooth(width):
    \"\"\"Without BatchNorm, whose statistics PyTorch cannot set on a device that is written in Python.\"\"\"
    torch.manual_seed(width)
    body = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.Softplus(), nn.Conv2d(width, width, 3, 2, 1), nn.Softplus())
    return nn.Sequential(body, nn.Flatten(), nn.Linear(width * 12 * 12, 16))


def one():
    return smooth(4)


def two():
    return smooth(6)
"""


def config_of(folder: Path, images: int) -> Config:
    """A study of which all images are one shard and one batch."""
    folder.mkdir()
    write_faces(folder, people=3, images=images)
    path = write_study(
        folder,
        preset="fast",
        leam={"n_steps": 2},
        fills=["blur", "noisy linear"],
        controls=["random pixels", "random field", "centre", "edges", "moved", "other people"],
        shard_size=32,
        batch_size=32,
        store_maps="all",
    )
    (folder / "nets.py").write_text(NETS)
    return Study(path).config


def differing(config: Config) -> list[str]:
    """Names of the tables that are not the same bytes on the device as on the CPU; counts what is brought back."""
    here = replace(config, out=config.out.with_name("here"))
    Study(here).run(progress=False, report=False)
    copies_back.clear()
    with Elsewhere():
        Study(replace(config, device=str(DEVICE))).run(progress=False, report=False)
    expected, found = tables_of(here.out), tables_of(config.out)
    return [name for name in expected if found[name] != expected[name]]


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # of networks that are not trained
    found = {}
    for images in (2, 4):
        tables = differing(config_of(Path(sys.argv[1]) / str(images), images))
        found[str(images)] = {"tables": tables, "copies": dict(copies_back)}
    print(json.dumps(found))
