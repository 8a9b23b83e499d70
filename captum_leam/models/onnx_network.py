"""PyTorch modules of an ONNX graph: conversion, and operations that keep the images of a batch apart."""

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import repeat
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, fx, nn

from captum_leam._optional import import_optional
from captum_leam.errors import CaptumLeamError
from captum_leam.models.onnx_graph import convert_operators, operator_set, plain_nodes
from captum_leam.models.onnx_runtime import first_line

if TYPE_CHECKING:
    from onnx import ModelProto

# Tried where the file's own operator set is refused: the older ones first, then the newer ones.
OPERATOR_SETS = (18, 17, 16, 15, 14, 13, 11)
CLOSE = 1e-3  # of the largest value: rounding differs between an image alone and in a batch

Layout = Literal["constant", "rows", "stack"]
"""Where a value has its images: nowhere, in rows along the first axis, or on an axis of their own in front."""


def convert(model: "ModelProto") -> fx.GraphModule:
    """Convert a graph by onnx2torch, in the first operator set that it accepts.

    Args:
        model: Model whose weights are initializers.

    Raises:
        CaptumLeamError: If no operator set can be converted.
    """
    converter = import_optional("onnx2torch")
    own, reasons = operator_set(model), []
    older, newer = [v for v in OPERATOR_SETS if v < own], [v for v in reversed(OPERATOR_SETS) if v > own]
    for version in [own, *older, *newer]:
        try:
            candidate = model if version == own else convert_operators(model, version)
            plain_nodes(candidate)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return _nested(converter.convert(candidate))
        except Exception as error:  # unknown operators, attributes, shapes: each converter in its own way
            reasons.append(f"operator set {version}: {first_line(error)}")
    raise CaptumLeamError(
        f"this network cannot be converted to PyTorch. {reasons[0]}. Export it anew with opset_version=17, or use the original "
        "PyTorch network. Scores and faithfulness alone: BlackBox around an onnxruntime session."
    )


def _nested(converted: fx.GraphModule) -> fx.GraphModule:
    """Nest the layers of a network by name: onnx2torch's ``stages/0/body`` becomes ``stages.0.body``."""
    for node in [node for node in converted.graph.nodes if node.op == "call_module"]:
        module = converted.get_submodule(node.target)
        if type(module).__name__ == "OnnxSlice":
            module = Slice()
        if isinstance(
            module, nn.LayerNorm
        ):  # onnx2torch reads it off the inferred shapes, where an axis may be unknown
            module.normalized_shape = tuple(module.weight.shape)
        node.target = node.target.replace("/", ".")
        converted.add_submodule(node.target, module)
    converted.delete_all_unused_submodules()
    converted.recompile()
    return converted


class Slice(nn.Module):
    """ONNX's Slice: onnx2torch indexes with lists, of which PyTorch warns, and has no negative steps.

    Example:
        >>> Slice()(torch.arange(6), torch.tensor([-2]), torch.tensor([99])).tolist()
        [4, 5]
        >>> Slice()(torch.arange(4), torch.tensor([-1]), torch.tensor([-99]), steps=torch.tensor([-1])).tolist()
        [3, 2, 1, 0]
    """

    def forward(
        self, x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None, steps: Tensor | None = None
    ) -> Tensor:
        """Return the part of ``x`` from ``starts`` to ``ends``, by ``steps``, along ``axes``. Default: the first axes."""
        every = [1] * len(starts) if steps is None else steps.tolist()
        where = range(len(starts)) if axes is None else axes.tolist()
        for axis, start, end, step in zip(where, starts.tolist(), ends.tolist(), every, strict=True):
            kept, last = range(x.shape[axis])[start:end:step], x.shape[axis] - 1
            if step < 0:  # tensors have no backward slices
                x, kept = x.flip(axis), range(last - kept.start, last - kept.stop, -step)
            x = x[(slice(None),) * (axis % x.ndim) + (slice(kept.start, kept.stop, kept.step),)]
        return x


def flatten_output(network: fx.GraphModule) -> None:
    """Let the network return rows (N, D) where it ends with further axes. Changes the network."""
    output = next(node for node in reversed(network.graph.nodes) if node.op == "output")
    network.add_submodule("to_rows", nn.Flatten())
    with network.graph.inserting_before(output):
        output.args = (network.graph.call_module("to_rows", (output.args[0],)),)
    network.recompile()


# -- images kept apart ---------------------------------------------------------------------------------


