r"""LEAM, Layer Embedding Activation Mapping, as a Captum layer attribution.

Reconstructed from the published abstract of Borsukiewicz, Samhi, Klein and Bissyandé, "Explainable AI for Analyzing
Person-Specific Patterns in Facial Recognition Tasks", arXiv 2509.17457; formulas and choices are this package's.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial, reduce
from typing import Any, Literal, cast, overload

import torch
from captum.attr import GradientAttribution, LayerAttribution
from captum.log import log_usage
from torch import Tensor, nn

from captum_leam._engine.arithmetic import normal
from captum_leam._engine.captum_adapter import (
    BaselineType,
    Inputs,
    TargetType,
    as_tuple,
    baseline_tensors,
    forward_args,
    raise_if_target,
)
from captum_leam._engine.checks import (
    call_if_any,
    check_choice,
    check_count,
    check_images,
    deferred_checks,
    raise_if_any,
    rows_of_caller,
)
from captum_leam._engine.guards import eager, with_gradients
from captum_leam._engine.layer_probe import LayerProbe, check_layers
from captum_leam._engine.memory import in_batches
from captum_leam._engine.outputs import as_output, float16_hint, vanishing
from captum_leam._engine.passes import LayerPasses, PassResult, PerLayer
from captum_leam._engine.shapes import Reshape
from captum_leam._engine.types import Field
from captum_leam.errors import CaptumLeamError, InputTypeError
from captum_leam.layers import LayerSuggestion, LayerSuggestions
from captum_leam.maps import WEIGHTINGS, default_blur, path_midpoints, weigh
from captum_leam.objectives import NORMS, EmbeddingSimilarity, Norm, Objective

Weighting = Literal["elementwise", "positive", "channel"]
Path = Literal["mean_gradient", "conductance"]

Layer = nn.Module | LayerSuggestion
"""A module, or what :func:`~captum_leam.suggest_layers` returns for one, which brings its reshape along."""

LayerMap = Tensor | tuple[Tensor, ...]
"""The map of one layer, a tuple where the layer puts out several tensors."""

Ends = tuple[tuple[Tensor, ...], tuple[Tensor, ...]]
"""Baselines and images: where a path starts and ends."""


class LEAM(LayerAttribution, GradientAttribution):
    r"""Layer Embedding Activation Mapping: where in a layer the similarity of an embedding to a reference arises.

    .. math:: M = \sum_c G_c \odot A_c, \qquad G = \partial s / \partial A,
       \qquad s = \langle f(x), \hat r\rangle / \mathrm{sg}(\|f(x)\|)

    with :math:`A` the activations of the layer, :math:`f` the embedding, :math:`\hat r` the unit reference and sg constant
    under differentiation. Positive values speak for the match, negative ones against it. Without a reference, an image's
    own embedding is taken, and the map is that of :math:`\log\|f(x)\|`: an *embedding-strength* map.

    Source: reconstructed from the abstract of Borsukiewicz et al., arXiv 2509.17457. The elementwise weighting is that
    of HiResCAM (Draelos & Carin 2020), ``"positive"`` that of LayerCAM (Jiang et al. 2021), ``"channel"`` that of Grad-CAM
    (Selvaraju et al. 2017); conductance is due to Dhamdhere et al. 2018.

    Args:
        forward_func: Module or callable that returns embeddings (N, D), un-normalised; or scores (N,), as
            :class:`~captum_leam.EmbeddingSimilarity` does, which then hold their own reference and norm.
        layer: Module or layer suggestion of :func:`~captum_leam.suggest_layers`; or a list of these, or all suggestions, explained
            in one forward and one backward pass.
        device_ids: Devices of a ``DataParallel`` model, as for every Captum layer method.
        weighting: ``"elementwise"``, ``"positive"`` or ``"channel"``.
        norm: Norm of the similarity: ``"detach"``, ``"differentiate"`` or ``"fixed"``, see :mod:`captum_leam.objectives`.
        reshape: Function that brings the output of a module to (N, C, h, w): :func:`~captum_leam.layers.tokens_to_map`,
            :func:`~captum_leam.layers.channels_last_to_first` or a function that only rearranges or selects. A list of modules takes one
            for all or a list, one (or None) per module. Suggestions bring their own.

    The first call for a model, a layer and a kind of images probes the model: two forward passes and one backward pass on two images show
    whether every image has its own row (:mod:`captum_leam._engine.probe`).

    Raises:
        InputTypeError: if forward_func or a layer is of the wrong kind.
        CaptumLeamError: for an unknown weighting or norm.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 28 * 28, 16)).eval()
        >>> faces = torch.rand(2, 3, 56, 56)
        >>> leam = LEAM(model, model[1])
        >>> leam.attribute(faces).shape                            # own embeddings
        torch.Size([2, 1, 28, 28])
        >>> references = torch.randn(2, 16)                        # e.g. leave_one_out_centroids(...)
        >>> leam.attribute(faces, reference=references, n_steps=4).shape
        torch.Size([2, 1, 28, 28])
        >>> from captum_leam import suggest_layers
        >>> LEAM(model, suggest_layers(model, faces)["1"]).attribute(faces).shape  # a suggestion, with its reshape
        torch.Size([2, 1, 28, 28])
    """

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        layer: Layer | Sequence[Layer],
        device_ids: list[int] | None = None,
        *,
        weighting: Weighting = "elementwise",
        norm: Norm = "detach",
        reshape: Reshape | Sequence[Reshape | None] | None = None,
    ) -> None:
        if not callable(forward_func) and type(forward_func).__name__ != "ExportedProgram":
            raise InputTypeError(
                f"Expected forward_func to be a module or callable that returns embeddings, got a {type(forward_func).__name__}."
            )
        check_choice("weighting", weighting, WEIGHTINGS)
        check_choice("norm", norm, NORMS)
        is_list = isinstance(layer, list | tuple | LayerSuggestions)
        layers = list(cast(Sequence[Layer], layer)) if is_list else [cast(Layer, layer)]
        self._reshapes = _reshapes_of(layers, reshape)
        modules = [one.module if isinstance(one, LayerSuggestion) else one for one in layers]
        LayerAttribution.__init__(self, forward_func, cast(Any, modules if is_list else modules[0]), device_ids)
        GradientAttribution.__init__(self, forward_func)
        self.weighting: Weighting = weighting
        self.norm: Norm = norm

    @classmethod
    def get_name(cls) -> str:
        """Return the name of the method, "LEAM"."""
        return "LEAM"

    def has_convergence_delta(self) -> bool:
        """Return True: ``path="conductance"`` has one, ``"mean_gradient"`` has none."""
        return True

    @property
    def multiplies_by_inputs(self) -> bool:
        """True: gradients are multiplied by activations (or their change)."""
        return True

    # -- the public call -----------------------------------------------------------------------------------

    @overload
    def attribute(
        self,
        inputs: Inputs,
        target: TargetType = ...,
        additional_forward_args: Any = ...,
        attribute_to_layer_input: bool = ...,
        relu_attributions: bool = ...,
        attr_dim_summation: bool = ...,
        grad_kwargs: dict[str, Any] | None = ...,
        *,
        reference: Tensor | None = ...,
        contrast: Tensor | None = ...,
        baselines: BaselineType = ...,
        n_steps: int = ...,
        path: Path = ...,
        internal_batch_size: int | None = ...,
        return_convergence_delta: Literal[False] = False,
    ) -> LayerMap | list[LayerMap]: ...

    @overload
    def attribute(
        self,
        inputs: Inputs,
        target: TargetType = ...,
        additional_forward_args: Any = ...,
        attribute_to_layer_input: bool = ...,
        relu_attributions: bool = ...,
        attr_dim_summation: bool = ...,
        grad_kwargs: dict[str, Any] | None = ...,
        *,
        reference: Tensor | None = ...,
        contrast: Tensor | None = ...,
        baselines: BaselineType = ...,
        n_steps: int = ...,
        path: Path = ...,
        internal_batch_size: int | None = ...,
        return_convergence_delta: Literal[True],
    ) -> tuple[LayerMap | list[LayerMap], Tensor | list[Tensor]]: ...

    @log_usage()  # type: ignore[untyped-decorator]
    def attribute(  # noqa: PLR0913 (the arguments of Captum's LayerGradCam and of its path methods)
        self,
        inputs: Inputs,
        target: TargetType = None,
        additional_forward_args: Any = None,
        attribute_to_layer_input: bool = False,
        relu_attributions: bool = False,
        attr_dim_summation: bool = True,
        grad_kwargs: dict[str, Any] | None = None,
        *,
        reference: Tensor | None = None,
        contrast: Tensor | None = None,
        baselines: BaselineType = None,
        n_steps: int = 1,
        path: Path = "mean_gradient",
        internal_batch_size: int | None = None,
        return_convergence_delta: bool = False,
    ) -> LayerMap | list[LayerMap] | tuple[LayerMap | list[LayerMap], Tensor | list[Tensor]]:
        r"""Explain a batch of images.

        Args:
            inputs: Images (N, C, H, W), or a tuple of inputs with one batch size.
            target: Must be None, because embeddings have no classes. Pass ``reference`` instead.
            additional_forward_args: Arguments that reach the model unchanged (tensors with one row per image are repeated where
                ``internal_batch_size`` batches several steps of the path); none of them is taken for a reference.
            attribute_to_layer_input: Whether to explain what the layer takes in rather than what it puts out.
            relu_attributions: Whether to keep the positive part only.
            attr_dim_summation: Whether to sum over the channels; False returns (N, C, h, w).
            grad_kwargs: More arguments of ``torch.autograd.grad``.
            reference: Embeddings (D,) or (1, D), shared, or (N, D), one per image. Default: each image's own.
            contrast: Embeddings to distinguish the person from: (D,), (M, D) shared by all images, or (N, M, D). The
                score is then :math:`\langle f, \hat r_+\rangle - \mathrm{mean}\langle f, \hat r_-\rangle`, over the norm.
            baselines: Start of the path, in any of Captum's forms. Default: a Gaussian blur of the images (σ = 10 px per 112 px of
                width).
            n_steps: Number of points ``(i + ½)/n`` on the straight line from the baseline; 1 for no path.
            path: ``"mean_gradient"``: :math:`w(\mathrm{mean}_t G_t) \odot (A(x) - A(x'))`, n + 2 forward and n backward
                passes. ``"conductance"``: :math:`\sum_t w(G_t) \odot \Delta A_t`, with :math:`\Delta A_t` the change over the
                t-th step and, unless the norm is ``"differentiate"``, the fixed norm; 2n + 1 forward and n backward passes.
            internal_batch_size: Largest number of images in one pass of a path, which sets how many steps are batched. Default: one
                step at a time.
            return_convergence_delta: Whether to return, for ``path="conductance"``, also the sum of each map minus the sum at a layer
                that everything passes through, :math:`\langle f(x) - f(x'), d\rangle/\|f(x)\|`.

        Returns:
            For one layer a tensor (N, 1, h, w), or a tuple if the layer puts out several; for a list of layers a list.
            Signed, on the raw scale of the score, detached, in the precision of the layer. With
            ``return_convergence_delta``, a pair with the delta (N,), or a list of them.

        Raises:
            InputTypeError: for inputs, models or layers of the wrong kind.
            CaptumLeamError: for what would give a wrong picture: see the troubleshooting page for every message.
        """
        if internal_batch_size is not None:
            check_count("internal_batch_size", internal_batch_size)
        self._check_options(target, n_steps, path, additional_forward_args, baselines)
        if return_convergence_delta:
            self._check_complete(path, n_steps, relu_attributions)
        xs = as_tuple(inputs)
        passes = self._passes(xs, forward_args(additional_forward_args), attribute_to_layer_input, grad_kwargs)
        objective = Objective(reference, contrast, self.norm)
        total = _MapSum(passes, self.weighting, attr_dim_summation)
        with with_gradients(), deferred_checks():
            xs = tuple(x.clone() if x.is_inference() else x.detach() for x in xs)
            probe = check_layers(passes, xs, within=self._without_objective(passes))
            if n_steps == 1:
                _add_single_pass(total, xs, objective, probe)
            elif path == "mean_gradient":
                at_once = _steps_at_once(internal_batch_size, len(xs[0]))
                _add_mean_gradient(total, (self._baselines(baselines, xs), xs), n_steps, at_once, objective, probe)
            else:
                _add_conductance(total, (self._baselines(baselines, xs), xs), n_steps, objective, probe)
        maps = [m if len(m) > 1 else m[0] for m in total.maps]
        if relu_attributions:
            maps = [tuple(t.clamp(min=0) for t in m) if isinstance(m, tuple) else m.clamp(min=0) for m in maps]
        of_layers = maps if isinstance(self.layer, list) else maps[0]
        if not return_convergence_delta:
            return of_layers
        difference = partial(
            self.compute_convergence_delta,
            start_point=baselines,
            end_point=inputs,
            additional_forward_args=additional_forward_args,
            reference=reference,
            contrast=contrast,
        )
        deltas: list[Tensor] = [difference(m) for m in maps]
        return of_layers, deltas if isinstance(self.layer, list) else deltas[0]

    def attribute_with_inputs(
        self,
        images: Tensor,
        *,
        ends: Tensor | None = None,
        reference: Tensor | None = None,
        contrast: Tensor | None = None,
    ) -> tuple[list[Tensor], Tensor]:
        """Return the map of every layer and, from the same two passes, the gradient of the score by the images.

        Args:
            images: Images (N, C, H, W).
            ends: Images (N, C, H, W) at the end of the path that ``images`` lie on. One more forward pass of the first batch of a model
                compares their results with those of the probe. Default: ``images``, which needs no further pass.
            reference: As in :meth:`attribute`.
            contrast: As in :meth:`attribute`.

        Returns:
            One map (N, 1, h, w) for each layer, as :meth:`attribute` gives them, and the gradient (N, C, H, W).

        Raises:
            InputTypeError: For inputs, models or layers of the wrong kind.
            CaptumLeamError: For what :meth:`attribute` refuses, and a layer of several tensors.

        Example:
            >>> net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Softplus(), nn.Flatten(), nn.Linear(4 * 256, 8)).eval()
            >>> maps, gradient = LEAM(net, [net[1]]).attribute_with_inputs(torch.rand(2, 3, 32, 32))
            >>> maps[0].shape, gradient.shape
            (torch.Size([2, 1, 16, 16]), torch.Size([2, 3, 32, 32]))
        """
        check_images(images, "images")
        xs = (images.clone() if images.is_inference() else images.detach(),)
        passes = replace(self._passes(xs, (), False, None), with_inputs=True)
        total = _MapSum(passes, self.weighting, sum_channels=True)
        with with_gradients(), deferred_checks():
            probe = check_layers(passes, xs, within=self._without_objective(passes))
            if ends is not None and probe.record is not None and len(ends) > 2:
                probe.compare((ends,), *passes.activations((ends,)))
            result = _add_single_pass(total, xs, Objective(reference, contrast, self.norm), probe)
        if any(len(of_layer) > 1 for of_layer in total.maps):
            raise CaptumLeamError("Expected layers that put out one tensor each, got a layer of several tensors.")
        return [of_layer[0] for of_layer in total.maps], result.input_gradients[0]

    @log_usage()  # type: ignore[untyped-decorator]
    def compute_convergence_delta(
        self,
        attributions: Inputs,
        start_point: BaselineType,
        end_point: Inputs,
        target: TargetType = None,
        additional_forward_args: Any = None,
        *,
        reference: Tensor | None = None,
        contrast: Tensor | None = None,
    ) -> Tensor:
        r"""Return the sum of a conductance map minus :math:`s(x) - s(x')`, per image.

        Args:
            attributions: Map of one layer, (N, …), or a tuple.
            start_point: Baseline x′ of the path. None: the default blur.
            end_point: Images x.
            target: Must be None.
            additional_forward_args: As in :meth:`attribute`.
            reference: As in :meth:`attribute`.
            contrast: As in :meth:`attribute`.

        Returns:
            Shape (N,); 0 for a complete attribution.
        """
        self._check_options(target, 2, "conductance", additional_forward_args, start_point)
        xs, args = as_tuple(end_point), forward_args(additional_forward_args)
        with torch.no_grad(), eager():
            out = as_output(self.forward_func(*[x.clone() for x in xs], *args), len(xs[0]))
            start = as_output(self.forward_func(*self._baselines(start_point, xs), *args), len(xs[0]))
            objective = Objective(reference, contrast, self.norm).at(out, along_path=True)
            change = objective.score(out) - objective.score(start)
        totals = [a.flatten(1).sum(1) for a in (attributions if isinstance(attributions, tuple) else (attributions,))]
        return torch.stack(totals).sum(0) - change

    def check_grids(self, images: Tensor, field: Field | None = None) -> None:
        """Raise if the grid of a layer does not lie on the images, so that its map would be drawn in the wrong place.

        Two forward passes and one backward pass on two images, once for each state of the model and kind of images.

        Args:
            images: Images (N, C, H, W).
            field: Part (top, left, height, width) of the images that the network reads. Default: the whole image.

        Raises:
            CaptumLeamError: for a model that pads, turns, mirrors or warps the images inside.

        Example:
            >>> net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Softplus(), nn.Flatten(), nn.Linear(4 * 256, 8)).eval()
            >>> LEAM(net, net[1]).check_grids(torch.rand(1, 3, 32, 32))
            >>> LEAM(lambda x: net(x.flip(3)), net[1]).check_grids(torch.rand(1, 3, 32, 32))
            Traceback (most recent call last):
            ...
            captum_leam.errors.CaptumLeamError: Expected the grid of layer '1' (Softplus) to lie on the picture, but a change around row ...
        """
        check_images(images, "images")
        passes = self._passes((images,), (), False, None)
        with with_gradients():
            x = images.clone() if images.is_inference() else images.detach()
            within = self._without_objective(passes)
            probe = check_layers(passes, (x,), field or (0, 0, x.shape[2], x.shape[3]), within=within)
        for layer, displacement in probe.displaced.items():
            raise CaptumLeamError(displacement.message(passes.names[passes.layers.index(layer)]))

    def baselines(self, images: Tensor, baselines: BaselineType = None) -> Tensor:
        """Return the start of a path to the images: what is given, in any of Captum's forms, or a Gaussian blur.

        Raises:
            CaptumLeamError: For images that are not floating point, and an objective whose reference would change along the path.

        Example:
            >>> LEAM(nn.Flatten(), nn.Identity()).baselines(torch.ones(1, 3, 8, 8), 0.5).unique().tolist()
            [0.5]
        """
        if isinstance(self.forward_func, EmbeddingSimilarity):
            self._check_along_path(self.forward_func, "mean_gradient", None)
        return self._baselines(baselines, (images,))[0]

    # -- parts ---------------------------------------------------------------------------------------------

    def _check_options(self, target: TargetType, n_steps: int, path: str, args: Any, baselines: BaselineType) -> None:
        raise_if_target(target)
        if path not in ("mean_gradient", "conductance"):
            raise CaptumLeamError(f"path is {path!r}; expected 'mean_gradient' or 'conductance'.")
        if isinstance(n_steps, bool) or not isinstance(n_steps, int) or n_steps < 1:
            raise CaptumLeamError(f"n_steps is {n_steps!r}; expected a whole number: 1 for no path, 2 or more for one.")
        if n_steps == 1 and baselines is not None:
            raise CaptumLeamError(
                "baselines are given but n_steps is 1, where there is no path from them; set n_steps=4 or more."
            )
        if n_steps == 1 and path == "conductance":
            raise CaptumLeamError('path="conductance" needs n_steps of 2 or more.')
        if n_steps > 1 and isinstance(self.forward_func, EmbeddingSimilarity):
            self._check_along_path(self.forward_func, path, args)

    @staticmethod
    def _check_along_path(objective: EmbeddingSimilarity, path: str, args: Any) -> None:
        if path == "conductance" and objective.norm == "detach":
            raise CaptumLeamError(
                'path="conductance" of EmbeddingSimilarity(norm="detach"): along a path the detached cosine is no function\'s gradient. '
                'Use LEAM(model, layer), which takes the fixed norm there, or EmbeddingSimilarity(norm="fixed") with its weights.'
            )
        if objective.reference is None and args is None:
            raise CaptumLeamError(
                "a path of EmbeddingSimilarity without a reference would take the own embedding of every point of the path. Use "
                "LEAM(model, layer), which takes that of the image, or give a reference."
            )

    def _check_complete(self, path: str, n_steps: int, relu: bool) -> None:
        if path != "conductance" or self.weighting != "elementwise" or relu:
            raise CaptumLeamError(
                'return_convergence_delta needs path="conductance", n_steps ≥ 2, weighting="elementwise" and relu_attributions=False: '
                "no other form sums to a difference of scores."
            )

    def _passes(
        self, xs: tuple[Tensor, ...], args: tuple[Any, ...], layer_input: bool, grad_kwargs: dict[str, Any] | None
    ) -> LayerPasses:
        layers = self.layer if isinstance(self.layer, list) else [self.layer]
        size = tuple(xs[0].shape[2:]) if xs[0].ndim == 4 else None
        return LayerPasses(
            self.forward_func, layers, args, layer_input, self._reshapes, size, self.device_ids, grad_kwargs or {}
        )

    def _without_objective(self, passes: LayerPasses) -> LayerPasses | None:
        """Return the passes of the model within an objective, whose references may be of one batch size only; else None."""
        if not isinstance(self.forward_func, EmbeddingSimilarity):
            return None
        return replace(passes, forward_func=self.forward_func.model, args=passes.args[1:])

    def _baselines(self, baselines: BaselineType, xs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if any(not torch.is_floating_point(x) for x in xs):
            raise CaptumLeamError(
                f"inputs are {[str(x.dtype) for x in xs]}; on a path lie numbers between two, so floating point is needed: x.float(), or "
                "additional_forward_args for what is not to be explained."
            )
        if baselines is not None:
            return baseline_tensors(baselines, xs)
        if any(x.ndim != 4 for x in xs):
            raise CaptumLeamError(
                f"inputs have shapes {[tuple(x.shape) for x in xs]}; the default baseline, a blur, needs floating-point images "
                "(N, C, H, W). Pass baselines=."
            )
        return tuple(default_blur(x.detach()) for x in xs)


# -- the forms: sums of terms w(G) ⊙ D of gradients, and of activations or their changes -----------------


class _MapSum:
    """Sum of weighted gradients times activations or their changes, for every layer.

    Args:
        passes: The model with the layers.
        weighting: Key of :data:`~captum_leam.maps.WEIGHTINGS`.
        sum_channels: Whether to sum over the channels.
    """

    def __init__(self, passes: LayerPasses, weighting: Weighting, sum_channels: bool) -> None:
        self.passes = passes
        self.maps: PerLayer = []
        self._weigh = partial(weigh, weighting=weighting, sum_channels=sum_channels)
        self._has_gradient: list[Tensor] = []  # (N,) of every layer

    def add(self, gradients: PerLayer, changes: PerLayer) -> None:
        """Add one term."""
        gradients = [tuple(g.detach() for g in of_layer) for of_layer in gradients]
        terms = _pairwise(self._weigh, gradients, changes)
        self.maps = _pairwise(torch.add, self.maps, terms) if self.maps else terms
        moved = [torch.stack([_largest(g) > 0 for g in of_layer]).any(0) for of_layer in gradients]
        pairs = zip(self._has_gradient, moved, strict=True)
        self._has_gradient = [a | b for a, b in pairs] if self._has_gradient else moved

    def check(self) -> None:
        """Raise if a map is not finite, or no term of it has a gradient."""
        for i, (maps, has_gradient) in enumerate(zip(self.maps, self._has_gradient, strict=True)):
            finite = torch.stack([torch.isfinite(m).flatten(1).all(1) for m in maps]).all(0)
            raise_if_any(~finite, partial(self._not_finite, i))
            raise_if_any(~has_gradient, partial(self._no_gradient, i))

    def _not_finite(self, i: int, rows: list[int]) -> str:
        return (
            f"the map of layer {self.passes.names[i]} is NaN or infinite for images {rows}: check these images, the activations there, "
            f"and the precision.{float16_hint(self.maps[i][0])}"
        )

    def _no_gradient(self, i: int, rows: list[int]) -> str:
        return (
            f"the score has zero gradient at layer {self.passes.names[i]} for images {rows}: nothing to show. A constant score, dead "
            "units, or a layer after which only other positions count (a transformer's last block)."
            + float16_hint(self.maps[i][0])
        )


def _add_single_pass(total: _MapSum, xs: tuple[Tensor, ...], objective: Objective, probe: LayerProbe) -> PassResult:
    """Add G ⊙ A at the images."""
    result = total.passes.gradients(xs, objective.score)
    probe.compare(xs, result.output, result.activations)
    total.add(result.gradients, result.activations)
    total.check()
    _check_above_noise(total.maps, total.passes, xs, result)
    return result


def _add_mean_gradient(
    total: _MapSum, ends: Ends, n_steps: int, at_once: int, objective: Objective, probe: LayerProbe
) -> None:
    """Add mean_t G(x_t) ⊙ (A(x) − A(x′))."""
    starts, xs = ends
    output, at_x = total.passes.activations(xs)
    probe.compare(xs, output, at_x)
    _, at_start = total.passes.activations(starts)
    held = objective.at(output)
    sums: PerLayer = []

    def add_steps(rows: slice) -> None:
        points = path_midpoints(n_steps)[rows]
        score = partial(held.score, steps=len(points))
        with rows_of_caller(lambda numbers: [number % len(xs[0]) for number in numbers]):
            gradients = total.passes.gradients(_line(starts, xs, points), score, len(points)).gradients
        parts = [tuple(_sum_of_chunks(g, len(points)) for g in of_layer) for of_layer in gradients]
        sums[:] = _pairwise(torch.add, sums, parts) if sums else parts

    in_batches(add_steps, n_steps, at_once, what="step")
    means = [tuple(g / n_steps for g in of_layer) for of_layer in sums]
    total.add(means, _pairwise(torch.sub, at_x, at_start))
    total.check()


def _add_conductance(total: _MapSum, ends: Ends, n_steps: int, objective: Objective, probe: LayerProbe) -> None:
    """Add, for every step, G at its midpoint ⊙ the change of A from its start to its end."""
    starts, xs = ends
    output, at_x = total.passes.activations(xs)
    probe.compare(xs, output, at_x)
    held = objective.at(output, along_path=True)
    _, before = total.passes.activations(starts)
    for i, midpoint in enumerate(path_midpoints(n_steps)):
        _, after = total.passes.activations(_line(starts, xs, [(i + 1) / n_steps]))
        result = total.passes.gradients(_line(starts, xs, [midpoint]), held.score)
        total.add(result.gradients, _pairwise(torch.sub, after, before))
        before = after
    total.check()


# -- small functions -----------------------------------------------------------------------------------


def _pairwise(function: Callable[[Tensor, Tensor], Tensor], left: PerLayer, right: PerLayer) -> PerLayer:
    return [tuple(map(function, a, b)) for a, b in zip(left, right, strict=True)]


def _sum_of_chunks(values: Tensor, chunks: int) -> Tensor:
    return reduce(torch.add, values.detach().chunk(chunks))  # of one chunk: no copy


def _line(starts: tuple[Tensor, ...], ends: tuple[Tensor, ...], points: Sequence[float]) -> tuple[Tensor, ...]:
    """Points on the straight line between two batches, step after step: (len(points) · N, …)."""
    return tuple(_points(a, b.detach(), points) for a, b in zip(starts, ends, strict=True))


def _points(start: Tensor, end: Tensor, points: Sequence[float]) -> Tensor:
    at = [torch.lerp(start, end, t) for t in points]
    return at[0] if len(at) == 1 else torch.cat(at)


def _steps_at_once(internal_batch_size: int | None, batch: int) -> int:
    if internal_batch_size is None:
        return 1
    if internal_batch_size < batch:
        warnings.warn(
            f"internal_batch_size {internal_batch_size} is smaller than the batch of {batch} images; {batch} are run at once.",
            stacklevel=4,
        )
    return max(1, internal_batch_size // max(1, batch))


def _check_above_noise(maps: PerLayer, passes: LayerPasses, xs: tuple[Tensor, ...], result: PassResult) -> None:
    """Raise for maps of a score whose gradient is numerically zero, as of the cosine to one's own embedding.

    Real maps sum to the order of the score (0.1 to 10 times it on the networks measured), rounding noise to 1e-7 of it. Where a map of
    embeddings is as small, a random direction shows whether the layer has little influence on anything, or none on this score alone.
    """
    tiny = vanishing(result.scores)
    totals = [_total(of_layer) for of_layer in maps]
    noise = torch.stack([total <= 0.1 * tiny * result.scores.abs() for total in totals])

    def look_closer(rows: list[int]) -> None:
        still_noise = noise
        if result.output.ndim > 1:
            other = passes.gradients(xs, _towards_anything)
            probes = [_total(m) for m in _pairwise(weigh, other.gradients, other.activations)]
            for name, of_layer in zip(passes.names, other.activations, strict=True):
                raise_if_any(_total(of_layer) == 0, partial(_silent, name))
            smaller = [total <= tiny * probe for total, probe in zip(totals, probes, strict=True)]
            still_noise = noise & torch.stack(smaller)
        for name, of_layer in zip(passes.names, still_noise, strict=True):
            raise_if_any(of_layer, partial(_noise, name))

    call_if_any(noise.any(0), look_closer)


def _silent(layer: str, rows: list[int]) -> str:
    return (
        f"all activations of layer {layer} are zero for images {rows}: nothing to show there. Choose a layer before it, or look at what is "
        "wrong with these images (their range, their preprocessing)."
    )


def _noise(layer: str, rows: list[int]) -> str:
    return (
        f"the score has zero gradient at layer {layer} but for rounding, for images {rows}: it is at a maximum there, as the cosine to an "
        'image\'s own embedding is. Use LEAM(model, layer), whose norm="detach" has a gradient, or a reference from other images. If the '
        "model divides its embeddings by their length (or ends in a LayerNorm), give the part before that, or a reference."
    )


def _largest(values: Tensor) -> Tensor:
    """Return the largest absolute value of every image, without a copy of the values."""
    flat = values.detach().flatten(1)
    return torch.maximum(flat.amax(1), -flat.amin(1))  # the infinity norm, which costs 30 times as much on a CPU


def _total(of_layer: tuple[Tensor, ...]) -> Tensor:
    return torch.stack([m.abs().flatten(1).sum(1) for m in of_layer]).sum(0)


def _towards_anything(embeddings: Tensor) -> Tensor:
    """Return the similarity to a random direction, always the same one."""
    drawn = normal((1, embeddings.shape[1]), torch.Generator().manual_seed(0))
    return Objective(reference=drawn).score(embeddings)


def _reshapes_of(
    layers: Sequence[Layer], reshape: Reshape | Sequence[Reshape | None] | None
) -> Sequence[Reshape | None]:
    """Return one reshape per layer: its own for a suggestion, that of the caller for a module."""
    if not layers:
        raise CaptumLeamError("Expected layer to be one or more modules, got an empty list.")
    for layer in layers:
        if not isinstance(layer, nn.Module | LayerSuggestion):
            hint = f" Pass model.get_submodule({layer!r})." if isinstance(layer, str) else ""
            raise InputTypeError(
                f"Expected layer to be a torch.nn.Module, a suggestion of suggest_layers, or a list of them, got {layer!r}.{hint}"
            )
    if reshape is None:
        return [layer.reshape if isinstance(layer, LayerSuggestion) else None for layer in layers]
    if any(isinstance(layer, LayerSuggestion) for layer in layers):
        raise CaptumLeamError(
            "Expected `reshape` only with modules, got it with layer suggestions, which have their own. Omit it."
        )
    if callable(reshape):
        return [reshape] * len(layers)
    if not isinstance(reshape, list | tuple) or not all(one is None or callable(one) for one in reshape):
        raise InputTypeError(
            f"Expected `reshape` to be one function, or a list with one (or None) per layer, got {reshape!r}."
        )
    if len(reshape) != len(layers):
        raise CaptumLeamError(
            f"Expected `reshape` to be one function, or one (or None) per layer, got {len(reshape)} for {len(layers)} layers."
        )
    return list(reshape)
