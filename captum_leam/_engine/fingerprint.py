"""State of a model, entry by entry: what changes when its modules, attributes, parameters, hooks or code do.

What was established about a model is trusted as long as its entries stay the same. They are identities, version counters, code and small
values, not the values of large tensors, and cost one to three milliseconds for a network of 150 modules. Functions are followed into the
functions that they use, and modules into what they hold, also in lists and objects; what a model reads from files, the environment or
another thread is not seen, nor what lies deeper than two levels in objects.
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
"""Numbers up to which a tensor on the CPU or an array is compared by value: flags, orders and sizes, which may change in place."""

MAX_CALLS = 4
"""Functions in a row that are followed from a forward function into those that it uses."""


def anchor_of(forward_func: Callable[..., Any]) -> Any:
    """Return the object that what is known about a forward function is kept with: its first module, or the function itself without one.

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
    """Return the present state of a forward function, the modules behind it and the given layers, entry by entry.

    Two results are equal as long as nothing has changed. Entries that a forward pass itself changes, such as a counter or a cached
    tensor, are found by comparing the results before and after one.

    Args:
        forward_func: Module or callable.
        layers: Modules that may lie outside of those behind the function. Default: none.
        walk: Walk to take, which then knows the generators of random numbers. Default: a new one.

    Returns:
        Identity of the module → name of the attribute → value, identity or version.

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
    """Return the generators of random numbers that a forward function and its modules hold, of PyTorch, NumPy and Python.

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
    """State of one module. Most of its dictionaries are empty, and every call walks through every module: this is kept short."""
    found: dict[str, Any] = {"class": walk.kind(type(module))}
    for name, value in module.__dict__.items():
        kind = type(value)
        if kind in SIMPLE:
            found[name] = value
        elif kind in COLLECTIONS and not value:
            continue
        elif name == "_modules":
            found[name] = [(key, id(child)) for key, child in value.items()]
        elif name == "_parameters":
            found[name] = [None if p is None else _numbers(p) for p in value.values()]
        else:
            found[name] = walk.value(value, 2)
    return found


def state_of(function: Any) -> Any:
    """Return what the behaviour of a callable depends on, as far as it can be seen: code, closure, defaults and globals.

    Example:
        >>> make = lambda n: lambda x: x + n
        >>> state_of(make(1)) == state_of(make(1)), state_of(make(1)) == state_of(make(2))
        (True, False)
    """
    return _Walk().function(function)


class _Walk:
    """One walk through a model: every function and class once, and the modules that lie hidden in objects and closures."""

    def __init__(self) -> None:
        self._functions: set[FunctionType] = set()
        self._bound: set[tuple[int, Any]] = set()
        self._kinds: dict[type, Any] = {}
        self._modules: list[nn.Module] = []
        self.generators: list[Any] = []

    def take_modules(self) -> list[nn.Module]:
        """Return the modules met since the last call."""
        met, self._modules = self._modules, []
        return met

    def function(self, function: Any, calls: int = MAX_CALLS) -> Any:
        """State of a callable."""
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
        code = function.__code__  # held, not its identity: that of a freed one may come back for another
        if not calls or function in self._functions or _is_torchs(function):
            return code
        self._functions.add(function)
        cells = (cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell))
        defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).items()]
        return code, *map(self.captured, cells), *map(self.captured, defaults), *self._used(function, calls - 1)

    def _used(self, function: FunctionType, calls: int) -> Iterable[Any]:
        """State of the globals that a function uses, and of the functions of other modules, which may be replaced there."""
        names = _names(function.__code__)
        for name in names:
            value = function.__globals__.get(name)
            if isinstance(value, ModuleType):
                yield id(value), *(_identity(value.__dict__[other]) for other in names if other in value.__dict__)
            else:
                yield self.function(value, calls) if isinstance(value, FunctionType) else self.value(value, 1)

    def kind(self, kind: type) -> Any:
        """Methods and attributes of a class, which may be replaced; of PyTorch's own classes ``forward`` and the functions it uses."""
        if kind not in self._kinds:
            self._kinds[kind] = kind  # a method may lead back here
            own = [base for base in kind.__mro__ if not _is_torchs(base) and base.__module__ != "builtins"]
            values = [(name, value) for base in own for name, value in vars(base).items()]
            forward = inspect.getattr_static(kind, "forward", None)
            used = self._used(forward, 0) if isinstance(forward, FunctionType) else ()
            self._kinds[kind] = kind, _identity(forward), *used, *((n, self.value(v)) for n, v in values)
        return self._kinds[kind]

    def captured(self, value: Any) -> Any:
        """State of what a closure holds; of a large tensor of numbers, as a reference is, only what it is like."""
        if isinstance(value, Tensor) and value.numel() > MAX_VALUES and value.is_floating_point():
            return value.shape, value.dtype, value.device
        return self.value(value)

    def value(self, value: Any, depth: int = 1) -> Any:  # noqa: PLR0911 (one return for every kind of value)
        """Return a value itself where it is simple, else its visible state: code, version of a tensor, content of a container or object."""
        if type(value) in SIMPLE or (type(value) is tuple and SIMPLE.issuperset(map(type, value))):
            return value
        if isinstance(value, nn.Module):
            self._modules.append(value)
            return id(value)
        if isinstance(value, Tensor | np.ndarray):
            return _numbers(value)
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
            return tuple((self.value(key, 0), self.value(item, depth - 1)) for key, item in value.items())
        if isinstance(value, list | tuple | set | frozenset):
            return type(value), *(self.value(item, depth - 1) for item in value)
        attributes = getattr(value, "__dict__", None)
        # A barrier counts who waits: that is no state of the model.
        if attributes is None or type(value).__module__ == "threading":
            return id(value)
        return type(value), *((name, self.value(item, depth - 1)) for name, item in attributes.items())

    def global_hooks(self) -> Any:
        """State of the hooks of all modules, but for the package's own, which live for one pass."""
        names = ("_global_forward_pre_hooks", "_global_forward_hooks", "_global_backward_hooks")
        hooks = (hook for name in names for hook in getattr(torch_module, name, {}).values())
        return tuple(
            self.value(hook) for hook in hooks if not str(getattr(hook, "__module__", "")).startswith("captum_leam.")
        )


@cache
def _generators() -> tuple[type, ...]:
    """Types of random number generators; numpy.random is imported on first use."""
    return torch.Generator, np.random.Generator, np.random.RandomState, random.Random


@cache
def _names(code: CodeType) -> tuple[str, ...]:
    """Names of globals and attributes that a function uses, also in the functions and comprehensions within it."""
    inner = [name for constant in code.co_consts if isinstance(constant, CodeType) for name in _names(constant)]
    return tuple(dict.fromkeys([*code.co_names, *inner]))


def _is_torchs(thing: Any) -> bool:
    return (getattr(thing, "__module__", None) or "").partition(".")[0] == "torch"


def _identity(value: Any) -> Any:
    return value.__code__ if isinstance(value, FunctionType) else id(value)


def _numbers(value: Any) -> Any:
    """Identity and version of a tensor or array, with its values where they are few and at hand."""
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
