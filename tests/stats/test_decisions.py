"""Pairs, thresholds and error rates, by hand and against counting."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_leam.stats.decisions import (
    Pairs,
    area_under,
    draw_pairs,
    error_rates,
    threshold_at_eer,
    threshold_at_fmr,
    thresholds_between,
)

scores_and_truth = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.2, 0.5, 0.7]), st.booleans()), min_size=2, max_size=30
).filter(lambda rows: len({same for _, same in rows}) == 2)


@given(scores_and_truth)
@settings(deadline=None)
def test_error_rates_are_counts(rows):
    scores, genuine = map(np.array, zip(*rows, strict=True))
    at = thresholds_between(scores)
    fmr, fnmr = error_rates(scores, genuine, at)
    for t, false_match, false_non_match in zip(at, fmr, fnmr, strict=True):
        assert false_match == pytest.approx((scores[~genuine] >= t).mean())
        assert false_non_match == pytest.approx((scores[genuine] < t).mean())
    assert (fmr[0], fnmr[0], fmr[-1], fnmr[-1]) == (1, 0, 0, 1)


@given(scores_and_truth)
@settings(deadline=None)
def test_no_threshold_is_nearer_to_equal_errors(rows):
    """Also with ties: a threshold between equal scores does not exist."""
    scores, genuine = map(np.array, zip(*rows, strict=True))
    fmr, fnmr = error_rates(scores, genuine, thresholds_between(scores))
    found = error_rates(scores, genuine, [threshold_at_eer(scores, genuine)])
    assert abs(found[0] - found[1])[0] == pytest.approx(abs(fmr - fnmr).min())


def test_threshold_at_a_false_match_rate():
    scores = [*np.linspace(0, 0.99, 100), 2.0]
    genuine = [False] * 100 + [True]
    at = threshold_at_fmr(scores, genuine, 0.05)
    assert error_rates(scores, genuine, [at])[0][0] == pytest.approx(0.05)
    assert error_rates(scores, genuine, [at - 0.01])[0][0] > 0.05  # the lowest such
    with pytest.raises(
        ValueError, match="Expected at least 1000 impostor pairs for a false match rate of 0.001, got 100"
    ):
        threshold_at_fmr(scores, genuine, 1e-3)
    with pytest.raises(ValueError, match="a rate in .* got 0"):
        threshold_at_fmr(scores, genuine, 0)


def test_rates_need_both_kinds():
    with pytest.raises(ValueError, match="both genuine and impostor pairs, got only"):
        error_rates([0.1, 0.2], [True, True], [0])


def test_area_is_the_mean_height():
    assert area_under([0, 0.1, 1], [1, 1, 1]) == pytest.approx(1)
    assert area_under([0.5, 1], [0, 1]) == pytest.approx(0.5)


def test_drawn_pairs_are_genuine_or_impostor_as_labelled():
    people = ["ann"] * 4 + ["bob"] * 3 + ["cyd"]
    pairs = draw_pairs(people, seed=3)
    assert len(pairs) == 2 * 9  # six of ann, three of bob, and as many impostors
    for a, b, genuine in zip(pairs.first, pairs.second, pairs.genuine, strict=True):
        assert a < b
        assert (people[a] == people[b]) == bool(genuine)
    together = list(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    assert len(set(together)) == len(together)
    again = draw_pairs(torch.tensor([0, 0, 0, 0, 1, 1, 1, 2]), seed=3)
    assert torch.equal(again.first, pairs.first)
    assert not torch.equal(draw_pairs(people, seed=4).first, pairs.first)


def test_pairs_of_one_kind_or_too_many_raise():
    with pytest.raises(ValueError, match="got 0 genuine and 3 impostor pairs"):
        draw_pairs(["ann", "bob", "cyd"])
    with pytest.raises(ValueError, match="at least 9 genuine and impostor pairs each"):
        draw_pairs(["ann", "ann", "bob"], 9)
    one = torch.tensor([0, 1])
    with pytest.raises(ValueError, match="got only genuine pairs"):
        Pairs(one, one, torch.tensor([True, True]))
    with pytest.raises(ValueError, match="Expected `first`, `second` and a boolean `genuine`"):
        Pairs(one, one[:1], torch.tensor([True, False]))


def test_ties_of_errors_are_not_broken_by_rounding():
    """.5 and .4, .3 and .4: as far apart, and the second sum is smaller."""
    impostors, genuine = [0.0] * 5 + [0.5] * 2 + [0.9] * 3, [0.1] * 4 + [0.95] * 6
    scores, same = impostors + genuine, [False] * 10 + [True] * 10
    assert threshold_at_eer(scores, same) == pytest.approx(0.7)


def test_scores_that_are_not_finite_raise():
    with pytest.raises(ValueError, match="got 1 that are NaN"):
        threshold_at_eer([0.1, float("nan"), 0.3], [True, False, False])
