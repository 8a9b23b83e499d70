"""Halve batches after out-of-memory errors, with a warning."""

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import TypeVar

import torch

from captum_leam._engine.checks import rows_from
from captum_leam._progress import count_images, pause_counting
from captum_leam.errors import CaptumLeamError

T = TypeVar("T")

OUT_OF_MEMORY_MARKERS = ("out of memory", "not enough memory", "can't allocate memory", "alloc_failed")
"""Lower-case substrings that identify out-of-memory errors without a dedicated type."""


class TooLargeError(torch.OutOfMemoryError, MemoryError):
    """Error raised if a single image does not fit into memory.

    Example:
        >>> issubclass(TooLargeError, MemoryError), issubclass(TooLargeError, torch.OutOfMemoryError)
        (True, True)
    """


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error is an out-of-memory error of a GPU or of the CPU, for which PyTorch raises a ``RuntimeError``.

    Args:
        error: Error that was raised.

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
    """Return the results of a function on successive batches, and retry with half the size if a batch does not fit into memory.

    Later batches have the reduced size, too, and a warning reports it. The function returns a list rather than a generator so that the
    gradient mode is always restored.

    Args:
        make: Function of the rows of a batch. It may be called again for the same rows and must not have changed anything before.
        count: Number of all rows.
        size: Number of rows in a batch.
        what: Name of a row, for messages. Default: ``"image"``.
        on_reduce: Callback that receives the reduced batch size. With it, batches of fewer rows than ``size`` are retried, too, because
            the function splits rows into batches of its own. Default: None.

    Returns:
        Results in order; without rows, the result of an empty batch.

    Raises:
        TooLargeError: If a single row does not fit into memory.
        CaptumLeamError: If the size is below 1.

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
        Expected 4 images at a time to fit into memory, used 2 after an out-of-memory error. Pass batch_size=2 or less to avoid the retry.
    """
    if size < 1:
        raise CaptumLeamError(f"Expected batch_size to be 1 or more, got {size}.")
    results: list[T] = []
    start, first_size, current_size = 0, 0, size
    while start < count or not results:
        rows = slice(start, min(start + current_size, count))
        try:
            with rows_from(rows.start) if what == "image" else nullcontext(), pause_counting():
                results.append(make(rows))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            failed_size = current_size if on_reduce else rows.stop - rows.start
            first_size, current_size = first_size or failed_size, failed_size // 2
            if not current_size:
                raise TooLargeError(_too_large_message(what, error)) from error
            if on_reduce:
                on_reduce(current_size)
        else:
            start = rows.stop
            if what == "image":
                count_images(rows.stop - rows.start)
    if first_size:
        option = "internal_batch_size" if what == "step" else "batch_size"
        warn_of_reduced_batch(f"{first_size} {what}s", current_size, option)
    return results


def warn_of_reduced_batch(failed: str, used: int, option: str = "batch_size") -> None:
    """Warn that the batch size was reduced.

    Args:
        failed: Size that did not fit into memory, with its unit.
        used: Size that did.
        option: Name of the argument that sets the size. Default: ``"batch_size"``.
    """
    warnings.warn(
        f"Expected {failed} at a time to fit into memory, used {used} after an out-of-memory error. Pass {option}={used} or less to avoid "
        "the retry.",
        stacklevel=4,
    )


def _too_large_message(what: str, error: BaseException) -> str:
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    fewer = "" if what == "image" else "fewer images in a call, "
    return (
        f"one {what} at a time does not fit into memory ({first}). Use {fewer}smaller images, a smaller model, a device "
        "with more memory, or free some."
    )
