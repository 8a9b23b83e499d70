"""Fills: replacements of occluded pixels.

A fill is a function of images (N, C, H, W), or of images and boolean masks (N, H, W) of the pixels to replace, that returns images of
the same shape. Only the masked pixels of its result are used.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from captum_leam._engine.arithmetic import normal
from captum_leam.errors import CaptumLeamError
from captum_leam.maps import default_blur

# direct neighbours weigh twice as much as diagonal ones (Rong et al. 2022, equation 4)
ROAD_WEIGHTS = {(0, 1): 1 / 6, (1, 0): 1 / 6, (0, -1): 1 / 6, (-1, 0): 1 / 6}
ROAD_WEIGHTS |= {(1, 1): 1 / 12, (1, -1): 1 / 12, (-1, 1): 1 / 12, (-1, -1): 1 / 12}
ROAD_NOISE = 0.01


@dataclass(frozen=True)
class Fill:
    """Named replacement of occluded pixels.

    Attributes:
        name: Name of the fill in tables.
        function: Function from images and masks to images.
        uses_masks: Whether the result depends on the masks; if not, it is computed once for all masks. Default: False.

    Example:
        >>> grey = Fill("grey", lambda images, masks: torch.full_like(images, 0.5))
        >>> grey(torch.zeros(1, 1, 1, 2)).tolist(), sorted(FILLS)
        ([[[[0.5, 0.5]]]], ['blur', 'mean', 'noisy linear', 'shuffle', 'zero'])
    """

    name: str
    function: Callable[[Tensor, Tensor | None], Tensor]
    uses_masks: bool = False

    def __call__(self, images: Tensor, masks: Tensor | None = None) -> Tensor:
        """Return the images as they look if every pixel is replaced; only the masked pixels of the result are used.

        Args:
            images: Images, shape (N, C, H, W).
            masks: Pixels to replace, boolean, shape (N, H, W). Default: None, for fills that do not use masks.

        Returns:
            Images of the same shape.

        Raises:
            CaptumLeamError: If the function changes the shape.

        Example:
            >>> inverted = Fill("inverted", lambda images, masks: 1 - images)
            >>> inverted(torch.tensor([[[[0.0, 0.25]]]])).tolist()
            [[[[1.0, 0.75]]]]
        """
        filled = self.function(images, masks)
        if filled.shape != images.shape:
            raise CaptumLeamError(
                f"Expected the fill {self.name!r} to return images of shape {tuple(images.shape)}, got {tuple(filled.shape)}."
            )
        return filled


def zero(images: Tensor) -> Tensor:
    """Return black images (0), the usual fill of published deletion tests.

    Args:
        images: Images, shape (N, C, H, W).

    Returns:
        Images of the same shape.

    Note:
        Scattered black pixels act as adversarial noise, so that results are best read beside those of :func:`blur`.

    Example:
        >>> zero(torch.ones(1, 3, 2, 2)).sum().item()
        0.0
    """
    return torch.zeros_like(images)


def mean_colour(images: Tensor) -> Tensor:
    """Return images that are filled with their own mean colour.

    Args:
        images: Images, shape (N, C, H, W).

    Returns:
        Images of the same shape.

    Example:
        >>> mean_colour(torch.tensor([[[[0.0, 1.0]]]])).tolist()
        [[[[0.5, 0.5]]]]
    """
    return images.mean((2, 3), keepdim=True).expand_as(images)


def blur(images: Tensor) -> Tensor:
    """Return blurred images, which still look like faces.

    The blur is Gaussian with a standard deviation of 10 px per 112 px of width.

    Args:
        images: Images, shape (N, C, H, W).

    Returns:
        Images of the same shape.

    Example:
        >>> image = torch.zeros(1, 1, 112, 112)
        >>> image[..., 56:] = 1.0  # black on the left, white on the right
        >>> print(blur(image)[0, 0, 0, [0, 51, 60, 111]].numpy().round(1))
        [0.  0.3 0.7 1. ]
    """
    return default_blur(images)


def shuffle(images: Tensor) -> Tensor:
    """Return images with shuffled pixels, which keep the colours of the image and lose its shapes.

    The permutation is the same for all images of one size.

    Args:
        images: Images, shape (N, C, H, W).

    Returns:
        Images of the same shape.

    Example:
        >>> image = torch.arange(4.0).view(1, 1, 2, 2)
        >>> sorted(shuffle(image).flatten().tolist())  # the same values at other places
        [0.0, 1.0, 2.0, 3.0]
    """
    order = torch.randperm(images[0, 0].numel(), generator=torch.Generator().manual_seed(0), device="cpu")
    return images.flatten(2)[:, :, order.to(images.device)].view_as(images)


def noisy_linear(images: Tensor, masks: Tensor | None) -> Tensor:
    """Return images with noisy linear imputation, which hardly reveals the shape of the mask.

    Each masked pixel is the weighted mean of its neighbours plus noise; the masked pixels of an image solve one sparse linear system.

    Source: ROAD, Rong et al. 2022, equation 4.

    Args:
        images: Images, shape (N, C, H, W).
        masks: Pixels to replace, boolean, shape (N, H, W).

    Returns:
        Images of the same shape, with seeded noise of 0.01 times the standard deviation of the image.

    Raises:
        CaptumLeamError: Without masks.

    Example:
        >>> image, mask = torch.full((1, 1, 4, 4), 0.5), torch.zeros(1, 4, 4, dtype=torch.bool)
        >>> image[0, 0, 1, 1], mask[0, 1, 1] = 1.0, True  # a white pixel in a grey image
        >>> round(noisy_linear(image, mask)[0, 0, 1, 1].item(), 2)  # has the grey of its neighbours
        0.5
    """
    if masks is None:
        raise CaptumLeamError("Expected `masks` for noisy_linear, which fills from the pixels around them, got none.")
    noise = normal(images[0].shape, torch.Generator().manual_seed(0)).to(images)
    filled = [_impute(x, m) for x, m in zip(images.cpu().double().numpy(), masks.cpu().numpy(), strict=True)]
    out = torch.from_numpy(np.stack(filled)).to(images) if filled else images.clone()
    return out + ROAD_NOISE * images.std((1, 2, 3), keepdim=True) * noise * masks[:, None].to(images)


def _impute(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return one image, shape (C, H, W), with the solution of the linear system at its masked pixels."""
    from scipy.sparse import csc_matrix
    from scipy.sparse.linalg import splu

    if mask.all():
        return np.broadcast_to(image.mean((1, 2), keepdims=True), image.shape)  # no neighbour is known
    rows, columns = np.nonzero(mask)
    if not len(rows):
        return image
    number = np.full(mask.shape, -1)
    number[rows, columns] = np.arange(len(rows))
    entries: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    known = np.zeros((len(rows), image.shape[0]))
    total = np.zeros(len(rows))
    for (down, right), weight in ROAD_WEIGHTS.items():
        r, c = rows + down, columns + right
        inside = (r >= 0) & (r < mask.shape[0]) & (c >= 0) & (c < mask.shape[1])
        r, c, here = r[inside], c[inside], np.nonzero(inside)[0]
        total[here] += weight
        neighbour = number[r, c]
        unknown = neighbour >= 0
        entries.append((here[unknown], neighbour[unknown], np.full(int(unknown.sum()), -weight)))
        np.add.at(known, here[~unknown], weight * image[:, r[~unknown], c[~unknown]].T)
    diagonal = np.arange(len(rows))
    i, j, v = (np.concatenate(parts) for parts in zip(*entries, (diagonal, diagonal, total), strict=True))
    out = image.copy()
    out[:, rows, columns] = splu(csc_matrix((v, (i, j)), shape=(len(rows), len(rows)))).solve(known).T
    return out


