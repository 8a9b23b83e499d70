"""Regions of the standard aligned crop, drawn by hand: a parser without weights.

Recognition networks see crops aligned to five points, so eyes, nose and mouth lie at much the same place in every crop. The
drawing is what 40 hand-labelled crops have in common (``benchmarks/template_iou.py`` prints how well it fits them); it
knows nothing of the face it is laid on. Turned heads, open mouths and hair are where it errs: there, use a trained parser.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from captum_leam._engine.arithmetic import as_array
from captum_leam._optional import import_optional
from captum_leam.errors import CaptumLeamError
from captum_leam.faces.aligned import resolve_template, template_for
from captum_leam.regions.scheme import TEMPLATE, RegionScheme

Points = NDArray[np.float64]
"""Points (P, 2) as (x, y) in pixels; (0, 0) is the centre of the first pixel."""

STANDARD_SIZE = (112, 112)
"""(H, W) of the standard crop."""

ARCFACE_LANDMARKS: Points = np.array(
    [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)]
)
"""The five points of the standard 112 × 112 crop, (x, y) in pixels, in the order of :data:`LANDMARK_NAMES`."""
ARCFACE_LANDMARKS.setflags(write=False)

LANDMARK_NAMES = ("left_eye", "right_eye", "nose_tip", "left_mouth_corner", "right_mouth_corner")
"""The five points. Left is the *image's*: ``left_eye`` is the eye at smaller x, the person's right one."""

MAX_STRETCH = 0.1  # how far the aspect of a crop may be from that of the template
MAX_RESIDUAL = 0.4  # how far five points may be from a face, in distances between the eyes


# -- the drawing, on the standard crop -----------------------------------------------------------------

MIDLINE = 56.0
BROW_LINE = 44.5  # where the forehead ends and the cheeks begin

# shapes that are their own mirror image: (y, half width) from the top down
HEAD = ((5, 12), (9, 24), (18, 34), (30, 39), (48, 44), (60, 48), (72, 47), (84, 42), (96, 38), (108, 29), (114, 20))
FACE = ((14, 12), (18, 22), (30, 29), (42, 33), (54, 35), (72, 35), (84, 33), (90, 31), (96, 28), (102, 24), (110, 12))
NOSE = ((50.5, 4.5), (60, 5.5), (65, 7), (70, 9.5), (74.5, 11), (77, 10), (79, 7.5), (80.5, 5))
MOUTH = ((87.6, 8), (89, 11), (90, 12.5), (92.3, 15.5), (94, 13), (95, 11.5), (97, 8.5), (99, 4.5))
CHIN = ((96, 12), (114, 30))

# the left one of a pair, (x, y); the right one is its mirror image
CHEEK = ((0, BROW_LINE), (MIDLINE, BROW_LINE), (MIDLINE, 112), (0, 112))
EYE = ((31, 52.5), (34, 50), (38, 48.8), (41.5, 50), (45, 53), (41.5, 55), (36, 55.2))
BROW = ((23.5, 44.5), (27.5, 40.5), (34, 39.2), (42, 41.5), (48.5, 43), (48, 46.5), (43, 47), (36, 45.3), (28, 44.5))


def mirrored(points: ArrayLike) -> Points:
    """Points (P, 2) on the other side of the midline of the standard crop.

    Example:
        >>> mirrored([(38.0, 52.0)]).tolist()
        [[74.0, 52.0]]
    """
    return as_array(points) * (-1, 1) + (2 * MIDLINE, 0)


def symmetric(widths: Sequence[tuple[float, float]]) -> Points:
    """Outline (P, 2) of a shape that is its own mirror image, from its (y, half width) from the top down.

    Example:
        >>> symmetric([(0, 1), (5, 2)]).tolist()
        [[55.0, 0.0], [54.0, 5.0], [58.0, 5.0], [57.0, 0.0]]
    """
    left = np.array([(MIDLINE - half, y) for y, half in widths], dtype=np.float64)
    return np.concatenate([left, mirrored(left)[::-1]])


def shapes() -> list[tuple[str, Points, bool]]:
    """Return the drawing from the outside in: region, outline on the standard crop, and whether it ends where the face does.

    Example:
        >>> [region for region, _, inside in shapes() if inside]
        ['left_cheek', 'right_cheek', 'chin']
    """
    return [
        ("outline", symmetric(HEAD), False),
        ("forehead", symmetric(FACE), False),
        ("left_cheek", np.array(CHEEK), True),
        ("right_cheek", mirrored(CHEEK), True),
        ("chin", symmetric(CHIN), True),
        ("mouth", symmetric(MOUTH), False),
        ("nose", symmetric(NOSE), False),
        ("left_eye", np.array(EYE), False),
        ("right_eye", mirrored(EYE), False),
        ("left_brow", np.array(BROW), False),
        ("right_brow", mirrored(BROW), False),
    ]


# -- where it goes -------------------------------------------------------------------------------------


def as_landmarks(landmarks: ArrayLike) -> Points:
    """Five finite points (x, y), shape (5, 2), or one set for every image, (N, 5, 2).

    Raises:
        CaptumLeamError: for another shape, or NaN or infinite values.

    Example:
        >>> as_landmarks(ARCFACE_LANDMARKS).shape
        (5, 2)
    """
    points = as_array(landmarks)
    if points.shape[-2:] != (5, 2) or points.ndim not in (2, 3):
        raise CaptumLeamError(
            f"landmarks have shape {points.shape}; expected (5, 2), or (N, 5, 2) where one set for every image is "
            f"taken: x and y of {', '.join(LANDMARK_NAMES)}."
        )
    if not np.isfinite(points).all():
        raise CaptumLeamError("landmarks hold NaN or infinite values; leave out the images where no face was found.")
    return points


def rescale(points: ArrayLike, size: tuple[int, int], to: tuple[int, int]) -> Points:
    """Where points of a crop lie once the crop is resized; pixel centres keep to pixel centres.

    Args:
        points: (x, y) in the last axis.
        size: (H, W) of the crop that the points belong to.
        to: (H, W) of the resized crop.

    Returns:
        The shape of ``points``.

    Example:
        >>> rescale([(0.5, 0.5), (27.5, 13.5)], (112, 112), (56, 224)).tolist()
        [[1.5, 0.0], [55.5, 6.5]]
    """
    ratio = np.array([to[1] / size[1], to[0] / size[0]])
    resized: Points = (as_array(points) + 0.5) * ratio - 0.5
    return resized


def move(points: Points, landmarks: Points) -> Points:
    """Take points of the standard crop to a crop with other landmarks, by the best rotation, scale and shift.

    Args:
        points: (P, 2) on the standard crop.
        landmarks: (5, 2), the five points on the other crop.

    Returns:
        (P, 2) on the other crop.

    Raises:
        CaptumLeamError: if the landmarks do not look like five points of a face.

    Example:
        >>> move(np.array([[56.0, 100.0]]), 2 * ARCFACE_LANDMARKS + 1).round(6).tolist()
        [[113.0, 201.0]]
    """
    estimate_transform = import_optional("skimage.transform").estimate_transform

    eyes = float(np.linalg.norm(landmarks[1] - landmarks[0]))
    found = estimate_transform("similarity", ARCFACE_LANDMARKS, landmarks) if eyes > 0 else None
    if not found or not np.isfinite(found.params).all():
        raise CaptumLeamError("landmarks fall onto one another; expected five points of a face.")
    off = float(np.sqrt(((found(ARCFACE_LANDMARKS) - landmarks) ** 2).sum(1).mean())) / eyes
    if off > MAX_RESIDUAL:
        raise CaptumLeamError(
            f"landmarks do not look like a face: after alignment they are off by {off:.2f} distances between the eyes "
            f"(allowed is {MAX_RESIDUAL}). Needed is (x, y) of {', '.join(LANDMARK_NAMES)}, in this order; left is "
            "the image's, at smaller x."
        )
    moved: Points = np.round(found(points), 6)  # rounding noise must not decide about pixels on an edge
    return moved


def fill(outline: Points, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels whose centre lies within an outline.

    Args:
        outline: (P, 2) as (x, y); what lies outside the crop is cut off.
        size: (H, W).

    Returns:
        Boolean, (H, W).

    Example:
        >>> fill(np.array([(0.6, -5), (3, -5), (3, 0.4), (0.6, 0.4)]), (2, 4)).astype(int)
        array([[0, 1, 1, 1],
               [0, 0, 0, 0]])
    """
    polygon = import_optional("skimage.draw").polygon

    inside = np.zeros(size, dtype=np.bool_)
    inside[polygon(outline[:, 1], outline[:, 0], size)] = True
    return inside


