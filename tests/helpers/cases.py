"""A case: a model or an input, what happens with it, and the call that shows it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Call = Callable[[Path], Any]


@dataclass(frozen=True)
class Case:
    """One row of the page.

    Attributes:
        given: Model or input, in a few words.
        outcome: ``"right"``, ``"refused"`` or ``"noted"``.
        text: What a right result equals; else the beginning of the message, with … for what is filled in.
        call: Function of an empty folder. Right: returns the result and what it equals. Refused: raises. Noted: warns, or returns notes.
        needs: Packages without which the case is skipped.
        is_real: Whether the case needs the research faces of ../shared/real.
        tolerance: Absolute difference up to which a right result equals another.
    """

    given: str
    outcome: Literal["right", "refused", "noted"]
    text: str
    call: Call
    needs: tuple[str, ...] = ()
    is_real: bool = False
    tolerance: float = 1e-5


def right(given: str, text: str, call: Call, **options: Any) -> Case:
    return Case(given, "right", text, call, **options)


def refused(given: str, text: str, call: Call, **options: Any) -> Case:
    return Case(given, "refused", text, call, **options)


def noted(given: str, text: str, call: Call, **options: Any) -> Case:
    return Case(given, "noted", text, call, **options)
