"""Hypothesis over shapes, precisions, batch sizes, memory formats, frozen parameters and in-place activations."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from captum_leam import LEAM
from tests.helpers.profiles import EXAMPLES

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 0.15}

REFUSED = ("zero gradient", "channels last", "are zero", "got only zeros")  # rightly, for some of the networks drawn


@st.composite
def networks(draw: st.DrawFn) -> tuple[nn.Module, list[str], tuple[int, int]]:
    """A random convolutional network, its spatial layers, and the size of its images."""
    size = (draw(st.integers(6, 20)), draw(st.integers(6, 20)))
    inplace, depth, channels = draw(st.booleans()), draw(st.integers(1, 3)), 3
    body: list[nn.Module] = []
    for _ in range(depth):
        width = draw(st.integers(1, 5))
        stride = draw(st.sampled_from([1, 2]))
        act = draw(
            st.sampled_from(
                [nn.ReLU(inplace), nn.ReLU6(inplace), nn.LeakyReLU(0.1, inplace), nn.Softplus(), nn.PReLU()]
            )
        )
        norm = draw(st.sampled_from([nn.BatchNorm2d(width), nn.GroupNorm(1, width), nn.Identity()]))
        body += [nn.Conv2d(channels, width, 3, stride, 1), norm, act]
        channels = width
    head = [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * channels, draw(st.integers(2, 9)))]
    model = nn.Sequential(*body, *head)
    torch.manual_seed(draw(st.integers(0, 2**31)))
    for p in model.parameters():
        p.data.normal_(0.1, 0.7)
    return model.eval(), [str(i) for i in range(len(body))], size


def oracle(model: nn.Sequential, at: int, x: Tensor, r: Tensor) -> Tensor:
    """No hooks: the network cut in two by hand."""
    acts = model[: at + 1](x).detach().clone().requires_grad_()
    f = model[at + 1 :](acts.clone())
    score = (f * (r / r.norm(dim=-1, keepdim=True))).sum(1) / f.norm(dim=1).detach()
    (gradient,) = torch.autograd.grad(score.sum(), acts)
    return (gradient * acts).sum(1, keepdim=True).detach()


@EXAMPLES
@given(
    networks(),
    st.integers(1, 5),
    st.sampled_from(list(TOLERANCE)),
    st.sampled_from([torch.contiguous_format, torch.channels_last]),
    st.booleans(),
    st.data(),
)
def test_maps_equal_the_hook_free_oracle(network, batch, dtype, memory_format, frozen, data):
    model, names, size = network
    at = int(data.draw(st.sampled_from(names)))
    model = model.to(dtype=dtype, memory_format=memory_format).requires_grad_(not frozen)
    x = torch.randn(batch, 3, *size).to(dtype=dtype, memory_format=memory_format)
    with torch.no_grad():
        f = model(x)
    r = torch.randn(f.shape).to(dtype)
    if not (f.float().norm(dim=1) > 1e-2).all():
        return
    expected = oracle(model, at, x, r)
    try:
        maps = LEAM(model, model[at]).attribute(x, reference=r)
    except ValueError as error:
        if not ((expected.flatten(1) == 0).all(1).any() or "channels last" in str(error)):
            raise
        return
    assert maps.dtype == dtype
    assert maps.shape == (batch, 1, *expected.shape[2:])
    scale = expected.float().abs().max()
    assert (maps.float() - expected.float()).abs().max() <= TOLERANCE[dtype] * scale + 1e-12
    assert all(p.requires_grad is not frozen and p.grad is None for p in model.parameters())


@EXAMPLES
@given(networks(), st.integers(2, 5), st.integers(1, 3), st.data())
def test_images_do_not_influence_each_other(network, batch, n_steps, data):
    """A batch gives what its images give one by one, in any order."""
    model, names, size = network
    model = model.double()
    at = int(data.draw(st.sampled_from(names)))
    x = torch.randn(batch, 3, *size, dtype=torch.float64)
    r = torch.randn(batch, model[-1].out_features, dtype=torch.float64)
    leam = LEAM(model, model[at])
    try:
        together = leam.attribute(x, reference=r, n_steps=n_steps)
        order = torch.randperm(batch)
        shuffled = leam.attribute(x[order], reference=r[order], n_steps=n_steps)
        alone = torch.cat([leam.attribute(x[i : i + 1], reference=r[i], n_steps=n_steps) for i in range(batch)])
    except ValueError as error:
        if not any(word in str(error) for word in REFUSED):
            raise
        return
    assert torch.allclose(together[order], shuffled, atol=1e-9)
    assert torch.allclose(together, alone, atol=1e-9)


@EXAMPLES
@given(networks(), st.floats(0.01, 100), st.data())
def test_scale_of_the_reference_and_of_the_embedding_do_not_matter(network, by, data):
    model, names, size = network
    model = model.double()
    at = int(data.draw(st.sampled_from(names)))
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    r = torch.randn(model[-1].out_features, dtype=torch.float64)
    try:
        maps = LEAM(model, model[at]).attribute(x, reference=r)
        scaled = LEAM(model, model[at]).attribute(x, reference=by * r)
        grown = LEAM(nn.Sequential(model, _Times(by)).eval(), model[at]).attribute(x, reference=r)
    except ValueError as error:
        if not any(word in str(error) for word in REFUSED):
            raise
        return
    assert torch.allclose(maps, scaled, atol=1e-9)
    assert torch.allclose(maps, grown, atol=1e-9)


class _Times(nn.Module):
    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def forward(self, x: Tensor) -> Tensor:
        return self.by * x


def test_an_empty_batch_gives_empty_maps():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 5)).eval()
    assert LEAM(model, model[0]).attribute(torch.zeros(0, 3, 8, 8)).shape == (0, 1, 6, 6)


@pytest.mark.parametrize("stride", ["view", "expanded", "sliced"])
def test_strides_of_the_images_do_not_matter(stride):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 5)).eval()
    base = torch.rand(2, 8, 8, 6)
    x = {
        "view": base[..., :3].movedim(-1, 1),
        "expanded": base[:1, None, ..., 0].expand(2, 3, 8, 8),
        "sliced": base.movedim(-1, 1)[:, ::2],
    }[stride]
    expected = LEAM(model, model[0]).attribute(x.contiguous())
    assert torch.allclose(LEAM(model, model[0]).attribute(x), expected, atol=1e-6)
