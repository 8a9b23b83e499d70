"""Read aligned crops from picture files as floating-point RGB in [0, 1]."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from captum_leam.errors import CaptumLeamError, FileError
from captum_leam.faces.photos import as_rgb, open_picture

MAX_SIDE = 4096  # px; larger pictures are photographs or decompression bombs


def read_crop(path: str | Path) -> Tensor:
    """Read one aligned crop as upright RGB.

    Grey pictures become RGB, transparent pixels are blended with white, 16-bit values keep their scale, and the EXIF orientation is
    applied.

    Args:
        path: Path of a picture in one of the :data:`~captum_leam.faces.formats.FORMATS`.

    Returns:
        Crop of shape (3, H, W), float32 in [0, 1].

    Raises:
        FileError: If the file is missing, not readable, empty, truncated, not a picture or an animation, or if a side exceeds 4096 px.
            The message names the file.

    See Also:
        * :func:`~captum_leam.faces.read_photo`: Photographs.
        * :func:`~captum_leam.faces.read_crops`: Several crops as one batch.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("L", (4, 3), 255).save(f"{folder}/white.png")
        ...     read_crop(f"{folder}/white.png").shape
        torch.Size([3, 3, 4])
    """
    with open_picture(path) as image:
        if max(image.size) > MAX_SIDE:
            raise FileError(
                path,
                f"expected an aligned crop with at most {MAX_SIDE} px a side, got {image.size[0]} × {image.size[1]} px. Read photographs "
                "with read_photo and align them with FaceAligner.",
            )
        return as_rgb(image)


def read_crops(paths: Sequence[str | Path]) -> Tensor:
    """Read aligned crops of equal size.

    Args:
        paths: Paths of pictures in one of the :data:`~captum_leam.faces.formats.FORMATS`.

    Returns:
        Crops of shape (N, 3, H, W), float32 in [0, 1].

    Raises:
        CaptumLeamError: If no path is passed.
        FileError: If a file cannot be read by :func:`read_crop`, or its size differs from that of the first. The message names the file.

    See Also:
        :func:`~captum_leam.faces.read_faces`: Crops and photographs alike.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("RGB", (4, 3)).save(f"{folder}/black.png")
        ...     read_crops([f"{folder}/black.png"] * 2).shape
        torch.Size([2, 3, 3, 4])
    """
    if not paths:
        raise CaptumLeamError("Expected at least one picture, got none.")
    crops = [read_crop(path) for path in paths]
    size = crops[0].shape
    for path, crop in zip(paths, crops, strict=True):
        if crop.shape != size:
            raise FileError(
                path,
                f"expected {size[2]} × {size[1]} px, as {paths[0]}, got {crop.shape[2]} × {crop.shape[1]} px. Pass aligned crops of equal "
                "size.",
            )
    return torch.stack(crops)
