"""Repairs of an ONNX graph before it is converted: names, fixed batches, operator versions. Nothing here runs the graph."""

import re
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

GENERATED = re.compile(r"^(onnx::|val_|\d)|^[A-Z]\w*_\d+$|^$")


def constants(model: "ModelProto") -> "dict[str, NDArray[np.generic]]":
    """Values in the graph that are known before it runs: initializers and Constant nodes, by name."""
    from onnx import numpy_helper

    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            known[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return known


def keep_output(model: "ModelProto", name: str) -> None:
    """Leave one value as the only output, and drop the nodes that it does not need. Changes the model.

    Raises:
        ValueError: if no node gives a value of that name.
    """
    from onnx import TensorProto, helper

    made = {output: node for node in model.graph.node for output in node.output}
    if name not in made:
        raise ValueError(f"no value is called {name!r}; the outputs are {[o.name for o in model.graph.output]}.")
    needed, wanted = set(), [name]
    while wanted:
        node = made.get(wanted.pop())
        if node is not None and id(node) not in needed:
            needed.add(id(node))
            wanted.extend(node.input)
    nodes = [node for node in model.graph.node if id(node) in needed]
    kept = [type(node)() for node in nodes]
    for copy, node in zip(kept, nodes, strict=True):
        copy.CopyFrom(node)
    del model.graph.node[:], model.graph.output[:]
    model.graph.node.extend(kept)
    model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))


def plain_inputs(model: "ModelProto") -> None:
    """Write the inputs of nodes as the converter reads them. Changes the model.

    Exporters write equal weights once, with Identity nodes for the others, and optional inputs that are not there as empty names at
    the end (the bounds of Clip in every division by a length).
    """
    from onnx import numpy_helper

    known, nodes = constants(model), []
    for node in model.graph.node:
        if node.op_type == "Identity" and node.input[0] in known:
            known[node.output[0]] = known[node.input[0]]
            model.graph.initializer.append(numpy_helper.from_array(np.array(known[node.input[0]]), node.output[0]))
        else:
            nodes.append(type(node)())
            nodes[-1].CopyFrom(node)
            while nodes[-1].input and not nodes[-1].input[-1]:
                nodes[-1].input.pop()
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def before_division(model: "ModelProto") -> str | None:
    """Name of the value that the graph divides by its length at the end; None if it does not end like that."""
    made = {output: node for node in model.graph.node for output in node.output}
    node = made.get(model.graph.output[0].name)
    while node is not None and node.op_type in ("Reshape", "Flatten", "Identity", "Squeeze"):
        node = made.get(node.input[0])
    ends = node is not None and node.op_type in ("Div", "LpNormalization")
    return str(node.input[0]) if ends and node is not None and node.input[0] in made else None


def free_batch(model: "ModelProto") -> None:
    """Let the first axis of the input be of any length, and reshapes to (1, …) keep it. Changes the model.

    A guess, right for networks that keep images apart: whoever calls it compares the result with the original, image by image.
    """
    from onnx import numpy_helper

    batch = model.graph.input[0].type.tensor_type.shape.dim[0]
    fixed = batch.dim_value
    batch.dim_param = "batch"
    for output in model.graph.output:
        if output.type.tensor_type.shape.dim:
            output.type.tensor_type.shape.dim[0].dim_param = "batch"
    del model.graph.value_info[:]  # they hold the old batch
    known = constants(model)
    for node in [node for node in model.graph.node if node.op_type == "Reshape"]:
        shape = known.get(node.input[1])
        if shape is not None and len(shape) and int(shape[0]) == fixed:
            freed = shape.copy()
            freed[0] = 0 if -1 in shape[1:] else -1  # 0: as the input has it
            name = f"{node.output[0]}_freed_shape"
            model.graph.initializer.append(numpy_helper.from_array(freed, name))
            node.input[1] = name
            del node.attribute[:]  # allowzero


def plain_reshapes(model: "ModelProto") -> None:
    """Take ``allowzero`` off reshapes to shapes without a zero, where it says nothing. Changes the model."""
    known = constants(model)
    for node in [node for node in model.graph.node if node.op_type == "Reshape"]:
        shape = known.get(node.input[1])
        if shape is not None and 0 not in shape:
            del node.attribute[:]


def convert_operators(model: "ModelProto", version: int) -> "ModelProto":
    """The same graph in another version of the operator set.

    Raises:
        ValueError: if ONNX's converter has no way there.
    """
    from onnx import version_converter

    try:
        return version_converter.convert_version(model, version)
    except Exception as error:  # the converter raises what it likes, RuntimeError mostly
        raise ValueError(str(error).splitlines()[0] if str(error) else type(error).__name__) from None


def operator_set(model: "ModelProto") -> int:
    """Version of the standard operators; 0 without any."""
    return max((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), default=0)


def rename_nodes(model: "ModelProto") -> None:
    """Give every node the name of the module that it came from, or its kind and number. Changes the model.

    Names come from, in this order: the scopes that today's PyTorch exporter notes, the name of the weight, the path that the
    earlier exporter wrote, and else the kind with a number: ``conv_3``.
    """
    bases = [None if node.op_type == "Constant" else module_of(node) for node in model.graph.node]
    taken: set[str] = set()
    for node, base in zip(model.graph.node, bases, strict=True):
        kind = node.op_type.lower()
        alone = bases.count(base) == 1 and not any(other and other.startswith(f"{base}.") for other in bases)
        if base is None:
            node.name = _free(kind, taken, numbered=True)
        else:
            node.name = base if alone else _free(f"{base}.{kind}", taken)
        taken.add(node.name)


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
