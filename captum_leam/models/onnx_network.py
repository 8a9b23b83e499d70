"""Convert ONNX graphs to PyTorch modules, with operations that process the images of a batch separately."""

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
from captum_leam.models.onnx_graph import convert_operators, operator_set, simplify_nodes
from captum_leam.models.onnx_runtime import first_line

if TYPE_CHECKING:
    from onnx import ModelProto

OPERATOR_SETS = (18, 17, 16, 15, 14, 13, 11)
"""Versions that are tried if the converter does not support that of the file, first the older ones, then the newer ones."""

CLOSE = 1e-3  # share of the largest value by which rounding differs between a single image and a batch

Layout = Literal["constant", "rows", "stack"]
"""Position of the images in a value: none, as rows of the first axis, or on an additional first axis."""


def convert(model: "ModelProto") -> fx.GraphModule:
    """Convert a graph with onnx2torch, in the first version of the operator set that it supports.

    Args:
        model: Model whose weights are initializers.

    Returns:
        Converted network with nested layers.

    Raises:
        CaptumLeamError: If the graph cannot be converted in any version.
    """
    converter = import_optional("onnx2torch")
    own, reasons = operator_set(model), []
    older, newer = [v for v in OPERATOR_SETS if v < own], [v for v in reversed(OPERATOR_SETS) if v > own]
    for version in [own, *older, *newer]:
        try:
            candidate = model if version == own else convert_operators(model, version)
            simplify_nodes(candidate)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return _nest_layers(converter.convert(candidate))
        except (
            Exception
        ) as error:  # converters raise exceptions of any type for unknown operators, attributes and shapes
            reasons.append(f"operator set {version}: {first_line(error)}")
    raise CaptumLeamError(
        f"this network cannot be converted to PyTorch ({reasons[0]}). Export it with opset_version=17, use the original PyTorch network, "
        "or, for scores and faithfulness only, a BlackBox around an ONNX Runtime session."
    )


def _nest_layers(converted: fx.GraphModule) -> fx.GraphModule:
    """Nest the layers of a network by name, so that ``stages/0/body`` of onnx2torch becomes ``stages.0.body``."""
    for node in [node for node in converted.graph.nodes if node.op == "call_module"]:
        module = converted.get_submodule(node.target)
        if type(module).__name__ == "OnnxSlice":
            module = Slice()
        if isinstance(module, nn.LayerNorm):
            # onnx2torch uses the inferred shapes, in which an axis may be unknown.
            module.normalized_shape = tuple(module.weight.shape)
        node.target = node.target.replace("/", ".")
        converted.add_submodule(node.target, module)
    converted.delete_all_unused_submodules()
    converted.recompile()
    return converted


class Slice(nn.Module):
    """Slice operator of ONNX.

    It replaces that of onnx2torch, which lacks negative steps and indexes with lists, which is deprecated in PyTorch.

    Example:
        >>> Slice()(torch.arange(6), torch.tensor([-2]), torch.tensor([99])).tolist()
        [4, 5]
        >>> Slice()(torch.arange(4), torch.tensor([-1]), torch.tensor([-99]), steps=torch.tensor([-1])).tolist()
        [3, 2, 1, 0]
    """

    def forward(
        self, x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None, steps: Tensor | None = None
    ) -> Tensor:
        """Return the elements of ``x`` from ``starts`` to ``ends`` in ``steps`` along ``axes``.

        Args:
            x: Tensor to slice.
            starts: Index of the first element for each axis.
            ends: Index after the last element for each axis.
            axes: Axes to slice. Default: the first axes.
            steps: Step for each axis, which may be negative. Default: 1.
        """
        step_list = [1] * len(starts) if steps is None else steps.tolist()
        axis_list = range(len(starts)) if axes is None else axes.tolist()
        for axis, start, end, step in zip(axis_list, starts.tolist(), ends.tolist(), step_list, strict=True):
            indices, last = range(x.shape[axis])[start:end:step], x.shape[axis] - 1
            if step < 0:  # tensors do not support slices with negative steps
                x, indices = x.flip(axis), range(last - indices.start, last - indices.stop, -step)
            x = x[(slice(None),) * (axis % x.ndim) + (slice(indices.start, indices.stop, indices.step),)]
        return x


def flatten_output(network: fx.GraphModule) -> None:
    """Flatten the output of a network to rows (N, D). The network is modified in place.

    Args:
        network: Network of :func:`convert`.
    """
    output = next(node for node in reversed(network.graph.nodes) if node.op == "output")
    network.add_submodule("to_rows", nn.Flatten())
    with network.graph.inserting_before(output):
        output.args = (network.graph.call_module("to_rows", (output.args[0],)),)
    network.recompile()


# -- separate images -----------------------------------------------------------------------------------


