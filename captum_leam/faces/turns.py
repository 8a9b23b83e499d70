"""Find the rotation in which a photograph is upright, because detectors also report faces that are upside down."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from captum_leam.faces.detections import Detection
from captum_leam.faces.geometry import ARCFACE_112, Floats, distance_to, inverse, similarity_transform, warp

TURNS = (0, 180, 90, 270)
"""Rotations of a photograph in degrees counter-clockwise, in the order of the attempts."""

MAX_TILT = 50.0  # degrees of a face in an upright photograph; above 45°, a rotation by 90° reduces the tilt
MAX_SHIFT = 10.0  # px of a 112 px crop; most upright faces are detected again within 8 px, few others within 15 px
TOLERANCE = 1.5  # factor of both limits if no rotation of the photograph satisfies them
MAX_CLOSE_UPS = 3  # number of faces that decide about a view, since the largest detection may not be a face

CLOSE_UP = 224  # side of a close-up in px
CLOSE_UP_POINTS: Floats = ARCFACE_112 + (CLOSE_UP - 112) / 2

UNCERTAIN = "it is not certain which way up it is, because a close-up does not show the same face"

Detect = Callable[[Tensor], list[Detection]]


@dataclass(frozen=True)
class CloseUpResult:
    """Result of a second detection in the close-up of a face.

    Example:
        >>> CloseUpResult(upright=0.98, upside_down=0.99, shift=3.0).is_upright()
        False
    """

    upright: float
    """Score of the face in the close-up, 0 if none is detected."""
    upside_down: float
    """Score of the face in the close-up after a rotation by 180°, 0 if none is detected."""
    shift: float
    """Distance of the five points from those of the first detection, in px of a 112 px crop."""

    def is_upright(self, max_shift: float = MAX_SHIFT) -> bool:
        """Return whether the face is detected at the same place, and with a higher score than upside down."""
        return self.upright > self.upside_down and self.shift <= max_shift


class View:
    """Photograph rotated by a multiple of 90°, with the faces detected in it.

    Args:
        photo: RGB photograph of shape (3, H, W), floating point in [0, 1], before the rotation.
        turn: Rotation in degrees counter-clockwise: 0, 90, 180 or 270.
        detect: Detector of faces in photographs.
        detect_close_up: Detector of faces in close-ups.

    Example:
        >>> view = View(torch.zeros(3, 20, 30), 90, lambda photo: [], lambda photo: [])
        >>> view.photo.shape, view.detections, view.is_upright()
        (torch.Size([3, 30, 20]), [], False)
    """

    def __init__(self, photo: Tensor, turn: int, detect: Detect, detect_close_up: Detect) -> None:
        self.photo, self.turn = torch.rot90(photo, turn // 90, (1, 2)), turn
        self.detections = detect(self.photo)
        self._detect_close_up = detect_close_up
        self._close_ups: dict[int, CloseUpResult] = {}

    @property
    def score(self) -> float:
        """Highest score of a plausible face, 0 without one."""
        return max((face.score for face in self.detections if face.problem is None), default=0.0)

    def is_upright(self, tolerance: float = 1.0) -> bool:
        """Return whether one of the largest faces is upright.

        Args:
            tolerance: Factor of the limits of tilt and shift. Default: 1.0.
        """
        plausible = [i for i, face in enumerate(self.detections) if face.problem is None][:MAX_CLOSE_UPS]
        return any(
            abs(tilt(self.detections[i].landmarks)) <= MAX_TILT * tolerance
            and self.close_up(i).is_upright(MAX_SHIFT * tolerance)
            for i in plausible
        )

    def why_not_upright(self, index: int) -> str | None:
        """Return the reason why a plausible face is not upright in this view, or None if it is."""
        angle, close_up = tilt(self.detections[index].landmarks), self.close_up(index)
        if abs(angle) > 90 or close_up.upside_down > close_up.upright:
            return "it is upside down against the rest of the photograph"
        if abs(angle) > MAX_TILT * TOLERANCE and not close_up.is_upright():
            return f"it is turned by about {abs(angle):.0f}° against the rest of the photograph"
        return None

    def close_up(self, index: int) -> CloseUpResult:
        """Return the result of the second detection of one face, which is computed once."""
        if index not in self._close_ups:
            back = inverse(similarity_transform(self.detections[index].landmarks, CLOSE_UP_POINTS))
            picture = warp(self.photo, back, (CLOSE_UP, CLOSE_UP), antialias=True).clamp(0, 1)
            upright, upside_down = self._central_face(picture), self._central_face(torch.rot90(picture, 2, (1, 2)))
            self._close_ups[index] = CloseUpResult(
                upright=upright.score if upright else 0.0,
                upside_down=upside_down.score if upside_down else 0.0,
                shift=distance_to(upright.landmarks, CLOSE_UP_POINTS) if upright else math.inf,
            )
        return self._close_ups[index]

    def _central_face(self, picture: Tensor) -> Detection | None:
        """Return the face with the highest score in the middle of a close-up."""
        centre = (CLOSE_UP - 1) / 2
        central = [
            face
            for face in self._detect_close_up(picture)
            if face.problem is None and (abs(face.landmarks.mean(axis=0) - centre) < CLOSE_UP / 4).all()
        ]
        return max(central, key=lambda face: face.score, default=None)

    def in_photo(self, face: Detection) -> Detection:
        """Return a detection with its coordinates in the photograph before the rotation."""
        corners = self._rotate_back(face.box.reshape(2, 2))
        box = np.concatenate([corners.min(axis=0), corners.max(axis=0)])
        return replace(face, box=box, landmarks=self._rotate_back(face.landmarks), turn=self.turn)

    def _rotate_back(self, points: Floats) -> Floats:
        height, width = self.photo.shape[1:]
        x, y = points.T
        by_turn = {0: (x, y), 90: (height - 1 - y, x), 180: (width - 1 - x, height - 1 - y), 270: (y, width - 1 - x)}
        return np.stack(by_turn[self.turn], axis=1)


def upright_view(photo: Tensor, detect: Detect, detect_close_up: Detect) -> View:
    """Return the first view of a photograph in which a face is certainly upright.

    Without one, return the view with the highest score among those in which a face is probably upright. Without any of these, return the
    view with the highest score, and set :attr:`Detection.problem` of its faces, because a high score does not exclude that a face is
    upside down.

    Args:
        photo: RGB photograph of shape (3, H, W), floating point in [0, 1].
        detect: Detector of faces in photographs.
        detect_close_up: Detector of faces in close-ups.

    Example:
        >>> upright_view(torch.zeros(3, 20, 30), lambda photo: [], lambda photo: []).turn
        0
    """
    views = []
    for turn in TURNS:
        views.append(View(photo, turn, detect, detect_close_up))
        if views[-1].is_upright():
            return views[-1]
    likely = [view for view in views if view.is_upright(TOLERANCE)]
    best = max(likely or views, key=lambda view: view.score)
    if not likely:
        best.detections = [replace(face, problem=face.problem or UNCERTAIN) for face in best.detections]
    return best


def tilt(landmarks: Floats) -> float:
    """Return the angle between a face and an upright one, in degrees clockwise in [-180, 180].

    Args:
        landmarks: Five points (x, y), shape (5, 2).

    Example:
        >>> round(abs(tilt(ARCFACE_112))), round(tilt(ARCFACE_112[:, ::-1] * (-1, 1)))
        (0, 90)
    """
    matrix = similarity_transform(ARCFACE_112, landmarks)
    return math.degrees(math.atan2(matrix[1, 0], matrix[0, 0]))
