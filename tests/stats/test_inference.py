import numpy as np
import pytest
from scipy.stats import t, wilcoxon

from captum_leam.stats.bootstrap import interval_of_sums
from captum_leam.stats.inference import (
    bootstrap_interval,
    by_person,
    effect_size,
    holm,
    interval_of_pairs,
    paired_p_value,
)


def test_interval_respects_that_images_share_people():
    """Ten images of each of six people that hardly differ within a person: the interval is that of six, not of sixty."""
    rng = np.random.default_rng(0)
    per_person = rng.normal(size=6)
    people = np.repeat(np.arange(6), 10)
    values = per_person[people] + 0.01 * rng.normal(size=60)
    low, high = bootstrap_interval(values, people.tolist())
    naive_low, naive_high = bootstrap_interval(values, list(range(60)))
    assert high - low > 2 * (naive_high - naive_low)
    assert low < values.mean() < high


def test_interval_of_columns_equals_that_of_each():
    rng = np.random.default_rng(1)
    values, people = rng.normal(size=(30, 4)), (np.arange(30) % 8).tolist()
    low, high = bootstrap_interval(values, people, seed=3)
    for k in range(4):
        assert (low[k], high[k]) == pytest.approx(bootstrap_interval(values[:, k], people, seed=3))
    assert np.isnan(bootstrap_interval([1.0, 2.0], ["a", "a"])).all()


def test_intervals_of_24_people_cover_the_mean_as_often_as_stated():
    """95 % intervals should hold a true mean of 0 92–97 times in 100; 300 simulations, six images a person."""
    rng = np.random.default_rng(2)
    people = np.repeat(np.arange(24), 6)
    held = 0
    for i in range(300):
        values = rng.normal(size=24)[people] + rng.normal(size=144)
        low, high = bootstrap_interval(values, people.tolist(), seed=i, resamples=500)
        held += bool(low <= 0 <= high)
    assert 0.92 <= held / 300 <= 0.97


def test_interval_is_the_studentised_bootstrap_as_a_loop():
    """Every draw's mean in units of its own standard error; people with one to five images, one quantity that few have."""
    rng = np.random.default_rng(4)
    sums, counts = rng.lognormal(size=(14, 2)), rng.integers(1, 6, (14, 2)).astype(float)
    sums[:4, 1] = counts[:4, 1] = 0
    drawn = np.random.default_rng(7).multinomial(14, np.full(14, 1 / 14), 200)
    low, high = interval_of_sums(sums, counts, resamples=200, seed=7)
    for k in range(2):
        value = sums[:, k].sum() / counts[:, k].sum()
        off = [14 * (s - value * c) / counts[:, k].sum() for s, c in zip(sums[:, k], counts[:, k], strict=True)]
        have = int((counts[:, k] > 0).sum())
        scale = np.sqrt(have / (have - 1) / 14)
        off_by = []
        for weights in drawn:
            of_draw = np.repeat(off, weights)
            mean = (weights @ sums[:, k]) / (weights @ counts[:, k])
            off_by.append((mean - value) / (scale * of_draw.std()))
        ends = np.quantile(off_by, [0.975, 0.025])
        expected = value - ends * scale * np.sqrt(np.mean(np.square(off)))
        assert (low[k], high[k]) == pytest.approx(tuple(expected))


def test_few_people_have_students_interval():
    values = [0.1, 0.4, 0.2, 0.7]
    low, high = bootstrap_interval(values, list("abcd"))
    expected = t.interval(0.95, 3, np.mean(values), np.std(values, ddof=1) / 2)
    assert (low, high) == pytest.approx(expected)
    assert bootstrap_interval(values, list("abcd"), bounds=(0, 0.5)) == (0, 0.5)
    assert np.isnan(interval_of_sums(np.zeros((0, 2)), np.zeros(0))).all()
    assert np.isnan(interval_of_sums([1.0, 0.0, 0.0], [1, 0, 0])).all()


def test_paired_p_value_is_wilcoxon_of_person_means():
    rng = np.random.default_rng(3)
    people = (np.arange(36) % 12).tolist()
    differences = rng.normal(0.3, 1, 36)
    means = [differences[np.array(people) == p].mean() for p in range(12)]
    assert paired_p_value(differences, people) == pytest.approx(wilcoxon(means).pvalue)
    assert paired_p_value(np.zeros(36), people) == 1.0
    assert np.isnan(paired_p_value(differences[:9], list(range(9))))


