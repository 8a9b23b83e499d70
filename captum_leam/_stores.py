"""Paths in object stores: the part of ``pathlib.Path`` that a study uses, over fsspec."""

import errno
import os
import posixpath
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from captum_leam._optional import import_optional
from captum_leam.errors import CaptumLeamError, MissingExtraError, next_command

PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "memory": "fsspec"}
"""Scheme of the URLs of a store → package that reaches it. In all of these a written object is there whole or not at all."""

URL = re.compile(rf"({'|'.join(PACKAGES)})://[\w.-]+(/[^?]*)?")

URL_RULE = (
    f"Write {', '.join(f'{scheme}://BUCKET/KEY' for scheme in PACKAGES)} without user, password or query: credentials come from the "
    "environment."
)

ERRORS = {FileNotFoundError: errno.ENOENT, PermissionError: errno.EACCES, FileExistsError: errno.EEXIST}
"""Errors of one object, which clients of stores raise without their number."""


class StoreError(OSError):
    """A store that cannot be reached, which says nothing about the object: whoever skips unusable files must not skip this one."""


@dataclass(frozen=True)
class StorePath:
    """Path of an object in a store, or of the folder that the objects below it make up.

    Every fault of the store or of the way to it is an OSError with the URL. The text of the store's client, which could name an address
    with a password, is not part of it.

    Attributes:
        url: URL without a slash at its end.

    Example:
        >>> path = as_path("memory://example") / "a" / "b.txt"
        >>> path.write_bytes(b"text")
        >>> path.read_text(), path.exists(), path.parent.is_dir(), [entry.name for entry in path.parent.iterdir()]
        ('text', True, True, ['b.txt'])
    """

    url: str
    _kind: str = field(default="", compare=False, repr=False)

    # -- names

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str | Path) -> "StorePath":
        """Return a path below this one; ``..`` does not lead out of the bucket."""
        scheme, _, path = self.url.partition("://")
        bucket, _, key = path.partition("/")
        key = posixpath.normpath(posixpath.join("/", key, str(name)))
        return StorePath(f"{scheme}://{bucket}{key}".rstrip("/"))

    def __lt__(self, other: "StorePath") -> bool:
        return self.url.split("/") < other.url.split("/")

    @property
    def name(self) -> str:
        """Last part of the path."""
        return self.url.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """Name without its ending."""
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        """Ending of the name, with its dot."""
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> "StorePath":
        """Folder that it lies in."""
        return StorePath(self.url.rpartition("/")[0])

    # -- what is there

    @contextmanager
    def _reached(self) -> Iterator[tuple[Any, str]]:
        """Yield the file system of fsspec and the path in it."""
        try:
            files = _file_system(self.url.partition(":")[0])
            yield files, files._strip_protocol(self.url)
        except MissingExtraError:
            raise
        except Exception as error:
            for kind, code in ERRORS.items():
                if isinstance(error, kind):
                    raise OSError(code, os.strerror(code), self.url) from None
            if isinstance(number := getattr(error, "errno", None), int):
                raise StoreError(number, os.strerror(number), self.url) from None
            reason = f"{type(error).__name__}: see the credentials and the address of the store in the environment"
            raise StoreError(errno.EIO, reason, self.url) from None

    def _find_kind(self) -> str:
        """Return ``"file"`` or ``"directory"``; nothing if there is neither."""
        if self._kind:
            return self._kind
        with suppress(FileNotFoundError), self._reached() as (files, path):
            return str(files.info(path)["type"])
        return ""

    def exists(self) -> bool:
        """Return whether there is an object of this name, or one below it."""
        return self._find_kind() != ""

    def is_file(self) -> bool:
        """Return whether there is an object of this name."""
        return self._find_kind() == "file"

    def is_dir(self) -> bool:
        """Return whether there is an object below it."""
        return self._find_kind() == "directory"

    def is_symlink(self) -> bool:
        """Return False: stores have no links."""
        return False

    def iterdir(self) -> Iterator["StorePath"]:
        """Yield what lies directly in this folder."""
        with self._reached() as (files, path):
            entries = [(str(entry["name"]).rstrip("/"), entry["type"]) for entry in files.ls(path, detail=True)]
        for name, kind in entries:
            if name != path.rstrip("/"):  # an object that stands for the folder itself
                yield StorePath(f"{self.url}/{name.rpartition('/')[2]}", kind)

    def rglob(self, pattern: str) -> Iterator["StorePath"]:
        """Yield everything below this folder whose name fits a pattern."""
        for entry in self.iterdir() if self.is_dir() else ():
            if PurePosixPath(entry.name).match(pattern):
                yield entry
            yield from entry.rglob(pattern)

    # -- content

    def read_bytes(self) -> bytes:
        """Return the content of an object."""
        with local_file(self) as file:  # one request; ``cat_file`` of S3 asks for the size first
            return file.read_bytes()

    def read_text(self, encoding: str = "utf-8") -> str:
        """Return the content of an object as text."""
        return self.read_bytes().decode(encoding)

    def write_bytes(self, content: bytes, *, must_be_new: bool = False) -> None:
        """Write an object, whole.

        Raises:
            FileExistsError: With ``must_be_new``, if there is one.
        """
        with self._reached() as (files, path):
            files.pipe_file(path, content, mode="create" if must_be_new else "overwrite")

    def download(self, file: Path) -> None:
        """Copy an object to a local file."""
        with self._reached() as (files, path):
            files.get_file(path, str(file))

    def upload(self, file: Path) -> None:
        """Write an object from a local file, whole."""
        with self._reached() as (files, path):
            files.put_file(str(file), path)

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove an object."""
        try:
            with self._reached() as (files, path):
                files.rm_file(path)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Do nothing: a folder is there as soon as an object lies in it."""


