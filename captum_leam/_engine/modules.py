"""The modules behind a forward function, and their names."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn


def modules_behind(forward_func: Callable[..., Any]) -> list[nn.Module]:
    """Return the visible root modules that a forward function runs.

    These are the function itself if it is a module, the owner of a bound method, and modules in a ``functools.partial`` or a closure.

    Args:
        forward_func: Module or callable.

    Example:
        >>> model = nn.Linear(2, 2)
        >>> modules_behind(lambda x: model(x))
        [Linear(in_features=2, out_features=2, bias=True)]
    """
    if isinstance(forward_func, nn.Module):
        return [forward_func]
    if isinstance(forward_func, partial):
        values = [forward_func.func, *forward_func.args, *forward_func.keywords.values()]
        return [module for value in values if callable(value) for module in modules_behind(value)]
    owner = getattr(forward_func, "__self__", None)
    if isinstance(owner, nn.Module):
        return [owner]
    if inspect.isfunction(forward_func):
        variables = inspect.getclosurevars(inspect.unwrap(forward_func))
        values = [*variables.nonlocals.values(), *variables.globals.values()]
        return list({id(value): value for value in values if isinstance(value, nn.Module)}.values())
    return []


def layer_name(layer: nn.Module, forward_func: Callable[..., Any]) -> str:
    """Return the name of a layer within the model, for messages, or its class if the model is not visible.

    Args:
        layer: The layer.
        forward_func: Module or callable that runs it.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
        >>> layer_name(model[1], model)
        "'1' (ReLU)"
    """
    for root in modules_behind(forward_func):
        for name, module in root.named_modules():
            if module is layer:
                return f"{name!r} ({type(layer).__name__})"
    return f"({type(layer).__name__})"
