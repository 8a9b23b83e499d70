r"""What is explained: the similarity of an embedding to a reference, as a score with one number per image.

Let :math:`f` be an embedding, :math:`\hat r` a unit reference and :math:`d` the *direction*:
:math:`\hat r` itself, or :math:`\hat r_+ - \mathrm{mean}\,\hat r_-` for a contrast. The three norms are

=====================  ==============================================  ================================================
``norm``               score                                           gradient
=====================  ==============================================  ================================================
``"detach"``           :math:`\langle f, d\rangle / \mathrm{sg}\|f\|`  :math:`d / \|f\|`
``"differentiate"``    :math:`\langle f, d\rangle / \|f\|`             :math:`(d - \hat f\langle\hat f, d\rangle)/\|f\|`
``"fixed"``            :math:`\langle f, w\rangle`, :math:`w` given    :math:`w`
=====================  ==============================================  ================================================

where sg is constant under differentiation. With :math:`w = d / \|f(x)\|` taken once at the explained image, all
three have the value of the cosine at :math:`x`, and the first and last the same gradient there. Only the last two
are functions, so only under them are path methods (integrated gradients, conductance) complete.
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
from captum_leam._engine.checks import call_if_any, caller_rows, check_tensor, deferred_checks, raise_if_any
from captum_leam._engine.guards import check_forward_is_deterministic, raise_if_active
from captum_leam._engine.memory import in_batches
from captum_leam._engine.outputs import as_embeddings, float16_hint, vanishing
from captum_leam._engine.probe import check_model
from captum_leam.errors import CaptumLeamError, InputTypeError, ReliabilityWarning
from captum_leam.stats.labels import person_codes

__all__ = ["direction", "embed", "similarity", "unit"]

Norm = Literal["detach", "differentiate", "fixed"]
NORMS: tuple[Norm, ...] = ("detach", "differentiate", "fixed")


SAME_PICTURE = 1e-5
"""Relative distance up to which two embeddings of a person are those of one picture."""


# -- embeddings and directions -------------------------------------------------------------------------


def embed(model: Callable[[Tensor], Tensor], images: Tensor, batch_size: int = 64) -> Tensor:
    """Return the embeddings of images without gradients, in batches.

    Args:
        model: Function from images (N, C, H, W) to embeddings (N, D), with or without gradients.
        images: Images (N, C, H, W).
        batch_size: Number of images in one pass; fewer where they do not fit into memory, with a warning. Default: 64.

    Returns:
        (N, D), un-normalised.

    Raises:
        TooLargeError: if one image alone does not fit into memory.
        CaptumLeamError: if the model does not return one finite embedding per image, or has active
            BatchNorm, Dropout or the like.

    Example:
        >>> embed(nn.Flatten(), torch.rand(5, 3, 2, 2), batch_size=2).shape
        torch.Size([5, 12])
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
    """Divide vectors by their norm over the last dimension.

    Raises:
        CaptumLeamError: for a vector of norm 0, NaN or infinity, by its index.

    Example:
        >>> unit(torch.tensor([[3.0, 4.0]])).tolist()
        [[0.6000000238418579, 0.800000011920929]]
    """
    norms = _length(vectors)[..., None]
    raise_if_any(
        ~(torch.isfinite(norms) & (norms > 0)).flatten(),
        lambda rows: (
            f"{name}: rows {rows} are zero, NaN or infinite and have no direction; leave these out.{float16_hint(vectors)}"
        ),
    )
    return vectors / norms


def match_rows(vectors: Tensor, embeddings: Tensor, name: str = "reference") -> Tensor:
    """Bring a reference of shape (D,), (1, D) or (N, D) to (1, D) or (N, D), on the embeddings' device and dtype.

    Raises:
        InputTypeError: if it is no tensor.
        CaptumLeamError: for another shape: a per-image reference is never broadcast to another batch size.

    Example:
        >>> match_rows(torch.ones(4), torch.zeros(2, 4)).shape
        torch.Size([1, 4])
    """
    if not isinstance(vectors, Tensor):
        raise InputTypeError(f"{name} is a {type(vectors).__name__}; expected a tensor (D,), (1, D) or (N, D).")
    batch, dimensions = embeddings.shape
    rows = vectors[None] if vectors.ndim == 1 else vectors
    if rows.ndim != 2 or rows.shape[1] != dimensions or rows.shape[0] not in (1, batch):
        raise CaptumLeamError(
            f"{name} has shape {tuple(vectors.shape)}, the embeddings {tuple(embeddings.shape)}; expected ({dimensions},) or "
            f"(1, {dimensions}), shared, or ({batch}, {dimensions}), one per image. Where a method repeats the images "
            "(NoiseTunnel, IntegratedGradients), pass per-image references as additional_forward_args=(references,): "
            "they are repeated along."
        )
    return rows.to(embeddings)


