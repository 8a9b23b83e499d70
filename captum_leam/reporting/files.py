"""Explain faces in files by the name of a model, as ``captum-leam explain`` does."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_leam._engine.checks import check_choice, check_count
from captum_leam._progress import begin_step, count_images, plan, progress_bar
from captum_leam._text import as_text
from captum_leam.errors import CaptumLeamError, FileError, InputTypeError
from captum_leam.explain import PRESETS, path_passes
from captum_leam.faces import FaceAligner, FaceSource, read_face, template_for
from captum_leam.faces.aligned import resolve_template
from captum_leam.faces.aligner import Which
from captum_leam.faces.copies import match_copies, shows_same_face, thumbnails_of
from captum_leam.faces.photos import split_pictures
from captum_leam.faces.sources import alignment_doubt, looks_like_a_crop
from captum_leam.match import MatchExplanation, explain_match
from captum_leam.models import layer_before_division, load_model
from captum_leam.models.preprocessing import smooth_images
from captum_leam.models.sizes import COMMON_SIZES, Size, own_size, size_problem
from captum_leam.objectives import embed, similarity, unit
from captum_leam.pairs import check_same_person, explain_pair
from captum_leam.plots import overlay_on_photo
from captum_leam.regions import FaceRegions, label_faces
from captum_leam.reporting.curves import passes_per_face
from captum_leam.reporting.explanation import (
    FRACTIONS,
    ExplainOptions,
    Explanation,
    explain_images,
    is_number,
    references_from,
)
from captum_leam.reporting.file_certainty import STEP, certainty_passes, measure_certainty
from captum_leam.reporting.gallery import gallery_pictures
from captum_leam.reporting.json_result import hashes_of
from captum_leam.suggest import Layers, LayerSuggestions, as_layer_list, resolve_layers

_Read = tuple[FaceSource, Which]
"""Face, and the index by which it was selected."""

_Stored = tuple[Tensor, list[str]]
"""Crops of a gallery, shape (G, 3, h, w), and the name of each."""

DOUBTFUL = 0.2
"""Cosine to a person's other pictures below which a note asks whether a picture shows the same person."""

MAX_COSINE_TO_NOISE = 0.97
"""Cosine between pictures of faces and of noise above which embeddings hardly depend on the picture; real networks have up to 0.91."""
MAX_GAIN = 2.0
"""Factor by which embeddings must differ more at another scale of the pixels for a note about the preprocessing. It is below 1.2 on real
networks with the right or a similar preprocessing, and 4 to 30 on three of five with pixels that are scaled twice."""
LOADING, READING, CHECKING, PARSING, MAPPING, WRITING = (
    "loading the model",
    "reading pictures",
    "checking the model",
    "finding regions",
    "overall maps",
    "writing the page",
)
"""Names of the steps of a command in its progress bar."""
EXPECTED_LAYERS = 3
"""Number of layers that the progress bar expects before layers are suggested."""
SCALES = {"from 0 to 255": 255.0, "255 times smaller": 1 / 255}


