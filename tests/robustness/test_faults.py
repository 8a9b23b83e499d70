"""An exception at any moment of any public call: nothing of the user's is changed, nothing is left behind, the next call is right.

The moments are the operations of PyTorch, whoever asks for them (a hook, the model, the backward pass, the package), the places where hooks
are set, and everything that is done to files.
"""

import gc
import os
import random
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import module as of_torch
from torch.utils._python_dispatch import TorchDispatchMode

from captum_leam._engine import checks, guards, recording
from tests.helpers.entry_points import CALLS, Scene, numbers, same

MOMENTS = 100 if os.environ.get("HYPOTHESIS_PROFILE") == "deep" else 5
"""How many moments of every call are tried."""

KINDS = (KeyboardInterrupt, RuntimeError, torch.OutOfMemoryError, ValueError, OSError)

# -- what must be as it was ----------------------------------------------------------------------------

OF_A_MODULE = [name for name in vars(nn.Linear(1, 1)) if name.endswith("_hooks") or name.endswith("_with_kwargs")]
OF_ALL_MODULES = [name for name in vars(of_torch) if name.startswith("_global_") and name.endswith("_hooks")]


def content(tensor: Tensor | None) -> Any:
    return None if tensor is None else (tensor.requires_grad, tensor.is_leaf, tensor.detach().numpy().tobytes())


def state(scene: Scene, folder: Path) -> dict[str, Any]:
    modules = scene.modules()
    parameters = [p for m in modules for p in m.parameters(recurse=False)]
    dynamo = sys.modules.get("torch._dynamo.eval_frame")
    pyplot = sys.modules.get("matplotlib.pyplot")
    return {
        "hooks": [len(getattr(m, name)) for m in modules for name in OF_A_MODULE],
        "global hooks": [len(getattr(of_torch, name)) for name in OF_ALL_MODULES],
        "modes": [m.training for m in modules],
        "parameters": [content(p) for p in parameters],
        "gradients": [content(p.grad) for p in parameters],
        "buffers": [content(b) for m in modules for b in m.buffers(recurse=False)],
        "inputs": [(content(t), content(t.grad)) for t in scene.tensors()],
        "random numbers": (torch.get_rng_state().numpy().tobytes(), repr(np.random.get_state()), random.getstate()),
        "gradient mode": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "settings": (torch.get_default_dtype(), torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()),
        "stance of the compiler": None if dynamo is None else dynamo._stance,
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "warnings": list(warnings.filters),
        "figures": [] if pyplot is None else pyplot.get_fignums(),
        "files": sorted(str(path) for path in folder.rglob("*")),
        "our own": (checks._DEFERRED.get(), dict(recording._LENT), guards._EAGER.threads),
    }


def changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return [name for name in before if before[name] != after[name]]


@pytest.fixture(scope="module", autouse=True)
def _quick_collections() -> Iterator[None]:
    """What is there already is not looked through at every collection of garbage."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Where temporary files would go."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


# -- faults --------------------------------------------------------------------------------------------


class Fault(TorchDispatchMode):
    """Counts the operations of PyTorch, of the backward pass, too, and raises at one of them."""

    def __init__(self, moment: int = 0, error: BaseException | None = None) -> None:
        super().__init__()
        self.moment, self.error, self.count = moment, error, 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        if self.count == self.moment:
            raise self.error
        return function(*args, **(kwargs or {}))


@contextmanager
def at_hooks(fault: Fault) -> Iterator[None]:
    """The same for every place where a hook is set."""
    places = [
        (nn.Module, "register_forward_hook"),
        (nn.Module, "register_forward_pre_hook"),
        (guards, "register_module_forward_pre_hook"),
    ]
    real = [getattr(owner, name) for owner, name in places]

    def counted(function: Any) -> Any:
        def register(*args: Any, **more: Any) -> Any:
            fault.count += 1
            if fault.count == fault.moment:
                raise fault.error
            return function(*args, **more)

        return register

    try:
        for (owner, name), function in zip(places, real, strict=True):
            setattr(owner, name, counted(function))
        yield
    finally:
        for (owner, name), function in zip(places, real, strict=True):
            setattr(owner, name, function)


def comes_from(error: BaseException | None, fault: BaseException) -> bool:
    """Whether an error is the fault, or was raised because of it."""
    while error is not None and error is not fault:
        error = error.__cause__ or error.__context__
    return error is fault


def disturbed(name: str, scene: Scene, error: BaseException, block: Any) -> list[Tensor] | None:
    """What a call returns in spite of a fault; None where it raised that."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that memory was short
            with block:
                return numbers(CALLS[name](scene))
    except BaseException as raised:
        if not comes_from(raised, error):
            raise
    return None


def moments(count: int, most: int) -> list[int]:
    """The first, the last, and some between."""
    if count <= most:
        return list(range(1, count + 1))
    return sorted({1, count, *random.Random(0).sample(range(2, count), most - 2)})  # noqa: S311


def check(name: str, scene: Scene, folder: Path, faulty: Any, most: int) -> int:
    """All that is asked of a call; how often it raised."""
    expected = numbers(CALLS[name](scene))
    counter = Fault()
    with faulty(counter):
        CALLS[name](scene)
    before, raised = state(scene, folder), 0
    for i, moment in enumerate(moments(counter.count, most)):
        error = KINDS[i % len(KINDS)](f"a fault at moment {moment}")
        found = disturbed(name, scene, error, faulty(Fault(moment, error)))
        raised += found is None
        assert found is None or same(found, expected, 1e-3), f"a fault at {moment} gave another result"
        assert not changed(before, state(scene, folder)), f"{type(error).__name__} at {moment} of {counter.count}"
        del error, found
    gc.collect()  # what the errors held may change something when it goes
    assert not changed(before, state(scene, folder)), "afterwards"
    assert same(numbers(CALLS[name](scene)), expected)
    return raised


@pytest.mark.parametrize("name", CALLS)
def test_a_fault_at_any_operation_leaves_everything_as_it_was(name, folder):
    assert check(name, Scene(), folder, lambda fault: fault, MOMENTS) > 0


HOOKED = [
    "LEAM",
    "LEAM, what a layer takes in",
    "LEAM, opaque",
    "LEAM, several layers",
    "explain_faces",
    "correspondences",
]
HOOKED += [
    "suggest_layers",
    "find_field",
    "UpTo",
    "layer_before_division",
    "explain_pair",
    "explain_images",
    "rank_layers",
]


@pytest.mark.parametrize("name", HOOKED)
def test_a_fault_where_a_hook_is_set_leaves_everything_as_it_was(name, folder):
    assert check(name, Scene(), folder, at_hooks, MOMENTS) > 0


def test_the_check_of_faults_finds_everything_that_is_left(folder):
    """A hook, a flag, a gradient, a number drawn, a file: each is found."""
    scene = Scene()
    before = state(scene, folder)
    handle = scene.net.body.register_forward_hook(lambda *given: None)
    scene.net.head[1].bias.requires_grad_(False)
    scene.faces.grad = torch.zeros_like(scene.faces)
    torch.rand(1)
    (folder / "left").touch()
    found = changed(before, state(scene, folder))
    assert found == ["hooks", "parameters", "inputs", "random numbers", "files"]
    handle.remove()
    assert changed(before, state(scene, folder)) == found[1:]
