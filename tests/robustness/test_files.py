"""A full disk, a missing permission, Ctrl-C at any moment of writing a page: it is there wholly, or the folder is as it was."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from captum_leam import cli
from captum_leam.reporting import explanation_page
from captum_leam.reporting.explanation import Explanation
from captum_leam.reporting.files import FileOptions, explain_files
from captum_leam.synthetic import SyntheticPopulation

MODEL = """
import torch
from captum_leam.synthetic import EmbeddingNet

def small():
    torch.manual_seed(0)
    return EmbeddingNet()
"""

# -- faults --------------------------------------------------------------------------------------------


class Writing:
    """Counts what is done to files in a folder (opened to be written, renamed, made), and raises at one moment."""

    def __init__(self) -> None:
        self.folder, self.moment, self.count, self.error = "", 0, 0, OSError()

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.folder or event not in ("open", "os.rename", "os.mkdir"):
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        if str(arguments[0]).startswith(self.folder):
            self.count += 1
            if self.count == self.moment:
                raise self.error

    @contextmanager
    def at(self, folder: Path, moment: int = 0, error: BaseException | None = None) -> Iterator["Writing"]:
        self.folder, self.moment, self.count, self.error = str(folder), moment, 0, error or OSError()
        try:
            yield self
        finally:
            self.folder = ""


WRITING = Writing()
sys.addaudithook(WRITING)  # it stays as long as the process; without a folder it does nothing


@contextmanager
def no_file_over(size: int) -> Iterator[None]:
    """The system refuses to write more than so many bytes to a file: half of it is there then."""
    resource = pytest.importorskip("resource", reason="limits of the size of files are those of Unix")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# -- what is written -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """A crop and a model in a file."""
    folder = tmp_path_factory.mktemp("pictures")
    (image,) = SyntheticPopulation(2, seed=1).sample([0], seed=3).images
    Image.fromarray((image.movedim(0, -1) * 255).round().to(torch.uint8).numpy()).save(folder / "a.png")
    (folder / "models.py").write_text(MODEL)
    return folder


@pytest.fixture(scope="module")
def found(pictures) -> Explanation:
    return explain_files(
        [pictures / "a.png"], f"{pictures}/models.py:small", FileOptions(preset="fast", certainty=False)
    )


@pytest.fixture
def _quick(monkeypatch) -> None:
    """Drawing the page takes a second; what comes into the folder when does not depend on what it says."""
    monkeypatch.setattr("captum_leam.reporting.page.Page.render", lambda page: page.title * 30_000)
    monkeypatch.setattr("captum_leam.reporting.page.as_svg", lambda figure, name: "<svg/>")


def page(found: Explanation, folder: Path, title: str = "A face") -> None:
    explanation_page.write_page([found], folder, title=title, lead="One face.", settings={"seed": 0})


def content(folder: Path) -> dict[str, bytes | None]:
    """All that is there, hidden files and empty folders, too."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def raised_at(found: Explanation, out: Path, moment: int) -> bool:
    """Whether there was something to raise at, so late."""
    error = ERRORS[moment % len(ERRORS)]
    with WRITING.at(out, moment, error) as writing:
        try:
            page(found, out)
        except type(error):
            return True
    assert writing.count < moment
    return False


ERRORS = (
    OSError(errno.ENOSPC, "No space left on device"),
    KeyboardInterrupt(),
    PermissionError(errno.EACCES, "denied"),
)


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.usefixtures("_quick")
def test_a_new_folder_is_there_with_all_or_not_at_all(found, tmp_path):
    out, counted = tmp_path / "results" / "face", tmp_path / "counted" / "face"
    with WRITING.at(tmp_path) as writing:
        page(found, counted)
    right, moments = content(counted), writing.count
    drawn = {f"figures/{name}" for name in ("curves.csv", "curves.svg", "lift.csv", "lift_1.svg", "lift_2.svg")}
    tables = {"curves.csv", "drops.csv", "regions.csv"}
    assert set(right) == {
        "00_a.png",
        "explanation.json",
        "figures",
        "index.html",
        "maps.npz",
        "settings.json",
        *tables,
        *drawn,
    }
    assert moments > 2 * len(right)  # every file is opened, and comes into the folder
    for moment in range(1, moments + 1):
        error = ERRORS[moment % len(ERRORS)]
        with pytest.raises(type(error)), WRITING.at(tmp_path, moment, error):
            page(found, out)
        assert not (tmp_path / "results").exists(), f"at moment {moment} of {moments}"
    page(found, out)
    assert content(out) == right


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.usefixtures("_quick")
def test_an_earlier_page_stays_until_the_new_one_is_whole(found, tmp_path):
    page(replace(found, names=["earlier.png"]), tmp_path)
    (tmp_path / "notes.txt").write_text("of the user\n")
    before, moment = content(tmp_path), 1
    assert "00_earlier.png" in before
    while raised_at(found, tmp_path, moment):
        assert content(tmp_path) == before, f"at moment {moment}"
        moment += 1
    assert moment > 15  # five files are opened, go, and come
    after = content(tmp_path)
    assert set(after) == {*before, "00_a.png"} - {"00_earlier.png"}
    assert after["notes.txt"] == b"of the user\n"
    assert after["regions.csv"] != before["regions.csv"]


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("size", [100, 20_000, 150_000])
def test_a_page_that_fails_half_written_leaves_the_earlier_one(found, tmp_path, size):
    page(found, tmp_path / "out", title="Earlier")
    before = content(tmp_path)
    with pytest.raises(OSError, match="too large"), no_file_over(size):
        page(found, tmp_path / "out", title="Another")
    assert content(tmp_path) == before


def test_the_command_says_why_and_leaves_no_folder(pictures, tmp_path):
    out = tmp_path / "out"
    arguments = ["explain", str(pictures / "a.png"), "--model", f"{pictures}/models.py:small", "--preset", "fast"]
    with WRITING.at(tmp_path, 9, OSError(errno.ENOSPC, "No space left on device")):
        done = CliRunner().invoke(cli.app, [*arguments, "--out", str(out), "--no-progress"])
    assert isinstance(done.exception, OSError)  # main() makes it one line and exit code 2
    assert "No space left" in str(done.exception)
    assert not out.exists()


def test_out_of_memory_is_one_line_of_the_command(monkeypatch, capsys):
    from captum_leam._engine.memory import TooLargeError

    def explode(args: list[str]) -> None:
        raise TooLargeError("one image at a time does not fit into memory")

    monkeypatch.setattr(cli, "app", explode)
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    assert "error: one image at a time" in capsys.readouterr().err
