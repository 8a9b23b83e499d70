"""Load ONNX files as PyTorch networks, repair their graphs, and verify the result against ONNX Runtime."""

import warnings
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, fx

from captum_leam._engine.arithmetic import own_arithmetic
from captum_leam._optional import import_optional
from captum_leam.errors import CaptumLeamError, HalfPrecisionWarning, NormalisedWarning
from captum_leam.faces.crops import MAX_SIDE
from captum_leam.faces.photos import MAX_PIXELS
from captum_leam.models.onnx_graph import (
    all_tensors,
    constants,
    fold_constants,
    keep_output,
    rename_nodes,
    set_input_shape,
    sort_nodes,
    use_float32,
    value_before_division,
)
from captum_leam.models.onnx_network import convert, flatten_output, separate_images
from captum_leam.models.onnx_runtime import first_line, open_session, run
from captum_leam.models.preprocessing import Prepared, Preprocessing, smooth_images

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

TOLERANCE = 1e-4  # maximum difference of embeddings, as a share of their largest value
HALF_TOLERANCE = 0.02  # the same between float16 and float32
DEFAULT_SIZE = (112, 112)
ALTERNATIVES = (
    "Use the original PyTorch network, or, for scores and faithfulness only, a BlackBox around an ONNX Runtime session."
)


def from_onnx(
    path: str | Path,
    preprocessing: Preprocessing | None = None,
    *,
    output: str | None = None,
) -> Prepared:
    """Load an ONNX file as a PyTorch network with gradients and named layers.

    Use it to explain networks that are published as ONNX files, such as those of InsightFace. The network accepts batches of any size. Its
    embeddings are compared with those of ONNX Runtime when it is loaded, so that a wrong conversion raises.

    Args:
        path: Path of the file.
        preprocessing: Preprocessing that the network expects, which most files do not state. ``INSIGHTFACE`` fits the packs of
            InsightFace (``w600k_r50.onnx``, …), ``IMAGENET`` many others. Default: None, for a graph that begins with a normalisation.
        output: Name of the value that is the embedding, for files with several outputs or with a final L2 normalisation. Default: None,
            for the only output.

    Returns:
        Network in evaluation mode on the CPU, from RGB images (N, 3, H, W) in [0, 1] to embeddings (N, D). The names of its layers begin
        with ``network.``.

    Raises:
        CaptumLeamError: If the file is missing, broken or without weights, has no image input or several outputs, cannot be converted, or
            yields other embeddings than ONNX Runtime. The message names the file.
        MissingExtraError: If onnx, onnx2torch or onnxruntime is not installed.

    See Also:
        * :func:`~captum_leam.models.load_model`: Models by name, from Python code or ONNX files.
        * :class:`~captum_leam.models.BlackBox`: Systems without gradients.

    Example:
        >>> from captum_leam import suggest_layers
        >>> from captum_leam.models import INSIGHTFACE
        >>> model = from_onnx("w600k_r50.onnx", INSIGHTFACE)  # doctest: +SKIP
        >>> model(images).shape  # doctest: +SKIP
        torch.Size([2, 512])
        >>> layers = suggest_layers(model, images)  # doctest: +SKIP
    """
    path = Path(path)
    model = read_onnx(path)
    try:
        with own_arithmetic(), torch.inference_mode(False), torch.no_grad():  # independent of the caller's modes
            return _network(model, preprocessing, output)
    except ValueError as error:
        raise CaptumLeamError(f"{path}: {error}") from None
    except (
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        RuntimeError,
    ) as error:  # broken files that pass ONNX's checker
        raise CaptumLeamError(
            f"{path}: this network cannot be loaded ({type(error).__name__}: {error}). {ALTERNATIVES}"
        ) from None


def _network(model: "ModelProto", preprocessing: Preprocessing | None, output: str | None) -> Prepared:
    if output is not None:
        keep_output(model, output)
    size = _input_size(model)
    original = type(model)()
    original.CopyFrom(model)
    model.ir_version = max(model.ir_version, 4)  # older versions infer no shapes of weights that are not inputs
    fold_constants(model)
    is_half = use_float32(model)
    preprocessing = _with_size(model, preprocessing, size)
    images = smooth_images(3, preprocessing.size or DEFAULT_SIZE)
    set_input_shape(model, (_batch_size(model) or 1, *preprocessing(images).shape[1:]))
    rename_nodes(model)
    network = Prepared(convert(model), preprocessing).eval().requires_grad_(False)
    embeddings = _verify(network, original, images, model if is_half else None)
    if embeddings.shape[1] > 1 and bool(((embeddings.norm(dim=1) - 1).abs() < 1e-3).all()):
        _warn_about_division(value_before_division(original))
    return network


