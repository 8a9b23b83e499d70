"""Copies are found whatever they are saved as; different photographs of one person are none."""

import io
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from captum_leam.faces import ARCFACE_112, FaceSource, align, read_crop, read_face
from captum_leam.faces.copies import (
    MIN_COSINE,
    Thumbnails,
    match_copies,
    match_copies_of_many,
    shows_same_face,
    thumbnails,
    thumbnails_of,
)
from captum_leam.faces.photos import as_rgb
from captum_leam.synthetic import SyntheticPopulation

SAVED = {  # what people do to a picture before they save it again
    "png": ("PNG", {}),
    "bmp": ("BMP", {}),
    "gif": ("GIF", {}),
    "jpeg 95": ("JPEG", {"quality": 95}),
    "jpeg 75": ("JPEG", {"quality": 75}),
    "jpeg 30": ("JPEG", {"quality": 30}),
    "webp 50": ("WEBP", {"quality": 50}),
}
CHANGED = {
    "as it is": lambda image: image,
    "grey": lambda image: image.convert("L"),
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "twice the size": lambda image: image.resize((image.width * 2, image.height * 2), Image.Resampling.BICUBIC),
    "darker": lambda image: image.point(lambda value: int(0.7 * value)),
}


def saved(image: Image.Image, how: str) -> torch.Tensor:
    name, options = SAVED[how]
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    with Image.open(buffer) as again:
        return as_rgb(again)


def likeness(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((thumbnails(a[None]) * thumbnails(b[None])).sum())


def picture(image: torch.Tensor) -> Image.Image:
    return Image.fromarray((image.movedim(0, -1) * 255).round().byte().numpy())


STRONG = {"jpeg 30", "webp 50"}  # compression that is as much as a copy may lose
COPIES = [
    pair for pair in product(SAVED, CHANGED) if pair[0] not in STRONG or pair[1] in ("as it is", "twice the size")
]


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(COPIES), st.integers(0, 10**6))
def test_a_copy_is_found_whatever_it_is_saved_as(kind, seed):
    how, change = kind
    face, other = SyntheticPopulation(2, seed=seed % 7).sample([0, 0], seed=seed).images
    copy = saved(CHANGED[change](picture(face)), how)
    assert likeness(face, copy) >= MIN_COSINE
    assert likeness(other, copy) < MIN_COSINE


def test_a_copy_names_the_first_that_is_none_itself():
    images = torch.rand(4, 3, 56, 56)
    sources = [FaceSource(Path(f"{i}.png"), images[i]) for i in (0, 1, 1, 0, 2, 0, 2)]
    assert match_copies(thumbnails_of(sources), lambda a, b: False) == {2: 1, 3: 0, 5: 0, 6: 4}
    assert match_copies(thumbnails_of([]), lambda a, b: False) == {}
    blank = [FaceSource(Path(f"{i}.png"), torch.full((3, 56, 56), i / 4)) for i in (1, 2)]
    assert match_copies(thumbnails_of(blank), lambda a, b: False) == {}


