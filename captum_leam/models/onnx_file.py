"""Networks from ONNX files: repaired, converted to PyTorch, and proved equal to ONNX Runtime before anything is explained."""

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
    before_division,
    constants,
    fold_constants,
    keep_output,
    rename_nodes,
    set_input_shape,
    sort_nodes,
    use_float32,
)
from captum_leam.models.onnx_network import convert, flatten_output, keep_images_apart
from captum_leam.models.onnx_runtime import first_line, open_session, run
from captum_leam.models.preprocessing import Prepared, Preprocessing, smooth_images

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

TOLERANCE = 1e-4  # of the largest value of the embeddings
HALF_TOLERANCE = 0.02  # of a file that computes in float16, against the same file in float32
DEFAULT_SIZE = (112, 112)
WAY_OUT = (
    "Use the original PyTorch network, or for scores and faithfulness alone a BlackBox around an ONNX Runtime session."
)


def from_onnx(
    path: str | Path,
    preprocessing: Preprocessing | None = None,
    *,
    output: str | None = None,
) -> Prepared:
    """Load an ONNX file as a PyTorch network for batches of any size, whose layers can be hooked under readable names.

    Weights are computed where the file computes them from constants, float16 becomes float32, operators are brought to an operator
    set that the converter knows, and operations that are fixed to the batch of the export run image by image. Then images in a
    batch are compared with ONNX Runtime on the file as it is, image by image.

    Args:
        path: Path of the file.
        preprocessing: What the network expects of its pixels; most files do not say. ``INSIGHTFACE`` fits InsightFace's packs
            (``w600k_r50.onnx``, …), ``IMAGENET`` others. Default: read off a graph that begins by normalising.
        output: Name of the value that is the embedding, in a file with several outputs or one that ends by dividing by the
            length. Default: the only output.

    Returns:
        Network in evaluation mode on the CPU, from RGB (N, 3, H, W) in [0, 1] to embeddings (N, D). Its layers are named
        ``network.…``.

    Raises:
        CaptumLeamError: With the name of the file, if it is missing or broken, lacks its weights, has no image as ...
            outputs, cannot be converted, or gives other embeddings than ONNX Runtime.
        ImportError: Without onnx, onnx2torch or onnxruntime.

    Example:
        >>> from_onnx("nowhere.onnx")
        Traceback (most recent call last):
            ...
        captum_leam.errors.CaptumLeamError: nowhere.onnx: there is no such file.
    """
    path = Path(path)
    model = read_onnx(path)
    try:
        with own_arithmetic(), torch.inference_mode(False), torch.no_grad():  # whatever modes the caller has set
            return _network(model, preprocessing, output)
    except ValueError as error:
        raise CaptumLeamError(f"{path}: {error}") from None
    except (TypeError, KeyError, IndexError, AttributeError, RuntimeError) as error:  # broken, in spite of the checker
        raise CaptumLeamError(
            f"{path}: this network cannot be loaded ({type(error).__name__}: {error}). {WAY_OUT}"
        ) from None


def _network(model: "ModelProto", preprocessing: Preprocessing | None, output: str | None) -> Prepared:
    if output is not None:
        keep_output(model, output)
    size = _input_size(model)
    original = type(model)()
    original.CopyFrom(model)
    model.ir_version = max(model.ir_version, 4)  # from there on, shapes of weights that are no inputs are inferred, too
    fold_constants(model)
    is_half = use_float32(model)
    preprocessing = _declared(model, preprocessing, size)
    images = smooth_images(3, preprocessing.size or DEFAULT_SIZE)
    set_input_shape(model, (_batch(model) or 1, *preprocessing(images).shape[1:]))
    rename_nodes(model)
    network = Prepared(convert(model), preprocessing).eval().requires_grad_(False)
    embeddings = _prove(network, original, images, model if is_half else None)
    if embeddings.shape[1] > 1 and bool(((embeddings.norm(dim=1) - 1).abs() < 1e-3).all()):
        _warn_of_the_division(before_division(original))
    return network


