"""Read faces from files of either kind, aligned crops or photographs."""

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
from captum_leam.faces.photos import MIN_SIDE, open_picture, read_photo

How = Literal["auto", "crops", "photos"]

MAX_CROP = 256
"""Longest side of pictures that are treated as aligned crops, in pixels."""

MAX_DISTANCE = 0.13
"""Root mean square distance, in heights of a crop, by which alignment may move the face of a crop; 289 aligned crops have at most .09."""


@dataclass(frozen=True)
class FaceSource:
    """Crop of a face, with its file and, if it was aligned, its photograph.

    :func:`read_face` and :func:`read_faces` return it.

    Example:
        >>> import torch
        >>> source = FaceSource(Path("ann.png"), torch.zeros(3, 112, 112))
        >>> source.path.stem, source.crop.shape
        ('ann', torch.Size([3, 112, 112]))
        >>> source.face is None  # the file is a crop, not a photograph
        True
    """

    path: Path
    """Path of the file."""
    crop: Tensor = field(repr=False)
    """Crop of shape (3, h, w) in [0, 1]."""
    face: AlignedFace | None = None
    """Aligned face with its transform to the photograph; None if the file is a crop."""
    photo: Tensor | None = field(default=None, repr=False)
    """Photograph of shape (3, H, W) in [0, 1]; None if the file is a crop."""


def read_faces(
    paths: Sequence[str | Path], make_aligner: Callable[[], FaceAligner], how: How = "auto", faces: Which = "largest"
) -> list[FaceSource]:
    """Read one face from each file, whether the files are aligned crops or photographs.

    Photographs are aligned first. Use :func:`read_crops` if all files are crops.

    Args:
        paths: Paths of pictures.
        make_aligner: Function that returns an aligner, called at most once and only if there is a photograph.
        how: Kind of the files: ``"crops"``, ``"photos"``, or ``"auto"`` to treat pictures of at most 256 px a side as crops. Default:
            ``"auto"``.
        faces: Face of a photograph: ``"largest"``, or an index from 0, the largest. Default: ``"largest"``.

    Returns:
        List of :class:`FaceSource`, one per file, in the order of the paths.

    Raises:
        FileError: If a file cannot be read or has no face that can be aligned. The message names the file.
        CaptumLeamError: If ``how`` or ``faces`` is invalid.

    See Also:
        * :func:`~captum_leam.faces.read_crops`: Aligned crops as one batch.
        * :class:`~captum_leam.faces.FaceAligner`: All faces of a photograph.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("L", (112, 112)).save(f"{folder}/ann.png")
        ...     sources = read_faces([f"{folder}/ann.png"], FaceAligner)
        >>> [(source.path.name, source.crop.shape) for source in sources]
        [('ann.png', torch.Size([3, 112, 112]))]
    """
    if how not in ("auto", "crops", "photos"):
        raise CaptumLeamError(f'Expected how to be "auto", "crops" or "photos", got {how!r}.')
    if faces == "all":
        raise CaptumLeamError(
            'Expected `faces` to be "largest" or an index, got "all". Only one face per photograph can be used here.'
        )
    is_crop = [how == "crops" or (how == "auto" and looks_like_a_crop(path)) for path in paths]
    aligner = None if all(is_crop) else make_aligner()
    return [read_face(path, None if crop else aligner, faces) for path, crop in zip(paths, is_crop, strict=True)]


def read_face(path: str | Path, aligner: FaceAligner | None = None, face: Which = "largest") -> FaceSource:
    """Read one face from a file, as a crop or by aligning a photograph.

    Args:
        path: Path of a picture.
        aligner: Aligner of a photograph, or None if the file is a crop. Default: None.
        face: Face of a photograph: ``"largest"``, or an index from 0, the largest. Default: ``"largest"``.

    Returns:
        Face as :class:`FaceSource`, with its ``crop`` of shape (3, h, w) in [0, 1].

    Raises:
        FileError: If the file cannot be read or has no face that can be aligned. The message names the file.

    See Also:
        :func:`~captum_leam.faces.read_faces`: Faces of several files.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("RGB", (96, 112)).save(f"{folder}/ann.png")
        ...     read_face(f"{folder}/ann.png").crop.shape
        torch.Size([3, 112, 96])
    """
    path = Path(path)
    if aligner is None:
        crop = read_crop(path)
        if min(crop.shape[1:]) < MIN_SIDE:
            raise FileError(
                path,
                f"expected a crop with sides of {MIN_SIDE} px or more, got {crop.shape[2]} × {crop.shape[1]} px.",
            )
        return FaceSource(path, crop)
    photo = read_photo(path)
    try:
        aligned = aligner(photo, face)[0]
    except CaptumLeamError as error:
        raise FileError(path, str(error)).with_options(*error.options) from None
    return FaceSource(path, aligned.crop, aligned, photo)


def alignment_doubt(crop: Tensor, make_aligner: Callable[[], FaceAligner] = FaceAligner) -> str | None:
    """Return the reason why a picture is probably not an aligned crop, from the position of the face detected in it.

    Args:
        crop: RGB picture of shape (3, H, W), floating point in [0, 1].
        make_aligner: Function that returns an aligner. Default: :class:`FaceAligner` with its default weights.

    Returns:
        One sentence, or None if the face is where the standard template has it. None also without a detector, a face or a template.

    Example:
        >>> import torch
        >>> alignment_doubt(torch.zeros(3, 250, 200)) is None  # no standard crop has this shape
        True
    """
    try:
        points, _ = resolve_template(template_for((crop.shape[1], crop.shape[2])), (crop.shape[1], crop.shape[2]))
        faces = [face for face in make_aligner().detect(crop) if face.problem is None]
    except (ImportError, CaptumLeamError):
        return None
    if not faces:
        return None
    if faces[0].turn:
        return f"its face is upright only after a turn by {faces[0].turn}° counter-clockwise."
    distance = distance_to(faces[0].landmarks, points) / crop.shape[1]
    if distance <= MAX_DISTANCE:
        return None
    return f"its face lies {distance:.0%} of the height away from where an aligned crop has it."


def looks_like_a_crop(path: str | Path) -> bool:
    """Return whether a picture has at most 256 px a side, which photographs exceed.

    Args:
        path: Path of a picture.

    Raises:
        FileError: If the file cannot be read. The message names the file.

    Example:
        >>> looks_like_a_crop("nowhere.png")
        Traceback (most recent call last):
            ...
        captum_leam.errors.FileError: nowhere.png: there is no such file.
    """
    with open_picture(path) as image:
        return bool(max(image.size) <= MAX_CROP)
