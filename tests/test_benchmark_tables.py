"""The tables that the documentation shows of the real faces, made from numbers small enough to be worked out by hand."""

import importlib
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module
    for name in ("main_job", "faithfulness", "verification"):
        sys.modules.pop(name, None)


def test_the_best_of_eight_is_chosen_for_every_network_and_measure(script):
    main_job = script("main_job")
    cams = [
        {
            "explained": "A",
            "map": f"LayerGradCam {i} px, detach",
            "quantity": q,
            "value": v,
            "low": v - 0.1,
            "high": v + 0.1,
        }
        for i, row in enumerate([(0.1, 0.4), (0.3, 0.2)])
        for q, v in zip(("drop on itself", "drop on the other"), row, strict=True)
    ]
    others = [
        {"explained": "A", "map": m, "quantity": "drop on itself", "value": 0.5, "low": 0.4, "high": 0.6}
        for m in ("LEAM elementwise 28 px", "LEAM elementwise 7 px", "LEAM fast", "random pixels")
    ]
    coefficient = {"explained": "A", "map": "LayerGradCam 0 px, detach", "quantity": "BC same person", "value": 0.9}
    table = main_job.with_best_cam(pd.DataFrame([*cams, *others, coefficient]))
    best = table[table["map"].str.startswith("Captum")].set_index("quantity")
    assert best["value"].to_dict() == {"drop on itself": 0.3, "drop on the other": 0.4}
    assert list(table["map"])[2:] == ["LEAM, 28 px, one pass", "LEAM, fast", "random pixels"]


def test_what_the_faithfulness_tables_say(script, tmp_path):
    """Two linear networks that look at one half of the image each; the headline map names the half, the other map the wrong one."""
    faithfulness = script("faithfulness")
    images = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    left = torch.zeros(6, 8, 8)
    left[:, :, :4] = 1

    def network(half):
        return lambda x: (x * half[: len(x), None]).flatten(1)

    networks, people = {"A": network(left), "B": network(1 - left)}, [0, 0, 1, 1, 2, 2]
    maps = {faithfulness.HEADLINE: left, "Saliency": 1 - left}
    result = faithfulness.evaluate(networks, images, people, maps, "A", quick=False)
    comparison = result.compare()
    drops = faithfulness.shown_drops(result.summary())
    assert set(drops["occluded"]) == {f"blur {p} %" for p in (1, 5, 10, 20)} | {
        f"{fill} {p} %" for fill in ("noisy linear", "zero") for p in (5, 20)
    }
    at = drops.set_index(["map", "measured", "occluded"])["drop"]
    assert at[faithfulness.HEADLINE, "itself", "zero 20 %"] > 0.05
    assert at[faithfulness.HEADLINE, "the other", "zero 20 %"] == pytest.approx(0)
    assert at["Saliency", "itself", "zero 20 %"] == pytest.approx(0)
    assert "control: other people" in at.index.get_level_values("map")
    assert drops.groupby("kind")["map"].nunique().to_dict() == {"Captum": 1, "LEAM": 1, "control": 7}
    assert list(dict.fromkeys(drops["measured"])) == ["itself", "the other"]

    counted = faithfulness.cells(comparison).set_index("fill")
    assert counted.loc["blur", "cells"] == 2 * 4 * 7  # networks × fractions × controls
    outcomes = ["map ahead", "ahead, within the interval", "control ahead"]
    assert (counted[outcomes].sum(axis=1) == counted["cells"]).all()
    headline = comparison[(comparison["method"] == faithfulness.HEADLINE) & (comparison["fill"] == "blur")]
    assert counted.loc["blur", "control ahead"] == (headline["difference"] <= 0).sum()

    faithfulness.write_tables(tmp_path, result, comparison, comparison, pd.DataFrame({"name": ["weights"]}))
    named = {path.name for path in tmp_path.iterdir()}
    assert all(f"docs/_data/{name}" in faithfulness.__doc__ for name in named)
    assert len(named) == 5
