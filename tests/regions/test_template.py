"""The drawn template: where it puts the regions, and how it follows size and alignment."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from captum_leam.regions import ARCFACE_LANDMARKS, CELEBAMASK_HQ, LANDMARK_NAMES, TEMPLATE, TemplateParser
from captum_leam.regions.template import align_to_landmarks, as_landmarks, mirror, polygon_mask, rescale

REGION_AT = dict(zip(LANDMARK_NAMES, ("left_eye", "right_eye", "nose", "mouth", "mouth"), strict=True))


def region_at(labels: np.ndarray, point: np.ndarray) -> str:
    x, y = point.round().astype(int)
    return TEMPLATE.regions[int(labels[y, x])]


def inner(landmarks: np.ndarray) -> np.ndarray:
    """The corners of the mouth are its tips, where rounding decides: taken 15 % inwards."""
    points = landmarks.copy()
    points[3:] += 0.15 * (landmarks[[4, 3]] - landmarks[3:])
    return points


def iou(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a & b).sum((1, 2)) / (a | b).sum((1, 2))


def test_every_landmark_lies_in_its_region():
    labels = TemplateParser().draw()
    for name, point in zip(LANDMARK_NAMES, ARCFACE_LANDMARKS, strict=True):
        assert region_at(labels, point) == REGION_AT[name]


def test_every_region_is_there_and_the_corners_are_background():
    labels = TemplateParser().draw()
    assert set(np.unique(labels)) == set(TEMPLATE.labels)
    assert (labels[[0, 0, -1, -1], [0, -1, 0, -1]] == 0).all()


def test_left_is_the_images_and_mirrors_the_right():
    labels = TemplateParser().draw()
    flipped = labels[:, 1:][:, ::-1]  # the midline is column 56: column 0 has no partner
    for part in ("eye", "brow", "cheek"):
        left, right = (labels[:, 1:] == TEMPLATE.index(f"{side}_{part}") for side in ("left", "right"))
        assert np.nonzero(left)[1].mean() < 55 < np.nonzero(right)[1].mean()
        partner = flipped == TEMPLATE.index(f"right_{part}")
        assert (left & partner).sum() / (left | partner).sum() > 0.9


def test_regions_follow_each_other_from_forehead_to_chin():
    labels = TemplateParser().draw()
    column = [TEMPLATE.regions[value] for value in dict.fromkeys(labels[:, 56].tolist())]
    assert column[:3] == ["background", "outline", "forehead"]
    assert [r for r in column if r in ("forehead", "nose", "mouth", "chin")] == ["forehead", "nose", "mouth", "chin"]


def test_the_parser_returns_the_same_labels_for_every_image():
    parser = TemplateParser()
    labels = parser(torch.rand(3, 1, 112, 112, dtype=torch.float64))
    assert labels.shape == (3, 112, 112)
    assert labels.dtype == torch.int64
    assert labels.device == torch.device("cpu")
    assert parser.scheme is TEMPLATE
    labels[0] = 0  # each image has its own
    assert (labels[1] == torch.from_numpy(parser.draw())).all()
    assert parser(torch.rand(0, 3, 112, 112)).shape == (0, 112, 112)
    assert parser(torch.rand(1, 3, 112, 112, device="meta")).device.type == "meta"


@pytest.mark.parametrize("size", [(56, 56), (224, 224), (160, 160), (112, 116)])
def test_other_sizes_are_the_same_drawing(size):
    drawn = torch.from_numpy(TemplateParser().draw(size))
    standard = torch.from_numpy(TemplateParser().draw())
    y, x = torch.meshgrid(torch.arange(size[0]) + 0.5, torch.arange(size[1]) + 0.5, indexing="ij")
    nearest = standard[(y * 112 / size[0]).long(), (x * 112 / size[1]).long()]
    assert (nearest == drawn).double().mean() > 0.95
    for name, point in zip(LANDMARK_NAMES, rescale(inner(ARCFACE_LANDMARKS), (112, 112), size), strict=True):
        assert region_at(drawn.numpy(), point) == REGION_AT[name]


def test_a_shifted_template_is_a_shifted_drawing():
    """The 112 × 96 alignment: the same points, 8 px further left."""
    narrow = TemplateParser(ARCFACE_LANDMARKS - (8, 0), size=(112, 96))
    assert (narrow.draw() == TemplateParser().draw()[:, 8:104]).all()


@given(st.floats(-40, 40), st.floats(0.6, 1.3), st.floats(-8, 8), st.floats(-8, 8))
@settings(deadline=None, max_examples=25)
def test_other_alignments_move_the_drawing_by_their_similarity(angle, scale, right, down):
    turn = np.deg2rad(angle)
    matrix = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    landmarks = (ARCFACE_LANDMARKS - 80) @ matrix.T + 112 + (right, down)
    labels = TemplateParser(landmarks, size=(224, 224)).draw()
    for name, point in zip(LANDMARK_NAMES, inner(landmarks), strict=True):
        assert region_at(labels, point) == REGION_AT[name]
    everything = [(10.0, 20.0), (70.0, 3.0)]
    expected = (np.array(everything) - 80) @ matrix.T + 112 + (right, down)
    np.testing.assert_allclose(align_to_landmarks(np.array(everything), landmarks), expected, atol=1e-6)


def test_fill_covers_the_pixels_within_a_polygon():
    square = np.array([(1.0, 2.0), (3.0, 2.0), (3.0, 3.0), (1.0, 3.0)])
    expected = np.zeros((5, 6), dtype=bool)
    expected[2:4, 1:4] = True
    np.testing.assert_array_equal(polygon_mask(square, (5, 6)), expected)
    np.testing.assert_array_equal(polygon_mask(square + 50, (5, 6)), np.zeros((5, 6), dtype=bool))


def test_rescale_keeps_pixel_centres():
    """The centre of a crop stays its centre, and its edges its edges."""
    points = [(55.5, 55.5), (-0.5, -0.5), (111.5, 111.5)]
    assert rescale(points, (112, 112), (28, 56)).tolist() == [[27.5, 13.5], [-0.5, -0.5], [55.5, 27.5]]


def test_mirrored_twice_is_the_same():
    points = np.random.default_rng(0).random((6, 2))
    np.testing.assert_allclose(mirror(mirror(points)), points)


def test_standard_landmarks_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        ARCFACE_LANDMARKS[0, 0] = 0


@pytest.mark.parametrize(
    ("landmarks", "message"),
    [
        (ARCFACE_LANDMARKS[:4], r"landmarks to have shape \(5, 2\) .* got \(4, 2\)"),
        (np.stack([ARCFACE_LANDMARKS] * 2), r"shape \(5, 2\), shared by all crops, got \(2, 5, 2\)"),
        (ARCFACE_LANDMARKS * np.nan, "NaN or infinite"),
        (2 * ARCFACE_LANDMARKS, "to lie inside the crop of .* Pass the size"),
        (ARCFACE_LANDMARKS - (50, 0), "to lie inside the crop"),
        (ARCFACE_LANDMARKS[[1, 0, 2, 4, 3]], "to look like a face.*in this order"),
        (ARCFACE_LANDMARKS[:, ::-1], "to look like a face"),
        (np.full((5, 2), 56.0), "coincide"),
    ],
)
def test_wrong_landmarks_raise(landmarks, message):
    with pytest.raises(ValueError, match=message):
        TemplateParser(landmarks)


def test_images_of_other_sizes_than_the_template_raise():
    parser = TemplateParser()
    with pytest.raises(ValueError, match=r"shape \(N, C, H, W\), got \(3, 112, 112\)"):
        parser(torch.rand(3, 112, 112))
    with pytest.raises(
        ValueError, match=r"the template, \(112, 112\), got \(H, W\) = \(112, 96\), which is another alignment"
    ):
        parser(torch.rand(1, 3, 112, 96))
    with pytest.raises(ValueError, match="another alignment"):
        parser(torch.rand(1, 3, 112, 160))
    with pytest.raises(ValueError, match="landmarks to have shape"):
        as_landmarks([[1.0, 2.0, 3.0]])


@pytest.mark.real
def test_agrees_with_hand_labels(real_dir):
    paths = sorted((real_dir / "masks").glob("*_labels.png"))
    labels = torch.from_numpy(np.stack([np.asarray(Image.open(path)) for path in paths]))
    hand = CELEBAMASK_HQ.merge({"mouth": ["mouth", "upper_lip", "lower_lip"]}).merge_sides()
    parser = TemplateParser()
    drawn, scheme = parser(labels[:, None]), TEMPLATE.merge_sides()
    for region, needed in {"nose": 0.70, "mouth": 0.58, "eyes": 0.43, "brows": 0.30}.items():
        truth = hand.mask(labels, region)
        shown = truth.flatten(1).any(1)
        assert iou(truth, scheme.mask(drawn, region))[shown].mean() >= needed, region


@pytest.mark.real
def test_sides_agree_with_hand_labels(real_dir):
    """The image's left eye of the template is the hand labels' right eye, but for two images whose labels are swapped."""
    paths = sorted((real_dir / "masks").glob("*_labels.png"))
    labels = torch.from_numpy(np.stack([np.asarray(Image.open(path)) for path in paths]))
    template = TEMPLATE.mask(TemplateParser()(labels[:, None]), "left_eye")
    person, image = (
        (template & scheme.mask(labels, "left_eye")).sum((1, 2))
        for scheme in (CELEBAMASK_HQ, CELEBAMASK_HQ.swap_sides())
    )
    assert (image > person).sum() >= 35
    assert (person > image).sum() <= 2


def test_the_drawing_is_the_one_that_results_were_made_with():
    """Pixels of every region of the standard crop: who changes the drawing changes everybody's lifts, and says so."""
    labels = TemplateParser()(torch.zeros(1, 3, 112, 112))[0]
    found = {name: int((labels == i).sum()) for i, name in TEMPLATE.regions.items()}
    assert found == AREAS


AREAS = {
    "background": 4213, "outline": 2544, "forehead": 1503, "left_brow": 114, "right_brow": 114, "left_eye": 61, "right_eye": 61,
    "nose": 440, "left_cheek": 1395, "right_cheek": 1408, "mouth": 262, "chin": 429,
}  # fmt: skip
