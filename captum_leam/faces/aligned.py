"""Align a face whose five points are known, and map results between its crop and the photograph."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from captum_leam.errors import CaptumLeamError
from captum_leam.faces.detections import MAX_MISFIT
from captum_leam.faces.geometry import (
    ARCFACE_112,
    ARCFACE_112X96,
    POINT_ORDER,
    Floats,
    five_points,
    inverse,
    misfit,
    scale_points,
    similarity_transform,
    transform_points,
    warp,
)


@dataclass(frozen=True)
class AlignedFace:
    """Aligned crop of a face that remembers its place in the photograph.

    :class:`FaceAligner` and :func:`align` return it. Pass ``crop`` to the network, and use :meth:`to_photo` to draw an attribution map of
    the crop on the photograph.

    Example:
        >>> import torch
        >>> photo = torch.rand(3, 200, 300, generator=torch.Generator().manual_seed(0))
        >>> face = align(photo, 2 * ARCFACE_112 - 20)  # a face twice as large as its crop
        >>> face.crop.shape, round(face.scale, 2)
        (torch.Size([3, 112, 112]), 0.5)
        >>> attribution = torch.ones(112, 112)
        >>> face.to_photo(attribution).shape
        torch.Size([200, 300])
    """

    crop: Tensor = field(repr=False)
    """Pixels of the crop, shape (3, h, w), float32 in [0, 1]. Pixels beyond the photograph are black."""
    transform: Floats = field(repr=False)
    """Matrix of shape (2, 3) from pixels (x, y) of the photograph to pixels of the crop: rotation, scale and translation."""
    box: Floats
    """Left, top, right and bottom of the face, shape (4,), in pixels of the photograph."""
    landmarks: Floats = field(repr=False)
    """Five points (x, y), shape (5, 2), in pixels of the photograph."""
    score: float
    """Score of the detector, in [0, 1]."""
    photo_size: tuple[int, int]
    """Height and width (H, W) of the upright photograph in pixels."""
    index: int = 0
    """Index among the detections of the photograph, ordered from the largest."""
    antialias: bool = True
    """Whether pixels of a shrunk crop are averages over their area, see :func:`align`."""
    face_count: int = 1
    """Number of plausible faces in the photograph."""
    turn: int = 0
    """Rotation of the photograph in degrees counter-clockwise (0, 90, 180 or 270) in which the face is upright."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width (h, w) of the crop in pixels."""
        return (int(self.crop.shape[-2]), int(self.crop.shape[-1]))

    @property
    def crop_landmarks(self) -> Floats:
        """Landmarks (x, y) in pixels of the crop, shape (5, 2)."""
        return transform_points(self.landmarks, self.transform)

    @property
    def outline(self) -> Floats:
        """Corners (x, y) of the crop in pixels of the photograph, shape (4, 2)."""
        height, width = self.size
        corners = np.array([(0, 0), (width, 0), (width, height), (0, height)]) - 0.5
        return transform_points(corners, inverse(self.transform))

    @property
    def scale(self) -> float:
        """Number of crop pixels per pixel of the photograph along an axis. The face was enlarged if it is above 1."""
        return float(np.sqrt(abs(np.linalg.det(self.transform[:, :2]))))

    def to_photo(self, maps: Tensor, *, outside: float = 0.0) -> Tensor:
        """Return attribution maps or labels of the crop at its place on the photograph.

        Args:
            maps: Maps of shape (..., h, w), of the size of the crop. Floating-point values are interpolated bilinearly. Integers and
                booleans are labels, and each pixel takes the nearest one.
            outside: Value of the pixels of the photograph outside the crop, for labels usually the background. Default: 0.0.

        Returns:
            Maps of shape (..., H, W), of the same data type and on the same device. Values are not rescaled, so that sums change.

        Raises:
            CaptumLeamError: If the maps do not have the size of the crop.

        Example:
            >>> import torch
            >>> photo = torch.rand(3, 200, 300, generator=torch.Generator().manual_seed(0))
            >>> face = align(photo, 2 * ARCFACE_112 - 20)
            >>> on_photo = face.to_photo(torch.ones(112, 112))
            >>> on_photo.shape, on_photo[100, 100].item(), on_photo[100, 290].item()  # 0 outside the crop
            (torch.Size([200, 300]), 1.0, 0.0)
        """
        self._check(maps, self.size, "crop")
        height, width = self.photo_size
        back = inverse(self.transform)
        corners = np.array([(x, y) for x in (-1.0, self.size[1]) for y in (-1.0, self.size[0])])
        bounds = transform_points(corners, back)  # photographs are large, so only this part is computed
        left, top = np.clip(np.floor(bounds.min(axis=0)).astype(int), 0, (width, height))
        right, bottom = np.clip(np.ceil(bounds.max(axis=0)).astype(int) + 1, 0, (width, height))
        on_photo = maps.new_full((*maps.shape[:-2], height, width), outside)
        if right > left and bottom > top:
            part_transform = self.transform.copy()
            part_transform[:, 2] += self.transform[:, :2] @ np.array([left, top], dtype=np.float64)
            part = warp(maps, part_transform, (int(bottom - top), int(right - left)), outside=outside)
            on_photo[..., top:bottom, left:right] = part
        return on_photo

    def to_crop(self, maps: Tensor, *, outside: float = 0.0) -> Tensor:
        """Return the part of attribution maps or labels of the photograph that the crop shows.

        The maps are sampled in the same way as the crop was sampled from the photograph.

        Args:
            maps: Maps of shape (..., H, W), of the size of the photograph. Floating-point values are interpolated bilinearly. Integers
                and booleans are labels, and each pixel takes the nearest one.
            outside: Value of the pixels of the crop beyond the photograph. Default: 0.0.

        Returns:
            Maps of shape (..., h, w), of the same data type and on the same device.

        Raises:
            CaptumLeamError: If the maps do not have the size of the photograph.

        Example:
            >>> import torch
            >>> photo = torch.rand(3, 200, 300, generator=torch.Generator().manual_seed(0))
            >>> face = align(photo, 2 * ARCFACE_112 - 20)
            >>> face.to_crop(torch.ones(200, 300)).shape
            torch.Size([112, 112])
            >>> torch.equal(face.to_crop(photo), face.crop)
            True
        """
        self._check(maps, self.photo_size, "photograph")
        return warp(maps, inverse(self.transform), self.size, outside=outside, antialias=self.antialias)

    def _check(self, maps: Tensor, size: tuple[int, int], owner: str) -> None:
        if maps.ndim < 2 or tuple(maps.shape[-2:]) != size:
            raise CaptumLeamError(
                f"Expected maps to have shape (..., {size[0]}, {size[1]}), as the {owner}, got {tuple(maps.shape)}."
            )


