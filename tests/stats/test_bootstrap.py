"""Studentised intervals over people, at their edges; the loop they are compared with is in tests/faithfulness/test_statistics.py."""

import numpy as np
import pytest
from scipy import stats

from captum_leam.stats.bootstrap import divided, interval_of_sums, studentised


def test_draws_without_spread_are_far_off():
    """A draw of one person again and again has no error of its own: it counts as beyond every other, not as an infinite number."""
    draws, errors = np.array([0.0, 1.0, 2.0, -1.0, 0.5, -0.5, 3.0]), np.array([1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0])
    low, high = studentised(0.0, draws, 1.0, errors, 0.5)
    t = [0.0, 1e6, 2.0, -1e6, 0.5, -0.5, 3.0]
    assert (low, high) == pytest.approx((-np.quantile(t, 0.75), -np.quantile(t, 0.25)))


@pytest.mark.parametrize("some", [1, 2])
def test_what_hardly_anybody_has_gets_no_endless_interval(some):
    """A third of the draws leave out the one person of 24 who has anything: the upper end stays near."""
    shares = np.zeros(24)
    shares[:some] = 0.24
    low, high = interval_of_sums(shares, np.ones(24))
    assert low == 0
    assert shares.mean() < high < 0.1
    assert interval_of_sums(np.stack([shares, np.ones(24)], 1), np.ones(24))[1] == pytest.approx([high, 1.0])


def test_a_draw_at_the_value_is_not_far_off():
    low, high = studentised(1.0, np.ones(5), 0.5, np.zeros(5), 0.9)
    assert (low, high) == (1.0, 1.0)


def test_no_spread_gives_no_width():
    low, high = interval_of_sums(np.full((12, 2), 3.0), np.full(12, 2.0))
    assert low == pytest.approx([1.5, 1.5])
    assert high == pytest.approx([1.5, 1.5])


def test_draws_that_nobody_is_in_are_left_out():
    draws = np.array([np.nan, -1.0, 0.0, 1.0])
    assert studentised(0.0, draws, 1.0, np.ones(4), 0.5) == pytest.approx((-0.5, 0.5))


@pytest.mark.parametrize("people", [9, 10])
def test_ten_people_are_drawn_nine_are_not(people):
    values = np.arange(people) ** 2.0
    low, high = interval_of_sums(values, np.ones(people))
    by_t = stats.t.interval(0.95, people - 1, values.mean(), values.std(ddof=1) / np.sqrt(people))
    assert ((low, high) == pytest.approx(by_t)) is (people == 9)


def test_skew_moves_the_interval_to_where_the_tail_is():
    low, high = interval_of_sums(np.random.default_rng(0).lognormal(sigma=1.5, size=24), np.ones(24))
    mean = np.random.default_rng(0).lognormal(sigma=1.5, size=24).mean()
    assert high - mean > 1.5 * (mean - low)


def test_dividing_by_nobody_is_nan():
    assert np.isnan(divided([1.0, 2.0], [0, 1])).tolist() == [True, False]
