"""Reading aligned crops: any picture file to float RGB in [0, 1]."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from captum_leam.errors import CaptumLeamError, FileError
from captum_leam.faces.photos import as_rgb, opened

MAX_SIDE = 4096  # a crop is small; what is larger is a photograph, or a bomb


def read_crop(path: str | Path) -> Tensor:
    """Read one aligned crop: grey becomes RGB, transparency lies on white, 16 bits keep their scale, EXIF orientation is applied.

    Args:
        path: of a picture (:data:`~captum_leam.faces.formats.FORMATS`).

    Returns:
        (3, H, W), float32 in [0, 1].

    Raises:
        CaptumLeamError: naming the file and why: missing, empty, no picture, truncated, an animation, or larger ...

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("L", (4, 3), 255).save(f"{folder}/white.png")
        ...     read_crop(f"{folder}/white.png").shape
        torch.Size([3, 3, 4])
    """
    with opened(path) as image:
        if max(image.size) > MAX_SIDE:
            raise FileError(
                path,
                f"{image.size[0]} × {image.size[1]} px; an aligned crop has at most {MAX_SIDE} a side. Photographs "
                "are read by read_photo and aligned by FaceAligner.",
            )
        return as_rgb(image)


def read_crops(paths: Sequence[str | Path]) -> Tensor:
    """Read aligned crops of one size.

    Returns:
        (N, 3, H, W), float32 in [0, 1].

    Raises:
        CaptumLeamError: as :func:`read_crop`; or for files of another size than the first, by name.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("RGB", (4, 3)).save(f"{folder}/black.png")
        ...     read_crops([f"{folder}/black.png"] * 2).shape
        torch.Size([2, 3, 3, 4])
    """
    if not paths:
        raise CaptumLeamError("no picture is given.")
    crops = [read_crop(path) for path in paths]
    size = crops[0].shape
    for path, crop in zip(paths, crops, strict=True):
        if crop.shape != size:
            raise FileError(
                path,
                f"{crop.shape[2]} × {crop.shape[1]} px, but {paths[0]} has {size[2]} × {size[1]}. Aligned crops have one size.",
            )
    return torch.stack(crops)
