"""Turned photographs: set upright or refused, in the coordinates of the photograph as it is given."""

import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from captum_leam.faces import ARCFACE_112, FaceAligner, read_crop, read_photo
from captum_leam.faces.geometry import inverse, transform_points, warp
from captum_leam.faces.sources import alignment_doubt
from captum_leam.faces.turns import tilt

COLOURS = torch.tensor([(1.0, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1)])
"""Colours of the five points of a drawn face."""


def turned_by(degrees: float, scale: float, centre: tuple[float, float]) -> np.ndarray:
    """From an upright crop to a photograph that shows it about a centre."""
    c, s = scale * math.cos(math.radians(degrees)), scale * math.sin(math.radians(degrees))
    matrix = np.array([[c, -s, 0.0], [s, c, 0.0]])
    matrix[:, 2] = np.array(centre) - transform_points(np.array([[55.5, 55.5]]), matrix)[0]
    return matrix


def drawn(points: np.ndarray, size: tuple[int, int], radius: float) -> torch.Tensor:
    """A photograph of a face that is five coloured spots."""
    rows, columns = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    photo = torch.zeros(3, *size)
    for (x, y), colour in zip(points.tolist(), COLOURS, strict=True):
        spot = torch.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * radius**2))
        photo = photo + colour[:, None, None] * spot
    return photo.clamp(0, 1)


class Spots:
    """Finds drawn faces as detectors find real ones: upside down with nearly the same score, and eyes above the mouth."""

    def __init__(self) -> None:
        self.calls = 0

    def detect_faces(self, picture, conf_threshold):
        self.calls += 1
        colours = torch.from_numpy(picture).flip(2).double() / 255
        near = torch.exp(-((colours[None] - COLOURS[:, None, None]) ** 2).sum(-1) / 0.02)
        weights = torch.where(near > 0.3, near, 0)
        if (weights.sum((1, 2)) < 1).any():
            return np.zeros((0, 15))
        rows, columns = torch.meshgrid(*[torch.arange(n).double() for n in picture.shape[:2]], indexing="ij")
        points = torch.stack(
            [(weights * axis).sum((1, 2)) / weights.sum((1, 2)) for axis in (columns, rows)], 1
        ).numpy()
        angle, score = abs(tilt(points)), 0.99
        if angle > 60:
            score = 0.97
        if angle > 120:  # the opposite of every point, which is near to another one
            points, score = 2 * points.mean(0) - points, 0.95
        spread = np.ptp(points, axis=0).max()
        return np.array([[*(points.min(0) - spread / 2), *(points.max(0) + spread / 2), score, *points.ravel()]])


@pytest.fixture(scope="module")
def spotting(tmp_path_factory):
    pytest.importorskip("facexlib")
    from facexlib.detection.retinaface import RetinaFace

    folder = tmp_path_factory.mktemp("weights")
    torch.save(RetinaFace("mobile0.25", device="cpu").state_dict(), folder / "detection_mobilenet0.25_Final.pth")
    aligner = FaceAligner(weights=folder, device="cpu")
    aligner._network = Spots()
    return aligner


def turn(photo: torch.Tensor, quarters: int) -> torch.Tensor:
    return torch.rot90(photo, quarters, (1, 2)).contiguous()


