"""Report how attribution is distributed over regions of the face: share, mass, area, lift, fragments and nearest landmark."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from torch import Tensor

from captum_leam._engine.arithmetic import as_array, as_tensor, own_arithmetic
from captum_leam._optional import pd
from captum_leam.errors import CaptumLeamError, InputTypeError
from captum_leam.maps import as_maps, normalize_sum, top_fraction
from captum_leam.regions.scheme import RegionScheme, as_integers, other_side
from captum_leam.regions.template import (
    ARCFACE_LANDMARKS,
    LANDMARK_NAMES,
    STANDARD_SIZE,
    Points,
    as_landmarks,
    rescale,
)

COLUMNS = ("image", "region", "share", "mass", "area", "lift")
CROP_COLUMNS = ("fragments", "largest_fragment", "effective_regions", "nearest_landmark", "landmark_distance")
LANDMARK_COLUMNS = ("image", "landmark", "share", "distance")


# -- label maps ----------------------------------------------------------------------------------------


def parse(parser: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Return the label maps of any parser that returns labels or scores of classes.

    Args:
        parser: Function from images to integer labels (N, H, W), or to floating-point scores (N, K, H, W) of K classes.
        images: Images of shape (N, C, H, W), in the range that the parser expects.

    Returns:
        Label maps of shape (N, H, W), int64. Scores become the class with the highest score.

    Raises:
        InputTypeError: If the parser does not return one tensor.
        CaptumLeamError: If the output has another shape, or scores of a single class or NaN.

    See Also:
        * :class:`~captum_leam.regions.TemplateParser`: Regions without a trained parser.
        * :class:`~captum_leam.regions.FacexlibParser`: Regions from a trained parser.

    Example:
        >>> def skin_or_hair(images):  # scores of two classes
        ...     return torch.stack([images.mean(1), 1 - images.mean(1)], dim=1)
        >>> parse(skin_or_hair, torch.tensor([[[[0.9, 0.2]]]])).tolist()
        [[[0, 1]]]
    """
    with torch.no_grad():
        output = parser(images)
    if not isinstance(output, Tensor):
        raise InputTypeError(
            f"Expected parser to return one tensor of integers (N, H, W) or scores (N, K, H, W), got a {type(output).__name__}. Select the "
            "tensor of a tuple with parse(lambda x: net(x)[0], images)."
        )
    is_score = output.is_floating_point()
    expected = (len(images), *images.shape[-2:])
    shape = (len(output), *output.shape[-2:]) if output.ndim == (4 if is_score else 3) else None
    if shape != expected:
        raise CaptumLeamError(
            f"Expected parser to return integers {expected} or scores ({expected[0]}, K, {expected[1]}, {expected[2]}) for images "
            f"{tuple(images.shape)}, got {output.dtype} of shape {tuple(output.shape)}."
        )
    return _best_class(output) if is_score else as_integers(output)


def _best_class(scores: Tensor) -> Tensor:
    if scores.shape[1] < 2:
        raise CaptumLeamError(
            "Expected parser to return scores of two classes or more, or integer labels, got one class."
        )
    if bool(torch.isnan(scores).any()):
        raise CaptumLeamError(
            "Expected parser to return finite scores, got NaN. Check its weights and the range of the images."
        )
    return scores.argmax(dim=1)


# -- per region ----------------------------------------------------------------------------------------


def region_sums(values: Tensor, labels: Tensor, regions: Sequence[int]) -> Tensor:
    """Return the sums of values over the pixels of each region.

    Args:
        values: Values of shape (N, H, W), or (N, L, H, W) for several maps per image.
        labels: Label maps of shape (N, H, W), or (1, H, W) for all images.
        regions: K labels.

    Returns:
        Sums of shape (N, K) or (N, L, K), float64. For float32 maps (N, L, H, W) they are float32, from a faster matrix product.

    Example:
        >>> region_sums(torch.tensor([[[1.0, 2.0, 4.0]]]), torch.tensor([[[5, 0, 5]]]), [0, 5]).tolist()
        [[2.0, 5.0]]
    """
    if values.ndim == 4 and values.dtype == torch.float32:
        masks = torch.stack([labels.flatten(1) == region for region in regions], -1).float()
        with own_arithmetic(values.device):
            return values.flatten(2) @ (masks[0] if len(masks) == 1 else masks)
    flat, pixel_labels = values.double().flatten(-2), labels.flatten(1)
    pixel_labels = pixel_labels[:, None] if values.ndim == 4 else pixel_labels
    sums = [(flat * (pixel_labels == region)).sum(-1) for region in regions]
    return torch.stack(sums, dim=-1) if sums else flat.new_zeros(*flat.shape[:-1], 0)


