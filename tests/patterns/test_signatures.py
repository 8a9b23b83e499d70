import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_leam import bhattacharyya
from captum_leam.patterns import Signatures, profile_signatures, signatures
from captum_leam.regions.report import region_mass
from tests.helpers.pattern_people import made_maps


@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.5, 1.0])
def test_inner_products_are_the_coefficients(fraction):
    maps, _ = made_maps()
    assert np.allclose(
        signatures(maps, fraction=fraction).similarity(), bhattacharyya(maps, fraction=fraction), atol=1e-6
    )


def test_dense_signatures_equal_bhattacharyya_also_downsampled():
    maps, _ = made_maps(size=(8, 8))
    assert np.allclose(signatures(maps, "dense").similarity(), bhattacharyya(maps, fraction=1), atol=1e-6)
    small = maps.clamp(min=0).reshape(-1, 4, 2, 4, 2).mean((2, 4))
    grid = signatures(maps, "dense", grid=(4, 4))
    assert grid.cells == 16
    assert np.allclose(grid.similarity(), bhattacharyya(small, fraction=1), atol=1e-6)


def test_region_signatures_are_region_masses():
    maps, _ = made_maps()
    labels = torch.randint(0, 4, maps.shape)
    masses = region_mass(maps, labels, [0, 1, 2, 3]).numpy()
    expected = np.sqrt(masses) @ np.sqrt(masses).T
    assert np.allclose(
        signatures(maps, "regions", labels=labels, regions=[0, 1, 2, 3]).similarity(), expected, atol=1e-6
    )
    assert np.allclose(profile_signatures(masses).similarity(), expected, atol=1e-6)
    assert signatures(maps, "regions", labels=labels[0]).settings["regions"] == (0, 1, 2, 3)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["top", "dense"]), st.booleans())
def test_a_row_depends_on_its_map_alone(seed, kind, tied):
    """Neither the order nor the shards of a study change a row, not even with ties at the cut."""
    generator = torch.Generator().manual_seed(seed)
    maps = torch.rand(6, 7, 7, generator=generator)
    maps = (4 * maps).round() + 1 if tied else maps
    whole, order = signatures(maps, kind, fraction=0.1), torch.randperm(6, generator=generator)
    shuffled = signatures(maps[order], kind, fraction=0.1)
    shards = Signatures.concat([signatures(maps[:1], kind, fraction=0.1), signatures(maps[1:], kind, fraction=0.1)])
    assert np.array_equal(dense(whole)[order.numpy()], dense(shuffled))
    assert np.array_equal(dense(whole), dense(shards))


def dense(made):
    return made.roots.toarray() if hasattr(made.roots, "toarray") else made.roots


