"""Reading aligned crops: any picture file to float RGB in [0, 1]."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

MAX_SIDE = 4096  # a crop is small; what is larger is a photograph, or a bomb


def read_crop(path: str | Path) -> Tensor:
    """Read one aligned crop: grey becomes RGB, transparency lies on white, 16 bits become 8, EXIF orientation is applied.

    Args:
        path: of a picture that Pillow reads.

    Returns:
        (3, H, W), float32 in [0, 1].

    Raises:
        ValueError: naming the file and why: missing, empty, no picture, truncated, or larger than 4096 px.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("L", (4, 3), 255).save(f"{folder}/white.png")
        ...     read_crop(f"{folder}/white.png").shape
        torch.Size([3, 3, 4])
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file.")
    if not path.stat().st_size:
        raise ValueError(f"{path}: the file is empty.")
    try:
        with Image.open(path) as image:
            if max(image.size) > MAX_SIDE:
                raise ValueError(
                    f"{path}: {image.size[0]} × {image.size[1]} px; an aligned crop has at most {MAX_SIDE} a side."
                )
            return _as_tensor(image)
    except UnidentifiedImageError:
        raise ValueError(f"{path}: this is no picture (not one that Pillow can read).") from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: the picture cannot be read ({error}).") from None


def _as_tensor(image: Image.Image) -> Tensor:
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I") or upright.mode == "F":  # 16 bits and more: Pillow would clip, not scale
        values = np.asarray(upright, dtype=np.float32)
        top = 65535.0 if values.max() > 255 else 255.0
        return torch.from_numpy(values / top).clamp(0, 1).expand(3, -1, -1).contiguous()
    if "A" in upright.getbands() or "transparency" in upright.info:
        over = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
    pixels = np.asarray(upright.convert("RGB"), dtype=np.float32) / 255
    return torch.from_numpy(pixels).movedim(-1, 0).contiguous()


def read_crops(paths: Sequence[str | Path]) -> Tensor:
    """Read aligned crops of one size.

    Returns:
        (N, 3, H, W), float32 in [0, 1].

    Raises:
        ValueError: as :func:`read_crop`; or for files of another size than the first, by name.
    """
    if not paths:
        raise ValueError("no picture is given.")
    crops = [read_crop(path) for path in paths]
    size = crops[0].shape
    for path, crop in zip(paths, crops, strict=True):
        if crop.shape != size:
            raise ValueError(
                f"{path}: {crop.shape[2]} × {crop.shape[1]} px, but {paths[0]} has {size[2]} × {size[1]}. Aligned crops have one size."
            )
    return torch.stack(crops)
