"""List the pictures of a gallery, a folder with pictures, folders of people, or both."""

from pathlib import Path

from captum_leam._text import as_text
from captum_leam.errors import FileError
from captum_leam.faces.formats import readable_formats
from captum_leam.faces.photos import list_pictures


def gallery_pictures(folder: str | Path) -> tuple[list[tuple[Path, str]], list[FileError]]:
    """Return the pictures of a gallery with their names, and skipped files.

    A picture in ``folder/PERSON/`` has the name of that folder, and a picture in ``folder/`` the name of the file without its suffix.
    Pictures of one name show one person. Hidden files are ignored.

    Args:
        folder: Folder of the gallery.

    Returns:
        Path and name of each picture, and the skipped files with their reasons.

    Raises:
        FileError: If ``folder`` is not a folder, cannot be read, or has no image file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Path(folder, "ann").mkdir()
        ...     for name in ("ann/1.png", "ann/2.png", "bob.jpg"):
        ...         _ = Path(folder, name).write_text("")
        ...     [(path.name, name) for path, name in gallery_pictures(folder)[0]]
        [('1.png', 'ann'), ('2.png', 'ann'), ('bob.jpg', 'bob')]
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileError(folder, "expected a folder with pictures, or with one folder for each person, got no folder.")
    listed, others = list_pictures(root)
    pictures = [(path, as_text(path.stem)) for path in listed]
    folders = [path for path, _ in others if path.is_dir()]
    skipped = [FileError(path, reason) for path, reason in others if path not in folders]
    for person in folders:
        own, unusable = list_pictures(person, recursive=True)
        pictures += [(path, as_text(person.name)) for path in own]
        skipped += [FileError(path, reason) for path, reason in unusable]
    if not pictures:
        raise FileError(folder, f"the gallery contains no image file ({', '.join(readable_formats())}).")
    return sorted(pictures), skipped
