"""From files of faces and a model's name to an explanation: what ``captum-leam explain`` does, for notebooks too."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_leam.explain import PRESETS
from captum_leam.faces import FaceAligner, FaceSource, picture_files, read_face, template_for
from captum_leam.faces.aligned import resolve_template
from captum_leam.faces.aligner import Which
from captum_leam.faces.sources import looks_like_a_crop
from captum_leam.models import layer_before_division, load_model
from captum_leam.modes import uniform
from captum_leam.names import as_text
from captum_leam.objectives import embed, similarity, unit
from captum_leam.pairs import explain_pair
from captum_leam.plots import overlay_on_photo
from captum_leam.regions import FaceRegions, label_faces
from captum_leam.report import OWN_REFERENCE, Explanation, explain_images, references_from
from captum_leam.suggest import chosen_layers

Size = tuple[int, int]

COMMON_SIZES: tuple[Size, ...] = (
    (112, 112),
    (112, 96),
    (160, 160),
    (128, 128),
    (224, 224),
    (96, 96),
    (256, 256),
    (64, 64),
)
"""(h, w) of the crops of published networks; the first that a network takes is that of photographs, if nothing says more."""

DOUBTFUL = 0.2
"""Under this cosine to a person's other pictures it is asked whether a picture shows the same person."""


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
        paths: pictures, crops or photographs, or folders of them. Of more than two, one that is bad is left out and noted.
        model: see :func:`captum_leam.models.load_model`.
        preprocessing: likewise.
        colour: likewise.
        output: likewise.
        pictures: ``"crops"``, ``"photos"``, or ``"auto"``: pictures of at most 256 px a side are crops.
        size: (h, w) that photographs are aligned to and crops are scaled to; by default what the model declares, else, for photographs,
            the first of :data:`COMMON_SIZES` that it takes, and crops stay as they are.
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
        The explanation; :func:`captum_leam.report.write` makes a page of it.

    Raises:
        ValueError: with what is wrong, in one line.

    Example:
        >>> explain_files(["nowhere.png"], "torch.nn:Identity")
        Traceback (most recent call last):
            ...
        ValueError: nowhere.png: there is no such file.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset is {preset!r}; needed is one of {', '.join(PRESETS)}.")
    if pictures not in ("auto", "crops", "photos"):
        raise ValueError(f"pictures are {pictures!r}; needed is auto, crops or photos.")
    if threshold is not None and not -1 <= threshold <= 1:
        raise ValueError(f"threshold is {threshold:g}; needed is a cosine, from -1 to 1.")
    files, which = _distinct(paths, faces)
    if (threshold is not None or same_person is not None) and len(files) != 2:
        raise ValueError(f"a threshold, or who is who, is about two pictures; there are {len(files)}.")
    network = load_model(model, preprocessing, colour=colour, output=output).to(device)
    aligner = _Aligner(lambda: _size_of(network, size, device), weights, device)
    sources, notes = _read(files, which, pictures, aligner)
    images = _stacked(sources, size)
    notes += _scaled_notes(sources, images)
    _check_runs(network, images.to(device), model)
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
        "pictures": ", ".join("crop" if source.face is None else "photograph, aligned" for source in sources),
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


def _distinct(paths: Sequence[str | Path], faces: Sequence[int]) -> tuple[list[Path], list[Which]]:
    """Files without repetitions, and which face of each. A picture must not be among its own references."""
    if not paths:
        raise ValueError("no picture is given.")
    files = [file for path in paths for file in picture_files(path)]
    if len(faces) not in (0, 1, len(files)):
        raise ValueError(
            f"{len(faces)} indices of faces for {len(files)} pictures; needed is one, or one for each in their order."
        )
    given: list[Which] = [*faces] or ["largest"]
    which = given * len(files) if len(given) == 1 else given
    once: dict[tuple[Path, Which], Path] = {}
    seen: dict[tuple[bytes, Which], Path] = {}
    for file, index in zip(files, which, strict=True):
        if once.setdefault((file.resolve(), index), file) is not file:
            continue
        content = _digest(file)
        if content and (first := seen.setdefault((content, index), file)) is not file:
            raise ValueError(f"{first} and {file} are the same picture: a reference must be another one.")
    return [*once.values()], [index for _, index in once]


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
) -> tuple[list[FaceSource], list[str]]:
    """Faces, and what is said of files that were left out; two pictures are a pair, of which neither can be left out."""
    sources: list[FaceSource] = []
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
    if notes and (len(files) <= 2 or not sources):
        rest = f" ({len(notes) - 1} more could not be read either)" if len(notes) > 1 else ""
        raise ValueError(notes[0].removeprefix("left out: ") + rest)
    if notes and len(sources) < 2:
        raise ValueError(f"only {sources[0].path} is left of {len(files)} pictures: {notes[0]}")
    return sources, notes


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


def _size_of(network: nn.Module, asked: Size | None, device: str | torch.device) -> Size:
    """The size of crops of photographs: as asked, as the model declares, or the first common one that it takes."""
    declared = asked or getattr(getattr(network, "preprocessing", None), "size", None)
    if declared:
        height, width = declared
        return (height, width)
    for height, width in COMMON_SIZES:
        try:
            embed(network, uniform((1, 3, height, width), torch.Generator().manual_seed(0)).to(device))
        except Exception:  # noqa: S112 - a network refuses a size as it likes
            continue
        return (height, width)
    return COMMON_SIZES[0]  # what it says to that, _check_runs tells


def _stacked(sources: list[FaceSource], size: Size | None) -> Tensor:
    """(N, 3, h, w), scaled to the size asked for."""
    first = sources[0]
    for source in sources[1:]:
        if source.crop.shape != first.crop.shape and size is None:
            (height, width), (h, w) = source.crop.shape[1:], first.crop.shape[1:]
            raise ValueError(
                f"{source.path}: {width} × {height} px, but {first.path} has {w} × {h}; needed are crops of one size, or a size to scale "
                "them to (--size)."
            )
    return torch.stack([source.crop if size is None else _scaled(source, size) for source in sources])


def _scaled(source: FaceSource, size: Size) -> Tensor:
    height, width = source.crop.shape[1:]
    if (height, width) == size:
        return source.crop
    if abs(height * size[1] - width * size[0]) > max(height, width):
        raise ValueError(
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


def _check_runs(network: nn.Module, images: Tensor, model: str) -> None:
    try:
        embed(network, images[:1])
    except (ValueError, TypeError):
        raise
    except Exception as error:
        height, width = images.shape[2:]
        raise ValueError(
            f"{model} raised {type(error).__name__} on a crop of {width} × {height} px: {str(error).splitlines()[0].rstrip('.')}. "
            "Does it take crops of another size (--size), or of other values than RGB in [0, 1] (--preprocessing, --colour)?"
        ) from error
