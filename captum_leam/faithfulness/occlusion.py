r"""Occlusion: how far the similarity to a reference falls when the pixels that a map names are replaced.

.. math:: \mathrm{drop} = s(x, r) - s(x_\mathrm{occluded}, r)

absolute, never divided by the score; :math:`s` is the cosine and the reference :math:`r` comes from *other* images.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from captum_leam._engine.checks import deferred_checks, rows_from
from captum_leam._engine.modes import as_tensor
from captum_leam.controls import CONTROLS, OWN_CONTROLS, Control, Scene, central_ellipse
from captum_leam.errors import CaptumLeamError
from captum_leam.faithfulness.fills import Fill, as_fill
from captum_leam.faithfulness.occlusion_result import OcclusionResult
from captum_leam.maps import as_maps, gaussian_blur, rank_pixels
from captum_leam.objectives import embed, leave_one_out_centroids, match_rows, unit
from captum_leam.stats.labels import people_of

Embed = Callable[[Tensor], Tensor]

ORDERS = ("most", "least", "insertion")
COLUMNS = ["image", "person", "explained", "method", "control", "model", "fill", "order", "fraction", "drop", "changed"]


def occlude(images: Tensor, masks: Tensor, fill: str | Fill | Callable[..., Tensor] = "blur") -> Tensor:
    """Replace the masked pixels, all channels of them, and nothing else.

    Args:
        images: (N, C, H, W).
        masks: boolean (N, H, W); True is replaced.
        fill: ``"zero"``, ``"mean"``, ``"blur"``, ``"noisy linear"``, ``"shuffle"``, or a function.

    Returns:
        The shape of the images.

    Raises:
        CaptumLeamError: for masks of another size, or a fill that changes the shape.

    Example:
        >>> mask = torch.tensor([[[True, False]]])
        >>> occlude(torch.full((1, 1, 1, 2), 0.5), mask, "zero").tolist()
        [[[[0.0, 0.5]]]]
    """
    if masks.shape != (len(images), *images.shape[2:]) or masks.dtype != torch.bool:
        raise CaptumLeamError(
            f"masks have shape {tuple(masks.shape)} and {masks.dtype}, the images {tuple(images.shape)}; needed is boolean (N, H, W)."
        )
    masks = masks.to(images.device)
    return torch.where(masks[:, None], as_fill(fill)(images, masks), images)


class OcclusionEvaluator:
    """Occlude what maps name, on one or several models, beside controls that could fool a reader.

    The number of forward passes is images × models × (1 + fractions × fills × orders × (methods + controls)); equal maps
    are occluded once.

    Args:
        models: name → embedding function, images (N, C, H, W) → embeddings (N, D): a module, or any callable without
            gradients; a single one is named "model".
        fractions: of the crop (or face) that is occluded.
        fills: names or functions, see :mod:`captum_leam.faithfulness.fills`.
        controls: names of :data:`~captum_leam.controls.CONTROLS`, or name → function of a
            :class:`~captum_leam.controls.Scene`. All by default; "other people" is left out with a
            warning where there are no labels.
        orders: ``"most"`` relevant pixels first, ``"least"`` first, or ``"insertion"``: the pixels kept on an image that
            is filled everywhere else.
        of: fractions are of the ``"crop"`` or of the ``"face"``, whose pixels alone are then ranked.
        smooth: Gaussian σ in pixels that every map and control is blurred with before ranking: blurrier maps score
            better in removal games (2304.13836), so compare methods at the same blur too.
        seed: of ties and of the controls.
        batch_size: images in one pass.
        progress: show a progress bar.

    Raises:
        CaptumLeamError: for no model, no fraction, unknown names, or fractions outside (0, 1].

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 8)).eval()
        >>> faces, people = torch.rand(4, 3, 8, 8), ["ann", "ann", "bob", "bob"]
        >>> evaluator = OcclusionEvaluator(model, fractions=(0.1,), controls=("random pixels", "moved"))
        >>> result = evaluator.evaluate(faces, {"noise": torch.rand(4, 8, 8)}, labels=people)
        >>> result.summary()[["method", "control"]].values.tolist()
        [['noise', ''], ['noise', 'moved'], ['', 'random pixels']]
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

    def _check(self) -> None:
        if not self.models or not self.fractions or not self.fills or not self.orders:
            raise CaptumLeamError("models, fractions, fills and orders each need one entry or more.")
        names = [fill.name for fill in self.fills]
        if len(set(names)) < len(names):
            raise CaptumLeamError(
                f"fills are named {names}: two with one name could not be told apart. Name them: Fill('grey', lambda images, masks: ...)."
            )
        wrong = [f for f in self.fractions if not 0 < f <= 1]
        if wrong:
            raise CaptumLeamError(f"fractions {wrong} are outside (0, 1]; 0.05 is 5 % of the pixels.")
        if not set(self.orders) <= set(ORDERS):
            raise CaptumLeamError(f"orders are {self.orders}; needed are some of {ORDERS}.")
        if self.of not in ("crop", "face"):
            raise CaptumLeamError(f"of is {self.of!r}; needed is 'crop' or 'face'.")

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
        """Occlude the images where each map is highest.

        Args:
            images: (N, C, H, W).
            maps: (N, H, W) or (N, 1, H, W), at the size of the images; or method → maps. Arrays will do.
            references: per model, (D,), (1, D) or (N, D), from other images than the occluded; a bare tensor for one model.
            labels: the person of each image; references are then leave-one-out centroids.
            face: boolean (N, H, W) or (H, W), where the face is; a central ellipse by default.
            explained: the model that the maps explain, for the transfer matrix.

        Returns:
            :class:`~captum_leam.faithfulness.occlusion_result.OcclusionResult`.

        Raises:
            CaptumLeamError: for maps of another size or NaN, or neither references nor labels.
        """
        if references is None and labels is None:
            raise CaptumLeamError(
                "give references, or labels (the person of each image) to make leave-one-out references from."
            )
        if images.ndim != 4 or not len(images):
            raise CaptumLeamError(
                f"images have shape {tuple(images.shape)}; needed is (N, C, H, W), one image or more."
            )
        people = _people(labels, len(images))
        scene = Scene(images, _face(face, images), people if labels is not None else None, seed=self.seed)
        methods = {name: self._map(name, m, images) for name, m in _as_mapping(maps).items()}
        clean = {name: self._embed(name, images) for name in self.models}
        towards = {name: self._references(name, clean[name], references, labels) for name in self.models}
        static = {fill.name: fill(images) for fill in self.fills if not fill.uses_masks}
        done: dict[int, pd.DataFrame] = {}  # what is equal is occluded once
        tables = []
        bar = tqdm(total=self._count(methods), disable=not self.progress, desc="occluding", unit="set")
        for method, control, shown in self._maps(methods, scene):
            key = hash(shown.detach().cpu().numpy().tobytes())
            if key not in done:
                ranks = self._ranks(shown, scene.face)
                done[key] = self._drops(images, ranks, scene.face, static, clean, towards)
            tables.append(done[key].assign(method=method, control=control))
            bar.update()
        bar.close()
        who = pd.DataFrame({"image": range(len(images)), "person": people, "explained": explained})
        table = pd.concat(tables, ignore_index=True).merge(who, on="image", how="left")
        return OcclusionResult(table[COLUMNS], {**self._settings(explained), "labelled": labels is not None})

    def _drops(
        self,
        images: Tensor,
        ranks: Tensor,
        face: Tensor,
        static: Mapping[str, Tensor],
        clean: Mapping[str, Tensor],
        towards: Mapping[str, Tensor],
    ) -> pd.DataFrame:
        """Drops of one ranked map: every fill, fraction, order and model."""
        before = {name: _cosine(clean[name], towards[name]) for name in self.models}
        tables = []
        for fill, fraction, order in ((f, p, o) for f in self.fills for p in self.fractions for o in self.orders):
            masks = self._masks(ranks, fraction, order, face)
            after, changed = self._occluded(images, masks, fill, static.get(fill.name))
            for model in self.models:
                drop = (before[model] - _cosine(after[model], towards[model])).cpu().numpy()
                cell = {"model": model, "fill": fill.name, "order": order, "fraction": fraction}
                tables.append(pd.DataFrame({"image": range(len(images)), **cell, "drop": drop, "changed": changed}))
        return pd.concat(tables, ignore_index=True)

    # -- maps and controls ---------------------------------------------------------------------------------

    def _map(self, name: str, maps: Tensor, images: Tensor) -> Tensor:
        maps = as_maps(maps).to(images.device)
        if maps.shape != (len(images), *images.shape[2:]):
            raise CaptumLeamError(
                f"maps {name!r} have shape {tuple(maps.shape)}, the images {tuple(images.shape)}; bring them to image size with "
                "captum_leam.maps.place_on_field."
            )
        return maps

    def _maps(self, methods: Mapping[str, Tensor], scene: Scene) -> Iterator[tuple[str, str, Tensor]]:
        """Method, control and maps, one after the other: memory does not grow with their number."""
        own = {name: c for name, c in self._possible(scene).items() if name in OWN_CONTROLS}
        for method, maps in methods.items():
            yield method, "", maps
            of_method = replace(scene, maps=maps)
            for name, control in own.items():
                yield method, name, self._map(name, control(of_method), scene.images)
        for name, control in self.controls.items():
            if name not in OWN_CONTROLS:
                yield "", name, self._map(name, control(scene), scene.images)

    def _possible(self, scene: Scene) -> Mapping[str, Control]:
        if "other people" not in self.controls or (scene.people is not None and len(set(scene.people)) > 1):
            return self.controls
        warnings.warn('the control "other people" is left out: it needs labels of two people or more.', stacklevel=4)
        return {name: c for name, c in self.controls.items() if name != "other people"}

    def _count(self, methods: Mapping[str, Tensor]) -> int:
        own = sum(name in OWN_CONTROLS for name in self.controls)
        return len(methods) * (1 + own) + len(self.controls) - own

    def _ranks(self, maps: Tensor, face: Tensor) -> Tensor:
        ranks = rank_pixels(gaussian_blur(maps, self.smooth), seed=self.seed)
        if self.of == "face":
            ranks = rank_pixels((ranks + ranks[0].numel() * ~face.to(ranks.device)).neg().double())
        return ranks

    def _masks(self, ranks: Tensor, fraction: float, order: str, face: Tensor) -> Tensor:
        """The pixels to replace."""
        pixels = (
            face.flatten(1).sum(1).to(ranks.device)
            if self.of == "face"
            else torch.full((len(ranks),), ranks[0].numel(), dtype=torch.int64, device=ranks.device)
        )
        count = (fraction * pixels.double()).round().clamp(min=1)[:, None, None]
        if order == "least":
            return (ranks >= pixels[:, None, None] - count) & (ranks < pixels[:, None, None])
        return ranks >= count if order == "insertion" else ranks < count

    # -- models --------------------------------------------------------------------------------------------

    def _embed(self, name: str, images: Tensor) -> Tensor:
        return embed(self.models[name], images, self.batch_size).double()

    def _occluded(
        self, images: Tensor, masks: Tensor, fill: Fill, filled: Tensor | None
    ) -> tuple[dict[str, Tensor], Any]:
        """Embeddings of the occluded images by every model, and the number of pixels really changed, per image."""
        embeddings: dict[str, list[Tensor]] = {name: [] for name in self.models}
        changed = []
        with deferred_checks():
            for i in range(0, len(images), self.batch_size):
                part = slice(i, i + self.batch_size)
                x, mask = images[part], masks[part]
                occluded = torch.where(mask[:, None], fill(x, mask) if filled is None else filled[part], x)
                changed.append((occluded != x).any(1).flatten(1).sum(1))
                for name, model in self.models.items():
                    with rows_from(i):
                        embeddings[name].append(embed(model, occluded, self.batch_size))
        return {name: torch.cat(parts).double() for name, parts in embeddings.items()}, torch.cat(changed).cpu().numpy()

    def _references(
        self, name: str, clean: Tensor, references: Mapping[str, Tensor] | Tensor | None, labels: Sequence[Any] | None
    ) -> Tensor:
        if references is None:
            return leave_one_out_centroids(clean, _people(labels, len(clean)))
        if isinstance(references, Tensor) and len(self.models) > 1:
            raise CaptumLeamError(
                f"references are one tensor for {len(self.models)} models; needed is a mapping model → references."
            )
        given = references if isinstance(references, Tensor) else references.get(name)
        if given is None:
            raise CaptumLeamError(f"references lack the model {name!r}.")
        return unit(match_rows(given, clean, f"references of {name!r}"), f"references of {name!r}")

    def _settings(self, explained: str) -> dict[str, Any]:
        return {
            "models": list(self.models),
            "explained": explained,
            "fractions": self.fractions,
            "fills": [fill.name for fill in self.fills],
            "controls": list(self.controls),
            "orders": self.orders,
            "of": self.of,
            "smooth": self.smooth,
            "seed": self.seed,
        }


