"""Picture formats that the installed Pillow decodes, and their file suffixes."""

from functools import cache
from pathlib import Path

from PIL import Image, features

from captum_leam.errors import next_command

FORMATS = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
"""Formats that are read if the installed Pillow decodes them.

The other formats of Pillow are not used for photographs, and some of them start programs, as EPS starts Ghostscript.
"""

LIBRARIES = {"AVIF": "avif", "JPEG": "jpg", "JPEG2000": "jpg_2000", "WEBP": "webp"}
"""Formats that Pillow registers even if it was built without the library that decodes them."""

HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
HEIF_SUFFIXES = (".heic", ".heics", ".heif", ".heifs", ".hif")


def readable_formats() -> list[str]:
    """Return the :data:`FORMATS` that the installed Pillow decodes, which include HEIF if pillow-heif is installed.

    Example:
        >>> {"JPEG", "PNG"} <= set(readable_formats())
        True
    """
    Image.init()
    _register_heif()
    return [name for name in FORMATS if _is_decoded("JPEG" if name == "MPO" else name)]


def picture_suffixes() -> tuple[str, ...]:
    """Return the file suffixes of :func:`readable_formats` in lower case, sorted.

    Example:
        >>> {".jfif", ".jpg", ".mpo", ".png", ".tiff"} <= set(picture_suffixes())
        True
    """
    readable = readable_formats()
    return tuple(sorted(suffix for suffix, name in Image.registered_extensions().items() if name in readable))


def why_unreadable(path: Path) -> str:
    """Return the reason why Pillow does not recognise a file, and what to do about it.

    Args:
        path: Path of the file.

    Example:
        >>> why_unreadable(Path("notes.txt"))
        'not a picture that this Pillow can read (AVIF, BMP, ...'
    """
    readable = readable_formats()
    suffix = path.suffix.lower()
    if "HEIF" not in readable and (suffix in HEIF_SUFFIXES or _is_heif(path)):
        return (
            f"not a picture that this Pillow can read ({suffix if suffix in HEIF_SUFFIXES else 'HEIF'}), because it cannot decode HEIF. "
            f"Save the picture as JPEG, or install pillow-heif. {next_command('pip install pillow-heif')}"
        )
    return f"not a picture that this Pillow can read ({', '.join(readable)})."


def _is_decoded(name: str) -> bool:
    opener = Image.OPEN.get(name)
    if opener is None:
        return False
    is_built_in = opener[0].__module__.startswith("PIL.")  # plugins bring their own library
    return not is_built_in or name not in LIBRARIES or bool(features.check(LIBRARIES[name]))


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
