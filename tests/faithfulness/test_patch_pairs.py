"""Patch pairs: what is pasted, what is given back, and who is found out."""

import pytest
import torch
from torch import Tensor

from captum_leam.faithfulness import AdditiveSimilarity, PatchPairs, evaluate_patch_pairs, paste_patches
from captum_leam.stats.decisions import Pairs, draw_pairs

PEOPLE = ["ann", "ann", "bob", "bob", "cyd", "cyd"]


def test_patches_come_from_where_they_should():
    """Every image has a colour of its own, so that a pixel tells whose it is."""
    images = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 3, 112, 112) / 10
    pairs = draw_pairs(PEOPLE)
    made = paste_patches(images, pairs, PEOPLE, seed=2)
    assert (made.patches.flatten(1).sum(1) == 27 * 16 * 16).all()
    cells = made.patches.view(len(pairs), 7, 16, 7, 16)
    assert torch.equal(cells.all(4).all(2), cells.any(4).any(2))  # whole cells
    for i, (a, b, genuine) in enumerate(zip(pairs.first, pairs.second, pairs.genuine, strict=True)):
        inside, outside = made.images[i, 0][made.patches[i]].unique(), made.images[i, 0][~made.patches[i]].unique()
        assert outside.tolist() == [images[a, 0, 0, 0].item()]
        assert len(inside) == 1
        donor = round(10 * inside.item())
        assert (PEOPLE[donor] not in (PEOPLE[a], PEOPLE[b])) if genuine else donor == b
    assert torch.equal(paste_patches(images, pairs, PEOPLE, seed=2).images, made.images)
    assert not torch.equal(paste_patches(images, pairs, PEOPLE, seed=3).patches, made.patches)


def pixels(x: Tensor) -> Tensor:
    return x.flatten(1) + 1e-3


def test_curves_of_patches_equal_those_by_hand():
    """Four pixels. The impostor's patch makes it a match, the genuine probe's patch makes it none; one pixel each undoes it."""
    original = torch.tensor([[0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]]).view(2, 1, 1, 4)
    patched = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]]).view(2, 1, 1, 4)
    other = torch.tensor([[1.0, 0.0, 0.0, 0.0]] * 2).view(2, 1, 1, 4)
    patches = torch.tensor([[[True, True, False, False]]] * 2)
    pairs = PatchPairs(patched, original, other, patches, torch.tensor([False, True]))
    right = torch.tensor([[[2.0, 1.0, 0.0, 0.0]], [[-2.0, -1.0, 0.0, 0.0]]])  # similar high, dissimilar low
    result = evaluate_patch_pairs(
        pixels, pairs, {"right": right, "wrong": -right}, threshold=0.9, ratios=(0, 0.25, 0.5, 1)
    )
    curves = result.curves().set_index("method")
    assert curves.loc["right", "fmr"].tolist() == [1, 0, 0, 0]
    assert curves.loc["wrong", "fmr"].tolist() == [1, 1, 1, 0]
    # one pixel back makes (1, 1, 0, 0), cosine 0.71: still no match; two make the original
    assert curves.loc["right", "fnmr"].tolist() == [1, 1, 0, 0]
    assert curves.loc["wrong", "fnmr"].tolist() == [1, 1, 1, 0]
    summary = result.summary()
    assert summary.loc["right", ["pointing", "iou", "roc_auc"]].tolist() == [1, 1, 1]
    assert summary.loc["wrong", ["pointing", "iou", "roc_auc"]].tolist() == [0, 0, 0]
    assert summary.loc["right", "fmr"] == pytest.approx(0.25)
    assert len(result.plot().axes) == 2
    assert "random pixels" in repr(result)


