"""Layers whose tensors are used, changed or owned elsewhere: the map is right, or refused; nothing of the user's is changed.

Each test is a bug that once was.
"""

import gc

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_leam import LEAM
from captum_leam.explainers import FAME, FGGB, RISE, XSSAB, CorrRISE, PositionDecomposition, XFace

R = torch.linspace(-1, 1, 5)


class Base(nn.Module):
    """A stem, a convolution, a head of 5 numbers; what is done with them is given."""

    def __init__(self, forward: object, **parts: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.conv = nn.Conv2d(3, 4, 3, 1, 1), nn.Conv2d(4, 4, 3, 1, 1)
        self.pos = nn.Parameter(torch.rand(1, 4, 8, 8))
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(4 * 64, 5))
        for name, part in parts.items():
            setattr(self, name, part)
        self.function = forward
        self.eval()

    def forward(self, *xs: Tensor) -> Tensor:
        return self.function(self, *xs)


class HandOn(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


class FirstOfPair(nn.Module):
    def forward(self, pair: tuple[Tensor, Tensor]) -> Tensor:
        return pair[0]


class Front(nn.Module):
    """A view of what it takes in."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :4]


class Twice(nn.Module):
    """One tensor, put out twice."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = 2 * x
        return y, y


@pytest.fixture
def x() -> Tensor:
    return torch.rand(2, 3, 8, 8)


def _add_in_place(m: Base, x: Tensor) -> Tensor:
    x = m.stem(x)
    x += m.conv(x)
    return m.head(x)


def test_a_layers_input_that_is_changed_in_place_raises(x):
    """The gradient of ``x`` after ``x += conv(x)`` is not that of what the convolution took in."""
    net = Base(_add_in_place)
    with pytest.raises(ValueError, match="input of layer 'conv' .* changed in place later"):
        LEAM(net, net.conv).attribute(x, reference=R, attribute_to_layer_input=True)
    LEAM(net, net.conv).attribute(x, reference=R)  # its output is not changed


def test_a_view_whose_base_is_changed_in_place_raises(x):
    def forward(m: Base, x: Tensor) -> Tensor:
        x = m.stem(x)
        y = 1 * m.front(x)
        x.mul_(2)
        return m.head(x + y)

    net = Base(forward, front=Front())
    with pytest.raises(ValueError, match="output of layer 'front' .* changed in place later"):
        LEAM(net, net.front).attribute(x, reference=R)


def test_recording_that_would_change_what_the_model_computes_raises(x):
    """The layer overwrites a copy; ``x``, which the model uses beside its output, would not be overwritten."""

    def forward(m: Base, x: Tensor) -> Tensor:
        x = m.stem(x)
        y = m.act(x)
        return m.head(torch.tanh(x + 0.5 * y))

    net = Base(forward, act=nn.ReLU(inplace=True))
    with pytest.raises(ValueError, match="'act' .* changed in place and used elsewhere"):
        LEAM(net, net.act).attribute(x, reference=R, attribute_to_layer_input=True)
    LEAM(net, net.act).attribute(x, reference=R)
    chain = Base(lambda m, x: m.head(m.act(m.stem(x))), act=nn.ReLU(inplace=True))
    LEAM(chain, chain.act).attribute(x, reference=R, attribute_to_layer_input=True)  # nothing beside


def test_what_is_handed_on_and_changed_in_place_raises(x):
    def forward(m: Base, x: Tensor) -> Tensor:
        x = m.stem(x)
        y = m.on(x)
        y += 1
        return m.head(torch.tanh(x + 0.5 * y))

    net = Base(forward, on=HandOn())
    with pytest.raises(ValueError, match="'on' .* changed in place and used elsewhere"):
        LEAM(net, net.on).attribute(x, reference=R)


@pytest.mark.parametrize("layer_input", [True, False])
def test_a_users_tensor_keeps_its_flag(x, layer_input):
    net = Base(lambda m, x, extra: m.head(m.stem(x) + m.conv(m.on(extra))), on=HandOn()).requires_grad_(False)
    extra = torch.rand(2, 4, 8, 8)
    for options in ({}, {"n_steps": 2, "baselines": 0}):
        LEAM(net, net.on).attribute(
            x, reference=R, additional_forward_args=(extra,), attribute_to_layer_input=layer_input, **options
        )
        assert not extra.requires_grad
    with pytest.raises(ValueError, match="mean or sum over the batch"):  # and when anything raises
        LEAM(lambda *xs: net(*xs).sum(), net.on).attribute(x, additional_forward_args=(extra,))
    assert not extra.requires_grad


def test_a_frozen_parameter_stays_frozen(x):
    net = Base(lambda m, x: m.head(m.stem(x) * m.on(m.pos)), on=HandOn()).requires_grad_(False)
    LEAM(net, net.on, reshape=lambda a: a).attribute(x[:1], reference=R)
    assert not any(p.requires_grad for p in net.parameters())


def test_what_is_handed_on_by_keyword_or_from_a_tuple_is_differentiated_whole(x):
    """The tensor is used beside the layer, too: both uses count, however the layer is called."""

    def used_twice(m: Base, x: Tensor, y: Tensor) -> Tensor:
        return m.head(m.conv(y) + x * x)

    def positional(m: Base, x: Tensor) -> Tensor:
        x = m.stem(x)
        return used_twice(m, x, m.on(x))

    def keyword(m: Base, x: Tensor) -> Tensor:
        x = m.stem(x)
        return used_twice(m, x, m.on(x=x))

    def nested(m: Base, x: Tensor) -> Tensor:
        x = m.stem(x)
        return used_twice(m, x, m.on((x, 2 * x)))

    nets = [
        Base(positional, on=HandOn()),
        Base(keyword, on=HandOn()),
        Base(nested, on=FirstOfPair()),
    ]
    by_hand = nets[0].stem(x).detach().requires_grad_()
    f = used_twice(nets[0], by_hand, by_hand)
    (gradient,) = torch.autograd.grad(((f @ R) / R.norm() / f.norm(dim=1).detach()).sum(), by_hand)
    expected = (gradient * by_hand).sum(1, keepdim=True).detach()
    for net in nets:
        assert torch.allclose(LEAM(net, net.on).attribute(x, reference=R), expected, atol=1e-6)


def test_a_tensor_that_is_put_out_twice_has_a_map_for_either(x):
    def forward(m: Base, x: Tensor) -> Tensor:
        p, q = m.twice(m.stem(x))
        return m.head(m.conv(p) + q * q)

    net = Base(forward, twice=Twice())
    alone = LEAM(net, net.twice).attribute(x, reference=R)
    beside = LEAM(net, [net.stem, net.twice]).attribute(x, reference=R)[1]
    for p, q in zip(alone, beside, strict=True):
        assert torch.allclose(p, q, atol=1e-6)
    assert not torch.allclose(alone[0], alone[1], atol=1e-3)


def _hooks_a_gradient(m: Base, x: Tensor) -> Tensor:
    x = m.stem(x)
    x.register_hook(lambda gradient: None)
    return m.head(m.conv(x))


def _takes_a_gradient(m: Base, x: Tensor) -> Tensor:
    x = x if x.requires_grad else x.requires_grad_()
    (gradient,) = torch.autograd.grad(m.stem(x).sum(), x, create_graph=True)
    return m.head(m.conv(m.stem(x + gradient)))


@pytest.mark.parametrize("forward", [_hooks_a_gradient, _takes_a_gradient])
def test_models_that_need_gradients_before_the_layer_are_explained(x, forward):
    """Such models run wherever gradients are on, so they run here."""
    net = Base(forward)
    maps = LEAM(net, net.conv).attribute(x, reference=R)
    at = net.conv(net.stem(x) if forward is _hooks_a_gradient else _conv_input(net, x)).detach().requires_grad_()
    f = net.head(at)
    (gradient,) = torch.autograd.grad(((f @ R) / R.norm() / f.norm(dim=1).detach()).sum(), at)
    assert torch.allclose(maps, (gradient * at).sum(1, keepdim=True), atol=1e-6)


def _conv_input(net: Base, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(net.stem(x).sum(), x)
    return net.stem(x + gradient)


METHODS = {
    "xSSAB": XSSAB,
    "FGGB": FGGB,
    "FAME": FAME,
    "CorrRISE": lambda model: CorrRISE(model, masks=3),
    "RISE": lambda model: RISE(model, masks=3),
    "xFace": XFace,
    "positions": lambda model: PositionDecomposition(model, model.part),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_model_that_raises_leaves_the_gradient_mode(x, name):
    """Even when the error, and with it every frame that it passed, is kept and thrown away later."""

    class Raises(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("in the middle")

    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            with pytest.raises(RuntimeError, match="in the middle") as kept:
                METHODS[name](Raises().eval()).attribute(x, reference=R)
            assert not torch.is_grad_enabled()
        assert torch.is_grad_enabled()
        del kept
        gc.collect()
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize(
    "change", [lambda y: y.mul_(2), lambda y: F.relu_(y.view(-1)).view_as(y), lambda y: y[:, :2].add_(1) + y[:, 2:]]
)
def test_an_output_that_is_changed_in_place_afterwards_has_the_map_of_a_copy(change, x):
    """The model goes on with the layer's own output, unless something changes it: the pass is then made again with copies."""

    def head(m: Base, y: Tensor) -> Tensor:
        y = change(y)
        return m.head(torch.cat([y] * (4 // y.shape[1]), 1))

    alone = Base(lambda m, x: head(m, m.stem(x)))
    copied = Base(lambda m, x: head(m, m.stem(x).clone()))
    for steps in (1, 3):
        maps = LEAM(alone, alone.stem).attribute(x, reference=R, n_steps=steps)
        assert torch.equal(maps, LEAM(copied, copied.stem).attribute(x, reference=R, n_steps=steps))
