"""Repairs of an ONNX graph before it is converted: constants, precision, names, operator versions."""

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

RANDOM = ("Random", "Bernoulli", "Multinomial")  # beginnings of the operators whose value is another one in every run
GENERATED = re.compile(r"^(onnx::|val_|\d)|^[A-Z]\w*_\d+$|^$")


def constants(model: "ModelProto") -> dict[str, Array]:
    """Return the initializers of a graph by name."""
    from onnx import numpy_helper

    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def fold_constants(model: "ModelProto") -> None:
    """Compute every value that does not depend on the input, and keep it as an initializer. Changes the model.

    Exporters write weights as Constant nodes, as float16 with a Cast, as integers with a scale, or once for several layers with
    Identity nodes; the converter looks for them among the initializers.

    Raises:
        CaptumLeamError: If ONNX Runtime cannot compute them.
    """
    from onnx import numpy_helper

    known = {tensor.name for tensor in model.graph.initializer}
    fixed, rest = [], []
    for node in model.graph.node:
        if _is_constant(node, known):
            known.update(node.output)
            fixed.append(node)
        else:
            rest.append(node)
    outputs = {name for node in fixed for name in node.output}
    wanted = sorted(outputs & {name for node in rest for name in node.input if name})
    values = _constant_values(model, fixed, wanted)
    model.graph.initializer.extend(numpy_helper.from_array(values[name], name) for name in wanted)
    _replace(model.graph.node, rest)
    read = {name for node in rest for name in node.input}
    _replace(model.graph.initializer, [tensor for tensor in model.graph.initializer if tensor.name in read])


def _is_constant(node: "NodeProto", known: set[str]) -> bool:
    is_random = node.op_type.startswith(RANDOM)
    has_graph = any(attribute.HasField("g") for attribute in node.attribute)
    return not is_random and not has_graph and all(name in known for name in node.input if name)


def _constant_values(model: "ModelProto", nodes: "list[NodeProto]", wanted: list[str]) -> dict[str, Array]:
    from onnx import ValueInfoProto, helper

    if not wanted:
        return {}
    read = {name for node in nodes for name in node.input}
    weights = [tensor for tensor in model.graph.initializer if tensor.name in read]
    graph = helper.make_graph(nodes, "constants", [], [ValueInfoProto(name=name) for name in wanted], weights)
    part = helper.make_model(
        graph, opset_imports=model.opset_import, functions=model.functions, ir_version=model.ir_version
    )
    return dict(zip(wanted, run(open_session(part), {}), strict=True))


def _replace(container: Any, items: Iterable[Any]) -> None:
    kept = list(items)
    del container[:]
    container.extend(kept)


def sort_nodes(model: "ModelProto") -> None:
    """Bring every node behind those that it reads from, as the standard wants it. Changes the model.

    Converters to float16 append the casts of inputs at the end. A graph in order stays as it is, and so does one with a cycle.
    """
    made = {output: i for i, node in enumerate(model.graph.node) for output in node.output}
    sources = {i: {made[name] for name in node.input if name in made} for i, node in enumerate(model.graph.node)}
    if all(source < i for i, before in sources.items() for source in before):
        return
    try:
        order = list(TopologicalSorter(sources).static_order())
    except CycleError:  # the checker has a message for it
        return
    _replace(model.graph.node, [model.graph.node[i] for i in order])


def use_float32(model: "ModelProto") -> bool:
    """Bring weights, inputs and casts of other floating types to float32, from half precision exactly. Changes the model.

    Returns:
        Whether the graph computed in half precision.
    """
    from onnx import TensorProto, numpy_helper

    others, found = {TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}, set()
    for tensor in all_tensors(model):
        if tensor.data_type in others:
            found.add(tensor.data_type)
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    for attribute in (attribute for node in model.graph.node for attribute in node.attribute):
        if attribute.name in ("to", "dtype") and attribute.i in others:
            found.add(attribute.i)
            attribute.i = TensorProto.FLOAT
    for value in (*model.graph.input, *model.graph.output):
        if value.type.tensor_type.elem_type in others:
            found.add(value.type.tensor_type.elem_type)
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    del model.graph.value_info[:]  # they hold the old types
    return bool(found - {TensorProto.DOUBLE})


def all_tensors(model: "ModelProto") -> "Iterator[TensorProto]":
    """Iterate over the initializers and the tensors among the attributes of nodes."""
    yield from model.graph.initializer
    yield from (a.t for node in model.graph.node for a in node.attribute if a.HasField("t"))


def keep_output(model: "ModelProto", name: str) -> None:
    """Leave one value as the only output, and drop the nodes that it does not need. Changes the model.

    Raises:
        CaptumLeamError: if no node gives a value of that name.
    """
    from onnx import ValueInfoProto

    made = {output: node for node in model.graph.node for output in node.output}
    if name not in made:
        raise CaptumLeamError(f"no value is called {name!r}; the outputs are {[o.name for o in model.graph.output]}.")
    needed, wanted = set(), [name]
    while wanted:
        node = made.get(wanted.pop())
        if node is not None and id(node) not in needed:
            needed.add(id(node))
            wanted.extend(node.input)
    _replace(model.graph.node, [node for node in model.graph.node if id(node) in needed])
    _replace(model.graph.output, [ValueInfoProto(name=name)])


