"""Suggestion of layers to explain, one for every spatial size, found by running the model once."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from captum_leam._engine.arithmetic import differentiate, normal
from captum_leam._engine.checks import check_images, check_tensor, rows_of_caller
from captum_leam._engine.guards import enable_gradients, force_eager, raise_if_unexplainable
from captum_leam._engine.layer_probe import Displacement, check_layers
from captum_leam._engine.outputs import as_output, float16_hint
from captum_leam._engine.passes import LayerPasses
from captum_leam._engine.recording import ValueRecorder, forward_hooks
from captum_leam._engine.shapes import Reshape, looks_channels_last, rows_message
from captum_leam._engine.types import Field
from captum_leam.errors import CaptumLeamError, InputTypeError
from captum_leam.layers import (
    MAX_PREFIX_TOKENS,
    channels_last_to_first,
    get_layer,
    tokens_to_map,
)
from captum_leam.layers import LayerSuggestion as LayerSuggestion
from captum_leam.layers import LayerSuggestions as LayerSuggestions
from captum_leam.maps import gaussian_blur

Layers = str | nn.Module | LayerSuggestion | LayerSuggestions | Sequence[str | nn.Module | LayerSuggestion] | None
"""Layers to explain: a name, module or suggestion, a list of these, all suggestions, or None for the layers of the overall map."""


def suggest_layers(
    model: nn.Module, faces: Tensor, *, best_of: Callable[[LayerSuggestions], Sequence[str]] | None = None
) -> LayerSuggestions:
    """Suggest layers of a model that are worth explaining, one for every spatial size.

    For each size of feature maps, the last layer of that size is suggested, provided that everything that reaches the embedding passes
    through it. Use it to choose layers for :class:`~captum_leam.LEAM` without reading the code of the model. Layers of transformers get the
    ``reshape`` that LEAM needs.

    Args:
        model: Model in evaluation mode, from images (N, C, H, W) to embeddings (N, D) or scores (N,).
        faces: Images (N, C, H, W) as the model takes them. The first two are used.
        best_of: Function from the suggestions to the names of those to return, the best first, for example ``lambda layers:
            rank_layers(model, images, labels, layers=layers).names`` with :func:`captum_leam.faithfulness.rank_layers`. Default: None, all
            suggestions from fine to coarse.

    Returns:
        :class:`~captum_leam.LayerSuggestions`: the layers from fine to coarse, with the part of the images that the model reads.

    Raises:
        InputTypeError: If the model is not an eager ``nn.Module``.
        CaptumLeamError: If no layer qualifies, or if the model is in training mode.

    Note:
        Layers inside blocks that change the size of the map, and layers before the first weights, are not suggested. Pass them to LEAM by
        name with :func:`~captum_leam.layers.get_layer`.

    See Also:
        * :func:`captum_leam.faithfulness.rank_layers`: Ranking of the suggested layers by faithfulness.
        * :class:`~captum_leam.LEAM`: Maps of the suggested layers.

    Example:
        >>> from torchvision.models import resnet18
        >>> _ = torch.manual_seed(0)
        >>> layers = suggest_layers(resnet18().eval(), torch.rand(2, 3, 112, 112))
        >>> print(layers.to_frame()[["name", "channels", "height", "width", "cell"]].to_string(index=False))
          name  channels  height  width  cell
          relu        64      56     56   2.0
        layer1        64      28     28   4.0
        layer2       128      14     14   8.0
        layer3       256       7      7  16.0
        layer4       512       4      4  28.0
    """
    raise_if_unexplainable(model, [])
    if not isinstance(model, nn.Module):
        raise InputTypeError(f"Expected model to be a torch.nn.Module, got a {type(model).__name__}.")
    check_images(faces, "faces")
    image_size = (faces.shape[2], faces.shape[3])
    field = find_field(model, faces)
    sample, rows = first_images(faces)
    with rows_of_caller(lambda flagged: [rows[i] for i in flagged if i < len(rows)]):
        candidates, sums = _spatial_cuts(model, torch.cat([sample, _smooth_probe(sample)]), image_size, field)
    blocks = _shrinking_blocks(candidates)
    by_size: dict[tuple[int, int], list[LayerSuggestion]] = {}
    for layer in sorted(candidates, key=lambda layer: not _is_inside(layer, blocks)):  # stable: those inside come first
        by_size.setdefault(layer.shape[1:], []).append(layer)
    coarsest = min(by_size)
    # The last layer of a size is the latest to run and, of equal outputs, the outermost.
    selected = [layers[-1] if size == coarsest else _end_of_block(layers, sums) for size, layers in by_size.items()]
    in_order = [layer for layer in candidates if layer in selected]
    fine_to_coarse = sorted(_aligned_layers(model, sample, field, in_order), key=lambda layer: layer.cell)
    suggestions = LayerSuggestions(tuple(fine_to_coarse), field, image_size)
    if best_of is None:
        return suggestions
    return replace(suggestions, layers=tuple(suggestions[name] for name in best_of(suggestions)))


def as_layer_list(layers: Layers) -> list[str | nn.Module | LayerSuggestion]:
    """Return layers in any accepted form as a list.

    Args:
        layers: Layers in any of the forms of :data:`Layers`.

    Returns:
        List of names, modules and suggestions, empty for None.

    Raises:
        InputTypeError: If a layer is neither a name, a module nor a suggestion.

    Example:
        >>> as_layer_list("layer2"), as_layer_list(None), as_layer_list(["layer1", nn.ReLU()])
        (['layer2'], [], ['layer1', ReLU()])
    """
    if layers is None:
        return []
    is_list = isinstance(layers, list | tuple | LayerSuggestions)
    items: list[Any] = list(cast(Sequence[Any], layers)) if is_list else [layers]
    for layer in items:
        if not isinstance(layer, str | nn.Module | LayerSuggestion):
            raise InputTypeError(
                "Expected layers to be names or modules of the model, suggestions of suggest_layers, or a list of these, got a "
                f"{type(layer).__name__}."
            )
    return items


def resolve_layers(
    model: nn.Module, faces: Tensor, layers: Layers = None, field: Field | None = None
) -> LayerSuggestions:
    """Return layers given by name, as modules or as suggestions in one form, as suggestions.

    Args:
        model: Model in evaluation mode, from images (N, C, H, W) to embeddings (N, D).
        faces: Images (N, C, H, W) as the model takes them.
        layers: Name, module or suggestion of a layer, or a list of these, which may be mixed. All suggestions of :func:`suggest_layers` are
            returned unchanged. Default: None, the layers of the overall map.
        field: Part (top, left, height, width) of the images that the model reads, in pixels. Default: None, that of the suggestions, or
            else found by :func:`find_field`.

    Returns:
        :class:`~captum_leam.LayerSuggestions` with these layers, marked as manual if the caller chose them.

    Raises:
        InputTypeError: If a layer is neither a name, a module nor a suggestion.
        CaptumLeamError: If a layer is not in the model, has no spatial map, or has a map that is not aligned with the images.

    Example:
        >>> from torchvision.models import resnet18
        >>> _ = torch.manual_seed(0)
        >>> model, faces = resnet18().eval(), torch.rand(1, 3, 112, 112)
        >>> [(layer.name, layer.shape) for layer in resolve_layers(model, faces, ["layer2", model.layer3])]
        [('layer2', (128, 14, 14)), ('layer3', (256, 7, 7))]
    """
    check_tensor(faces, "images")
    if isinstance(layers, LayerSuggestions):
        return layers.for_images(faces)
    items = as_layer_list(layers)
    if not items:
        suggestions = suggest_layers(model, faces)
        return replace(suggestions, layers=suggestions.for_overall_map(), field=field or suggestions.field)
    check_images(faces, "images")
    raise_if_unexplainable(model, [])
    image_size = (faces.shape[2], faces.shape[3])
    empty = LayerSuggestions((), field or find_field(model, faces), image_size, is_manual=True)
    sample, _ = first_images(faces)
    by_name: dict[str, LayerSuggestion] = {}
    for layer in items:
        suggestion = layer if isinstance(layer, LayerSuggestion) else _suggestion_of(model, layer, sample, empty)
        by_name.setdefault(suggestion.name, suggestion)
    _raise_if_displaced(model, sample, empty.field, [*by_name.values()])
    return replace(empty, layers=tuple(by_name.values()))


def _module_name(model: nn.Module, layer: str | nn.Module) -> str:
    if isinstance(layer, str):
        return layer
    for name, module in model.named_modules():
        if module is layer:
            return str(name)
    raise CaptumLeamError(
        f"Expected layers to be modules of the model, got a {type(layer).__name__} that is not among them."
    )


def layer_suggestion(
    model: nn.Module, name: str, layer: nn.Module, faces: Tensor, suggestions: LayerSuggestions
) -> LayerSuggestion:
    """Return one layer as a suggestion, with the size of its map.

    Args:
        model: Model in evaluation mode.
        name: Name of the layer.
        layer: The layer itself.
        faces: Images (N, C, H, W) that :func:`suggest_layers` was called with.
        suggestions: Result of that call, whose field is used.

    Returns:
        :class:`~captum_leam.layers.LayerSuggestion` of the layer.

    Raises:
        CaptumLeamError: If the layer does not run exactly once, has no spatial map, or has a map that is not aligned with the images.

    Example:
        >>> from torchvision.models import resnet18
        >>> _ = torch.manual_seed(0)
        >>> model, faces = resnet18().eval(), torch.rand(1, 3, 112, 112)
        >>> layer_suggestion(model, "layer1.0", model.layer1[0], faces, suggest_layers(model, faces)).shape
        (64, 28, 28)
    """
    sample, _ = first_images(faces)
    suggestion = _suggestion_of_module(model, name, layer, sample, suggestions.for_images(faces))
    _raise_if_displaced(model, sample, suggestions.field, [suggestion])
    return suggestion


def _suggestion_of(
    model: nn.Module, layer: str | nn.Module, sample: Tensor, suggestions: LayerSuggestions
) -> LayerSuggestion:
    """Return the suggestion of a layer given by name or as a module."""
    if not isinstance(model, nn.Module):
        raise InputTypeError(f"Expected model to be a torch.nn.Module, got a {type(model).__name__}.")
    name = _module_name(model, layer)
    return _suggestion_of_module(model, name, get_layer(model, name), sample, suggestions)


def _suggestion_of_module(
    model: nn.Module, name: str, layer: nn.Module, sample: Tensor, suggestions: LayerSuggestions
) -> LayerSuggestion:
    with torch.no_grad(), force_eager(), ValueRecorder([layer], model) as recorder:
        model(_smooth_probe(sample))
    tensors = recorder.runs_of(layer)[0]
    shape_and_reshape = _map_shape(tensors[0], suggestions.image_size) if len(tensors) == 1 else None
    if shape_and_reshape is None:
        shapes = " and ".join(str(tuple(t.shape)) for t in tensors) or "no tensor"
        raise CaptumLeamError(
            f"Expected layer {name!r} to return one tensor of shape (N, C, h, w), got {shapes}. Choose a layer before the spatial "
            "dimensions are pooled or flattened; suggest_layers(model, faces) lists some."
        )
    shape, reshape = shape_and_reshape
    return LayerSuggestion(name, layer, shape, suggestions.field[3] / shape[2], reshape)


def _raise_if_displaced(model: nn.Module, sample: Tensor, field: Field, layers: Sequence[LayerSuggestion]) -> None:
    displaced = _find_displaced(model, sample, field, layers)
    for layer in layers:
        if layer.module in displaced:
            raise CaptumLeamError(displaced[layer.module].message(repr(layer.name)))


def first_images(faces: Tensor) -> tuple[Tensor, list[int]]:
    """Return the first two images without NaN or infinite values, and their rows.

    Args:
        faces: Images (N, C, H, W).

    Returns:
        Tuple of two values:

        * Images (n, C, H, W), n = 1 or 2.
        * Rows of these images, a list of integers.

    Raises:
        CaptumLeamError: If every image has NaN or infinite values.

    Example:
        >>> faces = torch.zeros(4, 1, 2, 2)
        >>> faces[0] = torch.nan
        >>> images, rows = first_images(faces)
        >>> images.shape, rows
        (torch.Size([2, 1, 2, 2]), [1, 2])
    """
    finite = torch.isfinite(faces.detach()).flatten(1).all(1).nonzero().flatten().tolist()
    if not finite:
        raise CaptumLeamError(
            f"Expected images of finite values, got NaN or infinite ones in images {list(range(len(faces)))}. Repair or remove them."
        )
    return faces[finite[:2]].detach(), finite[:2]


def _aligned_layers(
    model: nn.Module, sample: Tensor, field: Field, layers: list[LayerSuggestion]
) -> list[LayerSuggestion]:
    """Return the layers, in order of running, whose grid is aligned with the image; the last axes of others are not positions.

    Raises:
        CaptumLeamError: If the network moves the image before the first of them.
    """
    displaced = _find_displaced(model, sample, field, layers)
    first = displaced.get(layers[0].module)
    if first is not None and (first.is_certain or len(displaced) == len(layers)):
        raise CaptumLeamError(first.message(repr(layers[0].name)))
    return [layer for layer in layers if layer.module not in displaced]


def _find_displaced(
    model: nn.Module, sample: Tensor, field: Field, layers: Sequence[LayerSuggestion]
) -> dict[nn.Module, Displacement]:
    # The image size, which serves to recognise channels-last layers, is omitted because the reshapes are known.
    passes = LayerPasses(
        model, [layer.module for layer in layers], reshapes=[layer.reshape for layer in layers], image_size=None
    )
    with enable_gradients():
        return check_layers(passes, (sample.clone(),), field).displaced


# -- the field -----------------------------------------------------------------------------------------


def find_field(model: Callable[..., Tensor], faces: Tensor, *, seed: int = 0) -> Field:
    """Find the part of the images that a network reads.

    Some networks crop their images inside. Their maps cover the part that is left, the *field*, and must be placed there. It is found as
    the smallest rectangle that holds all pixels with a gradient.

    Args:
        model: Model from images (N, C, H, W) to embeddings (N, D) or scores (N,).
        faces: Images (N, C, H, W) as the model takes them. The first two are used.
        seed: Seed of the shuffled copies of the images that are used beside them. Default: 0.

    Returns:
        Field (top, left, height, width) in pixels, four integers.

    Raises:
        CaptumLeamError: If the output does not depend on the images.

    See Also:
        :func:`~captum_leam.maps.place_on_field`: Placement of maps on the field.

    Example:
        >>> class Crop(nn.Module):
        ...     def forward(self, x):
        ...         return x[..., 8:104].flatten(1)  # reads columns 8 to 103
        >>> _ = torch.manual_seed(0)
        >>> find_field(Crop(), torch.rand(1, 3, 112, 112))
        (0, 8, 112, 96)
    """
    generator = torch.Generator().manual_seed(seed)
    sample, numbers = first_images(faces)
    order = torch.randperm(sample[0, 0].numel(), generator=generator, device="cpu").to(sample.device)
    shuffled = sample.flatten(2)[:, :, order].view_as(sample)
    with enable_gradients():
        x = torch.cat([sample, shuffled]).clone().requires_grad_()
        with rows_of_caller(lambda flagged: [numbers[i] for i in flagged if i < len(numbers)]):
            first = _first_map(model, x)
        weights = torch.randn(first.shape, generator=generator, device="cpu", dtype=torch.float64).to(first)
        gradient = differentiate((first * weights).sum(), x, allow_unused=True)[0] if first.requires_grad else None
    support = (torch.zeros_like(x) if gradient is None else gradient.nan_to_num().abs()).amax((0, 1))
    rows, columns = support.amax(1).nonzero().flatten(), support.amax(0).nonzero().flatten()
    if not len(rows):
        raise CaptumLeamError(
            "Expected the output of the model to depend on the images, got zero gradient. Check for operations that detach it or run under "
            f"no_grad, and for a head initialised to zero, as in torchvision's ViT.{float16_hint(faces)}"
        )
    top, left = int(rows[0]), int(columns[0])
    return top, left, int(rows[-1]) - top + 1, int(columns[-1]) - left + 1


def _first_map(model: Callable[..., Tensor], x: Tensor) -> Tensor:
    """Return the output of the first spatial cut behind weights, or that of the network if there is none."""
    if not isinstance(model, nn.Module):
        return as_output(model(x), len(x))
    outputs, output, _ = _record_outputs(model, x)
    cuts = _cut_nodes(output.sum(), x) if output.requires_grad else set()
    size = (x.shape[2], x.shape[3])
    maps = (t for t in _outputs_behind_weights(model, outputs).values() if t.grad_fn in cuts and _map_shape(t, size))
    return next(maps, output)


# -- candidates ----------------------------------------------------------------------------------------


def _smooth_probe(faces: Tensor) -> Tensor:
    """Return one smooth image within the range of the faces, whose activations are similar at neighbouring positions."""
    noise = normal(faces[:1].shape, torch.Generator().manual_seed(0)).to(faces)
    smooth = gaussian_blur(noise, faces.shape[-1] / 16)
    unit_range = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    return faces.min() + (faces.max() - faces.min()) * unit_range


def _shrinking_blocks(candidates: Sequence[LayerSuggestion]) -> dict[str, tuple[int, int]]:
    """Return the blocks that change the size once, each with the size before the change.

    The output of a block is that of the last module that ran in it, which is the block itself, or an operator if blocks do not run.
    """
    sizes: dict[str, list[tuple[int, int]]] = {}
    for candidate in candidates:
        parts = candidate.name.split(".")
        for depth in range(1, len(parts) + 1):
            sizes.setdefault(".".join(parts[:depth]), []).append(candidate.shape[1:])
    others = {name: set(of_block) - {of_block[-1]} for name, of_block in sizes.items()}
    return {name: before.pop() for name, before in others.items() if len(before) == 1}


def _is_inside(layer: LayerSuggestion, blocks: dict[str, tuple[int, int]]) -> bool:
    return any(layer.name.startswith(name + ".") and layer.shape[1:] == size for name, size in blocks.items())


def _end_of_block(layers: Sequence[LayerSuggestion], sums: set[str]) -> LayerSuggestion:
    """Return the last layer, or the last one before the layers that widen the output of a sum with a skip connection.

    An inverted bottleneck that changes the size has no skip connection, so that its first, widening layers are cuts as well.
    """
    last = max((i for i, layer in enumerate(layers) if layer.name in sums), default=None)
    if last is None:
        return layers[-1]
    wide = [i for i in range(last, len(layers)) if layers[i].shape[0] != layers[last].shape[0]]
    return layers[wide[0] - 1] if wide else layers[-1]


def _spatial_cuts(
    model: nn.Module, faces: Tensor, size: tuple[int, int], field: Field
) -> tuple[list[LayerSuggestion], set[str]]:
    """Return the layers that could be suggested in order of running, and the names of those that put out a sum.

    These layers run once, are cuts behind some weights, have a spatial map and gradients at several positions. A sum counts if both
    summands depend on the image.
    """
    with enable_gradients():
        x = faces.detach().clone().requires_grad_()
        outputs, output, counts = _record_outputs(model, x)
        score = (output * output.detach()).sum()
        cuts = _cut_nodes(score, x) if score.requires_grad else set()
        outputs = _outputs_by_image(_outputs_behind_weights(model, outputs), len(x))
        tokens = {id(t) for t in outputs.values() if t.ndim == 3 and not _is_flattened_map(t, outputs.values())}
        maps_or_tokens = {name: t for name, t in outputs.items() if t.ndim != 3 or id(t) in tokens}
        spatial = {name: t for name, t in maps_or_tokens.items() if t.grad_fn in cuts and _map_shape(t, size)}
        if not spatial:
            raise CaptumLeamError(_no_layer_message(outputs, counts, has_gradient=output.requires_grad))
        gradients = differentiate(score, list(spatial.values()), allow_unused=True)
    modules = dict(model.named_modules())
    candidates = []
    for (name, tensor), gradient in zip(spatial.items(), gradients, strict=True):
        shape, reshape = _map_shape(tensor, size) or ((0, 0, 0), None)
        if gradient is not None and _reaches_positions(gradient if reshape is None else reshape(gradient)):
            candidates.append(LayerSuggestion(name, modules[name], shape, field[3] / shape[2], reshape))
    if not candidates:
        has_gradient = any(g is not None and bool(g.any()) for g in gradients)
        raise CaptumLeamError(_no_layer_message(outputs, counts, has_gradient=has_gradient))
    return candidates, {name for name, tensor in spatial.items() if _is_sum(tensor.grad_fn)}


def _is_sum(node: Any) -> bool:
    return type(node).__name__ == "AddBackward0" and sum(before is not None for before, _ in node.next_functions) == 2


def _outputs_behind_weights(model: nn.Module, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the outputs from the first module with weights on, without normalisation and cropping before; all if none has weights."""
    names = list(outputs)
    first = next((i for i, n in enumerate(names) if [*model.get_submodule(n).parameters(recurse=False)]), 0)
    return {name: outputs[name] for name in names[first:]}


