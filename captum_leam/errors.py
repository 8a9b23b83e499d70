"""Exceptions and warnings that callers of the package can catch."""

from pathlib import Path
from typing import Self

__all__ = [
    "BrokenFileError",
    "BusyError",
    "CaptumLeamError",
    "ConfigError",
    "DarkPictureWarning",
    "EngineError",
    "FileError",
    "HalfPrecisionWarning",
    "IncompleteError",
    "InputTypeError",
    "MissingExtraError",
    "MissingWeightsError",
    "NoEvidenceError",
    "NormalisedWarning",
    "ReliabilityWarning",
    "SeparationWarning",
    "UnknownLayerError",
    "UnknownWhiteError",
]


def next_command(command: str) -> str:
    """Return the end of a message with the command to run next.

    Args:
        command: Command line.

    Example:
        >>> next_command("pip install pillow-heif")
        'Run: pip install pillow-heif'
    """
    return f"Run: {command}"


class CaptumLeamError(ValueError):
    """Error raised if an input or request is invalid.

    Catch this class to handle all errors that the package raises for inputs. Its message states what was expected, what was passed and what
    to do. A missing extra (:class:`MissingExtraError`) and insufficient memory (:class:`~captum_leam.TooLargeError`) are not of this class,
    because the input is not their cause.

    Attributes:
        options: Options of the command line that work around the error, each followed by its value. The command line suggests the same
            command with these options. Default: ``()``.

    Example:
        >>> import torch
        >>> from captum_leam import top_fraction
        >>> try:
        ...     top_fraction(torch.ones(1, 4, 4), 2.0)
        ... except CaptumLeamError as error:
        ...     print(error)
        Expected fraction to be a share of the pixels in (0, 1], got 2.0. For 1 %, pass 0.01.
    """

    options: tuple[str, ...] = ()

    def with_options(self, *options: str) -> Self:
        """Return this error with options of the command line that work around it.

        Args:
            *options: Options, each followed by its value.

        Returns:
            This error, so that it can be raised in the same line.

        Example:
            >>> CaptumLeamError("no face was found.").with_options("--pictures", "crops").options
            ('--pictures', 'crops')
        """
        self.options = options
        return self


class InputTypeError(CaptumLeamError, TypeError):
    """Error raised if an argument has the wrong type.

    Example:
        >>> import torch
        >>> from captum_leam import suggest_layers
        >>> suggest_layers("resnet18", torch.zeros(2, 3, 112, 112))
        Traceback (most recent call last):
            ...
        captum_leam.errors.InputTypeError: Expected model to be a torch.nn.Module, got a str.
    """


class FileError(CaptumLeamError):
    """Error raised if a file cannot be used.

    Args:
        path: Path of the file, as the caller passed it.
        reason: Reason in one sentence.

    Attributes:
        path: Path of the file.
        reason: Reason.

    Example:
        >>> error = FileError("ann.png", "the file is empty.")
        >>> str(error), error.reason
        ('ann.png: the file is empty.', 'the file is empty.')
    """

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class UnknownLayerError(CaptumLeamError, KeyError):
    """Error raised if a model has no layer of a given name.

    Example:
        >>> from torch import nn
        >>> from captum_leam.layers import get_layer
        >>> get_layer(nn.Sequential(nn.ReLU()), "relu")
        Traceback (most recent call last):
            ...
        captum_leam.errors.UnknownLayerError: Expected the name of a layer of the model, got 'relu'. ...
    """

    __str__ = Exception.__str__  # that of KeyError puts the message into quotes


class NoEvidenceError(CaptumLeamError):
    """Error raised if a map has no positive value, and therefore no evidence for the match.

    Example:
        >>> import torch
        >>> from captum_leam.maps import normalize_sum
        >>> normalize_sum(torch.zeros(1, 2, 2))
        Traceback (most recent call last):
            ...
        captum_leam.errors.NoEvidenceError: Expected maps with a positive value, got no positive value in maps [0]. ...
    """


class MissingWeightsError(CaptumLeamError):
    """Error raised if weights are not found. The message ends with the command that downloads them.

    Example:
        >>> issubclass(MissingWeightsError, CaptumLeamError)
        True
    """


