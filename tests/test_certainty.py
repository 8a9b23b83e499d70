"""How sure one map is: the test of its place is exact under its null hypothesis, and what is counted, drawn and said fits."""

import json

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from captum_leam import explain_faces, suggest_layers
from captum_leam.certainty import CHANGES, map_certainty, shift
from captum_leam.controls import placements
from captum_leam.errors import CaptumLeamError, NoEvidenceError
from captum_leam.stats import randomisation_p_value
from captum_leam.synthetic import EmbeddingNet, SyntheticPopulation

EVERY = 10**9


class Spots(nn.Module):
    """Embeds an image by the brightness of each cell of 8 × 8 pixels in its middle; cells elsewhere do not count."""

    def forward(self, x):
        cells = nn.functional.avg_pool2d(x.mean(1, keepdim=True), 8)
        return cells[:, :, 3:5, 3:5].flatten(1)


def as_set(regions):
    return {tuple(region.flatten().nonzero().flatten().tolist()) for region in regions}


def small_scene(seed=0):
    generator = torch.Generator().manual_seed(seed)
    region = torch.zeros(12, 12, dtype=torch.bool)
    region[2:4, 3:5] = region[5, 7] = True
    face = torch.zeros(12, 12, dtype=torch.bool)
    face[1:10, 2:11] = True
    return region, face, torch.rand(12, 12, generator=generator)


@pytest.fixture(scope="module")
def synthetic():
    torch.manual_seed(0)
    model, faces = EmbeddingNet().eval(), SyntheticPopulation(2).sample(2, seed=1)
    return model, faces.images[:2], model(faces.images[2:]).detach()


# -- the null hypothesis -------------------------------------------------------------------------------