FILLS: dict[str, Callable[..., Tensor]] = {
    "zero": zero,
    "mean": mean_colour,
    "blur": blur,
    "noisy linear": noisy_linear,
    "shuffle": shuffle,
}
"""Fills by name."""


def as_fill(fill: "str | Fill | Callable[..., Tensor]") -> Fill:
    """Return a :class:`Fill` by its name, or from a function.

    Args:
        fill: Name in :data:`FILLS` (``"zero"``, ``"mean"``, ``"blur"``, ``"noisy linear"`` or ``"shuffle"``); a :class:`Fill`; or a
            function of images (N, C, H, W), or of images and boolean masks (N, H, W), that returns images of the same shape.

    Returns:
        :class:`Fill`, which is returned as it is if it was passed as one.

    Raises:
        CaptumLeamError: If the name is unknown.

    See Also:
        :func:`~captum_leam.faithfulness.occlude`: Replacement of masked pixels.

    Example:
        >>> as_fill("zero")(torch.ones(1, 1, 1, 2)).tolist()
        [[[[0.0, 0.0]]]]
        >>> as_fill(lambda images: 1 - images)(torch.ones(1, 1, 1, 2)).tolist()
        [[[[0.0, 0.0]]]]
    """
    if isinstance(fill, Fill):
        return fill
    if isinstance(fill, str):
        if fill not in FILLS:
            raise CaptumLeamError(
                f"Expected `fill` to be one of {', '.join(map(repr, FILLS))}, or a function, got {fill!r}."
            )
        name, function = fill, FILLS[fill]
    else:
        name = next((n for n, f in FILLS.items() if f is fill), getattr(fill, "__name__", type(fill).__name__))
        function = fill
    if _positional(function) >= 2:
        return Fill(name, function, uses_masks=True)
    return Fill(name, lambda images, masks: function(images))


def _positional(function: Callable[..., Tensor]) -> int:
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # a builtin without a signature is a function of images
        return 1
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty for p in parameters)