class MissingExtraError(ImportError):
    """Error raised if an optional dependency is not installed. The message ends with the command that installs it.

    It is not a :class:`CaptumLeamError`, so that code that skips unusable files still stops if a package is missing.

    Example:
        >>> issubclass(MissingExtraError, CaptumLeamError)
        False
    """

    @classmethod
    def of(cls, module: str, extra: str, error: ImportError) -> Self:
        """Return the error of a module that an extra of this package installs.

        Args:
            module: Name of the module that cannot be imported, e.g. ``"ray"``.
            extra: Name of the extra of this package that installs it.
            error: Error that the import raised.

        Returns:
            Error whose message ends with the command that installs the extra.

        Example:
            >>> print(MissingExtraError.of("ray", "ray", ImportError("No module named 'ray'")))
            ray cannot be imported (No module named 'ray'). Run: pip install "captum-leam[ray]"
        """
        install = next_command(f'pip install "captum-leam[{extra}]"')
        return cls(f"{module} cannot be imported ({error}). {install}")


class BrokenFileError(CaptumLeamError):
    """Error raised if a file of a study is missing, truncated or changed, and must be recomputed.

    Example:
        >>> from captum_leam.study import StudyResult
        >>> StudyResult("/nowhere").manifest
        Traceback (most recent call last):
            ...
        captum_leam.errors.BrokenFileError: /nowhere: expected a finished study, got no valid manifest.json. ...
    """


class BusyError(CaptumLeamError):
    """Error raised if another run writes to the results folder.

    Example:
        >>> issubclass(BusyError, CaptumLeamError)
        True
    """


class ConfigError(CaptumLeamError):
    """Error raised if the configuration of a study is invalid. The message has the key, its value, the allowed values and the line.

    Example:
        >>> from captum_leam.study.config import config_from
        >>> config_from({"people": ".", "models": {"a": "torch.nn:Identity"}, "seed": -1})
        Traceback (most recent call last):
            ...
        captum_leam.errors.ConfigError: Study: Expected seed to be a whole number, 0 or more, got -1.
    """


class IncompleteError(CaptumLeamError):
    """Error raised if some shards of a study could not be computed or written. The same call resumes from the finished shards.

    Example:
        >>> issubclass(IncompleteError, CaptumLeamError)
        True
    """


class EngineError(CaptumLeamError):
    """Error raised if workers of a study exit early or cannot be reached.

    Example:
        >>> issubclass(EngineError, CaptumLeamError)
        True
    """


class UnknownWhiteError(CaptumLeamError):
    """Error raised if the bit depth of a picture does not determine which value is white.

    Example:
        >>> issubclass(UnknownWhiteError, CaptumLeamError)
        True
    """


class DarkPictureWarning(UserWarning):
    """Warning issued if a picture is so dark that its bit depth may be wrong.

    Example:
        >>> issubclass(DarkPictureWarning, UserWarning)
        True
    """


class ReliabilityWarning(UserWarning):
    """Warning issued if a gradient is so small that the map would be rounding noise.

    Example:
        >>> import warnings
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("error", ReliabilityWarning)  # LEAM now raises for such maps
    """


class HalfPrecisionWarning(UserWarning):
    """Warning issued if an ONNX file in float16 is computed in float32.

    Example:
        >>> import warnings
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore", HalfPrecisionWarning)  # from_onnx now loads such files without a warning
    """


class NormalisedWarning(UserWarning):
    """Warning issued if a network returns embeddings of length 1, for which maps are less faithful.

    Explain the part of the network before the normalisation instead.

    Example:
        >>> import warnings
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("error", NormalisedWarning)  # from_onnx now raises for such files
    """


class SeparationWarning(UserWarning):
    """Warning issued if a model hardly separates people, as with a wrong preprocessing or alignment.

    Example:
        >>> import warnings, torch
        >>> from captum_leam.verification import verify
        >>> images, people = torch.eye(4).view(4, 4, 1, 1), ["ann", "ann", "bob", "bob"]
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     _ = verify(torch.nn.Flatten(), images, people)  # all cosines are 0
        >>> caught[0].category.__name__
        'SeparationWarning'
    """
