"""Baseline maps that a faithful and person-specific attribution must outperform, and the names of all controls.

A control is a function from a :class:`ControlContext` to maps (N, H, W). Controls made from a method's own maps (:func:`moved_map`,
:func:`other_people`) are computed once per method, the others once for all methods. Random numbers of an image depend on its index and not
on its batch.
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

__all__ = ["CONTROLS", "CONTROL_NAMES", "ControlContext", "PersonMaps", "central_ellipse", "placements"]


@dataclass
class PersonMaps:
    """Accumulator of maps by person, for the mean map of all *other* people.

    That mean is the control "other people" of :class:`~captum_leam.faithfulness.OcclusionEvaluator`, which does not depend on the person in
    the image. Use this class if the images come in batches or from several processes. If an evaluator receives all images in one call, it
    computes the mean itself. Call :meth:`update` for each batch, :meth:`merge` for each process, and then :meth:`of_others`.

    Attributes:
        sums: Sum of the maps of each person by name, shape (H, W), float64. Each map counts with its positive part divided by its sum.
        counts: Number of maps of each person by name.

    Example:
        >>> maps = PersonMaps()
        >>> maps.update(torch.tensor([[[1.0, 0.0]], [[0.0, 2.0]]]), ["ann", "bob"])
        >>> maps.of_others(["ann", "bob"]).tolist()  # for ann the map of bob, and for bob that of ann
        [[[0.0, 1.0]], [[1.0, 0.0]]]
    """

    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def update(self, maps: Tensor, people: Sequence[Any]) -> None:
        """Add the maps of a batch.

        Each map counts with its positive part divided by its sum, so that all maps have the same weight. A map without a positive value
        counts as zeros.

        Args:
            maps: Signed maps of a batch, shape (N, H, W), with the same H and W in all calls.
            people: Name of the person in each of the N images, str or int.

        Example:
            >>> maps = PersonMaps()
            >>> maps.update(torch.tensor([[[3.0, 1.0]], [[0.0, 2.0]]]), ["ann", "ann"])
            >>> maps.counts, maps.sums["ann"].tolist()
            ({'ann': 2}, [[0.75, 1.25]])
        """
        positive = maps.double().clamp(min=0)
        shares = positive / positive.sum((1, 2), keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
        for person, share in zip(map(str, people_of(people, len(maps))), shares, strict=True):
            self.sums[person] = self.sums[person] + share if person in self.sums else share
            self.counts[person] = self.counts.get(person, 0) + 1

    def merge(self, other: "PersonMaps") -> None:
        """Add the maps of another accumulator to this one.

        Use it to join the accumulators of several processes, in any order. The result is the same as if :meth:`update` had been called here
        with all images. The other accumulator is not changed.

        Args:
            other: :class:`PersonMaps` with maps of other images, of the same height and width. People may be in both.

        Example:
            >>> first, second = PersonMaps(), PersonMaps()
            >>> first.update(torch.tensor([[[1.0, 0.0]]]), ["ann"])
            >>> second.update(torch.tensor([[[0.0, 1.0]], [[1.0, 0.0]]]), ["ann", "bob"])
            >>> first.merge(second)
            >>> first.counts
            {'ann': 2, 'bob': 1}
            >>> first.of_others(["bob"]).tolist()  # the mean of both maps of ann
            [[[0.5, 0.5]]]
        """
        for person, total in other.sums.items():
            self.sums[person] = self.sums[person] + total if person in self.sums else total
            self.counts[person] = self.counts.get(person, 0) + other.counts[person]

    def of_others(self, people: Sequence[Any]) -> Tensor:
        """Return the mean map of all other people for each image.

        Args:
            people: Name of the person in each of N images, str or int. A name without maps gets the mean of all maps.

        Returns:
            Mean maps, shape (N, H, W), float64, one per image in the order of ``people``. They are not negative.

        Raises:
            CaptumLeamError: If there are maps of fewer than two people.

        Example:
            >>> maps = PersonMaps()
            >>> maps.update(torch.eye(3)[:, None], ["ann", "bob", "cy"])
            >>> maps.of_others(["ann", "cy"]).tolist()  # the mean of bob and cy, and of ann and bob
            [[[0.0, 0.5, 0.5]], [[0.5, 0.5, 0.0]]]
        """
        if len(self.sums) < 2:
            raise CaptumLeamError(
                f"Expected maps of two people or more for the mean map of other people, got maps of {len(self.sums)}."
            )
        total = torch.stack([self.sums[person] for person in sorted(self.sums)]).sum(0)
        count = sum(self.counts.values())
        names, codes = person_codes([str(person) for person in people])
        means = [mean_without(total, count, self.sums.get(name, 0 * total), self.counts.get(name, 0)) for name in names]
        return torch.stack(means)[torch.from_numpy(codes).to(total.device)]


def mean_without(total: Any, count: Any, own_total: Any, own_count: Any) -> Any:
    """Return the mean of the maps of all other people.

    Args:
        total: Sum of all maps, a tensor or array.
        count: Number of all maps.
        own_total: Sum of the person's own maps.
        own_count: Number of the person's own maps.
    """
    return (total - own_total) / (count - own_count)


@dataclass(frozen=True)
class ControlContext:
    """Argument of a control: images with the data that control maps are computed from.

    A control is a function of a context that returns control maps (N, H, W). Use this class to call the controls of
    :data:`~captum_leam.controls.CONTROLS`, or to write a control of your own.

    Attributes:
        images: Images, shape (N, C, H, W).
        face: Mask of the face, boolean, shape (N, H, W). Default: None, for :func:`central_ellipse`.
        people: Person of each of the N images. Default: None, unknown.
        maps: Maps of the method that a control is made from, shape (N, H, W). Default: None, for controls that all methods share.
        seed: Seed of random controls. Default: 0.
        start: Index of the first image in a larger set, of which the images are a batch. Default: 0.
        population: Maps of all people, which may come from other images. Default: None, for those of ``maps``.

    Example:
        >>> context = ControlContext(torch.zeros(2, 3, 8, 8), seed=0)
        >>> maps = CONTROLS["random pixels"](context)
        >>> maps.shape
        torch.Size([2, 8, 8])
        >>> CONTROL_NAMES["parser"]  # what texts and figures call a control
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
        """Return the mask of the face in each image.

        Returns:
            Boolean masks, shape (N, H, W), True in the face, on the device of the images. Without ``face`` they are a central ellipse.

        Example:
            >>> context = ControlContext(torch.zeros(2, 3, 8, 8))
            >>> context.faces().shape, context.faces()[0, 4].int().tolist()
            (torch.Size([2, 8, 8]), [0, 1, 1, 1, 1, 1, 1, 0])
        """
        face = central_ellipse(self.size[1:]) if self.face is None else self.face
        return face.to(self.images.device).expand(self.size)

    def generator(self) -> torch.Generator:
        """Return a new random number generator that begins at the seed.

        Returns:
            Generator on the CPU, so that its numbers are the same on every device.

        Example:
            >>> context = ControlContext(torch.zeros(2, 3, 8, 8), seed=1)
            >>> torch.equal(torch.rand(3, generator=context.generator()), torch.rand(3, generator=context.generator()))
            True
        """
        return torch.Generator().manual_seed(self.seed)

    def draw(self, draw: Callable[[Sequence[int], torch.Generator], Tensor]) -> Tensor:
        """Draw a random map for each image.

        The map of an image depends on the seed and on the index of the image, not on the batch that the image is in. Use it to write a
        control of your own.

        Args:
            draw: Function from the size (H, W) and a generator to a map (H, W). Pass the same function object for all batches of a set,
                not a new lambda each time.

        Returns:
            Maps (N, H, W), on the device of the images.

        Example:
            >>> def noise(size, generator):
            ...     return torch.rand(*size, generator=generator)
            >>> images = torch.zeros(3, 3, 8, 8)
            >>> whole = ControlContext(images).draw(noise)
            >>> last = ControlContext(images[2:], start=2).draw(noise)  # the last image in a batch of its own
            >>> whole.shape, torch.equal(whole[2:], last)
            (torch.Size([3, 8, 8]), True)
        """
        count, *size = self.size
        kind = (draw, *size)
        maps = draw_by_image(lambda generator, row: draw(size, generator), kind, self.seed, count, self.start)
        return torch.stack(maps).to(self.images.device)

    def own_maps(self) -> Tensor:
        """Return the maps of the method that a control is made from.

        Returns:
            Maps, shape (N, H, W), as passed as ``maps``.

        Raises:
            CaptumLeamError: If the context has no maps.

        Example:
            >>> context = ControlContext(torch.zeros(2, 3, 8, 8), maps=torch.ones(2, 8, 8))
            >>> context.own_maps().shape
            torch.Size([2, 8, 8])
        """
        if self.maps is None:
            raise CaptumLeamError(
                "Expected the context to have maps of a method, from which this control is made, got none. Pass maps=."
            )
        return self.maps


