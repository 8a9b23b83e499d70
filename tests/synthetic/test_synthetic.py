"""Synthetic faces: exact labels, identity where it was planted and nowhere else, and LEAM finding it."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from captum_leam import explain_faces
from captum_leam.faithfulness import mass_accuracy, pointing_game, rank_accuracy, roc_auc
from captum_leam.synthetic import (
    PARTS,
    REGIONS,
    EmbeddingNet,
    SyntheticPopulation,
    centroids,
    render,
    swap,
    swap_test,
    train,
)

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "planted_evidence.py"
# one part, three fifths of the steps, and half as many faces: a ninth of the time; make test-deep trains all as the benchmark does
DEEP = os.environ.get("HYPOTHESIS_PROFILE") == "deep"
PLANTED = ("nose", "eyes", "mouth") if DEEP else ("eyes",)
TRAINING = {} if DEEP else {"steps": 300, "batch_size": 24}


# -- drawing -------------------------------------------------------------------------------------------


def test_samples_hold_images_in_0_to_1_and_labels_of_every_region():
    faces = SyntheticPopulation(6).sample(10, seed=1)
    assert faces.images.shape == (60, 3, 112, 112)
    assert faces.images.min() >= 0
    assert faces.images.max() <= 1
    assert faces.labels.dtype == torch.int64
    assert faces.scheme.names == REGIONS
    areas = faces.labels.flatten().bincount(minlength=len(REGIONS)) / faces.labels.numel()
    assert 0.2 < areas[0] < 0.6
    assert 0.02 < faces.mask(["nose"]).double().mean() < 0.06
    assert 0.02 < faces.mask(["eyes"]).double().mean() < 0.06
    assert 0.005 < areas[REGIONS.index("occluder")] < 0.03


@pytest.mark.parametrize("part", [p for p in PARTS if p not in ("hair", "face")])
def test_labels_are_exact(part):
    """New numbers for a part change pixels only where the part was or is, and at its soft edge (3 px at a brow's slanted end)."""
    drawn, other = SyntheticPopulation(8, seed=2).sample(2, seed=3), SyntheticPopulation(8, seed=9).sample(2, seed=4)
    nuisance = drawn.nuisance.clone()
    nuisance[:, 14] = 1  # no occluder
    faces = render(drawn.parts, nuisance, drawn.people)
    changed = swap(faces, other, [part])
    where = faces.mask([part]) | changed.mask([part])
    near = torch.nn.functional.max_pool2d(where[:, None].float(), 7, 1, 3)[:, 0] > 0
    moved = (faces.images - changed.images).abs().amax(1) > 0.02
    assert moved.any()
    assert not (moved & ~near).any()
    assert torch.equal(faces.labels[~where], changed.labels[~where])


def test_parts_stay_in_the_windows_they_are_painted_in():
    """Extreme numbers, so that nothing is cut off at the edge of a window."""
    for part in ("brows", "eyes", "nose", "mouth"):
        for value in (0.0, 1.0):
            parts = {name: torch.full((4, k), 0.5) for name, k in PARTS.items()}
            parts[part] = torch.full((4, PARTS[part]), value)
            nuisance = torch.full((4, 16), 0.5)
            nuisance[:, :2] = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
            mask = render(parts, nuisance, torch.zeros(4, dtype=torch.long)).mask([part])
            from captum_leam.synthetic.drawing import PAINTERS

            _, rows, columns = PAINTERS[part]
            inner = mask[:, rows, columns]
            assert inner.sum() == mask.sum()
            assert not inner[:, [0, -1]].any()
            assert not inner[:, :, [0, -1]].any()


def test_seeds_repeat_samples_and_training_and_leave_global_random_numbers():
    state = torch.random.get_rng_state()
    one, two = (SyntheticPopulation(3, evidence="nose", seed=1).sample(2, seed=5) for _ in range(2))
    assert torch.equal(one.images, two.images)
    assert not torch.equal(one.images, SyntheticPopulation(3, evidence="nose", seed=2).sample(2, seed=5).images)
    assert not torch.equal(one.images, SyntheticPopulation(3, evidence="nose", seed=1).sample(2, seed=6).images)
    nets = [train(SyntheticPopulation(3), steps=3, batch_size=4, seed=7, progress=False) for _ in range(2)]
    assert all(
        torch.equal(a, b) for a, b in zip(nets[0].state_dict().values(), nets[1].state_dict().values(), strict=True)
    )
    assert torch.equal(torch.random.get_rng_state(), state)


# -- identity ------------------------------------------------------------------------------------------


def test_only_the_planted_parts_belong_to_the_person():
    faces = SyntheticPopulation(4, evidence=("eyes", "mouth")).sample(3, seed=1)
    for part, numbers in faces.parts.items():
        same = bool((numbers[0] == numbers[1]).all())
        assert same is (part in ("eyes", "mouth"))
    assert SyntheticPopulation(4).evidence_parts == tuple(PARTS)
    everything = SyntheticPopulation(4).sample(2)
    assert all(torch.equal(n[0], n[1]) for n in everything.parts.values())
    assert not torch.equal(everything.images[0], everything.images[1])  # nuisance


def test_identities_of_people_are_apart():
    identity = SyntheticPopulation(12, seed=3).identity["nose"]
    assert torch.pdist(identity).min() > 0.4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SyntheticPopulation(1), "n_people to be 2 or more, got 1"),
        (lambda: SyntheticPopulation(3, evidence="ears"), r"parts to be among .* got \['ears'\]"),
        (lambda: SyntheticPopulation(3, evidence=()), "parts to be among"),
        (lambda: SyntheticPopulation(3).sample([3]), "numbers from 0 to 2"),
        (lambda: SyntheticPopulation(3).sample([]), "people to be a positive number"),
        (lambda: SyntheticPopulation(3).sample(0), "people to be a positive number"),
        (
            lambda: swap(SyntheticPopulation(3).sample(1), SyntheticPopulation(3).sample(2), ["nose"]),
            "Expected `others` to have as many faces as `faces`, 3, got 6",
        ),
        (
            lambda: swap(SyntheticPopulation(3).sample(1), SyntheticPopulation(3).sample(1), ["chin"]),
            "parts to be among",
        ),
    ],
)
def test_unknown_parts_and_wrong_counts_raise(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_swap_exchanges_the_named_parts_only():
    a, b = SyntheticPopulation(2).sample([0], seed=1), SyntheticPopulation(2).sample([1], seed=2)
    mixed = swap(a, b, ["nose"])
    assert torch.equal(mixed.parts["nose"], b.parts["nose"])
    assert all(torch.equal(mixed.parts[p], a.parts[p]) for p in PARTS if p != "nose")
    assert torch.equal(mixed.nuisance, a.nuisance)
    assert torch.equal(swap(a, b, list(PARTS)).parts["hair"], b.parts["hair"])


def test_swap_test_catches_a_network_that_looks_elsewhere():
    """An embedding of the mouth's colours: decisions follow the mouth, not the nose that was planted."""

    class Mouth(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :, 90:95, 50:62].mean((2, 3)) - 0.5

    population = SyntheticPopulation(6, evidence="nose")
    test = swap_test(Mouth(), population)
    assert test.part_flips < 0.6
    assert test.rest_flips > 0.2


# -- planted evidence ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("planted_evidence", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.parametrize("part", PLANTED)
def test_leam_finds_planted_evidence(script, part):
    population = SyntheticPopulation(12, evidence=part, seed=0)
    model = train(population, seed=0, progress=False, **TRAINING)
    test = swap_test(model, population)
    assert test.part_flips >= 0.95
    assert test.rest_flips <= 0.05
    faces = population.sample(3, seed=50_000)
    rows = script.rows(model, "trained", population, faces) + script.rows(
        EmbeddingNet().eval(), "untrained", population, faces
    )
    reached = {
        (r["network"], r["layer"], r["map"]): (r["mass"] >= 0.8, r["top 1 %"] >= 0.8, r["lift"] >= 3) for r in rows
    }
    assert all(reached["trained", "last", "path + contrast"])
    assert not any(all(passed) for (network, _, _), passed in reached.items() if network == "untrained")
    # scores against the known truth rank an oracle above LEAM above chance
    truth = faces.mask([part])
    leam = explain_faces(model, faces.images, reference=centroids(model, population)[faces.people])
    for metric in (pointing_game, mass_accuracy, rank_accuracy, roc_auc):
        oracle, own, random = (metric(m, truth).mean() for m in (truth.float(), leam, torch.rand(leam.shape)))
        assert oracle >= own > random
        assert oracle == 1


def test_benchmark_prints_help(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [SCRIPT.name, "--help"])
    with pytest.raises(SystemExit) as stopped:
        script.main()
    assert stopped.value.code == 0
    assert "--people" in capsys.readouterr().out
