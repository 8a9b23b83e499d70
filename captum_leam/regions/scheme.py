"""Region schemes: which integer of a label map means which part of the face, and how regions are merged."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from captum_leam._engine.arithmetic import as_tensor
from captum_leam.errors import CaptumLeamError, InputTypeError

Side = Literal["image", "person"]
"""Whose left: the image's (smaller x) or the person's (larger x in a photo that is not mirrored)."""

PLURALS = {"brow": "brows", "eye": "eyes", "cheek": "cheeks", "ear": "ears"}
"""What a pair of sides is called when merged; other pairs get an s."""


@dataclass(frozen=True)
class RegionScheme:
    """Names of the integers in a label map, in the order in which reports list them.

    Args:
        regions: label integer -> region name; names are unique.
        name: of the scheme.
        left: whose left the names mean, ``"image"`` (smaller x) or ``"person"``; None where no side is named.
        background: name of the region that is not face; None, or a name not in ``regions``, where there is none.
        origin: integers of the schemes that this one was merged from -> own integers; :meth:`merge` fills it.

    Raises:
        CaptumLeamError: without regions, for two regions of one name, an unknown side, or an origin that leads nowhere.
        InputTypeError: for labels that are no integers, or names that are no text.

    Example:
        >>> scheme = RegionScheme({0: "background", 1: "nose", 2: "mouth"}, name="small")
        >>> scheme.names, scheme.index("mouth")
        (('background', 'nose', 'mouth'), 2)
        >>> scheme.mask(torch.tensor([[0, 1], [1, 2]]), "nose", "mouth").tolist()
        [[False, True], [True, True]]
    """

    regions: Mapping[int, str]
    name: str = "custom"
    left: Side | None = None
    background: str | None = "background"
    origin: Mapping[int, int] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        regions = dict(self.regions)
        _check_regions(regions)
        if self.left not in (None, "image", "person"):
            raise CaptumLeamError(f'left is {self.left!r}; expected "image", "person" or None.')
        origin = {**dict(self.origin), **{label: label for label in regions}}
        if lost := sorted(set(origin.values()) - set(regions)):
            raise CaptumLeamError(f"origin leads to the labels {lost}, which scheme {self.name!r} does not have.")
        object.__setattr__(self, "regions", regions)
        object.__setattr__(self, "origin", origin)

    def __hash__(self) -> int:
        return hash((self.name, self.left, self.background, frozenset(self.regions.items())))

    def __len__(self) -> int:
        return len(self.regions)

    @property
    def names(self) -> tuple[str, ...]:
        """Region names, in order."""
        return tuple(self.regions.values())

    @property
    def labels(self) -> tuple[int, ...]:
        """Label integers, in the order of :attr:`names`."""
        return tuple(self.regions)

    def index(self, name: str) -> int:
        """Label integer of a region.

        Raises:
            CaptumLeamError: for a name that the scheme does not have.

        Example:
            >>> CELEBAMASK_HQ.index("nose")
            2
        """
        self._check_known([name])
        return next(label for label, known in self.regions.items() if known == name)

    def relabel(self, labels: Tensor) -> Tensor:
        """Bring a label map of the scheme that this one was merged from to the integers of this one.

        Integers of merged regions are ones their parts had before, so relabelling twice changes nothing.

        Args:
            labels: integers of any shape; of this scheme, or of any it was merged from.

        Returns:
            Integers of this scheme, same shape and device, int64.

        Raises:
            InputTypeError: for labels that are no integers.
            CaptumLeamError: for integers that the scheme does not know.

        Example:
            >>> merged = CELEBAMASK_HQ.merge({"mouth": ["mouth", "upper_lip", "lower_lip"]})
            >>> merged.relabel(torch.tensor([0, 10, 11, 12, 13])).tolist()
            [0, 10, 10, 10, 13]
        """
        labels = as_integers(labels)
        values, where = torch.unique(labels, return_inverse=True)
        if unknown := [value for value in values.tolist() if value not in self.origin]:
            raise CaptumLeamError(
                f"labels hold {unknown}, which scheme {self.name!r} does not know; its labels are "
                f"{_listed(self.regions)}. Give the scheme that the labels were made with."
            )
        own = torch.tensor([self.origin[value] for value in values.tolist()], dtype=torch.long, device=labels.device)
        return own[where]

    def mask(self, labels: Tensor, *names: str) -> Tensor:
        """Where a label map shows one of the named regions.

        Args:
            labels: integers of any shape, as :meth:`relabel` takes them.
            *names: one or more regions.

        Returns:
            Boolean, the shape of ``labels``.

        Raises:
            CaptumLeamError: without names, or for names or integers that the scheme does not have.

        Example:
            >>> CELEBAMASK_HQ.mask(torch.tensor([[0, 2, 10]]), "nose", "mouth").tolist()
            [[False, True, True]]
        """
        if not names:
            raise CaptumLeamError(f"mask needs the names of regions, one or more of {_listed(self.names)}.")
        wanted = [self.index(name) for name in names]
        own = self.relabel(labels)
        return torch.isin(own, torch.tensor(wanted, dtype=torch.int64, device=own.device))

    def merge(self, groups: Mapping[str, list[str] | tuple[str, ...]]) -> "RegionScheme":
        """Return a scheme in which groups of regions are one region each.

        A merged region stands where the first of its parts stood and keeps that part's integer. Label maps of this
        scheme become label maps of the new one by its :meth:`relabel`.

        Args:
            groups: new name -> names of the regions that become one. Regions that are not named stay.

        Returns:
            The new scheme. If the background is merged, the region that holds it is the new background.

        Raises:
            CaptumLeamError: for a group without regions, an unknown region, one in two groups, or a new name that a
                region outside the group has.

        Example:
            >>> merged = CELEBAMASK_HQ.merge({"lips": ["upper_lip", "lower_lip"]})
            >>> merged.index("lips"), len(merged)
            (11, 18)
        """
        self._check_groups(groups)
        new_names = {old: new for new, parts in groups.items() for old in parts}
        regions: dict[int, str] = {}
        first: dict[str, int] = {}
        for label, old in self.regions.items():
            new = new_names.get(old, old)
            if new not in first:
                first[new] = label
                regions[label] = new
        step = {label: first[new_names.get(old, old)] for label, old in self.regions.items()}
        origin = {label: step[own] for label, own in self.origin.items()}
        background = None if self.background is None else new_names.get(self.background, self.background)
        return replace(self, regions=regions, origin=origin, background=background, name=f"{self.name}, merged")

    def merge_sides(self) -> "RegionScheme":
        """Return a scheme in which left and right are one region: eyes, brows, cheeks, ears.

        Example:
            >>> TEMPLATE.merge_sides().names
            ('background', 'outline', 'forehead', 'brows', 'eyes', 'nose', 'cheeks', 'mouth', 'chin')
        """
        parts = [name.removeprefix("left_") for name in self.names if name.startswith("left_")]
        paired = [part for part in parts if f"right_{part}" in self.names]
        return self.merge({PLURALS.get(part, f"{part}s"): [f"left_{part}", f"right_{part}"] for part in paired})

    def swap_sides(self) -> "RegionScheme":
        """Return the same regions named by the other's left: by the image's instead of the person's, or the reverse.

        Raises:
            CaptumLeamError: if the scheme does not say whose left it means.

        Example:
            >>> CELEBAMASK_HQ.left, CELEBAMASK_HQ.regions[4]
            ('person', 'left_eye')
            >>> by_image = CELEBAMASK_HQ.swap_sides()
            >>> by_image.left, by_image.regions[4]
            ('image', 'right_eye')
        """
        if self.left is None:
            raise CaptumLeamError(
                f'scheme {self.name!r} does not say whose left it means; make it with left="image" or so.'
            )
        regions = {label: other_side(name) for label, name in self.regions.items()}
        return replace(self, regions=regions, left="image" if self.left == "person" else "person")

    def _check_known(self, names: list[str]) -> None:
        if unknown := [name for name in names if name not in self.names]:
            raise CaptumLeamError(
                f"scheme {self.name!r} has no region {_listed(unknown)}; it has {_listed(self.names)}."
            )

    def _check_groups(self, groups: Mapping[str, list[str] | tuple[str, ...]]) -> None:
        for new, parts in groups.items():
            if isinstance(parts, str) or not parts:
                raise CaptumLeamError(
                    f"{new!r} is to be made of {parts!r}; expected a list of one or more region names."
                )
            self._check_known(list(parts))
        named = [part for parts in groups.values() for part in parts]
        if twice := sorted({part for part in named if named.count(part) > 1}):
            raise CaptumLeamError(f"{_listed(twice)} is merged more than once; expected one group for every region.")
        if taken := [new for new in groups if new in self.names and new not in named]:
            raise CaptumLeamError(
                f"{_listed(taken)} is the name of a region that is not merged; add it to its group or choose another name."
            )
        if taken := [new for new, parts in groups.items() if new in named and new not in parts]:
            raise CaptumLeamError(
                f"{_listed(taken)} is the name of a region that goes to another group; choose another name."
            )


def other_side(name: str) -> str:
    """Left for right at the beginning of a name, and the reverse; other names stay.

    Example:
        >>> other_side("left_eye"), other_side("right_mouth_corner"), other_side("nose")
        ('right_eye', 'left_mouth_corner', 'nose')
    """
    if name.startswith("left_"):
        return "right_" + name.removeprefix("left_")
    if name.startswith("right_"):
        return "left_" + name.removeprefix("right_")
    return name


def as_integers(labels: Any) -> Tensor:
    """Return a label map as an int64 tensor.

    Args:
        labels: tensor or array of integers, any shape.

    Raises:
        InputTypeError: for floats (they may be scores of classes).

    Example:
        >>> as_integers(torch.tensor([[0, 3]], dtype=torch.uint8)).dtype
        torch.int64
    """
    integers = as_tensor(labels)
    if integers.is_floating_point() or integers.is_complex():
        raise InputTypeError(
            f"labels are {integers.dtype}; expected a map of integers, one region each. Scores (N, K, H, W) become one by "
            "labels = scores.argmax(1), float integers by labels.long()."
        )
    return integers.long()


def _listed(names: Any) -> str:
    return ", ".join(repr(name) for name in names)


def _check_regions(regions: dict[Any, Any]) -> None:
    if not regions:
        raise CaptumLeamError("a scheme needs regions: {label integer: region name}, one or more.")
    if wrong := [label for label in regions if not isinstance(label, int) or isinstance(label, bool)]:
        raise InputTypeError(f"labels {_listed(wrong)} are no integers; expected {{label integer: region name}}.")
    if unnamed := [name for name in regions.values() if not isinstance(name, str)]:
        raise InputTypeError(f"names {_listed(unnamed)} are no text; expected {{label integer: region name}}.")
    names = list(regions.values())
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise CaptumLeamError(
            f"two regions are called {_listed(twice)}; expected one name each. Merge them with merge()."
        )


TEMPLATE = RegionScheme(
    {
        0: "background",
        1: "outline",
        2: "forehead",
        3: "left_brow",
        4: "right_brow",
        5: "left_eye",
        6: "right_eye",
        7: "nose",
        8: "left_cheek",
        9: "right_cheek",
        10: "mouth",
        11: "chin",
    },
    name="template",
    left="image",
)
"""Regions of :class:`~captum_leam.regions.TemplateParser`. Left is the *image's*, as in the five-point template."""

CELEBAMASK_HQ = RegionScheme(
    {
        0: "background",
        1: "skin",
        2: "nose",
        3: "glasses",
        4: "left_eye",
        5: "right_eye",
        6: "left_brow",
        7: "right_brow",
        8: "left_ear",
        9: "right_ear",
        10: "mouth",
        11: "upper_lip",
        12: "lower_lip",
        13: "hair",
        14: "hat",
        15: "earring",
        16: "necklace",
        17: "neck",
        18: "cloth",
    },
    name="celebamask_hq",
    left="person",
)
"""The 19 classes of CelebAMask-HQ (Lee et al. 2020). Left is the *person's*: label 4 lies at larger x than label 5.
The hand labels themselves swap both sides in some images (2 of 40 that were looked at), so where sides do not matter,
:meth:`~RegionScheme.merge_sides` first.

Parsers that order their classes differently need a scheme of their own. ``mouth`` is the inside of the mouth; for what
the template calls mouth, merge it with both lips.
"""
