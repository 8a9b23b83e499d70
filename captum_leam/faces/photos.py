"""Read photographs from untrusted files, upright by EXIF orientation; a :class:`~captum_leam.errors.FileError` names unusable ones."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from captum_leam._stores import StoreError, StorePath, local_file
from captum_leam.errors import CaptumLeamError, DarkPictureWarning, FileError, UnknownWhiteError
from captum_leam.faces.formats import picture_suffixes, readable_formats, why_unreadable
from captum_leam.faces.white import SampleFormat

MIN_SIDE = 16  # px; smaller faces cannot be recognised
MAX_SIDE = 16_384  # px; wider than the photograph of any camera
MAX_PIXELS = 64_000_000  # 768 MB as float RGB; telephones and most cameras have fewer
MULTI_IMAGE_FORMATS = ("MPO", "HEIF")  # telephones store further images beside the photograph

Folder = TypeVar("Folder", Path, StorePath)


def read_photo(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Read one photograph as upright RGB.

    Grey pictures become RGB, transparent pixels are blended with white, 16-bit values keep their scale, and the EXIF orientation is
    applied. Coordinates of faces refer to the returned upright photograph.

    Args:
        path: Path of a picture in one of the :data:`~captum_leam.faces.formats.FORMATS`. MPO and HEIF files, which may hold several,
            yield the main picture.
        max_pixels: Maximum number of pixels, checked before the picture is decoded. Default: 64 000 000.

    Returns:
        Photograph of shape (3, H, W), float32 in [0, 1].

    Raises:
        FileError: If the file is missing, not readable, empty, truncated, not a picture or an animation; or if the picture has less than
            16 px or more than 16 384 px a side, or more than ``max_pixels`` pixels. The message names the file.

    See Also:
        * :func:`~captum_leam.faces.read_crop`: Aligned crops.
        * :class:`~captum_leam.faces.FaceAligner`: Detection and alignment of faces in a photograph.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("L", (40, 30), 255).save(f"{folder}/white.png")
        ...     read_photo(f"{folder}/white.png").shape
        torch.Size([3, 30, 40])
    """
    with open_picture(path) as image:
        width, height = image.size
        if min(width, height) < MIN_SIDE:
            raise FileError(
                path, f"expected a photograph with sides of {MIN_SIDE} px or more, got {width} × {height} px."
            )
        if max(width, height) > MAX_SIDE or width * height > max_pixels:
            raise FileError(
                path,
                f"expected a photograph with at most {MAX_SIDE} px a side and {max_pixels / 1e6:.3g} million pixels, got {width} × "
                f"{height} px. Shrink it, or crop the face.",
            )
        return as_rgb(image)


def picture_files(where: str | Path | Sequence[str | Path]) -> list[Path]:
    """Return the picture files in a folder, or the given files themselves.

    Args:
        where: Path of a folder, path of a file, or paths of files.

    Returns:
        Paths of the pictures. Those of a folder are sorted and selected by :func:`list_pictures`.

    Raises:
        CaptumLeamError: If the folder cannot be read or has no image file, or if no path is passed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("b.png", "a.JPG", "notes.txt"):
        ...         _ = Path(folder, name).write_text("")
        ...     [path.name for path in picture_files(folder)]
        ['a.JPG', 'b.png']
    """
    return split_pictures(where)[0]


def split_pictures(where: str | Path | Sequence[str | Path]) -> tuple[list[Path], list[tuple[Path, str]]]:
    """Return the result of :func:`picture_files` and the files of a folder that are skipped.

    Args:
        where: Path of a folder, path of a file, or paths of files.

    Returns:
        Paths of the pictures, and path and reason of each file that is skipped.

    Raises:
        FileError: If the folder cannot be read or has no image file.
        CaptumLeamError: If no path is passed.

    Example:
        >>> split_pictures(["a.png", "b.png"])[1]
        []
    """
    if not isinstance(where, (str, Path)):
        if not where:
            raise CaptumLeamError("Expected at least one picture, got none.")
        return [Path(path) for path in where], []
    if not _is_folder(Path(where)):
        return [Path(where)], []
    pictures, skipped = list_pictures(Path(where))
    if not pictures:
        reasons = " ".join(f"{path.name}: {reason}" for path, reason in skipped[:3])
        raise FileError(where, f"the folder has no image file ({', '.join(readable_formats())}). {reasons}".rstrip())
    return pictures, skipped


