"""Identification: rankings by hand, maps of the contrast, occluded rankings, and what is refused."""

import math
import re
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from captum_leam import explain_faces, explain_match, explain_pair, suggest_layers
from captum_leam.errors import CaptumLeamError, InputTypeError, NoEvidenceError
from captum_leam.explain import layer_maps
from captum_leam.faces import ARCFACE_112, align
from captum_leam.faithfulness import occlude
from captum_leam.maps import top_fraction
from captum_leam.match import _ranks_and_margins
from captum_leam.objectives import unit
from captum_leam.stats import bootstrap_interval
from captum_leam.synthetic import SyntheticPopulation, train


@pytest.fixture(scope="module")
def model(small_network):
    return small_network


@pytest.fixture(scope="module")
def faces(noise):
    return noise


@pytest.fixture(scope="module")
def match(model, faces):
    people = ["bob", None]
    options = {"preset": "fast", "n_steps": 1, "draws": 3, "people": people, "threshold": 0.5}
    return explain_match(model, faces[:2], faces[2:], ["ann", "bob", "cy"], **options)


def of(match, person="first candidate", control=""):
    table = match.changes
    return table[(table["of"] == person) & (table["control"] == control)]


def test_scores_are_cosines_and_the_ranking_sorts_them(model, faces, match):
    f = unit(model(faces).detach().double())
    torch.testing.assert_close(match.scores, f[:2] @ f[2:].T)
    table = match.to_frame()
    for probe, rows in table.groupby("probe"):
        assert rows["rank"].tolist() == [1, 2, 3]
        assert rows["score"].is_monotonic_decreasing
        best = match.scores[probe].max().item()
        assert rows["behind"].tolist() == pytest.approx([best - s for s in rows["score"]])
    assert match.first == table[table["rank"] == 1]["name"].tolist()
    assert match.next == table[table["rank"] == 2]["name"].tolist()
    top = match.scores.sort(1, descending=True).values
    assert match.margins.tolist() == pytest.approx((top[:, 0] - top[:, 1]).tolist())
    assert match.accepted == [bool(s >= 0.5) for s in top[:, 0]]


def test_ranks_and_margins_by_hand():
    ranks, margins = _ranks_and_margins(torch.tensor([[0.5, 0.75, 0.25, 0.0], [0.5, 0.5, 0.25, 0.0]]))
    assert ranks.tolist() == [[2, 1, 3, 4], [1, 1, 3, 4]]
    assert margins.tolist() == [[-0.25, 0.25, -0.5, -0.75], [0, 0, -0.25, -0.5]]


def test_maps_are_those_of_the_first_against_the_next(model, faces, match):
    f = unit(model(faces).detach())
    order = match.order + 2
    towards = {"reference": f[order[:, 0]], "contrast": f[order[:, 1:2]]}
    found = suggest_layers(model, faces[:2])
    expected = explain_faces(model, faces[:2], "fast", layers=found, **towards)
    torch.testing.assert_close(match.maps, expected)
    signed = layer_maps(model, faces[:2], None, n_steps=1, **towards)
    torch.testing.assert_close(match.layers, signed)
    assert match.settings.reference == "first candidate"
    assert not torch.allclose(expected, explain_faces(model, faces[:2], "fast", reference=towards["reference"]))


def test_more_candidates_are_all_in_the_contrast(model, faces):
    f = unit(model(faces).detach())
    wide = explain_match(model, faces[:1], faces[1:], list("abcd"), candidates=3, preset="fast", n_steps=1, draws=1)
    order = wide.order[0] + 1
    expected = explain_faces(model, faces[:1], "fast", reference=f[order[0]], contrast=f[order[1:]])
    torch.testing.assert_close(wide.maps, expected)
    assert wide.facts()["contrast"] == "the next 3 candidates"


def test_the_changes_are_those_of_the_occluded_probe(model, faces, match):
    masks = top_fraction(match.maps, 0.05)
    assert masks.sum((1, 2)).tolist() == [round(0.05 * 112 * 112)] * 2
    f = unit(model(occlude(faces[:2], masks)).detach().double())
    scores = f @ unit(model(faces[2:]).detach().double()).T
    first = match.scores.argmax(1)
    for i, row in enumerate(of(match).itertuples()):
        own, others = scores[i, first[i]], scores[i][torch.arange(3) != first[i]]
        assert row.rank_after == 1 + int((others > own).sum())
        assert row.margin_after == pytest.approx(float(own - others.max()), abs=1e-6)
        assert (row.rank_before, row.margin_before) == (1, pytest.approx(match.margins[i].item()))
        assert row.rank_1_lost == float(row.rank_after > 1)


