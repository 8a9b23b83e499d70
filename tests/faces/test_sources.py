"""Crops and photographs, told apart."""

import pytest
import torch
from PIL import Image

from captum_leam.errors import CaptumLeamError
from captum_leam.faces import ARCFACE_112, AlignedFaces, FaceAligner, align, read_faces
from captum_leam.faces.sources import looks_like_a_crop


class Aligner:
    """Stands where a FaceAligner stands."""

    def __call__(self, photo, faces):
        if photo.mean() == 0:
            raise CaptumLeamError("no face was found")
        return AlignedFaces((align(photo, ARCFACE_112 + 20 * (0 if faces == "largest" else faces)),))


@pytest.fixture
def files(tmp_path):
    for name, size in (("crop", (112, 112)), ("photo", (300, 200)), ("wide", (112, 96)), ("square", (400, 400))):
        Image.new("RGB", size, "gray").save(tmp_path / f"{name}.png")
    Image.new("RGB", (300, 200)).save(tmp_path / "black.png")
    return tmp_path


def test_small_pictures_are_taken_for_crops(files):
    found = {name: looks_like_a_crop(files / f"{name}.png") for name in ("crop", "photo", "wide", "square")}
    assert found == {"crop": True, "photo": False, "wide": True, "square": False}


def test_faces_of_photographs_keep_their_transform(files):
    crop, photo = read_faces([files / "crop.png", files / "photo.png"], Aligner)
    assert (crop.face, crop.photo) == (None, None)
    assert photo.photo.shape == (3, 200, 300)
    assert photo.face.crop is photo.crop
    assert torch.equal(photo.face.to_crop(photo.photo), photo.crop)
    (second,) = read_faces([files / "photo.png"], Aligner, faces=1)
    assert second.face.landmarks == pytest.approx(ARCFACE_112 + 20)


def test_pictures_named_crops_are_not_aligned_and_those_named_photos_are(files):
    def never() -> FaceAligner:
        raise AssertionError

    assert read_faces([files / "photo.png"], never, "crops")[0].face is None
    assert read_faces([files / "square.png"], Aligner, "photos")[0].face is not None
    with pytest.raises(ValueError, match=r"black\.png: no face was found"):
        read_faces([files / "black.png"], Aligner)
    with pytest.raises(ValueError, match="how to be .* got 'guess'"):
        read_faces([files / "photo.png"], Aligner, "guess")
    with pytest.raises(ValueError, match='got "all". Only one face per photograph'):
        read_faces([files / "photo.png"], Aligner, faces="all")
