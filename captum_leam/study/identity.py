"""What identifies a network or a parser of a study: the code it was loaded from, and its outputs for fixed images.

Outputs change with everything that changes the results: code, weights, data files, environment variables, packages. They are compared
within a tolerance, because another processor rounds differently. Weights are not hashed for the same reason: drawn or computed weights
differ in their last bits between processors. Code is compared exactly, because it may treat some images unlike the fixed ones.
"""

import hashlib
import importlib.util
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from captum_leam._engine.memory import is_out_of_memory
from captum_leam._storage import file_sha256, hash_of, read_shard
from captum_leam._stores import AnyPath, as_path
from captum_leam.errors import BrokenFileError, CaptumLeamError

Rows = tuple[tuple[float, ...], ...]

VOLATILE = re.compile(r" at 0x[0-9a-f]+|(?<=captum_leam_folder_)\d+")
"""What differs in the representation of a module from one process to the next."""

BATCH_TOLERANCE = 0.05
"""How far an embedding may move with the other images of its batch: quantised networks scale by the largest value of a batch."""

PROJECTIONS = 16


@dataclass(frozen=True)
class Fingerprint:
    """The identity of a network or a parser.

    Attributes:
        code: SHA-256 of source files and of the modules' structure.
        outputs: Projections of the outputs for the fixed images, one row per image; empty for an image on which it raised.
        tolerance: Relative distance of outputs up to which two are the same.

    Example:
        >>> first, rounded = (Fingerprint("a", ((1.0, value), (value, 1.0)), 1e-4) for value in (0.5, 0.50001))
        >>> first.agrees(rounded), first.agrees(Fingerprint("b", first.outputs, 1e-4)), first.sha256 == rounded.sha256
        (True, False, False)
    """

    code: str
    outputs: Rows
    tolerance: float

    @property
    def sha256(self) -> str:
        """Name of this identity in the keys of shards."""
        return hash_of(self.code, self.outputs)

    def agrees(self, other: "Fingerprint") -> bool:
        """Return whether code and outputs are those of another fingerprint."""
        return self.code == other.code and distance(self.outputs, other.outputs) <= self.tolerance

    def to_dict(self) -> dict[str, Any]:
        """Return the fingerprint for the manifest."""
        return {"sha256": self.sha256, "code": self.code, "outputs": self.outputs, "tolerance": self.tolerance}


def from_dict(stored: Mapping[str, Any]) -> Fingerprint:
    """Return the fingerprint of an entry of a manifest.

    Example:
        >>> fingerprint = Fingerprint("a", ((1.0, 0.5), ()), 1e-4)
        >>> from_dict(fingerprint.to_dict()) == fingerprint
        True
    """
    return Fingerprint(stored["code"], tuple(map(tuple, stored["outputs"])), stored["tolerance"])


def read_fingerprints(folder: AnyPath) -> tuple[Fingerprint, ...]:
    """Return the fingerprints that runs into this folder have stored; damaged ones are skipped."""
    found = []
    paths: list[AnyPath] = list(folder.rglob("*.shard"))
    for path in sorted(paths, key=str):
        try:
            found.append(from_dict(read_shard(path).notes))
        except BrokenFileError:
            continue
    return tuple(found)


def as_known(fingerprint: Fingerprint, earlier: Iterable[Fingerprint]) -> Fingerprint:
    """Return the first of earlier fingerprints that agrees, so that the keys of shards stay; otherwise the fingerprint itself."""
    return next((other for other in earlier if other.agrees(fingerprint)), fingerprint)


def distance(first: Sequence[Sequence[float]], second: Sequence[Sequence[float]]) -> float:
    """Largest difference of two rows, relative to how far the rows lie apart (and a tenth of their length).

    Example:
        >>> distance([[1, 0], [0, 1]], [[1, 0], [0, 1]]), distance([[1, 0], [0, 1]], [[1, 0], []])
        (0.0, inf)
    """
    if [len(row) for row in first] != [len(row) for row in second]:
        return math.inf
    a, b = (np.array([row for row in rows if len(row)], dtype=np.float64) for rows in (first, second))
    apart = float(np.linalg.norm(a - b, axis=-1).max(initial=0))
    if not apart:
        return 0.0
    scale = np.linalg.norm(a - a.mean(0), axis=1).mean() + 0.1 * np.linalg.norm(a, axis=1).mean()
    return apart / float(scale) if scale else math.inf


# -- outputs for fixed images --------------------------------------------------------------------------


