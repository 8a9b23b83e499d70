"""Progress of a long call, one line on stderr: the step that runs, and how long all steps still take.

Steps count the images that pass through networks (:func:`captum_leam._engine.memory.in_batches`), so that functions need no argument
for it. Without a bar that is shown, nothing here does anything.
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

FORMAT = "{desc}{percentage:3.0f}%|{bar}| {elapsed} passed, {remaining} left"


@dataclass
class _Bar:
    """A bar over steps, each with its share of the work.

    Attributes:
        bar: Bar of tqdm.
        planned: Step that is expected → its work.
        ends: Work at which the running step ends.
        per_image: Work that each image of the running step does.
    """

    bar: Any
    planned: dict[str, float] = field(default_factory=dict)
    ends: float = 0.0
    per_image: float = 0.0

    def plan(self, work: Mapping[str, float]) -> None:
        self.planned |= work
        self.bar.total += sum(work.values())

    def begin(self, name: str, images: float) -> None:
        if name not in self.planned:
            self.plan({name: images})
        work = self.planned.pop(name)
        self.ends, self.per_image = self.bar.n + work, work / max(images, 1)
        self.bar.set_description(name)

    def advance(self, work: float) -> None:
        self.bar.update(max(0.0, min(work, self.ends - self.bar.n)))


_shown: ContextVar[_Bar | None] = ContextVar("_shown", default=None)


def is_shown(asked: bool | None) -> bool:
    """Return whether to show progress: as asked, else where stderr is a terminal.

    Example:
        >>> is_shown(True), is_shown(False)
        (True, False)
    """
    return sys.stderr.isatty() if asked is None else asked


@contextmanager
def progress_bar(shown: bool) -> Iterator[None]:
    """Show the steps of the block as one bar on stderr, which disappears at its end. Within the bar of a caller there is no second one.

    Example:
        >>> with progress_bar(False):
        ...     begin_step("reading", 2)
        ...     count_images(2)
    """
    if not shown or _shown.get() is not None:
        yield
        return
    from tqdm.auto import tqdm

    bar = tqdm(desc="starting", total=0, leave=False, file=sys.stderr, bar_format=FORMAT, smoothing=0.1)
    token = _shown.set(_Bar(bar))
    try:
        yield
    finally:
        _shown.reset(token)
        bar.close()


def end_bar() -> None:
    """Remove the bar before its block ends, for example before results are printed."""
    if (bar := _shown.get()) is not None:
        bar.bar.close()


def plan(work: Mapping[str, float]) -> None:
    """Announce steps that will come, in their order, with the work of each in passes of one image through the network."""
    if (bar := _shown.get()) is not None:
        bar.plan(work)


def begin_step(name: str, images: float = 1) -> None:
    """Show that a step runs; the one before it is done.

    Args:
        name: Name of the step, as it was announced. One that was not announced counts as much work as images.
        images: Number of images that it counts. Default: 1.
    """
    if (bar := _shown.get()) is not None:
        bar.advance(float("inf"))
        bar.begin(name, images)


def has_bar() -> bool:
    """Return whether a bar is shown."""
    return _shown.get() is not None


def count_images(images: float = 1) -> None:
    """Count images that the running step is done with."""
    if (bar := _shown.get()) is not None:
        bar.advance(images * bar.per_image)


@contextmanager
def uncounted() -> Iterator[None]:
    """Count nothing: what runs here is a part of what the caller counts."""
    token = _shown.set(None)
    try:
        yield
    finally:
        _shown.reset(token)
