"""Baseline maps that a faithful and person-specific attribution must outperform, and the names of all controls.

A control computes maps (N, H, W) from a :class:`Scene`. Those of a method's own maps (``moved``, ``other_people``) are computed once per
method, the others once for all. What is drawn for an image depends on its number, not on the batch that it comes in.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from captum_leam._engine.arithmetic import normal, own_arithmetic, uniform
from captum_leam._engine.draws import draw_by_image
from captum_leam._engine.types import Field
from captum_leam.errors import CaptumLeamError
from captum_leam.maps import gaussian_blur
from captum_leam.stats.labels import people_of, person_codes

__all__ = ["CONTROLS", "CONTROL_NAMES", "PersonMaps", "Scene", "central_ellipse", "placements"]


@dataclass
class PersonMaps:
    """Sums of the maps of every person, batch after batch, for the mean map of other people.

    States of several parts of the data can be merged, in any order.

    Example:
        >>> maps = PersonMaps()
        >>> maps.update(torch.tensor([[[1.0, 0.0]], [[0.0, 2.0]]]), ["ann", "bob"])
        >>> maps.of_others(["ann", "bob"]).tolist()
        [[[0.0, 1.0]], [[1.0, 0.0]]]
    """

    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def update(self, maps: Tensor, people: Sequence[Any]) -> None:
        """Add maps, each divided by the sum of its positive part; one without a positive value adds nothing.

        Args:
            maps: Maps (N, H, W), signed.
            people: Person of each image.
        """
        positive = maps.double().clamp(min=0)
        shares = positive / positive.sum((1, 2), keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
        for person, share in zip(map(str, people_of(people, len(maps))), shares, strict=True):
            self.sums[person] = self.sums[person] + share if person in self.sums else share
            self.counts[person] = self.counts.get(person, 0) + 1

    def merge(self, other: "PersonMaps") -> None:
        """Add the sums of other images."""
        for person, total in other.sums.items():
            self.sums[person] = self.sums[person] + total if person in self.sums else total
            self.counts[person] = self.counts.get(person, 0) + other.counts[person]

    def of_others(self, people: Sequence[Any]) -> Tensor:
        """Return the mean map of all other people for each image, (N, H, W), float64.

        Raises:
            CaptumLeamError: If there are maps of fewer than two people.
        """
        if len(self.sums) < 2:
            raise CaptumLeamError("the mean map of other people needs labels of two people or more.")
        totals = torch.stack([self.sums[person] for person in sorted(self.sums)])
        everyone, count = totals.sum(0), sum(self.counts.values())
        names, codes = person_codes([str(person) for person in people])
        means = [
            mean_without(everyone, count, self.sums.get(name, 0 * everyone), self.counts.get(name, 0)) for name in names
        ]
        return torch.stack(means)[torch.from_numpy(codes).to(everyone.device)]


def mean_without(total: Any, count: Any, own_total: Any, own_count: Any) -> Any:
    """Return the mean of all maps but a person's own, from sums and counts (tensors or arrays that broadcast)."""
    return (total - own_total) / (count - own_count)


@dataclass(frozen=True)
class Scene:
    """Images and what controls need to know about them.

    Attributes:
        images: Images (N, C, H, W).
        face: Booleans (N, H, W), True where the face is. Default: :func:`central_ellipse`.
        people: Person of each image, or None.
        maps: Maps (N, H, W) of the method that the control belongs to; None for controls shared by all.
        seed: Seed of what is drawn. Default: 0.
        start: Number of the first image, for batches of a larger set. Default: 0.
        population: Maps of all people, of whom other images than these may be. Default: those of ``maps``.

    Example:
        >>> scene = Scene(torch.rand(2, 3, 8, 8))
        >>> CONTROLS["random pixels"](scene).shape
        torch.Size([2, 8, 8])
        >>> CONTROL_NAMES["parser"]
        'regions only'
    """

    images: Tensor
    face: Tensor | None = None
    people: Sequence[Any] | None = None
    maps: Tensor | None = None
    seed: int = 0
    start: int = 0
    population: PersonMaps | None = None

    @property
    def size(self) -> tuple[int, int, int]:
        """Number of images, height and width."""
        return len(self.images), self.images.shape[2], self.images.shape[3]

    def faces(self) -> Tensor:
        """Return where the face is, booleans (N, H, W), on the device of the images."""
        face = central_ellipse(self.size[1:]) if self.face is None else self.face
        return face.to(self.images.device).expand(self.size)

    def generator(self) -> torch.Generator:
        """Return a new generator with the scene's seed, on the CPU: the same numbers on every device."""
        return torch.Generator().manual_seed(self.seed)

    def draw(self, draw: Callable[[Sequence[int], torch.Generator], Tensor]) -> Tensor:
        """Draw a map (H, W) for each image, on the device of the images.

        Args:
            draw: Function of the size and a generator; the same function for all batches of a set.
        """
        count, *size = self.size
        kind = (draw, *size)
        drawn = draw_by_image(lambda generator, row: draw(size, generator), kind, self.seed, count, self.start)
        return torch.stack(drawn).to(self.images.device)

    def own_maps(self) -> Tensor:
        """Return the maps of the method.

        Raises:
            CaptumLeamError: If there are none.
        """
        if self.maps is None:
            raise CaptumLeamError("this control is made from a method's maps: give the scene maps=.")
        return self.maps


