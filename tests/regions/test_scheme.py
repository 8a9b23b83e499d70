"""Region schemes: names, merging, sides, and what labels become."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from captum_leam.regions import CELEBAMASK_HQ, TEMPLATE, RegionScheme

SMALL = RegionScheme({0: "background", 3: "left_eye", 1: "right_eye", 7: "nose"}, name="small", left="image")


def test_order_is_kept():
    assert SMALL.names == ("background", "left_eye", "right_eye", "nose")
    assert SMALL.labels == (0, 3, 1, 7)
    assert [SMALL.index(name) for name in SMALL.names] == [0, 3, 1, 7]
    assert len(SMALL) == 4


def test_celebamask_order():
    expected = (
        "background skin nose glasses left_eye right_eye left_brow right_brow left_ear right_ear mouth upper_lip lower_lip "
        "hair hat earring necklace neck cloth"
    )
    assert CELEBAMASK_HQ.regions == dict(enumerate(expected.split()))


def test_merge_keeps_the_first_label_and_place():
    merged = SMALL.merge({"eyes": ["right_eye", "left_eye"]})
    assert merged.regions == {0: "background", 3: "eyes", 7: "nose"}
    assert merged.names == ("background", "eyes", "nose")
    assert merged.relabel(torch.tensor([[0, 1], [3, 7]])).tolist() == [[0, 3], [3, 7]]
    assert SMALL.names == ("background", "left_eye", "right_eye", "nose")


def test_merge_may_reuse_the_name_of_a_part():
    merged = CELEBAMASK_HQ.merge({"mouth": ["upper_lip", "mouth", "lower_lip"]})
    assert merged.index("mouth") == 10
    assert "upper_lip" not in merged.names
    assert merged.relabel(torch.arange(19)).tolist() == [*range(10), 10, 10, 10, *range(13, 19)]


def test_merging_twice_reads_labels_of_every_ancestor():
    once = CELEBAMASK_HQ.merge_sides()
    twice = once.merge({"sight": ["eyes", "brows", "glasses"]})
    original = torch.arange(19)
    assert twice.relabel(original).tolist() == twice.relabel(once.relabel(original)).tolist()
    assert twice.mask(original, "sight").nonzero().flatten().tolist() == [3, 4, 5, 6, 7]


@given(st.data())
@settings(deadline=None, max_examples=50)
def test_merging_preserves_counts(data):
    """Pixels of a merged region are those of its parts, and relabelling again changes nothing."""
    groups = data.draw(st.lists(st.integers(0, 3), min_size=19, max_size=19))
    parts: dict[str, list[str]] = {}
    for name, group in zip(CELEBAMASK_HQ.names, groups, strict=True):
        if group:
            parts.setdefault(f"group {group}", []).append(name)
    merged = CELEBAMASK_HQ.merge(parts)
    labels = torch.randint(0, 19, (2, 7, 5), generator=torch.Generator().manual_seed(data.draw(st.integers(0, 99))))
    own = merged.relabel(labels)
    for new, olds in parts.items():
        assert torch.equal(merged.mask(labels, new), CELEBAMASK_HQ.mask(labels, *olds))
    assert torch.equal(merged.relabel(own), own)
    assert set(own.unique().tolist()) <= set(merged.labels)


def test_background_follows_a_merge():
    assert SMALL.merge({"outside": ["background", "nose"]}).background == "outside"
    assert SMALL.merge({"eyes": ["left_eye", "right_eye"]}).background == "background"


def test_merge_sides_joins_left_and_right():
    assert TEMPLATE.merge_sides().names == (
        "background",
        "outline",
        "forehead",
        "brows",
        "eyes",
        "nose",
        "cheeks",
        "mouth",
        "chin",
    )
    assert {"eyes", "brows", "ears"} <= set(CELEBAMASK_HQ.merge_sides().names)
    other = RegionScheme({1: "left_temple", 2: "right_temple", 3: "left_horn"})
    assert other.merge_sides().names == ("temples", "left_horn")


def test_swap_sides_changes_names_only():
    swapped = CELEBAMASK_HQ.swap_sides()
    assert swapped.left == "image"
    assert swapped.index("left_eye") == CELEBAMASK_HQ.index("right_eye")
    assert swapped.index("nose") == 2
    assert swapped.swap_sides() == CELEBAMASK_HQ
    assert CELEBAMASK_HQ.merge_sides().swap_sides().index("eyes") == 4


def test_mask_is_true_on_the_named_regions():
    labels = torch.tensor([[0, 3], [1, 7]], dtype=torch.uint8)
    assert SMALL.mask(labels, "nose").tolist() == [[False, False], [False, True]]
    assert SMALL.mask(labels, "left_eye", "right_eye").tolist() == [[False, True], [True, False]]


def test_schemes_are_immutable_values():
    copy = pickle.loads(pickle.dumps(CELEBAMASK_HQ))  # noqa: S301
    assert copy == CELEBAMASK_HQ
    assert hash(copy) == hash(CELEBAMASK_HQ)
    assert copy != TEMPLATE
    given_regions = {0: "background"}
    scheme = RegionScheme(given_regions)
    given_regions[1] = "nose"
    assert scheme.names == ("background",)
    with pytest.raises(AttributeError):
        scheme.name = "other"


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (
            {"eyes": ["left_eye", "rigth_eye"]},
            "regions of scheme 'small', 'background', 'left_eye', .* got 'rigth_eye'",
        ),
        ({"a": ["left_eye", "nose"], "b": ["nose", "right_eye"]}, "in one group, got 'nose' more than once"),
        ({"a": ["nose", "nose"]}, "in one group, got 'nose' more than once"),
        ({"nose": ["left_eye", "right_eye"]}, "got 'nose', the name of a region outside the group"),
        ({"nose": ["left_eye"], "x": ["nose"]}, "got 'nose', the name of a region outside the group"),
        ({"eyes": []}, "group 'eyes' to be a list .* got \\[\\]"),
        ({"eyes": "left_eye"}, "group 'eyes' to be a list .* got 'left_eye'"),
    ],
)
def test_wrong_merges_raise(groups, message):
    with pytest.raises(ValueError, match=message):
        SMALL.merge(groups)


@pytest.mark.parametrize(
    ("regions", "kind", "message"),
    [
        ({}, ValueError, "one name or more, {label: name}, got none"),
        ({0: "nose", 1: "nose"}, ValueError, "unique names, got 'nose' more than once"),
        ({"0": "nose"}, TypeError, "integers as labels, got '0'"),
        ({True: "nose"}, TypeError, "integers as labels, got True"),
        ({0: 1}, TypeError, "strings as names, got 1"),
    ],
)
def test_wrong_regions_raise(regions, kind, message):
    with pytest.raises(kind, match=message):
        RegionScheme(regions)


def test_wrong_sides_origins_and_labels_raise():
    with pytest.raises(ValueError, match='left to be "image", "person" or None, got .west.'):
        RegionScheme({0: "nose"}, left="west")
    with pytest.raises(ValueError, match="origin to hold labels of scheme .* got \\[5\\]"):
        RegionScheme({0: "nose"}, origin={3: 5})
    with pytest.raises(ValueError, match="labels of scheme 'small', 0, .* got \\[2, 9\\]"):
        SMALL.relabel(torch.tensor([0, 2, 9]))
    with pytest.raises(TypeError, match=r"labels to be integers, .* got torch.float32.*labels.long\(\)"):
        SMALL.relabel(torch.zeros(2, 2))
    with pytest.raises(ValueError, match="regions of scheme 'small', .* got 'ear'"):
        SMALL.index("ear")
    with pytest.raises(ValueError, match="names of one or more regions .* got none"):
        SMALL.mask(torch.tensor([0]))
    with pytest.raises(ValueError, match='left="image" or left="person", got None'):
        RegionScheme({0: "left_eye"}).swap_sides()


@pytest.mark.real
def test_left_of_the_hand_labels_is_the_persons(real_dir):
    """In photos that are not mirrored, what CELEBAMASK_HQ calls left lies at larger x."""
    paths = sorted((real_dir / "masks").glob("*_labels.png"))
    labels = torch.from_numpy(np.stack([np.asarray(Image.open(path)) for path in paths]))
    assert CELEBAMASK_HQ.left == "person"
    for part in ("eye", "brow"):
        left, right = (CELEBAMASK_HQ.mask(labels, f"{side}_{part}") for side in ("left", "right"))
        both = left.flatten(1).any(1) & right.flatten(1).any(1)
        centre_left, centre_right = ((m * torch.arange(112)).sum((1, 2)) / m.sum((1, 2)) for m in (left, right))
        assert (centre_left > centre_right)[both].double().mean() > 0.9  # two images are labelled the other way round