@dataclass(frozen=True)
class FileOptions(ExplainOptions):
    """Options of an explanation of files, which add those of files, model and regions to those of the maps.

    Attributes:
        preprocessing: Values of the pixels that the network expects, see :func:`captum_leam.models.load_model`.
        colour: Order of the channels that the network expects, see ``load_model``.
        output: Layer, or value of an ONNX file, with the embedding, see ``load_model``.
        pictures: Kind of the pictures: ``"crops"``, ``"photos"``, or ``"auto"``, which takes pictures of at most 256 px a side for crops.
        size: Height and width in pixels to which photographs are aligned and crops are scaled. Default: the size that the model declares;
            otherwise the first of :data:`captum_leam.models.sizes.COMMON_SIZES` for photographs, and the size of the crops.
        faces: Index of the face in a photograph, 0 for the largest, one for all pictures or one for each. Default: the largest.
        weights: File or folder with the weights of the face detector.
        regions: Source of the regions, see :func:`captum_leam.regions.label_faces`.
        region_weights: File or folder with the weights of the parser. Default: ``weights``, if it is a folder.
        gallery: Folder with the pictures of a gallery, or with a folder for each person. Each picture is then a probe, and its map shows
            why the first candidate wins (:func:`~captum_leam.explain_match`). Default: none.
        threshold: Threshold of the cosine for the decision about a pair or a first candidate, in [−1, 1]. Default: no decision.
        same_person: Whether the two pictures of a pair show the same person, if known.
        layers: Name of a layer, or a list of names. Default: those of the overall map.
        device: Device of the networks.
        certainty: Whether to measure the certainty of each map, see :func:`captum_leam.certainty.map_certainty`.
        other_models: Names of other models on which the maps are tested, too, loaded like the explained one.

    Raises:
        CaptumLeamError: If a kind of pictures, a preset or a fill is unknown, or a value is out of range or of the wrong type.

    Example:
        >>> FileOptions(threshold=0.3).pictures
        'auto'
    """

    preprocessing: str | None = None
    colour: str | None = None
    output: str | None = None
    pictures: str = "auto"
    size: Size | None = None
    faces: Sequence[int] = ()
    weights: str | Path | None = None
    regions: str = "template"
    region_weights: str | Path | None = None
    gallery: str | Path | None = None
    threshold: float | None = None
    same_person: bool | None = None
    layers: Layers = None
    device: str | torch.device = "cpu"
    certainty: bool = True
    other_models: Sequence[str] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("pictures", self.pictures, ("auto", "crops", "photos"))
        if self.size is not None:
            _check_sides(self.size)
        if not isinstance(self.faces, list | tuple):
            raise InputTypeError(f"Expected `faces` to be a list of indices of faces, got {self.faces!r}.")
        for face in self.faces:
            check_count("an index in faces", face, least=0)
        if self.threshold is not None and not (is_number(self.threshold) and -1 <= self.threshold <= 1):
            raise CaptumLeamError(f"Expected `threshold` to be a cosine from -1 to 1, got {self.threshold!r}.")
        check_same_person(self.same_person)
        if self.gallery is not None and self.same_person is not None:
            raise CaptumLeamError(
                "Expected `same_person` to be None with a `gallery`, where each picture is a probe, got True or False. Omit it."
            )
        as_layer_list(self.layers)
        if not isinstance(self.certainty, bool):
            raise InputTypeError(f"Expected `certainty` to be True or False, got {self.certainty!r}.")
        if not isinstance(self.other_models, list | tuple):
            raise InputTypeError(f"Expected `other_models` to be a list of names, got {self.other_models!r}.")
        if not isinstance(self.regions, str):
            raise InputTypeError(f"Expected `regions` to be a text that names their source, got {self.regions!r}.")


def _check_sides(size: Any) -> None:
    if not isinstance(size, list | tuple) or len(size) != 2:
        raise InputTypeError(f"Expected `size` to be (h, w) in pixels, got {size!r}.")
    for side in size:
        check_count("a side in size", side)


def explain_files(paths: Sequence[str | Path], model: str, options: FileOptions | None = None) -> Explanation:
    """Explain the faces in files, as ``captum-leam explain`` does.

    A single face is explained by its own embedding, two faces by each other, and more by the other pictures of the same person.

    Args:
        paths: Pictures (crops or photographs) or folders of pictures. Of more than two pictures, unusable ones are skipped, and so is
            everything in a folder that is not a picture.
        model: Name of the model, see :func:`captum_leam.models.load_model`.
        options: Options of files, model, maps and measurements. Default: ``FileOptions()``.

    Returns:
        Explanation, of which :func:`captum_leam.reporting.write_page` makes a page.

    Raises:
        CaptumLeamError: If a picture, the model or an option cannot be used.

    See Also:
        * :func:`~captum_leam.reporting.write_page`: Page of the explanation.
        * :func:`~captum_leam.explain_faces`: Maps of images in memory.

    Example:
        >>> explain_files(["nowhere.png"], "torch.nn:Identity")
        Traceback (most recent call last):
            ...
        captum_leam.errors.FileError: nowhere.png: there is no such file.
    """
    options = options or FileOptions()
    with progress_bar(options.progress):
        return _explained_files(paths, model, options)


