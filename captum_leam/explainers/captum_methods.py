"""Captum's own methods under the interface of the explainers, so that methods can be exchanged line by line."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from captum.attr import (
    DeepLift,
    DeepLiftShap,
    GradientShap,
    IntegratedGradients,
    InternalInfluence,
    LayerAttribution,
    LayerConductance,
    LayerDeepLift,
    LayerDeepLiftShap,
    LayerGradientShap,
    LayerIntegratedGradients,
)
from torch import Tensor, nn

from captum_leam._engine.modes import callers_autocast, without_autocast
from captum_leam._engine.seeds import at_seed
from captum_leam._engine.shapes import Reshape
from captum_leam._engine.types import Field
from captum_leam.errors import CaptumLeamError, InputTypeError
from captum_leam.explainers.base import Explainer, as_map_batch
from captum_leam.layers import LayerSuggestion
from captum_leam.maps import place_on_field
from captum_leam.objectives import NORMS, EmbeddingSimilarity, Norm

Reading = Literal["sum", "positive", "absolute", "mean"]

READINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda attributions: attributions.sum(1),
    "positive": lambda attributions: attributions.sum(1).clamp(min=0),
    "absolute": lambda attributions: attributions.abs().sum(1),
    "mean": lambda attributions: attributions.mean(1),
}
"""Attributions of channels (N, C, H, W) to maps (N, H, W)."""

ALONG_A_PATH = (
    DeepLift,
    DeepLiftShap,
    GradientShap,
    IntegratedGradients,
    InternalInfluence,
    LayerConductance,
    LayerDeepLift,
    LayerDeepLiftShap,
    LayerGradientShap,
    LayerIntegratedGradients,
)
"""Methods whose attributions sum to a difference of scores, which the detached norm does not have along a path."""


class CaptumExplainer(Explainer):
    r"""A method of Captum, of the similarity to a reference.

    The method gets an :class:`~captum_leam.EmbeddingSimilarity` as its forward function, and for every image its reference, or, under
    ``norm="fixed"``, its weights, as additional argument, which Captum's methods repeat along with the images. The attributions of the
    channels become one map per image: by default their sum, which keeps the sign and the completeness of a method.

    Args:
        method: Class of :mod:`captum.attr`, or a function of the forward function (and the layer) that returns such a method, for
            example ``lambda f: NoiseTunnel(Saliency(f))``.
        model: Function from images (N, C, H, W) to embeddings (N, D). Methods that set hooks on modules (DeepLift, GuidedBackprop) need
            an ``nn.Module``.
        layer: Module or layer suggestion, for methods that explain a layer or need one (LayerGradCam, GuidedGradCam). Default: None.
        norm: ``"detach"``, ``"differentiate"`` or ``"fixed"``. Default: ``"fixed"`` for methods along a path (IntegratedGradients,
            DeepLift, GradientShap and their kin), else ``"detach"``.
        reading: ``"sum"`` of the channels, signed; its ``"positive"`` part; the sum of ``"absolute"`` values; or the ``"mean"``.
        reshape: Function that brings attributions of a layer to (N, C, h, w). Default: that of the suggestion, else None.
        field: Part (top, left, height, width) of the images that the model reads, which maps of a layer are brought to. Default: all.
        seed: Seed of methods that draw random numbers. Default: 0. Images of one batch share the random numbers.
        batch_size: Number of images in one call of the method, which may repeat them. Default: 8.
        **options: More arguments of the method's ``attribute``. ``baselines`` may also be a function of the images of a batch, for
            example :func:`~captum_leam.maps.default_blur`.

    Raises:
        InputTypeError: for a method that is no callable; in use, for one that does not return a tensor.
        CaptumLeamError: for an unknown norm or reading; in use, for attributions that are not of shape (N, C, h, w).

    Example:
        >>> from captum.attr import IntegratedGradients, LayerGradCam, Occlusion
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.Tanh(), nn.Flatten(), nn.Linear(128, 8)).eval()
        >>> faces, references = torch.rand(2, 3, 8, 8), torch.randn(2, 8)
        >>> methods = {
        ...     "IntegratedGradients": CaptumExplainer(IntegratedGradients, model, n_steps=20),
        ...     "LayerGradCam": CaptumExplainer(LayerGradCam, model, model[1]),
        ...     "Occlusion": CaptumExplainer(Occlusion, model, sliding_window_shapes=(3, 4, 4), strides=(3, 2, 2)),
        ... }
        >>> for name, method in methods.items():
        ...     print(name, tuple(method.attribute(faces, reference=references).shape), method.cost)
        IntegratedGradients (2, 1, 8, 8) Cost(forwards=21.0, backwards=20.0)
        LayerGradCam (2, 1, 8, 8) Cost(forwards=1.0, backwards=1.0)
        Occlusion (2, 1, 8, 8) Cost(forwards=10.0, backwards=0.0)
    """

    def __init__(
        self,
        method: Callable[..., Any],
        model: Callable[..., Tensor],
        layer: nn.Module | LayerSuggestion | None = None,
        *,
        norm: Norm | None = None,
        reading: Reading = "sum",
        reshape: Reshape | None = None,
        field: Field | None = None,
        seed: int = 0,
        batch_size: int = 8,
        **options: Any,
    ) -> None:
        super().__init__(model, seed=seed, batch_size=batch_size)
        if not callable(method):
            raise InputTypeError(f"Expected method to be a class of captum.attr, got {method!r}.")
        if reading not in READINGS:
            raise CaptumLeamError(f"Expected reading to be one of {', '.join(map(repr, READINGS))}, got {reading!r}.")
        if norm is not None and norm not in NORMS:
            raise CaptumLeamError(f"Expected norm to be one of {', '.join(map(repr, NORMS))}, got {norm!r}.")
        is_along_path = isinstance(method, type) and issubclass(method, ALONG_A_PATH)
        self.norm: Norm = norm or ("fixed" if is_along_path else "detach")
        self.reading, self.field, self.options = reading, field, options
        self.reshape = layer.reshape if isinstance(layer, LayerSuggestion) and reshape is None else reshape
        module = layer.module if isinstance(layer, LayerSuggestion) else layer
        self._objective = _CountedSimilarity(self, norm=self.norm)
        self.method = method(self._objective) if module is None else method(self._objective, module)

    def _signed(self, images: Tensor, reference: Tensor | None) -> Tensor:
        with torch.no_grad():
            towards = self._embed(images) if reference is None else reference
            if self.norm == "fixed":
                towards = self._objective.fixed_weights(images, towards)
        options = dict(self.options)
        if callable(options.get("baselines")):
            options["baselines"] = options["baselines"](images)
        # The model runs under the caller's autocast; Captum's gradients do not, nor may its random numbers be those of other calls.
        self._objective.autocast = callers_autocast(images.device)
        with at_seed(self.seed), without_autocast(images.device):
            attributions = self.method.attribute(
                images.requires_grad_(),
                additional_forward_args=(towards.expand(len(images), -1),),
                **options,
            )
        return self._read(attributions, images)

    def _read(self, attributions: Any, images: Tensor) -> Tensor:
        """Return the map (n, 1, H, W) of attributions of the input or of a layer."""
        if not isinstance(attributions, Tensor):
            raise InputTypeError(
                f"Expected {type(self.method).__name__} to return one tensor, got a {type(attributions).__name__}. Choose a layer that "
                "puts out one tensor, and no convergence delta."
            )
        attributions = attributions.detach()
        if self.reshape is not None:
            attributions = self.reshape(attributions)
        if attributions.ndim != 4 or len(attributions) != len(images):
            raise CaptumLeamError(
                f"Expected {type(self.method).__name__} to return attributions ({len(images)}, C, h, w), got {tuple(attributions.shape)}. "
                "For tokens or channels-last layers pass `reshape`."
            )
        maps, size = READINGS[self.reading](attributions)[:, None], (images.shape[2], images.shape[3])
        of_input = maps.shape[2:] == images.shape[2:] and not isinstance(self.method, LayerAttribution)
        return as_map_batch(maps if of_input else place_on_field(maps, size, self.field))


class _CountedSimilarity(EmbeddingSimilarity):
    """The objective, which counts the passes through the model for an explainer.

    Args:
        explainer: Explainer whose model is run.
        norm: As for :class:`~captum_leam.EmbeddingSimilarity`.
    """

    def __init__(self, explainer: CaptumExplainer, *, norm: Norm) -> None:
        super().__init__(explainer.model, norm=norm)
        self._explainer = [explainer]  # in a list: no attribute that copies of the module would follow

    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
    """Function that returns a context manager for the forward pass."""

    def forward(self, inputs: Tensor, reference: Tensor | None = None, *args: Any) -> Tensor:
        """Return the score of every image, (N,)."""
        with self.autocast():
            scores = super().forward(inputs, reference, *args)
        (explainer,) = self._explainer
        explainer._forwards += len(inputs)
        if scores.requires_grad:
            scores.register_hook(self._count_gradients)  # type: ignore[no-untyped-call]
        return scores

    def fixed_weights(
        self, inputs: Tensor, reference: Tensor | None = None, contrast: Tensor | None = None, *args: Any
    ) -> Tensor:
        """Return the weights of the images, (N, D)."""
        (explainer,) = self._explainer
        explainer._forwards += len(inputs)
        return super().fixed_weights(inputs.clone(), reference, contrast, *args)

    def _count_gradients(self, gradients: Tensor) -> None:
        (explainer,) = self._explainer
        explainer._backwards += len(gradients)
