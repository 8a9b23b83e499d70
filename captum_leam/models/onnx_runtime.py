"""Run ONNX models with ONNX Runtime, as the reference of converted networks."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from captum_leam._optional import import_optional
from captum_leam.errors import CaptumLeamError

if TYPE_CHECKING:
    from onnx import ModelProto

Array = NDArray[np.generic]


def open_session(model: "ModelProto") -> Any:
    """Open an ONNX Runtime session of a model, on one thread of the CPU.

    Args:
        model: Model with its weights in memory.

    Raises:
        CaptumLeamError: If ONNX Runtime cannot run the model.

    Example:
        >>> from onnx import ModelProto
        >>> open_session(ModelProto())
        Traceback (most recent call last):
        ...
        captum_leam.errors.CaptumLeamError: ONNX Runtime cannot run this network (...).
    """
    runtime = import_optional("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # failures are raised, so that they need not be logged as well
    options.intra_op_num_threads = 1
    try:
        return runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises exceptions of its own, some with very long messages
        raise CaptumLeamError(f"ONNX Runtime cannot run this network ({first_line(error)}).") from None


def run(session: Any, inputs: Mapping[str, Array]) -> list[Array]:
    """Compute the outputs of a session.

    Args:
        session: Session of :func:`open_session`.
        inputs: Array for the name of each input.

    Returns:
        Arrays in the order of the outputs.

    Raises:
        CaptumLeamError: If ONNX Runtime fails on the inputs.
    """
    try:
        return list(session.run(None, dict(inputs)))
    except Exception as error:
        raise CaptumLeamError(f"ONNX Runtime cannot run this network ({first_line(error)}).") from None


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, at most 200 characters.

    A KeyError, whose message is only the key, is preceded by its type. An error without a message yields its type.

    Args:
        error: Exception whose message is shortened.

    Example:
        >>> first_line(KeyError("w")), first_line(ValueError("no way")), first_line(RuntimeError())
        ("KeyError: 'w'", 'no way', 'RuntimeError')
    """
    name, lines = type(error).__name__, str(error).strip().splitlines()
    if not lines:
        return name
    return (f"{name}: " if isinstance(error, KeyError) else "") + lines[0][:200]
