"""Sanity checks: what is true passes, and each impostor of an explanation is caught."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from captum_leam import LEAM
from captum_leam.controls import CONTROLS, ControlContext, central_ellipse
from captum_leam.faithfulness import sanity_checks
from captum_leam.maps import place_on_field
from captum_leam.models import randomised
from captum_leam.synthetic import EmbeddingNet, SyntheticPopulation, train
from tests.helpers.networks import path_of_four


@pytest.fixture(scope="module")
def trained() -> tuple[EmbeddingNet, Tensor, list[int]]:
    """A network trained on all parts of ten people's faces, for a few seconds, and new faces of them."""
    population = SyntheticPopulation(10, seed=0)
    faces = population.sample(3, seed=77)
    return train(population, steps=100, batch_size=24, progress=False), faces.images, faces.people.tolist()


def leam(model: nn.Module, images: Tensor, references: Tensor) -> Tensor:
    return place_on_field(LEAM(model, model.last).attribute(images, reference=references), (112, 112))


def edge_map(model: nn.Module, images: Tensor, references: Tensor) -> Tensor:
    return CONTROLS["edges"](ControlContext(images, central_ellipse((112, 112)).expand(len(images), 112, 112)))


def test_leam_on_a_trained_network_passes(trained):
    report = sanity_checks(*trained, leam)
    # ten people with identity everywhere: the mean map of others may do as well, the rest may not fail
    assert set(report.failed) <= {"evidence"}
    table = report.to_frame().set_index("name")
    assert table.loc["seed", "value"] == pytest.approx(1)
    assert report.cascade["overlap"].iloc[0] == 1
    assert report.cascade["overlap"].iloc[-1] == pytest.approx(table.loc["weights", "value"])
    assert len(report.plot().axes) == 1
    assert "passed  weights" in repr(report)


def test_an_edge_map_is_caught(trained):
    failed = sanity_checks(*trained, edge_map).failed
    assert {"weights", "reference", "edges"} <= set(failed)


def test_another_persons_evidence_is_caught(trained):
    def of_somebody_else(model: nn.Module, images: Tensor, references: Tensor) -> Tensor:
        return leam(model, images.roll(3, 0), references.roll(3, 0))

    report = sanity_checks(*trained, of_somebody_else)
    assert "evidence" in report.failed
    assert report.to_frame().set_index("name").loc["evidence", "value"] < 0


def test_a_map_that_does_not_know_whom_to_match_is_caught(trained):
    def own(model: nn.Module, images: Tensor, references: Tensor) -> Tensor:
        return place_on_field(LEAM(model, model.last).attribute(images), (112, 112))

    assert "reference" in sanity_checks(*trained, own, stages=(1.0,)).failed


def test_a_map_of_chance_is_caught(trained):
    assert "seed" in sanity_checks(*trained, lambda m, x, r: torch.rand(len(x), 112, 112), stages=(1.0,)).failed


def test_an_untrained_network_is_caught(trained):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        untrained = EmbeddingNet().eval()
    assert "training" in sanity_checks(untrained, *trained[1:], leam, stages=(1.0,)).failed


def test_the_model_is_not_touched(trained):
    model, images, people = trained
    before, rng = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    sanity_checks(model, images, people, leam, stages=(0.5, 1.0))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), rng)
    assert not model.training
    assert not any(m.training for m in model.modules())


def test_layers_are_randomised_from_the_head_down(trained):
    model, images, _ = trained

    def changed(share: float) -> list[bool]:
        pairs = zip(model.named_parameters(), randomised(model, images, share).parameters(), strict=True)
        return [not torch.equal(a, b) for (name, a), b in pairs if "weight" in name and a.ndim > 1]

    counts = [changed(share) for share in (0.1, 0.5, 1.0)]
    for flags in counts:
        assert flags == sorted(flags)  # once a layer is new, all behind it are
    assert [sum(flags) for flags in counts] == sorted({sum(flags) for flags in counts})
    assert all(counts[-1])
    twin = randomised(model, images)
    spread = twin(images).std(0)
    assert spread.isfinite().all()
    assert (spread > 1e-4).any()  # its activations have not vanished


def test_parameters_outside_of_layers_are_shuffled():
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.arange(50.0))

        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :50] * self.scale

    model = Scaled()
    new = randomised(model, torch.rand(2, 3, 8, 8)).scale
    assert not torch.equal(new, model.scale)
    assert torch.equal(new.sort().values, model.scale)


