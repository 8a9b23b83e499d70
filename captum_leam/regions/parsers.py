"""Parsers with weights, on crops or on the photograph around them.

Every parser here is a callable from images (N, 3, H, W) in [0, 1] to label maps (N, H, W), as
:func:`~captum_leam.regions.parse` takes any.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import Tensor, nn

from captum_leam._engine.arithmetic import own_arithmetic
from captum_leam._engine.memory import in_batches
from captum_leam._optional import import_optional
from captum_leam._stores import AnyPath
from captum_leam._weights import find_weights, load_network
from captum_leam.errors import CaptumLeamError
from captum_leam.faces.aligned import AlignedFace, align
from captum_leam.faces.geometry import inverse, warp
from captum_leam.regions.report import parse
from captum_leam.regions.scheme import CELEBAMASK_HQ, RegionScheme

BISENET_CLASSES = (
    "background",
    "skin",
    "left_brow",
    "right_brow",
    "left_eye",
    "right_eye",
    "glasses",
    "left_ear",
    "right_ear",
    "earring",
    "nose",
    "mouth",
    "upper_lip",
    "lower_lip",
    "neck",
    "necklace",
    "cloth",
    "hair",
    "hat",
)
"""Classes of facexlib's BiSeNet in the order of its scores, by the names of ``CELEBAMASK_HQ``."""

PARSENET_CLASSES = CELEBAMASK_HQ.names
"""Classes of facexlib's ParseNet in the order of its scores: that of CelebAMask-HQ."""

WIDE_512 = np.array(
    [(192.98, 239.95), (318.9, 240.19), (256.63, 314.02), (201.26, 371.41), (313.09, 371.15)], dtype=np.float64
)
"""The five points, (x, y), on the 512 × 512 crops that published face parsers were trained on: the whole head, with hair and neck."""
WIDE_512.setflags(write=False)