@pytest.mark.parametrize("has_detail", [False, True])
def test_candidates_are_those_of_every_candidate(monkeypatch, has_detail):
    """What makes the test exact: it does not matter which of the comparable places the region lies at."""
    monkeypatch.setattr("captum_leam.controls.MAX_DETAIL_CLASSES", 3)
    region, face, detail = small_scene()
    options = {"detail": detail} if has_detail else {}
    moved = placements(region, face, EVERY, **options)
    everything = as_set(moved) | as_set(region[None])
    assert len(everything) > 30
    for other in moved[:: len(moved) // 7]:
        assert as_set(placements(other, face, EVERY, **options)) | as_set(other[None]) == everything


def test_candidates_agree_in_what_they_are_matched_on():
    region, face, detail = (
        torch.zeros(24, 24, dtype=torch.bool),
        torch.zeros(24, 24, dtype=torch.bool),
        torch.rand(24, 24),
    )
    region[4:6, 5:7] = region[9, 11] = region[0, 0] = True  # the last is not on the face: 5 of 6 pixels are
    face[2:20, 2:22] = True
    near, all_places = placements(region, face, EVERY, detail=detail), placements(region, face, EVERY)
    assert set((near & face).flatten(1).sum(1).tolist()) == {5}
    number = min(20, (len(all_places) + 1) // 100)
    assert number > 2
    assert (len(near) + 1) // ((len(all_places) + 1) // number) == 1
    spans = [(moved * detail).flatten(1).sum(1) for moved in (near, all_places)]
    assert (spans[0].max() - spans[0].min()) < (spans[1].max() - spans[1].min()) / 2


def test_a_region_moves_in_its_field_only():
    region, face, _ = small_scene()
    region[:, 0] = True
    moved = placements(region, torch.ones_like(face), 20, field=(0, 2, 12, 10))
    assert bool(moved[:, :, 0].all())
    assert not bool(moved[:, :, 1].any())


def test_p_is_uniform_for_places_drawn_at_random():
    """A statistic that depends on the place in any way, regions from one class of comparable places."""
    region, face, detail = small_scene()
    pool = torch.cat([region[None], placements(region, face, EVERY, detail=detail)])
    weights = torch.rand(12, 12, generator=torch.Generator().manual_seed(1)).double() ** 3
    rng, p = np.random.default_rng(0), []
    for draw in range(600):
        chosen = pool[rng.integers(len(pool))]
        keys = torch.rand(4 * 144, generator=torch.Generator().manual_seed(draw))
        moved = placements(chosen, face, 19, detail=detail, keys=keys)
        drops = (torch.cat([chosen[None], moved]) * weights).sum((1, 2)).numpy()
        p.append(randomisation_p_value(drops[0], drops[1:], rng.random()))
    counts = np.bincount(np.round(np.array(p) * 20).astype(int) - 1, minlength=20)
    assert stats.chisquare(counts).pvalue > 0.01


def test_ties_are_broken_at_random():
    p = [randomisation_p_value(1.0, np.ones(9), u) for u in np.linspace(0, 0.9999, 1000)]
    assert np.unique(p).tolist() == pytest.approx([k / 10 for k in range(1, 11)])
    assert np.bincount(np.round(np.array(p) * 10).astype(int))[1:].min() >= 99


@pytest.mark.parametrize(
    ("value", "others", "expected"),
    [
        (3.0, [1, 2], 1 / 3),
        (0.0, [1, 2], 1.0),
        (1.5, [1, 2, np.nan], 2 / 3),
        (np.nan, [1.0], np.nan),
        (1.0, [], np.nan),
    ],
)
def test_p_counts_what_is_larger(value, others, expected):
    assert randomisation_p_value(value, others) == pytest.approx(expected, nan_ok=True)


# -- evidence ------------------------------------------------------------------------------------------


def planted(rows, columns):
    maps = torch.zeros(1, 64, 64)
    maps[0, rows, columns] = 1 + torch.rand(8, 8)
    return maps


def test_a_map_on_the_evidence_beats_all_places_and_one_beside_it_does_not():
    x = torch.rand(1, 3, 64, 64)
    options = {"reference": torch.tensor([1.0, 0.1, 0.2, 0.3]), "explain": None, "fraction": 64 / 64**2, "fill": "zero"}
    face = torch.ones(64, 64, dtype=torch.bool)
    x[:, :, 24:32, 24:32] += 3
    on = map_certainty(Spots(), x, planted(slice(24, 32), slice(24, 32)), face=face, **options)
    off = map_certainty(Spots(), x, planted(slice(0, 8), slice(0, 8)), face=face, **options)
    assert on.tests[0]["model"].p <= 0.05
    assert on.tests[0]["model"].drop > on.tests[0]["model"].placement_drops.mean()
    assert off.tests[0]["model"].drop == 0
    assert off.tests[0]["model"].p > 0.05
    assert "no evidence" in off.sentence()
    assert "no evidence" not in on.sentence()


def test_drops_are_those_of_the_occlusion_evaluator(synthetic):
    from captum_leam.faithfulness import OcclusionEvaluator

    model, x, references = synthetic
    maps = torch.rand(2, 112, 112)
    found = map_certainty(model, x, maps, reference=references, explain=None, placements=3, batch_size=2)
    evaluated = OcclusionEvaluator(model, (0.05,), controls=()).evaluate(x, maps, references)
    assert found.to_frame()["drop"].tolist() == pytest.approx(evaluated.to_frame()["drop"].tolist(), abs=1e-6)


def test_results_depend_neither_on_the_batch_size_nor_on_the_other_images(synthetic):
    model, x, references = synthetic
    maps = torch.rand(2, 112, 112)
    options = {"explain": None, "placements": 7}
    both = map_certainty(model, x, maps, reference=references, batch_size=16, **options)
    again = map_certainty(model, x, maps, reference=references, batch_size=3, **options)
    first = map_certainty(model, x[:1], maps[:1], reference=references[:1], **options)
    for image in range(2):
        assert both.tests[image]["model"].placement_drops == pytest.approx(
            again.tests[image]["model"].placement_drops, abs=1e-6
        )
    assert first.tests[0]["model"].placement_drops == pytest.approx(both.tests[0]["model"].placement_drops, abs=1e-6)
    other = map_certainty(model, x, maps, reference=references, seed=1, **options)
    assert not np.allclose(other.tests[0]["model"].placement_drops, both.tests[0]["model"].placement_drops)


# -- stability, agreement, cost ------------------------------------------------------------------------


def test_passes_are_those_that_run(synthetic):
    model, x, references = synthetic
    layers = suggest_layers(model, x)
    maps = explain_faces(model, x, layers=layers, reference=references)
    several = torch.stack([references, references.roll(1, 1), references.roll(2, 1)], 1)
    options = {"reference": several, "layers": layers}
    map_certainty(model, x, maps, **options)  # whatever is probed once
    counts = {"forward": 0, "backward": 0}
    forward = type(model).forward

    def counted(self, images):
        counts["forward"] += len(images)
        embeddings = forward(self, images)
        if embeddings.requires_grad:
            embeddings.register_hook(lambda gradient: counts.update(backward=counts["backward"] + len(gradient)))
        return embeddings

    type(model).forward = counted
    try:
        found = map_certainty(model, x, maps, **options)
    finally:
        type(model).forward = forward
    assert found.passes == {"model": (101 + 10 * 9, 10 * 9)}
    probes = counts["forward"] - 2 * found.passes["model"][0]
    assert 0 <= probes <= 40  # a changed forward is probed again, on two images at a time
    assert found.passes["model"][0] + 20 <= 250


def test_a_map_that_does_not_depend_on_the_image_stays_where_shifts_do_not_move_it(synthetic):
    model, x, references = synthetic
    maps = torch.rand(2, 112, 112)
    found = map_certainty(model, x, maps, reference=references, explain=lambda m, images, towards: maps, placements=1)
    kinds = found.stability.groupby("kind")["overlap"].mean()
    assert kinds["light"] == 1
    assert kinds["shift"] < 0.2
    assert kinds["mirror"] < 0.2
    assert sorted(found.stability.columns) == ["change", "image", "kind", "overlap", "rank_correlation"]
    assert len(found.stability) == 2 * len(CHANGES)


def test_a_map_that_moves_with_the_image_is_stable(synthetic):
    model, x, references = synthetic
    brightness = map_certainty(
        model, x, x.mean(1), reference=references, explain=lambda m, images, towards: images.mean(1), placements=1
    ).stability.set_index("kind")
    assert brightness.loc[["shift", "mirror"], "overlap"].min() == 1
    assert brightness.loc[["shift", "mirror"], "rank_correlation"].min() == pytest.approx(1)


def test_each_of_several_references_is_left_out_once(synthetic):
    model, x, references = synthetic
    several = torch.stack([references, references.roll(1, 1), references.roll(2, 1)], 1)
    seen = []

    def explain(network, images, towards):
        seen.append(towards)
        return torch.rand(2, 112, 112)

    found = map_certainty(model, x, torch.rand(2, 112, 112), reference=several, explain=explain, placements=1)
    assert found.stability.query("kind == 'reference' and image == 0")["change"].tolist() == [
        f"without reference {k}" for k in (1, 2, 3)
    ]
    units = nn.functional.normalize(several, dim=-1)
    assert torch.allclose(seen[-1], nn.functional.normalize(units[:, :2].mean(1), dim=-1), atol=1e-6)


def test_a_model_agrees_with_itself(synthetic):
    model, x, references = synthetic
    layers = suggest_layers(model, x)
    maps = explain_faces(model, x, "fast", reference=references)
    found = map_certainty(
        model,
        x,
        maps,
        reference=references,
        models={"twin": (model, references)},
        explain="fast",
        layers=layers,
        placements=9,
    )
    assert found.agreement["overlap"].tolist() == [1, 1]
    for tests in found.tests:
        assert tests["twin"].p == tests["model"].p
    assert "on twin it beats" in found.sentence()
    assert found.to_frame()["model"].tolist() == ["model", "twin"] * 2


def test_no_evidence_for_one_image_is_missing_and_not_fatal(synthetic):
    model, x, references = synthetic

    def explain(network, images, towards):
        if len(images) == 2 or bool((images == images[..., :1]).all()):
            raise NoEvidenceError("no positive value")
        return torch.rand(len(images), 112, 112)

    x = x.clone()
    x[1] = 0.5
    found = map_certainty(model, x, torch.rand(2, 112, 112), reference=references, explain=explain, placements=1)
    table = found.stability.set_index("image")
    assert bool(table.loc[1, "overlap"].isna().all())
    assert bool(table.loc[0, "overlap"].notna().all())
    json.dumps(found.to_dict(1), allow_nan=False)


def test_light_is_left_out_for_images_beyond_0_and_1(synthetic):
    model, x, references = synthetic
    found = map_certainty(
        model,
        2 * x - 1,
        x.mean(1),
        reference=references,
        explain=lambda m, images, towards: images.mean(1),
        placements=1,
    )
    assert set(found.stability["kind"]) == {"shift", "mirror"}


def test_shifts_repeat_the_border():
    x = torch.arange(12.0).view(3, 4)
    assert torch.equal(shift(x, 1, 0), x[[0, 0, 1]])
    assert torch.equal(shift(x, 0, -2), x[:, [2, 3, 3, 3]])


def test_nothing_of_the_users_changes(synthetic):
    model, x, references = synthetic
    before, state = x.clone(), torch.get_rng_state()
    map_certainty(model, x, x.mean(1), reference=references, explain="fast", placements=2)
    assert torch.equal(x, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in model.parameters())


# -- what is said --------------------------------------------------------------------------------------


def test_sentence_frame_and_dict_have_the_same_numbers(synthetic):
    model, x, references = synthetic
    found = map_certainty(model, x, x.mean(1), reference=references, explain="fast", placements=19)
    row, record = found.to_frame().iloc[1], found.to_dict(1)
    test = record["tests"]["model"]
    assert test["drop"] == pytest.approx(row["drop"], abs=1e-6)
    assert test["p"] == pytest.approx(row["p"])
    assert test["p"] == pytest.approx((1 + 19 * (1 - row["share_beaten"])) / 20)
    assert len(test["drops_of_placements"]) == test["placements"] == row["placements"]
    assert f"lowers the cosine by {row['drop']:.3f}" in record["sentence"]
    assert f"(p = {row['p']:.2g}" in record["sentence"]
    overlaps = [item["overlap"] for item in record["stability"]]
    assert f"{100 * np.mean(overlaps):.0f} % of these pixels on average" in record["sentence"]
    json.dumps(record, allow_nan=False)
    assert len(found) == 2
    assert len(found.plot(1).axes) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"maps": torch.rand(2, 8, 8)}, "Expected `maps` to have shape"),
        ({"placements": 0}, "placements"),
        ({"explain": "slow"}, "preset"),
        ({"face": torch.zeros(112, 112, dtype=torch.bool)}, "at least one True pixel in every image"),
        ({"face": torch.ones(8, 8, dtype=torch.bool)}, "Expected `face` to be a boolean mask"),
        ({"models": {"model": (nn.Flatten(), None)}}, "Expected `models` not to contain"),
        ({"fraction": 0.0}, "fraction"),
        ({"fill": "green"}, "fill"),
    ],
)
def test_wrong_options_are_refused(synthetic, options, message):
    model, x, references = synthetic
    given = {"maps": x.mean(1), "reference": references, "explain": None, **options}
    with pytest.raises(CaptumLeamError, match=message):
        map_certainty(model, x, given.pop("maps"), **given)


@pytest.mark.real
def test_default_maps_of_real_faces_beat_their_placements(real_dir, real_models):
    from PIL import Image

    files = sorted((real_dir / "faces" / "s01").glob("*.png"))[:3]
    pixels = [np.asarray(Image.open(file).convert("RGB"), dtype=np.float32) / 255 for file in files]
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()
    model = real_models.ms1m()
    reference = model(images[1:]).detach()[None]
    x = images[:1]
    layers = suggest_layers(model, x)
    maps = explain_faces(model, x, layers=layers, reference=nn.functional.normalize(reference, dim=-1).mean(1))
    found = map_certainty(model, x, maps, reference=reference, layers=layers)
    test = found.tests[0]["model"]
    assert test.p <= 0.05
    assert test.drop > 1.5 * test.placement_drops.mean()
    assert found.stability["overlap"].min() > 0.3
    assert found.passes["model"] == (101 + 9 * 9, 9 * 9)
