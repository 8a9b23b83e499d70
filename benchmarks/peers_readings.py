"""Readings: pure functions from the raw attributions of any method to the maps that rank pixels (``contest.py`` has the list)."""

from typing import NamedTuple

import torch
from contest import PUBLISHED, READINGS
from torch import Tensor

from captum_leam.maps import gaussian_blur


class Raw(NamedTuple):
    """What a method gives for some images.

    Attributes:
        attributions: Signed input attributions (N, C, H, W), or signed maps (N, 1, H, W) at image size.
        published: Maps (N, H, W) as the method's paper reads them, where none of the fixed readings does.
    """

    attributions: Tensor
    published: Tensor | None = None

    @classmethod
    def joined(cls, parts: "list[Raw]") -> "Raw":
        """Return the batches of one method as one."""
        published = [p.published for p in parts if p.published is not None]
        return cls(torch.cat([p.attributions for p in parts]), torch.cat(published) if published else None)

    def rows(self, chosen: list[int]) -> "Raw":
        """Return some of the images."""
        return Raw(self.attributions[chosen], None if self.published is None else self.published[chosen])


def read(raw: Raw, reading: str) -> Tensor:
    """Return the map (N, H, W) of one reading, in double precision so that no two pixels become equal by rounding.

    Raises:
        ValueError: For an unknown reading, or the published one of a method that has none.

    Example:
        >>> raw = Raw(torch.tensor([[[[1.0]], [[-3.0]]]]))
        >>> {reading: read(raw, reading).item() for reading in READINGS}
        {'signed': -2.0, 'positive': 0.0, 'absolute': 4.0, 'mean': -1.0}
    """
    attributions = raw.attributions.detach().double()
    if reading == PUBLISHED and raw.published is not None:
        return raw.published.detach().double()
    if reading == "absolute":
        return attributions.abs().sum(1)
    signed = attributions.sum(1)
    if reading == "signed":
        return signed
    if reading == "positive":
        return signed.clamp(min=0)
    if reading == "mean":
        return signed / attributions.shape[1]
    raise ValueError(f"Expected a reading of {(*READINGS, PUBLISHED)} that the method has, got {reading!r}.")


def readings_of(raw: Raw) -> tuple[str, ...]:
    """Return the names of the readings that a method has."""
    return READINGS if raw.published is None else (*READINGS, PUBLISHED)


def smoothed(maps: Tensor, sigma: float) -> Tensor:
    """Return maps blurred with a Gaussian of σ px per 112 px of width; σ = 0 leaves them as they are."""
    return gaussian_blur(maps, sigma * maps.shape[-1] / 112)
