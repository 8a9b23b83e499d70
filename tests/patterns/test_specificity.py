import time
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from captum_leam.patterns import Signatures, person_specificity, signatures
from captum_leam.patterns import specificity as module
from captum_leam.patterns.person_sums import person_sums
from captum_leam.patterns.specificity import permutation_p_value, same_or_different
from captum_leam.stats.estimates import draw_people, mean_between, weighted_mean
from captum_leam.stats.inference import check_options
from captum_leam.stats.labels import person_codes
from tests.helpers.pattern_people import made_maps, slow_auc, slow_means, table_of


def found_of(maps, people, **options):
    return person_specificity(signatures(maps, fraction=0.2), people, **{"resamples": 50, "permutations": 0, **options})


def test_means_of_three_people_equal_those_by_hand():
    """Maps of two pixels: p = (1, 0), (½, ½) | (0, 1), (½, ½) | (1, 0)."""
    maps = torch.tensor([[1.0, 0.0], [1, 1], [0, 1], [1, 1], [1, 0]])[:, None]
    people = ["ann", "ann", "bob", "bob", "cy"]
    half = np.sqrt(0.5)
    found = person_specificity(signatures(maps, "dense"), people, weights="pairs", permutations=0)
    assert found["same"] == pytest.approx(half)
    # ann × bob: 0, √½, √½, 1; ann × cy: 1, √½; bob × cy: 0, √½
    assert found["different"] == pytest.approx((4 * half + 2) / 8)
    by_people = person_specificity(signatures(maps, "dense"), people, permutations=0)
    assert by_people["different"] == pytest.approx(((2 * half + 1) / 4 + (1 + half) / 2 + half / 2) / 3)
    # both own pairs are √½: above 2 of the 8, equal to 4, below 2
    assert found["auc"] == pytest.approx(0.5)


@pytest.mark.parametrize("weights", ["people", "pairs"])
@pytest.mark.parametrize("counts", [(3, 3, 3), (5, 1, 2, 1, 3)])
def test_means_gap_and_auc_equal_double_loops(weights, counts):
    maps, people = made_maps(counts, own=0.3)  # so little that the AUC is not 1
    table, found = table_of(maps), found_of(maps, people, weights=weights)
    slow = slow_means(table, people, weights=weights)
    assert found["same"] == pytest.approx(slow["same"], abs=1e-6)
    assert found["different"] == pytest.approx(slow["different"], abs=1e-6)
    assert found["gap"] == pytest.approx(slow["same"] - slow["different"], abs=1e-6)
    assert found["auc"] == pytest.approx(slow_auc(table, people, weights), abs=1e-6)
    assert np.isnan(found.p_value)  # no labels were shuffled


@pytest.mark.parametrize("weights", ["people", "pairs"])
def test_draws_of_people_equal_double_loops(weights):
    maps, people = made_maps((3, 1, 2, 4))
    drawn = draw_people(4, 30, seed=3)
    sums = person_sums(signatures(maps, fraction=0.2), people, weights)
    for i, row in enumerate(drawn):
        if (row > 0).sum() < 2 or not row[[0, 2, 3]].any():
            continue
        slow = slow_means(table_of(maps), people, row, weights)
        assert sums.same(drawn).draws[i] == pytest.approx(slow["same"], abs=1e-6)
        assert sums.different(drawn).draws[i] == pytest.approx(slow["different"], abs=1e-6)


@pytest.mark.parametrize("kind", ["top", "dense"])
def test_influence_is_the_derivative_by_a_persons_weight(kind):
    maps, people = made_maps((3, 1, 2, 4))
    one, two = (person_sums(signatures(m, kind), people, "pairs") for m in (maps, maps.flip(1)))
    step = 1e-4
    nudged = np.ones((8, 4)) + step * np.concatenate([np.eye(4), -np.eye(4)])
    for estimate in (one.same(nudged), one.different(nudged), mean_between(one.vectors, two.vectors, one.mass, nudged)):
        slopes = (estimate.draws[:4] - estimate.draws[4:]) / (2 * step)
        assert np.allclose(estimate.influence, 4 * slopes, atol=1e-5)
        assert estimate.influence.sum() == pytest.approx(0, abs=1e-9)


