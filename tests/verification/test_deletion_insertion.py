"""Deletion and insertion on decisions that can be computed by hand."""

import numpy as np
import pytest
import torch
from torch import Tensor

from captum_leam.faithfulness import AdditiveSimilarity
from captum_leam.stats.decisions import Pairs, draw_pairs
from captum_leam.verification import VerificationEvaluator

PAIRS = Pairs(torch.tensor([0, 1]), torch.tensor([2, 2]), torch.tensor([True, False]))


def pixels(x: Tensor) -> Tensor:
    """An embedding that is the image, and a 1 that keeps a black image off zero."""
    return torch.cat([x.flatten(1), torch.ones(len(x), 1)], 1)


def by_hand() -> tuple[Tensor, Tensor]:
    """A genuine probe (1, 0), an impostor (0, 1), and what both are compared with, (1, 0).

    Clean cosines: genuine 1, impostor (0 + 0 + 1) / 2 = 0.5; black: 1 / √2 ≈ 0.707 for both. Threshold at equal errors: 0.75.
    """
    images = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]).view(3, 1, 1, 2)
    return images, torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])


def test_curves_of_deletion_and_insertion_equal_those_by_hand():
    images, right = by_hand()
    evaluator = VerificationEvaluator(pixels, (0, 0.5, 1), controls=())
    result = evaluator.evaluate(images, PAIRS, {"right": right, "wrong": -right}, {"right": right, "wrong": -right})
    assert result.thresholds["model"]["eer"] == pytest.approx(0.75)
    curves = result.curves().set_index(["kind", "method", "protocol"])
    # the genuine probe: its only bright pixel goes first, or last
    assert curves.loc[("similar", "right", "deletion"), "gar"].tolist() == [1, 0, 0]
    assert curves.loc[("similar", "wrong", "deletion"), "gar"].tolist() == [1, 1, 0]
    assert curves.loc[("similar", "right", "insertion"), "gar"].tolist() == [0, 1, 1]
    assert curves.loc[("similar", "wrong", "insertion"), "gar"].tolist() == [0, 0, 1]
    # the impostor is rejected throughout: 0.5 clean, 0.707 black, both under 0.75
    assert (curves["irr"] == 1).all()
    assert curves.loc[("similar", "right", "deletion"), "accuracy"].tolist() == [1, 0.5, 0.5]
    summary = result.summary().set_index(["kind", "method", "protocol"])
    assert summary.loc[("similar", "right", "deletion"), "auc"] == pytest.approx(0.25)
    assert summary.loc[("similar", "wrong", "deletion"), "auc"] == pytest.approx(0.75)
    assert summary.loc[("similar", "right", "insertion"), "auc"] == pytest.approx(0.75)
    assert summary.loc[("dissimilar", "right", "deletion"), "scored by"] == "irr"
    assert summary["low"].isna().all()  # no labels: no interval over people


def test_scores_of_occluded_probes_equal_those_by_hand():
    images, right = by_hand()
    evaluator = VerificationEvaluator(pixels, (0, 0.5, 1), controls=(), protocols=("deletion",))
    scores = evaluator.evaluate(images, PAIRS, right).to_frame().pivot_table("score", "pair", "fraction")
    assert scores.loc[0].tolist() == pytest.approx([1, 0.5**0.5, 0.5**0.5])
    assert scores.loc[1].tolist() == pytest.approx([0.5, 0.5**0.5, 0.5**0.5])


def test_both_images_of_a_pair_may_be_occluded():
    images, right = by_hand()
    evaluator = VerificationEvaluator(pixels, (0, 0.5, 1), controls=(), occluded="both", protocols=("deletion",))
    both = torch.stack([right, torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]]])], 1)
    scores = evaluator.evaluate(images, PAIRS, both).to_frame().pivot_table("score", "pair", "fraction")
    assert scores.loc[0].tolist() == pytest.approx([1, 1, 1])  # both are black: equal again
    assert scores.loc[1].tolist() == pytest.approx([0.5, 1, 1])
    with pytest.raises(ValueError, match=r"one map per pair at image size, \(2, 2, 1, 2\), probe first"):
        evaluator.evaluate(images, PAIRS, right)


def additive() -> tuple[AdditiveSimilarity, Tensor, Pairs, Tensor]:
    """Genuine probes are bright where weights are positive, impostors where they are negative; one template for all."""
    generator = torch.Generator().manual_seed(1)
    network = AdditiveSimilarity(torch.randn(8, 8, generator=generator) + 0.3)
    sign = network.weights > 0
    bright, dark = (torch.rand(20, 3, 8, 8, generator=generator) for _ in range(2))
    genuine = torch.where(sign, 0.5 + 0.5 * bright, 0.5 * dark)
    impostors = torch.where(sign, 0.5 * dark, 0.5 + 0.5 * bright)
    images = torch.cat([genuine, impostors, network.template()])
    pairs = Pairs(torch.arange(40), torch.full((40,), 40), torch.arange(40) < 20)
    return network, images, pairs, network.contributions(images[:40])


