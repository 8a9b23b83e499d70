"""Networks from ONNX files: repaired, converted to PyTorch, and proved equal to ONNX Runtime before anything is explained."""

import warnings
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from captum_leam.faces.crops import MAX_SIDE
from captum_leam.faces.photos import MAX_PIXELS
from captum_leam.models.onnx_graph import (
    before_division,
    constants,
    convert_operators,
    free_batch,
    keep_output,
    operator_set,
    plain_inputs,
    plain_reshapes,
    rename_nodes,
)
from captum_leam.models.preprocessing import Prepared, Preprocessing, smooth_images
from captum_leam.modes import plain_torch

if TYPE_CHECKING:
    from onnx import ModelProto

OPERATOR_SETS = (18, 17, 16, 15, 14, 13, 11)  # tried in this order if the file's own is refused
TOLERANCE = 1e-4  # of the largest value of the embeddings
DEFAULT_SIZE = (112, 112)


def from_onnx(
    path: str | Path,
    preprocessing: Preprocessing | None = None,
    *,
    output: str | None = None,
) -> Prepared:
    """A PyTorch network from an ONNX file: with layers that can be hooked, under readable names, for any batch size.

    A batch size that the file fixes is freed, and operators newer than the converter knows are brought to an older operator set.
    Then the network is compared with ONNX Runtime on the file as it is, images one by one against a batch: what is not equal is
    refused.

    Args:
        path: of the file.
        preprocessing: what the network wants its pixels to be; most files do not say. ``INSIGHTFACE`` fits InsightFace's packs
            (``w600k_r50.onnx``, …), ``IMAGENET`` others. May be left out where the graph itself begins by normalising.
        output: name of the value that is the embedding, for files with several outputs, or of an inner one: of those that end by
            dividing by the length, the value before.

    Returns:
        The network in evaluation mode, from RGB (N, 3, H, W) in [0, 1] to embeddings (N, D), on the CPU. Layers are named
        ``network.…``.

    Raises:
        ValueError: naming the file and why: missing, broken, external data missing, no picture as input, several outputs, operators
            that cannot be converted, another result than ONNX Runtime's.
        ImportError: without onnx, onnx2torch or onnxruntime.

    Example:
        >>> from_onnx("nowhere.onnx")
        Traceback (most recent call last):
            ...
        ValueError: nowhere.onnx: there is no such file.
    """
    path = Path(path)
    model = read_onnx(path)
    try:
        with plain_torch():
            return _network(model, preprocessing, output)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    except (TypeError, KeyError, IndexError, AttributeError, RuntimeError) as error:  # broken, in spite of the checker
        raise ValueError(f"{path}: this is no ONNX network that can be read ({error}).") from None


def _network(model: "ModelProto", preprocessing: Preprocessing | None, output: str | None) -> Prepared:
    if output is not None:
        keep_output(model, output)
    size = _input_size(model)
    preprocessing = _declared(model, preprocessing, size)
    original = type(model)()
    original.CopyFrom(model)
    plain_inputs(model)
    rename_nodes(model)
    if _fixed_batch(model):
        free_batch(model)
    plain_reshapes(model)
    network = Prepared(_convert(model), preprocessing).eval().requires_grad_(False)
    embeddings = _compare(network, original, preprocessing.size or size)
    if embeddings.shape[1] > 1 and bool(((embeddings.norm(dim=1) - 1).abs() < 1e-3).all()):
        _warn_of_the_division(before_division(original))
    return network


def read_onnx(path: Path) -> "ModelProto":
    """An ONNX file, checked.

    Raises:
        ValueError: naming the file and why.

    Example:
        >>> read_onnx(Path("nowhere.onnx"))
        Traceback (most recent call last):
            ...
        ValueError: nowhere.onnx: there is no such file.
    """
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file.")
    onnx = _need("onnx")
    try:
        model: ModelProto = onnx.load(str(path))
        onnx.checker.check_model(model)
    except (FileNotFoundError, OSError) as error:
        raise ValueError(f"{path}: weights beside the file are missing ({error}).") from None
    except Exception as error:  # broken files make protobuf and the checker raise nearly anything
        reason = str(error).strip().splitlines()
        if any("external" in line.lower() or "should be stored in" in line for line in reason):
            raise ValueError(f"{path}: weights beside the file are missing ({reason[0]}).") from None
        raise ValueError(
            f"{path}: this is no ONNX network that can be read ({(reason or ['broken'])[0][:200]})."
        ) from None
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]  # old files list weights as inputs
    if len(inputs) != 1 or len(model.graph.input) != 1:
        del model.graph.input[:]
        model.graph.input.extend(inputs)
    return model