def _outputs_by_image(outputs: dict[str, Tensor], images: int) -> dict[str, Tensor]:
    """Return the outputs with one row per image; raise if no map of several has."""
    by_image = {name: t for name, t in outputs.items() if t.ndim and len(t) == images}
    for name, t in outputs.items():
        if t.ndim == 4 and not any(u.ndim == 4 for u in by_image.values()):
            raise CaptumLeamError(rows_message(repr(name), tuple(t.shape), images))
    return by_image


def _no_layer_message(outputs: dict[str, Tensor], counts: dict[str, int], has_gradient: bool) -> str:
    """Return the reason why there is no layer to suggest."""
    if not has_gradient:
        return (
            "Expected the embedding to depend on the images through differentiable operations, but no gradient reaches any layer. Explain "
            "the part of the model before torch.round, quantised layers, numpy or no_grad: UpTo(model, layer)."
        )
    repeated = {name: count for name, count in counts.items() if count > 1 and name not in outputs}
    if repeated:
        name = min(repeated, key=lambda n: n.count("."))
        return (
            f"Expected a layer that runs once and that everything passes through, but module {name!r} ran {repeated[name]} times in one "
            "forward pass (micro-batches, several views, shared weights). Explain the network inside, or choose layers by hand."
        )
    return (
        "Expected a layer with a spatial map that everything passes through, got no such layer. Choose layers by hand, or explain one "
        "network of a model with several."
    )


