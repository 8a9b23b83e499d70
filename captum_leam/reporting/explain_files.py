"""From files of faces and a model's name to an explanation: what ``captum-leam explain`` does, for notebooks too."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_leam._text import as_text
from captum_leam.errors import CaptumLeamError
from captum_leam.explain import PRESETS
from captum_leam.faces import FaceAligner, FaceSource, read_face, template_for
from captum_leam.faces.aligned import resolve_template
from captum_leam.faces.aligner import Which
from captum_leam.faces.copies import copies, shows_same_face, thumbnails_of
from captum_leam.faces.photos import pictures_of
from captum_leam.faces.sources import alignment_doubt, looks_like_a_crop
from captum_leam.models import layer_before_division, load_model
from captum_leam.models.preprocessing import smooth_images
from captum_leam.models.sizes import COMMON_SIZES, Size, own_size, size_problem
from captum_leam.objectives import embed, similarity, unit
from captum_leam.pairs import explain_pair
from captum_leam.plots import overlay_on_photo
from captum_leam.regions import FaceRegions, label_faces
from captum_leam.reporting.explanation import OWN_REFERENCE, Explanation, explain_images, references_from
from captum_leam.suggest import chosen_layers

__all__ = ["explain_files"]

DOUBTFUL = 0.2
"""Under this cosine to a person's other pictures it is asked whether a picture shows the same person."""

MAX_COSINE_TO_NOISE = 0.97
"""Cosine between pictures of faces and of noise over which embeddings hardly depend on the picture; real networks have up to 0.91."""
MAX_GAIN = 2.0
"""How many times as far embeddings must lie apart at another scale of the pixels to doubt the preprocessing; on real networks with the
right or a similar one it is under 1.2, with pixels that are scaled twice 4 to 30 on three of five."""
SCALES = {"from 0 to 255": 255.0, "255 times smaller": 1 / 255}


