"""Ctrl-C at any moment of a study: it stops at once, leaves nothing that is read as good, and goes on to byte-identical tables."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from captum_leam import _storage
from captum_leam.study import Study
from tests.helpers.tiny_study import tables_of

pytestmark = [pytest.mark.slow, pytest.mark.ci]


@pytest.fixture(autouse=True)
def _ctrl_c():
    """Python's own way with SIGINT, whatever the runner of the tests set."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_study_interrupted_again_and_again_ends_with_the_same_tables(undisturbed, right, tmp_path, monkeypatch):
    """A real signal in the middle of the first write of every eighth file, before it has its name."""
    real, seen = _storage._sync, set()

    def sync(path: Path) -> None:
        name = path.name.rsplit(".", 2)[0]  # without what makes the temporary name a new one
        if path.suffix == ".part" and name not in seen:
            seen.add(name)
            if len(seen) % 8 == 0:
                signal.raise_signal(signal.SIGINT)
        real(path)

    monkeypatch.setattr(_storage, "_sync", sync)
    config = replace(Study(undisturbed / "study.yaml").config, out=tmp_path / "out")
    interrupted = 0
    while interrupted < 20:
        try:
            Study(config).run(progress=False, report=False)
            break
        except KeyboardInterrupt:
            interrupted += 1
        assert not list((tmp_path / "out").rglob("*.part"))
        assert not (tmp_path / "out" / "manifest.json").exists()
        assert all(_storage.shard_digest(path) for path in (tmp_path / "out" / "work").rglob("*.shard"))
    assert interrupted >= 5
    assert tables_of(tmp_path / "out") == right


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for what still runs in /proc, which Linux has")
def test_ctrl_c_on_a_terminal_reaches_the_workers(undisturbed, right, tmp_path):
    """The command with worker processes, and SIGINT to all of them, as a terminal sends it: nothing stays behind."""
    pytest.importorskip("joblib", reason="needs pip install 'captum-leam[study]'")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "captum_leam", "study", str(undisturbed / "study.yaml"), "--out", str(out)]
    command += ["--engine", "processes", "--jobs", "2", "--no-progress", "--no-report"]
    running = subprocess.Popen(  # noqa: S603
        command,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    end = time.monotonic() + 200
    while len(list(out.rglob("*.shard"))) < 2 and running.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    assert running.poll() is None, running.communicate()
    os.killpg(running.pid, signal.SIGINT)
    running.communicate(timeout=100)
    assert running.returncode not in (0, None)
    while time.monotonic() < end and _alive(running.pid):
        time.sleep(0.05)
    assert not _alive(running.pid), "a worker stays behind"
    assert not (out / "manifest.json").exists()
    Study(replace(Study(undisturbed / "study.yaml").config, out=out)).run(progress=False, report=False)
    assert not list(out.rglob("*.part"))
    assert tables_of(out) == right


def _alive(group: int) -> bool:
    """Whether a process of a group still runs; one that has ended and that nobody has asked about does not."""
    for process in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # gone meanwhile
            state, _, of_group = process.read_text().rpartition(")")[2].split()[:3]
            if int(of_group) == group and state != "Z":
                return True
    return False
