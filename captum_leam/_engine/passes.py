"""Running a model with layers recorded: activations, and gradients of an objective, of all layers in one pass."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from captum_leam._engine.captum_adapter import repeat_args
from captum_leam._engine.checks import refuse
from captum_leam._engine.guards import sober
from captum_leam._engine.memory import is_out_of_memory
from captum_leam._engine.modes import differentiate
from captum_leam._engine.modules import layer_name
from captum_leam._engine.outputs import as_output, vanishing
from captum_leam._engine.probe import ProbeRecord
from captum_leam._engine.recording import Graph, gather_runs, record, switch_back
from captum_leam._engine.shapes import Reshape, spatial
from captum_leam.errors import CaptumLeamError
from captum_leam.objectives import EmbeddingSimilarity

# Of every layer, of every tensor it puts out.
PerLayer = list[tuple[Tensor, ...]]

# Of every layer, run after run (one, or one per device).
Runs = dict[nn.Module, list[tuple[Tensor, ...]]]

# Outputs of the forward function, embeddings or scores, to one score per image.
Objective = Callable[[Tensor], Tensor]

T = TypeVar("T")


class _NestedLayers(Exception):  # noqa: N818 (never leaves this file)
    """A layer hands on, or works in place on, the copy that was made for another one: it would miss what is used beside that."""


@dataclass
class LayerPasses:
    """A forward function and the layers to record while it runs.

    Attributes:
        forward_func: returns embeddings (N, D) or scores (N,).
        layers: modules; one may stand in the list twice.
        args: additional forward arguments.
        layer_input: record what layers take in rather than what they put out.
        reshapes: one per layer, None where its output is (N, C, h, w).
        image_size: (H, W) of the images, to tell channels-last layers; None for other inputs.
        device_ids: of a ``DataParallel`` model.
        grad_kwargs: more arguments for ``torch.autograd.grad``.
    """

    forward_func: Callable[..., Any]
    layers: Sequence[nn.Module]
    args: tuple[Any, ...] = ()
    layer_input: bool = False
    reshapes: Sequence[Reshape | None] = ()
    image_size: tuple[int, ...] | None = None
    device_ids: list[int] | None = None
    grad_kwargs: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.reshapes = self.reshapes or [None] * len(self.layers)
        self.distinct = list(dict.fromkeys(self.layers))
        self.names = {layer: layer_name(layer, self.forward_func) for layer in self.distinct}
        # what comes before the first layer needs no graph, but where a layer's tensor may be used beside it
        self.cut = not self.layer_input and not any(map(_hands_on, self.distinct))
        self.whole = True  # whether it is still to be seen that recording leaves the model's output as it is
        self.shared = False  # whether that was so; known after a pass
        self.tuples: dict[nn.Module, bool] = {}  # whether a layer puts out several tensors; known after a pass
        self.scores = torch.empty(0, device="cpu", dtype=torch.float32)  # of the last pass with gradients
        self.returns_embeddings = False  # or scores; known after a pass
        self.switched: list[Tensor] = []  # tensors that are not ours and need gradients for the length of a pass
        self.probe_record: ProbeRecord | None = None  # to compare with the next batch
        self.apart: list[LayerPasses] = []  # one for each layer, where they cannot be recorded in one pass

    def of_embeddings(self) -> "LayerPasses":
        """Return the same for the model within an objective, whose references may be of one batch size only."""
        if not isinstance(self.forward_func, EmbeddingSimilarity):
            return self
        return replace(self, forward_func=self.forward_func.model, args=self.args[1:])

    def for_rows(self, images: Sequence[int], count: int) -> "LayerPasses":
        """Return the same for other batches, made of the caller's images of these numbers.

        Args:
            images: Numbers of images, one for each row of the batches to come.
            count: The caller's number of images. Additional arguments with as many rows are taken row by row.
        """
        rows = list(images)
        taken = [arg[rows] if isinstance(arg, Tensor) and arg.ndim and len(arg) == count else arg for arg in self.args]
        return replace(self, args=tuple(taken))

    def activations(self, xs: tuple[Tensor, ...]) -> tuple[Tensor, PerLayer]:
        """Forward only: the output, and the activations of every layer as (N, C, h, w)."""

        def together() -> tuple[Tensor, PerLayer]:
            with torch.no_grad():
                output, runs = self._forward(xs, 1, "as it is")
                activations = self._spatial(runs, len(xs[0]))
                self._compare_with_probe(xs, output, activations)
                return output, activations

        found = self._together_or_apart(together, lambda alone: alone.activations(xs))
        return found[0][0], [tensors for _, of_layers in found for tensors in of_layers]

    def gradients(self, xs: tuple[Tensor, ...], objective: Objective, times: int = 1) -> tuple[PerLayer, PerLayer]:
        """Forward and backward: gradients and activations of every layer, as (N, C, h, w).

        Args:
            xs: inputs, ``times`` batches one after the other.
            objective: of the output.
            times: how often additional arguments with one row per image are repeated along.
        """
        found = self._together_or_apart(
            lambda: self._gradients(xs, objective, times), lambda alone: alone.gradients(xs, objective, times)
        )
        gradients, activations = zip(*found, strict=True)
        return [g for of_layers in gradients for g in of_layers], [a for of_layers in activations for a in of_layers]

    def _together_or_apart(self, together: Callable[[], T], of_one: Callable[["LayerPasses"], T]) -> list[T]:
        """All layers in one pass; or, where one hands on what another does, and works on, each in a pass of its own."""
        try:
            if not self.apart:
                return [together()]
        except _NestedLayers:
            pairs = zip(self.layers, self.reshapes, strict=True)
            self.apart = [replace(self, layers=[layer], reshapes=[reshape]) for layer, reshape in pairs]
        finally:
            switch_back(self.switched)
        found = [of_one(alone) for alone in self.apart]
        self.scores, self.returns_embeddings = self.apart[0].scores, self.apart[0].returns_embeddings
        self.tuples = {layer: is_tuple for alone in self.apart for layer, is_tuple in alone.tuples.items()}
        return found

    def _gradients(self, xs: tuple[Tensor, ...], objective: Objective, times: int) -> tuple[PerLayer, PerLayer]:
        output, runs = self._forward_with_graph(xs, times)
        activations = self._spatial(runs, len(xs[0]))  # before the backward pass: what cannot be shown is refused early
        self._compare_with_probe(xs, output, activations)
        kept = [t for run in self._tensors(runs) for t in run]
        score = objective(output)
        self.scores, self.returns_embeddings = score.detach(), output.ndim > 1
        found = dict(zip(map(id, kept), self._backward(score, kept), strict=True))
        for layer in self.distinct:
            if all(found[id(t)] is None for run in runs[layer] for t in run):
                raise CaptumLeamError(
                    f"the score does not depend on layer {self.names[layer]} through differentiable operations: it is on a branch "
                    "that does not reach the embedding, or the forward function detaches or leaves torch (numpy, no_grad) after it."
                )
        # of several tensors that a layer puts out, one may not be used: zeros
        filled = {
            layer: [tuple(torch.zeros_like(t) if (g := found[id(t)]) is None else g for t in run) for run in of_layer]
            for layer, of_layer in runs.items()
        }
        return self._rearranged(filled), activations

    def _forward_with_graph(self, xs: tuple[Tensor, ...], times: int) -> tuple[Tensor, Runs]:
        """A forward pass that keeps nothing of what comes before the first layer, where the layers and the model allow it."""
        if self.cut:
            found = self._forward_from_the_layers(xs, times)
            if self.cut:
                return found
        try:
            return self._forward(tuple(map(_tracked, xs)), times, "from the inputs")
        except RuntimeError as error:
            if "leaf Variable that requires grad is being used in an in-place operation" not in str(error):
                raise
            raise CaptumLeamError(
                f"a tensor of layer {', '.join(self.names.values())} is changed in place later in the pass, and has no gradient: the "
                "model makes it under no_grad or detaches it. Choose a layer before or after, or write y = relu(x) for relu_(x)."
            ) from error

    def _forward_from_the_layers(self, xs: tuple[Tensor, ...], times: int) -> tuple[Tensor, Runs]:
        found = torch.empty(0, device="cpu", dtype=torch.float32), Runs()
        try:
            with torch.no_grad():
                found = self._forward(xs, times, "from the layers")
                # a model that sets the gradient mode around a layer has switched it off again: one more pass, without the saving
                self.cut = torch.is_grad_enabled() and not self.shared
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            # a model that takes or hooks gradients before the layers itself needs a graph there, too
            self.cut = False
        return found

    def _forward(self, xs: tuple[Tensor, ...], times: int, graph: Graph) -> tuple[Tensor, Runs]:
        forward = self.forward_func
        names, inputs = list(self.names.values()), self.layer_input
        with record(self.distinct, names, inputs=inputs, graph=graph, switched=self.switched) as recordings:
            with sober(forward, self.distinct):
                # copies: models may work in place on what they are given
                returned = forward(*[x.clone() for x in xs], *self._args(xs, times))
            output = as_output(returned, len(xs[0]))
            forked = any(r.forks for r in recordings)
            if any(r.is_nested for r in recordings) and (forked or not inputs):
                raise _NestedLayers
        if self.whole and forked:
            self._check_unforked(output, xs, times)
        self.tuples = {layer: r.is_tuple for layer, r in zip(self.distinct, recordings, strict=True)}
        self.shared = any(r.is_shared for r in recordings)
        pairs = zip(self.distinct, recordings, strict=True)
        return output, {layer: gather_runs(r, layer, forward, self.device_ids) for layer, r in pairs}

    def _check_unforked(self, output: Tensor, xs: tuple[Tensor, ...], times: int) -> None:
        """Once: that recording does not change what the model computes, where layers work in place on what is also used beside them."""
        self.whole = False
        with torch.no_grad():
            alone = as_output(self.forward_func(*[x.clone() for x in xs], *self._args(xs, times)), len(xs[0]))
        distance = torch.linalg.vector_norm(output.detach() - alone)
        refuse(
            (distance > vanishing(alone) * torch.linalg.vector_norm(alone))[None],
            lambda _: (
                f"recording layer {', '.join(self.names.values())} changes what the model computes: a tensor there is changed in place and "
                "used beside it. Choose a layer before or after, or write y = torch.relu(x) for torch.relu_(x) in the model."
            ),
        )

    def _compare_with_probe(self, xs: tuple[Tensor, ...], output: Tensor, activations: PerLayer) -> None:
        """Raise, once, if an image has other results in a batch of three or more than in the probe."""
        record, self.probe_record = self.probe_record, None
        if record is not None and len(xs[0]) > 2:
            record.compare(xs, [output, *(t for of_layer in activations for t in of_layer)])

    def _args(self, xs: tuple[Tensor, ...], times: int) -> tuple[Any, ...]:
        return repeat_args(self.args, times, len(xs[0]) // times)

    def _backward(self, score: Tensor, kept: Sequence[Tensor]) -> Sequence[Tensor | None]:
        if not score.requires_grad:
            return [None] * len(kept)
        try:
            return differentiate(score.sum(), kept, **{"allow_unused": True, **self.grad_kwargs})
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            names = ", ".join(self.names.values())
            raise RuntimeError(f"the backward pass from the score to layer {names} failed: {error}") from error

    def _tensors(self, runs: Runs) -> Iterator[tuple[Tensor, ...]]:
        for layer in self.distinct:
            yield from runs[layer]

    def _rearranged(self, runs: Runs) -> PerLayer:
        pairs = zip(self.layers, self.reshapes, strict=True)
        return [tuple(t if r is None else r(t) for t in _join(runs[layer])) for layer, r in pairs]

    def _spatial(self, runs: Runs, images: int) -> PerLayer:
        pairs = zip(self.layers, self.reshapes, strict=True)
        return [
            tuple(spatial(t, self.names[layer], images, self.image_size, r) for t in _join(runs[layer]))
            for layer, r in pairs
        ]


def _hands_on(layer: nn.Module) -> bool:
    """Whether a layer's output is, at sight, the tensor that it took in."""
    return isinstance(layer, nn.Identity | nn.modules.dropout._DropoutNd) or bool(getattr(layer, "inplace", False))


def _tracked(x: Tensor) -> Tensor:
    """Inputs that all that is computed from them is tracked from."""
    return x.detach().requires_grad_() if torch.is_floating_point(x) else x


def _join(runs: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Runs on several devices (DataParallel) in batch order, on the first device."""
    if len(runs) == 1:
        return runs[0]
    return tuple(torch.cat([t.to(ts[0].device) for t in ts]) for ts in zip(*runs, strict=True))
