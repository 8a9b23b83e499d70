r"""Root distributions of maps, whose inner products are Bhattacharyya coefficients.

The top pixels of a map (or all of them, or the mass of its regions) are divided by their sum, and each value is replaced by its square
root, :math:`v_i = \sqrt{p_i}`, so that the row has length 1. Then :math:`BC(p, q) = \langle v, w \rangle`, and the sum over all pairs of
a set is :math:`\tfrac12 (\lVert \sum v \rVert^2 - \sum \lVert v \rVert^2)`. Ten thousand maps are compared without the table of all pairs.
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
    """N maps in a form that is compared fast, as returned by :func:`signatures`.

    Each map is a distribution p over cells (pixels or regions), of which the square roots are stored. The inner product of two rows is then
    the Bhattacharyya coefficient of both maps, 1 for equal and 0 for disjoint maps.

    Attributes:
        roots: Root distributions, float32, shape (N, cells), sparse for ``"top"``. Each row has length 1; a map without a positive value,
            where that is allowed, is a row of zeros with coefficient 0 to all maps.
        kind: ``"top"``, ``"dense"`` or ``"regions"``.
        settings: Options by name: fraction, size, grid, seed, names of the regions.

    Example:
        >>> import torch
        >>> found = signatures(torch.tensor([[[3.0, 1.0]], [[0.0, 1.0]]]), "dense")  # two maps of two pixels
        >>> len(found), found.cells
        (2, 2)
        >>> found.similarity().tolist()
        [[1.0, 0.5], [0.5, 1.0]]
    """

    roots: Any
    kind: Kind
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return int(self.roots.shape[0])

    @property
    def cells(self) -> int:
        """Number of cells of the distributions, which are pixels or regions."""
        return int(self.roots.shape[1])

    @property
    def empty(self) -> NDArray[np.bool_]:
        """Whether each map has no positive value, shape (N,)."""
        is_empty: NDArray[np.bool_] = self.norms() == 0
        return is_empty

    def __getitem__(self, rows: Any) -> "Signatures":
        """Return some of the maps, by a slice, indices or a boolean mask."""
        return Signatures(self.roots[np.arange(len(self))[rows].reshape(-1)], self.kind, self.settings)

    def norms(self) -> Floats:
        """Return the squared length of the row of each map.

        Returns:
            Squared lengths, shape (N,), float64: 1, or 0 for a map without a positive value.

        Example:
            >>> import torch
            >>> signatures(torch.tensor([[[1.0, 2.0]], [[0.0, 0.0]]]), "dense", empty="zero").norms().round(3).tolist()
            [1.0, 0.0]
        """
        return row_products(self.roots, self.roots)

    @classmethod
    def concat(cls, parts: "Iterable[Signatures]") -> "Signatures":
        """Join the signatures of several batches of maps, in their order.

        Args:
            parts: Signatures of the batches, one or more, of the same kind, cells and settings.

        Returns:
            :class:`Signatures` of all maps.

        Raises:
            CaptumLeamError: If there is no part, or if parts differ in kind, cells or settings.

        Example:
            >>> import torch
            >>> _ = torch.manual_seed(0)
            >>> maps = torch.rand(4, 8, 8)
            >>> whole = Signatures.concat([signatures(maps[:3]), signatures(maps[3:])])
            >>> len(whole), bool((whole.similarity() == signatures(maps).similarity()).all())
            (4, True)
        """
        shards = list(parts)
        if not shards:
            raise CaptumLeamError("Expected one set of signatures or more, got none.")
        first = shards[0]
        for other in shards[1:]:
            check_comparable(first, other, "two shards")
        stack = sparse.vstack if is_sparse(first.roots) else np.concatenate
        roots = stack([shard.roots for shard in shards])
        return cls(sparse.csr_array(roots) if is_sparse(roots) else roots, first.kind, first.settings)

    def similarity(self, other: "Signatures | None" = None) -> NDArray[np.float32]:
        """Return the Bhattacharyya coefficients of all pairs of maps, which must fit into memory.

        Args:
            other: Signatures of M maps to compare with. Default: these signatures.

        Returns:
            Coefficients in [0, 1], shape (N, M).

        Raises:
            CaptumLeamError: If both differ in kind, cells or settings.

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
        """Return the signatures as plain arrays, to write them with ``numpy.savez``.

        Args:
            dtype: Type of the values. Default: float16, which halves the file and changes coefficients by about 1e-4.

        Returns:
            Dictionary of arrays for :meth:`from_arrays`:

            * ``"values"``: Values of the root distributions.
            * ``"columns"``: Cell of each value. Only for ``kind="top"``, as the following.
            * ``"starts"``: Index of the first value of each row, and the number of values at the end.
            * ``"cells"``: Number of cells.

        Example:
            >>> import torch
            >>> _ = torch.manual_seed(0)
            >>> found = signatures(torch.rand(3, 10, 10), fraction=0.02)  # two pixels of each map
            >>> arrays = found.to_arrays()
            >>> arrays["values"].shape, arrays["starts"].tolist(), int(arrays["cells"])
            ((6,), [0, 2, 4, 6], 100)
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
        """Return signatures from the arrays of :meth:`to_arrays`.

        Args:
            arrays: Arrays by name, as :meth:`to_arrays` returns them, for example read with ``numpy.load``.
            kind: Kind of the signatures: ``"top"``, ``"dense"`` or ``"regions"``.
            settings: ``settings`` of the signatures, which are not in the arrays. Default: None, no settings.

        Returns:
            :class:`Signatures`, with rows scaled to length 1 because the arrays may be rounded.

        Raises:
            CaptumLeamError: If the arrays are not root distributions, for example because of NaN, negative values or columns out of
                range.

        Example:
            >>> import torch
            >>> _ = torch.manual_seed(0)
            >>> found = signatures(torch.rand(3, 8, 8))
            >>> again = Signatures.from_arrays(found.to_arrays(np.float32), found.kind, found.settings)
            >>> bool(np.allclose(again.similarity(), found.similarity(), atol=1e-6))
            True
        """
        _check_kind(kind)
        by_name = {name: np.asarray(array) for name, array in arrays.items()}
        if missing := {"values"} - set(by_name) or (
            {"columns", "starts", "cells"} - set(by_name) if len(by_name) > 1 else set()
        ):
            raise CaptumLeamError(f"Expected the arrays of to_arrays, got none named {sorted(missing)}.")
        values = by_name["values"].astype(np.float32)
        if not np.isfinite(values).all() or (values < 0).any():
            raise CaptumLeamError("Expected values of root distributions, got NaN, infinite or negative numbers.")
        if "starts" not in by_name:
            return cls(_unit_rows(values), kind, dict(settings or {}))
        starts, columns, cells = by_name["starts"], by_name["columns"], int(by_name["cells"])
        is_broken = starts.ndim != 1 or len(starts) < 1 or starts[0] != 0 or (np.diff(starts) < 0).any()
        if is_broken or starts[-1] != len(values) or len(columns) != len(values):
            raise CaptumLeamError(
                f"Expected values and columns that fit the starts of their rows, got {len(values)} values and {len(columns)} columns."
            )
        if len(columns) and not (columns.min() >= 0 and columns.max() < cells):
            raise CaptumLeamError(f"Expected columns from 0 to {cells - 1}, got {columns.min()} to {columns.max()}.")
        roots = sparse.csr_array((values, columns, starts), shape=(len(starts) - 1, cells))
        return cls(_unit_rows(roots), kind, dict(settings or {}))

    def __repr__(self) -> str:
        settings = [f"{name}={value}" for name, value in self.settings.items()]
        return f"Signatures of {len(self)} maps: {', '.join([self.kind, f'{self.cells} cells', *settings])}"


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
    """Bring maps into a form that can be compared, for the functions of :mod:`captum_leam.patterns`.

    Each map becomes a distribution over pixels or regions. The signature of a map depends on that map only, and not on its place in a
    batch.

    Args:
        maps: Maps as a tensor or array, shape (N, H, W) or (N, 1, H, W); only their positive part counts.
        kind: Part of the maps to compare. Default: ``"top"``.

            * ``"top"``: Pixels with the highest values, a share of ``fraction``.
            * ``"dense"``: Whole positive map.
            * ``"regions"``: Mass of each region of ``labels``.
        fraction: Share of the pixels for ``"top"``, in (0, 1]. Default: 0.01.
        grid: Rows and columns that dense maps are averaged to. Default: the pixels of the maps.
        labels: Region labels for ``"regions"``, integers, shape (N, H, W) or (H, W).
        regions: Labels that count. Default: all that occur, which may differ between shards.
        empty: Treatment of a map without a positive value. Default: ``"raise"``.

            * ``"raise"``: Raise an error.
            * ``"zero"``: Set its coefficients with all maps to 0.
        seed: Seed that breaks ties at the cut, together with the values of the map, so that equal maps keep equal pixels. Default: 0.

    Returns:
        :class:`Signatures` of the N maps.

    Raises:
        CaptumLeamError: If the kind is unknown, a map is empty or has NaN, the fraction is outside (0, 1], or labels do not fit.

    See Also:
        * :func:`~captum_leam.bhattacharyya`: Coefficients of a few maps.
        * :func:`~captum_leam.patterns.person_specificity`: Coefficients of the same and of different people.

    Example:
        >>> import torch
        >>> maps = torch.zeros(2, 10, 10)
        >>> maps[0, 0, 0] = maps[1, 0, 0] = maps[1, 9, 9] = 1.0
        >>> signatures(maps, fraction=0.02).similarity().round(2)  # they share one of two pixels
        array([[1.  , 0.71],
               [0.71, 1.  ]], dtype=float32)
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
    return _check_empty(Signatures(roots, kind, settings), empty)