def align(
    photo: Tensor,
    landmarks: ArrayLike,
    template: ArrayLike = ARCFACE_112,
    size: tuple[int, int] = (112, 112),
    *,
    box: ArrayLike | None = None,
    score: float = 1.0,
    index: int = 0,
    antialias: bool = True,
) -> AlignedFace:
    """Align one face by five known points, from any detector or set by hand.

    The photograph is rotated, scaled and moved so that the points fit the template as well as possible (least squares).

    Source: Umeyama 1991, "Least-squares estimation of transformation parameters between two point patterns".

    Args:
        photo: RGB photograph of shape (3, H, W), floating point in [0, 1].
        landmarks: Five points (x, y), shape (5, 2), in pixels of the photograph, in the order: eye on the left of the image, other eye,
            tip of the nose, corner of the mouth on the left of the image, other corner.
        template: Positions of the five points on the crop, shape (5, 2), in pixels. Default: :data:`ARCFACE_112`.
        size: Height and width (h, w) of the crop in pixels. Default: (112, 112).
        box: Left, top, right and bottom of the face, shape (4,), in pixels. Default: the bounding box of the landmarks.
        score: Score of the detector, in [0, 1]. Default: 1.0.
        index: Index among the faces of the photograph. Default: 0.
        antialias: Whether pixels of a shrunk crop are averages over their area. False samples bilinearly as ``cv2.warpAffine`` does,
            which many published networks were trained on but which is noisy for large photographs. Default: True.

    Returns:
        Aligned face as :class:`AlignedFace`, with its ``crop`` of shape (3, h, w), float32 in [0, 1].

    Raises:
        CaptumLeamError: If a shape or the range of the photograph is wrong, or the landmarks coincide.

    See Also:
        * :class:`~captum_leam.faces.FaceAligner`: Detection of the five points.
        * :class:`~captum_leam.faces.AlignedFace`: Result, with maps between crop and photograph.

    Example:
        >>> import torch
        >>> photo = torch.rand(3, 200, 300, generator=torch.Generator().manual_seed(0))
        >>> points = [(56, 83), (127, 83), (92, 123), (63, 165), (121, 165)]
        >>> face = align(photo, points)
        >>> face.crop.shape
        torch.Size([3, 112, 112])
        >>> face.crop_landmarks[0].round(), ARCFACE_112[0].round()  # the left eye is where the template has it
        (array([38., 52.]), array([38., 52.]))
    """
    photo = as_photo(photo)
    points = five_points(landmarks, "landmarks")
    transform = similarity_transform(points, five_points(template, "template"))
    bounding_box = np.concatenate([points.min(axis=0), points.max(axis=0)])
    return AlignedFace(
        crop=warp(photo, inverse(transform), size, antialias=antialias).clamp(0, 1),
        transform=transform,
        box=bounding_box if box is None else np.asarray(box, dtype=np.float64),
        landmarks=points,
        score=score,
        photo_size=(int(photo.shape[1]), int(photo.shape[2])),
        index=index,
        antialias=antialias,
    )


