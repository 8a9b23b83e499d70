"""Picture formats: what this Pillow decodes, under which endings, and what to do about the others."""

from functools import cache
from pathlib import Path

from PIL import Image, features

from captum_leam.errors import next_command

FORMATS = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
"""What is decoded, as far as this Pillow can; of its other formats some start programs (EPS: Ghostscript), and none is of photographs."""

LIBRARIES = {"AVIF": "avif", "JPEG": "jpg", "JPEG2000": "jpg_2000", "WEBP": "webp"}
"""Formats that Pillow registers even if it was built without the library that decodes them."""

HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
HEIF_ENDINGS = (".heic", ".heics", ".heif", ".heifs", ".hif")


def readable_formats() -> list[str]:
    """Return those of :data:`FORMATS` that this Pillow decodes. HEIF is among them once pillow-heif is installed.

    Example:
        >>> {"JPEG", "PNG"} <= set(readable_formats())
        True
    """
    Image.init()
    _register_heif()
    return [name for name in FORMATS if _is_decoded("JPEG" if name == "MPO" else name)]


def picture_endings() -> tuple[str, ...]:
    """Return the endings, in lower case, under which files of :func:`readable_formats` go.

    Example:
        >>> {".jfif", ".jpg", ".mpo", ".png", ".tiff"} <= set(picture_endings())
        True
    """
    readable = readable_formats()
    return tuple(sorted(ending for ending, name in Image.registered_extensions().items() if name in readable))


def why_unreadable(path: Path) -> str:
    """Return why a file that Pillow does not identify is none of :func:`readable_formats`, and what to do.

    Example:
        >>> why_unreadable(Path("notes.txt"))
        'not a picture that this Pillow can read (AVIF, BMP, ...'
    """
    readable = readable_formats()
    ending = path.suffix.lower()
    if "HEIF" not in readable and (ending in HEIF_ENDINGS or _is_heif(path)):
        return (
            f"not a picture that this Pillow can read ({ending if ending in HEIF_ENDINGS else 'HEIF'}): it cannot decode HEIF. Save the "
            f"picture as JPEG, or install pillow-heif, which is then registered with Pillow. {next_command('pip install pillow-heif')}"
        )
    return f"not a picture that this Pillow can read ({', '.join(readable)})."


def _is_decoded(name: str) -> bool:
    opener = Image.OPEN.get(name)
    if opener is None:
        return False
    of_pillow = opener[0].__module__.startswith("PIL.")  # else of a plugin that brings its own library
    return not of_pillow or name not in LIBRARIES or bool(features.check(LIBRARIES[name]))


@cache
def _register_heif() -> None:
    try:
        from pillow_heif import register_heif_opener  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return
    register_heif_opener()


def _is_heif(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError:
        return False
    return head[4:8] == b"ftyp" and head[8:] in HEIF_BRANDS
