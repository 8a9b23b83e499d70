"""Acceptance of the method on six people and three networks of the research data (benchmarks/main_job.py takes all)."""

import importlib
from pathlib import Path

import pandas as pd
import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.ci
def test_leam_against_grad_cam_on_real_faces(real_dir, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    script, csv = importlib.import_module("main_job"), tmp_path / "main_job.csv"
    options = [
        "--people",
        "6",
        "--per-person",
        "2",
        "--networks",
        "ms1m",
        "edgeface",
        "reid0095",
        "--presets",
        "default",
    ]
    monkeypatch.setattr("sys.argv", ["main_job.py", "--data", str(real_dir), *options, "--csv", str(csv)])
    script.main()
    table = pd.read_csv(csv)
    of = table.set_index(["explained", "map", "quantity"])["value"]
    for network in ("ms1m", "edgeface"):
        for where in ("own", "transfer"):
            cam = of[network, script.BEST_CAM, where]
            assert of[network, "LEAM, middle layer, one pass", where] > cam
            assert of[network, "LEAM, default", where] >= 2 * cam
            assert of[network, "LEAM, default", where] > of[network, script.PATH, where]
            assert of[network, "random pixels", where] < 0.1
        assert of[network, "LEAM, default", "BC same person"] > of[network, "LEAM, default", "BC different people"]
