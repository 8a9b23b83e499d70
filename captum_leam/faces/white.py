"""Determine the value of white in pictures with more than 8 bits, and raise if it is unknown."""

import math
import struct
import warnings
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from captum_leam.errors import DarkPictureWarning, UnknownWhiteError

WHITE_16 = 65_535  # white of 16 bits
MIN_RANGE = 16  # pictures that use less than this fraction (1/16) of their range probably have fewer bits
OVERSHOOT = 0.05  # share of white by which resampling may exceed black and white

BITS_PER_SAMPLE, PHOTOMETRIC, MAX_SAMPLE, PLANAR, SAMPLE_FORMAT = 258, 262, 281, 284, 339  # tags of TIFF


@dataclass(frozen=True)
class SampleFormat:
    """Format of the samples of a picture, as declared by its file.

    Example:
        >>> SampleFormat.from_image(Image.new("RGB", (2, 1)))
        SampleFormat(bits=None, is_reduced=False, is_wide=False, is_inverted=False)
    """

    bits: int | None
    """Significant bits of a sample according to PNG (sBIT), TIFF (BitsPerSample, MaxSampleValue) or PPM; None if they are not declared."""
    is_reduced: bool
    """Whether Pillow keeps only the upper 8 bits of 16-bit colours."""
    is_wide: bool
    """Whether samples are integers of 32 bits or signed integers of 16 bits, of which values up to 255 are read as bytes."""
    is_inverted: bool
    """Whether 0 is white, which Pillow ignores for more than 8 bits."""

    @classmethod
    def from_image(cls, image: Image.Image) -> "SampleFormat":
        """Return the format of the samples of an opened picture.

        Args:
            image: Opened picture, before it is decoded.

        Raises:
            UnknownWhiteError: If Pillow would decode the samples wrongly (16-bit colours in separate planes, or signed bytes).
        """
        is_deep = image.mode == "F" or image.mode.startswith("I")
        tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
        _raise_if_unsupported(tags)
        return cls(
            bits=_declared_bits(image, tags),
            is_reduced=not is_deep and _stores_16_bits(image),
            is_wide=image.mode == "I" and image.format not in ("PNG", "PPM"),
            is_inverted=is_deep and tags.get(PHOTOMETRIC) == 0,
        )

    def raise_if_nearly_empty(self, image: Image.Image) -> None:
        """Raise if the upper 8 bits of 16-bit colours are nearly empty, as in a picture of 12 bits.

        Args:
            image: Decoded picture.

        Raises:
            UnknownWhiteError: If the colours use at most a sixteenth of their range.

        Example:
            >>> samples = SampleFormat(None, is_reduced=True, is_wide=False, is_inverted=False)
            >>> samples.raise_if_nearly_empty(Image.new("RGB", (2, 1), (15, 3, 3)))
            Traceback (most recent call last):
                ...
            captum_leam.errors.UnknownWhiteError: 16-bit colours of at most a sixteenth of the range have no known white. ...
        """
        if not self.is_reduced:
            return
        largest = int(np.asarray(image)[..., :3].max())
        limit = WHITE_16 // MIN_RANGE if self.bits is None else 2**self.bits - 1 if self.bits < 16 else -1
        if largest * 255 <= limit:
            raise UnknownWhiteError(
                "16-bit colours of at most a sixteenth of the range have no known white. Save the picture with 8 bits per colour, or "
                "multiply its values so that white is 65535."
            )

    def to_unit(self, image: Image.Image) -> Tensor:
        """Return the pixels of a picture with one channel of more than 8 bits, divided by the value of white.

        Args:
            image: Decoded picture in mode F, I or I;16.

        Returns:
            Pixels of shape (H, W), float32 in [0, 1].

        Raises:
            UnknownWhiteError: If the value of white is unknown.

        Example:
            >>> picture = Image.fromarray(np.array([[0.0, 0.5, 1.004]], dtype=np.float32))
            >>> SampleFormat.from_image(picture).to_unit(picture).tolist()
            [[0.0, 0.5, 1.0]]
        """
        values = np.asarray(image, dtype=np.float32)
        smallest, largest = float(values.min()), float(values.max())
        white = _white_of_floats(largest) if image.mode == "F" else self._white_of_integers(int(largest))
        undershoot = OVERSHOOT if image.mode == "F" else 0.0
        if white is None or not smallest >= -undershoot * white:  # false for NaN as well
            raise UnknownWhiteError(
                f"values from {smallest:.6g} to {largest:.6g} have no known white. Save the picture with 8 bits, or with 16 bits so that "
                "white is 65535."
            )
        unit = torch.from_numpy(values / np.float32(white)).clamp(0, 1)
        return 1 - unit if self.is_inverted else unit

    def _white_of_integers(self, largest: int) -> int | None:
        if self.bits is not None:
            # The PNG standard requires samples that are scaled to 16 bits, but many files hold them unscaled.
            return 2**self.bits - 1 if largest < 2**self.bits else WHITE_16 if largest <= WHITE_16 else None
        if largest == 0:
            return WHITE_16
        if self.is_wide and largest <= WHITE_16 // 2:
            return 255 if 255 // MIN_RANGE < largest <= 255 else None
        is_white_of_fewer_bits = largest & (largest + 1) == 0 and largest < WHITE_16
        if WHITE_16 // MIN_RANGE < largest <= WHITE_16 // 4 and not is_white_of_fewer_bits:
            warnings.warn(
                f"Expected a 16-bit picture to use values up to 65535, got values up to {largest} and assumed that white is 65535. If the "
                "picture has fewer bits, save it with an sBIT chunk, with 8 bits, or with values multiplied so that white is 65535.",
                DarkPictureWarning,
                stacklevel=2,
            )
        return WHITE_16 if WHITE_16 // MIN_RANGE < largest <= WHITE_16 and not is_white_of_fewer_bits else None


