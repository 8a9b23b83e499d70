import numpy as np
import pytest
import torch
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from captum_leam import bhattacharyya
from captum_leam.patterns import agreement, profile_signatures, signatures
from tests.helpers.pattern_people import made_maps


@pytest.fixture(scope="module")
def sets():
    """Three models: b is a with noise, c is something else."""
    a, people = made_maps((3, 1, 2, 4, 2, 2))
    generator = torch.Generator().manual_seed(0)
    b = a + 0.5 * torch.randn(a.shape, generator=generator)
    c = torch.randn(a.shape, generator=generator, dtype=a.dtype)
    return {"a": a, "c": c, "b": b}, people


def test_agreement_equals_double_loops(sets):
    maps, people = sets
    found = agreement({n: signatures(m, fraction=0.2) for n, m in maps.items()}, people, resamples=100)
    names = list(dict.fromkeys(people))
    for row in found.to_frame().to_dict("records"):
        table = bhattacharyya(maps[row["first"]], maps[row["second"]], fraction=0.2).numpy()
        at = {name: [i for i, p in enumerate(people) if p == name] for name in names}
        own = np.mean([np.mean([table[i, i] for i in at[name]]) for name in names])
        others = np.mean([table[np.ix_(at[p], at[q])].mean() for p in names for q in names if p != q])
        assert row["agreement"] == pytest.approx(own, abs=1e-6)
        assert row["chance"] == pytest.approx(others, abs=1e-6)
        assert row["above"] == pytest.approx(own - others, abs=1e-6)
        assert row["low"] <= row["agreement"] <= row["high"]


def test_the_matrix_is_symmetric_and_order_and_clusters_join_similar_models(sets):
    maps, people = sets
    found = agreement({n: signatures(m, fraction=0.2) for n, m in maps.items()}, people, resamples=20)
    matrix = found.matrix()
    assert matrix.index.tolist() == ["a", "c", "b"]
    assert np.array_equal(matrix, matrix.T)
    assert np.diag(matrix).tolist() == [1, 1, 1]
    assert np.isnan(np.diag(found.matrix("chance"))).all()
    assert abs(found.order.index("a") - found.order.index("b")) == 1
    assert found.clusters(2)["a"] == found.clusters(2)["b"] != found.clusters(2)["c"]
    distances = squareform(np.sqrt(1 - matrix.to_numpy()), checks=False)
    assert np.allclose(found.linkage[:, 2], hierarchy.linkage(distances, "average")[:, 2])


def test_order_of_images_does_not_matter(sets):
    maps, people = sets
    order = np.random.default_rng(0).permutation(len(people))
    plain, shuffled = (
        agreement(
            {n: signatures(m[rows], fraction=0.2) for n, m in maps.items()}, [people[i] for i in rows], resamples=5
        )
        for rows in (np.arange(len(people)), order)
    )
    columns = ["agreement", "chance", "above"]
    assert np.allclose(plain.table[columns], shuffled.table[columns], atol=1e-9)


def test_equal_models_agree_wholly_and_profiles_do_too(sets):
    maps, people = sets
    found = agreement({"x": maps["a"], "y": maps["a"]}, people, resamples=50)
    assert found.table[["agreement", "low", "high"]].to_numpy() == pytest.approx(np.ones((1, 3)), abs=1e-6)
    assert found.order == ["x", "y"]
    rng = np.random.default_rng(0)
    profiles = {name: profile_signatures(rng.dirichlet([1] * 4, len(people)), list("wxyz")) for name in "pq"}
    assert 0 < agreement(profiles, people, resamples=5).table["agreement"].item() < 1


def test_ends_stay_within_what_an_agreement_can_be():
    """Maps of which one person of five agrees: the interval is cut at 0, and rounding above 1 is a distance of 0."""
    one = torch.eye(5).repeat_interleave(2, 0).reshape(10, 1, 5)
    two = one.roll(1, 2)
    two[:2] = one[:2]
    made = {"one": signatures(one, "dense"), "two": signatures(two, "dense")}
    row = agreement(made, np.arange(10) // 2).table.iloc[0]
    assert row["low"] == 0 < row["agreement"] == pytest.approx(1 / 5)
    assert row["above_low"] < 0  # a difference may be
    equal = agreement(dict.fromkeys("abc", made["one"]), np.arange(10) // 2, resamples=5)
    assert equal.linkage[:, 2] == pytest.approx([0, 0], abs=1e-3)


def test_agreement_of_one_set_or_of_other_maps_raises(sets):
    maps, people = sets
    with pytest.raises(ValueError, match="two sets of maps or more, got 1"):
        agreement({"a": maps["a"]}, people)
    with pytest.raises(ValueError, match="got 14 of 'a' and 13 of 'b'"):
        agreement({"a": maps["a"], "b": maps["b"][:13]}, people)
    with pytest.raises(ValueError, match="'a' and 'b' of the same kind"):
        agreement({"a": signatures(maps["a"]), "b": signatures(maps["b"], "dense")}, people)
    with pytest.raises(ValueError, match="one person"):
        agreement({"a": maps["a"], "b": maps["b"]}, ["ann"] * 14)


def test_the_result_prints_and_draws(sets):
    maps, people = sets
    found = agreement(maps, people, resamples=5)
    assert "Agreement of 3 sets of maps (top), 6 people" in repr(found)
    heat = found.plot().axes[1]
    assert [t.get_text() for t in heat.get_xticklabels()] == found.order
    assert len(agreement({"a": maps["a"], "b": maps["b"]}, people, resamples=5).plot().axes) == 3
