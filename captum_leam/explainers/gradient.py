r"""Methods that use gradients with respect to the image: xSSAB, FGGB and FAME.

With unit embeddings :math:`f` of the image and :math:`g` of the reference, the similarity is a sum over the D dimensions,
:math:`s = \sum_k f_k g_k`, and each dimension's share of a decision threshold t is :math:`t/D`.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from captum_leam._engine.arithmetic import at_least_float32, differentiate, own_arithmetic
from captum_leam._engine.checks import all_of_row, raise_if_any
from captum_leam._engine.outputs import noise_floor
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
    """Base class of methods that divide the decision threshold evenly among the dimensions."""

    def __init__(
        self, model: Callable[..., Tensor], *, threshold: float = 0.0, seed: int = 0, batch_size: int = 8
    ) -> None:
        super().__init__(model, seed=seed, batch_size=batch_size)
        self.threshold = threshold


class XSSAB(ThresholdExplainer):
    r"""Similarity score argument backpropagation (xSSAB): maps for and against a match.

    The cosine of two unit embeddings f and g is a sum with one term per dimension. xSSAB puts the terms that support the decision "same
    person" into one group and all others into a second, and maps the pixels that each group is sensitive to:

    .. math:: P = \{k : f_k g_k \ge t/D\}, \qquad
       M_+ = \mathrm{mean}_c \left|\frac{\partial}{\partial x} \sum_{k \in P} f_k g_k\right|

    where t is the decision threshold, D the number of dimensions, and the mean is over the colour channels of the image x. :math:`M_-` is
    the same for the other dimensions. Use it if evidence against a match matters: it takes one forward and two backward passes. Absolute
    gradients show where a score is sensitive, not how much a pixel contributes; for contributions use :class:`~captum_leam.LEAM`.

    ``attribute_both`` returns the two maps as :class:`SimilarityMaps`, and ``attribute`` their difference :math:`M_+ - M_-`, shape
    (N, 1, H, W).

    Source: Huber, Luu, Terhörst, Damer, "Efficient Explainable Face Verification based on Similarity Score Argument Backpropagation",
    WACV 2024, arXiv 2304.13409.

    Args:
        model: Function from images (N, C, H, W) to embeddings (N, D), differentiable.
        threshold: Cosine t in [−1, 1] from which two images count as a match. Default: 0.0.
        seed: Not used; the method is deterministic. Default: 0.
        batch_size: Maximum number of images in one pass, 1 or more. Default: 8.

    See Also:
        :class:`~captum_leam.explainers.FGGB`: Gradients of all dimensions, weighted.

    Example:
        The embedding of this model is its four pixels. The reference agrees with the upper row and opposes the pixel at the lower left:

        >>> method = XSSAB(torch.nn.Flatten(), threshold=0.0)
        >>> image, reference = torch.ones(1, 1, 2, 2), torch.tensor([1.0, 1.0, -1.0, 0.0])
        >>> both = method.attribute_both(image, reference=reference)
        >>> print(both.dissimilar[0, 0].numpy().round(2))
        [[0.07 0.07]
         [0.22 0.07]]
        >>> print(both.signed[0, 0].numpy().round(2))  # similar minus dissimilar
        [[ 0.07  0.07]
         [-0.07  0.07]]
        >>> method.cost
        Cost(forwards=1.0, backwards=2.0)
    """

    def _both(self, images: Tensor, reference: Tensor | None) -> SimilarityMaps:
        x = images.requires_grad_()
        f, g = unit_and_direction(self._embed(x), reference)
        products = f * g
        is_similar = products.detach() >= self.threshold / f.shape[1]
        scores = [products.where(side, 0.0).sum(1) for side in (is_similar, ~is_similar)]
        similar, dissimilar = (as_map_batch(self._gradient(score, x).abs().mean(1)) for score in scores)
        return SimilarityMaps(similar, dissimilar)


class FGGB(ThresholdExplainer):
    r"""Feature-guided gradient backpropagation (FGGB), a signed map from all dimensions.

    FGGB takes the gradient of each dimension of the embedding with respect to the pixels, divides it by its length, and weights it by what
    this dimension adds to the cosine beyond an even share of the decision threshold:

    .. math:: S = \sum_k \frac{G_k}{\|G_k\|} \left(f_k g_k - \frac{t}{D}\right), \qquad G_k = \frac{\partial f_k}{\partial x}

    where f and g are the unit embeddings of the image x and the reference, with D dimensions, and t is the threshold. The map is the mean
    of S over the colour channels. Positive values support the match, negative values oppose it. Use it as a more thorough alternative to
    :class:`XSSAB`: it keeps the sign of the gradients, but takes one backward pass per dimension, for example 512.

    ``attribute`` returns the signed map, shape (N, 1, H, W), and ``attribute_both`` its positive and negative parts as
    :class:`SimilarityMaps`.

    Source: Lu, Xu, Ebrahimi, "Explainable Face Verification via Feature-Guided Gradient Backpropagation", FG 2024, arXiv 2403.04549.

    Args:
        model: Function from images (N, C, H, W) to embeddings (N, D), differentiable.
        threshold: Cosine t in [−1, 1] from which two images count as a match. Default: 0.0.
        seed: Not used; the method is deterministic. Default: 0.
        batch_size: Number of copies of an image in one pass, so that the gradients of as many dimensions are taken at once. Default: 4,
            which suits a CPU. On a GPU, larger batches are faster.

    See Also:
        :class:`~captum_leam.explainers.XSSAB`: Two gradients instead of one per dimension.

    Example:
        The embedding of this model is its four pixels. The reference agrees with the upper row and opposes the pixel at the lower left:

        >>> method = FGGB(torch.nn.Flatten(), threshold=0.0)
        >>> image, reference = torch.ones(1, 1, 2, 2), torch.tensor([1.0, 1.0, -1.0, 0.0])
        >>> print(method.attribute(image, reference=reference)[0, 0].numpy().round(2))
        [[ 0.25  0.25]
         [-0.42 -0.08]]
        >>> method.cost  # of a batch of 4 copies of the image, and of 4 dimensions
        Cost(forwards=4.0, backwards=4.0)
    """

    def __init__(
        self, model: Callable[..., Tensor], *, threshold: float = 0.0, seed: int = 0, batch_size: int = 4
    ) -> None:
        super().__init__(model, threshold=threshold, seed=seed, batch_size=batch_size)

    def _both(self, images: Tensor, reference: Tensor | None) -> SimilarityMaps:
        rows = [reference] * len(images) if reference is None or len(reference) == 1 else torch.split(reference, 1)
        pairs = enumerate(zip(torch.split(images, 1), rows, strict=True))
        sums = [self._sum_over_dimensions(row, x, r) for row, (x, r) in pairs]
        signed = as_map_batch(torch.cat(sums).mean(1))
        return SimilarityMaps(signed.clamp(min=0), (-signed).clamp(min=0))

    def _sum_over_dimensions(self, row: int, image: Tensor, reference: Tensor | None) -> Tensor:
        """Return the sum S of one image, shape (1, C, H, W)."""
        copies = image.repeat(self._pass_size, 1, 1, 1).requires_grad_()
        with all_of_row(row):
            f, g = unit_and_direction(self._embed(copies), reference)
        self._check_differentiable(f)
        weights = (f * g).detach()[0] - self.threshold / f.shape[1]
        total = torch.zeros_like(image)
        for dimensions in torch.split(torch.arange(f.shape[1], device=f.device), self._pass_size):
            gradients = self._dimension_gradients(f, copies, dimensions)
            total += weighted_directions(gradients[:, None], weights[dimensions, None])
        return total

    def _dimension_gradients(self, f: Tensor, copies: Tensor, dimensions: Tensor) -> Tensor:
        """Return the gradients (k, C, H, W) of k dimensions of one embedding, each computed on its own copy of the image."""
        k = len(dimensions)
        score = f[torch.arange(k, device=f.device), dimensions].sum()
        gradients: Tensor = differentiate(score, copies, retain_graph=True)[0]
        self._backwards += k
        return gradients[:k]


def weighted_directions(gradients: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted sum, over the first axis, of gradients divided by their norms.

    Args:
        gradients: Gradients of shape (k, N, C, H, W).
        weights: Weights of shape (k, N).

    Returns:
        Sums of shape (N, C, H, W), to which a gradient of zero contributes nothing.

    Example:
        >>> weighted_directions(torch.tensor([[[[[3.0, 4.0]]]]]), torch.tensor([[10.0]])).flatten().tolist()
        [6.0, 8.0]
    """
    norms = gradients.flatten(2).norm(dim=2)
    scale = torch.where(norms > 0, weights / norms, 0.0)
    with own_arithmetic(gradients.device):
        return torch.einsum("kn,knchw->nchw", scale, gradients)


