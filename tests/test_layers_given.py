"""Layers by name, as modules, as suggestions and mixed, wherever layers are taken."""

import pytest
import torch
from torch import nn

from captum_leam import explain_faces, explain_pair, layer_maps, suggest_layers
from captum_leam.errors import CaptumLeamError, InputTypeError


@pytest.fixture(scope="module")
def model(small_network):
    return small_network


@pytest.fixture(scope="module")
def faces(noise):
    return noise[:2]


FORMS = {
    "name": lambda model, found: "last",
    "module": lambda model, found: model.last,
    "suggestion": lambda model, found: found["last"],
    "names": lambda model, found: ["last"],
    "modules": lambda model, found: (model.last,),
    "suggestions": lambda model, found: [found["last"]],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_one_layer_gives_the_same_maps(model, faces, form):
    found = suggest_layers(model, faces)
    given = FORMS[form](model, found)
    expected = explain_faces(model, faces, "fast", layers=[model.last])
    assert torch.equal(explain_faces(model, faces, "fast", layers=given), expected)
    expected = layer_maps(model, faces, ["last"], n_steps=1)
    maps = layer_maps(model, faces, given, n_steps=1)
    assert list(maps) == ["last"]
    assert torch.equal(maps["last"], expected["last"])
    pair = explain_pair(model, *faces, layers=given, preset="fast", n_steps=1)
    assert pair.settings.overall_layers == ("last",)
    assert list(pair.layers) == ["last"]


def test_a_list_may_be_mixed_and_names_count_once(model, faces):
    found = suggest_layers(model, faces)
    mixed = [found["stem"], model.last, "last"]
    expected = explain_faces(model, faces, "fast", layers=[model.stem, model.last])
    assert torch.equal(explain_faces(model, faces, "fast", layers=mixed), expected)
    assert list(layer_maps(model, faces, mixed, n_steps=1)) == ["stem", "last"]
    assert explain_pair(model, *faces, layers=mixed, preset="fast", n_steps=1).settings.layers == ("stem", "last")


def test_anything_else_is_refused(model, faces):
    for call in (
        lambda layers: explain_faces(model, faces, "fast", layers=layers),
        lambda layers: layer_maps(model, faces, layers),
        lambda layers: explain_pair(model, *faces, layers=layers),
    ):
        for wrong in (3, ["last", 3]):
            with pytest.raises(InputTypeError, match="Expected layers to be names or modules .* got a int"):
                call(wrong)
        with pytest.raises(CaptumLeamError, match="layer of the model, got 'none'"):
            call("none")
        with pytest.raises(CaptumLeamError, match="not among them"):
            call(["last", nn.ReLU()])


def test_a_pair_needs_a_module_and_a_truth(model, faces):
    with pytest.raises(InputTypeError, match="Expected model to be a torch.nn.Module .*, got a function"):
        explain_pair(lambda x: model(x), *faces)
    with pytest.raises(InputTypeError, match="Expected same_person to be True, False or None, got 'yes'"):
        explain_pair(model, *faces, same_person="yes")


@pytest.mark.parametrize("field", [(0, 0, 5), "abcd", (0, 0, 5.0, 5), (0, 0, 113, 112), 3])
def test_a_field_that_is_none_is_refused(model, faces, field):
    with pytest.raises(CaptumLeamError, match="Expected field to be .top, left, height, width."):
        explain_faces(model, faces, "fast", field=field)
