"""Base classes of the explainers: checks, batches, counted cost, and the two sides of a similarity."""

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
from captum_leam._engine.guards import eager, raise_if_unexplainable, with_gradients
from captum_leam._engine.memory import in_batches
from captum_leam._engine.outputs import as_embeddings
from captum_leam._engine.probe import check_model
from captum_leam.errors import CaptumLeamError, InputTypeError
from captum_leam.maps import as_maps
from captum_leam.objectives import direction

T = TypeVar("T")


@dataclass(frozen=True)
class Cost:
    """Passes through the model per explained image, counted, not estimated.

    Attributes:
        forwards: Number of images, perturbed or not, that went through the model, per explained image.
        backwards: Number of gradients with respect to one image (or its layer), per explained image.

    Example:
        >>> Cost(1, 2)
        Cost(forwards=1, backwards=2)
    """

    forwards: float
    backwards: float


@dataclass(frozen=True)
class SimilarityMaps:
    """The two sides of an explanation.

    Attributes:
        similar: Evidence for the match, (N, 1, H, W), not negative.
        dissimilar: Evidence against the match, (N, 1, H, W), not negative.

    Example:
        >>> SimilarityMaps(torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)).signed.sum().item()
        4.0
    """

    similar: Tensor
    dissimilar: Tensor

    @property
    def signed(self) -> Tensor:
        """Return similar minus dissimilar, (N, 1, H, W)."""
        return self.similar - self.dissimilar


