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
    """Falls of the cosine when pixels are occluded, as :class:`~captum_leam.faithfulness.OcclusionEvaluator` measures them.

    :meth:`summary` returns means with intervals, :meth:`compare` tests methods against controls, and :meth:`plot` draws curves.

    Attributes:
        drops: Table with one row per image, map and setting, and the columns

            * ``image``: Index of the image.
            * ``person``: Person in the image.
            * ``explained``: Model that the maps explain, ``""`` if not named.
            * ``method``: Method of the map; ``""`` for controls that all methods share.
            * ``control``: Control whose pixels were occluded; ``""`` for the method itself.
            * ``model``: Model that the drop is measured on.
            * ``fill``: What replaced the pixels.
            * ``order``: ``"most"`` if the highest pixels were occluded, else the order of the evaluator.
            * ``fraction``: Share of the pixels that was occluded.
            * ``drop``: Cosine without minus with occlusion.
            * ``changed``: Number of pixels whose value changed.
        settings: Settings of the evaluator by name.

    See Also:
        :func:`~captum_leam.plots.occlusion_curves`: Curves of the drops.

    Example:
        >>> import torch
        >>> from captum_leam.faithfulness import OcclusionEvaluator
        >>> _ = torch.manual_seed(0)
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
        """Join several results into one.

        Use it for maps that explain different models, which are measured one after the other, before :meth:`transfer_matrix`.

        Args:
            results: Results to join, one or more, with different names as ``explained``. Drops that are in several of them are kept once.

        Returns:
            :class:`OcclusionResult` with the rows of all results and the settings of the first.

        Raises:
            CaptumLeamError: If there is no result, or if two results have different drops for the same image, map and model.

        Example:
            >>> import torch
            >>> from captum_leam.faithfulness import OcclusionEvaluator
            >>> _ = torch.manual_seed(0)
            >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 8)).eval()
            >>> evaluator = OcclusionEvaluator(model, fractions=(0.1,), controls=())
            >>> faces, maps, people = torch.rand(4, 3, 8, 8), torch.rand(2, 4, 8, 8), ["ann", "ann", "bob", "bob"]
            >>> parts = [evaluator.evaluate(faces, maps[i], labels=people, explained=name) for i, name in enumerate(["a", "b"])]
            >>> OcclusionResult.concat(parts).summary()[["explained", "images"]]
              explained  images
            0         a       4
            1         b       4
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
        """Return a copy of the table of drops.

        Returns:
            Table with one row per image, map and setting, and the columns of :attr:`drops`.

        Example:
            >>> import torch
            >>> from captum_leam.faithfulness import OcclusionEvaluator
            >>> _ = torch.manual_seed(0)
            >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 8)).eval()
            >>> evaluator = OcclusionEvaluator(model, fractions=(0.25,), controls=())
            >>> result = evaluator.evaluate(torch.rand(2, 3, 8, 8), torch.rand(2, 8, 8), labels=["ann", "ann"])
            >>> result.to_frame()[["image", "person", "fill", "fraction", "changed"]]
               image person  fill  fraction  changed
            0      0    ann  blur      0.25       16
            1      1    ann  blur      0.25       16
        """
        return self.drops.copy()

    def summary(self, *, confidence: float = 0.95, seed: int = 0) -> pd.DataFrame:
        """Return the mean drop of each method and control, with its interval over people.

        The larger the drop of a method, the more its highest pixels matter for the score. Read it beside the controls, which occlude as
        many pixels.

        Args:
            confidence: Confidence level of the intervals, in (0, 1). Default: 0.95.
            seed: Seed of the bootstrap draws. Default: 0.

        Returns:
            Table with one row per map and setting, and the columns

            * ``explained``, ``method``, ``control``, ``model``, ``fill``, ``order``, ``fraction``: As in :attr:`drops`.
            * ``drop``, ``low``, ``high``: Mean drop over images, and the ends of its interval.
            * ``images``, ``people``: Numbers of both.
            * ``changed``: Mean number of pixels whose value changed.
            * ``ratio: …``, one column per control: Mean drop of the method divided by that of the control; NaN for controls.

        Example:
            >>> import torch
            >>> from captum_leam.faithfulness import OcclusionEvaluator
            >>> _ = torch.manual_seed(0)
            >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 8)).eval()
            >>> evaluator = OcclusionEvaluator(model, fractions=(0.1,), controls=("random pixels",))
            >>> result = evaluator.evaluate(torch.rand(4, 3, 8, 8), {"noise": torch.rand(4, 8, 8)}, labels=["ann", "ann", "bob", "bob"])
            >>> result.summary()[["method", "control", "images", "people"]]
              method        control  images  people
            0  noise                      4       2
            1         random pixels       4       2
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
        """Test whether each method has larger drops than each control, image by image.

        Args:
            confidence: Confidence level of the intervals, in (0, 1). Default: 0.95.
            min_people: Fewest people for a p-value; with fewer it is NaN. Default: 10.
            seed: Seed of the bootstrap draws. Default: 0.

        Returns:
            Table with one row per method and control of its own or shared by all, for each setting, and the columns

            * ``explained``, ``model``, ``fill``, ``order``, ``fraction``, ``method``, ``control``: As in :attr:`drops`.
            * ``ratio``: Mean drop of the method divided by that of the control.
            * ``difference``, ``low``, ``high``: Mean difference of both drops, and the ends of its interval over people.
            * ``effect``: Rank-biserial effect size over people, in [−1, 1].
            * ``p``: p-value of Wilcoxon's signed-rank test over people.
            * ``people``: Number of people.
            * ``p_holm``: p-value after Holm's adjustment for the number of methods.
            * ``note``: Reason for a missing p-value: too few people, or no labels.

        Example:
            >>> import torch
            >>> from captum_leam.faithfulness import OcclusionEvaluator
            >>> _ = torch.manual_seed(0)
            >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 8)).eval()
            >>> evaluator = OcclusionEvaluator(model, fractions=(0.1,), controls=("random pixels", "moved"))
            >>> result = evaluator.evaluate(torch.rand(4, 3, 8, 8), {"noise": torch.rand(4, 8, 8)}, labels=["ann", "ann", "bob", "bob"])
            >>> result.compare()[["method", "control", "people", "note"]]
              method        control  people                              note
            0  noise          moved       2  fewer than 10 people: no p-value
            1  noise  random pixels       2  fewer than 10 people: no p-value
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
        """Return how much the maps of each model lower the score of each model.

        A map that shows what is in the face, not what one model does, lowers the scores of other models, too.

        Args:
            method: Name of the method.
            fraction: Share of the pixels that is occluded, one of those measured.
            fill: Name of the fill, one of those measured. Default: ``"blur"``.
            order: Order of the occlusion, one of those measured. Default: ``"most"``.

        Returns:
            Table of mean drops with the explained models as rows and the measured models as columns.

        Raises:
            CaptumLeamError: If there are no such rows.

        Example:
            >>> import torch
            >>> from captum_leam.faithfulness import OcclusionEvaluator
            >>> _ = torch.manual_seed(0)
            >>> models = {name: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 8)).eval() for name in ("a", "b")}
            >>> evaluator = OcclusionEvaluator(models, fractions=(0.1,), controls=())
            >>> faces, maps, people = torch.rand(4, 3, 8, 8), torch.rand(2, 4, 8, 8), ["ann", "ann", "bob", "bob"]
            >>> parts = [evaluator.evaluate(faces, {"noise": maps[i]}, labels=people, explained=name) for i, name in enumerate(models)]
            >>> OcclusionResult.concat(parts).transfer_matrix("noise", fraction=0.1).shape
            (2, 2)
        """
        query = {"method": method, "control": "", "fraction": fraction, "fill": fill, "order": order}
        rows = self.drops
        for column, value in query.items():
            rows = rows[rows[column] == value]
        if not len(rows):
            measured = {
                column: [value for value in self.drops[column].unique().tolist() if value != ""] for column in query
            }
            wrong = {
                column: value
                for column, value in query.items()
                if column != "control" and value not in measured[column]
            }
            raise CaptumLeamError(
                f"Expected one of the methods {sorted(measured['method'])} with a fraction, fill and order that were measured, "
                f"{measured['fraction']}, {measured['fill']} and {measured['order']}, got {wrong or query}."
            )
        return rows.pivot_table(index="explained", columns="model", values="drop", sort=False)

    def plot(self, **options: Any) -> Figure:
        """Plot the mean drop against the share of pixels occluded, with a band for its interval over people.

        Methods are coloured, and controls that all methods share are grey. There is one panel per measured model.

        Args:
            **options: ``fill`` and ``order``, which select one of those measured. Default: the first of each. See
                :func:`captum_leam.plots.occlusion_curves`.

        Returns:
            Figure with one axis per pair of explained and measured model. It is not shown: call ``figure.savefig(path)``, or let a
            notebook display it.

        Example:
            >>> import torch
            >>> from captum_leam.faithfulness import OcclusionEvaluator
            >>> _ = torch.manual_seed(0)
            >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 8)).eval()
            >>> evaluator = OcclusionEvaluator(model, fractions=(0.1, 0.2), fills=("blur", "zero"), controls=())
            >>> result = evaluator.evaluate(torch.rand(2, 3, 8, 8), {"noise": torch.rand(2, 8, 8)}, labels=["ann", "ann"])
            >>> result.plot(fill="zero").axes[0].get_xlabel()
            'pixels occluded (zero, most), %'
        """
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