class TemplateParser:
    """Face regions of an aligned crop from a drawing, the same for every face; needs no weights.

    The regions are those of :data:`~captum_leam.regions.TEMPLATE`, left and right those of the *image*. The outline is
    the rim: hairline, temples, ears and the edge of the jaw. The cheeks are what lies between brows and chin around
    eyes, nose and mouth.

    Args:
        landmarks: (5, 2), where the alignment puts the five points of :data:`LANDMARK_NAMES`, (x, y) in pixels. The
            drawing follows by the best rotation, scale and shift.
        size: (H, W) of the crop that the landmarks belong to. Crops of another size get the drawing scaled.

    Raises:
        CaptumLeamError: for landmarks that lie outside the crop or do not look like a face.

    Example:
        >>> parser = TemplateParser()
        >>> labels = parser(torch.rand(2, 3, 112, 112))
        >>> labels.shape, labels.dtype
        (torch.Size([2, 112, 112]), torch.int64)
        >>> [parser.scheme.regions[label] for label in labels[0, [72, 52, 93], [56, 38, 56]].tolist()]
        ['nose', 'left_eye', 'mouth']
    """

    scheme: RegionScheme = TEMPLATE

    def __init__(self, landmarks: ArrayLike = ARCFACE_LANDMARKS, size: tuple[int, int] = STANDARD_SIZE) -> None:
        points = as_landmarks(landmarks)
        if points.ndim != 2:
            raise CaptumLeamError(f"landmarks have shape {points.shape}; expected (5, 2), shared by all crops.")
        if (points < -0.5).any() or (points > np.array([size[1], size[0]]) - 0.5).any():
            raise CaptumLeamError(
                f"landmarks {points.round(1).tolist()} (x, y) lie outside the crop of (H, W) = {tuple(size)}; give the "
                "size= that they belong to."
            )
        self.landmarks = points
        self.size = (int(size[0]), int(size[1]))
        self._shapes = [(region, move(outline, points), inside) for region, outline, inside in shapes()]

    @classmethod
    def of_size(cls, size: tuple[int, int]) -> "TemplateParser":
        """Return the template of crops of a size, as :func:`captum_leam.faces.template_for` names it: square, or 112 × 96 or scaled.

        Args:
            size: (h, w).

        Raises:
            CaptumLeamError: for a shape that no standard template has.

        Example:
            >>> TemplateParser.of_size((112, 96)).landmarks[0].round(4).tolist()
            [30.2946, 51.6963]
        """
        return cls(*resolve_template(template_for(size), size))

    def __repr__(self) -> str:
        return f"TemplateParser(landmarks={self.landmarks.round(1).tolist()}, size={self.size})"

    def __call__(self, images: Tensor) -> Tensor:
        """Label map of every image.

        Args:
            images: (N, C, H, W); only their number, size and device count.

        Returns:
            (N, H, W), int64, integers of ``scheme``, on the device of the images.

        Raises:
            CaptumLeamError: for another shape, or an aspect that the alignment does not produce.
        """
        if images.ndim != 4:
            raise CaptumLeamError(f"images have shape {tuple(images.shape)}; expected (N, C, H, W), one: image[None].")
        drawn = torch.from_numpy(self.draw((images.shape[2], images.shape[3]))).to(images.device)
        return drawn.repeat(len(images), 1, 1)

    def draw(self, size: tuple[int, int] | None = None) -> NDArray[np.int64]:
        """Return the drawing.

        Args:
            size: (H, W); by default that of the template. It may be stretched by 10 %.

        Returns:
            (H, W), integers of ``scheme``.

        Raises:
            CaptumLeamError: for an aspect further off than that.

        Example:
            >>> TemplateParser().draw((28, 28)).shape
            (28, 28)
        """
        size = self.size if size is None else size
        self._check_aspect(size)
        drawn = np.zeros(size, dtype=np.int64)
        for region, outline, inside in self._shapes:
            pixels = fill(rescale(outline, self.size, size), size)
            if inside:  # the forehead was filled first, as the whole face
                pixels &= drawn >= self.scheme.index("forehead")
            drawn[pixels] = self.scheme.index(region)
        return drawn

    def _check_aspect(self, size: tuple[int, int]) -> None:
        stretch = (size[1] / size[0]) / (self.size[1] / self.size[0])
        if abs(np.log(stretch)) > np.log1p(MAX_STRETCH):
            raise CaptumLeamError(
                f"images have (H, W) = {tuple(size)}, the template {self.size}: another alignment, not another size. Give "
                "TemplateParser(landmarks=…, size=…) the five points of these crops."
            )
