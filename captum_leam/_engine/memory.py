"""Retry with smaller batches after out-of-memory errors, with a warning."""

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import TypeVar

import torch

from captum_leam._engine.checks import rows_from
from captum_leam._progress import count_images, uncounted
from captum_leam.errors import CaptumLeamError

T = TypeVar("T")

OUT_OF_MEMORY_MARKERS = ("out of memory", "not enough memory", "can't allocate memory", "alloc_failed")
"""Lower-case substrings that identify out-of-memory errors without a dedicated type."""


class TooLargeError(torch.OutOfMemoryError, MemoryError):
    """Not even one image at a time fits into memory.

    Example:
        >>> issubclass(TooLargeError, MemoryError), issubclass(TooLargeError, torch.OutOfMemoryError)
        (True, True)
    """


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory is used up: of a GPU, or of the computer, where PyTorch raises a ``RuntimeError``.

    Example:
        >>> is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory.")), is_out_of_memory(RuntimeError("shapes differ"))
        (True, False)
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in OUT_OF_MEMORY_MARKERS)


def in_batches(
    make: Callable[[slice], T],
    count: int,
    size: int,
    *,
    what: str = "image",
    on_reduce: Callable[[int], None] | None = None,
) -> list[T]:
    """Return the results of a function on batch after batch; a batch that does not fit into memory is halved and tried again.

    The batches after it have the smaller size, too, and a warning names it. Returns a list, not a generator, so that the gradient mode is
    always restored.

    Args:
        make: Function of the rows of a batch. It may be called again for some of them, and should have changed nothing by then.
        count: Number of all rows.
        size: Number of rows in a batch.
        what: Name of a row in messages. Default: "image".
        on_reduce: Callback that receives the reduced batch size. With it, a batch of fewer rows than ``size`` may be tried again, too,
            since the function splits a row into batches of its own. Default: None.

    Returns:
        The results, in order; without rows, that of an empty batch.

    Raises:
        TooLargeError: if one row alone does not fit.
        CaptumLeamError: for a size below 1.

    Example:
        >>> def small(rows):
        ...     if rows.stop - rows.start > 2:
        ...         raise torch.OutOfMemoryError("CUDA out of memory.")
        ...     return [*range(rows.start, rows.stop)]
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     in_batches(small, 5, 4)
        [[0, 1], [2, 3], [4]]
        >>> print(caught[0].message)
        out of memory with 4 images at a time; done with 2. Give batch_size=2 or less to save the attempts.
    """
    if size < 1:
        raise CaptumLeamError(f"Expected batch_size to be 1 or more, got {size}.")
    results: list[T] = []
    start, first, now = 0, 0, size
    while start < count or not results:
        rows = slice(start, min(start + now, count))
        try:
            with rows_from(rows.start) if what == "image" else nullcontext(), uncounted():
                results.append(make(rows))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            tried = now if on_reduce else rows.stop - rows.start
            first, now = first or tried, tried // 2
            if not now:
                raise TooLargeError(_too_large(what, error)) from error
            if on_reduce:
                on_reduce(now)
        else:
            start = rows.stop
            if what == "image":
                count_images(rows.stop - rows.start)
    if first:
        warn_of_reduced_batch(f"{first} {what}s", now, "internal_batch_size" if what == "step" else "batch_size")
    return results


def warn_of_reduced_batch(tried: str, done: int, option: str = "batch_size") -> None:
    """Warn that a batch was made smaller.

    Args:
        tried: Size that did not fit, with its unit.
        done: Size that did.
        option: Name of the argument that sets the size. Default: "batch_size".
    """
    warnings.warn(
        f"out of memory with {tried} at a time; done with {done}. Give {option}={done} or less to save the attempts.",
        stacklevel=4,
    )


def _too_large(what: str, error: BaseException) -> str:
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    fewer = "" if what == "image" else "fewer images in a call, "
    return (
        f"one {what} at a time does not fit into memory ({first}). Use {fewer}smaller images, a smaller model, a device "
        "with more memory, or free some."
    )