Control = Callable[[ControlContext], Tensor]


def central_ellipse(size: tuple[int, int]) -> Tensor:
    """Return the mask of an ellipse that approximates the face in the standard aligned crop and covers 54 % of its pixels.

    Args:
        size: Height and width (H, W) of the crop in pixels.

    Returns:
        Boolean mask, shape (H, W), True in the ellipse, on the CPU.

    Example:
        >>> round(central_ellipse((112, 112)).double().mean().item(), 2)
        0.54
    """
    rows = (torch.arange(size[0], device="cpu", dtype=torch.float32) + 0.5) / size[0] - 0.56
    columns = (torch.arange(size[1], device="cpu", dtype=torch.float32) + 0.5) / size[1] - 0.5
    return (rows[:, None] / 0.44) ** 2 + (columns[None] / 0.39) ** 2 <= 1


def random_pixels(context: ControlContext) -> Tensor:
    """Return maps that rank the pixels of the crop at random.

    Args:
        context: Images that the maps are drawn for.

    Returns:
        Shape (N, H, W).

    Example:
        >>> context = ControlContext(torch.zeros(2, 3, 8, 8))
        >>> random_pixels(context).shape
        torch.Size([2, 8, 8])
    """
    return context.draw(uniform)


def random_face_pixels(context: ControlContext) -> Tensor:
    """Return maps that rank the pixels of the face at random, before all others at random."""
    return random_pixels(context) + context.faces()


