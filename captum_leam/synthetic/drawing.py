"""Draw batches of faces with exact region labels from numbers in [0, 1] for each part."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

SIZE = 112
PARTS: dict[str, int] = {"hair": 4, "face": 4, "brows": 4, "eyes": 5, "nose": 6, "mouth": 5}
"""Parts of a face from back to front, with the number of values that describe each."""

NUISANCE = 16
"""Number of nuisance values: translation 2, light 3, expression 2, background 6, occluder 3."""

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
"""Names of the regions, in the order of their labels."""

PART_REGIONS: dict[str, tuple[str, ...]] = {
    "hair": ("hair",),
    "face": ("skin",),
    "brows": ("left_brow", "right_brow"),
    "eyes": ("left_eye", "right_eye"),
    "nose": ("nose",),
    "mouth": ("mouth",),
}
OCCLUDER_SHARE = 0.1  # share of images with an occluder


def draw(parts: Mapping[str, Tensor], nuisance: Tensor) -> tuple[Tensor, Tensor]:
    """Draw faces from the numbers that describe them.

    Args:
        parts: Numbers in [0, 1] for each part, shape (N, K) with K as in :data:`PARTS`.
        nuisance: Nuisance values of shape (N, 16), in [0, 1].

    Returns:
        Images of shape (N, 3, 112, 112), RGB in [0, 1], and labels of shape (N, 112, 112), int64, indices of :data:`REGIONS`.

    Example:
        >>> images, labels = draw({name: torch.full((2, k), 0.5) for name, k in PARTS.items()}, torch.full((2, 16), 0.5))
        >>> images.shape, labels.unique().tolist()
        (torch.Size([2, 3, 112, 112]), [0, 1, 2, 3, 4, 5, 6, 7, 8])
        >>> (labels == REGIONS.index("nose")).any().item()
        True
    """
    canvas = _background(nuisance.T)
    for name, (paint_part, rows, columns) in PAINTERS.items():
        paint_part(canvas.window(rows, columns), parts[name].T, nuisance.T)
    _paint_occluder(canvas, nuisance.T)
    return _apply_light(canvas, nuisance.T), canvas.labels


@dataclass
class _Canvas:
    """Images and labels of a batch, or a window of them, painted in place from back to front."""

    x: Tensor
    y: Tensor
    images: Tensor
    labels: Tensor

    def window(self, rows: slice, columns: slice) -> "_Canvas":
        """Return a window of the canvas, so that small parts are painted without touching the whole image."""
        window = (..., rows, columns)
        return _Canvas(self.x[..., columns], self.y[:, rows], self.images[window], self.labels[window])

    def paint(self, distance: Tensor, colour: Tensor, region: str | None = None) -> None:
        """Paint a shape with an edge of about one pixel.

        Args:
            distance: Distance from the edge of the shape in pixels, positive inside, shape (N, h, w).
            colour: RGB colour of each image, shape (3, N).
            region: Region of the painted pixels. Default: None, for details inside a region.
        """
        opacity = torch.sigmoid(4 * distance)[:, None]
        self.images += opacity * (colour.T[..., None, None] - self.images)
        if region is not None:
            self.labels[distance > 0] = REGIONS.index(region)

    def ellipse(self, cx: Tensor, cy: Tensor, rx: Tensor, ry: Tensor, tilt: Tensor | None = None) -> Tensor:
        """Return the distance from the edge of ellipses; centres, radii and tilts (radians) have shape (N,)."""
        dx, dy = self.x - _per_image(cx), self.y - _per_image(cy)
        if tilt is not None:
            cos, sin = _per_image(torch.cos(tilt)), _per_image(torch.sin(tilt))
            dx, dy = cos * dx + sin * dy, cos * dy - sin * dx
        return _ellipse_distance(dx, dy, _per_image(rx), _per_image(ry))


def _background(n: Tensor) -> _Canvas:
    """Return a canvas with a gradient between two colours, and the face translated by up to two pixels."""
    axis = torch.arange(SIZE, device="cpu", dtype=torch.float32)
    y, x = axis[None, :, None] - _per_image(4 * (n[0] - 0.5)), axis[None, None, :] - _per_image(4 * (n[1] - 0.5))
    blend = (_per_image(n[7]) * axis[:, None] + (1 - _per_image(n[7])) * axis[None, :])[:, None] / SIZE
    end, start = (
        0.35 + 0.5 * torch.stack([n[i] for i in channels], 1)[..., None, None] for channels in ((8, 9, 10), (11, 12, 7))
    )
    images = start + (end - start) * blend
    return _Canvas(x, y, images.contiguous(), torch.zeros(len(images), SIZE, SIZE, device="cpu", dtype=torch.long))


def _paint_occluder(canvas: _Canvas, n: Tensor) -> None:
    """Paint a slanted bar over some of the faces."""
    cos, sin = (_per_image(f(3 * n[15])) for f in (torch.cos, torch.sin))
    offset = (canvas.x - _per_image(112 * n[13])) * cos + (canvas.y - _per_image(112 * n[15])) * sin
    has_occluder = _per_image(n[14] < OCCLUDER_SHARE)
    grey = torch.tensor([[0.2], [0.25], [0.3]], device="cpu", dtype=torch.float32).expand(3, len(canvas.images))
    canvas.paint(torch.where(has_occluder, 4.0 - offset.abs(), torch.full_like(offset, -9.0)), grey, "occluder")


def _apply_light(canvas: _Canvas, n: Tensor) -> Tensor:
    """Return the images under a light with a gain and a gradient."""
    gradient = _per_image(n[3] - 0.5) * (canvas.x - 56) / 112 + _per_image(n[4] - 0.5) * (canvas.y - 56) / 112
    return (canvas.images * (_per_image(0.8 + 0.35 * n[2]) + 0.5 * gradient)[:, None]).clamp(0, 1)


def _ellipse_distance(dx: Tensor, dy: Tensor, rx: Tensor, ry: Tensor) -> Tensor:
    """Return the distance from the edge of an ellipse in pixels, positive inside, to first order."""
    radius = torch.sqrt((dx / rx) ** 2 + (dy / ry) ** 2 + 1e-6)
    slope = torch.sqrt((dx / rx**2) ** 2 + (dy / ry**2) ** 2 + 1e-6)
    return radius * (1 - radius) / slope


def _per_image(values: Tensor) -> Tensor:
    return values[:, None, None]


def _mix(a: tuple[float, float, float], b: tuple[float, float, float], t: Tensor) -> Tensor:
    """Return colours (3, N) between two colours."""
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
        dx, bow, tilt = canvas.x - cx, _per_image(1.5 + 3.5 * p[1]), _per_image(side * 0.25 * (p[2] - 0.5))
        dy = canvas.y - _per_image(height) - bow * ((dx / 11) ** 2 - 0.5) + tilt * dx
        dy = dy / torch.sqrt(1 + (tilt - 2 * bow * dx / 121) ** 2)  # across the bow, not down
        canvas.paint(torch.minimum(11 - dx.abs(), _per_image(1.5 + 2 * p[3]) - dy.abs()), colour, region)


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
    along = ((canvas.y - _per_image(top)) / _per_image(76 - top)).clamp(
        0, 1
    )  # a triangle from the bridge down to a round tip
    triangle = torch.minimum(
        _per_image(width) * (0.25 + 0.75 * along) - (canvas.x - 56).abs(),
        torch.minimum(canvas.y - _per_image(top), 76 - canvas.y),
    )
    tip = canvas.ellipse(56 * one, 75 * one, width, 4 + 2.5 * p[4])
    whole = torch.maximum(triangle, tip)
    canvas.paint(whole, colour, "nose")
    canvas.paint(
        torch.minimum(whole, 1.2 + 1.2 * _per_image(p[5]) - (canvas.x - 56).abs()), (colour * 1.25).clamp(max=1)
    )  # ridge
    for side in (-1, 1):
        nostril = canvas.ellipse(56 + side * 0.5 * width, 76 * one, 1.2 + 1.6 * p[5], 1 + 1.2 * p[4])
        canvas.paint(torch.minimum(whole, nostril), colour * 0.4)


def _mouth(canvas: _Canvas, p: Tensor, n: Tensor) -> None:
    colour = _mix((0.38, 0.08, 0.16), (0.98, 0.58, 0.5), p[0]) * torch.stack(
        [1 + 0 * p[1], 0.6 + 0.7 * p[1], 0.6 + 1.0 * (1 - p[1])]
    )
    width = _per_image(13 + 8 * p[2])
    dx = canvas.x - 56
    bend = _per_image(6 * (p[4] - 0.5) + 1.5 * (n[5] - 0.5)) * (dx / width) ** 2
    dy = canvas.y - 92.3 + bend
    lips = _ellipse_distance(dx, dy, width, _per_image(4 + 5 * p[3]))
    canvas.paint(lips, colour.clamp(max=1), "mouth")
    gap = _ellipse_distance(dx, dy, 0.85 * width, _per_image(0.6 + 1.8 * n[6]))
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
"""Function that paints each part, with the rows and columns of its window."""
