"""Similarities between photographs and crops, and warping along them. Pixel centres have whole coordinates."""

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
"""The five points of the standard 112 × 112 crop, (x, y) in pixels: the eye at smaller x, the other, the tip of the nose, the
corner of the mouth at smaller x, the other."""
ARCFACE_112.setflags(write=False)

ARCFACE_112X96: Floats = ARCFACE_112 - (8.0, 0.0)
"""The same on the crop of 112 rows and 96 columns that older networks read: the middle of the square one."""
ARCFACE_112X96.setflags(write=False)

MAX_FINER = 16  # samples a side for one pixel of a coarser grid


def five_points(points: ArrayLike, what: str) -> Floats:
    """Five finite points (x, y).

    Raises:
        CaptumLeamError: for another shape, or NaN or infinite values.

    Example:
        >>> five_points(ARCFACE_112, "template").shape
        (5, 2)
    """
    five = as_array(points)
    if five.shape != (5, 2) or not np.isfinite(five).all():
        raise CaptumLeamError(
            f"{what} has shape {five.shape}; expected five finite points (x, y): the eye at smaller x, the other eye, tip "
            "of the nose, the corner of the mouth at smaller x, the other corner."
        )
    return five


def scaled(points: Floats, ratio: float) -> Floats:
    """Points of a crop that is resized by a ratio; pixel centres keep to pixel centres.

    Example:
        >>> scaled(np.array([(0.5, 27.5)]), 2.0).tolist()
        [[1.5, 55.5]]
    """
    moved: Floats = (points + 0.5) * ratio - 0.5
    return moved


def similarity(source: Floats, target: Floats) -> Floats:
    """Return the rotation, scale and shift, without mirroring, that maps points to others with the least squared error.

    Source: Umeyama 1991, "Least-squares estimation of transformation parameters between two point patterns".

    Args:
        source: (P, 2) as (x, y).
        target: (P, 2).

    Returns:
        (2, 3), finite: x ↦ M[:, :2] x + M[:, 2].

    Raises:
        CaptumLeamError: if the points of the source fall onto one another.

    Example:
        >>> similarity(ARCFACE_112, 2 * ARCFACE_112 + 5).round(6).tolist()
        [[2.0, -0.0, 5.0], [0.0, 2.0, 5.0]]
    """
    estimate_transform = import_optional("skimage.transform").estimate_transform

    # a spread of nothing: scikit-image answers with NaN or a failure, by version
    found = estimate_transform("similarity", source, target) if np.ptp(source, axis=0).any() else None
    if not found or not np.isfinite(found.params).all():
        raise CaptumLeamError("the points fall onto one another; expected five points of a face.")
    matrix: Floats = np.asarray(found.params, dtype=np.float64)[:2]
    return matrix


def inverse(matrix: Floats) -> Floats:
    """Return the inverse of a (2, 3) transform.

    Example:
        >>> inverse(np.array([[2.0, 0.0, 6.0], [0.0, 2.0, 8.0]])).tolist()
        [[0.5, 0.0, -3.0], [0.0, 0.5, -4.0]]
    """
    linear = np.linalg.inv(matrix[:, :2])
    return np.concatenate([linear, -(linear @ matrix[:, 2:])], axis=1) + 0.0


def moved(points: Floats, matrix: Floats) -> Floats:
    """Points (P, 2) taken along a (2, 3) transform.

    Example:
        >>> moved(np.array([(1.0, 2.0)]), np.array([[2.0, 0.0, 6.0], [0.0, 2.0, 8.0]])).tolist()
        [[8.0, 12.0]]
    """
    there: Floats = points @ matrix[:, :2].T + matrix[:, 2]
    return there


def misfit(landmarks: Floats) -> float:
    """How far five points are from those of a face, however turned in the plane: 0 for the standard template.

    It is what is left after the best similarity onto the template, root mean square, as a share of the template's spread.

    Example:
        >>> misfit(3 * ARCFACE_112[:, ::-1] * (-1, 1)) < 1e-9, misfit(ARCFACE_112[[1, 0, 2, 4, 3]]) > 0.4  # turned; sides swapped
        (True, True)
    """
    left = moved(landmarks, similarity(landmarks, ARCFACE_112)) - ARCFACE_112
    spread = ARCFACE_112 - ARCFACE_112.mean(axis=0)
    return float(np.sqrt((left**2).sum() / (spread**2).sum()))


def distance_to(landmarks: Floats, template: Floats) -> float:
    """Return how far alignment moves a face whose points lie near those of a template already.

    Returns:
        Root mean square distance over the five points, in pixels. What no similarity undoes, as a turned head, does not count.

    Example:
        >>> round(distance_to(ARCFACE_112 + (3, 4), ARCFACE_112), 6)
        5.0
    """
    away = moved(template, similarity(landmarks, template)) - template
    return float(np.sqrt((away**2).sum(axis=1).mean()))


def warp(
    values: Tensor, back: Floats, size: tuple[int, int], *, outside: float = 0.0, antialias: bool = False
) -> Tensor:
    """Draw values on another grid: bilinear for floats, the nearest for integers and booleans.

    Args:
        values: (H, W), or with leading axes, (..., H, W); floats, integers or booleans.
        back: (2, 3), from pixels (x, y) of the new grid to pixels of the values.
        size: (H, W) of the new grid.
        outside: what lies beyond the values.
        antialias: where the new grid is coarser, average floats over the area of each new pixel instead of picking from it.

    Returns:
        ``(..., *size)``, same kind and device.

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
    finer = min(MAX_FINER, math.ceil(float(np.linalg.norm(back[:, :2], axis=0).max()) - 1e-6)) if antialias else 1
    if finer > 1 and values.is_floating_point():
        onto = back * (1 / finer, 1 / finer, 1)
        onto[:, 2] += back[:, :2] @ np.full(2, (1 - finer) / (2 * finer))
        fine = warp(values, onto, (size[0] * finer, size[1] * finer), outside=outside)
        planes = F.avg_pool2d(fine.reshape(1, -1, *fine.shape[-2:]), finer)
        return planes.reshape(*values.shape[:-2], *size)
    rows, columns = torch.meshgrid(*(torch.arange(s, device="cpu") for s in size), indexing="ij")
    pixels = torch.stack([columns, rows], dim=-1).double()
    where = pixels @ torch.from_numpy(back[:, :2].T.copy()) + torch.from_numpy(back[:, 2].copy())
    if not values.is_floating_point():
        return _nearest(values, where.to(values.device), int(outside))
    height, width = values.shape[-2:]
    # a border of the outside value around the picture, so that both kinds of values fade into it
    planes = F.pad(values.reshape(1, -1, height, width), (1, 1, 1, 1), value=outside)
    planes = planes.to(torch.promote_types(values.dtype, torch.float32))  # half precision cannot be sampled on a CPU
    grid = (where + 1) * 2 / torch.tensor([width + 1, height + 1], device="cpu", dtype=torch.float64) - 1
    drawn = F.grid_sample(planes, grid[None].to(planes), mode="bilinear", padding_mode="border", align_corners=True)
    return drawn.to(values.dtype).reshape(*values.shape[:-2], *size)


def _nearest(values: Tensor, where: Tensor, outside: int) -> Tensor:
    height, width = values.shape[-2:]
    column, row = (where + 0.5).floor().long().unbind(-1)
    within = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    drawn = values[..., row.clamp(0, height - 1), column.clamp(0, width - 1)]
    return torch.where(within, drawn, torch.tensor(outside, dtype=values.dtype, device=values.device))
