"""Models named on a command line: FILE.py:callable or package.module:callable."""

import difflib
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn


def load_model(where: str) -> nn.Module:
    """Load a model: a module, a class of one without arguments, or a function that returns one. It is put in evaluation mode.

    This runs the code of the file or package named.

    Args:
        where: ``FILE.py:name`` or ``package.module:name``.

    Returns:
        The model, in evaluation mode.

    Raises:
        ValueError: with what is wrong: no such file, package or name, code that raises, or something that is no model.

    Example:
        >>> type(load_model("torch.nn:Identity")).__name__
        'Identity'
    """
    source, colon, name = where.rpartition(":")
    if not colon or not source or not name:
        raise ValueError(f"model is {where!r}; needed is FILE.py:callable or package.module:callable.")
    module = _from_file(Path(source)) if source.endswith(".py") else _from_package(source)
    if not hasattr(module, name):
        near = difflib.get_close_matches(name, [n for n in dir(module) if not n.startswith("_")], n=5, cutoff=0.3)
        raise ValueError(f"{source} has no {name!r}. Near it: {', '.join(near) or 'nothing'}.")
    made = _make(getattr(module, name), where)
    if not isinstance(made, nn.Module):
        raise ValueError(f"{where} gave a {type(made).__name__}; needed is a torch.nn.Module that returns embeddings.")
    return made.eval()


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file.")
    spec = importlib.util.spec_from_file_location(f"captum_leam_model_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path}: this is no Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickles in the file look themselves up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"{path} raised {type(error).__name__}: {error}") from error
    return module


def _from_package(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(
            f"package {name!r} cannot be imported ({error}). For a file, give FILE.py:callable."
        ) from error


def _make(found: Any, where: str) -> Any:
    if isinstance(found, nn.Module) or not callable(found):
        return found
    try:
        return found()
    except Exception as error:
        raise ValueError(f"{where}() raised {type(error).__name__}: {error}") from error
