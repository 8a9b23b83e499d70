"""What was measured on real faces before: the acceptance of the method, on ten of the people (benchmarks/main_job.py takes all)."""

import importlib.util
import re
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "main_job.py"


@pytest.mark.real
@pytest.mark.slow
def test_leam_against_grad_cam_on_real_faces(real_dir, capsys, monkeypatch):
    spec = importlib.util.spec_from_file_location("main_job", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(
        "sys.argv",
        ["main_job.py", "--data", str(real_dir), "--people", "10", "--per-person", "2", "--presets", "default"],
    )
    script.main()
    printed = capsys.readouterr().out
    for network in printed.split("explained network: ")[1:]:
        rows = {
            re.split(r"\s{2,}", line)[0]: [float(x) for x in re.split(r"\s+", line)[-6:]]
            for line in network.splitlines()
            if "LEAM" in line[:5]
        }
        *_, own, other, _, _ = rows["LEAM elementwise 28 px"]
        assert min(own, other) >= 1.5
        for name in ("LEAM overall, path of 4", "LEAM default"):
            *_, own, other, same, different = rows[name]
            assert min(own, other) >= 2.0
            assert same >= 0.30
            assert different <= 0.16
