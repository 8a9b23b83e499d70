"""Types of single settings: checks of pydantic that say what was expected."""

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from captum_leam._optional import missing_extra
from captum_leam._stores import URL_RULE, AnyPath, StorePath, as_path, is_url
from captum_leam.errors import CaptumLeamError
from captum_leam.study.yaml_reader import MAX_INTEGER

try:
    from pydantic import (
        AfterValidator,
        BeforeValidator,
        Field,
        InstanceOf,
        PlainSerializer,
        ValidationError,
        ValidationInfo,
        WrapValidator,
    )
    from pydantic_core import PydanticCustomError
except ImportError as error:
    raise missing_extra("pydantic", error) from None

PARSERS = ("template", "bisenet", "parsenet")
MODEL = "FILE.py:callable, package.module:callable or FILE.onnx"


def expected(what: str, hint: str = "", *, key: str = "") -> PydanticCustomError:
    """Return the error for a value that is not what was expected, at a key below the value that is validated."""
    return PydanticCustomError("expected", "{what}", {"what": what, "hint": hint, "key": key})


def expect(what: str) -> WrapValidator:
    """Say what was expected, whichever check fails."""

    def validate(value: Any, check: Callable[[Any], Any]) -> Any:
        try:
            return check(value)
        except ValidationError:
            raise expected(what) from None

    return WrapValidator(validate)


def not_bool(value: Any) -> Any:
    """Raise for true and false, which pydantic takes for numbers."""
    if isinstance(value, bool):
        raise ValueError
    return value


def as_text(value: Any, what: str = "a text") -> str:
    """Return a text or number as text."""
    if not isinstance(value, str | int | float | Path) or isinstance(value, bool) or not str(value).strip():
        raise expected(what)
    if "\0" in str(value):
        raise expected(f"{what} without NUL")
    return str(value)


def one_of(*allowed: str) -> BeforeValidator:
    """Check that a value is one of some texts."""

    def validate(value: Any) -> str:
        if value not in allowed:
            near = difflib.get_close_matches(str(value), allowed, n=1, cutoff=0.5)
            raise expected(f"one of {', '.join(allowed)}", f"Did you mean {near[0]!r}?" if near else "")
        return str(value)

    return BeforeValidator(validate)


def place_of(value: Any, info: ValidationInfo, what: str = "a path") -> AnyPath:
    """Return the path of a file or folder, absolute or in a store."""
    folder = info.context["folder"] if info.context else Path()
    try:
        return as_path(value if isinstance(value, StorePath) else as_text(value, what), folder)
    except CaptumLeamError:
        raise expected(what, URL_RULE) from None


def existing(what: str) -> BeforeValidator:
    """Check that a file or folder exists, and return its absolute path, or that in a store."""

    def validate(value: Any, info: ValidationInfo) -> AnyPath:
        path = place_of(value, info, what)
        problem = f"There is no {path}."
        try:
            exists = path.exists()
        except (OSError, ValueError) as error:
            exists = False
            if isinstance(error, OSError) and isinstance(path, StorePath):
                problem = f"{path} cannot be read ({error.strerror})."
        if not exists:
            raise expected(what, problem)
        return path

    return BeforeValidator(validate)


def code_of(value: Any, info: ValidationInfo, what: str) -> str:
    """Return FILE.py:name with the path of the file, or package.module:name."""
    where = as_text(value, what)
    if is_url(where):
        raise expected(what, "Code is run from local files only.")
    source, _, name = where.rpartition(":")
    path = place_of(source, info) if source else Path()
    if not source or not name:
        raise expected(what)
    if not source.endswith(".py"):
        return where
    if not path.is_file():
        raise expected(what, f"There is no {path}.")
    return f"{path}:{name}"


def model_of(value: Any, info: ValidationInfo) -> str:
    """Return FILE.onnx or FILE.py:name with the path of the file, or package.module:name."""
    if as_text(value, MODEL).endswith(".onnx"):
        return str(existing("an ONNX file").func(value, info))  # type: ignore[call-arg]
    return code_of(value, info, MODEL)


def parser_of(value: Any, info: ValidationInfo) -> str:
    """Return the name of a parser of the package, or FILE.py:name with the path of the file."""
    what = f"{', '.join(PARSERS)}, or FILE.py:callable"
    return str(value) if value in PARSERS else code_of(value, info, what)


def as_list(what: str, *, may_be_empty: bool = False) -> BeforeValidator:
    """Take a list, or one value as a list of one."""

    def validate(value: Any) -> Any:
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            return [value]
        if not isinstance(value, list | tuple) or not (value or may_be_empty):
            raise expected(what)
        return value

    return BeforeValidator(validate)


def short_for(key: str) -> BeforeValidator:
    """Take a text for a mapping with one key."""
    return BeforeValidator(lambda value: {key: str(value)} if isinstance(value, str | Path) else value)


def unique(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Leave out what is there already."""
    return tuple(dict.fromkeys(values))


Place = Path | Annotated[StorePath, InstanceOf, PlainSerializer(str, return_type=str)]
Text = Annotated[str, BeforeValidator(as_text)]
Flag = Annotated[bool, Field(strict=True), expect("true or false")]
NonNegative = Annotated[int, Field(strict=True, ge=0, le=MAX_INTEGER), expect("a whole number, 0 or more")]
Positive = Annotated[int, Field(strict=True, ge=1, le=MAX_INTEGER), expect("a whole number, 1 or more")]
TwoOrMore = Annotated[int, Field(strict=True, ge=2, le=MAX_INTEGER), expect("a whole number, 2 or more")]
Number = Annotated[float, BeforeValidator(not_bool)]  # YAML reads 1e-3 as a text
Fraction = Annotated[Number, Field(gt=0, le=1), expect("a number over 0 and at most 1")]
Unique = AfterValidator(unique)
Sorted = AfterValidator(lambda values: tuple(sorted(set(values))))
SHARES = "a list of shares of the pixels, over 0 and at most 1"
Layers = Annotated[
    tuple[Text, ...] | None,
    Unique,
    as_list("auto, or a list of names of layers"),
    WrapValidator(lambda value, check: None if value in (None, "auto") else check(value)),
]
