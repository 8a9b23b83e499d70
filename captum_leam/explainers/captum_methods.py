"""Captum's own methods behind the interface of the explainers, so that one can replace the other."""

import inspect
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

from captum_leam._engine.arithmetic import callers_autocast, without_autocast
from captum_leam._engine.checks import check_choice
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
"""Functions that reduce attributions of channels (N, C, H, W) to maps (N, H, W)."""

PATH_METHODS = (
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
"""Methods whose attributions sum to a difference of scores, which is undefined for the detached norm."""

OWN_ARGUMENTS = ("inputs", "additional_forward_args")
"""Arguments of ``attribute`` that the explainer passes itself."""


def _check_method(method: Any, model: Any, layer: Any) -> None:
    """Raise if a method cannot be constructed from a forward function and, if given, a layer."""
    if isinstance(method, nn.Module):
        raise InputTypeError(
            f"Expected method to be a class of captum.attr, got a {type(method).__name__}. Pass the method first and the model second, as "
            "in CaptumExplainer(Saliency, model)."
        )
    if not callable(method):
        raise InputTypeError(f"Expected method to be a class of captum.attr, got {method!r}.")
    if layer is not None and not isinstance(layer, nn.Module | LayerSuggestion):
        hint = f" Pass captum_leam.layers.get_layer(model, {layer!r})." if isinstance(layer, str) else ""
        raise InputTypeError(
            f"Expected layer to be a torch.nn.Module or one suggestion of suggest_layers, got a {type(layer).__name__}.{hint}"
        )
    name = getattr(method, "__name__", repr(method))
    try:
        bound = inspect.signature(method).bind(*([model] if layer is None else [model, layer]))
    except TypeError as error:
        hint = "Pass layer, a module of the model." if layer is None else "Omit layer."
        raise CaptumLeamError(
            f"Expected {name} to take {'a model' if layer is None else 'a model and a layer'}, got: {error}. {hint}"
        ) from None
    except ValueError:  # callables written in C have no signature
        return
    is_from_captum = getattr(method, "__module__", "").startswith("captum.")
    if layer is not None and is_from_captum and "layer" not in bound.arguments:
        raise CaptumLeamError(f"Expected no layer with {name}, which explains the input, got one. Omit layer.")


def _check_options(method: Any, options: dict[str, Any]) -> None:
    """Raise for options that the method's ``attribute`` does not accept, or that the explainer passes itself."""
    if not callable(getattr(method, "attribute", None)):
        raise InputTypeError(f"Expected method to return a method of Captum, got a {type(method).__name__}.")
    names, accepts_any = _option_names(method)
    for name in options:
        if name in OWN_ARGUMENTS or not (accepts_any or name in names):
            allowed = ", ".join(option for option in names if option not in OWN_ARGUMENTS)
            raise CaptumLeamError(f"Expected options of {type(method).__name__} to be among {allowed}, got {name!r}.")


def _option_names(method: Any) -> tuple[list[str], bool]:
    """Return the option names of a method and the method it wraps, and whether it accepts any other option."""
    parameters = inspect.signature(method.attribute).parameters.values()
    names = [parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD]
    if len(names) == len(parameters):
        return names, False
    wrapped_method = getattr(method, "attribution_method", None)
    if wrapped_method is None:
        return names, True
    wrapped_names, accepts_any = _option_names(wrapped_method)
    return names + wrapped_names, accepts_any


def _is_path_method(method: Any) -> bool:
    """Return whether a method, or the method that it wraps as NoiseTunnel does, follows a path."""
    wrapped_method = getattr(method, "attribution_method", None)
    return isinstance(method, PATH_METHODS) or (wrapped_method is not None and _is_path_method(wrapped_method))


class CaptumExplainer(Explainer):
    """Any attribution method of Captum, applied to the similarity to a reference.

    Captum's methods explain the score of a class. This class lets them explain the cosine between an embedding and a reference instead,
    gives them the same call as the other explainers, and reduces their attributions to one map per image. Use it to compare LEAM with
    IntegratedGradients, Occlusion, LayerGradCam and others.

    ``attribute`` returns maps at the size of the images, shape (N, 1, H, W), and ``cost`` the number of passes.

    Args:
        method: Class of :mod:`captum.attr`, such as ``Occlusion``; or a function of the forward function (and the layer) that returns an
            instance of one, such as ``lambda f: NoiseTunnel(Saliency(f))``.
        model: Function from images (N, C, H, W) to embeddings (N, D). DeepLift, GuidedBackprop and others need an ``nn.Module``.
        layer: Module or layer suggestion, for methods that take a layer, such as LayerGradCam. Default: None.
        norm: Treatment of the length of the embedding in the score, as in :class:`~captum_leam.EmbeddingSimilarity`: ``"detach"``,
            ``"differentiate"`` or ``"fixed"``. Default: None, which is ``"fixed"`` for path methods (IntegratedGradients, DeepLift,
            GradientShap and their variants), and ``"detach"`` for all others.
        reading: Reduction of the attributions over the channels. Default: ``"sum"``.

            * ``"sum"``: Signed sum.
            * ``"positive"``: Positive part of the sum.
            * ``"absolute"``: Sum of the absolute values.
            * ``"mean"``: Signed mean.
        reshape: Function that brings attributions of a layer to (N, C, h, w). Default: the reshape of a suggestion, else None.
        field: Part (top, left, height, width) of the images that the model reads, in pixels. Layer maps are placed there. Default: the
            whole image.
        seed: Seed of methods that draw random numbers, which the images of a batch share. Default: 0.
        batch_size: Maximum number of images in one call of the method, which may repeat them. Default: 8.
        **options: Further arguments of the method's ``attribute``, such as ``n_steps``. ``baselines`` may also be a function of the images,
            such as :func:`~captum_leam.maps.default_blur`.

    Raises:
        InputTypeError: If the method is not callable, or the layer is neither a module nor a suggestion. When called, if the method does
            not return a tensor.
        CaptumLeamError: If the norm, the reading or an option is unknown, or the method lacks its layer. When called, if the attributions
            do not have shape (N, C, h, w).

    See Also:
        :class:`~captum_leam.EmbeddingSimilarity`: Forward function to use Captum's methods directly.

    Example:
        >>> from captum.attr import IntegratedGradients, LayerGradCam
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.Tanh(), nn.Flatten(), nn.Linear(128, 8)).eval()
        >>> faces, references = torch.rand(2, 3, 8, 8), torch.randn(2, 8)
        >>> method = CaptumExplainer(IntegratedGradients, model, n_steps=20)
        >>> method.attribute(faces, reference=references).shape, method.cost
        (torch.Size([2, 1, 8, 8]), Cost(forwards=21.0, backwards=20.0))
        >>> CaptumExplainer(LayerGradCam, model, model[1]).attribute(faces, reference=references).shape
        torch.Size([2, 1, 8, 8])
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
        _check_method(method, model, layer)
        check_choice("reading", reading, READINGS)
        if norm is not None:
            check_choice("norm", norm, NORMS)
        self.reading, self.field, self.options = reading, field, options
        self.reshape = layer.reshape if isinstance(layer, LayerSuggestion) and reshape is None else reshape
        module = layer.module if isinstance(layer, LayerSuggestion) else layer
        self._objective = _CountedSimilarity(self, norm=norm or "detach")
        self.method = method(self._objective) if module is None else method(self._objective, module)
        if norm is None and _is_path_method(self.method):
            self._objective.norm = "fixed"
        self.norm: Norm = self._objective.norm
        _check_options(self.method, options)

    def _signed(self, images: Tensor, reference: Tensor | None) -> Tensor:
        with torch.no_grad():
            towards = self._embed(images) if reference is None else reference
            if self.norm == "fixed":
                towards = self._objective.fixed_weights(images, towards)
        options = dict(self.options)
        if callable(options.get("baselines")):
            options["baselines"] = options["baselines"](images)
        # Only the forward pass runs under the caller's autocast: Captum's own arithmetic would lose precision there.
        self._objective.autocast = callers_autocast(images.device)
        with at_seed(self.seed), without_autocast(images.device):
            attributions = self.method.attribute(
                images.requires_grad_(),
                additional_forward_args=(towards.expand(len(images), -1),),
                **options,
            )
        return self._read(attributions, images)

    def _read(self, attributions: Any, images: Tensor) -> Tensor:
        """Return the maps (n, 1, H, W) of attributions of the input or of a layer."""
        if not isinstance(attributions, Tensor):
            raise InputTypeError(
                f"Expected {type(self.method).__name__} to return one tensor, got a {type(attributions).__name__}. Choose a layer with a "
                "single output tensor, and omit return_convergence_delta."
            )
        attributions = attributions.detach()
        if self.reshape is not None:
            attributions = self.reshape(attributions)
        if attributions.ndim != 4 or len(attributions) != len(images):
            raise CaptumLeamError(
                f"Expected {type(self.method).__name__} to return attributions ({len(images)}, C, h, w), got {tuple(attributions.shape)}. "
                "Pass `reshape` for layers with tokens or channels last."
            )
        maps, size = READINGS[self.reading](attributions)[:, None], (images.shape[2], images.shape[3])
        is_at_image_size = maps.shape[2:] == images.shape[2:] and not isinstance(self.method, LayerAttribution)
        return as_map_batch(maps if is_at_image_size else place_on_field(maps, size, self.field))


class _CountedSimilarity(EmbeddingSimilarity):
    """Embedding similarity that counts the passes through the model for an explainer.

    Args:
        explainer: Explainer whose model is run and whose passes are counted.
        norm: Norm of the similarity, as for :class:`~captum_leam.EmbeddingSimilarity`.
    """

    def __init__(self, explainer: CaptumExplainer, *, norm: Norm) -> None:
        super().__init__(explainer.model, norm=norm)
        self._explainer = [explainer]  # a list hides it from code that walks the attributes of modules

    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
    """Function that returns the context manager of the forward pass."""

    def forward(self, inputs: Tensor, reference: Tensor | None = None, *args: Any) -> Tensor:
        """Return the score of each image, shape (N,)."""
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
        """Return the weights of each image, shape (N, D)."""
        (explainer,) = self._explainer
        explainer._forwards += len(inputs)
        return super().fixed_weights(inputs.clone(), reference, contrast, *args)

    def _count_gradients(self, gradients: Tensor) -> None:
        (explainer,) = self._explainer
        explainer._backwards += len(gradients)
