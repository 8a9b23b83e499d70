"""State of a model as entries that change with its modules, attributes, parameters, hooks or code.

Findings about a model are valid as long as its entries do not change. Entries are identities, version counters, code and small values, not
the values of large tensors, and take one to three milliseconds for a network of 150 modules. They include the functions that functions use
and the contents of modules, lists and objects to a depth of two levels. They do not include data that a model reads from files, the
environment or other threads.
"""

import inspect
import random
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from types import CodeType, FunctionType, MappingProxyType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from captum_leam._engine.modules import modules_behind

SIMPLE = frozenset({bool, int, float, str, bytes, type(None), torch.dtype, torch.device})

COLLECTIONS = frozenset({dict, OrderedDict, set})


MAX_VALUES = 16
"""Number of values up to which a tensor on the CPU or an array is compared by value, because flags and sizes may change in place."""

MAX_CALLS = 4
"""Depth to which functions that a forward function uses are followed."""


def anchor_of(forward_func: Callable[..., Any]) -> Any:
    """Return the object that findings about a forward function are stored with: its first module, or else the function itself.

    Args:
        forward_func: Module or callable.

    Example:
        >>> model = nn.ReLU()
        >>> anchor_of(lambda x: model(x)) is model, anchor_of(model.forward) is model
        (True, True)
    """
    visible = modules_behind(forward_func)
    if visible:
        return visible[0]
    walk = _Walk()
    walk.function(forward_func)
    return next(iter(walk.take_modules()), forward_func)


def entries(
    forward_func: Callable[..., Any], layers: Sequence[nn.Module] = (), walk: "_Walk | None" = None
) -> dict[Any, dict[str, Any]]:
    """Return the present state of a forward function, the modules behind it and other layers.

    Two results are equal if nothing has changed. Entries that a forward pass changes, such as a counter or a cached tensor, are found by a
    comparison of the results before and after it.

    Args:
        forward_func: Module or callable.
        layers: Modules that may not be visible behind the function. Default: none.
        walk: Walk to use, which collects the generators of random numbers. Default: a new one.

    Returns:
        Values, identities or versions by the identity of the module and the name of the attribute.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
        >>> before = entries(model)
        >>> before == entries(model), before == entries(model.train(False))
        (True, False)
    """
    walk = walk or _Walk()
    found: dict[Any, dict[str, Any]] = {
        0: {"function": walk.function(forward_func), "hooks": walk.global_hooks()},
    }
    waiting = [*modules_behind(forward_func), *walk.take_modules(), *layers]
    while waiting:
        module = waiting.pop()
        if id(module) not in found:
            found[id(module)] = _attributes(walk, module)
            waiting += (child for child in module._modules.values() if child is not None)
            waiting += walk.take_modules()
    return found


def generators_of(forward_func: Callable[..., Any]) -> list[Any]:
    """Return the generators of random numbers of PyTorch, NumPy and Python in a forward function and its modules.

    Args:
        forward_func: Module or callable.

    Example:
        >>> model = nn.ReLU()
        >>> model.generator = torch.Generator()
        >>> generators_of(model) == [model.generator]
        True
    """
    walk = _Walk()
    entries(forward_func, walk=walk)
    return walk.generators


def changes(before: dict[Any, dict[str, Any]], after: dict[Any, dict[str, Any]]) -> set[tuple[Any, str]]:
    """Return the entries in which two results of :func:`entries` differ.

    Args:
        before: First result.
        after: Second result.

    Example:
        >>> model = nn.ReLU()
        >>> before = entries(model)
        >>> changes(before, entries(model.eval())) == {(id(model), "training")}
        True
    """
    found = set()
    for owner in before.keys() | after.keys():
        one, other = before.get(owner, {}), after.get(owner, {})
        if one != other:
            found |= {(owner, name) for name in one.keys() | other.keys() if one.get(name) != other.get(name)}
    return found


def _attributes(walk: "_Walk", module: nn.Module) -> dict[str, Any]:
    """Return the state of one module; fast, because every call visits every module, whose dictionaries are mostly empty."""
    found: dict[str, Any] = {"class": walk.kind(type(module))}
    for name, value in tuple(module.__dict__.items()):
        kind = type(value)
        if kind in SIMPLE:
            found[name] = value
        elif kind in COLLECTIONS and not value:
            continue
        elif name == "_modules":
            found[name] = [(key, id(child)) for key, child in tuple(value.items())]
        elif name == "_parameters":
            found[name] = [None if p is None else _tensor_state(p) for p in tuple(value.values())]
        else:
            found[name] = walk.value(value, 2)
    return found


def state_of(function: Any) -> Any:
    """Return the visible state that the behaviour of a callable depends on: code, closure, defaults and globals.

    Args:
        function: Callable.

    Example:
        >>> make = lambda n: lambda x: x + n
        >>> state_of(make(1)) == state_of(make(1)), state_of(make(1)) == state_of(make(2))
        (True, False)
    """
    return _Walk().function(function)


