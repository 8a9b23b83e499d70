from dataclasses import replace
from functools import partial

import pytest
import torch
from skimage.filters import sobel
from torch import Tensor

from captum_leam.controls import (
    CONTROLS,
    ControlContext,
    central_ellipse,
    centre,
    edges,
    moved_map,
    other_people,
    random_face_pixels,
)
from captum_leam.faithfulness import as_fill, fills
from captum_leam.faithfulness.fills import ROAD_WEIGHTS, blur, mean_colour, noisy_linear, shuffle, zero
from captum_leam.maps import default_blur, gaussian_blur


def scene(
    n: int = 4, size: int = 32, maps: Tensor | None = None, people: list | None = None, seed: int = 0
) -> ControlContext:
    images = torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(5))
    return ControlContext(images, central_ellipse((size, size)).expand(n, size, size), people, maps, seed)


# -- fills ---------------------------------------------------------------------------------------------


def test_fills_equal_their_definitions():
    images = torch.rand(2, 3, 112, 112)
    assert zero(images).abs().sum() == 0
    assert torch.allclose(mean_colour(images)[1, 2], images[1, 2].mean())
    assert torch.equal(blur(images), default_blur(images))
    shuffled = shuffle(images)
    assert torch.equal(shuffled.flatten(2).sort().values, images.flatten(2).sort().values)
    assert (shuffled != images).double().mean() > 0.9


def test_noisy_linear_solves_the_system(monkeypatch):
    """Every masked pixel is the weighted mean of its neighbours: checked on the solution itself, without the noise."""
    image = torch.rand(1, 2, 12, 9, dtype=torch.float64)
    mask = torch.rand(1, 12, 9) < 0.4
    monkeypatch.setattr(fills, "ROAD_NOISE", 0.0)
    out = noisy_linear(image, mask)[0].numpy()
    assert (out[:, ~mask[0].numpy()] == image[0].numpy()[:, ~mask[0].numpy()]).all()
    for r, c in mask[0].nonzero().tolist():
        near = [(w, out[:, r + i, c + j]) for (i, j), w in ROAD_WEIGHTS.items() if 0 <= r + i < 12 and 0 <= c + j < 9]
        mean = sum(w * v for w, v in near) / sum(w for w, _ in near)
        assert out[:, r, c] == pytest.approx(mean, abs=1e-9)


def test_noisy_linear_interpolates_a_ramp_and_adds_little_noise():
    ramp = torch.linspace(0, 1, 32).expand(1, 3, 32, 32).contiguous()
    mask = torch.zeros(1, 32, 32, dtype=torch.bool)
    mask[:, 8:20, 8:20] = True
    filled = noisy_linear(ramp, mask)
    assert (filled - ramp)[mask[:, None].expand_as(ramp)].abs().max() < 0.05
    assert torch.equal(filled[~mask[:, None].expand_as(ramp)], ramp[~mask[:, None].expand_as(ramp)])
    everything = noisy_linear(ramp, torch.ones_like(mask))
    assert everything.mean().item() == pytest.approx(0.5, abs=0.01)
    assert torch.equal(noisy_linear(ramp, torch.zeros_like(mask)), ramp)
    with pytest.raises(ValueError, match="Expected `masks` for noisy_linear"):
        noisy_linear(ramp, None)


def test_functions_and_names_of_fills_are_taken_and_others_raise():
    images, masks = torch.rand(2, 3, 8, 8), torch.zeros(2, 8, 8, dtype=torch.bool)
    assert not as_fill(lambda x: x).uses_masks
    assert as_fill(lambda x, m: x).uses_masks
    assert as_fill(blur).name == "blur"
    with pytest.raises(ValueError, match="got 'pink'"):
        as_fill("pink")
    with pytest.raises(ValueError, match="to return images of shape"):
        as_fill(lambda x: x[:, :1])(images, masks)


