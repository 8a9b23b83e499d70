"""Tables that the documentation shows of the real faces, made from numbers small enough to be worked out by hand."""

import importlib
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

from captum_leam.faithfulness import OcclusionResult

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module
    for name in ("main_job", "faithfulness", "verification", "research_data", "contest"):
        sys.modules.pop(name, None)


@pytest.mark.slow
@pytest.mark.ci
def test_every_script_can_be_imported():
    code = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]"
    names = sorted(path.stem for path in FOLDER.glob("*.py"))
    result = subprocess.run(  # noqa: S603 - of the repository
        [sys.executable, "-c", code, *names], cwd=FOLDER, capture_output=True, text=True, check=False
    )
    assert len(names) > 20
    assert result.returncode == 0, result.stderr


def drop_rows(explained, model, drops, method="LEAM, default", control="", **more):
    cell = {"fill": "blur", "order": "most", "fraction": 0.05, "changed": 10} | more
    return [
        {
            "image": i,
            "person": i // 2,
            "explained": explained,
            "method": method,
            "control": control,
            "model": model,
            "drop": d,
        }
        | cell
        for i, d in enumerate(drops)
    ]


def test_the_best_layer_of_grad_cam_is_chosen_for_own_and_for_transfer(script):
    main_job = script("main_job")
    rows = [
        {"map": f"{main_job.CAM}{layer}", "where": where, "image": 0, "person": "ann", "in_gaps": drop}
        for layer, pair in {"a": (0.1, 0.4), "b": (0.3, 0.2)}.items()
        for where, drop in zip(("own", "transfer"), pair, strict=True)
    ]
    rows.append({"map": "LEAM, fast", "where": "own", "image": 0, "person": "ann", "in_gaps": 0.5})
    table = main_job.with_best_cam(pd.DataFrame(rows)).set_index(["map", "where"])["in_gaps"]
    assert table.to_dict() == {
        (main_job.BEST_CAM, "own"): 0.3,
        (main_job.BEST_CAM, "transfer"): 0.4,
        ("LEAM, fast", "own"): 0.5,
    }


def test_the_mean_of_the_networks_is_that_of_every_image(script):
    main_job = script("main_job")
    rows = [
        {"faces": "faces", "explained": name, "map": "m", "where": "own", "image": i, "person": i, "in_gaps": drop}
        for name, drops in {"A": (0.2, 0.4), "B": (0.4, 0.8)}.items()
        for i, drop in enumerate(drops)
    ]
    table = main_job.means(pd.DataFrame(rows)).set_index("explained")
    assert table["value"].to_dict() == pytest.approx({"A": 0.3, "B": 0.6, main_job.ALL: 0.45})
    assert (table["low"] <= table["value"]).all()
    assert (table["value"] <= table["high"]).all()


def test_transfer_is_the_mean_of_other_architectures_in_gaps(script):
    data = script("research_data")
    networks = {"A": nn.Linear(1, 1), "twin": nn.Linear(1, 1), "B": nn.Flatten(), "C": nn.Identity()}
    gaps = {"A": 0.5, "twin": 1.0, "B": 0.1, "C": 1.0}
    drops = {"A": [0.25, 0.5], "twin": [9.0, 9.0], "B": [0.05, 0.1], "C": [0.1, 0.2]}
    result = OcclusionResult(pd.DataFrame([row for name, d in drops.items() for row in drop_rows("A", name, d)]))
    table = data.own_and_transfer(result, networks, gaps).to_frame()
    found = table.set_index(["model", "image"])["drop"].to_dict()
    assert found == pytest.approx(
        {("own", 0): 0.5, ("own", 1): 1.0, ("transfer", 0): 0.3, ("transfer", 1): 0.6}
    )  # the network of the same architecture counts nowhere


def test_what_the_faithfulness_tables_say(script, tmp_path):
    """Two linear networks that look at one half of the image each; the headline map names the half."""
    faithfulness, data = script("faithfulness"), script("research_data")
    images = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    left = torch.zeros(6, 8, 8)
    left[:, :, :4] = 1

    class Half(nn.Module):
        def __init__(self, half):
            super().__init__()
            self.half = half

        def forward(self, x):
            return (x * self.half[: len(x), None]).flatten(1)

    networks, people = {"A": Half(left), "B": nn.Sequential(Half(1 - left))}, [0, 0, 1, 1, 2, 2]
    networks["B"].append(nn.Identity())
    maps = {faithfulness.HEADLINE: left, "LEAM, fast": 1 - left}
    result = faithfulness.evaluate(networks, images, people, maps, "A", quick=False)
    result = data.own_and_transfer(result, networks, dict.fromkeys(networks, 1.0))
    comparison = result.compare()
    drops = faithfulness.shown_drops(result.summary())
    assert set(drops["occluded"]) == {f"{f} {p} %" for f in ("blur", "noisy linear", "zero") for p in (5, 20)}
    at = drops.set_index(["map", "measured", "occluded"])["drop"]
    assert at[faithfulness.HEADLINE, "own", "zero 20 %"] > 0.05
    assert at[faithfulness.HEADLINE, "transfer", "zero 20 %"] == pytest.approx(0)
    assert at["LEAM, fast", "own", "zero 20 %"] == pytest.approx(0)
    assert "control: other people" in at.index.get_level_values("map")
    assert drops["map"].nunique() == 2 + 7

    counted = faithfulness.cells(comparison).set_index("fill")
    assert counted.loc["blur", "cells"] == 2 * 2 * 7  # own and transfer × fractions × controls
    outcomes = ["map ahead", "ahead, within the interval", "control ahead"]
    assert (counted[outcomes].sum(axis=1) == counted["cells"]).all()
    headline = comparison[(comparison["method"] == faithfulness.HEADLINE) & (comparison["fill"] == "blur")]
    assert counted.loc["blur", "control ahead"] == (headline["difference"] <= 0).sum()

    faithfulness.write_tables(tmp_path, result, comparison, comparison, pd.DataFrame({"name": ["weights"]}))
    names = {path.name for path in tmp_path.iterdir()}
    assert all(f"docs/_data/{name}" in faithfulness.__doc__ for name in names)
    assert len(names) == 5
