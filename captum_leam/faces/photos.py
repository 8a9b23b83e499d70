"""Reading pictures that come from anywhere: every way in which a file can be bad ends in one line with its name."""

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
from captum_leam.faces.formats import picture_endings, readable_formats, why_unreadable
from captum_leam.faces.white import Depth

MIN_SIDE = 16  # no face can be told in less
MAX_SIDE = 16_384  # wider than the photograph of any camera
MAX_PIXELS = 64_000_000  # 768 MB as float RGB; telephones and most cameras stay below
SEVERAL = ("MPO", "HEIF")  # formats of telephones, which store more than the photograph

Folder = TypeVar("Folder", Path, StorePath)


def read_photo(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Read one photograph: grey becomes RGB, transparency lies on white, 16 bits keep their scale, EXIF orientation is applied.

    Coordinates of faces belong to the upright photograph as it is returned, not to the pixels as they are stored.

    Args:
        path: of a picture (:data:`~captum_leam.faces.formats.FORMATS`); of the several in an MPO or HEIF file (telephones) the main one.
        max_pixels: larger ones are refused before they are decoded.

    Returns:
        (3, H, W), float32 in [0, 1].

    Raises:
        CaptumLeamError: naming the file and why: missing, a folder, not permitted, empty, no picture, truncated, an ...
            16 px or over 16 384 px a side, or over ``max_pixels``.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("L", (40, 30), 255).save(f"{folder}/white.png")
        ...     read_photo(f"{folder}/white.png").shape
        torch.Size([3, 30, 40])
    """
    with opened(path) as image:
        width, height = image.size
        if min(width, height) < MIN_SIDE:
            raise FileError(path, f"{width} × {height} px; too small to show a face (expected {MIN_SIDE} a side).")
        if max(width, height) > MAX_SIDE or width * height > max_pixels:
            raise FileError(
                path,
                f"{width} × {height} px; a photograph has at most {MAX_SIDE} a side and {max_pixels / 1e6:.3g} "
                "million in all. Make it smaller, or cut out the face.",
            )
        return as_rgb(image)


def picture_files(where: str | Path | Sequence[str | Path]) -> list[Path]:
    """Return the files of pictures: those in a folder (:func:`list_pictures`), or the files given.

    Args:
        where: a folder, a file, or files.

    Raises:
        CaptumLeamError: naming the folder, if it cannot be read or holds no picture; or if nothing is given.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("b.png", "a.JPG", "notes.txt"):
        ...         _ = Path(folder, name).write_text("")
        ...     [path.name for path in picture_files(folder)]
        ['a.JPG', 'b.png']
    """
    return pictures_of(where)[0]


def pictures_of(where: str | Path | Sequence[str | Path]) -> tuple[list[Path], list[tuple[Path, str]]]:
    """Return :func:`picture_files` and, of a folder, what is skipped with the reason.

    Raises:
        CaptumLeamError: as :func:`picture_files`.

    Example:
        >>> pictures_of(["a.png", "b.png"])[1]
        []
    """
    if not isinstance(where, (str, Path)):
        if not where:
            raise CaptumLeamError("no picture is given.")
        return [Path(path) for path in where], []
    if not _is_folder(Path(where)):
        return [Path(where)], []
    pictures, skipped = list_pictures(Path(where))
    if not pictures:
        found = " ".join(f"{path.name}: {reason}" for path, reason in skipped[:3])
        raise FileError(where, f"the folder holds no picture ({', '.join(readable_formats())}). {found}".rstrip())
    return pictures, skipped


def list_pictures(folder: Folder, *, recursive: bool = False) -> tuple[list[Folder], list[tuple[Folder, str]]]:
    """List the picture files in a folder, and everything else in it that is not hidden.

    The ending decides, if it is that of a format that this Pillow decodes; whether such a file can be read shows when it is read. A file
    without an ending is a picture if its content is one. A picture under the ending of something else is skipped, because such
    files are often not meant as pictures: thumbnails in camera raw files, backups.

    Args:
        folder: Folder to list, local or in a store.
        recursive: Whether to descend into folders. Hidden folders and links to folders are not followed. Default: False.

    Returns:
        Picture files, and (path, reason) of what is skipped, both sorted.

    Raises:
        CaptumLeamError: If the folder cannot be read.

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
    endings = picture_endings()
    for path in _visible_entries(folder):
        if recursive and _is_folder(path) and not path.is_symlink():
            try:
                inner = list_pictures(path, recursive=True)
            except FileError as error:
                skipped.append((path, error.reason))
            else:
                pictures += inner[0]
                skipped += inner[1]
        elif reason := _why_skipped(path, endings):
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
    except OSError:  # in a folder that cannot be entered: reading the file says so
        return False


def _why_skipped(path: Path | StorePath, endings: Sequence[str]) -> str | None:
    ending = path.suffix.lower()
    if _is_folder(path):
        return "a folder; the pictures in it are not read."
    if ending in endings:
        return None
    try:
        with local_file(path) as file, opened(file) as image:
            kind = image.format
    except FileError as error:
        return error.reason
    except StoreError:
        raise
    except OSError as error:
        return f"the file cannot be read ({error.strerror})."
    return f"its content is {kind}, but it is called {ending}. Rename it if it is meant." if ending else None


@contextmanager
def opened(path: str | Path) -> Iterator[Image.Image]:
    """Open a picture; every fault of the file until it is closed becomes a :class:`FileError`.

    Pillow's own limit against decompression bombs counts as a fault, and so do animations.

    Example:
        >>> with opened("nowhere.png"):
        ...     pass
        Traceback (most recent call last):
            ...
        captum_leam.errors.FileError: nowhere.png: there is no such file.
    """
    _check_file(Path(path))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.simplefilter("always", DarkPictureWarning)
            known = [name for name in readable_formats() if name in Image.OPEN]  # MPO is opened as JPEG
            with Image.open(path, formats=known) as image:
                if getattr(image, "is_animated", False) and image.format not in SEVERAL:
                    raise FileError(path, "this holds several pictures (an animation); save the one that is meant.")
                yield image
    except UnidentifiedImageError:
        raise FileError(path, why_unreadable(Path(path))) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise FileError(path, f"too large, perhaps a decompression bomb ({error})") from None
    except UnknownWhiteError as error:
        raise FileError(path, str(error)) from None
    except FileError:
        raise
    except Exception as error:  # broken files make Pillow raise nearly anything
        raise FileError(path, f"the picture cannot be read ({error or type(error).__name__}).") from None


def _check_file(path: Path) -> None:
    try:
        if path.is_dir():
            raise FileError(path, "this is a folder, not a picture.")
        if not path.is_file():
            raise FileError(path, "there is no such file.")
        if not path.stat().st_size:
            raise FileError(path, "the file is empty.")
    except OSError as error:
        raise FileError(path, f"the file cannot be read ({error.strerror}).") from None


def as_rgb(image: Image.Image) -> Tensor:
    """Pixels of an opened picture, upright, in RGB.

    Returns:
        (3, H, W), float32 in [0, 1].

    Raises:
        CaptumLeamError: for pixels whose white is not known (:class:`~captum_leam.faces.white.Depth`).

    Example:
        >>> as_rgb(Image.new("RGBA", (2, 1), (255, 0, 0, 0))).tolist()  # transparent red is white
        [[[1.0, 1.0]], [[1.0, 1.0]], [[1.0, 1.0]]]
    """
    depth = Depth.of(image)
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I") or upright.mode == "F":  # 16 bits and more: Pillow would clip, not scale
        grey = depth.to_unit(upright)
        if (clear := image.info.get("transparency")) is not None:
            grey[torch.from_numpy(np.asarray(upright) == clear)] = 1
        return grey.expand(3, -1, -1).contiguous()
    depth.refuse_doubtful_colours(upright)
    if upright.has_transparency_data:
        over = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
    pixels = np.asarray(upright.convert("RGB"))
    return torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.float32) / np.float32(255))
