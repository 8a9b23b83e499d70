import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from captum_leam.maps import gaussian_blur
from captum_leam.patterns import (
    closest_strangers,
    control_maps,
    crop_features,
    edge_maps,
    pattern_claim,
    pose_features,
    region_maps,
    signatures,
    untrained_maps,
)
from tests.helpers.pattern_people import made_maps, slow_means, table_of

PEOPLE = 12


@pytest.fixture(scope="module")
def sets():
    """Maps that show people, and controls that do less and less; made alike."""
    made = {}
    for name, own in (("maps", 2.0), ("weak", 0.3), ("strong", 0.8)):
        maps, people = made_maps((3,) * PEOPLE, own=own)
        made[name] = maps
    return made, people


def made_of(sets, name):
    return signatures(sets[0][name], fraction=0.2)


def test_gaps_equal_double_loops(sets):
    claim = pattern_claim(
        made_of(sets, "maps"), sets[1], {n: made_of(sets, n) for n in ("weak", "strong")}, resamples=200
    )
    table = claim.to_frame().set_index("name")
    assert table.index.tolist() == ["maps", "strong", "weak"]
    for name in table.index:
        slow = slow_means(table_of(sets[0][name]), sets[1])
        assert table.loc[name, "same"] == pytest.approx(slow["same"], abs=1e-6)
        assert table.loc[name, "gap"] == pytest.approx(slow["same"] - slow["different"], abs=1e-6)
    assert claim.strongest == "strong"
    assert claim.headline == pytest.approx(table.loc["maps", "gap"] - table.loc["strong", "gap"])
    assert claim.low < claim.headline < claim.high
    assert claim.holds


def test_a_control_that_is_the_maps_leaves_nothing(sets):
    made = made_of(sets, "maps")
    claim = pattern_claim(made, sets[1], {"the same": made, "weak": made_of(sets, "weak")})
    assert claim.headline == 0
    assert (claim.low, claim.high) == (0, 0)
    assert not claim.holds
    assert "does not show more" in claim.sentence()


def test_the_interval_is_above_0_only_if_it_is_for_every_control(sets):
    """Two controls of equal strength: which is the stronger is chance."""
    first, people = made_maps((3,) * PEOPLE, own=0.8, seed=1)
    second, _ = made_maps((3,) * PEOPLE, own=0.8, seed=2)
    controls = {"first": signatures(first, fraction=0.2), "second": signatures(second, fraction=0.2)}
    both = pattern_claim(made_of(sets, "maps"), people, controls)
    beyond = both.to_frame().iloc[1:]
    assert both.low == beyond["above_low"].min()
    assert both.headline == beyond["above"].min()
    assert both.high == beyond["above_high"].iloc[0]


def test_the_mean_over_strangers_equals_a_loop(sets):
    maps, people = sets[0]["maps"], sets[1]
    rng = np.random.default_rng(0)
    strangers = np.array([rng.choice([j for j, q in enumerate(people) if q != p], 2, replace=False) for p in people])
    claim = pattern_claim(made_of(sets, "maps"), people, {}, strangers=strangers, resamples=20)
    table = table_of(maps)
    slow = np.mean([table[i, j] for i, row in enumerate(strangers) for j in row])
    row = claim.to_frame().iloc[1]
    assert row["name"] == "pose"
    assert row["same"] == pytest.approx(slow, abs=1e-6)
    assert claim.headline == pytest.approx(slow_means(table, people)["same"] - slow, abs=1e-6)
    named = pattern_claim(made_of(sets, "maps"), people, {}, strangers={"by light": strangers}, resamples=20)
    assert named.strongest == "by light"


@pytest.mark.parametrize("weights", ["people", "pairs"])
def test_means_over_strangers_equal_a_loop_under_either_weighting(weights):
    maps, people = made_maps((3, 1, 2, 4), own=0.3)
    table, codes = table_of(maps), np.array([int(p[1]) for p in people])
    strangers = closest_strangers(maps.flatten(1), people)
    share = 1 / np.bincount(codes)[codes] if weights == "people" else np.ones(10)
    slow = np.average([table[i, j] for i, j in enumerate(strangers.ravel())], weights=share)
    made = signatures(maps, fraction=0.2)
    claim = pattern_claim(made, people, {}, strangers=strangers, weights=weights, resamples=20)
    assert claim.to_frame().loc[1, "same"] == pytest.approx(slow, abs=1e-6)