def _explained_files(paths: Sequence[str | Path], model: str, options: FileOptions) -> Explanation:
    device = options.device
    files, skipped = _distinct(paths, options.faces)
    is_pair = options.gallery is None and len(files) == 2
    if (options.same_person is not None or (options.threshold is not None and options.gallery is None)) and not is_pair:
        raise CaptumLeamError(f"Expected two pictures for `threshold` and `same_person`, got {len(files)}.")
    plan(_work(len(files), options))
    begin_step(LOADING)
    network = load_model(model, options.preprocessing, colour=options.colour, output=options.output).to(device)
    own = own_size(network, device)

    @cache
    def aligner() -> FaceAligner:
        size = options.size or own or COMMON_SIZES[0]
        return FaceAligner(template_for(size), size, weights=options.weights, device=device)

    begin_step(READING, len(files))
    read, unread = _read(files, options.pictures, aligner)
    read, alike = _without_copies(read)
    sources = [source for source, _ in read]
    crops = _stacked(sources, options.size)
    images = crops.to(device)
    size = (crops.shape[-2], crops.shape[-1])
    begin_step(CHECKING)
    _check_runs(network, images, model)
    _check_size(network, images, own, options.size is not None)
    aligner_if_auto = aligner if options.pictures == "auto" else None
    notes = [note for source, index in read for note in _picture_notes(source, index, size, own, aligner_if_auto)]
    notes += _noise_notes(network, images)
    notes += _division_notes(
        network, images[:2], model, options.preprocessing is not None or options.colour is not None
    )
    begin_step(PARSING, len(images))
    folder = options.weights if options.weights is not None and Path(options.weights).is_dir() else None
    sources = [replace(source, crop=crop) for source, crop in zip(sources, crops, strict=True)]
    parts = label_faces(options.regions, sources, crops, weights=options.region_weights or folder, device=device)
    stored, not_stored = (None, []) if options.gallery is None else _gallery(sources, options, aligner)
    found = _explained(network, images, sources, parts, options, stored)
    source = {
        "model": model,
        "preprocessing": getattr(network, "preprocessing", "within the model"),
        **({"output": options.output} if options.output else {}),
        "pictures": ", ".join(_how_read(source) for source in sources),
        "crops": f"{size[0]} × {size[1]} px",
        **({} if options.gallery is None else {"gallery": options.gallery}),
        **({} if aligner.cache_info().currsize == 0 else {"face detector": repr(aligner())}),
    }
    if options.certainty:
        others = {where: _another(where, images, options) for where in options.other_models}
        found = replace(found, certainty=measure_certainty(network, found, others, stored))
    hashes = hashes_of(network, model, dict(zip(found.names, [source.path for source in sources], strict=True)))
    left_out = (*skipped, *unread, *alike, *not_stored)
    return replace(found, hashes=hashes, source=source, skipped=left_out, notes=(*notes, *found.notes))


def _another(where: str, images: Tensor, options: FileOptions) -> nn.Module:
    """Load another model on which the maps are tested."""
    network = load_model(where, options.preprocessing, colour=options.colour, output=options.output).to(options.device)
    _check_runs(network, images, where)
    return network


