"""Occlusion rounds: a second, slow implementation; contributions and evidence; presets, their cost and their state."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from captum_leam import LEAM, EmbeddingSimilarity, explain_faces, overall_map, suggest_layers
from captum_leam.explain import PRESETS
from captum_leam.faithfulness import OcclusionEvaluator
from captum_leam.layers import tokens_to_map
from captum_leam.maps import default_blur, gaussian_blur, normalize_sum
from captum_leam.refinement import (
    AREAS,
    SCALES,
    SHIFTS,
    START,
    _gradient,
    contributions,
    evidence,
    refine,
    shift_images,
    smooth,
    standardise,
    transfer_ranks,
)
from captum_leam.synthetic import SyntheticPopulation, centroids, load_trained
from tests.helpers.networks import Net, Tokens

SIZE = 16


def linear(weights: Tensor):
    """A similarity whose gradient is the same everywhere."""
    return lambda x: (x[:, 0].flatten(1) * weights).sum(1)


# -- the formula -----------------------------------------------------------------------------------------


def slow_round(heights: np.ndarray, values: np.ndarray, area: float, rounds: int) -> np.ndarray:
    """One round for a linear score of one image of ones on zeros, with derivatives by hand; values: of the score per pixel."""
    low, high = -50.0, 50.0
    for _ in range(200):
        q = (low + high) / 2
        mask = 1 / (1 + np.exp(-(heights - q)))
        low, high = (q, high) if mask.mean() > area else (low, q)
    # removing a pixel of weight v lowers the score by v, as fast as its mask rises
    given = torch.from_numpy(mask * (1 - mask) * values)[None]
    seen = np.zeros_like(heights)
    for scale in SCALES:
        blurred = gaussian_blur(given, scale * len(heights) / 112)[0].numpy()
        seen += (blurred - blurred.mean()) / blurred.std()
    heights = heights + (seen - seen.mean()) / seen.std() / np.sqrt(rounds)
    return (heights - heights.mean()) / heights.std()


@pytest.mark.parametrize("size", [16, 56])  # images are shifted by 0 and by 1 pixel
@pytest.mark.parametrize("rounds", [1, 4, 9])
def test_refine_equals_a_slow_loop(rounds, size):
    weights = torch.randn(size, size, dtype=torch.float64)
    start = torch.rand(1, size, size, dtype=torch.float64)
    images = torch.ones(1, 1, size, size, dtype=torch.float64)
    found = refine(linear(weights.flatten()), images, torch.zeros_like(images), start, rounds)
    expected = (start[0].numpy() - start.numpy().mean()) / start.numpy().std()
    total = np.zeros((size, size))
    for k in range(rounds):
        down, right = (np.sign(pixels) * (size == 56) for pixels in SHIFTS[k % len(SHIFTS)])
        rows, columns = (np.clip(np.arange(size) + pixels, 0, size - 1) for pixels in (down, right))
        values = weights.numpy()[rows][:, columns]  # the gradient at the shifted image, shifted back
        expected = slow_round(expected, values, AREAS[k % len(AREAS)], rounds)
        total += values.clip(min=0) / values.clip(min=0).mean()
    assert found.heights[0].numpy() == pytest.approx(expected, abs=1e-6)
    assert found.contributions[0].numpy() == pytest.approx(total)


def test_every_round_occludes_the_share_of_its_area():
    seen = []

    def score(x: Tensor) -> Tensor:
        seen.append(1 - x.detach().mean().item())
        return x.flatten(1).sum(1)

    refine(score, torch.ones(1, 1, 24, 24), torch.zeros(1, 1, 24, 24), torch.rand(1, 24, 24), 6)  # too small to shift
    assert seen == pytest.approx([0.4, 0.2, 0.1, 0.05, 0.4, 0.2], abs=1e-4)


def test_shifts_are_those_to_all_neighbours_and_none():
    assert sorted(SHIFTS) == [(down, right) for down in (-2, 0, 2) for right in (-2, 0, 2)]


def test_rounds_show_the_network_shifted_images():
    shown = []

    def score(x: Tensor) -> Tensor:
        shown.append(x.detach())
        return x.flatten(1).sum(1)

    images = torch.rand(1, 1, 112, 112)
    refine(score, images, images, torch.rand(1, 112, 112), len(SHIFTS))  # what replaces pixels equals them
    for x, (down, right) in zip(shown, SHIFTS, strict=True):
        torch.testing.assert_close(x[..., 4:-4, 4:-4], images.roll((down, right), (2, 3))[..., 4:-4, 4:-4])


@pytest.mark.parametrize("shift", SHIFTS)
def test_gradients_are_shifted_back(shift):
    images = torch.rand(1, 1, 112, 112)
    gradient = _gradient(lambda x: x.square().flatten(1).sum(1), images, shift)
    torch.testing.assert_close(gradient[..., 2:-2, 2:-2], 2 * images[..., 2:-2, 2:-2])


@pytest.mark.parametrize(("size", "pixels"), [(224, 4), (112, 2), (56, 1), (24, 0)])
def test_shifts_scale_with_the_width(size, pixels):
    position = torch.arange(float(size)).expand(1, 1, size, size)
    shown = []
    _gradient(lambda x: shown.append(x.detach()) or x.flatten(1).sum(1), position, (0, 2))
    assert torch.equal(shown[0][..., pixels:], position[..., : size - pixels])


def test_shifts_move_images_down_and_right():
    images = torch.rand(2, 3, 9, 12)
    assert torch.equal(shift_images(images, 1, 0)[..., 1:, :], images[..., :-1, :])
    assert torch.equal(shift_images(images, 0, 2)[..., 2:], images[..., :-2])
    assert torch.equal(shift_images(shift_images(images, 2, -1), -2, 1)[..., 2:-2, 2:-2], images[..., 2:-2, 2:-2])
    assert torch.equal(shift_images(images, 20, 0), images[..., :1, :].expand_as(images))


def test_contributions_of_a_linear_score_add_up_to_its_change():
    images, replaced = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)
    gradient = torch.randn(1, 3, 8, 8)
    given = contributions(images, replaced, gradient.expand(2, -1, -1, -1))
    torch.testing.assert_close(given.sum((1, 2)), ((images - replaced) * gradient).sum((1, 2, 3)))


def test_evidence_averages_three_scales_of_the_positive_part():
    given = torch.randn(2, 112, 112, dtype=torch.float64)
    positive = given.clamp(min=0)
    blurred = [gaussian_blur(positive, scale) for scale in SCALES]
    expected = sum(m / m.sum((1, 2), keepdim=True) for m in blurred) / 3
    torch.testing.assert_close(evidence(given), expected)
    assert evidence(-positive).abs().max() == 0


def test_one_ranking_lowers_the_score_at_every_fraction_more_than_the_start_did():
    """Of pixels whose effects saturate within patches, only a map that looks at occlusion finds the second patch."""
    effect = torch.zeros(2, 56, 56)
    effect[0, 10:20, 10:20], effect[1, 35:45, 35:45] = 1.0, 1.0

    def score(x: Tensor) -> Tensor:
        # either patch alone carries the score: the gradient at the image is that of the stronger one only
        sums = (x[:, 0, None] * effect).sum((2, 3)) / 100
        return (8 * sums + torch.tensor([0.5, 0.0])).logsumexp(1)

    images = torch.ones(1, 1, 56, 56)
    heights = refine(score, images, torch.zeros_like(images), smooth(effect[:1]), 8).heights
    for fraction in (0.05, 0.1, 0.2):
        count = round(fraction * 56 * 56)
        left = [
            images.flatten().scatter(0, m.flatten().topk(count).indices, 0.0).view_as(images)
            for m in (heights, smooth(effect[:1]))
        ]
        assert score(left[0]) < score(left[1]) - 0.5 or fraction < 0.07
    assert heights[0, 35:45, 35:45].mean() > heights[0, 25:30].mean() + 1


def test_nothing_to_learn_leaves_the_start():
    start = torch.rand(2, SIZE, SIZE)
    constant = lambda x: 0 * x.flatten(1).sum(1)  # noqa: E731
    heights = refine(constant, torch.rand(2, 3, SIZE, SIZE), torch.zeros(2, 3, SIZE, SIZE), start, 3).heights
    assert torch.equal(heights.flatten(1).argsort(1), start.flatten(1).argsort(1))


def test_values_follow_the_order_of_heights():
    maps, heights = torch.rand(3, 5, 7), torch.randn(3, 5, 7)
    out = transfer_ranks(maps, heights)
    assert torch.equal(out.flatten(1).sort(1).values, maps.flatten(1).sort(1).values)
    assert torch.equal(out.flatten(1).argsort(1), heights.flatten(1).argsort(1))
    assert torch.equal(transfer_ranks(maps, maps), maps)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_standardise_has_no_scale(scale):
    maps = torch.randn(2, 6, 6)
    torch.testing.assert_close(standardise(scale * maps), standardise(maps), rtol=1e-4, atol=1e-5)
    assert standardise(maps).square().mean((1, 2)).tolist() == pytest.approx([1, 1], rel=1e-5)


# -- presets ---------------------------------------------------------------------------------------------


def passes(model: nn.Module, images: Tensor, preset: str, **options) -> tuple[float, float]:
    """Forward and backward passes per image, counted by hooks at the model's output."""
    counts = [0, 0]

    def back(gradient: Tensor) -> None:
        counts[1] += len(gradient)

    def forward(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        counts[0] += len(output)
        if output.requires_grad:
            output.register_hook(back)

    handle = model.register_forward_hook(forward)
    found = suggest_layers(model, images)
    explain_faces(model, images, "fast", layers=found, **options)  # the first call looks at the model
    counts[:] = [0, 0]
    explain_faces(model, images, preset, layers=found, **options)
    handle.remove()
    return counts[0] / len(images), counts[1] / len(images)


@pytest.mark.parametrize("own", [False, True])
def test_presets_take_as_many_passes_as_they_state(faces, own):
    net = Net()
    options = {} if own else {"reference": torch.randn(3, 10)}
    assert passes(net, faces, "fast", **options) == (2 + own, 2)
    assert passes(net, faces, "default", **options) == (9 + own, 9)
    assert passes(net, faces, "best", **options) == (49 + own, 49)
    for preset, form in PRESETS.items():
        assert passes(net, faces, preset, **options) == form.passes(own_reference=own)


def test_the_presets_are_those_of_the_page():
    page = (Path(__file__).parents[1] / "docs" / "best_form.md").read_text()
    for name, form in PRESETS.items():
        (row,) = re.findall(rf'^\| `"{name}"` \|(.*)\|$', page[: page.index("## What a preset computes")], re.MULTILINE)
        rounds, areas, weight, power, passes = (cell.strip() for cell in row.split("|"))
        assert tuple(int(area) / 100 for area in re.findall(r"\d+", areas)) == form.areas
        assert (int(rounds), float(weight), float(power)) == (form.rounds, form.rank_weight, form.power)
        assert tuple(map(int, passes.split(" + "))) == form.passes()


def test_more_rounds_occlude_better():
    population = SyntheticPopulation(12, evidence="mouth")
    model, sample = load_trained(population), population.sample(1, seed=1)
    references = centroids(model, population)[sample.people]
    evaluator = OcclusionEvaluator(
        model, (0.05, 0.1, 0.2), fills=("blur", "noisy linear"), controls=("centre",), progress=False
    )
    maps = {preset: explain_faces(model, sample.images, preset, reference=references) for preset in PRESETS}
    drops = evaluator.evaluate(sample.images, maps, references).summary()
    of_maps = drops[drops["control"] == ""].groupby(["fill", "method"])["drop"].mean()
    for fill in ("blur", "noisy linear"):
        assert of_maps[fill, "fast"] < of_maps[fill, "default"]
        assert drops[(drops["control"] == "centre") & (drops["fill"] == fill)]["drop"].mean() < of_maps[fill, "fast"]
    assert of_maps["blur", "default"] < of_maps["blur", "best"]


@pytest.mark.parametrize("preset", ["default", "best"])
def test_batches_and_global_seeds_do_not_matter_and_the_model_is_unchanged(faces, preset):
    net, reference = Net(), torch.randn(3, 10)
    weights = {name: value.clone() for name, value in net.state_dict().items()}
    torch.manual_seed(1)
    before = torch.get_rng_state()
    whole = explain_faces(net, faces, preset, layers=[net.body], reference=reference)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    parts = explain_faces(net, faces, preset, layers=[net.body], reference=reference, batch_size=2)
    torch.testing.assert_close(whole, parts, rtol=1e-3, atol=1e-6)
    assert torch.equal(whole, explain_faces(net, faces, preset, layers=[net.body], reference=reference))
    assert all(torch.equal(value, weights[name]) for name, value in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    assert not net.training
    assert not whole.requires_grad
    assert (whole >= 0).all()
    assert whole.sum((1, 2)).tolist() == pytest.approx([1, 1, 1])


def test_no_grad_and_inference_mode_do_not_change_the_map(faces):
    net, reference = Net(), torch.randn(3, 10)
    expected = explain_faces(net, faces, layers=[net.body], reference=reference)
    with torch.no_grad():
        assert torch.equal(explain_faces(net, faces, layers=[net.body], reference=reference), expected)
    with torch.inference_mode():
        start = default_blur(faces.clone())
        found = explain_faces(net, faces.clone(), layers=[net.body], reference=reference.clone(), baselines=start)
    torch.testing.assert_close(found, expected)


def test_own_embeddings_contrasts_and_objectives_can_be_explained(faces):
    net = Net()
    own = explain_faces(net, faces, layers=[net.body])
    given = explain_faces(net, faces, layers=[net.body], reference=net(faces).detach())
    torch.testing.assert_close(own, given)
    contrast = explain_faces(net, faces, layers=[net.body], contrast=torch.randn(4, 10))
    assert not torch.allclose(contrast, own)
    reference = torch.randn(10)
    scores = EmbeddingSimilarity(net, reference, norm="differentiate")
    found = explain_faces(scores, faces, "best", layers=[net.body])
    assert found.sum((1, 2)).tolist() == pytest.approx([1, 1, 1])


def test_baselines_replace_what_rounds_occlude(faces):
    net, reference = Net(), torch.randn(3, 10)
    given = {"layers": [net.body], "reference": reference}
    blurred = explain_faces(net, faces, **given)
    assert torch.equal(explain_faces(net, faces, baselines=default_blur(faces), **given), blurred)
    for preset in PRESETS:
        other = explain_faces(net, faces, preset, baselines=0.5, **given)
        assert not torch.allclose(other, explain_faces(net, faces, preset, **given))


def test_a_preset_is_a_power_of_the_sum_of_start_ranks_and_evidence(faces):
    net, reference = Net(), torch.randn(3, 10)
    replacement = default_blur(faces)
    at = torch.lerp(replacement, faces, START).requires_grad_()
    score = EmbeddingSimilarity(net, reference, norm="detach")
    (gradient,) = torch.autograd.grad(score(at).sum(), at)
    of_layer = LEAM(net, net.body).attribute(at.detach(), reference=reference)
    layers = normalize_sum(smooth(overall_map([of_layer], (16, 16))))
    start = (layers + 2 * evidence(contributions(faces, replacement, gradient))) / 3
    for preset, form in PRESETS.items():
        refined = refine(score, faces, replacement, start, form.rounds, areas=form.areas)
        summed = start + form.rank_weight * transfer_ranks(start, refined.heights) + evidence(refined.contributions)
        found = explain_faces(net, faces, preset, layers=[net.body], field=(0, 0, 16, 16), reference=reference)
        torch.testing.assert_close(found, normalize_sum(summed**form.power).detach(), rtol=1e-3, atol=1e-6)


def test_an_objective_with_its_images_own_embeddings_is_refused(faces):
    with pytest.raises(ValueError, match="every point of the path would be its own reference"):
        explain_faces(EmbeddingSimilarity(Net()), faces, "fast", layers=[nn.Identity()], field=(0, 0, 16, 16))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_maps_of_every_precision_are_finite_and_sum_to_one(faces, dtype):
    net = Net().to(dtype)
    maps = explain_faces(net, faces.to(dtype), layers=[net.body], field=(0, 0, 16, 16), reference=torch.randn(3, 10))
    assert maps.dtype == torch.promote_types(dtype, torch.float32)
    assert torch.isfinite(maps).all()
    assert maps.float().sum((1, 2)).tolist() == pytest.approx([1, 1, 1], rel=0.05)


def test_grey_oblong_and_token_networks_give_maps_of_the_image_size():
    grey = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.Softplus(), nn.Flatten(), nn.Linear(4 * 24 * 20, 8)).eval()
    assert explain_faces(grey, torch.rand(2, 1, 48, 40)).shape == (2, 48, 40)
    tokens = Tokens()
    layers = suggest_layers(tokens, torch.rand(2, 3, 16, 16))
    assert any(layer.reshape is not None and "tokens_to_map" in str(layer.reshape) for layer in layers)
    assert tokens_to_map is not None
    maps = explain_faces(tokens, torch.rand(2, 3, 16, 16), layers=layers, reference=torch.randn(2, 12))
    assert maps.shape == (2, 16, 16)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_maps_of_the_cpu(faces):
    net, reference = Net(), torch.randn(3, 10)
    expected = explain_faces(net, faces, layers=[net.body], reference=reference)
    on_gpu = net.cuda()
    found = explain_faces(on_gpu, faces.cuda(), layers=[on_gpu.body], reference=reference.cuda())
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), expected, rtol=0.05, atol=1e-3)
