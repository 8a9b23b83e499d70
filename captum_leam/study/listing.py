"""List, hash and filter the images of a study and split them into shards of whole people."""

import csv
import io
import os
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm.auto import tqdm

from captum_leam._storage import file_sha256, hash_of
from captum_leam._text import as_text
from captum_leam.errors import ConfigError, FileError
from captum_leam.faces.formats import picture_endings
from captum_leam.faces.photos import list_pictures
from captum_leam.study.config import Config

MAX_TABLE_BYTES = 1 << 30
READERS = 8  # files that are hashed at once: what is waited for is the disk


@dataclass(frozen=True)
class Picture:
    """One file of one person.

    Attributes:
        number: Number in the study, from 0.
        person: Name of the person on it.
        path: Path of the file.
        name: The path as tables show it, relative and with /.
        groups: Values of the labels, in the order of ``Listing.labels``.
        sha256: SHA-256 of the file; empty where it could not be read.
        reason: Why it is left out; empty if it is not.
    """

    number: int
    person: str
    path: Path
    name: str
    groups: tuple[str, ...] = ()
    sha256: str = ""
    reason: str = ""


@dataclass(frozen=True)
class SkippedPath:
    """A file or folder below the folder of people that is no picture of the study.

    Attributes:
        what: ``"file"`` or ``"folder"``.
        person: Person whose folder it lies in; empty beside these folders.
        name: The path as tables show it, relative and with /.
        reason: Why it is left out.
    """

    what: str
    person: str
    name: str
    reason: str


@dataclass(frozen=True)
class Listing:
    """All pictures of a study, sorted by person and name, and what else lies beside them."""

    pictures: tuple[Picture, ...]
    labels: tuple[str, ...] = ()
    skipped_paths: tuple[SkippedPath, ...] = ()

    @property
    def usable(self) -> list[Picture]:
        """Pictures that are not left out."""
        return [picture for picture in self.pictures if not picture.reason]

    @property
    def sha256(self) -> str:
        """Hash of what was found: people, names and bytes of the pictures, and what else lies beside them."""
        pictures = [[picture.person, picture.name, picture.sha256] for picture in self.pictures]
        return hash_of(pictures, [other.name for other in self.skipped_paths])


def list_people(config: Config) -> Listing:
    """Return the pictures that the configuration names, sorted by person and file name and numbered; no file is read.

    Raises:
        ConfigError: If there is no person or no picture, or a table is wrong, with the row.

    Example:
        >>> import tempfile
        >>> from captum_leam.study.config import config_from
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("bob/1.png", "ann/2.png", "ann/1.jpg", "ann/notes.txt"):
        ...         Path(folder, name).parent.mkdir(exist_ok=True)
        ...         _ = Path(folder, name).write_text("")
        ...     config = config_from({"people": folder, "models": {"a": "torch.nn:Identity"}})
        ...     [(picture.number, picture.name) for picture in list_people(config).pictures]
        [(0, 'ann/1.jpg'), (1, 'ann/2.png'), (2, 'bob/1.png')]
    """
    found, skipped_paths = (list(_of_table(config)), []) if config.people.is_table else _of_folder(config)
    if not found:
        raise ConfigError(_nobody(config.people.path, skipped_paths))
    check_names_differ(picture.person for picture in found)
    labels = config.groups.columns
    if config.groups.path is not None:
        found = _with_groups(found, config)
    ordered = sorted(found, key=lambda picture: (picture.person, picture.name))
    return Listing(tuple(replace(picture, number=i) for i, picture in enumerate(ordered)), labels, tuple(skipped_paths))


def _nobody(path: Path, skipped_paths: Sequence[SkippedPath]) -> str:
    seen = "; ".join(f"{other.name}: {other.reason}" for other in skipped_paths[:3])
    return f"people: {path} holds no picture ({', '.join(picture_endings())}) of anyone. {seen}".rstrip()


def check_names_differ(names: Iterable[str]) -> None:
    """Raise for names that look the same, by which the images of one person would count as those of two.

    Raises:
        ConfigError: If two names look the same, with both as ASCII.

    Example:
        >>> check_names_differ(["Ann", "ann"])
        Traceback (most recent call last):
            ...
        captum_leam.errors.ConfigError: people: 'Ann' and 'ann' differ only by case, spaces or how Unicode writes them: ...
    """
    seen: dict[str, str] = {}
    for name in names:
        key = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
        if (other := seen.setdefault(unicodedata.normalize("NFKC", key), name)) != name:
            raise ConfigError(
                f"people: {other!a} and {name!a} differ only by case, spaces or how Unicode writes them: they would count as two people. "
                "Give one person one name, and two people names that can be told apart."
            )


