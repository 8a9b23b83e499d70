"""Overall maps of faces in one call."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from captum_leam._engine.captum_adapter import baseline_tensors
from captum_leam._engine.checks import check_images
from captum_leam._engine.guards import with_gradients
from captum_leam._engine.memory import in_batches
from captum_leam._engine.outputs import as_output
from captum_leam._engine.types import Field
from captum_leam.errors import CaptumLeamError, InputTypeError
from captum_leam.leam import LEAM
from captum_leam.maps import default_blur, normalize_sum, overall_map
from captum_leam.objectives import direction, similarity
from captum_leam.rounds import occlusion_rounds, reordered, smooth
from captum_leam.suggest import LayerSuggestion, LayerSuggestions, find_field, suggest_layers

Preset = Literal["fast", "default", "best"]

# Options of LEAM.attribute that leave one map per image and layer, for a model of images alone.
OPTIONS = {"n_steps", "baselines", "path", "internal_batch_size", "grad_kwargs"}

# Steps of the path of layer maps, which are signed and of one layer each: for pairs and pages.
PRESETS: dict[str, int] = {"fast": 1, "default": 4, "best": 16}

# Steps of the path that the overall map starts with, and rounds of occlusion after it: what 1, 10 and 50 forward passes allow.
STARTS: dict[str, int] = {"fast": 1, "default": 3, "best": 3}
ROUNDS: dict[str, int] = {"fast": 0, "default": 5, "best": 45}


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

    Where it starts: layers are found by :func:`~captum_leam.suggest_layers` unless given; their maps are brought to the field the
    network reads, each divided by its sum, and averaged (:func:`~captum_leam.overall_map`). ``"fast"`` is that map of one pass,
    smoothed with a σ of 2 px per 112. The others start with a path of three steps, let the map occlude its own highest pixels and
    re-rank them (:mod:`captum_leam.rounds`), and add the two, the map once and the re-ranked one twice: the first says where this
    person's evidence arises, the second which pixels the score cannot do without; the sum is squared, as it is flatter than each. One
    ranking serves every fraction. What else was tried, and by how much it lost, is on the page :doc:`/best_form`.

    Args:
        model: returns embeddings (N, D), in evaluation mode; or scores (N,), as ``EmbeddingSimilarity`` does.
        x: faces (N, C, H, W) as the model takes them.
        preset: ``"fast"``: one forward and one backward pass; ``"default"``: 10 forward and 8 backward passes, 5 of each in rounds;
            ``"best"``: 50 and 48, 45 of each in rounds. Finding layers and field takes a few more
            passes on two images in each call. The probe of the model takes two forward and one backward pass on two images, once for each
            state of the model (:mod:`captum_leam._engine.probe`).
        layers: suggestions, or modules whose output is (N, C, h, w).
        field: (top, left, height, width) the network reads; found by default.
        reference: embeddings (D,), (1, D) or (N, D); each image's own by default, which shows embedding strength (there is one round
            fewer: embedding the images takes its forward pass).
        contrast: see :meth:`LEAM.attribute <captum_leam.LEAM.attribute>`.
        batch_size: images in one pass; fewer where they do not fit into memory, which is told.
        **options: ``n_steps``, ``baselines``, ``path``, ``internal_batch_size``, ``grad_kwargs`` of ``LEAM.attribute``, for the map at the
            start. ``baselines`` also replace what the rounds occlude; a blur by default.

    Returns:
        (N, H, W), float32 (float64 for a model in float64), not negative, every map sums to 1, on the device of the images.

    Raises:
        InputTypeError: for other options.
        CaptumLeamError: for an unknown preset, no images, and what ``LEAM.attribute`` refuses.

    Example:
        >>> from torchvision.models import resnet18
        >>> model = resnet18(num_classes=32).eval()
        >>> explain_faces(model, torch.rand(2, 3, 112, 112), "fast").shape
        torch.Size([2, 112, 112])
    """
    if preset not in ROUNDS:
        raise CaptumLeamError(f"preset is {preset!r}; needed is one of {', '.join(map(repr, ROUNDS))}.")
    check_images(x, "x")
    if not isinstance(batch_size, int) or batch_size < 1:
        raise CaptumLeamError(f"batch_size is {batch_size!r}; needed is a whole number of images, 1 or more.")
    unknown = sorted(set(options) - OPTIONS)
    if unknown:
        raise InputTypeError(
            f"explain_faces takes no {', '.join(unknown)}; it takes {', '.join(sorted(OPTIONS))}. For the rest, call LEAM and overall_map."
        )
    if layers is None:
        layers = suggest_layers(model, x)
    if isinstance(layers, LayerSuggestions):
        layers = layers.for_images(x)
        field = field or layers.field
        layers = layers.for_overall_map()
    if isinstance(layers, nn.Module):
        raise InputTypeError(f"layers is a {type(layers).__name__}; needed is a list of layers: layers=[that module].")
    suggested = [layer if isinstance(layer, LayerSuggestion) else None for layer in layers]
    modules = [layer.module if isinstance(layer, LayerSuggestion) else layer for layer in layers]
    leam = LEAM(model, modules, reshape=[s.reshape if s else None for s in suggested])
    place, rounds = field or find_field(model, x), ROUNDS[preset] - (bool(ROUNDS[preset]) and reference is None)
    leam.check_grids(x, place)
    options = {"n_steps": STARTS[preset], **options}

    def explain(part: slice) -> Tensor:
        towards = {"reference": _rows(reference, part, 2, len(x)), "contrast": _rows(contrast, part, 3, len(x))}
        start = _rows(options.get("baselines"), part, 4, len(x))
        return _explain(leam, x[part], place, rounds, towards, {**options, "baselines": start})

    return torch.cat(in_batches(explain, len(x), batch_size))