Control = Callable[[Scene], Tensor]


def central_ellipse(size: tuple[int, int]) -> Tensor:
    """Return roughly where the face is in the standard aligned crop: booleans (H, W), 54 % of the pixels.

    Example:
        >>> round(central_ellipse((112, 112)).double().mean().item(), 2)
        0.54
    """
    rows = (torch.arange(size[0], device="cpu", dtype=torch.float32) + 0.5) / size[0] - 0.56
    columns = (torch.arange(size[1], device="cpu", dtype=torch.float32) + 0.5) / size[1] - 0.5
    return (rows[:, None] / 0.44) ** 2 + (columns[None] / 0.39) ** 2 <= 1


def random_pixels(scene: Scene) -> Tensor:
    """Rank the pixels of the crop at random.

    Example:
        >>> scene = Scene(torch.rand(2, 3, 8, 8))
        >>> random_pixels(scene).shape
        torch.Size([2, 8, 8])
    """
    return scene.draw(uniform)


def random_face_pixels(scene: Scene) -> Tensor:
    """Rank the pixels of the face at random, and the rest behind them, at random too."""
    return random_pixels(scene) + scene.faces()


def centre(scene: Scene) -> Tensor:
    """Rank pixels by their distance to the centre of the crop, nearest first. A strong control, because the nose is there."""
    _, height, width = scene.size
    rows = torch.arange(height, device="cpu", dtype=torch.float64) - (height - 1) / 2
    columns = torch.arange(width, device="cpu", dtype=torch.float64) - (width - 1) / 2
    distance = rows[:, None] ** 2 + columns[None] ** 2
    return (-distance).expand(scene.size).to(scene.images.device)


def edges(scene: Scene) -> Tensor:
    """Return smoothed Sobel edges of the grey image, which pass "same person > different people" without any model."""
    grey = scene.images.detach().mean(1, keepdim=True).float()
    ramp = torch.tensor([[1, 0, -1], [2, 0, -2], [1, 0, -1]], dtype=grey.dtype, device=grey.device)
    kernels = torch.stack([ramp, ramp.T])[:, None]
    padded = torch.nn.functional.pad(grey, (1, 1, 1, 1), mode="replicate")
    with own_arithmetic(grey.device):
        strength = torch.nn.functional.conv2d(padded, kernels).square().sum(1).sqrt()
    return gaussian_blur(strength, 2 * scene.size[2] / 112)


def random_field(scene: Scene) -> Tensor:
    """Return a blurred random field: blobs of the size that maps have, anywhere."""
    return gaussian_blur(scene.draw(normal), 6 * scene.size[2] / 112)


def moved(scene: Scene) -> Tensor:
    """Return the method's own map, flipped and rolled at random within the box around the face: its shape, elsewhere."""
    out, boxes = scene.own_maps().clone(), []
    for face in scene.faces().cpu():
        rows, columns = (face.any(axis).nonzero().flatten() for axis in (1, 0))
        boxes.append((slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)))

    def draw(generator: torch.Generator, row: int) -> tuple[list[int], list[int]]:
        height, width = out[row][boxes[row]].shape if row >= 0 else (1, 1)
        return _draw_shifts_and_flips(height, width, generator)

    for i, (shifts, flips) in enumerate(draw_by_image(draw, "moved", scene.seed, len(out), scene.start)):
        out[i][boxes[i]] = out[i][boxes[i]].flip(flips).roll(shifts, (0, 1))
    return out


