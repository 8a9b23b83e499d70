"""Measure the drops of the cosine over a grid of shares, for all maps of a page and their controls."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from captum_leam._optional import pd
from captum_leam.faithfulness import OcclusionEvaluator
from captum_leam.maps import rank_pixels

SHARES = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
"""Shares of the pixels at which drops are measured; a page interpolates between them."""

OVERALL = "overall map"
FOR, AGAINST = "for", "against"
CONTROLS = ("random pixels", "moved")
COLUMNS = ["image", "map", "speaks", "control", "fraction", "drop", "changed"]

MapKey = tuple[str, str]
"""Name of the map (:data:`OVERALL` or a layer), and ``"for"`` or ``"against"``."""


def ranked_maps(overall: Tensor, against: Tensor, layers: Mapping[str, Tensor], *, seed: int) -> dict[MapKey, Tensor]:
    """Return the maps that rank the pixels for and against the match, the highest first.

    The pixels against the match of a layer are those of its signed map in reverse order.

    Args:
        overall: Overall maps, shape (N, H, W).
        against: Evidence against the match, shape (N, H, W).
        layers: Layer name → signed maps, shape (N, H, W).
        seed: Seed that breaks ties.

    Returns:
        Name of the map and side → maps, shape (N, H, W).

    Example:
        >>> import torch
        >>> signed = {"stem": torch.tensor([[[0.5, -1.0, 0.1]]])}
        >>> maps = ranked_maps(signed["stem"], -signed["stem"], signed, seed=0)
        >>> maps["stem", "against"].tolist()
        [[[0.0, 2.0, 1.0]]]
    """
    found = {(OVERALL, FOR): overall, (OVERALL, AGAINST): against}
    for name, signed in layers.items():
        found[name, FOR] = signed
        found[name, AGAINST] = rank_pixels(signed, seed=seed).float()
    return found


def passes_per_face(layers: int) -> int:
    """Return the number of forward passes of :func:`measure_curves` for one face.

    Args:
        layers: Number of layers.

    Example:
        >>> passes_per_face(3)
        122
    """
    return len(SHARES) * (2 + 2 * layers + len(CONTROLS)) + 2


def measure_curves(
    model: nn.Module,
    images: Tensor,
    maps: Mapping[MapKey, Tensor],
    references: Tensor,
    *,
    fill: str,
    seed: int,
    batch_size: int,
    progress: bool = False,
) -> pd.DataFrame:
    """Measure the drop of the cosine at every share of :data:`SHARES`.

    Controls are random pixels and the overall map moved within the face, both with as many pixels as the map.

    Args:
        model: Model in evaluation mode that returns embeddings (N, D).
        images: Images, shape (N, C, H, W).
        maps: Maps of :func:`ranked_maps`.
        references: Embedding to match for each image, shape (N, D).
        fill: Replacement of occluded pixels.
        seed: Seed of ties and controls.
        batch_size: Images per pass.
        progress: Whether to show a progress bar. Default: False.

    Returns:
        Table with the columns of :data:`COLUMNS`; ``map`` and ``speaks`` are the key of the map, and ``""`` for random pixels.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(192, 8)).eval()
        >>> images, signed = torch.rand(2, 3, 8, 8), torch.randn(2, 8, 8)
        >>> maps = ranked_maps(signed.relu(), (-signed).relu(), {"stem": signed}, seed=0)
        >>> table = measure_curves(model, images, maps, torch.rand(2, 8), fill="blur", seed=0, batch_size=4)
        >>> table.groupby(["map", "speaks", "control"]).size().unique().tolist(), len(table)
        ([24], 144)
    """
    options = {"fills": (fill,), "seed": seed, "batch_size": batch_size, "progress": progress}
    first = {(OVERALL, FOR): maps[OVERALL, FOR]}
    others = {key: values for key, values in maps.items() if key not in first}
    tables = []
    for some, controls in ((first, CONTROLS), (others, ())):
        keys = {str(i): key for i, key in enumerate(some)}
        evaluator = OcclusionEvaluator(model, SHARES, controls=controls, **options)  # type: ignore[arg-type]
        found = evaluator.evaluate(images, dict(zip(keys, some.values(), strict=True)), references).to_frame()
        named = [keys.get(method, ("", "")) for method in found["method"]]
        tables.append(found.assign(map=[name for name, _ in named], speaks=[speaks for _, speaks in named]))
    return pd.concat(tables, ignore_index=True)[COLUMNS]
