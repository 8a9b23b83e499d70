"""Import of optional packages on first use, with an error that names the command that installs a missing one."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from captum_leam.errors import MissingExtraError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["EXTRAS", "import_optional", "missing_extra", "pd"]

EXTRAS = {
    "typer": "cli,report",
    "rich": "cli,report",
    "jinja2": "report",
    "matplotlib": "report",
    "pandas": "report",
    "PIL": "report",
    "skimage": "report",
    "facexlib": "face",
    "onnx": "onnx",
    "onnx2torch": "onnx",
    "onnxruntime": "onnx",
    "joblib": "study",
    "pyarrow": "study",
    "pydantic": "study",
    "safetensors": "study",
    "threadpoolctl": "study",
    "yaml": "study",
    "ray": "ray",
    "fsspec": "cloud",
    "s3fs": "cloud",
}
"""Extra that installs each package, by the name of its top-level module."""


def missing_extra(module: str, error: ImportError) -> MissingExtraError:
    """Return the error that names the command that installs a missing module.

    Args:
        module: Dotted name of a module of one of the packages in :data:`EXTRAS`.
        error: Error that its import raised.

    Example:
        >>> str(missing_extra("ray.util", ImportError("No module named 'ray'"))).partition(". ")[0]
        "ray.util cannot be imported (No module named 'ray')"
    """
    return MissingExtraError.of(module, EXTRAS[module.partition(".")[0]], error)


def import_optional(module: str) -> Any:
    """Import a module of an optional dependency, and name the install command if it is missing.

    Args:
        module: Dotted name of a module of one of the packages in :data:`EXTRAS`.

    Returns:
        Imported module.

    Raises:
        MissingExtraError: If it cannot be imported; the message has the command that installs it.

    Example:
        >>> import_optional("jinja2").__name__
        'jinja2'
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise missing_extra(module, error) from error


class _Lazy(ModuleType):
    """Stand-in for a module of an extra that is imported when one of its names is used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # inspection, as by doctest or pickle, imports nothing
            raise AttributeError(name)
        return getattr(import_optional(self.__name__), name)


if not TYPE_CHECKING:
    pd = _Lazy("pandas")
