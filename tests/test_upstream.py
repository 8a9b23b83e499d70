"""What `docs/upstream.md` says of Captum holds for the Captum that is installed; a failure here may mean that Captum was repaired."""

import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch
from captum.metrics._core import sensitivity

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "upstream.md").read_text()
SECTIONS = {text.splitlines()[0]: text for text in PAGE.split("\n## ")[1:] if "```python" in text}


def code(section: str, language: str) -> str:
    """Return the blocks of a section, joined."""
    return "\n".join(re.findall(rf"```{language}\n(.*?)```", SECTIONS[section], re.DOTALL))


@pytest.mark.parametrize("section", SECTIONS)
def test_work_arounds_run_and_reproductions_show_the_problem(section):
    exec(code(section, "python"), {"__name__": "reproduction"})  # noqa: S102 - of this repository


def test_the_proposed_patch_of_sensitivity_max_gives_the_right_number():
    """The patch is applied to the source of the installed module."""
    lines = code("`sensitivity_max` misreads a bare tensor", "diff").splitlines()
    (before,), (after,) = ([line[1:] for line in lines if line[0] == sign] for sign in "-+")
    source = inspect.getsource(sensitivity)
    assert source.count(before) == 1
    module = ModuleType("patched")
    exec(source.replace(before, after), vars(module))  # noqa: S102 - Captum's own
    for images in (torch.full((1, 1, 4, 4), 0.5), torch.full((3, 1, 4, 4), 0.5)):
        found = module.sensitivity_max(lambda x: 2 * (x[0] if isinstance(x, tuple) else x), images, lambda x: x + 0.1)
        torch.testing.assert_close(found, torch.full((len(images),), 0.2))
