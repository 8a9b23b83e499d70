"""Pictures that show the same: re-encoded, recompressed and resized copies, which are no references for each other."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from captum_leam.faces.sources import FaceSource

SIDE = 28
LIKENESS = 0.995
"""Cosine of two thumbnails from which on their pictures show the same.

Calibrated on 1492 pairs of different photographs (24 people in one session each, 15 people in colour, 40 portraits): the closest two have
.9894. Copies as JPEG of quality 30 and more, WebP of quality 50, GIF, in grey, or at half the size have .9970 and more.
"""

ROUNDING = 1e-3
"""Distance by which rounding may part thumbnails that are just alike."""

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, by which Pillow turns colours to grey


@dataclass(frozen=True)
class Thumbnails:
    """Thumbnails by which pictures are compared.

    Example:
        >>> from pathlib import Path
        >>> small = thumbnails_of([FaceSource(Path("crop.png"), torch.rand(3, 112, 112))])
        >>> small.crops.shape, small.photographs.any().item(), small.boxes.tolist()
        (torch.Size([1, 784]), False, [[0.0, 0.0, 0.0, 0.0]])
    """

    crops: Tensor
    """(N, 784), of the aligned crops."""
    photographs: Tensor
    """(N, 784), of the upright photographs as a whole; zeros where the file is a crop."""
    boxes: Tensor
    """(N, 4), left, top, right and bottom of the face as shares of the upright photograph; zeros where the file is a crop."""


def thumbnails_of(sources: Sequence[FaceSource]) -> Thumbnails:
    """Return the thumbnails of pictures."""
    none = torch.zeros(0, SIDE * SIDE, device="cpu", dtype=torch.float32)
    crops = [thumbnails(source.crop[None]) for source in sources]
    photos = [_upright_photo(source) for source in sources]
    photographs = [none.new_zeros(1, SIDE * SIDE) if photo is None else thumbnails(photo[None]) for photo in photos]
    boxes = [_upright_box(source)[None] for source in sources]
    return Thumbnails(torch.cat([none, *crops]), torch.cat([none, *photographs]), torch.cat([none[:, :4], *boxes]))


def thumbnails(images: Tensor) -> Tensor:
    """Reduce images to grey thumbnails whose dot product is their likeness, whatever the brightness and contrast.

    Args:
        images: RGB images of any size, (N, 3, H, W) in [0, 1].

    Returns:
        (N, 784), each with mean 0 and length 1; zeros for an image of one colour.

    Example:
        >>> image = torch.rand(1, 3, 56, 56)
        >>> one, darker = thumbnails(image), thumbnails(image / 2)
        >>> one.shape, round(float(one @ darker.T), 3)
        (torch.Size([1, 784]), 1.0)
    """
    small = torch.einsum("nchw,c->nhw", F.adaptive_avg_pool2d(images, SIDE), images.new_tensor(LUMA)).flatten(1)
    return F.normalize(small - small.mean(1, keepdim=True), dim=1)


def copies(small: Thumbnails, confirm: Callable[[int, int], bool]) -> dict[int, int]:
    """Find the pictures that show the same as an earlier one.

    The detector places its landmarks a little differently on a resized or recompressed photograph, so that crops of copies differ. Two
    photographs that agree as a whole, with the face at the same place, are therefore looked at again.

    Args:
        small: Thumbnails of all pictures.
        confirm: Whether two photographs, given by their indices, show the same face: :func:`shows_same_face`.

    Returns:
        Index of a copy → index of the first picture that shows the same and is no copy itself.

    Example:
        >>> from pathlib import Path
        >>> images = torch.rand(2, 3, 112, 112)
        >>> sources = [FaceSource(Path(f"{i}.png"), image) for i, image in enumerate([*images, images[0] / 2, images[1]])]
        >>> copies(thumbnails_of(sources), lambda a, b: shows_same_face(sources[a], sources[b]))
        {2: 0, 3: 1}
    """
    whole = _similar_pairs(small.photographs) if small.photographs.any() else iter(())
    return _first_copies(set(_similar_pairs(small.crops)), whole, small.boxes, confirm)


def copies_of_many(read: Callable[[], Iterable[Thumbnails]], confirm: Callable[[int, int], bool]) -> dict[int, int]:
    r"""Find the same as :func:`copies` without comparing all pairs, and without holding all thumbnails.

    Thumbnails with a cosine of c or more are at most :math:`\sqrt{2 (1 - c)}` apart, and so are their lowest frequencies, an orthogonal
    projection. A tree of these finds all pairs that near, and only these are compared as a whole: no pair is missed.

    Args:
        read: Function that returns the thumbnails of all pictures part after part, called twice.
        confirm: As in :func:`copies`.

    Returns:
        Index of a copy → index of the first picture that shows the same and is no copy itself.

    Example:
        >>> images = torch.rand(2, 3, 112, 112)
        >>> crops, nothing = thumbnails(torch.cat([images, images[:1] / 2])), torch.zeros(3, 784)
        >>> copies_of_many(lambda: [Thumbnails(crops, nothing, torch.zeros(3, 4))], lambda a, b: True)
        {2: 0}
    """
    low, boxes = _low_frequencies(), []
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
        {(a, b) for a, b in pairs if float(small[place[a]] @ small[place[b]]) >= LIKENESS}
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
    tree = cKDTree(points[rows].double().numpy())
    pairs = tree.query_pairs((2 * (1 - LIKENESS)) ** 0.5 + ROUNDING, output_type="ndarray")
    return [(max(pair), min(pair)) for pair in rows.numpy()[pairs].tolist()]


def _first_copies(
    pairs: set[tuple[int, int]],
    whole: Iterator[tuple[int, int]],
    boxes: Tensor,
    confirm: Callable[[int, int], bool],
) -> dict[int, int]:
    """Return the copies by pairs of crops that are alike, and pairs of whole photographs, which are confirmed."""
    again = (pair for pair in whole if pair not in pairs and _same_place(*boxes[[*pair]]))
    found: dict[int, int] = {}
    for later, earlier in sorted([*pairs, *[pair for pair in again if confirm(*pair)]]):
        if later not in found and earlier not in found:
            found[later] = earlier
    return found


def shows_same_face(a: FaceSource, b: FaceSource) -> bool:
    """Return whether one photograph shows, at the place of the other's face, the same.

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
    one, other = thumbnails(torch.stack([a.crop, a.face.to_crop(torch.rot90(resized, -a.face.turn // 90, (1, 2)))]))
    return bool(one @ other >= LIKENESS)


def _similar_pairs(small: Tensor, block: int = 1024) -> Iterator[tuple[int, int]]:
    """Yield pairs of rows, the later first, that are alike; a block of rows is compared with all earlier ones at a time."""
    for start in range(0, len(small), block):
        table = small[start : start + block] @ small[: start + block].T >= LIKENESS
        for row, earlier in table.tril(start - 1).nonzero().tolist():
            yield start + row, earlier


def _upright_photo(source: FaceSource) -> Tensor | None:
    """Return the photograph, turned as it was to find the face; None of an aligned crop."""
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


def _same_place(a: Tensor, b: Tensor) -> bool:
    """Return whether the centre of one box lies within the other."""
    centre = (b[:2] + b[2:]) / 2
    return bool((centre >= a[:2]).all() and (centre <= a[2:]).all())
