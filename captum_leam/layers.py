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
    """Return the layer of a model with a given name.

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
    """Arrange the patch tokens of a vision transformer as feature maps.

    Transformers return one vector per image patch. This function arranges them by the position of the patch, and drops the class and
    register tokens that come first. Pass it as ``reshape`` to :class:`~captum_leam.LEAM`.

    Args:
        tokens: Tokens of shape (N, T, C), with the patches last, row by row.
        grid: Number of rows and columns (h, w) of the patches. Default: the largest square with at most T cells.

    Returns:
        Feature maps of shape (N, C, h, w).

    Raises:
        CaptumLeamError: If the grid does not fit the tokens, or if none is given and the patches do not form a square.

    See Also:
        :func:`~captum_leam.layers.channels_last_to_first`: Layers that return (N, h, w, C).

    Example:
        >>> import torch
        >>> tokens = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0]).view(1, 5, 1)  # a class token and four patches
        >>> tokens_to_map(tokens)
        tensor([[[[1., 2.],
                  [3., 4.]]]])
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
    """Move the channels of activations from the last axis to the second.

    Layers of some networks, such as torchvision's Swin transformers, return (N, h, w, C). Pass this function as ``reshape`` to
    :class:`~captum_leam.LEAM` to explain them.

    Args:
        activations: Activations of shape (N, h, w, C).

    Returns:
        Activations of shape (N, C, h, w).

    See Also:
        :func:`~captum_leam.layers.tokens_to_map`: Layers that return tokens (N, T, C).

    Example:
        >>> import torch
        >>> channels_last_to_first(torch.zeros(2, 56, 56, 96)).shape
        torch.Size([2, 96, 56, 56])
    """
    return activations.movedim(-1, 1)


# -- suggestions ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LayerSuggestion:
    """A layer worth explaining, with the size of its map.

    :func:`~captum_leam.suggest_layers` returns suggestions, and :class:`~captum_leam.LEAM` takes them in the place of modules.

    Attributes:
        name: Name of the layer within the model.
        module: The layer itself.
        shape: Number of channels, rows and columns (C, h, w) of its output, after ``reshape``.
        cell: Width of one cell of the map in pixels of the image.
        reshape: Function that brings the output to (N, C, h, w), for tokens and channels-last layers. Default: None, for outputs that
            have this shape.

    Example:
        >>> stem = LayerSuggestion("stem", nn.Conv2d(3, 8, 3, 2, 1), shape=(8, 56, 56), cell=2.0)
        >>> stem.name, stem.shape
        ('stem', (8, 56, 56))
    """

    name: str
    module: nn.Module
    shape: tuple[int, int, int]
    cell: float
    reshape: Reshape | None = None


@dataclass(frozen=True, repr=False)
class LayerSuggestions(Sequence[LayerSuggestion]):
    """Sequence of layers worth explaining, from fine to coarse.

    It holds one layer for every spatial size, and can be indexed by number or by name. :class:`~captum_leam.LEAM` and
    :func:`~captum_leam.explain_faces` take all of them, or one.

    Attributes:
        layers: Suggestions in order.
        field: Part (top, left, height, width) of the images that the network reads, in pixels.
        image_size: Height and width (H, W) in pixels of the images that the layers were suggested for.
        is_manual: Whether the user chose the layers, all of which the overall map then uses. Default: False.

    See Also:
        :func:`~captum_leam.suggest_layers`: Function that returns the suggestions.

    Example:
        >>> from captum_leam import suggest_layers
        >>> import torch
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.Flatten()).eval()
        >>> _ = torch.manual_seed(0)
        >>> layers = suggest_layers(model, torch.rand(2, 3, 112, 112))
        >>> [(layer.name, layer.shape) for layer in layers]
        [('1', (8, 56, 56)), ('2', (16, 28, 28))]
        >>> layers["2"] is layers[1]
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

        Returns:
            The suggestion, or a tuple of suggestions for a slice.

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
        """Return these suggestions if they are for images of this size, or raise.

        The size of a layer's map depends on the size of the images. Call this before layers are used for other images than those that they
        were suggested for.

        Args:
            images: Images of shape (N, C, H, W). Only their height and width are read.

        Returns:
            These suggestions, unchanged.

        Raises:
            CaptumLeamError: If the size differs. Call :func:`~captum_leam.suggest_layers` with the new images instead.

        Example:
            >>> import torch
            >>> stem = LayerSuggestion("stem", nn.Conv2d(3, 8, 3, 2, 1), (8, 56, 56), 2.0)
            >>> layers = LayerSuggestions((stem,), field=(0, 0, 112, 112), image_size=(112, 112))
            >>> layers.for_images(torch.zeros(5, 3, 112, 112)) is layers
            True
        """
        size = (images.shape[-2], images.shape[-1])
        if size != self.image_size:
            raise CaptumLeamError(
                f"Expected images of {self.image_size[0]} × {self.image_size[1]} px, for which these layers were suggested, got "
                f"{size[0]} × {size[1]} px. Call suggest_layers(model, images) with images of the new size."
            )
        return self

    def for_overall_map(self) -> tuple[LayerSuggestion, ...]:
        """Return the layers whose maps :func:`~captum_leam.explain_faces` combines.

        These are the layers with cells of 2 to 8 px per 112 px of width, such as maps of 56, 28 and 14 cells on crops of 112 px, which were
        the best set measured. Without such a layer, the finest one is returned. If the user chose the layers, all of them are returned.

        Returns:
            Tuple of one or more suggestions, from fine to coarse.

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
