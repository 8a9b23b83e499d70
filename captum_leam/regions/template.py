"""Parser without weights that uses a hand-drawn template of the standard aligned crop.

Recognition networks read crops aligned to five points, so that eyes, nose and mouth have similar positions in all crops. The template
shows what 40 hand-labelled crops have in common (``benchmarks/template_iou.py`` measures its fit). It is the same for every face and
inaccurate for turned heads, open mouths and hair, for which a trained parser is preferable.
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
"""Points (x, y) of shape (P, 2) in pixels, with (0, 0) at the centre of the first pixel."""

STANDARD_SIZE = (112, 112)
"""Height and width (H, W) of the standard crop in pixels."""

ARCFACE_LANDMARKS: Points = np.array(
    [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)]
)
"""Five points (x, y) of the standard crop of 112 × 112 px, in pixels, in the order of :data:`LANDMARK_NAMES`."""
ARCFACE_LANDMARKS.setflags(write=False)

LANDMARK_NAMES = ("left_eye", "right_eye", "nose_tip", "left_mouth_corner", "right_mouth_corner")
"""Names of the five points. Left is that of the *image*, so that ``left_eye`` is the person's right eye."""

MAX_STRETCH = 0.1  # relative difference of a crop's aspect ratio from that of the template
MAX_RESIDUAL = 0.4  # root mean square distance of five points from those of a face, in distances between the eyes


# -- outlines on the standard crop ---------------------------------------------------------------------

MIDLINE = 56.0
BROW_LINE = 44.5  # lower end of the forehead and upper end of the cheeks

# Symmetric outlines have points (y, half width), from top to bottom.
HEAD = ((5, 12), (9, 24), (18, 34), (30, 39), (48, 44), (60, 48), (72, 47), (84, 42), (96, 38), (108, 29), (114, 20))
FACE = ((14, 12), (18, 22), (30, 29), (42, 33), (54, 35), (72, 35), (84, 33), (90, 31), (96, 28), (102, 24), (110, 12))
NOSE = ((50.5, 4.5), (60, 5.5), (65, 7), (70, 9.5), (74.5, 11), (77, 10), (79, 7.5), (80.5, 5))
MOUTH = ((87.6, 8), (89, 11), (90, 12.5), (92.3, 15.5), (94, 13), (95, 11.5), (97, 8.5), (99, 4.5))
CHIN = ((96, 12), (114, 30))

# Outlines of pairs have points (x, y) of the left one, and the right one is its mirror image.
CHEEK = ((0, BROW_LINE), (MIDLINE, BROW_LINE), (MIDLINE, 112), (0, 112))
EYE = ((31, 52.5), (34, 50), (38, 48.8), (41.5, 50), (45, 53), (41.5, 55), (36, 55.2))
BROW = ((23.5, 44.5), (27.5, 40.5), (34, 39.2), (42, 41.5), (48.5, 43), (48, 46.5), (43, 47), (36, 45.3), (28, 44.5))


def mirror(points: ArrayLike) -> Points:
    """Return points mirrored at the midline of the standard crop.

    Args:
        points: Points (x, y) of shape (P, 2), in pixels.

    Example:
        >>> mirror([(38.0, 52.0)]).tolist()
        [[74.0, 52.0]]
    """
    return as_array(points) * (-1, 1) + (2 * MIDLINE, 0)


def symmetric_outline(widths: Sequence[tuple[float, float]]) -> Points:
    """Return the outline of a symmetric shape.

    Args:
        widths: Points (y, half width) from top to bottom, in pixels.

    Returns:
        Points (x, y) of shape (P, 2), in pixels.

    Example:
        >>> symmetric_outline([(0, 1), (5, 2)]).tolist()
        [[55.0, 0.0], [54.0, 5.0], [58.0, 5.0], [57.0, 0.0]]
    """
    left = np.array([(MIDLINE - half, y) for y, half in widths], dtype=np.float64)
    return np.concatenate([left, mirror(left)[::-1]])


def template_outlines() -> list[tuple[str, Points, bool]]:
    """Return region, outline on the standard crop, and whether it is clipped to the face, from back to front.

    Example:
        >>> [region for region, _, is_clipped in template_outlines() if is_clipped]
        ['left_cheek', 'right_cheek', 'chin']
    """
    return [
        ("outline", symmetric_outline(HEAD), False),
        ("forehead", symmetric_outline(FACE), False),
        ("left_cheek", np.array(CHEEK), True),
        ("right_cheek", mirror(CHEEK), True),
        ("chin", symmetric_outline(CHIN), True),
        ("mouth", symmetric_outline(MOUTH), False),
        ("nose", symmetric_outline(NOSE), False),
        ("left_eye", np.array(EYE), False),
        ("right_eye", mirror(EYE), False),
        ("left_brow", np.array(BROW), False),
        ("right_brow", mirror(BROW), False),
    ]


# -- transfer to other crops ---------------------------------------------------------------------------


