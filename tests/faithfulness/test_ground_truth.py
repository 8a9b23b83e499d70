"""Scores against a known truth: by hand, against slow loops, and on the additive network."""

import numpy as np
import pytest
import torch
from torch import Tensor

from captum_leam import LEAM
from captum_leam.faithfulness import (
    FILLS,
    AdditiveSimilarity,
    OcclusionEvaluator,
    iou,
    mass_accuracy,
    part_agreement,
    part_importance,
    pointing_game,
    rank_accuracy,
    roc_auc,
)

METRICS = {"pointing": pointing_game, "mass": mass_accuracy, "rank": rank_accuracy, "iou": iou, "auc": roc_auc}


@pytest.fixture
def truth() -> Tensor:
    mask = torch.zeros(5, 12, 12, dtype=torch.bool)
    for i in range(5):
        mask[i, i : i + 4, 2 * i : 2 * i + 3] = True
    return mask


def test_metrics_of_ground_truth_equal_those_by_hand():
    maps = torch.tensor([[[4.0, 1.0], [3.0, -2.0]]])
    truth = torch.tensor([[[True, True], [False, False]]])
    assert {name: metric(maps, truth).item() for name, metric in METRICS.items()} == pytest.approx(
        {"pointing": 1, "mass": 5 / 8, "rank": 1 / 2, "iou": 1 / 3, "auc": 3 / 4}
    )


def test_an_oracle_is_best_and_its_negation_worst(truth):
    noise = torch.rand(5, 12, 12)
    oracle = truth + 0.1 * noise
    for metric in METRICS.values():
        assert (metric(oracle, truth) >= metric(noise, truth)).all()
        means = [metric(maps, truth).nan_to_num(0).mean() for maps in (oracle, noise, -oracle)]
        assert means[0] > means[1] >= means[2]  # none of five random pixels need hit
    assert (roc_auc(oracle, truth) == 1).all()
    assert (roc_auc(-oracle, truth) == 0).all()


def test_a_constant_map_is_chance(truth):
    """Ties are broken by a seeded permutation: on average the share of the truth."""
    flat, area = torch.zeros(5, 12, 12), truth[0].double().mean().item()
    assert (roc_auc(flat, truth) == 0.5).all()
    assert mass_accuracy(flat, truth).isnan().all()
    assert mass_accuracy(flat + 1, truth).mean().item() == pytest.approx(area)
    for metric in (pointing_game, rank_accuracy):
        drawn = [metric(flat, truth, seed=seed).mean().item() for seed in range(200)]
        assert np.mean(drawn) == pytest.approx(area, abs=0.04)


def test_roc_auc_counts_pairs():
    maps = torch.randint(0, 4, (3, 6, 6)).float()  # with ties
    truth = torch.rand(3, 6, 6) > 0.6
    for of_map, mask, found in zip(maps, truth, roc_auc(maps, truth), strict=True):
        inside, outside = of_map[mask], of_map[~mask]
        wins = (inside[:, None] > outside).double() + 0.5 * (inside[:, None] == outside)
        assert found.item() == pytest.approx(wins.mean().item())


def test_the_pointing_game_accepts_hits_within_the_tolerance(truth):
    maps = torch.zeros(5, 12, 12)
    for i in range(5):
        maps[i, i + 5, 2 * i] = 1  # two rows under the last of the truth
    assert [pointing_game(maps, truth, tolerance=t).sum().item() for t in (0, 1, 2)] == [0, 0, 5]


def test_truth_of_wrong_type_or_shape_or_without_pixels_raises(truth):
    maps = torch.rand(5, 12, 12)
    with pytest.raises(ValueError, match="to be boolean of shape"):
        mass_accuracy(maps, truth.float())
    with pytest.raises(ValueError, match="Expected `truth` to be boolean of shape"):
        mass_accuracy(maps[:, :6], truth)
    with pytest.raises(ValueError, match=r"one value only for images \[1\]"):
        mass_accuracy(maps[:2], torch.stack([truth[0], truth[0] & False]))


# -- parts -----------------------------------------------------------------------------------------------


