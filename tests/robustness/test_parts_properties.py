"""Maps, fills, controls, statistics, decisions, geometry, parsers and explainers against slow second implementations and what must hold."""

import itertools
import math
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from captum_leam import bhattacharyya, leave_one_out_centroids, overall_map, top_fraction
from captum_leam.controls import CONTROLS, ControlContext
from captum_leam.explainers import (
    FAME,
    FGGB,
    RISE,
    XSSAB,
    CorrRISE,
    ExtremalPerturbation,
    GradCAM,
    HiResCAM,
    LayerCAM,
    PositionDecomposition,
    RegionShapley,
    XFace,
)
from captum_leam.faces.geometry import inverse, similarity_transform, transform_points
from captum_leam.faithfulness.fills import FILLS, as_fill, noisy_linear
from captum_leam.maps import gaussian_blur, normalize_max, normalize_sum, place_on_field, rank_pixels
from captum_leam.regions import TEMPLATE, TemplateParser
from captum_leam.regions.report import effective_number, fragments, region_area, region_mass, region_share
from captum_leam.regions.scheme import other_side
from captum_leam.stats.decisions import (
    decision_rates,
    error_rates,
    threshold_at_eer,
    threshold_at_fmr,
    thresholds_between,
)
from captum_leam.stats.inference import bootstrap_interval, by_person, effect_size, holm, paired_p_value
from tests.helpers.networks import Net
from tests.helpers.profiles import EXAMPLES

SIDE = st.integers(1, 9)
SEED = st.integers(0, 2**20)
P_VALUES = st.lists(st.one_of(st.floats(0, 1), st.just(float("nan"))), min_size=1, max_size=8)


@st.composite
def maps(draw: st.DrawFn, most: int = 3, *, ties: bool = True) -> Tensor:
    """Signed maps with ties, (N, H, W), each with something positive."""
    shape = draw(st.integers(1, most)), draw(SIDE), draw(SIDE)
    values = torch.randn(shape, generator=torch.Generator().manual_seed(draw(SEED)), dtype=torch.float64)
    if ties and draw(st.booleans()):
        values = values.round()
    values[:, 0, 0] = torch.where(values.amax((1, 2)) > 0, values[:, 0, 0], 1.0)
    return values


# -- maps ------------------------------------------------------------------------------------------------


@EXAMPLES
@given(maps(), st.floats(1e-3, 1), st.booleans(), SEED)
def test_top_fractions_are_what_sorting_gives(m, fraction, within, seed):
    inside = torch.rand(m.shape, generator=torch.Generator().manual_seed(seed)) < 0.6
    inside[:, 0, 0] = True
    chosen = top_fraction(m, fraction, within=inside if within else None, seed=seed)
    for values, taken, allowed in zip(m, chosen, inside if within else torch.ones_like(inside), strict=True):
        wanted = max(1, round(fraction * int(allowed.sum())))
        assert int(taken.sum()) == wanted
        assert bool((allowed | ~taken).all())
        rest = values[allowed & ~taken]
        assert not len(rest) or values[taken].min() >= rest.max()
    assert torch.equal(top_fraction(3 * m + 1, fraction, seed=seed), top_fraction(m, fraction, seed=seed))


@EXAMPLES
@given(maps(), SEED)
def test_ranks_are_a_permutation_that_does_not_depend_on_the_batch(m, seed):
    ranks = rank_pixels(m, seed=seed)
    for values, of_one in zip(m, ranks, strict=True):
        order = of_one.flatten().argsort()
        assert torch.equal(of_one.flatten()[order], torch.arange(values.numel()))
        assert bool((values.flatten()[order].diff() <= 0).all())
    assert torch.equal(rank_pixels(m[:1], seed=seed), ranks[:1])


@EXAMPLES
@given(maps(), st.floats(1e-6, 1e6))
def test_normalised_maps_sum_to_one_or_peak_at_one(m, by):
    shares = normalize_sum(m)
    assert torch.allclose(shares.sum((1, 2)), torch.ones(len(m), dtype=m.dtype))
    assert bool(((shares > 0) <= (m > 0)).all())
    assert torch.allclose(normalize_sum(by * m), shares)
    peaks = normalize_max(by * m)
    assert float(peaks.abs().max()) == pytest.approx(1)
    assert torch.equal(peaks.sign(), m.sign())


