"""Import what a user names: FILE.py:name or package.module:name."""

import difflib
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from captum_leam._neighbours import Folder
from captum_leam.errors import CaptumLeamError


def made_in_code(where: str) -> Any:
    """Import an object by name; call it if it is a class or a callable without required arguments.

    An ``nn.Module`` is never called, nor is a parser that is there already. Runs the code of the file or package named.

    Args:
        where: ``FILE.py:name`` or ``package.module:name``.

    Raises:
        CaptumLeamError: with what is wrong: no such file, package or name, or code that raises.

    Example:
        >>> made_in_code("math:tau")
        6.283185307179586
    """
    source, colon, name = where.rpartition(":")
    if not colon or not source or not name:
        raise CaptumLeamError(f"model is {where!r}; expected FILE.py:callable, package.module:callable or FILE.onnx.")
    is_file = source.endswith(".py")
    folder = Folder(Path(source).resolve().parent if is_file else Path.cwd())
    with folder.loading():
        module = _from_file(folder, Path(source)) if is_file else _from_package(folder, source)
        if not hasattr(module, name):
            near = difflib.get_close_matches(name, [n for n in dir(module) if not n.startswith("_")], n=5, cutoff=0.3)
            raise CaptumLeamError(f"{source} has no {name!r}. Near it: {', '.join(near) or 'nothing'}.")
        return _make(getattr(module, name), where)


def _from_file(folder: Folder, path: Path) -> ModuleType:
    if not path.is_file():
        raise CaptumLeamError(f"{path}: there is no such file.")
    try:
        return folder.import_file(path)
    except (Exception, SystemExit) as error:  # a script that ends itself must not end the command in silence
        raise CaptumLeamError(f"{path} raised {type(error).__name__}: {folder.plain(error)}") from error


def _from_package(folder: Folder, name: str) -> ModuleType:
    try:
        return folder.import_module(name)
    except ImportError as error:
        raise CaptumLeamError(
            f"package {name!r} cannot be imported ({folder.plain(error)}). For a file, give FILE.py:callable."
        ) from error


def _make(found: Any, where: str) -> Any:
    if isinstance(found, nn.Module) or not callable(found) or _needs_arguments(found):
        return found
    try:
        return found()
    except (Exception, SystemExit) as error:
        raise CaptumLeamError(f"{where}() raised {type(error).__name__}: {error}") from error


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
