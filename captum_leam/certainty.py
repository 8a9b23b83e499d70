r"""How sure one attribution map is: a randomisation test of its place, its stability, and its agreement with other models.

The test asks whether the critical pixels lie where they do for a reason. The region of a map's critical pixels is moved to other places
that cover as much of the face and as much detail, and the cosine is measured with each of these regions occluded
(:func:`captum_leam.controls.placements`). The p-value is that of the null hypothesis that *given its shape, how much of it lies on the
face and how much detail it covers, the region lies at a place drawn at random*. It is exact for maps of which that is true, and says
nothing about shape, size or scale of a map. :doc:`/explanation/one_map` has the reasons, and what was measured.
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
from captum_leam.suggest import Layers, chosen_layers

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
MAX_LEFT_OUT = 5
"""References that are left out, one at a time; of more, so many spread evenly."""
SHIFTS = ((1, 0), (-2, 0), (0, -1), (0, 2))
"""Shifts of the image in pixels, down and to the right."""
MARGIN = 2
"""Pixels at the border that shifted maps are not compared at."""


class Change(NamedTuple):
    """Small change of an image under which a map should stay the same.

    Attributes:
        kind: ``"shift"``, ``"mirror"`` or ``"light"``.
        name: Name of the change.
        apply: Function of images (N, C, H, W).
        undo: Function that brings maps (N, H, W) of the changed images back to the original ones.
    """

    kind: str
    name: str
    apply: Callable[[Tensor], Tensor]
    undo: Callable[[Tensor], Tensor]


def shifted(images: Tensor, down: int, right: int) -> Tensor:
    """Shift images (..., H, W) by whole pixels; the border is repeated.

    Example:
        >>> shifted(torch.tensor([[1, 2, 3]]), 0, 1).tolist()
        [[1, 1, 2]]
    """
    height, width = images.shape[-2:]
    rows = (torch.arange(height, device=images.device) - down).clamp(0, height - 1)
    columns = (torch.arange(width, device=images.device) - right).clamp(0, width - 1)
    return images[..., rows, :][..., columns]


def _same(maps: Tensor) -> Tensor:
    return maps


def _mirrored(images: Tensor) -> Tensor:
    return images.flip(-1)


CHANGES = (
    *(
        Change(
            "shift",
            f"{down} px down, {right} px right",
            partial(shifted, down=down, right=right),
            partial(shifted, down=-down, right=-right),
        )
        for down, right in SHIFTS
    ),
    Change("mirror", "mirrored", _mirrored, _mirrored),
    Change("light", "gain 0.8", lambda images: 0.8 * images, _same),
    Change("light", "gamma 1.25", lambda images: images**1.25, _same),
)
"""Changes of the images. Those of light need images in [0, 1]."""


@dataclass(frozen=True)
class PlacementTest:
    """Drop of a map's critical pixels on one model among the drops of the same region elsewhere.

    Attributes:
        drop: Fall of the cosine with the map's critical pixels occluded.
        placed: Falls of the cosine with the region moved, shape (n,).
        p: p-value in (0, 1]; NaN without any other place.

    Example:
        >>> PlacementTest(0.3, np.array([0.1, 0.2, 0.4]), 0.5).share_beaten
        0.6666666666666666
    """

    drop: float
    placed: NDArray[np.float64]
    p: float

    @property
    def share_beaten(self) -> float:
        """Share of the placements with a smaller drop, ties as in the p-value."""
        count = len(self.placed)
        return float("nan") if np.isnan(self.p) else round((1 - self.p) * (count + 1)) / count

    def to_dict(self) -> dict[str, Any]:
        """Return the test by name, for a file; NaN is None."""
        return {
            "drop": _number(self.drop),
            "p": _number(self.p),
            "share_beaten": _number(self.share_beaten),
            "placements": len(self.placed),
            "drops_of_placements": [_number(drop) for drop in self.placed.tolist()],
        }


@dataclass(frozen=True)
class MapCertainty:
    """How sure the maps of faces are, each by itself.

    Attributes:
        tests: Model → test, for each image. The explained model comes first.
        stability: Similarity of the maps remade under changes, columns image, kind ("shift", "mirror", "light" or "reference"), change,
            overlap (share of the critical pixels that stay), rank_correlation (Spearman's, over the pixels of the face). NaN where no map
            could be made.
        agreement: Similarity to the maps of the other models, columns image, model, overlap, rank_correlation.
        passes: Model → forward and backward passes per face, without those that find layers and probe the model.
        settings: How it was measured: fraction, fill, placements, seed.

    Example:
        >>> test = PlacementTest(0.3, np.array([0.1, 0.2, 0.4]), 0.5)
        >>> remade = pd.DataFrame({"image": [0], "kind": ["mirror"], "change": ["mirrored"], "overlap": [0.8], "rank_correlation": [0.9]})
        >>> MapCertainty(({"model": test},), remade, remade[:0], {"model": (4, 0)}, {"fraction": 0.05}).to_frame()["overlap"].item()
        0.8
    """

    tests: tuple[dict[str, PlacementTest], ...] = field(repr=False)
    stability: pd.DataFrame = field(repr=False)
    agreement: pd.DataFrame = field(repr=False)
    passes: dict[str, tuple[int, int]]
    settings: dict[str, Any]

    def __len__(self) -> int:
        return len(self.tests)

    def sentence(self, image: int = 0) -> str:
        """Return what was measured on one face as a sentence.

        Args:
            image: Number of the face. Default: 0.
        """
        (_, own), *others = self.tests[image].items()
        texts = [self._place(own), self._remade(image), *(self._other(image, *other) for other in others)]
        return "; ".join(text for text in texts if text) + "."

    def _place(self, test: PlacementTest) -> str:
        share = f"{100 * self.settings['fraction']:g} %"
        if np.isnan(test.p):
            return f"Occluding the map's top {share} lowers the cosine by {test.drop:.3f}; there is no other place to compare with"
        less = "" if test.p <= SMALL_P else ", which is no evidence that its place matters"
        return (
            f"Occluding the map's top {share} lowers the cosine by {test.drop:.3f}, more than {self._beaten(test)} equally shaped regions "
            f"elsewhere on the face (p = {test.p:.2g}{less})"
        )

    @staticmethod
    def _beaten(test: PlacementTest) -> str:
        count = len(test.placed)
        return f"all {count}" if test.share_beaten == 1 else f"{_percent(test.share_beaten)} of {count}"

    def _remade(self, image: int) -> str:
        rows = self.stability[(self.stability["image"] == image) & self.stability["overlap"].notna()]
        if rows.empty:
            return ""
        least = rows.nsmallest(1, "overlap").iloc[0]
        return (
            f"remade under {len(rows)} small changes it keeps {_percent(rows['overlap'].mean())} of these pixels on average and at least "
            f"{_percent(least['overlap'])} ({least['kind']}: {least['change']})"
        )

    def _other(self, image: int, model: str, test: PlacementTest) -> str:
        text = "has no other place" if np.isnan(test.p) else f"beats {self._beaten(test)} (p = {test.p:.2g})"
        rows = self.agreement[(self.agreement["image"] == image) & (self.agreement["model"] == model)]
        rows = rows[rows["overlap"].notna()]
        shared = (
            "" if rows.empty else f" and shares {_percent(rows['overlap'].iloc[0])} of these pixels with its own map"
        )
        return f"on {model} it {text}{shared}"

    def to_frame(self) -> pd.DataFrame:
        """Return one row for each image and model.

        Returns:
            Columns image, model, drop, moved (mean drop of the placements), p, share_beaten, placements, overlap and rank_correlation: of
            the explained model, means over the remade maps; of others, the similarity to their own map.
        """
        rows = []
        for image, tests in enumerate(self.tests):
            for number, (model, test) in enumerate(tests.items()):
                moved = float(test.placed.mean()) if len(test.placed) else float("nan")
                row = {"image": image, "model": model, "drop": test.drop, "moved": moved, "p": test.p}
                row |= {"share_beaten": test.share_beaten, "placements": len(test.placed)}
                table = self.agreement[self.agreement["model"] == model] if number else self.stability
                means = table.loc[table["image"] == image, ["overlap", "rank_correlation"]].mean()
                rows.append(row | means.to_dict())
        return pd.DataFrame(rows)

    def to_dict(self, image: int = 0) -> dict[str, Any]:
        """Return what was measured on one face by name, for a file; NaN is None.

        Args:
            image: Number of the face. Default: 0.
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
        """Draw the drop of one map among those of its placements, and the overlap of the remade maps.

        Args:
            image: Number of the face. Default: 0.
        """
        from matplotlib.figure import Figure

        from captum_leam.plots import COLOURS, tidy

        rows = self.stability[(self.stability["image"] == image) & self.stability["overlap"].notna()]
        tests = self.tests[image]
        figure = Figure(figsize=(5.6, 1.5 + 0.5 * len(tests)), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(3, 2))
        for i, test in enumerate(tests.values()):
            offsets = np.linspace(-0.25, 0.25, max(1, len(test.placed)))
            left.plot(test.placed, i + offsets, "o", color="0.6", markersize=2)
            left.plot([test.drop], [i], "D", color=COLOURS[0], markersize=6)
        names = [name.rpartition("/")[2] for name in tests]  # of files without their folders
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


def map_certainty(  # noqa: PLR0913  the options are named one by one
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
    """Measure how sure each single map is: a randomisation test of its place, its stability, its agreement with other models.

    By default a face takes 101 forward passes for the test, and 9 forward and 9 backward passes for each of 7 remade maps; with several
    references, as many for each of up to 5 that are left out. That is at most 209 forward passes. On each other model it takes 101
    forward passes and those of a map.

    Args:
        model: Model that was explained, in evaluation mode, that returns embeddings (N, D).
        x: Faces, shape (N, C, H, W), as the model takes them.
        maps: Attribution maps, shape (N, H, W) or (N, 1, H, W). They may come from any method.
        reference: Embeddings, shape (D,), (1, D) or (N, D), from other images; or all of several references per image, shape (N, K, D),
            whose mean of unit vectors is the reference, and of which one at a time is left out. Default: each image's own.
        models: Name → another model and its references, in one of these forms. Default: none.
        explain: How maps are remade: a preset of :func:`~captum_leam.explain_faces`; a function of a model, images and references (N, D)
            that returns maps (N, H, W); or None to leave stability and agreement out. It should be how ``maps`` were made. Default:
            ``"default"``.
        layers: Layers of the explained model for a preset, see :func:`~captum_leam.explain_faces`. The regions move in their field.
        face: Where the face is, booleans (N, H, W) or (H, W). Default: a central ellipse.
        name: Name of the explained model. Default: ``"model"``.
        placements: Number of placements; the smallest possible p-value is 1 / (placements + 1). Default: 99.
        fraction: Share of the critical pixels, of the crop. Default: 0.05.
        fill: Replacement of occluded pixels, see :mod:`captum_leam.faithfulness.fills`. Default: ``"blur"``.
        seed: Seed of the placements and of the tie-breaking. Default: 0.
        batch_size: Images in one pass. Default: 16.
        progress: Whether to show a progress bar. Default: False.

    Raises:
        CaptumLeamError: For maps of another size than the images, a face that is empty, and what ``explain_faces`` refuses.

    Example:
        >>> from torchvision.models import resnet18
        >>> model, faces = resnet18(num_classes=32).eval(), torch.rand(2, 3, 112, 112)
        >>> references = torch.randn(2, 32)
        >>> maps = explain_faces(model, faces, "fast", layers="layer2", reference=references)
        >>> found = map_certainty(
        ...     model, faces, maps, reference=references, explain="fast", layers="layer2", placements=9
        ... )
        >>> found.to_frame()[["image", "placements"]].values.tolist(), found.passes
        ([[0, 9], [1, 9]], {'model': (18, 7)})
    """
    others = dict(models or {})
    _check(x, explain, placements, seed, batch_size, others, name)
    maps = as_maps(maps).to(x.device)
    if maps.shape != (len(x), *x.shape[2:]):
        raise CaptumLeamError(
            f"Expected maps of shape {(len(x), *x.shape[2:])}, one for each image, got {tuple(maps.shape)}."
        )
    if isinstance(explain, str) or isinstance(layers, LayerSuggestions):
        layers = chosen_layers(model, x, layers)
    moving = layers.field if isinstance(layers, LayerSuggestions) else None
    scene = _Scene(x, maps, _face(face, x), fraction, moving, seed)
    measured = {name: _Measured(model, reference, x, batch_size)}
    measured |= {key: _Measured(other, towards, x, batch_size) for key, (other, towards) in others.items()}
    with tqdm(total=len(x) * len(measured), disable=not progress, desc="moving the map", unit="face") as bar:
        tests = [scene.test(i, placements, as_fill(fill), measured, bar.update) for i in range(len(x))]
    own, *rest = measured.items()
    stability, agreement = _Table("image", "kind", "change"), _Table("image", "model")
    if explain is not None:
        kinds = scene.variants(own[1])
        for kind, changed, towards, undo in tqdm(kinds, disable=not progress, desc="remaking the map", unit="map"):
            remade = _remake(explain, model, changed, towards, layers, batch_size)
            stability.add(scene.similarity(undo(remade)), *kind)
        for key, other in rest:
            if isinstance(other.model, nn.Module):
                agreement.add(scene.similarity(_remake(explain, other.model, x, other.towards, None, batch_size)), key)
    placed = {key: max(len(test[key].placed) for test in tests) for key in measured}
    return MapCertainty(
        tuple(tests),
        stability.frame(),
        agreement.frame(),
        _passes(explain, measured, placed, stability.maps, agreement.maps),
        {"fraction": fraction, "fill": as_fill(fill).name, "placements": placements, "seed": seed},
    )


# -- what is measured ----------------------------------------------------------------------------------


class _Measured:
    """A model with the references of the images, and the cosines of the images as they are."""

    def __init__(self, model: Callable[[Tensor], Tensor], reference: Tensor | None, x: Tensor, batch_size: int) -> None:
        self.model, self.x, self.batch_size = model, x, batch_size
        clean = embed(model, x, batch_size)
        directions = unit(clean, "embeddings").double()
        self.several: Tensor | None = None
        if reference is None:
            self.towards: Tensor | None = None
            self.directions = directions
        else:
            if reference.ndim == 3:
                self.several = unit(reference.to(clean), "references")
                reference = self.several.mean(1)
            self.towards = unit(match_rows(reference, clean), "references").expand_as(clean)
            self.directions = self.towards.double()
        self.cosines = (directions * self.directions).sum(1)

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

    def left_out(self) -> Iterator[tuple[str, Tensor]]:
        """Yield references (N, D) without one of the several, and a name for that one."""
        if self.several is None or self.several.shape[1] < 2:
            return
        count = self.several.shape[1]
        chosen = sorted({round(i * (count - 1) / max(1, MAX_LEFT_OUT - 1)) for i in range(MAX_LEFT_OUT)})
        for k in range(count) if count <= MAX_LEFT_OUT else chosen:
            rest = torch.cat([self.several[:, :k], self.several[:, k + 1 :]], 1).mean(1)
            yield f"without reference {k + 1}", unit(rest, "references")


@dataclass(frozen=True)
class _Scene:
    """Images with their maps, and where the regions may lie."""

    x: Tensor
    maps: Tensor
    face: Tensor
    fraction: float
    field: Field | None
    seed: int

    def test(
        self, i: int, count: int, fill: Fill, measured: Mapping[str, _Measured], done: Callable[[], Any]
    ) -> dict[str, PlacementTest]:
        """Return the test of image ``i`` on each model; the placements are the same on all."""
        region = top_fraction(self.maps[i : i + 1], self.fraction, seed=self.seed, start=i)[0].cpu()
        height, width = self.field[2:] if self.field else region.shape
        motions = len(MIRRORS) * height * width
        # numbers of an image do not depend on the images before it
        keys = draw_by_image(
            lambda generator, row: uniform((motions + 1,), generator), ("placements", motions), self.seed, 1, i
        )[0]
        whole = fill(self.x[i : i + 1], torch.ones_like(self.face[i : i + 1]))
        detail = (whole - self.x[i : i + 1]).square().sum((0, 1)).double().cpu()
        moved = controls.placements(region, self.face[i].cpu(), count, detail=detail, field=self.field, keys=keys[1:])
        regions = torch.cat([region[None], moved]).to(self.x.device)
        tests = {}
        for name, model in measured.items():
            drops = model.drops(i, regions, fill)
            p = randomisation_p_value(drops[0], drops[1:], float(keys[0]))
            tests[name] = PlacementTest(float(drops[0]), drops[1:], p)
            done()
        return tests

    def variants(
        self, model: _Measured
    ) -> list[tuple[tuple[str, str], Tensor, Tensor | None, Callable[[Tensor], Tensor]]]:
        """Return kind and name, images, references, and the way back of the maps, for each map that is remade."""
        has_light = bool((self.x >= 0).all()) and bool((self.x <= 1).all())
        changes = [change for change in CHANGES if has_light or change.kind != "light"]
        variants = [((c.kind, c.name), c.apply(self.x), model.towards, c.undo) for c in changes]
        return variants + [(("reference", name), self.x, towards, _same) for name, towards in model.left_out()]

    def similarity(self, remade: Tensor) -> list[tuple[float, float]]:
        """Return the share of common critical pixels and the rank correlation over the face, for each image."""
        pairs = []
        for first, second, face in zip(self.maps, remade.to(self.maps), self.face, strict=True):
            inner = tuple(slice(MARGIN, side - MARGIN) for side in first.shape)
            both = torch.stack([first[inner], second[inner]])
            if not bool(torch.isfinite(both).all()):
                pairs.append((float("nan"), float("nan")))
                continue
            tops = top_fraction(both, self.fraction, seed=self.seed)
            overlap = float((tops[0] & tops[1]).sum() / tops[0].sum())
            pairs.append((overlap, _rank_correlation(*both[:, face[inner]].cpu().numpy())))
        return pairs


class _Table:
    """Similarities of remade maps, row after row."""

    def __init__(self, *names: str) -> None:
        self.columns = [*names, "overlap", "rank_correlation"]
        self.rows: list[tuple[Any, ...]] = []
        self.maps = 0

    def add(self, similarities: list[tuple[float, float]], *names: str) -> None:
        """Add one map of every image."""
        self.rows += [(i, *names, *pair) for i, pair in enumerate(similarities)]
        self.maps += 1

    def frame(self) -> pd.DataFrame:
        """Return the rows, image by image."""
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
        raise CaptumLeamError(f"Expected names other than {name!r} for other models, got {list(others)}. Pass `name`.")


def _face(face: Tensor | None, x: Tensor) -> Tensor:
    height, width = x.shape[2:]
    given = central_ellipse((height, width)) if face is None else face
    if given.dtype != torch.bool or given.shape not in ((height, width), (len(x), height, width)):
        raise CaptumLeamError(
            f"Expected face to be boolean, {(height, width)} or {(len(x), height, width)}, got {given.dtype}, {tuple(given.shape)}."
        )
    face = given.to(x.device).expand(len(x), height, width)
    if not bool(face.flatten(1).any(1).all()):
        raise CaptumLeamError("Expected a face in every image, got an empty one.")
    return face


def _remake(
    explain: Preset | Explain, model: nn.Module, x: Tensor, towards: Tensor | None, layers: Layers, batch_size: int
) -> Tensor:
    """Return maps (N, H, W); NaN for images without evidence for the match."""
    if isinstance(explain, str):
        options: Any = {"layers": layers, "reference": towards, "batch_size": batch_size}
        make: Callable[[], Tensor] = partial(explain_faces, model, x, explain, **options)
    else:
        make = partial(explain, model, x, towards)
    try:
        return as_maps(make())
    except NoEvidenceError:
        if len(x) == 1:
            return torch.full((1, *x.shape[2:]), torch.nan, dtype=torch.float32, device=x.device)
    each = [(x[i : i + 1], None if towards is None else towards[i : i + 1]) for i in range(len(x))]
    return torch.cat([_remake(explain, model, *one, layers, batch_size) for one in each])


def _mean_ranks(values: NDArray[Any]) -> NDArray[np.float64]:
    """Return ranks from 1 on, equal values with the mean of theirs, without the second that `scipy.stats` takes to import."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (counts.cumsum() - (counts - 1) / 2)[group]
    return ranks


def _rank_correlation(first: NDArray[Any], second: NDArray[Any]) -> float:
    a, b = (_mean_ranks(values) - (len(values) + 1) / 2 for values in (first, second))
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale else float("nan")


def _passes(
    explain: Preset | Explain | None,
    measured: Mapping[str, _Measured],
    placed: Mapping[str, int],
    remade: int,
    compared: int,
) -> dict[str, tuple[int, int]]:
    """Return the forward and backward passes per face on each model; of the maps only where a preset makes them."""
    passes = {}
    for number, (name, model) in enumerate(measured.items()):
        maps = (int(isinstance(model.model, nn.Module)) if compared else 0) if number else remade
        per_map = PRESETS[explain].passes(own_reference=model.towards is None) if isinstance(explain, str) else (0, 0)
        passes[name] = (2 + placed[name] + maps * per_map[0], maps * per_map[1])
    return passes


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    records = table.drop(columns="image").to_dict("records")
    return [{str(k): _number(v) if isinstance(v, float) else v for k, v in record.items()} for record in records]
