"""Train small embedding networks on synthetic faces, and verify on which parts their decisions depend."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from captum_leam._engine.arithmetic import at_least_float32, own_arithmetic, uniform
from captum_leam._progress import count_images
from captum_leam.objectives import unit
from captum_leam.synthetic.population import SyntheticPopulation, swap

POSITION_THRESHOLD = 0.005
"""Soft threshold of the weights of positions in each step, as a share of the norm of their channel."""

CHANNEL_THRESHOLD = 0.01
"""Soft threshold of the norms of the projection's columns in each step, as a share of their mean norm."""

STEPS_PER_SAMPLE, IMAGES_PER_SAMPLE = 25, 25
"""Number of steps with one sample of faces, and its images per person; with a fixed sample the network would learn coincidences."""


FLOAT32: Any = {"device": "cpu", "dtype": torch.float32}
"""Device and data type of the weights, independent of PyTorch's defaults."""


class EmbeddingNet(nn.Module):
    """Small convolutional network for synthetic faces, from images to embeddings.

    It maps RGB images (N, 3, 112, 112) in [0, 1] to embeddings (N, D), which are not normalised. Use :func:`train` to train it, or
    :func:`load_trained` for a trained one. Its feature maps have sides of 56, 28 and 14 px.

    Args:
        dimensions: Number of dimensions D of the embeddings. Default: 32.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> model, images = EmbeddingNet(32).eval(), torch.rand(2, 3, 112, 112)
        >>> model(images).shape
        torch.Size([2, 32])
    """

    def __init__(self, dimensions: int = 32) -> None:
        super().__init__()
        self.stem = _block(3, 16, 2)
        self.middle = _block(16, 32, 2)
        self.last = _block(32, 48, 2)
        self.positions = nn.Conv2d(48, 48, 14, groups=48, bias=False, **FLOAT32)
        self.norm = nn.BatchNorm2d(48, **FLOAT32)
        self.project = nn.Linear(48, dimensions, **FLOAT32)

    def forward(self, x: Tensor) -> Tensor:
        """Return the embeddings of images."""
        features = self.last(self.middle(self.stem(2 * x - 1)))
        embeddings: Tensor = self.project(self.norm(self.positions(features)).flatten(1))
        return embeddings


def _block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False, **FLOAT32)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs, **FLOAT32), nn.ReLU())


def train(
    population: SyntheticPopulation,
    *,
    steps: int = 500,
    batch_size: int = 48,
    seed: int = 0,
    progress: bool = True,
) -> EmbeddingNet:
    """Train a network to identify the people of a population, with a softmax loss over cosines (CosFace without margin).

    In each step, the weights of positions and the norms of the projection's columns are soft-thresholded (proximal gradient steps of a
    lasso and a group lasso). Otherwise a network for so few people would retain weights and channels that have no effect.

    Args:
        population: People to identify.
        steps: Number of optimiser steps. Default: 500.
        batch_size: Number of faces in one step. Default: 48.
        seed: Seed of the weights, the faces and their order. The random state of the process is left unchanged. Default: 0.
        progress: Whether to show a progress bar. Default: True.

    Returns:
        Network in evaluation mode.

    See Also:
        * :func:`~captum_leam.synthetic.load_trained`: Networks that are part of the package.
        * :func:`~captum_leam.synthetic.swap_test`: Test of the parts on which a network depends.

    Example:
        >>> net = train(SyntheticPopulation(2), steps=2, batch_size=4, progress=False)
        >>> net.training
        False
    """
    with own_arithmetic(), torch.inference_mode(False), torch.enable_grad(), _single_thread():
        return _train(population, steps, batch_size, seed, progress)


def _train(population: SyntheticPopulation, steps: int, batch_size: int, seed: int, progress: bool) -> EmbeddingNet:
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net, centres = EmbeddingNet(), nn.Parameter(torch.randn(population.n_people, 32, **FLOAT32))
    optimiser = torch.optim.AdamW([*net.parameters(), centres], lr=6e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 6e-3, total_steps=steps)
    net.train()
    for step in tqdm(range(steps), desc="training", disable=not progress):
        if step % STEPS_PER_SAMPLE == 0:
            faces = population.sample(IMAGES_PER_SAMPLE, seed=1_000 * (seed + 1) + step)
        rows = torch.randint(len(faces), (batch_size,), generator=generator, device="cpu")
        logits = 16 * F.normalize(net(_augment(faces.images[rows], generator))) @ F.normalize(centres).T
        loss = F.cross_entropy(logits, faces.people[rows])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        _threshold_positions(net.positions.weight)
        _threshold_channels(net.project.weight)
        count_images()
    return net.eval()


