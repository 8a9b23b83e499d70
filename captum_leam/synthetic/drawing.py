"""Drawing faces: numbers in [0, 1] for every part, to images and exact region labels. All faces of a batch at once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

SIZE = 112
PARTS: dict[str, int] = {"hair": 4, "face": 4, "brows": 4, "eyes": 5, "nose": 6, "mouth": 5}
"""Parts of a face, from back to front, and how many numbers describe each."""

NUISANCE = 16
"""Numbers that describe what is not the person: shift 2, light 3, expression 2, background 6, occluder 3."""

REGIONS = (
    "background",
    "hair",
    "skin",
    "left_brow",
    "right_brow",
    "left_eye",
    "right_eye",
    "nose",
    "mouth",
    "occluder",
)
"""Regions by label: what the pixels of a drawn face belong to."""

REGIONS_OF: dict[str, tuple[str, ...]] = {
    "hair": ("hair",),
    "face": ("skin",),
    "brows": ("left_brow", "right_brow"),
    "eyes": ("left_eye", "right_eye"),
    "nose": ("nose",),
    "mouth": ("mouth",),
}
OCCLUDED = 0.1  # share of images with an occluder


def draw(parts: Mapping[str, Tensor], nuisance: Tensor) -> tuple[Tensor, Tensor]:
    """Draw faces.

    Args:
        parts: name → numbers in [0, 1], (N, K) with K as in :data:`PARTS`.
        nuisance: (N, 16) in [0, 1].

    Returns:
        Images (N, 3, 112, 112), RGB in [0, 1], and labels (N, 112, 112), int64, numbers of :data:`REGIONS`.

    Example:
        >>> images, labels = draw({name: torch.full((2, k), 0.5) for name, k in PARTS.items()}, torch.full((2, 16), 0.5))
        >>> images.shape, labels.unique().tolist()
        (torch.Size([2, 3, 112, 112]), [0, 1, 2, 3, 4, 5, 6, 7, 8])
        >>> (labels == REGIONS.index("nose")).any().item()
        True
    """
    canvas = _blank(nuisance.T)
    for name, (painter, rows, columns) in PAINTERS.items():
        painter(canvas.within(rows, columns), parts[name].T, nuisance.T)
    _occluder(canvas, nuisance.T)
    return _light(canvas, nuisance.T), canvas.labels


@dataclass
class _Canvas:
    """Images and labels of a batch, painted in place from back to front; or a window onto them."""

    x: Tensor
    y: Tensor
    images: Tensor
    labels: Tensor

    def within(self, rows: slice, columns: slice) -> "_Canvas":
        """Return a view of a part of the canvas, so that small parts do not touch the whole image."""
        cut = (..., rows, columns)
        return _Canvas(self.x[..., columns], self.y[:, rows], self.images[cut], self.labels[cut])

    def paint(self, inside: Tensor, colour: Tensor, region: str | None = None) -> None:
        """Paint where ``inside`` (pixels from the edge, positive inside) is positive, with an edge one pixel soft.

        Args:
            inside: (N, h, w).
            colour: (3, N).
            region: that the pixels now belong to; None for details within a region.
        """
        cover = torch.sigmoid(4 * inside)[:, None]
        self.images += cover * (colour.T[..., None, None] - self.images)
        if region is not None:
            self.labels[inside > 0] = REGIONS.index(region)

    def ellipse(self, cx: Tensor, cy: Tensor, rx: Tensor, ry: Tensor, tilt: Tensor | None = None) -> Tensor:
        """Pixels from the edge of ellipses, positive inside; all (N,), tilt in radians."""
        dx, dy = self.x - _cell(cx), self.y - _cell(cy)
        if tilt is not None:
            cos, sin = _cell(torch.cos(tilt)), _cell(torch.sin(tilt))
            dx, dy = cos * dx + sin * dy, cos * dy - sin * dx
        return _oval(dx, dy, _cell(rx), _cell(ry))


def _blank(n: Tensor) -> _Canvas:
    """Return a background that fades between two colours, with the face shifted by up to two pixels."""
    axis = torch.arange(SIZE, device="cpu", dtype=torch.float32)
    y, x = axis[None, :, None] - _cell(4 * (n[0] - 0.5)), axis[None, None, :] - _cell(4 * (n[1] - 0.5))
    blend = (_cell(n[7]) * axis[:, None] + (1 - _cell(n[7])) * axis[None, :])[:, None] / SIZE
    one, two = (
        0.35 + 0.5 * torch.stack([n[i] for i in three], 1)[..., None, None] for three in ((8, 9, 10), (11, 12, 7))
    )
    images = two + (one - two) * blend
    return _Canvas(x, y, images.contiguous(), torch.zeros(len(images), SIZE, SIZE, device="cpu", dtype=torch.long))


def _occluder(canvas: _Canvas, n: Tensor) -> None:
    """Draw a slanted bar over some of the faces."""
    along, across = (_cell(f(3 * n[15])) for f in (torch.cos, torch.sin))
    offset = (canvas.x - _cell(112 * n[13])) * along + (canvas.y - _cell(112 * n[15])) * across
    there = _cell(n[14] < OCCLUDED)
    grey = torch.tensor([[0.2], [0.25], [0.3]], device="cpu", dtype=torch.float32).expand(3, len(canvas.images))
    canvas.paint(torch.where(there, 4.0 - offset.abs(), torch.full_like(offset, -9.0)), grey, "occluder")


def _light(canvas: _Canvas, n: Tensor) -> Tensor:
    """Apply the light to the images: a gain and a slope to one side."""
    slope = _cell(n[3] - 0.5) * (canvas.x - 56) / 112 + _cell(n[4] - 0.5) * (canvas.y - 56) / 112
    return (canvas.images * (_cell(0.8 + 0.35 * n[2]) + 0.5 * slope)[:, None]).clamp(0, 1)


def _oval(dx: Tensor, dy: Tensor, rx: Tensor, ry: Tensor) -> Tensor:
    """Pixels from the edge of an ellipse, positive inside, to first order: value over slope."""
    reach = torch.sqrt((dx / rx) ** 2 + (dy / ry) ** 2 + 1e-6)
    slope = torch.sqrt((dx / rx**2) ** 2 + (dy / ry**2) ** 2 + 1e-6)
    return reach * (1 - reach) / slope


def _cell(values: Tensor) -> Tensor:
    return values[:, None, None]


def _mix(a: tuple[float, float, float], b: tuple[float, float, float], t: Tensor) -> Tensor:
    """Colour between two, (3, N)."""
    return torch.stack([p + (q - p) * t for p, q in zip(a, b, strict=True)])


def _hair(canvas: _Canvas, p: Tensor, n: Tensor) -> None:
    colour = _mix((0.12, 0.08, 0.06), (0.85, 0.65, 0.35), p[0]) * (0.75 + 0.25 * p[1])
    one = torch.ones_like(p[0])
    canvas.paint(canvas.ellipse(56 * one, 50 * one, 46 + 6 * p[2], 46 + 8 * p[3]), colour, "hair")


def _face(canvas: _Canvas, p: Tensor, n: Tensor) -> None:
    skin = _mix((0.45, 0.29, 0.2), (0.96, 0.8, 0.68), p[0]) * torch.stack(
        [1 + 0 * p[1], 0.94 + 0.08 * p[1], 0.9 + 0.12 * p[1]]
    )
    one = torch.ones_like(p[0])
    canvas.paint(canvas.ellipse(56 * one, 66 * one, 36 + 6 * p[2], 44 + 6 * p[3]), skin, "skin")


def _brows(canvas: _Canvas, p: Tensor, n: Tensor) -> None:
    colour = _mix((0.1, 0.07, 0.05), (0.6, 0.42, 0.22), p[0])
    height = 38 - 4 * n[5]  # raised by the expression
    for side, cx, region in ((1, 38.3, "left_brow"), (-1, 73.5, "right_brow")):
        dx, bow, tilt = canvas.x - cx, _cell(1.5 + 3.5 * p[1]), _cell(side * 0.25 * (p[2] - 0.5))
        dy = canvas.y - _cell(height) - bow * ((dx / 11) ** 2 - 0.5) + tilt * dx
        dy = dy / torch.sqrt(1 + (tilt - 2 * bow * dx / 121) ** 2)  # across the bow, not down
        canvas.paint(torch.minimum(11 - dx.abs(), _cell(1.5 + 2 * p[3]) - dy.abs()), colour, region)


def _eyes(canvas: _Canvas, p: Tensor, n: Tensor) -> None:
    iris = torch.stack(
        [0.15 + 0.35 * p[0] * (1 - p[1]), 0.2 + 0.4 * p[1], 0.15 + 0.6 * (1 - p[0]) * (0.4 + 0.6 * p[1])]
    )
    white, black = torch.full_like(iris, 0.95), torch.full_like(iris, 0.05)
    for side, x, region in ((1, 38.3, "left_eye"), (-1, 73.5, "right_eye")):
        cx, cy = torch.full_like(p[0], x), torch.full_like(p[0], 51.6)
        whole = canvas.ellipse(cx, cy, 8 + 3.5 * p[2], 4 + 3 * p[3], side * 0.5 * (p[4] - 0.5))
        canvas.paint(whole, white, region)
        radius = 3 + 1.5 * p[3]
        canvas.paint(torch.minimum(whole, canvas.ellipse(cx, cy, radius, radius)), iris)
        canvas.paint(torch.minimum(whole, canvas.ellipse(cx, cy, 0.45 * radius, 0.45 * radius)), black)


def _nose(canvas: _Canvas, p: Tensor, n: Tensor) -> None:
    colour = _mix((0.55, 0.3, 0.22), (0.98, 0.72, 0.62), p[0]) * torch.stack(
        [1 + 0 * p[1], 0.75 + 0.35 * p[1], 0.7 + 0.5 * p[1]]
    )
    one = torch.ones_like(p[0])
    width, top = 7 + 5 * p[2], 70 - 12 - 6 * p[3]
    along = ((canvas.y - _cell(top)) / _cell(76 - top)).clamp(0, 1)  # a triangle from the bridge down to a round tip
    triangle = torch.minimum(
        _cell(width) * (0.25 + 0.75 * along) - (canvas.x - 56).abs(),
        torch.minimum(canvas.y - _cell(top), 76 - canvas.y),
    )
    tip = canvas.ellipse(56 * one, 75 * one, width, 4 + 2.5 * p[4])
    whole = torch.maximum(triangle, tip)
    canvas.paint(whole, colour, "nose")
    canvas.paint(
        torch.minimum(whole, 1.2 + 1.2 * _cell(p[5]) - (canvas.x - 56).abs()), (colour * 1.25).clamp(max=1)
    )  # ridge
    for side in (-1, 1):
        nostril = canvas.ellipse(56 + side * 0.5 * width, 76 * one, 1.2 + 1.6 * p[5], 1 + 1.2 * p[4])
        canvas.paint(torch.minimum(whole, nostril), colour * 0.4)


def _mouth(canvas: _Canvas, p: Tensor, n: Tensor) -> None:
    colour = _mix((0.38, 0.08, 0.16), (0.98, 0.58, 0.5), p[0]) * torch.stack(
        [1 + 0 * p[1], 0.6 + 0.7 * p[1], 0.6 + 1.0 * (1 - p[1])]
    )
    width = _cell(13 + 8 * p[2])
    dx = canvas.x - 56
    bend = _cell(6 * (p[4] - 0.5) + 1.5 * (n[5] - 0.5)) * (dx / width) ** 2
    dy = canvas.y - 92.3 + bend
    lips = _oval(dx, dy, width, _cell(4 + 5 * p[3]))
    canvas.paint(lips, colour.clamp(max=1), "mouth")
    gap = _oval(dx, dy, 0.85 * width, _cell(0.6 + 1.8 * n[6]))
    canvas.paint(torch.minimum(lips, gap), torch.full_like(colour, 0.15))


ALL = slice(0, SIZE)
PAINTERS: dict[str, tuple[Callable[[_Canvas, Tensor, Tensor], None], slice, slice]] = {
    "hair": (_hair, ALL, ALL),
    "face": (_face, ALL, ALL),
    "brows": (_brows, slice(24, 54), slice(20, 92)),
    "eyes": (_eyes, slice(38, 66), slice(22, 90)),
    "nose": (_nose, slice(46, 90), slice(38, 74)),
    "mouth": (_mouth, slice(76, 109), slice(30, 82)),
}
"""Who paints a part, and the window that it cannot leave."""
