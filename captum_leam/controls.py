"""Control maps that could fool a reader, with as many pixels as the map: what a method must beat to say anything.

A control makes maps (N, H, W) from a :class:`Scene`. Those of a method's own maps (``moved``, ``other_people``) are made once per
method; the others once for all.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from captum_leam._engine.modes import normal, own_arithmetic, uniform
from captum_leam.errors import CaptumLeamError
from captum_leam.maps import gaussian_blur

__all__ = ["CONTROLS", "Scene", "central_ellipse"]


@dataclass(frozen=True)
class Scene:
    """What a control is made from.

    Attributes:
        images: (N, C, H, W).
        face: boolean (N, H, W), where the face is.
        people: the person of each image, or None.
        maps: (N, H, W) of the method that the control belongs to; None for controls shared by all.
        seed: of what is drawn.

    Example:
        >>> scene = Scene(torch.rand(2, 3, 8, 8), torch.ones(2, 8, 8, dtype=torch.bool))
        >>> CONTROLS["random pixels"](scene).shape
        torch.Size([2, 8, 8])
    """

    images: Tensor
    face: Tensor
    people: Sequence[Any] | None = None
    maps: Tensor | None = None
    seed: int = 0

    @property
    def size(self) -> tuple[int, int, int]:
        """(N, H, W)."""
        return len(self.images), self.images.shape[2], self.images.shape[3]

    def generator(self) -> torch.Generator:
        """A fresh generator with the scene's seed, on the CPU: the same numbers on every device."""
        return torch.Generator().manual_seed(self.seed)

    def own_maps(self) -> Tensor:
        """The maps of the method.

        Raises:
            CaptumLeamError: if there are none.
        """
        if self.maps is None:
            raise CaptumLeamError("this control is made from a method's maps: give the scene maps=.")
        return self.maps


Control = Callable[[Scene], Tensor]


def central_ellipse(size: tuple[int, int]) -> Tensor:
    """Where the face is in the standard aligned crop, roughly: boolean (H, W), 54 % of the pixels.

    Example:
        >>> round(central_ellipse((112, 112)).double().mean().item(), 2)
        0.54
    """
    rows = (torch.arange(size[0], device="cpu", dtype=torch.float32) + 0.5) / size[0] - 0.56
    columns = (torch.arange(size[1], device="cpu", dtype=torch.float32) + 0.5) / size[1] - 0.5
    return (rows[:, None] / 0.44) ** 2 + (columns[None] / 0.39) ** 2 <= 1


def random_pixels(scene: Scene) -> Tensor:
    """Uniform random pixels of the crop.

    Example:
        >>> scene = Scene(torch.rand(2, 3, 8, 8), central_ellipse((8, 8)).expand(2, 8, 8))
        >>> random_pixels(scene).shape
        torch.Size([2, 8, 8])
    """
    return uniform(scene.size, scene.generator()).to(scene.images.device)


def random_face_pixels(scene: Scene) -> Tensor:
    """Uniform random pixels within the face; the rest ranks behind them, at random too."""
    return random_pixels(scene) + scene.face.to(scene.images.device)


def centre(scene: Scene) -> Tensor:
    """The centre of the crop: nearest pixels first. A strong control, for the nose is there."""
    _, height, width = scene.size
    rows = torch.arange(height, device="cpu", dtype=torch.float64) - (height - 1) / 2
    columns = torch.arange(width, device="cpu", dtype=torch.float64) - (width - 1) / 2
    distance = rows[:, None] ** 2 + columns[None] ** 2
    return (-distance).expand(scene.size).to(scene.images.device)


def edges(scene: Scene) -> Tensor:
    """Smoothed Sobel edges of the grey image: passes "same person > different people" without any model."""
    grey = scene.images.detach().mean(1, keepdim=True).float()
    ramp = torch.tensor([[1, 0, -1], [2, 0, -2], [1, 0, -1]], dtype=grey.dtype, device=grey.device)
    kernels = torch.stack([ramp, ramp.T])[:, None]
    padded = torch.nn.functional.pad(grey, (1, 1, 1, 1), mode="replicate")
    with own_arithmetic(grey.device):
        strength = torch.nn.functional.conv2d(padded, kernels).square().sum(1).sqrt()
    return gaussian_blur(strength, 2 * scene.size[2] / 112)


def random_field(scene: Scene) -> Tensor:
    """A blurred random field: blobs of the size that maps have, anywhere."""
    noise = normal(scene.size, scene.generator()).to(scene.images.device)
    return gaussian_blur(noise, 6 * scene.size[2] / 112)


def moved(scene: Scene) -> Tensor:
    """The method's own map, flipped and rolled at random within the box around the face: its shape, elsewhere."""
    out = scene.own_maps().clone()
    generator = scene.generator()
    for i, face in enumerate(scene.face):
        rows, columns = (face.any(axis).nonzero().flatten() for axis in (1, 0))
        box = (i, slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
        out[box] = _flip_and_roll(out[box], generator)
    return out


def _flip_and_roll(patch: Tensor, generator: torch.Generator) -> Tensor:
    # at least a quarter of the box away in both directions: a control that stays in place would be none
    shifts = [int(n // 4 + torch.randint(max(1, n // 2), (1,), generator=generator, device="cpu")) for n in patch.shape]
    flips = [axis for axis in (0, 1) if int(torch.randint(2, (1,), generator=generator, device="cpu"))]
    return patch.flip(flips).roll(shifts, (0, 1))


def other_people(scene: Scene) -> Tensor:
    """The mean of the method's maps of *other* people: where faces are, not who they are. The strongest control.

    Raises:
        CaptumLeamError: without the people of the images, or with one person only.
    """
    if scene.people is None or len(set(scene.people)) < 2:
        raise CaptumLeamError("the mean map of other people needs labels of two people or more.")
    positive = scene.own_maps().double().clamp(min=0)
    # a map without any positive value adds nothing to the mean: some methods have such
    maps = positive / positive.sum((1, 2), keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    person = np.unique(np.asarray([str(p) for p in scene.people]), return_inverse=True)[1].reshape(-1)
    index = torch.from_numpy(person).to(maps.device)
    sums = torch.zeros(int(index.max()) + 1, *maps.shape[1:], dtype=maps.dtype, device=maps.device).index_add_(
        0, index, maps
    )
    counts = torch.bincount(index).to(maps)
    others = (sums.sum(0) - sums) / (len(maps) - counts)[:, None, None]
    return others[index]


SHARED_CONTROLS: dict[str, Control] = {
    "random pixels": random_pixels,
    "random face pixels": random_face_pixels,
    "centre": centre,
    "edges": edges,
    "random field": random_field,
}
"""Controls that need the images alone: name → function of a :class:`Scene`."""

OWN_CONTROLS: dict[str, Control] = {"moved": moved, "other people": other_people}
CONTROLS: dict[str, Control] = {**SHARED_CONTROLS, **OWN_CONTROLS}
"""All controls by name: those that need the images alone, and those made from a method's own maps."""