def _work(pictures: int, options: FileOptions) -> dict[str, float]:
    """Return the steps of the command with their work in forward passes of one image; a backward pass counts as two."""
    own = pictures == 1 and options.gallery is None
    (forward, backward), (f, b) = PRESETS[options.preset].passes(own_reference=own), path_passes(options.n_steps)
    of_maps, of_layers = pictures * (forward + 2 * backward), pictures * (f + 2 * b)
    occlusions = pictures * (1 + 3 * len(FRACTIONS))
    curves = min(pictures, options.explored) * passes_per_face(EXPECTED_LAYERS)
    references = pictures - 1 if options.gallery is None else 1
    certain = pictures * certainty_passes(references, 1 + len(options.other_models), forward + 2 * backward)
    parted = {MAPPING: of_maps, "signed layer maps": of_layers}
    together = {MAPPING: of_maps + of_layers + (0 if options.gallery is None else 25 * pictures)}
    maps = together if pictures == 2 or options.gallery is not None else parted
    fixed = {LOADING: 100, READING: 20 * pictures, CHECKING: 60, PARSING: 5 * pictures}
    certainty = {STEP: certain} if options.certainty else {}
    return {**fixed, **maps, "occluding": occlusions, "curves": curves, **certainty, WRITING: 200}


def _explained(
    network: nn.Module,
    images: Tensor,
    sources: list[FaceSource],
    parts: FaceRegions,
    options: FileOptions,
    stored: _Stored | None,
) -> Explanation:
    layers = resolve_layers(network, images, options.layers)
    begin_step(MAPPING, len(images))
    match = None if stored is None else _matched(network, images, layers, options, stored)
    pair = None
    if len(images) == 2 and match is None:
        pair = explain_pair(
            network,
            *images,
            layers=layers,
            threshold=options.threshold,
            same_person=options.same_person,
            preset=options.preset,
            n_steps=options.n_steps,
        )
        pair = replace(pair, faces=(sources[0].face, sources[1].face))
    first, names = sources[0].path.name, _names([source.path for source in sources])
    references = references_from(network, images) if match is None else None
    found = explain_images(
        network,
        images,
        names,
        layers,
        parts.labels,
        parts.scheme,
        references=references,
        pair=pair,
        match=match,
        landmarks=_landmarks(sources, (images.shape[-2], images.shape[-1])),
        options=options,
    )
    on_photographs = [
        None if source.photo is None or source.face is None else overlay_on_photo(source.photo, source.face, overall)
        for source, overall in zip(sources, found.overall, strict=True)
    ]
    found = replace(
        found, parts=parts, photographs=tuple(on_photographs) if any(d is not None for d in on_photographs) else ()
    )
    if pair is not None:
        return replace(found, title=" and ".join(names), text=pair.sentence())
    title = first if len(sources) == 1 else f"{first} and {len(sources) - 1} more"
    if match is not None:
        return replace(found, title=f"{title} in {Path(str(options.gallery)).name}")
    return replace(found, title=title, notes=(*found.notes, *_doubts(network, images, references, names)))


def _matched(
    network: nn.Module, images: Tensor, layers: LayerSuggestions, options: FileOptions, stored: _Stored
) -> MatchExplanation:
    return explain_match(
        network,
        images,
        stored[0].to(images.device),
        stored[1],
        preset=options.preset,
        threshold=options.threshold,
        layers=layers,
        n_steps=options.n_steps,
        fill=options.fill,
        seed=options.seed,
        batch_size=options.batch_size,
    )


def _doubts(network: nn.Module, images: Tensor, references: Tensor | None, names: list[str]) -> tuple[str, ...]:
    """Return a note about pictures whose embeddings differ from the others, which should be of the same person."""
    if references is None:
        return ()
    cosines = similarity(embed(network, images), unit(references)).tolist()
    unlike = [f"{name} ({cosine:.2f})" for name, cosine in zip(names, cosines, strict=True) if cosine < DOUBTFUL]
    if not unlike:
        return ()
    return (
        f"all pictures are taken for one person's, but the cosine to the others is below {DOUBTFUL:g} for {', '.join(unlike)}. Check the "
        "person, the alignment, and the preprocessing that the network expects.",
    )


# -- files ---------------------------------------------------------------------------------------------


