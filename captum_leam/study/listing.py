"""List, hash and filter the images of a study and split them into shards of whole people."""

import csv
import io
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import groupby, repeat
from operator import attrgetter
from pathlib import Path

from tqdm.auto import tqdm

from captum_leam._storage import file_sha256, hash_of
from captum_leam._stores import AnyPath, StoreError, StorePath, as_path, is_url, relative_path
from captum_leam._text import as_text
from captum_leam.errors import CaptumLeamError, ConfigError, FileError
from captum_leam.faces.formats import picture_suffixes
from captum_leam.faces.photos import list_pictures
from captum_leam.study.config import Config, Groups

READERS = 8  # files that are hashed at once: what is waited for is the disk


@dataclass(frozen=True, slots=True)
class Picture:
    """One file of one person.

    Attributes:
        number: Number in the study, from 0.
        person: Name of the person on it.
        where: Path of the file with /, relative to ``People.folder``, or its URL. A text takes less memory than a ``Path``.
        groups: Values of the labels, in the order of ``Listing.labels``.
        sha256: SHA-256 of the file; empty where it could not be read.
        reason: Why it is left out; empty if it is not.
    """

    number: int
    person: str
    where: str
    groups: tuple[str, ...] = ()
    sha256: str = ""
    reason: str = ""

    @property
    def name(self) -> str:
        """The path as tables show it."""
        return as_text(self.where)

    def path(self, folder: AnyPath) -> AnyPath:
        """Return the path of the file, local or in a store, given ``People.folder``."""
        return as_path(self.where, folder)


@dataclass(frozen=True)
class SkippedPath:
    """A file or folder below the folder of people that is not a picture of the study.

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
        ConfigError: If there is no person or none of their pictures, or a table is wrong, with the row.

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
        endings = ", ".join(picture_suffixes())
        seen = "; ".join(f"{other.name}: {other.reason}" for other in skipped_paths[:3])
        raise ConfigError(
            f"people: expected image files ({endings}) of people in {config.people.path}, got none. {seen}".rstrip()
        )
    check_names_differ(picture.person for picture in found)
    labels = config.groups.columns
    if config.groups.path is not None:
        found = _with_groups(found, config.groups, config.groups.path)
    ordered = sorted(found, key=lambda picture: (picture.person, picture.name))
    return Listing(tuple(replace(picture, number=i) for i, picture in enumerate(ordered)), labels, tuple(skipped_paths))


def check_names_differ(names: Iterable[str]) -> None:
    """Raise for names that look the same, by which the images of one person would count as those of two.

    Raises:
        ConfigError: If two names look the same, with both as ASCII.

    Example:
        >>> check_names_differ(["Ann", "ann"])
        Traceback (most recent call last):
            ...
        captum_leam.errors.ConfigError: people: expected names that differ by more than case, spaces or Unicode form, got 'Ann' ...
    """
    seen: dict[str, str] = {}
    for name in names:
        key = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
        if (other := seen.setdefault(unicodedata.normalize("NFKC", key), name)) != name:
            raise ConfigError(
                f"people: expected names that differ by more than case, spaces or Unicode form, got {other!a} and {name!a}. Use one name "
                "for one person, and clearly different names for two people."
            )


def _of_folder(config: Config) -> tuple[list[Picture], list[SkippedPath]]:
    """List the pictures in the folder of each person, and everything else that is neither hidden nor the folder of results."""
    folder, results = config.people.path, _real(config.out)
    if not folder.is_dir():
        raise ConfigError(f"people: expected a folder or a CSV table, got {folder}.")
    try:
        entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise ConfigError(f"people: {folder} cannot be read ({error.strerror}).") from None
    pictures: list[Picture] = []
    skipped_paths: list[SkippedPath] = []
    for path in entries:
        name = as_text(path.name)
        if _real(path) == results:
            continue
        if not _is_folder(path):
            skipped_paths.append(
                SkippedPath("file", "", name, "beside the folders of people: only pictures in PERSON/ are read")
            )
            continue
        try:
            files, skipped = list_pictures(path)  # type: ignore[type-var]
        except FileError as error:  # the other people go on
            skipped_paths.append(SkippedPath("folder", name, name, as_text(error.reason)))
            continue
        pictures += [Picture(0, name, f"{path.name}/{file.name}") for file in files]
        if not files:
            skipped_paths.append(SkippedPath("folder", name, name, f"no image file of {name} in it"))
        for other, reason in skipped:
            skipped_paths += _skipped(other, reason, config, name)
    return pictures, skipped_paths


def _real(path: AnyPath) -> str:
    """Return a path without links, as text."""
    return path.url if isinstance(path, StorePath) else os.path.realpath(path)


def _is_folder(path: AnyPath) -> bool:
    """Return whether a path is a folder; False if that cannot be found out."""
    return path.is_dir() if isinstance(path, StorePath) else os.path.isdir(path)


def _skipped(path: AnyPath, reason: str, config: Config, person: str) -> Iterator[SkippedPath]:
    """Yield what is left out in a person's folder, and everything below it if it is a folder; hidden files and the results are not."""
    reasons = {path: as_text(reason)}
    if _is_folder(path) and not path.is_symlink():
        below = f"in a folder of {person}'s folder: only pictures in PERSON/ are read"
        reasons |= dict.fromkeys(sorted(path.rglob("*")), below)
    results = _real(config.out)
    for one, why in reasons.items():
        is_hidden = any(part.startswith(".") for part in relative_path(one, path).parts)
        if not is_hidden and not Path(_real(one)).is_relative_to(results):
            name = as_text(relative_path(one, config.people.path).as_posix())
            yield SkippedPath("folder" if _is_folder(one) else "file", person, name, why)