def test_the_person_is_followed_where_known(match):
    rows = of(match, "person")
    assert rows["probe"].tolist() == [0]
    assert rows["name"].tolist() == ["bob"]
    ranks = match.to_frame().query("probe == 0").set_index("name")["rank"]
    assert rows["rank_before"].item() == ranks["bob"]
    assert math.isnan(rows["rank_1_lost"].item()) == (ranks["bob"] > 1)


def test_controls_are_means_over_their_draws(model, faces, match):
    random, moved = of(match, control="random pixels"), of(match, control="moved")
    assert set(random["draws"]) == set(moved["draws"]) == {3}
    assert set(of(match)["draws"]) == {1}
    alone = []
    for seed in range(3):
        one = explain_match(
            model, faces[:2], faces[2:], ["ann", "bob", "cy"], preset="fast", n_steps=1, draws=1, seed=seed
        )
        alone.append(of(one, control="moved")["margin_after"].to_numpy())
    assert moved["margin_after"].to_numpy() == pytest.approx(np.mean(alone, 0), abs=1e-5)
    with_centre = explain_match(
        model, faces[0], faces[2:], list("abc"), preset="fast", n_steps=1, controls=["centre"], draws=5
    )
    assert of(with_centre, control="centre")["draws"].tolist() == [1]  # nothing is drawn


def test_the_summary_has_means_intervals_and_differences(match):
    summary = match.summary().set_index(["of", "quantity", "control"])
    falls = of(match)["margin_before"] - of(match)["margin_after"]
    moved = of(match, control="moved")
    gaps = falls.to_numpy() - (moved["margin_before"] - moved["margin_after"]).to_numpy()
    row = summary.loc["first candidate", "margin fall", "moved"]
    assert row["difference"] == pytest.approx(gaps.mean())
    low, high = bootstrap_interval(gaps, ["bob", "probe 1"])
    assert (row["difference_low"], row["difference_high"]) == (pytest.approx(low), pytest.approx(high))
    alone = summary.loc["first candidate", "margin fall", ""]
    assert alone["value"] == pytest.approx(falls.mean())
    assert math.isnan(alone["difference"])
    assert (alone["probes"], alone["people"]) == (2, 2)
    one = summary.loc["person", "margin fall", ""]
    assert one["people"] == 1
    assert math.isnan(one["low"])


def test_several_images_of_a_name_make_one_centroid(model, faces):
    found = explain_match(model, faces[:1], faces[1:], ["ann", "bob", "ann", "cy"], preset="fast", n_steps=1, draws=1)
    assert found.gallery.names == ("ann", "bob", "cy")
    assert found.gallery.images == (2, 1, 1)
    f = unit(model(faces).detach().double())
    ann = unit(f[1] + f[3])
    assert found.scores[0, 0].item() == pytest.approx(float(f[0] @ ann), abs=1e-6)
    assert torch.equal(found.gallery.portraits[0], faces[1])
    assert "the mean of the unit embeddings for each of 1 names" in found.facts()["gallery"]


def test_a_gallery_of_embeddings_gives_the_same(model, faces, match):
    stored = model(faces[2:]).detach()
    found = explain_match(
        model, faces[:2], 3 * stored, ["ann", "bob", "cy"], preset="fast", n_steps=1, draws=3, people=["bob", None]
    )
    torch.testing.assert_close(found.scores, match.scores)
    torch.testing.assert_close(found.maps, match.maps)
    pd.testing.assert_frame_equal(found.changes, match.changes, atol=1e-6)
    assert found.gallery.portraits is None
    assert len(found.plot().axes) == 7  # the last is the colour bar


def test_the_figure_shows_both_candidates(match):
    titles = [axis.get_title() for axis in match.plot().axes]
    assert len(titles) == 11
    assert titles[3] == f"1: {match.first[0]}, {match.scores[0].max():.3f}"
    assert len(match.plot(probes=1).axes) == 6


