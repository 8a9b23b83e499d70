"""Atomic, checksummed file storage, on disks and in stores.

A shard is a safetensors payload followed by its SHA-256 and a mark. A file that is truncated or changed does not fit its checksum. It is
never read, counts as missing, and is recomputed.
"""

import errno
import hashlib
import json
import logging
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from captum_leam._optional import import_optional
from captum_leam._stores import AnyPath, StorePath, local_file
from captum_leam.errors import BrokenFileError, BusyError

MARK = b"\nLEAMshard1\n"
FOOTER = 64 + len(MARK)
BEAT, SILENCE = 5.0, 30.0
"""Seconds between two signs of life of a run that writes into a store, and without one after which it counts as killed."""

Array = NDArray[Any]


# -- writing -------------------------------------------------------------------------------------------


@contextmanager
def atomic_write(path: AnyPath) -> Iterator[Path]:
    """Context manager that yields a temporary path, whose file replaces another one when it is complete and on the disk.

    The temporary file is in the same folder, is synced and then renamed, so that ``path`` is never an incomplete file. If anything
    fails, the temporary file is removed and ``path`` is not changed. An object of a store is written from a local file.

    Args:
        path: Path of the file, on a disk or in a store.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic_write(Path(folder) / "table.csv") as place:
        ...         _ = place.write_text("a,b")
        ...     sorted(os.listdir(folder))
        ['table.csv']
    """
    if isinstance(path, StorePath):
        with tempfile.TemporaryDirectory() as folder:
            yield (place := Path(folder, "new"))
            path.upload(place)
        return
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.", suffix=".part")
    os.close(handle)
    place = Path(name)
    try:
        yield place
        _sync(place)
        os.chmod(place, 0o666 & ~_umask())
        os.replace(place, path)
    except BaseException:
        with suppress(OSError):
            place.unlink()
        raise
    with suppress(OSError):  # not every file system can sync the folder, and with it the new name
        _sync(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    now = os.umask(0o077)
    os.umask(now)
    return now


def write_bytes(path: AnyPath, content: bytes) -> None:
    """Write a file atomically.

    Args:
        path: Path of the file, on a disk or in a store.
        content: Bytes of the file.
    """
    if isinstance(path, StorePath):
        path.write_bytes(content)
        return
    with atomic_write(path) as place, open(place, "wb") as file:
        file.write(content)


def file_sha256(path: AnyPath) -> str:
    """Return the SHA-256 of a file in hex without loading it as a whole.

    Args:
        path: Path of the file, on a disk or in a store.

    Raises:
        OSError: If it is not a file or cannot be read.

    Example:
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     file_sha256(Path(file.name))[:8]
        'e3b0c442'
    """
    if isinstance(path, Path) and path.exists() and not path.is_file():  # reading a pipe or a device might never end
        raise OSError(errno.EINVAL, "it is no file")
    with local_file(path) as local, open(local, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_of(*parts: Any) -> str:
    """Return a name of 32 hex digits for the values that a shard depends on.

    Args:
        *parts: Values that JSON can represent.

    Example:
        >>> hash_of("a", 1) == hash_of("a", 1), hash_of("a", 1) == hash_of("a", 1.5)
        (True, False)
    """
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@contextmanager
def atomic_folder(folder: AnyPath, earlier: Sequence[str] = ()) -> Iterator[Path]:
    """Context manager that yields a temporary folder, whose files move to another folder together when all are on the disk.

    If anything fails, the other folder is not changed, or not created. In a store, complete files follow one another in the order of their
    names.

    Args:
        folder: Folder that the files, with their subfolders, move to. Files of the same names are replaced.
        earlier: Names of files in it that are removed. Default: none.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic_folder(Path(folder, "new")) as place:
        ...         _ = (place / "page.html").write_text("<p>")
        ...     sorted(os.listdir(Path(folder, "new")))
        ['page.html']
    """
    if isinstance(folder, StorePath):
        with tempfile.TemporaryDirectory() as temporary:
            yield Path(temporary)
            for path in sorted(path for path in Path(temporary).rglob("*") if path.is_file()):
                (folder / path.relative_to(temporary).as_posix()).upload(path)
        for name in earlier:
            (folder / name).unlink(missing_ok=True)
        return
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".", suffix=".part") as temporary:
            place, replaced = Path(temporary, "new"), Path(temporary, "replaced")
            place.mkdir()
            yield place
            names = [str(path.relative_to(place)) for path in sorted(place.rglob("*")) if path.is_file()]
            for name in names:
                _sync(place / name)
            gone = [name for name in sorted({*earlier, *names}) if (folder / name).is_file()]
            moves = [(folder / name, replaced / name) for name in gone]
            moves += [(place / name, folder / name) for name in names]
            missing = _missing({target.parent for _, target in moves})
            new = [*missing, *new]
            for path in reversed(missing):
                path.mkdir()
            _move(moves)
    except BaseException:
        for path in new:
            with suppress(OSError):
                path.rmdir()
        raise


def _missing(folders: Iterable[Path]) -> list[Path]:
    """Return the folders and their parents that do not exist, the innermost first."""
    found = {path for folder in folders for path in (folder, *folder.parents) if not path.exists()}
    return sorted(found, key=lambda path: -len(path.parts))


def _move(files: Sequence[tuple[Path, Path]]) -> None:
    """Move all files, or none if one cannot be moved."""
    try:
        for source, target in files:
            source.replace(target)
    except BaseException:
        for source, target in reversed(files):
            if not source.exists():
                target.replace(source)
        raise


# -- shards --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shard:
    """Arrays and notes of one task.

    Attributes:
        arrays: Arrays by name.
        notes: Values that JSON can represent, such as failures. Default: empty.
    """

    arrays: Mapping[str, Array]
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Array:
        """Return an array by its name."""
        return self.arrays[name]


def write_shard(path: AnyPath, shard: Shard) -> str:
    """Write a shard and return the SHA-256 of its payload; equal shards have equal bytes.

    Args:
        path: Path of the file, on a disk or in a store.
        shard: Arrays and notes.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = write_shard(Path(folder) / "a", Shard({"x": np.arange(3)}, {"failed": []}))
        ...     again = read_shard(Path(folder) / "a")
        >>> again["x"].tolist(), again.notes
        ([0, 1, 2], {'failed': []})
    """
    save = import_optional("safetensors.numpy").save

    arrays = {name: np.ascontiguousarray(shard.arrays[name]) for name in sorted(shard.arrays)}
    notes = json.dumps(shard.notes, sort_keys=True, ensure_ascii=True, allow_nan=False)
    payload = save({"": np.zeros(0, np.uint8), **arrays}, {"notes": notes})
    digest = hashlib.sha256(payload).hexdigest()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, payload + digest.encode() + MARK)
    return digest


