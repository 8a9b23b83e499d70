"""Faces and networks of a data folder: one loader for every benchmark.

The folder holds ``faces/PERSON/*.png`` (aligned RGB crops) and ``models.py`` with ``RECOGNISERS``, name → function that returns a module;
a ``zoo.py`` with ``ZOO`` of the same form takes its place. ``faces_colour/PERSON/*.png``, ``masks/NN.png`` with ``NN_labels.png``,
``photos`` with the detector's weights, and ``parser()`` of ``models.py`` are read where a benchmark says so. Nothing in a benchmark
depends on the name of a network or a layer.
"""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F
from contest import OWN, SAME_ARCHITECTURE, TRANSFER
from torch import Tensor, nn

from captum_leam import leave_one_out_centroids
from captum_leam.faces import FaceAligner, read_crops, read_faces
from captum_leam.faithfulness import OcclusionResult
from captum_leam.objectives import embed


def _load_module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_parser(folder: Path) -> nn.Module:
    """Return the face parser of the folder in evaluation mode."""
    return _load_module(folder / "models.py").parser().eval()


def load_zoo(folder: Path) -> dict[str, Callable[[], nn.Module]]:
    """Return name → function that makes the network: ``ZOO`` of zoo.py, or else ``RECOGNISERS`` of models.py."""
    if (folder / "zoo.py").is_file():
        return dict(_load_module(folder / "zoo.py").ZOO)
    return dict(_load_module(folder / "models.py").RECOGNISERS)


def load_networks(folder: Path, names: Sequence[str] | None = None) -> dict[str, nn.Module]:
    """Return name → network, channels last in memory: the same numbers to rounding in two thirds of the time.

    Args:
        folder: Folder with the networks.
        names: Names of the networks. Default: all of them.
    """
    zoo = load_zoo(folder)
    return {name: zoo[name]().eval().to(memory_format=torch.channels_last) for name in names or zoo}


def load_faces(
    folder: Path, people: int | None = None, per_person: int | None = None, *, name: str = "faces"
) -> tuple[Tensor, list[str]]:
    """Return crops (N, 3, H, W) in [0, 1] and the person of each.

    Args:
        folder: Folder with the faces.
        people: Number of people, the first by name. Default: all.
        per_person: Number of images of each person. Default: all.
        name: ``"faces"`` or ``"faces_colour"``.
    """
    chosen = [sorted(p.glob("*.png"))[:per_person] for p in sorted((folder / name).iterdir())[:people]]
    paths = [path for person in chosen for path in person]
    return read_crops(paths).contiguous(memory_format=torch.channels_last), [path.parent.name for path in paths]


def load_single_faces(folder: Path, people: int | None = None, *, name: str) -> tuple[Tensor, list[str]]:
    """Return crops (N, 3, H, W) in [0, 1] of pictures that are the only ones of their people, and the names of their files.

    Args:
        folder: Folder with the faces.
        people: Number of pictures, the first by name. Default: all.
        name: ``"masks"``, aligned crops, or ``"photos"``, photographs, of which the largest face is aligned.
    """
    paths = sorted(path for path in (folder / name).iterdir() if not path.stem.endswith("_labels"))[:people]

    def aligner() -> FaceAligner:
        (detector,) = folder.glob("detection_*.pth")
        return FaceAligner(weights=detector)

    sources = read_faces(paths, aligner, "photos" if name == "photos" else "crops")
    crops = torch.stack([source.crop for source in sources])
    return crops.contiguous(memory_format=torch.channels_last), [path.stem for path in paths]


def are_single(people: Sequence[str]) -> bool:
    """Return whether there is one image of each person."""
    return len(set(people)) == len(people)


def references_of(embeddings: Tensor, people: Sequence[str]) -> Tensor:
    """Return leave-one-out centroids (N, D), or the embeddings themselves if there is one image of each person."""
    return embeddings if are_single(people) else leave_one_out_centroids(embeddings, people)


# -- what networks have in common ----------------------------------------------------------------------


def architecture(model: nn.Module) -> str:
    """Return the name of a network's architecture: its class, or those of its parts for a sequence.

    Example:
        >>> architecture(nn.Sequential(nn.Flatten(), nn.Linear(2, 2)))
        'Flatten, Linear'
    """
    if isinstance(model, nn.Sequential):
        return ", ".join(architecture(part) for part in model)
    return type(model).__name__


def relation(networks: Mapping[str, nn.Module], explained: str, measured: str) -> str:
    """Return how a drop counts: own, transfer, or same architecture."""
    if explained == measured:
        return OWN
    same = architecture(networks[explained]) == architecture(networks[measured])
    return SAME_ARCHITECTURE if same else TRANSFER


def gap(embeddings: Tensor, references: Tensor, people: Sequence[str]) -> float:
    """Return the mean cosine of images to their own reference less that to the references of other people.

    Args:
        embeddings: Embeddings (N, D).
        references: References (N, D) of the images, see :func:`references_of`.
        people: Person of each image.
    """
    f, r = (F.normalize(t.double(), dim=1) for t in (embeddings, references))
    who = np.asarray(people)
    strangers = torch.from_numpy(who[:, None] != who[None])
    cosines = f @ r.T
    return float(cosines.diagonal().mean() - cosines[strangers].mean())


def gap_of(model: nn.Module, images: Tensor, people: Sequence[str]) -> float:
    """Return the gap of a network on these images."""
    embeddings = embed(model, images, 16)
    return gap(embeddings, references_of(embeddings, people), people)


def own_and_transfer(
    result: OcclusionResult, networks: Mapping[str, nn.Module], gaps: Mapping[str, float]
) -> OcclusionResult:
    """Return drops in gaps on the explained network (own) and their mean over the networks of other architectures (transfer).

    Args:
        result: Drops of maps of one network or several, measured on ``networks``.
        networks: Name → network.
        gaps: Name → gap.
    """
    table = result.to_frame()
    where = [relation(networks, *names) for names in table[["explained", "model"]].itertuples(index=False, name=None)]
    table["drop"] /= table["model"].map(gaps)
    table = table.assign(model=where)[np.array(where) != SAME_ARCHITECTURE]
    keys = [column for column in table.columns if column not in ("drop", "changed")]
    means = table.groupby(keys, sort=False)[["drop", "changed"]].mean().reset_index()
    return OcclusionResult(means[list(table.columns)], result.settings)
