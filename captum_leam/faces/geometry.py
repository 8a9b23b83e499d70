"""Similarity transforms between photographs and crops, and resampling along them. Pixel centres have integer coordinates."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from captum_leam._engine.arithmetic import as_array
from captum_leam._optional import import_optional
from captum_leam.errors import CaptumLeamError

Floats = NDArray[np.float64]

ARCFACE_112: Floats = np.array(
    [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)]
)
"""Five points (x, y) of the standard crop of 112 × 112 px, in pixels: the eye at smaller x, the other eye, the tip of the nose, the
corner of the mouth at smaller x, the other corner."""
ARCFACE_112.setflags(write=False)

ARCFACE_112X96: Floats = ARCFACE_112 - (8.0, 0.0)
"""Five points (x, y) of the crop of 112 rows and 96 columns that older networks read, the middle of the square crop, in pixels."""
ARCFACE_112X96.setflags(write=False)

POINT_ORDER = "eye at smaller x, other eye, tip of the nose, mouth corner at smaller x, other mouth corner"
"""Order of the five points, as messages state it."""

MAX_OVERSAMPLING = 16  # samples along each axis for one pixel of a coarser grid


def five_points(points: ArrayLike, name: str) -> Floats:
    """Return five finite points (x, y) as an array.

    Args:
        points: Points of shape (5, 2).
        name: Name of the argument in the message.

    Raises:
        CaptumLeamError: If the shape is wrong, or a value is NaN or infinite.

    Example:
        >>> five_points(ARCFACE_112, "template").shape
        (5, 2)
    """
    five = as_array(points)
    if five.shape != (5, 2):
        raise CaptumLeamError(
            f"Expected {name} to have shape (5, 2), got shape {five.shape}. Pass points (x, y) in the order {POINT_ORDER}."
        )
    if not np.isfinite(five).all():
        raise CaptumLeamError(f"Expected {name} to be finite, got NaN or infinite values.")
    return five


def scale_points(points: Floats, ratio: float) -> Floats:
    """Return the points of a crop after it is resized, with pixel edges at the same relative positions.

    Args:
        points: Points (x, y) of shape (P, 2), in pixels.
        ratio: New size divided by the old size.

    Example:
        >>> scale_points(np.array([(0.5, 27.5)]), 2.0).tolist()
        [[1.5, 55.5]]
    """
    resized: Floats = (points + 0.5) * ratio - 0.5
    return resized


def similarity_transform(source: Floats, target: Floats) -> Floats:
    """Return the rotation, scale and translation, without reflection, between two sets of points with the least squared error.

    Source: Umeyama 1991, "Least-squares estimation of transformation parameters between two point patterns".

    Args:
        source: Points (x, y) of shape (P, 2).
        target: Corresponding points of shape (P, 2).

    Returns:
        Matrix M of shape (2, 3) for x ↦ M[:, :2] x + M[:, 2].

    Raises:
        CaptumLeamError: If the source points coincide.

    Example:
        >>> similarity_transform(ARCFACE_112, 2 * ARCFACE_112 + 5).round(6).tolist()
        [[2.0, -0.0, 5.0], [0.0, 2.0, 5.0]]
    """
    estimate_transform = import_optional("skimage.transform").estimate_transform

    # Versions of scikit-image differ in how they fail on points that coincide.
    estimate = estimate_transform("similarity", source, target) if np.ptp(source, axis=0).any() else None
    if not estimate or not np.isfinite(estimate.params).all():
        raise CaptumLeamError("Expected five different points of a face, got points that coincide.")
    matrix: Floats = np.asarray(estimate.params, dtype=np.float64)[:2]
    return matrix


def inverse(matrix: Floats) -> Floats:
    """Return the inverse of a transform.

    Args:
        matrix: Matrix of shape (2, 3).

    Example:
        >>> inverse(np.array([[2.0, 0.0, 6.0], [0.0, 2.0, 8.0]])).tolist()
        [[0.5, 0.0, -3.0], [0.0, 0.5, -4.0]]
    """
    linear = np.linalg.inv(matrix[:, :2])
    return np.concatenate([linear, -(linear @ matrix[:, 2:])], axis=1) + 0.0


def transform_points(points: Floats, matrix: Floats) -> Floats:
    """Return points after a transform.

    Args:
        points: Points (x, y) of shape (P, 2).
        matrix: Matrix of shape (2, 3).

    Example:
        >>> transform_points(np.array([(1.0, 2.0)]), np.array([[2.0, 0.0, 6.0], [0.0, 2.0, 8.0]])).tolist()
        [[8.0, 12.0]]
    """
    transformed: Floats = points @ matrix[:, :2].T + matrix[:, 2]
    return transformed


def misfit(landmarks: Floats) -> float:
    """Return the relative error of the best similarity transform of five points onto the standard template.

    Args:
        landmarks: Five points (x, y), shape (5, 2).

    Returns:
        Root mean square error as a share of the template's spread, 0 for the template itself in any rotation and scale.

    Example:
        >>> misfit(3 * ARCFACE_112[:, ::-1] * (-1, 1)) < 1e-9, misfit(ARCFACE_112[[1, 0, 2, 4, 3]]) > 0.4  # rotated; sides swapped
        (True, True)
    """
    residuals = transform_points(landmarks, similarity_transform(landmarks, ARCFACE_112)) - ARCFACE_112
    deviations = ARCFACE_112 - ARCFACE_112.mean(axis=0)
    return float(np.sqrt((residuals**2).sum() / (deviations**2).sum()))


def distance_to(landmarks: Floats, template: Floats) -> float:
    """Return the distance by which alignment would move the points of a template.

    Args:
        landmarks: Five points (x, y), shape (5, 2), in pixels of a crop.
        template: Five points (x, y), shape (5, 2), in pixels of the same crop.

    Returns:
        Root mean square distance over the five points in pixels. Differences that no similarity transform removes, such as those of a
        turned head, are ignored.

    Example:
        >>> round(distance_to(ARCFACE_112 + (3, 4), ARCFACE_112), 6)
        5.0
    """
    shifts = transform_points(template, similarity_transform(landmarks, template)) - template
    return float(np.sqrt((shifts**2).sum(axis=1).mean()))


def warp(
    values: Tensor, back: Floats, size: tuple[int, int], *, outside: float = 0.0, antialias: bool = False
) -> Tensor:
    """Resample values on another grid, bilinearly for floating-point values, with the nearest value for integers and booleans.

    Args:
        values: Values of shape (..., H, W).
        back: Matrix of shape (2, 3) from pixels (x, y) of the new grid to pixels of the values.
        size: Number of rows and columns of the new grid.
        outside: Value of pixels beyond the values. Default: 0.0.
        antialias: Whether to average floating-point values over the area of a new pixel if the new grid is coarser. Default: False.

    Returns:
        Values of shape ``(..., *size)``, of the same data type and on the same device.

    Example:
        >>> half = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.0]])
        >>> warp(torch.tensor([[2.0, 4.0, 8.0]]), half, (1, 2)).tolist()
        [[3.0, 6.0]]
        >>> warp(torch.tensor([[2, 4, 8]]), np.array([[1.0, 0.0, 1.2], [0.0, 1.0, 0.0]]), (1, 3), outside=-1).tolist()
        [[4, 8, -1]]
        >>> third = np.array([[3.0, 0.0, 1.0], [0.0, 3.0, 1.0]])
        >>> warp(torch.tensor([[3.0, 4.0, 8.0, 1.0, 0.0, 5.0]] * 3), third, (1, 2), antialias=True).round().tolist()
        [[5.0, 2.0]]
    """
    stretch = float(np.linalg.norm(back[:, :2], axis=0).max())
    oversampling = min(MAX_OVERSAMPLING, math.ceil(stretch - 1e-6)) if antialias else 1
    if oversampling > 1 and values.is_floating_point():
        fine_back = back * (1 / oversampling, 1 / oversampling, 1)
        fine_back[:, 2] += back[:, :2] @ np.full(2, (1 - oversampling) / (2 * oversampling))
        fine = warp(values, fine_back, (size[0] * oversampling, size[1] * oversampling), outside=outside)
        planes = F.avg_pool2d(fine.reshape(1, -1, *fine.shape[-2:]), oversampling)
        return planes.reshape(*values.shape[:-2], *size)
    rows, columns = torch.meshgrid(*(torch.arange(s, device="cpu") for s in size), indexing="ij")
    pixels = torch.stack([columns, rows], dim=-1).double()
    positions = pixels @ torch.from_numpy(back[:, :2].T.copy()) + torch.from_numpy(back[:, 2].copy())
    if not values.is_floating_point():
        return _nearest(values, positions.to(values.device), int(outside))
    height, width = values.shape[-2:]
    # The border holds the outside value, so that values are interpolated towards it.
    planes = F.pad(values.reshape(1, -1, height, width), (1, 1, 1, 1), value=outside)
    planes = planes.to(torch.promote_types(values.dtype, torch.float32))  # grid_sample has no half precision on a CPU
    grid = (positions + 1) * 2 / torch.tensor([width + 1, height + 1], device="cpu", dtype=torch.float64) - 1
    sampled = F.grid_sample(planes, grid[None].to(planes), mode="bilinear", padding_mode="border", align_corners=True)
    return sampled.to(values.dtype).reshape(*values.shape[:-2], *size)


def _nearest(values: Tensor, positions: Tensor, outside: int) -> Tensor:
    height, width = values.shape[-2:]
    column, row = (positions + 0.5).floor().long().unbind(-1)
    is_inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    nearest = values[..., row.clamp(0, height - 1), column.clamp(0, width - 1)]
    return torch.where(is_inside, nearest, torch.tensor(outside, dtype=values.dtype, device=values.device))
