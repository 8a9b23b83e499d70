"""The modules behind a forward function, and their names."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn


def modules_behind(forward_func: Callable[..., Any]) -> list[nn.Module]:
    """Return the root modules that a forward function runs, as far as they can be seen.

    These are the function itself if it is a module, the owner of a bound method, and modules in a ``functools.partial`` or a closure.

    Example:
        >>> model = nn.Linear(2, 2)
        >>> modules_behind(lambda x: model(x))
        [Linear(in_features=2, out_features=2, bias=True)]
    """
    if isinstance(forward_func, nn.Module):
        return [forward_func]
    if isinstance(forward_func, partial):
        held = [forward_func.func, *forward_func.args, *forward_func.keywords.values()]
        return [m for h in held if callable(h) for m in modules_behind(h)]
    owner = getattr(forward_func, "__self__", None)
    if isinstance(owner, nn.Module):
        return [owner]
    if inspect.isfunction(forward_func):
        seen = inspect.getclosurevars(inspect.unwrap(forward_func))
        held = [*seen.nonlocals.values(), *seen.globals.values()]
        return list({id(h): h for h in held if isinstance(h, nn.Module)}.values())
    return []


def layer_name(layer: nn.Module, forward_func: Callable[..., Any]) -> str:
    """Return the name of a layer within the model, for messages; its class where the model cannot be seen.

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
