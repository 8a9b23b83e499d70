"""From faces and a model to a page: maps, regions, an occlusion check, tables and pictures in one folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from captum_leam._engine.guards import with_gradients
from captum_leam._engine.memory import in_batches
from captum_leam._engine.passes import LayerPasses
from captum_leam.explain import PRESETS
from captum_leam.faithfulness import OcclusionEvaluator, OcclusionResult
from captum_leam.leam import LEAM
from captum_leam.maps import overall_map, place_on_field, weigh
from captum_leam.objectives import direction, embed, leave_one_out_centroids, similarity, unit
from captum_leam.pairs import PairExplanation
from captum_leam.regions import FaceRegions, RegionScheme, region_report
from captum_leam.suggest import LayerSuggestion, LayerSuggestions

OWN_REFERENCE = "no reference: embedding-strength map"
FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.2)


@dataclass(frozen=True)
class Explanation:
    """Faces explained: everything that the page, the pictures and the tables show.

    Attributes:
        names: of the images, unique.
        images: (N, C, H, W) in [0, 1].
        overall: (N, H, W), overall maps.
        layers: layer name → (N, H, W), signed, placed on the image.
        regions: of :func:`captum_leam.regions.region_report`.
        occlusion: drops of the overall map, of Grad-CAM and of random pixels.
        label: what the maps show, in words.
        title: of the section.
        text: under the title.
        settings: how it was made.
        pair: of two faces, with the decision and what speaks against the match.
        parts: labels of the regions, to draw their outlines; None if these are not shown.
        photographs: RGB pictures of the maps on the photographs, None for images without one.
        notes: what the reader must know: files that were left out, warnings.
    """

    names: list[str]
    images: Tensor
    overall: Tensor
    layers: dict[str, Tensor]
    regions: pd.DataFrame
    occlusion: OcclusionResult
    label: str
    title: str = "Faces"
    text: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    pair: PairExplanation | None = None
    parts: FaceRegions | None = None
    photographs: tuple[NDArray[np.uint8] | None, ...] = ()
    notes: tuple[str, ...] = ()


def explain_images(
    model: nn.Module,
    images: Tensor,
    names: Sequence[str],
    layers: LayerSuggestions,
    labels: Tensor,
    scheme: RegionScheme,
    *,
    references: Tensor | None = None,
    maps: Mapping[str, Tensor] | None = None,
    landmarks: ArrayLike | None = None,
    preset: str = "default",
    fraction: float = 0.01,
    fill: str = "blur",
    seed: int = 0,
    batch_size: int = 16,
    progress: bool = False,
    title: str = "Faces",
    text: str = "",
) -> Explanation:
    """Explain faces, report their regions, and check the maps by occlusion beside Grad-CAM and random pixels.

    Args:
        model: returns embeddings (N, D), in evaluation mode.
        images: (N, C, H, W) in [0, 1].
        names: of the images.
        layers: all of them are explained and averaged.
        labels: region labels, (N, H, W) or (H, W).
        scheme: names of the labels.
        references: (N, D), one per image, from other images; None: each image's own, for maps and drops.
        maps: of the layers towards these references, where they are known already, as :func:`captum_leam.explain_pair` has them.
        landmarks: of :func:`captum_leam.regions.region_report`.
        preset: ``"fast"``: one pass; ``"default"`` and ``"best"``: a path of 4 and of 16 steps. The page shows the map of each layer
            and their average, so without the rounds of occlusion of :func:`captum_leam.explain_faces`.
        fraction: of the critical pixels.
        fill: of the occlusion.
        seed: of ties and random pixels.
        batch_size: images in one pass.
        progress: show a progress bar.
        title: of the section on the page.
        text: under the title.
    """
    own = embed(model, images, batch_size)
    towards = unit(own, "embeddings") if references is None else references
    maps = dict(maps) if maps else _layer_maps(model, images, layers, towards, PRESETS[preset], batch_size)
    overall = overall_map(list(maps.values()), layers.image_size)
    cams = _grad_cam(model, images, layers, towards, "detach" if references is None else "differentiate", batch_size)
    evaluator = OcclusionEvaluator(
        model,
        FRACTIONS,
        fills=(fill,),
        controls=("random pixels",),
        seed=seed,
        batch_size=batch_size,
        progress=progress,
    )
    methods = {"LEAM, overall map": overall, f"Grad-CAM, {layers[-1].name}": cams}
    settings = {
        "preset": preset,
        "steps of the path": PRESETS[preset],
        "layers": ", ".join(maps),
        "fill": fill,
        "fraction": fraction,
        "seed": seed,
    }
    place = {"field (top, left, height, width)": layers.field, "critical pixels": f"top {fraction:.1%} of the crop"}
    return Explanation(
        list(names),
        images,
        overall,
        maps,
        region_report(overall, labels, scheme, fraction=fraction, landmarks=landmarks, seed=seed),
        evaluator.evaluate(images, methods, towards),
        "Reference: the person's other images." if references is not None else OWN_REFERENCE,
        title,
        text,
        {**settings, **place},
    )


def references_from(model: nn.Module, images: Tensor) -> Tensor | None:
    """For every image of one person, the centroid of the others; None for one image only.

    Example:
        >>> references_from(nn.Flatten(), torch.rand(3, 1, 2, 2)).shape
        torch.Size([3, 4])
    """
    if len(images) < 2:
        return None
    return leave_one_out_centroids(embed(model, images), [0] * len(images))


def _layer_maps(
    model: nn.Module, images: Tensor, layers: LayerSuggestions, references: Tensor, n_steps: int, batch_size: int
) -> dict[str, Tensor]:
    leam = LEAM(model, layers)

    def explain(rows: slice) -> list[Tensor]:
        return cast(list[Tensor], leam.attribute(images[rows], reference=references[rows], n_steps=n_steps))

    found = in_batches(explain, len(images), batch_size)
    joined = [torch.cat(of_layer) for of_layer in zip(*found, strict=True)]
    placed = [place_on_field(m, layers.image_size, layers.field) for m in joined]
    return dict(zip([layer.name for layer in layers], placed, strict=True))


def _grad_cam(
    model: nn.Module, images: Tensor, layers: LayerSuggestions, references: Tensor, norm: Any, batch_size: int
) -> Tensor:
    """The map of Captum's LayerGradCam of the same objective, at the last of the layers: also of tokens, and whatever other threads run."""
    layer: LayerSuggestion = layers[-1]
    passes = LayerPasses(model, [layer.module], reshapes=[layer.reshape], image_size=layers.image_size)

    def cam(rows: slice) -> Tensor:
        with with_gradients():
            x, towards = images[rows].detach().clone(), references[rows]
            result = passes.gradients((x,), lambda f: similarity(f, direction(f, towards), norm))
        return weigh(result.gradients[0][0].detach(), result.activations[0][0].detach(), "channel")

    return place_on_field(torch.cat(in_batches(cam, len(images), batch_size)), layers.image_size, layers.field)
