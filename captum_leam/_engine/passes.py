"""Passes through a model that record the activations of several layers and the gradients of a score."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from captum_leam._engine.arithmetic import differentiate
from captum_leam._engine.captum_adapter import repeat_args
from captum_leam._engine.checks import raise_if_any
from captum_leam._engine.guards import check_forward_is_deterministic
from captum_leam._engine.memory import is_out_of_memory
from captum_leam._engine.modules import layer_name, modules_behind
from captum_leam._engine.outputs import as_output, noise_floor
from captum_leam._engine.recording import InputGraphRecorder, LayerGraphRecorder, Recorder, ValueRecorder
from captum_leam._engine.shapes import Reshape, as_spatial
from captum_leam.errors import CaptumLeamError

PerLayer = list[tuple[Tensor, ...]]
"""The tensors that each layer puts out."""

Score = Callable[[Tensor], Tensor]
"""Function from the output of the model, embeddings (N, D) or scores (N,), to one score per image (N,)."""


@dataclass(frozen=True)
class PassResult:
    """Results of one forward and one backward pass.

    Attributes:
        output: Embeddings (N, D) or scores (N,) of the model, detached.
        scores: Scores of the images, (N,), detached.
        gradients: Gradients of the scores by the tensors of each layer, (N, C, h, w).
        activations: The tensors of each layer, (N, C, h, w), detached.
        input_gradients: Gradients of the scores by the inputs, (N, …) each; empty unless the passes are asked for them.
    """

    output: Tensor
    scores: Tensor
    gradients: PerLayer
    activations: PerLayer
    input_gradients: tuple[Tensor, ...] = ()


@dataclass
class LayerPasses:
    """A forward function and the layers to record while it runs.

    Attributes:
        forward_func: Function that returns embeddings (N, D) or scores (N,).
        layers: Modules; one may stand in the list twice.
        args: Additional forward arguments.
        layer_input: Whether to record what layers take in rather than what they put out.
        reshapes: One per layer, None where its output is (N, C, h, w).
        image_size: (H, W) of the images, to recognise channels-last layers. None for other inputs.
        device_ids: Devices of a ``DataParallel`` model.
        grad_kwargs: More arguments of ``torch.autograd.grad``.
        with_inputs: Whether to give the gradients by the inputs, too, all of which are then floating point.
    """

    forward_func: Callable[..., Any]
    layers: Sequence[nn.Module]
    args: tuple[Any, ...] = ()
    layer_input: bool = False
    reshapes: Sequence[Reshape | None] = ()
    image_size: tuple[int, ...] | None = None
    device_ids: list[int] | None = None
    grad_kwargs: dict[str, Any] = field(default_factory=dict)
    with_inputs: bool = False

    def __post_init__(self) -> None:
        self.reshapes = self.reshapes or [None] * len(self.layers)
        self.distinct = list(dict.fromkeys(self.layers))
        # How to run the model; a pass that fails one way is done another way, and so are those after it.
        aliased = any(map(_returns_its_input, self.distinct))
        self._starts_at_layer = not self.layer_input and not self.with_inputs and not aliased
        self._copies_outputs = _works_in_place(self.forward_func)
        self._per_layer: list[LayerPasses] = []  # one for each layer, where they cannot be recorded in one pass
        self._verifies_output = True

    @property
    def names(self) -> list[str]:
        """Names of the layers, for messages."""
        return [layer_name(layer, self.forward_func) for layer in self.layers]

    def for_rows(self, images: Sequence[int], count: int) -> "LayerPasses":
        """Return the same for other batches, made of the caller's images of these numbers.

        Args:
            images: Numbers of images, one for each row of the batches to come.
            count: The caller's number of images. Additional arguments with as many rows are taken row by row.
        """
        rows = list(images)
        args = [arg[rows] if isinstance(arg, Tensor) and arg.ndim and len(arg) == count else arg for arg in self.args]
        return replace(self, args=tuple(args))

    def activations(self, xs: tuple[Tensor, ...]) -> tuple[Tensor, PerLayer]:
        """Run a forward pass only; return the output, and the activations of every layer as (N, C, h, w).

        Args:
            xs: Inputs, (N, …) each.
        """
        with torch.no_grad():
            recorder = ValueRecorder(self.distinct, self.forward_func, inputs=self.layer_input)
            output = self._forward(recorder, xs, 1)
            return output, self._spatial(recorder, len(xs[0]))

    def gradients(self, xs: tuple[Tensor, ...], score: Score, times: int = 1) -> PassResult:
        """Run a forward and a backward pass.

        Args:
            xs: Inputs, ``times`` batches one after the other.
            score: Score of every image as a function of the output.
            times: Number of times that additional arguments with one row per image are repeated. Default: 1.

        Raises:
            CaptumLeamError: if a layer did not run once, or the score does not depend on it.
        """
        if self._per_layer:
            return self._gradients_by_layer(xs, score, times)
        run = self._forward_from_layers(xs, times) if self._starts_at_layer else None
        if run is None and self._starts_at_layer and not self._copies_outputs:
            self._copies_outputs = True
            run = self._forward_from_layers(xs, times)
        self._starts_at_layer = run is not None
        tracked = () if run else tuple(x.detach().requires_grad_() if torch.is_floating_point(x) else x for x in xs)
        run = run or self._forward_from_inputs(tracked, times)
        if run is None:
            pairs = zip(self.layers, self.reshapes, strict=True)
            self._per_layer = [replace(self, layers=[layer], reshapes=[reshape]) for layer, reshape in pairs]
            return self._gradients_by_layer(xs, score, times)
        recorder, output = run
        try:
            # Before the backward pass: activations that cannot be shown are rejected early.
            activations = self._spatial(recorder, len(xs[0]))
            scores = score(output)
            gradients, of_inputs = self._backward(scores, recorder, tracked if self.with_inputs else ())
        finally:
            recorder.release()
        return PassResult(output.detach(), scores.detach(), gradients, activations, of_inputs)

    def _gradients_by_layer(self, xs: tuple[Tensor, ...], score: Score, times: int) -> PassResult:
        results = [alone.gradients(xs, score, times) for alone in self._per_layer]
        return replace(
            results[0],
            gradients=[g for result in results for g in result.gradients],
            activations=[a for result in results for a in result.activations],
        )

    # -- forward -------------------------------------------------------------------------------------------

    def _forward_from_inputs(self, xs: tuple[Tensor, ...], times: int) -> tuple[Recorder, Tensor] | None:
        """Run a forward pass whose graph begins at the inputs, which require gradients; None where layers need passes of their own."""
        recorder = InputGraphRecorder(self.distinct, self.forward_func, inputs=self.layer_input)
        try:
            output = self._forward(recorder, xs, times)
        except RuntimeError as error:
            if "leaf Variable that requires grad is being used in an in-place operation" not in str(error):
                raise
            raise CaptumLeamError(
                f"Expected tensors with gradients at layer {self._names}, but one that the model detaches or makes under no_grad is "
                "changed in place later in the pass. Choose a layer before or after, or write y = relu(x) for relu_(x)."
            ) from error
        has_changed = recorder.has_changed_copies
        if recorder.has_nested_layers and (has_changed or not self.layer_input):
            recorder.release()
            return None
        if self._verifies_output and has_changed:
            try:
                self._check_output(output, xs, times)
            except BaseException:
                recorder.release()
                raise
        return recorder, output

    def _forward_from_layers(self, xs: tuple[Tensor, ...], times: int) -> tuple[Recorder, Tensor] | None:
        """Run a forward pass that keeps nothing of what comes before the first layer; None where this is not possible."""
        recorder = LayerGraphRecorder(self.distinct, self.forward_func, copies=self._copies_outputs)
        try:
            with torch.no_grad():
                output = self._forward(recorder, xs, times)
                # A model that sets the gradient mode around a layer has switched it off again.
                is_complete = torch.is_grad_enabled() and not recorder.has_aliases
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            # A model that takes or hooks gradients before the layers itself needs a graph there, too.
            return None
        return (recorder, output) if is_complete else None

    def _forward(self, recorder: Recorder, xs: Sequence[Tensor], times: int) -> Tensor:
        args = repeat_args(self.args, times, len(xs[0]) // times)
        with recorder:
            with check_forward_is_deterministic(self.forward_func, self.distinct):
                returned = self.forward_func(
                    *[x.clone() for x in xs], *args
                )  # models may work in place on their inputs
            return as_output(returned, len(xs[0]))

    def _check_output(self, output: Tensor, xs: tuple[Tensor, ...], times: int) -> None:
        """Check once that recording layers which work in place on shared tensors does not change what the model computes."""
        self._verifies_output = False
        args = repeat_args(self.args, times, len(xs[0]) // times)
        with torch.no_grad():
            alone = as_output(self.forward_func(*[x.clone() for x in xs], *args), len(xs[0]))
        distance = torch.linalg.vector_norm(output.detach() - alone)
        raise_if_any(
            (distance > noise_floor(alone) * torch.linalg.vector_norm(alone))[None],
            lambda _: (
                f"Expected the model to compute the same with layer {self._names} recorded, but a tensor there is changed in place and "
                "used elsewhere. Choose a layer before or after, or write y = torch.relu(x) for torch.relu_(x) in the model."
            ),
        )

    # -- backward ------------------------------------------------------------------------------------------

    def _backward(
        self, scores: Tensor, recorder: Recorder, inputs: tuple[Tensor, ...]
    ) -> tuple[PerLayer, tuple[Tensor, ...]]:
        """Return the gradients of the sum of the scores by layers and inputs; zeros for an unused tensor beside others that are used."""
        kept = [*(t for layer in self.distinct for run in recorder.runs[layer] for t in run), *inputs]
        gradients: Sequence[Tensor | None] = [None] * len(kept)
        if scores.requires_grad:
            try:
                gradients = differentiate(scores.sum(), kept, **{"allow_unused": True, **self.grad_kwargs})
            except RuntimeError as error:
                if is_out_of_memory(error) or isinstance(error, getattr(torch, "AcceleratorError", ())):
                    raise
                raise RuntimeError(
                    f"The backward pass from the score to layer {self._names} failed: {error}"
                ) from error
        gradient_of = dict(zip(map(id, kept), gradients, strict=True))
        found: PerLayer = []
        for layer, reshape in zip(self.layers, self.reshapes, strict=True):
            runs = recorder.runs_of(layer, self.device_ids)
            if all(gradient_of[id(t)] is None for run in runs for t in run):
                raise CaptumLeamError(
                    f"Expected the score to depend on layer {layer_name(layer, self.forward_func)} through differentiable operations, got "
                    "no gradient. The layer is on a branch that does not reach the embedding, or the forward function detaches or leaves "
                    "torch (numpy, no_grad) after it."
                )
            filled = [
                tuple(torch.zeros_like(t) if (g := gradient_of[id(t)]) is None else g for t in run) for run in runs
            ]
            found.append(tuple(g if reshape is None else reshape(g) for g in _join(filled)))
        of_inputs = tuple(torch.zeros_like(x) if (g := gradient_of[id(x)]) is None else g.detach() for x in inputs)
        return found, of_inputs

    def _spatial(self, recorder: Recorder, images: int) -> PerLayer:
        """Return the recorded tensors as (N, C, h, w)."""
        found: PerLayer = []
        for layer, reshape in zip(self.layers, self.reshapes, strict=True):
            tensors = _join(recorder.runs_of(layer, self.device_ids))
            name = partial(layer_name, layer, self.forward_func)
            found.append(tuple(as_spatial(t.detach(), name, images, self.image_size, reshape) for t in tensors))
        return found

    @property
    def _names(self) -> str:
        return ", ".join(dict.fromkeys(self.names))


def _returns_its_input(layer: nn.Module) -> bool:
    """Return whether a layer's output is, at sight, the tensor that it took in."""
    return isinstance(layer, nn.Identity | nn.modules.dropout._DropoutNd) or bool(getattr(layer, "inplace", False))


def _works_in_place(forward_func: Callable[..., Any]) -> bool:
    """Return whether a visible module changes its input, so that outputs of layers before it are to be copied from the start."""
    return any(getattr(m, "inplace", False) for root in modules_behind(forward_func) for m in root.modules())


def _join(runs: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Return the tensors of runs on several devices (``DataParallel``) as those of one run, on the first device."""
    if len(runs) == 1:
        return runs[0]
    return tuple(torch.cat([t.to(ts[0].device) for t in ts]) for ts in zip(*runs, strict=True))
