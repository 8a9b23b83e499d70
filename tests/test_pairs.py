"""Pairs: exact maps, decisions, and results on the photograph."""

import numpy as np
import pytest
import torch
from torch import nn

from captum_leam import LEAM, explain_faces, explain_pair, suggest_layers
from captum_leam.faces import ARCFACE_112, align
from captum_leam.maps import normalize_sum
from captum_leam.pairs import PairExplanation
from captum_leam.plots import overlay_on_photo
from captum_leam.regions import TemplateParser
from captum_leam.rounds import smooth
from captum_leam.synthetic import EmbeddingNet


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return EmbeddingNet().eval()


@pytest.fixture
def images():
    return torch.rand(2, 3, 112, 112)


def test_every_face_is_explained_towards_the_other(model, images):
    pair = explain_pair(model, images[0], images[1:], preset="fast")
    f = model(images)
    assert pair.score == pytest.approx(float(nn.functional.cosine_similarity(f[:1], f[1:])), abs=1e-6)
    alone = LEAM(model, model.last).attribute(images, reference=f.flip(0).detach())
    pair_last = explain_pair(model, *images, layers=["last"], preset="fast").layers["last"]
    placed = nn.functional.interpolate(alone, (112, 112), mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(pair_last, placed)
    overall = explain_faces(model, images, "fast", reference=f.flip(0).detach())
    torch.testing.assert_close(normalize_sum(smooth(pair.similar)), overall)  # before it is smoothed
    torch.testing.assert_close(pair.dissimilar.sum((1, 2)), torch.ones(2))
    assert list(pair.layers) == [layer.name for layer in suggest_layers(model, images).for_overall_map()]


def test_the_other_way_round_is_the_same(model, images):
    one, other = explain_pair(model, *images), explain_pair(model, *images.flip(0))
    torch.testing.assert_close(one.similar, other.similar.flip(0))
    assert one.score == pytest.approx(other.score)


def made(score, threshold=None, same=None, sine=0.5):
    maps = torch.ones(2, 4, 4)
    return PairExplanation(torch.rand(2, 3, 4, 4), score, maps / 16, 0 * maps, {}, sine, threshold, same)


@pytest.mark.parametrize(
    ("score", "same", "outcome"),
    [(0.5, True, "TA"), (0.5, False, "FA"), (0.3, False, "TR"), (0.3, True, "FR"), (0.4, True, "TA")],
)
def test_decisions(score, same, outcome):
    pair = made(score, 0.4, same)
    assert pair.outcome == outcome
    assert pair.margin == pytest.approx(score - 0.4)
    assert outcome in pair.sentence()
    assert ("accepted" in pair.sentence()) == (outcome[1] == "A")


def test_what_is_not_known_is_not_said():
    pair = made(0.5)
    assert (pair.accepted, pair.margin, pair.outcome) == (None, None, None)
    assert pair.sentence() == "Cosine 0.500."
    assert made(0.5, 0.4).outcome is None


def test_facts_say_what_is_known_and_no_more():
    assert list(made(0.5).facts()) == ["cosine", "maps about the match"]
    facts = made(0.3, 0.4, True).facts()
    assert (facts["decision"], facts["margin"], facts["outcome"]) == ("rejected", "-0.100", "FR, false rejection")
    assert made(0.5, sine=0.01).facts()["maps about the match"].startswith("NO")
    assert made(0.5, same=False).sentence() == "Cosine 0.500; different people."


def test_one_image_twice_is_flagged(model, images):
    pair = explain_pair(model, images[0], images[0])
    assert not pair.reliable
    assert "nearly one" in pair.sentence()
    assert made(0.5).reliable


def test_regions_of_both_sides(model, images):
    parser = TemplateParser()
    table = explain_pair(model, *images, preset="fast").regions(parser(images), parser.scheme)
    assert table.groupby(["face", "speaks"])["share"].sum().round(6).eq(1).all()
    assert len(table.groupby(["face", "speaks"])) == 4
    alone = made(0.5).regions(torch.zeros(4, 4, dtype=torch.int64), parser.scheme, fraction=0.5)
    assert set(alone["speaks"]) == {"for"}


def test_what_does_not_fit_is_refused(model, images):
    with pytest.raises(ValueError, match=r"two images of one size, got \(3, 112, 112\) and \(3, 56, 56\)"):
        explain_pair(model, images[0], images[1, :, :56, :56])
    with pytest.raises(ValueError, match="preset is 'slow'"):
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
    assert len(pair.plot().axes) == 6
    titles = [axis.get_title() for axis in pair.plot([photo, None]).axes]
    assert titles[-1] == "a, for the match, on the photograph"
    assert titles.count("against it") == 2
