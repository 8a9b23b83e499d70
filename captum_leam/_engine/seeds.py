"""Temporary seed of the global random numbers."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

_DRAWING = threading.RLock()


@contextmanager
def at_seed(seed: int) -> Iterator[None]:
    """Context manager that seeds the global random numbers of PyTorch and NumPy, for one thread at a time, and restores them.

    Args:
        seed: Seed of both.

    Example:
        >>> with at_seed(0):
        ...     first = torch.rand(2), np.random.rand()
        >>> with at_seed(0):
        ...     torch.equal(torch.rand(2), first[0]), np.random.rand() == first[1]
        (True, True)
    """
    with _DRAWING, torch.random.fork_rng():
        numpy_state = np.random.get_state()
        try:
            torch.manual_seed(seed)
            np.random.seed(seed)
            yield
        finally:
            np.random.set_state(numpy_state)
