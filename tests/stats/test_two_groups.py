"""Means and variances of columns of which some values are not known."""

import numpy as np
import pytest

from captum_leam.stats.two_groups import variance_of_known


def test_variances_are_of_the_known_values_alone():
    table = np.array([[1.0, 5.0], [3.0, np.nan], [8.0, 9.0], [np.nan, np.nan]])
    assert variance_of_known(table) == pytest.approx([np.var([1, 3, 8], ddof=1), np.var([5, 9], ddof=1)])
