"""Checks of values, looked at together for a whole call.

To ask a tensor whether any of its values is bad, the processor waits until the device has done all that is queued. A dozen of such
questions between the operations of a pass leave a GPU idle; so they are gathered, and answered with one at the end.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

Rows = list[int]
_Check = tuple[Tensor, Callable[[Rows], None]]

_GATHERED: ContextVar[list[_Check] | None] = ContextVar("gathered", default=None)


def refuse(bad: Tensor, message: Callable[[Rows], str]) -> None:
    """Raise ``ValueError`` if a row is bad: at once, or at the end of the block of :func:`together` around.

    Args:
        bad: boolean (N,).
        message: what to say of the numbers of the bad rows.

    Example:
        >>> refuse(torch.tensor([False, True]), lambda rows: f"rows {rows} are bad")
        Traceback (most recent call last):
        ...
        ValueError: rows [1] are bad
    """

    def complain(rows: Rows) -> None:
        raise ValueError(message(rows))

    where_any(bad, complain)


def where_any(flagged: Tensor, act: Callable[[Rows], None]) -> None:
    """Act on the numbers of the flagged rows, if there are any: at once, or at the end of the block of :func:`together` around.

    Args:
        flagged: boolean (N,).
        act: gets the numbers of the flagged rows.

    Example:
        >>> where_any(torch.tensor([False, True]), print)
        [1]
    """
    gathered = _GATHERED.get()
    if gathered is None:
        _look([(flagged, act)])
    else:
        gathered.append((flagged, act))


@contextmanager
def together() -> Iterator[None]:
    """Gather the checks of a block, and look at all of them with one question to the device: at its end, or where it raises.

    The first that fails, in the order of the code, speaks. A block within a block leaves its checks to the outer one.

    Example:
        >>> with together():
        ...     where_any(torch.tensor([True]), print)
        ...     print("after the check")
        after the check
        [0]
    """
    if _GATHERED.get() is not None:
        yield
        return
    checks: list[_Check] = []
    token = _GATHERED.set(checks)
    try:
        yield
    finally:
        _GATHERED.reset(token)
        _look(checks)


def _look(checks: list[_Check]) -> None:
    if not checks or not bool(_any(checks)):
        return
    for flagged, act in checks:
        rows = flagged.nonzero().flatten().tolist()
        if rows:
            act(rows)


def _any(checks: list[_Check]) -> Tensor:
    if len(checks) == 1:
        return checks[0][0].any()
    device = checks[0][0].device
    return torch.cat([flagged.to(device) for flagged, _ in checks]).any()
