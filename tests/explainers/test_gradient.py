"""xSSAB, FGGB and FAME against literal loops over images and dimensions."""

import pytest
import torch
from scipy.ndimage import correlate1d
from torch import Tensor, nn

from captum_leam.explainers import FAME, FGGB, XSSAB
from tests.helpers.networks import Residual


def unit(v: Tensor) -> Tensor:
    return v / v.norm(dim=-1, keepdim=True)


def literal_xssab(net: nn.Module, face: Tensor, r: Tensor, t: float) -> tuple[Tensor, Tensor]:
    sides = []
    for positive in (True, False):
        x = face[None].clone().requires_grad_()
        f, g = unit(net(x))[0], unit(r)
        score = 0
        for k in range(len(f)):
            if (f[k].item() * g[k].item() >= t / len(f)) == positive:
                score = score + f[k] * g[k]
        score.backward()
        sides.append(x.grad[0].abs().mean(0))
    return sides[0], sides[1]


@pytest.mark.parametrize("threshold", [0.0, 0.3])
def test_xssab_equals_the_literal_formula(net, faces, references, threshold):
    both = XSSAB(net, threshold=threshold, batch_size=2).attribute_both(faces, reference=references)
    signed = XSSAB(net, threshold=threshold).attribute(faces, reference=references)
    for i in range(3):
        similar, dissimilar = literal_xssab(net, faces[i], references[i], threshold)
        assert torch.allclose(both.similar[i, 0], similar, atol=1e-12)
        assert torch.allclose(both.dissimilar[i, 0], dissimilar, atol=1e-12)
        assert torch.allclose(signed[i, 0], similar - dissimilar, atol=1e-12)


def literal_fggb(net: nn.Module, face: Tensor, r: Tensor, t: float) -> Tensor:
    """One backward pass per dimension."""
    total, dimensions = 0, len(r)
    for k in range(dimensions):
        x = face[None].clone().requires_grad_()
        f, g = unit(net(x))[0], unit(r)
        f[k].backward()
        if not x.grad.any():
            continue
        total = total + x.grad[0] / x.grad.norm() * (f[k].item() * g[k].item() - t / dimensions)
    return total.mean(0)


@pytest.mark.parametrize("threshold", [0.0, 0.3])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_fggb_equals_the_loop_over_dimensions(net, faces, references, threshold, batch_size):
    method = FGGB(net, threshold=threshold, batch_size=batch_size)
    maps = method.attribute(faces, reference=references)
    for i in range(3):
        assert torch.allclose(maps[i, 0], literal_fggb(net, faces[i], references[i], threshold), atol=1e-12)
    both = method.attribute_both(faces, reference=references)
    assert torch.equal(both.signed, maps)
    assert (both.similar * both.dissimilar == 0).all()


def test_fggb_leaves_out_a_dimension_without_gradient(net, faces, references):
    with torch.no_grad():
        net.head[2].weight[3] = 0  # and its bias is 0: the dimension is 0 everywhere
    maps = FGGB(net).attribute(faces, reference=references)
    assert torch.allclose(maps[0, 0], literal_fggb(net, faces[0], references[0], 0.0), atol=1e-12)


def test_fggb_through_in_place_activations_equals_the_loop():
    net = Residual().double()
    faces, reference = torch.rand(2, 3, 16, 16, dtype=torch.float64), torch.randn(12, dtype=torch.float64)
    maps = FGGB(net, batch_size=5).attribute(faces, reference=reference)
    assert torch.allclose(maps[1, 0], literal_fggb(net, faces[1], reference, 0.0), atol=1e-12)


def literal_fame(net: nn.Module, face: Tensor, r: Tensor, steps: int, away: bool) -> Tensor:
    x = face[None].clone()
    for _ in range(steps):
        x = x.detach().requires_grad_()
        s = (unit(net(x))[0] * unit(r)).sum()
        (s if away else 1 - s).backward()
        x = x - x.grad / x.grad.abs().max() / 255
    colours = (x - face[None]).detach()[0]
    change = (0.299 * colours[0] + 0.587 * colours[1] + 0.114 * colours[2]).abs().numpy()
    sigma, radius = 7.7 * 16 / 112, round(24 * 16 / 112)
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=torch.float64) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).numpy()
    for axis in (0, 1):
        change = correlate1d(change, kernel, axis=axis, mode="mirror")
    return torch.from_numpy(change)


def test_fame_equals_the_literal_descent(net, faces, references):
    both = FAME(net, n_steps=7, batch_size=2).attribute_both(faces, reference=references)
    for i in range(3):
        assert torch.allclose(both.similar[i, 0], literal_fame(net, faces[i], references[i], 7, True), atol=1e-12)
        assert torch.allclose(both.dissimilar[i, 0], literal_fame(net, faces[i], references[i], 7, False), atol=1e-12)


def test_fame_of_the_own_embedding_raises(net, faces):
    for reference in (None, 2 * net(faces).detach()):
        with pytest.raises(
            ValueError, match=r"references from other images, .* for images \[0, 1, 2\].* zero gradient"
        ):
            FAME(net, n_steps=1).attribute(faces, reference=reference)
    with pytest.raises(ValueError, match="n_steps to be 1 or more, .* got 0"):
        FAME(net, n_steps=0)


def test_fame_leaves_the_images_alone(net, faces, references):
    before = faces.clone()
    FAME(net, n_steps=2).attribute(faces, reference=references)
    assert torch.equal(faces, before)
