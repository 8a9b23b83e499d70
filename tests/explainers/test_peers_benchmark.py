"""The harness that compares peers: its statistics by hand, and every method of it on a small network."""

import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch

from captum_leam import suggest_layers
from captum_leam.stats.decisions import threshold_at_eer
from captum_leam.stats.inference import bootstrap_interval
from captum_leam.synthetic import EmbeddingNet, SyntheticPopulation

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def module(monkeypatch):
    """A module of the benchmarks, by name."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))

    def load(name: str) -> ModuleType:
        return __import__(name)

    return load


def test_halves_share_nobody_and_leave_nobody_out(module):
    halves = module("split").halves
    people = [f"s{i:02}" for i in range(1, 25)]
    tune, report = halves([*people, *people])
    assert len(tune) == len(report) == 12
    assert sorted(tune + report) == people
    assert halves(people[::-1]) == (tune, report)
    expected = np.random.default_rng(0).permutation(24)[:12]
    assert tune == sorted(people[i] for i in expected)
    assert [len(h) for h in halves("abc")] == [1, 2]


def test_the_share_of_the_limit_compares_the_same_images(module):
    measures = module("peers_measures")
    rows = [("map", 0, 0.2), ("map", 1, 0.9), ("map", 2, 0.1), ("limit", 0, 0.5), ("limit", 2, 0.25)]
    table = pd.DataFrame(rows, columns=["method", "image", "drop"])
    table["person"] = table["image"].map("abc".__getitem__)
    table = table.assign(network="n", where="own", fill="blur", fraction=0.05, smooth=0.0)
    share, limit = measures.shares_of_limit(table, "limit")
    assert share["value"] == pytest.approx(0.3 / 0.75)
    assert share["images"] == 2
    assert share["low"] == pytest.approx(0.4)
    assert limit["value"] == 1
    elsewhere = table.assign(where="transfer")
    assert measures.shares_of_limit(elsewhere, "limit") == []


def test_leads_are_paired_image_by_image(module):
    measures = module("peers_measures")
    rows = [("ours", 0, 0.5), ("ours", 1, 0.7), ("peer", 1, 0.6), ("peer", 0, 0.1)]
    table = pd.DataFrame(rows, columns=["method", "image", "drop"]).assign(network="n", where="own", fill="blur")
    table = table.assign(fraction=0.05, smooth=0.0, person=table["image"].astype(str))
    ours, peer = measures.faithfulness(table, "ours")
    assert ours["ahead"] == 0
    assert peer["ahead"] == pytest.approx(0.25)
    paired = bootstrap_interval(np.array([0.1, 0.4]), ["1", "0"])  # .7 - .6 and .5 - .1
    assert (peer["ahead_low"], peer["ahead_high"]) == pytest.approx(tuple(map(float, paired)))
    assert peer["ahead_low"] < 0.25 < peer["ahead_high"]


def test_specificity_is_the_mann_whitney_statistic(module):
    measures = module("peers_measures")
    maps, people = torch.rand(8, 20, 20), list("aabbccdd")
    found = {r["measure"]: r for r in measures.specificity("n", "m", maps, people)}
    bc = measures.bhattacharyya(maps, fraction=0.1)
    same = [bc[i, i + 1].item() for i in (0, 2, 4, 6)]
    different = [bc[i, j].item() for i in range(8) for j in range(i) if people[i] != people[j]]
    wins = np.mean([s > d for s in same for d in different])
    assert found["AUC"]["value"] == pytest.approx(wins)
    assert found["AUC"]["low"] <= found["AUC"]["value"] <= found["AUC"]["high"]
    fine = measures.bhattacharyya(maps, fraction=0.01)
    assert found["BC same"]["value"] == pytest.approx(np.mean([fine[i, i + 1].item() for i in (0, 2, 4, 6)]))
    dead = maps.clone()
    dead[0] = -1
    assert measures.specificity("n", "m", dead, people)[0]["images"] == 7
    assert measures.specificity("n", "m", maps[:2], ["a", "a"]) == []


def test_partners_are_of_the_person_or_not(module):
    partners = module("peers_measures").partners
    labels, probes = list("aaabbbcc"), [0, 1, 3, 6]
    same, other = (partners(labels, probes, same=kind) for kind in (True, False))
    assert same[:3] == [2, 2, same[2]]
    assert same[2] in (4, 5)
    assert same[3] == 7
    assert all(labels[p] != labels[o] for p, o in zip(probes, other, strict=True))
    assert not set(other) & set(probes)


def test_remembered_embeds_an_image_once_and_passes_gradients_through(module):
    seen = []
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 4))
    net.register_forward_hook(lambda m, args, output: seen.append(len(args[0])))
    remembered, x = module("peers_measures").Remembered(net), torch.rand(3, 3, 2, 2)
    with torch.no_grad():
        first, again = remembered(x[:2]), remembered(x.flip(0))
    assert seen == [2, 1]
    assert torch.equal(again[1:].flip(0), first)
    x.requires_grad_()
    assert torch.autograd.grad(remembered(x).sum(), x)[0].abs().sum() > 0


def test_the_pareto_front_keeps_what_nothing_cheaper_beats(module):
    figures = module("peers_figure")
    table = pd.DataFrame({"passes": [2, 2, 10, 100, 500], "drop": [0.1, 0.2, 0.15, 0.3, 0.3]})
    assert figures.pareto(table)["drop"].tolist() == [0.2, 0.3]
    assert figures.pareto(table)["passes"].tolist() == [2, 100]


def test_bold_is_what_beats_the_default(module):
    page = module("peers_page")
    columns = ["family", "method", "measure", "where", "fill", "fraction", "smooth", "value", "ahead_high"]
    rows = [
        ("LEAM", page.DEFAULT, "drop", "own", "blur", 0.05, 0.0, 0.3, 0.0),
        ("LEAM", "LEAM, best", "drop", "own", "blur", 0.05, 0.0, 0.4, -0.1),
        ("peer", "better", "drop", "own", "blur", 0.05, 0.0, 0.35, -0.01),
        ("peer", "unsure", "drop", "own", "blur", 0.05, 0.0, 0.31, 0.01),
        ("control", "worse", "drop", "own", "blur", 0.05, 0.0, 0.2, 0.2),
        ("limit", "limit", "drop", "own", "blur", 0.05, 0.0, 0.5, -0.2),
        ("LEAM", page.DEFAULT, "deletion", "similar", "blur", math.nan, math.nan, 0.1, math.nan),
        ("peer", "better", "deletion", "similar", "blur", math.nan, math.nan, 0.2, math.nan),
        ("peer", "unsure", "deletion", "similar", "blur", math.nan, math.nan, 0.05, math.nan),
    ]
    table = pd.DataFrame(rows, columns=columns).assign(network="A")
    own, deletion = page.drop_columns(0.0)[0], page.VERIFICATION[0]
    shown = {m: page.text_of(table, m, own).split(" / ")[0] for m in table["method"].unique()}
    assert shown["better"] == "**.350**\\*"
    assert shown["unsure"] == "**.310**"
    assert not any("**" in shown[m] for m in (page.DEFAULT, "LEAM, best", "worse", "limit"))
    assert page.text_of(table, "better", deletion) == ".20"
    assert page.text_of(table, "unsure", deletion) == "**.05**"
    assert set(page.losses(table)["method"]) == {"better", "unsure"}
    counted = "0 of 1 cells (drop), 0 of 0 cells (drop at matched blur), 0 of 1 cells (deletion and insertion)"
    assert page.count_of_cells(table, few=False) == counted


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Input Tensor", "ignore:Setting (forward|backward)")
def test_every_method_of_the_harness_explains_a_small_network(module, capsys):
    """The packages too, where they are installed; what does not apply says why."""
    methods, cost = module("peers_methods"), module("peers_cost")
    net = EmbeddingNet().eval()
    faces = SyntheticPopulation(2).sample(1).images
    references = torch.randn(2, 32)
    threshold = threshold_at_eer([0.1, 0.5], [False, True])
    every = methods.every_method(net, suggest_layers(net, faces), threshold, True)
    assert len({m.name for m in every}) == len(every) > 35
    refused = []
    for method in every:
        try:
            maps, passes = cost.run(method, net, faces, references)
        except ValueError:
            refused.append(method.name)
            continue
        assert maps.shape == (2, 112, 112), method.name
        assert torch.isfinite(maps).all(), method.name
        assert passes["forwards"] >= 1, method.name
        assert method.dissimilar is None or method.dissimilar(faces, references).shape == (2, 112, 112), method.name
    assert refused == ["GapDecomposition, last layer"]
    assert all(p.grad is None for p in net.parameters())