def test_the_interval_of_a_mean_equals_bootstrap_t_as_a_loop():
    """Against bootstrap-t written out for one sample; under ten people Student's t."""
    values = np.random.default_rng(1).exponential(size=12)
    drawn = draw_people(12, 3000, seed=0)
    low, high = weighted_mean(values, np.ones(12), drawn).interval(drawn, bounds=(-9, 9))
    ts = []
    for row in drawn.astype(int):
        sample = np.repeat(values, row)
        ts.append((sample.mean() - values.mean()) / (sample.std(ddof=0) / np.sqrt(11)))
    error = values.std(ddof=1) / np.sqrt(12)
    assert low == pytest.approx(values.mean() - np.quantile(ts, 0.975) * error, abs=1e-9)
    assert high == pytest.approx(values.mean() - np.quantile(ts, 0.025) * error, abs=1e-9)
    few = draw_people(4, 10, seed=0)
    ends = weighted_mean(values[:4], np.ones(4), few).interval(few, bounds=(-9, 9))
    far = 3.182446305 * values[:4].std(ddof=1) / 2
    assert ends == pytest.approx((values[:4].mean() - far, values[:4].mean() + far))


def test_two_people_have_no_interval_and_a_constant_no_width():
    maps, people = made_maps((2, 2))
    assert found_of(maps, people).table[["low", "high"]].isna().all(axis=None)
    drawn = draw_people(20, 50, seed=0)
    assert weighted_mean(np.full(20, 0.25), np.ones(20), drawn).interval(drawn) == (0.25, 0.25)


@settings(max_examples=8, deadline=None)
@given(
    st.integers(0, 10_000), st.lists(st.integers(1, 4), min_size=3, max_size=6), st.sampled_from(["people", "pairs"])
)
def test_order_names_and_blocks_do_not_matter(seed, counts, weights):
    counts = [2, *counts]
    maps, people = made_maps(counts, seed=seed)
    order = np.random.default_rng(seed).permutation(len(people))
    plain = found_of(maps, people, weights=weights)
    others = [
        found_of(maps[order], [people[i] for i in order], weights=weights),
        found_of(maps, [len(people) - people.index(p) for p in people], weights=weights),
        found_of(maps, people, weights=weights, block=3),
    ]
    for other in others:
        assert np.allclose(other.table["value"], plain.table["value"], atol=1e-7)
    assert np.allclose(others[2].table[["low", "high"]], plain.table[["low", "high"]], atol=1e-9)


def test_histogram_is_within_its_bound(monkeypatch):
    maps, people = made_maps((4,) * 12, own=0.5)
    exact = found_of(maps, people)
    monkeypatch.setattr(module, "EXACT_PAIRS", 0)
    monkeypatch.setattr(module, "BINS", 200)
    rough = found_of(maps, people)
    assert exact.auc_error == 0
    assert 0 < rough.auc_error < 0.02
    assert abs(rough["auc"] - exact["auc"]) <= rough.auc_error


def test_the_curve_goes_from_0_to_1():
    curve = found_of(*made_maps((4,) * 12, own=0.5)).curve
    assert (curve["low"].iloc[0], curve["high"].iloc[-1]) == (0, 1)
    assert (curve["low"].iloc[1:].to_numpy() == curve["high"].iloc[:-1].to_numpy()).all()


