"""The checks of what is released can fail. They themselves run in `make wheel-check`, which `.ci/run` calls."""

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from captum_leam._optional import EXTRAS, pd
from captum_leam.errors import MissingExtraError
from tools import install, wheel_check

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
INSTALLED_AS = {"PIL": "pillow", "skimage": "scikit-image", "yaml": "pyyaml"}


def requirements(*extras: str) -> dict[str, str]:
    """Return the lowest version of every requirement of the core, or of extras, by name; their own extras are left out."""
    listed = [line for extra in extras for line in PROJECT["optional-dependencies"][extra]]
    pairs = [re.fullmatch(r"([\w.-]+)>=([\d.]+)", line) for line in listed or PROJECT["dependencies"]]
    assert all(pairs[i] or line.startswith("captum-leam[") for i, line in enumerate(listed or PROJECT["dependencies"]))
    return {pair[1]: pair[2] for pair in pairs if pair}


USERS = ("cli", "report", "face", "onnx", "study", "ray", "cloud")


def test_a_wheel_without_a_module_is_noticed(tmp_path):
    with zipfile.ZipFile(tmp_path / "captum_leam-0.1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("captum_leam/__init__.py", "")
        archive.writestr("captum_leam-0.1.0.dist-info/METADATA", "License-Expression: BSD-3-Clause")
    with pytest.raises(AssertionError, match="the wheel lacks"):
        wheel_check.check_contents(tmp_path / "captum_leam-0.1.0-py3-none-any.whl", tmp_path / "none.tar.gz")


def test_a_command_that_fails_ends_the_check_with_what_it_said():
    with pytest.raises(SystemExit, match="went wrong"):
        wheel_check.run(sys.executable, "-c", "raise ValueError('went wrong')")


def test_workflows_call_the_targets_that_ci_calls():
    workflows = {path.name: path.read_text() for path in (ROOT / ".github" / "workflows").glob("*.yml")}
    makefile, ci = (ROOT / "Makefile").read_text(), (ROOT / ".ci" / "run").read_text()
    assert "run: .ci/run\n" in workflows["ci.yml"]
    for target in ("core", "lint", "types", "docs", "test", "test-ci", "wheel-check", "demo-weights"):
        assert re.search(rf"^make {target}\b", ci, re.MULTILINE)
    (nightly,) = re.findall(r"target: \[(.*)\]", workflows["ci.yml"])
    called = [*re.findall(r"make ([a-z-]+)", ci + "".join(workflows.values())), *nightly.split(", ")]
    assert {"test-fast", "test-oldest", "test-deep", "wheel-check"} <= set(called)
    for target in called:
        assert f"\n{target}:" in makefile, target


def test_hooks_are_local_and_call_what_lint_calls():
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    makefile = (ROOT / "Makefile").read_text()
    assert set(re.findall(r"repo: (\S+)", hooks)) == {"local"}
    for entry in re.findall(r"entry: (.+)", hooks):
        assert entry.removeprefix(".venv/bin/").split()[0] in makefile


# -- dependencies --------------------------------------------------------------------------------------


def test_the_core_runs_without_the_extras_and_each_names_its_command():
    """In a process that hides their packages; `make core` does the same where they are not installed."""
    command = [sys.executable, str(ROOT / "tools" / "core_only.py"), "--hide"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)  # noqa: S603
    assert done.returncode == 0, done.stderr
    commands = set(re.findall(r'pip install "captum-leam\[([\w,]+)\]"', done.stdout))
    assert commands == set(EXTRAS.values())


def test_every_requirement_has_a_lowest_version_that_is_tested():
    tested = dict(line.split("==") for line in (ROOT / "tools" / "oldest.txt").read_text().split())
    lowest = {**requirements(), **requirements(*USERS)}
    assert tested.keys() == lowest.keys()
    for name, version in lowest.items():
        assert re.sub(r"(\.0)+$", "", tested[name]) == re.sub(r"(\.0)+$", "", version)


def test_every_package_that_is_imported_is_required():
    core = {*requirements(), "captum_leam", "pydantic_core", "markupsafe"}  # those of pydantic and Jinja2
    core |= {"pillow_heif"}  # used where it is installed, and never required
    for name, extra in EXTRAS.items():
        assert INSTALLED_AS.get(name, name) in requirements(*extra.split(",")), name
    for path in (ROOT / "captum_leam").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                names = [node.module] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                package = name.partition(".")[0]
                assert package in core | EXTRAS.keys() | sys.stdlib_module_names, (path, name)


def test_importing_leam_loads_nothing_that_captum_does_not_load():
    """Its import then takes as long as that of captum.attr: the package's own modules are 2 % of it."""
    code = (
        "import sys, captum.attr; before = set(sys.modules); from captum_leam import LEAM; "
        "print({n.partition('.')[0] for n in set(sys.modules) - before} - {'captum_leam'} - sys.stdlib_module_names)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout.strip() == "set()"


def test_a_table_without_pandas_names_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtraError, match=r'pip install "captum-leam\[report\]"'):
        _ = pd.DataFrame


# -- set-up --------------------------------------------------------------------------------------------


def test_uv_is_given_the_settings_of_pip():
    listed = "global.extra-index-url='file:///a file:///b'\nglobal.find-links='/x /y'\n:env:.find-links='/w'\nglobal.quiet='1'"
    assert install.uv_settings(listed) == {"UV_EXTRA_INDEX_URL": "file:///a file:///b", "UV_FIND_LINKS": "/w"}
    assert install.uv_settings("global.find-links='/x /y'") == {"UV_FIND_LINKS": "/x,/y"}


@pytest.mark.parametrize(("has_uv", "works", "used"), [(True, True, "uv"), (True, False, "pip"), (False, False, "pip")])
def test_pip_installs_where_uv_cannot(monkeypatch, capsys, has_uv, works, used):
    calls = []
    monkeypatch.setattr(install, "get_uv", lambda: has_uv)
    monkeypatch.setattr(install, "with_uv", lambda arguments: calls.append(("uv", arguments)) or works)
    monkeypatch.setattr(install.subprocess, "run", lambda command, **_: calls.append(("pip", command)))
    monkeypatch.setattr(sys, "argv", ["install.py", "--constraint", "c.txt", ".[cli]", "pytest"])
    install.main()
    assert calls[-1][0] == used
    assert calls[-1][1][-5:] == ["--constraint", "c.txt", "--editable", ".[cli]", "pytest"]
    assert f"Installed with {used}" in capsys.readouterr().out