def test_the_sentence_holds_ranks_margins_and_changes(match):
    text = match.sentence(1)
    row = of(match).iloc[1]
    assert text.startswith(f"{match.first[1]} is first of 3 names with cosine {match.scores[1].max():.3f}")
    assert f"the margin falls by {row.margin_before - row.margin_after:.3f}" in text
    assert "for random pixels" in text
    assert text.endswith(f"rank {int(row.rank_after)}.")
    assert ("accepted" in text) == bool(match.scores[1].max() >= 0.5)
    assert repr(match).count("is first of 3 names") == 2


def test_a_face_from_a_photograph_is_its_crop(model, faces):
    face = align(torch.rand(3, 200, 200), ARCFACE_112 + 40)
    found = explain_match(model, face, faces, list("abcde"), preset="fast", n_steps=1, draws=1, controls=())
    assert torch.equal(found.images[0], face.crop)
    assert found.summary()["control"].unique().tolist() == [""]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"gallery": torch.zeros(0, 3, 112, 112), "names": []}, CaptumLeamError, "hold one image or more"),
        ({"gallery": torch.zeros(0, 32), "names": []}, CaptumLeamError, "hold one image or more"),
        ({"gallery": torch.rand(3, 112, 112)}, CaptumLeamError, "(G, C, H, W), or embeddings (G, D)"),
        ({"gallery": [torch.rand(3, 112, 112)] * 3}, InputTypeError, "got a list"),
        ({"gallery": torch.rand(3, 7)}, CaptumLeamError, "to have 32 dimensions, as the model returns, got 7"),
        ({"gallery": torch.rand(3, 3, 56, 56)}, CaptumLeamError, "images of one size"),
        (
            {"gallery": torch.zeros(3, 32)},
            CaptumLeamError,
            "embeddings of the gallery to have a direction, got rows [0, 1, 2]",
        ),
        ({"names": ["ann", "ann", "ann"]}, CaptumLeamError, "two names or more, got 'ann' alone"),
        ({"names": ["ann", "bob"]}, CaptumLeamError, "one label for each of the 3 images of the gallery, got 2"),
        ({"names": ["ann", None, "cy"]}, CaptumLeamError, "Expected a label for each"),
        ({"names": "abc"}, InputTypeError, "labels"),
        ({"people": ["ann"]}, CaptumLeamError, "one person for each of the 2 probes, got 1"),
        ({"candidates": 3}, CaptumLeamError, "at most 2, one less than the names in the gallery, got 3"),
        ({"candidates": 0}, CaptumLeamError, "candidates"),
        ({"draws": 0}, CaptumLeamError, "draws"),
        ({"controls": ["chance"]}, CaptumLeamError, "chance"),
        ({"fraction": 0.0}, CaptumLeamError, "fraction"),
        ({"fill": "pink"}, CaptumLeamError, "pink"),
        ({"preset": "slow"}, CaptumLeamError, "preset"),
        ({"model": len}, InputTypeError, "torch.nn.Module"),
        ({"probe": torch.rand(112, 112)}, CaptumLeamError, "probe"),
        ({"layers": ["lost"]}, CaptumLeamError, "lost"),
    ],
)
def test_what_cannot_be_compared_is_refused(model, faces, change, error, message):
    given = {"model": model, "probe": faces[:2], "gallery": faces[2:], "names": ["ann", "bob", "cy"], "preset": "fast"}
    with pytest.raises(error, match=re.escape(message)):
        explain_match(**{**given, **change})


def test_one_picture_under_two_names_is_refused(model, faces):
    with pytest.raises(CaptumLeamError, match="equal embeddings for 'bob' and 'cy'"):
        explain_match(model, faces[0], faces[[1, 2, 2]], ["ann", "bob", "cy"], preset="fast")


def test_a_probe_inside_the_gallery_warns(model, faces):
    with pytest.warns(UserWarning, match="same picture for probe 1 under 'bob'"):
        explain_match(model, faces[:2], faces[[2, 1]], ["ann", "bob"], preset="fast", n_steps=1, draws=1)


