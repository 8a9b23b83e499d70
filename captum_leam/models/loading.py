"""Models named on a command line: FILE.py:callable, package.module:callable or FILE.onnx."""

import difflib
import inspect
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from captum_leam.models.neighbours import Folder
from captum_leam.models.onnx_file import from_onnx
from captum_leam.models.preprocessing import NAMED, UNIT, Prepared, Preprocessing
from captum_leam.models.up_to import UpTo


def load_model(
    where: str, preprocessing: str | None = None, *, colour: str | None = None, output: str | None = None
) -> nn.Module:
    """Load a model: a module, a class of one without arguments, a function that returns one, or an ONNX file.

    It is put in evaluation mode. All but ONNX files runs the code of the file or package named. Modules beside a file, or in the
    current folder for a package there, are imported anew and for this model alone, see
    :class:`~captum_leam.models.neighbours.Folder`.

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
        ValueError: with what is wrong: no such file, package or name, code that raises, or something that is no model.

    Example:
        >>> type(load_model("torch.nn:Identity")).__name__
        'Identity'
    """
    if preprocessing is not None and preprocessing not in NAMED:
        raise ValueError(f"preprocessing is {preprocessing!r}; needed is one of {', '.join(NAMED)}.")
    if colour not in (None, "rgb", "bgr"):
        raise ValueError(f"colour is {colour!r}; needed is rgb or bgr.")
    wanted = None if preprocessing is None else NAMED[preprocessing]
    if where.endswith(".onnx"):
        loaded = from_onnx(where, wanted, output=output)
        return loaded if colour is None else Prepared(loaded.network, _coloured(loaded.preprocessing, colour))
    model = made_in_code(where)
    if not isinstance(model, nn.Module):
        raise ValueError(f"{where} gave a {type(model).__name__}; needed is a torch.nn.Module that returns embeddings.")
    model = model.eval() if output is None else UpTo(model.eval(), output)
    if wanted is None and colour is None:
        return model
    return Prepared(model, wanted or UNIT if colour is None else _coloured(wanted or UNIT, colour))


def _coloured(preprocessing: Preprocessing, colour: Any) -> Preprocessing:
    return replace(preprocessing, colour=colour)


def made_in_code(where: str) -> Any:
    """What a file or package holds under a name; of a class, or a callable that needs no arguments, what it returns.

    An ``nn.Module`` is never called, nor is a parser that is there already. Runs the code of the file or package named.

    Args:
        where: ``FILE.py:name`` or ``package.module:name``.

    Raises:
        ValueError: with what is wrong: no such file, package or name, or code that raises.

    Example:
        >>> made_in_code("math:tau")
        6.283185307179586
    """
    source, colon, name = where.rpartition(":")
    if not colon or not source or not name:
        raise ValueError(f"model is {where!r}; needed is FILE.py:callable, package.module:callable or FILE.onnx.")
    is_file = source.endswith(".py")
    folder = Folder(Path(source).resolve().parent if is_file else Path.cwd())
    with folder.loading():
        module = _from_file(folder, Path(source)) if is_file else _from_package(folder, source)
        if not hasattr(module, name):
            near = difflib.get_close_matches(name, [n for n in dir(module) if not n.startswith("_")], n=5, cutoff=0.3)
            raise ValueError(f"{source} has no {name!r}. Near it: {', '.join(near) or 'nothing'}.")
        return _make(getattr(module, name), where)


def _from_file(folder: Folder, path: Path) -> ModuleType:
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file.")
    try:
        return folder.import_file(path)
    except (Exception, SystemExit) as error:  # a script that ends itself must not end the command in silence
        raise ValueError(f"{path} raised {type(error).__name__}: {folder.plain(error)}") from error


def _from_package(folder: Folder, name: str) -> ModuleType:
    try:
        return folder.import_module(name)
    except ImportError as error:
        raise ValueError(
            f"package {name!r} cannot be imported ({folder.plain(error)}). For a file, give FILE.py:callable."
        ) from error


def _make(found: Any, where: str) -> Any:
    if isinstance(found, nn.Module) or not callable(found) or _needs_arguments(found):
        return found
    try:
        return found()
    except (Exception, SystemExit) as error:
        raise ValueError(f"{where}() raised {type(error).__name__}: {error}") from error


def _needs_arguments(found: Any) -> bool:
    """Whether it is to be used as it is, such as a parser, rather than something that makes one."""
    if inspect.isclass(found):
        return False
    try:
        parameters = inspect.signature(found).parameters.values()
    except ValueError:  # written in C, without a signature
        return False
    given = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(p.default is p.empty and p.kind in given for p in parameters)
