r"""Occlusion: the drop of the similarity to a reference when the pixels that a map names are replaced.

.. math:: \mathrm{drop} = s(x, r) - s(x_\mathrm{occluded}, r)

The drop is absolute and never divided by the score; :math:`s` is the cosine, and the reference :math:`r` comes from *other* images.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from captum_leam._engine.arithmetic import as_tensor
from captum_leam._engine.checks import rows_from
from captum_leam._optional import pd
from captum_leam.controls import CONTROLS, OWN_CONTROLS, Control, ControlContext, PersonMaps, central_ellipse
from captum_leam.errors import CaptumLeamError, InputTypeError
from captum_leam.faithfulness.fills import Fill, as_fill
from captum_leam.faithfulness.occluded_batch import Embed, MeasuredModel, OccludedBatch, masks_of_pixels
from captum_leam.faithfulness.occlusion_result import OcclusionResult
from captum_leam.maps import as_maps, gaussian_blur, pixel_count, rank_pixels, top_pixels
from captum_leam.objectives import embed, leave_one_out_centroids, match_rows, unit
from captum_leam.stats.bootstrap import Floats
from captum_leam.stats.labels import people_of

ORDERS = ("most", "least", "insertion")
COLUMNS = ["image", "person", "explained", "method", "control", "model", "fill", "order", "fraction", "drop", "changed"]


def occlude(images: Tensor, masks: Tensor, fill: str | Fill | Callable[..., Tensor] = "blur") -> Tensor:
    """Replace the masked pixels of images, in all channels.

    Args:
        images: Images, shape (N, C, H, W).
        masks: Pixels to replace, boolean, shape (N, H, W).
        fill: Replacement of the pixels. Default: ``"blur"``.

            * ``"zero"``: Black.
            * ``"mean"``: Mean colour of the image.
            * ``"blur"``: Blurred image.
            * ``"noisy linear"``: Mean of the neighbouring pixels with a little noise (ROAD).
            * ``"shuffle"``: Other pixels of the image.
            * A function of the images, or of images and masks, that returns images of the same shape.

    Returns:
        Occluded images, shape (N, C, H, W).

    Raises:
        CaptumLeamError: If the masks have another size or type, or the fill changes the shape.

    See Also:
        :class:`~captum_leam.faithfulness.OcclusionEvaluator`: Drops of the cosine by occlusion.

    Example:
        >>> mask = torch.tensor([[[True, False]]])
        >>> occlude(torch.full((1, 1, 1, 2), 0.5), mask, "zero").tolist()
        [[[[0.0, 0.5]]]]
    """
    if masks.shape != (len(images), *images.shape[2:]) or masks.dtype != torch.bool:
        raise CaptumLeamError(
            f"Expected `masks` to be boolean of shape {(len(images), *images.shape[2:])}, got {masks.dtype} {tuple(masks.shape)}."
        )
    masks = masks.to(images.device)
    return torch.where(masks[:, None], as_fill(fill)(images, masks), images)


class OcclusionEvaluator:
    r"""Occlusion test of the faithfulness of attribution maps, on one or several models.

    The pixels with the highest values of a map are replaced, and the drop of the cosine between the image x and a reference r is measured:

    .. math:: \mathrm{drop} = \cos(f(x), r) - \cos(f(x_\mathrm{occluded}), r)

    The same is done with control maps of equal area, such as random pixels. A faithful map has larger drops than all controls. Call
    :meth:`evaluate` for one set of images, or :meth:`update` for each batch and then :meth:`compute`.

    Args:
        models: Function from images (N, C, H, W) to embeddings (N, D), such as a module, or a dictionary of such functions by name. No
            gradients are needed. A single function is named "model".
        fractions: Shares of the crop, or of the face, that are occluded, in (0, 1]. Default: 0.01, 0.02, 0.05, 0.1 and 0.2.
        fills: Replacements of occluded pixels, names or functions, see :mod:`captum_leam.faithfulness.fills`. Default: ``("blur",)``.
        controls: Control maps to compare with, names in :data:`~captum_leam.controls.CONTROLS`, or a dictionary of functions of a
            :class:`~captum_leam.controls.ControlContext` by name. Default: all; "other people" is left out with a warning if there are no
            labels.
        orders: Pixels that are replaced, one or more of these. Default: ``("most",)``.

            * ``"most"``: Pixels with the highest values.
            * ``"least"``: Pixels with the lowest values.
            * ``"insertion"``: All pixels except those with the highest values.
        of: Area that fractions refer to. Default: ``"crop"``.

            * ``"crop"``: All pixels of the image.
            * ``"face"``: Pixels of the face, and only these are ranked.
        smooth: Standard deviation in pixels of a Gaussian that blurs each map and control before ranking. Blurred maps have larger drops
            (arXiv 2304.13836), so that methods are best compared at the same blur, too. Default: 0.
        seed: Seed of ties and controls. Default: 0.
        batch_size: Number of images in one pass. Default: 64.
        progress: Whether to show a progress bar. Default: False.

    Raises:
        CaptumLeamError: If there is no model or fraction, a name is unknown, or a fraction is outside (0, 1].

    Note:
        The number of forward passes is images × models × (1 + fractions × fills × orders × (methods + controls)). Equal maps are occluded
        once.

    See Also:
        * :func:`~captum_leam.map_certainty`: Test of each single map.
        * :func:`~captum_leam.faithfulness.sanity_checks`: Checks of a method.
        * :class:`~captum_leam.verification.VerificationEvaluator`: Decisions instead of cosines.

    Example:
        >>> from captum_leam.faithfulness import AdditiveSimilarity
        >>> _ = torch.manual_seed(0)
        >>> weights, faces = torch.rand(8, 8) ** 4, torch.rand(4, 3, 8, 8)
        >>> model = AdditiveSimilarity(weights)  # a model whose true maps are known
        >>> evaluator = OcclusionEvaluator(model, fractions=(0.1,), fills=("zero",), controls=("random pixels",))
        >>> result = evaluator.evaluate(faces, {"truth": model.contributions(faces)}, model.reference)
        >>> result.summary()[["method", "control", "fraction", "drop"]].round(2)
          method        control  fraction  drop
        0  truth                      0.1  0.23
        1         random pixels       0.1  0.08
    """

    def __init__(
        self,
        models: Embed | Mapping[str, Embed],
        fractions: Sequence[float] = (0.01, 0.02, 0.05, 0.1, 0.2),
        *,
        fills: Sequence[str | Fill | Callable[..., Tensor]] = ("blur",),
        controls: Sequence[str] | Mapping[str, Control] = tuple(CONTROLS),
        orders: Sequence[str] = ("most",),
        of: str = "crop",
        smooth: float = 0.0,
        seed: int = 0,
        batch_size: int = 64,
        progress: bool = False,
    ) -> None:
        self.models = dict(models) if isinstance(models, Mapping) else {"model": models}
        self.fractions = tuple(fractions)
        self.fills = [as_fill(fill) for fill in fills]
        self.controls = dict(controls) if isinstance(controls, Mapping) else {name: _control(name) for name in controls}
        self.orders = tuple(orders)
        self.of, self.smooth, self.seed = of, smooth, seed
        self.batch_size, self.progress = batch_size, progress
        self._check()
        self.reset()

    def _check(self) -> None:
        if not self.models or not self.fractions or not self.fills or not self.orders:
            raise CaptumLeamError(
                "Expected one entry or more in each of `models`, `fractions`, `fills` and `orders`, got none."
            )
        names = [fill.name for fill in self.fills]
        if len(set(names)) < len(names):
            raise CaptumLeamError(
                f"Expected `fills` with different names, got {names}. Name them as in Fill('grey', lambda images, masks: ...)."
            )
        wrong = [f for f in self.fractions if not 0 < f <= 1]
        if wrong:
            raise CaptumLeamError(f"Expected `fractions` in (0, 1], where 0.05 is 5 % of the pixels, got {wrong}.")
        if not set(self.orders) <= set(ORDERS):
            raise CaptumLeamError(f"Expected `orders` to be some of {ORDERS}, got {self.orders}.")
        if self.of not in ("crop", "face"):
            raise CaptumLeamError(f"Expected `of` to be 'crop' or 'face', got {self.of!r}.")

    # -- one call, or batch after batch ----------------------------------------------------------------------

    def evaluate(
        self,
        images: Tensor,
        maps: Tensor | Mapping[str, Tensor],
        references: Mapping[str, Tensor] | Tensor | None = None,
        labels: Sequence[Any] | None = None,
        *,
        face: Tensor | None = None,
        explained: str = "",
    ) -> OcclusionResult:
        """Measure the drops of all images in one call.

        Images that :meth:`update` added are neither used nor changed.

        Args:
            images: Images, shape (N, C, H, W).
            maps: Maps of the size of the images, a tensor or array of shape (N, H, W) or (N, 1, H, W), or a dictionary of these by
                method.
            references: Embeddings of other images than the occluded ones, shape (D,), (1, D) or (N, D), or a dictionary of these by
                model. Default: leave-one-out centroids by ``labels``.
            labels: Person of each image. Default: each image counts as a person of its own, without p-values.
            face: Pixels of the face, boolean, shape (N, H, W) or (H, W). Default: a central ellipse.
            explained: Name of the model that the maps explain, for the transfer matrix. Default: ``""``.

        Returns:
            :class:`OcclusionResult` with the drop of each image, map, control, model, fill, order and fraction.

        Raises:
            CaptumLeamError: If maps have another size or NaN, or both references and labels are missing.

        Example:
            >>> _ = torch.manual_seed(0)
            >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 8)).eval()
            >>> faces, people = torch.rand(4, 3, 8, 8), ["ann", "ann", "bob", "bob"]
            >>> evaluator = OcclusionEvaluator(model, fractions=(0.1,), controls=("random pixels",))
            >>> result = evaluator.evaluate(faces, {"noise": torch.rand(4, 8, 8)}, labels=people)
            >>> result.summary()[["method", "control", "fraction", "images", "people"]]
              method        control  fraction  images  people
            0  noise                      0.1       4       2
            1         random pixels       0.1       4       2
        """
        alone = copy(self)
        alone.reset()
        alone.update(images, maps, references, labels, face=face, explained=explained)
        return alone.compute()

    def reset(self) -> None:
        """Remove all images added so far, by :meth:`update` or :meth:`merge`.

        Example:
            >>> _ = torch.manual_seed(0)
            >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 8)).eval()
            >>> evaluator = OcclusionEvaluator(model, (0.1,), controls=())
            >>> evaluator.update(torch.rand(2, 3, 8, 8), torch.rand(2, 8, 8), labels=["ann", "ann"])
            >>> evaluator.reset()
            >>> evaluator.update(torch.rand(3, 3, 8, 8), torch.rand(3, 8, 8), labels=["bob", "bob", "bob"])
            >>> evaluator.compute().to_frame()["person"].tolist()
            ['bob', 'bob', 'bob']
        """
        self._parts: list[_MeasuredPart] = []

    def update(
        self,
        images: Tensor,
        maps: Tensor | Mapping[str, Tensor],
        references: Mapping[str, Tensor] | Tensor | None = None,
        labels: Sequence[Any] | None = None,
        *,
        face: Tensor | None = None,
        explained: str = "",
        start: int | None = None,
        population: Mapping[str, PersonMaps] | None = None,
    ) -> None:
        """Measure the drops of a batch, and keep them for :meth:`compute`.

        Any split into batches gives the table of one :meth:`evaluate` up to rounding, provided that references, ``population`` and fills
        do not depend on the split.

        Args:
            images: Images of the batch, shape (N, C, H, W).
            maps: Maps of these images, shape (N, H, W) or (N, 1, H, W), or a dictionary of these by method.
            references: Reference embeddings, shape (D,), (1, D) or (N, D), or a dictionary of these by model. Default: leave-one-out
                centroids by ``labels``, for which a batch must hold all images of its people.
            labels: Person of each image. Default: each image counts as a person of its own.
            face: Pixels of the face, boolean, shape (N, H, W) or (H, W). Default: a central ellipse.
            explained: Name of the model that the maps explain. Default: ``""``.
            start: Index of the first image in the whole set. Default: number of images in earlier calls.
            population: Maps of all people by method, for the control "other people". Default: those of this batch, which must then be
                the only one.

        Raises:
            CaptumLeamError: As for :meth:`evaluate`.

        Example:
            >>> _ = torch.manual_seed(0)
            >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 8)).eval()
            >>> faces, maps, references = torch.rand(6, 3, 8, 8), torch.rand(6, 8, 8), torch.rand(6, 8)
            >>> first, rest = (OcclusionEvaluator(model, (0.1,), controls=("moved",)) for _ in range(2))
            >>> first.update(faces[:4], maps[:4], references[:4])
            >>> rest.update(faces[4:], maps[4:], references[4:], start=4)  # perhaps in another process
            >>> first.merge(rest)
            >>> first.compute().summary()[["control", "images"]].values.tolist()
            [['', 6], ['moved', 6]]
        """
        if references is None and labels is None:
            raise CaptumLeamError(
                "Expected `references`, or `labels` for leave-one-out references, got neither. Pass the person of each image as `labels`."
            )
        if images.ndim != 4 or not len(images):
            raise CaptumLeamError(
                f"Expected images of shape (N, C, H, W), one image or more, got {tuple(images.shape)}."
            )
        seen = [part.start + len(part.people) for part in self._parts if part.explained == explained]
        start = max(seen, default=0) if start is None else start
        people = list(range(start, start + len(images))) if labels is None else people_of(labels, len(images))
        known = None if labels is None else people
        scene = ControlContext(images, _face(face, images), known, seed=self.seed, start=start)
        methods = {name: self._map(name, m, images) for name, m in _as_mapping(maps).items()}
        if population is not None and not set(methods) <= set(population):
            raise CaptumLeamError(
                f"Expected `population` to have maps of every method, {list(methods)}, got only {list(population)}."
            )
        measured = self._measured(images, references, labels)
        part = _MeasuredPart(
            start, people, explained, labels is not None, needs_all_of_person=references is None, needs_all=False
        )
        part.drops = self._drops(scene, methods, measured, population or {})
        part.needs_all = population is None and any(control == "other people" for _, control in part.drops)
        self._parts.append(part)

    def merge(self, other: OcclusionEvaluator) -> None:
        """Add the images of another evaluator.

        Use it to join the evaluators of several processes, in any order. The images of both must have different indices, see ``start`` of
        :meth:`update`.

        Args:
            other: :class:`OcclusionEvaluator` with the same settings. Models, fills and controls are compared by their names. It is not
                changed.

        Raises:
            InputTypeError: If ``other`` is not an evaluator.
            CaptumLeamError: If the settings differ.

        Example:
            >>> _ = torch.manual_seed(0)
            >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 8)).eval()
            >>> first, second = (OcclusionEvaluator(model, (0.1,), controls=()) for _ in range(2))
            >>> first.update(torch.rand(2, 3, 8, 8), torch.rand(2, 8, 8), labels=["ann", "ann"])
            >>> second.update(torch.rand(2, 3, 8, 8), torch.rand(2, 8, 8), labels=["bob", "bob"], start=2)
            >>> first.merge(second)
            >>> first.compute().to_frame()[["image", "person"]]
               image person
            0      0    ann
            1      1    ann
            2      2    bob
            3      3    bob
        """
        if not isinstance(other, OcclusionEvaluator):
            raise InputTypeError(f"Expected an OcclusionEvaluator, got a {type(other).__name__}.")
        if self._settings() != other._settings():
            raise CaptumLeamError(
                f"Expected evaluators with the same settings, got {self._settings()} and {other._settings()}."
            )
        self._parts = [*self._parts, *other._parts]

    def compute(self) -> OcclusionResult:
        """Return the drops of all images added so far.

        The evaluator is not changed, so that batches can be added afterwards.

        Returns:
            :class:`OcclusionResult` with one row per image, map and setting, in the order of the indices of the images.

        Raises:
            CaptumLeamError: If there is no image, if batches have the same images, or if leave-one-out references or the control "other
                people" of a batch need images of another batch.

        Example:
            >>> _ = torch.manual_seed(0)
            >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 8)).eval()
            >>> evaluator = OcclusionEvaluator(model, (0.1,), controls=())
            >>> for person in ("ann", "bob"):
            ...     evaluator.update(torch.rand(2, 3, 8, 8), torch.rand(2, 8, 8), labels=[person, person])
            >>> evaluator.compute().to_frame()[["image", "person"]]
               image person
            0      0    ann
            1      1    ann
            2      2    bob
            3      3    bob
        """
        parts = sorted(self._parts, key=lambda part: part.start)
        _check_parts(parts)
        tables = []
        for explained in dict.fromkeys(part.explained for part in self._parts):
            own = [part for part in parts if part.explained == explained]
            people = [person for part in own for person in part.people]
            images = np.concatenate([np.arange(len(part.people)) + part.start for part in own])
            for key in own[0].drops:
                drops = np.concatenate([part.drops[key][0] for part in own])
                changed = np.concatenate([part.drops[key][1] for part in own])
                head = dict(zip(("method", "control"), key, strict=True)) | {"explained": explained}
                tables.append(self._table(drops, changed, {"image": images, "person": people}, head))
        settings = {**self._settings(), "labelled": all(part.is_labelled for part in parts)}
        return OcclusionResult(
            pd.concat(tables, ignore_index=True)[COLUMNS], {**settings, "explained": parts[-1].explained}
        )

    def _table(
        self, drops: Floats, changed: NDArray[np.int64], rows: Mapping[str, Any], head: Mapping[str, str]
    ) -> pd.DataFrame:
        """Return the rows of one map: cell after cell, in each of them image after image."""
        cells = pd.DataFrame(
            [
                (fill.name, fraction, order, model)
                for fill in self.fills
                for fraction in self.fractions
                for order in self.orders
                for model in self.models
            ],
            columns=["fill", "fraction", "order", "model"],
        )
        table = cells.loc[cells.index.repeat(len(drops))].reset_index(drop=True)
        columns = {"image": np.tile(rows["image"], len(cells)), "person": rows["person"] * len(cells)}
        of_masks = np.repeat(changed, len(self.models), axis=1)
        return table.assign(drop=drops.T.reshape(-1), changed=of_masks.T.reshape(-1), **columns, **head)

    # -- drops -----------------------------------------------------------------------------------------------

    def _drops(
        self,
        scene: ControlContext,
        methods: Mapping[str, Tensor],
        measured: Mapping[str, MeasuredModel],
        population: Mapping[str, PersonMaps],
    ) -> Drops:
        """Return drops and changed pixels of all maps and controls; equal maps are occluded once."""
        batches = self._batches(scene.images, measured)
        drops: Drops = {}
        by_content: dict[bytes, tuple[Floats, NDArray[np.int64]]] = {}
        bar = tqdm(total=self._count(methods), disable=not self.progress, desc="occluding", unit="set")
        for method, control, maps in self._maps(methods, scene, population):
            content = blake2b(maps.detach().cpu().contiguous().numpy().tobytes()).digest()
            if content not in by_content:
                masks = self._masks(maps, scene)
                parts = [
                    batch.measure([mask[rows] for mask in masks], list(self.models), count_changes=True)
                    for rows, batch in batches
                ]
                by_content[content] = np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])
            drops[method, control] = by_content[content]
            bar.update()
        bar.close()
        return drops

    def _batches(self, images: Tensor, measured: Mapping[str, MeasuredModel]) -> list[tuple[slice, OccludedBatch]]:
        whole = {fill.name: fill(images) for fill in self.fills if not fill.uses_masks}
        batches = []
        for first in range(0, len(images), self.batch_size):
            rows = slice(first, first + self.batch_size)
            models = {
                name: MeasuredModel(self._embedder(name, first), model.references[rows], model.cosines[rows])
                for name, model in measured.items()
            }
            filled = {name: of_all[rows] for name, of_all in whole.items()}
            batches.append((rows, OccludedBatch(images[rows], self.fills, models, filled)))
        return batches

    def _embedder(self, name: str, first: int) -> Embed:
        def embed_occluded(occluded: Tensor) -> Tensor:
            with rows_from(first):
                embeddings = embed(self.models[name], occluded, self.batch_size).double()
                unit(embeddings, "embeddings")  # raises for an embedding of length 0
            return embeddings

        return embed_occluded

    def _measured(
        self, images: Tensor, references: Mapping[str, Tensor] | Tensor | None, labels: Sequence[Any] | None
    ) -> dict[str, MeasuredModel]:
        measured = {}
        for name in self.models:
            clean = embed(self.models[name], images, self.batch_size).double()
            towards = self._references(name, clean, references, labels).expand_as(clean)
            cosines = (unit(clean, "embeddings") * towards).sum(1)
            measured[name] = MeasuredModel(self._embedder(name, 0), towards, cosines)
        return measured

    # -- maps and controls ---------------------------------------------------------------------------------

    def _map(self, name: str, maps: Tensor, images: Tensor) -> Tensor:
        maps = as_maps(maps).to(images.device)
        if maps.shape != (len(images), *images.shape[2:]):
            raise CaptumLeamError(
                f"Expected maps {name!r} of shape {(len(images), *images.shape[2:])}, got {tuple(maps.shape)}. Place them on the images "
                "with captum_leam.maps.place_on_field."
            )
        return maps

    def _maps(
        self, methods: Mapping[str, Tensor], scene: ControlContext, population: Mapping[str, PersonMaps]
    ) -> Iterator[tuple[str, str, Tensor]]:
        """Yield method, control and maps, one after the other, so that memory does not grow with their number."""
        own = {name: c for name, c in self._possible(scene, population).items() if name in OWN_CONTROLS}
        for method, maps in methods.items():
            yield method, "", maps
            of_method = replace(scene, maps=maps, population=population.get(method))
            for name, control in own.items():
                yield method, name, self._map(name, control(of_method), scene.images)
        for name, control in self.controls.items():
            if name not in OWN_CONTROLS:
                yield "", name, self._map(name, control(scene), scene.images)

    def _possible(self, scene: ControlContext, population: Mapping[str, PersonMaps]) -> Mapping[str, Control]:
        has_others = population or len(set(scene.people or ())) > 1
        if "other people" not in self.controls or (scene.people is not None and has_others):
            return self.controls
        warnings.warn(
            "Expected labels of two people or more for the control 'other people', got fewer. The control is omitted.",
            stacklevel=6,
        )
        return {name: c for name, c in self.controls.items() if name != "other people"}

    def _count(self, methods: Mapping[str, Tensor]) -> int:
        own = sum(name in OWN_CONTROLS for name in self.controls)
        return len(methods) * (1 + own) + len(self.controls) - own

    def _masks(self, maps: Tensor, scene: ControlContext) -> list[Tensor]:
        """Return the masks of the pixels to replace, shape (N, H, W), by fraction and order."""
        blurred, (height, width) = gaussian_blur(maps, self.smooth), maps.shape[1:]
        if self.of == "crop" and "least" not in self.orders:
            counts = [pixel_count(fraction, height * width) for fraction in self.fractions]
            order = top_pixels(blurred.flatten(1), counts, seed=self.seed, start=scene.start)
            top = masks_of_pixels(order, counts, (height, width))
            return [~mask if order == "insertion" else mask for mask in top for order in self.orders]
        ranks = rank_pixels(blurred, seed=self.seed, start=scene.start)
        pixels = torch.full((len(maps),), height * width, dtype=torch.int64, device=maps.device)
        if self.of == "face":
            ranks = rank_pixels(
                (ranks + height * width * ~scene.faces().to(ranks.device)).neg().double(), start=scene.start
            )
            pixels = scene.faces().flatten(1).sum(1).to(ranks.device)
        return [_mask(ranks, pixels, fraction, order) for fraction in self.fractions for order in self.orders]

    def _references(
        self, name: str, clean: Tensor, references: Mapping[str, Tensor] | Tensor | None, labels: Sequence[Any] | None
    ) -> Tensor:
        if references is None:
            return leave_one_out_centroids(clean, people_of(labels, len(clean)))
        if isinstance(references, Tensor) and len(self.models) > 1:
            raise CaptumLeamError(
                f"Expected `references` to be a dictionary with an entry for each of {len(self.models)} models, got one tensor."
            )
        of_model = references if isinstance(references, Tensor) else references.get(name)
        if of_model is None:
            raise CaptumLeamError(f"Expected `references` to have an entry for the model {name!r}, got none.")
        return unit(match_rows(of_model, clean, f"references of {name!r}"), f"references of {name!r}")

    def _settings(self) -> dict[str, Any]:
        return {
            "models": list(self.models),
            "fractions": self.fractions,
            "fills": [fill.name for fill in self.fills],
            "controls": list(self.controls),
            "orders": self.orders,
            "of": self.of,
            "smooth": self.smooth,
            "seed": self.seed,
        }


# -- the state -------------------------------------------------------------------------------------------

Drops = dict[tuple[str, str], tuple[Floats, NDArray[np.int64]]]
"""Method and control → drops (N, cells) and changed pixels (N, fills × fractions × orders)."""


@dataclass
class _MeasuredPart:
    """Drops that one update measured.

    Attributes:
        start: Number of its first image.
        people: Person of each image.
        explained: Name of the model that the maps explain.
        is_labelled: Whether labels were given.
        needs_all_of_person: Whether its references come from the other images of this part.
        needs_all: Whether its control "other people" comes from this part only.
        drops: Drops and changed pixels by method and control.
    """

    start: int
    people: list[Any]
    explained: str
    is_labelled: bool
    needs_all_of_person: bool
    needs_all: bool
    drops: Drops = field(default_factory=dict)


def _check_parts(parts: Sequence[_MeasuredPart]) -> None:
    """Raise if the parts, sorted by their first image, are no split of one set."""
    if not parts:
        raise CaptumLeamError("Expected one image or more, got none. Call update first.")
    for explained in {part.explained for part in parts}:
        own = [part for part in parts if part.explained == explained]
        if any(one.start + len(one.people) > two.start for one, two in pairwise(own)):
            raise CaptumLeamError("Expected every image once, got parts that overlap. Pass `start` to update.")
        if any(list(part.drops) != list(own[0].drops) for part in own):
            raise CaptumLeamError("Expected the same methods and controls in all parts, got different ones.")
        if len(own) > 1 and any(part.needs_all for part in own):
            raise CaptumLeamError(
                "Expected the maps of all people for the control 'other people', got those of one part. Pass `population` to update."
            )
        people = [person for part in own for person in set(part.people)]
        if any(part.needs_all_of_person for part in own) and len(people) > len(set(people)):
            raise CaptumLeamError(
                "Expected all images of a person in one part, because references are leave-one-out centroids. Pass references."
            )


# -- small functions -----------------------------------------------------------------------------------


def _control(name: str) -> Control:
    if name not in CONTROLS:
        raise CaptumLeamError(
            f"Expected `controls` to be names among {', '.join(map(repr, CONTROLS))}, or a dictionary of functions by name, got {name!r}."
        )
    return CONTROLS[name]


def _as_mapping(maps: Any) -> Mapping[str, Tensor]:
    methods = maps if isinstance(maps, Mapping) else {"map": maps}
    if not methods:
        raise CaptumLeamError("Expected `maps` to have maps of one method or more, got none.")
    named = {str(name): as_tensor(m) for name, m in methods.items()}
    if len(named) < len(methods):
        raise CaptumLeamError(f"Expected the methods in `maps` to have different names, got {list(methods)}.")
    return named


def _face(face: Tensor | None, images: Tensor) -> Tensor:
    size = images.shape[2:]
    pixels = central_ellipse((size[0], size[1])) if face is None else as_tensor(face)
    if pixels.shape not in (size, (len(images), *size)) or pixels.dtype != torch.bool:
        raise CaptumLeamError(
            f"Expected `face` to be boolean of shape {tuple(size)} or {(len(images), *size)}, got {pixels.dtype} of shape "
            f"{tuple(pixels.shape)}."
        )
    face = pixels.to(images.device).expand(len(images), *size)
    if not bool(face.flatten(1).any(1).all()):
        raise CaptumLeamError(
            "Expected `face` to have at least one True pixel in every image, got none in some. Omit these images, or pass None for an "
            "ellipse."
        )
    return face


def _mask(ranks: Tensor, pixels: Tensor, fraction: float, order: str) -> Tensor:
    """Return the mask of the pixels to replace, shape (N, H, W), from the ranks of the given number of pixels of each image."""
    count = (fraction * pixels.double()).round().clamp(min=1)[:, None, None]
    if order == "least":
        return (ranks >= pixels[:, None, None] - count) & (ranks < pixels[:, None, None])
    return ranks >= count if order == "insertion" else ranks < count