def _need(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(
            f'{name} cannot be imported ({error}). It comes with: pip install "captum-leam[onnx]"'
        ) from error


def _input_size(model: "ModelProto") -> tuple[int, int] | None:
    """(h, w) of the pictures that the graph reads; None if it is left open."""
    inputs, outputs = [v.name for v in model.graph.input], [v.name for v in model.graph.output]
    if len(inputs) != 1:
        raise ValueError(f"the network has {len(inputs)} inputs {inputs}; needed is one, the picture.")
    if len(outputs) != 1:
        raise ValueError(
            f"the network has {len(outputs)} outputs; say which is the embedding: output= (on the command line --output) one of {outputs}."
        )
    tensor = model.graph.input[0].type.tensor_type
    shape = [dim.dim_value for dim in tensor.shape.dim]
    if len(shape) != 4 or tensor.elem_type != 1 or 3 not in (shape[1] or 3, shape[3]):
        raise ValueError(
            f"input {inputs[0]!r} has shape {shape} (0 is open) and element type {tensor.elem_type}; needed are "
            "float32 pictures (N, 3, H, W) or (N, H, W, 3)."
        )
    height, width = (shape[1], shape[2]) if _channels_last(model) else (shape[2], shape[3])
    pixels = max(shape[0], 1) * (height or DEFAULT_SIZE[0]) * (width or DEFAULT_SIZE[1])
    if max(height, width) > MAX_SIDE or pixels > MAX_PIXELS:  # such inputs are made to ask ONNX Runtime
        raise ValueError(
            f"input {inputs[0]!r} has shape {shape}; an aligned crop has at most {MAX_SIDE} px a side, a batch {MAX_PIXELS} in all."
        )
    return (height, width) if height and width else None


def _channels_last(model: "ModelProto") -> bool:
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    return bool(shape[3] == 3 and shape[1] != 3)


def _fixed_batch(model: "ModelProto") -> bool:
    return bool(model.graph.input[0].type.tensor_type.shape.dim[0].dim_value > 0)


def _declared(model: "ModelProto", preprocessing: Preprocessing | None, size: tuple[int, int] | None) -> Preprocessing:
    from dataclasses import replace

    if preprocessing is None:
        preprocessing = _inside(model)
    if (preprocessing.layout == "NHWC") != _channels_last(model):
        raise ValueError(
            f"preprocessing says layout {preprocessing.layout}, the file {'NHWC' if _channels_last(model) else 'NCHW'}."
        )
    if size and preprocessing.size and tuple(preprocessing.size) != size:
        raise ValueError(f"preprocessing says size {preprocessing.size}, the file {size}.")
    return replace(preprocessing, size=preprocessing.size or size)


def _inside(model: "ModelProto") -> Preprocessing:
    """The preprocessing of a graph whose first step takes off a mean: of pixels up to 1, or up to 255."""
    first = next((node for node in model.graph.node if model.graph.input[0].name in node.input), None)
    known = constants(model)
    if first is None or first.op_type != "Sub" or first.input[1] not in known:
        raise ValueError(
            "an ONNX file does not say what its pixels must be. Give preprocessing=: INSIGHTFACE for InsightFace's packs and "
            "most networks trained like ArcFace, IMAGENET, UNIT for RGB in [0, 1], BYTES for 0 to 255, or a Preprocessing of your "
            "own (on the command line --preprocessing insightface, imagenet, unit or bytes); verify(model, images, labels) shows "
            "whether it is right."
        )
    layout: Any = "NHWC" if _channels_last(model) else "NCHW"
    mean = np.asarray(known[first.input[1]], dtype=np.float64)
    of_bytes = float(np.abs(mean).max()) > 1
    return Preprocessing(std=(1 / 255,) * 3, layout=layout) if of_bytes else Preprocessing(layout=layout)


def _convert(model: "ModelProto") -> nn.Module:
    """The network by onnx2torch, from the first operator set that it takes."""
    converter = _need("onnx2torch")
    own, reasons = operator_set(model), []
    for version in [own, *[v for v in OPERATOR_SETS if v < own]]:
        try:
            candidate = model if version == own else convert_operators(model, version)
            plain_reshapes(candidate)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return _nested(converter.convert(candidate))
        except Exception as error:  # unknown operators, attributes, shapes: each converter in its own way
            reasons.append(
                f"operator set {version}: {(str(error).strip().splitlines() or [type(error).__name__])[0][:160]}"
            )
    raise ValueError(
        f"this network cannot be converted to PyTorch. {reasons[0]}. Export it anew with opset_version=17, or use the original "
        "PyTorch network. Scores and faithfulness alone: BlackBox around an onnxruntime session."
    )


def _nested(converted: fx.GraphModule) -> fx.GraphModule:
    """The same network with its layers in a tree: onnx2torch's ``stages/0/body`` becomes ``stages.0.body``."""
    for node in converted.graph.nodes:
        if node.op == "call_module" and "/" in node.target:
            module, name = converted.get_submodule(node.target), node.target.replace("/", ".")
            converted.add_submodule(name, module)
            node.target = name
        if node.op == "call_module" and type(converted.get_submodule(node.target)).__name__ == "OnnxSlice":
            converted.add_submodule(node.target, Slice())
    converted.delete_all_unused_submodules()
    converted.recompile()
    return converted


class Slice(nn.Module):
    """ONNX's Slice by tuples of slices: onnx2torch indexes with lists, of which PyTorch warns, and which it reads anew one day.

    Example:
        >>> Slice()(torch.arange(6), torch.tensor([-2]), torch.tensor([99])).tolist()
        [4, 5]
    """

    def forward(
        self, x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None, steps: Tensor | None = None
    ) -> Tensor:
        """The part of ``x`` from ``starts`` to ``ends``, by ``steps`` over 0, along ``axes`` (the first ones by default)."""
        parts = [slice(None)] * x.ndim
        every = [1] * len(starts) if steps is None else steps.tolist()
        if min(every, default=1) < 1:
            raise ValueError("Slice runs backwards in this network, which is not supported.")
        where = range(len(starts)) if axes is None else axes.tolist()
        for axis, start, end, step in zip(where, starts.tolist(), ends.tolist(), every, strict=True):
            parts[axis] = slice(start, end, step)
        return x[tuple(parts)]


def _compare(network: Prepared, original: "ModelProto", size: tuple[int, int] | None) -> Tensor:
    """Refuse a network that gives anything else than ONNX Runtime does on the file, image by image; its embeddings (3, D)."""
    images = smooth_images(3, size or DEFAULT_SIZE)
    try:
        expected = _by_runtime(original, network.preprocessing(images))
    except ImportError:
        raise
    except Exception as error:  # onnxruntime has a family of its own, with pages of text
        reason = str(error).strip().splitlines()[0][:200]
        raise ValueError(f"ONNX Runtime cannot run this network ({reason}).") from None
    for rows in (slice(0, 1), slice(0, 3)):
        try:
            with torch.no_grad():
                found = network(images[rows])
        except Exception as error:
            raise ValueError(f"the converted network fails on {rows.stop} image(s): {error}") from None
        if not isinstance(found, Tensor) or found.flatten(1).shape != expected[rows].shape:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(
                f"{rows.stop} image(s) gave {shape}, ONNX Runtime {tuple(expected[rows].shape)}. The file fixes its batch "
                "in a way that is not repaired here; export it anew with a dynamic batch axis."
            )
        off = float((found.flatten(1) - expected[rows]).abs().max() / expected.abs().max().clamp_min(1e-12))
        if not off <= TOLERANCE:
            raise ValueError(
                f"the converted network differs from ONNX Runtime by {off:.2g} of the largest value on {rows.stop} "
                f"image(s) (allowed {TOLERANCE:g}). It is not the same network, and is refused."
            )
    return expected


def _by_runtime(original: "ModelProto", pictures: Tensor) -> Tensor:
    """(N, D): the file's own answer, one picture at a time."""
    runtime = _need("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(original.SerializeToString(), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    count = max(1, original.graph.input[0].type.tensor_type.shape.dim[0].dim_value)
    answers = []
    for picture in pictures.numpy():  # a file with a batch fixed to more than one gets copies
        answers.append(session.run(None, {name: np.repeat(picture[None], count, axis=0)})[0][:1])
    return torch.from_numpy(np.concatenate(answers)).flatten(1)


class NormalisedWarning(UserWarning):
    """Embeddings have length 1 already within the network.

    Example:
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("error", NormalisedWarning)  # from_onnx now refuses such files
    """


def _warn_of_the_division(before: str | None) -> None:
    what = "the value before the division" if before is None else f"{before!r}, the value before the division"
    warnings.warn(
        "embeddings have length 1 within the network, so that only the differentiated cosine can be explained: maps "
        f"are less faithful, and an image's own embedding gives none. Give output= {what} (on the command line --output).",
        NormalisedWarning,
        stacklevel=4,
    )
