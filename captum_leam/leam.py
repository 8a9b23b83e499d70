r"""LEAM, Layer Embedding Activation Mapping, as a Captum layer attribution.

Reconstructed from the published abstract of Borsukiewicz, Samhi, Klein and Bissyandé, "Explainable AI for Analyzing
Person-Specific Patterns in Facial Recognition Tasks", arXiv 2509.17457; formulas and choices are this package's.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial, reduce
from typing import Any, Literal, cast, get_args, overload

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
from captum_leam._engine.guards import enable_gradients, force_eager
from captum_leam._engine.layer_probe import LayerProbe, check_layers
from captum_leam._engine.memory import in_batches
from captum_leam._engine.outputs import as_output, float16_hint, noise_floor
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
"""A module, or a suggestion of :func:`~captum_leam.suggest_layers`, which has its own reshape."""

LayerMap = Tensor | tuple[Tensor, ...]
"""The map of one layer, a tuple if the layer puts out several tensors."""

Ends = tuple[tuple[Tensor, ...], tuple[Tensor, ...]]
"""Baselines and images, the ends of a path."""


class LEAM(LayerAttribution, GradientAttribution):
    r"""Layer Embedding Activation Mapping (LEAM), a Captum layer attribution for embeddings.

    LEAM shows which positions of a layer raise or lower the cosine similarity between the embedding of an image and a reference
    embedding, for example that of another photograph of the person. Use it for networks that return embeddings instead of class scores,
    such as face recognition models. The map is the gradient of the similarity times the activations, summed over the channels:

    .. math:: M = \sum_c \frac{\partial s}{\partial A_c} \odot A_c, \qquad s = \frac{\langle f(x), \hat r\rangle}{\|f(x)\|}

    where :math:`A` are the activations of the layer, :math:`f(x)` is the embedding of the image, and :math:`\hat r` is the reference with
    length 1. By default, :math:`\|f(x)\|` is treated as a constant. Positive values support the match, negative values oppose it. Without
    a reference, each image is compared with its own embedding, and the map shows what makes the embedding long.

    Source: reconstructed from the abstract of Borsukiewicz et al., arXiv 2509.17457. The weightings are those of HiResCAM (Draelos & Carin
    2020), LayerCAM (Jiang et al. 2021) and Grad-CAM (Selvaraju et al. 2017). Conductance is due to Dhamdhere et al. 2018.

    Args:
        forward_func: Model from images (N, C, H, W) to embeddings (N, D), which should not be normalised; or a function that returns scores
            (N,), such as :class:`~captum_leam.EmbeddingSimilarity`, which has its own reference and norm.
        layer: Module of the model, or a suggestion of :func:`~captum_leam.suggest_layers`. A list of layers is explained in one forward and
            one backward pass.
        device_ids: Devices of a ``DataParallel`` model. Default: None.
        weighting: Weighting of the gradients. Default: ``"elementwise"``.

            * ``"elementwise"``: Gradients as they are.
            * ``"positive"``: Positive part of the gradients.
            * ``"channel"``: Mean gradient of each channel, as in Grad-CAM.
        norm: Treatment of the length of the embedding in the score. Default: ``"detach"``.

            * ``"detach"``: Constant, so that the gradient is that of a dot product.
            * ``"differentiate"``: Part of the gradient, which is then that of the cosine. It needs a reference.
            * ``"fixed"``: Constant, with the value at the image for all points of a path.
        reshape: Function that brings the output of the layer to (N, C, h, w), for example :func:`~captum_leam.layers.tokens_to_map` for
            transformers. It may only rearrange or select values, because it is applied to the gradients, too. For a list of modules, one
            function for all or a list with one function or None for each. Default: None. Layer suggestions have their own.

    Raises:
        InputTypeError: If ``forward_func``, a layer or a reshape has the wrong type.
        CaptumLeamError: If the weighting or norm is unknown, there is no layer, or the reshapes do not fit the layers.

    Note:
        The first call for a model and layer runs two forward passes and one backward pass more, on two images, to check that the embedding
        of an image does not depend on the other images of the batch.

    See Also:
        * :func:`~captum_leam.explain_faces`: One map of several layers, at the size of the images.
        * :func:`~captum_leam.suggest_layers`: Layers to explain.
        * :class:`~captum_leam.EmbeddingSimilarity`: The same score for any other method of Captum.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 28 * 28, 16)).eval()
        >>> faces, references = torch.rand(2, 3, 56, 56), torch.randn(2, 16)
        >>> leam = LEAM(model, model[1])
        >>> maps = leam.attribute(faces, reference=references)
        >>> maps.shape
        torch.Size([2, 1, 28, 28])
        >>> leam.interpolate(maps, (56, 56), interpolate_mode="bilinear").shape  # at the size of the faces
        torch.Size([2, 1, 56, 56])
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
        modules = [item.module if isinstance(item, LayerSuggestion) else item for item in layers]
        LayerAttribution.__init__(self, forward_func, cast(Any, modules if is_list else modules[0]), device_ids)
        GradientAttribution.__init__(self, forward_func)
        self.weighting: Weighting = weighting
        self.norm: Norm = norm

    @classmethod
    def get_name(cls) -> str:
        """Return the name of the method, ``"LEAM"``."""
        return "LEAM"

    def has_convergence_delta(self) -> bool:
        """Return True, because maps of ``path="conductance"`` have a convergence delta."""
        return True

    @property
    def multiplies_by_inputs(self) -> bool:
        """True, because gradients are multiplied by activations or their change."""
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
        """Compute the attribution map of each image.

        Args:
            inputs: Images (N, C, H, W), or a tuple of input tensors with N rows each.
            target: None, because embeddings have no classes. Pass ``reference`` instead. Default: None.
            additional_forward_args: Further arguments of the model, a single one or a tuple, none of which is used as a reference. Tensors
                with one row per image are repeated if ``internal_batch_size`` batches several steps of a path. Default: None.
            attribute_to_layer_input: Whether to explain the input of the layer instead of its output. Default: False.
            relu_attributions: Whether to set negative values to 0. Default: False.
            attr_dim_summation: Whether to sum over the channels. Default: True.
            grad_kwargs: Additional arguments of ``torch.autograd.grad``. Default: None.
            reference: Embeddings that the images are compared with, shape (D,) or (1, D) for all images, or (N, D) with one per image.
                Default: each image's own embedding.
            contrast: Embeddings of other people, shape (D,) or (M, D) for all images, or (N, M, D). Their mean similarity is subtracted
                from that to the reference, so that the map shows what distinguishes the person from them. Default: None.
            baselines: Start of the path: a number, or a tensor (1, C, H, W) or (N, C, H, W), with a tuple of these for a tuple of inputs.
                Used if ``n_steps`` is above 1. Default: a Gaussian blur of the images (σ = 10 px per 112 px of width).
            n_steps: Number of steps on the straight line from the baseline to the image, at whose midpoints gradients are taken. With 1,
                there is no path, and the gradient is that at the image. Default: 1.
            path: Combination of the gradients of a path of n steps. Default: ``"mean_gradient"``.

                * ``"mean_gradient"``: Mean gradient times the change of the activations from the baseline to the image. It takes n + 2
                  forward and n backward passes.
                * ``"conductance"``: Sum over the steps of gradient times the change of the activations in the step. It takes 2n + 1 forward
                  and n backward passes. The norm ``"detach"`` acts as ``"fixed"`` here.
            internal_batch_size: Maximum number of images in one pass, which sets how many steps of ``"mean_gradient"`` are batched.
                Default: None, one step at a time.
            return_convergence_delta: Whether to return the convergence delta of ``path="conductance"``, too. It requires
                ``weighting="elementwise"`` and ``relu_attributions=False``. Default: False.

        Returns:
            Signed maps on the scale of the score, detached, in the precision of the layer:

            * For one layer: tensor (N, 1, h, w), or (N, C, h, w) with ``attr_dim_summation=False``. If the layer returns several tensors, a
              tuple of such maps.
            * For a list of layers: list with the maps of each layer.
            * With ``return_convergence_delta``: pair of the above and the delta, shape (N,), or a list of deltas. See
              :meth:`compute_convergence_delta`.

        Raises:
            InputTypeError: If inputs, model or layers have the wrong type.
            CaptumLeamError: If arguments contradict each other, or if a map would be wrong, as :doc:`/troubleshooting` lists.

        Example:
            The embedding of this model is its four pixels. The reference agrees with the upper row and opposes the pixel at the lower left:

            >>> model = nn.Sequential(nn.Identity(), nn.Flatten())
            >>> image, reference = torch.ones(1, 1, 2, 2), torch.tensor([1.0, 1.0, -1.0, 0.0])
            >>> maps = LEAM(model, model[0]).attribute(image, reference=reference)
            >>> print(maps[0, 0].numpy().round(2))
            [[ 0.29  0.29]
             [-0.29  0.  ]]
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
        with enable_gradients(), deferred_checks():
            xs = tuple(x.clone() if x.is_inference() else x.detach() for x in xs)
            probe = check_layers(passes, xs, within=self._without_objective(passes))
            if n_steps == 1:
                _add_single_pass(total, xs, objective, probe)
            elif path == "mean_gradient":
                batched_steps = _batched_steps(internal_batch_size, len(xs[0]))
                _add_mean_gradient(
                    total, (self._baselines(baselines, xs), xs), n_steps, batched_steps, objective, probe
                )
            else:
                _add_conductance(total, (self._baselines(baselines, xs), xs), n_steps, objective, probe)
        maps = [m if len(m) > 1 else m[0] for m in total.maps]
        if relu_attributions:
            maps = [tuple(t.clamp(min=0) for t in m) if isinstance(m, tuple) else m.clamp(min=0) for m in maps]
        attributions = maps if isinstance(self.layer, list) else maps[0]
        if not return_convergence_delta:
            return attributions
        convergence_delta = partial(
            self.compute_convergence_delta,
            start_point=baselines,
            end_point=inputs,
            additional_forward_args=additional_forward_args,
            reference=reference,
            contrast=contrast,
        )
        deltas: list[Tensor] = [convergence_delta(m) for m in maps]
        return attributions, deltas if isinstance(self.layer, list) else deltas[0]

    def attribute_with_inputs(
        self,
        images: Tensor,
        *,
        ends: Tensor | None = None,
        reference: Tensor | None = None,
        contrast: Tensor | None = None,
    ) -> tuple[list[Tensor], Tensor]:
        """Compute the maps of all layers and the gradient of the score with respect to the images.

        Both come from one forward and one backward pass. Use it to combine evidence at layers with evidence at pixels, as
        :func:`~captum_leam.explain_faces` does.

        Args:
            images: Images (N, C, H, W).
            ends: Images (N, C, H, W) at the end of a path, if ``images`` are points of one. For the first batch of a model, one more
                forward pass checks the model on them. Default: None.
            reference: Reference embeddings, as in :meth:`attribute`. Default: each image's own embedding.
            contrast: Embeddings of other people to contrast with, as in :meth:`attribute`. Default: None.

        Returns:
            Tuple of two values:

            * List with one signed map (N, 1, h, w) per layer, as :meth:`attribute` returns them.
            * Gradient of the score with respect to the images, shape (N, C, H, W).

        Raises:
            InputTypeError: If images, model or layers have the wrong type.
            CaptumLeamError: If a layer returns several tensors, or if :meth:`attribute` would raise it.

        Example:
            >>> _ = torch.manual_seed(0)
            >>> net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Softplus(), nn.Flatten(), nn.Linear(4 * 256, 8)).eval()
            >>> faces, references = torch.rand(2, 3, 32, 32), torch.randn(2, 8)
            >>> maps, gradient = LEAM(net, [net[1]]).attribute_with_inputs(faces, reference=references)
            >>> maps[0].shape, gradient.shape
            (torch.Size([2, 1, 16, 16]), torch.Size([2, 3, 32, 32]))
        """
        check_images(images, "images")
        xs = (images.clone() if images.is_inference() else images.detach(),)
        passes = replace(self._passes(xs, (), False, None), with_inputs=True)
        total = _MapSum(passes, self.weighting, sum_channels=True)
        with enable_gradients(), deferred_checks():
            probe = check_layers(passes, xs, within=self._without_objective(passes))
            if ends is not None and probe.record is not None and len(ends) > 2:
                probe.compare((ends,), *passes.activations((ends,)))
            result = _add_single_pass(total, xs, Objective(reference, contrast, self.norm), probe)
        if any(len(of_layer) > 1 for of_layer in total.maps):
            raise CaptumLeamError(
                "Expected layers that put out one tensor each, got a layer of several tensors. Choose another layer."
            )
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
        r"""Compute how far the sum of each conductance map is from the change of the score.

        The delta of an image x with the baseline :math:`x'` is

        .. math:: \delta = \sum_p M_p - \big(s(x) - s(x')\big)

        Both scores are divided by the length of f(x), unless ``norm="differentiate"``. The delta is small if the number of steps is large
        enough and everything that reaches the embedding passes through the layer. Use it to choose ``n_steps``.

        Args:
            attributions: Maps of one layer, shape (N, 1, h, w) or (N, C, h, w), or a tuple of them.
            start_point: Baselines of the path, in the form of ``baselines`` in :meth:`attribute`. None for the default blur.
            end_point: Explained images (N, C, H, W), or a tuple of input tensors.
            target: None, because embeddings have no classes. Default: None.
            additional_forward_args: Further arguments of the model. Default: None.
            reference: Reference embeddings, as in :meth:`attribute`. Default: each image's own embedding.
            contrast: Embeddings of other people to contrast with, as in :meth:`attribute`. Default: None.

        Returns:
            Signed deltas, shape (N,), 0 for a complete attribution.

        Raises:
            CaptumLeamError: If the arguments do not fit the inputs or each other, as in :meth:`attribute`.

        Example:
            >>> _ = torch.manual_seed(0)
            >>> net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Softplus(), nn.Flatten(), nn.Linear(4 * 256, 8)).eval()
            >>> faces, references, leam = torch.rand(2, 3, 32, 32), torch.randn(2, 8), LEAM(net, net[1])
            >>> maps = leam.attribute(faces, reference=references, baselines=0, n_steps=8, path="conductance")
            >>> delta = leam.compute_convergence_delta(maps, 0, faces, reference=references)
            >>> delta.shape, bool((delta.abs() < 0.001).all())
            (torch.Size([2]), True)
        """
        self._check_options(target, 2, "conductance", additional_forward_args, start_point)
        xs, args = as_tuple(end_point), forward_args(additional_forward_args)
        with torch.no_grad(), force_eager():
            out = as_output(self.forward_func(*[x.clone() for x in xs], *args), len(xs[0]))
            start = as_output(self.forward_func(*self._baselines(start_point, xs), *args), len(xs[0]))
            objective = Objective(reference, contrast, self.norm).at(out, along_path=True)
            change = objective.score(out) - objective.score(start)
        totals = [a.flatten(1).sum(1) for a in (attributions if isinstance(attributions, tuple) else (attributions,))]
        return torch.stack(totals).sum(0) - change

    def check_grids(self, images: Tensor, field: Field | None = None) -> None:
        """Check that the maps of the layers are aligned with the images.

        Call it before maps are enlarged to the size of the images. It raises if the model pads, rotates, mirrors or warps the images
        inside, so that a map would be drawn in the wrong place. It takes two forward passes and one backward pass on two images, the first
        time that a model is checked.

        Args:
            images: Images (N, C, H, W).
            field: Part (top, left, height, width) of the images that the network reads, in pixels. Default: the whole image.

        Raises:
            CaptumLeamError: If the map of a layer is not aligned with the images.

        Example:
            >>> _ = torch.manual_seed(0)
            >>> net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Softplus(), nn.Flatten(), nn.Linear(4 * 256, 8)).eval()
            >>> LEAM(net, net[1]).check_grids(torch.rand(1, 3, 32, 32))  # aligned
            >>> LEAM(lambda x: net(x.flip(3)), net[1]).check_grids(torch.rand(1, 3, 32, 32))  # mirrored inside
            Traceback (most recent call last):
            ...
            captum_leam.errors.CaptumLeamError: Expected the grid of layer '1' (Softplus) to lie on the picture, but a change around row ...
        """
        check_images(images, "images")
        passes = self._passes((images,), (), False, None)
        with enable_gradients():
            x = images.clone() if images.is_inference() else images.detach()
            within = self._without_objective(passes)
            probe = check_layers(passes, (x,), field or (0, 0, x.shape[2], x.shape[3]), within=within)
        for layer, displacement in probe.displaced.items():
            raise CaptumLeamError(displacement.message(passes.names[passes.layers.index(layer)]))

    def baselines(self, images: Tensor, baselines: BaselineType = None) -> Tensor:
        """Return the baselines at which a path to the images starts.

        Use it to see or to reuse the images that ``attribute`` starts from.

        Args:
            images: Images (N, C, H, W), floating point.
            baselines: A number, or a tensor (1, C, H, W) or (N, C, H, W). Default: a Gaussian blur of the images (σ = 10 px per 112 px of
                width).

        Returns:
            Baselines, shape (N, C, H, W).

        Raises:
            CaptumLeamError: If the images are not floating point, or if the model is an :class:`~captum_leam.EmbeddingSimilarity` without a
                reference.

        Example:
            >>> leam = LEAM(nn.Flatten(), nn.Identity())
            >>> image = torch.tensor([[[[0.0, 1.0]]]])
            >>> leam.baselines(image, 0.5).tolist()
            [[[[0.5, 0.5]]]]
        """
        if isinstance(self.forward_func, EmbeddingSimilarity):
            self._check_along_path(self.forward_func, "mean_gradient", None)
        return self._baselines(baselines, (images,))[0]

    # -- parts ---------------------------------------------------------------------------------------------

    def _check_options(self, target: TargetType, n_steps: int, path: str, args: Any, baselines: BaselineType) -> None:
        raise_if_target(target)
        check_choice("path", path, get_args(Path))
        check_count("n_steps", n_steps)
        if n_steps == 1 and baselines is not None:
            raise CaptumLeamError(
                "Expected `baselines` only with a path, got them with n_steps=1. Pass n_steps=4 or more."
            )
        if n_steps == 1 and path == "conductance":
            raise CaptumLeamError('Expected n_steps to be 2 or more with path="conductance", got 1.')
        if n_steps > 1 and isinstance(self.forward_func, EmbeddingSimilarity):
            self._check_along_path(self.forward_func, path, args)

    @staticmethod
    def _check_along_path(objective: EmbeddingSimilarity, path: str, args: Any) -> None:
        if path == "conductance" and objective.norm == "detach":
            raise CaptumLeamError(
                'Expected EmbeddingSimilarity to have norm="fixed" or "differentiate" for path="conductance", got norm="detach", whose '
                "gradients along a path are not those of a function. Use LEAM(model, layer), which fixes the norm there, or the weights of "
                'norm="fixed".'
            )
        if objective.reference is None and args is None:
            raise CaptumLeamError(
                "Expected EmbeddingSimilarity to have a reference for a path, got none, so that every point of the path would be its own "
                "reference. Pass a reference, or use LEAM(model, layer), whose default reference is the embedding of the image."
            )

    def _check_complete(self, path: str, n_steps: int, relu: bool) -> None:
        if path != "conductance" or self.weighting != "elementwise" or relu:
            raise CaptumLeamError(
                'Expected path="conductance", weighting="elementwise" and relu_attributions=False with return_convergence_delta, got '
                f"path={path!r}, weighting={self.weighting!r} and relu_attributions={relu}. Use these settings, or "
                "return_convergence_delta=False."
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
        """Return the passes of the model inside an objective, whose references may fit one batch size only; else None."""
        if not isinstance(self.forward_func, EmbeddingSimilarity):
            return None
        return replace(passes, forward_func=self.forward_func.model, args=passes.args[1:])

    def _baselines(self, baselines: BaselineType, xs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if any(not torch.is_floating_point(x) for x in xs):
            raise CaptumLeamError(
                "Expected floating-point inputs for a path, which interpolates between baseline and image, got "
                f"{[str(x.dtype) for x in xs]}. Pass x.float(), and inputs that are not to be explained as additional_forward_args."
            )
        if baselines is not None:
            return baseline_tensors(baselines, xs)
        if any(x.ndim != 4 for x in xs):
            raise CaptumLeamError(
                f"Expected images (N, C, H, W) for the default baseline, got shapes {[tuple(x.shape) for x in xs]}. Pass `baselines`."
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
        is_nonzero = [torch.stack([_largest(g) > 0 for g in of_layer]).any(0) for of_layer in gradients]
        pairs = zip(self._has_gradient, is_nonzero, strict=True)
        self._has_gradient = [a | b for a, b in pairs] if self._has_gradient else is_nonzero

    def check(self) -> None:
        """Raise if a map is not finite, or if no term of it has a gradient."""
        for i, (maps, has_gradient) in enumerate(zip(self.maps, self._has_gradient, strict=True)):
            is_finite = torch.stack([torch.isfinite(m).flatten(1).all(1) for m in maps]).all(0)
            raise_if_any(~is_finite, partial(self._not_finite_message, i))
            raise_if_any(~has_gradient, partial(self._no_gradient_message, i))

    def _not_finite_message(self, i: int, rows: list[int]) -> str:
        return (
            f"Expected the map of layer {self.passes.names[i]} to be finite, got NaN or infinite values for images {rows}. Check these "
            f"images, the activations of the layer and the precision.{float16_hint(self.maps[i][0])}"
        )

    def _no_gradient_message(self, i: int, rows: list[int]) -> str:
        return (
            f"Expected the score to depend on layer {self.passes.names[i]}, got zero gradient for images {rows}. The score is constant, "
            "the units are dead, or only other positions are used after the layer, as after a transformer's last block."
            + float16_hint(self.maps[i][0])
        )


def _add_single_pass(total: _MapSum, xs: tuple[Tensor, ...], objective: Objective, probe: LayerProbe) -> PassResult:
    """Add G ⊙ A at the images, and check the sum."""
    result = total.passes.gradients(xs, objective.score)
    probe.compare(xs, result.output, result.activations)
    total.add(result.gradients, result.activations)
    total.check()
    _check_above_noise(total.maps, total.passes, xs, result)
    return result


def _add_mean_gradient(
    total: _MapSum, ends: Ends, n_steps: int, batched_steps: int, objective: Objective, probe: LayerProbe
) -> None:
    """Add mean_t G(x_t) ⊙ (A(x) − A(x′)), and check the sum."""
    starts, xs = ends
    output, at_x = total.passes.activations(xs)
    probe.compare(xs, output, at_x)
    _, at_start = total.passes.activations(starts)
    at_image = objective.at(output)
    sums: PerLayer = []

    def add_steps(rows: slice) -> None:
        points = path_midpoints(n_steps)[rows]
        score = partial(at_image.score, steps=len(points))
        with rows_of_caller(lambda numbers: [number % len(xs[0]) for number in numbers]):
            gradients = total.passes.gradients(_line(starts, xs, points), score, len(points)).gradients
        parts = [tuple(_sum_of_chunks(g, len(points)) for g in of_layer) for of_layer in gradients]
        sums[:] = _pairwise(torch.add, sums, parts) if sums else parts

    in_batches(add_steps, n_steps, batched_steps, what="step")
    means = [tuple(g / n_steps for g in of_layer) for of_layer in sums]
    total.add(means, _pairwise(torch.sub, at_x, at_start))
    total.check()


def _add_conductance(total: _MapSum, ends: Ends, n_steps: int, objective: Objective, probe: LayerProbe) -> None:
    """Add, for every step, G at its midpoint ⊙ the change of A over the step, and check the sum."""
    starts, xs = ends
    output, at_x = total.passes.activations(xs)
    probe.compare(xs, output, at_x)
    at_image = objective.at(output, along_path=True)
    _, before = total.passes.activations(starts)
    for i, midpoint in enumerate(path_midpoints(n_steps)):
        _, after = total.passes.activations(_line(starts, xs, [(i + 1) / n_steps]))
        result = total.passes.gradients(_line(starts, xs, [midpoint]), at_image.score)
        total.add(result.gradients, _pairwise(torch.sub, after, before))
        before = after
    total.check()


# -- small functions -----------------------------------------------------------------------------------


def _pairwise(function: Callable[[Tensor, Tensor], Tensor], left: PerLayer, right: PerLayer) -> PerLayer:
    return [tuple(map(function, a, b)) for a, b in zip(left, right, strict=True)]


def _sum_of_chunks(values: Tensor, chunks: int) -> Tensor:
    return reduce(torch.add, values.detach().chunk(chunks))  # a single chunk is not copied


def _line(starts: tuple[Tensor, ...], ends: tuple[Tensor, ...], points: Sequence[float]) -> tuple[Tensor, ...]:
    """Return points on the straight line between two batches, step after step, (len(points) · N, …)."""
    return tuple(_interpolate(a, b.detach(), points) for a, b in zip(starts, ends, strict=True))


def _interpolate(start: Tensor, end: Tensor, points: Sequence[float]) -> Tensor:
    steps = [torch.lerp(start, end, t) for t in points]
    return steps[0] if len(steps) == 1 else torch.cat(steps)


def _batched_steps(internal_batch_size: int | None, batch: int) -> int:
    if internal_batch_size is None:
        return 1
    if internal_batch_size < batch:
        warnings.warn(
            f"Expected internal_batch_size to be at least the number of images, {batch}, got {internal_batch_size}. One step of {batch} "
            "images is run at a time.",
            stacklevel=4,
        )
    return max(1, internal_batch_size // max(1, batch))


def _check_above_noise(maps: PerLayer, passes: LayerPasses, xs: tuple[Tensor, ...], result: PassResult) -> None:
    """Raise if the gradient of the score is numerically zero, as that of the cosine to an image's own embedding is.

    On the networks measured, the absolute values of a map sum to 0.1 to 10 times the score, and those of rounding noise to 1e-7 times the
    score. If a map of embeddings is that small, the gradient towards a random direction shows whether the layer has little influence on
    any score or only on this one.
    """
    noise_level = noise_floor(result.scores)
    totals = [_absolute_sum(of_layer) for of_layer in maps]
    is_small = torch.stack([total <= 0.1 * noise_level * result.scores.abs() for total in totals])

    def compare_with_random_direction(rows: list[int]) -> None:
        is_noise = is_small
        if result.output.ndim > 1:
            other = passes.gradients(xs, _random_similarity)
            for name, of_layer in zip(passes.names, other.activations, strict=True):
                raise_if_any(_absolute_sum(of_layer) == 0, partial(_zero_activations_message, name))
            others = [_absolute_sum(m) for m in _pairwise(weigh, other.gradients, other.activations)]
            is_noise = is_small & torch.stack([a <= noise_level * b for a, b in zip(totals, others, strict=True)])
        for name, of_layer in zip(passes.names, is_noise, strict=True):
            raise_if_any(of_layer, partial(_rounding_noise_message, name))

    call_if_any(is_small.any(0), compare_with_random_direction)


def _zero_activations_message(layer: str, rows: list[int]) -> str:
    return (
        f"Expected activations of layer {layer} other than 0, got only zeros for images {rows}. Choose an earlier layer, or check the "
        "range and the preprocessing of these images."
    )


def _rounding_noise_message(layer: str, rows: list[int]) -> str:
    return (
        f"Expected a gradient of the score at layer {layer}, got a numerically zero gradient for images {rows}, as at the maximum of the "
        "cosine to an image's own embedding. Pass a reference from other images, or explain the part of the model before the division by "
        "the length: UpTo(model, layer_before_division(model, images)) of captum_leam.models."
    )


def _largest(values: Tensor) -> Tensor:
    """Return the largest absolute value of every image, without a copy of the values."""
    flat = values.detach().flatten(1)
    return torch.maximum(flat.amax(1), -flat.amin(1))  # torch's infinity norm takes 30 times as long on a CPU


def _absolute_sum(of_layer: tuple[Tensor, ...]) -> Tensor:
    return torch.stack([m.abs().flatten(1).sum(1) for m in of_layer]).sum(0)


def _random_similarity(embeddings: Tensor) -> Tensor:
    """Return the similarity to a random direction, the same in every call."""
    reference = normal((1, embeddings.shape[1]), torch.Generator().manual_seed(0))
    return Objective(reference=reference).score(embeddings)


def _reshapes_of(
    layers: Sequence[Layer], reshape: Reshape | Sequence[Reshape | None] | None
) -> Sequence[Reshape | None]:
    """Return one reshape per layer, which is its own for a suggestion and the caller's for a module."""
    if not layers:
        raise CaptumLeamError("Expected layer to be one or more modules, got an empty list.")
    for layer in layers:
        if not isinstance(layer, nn.Module | LayerSuggestion):
            hint = f" Pass captum_leam.layers.get_layer(model, {layer!r})." if isinstance(layer, str) else ""
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
    if not isinstance(reshape, list | tuple) or not all(item is None or callable(item) for item in reshape):
        raise InputTypeError(
            f"Expected `reshape` to be one function, or a list with one (or None) per layer, got {reshape!r}."
        )
    if len(reshape) != len(layers):
        raise CaptumLeamError(
            f"Expected `reshape` to be one function, or one (or None) per layer, got {len(reshape)} for {len(layers)} layers."
        )
    return list(reshape)
