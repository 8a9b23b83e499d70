"""Every number that tests/golden holds is computed again.

The tolerance is for processors that round differently: without vector instructions, ratios of small drops differ by up to 2e-4 of
their largest. Where the files were made, ``tools/golden.py --compare tests/golden`` wants identical bits.
"""

from pathlib import Path

import pytest

from tools.golden import GROUPS, compare

GOLDEN = Path(__file__).parent / "golden"
TOLERANCE = 1e-3


@pytest.mark.parametrize("group", GROUPS)
def test_numbers_equal_the_golden_files(group):
    different = {name: found.said for name, found in compare(GOLDEN, group).items() if found.share > TOLERANCE}
    assert not different