def read_onnx(path: Path) -> "ModelProto":
    """Read an ONNX file with its weights and check it.

    Args:
        path: Path of the file.

    Raises:
        CaptumLeamError: If the file or its weights are missing, or the file is not a valid ONNX network. The message names the file.

    Example:
        >>> read_onnx(Path("nowhere.onnx"))
        Traceback (most recent call last):
            ...
        captum_leam.errors.CaptumLeamError: nowhere.onnx: there is no such file.
    """
    if not path.is_file():
        raise CaptumLeamError(f"{path}: there is no such file.")
    onnx = import_optional("onnx")
    try:
        model: ModelProto = onnx.load(str(path), load_external_data=False)
        for tensor in [tensor for tensor in all_tensors(model) if tensor.data_location == tensor.EXTERNAL]:
            _load_weights(tensor, path)
        sort_nodes(model)
        onnx.checker.check_model(model)
    except OSError as error:
        raise CaptumLeamError(f"{path}: weights beside the file are missing ({error}).") from None
    except Exception as error:  # protobuf and the checker raise exceptions of many types for broken files
        reason = first_line(error)
        if "symbolic link" in reason:
            raise CaptumLeamError(
                f"{path}: weights beside the file are links to another folder ({reason}). Copy them beside the file."
            ) from None
        if "external" in reason.lower() or "should be stored in" in reason:
            raise CaptumLeamError(f"{path}: weights beside the file are missing ({reason}).") from None
        raise CaptumLeamError(f"{path}: expected an ONNX network, got a file that cannot be read ({reason}).") from None
    _normalise_inputs(model)
    return model


def _normalise_inputs(model: "ModelProto") -> None:
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]  # old files list weights as inputs
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    for dim in (dim for value in model.graph.input for dim in value.type.tensor_type.shape.dim):
        if dim.HasField("dim_value") and dim.dim_value < 1:  # some exporters write 0 or −1 for a dynamic length
            dim.dim_param = "any"


def _load_weights(tensor: "TensorProto", path: Path) -> None:
    """Load an external tensor from the folder of the file, or from that of its target if the file is a link, as in download caches."""
    from onnx.external_data_helper import load_external_data_for_tensor

    location = next(entry for entry in tensor.external_data if entry.key == "location")
    beside, folder = path.parent / location.value, path.resolve().parent
    if path.is_symlink() and beside.is_symlink() and beside.resolve().parent == folder:
        location.value = beside.resolve().name
    elif beside.exists():
        folder = path.parent
    load_external_data_for_tensor(tensor, str(folder))
    tensor.data_location = tensor.DEFAULT  # older versions of onnx do not reset it
    del tensor.external_data[:]


def _input_size(model: "ModelProto") -> tuple[int, int] | None:
    """Return the height and width (h, w) of the graph's input, or None if they are dynamic."""
    from onnx import TensorProto

    inputs, outputs = [v.name for v in model.graph.input], [v.name for v in model.graph.output]
    if len(inputs) != 1:
        raise CaptumLeamError(
            f"expected one input, the image, got {len(inputs)} inputs {inputs}. Export the network for one image."
        )
    if len(outputs) != 1:
        raise CaptumLeamError(
            f"expected one output, the embedding, got {len(outputs)} outputs {outputs}. Select one with output= (on the command line "
            "--output)."
        )
    tensor = model.graph.input[0].type.tensor_type
    shape = [dim.dim_value for dim in tensor.shape.dim]
    data_type = TensorProto.DataType.Name(tensor.elem_type)
    if len(shape) != 4 or data_type not in ("FLOAT", "FLOAT16", "DOUBLE") or 3 not in (shape[1] or 3, shape[3]):
        raise CaptumLeamError(
            f"expected images of floating-point type and shape (N, 3, H, W) or (N, H, W, 3) as input, got {inputs[0]!r} of type "
            f"{data_type} and shape {shape} (0 is dynamic). Export the network from its image input on."
        )
    height, width = (shape[1], shape[2]) if _is_channels_last(model) else (shape[2], shape[3])
    pixels = max(shape[0], 1) * (height or DEFAULT_SIZE[0]) * (width or DEFAULT_SIZE[1])
    if max(height, width) > MAX_SIDE or pixels > MAX_PIXELS:  # inputs of this size would be computed for the comparison
        raise CaptumLeamError(
            f"expected an input of at most {MAX_SIDE} px a side and {MAX_PIXELS} pixels per batch, got {inputs[0]!r} of shape {shape}."
        )
    return (height, width) if height and width else None


