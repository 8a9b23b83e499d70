"""Random numbers of images that do not depend on how the images are split into batches."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TypeVar

import torch

Drawn = TypeVar("Drawn")

MAX_ENDS = 64
_ENDS: OrderedDict[Hashable, torch.Tensor] = OrderedDict()
"""States of generators after the last image of recent batches, 5 kB each, from which the next batch continues."""


def draw_by_image(
    draw: Callable[[torch.Generator, int], Drawn], kind: Hashable, seed: int, count: int, start: int = 0
) -> list[Drawn]:
    """Return the results of a random function for each image of a batch, from one sequence over all images.

    Args:
        draw: Function of a generator and the row of an image in the batch, which is negative for images before it. It must draw equally
            many numbers for each image.
        kind: Key of the sequence, with everything that ``draw`` depends on.
        seed: Seed of the sequence.
        count: Number of images in the batch.
        start: Number of images before the batch. Default: 0.

    Returns:
        Results by image.

    Example:
        >>> def number(generator, row):
        ...     return int(torch.randint(100, (1,), generator=generator))
        >>> numbers = draw_by_image(number, "doctest", 0, 5)
        >>> numbers == draw_by_image(number, "doctest", 0, 2) + draw_by_image(number, "doctest", 0, 3, start=2)
        True
    """
    generator = torch.Generator().manual_seed(seed)
    state = _ENDS.get((kind, seed, start)) if start else None
    if state is not None:
        generator.set_state(state)
    else:
        for row in range(-start, 0):
            draw(generator, row)
    results = [draw(generator, row) for row in range(count)]
    _ENDS[kind, seed, start + count] = generator.get_state()
    while len(_ENDS) > MAX_ENDS:
        _ENDS.popitem(last=False)
    return results
