r"""Maps as root distributions: compact, built shard by shard, and a Bhattacharyya coefficient is their inner product.

A map keeps its top pixels (or all of them, or the mass of its regions), is divided by its sum, and each value replaced by its square
root: :math:`v_i = \sqrt{p_i}`, of length 1. Then :math:`BC(p, q) = \langle v, w \rangle`, and the sum over all pairs of a set is
:math:`\tfrac12 (\lVert \sum v \rVert^2 - \sum \lVert v \rVert^2)`: ten thousand maps are compared without their table.
"""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from torch import Tensor

from captum_leam._engine.arithmetic import as_array, as_tensor
from captum_leam.errors import CaptumLeamError
from captum_leam.maps import as_maps
from captum_leam.stats.bootstrap import Floats
from captum_leam.stats.estimates import is_sparse, row_products

Kind = Literal["top", "dense", "regions"]
KINDS: tuple[Kind, ...] = ("top", "dense", "regions")


@dataclass(frozen=True, repr=False)
class Signatures:
    """Root distributions of N maps over the same cells.

    Attributes:
        roots: (N, cells), float32: sparse rows for ``"top"``, an array otherwise. Every row has length 1; a map without positive
            value, where allowed, is a row of zeros and like nothing.
        kind: ``"top"``, ``"dense"`` or ``"regions"``.
        settings: how they were made: fraction, grid, seed, names of the regions.

    Example:
        >>> import torch
        >>> made = signatures(torch.eye(3).reshape(3, 1, 3), "dense")
        >>> len(made), made.cells, len(made[:2]), made.similarity()[0].tolist()
        (3, 3, 2, [1.0, 0.0, 0.0])
    """

    roots: Any
    kind: Kind
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return int(self.roots.shape[0])

    @property
    def cells(self) -> int:
        """How many cells the distributions have: pixels, or regions."""
        return int(self.roots.shape[1])

    @property
    def empty(self) -> NDArray[np.bool_]:
        """(N,), maps without any positive value."""
        nothing: NDArray[np.bool_] = self.norms() == 0
        return nothing

    def __getitem__(self, rows: Any) -> "Signatures":
        """Return some of the maps, by a slice, indices or a boolean mask."""
        return Signatures(self.roots[np.arange(len(self))[rows].reshape(-1)], self.kind, self.settings)

    def norms(self) -> Floats:
        """Squared lengths (N,): 1, or 0 for an empty map."""
        return row_products(self.roots, self.roots)

    @classmethod
    def concat(cls, parts: "Iterable[Signatures]") -> "Signatures":
        """Shards as one, in their order.

        Raises:
            CaptumLeamError: without any, or if they differ in kind, cells or settings.

        Example:
            >>> import torch
            >>> maps = torch.rand(4, 8, 8)
            >>> whole = Signatures.concat([signatures(maps[:3]), signatures(maps[3:])])
            >>> bool((whole.similarity() == signatures(maps).similarity()).all())
            True
        """
        shards = list(parts)
        if not shards:
            raise CaptumLeamError("concat needs the signatures of one shard or more.")
        first = shards[0]
        for other in shards[1:]:
            check_comparable(first, other, "two shards")
        stack = sparse.vstack if is_sparse(first.roots) else np.concatenate
        roots = stack([shard.roots for shard in shards])
        return cls(sparse.csr_array(roots) if is_sparse(roots) else roots, first.kind, first.settings)

    def similarity(self, other: "Signatures | None" = None) -> NDArray[np.float32]:
        """Bhattacharyya coefficients of every map with every map, (N, M): only for as many as fit into memory.

        Example:
            >>> import torch
            >>> signatures(torch.tensor([[[3.0, 1.0]], [[0.0, 1.0]]]), kind="dense").similarity().tolist()
            [[1.0, 0.5], [0.5, 1.0]]
        """
        partner = self if other is None else other
        check_comparable(self, partner, "signatures")
        product = self.roots @ partner.roots.T
        table: NDArray[np.float32] = np.clip(product.toarray() if is_sparse(product) else product, 0, 1)
        return table

    def to_arrays(self, dtype: Any = np.float16) -> dict[str, NDArray[Any]]:
        """Plain arrays for a file: values, and for sparse rows their columns and where each row begins.

        Args:
            dtype: of the values; float16 halves the file and changes coefficients by about 1e-4.
        """
        if is_sparse(self.roots):
            return {
                "values": self.roots.data.astype(dtype),
                "columns": self.roots.indices.astype(np.int32),
                "starts": self.roots.indptr.astype(np.int64),
                "cells": np.array(self.cells),
            }
        return {"values": self.roots.astype(dtype)}

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, ArrayLike], kind: Kind, settings: Mapping[str, Any] | None = None
    ) -> "Signatures":
        """Return signatures from the arrays of :meth:`to_arrays`, rows scaled to length 1.

        Raises:
            CaptumLeamError: for arrays that are no root distributions (NaN, negative, columns out of range, torn rows).

        Example:
            >>> import torch
            >>> made = signatures(torch.rand(3, 8, 8))
            >>> again = Signatures.from_arrays(made.to_arrays(np.float32), made.kind, made.settings)
            >>> bool(np.allclose(again.similarity(), made.similarity(), atol=1e-6))
            True
        """
        _check_kind(kind)
        given = {name: np.asarray(array) for name, array in arrays.items()}
        if missing := {"values"} - set(given) or (
            {"columns", "starts", "cells"} - set(given) if len(given) > 1 else set()
        ):
            raise CaptumLeamError(f"the arrays lack {sorted(missing)}; expected what to_arrays gave.")
        values = given["values"].astype(np.float32)
        if not np.isfinite(values).all() or (values < 0).any():
            raise CaptumLeamError("the values hold NaN, infinite or negative numbers: these are no root distributions.")
        if "starts" not in given:
            return cls(_unit_rows(values), kind, dict(settings or {}))
        starts, columns, cells = given["starts"], given["columns"], int(given["cells"])
        torn = starts.ndim != 1 or len(starts) < 1 or starts[0] != 0 or (np.diff(starts) < 0).any()
        if torn or starts[-1] != len(values) or len(columns) != len(values):
            raise CaptumLeamError(
                f"{len(values)} values and {len(columns)} columns do not fit the starts of their rows."
            )
        if len(columns) and not (columns.min() >= 0 and columns.max() < cells):
            raise CaptumLeamError(f"columns reach from {columns.min()} to {columns.max()}; there are {cells} cells.")
        roots = sparse.csr_array((values, columns, starts), shape=(len(starts) - 1, cells))
        return cls(_unit_rows(roots), kind, dict(settings or {}))

    def __repr__(self) -> str:
        said = ", ".join(f"{name}={value}" for name, value in self.settings.items())
        return f"Signatures of {len(self)} maps: {self.kind}, {self.cells} cells{', ' if said else ''}{said}"


