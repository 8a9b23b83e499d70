"""Repair ONNX graphs before their conversion: constants, precision, names and operator versions."""

import re
from collections.abc import Iterable, Iterator, Sequence
from graphlib import CycleError, TopologicalSorter
from keyword import iskeyword
from typing import TYPE_CHECKING, Any

import numpy as np

from captum_leam.errors import CaptumLeamError
from captum_leam.models.onnx_runtime import Array, open_session, run

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

RANDOM_OPERATORS = ("Random", "Bernoulli", "Multinomial")  # prefixes of operators that draw random numbers
GENERATED_NAME = re.compile(r"^(onnx::|val_|\d)|^[A-Z]\w*_\d+$|^$")


def constants(model: "ModelProto") -> dict[str, Array]:
    """Return the initializers of a graph by name.

    Args:
        model: Model with its weights in memory.
    """
    from onnx import numpy_helper

    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def fold_constants(model: "ModelProto") -> None:
    """Replace values that do not depend on the input by initializers. The model is modified in place.

    Exporters write weights as Constant nodes, as float16 with a Cast, as integers with a scale, or once for several layers with
    Identity nodes. The converter expects them among the initializers.

    Args:
        model: Model with its weights in memory.

    Raises:
        CaptumLeamError: If ONNX Runtime cannot compute the values.
    """
    from onnx import numpy_helper

    constant_names = {tensor.name for tensor in model.graph.initializer}
    constant_nodes, other_nodes = [], []
    for node in model.graph.node:
        if _is_constant(node, constant_names):
            constant_names.update(node.output)
            constant_nodes.append(node)
        else:
            other_nodes.append(node)
    outputs = {name for node in constant_nodes for name in node.output}
    names = sorted(outputs & {name for node in other_nodes for name in node.input if name})
    values = _constant_values(model, constant_nodes, names)
    model.graph.initializer.extend(numpy_helper.from_array(values[name], name) for name in names)
    _replace(model.graph.node, other_nodes)
    inputs = {name for node in other_nodes for name in node.input}
    _replace(model.graph.initializer, [tensor for tensor in model.graph.initializer if tensor.name in inputs])


def _is_constant(node: "NodeProto", constant_names: set[str]) -> bool:
    is_random = node.op_type.startswith(RANDOM_OPERATORS)
    has_graph = any(attribute.HasField("g") for attribute in node.attribute)
    return not is_random and not has_graph and all(name in constant_names for name in node.input if name)


def _constant_values(model: "ModelProto", nodes: "list[NodeProto]", names: list[str]) -> dict[str, Array]:
    from onnx import ValueInfoProto, helper

    if not names:
        return {}
    inputs = {name for node in nodes for name in node.input}
    weights = [tensor for tensor in model.graph.initializer if tensor.name in inputs]
    graph = helper.make_graph(nodes, "constants", [], [ValueInfoProto(name=name) for name in names], weights)
    part = helper.make_model(
        graph, opset_imports=model.opset_import, functions=model.functions, ir_version=model.ir_version
    )
    return dict(zip(names, run(open_session(part), {}), strict=True))


def _replace(container: Any, items: Iterable[Any]) -> None:
    items = list(items)  # they may belong to the container that is cleared
    del container[:]
    container.extend(items)


def sort_nodes(model: "ModelProto") -> None:
    """Sort the nodes topologically, as the standard requires. The model is modified in place.

    Converters to float16 append the casts of inputs at the end. Graphs that are sorted or have a cycle are left unchanged.

    Args:
        model: Model to sort.
    """
    positions = {output: i for i, node in enumerate(model.graph.node) for output in node.output}
    sources = {
        i: {positions[name] for name in node.input if name in positions} for i, node in enumerate(model.graph.node)
    }
    if all(source < i for i, earlier in sources.items() for source in earlier):
        return
    try:
        order = list(TopologicalSorter(sources).static_order())
    except CycleError:  # the checker reports it
        return
    _replace(model.graph.node, [model.graph.node[i] for i in order])


