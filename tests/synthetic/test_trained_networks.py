"""Networks that come with the package: they decide by the planted part, and they are those that training makes."""

import importlib.util
import os
from pathlib import Path

import pytest
import torch

from captum_leam.errors import CaptumLeamError
from captum_leam.synthetic import EmbeddingNet, SyntheticPopulation, has_weights, load_trained, swap_test
from captum_leam.synthetic.trained_networks import PEOPLE, SEED, TRAINED

ROOT = Path(__file__).resolve().parents[2]
DEEP = os.environ.get("HYPOTHESIS_PROFILE") == "deep"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("train_demo", ROOT / "tools" / "train_demo.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("part", TRAINED)
def test_each_decides_by_its_part_alone(part):
    population = SyntheticPopulation(PEOPLE, part, SEED)
    net = load_trained(population)
    test = swap_test(net, population)
    assert not net.training
    assert test.accuracy > 0.95
    assert test.part_flips > 0.95
    assert test.rest_flips < 0.05


def test_the_network_of_another_part_fails_the_swap_test():
    test = swap_test(
        load_trained(SyntheticPopulation(PEOPLE, "eyes", SEED)), SyntheticPopulation(PEOPLE, "mouth", SEED)
    )
    assert test.part_flips < 0.8


@pytest.mark.parametrize(
    "population", [SyntheticPopulation(11, "nose"), SyntheticPopulation(12, "hair"), SyntheticPopulation(12, "nose", 1)]
)
def test_other_populations_have_none(population):
    assert not has_weights(population)
    with pytest.raises(CaptumLeamError, match=r"Expected 12 people of seed 0 .* Use train\(\)"):
        load_trained(population)


def test_weights_that_training_does_not_make_are_noticed(script, capsys):
    net = EmbeddingNet().eval()
    assert script.differs("nose", net, script.shares("nose", net))
    same = load_trained(SyntheticPopulation(PEOPLE, "nose", SEED))
    assert not script.differs("nose", same, script.shares("nose", same))
    assert "largest difference of weights 0" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif(not DEEP, reason="trains for a minute each; make demo-weights and make test-deep do it")
@pytest.mark.parametrize("part", TRAINED)
def test_training_makes_the_weights_of_the_package(script, part):
    net = script.network(script.weights_of(part))
    assert not script.differs(part, net, script.shares(part, net))
    assert torch.isfinite(torch.cat([p.flatten() for p in net.parameters()])).all()
