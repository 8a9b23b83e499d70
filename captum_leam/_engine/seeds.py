"""The random numbers of the process at a seed, for the length of a block."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    pass


_DRAWING = threading.RLock()


@contextmanager
def at_seed(seed: int) -> Iterator[None]:
    """The random numbers of the process at a seed, and put back afterwards: for one thread at a time."""
    with _DRAWING, torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
