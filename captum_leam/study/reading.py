"""Stage one, shard by shard: files to crops, region labels and the embeddings of all networks."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from captum_leam._engine.memory import is_out_of_memory, warn_of_reduced_batch
from captum_leam._loading import made_in_code
from captum_leam._neighbours import recorded_sources
from captum_leam._storage import Shard, file_sha256, read_shard
from captum_leam._text import as_text
from captum_leam.errors import ConfigError, ReliabilityWarning
from captum_leam.faces import FaceAligner, FaceSource, read_faces
from captum_leam.faces.copies import Thumbnails, copies, shows_same_face, thumbnails_of
from captum_leam.objectives import leave_one_out_centroids
from captum_leam.regions import CELEBAMASK_HQ, TEMPLATE, FacexlibParser, RegionScheme, TemplateParser, parse
from captum_leam.study.config import Config
from captum_leam.study.identity import Fingerprint, Rows, as_known, code_of, fixed_images, outputs_of
from captum_leam.study.listing import Picture, too_few
from captum_leam.study.networks import Network, embeddings_of, loaded, named_file_sha256

Parse = Callable[[Tensor], Tensor]
Failure = tuple[str, str, int, str]
"""Stage, model ("" for all), index of the picture in its shard, reason."""

UNALIGNED = "If it is not an aligned crop, set pictures: photos"

PARSER_TOLERANCE = 0.01
"""Relative distance of the shares and places of labels up to which two parsers are the same."""

_MADE: dict[str, Any] = {}  # aligners and parsers of this process


# -- what reads and labels pictures --------------------------------------------------------------------


def aligner_of(config: Config) -> FaceAligner:
    """The aligner of this process."""
    key = f"aligner {config.pictures} {config.device}"
    if key not in _MADE:
        pictures = config.pictures
        _MADE[key] = FaceAligner(
            size=pictures.size,
            detector=pictures.detector,  # type: ignore[arg-type]
            weights=pictures.weights,
            device=config.device,
        )
    return _MADE[key]  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Parser:
    """The parser of a study.

    Attributes:
        fingerprint: Its identity.
        scheme: Of its labels; left and right are one region in the tables.
    """

    fingerprint: Fingerprint
    scheme: RegionScheme


def known_parser(config: Config, earlier: Iterable[Fingerprint] = ()) -> Parser:
    """Load the parser that the configuration names, and identify it.

    Raises:
        ConfigError: If it cannot be loaded, or if two passes over the same image differ.
    """
    parse_images, scheme, fingerprint = _load_parser(config)
    fingerprint = as_known(fingerprint, earlier)
    _MADE[_parser_key(config, fingerprint)] = parse_images, scheme
    return Parser(fingerprint, scheme)


def parser_of(config: Config, fingerprint: Fingerprint) -> tuple[Parse, RegionScheme]:
    """The parser, loaded once in this process, and the scheme of its labels.

    Raises:
        ConfigError: If it is another than when the study began.
    """
    key = _parser_key(config, fingerprint)
    if key not in _MADE:
        parse_images, scheme, found = _load_parser(config)
        if not fingerprint.agrees(found):
            raise ConfigError("Expected the parser that the study began with, got another. Run again.")
        _MADE[key] = parse_images, scheme
    return _MADE[key]  # type: ignore[no-any-return]


def _parser_key(config: Config, fingerprint: Fingerprint) -> str:
    return f"parser {config.parser} {config.device} {fingerprint.sha256}"


def _load_parser(config: Config) -> tuple[Parse, RegionScheme, Fingerprint]:
    try:
        with recorded_sources() as sources:
            parser, scheme = _make_parser(config)
            outputs: Rows = ()
            if not isinstance(parser, TemplateParser):  # it is the package's own code and ignores the images
                images = fixed_images(config.pictures.size).to(config.device)
                outputs = outputs_of(
                    lambda some: _shares(parse(parser, some.clone()), scheme), images, PARSER_TOLERANCE
                )
        named = [config.parser.where.rpartition("/")[2], repr(scheme.regions), getattr(parser, "sha256", "")]
        code = code_of(parser, [*sources.values(), *named_file_sha256(config.parser.where)], named)
        return parser, scheme, Fingerprint(code, outputs, PARSER_TOLERANCE)
    except ImportError:
        raise
    except Exception as error:
        raise ConfigError(f"parser: {error}") from error


def _shares(labels: Tensor, scheme: RegionScheme) -> Tensor:
    """Describe label maps by numbers (n, 3 L): the share of every label, and where its pixels lie."""
    masks = torch.stack([labels == label for label in scheme.labels], 1).double()
    down, across = (torch.linspace(0, 1, side, device=labels.device, dtype=torch.float64) for side in labels.shape[1:])
    features = [masks, masks * down[:, None], masks * across]
    return torch.cat([feature.mean((2, 3)) for feature in features], 1)


def _make_parser(config: Config) -> tuple[Parse, RegionScheme]:
    parser = config.parser
    if parser.where == "template":
        template = TemplateParser()
        return template, template.scheme
    if parser.where in ("bisenet", "parsenet"):
        made = FacexlibParser(parser.where, weights=parser.weights, device=config.device)  # type: ignore[arg-type]
        return made, made.scheme
    found = made_in_code(parser.where)
    if isinstance(found, nn.Module):
        found = found.eval().to(config.device)
    if not callable(found):
        raise ConfigError(f"{parser.where} gave a {type(found).__name__}; needed is a callable from images to labels.")
    named = CELEBAMASK_HQ if parser.scheme == "celebamask_hq" else TEMPLATE
    return found, getattr(found, "scheme", named)


# -- reading -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Read:
    """One picture that was read, or why it was not."""

    picture: Picture
    source: FaceSource | None
    reason: str = ""


def read_one(picture: Picture, config: Config) -> Read:
    """One face of one file; every fault of the file becomes its reason."""
    try:
        if file_sha256(picture.path) != picture.sha256:
            return Read(picture, None, "the file changed while the study ran; run again")
        (source,) = read_faces([picture.path], lambda: aligner_of(config), config.pictures.how)  # type: ignore[arg-type]
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
    except Exception as error:  # a broken file raises nearly anything; the study goes on without it
        return Read(picture, None, as_text(str(error).removeprefix(f"{picture.path}: ")) or type(error).__name__)


def read_ahead(pictures: Sequence[Picture], config: Config) -> Iterator[Read]:
    """Pictures in order, the next ones decoded while the caller works on one."""
    with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(config.threads,)) as reader:
        yield from reader.map(lambda picture: read_one(picture, config), pictures)


# -- the stage -----------------------------------------------------------------------------------------


def crops_shard(config: Config, networks: Sequence[Network], pictures: Sequence[Picture], parser: Fingerprint) -> Shard:
    """Crops, labels and embeddings of whole people.

    Arrays: ``kept`` (n,), which of ``pictures`` these are; ``crops`` (n, 3, H, W), uint8 where that is exact; ``labels`` (n, H, W), or of a
    parser that gives all crops the same, (1, H, W); ``embedding.I`` and ``reference.I`` (n, D) of network I, NaN where it raised or there
    is none; ``landmarks`` (n, 5, 2) on the crop, NaN for crops without; ``thumbnails``, ``photographs`` and ``boxes``, by which
    copies are found (:class:`~captum_leam.faces.copies.Thumbnails`). Notes: ``failed``: stage, model, index in ``pictures`` and reason;
    ``how`` each was read; ``faces`` found and ``turns`` of photographs, -1 for crops; ``people``, whose they are.
    """
    read = list(read_ahead(pictures, config))
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
        "labels": _labels(crops, config, parser),
    }
    for i, network in enumerate(networks):
        embeddings, lost = embedded(loaded(network, config.device), crops.to(config.device), config)
        arrays[f"embedding.{i}"] = embeddings
        arrays[f"reference.{i}"] = references_of(embeddings, notes["people"])
        failed += [("embed", network.name, kept[row], reason) for row, reason in lost]
    return Shard(arrays, notes)


def _is_crop(read: Read) -> bool:
    return read.source is not None and read.source.face is None


def _compact(crops: Tensor) -> NDArray[Any]:
    """uint8 where that loses nothing, as for pictures of 8 bits; float32 otherwise."""
    eight = (crops * 255).round()
    exact = bool(torch.equal(eight / 255, crops))
    return eight.to(torch.uint8).numpy() if exact else crops.numpy()


def crops_of(shard: Shard, rows: NDArray[Any] | None = None) -> Tensor:
    """Crops of a shard (n, 3, H, W) as they were read, float32 in [0, 1], in memory that torch allocated."""
    stored = torch.from_numpy(shard["crops"] if rows is None else shard["crops"][rows])
    return stored.float() / 255 if stored.dtype == torch.uint8 else stored.clone()


def _landmarks(read: Read) -> NDArray[np.float64]:
    face = None if read.source is None else read.source.face
    return np.full((5, 2), np.nan) if face is None else np.asarray(face.crop_landmarks, dtype=np.float64)


def _labels(crops: Tensor, config: Config, fingerprint: Fingerprint) -> NDArray[np.uint8]:
    parser, scheme = parser_of(config, fingerprint)
    if not len(crops):
        return np.zeros((0, *crops.shape[2:]), dtype=np.uint8)
    if isinstance(parser, TemplateParser):  # the same for all: drawn once in this process
        key = f"template {tuple(crops.shape[2:])}"
        if key not in _MADE:
            _MADE[key] = scheme.merge_sides().relabel(parser(crops[:1])).numpy().astype(np.uint8)
        return _MADE[key]  # type: ignore[no-any-return]
    parts = [parse(parser, part.to(config.device)).cpu() for part in torch.split(crops, config.batch_size)]
    labels: NDArray[np.uint8] = scheme.merge_sides().relabel(torch.cat(parts)).numpy().astype(np.uint8)
    return labels


# -- copies --------------------------------------------------------------------------------------------


def find_copies(config: Config, shards: Sequence[Sequence[Picture]], paths: Sequence[Path]) -> dict[int, Picture]:
    """Find the pictures that show the same as an earlier one of the study, whoever they are said to be of.

    Args:
        config: Configuration of the study.
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
        one, other = (read_one(pictures[i], config).source for i in (earlier, later))
        return one is not None and other is not None and shows_same_face(one, other)

    found = copies(Thumbnails(*[torch.cat(part) for part in parts]), confirm) if pictures else {}
    return {pictures[later].number: pictures[earlier] for later, earlier in found.items()}