def region_share(critical: Tensor, labels: Tensor, regions: Sequence[int]) -> Tensor:
    """Return the share of the critical pixels in each region.

    Args:
        critical: Boolean masks of shape (N, H, W) with one critical pixel or more, see :func:`~captum_leam.top_fraction`; or indices of
            critical pixels, shape (N, L, C), int64, for several maps per image.
        labels: Label maps of shape (N, H, W), or (1, H, W) for all images.
        regions: K labels.

    Returns:
        Shares of shape (N, K) or (N, L, K) in [0, 1], float64. They sum to 1 if ``regions`` holds every label.

    See Also:
        :func:`~captum_leam.regions.region_report`: Share, mass, area and lift in one table.

    Example:
        >>> critical = torch.tensor([[[True, True, True, True, False]]])
        >>> region_share(critical, torch.tensor([[[1, 1, 1, 0, 0]]]), [0, 1]).tolist()
        [[0.25, 0.75]]
        >>> region_share(torch.tensor([[[0, 1, 2, 3]]]), torch.tensor([[[1, 1, 1, 0, 0]]]), [0, 1]).tolist()
        [[[0.25, 0.75]]]
    """
    if critical.dtype == torch.bool:
        return region_sums(critical, labels, regions) / critical.double().sum((1, 2))[:, None]
    pixel_labels = labels.flatten(1).expand(len(critical), -1).gather(1, critical.flatten(1)).view(critical.shape)
    return torch.stack([(pixel_labels == region).sum(-1) for region in regions], -1).double() / critical.shape[-1]


def region_mass(maps: Tensor, labels: Tensor, regions: Sequence[int]) -> Tensor:
    """Return the share of the positive attribution in each region.

    Args:
        maps: Signed maps of shape (N, H, W) or (N, 1, H, W).
        labels: Label maps of shape (N, H, W).
        regions: K labels.

    Returns:
        Shares of shape (N, K) in [0, 1], float64. They sum to 1 if ``regions`` holds every label.

    Raises:
        NoEvidenceError: If a map has no positive value.

    See Also:
        :func:`~captum_leam.regions.region_report`: Share, mass, area and lift in one table.

    Example:
        >>> region_mass(torch.tensor([[[3.0, -9.0, 1.0]]]), torch.tensor([[[1, 1, 0]]]), [0, 1]).tolist()
        [[0.25, 0.75]]
    """
    return region_sums(normalize_sum(as_maps(maps).double()), labels, regions)


def region_area(labels: Tensor, regions: Sequence[int]) -> Tensor:
    """Return the share of the pixels of the crop in each region.

    Args:
        labels: Label maps of shape (N, H, W).
        regions: K labels.

    Returns:
        Shares of shape (N, K) in [0, 1], float64.

    See Also:
        :func:`~captum_leam.regions.region_report`: Share, mass, area and lift in one table.

    Example:
        >>> region_area(torch.tensor([[[1, 1], [1, 0]]]), [0, 1, 2]).tolist()
        [[0.25, 0.75, 0.0]]
    """
    counts = [(labels == region).flatten(1).sum(1) for region in regions]
    if not counts:
        return torch.zeros(len(labels), 0, dtype=torch.float64, device=labels.device)
    return torch.stack(counts, 1).double() / max(1, labels.shape[-2] * labels.shape[-1])


def effective_number(shares: Tensor) -> Tensor:
    r"""Return the effective number of regions, :math:`\exp(-\sum_k p_k \log p_k)`.

    Args:
        shares: Shares p of shape (..., K), non-negative, with sum 1 over the last axis.

    Returns:
        Numbers of shape (...), float64, from 1 (one region holds everything) to K (all regions hold the same).

    Example:
        >>> effective_number(torch.tensor([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]])).tolist()
        [2.0, 1.0]
    """
    entropy: Tensor = torch.special.entr(shares.double()).sum(-1)
    return entropy.exp()


