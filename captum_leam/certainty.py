r"""Certainty of single attribution maps: a randomisation test of their place, their stability, and their agreement with other models.

The test measures whether the place of the critical pixels matters. Their region is moved to other places that cover as much of the face
and as much detail (:func:`captum_leam.controls.placements`), and the cosine is measured with each of these regions occluded. The p-value is
that of the null hypothesis that *given its shape, how much of it lies on the face and how much detail it covers, the region lies at a place
drawn at random*. It is exact for maps for which the hypothesis is true, and does not test shape, size or scale of a map. See
:doc:`/explanation/one_map` for the reasons and measurements.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm.auto import tqdm

from captum_leam import controls
from captum_leam._engine.arithmetic import uniform
from captum_leam._engine.checks import check_count, check_images
from captum_leam._engine.draws import draw_by_image
from captum_leam._engine.types import Field
from captum_leam._optional import pd
from captum_leam.controls import MIRRORS, central_ellipse
from captum_leam.errors import CaptumLeamError, NoEvidenceError
from captum_leam.explain import PRESETS, Preset, check_preset, explain_faces
from captum_leam.faithfulness.fills import Fill, as_fill
from captum_leam.layers import LayerSuggestions
from captum_leam.maps import as_maps, top_fraction
from captum_leam.objectives import embed, match_rows, unit
from captum_leam.stats.inference import randomisation_p_value
from captum_leam.suggest import Layers, resolve_layers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["MapCertainty", "PlacementTest", "map_certainty"]

Explain = Callable[[nn.Module, Tensor, Tensor | None], Tensor]
"""Function of a model, images and references (N, D) or None that returns maps (N, H, W)."""

NULL = (
    "given its shape, the tenth of it that lies on the face and the class of the detail that it covers, the region of the critical pixels "
    "lies at a place drawn at random"
)
"""Null hypothesis of the p-values."""

SMALL_P = 0.05
"""p-value up to which the place of a map is reported to matter."""
MAX_LEFT_OUT = 5
"""Maximum number of references that are left out, one at a time, spread evenly over all."""
SHIFTS = ((1, 0), (-2, 0), (0, -1), (0, 2))
"""Shifts of the image in pixels, down and to the right."""
MARGIN = 2
"""Width in pixels of the border in which shifted maps are not compared."""


class Change(NamedTuple):
    """Small change of an image under which a map should be stable.

    Attributes:
        kind: Kind of the change: ``"shift"``, ``"mirror"`` or ``"light"``.
        name: Name of the change.
        apply: Function from images (N, C, H, W) to changed images.
        undo: Function from maps (N, H, W) of changed images to maps aligned with the original images.
    """

    kind: str
    name: str
    apply: Callable[[Tensor], Tensor]
    undo: Callable[[Tensor], Tensor]


def shift(images: Tensor, down: int, right: int) -> Tensor:
    """Shift images by whole pixels and repeat their border.

    Args:
        images: Images (..., H, W).
        down: Number of pixels down, or up if negative.
        right: Number of pixels to the right, or to the left if negative.

    Example:
        >>> shift(torch.tensor([[1, 2, 3]]), 0, 1).tolist()
        [[1, 1, 2]]
    """
    height, width = images.shape[-2:]
    rows = (torch.arange(height, device=images.device) - down).clamp(0, height - 1)
    columns = (torch.arange(width, device=images.device) - right).clamp(0, width - 1)
    return images[..., rows, :][..., columns]


def _identity(maps: Tensor) -> Tensor:
    return maps


def _mirror(images: Tensor) -> Tensor:
    return images.flip(-1)


CHANGES = (
    *(
        Change(
            "shift",
            f"{down} px down, {right} px right",
            partial(shift, down=down, right=right),
            partial(shift, down=-down, right=-right),
        )
        for down, right in SHIFTS
    ),
    Change("mirror", "mirrored", _mirror, _mirror),
    Change("light", "gain 0.8", lambda images: 0.8 * images, _identity),
    Change("light", "gamma 1.25", lambda images: images**1.25, _identity),
)
"""Changes under which the stability of maps is measured. Changes of light need images in [0, 1]."""


@dataclass(frozen=True)
class PlacementTest:
    """Result of the randomisation test of one map on one model, as part of :class:`MapCertainty`.

    The test moves the critical pixels of the map to other places on the face. If their place matters, occluding them lowers the cosine
    more than occluding the other places.

    Attributes:
        drop: Fall of the cosine when the critical pixels of the map are occluded, in [−2, 2].
        placement_drops: Falls of the cosine when the same shape is occluded at n other places, shape (n,).
        p: p-value in (0, 1], small if the place matters; NaN if there is no other place.

    Example:
        >>> test = PlacementTest(drop=0.3, placement_drops=np.array([0.1, 0.2, 0.4]), p=0.5)
        >>> round(test.share_beaten, 2)  # the drop is larger than at two of three other places
        0.67
    """

    drop: float
    placement_drops: NDArray[np.float64]
    p: float

    @property
    def share_beaten(self) -> float:
        """Share of the other places with a smaller drop, in [0, 1], with ties counted as in the p-value; NaN if there is no place."""
        count = len(self.placement_drops)
        return float("nan") if np.isnan(self.p) else round((1 - self.p) * (count + 1)) / count

    def to_dict(self) -> dict[str, Any]:
        """Return the test as a dictionary that can be written as JSON.

        Returns:
            Dictionary in which NaN is None, with the entries

            * ``"drop"``, ``"p"``, ``"share_beaten"``: As the attributes.
            * ``"placements"``: Number of other places.
            * ``"drops_of_placements"``: List of their drops.

        Example:
            >>> PlacementTest(0.3, np.array([0.1, 0.2, 0.4]), 0.5).to_dict()["drops_of_placements"]
            [0.1, 0.2, 0.4]
        """
        return {
            "drop": _number(self.drop),
            "p": _number(self.p),
            "share_beaten": _number(self.share_beaten),
            "placements": len(self.placement_drops),
            "drops_of_placements": [_number(drop) for drop in self.placement_drops.tolist()],
        }


@dataclass(frozen=True)
class MapCertainty:
    """Result of :func:`map_certainty`: for each map, a test of its place, its stability, and its agreement with other models.

    Read :meth:`sentence` for the result of one face as text, and :meth:`to_frame` for the numbers of all faces.

    Attributes:
        tests: For each image, a dictionary from the name of a model to its :class:`PlacementTest`. The explained model is first.
        stability: Similarity of each map to those of slightly changed inputs, a table with one row per change, and the columns

            * ``image``: Index of the image.
            * ``kind``: Kind of the change: ``"shift"``, ``"mirror"``, ``"light"`` or ``"reference"``.
            * ``change``: Change, such as ``"gain 0.8"``.
            * ``overlap``: Share of the critical pixels that stay, in [0, 1]; NaN if there is no map.
            * ``rank_correlation``: Spearman's correlation over the pixels of the face, in [−1, 1].
        agreement: Similarity of each map to those of other models, a table with one row per image and other model, and the columns

            * ``image``: Index of the image.
            * ``model``: Name of the other model.
            * ``overlap``, ``rank_correlation``: As in ``stability``.
        passes: Numbers of forward and backward passes per face by model, without those that find layers and check the model.
        settings: Settings of the measurement by name: fraction, fill, placements and seed.

    Example:
        >>> from captum_leam import explain_faces
        >>> from captum_leam.objectives import embed
        >>> from captum_leam.synthetic import SyntheticPopulation, load_trained
        >>> population = SyntheticPopulation(12, evidence="nose")
        >>> model, faces = load_trained(population), population.sample([0, 1], seed=3).images
        >>> references = embed(model, population.sample([0, 1], seed=1).images)  # other images of the same people
        >>> maps = explain_faces(model, faces, "fast", reference=references)
        >>> certainty = map_certainty(model, faces, maps, reference=references, explain="fast", placements=19)
        >>> certainty.to_frame()[["image", "drop", "moved", "p", "overlap"]].round(2)
           image  drop  moved     p  overlap
        0      0  1.15   0.28  0.05     0.86
        1      1  1.07   0.67  0.15     0.87
    """

    tests: tuple[dict[str, PlacementTest], ...] = field(repr=False)
    stability: pd.DataFrame = field(repr=False)
    agreement: pd.DataFrame = field(repr=False)
    passes: dict[str, tuple[int, int]]
    settings: dict[str, Any]

    def __len__(self) -> int:
        return len(self.tests)

    def sentence(self, image: int = 0) -> str:
        """Return the results for one face as text for a caption.

        Args:
            image: Index of the face, from 0. Default: 0.

        Returns:
            One sentence with the fall of the cosine and its p-value, the share of critical pixels kept under changes, and the agreement
            with each other model.

        Example:
            >>> test = PlacementTest(0.3, np.array([0.1, 0.2, 0.4]), 0.5)
            >>> table = pd.DataFrame({"image": [0], "kind": ["mirror"], "change": [""], "overlap": [0.8], "rank_correlation": [0.9]})
            >>> certainty = MapCertainty(({"model": test},), table, table[:0].assign(model=""), {"model": (4, 0)}, {"fraction": 0.05})
            >>> certainty.sentence().partition(",")[0]
            "Occluding the map's top 5 % lowers the cosine by 0.300"
        """
        (_, own), *others = self.tests[image].items()
        texts = [
            self._place_text(own),
            self._stability_text(image),
            *(self._agreement_text(image, *other) for other in others),
        ]
        return "; ".join(text for text in texts if text) + "."

    def _place_text(self, test: PlacementTest) -> str:
        share = f"{100 * self.settings['fraction']:g} %"
        if np.isnan(test.p):
            return f"Occluding the map's top {share} lowers the cosine by {test.drop:.3f}; there is no other place to compare with"
        caveat = "" if test.p <= SMALL_P else ", which is no evidence that its place matters"
        return (
            f"Occluding the map's top {share} lowers the cosine by {test.drop:.3f}, more than {self._format_beaten(test)} equally shaped "
            f"regions elsewhere on the face (p = {test.p:.2g}{caveat})"
        )

    @staticmethod
    def _format_beaten(test: PlacementTest) -> str:
        count = len(test.placement_drops)
        return f"all {count}" if test.share_beaten == 1 else f"{_percent(test.share_beaten)} of {count}"

    def _stability_text(self, image: int) -> str:
        rows = self.stability[(self.stability["image"] == image) & self.stability["overlap"].notna()]
        if rows.empty:
            return ""
        lowest = rows.nsmallest(1, "overlap").iloc[0]
        return (
            f"remade under {len(rows)} small changes it keeps {_percent(rows['overlap'].mean())} of these pixels on average and at least "
            f"{_percent(lowest['overlap'])} ({lowest['kind']}: {lowest['change']})"
        )

    def _agreement_text(self, image: int, model: str, test: PlacementTest) -> str:
        text = "has no other place" if np.isnan(test.p) else f"beats {self._format_beaten(test)} (p = {test.p:.2g})"
        rows = self.agreement[(self.agreement["image"] == image) & (self.agreement["model"] == model)]
        rows = rows[rows["overlap"].notna()]
        shared = (
            "" if rows.empty else f" and shares {_percent(rows['overlap'].iloc[0])} of these pixels with its own map"
        )
        return f"on {model} it {text}{shared}"

    def to_frame(self) -> pd.DataFrame:
        """Return the tests and the mean similarities as a table.

        Returns:
            Table with one row per image and model, and the columns

            * ``image``: Index of the image.
            * ``model``: Name of the model that the fall is measured on.
            * ``drop``: Fall of the cosine when the critical pixels are occluded.
            * ``moved``: Mean fall for the same shape at other places.
            * ``p``: p-value, small if the place of the critical pixels matters.
            * ``share_beaten``: Share of the other places with a smaller fall, in [0, 1].
            * ``placements``: Number of other places.
            * ``overlap``, ``rank_correlation``: For the explained model, means over the changes of :attr:`stability`. For another model,
              the similarity to its own map.

        Example:
            >>> test = PlacementTest(0.3, np.array([0.1, 0.2, 0.4]), 0.5)
            >>> table = pd.DataFrame({"image": [0], "kind": ["mirror"], "change": [""], "overlap": [0.8], "rank_correlation": [0.9]})
            >>> certainty = MapCertainty(({"model": test},), table, table[:0], {"model": (4, 0)}, {"fraction": 0.05})
            >>> certainty.to_frame()[["image", "drop", "p", "placements", "overlap"]]
               image  drop    p  placements  overlap
            0      0   0.3  0.5           3      0.8
        """
        rows = []
        for image, tests in enumerate(self.tests):
            for number, (model, test) in enumerate(tests.items()):
                mean_drop = float(test.placement_drops.mean()) if len(test.placement_drops) else float("nan")
                row = {"image": image, "model": model, "drop": test.drop, "moved": mean_drop, "p": test.p}
                row |= {"share_beaten": test.share_beaten, "placements": len(test.placement_drops)}
                table = self.agreement[self.agreement["model"] == model] if number else self.stability
                means = table.loc[table["image"] == image, ["overlap", "rank_correlation"]].mean()
                rows.append(row | means.to_dict())
        return pd.DataFrame(rows)

    def to_dict(self, image: int = 0) -> dict[str, Any]:
        """Return the results for one face as a dictionary that can be written as JSON.

        Args:
            image: Index of the face, from 0. Default: 0.

        Returns:
            Dictionary in which NaN is None, with the entries

            * ``"sentence"``: Result as text, see :meth:`sentence`.
            * ``"null_hypothesis"``: Null hypothesis of the p-values as text.
            * ``"tests"``: Tests by model, see :meth:`PlacementTest.to_dict`.
            * ``"stability"``, ``"agreement"``: Rows of both tables for this face, lists of dictionaries.
            * ``"passes"``, ``"settings"``: As the attributes.

        Example:
            >>> test = PlacementTest(0.3, np.array([0.1, 0.2, 0.4]), 0.5)
            >>> table = pd.DataFrame({"image": [0], "kind": ["mirror"], "change": [""], "overlap": [0.8], "rank_correlation": [0.9]})
            >>> certainty = MapCertainty(({"model": test},), table, table[:0], {"model": (4, 0)}, {"fraction": 0.05})
            >>> list(certainty.to_dict())
            ['sentence', 'null_hypothesis', 'tests', 'stability', 'agreement', 'passes', 'settings']
        """
        tables = {"stability": self.stability, "agreement": self.agreement}
        return {
            "sentence": self.sentence(image),
            "null_hypothesis": NULL,
            "tests": {model: test.to_dict() for model, test in self.tests[image].items()},
            **{name: _records(table[table["image"] == image]) for name, table in tables.items()},
            "passes": {model: {"forward": f, "backward": b} for model, (f, b) in self.passes.items()},
            "settings": dict(self.settings),
        }

    def plot(self, image: int = 0) -> Figure:
        """Draw the test of one map and its stability, in two panels.

        The left panel has a row per model, with the fall of the cosine for the map (diamond) and for other places (dots). The right panel
        has a row per kind of change, with the shares of critical pixels that stay (dots).

        Args:
            image: Index of the face, from 0. Default: 0.

        Returns:
            Figure with two axes. It is not shown: call ``figure.savefig(path)``, or let a notebook display it.

        Example:
            >>> test = PlacementTest(0.3, np.array([0.1, 0.2, 0.4]), 0.5)
            >>> table = pd.DataFrame({"image": [0], "kind": ["mirror"], "change": [""], "overlap": [0.8], "rank_correlation": [0.9]})
            >>> figure = MapCertainty(({"model": test},), table, table[:0], {"model": (4, 0)}, {"fraction": 0.05}).plot()
            >>> [[label.get_text() for label in axis.get_yticklabels()] for axis in figure.axes]
            [['model'], ['mirror']]
        """
        from matplotlib.figure import Figure

        from captum_leam.plots import COLOURS, tidy

        rows = self.stability[(self.stability["image"] == image) & self.stability["overlap"].notna()]
        tests = self.tests[image]
        figure = Figure(figsize=(5.6, 1.5 + 0.5 * len(tests)), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(3, 2))
        for i, test in enumerate(tests.values()):
            offsets = np.linspace(-0.25, 0.25, max(1, len(test.placement_drops)))
            left.plot(test.placement_drops, i + offsets, "o", color="0.6", markersize=2)
            left.plot([test.drop], [i], "D", color=COLOURS[0], markersize=6)
        names = [name.rpartition("/")[2] for name in tests]  # without the folders of model files
        left.set_yticks(range(len(tests)), names, parse_math=False)
        left.set_ylim(len(tests) - 0.5, -0.5)
        left.set_xlabel("fall of the cosine:\nmap (diamond), elsewhere (dots)")
        kinds = list(dict.fromkeys(rows["kind"]))
        for i, kind in enumerate(kinds):
            overlaps = rows.loc[rows["kind"] == kind, "overlap"]
            right.plot(overlaps, [i] * len(overlaps), "o", color=COLOURS[0], markersize=4, alpha=0.6)
        right.set_yticks(range(len(kinds)), kinds)
        right.set_ylim(max(1, len(kinds)) - 0.5, -0.5)
        right.set_xlim(0, 1)
        right.set_xlabel("critical pixels kept")
        for axis in (left, right):
            axis.xaxis.label.set_size(8)
            tidy(axis)
        return figure


def map_certainty(  # noqa: PLR0913 (every option is a keyword)
    model: nn.Module,
    x: Tensor,
    maps: Tensor,
    *,
    reference: Tensor | None = None,
    models: Mapping[str, tuple[Callable[[Tensor], Tensor], Tensor | None]] | None = None,
    explain: Preset | Explain | None = "default",
    layers: Layers = None,
    face: Tensor | None = None,
    name: str = "model",
    placements: int = 99,
    fraction: float = 0.05,
    fill: str | Fill | Callable[..., Tensor] = "blur",
    seed: int = 0,
    batch_size: int = 16,
    progress: bool = False,
) -> MapCertainty:
    """Measure how far a single attribution map can be trusted.

    Each map gets three measurements:

    * *Test of its place*: the critical pixels, those with the highest values, are moved to other places on the face, and the falls of the
      cosine by occlusion are compared. A small p-value shows that their place matters.
    * *Stability*: the map is computed again for shifted, mirrored and darkened images, and for fewer references.
    * *Agreement*: the critical pixels are occluded on other models, and compared with the maps of these models.

    Args:
        model: Explained model, in evaluation mode, that returns embeddings (N, D).
        x: Faces, shape (N, C, H, W), as the model takes them.
        maps: Attribution maps of any method, shape (N, H, W) or (N, 1, H, W).
        reference: Reference embeddings from other images, shape (D,), (1, D) or (N, D); or several per image, shape (N, K, D), whose mean
            unit vector is the reference and which are left out one at a time. Default: each image's own embedding.
        models: Other models by name, a dictionary of pairs of a model and its references in one of these forms, or None for each
            image's own embedding. Default: None, no other models.
        explain: Method that ``maps`` were computed with, which is used again for stability and agreement: a preset of
            :func:`~captum_leam.explain_faces` (``"fast"``, ``"default"`` or ``"best"``), or a function from a model, images and references
            (N, D) to maps (N, H, W). None omits stability and agreement. Default: ``"default"``.
        layers: Layers of the explained model for a preset, see :func:`~captum_leam.explain_faces`. Regions move within their field.
            Default: those of the overall map.
        face: Mask of the face, booleans (N, H, W) or (H, W). Default: a central ellipse.
        name: Name of the explained model. Default: ``"model"``.
        placements: Number of other places; the smallest possible p-value is 1 / (placements + 1). Default: 99.
        fraction: Share of the pixels of the crop that are critical, in (0, 1]. Default: 0.05.
        fill: Replacement of occluded pixels: ``"zero"``, ``"mean"``, ``"blur"``, ``"noisy linear"``, ``"shuffle"``, or a function, see
            :mod:`captum_leam.faithfulness.fills`. Default: ``"blur"``.
        seed: Seed of the placements and of the permutations that break ties. Default: 0.
        batch_size: Number of images per pass. Default: 16.
        progress: Whether to show a progress bar. Default: False.

    Returns:
        :class:`MapCertainty` with the tests, the stability and the agreement of all N maps.

    Raises:
        CaptumLeamError: If the maps do not fit the images, a face is empty, or ``explain_faces`` would raise it.

    See Also:
        * :class:`~captum_leam.faithfulness.OcclusionEvaluator`: Test of a method by the mean over many faces.
        * :func:`~captum_leam.explain_faces`: Maps to test.

    Note:
        With the defaults, a face takes up to 101 forward passes for the test, and 9 forward and 9 backward passes for each of 7 changes of
        the input and for each of up to 5 of several references that are left out. Each other model takes 101 forward passes and those of
        one map.

    Example:
        >>> from captum_leam import explain_faces
        >>> from captum_leam.objectives import embed
        >>> from captum_leam.synthetic import SyntheticPopulation, load_trained
        >>> population = SyntheticPopulation(12, evidence="nose")
        >>> model, faces = load_trained(population), population.sample([0, 1], seed=3).images
        >>> references = embed(model, population.sample([0, 1], seed=1).images)  # other images of the same people
        >>> maps = explain_faces(model, faces, "fast", reference=references)
        >>> certainty = map_certainty(model, faces, maps, reference=references, explain="fast", placements=19)
        >>> certainty.to_frame()[["image", "drop", "moved", "p", "overlap"]].round(2)
           image  drop  moved     p  overlap
        0      0  1.15   0.28  0.05     0.86
        1      1  1.07   0.67  0.15     0.87
        >>> certainty.passes  # forward and backward passes per face
        {'model': (35, 14)}
    """
    others = dict(models or {})
    _check(x, explain, placements, seed, batch_size, others, name)
    maps = as_maps(maps).to(x.device)
    if maps.shape != (len(x), *x.shape[2:]):
        raise CaptumLeamError(
            f"Expected `maps` to have shape {(len(x), *x.shape[2:])}, one map for each image, got {tuple(maps.shape)}."
        )
    if isinstance(explain, str) or isinstance(layers, LayerSuggestions):
        layers = resolve_layers(model, x, layers)
    field = layers.field if isinstance(layers, LayerSuggestions) else None
    experiment = _Experiment(x, maps, _face_masks(face, x), fraction, field, seed)
    subjects = {name: _Subject(model, reference, x, batch_size)}
    subjects |= {key: _Subject(other, references, x, batch_size) for key, (other, references) in others.items()}
    with tqdm(total=len(x) * len(subjects), disable=not progress, desc="moving the map", unit="face") as bar:
        tests = [experiment.test(i, placements, as_fill(fill), subjects, bar.update) for i in range(len(x))]
    own, *rest = subjects.items()
    stability, agreement = _SimilarityTable("image", "kind", "change"), _SimilarityTable("image", "model")
    if explain is not None:
        variants = experiment.variants(own[1])
        for labels, images, references, undo in tqdm(
            variants, disable=not progress, desc="remaking the map", unit="map"
        ):
            variant_maps = _compute_maps(explain, model, images, references, layers, batch_size)
            stability.add(experiment.similarity(undo(variant_maps)), *labels)
        for key, other in rest:
            if isinstance(other.model, nn.Module):
                other_maps = _compute_maps(explain, other.model, x, other.reference, None, batch_size)
                agreement.add(experiment.similarity(other_maps), key)
    counts = {key: max(len(test[key].placement_drops) for test in tests) for key in subjects}
    return MapCertainty(
        tuple(tests),
        stability.frame(),
        agreement.frame(),
        _count_passes(explain, subjects, counts, stability.maps, agreement.maps),
        {"fraction": fraction, "fill": as_fill(fill).name, "placements": placements, "seed": seed},
    )


# -- measurements --------------------------------------------------------------------------------------


class _Subject:
    """A model with the references of the images and the cosines without occlusion.

    Args:
        model: Function from images to embeddings (N, D).
        reference: References as :func:`map_certainty` takes them.
        x: Faces (N, C, H, W).
        batch_size: Number of images per pass.
    """

    def __init__(self, model: Callable[[Tensor], Tensor], reference: Tensor | None, x: Tensor, batch_size: int) -> None:
        self.model, self.x, self.batch_size = model, x, batch_size
        embeddings = embed(model, x, batch_size)
        units = unit(embeddings, "embeddings").double()
        self.all_references: Tensor | None = None  # (N, K, D) if there are several per image
        self.reference: Tensor | None = None
        self.directions = units
        if reference is not None:
            if reference.ndim == 3:
                self.all_references = unit(reference.to(embeddings), "references")
                reference = self.all_references.mean(1)
            self.reference = unit(match_rows(reference, embeddings), "references").expand_as(embeddings)
            self.directions = self.reference.double()
        self.cosines = (units * self.directions).sum(1)

    def drops(self, i: int, regions: Tensor, fill: Fill) -> NDArray[np.float64]:
        """Return the drops (n,) of image ``i`` with each of the regions (n, H, W) occluded."""
        image = self.x[i : i + 1]
        filled = None if fill.uses_masks else fill(image)
        cosines = []
        for masks in (regions[start : start + self.batch_size] for start in range(0, len(regions), self.batch_size)):
            replaced = fill(image.expand(len(masks), -1, -1, -1), masks) if filled is None else filled
            embeddings = embed(self.model, torch.where(masks[:, None], replaced, image), self.batch_size)
            cosines.append(unit(embeddings, "embeddings").double() @ self.directions[i])
        drops: NDArray[np.float64] = (self.cosines[i] - torch.cat(cosines)).cpu().numpy()
        return drops

    def leave_one_out(self) -> Iterator[tuple[str, Tensor]]:
        """Yield a name and references (N, D) for each of several references that is left out."""
        if self.all_references is None or self.all_references.shape[1] < 2:
            return
        count = self.all_references.shape[1]
        spread = sorted({round(i * (count - 1) / max(1, MAX_LEFT_OUT - 1)) for i in range(MAX_LEFT_OUT)})
        for k in range(count) if count <= MAX_LEFT_OUT else spread:
            rest = torch.cat([self.all_references[:, :k], self.all_references[:, k + 1 :]], 1).mean(1)
            yield f"without reference {k + 1}", unit(rest, "references")


@dataclass(frozen=True)
class _Experiment:
    """Images with their maps, and the places that regions may take."""

    x: Tensor
    maps: Tensor
    face: Tensor
    fraction: float
    field: Field | None
    seed: int

    def test(
        self, i: int, count: int, fill: Fill, subjects: Mapping[str, _Subject], on_model: Callable[[], Any]
    ) -> dict[str, PlacementTest]:
        """Return the test of image ``i`` on each model, with the same placements on all."""
        region = top_fraction(self.maps[i : i + 1], self.fraction, seed=self.seed, start=i)[0].cpu()
        height, width = self.field[2:] if self.field else region.shape
        motions = len(MIRRORS) * height * width
        # The random numbers of an image do not depend on the images before it.
        keys = draw_by_image(
            lambda generator, row: uniform((motions + 1,), generator), ("placements", motions), self.seed, 1, i
        )[0]
        filled = fill(self.x[i : i + 1], torch.ones_like(self.face[i : i + 1]))
        detail = (filled - self.x[i : i + 1]).square().sum((0, 1)).double().cpu()
        masks = controls.placements(region, self.face[i].cpu(), count, detail=detail, field=self.field, keys=keys[1:])
        regions = torch.cat([region[None], masks]).to(self.x.device)
        tests = {}
        for name, subject in subjects.items():
            drops = subject.drops(i, regions, fill)
            p = randomisation_p_value(drops[0], drops[1:], float(keys[0]))
            tests[name] = PlacementTest(float(drops[0]), drops[1:], p)
            on_model()
        return tests

    def variants(
        self, subject: _Subject
    ) -> list[tuple[tuple[str, str], Tensor, Tensor | None, Callable[[Tensor], Tensor]]]:
        """Return kind and name, images, references and the function that aligns the maps, for each change."""
        is_unit_range = bool((self.x >= 0).all()) and bool((self.x <= 1).all())
        changes = [change for change in CHANGES if is_unit_range or change.kind != "light"]
        variants = [((c.kind, c.name), c.apply(self.x), subject.reference, c.undo) for c in changes]
        return variants + [(("reference", name), self.x, r, _identity) for name, r in subject.leave_one_out()]

    def similarity(self, others: Tensor) -> list[tuple[float, float]]:
        """Return the share of common critical pixels and the rank correlation over the face, for each image."""
        pairs = []
        for first, second, face in zip(self.maps, others.to(self.maps), self.face, strict=True):
            inner = tuple(slice(MARGIN, side - MARGIN) for side in first.shape)
            both = torch.stack([first[inner], second[inner]])
            if not bool(torch.isfinite(both).all()):
                pairs.append((float("nan"), float("nan")))
                continue
            tops = top_fraction(both, self.fraction, seed=self.seed)
            overlap = float((tops[0] & tops[1]).sum() / tops[0].sum())
            pairs.append((overlap, _rank_correlation(*both[:, face[inner]].cpu().numpy())))
        return pairs


class _SimilarityTable:
    """Table of the similarities of maps."""

    def __init__(self, *names: str) -> None:
        self.columns = [*names, "overlap", "rank_correlation"]
        self.rows: list[tuple[Any, ...]] = []
        self.maps = 0

    def add(self, similarities: list[tuple[float, float]], *names: str) -> None:
        """Add the similarities of one map of every image."""
        self.rows += [(i, *names, *pair) for i, pair in enumerate(similarities)]
        self.maps += 1

    def frame(self) -> pd.DataFrame:
        """Return the table, sorted by image."""
        return pd.DataFrame(self.rows, columns=self.columns).sort_values("image", kind="stable", ignore_index=True)


# -- small functions -----------------------------------------------------------------------------------


def _check(
    x: Tensor, explain: Any, placements: int, seed: int, batch_size: int, others: Mapping[str, Any], name: str
) -> None:
    check_images(x, "x")
    check_count("placements", placements)
    check_count("seed", seed, least=0)
    check_count("batch_size", batch_size)
    if isinstance(explain, str):
        check_preset(explain)
    if name in others:
        raise CaptumLeamError(
            f"Expected `models` not to contain {name!r}, the name of the explained model, got {list(others)}. Pass another `name`."
        )


def _face_masks(face: Tensor | None, x: Tensor) -> Tensor:
    height, width = x.shape[2:]
    mask = central_ellipse((height, width)) if face is None else face
    if mask.dtype != torch.bool or mask.shape not in ((height, width), (len(x), height, width)):
        raise CaptumLeamError(
            f"Expected `face` to be a boolean mask of shape {(height, width)} or {(len(x), height, width)}, got {mask.dtype} of shape "
            f"{tuple(mask.shape)}."
        )
    masks = mask.to(x.device).expand(len(x), height, width)
    if not bool(masks.flatten(1).any(1).all()):
        raise CaptumLeamError(
            "Expected `face` to have at least one True pixel in every image, got a mask without any. Pass another mask, or None for "
            "the central ellipse."
        )
    return masks


def _compute_maps(
    explain: Preset | Explain, model: nn.Module, x: Tensor, reference: Tensor | None, layers: Layers, batch_size: int
) -> Tensor:
    """Return maps (N, H, W), NaN for images without evidence for the match."""
    try:
        if isinstance(explain, str):
            maps = explain_faces(model, x, explain, layers=layers, reference=reference, batch_size=batch_size)
        else:
            maps = explain(model, x, reference)
        return as_maps(maps)
    except NoEvidenceError:
        if len(x) == 1:
            return torch.full((1, *x.shape[2:]), torch.nan, dtype=torch.float32, device=x.device)
    single = [(x[i : i + 1], None if reference is None else reference[i : i + 1]) for i in range(len(x))]
    return torch.cat([_compute_maps(explain, model, *image, layers, batch_size) for image in single])


def _mean_ranks(values: NDArray[Any]) -> NDArray[np.float64]:
    """Return ranks from 1 on, equal values with the mean of theirs, without the second that `scipy.stats` takes to import."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (counts.cumsum() - (counts - 1) / 2)[group]
    return ranks


def _rank_correlation(first: NDArray[Any], second: NDArray[Any]) -> float:
    a, b = (_mean_ranks(values) - (len(values) + 1) / 2 for values in (first, second))
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale else float("nan")


def _count_passes(
    explain: Preset | Explain | None,
    subjects: Mapping[str, _Subject],
    placements: Mapping[str, int],
    variants: int,
    other_maps: int,
) -> dict[str, tuple[int, int]]:
    """Return the numbers of forward and backward passes per face by model, without those of maps that are not of a preset."""
    passes = {}
    for number, (name, subject) in enumerate(subjects.items()):
        maps = (int(isinstance(subject.model, nn.Module)) if other_maps else 0) if number else variants
        own_reference = subject.reference is None
        per_map = PRESETS[explain].passes(own_reference=own_reference) if isinstance(explain, str) else (0, 0)
        passes[name] = (2 + placements[name] + maps * per_map[0], maps * per_map[1])
    return passes


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    records = table.drop(columns="image").to_dict("records")
    return [{str(k): _number(v) if isinstance(v, float) else v for k, v in record.items()} for record in records]