# -- small functions -----------------------------------------------------------------------------------


def _control(name: str) -> Control:
    if name not in CONTROLS:
        raise CaptumLeamError(
            f"control is {name!r}; needed are some of {', '.join(map(repr, CONTROLS))}, or a mapping name → function."
        )
    return CONTROLS[name]


def _as_mapping(maps: Any) -> Mapping[str, Tensor]:
    methods = maps if isinstance(maps, Mapping) else {"map": maps}
    if not methods:
        raise CaptumLeamError("maps is empty; needed is one method or more.")
    named = {str(name): as_tensor(m) for name, m in methods.items()}
    if len(named) < len(methods):
        raise CaptumLeamError(f"methods {list(methods)} are not told apart by their names.")
    return named


def _people(labels: Sequence[Any] | None, images: int) -> list[Any]:
    if labels is None:
        return list(range(images))  # every image a person of its own
    return people_of(labels, images)


def _face(face: Tensor | None, images: Tensor) -> Tensor:
    size = images.shape[2:]
    given = central_ellipse((size[0], size[1])) if face is None else as_tensor(face)
    if given.shape not in (size, (len(images), *size)) or given.dtype != torch.bool:
        raise CaptumLeamError(
            f"face has shape {tuple(given.shape)} and {given.dtype}; needed is boolean {tuple(size)} or {(len(images), *size)}."
        )
    face = given.to(images.device).expand(len(images), *size)
    if not bool(face.flatten(1).any(1).all()):
        raise CaptumLeamError("face is empty for some images.")
    return face


def _cosine(embeddings: Tensor, towards: Tensor) -> Tensor:
    return (unit(embeddings, "embeddings") * towards).sum(1)