# -- per crop ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fragments:
    """Connected fragments of the critical pixels of one image, as :func:`fragments` returns them.

    Example:
        >>> Fragments(count=2, largest=0.75, centroid=(10.0, 20.5)).largest
        0.75
    """

    count: int
    """Number of fragments. Pixels that touch at a corner are connected."""
    largest: float
    """Share of the critical pixels in the largest fragment."""
    centroid: tuple[float, float]
    """Mean position (x, y) of the largest fragment in pixels. Among several, the one with the topmost pixel is used."""


def fragments(critical: Tensor) -> Fragments:
    """Count the connected fragments of the critical pixels of one image.

    Pixels that touch at an edge or a corner are connected. Few fragments mean that the evidence is in few places.

    Args:
        critical: Boolean mask of shape (H, W) with one critical pixel or more, as :func:`~captum_leam.top_fraction` returns for each map.

    Returns:
        Number of fragments, and size and centre of the largest one, as :class:`Fragments`.

    Raises:
        CaptumLeamError: If the mask has another shape or no critical pixel.

    See Also:
        :func:`~captum_leam.regions.region_report`: Number of fragments of many maps.

    Example:
        >>> fragments(torch.tensor([[1, 0, 0, 1], [0, 1, 0, 0]], dtype=torch.bool))
        Fragments(count=2, largest=0.66..., centroid=(0.5, 0.5))
    """
    mask = np.asarray(critical.cpu(), dtype=np.bool_)
    if mask.ndim != 2 or not mask.any():
        raise CaptumLeamError(
            f"Expected critical to be a mask of shape (H, W) with one pixel or more, got shape {mask.shape} with {int(mask.sum())} pixels."
        )
    numbers, count = ndimage.label(mask, structure=np.ones((3, 3)))
    sizes = np.bincount(numbers.ravel())[1:]
    rows, columns = np.nonzero(numbers == sizes.argmax() + 1)
    return Fragments(int(count), float(sizes.max() / sizes.sum()), (float(columns.mean()), float(rows.mean())))


def landmark_distances(points: ArrayLike, landmarks: Points) -> Points:
    """Return the distance of each point to each landmark.

    Args:
        points: Points (x, y) of shape (P, 2), in pixels.
        landmarks: Five landmarks (x, y), shape (5, 2), in pixels.

    Returns:
        Distances of shape (P, 5) in pixels.

    Example:
        >>> landmark_distances([(0, 0)], np.array([(3, 4), (0, 0), (1, 0), (0, 2), (6, 8)])).tolist()
        [[5.0, 0.0, 1.0, 2.0, 10.0]]
    """
    offsets = as_array(points)[:, None] - landmarks[None]
    distances: Points = np.linalg.norm(offsets, axis=-1)
    return distances


# -- tables --------------------------------------------------------------------------------------------


