"""Which parts of the face a map stands on: shares, areas, lift, fragments and the nearest landmark."""

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
    """Label maps from any parser: a callable that returns label maps, or scores of classes.

    Args:
        parser: images -> integers (N, H, W), or floats (N, K, H, W), one score for every class.
        images: (N, C, H, W), in the range that the parser reads.

    Returns:
        (N, H, W), int64; of scores, the class with the highest.

    Raises:
        InputTypeError: if the parser returns something else than one tensor.
        CaptumLeamError: for another shape, scores of one class only, or NaN scores.

    Example:
        >>> def skin_or_hair(images):  # scores of two classes
        ...     return torch.stack([images.mean(1), 1 - images.mean(1)], dim=1)
        >>> parse(skin_or_hair, torch.tensor([[[[0.9, 0.2]]]])).tolist()
        [[[0, 1]]]
    """
    with torch.no_grad():
        answer = parser(images)
    if not isinstance(answer, Tensor):
        raise InputTypeError(
            f"the parser returned a {type(answer).__name__}; expected one tensor, integers (N, H, W) or scores "
            "(N, K, H, W). If it is a tuple: parse(lambda x: net(x)[0], images)."
        )
    scores = answer.is_floating_point()
    wanted = (len(images), *images.shape[-2:])
    got = (len(answer), *answer.shape[-2:]) if answer.ndim == (4 if scores else 3) else None
    if got != wanted:
        raise CaptumLeamError(
            f"the parser returned {answer.dtype} of shape {tuple(answer.shape)} for images {tuple(images.shape)}; expected "
            f"integers {wanted}, or float scores ({wanted[0]}, K, {wanted[1]}, {wanted[2]})."
        )
    return _best_class(answer) if scores else as_integers(answer)


def _best_class(scores: Tensor) -> Tensor:
    if scores.shape[1] < 2:
        raise CaptumLeamError("the parser returned scores of one class only; expected two or more, or integer labels.")
    if bool(torch.isnan(scores).any()):
        raise CaptumLeamError("the parser returned NaN scores; check its weights and the range of the images.")
    return scores.argmax(dim=1)


# -- per region ----------------------------------------------------------------------------------------


def region_sums(values: Tensor, labels: Tensor, regions: Sequence[int]) -> Tensor:
    """Return the sum of the values over the pixels of every region.

    Args:
        values: Values (N, H, W), or (N, L, H, W) of several maps of each image.
        labels: Integers (N, H, W), or (1, H, W) for all.
        regions: K label integers.

    Returns:
        Sums (N, K) or (N, L, K), float64; of float32 maps (N, L, H, W) float32, from one matrix product, which is many times faster.

    Example:
        >>> region_sums(torch.tensor([[[1.0, 2.0, 4.0]]]), torch.tensor([[[5, 0, 5]]]), [0, 5]).tolist()
        [[2.0, 5.0]]
    """
    if values.ndim == 4 and values.dtype == torch.float32:
        inside = torch.stack([labels.flatten(1) == region for region in regions], -1).float()
        with own_arithmetic(values.device):
            return values.flatten(2) @ (inside[0] if len(inside) == 1 else inside)
    flat, where = values.double().flatten(-2), labels.flatten(1)
    where = where[:, None] if values.ndim == 4 else where
    sums = [(flat * (where == region)).sum(-1) for region in regions]
    return torch.stack(sums, dim=-1) if sums else flat.new_zeros(*flat.shape[:-1], 0)


def region_share(critical: Tensor, labels: Tensor, regions: Sequence[int]) -> Tensor:
    """Return the share of the critical pixels that lies in every region.

    Args:
        critical: Booleans (N, H, W), see :func:`~captum_leam.top_fraction`, one pixel or more; or indices of pixels (N, L, C), int64, of
            several maps of each image.
        labels: Integers (N, H, W), or (1, H, W) for all.
        regions: K label integers.

    Returns:
        Shares (N, K) or (N, L, K) within [0, 1], float64; they sum to 1 where ``regions`` holds every label.

    Example:
        >>> critical = torch.tensor([[[True, True, True, True, False]]])
        >>> region_share(critical, torch.tensor([[[1, 1, 1, 0, 0]]]), [0, 1]).tolist()
        [[0.25, 0.75]]
        >>> region_share(torch.tensor([[[0, 1, 2, 3]]]), torch.tensor([[[1, 1, 1, 0, 0]]]), [0, 1]).tolist()
        [[[0.25, 0.75]]]
    """
    if critical.dtype == torch.bool:
        return region_sums(critical, labels, regions) / critical.double().sum((1, 2))[:, None]
    where = labels.flatten(1).expand(len(critical), -1).gather(1, critical.flatten(1)).view(critical.shape)
    return torch.stack([(where == region).sum(-1) for region in regions], -1).double() / critical.shape[-1]


