"""Every public call on another device than the CPU: the same numbers, and no tensor meets one of the CPU."""

import warnings
from dataclasses import fields
from functools import cache

import pytest
import torch
from elsewhere import DEVICE, Elsewhere, ElsewhereTensor, bring
from entry_points import numbers, same
from public_calls import PUBLIC, Inputs
from torch import Tensor, nn

HERE = {
    **dict.fromkeys(["centroids", "swap_test"], "they give a network the faces of a population, which are on the CPU"),
    **dict.fromkeys(
        ["randomised", "sanity_checks", "untrained_maps"],
        "they set the statistics of BatchNorm, which PyTorch refuses on a device that is written in Python",
    ),
}
"""What is not tried elsewhere, and why."""


@cache
def here() -> Inputs:
    torch.manual_seed(0)
    return Inputs()


@cache
def there() -> Inputs:
    torch.manual_seed(0)
    given = Inputs()
    for each in fields(given):
        value = getattr(given, each.name)
        if isinstance(value, Tensor):
            setattr(given, each.name, ElsewhereTensor(value))
        elif isinstance(value, nn.Module):
            bring(value)
    bring(given.additive)
    return given


@pytest.mark.parametrize("name", sorted(set(PUBLIC) - set(HERE)))
def test_gives_the_same_elsewhere(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of networks that are not trained
        wanted = numbers(PUBLIC[name](here()))
        with Elsewhere():
            found = [tensor.cpu() for tensor in numbers(PUBLIC[name](there()))]
    assert same(found, wanted)


def test_two_devices_do_not_meet():
    """The device notices what a GPU would notice."""
    with Elsewhere(), pytest.raises(RuntimeError, match="on the same device"):
        ElsewhereTensor(torch.ones(2)) + torch.ones(2)
    with Elsewhere(), pytest.raises(RuntimeError, match="for generator but found 'cpu'"):
        torch.rand(2, device=DEVICE, generator=torch.Generator())