class FAME(TwoSidedExplainer):
    r"""Changes of an image that lower and raise its similarity most (FAME).

    FAME changes the pixels in small steps so that the similarity s to the reference falls:

    .. math:: x \leftarrow x - \tfrac{1}{255}\, \nabla s / \max|\nabla s|

    Where the grey image has changed most after ``n_steps`` steps is the evidence for the match. Steps in the opposite direction, which
    raise the similarity, give the evidence against it. Both maps are smoothed. Use it to see which pixels an optimiser would change. It is
    slow, with 200 backward passes by default.

    ``attribute_both`` returns the two maps as :class:`SimilarityMaps`, and ``attribute`` their difference, shape (N, 1, H, W).

    Source: Zhang & Günther, 2026, arXiv 2605.12017. The paper takes up to 500 steps and finds that 75 to 200 suffice.

    Args:
        model: Function from images (N, C, H, W) to embeddings (N, D), differentiable.
        n_steps: Number of steps in each direction, 1 or more. Default: 100.
        step: Largest change of a pixel in one step, above 0. Default: 1/255, for images in [0, 1]. Pass 2/255 for images in [−1, 1].
        seed: Not used; the method is deterministic. Default: 0.
        batch_size: Maximum number of images in one pass. Default: 8.

    Raises:
        CaptumLeamError: If ``n_steps`` is below 1. When called, if a reference is the image's own embedding, where the cosine has no
            gradient.

    Note:
        The maps are smoothed by a Gaussian with σ = 7.7 px and a kernel of 49 px per 112 px of width.

    See Also:
        :class:`~captum_leam.explainers.ExtremalPerturbation`: Optimised mask of a given area.

    Example:
        The embedding of this model is its pixels, and the reference is bright on the left half only. So the left half supports the match:

        >>> method = FAME(torch.nn.Flatten(), n_steps=3)
        >>> left = torch.zeros(8, 8)
        >>> left[:, :4] = 1
        >>> maps = method.attribute(torch.ones(1, 1, 8, 8), reference=left.flatten())
        >>> [bool((half > 0).all()) for half in maps.split(4, dim=3)]  # left, right
        [True, False]
        >>> method.cost
        Cost(forwards=7.0, backwards=6.0)
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
            raise CaptumLeamError(f"Expected n_steps to be 1 or more, such as 100, got {n_steps}.")
        self.n_steps, self.step = n_steps, step

    def _both(self, images: Tensor, reference: Tensor | None) -> SimilarityMaps:
        with torch.no_grad():
            embeddings = self._embed(images)
            towards = direction(embeddings, reference)
        raise_if_own_embedding(embeddings, towards)
        away, closer = (grey_change(self._descend(images, towards, sign), images) for sign in (1, -1))
        return SimilarityMaps(away, closer)

    def _descend(self, images: Tensor, towards: Tensor, sign: int) -> Tensor:
        """Return the images after the descent on sign · s."""
        x = at_least_float32(images.detach())  # bfloat16 would round a step of 1/255 away
        for _ in range(self.n_steps):
            x.requires_grad_()
            gradient = self._gradient(sign * cosines(self._embed(x.to(images)), towards), x)
            peak = gradient.abs().amax((1, 2, 3), keepdim=True)
            x = (x - self.step * torch.where(peak > 0, gradient / peak, 0.0)).detach()
        return x


def raise_if_own_embedding(embeddings: Tensor, towards: Tensor) -> None:
    """Raise if a reference is the image's own embedding, where the cosine has no gradient.

    Args:
        embeddings: Embeddings of shape (N, D).
        towards: Unit references of shape (1, D) or (N, D).

    Raises:
        CaptumLeamError: If the gradient vanishes for an image. The message lists these images.
    """
    raise_if_any(
        reliability(embeddings, towards) <= noise_floor(embeddings),
        lambda rows: (
            f"Expected references from other images, got the own embedding as reference for images {rows}, where the cosine has zero "
            "gradient. Pass the embedding of another image of the person."
        ),
    )


def grey(images: Tensor) -> Tensor:
    """Return images in grey: the luma of RGB images, or the mean over other channels.

    Args:
        images: Images of shape (N, C, H, W).

    Returns:
        Grey images of shape (N, 1, H, W).

    Example:
        >>> grey(torch.ones(1, 3, 1, 1)).item()
        1.0
    """
    if images.shape[1] != 3:
        return images.mean(1, keepdim=True)
    luma = torch.tensor([0.299, 0.587, 0.114], dtype=images.dtype, device=images.device)
    return (images * luma.view(1, 3, 1, 1)).sum(1, keepdim=True)


def grey_change(changed: Tensor, images: Tensor) -> Tensor:
    """Return the blurred absolute difference of two batches of images in grey.

    Args:
        changed: Changed images of shape (N, C, H, W).
        images: Original images of the same shape.

    Returns:
        Maps of shape (N, 1, H, W).

    Example:
        >>> grey_change(torch.ones(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)).mean().round(decimals=4).item()
        1.0
    """
    scale = images.shape[-1] / 112
    return as_map_batch(gaussian_blur((grey(changed) - grey(images)).abs(), 7.7 * scale, 2 * round(24 * scale) + 1))
