"""The harness that compares peers: its statistics by hand, and every method of it on a small network."""

import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch

from captum_leam import suggest_layers
from captum_leam.faithfulness import OcclusionEvaluator
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
    table = table.assign(network="n", faces="faces", where="own", fill="blur", fraction=0.05, view="chosen")
    share, limit = measures.shares_of_limit(table, "limit")
    assert share["value"] == pytest.approx(0.3 / 0.75)
    assert share["images"] == 2
    assert share["low"] == pytest.approx(0.4)
    assert limit["value"] == 1
    assert measures.shares_of_limit(table.assign(view="0"), "limit") == []


def test_leads_are_paired_image_by_image(module):
    measures = module("peers_measures")
    rows = [("ours", 0, 0.5), ("ours", 1, 0.7), ("peer", 1, 0.6), ("peer", 0, 0.1)]
    table = pd.DataFrame(rows, columns=["method", "image", "in_gaps"]).assign(network="n", where="own", fill="blur")
    table = table.assign(faces="faces", view="chosen", fraction=0.05, person=table["image"].astype(str))
    (lead,) = measures.leads(table, ["ours"]).to_dict("records")
    assert (lead["preset"], lead["method"], lead["images"]) == ("ours", "peer", 2)
    assert lead["ahead"] == pytest.approx(0.25)
    paired = bootstrap_interval(np.array([0.1, 0.4]), ["1", "0"])  # .7 - .6 and .5 - .1
    assert (lead["low"], lead["high"]) == pytest.approx(tuple(map(float, paired)))


def test_averages_are_over_networks_in_gaps_and_leave_the_same_architecture_out(module):
    measures = module("peers_measures")
    columns = ["network", "where", "measured", "method", "in_gaps"]
    rows = [
        ("a", "transfer", "b", "m", 0.2),
        ("a", "transfer", "c", "m", 0.4),
        ("b", "transfer", "a", "m", 0.5),
        ("a", "same architecture", "d", "m", 9.0),
        ("a", "transfer", "b", "only on a", 0.7),
    ]
    table = pd.DataFrame(rows, columns=columns).assign(faces="faces", view="chosen", fill="blur", fraction=0.05)
    found = measures.averaged(table.assign(drop=table["in_gaps"], image=0, person="p"))
    everywhere = found[found["network"] == measures.ALL]
    assert everywhere[["where", "method"]].values.tolist() == [["transfer", "m"]]
    assert everywhere["in_gaps"].item() == pytest.approx((0.3 + 0.5) / 2)
    assert set(found["where"]) == {"transfer", "same architecture"}


def test_the_gap_is_between_own_and_other_people(module):
    gap = module("research_data").gap
    faces = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    assert gap(faces, faces, ["a", "b"]) == pytest.approx(1)
    assert gap(faces, torch.ones(2, 2), ["a", "b"]) == pytest.approx(0)


def test_transfer_is_between_architectures(module):
    measures = module("peers_measures")
    networks = {"a": torch.nn.Flatten(), "b": torch.nn.Flatten(), "c": torch.nn.Identity()}
    kinds = [measures.relation(networks, "a", other) for other in networks]
    assert kinds == ["own", "same architecture", "transfer"]
    chosen = [measures.next_of_another_architecture(networks, name) for name in networks]
    assert chosen == [["c"], ["c"], ["a"]]
    assert measures.next_of_another_architecture({"a": networks["a"]}, "a") == []


# -- readings ------------------------------------------------------------------------------------------


def test_readings_by_hand(module):
    readings, contest = module("peers_readings"), module("contest")
    raw = readings.Raw(torch.tensor([[[[1.0, -4.0]], [[2.0, 1.0]], [[-6.0, 6.0]]]]))
    found = {name: readings.read(raw, name).flatten().tolist() for name in contest.READINGS}
    assert found == {"signed": [-3, 3], "positive": [0, 3], "absolute": [9, 11], "mean": [-1, 1]}
    assert readings.readings_of(raw) == contest.READINGS
    both = readings.Raw(raw.attributions, torch.zeros(1, 1, 2))
    assert readings.readings_of(both) == (*contest.READINGS, "published")
    with pytest.raises(ValueError, match="published"):
        readings.read(raw, "published")
    flat = torch.ones(1, 56, 56, dtype=torch.float64)
    assert readings.smoothed(flat, 2.0) == pytest.approx(flat)
    spot = torch.zeros(1, 56, 56)
    spot[0, 28, 28] = 1
    half = measured_width(readings.smoothed(spot, 4.0)[0])
    assert half == pytest.approx(2, rel=0.15)  # 4 px per 112 px of width; the kernel ends at two of them


