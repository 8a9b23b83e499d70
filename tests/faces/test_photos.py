"""Photographs of every kind, and every way in which a file can be bad: one line with its name and why."""

import io
import os
import pickle
import struct
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from captum_leam.errors import FileError
from captum_leam.faces import formats
from captum_leam.faces.crops import read_crop
from captum_leam.faces.formats import picture_suffixes, readable_formats
from captum_leam.faces.photos import MAX_SIDE, list_pictures, picture_files, read_photo

RAMP = (np.arange(20)[:, None] * 5 + np.arange(30)[None] * 4).astype(np.uint8)
COLOUR = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]], -1)


def as_tensor(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels.astype(np.float32)).movedim(-1, 0) / 255


def test_colour_grey_and_deep_pictures_keep_their_values(tmp_path):
    Image.fromarray(COLOUR).save(tmp_path / "rgb.png")
    Image.fromarray(RAMP).save(tmp_path / "grey.png")
    Image.fromarray(RAMP.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    Image.fromarray(RAMP.astype(np.float32) / 255).save(tmp_path / "float.tif")
    Image.fromarray(RAMP).convert("P").save(tmp_path / "palette.gif")
    grey = as_tensor(np.stack([RAMP] * 3, -1))
    torch.testing.assert_close(read_photo(tmp_path / "rgb.png"), as_tensor(COLOUR))
    for name in ("grey.png", "deep.png", "float.tif", "palette.gif"):
        torch.testing.assert_close(read_photo(tmp_path / name), grey)


def test_transparency_lies_on_white(tmp_path):
    alpha = np.full(RAMP.shape, 255, np.uint8)
    alpha[:, :10], alpha[:, 10:20] = 0, 51
    Image.fromarray(np.dstack([COLOUR, alpha])).save(tmp_path / "alpha.png")
    share = torch.from_numpy(alpha / 255).float()
    expected = as_tensor(COLOUR) * share + (1 - share)
    torch.testing.assert_close(read_photo(tmp_path / "alpha.png"), expected, atol=1.5 / 255, rtol=0)
    Image.fromarray(np.dstack([RAMP, alpha]), "LA").save(tmp_path / "grey_alpha.png")
    assert bool((read_photo(tmp_path / "grey_alpha.png")[:, :, :10] == 1).all())
    image = Image.fromarray(RAMP).convert("P")
    image.save(tmp_path / "see_through.png", transparency=int(np.asarray(image)[0, 0]))
    assert read_photo(tmp_path / "see_through.png")[:, 0, 0].tolist() == [1, 1, 1]


def test_cmyk_becomes_rgb(tmp_path):
    ink = np.zeros((20, 30, 4), np.uint8)
    ink[..., 0] = 255  # cyan
    ink[:, 15:, :] = (0, 0, 0, 255)  # black
    Image.fromarray(ink, "CMYK").save(tmp_path / "print.tif")
    photo = read_photo(tmp_path / "print.tif")
    torch.testing.assert_close(photo[:, 0, 0], torch.tensor([0.0, 1.0, 1.0]))
    torch.testing.assert_close(photo[:, 0, -1], torch.zeros(3))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_comes_out_upright(tmp_path, orientation):
    """As a viewer shows it: the EXIF standard says which side of the scene row 0 and column 0 are."""
    undone = {
        1: COLOUR,
        2: COLOUR[:, ::-1],
        3: COLOUR[::-1, ::-1],
        4: COLOUR[::-1],
        5: COLOUR.transpose(1, 0, 2),
        6: np.rot90(COLOUR, 1),
        7: COLOUR[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(COLOUR, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(undone)).save(tmp_path / "turned.png", exif=exif)
    torch.testing.assert_close(read_photo(tmp_path / "turned.png"), as_tensor(COLOUR))


def png_that_claims(width: int, height: int) -> bytes:
    """A few bytes that say to be a huge grey picture."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


def bad_file(path, kind: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(COLOUR).save(buffer, "JPEG")
    if kind == "1×1":
        Image.new("RGB", (1, 1)).save(path, "JPEG")
    elif kind == "wide":
        Image.new("L", (20_000, 20)).save(path, "JPEG")
    elif kind == "animation":
        frames = [Image.fromarray(np.roll(RAMP, i, 0)) for i in range(3)]
        frames[0].save(path, "GIF", save_all=True, append_images=frames[1:])
    elif kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_bytes(
            {
                "text": b"this is a letter, not a picture\n" * 20,
                "truncated": buffer.getvalue()[:-200],
                "bomb": png_that_claims(60_000, 60_000),
                "large": png_that_claims(12_000, 12_000),
                "huge header": png_that_claims(9_000, 9_000),
            }.get(kind)
            or (b"" if kind == "empty" else png_with_text_bomb())
        )


def png_with_text_bomb() -> bytes:
    content = b"Comment\0\0" + zlib.compress(b"a" * 80_000_000)
    text = struct.pack(">I", len(content)) + b"zTXt" + content + struct.pack(">I", zlib.crc32(b"zTXt" + content))
    whole = png_that_claims(64, 64)
    return whole[:33] + text + whole[33:]


BAD = {
    "missing": "there is no such file",
    "empty": "the file is empty",
    "text": "not a picture",
    "truncated": "the picture cannot be read .*[Tt]runcated",
    "1×1": "expected a photograph with sides of 16 px or more, got 1 × 1 px",
    "wide": "at most 16384 px a side .* got 20000 × 20 px",
    "animation": "expected a single picture, got an animation",
    "bomb": "too large and may be a decompression bomb",
    "large": "too large and may be a decompression bomb",
    "huge header": "a photograph with at most .* 64 million pixels, got 9000 × 9000 px",
    "text bomb": "cannot be read",
    "folder": "expected a picture, got a folder",
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_files_give_one_line_that_names_them(tmp_path, kind):
    path = tmp_path / "bad.jpg"
    bad_file(path, kind)
    with pytest.raises(ValueError, match=BAD[kind]) as error:
        read_photo(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
    assert error.value.__cause__ is None


def test_crops_refuse_animations_too(tmp_path):
    bad_file(tmp_path / "a.gif", "animation")
    with pytest.raises(ValueError, match="got an animation"):
        read_crop(tmp_path / "a.gif")


def test_broken_bytes_never_give_another_error(tmp_path):
    """A picture with some bytes overwritten is either read or refused by name."""
    rng = np.random.default_rng(0)
    whole = {}
    for kind in ("JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"):
        buffer = io.BytesIO()
        Image.fromarray(COLOUR).save(buffer, kind)
        whole[kind] = np.frombuffer(buffer.getvalue(), np.uint8)
    refusals = []
    for kind, content in whole.items():
        for i in range(25):
            broken = content.copy()
            broken[rng.integers(0, min(len(content), 200), 1 + i % 8)] = rng.integers(0, 256)
            path = tmp_path / f"{kind}.jpg"
            path.write_bytes(broken.tobytes())
            try:
                photo = read_photo(path)
            except ValueError as error:
                refusals.append((path, str(error)))
            else:
                assert photo.min() >= 0
                assert photo.max() <= 1
    assert len(refusals) > 20
    assert all(message.startswith(f"{path}: ") for path, message in refusals)


def test_max_pixels_is_an_option(tmp_path):
    Image.fromarray(COLOUR).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="30 × 20 px"):
        read_photo(tmp_path / "a.png", max_pixels=599)
    assert read_photo(tmp_path / "a.png", max_pixels=600).shape == (3, 20, 30)
    assert MAX_SIDE < 20_000


def test_the_first_of_two_pictures_in_one_file_is_read(tmp_path):
    frames = [Image.fromarray(COLOUR), Image.fromarray(COLOUR[::-1])]
    frames[0].save(tmp_path / "phone.jpg", "MPO", save_all=True, append_images=frames[1:], quality=100)
    torch.testing.assert_close(read_photo(tmp_path / "phone.jpg"), as_tensor(COLOUR), atol=0.06, rtol=0)


def test_picture_files_lists_pictures_that_are_not_hidden_in_order(tmp_path, monkeypatch):
    for name in ("b.PNG", "a.jpeg", ".hidden.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in picture_files(tmp_path)] == ["a.jpeg", "b.PNG"]
    assert picture_files(tmp_path / "b.PNG") == [tmp_path / "b.PNG"]
    assert picture_files([tmp_path / "z.png", "y.png"])[0] == tmp_path / "z.png"
    with pytest.raises(ValueError, match="at least one picture, got none"):
        picture_files([])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: the folder has no image file"):
        picture_files(tmp_path / "empty")
    (tmp_path / "empty" / "phone.HEIC").write_bytes(HEIC)
    with pytest.raises(ValueError, match=r"no image file .*phone\.HEIC: not a picture .*pip install pillow-heif"):
        picture_files(tmp_path / "empty")

    def denied(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "listdir", denied)
    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(ValueError, match=r"the folder cannot be read \(Permission denied\)"):
        picture_files(tmp_path)


def test_a_file_in_a_folder_that_cannot_be_entered_raises(tmp_path, monkeypatch):
    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "stat", denied)
    with pytest.raises(ValueError, match=r"a\.png: the file cannot be read \(Permission denied\)"):
        read_photo(tmp_path / "a.png")


# -- what of a folder is read --------------------------------------------------------------------------

HEIC = struct.pack(">I", 24) + b"ftypheic\0\0\0\0mif1heic" + bytes(400)


def content_of(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(COLOUR).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("ending", picture_suffixes())
def test_every_ending_of_a_format_that_is_decoded_is_listed_and_read(tmp_path, ending):
    kind = Image.registered_extensions()[ending]
    try:
        Image.fromarray(COLOUR).convert("L" if ending in (".pgm", ".pbm", ".pfm") else "RGB").save(
            tmp_path / f"x{ending.upper()}", kind
        )
    except (OSError, ValueError):
        pytest.skip(f"this Pillow does not write {ending}")
    assert [path.name for path in picture_files(tmp_path)] == [f"x{ending.upper()}"]
    assert read_photo(tmp_path / f"x{ending.upper()}").shape == (3, 20, 30)


def test_a_format_that_this_pillow_cannot_decode_is_not_listed(tmp_path, monkeypatch):
    """Pillow registers it without its library, too."""
    (tmp_path / "a.avif").write_bytes(content_of("AVIF"))
    monkeypatch.setattr("PIL.features.check", lambda name: name != "avif")
    assert "AVIF" not in readable_formats()
    assert ".avif" not in picture_suffixes()
    assert [path.name for path, _ in list_pictures(tmp_path)[1]] == ["a.avif"]
    with pytest.raises(ValueError, match=r"a\.avif: not a picture that this Pillow can read \(BMP, GIF"):
        read_photo(tmp_path / "a.avif")


@pytest.mark.parametrize("name", ["phone.HEIC", "phone.heif", "phone.jpg", "phone"])
def test_without_pillow_heif_the_way_to_install_it_is_given(tmp_path, name):
    (tmp_path / name).write_bytes(HEIC)
    for read in (read_photo, read_crop):
        with pytest.raises(ValueError, match=rf"{name}: not a picture .* decode HEIF\. .*Run: pip install pillow-heif"):
            read(tmp_path / name)
    skipped = dict(list_pictures(tmp_path)[1])
    assert set(skipped) == (set() if name == "phone.jpg" else {tmp_path / name})
    assert all("pip install pillow-heif" in reason for reason in skipped.values())


def test_with_pillow_heif_it_is_read(tmp_path, monkeypatch):
    """pillow-heif is registered with Pillow where it is installed; here a stand-in decodes to one colour."""
    import types

    class Heif(ImageFile.ImageFile):
        format = "HEIF"

        def _open(self):
            self._size, self._mode = (30, 20), "RGB"
            self.tile = []

        def load(self):
            self.im = Image.new("RGB", self.size, "red").im
            return Image.Image.load(self)

    def register_heif_opener():
        Image.register_open("HEIF", Heif, lambda prefix: prefix[4:12] == b"ftypheic")
        Image.register_extensions("HEIF", [".heic", ".heif"])

    Image.init()
    for name in ("OPEN", "EXTENSION", "ID"):
        monkeypatch.setattr(Image, name, getattr(Image, name).copy())
    monkeypatch.setitem(sys.modules, "pillow_heif", types.SimpleNamespace(register_heif_opener=register_heif_opener))
    formats._register_heif.cache_clear()
    (tmp_path / "phone.HEIC").write_bytes(HEIC)
    try:
        assert picture_files(tmp_path) == [tmp_path / "phone.HEIC"]
        assert read_photo(tmp_path / "phone.HEIC")[:, 0, 0].tolist() == [1, 0, 0]
    finally:
        formats._register_heif.cache_clear()


def test_content_decides_where_there_is_no_ending(tmp_path):
    (tmp_path / "IMG_0001").write_bytes(content_of("JPEG"))
    (tmp_path / "README").write_text("read me")
    (tmp_path / "raw.nef").write_bytes(content_of("TIFF"))
    (tmp_path / "a.png.bak").write_bytes(content_of("PNG"))
    (tmp_path / "film.webm").write_bytes(content_of("GIF")[:5])
    pictures, skipped = list_pictures(tmp_path)
    assert pictures == [tmp_path / "IMG_0001"]
    reasons = {path.name: reason for path, reason in skipped}
    assert reasons["raw.nef"] == "its content is TIFF, but its suffix is .nef. Rename it to include it."
    assert reasons["a.png.bak"] == "its content is PNG, but its suffix is .bak. Rename it to include it."
    assert all(
        reasons[name].startswith("not a picture that this Pillow can read (") for name in ("README", "film.webm")
    )


@pytest.mark.parametrize("recursive", [False, True])
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    entries=st.dictionaries(
        st.tuples(
            st.sampled_from(["", "", "inner", "inner/deep.png", ".hidden"]),
            st.text("ab.é ", min_size=1, max_size=4).filter(lambda name: name.strip(".") == name),
            st.sampled_from(["", ".png", ".JPG", ".txt", ".heic", ".jfif", ".", ".tiff.", ".DS_Store"]),
        ),
        st.sampled_from(["PNG", "JPEG", "text", "empty", "HEIC", "folder", "link", "broken link", "loop", "pipe"]),
        max_size=8,
    )
)
def test_every_entry_that_is_not_hidden_is_listed_once(recursive, entries):
    """Whatever lies in a folder is a picture, or skipped with a reason; a listed picture is not a folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for (where, stem, ending), kind in entries.items():
            path = folder / where / f"{stem}{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists() or path.is_symlink():
                continue
            match kind:
                case "folder":
                    path.mkdir()
                case "link" | "broken link" | "loop":
                    path.symlink_to({"link": __file__, "broken link": "/nowhere", "loop": folder}[kind])
                case "pipe":
                    os.mkfifo(path)
                case "text" | "empty" | "HEIC":
                    path.write_bytes({"text": b"a letter", "empty": b"", "HEIC": HEIC}[kind])
                case _:
                    path.write_bytes(content_of(kind))
        pictures, skipped = list_pictures(folder, recursive=recursive)
        listed = [*pictures, *(path for path, _ in skipped)]
        assert len(set(listed)) == len(listed)
        assert set(listed) == set(visible(folder, recursive))
        assert all(isinstance(reason, str) and reason for _, reason in skipped)
        assert not any(path.is_dir() for path in pictures)


def visible(folder: Path, recursive: bool) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if recursive and path.is_dir() and not path.is_symlink():
            yield from visible(path, recursive)
        else:
            yield path


def test_a_folder_in_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    (tmp_path / "a.png").write_bytes(content_of("PNG"))
    listing = Path.iterdir

    def denied(path):
        if path.name == "closed":
            raise PermissionError(13, "Permission denied")
        return listing(path)

    monkeypatch.setattr(Path, "iterdir", denied)
    pictures, skipped = list_pictures(tmp_path, recursive=True)
    assert pictures == [tmp_path / "a.png"]
    assert skipped == [(tmp_path / "closed", "the folder cannot be read (Permission denied).")]


def test_importing_faces_and_regions_loads_no_optional_package_and_no_drawing():
    import subprocess

    code = (
        "import sys, captum_leam.faces, captum_leam.regions, captum_leam.models; "
        "late = ('facexlib', 'onnx', 'onnx2torch', 'onnxruntime', 'cv2', 'skimage.draw', 'skimage.transform'); "
        "print([m for m in late if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout.strip() == "[]"


def test_an_error_of_a_file_says_which_and_why_also_from_another_process(tmp_path):
    with pytest.raises(FileError) as raised:
        read_photo(tmp_path / "lost.png")
    error = pickle.loads(pickle.dumps(raised.value))  # noqa: S301  our own bytes
    assert (error.path, error.reason) == (tmp_path / "lost.png", "there is no such file.")
    assert str(error) == f"{tmp_path / 'lost.png'}: there is no such file."
