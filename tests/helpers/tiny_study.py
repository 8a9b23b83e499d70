"""A study of seconds: synthetic faces of 48 px, two small untrained networks."""

from pathlib import Path

import torch
import yaml
from PIL import Image

from captum_leam.synthetic import SyntheticPopulation

MODELS = '''
import torch
from torch import nn

PX = 48


class Small(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(width, 2 * width, 3, 2, 1), nn.ReLU())
        self.head = nn.Linear(2 * width * (PX // 4) ** 2, 16)

    def forward(self, x):
        return self.head(self.body(self.stem(2 * x - 1)).flatten(1))


def one():
    torch.manual_seed(1)
    return Small(4)


def two():
    torch.manual_seed(2)
    return Small(6)


class Touchy(Small):
    """Raises on a batch with a nearly white image."""

    def forward(self, x):
        if bool((x.mean((1, 2, 3)) > 0.97).any()):
            raise RuntimeError("too bright for me")
        return super().forward(x)


def touchy():
    torch.manual_seed(1)
    return Touchy(4)


def flat():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * PX * PX, 8))
'''


def write_faces(folder: Path, people: int = 5, images: int = 3, px: int = 48) -> Path:
    """``folder/faces/pNN/M.png`` of synthetic people."""
    faces = SyntheticPopulation(people, seed=3).sample(images, seed=4)
    small = torch.nn.functional.interpolate(faces.images, (px, px), mode="bilinear", antialias=True)
    for i, (image, person) in enumerate(zip(small, faces.people.tolist(), strict=True)):
        path = folder / "faces" / f"p{person:02d}" / f"{i % images}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image.movedim(0, -1) * 255).round().byte().numpy()).save(path)
    return folder / "faces"


def write_study(folder: Path, **changes: object) -> Path:
    """A configuration beside its faces and models; its path."""
    if not (folder / "faces").exists():
        write_faces(folder)
    (folder / "nets.py").write_text(MODELS)
    settings: dict[str, object] = {
        "people": "faces",
        "models": {"one": "nets.py:one", "two": "nets.py:two"},
        "preset": "layers",
        "leam": {"n_steps": 1},
        "fractions": [0.02, 0.1],
        "pictures": {"how": "crops", "size": 48},
        "patterns": {"fraction": 0.05, "grid": 12, "permutations": 19, "resamples": 100},
        "controls": ["random pixels", "moved", "other people"],
        "shard_size": 6,
        "batch_size": 4,
        "min_group": 3,
        **changes,
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in settings.items() if v is not None}))
    return path


def tables_of(out: Path) -> dict[str, bytes]:
    """Everything that must be the same again: tables and maps, byte by byte."""
    files = [*(out / "tables").iterdir(), *(out / "maps").rglob("*.npz")]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(files)}