def _distinct(paths: Sequence[str | Path], faces: Sequence[int]) -> tuple[list[tuple[Path, Which]], list[FileError]]:
    """Return files without repetitions, each with its face, and skipped files, because a picture cannot be its own reference."""
    if not paths:
        raise CaptumLeamError("Expected one picture or more, got none.")
    listed = [split_pictures(path) for path in paths]
    files = [file for found, _ in listed for file in found]
    skipped = [FileError(path, reason) for _, others in listed for path, reason in others]
    if len(faces) not in (0, 1, len(files)):
        raise CaptumLeamError(
            f"Expected one index in `faces`, or one for each of the {len(files)} pictures in their order, got {len(faces)}."
        )
    indices: list[Which] = [*faces] or ["largest"]
    which = indices if len(indices) == len(files) else indices * len(files)
    once: dict[tuple[str, Which], Path] = {}
    seen: dict[tuple[bytes, Which], Path] = {}
    for file, index in zip(files, which, strict=True):
        first = once.setdefault((os.path.realpath(file), index), file)
        if first is not file:
            if os.path.abspath(first) != os.path.abspath(file):
                skipped.append(FileError(file, f"the same file as {first}"))
        elif content := _digest(file):
            _check_other_picture(seen.setdefault((content, index), file), file)
    if len(once) == 1 and len(files) > 1 and seen:
        _check_other_picture(*files[:2])
    return [(file, index) for (_, index), file in once.items()], skipped


def _check_other_picture(first: Path, other: Path) -> None:
    if first is not other:
        raise CaptumLeamError(f"{first} and {other} are the same picture. Pass another picture as the reference.")


def _digest(file: Path) -> bytes:
    """Return the digest of the content of a file; empty for an empty or unreadable file, which is reported later."""
    try:
        if not file.is_file() or not file.stat().st_size:
            return b""
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").digest()
    except OSError:
        return b""


def _read(
    files: list[tuple[Path, Which]], pictures: str, aligner: Callable[[], FaceAligner]
) -> tuple[list[_Read], list[FileError]]:
    """Return the faces, each with its index, and skipped files. Of two pictures, none can be skipped."""
    read: list[_Read] = []
    skipped: list[FileError] = []
    for file, index in files:
        count_images()
        try:
            is_crop = pictures == "crops" or (pictures == "auto" and looks_like_a_crop(file))
            read.append((read_face(file, None if is_crop else aligner(), index), index))
        except FileError as error:
            skipped.append(error)
    if skipped and (len(files) <= 2 or not read):
        rest = f" ({len(skipped) - 1} more could not be read either)" if len(skipped) > 1 else ""
        raise FileError(skipped[0].path, skipped[0].reason + rest).with_options(*skipped[0].options)
    if skipped and len(read) < 2:
        raise CaptumLeamError(f"only {read[0][0].path} is left of {len(files)} pictures: {skipped[0]}")
    return read, skipped


def _without_copies(read: list[_Read]) -> tuple[list[_Read], list[FileError]]:
    """Skip re-encoded, recompressed or resized copies of an earlier picture. Of a pair, none can be skipped."""
    sources = [source for source, _ in read]
    found = match_copies(
        thumbnails_of(sources), lambda later, earlier: shows_same_face(sources[earlier], sources[later])
    )
    distinct = [item for i, item in enumerate(read) if i not in found]
    for later, earlier in found.items():
        if len(distinct) < 2:
            raise CaptumLeamError(
                f"{sources[earlier].path} and {sources[later].path} show the same picture. Pass another picture as the reference."
            )
    return distinct, [FileError(sources[i].path, f"shows the same as {sources[j].path}") for i, j in found.items()]


