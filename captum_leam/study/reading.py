"""Read the pictures of a shard: crops, region labels and the embeddings of all networks."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from captum_leam._engine.memory import is_out_of_memory, warn_of_reduced_batch
from captum_leam._storage import Shard, file_sha256
from captum_leam._stores import StoreError, local_file
from captum_leam._text import as_text
from captum_leam.errors import FileError, ReliabilityWarning
from captum_leam.faces import FaceSource, read_faces
from captum_leam.faces.copies import (
    Thumbnails,
    joined,
    match_copies,
    match_copies_of_many,
    shows_same_face,
    thumbnails_of,
)
from captum_leam.objectives import leave_one_out_centroids
from captum_leam.study.listing import Picture, too_few
from captum_leam.study.worker import Worker

Failure = tuple[str, str, int, str]
"""Stage, model ("" for all), index of the picture in its shard, reason."""

ALL_PAIRS = 5000
"""Pictures up to which the thumbnails of all pairs are compared; of more, those that are near each other by their low frequencies."""

UNALIGNED = "If it is not an aligned crop, set pictures: photos"

# -- reading -------------------------------------------------------------------------------------------


def read_one(picture: Picture, worker: Worker) -> FaceSource | str:
    """Read one face of one file; every fault of the file becomes the reason why it is left out."""
    config = worker.config
    try:
        with local_file(picture.path(config.people.folder)) as file:
            if file_sha256(file) != picture.sha256:
                return "the file changed while the study ran; run again"
            (source,) = read_faces([file], worker.aligner, config.pictures.how)  # type: ignore[arg-type]
    except (ImportError, StoreError):
        raise
    except OSError as error:
        return f"the file cannot be read ({error.strerror})"
    except FileError as error:
        return as_text(error.reason)
    except Exception as error:  # a broken file raises nearly anything; the study goes on without it
        return as_text(str(error)) or type(error).__name__
    size, (height, width) = config.pictures.size, source.crop.shape[1:]
    if (height, width) != (size, size):
        return f"the crop has {width} × {height} px; the study's have {size} (pictures.size). {UNALIGNED}"
    return source


# -- the stage -----------------------------------------------------------------------------------------


def _read_crop(picture: Picture, worker: Worker) -> tuple[FaceSource, Thumbnails] | str:
    """Read one face without its photograph, which may take over 100 MB, and its thumbnails; or why it is left out."""
    source = read_one(picture, worker)
    return source if isinstance(source, str) else (replace(source, photo=None), thumbnails_of([source]))


def crops_shard(worker: Worker, pictures: Sequence[Picture]) -> Shard:
    """Return crops, labels and embeddings of whole people.

    Arrays: ``kept`` (n,), which of ``pictures`` these are; ``crops`` (n, 3, H, W), uint8 where that is exact; ``labels`` (n, H, W), or of a
    parser that gives all crops the same, (1, H, W); ``embedding.I`` and ``reference.I`` (n, D) of network I, NaN where it raised or there
    is none; ``landmarks`` (n, 5, 2) on the crop, NaN for crops without; ``thumbnails``, ``photographs`` and ``boxes``, by which
    copies are found (:class:`~captum_leam.faces.copies.Thumbnails`). Notes: ``failed``: stage, model, index in ``pictures`` and reason;
    ``how`` each was read; ``faces`` found and ``turns`` of photographs, -1 for crops; ``people``, whose they are.
    """
    config = worker.config
    read = [_read_crop(picture, worker) for picture in pictures]
    readable = {i: found for i, found in enumerate(read) if not isinstance(found, str)}
    failed: list[Failure] = [("read", "", i, reason) for i, reason in enumerate(read) if isinstance(reason, str)]
    count = Counter(pictures[i].person for i in readable)
    few = {person: too_few(person, n, config.min_images) for person, n in count.items() if n < config.min_images}
    failed += [("read", "", i, few[pictures[i].person]) for i in readable if pictures[i].person in few]
    kept = [i for i in readable if pictures[i].person not in few]
    sources = [readable[i][0] for i in kept]
    faces = [source.face for source in sources]
    none = torch.zeros(0, 3, config.pictures.size, config.pictures.size, device="cpu", dtype=torch.float32)
    crops = torch.stack([source.crop for source in sources]) if sources else none
    notes: dict[str, Any] = {
        "failed": failed,
        "how": ["crop" if face is None else "photograph" for face in faces],
        "faces": [-1 if face is None else face.face_count for face in faces],
        "turns": [-1 if face is None else face.turn for face in faces],
        "people": [pictures[i].person for i in kept],
    }
    landmarks = [np.full((5, 2), np.nan) if face is None else np.asarray(face.crop_landmarks) for face in faces]
    small = joined([readable[i][1] for i in kept])
    arrays: dict[str, NDArray[Any]] = {
        "kept": np.array(kept, dtype=np.int32),
        "crops": _compact(crops),
        "landmarks": np.array(landmarks, dtype=np.float64).reshape(-1, 5, 2),
        "thumbnails": small.crops.numpy(),
        "photographs": small.photographs.numpy(),
        "boxes": small.boxes.numpy(),
        "labels": worker.labels(crops),
    }
    on_device = crops.to(config.device)
    for i, network in enumerate(worker.networks):
        embeddings, lost = embedded(worker, worker.module(network), on_device)
        arrays[f"embedding.{i}"] = embeddings
        arrays[f"reference.{i}"] = references_of(embeddings, notes["people"])
        failed += [("embed", network.name, kept[row], reason) for row, reason in lost]
    return Shard(arrays, notes)


def _compact(crops: Tensor) -> NDArray[Any]:
    """Return crops as uint8 where that loses nothing, as for pictures of 8 bits; as float32 otherwise."""
    eight = (crops * 255).round()
    exact = bool(torch.equal(eight / 255, crops))
    return eight.to(torch.uint8).numpy() if exact else crops.numpy()


# -- copies --------------------------------------------------------------------------------------------


def find_copies(worker: Worker, pictures: Sequence[Picture], read: Callable[[], Iterable[Shard]]) -> dict[int, Picture]:
    """Find the pictures that show the same as an earlier one of the study of any person.

    Args:
        worker: Worker of this process.
        pictures: Pictures that have a crop.
        read: Function that returns the shards of crops, one after the other.

    Returns:
        Number of a picture → the first picture that shows the same.
    """
    names = ("thumbnails", "photographs", "boxes")

    def parts() -> Iterator[Thumbnails]:
        for shard in read():
            yield Thumbnails(*(torch.from_numpy(shard[name]) for name in names))

    def confirm(later: int, earlier: int) -> bool:
        one, other = (read_one(pictures[i], worker) for i in (earlier, later))
        return not isinstance(one, str) and not isinstance(other, str) and shows_same_face(one, other)

    if len(pictures) > ALL_PAIRS:
        found = match_copies_of_many(parts, confirm)
    else:
        found = match_copies(joined(list(parts())), confirm) if pictures else {}
    return {pictures[later].number: pictures[earlier] for later, earlier in found.items()}


# -- networks on batches -------------------------------------------------------------------------------


def bisect_failures(
    function: Callable[[NDArray[np.intp]], Any], rows: NDArray[np.intp]
) -> Iterator[tuple[NDArray[np.intp], Any, str]]:
    """Apply a function to rows, and bisect them on errors to isolate the rows that raise.

    Too little memory is no fault of a row: a smaller batch is tried with a warning; one row that does not fit raises.

    Yields:
        Rows, the result of the function for them, and ``""``; or one row, None, and the reason.

    Example:
        >>> def halves(rows):
        ...     return 1 / (rows - 2.0) if not (rows == 2).any() else 1 / 0
        >>> [(rows.tolist(), reason) for rows, _, reason in bisect_failures(halves, np.arange(4))]
        [([0, 1], ''), ([2], 'ZeroDivisionError: division by zero'), ([3], '')]
    """
    try:
        result = function(rows)
    except Exception as error:  # whatever a user's network raises concerns these images, not the study
        is_too_large = is_out_of_memory(error)
        if len(rows) == 1:
            if is_too_large:
                raise
            lines = str(error).strip().splitlines()
            yield rows, None, f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:500]
            return
        half = len(rows) // 2
        if is_too_large:
            warn_of_reduced_batch(f"{len(rows)} images", half)
        for part in (rows[:half], rows[half:]):
            yield from bisect_failures(function, part)
        return
    yield rows, result, ""


def take_rows(tensor: Tensor, rows: NDArray[np.intp]) -> Tensor:
    """Return rows of a tensor; all of them without a copy.

    Example:
        >>> images = torch.rand(3, 2)
        >>> take_rows(images, np.arange(3)) is images, take_rows(images, np.array([2])).shape
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
    failed: list[tuple[int, str]] = []
    parts: list[tuple[NDArray[np.intp], NDArray[np.float32]]] = []
    for rows in batches(len(crops), worker.config.batch_size):
        for part, result, reason in bisect_failures(lambda r: worker.embed(module, take_rows(crops, r)), rows):
            if result is None:
                failed.append((int(part[0]), reason))
            else:
                parts.append((part, result.float().cpu().numpy()))
    size = parts[0][1].shape[1] if parts else 1
    embeddings = np.full((len(crops), size), np.nan, dtype=np.float32)
    for part, values in parts:
        embeddings[part] = values
    return embeddings, failed