def use_float32(model: "ModelProto") -> bool:
    """Convert weights, inputs and casts of other floating-point types to float32. The model is modified in place.

    Args:
        model: Model with its weights in memory.

    Returns:
        Whether the graph computed in half precision, whose weights are represented exactly.
    """
    from onnx import TensorProto, numpy_helper

    others, converted = {TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}, set()
    for tensor in all_tensors(model):
        if tensor.data_type in others:
            converted.add(tensor.data_type)
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    for attribute in (attribute for node in model.graph.node for attribute in node.attribute):
        if attribute.name in ("to", "dtype") and attribute.i in others:
            converted.add(attribute.i)
            attribute.i = TensorProto.FLOAT
    for value in (*model.graph.input, *model.graph.output):
        if value.type.tensor_type.elem_type in others:
            converted.add(value.type.tensor_type.elem_type)
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    del model.graph.value_info[:]  # the types in it are outdated
    return bool(converted - {TensorProto.DOUBLE})


def all_tensors(model: "ModelProto") -> "Iterator[TensorProto]":
    """Yield the initializers and the tensors in the attributes of nodes.

    Args:
        model: Model to search.
    """
    yield from model.graph.initializer
    yield from (a.t for node in model.graph.node for a in node.attribute if a.HasField("t"))


def keep_output(model: "ModelProto", name: str) -> None:
    """Make one value the only output, and remove the nodes that it does not depend on. The model is modified in place.

    Args:
        model: Model to cut.
        name: Name of the value.

    Raises:
        CaptumLeamError: If no node computes a value of this name.
    """
    from onnx import ValueInfoProto

    producers = {output: node for node in model.graph.node for output in node.output}
    if name not in producers:
        outputs = [output.name for output in model.graph.output]
        raise CaptumLeamError(f"expected output to be the name of a value, such as one of {outputs}, got {name!r}.")
    required, pending = set(), [name]
    while pending:
        node = producers.get(pending.pop())
        if node is not None and id(node) not in required:
            required.add(id(node))
            pending.extend(node.input)
    _replace(model.graph.node, [node for node in model.graph.node if id(node) in required])
    _replace(model.graph.output, [ValueInfoProto(name=name)])


def value_before_division(model: "ModelProto") -> str | None:
    """Return the name of the value that the graph finally divides by its length, or None without such a division.

    Args:
        model: Model to search.
    """
    producers = {output: node for node in model.graph.node for output in node.output}
    node = producers.get(model.graph.output[0].name)
    while node is not None and node.op_type in ("Reshape", "Flatten", "Identity", "Squeeze", "Cast"):
        node = producers.get(node.input[0])
    if node is None or node.op_type not in ("Div", "LpNormalization") or node.input[0] not in producers:
        return None
    return str(node.input[0])


def set_input_shape(model: "ModelProto", shape: Sequence[int]) -> None:
    """Set the shape of the input and infer the shapes of all values. The model is modified in place.

    Args:
        model: Model with one input.
        shape: Length of each axis.
    """
    from onnx import ValueInfoProto, shape_inference

    for dim, length in zip(model.graph.input[0].type.tensor_type.shape.dim, shape, strict=True):
        dim.dim_value = length
    _replace(model.graph.output, [ValueInfoProto(name=output.name) for output in model.graph.output])
    del model.graph.value_info[:]  # the shapes in it are outdated
    model.CopyFrom(shape_inference.infer_shapes(model, data_prop=True))


def simplify_nodes(model: "ModelProto") -> None:
    """Rewrite nodes that the converter does not support. The model is modified in place.

    These are missing inputs at the end of a list, such as the upper bound of a Clip; a Split into one part; a Flatten from the first
    axis, which is a Reshape to (1, −1); and ``allowzero``, which has no effect on shapes without a zero.

    Args:
        model: Model to rewrite.
    """
    from onnx import numpy_helper

    arrays = constants(model)
    for node in model.graph.node:
        while node.input and not node.input[-1]:
            node.input.pop()
        if node.op_type == "Split" and len(node.output) == 1:
            node.op_type = "Identity"
            del node.input[1:], node.attribute[:]
        if node.op_type == "Flatten" and any(a.name == "axis" and a.i == 0 for a in node.attribute):
            shape_name = f"{node.output[0]}_shape"
            arrays[shape_name] = np.array([1, -1])
            model.graph.initializer.append(numpy_helper.from_array(arrays[shape_name], shape_name))
            node.op_type = "Reshape"
            node.input.append(shape_name)
            del node.attribute[:]
        if node.op_type == "Reshape" and 0 not in arrays.get(node.input[1], [0]):
            del node.attribute[:]