def measured_width(spot: torch.Tensor) -> float:
    """Return the standard deviation along the rows of a spot in the middle."""
    weight, place = spot.sum(1), torch.arange(len(spot)) - len(spot) // 2
    return float(((weight * place**2).sum() / weight.sum()).sqrt())


def test_the_choice_averages_cells_before_networks(module):
    contest = module("contest")
    columns = ["network", "method", "reading", "sigma", "where", "in_gaps"]
    rows = [
        *(("a", "IG", "signed", 0.0, "own", v) for v in (0.1, 0.1, 0.1)),  # many images do not outweigh a cell
        ("a", "IG", "signed", 0.0, "transfer", 0.9),
        ("b", "IG", "signed", 0.0, "own", 0.1),
        ("a", "IG", "absolute", 1.0, "own", 0.3),
        ("b", "IG", "absolute", 1.0, "own", 0.2),
        ("b", "IG", "absolute", 1.0, "same architecture", 9.0),
    ]
    table = pd.DataFrame(rows, columns=columns).assign(fill="blur", fraction=0.05)
    means = contest.mean_of_readings(table)
    assert means["IG", "signed", 0.0] == pytest.approx((0.5 + 0.1) / 2)
    assert means["IG", "absolute", 1.0] == pytest.approx(0.25)
    assert contest.choose(table) == {"IG": ("signed", 0.0)}
    tied = pd.concat([table, table.assign(reading="positive")])
    assert contest.choose(tied) == {"IG": ("signed", 0.0)}


def test_drops_are_those_of_the_evaluator_and_masks_in_common_are_measured_once(module):
    measures = module("peers_measures")
    torch.manual_seed(0)
    nets = {n: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 8)).eval() for n in "ab"}
    images, maps = torch.rand(3, 3, 16, 16), torch.rand(3, 16, 16)
    references = {n: torch.nn.functional.normalize(torch.randn(3, 8), dim=1) for n in nets}
    occlusion, cells = (
        measures.Occlusion(nets, images, references),
        [("blur", 0.1), ("noisy linear", 0.2), ("mean", 0.05)],
    )
    rows = []
    nets["a"].register_forward_hook(lambda m, args, output: rows.append(len(args[0])))
    found = occlusion.drops({"k": maps, "again": 2 * maps}, dict.fromkeys(["k", "again"], cells))
    assert sum(rows) - sum(rows[:2]) == 9  # the first two calls look the network over
    fills = ("blur", "noisy linear", "mean")
    evaluator = OcclusionEvaluator(nets, (0.05, 0.1, 0.2), fills=fills, controls=())
    expected = evaluator.evaluate(images, {"k": maps}, references, list("abc")).to_frame()
    expected = expected.set_index(["model", "fill", "fraction", "image"])["drop"]
    for entry in found.itertuples():
        assert entry.drop == pytest.approx(expected[entry.measured, entry.fill, entry.fraction, entry.image], abs=1e-6)


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


def test_the_pareto_front_keeps_what_nothing_cheaper_beats(module):
    figures = module("peers_figure")
    table = pd.DataFrame({"passes": [2, 2, 10, 100, 500], "drop": [0.1, 0.2, 0.15, 0.3, 0.3]})
    assert figures.pareto(table)["drop"].tolist() == [0.2, 0.3]
    assert figures.pareto(table)["passes"].tolist() == [2, 100]