def profile_signatures(
    masses: ArrayLike, names: Sequence[Any] | None = None, *, empty: Literal["raise", "zero"] = "raise"
) -> Signatures:
    """Return the root distributions of region profiles, for example the ``mass`` of a region report.

    Args:
        masses: Masses, not negative, shape (N, regions); each row is divided by its sum.
        names: Names of the regions. Default: their indices.
        empty: Treatment of a row of zeros, see :func:`signatures`. Default: ``"raise"``.

    Returns:
        Signatures of the N profiles.

    Raises:
        CaptumLeamError: If a mass is negative or NaN, a row is empty, or names do not fit.

    See Also:
        :func:`~captum_leam.patterns.signatures`: Signatures of maps.

    Example:
        >>> profile_signatures([[0.5, 0.5], [1.0, 0.0]], ["nose", "eyes"]).similarity()[0].round(4)
        array([1.    , 0.7071], dtype=float32)
    """
    table = as_array(masses)
    regions = tuple(range(table.shape[-1])) if names is None else tuple(names)
    if table.ndim != 2 or len(regions) != table.shape[1]:
        raise CaptumLeamError(
            f"Expected `masses` of shape (N, regions) with one name per region, got shape {table.shape} and {len(regions)} names."
        )
    if not np.isfinite(table).all() or (table < 0).any():
        bad = np.flatnonzero(~(np.isfinite(table) & (table >= 0)).all(1)).tolist()
        raise CaptumLeamError(
            f"Expected finite masses of 0 or more, got NaN, infinite or negative ones in rows {bad[:5]}. Omit these images."
        )
    return _check_empty(Signatures(_unit_rows(np.sqrt(table)), "regions", {"regions": regions}), empty)


