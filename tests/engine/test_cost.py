"""What a call computes, keeps and waits for: no more than its layers need."""

import gc
from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from captum_leam import LEAM, EmbeddingSimilarity
from captum_leam._engine.checks import call_if_any, deferred_checks, raise_if_any
from tests.helpers.networks import Net, Residual


class Deep(nn.Module):
    """Four convolutions of 8 channels; positions stay as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*[nn.Sequential(nn.Conv2d(c, 8, 3, 1, 1), nn.ReLU()) for c in (3, 8, 8, 8)])
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(8 * 256, 10))
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(x))


def operations(run: Callable[[], object]) -> Counter[str]:
    run()  # the first call probes the model
    with profile(activities=[ProfilerActivity.CPU]) as trace:
        run()
    return Counter({event.key: event.count for event in trace.key_averages()})


def kept(run: Callable[[], object]) -> list[Tensor]:
    run()
    tensors = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (tensors.append(t), t)[1], lambda t: t):
        run()
    return tensors


# -- only what lies behind the layer -------------------------------------------------------------------


@pytest.mark.parametrize("frozen", [False, True])
def test_the_backward_pass_ends_at_the_earliest_layer(faces, frozen):
    net = Deep().requires_grad_(not frozen)
    for layers, behind in (([0, 3], 3), ([3, 1], 2), ([2], 1), ([3], 0)):
        leam = LEAM(net, [net.blocks[i] for i in layers])
        assert operations(lambda leam=leam: leam.attribute(faces))["aten::convolution_backward"] == behind
    assert all(p.grad is None for p in net.parameters())


def test_nothing_before_the_layer_is_kept(faces):
    net = Deep()
    # what is kept behind the last block: the head's product, and the score's
    sizes = {
        i: sum(t.shape[1:] == (8, 16, 16) for t in kept(lambda i=i: LEAM(net, net.blocks[i]).attribute(faces)))
        for i in range(4)
    }
    # a convolution keeps what it takes in, a ReLU what it puts out
    assert sizes == {3: 0, 2: 2, 1: 4, 0: 6}
    assert sum(t.shape[1:] == (8, 16, 16) for t in kept(lambda: net(faces))) == 7


@pytest.mark.parametrize("n_steps", [1, 3])
def test_a_map_takes_one_forward_pass_and_a_path_two_more_than_steps(faces, n_steps):
    net, runs = Deep(), []
    net.head.register_forward_hook(lambda *_: runs.append(1))
    for _ in range(2):  # the first call probes the model
        runs.clear()
        LEAM(net, net.blocks[2]).attribute(faces, n_steps=n_steps)
    assert len(runs) == (1 if n_steps == 1 else n_steps + 2)


@pytest.mark.parametrize("n_steps", [1, 3])
def test_no_tensor_outlives_a_call(faces, n_steps):
    """Without waiting for the collection of reference cycles, which would keep the memory of several calls."""
    net = Deep()
    leam = LEAM(net, net.blocks[1])
    leam.attribute(faces, n_steps=n_steps)
    gc.collect()
    gc.disable()
    try:
        before = sum(isinstance(thing, Tensor) for thing in gc.get_objects())
        leam.attribute(faces, n_steps=n_steps)
        assert sum(isinstance(thing, Tensor) for thing in gc.get_objects()) == before
    finally:
        gc.enable()


# -- models that the saving does not fit ---------------------------------------------------------------


class SetsTheMode(Net):
    """Switches gradients on around the layer, and puts back what was before."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = self.body(x)
        return self.head(x)


class HandsOn(nn.Module):
    """Returns what it took in; not seen from outside."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class Early(nn.Module):
    """A branch that has run before the layer uses what the layer hands on."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.same = nn.Conv2d(3, 6, 3, 2, 1), HandsOn()
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        early = y.sin()
        return (early + self.same(y).tanh()).flatten(1)


