"""Region reports batch after batch."""

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_leam.errors import CaptumLeamError
from captum_leam.regions import RegionReport, RegionScheme, region_report

HALVES = RegionScheme({3: "upper", 1: "lower"})


@given(st.lists(st.integers(1, 6), max_size=3), st.sampled_from([None, HALVES]), st.randoms())
@settings(max_examples=20, deadline=None)
def test_any_split_and_any_order_of_merges_give_the_table_of_one_call(cuts, scheme, random):
    maps = (torch.rand(7, 6, 6) * 9).round() + 0.5  # ties
    labels = torch.tensor([1, 3])[torch.randint(2, (7, 6, 6))]
    labels[:2] = 1  # a region that only some parts have
    expected = region_report(maps, labels, scheme, fraction=0.2)
    starts = sorted({0, *cuts})
    parts = []
    for start, stop in zip(starts, [*starts[1:], 7], strict=True):
        part = RegionReport(scheme, fraction=0.2)
        part.update(maps[start:stop], labels[start:stop], start=start)
        parts.append(part)
    random.shuffle(parts)
    merged = RegionReport(scheme, fraction=0.2)
    for part in parts:
        merged.merge(part)
    pd.testing.assert_frame_equal(merged.compute(), expected)


def test_parts_that_overlap_and_no_parts_raise():
    report = RegionReport()
    with pytest.raises(CaptumLeamError, match="got none"):
        report.compute()
    for _ in range(2):
        report.update(torch.rand(2, 4, 4), torch.ones(2, 4, 4, dtype=torch.int64), start=0)
    with pytest.raises(CaptumLeamError, match="overlap"):
        report.compute()


def test_reports_of_other_settings_do_not_merge():
    report, other = RegionReport(fraction=0.1), RegionReport(fraction=0.5)
    with pytest.raises(CaptumLeamError, match="Expected other to have the settings"):
        report.merge(other)
    with pytest.raises(TypeError, match="Expected other to be a RegionReport, got a int"):
        report.merge(3)