def as_landmarks(landmarks: ArrayLike) -> Points:
    """Return finite landmarks as an array.

    Args:
        landmarks: Five points (x, y), shape (5, 2), or (N, 5, 2) for N images.

    Raises:
        CaptumLeamError: If the shape is wrong, or a value is NaN or infinite.

    Example:
        >>> as_landmarks(ARCFACE_LANDMARKS).shape
        (5, 2)
    """
    points = as_array(landmarks)
    if points.shape[-2:] != (5, 2) or points.ndim not in (2, 3):
        raise CaptumLeamError(
            f"Expected landmarks to have shape (5, 2) or (N, 5, 2), got {points.shape}. Pass x and y of {', '.join(LANDMARK_NAMES)}."
        )
    if not np.isfinite(points).all():
        raise CaptumLeamError(
            "Expected landmarks to be finite, got NaN or infinite values. Omit images without a detected face."
        )
    return points


def rescale(points: ArrayLike, size: tuple[int, int], to: tuple[int, int]) -> Points:
    """Return the points of a crop after it is resized, with pixel edges at the same relative positions.

    Args:
        points: Points (x, y) of shape (..., 2), in pixels.
        size: Height and width (H, W) of the crop in pixels.
        to: Height and width (H, W) of the resized crop in pixels.

    Returns:
        Points (x, y) of the same shape, in pixels of the resized crop.

    Example:
        >>> rescale([(0.5, 0.5), (27.5, 13.5)], (112, 112), (56, 224)).tolist()
        [[1.5, 0.0], [55.5, 6.5]]
    """
    ratio = np.array([to[1] / size[1], to[0] / size[0]])
    resized: Points = (as_array(points) + 0.5) * ratio - 0.5
    return resized


def align_to_landmarks(points: Points, landmarks: Points) -> Points:
    """Return points of the standard crop on a crop with other landmarks, by the best similarity transform.

    Args:
        points: Points (x, y) of the standard crop, shape (P, 2), in pixels.
        landmarks: Five points (x, y) of the other crop, shape (5, 2), in pixels.

    Returns:
        Points (x, y) of the other crop, shape (P, 2), in pixels.

    Raises:
        CaptumLeamError: If the landmarks coincide, or do not resemble five points of a face.

    Example:
        >>> align_to_landmarks(np.array([[56.0, 100.0]]), 2 * ARCFACE_LANDMARKS + 1).round(6).tolist()
        [[113.0, 201.0]]
    """
    estimate_transform = import_optional("skimage.transform").estimate_transform

    eye_distance = float(np.linalg.norm(landmarks[1] - landmarks[0]))
    transform = estimate_transform("similarity", ARCFACE_LANDMARKS, landmarks) if eye_distance > 0 else None
    if not transform or not np.isfinite(transform.params).all():
        raise CaptumLeamError("Expected landmarks to be five different points of a face, got points that coincide.")
    residual = float(np.sqrt(((transform(ARCFACE_LANDMARKS) - landmarks) ** 2).sum(1).mean())) / eye_distance
    if residual > MAX_RESIDUAL:
        raise CaptumLeamError(
            f"Expected landmarks to look like a face, got points {residual:.2f} eye distances away from one after alignment (at most "
            f"{MAX_RESIDUAL}). Pass (x, y) of {', '.join(LANDMARK_NAMES)} in this order, with left as smaller x."
        )
    aligned: Points = np.round(transform(points), 6)  # rounding errors must not decide about pixels on an edge
    return aligned


