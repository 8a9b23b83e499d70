"""People whose identity lies in chosen parts of the face, and images of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from captum_leam._engine.arithmetic import as_tensor, uniform
from captum_leam.errors import CaptumLeamError
from captum_leam.regions import RegionScheme
from captum_leam.synthetic.drawing import NUISANCE, PARTS, REGIONS, REGIONS_OF, draw


@dataclass(frozen=True)
class SyntheticFaces:
    """Images of synthetic people.

    Attributes:
        images: (N, 3, 112, 112), RGB in [0, 1].
        labels: (N, 112, 112), int64, exact regions, see :attr:`scheme`.
        people: (N,), int64, who is shown.
        parts: name → the numbers that each part was drawn from, (N, K).
        nuisance: (N, 16), what is not the person.

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
        """Names of the labels."""
        return SCHEME

    def mask(self, parts: Sequence[str]) -> Tensor:
        """Where these parts are: boolean (N, 112, 112).

        Example:
            >>> faces = SyntheticPopulation(4).sample(1)
            >>> faces.mask(["nose"]).shape
            torch.Size([4, 112, 112])
        """
        return SCHEME.mask(self.labels, *(region for part in _known(parts) for region in REGIONS_OF[part]))


SCHEME = RegionScheme(name="synthetic", regions=dict(enumerate(REGIONS)))


@dataclass(frozen=True)
class SyntheticPopulation:
    """People with identity in some parts of the face.

    Args:
        n_people: two or more.
        evidence: the parts that belong to the person: one name or several of eyes, brows, nose, mouth, face, hair; all by
            default. The other parts are drawn anew for every image.
        seed: of the people.

    Raises:
        CaptumLeamError: for fewer than two people, or an unknown part.

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
            raise CaptumLeamError(f"n_people is {self.n_people}; expected two or more, to be told apart.")
        _known(self.planted)
        generator = torch.Generator().manual_seed(self.seed)
        identity = {name: _spread(self.n_people, k, generator) for name, k in PARTS.items()}
        object.__setattr__(self, "identity", identity)

    @property
    def planted(self) -> tuple[str, ...]:
        """Names of the parts that belong to the person."""
        if self.evidence is None:
            return tuple(PARTS)
        return (self.evidence,) if isinstance(self.evidence, str) else tuple(self.evidence)

    def sample(self, people: int | Tensor | Sequence[int], *, seed: int = 0) -> SyntheticFaces:
        """Draw images.

        Args:
            people: how many of every person, or whom, (N,).
            seed: of the nuisance and of the parts that carry nothing.

        Returns:
            :class:`SyntheticFaces`; of a number per person, sorted by person.

        Raises:
            CaptumLeamError: for people that do not exist, or none.
        """
        who = (
            torch.arange(self.n_people, device="cpu").repeat_interleave(people)
            if isinstance(people, int)
            else as_tensor(people)
        )
        if who.ndim != 1 or not len(who) or bool((who < 0).any()) or bool((who >= self.n_people).any()):
            raise CaptumLeamError(f"people are {people!r}; expected one or more numbers from 0 to {self.n_people - 1}.")
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + seed)
        fresh = {name: uniform((len(who), k), generator) for name, k in PARTS.items()}
        parts = {name: self.identity[name][who] if name in self.planted else fresh[name] for name in PARTS}
        return render(parts, uniform((len(who), NUISANCE), generator), who)


def render(parts: dict[str, Tensor], nuisance: Tensor, people: Tensor) -> SyntheticFaces:
    """Faces from their numbers, see :func:`captum_leam.synthetic.drawing.draw`.

    Example:
        >>> faces = SyntheticPopulation(3).sample(1)
        >>> torch.equal(render(faces.parts, faces.nuisance, faces.people).images, faces.images)
        True
    """
    images, labels = draw(parts, nuisance)
    return SyntheticFaces(images, labels, people, parts, nuisance)


def swap(faces: SyntheticFaces, others: SyntheticFaces, parts: Sequence[str]) -> SyntheticFaces:
    """Replace some parts of the faces by those of other faces; everything else, nuisance included, stays.

    Args:
        faces: N faces.
        others: N faces, the part donors.
        parts: names of the parts taken.

    Example:
        >>> population = SyntheticPopulation(2, seed=0)
        >>> a, b = population.sample([0], seed=1), population.sample([1], seed=2)
        >>> changed = (swap(a, b, ["nose"]).images != a.images).any(1)[0]
        >>> bool(changed.any()), bool(changed[:40].any())  # the nose, nothing above it
        (True, False)
    """
    chosen = _known(parts)
    if len(faces) != len(others):
        raise CaptumLeamError(f"{len(faces)} faces and {len(others)} others; expected as many.")
    mixed = {name: others.parts[name] if name in chosen else numbers for name, numbers in faces.parts.items()}
    return render(mixed, faces.nuisance, faces.people)


def _known(parts: Sequence[str]) -> tuple[str, ...]:
    unknown = [part for part in parts if part not in PARTS]
    if unknown or not parts:
        raise CaptumLeamError(f"parts {unknown or list(parts)} are not there; expected some of {', '.join(PARTS)}.")
    return tuple(parts)


def _spread(people: int, numbers: int, generator: torch.Generator) -> Tensor:
    """People apart from each other: of many drawn, each time the one farthest from those chosen (Gonzalez 1985)."""
    pool = uniform((64 * people, numbers), generator)
    chosen = [pool[0]]
    distance = torch.linalg.vector_norm(pool - pool[0], dim=1)
    for _ in range(people - 1):
        chosen.append(pool[int(distance.argmax())])
        distance = torch.minimum(distance, torch.linalg.vector_norm(pool - chosen[-1], dim=1))
    return torch.stack(chosen)