def test_a_map_without_evidence_is_refused(model, faces, monkeypatch):
    monkeypatch.setattr("captum_leam.match.evidence_for", lambda model, x, *_: torch.zeros(len(x), 112, 112))
    with pytest.raises(NoEvidenceError, match=re.escape("got none for probes [0, 1]")):
        explain_match(model, faces[:2], faces[2:], list("abc"), preset="fast")


def test_nothing_of_the_user_changes(model, faces):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state, copy = torch.get_rng_state(), faces.clone()
    explain_match(model, faces[:1], faces[1:3], ["a", "b"], draws=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(faces, copy)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    assert all(p.grad is None for p in model.parameters())


def test_the_page_shows_the_ranking_and_the_maps_without_the_model(match):
    page = match.to_html(names=["ann.png", "bob <b>.png"])
    assert "<h1>ann.png and bob &lt;b&gt;.png</h1>" in page
    assert page.count('class="face"') == 2
    for i, name in enumerate(("ann.png", "bob &lt;b&gt;.png")):
        assert f"{name}: {match.sentence(i)}" in page
    assert "Drops were not measured" in page


def test_the_margin_of_two_names_is_what_the_map_explains(model, faces):
    """With one candidate the score of the map, reference minus contrast, is the margin."""
    from captum_leam.objectives import direction, similarity

    found = explain_match(model, faces[:1], faces[1:3], ["a", "b"], preset="fast", n_steps=1, draws=1)
    f, order = model(faces).detach(), found.order[0] + 1
    score = similarity(f[:1], direction(f[:1], f[order[0]], f[order[1]]))
    assert found.margins.item() == pytest.approx(score.item(), abs=1e-6)


@pytest.mark.slow
@pytest.mark.ci
def test_the_named_pixels_decide_where_evidence_is_planted():
    """On people who differ in the nose alone, occluding the map moves ranks and margins more than controls do."""
    population = SyntheticPopulation(6, evidence="nose", seed=0)
    model = train(population, steps=400, progress=False)
    gallery, probes = (population.sample(range(6), seed=seed) for seed in (7, 8))
    found = explain_match(
        model, probes.images, gallery.images, gallery.people.tolist(), people=probes.people.tolist(), preset="fast"
    )
    assert found.first == [str(p) for p in probes.people.tolist()]
    table = found.summary().query("of == 'person' and quantity == 'margin fall' and control != ''")
    assert (table["difference_low"] > 0).all()
    nose = probes.scheme.mask(probes.labels, "nose")
    assert float((found.maps * nose).sum()) > 0.5 * len(found.maps)


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.ci
def test_occlusion_moves_real_people_more_than_controls(real_dir, real_models):
    """Twelve people, one image in the gallery and one probe each."""
    from PIL import Image

    folders = sorted((real_dir / "faces").iterdir())[:12]
    paths = [sorted(folder.glob("*.png"))[i] for i in (0, 3) for folder in folders]
    pixels = [np.asarray(Image.open(path).convert("RGB"), dtype=np.float32) / 255 for path in paths]
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)
    names = [folder.name for folder in folders]
    net = real_models.RECOGNISERS["ms1m"]().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = explain_match(net, images[12:], images[:12], names, people=names, preset="fast", draws=3)
    table = found.summary().query("of == 'person' and control != ''").set_index(["quantity", "control"])
    assert (table.loc["margin fall", "difference_low"] > 0.1).all()
    assert (table.loc["rank change", "difference"] >= 0).all()


def test_a_pair_has_the_reference_of_a_gallery_without_the_contrast(model, faces):
    """The contrast is what sets a match apart from a pair."""
    found = explain_match(model, faces[0], faces[1:3], ["a", "b"], preset="fast", n_steps=1, draws=1)
    pair = explain_pair(model, faces[0], faces[1 + int(found.order[0, 0])], preset="fast", n_steps=1)
    assert pair.score == pytest.approx(found.scores.max().item(), abs=1e-6)
    assert not torch.allclose(pair.similar[:1], found.maps)


def test_a_network_that_returns_scores_is_refused(faces):
    class Scores(nn.Module):
        def forward(self, x):
            return x.mean((1, 2, 3))

    with pytest.raises(CaptumLeamError):
        explain_match(Scores().eval(), faces[0], faces[1:], list("abcd"))
