"""Reading aligned crops of every kind a user has."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from captum_leam.faces import read_crop, read_crops

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20


def test_read_crop_returns_the_pixels_in_0_to_1(tmp_path):
    colour = np.stack([GREY, GREY + 1, GREY + 2], -1)
    Image.fromarray(colour).save(tmp_path / "rgb.png")
    expected = torch.from_numpy(colour).movedim(-1, 0).float() / 255
    torch.testing.assert_close(read_crop(tmp_path / "rgb.png"), expected)
    assert read_crop(str(tmp_path / "rgb.png")).dtype == torch.float32


def test_grey_deep_and_transparent_crops_become_rgb(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "grey.png")
    Image.fromarray(GREY.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    expected = torch.from_numpy(GREY).float().expand(3, -1, -1) / 255
    torch.testing.assert_close(read_crop(tmp_path / "grey.png"), expected)
    torch.testing.assert_close(read_crop(tmp_path / "deep.png"), expected)
    Image.new("RGBA", (4, 3), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert bool((read_crop(tmp_path / "clear.png") == 1).all())  # transparent red is white
    Image.new("CMYK", (4, 3)).save(tmp_path / "print.jpg")
    assert read_crop(tmp_path / "print.jpg").shape == (3, 3, 4)


def test_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the top of the scene is at the right of the picture
    image = Image.fromarray(np.stack([GREY] * 3, -1))
    image.save(tmp_path / "turned.png", exif=exif)
    assert read_crop(tmp_path / "turned.png").shape == (3, 4, 3)
    torch.testing.assert_close(read_crop(tmp_path / "turned.png")[0], torch.from_numpy(np.rot90(GREY, -1).copy()) / 255)


def _write(path, kind):
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(buffer, "PNG")
    content = {"empty": b"", "text": b"no picture", "truncated": buffer.getvalue()[:60]}[kind]
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("kind", "message"), [("empty", "is empty"), ("text", "not a picture"), ("truncated", "cannot be read")]
)
def test_bad_files_are_named(tmp_path, kind, message):
    _write(tmp_path / "bad.png", kind)
    with pytest.raises(ValueError, match=rf"bad\.png: .*{message}"):
        read_crop(tmp_path / "bad.png")


def test_missing_and_large_crops_and_crops_of_two_sizes_raise(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        read_crop(tmp_path / "lost.png")
    Image.new("L", (5000, 2)).save(tmp_path / "wide.png")
    with pytest.raises(ValueError, match="got 5000 × 2 px"):
        read_crop(tmp_path / "wide.png")
    Image.new("L", (4, 3)).save(tmp_path / "a.png")
    Image.new("L", (3, 4)).save(tmp_path / "b.png")
    assert read_crops([tmp_path / "a.png"] * 2).shape == (2, 3, 3, 4)
    with pytest.raises(ValueError, match="Pass aligned crops of equal size"):
        read_crops([tmp_path / "a.png", tmp_path / "b.png"])
    with pytest.raises(ValueError, match="at least one picture, got none"):
        read_crops([])