def region_mass(maps: Tensor, labels: Tensor, regions: Sequence[int]) -> Tensor:
    """Return the share of the positive attribution that lies in every region.

    Args:
        maps: Maps (N, H, W) or (N, 1, H, W), signed.
        labels: Integers (N, H, W).
        regions: K label integers.

    Returns:
        Shares (N, K) within [0, 1], float64; they sum to 1 where ``regions`` holds every label.

    Raises:
        CaptumLeamError: For a map without any positive value.

    Example:
        >>> region_mass(torch.tensor([[[3.0, -9.0, 1.0]]]), torch.tensor([[[1, 1, 0]]]), [0, 1]).tolist()
        [[0.25, 0.75]]
    """
    return region_sums(normalize_sum(as_maps(maps).double()), labels, regions)


def region_area(labels: Tensor, regions: Sequence[int]) -> Tensor:
    """Return the share of the pixels of the crop that every region covers.

    Args:
        labels: Integers (N, H, W).
        regions: K label integers.

    Returns:
        Shares (N, K) within [0, 1], float64.

    Example:
        >>> region_area(torch.tensor([[[1, 1], [1, 0]]]), [0, 1, 2]).tolist()
        [[0.25, 0.75, 0.0]]
    """
    counts = [(labels == region).flatten(1).sum(1) for region in regions]
    if not counts:
        return torch.zeros(len(labels), 0, dtype=torch.float64, device=labels.device)
    return torch.stack(counts, 1).double() / max(1, labels.shape[-2] * labels.shape[-1])


def effective_number(shares: Tensor) -> Tensor:
    r"""Effective number of regions: :math:`\exp(-\sum_k p_k \log p_k)`.

    Args:
        shares: (..., K), not negative, sums to 1 over the last axis.

    Returns:
        (...), from 1 (all in one region) to K (the same in each), float64.

    Example:
        >>> effective_number(torch.tensor([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]])).tolist()
        [2.0, 1.0]
    """
    entropy: Tensor = torch.special.entr(shares.double()).sum(-1)
    return entropy.exp()


# -- per crop ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fragments:
    """Connected pieces of the critical pixels of one image.

    Example:
        >>> Fragments(count=2, largest=0.75, centroid=(10.0, 20.5)).largest
        0.75
    """

    count: int
    """How many pieces there are; pixels that touch at a corner are one piece."""
    largest: float
    """Share of the critical pixels that is in the largest piece."""
    centroid: tuple[float, float]
    """Mean (x, y) of the largest piece in pixels; of several, the one that begins highest in the image."""


def fragments(critical: Tensor) -> Fragments:
    """Find the connected pieces (8 neighbours) of the critical pixels of one image.

    Args:
        critical: boolean, (H, W), one pixel or more.

    Raises:
        CaptumLeamError: for another shape, or without any pixel.

    Example:
        >>> fragments(torch.tensor([[1, 0, 0, 1], [0, 1, 0, 0]], dtype=torch.bool))
        Fragments(count=2, largest=0.66..., centroid=(0.5, 0.5))
    """
    mask = np.asarray(critical.cpu(), dtype=np.bool_)
    if mask.ndim != 2 or not mask.any():
        raise CaptumLeamError(
            f"critical has shape {mask.shape} and {int(mask.sum())} pixels; expected (H, W), 1 or more."
        )
    pieces, count = ndimage.label(mask, structure=np.ones((3, 3)))
    sizes = np.bincount(pieces.ravel())[1:]
    rows, columns = np.nonzero(pieces == sizes.argmax() + 1)
    return Fragments(int(count), float(sizes.max() / sizes.sum()), (float(columns.mean()), float(rows.mean())))