def read_onnx(path: Path) -> "ModelProto":
    """Read and check an ONNX file.

    Args:
        path: Path of the file.

    Raises:
        CaptumLeamError: With the name of the file and the reason.

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
    except Exception as error:  # broken files make protobuf and the checker raise nearly anything
        reason = first_line(error)
        if "symbolic link" in reason:
            raise CaptumLeamError(
                f"{path}: weights beside the file are links to another folder ({reason}). Copy them beside the file."
            ) from None
        if "external" in reason.lower() or "should be stored in" in reason:
            raise CaptumLeamError(f"{path}: weights beside the file are missing ({reason}).") from None
        raise CaptumLeamError(f"{path}: this is no ONNX network that can be read ({reason}).") from None
    _normalise_inputs(model)
    return model


def _normalise_inputs(model: "ModelProto") -> None:
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]  # old files list weights as inputs
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    for dim in (dim for value in model.graph.input for dim in value.type.tensor_type.shape.dim):
        if dim.HasField("dim_value") and dim.dim_value < 1:  # 0 or −1: any length
            dim.dim_param = "any"


def _load_weights(tensor: "TensorProto", path: Path) -> None:
    """Load a tensor that lies beside an ONNX file, or beside its target where the file is a link, as in caches of downloads."""
    from onnx.external_data_helper import load_external_data_for_tensor

    location = next(entry for entry in tensor.external_data if entry.key == "location")
    beside, folder = path.parent / location.value, path.resolve().parent
    if path.is_symlink() and beside.is_symlink() and beside.resolve().parent == folder:
        location.value = beside.resolve().name
    elif beside.exists():
        folder = path.parent
    load_external_data_for_tensor(tensor, str(folder))
    tensor.data_location = tensor.DEFAULT  # onnx does this itself only in newer versions
    del tensor.external_data[:]


def _input_size(model: "ModelProto") -> tuple[int, int] | None:
    """Return (h, w) of the images that the graph reads; None if it is open."""
    from onnx import TensorProto

    inputs, outputs = [v.name for v in model.graph.input], [v.name for v in model.graph.output]
    if len(inputs) != 1:
        raise CaptumLeamError(
            f"expected one input, the image, got {len(inputs)} inputs {inputs}. Export the network for one image."
        )
    if len(outputs) != 1:
        raise CaptumLeamError(
            f"the network has {len(outputs)} outputs; say which is the embedding: output= (on the command line --output) one of {outputs}."
        )
    tensor = model.graph.input[0].type.tensor_type
    shape = [dim.dim_value for dim in tensor.shape.dim]
    kind = TensorProto.DataType.Name(tensor.elem_type)
    if len(shape) != 4 or kind not in ("FLOAT", "FLOAT16", "DOUBLE") or 3 not in (shape[1] or 3, shape[3]):
        raise CaptumLeamError(
            f"expected pictures of floating type and shape (N, 3, H, W) or (N, H, W, 3) as input, got {inputs[0]!r} of type "
            f"{kind} and shape {shape} (0 is open). Cut the network at its image input."
        )
    height, width = (shape[1], shape[2]) if _channels_last(model) else (shape[2], shape[3])
    pixels = max(shape[0], 1) * (height or DEFAULT_SIZE[0]) * (width or DEFAULT_SIZE[1])
    if max(height, width) > MAX_SIDE or pixels > MAX_PIXELS:  # such inputs are made to ask ONNX Runtime
        raise CaptumLeamError(
            f"input {inputs[0]!r} has shape {shape}; an aligned crop has at most {MAX_SIDE} px a side, a batch {MAX_PIXELS} in all."
        )
    return (height, width) if height and width else None


def _channels_last(model: "ModelProto") -> bool:
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    return bool(shape[3] == 3 and shape[1] != 3)


def _batch(model: "ModelProto") -> int:
    """Return the number of images that the input is fixed to; 0 if it is open."""
    return max(0, int(model.graph.input[0].type.tensor_type.shape.dim[0].dim_value))


def _declared(model: "ModelProto", preprocessing: Preprocessing | None, size: tuple[int, int] | None) -> Preprocessing:
    from dataclasses import replace

    if preprocessing is None:
        preprocessing = _inside(model)
    if (preprocessing.layout == "NHWC") != _channels_last(model):
        raise CaptumLeamError(
            f"preprocessing says layout {preprocessing.layout}, the file {'NHWC' if _channels_last(model) else 'NCHW'}."
        )
    if size and preprocessing.size and tuple(preprocessing.size) != size:
        raise CaptumLeamError(f"preprocessing says size {preprocessing.size}, the file {size}.")
    return replace(preprocessing, size=preprocessing.size or size)


def _inside(model: "ModelProto") -> Preprocessing:
    """Return the preprocessing for a graph that subtracts a mean first: pixels in [0, 1] or [0, 255]."""
    value = model.graph.input[0].name
    first = next((node for node in model.graph.node if value in node.input), None)
    while first is not None and first.op_type in ("Cast", "Identity"):
        value = first.output[0]
        first = next((node for node in model.graph.node if value in node.input), None)
    known = constants(model)
    if first is None or first.op_type != "Sub" or first.input[1] not in known:
        raise CaptumLeamError(
            "an ONNX file does not say what its pixels must be. Give preprocessing=: INSIGHTFACE for InsightFace's packs and "
            "most networks trained like ArcFace, IMAGENET, UNIT for RGB in [0, 1], BYTES for 0 to 255, or a Preprocessing of your "
            "own (on the command line --preprocessing insightface, imagenet, unit or bytes); verify(model, images, labels) shows "
            "whether it is right."
        )
    layout: Any = "NHWC" if _channels_last(model) else "NCHW"
    mean = np.asarray(known[first.input[1]], dtype=np.float64)
    of_bytes = float(np.abs(mean).max()) > 1
    return Preprocessing(std=(1 / 255,) * 3, layout=layout) if of_bytes else Preprocessing(layout=layout)


def _prove(network: Prepared, original: "ModelProto", images: Tensor, in_float32: "ModelProto | None") -> Tensor:
    """Refuse a network that gives anything else than ONNX Runtime does on the file, image by image.

    Args:
        network: The converted network. Operations that are fixed to a batch are changed to run image by image.
        original: The file as it is.
        images: Images (3, 3, H, W) to compare on.
        in_float32: The repaired graph, if the file computes in another precision.

    Returns:
        Embeddings (3, D) of ONNX Runtime in float32.
    """
    pictures, graph = network.preprocessing(images), cast(fx.GraphModule, network.network)
    expected = exact = _one_by_one(original, pictures)
    if in_float32 is not None:
        exact = _one_by_one(in_float32, pictures)
    difference = _difference(network, images, exact)
    if difference:
        if _mixes_images(original, pictures, expected, TOLERANCE if in_float32 is None else HALF_TOLERANCE):
            raise CaptumLeamError(
                "expected embeddings that do not depend on the other images of a batch, got others from ONNX Runtime for a "
                "batch of images than for its images alone. Export the network without operations across the batch."
            )
        with suppress(Exception):  # the modules raise whatever their operation raises; the difference is what counts
            keep_images_apart(graph, pictures, _batch(original) or 1)
        difference = _difference(network, images, exact)
    if difference:
        raise CaptumLeamError(difference)
    if network(images[:1]).ndim != 2:
        flatten_output(graph)
    if in_float32 is not None:
        _check_precision(exact, expected)
    return exact


def _one_by_one(model: "ModelProto", pictures: Tensor) -> Tensor:
    """Return what ONNX Runtime gives for pictures alone: (N, D). A batch that the file fixes is filled with copies."""
    session, count = open_session(model), _batch(model) or 1
    answers = []
    for picture in pictures:
        answer = run(session, _feed(model, picture[None].expand(count, -1, -1, -1)))[0]
        if answer.size % count:
            raise CaptumLeamError(
                f"expected one embedding for each of {count} images, got an output of shape {answer.shape}."
            )
        answers.append(answer.reshape(count, -1)[:1])
    found = torch.from_numpy(np.concatenate(answers).astype(np.float32))
    if not bool(found.isfinite().all()):
        raise CaptumLeamError(
            "expected finite embeddings, got NaN or infinity from ONNX Runtime. Check how the file was exported."
        )
    return found


def _feed(model: "ModelProto", pictures: Tensor) -> dict[str, Any]:
    from onnx.helper import tensor_dtype_to_np_dtype

    value = model.graph.input[0]
    return {value.name: pictures.numpy().astype(tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))}


def _mixes_images(model: "ModelProto", pictures: Tensor, expected: Tensor, tolerance: float) -> bool:
    """Whether ONNX Runtime gives other embeddings for pictures in a batch than for pictures alone."""
    count = _batch(model) or len(pictures)
    try:
        found = run(open_session(model), _feed(model, pictures[torch.arange(count, device="cpu") % len(pictures)]))[0]
    except ValueError:  # what cannot run on a batch does not mix it
        return False
    rows = expected[torch.arange(count, device="cpu") % len(expected)]
    if count == 1 or found.shape[:1] != (count,) or found.size != rows.numel():
        return False
    return _distance(torch.from_numpy(found.astype(np.float32)).flatten(1), rows) > tolerance


def _difference(network: Prepared, images: Tensor, expected: Tensor) -> str | None:
    """Return what is wrong with the network's embeddings of one image and of all; None if they are the expected ones."""
    for rows in (images[:1], images):
        what, way_out = "one image", WAY_OUT
        if len(rows) > 1:
            what, way_out = f"a batch of {len(rows)}", f"Export the file with a dynamic batch axis. {WAY_OUT}"
        wanted = expected[: len(rows)]
        try:
            found = network(rows)
        except Exception as error:  # onnx2torch's modules raise whatever their operation raises
            return f"the converted network fails on {what} ({first_line(error)}). {way_out}"
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        if shape[:1] != (len(rows),) or found.numel() != wanted.numel():
            return f"expected embeddings of shape {tuple(wanted.shape)} for {what}, got {shape}. {way_out}"
        if not (off := _distance(found.flatten(1), wanted)) <= TOLERANCE:
            return (
                f"expected the converted network to equal ONNX Runtime within {TOLERANCE:g} of the largest value, got a "
                f"difference of {off:.2g} on {what}. {way_out}"
            )
    return None


def _distance(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference as a share of the largest expected value."""
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-12))


def _check_precision(exact: Tensor, expected: Tensor) -> None:
    """Warn that a file in half precision is computed in float32."""
    off = _distance(exact, expected)
    if not off <= HALF_TOLERANCE:
        raise CaptumLeamError(
            f"expected embeddings in float32 within {HALF_TOLERANCE:g} of the largest value of those in half precision, got a "
            f"difference of {off:.2g}. Use the file in float32."
        )
    warnings.warn(
        "the file computes in half precision. The network computes in float32 with the same weights; its embeddings differ "
        f"from ONNX Runtime's on the file by up to {off:.1g} of the largest value.",
        HalfPrecisionWarning,
        stacklevel=5,
    )


def _warn_of_the_division(before: str | None) -> None:
    what = "the value before the division" if before is None else f"{before!r}, the value before the division"
    warnings.warn(
        "embeddings have length 1 within the network, so that only the differentiated cosine can be explained: maps "
        f"are less faithful, and an image's own embedding gives none. Give output= {what} (on the command line --output).",
        NormalisedWarning,
        stacklevel=4,
    )