def test_holm_equals_the_values_by_hand():
    assert holm([0.01, 0.02, 0.03, 0.9]) == pytest.approx([0.04, 0.06, 0.06, 0.9])
    assert holm([0.5, 0.5]) == pytest.approx([1.0, 1.0])
    assert np.isnan(holm([np.nan])).all()


def test_the_effect_size_equals_the_value_by_hand():
    assert effect_size([1, 2, 3], list("abc")) == 1
    assert effect_size([-1, -2, 3], list("abc")) == 0
    assert np.isnan(effect_size([0.0], ["a"]))
    assert by_person([1, 2, 3], list("aba"))[0].tolist() == [4, 2]


def test_interval_of_pairs_is_its_formula_as_a_loop():
    """Pairs of two people and of one, one couple twice, written person by person and couple by couple."""
    rng = np.random.default_rng(5)
    people = [tuple(pair) for pair in ["ab", "cb", "ad", "ba", "dd", "ce", "ed", "aa", "cd"]]
    for confidence in (0.9, 0.95):
        values = rng.uniform(0.1, 0.7, len(people))
        off, total = values - values.mean(), 0.0
        for person in "abcde":
            own = [i for i, pair in enumerate(people) if person in pair]
            total += (off[own].sum() / (1 - len(own) / len(people))) ** 2
        couples = {frozenset(pair) for pair in people}
        sums = {c: off[[i for i, pair in enumerate(people) if frozenset(pair) == c]].sum() for c in couples}
        total -= sum(s**2 for c, s in sums.items() if len(c) == 2)
        total = max(total, sum(s**2 for s in sums.values()) * len(couples) / (len(couples) - 1))
        mean = values.mean()
        far = t.ppf((1 + confidence) / 2, 4) * np.sqrt(total) / len(people) / (mean * (1 - mean))
        odds = mean / (1 - mean) * np.exp([-far, far])
        assert interval_of_pairs(values, people, confidence=confidence) == pytest.approx(odds / (1 + odds), abs=1e-12)


def test_interval_of_pairs_whose_people_matter_is_wider():
    """The same values: dealt out so that a person's pairs are alike, and by chance."""
    rng = np.random.default_rng(6)
    first, second = rng.integers(0, 20, (2, 200))
    of_person = rng.uniform(0, 0.5, 20)
    values = of_person[first] + of_person[second]
    low, high = interval_of_pairs(values, np.stack([first, second], 1))
    least, most = interval_of_pairs(rng.permutation(values), np.stack([first, second], 1))
    assert high - low > 1.5 * (most - least)


def test_the_interval_of_pairs_holds_at_its_borders():
    one_for_all = [(f"p{i}", "template") for i in range(12)]
    values = np.linspace(0.2, 0.8, 12)
    low, high = interval_of_pairs(values, one_for_all)  # held as they are: independent pairs
    assert 0.3 < low < 0.5 < high < 0.7
    assert interval_of_pairs([1.0, 1.0, 1.0], [("a", "b"), ("b", "c"), ("c", "d")]) == (1, 1)
    assert interval_of_pairs([1 + 1e-15, 1.0], [("a", "b"), ("b", "c")]) == (1, 1)  # summed to 1
    assert np.isnan(interval_of_pairs([0.1, 0.9], [("a", "b"), ("b", "a")])).all()
    assert np.isnan(interval_of_pairs([0.5], [("a", "b")])).all()
    assert np.isnan(interval_of_pairs([], np.zeros((0, 2)))).all()
    with pytest.raises(ValueError, match=r"shares in \[0, 1\], got values from 0.5 to 1.2"):
        interval_of_pairs([0.5, 1.2], [("a", "b"), ("b", "c")])
    with pytest.raises(ValueError, match=r"shape \(P,\) and `people` of shape \(P, 2\)"):
        interval_of_pairs([0.5, 0.2], ["a", "b"])
    with pytest.raises(ValueError, match=r"got values from nan"):
        interval_of_pairs([0.5, np.nan], [("a", "b"), ("b", "c")])