def _draw_shifts_and_flips(height: int, width: int, generator: torch.Generator) -> tuple[list[int], list[int]]:
    # At least a quarter of the box away in both directions: a control that stays in place would be none.
    sides = (height, width)
    shifts = [int(n // 4 + torch.randint(max(1, n // 2), (1,), generator=generator, device="cpu")) for n in sides]
    flips = [axis for axis in (0, 1) if int(torch.randint(2, (1,), generator=generator, device="cpu"))]
    return shifts, flips


COVERAGE_CLASSES = 10
"""Classes of the share of a region that lies on the face; placements are of the region's own class."""

MAX_DETAIL_CLASSES = 20
"""Classes of the detail that a region covers, fewer where one would hold less than 100 placements."""


def placements(
    region: Tensor,
    face: Tensor,
    count: int,
    *,
    detail: Tensor | None = None,
    field: Field | None = None,
    keys: Tensor | None = None,
) -> Tensor:
    r"""Return a region moved to other places, drawn without replacement from those that are comparable to its own.

    Candidates are the region mirrored (not, horizontally, vertically, or both) and shifted around the field. A pixel that leaves the field
    on one side enters it on the other. Comparable candidates agree with the region in two properties:

    * the tenth that its share on the face falls into (the last one includes 1);
    * with ``detail``, the class of the detail that it covers. Classes have equal numbers of candidates, at least 100, and are at most
      20.

    The motions form a group and both classes are properties of a moved region among all its candidates, so that the comparable candidates
    of a moved region are those of the region itself. A region at a uniformly drawn one of these places and the regions returned here are
    therefore exchangeable, and :func:`captum_leam.stats.randomisation_p_value` is exact for it.

    Args:
        region: Booleans (H, W).
        face: Booleans (H, W), True where the face is.
        count: Number of placements. Fewer are returned where fewer exist.
        detail: Change of each pixel when it is occluded, (H, W), not negative. Default: not compared.
        field: (top, left, height, width) that the region moves in. Default: the whole image. Pixels beyond it stay where they are.
        keys: Uniform random numbers, shape (4 × height × width,), one for each motion; the smallest are taken. Default: of seed 0.

    Returns:
        Booleans (n, H, W), n at most ``count``, each with as many pixels as the region.

    Example:
        >>> region, face = torch.zeros(2, 8, 8, dtype=torch.bool)
        >>> region[3, 3:5], face[2:6, 2:6] = True, True
        >>> moved = placements(region, face, 99)
        >>> len(moved), moved.flatten(1).sum(1).unique().tolist(), bool((moved & ~face).any())
        (47, [2], False)
    """
    top, left, height, width = field or (0, 0, *region.shape)
    rows, columns = slice(top, top + height), slice(left, left + width)
    copies = torch.stack([region[rows, columns].flip(axes) for axes in MIRRORS])
    fixed = region & face
    fixed[rows, columns] = False
    covered = _sums(copies, face[rows, columns]).round() + int(fixed.sum())
    tenths = (covered * COVERAGE_CLASSES / max(1, int(region.sum()))).floor().clamp(max=COVERAGE_CLASSES - 1)
    allowed = (tenths == tenths[0, 0, 0]).flatten()
    if detail is not None:
        allowed &= _in_first_class(_sums(copies, detail[rows, columns]).flatten(), allowed)
    allowed[0] = False
    if keys is None:
        keys = uniform((len(allowed),), torch.Generator().manual_seed(0))
    order = (
        keys.to(allowed.device).masked_fill(~allowed, torch.inf).argsort(stable=True)[: min(count, int(allowed.sum()))]
    )
    moved = region.repeat(len(order), 1, 1)
    for i, motion in enumerate(order.tolist()):
        mirror, down, right = motion // (height * width), motion // width % height, motion % width
        moved[i, rows, columns] = copies[mirror].roll((down, right), (0, 1))
    return moved


def _sums(copies: Tensor, values: Tensor) -> Tensor:
    """Return the sum of the values (h, w) in each mirrored copy (4, h, w) at each shift, (4, h, w): a circular correlation."""
    spectrum = torch.fft.rfft2(copies.double()).conj() * torch.fft.rfft2(values.double())
    sums: Tensor = torch.fft.irfft2(spectrum, s=values.shape)
    return sums


def _in_first_class(values: Tensor, allowed: Tensor) -> Tensor:
    """Return which candidates are in the class of the first one, of classes of equal numbers of those allowed; booleans (n,)."""
    total = int(allowed.sum())
    number = max(1, min(MAX_DETAIL_CLASSES, total // 100))
    ranks = torch.full(values.shape, -1, dtype=torch.int64, device=values.device)
    order = values.masked_fill(~allowed, torch.inf).argsort(stable=True)[:total]
    ranks[order] = torch.arange(total, device=values.device) * number // total
    return ranks == ranks[0]


MIRRORS = ((), (0,), (1,), (0, 1))
"""Axes that are reversed."""


def other_people(scene: Scene) -> Tensor:
    """Return the mean of the method's maps of *other* people: where faces are, not who they are. The strongest control.

    Raises:
        CaptumLeamError: Without the people of the images, or with one person only.
    """
    if scene.people is None:
        raise CaptumLeamError("the mean map of other people needs labels of two people or more.")
    population = scene.population
    if population is None:
        population = PersonMaps()
        population.update(scene.own_maps(), scene.people)
    return population.of_others(scene.people)


SHARED_CONTROLS: dict[str, Control] = {
    "random pixels": random_pixels,
    "random face pixels": random_face_pixels,
    "centre": centre,
    "edges": edges,
    "random field": random_field,
}
"""Controls that need the images alone: name → function of a :class:`Scene`."""

OWN_CONTROLS: dict[str, Control] = {"moved": moved, "other people": other_people}
CONTROLS: dict[str, Control] = {**SHARED_CONTROLS, **OWN_CONTROLS}
"""All controls by name: those that need the images alone, and those made from a method's own maps."""

CONTROL_NAMES = {
    **{name: name for name in CONTROLS},
    "untrained": "untrained network",
    "parser": "regions only",
    "pose": "strangers in the same pose",
}
"""What texts and figures call a control: identifier → name. Tables, options and mappings hold the identifier."""
