"""What a network wants its pixels to be, declared once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from captum_leam._engine.arithmetic import uniform
from captum_leam.errors import CaptumLeamError


@dataclass(frozen=True)
class Preprocessing:
    """From RGB images in [0, 1], (N, 3, H, W), to what a network reads: differentiable, so that maps belong to the image.

    Args:
        mean: subtracted, in the units of [0, 1] and in the order of ``colour``.
        std: what is divided by then. Networks that read 0 to 255 have ``std = 1/255``; (v − 127.5)/128 is mean 0.5, std 128/255.
        colour: order of the channels that the network was trained with.
        layout: ``"NCHW"``, or ``"NHWC"`` for networks with channels last.
        size: (h, w) of the images that the network reads; others are refused, not resized: a crop of another size was aligned to
            another template. None: any.

    Raises:
        CaptumLeamError: for anything else.

    Example:
        >>> first = Preprocessing(mean=(0.5, 0.25, 0.0), std=(0.5, 0.5, 0.5), colour="bgr")(torch.ones(1, 3, 2, 2))
        >>> first[0, :, 0, 0].tolist()
        [1.0, 1.5, 2.0]
        >>> IMAGENET.mean, INSIGHTFACE.mean, UNIT.mean
        ((0.485, 0.456, 0.406), (0.5, 0.5, 0.5), (0.0, 0.0, 0.0))
        >>> round(BYTES(torch.ones(1, 3, 2, 2)).max().item())
        255
    """

    mean: Sequence[float] = (0.0, 0.0, 0.0)
    std: Sequence[float] = (1.0, 1.0, 1.0)
    colour: Literal["rgb", "bgr"] = "rgb"
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if len(self.mean) != 3 or len(self.std) != 3 or not all(0 < v < float("inf") for v in self.std):
            raise CaptumLeamError(f"mean={self.mean}, std={self.std}; expected three numbers each, deviations over 0.")
        if self.colour not in ("rgb", "bgr") or self.layout not in ("NCHW", "NHWC"):
            raise CaptumLeamError(
                f'colour={self.colour!r}, layout={self.layout!r}; expected "rgb" or "bgr", "NCHW" or "NHWC".'
            )

    def __call__(self, images: Tensor) -> Tensor:
        """Images as the network reads them.

        Args:
            images: (N, 3, H, W), RGB in [0, 1]. Values a little outside pass: noise and paths go there.

        Raises:
            CaptumLeamError: for another shape or size, or pixels up to 255.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise CaptumLeamError(f"images have shape {tuple(images.shape)}; expected RGB (N, 3, H, W).")
        if self.size is not None and tuple(images.shape[2:]) != self.size:
            raise CaptumLeamError(
                f"images are {tuple(images.shape[2:])}, the network reads {self.size}: align the faces to that size "
                "(FaceAligner(size=…))."
            )
        if images.numel() and float(images.detach().abs().amax()) > 16:
            raise CaptumLeamError(
                f"images hold values up to {float(images.detach().abs().amax()):.3g}; expected RGB in [0, 1]: divide by 255."
            )
        mean, std = (torch.tensor(list(v), dtype=images.dtype, device=images.device) for v in (self.mean, self.std))
        ordered = images.flip(1) if self.colour == "bgr" else images
        read = (ordered - mean.view(3, 1, 1)) / std.view(3, 1, 1)
        return read.movedim(1, -1) if self.layout == "NHWC" else read


INSIGHTFACE = Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3)
"""RGB as (v − 127.5) / 127.5: InsightFace's packs and most networks trained like ArcFace."""
IMAGENET = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""RGB less ImageNet's mean, over its deviation: torchvision's backbones, and some face networks."""
UNIT = Preprocessing()
"""RGB in [0, 1] as it is: networks that normalise by themselves."""
BYTES = Preprocessing(std=(1 / 255,) * 3)
"""RGB from 0 to 255."""

NAMED = {"insightface": INSIGHTFACE, "imagenet": IMAGENET, "unit": UNIT, "bytes": BYTES}


class Prepared(nn.Module):
    """A network behind its preprocessing: takes RGB in [0, 1], (N, 3, H, W), as everything in this package does.

    Args:
        network: as it was trained.
        preprocessing: what it wants its pixels to be.

    Example:
        >>> Prepared(nn.Flatten(), INSIGHTFACE)(torch.ones(1, 3, 1, 1)).tolist()
        [[1.0, 1.0, 1.0]]
    """

    def __init__(self, network: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.network = network
        self.preprocessing = preprocessing
        self.train(network.training)

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings (N, D) of RGB images (N, 3, H, W) in [0, 1]."""
        embeddings: Tensor = self.network(self.preprocessing(images))
        return embeddings

    def extra_repr(self) -> str:
        """Return the preprocessing as text, for ``print(model)``."""
        return f"preprocessing={self.preprocessing}"


def smooth_images(count: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    """Random smooth colour images to compare networks on: (N, 3, h, w) in [0, 1]; the global random numbers stay untouched.

    Example:
        >>> images = smooth_images(2, (8, 8))
        >>> images.shape, bool((images >= 0).all()), bool((images <= 1).all())
        (torch.Size([2, 3, 8, 8]), True, True)
    """
    drawn = uniform((count, 3, 9, 9), torch.Generator().manual_seed(seed))
    fine = uniform((count, 3, *size), torch.Generator().manual_seed(seed + 1))
    return 0.8 * F.interpolate(drawn, size, mode="bilinear") + 0.2 * fine
