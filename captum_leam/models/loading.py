"""Models named on a command line: FILE.py:callable, package.module:callable or FILE.onnx."""

from dataclasses import replace
from typing import Any

from torch import nn

from captum_leam._loading import made_in_code
from captum_leam._stores import as_path, local_file
from captum_leam.errors import CaptumLeamError
from captum_leam.models.onnx_file import from_onnx
from captum_leam.models.preprocessing import NAMED, UNIT, Prepared, Preprocessing
from captum_leam.models.up_to import UpTo


def load_model(
    where: str, preprocessing: str | None = None, *, colour: str | None = None, output: str | None = None
) -> nn.Module:
    """Load a model: a module, a class of one without arguments, a function that returns one, or an ONNX file.

    It is put in evaluation mode. All but ONNX files runs the code of the file or package named. Modules beside a file, or in the
    current folder for a package there, are imported anew and for this model alone, see
    :class:`~captum_leam._neighbours.Folder`.

    Args:
        where: ``FILE.py:name``, ``package.module:name`` or ``FILE.onnx``.
        preprocessing: ``"insightface"``, ``"imagenet"``, ``"unit"`` or ``"bytes"``, what the network wants its pixels to be; by
            default it takes RGB in [0, 1]. Most ONNX files need it: see :func:`~captum_leam.models.from_onnx`.
        colour: ``"rgb"`` or ``"bgr"``, the order that the network was trained with; by default that of the preprocessing.
        output: what the embedding is, for models that go on after it (dividing by the length, mostly): the name of a layer, or of
            a value in an ONNX file.

    Returns:
        The model, in evaluation mode.

    Raises:
        CaptumLeamError: with what is wrong: no such file, package or name, code that raises, or something that is ...

    Example:
        >>> type(load_model("torch.nn:Identity")).__name__
        'Identity'
    """
    if preprocessing is not None and preprocessing not in NAMED:
        raise CaptumLeamError(f"preprocessing is {preprocessing!r}; expected one of {', '.join(NAMED)}.")
    if colour not in (None, "rgb", "bgr"):
        raise CaptumLeamError(f"colour is {colour!r}; expected rgb or bgr.")
    wanted = None if preprocessing is None else NAMED[preprocessing]
    if where.endswith(".onnx"):
        with local_file(as_path(where)) as file:
            loaded = from_onnx(file, wanted, output=output)
        return loaded if colour is None else Prepared(loaded.network, _coloured(loaded.preprocessing, colour))
    model = made_in_code(where)
    if not isinstance(model, nn.Module):
        raise CaptumLeamError(
            f"{where} gave a {type(model).__name__}; expected a torch.nn.Module that returns embeddings."
        )
    model = model.eval() if output is None else UpTo(model.eval(), output)
    if wanted is None and colour is None:
        return model
    return Prepared(model, wanted or UNIT if colour is None else _coloured(wanted or UNIT, colour))


def _coloured(preprocessing: Preprocessing, colour: Any) -> Preprocessing:
    return replace(preprocessing, colour=colour)
