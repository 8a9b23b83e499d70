"""Extremal perturbation: search for the pixels of a given area whose replacement lowers a similarity most."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_leam._engine.arithmetic import at_least_float32, normal, own_arithmetic
from captum_leam._engine.outputs import noise_floor
from captum_leam.errors import CaptumLeamError
from captum_leam.explainers.base import Explainer, as_map_batch, cosines
from captum_leam.maps import default_blur, soft_mask
from captum_leam.objectives import direction

SOFTNESS = (1.0, 0.1)
"""Width τ of the mask's edges at the first and the last step, in units of the heights."""


class ExtremalPerturbation(Explainer):
    r"""Mask of a given area that lowers the similarity most (extremal perturbation).

    The mask m, with a share a of the pixels, is found by gradient descent:

    .. math:: \min_\theta\; s\big((1 - m) \odot x + m \odot x'\big), \qquad
       m = \sigma\Big(\frac{U(\theta) - q}{\tau}\Big), \qquad \mathrm{mean}\, m = a

    where s is the similarity to the reference, x the image, and x′ its replacement. The mask is given by heights :math:`\theta` on a coarse
    grid, which U enlarges to the size of the image. The threshold q keeps the area constant, and the edges become sharper as :math:`\tau`
    falls from 1 to 0.1. Of several random starts, the mask that lowers the similarity most is kept.

    The method takes hundreds of passes for a single area. Use it as an upper limit for the occlusion drops of other methods rather than as
    an explanation.

    ``attribute`` returns maps of shape (N, 1, H, W), positive at the selected pixels and negative elsewhere.

    Source: Fong, Patrick, Vedaldi, "Understanding Deep Networks via Extremal Perturbations and Smooth Masks", ICCV 2019, arXiv
    1910.08485. The paper constrains the area by a penalty on the sorted mask instead of a threshold, and smooths the masks.

    Args:
        model: Function from images (N, C, H, W) to embeddings (N, D), differentiable.
        area: Share of the pixels that is replaced, in (0, 1). Default: 0.05.
        n_steps: Number of steps of the descent, 1 or more. Default: 300.
        restarts: Number of random starts, 1 or more. Default: 3.
        grid: Number of heights in each direction, 1 or more. Default: 28.
        fill: Function from images (N, C, H, W) to their replacement of the same shape. Default: a blur of σ = 10 px per 112 px of width.
        learning_rate: Learning rate of the optimiser (Adam), above 0. Default: 0.3.
        seed: Seed of the random heights. Default: 0.
        batch_size: Maximum number of images in one pass. Default: 8.

    Raises:
        CaptumLeamError: If an argument is out of range.

    See Also:
        :class:`~captum_leam.faithfulness.OcclusionEvaluator`: Drops of maps by occlusion.

    Example:
        The embedding of this model is its pixels, and the reference is bright on the left half only. The mask of a quarter of the pixels
        lies on the left:

        >>> left = torch.zeros(8, 8)
        >>> left[:, :4] = 1
        >>> method = ExtremalPerturbation(
        ...     torch.nn.Flatten(), area=0.25, n_steps=20, restarts=1, grid=4, fill=torch.zeros_like
        ... )
        >>> maps = method.attribute(torch.ones(1, 1, 8, 8), reference=left.flatten())
        >>> [int((half > 0).sum()) for half in maps.split(4, dim=3)]  # selected pixels on the left, on the right
        [16, 0]
        >>> method.cost
        Cost(forwards=21.0, backwards=20.0)
    """

    def __init__(
        self,
        model: Callable[..., Tensor],
        *,
        area: float = 0.05,
        n_steps: int = 300,
        restarts: int = 3,
        grid: int = 28,
        fill: Callable[[Tensor], Tensor] = default_blur,
        learning_rate: float = 0.3,
        seed: int = 0,
        batch_size: int = 8,
    ) -> None:
        super().__init__(model, seed=seed, batch_size=batch_size)
        if not 0 < area < 1:
            raise CaptumLeamError(f"Expected area to be a share of the pixels in (0, 1), such as 0.05, got {area}.")
        for name, value in (("n_steps", n_steps), ("restarts", restarts), ("grid", grid)):
            if value < 1:
                raise CaptumLeamError(f"Expected {name} to be 1 or more, got {value}.")
        if learning_rate <= 0:
            raise CaptumLeamError(f"Expected learning_rate to be positive, got {learning_rate}.")
        self.area, self.n_steps, self.restarts, self.grid = area, n_steps, restarts, grid
        self.fill, self.learning_rate = fill, learning_rate

    def _signed(self, images: Tensor, reference: Tensor | None) -> Tensor:
        with torch.no_grad():
            rows = self._embed(images) if reference is None else reference
            replaced = self.fill(images)
        best = torch.empty_like(images[:, :1])
        lowest = torch.full_like(images[:, 0, 0, 0], torch.inf)
        for restart in range(self.restarts):
            maps = self._descend(images, replaced, rows, self.seed + restart)
            score = self._score(images, replaced, (maps > 0).to(images), rows).detach()
            is_lower = score < lowest - noise_floor(images)  # rounding must not choose between equal masks
            best = torch.where(is_lower[:, None, None, None], maps, best)
            lowest = torch.where(is_lower, score, lowest)
        return as_map_batch(best)

    def _descend(self, images: Tensor, replaced: Tensor, rows: Tensor, seed: int) -> Tensor:
        """Return the margins (n, 1, H, W) after a descent from random heights, which all images share."""
        size = (images.shape[2], images.shape[3])
        start = 0.1 * normal((1, 1, self.grid, self.grid), torch.Generator().manual_seed(seed))
        heights = start.to(at_least_float32(images)).repeat(len(images), 1, 1, 1).requires_grad_()
        adam = torch.optim.Adam([heights], lr=self.learning_rate)
        for step in range(self.n_steps):
            mask = soft_mask(enlarge(heights, size), self.area, softness(step, self.n_steps))
            heights.grad = self._gradient(self._score(images, replaced, mask, rows), heights)
            with own_arithmetic(heights.device):
                adam.step()
        return margins(enlarge(heights.detach(), size), self.area)

    def _score(self, images: Tensor, replaced: Tensor, mask: Tensor, rows: Tensor) -> Tensor:
        """Return the cosines (n,) of images that are replaced where the mask (n, 1, H, W) is 1."""
        embeddings = self._embed(images + mask.to(images) * (replaced - images))
        return cosines(embeddings, direction(embeddings, rows))