def test_importance_of_parts_is_exact_on_the_additive_network():
    weights = torch.rand(6, 6)
    network, images = AdditiveSimilarity(weights), torch.rand(4, 3, 6, 6)
    labels = torch.arange(36).view(6, 6).div(12, rounding_mode="floor").expand(4, 6, 6).clone()
    labels[3][labels[3] == 2] = 0  # this face lacks the part
    found = part_importance(network, images, labels, [0, 1, 2], network.reference, fill="zero")
    truth = network.contributions(images)
    for part in range(3):
        expected = (truth * (labels == part)).sum((1, 2))
        assert torch.allclose(found[:3, part], expected[:3].double(), atol=1e-6)
    assert found[3, 2].isnan()
    assert found[3, :2].isfinite().all()
    assert torch.allclose(part_agreement(truth, labels, [0, 1, 2], found)[:3], torch.ones(3).double())
    assert part_agreement(truth, labels, [0, 1, 2], found)[3].isnan()  # two parts have no rank correlation
    upside_down = part_agreement(truth.max() - truth, labels, [0, 1, 2], found)[:3]
    assert (upside_down < 0).all()


# -- the additive network --------------------------------------------------------------------------------


def test_the_cosine_is_the_sum_of_the_contributions():
    network, images = AdditiveSimilarity(torch.randn(8, 8) + 0.3).double(), torch.rand(5, 3, 8, 8).double()
    embeddings = network(images)
    assert torch.allclose(embeddings.norm(dim=1), torch.ones(5).double())
    cosine = torch.nn.functional.cosine_similarity(embeddings, network.reference[None])
    assert torch.allclose(cosine, network.contributions(images).sum((1, 2)))
    assert torch.allclose(network(network.template().double()), network.reference[None].double(), atol=1e-4)


@pytest.mark.parametrize("fill", ["zero", "mean", "blur", "shuffle"])
def test_occluding_pixels_costs_their_contributions(fill):
    network, images = AdditiveSimilarity(torch.randn(8, 8) + 0.3).double(), torch.rand(2, 3, 8, 8).double()
    filled = FILLS[fill](images)
    worth = network.contributions(images, filled)
    mask = torch.rand(2, 8, 8) > 0.5
    after = network(torch.where(mask[:, None], filled, images))[:, 0]
    assert torch.allclose(network(images)[:, 0] - after, (worth * mask).sum((1, 2)))


def test_leam_is_exact_on_the_additive_network():
    network, images = AdditiveSimilarity(torch.randn(8, 8) + 0.3), torch.rand(3, 3, 8, 8)
    maps = LEAM(network, network.pixels).attribute(images, reference=network.reference)
    assert torch.allclose(maps[:, 0], network.contributions(images), atol=1e-6)


def test_occlusion_finds_the_oracle_best_its_negation_worst_and_a_constant_map_random():
    network, images = AdditiveSimilarity(torch.randn(12, 12) + 0.3), torch.rand(24, 3, 12, 12)
    truth = network.contributions(images)
    maps = {"oracle": truth, "noise": torch.rand(24, 12, 12), "negated": -truth, "constant": torch.zeros(24, 12, 12)}
    evaluator = OcclusionEvaluator(network, fills=("zero",), orders=("most", "least", "insertion"))
    result = evaluator.evaluate(images, maps, network.reference[None], labels=[i // 2 for i in range(24)])
    for (order, _), cell in result.summary().groupby(["order", "fraction"]):
        own = cell[cell["control"] == ""].set_index("method")["drop"]
        best, worst = (own.idxmax(), own.idxmin()) if order == "most" else (own.idxmin(), own.idxmax())
        assert (best, worst) == ("oracle", "negated")
        every = cell["drop"]
        assert own["oracle"] == (every.max() if order == "most" else every.min())
    # no p-values of twelve people: they take most of the time, and are not looked at
    chance = result.compare(confidence=0.999, min_people=13)
    chance = chance[(chance["method"] == "constant") & (chance["control"] == "random pixels")]
    assert ((chance["low"] <= 0) & (chance["high"] >= 0)).all()


def test_additive_networks_with_wrong_weights_or_images_raise():
    with pytest.raises(ValueError, match="positive in one pixel or more"):
        AdditiveSimilarity(-torch.rand(4, 4))
    with pytest.raises(ValueError, match="at least the sum of the negative ones"):
        AdditiveSimilarity(torch.tensor([[1.0, -3.0]]))
    network = AdditiveSimilarity(torch.rand(4, 4))
    with pytest.raises(ValueError, match="Expected images of shape"):
        network(torch.rand(1, 3, 8, 8))
    with pytest.raises(ValueError, match=r"Expected images in \[0, 1\]"):
        network(torch.rand(1, 3, 4, 4) + 1)
