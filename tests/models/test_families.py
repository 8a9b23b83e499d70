"""What works with which family of models: every cell of the table in docs/faces_and_models.md."""

import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from captum.attr import Saliency
from torch import Tensor, nn

from captum_leam import EmbeddingSimilarity, explain_faces, suggest_layers
from captum_leam.faithfulness import OcclusionEvaluator
from captum_leam.models import BlackBox, UpTo
from tests.helpers.networks import of_torchvision


def timm(name: str, **options: object) -> Callable[[], nn.Module]:
    return lambda: pytest.importorskip("timm").create_model(name, num_classes=0, **options).eval()


def facenet() -> nn.Module:
    package = pytest.importorskip("facenet_pytorch", reason="installs with pip install --no-deps facenet-pytorch only")
    return UpTo(package.InceptionResnetV1(pretrained=None).eval(), "last_bn")


FAMILIES = {
    "torchvision ResNet": (partial(of_torchvision, "resnet18"), 112),
    "torchvision MobileNet": (partial(of_torchvision, "mobilenet_v3_small"), 112),
    "torchvision EfficientNet": (partial(of_torchvision, "efficientnet_b0"), 112),
    "torchvision ConvNeXt": (partial(of_torchvision, "convnext_tiny"), 112),
    "torchvision ViT": (partial(of_torchvision, "vit_b_32"), 224),
    "torchvision Swin": (partial(of_torchvision, "swin_t"), 112),
    "timm ResNet": (timm("resnet18"), 112),
    "timm ConvNeXt": (timm("convnext_atto"), 112),
    "timm ViT": (timm("vit_tiny_patch16_224"), 224),
    "timm Swin": (timm("swin_tiny_patch4_window7_224", embed_dim=48), 224),
    "facenet-pytorch": (facenet, 160),
}


@pytest.mark.parametrize("family", list(FAMILIES))
def test_maps_of_every_family_of_networks_cover_the_image_and_sum_to_one(family):
    build, size = FAMILIES[family]
    model, faces = build(), torch.rand(2, 3, size, size)
    with torch.no_grad():
        reference = model(faces[:1])[0] + 0.3 * torch.randn(model(faces[:1]).shape[1])
    found = suggest_layers(model, faces)
    maps = explain_faces(model, faces, "fast", layers=found, reference=reference)
    assert maps.shape == (2, size, size)
    assert maps.sum((1, 2)).tolist() == pytest.approx([1, 1], rel=1e-3)
    slopes = Saliency(EmbeddingSimilarity(model, reference)).attribute(faces.clone().requires_grad_())
    assert (slopes.flatten(1).sum(1) > 0).all()

    def service(pixels: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return model(torch.from_numpy(pixels.copy())).numpy()

    evaluator = OcclusionEvaluator({"itself": model, "black box": BlackBox(service)}, (0.1,), controls=())
    drops = evaluator.evaluate(faces, maps, {"itself": reference, "black box": reference}).to_frame()
    itself, black_box = (drops.loc[drops["model"] == name, "drop"].to_numpy() for name in ("itself", "black box"))
    assert itself == pytest.approx(black_box, abs=1e-5)
    assert abs(itself).max() > 0


def test_up_to_a_layer_is_free_of_the_division():
    class Normalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Conv2d(3, 4, 3, 2, 1), nn.Linear(256, 8)

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.normalize(self.head(self.body(x).relu().flatten(1)))

    model, faces = Normalised().eval(), torch.rand(2, 3, 16, 16)
    cut = UpTo(model, "head")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        maps = explain_faces(cut, faces, "fast", layers=[model.body])
    assert maps.shape == (2, 16, 16)
    assert torch.allclose(nn.functional.normalize(cut(faces)), model(faces))
    assert not model.head._forward_hooks
    with pytest.raises(ValueError, match="layer of the model, got 'tail'"):
        UpTo(model, "tail")
