"""Batches that do not fit into memory: halved until they do, and told."""

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import TypeVar

import torch

from captum_leam._engine.checks import rows_from
from captum_leam.errors import CaptumLeamError

Made = TypeVar("Made")

SAID = ("out of memory", "not enough memory", "can't allocate memory", "alloc_failed")
"""What PyTorch's allocators and the libraries under it say, in small letters, where the error has no type of its own."""


class TooLargeError(torch.OutOfMemoryError, MemoryError):
    """Not even one image at a time fits into memory.

    Example:
        >>> issubclass(TooLargeError, MemoryError), issubclass(TooLargeError, torch.OutOfMemoryError)
        (True, True)
    """


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is used up: of a GPU, or of the computer, whose error in PyTorch is a ``RuntimeError``.

    Example:
        >>> is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory.")), is_out_of_memory(RuntimeError("shapes differ"))
        (True, False)
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in SAID)


def in_batches(
    make: Callable[[slice], Made],
    count: int,
    size: int,
    *,
    what: str = "image",
    halved: Callable[[int], None] | None = None,
) -> list[Made]:
    """What a function makes of batch after batch; one that does not fit into memory is tried again with half of it.

    The batches after it are of that size, too, and a warning tells it. No generator: one that is left half-way keeps the gradient
    mode until it is collected.

    Args:
        make: gets the rows of a batch. It may be called again for some of them, and should have changed nothing by then.
        count: of all rows.
        size: rows of a batch.
        what: a row is.
        halved: is told the new size. By default the batch itself is what fills the memory; with it, a batch of fewer rows than ``size``
            may be tried again, too, since what is made of one image has batches of its own.

    Returns:
        What was made, in order; of no row, what is made of an empty batch.

    Raises:
        TooLargeError: if one row alone does not fit.
        CaptumLeamError: for a size below 1.

    Example:
        >>> def small(rows):
        ...     if rows.stop - rows.start > 2:
        ...         raise torch.OutOfMemoryError("CUDA out of memory.")
        ...     return [*range(rows.start, rows.stop)]
        >>> with warnings.catch_warnings(record=True) as said:
        ...     warnings.simplefilter("always")
        ...     in_batches(small, 5, 4)
        [[0, 1], [2, 3], [4]]
        >>> print(said[0].message)
        out of memory with 4 images at a time; done with 2. Give batch_size=2 or less to save the attempts.
    """
    if size < 1:
        raise CaptumLeamError(f"batch_size is {size}; needed is 1 or more.")
    made: list[Made] = []
    start, first, now = 0, 0, size
    while start < count or not made:
        rows = slice(start, min(start + now, count))
        try:
            with rows_from(rows.start) if what == "image" else nullcontext():
                made.append(make(rows))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            tried = now if halved else rows.stop - rows.start
            first, now = first or tried, tried // 2
            if not now:
                raise TooLargeError(_too_large(what, error)) from error
            if halved:
                halved(now)
        else:
            start = rows.stop
    if first:
        tell(f"{first} {what}s", now, "internal_batch_size" if what == "step" else "batch_size")
    return made


def tell(tried: str, done: int, option: str = "batch_size") -> None:
    """Warn that a batch was made smaller."""
    warnings.warn(
        f"out of memory with {tried} at a time; done with {done}. Give {option}={done} or less to save the attempts.",
        stacklevel=4,
    )


def _too_large(what: str, error: BaseException) -> str:
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    fewer = "" if what == "image" else "fewer images in a call, "
    return (
        f"one {what} at a time does not fit into memory ({first}). Needed is {fewer}more free memory, smaller images, a smaller model, or "
        "another device."
    )