def convert_operators(model: "ModelProto", version: int) -> "ModelProto":
    """Convert a graph to another version of the operator set.

    Args:
        model: Model to convert, which is left unchanged.
        version: Version of the standard operators.

    Returns:
        Converted model.

    Raises:
        CaptumLeamError: If ONNX cannot convert the graph.
    """
    from onnx import version_converter

    try:
        return version_converter.convert_version(model, version)
    except Exception as error:  # the converter raises exceptions of several types, mostly RuntimeError
        raise CaptumLeamError(str(error).splitlines()[0] if str(error) else type(error).__name__) from None


def operator_set(model: "ModelProto") -> int:
    """Return the version of the standard operators, or 0 if the model imports none.

    Args:
        model: Model to read.
    """
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def rename_nodes(model: "ModelProto") -> None:
    """Name each node after the module that it was exported from, else by type and number. The model is modified in place.

    The name is taken from the name of the weight, the scopes of the current PyTorch exporter, or the path of the earlier one. Other nodes
    have their type and a number, such as ``conv_3``.

    Args:
        model: Model to rename.
    """
    bases = [base and _escape_keywords(base) for base in map(module_name, model.graph.node)]
    used: set[str] = set()
    for node, base in zip(model.graph.node, bases, strict=True):
        operator = _escape_keywords(node.op_type.lower())  # Not, And and If are keywords in lower case
        is_unique = bases.count(base) == 1 and not any(other and other.startswith(f"{base}.") for other in bases)
        if base is None:
            node.name = _unused_name(operator, used, is_numbered=True)
        else:
            node.name = base if is_unique else _unused_name(f"{base}.{operator}", used)
        used.add(node.name)


def _escape_keywords(name: str) -> str:
    """Return a dotted name whose parts can be attributes in the Python code of a converted network."""
    return ".".join(f"{part}_" if iskeyword(part) else part for part in name.split("."))


def module_name(node: "NodeProto") -> str | None:
    """Return the name of the module that a node was exported from, or None if the file does not state it.

    Args:
        node: Node of a graph.

    Example:
        >>> from onnx import helper
        >>> module_name(helper.make_node("Conv", ["x", "onnx::Conv_1"], ["y"], name="/layer1/layer1.0/conv1/Conv"))
        'layer1.0.conv1'
        >>> module_name(helper.make_node("Conv", ["x", "stem.0.weight", "stem.0.bias"], ["y"], name="node_Conv_7"))
        'stem.0'
        >>> module_name(helper.make_node("Conv", ["x", "685"], ["y"], name="Conv_0")) is None
        True
    """
    weights = [name.rpartition(".")[0] for name in node.input[1:] if name.endswith((".weight", ".bias"))]
    if weights and not GENERATED_NAME.match(weights[0]):
        return str(weights[0])
    for entry in node.metadata_props:
        if entry.key == "pkg.torch.onnx.name_scopes":
            scopes = re.findall(r"'([^']*)'", entry.value)[:-1]  # the last scope is the operation
            return scopes[-1] if scopes and scopes[-1] else None
    if node.name.startswith("/"):
        return _dotted_name(node.name.strip("/").split("/")[:-1]) or None
    return None


def _dotted_name(path: list[str]) -> str:
    """Return layer1.0.conv1 for ['layer1', 'layer1.0', 'conv1'], since the earlier exporter repeats the parent of a numbered child."""
    parts: list[str] = []
    for part in path:
        if parts and part.startswith(f"{parts[-1]}."):
            parts[-1] = part
        else:
            parts.append(part)
    return ".".join(parts)


def _unused_name(name: str, used: set[str], *, is_numbered: bool = False) -> str:
    number = 0
    while (candidate := f"{name}_{number}" if number or is_numbered else name) in used:
        number += 1
    return candidate
