"""Grad-CAM, LayerCAM and HiResCAM against pytorch-grad-cam and torch-cam, where these must say the same (extra ``peers``)."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_leam.explainers import GradCAM, HiResCAM, LayerCAM
from captum_leam.explainers.cams import EmbeddingCAM
from tests.helpers.networks import Net, Residual

WHY = 'needs the extra "peers": pip install "captum-leam[peers]"'


@pytest.fixture(params=["plain", "residual"])
def setting(request) -> tuple[nn.Module, nn.Module, Tensor, Tensor]:
    """Network, layer, faces and references; the second one's layer is an activation in place."""
    faces = torch.rand(3, 3, 16, 16)
    if request.param == "plain":
        net: nn.Module = Net()
        return net, net.body, faces, torch.randn(3, 10)
    net = Residual()
    return net, net.out, faces, torch.randn(3, 12)


def targets(references: Tensor) -> list[Callable[[Tensor], Tensor]]:
    """The cosine as both packages take a score, a function of one image's output; times 1000, so that what they add to the
    denominator when they scale maps to [0, 1] (1e-7) does not count."""

    def thousand_cosines(r: Tensor, output: Tensor) -> Tensor:
        return 1000 * F.cosine_similarity(r, output, dim=0)

    return [partial(thousand_cosines, r) for r in references]


def coarse(kind: type[EmbeddingCAM], net: nn.Module, layer: nn.Module, faces: Tensor, references: Tensor) -> Tensor:
    """The positive part of our map at the layer's size, (N, h, w): the packages drop the rest before they enlarge."""
    return kind(net, layer).leam.attribute(faces, reference=references).clamp(min=0)[:, 0]


def check_same(ours: Tensor, theirs: Tensor) -> None:
    """But for the scale; a map without any positive value is 0 in both."""
    low, high = ours.amin((1, 2), keepdim=True), ours.amax((1, 2), keepdim=True)
    scaled = torch.where(high > low, (ours - low) / (high - low), 0.0)
    assert (high > low).sum() >= 2
    assert (scaled - theirs).abs().max() < 1e-5


@pytest.mark.parametrize("kind", [GradCAM, LayerCAM, HiResCAM])
def test_cams_equal_pytorch_grad_cam(setting, kind):
    package = pytest.importorskip("pytorch_grad_cam", reason=WHY)
    net, layer, faces, references = setting
    with getattr(package, kind.__name__)(model=net, target_layers=[layer]) as cam:
        theirs = torch.from_numpy(cam(input_tensor=faces, targets=targets(references)))
    ours = coarse(kind, net, layer, faces, references)[:, None]
    check_same(F.interpolate(ours, (16, 16), mode="bilinear", align_corners=False)[:, 0], theirs)


@pytest.mark.parametrize("kind", [GradCAM, LayerCAM])
def test_cams_equal_torch_cam(setting, kind):
    package = pytest.importorskip("torchcam.methods", reason=WHY)
    net, layer, faces, references = setting
    with getattr(package, kind.__name__)(net, layer) as extractor:
        (theirs,) = extractor(scores=net(faces), targets=targets(references))
    check_same(coarse(kind, net, layer, faces, references), theirs)


@pytest.mark.parametrize("kind", [GradCAM, LayerCAM])
def test_what_explainers_return_is_that_map_enlarged(setting, kind):
    """So the agreement is one of the maps that users see, but for the packages' scaling to [0, 1]."""
    net, layer, faces, references = setting
    enlarged = F.interpolate(coarse(kind, net, layer, faces, references)[:, None], (16, 16), mode="bilinear")
    assert torch.allclose(kind(net, layer).attribute(faces, reference=references), enlarged, atol=1e-7)
