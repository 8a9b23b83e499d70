"""Extremal perturbation of a similarity: the pixels of a given area that lower it most, found by descent. The limit of any map."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_leam._engine.arithmetic import at_least_float32, normal, own_arithmetic
from captum_leam._engine.outputs import vanishing
from captum_leam.errors import CaptumLeamError
from captum_leam.explainers.base import Explainer, as_map_batch, cosines
from captum_leam.maps import default_blur, soft_mask
from captum_leam.objectives import direction

SOFTNESS = (1.0, 0.1)
"""Width τ of the mask's edges at the first and at the last step, in units of the heights."""


class ExtremalPerturbation(Explainer):
    r"""The mask of a given area whose replacement lowers the similarity most.

    .. math:: \min_\theta\; s\big((1 - m) \odot x + m \odot x'\big), \qquad
       m = \sigma\Big(\frac{U(\theta) - q}{\tau}\Big), \qquad \mathrm{mean}\, m = a

    with :math:`\theta` heights on a coarse grid, U bilinear enlarging to image size, q the threshold under which the mask has the area a
    (and through which the gradient flows: a pixel rises only where it does more than those it drives out), x′ the image that is
    replaced everywhere, and :math:`\tau` falling from 1 to 0.1 in equal ratios. Adam takes ``n_steps`` steps from small random
    heights; of several restarts, the one whose top pixels lower the score most, replaced outright, is kept for each image. The map
    is :math:`U(\theta)` minus the height that a share a of the pixels exceeds: positive there.

    It looks at the score of hundreds of changed images and is made for one area: slow, and no explanation to compare with, but the *limit*
    against which the occlusion drops of maps are read.

    Source: Fong, Patrick, Vedaldi, "Understanding Deep Networks via Extremal Perturbations and Smooth Masks", ICCV 2019, arXiv
    1910.08485, where a penalty on the sorted mask keeps the area; here the threshold does. The masks are not smoothed.

    Args:
        model: images to embeddings, differentiable.
        area: share of the pixels that is replaced, in (0, 1).
        n_steps: of Adam.
        restarts: from different random heights.
        grid: heights in each direction.
        fill: images to what replaces them; a blur of σ 10 px per 112 px by default, as in the occlusion check.
        learning_rate: of Adam.
        seed: of the random heights.
        batch_size: images in one pass.

    Raises:
        CaptumLeamError: for settings out of range.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 8)).eval()
        >>> method = ExtremalPerturbation(model, area=0.25, n_steps=5, restarts=2, grid=4)
        >>> maps = method.attribute(torch.rand(2, 3, 8, 8), reference=torch.randn(2, 8))
        >>> (maps > 0).sum((1, 2, 3)).tolist(), method.cost
        ([16, 16], Cost(forwards=12.0, backwards=10.0))
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
            raise CaptumLeamError(f"area is {area}; expected a share of the pixels within (0, 1), for example 0.05.")
        if min(n_steps, restarts, grid) < 1 or learning_rate <= 0:
            raise CaptumLeamError(
                f"n_steps is {n_steps}, restarts {restarts}, grid {grid}, learning_rate {learning_rate}; expected 1 or more, and a "
                "rate > 0."
            )
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
            lower = score < lowest - vanishing(images)  # two restarts may find the same pixels
            best = torch.where(lower[:, None, None, None], maps, best)
            lowest = torch.where(lower, score, lowest)
        return as_map_batch(best)

    def _descend(self, images: Tensor, replaced: Tensor, rows: Tensor, seed: int) -> Tensor:
        """Margins (n, 1, H, W) after the descent from one set of random heights, the same for every image."""
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
        """Cosines (n,) of images that are replaced where the mask (n, 1, H, W) is 1."""
        embeddings = self._embed(images + mask.to(images) * (replaced - images))
        return cosines(embeddings, direction(embeddings, rows))


def softness(step: int, n_steps: int) -> float:
    """Width of the mask's edge at a step: from the first to the last value of :data:`SOFTNESS` in equal ratios.

    Example:
        >>> [round(softness(step, 3), 3) for step in range(3)]
        [1.0, 0.316, 0.1]
    """
    first, last = SOFTNESS
    return float(first * (last / first) ** (step / max(n_steps - 1, 1)))


def enlarge(heights: Tensor, size: tuple[int, int]) -> Tensor:
    """Heights (N, 1, g, g) at image size (N, 1, H, W), bilinear."""
    return F.interpolate(heights, size, mode="bilinear", align_corners=False)


def margins(heights: Tensor, area: float) -> Tensor:
    """Heights minus the one that a share of the pixels exceeds.

    Args:
        heights: (N, 1, H, W).
        area: share of the pixels, in (0, 1); at least one pixel, and not all.

    Returns:
        (N, 1, H, W), positive for that share of the pixels, or for fewer where heights tie there.

    Example:
        >>> margins(torch.tensor([[[[1.0, 5.0], [2.0, 4.0]]]]), 0.5).flatten().tolist()
        [-2.0, 2.0, -1.0, 1.0]
    """
    pixels = heights[0].numel()
    count = min(max(1, round(area * pixels)), pixels - 1)
    highest = heights.flatten(1).topk(count + 1, dim=1).values
    threshold = highest[:, -2:].mean(1)  # between the last pixel inside and the first outside
    return heights - threshold[:, None, None, None]