TEMPLATES: dict[str, tuple[Floats, tuple[int, int]]] = {
    "arcface112": (ARCFACE_112, (112, 112)),
    "arcface112x96": (ARCFACE_112X96, (112, 96)),
}
"""Five points of each standard template, and the size (h, w) of its crop in pixels."""


def template_for(size: tuple[int, int]) -> str:
    """Return the name of the standard template for a crop size, which is square or has 7 rows to 6 columns.

    Args:
        size: Height and width (h, w) of the crop in pixels.

    Returns:
        ``"arcface112"`` or ``"arcface112x96"``.

    Raises:
        CaptumLeamError: If no standard template has this aspect ratio.

    Example:
        >>> template_for((160, 160)), template_for((112, 96))
        ('arcface112', 'arcface112x96')
    """
    for name, (_, (height, width)) in TEMPLATES.items():
        if abs(size[0] * width - size[1] * height) <= max(height, width) / 2:  # sizes are rounded to whole pixels
            return name
    raise CaptumLeamError(
        f"Expected size to be square or in the ratio 112 × 96, as the standard templates, got (h, w) = {size}. Pass five points as "
        "template: FaceAligner(template=…, size=…)."
    )


def resolve_template(
    template: str | ArrayLike, size: int | tuple[int, int] | None = None
) -> tuple[Floats, tuple[int, int]]:
    """Return the five points of a template and the size of its crop.

    Args:
        template: Name of a standard template, or five points (x, y), shape (5, 2), in pixels of the crop.
        size: Height and width (h, w) of the crop in pixels, or one number for a square. Default: the template's own size.

    Returns:
        Five points (x, y), shape (5, 2), and the size (h, w).

    Raises:
        CaptumLeamError: If the name is unknown, the size does not fit the template or is missing for custom points, or the points do not
            form a face inside the crop.

    Example:
        >>> resolve_template("arcface112", 224)[0].round(2).tolist()[0]
        [77.09, 103.89]
        >>> bool((resolve_template("arcface112x96")[0] == ARCFACE_112X96).all())
        True
    """
    sides = (size, size) if isinstance(size, int) else size
    if isinstance(template, str):
        if template not in TEMPLATES:
            raise CaptumLeamError(
                f"Expected template to be one of {', '.join(map(repr, TEMPLATES))} or five points (5, 2), got {template!r}."
            )
        standard_points, standard_size = TEMPLATES[template]
        sides = sides or standard_size
        if template_for(sides) != template:
            raise CaptumLeamError(
                f"Expected size to have the aspect ratio {standard_size} of {template!r}, got {sides}. Pass template="
                f"{template_for(sides)!r}, or five points of such a crop."
            )
        points = scale_points(standard_points, sides[0] / standard_size[0])
    else:
        if sides is None:
            raise CaptumLeamError(
                "Expected size with a template of five points, got None. Pass the size (h, w) of its crop."
            )
        points = five_points(template, "template")
    if min(sides) < 16:
        raise CaptumLeamError(f"Expected size to be 16 px or more, got {sides}.")
    if (points < -0.5).any() or (points > np.array(sides[::-1]) - 0.5).any() or misfit(points) > MAX_MISFIT:
        raise CaptumLeamError(
            f"Expected template to be five points of a face within a crop of (h, w) = {tuple(sides)}, got {points.round(1).tolist()}. Pass "
            f"points (x, y) in pixels in the order {POINT_ORDER}."
        )
    return points, (int(sides[0]), int(sides[1]))


def as_photo(photo: Tensor) -> Tensor:
    """Return a photograph as float32 on the CPU, detached, after validating it.

    Args:
        photo: RGB photograph of shape (3, H, W), floating point in [0, 1].

    Raises:
        CaptumLeamError: If the shape, the data type or the range is wrong.

    Example:
        >>> import torch
        >>> as_photo(torch.ones(3, 2, 2, dtype=torch.float64)).dtype
        torch.float32
    """
    if photo.ndim != 3 or photo.shape[0] != 3 or not photo.is_floating_point():
        raise CaptumLeamError(
            f"Expected photo to be an RGB photograph of shape (3, H, W), floating point in [0, 1], got {photo.dtype} of shape "
            f"{tuple(photo.shape)}. Use read_photo(path), or picture.permute(2, 0, 1) / 255."
        )
    if not bool(((photo >= 0) & (photo <= 1)).all()):
        raise CaptumLeamError(
            f"Expected photo to have RGB values in [0, 1], got values from {float(photo.min()):.3g} to {float(photo.max()):.3g}."
        )
    return photo.detach().cpu().float()
