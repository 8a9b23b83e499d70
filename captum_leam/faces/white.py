"""The value that is white in pictures with more than 8 bits: read from the file, or known from the format, or refused."""

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

FULL = 65_535  # white of 16 bits
LEAST_USED = 16  # a picture that uses less than this part of its range was probably taken with fewer bits
HAIR = 0.05  # part of white by which resampled floats overshoot black and white

BITS_PER_SAMPLE, PHOTOMETRIC, MAX_SAMPLE, PLANAR, SAMPLE_FORMAT = 258, 262, 281, 284, 339  # tags of TIFF


@dataclass(frozen=True)
class Depth:
    """What a file says about its samples before they are decoded.

    Example:
        >>> Depth.of(Image.new("RGB", (2, 1)))
        Depth(bits=None, is_reduced=False, is_wide=False, is_inverted=False)
    """

    bits: int | None
    """Significant bits of a sample: of PNG (sBIT), TIFF (BitsPerSample, MaxSampleValue) or PPM; None if the file does not say."""
    is_reduced: bool
    """Whether Pillow keeps only the upper 8 bits of 16-bit colours."""
    is_wide: bool
    """Whether samples are integers of 32 bits, or signed ones of 16, whose range does not tell the white: values up to 255 are read as
    bytes."""
    is_inverted: bool
    """Whether 0 is white, which Pillow leaves as it is in deep pictures."""

    @classmethod
    def of(cls, image: Image.Image) -> "Depth":
        """Return the depth of an opened picture.

        Raises:
            UnknownWhiteError: For samples that Pillow would decode wrongly: 16-bit colours in separate planes, and signed bytes.
        """
        is_deep = image.mode == "F" or image.mode.startswith("I")
        tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
        _refuse_wrongly_decoded(tags)
        return cls(
            bits=_declared_bits(image, tags),
            is_reduced=not is_deep and _stores_words(image),
            is_wide=image.mode == "I" and image.format not in ("PNG", "PPM"),
            is_inverted=is_deep and tags.get(PHOTOMETRIC) == 0,
        )

    def refuse_doubtful_colours(self, image: Image.Image) -> None:
        """Raise if the upper 8 bits of 16-bit colours are nearly empty, as in a picture of 12 bits.

        Args:
            image: The decoded picture.

        Raises:
            UnknownWhiteError: With what to do.

        Example:
            >>> Depth(None, is_reduced=True, is_wide=False, is_inverted=False).refuse_doubtful_colours(Image.new("RGB", (2, 1), (15, 3, 3)))
            Traceback (most recent call last):
                ...
            captum_leam.errors.UnknownWhiteError: 16-bit colours of at most a sixteenth of the range have no known white. ...
        """
        if not self.is_reduced:
            return
        most = int(np.asarray(image)[..., :3].max())
        used = FULL // LEAST_USED if self.bits is None else 2**self.bits - 1 if self.bits < 16 else -1
        if most * 255 <= used:
            raise UnknownWhiteError(
                "16-bit colours of at most a sixteenth of the range have no known white. Save the picture with 8 bits a colour, or "
                "multiply its values so that white is 65535."
            )

    def to_unit(self, image: Image.Image) -> Tensor:
        """Return the pixels of a picture of one deep channel, divided by their white.

        Args:
            image: The decoded picture, of mode F, I or I;16.

        Returns:
            (H, W), float32 in [0, 1].

        Raises:
            UnknownWhiteError: If the white is not known.

        Example:
            >>> picture = Image.fromarray(np.array([[0.0, 0.5, 1.004]], dtype=np.float32))
            >>> Depth.of(picture).to_unit(picture).tolist()
            [[0.0, 0.5, 1.0]]
        """
        values = np.asarray(image, dtype=np.float32)
        least, most = float(values.min()), float(values.max())
        white = _white_of_floats(most) if image.mode == "F" else self._white_of_integers(int(most))
        below = HAIR if image.mode == "F" else 0.0
        if white is None or not least >= -below * white:  # NaN, too
            raise UnknownWhiteError(
                f"values from {least:.6g} to {most:.6g} have no known white. Save the picture with 8 bits, or with 16 bits so that "
                "white is 65535."
            )
        unit = torch.from_numpy(values / np.float32(white)).clamp(0, 1)
        return 1 - unit if self.is_inverted else unit

    def _white_of_integers(self, most: int) -> int | None:
        if self.bits is not None:
            # The PNG standard requires samples that are scaled to 16 bits, but many files hold them unscaled.
            return 2**self.bits - 1 if most < 2**self.bits else FULL if most <= FULL else None
        if most == 0:
            return FULL
        if self.is_wide and most <= FULL // 2:
            return 255 if 255 // LEAST_USED < most <= 255 else None
        is_white_of_fewer = most & (most + 1) == 0 and most < FULL
        if FULL // LEAST_USED < most <= FULL // 4 and not is_white_of_fewer:
            warnings.warn(
                f"a 16-bit picture uses values up to {most} only and does not say what is white: 65535 is assumed. If it has fewer bits, "
                "save it with an sBIT chunk, with 8 bits, or multiplied so that white is 65535.",
                DarkPictureWarning,
                stacklevel=2,
            )
        return FULL if FULL // LEAST_USED < most <= FULL and not is_white_of_fewer else None


