r"""Objectives to explain: the similarity of an embedding to a reference, as a score with one number per image.

Let :math:`f` be an embedding, :math:`\hat r` a unit reference and :math:`d` the *direction*, which is
:math:`\hat r` itself, or :math:`\hat r_+ - \mathrm{mean}\,\hat r_-` with a contrast. The three norms are

=====================  ==============================================  ================================================
``norm``               score                                           gradient
=====================  ==============================================  ================================================
``"detach"``           :math:`\langle f, d\rangle / \mathrm{sg}\|f\|`  :math:`d / \|f\|`
``"differentiate"``    :math:`\langle f, d\rangle / \|f\|`             :math:`(d - \hat f\langle\hat f, d\rangle)/\|f\|`
``"fixed"``            :math:`\langle f, w\rangle`, :math:`w` given    :math:`w`
=====================  ==============================================  ================================================

where sg is the stop-gradient operator. With :math:`w = d / \|f(x)\|` computed once at the explained image, all three
have the value of the cosine at :math:`x`, and the first and last have the same gradient there. Path methods (integrated
gradients, conductance) are complete only for the last two, because the gradients of the first are those of no function.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from captum_leam._engine.arithmetic import at_least_float32
from captum_leam._engine.checks import (
    call_if_any,
    caller_rows,
    check_choice,
    check_tensor,
    deferred_checks,
    raise_if_any,
)
from captum_leam._engine.guards import check_forward_is_deterministic, raise_if_active
from captum_leam._engine.memory import in_batches
from captum_leam._engine.outputs import as_embeddings, float16_hint, noise_floor
from captum_leam._engine.probe import check_model
from captum_leam.errors import CaptumLeamError, InputTypeError, ReliabilityWarning
from captum_leam.stats.labels import person_codes

__all__ = ["direction", "embed", "similarity", "unit"]

Norm = Literal["detach", "differentiate", "fixed"]
NORMS: tuple[Norm, ...] = ("detach", "differentiate", "fixed")


SAME_PICTURE = 1e-5
"""Relative distance up to which two embeddings of a person are considered to be of the same picture."""


# -- embeddings and directions -------------------------------------------------------------------------


def embed(model: Callable[[Tensor], Tensor], images: Tensor, batch_size: int = 64) -> Tensor:
    """Compute the embeddings of images in batches, without gradients.

    Args:
        model: Function from images (N, C, H, W) to embeddings (N, D).
        images: Images (N, C, H, W) as the model takes them.
        batch_size: Number of images per pass, halved with a warning if they do not fit into memory. Default: 64.

    Returns:
        Embeddings of shape (N, D), not normalised.

    Raises:
        TooLargeError: If a single image does not fit into memory.
        CaptumLeamError: If the model does not return one finite embedding per image, or has active BatchNorm, Dropout or the like.

    See Also:
        :func:`~captum_leam.leave_one_out_centroids`: References from the embeddings.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4)).eval()
        >>> embed(model, torch.rand(5, 3, 2, 2), batch_size=2).shape
        torch.Size([5, 4])
    """
    check_tensor(images, "images")
    raise_if_active(model)
    with torch.no_grad(), check_forward_is_deterministic(model), deferred_checks():
        record = check_model(model, images, lambda batch: _embeddings_of(model, batch), batch_size)
        embeddings = torch.cat(in_batches(lambda rows: _embeddings_of(model, images[rows]), len(images), batch_size))
        if record is not None:
            record.compare((images,), [embeddings])
        return embeddings


def _embeddings_of(model: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    return as_embeddings(model(images), len(images))


def _length(vectors: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(vectors, dim=-1)
    return length


def unit(vectors: Tensor, name: str = "vectors") -> Tensor:
    """Divide vectors by their length, so that each has length 1.

    Args:
        vectors: Vectors of shape (..., D).
        name: Name of the vectors in messages. Default: ``"vectors"``.

    Returns:
        Unit vectors of shape (..., D).

    Raises:
        CaptumLeamError: If the length of a vector is zero, NaN or infinite; the message lists the rows.

    Example:
        >>> unit(torch.tensor([[3.0, 4.0]]))
        tensor([[0.6000, 0.8000]])
    """
    norms = _length(vectors)[..., None]
    raise_if_any(
        ~(torch.isfinite(norms) & (norms > 0)).flatten(),
        lambda rows: (
            f"Expected {name} to have a direction, got rows {rows} that are zero, NaN or infinite. Leave these out.{float16_hint(vectors)}"
        ),
    )
    return vectors / norms


def match_rows(vectors: Tensor, embeddings: Tensor, name: str = "reference") -> Tensor:
    """Return a reference with the rows, device and dtype of the embeddings.

    Args:
        vectors: Reference (D,), (1, D) or (N, D).
        embeddings: Embeddings (N, D).
        name: Name of the reference, for messages. Default: ``"reference"``.

    Returns:
        Shape (1, D) or (N, D).

    Raises:
        InputTypeError: If the reference is not a tensor.
        CaptumLeamError: If it has another shape, because a per-image reference is never broadcast to another batch size.

    Example:
        >>> match_rows(torch.ones(4), torch.zeros(2, 4)).shape
        torch.Size([1, 4])
    """
    if not isinstance(vectors, Tensor):
        raise InputTypeError(f"Expected {name} to be a tensor (D,), (1, D) or (N, D), got a {type(vectors).__name__}.")
    batch, dimensions = embeddings.shape
    rows = vectors[None] if vectors.ndim == 1 else vectors
    if rows.ndim != 2 or rows.shape[1] != dimensions or rows.shape[0] not in (1, batch):
        raise CaptumLeamError(
            f"Expected {name} to have shape ({dimensions},), (1, {dimensions}) or ({batch}, {dimensions}), got {tuple(vectors.shape)}. For "
            "methods that repeat the images (NoiseTunnel, IntegratedGradients), pass one reference per image as "
            "additional_forward_args=(references,)."
        )
    return rows.to(embeddings)


def direction(embeddings: Tensor, reference: Tensor | None = None, contrast: Tensor | None = None) -> Tensor:
    r"""Return the direction along which the similarity to a reference is measured.

    Without a contrast, it is the reference with length 1, :math:`d = \hat r`. With embeddings of other people as contrast, their mean is
    subtracted, :math:`d = \hat r_+ - \mathrm{mean}\,\hat r_-`, so that only what distinguishes the person from them counts.

    Args:
        embeddings: Embeddings (N, D) of the explained images.
        reference: Reference embeddings, (D,) or (1, D) for all images, or (N, D) with one per image. Default: ``embeddings``.
        contrast: Embeddings of other people, (D,) or (M, D) for all images, or (N, M, D). Default: None.

    Returns:
        Directions of shape (1, D) or (N, D), detached. Without a contrast, they have length 1.

    Raises:
        InputTypeError: If the reference or contrast is not a tensor.
        CaptumLeamError: If a shape does not fit, or if the contrast equals the reference.

    See Also:
        :func:`~captum_leam.objectives.similarity`: Score along the direction.

    Example:
        >>> embeddings = torch.tensor([[3.0, 4.0]])
        >>> direction(embeddings, torch.tensor([2.0, 0.0]))
        tensor([[1., 0.]])
        >>> direction(embeddings, torch.tensor([2.0, 0.0]), contrast=torch.tensor([0.0, 5.0]))
        tensor([[ 1., -1.]])
    """
    embeddings = embeddings.detach()
    vectors = embeddings if reference is None else match_rows(reference, embeddings).detach()
    unit_reference = unit(vectors, "embeddings" if reference is None else "reference")
    if contrast is None:
        return unit_reference
    if not isinstance(contrast, Tensor):
        raise InputTypeError(
            f"Expected contrast to be a tensor (D,), (M, D) or (N, M, D), got a {type(contrast).__name__}."
        )
    others = contrast.detach().to(embeddings)
    others = others.view(1, 1, -1) if others.ndim == 1 else others[None] if others.ndim == 2 else others
    batch, dimensions = embeddings.shape
    if others.ndim != 3 or others.shape[2] != dimensions or others.shape[0] not in (1, batch) or not others.shape[1]:
        raise CaptumLeamError(
            f"Expected contrast to have shape ({dimensions},), (M, {dimensions}) or ({batch}, M, {dimensions}) with M of 1 or more, got "
            f"{tuple(contrast.shape)}."
        )
    difference = unit_reference - unit(others, "contrast").mean(1)
    raise_if_any(
        _length(difference) <= noise_floor(embeddings),
        lambda rows: (
            f"Expected contrast to differ from reference, got equal embeddings in rows {rows}. Omit the person from it."
        ),
    )
    return difference


# -- scores --------------------------------------------------------------------------------------------


def similarity(embeddings: Tensor, direction: Tensor, norm: Norm = "detach") -> Tensor:
    """Compute the similarity of each embedding to a reference, as a differentiable score.

    Without a contrast, all norms give the cosine at the explained image. Their gradients differ, see :mod:`captum_leam.objectives`.

    Args:
        embeddings: Embeddings (N, D), not normalised.
        direction: Direction (1, D) or (N, D), as :func:`direction` returns it. With ``norm="fixed"``, the weights of
            :meth:`EmbeddingSimilarity.fixed_weights`.
        norm: Treatment of the length of the embedding. Default: ``"detach"``.

            * ``"detach"``: Dot product divided by the length, which is a constant in the gradient.
            * ``"differentiate"``: Dot product divided by the length, which is part of the gradient.
            * ``"fixed"``: Dot product with given weights.

    Returns:
        Scores of shape (N,).

    Raises:
        CaptumLeamError: If an embedding is zero.

    See Also:
        :class:`~captum_leam.EmbeddingSimilarity`: The score as a Captum forward function.

    Example:
        >>> similarity(torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0]]))
        tensor([0.6000])
    """
    score = (embeddings * direction).sum(1)
    if norm == "fixed":
        return score
    lengths = _length(embeddings.detach() if norm == "detach" else embeddings)
    raise_if_any(
        lengths.detach() <= 0,
        lambda rows: f"Expected embeddings other than 0, got embeddings that are zero for images {rows}.",
    )
    return score / lengths


def fixed_weights(embeddings: Tensor, reference: Tensor | None = None, contrast: Tensor | None = None) -> Tensor:
    r"""Compute the weights with which a score is a linear function of the embedding.

    .. math:: w = d / \|f(x)\|, \qquad s = \langle f, w\rangle

    where d is the direction of :func:`direction`. Without a contrast, the score at the explained image x is the cosine.

    Args:
        embeddings: Embeddings (N, D) of the explained images.
        reference: Reference embeddings, see :func:`direction`. Default: ``embeddings``.
        contrast: Embeddings of other people to contrast with, see :func:`direction`. Default: None.

    Returns:
        Weights of shape (N, D), detached.

    Raises:
        CaptumLeamError: If :func:`direction` raises it.

    Example:
        >>> f = torch.tensor([[3.0, 4.0]])
        >>> w = fixed_weights(f, torch.tensor([1.0, 0.0]))
        >>> round((f * w).sum().item(), 6)  # the cosine
        0.6
    """
    lengths = _length(embeddings.detach())[:, None]
    return direction(embeddings, reference, contrast) / lengths


def reliability(embeddings: Tensor, direction: Tensor) -> Tensor:
    r"""Return the sine of the angle between embeddings and a direction.

    The gradient of the cosine is proportional to it, :math:`\|\partial\cos/\partial f\| = \sqrt{1-\cos^2}/\|f\|`. Near 0, that gradient
    vanishes, and a map of it is rounding noise.

    Args:
        embeddings: Embeddings (N, D).
        direction: Direction (1, D) or (N, D).

    Returns:
        Sines of shape (N,) in [0, 1], float64.

    Example:
        >>> embeddings = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
        >>> reliability(embeddings, torch.tensor([[1.0, 0.0]])).round(decimals=4)
        tensor([0.8000, 0.0000], dtype=torch.float64)
    """
    f, d = unit(embeddings.detach().double()), unit(direction.detach().double())
    orthogonal = d - (d * f).sum(1, keepdim=True) * f
    return _length(orthogonal)


def check_reliable(embeddings: Tensor, direction: Tensor) -> None:
    """Raise if the gradient of the cosine vanishes, so that its map would be rounding noise.

    Args:
        embeddings: Embeddings (N, D).
        direction: Direction (1, D) or (N, D).

    Raises:
        CaptumLeamError: If the direction is that of an embedding; the message lists the images.
    """
    raise_if_any(
        reliability(embeddings, direction) <= noise_floor(embeddings),
        lambda rows: (
            f'Expected a reference other than the embedding of the image with norm="differentiate", got zero gradient for images {rows}. '
            'Use norm="detach", or a reference from other images of the person.'
        ),
    )


# -- the objective -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Objective:
    """Score that LEAM explains, as a function of embeddings.

    Scores (N,) that a model returns are left unchanged.

    Attributes:
        reference: Reference embeddings, (D,), (1, D) or (N, D). Default: the embeddings themselves.
        contrast: Embeddings of other people to contrast with, see :func:`direction`. Default: None.
        norm: Treatment of the norm: ``"detach"``, ``"differentiate"`` or ``"fixed"``. Default: ``"detach"``.
        direction: Direction, or weights for ``"fixed"``, which :meth:`at` sets. Default: computed from the embeddings that are scored.

    Example:
        >>> f = torch.tensor([[3.0, 4.0]])
        >>> round(Objective(reference=torch.tensor([1.0, 0.0])).score(f).item(), 6)
        0.6
        >>> round(Objective(norm="fixed").at(f).score(2 * f).item(), 6)
        2.0
    """

    reference: Tensor | None = None
    contrast: Tensor | None = None
    norm: Norm = "detach"
    direction: Tensor | None = None

    def at(self, output: Tensor, *, along_path: bool = False) -> "Objective":
        """Return the objective with its direction set at the explained images.

        Use it to score other points of a path.

        Args:
            output: Embeddings (N, D) of the explained images, or scores (N,).
            along_path: Whether gradients along the path must sum to a difference of scores, for which a detached norm is fixed.
                Default: False.

        Returns:
            Copy of the objective whose ``direction`` is set. For scores (N,), the objective itself.

        Raises:
            CaptumLeamError: If the output are scores (N,) and there is a reference, contrast or norm, or if the gradient is zero with
                ``"differentiate"``.

        Example:
            >>> f = torch.tensor([[3.0, 4.0]])
            >>> Objective(reference=torch.tensor([2.0, 0.0])).at(f).direction
            tensor([[1., 0.]])
        """
        if output.ndim == 1:
            self._raise_if_options_with_scores()
            return self
        if self.norm == "fixed" or (along_path and self.norm == "detach"):
            return replace(self, norm="fixed", direction=fixed_weights(output, self.reference, self.contrast))
        at_images = direction(output, self.reference, self.contrast)
        if self.norm == "differentiate":
            check_reliable(output, at_images)
        else:
            _warn_of_unit_embeddings(output)
        return replace(self, direction=at_images)

    def score(self, output: Tensor, steps: int = 1) -> Tensor:
        """Return the differentiable scores of embeddings.

        Args:
            output: Embeddings (steps · N, D), step after step, or scores (steps · N,).
            steps: Number of points of the path in the batch. Default: 1.

        Returns:
            Scores of shape (steps · N,).

        Raises:
            CaptumLeamError: If :meth:`at` raises it, or if an embedding is zero.

        Example:
            >>> objective = Objective(reference=torch.tensor([1.0, 0.0]))
            >>> objective.score(torch.tensor([[3.0, 4.0], [5.0, 0.0]]))
            tensor([0.6000, 1.0000])
        """
        if output.ndim == 1:
            self._raise_if_options_with_scores()
            return output
        if self.direction is None:
            return self.at(output).score(output, steps)
        if steps == 1:
            return similarity(output, self.direction, self.norm)
        return torch.cat([similarity(part, self.direction, self.norm) for part in output.chunk(steps)])

    def _raise_if_options_with_scores(self) -> None:
        if self.reference is not None or self.contrast is not None:
            raise CaptumLeamError(
                "Expected reference and contrast to be None because forward_func returns scores (N,), got embeddings. Pass the reference "
                "to EmbeddingSimilarity, or pass LEAM a model that returns embeddings."
            )
        if self.norm != "detach":
            raise CaptumLeamError(
                f'Expected norm="detach" because forward_func returns scores (N,), got {self.norm!r}. Pass the norm to EmbeddingSimilarity.'
            )


def _warn_of_unit_embeddings(embeddings: Tensor) -> None:
    def warn(rows: list[int]) -> None:
        warnings.warn(
            "Expected embeddings that are not normalised, but all embeddings have length 1. The maps are those of the differentiated "
            "cosine, which were less faithful on trained face networks. Explain the part before the division: "
            "UpTo(model, layer_before_division(model, images)) of captum_leam.models.",
            stacklevel=8,  # through the end of deferred_checks
        )

    lengths = torch.linalg.vector_norm(embeddings.detach().double(), dim=1)
    call_if_any(((lengths - 1).abs() < 1e-3).all()[None] if len(lengths) else lengths.bool(), warn)


# -- references ----------------------------------------------------------------------------------------


def leave_one_out_centroids(embeddings: Tensor, labels: Sequence[Any] | Tensor) -> Tensor:
    """Compute a reference for each image: the mean embedding of the person's other images.

    Use these as ``reference`` of :func:`~captum_leam.explain_faces` or :class:`~captum_leam.LEAM`, so that no image is compared with
    itself. Each embedding is divided by its length before the mean, and so is the mean.

    Args:
        embeddings: Embeddings of shape (N, D), not normalised.
        labels: Person in each image, N names or numbers as a sequence or tensor. Each person needs at least two images.

    Returns:
        References of length 1, shape (N, D), in the order of the images, detached, float32 or higher precision.

    Raises:
        CaptumLeamError: If a person has one image only, or if there is not one label per image.

    See Also:
        * :func:`~captum_leam.objectives.embed`: Embeddings of many images.
        * :func:`~captum_leam.explain_faces`: Maps towards these references.

    Example:
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0], [4.0, 0.0]])
        >>> leave_one_out_centroids(embeddings, ["ann", "ann", "bob", "bob"])
        tensor([[0., 1.],
                [1., 0.],
                [1., 0.],
                [1., 0.]])
    """
    embeddings = at_least_float32(as_embeddings(embeddings, len(embeddings)).detach())
    people, codes = person_codes(labels, len(embeddings), "embeddings")
    person = torch.from_numpy(codes).to(embeddings.device)
    single = [str(name) for name, count in zip(people, np.bincount(codes).tolist(), strict=True) if count == 1]
    if single:
        raise CaptumLeamError(
            "Expected two or more images of every person for leave-one-out references, got one image only of: "
            f"{', '.join(single)}. Leave these people out."
        )
    units = unit(embeddings, "embeddings")
    _warn_of_copies(embeddings, codes)
    sums = torch.zeros(len(people), embeddings.shape[1], dtype=units.dtype, device=units.device).index_add_(
        0, person, units
    )
    return unit(sums[person] - units, "leave-one-out centroids")


def _warn_of_copies(embeddings: Tensor, codes: NDArray[np.int64]) -> None:
    """Warn if images of one person have equal embeddings."""
    values = embeddings.double().cpu()
    copies: list[int] = []
    for code in range(int(codes.max(initial=-1)) + 1):
        rows = np.flatnonzero(codes == code)
        own = values[torch.from_numpy(rows)]
        distances = torch.cdist(own, own).fill_diagonal_(torch.inf)
        copies += rows[(distances.amin(1) <= SAME_PICTURE * _length(own)).numpy()].tolist()
    if copies:
        warnings.warn(
            f"Expected different images of each person, got equal embeddings in rows {caller_rows(copies)}. Leave the copies out, because "
            "each would be its own reference.",
            ReliabilityWarning,
            stacklevel=3,
        )


# -- the objective as a module -------------------------------------------------------------------------


class EmbeddingSimilarity(nn.Module):
    r"""Cosine similarity of embeddings to a reference, as a Captum forward function.

    Captum's methods explain one score per image. This module computes that score for a network that returns embeddings: the cosine of the
    angle between each embedding f(x) and a reference embedding r,

    .. math:: s(x) = \frac{\langle f(x), r\rangle}{\|f(x)\| \|r\|}

    Pass it to any Captum method in the place of the model, for example ``Occlusion(EmbeddingSimilarity(model, reference))``. The model is
    not copied or changed.

    Args:
        model: Module or callable that returns embeddings (N, D).
        reference: Embeddings that the images are compared with, (D,) or (1, D) for all images, or (N, D) with one per image of a batch of
            N. With ``norm="fixed"``, the weights. Default: each image's own embedding.
        norm: Treatment of the length :math:`\|f(x)\|`. Which one to use depends on the method. Default: ``"detach"``.

            * ``"detach"``: Constant in the gradient. Use it for gradient, CAM and perturbation methods, such as Saliency, LayerGradCam and
              Occlusion.
            * ``"differentiate"``: Part of the gradient, which is then that of the cosine. It needs a reference.
            * ``"fixed"``: Constant over all points of a path. Use it for IntegratedGradients, LayerConductance, DeepLift, GradientShap and
              ``infidelity``, and pass the result of :meth:`fixed_weights` in ``additional_forward_args``.

    Raises:
        InputTypeError: If the model is not callable, or if the reference is not a tensor.
        CaptumLeamError: If the norm is unknown. When called, if the reference does not fit the batch, or if it is missing with
            ``norm="differentiate"`` or ``"fixed"``.

    Note:
        Perturbation methods need a reference, because the cosine of an embedding to itself is always 1. Methods that repeat the images,
        such as NoiseTunnel, need one reference per image in ``additional_forward_args`` instead.

    See Also:
        * :class:`~captum_leam.LEAM`: Maps of layers for this score.
        * :class:`~captum_leam.explainers.CaptumExplainer`: Captum's methods with the norm set for embeddings.

    Example:
        >>> from captum.attr import Saliency
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(48, 8)).eval()
        >>> faces, reference = torch.rand(2, 3, 4, 4), torch.rand(8)
        >>> score = EmbeddingSimilarity(model, reference)
        >>> score(faces).shape
        torch.Size([2])
        >>> Saliency(score).attribute(faces.requires_grad_()).shape
        torch.Size([2, 3, 4, 4])
    """

    reference: Tensor | None

    def __init__(
        self,
        model: Callable[..., Tensor],
        reference: Tensor | None = None,
        *,
        norm: Norm = "detach",
    ) -> None:
        super().__init__()
        check_choice("norm", norm, NORMS)
        if not callable(model):
            raise InputTypeError(
                f"Expected model to be a module or callable that returns embeddings, got a {type(model).__name__}."
            )
        if reference is not None and not isinstance(reference, Tensor):
            raise InputTypeError(
                f"Expected reference to be a tensor (D,), (1, D) or (N, D), got a {type(reference).__name__}."
            )
        self.model = model
        self.norm: Norm = norm
        self.register_buffer("reference", None if reference is None else reference.detach().clone(), persistent=False)
        self.training = getattr(model, "training", False)

    def forward(self, inputs: Tensor, reference: Tensor | None = None, *args: Any) -> Tensor:
        """Compute the score of each image.

        Args:
            inputs: Images of shape (N, ...).
            reference: Reference embeddings, (D,), (1, D) or (N, D), or weights with ``norm="fixed"``. Default: those of the objective.
            *args: Further arguments of the model.

        Returns:
            Scores of shape (N,). They are cosines in [−1, 1]. With ``norm="fixed"``, they are cosines only at the images that the weights
            belong to.

        Raises:
            CaptumLeamError: If there is no reference with ``norm="differentiate"``, or no weights with ``norm="fixed"``.

        Example:
            >>> score = EmbeddingSimilarity(nn.Flatten(), reference=torch.tensor([1.0, 0.0]))
            >>> score(torch.tensor([[[3.0, 4.0]], [[5.0, 0.0]]]))
            tensor([0.6000, 1.0000])
        """
        reference = self.reference if reference is None else reference
        if reference is None and self.norm != "detach":
            raise CaptumLeamError(
                'Expected a reference with norm="differentiate", got none, for which the score has zero gradient. Pass a reference, or use '
                'norm="detach".'
                if self.norm == "differentiate"
                else 'Expected the weights of the explained images with norm="fixed", got none. Pass '
                "additional_forward_args=(objective.fixed_weights(images, reference),)."
            )
        embeddings = as_embeddings(self.model(inputs, *args), len(inputs))
        if self.norm == "fixed":
            return similarity(embeddings, match_rows(cast(Tensor, reference), embeddings), "fixed")
        unit_reference = direction(embeddings, reference)
        if reference is None and not embeddings.requires_grad:
            self._warn_of_constant()
        if self.norm == "differentiate" and embeddings.requires_grad:
            self._warn_if_flat(embeddings, unit_reference)
        return similarity(embeddings, unit_reference, self.norm)

    def fixed_weights(
        self, inputs: Tensor, reference: Tensor | None = None, contrast: Tensor | None = None, *args: Any
    ) -> Tensor:
        r"""Compute the weights of images for ``norm="fixed"``.

        Path methods such as IntegratedGradients compare many points between a baseline and an image. With weights computed once at the
        image, the score is a linear function of the embedding, and attributions sum to its change along the path:

        .. math:: w = \frac{r}{\|r\| \|f(x)\|}, \qquad s = \langle f, w\rangle

        Args:
            inputs: Explained images of shape (N, ...).
            reference: Reference embeddings, (D,), (1, D) or (N, D). Default: each image's own embedding.
            contrast: Embeddings of other people, whose mean is subtracted from the reference, (D,), (M, D) or (N, M, D). Default: None.
            *args: Further arguments of the model.

        Returns:
            Weights of shape (N, D), detached.

        Raises:
            InputTypeError: If the reference or contrast is not a tensor.
            CaptumLeamError: If a shape does not fit.

        Example:
            >>> from captum.attr import IntegratedGradients
            >>> _ = torch.manual_seed(0)
            >>> model = nn.Sequential(nn.Flatten(), nn.Linear(48, 8)).eval()
            >>> faces, score = torch.rand(2, 3, 4, 4), EmbeddingSimilarity(model, norm="fixed")
            >>> weights = score.fixed_weights(faces, reference=torch.rand(8))
            >>> IntegratedGradients(score).attribute(faces, additional_forward_args=(weights,)).shape
            torch.Size([2, 3, 4, 4])
        """
        with torch.no_grad():
            return fixed_weights(as_embeddings(self.model(inputs, *args), len(inputs)), reference, contrast)

    @staticmethod
    def _warn_of_constant() -> None:
        warnings.warn(
            "Expected EmbeddingSimilarity to have a reference for methods that use its values (Occlusion, FeatureAblation, Shapley values, "
            "infidelity), got none, so that it is 1 for every image. Pass a reference; without one, only gradients have a meaning.",
            ReliabilityWarning,
            stacklevel=4,
        )

    @staticmethod
    def _warn_if_flat(embeddings: Tensor, unit_reference: Tensor) -> None:
        # This is a warning, not an error, because the end of a path may be the image of the reference.
        is_flat = reliability(embeddings, unit_reference) <= noise_floor(embeddings)
        if rows := is_flat.nonzero().flatten().tolist():
            warnings.warn(
                'Expected a reference other than the embedding of the image with norm="differentiate", got zero gradient for images '
                f"{caller_rows(rows)}. Gradients there are rounding noise.",
                ReliabilityWarning,
                stacklevel=4,
            )
