"""Layers worth explaining, layers by name, and functions that bring the outputs of transformer layers to maps (N, C, h, w)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from captum_leam._engine.shapes import Reshape
from captum_leam._engine.types import Field
from captum_leam._optional import pd
from captum_leam.errors import CaptumLeamError, UnknownLayerError

__all__ = ["LayerSuggestion", "LayerSuggestions", "channels_last_to_first", "get_layer", "tokens_to_map"]

MOST_PREFIX_TOKENS = 16
"""Class and register tokens that may come before the patches."""


def get_layer(model: nn.Module, name: str) -> nn.Module:
    """Return the layer of this name.

    Raises:
        UnknownLayerError: with the nearest names, if there is none.

    Example:
        >>> get_layer(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), "1")
        ReLU()
    """
    import difflib

    modules = dict(model.named_modules())
    if name not in modules:
        near = difflib.get_close_matches(name, [n for n in modules if n], n=5, cutoff=0.3)
        raise UnknownLayerError(
            f"the model has no layer {name!r}. Near it: {', '.join(near) or 'nothing'}. suggest_layers(model, faces) proposes some."
        )
    return model.get_submodule(name)


# -- reshapes ------------------------------------------------------------------------------------------


def tokens_to_map(tokens: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
    """Return transformer tokens (N, T, C) as (N, C, h, w), without the class and register tokens that come first.

    Args:
        tokens: shape (N, T, C), patches last, in reading order.
        grid: (h, w) of the patches; by default the largest square that fits into T.

    Raises:
        CaptumLeamError: for a grid that does not fit, or without one for tokens that are no square.

    Example:
        >>> import torch
        >>> tokens_to_map(torch.rand(2, 1 + 14 * 14, 192)).shape
        torch.Size([2, 192, 14, 14])
    """
    if tokens.ndim != 3:
        raise CaptumLeamError(f"tokens have shape {tuple(tokens.shape)}; expected (N, T, C).")
    side = int(tokens.shape[1] ** 0.5)
    if grid is None and tokens.shape[1] - side * side > MOST_PREFIX_TOKENS:
        raise CaptumLeamError(
            f"{tokens.shape[1]} tokens are no square of patches after at most {MOST_PREFIX_TOKENS} others; give the grid: "
            "reshape=functools.partial(tokens_to_map, grid=(h, w))."
        )
    height, width = grid or (side, side)
    if not 0 <= tokens.shape[1] - height * width <= MOST_PREFIX_TOKENS:
        raise CaptumLeamError(
            f"Expected a grid of {height} × {width} patches to have {height * width} tokens and at most {MOST_PREFIX_TOKENS} class or "
            f"register tokens before them, got {tokens.shape[1]}. Was the grid found at another image size?"
        )
    patches = tokens[:, tokens.shape[1] - height * width :]
    return patches.transpose(1, 2).reshape(*patches.shape[::2], height, width)


def channels_last_to_first(activations: Tensor) -> Tensor:
    """Return (N, h, w, C), as inside torchvision's Swin, as (N, C, h, w).

    Example:
        >>> import torch
        >>> channels_last_to_first(torch.rand(2, 56, 56, 96)).shape
        torch.Size([2, 96, 56, 56])
    """
    return activations.movedim(-1, 1)


# -- suggestions ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LayerSuggestion:
    """A layer worth explaining.

    Attributes:
        name: Name within the model.
        module: The layer itself.
        shape: Shape (C, h, w) of its map, after ``reshape``.
        cell: Width of one of its cells in pixels of the field.
        reshape: Function that brings its output to (N, C, h, w), for tokens and channels-last layers. None elsewhere.

    Example:
        >>> layer = nn.Conv2d(3, 8, 3, 2, 1)
        >>> LayerSuggestion("stem", layer, (8, 56, 56), 2.0).shape
        (8, 56, 56)
    """

    name: str
    module: nn.Module
    shape: tuple[int, int, int]
    cell: float
    reshape: Reshape | None = None


@dataclass(frozen=True, repr=False)
class LayerSuggestions(Sequence[LayerSuggestion]):
    """Layers from fine to coarse, one for every spatial size, and the field that the network reads.

    Index by number or by name.
    """

    layers: tuple[LayerSuggestion, ...]
    field: Field
    image_size: tuple[int, int]
    chosen: bool = False
    """Whether the layers were chosen by hand: the overall map then takes all of them."""

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[LayerSuggestion]:
        return iter(self.layers)

    def __getitem__(self, key: Any) -> Any:
        """Return the suggestion at this position or of this name.

        Raises:
            UnknownLayerError: for a name that no suggestion has.
        """
        if isinstance(key, str):
            found = [layer for layer in self.layers if layer.name == key]
            if not found:
                raise UnknownLayerError(
                    f"Expected the name of a suggestion, one of {', '.join(repr(layer.name) for layer in self.layers)}, got {key!r}."
                )
            return found[0]
        return self.layers[key]

    def for_images(self, images: Tensor) -> LayerSuggestions:
        """Return the suggestions themselves, if they are for images of this size.

        Raises:
            CaptumLeamError: for another size, at which layers have other grids and the network may read another field.
        """
        size = (images.shape[-2], images.shape[-1])
        if size != self.image_size:
            raise CaptumLeamError(
                f"Expected images of {self.image_size[0]} × {self.image_size[1]} px, for which these layers were suggested, got "
                f"{size[0]} × {size[1]} px. Call suggest_layers(model, images) with images of the new size."
            )
        return self

    def for_overall_map(self) -> tuple[LayerSuggestion, ...]:
        """Return the layers of the overall map: cells of 2 to 8 px per 112 px of width, or the finest if there are none.

        Layers of 56, 28 and 14 px of a 112-px crop were the best set measured; the last layer's 7 px the worst. Of layers of
        nearly the same size (convolutions without padding take off a pixel or two), the later one. All of them, if chosen by hand.
        """
        if self.chosen:
            return self.layers
        unit = self.image_size[1] / 112
        apart = [a for a, b in pairwise(self.layers) if b.cell > 1.25 * a.cell or b.cell < a.cell] + [*self.layers[-1:]]
        chosen = tuple(layer for layer in apart if 1.5 * unit < layer.cell < 9 * unit)
        return chosen or self.layers[:1]

    def to_frame(self) -> pd.DataFrame:
        """Return a table with name, kind, channels, height, width, cell and the reshape needed."""
        rows = [
            {
                "name": layer.name,
                "kind": type(layer.module).__name__,
                "channels": layer.shape[0],
                "height": layer.shape[1],
                "width": layer.shape[2],
                "cell": layer.cell,
                "reshape": _reshape_name(layer.reshape),
            }
            for layer in self.layers
        ]
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        table = self.to_frame().to_string(index=False)
        return (
            f"{table}\nfield (top, left, height, width): {self.field} of {self.image_size[0]} × {self.image_size[1]} px"
        )


def _reshape_name(reshape: Reshape | None) -> str:
    function = reshape.func if isinstance(reshape, partial) else reshape
    return "" if function is None else getattr(function, "__name__", repr(function))
