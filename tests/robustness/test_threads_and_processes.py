"""Threads that explain with one model, and processes made by fork and by spawn: the maps are those of one after the other."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_leam import LEAM
from captum_leam._engine.fingerprint import entries
from captum_leam._engine.guards import force_eager
from captum_leam.models import UpTo
from captum_leam.suggest import suggest_layers
from tests.helpers.entry_points import CALLS, Scene, numbers, same
from tests.helpers.networks import Net

# -- threads -------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _quick_switches():
    """Threads take turns a thousand times as often as usual."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(before)


def at_once(calls: list[Callable[[], Any]]) -> list[Any]:
    """What calls return that begin together, each in a thread of its own."""
    begin = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        begin.wait(60)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result(120) for future in [pool.submit(run, call) for call in calls]]


@pytest.mark.parametrize("name", CALLS)
def test_two_threads_with_one_model_get_what_each_gets_alone(name):
    """Each on faces of its own, so that what one sees of the other would show."""
    net = Net()
    scenes = [Scene(net, faces=torch.rand(4, 3, 16, 16)) for _ in range(2)]
    expected = [numbers(CALLS[name](scene)) for scene in scenes]
    found = at_once([partial(CALLS[name], scene) for scene in scenes])
    for mine, right in zip(found, expected, strict=True):
        assert same(numbers(mine), right, 1e-5)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


class Growing:
    """Adds to a container whenever it is looked at, as another thread may."""

    def __init__(self, add: Callable[[], None]) -> None:
        object.__setattr__(self, "add", add)

    @property
    def __dict__(self) -> dict[str, Any]:
        object.__getattribute__(self, "add")()
        return {}


@pytest.mark.parametrize("place", ["dict", "set", "list", "hooks", "attributes"])
def test_a_model_that_another_thread_changes_meanwhile_can_be_looked_at(place):
    net = Net()
    names = iter(range(1000))
    container = {"dict": {}, "set": set(), "list": []}.get(place)
    add = {
        "dict": lambda: container.update({next(names): 0}),
        "set": lambda: container.add(next(names)),
        "list": lambda: container.append(next(names)),
        "hooks": lambda: net.register_forward_hook(lambda *_: None),
        "attributes": lambda: setattr(net, f"more{next(names)}", 0),
    }[place]
    growing = [Growing(add) for _ in range(2)]
    if place == "dict":
        container.update({"a": growing[0], "b": growing[1]})
    elif place == "set":
        container.update(growing)
    elif place == "list":
        container.extend(growing)
    elif place == "hooks":
        for one in growing:
            net._forward_hooks[id(one)] = one
    else:
        net.one, net.other = growing
    net.container = container
    before = next(names)
    assert entries(net)
    assert next(names) > before + 1 or len(net._forward_hooks) > 2  # it was changed meanwhile


class Waiting(nn.Module):
    """Keeps a thread in the middle of its forward pass until the other is there, too."""

    def __init__(self) -> None:
        super().__init__()
        self.barrier: threading.Barrier | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.barrier is not None:
            self.barrier.wait(60)
        return x


class Met(nn.Module):
    """Two convolutions between which threads meet."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.waiting = nn.Conv2d(3, 4, 3, 2, 1), Waiting()
        self.second, self.waiting_again = nn.Conv2d(4, 4, 3, 1, 1), Waiting()
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(4 * 64, 6))
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.waiting_again(self.second(self.waiting(self.first(x)))))

    def meet(self, threads: int) -> None:
        self.waiting.barrier, self.waiting_again.barrier = (threading.Barrier(threads) for _ in range(2))


MEETING: dict[str, Callable[[Met, Tensor], Any]] = {
    "LEAM": lambda net, x: LEAM(net, [net.first, net.second]).attribute(x),
    "what a layer takes in": lambda net, x: LEAM(net, net.second).attribute(x, attribute_to_layer_input=True),
    "UpTo": lambda net, x: UpTo(net, "second")(x).detach(),
    "suggest_layers": lambda net, x: suggest_layers(net, x).to_frame(),
}


@pytest.mark.parametrize("name", MEETING)
def test_threads_that_meet_within_a_pass_get_what_each_gets_alone(name):
    """The hooks of both are set while both run: not by chance, always."""
    net, images = Met(), [torch.rand(2, 3, 16, 16) for _ in range(2)]
    expected = [numbers(MEETING[name](net, x)) for x in images]
    net.meet(2)
    found = at_once([partial(MEETING[name], net, x) for x in images])
    assert all(same(numbers(mine), right, 1e-6) for mine, right in zip(found, expected, strict=True))


def test_flags_that_two_threads_switch_on_go_back_with_the_last():
    """A frozen tensor that a layer takes in needs gradients for the length of both passes."""

    class Frozen(Met):
        def __init__(self) -> None:
            super().__init__()
            self.position = nn.Parameter(torch.rand(1, 4, 8, 8).expand(2, -1, -1, -1).clone())
            self.add = nn.Identity()
            self.requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            met = self.waiting(self.first(x))
            position = self.add(self.position)
            return self.head(self.second(self.waiting_again(met * position + self.position)))

    net, images = Frozen(), [torch.rand(2, 3, 16, 16) for _ in range(2)]
    leam = LEAM(net, net.add)
    expected = [leam.attribute(x) for x in images]
    net.meet(2)
    for _ in range(20):
        found = at_once([partial(leam.attribute, x) for x in images])
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found, expected, strict=True))
        assert not net.position.requires_grad  # nor does a pass of before keep it switched on


def test_the_stance_of_the_compiler_is_put_back_by_the_last_thread():
    """One thread in, the next in, the first out, the second out: as it was."""
    from torch._dynamo import eval_frame

    before = eval_frame._stance
    entered, left = threading.Event(), threading.Event()

    def first() -> None:
        with force_eager():
            entered.set()
            assert left.wait(60)

    def second() -> str:
        assert entered.wait(60)
        with force_eager():
            left.set()
            one.join(60)
            return eval_frame._stance.stance

    one = threading.Thread(target=first)
    one.start()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(second).result(60) == "force_eager"
    assert eval_frame._stance is before


# -- processes -----------------------------------------------------------------------------------------

PROCESSES = """
import multiprocessing, sys
import torch
from captum_leam import LEAM, explain_faces
from tests.helpers.networks import Net

def made(seed):
    torch.manual_seed(0)
    net = Net()
    faces = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    return torch.cat([LEAM(net, net.body).attribute(faces, n_steps=2).flatten(), explain_faces(net, faces, "fast").flatten()]).tolist()

if __name__ == "__main__":
    expected = [made(seed) for seed in range(2)]  # torch has worked in this process before it is forked
    for kind in sys.argv[1:]:
        with multiprocessing.get_context(kind).Pool(2 if kind == "fork" else 1) as pool:
            assert pool.map_async(made, range(2)).get(100) == expected, kind
        print(kind, "the same")
"""


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_forked_and_spawned_processes_give_the_same(tmp_path):
    script = tmp_path / "processes.py"
    script.write_text(PROCESSES)
    path = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(  # noqa: S603
        [sys.executable, str(script), "fork", "spawn"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.stdout == "fork the same\nspawn the same\n", done.stderr
