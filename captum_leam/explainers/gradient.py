r"""Methods from input gradients: xSSAB, FGGB and FAME.

With unit embeddings :math:`f` of the image, :math:`g` of the reference, D dimensions and a decision threshold t, a similarity is a
sum over dimensions, :math:`s = \sum_k f_k g_k`, and each dimension's share of the threshold is :math:`t/D`.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from captum_leam._engine.arithmetic import at_least_float32, differentiate, own_arithmetic
from captum_leam._engine.checks import all_of_row, raise_if_any
from captum_leam._engine.outputs import vanishing
from captum_leam.errors import CaptumLeamError
from captum_leam.explainers.base import (
    SimilarityMaps,
    TwoSidedExplainer,
    as_map_batch,
    cosines,
    unit_and_direction,
)
from captum_leam.maps import gaussian_blur
from captum_leam.objectives import direction, reliability


class ThresholdExplainer(TwoSidedExplainer):
    """A method that shares the decision's threshold t, a cosine, out over the dimensions."""

    def __init__(
        self, model: Callable[..., Tensor], *, threshold: float = 0.0, seed: int = 0, batch_size: int = 8
    ) -> None:
        super().__init__(model, seed=seed, batch_size=batch_size)
        self.threshold = threshold


class XSSAB(ThresholdExplainer):
    r"""xSSAB: gradients of the dimensions that speak for the match, and of those that speak against it.

    .. math:: P = \{k : f_k g_k \ge t/D\}, \qquad
       M_+ = \mathrm{mean}_c \left|\frac{\partial}{\partial x} \sum_{k \in P} f_k g_k\right|

    and :math:`M_-` the same over the other dimensions; f is normalised inside the graph, g is constant. The signed map is
    :math:`M_+ - M_-`.

    Source: Huber, Luu, Terhörst, Damer, "Efficient Explainable Face Verification based on Similarity Score Argument Backpropagation",
    WACV 2024, arXiv 2304.13409.

    Args:
        model: images to embeddings, differentiable.
        threshold: t, the cosine from which two images count as a match.
        seed: not used: nothing is drawn.
        batch_size: images in one pass.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 8)).eval()
        >>> method = XSSAB(model, threshold=0.3)
        >>> both = method.attribute_both(torch.rand(2, 3, 8, 8), reference=torch.randn(2, 8))
        >>> both.similar.shape, method.cost
        (torch.Size([2, 1, 8, 8]), Cost(forwards=1.0, backwards=2.0))
    """

    def _both(self, images: Tensor, reference: Tensor | None) -> SimilarityMaps:
        x = images.requires_grad_()
        f, g = unit_and_direction(self._embed(x), reference)
        products = f * g
        speaks_for = products.detach() >= self.threshold / f.shape[1]
        sides = [products.where(chosen, 0.0).sum(1) for chosen in (speaks_for, ~speaks_for)]
        similar, dissimilar = (as_map_batch(self._gradient(side, x).abs().mean(1)) for side in sides)
        return SimilarityMaps(similar, dissimilar)


class FGGB(ThresholdExplainer):
    r"""Feature-guided gradient backpropagation: every dimension's gradient, weighted by what it adds to the score.

    .. math:: S = \sum_k \frac{G_k}{\|G_k\|} \left(f_k g_k - \frac{t}{D}\right), \qquad G_k = \frac{\partial f_k}{\partial x}

    with the norm over all pixels and channels of the image. The map is the mean of S over the channels; its positive part is the
    similarity map, its negative part the dissimilarity map. The D gradients are not taken one by one: copies of the image go through
    the model once, and in every backward pass each has the gradient of another dimension.

    Source: Lu, Xu, Ebrahimi, "Explainable Face Verification via Feature-Guided Gradient Backpropagation", FG 2024, arXiv 2403.04549.

    Args:
        model: images to embeddings, differentiable.
        threshold: t, the cosine from which two images count as a match.
        seed: not used: nothing is drawn.
        batch_size: dimensions in one backward pass, and copies of the image in the forward one: bounds the memory. Four stay in the
            caches of a CPU core, where sixteen take a third longer; on a GPU take as many as fit.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 8)).eval()
        >>> method = FGGB(model, threshold=0.3)
        >>> method.attribute(torch.rand(2, 3, 8, 8), reference=torch.randn(2, 8)).shape, method.cost
        (torch.Size([2, 1, 8, 8]), Cost(forwards=4.0, backwards=8.0))
    """

    def __init__(
        self, model: Callable[..., Tensor], *, threshold: float = 0.0, seed: int = 0, batch_size: int = 4
    ) -> None:
        super().__init__(model, threshold=threshold, seed=seed, batch_size=batch_size)

    def _both(self, images: Tensor, reference: Tensor | None) -> SimilarityMaps:
        rows = [reference] * len(images) if reference is None or len(reference) == 1 else torch.split(reference, 1)
        each = enumerate(zip(torch.split(images, 1), rows, strict=True))
        sums = [self._sum_over_dimensions(row, x, r) for row, (x, r) in each]
        signed = as_map_batch(torch.cat(sums).mean(1))
        return SimilarityMaps(signed.clamp(min=0), (-signed).clamp(min=0))

    def _sum_over_dimensions(self, row: int, image: Tensor, reference: Tensor | None) -> Tensor:
        """S of one image: (1, C, H, W)."""
        copies = image.repeat(self._at_once, 1, 1, 1).requires_grad_()
        with all_of_row(row):
            f, g = unit_and_direction(self._embed(copies), reference)
        self._check_differentiable(f)
        weights = (f * g).detach()[0] - self.threshold / f.shape[1]
        total = torch.zeros_like(image)
        for dimensions in torch.split(torch.arange(f.shape[1], device=f.device), self._at_once):
            gradients = self._of_dimensions(f, copies, dimensions)
            total += weighted_directions(gradients[:, None], weights[dimensions, None])
        return total

    def _of_dimensions(self, f: Tensor, copies: Tensor, dimensions: Tensor) -> Tensor:
        """Gradients of k dimensions of the same embedding, each through a copy of its own: (k, C, H, W)."""
        k = len(dimensions)
        score = f[torch.arange(k, device=f.device), dimensions].sum()
        gradients: Tensor = differentiate(score, copies, retain_graph=True)[0]
        self._backwards += k
        return gradients[:k]


