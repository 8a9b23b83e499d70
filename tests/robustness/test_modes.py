"""Every public call under every global mode of PyTorch: the same numbers as without, to the last bit."""

import ast
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from captum_leam import explain_faces, explain_pair
from captum_leam._engine.modes import as_array
from captum_leam.patterns import closest_strangers, profile_signatures
from captum_leam.plots import overlay_grid, region_outlines
from tests.helpers.entry_points import numbers, same
from tests.helpers.public_calls import PUBLIC, Inputs, public_names
from tests.helpers.torch_modes import default_device, default_dtype, deterministic

PACKAGE = Path(__file__).resolve().parents[2] / "captum_leam"


@contextmanager
def all_at_once() -> Iterator[None]:
    with default_dtype(torch.float64), default_device("meta"), deterministic(), torch.inference_mode():
        yield


MODES: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "default dtype bfloat16": lambda: default_dtype(torch.bfloat16),
    "default device": lambda: default_device("meta"),
    "no_grad": torch.no_grad,
    "default dtype float64, default device, deterministic algorithms and inference_mode": all_at_once,
}


@cache
def inputs() -> Inputs:
    torch.manual_seed(0)
    return Inputs()


def result(name: str, mode: AbstractContextManager[object], given: Inputs) -> list[Tensor]:
    with warnings.catch_warnings(), mode:
        warnings.simplefilter("ignore")  # of networks that are not trained
        found = PUBLIC[name](given)
    return [tensor.detach() for tensor in numbers(found)]


@cache
def without(name: str) -> list[Tensor]:
    return result(name, nullcontext(), inputs())


def test_every_public_name_has_a_call():
    assert public_names() == set(PUBLIC), "add a tiny call to tests/helpers/public_calls.py"


@pytest.mark.parametrize("name", PUBLIC)
@pytest.mark.parametrize("mode", MODES)
def test_every_public_call_gives_the_same_under_every_mode(mode, name):
    assert same(result(name, MODES[mode](), inputs()), without(name))


# -- autocast ------------------------------------------------------------------------------------------


def with_forward_in_autocast(given: Inputs, enabled: bool) -> Inputs:
    """The inputs with models whose forward, and nothing else, runs under autocast; or outside of it, whatever is on around."""
    for module in given.models():
        kind = type(module)

        def forward(self, x, kind=kind):
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                return kind.forward(self, x)

        module.__class__ = type(kind.__name__, (kind,), {"forward": forward})
    return given


@cache
def inputs_in_autocast(enabled: bool) -> Inputs:
    torch.manual_seed(0)
    return with_forward_in_autocast(Inputs(), enabled)


@pytest.mark.parametrize("name", PUBLIC)
def test_autocast_does_not_reach_the_packages_own_arithmetic(name):
    """A model that leaves autocast gets the same numbers, to the last bit, inside as outside."""
    assert same(result(name, torch.autocast("cpu", torch.bfloat16), inputs_in_autocast(False)), without(name))


@pytest.mark.parametrize("name", PUBLIC)
def test_autocast_reaches_the_forward_pass_of_the_model(name):
    """Autocast around a call is autocast around the model's forward pass, and nothing else."""
    given = inputs_in_autocast(True)
    assert same(result(name, torch.autocast("cpu", torch.bfloat16), inputs()), result(name, nullcontext(), given))


# -- half precision ------------------------------------------------------------------------------------

HALF = [torch.bfloat16, torch.float16]


@cache
def inputs_in(dtype: torch.dtype) -> Inputs:
    """Maps and references that were rounded to half precision; and so are faces and models, unless it is float32 in the end."""
    torch.manual_seed(0)
    given = Inputs()
    given.maps, given.references = given.maps.to(dtype), given.references.to(dtype)
    given.faces, given.crops, given.photo = given.faces.to(dtype), given.crops.to(dtype), given.photo.to(dtype)
    for module in given.models():
        module.to(dtype)
    return given


OF_FLOAT32 = {"centroids", "swap_test"}  # they give a network the faces of a population, which are float32


@pytest.mark.parametrize("name", sorted(set(PUBLIC) - OF_FLOAT32))
@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_every_public_call_takes_half_precision(dtype, name):
    found = result(name, nullcontext(), inputs_in(dtype))
    assert [tensor.shape for tensor in found] == [tensor.shape for tensor in without(name)]