def test_bold_is_what_beats_the_default(module):
    page = module("peers_page")
    columns = ["family", "method", "measure", "where", "fill", "fraction", "view", "value", "ahead", "ahead_high"]
    nothing = (math.nan, math.nan)
    rows = [
        ("LEAM", page.DEFAULT, "drop", "own", "blur", 0.05, "chosen", 0.3, *nothing),
        ("LEAM", "LEAM, best", "drop", "own", "blur", 0.05, "chosen", 0.4, -0.1, -0.1),
        ("peer", "better", "drop", "own", "blur", 0.05, "chosen", 0.35, -0.05, -0.01),
        ("peer", "unsure", "drop", "own", "blur", 0.05, "chosen", 0.31, -0.01, 0.01),
        ("peer", "on easier images", "drop", "own", "blur", 0.05, "chosen", 0.6, 0.1, 0.2),
        ("control", "worse", "drop", "own", "blur", 0.05, "chosen", 0.2, 0.1, 0.2),
        ("limit", "limit", "drop", "own", "blur", 0.05, "chosen", 0.5, *nothing),
        ("LEAM", page.DEFAULT, "deletion", "similar", "blur", math.nan, math.nan, 0.1, *nothing),
        ("peer", "better", "deletion", "similar", "blur", math.nan, math.nan, 0.2, *nothing),
        ("peer", "unsure", "deletion", "similar", "blur", math.nan, math.nan, 0.05, *nothing),
    ]
    table = pd.DataFrame(rows, columns=columns).assign(network=page.ALL, faces="faces")
    own, deletion = page.drop_columns("chosen")[0], page.VERIFICATION[0]
    shown = {m: page.text_of(table, m, own).split(" / ")[0] for m in table["method"].unique()}
    assert shown["better"] == "**.350**\\*"
    assert shown["unsure"] == "**.310**"
    plain = (page.DEFAULT, "LEAM, best", "on easier images", "worse", "limit")
    assert not any("**" in shown[m] for m in plain)
    assert page.text_of(table, "better", deletion) == ".20"
    assert page.text_of(table, "unsure", deletion) == "**.05**"
    (line,) = page.where_not_ahead(table)
    assert line == "- blur 5 %, own, as chosen: better by .050\\*; unsure by .010"
    assert page.behind_in_short(table) == (
        "Averaged over networks, a method or a control is ahead of the default in 1 of 1 cells (as chosen), by at most .050 gaps "
        "(better); the interval over people leaves out 0 in some of them."
    )
    alone = table[table["method"] == page.DEFAULT]
    assert page.behind_in_short(alone).endswith("is ahead of the default in any cell.")
    assert page.where_not_ahead(alone) == ["In no cell that decides."]


def test_the_standing_counts_the_deciding_cells(module):
    page = module("peers_page")
    columns = ["preset", "method", "network", "where", "view", "fill", "fraction", "ahead", "high"]
    rows = [
        ("ours", "cheap", page.ALL, "own", "chosen", "blur", 0.05, 0.1, 0.2),
        ("ours", "other", page.ALL, "own", "chosen", "blur", 0.05, -0.1, -0.05),
        ("ours", "dear", page.ALL, "transfer", "chosen", "blur", 0.05, -0.1, -0.05),
        ("ours", "cheap", page.ALL, "transfer", "chosen", "blur", 0.05, 0.1, 0.2),
        ("ours", "cheap", page.ALL, "own", "chosen", "mean", 0.05, -0.3, -0.2),  # does not decide
        ("ours", "cheap", page.ALL, "same architecture", "chosen", "blur", 0.05, -0.3, -0.2),
    ]
    leads = pd.DataFrame(rows, columns=columns).assign(faces="faces")
    cells = page.standing(leads, "ours", ["cheap", "other"])
    assert cells["ahead"].tolist() == [False, True]
    assert cells["surely_behind"].tolist() == [True, False]
    assert page.counted_cells(cells) == "ahead of every one in 1 of 2 cells, surely behind one in 1"
    counts = [("a", "cheap", 2), ("b", "cheap", 4), ("a", "other", 2), ("b", "other", 5)]
    passes = pd.DataFrame(counts, columns=["network", "method", "value"]).assign(measure="forwards", family="peer")
    assert page.rivals(passes, 4) == ["cheap"]


