"""Pairs: exact maps, decisions, and results on the photograph."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from captum_leam import LEAM, explain_faces, explain_pair, overall_map, suggest_layers
from captum_leam.errors import CaptumLeamError, NoEvidenceError
from captum_leam.explain import MapSettings, layer_maps
from captum_leam.faces import ARCFACE_112, align
from captum_leam.maps import place_on_field
from captum_leam.objectives import unit
from captum_leam.pairs import PairExplanation
from captum_leam.plots import overlay_on_photo
from captum_leam.regions import TemplateParser


@pytest.fixture(scope="module")
def model(small_network):
    return small_network


@pytest.fixture
def images():
    return torch.rand(2, 3, 112, 112)


def test_each_map_is_the_one_that_its_settings_name(model, images):
    pair = explain_pair(model, images[0], images[1:], preset="fast", n_steps=1)
    f = model(images).detach()
    assert pair.score == pytest.approx(float(nn.functional.cosine_similarity(f[:1], f[1:])), abs=1e-6)
    towards = unit(f).flip(0)
    found = suggest_layers(model, images)
    assert torch.equal(pair.similar, explain_faces(model, images, "fast", reference=towards))
    assert list(pair.layers) == [layer.name for layer in found.for_overall_map()]
    chosen = replace(found, layers=found.for_overall_map())
    for name, signed in layer_maps(model, images, chosen, reference=towards, n_steps=1).items():
        assert torch.equal(pair.layers[name], signed)
    torch.testing.assert_close(pair.dissimilar, overall_map([-m for m in pair.layers.values()], (112, 112)))
    assert pair.settings == MapSettings("fast", "other face", tuple(pair.layers), tuple(pair.layers), found.field, 1)
    default = explain_pair(model, *images).settings
    assert default.to_dict()["passes"] == "9 forward, 9 backward"
    assert default.n_steps == 4


def test_layers_chosen_by_hand_all_make_the_overall_map(model, images):
    towards = unit(model(images).detach()).flip(0)
    pair = explain_pair(model, *images, layers=["last"], preset="fast")
    assert torch.equal(pair.similar, explain_faces(model, images, "fast", layers=[model.last], reference=towards))
    pair = explain_pair(model, *images, layers=["stem", "last"], preset="fast")
    assert pair.settings.overall_layers == ("stem", "last")
    found = suggest_layers(model, images)
    given = explain_pair(model, *images, layers=found, preset="fast")
    assert torch.equal(given.similar, explain_faces(model, images, "fast", layers=found, reference=towards))
    assert list(given.layers) == [layer.name for layer in found]


@pytest.mark.parametrize("n_steps", [1, 4])
def test_the_maps_of_an_earlier_version_are_layer_maps_and_their_mean(model, images, n_steps):
    """Presets of pairs and pages were a path of 1, 4 or 16 steps: ``n_steps`` gives these maps, bit for bit."""
    found, reference = suggest_layers(model, images), torch.randn(2, 32)
    leam = LEAM(model, [layer.module for layer in found], reshape=[layer.reshape for layer in found])
    raw = leam.attribute(images, reference=reference, n_steps=n_steps)
    maps = layer_maps(model, images, found, reference=reference, n_steps=n_steps)
    for placed, of_layer in zip(maps.values(), raw, strict=True):
        assert torch.equal(placed, place_on_field(of_layer, (112, 112), found.field))
    earlier = overall_map(raw, (112, 112), found.field)
    assert torch.equal(overall_map([*maps.values()], (112, 112)), earlier)


def test_a_face_without_evidence_has_an_empty_map(model, images, monkeypatch):
    def explain_one(model, x, preset, *, layers, reference, batch_size, contrast):
        if bool((reference == refused).all(1).any()):
            raise NoEvidenceError("nothing")
        return explain_faces(model, x, preset, layers=layers, reference=reference)

    refused = unit(model(images).detach())[0]
    monkeypatch.setattr("captum_leam.pairs.explain_faces", explain_one)
    pair = explain_pair(model, *images, preset="fast")
    assert pair.similar.sum((1, 2)).tolist() == pytest.approx([1, 0])
    parser = TemplateParser()
    table = pair.regions(parser(images), parser.scheme)
    assert set(table.query("speaks == 'for'")["face"]) == {"a"}


def test_exchanging_the_images_exchanges_their_maps(model, images):
    one, other = explain_pair(model, *images), explain_pair(model, *images.flip(0))
    torch.testing.assert_close(one.similar, other.similar.flip(0))
    assert one.score == pytest.approx(other.score)


def made(score, threshold=None, same=None, sine=0.5):
    maps = torch.ones(2, 4, 4)
    settings = MapSettings("fast", "other face", (), (), (0, 0, 4, 4), 4)
    return PairExplanation(torch.rand(2, 3, 4, 4), score, maps / 16, 0 * maps, {}, sine, settings, threshold, same)


@pytest.mark.parametrize(
    ("score", "same", "outcome"),
    [(0.5, True, "TA"), (0.5, False, "FA"), (0.3, False, "TR"), (0.3, True, "FR"), (0.4, True, "TA")],
)
def test_outcome_margin_and_sentence_follow_score_and_threshold(score, same, outcome):
    pair = made(score, 0.4, same)
    assert pair.outcome == outcome
    assert pair.margin == pytest.approx(score - 0.4)
    assert outcome in pair.sentence()
    assert ("accepted" in pair.sentence()) == (outcome[1] == "A")


def test_without_threshold_or_truth_there_is_no_outcome():
    pair = made(0.5)
    assert (pair.accepted, pair.margin, pair.outcome) == (None, None, None)
    assert pair.sentence() == "Cosine 0.500."
    assert made(0.5, 0.4).outcome is None


def test_facts_hold_the_known_values_only():
    assert list(made(0.5).facts()) == ["cosine", "maps about the match"]
    facts = made(0.3, 0.4, True).facts()
    assert (facts["decision"], facts["margin"], facts["outcome"]) == ("rejected", "-0.100", "FR, false rejection")
    assert made(0.5, sine=0.01).facts()["maps about the match"].startswith("NO")
    assert made(0.5, same=False).sentence() == "Cosine 0.500; different people."


def test_one_image_twice_is_flagged(model, images):
    pair = explain_pair(model, images[0], images[0])
    assert not pair.reliable
    assert "nearly the same" in pair.sentence()
    assert made(0.5).reliable


def test_region_shares_of_every_face_and_sign_sum_to_one(model, images):
    parser = TemplateParser()
    table = explain_pair(model, *images, preset="fast").regions(parser(images), parser.scheme)
    assert table.groupby(["face", "speaks"])["share"].sum().round(6).eq(1).all()
    assert len(table.groupby(["face", "speaks"])) == 4
    alone = made(0.5).regions(torch.zeros(4, 4, dtype=torch.int64), parser.scheme, fraction=0.5)
    assert set(alone["speaks"]) == {"for"}


def test_images_of_two_sizes_and_unknown_options_raise(model, images):
    with pytest.raises(ValueError, match=r"two images of one size, got \(3, 112, 112\) and \(3, 56, 56\)"):
        explain_pair(model, images[0], images[1, :, :56, :56])
    with pytest.raises(ValueError, match="Expected preset to be one of .*, got 'slow'"):
        explain_pair(model, *images, preset="slow")
    with pytest.raises(ValueError, match="lost"):
        explain_pair(model, *images, layers=["lost"])


def test_a_map_lies_where_the_face_is(model):
    """A spot on the crop at the tip of the nose is brightest on the photograph at the nose."""
    photo = torch.full((3, 300, 400), 0.5)
    face = align(photo, 1.5 * ARCFACE_112 + (180, 60))
    spot = torch.zeros(112, 112)
    spot[71:73, 55:58] = 1
    picture = overlay_on_photo(photo, face, spot).astype(int)
    assert picture.shape == (300, 400, 3)
    coloured = np.abs(picture - 128).sum(-1)
    y, x = np.unravel_index(coloured[80:220, 200:330].argmax(), (140, 130))
    assert (x + 200, y + 80) == pytest.approx((1.5 * 56 + 180, 1.5 * 71.7 + 60), abs=4)
    assert face.outline[0] == pytest.approx((1.5 * -0.5 + 180, 1.5 * -0.5 + 60), abs=1e-6)
    half = overlay_on_photo(photo, face, spot, side=200)
    assert half.shape == (150, 200, 3)


def test_the_figure_holds_both_faces_and_the_photographs(model):
    photo = torch.rand(3, 200, 200)
    face = align(photo, ARCFACE_112 + 30)
    pair = explain_pair(model, face, torch.rand(3, 112, 112), preset="fast")
    assert pair.faces[0] is face
    assert len(pair.plot().axes) == 7  # the last is the colour bar
    titles = [axis.get_title() for axis in pair.plot([photo, None]).axes]
    assert titles[-1] == "a, for the match, on the photograph"
    assert titles.count("against it") == 2
    for arguments, message in (
        ({"photographs": [photo, None], "pictures": [None, None]}, "photographs or pictures, got both"),
        ({"photographs": [photo]}, "two photographs, one per face, got 1"),
        ({"pictures": [None] * 3}, "two pictures, one per face, got 3"),
    ):
        with pytest.raises(CaptumLeamError, match=message):
            pair.plot(**arguments)


class OneSided(nn.Module):
    """Two layers, of which the second has no evidence for the match of these faces: its positive part is empty."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, 2, 1)
        self.second = nn.Conv2d(4, 4, 3, 2, 1)

    def forward(self, x):
        first = self.first(x).relu()
        second = self.second(first).relu()
        return torch.cat([20 * first.mean((2, 3)), 5 - second.mean((2, 3)).sum(1, keepdim=True)], 1)


def test_a_layer_without_evidence_leaves_that_of_the_others():
    torch.manual_seed(0)
    model, images = OneSided().eval(), torch.rand(2, 3, 112, 112)
    pair = explain_pair(model, *images, layers=["first", "second"], preset="fast", n_steps=1)
    against = [name for name, maps in pair.layers.items() if not bool((maps > 0).any())]
    assert against == ["second"]
    alone = explain_pair(model, *images, layers=["first"], preset="fast", n_steps=1)
    torch.testing.assert_close(pair.similar, alone.similar)
    assert bool((pair.similar.sum((1, 2)) > 0.99).all())
