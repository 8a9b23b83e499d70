"""Preprocessing of images for recognition networks, as a differentiable part of the model."""

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
    """Conversion of RGB images in [0, 1] to the input of a network.

    It computes (image − mean) / std for each channel, after swapping the channels if the network reads BGR. Combine it with a network by
    :class:`Prepared`. Four common ones are ready-made:

    * ``INSIGHTFACE``: [−1, 1], for InsightFace and most networks trained like ArcFace.
    * ``IMAGENET``: Mean and standard deviation of ImageNet, for backbones of torchvision.
    * ``BYTES``: [0, 255].
    * ``UNIT``: [0, 1], for networks that normalise their input themselves.

    Args:
        mean: Mean that is subtracted, one number per channel in the order of ``colour``, on the scale [0, 1]. Default: (0, 0, 0).
        std: Standard deviation by which the difference is divided, on the scale [0, 1]. For example, (v − 127.5) / 128 of values v in
            [0, 255] is mean 0.5 and std 128/255. Default: (1, 1, 1).
        colour: Channel order of the network's training data, ``"rgb"`` or ``"bgr"``. Default: ``"rgb"``.
        layout: Axis order of the network's input, ``"NCHW"`` or ``"NHWC"``. Default: ``"NCHW"``.
        size: Height and width (h, w) of the network's input in pixels. Images of another size raise. Default: None, for any size.

    Raises:
        CaptumLeamError: If an argument is invalid.

    See Also:
        :class:`~captum_leam.models.Prepared`: Network with its preprocessing.

    Example:
        >>> pixel = torch.tensor([0.0, 0.5, 1.0]).view(1, 3, 1, 1)  # red, green and blue
        >>> INSIGHTFACE(pixel).flatten().tolist()
        [-1.0, 0.0, 1.0]
        >>> BYTES(pixel).flatten().round(decimals=1).tolist()
        [0.0, 127.5, 255.0]
        >>> bgr = Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), colour="bgr", size=(1, 1))
        >>> bgr(pixel).flatten().tolist()
        [1.0, 0.0, -1.0]
    """

    mean: Sequence[float] = (0.0, 0.0, 0.0)
    std: Sequence[float] = (1.0, 1.0, 1.0)
    colour: Literal["rgb", "bgr"] = "rgb"
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if len(self.mean) != 3 or len(self.std) != 3 or not all(0 < v < float("inf") for v in self.std):
            raise CaptumLeamError(
                f"Expected mean and std to be three numbers each, with std above 0, got {self.mean} and {self.std}."
            )
        if self.colour not in ("rgb", "bgr"):
            raise CaptumLeamError(f'Expected colour to be "rgb" or "bgr", got {self.colour!r}.')
        if self.layout not in ("NCHW", "NHWC"):
            raise CaptumLeamError(f'Expected layout to be "NCHW" or "NHWC", got {self.layout!r}.')

    def __call__(self, images: Tensor) -> Tensor:
        """Return images as the network expects them.

        Args:
            images: RGB images of shape (N, 3, H, W), in [0, 1]. Values slightly outside are accepted, since noise and paths reach there.

        Returns:
            Preprocessed images of shape (N, 3, H, W), or (N, H, W, 3) for the layout ``"NHWC"``.

        Raises:
            CaptumLeamError: If the shape or size does not fit, or the values reach up to 255.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise CaptumLeamError(f"Expected images to be RGB of shape (N, 3, H, W), got {tuple(images.shape)}.")
        if self.size is not None and tuple(images.shape[2:]) != self.size:
            raise CaptumLeamError(
                f"Expected images of size {self.size}, as the network reads, got {tuple(images.shape[2:])}. Align the faces to that size, "
                "with FaceAligner(size=…)."
            )
        if images.numel() and float(images.detach().abs().amax()) > 16:
            raise CaptumLeamError(
                f"Expected images to be RGB in [0, 1], got values up to {float(images.detach().abs().amax()):.3g}. Divide by 255."
            )
        mean, std = (torch.tensor(list(v), dtype=images.dtype, device=images.device) for v in (self.mean, self.std))
        channels = images.flip(1) if self.colour == "bgr" else images
        pixels = (channels - mean.view(3, 1, 1)) / std.view(3, 1, 1)
        return pixels.movedim(1, -1) if self.layout == "NHWC" else pixels


INSIGHTFACE = Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3)
"""RGB as (v − 127.5) / 127.5, for the packs of InsightFace and most networks trained like ArcFace."""
IMAGENET = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""RGB normalised by mean and standard deviation of ImageNet, for the backbones of torchvision and some face networks."""
UNIT = Preprocessing()
"""RGB in [0, 1], for networks that normalise their input themselves."""
BYTES = Preprocessing(std=(1 / 255,) * 3)
"""RGB in [0, 255]."""

NAMED = {"insightface": INSIGHTFACE, "imagenet": IMAGENET, "unit": UNIT, "bytes": BYTES}
"""Preprocessings by the names of the command line."""


class Prepared(nn.Module):
    """Network with its preprocessing, as one model that accepts RGB images in [0, 1].

    All functions of the package pass RGB images in [0, 1] to the model. Use this class for a network that was trained on another range,
    channel order or axis order. Attribution maps then refer to the image itself, not to its preprocessed values.

    Args:
        network: Network as it was trained, a module that returns embeddings (N, D). It keeps its mode, training or evaluation.
        preprocessing: Preprocessing that the network expects: ``INSIGHTFACE``, ``IMAGENET``, ``BYTES``, ``UNIT``, or another
            :class:`Preprocessing`.

    See Also:
        :class:`~captum_leam.models.Preprocessing`: Mean, standard deviation, colour order and layout.

    Example:
        >>> from torchvision.models import resnet18
        >>> network = resnet18(num_classes=128).eval()  # trained on images with mean and std of ImageNet
        >>> model = Prepared(network, IMAGENET)
        >>> images = torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(0))
        >>> model(images).shape
        torch.Size([2, 128])
        >>> torch.equal(model(images), network(IMAGENET(images)))
        True
    """

    def __init__(self, network: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.network = network
        self.preprocessing = preprocessing
        self.train(network.training)

    def forward(self, images: Tensor) -> Tensor:
        """Preprocess images and return their embeddings.

        Args:
            images: RGB images of shape (N, 3, H, W) in [0, 1].

        Returns:
            Output of the network, embeddings of shape (N, D), not normalised.

        Raises:
            CaptumLeamError: If the images have another shape or size than the preprocessing accepts, or values up to 255.
        """
        embeddings: Tensor = self.network(self.preprocessing(images))
        return embeddings

    def extra_repr(self) -> str:
        """Return the preprocessing as text, for ``print(model)``."""
        return f"preprocessing={self.preprocessing}"


def smooth_images(count: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    """Return random smooth colour images, on which networks can be compared.

    Args:
        count: Number N of images.
        size: Height and width (h, w) in pixels.
        seed: Seed of the images. The random state of the process is left unchanged. Default: 0.

    Returns:
        Images of shape (N, 3, h, w), in [0, 1].

    Example:
        >>> images = smooth_images(2, (8, 8))
        >>> images.shape, bool((images >= 0).all()), bool((images <= 1).all())
        (torch.Size([2, 3, 8, 8]), True, True)
    """
    coarse = uniform((count, 3, 9, 9), torch.Generator().manual_seed(seed))
    fine = uniform((count, 3, *size), torch.Generator().manual_seed(seed + 1))
    return 0.8 * F.interpolate(coarse, size, mode="bilinear") + 0.2 * fine
