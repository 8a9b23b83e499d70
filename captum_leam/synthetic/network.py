"""A small embedding network that trains on synthetic faces in under a minute, and the proof of what it looks at."""

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

SPARSITY = 0.005
"""How much smaller, in every step, each position's weight becomes, as a share of its channel's length."""

DECAY = 0.01
"""How much shorter, in every step, each channel's column of the projection becomes, as a share of the mean length."""

ROUND, FRESH = 25, 25
"""Every so many steps so many new faces of every person: from a fixed set the network would learn chance coincidences."""


FLOAT32: Any = {"device": "cpu", "dtype": torch.float32}
"""Where and in which precision weights are made."""


class EmbeddingNet(nn.Module):
    """Convolutions of 56, 28 and 14 px, then one weight per channel and position, then an embedding.

    RGB in [0, 1], (N, 3, 112, 112) in, un-normalised embeddings (N, D) out. Weights are float32 on the CPU, as the faces of a population
    are, whatever PyTorch's defaults.

    Example:
        >>> EmbeddingNet(32).eval()(torch.rand(2, 3, 112, 112)).shape
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
        """Embeddings of images."""
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
    """Train a network to tell the people of a population apart, by a softmax over cosines (CosFace's without margin).

    In every step the weights that choose positions are soft-thresholded, and so are the lengths of the projection's columns
    (proximal gradients of a lasso and a group lasso): a network with so few people to tell apart would otherwise keep weights,
    and whole channels, wherever they do no harm.

    Args:
        population: whom to tell apart.
        steps: of the optimiser.
        batch_size: faces in one step.
        seed: of the weights, the faces and their order. The global random numbers are left alone.
        progress: show a progress bar.

    Returns:
        The network in evaluation mode.

    Example:
        >>> net = train(SyntheticPopulation(2), steps=2, batch_size=4, progress=False)
        >>> net.training
        False
    """
    with own_arithmetic(), torch.inference_mode(False), torch.enable_grad(), _one_thread():
        return _trained(population, steps, batch_size, seed, progress)


def _trained(population: SyntheticPopulation, steps: int, batch_size: int, seed: int, progress: bool) -> EmbeddingNet:
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net, centres = EmbeddingNet(), nn.Parameter(torch.randn(population.n_people, 32, **FLOAT32))
    optimiser = torch.optim.AdamW([*net.parameters(), centres], lr=6e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 6e-3, total_steps=steps)
    net.train()
    for step in tqdm(range(steps), desc="training", disable=not progress):
        if step % ROUND == 0:
            faces = population.sample(FRESH, seed=1_000 * (seed + 1) + step)
        chosen = torch.randint(len(faces), (batch_size,), generator=generator, device="cpu")
        logits = 16 * F.normalize(net(_jitter(faces.images[chosen], generator))) @ F.normalize(centres).T
        loss = F.cross_entropy(logits, faces.people[chosen])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        _choose_positions(net.positions.weight)
        _choose_channels(net.project.weight)
        count_images()
    return net.eval()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Run on one thread: the same sums on any machine, and no waiting between threads on so small a network."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@torch.no_grad()
def _choose_positions(weight: Tensor) -> None:
    """Soft-threshold the positions of every channel, and keep its length (BatchNorm follows): few positions remain."""
    scaled = weight / torch.linalg.vector_norm(weight, dim=(2, 3), keepdim=True)
    shrunk = scaled.sign() * (scaled.abs() - SPARSITY).clamp(min=0)
    weight.copy_(shrunk / torch.linalg.vector_norm(shrunk, dim=(2, 3), keepdim=True).clamp(min=1e-12))


@torch.no_grad()
def _choose_channels(weight: Tensor) -> None:
    """Soft-threshold the length of every column: channels that settled on a place of no use go silent."""
    lengths = torch.linalg.vector_norm(weight, dim=0)
    weight.mul_((1 - DECAY * lengths.mean() / lengths.clamp(min=1e-12)).clamp(min=0))


def _jitter(images: Tensor, generator: torch.Generator) -> Tensor:
    """Every image moved by up to two pixels, and brightened or darkened."""
    down, right = (int(v) for v in torch.randint(-2, 3, (2,), generator=generator, device="cpu"))
    gain = 0.85 + 0.3 * uniform((len(images), 1, 1, 1), generator)
    return (images.roll((down, right), (2, 3)) * gain).clamp(0, 1)


# -- what the network looks at, proved ------------------------------------------------------------------


@dataclass(frozen=True)
class SwapTest:
    """How often a decision between two people flips when parts of the face change hands.

    Attributes:
        parts: what was swapped.
        accuracy: share of fresh images whose nearest person is the right one.
        part_flips: share of decisions that flip when the parts are taken from the other person.
        rest_flips: share that flip when everything else, nuisance included, is.
        images: how many fresh images.

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
    """Prove what a network decides by, with fresh images of the people of a population.

    A decision is the nearer of two people's centroids, each of 8 other fresh images. It flips when it falls on the person that
    the swapped parts come from.

    Args:
        model: images → embeddings.
        population: the people, as trained on.
        parts: what to swap; the planted parts by default.
        images_per_person: fresh images, each paired with one of another person.
        seed: of the images; not those trained on.

    Example:
        >>> swap_test(EmbeddingNet().eval(), SyntheticPopulation(3, evidence="nose"), images_per_person=2).images
        6
    """
    chosen = population.planted if parts is None else tuple(parts)
    people = centroids(model, population, seed=seed)
    faces = population.sample(images_per_person, seed=20_000 + seed)
    step = torch.arange(len(faces), device="cpu") % (population.n_people - 1) + 1
    others = population.sample((faces.people + step) % population.n_people, seed=30_000 + seed)
    swapped = swap(faces, others, chosen)
    rest = swap(others, faces, chosen)  # the other person's image with the parts of this one

    def towards_other(images: Tensor) -> float:
        embeddings = unit(at_least_float32(model(images)), "embeddings")
        own, other = ((embeddings * people[who]).sum(1) for who in (faces.people, others.people))
        return (other > own).double().mean().item()

    embeddings = unit(at_least_float32(model(faces.images)), "embeddings")
    with own_arithmetic():
        nearest = (embeddings @ people.T).argmax(1)
    accuracy = (nearest == faces.people).double().mean().item()
    return SwapTest(chosen, accuracy, towards_other(swapped.images), towards_other(rest.images), len(faces))


@torch.no_grad()
def centroids(
    model: nn.Module, population: SyntheticPopulation, *, images_per_person: int = 8, seed: int = 0
) -> Tensor:
    """Return the unit centroid of each person from fresh images, as references and contrasts for the faces of a population.

    Returns:
        (P, D).

    Example:
        >>> centroids(EmbeddingNet().eval(), SyntheticPopulation(3), images_per_person=1).shape
        torch.Size([3, 32])
    """
    gallery = population.sample(images_per_person, seed=40_000 + seed)
    embeddings = unit(at_least_float32(model(gallery.images)), "embeddings")
    return unit(embeddings.view(population.n_people, images_per_person, -1).mean(1), "centroids")
