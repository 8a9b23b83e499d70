"""Run every public call on a device without hardware, and print as JSON what went wrong.

    python -m tests.helpers.elsewhere

Numbers are held on the CPU; what is checked is what a GPU would check: that all tensors of an operation are on one device, that nothing
is read as NumPy without being brought over, that generators of the CPU draw on the CPU. A process of its own, since PyTorch cannot
unregister a device, and autograd starts a thread for each.
"""

import json
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map_only

from tests.helpers.entry_points import numbers, same
from tests.helpers.public_calls import PUBLIC, Inputs


class Module(backend_registration._DummyBackendModule):
    """What PyTorch asks of a device: it draws no random numbers."""

    def get_rng_state(self, device: Any = None) -> Tensor:
        return torch.empty(0)

    def set_rng_state(self, state: Tensor, device: Any = None) -> None:
        pass


backend_registration._setup_privateuseone_for_python_backend("elsewhere", Module())
DEVICE = torch.device("elsewhere", 0)
aten = torch.ops.aten

CROSSING = {aten._to_copy.default, aten.copy_.default}
"""Operations whose tensors may be on two devices."""

LOOKS = {aten._local_scalar_dense.default, aten.equal.default, aten.nonzero.default}
"""Operations after which the processor reads a value."""

copies_back: Counter[str] = Counter()
"""Operation → how often it brought something back to the CPU."""

INDEXING = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default}
"""Operations that take indices of the CPU anywhere."""


class ElsewhereTensor(Tensor):
    """A tensor on :data:`DEVICE`."""

    held: Tensor

    @staticmethod
    def __new__(cls, real: Tensor) -> Self:
        shape = torch.empty_strided(real.shape, real.stride(), dtype=real.dtype, device="meta")
        made = Tensor._make_subclass(cls, shape, False, dispatch_device=True, device_for_backend_keys=DEVICE)
        made.held = real
        return made

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"elsewhere({self.held})"

    def tolist(self) -> Any:
        copies_back["tolist"] += 1
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatch(function, args, kwargs or {})


class Elsewhere(TorchDispatchMode):
    """Makes tensors on :data:`DEVICE` where they are asked for."""

    def __enter__(self) -> Self:
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor makes them on the CPU first
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch._C._set_only_lift_cpu_tensors(False)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatch(function, args, kwargs or {})


def dispatch(function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    if function is torch.ops.prim.device.default:
        return DEVICE
    tensors = [t for t in tree_iter((args, kwargs)) if isinstance(t, Tensor)]
    elsewhere = [t for t in tensors if isinstance(t, ElsewhereTensor)]
    refuse_two_devices(function, args, tensors, elsewhere)
    target = kwargs.get("device")
    is_away = target is not None and torch.device(target).type != DEVICE.type
    is_into_the_cpu = function is aten.copy_.default and not isinstance(args[0], ElsewhereTensor)
    if elsewhere and (function in LOOKS or is_away or is_into_the_cpu):
        copies_back[str(function)] += 1
    there = bool(elsewhere) if target is None else torch.device(target).type == DEVICE.type
    if there and kwargs.get("generator") is not None:
        raise RuntimeError(f"Expected a '{DEVICE.type}' device type for generator but found 'cpu'")
    if target is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    real_args, real_kwargs = tree_map_only(ElsewhereTensor, lambda t: t.held, (args, dict(kwargs)))
    out = function(*real_args, **real_kwargs)
    if function._schema.is_mutable and isinstance(out, Tensor):
        return next((t for t in tensors if (t.held if isinstance(t, ElsewhereTensor) else t) is out), out)
    return tree_map_only(Tensor, ElsewhereTensor, out) if there else out


def refuse_two_devices(function: Any, args: Any, tensors: list[Tensor], elsewhere: list[ElsewhereTensor]) -> None:
    if function in CROSSING or not elsewhere:
        return
    if function in INDEXING:  # the indexed tensor and the values, not the indices
        tensors = [args[0], *(a for a in args[2:] if isinstance(a, Tensor))]
        elsewhere = [t for t in tensors if isinstance(t, ElsewhereTensor)]
    here = [t for t in tensors if not isinstance(t, ElsewhereTensor) and t.ndim]
    if here and elsewhere:
        raise RuntimeError(f"Expected all tensors to be on the same device, but found {DEVICE} and cpu in {function}")


def bring(module: nn.Module) -> nn.Module:
    """A module with its parameters and buffers elsewhere."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = nn.Parameter(ElsewhereTensor(parameter.detach()), parameter.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = ElsewhereTensor(buffer)
    return module


# -- the public calls ----------------------------------------------------------------------------------


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


def problem(name: str) -> str:
    """What went wrong; nothing where the numbers are the same."""
    expected = numbers(PUBLIC[name](here()))
    try:
        with Elsewhere():
            found = [tensor.cpu() for tensor in numbers(PUBLIC[name](there()))]
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "" if same(found, expected) else "other numbers"


def meets_the_cpu() -> bool:
    """Whether the device fails to notice what a GPU would notice."""
    for wrong in (
        lambda: ElsewhereTensor(torch.ones(2)) + torch.ones(2),
        lambda: torch.rand(2, device=DEVICE, generator=torch.Generator()),
    ):
        try:
            with Elsewhere():
                wrong()
        except RuntimeError:
            continue
        return True
    return False


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # of networks that are not trained
    print(json.dumps({"the device itself": str(meets_the_cpu() or ""), **{name: problem(name) for name in PUBLIC}}))