def region_report(
    maps: Tensor,
    labels: Tensor,
    scheme: RegionScheme | None = None,
    *,
    fraction: float = 0.01,
    of: Literal["crop", "face"] = "crop",
    face: Tensor | None = None,
    landmarks: ArrayLike | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Return a table of how much attribution each region of the face holds.

    Use it to put an attribution map into words. The critical pixels of a map are those with the highest values, by default the top 1 %.
    The lift of a region compares its share of them with its size::

        lift = share of the critical pixels in the region / share of the crop that the region covers

    A lift above 1 means that the region matters more than its size predicts.

    Args:
        maps: Signed maps of shape (N, H, W) or (N, 1, H, W), tensor or array. Positive values support the match.
        labels: Label of the region of each pixel, integers of shape (N, H, W), or (H, W) for all images, for example from
            :class:`TemplateParser` or :class:`FacexlibParser`.
        scheme: Names of the labels, such as ``parser.scheme``, or a scheme that was merged from it. Default: None, for regions named by
            the labels that occur.
        fraction: Fraction of the pixels that is critical, in (0, 1]. Default: 0.01.
        of: Pixels among which the critical ones are selected. ``"crop"``: all pixels. ``"face"``: pixels of the face only. Default:
            ``"crop"``.
        face: Boolean masks of the face for ``of="face"``, shape (N, H, W) or (H, W). Default: everything except the background of the
            scheme, or label 0 without a scheme. For CelebAMask-HQ this includes hair and clothes, so that
            ``scheme.mask(labels, "skin", "nose", …)`` is preferable.
        landmarks: Landmarks (x, y) in pixels of the maps, shape (5, 2) or (N, 5, 2), in the order of ``LANDMARK_NAMES``. Default: those
            of the standard crop, scaled to the size of the maps.
        seed: Seed of the permutations, one per image, that break ties. Default: 0.

    Returns:
        Data frame with one row per image and region, in the order of the scheme. Columns that describe the region:

        * image: Number of the image, from 0.
        * region: Name of the region.
        * share: Share of the critical pixels, in [0, 1]. It sums to 1 over the regions of an image.
        * mass: Share of the sum of the positive values, in [0, 1]. It sums to 1 over the regions of an image.
        * area: Share of the pixels of the crop, in [0, 1].
        * lift: ``share`` / ``area``, 0 or more. 1 is expected of random pixels of the crop. NaN if the image lacks the region.

        Columns that describe the image, equal in all of its rows:

        * fragments: Number of connected fragments of the critical pixels. Pixels that touch at a corner are connected.
        * largest_fragment: Share of the critical pixels in the largest fragment, in (0, 1].
        * effective_regions: Effective number of regions by ``mass``, see :func:`effective_number`. 1 if one region holds everything.
        * nearest_landmark: Landmark nearest to the centre of the largest fragment, such as ``"nose_tip"``. Left and right are those of
          the person if ``scheme.left == "person"``, else those of the image.
        * landmark_distance: Distance from that centre to the landmark in pixels.

    Raises:
        InputTypeError: If the labels are not integers.
        NoEvidenceError: If a map has no positive value.
        CaptumLeamError: If labels or face do not have the size of the maps, the scheme does not have a label, a map is not finite, the
            fraction is outside (0, 1], or a face is empty.

    Note:
        With ``of="face"``, random pixels have a lift above 1 inside the face, 1 / (share of the face in the crop), and 0 outside.

    See Also:
        * :func:`~captum_leam.regions.over_people`: Means over people with intervals.
        * :class:`~captum_leam.regions.RegionReport`: The same table from several batches.
        * :func:`~captum_leam.regions.lift_drawing`: Drawing of the lift on a schematic face.

    Example:
        >>> from captum_leam.regions import TemplateParser
        >>> maps = torch.zeros(1, 112, 112)
        >>> maps[0, 62:80, 50:62] = 1.0  # evidence in the nose
        >>> maps[0, 48:54, 34:42] = 0.5  # and in one eye
        >>> parser = TemplateParser()
        >>> report = region_report(maps, parser(maps[:, None]), parser.scheme, fraction=0.02)
        >>> report.loc[report["share"] > 0, ["image", "region", "share", "mass", "area", "lift"]].round(2)
           image      region  share  mass  area   lift
        5      0    left_eye   0.10  0.07  0.00  19.66
        7      0        nose   0.86  0.90  0.04  24.53
        8      0  left_cheek   0.04  0.03  0.11   0.39
    """
    report = RegionReport(scheme, fraction=fraction, of=of, seed=seed)
    report.update(maps, labels, face=face, landmarks=landmarks)
    return report.compute()


class RegionReport:
    """Region report that is filled batch by batch, for maps that do not fit into memory.

    Call :meth:`update` with each batch, and :meth:`compute` for the table of :func:`region_report`. The table does not depend on how the
    maps are split. Reports of several processes can be joined by :meth:`merge`.

    Args:
        scheme: Scheme of the labels, or one that was merged from it. Default: None, for regions named by the labels that occur.
        fraction: Fraction of the pixels that is critical, in (0, 1]. Default: 0.01.
        of: Pixels among which the critical ones are selected. ``"crop"``: all pixels. ``"face"``: pixels of the face only. Default:
            ``"crop"``.
        seed: Seed of the permutations, one per image, that break ties. Default: 0.

    See Also:
        :func:`~captum_leam.regions.region_report`: The table in one call.

    Example:
        >>> maps = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> labels = torch.zeros(8, 8, dtype=torch.int64)
        >>> labels[2:] = 1
        >>> report = RegionReport(RegionScheme({0: "hair", 1: "face"}), fraction=0.1)
        >>> for batch in maps.split(2):
        ...     report.update(batch, labels)
        >>> report.compute()[["image", "region", "share", "area", "lift"]].round(2).head(4)
           image region  share  area  lift
        0      0   hair   0.17  0.25  0.67
        1      0   face   0.83  0.75  1.11
        2      1   hair   0.50  0.25  2.00
        3      1   face   0.50  0.75  0.67
    """

    def __init__(
        self,
        scheme: RegionScheme | None = None,
        *,
        fraction: float = 0.01,
        of: Literal["crop", "face"] = "crop",
        seed: int = 0,
    ) -> None:
        self.scheme, self.fraction, self.of, self.seed = scheme, fraction, of, seed
        self._parts: list[_ReportPart] = []

    def update(
        self,
        maps: Tensor,
        labels: Tensor,
        *,
        face: Tensor | None = None,
        landmarks: ArrayLike | None = None,
        start: int | None = None,
    ) -> None:
        """Add the maps of a batch.

        Args:
            maps: Signed maps of shape (N, H, W) or (N, 1, H, W), tensor or array.
            labels: Label maps, integers of shape (N, H, W), or (H, W) for all images.
            face: Boolean masks of the face for ``of="face"``, shape (N, H, W) or (H, W). Default: as for :func:`region_report`.
            landmarks: Landmarks (x, y) in pixels of the maps, shape (5, 2) or (N, 5, 2). Default: those of the standard crop.
            start: Number of the first image of the batch in the whole set, 0 or more. Pass it if batches come out of order or from
                several processes. Default: the number after that of the last image.

        Raises:
            InputTypeError: If the labels are not integers.
            NoEvidenceError: If a map has no positive value.
            CaptumLeamError: If the arguments do not fit, as for :func:`region_report`.

        Example:
            >>> maps = torch.rand(6, 8, 8, generator=torch.Generator().manual_seed(0))
            >>> report = RegionReport(fraction=0.1)
            >>> for batch in maps.split(2):  # three batches of two images
            ...     report.update(batch, torch.ones(8, 8, dtype=torch.int64))
            >>> report.compute()["image"].tolist()
            [0, 1, 2, 3, 4, 5]
        """
        if start is None:
            start = max((part.start + len(part.share) for part in self._parts), default=0)
        maps = as_maps(maps).detach().cpu().double()
        labels = _expand_to_maps(as_integers(labels).cpu(), maps, "labels")
        points = _map_landmarks(maps, landmarks)
        regions = _region_names(labels, self.scheme)
        labels = labels if self.scheme is None else self.scheme.relabel(labels)
        within = _face_mask(maps, labels, self.scheme, self.of, face)
        critical = top_fraction(maps, self.fraction, within=within, seed=self.seed, start=start)
        numbers = list(regions)
        mass = region_mass(maps, labels, numbers)
        share, area = region_share(critical, labels, numbers), region_area(labels, numbers)
        crops = _crop_rows(critical, mass, points, _landmark_names(self.scheme))
        self._parts.append(_ReportPart(start, regions, share.numpy(), mass.numpy(), area.numpy(), crops))

    def merge(self, other: RegionReport) -> None:
        """Add the maps of another report.

        Use it to join the reports of several processes, in any order. The images of both must have different numbers, see ``start`` of
        :meth:`update`.

        Args:
            other: :class:`RegionReport` of other images with the same scheme, fraction, ``of`` and seed. It is not changed.

        Raises:
            InputTypeError: If ``other`` is not a report.
            CaptumLeamError: If the settings differ.

        Example:
            >>> maps = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
            >>> labels = torch.ones(8, 8, dtype=torch.int64)
            >>> first, second = RegionReport(), RegionReport()
            >>> first.update(maps[:2], labels)
            >>> second.update(maps[2:], labels, start=2)  # perhaps in another process
            >>> first.merge(second)
            >>> first.compute()["image"].tolist()
            [0, 1, 2]
        """
        if not isinstance(other, RegionReport):
            raise InputTypeError(f"Expected other to be a RegionReport, got a {type(other).__name__}.")
        if self._settings() != other._settings():
            raise CaptumLeamError(f"Expected other to have the settings {self._settings()}, got {other._settings()}.")
        self._parts = [*self._parts, *other._parts]

    def _settings(self) -> dict[str, Any]:
        return {"scheme": self.scheme, "fraction": self.fraction, "of": self.of, "seed": self.seed}

    def compute(self) -> pd.DataFrame:
        """Return the table of all maps added so far.

        Returns:
            Table with one row per image and region, as :func:`region_report` returns it. Images are in the order of their numbers.

        Raises:
            CaptumLeamError: If there are no maps, or an image was added twice.

        Example:
            >>> report = RegionReport(RegionScheme({0: "background", 1: "nose"}), fraction=0.25)
            >>> report.update(torch.tensor([[[0.0, 1.0], [2.0, 1.0]]]), torch.tensor([[0, 0], [1, 1]]))
            >>> report.compute()[["image", "region", "share", "mass", "area", "lift"]]
               image      region  share  mass  area  lift
            0      0  background    0.0  0.25   0.5   0.0
            1      0        nose    1.0  0.75   0.5   2.0
        """
        if not self._parts:
            raise CaptumLeamError("Expected maps, got none. Call update first.")
        parts = sorted(self._parts, key=lambda part: part.start)
        if any(part.start + len(part.share) > following.start for part, following in pairwise(parts)):
            raise CaptumLeamError("Expected each image once, got batches that overlap. Pass `start` to update.")
        regions = dict(sorted({label: name for part in parts for label, name in part.regions.items()}.items()))
        if self.scheme is not None:
            regions = parts[0].regions
        images = np.concatenate([np.arange(len(part.share)) + part.start for part in parts])
        columns: dict[str, Any] = {"image": images.repeat(len(regions)), "region": [*regions.values()] * len(images)}
        for name in ("share", "mass", "area"):
            columns[name] = np.concatenate([part.region_columns(name, regions).reshape(-1) for part in parts])
        with np.errstate(invalid="ignore"):
            columns["lift"] = columns["share"] / columns["area"]  # 0 / 0 = NaN if the image lacks the region
        rows = [row for part in parts for row in part.crops]
        crop_table = pd.DataFrame(rows, columns=list(CROP_COLUMNS)).assign(image=images)
        return pd.DataFrame(columns, columns=list(COLUMNS)).merge(crop_table, on="image", how="left")


@dataclass(frozen=True)
class _ReportPart:
    """Result of one update: names by label, arrays (N, K) per region, and one row per crop."""

    start: int
    regions: dict[int, str]
    share: NDArray[np.float64]
    mass: NDArray[np.float64]
    area: NDArray[np.float64]
    crops: list[tuple[Any, ...]]

    def region_columns(self, name: str, regions: dict[int, str]) -> NDArray[np.float64]:
        """Return an array by name with one column per region, 0 for regions that occur in no image of this part."""
        values: NDArray[np.float64] = getattr(self, name)
        if regions == self.regions:
            return values
        columns = np.zeros((len(values), len(regions)))
        columns[:, [list(regions).index(label) for label in self.regions]] = values
        return columns


def landmark_table(
    maps: Tensor, landmarks: ArrayLike | None = None, *, fraction: float = 0.01, seed: int = 0
) -> pd.DataFrame:
    """Return a table of how many critical pixels lie nearest to each of the five landmarks.

    Use it to locate the evidence roughly, at the eyes, the nose or the mouth, if no region labels are available.

    Args:
        maps: Signed maps of shape (N, H, W) or (N, 1, H, W), tensor or array.
        landmarks: Landmarks (x, y) in pixels of the maps, shape (5, 2) or (N, 5, 2), in the order of ``LANDMARK_NAMES``. Default: those
            of the standard crop, scaled to the size of the maps.
        fraction: Fraction of the pixels that is critical, in (0, 1]. Default: 0.01.
        seed: Seed of the permutations, one per image, that break ties. Default: 0.

    Returns:
        Data frame with one row per image and landmark, five per image, and the columns:

        * image: Number of the image, from 0.
        * landmark: Name of the landmark. Left and right are those of the image.
        * share: Share of the critical pixels that are nearest to this landmark, in [0, 1]. It sums to 1 over an image.
        * distance: Mean distance of these pixels to the landmark in pixels. NaN if there are none.

    Raises:
        CaptumLeamError: If a map is not finite, or the landmarks have another shape.

    See Also:
        :func:`~captum_leam.regions.region_report`: Attribution by region.

    Example:
        >>> maps = torch.zeros(1, 112, 112)
        >>> maps[0, 72, 56], maps[0, 52, 41] = 2.0, 1.0
        >>> landmark_table(maps, fraction=2 / 112**2).round(2)
           image             landmark  share  distance
        0      0             left_eye    0.5      2.72
        1      0            right_eye    0.0       NaN
        2      0             nose_tip    0.5      0.26
        3      0    left_mouth_corner    0.0       NaN
        4      0   right_mouth_corner    0.0       NaN
    """
    maps = as_maps(maps).detach().cpu().double()
    points = _map_landmarks(maps, landmarks)
    critical = top_fraction(maps, fraction, seed=seed)
    rows = [
        (image, name, *values)
        for image in range(len(maps))
        for name, *values in _landmark_rows(critical[image], points[image])
    ]
    return pd.DataFrame(rows, columns=list(LANDMARK_COLUMNS))


def _landmark_rows(critical: Tensor, landmarks: Points) -> list[tuple[str, float, float]]:
    pixels = critical.nonzero().flip(1).numpy()
    distances = landmark_distances(pixels, landmarks)
    nearest = distances.argmin(axis=1)
    rows = []
    for index, name in enumerate(LANDMARK_NAMES):
        to_landmark = distances[nearest == index, index]
        mean = float(to_landmark.mean()) if len(to_landmark) else float("nan")
        rows.append((name, len(to_landmark) / len(pixels), mean))
    return rows


def _crop_rows(critical: Tensor, mass: Tensor, landmarks: Points, names: Sequence[str]) -> list[tuple[Any, ...]]:
    rows = []
    for image, regions in enumerate(effective_number(mass).tolist()):
        found = fragments(critical[image])
        distances = landmark_distances([found.centroid], landmarks[image])[0]
        nearest = int(distances.argmin())
        rows.append((found.count, found.largest, regions, names[nearest], float(distances[nearest])))
    return rows


# -- validation ----------------------------------------------------------------------------------------


def _expand_to_maps(values: Tensor, maps: Tensor, name: str) -> Tensor:
    if tuple(values.shape) not in (tuple(maps.shape), tuple(maps.shape[1:])):
        raise CaptumLeamError(
            f"Expected {name} to have shape {tuple(maps.shape)} or {tuple(maps.shape[1:])}, as the maps, got {tuple(values.shape)}. "
            "Resize layer maps to image size first, with place_on_field(maps, size)."
        )
    return values.expand_as(maps)


def _region_names(labels: Tensor, scheme: RegionScheme | None) -> dict[int, str]:
    if scheme is None:
        return {label: str(label) for label in torch.unique(labels).tolist()}
    return dict(scheme.regions)


def _face_mask(
    maps: Tensor, labels: Tensor, scheme: RegionScheme | None, of: str, face: Tensor | None
) -> Tensor | None:
    if of not in ("crop", "face"):
        raise CaptumLeamError(f'Expected of to be "crop" or "face", got {of!r}.')
    if of == "crop":
        if face is not None:
            raise CaptumLeamError(
                'Expected face only with of="face", got face and of="crop". Omit face, or pass of="face".'
            )
        return None
    if face is not None:
        return _expand_to_maps(as_tensor(face).bool().cpu(), maps, "face")
    if scheme is None:
        return labels != 0
    if scheme.background not in scheme.names:
        raise CaptumLeamError(
            f"Expected face with a scheme that has no background, got None for scheme {scheme.name!r}. Pass face, a boolean mask."
        )
    return ~scheme.mask(labels, scheme.background)


def _map_landmarks(maps: Tensor, landmarks: ArrayLike | None) -> Points:
    size = (maps.shape[1], maps.shape[2])
    points = rescale(ARCFACE_LANDMARKS, STANDARD_SIZE, size) if landmarks is None else as_landmarks(landmarks)
    if points.ndim == 3 and len(points) != len(maps):
        raise CaptumLeamError(
            f"Expected landmarks to have shape (5, 2) or ({len(maps)}, 5, 2) for {len(maps)} maps, got {points.shape}."
        )
    return np.broadcast_to(points, (len(maps), 5, 2))


def _landmark_names(scheme: RegionScheme | None) -> tuple[str, ...]:
    if scheme is not None and scheme.left == "person":
        return tuple(other_side(name) for name in LANDMARK_NAMES)
    return LANDMARK_NAMES