def _gallery(
    probes: list[FaceSource], options: FileOptions, aligner: Callable[[], FaceAligner]
) -> tuple[_Stored, list[FileError]]:
    """Return the crops and names of a gallery, and skipped files. Copies of a probe are left out, because they match by themselves."""
    pictures, skipped = gallery_pictures(options.gallery or "")
    begin_step("reading the gallery", len(pictures))
    sources, names = [], []
    for file, name in pictures:
        count_images()
        try:
            is_crop = options.pictures == "crops" or (options.pictures == "auto" and looks_like_a_crop(file))
            sources.append(read_face(file, None if is_crop else aligner()))
            names.append(name)
        except FileError as error:
            skipped.append(error)
    if not sources:
        raise FileError(skipped[0].path, skipped[0].reason)
    both = [*probes, *sources]
    found = match_copies(thumbnails_of(both), lambda later, earlier: shows_same_face(both[earlier], both[later]))
    own = {later - len(probes): probes[earlier] for later, earlier in found.items() if earlier < len(probes) <= later}
    others = [i for i in range(len(sources)) if i not in own]
    for i, probe in own.items():
        if names[i] not in [names[j] for j in others]:
            raise CaptumLeamError(
                f"{sources[i].path} shows the same as the probe {probe.path}, and is the only picture of {names[i]!r}. Leave it out of the "
                "gallery, or add another picture of this person."
            )
        skipped.append(FileError(sources[i].path, f"shows the same as the probe {probe.path}"))
    crops = _stacked([probes[0], *[sources[i] for i in others]], options.size)[1:]
    return (crops, [names[i] for i in others]), skipped


def _how_read(source: FaceSource) -> str:
    if source.face is None:
        return "crop"
    turned = f", turned by {source.face.turn}°" if source.face.turn else ""
    several = f", face {source.face.index} of {source.face.face_count}" if source.face.face_count > 1 else ""
    return f"photograph, aligned{turned}{several}"


def _picture_notes(
    source: FaceSource, which: Which, size: Size, own: Size | None, aligner: Callable[[], FaceAligner] | None
) -> Iterator[str]:
    """Yield notes about automatic decisions for a picture: its size, the chosen face, its turn, and, with an aligner, its kind."""
    name, face, (height, width) = source.path.name, source.face, source.crop.shape[1:]
    if (height, width) != size:
        yield f"{name}: scaled from {width} × {height} to {size[1]} × {size[0]} px"
    if face is None:
        if which != "largest":
            yield f"{name}: --face chooses a face of a photograph, and this is a crop. --pictures photos detects faces in it."
        doubt = aligner and alignment_doubt(source.crop, aligner)
        if doubt or (aligner and (height, width) not in (own, *COMMON_SIZES)):
            reason = f": {doubt}" if doubt else "."
            yield f"{name}: taken for an aligned crop ({width} × {height} px){reason} --pictures photos aligns it."
        return
    if face.face_count > 1 and which == "largest":
        yield f"{name}: {face.face_count} faces were found, the largest was taken (--face chooses another)"
    if face.turn:
        yield f"{name}: the photograph was turned by {face.turn}° counter-clockwise to find the face upright"


def _names(paths: list[Path]) -> list[str]:
    """Return unique names of files: the file name, with its folder if it is ambiguous, and numbered if that is not enough."""
    names = [as_text(path.name) for path in paths]
    names = [as_text(str(path)) if names.count(name) > 1 else name for path, name in zip(paths, names, strict=True)]
    return [f"{name} ({names[:i].count(name) + 1})" if names.count(name) > 1 else name for i, name in enumerate(names)]


def _landmarks(sources: list[FaceSource], size: Size) -> Any:
    """Return the five landmarks of each crop, detected or of the template; None for a shape without a template."""
    try:
        template, _ = resolve_template(template_for(size), size)
    except ValueError:
        return None
    return np.stack([template if source.face is None else source.face.crop_landmarks for source in sources])


# -- sizes ---------------------------------------------------------------------------------------------


def _stacked(sources: list[FaceSource], size: Size | None) -> Tensor:
    """Return the crops at the requested size, shape (N, 3, h, w)."""
    first = sources[0]
    for source in sources[1:]:
        if source.crop.shape != first.crop.shape and size is None:
            (height, width), (h, w) = source.crop.shape[1:], first.crop.shape[1:]
            raise FileError(
                source.path,
                f"{width} × {height} px, but {first.path} has {w} × {h}. Pass crops of one size, or a size to scale them to (--size).",
            ).with_options("--size", f"{h}x{w}")
    return torch.stack([source.crop if size is None else _scaled(source, size) for source in sources])