def direction(embeddings: Tensor, reference: Tensor | None = None, contrast: Tensor | None = None) -> Tensor:
    r"""Return the direction d that the score projects on: :math:`\hat r`, or :math:`\hat r_+ - \mathrm{mean}\,\hat r_-`.

    Args:
        embeddings: Embeddings of the explained images, (N, D); their own unit embeddings are the default reference.
        reference: Embeddings (D,) or (1, D), shared, or (N, D), one per image.
        contrast: Embeddings to be distinguished from: (D,) one, (M, D) M of them, shared by all images, or (N, M, D) M of them for
            every image.

    Returns:
        (1, D) or (N, D), constant under differentiation. Of length 1 without a contrast.

    Raises:
        CaptumLeamError: for wrong shapes, or a contrast equal to the reference: then there is nothing to explain.

    Example:
        >>> f = torch.tensor([[3.0, 4.0]])
        >>> direction(f).tolist()
        [[0.6000000238418579, 0.800000011920929]]
        >>> direction(f, torch.tensor([2.0, 0.0]), contrast=torch.tensor([0.0, 5.0])).tolist()
        [[1.0, -1.0]]
    """
    embeddings = embeddings.detach()
    given = (
        embeddings
        if reference is None
        else match_rows(reference.detach() if isinstance(reference, Tensor) else reference, embeddings)
    )
    target = unit(given, "embeddings" if reference is None else "reference")
    if contrast is None:
        return target
    if not isinstance(contrast, Tensor):
        raise InputTypeError(f"contrast is a {type(contrast).__name__}; expected a tensor (D,), (M, D) or (N, M, D).")
    others = contrast.detach().to(embeddings)
    others = others.view(1, 1, -1) if others.ndim == 1 else others[None] if others.ndim == 2 else others
    batch, dimensions = embeddings.shape
    if others.ndim != 3 or others.shape[2] != dimensions or others.shape[0] not in (1, batch) or not others.shape[1]:
        raise CaptumLeamError(
            f"contrast has shape {tuple(contrast.shape)}, the embeddings {tuple(embeddings.shape)}; expected "
            f"({dimensions},), (M, {dimensions}) shared, or ({batch}, M, {dimensions}) per image, M ≥ 1."
        )
    difference = target - unit(others, "contrast").mean(1)
    raise_if_any(
        _length(difference) <= vanishing(embeddings),
        lambda rows: f"reference and contrast are equal for rows {rows}: the score is zero everywhere.",
    )
    return difference


# -- scores --------------------------------------------------------------------------------------------


def similarity(embeddings: Tensor, towards: Tensor, norm: Norm = "detach") -> Tensor:
    """Return the score of every embedding along a direction, see the table above.

    Args:
        embeddings: Embeddings (N, D), un-normalised, differentiable.
        towards: Direction, (1, D) or (N, D); under ``"fixed"`` already divided by ``‖f(x)‖``.
        norm: Treatment of the norm: ``"detach"``, ``"differentiate"`` or ``"fixed"``.

    Returns:
        (N,); the cosine at the explained images when the direction is a unit reference.

    Example:
        >>> f = torch.tensor([[3.0, 4.0]], requires_grad=True)
        >>> similarity(f, torch.tensor([[1.0, 0.0]])).item()
        0.6000000238418579
    """
    score = (embeddings * towards).sum(1)
    if norm == "fixed":
        return score
    lengths = _length(embeddings.detach() if norm == "detach" else embeddings)
    raise_if_any(lengths.detach() <= 0, lambda rows: f"the embeddings of images {rows} are zero: no cosine there.")
    return score / lengths


