"""Rank the layers of a model by the faithfulness of LEAM there, with person specificity and cost."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from captum_leam._engine.memory import in_batches
from captum_leam._optional import pd
from captum_leam.explain import explain_faces
from captum_leam.faithfulness.occlusion import OcclusionEvaluator
from captum_leam.leam import LEAM
from captum_leam.maps import bhattacharyya, place_on_field
from captum_leam.objectives import embed, leave_one_out_centroids
from captum_leam.stats.labels import people_of, person_codes
from captum_leam.suggest import LayerSuggestion, LayerSuggestions, suggest_layers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OVERALL = "overall"


@dataclass(frozen=True, repr=False)
class LayerRanking:
    """Layers of a model from the most to the least faithful, as returned by :func:`rank_layers`.

    Attributes:
        table: Table with one row per layer, and one named ``"overall"`` for the overall map, sorted by ``drop``. Its columns are

            * ``name``: Name of the layer.
            * ``cell``: Side of one position of the layer in pixels of the image; NaN for ``"overall"``.
            * ``drop``: Faithfulness: mean fall of the cosine when the critical pixels of the map are occluded.
            * ``low``, ``high``: Ends of the 95 % interval of ``drop`` over people.
            * ``same``, ``different``: Mean overlap of the maps of one person, and of different people, in [0, 1].
            * ``gap``: Person specificity: ``same`` minus ``different``.
            * ``seconds``: Time per image.
        settings: Settings by name: fraction, fill, n_steps, images and people.

    Example:
        >>> ranking = LayerRanking(pd.DataFrame({"name": ["layer2", "overall", "layer3"], "drop": [0.3, 0.2, 0.1]}), {})
        >>> ranking.names
        ['layer2', 'layer3']
    """

    table: pd.DataFrame
    settings: dict[str, Any]

    def to_frame(self) -> pd.DataFrame:
        """Return a copy of the table.

        Returns:
            Table with one row per layer, the most faithful first, and the columns of :attr:`table`.

        Example:
            >>> ranking = LayerRanking(pd.DataFrame({"name": ["layer2", "layer3"], "drop": [0.3, 0.1]}), {})
            >>> ranking.to_frame()
                 name  drop
            0  layer2   0.3
            1  layer3   0.1
        """
        return self.table.copy()

    @property
    def names(self) -> list[str]:
        """Names of the layers, the most faithful first, without "overall"."""
        return [name for name in self.table["name"] if name != OVERALL]

    def plot(self) -> Figure:
        """Plot the faithfulness of each layer against its person specificity.

        A point is a layer; the higher, the more faithful, and the further to the right, the more specific to a person. Bars are the
        intervals of the drop over people.

        Returns:
            Figure with one axis. It is not shown: call ``figure.savefig(path)``, or let a notebook display it.

        Example:
            >>> columns = ["name", "drop", "low", "high", "gap"]
            >>> table = pd.DataFrame([("layer2", 0.3, 0.2, 0.4, 0.1), ("layer3", 0.1, 0.0, 0.2, 0.3)], columns=columns)
            >>> figure = LayerRanking(table, {"fraction": 0.05, "fill": "blur"}).plot()
            >>> figure.axes[0].get_ylabel()
            'mean cosine drop, top 5% blur'
        """
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.subplots()
        spread = np.abs(self.table[["low", "high"]].to_numpy().T - self.table["drop"].to_numpy())
        axes.errorbar(self.table["gap"], self.table["drop"], yerr=spread, fmt="o", color="#0072b2", capsize=3)
        for row in self.table.itertuples():
            axes.annotate(str(row.name), (row.gap, row.drop), textcoords="offset points", xytext=(6, 4), fontsize=9)
        axes.set_xlabel("person specificity: overlap of same − different people")
        axes.set_ylabel(f"mean cosine drop, top {self.settings['fraction']:.0%} {self.settings['fill']}")
        axes.margins(0.2)
        return figure

    def __repr__(self) -> str:
        return f"{self.table.round(3).to_string(index=False)}\n{self.settings}"


def rank_layers(
    model: nn.Module,
    images: Tensor,
    labels: Sequence[Any],
    *,
    layers: LayerSuggestions | None = None,
    fraction: float = 0.05,
    fill: str = "blur",
    n_steps: int = 4,
    batch_size: int = 32,
    seed: int = 0,
) -> LayerRanking:
    """Rank the layers of a model by how faithful their LEAM maps are.

    The highest pixels of each layer's maps are occluded, and the fall of the cosine is measured. The larger the fall, the more faithful the
    map. Use it to choose a layer, on other images than those that you report results for. Each face is compared with the mean embedding of
    the other images of its person.

    Args:
        model: Model in evaluation mode, from images (N, C, H, W) to embeddings (N, D).
        images: Images (N, C, H, W) as the model takes them, at least two of each person.
        labels: Person in each image, a sequence of N names.
        layers: Layers to rank, as :func:`~captum_leam.suggest_layers` returns them. Default: None, all that it finds.
        fraction: Share of the pixels that is occluded, in (0, 1]. Default: 0.05.
        fill: Name of what replaces occluded pixels, one of :data:`~captum_leam.faithfulness.FILLS`. Default: ``"blur"``.
        n_steps: Number of steps of the path of the layer maps; 1 for no path. Default: 4.
        batch_size: Number of images in one pass. Default: 32.
        seed: Seed of the order of equal values and of the bootstrap. Default: 0.

    Returns:
        :class:`LayerRanking`, a table with one row per layer and one for the overall map (``"overall"``, of the preset ``"fast"``), the
        most faithful first:

        * name: Name of the layer.
        * cell: Width of one position of the layer in pixels of the image.
        * drop: Mean fall of the cosine, the measure of faithfulness.
        * low, high: Ends of the 95 % interval of the drop over people.
        * same, different: Mean overlap of the maps of one person, and of different people, in [0, 1].
        * gap: Same minus different, the measure of person specificity.
        * seconds: Time per image.

    Raises:
        CaptumLeamError: If a person has one image only, or ``LEAM.attribute`` would raise it.

    See Also:
        :func:`~captum_leam.suggest_layers`: Layers to rank.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 8, 3, 2, 1), nn.Flatten(), nn.Linear(128, 8))
        >>> images, labels = torch.rand(4, 3, 16, 16), ["ann", "ann", "bob", "bob"]
        >>> ranking = rank_layers(model.eval(), images, labels, n_steps=2)
        >>> print(ranking.to_frame()[["name", "cell", "drop"]].round(3).to_string(index=False))
           name  cell  drop
        overall   NaN 0.017
              1   2.0 0.005
              2   4.0 0.003
    """
    people = people_of(labels, len(images))
    found = suggest_layers(model, images) if layers is None else layers.for_images(images)
    references = leave_one_out_centroids(embed(model, images, batch_size), people)
    maps, seconds = {}, {}
    for layer in found:
        started = time.perf_counter()
        maps[layer.name] = _layer_maps(model, layer, images, references, found, n_steps, batch_size)
        seconds[layer.name] = (time.perf_counter() - started) / len(images)
    started = time.perf_counter()
    maps[OVERALL] = explain_faces(model, images, "fast", layers=found, reference=references, batch_size=batch_size)
    seconds[OVERALL] = (time.perf_counter() - started) / len(images)
    evaluator = OcclusionEvaluator(model, (fraction,), fills=(fill,), controls=(), seed=seed, batch_size=batch_size)
    summary = evaluator.evaluate(images, maps, labels=people).summary(seed=seed).set_index("method")
    cells = {layer.name: layer.cell for layer in found}
    rows = []
    for name, of_layer in maps.items():
        same, different = _overlap(of_layer, people)
        drop, low, high = summary.loc[name, ["drop", "low", "high"]]
        numbers = {"name": name, "cell": cells.get(name, float("nan")), "drop": drop, "low": low, "high": high}
        rows.append(
            {**numbers, "same": same, "different": different, "gap": same - different, "seconds": seconds[name]}
        )
    table = pd.DataFrame(rows).sort_values("drop", ascending=False, ignore_index=True)
    settings = {
        "fraction": fraction,
        "fill": fill,
        "n_steps": n_steps,
        "images": len(images),
        "people": len(set(people)),
    }
    return LayerRanking(table, settings)


def _layer_maps(
    model: nn.Module,
    layer: LayerSuggestion,
    images: Tensor,
    references: Tensor,
    found: LayerSuggestions,
    n_steps: int,
    batch_size: int,
) -> Tensor:
    leam = LEAM(model, layer)

    def explain(rows: slice) -> Tensor:
        return cast(Tensor, leam.attribute(images[rows], reference=references[rows], n_steps=n_steps))

    maps = in_batches(explain, len(images), batch_size)
    return place_on_field(torch.cat(maps), found.image_size, found.field)


def _overlap(maps: Tensor, people: Sequence[Any]) -> tuple[float, float]:
    """Return the mean Bhattacharyya coefficients of maps of the same person and of different people."""
    table = bhattacharyya(maps).cpu().numpy()
    person = person_codes(people)[1]
    same = person[:, None] == person[None]
    others = ~np.eye(len(maps), dtype=bool)
    return float(table[same & others].mean()), float(table[~same].mean()) if (~same).any() else float("nan")
