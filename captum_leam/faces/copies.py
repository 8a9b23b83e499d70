"""Find copies among pictures, also recompressed or resized ones, which cannot serve as references for each other."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from captum_leam.faces.sources import FaceSource

SIDE = 28  # side of a thumbnail in px
MIN_COSINE = 0.995
"""Minimum cosine of the thumbnails of two copies.

It was calibrated on 1492 pairs of different photographs (24 people in one session each, 15 people in colour, 40 portraits), whose highest
cosine is .9894. Copies as JPEG of quality 30 and more, as WebP of quality 50, as GIF, in grey or at half the size have .9970 and more.
"""

ROUNDING = 1e-3
"""Additional distance of similar thumbnails that allows for rounding."""

TREE_DIMENSIONS = 8
"""Number of low frequencies, those that vary most, by which near thumbnails are searched before they are compared as a whole."""

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in Pillow's conversion to grey


@dataclass(frozen=True)
class Thumbnails:
    """Thumbnails of pictures and the positions of their faces.

    Example:
        >>> from pathlib import Path
        >>> small = thumbnails_of([FaceSource(Path("crop.png"), torch.rand(3, 112, 112))])
        >>> small.crops.shape, small.photographs.any().item(), small.boxes.tolist()
        (torch.Size([1, 784]), False, [[0.0, 0.0, 0.0, 0.0]])
    """

    crops: Tensor
    """Thumbnails of the aligned crops, shape (N, 784)."""
    photographs: Tensor
    """Thumbnails of the whole upright photographs, shape (N, 784), zero for files that are crops."""
    boxes: Tensor
    """Left, top, right and bottom of the faces as shares of the upright photographs, shape (N, 4), zero for files that are crops."""


def thumbnails_of(sources: Sequence[FaceSource]) -> Thumbnails:
    """Return the thumbnails of faces from files.

    Args:
        sources: Faces with their crops and photographs.

    Example:
        >>> from pathlib import Path
        >>> thumbnails_of([FaceSource(Path("crop.png"), torch.rand(3, 112, 112))] * 2).crops.shape
        torch.Size([2, 784])
    """
    return joined([_thumbnails_of_one(source) for source in sources])


def joined(parts: Sequence[Thumbnails]) -> Thumbnails:
    """Return thumbnails of several parts as one.

    Example:
        >>> from pathlib import Path
        >>> part = thumbnails_of([FaceSource(Path("crop.png"), torch.rand(3, 112, 112))])
        >>> joined([part, part]).crops.shape, joined([]).boxes.shape
        (torch.Size([2, 784]), torch.Size([0, 4]))
    """
    empty = torch.zeros(0, SIDE * SIDE, device="cpu", dtype=torch.float32)
    every = [Thumbnails(empty, empty, empty[:, :4]), *parts]
    return Thumbnails(
        torch.cat([part.crops for part in every]),
        torch.cat([part.photographs for part in every]),
        torch.cat([part.boxes for part in every]),
    )


def _thumbnails_of_one(source: FaceSource) -> Thumbnails:
    crop, photo = thumbnails(source.crop[None]), _upright_photo(source)
    photograph = crop.new_zeros(1, SIDE * SIDE) if photo is None else thumbnails(photo[None])
    return Thumbnails(crop, photograph, _upright_box(source)[None])


def thumbnails(images: Tensor) -> Tensor:
    """Return grey thumbnails whose dot product measures similarity independently of brightness and contrast.

    Args:
        images: RGB images of any size, shape (N, 3, H, W), in [0, 1].

    Returns:
        Thumbnails of shape (N, 784) with mean 0 and length 1, or zero for images of one colour.

    Example:
        >>> image = torch.rand(1, 3, 56, 56)
        >>> thumbnail, darker = thumbnails(image), thumbnails(image / 2)
        >>> thumbnail.shape, round(float(thumbnail @ darker.T), 3)
        (torch.Size([1, 784]), 1.0)
    """
    small = torch.einsum("nchw,c->nhw", F.adaptive_avg_pool2d(images, SIDE), images.new_tensor(LUMA)).flatten(1)
    return F.normalize(small - small.mean(1, keepdim=True), dim=1)


def match_copies(thumbnails: Thumbnails, confirm: Callable[[int, int], bool]) -> dict[int, int]:
    """Return the pictures that are copies of an earlier one.

    The detector places landmarks slightly differently on a resized or recompressed photograph, so that the crops of copies may differ.
    Pairs of similar photographs with the face at the same place are therefore passed to ``confirm``.

    Args:
        thumbnails: Thumbnails of all pictures.
        confirm: Function from the indices of two photographs to whether they show the same face, usually :func:`shows_same_face`.

    Returns:
        Index of the first picture of which it is a copy, for the index of each copy.

    Example:
        >>> from pathlib import Path
        >>> images = torch.rand(2, 3, 112, 112)
        >>> sources = [FaceSource(Path(f"{i}.png"), image) for i, image in enumerate([*images, images[0] / 2, images[1]])]
        >>> match_copies(thumbnails_of(sources), lambda a, b: shows_same_face(sources[a], sources[b]))
        {2: 0, 3: 1}
    """
    photo_pairs = _similar_pairs(thumbnails.photographs) if thumbnails.photographs.any() else iter(())
    return _first_copies(set(_similar_pairs(thumbnails.crops)), photo_pairs, thumbnails.boxes, confirm)


def match_copies_of_many(
    read: Callable[[], Iterable[Thumbnails]], confirm: Callable[[int, int], bool]
) -> dict[int, int]:
    r"""Return what :func:`match_copies` returns, without comparing all pairs and without holding all thumbnails.

    Thumbnails with a cosine of c or more are at most :math:`\sqrt{2 (1 - c)}` apart, and so are their lowest frequencies, an orthogonal
    projection. A tree of these finds all pairs that near, and only these are compared as a whole: no pair is missed.

    Args:
        read: Function that returns the thumbnails of all pictures part after part, called twice.
        confirm: As in :func:`match_copies`.

    Returns:
        Index of a copy → index of the first picture that shows the same and is no copy itself.

    Example:
        >>> images = torch.rand(2, 3, 112, 112)
        >>> crops, nothing = thumbnails(torch.cat([images, images[:1] / 2])), torch.zeros(3, 784)
        >>> match_copies_of_many(lambda: [Thumbnails(crops, nothing, torch.zeros(3, 4))], lambda a, b: True)
        {2: 0}
    """
    low, boxes = _low_frequencies(), list[Tensor]()
    projected: tuple[list[Tensor], list[Tensor]] = ([], [])
    for part in read():
        boxes.append(part.boxes)
        for kept, of_kind in zip(projected, (part.crops, part.photographs), strict=True):
            kept.append(of_kind @ low)
    near = [_near_pairs(torch.cat(of_kind)) for of_kind in projected]
    wanted = torch.tensor(
        sorted({row for pairs in near for pair in pairs for row in pair}), dtype=torch.int64, device="cpu"
    )
    place, first, rows = {int(row): i for i, row in enumerate(wanted)}, 0, []
    for part in read():
        own = wanted[(wanted >= first) & (wanted < first + len(part.crops))] - first
        rows.append((part.crops[own], part.photographs[own]))
        first += len(part.crops)
    alike = [
        {(a, b) for a, b in pairs if float(small[place[a]] @ small[place[b]]) >= MIN_COSINE}
        for pairs, small in zip(near, map(torch.cat, zip(*rows, strict=True)), strict=True)
    ]
    return _first_copies(alike[0], iter(alike[1]), torch.cat(boxes), confirm)


def _low_frequencies(count: int = 6) -> Tensor:
    """Return the lowest frequencies (784, count² − 1) of the cosine transform, orthonormal; without the mean, which is 0."""
    place = torch.arange(SIDE, dtype=torch.float32, device="cpu") + 0.5
    waves = torch.cos(torch.outer(place, torch.arange(count, device="cpu")) * torch.pi / SIDE)
    waves = F.normalize(waves, dim=0)
    return torch.einsum("ia,jb->ijab", waves, waves).reshape(SIDE * SIDE, count**2)[:, 1:]


def _near_pairs(points: Tensor) -> list[tuple[int, int]]:
    """Return pairs of rows, the later first, that are near enough for their thumbnails to be alike; zeros are near nothing."""
    from scipy.spatial import cKDTree

    rows = points.any(1).nonzero().ravel()
    if not len(rows):
        return []
    values, radius = points[rows].double().numpy(), (2 * (1 - MIN_COSINE)) ** 0.5 + ROUNDING
    # A tree of more dimensions visits nearly all points.
    axes = np.argsort(-values.std(0), kind="stable")[:TREE_DIMENSIONS]
    pairs = cKDTree(values[:, axes]).query_pairs(radius, output_type="ndarray")
    blocks = np.array_split(pairs, len(pairs) // 100_000 + 1)
    is_near = [np.linalg.norm(values[block[:, 0]] - values[block[:, 1]], axis=1) <= radius for block in blocks]
    pairs = pairs[np.concatenate(is_near)]
    return [(max(pair), min(pair)) for pair in rows.numpy()[pairs].tolist()]


def _first_copies(
    pairs: set[tuple[int, int]],
    photo_pairs: Iterator[tuple[int, int]],
    boxes: Tensor,
    confirm: Callable[[int, int], bool],
) -> dict[int, int]:
    """Return the copies from pairs of similar crops and from confirmed pairs of similar photographs."""
    candidates = (pair for pair in photo_pairs if pair not in pairs and _is_same_place(*boxes[[*pair]]))
    originals: dict[int, int] = {}
    for later, earlier in sorted([*pairs, *[pair for pair in candidates if confirm(*pair)]]):
        if later not in originals and earlier not in originals:
            originals[later] = earlier
    return originals


def shows_same_face(a: FaceSource, b: FaceSource) -> bool:
    """Return whether a second photograph shows the same pixels at the place of the first photograph's face.

    Args:
        a: Face of the first photograph.
        b: Face of the second photograph.

    Returns:
        True if the crops at that place are copies, False if they differ or a file is a crop.

    Example:
        >>> from pathlib import Path
        >>> from captum_leam.faces import ARCFACE_112, align
        >>> photo = torch.rand(3, 200, 300)
        >>> face = align(photo, ARCFACE_112 + 40)
        >>> source = FaceSource(Path("photo.png"), face.crop, face, photo)
        >>> shows_same_face(source, source)
        True
    """
    photo, other_photo = _upright_photo(a), _upright_photo(b)
    if a.face is None or photo is None or other_photo is None:
        return False
    resized = F.interpolate(other_photo[None], photo.shape[1:], mode="bilinear", antialias=True)[0]
    other_crop = a.face.to_crop(torch.rot90(resized, -a.face.turn // 90, (1, 2)))
    thumbnail, other_thumbnail = thumbnails(torch.stack([a.crop, other_crop]))
    return bool(thumbnail @ other_thumbnail >= MIN_COSINE)


def _similar_pairs(rows: Tensor, block: int = 1024) -> Iterator[tuple[int, int]]:
    """Yield the indices (later, earlier) of similar rows, comparing a block of rows with all earlier ones at a time."""
    for start in range(0, len(rows), block):
        is_similar = rows[start : start + block] @ rows[: start + block].T >= MIN_COSINE
        for row, earlier in is_similar.tril(start - 1).nonzero().tolist():
            yield start + row, earlier


def _upright_photo(source: FaceSource) -> Tensor | None:
    """Return the photograph in the rotation in which the face is upright, or None for an aligned crop."""
    if source.face is None or source.photo is None:
        return None
    return torch.rot90(source.photo, source.face.turn // 90, (1, 2))


def _upright_box(source: FaceSource) -> Tensor:
    if source.face is None:
        return torch.zeros(4, device="cpu", dtype=torch.float32)
    height, width = source.face.photo_size
    left, top, right, bottom = (source.face.box / [width, height, width, height]).tolist()
    for _ in range(source.face.turn // 90):
        left, top, right, bottom = top, 1 - right, bottom, 1 - left
    return torch.tensor([left, top, right, bottom], device="cpu", dtype=torch.float32)


def _is_same_place(a: Tensor, b: Tensor) -> bool:
    """Return whether the centre of the second box lies within the first."""
    centre = (b[:2] + b[2:]) / 2
    return bool((centre >= a[:2]).all() and (centre <= a[2:]).all())