def top_roots(values: Tensor, top: Tensor) -> Tensor:
    """Return the root distributions of maps over their highest pixels.

    Args:
        values: Maps, not negative, shape (..., P).
        top: Indices of the top pixels, shape (..., K), see :func:`captum_leam.maps.top_pixels`.

    Returns:
        Square roots of the values divided by their sum, shape (..., K); zeros for a map without a positive value.

    Example:
        >>> top_roots(torch.tensor([[0.0, 0.1, 0.3]]), torch.tensor([[2, 1]])).square().tolist()
        [[0.75, 0.25]]
    """
    return _roots(values.gather(-1, top))


def dense_roots(maps: Tensor, grid: int | tuple[int, int]) -> Tensor:
    """Return the root distributions of maps averaged to a grid.

    Args:
        maps: Maps, not negative, shape (N, L, H, W).
        grid: Rows and columns of the grid, or one number for both.

    Returns:
        Root distributions, shape (N, L, cells).

    Example:
        >>> dense_roots(torch.ones(1, 2, 8, 8), (2, 2)).tolist()
        [[[0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5]]]
    """
    return _roots(F.adaptive_avg_pool2d(maps, grid).flatten(2))


def _roots(values: Tensor) -> Tensor:
    return (values / values.sum(-1, keepdim=True).clamp(min=torch.finfo(values.dtype).tiny)).sqrt()