def before_division(model: "ModelProto") -> str | None:
    """Name of the value that the graph divides by its length at the end; None if it does not end like that."""
    made = {output: node for node in model.graph.node for output in node.output}
    node = made.get(model.graph.output[0].name)
    while node is not None and node.op_type in ("Reshape", "Flatten", "Identity", "Squeeze", "Cast"):
        node = made.get(node.input[0])
    ends = node is not None and node.op_type in ("Div", "LpNormalization")
    return str(node.input[0]) if ends and node is not None and node.input[0] in made else None


def set_input_shape(model: "ModelProto", shape: Sequence[int]) -> None:
    """Declare the shape of the input, so that the ranks of all values can be inferred from it. Changes the model."""
    from onnx import ValueInfoProto, shape_inference

    for dim, length in zip(model.graph.input[0].type.tensor_type.shape.dim, shape, strict=True):
        dim.dim_value = length
    _replace(model.graph.output, [ValueInfoProto(name=output.name) for output in model.graph.output])
    del model.graph.value_info[:]  # they hold the old shapes
    model.CopyFrom(shape_inference.infer_shapes(model, data_prop=True))


def plain_nodes(model: "ModelProto") -> None:
    """Write nodes as the converter reads them. Changes the model.

    It has no absent inputs at the end of a list, such as the upper bound of a Clip; no Split into one part; no Flatten from the
    first axis, which is a Reshape to (1, −1); and no ``allowzero``, which says nothing about shapes without a zero.
    """
    from onnx import numpy_helper

    known = constants(model)
    for node in model.graph.node:
        while node.input and not node.input[-1]:
            node.input.pop()
        if node.op_type == "Split" and len(node.output) == 1:
            node.op_type = "Identity"
            del node.input[1:], node.attribute[:]
        if node.op_type == "Flatten" and any(a.name == "axis" and a.i == 0 for a in node.attribute):
            known[shape := f"{node.output[0]}_shape"] = np.array([1, -1])
            model.graph.initializer.append(numpy_helper.from_array(known[shape], shape))
            node.op_type = "Reshape"
            node.input.append(shape)
            del node.attribute[:]
        if node.op_type == "Reshape" and 0 not in known.get(node.input[1], [0]):
            del node.attribute[:]


def convert_operators(model: "ModelProto", version: int) -> "ModelProto":
    """Convert a graph to another version of the operator set.

    Raises:
        CaptumLeamError: if ONNX's converter has no way there.
    """
    from onnx import version_converter

    try:
        return version_converter.convert_version(model, version)
    except Exception as error:  # the converter raises what it likes, RuntimeError mostly
        raise CaptumLeamError(str(error).splitlines()[0] if str(error) else type(error).__name__) from None


def operator_set(model: "ModelProto") -> int:
    """Version of the standard operators; 0 without any."""
    return max((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), default=0)


def rename_nodes(model: "ModelProto") -> None:
    """Give every node the name of the module that it came from, or its kind and number. Changes the model.

    Names come from, in this order: the scopes that today's PyTorch exporter notes, the name of the weight, the path that the
    earlier exporter wrote, and else the kind with a number: ``conv_3``.
    """
    bases = [base and _no_keywords(base) for base in map(module_of, model.graph.node)]
    taken: set[str] = set()
    for node, base in zip(model.graph.node, bases, strict=True):
        kind = _no_keywords(node.op_type.lower())  # Not, And, If
        alone = bases.count(base) == 1 and not any(other and other.startswith(f"{base}.") for other in bases)
        if base is None:
            node.name = _free(kind, taken, numbered=True)
        else:
            node.name = base if alone else _free(f"{base}.{kind}", taken)
        taken.add(node.name)


def _no_keywords(name: str) -> str:
    """Return a name whose parts can be attributes in Python code, which is how a converted network is written."""
    return ".".join(f"{part}_" if iskeyword(part) else part for part in name.split("."))


def module_of(node: "NodeProto") -> str | None:
    """Name of the module that a node came from; None if the file does not say.

    Example:
        >>> from onnx import helper
        >>> module_of(helper.make_node("Conv", ["x", "onnx::Conv_1"], ["y"], name="/layer1/layer1.0/conv1/Conv"))
        'layer1.0.conv1'
        >>> module_of(helper.make_node("Conv", ["x", "stem.0.weight", "stem.0.bias"], ["y"], name="node_Conv_7"))
        'stem.0'
        >>> module_of(helper.make_node("Conv", ["x", "685"], ["y"], name="Conv_0")) is None
        True
    """
    weights = [name.rpartition(".")[0] for name in node.input[1:] if name.endswith((".weight", ".bias"))]
    if weights and not GENERATED.match(weights[0]):
        return str(weights[0])
    for entry in node.metadata_props:
        if entry.key == "pkg.torch.onnx.name_scopes":
            scopes = re.findall(r"'([^']*)'", entry.value)[:-1]  # the last is the operation
            return scopes[-1] if scopes and scopes[-1] else None
    if node.name.startswith("/"):
        return _path(node.name.strip("/").split("/")[:-1]) or None
    return None


def _path(parts: list[str]) -> str:
    """['layer1', 'layer1.0', 'conv1'] → layer1.0.conv1: the earlier exporter repeats the parent of a numbered child."""
    pieces: list[str] = []
    for part in parts:
        if pieces and part.startswith(f"{pieces[-1]}."):
            pieces[-1] = part
        else:
            pieces.append(part)
    return ".".join(pieces)


def _free(name: str, taken: set[str], *, numbered: bool = False) -> str:
    number = 0
    while (candidate := f"{name}_{number}" if number or numbered else name) in taken:
        number += 1
    return candidate
