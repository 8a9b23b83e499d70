"""One aligned face: its crop, and results drawn on the photograph again."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from captum_leam.errors import CaptumLeamError
from captum_leam.faces.detections import MAX_MISFIT
from captum_leam.faces.geometry import (
    ARCFACE_112,
    ARCFACE_112X96,
    Floats,
    five_points,
    inverse,
    misfit,
    moved,
    scaled,
    similarity,
    warp,
)


@dataclass(frozen=True)
class AlignedFace:
    """One face: its aligned crop, and the way between photograph and crop.

    Example:
        >>> import torch
        >>> from captum_leam.faces import ARCFACE_112
        >>> face = align(torch.rand(3, 200, 300), ARCFACE_112 + 40)
        >>> face.size, round(face.scale, 3), face.to_photo(torch.ones(112, 112)).shape
        ((112, 112), 1.0, torch.Size([200, 300]))
    """

    crop: Tensor = field(repr=False)
    """(3, h, w), float32 in [0, 1]; black where it reaches beyond the photograph."""
    transform: Floats = field(repr=False)
    """(2, 3), from pixels (x, y) of the photograph to pixels of the crop: a rotation, a scale and a shift."""
    box: Floats
    """(4,): left, top, right, bottom in pixels of the photograph."""
    landmarks: Floats = field(repr=False)
    """(5, 2) as (x, y) in pixels of the photograph."""
    score: float
    """Of the detector, in [0, 1]."""
    photo_size: tuple[int, int]
    """(H, W) of the upright photograph."""
    index: int = 0
    """Among the detections of the photograph, the largest first."""
    antialias: bool = True
    """Whether pixels of a shrunk crop are averages over their area, see :func:`align`."""
    found: int = 1
    """Number of plausible faces that were found in the photograph."""
    turn: int = 0
    """Degrees counter-clockwise (0, 90, 180 or 270) by which the photograph was turned to find the face upright."""

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) of the crop."""
        return (int(self.crop.shape[-2]), int(self.crop.shape[-1]))

    @property
    def crop_landmarks(self) -> Floats:
        """(5, 2): where the landmarks lie on the crop."""
        return moved(self.landmarks, self.transform)

    @property
    def outline(self) -> Floats:
        """(4, 2): corners of the crop as (x, y) on the photograph."""
        height, width = self.size
        corners = np.array([(0, 0), (width, 0), (width, height), (0, height)]) - 0.5
        return moved(corners, inverse(self.transform))

    @property
    def scale(self) -> float:
        """Pixels of the crop for one pixel of the photograph; over 1 the face was enlarged."""
        return float(np.sqrt(abs(np.linalg.det(self.transform[:, :2]))))

    def to_photo(self, maps: Tensor, *, outside: float = 0.0) -> Tensor:
        """Bring attributions or labels of the crop back onto the photograph.

        Args:
            maps: (..., h, w), of the size of the crop. Floats are interpolated (bilinear); integers and booleans are labels: each
                pixel takes the nearest.
            outside: what pixels of the photograph get that the crop does not show; for labels usually the background.

        Returns:
            (..., H, W), same kind and device. Values are not rescaled: a map that summed to 1 no longer does.

        Raises:
            CaptumLeamError: for maps of another size than the crop.

        Example:
            >>> import torch
            >>> face = align(torch.rand(3, 200, 300), 2 * ARCFACE_112 - 20)
            >>> face.to_photo(torch.ones(112, 112)).shape, face.to_photo(torch.ones(2, 112, 112, dtype=torch.int64)).dtype
            (torch.Size([200, 300]), torch.int64)
        """
        self._check(maps, self.size, "crop")
        height, width = self.photo_size
        back = inverse(self.transform)
        corners = np.array([(x, y) for x in (-1.0, self.size[1]) for y in (-1.0, self.size[0])])
        reach = moved(corners, back)  # only these pixels can see the crop: photographs are large
        left, top = np.clip(np.floor(reach.min(axis=0)).astype(int), 0, (width, height))
        right, bottom = np.clip(np.ceil(reach.max(axis=0)).astype(int) + 1, 0, (width, height))
        drawn = maps.new_full((*maps.shape[:-2], height, width), outside)
        if right > left and bottom > top:
            from_part = self.transform.copy()
            from_part[:, 2] += self.transform[:, :2] @ np.array([left, top], dtype=np.float64)
            part = warp(maps, from_part, (int(bottom - top), int(right - left)), outside=outside)
            drawn[..., top:bottom, left:right] = part
        return drawn

    def to_crop(self, maps: Tensor, *, outside: float = 0.0) -> Tensor:
        """Bring attributions or labels of the photograph onto the crop, as the crop itself was made.

        Args:
            maps: (..., H, W), of the size of the photograph; floats bilinear, labels nearest.
            outside: what pixels of the crop get that lie beyond the photograph.

        Returns:
            (..., h, w), same kind and device.

        Raises:
            CaptumLeamError: for maps of another size than the photograph.

        Example:
            >>> import torch
            >>> photo = torch.rand(3, 200, 300)
            >>> face = align(photo, 2 * ARCFACE_112 - 20)
            >>> bool(torch.equal(face.to_crop(photo), face.crop))
            True
        """
        self._check(maps, self.photo_size, "photograph")
        return warp(maps, inverse(self.transform), self.size, outside=outside, antialias=self.antialias)

    def _check(self, maps: Tensor, size: tuple[int, int], what: str) -> None:
        if maps.ndim < 2 or tuple(maps.shape[-2:]) != size:
            raise CaptumLeamError(
                f"maps have shape {tuple(maps.shape)}, the {what} is {size}; expected (..., {size[0]}, {size[1]})."
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
    """Align one face whose five points are known, from any detector or by hand.

    Args:
        photo: (3, H, W) in [0, 1].
        landmarks: (5, 2) as (x, y) in pixels of the photograph.
        template: (5, 2), where the points belong on the crop.
        size: (h, w) of the crop.
        box: (4,) of the face; by default what the landmarks span.
        score: of the detector.
        index: among the faces of the photograph.
        antialias: where the face is shrunk, a pixel of the crop is the average over its area. False picks by bilinear
            interpolation, as ``cv2.warpAffine`` does, which made the training crops of many published networks; from large
            photographs that is noise.

    Raises:
        CaptumLeamError: for another shape or range, or landmarks that fall onto one another.

    Example:
        >>> import torch
        >>> align(torch.rand(3, 200, 300), 2 * ARCFACE_112 - 20).crop_landmarks.round(2).tolist()[0]
        [38.29, 51.7]
    """
    photo = as_photo(photo)
    points = five_points(landmarks, "landmarks")
    transform = similarity(points, five_points(template, "template"))
    span = np.concatenate([points.min(axis=0), points.max(axis=0)])
    return AlignedFace(
        crop=warp(photo, inverse(transform), size, antialias=antialias).clamp(0, 1),
        transform=transform,
        box=span if box is None else np.asarray(box, dtype=np.float64),
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
"""Name → five points, and (h, w) of the crop that they belong to."""


def template_for(size: tuple[int, int]) -> str:
    """Return the standard five-point template for a crop size: square, or 7 rows to 6 columns.

    Args:
        size: (h, w).

    Raises:
        CaptumLeamError: for another shape, which no standard template has.

    Example:
        >>> template_for((160, 160)), template_for((112, 96))
        ('arcface112', 'arcface112x96')
    """
    for name, (_, (height, width)) in TEMPLATES.items():
        if abs(size[0] * width - size[1] * height) <= max(height, width) / 2:  # half a pixel of rounding
            return name
    raise CaptumLeamError(
        f"no standard template has crops of (h, w) = {size}; there are square ones, and 112 × 96. Align with five points of your own: "
        "FaceAligner(template=…, size=…)."
    )


def resolve_template(
    template: str | ArrayLike, size: int | tuple[int, int] | None = None
) -> tuple[Floats, tuple[int, int]]:
    """Where the five points belong, and on a crop of which size.

    Returns:
        (5, 2) as (x, y), and (h, w).

    Raises:
        CaptumLeamError: for an unknown name, a named template on a crop of another shape, a template without size, ...
            are not a face or lie outside the crop.

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
                f"template is {template!r}; expected one of {', '.join(map(repr, TEMPLATES))}, or five points (5, 2)."
            )
        standard, own = TEMPLATES[template]
        sides = sides or own
        if template_for(sides) != template:
            raise CaptumLeamError(
                f"size is {sides}, and {template!r} belongs to crops of {own} or scaled; expected {template_for(sides)!r}, or "
                "template= five points (5, 2) of such a crop."
            )
        points = scaled(standard, sides[0] / own[0])
    else:
        if sides is None:
            raise CaptumLeamError("a template of your own needs size=, of the crop that its points belong to.")
        points = five_points(template, "template")
    if min(sides) < 16:
        raise CaptumLeamError(f"size is {sides}; expected 16 px or more.")
    if (points < -0.5).any() or (points > np.array(sides[::-1]) - 0.5).any() or misfit(points) > MAX_MISFIT:
        raise CaptumLeamError(
            f"template {points.round(1).tolist()} is no face within a crop of (h, w) = {tuple(sides)}; expected (x, y) in "
            "pixels: the eye at smaller x, the other eye, tip of the nose, the corner of the mouth at smaller x, the other."
        )
    return points, (int(sides[0]), int(sides[1]))


def as_photo(photo: Tensor) -> Tensor:
    """Validate a photograph and return it as float32 on the CPU, without a graph.

    Args:
        photo: (3, H, W), float in [0, 1].

    Raises:
        CaptumLeamError: for another shape, kind or range.

    Example:
        >>> import torch
        >>> as_photo(torch.ones(3, 2, 2, dtype=torch.float64)).dtype
        torch.float32
    """
    if photo.ndim != 3 or photo.shape[0] != 3 or not photo.is_floating_point():
        raise CaptumLeamError(
            f"the photograph is {photo.dtype} of shape {tuple(photo.shape)}; expected RGB (3, H, W), float in [0, 1]: "
            "read_photo(path) gives it, or picture.permute(2, 0, 1) / 255."
        )
    if not bool(((photo >= 0) & (photo <= 1)).all()):
        raise CaptumLeamError(
            f"the photograph holds values from {float(photo.min()):.3g} to {float(photo.max()):.3g}; expected RGB in [0, 1]."
        )
    return photo.detach().cpu().float()
