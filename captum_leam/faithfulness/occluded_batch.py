r"""Measurement kernel of occlusion: a batch of images that is occluded in many ways and compared with references.

This module works on tensors and arrays. :class:`~captum_leam.faithfulness.OcclusionEvaluator` and studies make tables of them.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from captum_leam.faithfulness.fills import Fill

Embed = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class MeasuredModel:
    """Model on which drops are measured, with the cosines of a batch without occlusion.

    Attributes:
        embed: Function from images (N, C, H, W) to embeddings (N, D); a row of NaN has a drop of NaN.
        references: Unit vectors, float64, shape (N, D).
        cosines: Cosines of the images without occlusion, float64, shape (N,).
    """

    embed: Embed
    references: Tensor
    cosines: Tensor

    def drops(self, embeddings: Tensor) -> Tensor:
        """Return the drops of occluded images, shape (..., N), from their embeddings of any precision, shape (..., N, D)."""
        embeddings = embeddings.to(self.references)
        return self.cosines - (F.normalize(embeddings, dim=-1) * self.references).sum(-1)


@dataclass
class OccludedBatch:
    """Images that are occluded where maps are highest, and how far their cosines fall.

    Attributes:
        images: Images (N, C, H, W).
        fills: What occluded pixels are replaced with.
        models: Name → model that drops are measured on.
        filled: Name of a fill → the filled images, where they are known. Fills that ignore the mask are computed once.

    Example:
        >>> images, towards = torch.ones(1, 1, 1, 2), torch.tensor([[1.0, 0.0]]).double()
        >>> model = MeasuredModel(lambda x: x.flatten(1).double(), towards, torch.tensor([0.5**0.5]).double())
        >>> batch = OccludedBatch(images, [Fill("zero", lambda x, masks: 0 * x)], {"model": model})
        >>> batch.measure([torch.tensor([[[False, True]]])], ["model"])[0].round(4).tolist()
        [[-0.2929]]
    """

    images: Tensor
    fills: Sequence[Fill]
    models: Mapping[Any, MeasuredModel]
    filled: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for fill in self.fills:
            if not fill.uses_masks and fill.name not in self.filled:
                self.filled[fill.name] = fill(self.images)
        images = {"": self.images, **self.filled}
        is_float = self.images.dtype in (torch.float32, torch.float64)
        finite = {name: is_float and bool(torch.isfinite(x.sum())) for name, x in images.items()}
        self._can_blend = {name: finite[""] and finite[name] for name in self.filled}

    def measure(
        self, masks: Sequence[Tensor], models: Sequence[Hashable], *, count_changes: bool = False
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Return the drop of the cosine in each cell, and the number of pixels that change their value.

        Args:
            masks: Masks, True or 1 where pixels are replaced, shape (N, H, W).
            models: Names of the models to measure on.
            count_changes: Whether to count changed pixels. Default: False.

        Returns:
            Drops, shape (N, fills × masks × models) with the models innermost, and counts, shape (N, fills × masks) or (N, 0).
        """
        return self._measure(lambda fill: (self._occlude(fill, mask) for mask in masks), models, count_changes)

    def measure_top(self, order: Tensor, counts: Sequence[int], models: Sequence[Hashable]) -> NDArray[np.float64]:
        """Return the drops of :meth:`measure` for growing masks, of which only the added pixels are replaced.

        Args:
            order: Indices of the pixels in the order of their replacement, shape (N, K).
            counts: Number of replaced pixels of each mask.
            models: Names of the models to measure on. Their embeddings must not share memory with the images.

        Example:
            >>> images, towards = torch.ones(1, 1, 1, 2), torch.tensor([[1.0, 0.0]]).double()
            >>> model = MeasuredModel(lambda x: x.flatten(1).double(), towards, torch.tensor([0.5**0.5]).double())
            >>> batch = OccludedBatch(images, [Fill("zero", lambda x, masks: 0 * x)], {"model": model})
            >>> batch.measure_top(torch.tensor([[1, 0]]), [1, 2], ["model"]).round(4).tolist()
            [[-0.2929, 0.7071]]
        """
        return self._measure(lambda fill: self._grown(fill, order, counts), models)[0]

    def _measure(
        self, occlusions: Callable[[Fill], Iterable[Tensor]], models: Sequence[Hashable], count_changes: bool = False
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        embeddings: dict[Hashable, list[Tensor]] = {name: [] for name in models}
        changes = []
        for fill in self.fills:
            for occluded in occlusions(fill) if models else ():
                if count_changes:
                    changes.append((occluded != self.images).any(1).flatten(1).sum(1))
                for name in models:
                    embeddings[name].append(self.models[name].embed(occluded))
        if not any(embeddings.values()):
            return np.zeros((len(self.images), 0)), np.zeros((len(self.images), 0), np.int64)
        drops = [self.models[name].drops(torch.stack(cells)) for name, cells in embeddings.items()]
        table = torch.stack(drops, 1).flatten(0, 1).T.cpu().numpy()
        counts = torch.stack(changes, 1).cpu().numpy() if changes else np.zeros((len(table), 0), np.int64)
        return table, counts

    def _grown(self, fill: Fill, order: Tensor, counts: Sequence[int]) -> Iterator[Tensor]:
        """Yield the images with more and more pixels replaced; for fills that ignore the mask one tensor, changed in place."""
        if fill.uses_masks:
            masks = masks_of_pixels(order, counts, (self.images.shape[2], self.images.shape[3]))
            yield from (self._occlude(fill, mask) for mask in masks)
            return
        filled, done = self.filled[fill.name].flatten(2), 0
        occluded = self.images.clone()
        for count in counts:
            if count < done:
                occluded, done = self.images.clone(), 0
            added = order[:, None, done:count].expand(-1, filled.shape[1], -1)
            occluded.flatten(2).scatter_(2, added, filled.gather(2, added))
            done = count
            yield occluded

    def _occlude(self, fill: Fill, mask: Tensor) -> Tensor:
        """Return the images with all channels of the masked pixels replaced."""
        if (
            not fill.uses_masks and self._can_blend[fill.name]
        ):  # exact at 0 and 1, and three times as fast as torch.where
            return torch.lerp(self.images, self.filled[fill.name], mask[:, None].to(self.images.dtype))
        is_replaced = mask.bool()
        filled = fill(self.images, is_replaced) if fill.uses_masks else self.filled[fill.name]
        return torch.where(is_replaced[:, None], filled, self.images)


def masks_of_pixels(
    order: Tensor, counts: Sequence[int], size: tuple[int, int], dtype: torch.dtype = torch.bool
) -> list[Tensor]:
    """Return masks of the first pixels of each row of indices, one mask for each count.

    Args:
        order: Indices of pixels, shape (N, K).
        counts: Number of pixels of each mask.
        size: Height and width of the masks.
        dtype: Type of the masks. Default: boolean.

    Returns:
        Masks, shape (N, H, W) each.

    Example:
        >>> masks_of_pixels(torch.tensor([[2, 0]]), [1, 2], (1, 3))[1].tolist()
        [[[True, False, True]]]
    """
    masks = []
    for count in counts:
        mask = torch.zeros(len(order), size[0] * size[1], dtype=dtype, device=order.device)
        masks.append(mask.scatter_(1, order[:, :count], 1).view(len(order), *size))
    return masks
