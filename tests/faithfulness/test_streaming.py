"""Accumulators: any split of the images into batches, merged in any order, gives the table of one call."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_leam.controls import CONTROLS, ControlContext, PersonMaps, central_ellipse
from captum_leam.errors import CaptumLeamError
from captum_leam.faithfulness import OcclusionEvaluator
from captum_leam.maps import rank_pixels, top_fraction

PEOPLE = list("abacbcabc")
COUNT = len(PEOPLE)


def measure(images):
    """Embed images exactly: sums of a few pixels in float64, whatever the size of the batch."""
    flat = images.double().flatten(1)
    return torch.stack([flat[:, start::7].mul(1024).round().sum(1) for start in range(5)], 1) + 1


def scene_of(seed, px=8):
    generator = torch.Generator().manual_seed(seed)
    images, maps = torch.rand(COUNT, 3, px, px, generator=generator), torch.rand(COUNT, px, px, generator=generator)
    maps[1::2] = (3 * maps[1::2]).round() / 3  # ties
    return images, maps, torch.rand(COUNT, 5, generator=generator)


@st.composite
def splits(draw):
    """Draw the first images of consecutive parts, and the order in which these are merged."""
    starts = sorted({0, *draw(st.lists(st.integers(1, COUNT - 1), max_size=4))})
    return starts, draw(st.permutations(range(len(starts))))


@given(splits(), st.sampled_from(["crop", "face"]), st.integers(0, 3), st.sampled_from([8, 9]))
@settings(max_examples=25, deadline=None)
def test_any_split_and_any_order_of_merges_give_the_table_of_one_call(split, of, seed, px):
    images, maps, references = scene_of(seed, px)
    population = PersonMaps()
    population.update(maps, PEOPLE)

    def evaluator():
        orders = ("most", "insertion") if seed % 2 else ("most", "least")
        return OcclusionEvaluator(measure, (0.1, 0.3), fills=("zero", "mean"), of=of, orders=orders, seed=seed)

    expected = evaluator().evaluate(images, maps, references, PEOPLE).to_frame()
    starts, order = split
    parts = []
    for start, stop in zip(starts, [*starts[1:], COUNT], strict=True):
        rows = slice(start, stop)
        part = evaluator()
        given_ = (images[rows], maps[rows], references[rows], PEOPLE[rows])
        part.update(*given_, start=start, population={"map": population})
        parts.append(part)
    merged = evaluator()
    for number in order:
        merged.merge(parts[number])
    pd.testing.assert_frame_equal(merged.compute().to_frame(), expected, rtol=0, atol=1e-12)


def test_updates_add_up_to_the_table_of_one_call():
    images, maps, references = scene_of(0)
    evaluator = OcclusionEvaluator(measure, (0.1,), controls=("random pixels", "moved"))
    expected = evaluator.evaluate(images, maps, references, PEOPLE).to_frame()
    for rows in (slice(0, 4), slice(4, 5), slice(5, None)):
        evaluator.update(images[rows], maps[rows], references[rows], PEOPLE[rows])
    pd.testing.assert_frame_equal(evaluator.compute().to_frame(), expected)
    evaluator.evaluate(images[:3], maps[:3], references[:3])  # leaves the state alone
    pd.testing.assert_frame_equal(evaluator.compute().to_frame(), expected)
    evaluator.reset()
    with pytest.raises(CaptumLeamError, match="got none"):
        evaluator.compute()


def test_parts_that_are_no_split_raise():
    images, maps, references = scene_of(0)
    evaluator = OcclusionEvaluator(measure, (0.1,), controls=("other people",))
    for rows in (slice(0, 4), slice(4, None)):
        evaluator.update(images[rows], maps[rows], references[rows], PEOPLE[rows])
    with pytest.raises(CaptumLeamError, match="Pass `population`"):
        evaluator.compute()
    without = OcclusionEvaluator(measure, (0.1,), controls=())
    for rows in (slice(0, 4), slice(4, None)):
        without.update(images[rows], maps[rows], labels=list("aabb") if rows.start == 0 else list("aaccc"))
    with pytest.raises(CaptumLeamError, match="all images of a person in one part"):
        without.compute()
    twice = OcclusionEvaluator(measure, (0.1,), controls=())
    for _ in range(2):
        twice.update(images, maps, references, start=0)
    with pytest.raises(CaptumLeamError, match="overlap"):
        twice.compute()
    with pytest.raises(CaptumLeamError, match="same settings"):
        twice.merge(without.__class__(measure, (0.2,)))


@given(splits(), st.integers(0, 2), st.sampled_from([8, 9]))
@settings(max_examples=20, deadline=None)
def test_what_is_drawn_for_an_image_depends_on_its_number_alone(split, seed, px):
    images, maps, _ = scene_of(seed, px)
    face = central_ellipse((px, px)).expand(COUNT, px, px)
    for name, control in CONTROLS.items():
        population = PersonMaps()
        population.update(maps, PEOPLE)
        whole = control(ControlContext(images, face, PEOPLE, maps, seed=seed))
        starts, order = split
        for number in order:
            rows = slice(starts[number], [*starts[1:], COUNT][number])
            scene = ControlContext(images[rows], face[rows], PEOPLE[rows], maps[rows], seed, rows.start, population)
            assert torch.allclose(control(scene), whole[rows], rtol=0, atol=1e-6), name  # blurs round by the batch
    for rows in (slice(0, 5), slice(5, None)):
        assert torch.equal(rank_pixels(maps[rows], seed=seed, start=rows.start), rank_pixels(maps, seed=seed)[rows])
        top = top_fraction(maps[rows], 0.2, seed=seed, start=rows.start)
        assert torch.equal(top, top_fraction(maps, 0.2, seed=seed)[rows])


def test_merged_sums_of_people_are_those_of_one_update():
    _, maps, _ = scene_of(1)
    whole, first, rest = PersonMaps(), PersonMaps(), PersonMaps()
    whole.update(maps, PEOPLE)
    first.update(maps[:4], PEOPLE[:4])
    rest.update(maps[4:], PEOPLE[4:])
    rest.merge(first)
    assert np.allclose(rest.of_others(PEOPLE), whole.of_others(PEOPLE), atol=1e-15)


def test_a_fill_may_return_anything_outside_the_mask():
    """Only the masked pixels of a fill count, also where the others are infinite."""
    images, maps, references = scene_of(2)
    is_top = top_fraction(maps, 0.1)

    def wild(x):
        return torch.where(is_top[:, None], torch.zeros_like(x), torch.full_like(x, torch.inf))

    def drops(fill):
        evaluator = OcclusionEvaluator(measure, (0.1,), fills=(fill,), controls=())
        return evaluator.evaluate(images, maps, references).to_frame()["drop"]

    assert drops(wild).tolist() == drops("zero").tolist()


def test_a_fill_sees_all_images_of_a_call_whatever_the_batch_size():
    """A fill may take pixels from other images, or draw: batches of the passes are no matter of it."""
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 8)).eval()
    faces, maps, references = torch.rand(7, 3, 8, 8), torch.rand(7, 8, 8), torch.rand(7, 8)
    tables = [
        OcclusionEvaluator(model, (0.1,), fills=(lambda images: images.roll(1, 0),), controls=(), batch_size=size)
        .evaluate(faces, maps, references)
        .to_frame()
        for size in (7, 3)
    ]
    assert tables[0]["changed"].tolist() == tables[1]["changed"].tolist()
    np.testing.assert_allclose(tables[0]["drop"], tables[1]["drop"], atol=1e-6)
    assert (tables[1]["changed"] > 0).all()


def test_a_population_without_a_method_is_rejected():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 8)).eval()
    evaluator = OcclusionEvaluator(model, (0.1,))
    with pytest.raises(
        CaptumLeamError, match=r"Expected `population` to have maps of every method, \['map'\], got only \[\]"
    ):
        evaluator.update(torch.rand(2, 3, 8, 8), torch.rand(2, 8, 8), torch.rand(2, 8), ["a", "b"], population={})


def test_an_evaluator_merges_only_with_another_evaluator():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 8)).eval()
    with pytest.raises(TypeError, match="Expected an OcclusionEvaluator, got a int"):
        OcclusionEvaluator(model).merge(3)