def test_ties_are_broken_by_chance_but_alike_for_equal_maps():
    flat = torch.ones(1, 20, 20)
    one, two = (dense(signatures(flat.repeat(2, 1, 1), fraction=0.1, seed=seed)) for seed in (0, 1))
    assert np.array_equal(one[0], one[1])
    for made in (one, two):  # no pixel is drawn twice
        assert sorted(made[0])[-41:] == pytest.approx([0] + [1 / np.sqrt(40)] * 40)
    half = dense(signatures(flat.double(), fraction=0.1, seed=0))
    assert np.array_equal(half[0] > 0, one[0] > 0)  # the draw hangs on the values, not on how they are stored
    assert not np.array_equal(one[0], two[0])
    assert len(set(np.flatnonzero(one[0]) // 20)) > 5  # spread over the rows, not the first forty pixels
    above = flat.clone()
    above[0, 3, 3] = 2
    assert dense(signatures(above, fraction=0.01))[0].argmax() == 63


def test_any_fraction_takes_a_pixel_and_one_takes_all():
    maps = torch.arange(1.0, 17).reshape(1, 4, 4)
    assert np.flatnonzero(dense(signatures(maps, fraction=1e-4))).tolist() == [15]
    assert (dense(signatures(maps, fraction=1.0)) > 0).all()


def test_the_scale_of_a_map_does_not_matter():
    maps, _ = made_maps()
    plain = signatures(maps).similarity()
    for scale in (1e-30, 1e30):
        assert np.allclose(signatures(scale * maps).similarity(), plain, atol=1e-5)


@pytest.mark.parametrize("kind", ["top", "dense"])
def test_signatures_return_from_arrays(kind):
    maps, _ = made_maps()
    made = signatures(maps, kind)
    arrays = made.to_arrays()
    assert arrays["values"].dtype == np.float16
    again = Signatures.from_arrays(arrays, made.kind, made.settings)
    assert np.allclose(again.similarity(), made.similarity(), atol=1e-3)
    assert np.allclose(again.norms(), 1, atol=1e-6)
    assert again.settings == made.settings


def test_indexing_signatures_selects_maps():
    maps, _ = made_maps()
    made = signatures(maps)
    for rows in (slice(2, 5), [4, 1], np.arange(len(maps)) % 2 == 0, 3):
        assert np.array_equal(dense(made[rows]), dense(made)[np.arange(len(maps))[rows].reshape(-1)])


def test_maps_without_positive_values_raise_or_become_zero():
    maps, _ = made_maps(counts=(2, 2))
    maps[1] = -maps[1].abs()
    with pytest.raises(ValueError, match=r"got none in maps \[1\]"):
        signatures(maps)
    made = signatures(maps, empty="zero")
    assert made.empty.tolist() == [False, True, False, False]
    assert made.similarity()[1].tolist() == [0, 0, 0, 0]


def test_no_maps_give_no_signatures():
    assert len(signatures(torch.zeros(0, 4, 4))) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"kind": "best"}, "`kind` to be one of 'top', 'dense', 'regions', got 'best'"),
        ({"fraction": 0.0}, "got 0.0"),
        ({"fraction": 1.5}, "got 1.5"),
        ({"kind": "regions"}, "Expected `labels` for kind"),
        ({"kind": "regions", "labels": np.zeros((9, 8), int)}, "got int64"),
        ({"kind": "regions", "labels": np.zeros((8, 9))}, "got float64"),
        ({"empty": "drop"}, "got 'drop'"),
    ],
)
def test_wrong_options_of_signatures_raise(arguments, said):
    with pytest.raises(ValueError, match=said):
        signatures(made_maps()[0], **arguments)


def test_nan_and_wrong_profiles_raise():
    maps, _ = made_maps()
    maps[2, 0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"got NaN or infinite values in maps \[2\]"):
        signatures(maps)
    for masses, said in (
        ([[0.5, float("nan")]], "finite masses"),
        ([[0.5, 0.5], [0.5, -0.1], [1, 0]], r"infinite or negative ones in rows \[1\]"),
        ([0.5], "shape"),
        ([[0, 0]], "a positive value"),
    ):
        with pytest.raises(ValueError, match=said):
            profile_signatures(masses)
    with pytest.raises(ValueError, match="1 names"):
        profile_signatures([[0.5, 0.5]], ["nose"])


def test_signatures_of_other_kinds_or_sizes_raise():
    maps, _ = made_maps()
    made = signatures(maps)
    for other in (signatures(maps, fraction=0.02), signatures(maps, "dense"), signatures(maps[:, :4])):
        with pytest.raises(ValueError, match="of the same kind and options"):
            made.similarity(other)
        with pytest.raises(ValueError, match="two shards of the same kind"):
            Signatures.concat([made, other])
    with pytest.raises(ValueError, match="one set of signatures or more"):
        Signatures.concat([])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"values": np.array([np.nan, 1, 1])}, "NaN"),
        ({"values": np.array([-1.0, 1, 1])}, "negative"),
        ({"columns": np.array([0, 1, 4])}, "columns from 0 to"),
        ({"columns": np.array([0, 1])}, "that fit the starts"),
        ({"starts": np.array([0, 2, 4])}, "that fit the starts"),
        ({"starts": np.array([0, 3, 2, 3])}, "that fit the starts"),
        ({"starts": None}, "none named"),
    ],
)
def test_damaged_arrays_raise(change, said):
    whole = {"values": np.ones(3), "columns": np.array([0, 1, 2]), "starts": np.array([0, 2, 3]), "cells": np.array(4)}
    arrays = {name: array for name, array in (whole | change).items() if array is not None}
    with pytest.raises(ValueError, match=said):
        Signatures.from_arrays(arrays, "top")
    assert len(Signatures.from_arrays(whole, "top")) == 2
