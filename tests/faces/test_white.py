"""Pictures of more than 8 bits: brought to [0, 1] by the white of the file, or refused."""

import struct
import warnings

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from captum_leam.errors import DarkPictureWarning
from captum_leam.faces import read_crop, read_photo

UNIT = np.linspace(0, 1, 400).reshape(20, 20)
"""A picture from black to white."""


def levels(bits: int) -> np.ndarray:
    return np.round(UNIT * (2**bits - 1)).astype(np.uint16)


def save_png(path, samples: np.ndarray, bits: int | None = None) -> None:
    info = PngInfo()
    if bits is not None:
        info.add(b"sBIT", bytes([bits]))
    Image.fromarray(samples).save(path, pnginfo=info)


def save_tiff(path, samples: np.ndarray, tags=()) -> None:
    """Without compression, with tags that Pillow does not write: (tag, type, count, value)."""
    data = samples.astype("<" + samples.dtype.str[1:]).tobytes()
    bits, kind = 8 * samples.itemsize, {"u": 1, "i": 2, "f": 3}[samples.dtype.kind]
    usual = {256: 20, 257: 20, 258: bits, 259: 1, 262: 1, 273: 8, 277: 1, 278: 20, 279: len(data), 339: kind}
    usual.update(tags)
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(usual.items()))
    path.write_bytes(
        struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data + struct.pack("<H", len(usual)) + entries + bytes(4)
    )


def save_packed_tiff(path, samples: np.ndarray) -> None:
    """12 bits a sample."""
    ones = np.unpackbits(samples.astype(">u2").view(np.uint8).reshape(20, 20, 2), axis=2)[:, :, 4:]
    data = np.packbits(ones.reshape(20, -1), axis=1)
    save_tiff(path, data, {256: 20, 257: 20, 258: 12, 279: data.size})


def assert_is_ramp(path, tolerance: float) -> None:
    for read in (read_photo, read_crop):
        np.testing.assert_allclose(read(path).numpy(), np.stack([UNIT] * 3), atol=tolerance)


@pytest.mark.parametrize("bits", [9, 10, 12, 14, 16])
def test_the_white_that_a_file_declares_is_used(tmp_path, bits):
    """PNG asks for samples that are scaled to 16 bits; cameras leave them as they are."""
    save_png(tmp_path / "as_is.png", levels(bits), bits)
    save_png(tmp_path / "scaled.png", np.round(levels(bits) / (2**bits - 1) * 65535).astype(np.uint16), bits)
    save_tiff(tmp_path / "largest.tif", levels(bits), {281: 2**bits - 1})
    (tmp_path / "grey.pgm").write_bytes(b"P5 20 20 %d\n" % (2**bits - 1) + levels(bits).astype(">u2").tobytes())
    for name in ("as_is.png", "scaled.png", "largest.tif", "grey.pgm"):
        assert_is_ramp(tmp_path / name, 0.6 / (2**bits - 1))


def test_samples_of_twelve_bits_have_a_white_of_twelve_bits(tmp_path):
    save_packed_tiff(tmp_path / "packed.tif", levels(12))
    assert_is_ramp(tmp_path / "packed.tif", 0.6 / 4095)


@pytest.mark.parametrize("bits", [8, 9, 10, 11, 12, 13, 14, 15])
def test_a_white_that_no_file_declares_is_not_guessed(tmp_path, bits):
    save_png(tmp_path / "camera.png", levels(bits))
    save_tiff(tmp_path / "camera.tif", levels(bits), {281: 3000})  # the largest value that is used: of no consequence
    Image.fromarray(levels(bits).astype(">u2")).save(tmp_path / "big_endian.tif")
    for name in ("camera.png", "camera.tif", "big_endian.tif"):
        with pytest.raises(
            ValueError, match=rf"{name}: values from 0 to {2**bits - 1} have no known white. Save the picture"
        ):
            read_crop(tmp_path / name)


def test_a_dark_picture_is_read_where_sixteen_bits_are_declared(tmp_path):
    save_png(tmp_path / "dark.png", levels(8), 16)
    assert read_crop(tmp_path / "dark.png").max() == pytest.approx(255 / 65535)
    save_png(tmp_path / "black.png", 0 * levels(8))
    assert read_crop(tmp_path / "black.png").max() == 0


@pytest.mark.filterwarnings("ignore::captum_leam.faces.white.DarkPictureWarning")
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    bits=st.sampled_from([8, 10, 11, 12, 13, 14, 15, 16]),
    brightest=st.floats(0.3, 1),
    container=st.sampled_from(
        ["png", "png sBIT", "tif", "tif big", "tif int32", "tif int16", "tif MaxSampleValue", "pgm", "pgm 16", "jp2"]
    ),
)
def test_any_depth_in_any_container_is_right_or_refused(tmp_path, bits, brightest, container):
    """Files that declare their white are read; of the others, those that cannot be of 16 bits are refused."""
    samples = np.round(UNIT * brightest * (2**bits - 1)).astype(np.uint16)
    path = tmp_path / f"x.{container[:3]}"
    declares = container in ("png sBIT", "pgm", "tif MaxSampleValue") or bits == 16
    match container:
        case "png" | "png sBIT":
            save_png(path, samples, bits if container == "png sBIT" else None)
        case "tif int32":
            save_tiff(path, samples.astype(np.int32))
            declares = False
        case "tif int16":
            save_tiff(path, np.minimum(samples, 32767).astype(np.int16))
            declares = False
        case "tif MaxSampleValue":
            save_tiff(path, samples, {281: 2**bits - 1})
            declares = bits > 8
        case "pgm" | "pgm 16":
            white = 2**bits - 1 if container == "pgm" else 65535
            content = samples.astype(np.uint8 if white < 256 else ">u2").tobytes()
            path.write_bytes(b"P5 20 20 %d\n" % white + content)
        case _:
            Image.fromarray(samples.astype(">u2") if container == "tif big" else samples).save(path)
    try:
        got = read_crop(path)
    except ValueError as error:
        assert "have no known white" in str(error)  # noqa: PT017
        assert not declares
    else:
        assert float(got.max()) == pytest.approx(brightest, rel=0.01) or (13 <= bits < 16 and not declares)