class PerImage(nn.Module):
    """An operation that computes one image at a time, as the file was exported.

    Exporters that trace a network with a batch of one write that batch into the graph: a Reshape to (1, 512), a Squeeze of all axes,
    a class token of one row. In a batch of several such an operation mixes images or fails.

    Args:
        operation: Module for one image.
        args: Layout of each positional input.
        kwargs: Layout of each named input.
        output: Layout of the output: "rows" or "stack".
        copies: Length of the first axis that the operation is fixed to, which is filled with copies of the image.

    Example:
        >>> squeeze = PerImage(nn.Flatten(0), ["rows"], {}, "stack")
        >>> squeeze(torch.zeros(5, 4, 1, 1)).shape
        torch.Size([5, 4])
    """

    def __init__(
        self,
        operation: nn.Module,
        args: list[Layout],
        kwargs: Mapping[str, Layout],
        output: Layout,
        copies: int = 1,
    ) -> None:
        super().__init__()
        self.operation = operation
        self.args = args
        self.kwargs = kwargs
        self.output = output
        self.copies = copies

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute every image alone, and join the results."""
        layouts = [*self.args, *(self.kwargs[name] for name in kwargs)]
        inputs = [split_images(*pair, self.copies) for pair in zip((*args, *kwargs.values()), layouts, strict=True)]
        results = []
        for values in zip(*inputs, strict=False):  # constants repeat without end
            named = dict(zip(kwargs, values[len(args) :], strict=True))
            results.append(self.operation.forward(*values[: len(args)], **named))  # unhooked: it is no layer of its own
        return join_images(results, self.output)


def split_images(value: Any, layout: Layout, copies: int = 1) -> Iterable[Any]:
    """Return the value of each image, as an operation on one image gets it.

    Example:
        >>> [one.tolist() for one in split_images(torch.tensor([[1], [2]]), "rows", copies=2)]
        [[[1], [1]], [[2], [2]]]
        >>> [one.tolist() for one in split_images(torch.tensor([[1], [2]]), "stack")]
        [[1], [2]]
    """
    if layout == "constant":
        return repeat(value)
    if layout == "stack":
        return tuple(value.unbind())
    return [row.expand(copies, *value.shape[1:]) for row in value.split(1)]


def join_images(values: list[Any], layout: Layout) -> Any:
    """Return the values of all images as one: the inverse of :func:`split_images`.

    Example:
        >>> join_images([torch.tensor([[1]]), torch.tensor([[2]])], "rows").tolist()
        [[1], [2]]
        >>> join_images([torch.tensor(1), torch.tensor(2)], "stack").tolist()
        [1, 2]
    """
    if layout == "constant":
        return values[0]
    if isinstance(values[0], tuple | list):
        return tuple(join_images(list(parts), layout) for parts in zip(*values, strict=True))
    return torch.stack(values) if layout == "stack" else torch.cat([value[:1] for value in values])


def keep_images_apart(network: fx.GraphModule, pictures: Tensor, copies: int = 1) -> None:
    """Let operations that are fixed to the batch of the export compute one image at a time. Changes the network.

    Every operation is run on each picture alone and on all of them. Where the results differ, the operation becomes a
    :class:`PerImage`; so do the operations behind it until images are in rows again.

    Args:
        network: Network of :func:`convert`.
        pictures: Two or more different ones, as the network reads them.
        copies: Batch that the file declares.
    """
    values: dict[fx.Node, _Value] = {}
    for node in network.graph.nodes:
        if node.op == "placeholder":
            values[node] = _Value(list(split_images(pictures, "rows", copies)), "rows")
        elif node.op == "get_attr":
            values[node] = _Value([attrgetter(node.target)(network)] * len(pictures), "constant")
        elif node.op == "call_function":  # one output of several
            parts, number = node.args
            values[node] = _Value([value[number] for value in values[parts].alone], values[parts].layout)
        elif node.op == "call_module":
            module = network.get_submodule(node.target)
            values[node] = _compute_alone(module, node, values, copies)
            if not _computes_in_batch(module, node, values):
                args = [values[source].layout for source in node.args]
                kwargs = {name: values[source].layout for name, source in node.kwargs.items()}
                network.add_submodule(node.target, PerImage(module, args, kwargs, values[node].layout, copies))


@dataclass(frozen=True)
class _Value:
    alone: list[Any]  # one for each picture
    layout: Layout

    def joined(self, count: int) -> Any:
        return join_images(self.alone[:count], self.layout)


def _call(module: nn.Module, node: fx.Node, values: Mapping[fx.Node, Any]) -> Any:
    return module(*fx.map_arg(node.args, values.__getitem__), **fx.map_arg(node.kwargs, values.__getitem__))


def _compute_alone(module: nn.Module, node: fx.Node, values: Mapping[fx.Node, _Value], copies: int) -> _Value:
    inputs = node.all_input_nodes
    count = len(next(iter(values.values())).alone)
    alone = [_call(module, node, {source: values[source].alone[i] for source in inputs}) for i in range(count)]
    if all(values[source].layout == "constant" for source in inputs):
        return _Value(alone, "constant")
    return _Value(alone, "rows" if all(_has_row(value, copies) for value in alone) else "stack")


def _has_row(value: Any, copies: int) -> bool:
    """Whether the first axis is the batch: as long as that, with one row for all copies of the image."""
    if isinstance(value, tuple | list):
        return all(_has_row(part, copies) for part in value)
    return bool(value.ndim and len(value) == copies and _is_close(value, value[:1].expand_as(value)))


def _computes_in_batch(module: nn.Module, node: fx.Node, values: Mapping[fx.Node, _Value]) -> bool:
    """Whether the operation gives for batches of one and of all pictures what it gives for the pictures alone."""
    layouts = {values[source].layout for source in (node, *node.all_input_nodes)}
    if "stack" in layouts or layouts == {"constant"}:
        return "stack" not in layouts
    for count in (1, len(values[node].alone)):
        try:
            found = _call(module, node, {source: values[source].joined(count) for source in node.all_input_nodes})
        except Exception:  # shapes that do not fit raise whatever the operation raises
            return False
        if not _is_close(found, values[node].joined(count)):
            return False
    return True


def _is_close(found: Any, expected: Any) -> bool:
    if isinstance(expected, tuple | list):
        return all(_is_close(one, other) for one, other in zip(found, expected, strict=True))
    if found.shape != expected.shape:
        return False
    finite = expected[expected.isfinite()]  # masks of attention hold -inf
    allowed = CLOSE * float(finite.abs().max()) if finite.is_floating_point() and finite.numel() else 0.0
    return torch.allclose(found, expected, rtol=0, atol=allowed, equal_nan=True)