def test_an_oracle_is_best_and_its_negation_worst():
    network, images, pairs, truth = additive()
    noise = torch.rand(40, 8, 8)
    maps = {"oracle": truth, "noise": noise, "negated": -truth, "constant": torch.zeros(40, 8, 8)}
    evaluator = VerificationEvaluator(network, tuple(i / 20 for i in range(21)), controls=("random pixels", "centre"))
    people = [f"p{i}" for i in range(41)]
    result = evaluator.evaluate(images, pairs, maps, {name: -m for name, m in maps.items()}, labels=people)
    for (_, protocol), table in result.summary().groupby(["kind", "protocol"]):
        auc = table.set_index("method")["auc"]
        best, worst = (auc.min(), auc.max()) if protocol == "deletion" else (auc.max(), auc.min())
        assert (auc["oracle"], auc["negated"]) == (best, worst)
        assert best != worst
        random, constant = (table.set_index("method").loc[name] for name in ("random pixels", "constant"))
        assert max(random["low"], constant["low"]) <= min(random["high"], constant["high"])  # intervals overlap


def test_the_interval_is_of_the_areas_of_the_scored_pairs():
    """Of genuine pairs for similar maps, of impostor pairs for dissimilar ones, written as loops; none without labels."""
    from captum_leam.stats.decisions import area_under
    from captum_leam.stats.inference import interval_of_pairs

    people = [f"p{i // 4}" for i in range(32)]
    generator = torch.Generator().manual_seed(3)
    base = torch.randn(8, 3, 8, 8, generator=generator).repeat_interleave(4, 0)
    images = base + 3 * torch.randn(32, 3, 8, 8, generator=generator)  # so unlike that some decisions are wrong
    pairs, maps = draw_pairs(people), torch.rand(96, 8, 8, generator=generator)
    evaluator = VerificationEvaluator(lambda x: x.flatten(1) + 0.01, (0, 0.3, 0.6, 0.9), controls=())
    result = evaluator.evaluate(images, pairs, {"m": maps}, {"m": -maps}, labels=people)
    summary = result.summary(confidence=0.9).set_index(["kind", "protocol"])
    scores = result.to_frame()
    for (kind, protocol), row in summary.iterrows():
        areas, who = [], []
        for pair in range(len(pairs)):
            if bool(pairs.genuine[pair]) == (kind == "similar"):
                curve = scores[(scores["pair"] == pair) & (scores["kind"] == kind) & (scores["protocol"] == protocol)]
                accepted = curve["score"] >= result.thresholds["model"]["eer"]
                areas.append(area_under(curve["fraction"], accepted if kind == "similar" else ~accepted))
                who.append((people[pairs.first[pair]], people[pairs.second[pair]]))
        assert row["auc"] == pytest.approx(np.mean(areas))
        assert (row["low"], row["high"]) == pytest.approx(interval_of_pairs(areas, who, confidence=0.9))
    assert (summary["low"] < summary["high"]).all()
    assert evaluator.evaluate(images, pairs, {"m": maps}).summary()["low"].isna().all()


def test_end_points_are_shared_and_counted_once():
    images, pairs = torch.rand(6, 3, 8, 8), draw_pairs(["a", "a", "b", "b", "c", "c"])
    seen = []

    def counted(x: Tensor) -> Tensor:
        seen.append(len(x))
        return x.flatten(1)[:, :16] + 0.1

    maps = {"m": torch.rand(6, 8, 8), "n": torch.rand(6, 8, 8)}
    evaluator = VerificationEvaluator(counted, (0, 0.25, 0.5, 1), controls=("random pixels",))
    result = evaluator.evaluate(images, pairs, maps)
    # the probe, clean images once, the filled end once, then methods and control × protocols × fractions
    assert sum(seen) == 4 + 6 + 6 + 3 * 2 * 2 * 6
    ends = result.to_frame().pivot_table("score", ["method", "pair"], ["protocol", "fraction"])
    assert np.array_equal(ends["deletion", 0.0], ends["insertion", 1.0])
    assert np.array_equal(ends["deletion", 1.0], ends["insertion", 0.0])


def test_operating_points_and_calibration():
    images, right = by_hand()
    evaluator = VerificationEvaluator(pixels, (0, 1), controls=(), operating_points=("eer", 0.01))
    with pytest.raises(ValueError, match="Expected at least .* impostor pairs"):
        evaluator.evaluate(images, PAIRS, right)
    others = {"model": ([*np.linspace(-1, 0.98, 100), 1.0], [False] * 100 + [True])}
    result = evaluator.evaluate(images, PAIRS, right, calibration=others)
    assert result.thresholds["model"]["0.01"] == pytest.approx(0.97)
    assert set(result.curves()["operating_point"]) == {"eer", "0.01"}


