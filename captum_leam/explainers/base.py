"""Base classes of the explainers, which validate inputs, split batches and count passes."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from captum.attr import Attribution
from captum.log import log_usage
from torch import Tensor

from captum_leam._engine.arithmetic import at_least_float32, differentiate
from captum_leam._engine.captum_adapter import raise_if_target
from captum_leam._engine.checks import check_images
from captum_leam._engine.guards import enable_gradients, force_eager, raise_if_unexplainable
from captum_leam._engine.memory import in_batches
from captum_leam._engine.outputs import as_embeddings
from captum_leam._engine.probe import check_model
from captum_leam.errors import CaptumLeamError, InputTypeError
from captum_leam.maps import as_maps
from captum_leam.objectives import direction

T = TypeVar("T")


@dataclass(frozen=True)
class Cost:
    """Number of passes through the model per explained image.

    It is counted during a call, so that methods can be compared at equal cost. A method returns it as :attr:`Explainer.cost`.

    Attributes:
        forwards: Forward passes of single images, perturbed or not, per explained image.
        backwards: Gradients with respect to a single image (or its layer), per explained image.

    Example:
        >>> from captum_leam.explainers import RISE
        >>> method = RISE(torch.nn.Flatten(), masks=100)
        >>> _ = method.attribute(torch.ones(2, 1, 8, 8), reference=torch.ones(64))
        >>> method.cost
        Cost(forwards=100.0, backwards=0.0)
    """

    forwards: float
    backwards: float


@dataclass(frozen=True)
class SimilarityMaps:
    """Two maps of each image: the evidence for a match and the evidence against it.

    :meth:`TwoSidedExplainer.attribute_both` returns it.

    Attributes:
        similar: Evidence for the match, 0 or more, shape (N, 1, H, W).
        dissimilar: Evidence against the match, 0 or more, shape (N, 1, H, W).

    Example:
        >>> both = SimilarityMaps(similar=torch.tensor([[[[3.0, 0.0]]]]), dissimilar=torch.tensor([[[[1.0, 2.0]]]]))
        >>> both.signed.tolist()
        [[[[2.0, -2.0]]]]
    """

    similar: Tensor
    dissimilar: Tensor

    @property
    def signed(self) -> Tensor:
        """Similar minus dissimilar map, shape (N, 1, H, W).

        Positive values support the match, negative values oppose it.
        """
        return self.similar - self.dissimilar


class Explainer(Attribution, ABC):
    """Base class of methods that explain the similarity of an embedding to a reference.

    All methods of :mod:`captum_leam.explainers` are used in the same way: create one with a model, then call :meth:`attribute` with images
    and references. The model's mode, parameters, gradients and hooks, and the random state of the process, are not changed.

    To add a method, implement ``_signed``, from a batch of images and their references to maps. Call the model through ``_embed`` and take
    gradients through ``_gradient``, so that both are counted in :attr:`cost`.

    Args:
        model: Function from images (N, C, H, W) to embeddings (N, D), which should not be normalised.
        seed: Seed of the random numbers, which are the same for an image in any batch. Default: 0.
        batch_size: Maximum number of images, perturbed or not, in one pass, 1 or more. It is halved when memory runs out. Default: 8, which
            suits a CPU at 112 px. On a GPU, larger batches are faster.

    Raises:
        InputTypeError: If the model is not callable.
        CaptumLeamError: If the batch size is below 1.

    Example:
        A custom method, the gradient of the cosine times the image:

        >>> class GradientTimesInput(Explainer):
        ...     def _signed(self, images, reference):
        ...         x = images.requires_grad_()
        ...         embeddings = self._embed(x)
        ...         score = (embeddings * direction(embeddings, reference)).sum(1) / embeddings.norm(dim=1)
        ...         return (self._gradient(score, x) * x).sum(1, keepdim=True)
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 8)).eval()
        >>> method = GradientTimesInput(model)
        >>> method.attribute(torch.rand(2, 3, 8, 8), reference=torch.randn(8)).shape, method.cost
        (torch.Size([2, 1, 8, 8]), Cost(forwards=1.0, backwards=1.0))
    """

    def __init__(self, model: Callable[..., Tensor], *, seed: int = 0, batch_size: int = 8) -> None:
        if not callable(model):
            raise InputTypeError(
                f"Expected model to be a module or callable that returns embeddings, got a {type(model).__name__}."
            )
        if batch_size < 1:
            raise CaptumLeamError(f"Expected batch_size to be 1 or more, got {batch_size}.")
        super().__init__(model)
        self.model = model
        self.seed = seed
        self.batch_size = batch_size
        self._pass_size = batch_size  # reduced for the rest of a call when memory runs out
        self._forwards = self._backwards = self._images = 0

    @classmethod
    def get_name(cls) -> str:
        """Return the name of the method.

        Returns:
            Name of the class, a string such as ``"RISE"``.
        """
        return cls.__name__

    @property
    def cost(self) -> Cost:
        """Number of passes per image in the last call of ``attribute``, zero before the first."""
        images = max(self._images, 1)
        return Cost(self._forwards / images, self._backwards / images)

    @log_usage()  # type: ignore[untyped-decorator]
    def attribute(self, inputs: Tensor, target: None = None, *, reference: Tensor | None = None) -> Tensor:
        """Compute the attribution map of each image.

        Args:
            inputs: Images (N, C, H, W), floating point, as the model takes them.
            target: None, because embeddings have no classes. Pass ``reference`` instead. Default: None.
            reference: Embeddings that the images are compared with, (D,) or (1, D) for all images, or (N, D) with one per image. Default:
                None, each image's own embedding.

        Returns:
            Maps at the size of the images, shape (N, 1, H, W), detached, on the device of the images. Positive values support the match. In
            signed methods, negative values oppose it.

        Raises:
            InputTypeError: If inputs, reference or embeddings are not floating-point tensors.
            CaptumLeamError: If a shape does not fit, the model is not in evaluation mode, or a map is not finite.

        Example:
            >>> from captum_leam.explainers import CorrRISE
            >>> _ = torch.manual_seed(0)
            >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 8)).eval()
            >>> CorrRISE(model, masks=20).attribute(torch.rand(2, 3, 8, 8), reference=torch.randn(2, 8)).shape
            torch.Size([2, 1, 8, 8])
        """
        raise_if_target(target)
        return torch.cat([maps.detach() for maps in self._map_batches(self._signed, inputs, reference)])

    @abstractmethod
    def _signed(self, images: Tensor, reference: Tensor | None) -> Tensor:
        """Return signed maps (n, 1, H, W) of a batch; the reference (1, D) or (n, D) is not normalised."""

    def _prepare(self, inputs: Tensor) -> None:
        """Prepare the method for a call, before the first batch."""

    # -- calls to the model, counted -----------------------------------------------------------------------

    def _embed(self, images: Tensor) -> Tensor:
        """Return the embeddings (n, D) of images and count the forward passes."""
        embeddings = as_embeddings(self.model(images.clone()), len(images))  # cloned because a model may work in place
        self._forwards += len(images)
        return embeddings

    def _gradient(self, score: Tensor, images: Tensor) -> Tensor:
        """Return the gradient of one score per image with respect to the images and count the backward passes."""
        self._check_differentiable(score)
        gradient: Tensor = differentiate(score.sum(), images, retain_graph=True)[0]
        self._backwards += len(images)
        return gradient

    def _check_differentiable(self, score: Tensor) -> None:
        if not score.requires_grad:
            raise CaptumLeamError(
                f"Expected the embedding to depend on the images through differentiable operations for {self.get_name()}, got an embedding "
                "without a gradient. Remove detach, no_grad and NumPy from the forward pass, or use a perturbation method such as RISE."
            )

    # -- batches -------------------------------------------------------------------------------------------

    def _map_batches(
        self, explain: Callable[[Tensor, Tensor | None], T], inputs: Tensor, reference: Tensor | None
    ) -> list[T]:
        """Return the results of a function on each batch of images with its rows of the reference."""
        check_images(inputs)
        rows = reference_rows(reference, len(inputs))
        raise_if_unexplainable(self.model, [])
        with torch.no_grad(), force_eager():
            run = lambda images: as_embeddings(self.model(images.clone()), len(images))  # noqa: E731
            check_model(self.model, inputs, run, self.batch_size)
        self._forwards, self._backwards, self._images = 0, 0, len(inputs)
        self._pass_size = self.batch_size

        def explain_batch(batch: slice) -> T:
            with enable_gradients():
                if not batch.start:
                    self._prepare(inputs)
                images = inputs[batch].detach().clone()
                return explain(images, rows if rows is None or len(rows) == 1 else rows[batch])

        return in_batches(explain_batch, len(inputs), self.batch_size, on_reduce=partial(setattr, self, "_pass_size"))


class TwoSidedExplainer(Explainer):
    """Base class of methods with separate maps of the evidence for the match and against it.

    :meth:`attribute_both` returns the two maps, and ``attribute`` their difference. To add a method, implement ``_both``, from a batch of
    images and their references to :class:`SimilarityMaps`.

    Args:
        model: Function from images (N, C, H, W) to embeddings (N, D), which should not be normalised.
        seed: Seed of the random numbers. Default: 0.
        batch_size: Maximum number of images in one pass. Default: 8.

    Example:
        A custom method, the positive and negative parts of the gradient of the cosine:

        >>> class Gradient(TwoSidedExplainer):
        ...     def _both(self, images, reference):
        ...         x = images.requires_grad_()
        ...         embeddings = self._embed(x)
        ...         gradient = self._gradient(cosines(embeddings, direction(embeddings, reference)), x).sum(1, keepdim=True)
        ...         return SimilarityMaps(gradient.clamp(min=0), -gradient.clamp(max=0))
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 8)).eval()
        >>> both = Gradient(model).attribute_both(torch.rand(2, 3, 8, 8), reference=torch.randn(8))
        >>> both.similar.shape, both.dissimilar.shape
        (torch.Size([2, 1, 8, 8]), torch.Size([2, 1, 8, 8]))
    """

    def attribute_both(self, inputs: Tensor, target: None = None, *, reference: Tensor | None = None) -> SimilarityMaps:
        """Compute separate maps of the evidence for the match and against it.

        Args:
            inputs: Images (N, C, H, W), floating point, as the model takes them.
            target: None, because embeddings have no classes. Pass ``reference`` instead. Default: None.
            reference: Embeddings that the images are compared with, (D,) or (1, D) for all images, or (N, D) with one per image. Default:
                None, each image's own embedding.

        Returns:
            :class:`SimilarityMaps` with two maps of 0 or more, shape (N, 1, H, W) each, detached, on the device of the images.

        Raises:
            InputTypeError: If inputs, reference or embeddings are not floating-point tensors.
            CaptumLeamError: If a shape does not fit, the model is not in evaluation mode, or a map is not finite.

        Example:
            The embedding of this model is its four pixels. The reference agrees with the upper row and opposes the pixel at the lower left:

            >>> from captum_leam.explainers import FGGB
            >>> image, reference = torch.ones(1, 1, 2, 2), torch.tensor([1.0, 1.0, -1.0, 0.0])
            >>> both = FGGB(torch.nn.Flatten()).attribute_both(image, reference=reference)
            >>> print(both.dissimilar[0, 0].numpy().round(2))
            [[0.   0.  ]
             [0.42 0.08]]
        """
        raise_if_target(target)
        batches = self._map_batches(self._both, inputs, reference)
        return SimilarityMaps(
            torch.cat([maps.similar for maps in batches]).detach(),
            torch.cat([maps.dissimilar for maps in batches]).detach(),
        )

    @abstractmethod
    def _both(self, images: Tensor, reference: Tensor | None) -> SimilarityMaps:
        """Return both maps of a batch; the reference (1, D) or (n, D) is not normalised."""

    def _signed(self, images: Tensor, reference: Tensor | None) -> Tensor:
        return self._both(images, reference).signed


# -- references, cosines and maps ----------------------------------------------------------------------


def reference_rows(reference: Tensor | None, images: int) -> Tensor | None:
    """Return a reference as rows, after checking that it fits the number of images.

    Args:
        reference: Reference embeddings of shape (D,), (1, D) or (N, D). Default: None.
        images: Number of images N.

    Returns:
        Rows of shape (1, D) or (N, D), detached, or None without a reference.

    Raises:
        InputTypeError: If the reference is not a tensor.
        CaptumLeamError: If the number of rows is neither 1 nor N.

    Example:
        >>> reference_rows(torch.ones(4), 3).shape, reference_rows(None, 3)
        (torch.Size([1, 4]), None)
    """
    if reference is None:
        return None
    if not isinstance(reference, Tensor):
        raise InputTypeError(
            f"Expected reference to be a tensor of shape (D,), (1, D) or (N, D), got a {type(reference).__name__}."
        )
    rows = reference[None] if reference.ndim == 1 else reference
    if rows.ndim != 2 or len(rows) not in (1, images):
        raise CaptumLeamError(
            f"Expected reference to have shape (D,), (1, D) or ({images}, D) for {images} images, got {tuple(reference.shape)}. Pass one "
            "embedding per image, or one for all."
        )
    return rows.detach()


def unit_and_direction(embeddings: Tensor, reference: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return unit embeddings and unit references, whose products sum to the cosine.

    Args:
        embeddings: Embeddings of shape (N, D).
        reference: Reference embeddings of shape (1, D) or (N, D). None for ``embeddings``.

    Returns:
        Tuple of two values:

        * Unit embeddings of shape (N, D), differentiable.
        * Unit references of shape (1, D) or (N, D), constant.

    Raises:
        CaptumLeamError: If a reference is zero or not finite.

    Example:
        >>> f, g = unit_and_direction(torch.tensor([[3.0, 4.0]]), torch.tensor([[2.0, 0.0]]))
        >>> round((f * g).sum().item(), 6)
        0.6
    """
    return torch.nn.functional.normalize(embeddings, dim=1), direction(embeddings, reference)


def cosines(embeddings: Tensor, towards: Tensor) -> Tensor:
    """Return the cosine of each embedding to a unit direction.

    Args:
        embeddings: Embeddings of shape (N, D).
        towards: Unit directions of shape (1, D) or (N, D).

    Returns:
        Cosines of shape (N,), in float32 or higher precision.

    Example:
        >>> cosines(torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0]])).item()
        0.6000000238418579
    """
    return (torch.nn.functional.normalize(at_least_float32(embeddings), dim=1) * towards).sum(1)


def as_map_batch(maps: Tensor) -> Tensor:
    """Return maps of shape (N, H, W) or (N, 1, H, W) as (N, 1, H, W).

    Args:
        maps: Attribution maps.

    Returns:
        Maps of shape (N, 1, H, W).

    Raises:
        CaptumLeamError: If the maps have another shape, or hold NaN or infinite values.

    Example:
        >>> as_map_batch(torch.ones(2, 4, 4)).shape
        torch.Size([2, 1, 4, 4])
    """
    return as_maps(maps)[:, None]
