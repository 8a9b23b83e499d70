"""Read a finished study: all summary tables, and the required rows of the large tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from captum_leam._optional import import_optional, pd
from captum_leam.errors import CaptumLeamError
from captum_leam.faithfulness import OcclusionResult
from captum_leam.reporting.schema import OVERALL, TABLES

LARGE = ("regions", "drops")
"""Tables with a row per image, of which only some rows are read."""


@dataclass(frozen=True, repr=False)
class Findings:
    """Tables, manifest and mean maps of a study.

    Attributes:
        folder: Folder of the results.
        manifest: Content of ``manifest.json``.
        tables: Name → table, without the large tables.
    """

    folder: Path
    manifest: Mapping[str, Any]
    tables: Mapping[str, pd.DataFrame]

    def __getitem__(self, name: str) -> pd.DataFrame:
        """Return a table."""
        return self.tables[name]

    @property
    def models(self) -> list[str]:
        """Names of the models, in the order of the study."""
        return list(dict.fromkeys(self["verification"]["model"]))

    @property
    def explained(self) -> list[str]:
        """Models that have maps."""
        return [model for model in self.models if self.layers(model)]

    @property
    def people(self) -> list[str]:
        """People with a usable image."""
        images = self["images"]
        return list(dict.fromkeys(images.loc[images["status"] == "ok", "person"]))

    def layers(self, model: str) -> list[str]:
        """Return the layers of a model, fine to coarse."""
        table = self["layers"]
        return list(table.loc[table["model"] == model, "layer"])

    @property
    def place(self) -> str:
        """Name of the map that is shown first: the overall map, or the first layer without an overall map."""
        found = list(dict.fromkeys(self["region_summary"]["layer"])) or list(dict.fromkeys(self["patterns"]["layer"]))
        return OVERALL if OVERALL in found or not found else str(found[0])

    @property
    def fill(self) -> str:
        """Fill that is shown first: blur, which adds no noise, or the first of the study."""
        found = list(dict.fromkeys(self["drop_summary"]["fill"]))
        return "blur" if "blur" in found or not found else str(found[0])

    @property
    def fraction(self) -> float:
        """Fraction of occluded pixels that is shown in tables of one fraction: the nearest to 5 %."""
        found = self["drop_summary"]["fraction"].unique()
        return float(min(found, key=lambda f: abs(np.log(f / 0.05)))) if len(found) else 0.05

    def rows(self, name: str, columns: Sequence[str] | None = None, **wanted: Any) -> pd.DataFrame:
        """Return rows of a large table.

        Args:
            name: Name of the table.
            columns: Names of the columns that are read. Default: all.
            **wanted: Value of a column, or list of its values.
        """
        pq = import_optional("pyarrow.parquet")

        filters = [(column, "in", v if isinstance(v, list) else [v]) for column, v in wanted.items()]
        table = pq.read_table(_path(self.folder, name), columns=columns, filters=filters or None)
        frame: pd.DataFrame = table.to_pandas()
        return frame

    def leam(self, kind: str = "top", control: str | None = "") -> pd.DataFrame:
        """Return the rows of the table ``patterns`` of one kind at the smallest fraction.

        Args:
            kind: Kind of the maps. Default: ``"top"``.
            control: Control; ``""`` for the maps and None for all. Default: ``""``.
        """
        table = self["patterns"]
        table = table[table["kind"] == kind]
        table = table if control is None else table[table["control"] == control]
        least: pd.DataFrame = table[table["fraction"] == table["fraction"].min()]
        return least

    def at_place(self, name: str, quantity: str = "") -> pd.DataFrame:
        """Return the rows of a table at :attr:`place`, of one quantity if it is not empty."""
        table = self[name]
        return table[(table["layer"] == self.place) & ((table["quantity"] == quantity) if quantity else True)]

    def headline(self, kind: str = "top") -> pd.DataFrame:
        """Return the rows of :meth:`leam` at :attr:`place`, one for each model."""
        table = self.leam(kind)
        return table[table["layer"] == self.place]

    def own(self, drops: pd.DataFrame) -> pd.DataFrame:
        """Return the drops of each model's own map at :attr:`place`, and of the controls without a map."""
        is_own = (drops["measured"] == drops["explained"]) & (drops["layer"] == self.place)
        return drops[is_own | (drops["method"] == "")]

    def against_controls(self) -> pd.DataFrame:
        """Compare each model's maps with every control, image by image, at :attr:`fraction`, :attr:`fill`, :attr:`place`.

        Returns:
            :meth:`captum_leam.faithfulness.OcclusionResult.compare` with the columns map and other, the mean drops of the two.
        """
        found = [table for model in self.explained if len(table := self._compared(model))]
        return pd.concat(found, ignore_index=True) if found else pd.DataFrame()

    def _compared(self, model: str) -> pd.DataFrame:
        shown = {"fill": self.fill, "fraction": self.fraction}
        columns = ["image", "person", "method", "control", "drop"]
        cell = self.rows("drops", columns, explained=[model, ""], layer=[self.place, ""], measured=model, **shown)
        cell = cell[np.isfinite(cell["drop"])]
        if not (cell["control"] != "").any() or not (cell["control"] == "").any():
            return pd.DataFrame()
        of_image = cell.groupby("image")["drop"].transform("size")
        cell = cell[of_image == of_image.max()]  # images without all controls cannot be compared
        drops = cell.assign(explained=model, model=model, order="most", changed=0, **shown)
        compared = OcclusionResult(drops).compare()
        means = drops.groupby("control")["drop"].mean()
        return compared.assign(map=means[""], other=compared["control"].map(means))

    def mean_maps(self, model: str) -> dict[str, NDArray[np.float32]]:
        """Return the mean maps of a model, the overall map first."""
        path = self.folder / "maps" / "mean.npz"
        if not path.is_file():
            return {}
        with np.load(path, allow_pickle=False) as file:
            keys = {place: f"{model}/{place}" for place in (OVERALL, *self.layers(model))}
            return {place: np.asarray(file[key]) for place, key in keys.items() if key in file.files}

    def person_map(self, model: str, person: str) -> NDArray[np.float64] | None:
        """Return the mean of a person's overall maps, if the study kept maps of single images."""
        models = list(self.manifest.get("models", {}))
        if model not in models:
            return None
        images = self["images"]
        numbers = images.loc[images["person"] == person, "image"]
        found = []
        for path in sorted((self.folder / "maps" / "people").glob(f"{models.index(model):02d}-*.npz")):
            with np.load(path, allow_pickle=False) as file:
                if (own := np.isin(file["image"], numbers)).any():
                    found.append(np.asarray(file["maps"][own, 0], dtype=np.float64))
        return np.concatenate(found).mean(axis=0) if found else None