def photographs(turn: int = 0, move: float = 0.0, size: int = 400) -> tuple[FaceSource, FaceSource]:
    """A photograph, and a copy of it that is resized and turned and in which the landmarks were found a little elsewhere."""
    photo = torch.nn.functional.interpolate(torch.rand(1, 3, 40, 60), (400, 600), mode="bicubic")[0].clamp(0, 1)
    small = torch.nn.functional.interpolate(photo[None], (size, size * 3 // 2), mode="bilinear", antialias=True)[0]
    place = ARCFACE_112 + np.array([200, 150])
    points = (place, (place + move) * size / 400)
    made = [FaceSource(Path("a.png"), (face := align(photo, points[0])).crop, face, photo)]
    turned = torch.rot90(small, -turn // 90, (1, 2))
    height, width = small.shape[1:]
    for _ in range(turn // 90):  # a turn of the pixels clockwise
        points = (points[0], np.array([[height - 1 - y, x] for x, y in points[1]]))
        height, width = width, height
    face = replace(align(turned, points[1]), turn=turn)
    return made[0], FaceSource(Path("b.png"), face.crop, face, turned)


@pytest.mark.parametrize(("turn", "size"), list(product((0, 90, 180, 270), (400, 200))))
def test_a_photograph_is_found_again_resized_turned_and_with_other_landmarks(turn, size):
    sources = photographs(turn, move=4.0, size=size)
    assert likeness(sources[0].crop, sources[1].crop) < MIN_COSINE  # the crops alone do not say so
    assert match_copies(thumbnails_of(sources), lambda a, b: shows_same_face(sources[a], sources[b])) == {1: 0}


def test_another_face_of_the_same_photograph_is_no_copy():
    first, second = photographs(move=130.0)
    assert match_copies(thumbnails_of([first, second]), lambda a, b: shows_same_face(first, second)) == {}


def test_other_faces_before_the_same_wall_are_no_copies():
    """Most of the two photographs is the same; the face is not."""
    first, _ = photographs()
    changed = first.photo.clone()
    changed[:, 225:240, 240:270] += 0.3 * torch.rand(15, 30)
    face = align(changed.clamp(0, 1), first.face.landmarks)
    other = FaceSource(Path("b.png"), face.crop, face, changed.clamp(0, 1))
    assert likeness(first.photo, other.photo) >= MIN_COSINE
    assert not shows_same_face(first, other)


# -- real pictures -------------------------------------------------------------------------------------


def real_groups(real_dir):
    """Pictures of one person, or of nobody twice."""
    people = [*sorted((real_dir / "faces").iterdir()), *sorted((real_dir / "faces_colour").iterdir())]
    portraits = sorted(path for path in (real_dir / "masks").glob("*.png") if "labels" not in path.name)
    return [*[sorted(person.glob("*.png")) for person in people], portraits]


@pytest.mark.real
def test_no_two_photographs_of_one_session_are_copies(real_dir):
    """All pairs within people; the closest two are twice as far apart as the tolerance."""
    closest, pairs = 0.0, 0
    for paths in real_groups(real_dir):
        small = torch.cat([thumbnails(read_crop(path)[None]) for path in paths])
        alike = torch.tensor([float(small[i] @ small[j]) for i, j in combinations(range(len(small)), 2)])
        closest, pairs = max(closest, float(alike.max())), pairs + len(alike)
    assert pairs == 1492
    assert 1 - closest > 2 * (1 - MIN_COSINE)


@pytest.mark.real
def test_copies_of_real_pictures_are_found(real_dir):
    for path in [paths[0] for paths in real_groups(real_dir)]:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        for how, change in [*[(how, "as it is") for how in SAVED], *[("jpeg 75", change) for change in CHANGED]]:
            assert likeness(as_rgb(image), saved(CHANGED[change](image), how)) >= MIN_COSINE, (path, how, change)


@pytest.mark.real
@pytest.mark.parametrize("name", ["img20.jpg", "img29.jpg"])
def test_copies_of_real_photographs_are_found_by_their_place(real_dir, tmp_path, name):
    """The detector's landmarks move by more than two photographs of one person differ."""
    pytest.importorskip("facexlib")
    from captum_leam.faces import FaceAligner

    aligner = FaceAligner(weights=real_dir, device="cpu")
    with Image.open(real_dir / "photos" / name) as opened:
        image = opened.convert("RGB")
    image.resize((image.width // 2, image.height // 2)).save(tmp_path / "half.jpg", quality=60)
    image.convert("L").save(tmp_path / "grey.png")
    image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png")
    others = ["img20.jpg" if name != "img20.jpg" else "img21.jpg"]
    paths = [
        real_dir / "photos" / name,
        *sorted(tmp_path.iterdir()),
        *[real_dir / "photos" / other for other in others],
    ]
    sources = [read_face(path, aligner) for path in paths]
    assert sources[3].face.turn == 270
    assert match_copies(thumbnails_of(sources), lambda a, b: shows_same_face(sources[a], sources[b])) == {
        1: 0,
        2: 0,
        3: 0,
    }


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(1, 30))
def test_copies_of_many_are_those_of_all_pairs(seed, count, size):
    """Some crops again at other contrast and with little noise, some whole photographs again with the face elsewhere."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 3, 28, 28, generator=generator)
    again = torch.randint(count, (count,), generator=generator)
    noisy = images[again] * 0.7 + 0.05 * torch.rand(count, 1, 1, 1, generator=generator) * torch.rand_like(images)
    crops = thumbnails(torch.cat([images, noisy, torch.zeros(1, 3, 28, 28)]))
    photographs = crops[torch.randint(len(crops), (len(crops),), generator=generator)]
    photographs[torch.rand(len(crops), generator=generator) < 0.5] = 0
    corner = torch.rand(len(crops), 2, generator=generator).round() * 0.5
    small = Thumbnails(crops, photographs, torch.cat([corner, corner + 0.4], 1))
    starts = range(0, len(crops), size)
    parts = [Thumbnails(*(t[i : i + size] for t in (crops, photographs, small.boxes))) for i in starts]
    confirm = lambda later, earlier: (later + earlier) % 3 > 0  # noqa: E731
    assert match_copies_of_many(lambda: iter(parts), confirm) == match_copies(small, confirm)
