"""Find correspondences between the positions of two faces, if the model is affine after its last layer with positions."""

import torch
from torch import Tensor, nn

from captum_leam.errors import CaptumLeamError
from captum_leam.explainers.exact import Correspondences as Correspondences  # for the modules of pages
from captum_leam.explainers.exact import PositionDecomposition
from captum_leam.suggest import LayerSuggestions

MAX_POSITIONS = 256
"""Largest number of positions of a layer, a grid of 16 × 16, because all pairs of them are kept."""
MAX_TRIED = 4
"""Number of the last modules with positions that are tried."""


def find_correspondences(
    model: nn.Module, images: Tensor, layers: LayerSuggestions
) -> tuple[Correspondences | None, str]:
    """Return the contribution of each pair of positions of two faces to their cosine, or the reason why it is unknown.

    The contributions are exact at the last module with positions after which the model is affine (:class:`PositionDecomposition`).

    Args:
        model: Model in evaluation mode that returns embeddings (N, D).
        images: The two faces, shape (2, C, H, W).
        layers: Suggested layers, for the field that the model reads.

    Returns:
        Correspondences of one pair, shape (1, h·w, h·w), and the name of the layer; or None and the reason.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, 6)).eval()
        >>> layers = LayerSuggestions((), (0, 0, 16, 16), (16, 16))
        >>> found, layer = find_correspondences(model, torch.rand(2, 3, 16, 16), layers)
        >>> found.grid, layer
        ((8, 8), '1')
    """
    tried = _last_with_positions(model, images[:1])
    for name, layer in tried:
        try:
            pairs = PositionDecomposition(model, layer, field=layers.field).correspondences(images[:1], images[1:])
        except (CaptumLeamError, RuntimeError):
            continue
        return pairs, name
    if not tried:
        return None, f"no layer has between 2 and {MAX_POSITIONS} positions"
    return None, f"the model is not affine after {', '.join(name for name, _ in tried)}"


def _last_with_positions(model: nn.Module, image: Tensor) -> list[tuple[str, nn.Module]]:
    """Return the last modules with a small output of shape (1, C, h, w), in reverse order of their run."""
    found: dict[str, nn.Module] = {}

    def keep(name: str, module: nn.Module, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and 1 < output.shape[2] * output.shape[3] <= MAX_POSITIONS:
            found.pop(name, None)
            found[name] = module

    modules = [(name, module) for name, module in model.named_modules() if name]
    handles = [
        module.register_forward_hook(lambda m, _, output, name=name: keep(name, m, output)) for name, module in modules
    ]
    try:
        with torch.no_grad():
            model(image)
    finally:
        for handle in handles:
            handle.remove()
    return [*found.items()][: -MAX_TRIED - 1 : -1]
