"""Populations of synthetic people whose identity is in selected parts of the face, and images of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from captum_leam._engine.arithmetic import as_tensor, uniform
from captum_leam.errors import CaptumLeamError
from captum_leam.regions import RegionScheme
from captum_leam.synthetic.drawing import NUISANCE, PART_REGIONS, PARTS, REGIONS, draw


@dataclass(frozen=True)
class SyntheticFaces:
    """Images of synthetic people with exact labels.

    Attributes:
        images: RGB images of shape (N, 3, 112, 112), in [0, 1].
        labels: Exact label maps of shape (N, 112, 112), int64, in the labels of :attr:`scheme`.
        people: Index of the person in each image, shape (N,), int64.
        parts: Parameters in [0, 1] of each part by name, shape (N, K) each.
        nuisance: Nuisance values of shape (N, 16).

    Example:
        >>> faces = SyntheticPopulation(3, evidence="eyes").sample([0, 2], seed=1)
        >>> len(faces), faces.people.tolist(), faces.scheme.names[:3]
        (2, [0, 2], ('background', 'hair', 'skin'))
    """

    images: Tensor
    labels: Tensor
    people: Tensor
    parts: dict[str, Tensor]
    nuisance: Tensor

    def __len__(self) -> int:
        return len(self.images)

    @property
    def scheme(self) -> RegionScheme:
        """Names of the labels as a :class:`~captum_leam.regions.RegionScheme`, the same for all synthetic faces."""
        return SCHEME

    def mask(self, parts: Sequence[str]) -> Tensor:
        """Return masks of the pixels of some parts.

        Args:
            parts: Names of one or more parts.

        Returns:
            Boolean masks of shape (N, 112, 112).

        Raises:
            CaptumLeamError: If a part is unknown.

        Example:
            >>> faces = SyntheticPopulation(4).sample(1)
            >>> faces.mask(["nose"]).shape
            torch.Size([4, 112, 112])
        """
        return SCHEME.mask(self.labels, *(region for part in _check_parts(parts) for region in PART_REGIONS[part]))


SCHEME = RegionScheme(name="synthetic", regions=dict(enumerate(REGIONS)))


@dataclass(frozen=True)
class SyntheticPopulation:
    """Population of synthetic people whose identity is in some parts of the face.

    Args:
        n_people: Number of people, two or more.
        evidence: Name or names of the parts that belong to the person, of eyes, brows, nose, mouth, face and hair. Other parts are random
            in each image. Default: None, for all parts.
        seed: Seed of the people. Default: 0.

    Raises:
        CaptumLeamError: If there are fewer than two people, or a part is unknown.

    See Also:
        :func:`~captum_leam.synthetic.load_trained`: Networks trained on such faces.

    Example:
        >>> population = SyntheticPopulation(5, evidence="nose", seed=0)
        >>> faces = population.sample(3, seed=1)
        >>> faces.images.shape, faces.people.bincount().tolist()
        (torch.Size([15, 3, 112, 112]), [3, 3, 3, 3, 3])
    """

    n_people: int
    evidence: str | Sequence[str] | None = None
    seed: int = 0
    identity: dict[str, Tensor] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.n_people < 2:
            raise CaptumLeamError(f"Expected n_people to be 2 or more, got {self.n_people}.")
        _check_parts(self.evidence_parts)
        generator = torch.Generator().manual_seed(self.seed)
        identity = {name: _distant_points(self.n_people, k, generator) for name, k in PARTS.items()}
        object.__setattr__(self, "identity", identity)

    @property
    def evidence_parts(self) -> tuple[str, ...]:
        """Names of the parts that belong to the person, a tuple of strings; all parts if ``evidence`` is None."""
        if self.evidence is None:
            return tuple(PARTS)
        return (self.evidence,) if isinstance(self.evidence, str) else tuple(self.evidence)

    def sample(self, people: int | Tensor | Sequence[int], *, seed: int = 0) -> SyntheticFaces:
        """Draw random images of people.

        The parts with evidence are the same in all images of a person. Light, position and all other parts are random in each image.

        Args:
            people: Number of images of every person, 1 or more; or the person of each image, integers from 0 to ``n_people`` − 1 of shape
                (N,).
            seed: Seed of the random values of the images. Default: 0.

        Returns:
            Images, labels, people and parameters as :class:`SyntheticFaces`. If ``people`` is a number, they are sorted by person.

        Raises:
            CaptumLeamError: If there is no image, or a person does not exist.

        Example:
            >>> population = SyntheticPopulation(3, evidence="nose")
            >>> faces = population.sample(2, seed=1)
            >>> faces.people.tolist()
            [0, 0, 1, 1, 2, 2]
            >>> nose, mouth = faces.parts["nose"], faces.parts["mouth"]
            >>> torch.equal(nose[0], nose[1]), torch.equal(mouth[0], mouth[1])  # of two images of one person
            (True, False)
            >>> population.sample([2, 0]).people.tolist()
            [2, 0]
        """
        rows = (
            torch.arange(self.n_people, device="cpu").repeat_interleave(people)
            if isinstance(people, int)
            else as_tensor(people)
        )
        if rows.ndim != 1 or not len(rows) or bool((rows < 0).any()) or bool((rows >= self.n_people).any()):
            raise CaptumLeamError(
                f"Expected people to be a positive number, or numbers from 0 to {self.n_people - 1}, got {people!r}."
            )
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + seed)
        random_parts = {name: uniform((len(rows), k), generator) for name, k in PARTS.items()}
        own_parts = {name: self.identity[name][rows] for name in self.evidence_parts}
        return render({**random_parts, **own_parts}, uniform((len(rows), NUISANCE), generator), rows)


def render(parts: dict[str, Tensor], nuisance: Tensor, people: Tensor) -> SyntheticFaces:
    """Return images of faces with the given parameters of their parts.

    Args:
        parts: Parameters in [0, 1] of each part by name, shape (N, K) with K as in :data:`PARTS`.
        nuisance: Nuisance values of shape (N, 16), in [0, 1].
        people: Index of the person in each image, shape (N,).

    Returns:
        Images with exact labels and the given people and parameters, as :class:`SyntheticFaces`.

    Example:
        >>> faces = SyntheticPopulation(3).sample(1)
        >>> torch.equal(render(faces.parts, faces.nuisance, faces.people).images, faces.images)
        True
    """
    images, labels = draw(parts, nuisance)
    return SyntheticFaces(images, labels, people, parts, nuisance)


def swap(faces: SyntheticFaces, others: SyntheticFaces, parts: Sequence[str]) -> SyntheticFaces:
    """Return faces in which some parts are replaced by those of other faces, with the same nuisance.

    Args:
        faces: N faces.
        others: N faces from which the parts come.
        parts: Names of one or more parts that are replaced, of eyes, brows, nose, mouth, face and hair.

    Returns:
        New faces as :class:`SyntheticFaces`, drawn with the people and nuisance of ``faces``.

    Raises:
        CaptumLeamError: If a part is unknown, or the numbers of faces differ.

    See Also:
        :func:`~captum_leam.synthetic.swap_test`: Test that swaps parts between people.

    Example:
        >>> population = SyntheticPopulation(2, seed=0)
        >>> a, b = population.sample([0], seed=1), population.sample([1], seed=2)
        >>> is_different = (swap(a, b, ["nose"]).images != a.images).any(1)[0]
        >>> bool(is_different.any()), bool(is_different[:40].any())  # only the nose, not the rows above it
        (True, False)
    """
    names = _check_parts(parts)
    if len(faces) != len(others):
        raise CaptumLeamError(f"Expected `others` to have as many faces as `faces`, {len(faces)}, got {len(others)}.")
    return render({**faces.parts, **{name: others.parts[name] for name in names}}, faces.nuisance, faces.people)


def _check_parts(parts: Sequence[str]) -> tuple[str, ...]:
    unknown = [part for part in parts if part not in PARTS]
    if unknown or not parts:
        raise CaptumLeamError(f"Expected parts to be among {', '.join(PARTS)}, got {unknown or list(parts)}.")
    return tuple(parts)


def _distant_points(count: int, dimensions: int, generator: torch.Generator) -> Tensor:
    """Return points with large distances by farthest-point sampling (Gonzalez 1985)."""
    candidates = uniform((64 * count, dimensions), generator)
    points = [candidates[0]]
    distance = torch.linalg.vector_norm(candidates - candidates[0], dim=1)
    for _ in range(count - 1):
        points.append(candidates[int(distance.argmax())])
        distance = torch.minimum(distance, torch.linalg.vector_norm(candidates - points[-1], dim=1))
    return torch.stack(points)