def _white_of_floats(largest: float) -> float | None:
    for white in (1.0, 255.0, float(WHITE_16)):
        if (white == 1 or largest > white / MIN_RANGE) and largest <= white * (1 + OVERSHOOT):
            return white
    return None


def _declared_bits(image: Image.Image, tags: Any) -> int | None:
    codec, rawmode = _first_tile(image)
    if image.format == "PNG" and ";16" in rawmode:
        return _png_bits(image.fp)  # type: ignore[attr-defined]
    if image.format == "PPM" and codec == "ppm":  # Pillow divides by the value of white in the file
        return None if _ppm_white(image) == WHITE_16 else 16
    largest = max(_numbers(tags.get(MAX_SAMPLE)), default=0)
    if largest > 255 and largest & (largest + 1) == 0:  # other values are statistics of the pixels
        return largest.bit_length()
    bits = max(_numbers(tags.get(BITS_PER_SAMPLE)), default=0)
    return bits if 8 < bits < 16 else None


def _stores_16_bits(image: Image.Image) -> bool:
    codec, rawmode = _first_tile(image)
    return ";16" in rawmode or (image.format == "PPM" and codec == "ppm" and _ppm_white(image) > 255)


def _first_tile(image: Image.Image) -> tuple[str, str]:
    """Return codec and raw mode of the samples in the file, which Pillow drops after decoding."""
    tiles = getattr(image, "tile", None)
    if not tiles:
        return "", ""
    codec, _, _, options = tiles[0]
    return codec, options if isinstance(options, str) else str(options[0])


def _ppm_white(image: Image.Image) -> int:
    return int(image.tile[0][3][1])  # type: ignore[attr-defined]


def _png_bits(file: IO[bytes]) -> int | None:
    """Return the smallest number of significant bits that a PNG file declares, without moving the file's position."""
    position = file.tell()
    try:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind == b"sBIT":
                return min(file.read(min(length, 4)), default=None) or None
            if kind == b"IDAT":
                return None
            file.seek(length + 4, 1)
        return None
    finally:
        file.seek(position)


def _raise_if_unsupported(tags: Any) -> None:
    bits = max(_numbers(tags.get(BITS_PER_SAMPLE)), default=8)
    if bits > 8 and tags.get(PLANAR) == 2 and len(_numbers(tags.get(BITS_PER_SAMPLE))) > 1:
        raise UnknownWhiteError(
            "16-bit colours in separate planes are not supported. Save the picture with interleaved colours."
        )
    if bits == 8 and 2 in _numbers(tags.get(SAMPLE_FORMAT)):
        raise UnknownWhiteError("signed bytes have no known white. Save the picture with unsigned bytes.")


def _numbers(value: Any) -> list[int]:
    """Return the finite numbers of a TIFF tag as integers; tags may be missing or hold other types."""
    values = value if isinstance(value, tuple) else (value,)
    return [int(number) for number in values if isinstance(number, int | float) and math.isfinite(number)]
