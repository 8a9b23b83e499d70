"""Every example runs as it stands, with few training steps, and writes what it names into the folder it is run in. The documentation's
build runs them in full."""

import runpy
import sys
import warnings
from pathlib import Path

import pytest

import captum_leam.synthetic

FOLDER = Path(__file__).resolve().parents[1] / "examples"
WRITES = {
    "add_a_method": ["methods.png"],
    "audit_report": ["audit"],
    "compare_with_captum": ["beside_captum.png"],
    "own_model": ["own_model.png"],
    "planted_evidence": ["planted.png"],
    "population_study": ["lift.png"],
    "quickstart": ["first_map.png"],
    "run_a_study": ["study"],
}


def run(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    original = captum_leam.synthetic.train
    few = {"steps": 10, "batch_size": 16, "progress": False}
    monkeypatch.setattr(captum_leam.synthetic, "train", lambda population, **_: original(population, **few))
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a network of ten steps tells nobody apart, and this is said
        runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")


def test_every_example_is_tested():
    there = {path.stem for path in FOLDER.glob("*.py")}
    assert there == {*WRITES, "pair_from_photos"}


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.parametrize("name", WRITES)
def test_every_example_writes_the_files_it_names(name, tmp_path, monkeypatch, capsys):
    run(name, tmp_path, monkeypatch)
    assert sorted(p.name for p in tmp_path.iterdir()) == WRITES[name]  # nothing is written but what was named
    (written,) = tmp_path.iterdir()
    files = [f for f in written.rglob("*") if f.is_file()] if written.is_dir() else [written]
    assert all(f.stat().st_size for f in files if f.name != ".lock")
    assert sum(f.stat().st_size for f in files) > 10_000
    assert written.name in capsys.readouterr().out


@pytest.mark.real
def test_pair_from_photos_explains_two_photographs(real_dir, tmp_path, monkeypatch, capsys):
    pytest.importorskip("facexlib")
    photos = sorted((real_dir / "photos").glob("*.jpg"))[:2]
    asked = ["--weights", str(real_dir / "detection_mobilenet0.25_Final.pth"), "--threshold", "0.3"]
    (tmp_path / "network.py").write_text(
        "from captum_leam.synthetic import EmbeddingNet\n\n\ndef network():\n    return EmbeddingNet().eval()\n"
    )
    run("pair_from_photos", tmp_path, monkeypatch, *map(str, photos), *asked, "--model", "network.py:network")
    said = capsys.readouterr().out
    assert "Cosine" in said
    assert "picture: pair.png" in said
    assert (tmp_path / "pair.png").stat().st_size > 10_000


def test_pair_from_photos_names_what_is_missing(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stopped:
        run("pair_from_photos", tmp_path, monkeypatch, "a.jpg", "b.jpg")
    assert stopped.value.code == 2
    assert "--weights" in capsys.readouterr().err
