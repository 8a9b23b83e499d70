"""Overall maps of faces in one call."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from captum_leam.leam import LEAM
from captum_leam.maps import Field, overall_map
from captum_leam.suggest import LayerSuggestion, LayerSuggestions, find_field, suggest_layers

Preset = Literal["fast", "default", "best"]

# Options of LEAM.attribute that leave one map per image and layer, for a model of images alone.
OPTIONS = {"n_steps", "baselines", "path", "internal_batch_size", "grad_kwargs"}

# Steps of the path: no path; the measured form; four times as many steps.
PRESETS: dict[str, int] = {"fast": 1, "default": 4, "best": 16}


def explain_faces(
    model: nn.Module,
    x: Tensor,
    preset: Preset = "default",
    *,
    layers: LayerSuggestions | Sequence[LayerSuggestion | nn.Module] | None = None,
    field: Field | None = None,
    reference: Tensor | None = None,
    contrast: Tensor | None = None,
    batch_size: int = 32,
    **options: Any,
) -> Tensor:
    """Overall LEAM maps of aligned faces, at the size of the images.

    Layers are found by :func:`~captum_leam.suggest_layers` unless given; their maps are brought to the field the
    network reads, each divided by its sum, and averaged (:func:`~captum_leam.overall_map`).

    Args:
        model: returns embeddings (N, D), in evaluation mode.
        x: faces (N, C, H, W) as the model takes them.
        preset: ``"fast"`` one pass, ``"default"`` a path of 4 steps, ``"best"`` of 16.
        layers: suggestions, or modules whose output is (N, C, h, w).
        field: (top, left, height, width) the network reads; found by default.
        reference: embeddings (D,), (1, D) or (N, D); each image's own by default, which shows embedding strength.
        contrast: see :meth:`LEAM.attribute <captum_leam.LEAM.attribute>`.
        batch_size: images in one pass.
        **options: ``n_steps``, ``baselines``, ``path``, ``internal_batch_size``, ``grad_kwargs`` of ``LEAM.attribute``.

    Returns:
        (N, H, W), not negative, every map sums to 1, on the device of the images.

    Raises:
        TypeError: for other options.
        ValueError: for an unknown preset, no images, and what ``LEAM.attribute`` refuses.

    Example:
        >>> from torchvision.models import resnet18
        >>> model = resnet18(num_classes=32).eval()
        >>> explain_faces(model, torch.rand(2, 3, 112, 112), "fast").shape
        torch.Size([2, 112, 112])
    """
    if preset not in PRESETS:
        raise ValueError(f"preset is {preset!r}; needed is one of {', '.join(map(repr, PRESETS))}.")
    if x.ndim != 4 or not len(x):
        raise ValueError(f"x has shape {tuple(x.shape)}; needed are faces (N, C, H, W), one or more.")
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size is {batch_size!r}; needed is a whole number of images, 1 or more.")
    unknown = sorted(set(options) - OPTIONS)
    if unknown:
        raise TypeError(
            f"explain_faces takes no {', '.join(unknown)}; it takes {', '.join(sorted(OPTIONS))}. For the rest, call LEAM and overall_map."
        )
    if layers is None:
        layers = suggest_layers(model, x)
    if isinstance(layers, LayerSuggestions):
        field = field or layers.field
        layers = layers.for_overall_map()
    if isinstance(layers, nn.Module):
        raise TypeError(f"layers is a {type(layers).__name__}; needed is a list of layers: layers=[that module].")
    suggested = [layer if isinstance(layer, LayerSuggestion) else None for layer in layers]
    modules = [layer.module if isinstance(layer, LayerSuggestion) else layer for layer in layers]
    leam = LEAM(model, modules, reshape=[s.reshape if s else None for s in suggested])
    options = {"n_steps": PRESETS[preset], **options}
    size, place = (x.shape[2], x.shape[3]), field or find_field(model, x)
    overall = []
    for i in range(0, len(x), batch_size):
        part = slice(i, i + batch_size)
        per_image = {"reference": _rows(reference, part, 2, len(x)), "contrast": _rows(contrast, part, 3, len(x))}
        start = _rows(options.get("baselines"), part, 4, len(x))
        maps = leam.attribute(x[part], **per_image, **{**options, "baselines": start})
        overall.append(overall_map(maps, size, place))
    return torch.cat(overall)


def _rows(vectors: Tensor | None, part: slice, per_image_ndim: int, batch: int) -> Tensor | None:
    """The rows of a per-image reference that belong to a part of the batch; a shared one stays as it is."""
    if not isinstance(vectors, Tensor) or vectors.ndim < per_image_ndim or len(vectors) == 1:
        return vectors
    if len(vectors) != batch:
        raise ValueError(f"{len(vectors)} rows for {batch} images; needed is one per image, or one for all.")
    return vectors[part]
