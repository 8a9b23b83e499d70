"""Read the pictures of a shard: crops, region labels and the embeddings of all networks."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from captum_leam._engine.memory import is_out_of_memory, warn_of_reduced_batch
from captum_leam._storage import Shard, file_sha256, read_shard
from captum_leam._text import as_text
from captum_leam.errors import FileError, ReliabilityWarning
from captum_leam.faces import FaceSource, read_faces
from captum_leam.faces.copies import Thumbnails, copies, shows_same_face, thumbnails_of
from captum_leam.objectives import leave_one_out_centroids
from captum_leam.study.listing import Picture, too_few
from captum_leam.study.worker import Worker

Failure = tuple[str, str, int, str]
"""Stage, model ("" for all), index of the picture in its shard, reason."""

UNALIGNED = "If it is not an aligned crop, set pictures: photos"

# -- reading -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Read:
    """One picture, or the reason why it was not read."""

    picture: Picture
    source: FaceSource | None
    reason: str = ""


def read_one(picture: Picture, worker: Worker) -> Read:
    """Read one face of one file; every fault of the file becomes its reason."""
    config = worker.config
    try:
        if file_sha256(picture.path) != picture.sha256:
            return Read(picture, None, "the file changed while the study ran; run again")
        (source,) = read_faces([picture.path], worker.aligner, config.pictures.how)  # type: ignore[arg-type]
        size = config.pictures.size
        if tuple(source.crop.shape[1:]) != (size, size):
            height, width = source.crop.shape[1:]
            return Read(
                picture,
                None,
                f"the crop has {width} × {height} px; the study's have {size} (pictures.size). {UNALIGNED}",
            )
        return Read(picture, source)
    except ImportError:
        raise
    except OSError as error:
        return Read(picture, None, f"the file cannot be read ({error.strerror})")
    except FileError as error:
        return Read(picture, None, as_text(error.reason))
    except Exception as error:  # a broken file raises nearly anything; the study goes on without it
        return Read(picture, None, as_text(str(error)) or type(error).__name__)


def read_ahead(pictures: Sequence[Picture], worker: Worker) -> Iterator[Read]:
    """Yield pictures in order, the next ones decoded while the caller works on one."""
    with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(worker.config.threads,)) as reader:
        yield from reader.map(lambda picture: read_one(picture, worker), pictures)


# -- the stage -----------------------------------------------------------------------------------------


def crops_shard(worker: Worker, pictures: Sequence[Picture]) -> Shard:
    """Return crops, labels and embeddings of whole people.

    Arrays: ``kept`` (n,), which of ``pictures`` these are; ``crops`` (n, 3, H, W), uint8 where that is exact; ``labels`` (n, H, W), or of a
    parser that gives all crops the same, (1, H, W); ``embedding.I`` and ``reference.I`` (n, D) of network I, NaN where it raised or there
    is none; ``landmarks`` (n, 5, 2) on the crop, NaN for crops without; ``thumbnails``, ``photographs`` and ``boxes``, by which
    copies are found (:class:`~captum_leam.faces.copies.Thumbnails`). Notes: ``failed``: stage, model, index in ``pictures`` and reason;
    ``how`` each was read; ``faces`` found and ``turns`` of photographs, -1 for crops; ``people``, whose they are.
    """
    config = worker.config
    read = list(read_ahead(pictures, worker))
    failed: list[Failure] = [("read", "", i, r.reason) for i, r in enumerate(read) if r.source is None]
    count = Counter(r.picture.person for r in read if r.source is not None)
    few = {person: too_few(person, n, config.min_images) for person, n in count.items() if n < config.min_images}
    lonely = [
        (i, few[r.picture.person]) for i, r in enumerate(read) if r.source is not None and r.picture.person in few
    ]
    failed += [("read", "", i, reason) for i, reason in lonely]
    kept = [i for i, r in enumerate(read) if r.source is not None and r.picture.person not in few]
    good = [read[i] for i in kept]
    size = config.pictures.size
    none = torch.zeros(0, 3, size, size, device="cpu", dtype=torch.float32)
    crops = torch.stack([r.source.crop for r in good if r.source]) if good else none
    how = ["crop" if _is_crop(r) else "photograph" for r in good]
    faces = [r.source.face for r in good if r.source]
    notes: dict[str, Any] = {
        "failed": failed,
        "how": how,
        "faces": [-1 if face is None else face.found for face in faces],
        "turns": [-1 if face is None else face.turn for face in faces],
        "people": [r.picture.person for r in good],
    }
    small = thumbnails_of([r.source for r in good if r.source])
    arrays: dict[str, NDArray[Any]] = {
        "kept": np.array(kept, dtype=np.int32),
        "crops": _compact(crops),
        "landmarks": np.stack([_landmarks(r) for r in good]) if good else np.zeros((0, 5, 2)),
        "thumbnails": small.crops.numpy(),
        "photographs": small.photographs.numpy(),
        "boxes": small.boxes.numpy(),
        "labels": worker.labels(crops),
    }
    for i, network in enumerate(worker.networks):
        embeddings, lost = embedded(worker, worker.module(network), crops.to(config.device))
        arrays[f"embedding.{i}"] = embeddings
        arrays[f"reference.{i}"] = references_of(embeddings, notes["people"])
        failed += [("embed", network.name, kept[row], reason) for row, reason in lost]
    return Shard(arrays, notes)


def _is_crop(read: Read) -> bool:
    return read.source is not None and read.source.face is None


def _compact(crops: Tensor) -> NDArray[Any]:
    """Return crops as uint8 where that loses nothing, as for pictures of 8 bits; as float32 otherwise."""
    eight = (crops * 255).round()
    exact = bool(torch.equal(eight / 255, crops))
    return eight.to(torch.uint8).numpy() if exact else crops.numpy()


def _landmarks(read: Read) -> NDArray[np.float64]:
    face = None if read.source is None else read.source.face
    return np.full((5, 2), np.nan) if face is None else np.asarray(face.crop_landmarks, dtype=np.float64)


# -- copies --------------------------------------------------------------------------------------------


def find_copies(worker: Worker, shards: Sequence[Sequence[Picture]], paths: Sequence[Path]) -> dict[int, Picture]:
    """Find the pictures that show the same as an earlier one of the study, whoever they are said to be of.

    Args:
        worker: Worker of this process.
        shards: Pictures of each shard.
        paths: Shards of crops.

    Returns:
        Number of a picture → the first picture that shows the same.
    """
    pictures: list[Picture] = []
    parts: list[list[Tensor]] = [[], [], []]
    for of_shard, path in zip(shards, paths, strict=True):
        shard = read_shard(path)
        pictures += [of_shard[i] for i in shard["kept"]]
        for part, name in zip(parts, ("thumbnails", "photographs", "boxes"), strict=True):
            part.append(torch.from_numpy(shard[name]))

    def confirm(later: int, earlier: int) -> bool:
        one, other = (read_one(pictures[i], worker).source for i in (earlier, later))
        return one is not None and other is not None and shows_same_face(one, other)

    found = copies(Thumbnails(*[torch.cat(part) for part in parts]), confirm) if pictures else {}
    return {pictures[later].number: pictures[earlier] for later, earlier in found.items()}


# -- networks on batches, and what they refuse ---------------------------------------------------------


def bisect_failures(
    function: Callable[[NDArray[np.intp]], Any], rows: NDArray[np.intp]
) -> Iterator[tuple[NDArray[np.intp], Any, str]]:
    """Yield the result of a function of rows; where it raises, of halves of them, down to the single row that is to blame.

    Memory that is used up is no picture's fault: it is told, and where one row alone does not fit, raised.

    Yields:
        Rows, what the function made of them, and ``""``; or one row, None, and the reason.

    Example:
        >>> def halves(rows):
        ...     return 1 / (rows - 2.0) if not (rows == 2).any() else 1 / 0
        >>> [(rows.tolist(), reason) for rows, made, reason in bisect_failures(halves, np.arange(4))]
        [([0, 1], ''), ([2], 'ZeroDivisionError: division by zero'), ([3], '')]
    """
    try:
        made = function(rows)
    except Exception as error:  # whatever a user's network raises concerns these images, not the study
        lacking = is_out_of_memory(error)
        if len(rows) > 1:
            middle = len(rows) // 2
            if lacking:
                warn_of_reduced_batch(f"{len(rows)} images", middle)
            yield from bisect_failures(function, rows[:middle])
            yield from bisect_failures(function, rows[middle:])
            return
        if lacking:
            raise
        lines = str(error).strip().splitlines()
        yield rows, None, f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:500]
        return
    yield rows, made, ""


def take_rows(tensor: Tensor, rows: NDArray[np.intp]) -> Tensor:
    """Return rows of a tensor; all of them without a copy.

    Example:
        >>> whole = torch.rand(3, 2)
        >>> take_rows(whole, np.arange(3)) is whole, take_rows(whole, np.array([2])).shape
        (True, torch.Size([1, 2]))
    """
    return tensor if len(rows) == len(tensor) else tensor[torch.from_numpy(rows)]


def batches(count: int, size: int) -> list[NDArray[np.intp]]:
    """Return the rows of the batches that a shard is run in.

    Example:
        >>> [rows.tolist() for rows in batches(5, 2)]
        [[0, 1], [2, 3], [4]]
    """
    return [np.arange(start, min(start + size, count)) for start in range(0, count, size)]


def embedded(worker: Worker, module: nn.Module, crops: Tensor) -> tuple[NDArray[np.float32], list[tuple[int, str]]]:
    """Return the embeddings (n, D) of crops, NaN where the network raised, and these rows with the reason."""
    lost: list[tuple[int, str]] = []
    found: dict[int, NDArray[np.float32]] = {}
    for rows in batches(len(crops), worker.config.batch_size):
        for part, made, reason in bisect_failures(lambda r: worker.embed(module, take_rows(crops, r)), rows):
            if made is None:
                lost.append((int(part[0]), reason))
            else:
                found.update(zip(part.tolist(), made.float().cpu().numpy(), strict=True))
    size = len(next(iter(found.values()))) if found else 1
    whole = np.full((len(crops), size), np.nan, dtype=np.float32)
    for row, values in found.items():
        whole[row] = values
    return whole, lost


def references_of(embeddings: NDArray[np.float32], people: Sequence[str]) -> NDArray[np.float32]:
    """Return leave-one-out centroids (n, D) of each person's images; NaN where there is no other, or no direction.

    Example:
        >>> few = np.array([[1, 0], [0, 1], [1, 1]], np.float32)
        >>> references_of(few, ["ann", "ann", "bob"]).tolist()
        [[0.0, 1.0], [1.0, 0.0], [nan, nan]]
    """
    references = np.full_like(embeddings, np.nan)
    usable = np.isfinite(embeddings).all(1)
    names = np.array(people, dtype=object)
    for person in dict.fromkeys(people):
        rows = np.flatnonzero((names == person) & usable)
        if len(rows) > 1:
            try:
                of_person = _centroids_of_person(embeddings[rows])
            except ValueError:  # an embedding of zeros, or images that cancel each other
                continue
            references[rows] = of_person.numpy()
    return references


def _centroids_of_person(embeddings: NDArray[np.float32]) -> Tensor:
    with warnings.catch_warnings():
        # Equal embeddings are warned of by rows of this array, which the user does not know. Copies are found by their pictures.
        warnings.simplefilter("ignore", ReliabilityWarning)
        return leave_one_out_centroids(torch.from_numpy(embeddings.copy()), [0] * len(embeddings))
