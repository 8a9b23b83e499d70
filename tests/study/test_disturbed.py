"""Killed, out of disk, without permission, with damaged files: what is read as good is good, and the tables come out the same."""

import errno
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from captum_leam import _storage
from captum_leam.errors import BrokenFileError, IncompleteError
from captum_leam.study import Study, StudyResult
from tests.helpers.tiny_study import tables_of

pytestmark = [pytest.mark.slow, pytest.mark.ci]

# One interpreter that has imported everything, and a fork of it for every run: a run can be killed without waiting for imports.
SERVER = """
import os, signal, sys, time, torch
from dataclasses import replace
from pathlib import Path
from captum_leam.study import Study
import captum_leam.study.study, joblib, pandas, PIL.Image, pyarrow.parquet, scipy.stats, skimage.draw, skimage.transform
torch.set_num_threads(1)
print("ready", flush=True)
for line in sys.stdin:
    config, out, delay = line.rstrip("\\n").split("\\t")
    child, end = os.fork(), time.monotonic() + float(delay)
    if child:
        ended = (0, 0)
        while not ended[0] and time.monotonic() < end:
            time.sleep(0.002)
            ended = os.waitpid(child, os.WNOHANG)
        if not ended[0]:
            os.kill(child, signal.SIGKILL)
            ended = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(ended[1]), flush=True)
    else:
        code = 3
        try:
            Study(replace(Study(config).config, out=Path(out))).run(progress=False, report=False)
            code = 0
        finally:
            os._exit(code)
"""


class Server:
    def __enter__(self):
        self.process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-c", SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert self.process.stdout.readline().strip() == "ready"
        return self

    def __exit__(self, *error):
        self.process.stdin.close()
        self.process.wait(60)

    def run(self, config: Path, out: Path, kill_after: float = 300) -> tuple[int, float]:
        """Exit code of a run (-9 if it was killed), and the seconds that it took."""
        began = time.monotonic()
        print(config, out, kill_after, sep="\t", file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline()), time.monotonic() - began


def test_a_study_killed_at_random_moments_ends_with_the_same_tables(undisturbed, right, tmp_path):
    """kill -9, again and again, until it is done: byte-identical tables; what a killed run leaves is never read as finished."""
    config, generator = undisturbed / "study.yaml", np.random.default_rng(0)
    kills, studies, made = 0, 1, []
    with Server() as server:
        code, whole = server.run(config, tmp_path / "0")
        assert code == 0
        while kills < 20:
            out = tmp_path / f"{studies}"
            code, _ = server.run(config, out, generator.uniform(0.1, 0.6) * whole)
            if code == 0:
                assert tables_of(out) == right
                assert not list(out.rglob("*.part"))  # what the killed left behind is gone
                studies += 1
                continue
            assert code == -9
            kills += 1
            made.append(len(list((out / "work").rglob("*.shard"))) if out.exists() else 0)
            if not (out / "manifest.json").exists():
                with pytest.raises(BrokenFileError, match="expected a finished study"):
                    _ = StudyResult(out).manifest
        assert server.run(config, out)[0] == 0
        assert tables_of(out) == right
    assert len(set(made)) > 5, f"the moments were not spread over the study: shards {made}"


# -- faults at every write -------------------------------------------------------------------------------


def problem(config) -> str | None:
    """Why a run did not finish; None if it did."""
    try:
        Study(config).run(progress=False, report=False)
    except IncompleteError as said:
        return str(said)
    return None


