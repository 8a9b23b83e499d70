"""Import of objects that users name as FILE.py:name or package.module:name."""

import difflib
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from captum_leam._neighbours import Folder
from captum_leam.errors import CaptumLeamError


def import_object(where: str) -> Any:
    """Import an object by name, and call it if it is a class or a callable without required arguments.

    The code of the file or package is executed. An ``nn.Module`` is never called, nor is a callable with required arguments such as a
    parser.

    Args:
        where: ``FILE.py:name`` or ``package.module:name``.

    Returns:
        The object, or the result of the call.

    Raises:
        CaptumLeamError: If there is no such file, package or name, or if its code raises.

    Example:
        >>> import_object("math:tau")
        6.283185307179586
    """
    source, colon, name = where.rpartition(":")
    if not colon or not source or not name:
        raise CaptumLeamError(
            f"Expected the model as FILE.py:callable, package.module:callable or FILE.onnx, got {where!r}."
        )
    is_file = source.endswith(".py")
    folder = Folder(Path(source).resolve().parent if is_file else Path.cwd())
    with folder.loading():
        module = _from_file(folder, Path(source)) if is_file else _from_package(folder, source)
        if not hasattr(module, name):
            near = difflib.get_close_matches(name, [n for n in dir(module) if not n.startswith("_")], n=5, cutoff=0.3)
            raise CaptumLeamError(
                f"Expected the name of an object in {source}, got {name!r}. Similar names: {', '.join(near) or 'none'}."
            )
        return _call_if_factory(getattr(module, name), where)


def _from_file(folder: Folder, path: Path) -> ModuleType:
    if not path.is_file():
        raise CaptumLeamError(f"{path}: there is no such file.")
    try:
        return folder.import_file(path)
    except (Exception, SystemExit) as error:  # a script that calls sys.exit must not end the command without a message
        raise CaptumLeamError(f"{path} raised {type(error).__name__}: {folder.plain(error)}") from error


def _from_package(folder: Folder, name: str) -> ModuleType:
    try:
        return folder.import_module(name)
    except ImportError as error:
        raise CaptumLeamError(
            f"The package {name!r} cannot be imported ({folder.plain(error)}). Install it, or pass FILE.py:callable for a file."
        ) from error


def _call_if_factory(value: Any, where: str) -> Any:
    if isinstance(value, nn.Module) or not callable(value) or _has_required_arguments(value):
        return value
    try:
        return value()
    except (Exception, SystemExit) as error:
        raise CaptumLeamError(f"{where}() raised {type(error).__name__}: {error}") from error


def _has_required_arguments(value: Any) -> bool:
    """Return whether a callable has required arguments, as a parser has and a function that makes one has not."""
    if inspect.isclass(value):
        return False
    try:
        parameters = inspect.signature(value).parameters.values()
    except ValueError:  # callables written in C may have no signature
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(p.default is p.empty and p.kind in positional for p in parameters)