# -- from maps -----------------------------------------------------------------------------------------


def signatures(
    maps: Tensor | ArrayLike,
    kind: Kind = "top",
    *,
    fraction: float = 0.01,
    grid: tuple[int, int] | None = None,
    labels: Tensor | ArrayLike | None = None,
    regions: Sequence[int] | None = None,
    empty: Literal["raise", "zero"] = "raise",
    seed: int = 0,
) -> Signatures:
    """Root distributions of maps, ready for the functions of this package.

    A map's row depends on that map alone: not on its place in the batch, nor on how a study was cut into shards.

    Args:
        maps: (N, H, W) or (N, 1, H, W), tensor or array; the positive part counts.
        kind: ``"top"`` keeps the top fraction of the pixels, ``"dense"`` the whole positive map, ``"regions"`` the mass of each region.
        fraction: of the pixels kept, for ``"top"``.
        grid: (rows, columns) that dense maps are averaged to; their own pixels by default.
        labels: integers (N, H, W) or (H, W) of the regions, for ``"regions"``.
        regions: the integers that count; by default all that occur, which shards should not rely on.
        empty: what to do with a map without any positive value: ``"raise"``, or ``"zero"``: it is like no other map.
        seed: ties at the cut are broken at random, by this seed and the map's own values: equal maps keep equal pixels.

    Raises:
        CaptumLeamError: for an unknown kind, NaN or empty maps, a fraction outside (0, 1], or labels that do not fit.

    Example:
        >>> import torch
        >>> maps = torch.zeros(2, 10, 10)
        >>> maps[0, 0, 0] = maps[1, 0, 0] = maps[1, 9, 9] = 1.0
        >>> signatures(maps)
        Signatures of 2 maps: top, 100 cells, fraction=0.01, size=(10, 10), seed=0
        >>> signatures(maps, fraction=0.02).similarity()[0].round(4)
        array([1.    , 0.7071], dtype=float32)
    """
    _check_kind(kind)
    positive = as_maps(maps).detach().cpu().clamp(min=0)
    size = (int(positive.shape[1]), int(positive.shape[2]))
    if kind == "top":
        roots = _unit_rows(_top_rows(positive.flatten(1).numpy(), fraction, seed))
        settings: dict[str, Any] = {"fraction": fraction, "size": size, "seed": seed}
    elif kind == "dense":
        averaged = positive if grid is None else F.adaptive_avg_pool2d(positive[:, None].double(), grid)[:, 0]
        roots, settings = _unit_rows(np.sqrt(averaged.flatten(1).double().numpy())), {"grid": grid or size}
    else:
        masses, names = _region_masses(positive, labels, regions)
        roots, settings = _unit_rows(np.sqrt(masses)), {"regions": names}
    return _settled(Signatures(roots, kind, settings), empty)