@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    quarters=st.integers(0, 3),
    degrees=st.floats(-35, 35),
    scale=st.floats(0.8, 1.3),
    x=st.integers(-20, 20),
    y=st.integers(-10, 10),
)
def test_a_turned_photograph_gives_the_crop_of_the_upright_one(spotting, quarters, degrees, scale, x, y):
    points = transform_points(ARCFACE_112, turned_by(degrees, scale, (100 + x, 90 + y)))
    photo = drawn(points, (180, 200), 4 * scale)
    (upright,) = spotting(photo)
    (face,) = spotting(turn(photo, quarters), "largest")
    assert (upright.turn, face.turn) == (0, -90 * quarters % 360)
    assert face.face_count == 1
    torch.testing.assert_close(face.crop, upright.crop, atol=0.02, rtol=0)
    # everything else is of the photograph as it was given
    given_photo = turn(photo, quarters)
    assert face.photo_size == tuple(given_photo.shape[1:])
    assert face.to_crop(given_photo).clamp(0, 1).equal(face.crop)
    for (column, row), colour in zip(face.landmarks.round().astype(int), COLOURS, strict=True):
        assert (given_photo[:, row, column] - colour).abs().max() < 0.2
    assert (face.box[:2] < face.landmarks.min(0)).all()
    assert (face.box[2:] > face.landmarks.max(0)).all()
    corners = transform_points(face.outline, face.transform)
    assert corners == pytest.approx(np.array([(0, 0), (112, 0), (112, 112), (0, 112)]) - 0.5)
    back = face.to_photo(face.crop)
    inside = face.to_photo(torch.ones(112, 112)) > 0.99
    assert (back - given_photo)[:, inside].abs().mean() < 0.02
    (found,) = spotting.detect(given_photo)
    assert (found.turn, found.landmarks.tolist(), found.box.tolist()) == (
        face.turn,
        face.landmarks.tolist(),
        face.box.tolist(),
    )


def test_an_upright_photograph_costs_one_detection_and_two_looks(spotting):
    photo = drawn(transform_points(ARCFACE_112, turned_by(10, 1.2, (150, 130))), (260, 300), 5)
    spotting._network.calls = 0
    spotting(photo, "largest")
    assert spotting._network.calls == 3


def test_a_face_that_no_close_up_confirms_raises(spotting, monkeypatch):
    photo = drawn(transform_points(ARCFACE_112, turned_by(0, 1.2, (100, 90))), (180, 200), 5)
    monkeypatch.setattr("captum_leam.faces.turns.CloseUpResult.is_upright", lambda *_: False)
    for quarters in range(4):
        with pytest.raises(ValueError, match="not certain which way up it is"):
            spotting(turn(photo, quarters))


# -- the real detector ---------------------------------------------------------------------------------


@pytest.mark.real
@pytest.mark.parametrize("name", ["img8", "img14", "img16", "img20", "img21", "img29"])
def test_a_turned_photograph_is_set_upright(real_aligner, real_dir, name):
    photo = read_photo(real_dir / "photos" / f"{name}.jpg")
    (upright,) = real_aligner(photo, "largest")
    assert upright.turn == 0
    for quarters in (1, 2, 3):
        (face,) = real_aligner(turn(photo, quarters), "largest")
        assert face.turn == 360 - 90 * quarters
        torch.testing.assert_close(face.crop, upright.crop, atol=1e-3, rtol=0)


@pytest.mark.real
@pytest.mark.parametrize("seed", range(8))
def test_a_pasted_face_is_set_upright_or_refused(real_aligner, real_dir, seed):
    """Crops of all three collections, turned by any quarter and up to 45° more, on grounds without a face."""
    rng = np.random.default_rng(seed)
    files = sorted(
        [*real_dir.glob("faces/*/*.png"), *real_dir.glob("faces_colour/*/*.png"), *real_dir.glob("masks/??.png")]
    )
    crop = read_crop(files[rng.integers(len(files))])
    onto = turned_by(rng.uniform(-45, 45), rng.uniform(0.7, 2), (160, 150))
    crop = torch.nn.functional.interpolate(crop[None], (112, 112), mode="bilinear", antialias=True)[0]
    shown = warp(torch.ones(112, 112), inverse(onto), (300, 320), antialias=True)
    ground = torch.rand(3, 1, 1) if seed % 2 else torch.rand(3, 300, 320)
    photo = (warp(crop, inverse(onto), (300, 320), antialias=True) + ground * (1 - shown)).clamp(0, 1)
    aligned = 0
    for quarters in range(4):
        try:
            (face,) = real_aligner(turn(photo, quarters), "largest")
        except ValueError as error:
            assert "no face was found" in str(error) or "cannot be aligned" in str(error)  # noqa: PT017
            continue
        aligned += 1
        there = transform_points(similarity_points(face.transform, photo, quarters), inverse(onto))
        assert np.linalg.norm(there - ARCFACE_112, axis=1).max() < 20
    assert aligned in (0, 4)