@pytest.mark.parametrize("white", [1.0, 255.0])
@pytest.mark.parametrize("hair", [1.0, 1.004, 1.04, 254 / 255])
def test_floats_a_hair_beyond_white_are_clipped(tmp_path, white, hair):
    values = (UNIT * white).astype(np.float32)
    values[5, 5], values[6, 6] = white * hair, -0.01 * white
    save_tiff(tmp_path / "f.tif", values)
    (tmp_path / "f.pfm").write_bytes(b"Pf\n20 20\n-1.0\n" + values[::-1].astype("<f4").tobytes())
    for name in ("f.tif", "f.pfm"):
        got = read_crop(tmp_path / name)[0]
        np.testing.assert_allclose(got, np.clip(values / white, 0, 1), atol=1e-6)


@pytest.mark.parametrize(
    "values",
    [*(factor * UNIT for factor in (3, 15, 300, 1023, 4000, 1e6)), 2 * UNIT - 1]
    + [np.where(UNIT > 0.5, bad, UNIT) for bad in (np.nan, np.inf, -np.inf)],
)
def test_floats_without_a_known_white_raise(tmp_path, values):
    save_tiff(tmp_path / "f.tif", values.astype(np.float32))
    with pytest.raises(ValueError, match=r"f\.tif: values from .* have no known white"):
        read_crop(tmp_path / "f.tif")


def test_files_whose_white_is_zero_are_inverted(tmp_path):
    """As in scans; Pillow turns bytes round, and nothing deeper."""
    for samples in (255 - levels(8).astype(np.uint8), 65535 - levels(16), (1 - UNIT).astype(np.float32)):
        save_tiff(tmp_path / "scan.tif", samples, {262: 0})
        assert_is_ramp(tmp_path / "scan.tif", 0.6 / 255)


def test_negative_integers_and_signed_bytes_raise(tmp_path):
    for dtype in (np.int8, np.int16, np.int32):
        save_tiff(tmp_path / "signed.tif", (levels(8).astype(np.int32) - 128).astype(dtype))
        with pytest.raises(ValueError, match="have no known white"):
            read_crop(tmp_path / "signed.tif")


def test_a_transparent_value_of_a_deep_picture_is_white(tmp_path):
    Image.fromarray(levels(16)).save(tmp_path / "clear.png", transparency=int(levels(16)[0, 3]))
    got = read_crop(tmp_path / "clear.png")
    assert got[:, 0, 3].tolist() == [1, 1, 1]
    assert got[0, 0, 4] == pytest.approx(UNIT[0, 4], abs=1e-4)


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("ending", ["png", "tif", "ppm"])
@pytest.mark.parametrize("channels", [3, 4])
def test_deep_colours_are_right_or_refused(tmp_path, bits, ending, channels):
    """Pillow keeps their upper 8 bits."""
    cv2 = pytest.importorskip("cv2")
    colours = np.stack([levels(bits), levels(bits)[::-1], levels(bits)[:, ::-1]], -1)
    if channels == 4:
        if ending == "ppm":
            pytest.skip("has no transparency")
        colours = np.dstack([colours, np.full((20, 20), 65535, np.uint16)])
    path = tmp_path / f"colours.{ending}"
    assert cv2.imwrite(str(path), colours)
    if bits < 16:
        with pytest.raises(ValueError, match=r"16-bit colours .* have no known white"):
            read_crop(path)
    else:
        expected = torch.from_numpy(colours[..., 2::-1].astype(np.float32) / 65535).movedim(-1, 0)
        torch.testing.assert_close(read_crop(path), expected, atol=1.5 / 255, rtol=0)


def test_deep_colours_in_planes_raise(tmp_path):
    """Pillow reads every byte of them as a sample."""
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "planes.tif", np.stack([levels(16)] * 3), photometric="rgb", planarconfig="separate")
    with pytest.raises(ValueError, match=r"planes\.tif: 16-bit colours in separate planes"):
        read_crop(tmp_path / "planes.tif")


def test_shallow_pictures_are_as_they_were(tmp_path):
    grey = levels(8).astype(np.uint8)
    Image.fromarray(grey).convert("CMYK").save(tmp_path / "print.jpg", quality=100)
    Image.fromarray(grey > 127).save(tmp_path / "bits.png")
    Image.new("L", (20, 20), 3).save(tmp_path / "dark.png")
    Image.fromarray(np.dstack([grey, np.full_like(grey, 255)]), "LA").save(tmp_path / "alpha.png")
    assert_is_ramp(tmp_path / "print.jpg", 3 / 255)
    assert_is_ramp(tmp_path / "alpha.png", 1 / 255)
    assert read_crop(tmp_path / "bits.png").unique().tolist() == [0, 1]
    assert read_crop(tmp_path / "dark.png").unique().item() == pytest.approx(3 / 255)


def test_a_deep_picture_that_uses_little_of_its_range_is_warned_of(tmp_path):
    """14 bits in 16, unsaid: as dark as they are read, they are named."""
    ramp = np.linspace(0, 15_000, 112 * 112).reshape(112, 112).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "camera.png")
    with pytest.warns(DarkPictureWarning, match="got values up to 15000"):
        read_crop(tmp_path / "camera.png")
    Image.fromarray(ramp * 4).save(tmp_path / "full.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_crop(tmp_path / "full.png")