def _record_outputs(model: nn.Module, x: Tensor) -> tuple[dict[str, Tensor], Tensor, dict[str, int]]:
    """Return the outputs of modules that ran once with one tensor, in order of running; the output of the model; and run counts."""
    runs: dict[str, list[Any]] = {}

    def hook(name: str, module: nn.Module, args: Any, output: Any) -> Any:
        runs.setdefault(name, []).append(output)
        # The model continues with a copy, so that in-place operations do not change the recorded tensor.
        return output.clone() if isinstance(output, Tensor) else None

    with forward_hooks((m, partial(hook, name)) for name, m in model.named_modules() if name):
        model_output = as_output(model(x), len(x))
    # A dict is in the order of first insertion, which for a module that ran once is the order in which the runs ended.
    outputs = {name: r[0] for name, r in runs.items() if len(r) == 1 and isinstance(r[0], Tensor)}
    return outputs, model_output, {name: len(r) for name, r in runs.items()}


def _map_shape(tensor: Tensor, size: tuple[int, int]) -> tuple[tuple[int, int, int], Reshape | None] | None:
    """Return (C, h, w) and the reshape of a layer's output, or None if it has no positions."""
    reshape: Reshape | None = None
    if tensor.ndim == 3:
        grid = _token_grid(tensor.shape[1], size)
        if grid is None:
            return None
        square = grid[0] == grid[1]
        reshape = tokens_to_map if square else partial(tokens_to_map, grid=grid)
    elif tensor.ndim == 4 and looks_channels_last(tensor[-1:], size):  # the last image is the smooth probe
        reshape = channels_last_to_first
    elif tensor.ndim != 4:
        return None
    c, h, w = (tensor if reshape is None else reshape(tensor)).shape[1:]
    return ((c, h, w), reshape) if min(h, w) > 1 else None