def fixed_images(size: int) -> Tensor:
    """Return a gradient, large tiles and noise (3, 3, size, size), of 8 bits, equal on every machine.

    Example:
        >>> fixed_images(8).shape, float(fixed_images(8)[0, 0, 0, 0])
        (torch.Size([3, 3, 8, 8]), 0.0)
    """
    place = np.arange(size)
    ramp = (place * 255 // max(size - 1, 1)).astype(np.uint8)
    across = np.broadcast_to(ramp, (size, size))
    images = [np.stack([across, across.T, across[:, ::-1]])]
    for tiles in (6, size):
        drawn = np.frombuffer(_fixed_bytes(3 * tiles**2), np.uint8).reshape(3, tiles, tiles)
        images.append(drawn[:, place[:, None] * tiles // size, place * tiles // size])
    return torch.from_numpy(np.stack(images)).float() / 255


def _fixed_bytes(count: int) -> bytes:
    return hashlib.shake_128(b"captum-leam").digest(count)


def outputs_of(function: Callable[[Tensor], Tensor], images: Tensor, tolerance: float) -> Rows:
    """Run a network or a parser on fixed images, and compare it with itself.

    Args:
        function: Images (n, 3, h, w) → features (n, D).
        images: One row of outputs is made of each.
        tolerance: Of two passes over the same image.

    Returns:
        Projections of the features; an empty row where the function raised.

    Raises:
        CaptumLeamError: If two passes over an image differ, or if its features depend on the other images of the batch.

    Example:
        >>> outputs_of(lambda images: torch.rand(len(images), 8), torch.rand(2, 3, 8, 8), 1e-4)
        Traceback (most recent call last):
            ...
        captum_leam.errors.CaptumLeamError: Expected two passes over the same image to agree, got outputs that differ by ...
    """
    with torch.random.fork_rng(devices=[]):
        alone = tuple(row for image in images for row in _rows(function, image[None]))
        again = _rows(function, images[:1])
        in_batch = _rows(function, images)
        few = alone if all(alone) else _rows(function, images[:2])  # some networks need two images
    difference = distance(alone, again + alone[1:])
    if difference > tolerance:
        raise CaptumLeamError(
            f"Expected two passes over the same image to agree, got outputs that differ by {difference:.2g} of their spread. Remove what "
            "is random in forward, such as functional dropout or noise."
        )
    difference = distance(few, in_batch[: len(few)]) if all(few) and all(in_batch) else 0.0
    if difference > BATCH_TOLERANCE:
        raise CaptumLeamError(
            "Expected the output for an image not to depend on the other images of its batch, got outputs that differ by "
            f"{difference:.2g} of their spread. Make forward treat every image by itself."
        )
    return alone if any(alone) else in_batch


def _rows(function: Callable[[Tensor], Tensor], images: Tensor) -> Rows:
    """Return projections of the features; empty rows where the function raises, as it may on images that are no faces."""
    try:
        features = function(images).double().cpu().numpy()
    except Exception as error:
        if is_out_of_memory(error) and len(images) == 1:  # a study may run images one by one
            raise
        return ((),) * len(images)
    bits = np.unpackbits(np.frombuffer(_fixed_bytes(features.shape[1] * PROJECTIONS // 8), np.uint8))
    signs = bits.reshape(features.shape[1], PROJECTIONS) * 2.0 - 1
    return tuple(tuple(float(f"{value:.6e}") for value in row) for row in features @ signs)


# -- code ----------------------------------------------------------------------------------------------


def weights_sha256(module: nn.Module) -> str:
    """SHA-256 of the parameters and buffers of a network.

    Example:
        >>> len(weights_sha256(nn.Linear(2, 2)))
        64
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        if isinstance(tensor, torch.Tensor):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def code_of(loaded: Any, sources: Iterable[str], *more: Any) -> str:
    """SHA-256 of the sources that something was loaded from, of its structure, and of anything else that JSON can hold.

    Example:
        >>> code_of(nn.Linear(2, 2), []) == code_of(nn.Linear(2, 2), []), code_of(nn.Linear(2, 2), []) == code_of(nn.Linear(2, 3), [])
        (True, False)
    """
    structure: list[Any] = []
    if isinstance(loaded, nn.Module):
        tensors = sorted((name, t) for name, t in loaded.state_dict().items() if isinstance(t, Tensor))
        structure = [VOLATILE.sub("", repr(loaded)), [[name, str(t.dtype), list(t.shape)] for name, t in tensors]]
    return hash_of(structure, sorted(sources), *more)


def named_file_sha256(where: str) -> list[str]:
    """SHA-256 of an ONNX file or of an installed module; files of code are recorded when they are imported."""
    named = where.rpartition(":")[0]
    if where.endswith(".onnx"):
        return [file_sha256(as_path(where))]
    try:
        spec = importlib.util.find_spec(named) if named and not named.endswith(".py") else None
    except (ImportError, ValueError):
        return []
    origin = Path(spec.origin) if spec is not None and spec.origin is not None else None
    return [file_sha256(origin)] if origin is not None and origin.is_file() else []
