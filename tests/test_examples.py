"""Every example runs as a user runs it, with few training steps."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).resolve().parents[1] / "examples").glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.stem)
def test_example(script, tmp_path):
    command = [sys.executable, str(script), "--steps", "3", "--out", str(tmp_path / "picture.png")]
    settings = {**os.environ, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(  # noqa: S603
        command, capture_output=True, text=True, check=False, cwd=tmp_path, env=settings
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "picture.png").stat().st_size > 10_000
    assert "picture:" in done.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["picture.png"]  # nothing is written but what was named