def _is_channels_last(model: "ModelProto") -> bool:
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    return bool(shape[3] == 3 and shape[1] != 3)


def _batch_size(model: "ModelProto") -> int:
    """Return the batch size of the input, or 0 if it is dynamic."""
    return max(0, int(model.graph.input[0].type.tensor_type.shape.dim[0].dim_value))


def _with_size(model: "ModelProto", preprocessing: Preprocessing | None, size: tuple[int, int] | None) -> Preprocessing:
    from dataclasses import replace

    if preprocessing is None:
        preprocessing = _infer_preprocessing(model)
    layout = "NHWC" if _is_channels_last(model) else "NCHW"
    if preprocessing.layout != layout:
        raise CaptumLeamError(f"expected preprocessing with layout {layout}, as the file, got {preprocessing.layout}.")
    if size and preprocessing.size and tuple(preprocessing.size) != size:
        raise CaptumLeamError(f"expected preprocessing with size {size}, as the file, got {preprocessing.size}.")
    return replace(preprocessing, size=preprocessing.size or size)


def _infer_preprocessing(model: "ModelProto") -> Preprocessing:
    """Return the preprocessing of a graph that begins by subtracting a mean, for pixels in [0, 1] or [0, 255]."""
    value = model.graph.input[0].name
    first = next((node for node in model.graph.node if value in node.input), None)
    while first is not None and first.op_type in ("Cast", "Identity"):
        value = first.output[0]
        first = next((node for node in model.graph.node if value in node.input), None)
    arrays = constants(model)
    if first is None or first.op_type != "Sub" or first.input[1] not in arrays:
        raise CaptumLeamError(
            "expected preprocessing, because an ONNX file does not state it, got None. Pass INSIGHTFACE for the packs of InsightFace and "
            "most networks trained like ArcFace, IMAGENET, UNIT for RGB in [0, 1], BYTES for 0 to 255, or a custom Preprocessing (on the "
            "command line --preprocessing insightface, imagenet, unit or bytes), and check it with verify(model, images, labels)."
        )
    layout: Any = "NHWC" if _is_channels_last(model) else "NCHW"
    mean = np.asarray(arrays[first.input[1]], dtype=np.float64)
    reads_bytes = float(np.abs(mean).max()) > 1
    return Preprocessing(std=(1 / 255,) * 3, layout=layout) if reads_bytes else Preprocessing(layout=layout)


def _verify(network: Prepared, original: "ModelProto", images: Tensor, in_float32: "ModelProto | None") -> Tensor:
    """Raise if a network does not equal ONNX Runtime on the original file for each image.

    Args:
        network: Converted network. Operations that are fixed to a batch size are changed to run image by image.
        original: Graph of the file without repairs.
        images: Images of shape (3, 3, H, W) for the comparison.
        in_float32: Repaired graph, if the file computes in half precision.

    Returns:
        Embeddings (3, D) of ONNX Runtime in float32.
    """
    pictures, graph = network.preprocessing(images), cast(fx.GraphModule, network.network)
    expected = exact = _embed_separately(original, pictures)
    if in_float32 is not None:
        exact = _embed_separately(in_float32, pictures)
    problem = _find_difference(network, images, exact)
    if problem:
        if _mixes_images(original, pictures, expected, TOLERANCE if in_float32 is None else HALF_TOLERANCE):
            raise CaptumLeamError(
                "expected embeddings that do not depend on the other images of a batch, got different ones from ONNX Runtime for a "
                "batch and for its single images. Export the network without operations across the batch."
            )
        with suppress(Exception):  # operations raise exceptions of any type, and the comparison below decides
            separate_images(graph, pictures, _batch_size(original) or 1)
        problem = _find_difference(network, images, exact)
    if problem:
        raise CaptumLeamError(problem)
    if network(images[:1]).ndim != 2:
        flatten_output(graph)
    if in_float32 is not None:
        _check_precision(exact, expected)
    return exact


