import numpy as np
import pandas as pd
import pytest
from scipy import stats

from captum_leam.patterns import compare_groups
from captum_leam.stats import two_groups
from captum_leam.stats.two_groups import difference_interval, permutation_p, welch_t

QUANTITIES = ("drop", "share nose", "share eyes", "lift nose", "lift eyes", "cosine after")


def study(rng, people=(30, 30), images=3, shift=0.0, quantities=QUANTITIES):
    """Images of people in two groups; ``shift`` standard deviations of people between them in the first quantity."""
    count = sum(people)
    person = np.repeat(np.arange(count), images)
    group = np.repeat(["f", "m"], people)[person]
    shared = rng.normal(size=count)  # quantities of one person go together, as drops and shares do
    values = {}
    for name in quantities:
        of_person = np.exp(0.5 * (0.5 * shared + rng.normal(size=count)))
        values[name] = of_person[person] + rng.normal(0, 0.3, len(person))
    values["drop"] = values["drop"] + shift * 0.6 * (group == "f")
    return values, person, group, rng.uniform(0.4, 0.8, count)[person]


@pytest.mark.parametrize("sizes", [(12, 9), (9, 12)])
def test_under_ten_people_on_either_side_the_interval_is_welchs(sizes):
    rng = np.random.default_rng(0)
    left, right = (rng.exponential(size=n) for n in sizes)
    group = np.repeat(["f", "m"], sizes)
    values = {"drop": np.concatenate([left, right])}
    row = compare_groups(values, np.arange(21), group, np.zeros(21), min_people=8, resamples=200).table.iloc[0]
    ends = stats.ttest_ind(left, right, equal_var=False).confidence_interval(0.95)
    assert (row["low"], row["high"]) == pytest.approx((ends.low, ends.high))


def test_null_studies_find_nothing():
    """Acceptance 5: over 200 null studies, at most 8 % with any finding after Holm."""
    rng = np.random.default_rng(0)
    found = [len(compare_groups(*study(rng), resamples=1, permutations=399, seed=i).findings()) > 0 for i in range(200)]
    assert 0.005 <= np.mean(found) <= 0.08


def test_a_planted_difference_is_found_and_named():
    rng = np.random.default_rng(1)
    right = 0
    for i in range(30):
        findings = compare_groups(*study(rng, shift=1.2), resamples=200, permutations=399, seed=i).findings()
        right += findings["quantity"].tolist() == ["drop"] and bool((findings["low"] > 0).all())
    assert right >= 25


def test_differences_effects_and_means_equal_those_by_hand():
    values = {"drop": [0.1, 0.3, 0.4, 0.2, 0.5, 0.9, 0.7, 0.6]}
    people = ["a", "a", "b", "c", "d", "e", "f", "f"]
    groups = {"a": 1, "b": 1, "c": 1, "d": 2, "e": 2, "f": 2}
    base = [0.5, 0.7, 0.6, 0.6, 0.8, 0.8, 0.8, 0.9]
    row = compare_groups(values, people, groups, base, min_people=3).to_frame().iloc[0]
    left, right = [0.2, 0.4, 0.2], [0.5, 0.9, 0.65]
    assert row["mean_first"] == pytest.approx(np.mean(left))
    assert row["difference"] == pytest.approx(np.mean(left) - np.mean(right))
    assert row["effect"] == pytest.approx(
        row["difference"] / np.sqrt((np.var(left, ddof=1) + np.var(right, ddof=1)) / 2)
    )
    assert (row["people_first"], row["people_second"]) == (3, 3)
    assert row["base_first"] == pytest.approx(0.6)
    assert row["base_difference"] == pytest.approx(0.6 - (0.8 + 0.8 + 0.85) / 3)
    welch = stats.ttest_ind(left, right, equal_var=False).confidence_interval()  # under ten people
    assert (row["low"], row["high"]) == pytest.approx((welch.low, welch.high))


def test_welchs_t_equals_scipys_with_missing_values():
    rng = np.random.default_rng(0)
    table = rng.normal(size=(12, 3))
    table[[2, 9], 1] = np.nan
    members = (np.arange(12) < 5)[None].astype(float)
    expected = stats.ttest_ind(table[:5], table[5:], equal_var=False, nan_policy="omit").statistic
    assert np.allclose(welch_t(table, members)[0], expected)


def test_permutations_are_all_splits_of_the_people():
    """Few people: the p-value is near that of every split listed."""
    from itertools import combinations

    table = np.random.default_rng(2).normal(size=(8, 1)) + np.array([[1.0]] * 4 + [[0.0]] * 4)
    splits = np.array([[float(i in chosen) for i in range(8)] for chosen in combinations(range(8), 4)])
    t = np.abs(welch_t(table, splits))[:, 0]
    exact = (t >= t[0] - 1e-9).mean()
    assert permutation_p(table, 4, 20_000, np.random.default_rng(0))[0] == pytest.approx(exact, abs=0.01)


def test_constant_values_have_p_1_and_separated_ones_a_small_p():
    base = np.full(24, 0.5)
    people, groups = np.arange(24), ["x"] * 12 + ["y"] * 12
    same = compare_groups({"drop": np.ones(24)}, people, groups, base).table.iloc[0]
    assert same["p"] == 1
    assert (same["low"], same["high"]) == (0, 0)
    apart = compare_groups({"drop": np.repeat([0.0, 1.0], 12)}, people, groups, base).table.iloc[0]
    assert apart["p"] < 0.01
    assert apart["difference"] == -1