def explain_files(
    paths: Sequence[str | Path],
    model: str,
    *,
    preprocessing: str | None = None,
    colour: str | None = None,
    output: str | None = None,
    pictures: str = "auto",
    size: Size | None = None,
    faces: Sequence[int] = (),
    weights: str | Path | None = None,
    regions: str = "template",
    region_weights: str | Path | None = None,
    threshold: float | None = None,
    same_person: bool | None = None,
    layers: Sequence[str] | None = None,
    preset: str = "default",
    fraction: float = 0.01,
    fill: str = "blur",
    seed: int = 0,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> Explanation:
    """Explain the faces in files: one towards its own embedding, two towards each other, more towards the rest of the person's.

    Args:
        paths: pictures, crops or photographs, or folders of them. Of more than two, one that is bad is left out and noted, as is
            everything in a folder that is not a picture.
        model: see :func:`captum_leam.models.load_model`.
        preprocessing: likewise.
        colour: likewise.
        output: likewise.
        pictures: ``"crops"``, ``"photos"``, or ``"auto"``: pictures of at most 256 px a side are crops.
        size: (h, w) that photographs are aligned to and crops are scaled to; by default what the model declares, else, for photographs,
            the first of :data:`captum_leam.models.sizes.COMMON_SIZES` that it takes, and crops stay as they are.
        faces: which face of a photograph, 0 the largest: one index for all, or one for each picture; by default the largest.
        weights: of the face detector, file or folder.
        regions: see :func:`captum_leam.regions.label_faces`.
        region_weights: of the parser; by default ``weights``, if that is a folder.
        threshold: of a pair's decision.
        same_person: whether the two of a pair are, where it is known.
        layers: names; found by default.
        preset: ``"fast"``: one pass; ``"default"`` and ``"best"``: a path of 4 and of 16 steps. The page shows the map of each layer
            and their average, so without the rounds of occlusion of :func:`captum_leam.explain_faces`.
        fraction: of the critical pixels.
        fill: of the occlusion.
        seed: of everything that is drawn.
        device: of the networks.
        progress: show a progress bar.

    Returns:
        The explanation; :func:`captum_leam.reporting.write` makes a page of it.

    Raises:
        CaptumLeamError: with what is wrong, in one line.

    Example:
        >>> explain_files(["nowhere.png"], "torch.nn:Identity")
        Traceback (most recent call last):
            ...
        captum_leam.errors.CaptumLeamError: nowhere.png: there is no such file.
    """
    if preset not in PRESETS:
        raise CaptumLeamError(f"preset is {preset!r}; needed is one of {', '.join(PRESETS)}.")
    if pictures not in ("auto", "crops", "photos"):
        raise CaptumLeamError(f"pictures are {pictures!r}; needed is auto, crops or photos.")
    if threshold is not None and not -1 <= threshold <= 1:
        raise CaptumLeamError(f"threshold is {threshold:g}; needed is a cosine, from -1 to 1.")
    files, which, notes = _distinct(paths, faces)
    if (threshold is not None or same_person is not None) and len(files) != 2:
        raise CaptumLeamError(f"a threshold, or who is who, is about two pictures; there are {len(files)}.")
    network = load_model(model, preprocessing, colour=colour, output=output).to(device)
    own = own_size(network, device)
    aligner = _Aligner(lambda: size or own or COMMON_SIZES[0], weights, device)
    sources, asked, unread = _read(files, which, pictures, aligner)
    sources, asked, alike = _without_copies(sources, asked)
    images = _stacked(sources, size)
    notes += [*unread, *alike, *_choice_notes(sources, asked), *_scaled_notes(sources, images)]
    _check_runs(network, images.to(device), model)
    _check_size(network, images.to(device), own, size is not None)
    if pictures == "auto":
        notes += _crop_notes(sources, own, aligner)
    notes += _noise_notes(network, images.to(device))
    wrapped = preprocessing is not None or colour is not None
    notes += _division_notes(network, images[:2].to(device), model, wrapped)
    parts = label_faces(
        regions, _at_size(sources, images), images, weights=_region_weights(region_weights, weights), device=device
    )
    found = _explained(
        network,
        images.to(device),
        sources,
        parts,
        layers,
        threshold,
        same_person,
        {"preset": preset, "fraction": fraction, "fill": fill, "seed": seed, "progress": progress},
    )
    settings = {
        "model": model,
        "preprocessing": getattr(network, "preprocessing", "within the model"),
        **({"output": output} if output else {}),
        "pictures": ", ".join(_how_read(source) for source in sources),
        "crops": f"{images.shape[-2]} × {images.shape[-1]} px",
        **({} if aligner.made is None else {"face detector": repr(aligner.made)}),
        **found.settings,
        "regions": parts.source,
    }
    return replace(found, settings=settings, notes=(*notes, *found.notes))


def _explained(
    network: nn.Module,
    images: Tensor,
    sources: list[FaceSource],
    parts: FaceRegions,
    names: Sequence[str] | None,
    threshold: float | None,
    same_person: bool | None,
    options: dict[str, Any],
) -> Explanation:
    layers = chosen_layers(network, images, names)
    pair = None
    if len(images) == 2:
        pair = explain_pair(
            network, *images, layers=layers, threshold=threshold, same_person=same_person, preset=options["preset"]
        )
        pair = replace(pair, faces=(sources[0].face, sources[1].face))
    first, called = sources[0].path.name, _names([source.path for source in sources])
    references = references_from(network, images)
    found = explain_images(
        network,
        images,
        called,
        layers,
        parts.labels,
        parts.scheme,
        references=references,
        maps=None if pair is None else pair.layers,
        landmarks=_landmarks(sources, (images.shape[-2], images.shape[-1])),
        title=first if len(sources) == 1 else f"{first} and {len(sources) - 1} more",
        **options,
    )
    drawn = [
        None if source.photo is None or source.face is None else overlay_on_photo(source.photo, source.face, overall)
        for source, overall in zip(sources, found.overall, strict=True)
    ]
    found = replace(found, parts=parts, photographs=tuple(drawn) if any(d is not None for d in drawn) else ())
    if pair is None:
        return replace(found, notes=_doubts(network, images, references, called))
    label = "Reference: the other picture."
    return replace(found, pair=pair, title=" and ".join(found.names), text=pair.sentence(), label=label)


def _doubts(network: nn.Module, images: Tensor, references: Tensor | None, names: list[str]) -> tuple[str, ...]:
    """Pictures that are hardly like the others, which are all taken for one person's."""
    if references is None:
        return ()
    cosines = similarity(embed(network, images), unit(references)).tolist()
    unlike = [f"{name} ({cosine:.2f})" for name, cosine in zip(names, cosines, strict=True) if cosine < DOUBTFUL]
    if not unlike:
        return ()
    return (
        f"all pictures are taken for one person's, but of these the cosine to the others is under {DOUBTFUL:g}: {', '.join(unlike)}. Is it "
        "the same person, in the alignment and with the preprocessing that the network wants?",
    )


def lead(found: Explanation) -> str:
    """One sentence: how many faces, towards what.

    Args:
        found: of :func:`explain_files`.
    """
    if len(found.names) == 1:
        return f"One face; {OWN_REFERENCE}."
    return f"{len(found.names)} faces, each explained towards the other{'s' * (len(found.names) > 2)}."


# -- files ---------------------------------------------------------------------------------------------


def _distinct(paths: Sequence[str | Path], faces: Sequence[int]) -> tuple[list[Path], list[Which], list[str]]:
    """List files without repetitions, which face of each, and what is left out. A picture must not be among its own references."""
    if not paths:
        raise CaptumLeamError("no picture is given.")
    listed = [pictures_of(path) for path in paths]
    files = [file for found, _ in listed for file in found]
    notes = [f"left out: {path}: {reason}" for _, skipped in listed for path, reason in skipped]
    if len(faces) not in (0, 1, len(files)):
        raise CaptumLeamError(
            f"{len(faces)} indices of faces for {len(files)} pictures; needed is one, or one for each in their order."
        )
    given: list[Which] = [*faces] or ["largest"]
    which = given * len(files) if len(given) == 1 else given
    once: dict[tuple[str, Which], Path] = {}
    seen: dict[tuple[bytes, Which], Path] = {}
    for file, index in zip(files, which, strict=True):
        first = once.setdefault((os.path.realpath(file), index), file)
        if first is not file:
            if os.path.abspath(first) != os.path.abspath(file):
                notes.append(f"left out: {file}: the same file as {first}")
            continue
        content = _digest(file)
        if content and (first := seen.setdefault((content, index), file)) is not file:
            raise CaptumLeamError(f"{first} and {file} are the same picture: a reference must be another one.")
    is_one_file = len(once) == 1 and len(files) > 1
    if is_one_file and seen:
        raise CaptumLeamError(f"{files[0]} and {files[1]} are the same picture: a reference must be another one.")
    return [*once.values()], [index for _, index in once], notes


def _digest(file: Path) -> bytes:
    """Of a file's content; empty for one that is empty or cannot be read, or is none, which is said later."""
    try:
        if not file.is_file():
            return b""
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").digest() if file.stat().st_size else b""
    except OSError:
        return b""


class _Aligner:
    """Makes the aligner at the first photograph."""

    def __init__(self, size: Callable[[], Size], weights: str | Path | None, device: str | torch.device) -> None:
        self.size, self.weights, self.device = size, weights, device
        self.made: FaceAligner | None = None

    def __call__(self) -> FaceAligner:
        if self.made is None:
            size = self.size()
            self.made = FaceAligner(template_for(size), size, weights=self.weights, device=self.device)
        return self.made


def _read(
    files: list[Path], which: list[Which], pictures: str, aligner: _Aligner
) -> tuple[list[FaceSource], list[Which], list[str]]:
    """Faces, which face was asked for, and what is said of files left out; two pictures are a pair, of which neither can be left out."""
    sources: list[FaceSource] = []
    asked: list[Which] = []
    notes: list[str] = []
    for file, index in zip(files, which, strict=True):
        try:
            crop = pictures == "crops" or (pictures == "auto" and looks_like_a_crop(file))
        except ValueError as error:
            notes.append(f"left out: {error}")
            continue
        make = None if crop else aligner()  # weights that are missing are no fault of the picture
        try:
            sources.append(read_face(file, make, index))
        except ValueError as error:
            notes.append(f"left out: {error}")
        else:
            asked.append(index)
    if notes and (len(files) <= 2 or not sources):
        rest = f" ({len(notes) - 1} more could not be read either)" if len(notes) > 1 else ""
        raise CaptumLeamError(notes[0].removeprefix("left out: ") + rest)
    if notes and len(sources) < 2:
        raise CaptumLeamError(f"only {sources[0].path} is left of {len(files)} pictures: {notes[0]}")
    return sources, asked, notes


def _without_copies(sources: list[FaceSource], asked: list[Which]) -> tuple[list[FaceSource], list[Which], list[str]]:
    """Leave out pictures that show the same as an earlier one: re-encoded, recompressed or resized. Of a pair, neither can be."""
    found = copies(thumbnails_of(sources), lambda later, earlier: shows_same_face(sources[earlier], sources[later]))
    kept = [i for i in range(len(sources)) if i not in found]
    for later, earlier in found.items():
        if len(kept) < 2:
            raise CaptumLeamError(
                f"{sources[earlier].path} and {sources[later].path} show the same: a reference must be another picture. Leave one out."
            )
    notes = [f"left out: {sources[later].path}: shows the same as {sources[i].path}" for later, i in found.items()]
    return [sources[i] for i in kept], [asked[i] for i in kept], notes


def _how_read(source: FaceSource) -> str:
    if source.face is None:
        return "crop"
    turned = f", turned by {source.face.turn}°" if source.face.turn else ""
    several = f", face {source.face.index} of {source.face.found}" if source.face.found > 1 else ""
    return f"photograph, aligned{turned}{several}"


def _choice_notes(sources: list[FaceSource], asked: list[Which]) -> list[str]:
    """Name what was chosen for the user: which of several faces, and how a photograph was turned."""
    notes = []
    for source, which in zip(sources, asked, strict=True):
        name, face = source.path.name, source.face
        if face is None and which != "largest":
            notes.append(
                f"{name}: --face chooses a face of a photograph, and this is a crop. --pictures photos detects faces in it."
            )
        if face is not None and face.found > 1 and which == "largest":
            notes.append(f"{name}: {face.found} faces were found, the largest was taken (--face chooses another)")
        if face is not None and face.turn:
            notes.append(
                f"{name}: the photograph was turned by {face.turn}° counter-clockwise to find the face upright"
            )
    return notes


def _names(paths: list[Path]) -> list[str]:
    """File names, with the folder where one name stands for several files, and numbered where that is not enough."""
    names = [as_text(path.name) for path in paths]
    names = [as_text(str(path)) if names.count(name) > 1 else name for path, name in zip(paths, names, strict=True)]
    return [f"{name} ({names[:i].count(name) + 1})" if names.count(name) > 1 else name for i, name in enumerate(names)]


def _landmarks(sources: list[FaceSource], size: Size) -> Any:
    """Where the five points lie: those found, else those of the template; None for crops of a shape without one."""
    try:
        template, _ = resolve_template(template_for(size), size)
    except ValueError:
        return None
    return np.stack([template if source.face is None else source.face.crop_landmarks for source in sources])


# -- sizes ---------------------------------------------------------------------------------------------


def _stacked(sources: list[FaceSource], size: Size | None) -> Tensor:
    """(N, 3, h, w), scaled to the size asked for."""
    first = sources[0]
    for source in sources[1:]:
        if source.crop.shape != first.crop.shape and size is None:
            (height, width), (h, w) = source.crop.shape[1:], first.crop.shape[1:]
            raise CaptumLeamError(
                f"{source.path}: {width} × {height} px, but {first.path} has {w} × {h}; needed are crops of one size, or a size to scale "
                "them to (--size)."
            )
    return torch.stack([source.crop if size is None else _scaled(source, size) for source in sources])


def _scaled(source: FaceSource, size: Size) -> Tensor:
    height, width = source.crop.shape[1:]
    if (height, width) == size:
        return source.crop
    if abs(height * size[1] - width * size[0]) > max(height, width):
        raise CaptumLeamError(
            f"{source.path}: a crop of {width} × {height} px has another shape than {size[1]} × {size[0]}: another alignment, not "
            "another size. Give the photograph, or the size of this crop."
        )
    return F.interpolate(source.crop[None], size, mode="bilinear", antialias=True)[0].clamp(0, 1)


def _scaled_notes(sources: list[FaceSource], images: Tensor) -> list[str]:
    size = tuple(images.shape[1:])
    scaled = [source for source in sources if tuple(source.crop.shape) != size]
    return [
        f"{source.path.name}: scaled from {source.crop.shape[2]} × {source.crop.shape[1]} to {size[2]} × {size[1]} px"
        for source in scaled
    ]


def _crop_notes(sources: list[FaceSource], own: Size | None, aligner: Callable[[], FaceAligner]) -> list[str]:
    """Name pictures that were taken for aligned crops because they are small, where the place of the face or the size speaks against it."""
    notes = []
    for source in sources:
        height, width = source.crop.shape[1:]
        known = (height, width) in (own, *COMMON_SIZES)
        doubt = None if source.face is not None else alignment_doubt(source.crop, aligner)
        if doubt or (source.face is None and not known):
            reason = f": {doubt}" if doubt else "."
            notes.append(
                f"{source.path.name}: taken for an aligned crop ({width} × {height} px){reason} --pictures photos aligns it."
            )
    return notes


def _at_size(sources: list[FaceSource], images: Tensor) -> list[FaceSource]:
    return [replace(source, crop=image) for source, image in zip(sources, images, strict=True)]


def _region_weights(own: str | Path | None, weights: str | Path | None) -> str | Path | None:
    return own or (weights if weights is not None and Path(weights).is_dir() else None)


def _division_notes(network: nn.Module, images: Tensor, model: str, wrapped: bool) -> list[str]:
    """Which layer to take instead, of a model that divides by the length; of ONNX files, from_onnx names the value.

    With ``wrapped`` load_model put a preprocessing around the model, whose layers are then called network.… here but not there.
    """
    before = None if model.endswith(".onnx") else layer_before_division(network, images)
    if before is None:
        return []
    name = before.removeprefix("network.") if wrapped else before
    return [f"the model divides its embeddings by their length; {name!r} is the layer before it (--output {name})"]


def _check_size(network: nn.Module, images: Tensor, own: Size | None, chosen: bool) -> None:
    height, width = images.shape[2:]
    if own and (problem := size_problem(network, (height, width), images.device, chosen=chosen, own=own)):
        raise CaptumLeamError(
            f"{problem} If the pictures are not aligned crops, --pictures photos aligns them; --size {own[0]}x{own[1]} scales crops."
        )


def _noise_notes(network: nn.Module, images: Tensor) -> list[str]:
    """Doubt the preprocessing where embeddings hardly differ between faces and noise, or much more at another scale of the pixels."""
    faces = images[:4]
    noise = smooth_images(4, (images.shape[2], images.shape[3])).to(images)
    cosine = _cosine(network, faces, noise)
    others = {name: _cosine(network, faces * scale, noise * scale) for name, scale in SCALES.items()}
    name, least = min(others.items(), key=lambda item: item[1])
    if cosine <= MAX_COSINE_TO_NOISE and 1 - least <= MAX_GAIN * (1 - cosine):
        return []
    if cosine > MAX_COSINE_TO_NOISE:
        better = f", {least:.2f} with pixels {name}" if 1 - least > MAX_GAIN * (1 - cosine) else ""
        return [
            f"embeddings hardly depend on the pictures (cosine to images of noise {cosine:.2f}{better}). Check the preprocessing."
        ]
    return [
        f"embeddings separate faces from noise better with pixels {name} (cosine {least:.2f} instead of {cosine:.2f}). Check the scale in "
        "the preprocessing."
    ]


def _cosine(network: nn.Module, faces: Tensor, noise: Tensor) -> float:
    """Return the mean cosine between embeddings of faces and of noise; 1 where the network refuses such pixels."""
    try:
        a, b = unit(embed(network, faces)), unit(embed(network, noise))
    except Exception:  # a network refuses pixels as it likes
        return 1.0
    return float((a @ b.T).mean())


def _check_runs(network: nn.Module, images: Tensor, model: str) -> None:
    try:
        embed(network, images[:1])
    except (ValueError, TypeError):
        raise
    except Exception as error:
        height, width = images.shape[2:]
        raise CaptumLeamError(
            f"{model} raised {type(error).__name__} on a crop of {width} × {height} px: {str(error).splitlines()[0].rstrip('.')}. "
            "Does it take crops of another size (--size), or of other values than RGB in [0, 1] (--preprocessing, --colour)?"
        ) from error
