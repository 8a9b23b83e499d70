"""The CAMs against hook-free literal formulas and Captum."""

import pytest
import torch
import torch.nn.functional as F
from captum.attr import LayerGradCam
from torch import Tensor, nn

from captum_leam import EmbeddingSimilarity
from captum_leam.explainers import GradCAM, HiResCAM, LayerCAM
from captum_leam.layers import tokens_to_map
from tests.helpers.networks import Net, Tokens

FORMULAS = {
    GradCAM: lambda g, a: torch.relu((g.mean((2, 3), keepdim=True) * a).sum(1, keepdim=True)),
    LayerCAM: lambda g, a: torch.relu((torch.relu(g) * a).sum(1, keepdim=True)),
    HiResCAM: lambda g, a: (g * a).sum(1, keepdim=True),
}


def literal(net: Net, face: Tensor, r: Tensor, formula, norm: str) -> Tensor:
    acts = net.body(face[None]).detach().requires_grad_()
    f = net.head(acts)
    length = f.norm() if norm == "differentiate" else f.norm().detach()
    ((f @ (r / r.norm())) / length).sum().backward()
    return F.interpolate(formula(acts.grad, acts.detach()), (16, 16), mode="bilinear", align_corners=False)[0]


@pytest.mark.parametrize("method", FORMULAS)
def test_cams_equal_the_literal_formula_where_activations_are_negative(net, faces, references, method):
    """Before the activation function, where it matters that Grad-CAM and LayerCAM keep the positive part only."""
    maps = method(net, net.body.second).attribute(faces, reference=references)
    acts = net.body.second(net.body.act(net.body.first(faces))).detach().requires_grad_()
    F.cosine_similarity(net.head(net.body.last(acts)), references).sum().backward()
    coarse = FORMULAS[method](acts.grad, acts.detach())
    assert (acts < 0).any()
    assert torch.allclose(maps, F.interpolate(coarse, (16, 16), mode="bilinear", align_corners=False), atol=1e-12)


@pytest.mark.parametrize("norm", ["differentiate", "detach"])
@pytest.mark.parametrize("method", FORMULAS)
def test_cams_equal_the_literal_formula(net, faces, references, method, norm):
    maps = method(net, net.body, norm=norm, batch_size=2).attribute(faces, reference=references)
    for i in range(3):
        assert torch.allclose(maps[i], literal(net, faces[i], references[i], FORMULAS[method], norm), atol=1e-12)
    if method is HiResCAM:
        assert (maps < 0).any()


def test_grad_cam_equals_captums(net, faces, references):
    cosine = EmbeddingSimilarity(net, norm="differentiate")
    coarse = LayerGradCam(cosine, net.body).attribute(
        faces, additional_forward_args=(references,), relu_attributions=True
    )
    expected = F.interpolate(coarse, (16, 16), mode="bilinear", align_corners=False)
    assert torch.allclose(GradCAM(net, net.body).attribute(faces, reference=references), expected.detach(), atol=1e-12)


def test_a_field_places_the_map_and_is_zero_outside(net, faces, references):
    """Borders that the network does not read: zero there, and the same map inside."""

    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x[..., 1:17, 4:20])

    wide = F.pad(faces, (4, 4, 1, 3))
    maps = HiResCAM(Cut(), net.body, field=(1, 4, 16, 16)).attribute(wide, reference=references)
    inside = HiResCAM(net, net.body).attribute(faces, reference=references)
    assert torch.allclose(maps, F.pad(inside, (4, 4, 1, 3)), atol=1e-12)


def test_token_cams_with_a_reshape_have_the_image_size():
    net = Tokens()
    maps = HiResCAM(net, net.block, reshape=tokens_to_map).attribute(
        torch.rand(2, 3, 16, 16), reference=torch.randn(12)
    )
    assert maps.shape == (2, 1, 16, 16)


def test_own_embedding_is_refused_for_the_cosine_and_shown_for_the_detached(net, faces):
    with pytest.raises(ValueError, match="zero gradient"):
        GradCAM(net, net.body).attribute(faces)
    assert HiResCAM(net, net.body, norm="detach").attribute(faces).abs().sum() > 0