def test_interval_of_the_auc_is_the_jackknife_of_its_logit():
    maps, people = made_maps((3,) * 12, own=0.8)
    made = signatures(maps, "dense")
    found = same_or_different(made, person_codes(people, 36)[1])
    without = []
    for name in dict.fromkeys(people):
        kept = [i for i, p in enumerate(people) if p != name]
        without.append(slow_auc(made[kept].similarity(), [people[i] for i in kept]))
    leaps = np.log(np.array(without) / (1 - np.array(without)))
    far = 2.2009852 * np.sqrt(11 / 12 * ((leaps - leaps.mean()) ** 2).sum())
    at = np.log(found.value / (1 - found.value))
    expected = [1 / (1 + np.exp(-(at + side * far))) for side in (-1, 1)]
    assert found.interval() == pytest.approx(expected, abs=0.005)  # 128 bins


def test_maps_that_separate_people_fully_have_an_auc_of_1():
    maps = torch.eye(12)[:, None].repeat_interleave(3, 0)
    found = person_specificity(signatures(maps, "dense"), np.repeat(np.arange(12), 3), permutations=99)
    assert found.table["value"].tolist() == [1, 0, 1, 1]
    assert found.p_value == 0.01
    assert (found.table["high"] <= 1).all()


# -- the permutation test ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["top", "dense"])
@pytest.mark.parametrize("weights", ["people", "pairs"])
def test_the_p_value_counts_shufflings_as_double_loops_do(kind, weights):
    maps, people = made_maps((3, 1, 2, 4), own=0.4)
    made, codes = signatures(maps, kind, fraction=0.2), person_codes(people, 10)[1]
    table, generator, reached = made.similarity(), np.random.default_rng([0, 1]), 0
    true = slow_means(table, people, weights=weights)
    for _ in range(60):
        shuffled = [""] * 10
        for slot, image in enumerate(generator.permutation(10)):
            shuffled[image] = people[slot]
        slow = slow_means(table, shuffled, weights=weights)
        reached += slow["same"] - slow["different"] >= true["same"] - true["different"] - 1e-7
    assert 0 < reached < 60
    assert permutation_p_value(made, codes, weights=weights, permutations=60) == (1 + reached) / 61


def test_no_effect_gives_uniform_p_values():
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(12), [3, 2] * 6)
    p = [
        permutation_p_value(signatures(rng.random((len(codes), 4, 4)), "dense"), codes, permutations=39, seed=i)
        for i in range(200)
    ]
    assert np.mean(p) == pytest.approx(0.5, abs=0.07)
    assert np.mean(np.array(p) <= 0.1) == pytest.approx(0.1, abs=0.065)


def test_many_images_are_tested_on_some_people(monkeypatch):
    maps, people = made_maps((3,) * 30, own=1.0)
    monkeypatch.setattr(module, "SHUFFLED_IMAGES", 30)
    codes, chosen, real = person_codes(people, 90)[1], [], Signatures.__getitem__
    monkeypatch.setattr(Signatures, "__getitem__", lambda made, rows: chosen.append(rows) or real(made, rows))
    made = signatures(maps, "dense")
    assert permutation_p_value(made, codes, permutations=49) == 0.02
    assert len(chosen[0]) == 30
    assert len(set(codes[chosen[0]])) == 10
    permutation_p_value(made, np.repeat(np.arange(45), 2), permutations=1)  # two images of a person are enough
    assert len(chosen[1]) == 30


def test_cases_are_pairs_of_one_person_times_pairs_of_two():
    maps, people = made_maps((5, 1, 2, 1, 3))
    made, codes = signatures(maps, fraction=0.2), person_codes(people, 12)[1]
    assert same_or_different(made, codes).cases == (10 + 1 + 3) * (66 - 14)


