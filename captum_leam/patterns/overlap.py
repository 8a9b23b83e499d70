r"""Similarity of two maps as distributions over the aligned pixel grid."""

import torch
from torch import Tensor

from captum_leam.maps import as_maps, normalize_sum, top_fraction
from captum_leam.modes import own_arithmetic


def bhattacharyya(a: Tensor, b: Tensor | None = None, *, fraction: float = 0.01, seed: int = 0) -> Tensor:
    r"""Bhattacharyya coefficient :math:`\sum_i \sqrt{p_i q_i}` of maps, each kept to its top fraction, summing to 1.

    Source: Bhattacharyya 1943; used on maps of faces by Borsukiewicz et al., arXiv 2509.17457.

    Args:
        a: maps (N, H, W) or (N, 1, H, W), or one map (H, W); the positive part counts.
        b: maps to compare with, (M, H, W) or one (H, W); by default those of ``a``.
        fraction: of the pixels kept; 1 for dense maps.
        seed: of the tie-breaking, see :func:`~captum_leam.top_fraction`.

    Returns:
        Every map with every map, (N, M), within [0, 1]: 1 for equal maps, 0 for maps without a common pixel. For two
        single maps, one number.

    Raises:
        ValueError: for maps of different size, NaN, or a map without any positive value.

    Example:
        >>> left, right = torch.zeros(4, 4), torch.zeros(4, 4)
        >>> left[0, 0], right[3, 3] = 1.0, 1.0
        >>> bhattacharyya(left, left, fraction=0.1).item(), bhattacharyya(left, right, fraction=0.1).item()
        (1.0, 0.0)
    """
    other = a if b is None else b
    if tuple(a.shape[-2:]) != tuple(other.shape[-2:]):
        raise ValueError(
            f"maps have sizes {tuple(a.shape[-2:])} and {tuple(other.shape[-2:])}; needed is one aligned grid."
        )
    roots = _root_distribution(a, fraction, seed)
    others = roots if b is None else _root_distribution(b, fraction, seed)
    with own_arithmetic(roots.device):
        table = (roots @ others.T).clamp(0, 1)
    return table[0, 0] if a.ndim == 2 and other.ndim == 2 else table


def _root_distribution(maps: Tensor, fraction: float, seed: int) -> Tensor:
    kept = as_maps(maps) * top_fraction(maps, fraction, seed=seed)
    return torch.sqrt(normalize_sum(kept).flatten(1))