# -- controls ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(CONTROLS))
def test_controls_are_seeded_and_of_image_size(name):
    maps, people = torch.rand(4, 32, 32, generator=torch.Generator().manual_seed(1)), [0, 0, 1, 1]
    state = torch.random.get_rng_state()
    one = CONTROLS[name](scene(maps=maps, people=people))
    assert one.shape == (4, 32, 32)
    assert torch.isfinite(one).all()
    assert torch.equal(one, CONTROLS[name](scene(maps=maps, people=people)))
    if name in ("random pixels", "random face pixels", "random field", "moved"):
        assert not torch.equal(one, CONTROLS[name](scene(maps=maps, people=people, seed=1)))
        assert not torch.equal(one[0] - one[0].min(), one[1] - one[1].min())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_random_face_pixels_rank_the_face_first():
    s = scene()
    values = random_face_pixels(s)
    assert values[s.face].min() >= values[~s.face].max()


def test_moved_keeps_the_shape_and_leaves_its_place():
    maps = torch.zeros(40, 32, 32)
    maps[:, 14:17, 13:20] = 1.0
    maps[:, 0, 0] = 5.0  # outside the face: stays
    out = moved_map(scene(40, maps=maps))
    assert torch.equal(out.flatten(1).sort().values, maps.flatten(1).sort().values)
    assert (out[:, 0, 0] == 5).all()
    overlap = (out * maps)[:, 1:].sum((1, 2)) / 21
    assert overlap.mean() < 0.1
    assert not torch.equal(out[0], out[1])
    assert (maps[:, 14:17, 13:20] == 1).all()  # the given maps are left alone


def test_other_people_is_the_mean_map_of_the_others():
    maps = torch.rand(5, 8, 8)
    people = ["a", "a", "b", "c", "b"]
    shares = maps / maps.sum((1, 2), keepdim=True)
    out = other_people(scene(5, 8, maps, people))
    for i in range(5):
        expected = torch.stack([shares[j] for j in range(5) if people[j] != people[i]]).mean(0)
        assert torch.allclose(out[i].float(), expected, atol=1e-6)
    for nobody in (None, ["a"] * 5):
        with pytest.raises(ValueError, match="two people or more"):
            other_people(scene(5, 8, maps, nobody))


def test_edges_are_skimages_sobel():
    s = scene(1)
    grey = s.images[0].double().mean(0).numpy()
    expected = sobel(grey, mode="nearest")
    blurred = gaussian_blur(torch.from_numpy(expected)[None], 2 * 32 / 112)
    ours = edges(s).double()
    assert torch.allclose(ours / ours.max(), blurred / blurred.max(), atol=1e-4)


def test_controls_of_maps_need_maps():
    with pytest.raises(ValueError, match="Pass maps="):
        moved_map(scene())


@pytest.mark.parametrize("size", [(7, 9), (8, 6)])
def test_the_centre_is_in_the_middle(size):
    images = torch.rand(1, 3, *size)
    found = centre(ControlContext(images, torch.ones(1, *size, dtype=torch.bool), None, None, 0))[0]
    assert torch.equal(found, found.flip(0))
    assert torch.equal(found, found.flip(1))
    rows, columns = (n // 2 for n in size)
    assert found[rows, columns] == found.max()


def test_moved_goes_a_quarter_of_the_box_or_more():
    """The peak in the middle of the box stays there by any flip: how far it is shifted can be read off."""
    face = torch.zeros(1, 20, 20, dtype=torch.bool)
    face[0, 2:13, 3:16] = True  # 11 × 13
    own = torch.zeros(1, 20, 20, dtype=torch.float64)
    own[0, 7, 9] = 1
    for seed in range(40):
        row, column = (
            moved_map(ControlContext(torch.rand(1, 3, 20, 20), face, None, own, seed))[0].nonzero()[0].tolist()
        )
        down, right = (row - 7) % 11, (column - 9) % 13
        assert 2 <= down < 2 + 5
        assert 3 <= right < 3 + 6


def test_controls_that_draw_by_unnamed_functions_do_not_share_a_sequence():
    def maps(order):
        scene = ControlContext(torch.rand(2, 3, 4, 4), torch.ones(2, 4, 4, dtype=torch.bool), start=4)
        draws = {
            "one": lambda size, generator: torch.rand(size, generator=generator),
            "two": partial(lambda size, generator: torch.rand((2, *size), generator=generator)[1]),
        }
        before = replace(scene, start=0, images=torch.rand(4, 3, 4, 4))
        for name in order:
            before.draw(draws[name])
        return {name: scene.draw(draws[name]) for name in draws}

    one, other = maps(["one", "two"]), maps(["two", "one"])
    assert all(torch.equal(one[name], other[name]) for name in one)