def test_the_plot_has_three_rates_and_a_line_of_chance():
    images, right = by_hand()
    result = VerificationEvaluator(pixels, (0, 0.5, 1)).evaluate(images, PAIRS, right)
    figure = result.plot(protocol="insertion")
    assert [axis.get_title() for axis in figure.axes] == [
        "genuine pairs accepted",
        "impostor pairs rejected",
        "balanced accuracy",
    ]
    assert any(list(line.get_ydata()) == [50, 50] for line in figure.axes[2].lines)
    assert "1 genuine and 1 impostor pairs" in repr(result)
    with pytest.raises(ValueError, match="Expected .* to be one of"):
        result.plot(kind="dissimilar")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fractions": (0.5,)}, "two or more rising values"),
        ({"fractions": (0.5, 0.1)}, "two or more rising values"),
        ({"protocols": ("removal",)}, "Expected `protocols`"),
        ({"occluded": "none"}, "'probe' or 'both'"),
        ({"controls": ("moved",)}, "Expected `controls` to be some of"),
        ({"operating_points": ("fmr",)}, "to be .eer. or false match rates"),
        ({"operating_points": (1.5,)}, "to be .eer. or false match rates"),
        ({"fill": "pink"}, "pink"),
        ({"models": {}}, "models"),
    ],
)
def test_wrong_options_of_the_evaluator_raise(options, message):
    with pytest.raises(ValueError, match=message):
        VerificationEvaluator(**{"models": pixels, **options})


def test_maps_and_pairs_that_do_not_fit_raise():
    images, right = by_hand()
    evaluator = VerificationEvaluator(pixels, (0, 1))
    with pytest.raises(ValueError, match="one map per pair at image size"):
        evaluator.evaluate(images, PAIRS, right[:, :, :1])
    with pytest.raises(ValueError, match="NaN"):
        evaluator.evaluate(images, PAIRS, right * float("nan"))
    with pytest.raises(ValueError, match="indices below N in `pairs`"):
        evaluator.evaluate(images[:2], PAIRS, right)
    with pytest.raises(ValueError, match="one label for each of the 3 images, got 2"):
        evaluator.evaluate(images, PAIRS, right, labels=["a", "b"])


def test_a_model_that_changes_batch_order_raises():
    images, pairs = torch.rand(6, 3, 8, 8), draw_pairs(["a", "a", "b", "b", "c", "c"])
    with pytest.raises(ValueError, match="not to depend on the other images"):
        VerificationEvaluator(lambda x: x.flatten(1).flip(0) - 0.4).evaluate(images, pairs, torch.rand(6, 8, 8))


def test_names_of_methods_and_models_must_differ_from_controls():
    images, right = by_hand()
    evaluator = VerificationEvaluator(pixels, (0, 1))
    with pytest.raises(ValueError, match="names of methods that are not names of controls"):
        evaluator.evaluate(images, PAIRS, {"random pixels": right})
    with pytest.raises(ValueError, match=r"Expected `calibration` for some of the models"):
        evaluator.evaluate(images, PAIRS, right, calibration={"other": ([0, 1], [False, True])})


def test_the_filled_end_is_made_where_it_is_needed():
    """A black image has no embedding here; nothing asks for it."""
    images, pairs = torch.rand(4, 3, 8, 8), draw_pairs(["a", "a", "b", "b"])
    evaluator = VerificationEvaluator(lambda x: x.flatten(1), (0.1, 0.5), protocols=("deletion",))
    assert len(evaluator.evaluate(images, pairs, torch.rand(4, 8, 8)).curves()) == 4
    with pytest.raises(ValueError, match="zero"):
        VerificationEvaluator(lambda x: x.flatten(1)).evaluate(images, pairs, torch.rand(4, 8, 8))


def test_equal_maps_and_controls_are_occluded_once():
    images, pairs = torch.rand(4, 3, 8, 8), draw_pairs(["a", "a", "b", "b"])
    seen = []

    def counted(x: Tensor) -> Tensor:
        seen.append(len(x))
        return x.flatten(1)[:, :16] + 0.1

    maps = torch.rand(4, 8, 8)
    evaluator = VerificationEvaluator(counted, (0, 0.5), protocols=("deletion",))
    evaluator.evaluate(images, pairs, maps, maps)
    assert sum(seen) == 4 + 4 + 4 + 4  # the probe, the clean images, the map, the control


def test_rows_stand_in_the_order_of_the_methods():
    images, right = by_hand()
    maps = {"wrong": -right, "right": right}
    result = VerificationEvaluator(pixels, (0, 0.5, 1), controls=()).evaluate(images, PAIRS, maps, maps)
    for table in (result.curves(), result.summary()):
        assert table["method"].drop_duplicates().tolist() == ["wrong", "right"]
        assert table["kind"].drop_duplicates().tolist() == ["similar", "dissimilar"]
