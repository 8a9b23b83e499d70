"""Small networks whose maps can be computed by hand or by a second, slow implementation, and a cheap way to explain large ones."""

from collections.abc import Callable
from functools import partial

import torch
import torchvision.models as tv
from torch import Tensor, nn
from torchvision.models.convnext import CNBlockConfig

from captum_leam import LEAM, overall_map, suggest_layers
from captum_leam.refinement import smooth


class Body(nn.Module):
    """Two convolutions, 16 px → 8 px → 4 px; smooth unless told otherwise."""

    def __init__(self, activation: type[nn.Module] = nn.Softplus, **options: object) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, 2, 1)
        self.act = activation(**options)
        self.second = nn.Conv2d(6, 8, 3, 2, 1)
        self.last = activation(**options)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.second(self.act(self.first(x))))


class Net(nn.Module):
    """Body, then an affine head with BatchNorm: embeddings of 10 numbers from images of 16 px."""

    def __init__(self, activation: type[nn.Module] = nn.Softplus, **options: object) -> None:
        super().__init__()
        self.body = Body(activation, **options)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(8 * 16, 10), nn.BatchNorm1d(10))
        self.head[2].running_mean.normal_()
        self.head[2].running_var.uniform_(0.5, 2)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


SIZE = 48
"""Side in pixels of the images of :class:`Inner`."""


class Inner(nn.Module):
    """Three convolutions, 48 px → 24, 12 and 6 px, and a head for any size."""

    def __init__(self) -> None:
        super().__init__()
        steps = zip((3, 8, 20), (8, 20, 28), strict=True)
        self.blocks = nn.Sequential(*[nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.ReLU()) for a, b in steps])
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(28 * 16, 12))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(x))


class Around(nn.Module):
    """A network within a forward function that does something to the batch or the picture."""

    def __init__(self, change: Callable[[Inner, Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.change = Inner(), change
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.change(self.inner, x)


class Residual(nn.Module):
    """A skip connection with an in-place activation, and a branch beside it: 8 px."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(inplace=True))
        self.block = nn.Sequential(nn.Conv2d(6, 6, 3, 1, 1), nn.BatchNorm2d(6), nn.ReLU6(inplace=True))
        self.out = nn.ReLU(inplace=True)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 12))
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.block(x)
        return self.head(self.out(x))


class Tokens(nn.Module):
    """A transformer's shape: patches of 4 px, a class token first, the embedding read from it."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 12, 4, 4)
        self.cls = nn.Parameter(torch.randn(1, 1, 12))
        self.block = nn.TransformerEncoderLayer(12, 2, 24, dropout=0.0, batch_first=True)
        self.last = nn.TransformerEncoderLayer(12, 2, 24, dropout=0.0, batch_first=True)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patch(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls.expand(len(x), -1, -1), patches], 1)
        return self.last(self.block(tokens))[:, 0]


NARROW = {
    "convnext_tiny": partial(
        tv.ConvNeXt,
        [CNBlockConfig(48, 96, 3), CNBlockConfig(96, 192, 3), CNBlockConfig(192, 384, 9), CNBlockConfig(384, None, 3)],
    ),
    "swin_t": partial(tv.SwinTransformer, [4, 4], 48, [2, 2, 6, 2], [3, 6, 12, 24], [7, 7]),
    "vit_b_16": partial(tv.VisionTransformer, 224, 16, 12, num_heads=3, hidden_dim=192, mlp_dim=768),
    "vit_b_32": partial(tv.VisionTransformer, 224, 32, 12, num_heads=3, hidden_dim=192, mlp_dim=768),
}


def of_torchvision(name: str) -> nn.Module:
    """An untrained network of torchvision; the largest with all their layers, of a half or a quarter of the width."""
    model = NARROW[name]() if name in NARROW else getattr(tv, name)(weights=None)
    if name.startswith("vit"):
        model.heads = nn.Identity()  # torchvision initialises this classifier to zero
    return model.eval()


def path_of_four(model: nn.Module, images: Tensor, references: Tensor) -> Tensor:
    """Overall maps of layer maps on a path of four, as a study with ``preset: layers`` has them."""
    found = suggest_layers(model, images)
    leam = LEAM(model, found.for_overall_map())
    parts = zip(images.split(32), references.split(32), strict=True)
    maps = [overall_map(leam.attribute(x, reference=r, n_steps=4), found.image_size, found.field) for x, r in parts]
    return smooth(torch.cat(maps))