def _of_folder(config: Config) -> tuple[list[Picture], list[SkippedPath]]:
    """List the pictures in the folder of each person, and everything else that is neither hidden nor the folder of results."""
    folder, results = config.people.path, os.path.realpath(config.out)
    if not folder.is_dir():
        raise ConfigError(f"people: {folder} is no folder and no CSV table.")
    try:
        entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise ConfigError(f"people: {folder} cannot be read ({error.strerror}).") from None
    pictures: list[Picture] = []
    skipped_paths: list[SkippedPath] = []
    for path in entries:
        name = as_text(path.name)
        if os.path.realpath(path) == results:
            continue
        if not os.path.isdir(path):
            skipped_paths.append(
                SkippedPath("file", "", name, "beside the folders of people: only pictures in PERSON/ are read")
            )
            continue
        try:
            files, skipped = list_pictures(path)
        except FileError as error:  # the other people go on
            skipped_paths.append(SkippedPath("folder", name, name, as_text(error.reason)))
            continue
        pictures += [Picture(0, name, file, f"{name}/{as_text(file.name)}") for file in files]
        if not files:
            skipped_paths.append(SkippedPath("folder", name, name, f"no picture of {name} in it"))
        for other, reason in skipped:
            skipped_paths += _with_content(other, reason, config, name)
    return pictures, skipped_paths


def _with_content(path: Path, reason: str, config: Config, person: str) -> Iterator[SkippedPath]:
    """Yield what is left out in a person's folder, and everything below it if it is a folder."""
    if os.path.realpath(path) == os.path.realpath(config.out):
        return
    is_folder = os.path.isdir(path)
    name = as_text(path.relative_to(config.people.path).as_posix())
    yield SkippedPath("folder" if is_folder else "file", person, name, as_text(reason))
    if not is_folder or path.is_symlink():
        return
    with suppress(OSError):  # a closed folder is named, what is in it cannot be
        for inner in sorted(path.iterdir()):
            if not inner.name.startswith("."):
                reason = f"in a folder of {person}'s folder: only pictures in PERSON/ are read"
                yield from _with_content(inner, reason, config, person)