AnyPath = Path | StorePath


@cache
def _file_system(scheme: str) -> Any:
    """Return the file system of a store, the same for all threads; listings are read anew, because other processes write, too."""
    fsspec = import_optional("fsspec")
    try:
        return fsspec.filesystem(scheme, use_listings_cache=False)
    except ImportError as error:
        package = PACKAGES[scheme]
        if package == "s3fs":
            import_optional(package)
        raise MissingExtraError(
            f"{package} cannot be imported ({error}). {next_command(f'pip install {package}')}"
        ) from error


def as_path(where: str | AnyPath, folder: AnyPath = Path()) -> AnyPath:
    """Return the path that a text names.

    Args:
        where: URL of a store, or path of a local file or folder.
        folder: Folder that paths are relative to. Default: the current one.

    Raises:
        CaptumLeamError: If it is the URL of anything else, or names a user, a password or a query. The message does not repeat these.

    Example:
        >>> as_path("faces"), as_path("s3://bucket/faces/"), as_path("../models", as_path("s3://bucket/faces"))
        (PosixPath('faces'), StorePath(url='s3://bucket/faces'), StorePath(url='s3://bucket/models'))
    """
    if isinstance(where, StorePath):
        return where
    if not is_url(where):
        return folder / where
    if not URL.fullmatch(str(where)):
        raise CaptumLeamError(f"Expected the URL of a store, got {without_credentials(str(where))}. {URL_RULE}")
    scheme, _, path = str(where).partition("://")
    bucket, _, key = path.partition("/")
    return StorePath(f"{scheme}://{bucket}") / key


def relative_path(path: AnyPath, folder: AnyPath) -> PurePath:
    """Return the path that leads from a folder to what lies below it.

    Example:
        >>> relative_path(as_path("s3://bucket/faces/ann/1.png"), as_path("s3://bucket/faces")).as_posix()
        'ann/1.png'
    """
    return (PurePosixPath(path.url) if isinstance(path, StorePath) else path).relative_to(str(folder))


def is_url(where: object) -> bool:
    """Return whether a text is a URL, not a local path.

    Example:
        >>> is_url("s3://bucket"), is_url("faces/ann")
        (True, False)
    """
    return "://" in str(where)


def without_credentials(text: str) -> str:
    """Return a text for a message, cut after ``://`` if what follows could name a user, a password or a signature.

    Example:
        >>> without_credentials("s3://bucket/a.png"), without_credentials("s3://ann:secret@bucket/a.png")
        ('s3://bucket/a.png', 's3://***')
    """
    return re.sub(r"://.*", "://***", text, flags=re.DOTALL) if is_url(text) and re.search("[@?]", text) else text


# -- local copies --------------------------------------------------------------------------------------


@contextmanager
def local_file(path: AnyPath) -> Iterator[Path]:
    """Yield a local file with the content of a path: the file itself, or a temporary copy of an object.

    Example:
        >>> as_path("memory://example/c.txt").write_bytes(b"text")
        >>> with local_file(as_path("memory://example/c.txt")) as file:
        ...     file.read_text(), file.suffix
        ('text', '.txt')
    """
    if isinstance(path, Path):
        yield path
        return
    with tempfile.TemporaryDirectory() as temporary, _named(path, copy := Path(temporary, f"copy{path.suffix}")):
        path.download(copy)
        yield copy


@contextmanager
def local_folder(folder: AnyPath, names: tuple[str, ...]) -> Iterator[Path]:
    """Yield a local folder with the content of a path: the folder itself, or a temporary copy of some of it.

    Args:
        folder: Folder, local or in a store.
        names: Files and folders in it that are copied; those that are not there are not copied.

    Example:
        >>> as_path("memory://example/results/tables/a").write_bytes(b"1")
        >>> with local_folder(as_path("memory://example/results"), ("tables", "maps")) as copy:
        ...     [path.relative_to(copy).as_posix() for path in copy.rglob("a")]
        ['tables/a']
    """
    if isinstance(folder, Path):
        yield folder
        return
    with tempfile.TemporaryDirectory() as temporary, _named(folder, Path(temporary)):
        for path in (path for name in names for path in (folder / name, *(folder / name).rglob("*"))):
            if path.is_file():
                copy = Path(temporary, relative_path(path, folder))
                copy.parent.mkdir(parents=True, exist_ok=True)
                path.download(copy)
        yield Path(temporary)


@contextmanager
def _named(path: StorePath, copy: Path) -> Iterator[None]:
    """Let errors of the package name the path, not its copy."""
    try:
        yield
    except CaptumLeamError as error:
        error.args = tuple(str(part).replace(str(copy), path.url) for part in error.args)
        raise
