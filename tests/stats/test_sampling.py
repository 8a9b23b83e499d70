"""Samples of people: the same whatever the order, and error bars that hold what all pairs give."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from captum_leam.patterns import closest_strangers, person_specificity, signatures
from captum_leam.patterns.baselines import ClosestStrangers
from captum_leam.patterns.claim import mean_of_pairs
from captum_leam.patterns.person_sums import PersonStream, person_sums
from captum_leam.patterns.specificity import same_or_different
from captum_leam.stats import estimates
from captum_leam.stats.estimates import MeanBetween, draw_people, mean_between, people_draws, row_products
from captum_leam.stats.labels import person_codes
from captum_leam.stats.sampling import sample_images, sample_people, sampling_error

COUNTS = st.lists(st.integers(1, 6), min_size=4, max_size=40)


def drawn_maps(people: int, images: int, seed: int, own: float = 0.6):
    """Coarse maps, alike within people, and their people."""
    rng = np.random.default_rng(seed)
    centres = rng.dirichlet(np.ones(6), people).repeat(images, 0)
    maps = own * centres + (1 - own) * rng.dirichlet(np.ones(6), people * images)
    return signatures(maps[:, None], "dense"), [f"p{i}" for i in np.arange(people).repeat(images)]


# -- the sample ----------------------------------------------------------------------------------------


@settings(deadline=None)
@given(COUNTS, st.integers(0, 99), st.integers(1, 200), st.randoms(use_true_random=False))
def test_the_sample_is_the_same_in_any_order(counts, seed, max_pairs, random):
    names = [f"p{i}" for i in range(len(counts))]
    order = random.sample(range(len(counts)), len(counts))
    plain = sample_people(names, counts, max_pairs=max_pairs, seed=seed)
    other = sample_people([names[i] for i in order], [counts[i] for i in order], max_pairs=max_pairs, seed=seed)
    assert {names[i] for i in plain} == {names[order[i]] for i in other}


@settings(deadline=None)
@given(st.lists(st.integers(2, 6), min_size=4, max_size=40), st.integers(0, 99), st.integers(1, 10_000))
def test_the_sample_has_no_more_pairs_than_allowed(counts, seed, max_pairs):
    names, codes = [f"p{i}" for i in range(len(counts))], np.arange(len(counts)).repeat(counts)
    chosen = sample_images(names, codes, max_pairs=max_pairs, seed=seed)
    if len(codes) * (len(codes) - 1) // 2 <= max_pairs:
        assert chosen.tolist() == list(range(len(codes)))
    else:
        assert len(chosen) < len(codes)
        assert len(chosen) * (len(chosen) - 1) // 2 <= max_pairs or len(set(codes[chosen])) == 2
    assert (np.diff(chosen) > 0).all()


def test_people_with_very_many_images_leave_room_for_others():
    codes = np.repeat(np.arange(200), 500)
    chosen = sample_images([f"p{i}" for i in range(200)], codes, max_pairs=50_000)
    per_person = np.bincount(codes[chosen])
    assert set(per_person[per_person > 0]) == {3}
    assert (per_person > 0).sum() == 105  # 316 images have 50 000 pairs
    whole = sample_images([f"p{i}" for i in range(200)], codes, max_pairs=1_000_000, thin=False)
    assert set(np.bincount(codes[whole])) == {0, 500}


def test_another_seed_draws_other_people():
    names, counts = [f"p{i}" for i in range(100)], np.full(100, 2)
    drawn = [sample_people(names, counts, max_pairs=500, seed=seed).tolist() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


# -- estimates from a sample ---------------------------------------------------------------------------


def test_the_auc_of_samples_lies_within_its_error_bars():
    """Of 150 samples, about 95 % within 1.96 standard errors of the AUC of all pairs."""
    maps, people = drawn_maps(200, 3, 0)
    every = person_specificity(maps, people, permutations=0, resamples=1)
    assert every.auc_sampling_error == 0
    within, off = 0, []
    for seed in range(150):
        found = person_specificity(maps, people, permutations=0, resamples=1, max_pairs=16_000, seed=seed)
        assert found["gap"] == pytest.approx(every["gap"], abs=1e-12)  # sums are of all people
        within += abs(found["auc"] - every["auc"]) <= 1.96 * found.auc_sampling_error
        off.append((found["auc"] - every["auc"]) / found.auc_sampling_error)
    assert 0.88 <= within / 150 <= 1
    assert abs(np.mean(off)) < 0.35
    assert 0.7 < np.std(off) < 1.3


def test_intervals_of_samples_hold_the_auc_of_the_population():
    """Of 120 studies of other people, about 95 % of the sampled intervals hold the AUC of very many people."""
    truth = person_specificity(*drawn_maps(1000, 3, 999), permutations=0, resamples=1)["auc"]
    held = 0
    for seed in range(120):
        table = person_specificity(
            *drawn_maps(100, 3, seed), permutations=0, resamples=1, max_pairs=8_000, seed=seed
        ).table
        low, high = table[["low", "high"]].iloc[-1]
        held += low <= truth <= high
    assert held / 120 >= 0.9


def test_error_bars_of_the_histogram_are_the_spread_over_samples():
    maps, people = drawn_maps(300, 3, 1)
    codes = person_codes(people)[1]
    shares, errors = [], []
    for seed in range(80):
        chosen = sample_images(list(dict.fromkeys(people)), codes, max_pairs=11_000, seed=seed)
        found = same_or_different(maps[chosen], np.unique(codes[chosen], return_inverse=True)[1])
        curve = found.curve()
        shares.append([curve["same"].iloc[-8:].sum(), curve["different"].iloc[100:110].sum()])
        wide = found.same.reshape(len(found.same), -1), found.different
        parts = [wide[0][:, -8:].sum(1), wide[1][:, 100:110].sum(1)]
        kinds = zip(parts, wide, (1, 2), strict=True)
        infl = [len(p) * k * (p - p.sum() / w.sum() * w.sum(1)) / w.sum() for p, w, k in kinds]
        errors.append([np.sqrt((i**2).sum() / (len(i) * (len(i) - 1))) * np.sqrt(1 - len(i) / 300) for i in infl])
    assert np.std(shares, axis=0) == pytest.approx(np.mean(errors, axis=0), rel=0.3)
    one = found.curve_errors()
    assert one[0].shape == one[1].shape == (128,)
    share, total = found.same[:, -1], found.same.sum()
    influence = len(share) * (share - share.sum() / total * found.same.sum(1)) / total
    assert one[0][-1] == pytest.approx(np.sqrt((influence**2).sum() / (len(share) * (len(share) - 1))))


@pytest.mark.parametrize(("error", "sampled", "count", "expected"), [(2.0, 10, 10, 0.0), (2.0, 0, 10, 2.0)])
def test_the_error_of_a_sample_ends_where_all_are_in_it(error, sampled, count, expected):
    assert sampling_error(error, sampled, count) == expected


# -- strangers -----------------------------------------------------------------------------------------


@settings(deadline=None)
@given(COUNTS, st.integers(1, 3), st.lists(st.integers(1, 9), min_size=1, max_size=9), st.integers(0, 999))
def test_strangers_found_part_after_part_are_the_closest(counts, k, sizes, seed):
    codes = np.arange(len(counts)).repeat(counts)
    k = min(k, len(codes) - max(counts))
    features = np.random.default_rng(seed).normal(size=(len(codes), 3))
    looking = np.flatnonzero(codes % 2 == 0)
    found = ClosestStrangers(features[looking], codes[looking], k)
    ends = np.unique([*np.cumsum(sizes)[np.cumsum(sizes) < len(codes)], len(codes)])
    for part in np.split(np.arange(len(codes)), ends[:-1]):
        found.search(features[part], codes[part])
    assert found.nearest.tolist() == closest_strangers(features, codes.tolist(), k)[looking].tolist()


def test_the_mean_with_strangers_of_samples_lies_within_its_error_bars():
    maps, people = drawn_maps(200, 3, 2)
    names, codes = person_codes(people)
    nearest = closest_strangers(np.random.default_rng(0).normal(size=(600, 4)), people)[:, 0]
    overlap = row_products(maps.roots, maps.roots[nearest])
    off = []
    for seed in range(150):
        chosen = sample_images(names, codes, max_pairs=11_000, seed=seed)
        of = overlap[chosen], np.full(len(chosen), 1 / 3), codes[chosen], codes[nearest[chosen]]
        found = mean_of_pairs(*of, np.zeros((0, 200)))
        off.append((found.value - overlap.mean()) / estimates.standard_error(found.influence))
    assert np.mean(np.abs(off) <= 1.96) >= 0.9
    assert abs(np.mean(off)) < 0.35


# -- part after part -----------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.integers(1, 4), min_size=3, max_size=12), st.integers(1, 5), st.integers(0, 999), st.booleans())
def test_means_part_after_part_are_those_in_memory(counts, size, seed, is_drawn):
    counts = [2, *counts]
    people = [f"p{i}" for i, count in enumerate(counts) for _ in range(count)]
    maps = signatures(np.random.default_rng(seed).random((len(people), 4, 4)), "top", fraction=0.3)
    rows = np.split(np.arange(len(people)), np.cumsum(counts)[:-1])
    parts = [np.concatenate(rows[i : i + size]) for i in range(0, len(rows), size)]
    stream = PersonStream()
    for step in (stream.add, stream.relate):
        for part in parts:
            step(person_sums(maps[part], [people[i] for i in part]))
    drawn = people_draws(len(counts), 20, 0) if is_drawn else np.zeros((0, len(counts)))
    whole = person_sums(maps, people)
    for found, expected in ((stream.same(drawn), whole.same(drawn)), (stream.different(drawn), whole.different(drawn))):
        assert found.value == pytest.approx(expected.value, abs=1e-9)
        assert np.allclose(found.influence, expected.influence, atol=1e-7)
        assert np.allclose(found.draws, expected.draws, equal_nan=True)


def test_vectors_of_many_people_are_not_kept(monkeypatch):
    monkeypatch.setattr(estimates, "DRAWN_PEOPLE", 10)
    left, found = np.random.default_rng(0).random((12, 3)), MeanBetween()
    for part in (slice(0, 6), slice(6, 12)):
        found.add(left[part], left[part], np.ones(6))
    assert not found._vectors
    for part in (slice(0, 6), slice(6, 12)):
        found.relate(left[part], left[part])
    drawn = people_draws(12, 50, 0)
    assert drawn.shape == (0, 12)
    expected = mean_between(left, left, np.ones(12), drawn)
    assert np.allclose(found.estimate(drawn).influence, expected.influence)
    low, high = expected.interval(drawn, bounds=(-9, 9))
    error = np.sqrt((expected.influence**2).sum() / (12 * 11))
    assert (high - low) / 2 == pytest.approx(stats.t.ppf(0.975, 11) * error)


def test_of_many_people_draws_and_no_draws_give_nearly_one_interval():
    maps, people = drawn_maps(800, 2, 3)
    sums, nobody, drawn = person_sums(maps, people), np.zeros((0, 800)), draw_people(800, 2000, 0)
    plain = (sums.same(nobody) - sums.different(nobody)).interval(nobody)
    boots = (sums.same(drawn) - sums.different(drawn)).interval(drawn)
    assert np.subtract(plain, boots) == pytest.approx([0, 0], abs=0.06 * (plain[1] - plain[0]))