def test_the_short_table_counts_averages_apart_from_networks(module):
    page = module("peers_page")
    columns = ["method", "network", "where", "ahead", "high"]
    rows = [
        ("rival", page.ALL, "own", 0.1, 0.2),
        ("rival", page.ALL, "transfer", -0.1, -0.05),
        ("rival", "a", "own", 0.1, 0.2),
        ("rival", "b", "own", 0.1, 0.2),
    ]
    leads = pd.DataFrame(rows, columns=columns).assign(faces="faces", view="chosen", fill="blur", fraction=0.05)
    leads = pd.concat([leads.assign(preset=f"LEAM, {preset}") for preset in page.PRESETS])
    counts = [("a", "rival", 60), ("b", "rival", 60)]
    passes = pd.DataFrame(counts, columns=["network", "method", "value"]).assign(measure="forwards", family="peer")
    fast, default, best = page.short_table(passes, leads).splitlines()[2:]
    assert fast == '| `"fast"` | 0 methods of at most 4 passes | – | – | – | – |'
    assert default == '| `"default"` | 1 methods of at most 100 passes | 1 of 2 | 1 | 2 of 2 | 0 |'
    assert best == '| `"best"` | all 1 methods | 1 of 2 | 1 | 2 of 2 | 0 |'


def test_the_figure_of_the_average_has_drops_in_gaps_and_mean_passes(module):
    figures = module("peers_figure")
    drop = {"measure": "drop", "where": "own", "fill": "blur", "view": "chosen", "faces": "faces", "fraction": 0.05}
    rows = [
        {"network": n, "method": m, "family": f, "value": v, **drop}
        for n, m, f, v in (
            (figures.ALL, "LEAM, fast", "LEAM", 0.5),
            (figures.ALL, "Saliency", "Captum", 0.1),
            (figures.ALL, "control: centre", "control", 0.2),
            ("a", "LEAM, fast", "LEAM", 0.3),
        )
    ]
    rows += [
        {"network": n, "method": m, "family": f, "value": v, "measure": "forwards", "faces": "faces"}
        for n, m, f, v in (
            ("a", "LEAM, fast", "LEAM", 2),
            ("b", "LEAM, fast", "LEAM", 4),
            ("a", "Saliency", "Captum", 2),
        )
    ]
    table = pd.DataFrame(rows)
    found = figures.points(table).set_index(["network", "method"])
    assert found.loc[(figures.ALL, "LEAM, fast"), ["drop", "passes"]].tolist() == [0.5, 3]
    assert found.loc[("a", "LEAM, fast"), ["drop", "passes"]].tolist() == [0.3, 2]
    (axis,) = figures.figure(table).axes
    assert "in gaps" in axis.get_ylabel()
    named = {text.get_text() for text in axis.texts}
    assert named == {"LEAM, fast", "centre: 0.20"}  # below the control, a point has no name


# -- the methods ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.filterwarnings("ignore:Input Tensor", "ignore:Setting (forward|backward)")
def test_every_method_of_the_contest_explains_a_small_network(module, capsys):
    """The packages too, where they are installed; what does not apply says why."""
    methods, cost, contest = module("peers_methods"), module("peers_cost"), module("contest")
    net = EmbeddingNet().eval()
    faces = SyntheticPopulation(2).sample(1).images
    references = torch.randn(2, 32)
    threshold = threshold_at_eer([0.1, 0.5], [False, True])
    every = methods.every_method(net, suggest_layers(net, faces), threshold, False)
    names = {m.name for m in every}
    missing = set(contest.METHODS) - names
    assert len(names) == len(every)
    assert names <= set(contest.METHODS)
    assert not missing or capsys.readouterr().out.count("is not installed") == len({package_of(m) for m in missing})
    assert set(contest.DEAR) <= set(contest.METHODS)
    refused = []
    for method in (m for m in every if m.name not in contest.DEAR):
        try:
            raw, passes = cost.run(method, net, faces, references)
        except (ValueError, TypeError, AssertionError, AttributeError):  # LayerLRP has no rule for containers
            refused.append(method.name)
            continue
        count, channels = raw.attributions.shape[:2]
        assert (count, *raw.attributions.shape[2:]) == (2, 112, 112), method.name
        assert channels in (1, 3), method.name
        assert torch.isfinite(raw.attributions).all(), method.name
        assert passes["forwards"] >= 1, method.name
        assert method.dissimilar is None or method.dissimilar(faces, references).shape == (2, 112, 112), method.name
    assert set(refused) <= {"GapDecomposition, last layer", "LayerLRP, middle layer"}
    assert all(p.grad is None for p in net.parameters())


def package_of(method: str) -> str:
    """Return the optional package that a method needs."""
    return next(p for p in ("pytorch-grad-cam", "torch-cam", "SBSM") if p in method)