def weighted_directions(gradients: Tensor, weights: Tensor) -> Tensor:
    """Sum over the first axis of gradients divided by their norms, times weights.

    Args:
        gradients: (k, N, C, H, W).
        weights: (k, N).

    Returns:
        (N, C, H, W). A gradient of zero adds nothing.

    Example:
        >>> weighted_directions(torch.tensor([[[[[3.0, 4.0]]]]]), torch.tensor([[10.0]])).flatten().tolist()
        [6.0, 8.0]
    """
    norms = gradients.flatten(2).norm(dim=2)
    scale = torch.where(norms > 0, weights / norms, 0.0)
    with own_arithmetic(gradients.device):
        return torch.einsum("kn,knchw->nchw", scale, gradients)


class FAME(TwoSidedExplainer):
    r"""FAME: what changes in an image that is pushed away from the match, and in one that is pushed towards it.

    .. math:: x \leftarrow x - \tfrac{1}{255}\, \nabla / \max|\nabla|

    ``n_steps`` times, on :math:`s` (similar) and on :math:`1 - s` (dissimilar); the map is the change of the grey image, a Gaussian of
    σ 7.7 px (on crops of 112 px, kernel 49) of :math:`|\mathrm{grey}(x') - \mathrm{grey}(x)|`.

    Source: Zhang & Günther, 2026, arXiv 2605.12017, where up to 500 steps are taken and 75 to 200 suffice.

    Args:
        model: images to embeddings, differentiable.
        n_steps: of the descent, on each side.
        step: of the largest change in one step, 1/255 of the images' range: for images in [−1, 1], 2/255.
        seed: not used: nothing is drawn.
        batch_size: images in one pass.

    Raises:
        CaptumLeamError: for fewer than one step, or a reference that is the image's own embedding: no direction ...

    Example:
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 8)).eval()
        >>> method = FAME(model, n_steps=3)
        >>> method.attribute(torch.rand(2, 3, 8, 8), reference=torch.randn(2, 8)).shape, method.cost
        (torch.Size([2, 1, 8, 8]), Cost(forwards=7.0, backwards=6.0))
    """

    def __init__(
        self,
        model: Callable[..., Tensor],
        *,
        n_steps: int = 100,
        step: float = 1 / 255,
        seed: int = 0,
        batch_size: int = 8,
    ) -> None:
        super().__init__(model, seed=seed, batch_size=batch_size)
        if n_steps < 1:
            raise CaptumLeamError(f"n_steps is {n_steps}; expected 1 or more, for example 100.")
        self.n_steps, self.step = n_steps, step

    def _both(self, images: Tensor, reference: Tensor | None) -> SimilarityMaps:
        with torch.no_grad():
            embeddings = self._embed(images)
            towards = direction(embeddings, reference)
        refuse_own(embeddings, towards)
        away, closer = (grey_change(self._descend(images, towards, sign), images) for sign in (1, -1))
        return SimilarityMaps(away, closer)

    def _descend(self, images: Tensor, towards: Tensor, sign: int) -> Tensor:
        """Images after the descent on sign · s."""
        x = at_least_float32(images.detach())  # a step of 1/255 is lost in bfloat16
        for _ in range(self.n_steps):
            x.requires_grad_()
            gradient = self._gradient(sign * cosines(self._embed(x.to(images)), towards), x)
            peak = gradient.abs().amax((1, 2, 3), keepdim=True)
            x = (x - self.step * torch.where(peak > 0, gradient / peak, 0.0)).detach()
        return x


def refuse_own(embeddings: Tensor, towards: Tensor) -> None:
    """Refuse references that are the image's own embedding, where the cosine has no gradient.

    Raises:
        CaptumLeamError: with the images concerned.
    """
    raise_if_any(
        reliability(embeddings, towards) <= vanishing(embeddings),
        lambda rows: (
            f"the cosine has zero gradient for images {rows}: their reference is their own embedding, where it is at its maximum. Give a "
            "reference from other images of the person."
        ),
    )


def grey(images: Tensor) -> Tensor:
    """Luma (ITU-R BT.601) of colour images, the mean of other channels; (N, C, H, W) to (N, 1, H, W).

    Example:
        >>> grey(torch.ones(1, 3, 1, 1)).item()
        1.0
    """
    if images.shape[1] != 3:
        return images.mean(1, keepdim=True)
    luma = torch.tensor([0.299, 0.587, 0.114], dtype=images.dtype, device=images.device)
    return (images * luma.view(1, 3, 1, 1)).sum(1, keepdim=True)


def grey_change(changed: Tensor, images: Tensor) -> Tensor:
    """Blurred absolute difference of two sets of images in grey: (N, 1, H, W).

    Example:
        >>> grey_change(torch.ones(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)).mean().round(decimals=4).item()
        1.0
    """
    scale = images.shape[-1] / 112
    return as_map_batch(gaussian_blur((grey(changed) - grey(images)).abs(), 7.7 * scale, 2 * round(24 * scale) + 1))
