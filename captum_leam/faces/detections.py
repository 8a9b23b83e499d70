"""What a detector found, and whether it can be a face at all."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from captum_leam.faces.geometry import Floats, misfit

MIN_FACE = 20.0  # of the shorter side of the box, px: less is enlarged more than five times
MAX_MISFIT = 0.5  # a head turned by 65° is at it; swapped sides lie at 0.8 and more
MARGIN = 0.1  # how far landmarks may lie beyond the box, in its sides; a nose in profile does


@dataclass(frozen=True)
class Detection:
    """A face that the detector found, or says to have found.

    Example:
        >>> from captum_leam.faces import ARCFACE_112
        >>> Detection(np.array([25.0, 20.0, 85.0, 105.0]), ARCFACE_112, 0.99).area
        5100.0
    """

    box: Floats
    """(4,): left, top, right, bottom in pixels of the photograph."""
    landmarks: Floats
    """(5, 2) as (x, y) in pixels of the photograph: the eye that is on the left when the face is upright, the other eye, tip of the
    nose, the corner of the mouth on the left, the other."""
    score: float
    """Of the detector, in [0, 1]."""
    problem: str | None = None
    """Why it cannot be a face that is to be aligned, in words; None if it can."""
    turn: int = 0
    """Degrees counter-clockwise by which the photograph was turned to find it."""

    @property
    def area(self) -> float:
        """Of the box, in px²."""
        return float(max(0.0, self.box[2] - self.box[0]) * max(0.0, self.box[3] - self.box[1]))

    def __repr__(self) -> str:
        return f"Detection(box={self.box.round(1).tolist()}, score={self.score:.3f}, problem={self.problem!r})"


def implausible(box: Floats, landmarks: Floats, photo_size: tuple[int, int], min_face: float = MIN_FACE) -> str | None:
    """Return why a detection cannot be a face to align, or None if it can.

    Weights of another detector load without an error and detect rubbish: this is where it shows.

    Args:
        box: (4,), left, top, right, bottom.
        landmarks: (5, 2) as (x, y).
        photo_size: (H, W).
        min_face: least length of the shorter side of the box, in pixels.

    Example:
        >>> from captum_leam.faces import ARCFACE_112
        >>> implausible(np.array([0.0, 0.0, 9.0, 12.0]), ARCFACE_112 / 12, (200, 200))
        'it is too small (9 × 12 px, expected 20)'
        >>> implausible(np.array([0.0, 0.0, 50.0, 50.0]), ARCFACE_112, (200, 200))
        'its landmarks lie outside its box'
        >>> implausible(np.array([20.0, 20.0, 90.0, 105.0]), ARCFACE_112[[1, 0, 2, 4, 3]], (200, 200))
        'its landmarks are in a wrong order, or not those of a face (misfit 0.97, allowed 0.5)'
    """
    return next(_problems(box, landmarks, photo_size, min_face), None)


def _problems(box: Floats, landmarks: Floats, photo_size: tuple[int, int], min_face: float) -> Iterator[str]:
    """Yield what is wrong with a detection; a later check may rely on the earlier ones."""
    if not (np.isfinite(box).all() and np.isfinite(landmarks).all()):
        yield "its box or landmarks are NaN or infinite"
    sides = box[2:] - box[:2]
    if sides.min() < min_face:
        yield f"it is too small ({max(0, sides[0]):.0f} × {max(0, sides[1]):.0f} px, expected {min_face:g})"
    middle = landmarks.mean(axis=0)
    if (middle < 0).any() or (middle > np.array(photo_size[::-1])).any():
        yield "it lies outside the photograph"
    if (landmarks < box[:2] - MARGIN * sides).any() or (landmarks > box[2:] + MARGIN * sides).any():
        yield "its landmarks lie outside its box"
    if not (np.ptp(landmarks, axis=0) > 0).any():
        yield "its landmarks fall onto one another"
    if (off := misfit(landmarks)) > MAX_MISFIT:
        yield f"its landmarks are in a wrong order, or not those of a face (misfit {off:.2f}, allowed {MAX_MISFIT:g})"
