"""Region reports, against numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from captum_leam.regions import (
    ARCFACE_LANDMARKS,
    CELEBAMASK_HQ,
    LANDMARK_NAMES,
    TEMPLATE,
    RegionScheme,
    TemplateParser,
    effective_number,
    fragments,
    landmark_table,
    parse,
    region_area,
    region_mass,
    region_report,
    region_share,
)

SCHEME = RegionScheme({0: "background", 1: "left", 2: "right", 3: "nowhere"}, name="halves")
LABELS = torch.tensor([[0, 0, 0, 0, 0], [1, 1, 0, 2, 2], [1, 1, 0, 2, 2], [0, 0, 0, 0, 0]])
MAP = torch.tensor(
    [
        [0.0, 0.0, 0.0, 0.0, 1.0],
        [6.0, 5.0, 0.0, -9.0, 0.0],
        [0.0, 0.0, 0.0, 4.0, 0.0],
        [0.0, 0.0, 0.0, 0.0, 0.0],
    ]
)
POINTS = np.array([(0.5, 1.0), (3.0, 2.0), (4.0, 0.0), (0.0, 3.0), (4.0, 3.0)])


def distinct_maps(seed: int, *shape: int) -> Tensor:
    """Signed, without ties: every image a permutation."""
    generator = torch.Generator().manual_seed(seed)
    pixels = shape[1] * shape[2]
    rows = [torch.randperm(pixels, generator=generator) for _ in range(shape[0])]
    return (torch.stack(rows).double() - pixels / 3).view(shape)


def test_the_report_by_hand_holds_shares_masses_areas_and_lifts():
    """Critical: 6, 5 (touching) and 4. Mass 11 of 16 left, 4 right, 1 background."""
    report = region_report(MAP[None], LABELS, SCHEME, fraction=0.15, landmarks=POINTS).set_index("region")
    assert report.index.tolist() == ["background", "left", "right", "nowhere"]
    assert report["share"].tolist() == pytest.approx([0, 2 / 3, 1 / 3, 0])
    assert report["mass"].tolist() == pytest.approx([1 / 16, 11 / 16, 4 / 16, 0])
    assert report["area"].tolist() == pytest.approx([12 / 20, 4 / 20, 4 / 20, 0])
    assert report["lift"].tolist() == pytest.approx([0, 10 / 3, 5 / 3, math.nan], nan_ok=True)
    entropy = -sum(p * math.log(p) for p in (1 / 16, 11 / 16, 4 / 16))
    assert report["effective_regions"].tolist() == pytest.approx([math.exp(entropy)] * 4)
    assert (report["fragments"] == 2).all()
    assert report["largest_fragment"].tolist() == pytest.approx([2 / 3] * 4)
    assert (report["nearest_landmark"] == "left_eye").all()
    assert report["landmark_distance"].tolist() == pytest.approx([0.0] * 4)


def test_the_report_has_a_row_per_image_and_region():
    report = region_report(torch.stack([MAP, MAP.flip(1)]), LABELS, SCHEME)
    assert report.columns.tolist() == [
        "image",
        "region",
        "share",
        "mass",
        "area",
        "lift",
        "fragments",
        "largest_fragment",
        "effective_regions",
        "nearest_landmark",
        "landmark_distance",
    ]
    assert report["image"].tolist() == [0] * 4 + [1] * 4
    assert report["region"].tolist() == list(SCHEME.names) * 2
    assert report.loc[report["share"] == 1, "region"].tolist() == ["left", "right"]


def test_fractions_of_the_face_rank_face_pixels_only():
    """5 % of 20 pixels are 1, 50 % of the 8 face pixels 4: the ranks among the face only."""
    loud_background = MAP.clone()
    loud_background[0, :] = 100.0
    crop = region_report(loud_background[None], LABELS, SCHEME, fraction=0.05).set_index("region")
    assert crop["share"]["background"] == 1
    face = region_report(loud_background[None], LABELS, SCHEME, fraction=0.375, of="face").set_index("region")
    assert face["share"].tolist() == pytest.approx([0, 2 / 3, 1 / 3, 0])
    assert face["lift"]["left"] == pytest.approx(10 / 3)
    given_face = region_report(loud_background[None], LABELS, SCHEME, fraction=0.5, of="face", face=LABELS == 2)
    assert given_face["share"].tolist() == [0, 0, 1, 0]
    unnamed = region_report(loud_background[None], LABELS, fraction=0.375, of="face")
    assert unnamed["share"].tolist() == pytest.approx([0, 2 / 3, 1 / 3])


def test_face_is_what_is_not_background_after_a_merge():
    merged = SCHEME.merge({"outside": ["background", "left"]})
    report = region_report(MAP[None], LABELS, merged, fraction=0.25, of="face")
    assert report.set_index("region")["share"].tolist() == [0, 1, 0]


def test_without_scheme_regions_are_named_by_their_integer():
    labels = torch.tensor([[-1, 40], [7, 7]], dtype=torch.int16)
    report = region_report(torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), labels)
    assert report["region"].tolist() == ["-1", "7", "40"]
    assert report["mass"].tolist() == pytest.approx([0.1, 0.7, 0.2])


def test_labels_of_every_kind_are_the_same():
    maps = distinct_maps(0, 2, 4, 5)
    expected = region_report(maps, LABELS.expand(2, 4, 5), SCHEME)
    for labels in (LABELS, LABELS.to(torch.uint8), LABELS.int().numpy(), LABELS.numpy()[::-1][::-1]):
        assert region_report(maps[:, None], labels, SCHEME).equals(expected)
    assert region_report(maps.numpy()[:, ::-1][:, ::-1], LABELS, SCHEME).equals(expected)


def test_half_precision_maps_do_not_overflow():
    """In half precision this sum is beyond the largest number."""
    maps = torch.full((1, 112, 112), 60000.0, dtype=torch.float16)
    labels = TemplateParser()(maps[:, None])
    report = region_report(maps, labels, TEMPLATE)
    assert report["mass"].tolist() == pytest.approx(report["area"].tolist())


def test_an_even_map_has_lift_one():
    labels = TemplateParser()(torch.zeros(1, 1, 112, 112))
    report = region_report(torch.ones(1, 112, 112), labels, TEMPLATE, fraction=1)
    assert report["lift"].tolist() == pytest.approx([1] * 12)
    assert (report["fragments"] == 1).all()


def test_gradients_do_not_matter():
    maps = MAP[None].clone().requires_grad_()
    assert region_report(maps, LABELS, SCHEME).equals(region_report(MAP[None], LABELS, SCHEME))


def test_no_images_give_empty_tables():
    report = region_report(torch.zeros(0, 4, 5), LABELS, SCHEME)
    assert len(report) == 0
    assert "landmark_distance" in report.columns
    assert len(landmark_table(torch.zeros(0, 4, 5))) == 0


@given(
    st.integers(0, 10**6), st.integers(1, 4), st.integers(2, 12), st.integers(2, 12), st.floats(0.01, 1), st.booleans()
)
@settings(deadline=None, max_examples=60)
def test_shares_masses_and_areas_sum_to_one_and_lift_is_their_ratio(seed, batch, height, width, fraction, shared):
    maps = distinct_maps(seed, batch, height, width)
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 19, (height, width) if shared else (batch, height, width), generator=generator)
    report = region_report(maps, labels, CELEBAMASK_HQ, fraction=fraction)
    assert len(report) == 19 * batch
    sums = report.groupby("image")[["share", "mass", "area"]].sum()
    np.testing.assert_allclose(sums, 1.0)
    there = report[report["area"] > 0]
    np.testing.assert_allclose(there["lift"] * there["area"], there["share"])
    assert report.loc[report["area"] == 0, "lift"].isna().all()
    assert (report.loc[report["area"] == 0, ["share", "mass"]] == 0).all(axis=None)
    assert report["effective_regions"].between(1 - 1e-9, 19).all()
    assert report["largest_fragment"].between(0, 1, inclusive="right").all()
    np.testing.assert_array_less(1 - 1e-9, report["fragments"] * report["largest_fragment"])


@given(st.integers(0, 10**6))
@settings(deadline=None, max_examples=30)
def test_merged_regions_are_the_sums_of_their_parts(seed):
    maps = distinct_maps(seed, 2, 9, 7)
    labels = torch.randint(0, 19, (2, 9, 7), generator=torch.Generator().manual_seed(seed))
    groups = {"lips": ["upper_lip", "lower_lip"], "eyes": ["left_eye", "right_eye"]}
    merged = CELEBAMASK_HQ.merge(groups)
    fine = region_report(maps, labels, CELEBAMASK_HQ, fraction=0.2)
    coarse = region_report(maps, merged.relabel(labels), merged, fraction=0.2)
    assert coarse.equals(region_report(maps, labels, merged, fraction=0.2))  # labels of the parser do as well
    new_names = {old: new for new, olds in groups.items() for old in olds}
    summed = fine.assign(region=fine["region"].replace(new_names)).groupby(["image", "region"])[
        ["share", "mass", "area"]
    ]
    expected = summed.sum()
    found = coarse.set_index(["image", "region"])[["share", "mass", "area"]]
    np.testing.assert_allclose(found.loc[expected.index], expected, atol=1e-12)


@given(st.integers(0, 10**6), st.permutations(range(4)))
@settings(deadline=None, max_examples=30)
def test_permuting_images_permutes_rows(seed, order):
    maps = distinct_maps(seed, 4, 8, 8)
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 12, (4, 8, 8), generator=generator)
    points = torch.rand(4, 5, 2, generator=generator).double() * 8
    straight = region_report(maps, labels, TEMPLATE, fraction=0.1, landmarks=points)
    permuted = region_report(maps[order], labels[order], TEMPLATE, fraction=0.1, landmarks=points[order])
    for place, image in enumerate(order):
        a = permuted[permuted["image"] == place].drop(columns="image").reset_index(drop=True)
        b = straight[straight["image"] == image].drop(columns="image").reset_index(drop=True)
        assert a.equals(b)


def test_ties_are_broken_by_the_seed():
    flat = torch.ones(1, 20, 20)
    labels = torch.arange(400).view(20, 20) // 20
    first, again, other = (region_report(flat, labels, fraction=0.05, seed=seed)["share"] for seed in (0, 0, 1))
    assert first.equals(again)
    assert not first.equals(other)


# -- building blocks -----------------------------------------------------------------------------------


def test_share_mass_and_area_by_hand_equal_those_of_the_map():
    labels = LABELS[None]
    assert region_share(MAP[None] > 3, labels, [1, 2]).flatten().tolist() == pytest.approx([2 / 3, 1 / 3])
    assert region_mass(MAP[None], labels, [0, 2]).flatten().tolist() == pytest.approx([1 / 16, 1 / 4])
    assert region_area(labels, [3, 0]).flatten().tolist() == pytest.approx([0, 0.6])


@pytest.mark.parametrize("count", [1, 2, 5])
def test_effective_number_of_equal_shares_is_their_number(count):
    shares = torch.zeros(2, 7)
    shares[:, :count] = 1 / count
    assert effective_number(shares).tolist() == pytest.approx([count] * 2)


def test_pixels_that_touch_at_corners_are_one_fragment():
    mask = torch.zeros(5, 5, dtype=torch.bool)
    mask[[0, 1, 2], [0, 1, 2]] = True
    mask[4, [0, 4]] = True
    found = fragments(mask)
    assert (found.count, found.largest, found.centroid) == (3, 0.6, (1.0, 1.0))


def test_fragments_equal_a_flood_fill():
    for seed in range(5):
        mask = torch.rand(12, 9, generator=torch.Generator().manual_seed(seed)) < 0.25
        todo, sizes = {tuple(p) for p in mask.nonzero().tolist()}, []
        while todo:
            stack, size = [todo.pop()], 0
            while stack:
                y, x = stack.pop()
                size += 1
                near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & todo
                todo -= near
                stack += near
            sizes.append(size)
        found = fragments(mask)
        assert (found.count, found.largest) == (len(sizes), pytest.approx(max(sizes) / sum(sizes)))


# -- landmarks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(112, 112), (224, 224), (28, 28)])
@pytest.mark.parametrize("index", range(5))
def test_nearest_landmark_is_scaled_to_the_map(size, index):
    x, y = (ARCFACE_LANDMARKS[index] + 0.5) * np.array(size[::-1]) / 112 - 0.5
    maps = torch.zeros(1, *size)
    maps[0, round(y), round(x)] = 1
    report = region_report(maps, torch.zeros(size, dtype=torch.long), fraction=1e-9)
    assert report["nearest_landmark"].tolist() == [LANDMARK_NAMES[index]]
    assert report["landmark_distance"].item() == pytest.approx(math.hypot(round(x) - x, round(y) - y))


def test_left_means_the_same_for_regions_and_landmarks():
    """An eye at smaller x: the image's left one, the person's right one. Region and landmark agree on it."""
    maps = torch.zeros(1, 112, 112)
    maps[0, 50:54, 36:40] = 1
    labels = torch.ones(112, 112, dtype=torch.long)
    labels[50:54, 36:40] = CELEBAMASK_HQ.index("right_eye")
    for scheme, expected in ((CELEBAMASK_HQ, "right_eye"), (CELEBAMASK_HQ.swap_sides(), "left_eye")):
        report = region_report(maps, labels, scheme, fraction=16 / 112**2)
        row = report[report["share"] == 1].squeeze()
        assert (row["region"], row["nearest_landmark"]) == (expected, expected)
    template = region_report(maps, TemplateParser()(maps[:, None]), TEMPLATE, fraction=16 / 112**2)
    row = template[template["share"] == 1].squeeze()
    assert (row["region"], row["nearest_landmark"]) == ("left_eye", "left_eye")


def test_the_landmark_table_by_hand_holds_shares_and_distances():
    """Pixels (0, 1), (1, 1) by the first point, (3, 2) on the second."""
    table = landmark_table(MAP[None], POINTS, fraction=0.15).set_index("landmark")
    assert table.index.tolist() == list(LANDMARK_NAMES)
    assert table["share"].tolist() == pytest.approx([2 / 3, 1 / 3, 0, 0, 0])
    assert table["distance"].tolist() == pytest.approx([0.5, 0, math.nan, math.nan, math.nan], nan_ok=True)


@given(st.integers(0, 10**6), st.floats(0.01, 1))
@settings(deadline=None, max_examples=30)
def test_landmark_shares_sum_to_one(seed, fraction):
    maps = distinct_maps(seed, 3, 10, 11)
    points = torch.rand(3, 5, 2, generator=torch.Generator().manual_seed(seed)) * 10
    table = landmark_table(maps, points, fraction=fraction)
    assert table["image"].tolist() == [image for image in range(3) for _ in range(5)]
    np.testing.assert_allclose(table.groupby("image")["share"].sum(), 1)
    assert (table["distance"].isna() == (table["share"] == 0)).all()
    alone = landmark_table(maps[1:2], points[1], fraction=fraction)
    assert alone["share"].tolist() == table.loc[table["image"] == 1, "share"].tolist()


# -- parse ---------------------------------------------------------------------------------------------


def test_parse_takes_labels_and_scores():
    images = torch.rand(2, 3, 4, 5)
    labels = torch.randint(0, 3, (2, 4, 5))
    scores = torch.nn.functional.one_hot(labels, 3).permute(0, 3, 1, 2).float()
    for answer in (labels, labels.to(torch.uint8), scores, scores.half()):
        parsed = parse(lambda x, answer=answer: answer, images)
        assert parsed.dtype == torch.int64
        assert torch.equal(parsed, labels)
    assert torch.equal(
        parse(TemplateParser(), torch.rand(2, 3, 112, 112))[0], torch.from_numpy(TemplateParser().draw())
    )


def test_parse_keeps_no_graph():
    layer = torch.nn.Conv2d(3, 2, 1)
    seen = []
    parse(lambda x: seen.append(layer(x)) or seen[0], torch.rand(1, 3, 4, 4))
    assert not seen[0].requires_grad


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        ((torch.zeros(2, 4, 5),), TypeError, r"got a tuple.*net\(x\)\[0\]"),
        (torch.zeros(2, 4, 5), ValueError, r"scores \(2, K, 4, 5\) .* got torch.float32 of shape \(2, 4, 5\)"),
        (
            torch.zeros(2, 3, 4, 5).long(),
            ValueError,
            r"integers \(2, 4, 5\) .* got torch.int64 of shape \(2, 3, 4, 5\)",
        ),
        (torch.zeros(2, 5, 4).long(), ValueError, r"integers \(2, 4, 5\) .* got torch.int64 of shape \(2, 5, 4\)"),
        (torch.zeros(1, 3, 4, 5), ValueError, r"scores \(2, K, 4, 5\)"),
        (torch.zeros(2, 1, 4, 5), ValueError, "got one class"),
        (torch.full((2, 3, 4, 5), math.nan), ValueError, "finite scores, got NaN"),
    ],
)
def test_parsers_that_return_no_labels_or_scores_raise(answer, kind, message):
    with pytest.raises(kind, match=message):
        parse(lambda x: answer, torch.rand(2, 3, 4, 5))


# -- bad input -----------------------------------------------------------------------------------------

MAPS = MAP[None]


@pytest.mark.parametrize(
    ("maps", "labels", "options", "message"),
    [
        (MAPS, LABELS[:3], {}, r"labels to have shape \(1, 4, 5\) .* got \(3, 5\).*place_on_field"),
        (MAPS, LABELS.expand(2, 4, 5), {}, r"labels to have shape \(1, 4, 5\) .* got \(2, 4, 5\)"),
        (MAPS, LABELS + 2, {}, r"labels of scheme 'halves', .* got \[4\]"),
        (MAPS * math.nan, LABELS, {}, "NaN or infinite"),
        (-MAPS.abs(), LABELS, {}, r"got no positive value in maps \[0\]"),
        (MAPS.expand(2, 3, 4, 5)[:, :2], LABELS, {}, "Expected maps to have shape"),
        (MAPS, LABELS, {"fraction": 0.0}, "Expected fraction .* got 0.0"),
        (MAPS, LABELS, {"fraction": 5}, "Expected fraction .* got 5"),
        (MAPS, LABELS, {"of": "head"}, 'of to be "crop" or "face", got .head.'),
        (MAPS, LABELS, {"face": LABELS > 0}, 'or pass of="face"'),
        (MAPS, LABELS, {"of": "face", "face": LABELS[1:] > 0}, r"face to have shape .* got \(3, 5\)"),
        (MAPS, LABELS, {"of": "face", "face": LABELS > 9}, "`within` to have a pixel in every image"),
        (MAPS, LABELS, {"landmarks": POINTS[:3]}, r"landmarks to have shape .* got \(3, 2\)"),
        (MAPS, LABELS, {"landmarks": POINTS * math.nan}, "landmarks to be finite, got NaN"),
        (MAPS, LABELS, {"landmarks": np.stack([POINTS] * 2)}, r"for 1 maps, got \(2, 5, 2\)"),
    ],
)
def test_wrong_maps_and_labels_raise(maps, labels, options, message):
    with pytest.raises(ValueError, match=message):
        region_report(maps, labels, SCHEME, **options)


def test_labels_of_floats_and_schemes_without_background_raise():
    with pytest.raises(TypeError, match="labels to be integers, one per pixel, got torch.float32"):
        region_report(MAPS, LABELS.float(), SCHEME)
    with pytest.raises(ValueError, match="has no background.*Pass face"):
        region_report(MAPS, LABELS, RegionScheme(dict(enumerate("abcd"))), of="face")
    with pytest.raises(ValueError, match="one pixel or more"):
        fragments(torch.zeros(3, 3, dtype=torch.bool))


# -- real faces ----------------------------------------------------------------------------------------


@pytest.mark.real
def test_the_template_report_is_close_to_that_of_hand_labels(real_dir):
    """A map that is the hand-labelled nose: the report on hand labels says all of it is nose, the template most of it."""
    paths = sorted((real_dir / "masks").glob("*_labels.png"))[:10]
    labels = torch.from_numpy(np.stack([np.asarray(Image.open(path)) for path in paths]))
    maps = CELEBAMASK_HQ.mask(labels, "nose").double()
    by_hand = region_report(maps, labels, CELEBAMASK_HQ)
    by_template = region_report(maps, TemplateParser()(maps[:, None]), TEMPLATE)
    nose = by_hand[by_hand["region"] == "nose"]
    assert nose["mass"].tolist() == pytest.approx([1.0] * 10)
    assert nose["effective_regions"].tolist() == pytest.approx([1.0] * 10)
    assert by_template.loc[by_template["region"] == "nose", "mass"].mean() > 0.75
    assert nose["nearest_landmark"].isin(["nose_tip"]).mean() >= 0.5