class Faults:
    """The first write to every file fails; the second succeeds."""

    def __init__(self, moment: str, error: int) -> None:
        self.moment, self.error, self.failed = moment, error, set()
        self.real = _storage.atomic_write

    def fail(self):
        raise OSError(self.error, os.strerror(self.error))

    def __call__(self, path):
        """Instead of ``_storage.atomic_write``."""
        from contextlib import contextmanager

        @contextmanager
        def faulty():
            if self.moment == "open":
                self.fail()
            with self.real(path) as place:
                yield place
                if self.moment == "torn":  # the system says yes, the disk has half of it
                    with open(place, "r+b") as file:
                        file.truncate(place.stat().st_size // 2)
                    return
                self.fail()

        if path in self.failed:
            return self.real(path)
        self.failed.add(path)
        return faulty()


@pytest.mark.parametrize(
    ("moment", "error"),
    [("open", errno.EACCES), ("write", errno.ENOSPC), ("write", errno.EIO)],
    ids=["permission", "full", "io"],
)
def test_writes_that_fail_once_end_with_the_same_tables(undisturbed, right, tmp_path, monkeypatch, moment, error):
    """No run with a failed write is finished, and none leaves a file that is read as good; in the end all is there."""
    from captum_leam.study import assembling

    faults = Faults(moment, error)
    monkeypatch.setattr(_storage, "atomic_write", faults)
    monkeypatch.setattr(assembling, "atomic_write", faults)
    config = replace(Study(undisturbed / "study.yaml").config, out=tmp_path / "out")
    runs = 0
    while runs < 60:
        runs += 1
        if (said := problem(config)) is None:
            break
        assert os.strerror(error) in said
        assert "run again" in said.lower()
        assert not (tmp_path / "out" / "manifest.json").exists()
        assert not list((tmp_path / "out").rglob("*.part"))
        assert all(_storage.shard_digest(path) for path in (tmp_path / "out" / "work").rglob("*.shard"))
    assert tables_of(tmp_path / "out") == right
    assert len(faults.failed) == 39 + 13 + 1 + 1  # shards, tables, mean maps, manifest
    assert runs > 6


def test_writes_that_only_seem_to_succeed(undisturbed, right, tmp_path, monkeypatch):
    """Half of every shard is lost although the write said yes: seen at once, since all are read back."""
    faults = Faults("torn", 0)
    monkeypatch.setattr(_storage, "atomic_write", faults)
    config = replace(Study(undisturbed / "study.yaml").config, out=tmp_path / "out")
    for _ in range(20):
        if (said := problem(config)) is None:
            break
        assert "its checksum" in said
    monkeypatch.undo()
    Study(config).run(progress=False, report=False)
    assert tables_of(tmp_path / "out") == right


def test_some_shards_fail_and_the_rest_goes_on(undisturbed, right, tmp_path, monkeypatch):
    from captum_leam.study import engines

    real, count = engines.write_shard, []

    def write(path, shard):
        count.append(path.parent.name)
        if count.count("crops") == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, shard)

    monkeypatch.setattr(engines, "write_shard", write)
    config = replace(Study(undisturbed / "study.yaml").config, out=tmp_path / "out")
    with pytest.raises(
        IncompleteError, match="1 of 3 shards could not be computed or written: crops: No space left on device"
    ):
        Study(config).run(progress=False, report=False)
    assert len(list((tmp_path / "out" / "work" / "crops").iterdir())) == 2
    result = Study(config).run(progress=False, report=False)
    assert result.manifest["run"]["shards made"]["reading and embedding"] == 1
    assert tables_of(tmp_path / "out") == right


def test_damaged_files_are_made_again(undisturbed, right, tmp_path):
    """Truncated, flipped, emptied, replaced by another shard's content: never read as good."""
    shutil.copytree(undisturbed, tmp_path / "copy")
    out, generator = tmp_path / "copy" / "results", np.random.default_rng(1)
    shards = sorted((out / "work").rglob("*.shard"))
    for i, path in enumerate(shards):
        content = bytearray(path.read_bytes())
        if i % 3 == 0:
            content[int(generator.integers(len(content)))] ^= 16
        path.write_bytes(
            content if i % 3 == 0 else content[: int(generator.integers(len(content)))] if i % 3 == 1 else b""
        )
    for path in (out / "tables").iterdir():
        path.write_bytes(path.read_bytes()[:-30])
    result = Study(tmp_path / "copy" / "study.yaml").run(progress=False, report=False)
    assert sum(result.manifest["run"]["shards made"].values()) == 3 + 15 + 2 + 6 + 1 + 9
    assert tables_of(out) == right


def test_a_worker_that_raises_is_reported(undisturbed, tmp_path, monkeypatch):
    from captum_leam.study import stages

    def broken(*args):
        raise RuntimeError("a fault of our own")

    monkeypatch.setattr(stages, "controls_shard", broken)
    config = replace(Study(undisturbed / "study.yaml").config, out=tmp_path / "out")
    with pytest.raises(
        IncompleteError,
        match="3 of 15 shards could not be computed or written: controls: RuntimeError: a fault of our own",
    ):
        Study(config).run(progress=False, report=False)


# -- the command -----------------------------------------------------------------------------------------


def command(*arguments):
    from captum_leam.cli import app

    return CliRunner().invoke(app, ["study", *map(str, arguments), "--no-progress", "--no-report"])


def test_exit_codes_of_the_command_tell_results_apart(undisturbed, tmp_path, monkeypatch):
    shutil.copytree(undisturbed, tmp_path / "copy")  # a manifest tells of its last run
    done = command(tmp_path / "copy" / "study.yaml")
    assert done.exit_code == 0, done.output
    assert "BC same" in done.output
    assert command(tmp_path / "copy" / "study.yaml", "--check").exit_code == 0
    from captum_leam.study import engines

    def full(path, shard):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(engines, "write_shard", full)
    done = command(undisturbed / "study.yaml", "--out", tmp_path / "new")
    assert done.exit_code == 1
    assert "not finished: 3 of 3 shards" in done.output
    assert "No space left on device" in done.output
    done = command(undisturbed / "lost.yaml")
    assert isinstance(done.exception, ValueError)  # main() makes it one line and exit code 2


def test_something_left_out_is_exit_code_one(tmp_path):
    from tests.helpers.tiny_study import write_faces, write_study

    faces = write_faces(tmp_path, people=3)
    (faces / "p00" / "broken.png").write_bytes(b"x")
    done = command(write_study(tmp_path))
    assert done.exit_code == 1
    assert "1 left out" in done.output
