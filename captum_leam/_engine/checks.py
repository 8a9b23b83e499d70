"""Checks of arguments, and checks of tensor values that are deferred to the end of a call.

Reading a value of a tensor makes the processor wait until the device has finished all queued work. A dozen such reads between the
operations of a pass leave a GPU idle. Checks are therefore gathered, and a single read at the end shows whether any of them failed.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar, copy_context
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from captum_leam.errors import CaptumLeamError, InputTypeError

Rows = list[int]
_Check = tuple[Tensor, Callable[[Rows], None]]

_DEFERRED: ContextVar[list[_Check] | None] = ContextVar("deferred", default=None)
_CALLER_ROWS: ContextVar[tuple[Callable[[Rows], Rows], ...]] = ContextVar("caller_rows", default=())


@contextmanager
def rows_of_caller(renumber: Callable[[Rows], Rows]) -> Iterator[None]:
    """Context manager in which messages name rows of the caller's batch instead of rows of an inner batch.

    Blocks can be nested; the numbers of the innermost block are translated first.

    Args:
        renumber: Function from row numbers of the inner batch to row numbers of the batch around it. Rows that it omits are not the
            caller's, so that no message names them and nothing is raised for them alone.

    Example:
        >>> drawn_order = [2, 0, 1]
        >>> with rows_of_caller(lambda rows: [drawn_order[row] for row in rows]):
        ...     call_if_any(torch.tensor([True, False, False]), print)
        [2]
    """
    token = _CALLER_ROWS.set((*_CALLER_ROWS.get(), renumber))
    try:
        yield
    finally:
        _CALLER_ROWS.reset(token)


def rows_from(start: int) -> AbstractContextManager[None]:
    """Return :func:`rows_of_caller` for a batch that begins at a row of the batch around it.

    Args:
        start: Number of the first row.

    Example:
        >>> with rows_from(64):
        ...     call_if_any(torch.tensor([False, True]), print)
        [65]
    """
    return rows_of_caller(lambda rows: [start + row for row in rows])


def all_of_row(number: int) -> AbstractContextManager[None]:
    """Return :func:`rows_of_caller` for a batch made from a single row of the batch around it.

    Args:
        number: Number of the row.

    Example:
        >>> with all_of_row(7):
        ...     call_if_any(torch.tensor([True, True]), print)
        [7]
    """
    return rows_of_caller(lambda rows: [number])


def caller_rows(rows: Rows) -> Rows:
    """Return the caller's numbers of rows of an inner batch, sorted and without repetitions.

    Example:
        >>> with rows_of_caller(lambda rows: [row // 4 for row in rows]):  # four perturbed copies of each image
        ...     caller_rows([5, 6, 9])
        [1, 2]
    """
    for renumber in reversed(_CALLER_ROWS.get()):
        rows = sorted(set(renumber(rows)))
    return rows


def check_choice(name: str, value: Any, choices: Iterable[str]) -> None:
    """Raise if an option is not one of its values.

    Args:
        name: Name of the option, for the message.
        value: Value of the option.
        choices: Allowed values.

    Example:
        >>> check_choice("norm", ["fixed"], ("detach", "fixed"))
        Traceback (most recent call last):
        ...
        captum_leam.errors.CaptumLeamError: Expected norm to be one of 'detach', 'fixed', got ['fixed'].
    """
    if not isinstance(value, str) or value not in choices:
        raise CaptumLeamError(f"Expected {name} to be one of {', '.join(map(repr, choices))}, got {value!r}.")


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Raise if an option is not a whole number of a minimum size.

    Args:
        name: Name of the option, for the message.
        value: Value of the option.
        least: Minimum. Default: 1.

    Example:
        >>> check_count("batch_size", 0)
        Traceback (most recent call last):
        ...
        captum_leam.errors.CaptumLeamError: Expected batch_size to be a whole number, 1 or more, got 0.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise CaptumLeamError(f"Expected {name} to be a whole number, {least} or more, got {value!r}.")


def check_field(field: Any, size: tuple[int, int]) -> None:
    """Raise if a field is not a rectangle inside images of a size.

    Args:
        field: (top, left, height, width) in pixels.
        size: (H, W) of the images.

    Raises:
        InputTypeError: If the field is not a sequence of whole numbers.
        CaptumLeamError: If it is not inside the images.

    Example:
        >>> check_field((0, 8, 112, 112), (112, 112))
        Traceback (most recent call last):
        ...
        captum_leam.errors.CaptumLeamError: Expected field to be (top, left, height, width) inside images of 112 × 112 px, got (0, 8, ...
    """
    message = (
        f"Expected field to be (top, left, height, width) inside images of {size[0]} × {size[1]} px, got {field!r}."
    )
    if not isinstance(field, Sequence) or not all(isinstance(side, Integral) for side in field):
        raise InputTypeError(message)
    if (
        len(field) != 4
        or min(field[:2]) < 0
        or min(field[2:]) < 1
        or any(field[i] + field[i + 2] > size[i] for i in (0, 1))
    ):
        raise CaptumLeamError(message)


def check_tensor(images: Any, name: str = "inputs") -> None:
    """Raise if an argument is not a tensor.

    Args:
        images: Value of the argument.
        name: Name of the argument, for the message. Default: ``"inputs"``.

    Example:
        >>> check_tensor([torch.zeros(3, 2, 2)], "x")
        Traceback (most recent call last):
        ...
        captum_leam.errors.InputTypeError: Expected x to be a tensor (N, C, H, W), got list. Pass torch.stack(x).
    """
    if not isinstance(images, Tensor):
        call = f"torch.from_numpy({name})" if type(images).__name__ == "ndarray" else f"torch.stack({name})"
        raise InputTypeError(f"Expected {name} to be a tensor (N, C, H, W), got {type(images).__name__}. Pass {call}.")


def check_images(images: Any, name: str = "inputs") -> None:
    """Raise if an argument is not a batch of images.

    Args:
        images: Value of the argument.
        name: Name of the argument, for the message. Default: ``"inputs"``.

    Raises:
        InputTypeError: If it is not a floating-point tensor.
        CaptumLeamError: If the shape is not (N, C, H, W), or if there is no image.

    Example:
        >>> check_images(torch.zeros(1, 3, 112, 112, dtype=torch.uint8), "x")
        Traceback (most recent call last):
        ...
        captum_leam.errors.InputTypeError: Expected x to be a floating-point tensor (N, C, H, W), got a tensor of torch.uint8. Pass ...
    """
    check_tensor(images, name)
    if not torch.is_floating_point(images):
        raise InputTypeError(
            f"Expected {name} to be a floating-point tensor (N, C, H, W), got a tensor of {images.dtype}. Pass {name}.float() / 255, or "
            "the scale that the model takes."
        )
    if images.ndim != 4 or not images.numel():
        raise CaptumLeamError(
            f"Expected {name} to have shape (N, C, H, W) with one image or more, got {tuple(images.shape)}. Pass a single image as "
            f"{name}[None]."
        )


def raise_if_any(bad: Tensor, message: Callable[[Rows], str]) -> None:
    """Raise if any row is flagged, now or when the enclosing block of :func:`deferred_checks` exits.

    Args:
        bad: Flags of the rows, booleans (N,).
        message: Function from the numbers of the flagged rows to the message.

    Raises:
        CaptumLeamError: If any row is flagged.

    Example:
        >>> raise_if_any(torch.tensor([False, True]), lambda rows: f"rows {rows} are bad")
        Traceback (most recent call last):
        ...
        captum_leam.errors.CaptumLeamError: rows [1] are bad
    """

    def raise_error(rows: Rows) -> None:
        raise CaptumLeamError(message(rows))

    call_if_any(bad, raise_error)


def call_if_any(flagged: Tensor, act: Callable[[Rows], None]) -> None:
    """Call a function with the numbers of the flagged rows if there are any, now or when the enclosing deferred block exits.

    Args:
        flagged: Flags of the rows, booleans (N,).
        act: Function of the numbers of the flagged rows.

    Example:
        >>> call_if_any(torch.tensor([False, True]), print)
        [1]
    """
    deferred = _DEFERRED.get()
    context = copy_context()  # with the numbering of this moment, whose blocks have ended when a deferred check runs

    def act_on_caller_rows(rows: Rows) -> None:
        if numbers := context.run(caller_rows, rows):
            act(numbers)

    if deferred is None:
        _run_checks([(flagged, act_on_caller_rows)])
    else:
        deferred.append((flagged, act_on_caller_rows))


@contextmanager
def deferred_checks() -> Iterator[None]:
    """Context manager that runs the checks of a block when it exits, with a single read of the device.

    If several checks fail, the first one registered is raised. Checks of a nested block run when the outer block exits.

    Example:
        >>> with deferred_checks():
        ...     call_if_any(torch.tensor([True]), print)
        ...     print("after the check")
        after the check
        [0]
    """
    if _DEFERRED.get() is not None:
        yield
        return
    checks: list[_Check] = []
    token = _DEFERRED.set(checks)
    try:
        yield
    finally:
        _DEFERRED.reset(token)
        try:
            _run_checks(checks)
        finally:
            checks.clear()  # their contexts refer to this list, a cycle that would keep the tensors until the next collection


@contextmanager
def immediate_checks() -> Iterator[None]:
    """Context manager that runs checks immediately, also within a block of :func:`deferred_checks`.

    Example:
        >>> with deferred_checks(), immediate_checks():
        ...     call_if_any(torch.tensor([True]), print)
        ...     print("after the check")
        [0]
        after the check
    """
    token = _DEFERRED.set(None)
    try:
        yield
    finally:
        _DEFERRED.reset(token)


def _run_checks(checks: list[_Check]) -> None:
    """Call the functions of the checks with flagged rows, after a single read of the device."""
    if not checks:
        return
    device = checks[0][0].device
    flags = [flagged.to(device) for flagged, _ in checks]
    if not bool((torch.cat(flags) if len(flags) > 1 else flags[0]).any()):
        return
    for flagged, act in checks:
        rows = flagged.nonzero().flatten().tolist()
        if rows:
            act(rows)