def list_pictures(folder: Folder, *, recursive: bool = False) -> tuple[list[Folder], list[tuple[Folder, str]]]:
    """Return the picture files in a folder, and the other entries that are not hidden.

    A file is a picture if its suffix belongs to a format that the installed Pillow decodes, whether or not it can be read. A file without
    a suffix is a picture if its content is one. A picture with another suffix is skipped, because such files, for example backups and
    camera raw files with thumbnails, are often not meant as pictures.

    Args:
        folder: Path of the folder, local or in a store.
        recursive: Whether to descend into folders. Hidden folders and links to folders are not followed. Default: False.

    Returns:
        Paths of the pictures, and path and reason of each entry that is skipped, both sorted.

    Raises:
        FileError: If the folder cannot be read.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("a.jfif", ".hidden.png", "empty.txt"):
        ...         _ = Path(folder, name).write_text("")
        ...     pictures, skipped = list_pictures(Path(folder))
        >>> [path.name for path in pictures], [(path.name, reason) for path, reason in skipped]
        (['a.jfif'], [('empty.txt', 'the file is empty.')])
    """
    pictures: list[Folder] = []
    skipped: list[tuple[Folder, str]] = []
    suffixes = picture_suffixes()
    for path in _visible_entries(folder):
        if recursive and _is_folder(path) and not path.is_symlink():
            try:
                inner_pictures, inner_skipped = list_pictures(path, recursive=True)
            except FileError as error:
                skipped.append((path, error.reason))
            else:
                pictures += inner_pictures
                skipped += inner_skipped
        elif reason := _why_skipped(path, suffixes):
            skipped.append((path, reason))
        else:
            pictures.append(path)
    return pictures, skipped


def _visible_entries(folder: Folder) -> list[Folder]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except StoreError:
        raise
    except OSError as error:
        where = folder if isinstance(folder, Path) else folder.url
        raise FileError(where, f"the folder cannot be read ({error.strerror}).") from None


def _is_folder(path: Path | StorePath) -> bool:
    try:
        return path.is_dir()
    except OSError:  # in a folder without permission, where reading the file raises the error with its name
        return False


def _why_skipped(path: Path | StorePath, suffixes: Sequence[str]) -> str | None:
    suffix = path.suffix.lower()
    if _is_folder(path):
        return "a folder; the pictures in it are not read."
    if suffix in suffixes:
        return None
    try:
        with local_file(path) as file, open_picture(file) as image:
            image_format = image.format
    except FileError as error:
        return error.reason
    except StoreError:
        raise
    except OSError as error:
        return f"the file cannot be read ({error.strerror})."
    return f"its content is {image_format}, but its suffix is {suffix}. Rename it to include it." if suffix else None


@contextmanager
def open_picture(path: str | Path) -> Iterator[Image.Image]:
    """Open a picture as a context manager that turns any failure into a :class:`FileError`.

    Animations and pictures over Pillow's limit against decompression bombs fail as well.

    Args:
        path: Path of the picture.

    Yields:
        The opened picture, which is decoded on first access.

    Raises:
        FileError: If the file cannot be read or decoded.

    Example:
        >>> with open_picture("nowhere.png"):
        ...     pass
        Traceback (most recent call last):
            ...
        captum_leam.errors.FileError: nowhere.png: there is no such file.
    """
    _check_file(Path(path))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of harmless faults in metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.simplefilter("always", DarkPictureWarning)
            formats = [name for name in readable_formats() if name in Image.OPEN]  # MPO is opened as JPEG
            with Image.open(path, formats=formats) as image:
                if getattr(image, "is_animated", False) and image.format not in MULTI_IMAGE_FORMATS:
                    raise FileError(path, "expected a single picture, got an animation. Save one of its pictures.")
                yield image
    except UnidentifiedImageError:
        raise FileError(path, why_unreadable(Path(path))) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise FileError(
            path, f"the picture is too large and may be a decompression bomb ({error}). Save a smaller picture."
        ) from None
    except UnknownWhiteError as error:
        raise FileError(path, str(error)) from None
    except FileError:
        raise
    except Exception as error:  # Pillow raises exceptions of many types for broken files
        raise FileError(path, f"the picture cannot be read ({error or type(error).__name__}).") from None


def _check_file(path: Path) -> None:
    try:
        if path.is_dir():
            raise FileError(path, "expected a picture, got a folder.")
        if not path.is_file():
            raise FileError(path, "there is no such file.")
        if not path.stat().st_size:
            raise FileError(path, "the file is empty.")
    except OSError as error:
        raise FileError(path, f"the file cannot be read ({error.strerror}).") from None


def as_rgb(image: Image.Image) -> Tensor:
    """Return the pixels of an opened picture, upright and in RGB.

    Args:
        image: Opened picture in any mode.

    Returns:
        Pixels of shape (3, H, W), float32 in [0, 1].

    Raises:
        UnknownWhiteError: If the white of the pixels is unknown (:class:`~captum_leam.faces.white.SampleFormat`).

    Example:
        >>> as_rgb(Image.new("RGBA", (2, 1), (255, 0, 0, 0))).tolist()  # transparent red becomes white
        [[[1.0, 1.0]], [[1.0, 1.0]], [[1.0, 1.0]]]
    """
    samples = SampleFormat.from_image(image)
    upright = ImageOps.exif_transpose(image)
    if (
        upright.mode.startswith("I") or upright.mode == "F"
    ):  # Pillow would clip more than 8 bits instead of scaling them
        grey = samples.to_unit(upright)
        if (transparent_value := image.info.get("transparency")) is not None:
            grey[torch.from_numpy(np.asarray(upright) == transparent_value)] = 1
        return grey.expand(3, -1, -1).contiguous()
    samples.raise_if_nearly_empty(upright)
    if upright.has_transparency_data:
        foreground = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", foreground.size, "white"), foreground)
    pixels = np.asarray(upright.convert("RGB"))
    return torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.float32) / np.float32(255))
