"""Load models by name: FILE.py:callable, package.module:callable or FILE.onnx."""

from dataclasses import replace
from typing import Any

from torch import nn

from captum_leam._loading import import_object
from captum_leam._stores import as_path, local_file
from captum_leam.errors import CaptumLeamError
from captum_leam.models.onnx_file import from_onnx
from captum_leam.models.preprocessing import NAMED, UNIT, Prepared, Preprocessing
from captum_leam.models.up_to import UpTo


def load_model(
    where: str, preprocessing: str | None = None, *, colour: str | None = None, output: str | None = None
) -> nn.Module:
    """Load a model from Python code or an ONNX file.

    Use it to name a model by text, as in a configuration or on the command line.

    Args:
        where: Place of the model. Allowed values:

            * ``"FILE.py:name"`` or ``"package.module:name"``: An ``nn.Module``, or a class or function without arguments that returns one.
            * ``"FILE.onnx"``: Path of an ONNX file.
        preprocessing: Preprocessing of the network: ``"insightface"``, ``"imagenet"``, ``"unit"`` or ``"bytes"``. Default: None, for RGB
            in [0, 1]. Most ONNX files require it, see :func:`~captum_leam.models.from_onnx`.
        colour: Channel order of the network's training data, ``"rgb"`` or ``"bgr"``. Default: that of the preprocessing.
        output: Name of the layer, or of the value in an ONNX file, whose output is the embedding. Use it for models that process the
            embedding further, for example by L2 normalisation. Default: None, for the model's output.

    Returns:
        Model in evaluation mode, an ``nn.Module`` that accepts RGB images in [0, 1].

    Raises:
        CaptumLeamError: If the file, package or name does not exist, the code raises, or the result is not an ``nn.Module``.

    See Also:
        * :func:`~captum_leam.models.from_onnx`: ONNX files.
        * :class:`~captum_leam.models.Prepared`: A network in memory with its preprocessing.

    Note:
        Python code that the name refers to is executed, so load only code that you trust.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import torch
        >>> code = "from torchvision.models import resnet18; network = resnet18(num_classes=128)"
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "mine.py").write_text(code)
        ...     model = load_model(f"{folder}/mine.py:network", "imagenet")
        >>> model(torch.zeros(1, 3, 112, 112)).shape
        torch.Size([1, 128])
    """
    if preprocessing is not None and preprocessing not in NAMED:
        raise CaptumLeamError(f"Expected preprocessing to be one of {', '.join(NAMED)}, got {preprocessing!r}.")
    if colour not in (None, "rgb", "bgr"):
        raise CaptumLeamError(f"Expected colour to be rgb or bgr, got {colour!r}.")
    named = None if preprocessing is None else NAMED[preprocessing]
    if where.endswith(".onnx"):
        with local_file(as_path(where)) as file:
            prepared = from_onnx(file, named, output=output)
        return prepared if colour is None else Prepared(prepared.network, _with_colour(prepared.preprocessing, colour))
    model = import_object(where)
    if not isinstance(model, nn.Module):
        raise CaptumLeamError(
            f"Expected {where} to be a torch.nn.Module that returns embeddings, got a {type(model).__name__}."
        )
    model = model.eval() if output is None else UpTo(model.eval(), output)
    if named is None and colour is None:
        return model
    return Prepared(model, named or UNIT if colour is None else _with_colour(named or UNIT, colour))


def _with_colour(preprocessing: Preprocessing, colour: Any) -> Preprocessing:
    return replace(preprocessing, colour=colour)