def profile_signatures(
    masses: ArrayLike, names: Sequence[Any] | None = None, *, empty: Literal["raise", "zero"] = "raise"
) -> Signatures:
    """Root distributions of region profiles that are already there, for example the ``mass`` of a region report.

    Args:
        masses: (N, regions), not negative; each row is divided by its sum.
        names: of the regions; their numbers by default.
        empty: as in :func:`signatures`.

    Raises:
        CaptumLeamError: for NaN or negative masses, names that do not fit, or an empty row.

    Example:
        >>> profile_signatures([[0.5, 0.5], [1.0, 0.0]], ["nose", "eyes"]).similarity()[0].round(4)
        array([1.    , 0.7071], dtype=float32)
    """
    table = as_array(masses)
    called = tuple(range(table.shape[-1])) if names is None else tuple(names)
    if table.ndim != 2 or len(called) != table.shape[1]:
        raise CaptumLeamError(
            f"masses have shape {table.shape} and {len(called)} names; expected (N, regions), a name each."
        )
    if not np.isfinite(table).all() or (table < 0).any():
        bad = np.flatnonzero(~(np.isfinite(table) & (table >= 0)).all(1)).tolist()
        raise CaptumLeamError(f"profiles {bad[:5]} hold NaN, infinite or negative masses; leave these images out.")
    return _settled(Signatures(_unit_rows(np.sqrt(table)), "regions", {"regions": called}), empty)


def top_roots(values: Tensor, top: Tensor) -> Tensor:
    """Return the root distributions of maps over their highest pixels.

    Args:
        values: Maps (..., P), not negative.
        top: Indices (..., K) of the pixels that are kept, see :func:`captum_leam.maps.top_pixels`.

    Returns:
        Square roots (..., K) of the values divided by their sum; zeros for a map without a positive value.

    Example:
        >>> top_roots(torch.tensor([[0.0, 0.1, 0.3]]), torch.tensor([[2, 1]])).square().tolist()
        [[0.75, 0.25]]
    """
    return _roots(values.gather(-1, top))


def dense_roots(maps: Tensor, grid: int | tuple[int, int]) -> Tensor:
    """Return the root distributions (N, L, cells) of maps (N, L, H, W), not negative, averaged to a grid of (rows, columns).

    Example:
        >>> dense_roots(torch.ones(1, 2, 8, 8), (2, 2)).tolist()
        [[[0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5]]]
    """
    return _roots(F.adaptive_avg_pool2d(maps, grid).flatten(2))


def _roots(values: Tensor) -> Tensor:
    return (values / values.sum(-1, keepdim=True).clamp(min=torch.finfo(values.dtype).tiny)).sqrt()