def _explain(
    leam: LEAM, x: Tensor, field: Field, rounds: int, towards: dict[str, Tensor | None], options: dict[str, Any]
) -> Tensor:
    """Maps (n, H, W) of one batch: the overall map at the start, then re-ranked in rounds of occlusion."""
    baselines = options["baselines"]
    if rounds and options["n_steps"] == 1:
        options = {**options, "baselines": None}  # without a path, only the rounds take them
    with with_gradients():
        maps = leam.attribute(x, **cast(dict[str, Any], {**towards, **options}))
        overall = overall_map(maps, (x.shape[2], x.shape[3]), field)
        start = smooth(overall)
        if not rounds:
            return normalize_sum(start)
        x = x.detach().clone()  # also of what was made under inference_mode
        replaced = default_blur(x) if baselines is None else baseline_tensors(baselines, (x,))[0].clone()
        heights = occlusion_rounds(_score(leam.forward_func, x, **towards), x, replaced, start, rounds)
        return _sharpened(overall + 2 * reordered(normalize_sum(start), heights))


def _sharpened(maps: Tensor) -> Tensor:
    """Squares that sum to 1: a sum of two maps is flatter than each, and spreads over what neither of them means."""
    peaks = maps.amax((1, 2), keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)
    return normalize_sum((maps / peaks).square())  # squares of values that sum to 1 would underflow in float16


def _score(
    model: Callable[..., Tensor], x: Tensor, reference: Tensor | None, contrast: Tensor | None
) -> Callable[[Tensor], Tensor]:
    """The similarity of occluded images, norm detached: towards the reference, or the embeddings of the images as they were."""
    if reference is None:
        with torch.no_grad():
            output = as_output(model(x.clone()), len(x))
        reference = output if output.ndim > 1 else None

    def score(seen: Tensor) -> Tensor:
        output = as_output(model(seen), len(seen))
        if output.ndim == 1:
            return output
        return similarity(output, direction(output, reference, contrast))

    return score


def _rows(vectors: Tensor | None, part: slice, per_image_ndim: int, batch: int) -> Tensor | None:
    """The rows of a per-image reference that belong to a part of the batch; a shared one stays as it is."""
    if not isinstance(vectors, Tensor) or vectors.ndim < per_image_ndim or len(vectors) == 1:
        return vectors
    if len(vectors) != batch:
        raise CaptumLeamError(f"{len(vectors)} rows for {batch} images; needed is one per image, or one for all.")
    return vectors[part]