def read_shard(path: AnyPath) -> Shard:
    """Read a shard.

    Args:
        path: Path of the file.

    Raises:
        BrokenFileError: If it is missing, truncated or changed.
    """
    safetensors, load = import_optional("safetensors"), import_optional("safetensors.numpy").load

    payload, _ = _read_payload(path)
    try:
        arrays = load(payload)
        length = int.from_bytes(payload[:8], "little")
        notes = json.loads(json.loads(payload[8 : 8 + length])["__metadata__"]["notes"])
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise BrokenFileError(
            f"{path}: expected a shard of a study, got a file that cannot be decoded ({error}). Run the study again."
        ) from None
    arrays.pop("", None)
    return Shard(arrays, notes)


def shard_digest(path: AnyPath) -> str | None:
    """Return the checksum of a valid shard; None if it is missing, truncated or changed and must be computed.

    Args:
        path: Path of the file, on a disk or in a store.

    Example:
        >>> shard_digest(Path("/nowhere")) is None
        True
    """
    try:
        return _read_payload(path)[1]
    except BrokenFileError:
        return None


def _read_payload(path: AnyPath) -> tuple[bytes, str]:
    """Return the payload of a shard and its SHA-256, which must be the one that follows it."""
    try:
        content = path.read_bytes()
    except OSError as error:
        if isinstance(path, StorePath) and not isinstance(error, FileNotFoundError):
            raise
        raise BrokenFileError(f"{path}: the shard cannot be read ({error.strerror}). Run the study again.") from None
    payload, footer = content[:-FOOTER], content[-FOOTER:]
    digest = hashlib.sha256(payload).hexdigest()
    if footer != digest.encode() + MARK:
        raise BrokenFileError(
            f"{path}: expected a shard that matches its checksum, got a truncated or changed file. Run the study again."
        )
    return payload, digest


# -- one run at a time ---------------------------------------------------------------------------------


@contextmanager
def lock_folder(folder: AnyPath) -> Iterator[None]:
    """Context manager that locks a folder against other runs, at most until the process ends.

    In a store the lock is an object that its run rewrites every :data:`BEAT` seconds. One that nobody writes for :data:`SILENCE` seconds
    is of a run that was killed, and is taken over; no two clocks are compared.

    Args:
        folder: Folder to lock.

    Raises:
        BusyError: If another run has locked it.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder, lock_folder(Path(folder)):
        ...     with lock_folder(Path(folder)):
        ...         pass
        Traceback (most recent call last):
            ...
        captum_leam.errors.BusyError: ...: another run writes into this folder; wait for it, or choose another --out.
    """
    if isinstance(folder, StorePath):
        with _leased(folder):
            yield
        return
    with open(folder / ".lock", "a") as file:
        try:
            import fcntl
        except ImportError:  # Windows: the atomic writes must do
            yield
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _busy(folder) from None
        yield


def _busy(folder: AnyPath) -> BusyError:
    return BusyError(f"{folder}: another run writes into this folder; wait for it, or choose another --out.")


@contextmanager
def _leased(folder: StorePath) -> Iterator[None]:
    """Hold the lock of a folder in a store."""
    lock, name, is_over, is_lost = folder / ".lock", f"{socket.gethostname()} {uuid4().hex}", Event(), Event()

    def keep() -> None:
        beats = 0
        while not is_over.wait(BEAT):
            with suppress(OSError):  # the next beat may get through
                if not lock.read_text().startswith(name):
                    is_lost.set()
                    return
                beats += 1
                lock.write_bytes(f"{name} {beats}".encode())

    while True:
        try:
            lock.write_bytes(f"{name} 0".encode(), must_be_new=True)
            break
        except FileExistsError:
            if not _is_abandoned(lock):
                raise _busy(folder) from None
            lock.unlink(missing_ok=True)
    thread = Thread(target=keep, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
        if not is_lost.is_set():
            lock.unlink(missing_ok=True)
    if is_lost.is_set():
        raise _busy(folder)


def _is_abandoned(lock: StorePath) -> bool:
    """Watch a lock, and return whether its run was killed or has ended."""
    logging.getLogger(__name__).warning("%s: waiting %g s to see whether another run still writes there", lock, SILENCE)
    end = time.monotonic() + SILENCE
    try:
        first = lock.read_bytes()
        while time.monotonic() < end:
            time.sleep(min(BEAT, SILENCE))
            if lock.read_bytes() != first:
                return False
    except FileNotFoundError:
        pass
    return True


def remove_parts(folder: AnyPath) -> None:
    """Remove temporary files that killed runs have left; stores have none.

    Args:
        folder: Folder that contains them.
    """
    if isinstance(folder, StorePath):
        return
    for part in list(folder.rglob(".*.part")):
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)
