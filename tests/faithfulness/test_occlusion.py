"""The occlusion evaluator, on models whose drops can be computed by hand."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from captum_leam.controls import CONTROLS
from captum_leam.errors import ReliabilityWarning
from captum_leam.faithfulness import OcclusionEvaluator, OcclusionResult, as_fill, occlude
from captum_leam.maps import place_on_field


def pixels(x: Tensor) -> Tensor:
    """An embedding that is the image: two pixels, two numbers."""
    return x.flatten(1)


class Counted(nn.Module):
    def __init__(self, size: int = 192, dimensions: int = 6) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(size, dimensions)).eval()
        self.images = 0

    def forward(self, x: Tensor) -> Tensor:
        self.images += len(x)
        return self.net(x)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(6, 3, 8, 8)


PEOPLE = ["ann", "ann", "bob", "bob", "cyd", "cyd"]


def test_occlusion_changes_exactly_the_chosen_pixels():
    images, masks = torch.rand(3, 3, 8, 8), torch.rand(3, 8, 8) > 0.7
    for fill in ("zero", "mean", "blur", "noisy linear", "shuffle", lambda x: x + 5, lambda x, m: x - m[:, None] * 3.0):
        occluded = occlude(images, masks, fill)
        changed = (occluded != images).any(1)
        assert not (changed & ~masks).any()
        expected = as_fill(fill)(images, masks)
        assert torch.equal(occluded[masks[:, None].expand_as(images)], expected[masks[:, None].expand_as(images)])


def test_masks_of_wrong_shape_or_type_raise():
    images = torch.rand(2, 3, 8, 8)
    with pytest.raises(ValueError, match="Expected `masks` to be boolean"):
        occlude(images, torch.zeros(2, 4, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match="to be boolean of shape"):
        occlude(images, torch.zeros(2, 8, 8))


def test_drops_by_hand_are_those_of_two_pixels():
    """x = (3, 4), r = (0, 1): cosine 0.8; without its second pixel (3, 0): cosine 0; without the first: 1."""
    images, reference = torch.tensor([[[[3.0, 4.0]]]]), torch.tensor([0.0, 1.0])
    maps = {"right": torch.tensor([[[0.0, 1.0]]]), "wrong": torch.tensor([[[1.0, 0.0]]])}
    evaluator = OcclusionEvaluator(pixels, (0.5,), fills=("zero",), controls=(), orders=("most", "least", "insertion"))
    table = evaluator.evaluate(images, maps, reference).to_frame().set_index(["method", "order"])
    assert table.loc[("right", "most"), "drop"] == pytest.approx(0.8)
    assert table.loc[("right", "least"), "drop"] == pytest.approx(-0.2)
    assert table.loc[("right", "insertion"), "drop"] == pytest.approx(-0.2)  # the second pixel is all that is kept
    assert table.loc[("wrong", "most"), "drop"] == pytest.approx(-0.2)
    assert (table["changed"] == 1).all()


def test_occluding_everything_costs_the_same_in_every_order(images):
    evaluator = OcclusionEvaluator(
        Counted(), (1.0,), fills=("shuffle",), controls=(), orders=("most", "least", "insertion")
    )
    drops = (
        evaluator.evaluate(images, torch.rand(6, 8, 8), labels=PEOPLE).to_frame().set_index(["image", "order"])["drop"]
    )
    for i in range(6):
        assert drops[i, "most"] == drops[i, "least"]  # everything is replaced
        assert drops[i, "insertion"] == pytest.approx(0, abs=1e-6)  # everything is kept


def test_fractions_of_the_face_occlude_face_pixels_only(images):
    face = torch.zeros(8, 8, dtype=torch.bool)
    face[2:6, 2:6] = True
    seen = []

    def spy(x: Tensor, masks: Tensor) -> Tensor:
        seen.append(masks)
        return x * 0

    evaluator = OcclusionEvaluator(Counted(), (0.25,), fills=(spy,), controls=(), orders=("most", "least"), of="face")
    evaluator.evaluate(images, torch.rand(6, 8, 8), labels=PEOPLE, face=face)
    for masks in seen:
        assert (masks.flatten(1).sum(1) == 4).all()
        assert not (masks & ~face).any()
    assert not (seen[0] & seen[1]).any()


def test_every_mask_is_measured_once(images):
    models = {"one": Counted(), "two": Counted(dimensions=4)}
    evaluator = OcclusionEvaluator(models, (0.1, 0.5), fills=("zero", "blur"), orders=("most", "least"), batch_size=4)
    maps = {"m": torch.rand(6, 8, 8), "n": torch.rand(6, 1, 8, 8)}
    result = evaluator.evaluate(images, maps, labels=PEOPLE)
    ranked = 2 + 2 * 2 + 5  # methods, their own controls, the shared controls
    for model in models.values():
        assert model.images == 2 * 2 + 6 * (1 + 2 * 2 * 2 * ranked)  # two passes on two images probe the model
    assert len(result.to_frame()) == 6 * 2 * 2 * 2 * 2 * ranked
    keys = ["image", "method", "control", "model", "fill", "order", "fraction"]
    assert not result.to_frame().duplicated(keys).any()
    assert result.to_frame().set_index("image")["person"].to_dict() == dict(enumerate(PEOPLE))


def test_equal_maps_are_occluded_once(images):
    model = Counted()
    same = torch.rand(6, 8, 8)
    OcclusionEvaluator(model, (0.1,), controls=()).evaluate(images, {"a": same, "b": same.clone()}, labels=PEOPLE)
    assert model.images == 2 * 2 + 6 * (1 + 1)


def test_batches_do_not_matter(images):
    model, maps = Counted(), torch.rand(6, 8, 8)
    small, large = (
        OcclusionEvaluator(model, (0.1, 0.3), fills=("zero", "noisy linear"), batch_size=b).evaluate(
            images, maps, labels=PEOPLE
        )
        for b in (1, 64)
    )
    assert small.to_frame()["drop"].to_numpy() == pytest.approx(large.to_frame()["drop"].to_numpy(), abs=1e-6)


def test_a_callable_without_gradients_gives_the_same(images):
    model, maps = Counted(), torch.rand(6, 8, 8)

    def session(x: Tensor) -> Tensor:
        return torch.from_numpy(model.net(x).detach().numpy().copy())

    options = {"fractions": (0.2,), "fills": ("blur",)}
    one = OcclusionEvaluator(model, **options).evaluate(images, maps.numpy(), labels=PEOPLE).to_frame()["drop"]
    two = OcclusionEvaluator(session, **options).evaluate(images, maps, labels=PEOPLE).to_frame()["drop"]
    assert one.to_numpy() == pytest.approx(two.to_numpy(), abs=1e-6)


def test_references_are_from_other_images(images):
    """The reference of an image is not moved by occluding it, nor by its own embedding."""
    model = Counted()
    labelled = OcclusionEvaluator(model, (0.2,), controls=()).evaluate(images, torch.rand(6, 8, 8), labels=PEOPLE)
    others = [1, 0, 3, 2, 5, 4]
    given = OcclusionEvaluator(model, (0.2,), controls=()).evaluate(
        images, torch.rand(6, 8, 8, generator=torch.Generator().manual_seed(0)) * 0 + 1, model(images)[others].detach()
    )
    assert len(labelled.to_frame()) == len(given.to_frame())
    whole = OcclusionEvaluator(model, (1.0,), fills=("zero",), controls=())
    a = whole.evaluate(images, torch.ones(6, 8, 8), labels=PEOPLE).to_frame()["drop"].to_numpy()
    b = whole.evaluate(images, torch.ones(6, 8, 8), model(images)[others].detach()).to_frame()["drop"].to_numpy()
    assert a == pytest.approx(b, abs=1e-6)


def test_smoothing_ranks_the_blurred_map():
    images = torch.rand(2, 3, 16, 16)
    spikes = torch.zeros(2, 16, 16)
    spikes[:, 2, 2] = 1.0
    spikes[:, 10:13, 10:13] = 0.9
    seen = []

    def spy(x: Tensor, masks: Tensor) -> Tensor:
        seen.append(masks)
        return x

    for smooth in (0.0, 1.5):
        OcclusionEvaluator(Counted(768), (1 / 256,), fills=(spy,), controls=(), smooth=smooth).evaluate(
            images, spikes, labels=["a", "a"]
        )
    assert seen[0].nonzero()[:, 1:].tolist() == [[2, 2], [2, 2]]
    assert seen[1].nonzero()[:, 1:].tolist() == [[11, 11], [11, 11]]


def test_constant_map_is_the_random_control_within_its_interval():
    images, people = torch.rand(60, 3, 16, 16), [i // 2 for i in range(60)]
    evaluator = OcclusionEvaluator(Counted(768, 16), (0.2,), fills=("zero",), controls=("random pixels",))
    compared = evaluator.evaluate(images, torch.ones(60, 16, 16), labels=people).compare()
    assert compared["low"].item() <= 0 <= compared["high"].item()


def test_the_summary_holds_ratios_and_intervals_of_every_control(images):
    result = OcclusionEvaluator(Counted(), (0.2,)).evaluate(images, {"m": torch.rand(6, 8, 8)}, labels=PEOPLE)
    table = result.summary().set_index(["method", "control"])
    assert set(table.index) == {
        ("m", ""),
        ("m", "moved"),
        ("m", "other people"),
        *(("", c) for c in CONTROLS if c not in ("moved", "other people")),
    }
    for control in CONTROLS:
        by = table.loc[("m", control) if ("m", control) in table.index else ("", control), "drop"]
        assert table.loc[("m", ""), f"ratio: {control}"] == pytest.approx(table.loc[("m", ""), "drop"] / by)
    assert (table["low"] <= table["drop"]).all()
    assert (table["drop"] <= table["high"]).all()
    assert (table["people"] == 3).all()


def test_no_p_value_of_few_people(images):
    result = OcclusionEvaluator(Counted(), (0.2,)).evaluate(images, {"m": torch.rand(6, 8, 8)}, labels=PEOPLE)
    compared = result.compare()
    assert compared["p"].isna().all()
    assert (compared["note"] == "fewer than 10 people: no p-value").all()
    assert result.compare(min_people=2)["p"].notna().all()


def test_compare_finds_the_better_method():
    """Twelve people whose identity is under the left eye: the map of the place beats every control."""
    torch.manual_seed(1)
    people = [i // 3 for i in range(36)]
    images = torch.rand(36, 1, 16, 16)
    images[:, :, 9:13, 3:7] = torch.randn(12, 1, 4, 4).repeat_interleave(3, 0) * 3
    place = torch.zeros(36, 16, 16)
    place[:, 9:13, 3:7] = 1
    evaluator = OcclusionEvaluator(pixels, (16 / 256,), fills=("zero",), controls=("random pixels", "centre", "moved"))
    compared = evaluator.evaluate(images, {"place": place, "noise": torch.rand(36, 16, 16)}, labels=people).compare()
    best = compared[compared["method"] == "place"]
    assert (best["p_holm"] < 0.01).all()
    assert (best["low"] > 0).all()
    assert (best["effect"] > 0.9).all()
    assert (best["ratio"] > 3).all()
    noise = compared[compared["method"] == "noise"].set_index("control")
    assert noise.loc["random pixels", "p_holm"] > 0.05


def test_the_transfer_matrix_holds_explained_by_measured_models(images):
    models = {"one": Counted(), "two": Counted()}
    evaluator = OcclusionEvaluator(models, (0.2,), controls=())
    results = [evaluator.evaluate(images, {"m": torch.rand(6, 8, 8)}, labels=PEOPLE, explained=name) for name in models]
    together = OcclusionResult.concat(results)
    matrix = together.transfer_matrix("m", fraction=0.2)
    assert matrix.shape == (2, 2)
    table = results[1].to_frame()
    assert matrix.loc["two", "one"] == pytest.approx(table[table["model"] == "one"]["drop"].mean())
    with pytest.raises(ValueError, match=r"one of the methods \['m'\]"):
        together.transfer_matrix("n", fraction=0.2)
    assert "Mean drop of the cosine, 6 images of 3 people" in repr(together)


@pytest.mark.parametrize("shape", ["1x1", "unnormalised"])
def test_embeddings_of_shape_1x1_and_of_any_length_are_taken(images, shape):
    model = Counted()
    changed = (lambda x: model(x)[..., None, None]) if shape == "1x1" else (lambda x: 1e3 * model(x))
    options = {"fractions": (0.2,), "controls": ()}
    expected = (
        OcclusionEvaluator(model, **options).evaluate(images, torch.ones(6, 8, 8), labels=PEOPLE).to_frame()["drop"]
    )
    drops = (
        OcclusionEvaluator(changed, **options).evaluate(images, torch.ones(6, 8, 8), labels=PEOPLE).to_frame()["drop"]
    )
    assert drops.to_numpy() == pytest.approx(expected.to_numpy(), abs=1e-6)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda x: torch.zeros(len(x), 4), r"rows \[0, 1, 2, 3, 4, 5\] that are zero"),
        (lambda x: x.flatten()[None], "fixed batch of 1"),
        (lambda x: x.flatten(1)[:-1], r"to return embeddings \(6, D\)"),
        (lambda x: x.flatten(1) * np.nan, "got NaN or infinite values"),
    ],
)
def test_models_whose_outputs_are_no_embeddings_raise(images, model, message):
    with pytest.raises(ValueError, match=message):
        OcclusionEvaluator(model, (0.1,)).evaluate(images, torch.rand(6, 8, 8), labels=PEOPLE)


def test_wrong_images_maps_and_references_raise(images):
    model = Counted()
    evaluator, maps = OcclusionEvaluator(model, controls=()), torch.rand(6, 8, 8)
    cases = [
        ((images, torch.rand(6, 4, 4), torch.ones(6)), {}, "Place them on the images"),
        ((images, torch.rand(5, 8, 8), torch.ones(6)), {}, "Place them on the images"),
        ((images, torch.full((6, 8, 8), np.nan), torch.ones(6)), {}, "got NaN or infinite values in maps"),
        ((images, maps), {}, "Expected `references`, or `labels`"),
        ((images, {}, torch.ones(6)), {}, "maps of one method or more"),
        ((images, maps), {"labels": list("aabbcd")}, "one image only of: c, d"),
        ((images, maps), {"labels": list("aabb")}, "one label for each of the 6 images, got 4"),
        ((images, maps, torch.ones(5)), {}, "Expected references of 'model' to have shape"),
        ((images[0], maps, torch.ones(6)), {}, r"one image or more, got \(3, 8, 8\)"),
        ((images, maps, torch.ones(6)), {"face": torch.ones(4, 4, dtype=torch.bool)}, "Expected `face` to be boolean"),
        (
            (images, maps, torch.ones(6)),
            {"face": torch.zeros(8, 8, dtype=torch.bool)},
            "at least one True pixel in every image",
        ),
    ]
    for given, options, message in cases:
        with pytest.raises(ValueError, match=message):
            evaluator.evaluate(*given, **options)
    two = OcclusionEvaluator({"a": model, "b": model}, controls=())
    with pytest.raises(ValueError, match="for each of 2 models, got one tensor"):
        two.evaluate(images, maps, torch.ones(6))
    with pytest.raises(ValueError, match="for the model 'b', got none"):
        two.evaluate(images, maps, {"a": torch.ones(6)})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fractions": (0, 0.5)}, r"got \[0\]"),
        ({"fractions": ()}, "one entry or more"),
        ({"fills": ()}, "one entry or more"),
        ({"fills": ("pink",)}, "got 'pink'"),
        ({"controls": ("chance",)}, "got 'chance'"),
        ({"orders": ("best",)}, "Expected `orders`"),
        ({"of": "hair"}, "got 'hair'"),
    ],
)
def test_wrong_settings_of_the_evaluator_raise(options, message):
    with pytest.raises(ValueError, match=message):
        OcclusionEvaluator(pixels, **options)


def test_a_single_person_has_no_control_of_other_people(images):
    """Leave-one-out references exist; the control of other people does not, and that is said."""
    with pytest.warns(UserWarning, match="for the control 'other people', got fewer"):
        result = OcclusionEvaluator(Counted(), (0.2,)).evaluate(images, torch.rand(6, 8, 8), labels=["ann"] * 6)
    assert "other people" not in set(result.to_frame()["control"])
    assert result.summary()["low"].isna().all()


def test_a_map_at_the_size_of_a_layer_can_be_placed(images):
    maps = place_on_field(torch.rand(6, 1, 2, 2), (8, 8))
    OcclusionEvaluator(Counted(), (0.2,), controls=()).evaluate(images, maps, labels=PEOPLE)


def test_evaluation_leaves_images_model_and_random_numbers_alone(images):
    before, model = images.clone(), Counted()
    state = torch.random.get_rng_state()
    numbers = np.random.get_state()[1].copy()
    first = OcclusionEvaluator(model, (0.2,), fills=("noisy linear", "shuffle")).evaluate(
        images, torch.ones(6, 8, 8), labels=PEOPLE
    )
    again = OcclusionEvaluator(model, (0.2,), fills=("noisy linear", "shuffle")).evaluate(
        images, torch.ones(6, 8, 8), labels=PEOPLE
    )
    other = OcclusionEvaluator(model, (0.2,), fills=("noisy linear", "shuffle"), seed=1).evaluate(
        images, torch.ones(6, 8, 8), labels=PEOPLE
    )
    assert first.to_frame().equals(again.to_frame())
    assert not first.to_frame()["drop"].equals(other.to_frame()["drop"])
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (np.random.get_state()[1] == numbers).all()
    assert torch.equal(images, before)


@pytest.mark.parametrize("reorder", [lambda f: f.flip(0), lambda f: f[f[:, 0].argsort()], lambda f: f.roll(1, 0)])
def test_a_model_that_changes_batch_order_raises(images, reorder):
    sound = Counted()
    maps = torch.rand(6, 8, 8)
    with pytest.raises(ValueError, match="not to depend on the other images"):
        OcclusionEvaluator(lambda x: reorder(sound(x)), (0.05,)).evaluate(images, maps, labels=PEOPLE)
    alone = OcclusionEvaluator(lambda x: reorder(sound(x)), (0.05,), batch_size=1)
    right = OcclusionEvaluator(sound, (0.05,)).evaluate(images, maps, labels=PEOPLE)
    drops = alone.evaluate(images, maps, labels=PEOPLE).to_frame()["drop"]
    assert np.allclose(drops, right.to_frame()["drop"], atol=1e-6)


def test_a_model_of_constant_output_is_not_taken_for_one_that_changes_batch_order(images):
    """All faces look alike to it: the nearest clean image is any of them."""
    dull = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    nn.init.zeros_(dull[1].weight)
    with pytest.warns(ReliabilityWarning, match="equal embeddings"):
        result = OcclusionEvaluator(dull, (0.5,)).evaluate(images, torch.rand(6, 8, 8), labels=PEOPLE)
    assert np.allclose(result.to_frame()["drop"], 0, atol=1e-6)


def test_fills_of_one_name_raise():
    with pytest.raises(ValueError, match="Expected `fills` with different names"):
        OcclusionEvaluator(Counted(), fills=[lambda x: x * 0, lambda x: x * 0 + 1])


@pytest.mark.parametrize("kind", [np.array, torch.tensor, tuple])
def test_labels_of_every_kind_give_the_same_table(images, kind):
    numbers = [0, 0, 1, 1, 2, 2]
    model, maps = Counted(), torch.rand(6, 8, 8)
    evaluator = OcclusionEvaluator(model, (0.1,))
    expected = evaluator.evaluate(images, maps, labels=numbers).to_frame()
    assert evaluator.evaluate(images, maps, labels=kind(numbers)).to_frame().equals(expected)


def test_a_model_in_training_mode_raises(images):
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(256, 8)).train()
    for model in (net, lambda x: net(x)):
        with pytest.raises(ValueError, match="all model.eval"):
            OcclusionEvaluator(model, (0.1,)).evaluate(images, torch.rand(6, 8, 8), labels=PEOPLE)
    assert torch.equal(net[1].running_mean, torch.zeros(4))


@pytest.mark.parametrize("order", ["least", "insertion"])
def test_batch_order_is_watched_in_every_order(images, order):
    sound = Counted()
    with pytest.raises(ValueError, match="not to depend on the other images"):
        OcclusionEvaluator(lambda x: sound(x).flip(0), (0.05,), orders=(order,)).evaluate(
            images, torch.rand(6, 8, 8), labels=PEOPLE
        )


def test_results_of_other_images_are_not_mixed(images):
    evaluator = OcclusionEvaluator(Counted(), (0.1,), controls=("random pixels",))
    first, second = (evaluator.evaluate(x, torch.rand(6, 8, 8), labels=PEOPLE) for x in (images, images.flip(0)))
    with pytest.raises(ValueError, match="with the same numbers"):
        OcclusionResult.concat([first, second])
    twice = OcclusionResult.concat([first, first])
    assert len(twice.to_frame()) == len(first.to_frame())


def test_no_p_value_without_labels():
    images, model = torch.rand(12, 3, 8, 8), Counted()
    evaluator = OcclusionEvaluator(model, (0.3,), controls=("random pixels",))
    table = evaluator.evaluate(images, torch.rand(12, 8, 8), torch.randn(6)).compare()
    assert table["p"].isna().all()
    assert table["note"].str.startswith("no labels").all()


def test_double_maps_are_ranked_in_double(images):
    maps = 1 + 1e-9 * torch.arange(64).double().view(1, 8, 8).expand(6, 8, 8)
    seen = []

    def spy(x: Tensor, masks: Tensor) -> Tensor:
        seen.append(masks)
        return x * 0

    OcclusionEvaluator(Counted(), (0.1,), fills=(spy,), controls=()).evaluate(images, maps, labels=PEOPLE)
    assert seen[0].flatten(1)[:, -6:].all()


def test_methods_of_one_name_raise(images):
    with pytest.raises(ValueError, match="the methods in `maps` to have different names"):
        OcclusionEvaluator(Counted(), (0.1,)).evaluate(
            images, {1: torch.rand(6, 8, 8), "1": torch.rand(6, 8, 8)}, labels=PEOPLE
        )
