"""Messages name the caller's rows; missing labels, other sizes and other kinds of values are refused at the door."""

import inspect
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from captum_leam import LEAM, explain_faces, explain_pair, leave_one_out_centroids, suggest_layers
from captum_leam.errors import ReliabilityWarning
from captum_leam.explainers import FGGB, RISE, XSSAB, CorrRISE, ExtremalPerturbation, GradCAM, RegionShapley, XFace
from captum_leam.faithfulness import (
    OcclusionEvaluator,
    evaluate_person_masks,
    paste_patches,
    rank_layers,
    sanity_checks,
)
from captum_leam.faithfulness.ground_truth import part_importance
from captum_leam.layers import tokens_to_map
from captum_leam.models import layer_before_division
from captum_leam.objectives import embed
from captum_leam.patterns import pattern_claim, person_specificity, signatures
from captum_leam.plots import overlay_grid
from captum_leam.stats.decisions import draw_pairs
from captum_leam.verification import VerificationEvaluator, verify
from tests.helpers.networks import SIZE, Inner, Net

# -- rows ----------------------------------------------------------------------------------------------


class FailsOnWhite(nn.Module):
    """The embedding of an image whose first pixel is over 1 is not finite, however that image is hidden elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Inner()
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        bad = x[:, 0, 0, 0] > 1
        return self.net(x).masked_fill(bad[:, None], torch.nan)


MAPS = torch.rand(12, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
REFERENCE = torch.randn(12, generator=torch.Generator().manual_seed(0))
PEOPLE = [i // 2 for i in range(12)]


def occluded(model: nn.Module, x: Tensor, n: int) -> None:
    """The clean images are sound; the fill is not, for one of them."""
    from captum_leam.faithfulness import Fill

    white = (x[:, :1, :1, :1] > 1).to(x)
    fill = Fill("white", lambda images, masks: images + 2 * white)
    everywhere = MAPS.clone()
    everywhere[:, 0, 0] = 9  # the first pixel is hidden first
    evaluator = OcclusionEvaluator(model, (0.1,), fills=(fill,), controls=(), batch_size=n)
    evaluator.evaluate(x.clamp(max=1), everywhere, labels=PEOPLE)


ROW_DOORS = {
    "explain_faces": lambda m, x, n: explain_faces(m, x, "fast", batch_size=n),
    "explain_faces, with rounds": lambda m, x, n: explain_faces(m, x, layers=[m.net.blocks[0]], batch_size=n),
    "LEAM with a path": lambda m, x, n: LEAM(m, m.net.blocks[0]).attribute(
        x, n_steps=4, internal_batch_size=4 * len(x)
    ),
    "embed": lambda m, x, n: embed(m, x, n),
    "verify": lambda m, x, n: verify(m, x, PEOPLE, batch_size=n),
    "OcclusionEvaluator": lambda m, x, n: OcclusionEvaluator(m, (0.1,), batch_size=n).evaluate(x, MAPS, labels=PEOPLE),
    "OcclusionEvaluator, occluded": occluded,
    "part_importance": lambda m, x, n: part_importance(m, x, MAPS > 0.5, [1], REFERENCE, batch_size=n),
    "rank_layers": lambda m, x, n: rank_layers(m, x, PEOPLE, batch_size=n),
    "GradCAM": lambda m, x, n: GradCAM(m, m.net.blocks[0], batch_size=n).attribute(x, reference=REFERENCE),
    "XSSAB": lambda m, x, n: XSSAB(m, batch_size=n).attribute(x, reference=REFERENCE),
    "FGGB": lambda m, x, n: FGGB(m, batch_size=n).attribute(x, reference=REFERENCE),
    "RISE": lambda m, x, n: RISE(m, masks=2, batch_size=n).attribute(x, reference=REFERENCE),
    "CorrRISE": lambda m, x, n: CorrRISE(m, masks=3, batch_size=n).attribute(x),
    "XFace": lambda m, x, n: XFace(m, patches=(40,), batch_size=n).attribute(x, reference=REFERENCE),
    "ExtremalPerturbation": lambda m, x, n: ExtremalPerturbation(m, n_steps=1, restarts=1, batch_size=n).attribute(x),
    "RegionShapley": lambda m, x, n: RegionShapley(
        m, lambda y: (y[:, 0] > 0.5).long(), orders=1, batch_size=n
    ).attribute(x, reference=REFERENCE),
}


@settings(max_examples=6, deadline=None)
@given(row=st.integers(0, 11), batch=st.integers(1, 12))
@pytest.mark.parametrize("door", ROW_DOORS)
def test_the_callers_row_is_named(door, row, batch):
    """Property: whichever image is bad, and however many go through at once, it is the one that is named."""
    torch.manual_seed(0)
    x = torch.rand(12, 3, SIZE, SIZE)
    x[row, :, 0, 0] = 5.0
    with pytest.raises(ValueError, match=rf"\[{row}\]"):
        ROW_DOORS[door](FailsOnWhite(), x, batch)


def test_an_image_that_is_not_finite_is_named_wherever_it_stands(faces):
    net = Net()
    for row in range(3):
        x = faces.clone()
        x[row, 0, 0, 0] = torch.nan
        with pytest.raises(ValueError, match=rf"\[{row}\]"):
            explain_faces(net, x, "fast")
    with pytest.raises(ValueError, match=r"images \[0, 1, 2\]"):
        suggest_layers(net, torch.full_like(faces, torch.nan))


def test_references_are_named_by_the_callers_row(faces):
    references = torch.randn(3, 10)
    references[2] = 0
    with pytest.raises(ValueError, match=r"rows \[2\]"):
        explain_faces(Net(), faces, "fast", reference=references, batch_size=1)


# -- labels --------------------------------------------------------------------------------------------

LABEL_DOORS = {
    "leave_one_out_centroids": lambda x, who: leave_one_out_centroids(x.flatten(1), who),
    "verify": lambda x, who: verify(nn.Flatten(), x, who),
    "draw_pairs": lambda x, who: draw_pairs(who),
    "OcclusionEvaluator": lambda x, who: OcclusionEvaluator(nn.Flatten(), (0.1,)).evaluate(x, x[:, 0], labels=who),
    "VerificationEvaluator": lambda x, who: VerificationEvaluator(nn.Flatten(), (0.0, 0.5)).evaluate(
        x, draw_pairs([0, 0, 1, 1]), x[draw_pairs([0, 0, 1, 1]).first, 0], labels=who
    ),
    "person masks": lambda x, who: evaluate_person_masks(nn.Flatten(), x, x[:, 0], who),
    "patch pairs": lambda x, who: paste_patches(x, draw_pairs([0, 0, 1, 1]), who, patches=1, size=4),
    "rank_layers": lambda x, who: rank_layers(Net(), x, who),
    "sanity_checks": lambda x, who: sanity_checks(Net(), x, who),
    "person_specificity": lambda x, who: person_specificity(signatures(x[:, 0], "dense"), who),
    "pattern_claim": lambda x, who: pattern_claim(x[:, 0], who, {"edges": x[:, 1]}),
}
MISSING = {
    "None": ["ann", "ann", None, None],
    "empty": ["ann", "ann", "", "bob"],
    "blank": ["ann", "ann", " ", "bob"],
    "NaN": [1.0, 1.0, float("nan"), float("nan")],
    "pandas": pd.array(["ann", "ann", pd.NA, pd.NA], dtype="string"),
    "numpy": np.array([1.0, 1.0, np.nan, np.nan]),
    "torch": torch.tensor([1.0, 1.0, torch.nan, torch.nan]),
    "text of numpy": np.array(["ann", "ann", np.nan, np.nan]),
    "no time": [pd.Timestamp(0), pd.Timestamp(0), pd.NaT, pd.NaT],
}


@pytest.mark.parametrize("missing", MISSING)
@pytest.mark.parametrize("door", LABEL_DOORS)
def test_missing_labels_raise(door, missing):
    with pytest.raises(ValueError, match=r"rows \[2"):
        LABEL_DOORS[door](torch.rand(4, 3, 16, 16), MISSING[missing])


def test_labels_of_any_kind_name_people():
    f = torch.randn(4, 8)
    expected = leave_one_out_centroids(f, ["a", "a", "b", "b"])
    for labels in ([0, 0, 1, 1], (True, True, False, False), np.array(list("xxyy")), torch.tensor([5, 5, 2, 2])):
        assert torch.equal(leave_one_out_centroids(f, labels), expected)
    with pytest.raises(TypeError, match="Expected labels to be a sequence"):
        leave_one_out_centroids(f, 3)
    with pytest.raises(ValueError, match="one label for each of the 4 embeddings, got 3"):
        leave_one_out_centroids(f, list("abc"))
    with pytest.raises(TypeError, match="got str"):
        leave_one_out_centroids(f, "aabb")
    with pytest.raises(ValueError, match=r"shape \(N,\), got \(4, 1\)"):
        leave_one_out_centroids(f, torch.tensor([[0], [0], [1], [1]]))


def test_a_picture_that_stands_twice_is_warned_of():
    f = torch.randn(5, 8)
    f[3] = f[0]
    with pytest.warns(ReliabilityWarning, match=r"equal embeddings in rows \[0, 3\]"):
        leave_one_out_centroids(f, ["ann", "ann", "bob", "ann", "bob"])


# -- sizes ---------------------------------------------------------------------------------------------


def test_layers_suggested_at_one_size_are_refused_at_another():
    net, small, large = Inner().eval(), torch.rand(4, 3, SIZE, SIZE), torch.rand(4, 3, SIZE, SIZE + 16)
    layers = suggest_layers(net, small)
    message = "Expected images of 48 × 48 px, for which these layers were suggested, got 48 × 64 px"
    for call in (
        lambda: explain_faces(net, large, "fast", layers=layers),
        lambda: explain_pair(net, large[0], large[1], layers=layers, preset="fast"),
        lambda: rank_layers(net, large, [0, 0, 1, 1], layers=layers),
        lambda: layers.for_images(large),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(ValueError, match=message):
        explain_faces(net, large, "fast", layers=layers, field=(0, 0, SIZE, SIZE + 16))
    assert layers.for_images(small) is layers


def test_a_grid_of_tokens_found_at_another_size_raises():
    reshape = partial(tokens_to_map, grid=(7, 7))
    assert reshape(torch.rand(1, 50, 8)).shape == (1, 8, 7, 7)
    for tokens in (197, 40):
        with pytest.raises(ValueError, match="Pass the grid of this image size"):
            reshape(torch.rand(1, tokens, 8))


# -- kinds of values -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["numpy", "list", "bytes", "one image"])
def test_faces_of_another_kind_say_what_to_do(faces, kind):
    given_, error, message = {
        "numpy": (faces.numpy(), TypeError, r"got ndarray. Pass torch.from_numpy\("),
        "list": (list(faces), TypeError, r"got list. Pass torch.stack\("),
        "bytes": ((faces * 255).byte(), TypeError, r"got a tensor of torch.uint8. Pass \w+.float\(\) / 255"),
        "one image": (faces[0], ValueError, r"shape \(N, C, H, W\) with one image or more, got \(3, 16, 16\)"),
    }[kind]
    for call in (
        lambda: explain_faces(Net(), given_),
        lambda: XSSAB(Net()).attribute(given_, reference=torch.ones(10)),
    ):
        with pytest.raises(error, match=message):
            call()


def test_a_pair_of_bytes_and_floats_raises(faces):
    a, b = faces[:2]
    for one, other, name in ((a, (b * 255).byte(), "b"), ((a * 255).byte(), b, "a")):
        with pytest.raises(TypeError, match=f"Expected {name} to be a floating-point tensor"):
            explain_pair(Net(), one, other)
    with pytest.raises(ValueError, match="two images of one size"):
        explain_pair(Net(), a, b[:, :8])
    with pytest.raises(ValueError, match="Expected a to be one image"):
        explain_pair(Net(), faces, b)


def test_a_pair_takes_modules_and_names_of_layers():
    net, (a, b) = Inner().eval(), torch.rand(2, 3, SIZE, SIZE)
    by_name = explain_pair(net, a, b, layers=["blocks.0"], preset="fast")
    by_module = explain_pair(net, a, b, layers=[net.blocks[0]], preset="fast")
    assert torch.equal(by_name.similar, by_module.similar)
    with pytest.raises(ValueError, match="not among them"):
        explain_pair(net, a, b, layers=[nn.ReLU()])
    with pytest.raises(TypeError, match="names or modules"):
        explain_pair(net, a, b, layers=[3])


class Returns(nn.Module):
    def __init__(self, change: object) -> None:
        super().__init__()
        self.net, self.change = Net(), change
        self.eval()

    def forward(self, x: Tensor) -> object:
        return self.change(self.net(x))


def test_what_a_model_returns_beside_its_embedding_is_named(faces):
    lengths = Returns(lambda f: (f / f.norm(dim=1, keepdim=True), f.norm(dim=1, keepdim=True)))
    for call in (
        lambda: explain_faces(lengths, faces),
        lambda: embed(lengths, faces),
        lambda: suggest_layers(lengths, faces),
    ):
        with pytest.raises(
            TypeError, match=r"got a tuple. If the embedding is its first element.*lambda x: model\(x\)\[0\], or UpTo"
        ):
            call()
    assert layer_before_division(lengths, faces) == "net"
    with pytest.raises(TypeError, match="key of the embedding; there are 'f'"):
        embed(Returns(lambda f: {"f": f}), faces)
    with pytest.raises(ValueError, match=r"Use flatten\(1\) instead of squeeze\(\), so that one image gives \(1, 10\)"):
        LEAM(m := Returns(torch.squeeze), m.net.body).attribute(faces[:1])


def test_a_model_without_gradients_or_with_parts_that_run_often_is_named():
    inner, x = Inner().eval(), torch.rand(4, 3, SIZE, SIZE)

    class Wrapped(nn.Module):
        def __init__(self, change: object) -> None:
            super().__init__()
            self.net, self.change = inner, change
            self.eval()

        def forward(self, x: Tensor) -> Tensor:
            return self.change(self.net, x)

    for change in (lambda net, x: torch.round(net(x)), lambda net, x: net(x).detach()):
        with pytest.raises(ValueError, match="no gradient reaches any layer|to depend on the images"):
            suggest_layers(Wrapped(change), x)
    micro = Wrapped(lambda net, x: torch.cat([net(part) for part in x.split(1)]))
    with pytest.raises(ValueError, match=r"module 'net' ran \d times in one forward pass"):
        suggest_layers(micro, x)


def test_a_grid_of_faces_says_which_counts_differ(faces):
    with pytest.raises(ValueError, match="the 3 images, got 3 maps and 2 titles"):
        overlay_grid(faces, torch.rand(3, 16, 16), ["a", "b"])
    with pytest.raises(ValueError, match="the 3 images, got 2 maps"):
        overlay_grid(faces, torch.rand(2, 16, 16))


def test_every_function_that_takes_labels_is_in_the_table():
    """A public function that takes labels of people, and is not tested above, fails here."""
    import captum_leam.faithfulness as faithfulness
    import captum_leam.models as models
    import captum_leam.patterns as patterns
    import captum_leam.verification as verification

    tested = {"verify", "draw_pairs", "evaluate_person_masks", "paste_patches", "rank_layers", "sanity_checks"}
    tested |= {"person_specificity", "pattern_claim"}
    of_regions = {"part_agreement", "part_importance", "region_maps", "signatures"}  # labels of pixels
    through_tested = {
        "agreement",
        "closest_strangers",
        "compare_groups",
        "control_maps",
        "untrained_maps",
    }  # person_codes
    found = {
        name
        for package in (faithfulness, models, patterns, verification)
        for name in package.__all__
        if inspect.isfunction(thing := getattr(package, name))
        and {"labels", "people"} & set(inspect.signature(thing).parameters)
    }
    assert found == tested | of_regions | through_tested