@pytest.mark.filterwarnings("ignore:Input Tensor", "ignore:Setting (forward|backward)")
@pytest.mark.parametrize(
    "name",
    [
        "Saliency",
        "InputXGradient",
        "IntegratedGradients, 4 steps",
        "DeepLift",
        "GuidedGradCam, last layer",
        "xSSAB",
        "FGGB",
    ],
)
def test_methods_with_input_attributions_give_their_signs_and_channels(module, name):
    methods = module("peers_methods")
    net, faces = EmbeddingNet().eval(), SyntheticPopulation(2).sample(1).images
    found = {m.name: m for m in methods.every_method(net, suggest_layers(net, faces), 0.1, True)}
    raw = found[name].raw(faces, torch.randn(2, 32))
    assert raw.attributions.shape == faces.shape
    assert (raw.attributions < 0).any()
    if name == "xSSAB":
        assert raw.published.shape == (2, 112, 112)


def test_sliding_windows_find_the_pixels_that_count(module):
    """A network that reads one square of the image only."""
    similarity = module("peers_similarity")
    net = torch.nn.Sequential(Square(), torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 4)).eval()
    torch.manual_seed(0)
    faces = torch.rand(2, 3, 112, 112)
    method = similarity.SANE(net, stride=7)
    with torch.no_grad():
        maps = method.attribute(faces, reference=net(faces))[:, 0]
    best = maps.flatten(1).argmax(1)
    assert all(30 < int(i) // 112 < 66 and 30 < int(i) % 112 < 66 for i in best)
    assert maps[:, :10, :10].abs().max() < 1e-5
    assert method.cost.backwards == 0


class Square(torch.nn.Module):
    """The middle of the image."""

    def forward(self, x):
        return x[:, :, 40:56, 40:56]


def test_regions_are_ranked_by_what_they_add_per_pixel(module):
    similarity = module("peers_similarity")
    image = torch.zeros(1, 3, 60, 60)
    image[:, :, 10:30, 10:30] = 1
    attributions = torch.zeros(1, 60, 60)
    attributions[0, 12:28, 12:28] = 1
    attributions[0, 40:44, 40:44] = 1  # a spot in a large region counts little
    ranked = similarity.xrai(attributions, image)
    assert ranked.shape == (1, 60, 60)
    inside = ranked[0, 14:26, 14:26]
    assert inside.min() == inside.max() == ranked.max()
    assert ranked[0, 41, 41] < inside.min()
    assert torch.isfinite(ranked).all()


# -- how methods are read ------------------------------------------------------------------------------


def test_the_readings_in_the_documentation_are_the_best_of_the_list(module):
    """What ``peers.py`` chose, from the means it wrote."""
    table, contest = pd.read_csv(READINGS), module("contest")
    for method, part in table.groupby("method"):
        assert method in contest.METHODS
        assert part["chosen"].sum() == 1, method
        assert part.loc[part["chosen"], "in_gaps"].item() == part["in_gaps"].max(), method
        cells = set(part[["reading", "sigma"]].itertuples(index=False, name=None))
        assert cells >= {(r, s) for r in contest.READINGS for s in contest.SIGMAS}, method


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.filterwarnings("ignore:Input Tensor", "ignore:Setting (forward|backward)")
@pytest.mark.parametrize(
    "name", ["IntegratedGradients, 4 steps", "DeepLift", "InputXGradient", "GuidedGradCam, last layer"]
)
def test_no_method_is_read_worse_than_it_could_be(module, real_dir, tmp_path, name):
    """The chosen reading is within .02 of the best one on tuning people: the fault of taking absolute values."""
    contest, peers = module("contest"), module("peers")
    chosen = pd.read_csv(READINGS).query("chosen").set_index("method")[["reading", "sigma"]]
    sample = peers.Sample(**{**vars(contest.QUICK), "tuning": SAMPLED})
    networks = tuple(peers.load_zoo(real_dir))
    setting = peers.Setting(real_dir, False, True, True, networks, sample, (name,), tmp_path)
    drops = pd.concat([peers.try_readings(setting, network).drops for network in networks])
    means = contest.mean_of_readings(drops.assign(in_gaps=drops["drop"]))[name]
    read = tuple(chosen.loc[name])
    assert means[read] > means.max() - 0.02, (read, means.idxmax(), means[read], means.max())


SAMPLED = 2  # people
READINGS = BENCHMARKS / "peers_readings.csv"