def test_the_interval_of_strangers_follows_from_the_derivative_by_each_person():
    """Of four people: Student's t, with the standard error from P times the derivative by each person's weight."""
    maps, people = made_maps((3, 1, 2, 4))
    table, codes = table_of(maps), np.array([int(p[1]) for p in people])
    strangers = closest_strangers(maps.flatten(1), people)

    def gap(drawn):
        load = drawn[codes] * drawn[codes[strangers.ravel()]] / np.bincount(codes)[codes]
        same = np.average(table[np.arange(10), strangers.ravel()], weights=load)
        return same - slow_means(table, people, drawn)["different"]

    ones, steps = np.ones(4), 1e-4 * np.eye(4)
    influence = np.array([4 * (gap(ones + step) - gap(ones - step)) / 2e-4 for step in steps])
    half = stats.t.ppf(0.975, 3) * np.sqrt((influence**2).sum() / 12)
    row = pattern_claim(signatures(maps, fraction=0.2), people, {}, strangers=strangers, resamples=20).to_frame().loc[1]
    assert (row["low"], row["high"]) == pytest.approx((gap(ones) - half, gap(ones) + half), abs=1e-5)


def test_claims_without_controls_or_with_other_maps_raise(sets):
    made, people = made_of(sets, "maps"), sets[1]
    with pytest.raises(ValueError, match="Expected one control or more"):
        pattern_claim(made, people, {})
    with pytest.raises(ValueError, match="Expected one control or more"):
        pattern_claim(made, people, {}, strangers={})
    with pytest.raises(ValueError, match="'edges' to be of the same images .* got Signatures of 35 maps"):
        pattern_claim(made, people, {"edges": made[:35]})
    with pytest.raises(ValueError, match="same images and kind"):
        pattern_claim(made, people, {"edges": signatures(sets[0]["weak"], "dense")})
    with pytest.raises(ValueError, match="Expected names of controls other than 'maps'"):
        pattern_claim(made, people, {"maps": made})
    own = np.arange(36)
    for wrong, said in (
        (own, "same person"),
        (own[:5], "to be indices"),
        (own + 10, "`strangers` from 0 to 35"),
        (own / 2, "float64"),
        (np.array(3), r"to be indices .* got int64 \(\)"),
        (np.zeros((36, 0), int), r"to be indices .* got int64 \(36, 0\)"),
        (np.zeros(0, int), r"to be indices .* got int64 \(0,\)"),
    ):
        with pytest.raises(ValueError, match=said):
            pattern_claim(made, people, {}, strangers=wrong)


def test_the_result_prints_and_draws(sets):
    claim = pattern_claim(made_of(sets, "maps"), sets[1], {"strong": made_of(sets, "strong")}, resamples=50)
    assert "The strongest control of 1, strong, has a gap of" in repr(claim)
    assert "12 people" in claim.sentence()
    assert [t.get_text() for t in claim.plot().axes[0].get_yticklabels()] == ["strong", "maps"]


# -- control maps --------------------------------------------------------------------------------------


def test_edges_see_the_picture_only():
    images = torch.zeros(1, 3, 28, 28)
    images[..., 14:] = 1
    assert set(edge_maps(images)[0].argmax(1).tolist()) <= {13, 14}


def test_region_maps_paint_each_region_with_its_mean():
    labels = torch.zeros(2, 8, 8, dtype=torch.int64)
    labels[:, :2, :2], labels[0, 6:, 6:] = 3, 7
    maps = torch.ones(2, 8, 8)
    maps[0, :2, :2], maps[1, :2, :2], maps[0, 6:, 6:] = 5.0, 2.0, 9.0
    painted = region_maps(labels, maps, smooth=0)
    shares = maps / maps.sum((1, 2), keepdim=True)
    means = {r: shares[labels == r].mean().item() for r in (0, 3, 7)}
    top = max(means.values())
    for region, mean in means.items():
        assert painted[labels == region].tolist() == pytest.approx([mean / top] * int((labels == region).sum()))
    assert torch.allclose(region_maps(labels, maps, smooth=14.0), gaussian_blur(painted, 1.0))
    alike = region_maps(labels, smooth=0)
    assert alike[labels == 0].max() == 0
    assert alike[0, 7, 7] == 1  # the rarer region is the higher
    assert alike[0, 0, 0] == pytest.approx(0.5)


