"""Face parsers with trained weights, for crops and for the photographs around them.

A parser is a callable from images (N, 3, H, W) in [0, 1] to label maps (N, H, W), as :func:`~captum_leam.regions.parse` accepts.
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
"""Classes of facexlib's BiSeNet in the order of its scores, with the names of ``CELEBAMASK_HQ``."""

PARSENET_CLASSES = CELEBAMASK_HQ.names
"""Classes of facexlib's ParseNet in the order of its scores, which is that of CelebAMask-HQ."""

WIDE_512 = np.array(
    [(192.98, 239.95), (318.9, 240.19), (256.63, 314.02), (201.26, 371.41), (313.09, 371.15)], dtype=np.float64
)
"""Five points (x, y) of the 512 × 512 crops on which published face parsers were trained, which show the head with hair and neck."""
WIDE_512.setflags(write=False)


class NetworkParser:
    """Parser that labels the regions of faces with a segmentation network of yours.

    Calling it with images returns the region of each pixel. Use :class:`FacexlibParser` for networks with published weights.

    Args:
        network: Module in evaluation mode, from images (N, 3, size, size) to scores (N, K, h, w), or to a tuple that begins with them.
        classes: Names of the K classes in the order of the scores. Each is a region of ``scheme``, and several may be the same.
        mean: Mean that is subtracted from RGB values in [0, 1], one per channel. Default: (0, 0, 0).
        std: Standard deviation by which they are divided, one per channel. Default: (1, 1, 1).
        size: Side of the network's input in pixels, to which images are resized. Default: 512.
        scheme: Scheme of the label maps. Default: :data:`CELEBAMASK_HQ`.
        batch_size: Maximum number of images in one forward pass. Default: 8.
        device: Device to which the network is moved. Default: the device of its parameters.

    Raises:
        CaptumLeamError: If a class is not a region of the scheme, the network is in training mode, or an argument is out of range.

    See Also:
        :class:`~captum_leam.regions.FacexlibParser`: Parsers with published weights.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> network = nn.Conv2d(3, 3, 1).eval()  # stands in for a trained network with scores of three classes
        >>> parser = NetworkParser(network, ["background", "skin", "hair"], size=32)
        >>> labels = parser(torch.rand(2, 3, 112, 112))
        >>> labels.shape, labels.dtype
        (torch.Size([2, 112, 112]), torch.int64)
        >>> parser.scheme.mask(labels, "hair").shape
        torch.Size([2, 112, 112])
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
            raise CaptumLeamError(
                f"Expected classes to be regions of scheme {scheme.name!r}, {list(scheme.names)}, got {unknown}."
            )
        if network.training:
            raise CaptumLeamError(
                "Expected network to be in evaluation mode, got one in training mode. Call network.eval()."
            )
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise CaptumLeamError(
                f"Expected mean and std to be three numbers each, with std above 0, got {mean} and {std}."
            )
        for name, value in (("size", size), ("batch_size", batch_size)):
            if value < 1:
                raise CaptumLeamError(f"Expected {name} to be 1 or more, got {value}.")
        self.classes = tuple(classes)
        self.scheme = scheme
        self.size = size
        self.batch_size = batch_size
        parameter = next(network.parameters(), None)
        self.device = torch.device(device or ("cpu" if parameter is None else parameter.device))
        self.network = network.to(self.device)
        self._dtype = torch.float32 if parameter is None else parameter.dtype
        self._mean, self._std = (
            torch.tensor(list(v), dtype=torch.float32, device=self.device).view(3, 1, 1) for v in (mean, std)
        )

    def __call__(self, images: Tensor) -> Tensor:
        """Return the region of each pixel of the images.

        Images are resized to the input of the network, which returns a score for each class and pixel; the class with the highest score
        wins.

        Args:
            images: Images of shape (N, 3, H, W) or (N, 1, H, W), floating point in [0, 1].

        Returns:
            Label maps of shape (N, H, W), int64, in the labels of ``scheme``, on the device of the images.

        Raises:
            CaptumLeamError: If the shape or the range of the images is wrong, or the network returns NaN or scores of another shape.

        Example:
            >>> network = nn.Conv2d(3, 2, 1)  # bright pixels are skin, dark ones hair
            >>> _ = network.weight.data.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1)), network.bias.data.copy_(torch.tensor([0.0, 3.0]))
            >>> parser = NetworkParser(network.eval(), ["skin", "hair"], size=2)
            >>> labels = parser(torch.tensor([[1.0, 0.0], [0.0, 1.0]]).expand(1, 3, 2, 2))
            >>> [[CELEBAMASK_HQ.regions[label] for label in row] for row in labels[0].tolist()]
            [['skin', 'hair'], ['hair', 'skin']]
        """
        labels = torch.tensor(
            [self.scheme.index(name) for name in self.classes], dtype=torch.int64, device=images.device
        )
        empty = torch.zeros(0, *images.shape[-2:], dtype=torch.int64, device=images.device)
        _check_images(images)
        return torch.cat([empty, *[labels[scores.argmax(dim=1)] for scores in self._score_batches(images)]])

    def scores(self, images: Tensor) -> Tensor:
        """Return the score of each class at each pixel of the images.

        The scores of the network are interpolated bilinearly to the size of the images. Use them to see how sure the parser is.

        Args:
            images: Images of shape (N, 3, H, W) or (N, 1, H, W), floating point in [0, 1].

        Returns:
            Scores of shape (N, K, H, W), float32, in the order of ``classes``, on the device of the images.

        Raises:
            CaptumLeamError: If the shape or the range of the images is wrong, or the network returns NaN or scores of another shape.

        Example:
            >>> _ = torch.manual_seed(0)
            >>> parser = NetworkParser(nn.Conv2d(3, 2, 1).eval(), ["skin", "hair"], size=8)
            >>> parser.scores(torch.rand(4, 3, 16, 16)).shape
            torch.Size([4, 2, 16, 16])
        """
        _check_images(images)
        empty = torch.zeros(0, len(self.classes), *images.shape[-2:], dtype=torch.float32, device=images.device)
        return torch.cat([empty, *self._score_batches(images)])

    def _score_batches(self, images: Tensor) -> list[Tensor]:
        if not len(images):
            return []
        return in_batches(lambda rows: self._score(images[rows]), len(images), self.batch_size)

    @torch.no_grad()
    def _score(self, images: Tensor) -> Tensor:
        rgb = images.to(self.device).float().expand(-1, 3, -1, -1)
        rgb = F.interpolate(rgb, (self.size, self.size), mode="bilinear", antialias=True)
        output = self.network(((rgb - self._mean) / self._std).to(self._dtype))
        scores = output[0] if isinstance(output, (tuple, list)) else output
        if scores.ndim != 4 or scores.shape[:2] != (len(images), len(self.classes)):
            raise CaptumLeamError(
                f"Expected network to return scores of shape ({len(images)}, {len(self.classes)}, h, w), one for each class, got "
                f"{tuple(scores.shape)}."
            )
        if bool(torch.isnan(scores).any()):
            raise CaptumLeamError("Expected network to return finite scores, got NaN. Check its weights.")
        return F.interpolate(scores.float(), images.shape[-2:], mode="bilinear", antialias=True).to(images.device)


def _check_images(images: Tensor) -> None:
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not images.is_floating_point():
        raise CaptumLeamError(
            "Expected images to be RGB of shape (N, 3, H, W), floating point in [0, 1], got "
            f"{images.dtype} of shape {tuple(images.shape)}."
        )
    if images.numel() and not (images.min() >= -1e-3 and images.max() <= 1 + 1e-3):
        raise CaptumLeamError(
            f"Expected images to be RGB in [0, 1], got values from {float(images.min()):.3g} to {float(images.max()):.3g}. "
            "Undo the preprocessing of the recognition network."
        )


class FacexlibParser(NetworkParser):
    """Face parser with published weights, which labels skin, eyes, nose, mouth, hair and other regions of a face.

    Call it with images of shape (N, 3, H, W) in [0, 1]. It returns the region of each pixel, label maps of shape (N, H, W), int64, in the
    labels of ``CELEBAMASK_HQ``. Pass them to :func:`region_report`.

    Source: The package facexlib. Yu et al. 2018, "BiSeNet: Bilateral segmentation network for real-time semantic segmentation". Chen et
    al. 2021, "Progressive semantic-aware style transformation for blind face restoration", for ParseNet.

    Args:
        network: Network. Default: ``"bisenet"``. Allowed values:

            * ``"bisenet"``: BiSeNet, 53 MB.
            * ``"parsenet"``: ParseNet, 85 MB, about ten times slower.
        weights: Path of the file of weights, or of the folder that holds it. Default: None, for the folder in the environment variable
            ``CAPTUM_LEAM_WEIGHTS``, or facexlib's own folder without it.
        sha256: SHA-256 digest in hex that the file of weights must have. Default: None, for no check. The attribute ``sha256`` holds the
            digest of the file.
        download: Whether facexlib may download missing weights. Default: False.
        device: Device of the network. Default: CUDA if available, else the CPU.
        batch_size: Maximum number of images in one forward pass, 1 or more. Default: 8.

    Raises:
        MissingWeightsError: If the weights are not found.
        CaptumLeamError: If the weights are broken, belong to another network or do not have the expected digest, or the network is
            unknown.
        MissingExtraError: If facexlib is not installed.

    See Also:
        * :class:`~captum_leam.regions.TemplateParser`: The same regions for every face, without weights.
        * :func:`~captum_leam.regions.parse_on_photo`: Labels from the photograph around a crop.

    Note:
        The networks were trained on crops of the whole head. Crops aligned for recognition lack the chin and most of the hair, and are
        labelled less accurately. Use :func:`parse_on_photo` if you have the photographs.

    Example:
        >>> from captum_leam.faces import read_crops
        >>> from captum_leam.regions import region_report
        >>> parser = FacexlibParser("bisenet", download=True)  # doctest: +SKIP
        >>> labels = parser(read_crops(["ann.png", "bob.png"]))  # doctest: +SKIP
        >>> labels.shape  # doctest: +SKIP
        torch.Size([2, 112, 112])
        >>> nose = parser.scheme.mask(labels, "nose")  # doctest: +SKIP
        >>> report = region_report(maps, labels, parser.scheme)  # doctest: +SKIP
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
            raise CaptumLeamError(f'Expected network to be "bisenet" or "parsenet", got {network!r}.')
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
    """Return the label map of a crop, parsed on a wider crop of the photograph that shows the whole head.

    Args:
        parser: Function from images to label maps or scores, as for :func:`~captum_leam.regions.parse`.
        photo: Photograph of the face, shape (3, H, W), in [0, 1].
        face: Aligned face from :class:`~captum_leam.faces.FaceAligner`.
        template: Five points (x, y), shape (5, 2), in pixels of the crops on which the parser was trained. Default: :data:`WIDE_512`.
        size: Height and width (h, w) of these crops in pixels. Default: (512, 512).
        background: Label of pixels outside the wider crop. Default: 0.

    Returns:
        Label map of shape (h, w), int64, of the size of ``face.crop``. Convert it with ``face.to_photo`` to the photograph.

    Raises:
        CaptumLeamError: If the size of the photograph differs from ``face.photo_size``.

    See Also:
        :class:`~captum_leam.faces.FaceAligner`: Alignment of the face.

    Example:
        >>> photo = torch.rand(3, 200, 300, generator=torch.Generator().manual_seed(0))
        >>> face = align(photo, 2 * WIDE_512 / 10)
        >>> parser = FacexlibParser(download=True)  # doctest: +SKIP
        >>> labels = parse_on_photo(parser, photo, face)  # doctest: +SKIP
        >>> parse_on_photo(lambda x: (x[:, 0] > 0.5).long(), photo, face).shape  # or a parser of yours
        torch.Size([112, 112])
    """
    if tuple(photo.shape[-2:]) != face.photo_size:
        raise CaptumLeamError(
            f"Expected photo to have the size {face.photo_size} of the face's photograph, got {tuple(photo.shape[-2:])}."
        )
    wide_face = align(photo, face.landmarks, template, size)
    labels = parse(parser, wide_face.crop[None])[0]
    to_wide, to_photo = (np.vstack([m, (0, 0, 1)]) for m in (wide_face.transform, inverse(face.transform)))
    return warp(labels, (to_wide @ to_photo)[:2], face.size, outside=background)
