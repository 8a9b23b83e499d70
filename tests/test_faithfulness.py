"""The first occlusion check, on models whose drops can be computed by hand."""

import pytest
import torch
from torch import Tensor, nn

from captum_leam.faithfulness import OcclusionEvaluator, as_fill, blur, mean_colour, occlude, uniform_random, zero
from captum_leam.maps import default_blur


def pixels(x: Tensor) -> Tensor:
    """An embedding that is the image: two pixels, two numbers."""
    return x.flatten(1)


def test_occlusion_changes_exactly_the_chosen_pixels():
    images, masks = torch.rand(3, 3, 8, 8), torch.rand(3, 8, 8) > 0.7
    for fill in ("zero", "mean", "blur", lambda x: x + 5):
        occluded = occlude(images, masks, fill)
        changed = (occluded != images).any(1)
        assert not (changed & ~masks).any()
        assert torch.equal(
            occluded[masks[:, None].expand_as(images)], as_fill(fill)(images)[masks[:, None].expand_as(images)]
        )


def test_fills():
    images = torch.rand(2, 3, 112, 112)
    assert zero(images).abs().sum() == 0
    assert torch.allclose(mean_colour(images)[1, 2], images[1, 2].mean())
    assert torch.equal(blur(images), default_blur(images))
    with pytest.raises(ValueError, match="fill is 'pink'"):
        as_fill("pink")
    with pytest.raises(ValueError, match="the fill made"):
        occlude(images, torch.zeros(2, 112, 112, dtype=torch.bool), lambda x: x[:, :1])
    with pytest.raises(ValueError, match="masks have shape"):
        occlude(images, torch.zeros(2, 56, 56, dtype=torch.bool))
    with pytest.raises(ValueError, match="needed is boolean"):
        occlude(images, torch.zeros(2, 112, 112))


def test_drop_by_hand():
    """x = (3, 4), r = (0, 1): cosine 0.8; without its second pixel (3, 0): cosine 0; without the first: 1."""
    images, reference = torch.tensor([[[[3.0, 4.0]]]]), torch.tensor([0.0, 1.0])
    maps = {"right": torch.tensor([[[0.0, 1.0]]]), "wrong": torch.tensor([[[1.0, 0.0]]])}
    table = OcclusionEvaluator(pixels, (0.5,), fills=("zero",)).evaluate(images, maps, reference).to_frame()
    drops = table.set_index("method")["drop"]
    assert drops["right"] == pytest.approx(0.8)
    assert drops["wrong"] == pytest.approx(-0.2)


def test_table_is_tidy_and_complete():
    images, labels = torch.rand(4, 3, 8, 8), ["a", "a", "b", "b"]
    models = {
        "one": nn.Sequential(nn.Flatten(), nn.Linear(192, 6)),
        "two": nn.Sequential(nn.Flatten(), nn.Linear(192, 4)),
    }
    evaluator = OcclusionEvaluator(models, (0.1, 0.5), fills=("zero", "blur"), batch_size=3)
    result = evaluator.evaluate(images, {"m": torch.rand(4, 8, 8), "n": torch.rand(4, 1, 8, 8)}, labels=labels)
    table = result.to_frame()
    assert len(table) == 4 * 3 * 2 * 2 * 2
    assert not table.duplicated(["image", "method", "model", "fraction", "fill"]).any()
    assert set(table["person"]) == {"a", "b"}
    assert "random pixels" in repr(result)
    whole = OcclusionEvaluator(models, (0.1, 0.5), fills=("zero", "blur"), batch_size=64)
    other = whole.evaluate(
        images, {"m": torch.rand(4, 8, 8) * 0 + result_maps(images), "n": torch.zeros(4, 8, 8)}, labels=labels
    )
    assert other.to_frame().query("method == 'random pixels'")["drop"].tolist() == pytest.approx(
        table.query("method == 'random pixels'")["drop"].tolist(), abs=1e-6
    )


def result_maps(images: Tensor) -> Tensor:
    return images.mean(1)


def test_a_constant_map_is_random_pixels_in_the_mean():
    images, labels = torch.rand(60, 3, 16, 16), [i // 2 for i in range(60)]
    model = nn.Sequential(nn.Flatten(), nn.Linear(768, 16))
    result = OcclusionEvaluator(model, (0.2,), fills=("zero",)).evaluate(images, torch.ones(60, 16, 16), labels=labels)
    drops = result.to_frame().pivot_table(index="image", columns="method", values="drop")
    difference = drops["map"] - drops["random pixels"]
    assert abs(difference.mean()) < 3 * difference.std() / len(drops) ** 0.5


def test_random_control_is_seeded():
    images = torch.rand(2, 3, 8, 8)
    state = torch.random.get_rng_state()
    assert torch.equal(uniform_random(images), uniform_random(images))
    assert not torch.equal(uniform_random(images), uniform_random(images, seed=1))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_bad_input():
    images, model = torch.rand(2, 3, 8, 8), nn.Sequential(nn.Flatten(), nn.Linear(192, 6))
    evaluator = OcclusionEvaluator(model)
    with pytest.raises(ValueError, match="bring them to image size"):
        evaluator.evaluate(images, torch.rand(2, 4, 4), torch.ones(6))
    with pytest.raises(ValueError, match="hold NaN"):
        evaluator.evaluate(images, torch.full((2, 8, 8), float("nan")), torch.ones(6))
    with pytest.raises(ValueError, match="give references, or labels"):
        evaluator.evaluate(images, torch.rand(2, 8, 8))
    with pytest.raises(ValueError, match="one image only of"):
        evaluator.evaluate(images, torch.rand(2, 8, 8), labels=["a", "b"])
    with pytest.raises(ValueError, match="references of 'model' has shape"):
        evaluator.evaluate(images, torch.rand(2, 8, 8), torch.ones(5))
    with pytest.raises(ValueError, match=r"fractions \[0\]"):
        OcclusionEvaluator(model, (0, 0.5))
    with pytest.raises(ValueError, match="one entry or more"):
        OcclusionEvaluator(model, ())
    two = OcclusionEvaluator({"a": model, "b": model})
    with pytest.raises(ValueError, match="one tensor for 2 models"):
        two.evaluate(images, torch.rand(2, 8, 8), torch.ones(6))
    with pytest.raises(ValueError, match="lack the model 'b'"):
        two.evaluate(images, torch.rand(2, 8, 8), {"a": torch.ones(6)})