def landmark_distances(points: ArrayLike, landmarks: Points) -> Points:
    """Distance of every point to every landmark.

    Args:
        points: (P, 2) as (x, y).
        landmarks: (5, 2) as (x, y).

    Returns:
        (P, 5), in pixels.

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
    """Which regions of the face the maps stand on: one row for every image and region.

    Columns, of every region:

    * ``share``: of the critical pixels (the top fraction by rank); sums to 1 over the regions of an image.
    * ``mass``: share of the positive attribution of the whole crop; sums to 1.
    * ``area``: share of the pixels of the crop.
    * ``lift``: share / area. Pixels drawn by chance from the crop give 1; NaN for a region that the image lacks. Under
      ``of="face"`` chance gives 1 / (share of the crop that is face) within the face, and 0 outside.

    The same in all rows of an image:

    * ``fragments``: number of connected pieces (8 neighbours) of the critical pixels; ``largest_fragment``: share of
      the critical pixels that the largest has.
    * ``effective_regions``: exp of the entropy of ``mass``, from 1 (all in one region) to the number of regions.
    * ``nearest_landmark``, ``landmark_distance``: of the five points, the one nearest to the centroid of the largest
      piece, and how many pixels lie between. Within a report left has one meaning, that of the scheme: under one that
      means the person's left (``scheme.left == "person"``, as CelebAMask-HQ), so do the names of landmarks. Without
      scheme, or without a side in it, left is the image's.

    Args:
        maps: (N, H, W) or (N, 1, H, W), tensor or array, signed, larger speaks for the match.
        labels: integers, (N, H, W), or (H, W) shared: from :class:`TemplateParser`, or any parser through :func:`parse`.
        scheme: names of the integers; labels of a scheme it was merged from are relabelled. Without one, the regions are
            the integers that occur, named by themselves.
        fraction: Fraction of the pixels that is critical, in (0, 1]. Default: 0.01.
        of: fraction of the pixels of the ``"crop"``, or of the ``"face"`` only.
        face: boolean, (N, H, W) or (H, W), the face under ``of="face"``. By default everything that is not the
            background of the scheme (without scheme, label 0): for CelebAMask-HQ that counts hair and clothes, so
            give ``scheme.mask(labels, "skin", "nose", …)`` there.
        landmarks: (5, 2), or (N, 5, 2): (x, y) in pixels of the maps, in the order of ``LANDMARK_NAMES``. By default those
            of the standard crop, scaled to the size of the maps.
        seed: Seed of the permutations, one per image, that break ties. Default: 0.

    Returns:
        N × regions rows, images from 0, regions in the order of the scheme.

    Raises:
        CaptumLeamError: for labels or a face of another size than the maps, integers that the scheme does not know, NaN
            maps, maps without positive value, a fraction outside (0, 1], or an empty face.
        InputTypeError: for labels that are no integers.

    Example:
        >>> from captum_leam.regions import TemplateParser
        >>> maps = torch.zeros(1, 112, 112)
        >>> maps[0, 62:80, 50:62] = 1.0
        >>> parser = TemplateParser()
        >>> report = region_report(maps, parser(maps[:, None]), parser.scheme)
        >>> nose = report.set_index("region").loc["nose"]
        >>> print(nose.share, nose.mass, round(nose.area, 3), round(nose.lift), nose.nearest_landmark)
        1.0 1.0 0.035 29 nose_tip
    """
    report = RegionReport(scheme, fraction=fraction, of=of, seed=seed)
    report.update(maps, labels, face=face, landmarks=landmarks)
    return report.compute()


class RegionReport:
    """The table of :func:`region_report`, batch after batch, for maps that do not fit into memory.

    Any split of the maps gives the table of one call; states of several parts can be merged, in any order.

    Args:
        scheme: As for :func:`region_report`.
        fraction: As for :func:`region_report`.
        of: As for :func:`region_report`.
        seed: As for :func:`region_report`.

    Example:
        >>> maps, labels = torch.rand(3, 8, 8), torch.ones(3, 8, 8, dtype=torch.int64)
        >>> report = RegionReport(fraction=0.1)
        >>> report.update(maps[:2], labels[:2])
        >>> report.update(maps[2:], labels[2:])
        >>> report.compute().equals(region_report(maps, labels, fraction=0.1))
        True
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
        """Add maps.

        Args:
            maps: As for :func:`region_report`.
            labels: As for :func:`region_report`.
            face: As for :func:`region_report`.
            landmarks: As for :func:`region_report`.
            start: Number of the first image. Default: as many as were given before.

        Raises:
            CaptumLeamError: As for :func:`region_report`.
        """
        if start is None:
            start = max((part.start + len(part.share) for part in self._parts), default=0)
        maps = as_maps(maps).detach().cpu().double()
        labels = _fit(as_integers(labels).cpu(), maps, "labels")
        points = _landmarks_of(maps, landmarks)
        regions = _regions_of(labels, self.scheme)
        labels = labels if self.scheme is None else self.scheme.relabel(labels)
        within = _within(maps, labels, self.scheme, self.of, face)
        critical = top_fraction(maps, self.fraction, within=within, seed=self.seed, start=start)
        numbers = list(regions)
        mass = region_mass(maps, labels, numbers)
        share, area = region_share(critical, labels, numbers), region_area(labels, numbers)
        crops = _crop_rows(critical, mass, points, _landmark_names(self.scheme))
        self._parts.append(_ReportPart(start, regions, share.numpy(), mass.numpy(), area.numpy(), crops))

    def merge(self, other: RegionReport) -> None:
        """Add the maps of another report with the same settings.

        Raises:
            InputTypeError: If it is no report.
            CaptumLeamError: If the settings differ.
        """
        if not isinstance(other, RegionReport):
            raise InputTypeError(f"Expected a RegionReport, got a {type(other).__name__}.")
        if self._settings() != other._settings():
            raise CaptumLeamError(f"Expected a report with the settings {self._settings()}, got {other._settings()}.")
        self._parts = [*self._parts, *other._parts]

    def _settings(self) -> dict[str, Any]:
        return {"scheme": self.scheme, "fraction": self.fraction, "of": self.of, "seed": self.seed}

    def compute(self) -> pd.DataFrame:
        """Return the table of all maps so far.

        Raises:
            CaptumLeamError: If parts overlap.
        """
        if not self._parts:
            raise CaptumLeamError("Expected maps, got none. Call update first.")
        parts = sorted(self._parts, key=lambda part: part.start)
        if any(one.start + len(one.share) > two.start for one, two in pairwise(parts)):
            raise CaptumLeamError("Expected every image once, got parts that overlap. Pass `start` to update.")
        regions = dict(sorted({label: name for part in parts for label, name in part.regions.items()}.items()))
        if self.scheme is not None:
            regions = parts[0].regions
        images = np.concatenate([np.arange(len(part.share)) + part.start for part in parts])
        columns: dict[str, Any] = {"image": images.repeat(len(regions)), "region": [*regions.values()] * len(images)}
        for name in ("share", "mass", "area"):
            columns[name] = np.concatenate([part.of_regions(name, regions).reshape(-1) for part in parts])
        with np.errstate(invalid="ignore"):
            columns["lift"] = columns["share"] / columns["area"]  # 0 / 0, NaN, where the image lacks the region
        rows = [row for part in parts for row in part.crops]
        of_crops = pd.DataFrame(rows, columns=list(CROP_COLUMNS)).assign(image=images)
        return pd.DataFrame(columns, columns=list(COLUMNS)).merge(of_crops, on="image", how="left")


