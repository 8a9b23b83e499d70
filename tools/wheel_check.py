"""Is what would be released whole? Builds wheel and sdist, checks them, installs the wheel into a fresh environment, and uses it there.

    make wheel-check
    python tools/wheel_check.py [--out dist] [--no-demo]

The fresh environment gets the wheel alone, and finds torch and the other dependencies in the environment that this runs in, through a
path file: the dependencies themselves are tested by `make core`. Built with the setuptools that is installed: nothing is downloaded.
"""

import argparse
import os
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

USE = """
import importlib.metadata, pathlib, sys
import captum_leam
from captum_leam import LEAM, explain_faces, leave_one_out_centroids
from captum_leam.synthetic import EmbeddingNet, SyntheticPopulation

where = pathlib.Path(captum_leam.__file__)
assert where.is_relative_to(sys.prefix), f"{where} is not the installed wheel"
assert importlib.metadata.version("captum-leam") == captum_leam.__version__
assert len(list((where.parent / "synthetic").glob("trained_*.npz"))) == 3
assert (where.parent / "py.typed").is_file() and (where.parent / "reporting" / "templates" / "page.html.j2").is_file()
model, sample = EmbeddingNet().eval(), SyntheticPopulation(3).sample(2)
references = leave_one_out_centroids(model(sample.images).detach(), sample.people)
print(explain_faces(model, sample.images, "fast", reference=references).shape, where.parent)
"""
TYPES = "from captum_leam import LEAM\nreveal_type(LEAM.get_name())\n"


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Run a command; what it printed, or an end with it."""
    settings = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(  # noqa: S603
        [str(c) for c in command], cwd=cwd, env=settings, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def build(out: Path) -> tuple[Path, Path]:
    """Wheel and sdist, checked by twine."""
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT)
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    said = run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist)
    print(said.strip())
    rating = run(sys.executable, "-m", "pyroma", "--quiet", "--min", "9", "--file", sdist)
    print(f"pyroma: {rating.split()[-1]} of 10")
    return wheel, sdist


def check_contents(wheel: Path, sdist: Path) -> None:
    """The wheel holds the package and nothing else; the sdist what is needed to build, test and document it."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(next(n for n in names if n.endswith("METADATA"))).decode()
    package = {str(p.relative_to(ROOT)) for p in (ROOT / "captum_leam").rglob("*.py")}
    missing = package - set(names)
    assert not missing, f"the wheel lacks {missing}"
    strangers = {n.split("/")[0] for n in names} - {"captum_leam"}
    assert all(n.endswith(".dist-info") for n in strangers), f"the wheel also holds {strangers}"
    assert any(n.endswith("licenses/LICENSE") for n in names)
    assert "License-Expression: BSD-3-Clause" in metadata
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    needed = {
        "CITATION.cff",
        "CHANGELOG.md",
        "CODE_OF_CONDUCT.md",
        "Dockerfile",
        "constraints.txt",
        "docs/conf.py",
        "examples/quickstart.py",
        "tools/wheel_check.py",
    }
    assert needed <= held, f"the sdist lacks {needed - held}"
    print(f"{wheel.name}: {len(names)} files, {wheel.stat().st_size / 1024:.0f} KiB; {sdist.name}: {len(held)} files")


def fresh_environment(folder: Path, wheel: Path) -> Path:
    """An environment with the wheel; its Python."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "install", "--quiet"]
    run(*pip, "--no-deps", "--no-index", wheel)
    (site / "zz_dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")  # after the wheel
    return python


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="keep wheel and sdist in this folder")
    parser.add_argument("--no-demo", action="store_true", help="leave out the demo")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        wheel, sdist = build(options.out or work / "dist")
        check_contents(wheel, sdist)
        python = fresh_environment(work / "fresh", wheel)
        print(run(python, "-c", USE, cwd=work).strip())
        (work / "typed.py").write_text(TYPES)
        said = run(sys.executable, "-m", "mypy", "--python-executable", python, work / "typed.py", cwd=work)
        assert 'Revealed type is "str"' in said.replace("builtins.", ""), said
        print("types: seen by mypy through py.typed")
        command = python.parent / "captum-leam"
        print(run(command, "--version", cwd=work).strip())
        if not options.no_demo:
            run(command, "demo", "--out", work / "demo", "--no-progress", cwd=work)
            page = work / "demo" / "index.html"
            print(f"demo: {page.stat().st_size / 1024:.0f} KiB of page, {len(list(page.parent.iterdir()))} files")


if __name__ == "__main__":
    main()