# -- what is refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("people", "options", "said"),
    [
        (["a"] * 4, {}, "got one person, 'a'"),
        (list("abcd"), {}, "got one map of each"),
        (list("aab"), {}, "one label for each of the 4 maps, got 3"),
        (["a", "a", None, "b"], {}, r"rows \[2\]. Name the person"),
        (["a", "a", float("nan"), "b"], {}, r"rows \[2\]. Name the person"),
        (list("aabb"), {"weights": "images"}, "got 'images'"),
        (list("aabb"), {"confidence": 95}, "got 95,"),
        (list("aabb"), {"resamples": 0}, "got 0.95, 0,"),
        (list("aabb"), {"block": 0}, "and 0"),
    ],
)
def test_wrong_labels_of_people_raise(people, options, said):
    with pytest.raises(ValueError, match=said):
        person_specificity(torch.rand(4, 5, 5), people, **options)


def test_the_result_prints_and_draws():
    maps, people = made_maps((3,) * 12)
    found = found_of(maps, people, permutations=19)
    assert "12 people" in repr(found)
    assert "p = 0.05" in repr(found)
    assert found.to_frame()["p_value"].notna().tolist() == [False, False, True, False]
    assert found.curve[["same", "different"]].sum().tolist() == pytest.approx([1, 1])
    assert len(found.plot().axes) == 1


# -- scale ---------------------------------------------------------------------------------------------


def many_signatures(people: int, images: int, cells: int = 12544, kept: int = 125) -> Signatures:
    """Top-1 % maps around fifty places of each person, as compact rows."""
    rng = np.random.default_rng(0)
    centres = rng.integers(0, 2500, (people, 1, kept)) + rng.integers(0, 12, (people, images, kept))
    columns = np.sort(centres.reshape(people * images, kept), axis=1)
    starts = np.arange(0, columns.size + 1, kept)
    roots = sparse.csr_array((rng.random(columns.size), columns.ravel(), starts), shape=(len(columns), cells))
    roots.sum_duplicates()
    return Signatures.from_arrays(Signatures(roots, "top").to_arrays(np.float32), "top")


@pytest.mark.slow
def test_ten_thousand_maps_take_less_than_250_mib():
    """The table of all pairs would be 10⁸ numbers, 400 MB and more; here the peak is below 250 MB."""
    made, people = many_signatures(2000, 5), np.repeat(np.arange(2000), 5)
    tracemalloc.start()
    started = time.perf_counter()
    found = person_specificity(made, people, permutations=99, resamples=500)
    seconds, peak = time.perf_counter() - started, tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    assert found["gap"] > 0.05
    assert found.p_value == 0.01
    assert found.auc_error < 1e-3
    assert peak < 250, f"{peak:.0f} MB"
    assert seconds < 120, f"{seconds:.0f} s"


@pytest.mark.parametrize(
    "off", [{"confidence": 0}, {"confidence": 1}, {"resamples": 0}, {"permutations": -1}, {"block": 0}]
)
def test_options_beyond_their_ends_raise(off):
    check_options(0.5, 1, 0, 1)
    with pytest.raises(ValueError, match="Expected `confidence` in"):
        check_options(**{"confidence": 0.95, "resamples": 1, **off})


def test_the_bound_of_the_histogram_is_half_of_the_ties(monkeypatch):
    """Every pair in one bin: all is tied, the AUC may be anything between 0 and 1."""
    monkeypatch.setattr(module, "EXACT_PAIRS", 0)
    maps = torch.rand(6, 1, 4, generator=torch.Generator().manual_seed(0)) * 1e-3 + 1
    all_tied = same_or_different(signatures(maps, "dense"), np.array([0, 0, 0, 1, 1, 1]))
    assert all_tied.value == pytest.approx(0.5)
    assert all_tied.error == pytest.approx(0.5)
    apart = torch.tensor([[9.0, 1, 0, 0], [9, 1, 0, 0], [0, 0, 1, 9], [0, 0, 1, 9]])[:, None]
    found = same_or_different(signatures(apart, "dense"), np.array([0, 0, 1, 1]))
    assert found.error == 0
    assert found.same[:, -1].tolist() == [1, 1]  # each person's own pair, in the highest bin
    assert found.different[:, -1].tolist() == [0, 0]
