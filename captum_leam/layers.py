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

MAX_PREFIX_TOKENS = 16
"""Maximum number of class and register tokens before the patches."""


def get_layer(model: nn.Module, name: str) -> nn.Module:
    """Return the layer with a given name.

    Args:
        model: Model that contains the layer.
        name: Name of the layer, as ``model.named_modules()`` lists it, such as ``"layer4.1.conv2"``.

    Returns:
        The module itself, not a copy.

    Raises:
        UnknownLayerError: If the model has no such layer; the message lists similar names.

    See Also:
        :func:`~captum_leam.suggest_layers`: Layers worth explaining.

    Example:
        >>> get_layer(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), "1")
        ReLU()
    """
    import difflib

    modules = dict(model.named_modules())
    if name not in modules:
        near = difflib.get_close_matches(name, [n for n in modules if n], n=5, cutoff=0.3)
        raise UnknownLayerError(
            f"Expected the name of a layer of the model, got {name!r}. Similar names: {', '.join(near) or 'none'}; "
            "suggest_layers(model, faces) lists layers to explain."
        )
    return model.get_submodule(name)


# -- reshapes ------------------------------------------------------------------------------------------


def tokens_to_map(tokens: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
    """Return transformer tokens (N, T, C) as (N, C, h, w), without the class and register tokens that come first.

    Args:
        tokens: Tokens, shape (N, T, C), with the patches last, row by row.
        grid: (h, w) of the patches. Default: the largest square with at most T cells.

    Returns:
        Shape (N, C, h, w).

    Raises:
        CaptumLeamError: If the grid does not fit the tokens, or if none is given and the patches do not form a square.

    See Also:
        :func:`~captum_leam.layers.channels_last_to_first`: Activations of the form (N, h, w, C).

    Example:
        >>> import torch
        >>> tokens_to_map(torch.rand(2, 1 + 14 * 14, 192)).shape
        torch.Size([2, 192, 14, 14])
    """
    if tokens.ndim != 3:
        raise CaptumLeamError(f"Expected tokens to have shape (N, T, C), got {tuple(tokens.shape)}.")
    side = int(tokens.shape[1] ** 0.5)
    if grid is None and tokens.shape[1] - side * side > MAX_PREFIX_TOKENS:
        raise CaptumLeamError(
            f"Expected a square of patches after at most {MAX_PREFIX_TOKENS} class or register tokens, got {tokens.shape[1]} tokens. Pass "
            "reshape=functools.partial(tokens_to_map, grid=(h, w))."
        )
    height, width = grid or (side, side)
    if not 0 <= tokens.shape[1] - height * width <= MAX_PREFIX_TOKENS:
        raise CaptumLeamError(
            f"Expected a grid of {height} × {width} patches to have {height * width} tokens and at most {MAX_PREFIX_TOKENS} class or "
            f"register tokens before them, got {tokens.shape[1]}. Pass the grid of this image size."
        )
    patches = tokens[:, tokens.shape[1] - height * width :]
    return patches.transpose(1, 2).reshape(*patches.shape[::2], height, width)


def channels_last_to_first(activations: Tensor) -> Tensor:
    """Return channels-last activations (N, h, w, C), such as those of torchvision's Swin, as (N, C, h, w).

    Args:
        activations: Activations, shape (N, h, w, C).

    Returns:
        Shape (N, C, h, w).

    See Also:
        :func:`~captum_leam.layers.tokens_to_map`: Activations of the form (N, T, C).

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
        cell: Width of one cell of the map in pixels of the field.
        reshape: Function that brings the output to (N, C, h, w), for tokens and channels-last layers. Default: None, for outputs that
            have this shape.

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
    """Sequence of layers from fine to coarse, one for every spatial size, with the field that the network reads.

    It can be indexed by number or by name.

    Attributes:
        layers: Suggestions in order.
        field: (top, left, height, width) of the images that the network reads, in pixels.
        image_size: (H, W) of the images that the layers were suggested for.
        is_manual: Whether the user chose the layers, all of which the overall map then uses. Default: False.

    See Also:
        :func:`~captum_leam.suggest_layers`: Function that returns the suggestions.

    Example:
        >>> layer = LayerSuggestion("stem", nn.Conv2d(3, 8, 3, 2, 1), (8, 56, 56), 2.0)
        >>> layers = LayerSuggestions((layer,), (0, 0, 112, 112), (112, 112))
        >>> layers["stem"] is layers[0]
        True
    """

    layers: tuple[LayerSuggestion, ...]
    field: Field
    image_size: tuple[int, int]
    is_manual: bool = False

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[LayerSuggestion]:
        return iter(self.layers)

    def __getitem__(self, key: Any) -> Any:
        """Return the suggestion with this number or name.

        Args:
            key: Number, slice or name of the layer.

        Raises:
            UnknownLayerError: If no suggestion has the name.
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
        """Return the suggestions after a check that they are for images of this size.

        Args:
            images: Images of shape (N, C, H, W). Only their height and width are read.

        Returns:
            These suggestions, unchanged.

        Raises:
            CaptumLeamError: If the size differs, because layers then have other grids and the network may read another field.
        """
        size = (images.shape[-2], images.shape[-1])
        if size != self.image_size:
            raise CaptumLeamError(
                f"Expected images of {self.image_size[0]} × {self.image_size[1]} px, for which these layers were suggested, got "
                f"{size[0]} × {size[1]} px. Call suggest_layers(model, images) with images of the new size."
            )
        return self

    def for_overall_map(self) -> tuple[LayerSuggestion, ...]:
        """Return the layers with cells of 2 to 8 px per 112 px of width, or the finest layer if there are none.

        For a crop of 112 px, maps of 56, 28 and 14 px were the best set measured and that of the last layer, with 7 px, the worst. Of
        layers with nearly the same size, which convolutions without padding produce, the later one is returned. If the user chose the
        layers, all of them are returned.

        Returns:
            One or more suggestions, from fine to coarse.

        Example:
            >>> stem = LayerSuggestion("stem", nn.Identity(), (8, 56, 56), 2.0)
            >>> last = LayerSuggestion("last", nn.Identity(), (64, 7, 7), 16.0)
            >>> layers = LayerSuggestions((stem, last), (0, 0, 112, 112), (112, 112))
            >>> [layer.name for layer in layers.for_overall_map()]
            ['stem']
        """
        if self.is_manual:
            return self.layers
        unit = self.image_size[1] / 112
        distinct = [a for a, b in pairwise(self.layers) if b.cell > 1.25 * a.cell or b.cell < a.cell]
        suitable = tuple(layer for layer in [*distinct, *self.layers[-1:]] if 1.5 * unit < layer.cell < 9 * unit)
        return suitable or self.layers[:1]

    def to_frame(self) -> pd.DataFrame:
        """Return the suggestions as a table.

        Returns:
            Data frame with one row per layer, from fine to coarse, and the columns:

            * name: Name of the layer within the model.
            * kind: Class of its module.
            * channels: Number of channels of its output.
            * height, width: Size of its output in cells.
            * cell: Width of a cell in pixels of the image.
            * reshape: Name of the function that brings the output to (N, C, h, w), or an empty string.

        Example:
            >>> stem = LayerSuggestion("stem", nn.Identity(), (8, 56, 56), 2.0)
            >>> print(LayerSuggestions((stem,), (0, 0, 112, 112), (112, 112)).to_frame().to_string(index=False))
            name     kind  channels  height  width  cell reshape
            stem Identity         8      56     56   2.0
        """
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
