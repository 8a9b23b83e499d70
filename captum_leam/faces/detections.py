"""Detections of faces and checks of their plausibility."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from captum_leam.faces.geometry import Floats, misfit

MIN_FACE = 20.0  # shorter side of the box in px; smaller faces would be enlarged more than five times
MAX_MISFIT = 0.5  # reached by a head turned by 65°; swapped sides have 0.8 and more
MARGIN = 0.1  # share of the box's sides by which landmarks may lie outside, as the nose of a profile does


@dataclass(frozen=True)
class Detection:
    """Face that the detector found in a photograph, with its box, five points and score.

    :meth:`FaceAligner.detect <captum_leam.faces.FaceAligner.detect>` returns a list of them. If ``problem`` is not None, the detection is
    implausible or too small and is not aligned.

    Example:
        >>> from captum_leam.faces import ARCFACE_112
        >>> face = Detection(box=np.array([25.0, 20.0, 85.0, 105.0]), landmarks=ARCFACE_112, score=0.99)
        >>> face
        Detection(box=[25.0, 20.0, 85.0, 105.0], score=0.990, problem=None)
        >>> face.area, face.landmarks.shape
        (5100.0, (5, 2))
    """

    box: Floats
    """Left, top, right and bottom, shape (4,), in pixels of the photograph."""
    landmarks: Floats
    """Five points (x, y), shape (5, 2), in pixels of the photograph: the eye that is on the left in the upright face, the other eye, the
    tip of the nose, the corner of the mouth on the left, the other corner."""
    score: float
    """Score of the detector, in [0, 1]."""
    problem: str | None = None
    """Reason why the face cannot be aligned, or None if it can."""
    turn: int = 0
    """Rotation of the photograph in degrees counter-clockwise in which the face was detected."""

    @property
    def area(self) -> float:
        """Area of the box in px²."""
        return float(max(0.0, self.box[2] - self.box[0]) * max(0.0, self.box[3] - self.box[1]))

    def __repr__(self) -> str:
        return f"Detection(box={self.box.round(1).tolist()}, score={self.score:.3f}, problem={self.problem!r})"


def find_problem(box: Floats, landmarks: Floats, photo_size: tuple[int, int], min_face: float = MIN_FACE) -> str | None:
    """Return the first reason why a detection cannot be aligned, or None if it can.

    Weights of another detector load without an error but yield implausible detections, which this check reports.

    Args:
        box: Left, top, right and bottom, shape (4,), in pixels.
        landmarks: Five points (x, y), shape (5, 2), in pixels.
        photo_size: Height and width (H, W) of the photograph in pixels.
        min_face: Minimum length of the shorter side of the box in pixels. Default: 20.

    Example:
        >>> from captum_leam.faces import ARCFACE_112
        >>> find_problem(np.array([0.0, 0.0, 9.0, 12.0]), ARCFACE_112 / 12, (200, 200))
        'it is too small (9 × 12 px, expected 20)'
        >>> find_problem(np.array([0.0, 0.0, 50.0, 50.0]), ARCFACE_112, (200, 200))
        'its landmarks lie outside its box'
        >>> find_problem(np.array([20.0, 20.0, 90.0, 105.0]), ARCFACE_112[[1, 0, 2, 4, 3]], (200, 200))
        'its landmarks are in the wrong order or are not those of a face (misfit 0.97, at most 0.5)'
    """
    return next(_problems(box, landmarks, photo_size, min_face), None)


def _problems(box: Floats, landmarks: Floats, photo_size: tuple[int, int], min_face: float) -> Iterator[str]:
    """Yield the reasons why a detection cannot be aligned, in an order in which each check may rely on those before."""
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
        yield "its landmarks coincide"
    if (error := misfit(landmarks)) > MAX_MISFIT:
        yield f"its landmarks are in the wrong order or are not those of a face (misfit {error:.2f}, at most {MAX_MISFIT:g})"