@EXAMPLES
@given(maps(), maps(), st.floats(0.01, 1))
def test_bhattacharyya_equals_a_loop(a, b, fraction):
    assume(a.shape[1:] == b.shape[1:])
    table = bhattacharyya(a, b, fraction=fraction)
    kept = [
        [normalize_sum((m * top_fraction(m, fraction)[0])[None])[0] for m in (row[None][0] for row in x)]
        for x in (a, b)
    ]
    for i, j in itertools.product(range(len(a)), range(len(b))):
        slow = sum(
            math.sqrt(p * q) for p, q in zip(kept[0][i].flatten().tolist(), kept[1][j].flatten().tolist(), strict=True)
        )
        # ties are broken by a permutation per place in the batch: only maps without ties compare
        if all(len(m.unique()) == m.numel() for m in (a[i], b[j])):
            assert float(table[i, j]) == pytest.approx(slow, abs=1e-9)
    assert bool(((table >= 0) & (table <= 1)).all())
    assert torch.allclose(bhattacharyya(b, a, fraction=fraction), table.T)


@EXAMPLES
@given(maps(most=2), st.tuples(st.integers(4, 12), st.integers(4, 12)), st.data())
def test_what_is_placed_lies_on_the_field(m, size, data):
    top, left = data.draw(st.integers(0, size[0] - 2)), data.draw(st.integers(0, size[1] - 2))
    field = (top, left, data.draw(st.integers(1, size[0] - top)), data.draw(st.integers(1, size[1] - left)))
    placed = place_on_field(m, size, field)
    outside = torch.ones(size, dtype=torch.bool)
    outside[top : top + field[2], left : left + field[3]] = False
    assert not placed[:, outside].any()
    assert placed.amax() <= m.amax().clamp(min=0) + 1e-9
    assert placed.amin() >= m.amin().clamp(max=0) - 1e-9


@EXAMPLES
@given(maps(most=1), maps(most=1), st.lists(st.floats(0.1, 5), min_size=2, max_size=2), st.floats(0.01, 100))
def test_overall_maps_are_weighted_means_of_normalised_maps(a, b, weights, by):
    size = (10, 10)
    if any(not bool((place_on_field(m, size) > 0).any()) for m in (a, b)):  # the positive pixel may be outweighed
        with pytest.raises(ValueError, match="no positive value"):
            overall_map([a, b], size)
        return
    both = overall_map([a, b], size, weights=weights)
    assert torch.allclose(both.sum((1, 2)), torch.ones(1, dtype=both.dtype))
    one, two = overall_map([a], size), overall_map([b], size)
    assert torch.allclose(both, (weights[0] * one + weights[1] * two) / sum(weights))
    assert torch.allclose(overall_map([by * b, a], size, weights=weights[::-1]), both)


