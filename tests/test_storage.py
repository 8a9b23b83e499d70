"""Files are complete or absent, whatever happens."""

import errno
import os

import numpy as np
import pytest

from captum_leam import _storage
from captum_leam._storage import Shard, atomic_folder, atomic_write, lock_folder, read_shard, shard_digest, write_shard
from captum_leam.errors import BrokenFileError, BusyError

SHARD = Shard({"x": np.arange(1000.0), "empty": np.zeros((0, 3), np.float16)}, {"failed": [["read", "", 1, "Ü \n"]]})


def test_a_shard_comes_back_as_it_was(tmp_path):
    digest = write_shard(tmp_path / "a", SHARD)
    back = read_shard(tmp_path / "a")
    assert back.notes == SHARD.notes
    assert set(back.arrays) == {"x", "empty"}
    assert all(
        np.array_equal(back[name], SHARD[name]) and back[name].dtype == SHARD[name].dtype for name in SHARD.arrays
    )
    assert shard_digest(tmp_path / "a") == digest
    write_shard(tmp_path / "b", SHARD)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("seed", range(3))
def test_every_truncation_and_bit_flip_is_seen(tmp_path, seed):
    path = tmp_path / "a"
    write_shard(path, SHARD)
    content = path.read_bytes()
    generator = np.random.default_rng(seed)
    damaged = [content[:length] for length in (0, 1, 70, len(content) // 2, len(content) - 1)]
    damaged += [content + b"x", bytes(len(content)), content[::-1]]
    for at in generator.integers(0, len(content), 40).tolist():
        flipped = bytearray(content)
        flipped[at] ^= 1 << int(generator.integers(8))
        damaged.append(bytes(flipped))
    for bad in damaged:
        path.write_bytes(bad)
        assert shard_digest(path) is None
        with pytest.raises(BrokenFileError, match="run"):
            read_shard(path)


def test_an_intact_file_that_is_no_shard_raises(tmp_path):
    import hashlib

    payload = b"anything"
    (tmp_path / "a").write_bytes(payload + hashlib.sha256(payload).hexdigest().encode() + _storage.MARK)
    with pytest.raises(BrokenFileError, match="expected a shard of a study"):
        read_shard(tmp_path / "a")


@pytest.mark.parametrize("moment", ["mkstemp", "write", "fsync", "replace"])
def test_a_failed_write_leaves_what_was_there_and_nothing_else(tmp_path, monkeypatch, moment):
    path = tmp_path / "a"
    write_shard(path, SHARD)
    before = path.read_bytes()

    def fail(*args, **more):
        raise OSError(errno.ENOSPC, "No space left on device")

    if moment == "mkstemp":
        monkeypatch.setattr(_storage.tempfile, "mkstemp", fail)
    elif moment == "write":
        monkeypatch.setattr("builtins.open", _half_open(path.parent))
    else:
        monkeypatch.setattr(_storage.os, moment, fail)
    with pytest.raises(OSError, match="No space"):
        write_shard(path, Shard({"x": np.zeros(5)}))
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a"]


def _half_open(folder):
    """``open`` whose files in a folder take half of what is written, then the disk is full."""
    real = open

    def opened(name, mode="r", *args, **more):
        file = real(name, mode, *args, **more)
        if "w" in mode and str(name).startswith(str(folder)):
            put = file.write

            def write(content):
                put(content[: len(content) // 2])
                raise OSError(errno.ENOSPC, "No space left on device")

            class Half:
                def __enter__(self):
                    return self

                def __exit__(self, *error):
                    file.close()

            half = Half()
            half.write = write
            return half
        return file

    return opened


def test_an_interrupted_write_leaves_no_file(tmp_path):
    def interrupted():
        with atomic_write(tmp_path / "a") as place:
            place.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert os.listdir(tmp_path) == []


def test_permissions_are_those_of_other_files(tmp_path):
    (tmp_path / "usual").write_text("")
    write_shard(tmp_path / "a", SHARD)
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_two_runs_do_not_write_into_one_folder(tmp_path):
    with lock_folder(tmp_path), pytest.raises(BusyError, match="another run"), lock_folder(tmp_path):
        pass
    with lock_folder(tmp_path):  # free again
        pass


# -- folders -------------------------------------------------------------------------------------------


def content_of(folder):
    return {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*") if p.is_file()}


def write_page(folder):
    with atomic_folder(folder, ["old.csv", "figures/old.svg"]) as place:
        (place / "figures").mkdir()
        (place / "figures" / "a.svg").write_text("new")
        (place / "index.html").write_text("new")


def test_a_folder_gets_all_files_and_loses_earlier_ones(tmp_path):
    folder = tmp_path / "deep" / "out"
    write_page(folder)
    assert content_of(tmp_path) == {"deep/out/figures/a.svg": "new", "deep/out/index.html": "new"}
    (folder / "figures" / "old.svg").write_text("old")
    (folder / "mine.csv").write_text("mine")
    write_page(folder)
    assert content_of(folder) == {"figures/a.svg": "new", "index.html": "new", "mine.csv": "mine"}


@pytest.mark.parametrize("fails", [1, 2, 3, 4])
def test_a_failed_write_of_a_folder_changes_nothing(tmp_path, monkeypatch, fails):
    before = {"index.html": "before", "old.csv": "before", "mine.csv": "mine"}
    for name, text in before.items():
        (tmp_path / name).write_text(text)
    calls, replace = [], type(tmp_path).replace

    def failing(source, target):
        calls.append(source)
        if len(calls) == fails:
            raise OSError(errno.ENOSPC, "no space left")
        return replace(source, target)

    monkeypatch.setattr(type(tmp_path), "replace", failing)
    with pytest.raises(OSError, match="no space left"):
        write_page(tmp_path)
    assert content_of(tmp_path) == before
    assert {path.name for path in tmp_path.iterdir()} == set(before)


def test_a_folder_that_did_not_exist_does_not_after_a_failure(tmp_path):
    def write_half():
        with atomic_folder(tmp_path / "deep" / "out") as place:
            (place / "a").write_text("a")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert not list(tmp_path.iterdir())
