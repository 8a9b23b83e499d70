"""Every public call under every global mode of PyTorch: the same numbers as without, to the last bit."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from pathlib import Path

import pytest
import torch
from entry_points import numbers, same
from public_calls import PUBLIC, Inputs, public_names
from torch import Tensor

PACKAGE = Path(__file__).resolve().parents[2] / "captum_leam"


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def default_device(device: str) -> Iterator[None]:
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextmanager
def all_at_once() -> Iterator[None]:
    with default_dtype(torch.float64), default_device("meta"), deterministic(), torch.inference_mode():
        yield


MODES: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "default dtype float64": lambda: default_dtype(torch.float64),
    "default dtype bfloat16": lambda: default_dtype(torch.bfloat16),
    "default device": lambda: default_device("meta"),
    "deterministic algorithms": deterministic,
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "all at once": all_at_once,
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
    assert public_names() == set(PUBLIC), "add a tiny call to tests/public_calls.py"


@pytest.mark.parametrize("name", PUBLIC)
@pytest.mark.parametrize("mode", MODES)
def test_gives_the_same_under(mode, name):
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
def test_own_arithmetic_is_not_under_autocast(name):
    """A model that leaves autocast gets the same numbers, to the last bit, inside as outside."""
    assert same(result(name, torch.autocast("cpu", torch.bfloat16), inputs_in_autocast(False)), without(name))


@pytest.mark.parametrize("name", PUBLIC)
def test_autocast_reaches_the_forward_pass_of_the_model(name):
    """Autocast around a call is autocast around the model's forward pass, and nothing else."""
    given = inputs_in_autocast(True)
    assert same(result(name, torch.autocast("cpu", torch.bfloat16), inputs()), result(name, nullcontext(), given))