def centre(context: ControlContext) -> Tensor:
    """Return maps that rank pixels by their distance to the centre of the crop, a strong control because the nose is there."""
    _, height, width = context.size
    rows = torch.arange(height, device="cpu", dtype=torch.float64) - (height - 1) / 2
    columns = torch.arange(width, device="cpu", dtype=torch.float64) - (width - 1) / 2
    distance = rows[:, None] ** 2 + columns[None] ** 2
    return (-distance).expand(context.size).to(context.images.device)


def edges(context: ControlContext) -> Tensor:
    """Return smoothed Sobel edges of the grey image, which pass "same person > different people" without any model."""
    grey = context.images.detach().mean(1, keepdim=True).float()
    ramp = torch.tensor([[1, 0, -1], [2, 0, -2], [1, 0, -1]], dtype=grey.dtype, device=grey.device)
    kernels = torch.stack([ramp, ramp.T])[:, None]
    padded = torch.nn.functional.pad(grey, (1, 1, 1, 1), mode="replicate")
    with own_arithmetic(grey.device):
        strength = torch.nn.functional.conv2d(padded, kernels).square().sum(1).sqrt()
    return gaussian_blur(strength, 2 * context.size[2] / 112)


def random_field(context: ControlContext) -> Tensor:
    """Return a blurred random field, with blobs as large as those of maps at random places."""
    return gaussian_blur(context.draw(normal), 6 * context.size[2] / 112)


def moved_map(context: ControlContext) -> Tensor:
    """Return the method's own maps at other places, flipped and rolled at random within the box around the face."""
    maps, boxes = context.own_maps().clone(), []
    for face in context.faces().cpu():
        rows, columns = (face.any(axis).nonzero().flatten() for axis in (1, 0))
        boxes.append((slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)))

    def draw(generator: torch.Generator, row: int) -> tuple[list[int], list[int]]:
        height, width = maps[row][boxes[row]].shape if row >= 0 else (1, 1)
        return _draw_shifts_and_flips(height, width, generator)

    for i, (shifts, flips) in enumerate(draw_by_image(draw, "moved", context.seed, len(maps), context.start)):
        maps[i][boxes[i]] = maps[i][boxes[i]].flip(flips).roll(shifts, (0, 1))
    return maps


