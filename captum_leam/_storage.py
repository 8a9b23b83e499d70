"""Atomic, checksummed file storage, on disks and in stores.

A shard is a safetensors payload followed by its SHA-256 and a mark. A torn file, or one with a flipped bit, does not fit its checksum: it
is never read, counts as missing, and is made again.
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
    """Yield a temporary path whose file takes its name only once it is complete and on the disk.

    The bytes go to another name in the same folder, are synced, and then renamed: at no moment does ``path`` hold part of a file.
    Whatever goes wrong, the temporary file is removed and ``path`` is as it was. An object of a store is written from a local file.

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
    with suppress(OSError):  # the rename itself; not every file system can
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
    """Write a file atomically."""
    if isinstance(path, StorePath):
        path.write_bytes(content)
        return
    with atomic_write(path) as place, open(place, "wb") as file:
        file.write(content)


def file_sha256(path: AnyPath) -> str:
    """Return the SHA-256 of a file in hex; it is read piece by piece.

    Example:
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     file_sha256(Path(file.name))[:8]
        'e3b0c442'
    """
    if path.exists() and not path.is_file():  # a pipe would be waited for, a device be read without end
        raise OSError(errno.EINVAL, "it is no file")
    with local_file(path) as local, open(local, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_of(*parts: Any) -> str:
    """Return a name of 32 hex digits from what a shard depends on: anything that JSON can hold.

    Example:
        >>> hash_of("a", 1) == hash_of("a", 1), hash_of("a", 1) == hash_of("a", 1.5)
        (True, False)
    """
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@contextmanager
def atomic_folder(folder: AnyPath, earlier: Sequence[str] = ()) -> Iterator[Path]:
    """Yield a place to write files to, which come into a folder together once all of them are on the disk.

    Whatever goes wrong, the folder holds what it held before; one that was not there is not there. Into a folder of a store files come one
    after the other, each whole, in the order of their names.

    Args:
        folder: Folder that gets the files, and the folders that they are in. Files of the same names are replaced.
        earlier: Names of files in it that are removed.

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
    """Move files, all or none."""
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
    """Arrays and notes of one piece of work.

    Attributes:
        arrays: Name → array.
        notes: Anything that JSON can hold, such as failures.
    """

    arrays: Mapping[str, Array]
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Array:
        """Return an array by its name."""
        return self.arrays[name]


def write_shard(path: AnyPath, shard: Shard) -> str:
    """Write a shard and return the SHA-256 of its payload; the same shard is always the same bytes.

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

    Raises:
        BrokenFileError: If it is missing, torn or changed.
    """
    safetensors, load = import_optional("safetensors"), import_optional("safetensors.numpy").load

    payload, _ = _read_payload(path)
    try:
        arrays = load(payload)
        length = int.from_bytes(payload[:8], "little")
        notes = json.loads(json.loads(payload[8 : 8 + length])["__metadata__"]["notes"])
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise BrokenFileError(f"{path}: this is no shard of a study ({error}).") from None
    arrays.pop("", None)
    return Shard(arrays, notes)


def shard_digest(path: AnyPath) -> str | None:
    """Return the checksum that a shard fits; None if it is missing, torn or changed and has to be made.

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
        raise BrokenFileError(f"{path}: the shard cannot be read ({error.strerror}); run the study again.") from None
    payload, footer = content[:-FOOTER], content[-FOOTER:]
    digest = hashlib.sha256(payload).hexdigest()
    if footer != digest.encode() + MARK:
        raise BrokenFileError(
            f"{path}: the shard does not fit its checksum (a torn write, or changed since); run again."
        )
    return payload, digest


# -- one run at a time ---------------------------------------------------------------------------------


@contextmanager
def locked(folder: AnyPath) -> Iterator[None]:
    """Keep other runs out of a folder; the lock ends with the process, however that ends.

    In a store the lock is an object that its run writes anew every :data:`BEAT` seconds. One that nobody writes for :data:`SILENCE` seconds
    is of a run that was killed, and is taken over; no two clocks are compared.

    Raises:
        BusyError: If another run holds it.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder, locked(Path(folder)):
        ...     with locked(Path(folder)):
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
    """Remove what killed runs left behind: temporary files, which are never read. In a store there are none."""
    if isinstance(folder, StorePath):
        return
    for part in list(folder.rglob(".*.part")):
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)
