"""What an occluded pixel is replaced with.

A fill is a function of the images (N, C, H, W), or of the images and the boolean masks (N, H, W) of the pixels that will be
replaced, to images of the same shape. Only the masked pixels of its result are used.
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

# Rong et al. 2022, equation 4: direct neighbours weigh twice as much as diagonal ones.
ROAD_WEIGHTS = {(0, 1): 1 / 6, (1, 0): 1 / 6, (0, -1): 1 / 6, (-1, 0): 1 / 6}
ROAD_WEIGHTS |= {(1, 1): 1 / 12, (1, -1): 1 / 12, (-1, 1): 1 / 12, (-1, -1): 1 / 12}
ROAD_NOISE = 0.01


@dataclass(frozen=True)
class Fill:
    """A fill with its name.

    Attributes:
        name: in tables.
        function: images and masks → images.
        uses_masks: whether the result depends on the masks; if not, it is made once for all.

    Example:
        >>> grey = Fill("grey", lambda images, masks: torch.full_like(images, 0.5))
        >>> grey(torch.zeros(1, 1, 1, 2)).tolist(), sorted(FILLS)
        ([[[[0.5, 0.5]]]], ['blur', 'mean', 'noisy linear', 'shuffle', 'zero'])
    """

    name: str
    function: Callable[[Tensor, Tensor | None], Tensor]
    uses_masks: bool = False

    def __call__(self, images: Tensor, masks: Tensor | None = None) -> Tensor:
        """Images of the same shape, whose masked pixels are taken.

        Raises:
            CaptumLeamError: if the function changes the shape.
        """
        filled = self.function(images, masks)
        if filled.shape != images.shape:
            raise CaptumLeamError(
                f"fill {self.name!r} made {tuple(filled.shape)} of images {tuple(images.shape)}; expected the same shape."
            )
        return filled


def zero(images: Tensor) -> Tensor:
    """Black (0): the published protocol. Scattered black pixels are adversarial noise; read it beside :func:`blur`.

    Example:
        >>> zero(torch.ones(1, 3, 2, 2)).sum().item()
        0.0
    """
    return torch.zeros_like(images)


def mean_colour(images: Tensor) -> Tensor:
    """Return images of the mean colour of each image.

    Example:
        >>> mean_colour(torch.tensor([[[[0.0, 1.0]]]])).tolist()
        [[[[0.5, 0.5]]]]
    """
    return images.mean((2, 3), keepdim=True).expand_as(images)


def blur(images: Tensor) -> Tensor:
    """Blur the image with a Gaussian of σ = 10 px per 112 px of width: stays close to what faces look like.

    Example:
        >>> blur(torch.rand(1, 3, 112, 112)).shape
        torch.Size([1, 3, 112, 112])
    """
    return default_blur(images)


def shuffle(images: Tensor) -> Tensor:
    """Shuffle the pixels of the image, by the same permutation in every image: keeps the colours, not their places.

    Example:
        >>> x = torch.rand(1, 3, 4, 4)
        >>> torch.equal(shuffle(x).flatten(2).sort().values, x.flatten(2).sort().values)
        True
    """
    order = torch.randperm(images[0, 0].numel(), generator=torch.Generator().manual_seed(0), device="cpu")
    return images.flatten(2)[:, :, order.to(images.device)].view_as(images)


def noisy_linear(images: Tensor, masks: Tensor | None) -> Tensor:
    """Noisy linear imputation (ROAD, Rong et al. 2022): each masked pixel the weighted mean of its neighbours, plus noise.

    The masked pixels of an image solve one sparse linear system; the rest is as it was. Hardly reveals the shape of the mask.

    Args:
        images: Images (N, C, H, W).
        masks: boolean (N, H, W).

    Returns:
        The shape of the images; with seeded noise of standard deviation 0.01 times that of the image.

    Example:
        >>> x = torch.full((1, 1, 4, 4), 0.5); mask = torch.zeros(1, 4, 4, dtype=torch.bool); mask[0, 1, 1] = True
        >>> noisy_linear(x, mask).unique().tolist()
        [0.5]
    """
    if masks is None:
        raise CaptumLeamError("noisy_linear fills in from the pixels around a mask, and needs the masks.")
    noise = normal(images[0].shape, torch.Generator().manual_seed(0)).to(images)
    filled = [_impute(x, m) for x, m in zip(images.cpu().double().numpy(), masks.cpu().numpy(), strict=True)]
    out = torch.from_numpy(np.stack(filled)).to(images) if filled else images.clone()
    return out + ROAD_NOISE * images.std((1, 2, 3), keepdim=True) * noise * masks[:, None].to(images)


def _impute(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Solve for the masked pixels of one image (C, H, W)."""
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
"""Fills by name: what stands in place of occluded pixels."""


def as_fill(fill: "str | Fill | Callable[..., Tensor]") -> Fill:
    """Return a fill by its name, or from a function of images, or of images and masks.

    Raises:
        CaptumLeamError: for an unknown name.

    Example:
        >>> as_fill("blur").name, as_fill(lambda images: 1 - images).uses_masks
        ('blur', False)
    """
    if isinstance(fill, Fill):
        return fill
    if isinstance(fill, str):
        if fill not in FILLS:
            raise CaptumLeamError(f"fill is {fill!r}; expected one of {', '.join(map(repr, FILLS))}, or a function.")
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
    except ValueError:  # a builtin says nothing: of the images
        return 1
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty for p in parameters)