class NetworkParser:
    """Face regions from any segmentation network, its classes brought to the order of a scheme.

    Args:
        network: images (N, 3, size, size) → scores (N, K, h, w), or a tuple whose first is. In evaluation mode.
        classes: names of the K scores in order, each a region of ``scheme``; several scores may go to one region (the best counts).
        mean: subtracted from RGB in [0, 1], three numbers.
        std: what it is divided by, three numbers.
        size: side of the images that the network reads.
        scheme: of the label maps.
        batch_size: images in one forward pass.
        device: where the network is moved; by default it stays where it is.

    Raises:
        CaptumLeamError: for a class that the scheme does not have, or a network in training mode.

    Example:
        >>> scheme = RegionScheme({0: "background", 1: "face"})
        >>> light = nn.Conv2d(3, 2, 1)  # scores of: face, background
        >>> _ = light.weight.data.fill_(0), light.bias.data.copy_(torch.tensor([1.0, 0.0]))
        >>> parser = NetworkParser(light.eval(), ["face", "background"], scheme=scheme, size=32)
        >>> parser(torch.rand(2, 3, 8, 8)).unique().tolist()
        [1]
    """

    def __init__(
        self,
        network: nn.Module,
        classes: Sequence[str],
        *,
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (1.0, 1.0, 1.0),
        size: int = 512,
        scheme: RegionScheme = CELEBAMASK_HQ,
        batch_size: int = 8,
        device: str | torch.device | None = None,
    ) -> None:
        if unknown := [name for name in classes if name not in scheme.names]:
            raise CaptumLeamError(f"scheme {scheme.name!r} has no region {unknown}; it has {list(scheme.names)}.")
        if network.training:
            raise CaptumLeamError("the parsing network is in training mode; call .eval() first.")
        if min(std) <= 0 or len(mean) != 3 or len(std) != 3 or size < 1 or batch_size < 1:
            raise CaptumLeamError(
                "expected three means, three deviations over 0, a size and a batch size of 1 or more."
            )
        self.classes = tuple(classes)
        self.scheme = scheme
        self.size = size
        self.batch_size = batch_size
        first = next(network.parameters(), None)
        self.device = torch.device(device or ("cpu" if first is None else first.device))
        self.network = network.to(self.device)
        self._dtype = torch.float32 if first is None else first.dtype
        self._mean, self._std = (
            torch.tensor(list(v), dtype=torch.float32, device=self.device).view(3, 1, 1) for v in (mean, std)
        )

    def __call__(self, images: Tensor) -> Tensor:
        """Label map of every image: the region with the highest score, decided at the size of the images.

        Args:
            images: (N, 3, H, W) or (N, 1, H, W), float in [0, 1].

        Returns:
            (N, H, W), int64, integers of ``scheme``, on the device of the images.

        Raises:
            CaptumLeamError: for images of another shape or range, or scores of another number of classes, or NaN.
        """
        labels = torch.tensor(
            [self.scheme.index(name) for name in self.classes], dtype=torch.int64, device=images.device
        )
        empty = torch.zeros(0, *images.shape[-2:], dtype=torch.int64, device=images.device)
        _check_images(images)
        return torch.cat([empty, *[labels[part.argmax(dim=1)] for part in self._parts(images)]])

    def scores(self, images: Tensor) -> Tensor:
        """Scores of the classes at the size of the images, in the order of ``classes``.

        Args:
            images: as in a call.

        Returns:
            (N, K, H, W), float, bilinear from what the network gives, on the device of the images.
        """
        _check_images(images)
        empty = torch.zeros(0, len(self.classes), *images.shape[-2:], dtype=torch.float32, device=images.device)
        return torch.cat([empty, *self._parts(images)])

    def _parts(self, images: Tensor) -> list[Tensor]:
        if not len(images):
            return []
        return in_batches(lambda rows: self._score(images[rows]), len(images), self.batch_size)

    @torch.no_grad()
    def _score(self, images: Tensor) -> Tensor:
        read = images.to(self.device).float().expand(-1, 3, -1, -1)
        read = F.interpolate(read, (self.size, self.size), mode="bilinear", antialias=True)
        answer = self.network(((read - self._mean) / self._std).to(self._dtype))
        scores = answer[0] if isinstance(answer, (tuple, list)) else answer
        if scores.ndim != 4 or scores.shape[:2] != (len(images), len(self.classes)):
            raise CaptumLeamError(
                f"the network returned scores of shape {tuple(scores.shape)}; expected ({len(images)}, "
                f"{len(self.classes)}, h, w), one for every class."
            )
        if bool(torch.isnan(scores).any()):
            raise CaptumLeamError("the network returned NaN scores; check its weights.")
        return F.interpolate(scores.float(), images.shape[-2:], mode="bilinear", antialias=True).to(images.device)


def _check_images(images: Tensor) -> None:
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not images.is_floating_point():
        raise CaptumLeamError(
            f"images are {images.dtype} of shape {tuple(images.shape)}; expected (N, 3, H, W), float RGB in [0, 1]."
        )
    if images.numel() and not (images.min() >= -1e-3 and images.max() <= 1 + 1e-3):
        raise CaptumLeamError(
            f"images hold values from {float(images.min()):.3g} to {float(images.max()):.3g}; expected RGB in [0, 1]: undo "
            "the preprocessing of the recognition network."
        )


