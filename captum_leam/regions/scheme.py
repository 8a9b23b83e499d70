"""Region schemes, which name the integers of label maps and define how regions are merged."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from captum_leam._engine.arithmetic import as_tensor
from captum_leam.errors import CaptumLeamError, InputTypeError

Side = Literal["image", "person"]
"""Whose left is meant: that of the image (smaller x), or that of the person (larger x in a photograph that is not mirrored)."""

PLURALS = {"brow": "brows", "eye": "eyes", "cheek": "cheeks", "ear": "ears"}
"""Names of merged pairs of sides; other pairs get an s."""


@dataclass(frozen=True)
class RegionScheme:
    """Names of the integer labels in a label map.

    A label map has one integer per pixel. A scheme says which region each integer means, and in which order reports list the regions.
    Use it to describe the labels of your own face parser; for published parsers there are ``CELEBAMASK_HQ`` and ``TEMPLATE``.

    Args:
        regions: Region name (str, unique) for each label (int), in the order of reports.
        name: Name of the scheme in messages and tables. Default: ``"custom"``.
        left: Whose left the names mean: ``"image"`` (smaller x) or ``"person"`` (larger x in a photograph that is not mirrored). Default:
            None, for names without sides.
        background: Name of the region that is not part of the face. None, or a name that is not in ``regions``, means that the scheme
            has no background. Default: ``"background"``.
        origin: Label of this scheme for each label of the schemes that it was merged from. :meth:`merge` fills it, so that you need not
            pass it. Default: empty.

    Raises:
        CaptumLeamError: If there are no regions, two have the same name, ``left`` is unknown, or ``origin`` has a label that the scheme
            lacks.
        InputTypeError: If a label is not an integer, or a name is not a string.

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
            raise CaptumLeamError(f'Expected left to be "image", "person" or None, got {self.left!r}.')
        origin = {**dict(self.origin), **{label: label for label in regions}}
        if unknown := sorted(set(origin.values()) - set(regions)):
            raise CaptumLeamError(f"Expected origin to hold labels of scheme {self.name!r}, got {unknown}.")
        object.__setattr__(self, "regions", regions)
        object.__setattr__(self, "origin", origin)

    def __hash__(self) -> int:
        return hash((self.name, self.left, self.background, frozenset(self.regions.items())))

    def __len__(self) -> int:
        return len(self.regions)

    @property
    def names(self) -> tuple[str, ...]:
        """Region names in order."""
        return tuple(self.regions.values())

    @property
    def labels(self) -> tuple[int, ...]:
        """Labels in the order of :attr:`names`."""
        return tuple(self.regions)

    def index(self, name: str) -> int:
        """Return the label of a region.

        Args:
            name: Name of the region, one of :attr:`names`.

        Returns:
            Label, an int.

        Raises:
            CaptumLeamError: If the scheme has no such region.

        Example:
            >>> CELEBAMASK_HQ.index("nose")
            2
            >>> int((torch.tensor([[0, 2], [2, 1]]) == CELEBAMASK_HQ.index("nose")).sum())  # pixels of the nose
            2
        """
        self._check_names([name])
        return next(label for label, region in self.regions.items() if region == name)

    def relabel(self, labels: Tensor) -> Tensor:
        """Convert a label map to this scheme after regions were merged.

        A face parser returns the labels of its own scheme, for example separate labels of both lips. After :meth:`merge` or
        :meth:`merge_sides`, call this method on the new scheme to give merged regions one label, that of their first part. All other
        labels stay as they are.

        Args:
            labels: Label map, integers of any shape, in the labels of this scheme or of the scheme that it was merged from.

        Returns:
            Label map in the labels of this scheme, int64, of the same shape and on the same device.

        Raises:
            InputTypeError: If the labels are not integers.
            CaptumLeamError: If a label is in neither scheme.

        Example:
            >>> labels = torch.tensor([[0, 10], [11, 12]])  # background, mouth, upper lip, lower lip
            >>> merged = CELEBAMASK_HQ.merge({"mouth": ["mouth", "upper_lip", "lower_lip"]})
            >>> merged.relabel(labels).tolist()
            [[0, 10], [10, 10]]
        """
        labels = as_integers(labels)
        values, positions = torch.unique(labels, return_inverse=True)
        if unknown := [value for value in values.tolist() if value not in self.origin]:
            raise CaptumLeamError(
                f"Expected labels of scheme {self.name!r}, {_join(self.regions)}, got {unknown}. Pass the scheme with which the labels "
                "were made."
            )
        own = torch.tensor([self.origin[value] for value in values.tolist()], dtype=torch.long, device=labels.device)
        return own[positions]

    def mask(self, labels: Tensor, *names: str) -> Tensor:
        """Return a mask of the pixels that belong to one of the named regions.

        Args:
            labels: Label map, integers of any shape, in the labels of this scheme or of the scheme that it was merged from.
            *names: Names of one or more regions, each one of :attr:`names`.

        Returns:
            Boolean mask of the shape of ``labels``, True in the named regions.

        Raises:
            InputTypeError: If the labels are not integers.
            CaptumLeamError: If no name is given, or the scheme does not have a name or a label.

        Example:
            >>> CELEBAMASK_HQ.mask(torch.tensor([[0, 2, 10]]), "nose", "mouth").tolist()
            [[False, True, True]]
        """
        if not names:
            raise CaptumLeamError(f"Expected names of one or more regions of {_join(self.names)}, got none.")
        selection = [self.index(name) for name in names]
        own = self.relabel(labels)
        return torch.isin(own, torch.tensor(selection, dtype=torch.int64, device=own.device))

    def merge(self, groups: Mapping[str, list[str] | tuple[str, ...]]) -> "RegionScheme":
        """Return a scheme in which each group of regions is one region.

        Use it where parts of the face need not be distinguished, such as the lips. A merged region has the position and the label of the
        first of its parts. The :meth:`relabel` of the new scheme converts label maps of this one.

        Args:
            groups: For each new name, the list of names of the regions to merge. Regions in no group stay as they are.

        Returns:
            New :class:`RegionScheme`. If the background is merged, its group is the new background.

        Raises:
            CaptumLeamError: If a group is empty, a region is unknown or in two groups, or a new name is that of a region outside the
                group.

        Example:
            >>> scheme = RegionScheme({0: "background", 1: "upper_lip", 2: "lower_lip", 3: "nose"})
            >>> merged = scheme.merge({"lips": ["upper_lip", "lower_lip"]})
            >>> merged.regions
            {0: 'background', 1: 'lips', 3: 'nose'}
            >>> merged.relabel(torch.tensor([0, 1, 2, 3])).tolist()
            [0, 1, 1, 3]
        """
        self._check_groups(groups)
        new_names = {old: new for new, parts in groups.items() for old in parts}
        first_labels: dict[str, int] = {}
        for label, old in self.regions.items():
            first_labels.setdefault(new_names.get(old, old), label)
        regions = {label: name for name, label in first_labels.items()}
        new_labels = {label: first_labels[new_names.get(old, old)] for label, old in self.regions.items()}
        origin = {label: new_labels[own] for label, own in self.origin.items()}
        background = None if self.background is None else new_names.get(self.background, self.background)
        return replace(self, regions=regions, origin=origin, background=background, name=f"{self.name}, merged")

    def merge_sides(self) -> "RegionScheme":
        """Return a scheme in which the left and right of each pair of regions, such as the eyes, are one region.

        Use it where sides do not matter, or where a data set does not label them reliably. Pairs are the names that differ in ``left_``
        and ``right_`` at their beginning only.

        Returns:
            New :class:`RegionScheme` with one region per pair, named by its plural. Regions without a partner stay as they are.

        Example:
            >>> scheme = RegionScheme({0: "background", 1: "left_eye", 2: "right_eye", 3: "nose"})
            >>> scheme.merge_sides().regions
            {0: 'background', 1: 'eyes', 3: 'nose'}
        """
        parts = [name.removeprefix("left_") for name in self.names if name.startswith("left_")]
        paired = [part for part in parts if f"right_{part}" in self.names]
        return self.merge({PLURALS.get(part, f"{part}s"): [f"left_{part}", f"right_{part}"] for part in paired})

    def swap_sides(self) -> "RegionScheme":
        """Return a scheme whose left and right refer to the other side convention.

        Names are exchanged: ``left_eye`` of the person becomes ``right_eye`` of the image.

        Returns:
            New scheme with the same labels, and ``left`` changed from ``"person"`` to ``"image"`` or from ``"image"`` to ``"person"``.

        Raises:
            CaptumLeamError: If ``left`` is None.

        Example:
            >>> CELEBAMASK_HQ.left, CELEBAMASK_HQ.regions[4]
            ('person', 'left_eye')
            >>> by_image = CELEBAMASK_HQ.swap_sides()
            >>> by_image.left, by_image.regions[4]
            ('image', 'right_eye')
        """
        if self.left is None:
            raise CaptumLeamError(
                f'Expected a scheme with left="image" or left="person", got None for scheme {self.name!r}.'
            )
        regions = {label: other_side(name) for label, name in self.regions.items()}
        return replace(self, regions=regions, left="image" if self.left == "person" else "person")

    def _check_names(self, names: list[str]) -> None:
        if unknown := [name for name in names if name not in self.names]:
            raise CaptumLeamError(
                f"Expected names of regions of scheme {self.name!r}, {_join(self.names)}, got {_join(unknown)}."
            )

    def _check_groups(self, groups: Mapping[str, list[str] | tuple[str, ...]]) -> None:
        for new, parts in groups.items():
            if isinstance(parts, str) or not parts:
                raise CaptumLeamError(
                    f"Expected group {new!r} to be a list of one or more region names, got {parts!r}."
                )
            self._check_names(list(parts))
        grouped = [part for parts in groups.values() for part in parts]
        if repeated := sorted({part for part in grouped if grouped.count(part) > 1}):
            raise CaptumLeamError(f"Expected each region to be in one group, got {_join(repeated)} more than once.")
        if conflicts := [new for new in groups if new in self.names and new not in groups[new]]:
            raise CaptumLeamError(
                f"Expected new names for the groups, got {_join(conflicts)}, the name of a region outside the group. Add that region to "
                "the group, or choose another name."
            )


