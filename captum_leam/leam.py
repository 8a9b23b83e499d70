r"""LEAM, Layer Embedding Activation Mapping, as a Captum layer attribution.

Reconstructed from the published abstract of Borsukiewicz, Samhi, Klein and Bissyandé, "Explainable AI for Analyzing
Person-Specific Patterns in Facial Recognition Tasks", arXiv 2509.17457; formulas and choices are this package's.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from captum.attr import GradientAttribution, LayerAttribution
from captum.log import log_usage
from torch import Tensor, nn

from captum_leam._captum import (
    BaselineType,
    Inputs,
    TargetType,
    as_tuple,
    baseline_tensors,
    forward_args,
    repeat_args,
)
from captum_leam.layers import Reshape, eager, gather_runs, layer_name, record, refuse_unexplainable, spatial
from captum_leam.maps import WEIGHTINGS, default_blur, steps, weigh
from captum_leam.objectives import (
    NORMS,
    EmbeddingSimilarity,
    Norm,
    as_embeddings,
    check_reliable,
    direction,
    fixed_weights,
    similarity,
)

Weighting = Literal["elementwise", "positive", "channel"]
Path = Literal["mean_gradient", "conductance"]
Attributions = Tensor | tuple[Tensor, ...] | list[Tensor | tuple[Tensor, ...]]

# One pass's activations and gradients: per layer, per tensor of that layer.
PerLayer = list[tuple[Tensor, ...]]

# Outputs of the forward function, embeddings or scores, to one score per image.
Objective = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class _Pass:
    """One forward and backward pass."""

    activations: PerLayer
    gradients: PerLayer


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

    Raises:
        TypeError: if forward_func or a layer is of the wrong kind.
        ValueError: for an unknown weighting or norm.

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
            raise TypeError(
                f"forward_func is a {type(forward_func).__name__}; needed is a module or callable that returns embeddings."
            )
        for one in layer if isinstance(layer, list | tuple) else [layer]:
            if not isinstance(one, nn.Module):
                raise TypeError(
                    f"layer is {one!r}; needed is a torch.nn.Module or a list of them"
                    + (f": model.get_submodule({one!r})." if isinstance(one, str) else ".")
                )
        if isinstance(layer, list | tuple) and not layer:
            raise ValueError("layer is an empty list; needed is one module or more.")
        if weighting not in WEIGHTINGS:
            raise ValueError(f"weighting is {weighting!r}; needed is one of {', '.join(map(repr, WEIGHTINGS))}.")
        if norm not in NORMS:
            raise ValueError(f"norm is {norm!r}; needed is one of {', '.join(map(repr, NORMS))}.")
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
            additional_forward_args: reach the model unchanged (repeated along where ``internal_batch_size`` batches
                several steps of the path); nothing in there is taken for a reference.
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
            TypeError: for inputs, models or layers of the wrong kind.
            ValueError: for what would give a wrong picture: see the troubleshooting page for every message.
        """
        self._check_options(target, n_steps, path, return_convergence_delta, relu_attributions, baselines)
        xs = as_tuple(inputs)
        args = forward_args(additional_forward_args)
        layers = self.layer if isinstance(self.layer, list) else [self.layer]
        refuse_unexplainable(self.forward_func, layers)
        call = _Call(self, layers, args, attribute_to_layer_input, grad_kwargs or {}, xs[0])
        with torch.inference_mode(False), torch.enable_grad(), eager():
            xs = tuple(x.clone() if x.is_inference() else x for x in xs)
            if n_steps == 1:
                maps, shown = self._one_pass(call, xs, reference, contrast, attr_dim_summation)
                deltas: list[Tensor] = []
            else:
                starts = self._baselines(baselines, xs)
                chunk = _steps_at_once(internal_batch_size, len(xs[0]))
                walk = self._mean_gradient if path == "mean_gradient" else self._conductance
                maps, shown, deltas = walk(call, xs, starts, n_steps, chunk, reference, contrast, attr_dim_summation)
        _check_shown(shown, maps, [call.name(layer) for layer in layers])
        if relu_attributions:
            maps = [tuple(m.clamp(min=0) for m in of_layer) for of_layer in maps]
        result = self._as_captum(maps, call.is_tuple)
        if return_convergence_delta:
            return result, (deltas if isinstance(self.layer, list) else deltas[0])
        return result

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
        self._check_options(target, 2, "conductance", True, False, start_point)
        xs, args = as_tuple(end_point), forward_args(additional_forward_args)
        with torch.no_grad(), eager():
            out = self._output(self.forward_func(*xs, *args), len(xs[0]))
            start = self._output(self.forward_func(*self._baselines(start_point, xs), *args), len(xs[0]))
            objective = self._objective(out, reference, contrast, along_path=True)
            change = objective(out) - objective(start)
        totals = [a.flatten(1).sum(1) for a in (attributions if isinstance(attributions, tuple) else (attributions,))]
        return torch.stack(totals).sum(0) - change

    # -- the three forms -----------------------------------------------------------------------------------

    def _one_pass(
        self,
        call: "_Call",
        xs: tuple[Tensor, ...],
        reference: Tensor | None,
        contrast: Tensor | None,
        summed: bool,
    ) -> tuple[PerLayer, PerLayer]:
        done = call.run(xs, lambda out: self._objective(out, reference, contrast)(out))
        return self._weigh(done.gradients, done.activations, summed), done.gradients

    def _mean_gradient(
        self,
        call: "_Call",
        xs: tuple[Tensor, ...],
        starts: tuple[Tensor, ...],
        n_steps: int,
        chunk: int,
        reference: Tensor | None,
        contrast: Tensor | None,
        summed: bool,
    ) -> tuple[PerLayer, PerLayer, list[Tensor]]:
        out, at_x = call.activations(xs)
        _, at_start = call.activations(starts)
        objective = self._objective(out, reference, contrast)
        means = [tuple(torch.zeros_like(t) for t in of_layer) for of_layer in at_x]
        for points in _chunks(steps(n_steps), chunk):
            batched = _repeat_objective(objective, len(points))
            done = call.run(_line(starts, xs, points), batched, len(points))
            for mean, gradient in _tensors(means, done.gradients):
                mean += torch.stack(gradient.detach().chunk(len(points))).sum(0) / n_steps
        changes = [tuple(a - b for a, b in zip(*pair, strict=True)) for pair in zip(at_x, at_start, strict=True)]
        return self._weigh(means, changes, summed), means, []

    def _conductance(
        self,
        call: "_Call",
        xs: tuple[Tensor, ...],
        starts: tuple[Tensor, ...],
        n_steps: int,
        chunk: int,
        reference: Tensor | None,
        contrast: Tensor | None,
        summed: bool,
    ) -> tuple[PerLayer, PerLayer, list[Tensor]]:
        out, _ = call.activations(xs)
        out_start, before = call.activations(starts)
        objective = self._objective(out, reference, contrast, along_path=True)
        sums: PerLayer = []
        for i, point in enumerate(steps(n_steps)):
            _, after = call.activations(_line(starts, xs, [(i + 1) / n_steps]))
            done = call.run(_line(starts, xs, [point]), objective)
            changes = [tuple(a - b for a, b in zip(*pair, strict=True)) for pair in zip(after, before, strict=True)]
            parts = self._weigh(done.gradients, changes, summed)
            sums = (
                [tuple(s + p for s, p in zip(*pair, strict=True)) for pair in zip(sums, parts, strict=True)]
                if sums
                else parts
            )
            before = after
        change = (objective(out) - objective(out_start)).detach()
        deltas = [torch.stack([m.flatten(1).sum(1) for m in of_layer]).sum(0) - change for of_layer in sums]
        return sums, sums, deltas

    # -- parts ---------------------------------------------------------------------------------------------

    def _check_options(
        self, target: TargetType, n_steps: int, path: str, delta: bool, relu: bool, baselines: BaselineType
    ) -> None:
        if target is not None:
            raise ValueError(
                f"target is {target!r}; it must be None: an embedding has no classes. What to match is the reference."
            )
        if path not in ("mean_gradient", "conductance"):
            raise ValueError(f"path is {path!r}; needed is 'mean_gradient' or 'conductance'.")
        if isinstance(n_steps, bool) or not isinstance(n_steps, int) or n_steps < 1:
            raise ValueError(f"n_steps is {n_steps!r}; needed is a whole number: 1 for no path, 2 or more for one.")
        if n_steps == 1 and baselines is not None:
            raise ValueError(
                "baselines are given but n_steps is 1, where there is no path from them; set n_steps=4 or more."
            )
        if n_steps == 1 and path == "conductance":
            raise ValueError('path="conductance" needs n_steps of 2 or more.')
        if (
            path == "conductance"
            and isinstance(self.forward_func, EmbeddingSimilarity)
            and self.forward_func.norm == "detach"
        ):
            raise ValueError(
                'path="conductance" of EmbeddingSimilarity(norm="detach"): along a path the detached cosine is no function\'s gradient. '
                'Use LEAM(model, layer), which takes the fixed norm there, or EmbeddingSimilarity(norm="fixed") with its weights.'
            )
        if delta and (path != "conductance" or self.weighting != "elementwise" or relu):
            raise ValueError(
                'return_convergence_delta needs path="conductance", n_steps ≥ 2, weighting="elementwise" and relu_attributions=False: '
                "no other form sums to a difference of scores."
            )

    def _output(self, output: Any, batch: int) -> Tensor:
        """Embeddings (N, D) or scores (N,), checked."""
        if isinstance(output, Tensor) and output.ndim < 2:
            if output.ndim == 0 or len(output) != batch:
                raise ValueError(
                    f"forward_func returned shape {tuple(output.shape)} for {batch} images: a mean or sum over the batch? Needed are "
                    f"embeddings ({batch}, D) or one score per image ({batch},)."
                )
            return output
        return as_embeddings(output, batch)

    def _objective(
        self, output: Tensor, reference: Tensor | None, contrast: Tensor | None, *, along_path: bool = False
    ) -> Objective:
        """The score as a function of the output at points of the path, its reference taken at the images."""
        if output.ndim == 1:
            if reference is not None or contrast is not None:
                raise ValueError(
                    "forward_func returns scores (N,), so a reference or contrast has no meaning here: it is the objective that holds it. "
                    "Give EmbeddingSimilarity the reference, or LEAM the model that returns embeddings."
                )
            return lambda scores: scores
        if self.norm == "fixed" or (along_path and self.norm == "detach"):
            weights = fixed_weights(output, reference, contrast)
            return lambda embeddings: similarity(embeddings, weights, "fixed")
        towards = direction(output, reference, contrast)
        if self.norm == "differentiate":
            check_reliable(output, towards)
        return lambda embeddings: similarity(embeddings, towards, self.norm)

    def _baselines(self, baselines: BaselineType, xs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if baselines is not None:
            return baseline_tensors(baselines, xs)
        if any(x.ndim != 4 or not torch.is_floating_point(x) for x in xs):
            raise ValueError(
                f"inputs have shapes {[tuple(x.shape) for x in xs]}; the default baseline, a blur, needs floating-point images "
                "(N, C, H, W). Pass baselines=."
            )
        return tuple(default_blur(x.detach()) for x in xs)

    def _weigh(self, gradients: PerLayer, activations: PerLayer, summed: bool) -> PerLayer:
        return [
            tuple(
                weigh(g.detach(), a.detach(), self.weighting, sum_channels=summed) for g, a in zip(*pair, strict=True)
            )
            for pair in zip(gradients, activations, strict=True)
        ]

    def _as_captum(self, maps: PerLayer, is_tuple: Sequence[bool]) -> Attributions:
        formatted = [m if many else m[0] for m, many in zip(maps, is_tuple, strict=True)]
        return formatted if isinstance(self.layer, list) else formatted[0]


class _Call:
    """One call of ``attribute``: runs the model with the layers recorded."""

    def __init__(
        self,
        leam: LEAM,
        layers: Sequence[nn.Module],
        args: tuple[Any, ...],
        layer_input: bool,
        grad_kwargs: dict[str, Any],
        images: Tensor,
    ) -> None:
        self.leam = leam
        self.layers = layers
        self.distinct = list(dict.fromkeys(layers))
        self.args = args
        self.layer_input = layer_input
        self.grad_kwargs = {"allow_unused": True, **grad_kwargs}
        self.image_size = tuple(images.shape[2:]) if images.ndim == 4 else None
        self.is_tuple = [False] * len(layers)

    def name(self, layer: nn.Module) -> str:
        return layer_name(layer, self.leam.forward_func)

    def reshapes(self) -> list[Reshape | None]:
        reshape = self.leam.reshape
        if reshape is None or callable(reshape):
            return [reshape] * len(self.layers)
        if len(reshape) != len(self.layers):
            raise ValueError(
                f"{len(reshape)} reshapes for {len(self.layers)} layers; needed is one (or None) per layer, or one for all."
            )
        return list(reshape)

    def run(self, xs: tuple[Tensor, ...], objective: Objective, times: int = 1) -> _Pass:
        """Forward and backward."""
        output, runs = self._forward(xs, times)
        activations = self._activations(runs)
        return _Pass(activations, self._gradients(runs, objective(output)))

    def activations(self, xs: tuple[Tensor, ...]) -> tuple[Tensor, PerLayer]:
        """Forward only: the output and the activations of every layer."""
        with torch.no_grad():
            output, runs = self._forward(xs, 1)
            return output, self._activations(runs)

    def _forward(self, xs: tuple[Tensor, ...], times: int) -> tuple[Tensor, dict[nn.Module, list[tuple[Tensor, ...]]]]:
        forward = self.leam.forward_func
        names = [self.name(layer) for layer in self.distinct]
        with record(self.distinct, names, inputs=self.layer_input) as recordings:
            output = self.leam._output(forward(*xs, *repeat_args(self.args, times)), len(xs[0]))
        runs = {
            layer: gather_runs(recording, layer, forward, self.leam.device_ids)
            for layer, recording in zip(self.distinct, recordings, strict=True)
        }
        tuples = dict(zip(self.distinct, (r.is_tuple for r in recordings), strict=True))
        self.is_tuple = [tuples[layer] for layer in self.layers]
        return output, runs

    def _backward(self, score: Tensor, kept: Sequence[Tensor]) -> Sequence[Tensor | None]:
        if not score.requires_grad:
            return [None] * len(kept)
        try:
            return torch.autograd.grad(score.sum(), kept, **self.grad_kwargs)
        except RuntimeError as error:
            names = ", ".join(self.name(layer) for layer in self.distinct)
            raise RuntimeError(f"the backward pass from the score to layer {names} failed: {error}") from error

    def _activations(self, runs: dict[nn.Module, list[tuple[Tensor, ...]]]) -> PerLayer:
        """Of every layer, as (N, C, h, w)."""
        return [
            tuple(spatial(a, self.name(layer), self.image_size, reshape) for a in _join(runs[layer]))
            for layer, reshape in zip(self.layers, self.reshapes(), strict=True)
        ]

    def _gradients(self, runs: dict[nn.Module, list[tuple[Tensor, ...]]], score: Tensor) -> PerLayer:
        """Of every layer, rearranged as its activations are; zeros for a tensor (of several) without one."""
        kept = [t for layer in self.distinct for run in runs[layer] for t in run]
        found = dict(zip(map(id, kept), self._backward(score, kept), strict=True))
        gradients = []
        for layer, reshape in zip(self.layers, self.reshapes(), strict=True):
            if all(found[id(t)] is None for run in runs[layer] for t in run):
                raise ValueError(
                    f"the score does not depend on layer {self.name(layer)} through differentiable operations: it is on a branch "
                    "that does not reach the embedding, or the forward function detaches or leaves torch (numpy, no_grad) after it."
                )
            of_runs = [
                tuple(torch.zeros_like(t) if (g := found[id(t)]) is None else g for t in run) for run in runs[layer]
            ]
            gradients.append(tuple(g if reshape is None else reshape(g) for g in _join(of_runs)))
        return gradients


# -- small functions -----------------------------------------------------------------------------------


def _join(runs: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Runs on several devices (DataParallel) in batch order, on the first device."""
    return (
        runs[0]
        if len(runs) == 1
        else tuple(torch.cat([t.to(ts[0].device) for t in ts]) for ts in zip(*runs, strict=True))
    )


def _line(starts: tuple[Tensor, ...], ends: tuple[Tensor, ...], points: Sequence[float]) -> tuple[Tensor, ...]:
    """Points on the straight line between two batches, step after step: (len(points) · N, …)."""
    return tuple(torch.cat([a + t * (b.detach() - a) for t in points]) for a, b in zip(starts, ends, strict=True))


def _repeat_objective(objective: Objective, times: int) -> Objective:
    """An objective for N images as one for several steps of them, batched."""
    return lambda output: torch.cat([objective(part) for part in output.chunk(times)])


def _chunks(points: Sequence[float], size: int) -> list[Sequence[float]]:
    return [points[i : i + size] for i in range(0, len(points), size)]


def _steps_at_once(internal_batch_size: int | None, batch: int) -> int:
    if internal_batch_size is None:
        return 1
    if internal_batch_size < batch:
        warnings.warn(
            f"internal_batch_size {internal_batch_size} is smaller than the batch of {batch} images; {batch} are run at once.",
            stacklevel=4,
        )
    return max(1, internal_batch_size // max(1, batch))


def _tensors(means: PerLayer, gradients: PerLayer) -> list[tuple[Tensor, Tensor]]:
    return [pair for of_layer in zip(means, gradients, strict=True) for pair in zip(*of_layer, strict=True)]


def _check_shown(shown: PerLayer, maps: PerLayer, names: Sequence[str]) -> None:
    """Refuse maps of nothing: no gradient at all, or values that are not finite."""
    for of_layer, gradients, name in zip(maps, shown, names, strict=True):
        for tensor in of_layer:
            finite = torch.isfinite(tensor).flatten(1).all(1)
            if not bool(finite.all()):
                raise ValueError(
                    f"the map of layer {name} is NaN or infinite for images {(~finite).nonzero().flatten().tolist()}: check these images, "
                    "the activations there, and the precision (float16 overflows)."
                )
        flat = torch.stack([g.abs().flatten(1).amax(1) == 0 for g in gradients]).all(0)
        if bool(flat.any()):
            raise ValueError(
                f"the score has zero gradient at layer {name} for images {flat.nonzero().flatten().tolist()}: nothing to show. A constant "
                "score, saturated or dead units, or a layer after which only other positions count (the last block of a transformer)."
            )