# -- networks on batches, and what they refuse ---------------------------------------------------------


def each_or_none(
    function: Callable[[NDArray[np.intp]], Any], rows: NDArray[np.intp]
) -> Iterator[tuple[NDArray[np.intp], Any, str]]:
    """A function of rows; where it raises, of halves of them, down to the single row that is to blame.

    Memory that is used up is no picture's fault: it is told, and where one row alone does not fit, raised.

    Yields:
        Rows, what the function made of them, and ``""``; or one row, None, and the reason.

    Example:
        >>> def halves(rows):
        ...     return 1 / (rows - 2.0) if not (rows == 2).any() else 1 / 0
        >>> [(rows.tolist(), reason) for rows, made, reason in each_or_none(halves, np.arange(4))]
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
            yield from each_or_none(function, rows[:middle])
            yield from each_or_none(function, rows[middle:])
            return
        if lacking:
            raise
        lines = str(error).strip().splitlines()
        yield rows, None, f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:500]
        return
    yield rows, made, ""


def taken(tensor: Tensor, rows: NDArray[np.intp]) -> Tensor:
    """Rows of a tensor; all of them without a copy.

    Example:
        >>> whole = torch.rand(3, 2)
        >>> taken(whole, np.arange(3)) is whole, taken(whole, np.array([2])).shape
        (True, torch.Size([1, 2]))
    """
    return tensor if len(rows) == len(tensor) else tensor[torch.from_numpy(rows)]


def batches(count: int, size: int) -> list[NDArray[np.intp]]:
    """Rows of the batches that a shard is run in.

    Example:
        >>> [rows.tolist() for rows in batches(5, 2)]
        [[0, 1], [2, 3], [4]]
    """
    return [np.arange(start, min(start + size, count)) for start in range(0, count, size)]


def embedded(module: nn.Module, crops: Tensor, config: Config) -> tuple[NDArray[np.float32], list[tuple[int, str]]]:
    """Embeddings (n, D) of crops, NaN where the network raised, and these rows with the reason."""
    lost: list[tuple[int, str]] = []
    found: dict[int, NDArray[np.float32]] = {}
    for rows in batches(len(crops), config.batch_size):
        for part, made, reason in each_or_none(lambda r: embeddings_of(module, taken(crops, r)), rows):
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
    """Leave-one-out centroids (n, D) of each person's images; NaN where there is no other, or no direction.

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
