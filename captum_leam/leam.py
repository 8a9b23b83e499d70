r"""LEAM, Layer Embedding Activation Mapping, as a Captum layer attribution.

Reconstructed from the published abstract of Borsukiewicz, Samhi, Klein and Bissyandé, "Explainable AI for Analyzing
Person-Specific Patterns in Facial Recognition Tasks", arXiv 2509.17457; formulas and choices are this package's.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial, reduce
from typing import Any, Literal, cast

import torch
from captum.attr import GradientAttribution, LayerAttribution
from captum.log import log_usage
from torch import Tensor, nn

from captum_leam._engine.captum_adapter import (
    BaselineType,
    Inputs,
    TargetType,
    as_tuple,
    baseline_tensors,
    forward_args,
)
from captum_leam._engine.checks import check_images, refuse, rows_of_caller, together, where_any
from captum_leam._engine.guards import eager
from captum_leam._engine.layer_probe import check_layers
from captum_leam._engine.memory import in_batches
from captum_leam._engine.modes import normal
from captum_leam._engine.outputs import as_output, float16_hint, vanishing
from captum_leam._engine.passes import LayerPasses, Objective, PerLayer
from captum_leam._engine.shapes import Reshape
from captum_leam._engine.types import Field
from captum_leam.errors import CaptumLeamError, InputTypeError
from captum_leam.maps import WEIGHTINGS, default_blur, steps, weigh
from captum_leam.objectives import (
    NORMS,
    EmbeddingSimilarity,
    Norm,
    check_reliable,
    direction,
    fixed_weights,
    similarity,
)

Weighting = Literal["elementwise", "positive", "channel"]
Path = Literal["mean_gradient", "conductance"]

# Every form of LEAM is a sum of terms w(G) ⊙ D: gradients, and activations or their changes, of every layer.
Terms = Iterator[tuple[PerLayer, PerLayer]]


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
        forward_func: a module or callable that returns embeddings (N, D), un-normalised; or scores (N,), as
            :class:`~captum_leam.EmbeddingSimilarity` does, which then hold their own reference and norm.
        layer: a module, or a list of modules, all explained in one forward and one backward pass.
        device_ids: of a ``DataParallel`` model, as for every Captum layer method.
        weighting: ``"elementwise"``, ``"positive"`` or ``"channel"``.
        norm: of the similarity: ``"detach"``, ``"differentiate"`` or ``"fixed"``, see :mod:`captum_leam.objectives`.
        reshape: brings the layer's output to (N, C, h, w): :func:`~captum_leam.layers.tokens_to_map`,
            :func:`~captum_leam.layers.channels_last_to_first` or a function that only rearranges or selects. A list
            of layers takes one for all or a list, one (or None) per layer.

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
    """

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        layer: nn.Module | list[nn.Module],
        device_ids: list[int] | None = None,
        *,
        weighting: Weighting = "elementwise",
        norm: Norm = "detach",
        reshape: Reshape | Sequence[Reshape | None] | None = None,
    ) -> None:
        if not callable(forward_func) and type(forward_func).__name__ != "ExportedProgram":
            raise InputTypeError(
                f"forward_func is a {type(forward_func).__name__}; needed is a module or callable that returns embeddings."
            )
        for one in layer if isinstance(layer, list | tuple) else [layer]:
            if not isinstance(one, nn.Module):
                raise InputTypeError(
                    f"layer is {one!r}; needed is a torch.nn.Module or a list of them"
                    + (f": model.get_submodule({one!r})." if isinstance(one, str) else ".")
                )
        if isinstance(layer, list | tuple) and not layer:
            raise CaptumLeamError("layer is an empty list; needed is one module or more.")
        if weighting not in WEIGHTINGS:
            raise CaptumLeamError(f"weighting is {weighting!r}; needed is one of {', '.join(map(repr, WEIGHTINGS))}.")
        if norm not in NORMS:
            raise CaptumLeamError(f"norm is {norm!r}; needed is one of {', '.join(map(repr, NORMS))}.")
        layer = list(layer) if isinstance(layer, list | tuple) else layer
        LayerAttribution.__init__(self, forward_func, cast(Any, layer), device_ids)
        GradientAttribution.__init__(self, forward_func)
        self.weighting: Weighting = weighting
        self.norm: Norm = norm
        self.reshape = reshape

    @classmethod
    def get_name(cls) -> str:
        """Name of the method, "LEAM"."""
        return "LEAM"

    def has_convergence_delta(self) -> bool:
        """True: ``path="conductance"`` has one (``"mean_gradient"`` refuses to return it)."""
        return True

    @property
    def multiplies_by_inputs(self) -> bool:
        """True: gradients are multiplied by activations (or their change)."""
        return True

    # -- the public call -----------------------------------------------------------------------------------

    @log_usage()  # type: ignore[untyped-decorator]
    def attribute(
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
    ) -> Any:
        r"""Explain a batch of images.

        Args:
            inputs: images (N, C, H, W), or a tuple of inputs with one batch size.
            target: must be None: embeddings have no classes.
            additional_forward_args: reach the model unchanged (tensors with one row per image are repeated along where
                ``internal_batch_size`` batches several steps of the path); nothing in there is taken for a reference.
            attribute_to_layer_input: explain what the layer takes in rather than what it puts out.
            relu_attributions: keep the positive part only.
            attr_dim_summation: False keeps the channels, (N, C, h, w).
            grad_kwargs: more arguments for ``torch.autograd.grad``.
            reference: embeddings (D,) or (1, D), shared, or (N, D), one per image. None: each image's own.
            contrast: embeddings to tell the person apart from: (D,), (M, D) shared by all images, or (N, M, D). The
                score is then :math:`\langle f, \hat r_+\rangle - \mathrm{mean}\langle f, \hat r_-\rangle`, over the norm.
            baselines: start of the path, in any of Captum's forms; a Gaussian blur of the images by default
                (σ = 10 px per 112 px of width).
            n_steps: 1 for no path; else points ``(i + ½)/n`` on the straight line from the baseline.
            path: ``"mean_gradient"``: :math:`w(\mathrm{mean}_t G_t) \odot (A(x) - A(x'))`, n + 2 forward and n backward
                passes. ``"conductance"``: :math:`\sum_t w(G_t) \odot \Delta A_t`, with :math:`\Delta A_t` the change over the
                t-th step and, unless the norm is ``"differentiate"``, the fixed norm; 2n + 1 forward and n backward passes.
            internal_batch_size: at most this many images in one pass of a path: how many steps are batched. One step
                at a time by default.
            return_convergence_delta: for ``path="conductance"``: also return, per image, the sum of the map minus what it
                should be at a layer that everything passes through, :math:`\langle f(x) - f(x'), d\rangle/\|f(x)\|`.

        Returns:
            For one layer a tensor (N, 1, h, w), or a tuple if the layer puts out several; for a list of layers a list.
            Signed, on the raw scale of the score, detached, in the precision of the layer. With
            ``return_convergence_delta``, a pair with the delta (N,), or a list of them.

        Raises:
            InputTypeError: for inputs, models or layers of the wrong kind.
            CaptumLeamError: for what would give a wrong picture: see the troubleshooting page for every message.
        """
        self._check_options(target, n_steps, path, additional_forward_args, baselines)
        if return_convergence_delta:
            self._check_complete(path, n_steps, relu_attributions)
        xs = as_tuple(inputs)
        passes = self._passes(xs, forward_args(additional_forward_args), attribute_to_layer_input, grad_kwargs)
        with torch.inference_mode(False), torch.enable_grad(), eager(), together():
            xs = tuple(x.clone() if x.is_inference() else x.detach() for x in xs)
            check_layers(passes, xs)
            objective_at = partial(self._objective, reference=reference, contrast=contrast)
            if n_steps == 1:
                terms = _one_pass(passes, xs, objective_at)
            elif path == "mean_gradient":
                at_once = _steps_at_once(internal_batch_size, len(xs[0]))
                terms = _mean_gradient(passes, xs, self._baselines(baselines, xs), n_steps, at_once, objective_at)
            else:
                along = partial(objective_at, along_path=True)
                terms = _conductance(passes, xs, self._baselines(baselines, xs), n_steps, along)
            maps = self._sum(terms, passes, attr_dim_summation)
            if n_steps == 1:
                _check_above_noise(maps, passes, xs)
        if relu_attributions:
            maps = [tuple(m.clamp(min=0) for m in of_layer) for of_layer in maps]
        of_layers = [m if passes.tuples[layer] else m[0] for m, layer in zip(maps, passes.layers, strict=True)]
        result = of_layers if isinstance(self.layer, list) else of_layers[0]
        if not return_convergence_delta:
            return result
        difference = partial(self.compute_convergence_delta, start_point=baselines, end_point=inputs)
        asked = {"additional_forward_args": additional_forward_args, "reference": reference, "contrast": contrast}
        deltas = [difference(m, **asked) for m in of_layers]
        return result, deltas if isinstance(self.layer, list) else deltas[0]

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
        r"""Sum of a conductance map minus :math:`s(x) - s(x')`, per image.

        Args:
            attributions: the map of one layer, (N, …) or a tuple.
            start_point: the baseline x′ of the path; None is the default blur.
            end_point: the images x.
            target: must be None.
            additional_forward_args: as in :meth:`attribute`.
            reference: as in :meth:`attribute`.
            contrast: as in :meth:`attribute`.

        Returns:
            (N,); 0 for a complete attribution.
        """
        self._check_options(target, 2, "conductance", additional_forward_args, start_point)
        xs, args = as_tuple(end_point), forward_args(additional_forward_args)
        with torch.no_grad(), eager():
            out = as_output(self.forward_func(*[x.clone() for x in xs], *args), len(xs[0]))
            start = as_output(self.forward_func(*self._baselines(start_point, xs), *args), len(xs[0]))
            objective = self._objective(out, reference, contrast, along_path=True)
            change = objective(out) - objective(start)
        totals = [a.flatten(1).sum(1) for a in (attributions if isinstance(attributions, tuple) else (attributions,))]
        return torch.stack(totals).sum(0) - change

    def check_grids(self, images: Tensor, field: Field | None = None) -> None:
        """Raise if the grid of a layer does not lie on the images, so that its map would be drawn in the wrong place.

        Two forward passes and one backward pass on two images, once for each state of the model and kind of images.

        Args:
            images: (N, C, H, W).
            field: (top, left, height, width) of the images that the network reads. Default: the whole image.

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
        with torch.inference_mode(False), torch.enable_grad(), eager():
            x = images.clone() if images.is_inference() else images.detach()
            displaced = check_layers(passes, (x,), field or (0, 0, x.shape[2], x.shape[3]))
        for layer, displacement in displaced.items():
            raise CaptumLeamError(displacement.message(passes.names[layer]))

    # -- parts ---------------------------------------------------------------------------------------------

    def _check_options(self, target: TargetType, n_steps: int, path: str, args: Any, baselines: BaselineType) -> None:
        if target is not None:
            raise CaptumLeamError(
                f"target is {target!r}; it must be None: an embedding has no classes. What to match is the reference."
            )
        if path not in ("mean_gradient", "conductance"):
            raise CaptumLeamError(f"path is {path!r}; needed is 'mean_gradient' or 'conductance'.")
        if isinstance(n_steps, bool) or not isinstance(n_steps, int) or n_steps < 1:
            raise CaptumLeamError(
                f"n_steps is {n_steps!r}; needed is a whole number: 1 for no path, 2 or more for one."
            )
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
        reshapes = (
            [self.reshape] * len(layers) if self.reshape is None or callable(self.reshape) else list(self.reshape)
        )
        if len(reshapes) != len(layers):
            raise CaptumLeamError(
                f"{len(reshapes)} reshapes for {len(layers)} layers; needed is one (or None) per layer, or one for all."
            )
        size = tuple(xs[0].shape[2:]) if xs[0].ndim == 4 else None
        return LayerPasses(
            self.forward_func, layers, args, layer_input, reshapes, size, self.device_ids, grad_kwargs or {}
        )

    def _objective(
        self, output: Tensor, reference: Tensor | None, contrast: Tensor | None, *, along_path: bool = False
    ) -> Objective:
        """The score as a function of the output at points of the path, its reference taken at the images."""
        if output.ndim == 1:
            if reference is not None or contrast is not None:
                raise CaptumLeamError(
                    "forward_func returns scores (N,), so a reference or contrast has no meaning here: it is the objective that holds it. "
                    "Give EmbeddingSimilarity the reference, or LEAM the model that returns embeddings."
                )
            if self.norm != "detach":
                raise CaptumLeamError(
                    f"norm is {self.norm!r}, but forward_func returns scores (N,), whose norm is their own: give it to EmbeddingSimilarity."
                )
            return lambda scores: scores
        if self.norm == "fixed" or (along_path and self.norm == "detach"):
            weights = fixed_weights(output, reference, contrast)
            return lambda embeddings: similarity(embeddings, weights, "fixed")
        towards = direction(output, reference, contrast)
        if self.norm == "differentiate":
            check_reliable(output, towards)
        else:
            _warn_of_unit_embeddings(output)
        return lambda embeddings: similarity(embeddings, towards, self.norm)

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

    def _sum(self, terms: Terms, passes: LayerPasses, sum_channels: bool) -> PerLayer:
        """Sum of w(G) ⊙ D over the terms, per layer; refused where no term has a gradient."""
        weighted = partial(weigh, weighting=self.weighting, sum_channels=sum_channels)
        maps: PerLayer = []
        alive: list[Tensor] = []
        for gradients, changes in terms:
            parts = _pairwise(lambda g, d: weighted(g.detach(), d.detach()), gradients, changes)
            maps = _pairwise(torch.add, maps, parts) if maps else parts
            moved = [torch.stack([_largest(g) > 0 for g in of_layer]).any(0) for of_layer in gradients]
            alive = [a | m for a, m in zip(alive, moved, strict=True)] if alive else moved
        for of_layer, has_gradient, layer in zip(maps, alive, passes.layers, strict=True):
            _check_shown(of_layer, has_gradient, passes.names[layer])
        return maps


# -- the forms, as terms -------------------------------------------------------------------------------


def _one_pass(passes: LayerPasses, xs: tuple[Tensor, ...], objective_at: Callable[[Tensor], Objective]) -> Terms:
    """G(x) ⊙ A(x)."""
    yield passes.gradients(xs, lambda output: objective_at(output)(output))


def _mean_gradient(
    passes: LayerPasses,
    xs: tuple[Tensor, ...],
    starts: tuple[Tensor, ...],
    n_steps: int,
    at_once: int,
    objective_at: Callable[[Tensor], Objective],
) -> Terms:
    """mean_t G(x_t) ⊙ (A(x) − A(x′))."""
    output, at_x = passes.activations(xs)
    _, at_start = passes.activations(starts)
    objective = objective_at(output)
    sums: PerLayer = []

    def add(rows: slice) -> None:
        nonlocal sums
        points = steps(n_steps)[rows]
        batched = _repeat_objective(objective, len(points))
        with rows_of_caller(lambda found: [row % len(xs[0]) for row in found]):
            gradients, _ = passes.gradients(_line(starts, xs, points), batched, len(points))
        parts = [tuple(_sum_of_chunks(g, len(points)) for g in of_layer) for of_layer in gradients]
        sums = _pairwise(torch.add, sums, parts) if sums else parts

    in_batches(add, n_steps, at_once, what="step")
    means = [tuple(total / n_steps for total in of_layer) for of_layer in sums]
    yield means, _pairwise(torch.sub, at_x, at_start)


def _conductance(
    passes: LayerPasses,
    xs: tuple[Tensor, ...],
    starts: tuple[Tensor, ...],
    n_steps: int,
    objective_at: Callable[[Tensor], Objective],
) -> Terms:
    """Over the steps: G at the midpoint ⊙ the change of A from the start to the end of the step."""
    objective = objective_at(passes.activations(xs)[0])
    _, before = passes.activations(starts)
    for i, midpoint in enumerate(steps(n_steps)):
        _, after = passes.activations(_line(starts, xs, [(i + 1) / n_steps]))
        gradients, _ = passes.gradients(_line(starts, xs, [midpoint]), objective)
        yield gradients, _pairwise(torch.sub, after, before)
        before = after


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


def _repeat_objective(objective: Objective, times: int) -> Objective:
    """An objective for N images as one for several steps of them, batched."""
    return lambda output: torch.cat([objective(part) for part in output.chunk(times)])


def _steps_at_once(internal_batch_size: int | None, batch: int) -> int:
    if internal_batch_size is None:
        return 1
    if internal_batch_size < batch:
        warnings.warn(
            f"internal_batch_size {internal_batch_size} is smaller than the batch of {batch} images; {batch} are run at once.",
            stacklevel=4,
        )
    return max(1, internal_batch_size // max(1, batch))


def _warn_of_unit_embeddings(embeddings: Tensor) -> None:
    def warn(rows: list[int]) -> None:
        warnings.warn(
            "all embeddings have length 1: the model seems to divide by it, and what is explained is the differentiated cosine, whatever "
            "the norm. Its maps are less faithful and less person-specific; give the part of the model before that division.",
            stacklevel=8,  # through the end of together
        )

    lengths = torch.linalg.vector_norm(embeddings.detach().double(), dim=1)
    where_any(((lengths - 1).abs() < 1e-3).all()[None] if len(lengths) else lengths.bool(), warn)


def _check_above_noise(maps: PerLayer, passes: LayerPasses, xs: tuple[Tensor, ...]) -> None:
    """Refuse maps of a score whose gradient is zero but for rounding, as of the cosine to one's own embedding.

    Real maps sum to the order of the score (0.1 to 10 times it on the networks measured), rounding noise to 1e-7 of it. Where a map of
    embeddings is as small, a random direction tells whether the layer has little influence on anything, or none on this score alone.
    """
    tiny = vanishing(passes.scores)
    totals = [_total(of_layer) for of_layer in maps]
    noise = torch.stack([total <= 0.1 * tiny * passes.scores.abs() for total in totals])

    def look_closer(rows: list[int]) -> None:
        found = noise
        if passes.returns_embeddings:
            gradients, activations = passes.gradients(xs, _towards_anything)
            probes = [_total(m) for m in _pairwise(lambda g, a: weigh(g.detach(), a.detach()), gradients, activations)]
            for layer, of_layer in zip(passes.layers, activations, strict=True):
                refuse(_total(of_layer) == 0, partial(_silent, passes.names[layer]))
            found = noise & torch.stack([total <= tiny * probe for total, probe in zip(totals, probes, strict=True)])
        for layer, of_layer in zip(passes.layers, found, strict=True):
            refuse(of_layer, partial(_noise, passes.names[layer]))

    where_any(noise.any(0), look_closer)


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
    """The largest absolute value of every image, without a copy of the values."""
    flat = values.detach().flatten(1)
    return torch.maximum(flat.amax(1), -flat.amin(1))  # the infinity norm, which costs 30 times as much on a CPU


def _total(of_layer: tuple[Tensor, ...]) -> Tensor:
    return torch.stack([m.abs().flatten(1).sum(1) for m in of_layer]).sum(0)


def _towards_anything(embeddings: Tensor) -> Tensor:
    """The similarity to a drawn direction, always the same one."""
    drawn = normal((1, embeddings.shape[1]), torch.Generator().manual_seed(0))
    return similarity(embeddings, direction(embeddings, drawn), "detach")


def _check_shown(maps: tuple[Tensor, ...], has_gradient: Tensor, name: str) -> None:
    """Refuse maps of nothing: values that are not finite, or no gradient at all."""
    finite = torch.stack([torch.isfinite(m).flatten(1).all(1) for m in maps]).all(0)
    refuse(
        ~finite,
        lambda rows: (
            f"the map of layer {name} is NaN or infinite for images {rows}: check these images, "
            f"the activations there, and the precision.{float16_hint(maps[0])}"
        ),
    )
    refuse(
        ~has_gradient,
        lambda rows: (
            f"the score has zero gradient at layer {name} for images {rows}: nothing to show. A "
            "constant score, dead units, or a layer after which only other positions count (a transformer's last block)."
            + float16_hint(maps[0])
        ),
    )