def test_untrained_maps_leave_the_model_alone_and_know_nothing_of_it():
    images = torch.rand(6, 3, 32, 32)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 8, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.LazyLinear(8)
    ).eval()
    model(images)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    maps = untrained_maps(model, images, list("aabbcc"))
    assert maps.shape == (6, 32, 32)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(-3)
    assert torch.equal(maps, untrained_maps(model, images, list("aabbcc")))
    assert not torch.equal(maps, untrained_maps(model, images, list("aabbcc"), seed=1))


def test_control_maps_makes_every_control_in_one_call():
    images, people = torch.rand(4, 3, 16, 16), list("aabb")
    seen = []

    def explain(model, x, references):
        seen.append((model, references.shape))
        return x.mean(1)

    model = nn.Sequential(nn.Flatten(), nn.Linear(768, 5)).eval()
    labels = torch.randint(0, 3, (4, 16, 16))
    made = control_maps(images, people, model=model, explain=explain, labels=labels, maps=images.mean(1))
    assert list(made) == ["edges", "untrained", "parser"]
    assert seen[0][0] is not model
    assert seen[0][1] == (4, 5)
    assert all(m.shape == (4, 16, 16) for m in made.values())


def test_region_maps_of_wrong_labels_raise():
    with pytest.raises(ValueError, match="to be integers"):
        region_maps(torch.rand(2, 4, 4))
    with pytest.raises(ValueError, match="one size"):
        region_maps(torch.zeros(2, 4, 4, dtype=torch.int64), torch.rand(2, 4, 5))


# -- strangers -----------------------------------------------------------------------------------------


def test_closest_strangers_equal_a_loop():
    rng = np.random.default_rng(0)
    features, people = rng.normal(size=(20, 3)), [int(p) for p in rng.integers(0, 5, 20)]
    found = closest_strangers(features, people, 3, block=7)
    for i, row in enumerate(found):
        others = sorted(
            (j for j in range(20) if people[j] != people[i]), key=lambda j: np.linalg.norm(features[i] - features[j])
        )
        assert row.tolist() == others[:3]


def test_pose_features_see_the_turn_of_the_head_only():
    face = np.array([[30, 50], [70, 50], [50, 70], [35, 90], [65, 90]], dtype=float)
    turned = face + np.array([[0, 0], [0, 0], [9, 0], [3, 0], [3, 0]])
    angle = 0.4
    spin = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    plain, moved, other = pose_features([face, 1.7 * face @ spin.T + 5, turned])
    assert np.allclose(plain, moved)
    assert plain[2] == pytest.approx(0)
    assert other[2] == pytest.approx(9 / 40)


def test_crop_features_are_correlations():
    images = torch.rand(3, 3, 28, 28)
    features = crop_features(images)
    grey = images.mean(1).flatten(1).numpy()
    assert np.allclose(features @ features.T, np.corrcoef(grey), atol=1e-6)
    assert np.allclose(crop_features(0.3 * images + 0.2), features, atol=1e-5)
    assert crop_features(torch.ones(1, 1, 28, 28)).tolist() == [[0.0] * 784]


@pytest.mark.parametrize(
    ("features", "k", "said"),
    [
        ([[0.0], [1.0], [float("nan")]], 1, "NaN"),
        ([[0.0], [1.0], [2.0]], 2, "`k` from 1 to .* got 2"),
        ([0.0, 1.0, 2.0], 1, "shape"),
    ],
)
def test_closest_strangers_of_wrong_features_or_counts_raise(features, k, said):
    with pytest.raises(ValueError, match=said):
        closest_strangers(features, ["a", "a", "b"], k)


def test_pose_features_of_impossible_landmarks_raise():
    with pytest.raises(ValueError, match="shape"):
        pose_features(np.zeros((4, 2)))
    with pytest.raises(ValueError, match=r"one place for faces \[0\]"):
        pose_features(np.zeros((1, 5, 2)))