def references_of(embeddings: NDArray[np.float32], people: Sequence[str]) -> NDArray[np.float32]:
    """Return leave-one-out centroids (n, D) of each person's images; NaN where there is no other, or no direction.

    Example:
        >>> few = np.array([[1, 0], [0, 1], [1, 1]], np.float32)
        >>> references_of(few, ["ann", "ann", "bob"]).tolist()
        [[0.0, 1.0], [1.0, 0.0], [nan, nan]]
    """
    references = np.full_like(embeddings, np.nan)
    usable = np.flatnonzero(np.isfinite(embeddings).all(1)).tolist()
    own = {person: [row for row in usable if people[row] == person] for person in dict.fromkeys(people)}
    several = [rows for rows in own.values() if len(rows) > 1]

    def centroids(chosen: NDArray[np.intp]) -> tuple[list[int], Tensor]:
        rows = [row for i in chosen for row in several[i]]
        return rows, leave_one_out_centroids(
            torch.from_numpy(embeddings[rows]), [i for i in chosen for _ in several[i]]
        )

    with warnings.catch_warnings():
        # Equal embeddings are warned of by rows of this array, which the user does not know. Copies are found by pictures.
        warnings.simplefilter("ignore", ReliabilityWarning)
        for _, found, _ in bisect_failures(centroids, np.arange(len(several))) if several else ():
            if found is not None:  # else an embedding of zeros, or images that cancel each other
                references[found[0]] = found[1].numpy()
    return references
