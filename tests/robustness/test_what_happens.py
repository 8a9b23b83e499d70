"""Every row of the tables in docs/what_happens.md is what happens, and the page has these rows and no others."""

import re
import warnings

import pytest
import torch

from tests.helpers.cases import Case
from tools.what_happens import ELLIPSIS, GROUPS, PAGE, parts, tables

CASES = [(group, case) for group, cases in GROUPS.items() for case in cases]


def pattern(text: str) -> str:
    """The beginning of a message, with … for what is filled in, as a regular expression."""
    return ".*".join(map(re.escape, text.split(ELLIPSIS)))


def assert_equal(found: object, expected: object, tolerance: float) -> None:
    if isinstance(expected, torch.Tensor):
        torch.testing.assert_close(found, expected, atol=tolerance, rtol=1e-4)
    else:
        assert found == expected


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=f"{group}: {case.given}", marks=[pytest.mark.real] if case.is_real else [])
        for group, case in CASES
    ],
)
@pytest.mark.filterwarnings("default::captum_leam.errors.ReliabilityWarning")
def test_every_case_of_the_page_ends_as_its_row_says(case: Case, tmp_path, request):
    for package in case.needs:
        pytest.importorskip(package)
    if case.is_real:
        request.getfixturevalue("real_dir")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if case.outcome == "refused":
            with pytest.raises((ValueError, TypeError)) as error:
                case.call(tmp_path)
            assert re.match(pattern(case.text), str(error.value), re.DOTALL)
            return
        result = case.call(tmp_path)
    if case.outcome == "right":
        assert_equal(*result, case.tolerance)
        assert not [w for w in caught if w.category.__module__.startswith("captum_leam")]
        return
    noted = [*(result if isinstance(result, list | tuple) else []), *(str(warning.message) for warning in caught)]
    assert any(re.match(pattern(case.text), str(note), re.DOTALL) for note in noted), noted


def test_the_page_has_the_cases():
    written = parts(PAGE.read_text(encoding="utf-8"))[1]
    assert written == f"\n{tables()}\n", "write the tables anew: python tools/what_happens.py"


def test_no_case_stands_twice():
    given = [(group, case.given) for group, case in CASES]
    assert len(given) == len(set(given)) >= 60