def _scaled(source: FaceSource, size: Size) -> Tensor:
    height, width = source.crop.shape[1:]
    if (height, width) == size:
        return source.crop
    if abs(height * size[1] - width * size[0]) > max(height, width):
        raise FileError(
            source.path,
            f"a crop of {width} × {height} px has another shape than {size[1]} × {size[0]}, which is another alignment, not another size. "
            "Pass the photograph, or the size of this crop.",
        )
    return F.interpolate(source.crop[None], size, mode="bilinear", antialias=True)[0].clamp(0, 1)


def _division_notes(network: nn.Module, images: Tensor, model: str, wrapped: bool) -> list[str]:
    """Return a note with the layer before the division, if the model divides embeddings by their length.

    For ONNX files, from_onnx names the value instead. With ``wrapped``, load_model put a preprocessing around the model, so that names of
    layers begin with ``network.`` here, but not for the user.
    """
    before = None if model.endswith(".onnx") else layer_before_division(network, images)
    if before is None:
        return []
    name = before.removeprefix("network.") if wrapped else before
    return [f"the model divides its embeddings by their length; {name!r} is the layer before it (--output {name})"]


def _check_size(network: nn.Module, images: Tensor, own: Size | None, chosen: bool) -> None:
    height, width = images.shape[2:]
    if own and (problem := size_problem(network, (height, width), images.device, is_explicit=chosen, own=own)):
        raise CaptumLeamError(
            f"{problem} If the pictures are not aligned crops, --pictures photos aligns them; --size {own[0]}x{own[1]} scales crops."
        ).with_options("--size", f"{own[0]}x{own[1]}")


def _noise_notes(network: nn.Module, images: Tensor) -> list[str]:
    """Return a note if embeddings hardly differ between faces and noise, or differ far more at another scale of the pixels."""
    faces = images[:4]
    noise = smooth_images(4, (images.shape[2], images.shape[3])).to(images)
    cosine = _cosine(network, faces, noise)
    others = {name: _cosine(network, faces * scale, noise * scale) for name, scale in SCALES.items()}
    name, least = min(others.items(), key=lambda item: item[1])
    is_better = 1 - least > MAX_GAIN * (1 - cosine)
    if cosine > MAX_COSINE_TO_NOISE:
        better = f", {least:.2f} with pixels {name}" if is_better else ""
        found = f"embeddings hardly depend on the pictures (cosine to images of noise {cosine:.2f}{better})"
        return [f"{found}. Check the preprocessing."]
    if is_better:
        found = f"embeddings separate faces from noise better with pixels {name} (cosine {least:.2f} instead of {cosine:.2f})"
        return [f"{found}. Check the scale in the preprocessing."]
    return []


def _cosine(network: nn.Module, faces: Tensor, noise: Tensor) -> float:
    """Return the mean cosine between embeddings of faces and of noise; 1 if the network raises for such pixels."""
    try:
        a, b = unit(embed(network, faces)), unit(embed(network, noise))
    except Exception:  # a network may raise any exception for such pixels
        return 1.0
    return float((a @ b.T).mean())


def _check_runs(network: nn.Module, images: Tensor, model: str) -> None:
    try:
        embed(network, images[:1])
    except (CaptumLeamError, MemoryError):
        raise
    except Exception as error:  # the model of the user may raise any exception
        height, width = images.shape[2:]
        first = (str(error).splitlines() or ["no message"])[0]
        raise CaptumLeamError(
            f"{model} raised {type(error).__name__} on a crop of {width} × {height} px: {first.rstrip('.')}. "
            "Pass the size of its crops (--size), or the values of its pixels if these are not RGB in [0, 1] (--preprocessing, --colour)."
        ) from error