def test_quantities_with_too_few_people_have_no_test():
    rng = np.random.default_rng(0)
    values, person, group, base = study(rng, people=(12, 12))
    values["lift nose"][group == "f"] = np.nan
    values["lift eyes"][(person < 3) & (np.arange(len(person)) % 3 > 0)] = np.nan  # one image of three is left
    found = compare_groups(values, person, group, base, resamples=50, permutations=99)
    table = found.table.set_index("quantity")
    assert table.loc["lift nose", "people_first"] == 0
    assert found.refused == ["lift nose: group f has 0 people, group m has 12; expected 10 or more in both"]
    assert table.loc["lift nose", ["difference", "low", "p", "p_holm", "base_first"]].isna().all()
    assert table.loc["lift eyes", "people_first"] == 12
    kept = table["p"].dropna()
    assert len(kept) == 5
    assert table["p_holm"].min() == pytest.approx(min(1, 5 * kept.min()))


def test_three_groups_are_compared_in_pairs_without_people_of_no_group():
    rng = np.random.default_rng(0)
    values, person, _, base = study(rng, people=(40, 0))
    groups = {i: ("a", "b", "c", None)[i % 4] for i in range(40)}
    found = compare_groups(pd.DataFrame(values), person, groups, base, resamples=20, permutations=49)
    assert len(found.table) == 3 * len(values)
    assert found.table[["first", "second"]].drop_duplicates().values.tolist() == [["a", "b"], ["a", "c"], ["b", "c"]]
    assert set(found.table["people_first"]) == {10}


def test_order_of_images_does_not_matter_and_seeds_repeat():
    rng = np.random.default_rng(0)
    values, person, group, base = study(rng, people=(12, 12))
    order = np.argsort(rng.random(len(person) // 3)).repeat(3) * 3 + np.tile([2, 0, 1], len(person) // 3)
    kept = np.concatenate([order[person[order] < 12], order[person[order] >= 12]])
    first = compare_groups(values, person, group, base, resamples=50, permutations=49)
    again = compare_groups(values, person, group, base, resamples=50, permutations=49)
    moved = compare_groups(
        {k: v[kept] for k, v in values.items()}, person[kept], group[kept], base[kept], resamples=50, permutations=49
    )
    assert first.table.equals(again.table)
    columns = ["mean_first", "mean_second", "difference", "effect", "base_difference"]
    assert np.allclose(first.table[columns], moved.table[columns])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"values": {}}, "one quantity or more"),
        ({"values": {"drop": [1.0, 2.0]}}, r"drop to have one number for each of the 4 images, got shape \(2,\)"),
        (
            {"values": {"drop": [1.0, 2.0, np.inf, 0.0]}},
            r"drop to be finite or NaN, got infinite values of images \[2\]",
        ),
        ({"groups": ["x", "y", "y", "y"]}, "one group for 'a', got 'x' and 'y'"),
        ({"groups": ["x", "x", "y"]}, "each of the 4 images, or to be a dictionary by person, got 3"),
        ({"groups": {"a": "x"}}, r"got none for \['b', 'c'\]"),
        ({"groups": ["x"] * 4}, r"two groups or more, got 1: \['x'\]"),
        ({"base_similarity": [0.5]}, "Expected base_similarity to have one number"),
        ({"min_people": 2}, "got 2 and"),
        ({"permutations": 0}, "and 0"),
        ({"people": ["a", None, "b", "c"]}, r"rows \[1\]. Name the person"),
    ],
)
def test_wrong_values_people_and_groups_raise(change, said):
    given = {
        "values": {"drop": [1.0] * 4},
        "people": list("aabc"),
        "groups": list("xxyy"),
        "base_similarity": [0.5] * 4,
    }
    with pytest.raises(ValueError, match=said):
        compare_groups(**(given | change))


def test_the_result_prints_and_draws():
    values, person, group, base = study(np.random.default_rng(0), people=(12, 12))
    found = compare_groups(values, person, group, base, resamples=50, permutations=49)
    assert "base_difference" in repr(found)
    left, right = found.plot().axes
    assert len(left.get_yticks()) == len(values)
    assert right.get_xlabel() == "difference in base similarity"
    small = compare_groups(values, person, group, base, min_people=20, resamples=50, permutations=49)
    assert len(small.refused) == len(values)
    assert "refused: drop: group f has 12 people" in repr(small)
    small.plot()


def test_draws_in_parts_are_the_same_draws(monkeypatch):
    generator = np.random.default_rng(0)
    left, right = generator.normal(size=(30, 3)), generator.normal(size=(20, 3)) + 0.3
    left[::7, 2] = np.nan
    whole = [difference_interval(left, right, 0.95, 100, np.random.default_rng(1))]
    whole.append(permutation_p(np.concatenate([left, right]), 30, 99, np.random.default_rng(1)))
    monkeypatch.setattr(two_groups, "AT_A_TIME", 700)
    parts = [difference_interval(left, right, 0.95, 100, np.random.default_rng(1))]
    parts.append(permutation_p(np.concatenate([left, right]), 30, 99, np.random.default_rng(1)))
    assert np.allclose(whole[0], parts[0], atol=1e-12)
    assert (whole[1] == parts[1]).all()
