"""Bring the outputs of transformer layers to maps (N, C, h, w), and find layers by name."""

from torch import Tensor, nn

from captum_leam.errors import CaptumLeamError

__all__ = ["channels_last_to_first", "get_layer", "tokens_to_map"]

MOST_PREFIX_TOKENS = 16
"""Class and register tokens that may come before the patches."""


def get_layer(model: nn.Module, name: str) -> nn.Module:
    """The layer of this name.

    Raises:
        CaptumLeamError: with the nearest names, if there is none.

    Example:
        >>> get_layer(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), "1")
        ReLU()
    """
    import difflib

    modules = dict(model.named_modules())
    if name not in modules:
        near = difflib.get_close_matches(name, [n for n in modules if n], n=5, cutoff=0.3)
        raise CaptumLeamError(
            f"the model has no layer {name!r}. Near it: {', '.join(near) or 'nothing'}. suggest_layers(model, faces) proposes some."
        )
    return model.get_submodule(name)


# -- recording activations -----------------------------------------------------------------------------


def tokens_to_map(tokens: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
    """Transformer tokens (N, T, C) as (N, C, h, w): drops the class and register tokens that come first.

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
        raise CaptumLeamError(f"tokens have shape {tuple(tokens.shape)}; needed is (N, T, C).")
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
    """(N, h, w, C), as inside torchvision's Swin, as (N, C, h, w).

    Example:
        >>> import torch
        >>> channels_last_to_first(torch.rand(2, 56, 56, 96)).shape
        torch.Size([2, 96, 56, 56])
    """
    return activations.movedim(-1, 1)