def _rows(path: AnyPath, names: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the rows of a CSV table with their line."""
    try:
        if path.exists() and not path.is_file():
            raise ConfigError(f"{path}: expected a CSV table, got no regular file.")
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: the table cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: expected text in UTF-8, got {error.reason} at byte {error.start}. Save the table as UTF-8."
        ) from None
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = list(reader.fieldnames or [])
        if missing := [name for name in names if name not in columns]:
            raise ConfigError(f"{path}: expected the column {', '.join(missing)}, got {', '.join(columns) or 'none'}.")
        for row in reader:
            if None in row or any(row[name] is None for name in names):
                raise ConfigError(
                    f"{path}, line {reader.line_num}: expected {len(columns)} cells, one for each column, got fewer or more."
                )
            yield reader.line_num, {name: (row[name] or "").strip() for name in names}
    except csv.Error as error:
        raise ConfigError(f"{path}, line {reader.line_num}: expected CSV, got a syntax error ({error}).") from None


def _of_table(config: Config) -> Iterator[Picture]:
    people = config.people
    labels = config.groups.columns if config.groups.path is None else ()
    known: dict[str, tuple[str, ...]] = {}
    seen: dict[str, int] = {}
    names: dict[str, str] = {}  # one text for all pictures of a person
    for line, row in _rows(people.path, [people.picture_column, people.person_column, *labels]):
        where, person = row[people.picture_column], row[people.person_column]
        if not where or not person or "\0" in where:
            raise ConfigError(f"{people.path}, line {line}: expected a picture and a person, got an empty cell.")
        if where in seen:
            raise ConfigError(
                f"{people.path}, line {line}: expected each picture once, got {where} again, after line {seen[where]}."
            )
        seen[where] = line
        try:
            as_path(where)  # raises for a URL of anything else than a store
        except CaptumLeamError as error:
            raise ConfigError(f"{people.path}, line {line}: {error}") from None
        groups = tuple(row[label] for label in labels)
        if known.setdefault(person, groups) != groups:
            raise ConfigError(
                f"{people.path}, line {line}: expected one value of each label for {person}, got "
                f"{dict(zip(labels, groups, strict=True))} and, "
                f"in an earlier line, {dict(zip(labels, known[person], strict=True))}."
            )
        yield Picture(
            0, names.setdefault(person, person), where if is_url(where) else Path(where).as_posix(), known[person]
        )


def _with_groups(pictures: list[Picture], groups: Groups, path: AnyPath) -> list[Picture]:
    """Return the pictures with the labels of a table of people."""
    labels: dict[str, tuple[str, ...]] = {}
    for line, row in _rows(path, [groups.person_column, *groups.columns]):
        person = row[groups.person_column]
        if person in labels:
            raise ConfigError(f"{path}, line {line}: expected one row for each person, got {person} again.")
        labels[person] = tuple(row[column] for column in groups.columns)
    people = dict.fromkeys(picture.person for picture in pictures)
    check_names_differ([*people, *labels])
    if not set(people) & set(labels):
        raise ConfigError(
            f"{path}: expected people of the study ({', '.join(list(people)[:3])}) in column {groups.person_column!r}, got none of them "
            f"but {', '.join(list(labels)[:3])}. Use the same names in both."
        )
    unknown = ("",) * len(groups.columns)
    return [replace(picture, groups=labels.get(picture.person, unknown)) for picture in pictures]


# -- what can count ------------------------------------------------------------------------------------


def hashed(listing: Listing, folder: AnyPath, min_images: int, *, progress: bool = False) -> Listing:
    """Return the listing with hashes of the files, and what cannot count left out with the reason.

    Left out are files that cannot be read, second copies of the same bytes (an image must not be among its own references, nor be of two
    people), and people with fewer than ``min_images`` pictures left.
    """
    with ThreadPoolExecutor(READERS) as readers:
        read = readers.map(_hash, listing.pictures, repeat(folder))
        pictures = list(
            tqdm(read, total=len(listing.pictures), desc="reading files", unit="file", disable=not progress)
        )
    first: dict[str, Picture] = {}
    for i, picture in enumerate(pictures):
        if not picture.reason and first.setdefault(picture.sha256, picture) is not picture:
            pictures[i] = mark_copy(picture, first[picture.sha256], "the same bytes as")
    return replace(listing, pictures=tuple(without_lonely(pictures, min_images)))


def mark_copy(picture: Picture, first: Picture, how: str) -> Picture:
    """Leave out a picture that is a copy of another.

    Example:
        >>> ann, bob = Picture(0, "ann", "ann/1.png"), Picture(1, "bob", "bob/2.png")
        >>> mark_copy(bob, ann, "shows the same as").reason
        'shows the same as ann/1.png of ann, another person'
    """
    whose = "" if first.person == picture.person else f" of {first.person}, another person"
    return replace(picture, reason=f"{how} {first.name}{whose}")


def without_lonely(pictures: Sequence[Picture], min_images: int) -> list[Picture]:
    """Leave out people with too few pictures left, with all of them.

    Example:
        >>> few = [Picture(0, "ann", "a"), Picture(1, "bob", "b"), Picture(2, "bob", "c")]
        >>> [picture.reason for picture in without_lonely(few, 2)]
        ['only 1 usable picture of ann; expected 2 or more', '', '']
    """
    count = Counter(picture.person for picture in pictures if not picture.reason)
    return [
        picture
        if picture.reason or count[picture.person] >= min_images
        else replace(picture, reason=too_few(picture.person, count[picture.person], min_images))
        for picture in pictures
    ]


def too_few(person: str, count: int, min_images: int) -> str:
    """Return the reason for leaving out a person."""
    return f"only {count} usable picture{'s' * (count != 1)} of {person}; expected {min_images} or more"


def _hash(picture: Picture, folder: AnyPath) -> Picture:
    try:
        return replace(picture, sha256=file_sha256(picture.path(folder)))
    except StoreError:
        raise
    except OSError as error:
        return replace(picture, reason=f"the file cannot be read ({error.strerror})")


def split(pictures: Sequence[Picture], size: int) -> list[tuple[Picture, ...]]:
    """Split pictures, sorted by person, into shards of whole people: of one person or more, of at most ``size`` pictures where possible.

    Example:
        >>> people = [Picture(i, name, name) for i, name in enumerate("aabbbc")]
        >>> [[picture.person for picture in shard] for shard in split(people, 3)]
        [['a', 'a'], ['b', 'b', 'b'], ['c']]
    """
    shards: list[list[Picture]] = []
    for _, of_person in groupby(pictures, key=attrgetter("person")):
        new = list(of_person)
        if not shards or len(shards[-1]) + len(new) > size:
            shards.append([])
        shards[-1] += new
    return [tuple(shard) for shard in shards]
