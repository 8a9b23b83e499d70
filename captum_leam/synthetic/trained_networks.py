"""Networks trained on synthetic faces that come with the package: those of the demo, each with its evidence in one part."""

from importlib.resources import files
from io import BytesIO

import numpy as np
import torch

from captum_leam.errors import CaptumLeamError
from captum_leam.synthetic.network import EmbeddingNet
from captum_leam.synthetic.population import SyntheticPopulation

TRAINED = ("nose", "eyes", "mouth")
"""Parts that hold the identity of the people of one network each."""

PEOPLE, SEED = 12, 0
"""Population and seed that the networks were trained with."""


def load_trained(population: SyntheticPopulation) -> EmbeddingNet:
    """Return the network that :func:`train` made for a population, from the weights that come with the package.

    ``python tools/train_demo.py`` makes the weights anew. What a network decides by is not taken on trust: :func:`swap_test` proves it.

    Args:
        population: Twelve people with seed 0 whose evidence is the nose, the eyes or the mouth.

    Returns:
        The network in evaluation mode.

    Raises:
        CaptumLeamError: For any other population.

    Example:
        >>> load_trained(SyntheticPopulation(12, evidence="nose")).training
        False
    """
    if not has_weights(population):
        raise CaptumLeamError(
            f"Expected 12 people of seed 0 with evidence in one of {', '.join(TRAINED)}, got {population}. Use train()."
        )
    content = files("captum_leam.synthetic").joinpath(f"trained_{population.planted[0]}.npz").read_bytes()
    net = EmbeddingNet()
    with np.load(BytesIO(content), allow_pickle=False) as arrays:
        net.load_state_dict({name: torch.from_numpy(arrays[name]) for name in arrays.files})
    return net.eval()


def has_weights(population: SyntheticPopulation, seed: int = SEED) -> bool:
    """Return whether the package has the network of a population, trained with a seed.

    Example:
        >>> has_weights(SyntheticPopulation(12, evidence="nose")), has_weights(SyntheticPopulation(3, evidence="nose"))
        (True, False)
    """
    who = (population.n_people, population.seed, seed)
    return who == (PEOPLE, SEED, SEED) and len(population.planted) == 1 and population.planted[0] in TRAINED