class FacexlibParser(NetworkParser):
    """Face regions from the parsing networks that facexlib publishes, in the integers of ``CELEBAMASK_HQ``.

    Both give 19 classes, each in an order of its own; ``classes`` holds it. Both were trained on crops that show the whole head;
    on crops aligned for recognition, which cut the chin and most hair, they do less well: :func:`parse_on_photo` shows them what
    they expect.

    Source: Yu et al. 2018, "BiSeNet"; Chen et al. 2021, "Progressive semantic-aware style transformation" (ParseNet).

    Args:
        network: ``"bisenet"`` (53 MB) or ``"parsenet"`` (85 MB, some ten times slower).
        weights: file or folder; by default the folder that ``CAPTUM_LEAM_WEIGHTS`` names, else facexlib's own.
        sha256: what the weights must be, in hex; the attribute of that name says what they are.
        download: let facexlib download weights that are not there.
        device: of the network; by default CUDA where there is one.
        batch_size: images in one forward pass.

    Raises:
        CaptumLeamError: for weights that are missing, broken, of another network or not those pinned.
        ImportError: without facexlib.

    Example:
        >>> FacexlibParser("parsenet", weights="/nowhere")
        Traceback (most recent call last):
            ...
        captum_leam.errors.MissingWeightsError: weights /nowhere: there is no such file or folder. ...
    """

    def __init__(
        self,
        network: Literal["bisenet", "parsenet"] = "bisenet",
        *,
        weights: str | AnyPath | None = None,
        sha256: str | None = None,
        download: bool = False,
        device: str | torch.device | None = None,
        batch_size: int = 8,
    ) -> None:
        if network not in ("bisenet", "parsenet"):
            raise CaptumLeamError(f'network is {network!r}; expected "bisenet" or "parsenet".')
        self.weights = find_weights(network, weights, download=download)
        net, self.sha256 = load_network(_bisenet if network == "bisenet" else _parsenet, self.weights, sha256)
        imagenet = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        mean, std = imagenet if network == "bisenet" else ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
        super().__init__(
            net,
            BISENET_CLASSES if network == "bisenet" else PARSENET_CLASSES,
            mean=mean,
            std=std,
            batch_size=batch_size,
            device=device or ("cuda" if torch.cuda.is_available() else "cpu"),
        )
        self.name = network

    def _score(self, images: Tensor) -> Tensor:
        with own_arithmetic(self.device):
            return super()._score(images)

    def __repr__(self) -> str:
        return f"FacexlibParser({self.name!r}, weights={self.weights.name!r}, sha256={self.sha256[:12]!r})"


def _bisenet() -> nn.Module:
    net: nn.Module = import_optional("facexlib.parsing.bisenet").BiSeNet(num_class=19)
    return net


def _parsenet() -> nn.Module:
    net: nn.Module = import_optional("facexlib.parsing.parsenet").ParseNet(in_size=512, out_size=512, parsing_ch=19)
    return net


def parse_on_photo(
    parser: Callable[[Tensor], Tensor],
    photo: Tensor,
    face: AlignedFace,
    *,
    template: ArrayLike = WIDE_512,
    size: tuple[int, int] = (512, 512),
    background: int = 0,
) -> Tensor:
    """Label map of a crop from the photograph around it: parsed where the parser sees the whole head, then brought to the crop.

    Args:
        parser: see :func:`~captum_leam.regions.parse`.
        photo: (3, H, W) in [0, 1], that the face is from.
        face: as :class:`~captum_leam.faces.FaceAligner` gives it.
        template: (5, 2), where the five points lie on the crops that the parser was trained on.
        size: (h, w) of these crops.
        background: label of what they do not show.

    Returns:
        (h, w), int64, of the size of ``face.crop``. ``face.to_photo`` brings it to the photograph.

    Raises:
        CaptumLeamError: if the photograph has another size than the one the face is from.

    Example:
        >>> face = align(torch.rand(3, 200, 300), 2 * WIDE_512 / 10)
        >>> parse_on_photo(lambda x: (x[:, 0] > 0.5).long(), torch.rand(3, 200, 300), face).shape
        torch.Size([112, 112])
    """
    if tuple(photo.shape[-2:]) != face.photo_size:
        raise CaptumLeamError(
            f"the photograph is {tuple(photo.shape[-2:])}, the face is from one of {face.photo_size}."
        )
    wide = align(photo, face.landmarks, template, size)
    labels = parse(parser, wide.crop[None])[0]
    steps = [np.vstack([matrix, (0, 0, 1)]) for matrix in (wide.transform, inverse(face.transform))]
    return warp(labels, (steps[0] @ steps[1])[:2], face.size, outside=background)
