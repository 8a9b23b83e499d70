"""Wrong types are refused by name, and what is no refusal, as too little memory, does not become one."""

from unittest.mock import patch

import pytest
import torch
from torch import nn

from captum_leam import LEAM, CaptumLeamError, suggest_layers
from captum_leam.errors import UnknownLayerError
from captum_leam.explain import check_preset
from captum_leam.faces import read_face
from captum_leam.layers import get_layer
from captum_leam.regions import label_faces
from captum_leam.reporting import ExplainOptions, FileOptions
from captum_leam.study.config import Model
from captum_leam.study.networks import describe, identify
from captum_leam.synthetic import EmbeddingNet

NET = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 64, 8)).eval()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reshape": 3}, "Expected `reshape` to be one function, .* got 3"),
        ({"reshape": ["a"]}, r"Expected `reshape` to be one function, .* got \['a'\]"),
        ({"weighting": ["elementwise"]}, "Expected weighting to be one of"),
        ({"norm": ["fixed"]}, "Expected norm to be one of"),
    ],
)
def test_leam_names_an_option_of_the_wrong_type(options, message):
    with pytest.raises(CaptumLeamError, match=message):
        LEAM(NET, NET[1], **options)


@pytest.mark.parametrize("size", [0, -1, 2.0, True])
def test_leam_refuses_an_internal_batch_size_below_one(size):
    with pytest.raises(CaptumLeamError, match="Expected internal_batch_size to be a whole number, 1 or more"):
        LEAM(NET, NET[1]).attribute(torch.rand(2, 3, 16, 16), n_steps=2, internal_batch_size=size)


def test_a_preset_of_another_type_is_refused():
    with pytest.raises(CaptumLeamError, match="Expected preset to be one of"):
        check_preset(["fast"])


def test_an_unknown_layer_is_a_key_error_whose_text_has_no_quotes():
    model = EmbeddingNet().eval()
    for look_up in (suggest_layers(model, torch.rand(1, 3, 112, 112)).__getitem__, lambda name: get_layer(model, name)):
        with pytest.raises(UnknownLayerError, match="'layer9'") as caught:
            look_up("layer9")
        assert isinstance(caught.value, KeyError)
        assert str(caught.value)[0] in "Et"


class InPlace(nn.Module):
    """A network that overwrites what its backward pass needs."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 2, 1)

    def forward(self, x):
        found = self.conv(x).exp()
        squares = found.sigmoid()
        total = (squares * found).flatten(1)
        squares.mul_(2)
        return total


def test_a_backward_pass_that_fails_names_the_layer():
    """A fault of the network, which is no refusal of the package."""
    net = InPlace().eval()
    with pytest.raises(RuntimeError, match="The backward pass from the score to layer"):
        LEAM(net, net.conv).attribute(torch.rand(2, 3, 16, 16))


# -- out of memory, and faults --------------------------------------------------------------------------


def test_a_fault_of_an_aligner_is_no_bad_file(tmp_path):
    from PIL import Image

    Image.new("RGB", (64, 64), (200, 100, 50)).save(tmp_path / "a.png")

    def faulty(photo, face):
        raise ValueError("a fault")

    with pytest.raises(ValueError, match="^a fault$"):
        read_face(tmp_path / "a.png", faulty)


def out_of_memory(*args, **options):
    """Stand for a network that does not fit."""
    raise torch.OutOfMemoryError("CUDA out of memory.")


def test_a_parser_that_runs_out_of_memory_stays_out_of_memory():
    with (
        patch("captum_leam.regions.named.import_object", return_value=out_of_memory),
        pytest.raises(torch.OutOfMemoryError),
    ):
        label_faces("package.module:parser", [], torch.rand(1, 3, 112, 112))


def test_a_network_that_runs_out_of_memory_stays_out_of_memory():
    with patch("captum_leam.study.networks.outputs_of", out_of_memory), pytest.raises(torch.OutOfMemoryError):
        identify(Model("a", "torch.nn:Flatten"), "cpu", 16)
    network, module = identify(Model("a", "torch.nn:Flatten"), "cpu", 16)
    with patch("captum_leam.study.networks.embed", out_of_memory), pytest.raises(torch.OutOfMemoryError):
        describe(network, module, torch.rand(1, 3, 16, 16), "cpu")


# -- options of pages -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"faces": 1},
        {"faces": "a"},
        {"faces": [-1]},
        {"size": 112},
        {"size": (112, "a")},
        {"threshold": "a"},
        {"threshold": float("nan")},
        {"same_person": "x"},
        {"n_steps": 0},
        {"fraction": 2},
        {"fraction": "a"},
        {"fill": "x"},
        {"fill": ["blur"]},
        {"seed": "a"},
        {"batch_size": 0},
        {"layers": 3},
        {"regions": None},
        {"pictures": ["crops"]},
    ],
    ids=str,
)
def test_options_of_files_are_checked_before_anything_is_read(wrong):
    with pytest.raises(CaptumLeamError, match=rf"Expected .*{next(iter(wrong))}"):
        FileOptions(**wrong)
    if next(iter(wrong)) in ExplainOptions.__dataclass_fields__:
        with pytest.raises(CaptumLeamError, match="Expected "):
            ExplainOptions(**wrong)


def test_one_layer_may_be_named_without_a_list():
    assert FileOptions(layers="conv").layers == "conv"