def _embed_separately(model: "ModelProto", pictures: Tensor) -> Tensor:
    """Return the embeddings (N, D) of ONNX Runtime for single pictures. A fixed batch size is filled with copies."""
    session, count = open_session(model), _batch_size(model) or 1
    rows = []
    for picture in pictures:
        output = run(session, _feed(model, picture[None].expand(count, -1, -1, -1)))[0]
        if output.size % count:
            raise CaptumLeamError(
                f"expected one embedding for each of {count} images, got an output of shape {output.shape}."
            )
        rows.append(output.reshape(count, -1)[:1])
    embeddings = torch.from_numpy(np.concatenate(rows).astype(np.float32))
    if not bool(embeddings.isfinite().all()):
        raise CaptumLeamError(
            "expected finite embeddings, got NaN or infinity from ONNX Runtime. Check how the file was exported."
        )
    return embeddings


def _feed(model: "ModelProto", pictures: Tensor) -> dict[str, Any]:
    from onnx.helper import tensor_dtype_to_np_dtype

    value = model.graph.input[0]
    return {value.name: pictures.numpy().astype(tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))}


def _mixes_images(model: "ModelProto", pictures: Tensor, expected: Tensor, tolerance: float) -> bool:
    """Return whether ONNX Runtime returns different embeddings for a batch and for its single pictures."""
    count = _batch_size(model) or len(pictures)
    try:
        output = run(open_session(model), _feed(model, pictures[torch.arange(count, device="cpu") % len(pictures)]))[0]
    except ValueError:  # a graph that cannot run on a batch does not mix its images
        return False
    rows = expected[torch.arange(count, device="cpu") % len(expected)]
    if count == 1 or output.shape[:1] != (count,) or output.size != rows.numel():
        return False
    return _relative_difference(torch.from_numpy(output.astype(np.float32)).flatten(1), rows) > tolerance


def _find_difference(network: Prepared, images: Tensor, expected: Tensor) -> str | None:
    """Return the difference of the network's embeddings from the expected ones, or None if they are equal."""
    for batch in (images[:1], images):
        description, advice = "one image", ALTERNATIVES
        if len(batch) > 1:
            description = f"a batch of {len(batch)}"
            advice = f"Export the file with a dynamic batch axis. {ALTERNATIVES}"
        rows = expected[: len(batch)]
        try:
            embeddings = network(batch)
        except Exception as error:  # converted operations raise exceptions of any type
            return f"the converted network fails on {description} ({first_line(error)}). {advice}"
        shape = tuple(embeddings.shape) if isinstance(embeddings, Tensor) else type(embeddings).__name__
        if shape[:1] != (len(batch),) or embeddings.numel() != rows.numel():
            return f"expected embeddings of shape {tuple(rows.shape)} for {description}, got {shape}. {advice}"
        if not (difference := _relative_difference(embeddings.flatten(1), rows)) <= TOLERANCE:
            return (
                f"expected the converted network to equal ONNX Runtime within {TOLERANCE:g} of the largest value, got a "
                f"difference of {difference:.2g} on {description}. {advice}"
            )
    return None


def _relative_difference(embeddings: Tensor, expected: Tensor) -> float:
    """Return the largest difference as a share of the largest expected value."""
    return float((embeddings - expected).abs().max() / expected.abs().max().clamp_min(1e-12))


def _check_precision(exact: Tensor, expected: Tensor) -> None:
    """Warn that a file in half precision is computed in float32, and raise if the embeddings differ too much."""
    difference = _relative_difference(exact, expected)
    if not difference <= HALF_TOLERANCE:
        raise CaptumLeamError(
            f"expected the float32 embeddings to differ from the half-precision ones by at most {HALF_TOLERANCE:g} of the largest value, "
            f"got {difference:.2g}. Export the model in float32."
        )
    warnings.warn(
        "the file computes in half precision. The network computes in float32 with the same weights; its embeddings differ "
        f"from ONNX Runtime's on the file by up to {difference:.1g} of the largest value.",
        HalfPrecisionWarning,
        stacklevel=5,
    )


def _warn_about_division(value: str | None) -> None:
    output = "the value before the division" if value is None else f"{value!r}, the value before the division"
    warnings.warn(
        "Expected un-normalised embeddings, got embeddings of length 1, so that only the differentiated cosine can be explained, less "
        f"faithfully and not for an image's own embedding. Pass output= {output} (on the command line --output).",
        NormalisedWarning,
        stacklevel=4,
    )
