"""Progress bar of a long call on stderr, with the current step and the remaining time of all steps.

Steps count the images that pass through networks (:func:`captum_leam._engine.memory.in_batches`), so that functions need no argument
for it. Without a visible bar, the functions of this module have no effect.
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
    """Bar over steps, each with its share of the work.

    Attributes:
        bar: Bar of tqdm.
        planned: Work of the planned steps by name.
        ends: Total work at the end of the current step.
        per_image: Work per image of the current step.
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


_current_bar: ContextVar[_Bar | None] = ContextVar("_current_bar", default=None)


def is_shown(requested: bool | None) -> bool:
    """Return whether to show progress.

    Args:
        requested: Choice of the user; None shows progress if stderr is a terminal.

    Example:
        >>> is_shown(True), is_shown(False)
        (True, False)
    """
    return sys.stderr.isatty() if requested is None else requested


@contextmanager
def progress_bar(is_visible: bool) -> Iterator[None]:
    """Context manager that shows its steps as one bar on stderr and removes it at the end; no second bar is shown within another.

    Args:
        is_visible: Whether to show the bar.

    Example:
        >>> with progress_bar(False):
        ...     begin_step("reading", 2)
        ...     count_images(2)
    """
    if not is_visible or _current_bar.get() is not None:
        yield
        return
    from tqdm.auto import tqdm

    bar = tqdm(desc="starting", total=0, leave=False, file=sys.stderr, bar_format=FORMAT, smoothing=0.1)
    token = _current_bar.set(_Bar(bar))
    try:
        yield
    finally:
        _current_bar.reset(token)
        bar.close()


def end_bar() -> None:
    """Remove the bar before its block ends, for example before results are printed."""
    if (bar := _current_bar.get()) is not None:
        bar.bar.close()


def plan(work: Mapping[str, float]) -> None:
    """Announce later steps.

    Args:
        work: Work of each step by name, in passes of one image through the network.
    """
    if (bar := _current_bar.get()) is not None:
        bar.plan(work)


def begin_step(name: str, images: float = 1) -> None:
    """Start a step and finish the one before it.

    Args:
        name: Name of the step as announced. A step that was not announced has as much work as images.
        images: Number of images of the step. Default: 1.
    """
    if (bar := _current_bar.get()) is not None:
        bar.advance(float("inf"))
        bar.begin(name, images)


def has_bar() -> bool:
    """Return whether a bar is shown."""
    return _current_bar.get() is not None


def count_images(images: float = 1) -> None:
    """Count images that the current step has processed.

    Args:
        images: Number of images. Default: 1.
    """
    if (bar := _current_bar.get()) is not None:
        bar.advance(images * bar.per_image)


@contextmanager
def pause_counting() -> Iterator[None]:
    """Context manager in which images are not counted, because they are part of the images that the caller counts."""
    token = _current_bar.set(None)
    try:
        yield
    finally:
        _current_bar.reset(token)
