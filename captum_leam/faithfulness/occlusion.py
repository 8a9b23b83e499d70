r"""Occlusion: how far the similarity to a reference falls when the pixels that a map names are replaced.

.. math:: \mathrm{drop} = s(x, r) - s(x_\mathrm{occluded}, r)

absolute, never divided by the score; :math:`s` is the cosine and the reference :math:`r` comes from *other* images.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from captum_leam.faithfulness.fills import Fill, as_fill
from captum_leam.maps import as_maps, rank_pixels
from captum_leam.objectives import as_embeddings, leave_one_out_centroids, match_rows, unit

Embed = Callable[[Tensor], Tensor]


def occlude(images: Tensor, masks: Tensor, fill: str | Fill = "blur") -> Tensor:
    """Replace the masked pixels, all channels of them, and nothing else.

    Args:
        images: (N, C, H, W).
        masks: boolean (N, H, W); True is replaced.
        fill: ``"zero"``, ``"mean"``, ``"blur"``, or a function of the images.

    Returns:
        The shape of the images.

    Raises:
        ValueError: for masks of another size, or a fill that changes the shape.

    Example:
        >>> mask = torch.tensor([[[True, False]]])
        >>> occlude(torch.full((1, 1, 1, 2), 0.5), mask, "zero").tolist()
        [[[[0.0, 0.5]]]]
    """
    if masks.shape != (len(images), *images.shape[2:]) or masks.dtype != torch.bool:
        raise ValueError(
            f"masks have shape {tuple(masks.shape)} and {masks.dtype}, the images {tuple(images.shape)}; needed is boolean (N, H, W)."
        )
    filled = as_fill(fill)(images)
    if filled.shape != images.shape:
        raise ValueError(
            f"the fill made {tuple(filled.shape)} of images {tuple(images.shape)}; needed is the same shape."
        )
    return torch.where(masks[:, None].to(images.device), filled, images)


def uniform_random(images: Tensor, *, seed: int = 0) -> Tensor:
    """The control map of uniform random pixels, (N, H, W): what a map must beat to say anything.

    Example:
        >>> uniform_random(torch.zeros(2, 3, 8, 8)).shape
        torch.Size([2, 8, 8])
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(len(images), *images.shape[2:], generator=generator).to(images.device)


@dataclass(frozen=True)
class OcclusionResult:
    """Drops of every image, method, model, fraction and fill.

    Attributes:
        drops: tidy table: image, person, method, model, fraction, fill, drop.
        settings: how it was made.
    """

    drops: pd.DataFrame
    settings: Mapping[str, Any] = field(default_factory=dict)

    def to_frame(self) -> pd.DataFrame:
        """The tidy table, one row per image, method, model, fraction and fill."""
        return self.drops.copy()

    def summary(self) -> pd.DataFrame:
        """Mean drop per method, model, fill and fraction."""
        keys = ["method", "model", "fill", "fraction"]
        return self.drops.groupby(keys, sort=False)["drop"].mean().reset_index()

    def __repr__(self) -> str:
        table = self.summary().pivot_table(
            index=["method", "model"], columns=["fill", "fraction"], values="drop", sort=False
        )
        return f"Mean drop of the cosine, {self.drops['image'].nunique()} images\n{table.round(4).to_string()}"


