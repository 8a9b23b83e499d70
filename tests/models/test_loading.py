"""Models named by file or package."""

import sys

import pytest
from torch import nn

from captum_leam.models import load_model

CODE = """
from dataclasses import dataclass
from torch import nn

@dataclass
class Settings:
    size: int = 4

class Net(nn.Linear):
    def __init__(self):
        super().__init__(Settings().size, 2)

def function():
    return Net()

instance = Net()
"""


@pytest.mark.parametrize("name", ["Net", "function", "instance"])
def test_class_function_and_instance(tmp_path, name):
    (tmp_path / "nets.py").write_text(CODE)
    path = list(sys.path)
    model = load_model(f"{tmp_path}/nets.py:{name}")
    assert isinstance(model, nn.Linear)
    assert not model.training
    assert sys.path == path


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("nets.py", "needed is FILE.py:callable"),
        (":Net", "needed is FILE.py:callable"),
        ("{folder}/nets.py:Nets", "Near it: Net"),
        ("{folder}/none.py:Net", "no such file"),
        ("{folder}/wrong.py:Net", "raised SyntaxError"),
        ("math:pi", "gave a float"),
        ("torch.nn:Linear", r"Linear\(\) raised TypeError"),
    ],
)
def test_wrong_names(tmp_path, where, message):
    (tmp_path / "nets.py").write_text(CODE)
    (tmp_path / "wrong.py").write_text("def broken(:")
    with pytest.raises(ValueError, match=message):
        load_model(where.format(folder=tmp_path))