@dataclass(frozen=True)
class _ReportPart:
    """What one update found: regions by label, arrays (N, K), and a row of each crop."""

    start: int
    regions: dict[int, str]
    share: NDArray[np.float64]
    mass: NDArray[np.float64]
    area: NDArray[np.float64]
    crops: list[tuple[Any, ...]]

    def of_regions(self, name: str, regions: dict[int, str]) -> NDArray[np.float64]:
        """Return an array by name with a column for each region, 0 where it occurs in no image of this part."""
        own: NDArray[np.float64] = getattr(self, name)
        if regions == self.regions:
            return own
        table = np.zeros((len(own), len(regions)))
        table[:, [list(regions).index(label) for label in self.regions]] = own
        return table


def landmark_table(
    maps: Tensor, landmarks: ArrayLike | None = None, *, fraction: float = 0.01, seed: int = 0
) -> pd.DataFrame:
    """Which of the five landmarks the critical pixels lie next to: one row for every image and landmark.

    Columns: ``share`` of the critical pixels whose nearest landmark it is (sums to 1 over an image), and their mean
    ``distance`` to it in pixels, NaN where there are none. Left is the image's.

    Args:
        maps: Maps (N, H, W) or (N, 1, H, W), tensor or array.
        landmarks: (5, 2), or (N, 5, 2): (x, y) in pixels of the maps, in the order of ``LANDMARK_NAMES``. By default those
            of the standard crop, scaled to the size of the maps.
        fraction: Fraction of the pixels that is critical, in (0, 1]. Default: 0.01.
        seed: Seed of the permutations, one per image, that break ties. Default: 0.

    Returns:
        N × 5 rows.

    Raises:
        CaptumLeamError: for maps that cannot be ranked, or landmarks of another shape.

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
    points = _landmarks_of(maps, landmarks)
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
        own = distances[nearest == index, index]
        rows.append((name, len(own) / len(pixels), float(own.mean()) if len(own) else float("nan")))
    return rows


def _crop_rows(critical: Tensor, mass: Tensor, landmarks: Points, names: Sequence[str]) -> list[tuple[Any, ...]]:
    rows = []
    for image, regions in enumerate(effective_number(mass).tolist()):
        pieces = fragments(critical[image])
        distances = landmark_distances([pieces.centroid], landmarks[image])[0]
        nearest = int(distances.argmin())
        rows.append((pieces.count, pieces.largest, regions, names[nearest], float(distances[nearest])))
    return rows


# -- what was given ------------------------------------------------------------------------------------


def _fit(given: Tensor, maps: Tensor, what: str) -> Tensor:
    if tuple(given.shape) not in (tuple(maps.shape), tuple(maps.shape[1:])):
        raise CaptumLeamError(
            f"{what} have shape {tuple(given.shape)}, the maps {tuple(maps.shape)}; expected one for every pixel: "
            f"{tuple(maps.shape)}, or {tuple(maps.shape[1:])} shared. Bring layer maps to image size first: "
            "place_on_field(maps, size)."
        )
    return given.expand_as(maps)


def _regions_of(labels: Tensor, scheme: RegionScheme | None) -> dict[int, str]:
    if scheme is None:
        return {label: str(label) for label in torch.unique(labels).tolist()}
    return dict(scheme.regions)


def _within(maps: Tensor, labels: Tensor, scheme: RegionScheme | None, of: str, face: Tensor | None) -> Tensor | None:
    if of not in ("crop", "face"):
        raise CaptumLeamError(f'of is {of!r}; expected "crop" or "face".')
    if of == "crop":
        if face is not None:
            raise CaptumLeamError('face= is given, but the fraction is of the crop; add of="face" or leave it out.')
        return None
    if face is not None:
        return _fit(as_tensor(face).bool().cpu(), maps, "face")
    if scheme is None:
        return labels != 0
    if scheme.background not in scheme.names:
        raise CaptumLeamError(
            f"scheme {scheme.name!r} has no background, so what is face is unknown; give face=, a boolean mask."
        )
    return ~scheme.mask(labels, scheme.background)


def _landmarks_of(maps: Tensor, landmarks: ArrayLike | None) -> Points:
    size = (maps.shape[1], maps.shape[2])
    points = rescale(ARCFACE_LANDMARKS, STANDARD_SIZE, size) if landmarks is None else as_landmarks(landmarks)
    if points.ndim == 3 and len(points) != len(maps):
        raise CaptumLeamError(
            f"landmarks have shape {points.shape} for {len(maps)} maps; expected (5, 2) or (N, 5, 2)."
        )
    return np.broadcast_to(points, (len(maps), 5, 2))


def _landmark_names(scheme: RegionScheme | None) -> tuple[str, ...]:
    if scheme is not None and scheme.left == "person":
        return tuple(other_side(name) for name in LANDMARK_NAMES)
    return LANDMARK_NAMES
