"""Files of faces, whichever they are: aligned crops as they are, photographs by detection and alignment."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from torch import Tensor

from captum_leam.errors import CaptumLeamError, FileError
from captum_leam.faces.aligned import AlignedFace, resolve_template, template_for
from captum_leam.faces.aligner import FaceAligner, Which
from captum_leam.faces.crops import read_crop
from captum_leam.faces.geometry import distance_to
from captum_leam.faces.photos import MIN_SIDE, opened, read_photo

How = Literal["auto", "crops", "photos"]

MAX_CROP = 256
"""Longest side in pixels up to which a picture is taken for an aligned crop."""

MAX_AWAY = 0.13
"""Root mean square distance in heights of a crop by which alignment may still move its face: 289 aligned crops have at most .09."""


@dataclass(frozen=True)
class FaceSource:
    """One face and where it is from.

    Example:
        >>> import torch
        >>> source = FaceSource(Path("crop.png"), torch.rand(3, 112, 112))  # read_faces returns it
        >>> source.face is None, source.photo is None
        (True, True)
    """

    path: Path
    crop: Tensor = field(repr=False)
    """(3, h, w) in [0, 1]."""
    face: AlignedFace | None = None
    """The way back to the photograph; None for a file that was a crop."""
    photo: Tensor | None = field(default=None, repr=False)
    """(3, H, W) in [0, 1]; None for a crop."""


def read_faces(
    paths: Sequence[str | Path], make_aligner: Callable[[], FaceAligner], how: How = "auto", faces: Which = "largest"
) -> list[FaceSource]:
    """One face of every file.

    Args:
        paths: pictures.
        make_aligner: called once, and only if there is a photograph among them.
        how: ``"crops"``, ``"photos"``, or ``"auto"``: pictures of at most 256 px a side are crops.
        faces: which face of a photograph: the ``"largest"``, or an index.

    Raises:
        CaptumLeamError: naming the file and why; or for another ``how``.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("L", (112, 112)).save(f"{folder}/crop.png")
        ...     read_faces([f"{folder}/crop.png"], FaceAligner)[0].face is None
        True
    """
    if how not in ("auto", "crops", "photos") or faces == "all":
        raise CaptumLeamError(
            f'how={how!r}, faces={faces!r}; expected "auto", "crops" or "photos", and one face of each.'
        )
    crops = [how == "crops" or (how == "auto" and looks_like_a_crop(path)) for path in paths]
    aligner = None if all(crops) else make_aligner()
    return [read_face(path, None if crop else aligner, faces) for path, crop in zip(paths, crops, strict=True)]


def read_face(path: str | Path, aligner: FaceAligner | None = None, face: Which = "largest") -> FaceSource:
    """One face of one file: of a crop as it is, or of a photograph, aligned.

    Args:
        path: of a picture.
        aligner: for a photograph; None for a crop.
        face: which of a photograph.

    Raises:
        CaptumLeamError: naming the file and why.

    Example:
        >>> read_face("nowhere.png")
        Traceback (most recent call last):
            ...
        captum_leam.errors.FileError: nowhere.png: there is no such file.
    """
    path = Path(path)
    if aligner is None:
        crop = read_crop(path)
        if min(crop.shape[1:]) < MIN_SIDE:
            raise FileError(
                path, f"{crop.shape[2]} × {crop.shape[1]} px; too small to show a face (expected {MIN_SIDE} a side)."
            )
        return FaceSource(path, crop)
    photo = read_photo(path)
    try:
        aligned = aligner(photo, face)[0]
    except CaptumLeamError as error:
        raise FileError(path, str(error)).with_options(*error.options) from None
    return FaceSource(path, aligned.crop, aligned, photo)


def alignment_doubt(crop: Tensor, make_aligner: Callable[[], FaceAligner] = FaceAligner) -> str | None:
    """Return why a picture is hardly an aligned crop: the face found in it lies elsewhere than the standard template has it.

    Args:
        crop: (3, H, W), float in [0, 1].
        make_aligner: Called once. Default: a :class:`FaceAligner` with the weights that are found.

    Returns:
        One sentence; None if the face is at its place, or if there is no detector, no face or no standard template to compare with.

    Example:
        >>> import torch
        >>> alignment_doubt(torch.zeros(3, 250, 200)) is None  # no standard crop has this shape
        True
    """
    try:
        points, _ = resolve_template(template_for((crop.shape[1], crop.shape[2])), (crop.shape[1], crop.shape[2]))
        found = [face for face in make_aligner().detect(crop) if face.problem is None]
    except (ImportError, CaptumLeamError):
        return None
    if not found:
        return None
    if found[0].turn:
        return f"its face is upright only after a turn by {found[0].turn}° counter-clockwise."
    away = distance_to(found[0].landmarks, points) / crop.shape[1]
    if away <= MAX_AWAY:
        return None
    return f"its face lies {away:.0%} of the height away from where an aligned crop has it."


def looks_like_a_crop(path: str | Path) -> bool:
    """Whether a picture has at most 256 px a side: photographs have more.

    Raises:
        CaptumLeamError: naming the file, if it is no picture that can be read.

    Example:
        >>> looks_like_a_crop("nowhere.png")
        Traceback (most recent call last):
            ...
        captum_leam.errors.FileError: nowhere.png: there is no such file.
    """
    with opened(path) as image:
        return bool(max(image.size) <= MAX_CROP)