def _draw_shifts_and_flips(height: int, width: int, generator: torch.Generator) -> tuple[list[int], list[int]]:
    # The shift is at least a quarter of the box in both directions, because a map that stays in place would be no control.
    sides = (height, width)
    shifts = [int(n // 4 + torch.randint(max(1, n // 2), (1,), generator=generator, device="cpu")) for n in sides]
    flips = [axis for axis in (0, 1) if int(torch.randint(2, (1,), generator=generator, device="cpu"))]
    return shifts, flips


COVERAGE_CLASSES = 10
"""Number of classes of the share of a region that lies on the face. Placements are in the class of the region."""

MAX_DETAIL_CLASSES = 20
"""Maximum number of classes of the detail that a region covers, each of which has at least 100 placements."""


def placements(
    region: Tensor,
    face: Tensor,
    count: int,
    *,
    detail: Tensor | None = None,
    field: Field | None = None,
    keys: Tensor | None = None,
) -> Tensor:
    r"""Move a region to other places of the image that are comparable to its own place.

    Use it for a randomisation test of whether the place of a region matters. The region is mirrored and shifted at random within the field.
    A place is comparable if the region covers about as much of the face there and, with ``detail``, about as much detail. No place is
    drawn twice.

    Args:
        region: Mask of the region, boolean, shape (H, W).
        face: Mask of the face, boolean, shape (H, W).
        count: Number of placements, 1 or more. Fewer are returned if fewer exist.
        detail: Change of each pixel by occlusion, not negative, shape (H, W). Default: None, detail is not compared.
        field: Part (top, left, height, width) of the image that the region moves in, in pixels; pixels outside do not move. Default: the
            whole image.
        keys: Uniform random numbers, one per motion, shape (4 × height × width,). The motions with the smallest numbers are selected.
            Default: random numbers of seed 0.

    Returns:
        Boolean masks, shape (n, H, W) with n at most ``count``, each with as many pixels as the region.

    See Also:
        :func:`~captum_leam.map_certainty`: Test of a map among the placements of its region.

    Note:
        Candidates are the region in its four orientations (unchanged, mirrored horizontally, vertically, or both) at all cyclic shifts
        within the field. Comparable candidates have their share on the face in the same tenth (the last tenth includes 1) and, with
        ``detail``, their detail in the same class, of at most 20 classes with equal numbers of candidates, at least 100. The motions form
        a group, so that all comparable candidates have the same set of comparable candidates. A region at a random place of this set and
        the returned regions are therefore exchangeable, and :func:`captum_leam.stats.randomisation_p_value` is exact.

    Example:
        >>> region, face = torch.zeros(2, 8, 8, dtype=torch.bool)
        >>> region[3, 3:5], face[2:6, 2:6] = True, True
        >>> masks = placements(region, face, 99)  # two pixels in a face of 4 × 4 pixels
        >>> masks.shape
        torch.Size([47, 8, 8])
        >>> bool((masks & ~face).any())  # all places are on the face, as the region is
        False
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
    masks = region.repeat(len(order), 1, 1)
    for i, motion in enumerate(order.tolist()):
        mirror, down, right = motion // (height * width), motion // width % height, motion % width
        masks[i, rows, columns] = copies[mirror].roll((down, right), (0, 1))
    return masks


def _sums(copies: Tensor, values: Tensor) -> Tensor:
    """Return the sum of the values (h, w) in each mirrored copy (4, h, w) at each shift, (4, h, w): a circular correlation."""
    spectrum = torch.fft.rfft2(copies.double()).conj() * torch.fft.rfft2(values.double())
    sums: Tensor = torch.fft.irfft2(spectrum, s=values.shape)
    return sums


def _in_first_class(values: Tensor, allowed: Tensor) -> Tensor:
    """Return whether each candidate is in the class of the first one, booleans (n,); classes have equal numbers of allowed candidates."""
    total = int(allowed.sum())
    number = max(1, min(MAX_DETAIL_CLASSES, total // 100))
    ranks = torch.full(values.shape, -1, dtype=torch.int64, device=values.device)
    order = values.masked_fill(~allowed, torch.inf).argsort(stable=True)[:total]
    ranks[order] = torch.arange(total, device=values.device) * number // total
    return ranks == ranks[0]


MIRRORS = ((), (0,), (1,), (0, 1))
"""Axes that each orientation of a region reverses."""


def other_people(context: ControlContext) -> Tensor:
    """Return the mean of the method's maps of *other* people, the strongest control, which shows where faces are but not whose.

    Raises:
        CaptumLeamError: If the people of the images are unknown, or if there is only one person.
    """
    if context.people is None:
        raise CaptumLeamError(
            "Expected the person of each image for the control 'other people', got None. Pass the names of two people or more."
        )
    population = context.population
    if population is None:
        population = PersonMaps()
        population.update(context.own_maps(), context.people)
    return population.of_others(context.people)


SHARED_CONTROLS: dict[str, Control] = {
    "random pixels": random_pixels,
    "random face pixels": random_face_pixels,
    "centre": centre,
    "edges": edges,
    "random field": random_field,
}
"""Controls that need the images only, by name."""

OWN_CONTROLS: dict[str, Control] = {"moved": moved_map, "other people": other_people}
"""Controls that are made from a method's own maps, by name."""

CONTROLS: dict[str, Control] = {**SHARED_CONTROLS, **OWN_CONTROLS}
"""All controls by name."""

CONTROL_NAMES = {
    **{name: name for name in CONTROLS},
    "untrained": "untrained network",
    "parser": "regions only",
    "pose": "strangers in the same pose",
}
"""Names of controls in texts and figures, by the identifier used in tables, options and mappings."""