@pytest.mark.parametrize(
    "name", ["bhattacharyya", "top_fraction", "region_report", "signatures", "OcclusionEvaluator", "iou"]
)
@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_maps_in_half_precision_are_the_same_maps(dtype, name):
    torch.manual_seed(0)
    half, single = Inputs(), Inputs()
    single.net, single.faces, single.references = half.net, half.faces, half.references
    half.maps = half.maps.to(dtype)
    single.maps, single.truth = half.maps.float(), half.truth
    single.labels = half.labels
    assert same(result(name, nullcontext(), half), result(name, nullcontext(), single))


def test_maps_of_a_network_in_half_precision_are_float32():
    """A bfloat16 has 8 bits: shares of 12544 pixels would not sum to 1."""
    given = inputs_in(torch.bfloat16)
    maps = explain_faces(given.net, given.faces, "fast", reference=given.references)
    assert maps.dtype == torch.float32
    torch.testing.assert_close(maps.sum((1, 2)), torch.ones(4), atol=1e-5, rtol=0)


def test_maps_of_a_network_with_autocast_inside_are_float32():
    given = inputs_in_autocast(True)
    maps = explain_faces(given.net, given.faces)
    assert maps.dtype == torch.float32
    torch.testing.assert_close(maps.sum((1, 2)), torch.ones(4), atol=1e-5, rtol=0)


def test_pictures_are_drawn_of_half_precision():
    given = inputs_in(torch.bfloat16)
    explain_pair(given.net, *given.faces[:2], preset="fast").plot()
    overlay_grid(given.faces, given.maps)
    region_outlines(given.faces[0], given.labels[0], side=20)


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_numbers_are_taken_from_tensors_of_any_kind(dtype):
    scores = torch.tensor([0.25, 0.5, 0.75, 1.0], dtype=dtype, requires_grad=True)
    assert as_array(scores).tolist() == [0.25, 0.5, 0.75, 1.0]
    assert profile_signatures(scores.view(2, 2)).similarity().shape == (2, 2)
    assert closest_strangers(scores.view(4, 1), list("aabb")).tolist() == [[2], [2], [1], [1]]


# -- networks that the package builds ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["from_onnx", "facexlib_arcface", "train", "randomised"])
def test_networks_made_under_inference_mode_have_gradients(name):
    with torch.inference_mode():
        made = PUBLIC[name](inputs())
    assert not any(parameter.is_inference() for parameter in made)


# -- how the package is written ------------------------------------------------------------------------

IN_DEFAULT_DTYPE = {
    "empty",
    "eye",
    "full",
    "linspace",
    "logspace",
    "normal",
    "ones",
    "rand",
    "randn",
    "tensor",
    "zeros",
}
OF_INTEGERS = {"arange", "randint", "randperm", "tril_indices", "triu_indices"}
INSTEAD = {
    "torch.as_tensor": "captum_leam._engine.modes.as_tensor, which leaves tensors where they are",
    "torch.asarray": "captum_leam._engine.modes.as_tensor, which leaves tensors where they are",
    "torch.Tensor": "torch.tensor with device and dtype",
    "torch.autograd.grad": "captum_leam._engine.modes.differentiate, which leaves autocast",
}


def calls() -> Iterator[tuple[str, ast.Call]]:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and path.name != "modes.py":
                yield f"{path.relative_to(PACKAGE)}:{node.lineno}", node


def test_factories_name_their_device_and_dtype():
    """What is made without follows the default device and the default dtype of the process."""
    for where, call in calls():
        library, _, factory = ast.unparse(call.func).rpartition(".")
        needed = {"device"} if factory in OF_INTEGERS else {"device", "dtype"} if factory in IN_DEFAULT_DTYPE else set()
        given = {keyword.arg for keyword in call.keywords}
        if library == "torch" and None not in given:  # None: **options
            assert needed <= given, f"{where} torch.{factory} lacks {needed - given}"


def test_calls_that_follow_a_mode_go_through_modes():
    for where, call in calls():
        function = ast.unparse(call.func)
        assert function not in INSTEAD, f"{where} calls {function}: use {INSTEAD[function]}"