def softness(step: int, n_steps: int) -> float:
    """Return the width of the mask's edges at a step of the descent.

    It changes between the values of :data:`SOFTNESS` in equal ratios.

    Args:
        step: Number of the step, from 0.
        n_steps: Total number of steps.

    Returns:
        Width of the edges, on the scale of the heights.

    Example:
        >>> [round(softness(step, 3), 3) for step in range(3)]
        [1.0, 0.316, 0.1]
    """
    first, last = SOFTNESS
    return float(first * (last / first) ** (step / max(n_steps - 1, 1)))


def enlarge(heights: Tensor, size: tuple[int, int]) -> Tensor:
    """Return heights (N, 1, g, g) at image size (N, 1, H, W), interpolated bilinearly."""
    return F.interpolate(heights, size, mode="bilinear", align_corners=False)


def margins(heights: Tensor, area: float) -> Tensor:
    """Return the heights minus the height that a given share of the pixels exceeds.

    Args:
        heights: Heights of shape (N, 1, H, W).
        area: Share of the pixels in (0, 1). At least one pixel and not all of them are selected.

    Returns:
        Margins of shape (N, 1, H, W), positive for that share of the pixels, or for fewer if heights are equal.

    Example:
        >>> margins(torch.tensor([[[[1.0, 5.0], [2.0, 4.0]]]]), 0.5).flatten().tolist()
        [-2.0, 2.0, -1.0, 1.0]
    """
    pixels = heights[0].numel()
    count = min(max(1, round(area * pixels)), pixels - 1)
    highest = heights.flatten(1).topk(count + 1, dim=1).values
    threshold = highest[:, -2:].mean(1)  # halfway between the lowest selected and the highest other pixel
    return heights - threshold[:, None, None, None]