def test_a_model_that_sets_the_gradient_mode_has_the_same_map(faces):
    net = SetsTheMode()
    expected = LEAM(lambda x: net.head(net.body(x)), net.body).attribute(faces)
    assert torch.allclose(LEAM(net, net.body).attribute(faces), expected, atol=1e-6)
    assert torch.allclose(
        LEAM(net, [net.body, net.body.first]).attribute(faces, n_steps=2)[0],
        LEAM(lambda x: net.head(net.body(x)), net.body).attribute(faces, n_steps=2),
        atol=1e-6,
    )
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("frozen", [False, True])
def test_a_layer_whose_input_is_used_beside_it_is_differentiated_whole(faces, frozen):
    net, r = Early().requires_grad_(not frozen), torch.randn(6 * 64)
    y = net.stem(faces).detach().requires_grad_()
    f = (y.sin() + y.tanh()).flatten(1)
    (g,) = torch.autograd.grad((f @ r / r.norm() / f.norm(dim=1).detach()).sum(), y)
    expected = (g * y).sum(1, keepdim=True).detach()
    assert torch.allclose(LEAM(net, net.same).attribute(faces, reference=r), expected, atol=1e-6)
    listed = LEAM(net, [net.stem, net.same]).attribute(faces, reference=r)
    assert torch.allclose(listed[1], expected, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"n_steps": 2}, {"n_steps": 2, "path": "conductance"}])
@pytest.mark.parametrize("layer", ["block", "out"])  # the latter is an activation in place, which hands on
def test_models_that_change_their_input_in_place_leave_the_callers_alone(faces, layer, options):
    class Doubling(Residual):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.mul_(2))

    net, before = Doubling(), faces.clone()
    chosen, delta = net.get_submodule(layer), {"return_convergence_delta": "path" in options}
    found = LEAM(net, chosen).attribute(faces, **options, **delta)
    assert torch.equal(faces, before)
    assert not faces.requires_grad
    expected = LEAM(lambda x: net(1 * x), chosen).attribute(faces, **options, **delta)
    torch.testing.assert_close(found, expected)


# -- one look at the device ----------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"n_steps": 3}, {"n_steps": 3, "path": "conductance"}])
@pytest.mark.parametrize("norm", ["detach", "differentiate", "fixed"])
def test_a_call_synchronises_once_for_all_checks(faces, options, norm):
    net, r = Net(), torch.randn(3, 10)
    leam = LEAM(net, [net.body, net.body.first, net.body.act], norm=norm)
    count = operations(lambda: leam.attribute(faces, reference=r, contrast=-r.flip(1), **options))
    # what .item(), bool(tensor) and nonzero() are: on a GPU each of them waits
    assert count["aten::_local_scalar_dense"] == 1
    assert count["aten::nonzero"] == 0


def test_a_network_that_crops_is_synchronised_once(faces):
    net = Net()
    leam = LEAM(lambda x: net(x[..., :16]), [net.body, net.body.first])
    wide = torch.cat(
        [faces, faces], 3
    )  # no layer has the proportions of the image: only its values tell where its channels are
    for n_steps in (1, 2):
        count = operations(lambda n_steps=n_steps: leam.attribute(wide, reference=torch.ones(10), n_steps=n_steps))
        assert count["aten::_local_scalar_dense"] == 1


def test_scores_are_synchronised_once(faces):
    net = Net()
    leam = LEAM(EmbeddingSimilarity(net, torch.randn(10)), net.body)
    assert operations(lambda: leam.attribute(faces))["aten::_local_scalar_dense"] == 1


def test_the_first_check_that_fails_is_raised():
    bad, said = torch.tensor([False, True]), []

    def checked() -> None:
        with deferred_checks():
            raise_if_any(~bad[1:], lambda rows: "none")
            with deferred_checks():
                call_if_any(bad, said.append)
                raise_if_any(bad, lambda rows: f"first {rows}")
            assert not said, "an inner block leaves its checks to the outer"
            raise_if_any(bad, lambda rows: "second")

    with pytest.raises(ValueError, match=r"first \[1\]"):
        checked()
    assert said == [[1]]


@pytest.mark.parametrize("bad", [False, True])
def test_a_bad_value_is_raised_before_the_error_it_causes(bad):
    def broken() -> None:
        with deferred_checks():
            raise_if_any(torch.tensor([bad]), lambda rows: "NaN")
            raise RuntimeError("what came of it")

    with pytest.raises(ValueError if bad else RuntimeError, match="NaN" if bad else "what came") as error:
        broken()
    assert not bad or isinstance(error.value.__context__, RuntimeError)
