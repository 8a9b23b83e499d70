"""Results of a study: a folder that can be opened again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from captum_leam._optional import import_optional, pd
from captum_leam._storage import file_sha256
from captum_leam._stores import AnyPath, as_path, local_file
from captum_leam.errors import BrokenFileError, CaptumLeamError
from captum_leam.reporting.schema import OVERALL, TABLES

MAX_NAMED = 10
"""Number of rows of the table of what was left out that the summary shows."""


@dataclass(frozen=True, repr=False)
class StudyResult:
    """Results of a finished study: its tables, manifest and mean maps.

    :meth:`Study.run <captum_leam.study.Study.run>` returns it. Construct it to open the results of an earlier study. Files are read on
    access, and each is compared with its checksum first.

    Args:
        folder: Folder that a study wrote, as a path or as its URL in a store.

    Raises:
        BrokenFileError: On access, if the study is not finished, or if a file was changed since.

    See Also:
        * :class:`~captum_leam.study.Study`: Study that writes the results.
        * :func:`~captum_leam.reporting.write_report`: Report of the results.

    Example:
        >>> result = StudyResult("results")
        >>> result.to_frame()[["model", "control", "same", "different", "gap"]]  # doctest: +SKIP
        >>> result.table("drops", explained="mine", fraction=0.05).groupby("person")["drop"].mean()  # doctest: +SKIP
        >>> result.mean_maps()["mine", "overall"].shape  # doctest: +SKIP
        (112, 112)
    """

    folder: AnyPath

    def __init__(self, folder: str | AnyPath) -> None:
        object.__setattr__(self, "folder", as_path(folder))

    @property
    def manifest(self) -> dict[str, Any]:
        """Record of the run, a dictionary that ``manifest.json`` holds: configuration, versions, hashes, durations and skipped files."""
        try:
            manifest: dict[str, Any] = json.loads((self.folder / "manifest.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise BrokenFileError(
                f"{self.folder}: expected a finished study, got no valid manifest.json. Run the study again."
            ) from None
        return manifest

    def table(self, name: str, **filters: Any) -> pd.DataFrame:
        """Return one of the tables of the study.

        :mod:`captum_leam.reporting.schema` lists all tables with the meaning of each column.

        Args:
            name: Name of the table, such as ``"scores"``, ``"regions"``, ``"drops"`` or ``"patterns"``.
            **filters: Value of one or more columns, such as ``model="a"``. Only rows with these values are read. Default: all rows.

        Returns:
            Data frame with the columns that the schema lists for the table, in that order. Rows have the order of the file.

        Raises:
            CaptumLeamError: If there is no such table.
            BrokenFileError: If the file was changed since the study wrote it.

        Example:
            >>> result = StudyResult("results")
            >>> result.table("scores", model="mine")[["person", "cosine"]].head(2)  # doctest: +SKIP
        """
        pq = import_optional("pyarrow.parquet")

        if name not in TABLES:
            raise CaptumLeamError(f"Expected one of the tables {', '.join(TABLES)}, got {name!r}.")
        wanted = [(column, "==", value) for column, value in filters.items()] or None
        with self._good("tables", f"tables/{name}.parquet") as file:
            frame: pd.DataFrame = pq.read_table(file, filters=wanted).to_pandas()
        return frame

    @contextmanager
    def _good(self, what: str, name: str) -> Iterator[Path]:
        """Yield a file that fits the manifest."""
        path = self.folder / name
        try:
            with local_file(path) as file:
                if file_sha256(file) != self.manifest[what][name]:
                    raise BrokenFileError(
                        f"{path}: expected the file of the manifest, got a truncated or changed one. Run the study again."
                    )
                yield file
        except OSError as error:
            raise BrokenFileError(
                f"{path}: the table cannot be read ({error.strerror}). Run the study again."
            ) from None

    def to_frame(self) -> pd.DataFrame:
        """Return how person-specific the overall maps and their controls are, the main table of a study.

        Returns:
            Rows of the table ``patterns`` for the overall map at the top fraction of its pixels, one per network and control. The most
            important columns are:

            * model: Name of the explained network.
            * control: Name of the control, or an empty string for the maps of LEAM.
            * same, different: Mean overlap of two maps of one person, and of two people, in [0, 1].
            * gap: ``same`` minus ``different``; ``gap_low`` and ``gap_high`` are its interval.
            * above_control: Gap minus that of the strongest control.

        Raises:
            BrokenFileError: If the study is not finished, or the file was changed since.
        """
        return self.table("patterns", layer=OVERALL, kind="top")

    def mean_maps(self) -> dict[tuple[str, str], NDArray[np.float32]]:
        """Return the mean map of all images for each network and layer.

        Returns:
            Dictionary from (model, layer) to a float32 array of shape (H, W) that sums to 1. The overall map has the layer ``"overall"``.

        Raises:
            BrokenFileError: If the study is not finished, or the file was changed since.
        """
        with self._good("maps", "maps/mean.npz") as path, np.load(path, allow_pickle=False) as file:
            named = [(tuple(key.split("/", 1)), file[key]) for key in file.files]
        return {(model, layer): values for (model, layer), values in named}

    @property
    def complete(self) -> bool:
        """Whether all pictures were used."""
        return not self.manifest["skipped"]["count"]

    def __repr__(self) -> str:
        manifest = self.manifest
        lines = [f"Study of {manifest['data']['people']} people, {manifest['data']['usable']} pictures: {self.folder}"]
        for row in self.to_frame().query("control == ''").to_dict("records"):
            kinds = f"BC same {row['same']:.3f}, different {row['different']:.3f}, AUC {row['auc']:.3f}"
            gap = f"gap {row['gap']:.3f} [{row['gap_low']:.3f}, {row['gap_high']:.3f}]"
            above = (
                f"{row['above_control']:.3f} [{row['above_low']:.3f}, {row['above_high']:.3f}] above {row['strongest']}"
            )
            lines.append(f"  {row['model']}: {kinds}; {gap}, {above if row['strongest'] else 'no control'}")
        lines += [f"  note: {note}" for note in manifest.get("notes", [])]
        if not self.complete:
            lines.append(f"  {manifest['skipped']['count']} left out: {manifest['skipped']['of']}")
            rows = manifest["skipped"]["reasons"]
            lines += [f"    {_subject(row)}: {row['reason']}" for row in rows[:MAX_NAMED]]
            if manifest["skipped"]["count"] > MAX_NAMED:
                lines.append(f"    and {manifest['skipped']['count'] - MAX_NAMED} more in tables/skipped.parquet")
        return "\n".join(lines)


def _subject(row: dict[str, Any]) -> str:
    """Return the file and the model that a row of ``skipped`` is about, as far as it has them."""
    return ", ".join(name for name in (row.get("path"), row.get("model"), row.get("layer")) if name) or row["what"]