def test_sanity_checks_of_one_person_or_unknown_limits_raise(trained):
    model, images, people = trained
    with pytest.raises(ValueError, match="one person only"):
        sanity_checks(model, images[:3], [1, 1, 1])
    with pytest.raises(ValueError, match="got .'edge'."):
        sanity_checks(model, images, people, limits={"edge": 0.1})
    with pytest.raises(ValueError, match="one image only of"):
        sanity_checks(model, images[2:5], people[2:5])
    with pytest.raises(ValueError, match="parameters to randomise"):
        randomised(nn.Flatten(), images)
    with pytest.raises(ValueError, match="got 0"):
        randomised(model, images, 0)


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.parametrize("network", ["ms1m", "casia"])
def test_real_networks_pass_the_sanity_checks(network, real_dir, real_models):
    from captum_leam.faces.crops import read_crop

    paths = [p for person in sorted((real_dir / "faces").iterdir())[:12] for p in sorted(person.glob("*.png"))[:2]]
    images = torch.stack([read_crop(p) for p in paths])
    people = [p.parent.name for p in paths]
    report = sanity_checks(real_models.RECOGNISERS[network](), images, people, path_of_four, stages=(1.0,))
    assert report.passed, report


def test_chance_is_caught_whatever_the_global_seed(trained):
    """The state of the user's random numbers must not decide, nor be used up."""
    model, images, people = trained
    with torch.random.fork_rng():
        for ambient in (1, 2):
            torch.manual_seed(ambient)
            before = torch.get_rng_state()
            report = sanity_checks(model, images, people, lambda m, x, r: torch.rand(len(x), 112, 112), stages=(1.0,))
            assert "seed" in report.failed
            assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.filterwarnings("ignore:Expected different images")
def test_training_is_what_people_are_told_apart_better_by_with_ties_as_half():
    """Two people whose images are all alike: a chance of ½ between them. A third differs from both."""
    images = torch.tensor([[1.0, 0]] * 4 + [[0, 1.0]] * 2)[:, :, None, None].expand(6, 2, 8, 8).contiguous()
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2)).eval()
    with torch.no_grad():
        model[2].weight.copy_(torch.eye(2))
        model[2].bias.zero_()

    def chances(network):
        unit = nn.functional.normalize(network(images).detach().double())
        table = (unit @ unit.T).round(decimals=6)
        own = {i: [j for j in range(6) if j != i and j // 2 == i // 2] for i in range(6)}
        others = {i: [j for j in range(6) if j // 2 != i // 2] for i in range(6)}
        return [
            np.mean(
                [(table[i, j] > table[i, k]) + 0.5 * (table[i, j] == table[i, k]) for j in own[i] for k in others[i]]
            )
            for i in range(6)
        ]

    assert chances(model) == [0.75] * 4 + [1] * 2
    report = sanity_checks(model, images, list("aabbcc"), lambda m, x, r: x.mean(1) + 1, stages=(1.0,))
    expected = np.mean(chances(model)) - np.mean(chances(randomised(model, images)))
    assert report.to_frame().set_index("name").loc["training", "value"] == pytest.approx(expected)


def test_one_image_is_never_left_over_for_the_statistics():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.BatchNorm1d(4)).eval()
    assert randomised(model, torch.rand(65, 3, 2, 2))[2].running_var.isfinite().all()


def test_layers_before_the_new_ones_stay_as_they_are(trained):
    model, images, _ = trained
    half = randomised(model, images, 0.3)
    assert torch.equal(half.stem(2 * images - 1), model.stem(2 * images - 1))


def test_stages_that_are_not_rising_shares_raise(trained):
    for stages in ((), (1.0, 0.25), (0.25,), (0.0, 1.0)):
        with pytest.raises(ValueError, match="rising shares of the layers"):
            sanity_checks(*trained, stages=stages)


def test_a_map_without_positive_values_fails_weights_and_reference_and_passes_seed(trained):
    def nothing(model: nn.Module, images: Tensor, references: Tensor) -> Tensor:
        return -torch.ones(len(images), 112, 112)

    failed = sanity_checks(*trained, nothing, stages=(1.0,)).failed
    assert {"weights", "reference"} <= set(failed)
    assert "seed" not in failed