def _is_flattened_map(tensor: Tensor, maps: Iterable[Tensor]) -> bool:
    """Return whether (N, a, b) is a map (N, C, h, w) with flattened positions, b = h · w, rather than tokens (N, T, C)."""
    positions = {t.shape[2] * t.shape[3] for t in maps if t.ndim == 4}
    return tensor.shape[2] in positions and not any(0 <= tensor.shape[1] - n <= MAX_PREFIX_TOKENS for n in positions)


def _token_grid(tokens: int, size: tuple[int, int]) -> tuple[int, int] | None:
    """Return the largest grid with the aspect ratio of the image that leaves a few tokens for class and registers."""
    for height in range(int(tokens**0.5 * max(size) / min(size)) + 1, 1, -1):
        width = round(height * size[1] / size[0])
        if 0 <= tokens - height * width <= MAX_PREFIX_TOKENS and width > 1:
            return height, width
    return None


def _reaches_positions(gradient: Tensor) -> bool:
    """Return whether the score depends on several positions; after the last attention it depends on the class token only."""
    return int((gradient.abs().sum((0, 1)) > 0).sum()) > 1


def _cut_nodes(score: Tensor, x: Tensor) -> set[Any]:
    """Return the nodes of the autograd graph that every path from the score to the input passes through.

    For these, (paths from the score) × (paths to the input) equals the number of all paths. Python's integers are exact.
    """
    root = score.grad_fn
    order = _topological_order(root)
    to_input: dict[Any, int] = {}
    for node in reversed(order):
        is_input = getattr(node, "variable", None) is x
        to_input[node] = 1 if is_input else sum(to_input[n] for n, _ in node.next_functions if n is not None)
    from_root = dict.fromkeys(order, 0)
    from_root[root] = 1
    for node in order:
        for following, _ in node.next_functions:
            if following is not None:
                from_root[following] += from_root[node]
    all_paths = to_input.get(root, 0)
    return {node for node in order if all_paths and from_root[node] * to_input[node] == all_paths}


def _topological_order(root: Any) -> list[Any]:
    """Return the nodes reachable from the root, each before those it leads to; without recursion, because graphs are deep."""
    finished: list[Any] = []
    seen, stack = set(), [(root, False)]
    while stack:
        node, is_done = stack.pop()
        if is_done:
            finished.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((n, False) for n, _ in node.next_functions if n is not None)
    return finished[::-1]
