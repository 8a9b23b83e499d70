"""State of a model, entry by entry: what changes when its modules, attributes, parameters, hooks or code do.

What was established about a model is trusted as long as its entries stay the same. They are identities and version counters, not the values
of tensors, and cost one to three milliseconds for a network of 150 modules. Objects that a model holds are looked into one level deep; what
it reads from files, the environment or another thread is not seen.
"""

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from types import FunctionType, MappingProxyType, MethodType, ModuleType
from typing import Any

from torch import Tensor, nn

from captum_leam.layers import modules_behind

SIMPLE = frozenset({bool, int, float, str, bytes, type(None)})


def anchor_of(forward_func: Callable[..., Any]) -> Any:
    """Return the object that what is known about a forward function is kept with: its first module, or the function itself.

    Example:
        >>> model = nn.ReLU()
        >>> anchor_of(lambda x: model(x)) is model, anchor_of(model.forward) is model
        (True, True)
    """
    return next(iter(modules_behind(forward_func)), forward_func)


def entries(forward_func: Callable[..., Any], layers: Sequence[nn.Module] = ()) -> dict[Any, Any]:
    """Return the present state of a forward function, the modules behind it and the given layers, entry by entry.

    Two results are equal as long as nothing has changed. Entries that a forward pass itself changes, such as a counter or a cached
    tensor, are found by comparing the results before and after one.

    Returns:
        (identity of the module, name of the attribute) → value, identity or version.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
        >>> before = entries(model)
        >>> before == entries(model), before == entries(model.train(False))
        (True, False)
    """
    seen: set[nn.Module] = set()
    classes: set[type] = set()
    found: dict[Any, Any] = {(0, "function"): state_of(forward_func)}
    for root in [*modules_behind(forward_func), *layers]:
        for path, module in root.named_modules(seen):
            classes.add(type(module))
            owner = id(module)
            found[owner, ""] = path
            for name, value in module.__dict__.items():
                if type(value) in SIMPLE:
                    found[owner, name] = value
                elif not (isinstance(value, dict | set) and not value):  # most of a module's dictionaries are empty
                    found[owner, name] = _value(value, 2)
    return found | {(id(kind), "class"): _class_state(kind) for kind in classes}


def state_of(function: Any) -> Any:
    """Return what the behaviour of a callable depends on, as far as it can be seen: code, closure, defaults and globals.

    Example:
        >>> make = lambda n: lambda x: x + n
        >>> state_of(make(1)) == state_of(make(1)), state_of(make(1)) == state_of(make(2))
        (True, False)
    """
    if isinstance(function, partial):
        return state_of(function.func), *map(_value, function.args), *map(_value, function.keywords.values())
    if isinstance(function, MethodType):
        return id(function.__self__), state_of(function.__func__)
    if not isinstance(function, FunctionType):
        return id(function), _value(function, 2)
    cells = (cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell))
    used = (function.__globals__.get(name) for name in function.__code__.co_names)
    return id(function.__code__), *map(_value, cells), *map(_value, function.__defaults__ or ()), *map(_value, used)


def _is_filled(cell: Any) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


def _class_state(kind: type) -> Any:
    """Methods and simple attributes of a class, which may be replaced; those of PyTorch's own classes only where they run."""
    forward = inspect.getattr_static(kind, "forward", None)
    if kind.__module__.startswith("torch."):
        return id(kind), id(forward)
    return id(kind), *((name, _value(value)) for name, value in vars(kind).items()), state_of(forward)


def _value(value: Any, depth: int = 1) -> Any:
    """A value itself where it is simple, else its identity, the version of a tensor, and what a container or object holds."""
    if type(value) in SIMPLE or (type(value) is tuple and SIMPLE.issuperset(map(type, value))):
        return value
    if isinstance(value, Tensor):
        return id(value), 0 if value.is_inference() else value._version
    if depth == 0 or isinstance(value, nn.Module | ModuleType | type | FunctionType):
        return id(value)
    if isinstance(value, dict | MappingProxyType):
        return id(value), *((id(key), _value(item, depth - 1)) for key, item in value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return id(value), *(_value(item, depth - 1) for item in value)
    return id(value), *((name, _value(item, depth - 1)) for name, item in getattr(value, "__dict__", {}).items())
