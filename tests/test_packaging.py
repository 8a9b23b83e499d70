"""The checks of what is released can fail. They themselves run in `make wheel-check`, which `.ci/run` calls."""

import sys
import zipfile
from pathlib import Path

import pytest

from tools import wheel_check

ROOT = Path(__file__).resolve().parents[1]


def test_a_wheel_without_a_module_is_noticed(tmp_path):
    with zipfile.ZipFile(tmp_path / "captum_leam-0.1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("captum_leam/__init__.py", "")
        archive.writestr("captum_leam-0.1.0.dist-info/METADATA", "License-Expression: BSD-3-Clause")
    with pytest.raises(AssertionError, match="the wheel lacks"):
        wheel_check.check_contents(tmp_path / "captum_leam-0.1.0-py3-none-any.whl", tmp_path / "none.tar.gz")


def test_a_command_that_fails_ends_the_check_with_what_it_said():
    with pytest.raises(SystemExit, match="went wrong"):
        wheel_check.run(sys.executable, "-c", "raise ValueError('went wrong')")


def test_the_workflow_runs_what_ci_runs():
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    assert "run: .ci/run\n" in workflow
    ci = (ROOT / ".ci" / "run").read_text()
    for target in ("core", "lint", "types", "docs", "test", "wheel-check"):
        assert f"make {target}" in ci
        assert f"\n{target}:" in (ROOT / "Makefile").read_text()