def _top_rows(values: NDArray[Any], fraction: float, seed: int) -> sparse.csr_array:
    """Return the square roots of the top pixels of each row."""
    if not 0 < fraction <= 1:
        raise CaptumLeamError(
            f"Expected `fraction` to be a share of the pixels in (0, 1], e.g. 0.01 for 1 %, got {fraction}."
        )
    top_columns = [_top_pixels(row, max(1, round(fraction * values.shape[1])), seed) for row in values]
    starts = np.cumsum([0, *map(len, top_columns)])
    starts = starts.astype(np.int32 if starts[-1] < 2**31 else np.int64)  # scipy gives columns the width of these
    columns = np.concatenate([*top_columns, np.zeros(0, np.int32)]).astype(np.int32)
    rows = np.repeat(np.arange(len(values)), np.diff(starts))
    roots = np.sqrt(values[rows, columns].astype(np.float64))
    return sparse.csr_array((roots, columns, starts), shape=values.shape)


def _top_pixels(row: NDArray[Any], count: int, seed: int) -> NDArray[np.int32]:
    """Return the columns of the largest positive values in rising order, with ties at the cut broken at random."""
    cut = np.partition(row, len(row) - count)[len(row) - count]
    if cut <= 0:
        return np.flatnonzero(row > 0).astype(np.int32)
    above, ties = np.flatnonzero(row > cut), np.flatnonzero(row == cut)
    remaining = count - len(above)
    if len(ties) > remaining:
        content = zlib.crc32(np.ascontiguousarray(row, dtype=np.float32).tobytes())
        ties = np.random.default_rng([seed, content]).choice(ties, remaining, replace=False)
    return np.sort(np.concatenate([above, ties])).astype(np.int32)


def _region_masses(
    positive: Tensor, labels: Tensor | ArrayLike | None, regions: Sequence[int] | None
) -> tuple[Floats, tuple[int, ...]]:
    if labels is None:
        raise CaptumLeamError(
            "Expected `labels` for kind='regions', integers (N, H, W) or (H, W) with the region of each pixel, got none."
        )
    where = as_tensor(labels).cpu().numpy()
    if where.shape not in (tuple(positive.shape), tuple(positive.shape[1:])) or not np.issubdtype(
        where.dtype, np.integer
    ):
        raise CaptumLeamError(
            f"Expected `labels` to be integers {tuple(positive.shape)}, got {where.dtype} {where.shape}."
        )
    where = np.broadcast_to(where, positive.shape)
    names = tuple(int(region) for region in (np.unique(where) if regions is None else regions))
    values = positive.double().numpy()
    return np.stack([(values * (where == region)).sum((1, 2)) for region in names], axis=1), names


def _unit_rows(roots: Any) -> Any:
    """Return rows scaled to length 1; rows of zeros stay zero."""
    lengths = np.sqrt(row_products(roots, roots))
    scale = 1 / np.where(lengths > 0, lengths, 1)
    if is_sparse(roots):
        values = roots.data * np.repeat(scale, np.diff(roots.indptr))
        return sparse.csr_array((values.astype(np.float32), roots.indices, roots.indptr), shape=roots.shape)
    return (roots * scale[:, None]).astype(np.float32)


def _check_empty(result: Signatures, empty: str) -> Signatures:
    if empty not in ("raise", "zero"):
        raise CaptumLeamError(f"Expected `empty` to be 'raise' or 'zero', got {empty!r}.")
    if empty == "raise" and result.empty.any():
        raise CaptumLeamError(
            f"Expected maps with a positive value, got none in maps {np.flatnonzero(result.empty).tolist()[:10]}. Leave these images out, "
            "or pass empty='zero' for coefficients of 0."
        )
    return result


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise CaptumLeamError(f"Expected `kind` to be one of {', '.join(map(repr, KINDS))}, got {kind!r}.")


# -- checks --------------------------------------------------------------------------------------------


def check_comparable(first: Signatures, second: Signatures, what: str) -> None:
    """Raise if two signatures cannot be compared.

    Args:
        first: Signatures.
        second: Signatures.
        what: Name of both in the message.

    Raises:
        CaptumLeamError: If kind, cells or settings differ.
    """
    if (first.kind, first.cells, dict(first.settings)) != (second.kind, second.cells, dict(second.settings)):
        raise CaptumLeamError(
            f"Expected {what} of the same kind and options, got {first!r} and {second!r}. Pass the same options to both."
        )


def as_signatures(maps: "Signatures | Tensor | ArrayLike") -> Signatures:
    """Return signatures unchanged, and those of maps at their top 1 %."""
    return maps if isinstance(maps, Signatures) else signatures(maps)
