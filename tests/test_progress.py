"""Progress: steps, their shares, where it is shown and where it is not."""

import io
import re
import subprocess
import sys
from contextlib import redirect_stderr

import pytest
import torch
from PIL import Image
from torch import nn

from captum_leam import _progress, explain_faces
from captum_leam._engine.memory import in_batches
from captum_leam._progress import begin_step, count_images, end_bar, has_bar, is_shown, plan, progress_bar


class Terminal(io.StringIO):
    """What stderr gets, as a terminal of 100 columns."""

    def isatty(self):
        return True


@pytest.fixture
def terminal():
    """Where a test redirects stderr to."""
    return Terminal()


def shares():
    """Name of the step and done work in per cent, as the bar has them now."""
    bar = _progress._current_bar.get().bar
    return bar.desc.removesuffix(": "), round(100 * bar.n / bar.total)


def test_steps_move_by_their_work_and_images(terminal):
    with redirect_stderr(terminal), progress_bar(True):
        plan({"reading": 20, "maps": 60, "page": 20})
        begin_step("reading", 2)
        assert shares() == ("reading", 0)
        count_images(1)
        assert shares() == ("reading", 10)
        begin_step("maps", 3)  # the step before is done
        assert shares() == ("maps", 20)
        count_images(2)
        assert shares() == ("maps", 60)
        count_images(50)  # more than was expected stays within the step
        assert shares() == ("maps", 80)
        begin_step("page")
        begin_step("not announced", 100)
        assert shares() == ("not announced", 50)
    shown = terminal.getvalue()
    assert re.search(r"maps:\s+20%\|.*passed, .*left", shown)
    assert not shown.rsplit("\r", 2)[-2].strip()  # the line is removed
    assert not has_bar()


def test_batches_count_their_images_once(terminal):
    counted = []

    def outer(rows):
        in_batches(lambda inner: None, 50, 10)  # a part of the batch
        counted.append(shares()[1] if has_bar() else None)
        return rows

    with redirect_stderr(terminal), progress_bar(True):
        plan({"maps": 100})
        begin_step("maps", 4)
        in_batches(outer, 4, 2)
        assert shares() == ("maps", 100)
    assert counted == [None, None]


def test_maps_of_faces_move_the_bar(terminal):
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Softplus(), nn.Flatten(), nn.Linear(4 * 256, 8)).eval()
    with redirect_stderr(terminal), progress_bar(True):
        plan({"overall maps": 10, "rest": 10})
        begin_step("overall maps", 4)
        explain_faces(net, torch.rand(4, 3, 32, 32), "fast", layers=[net[1]], field=(0, 0, 32, 32), batch_size=2)
        assert shares() == ("overall maps", 50)


def test_one_bar_within_another_is_none(terminal):
    with redirect_stderr(terminal), progress_bar(True), progress_bar(True):
        begin_step("one")
        assert shares()[0] == "one"
    end_bar()
    assert not has_bar()


def test_nothing_is_written_where_no_bar_is_shown(terminal):
    with redirect_stderr(terminal), progress_bar(False):
        plan({"a": 1})
        begin_step("a")
        count_images()
        end_bar()
    assert terminal.getvalue() == ""


def test_progress_is_shown_on_a_terminal_or_if_asked(terminal):
    with redirect_stderr(terminal):
        assert is_shown(None)
        assert not is_shown(False)
    with redirect_stderr(io.StringIO()):
        assert not is_shown(None)
        assert is_shown(True)


def test_an_error_removes_the_bar(terminal):
    def fail():
        with progress_bar(True):
            begin_step("a")
            raise KeyError

    with redirect_stderr(terminal), pytest.raises(KeyError):
        fail()
    assert not has_bar()


def test_the_module_loads_no_torch():
    code = "import sys, captum_leam._progress; assert not {'torch', 'tqdm', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603


PROGRESS_OPTIONS = [
    (["--progress"], True),
    pytest.param([], False, marks=pytest.mark.ci),
    pytest.param(["--no-progress"], False, marks=pytest.mark.ci),
]


@pytest.mark.parametrize(("asked", "shown"), PROGRESS_OPTIONS)
def test_the_command_shows_its_steps_on_stderr_if_asked(tmp_path, asked, shown):
    """Without a terminal there is none unless asked, and stdout has none at all."""
    Image.new("RGB", (112, 112), (90, 120, 150)).save(tmp_path / "a.png")
    (tmp_path / "net.py").write_text(
        "import torch\nfrom captum_leam.synthetic import EmbeddingNet\ndef net():\n    torch.manual_seed(0)\n    return EmbeddingNet()\n"
    )
    arguments = ["explain", "a.png", "--model", "net.py:net", "--preset", "fast", *asked]
    code = "from captum_leam.cli import main; main()"
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    steps = ["loading libraries", "loading the model", "overall maps", "occluding", "writing the page"]
    assert [name for name in steps if name in done.stderr] == (steps if shown else [])
    assert ("left" in done.stderr) == shown
    assert not [name for name in (*steps, "%|") if name in done.stdout]