class Explainer(Attribution, ABC):
    """A method that explains the similarity of an image's embedding to a reference, as a Captum attribution.

    A method is one subclass with ``_signed``, which gets a batch of images and their references and returns maps. It
    calls the model through ``_embed`` and takes gradients through ``_gradient``, which count.

    The model's mode, parameters, gradients and hooks, and the random numbers of the process, stay as they are.

    Args:
        model: Function from images (N, C, H, W) to embeddings (N, D), un-normalised.
        seed: Seed of random numbers; images get the same numbers whatever the batch they are in. Default: 0.
        batch_size: Number of images, perturbed or not, in one pass: bounds the memory, and is halved where that is short. Default: 8,
            which stay in the caches of a CPU core at 112 px, where sixteen take a quarter longer; on a GPU take as many as fit.

    Raises:
        InputTypeError: if the model cannot be called.
        CaptumLeamError: for a batch size below 1.

    Example:
        A method of your own, here the gradient of the cosine times the image:

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
            raise CaptumLeamError(f"Expected batch_size to be 1 or more images in one pass, got {batch_size}.")
        super().__init__(model)
        self.model = model
        self.seed = seed
        self.batch_size = batch_size
        self._at_once = batch_size  # images in one pass of the call; fewer where memory is short
        self._forwards = self._backwards = self._images = 0

    @classmethod
    def get_name(cls) -> str:
        """Return the name of the method: that of its class."""
        return cls.__name__

    @property
    def cost(self) -> Cost:
        """Return the passes per image of the last call; zeros before any."""
        images = max(self._images, 1)
        return Cost(self._forwards / images, self._backwards / images)

    @log_usage()  # type: ignore[untyped-decorator]
    def attribute(self, inputs: Tensor, target: None = None, *, reference: Tensor | None = None) -> Tensor:
        """Return signed maps at image size: positive values support the match, negative ones oppose it.

        Args:
            inputs: Images (N, C, H, W), floating point, as the model takes them.
            target: Must be None, because embeddings have no classes. Pass ``reference`` instead.
            reference: Embeddings (D,) or (1, D), shared, or (N, D), one per image. Default: each image's own.

        Returns:
            Shape (N, 1, H, W), detached, on the device of the images.

        Raises:
            InputTypeError: for inputs, references or embeddings that are no floating-point tensors.
            CaptumLeamError: for other shapes, a model that is not in evaluation mode, or maps that are not finite.
        """
        raise_if_target(target)
        return torch.cat([maps.detach() for maps in self._in_parts(self._signed, inputs, reference)])

    @abstractmethod
    def _signed(self, images: Tensor, reference: Tensor | None) -> Tensor:
        """Return maps (n, 1, H, W) of at most ``batch_size`` images; reference: (1, D), (n, D) or None, not normalised."""

    def _prepare(self, inputs: Tensor) -> None:
        """Prepare the method once for every call, before the batches."""

    # -- what methods call ---------------------------------------------------------------------------------

    def _embed(self, images: Tensor) -> Tensor:
        """Return embeddings (n, D) of images, counted; with a graph where the images have one."""
        embeddings = as_embeddings(self.model(images.clone()), len(images))  # a clone: models may work in place
        self._forwards += len(images)
        return embeddings

    def _gradient(self, score: Tensor, images: Tensor) -> Tensor:
        """Return the gradient of one score per image with respect to the images, counted."""
        self._check_differentiable(score)
        gradient: Tensor = differentiate(score.sum(), images, retain_graph=True)[0]
        self._backwards += len(images)
        return gradient

    def _check_differentiable(self, score: Tensor) -> None:
        if not score.requires_grad:
            raise CaptumLeamError(
                f"the embedding does not depend on the images through differentiable operations, which {self.get_name()} needs: does "
                "the model detach, or leave torch (numpy, no_grad)? The perturbation methods work on such models."
            )

    # -- batches -------------------------------------------------------------------------------------------

    def _in_parts(
        self, explain: Callable[[Tensor, Tensor | None], T], inputs: Tensor, reference: Tensor | None
    ) -> list[T]:
        """Return the results of a function on every batch of images and the rows of the reference that belong to them."""
        check_images(inputs)
        rows = reference_rows(reference, len(inputs))
        raise_if_unexplainable(self.model, [])
        with torch.no_grad(), eager():
            run = lambda images: as_embeddings(self.model(images.clone()), len(images))  # noqa: E731
            check_model(self.model, inputs, run, self.batch_size)
        self._forwards, self._backwards, self._images = 0, 0, len(inputs)
        self._at_once = self.batch_size

        def explain_part(part: slice) -> T:
            with with_gradients():
                if not part.start:
                    self._prepare(inputs)
                images = inputs[part].detach().clone()
                return explain(images, rows if rows is None or len(rows) == 1 else rows[part])

        return in_batches(explain_part, len(inputs), self.batch_size, on_reduce=partial(setattr, self, "_at_once"))


class TwoSidedExplainer(Explainer):
    """A method with a map of the evidence for the match and one of the evidence against it.

    Subclasses write ``_both``; the signed map is the difference of the two.

    Example:
        >>> class Gradient(TwoSidedExplainer):
        ...     def _both(self, images, reference):
        ...         x = images.requires_grad_()
        ...         embeddings = self._embed(x)
        ...         gradient = self._gradient(cosines(embeddings, direction(embeddings, reference)), x).sum(1, keepdim=True)
        ...         return SimilarityMaps(gradient.clamp(min=0), -gradient.clamp(max=0))
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 8)).eval()
        >>> both = Gradient(model).attribute_both(torch.rand(2, 3, 8, 8), reference=torch.randn(8))
        >>> bool((both.similar * both.dissimilar == 0).all())
        True
    """

    def attribute_both(self, inputs: Tensor, target: None = None, *, reference: Tensor | None = None) -> SimilarityMaps:
        """Return the maps of both sides at image size.

        Args:
            inputs: As for :meth:`Explainer.attribute`.
            target: Must be None.
            reference: As for :meth:`Explainer.attribute`.

        Returns:
            :class:`SimilarityMaps`, detached.

        Raises:
            InputTypeError: as :meth:`Explainer.attribute`.
            CaptumLeamError: as :meth:`Explainer.attribute`.
        """
        raise_if_target(target)
        parts = self._in_parts(self._both, inputs, reference)
        return SimilarityMaps(
            torch.cat([p.similar for p in parts]).detach(), torch.cat([p.dissimilar for p in parts]).detach()
        )

    @abstractmethod
    def _both(self, images: Tensor, reference: Tensor | None) -> SimilarityMaps:
        """Return both maps of at most ``batch_size`` images."""

    def _signed(self, images: Tensor, reference: Tensor | None) -> Tensor:
        return self._both(images, reference).signed


# -- small functions -----------------------------------------------------------------------------------


def reference_rows(reference: Tensor | None, images: int) -> Tensor | None:
    """Return a reference as rows (1, D) or (N, D), checked against the number of images before it is split into batches.

    Raises:
        InputTypeError: if it is no tensor.
        CaptumLeamError: for another number of rows.

    Example:
        >>> reference_rows(torch.ones(4), 3).shape, reference_rows(None, 3)
        (torch.Size([1, 4]), None)
    """
    if reference is None:
        return None
    if not isinstance(reference, Tensor):
        raise InputTypeError(f"reference is a {type(reference).__name__}; expected a tensor (D,), (1, D) or (N, D).")
    rows = reference[None] if reference.ndim == 1 else reference
    if rows.ndim != 2 or len(rows) not in (1, images):
        raise CaptumLeamError(
            f"reference has shape {tuple(reference.shape)} for {images} images; expected (D,) or (1, D), shared, or ({images}, D), one "
            "per image."
        )
    return rows.detach()


def unit_and_direction(embeddings: Tensor, reference: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return unit embeddings with their graph, and unit references, constant: their products sum to the cosine.

    Args:
        embeddings: Embeddings (N, D).
        reference: Embeddings (1, D) or (N, D). Default: ``embeddings``.

    Returns:
        (N, D) and (1, D) or (N, D).

    Example:
        >>> f, g = unit_and_direction(torch.tensor([[3.0, 4.0]]), torch.tensor([[2.0, 0.0]]))
        >>> round((f * g).sum().item(), 6)
        0.6
    """
    towards = direction(embeddings, reference)  # refuses zero embeddings where they are the reference
    return torch.nn.functional.normalize(embeddings, dim=1), towards


def cosines(embeddings: Tensor, towards: Tensor) -> Tensor:
    """Return the cosine of every embedding to a unit direction; (N,).

    Example:
        >>> cosines(torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0]])).item()
        0.6000000238418579
    """
    return (torch.nn.functional.normalize(at_least_float32(embeddings), dim=1) * towards).sum(1)


def as_map_batch(maps: Tensor) -> Tensor:
    """Return maps (N, H, W) or (N, 1, H, W) as (N, 1, H, W); raise for NaN and infinite values.

    Example:
        >>> as_map_batch(torch.ones(2, 4, 4)).shape
        torch.Size([2, 1, 4, 4])
    """
    return as_maps(maps)[:, None]