def other_side(name: str) -> str:
    """Return a region name with left and right exchanged at its beginning.

    Args:
        name: Name of a region. Names without a side are returned unchanged.

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
        labels: Integer tensor or array of any shape.

    Raises:
        InputTypeError: If the labels are not integers.

    Example:
        >>> as_integers(torch.tensor([[0, 3]], dtype=torch.uint8)).dtype
        torch.int64
    """
    integers = as_tensor(labels)
    if integers.is_floating_point() or integers.is_complex():
        raise InputTypeError(
            f"Expected labels to be integers, one per pixel, got {integers.dtype}. Convert scores (N, K, H, W) by scores.argmax(1), and "
            "float integers by labels.long()."
        )
    return integers.long()


def _join(names: Any) -> str:
    return ", ".join(repr(name) for name in names)


def _check_regions(regions: dict[Any, Any]) -> None:
    if not regions:
        raise CaptumLeamError("Expected regions to hold one name or more, {label: name}, got none.")
    if wrong := [label for label in regions if not isinstance(label, int) or isinstance(label, bool)]:
        raise InputTypeError(f"Expected regions to be {{label: name}} with integers as labels, got {_join(wrong)}.")
    if wrong := [name for name in regions.values() if not isinstance(name, str)]:
        raise InputTypeError(f"Expected regions to be {{label: name}} with strings as names, got {_join(wrong)}.")
    names = list(regions.values())
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise CaptumLeamError(
            f"Expected regions to have unique names, got {_join(repeated)} more than once. Merge regions with merge()."
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
"""Regions of :class:`~captum_leam.regions.TemplateParser`. Left is that of the *image*, as in the five-point template."""

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
"""The 19 classes of CelebAMask-HQ (Lee et al. 2020).

Left is that of the *person*: label 4 lies at larger x than label 5. The hand labels of the data set swap the sides in some images (2 of
40 inspected ones), so apply :meth:`~RegionScheme.merge_sides` where sides do not matter. ``mouth`` is the inside of the mouth; merge it
with both lips for the mouth of the template. Parsers with another order of classes need their own scheme.
"""