def _rows(path: Path, names: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the rows of a CSV table with their line."""
    try:
        if path.exists() and not path.is_file():
            raise ConfigError(f"{path}: Expected a CSV table, but this is no file.")
        if path.stat().st_size > MAX_TABLE_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_TABLE_BYTES >> 20} MiB; split the study.")
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: the table cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: this is no text in UTF-8 ({error.reason} at byte {error.start}).") from None
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = list(reader.fieldnames or [])
        if missing := [name for name in names if name not in columns]:
            raise ConfigError(
                f"{path}: column {', '.join(missing)} is missing; there are {', '.join(columns) or 'none'}."
            )
        for row in reader:
            if None in row or any(row[name] is None for name in names):
                raise ConfigError(f"{path}, line {reader.line_num}: not as many cells as the {len(columns)} columns.")
            yield reader.line_num, {name: (row[name] or "").strip() for name in names}
    except csv.Error as error:
        raise ConfigError(f"{path}, line {reader.line_num}: this is no CSV ({error}).") from None


def _of_table(config: Config) -> Iterator[Picture]:
    people = config.people
    labels = config.groups.columns if config.groups.path is None else ()
    known: dict[str, tuple[str, ...]] = {}
    seen: dict[str, int] = {}
    for line, row in _rows(people.path, [people.picture_column, people.person_column, *labels]):
        where, person = row[people.picture_column], row[people.person_column]
        if not where or not person or "\0" in where:
            raise ConfigError(f"{people.path}, line {line}: the picture or the person is empty.")
        if where in seen:
            raise ConfigError(f"{people.path}, line {line}: {where} is there already, in line {seen[where]}.")
        seen[where] = line
        groups = tuple(row[label] for label in labels)
        if known.setdefault(person, groups) != groups:
            raise ConfigError(
                f"{people.path}, line {line}: {person} has {dict(zip(labels, groups, strict=True))}, in another line "
                f"{dict(zip(labels, known[person], strict=True))}; expected one value of each label for every person."
            )
        yield Picture(0, person, people.path.parent / where, Path(where).as_posix(), groups)


def _with_groups(pictures: list[Picture], config: Config) -> list[Picture]:
    groups = config.groups
    if groups.path is None:
        return pictures
    of: dict[str, tuple[str, ...]] = {}
    for line, row in _rows(groups.path, [groups.person_column, *groups.columns]):
        person = row[groups.person_column]
        if person in of:
            raise ConfigError(
                f"{groups.path}, line {line}: {person} is there twice; expected one row for every person."
            )
        of[person] = tuple(row[column] for column in groups.columns)
    people = dict.fromkeys(picture.person for picture in pictures)
    check_names_differ([*people, *of])
    if not set(people) & set(of):
        raise ConfigError(
            f"{groups.path}: none of its {len(of)} people ({', '.join(list(of)[:3])}) is in the study ({', '.join(list(people)[:3])}); "
            f"expected the same names, in column {groups.person_column!r}."
        )
    unknown = ("",) * len(groups.columns)
    return [replace(picture, groups=of.get(picture.person, unknown)) for picture in pictures]


# -- what can count ------------------------------------------------------------------------------------


def hashed(listing: Listing, min_images: int, *, progress: bool = False) -> Listing:
    """Return the listing with hashes of the files, and what cannot count left out with the reason.

    Left out are files that cannot be read, second copies of the same bytes (an image must not be among its own references, nor be of two
    people), and people with fewer than ``min_images`` pictures left.
    """
    with ThreadPoolExecutor(READERS) as readers:
        read = readers.map(_hash, listing.pictures)
        pictures = list(
            tqdm(read, total=len(listing.pictures), desc="reading files", unit="file", disable=not progress)
        )
    first: dict[str, Picture] = {}
    for i, picture in enumerate(pictures):
        if picture.reason:
            continue
        twin = first.setdefault(picture.sha256, picture)
        if twin is not picture:
            pictures[i] = mark_copy(picture, twin, "the same bytes as")
    return replace(listing, pictures=tuple(without_lonely(pictures, min_images)))


def mark_copy(picture: Picture, first: Picture, how: str) -> Picture:
    """Leave out a picture that is a copy of another.

    Example:
        >>> ann, bob = Picture(0, "ann", Path("1.png"), "ann/1.png"), Picture(1, "bob", Path("2.png"), "bob/2.png")
        >>> mark_copy(bob, ann, "shows the same as").reason
        'shows the same as ann/1.png of ann, another person'
    """
    whose = "" if first.person == picture.person else f" of {first.person}, another person"
    return replace(picture, reason=f"{how} {first.name}{whose}")


def without_lonely(pictures: Sequence[Picture], min_images: int) -> list[Picture]:
    """Leave out people with too few pictures left, with all of them.

    Example:
        >>> few = [Picture(0, "ann", Path("a"), "a"), Picture(1, "bob", Path("b"), "b"), Picture(2, "bob", Path("c"), "c")]
        >>> [picture.reason for picture in without_lonely(few, 2)]
        ['only 1 usable picture of ann; expected 2 or more', '', '']
    """
    count: dict[str, int] = {}
    for picture in pictures:
        count[picture.person] = count.get(picture.person, 0) + (not picture.reason)
    return [
        replace(picture, reason=too_few(picture.person, count[picture.person], min_images))
        if not picture.reason and count[picture.person] < min_images
        else picture
        for picture in pictures
    ]


def too_few(person: str, count: int, min_images: int) -> str:
    """Return the reason for leaving out a person."""
    return f"only {count} usable picture{'s' * (count != 1)} of {person}; expected {min_images} or more"


def _hash(picture: Picture) -> Picture:
    if picture.reason:
        return picture
    try:
        return replace(picture, sha256=file_sha256(picture.path))
    except OSError as error:
        return replace(picture, reason=f"the file cannot be read ({error.strerror})")


def split(pictures: Sequence[Picture], size: int) -> list[tuple[Picture, ...]]:
    """Split pictures into shards of whole people, each of one person or more, and of at most ``size`` pictures where that allows it.

    Example:
        >>> people = [Picture(i, name, Path(name), name) for i, name in enumerate("aabbbc")]
        >>> [[picture.person for picture in shard] for shard in split(people, 3)]
        [['a', 'a'], ['b', 'b', 'b'], ['c']]
    """
    of: dict[str, list[Picture]] = {}
    for picture in pictures:
        of.setdefault(picture.person, []).append(picture)
    shards: list[list[Picture]] = []
    for own in of.values():
        if not shards or len(shards[-1]) + len(own) > size:
            shards.append([])
        shards[-1].extend(own)
    return [tuple(shard) for shard in shards]