@contextmanager
def _single_thread() -> Iterator[None]:
    """Context manager that runs PyTorch on one thread, for equal sums on any machine and because the network is too small for more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@torch.no_grad()
def _threshold_positions(weight: Tensor) -> None:
    """Soft-threshold the weights of positions and normalise each channel, since BatchNorm follows."""
    scaled = weight / torch.linalg.vector_norm(weight, dim=(2, 3), keepdim=True)
    shrunk = scaled.sign() * (scaled.abs() - POSITION_THRESHOLD).clamp(min=0)
    weight.copy_(shrunk / torch.linalg.vector_norm(shrunk, dim=(2, 3), keepdim=True).clamp(min=1e-12))


@torch.no_grad()
def _threshold_channels(weight: Tensor) -> None:
    """Soft-threshold the norm of each column, which disables channels without useful positions."""
    norms = torch.linalg.vector_norm(weight, dim=0)
    weight.mul_((1 - CHANNEL_THRESHOLD * norms.mean() / norms.clamp(min=1e-12)).clamp(min=0))


def _augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return images translated by up to two pixels, each with a random gain."""
    down, right = (int(v) for v in torch.randint(-2, 3, (2,), generator=generator, device="cpu"))
    gain = 0.85 + 0.3 * uniform((len(images), 1, 1, 1), generator)
    return (images.roll((down, right), (2, 3)) * gain).clamp(0, 1)


# -- verification of the evidence ----------------------------------------------------------------------


@dataclass(frozen=True)
class SwapTest:
    """Result of :func:`swap_test`.

    Attributes:
        parts: Names of the swapped parts.
        accuracy: Share of new images whose nearest centroid is that of their person, in [0, 1].
        part_flips: Share of decisions that flip if the parts come from another person, in [0, 1]; 1 if the parts decide.
        rest_flips: Share of decisions that flip if everything else, including the nuisance, comes from another person, in [0, 1]; 0 if
            the parts decide.
        images: Number of new images.

    Example:
        >>> SwapTest(("nose",), accuracy=0.98, part_flips=1.0, rest_flips=0.02, images=48).part_flips
        1.0
    """

    parts: tuple[str, ...]
    accuracy: float
    part_flips: float
    rest_flips: float
    images: int


@torch.no_grad()
def swap_test(
    model: nn.Module,
    population: SyntheticPopulation,
    parts: Sequence[str] | None = None,
    *,
    images_per_person: int = 8,
    seed: int = 0,
) -> SwapTest:
    """Test whether the decisions of a network depend on certain parts of the face, by swapping them between people.

    A decision is the nearer of the centroids of two people, each from 8 other images. It flips if it becomes the person from whom the
    swapped parts come. All images are new to the network.

    Args:
        model: Function from images (N, 3, 112, 112) to embeddings (N, D).
        population: Population on which the network was trained.
        parts: Names of the parts to swap. Default: the parts that hold the evidence.
        images_per_person: Number of images of each person, each paired with one of another person. Default: 8.
        seed: Seed of the images, which differ from those of the training. Default: 0.

    Returns:
        Accuracy and shares of flipped decisions.

    Raises:
        CaptumLeamError: If a part is unknown.

    See Also:
        :func:`~captum_leam.synthetic.train`: Network with the evidence in known parts.

    Example:
        >>> swap_test(EmbeddingNet().eval(), SyntheticPopulation(3, evidence="nose"), images_per_person=2).images
        6
    """
    names = population.evidence_parts if parts is None else tuple(parts)
    people = centroids(model, population, seed=seed)
    faces = population.sample(images_per_person, seed=20_000 + seed)
    step = torch.arange(len(faces), device="cpu") % (population.n_people - 1) + 1
    others = population.sample((faces.people + step) % population.n_people, seed=30_000 + seed)
    part_swap = swap(faces, others, names)
    rest_swap = swap(others, faces, names)  # the image of the other person with the parts of this one

    def flips(images: Tensor) -> float:
        embeddings = unit(at_least_float32(model(images)), "embeddings")
        own, other = ((embeddings * people[rows]).sum(1) for rows in (faces.people, others.people))
        return (other > own).double().mean().item()

    embeddings = unit(at_least_float32(model(faces.images)), "embeddings")
    with own_arithmetic():
        nearest = (embeddings @ people.T).argmax(1)
    accuracy = (nearest == faces.people).double().mean().item()
    return SwapTest(names, accuracy, flips(part_swap.images), flips(rest_swap.images), len(faces))


@torch.no_grad()
def centroids(
    model: nn.Module, population: SyntheticPopulation, *, images_per_person: int = 8, seed: int = 0
) -> Tensor:
    """Return the unit centroid of each person from new images, as references and contrasts for faces of the population.

    Args:
        model: Function from images (N, 3, 112, 112) to embeddings (N, D).
        population: Population of P people.
        images_per_person: Number of images of each person. Default: 8.
        seed: Seed of the images, which differ from those of the training. Default: 0.

    Returns:
        Unit centroids of shape (P, D).

    See Also:
        :func:`~captum_leam.leave_one_out_centroids`: References from the explained images.

    Example:
        >>> centroids(EmbeddingNet().eval(), SyntheticPopulation(3), images_per_person=1).shape
        torch.Size([3, 32])
    """
    gallery = population.sample(images_per_person, seed=40_000 + seed)
    embeddings = unit(at_least_float32(model(gallery.images)), "embeddings")
    return unit(embeddings.view(population.n_people, images_per_person, -1).mean(1), "centroids")
