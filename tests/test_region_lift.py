"""Which regions LEAM names on hand-labelled faces: the benchmark, run."""

import importlib.util
import re
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "region_lift.py"


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.ci
def test_the_nose_stands_out_and_skin_does_not(real_dir, capsys, monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))  # it shares main_job's loading
    spec = importlib.util.spec_from_file_location("region_lift", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(
        "sys.argv", ["region_lift.py", "--data", str(real_dir), "--steps", "2", "--networks", "ms1m", "casia"]
    )
    script.main()
    printed = capsys.readouterr().out
    found = re.findall(r"least lift of the nose ([\d.]+) .*largest of skin ([\d.]+)", printed)
    assert len(found) == 2
    assert all(float(nose) >= 5 and float(skin) <= 1.5 for nose, skin in found)
    assert printed.count("hand-labelled faces, top 1 %") == 2
    assert re.search(r"default preset .*\d\.\d\d \[\d\.\d\d, \d\.\d\d\]", printed)