def similarity_points(transform: np.ndarray, photo: torch.Tensor, quarters: int) -> np.ndarray:
    """Where a crop has the points of the template, in the photograph before it was turned."""
    points = transform_points(ARCFACE_112, inverse(transform))
    height, width = turn(photo, quarters).shape[1:]
    for _ in range(quarters):
        points = np.stack([height - 1 - points[:, 1], points[:, 0]], axis=1)
        height, width = width, height
    return points


@pytest.mark.real
def test_of_two_faces_the_one_that_is_upside_down_raises(real_aligner, real_dir):
    """A photograph has one way up; the other face is named, never aligned upside down."""
    pictures = [read_photo(real_dir / "photos" / f"img{i}.jpg") for i in (20, 29)]
    small, large = (
        torch.nn.functional.interpolate(picture[None], (side, side), mode="bilinear", antialias=True)[0]
        for picture, side in zip(pictures, (400, 600), strict=True)
    )
    both = torch.zeros(3, 600, 1000)
    both[:, :400, :400], both[:, :, 400:] = small, large.rot90(2, (1, 2))
    for photo in (both, turn(both, 2)):
        faces = real_aligner(photo)
        assert len(faces) == 1
        assert [bad.problem for bad in faces.rejected] == ["it is upside down against the rest of the photograph"]
        with pytest.raises(ValueError, match=r"cannot be aligned: it is upside down against .*faces=<index>"):
            real_aligner(photo, 1 - faces[0].index)
    upright = both.clone()
    upright[:, :, 400:] = large
    faces = real_aligner(upright)
    assert [face.face_count for face in faces] == [2, 2]
    assert real_aligner(upright, "largest")[0].face_count == 2


@pytest.mark.real
def test_aligned_crops_raise_no_doubt_and_others_do(real_aligner, real_dir):
    crops = sorted(
        [*real_dir.glob("faces/*/*.png"), *real_dir.glob("faces_colour/*/*.png"), *real_dir.glob("masks/??.png")]
    )
    for path in crops[::12]:
        crop = read_crop(path)
        assert alignment_doubt(crop, lambda: real_aligner) is None, path
        assert "only after a turn by 180°" in alignment_doubt(turn(crop, 2), lambda: real_aligner), path
    for name, (left, top, right, bottom) in {"img20": (150, 0, 730, 580), "img21": (0, 0, 439, 439)}.items():
        photo = read_photo(real_dir / "photos" / f"{name}.jpg")[None, :, top:bottom, left:right]
        small = torch.nn.functional.interpolate(photo, (250, 250), mode="bilinear", antialias=True)[0].clamp(0, 1)
        assert "of the height away" in alignment_doubt(small, lambda: real_aligner)


def test_without_a_detector_a_face_or_a_template_there_is_no_doubt(spotting):
    def missing() -> FaceAligner:
        raise ImportError("facexlib")

    crop = drawn(ARCFACE_112, (112, 112), 3)
    assert alignment_doubt(crop, missing) is None
    assert alignment_doubt(crop, lambda: FaceAligner(weights="/nowhere")) is None
    assert alignment_doubt(torch.zeros(3, 112, 112), lambda: spotting) is None
    assert alignment_doubt(torch.zeros(3, 100, 130), lambda: spotting) is None
    assert alignment_doubt(crop, lambda: spotting) is None
    assert "away from where" in alignment_doubt(drawn(ARCFACE_112 / 2 + 50, (112, 112), 3), lambda: spotting)