class OcclusionEvaluator:
    """Occlude what maps name, on one or several models, and compare with random pixels.

    Args:
        models: name → embedding function, images (N, C, H, W) → embeddings (N, D); a single one is named "model".
        fractions: of the crop that is occluded, most relevant pixels first.
        fills: names or functions, see :mod:`captum_leam.faithfulness.fills`.
        seed: of ties and of the random control.
        batch_size: images in one pass.
        progress: show a progress bar.

    Raises:
        ValueError: for no model, no fraction, or fractions outside (0, 1].

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 8)).eval()
        >>> faces, people = torch.rand(4, 3, 8, 8), ["ann", "ann", "bob", "bob"]
        >>> result = OcclusionEvaluator(model, fractions=(0.1,)).evaluate(faces, {"noise": torch.rand(4, 8, 8)}, labels=people)
        >>> result.to_frame().columns.tolist()
        ['image', 'person', 'method', 'model', 'fraction', 'fill', 'drop']
        >>> sorted(result.summary()["method"])
        ['noise', 'random pixels']
    """

    def __init__(
        self,
        models: Embed | Mapping[str, Embed],
        fractions: Sequence[float] = (0.01, 0.02, 0.05, 0.1, 0.2),
        *,
        fills: Sequence[str | Fill] = ("blur",),
        seed: int = 0,
        batch_size: int = 64,
        progress: bool = False,
    ) -> None:
        self.models = dict(models) if isinstance(models, Mapping) else {"model": models}
        self.fractions = tuple(fractions)
        self.fills = {getattr(fill, "__name__", str(fill)): as_fill(fill) for fill in fills}
        self.seed = seed
        self.batch_size = batch_size
        self.progress = progress
        if not self.models or not self.fractions or not self.fills:
            raise ValueError("models, fractions and fills each need one entry or more.")
        wrong = [f for f in self.fractions if not 0 < f <= 1]
        if wrong:
            raise ValueError(f"fractions {wrong} are outside (0, 1]; 0.05 is 5 % of the pixels.")

    def evaluate(
        self,
        images: Tensor,
        maps: Tensor | Mapping[str, Tensor],
        references: Mapping[str, Tensor] | Tensor | None = None,
        labels: Sequence[Any] | None = None,
    ) -> OcclusionResult:
        """Occlude the images where each map is highest.

        Args:
            images: (N, C, H, W).
            maps: (N, H, W) or (N, 1, H, W), at the size of the images; or name → maps.
            references: per model, (D,), (1, D) or (N, D), from other images than the occluded; a bare tensor for one model.
            labels: the person of each image; references are then leave-one-out centroids.

        Returns:
            :class:`OcclusionResult`, with the control "random pixels" added.

        Raises:
            ValueError: for maps of another size or NaN, or neither references nor labels.
        """
        methods = {
            **(maps if isinstance(maps, Mapping) else {"map": maps}),
            "random pixels": uniform_random(images, seed=self.seed),
        }
        ranks = {name: self._ranks(name, m, images) for name, m in methods.items()}
        clean = {name: self._embed(name, images) for name in self.models}
        towards = {name: self._references(name, clean[name], references, labels) for name in self.models}
        before = {name: self._cosine(clean[name], towards[name]) for name in self.models}
        people = [None] * len(images) if labels is None else list(labels)
        tables = []
        jobs = [(fill, f, method) for fill in self.fills for f in self.fractions for method in ranks]
        for fill, fraction, method in tqdm(jobs, disable=not self.progress, desc="occluding"):
            after = self._occluded(
                images, ranks[method] < max(1, round(fraction * images[0, 0].numel())), self.fills[fill]
            )
            for model in self.models:
                drop = before[model] - self._cosine(after[model], towards[model])
                columns = {"image": range(len(images)), "person": people, "method": method, "model": model}
                tables.append(pd.DataFrame({**columns, "fraction": fraction, "fill": fill, "drop": drop.cpu().numpy()}))
        return OcclusionResult(pd.concat(tables, ignore_index=True), self._settings())

    def _settings(self) -> dict[str, Any]:
        return {"fractions": self.fractions, "fills": list(self.fills), "models": list(self.models), "seed": self.seed}

    def _ranks(self, name: str, maps: Tensor, images: Tensor) -> Tensor:
        maps = as_maps(maps)
        if maps.shape != (len(images), *images.shape[2:]):
            raise ValueError(
                f"maps {name!r} have shape {tuple(maps.shape)}, the images {tuple(images.shape)}; bring them to image size with "
                "captum_leam.maps.place_on_field."
            )
        return rank_pixels(maps, seed=self.seed)

    def _embed(self, name: str, images: Tensor) -> Tensor:
        with torch.no_grad():
            parts = [as_embeddings(self.models[name](part), len(part)) for part in torch.split(images, self.batch_size)]
        return torch.cat(parts).double()

    def _occluded(self, images: Tensor, masks: Tensor, fill: Fill) -> dict[str, Tensor]:
        """Embeddings of the occluded images by every model; each part is occluded once for all models."""
        embeddings: dict[str, list[Tensor]] = {name: [] for name in self.models}
        with torch.no_grad():
            for part, mask in zip(
                torch.split(images, self.batch_size), torch.split(masks, self.batch_size), strict=True
            ):
                occluded = occlude(part, mask, fill)
                for name, model in self.models.items():
                    embeddings[name].append(as_embeddings(model(occluded), len(part)))
        return {name: torch.cat(parts).double() for name, parts in embeddings.items()}

    def _references(
        self, name: str, clean: Tensor, references: Mapping[str, Tensor] | Tensor | None, labels: Sequence[Any] | None
    ) -> Tensor:
        if references is None:
            if labels is None:
                raise ValueError(
                    "give references, or labels (the person of each image) to make leave-one-out references from."
                )
            return leave_one_out_centroids(clean, labels)
        if isinstance(references, Tensor) and len(self.models) > 1:
            raise ValueError(
                f"references are one tensor for {len(self.models)} models; needed is a mapping model → references."
            )
        given = references if isinstance(references, Tensor) else references.get(name)
        if given is None:
            raise ValueError(f"references lack the model {name!r}.")
        return unit(match_rows(given, clean, f"references of {name!r}"), f"references of {name!r}")

    @staticmethod
    def _cosine(embeddings: Tensor, towards: Tensor) -> Tensor:
        return (unit(embeddings, "embeddings") * towards).sum(1)