def read_findings(folder: Path) -> Findings:
    """Read a finished study.

    Args:
        folder: Results folder.

    Raises:
        CaptumLeamError: If the folder is not that of a finished study, naming missing or broken files.
    """
    expected = [folder / "manifest.json", *[_path(folder, name) for name in TABLES]]
    if missing := [str(path.relative_to(folder)) for path in expected if not path.is_file()]:
        raise CaptumLeamError(
            f"{folder} is not the results folder of a finished study: {', '.join(missing[:4])}"
            f"{f' and {len(missing) - 4} more' if len(missing) > 4 else ''} missing. Run captum-leam study to its end first."
        )
    tables = {name: _table(folder, name) for name in TABLES if name not in LARGE}
    return Findings(folder, _manifest(folder / "manifest.json"), tables)


def _manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CaptumLeamError(
            f"{path}: Expected the manifest of a study, got invalid JSON ({error}). Run the study again."
        ) from None
    if not isinstance(manifest, dict):
        raise CaptumLeamError(f"{path}: Expected the manifest of a study, got another value. Run the study again.")
    return manifest


def _table(folder: Path, name: str) -> pd.DataFrame:
    pq = import_optional("pyarrow.parquet")

    path = _path(folder, name)
    try:
        table: pd.DataFrame = pq.read_table(path).to_pandas()
    except Exception as error:  # Arrow raises many types for a broken file
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise CaptumLeamError(f"{path}: Expected a table of a study ({reason}). Run the study again.") from None
    if missing := [column for column in TABLES[name].names if column not in table.columns]:
        raise CaptumLeamError(
            f"{path}: Expected a table with the columns {', '.join(missing[:4])}, got none of them. Run the study again."
        )
    return table


def _path(folder: Path, name: str) -> Path:
    return folder / "tables" / f"{name}.parquet"
