"""Find out which way up a photograph is: a detector also finds faces that are upside down, and marks eyes above a mouth in them."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from captum_leam.faces.detections import Detection
from captum_leam.faces.geometry import ARCFACE_112, Floats, distance_to, inverse, similarity, warp

TURNS = (0, 180, 90, 270)
"""Degrees counter-clockwise by which a photograph is turned, in the order in which they are tried."""

MAX_TILT = 50.0  # degrees of a face in a photograph that is upright: beyond 45, a quarter turn brings it nearer
MAX_MOVE = 10.0  # px on a 112 px crop: nearly all upright faces are found again within 8, others seldom within 15
LENIENT = 1.5  # factor on both, when no turn of the photograph meets them
WITNESSES = 3  # faces that are looked at: the largest detection may be none

CLOSE_UP = 224  # side in px of the picture of one face that is looked at again
CLOSE_UP_POINTS: Floats = ARCFACE_112 + (CLOSE_UP - 112) / 2

UNCERTAIN = "it is not certain which way up it is, because a close-up does not show the same face"

Detect = Callable[[Tensor], list[Detection]]


@dataclass(frozen=True)
class SecondLook:
    """What a detector finds in the close-up of a face that it found.

    Example:
        >>> SecondLook(upright=0.98, upside_down=0.99, move=3.0).is_upright()
        False
    """

    upright: float
    """Score of the face in the close-up; 0 where none is found."""
    upside_down: float
    """The same after the close-up is turned by 180°."""
    move: float
    """Distance of the five points from where the first look had them, in px of a 112 px crop."""

    def is_upright(self, max_move: float = MAX_MOVE) -> bool:
        """Return whether the face is found again where it was, and less well upside down."""
        return self.upright > self.upside_down and self.move <= max_move


class View:
    """A photograph turned by a multiple of 90°, and the faces that are detected in it.

    Args:
        photo: (3, H, W), float in [0, 1], as it was given.
        turn: Degrees counter-clockwise: 0, 90, 180 or 270.
        detect: Detector of faces in photographs.
        look: Detector of faces in close-ups.

    Example:
        >>> view = View(torch.zeros(3, 20, 30), 90, lambda photo: [], lambda photo: [])
        >>> view.photo.shape, view.found, view.is_upright()
        (torch.Size([3, 30, 20]), [], False)
    """

    def __init__(self, photo: Tensor, turn: int, detect: Detect, look: Detect) -> None:
        self.photo, self.turn = torch.rot90(photo, turn // 90, (1, 2)), turn
        self.found = detect(self.photo)
        self._look = look
        self._looks: dict[int, SecondLook] = {}

    @property
    def score(self) -> float:
        """Highest score of a plausible face; 0 without one."""
        return max((face.score for face in self.found if face.problem is None), default=0.0)

    def is_upright(self, leniency: float = 1.0) -> bool:
        """Return whether one of the largest faces is upright."""
        plausible = [i for i, face in enumerate(self.found) if face.problem is None][:WITNESSES]
        return any(
            abs(tilt(self.found[i].landmarks)) <= MAX_TILT * leniency
            and self.look_at(i).is_upright(MAX_MOVE * leniency)
            for i in plausible
        )

    def why_not_upright(self, index: int) -> str | None:
        """Return why a plausible face cannot be aligned as it stands in this view; None if it can."""
        lean, look = tilt(self.found[index].landmarks), self.look_at(index)
        if abs(lean) > 90 or look.upside_down > look.upright:
            return "it is upside down against the rest of the photograph"
        if abs(lean) > MAX_TILT * LENIENT and not look.is_upright():
            return f"it is turned by about {abs(lean):.0f}° against the rest of the photograph"
        return None

    def look_at(self, index: int) -> SecondLook:
        """Return what is found in a close-up of one face."""
        if index not in self._looks:
            back = inverse(similarity(self.found[index].landmarks, CLOSE_UP_POINTS))
            close_up = warp(self.photo, back, (CLOSE_UP, CLOSE_UP), antialias=True).clamp(0, 1)
            same, other = self._nearest(close_up), self._nearest(torch.rot90(close_up, 2, (1, 2)))
            self._looks[index] = SecondLook(
                upright=same.score if same else 0.0,
                upside_down=other.score if other else 0.0,
                move=distance_to(same.landmarks, CLOSE_UP_POINTS) if same else math.inf,
            )
        return self._looks[index]

    def _nearest(self, close_up: Tensor) -> Detection | None:
        """Return the best face in the middle of a close-up."""
        centre = (CLOSE_UP - 1) / 2
        in_middle = [
            face
            for face in self._look(close_up)
            if face.problem is None and (abs(face.landmarks.mean(axis=0) - centre) < CLOSE_UP / 4).all()
        ]
        return max(in_middle, key=lambda face: face.score, default=None)

    def in_photo(self, face: Detection) -> Detection:
        """Return a face with its coordinates in the photograph as it was given."""
        corners = self._turned_back(face.box.reshape(2, 2))
        box = np.concatenate([corners.min(axis=0), corners.max(axis=0)])
        return replace(face, box=box, landmarks=self._turned_back(face.landmarks), turn=self.turn)

    def _turned_back(self, points: Floats) -> Floats:
        height, width = self.photo.shape[1:]
        x, y = points.T
        there = {0: (x, y), 90: (height - 1 - y, x), 180: (width - 1 - x, height - 1 - y), 270: (y, width - 1 - x)}
        return np.stack(there[self.turn], axis=1)


def upright_view(photo: Tensor, detect: Detect, look: Detect) -> View:
    """Return the first view of a photograph in which a face is certainly upright.

    If there is none, it is the one with the highest score among those in which a face is probably upright; and if there is none of these
    either, among all, whose faces then have a :attr:`Detection.problem`: the score alone may prefer an upside-down face.

    Example:
        >>> upright_view(torch.zeros(3, 20, 30), lambda photo: [], lambda photo: []).turn
        0
    """
    views = []
    for turn in TURNS:
        views.append(View(photo, turn, detect, look))
        if views[-1].is_upright():
            return views[-1]
    likely = [view for view in views if view.is_upright(LENIENT)]
    best = max(likely or views, key=lambda view: view.score)
    if not likely:
        best.found = [replace(face, problem=face.problem or UNCERTAIN) for face in best.found]
    return best


def tilt(landmarks: Floats) -> float:
    """Return the angle between a face and an upright one, in degrees clockwise, from -180 to 180.

    Example:
        >>> round(abs(tilt(ARCFACE_112))), round(tilt(ARCFACE_112[:, ::-1] * (-1, 1)))
        (0, 90)
    """
    matrix = similarity(ARCFACE_112, landmarks)
    return math.degrees(math.atan2(matrix[1, 0], matrix[0, 0]))
