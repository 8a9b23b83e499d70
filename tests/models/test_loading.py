"""Models named by file or package."""

import sys

import pytest
import torch
from torch import nn

from captum_leam._loading import import_object
from captum_leam.models import layer_before_division, load_model

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
def test_classes_functions_and_instances_are_loaded_in_eval_mode(tmp_path, name):
    (tmp_path / "nets.py").write_text(CODE)
    path = list(sys.path)
    model = load_model(f"{tmp_path}/nets.py:{name}")
    assert isinstance(model, nn.Linear)
    assert not model.training
    assert sys.path == path


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("nets.py", "Expected the model as FILE.py:callable"),
        (":Net", "Expected the model as FILE.py:callable"),
        ("{folder}/nets.py:Nets", "Similar names: Net"),
        ("{folder}/none.py:Net", "no such file"),
        ("{folder}/wrong.py:Net", "raised SyntaxError"),
        ("{folder}/script.py:Net", "raised SystemExit"),
        ("math:pi", "to be a torch.nn.Module .* got a float"),
        ("torch.nn:Linear", r"Linear\(\) raised TypeError"),
    ],
)
def test_wrong_names_of_models_raise(tmp_path, where, message):
    (tmp_path / "nets.py").write_text(CODE)
    (tmp_path / "wrong.py").write_text("def broken(:")
    (tmp_path / "script.py").write_text("raise SystemExit(0)")
    with pytest.raises(ValueError, match=message):
        load_model(where.format(folder=tmp_path))


def test_preprocessing_is_put_before_any_model(tmp_path):
    (tmp_path / "nets.py").write_text("from torch import nn\nflat = nn.Flatten().eval()\n")
    model = load_model(f"{tmp_path}/nets.py:flat", "insightface")
    assert model(torch.ones(1, 3, 1, 1)).tolist() == [[1.0, 1.0, 1.0]]
    assert model(torch.zeros(1, 3, 1, 1)).tolist() == [[-1.0, -1.0, -1.0]]
    assert not model.training
    with pytest.raises(
        ValueError, match="preprocessing to be one of insightface, imagenet, unit, bytes, got 'arcface'"
    ):
        load_model(f"{tmp_path}/nets.py:flat", "arcface")


def test_onnx_files_go_to_their_loader(tmp_path):
    with pytest.raises(ValueError, match=r"lost\.onnx: there is no such file"):
        load_model(f"{tmp_path}/lost.onnx", "unit")


@pytest.mark.real
def test_a_real_onnx_file_is_loaded_or_needs_preprocessing(real_dir):
    with pytest.raises(ValueError, match="--preprocessing insightface, imagenet, unit or bytes"):
        load_model(f"{real_dir}/mobilefacenet_ms1m_fixed_batch.onnx")
    assert load_model(f"{real_dir}/mobilefacenet_casia.onnx")(torch.rand(2, 3, 112, 112)).shape == (2, 128)


def test_files_beside_the_file_can_be_imported(tmp_path, monkeypatch):
    (tmp_path / "beside_the_model.py").write_text("from torch import nn\nclass Net(nn.Identity):\n    pass\n")
    (tmp_path / "with_help.py").write_text("def net():\n    from beside_the_model import Net\n    return Net()\n")
    before = list(sys.path)
    assert type(load_model(f"{tmp_path}/with_help.py:net")).__name__ == "Net"
    monkeypatch.chdir(tmp_path)
    assert type(load_model("with_help:net")).__name__ == "Net"
    assert sys.path == before


UNIT = """
from torch import nn
class Unit(nn.Module):
    def __init__(self):
        super().__init__()
        self.head, self.last = nn.Linear(3, 2), nn.Identity()
    def forward(self, x):
        return nn.functional.normalize(self.last(self.head(x.flatten(1))))
"""


def test_colour_and_output_change_the_loaded_model_only(tmp_path):
    (tmp_path / "nets.py").write_text(UNIT + "flat = nn.Flatten().eval()\n")
    red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    assert load_model(f"{tmp_path}/nets.py:flat", colour="bgr")(red).tolist() == [[0, 0, 1]]
    assert load_model(f"{tmp_path}/nets.py:flat", "bytes", colour="bgr")(red)[0, 2] == pytest.approx(255)
    whole = load_model(f"{tmp_path}/nets.py:Unit")
    assert layer_before_division(whole, torch.rand(4, 3, 1, 1)) == "last"
    cut = load_model(f"{tmp_path}/nets.py:Unit", output="head")
    assert layer_before_division(cut, torch.rand(4, 3, 1, 1)) is None
    assert float(cut(red).detach().norm()) != pytest.approx(1)
    assert not any(module._forward_hooks for module in whole.modules())
    with pytest.raises(ValueError, match="layer of the model, got 'tail'"):
        load_model(f"{tmp_path}/nets.py:Unit", output="tail")


def test_a_function_that_needs_arguments_is_left_as_it_is(tmp_path):
    (tmp_path / "parts.py").write_text("def parser(images):\n    return images\ndef make(n=1):\n    return n\n")
    assert import_object(f"{tmp_path}/parts.py:parser")(3) == 3
    assert import_object(f"{tmp_path}/parts.py:make") == 1
    with pytest.raises(ValueError, match="to be a torch.nn.Module .* got a function"):
        load_model(f"{tmp_path}/parts.py:parser")


def test_a_callable_instance_is_left_as_it_is(tmp_path):
    code = "from functools import partial\nfrom captum_leam.regions import TemplateParser\n"
    (tmp_path / "instances.py").write_text(f"{code}parser = TemplateParser()\nmake = partial(TemplateParser)\n")
    for name in ("parser", "make"):
        assert import_object(f"{tmp_path}/instances.py:{name}").scheme.name == "template"
