"""Error rates against literal counting; black boxes; facexlib's ArcFace on weights made here."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from captum_leam.errors import SeparationWarning
from captum_leam.faithfulness import OcclusionEvaluator
from captum_leam.leam import LEAM
from captum_leam.models import BlackBox, Preprocessing, facexlib_arcface
from captum_leam.suggest import suggest_layers
from captum_leam.verification import Verification, verify


def scores(seed=0):
    random = np.random.default_rng(seed)
    return Verification(np.sort(random.normal(0.5, 0.2, 60)), np.sort(random.normal(0, 0.2, 300)))


@pytest.mark.parametrize("fmr", [0.5, 0.1, 0.01, 1 / 300])
def test_tar_is_the_best_that_is_allowed(fmr):
    """Every threshold between scores, counted one by one."""
    result = scores()
    every = [-2.0, *np.unique(np.concatenate([result.genuine, result.impostor])), 2.0]
    allowed = [t for t in every if sum(score >= t for score in result.impostor) / 300 <= fmr + 1e-12]
    best = max(sum(score >= t for score in result.genuine) / 60 for t in allowed)
    assert result.tar(fmr) == pytest.approx(best)
    assert np.mean(result.impostor >= result.threshold(fmr)) <= fmr + 1e-12


def test_the_equal_error_rate_equals_that_by_hand():
    result = Verification(np.array([0.2, 0.6, 0.7, 0.8]), np.array([0.0, 0.1, 0.3, 0.65]))
    assert result.eer == 0.25  # at 0.4: one of four on either side
    assert Verification(np.array([1.0]), np.array([0.0])).eer == 0
    assert Verification(np.array([0.0]), np.array([1.0])).eer == pytest.approx(1, abs=0.5)


def test_ties_are_accepted_together():
    result = Verification(np.array([0.5, 0.5]), np.array([0.1, 0.5, 0.5, 0.5]))
    assert result.threshold(0.5) > 0.5  # three of four lie at 0.5
    assert result.tar(0.5) == 0


def test_false_match_rates_below_one_impostor_pair_raise():
    with pytest.raises(
        ValueError, match="Expected at least 1000 impostor pairs for a false match rate of 0.001, got 300"
    ):
        scores().tar(1e-3)
    with pytest.raises(ValueError, match="a rate in"):
        scores().threshold(0)
    assert scores().to_frame()["fmr"].tolist() == [0.1, 0.01]
    assert "TAR" in repr(scores())


def test_the_histogram_holds_both_kinds():
    legend = scores().plot().axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == [
        "different people (300 pairs)",
        "same person (60 pairs)",
    ]


def test_a_model_that_does_not_separate_warns():
    images = torch.rand(12, 3, 4, 4)
    with pytest.warns(SeparationWarning, match="hardly separates these people"):
        verify(nn.Flatten().eval(), images, [i % 4 for i in range(12)])
    for labels in ([1, 2], ["a"] * 12, list(range(12))):
        with pytest.raises(ValueError, match="Expected"):
            verify(nn.Flatten().eval(), images, labels)


@pytest.mark.real
def test_real_networks_separate_and_a_wrong_preprocessing_shows(real_dir, real_models):
    files = sorted((real_dir / "faces").glob("s0*/*.png"))
    images = torch.stack(
        [torch.from_numpy(np.asarray(Image.open(p).convert("RGB"))).movedim(-1, 0) / 255 for p in files]
    )
    people = [path.parent.name for path in files]
    right = verify(real_models.ms1m(), images, people)
    assert right.eer < 0.05
    wrong = verify(real_models.ms1m(), images.flip(-2), people)  # upside down
    assert wrong.eer > 2 * right.eer + 0.05


# -- black boxes ---------------------------------------------------------------------------------------


def test_a_black_box_is_scored_and_occluded():
    seen = []

    def service(pictures):
        seen.append(pictures)
        return pictures.reshape(len(pictures), -1).tolist()

    box = BlackBox(service, Preprocessing(std=(1 / 255,) * 3, layout="NHWC"))
    images = torch.rand(4, 3, 8, 8)
    assert torch.allclose(box(images), 255 * images.movedim(1, -1).flatten(1), atol=1e-3)
    assert isinstance(seen[0], np.ndarray)
    assert seen[0].shape == (4, 8, 8, 3)
    result = OcclusionEvaluator(box, (0.1,), controls=("random pixels",)).evaluate(
        images, {"x": torch.rand(4, 8, 8)}, torch.rand(4, 192)
    )
    assert len(result.to_frame())


def test_gradients_and_layers_of_a_black_box_raise():
    box = BlackBox(lambda pictures: pictures.mean((2, 3)))
    images = torch.rand(2, 3, 8, 8)
    with pytest.raises(ValueError, match="a BlackBox has no gradients"):
        box(images.requires_grad_())
    with pytest.raises(ValueError, match="no gradients"):
        suggest_layers(box, images.detach())
    with pytest.raises(ValueError, match="BlackBox|did not run|no gradients"):
        LEAM(box, box).attribute(images.detach())


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda x: [["a"]] * len(x), "to return numbers"),
        (lambda x: np.ones((1, 4)), r"embeddings \(2, D\)"),
        (lambda x: x * np.nan, ""),
    ],
)
def test_answers_of_black_boxes_are_checked(answer, message):
    with pytest.raises(ValueError, match=message):
        BlackBox(answer)(torch.rand(2, 3, 4, 4))
    with pytest.raises(TypeError, match="to be a callable"):
        BlackBox(3)


# -- facexlib's ArcFace --------------------------------------------------------------------------------


def test_arcface_without_cuda_and_without_the_division(tmp_path):
    arch = pytest.importorskip("facexlib.recognition.arcface_arch")
    native = arch.Backbone(50, 0.6, "ir_se").eval()
    torch.save(native.state_dict(), tmp_path / "recognition_arcface_ir_se50.pth")
    model = facexlib_arcface(weights=tmp_path, device="cpu")
    images = torch.rand(2, 3, 112, 112)
    with torch.no_grad():
        found, expected = model(images), native(images * 2 - 1)
    assert found.norm(dim=1).sub(1).abs().min() > 1e-3
    torch.testing.assert_close(torch.nn.functional.normalize(found), expected)
    with torch.no_grad():
        swapped = facexlib_arcface(weights=tmp_path, device="cpu", colour="bgr")(images.flip(1))
    torch.testing.assert_close(swapped, found)
    assert not model.training
    with pytest.raises(ValueError, match="SHA-256"):
        facexlib_arcface(weights=tmp_path, sha256="00")