def _white_of_floats(most: float) -> float | None:
    for white in (1.0, 255.0, float(FULL)):
        if (white == 1 or most > white / LEAST_USED) and most <= white * (1 + HAIR):
            return white
    return None


def _declared_bits(image: Image.Image, tags: Any) -> int | None:
    codec, rawmode = _first_tile(image)
    if image.format == "PNG" and ";16" in rawmode:
        return _png_bits(image.fp)  # type: ignore[attr-defined]
    if image.format == "PPM" and codec == "ppm":  # Pillow divides by the white that the file names
        return None if _largest_of_ppm(image) == FULL else 16
    if (most := max(_numbers(tags.get(MAX_SAMPLE)), default=0)) > 255 and most & (most + 1) == 0:  # else a statistic
        return most.bit_length()
    bits = max(_numbers(tags.get(BITS_PER_SAMPLE)), default=0)
    return bits if 8 < bits < 16 else None


def _stores_words(image: Image.Image) -> bool:
    codec, rawmode = _first_tile(image)
    return ";16" in rawmode or (image.format == "PPM" and codec == "ppm" and _largest_of_ppm(image) > 255)


def _first_tile(image: Image.Image) -> tuple[str, str]:
    """Codec and mode of the samples in the file, which Pillow forgets when it has decoded them."""
    tiles = getattr(image, "tile", None)
    if not tiles:
        return "", ""
    codec, _, _, options = tiles[0]
    return codec, options if isinstance(options, str) else str(options[0])


def _largest_of_ppm(image: Image.Image) -> int:
    return int(image.tile[0][3][1])  # type: ignore[attr-defined]


def _png_bits(file: IO[bytes]) -> int | None:
    """Least number of significant bits that a PNG file states; the file is left where it was."""
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


def _refuse_wrongly_decoded(tags: Any) -> None:
    bits = max(_numbers(tags.get(BITS_PER_SAMPLE)), default=8)
    if bits > 8 and tags.get(PLANAR) == 2 and len(_numbers(tags.get(BITS_PER_SAMPLE))) > 1:
        raise UnknownWhiteError(
            "16-bit colours in separate planes are not decoded. Save the picture with interleaved colours."
        )
    if bits == 8 and 2 in _numbers(tags.get(SAMPLE_FORMAT)):
        raise UnknownWhiteError("signed bytes have no known white. Save the picture with unsigned ones.")


def _numbers(value: Any) -> list[int]:
    """Integers of a tag of TIFF, which may be missing or of another kind."""
    values = value if isinstance(value, tuple) else (value,)
    return [int(one) for one in values if isinstance(one, int | float) and math.isfinite(one)]
