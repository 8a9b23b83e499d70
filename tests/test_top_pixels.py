"""Which pixels a study takes for a map's highest: those of top_fraction, selected rather than sorted."""

import pytest
import torch

from captum_leam import top_fraction
from captum_leam.maps import _sort_top, pixel_count, top_pixels


@pytest.mark.parametrize("fractions", [(0.01,), (0.01, 0.05, 0.2), (0.5, 1.0), (1.0,), (1e-9, 0.3)])
def test_of_every_fraction_the_first_are_its_top(fractions):
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
    """The two ways, on a CPU and on a GPU; also on which maps have ties at a cut."""
    maps = torch.rand(9, 400)
    maps[:3] = (maps[:3] * 20).round()
    cuts = [80, 20, 4]
    order, tied = _sort_top(maps, cuts, 80)
    assert tied.tolist() == [True] * 3 + [False] * 6
    selected = top_pixels(maps, cuts)
    for count in cuts:
        assert torch.equal(selected[3:, :count].sort(1).values, order[3:, :count].sort(1).values)


def test_ties_are_broken_by_the_seed_and_only_ties():
    maps = torch.zeros(2, 100)
    maps[:, :5] = torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0])
    one, again, other = (top_pixels(maps, [3, 50], seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert set(one[0, :3].tolist()) == {0, 1, 2}
    assert set(one[0, :5].tolist()) == {0, 1, 2, 3, 4}
    assert not torch.equal(one, other)
    assert len(set(one[0].tolist())) == 50