class _Walk:
    """Walk through a model that visits every function and class once and collects modules hidden in objects and closures.

    Containers are copied before their content is visited, because other threads may change them meanwhile.
    """

    def __init__(self) -> None:
        self._functions: set[FunctionType] = set()
        self._bound: set[tuple[int, Any]] = set()
        self._kinds: dict[type, Any] = {}
        self._modules: list[nn.Module] = []
        self.generators: list[Any] = []

    def take_modules(self) -> list[nn.Module]:
        """Return the modules found since the last call."""
        found, self._modules = self._modules, []
        return found

    def function(self, function: Any, calls: int = MAX_CALLS) -> Any:
        """Return the state of a callable."""
        if isinstance(function, partial):
            values = [*function.args, *function.keywords.items()]
            return self.function(function.func), *map(self.captured, values)
        if isinstance(function, MethodType):
            owner, method = function.__self__, self.function(function.__func__, calls)
            if (id(owner), function.__func__) in self._bound:  # an object may hold its own methods
                return id(owner), method
            self._bound.add((id(owner), function.__func__))
            return self.value(owner, 2), method
        if not isinstance(function, FunctionType):
            return self.kind(type(function)), self.value(function, 2)
        code = function.__code__  # the object itself, because the identity of freed code may be reused
        if not calls or function in self._functions or _is_from_torch(function):
            return code
        self._functions.add(function)
        cells = (cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell))
        defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).items()]
        return code, *map(self.captured, cells), *map(self.captured, defaults), *self._used(function, calls - 1)

    def _used(self, function: FunctionType, calls: int) -> Iterable[Any]:
        """Return the states of the globals that a function uses, and of functions of other modules, which may be replaced."""
        names = _used_names(function.__code__)
        for name in names:
            value = function.__globals__.get(name)
            if isinstance(value, ModuleType):
                yield id(value), *(_identity(value.__dict__[other]) for other in names if other in value.__dict__)
            else:
                yield self.function(value, calls) if isinstance(value, FunctionType) else self.value(value, 1)

    def kind(self, kind: type) -> Any:
        """Return the state of a class: its methods and attributes; for classes of PyTorch, ``forward`` and the functions it uses."""
        if kind not in self._kinds:
            self._kinds[kind] = kind  # a method may lead back here
            own = [base for base in kind.__mro__ if not _is_from_torch(base) and base.__module__ != "builtins"]
            values = [(name, value) for base in own for name, value in tuple(vars(base).items())]
            forward = inspect.getattr_static(kind, "forward", None)
            used = self._used(forward, 0) if isinstance(forward, FunctionType) else ()
            self._kinds[kind] = kind, _identity(forward), *used, *((n, self.value(v)) for n, v in values)
        return self._kinds[kind]

    def captured(self, value: Any) -> Any:
        """Return the state of a value in a closure; for large tensors such as references, only shape, dtype and device."""
        if isinstance(value, Tensor) and value.numel() > MAX_VALUES and value.is_floating_point():
            return value.shape, value.dtype, value.device
        return self.value(value)

    def value(self, value: Any, depth: int = 1) -> Any:  # noqa: PLR0911 (one return for every kind of value)
        """Return a simple value itself, else its visible state: code, version of a tensor, content of a container or object."""
        if type(value) in SIMPLE or (type(value) is tuple and SIMPLE.issuperset(map(type, value))):
            return value
        if isinstance(value, nn.Module):
            self._modules.append(value)
            return id(value)
        if isinstance(value, Tensor | np.ndarray):
            return _tensor_state(value)
        if isinstance(value, _generators()):
            self.generators.append(value)
            return id(value)
        if isinstance(value, FunctionType | MethodType | staticmethod | classmethod | partial):
            return self.function(
                getattr(value, "__wrapped__", value) if isinstance(value, staticmethod | classmethod) else value
            )
        if depth == 0 or isinstance(value, ModuleType | type):
            return id(value)
        if isinstance(value, dict | MappingProxyType):
            return tuple((self.value(key, 0), self.value(item, depth - 1)) for key, item in tuple(value.items()))
        if isinstance(value, list | tuple | set | frozenset):
            return type(value), *(self.value(item, depth - 1) for item in tuple(value))
        attributes = getattr(value, "__dict__", None)
        # Objects of threading, such as a barrier that counts waiting threads, are not state of the model.
        if attributes is None or type(value).__module__ == "threading":
            return id(value)
        return type(value), *((name, self.value(item, depth - 1)) for name, item in tuple(attributes.items()))

    def global_hooks(self) -> Any:
        """Return the state of the global hooks, except for the package's own, which are removed after each pass."""
        names = ("_global_forward_pre_hooks", "_global_forward_hooks", "_global_backward_hooks")
        hooks = (hook for name in names for hook in tuple(getattr(torch_module, name, {}).values()))
        return tuple(
            self.value(hook) for hook in hooks if not str(getattr(hook, "__module__", "")).startswith("captum_leam.")
        )


@cache
def _generators() -> tuple[type, ...]:
    """Return the types of random number generators; numpy.random is imported on first use."""
    return torch.Generator, np.random.Generator, np.random.RandomState, random.Random


@cache
def _used_names(code: CodeType) -> tuple[str, ...]:
    """Return the names of globals and attributes that a function uses, including its inner functions and comprehensions."""
    inner = [name for constant in code.co_consts if isinstance(constant, CodeType) for name in _used_names(constant)]
    return tuple(dict.fromkeys([*code.co_names, *inner]))


def _is_from_torch(value: Any) -> bool:
    return (getattr(value, "__module__", None) or "").partition(".")[0] == "torch"


def _identity(value: Any) -> Any:
    return value.__code__ if isinstance(value, FunctionType) else id(value)


def _tensor_state(value: Any) -> Any:
    """Return identity and version of a tensor or array, or its values if they are few and on the CPU."""
    if isinstance(value, np.ndarray):
        return id(value), value.tobytes() if value.size <= MAX_VALUES else None
    version = 0 if value.is_inference() else value._version
    has_few = value.numel() <= MAX_VALUES and value.device.type == "cpu" and not value.is_quantized
    if not has_few or type(value) not in (Tensor, nn.Parameter) or value.layout is not torch.strided:
        return id(value), version
    return repr(value.tolist()), value.dtype


def _is_filled(cell: Any) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True