class PerImage(nn.Module):
    """Operation that processes one image at a time.

    Exporters that trace a network with a batch of one image write that batch size into the graph, for example as a Reshape to (1, 512),
    a Squeeze of all axes, or a class token of one row. Such an operation fails on larger batches or mixes their images.

    Args:
        operation: Module for one image.
        args: Layout of each positional input.
        kwargs: Layout of each named input.
        output: Layout of the output, ``"rows"`` or ``"stack"``.
        copies: Batch size of the operation, which is filled with copies of the image. Default: 1.

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
        """Return the joint result of the operation on each image."""
        layouts = [*self.args, *(self.kwargs[name] for name in kwargs)]
        inputs = [split_images(*pair, self.copies) for pair in zip((*args, *kwargs.values()), layouts, strict=True)]
        results = []
        for values in zip(*inputs, strict=False):  # constants repeat indefinitely
            named = dict(zip(kwargs, values[len(args) :], strict=True))
            # `forward` bypasses hooks, because hooks must see one run per batch.
            results.append(self.operation.forward(*values[: len(args)], **named))
        return join_images(results, self.output)


def split_images(value: Any, layout: Layout, copies: int = 1) -> Iterable[Any]:
    """Return the value of each image, as an operation on a single image expects it.

    Args:
        value: Value of a batch.
        layout: Position of the images in the value.
        copies: Number of copies of each image in the layout ``"rows"``. Default: 1.

    Returns:
        Values of the images, or the same value indefinitely for the layout ``"constant"``.

    Example:
        >>> [image.tolist() for image in split_images(torch.tensor([[1], [2]]), "rows", copies=2)]
        [[[1], [1]], [[2], [2]]]
        >>> [image.tolist() for image in split_images(torch.tensor([[1], [2]]), "stack")]
        [[1], [2]]
    """
    if layout == "constant":
        return repeat(value)
    if layout == "stack":
        return tuple(value.unbind())
    return [row.expand(copies, *value.shape[1:]) for row in value.split(1)]


def join_images(values: list[Any], layout: Layout) -> Any:
    """Return the value of a batch from those of its images, as the inverse of :func:`split_images`.

    Args:
        values: Value of each image, a tensor or a tuple of tensors.
        layout: Position of the images in the result.

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


def separate_images(network: fx.GraphModule, pictures: Tensor, copies: int = 1) -> None:
    """Let operations that are fixed to the batch size of the export process one image at a time.

    Each operation is run on single pictures and on all of them. If the results differ, it is replaced by a :class:`PerImage`, and so are
    the following operations until the images are rows again. The network is modified in place.

    Args:
        network: Network of :func:`convert`.
        pictures: Two or more different pictures, as the network reads them.
        copies: Batch size of the file. Default: 1.
    """
    values: dict[fx.Node, _Value] = {}
    for node in network.graph.nodes:
        if node.op == "placeholder":
            values[node] = _Value(list(split_images(pictures, "rows", copies)), "rows")
        elif node.op == "get_attr":
            values[node] = _Value([attrgetter(node.target)(network)] * len(pictures), "constant")
        elif node.op == "call_function":  # getitem on a node with several outputs
            source, index = node.args
            values[node] = _Value([value[index] for value in values[source].images], values[source].layout)
        elif node.op == "call_module":
            module = network.get_submodule(node.target)
            values[node] = _compute_separately(module, node, values, copies)
            if not _is_equal_in_batch(module, node, values):
                args = [values[source].layout for source in node.args]
                kwargs = {name: values[source].layout for name, source in node.kwargs.items()}
                network.add_submodule(node.target, PerImage(module, args, kwargs, values[node].layout, copies))


@dataclass(frozen=True)
class _Value:
    images: list[Any]  # value of each picture
    layout: Layout

    def join(self, count: int) -> Any:
        return join_images(self.images[:count], self.layout)


def _call(module: nn.Module, node: fx.Node, values: Mapping[fx.Node, Any]) -> Any:
    return module(*fx.map_arg(node.args, values.__getitem__), **fx.map_arg(node.kwargs, values.__getitem__))


def _compute_separately(module: nn.Module, node: fx.Node, values: Mapping[fx.Node, _Value], copies: int) -> _Value:
    inputs = node.all_input_nodes
    count = len(next(iter(values.values())).images)
    outputs = [_call(module, node, {source: values[source].images[i] for source in inputs}) for i in range(count)]
    if all(values[source].layout == "constant" for source in inputs):
        return _Value(outputs, "constant")
    return _Value(outputs, "rows" if all(_is_row(output, copies) for output in outputs) else "stack")


def _is_row(value: Any, copies: int) -> bool:
    """Return whether the first axis of an image's value is the batch, with equal rows for all copies of the image."""
    if isinstance(value, tuple | list):
        return all(_is_row(part, copies) for part in value)
    return bool(value.ndim and len(value) == copies and _is_close(value, value[:1].expand_as(value)))


def _is_equal_in_batch(module: nn.Module, node: fx.Node, values: Mapping[fx.Node, _Value]) -> bool:
    """Return whether an operation has the same results on batches of one and of all pictures as on single pictures."""
    layouts = {values[source].layout for source in (node, *node.all_input_nodes)}
    if "stack" in layouts or layouts == {"constant"}:
        return "stack" not in layouts
    for count in (1, len(values[node].images)):
        try:
            output = _call(module, node, {source: values[source].join(count) for source in node.all_input_nodes})
        except Exception:  # operations raise exceptions of any type for shapes that do not fit
            return False
        if not _is_close(output, values[node].join(count)):
            return False
    return True


def _is_close(value: Any, expected: Any) -> bool:
    if isinstance(expected, tuple | list):
        return all(_is_close(part, expected_part) for part, expected_part in zip(value, expected, strict=True))
    if value.shape != expected.shape:
        return False
    finite = expected[expected.isfinite()]  # attention masks contain -inf
    tolerance = CLOSE * float(finite.abs().max()) if finite.is_floating_point() and finite.numel() else 0.0
    return torch.allclose(value, expected, rtol=0, atol=tolerance, equal_nan=True)