def polygon_mask(outline: Points, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return a mask of the pixels whose centre lies inside an outline.

    Args:
        outline: Points (x, y) of shape (P, 2), in pixels, which may lie outside the crop.
        size: Height and width (H, W) of the crop in pixels.

    Returns:
        Boolean mask of shape (H, W).

    Example:
        >>> polygon_mask(np.array([(0.6, -5), (3, -5), (3, 0.4), (0.6, 0.4)]), (2, 4)).astype(int)
        array([[0, 1, 1, 1],
               [0, 0, 0, 0]])
    """
    polygon = import_optional("skimage.draw").polygon

    mask = np.zeros(size, dtype=np.bool_)
    mask[polygon(outline[:, 1], outline[:, 0], size)] = True
    return mask


class TemplateParser:
    """Parser of aligned crops that returns the same hand-drawn regions for every face, without weights.

    The regions are those of :data:`~captum_leam.regions.TEMPLATE`, with left and right of the *image*. The outline is the rim of the face:
    hairline, temples, ears and the edge of the jaw. The cheeks extend from brows to chin, around eyes, nose and mouth.

    Args:
        landmarks: Positions (x, y) of the five points of :data:`LANDMARK_NAMES` after the alignment, shape (5, 2), in pixels. The template
            is adapted by the best similarity transform. Default: :data:`ARCFACE_LANDMARKS`.
        size: Height and width (H, W) in pixels of the crop of these landmarks. The template is scaled to crops of other sizes. Default:
            (112, 112).

    Raises:
        CaptumLeamError: If the landmarks lie outside the crop or do not look like a face.

    See Also:
        * :class:`~captum_leam.regions.FacexlibParser`: Regions that fit the individual face.
        * :func:`~captum_leam.regions.region_report`: Report of maps by region.

    Example:
        >>> parser = TemplateParser()
        >>> images = torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(0))
        >>> labels = parser(images)
        >>> labels.shape, labels.dtype
        (torch.Size([2, 112, 112]), torch.int64)
        >>> [parser.scheme.regions[label] for label in labels[0, [72, 52, 93], [56, 38, 56]].tolist()]
        ['nose', 'left_eye', 'mouth']
    """

    scheme: RegionScheme = TEMPLATE

    def __init__(self, landmarks: ArrayLike = ARCFACE_LANDMARKS, size: tuple[int, int] = STANDARD_SIZE) -> None:
        points = as_landmarks(landmarks)
        if points.ndim != 2:
            raise CaptumLeamError(f"Expected landmarks to have shape (5, 2), shared by all crops, got {points.shape}.")
        if (points < -0.5).any() or (points > np.array([size[1], size[0]]) - 0.5).any():
            raise CaptumLeamError(
                f"Expected landmarks (x, y) to lie inside the crop of (H, W) = {tuple(size)}, got {points.round(1).tolist()}. Pass the "
                "size of their crop."
            )
        self.landmarks = points
        self.size = (int(size[0]), int(size[1]))
        self._outlines = [
            (region, align_to_landmarks(outline, points), is_clipped)
            for region, outline, is_clipped in template_outlines()
        ]

    @classmethod
    def from_size(cls, size: tuple[int, int]) -> "TemplateParser":
        """Return the parser for crops of a size with the standard alignment (:func:`captum_leam.faces.template_for`).

        Args:
            size: Height and width (h, w) of the crops in pixels, square or in the ratio 112 × 96.

        Returns:
            Parser with the landmarks of the standard template at this size.

        Raises:
            CaptumLeamError: If no standard template has this aspect ratio.

        Example:
            >>> TemplateParser.from_size((112, 96)).landmarks[0].round(4).tolist()
            [30.2946, 51.6963]
        """
        return cls(*resolve_template(template_for(size), size))

    def __repr__(self) -> str:
        return f"TemplateParser(landmarks={self.landmarks.round(1).tolist()}, size={self.size})"

    def __call__(self, images: Tensor) -> Tensor:
        """Return the same label map for each image.

        Faces are at the same place in aligned crops, so that only number, size and device of the images are used.

        Args:
            images: Images of shape (N, C, H, W), of any type and range.

        Returns:
            Label maps of shape (N, H, W), int64, in the labels of ``scheme``, on the device of the images.

        Raises:
            CaptumLeamError: If the images have another shape, or an aspect ratio that differs from that of the template.

        Example:
            >>> labels = TemplateParser()(torch.zeros(2, 3, 112, 112))
            >>> labels.shape, TEMPLATE.regions[int(labels[0, 70, 56])]  # the middle of the crop
            (torch.Size([2, 112, 112]), 'nose')
        """
        if images.ndim != 4:
            raise CaptumLeamError(
                f"Expected images to have shape (N, C, H, W), got {tuple(images.shape)}. Pass a single image as image[None]."
            )
        label_map = torch.from_numpy(self.draw((images.shape[2], images.shape[3]))).to(images.device)
        return label_map.repeat(len(images), 1, 1)

    def draw(self, size: tuple[int, int] | None = None) -> NDArray[np.int64]:
        """Return the label map of the template.

        Args:
            size: Height and width (H, W) in pixels, whose ratio may differ by 10 % from that of the template. Default: the template's
                size.

        Returns:
            Label map of shape (H, W), in the labels of ``scheme``.

        Raises:
            CaptumLeamError: If the ratio differs by more than 10 %.

        Example:
            >>> TemplateParser().draw((28, 28)).shape
            (28, 28)
        """
        size = self.size if size is None else size
        self._check_aspect(size)
        label_map = np.zeros(size, dtype=np.int64)
        for region, outline, is_clipped in self._outlines:
            pixels = polygon_mask(rescale(outline, self.size, size), size)
            if is_clipped:  # the outline of the forehead, drawn before, is that of the whole face
                pixels &= label_map >= self.scheme.index("forehead")
            label_map[pixels] = self.scheme.index(region)
        return label_map

    def _check_aspect(self, size: tuple[int, int]) -> None:
        stretch = (size[1] / size[0]) / (self.size[1] / self.size[0])
        if abs(np.log(stretch)) > np.log1p(MAX_STRETCH):
            raise CaptumLeamError(
                f"Expected images with the aspect ratio of the template, {self.size}, got (H, W) = {tuple(size)}, which is another "
                "alignment, not another size. Pass the five points of these crops to TemplateParser(landmarks=…, size=…)."
            )
