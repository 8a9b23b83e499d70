"""Result of an occlusion evaluation: table, summary, statistical comparisons, and transfer matrix."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from captum_leam._optional import pd
from captum_leam.errors import CaptumLeamError
from captum_leam.stats.inference import MIN_PEOPLE, bootstrap_interval, effect_size, holm, paired_p_value

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CELL = ["explained", "model", "fill", "order", "fraction"]
ROW = ["explained", "method", "control", "model", "fill", "order", "fraction"]


@dataclass(frozen=True, repr=False)
class OcclusionResult:
    """Drops of each image, method, control, model, fill, order and fraction.

    :class:`~captum_leam.faithfulness.OcclusionEvaluator` measures them.

    Attributes:
        drops: One row per drop, with the columns image, person, explained (the model that the maps explain), method ("" for controls
            shared by all methods), control ("" for the method itself), model (on which the drop is measured), fill, order, fraction,
            drop (absolute fall of the cosine) and changed (number of pixels whose value changed).
        settings: Settings of the evaluator by name.

    See Also:
        :func:`~captum_leam.plots.occlusion_curves`: Curves of the drops.

    Example:
        >>> import torch
        >>> from captum_leam.faithfulness import OcclusionEvaluator
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 8)).eval()
        >>> evaluator = OcclusionEvaluator(model, fractions=(0.1,), controls=("random pixels",))
        >>> result = evaluator.evaluate(torch.rand(4, 3, 8, 8), torch.rand(4, 8, 8), labels=["ann", "ann", "bob", "bob"])
        >>> result.to_frame().shape, result.compare()["control"].tolist()
        ((8, 11), ['random pixels'])
    """

    drops: pd.DataFrame
    settings: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def concat(cls, results: Iterable[OcclusionResult]) -> OcclusionResult:
        """Return several results as one, for example of maps that explain different models.

        Args:
            results: Results to join.

        Raises:
            CaptumLeamError: If there is no result, or if two results have different drops for the same image, map and model.
        """
        parts = list(results)
        if not parts:
            raise CaptumLeamError("Expected one result or more, got none.")
        drops = pd.concat([p.drops for p in parts], ignore_index=True).drop_duplicates(ignore_index=True)
        twice = drops.duplicated([*ROW, "image"])
        if twice.any():
            first = drops.loc[twice, [*ROW, "image"]].iloc[0].to_dict()
            raise CaptumLeamError(
                f"Expected one drop for {first}, got two from different images with the same numbers. Evaluate these together, or set "
                "`explained` to distinguish results."
            )
        labelled = all(p.settings.get("labelled", True) for p in parts)
        return cls(drops, {**parts[0].settings, "labelled": labelled})

    def to_frame(self) -> pd.DataFrame:
        """Return a copy of the table of drops."""
        return self.drops.copy()

    def summary(self, *, confidence: float = 0.95, seed: int = 0) -> pd.DataFrame:
        """Return the mean drop of each method and control, with its bootstrap interval over people.

        Args:
            confidence: Confidence level of the intervals, in (0, 1). Default: 0.95.
            seed: Seed of the bootstrap draws. Default: 0.

        Returns:
            One row per explained model, method, control, model, fill, order and fraction, with drop, low, high, images, people, changed
            (mean number of pixels), and "ratio: …" for each control: the mean drop of the method over that of the control.
        """
        rows = []
        for key, table in self.drops.groupby(ROW, sort=False):
            low, high = bootstrap_interval(table["drop"], table["person"].tolist(), confidence=confidence, seed=seed)
            numbers = {"drop": table["drop"].mean(), "low": float(low), "high": float(high)}
            counts = {"images": len(table), "people": table["person"].nunique(), "changed": table["changed"].mean()}
            rows.append({**dict(zip(ROW, key, strict=True)), **numbers, **counts})
        return self._with_ratios(pd.DataFrame(rows))

    @staticmethod
    def _with_ratios(table: pd.DataFrame) -> pd.DataFrame:
        means = table.set_index(ROW)["drop"].to_dict()
        for control in [c for c in table["control"].unique() if c]:
            ratios = []
            for row in table.to_dict("records"):
                cell = {**row, "control": control}
                own = means.get(tuple(cell[c] for c in ROW))
                by = means.get(tuple({**cell, "method": ""}[c] for c in ROW)) if own is None else own
                ratios.append(row["drop"] / by if by and not row["control"] else float("nan"))
            table[f"ratio: {control}"] = ratios
        return table

    def compare(self, *, confidence: float = 0.95, min_people: int = MIN_PEOPLE, seed: int = 0) -> pd.DataFrame:
        """Compare each method with each control that is shared or its own, image by image.

        Args:
            confidence: Confidence level of the intervals, in (0, 1). Default: 0.95.
            min_people: Fewest people for a p-value. Default: 10.
            seed: Seed of the bootstrap draws. Default: 0.

        Returns:
            One row per cell, method and control: the ratio of mean drops, the mean difference with its bootstrap interval over people,
            the effect size (rank-biserial, over people), Wilcoxon's p over people, and p after Holm's correction over methods. p is NaN
            with fewer than ``min_people`` people and without labels, with the reason in ``note``.
        """
        rows = []
        for key, cell in self.drops.groupby(CELL, sort=False):
            wide = cell.pivot_table(index=["image", "person"], columns=["method", "control"], values="drop", sort=False)
            people = wide.index.get_level_values("person").tolist()
            columns: list[Any] = list(wide.columns.to_flat_index())
            for method, control in self._pairs(columns):
                by = wide[(method, control) if (method, control) in columns else ("", control)]
                difference = (wide[method, ""] - by).to_numpy()
                low, high = bootstrap_interval(difference, people, confidence=confidence, seed=seed)
                rows.append(
                    {
                        **dict(zip(CELL, key, strict=True)),
                        "method": method,
                        "control": control,
                        "ratio": wide[method, ""].mean() / by.mean(),
                        "difference": difference.mean(),
                        "low": float(low),
                        "high": float(high),
                        "effect": effect_size(difference, people),
                        "p": paired_p_value(difference, people, min_people=min_people),
                        "people": len(set(people)),
                    }
                )
        table = pd.DataFrame(rows)
        if len(table):
            table["p_holm"] = table.groupby([*CELL, "control"], sort=False)["p"].transform(lambda p: holm(p.to_numpy()))
            table["note"] = np.where(table["people"] < min_people, f"fewer than {min_people} people: no p-value", "")
            if not self.settings.get("labelled", True):
                table[["p", "p_holm"]], table["note"] = (
                    np.nan,
                    "no labels: images of one person are not independent, no p-value",
                )
        return table

    @staticmethod
    def _pairs(columns: list[tuple[str, str]]) -> list[tuple[str, str]]:
        methods = [column[0] for column in columns if not column[1]]
        controls = list(dict.fromkeys(column[1] for column in columns if column[1]))
        return [(m, c) for m in methods for c in controls if (m, c) in columns or ("", c) in columns]

    def transfer_matrix(self, method: str, *, fraction: float, fill: str = "blur", order: str = "most") -> pd.DataFrame:
        """Return the mean drops with the explained models in the rows and the measured models in the columns.

        Args:
            method: Name of the method.
            fraction: Fraction of the pixels that is occluded.
            fill: Name of the fill. Default: ``"blur"``.
            order: Order of the occlusion. Default: ``"most"``.

        Raises:
            CaptumLeamError: If there are no such rows.
        """
        query = {"method": method, "control": "", "fraction": fraction, "fill": fill, "order": order}
        rows = self.drops
        for column, value in query.items():
            rows = rows[rows[column] == value]
        if not len(rows):
            raise CaptumLeamError(
                f"Expected one of the methods {sorted(set(self.drops['method']) - {''})} with a fraction, fill and order that were "
                f"measured, got {query}."
            )
        return rows.pivot_table(index="explained", columns="model", values="drop", sort=False)

    def plot(self, **options: Any) -> Figure:
        """Plot the drops against the fraction with bands, see :func:`captum_leam.plots.occlusion_curves`."""
        from captum_leam.plots import occlusion_curves

        figure: Figure = occlusion_curves(self, **options)
        return figure

    def __repr__(self) -> str:
        table = self.summary()
        table["name"] = [
            f"{m} · {c}" if m and c else m or c for m, c in zip(table["method"], table["control"], strict=True)
        ]
        wide = table.pivot_table(
            index=["explained", "name", "model"], columns=["fill", "order", "fraction"], values="drop", sort=False
        )
        people = self.drops["person"].nunique()
        return f"Mean drop of the cosine, {self.drops['image'].nunique()} images of {people} people\n{wide.round(4).to_string()}"
