"""Load the networks of the demo, which were trained on synthetic faces with the evidence in one part."""

from importlib.resources import files
from io import BytesIO

import numpy as np
import torch

from captum_leam.errors import CaptumLeamError
from captum_leam.synthetic.network import EmbeddingNet
from captum_leam.synthetic.population import SyntheticPopulation

TRAINED = ("nose", "eyes", "mouth")
"""Parts that hold the evidence, one per network."""

PEOPLE, SEED = 12, 0
"""Number of people, and seed of the populations and the training."""


def load_trained(population: SyntheticPopulation) -> EmbeddingNet:
    """Return the network of a population with the weights that are part of the package.

    ``python tools/train_demo.py`` reproduces the weights with :func:`train`. :func:`swap_test` verifies on which parts a network depends.

    Args:
        population: Population of twelve people with seed 0 whose evidence is the nose, the eyes or the mouth.

    Returns:
        Network in evaluation mode.

    Raises:
        CaptumLeamError: If the package has no weights for the population.

    See Also:
        :func:`~captum_leam.synthetic.train`: Network of any other population.

    Example:
        >>> load_trained(SyntheticPopulation(12, evidence="nose")).training
        False
    """
    if not has_weights(population):
        raise CaptumLeamError(
            f"Expected 12 people of seed 0 with evidence in one of {', '.join(TRAINED)}, got {population}. Use train()."
        )
    content = files("captum_leam.synthetic").joinpath(f"trained_{population.evidence_parts[0]}.npz").read_bytes()
    net = EmbeddingNet()
    with np.load(BytesIO(content), allow_pickle=False) as arrays:
        net.load_state_dict({name: torch.from_numpy(arrays[name]) for name in arrays.files})
    return net.eval()


def has_weights(population: SyntheticPopulation, seed: int = SEED) -> bool:
    """Return whether the package has the weights of a network for a population.

    Args:
        population: Population on which the network was trained.
        seed: Seed of the training. Default: 0.

    Returns:
        True if :func:`load_trained` can return the network without training it, else False.

    Example:
        >>> has_weights(SyntheticPopulation(12, evidence="nose")), has_weights(SyntheticPopulation(3, evidence="nose"))
        (True, False)
    """
    settings = (population.n_people, population.seed, seed)
    parts = population.evidence_parts
    return settings == (PEOPLE, SEED, SEED) and len(parts) == 1 and parts[0] in TRAINED