def test_threshold_is_that_of_clean_pairs():
    images = torch.rand(6, 1, 8, 8)
    pairs = paste_patches(images, draw_pairs(PEOPLE), PEOPLE, patches=4, size=2)
    result = evaluate_patch_pairs(pixels, pairs, torch.rand(6, 8, 8), ratios=(1.0,))
    from captum_leam.stats.decisions import error_rates, threshold_at_eer

    f, g = (torch.nn.functional.normalize(pixels(x).double()) for x in (pairs.originals, pairs.others))
    scores, genuine = (f * g).sum(1).numpy(), pairs.genuine.numpy()
    at = threshold_at_eer(scores, genuine)
    assert result.settings["threshold"] == pytest.approx(at)
    fmr, fnmr = error_rates(scores, genuine, [at])  # everything given back: the clean pairs
    assert result.curves()[["fmr", "fnmr"]].drop_duplicates().values.tolist() == [[fmr[0], fnmr[0]]]


def test_an_oracle_is_best_and_its_negation_worst():
    """On the additive network the patch's own contribution is known: what replacing a pixel by its original does to the cosine."""
    generator = torch.Generator().manual_seed(1)
    network = AdditiveSimilarity(torch.rand(8, 8, generator=generator))
    bright = 0.6 + 0.4 * torch.rand(12, 3, 8, 8, generator=generator)
    dark = 0.4 * torch.rand(12, 3, 8, 8, generator=generator)
    pairs = Pairs(torch.arange(24), torch.full((24,), 24), torch.arange(24) < 12)
    images = torch.cat([bright, dark, network.template()])
    people = ["ann"] * 12 + ["bob"] * 12 + ["ann"]
    made = paste_patches(images, pairs, people, patches=9, size=2)
    truth = network.contributions(made.images, made.originals)
    maps = {"oracle": truth, "noise": torch.rand(24, 8, 8) - 0.5, "negated": -truth}
    summary = evaluate_patch_pairs(network, made, maps).summary()
    for column, better in (("fmr", "min"), ("fnmr", "min"), ("pointing", "max"), ("iou", "max"), ("roc_auc", "max")):
        best, worst = (summary[column].min(), summary[column].max())[:: 1 if better == "min" else -1]
        assert summary.loc["oracle", column] == best
        assert summary.loc["negated", column] == worst
        assert best != worst


def test_wrong_patches_and_labels_raise():
    images, pairs = torch.rand(6, 3, 112, 112), draw_pairs(PEOPLE)
    with pytest.raises(ValueError, match="the 49 cells of a grid of 16 px"):
        paste_patches(images, pairs, PEOPLE, patches=50)
    with pytest.raises(ValueError, match="one label for each of the 6 images, got 2"):
        paste_patches(images, pairs, ["ann", "bob"])
    with pytest.raises(ValueError, match="third person"):
        paste_patches(images, pairs, ["ann"] * 6)
    made = paste_patches(images, pairs, PEOPLE)
    with pytest.raises(ValueError, match="one map per pair"):
        evaluate_patch_pairs(pixels, made, torch.rand(6, 8, 8))
    with pytest.raises(ValueError, match="to be shares"):
        evaluate_patch_pairs(pixels, made, torch.rand(6, 112, 112), ratios=(1.5,))
    with pytest.raises(ValueError, match="none named"):
        evaluate_patch_pairs(pixels, made, {"random pixels": torch.rand(6, 112, 112)})


def test_a_model_that_changes_batch_order_raises():
    images = torch.rand(6, 1, 8, 8)
    pairs = paste_patches(images, draw_pairs(PEOPLE), PEOPLE, patches=4, size=2)
    with pytest.raises(ValueError, match="not to depend on the other images"):
        evaluate_patch_pairs(lambda x: pixels(x).flip(0) - 0.4, pairs, torch.rand(6, 8, 8))


def test_labels_that_contradict_the_pairs_raise():
    with pytest.raises(ValueError, match="to agree with `pairs`"):
        paste_patches(torch.rand(6, 3, 112, 112), draw_pairs(PEOPLE), ["ann", "bob"] * 3)


def test_patches_cover_crops_that_are_not_square():
    """A grid of 7 × 6 cells: patches of all of them cover the crop."""
    pairs = draw_pairs(PEOPLE)
    made = paste_patches(torch.rand(6, 3, 112, 96), pairs, PEOPLE, patches=42)
    assert bool(made.patches.all())
    with pytest.raises(ValueError, match="the 42 cells of a grid of 16 px"):
        paste_patches(torch.rand(6, 3, 112, 96), pairs, PEOPLE, patches=43)