def fixed_weights(embeddings: Tensor, reference: Tensor | None = None, contrast: Tensor | None = None) -> Tensor:
    r"""Return the weights :math:`w = d / \|f(x)\|` of the fixed norm, one row per explained image.

    Args:
        embeddings: Embeddings (N, D) of the explained images.
        reference: see :func:`direction`.
        contrast: see :func:`direction`.

    Returns:
        (N, D), constant under differentiation.

    Example:
        >>> f = torch.tensor([[3.0, 4.0]])
        >>> w = fixed_weights(f, torch.tensor([1.0, 0.0]))
        >>> round((f * w).sum().item(), 6)  # the cosine
        0.6
    """
    lengths = _length(embeddings.detach())[:, None]
    return direction(embeddings, reference, contrast) / lengths


def reliability(embeddings: Tensor, towards: Tensor) -> Tensor:
    r"""Return the share of the direction that the differentiated cosine can still move along: the sine of the angle between them.

    :math:`\|\partial\cos/\partial f\| = \sqrt{1-\cos^2}/\|f\|`: near 0 the differentiated cosine has no gradient, and its
    map is rounding noise. Computed in float64, from the part of d orthogonal to f, since 1 − cos² cancels.

    Args:
        embeddings: Embeddings (N, D).
        towards: Direction, (1, D) or (N, D).

    Returns:
        (N,), within [0, 1], float64.

    Example:
        >>> reliability(torch.tensor([[3.0, 4.0]]), torch.tensor([[0.6, 0.8]])).item() < 1e-6
        True
    """
    f, d = unit(embeddings.detach().double()), unit(towards.detach().double())
    orthogonal = d - (d * f).sum(1, keepdim=True) * f
    return _length(orthogonal)


def check_reliable(embeddings: Tensor, towards: Tensor) -> None:
    """Raise if the differentiated cosine has zero gradient: its map would be rounding noise.

    Raises:
        CaptumLeamError: with the images concerned.
    """
    raise_if_any(
        reliability(embeddings, towards) <= vanishing(embeddings),
        lambda rows: (
            f'norm="differentiate" has zero gradient for images {rows}: their reference is their own '
            "embedding, where the cosine is at its maximum, and a map of it would be rounding noise. Use "
            'norm="detach", or a reference from other images of the person.'
        ),
    )


