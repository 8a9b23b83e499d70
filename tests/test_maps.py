"""Pure functions on maps, against numbers worked out by hand and against other libraries."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.functional import gaussian_blur as torchvision_blur

from captum_leam.errors import CaptumLeamError
from captum_leam.maps import (
    as_maps,
    bhattacharyya,
    default_blur,
    gaussian_blur,
    normalize_max,
    normalize_sum,
    overall_map,
    pixel_count,
    place_on_field,
    rank_pixels,
    top_fraction,
    top_pixels,
    weigh,
)


def test_placed_maps_lie_in_the_field_and_are_zero_outside():
    maps = torch.rand(2, 1, 14, 12) + 0.1
    placed = place_on_field(maps, (112, 112), (0, 8, 112, 96))
    assert placed.shape == (2, 112, 112)
    assert (placed[..., :8] == 0).all()
    assert (placed[..., 104:] == 0).all()
    assert (placed[..., 8:104] > 0).all()
    expected = torch.nn.functional.interpolate(maps, (112, 96), mode="bilinear", align_corners=False)[:, 0]
    assert torch.equal(placed[..., 8:104], expected)


def test_a_cell_lands_where_it_came_from():
    """Half-pixel centres: cell (3, 5) of a 28-cell map is centred on pixel 4·3 + 1.5, 4·5 + 1.5."""
    maps = torch.zeros(1, 1, 28, 28)
    maps[0, 0, 3, 5] = 1
    placed = place_on_field(maps, (112, 112))[0]
    rows, columns = torch.meshgrid(torch.arange(112.0), torch.arange(112.0), indexing="ij")
    assert ((placed * rows).sum() / placed.sum()).item() == pytest.approx(13.5)
    assert ((placed * columns).sum() / placed.sum()).item() == pytest.approx(21.5)


@pytest.mark.parametrize("field", [(0, 8, 112, 112), (-1, 0, 10, 10), (0, 0, 0, 5)])
def test_fields_outside_the_image_raise(field):
    with pytest.raises(ValueError, match="inside an image of"):
        place_on_field(torch.ones(1, 1, 2, 2), (112, 112), field)


def test_overall_map_by_hand_is_the_weighted_mean_of_normalised_layers():
    fine = torch.tensor([[[[4.0, -1.0], [0.0, 0.0]]]])
    coarse = torch.tensor([[[[2.0]]]])
    overall = overall_map([fine, coarse], (2, 2))
    assert torch.allclose(overall, torch.tensor([[[0.5 + 0.125, 0.125], [0.125, 0.125]]]))
    weighted = overall_map([fine, coarse], (2, 2), weights=(3, 1))
    assert torch.allclose(weighted[0, 0, 0], torch.tensor(0.75 + 0.0625))


def test_overall_map_is_independent_of_the_scale_of_layers():
    a, b = torch.rand(2, 1, 7, 7), torch.rand(2, 1, 4, 4)
    assert torch.allclose(overall_map([a, b], (28, 28)), overall_map([1e6 * a, 1e-6 * b], (28, 28)), atol=1e-7)


@pytest.mark.parametrize(
    ("maps", "options", "message"),
    [
        ([], {}, "list of layer maps"),
        (torch.ones(1, 1, 2, 2), {}, "list of layer maps"),
        ([torch.ones(1, 1, 2, 2), torch.ones(2, 1, 2, 2)], {}, "of the same number of images"),
        ([torch.ones(1, 1, 2, 2)], {"weights": (1, 2)}, "`weights` to be 1 numbers of 0 or more"),
        ([torch.ones(1, 1, 2, 2)], {"weights": (-1,)}, "`weights` to be 1 numbers of 0 or more"),
        ([-torch.ones(1, 1, 2, 2)], {}, r"got no positive value in maps \[0\]"),
    ],
)
def test_overall_map_of_wrong_maps_or_weights_raises(maps, options, message):
    with pytest.raises(ValueError, match=message):
        overall_map(maps, (4, 4), **options)


def test_half_precision_maps_keep_their_sum():
    maps = torch.full((1, 200, 200), 60000.0, dtype=torch.float16)
    assert normalize_sum(maps).sum(dtype=torch.float64).item() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (4,), (1, 2, 3, 4, 5)])
def test_maps_of_other_shapes_raise(shape):
    with pytest.raises(ValueError, match="Expected maps to have shape"):
        as_maps(torch.ones(shape))


def test_maps_with_nan_raise_and_name_the_rows():
    maps = torch.ones(3, 2, 2)
    maps[1, 0, 0] = float("nan")
    for function in (top_fraction, rank_pixels, normalize_sum, normalize_max):
        with pytest.raises(ValueError, match=r"got NaN or infinite values in maps \[1\]"):
            function(maps)


@pytest.mark.parametrize("size", [torch.zeros(1, 3, 8, 8), 8, (8,)])
def test_a_size_that_is_none_raises(size):
    with pytest.raises(CaptumLeamError, match=r"Expected size to be \(height, width\) .* Pass images.shape\[-2:\]"):
        place_on_field(torch.ones(1, 1, 4, 4), size)


def test_the_largest_magnitude_becomes_one_and_zeros_stay():
    maps = torch.tensor([[[1.0, -4.0]], [[0.0, 0.0]], [[0.0, 8.0]]])
    assert normalize_max(maps).tolist() == [[[0.25, -1.0]], [[0.0, 0.0]], [[0.0, 1.0]]]


@pytest.mark.parametrize("fraction", [0, -0.1, 1.01, float("nan")])
def test_fractions_outside_0_to_1_raise(fraction):
    with pytest.raises(ValueError, match="share of the pixels"):
        top_fraction(torch.ones(1, 2, 2), fraction)


def test_top_fraction_within_a_face_counts_face_pixels_only():
    maps = torch.arange(16.0).view(1, 4, 4)
    face = torch.zeros(4, 4, dtype=torch.bool)
    face[:2] = True
    chosen = top_fraction(maps, 0.25, within=face)
    assert chosen.nonzero()[:, 1:].tolist() == [[1, 2], [1, 3]]
    with pytest.raises(ValueError, match=r"`within` to have a pixel in every image, got none for images \[0\]"):
        top_fraction(maps, 0.25, within=face & False)


def test_a_fraction_of_one_takes_all():
    maps = torch.rand(2, 3, 4)
    within = torch.rand(2, 3, 4) > 0.3
    assert top_fraction(maps, 1).all()
    assert torch.equal(top_fraction(maps, 1.0, within=within), within)


def test_ties_are_broken_by_a_seeded_permutation_per_image():
    constant = torch.ones(40, 20, 20)
    chosen = top_fraction(constant, 0.1)
    assert torch.equal(chosen, top_fraction(constant, 0.1))
    assert not torch.equal(chosen, top_fraction(constant, 0.1, seed=1))
    assert not torch.equal(chosen[0], chosen[1])
    assert torch.equal(chosen[:5], top_fraction(constant[:5], 0.1))  # whatever the batch
    often = chosen.double().mean(0)
    assert often.mean().item() == pytest.approx(0.1)
    assert often.max() < 0.4  # no place is preferred
    state = torch.random.get_rng_state()
    top_fraction(constant)
    assert torch.equal(state, torch.random.get_rng_state())


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 4), st.integers(2, 20), st.integers(2, 20), st.floats(0.001, 1), st.integers(0, 2**31))
def test_top_fraction_takes_the_highest_and_as_many(n, h, w, fraction, seed):
    maps = torch.randint(0, 5, (n, h, w), generator=torch.Generator().manual_seed(seed)).float()
    chosen = top_fraction(maps, fraction, seed=seed)
    assert (chosen.sum((1, 2)) == max(1, round(fraction * h * w))).all()
    for m, c in zip(maps, chosen, strict=True):
        assert c.all() or m[c].min() >= m[~c].max()
    ranks = rank_pixels(maps, seed=seed).flatten(1)
    assert (ranks.sort(1).values == torch.arange(h * w)).all()
    assert (maps.flatten(1).gather(1, ranks.argsort(1)).diff(dim=1) <= 0).all()


@pytest.mark.parametrize(("sigma", "kernel"), [(10.0, 41), (1.5, 7), (0.4, 3)])
def test_blur_equals_torchvisions(sigma, kernel):
    images = torch.rand(2, 3, 64, 50)
    assert torch.allclose(
        gaussian_blur(images, sigma, kernel), torchvision_blur(images, [kernel] * 2, [sigma] * 2), atol=1e-6
    )


def test_default_blur_is_sigma_10_kernel_41_on_a_crop_of_112():
    images = torch.rand(1, 3, 112, 112)
    assert torch.allclose(default_blur(images), torchvision_blur(images, [41, 41], [10.0, 10.0]), atol=1e-6)
    constant = torch.full((1, 3, 30, 20), 0.3)
    assert torch.allclose(default_blur(constant), constant, atol=1e-6)


def test_blur_of_sigma_0_is_the_image_and_negative_sigma_raises():
    with pytest.raises(ValueError, match="Expected sigma .* got -1"):
        gaussian_blur(torch.ones(1, 1, 4, 4), -1)
    images = torch.rand(1, 1, 4, 4)
    assert torch.equal(gaussian_blur(images, 0), images)
    assert gaussian_blur(images, 10).shape == images.shape  # a kernel wider than the image is cut


def test_blur_made_under_inference_mode_has_gradients_later():
    """Its matrix is kept between calls."""
    images = torch.rand(1, 1, 13, 17, dtype=torch.float64)
    with torch.inference_mode():
        gaussian_blur(images, 1.25)
    gaussian_blur(images.requires_grad_(), 1.25).sum().backward()
    assert images.grad is not None


def test_blur_is_made_where_the_images_are_whatever_the_default_device():
    images = torch.rand(1, 1, 19, 23)
    with torch.device("meta"):
        blurred = gaussian_blur(images, 1.75, 9)
    assert torch.allclose(blurred, torchvision_blur(images, [9, 9], [1.75, 1.75]), atol=1e-6)


def test_weightings_by_hand_equal_their_formulas():
    g, a = torch.tensor([[[[1.0, -3.0]]]]), torch.tensor([[[[2.0, 4.0]]]])
    assert weigh(g, a).flatten().tolist() == [2, -12]
    assert weigh(g, a, "positive").flatten().tolist() == [2, 0]
    assert weigh(g, a, "channel").flatten().tolist() == [-2, -4]
    with pytest.raises(
        CaptumLeamError, match="Expected weighting to be one of 'elementwise', 'positive', 'channel', got 'mean'"
    ):
        weigh(g, a, "mean")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_large_maps_of_half_precision_keep_a_sum_of_one(dtype):
    maps = torch.rand(2, 1, 56, 56)
    half = overall_map([maps.to(dtype)], (448, 448))
    assert torch.allclose(half.float(), overall_map([maps], (448, 448)), rtol=0.05, atol=1e-6)
    assert half.float().sum((1, 2)).tolist() == pytest.approx([1, 1], rel=0.02)


@pytest.mark.parametrize("sigma", [0.7, 3.0])
def test_large_images_are_blurred_by_convolution_to_the_same(monkeypatch, sigma):
    x = torch.rand(2, 3, 21, 17, dtype=torch.float64)
    small = gaussian_blur(x, sigma)
    monkeypatch.setattr("captum_leam.maps.MAX_PRODUCT_SIDE", 8)
    assert torch.allclose(gaussian_blur(x, sigma), small, atol=1e-12)


@pytest.mark.parametrize("fractions", [(0.01,), (0.01, 0.05, 0.2), (0.5, 1.0), (1.0,), (1e-9, 0.3)])
def test_the_first_top_pixels_of_every_fraction_are_those_of_top_fraction(fractions):
    maps = torch.rand(7, 30, 30, dtype=torch.float64)
    counts = [pixel_count(fraction, 900) for fraction in fractions]
    order = top_pixels(maps.flatten(1), counts)
    assert order.shape == (7, max(counts))
    for fraction, count in zip(fractions, counts, strict=True):
        chosen = torch.zeros(7, 900, dtype=torch.bool).scatter_(1, order[:, :count], True)
        assert (chosen.sum(1) == count).all()  # nothing twice
        if fraction > 1e-3:
            assert torch.equal(chosen.view(7, 30, 30), top_fraction(maps, fraction))


def test_selecting_and_sorting_agree():
    """Single precision is selected on a CPU, half precision sorted, as everything is on a GPU."""
    maps = torch.stack([torch.randperm(400) for _ in range(9)]).float()  # whole numbers that half precision holds
    maps[:3] = (maps[:3] / 20).round()
    cuts = [80, 20, 4]
    selected, ordered = top_pixels(maps, cuts), top_pixels(maps.half(), cuts)
    for count in cuts:
        assert torch.equal(selected[3:, :count].sort(1).values, ordered[3:, :count].sort(1).values)
        chosen, expected = (maps.gather(1, order[:, :count]).sort(1).values for order in (selected, ordered))
        assert torch.equal(chosen, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_top_pixels_breaks_ties_and_only_ties_by_the_seed(dtype):
    maps = torch.zeros(2, 100, dtype=dtype)
    maps[:, :5] = torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0], dtype=dtype)
    one, again, other = (top_pixels(maps, [3, 50], seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert set(one[0, :3].tolist()) == {0, 1, 2}
    assert set(one[0, :5].tolist()) == {0, 1, 2, 3, 4}
    assert not torch.equal(one, other)
    assert len(set(one[0].tolist())) == 50


def test_bhattacharyya_by_hand_is_the_sum_of_root_products():
    p, q = torch.tensor([[0.5, 0.5], [0.0, 0.0]]), torch.tensor([[0.5, 0.0], [0.5, 0.0]])
    assert bhattacharyya(p, q, fraction=1).item() == pytest.approx(0.5)
    assert bhattacharyya(10 * p, 0.1 * q, fraction=1).item() == pytest.approx(0.5)
    assert torch.allclose(bhattacharyya(torch.stack([p, q]), fraction=1), torch.tensor([[1.0, 0.5], [0.5, 1.0]]))


def test_bhattacharyya_compares_the_top_fraction_only():
    a, b = torch.rand(10, 10), torch.rand(10, 10)
    a[0, :2] = b[0, :2] = 100.0
    assert bhattacharyya(a, b, fraction=0.02).item() == pytest.approx(1, abs=1e-3)


def test_bhattacharyya_of_two_sets_is_a_table_of_all_pairs():
    a, b = torch.rand(3, 8, 8), torch.rand(4, 1, 8, 8)
    table = bhattacharyya(a, b, fraction=0.5)
    assert table.shape == (3, 4)
    assert (table >= 0).all()
    assert (table <= 1).all()
    assert table[1, 2].item() == pytest.approx(bhattacharyya(a[1], b[2, 0], fraction=0.5).item())


def test_bhattacharyya_of_other_grids_or_of_empty_maps_raises():
    with pytest.raises(ValueError, match="Expected maps of one size"):
        bhattacharyya(torch.rand(8, 8), torch.rand(7, 8))
    with pytest.raises(ValueError, match="no positive value"):
        bhattacharyya(-torch.rand(2, 8, 8))
