"""Exceptions and warnings of the package: what a caller can catch."""

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
    """Return the end of a message: the exact command to run next.

    Example:
        >>> next_command("pip install pillow-heif")
        'Run: pip install pillow-heif'
    """
    return f"Run: {command}"


class CaptumLeamError(ValueError):
    """An input or a request that the package refuses, with a message that says what was expected.

    Refusals of the package are of this class. A missing extra (:class:`MissingExtraError`) and too little memory
    (:class:`~captum_leam.TooLargeError`) are not, because they are no fault of the input. The command line prints all of these
    on one line; any other exception is a fault and shows its traceback.

    Attributes:
        options: Options of the command line, each with its value, with which the same command works around the error; the command line
            prints that command. Empty where there are none.

    Example:
        >>> import torch
        >>> from captum_leam import top_fraction
        >>> try:
        ...     top_fraction(torch.rand(1, 4, 4), 2.0)
        ... except CaptumLeamError as error:
        ...     print(type(error).__name__)
        CaptumLeamError
    """

    options: tuple[str, ...] = ()

    def with_options(self, *options: str) -> Self:
        """Return this error with options of the command line that work around it.

        Example:
            >>> CaptumLeamError("no face was found.").with_options("--pictures", "crops").options
            ('--pictures', 'crops')
        """
        self.options = options
        return self


class InputTypeError(CaptumLeamError, TypeError):
    """An argument of the wrong type.

    Example:
        >>> issubclass(InputTypeError, TypeError), issubclass(InputTypeError, CaptumLeamError)
        (True, True)
    """


class FileError(CaptumLeamError):
    """A file that cannot be used.

    Attributes:
        path: Path of the file, as it was given.
        reason: What is wrong with it, one sentence.

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
    """A name that no layer has.

    Example:
        >>> issubclass(UnknownLayerError, KeyError), issubclass(UnknownLayerError, CaptumLeamError)
        (True, True)
    """

    __str__ = Exception.__str__  # that of KeyError puts the message into quotes


class NoEvidenceError(CaptumLeamError):
    """A map without any positive value, which has no evidence for the match.

    Example:
        >>> issubclass(NoEvidenceError, CaptumLeamError)
        True
    """


class MissingWeightsError(CaptumLeamError):
    """Weights of a network that are not where they were looked for; the message ends with the command that fetches them.

    Example:
        >>> issubclass(MissingWeightsError, CaptumLeamError)
        True
    """


class MissingExtraError(ImportError):
    """An optional dependency that is not installed; the message ends with the command that installs it.

    Not a :class:`CaptumLeamError`: whoever skips unusable pictures and files must not skip them all for want of a package.

    Example:
        >>> issubclass(MissingExtraError, CaptumLeamError)
        False
    """

    @classmethod
    def of(cls, module: str, extra: str, error: ImportError) -> Self:
        """Return the error of a module that an extra of this package brings.

        Example:
            >>> print(MissingExtraError.of("ray", "ray", ImportError("No module named 'ray'")))
            ray cannot be imported (No module named 'ray'). Run: pip install "captum-leam[ray]"
        """
        install = next_command(f'pip install "captum-leam[{extra}]"')
        return cls(f"{module} cannot be imported ({error}). {install}")


class BrokenFileError(CaptumLeamError):
    """A file of a study that is torn, changed or of another kind, and must be made again.

    Example:
        >>> issubclass(BrokenFileError, CaptumLeamError)
        True
    """


class BusyError(CaptumLeamError):
    """A results folder that another run writes into.

    Example:
        >>> issubclass(BusyError, CaptumLeamError)
        True
    """


class ConfigError(CaptumLeamError):
    """A mistake in the configuration of a study, with its key, value, allowed values and line.

    Example:
        >>> from captum_leam.study.config import config_from
        >>> config_from({"people": ".", "models": {"a": "torch.nn:Identity"}, "seed": -1})
        Traceback (most recent call last):
            ...
        captum_leam.errors.ConfigError: Study: Expected seed to be a whole number, 0 or more, got -1.
    """


class IncompleteError(CaptumLeamError):
    """Shards that could not be made or written, or workers that died. Finished shards are kept, and the same call resumes.

    Example:
        >>> issubclass(IncompleteError, CaptumLeamError)
        True
    """


class EngineError(CaptumLeamError):
    """Workers of a study that died or cannot be reached.

    Example:
        >>> issubclass(EngineError, CaptumLeamError)
        True
    """


class UnknownWhiteError(CaptumLeamError):
    """A picture whose bit depth does not say which value is white.

    Example:
        >>> issubclass(UnknownWhiteError, CaptumLeamError)
        True
    """


class DarkPictureWarning(UserWarning):
    """A picture so dark that its bit depth may have been read wrongly.

    Example:
        >>> issubclass(DarkPictureWarning, UserWarning)
        True
    """


class ReliabilityWarning(UserWarning):
    """A gradient so small that the map would be rounding noise.

    Example:
        >>> import warnings
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("error", ReliabilityWarning)  # LEAM now raises for such maps
    """


class HalfPrecisionWarning(UserWarning):
    """An ONNX file in float16 that is computed in float32.

    Example:
        >>> import warnings
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore", HalfPrecisionWarning)  # from_onnx now loads such files without a warning
    """


class NormalisedWarning(UserWarning):
    """A network whose embeddings already have length 1.

    Example:
        >>> import warnings
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("error", NormalisedWarning)  # from_onnx now raises for such files
    """


class SeparationWarning(UserWarning):
    """A model that hardly separates people, as with a wrong preprocessing or alignment.

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