# -- the objective -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Objective:
    """The score that LEAM explains, as a function of embeddings (N, D); of a model that returns scores (N,), these scores.

    Attributes:
        reference: Embeddings to compare with, (D,), (1, D) or (N, D). None: the embeddings themselves.
        contrast: Embeddings to tell the person apart from, see :func:`direction`. None: no contrast.
        norm: ``"detach"``, ``"differentiate"`` or ``"fixed"``.
        towards: Direction or, under ``"fixed"``, weights, held by :meth:`at`. None: taken from the embeddings that are scored.

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
    towards: Tensor | None = None

    def at(self, output: Tensor, *, along_path: bool = False) -> "Objective":
        """Return the objective whose direction is held from these embeddings, for other points of a path.

        Args:
            output: Embeddings (N, D) of the explained images, or scores (N,).
            along_path: Whether gradients along the path are to sum to a difference of scores: a detached norm is then fixed.

        Raises:
            CaptumLeamError: for a reference, contrast or norm beside scores (N,), and under ``"differentiate"`` for a zero gradient.
        """
        if output.ndim == 1:
            self._raise_if_meaningless()
            return self
        if self.norm == "fixed" or (along_path and self.norm == "detach"):
            return replace(self, norm="fixed", towards=fixed_weights(output, self.reference, self.contrast))
        towards = direction(output, self.reference, self.contrast)
        if self.norm == "differentiate":
            check_reliable(output, towards)
        else:
            _warn_of_unit_embeddings(output)
        return replace(self, towards=towards)

    def score(self, output: Tensor, steps: int = 1) -> Tensor:
        """Return the scores of embeddings, differentiable.

        Args:
            output: Embeddings (steps · N, D), step after step, or scores (steps · N,).
            steps: Number of points of the path in the batch. Default: 1.

        Returns:
            Shape (steps · N,).
        """
        if output.ndim == 1:
            self._raise_if_meaningless()
            return output
        if self.towards is None:
            return self.at(output).score(output, steps)
        if steps == 1:
            return similarity(output, self.towards, self.norm)
        return torch.cat([similarity(part, self.towards, self.norm) for part in output.chunk(steps)])

    def _raise_if_meaningless(self) -> None:
        if self.reference is not None or self.contrast is not None:
            raise CaptumLeamError(
                "forward_func returns scores (N,), so a reference or contrast has no meaning here: it is the objective that holds it. "
                "Give EmbeddingSimilarity the reference, or LEAM the model that returns embeddings."
            )
        if self.norm != "detach":
            raise CaptumLeamError(
                f"norm is {self.norm!r}, but forward_func returns scores (N,), whose norm is their own: give it to EmbeddingSimilarity."
            )


def _warn_of_unit_embeddings(embeddings: Tensor) -> None:
    def warn(rows: list[int]) -> None:
        warnings.warn(
            "all embeddings have length 1: the model seems to divide by it, and what is explained is the differentiated cosine, whatever "
            "the norm. Its maps are less faithful and less person-specific; give the part of the model before that division.",
            stacklevel=8,  # through the end of deferred_checks
        )

    lengths = torch.linalg.vector_norm(embeddings.detach().double(), dim=1)
    call_if_any(((lengths - 1).abs() < 1e-3).all()[None] if len(lengths) else lengths.bool(), warn)


# -- references ----------------------------------------------------------------------------------------


def leave_one_out_centroids(embeddings: Tensor, labels: Sequence[Any] | Tensor) -> Tensor:
    """Return the reference of every image from the *other* images of its person: mean of unit vectors, re-normalised.

    Args:
        embeddings: Embeddings (N, D), un-normalised.
        labels: Names or numbers of the N people.

    Returns:
        (N, D), unit rows, constant under differentiation.

    Raises:
        CaptumLeamError: naming the people with one image only, or if the counts disagree.

    Example:
        >>> f = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0], [4.0, 0.0]])
        >>> leave_one_out_centroids(f, ["ann", "ann", "bob", "bob"]).tolist()
        [[0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]
    """
    embeddings = at_least_float32(as_embeddings(embeddings, len(embeddings)).detach())
    people, codes = person_codes(labels, len(embeddings), "embeddings")
    person = torch.from_numpy(codes).to(embeddings.device)
    alone = [str(name) for name, count in zip(people, np.bincount(codes).tolist(), strict=True) if count == 1]
    if alone:
        raise CaptumLeamError(
            f"one image only of: {', '.join(alone)}. A reference from other images needs two or more of every person."
        )
    units = unit(embeddings, "embeddings")
    _warn_of_copies(embeddings, codes)
    sums = torch.zeros(len(people), embeddings.shape[1], dtype=units.dtype, device=units.device).index_add_(
        0, person, units
    )
    return unit(sums[person] - units, "leave-one-out centroids")


def _warn_of_copies(embeddings: Tensor, codes: NDArray[np.int64]) -> None:
    """Warn of images of one person with equal embeddings."""
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
    """The similarity to a reference as a Captum forward function: images in, one score per image out.

    Give it to any Captum method: ``LayerGradCam(EmbeddingSimilarity(model, reference), layer)``,
    ``Occlusion(EmbeddingSimilarity(model, reference))`` and so on. Which norm a method needs:

    * gradient and CAM methods: ``"detach"`` (default), or ``"differentiate"`` for what others call the cosine;
    * methods with a completeness axiom, which walk a path (IntegratedGradients, LayerIntegratedGradients,
      LayerConductance, DeepLift, GradientShap) and ``infidelity``: ``"fixed"``, with the weights of the explained
      images from :meth:`fixed_weights`, passed as ``additional_forward_args``;
    * perturbation methods (Occlusion, FeatureAblation, Shapley values): ``"detach"`` or ``"differentiate"``, whose
      values are both the cosine; they need a reference, since the cosine to the own embedding is 1 whatever the image.

    The model is held, not copied, and its mode, gradients and hooks are left as they are.

    Args:
        model: returns embeddings (N, D); a module or any callable.
        reference: (D,) or (1, D), shared; or (N, D), one per image, which then fits a batch of N only. Under
            ``norm="fixed"`` these are weights, used as they are. Without any, an image's own embedding.
        norm: ``"detach"``, ``"differentiate"`` or ``"fixed"``.

    Raises:
        CaptumLeamError: for an unknown norm; in ``forward`` for references that do not fit, for
            ``norm="differentiate"`` without a reference (zero gradient), for ``norm="fixed"`` without weights.

    Example:
        >>> from captum.attr import Saliency
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(48, 8)).eval()
        >>> faces = torch.rand(2, 3, 4, 4)
        >>> objective = EmbeddingSimilarity(model, reference=torch.ones(8))
        >>> objective(faces).shape
        torch.Size([2])
        >>> Saliency(objective).attribute(faces.requires_grad_()).shape
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
        if norm not in NORMS:
            raise CaptumLeamError(f"norm is {norm!r}; expected one of {', '.join(map(repr, NORMS))}.")
        if not callable(model):
            raise InputTypeError(
                f"model is a {type(model).__name__}; expected a module or a callable that returns embeddings."
            )
        if reference is not None and not isinstance(reference, Tensor):
            raise InputTypeError(
                f"reference is a {type(reference).__name__}; expected a tensor (D,), (1, D) or (N, D)."
            )
        self.model = model
        self.norm: Norm = norm
        self.register_buffer("reference", None if reference is None else reference.detach().clone(), persistent=False)
        self.training = getattr(model, "training", False)

    def forward(self, inputs: Tensor, reference: Tensor | None = None, *args: Any) -> Tensor:
        """Score of every image.

        Args:
            inputs: images (N, …).
            reference: instead of the held one: (D,), (1, D) or (N, D); weights under ``norm="fixed"``.
            *args: reach the model unchanged.

        Returns:
            (N,): the cosine (under ``"fixed"``: at the images whose weights these are).
        """
        chosen = self.reference if reference is None else reference
        if chosen is None and self.norm != "detach":
            raise CaptumLeamError(
                'norm="differentiate" without a reference has zero gradient: an image\'s cosine to itself is at its maximum. '
                'Give a reference or use norm="detach".'
                if self.norm == "differentiate"
                else 'norm="fixed" needs the weights of the explained images: w = objective.fixed_weights(images, '
                "reference), then additional_forward_args=(w,)."
            )
        embeddings = as_embeddings(self.model(inputs, *args), len(inputs))
        if self.norm == "fixed":
            return similarity(embeddings, match_rows(cast(Tensor, chosen), embeddings), "fixed")
        towards = direction(embeddings, chosen)
        if chosen is None and not embeddings.requires_grad:
            self._warn_of_constant()
        if self.norm == "differentiate" and embeddings.requires_grad:
            self._warn_if_flat(embeddings, towards)
        return similarity(embeddings, towards, self.norm)

    def fixed_weights(
        self, inputs: Tensor, reference: Tensor | None = None, contrast: Tensor | None = None, *args: Any
    ) -> Tensor:
        """Weights of ``norm="fixed"`` for these images, see :func:`fixed_weights`; (N, D). ``args`` reach the model unchanged.

        Example:
            >>> model = nn.Sequential(nn.Flatten(), nn.Linear(48, 8)).eval()
            >>> faces = torch.rand(2, 3, 4, 4)
            >>> objective = EmbeddingSimilarity(model, norm="fixed")
            >>> weights = objective.fixed_weights(faces, reference=torch.ones(8))
            >>> torch.allclose(objective(faces, weights), EmbeddingSimilarity(model)(faces, torch.ones(8)), atol=1e-6)
            True
        """
        with torch.no_grad():
            return fixed_weights(as_embeddings(self.model(inputs, *args), len(inputs)), reference, contrast)

    @staticmethod
    def _warn_of_constant() -> None:
        warnings.warn(
            "EmbeddingSimilarity without a reference is 1 whatever the image: methods that look at its values (Occlusion, FeatureAblation, "
            "Shapley values, infidelity) see rounding noise. Give it a reference; without one only its gradients mean something.",
            ReliabilityWarning,
            stacklevel=4,
        )

    @staticmethod
    def _warn_if_flat(embeddings: Tensor, towards: Tensor) -> None:
        # a warning, not an error: the end point of a path may rightly lie on the reference
        flat = reliability(embeddings, towards) <= vanishing(embeddings)
        if rows := flat.nonzero().flatten().tolist():
            warnings.warn(
                f'norm="differentiate" has zero gradient for images {caller_rows(rows)}, whose embedding is the reference: gradients there '
                "are rounding noise.",
                ReliabilityWarning,
                stacklevel=4,
            )