def _top_rows(values: NDArray[Any], fraction: float, seed: int) -> sparse.csr_array:
    """Square roots of the top pixels of each row."""
    if not 0 < fraction <= 1:
        raise CaptumLeamError(
            f"fraction is {fraction}; expected a share of the pixels in (0, 1], for example 0.01 for 1 %."
        )
    kept = [_top_pixels(row, max(1, round(fraction * values.shape[1])), seed) for row in values]
    starts = np.cumsum([0, *map(len, kept)])
    starts = starts.astype(np.int32 if starts[-1] < 2**31 else np.int64)  # scipy would make columns as wide as these
    columns = np.concatenate([*kept, np.zeros(0, np.int32)]).astype(np.int32)
    rows = np.repeat(np.arange(len(values)), np.diff(starts))
    roots = np.sqrt(values[rows, columns].astype(np.float64))
    return sparse.csr_array((roots, columns, starts), shape=values.shape)


def _top_pixels(row: NDArray[Any], count: int, seed: int) -> NDArray[np.int32]:
    """Columns of the largest values that are positive, in order; of ties at the cut, some by chance."""
    cut = np.partition(row, len(row) - count)[len(row) - count]
    if cut <= 0:
        return np.flatnonzero(row > 0).astype(np.int32)
    above, at = np.flatnonzero(row > cut), np.flatnonzero(row == cut)
    wanted = count - len(above)
    if len(at) > wanted:
        content = zlib.crc32(np.ascontiguousarray(row, dtype=np.float32).tobytes())
        at = np.random.default_rng([seed, content]).choice(at, wanted, replace=False)
    return np.sort(np.concatenate([above, at])).astype(np.int32)


def _region_masses(
    positive: Tensor, labels: Tensor | ArrayLike | None, regions: Sequence[int] | None
) -> tuple[Floats, tuple[int, ...]]:
    if labels is None:
        raise CaptumLeamError(
            "kind='regions' needs labels=, integers (N, H, W) or (H, W) that say which region a pixel is of."
        )
    where = as_tensor(labels).cpu().numpy()
    if where.shape not in (tuple(positive.shape), tuple(positive.shape[1:])) or not np.issubdtype(
        where.dtype, np.integer
    ):
        raise CaptumLeamError(f"labels are {where.dtype} {where.shape}; expected integers {tuple(positive.shape)}.")
    where = np.broadcast_to(where, positive.shape)
    names = tuple(int(region) for region in (np.unique(where) if regions is None else regions))
    values = positive.double().numpy()
    return np.stack([(values * (where == region)).sum((1, 2)) for region in names], axis=1), names


def _unit_rows(roots: Any) -> Any:
    """Rows of length 1; rows of zeros stay."""
    lengths = np.sqrt(row_products(roots, roots))
    scale = 1 / np.where(lengths > 0, lengths, 1)
    if is_sparse(roots):
        values = roots.data * np.repeat(scale, np.diff(roots.indptr))
        return sparse.csr_array((values.astype(np.float32), roots.indices, roots.indptr), shape=roots.shape)
    return (roots * scale[:, None]).astype(np.float32)


def _settled(made: Signatures, empty: str) -> Signatures:
    if empty not in ("raise", "zero"):
        raise CaptumLeamError(f"empty is {empty!r}; expected 'raise' or 'zero'.")
    if empty == "raise" and made.empty.any():
        raise CaptumLeamError(
            f"maps {np.flatnonzero(made.empty).tolist()[:10]} have no positive value: nothing speaks for the match there. Leave these "
            "images out, or give empty='zero': they are then like no other map."
        )
    return made


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise CaptumLeamError(f"kind is {kind!r}; expected one of {', '.join(map(repr, KINDS))}.")


# -- what may be compared ------------------------------------------------------------------------------


def check_comparable(first: Signatures, second: Signatures, what: str) -> None:
    """Refuse to compare different things.

    Raises:
        CaptumLeamError: if kind, cells or settings differ.
    """
    if (first.kind, first.cells, dict(first.settings)) != (second.kind, second.cells, dict(second.settings)):
        raise CaptumLeamError(
            f"{what} differ: {first!r} and {second!r}. Make both with the same kind, grid and options."
        )


def as_signatures(given: "Signatures | Tensor | ArrayLike") -> Signatures:
    """Signatures as they are; maps at their top 1 %."""
    return given if isinstance(given, Signatures) else signatures(given)
