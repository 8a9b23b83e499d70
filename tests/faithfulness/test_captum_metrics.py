"""Captum's metrics for layer maps, against slow loops over images and samples."""

import pytest
import torch
from captum.metrics import sensitivity_max as bare_sensitivity_max
from torch import Tensor, nn

from captum_leam import LEAM, EmbeddingSimilarity
from captum_leam.faithfulness import AdditiveSimilarity, infidelity, input_attributions, sensitivity_max
from captum_leam.faithfulness.captum_metrics import random_squares
from captum_leam.maps import default_blur


@pytest.fixture
def model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 8)).eval()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(3, 3, 8, 8)


def test_attributions_keep_the_sum_and_the_place():
    maps = torch.randn(2, 1, 4, 4)
    spread = input_attributions(maps, torch.rand(2, 3, 20, 16), (2, 4, 12, 8))
    assert spread.shape == (2, 3, 20, 16)
    assert torch.allclose(spread.sum((1, 2, 3)), maps.sum((1, 2, 3)), atol=1e-5)
    outside = torch.ones(20, 16, dtype=torch.bool)
    outside[2:14, 4:12] = False
    assert (spread[:, :, outside] == 0).all()
    with pytest.raises(ValueError, match="one layer map per image"):
        input_attributions(maps[:, 0], torch.rand(2, 3, 8, 8))


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("batch", [None, 6])
def test_infidelity_equals_a_loop(model, images, normalize, batch):
    objective = EmbeddingSimilarity(model, norm="fixed")
    weights = objective.fixed_weights(images, torch.randn(3, 8))
    maps = LEAM(objective, model[1]).attribute(images, additional_forward_args=(weights,))
    found = infidelity(
        objective,
        images,
        maps,
        additional_forward_args=(weights,),
        n_samples=4,
        normalize=normalize,
        side=3,
        seed=5,
        max_examples_per_batch=batch,
    )
    # Captum repeats every image n times in a row, in each of its batches of n // 2 samples
    generator, per_call = torch.Generator().manual_seed(5), 4 if batch is None else 2
    calls = [random_squares(3 * per_call, (8, 8), 3, generator).view(3, per_call, 8, 8) for _ in range(4 // per_call)]
    squares, attributions = torch.cat(calls, 1), input_attributions(maps, images)
    for i, (x, w) in enumerate(zip(images, weights, strict=True)):
        falls, sums = [], []
        for square in squares[i]:
            occluded = torch.where(square, default_blur(x[None])[0], x)
            falls.append((objective(x[None], w) - objective(occluded[None], w)).item())
            sums.append((attributions[i] * square).sum().item())
        a, b = torch.tensor(sums), torch.tensor(falls)
        beta = (a * b).mean() / a.square().mean() if normalize else 1.0
        assert found[i].item() == pytest.approx((beta * a - b).square().mean().item(), rel=1e-4, abs=1e-9)


def test_a_true_map_has_no_infidelity_and_a_false_one_some():
    network, images = AdditiveSimilarity(torch.rand(8, 8)), torch.rand(4, 3, 8, 8)
    maps = LEAM(network, network.pixels).attribute(images, reference=network.reference)

    def score(x: Tensor) -> Tensor:
        return network(x)[:, 0]

    assert (infidelity(score, images, maps, fill="zero") < 1e-10).all()
    assert (infidelity(score, images, -maps, fill="zero") > 1e-4).all()
    assert (
        infidelity(score, images, maps.roll(4, 3), fill="zero") > infidelity(score, images, maps, fill="zero")
    ).all()


def test_sensitivity_equals_a_loop(model, images):
    leam, references = LEAM(model, model[1]), torch.randn(3, 8)
    found = sensitivity_max(lambda x, r: leam.attribute(x, reference=r), images, references, n_samples=5, seed=3)
    noise = 2 * torch.rand(15, 3, 8, 8, generator=torch.Generator().manual_seed(3)) - 1
    for i in range(3):
        clean = leam.attribute(images[i : i + 1], reference=references[i])
        changes = []
        for delta in noise[5 * i : 5 * i + 5]:
            noisy = leam.attribute(images[i : i + 1] + 0.02 * delta, reference=references[i])
            changes.append(((noisy - clean).norm() / clean.norm()).item())
        assert found[i].item() == pytest.approx(max(changes), rel=1e-4)


def test_captums_own_call_with_a_bare_tensor_is_wrong(model, images):
    """Why the adapter is there; when this fails, Captum has mended it."""
    leam, reference = LEAM(model, model[1]), torch.randn(8)
    right = sensitivity_max(lambda x: leam.attribute(x, reference=reference), images, seed=0)
    assert (right > 0).all()

    def bare(x: Tensor | tuple[Tensor]) -> Tensor:
        return leam.attribute(x if isinstance(x, Tensor) else x[0], reference=reference)

    with pytest.raises(RuntimeError, match="size of tensor"):
        bare_sensitivity_max(bare, images)


def test_random_numbers_are_left_alone(model, images):
    leam, before = LEAM(model, model[1]), torch.get_rng_state()
    sensitivity_max(leam.attribute, images)
    infidelity(EmbeddingSimilarity(model, torch.randn(8, generator=torch.Generator())), images, leam.attribute(images))
    assert torch.equal(torch.get_rng_state(), before)


def test_wrong_sides_and_references_raise(images):
    with pytest.raises(ValueError, match="got 9"):
        infidelity(lambda x: x.sum((1, 2, 3)), images, torch.rand(3, 1, 4, 4), side=9)
    with pytest.raises(ValueError, match=r"each of the 3 images in each tensor, got \[2\]"):
        sensitivity_max(lambda x, r: x, images, torch.rand(2, 8))


def test_squares_lie_anywhere_in_crops_that_are_not_square():
    squares = random_squares(400, (4, 12), 3, torch.Generator().manual_seed(0))
    assert (squares.sum((1, 2)) == 9).all()
    assert squares.any(1).any(0).all()
    assert squares.any(0).all()