@EXAMPLES
@given(st.integers(2, 24), st.integers(2, 24), st.floats(0.1, 6), SEED)
def test_both_ways_to_blur_are_one_convolution(height, width, sigma, seed):
    x = torch.randn(1, 2, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    radius = min(max(1, round(2 * sigma)), min(height, width) - 1)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    weights /= weights.sum()
    from scipy.ndimage import correlate1d

    slow = correlate1d(correlate1d(x.numpy(), weights, axis=-1, mode="mirror"), weights, axis=-2, mode="mirror")
    assert torch.allclose(gaussian_blur(x, sigma), torch.from_numpy(slow), atol=1e-9)


# -- fills and controls ------------------------------------------------------------------------------------


@st.composite
def crops(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Images (N, C, H, W) and masks (N, H, W)."""
    generator = torch.Generator().manual_seed(draw(SEED))
    n, c, size = (
        draw(st.integers(1, 3)),
        draw(st.sampled_from([1, 3])),
        (draw(st.integers(2, 10)), draw(st.integers(2, 10))),
    )
    masks = torch.rand(n, *size, generator=generator) < draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    return torch.rand(n, c, *size, generator=generator, dtype=torch.float64), masks


@EXAMPLES
@given(crops(), st.sampled_from(sorted(FILLS)))
def test_every_fill_is_finite_repeats_and_leaves_the_images_alone(images_and_masks, name):
    """Finite, of one image alone, the same every time, without a change of the images; within their range but for ROAD's noise."""
    x, masks = images_and_masks
    before, fill = x.clone(), as_fill(name)
    filled = fill(x, masks)
    assert torch.equal(x, before)
    assert bool(filled.isfinite().all())
    assert torch.equal(fill(x, masks), filled)
    assert torch.allclose(torch.cat([fill(x[i : i + 1], masks[i : i + 1]) for i in range(len(x))]), filled, atol=1e-9)
    room = 0.1 if name == "noisy linear" else 1e-9
    assert filled.min() >= min(0.0, float(x.min())) - room
    assert filled.max() <= x.max() + room


@EXAMPLES
@given(crops(), SEED)
def test_noisy_linear_solves_its_equations(images_and_masks, seed):
    """Every masked pixel is the weighted mean of its neighbours, where no noise is added."""
    x, masks = images_and_masks
    assume(not masks.flatten(1).all(1).any())
    with mock.patch("captum_leam.faithfulness.fills.ROAD_NOISE", 0.0):
        filled = noisy_linear(x, masks)
    for image, mask, out in zip(x.numpy(), masks.numpy(), filled.numpy(), strict=True):
        assert (out[:, ~mask] == image[:, ~mask]).all()
        for r, c in np.argwhere(mask):
            around = [
                (1 / 6 if 0 in (dr, dc) else 1 / 12, out[:, r + dr, c + dc])
                for dr, dc in itertools.product((-1, 0, 1), repeat=2)
                if (dr, dc) != (0, 0) and 0 <= r + dr < mask.shape[0] and 0 <= c + dc < mask.shape[1]
            ]
            mean = sum(w * v for w, v in around) / sum(w for w, _ in around)
            assert np.allclose(out[:, r, c], mean, atol=1e-8)


@EXAMPLES
@given(crops(), st.sampled_from(sorted(CONTROLS)), SEED)
def test_every_control_is_finite_and_repeats_with_its_seed(images_and_masks, name, seed):
    """Finite maps of the images' size, the same for the same seed; what is moved keeps its values; nobody's own map is in others'."""
    x, masks = images_and_masks
    face = masks.clone()
    face[:, 0, 0] = True
    own = torch.rand(x.shape[0], *x.shape[2:], dtype=torch.float64)
    scene = ControlContext(x, face, [str(i) for i in range(len(x))], own, seed)
    if name == "other people" and len(x) < 2:
        with pytest.raises(ValueError, match="two people"):
            CONTROLS[name](scene)
        return
    made = CONTROLS[name](scene)
    assert made.shape == own.shape
    assert bool(made.isfinite().all())
    assert torch.equal(CONTROLS[name](scene), made)
    if name == "moved":
        assert torch.equal(made.flatten(1).sort().values, own.flatten(1).sort().values)
    if name == "other people":
        other = own.clone()
        other[0] = torch.rand_like(other[0])
        assert torch.allclose(CONTROLS[name](ControlContext(x, face, scene.people, other, seed))[0], made[0])


# -- statistics and decisions --------------------------------------------------------------------------------


@st.composite
def samples(draw: st.DrawFn) -> tuple[list[float], list[str]]:
    people = draw(st.lists(st.sampled_from("abcdefghijklmn"), min_size=1, max_size=40))
    values = draw(st.lists(st.floats(-100, 100).map(lambda v: round(v, 3)), min_size=len(people), max_size=len(people)))
    return values, people


@EXAMPLES
@given(samples(), SEED)
def test_statistics_over_people_do_not_depend_on_the_order_of_images(sample, seed):
    """Order of images does not matter for sums, tests and effects; intervals move, stretch and mirror with the values."""
    values, people = sample
    sums, counts = by_person(values, people)
    for i, person in enumerate(dict.fromkeys(people)):
        own = [v for v, p in zip(values, people, strict=True) if p == person]
        assert (sums[i], counts[i]) == (pytest.approx(sum(own)), len(own))
    low, high = bootstrap_interval(values, people, resamples=50, seed=seed)
    if len(counts) < 2:
        assert np.isnan(low)
    else:
        assert low <= high
        stretched = bootstrap_interval([3 * v + 7 for v in values], people, resamples=50, seed=seed)
        assert stretched == (pytest.approx(3 * low + 7, abs=1e-6), pytest.approx(3 * high + 7, abs=1e-6))
        least, most = bootstrap_interval(values, people, resamples=50, seed=seed, bounds=(min(values), max(values)))
        assert min(values) <= least <= most <= max(values)
        mirrored = bootstrap_interval([-v for v in values], people, resamples=50, seed=seed)
        assert mirrored == (pytest.approx(-high), pytest.approx(-low))
    order = np.random.default_rng(seed).permutation(len(values))
    shuffled = [values[i] for i in order], [people[i] for i in order]
    assert effect_size(*shuffled) == pytest.approx(effect_size(values, people), nan_ok=True)
    assert paired_p_value(*shuffled) == pytest.approx(paired_p_value(values, people), nan_ok=True, abs=1e-9)


@EXAMPLES
@given(samples())
def test_effects_and_tests_turn_with_the_sign(sample):
    values, people = sample
    effect = effect_size(values, people)
    assert math.isnan(effect) or -1 <= effect <= 1
    assert effect_size([-v for v in values], people) == pytest.approx(-effect, nan_ok=True)
    p = paired_p_value(values, people)
    assert math.isnan(p) is (len(set(people)) < 10)
    assert math.isnan(p) or 0 <= p <= 1
    assert paired_p_value([-v for v in values], people) == pytest.approx(p, nan_ok=True)


@EXAMPLES
@given(P_VALUES)
def test_holm_equals_its_definition(p_values):
    adjusted = holm(p_values)
    known = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    for rank, (_, i) in enumerate(known):
        slow = max(min(1, (len(known) - k) * known[k][0]) for k in range(rank + 1))
        assert adjusted[i] == pytest.approx(slow)
        assert adjusted[i] >= p_values[i]
    assert all(math.isnan(a) == math.isnan(p) for a, p in zip(adjusted, p_values, strict=True))


@st.composite
def scored(draw: st.DrawFn) -> tuple[list[float], list[bool]]:
    score = st.one_of(st.floats(-1, 1), st.sampled_from([0.25, 0.5, math.nextafter(0.5, 1), math.nextafter(0.5, 0)]))
    scores = draw(st.lists(score, min_size=2, max_size=30))
    genuine = draw(st.lists(st.booleans(), min_size=len(scores), max_size=len(scores)))
    assume(any(genuine) and not all(genuine))
    return scores, genuine


@EXAMPLES
@given(scored())
def test_thresholds_and_error_rates_equal_counting(pairs):
    scores, genuine = pairs
    at = thresholds_between(scores)
    assert len(at) == len(set(scores)) + 1
    # every threshold decides differently
    assert len({tuple(s >= t for s in scores) for t in at}) == len(at)
    fmr, fnmr = error_rates(scores, genuine, at)
    for t, m, n in zip(at, fmr, fnmr, strict=True):
        impostors = [s for s, g in zip(scores, genuine, strict=True) if not g]
        genuines = [s for s, g in zip(scores, genuine, strict=True) if g]
        assert m == pytest.approx(sum(s >= t for s in impostors) / len(impostors))
        assert n == pytest.approx(sum(s < t for s in genuines) / len(genuines))
        gar, irr, balanced = decision_rates(np.asarray(scores) >= t, genuine)
        assert (gar, irr) == (pytest.approx(1 - n), pytest.approx(1 - m))
        assert balanced == pytest.approx(1 - (m + n) / 2)
    equal = threshold_at_eer(scores, genuine)
    there = error_rates(scores, genuine, [equal])
    assert abs(there[0] - there[1])[0] == pytest.approx(np.abs(fmr - fnmr).min(), abs=1e-9)


@EXAMPLES
@given(scored(), st.sampled_from([0.5, 0.25, 0.1, 0.9]))
def test_threshold_at_a_false_match_rate_is_the_lowest(pairs, rate):
    scores, genuine = pairs
    if genuine.count(False) < 1 / rate:
        with pytest.raises(ValueError, match="impostor pairs for a false match rate"):
            threshold_at_fmr(scores, genuine, rate)
        return
    at = threshold_at_fmr(scores, genuine, rate)
    assert error_rates(scores, genuine, [at])[0][0] <= rate
    lower = [t for t in thresholds_between(scores) if t < at]
    assert all(error_rates(scores, genuine, [t])[0][0] > rate for t in lower)


@EXAMPLES
@given(st.integers(2, 5), st.integers(2, 4), SEED, st.floats(0.1, 10))
def test_leave_one_out_centroids_equal_a_loop(people, images, seed, by):
    f = torch.randn(people * images, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    labels = [i % people for i in range(len(f))]
    units = f / f.norm(dim=1, keepdim=True)
    found = leave_one_out_centroids(by * f, labels)
    for i, label in enumerate(labels):
        mean = sum(units[j] for j in range(len(f)) if j != i and labels[j] == label)
        assert torch.allclose(found[i], mean / mean.norm())


# -- regions and geometry --------------------------------------------------------------------------------------


@EXAMPLES
@given(maps(), st.integers(1, 5), SEED)
def test_region_sums_equal_loops(m, regions, seed):
    labels = torch.randint(regions, m.shape, generator=torch.Generator().manual_seed(seed))
    critical = top_fraction(m, 0.3)
    names = list(range(regions))
    share, mass, area = region_share(critical, labels, names), region_mass(m, labels, names), region_area(labels, names)
    for i, r in itertools.product(range(len(m)), names):
        inside = labels[i] == r
        assert float(area[i, r]) == pytest.approx(float(inside.double().mean()))
        assert float(share[i, r]) == pytest.approx(float((critical[i] & inside).sum() / critical[i].sum()), abs=1e-6)
        positive = m[i].clamp(min=0)
        assert float(mass[i, r]) == pytest.approx(float(positive[inside].sum() / positive.sum()), abs=1e-6)
    effective = effective_number(mass)
    assert bool(((effective >= 1 - 1e-6) & (effective <= regions + 1e-6)).all())


@EXAMPLES
@given(maps(most=2), st.floats(0.05, 1))
def test_fragments_equal_a_flood_fill(m, fraction):
    critical = top_fraction(m, fraction)
    for mask in critical:
        left, sizes = {tuple(p) for p in mask.nonzero().tolist()}, []
        while left:
            front, size = [left.pop()], 0
            while front:
                r, c = front.pop()
                size += 1
                near = {(r + a, c + b) for a in (-1, 0, 1) for b in (-1, 0, 1)} & left
                left -= near
                front += near
            sizes.append(size)
        found = fragments(mask)
        assert found.count == len(sizes)
        assert found.largest == pytest.approx(max(sizes) / sum(sizes))


@EXAMPLES
@given(st.sampled_from([64, 80, 96, 112, 128]), st.integers(1, 3))
def test_the_template_mirrors_at_any_size(side, batch):
    """A partition that mirrors: the left half of the labels is the right half with the sides swapped."""
    labels = TemplateParser()(torch.zeros(batch, 3, side, side))
    assert labels.shape == (batch, side, side)
    assert set(labels.unique().tolist()) <= set(TEMPLATE.regions)
    assert torch.equal(labels[0].expand_as(labels), labels)
    names = dict(TEMPLATE.regions)
    number = {name: i for i, name in names.items()}
    swap = torch.tensor([number[other_side(names[i])] for i in range(len(names))])
    # but for the column on the midline, and corners of outlines
    assert (
        float((swap[labels[0]] == labels[0].flip(1)).double().mean()) > 0.94
    )  # the five points of the template are not quite symmetric


@EXAMPLES
@given(st.floats(0.2, 5), st.floats(-3, 3), st.floats(-50, 50), st.floats(-50, 50), SEED)
def test_a_similarity_transform_is_found_again(scale, angle, right, down, seed):
    points = np.random.default_rng(seed).normal(size=(5, 2)) * 20
    turn = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    target = points @ turn.T + (right, down)
    matrix = similarity_transform(points, target)
    assert np.allclose(transform_points(points, matrix), target, atol=1e-6)
    assert np.allclose(transform_points(target, inverse(matrix)), points, atol=1e-6)


# -- explainers --------------------------------------------------------------------------------------------------


def halves(images: Tensor) -> Tensor:
    return (torch.arange(16)[:, None] > 7).long().expand(len(images), 16, 16)


EXPLAINERS = {
    "xSSAB": lambda net, **o: XSSAB(net, threshold=0.2, **o),
    "FGGB": lambda net, **o: FGGB(net, threshold=0.2, **o),
    "FAME": lambda net, **o: FAME(net, n_steps=3, **o),
    "CorrRISE": lambda net, **o: CorrRISE(net, masks=12, **o),
    "RISE": lambda net, **o: RISE(net, masks=12, cells=4, **o),
    "xFace": lambda net, **o: XFace(net, patches=(4,), stride=4, **o),
    "regions": lambda net, **o: RegionShapley(net, halves, orders=2, **o),
    "extremal": lambda net, **o: ExtremalPerturbation(net, n_steps=2, restarts=1, grid=4, **o),
    "Grad-CAM": lambda net, **o: GradCAM(net, net.body, **o),
    "LayerCAM": lambda net, **o: LayerCAM(net, net.body, **o),
    "HiResCAM": lambda net, **o: HiResCAM(net, net.body, **o),
    "positions": lambda net, **o: PositionDecomposition(net, net.body, **o),
}


def drawn(name: str, seed: int, batch: int) -> tuple[Net, Tensor, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return (
            Net().double(),
            torch.rand(batch, 3, 16, 16, dtype=torch.float64),
            torch.randn(batch, 10, dtype=torch.float64),
        )


@EXAMPLES
@given(st.sampled_from(sorted(EXPLAINERS)), SEED, st.integers(1, 3), st.integers(1, 5), st.floats(0.01, 100), st.data())
def test_every_explainer_is_independent_of_batches_order_and_strides(name, seed, batch, batch_size, by, data):
    """Batches, their order, the length of references and how images lie in memory change nothing; nor is anything of the user's changed."""
    from tests.helpers.programs import LAYOUTS, laid_out

    net, x, towards = drawn(name, seed, batch)
    random, before = torch.get_rng_state(), x.clone()
    tolerance = {"atol": 1e-6, "rtol": 1e-5} if name in ("regions", "extremal") else {"atol": 1e-9, "rtol": 1e-7}
    maps = EXPLAINERS[name](net).attribute(x, reference=towards)
    assert maps.shape == (batch, 1, 16, 16)
    assert bool(maps.isfinite().all())
    order = torch.tensor(data.draw(st.permutations(range(batch))))
    layout = data.draw(st.sampled_from([k for k in LAYOUTS if k != "expanded"]))
    again = EXPLAINERS[name](net, batch_size=batch_size).attribute(
        laid_out(x[order], layout), reference=by * towards[order]
    )
    assert torch.allclose(again, maps[order], **tolerance)
    assert torch.equal(x, before)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


@EXAMPLES
@given(st.sampled_from(["CorrRISE", "RISE", "xFace", "regions", "Grad-CAM", "HiResCAM", "positions"]), SEED)
def test_explainers_do_not_depend_on_the_basis_of_the_embeddings(name, seed):
    """The cosine does not see an orthogonal change of basis of the embeddings, nor a positive factor."""
    net, x, towards = drawn(name, seed, 2)
    turn = torch.linalg.qr(torch.randn(10, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))).Q
    maps = EXPLAINERS[name](net).attribute(x, reference=towards)
    turned = torch.nn.Linear(10, 10, bias=False).double()
    turned.weight.data = 3 * turn
    net.head.append(turned)
    assert torch.allclose(
        EXPLAINERS[name](net).attribute(x, reference=towards @ turn.T), maps, atol=1e-5 if name == "regions" else 1e-8
    )
