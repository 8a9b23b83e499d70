"""Which layers to explain: one for every spatial size, found by running the model once."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from captum_leam._engine.checks import check_images, rows_of_caller
from captum_leam._engine.guards import eager, raise_if_unexplainable, with_gradients
from captum_leam._engine.layer_probe import Displacement, check_layers
from captum_leam._engine.modes import differentiate, normal
from captum_leam._engine.outputs import as_output, float16_hint
from captum_leam._engine.passes import LayerPasses
from captum_leam._engine.recording import ValueRecorder, hooked
from captum_leam._engine.shapes import Reshape, looks_channels_last, rows_message
from captum_leam._engine.types import Field
from captum_leam.errors import CaptumLeamError, InputTypeError
from captum_leam.layers import (
    MOST_PREFIX_TOKENS,
    channels_last_to_first,
    get_layer,
    tokens_to_map,
)
from captum_leam.layers import LayerSuggestion as LayerSuggestion
from captum_leam.layers import LayerSuggestions as LayerSuggestions
from captum_leam.maps import gaussian_blur


def suggest_layers(
    model: nn.Module, faces: Tensor, *, best_of: Callable[[LayerSuggestions], Sequence[str]] | None = None
) -> LayerSuggestions:
    """Find, for every spatial size, the layer to explain.

    That is the last module before the size changes or the head begins that runs once, puts out a spatial map, is a
    *cut* (everything that reaches the embedding passes through it), and whose positions the embedding depends on;
    of modules with the same output, the outermost. What lies inside a block that changes the size, before the
    change, is passed over for the block before, and what comes before the first weights is passed over altogether. Tokens and
    channels-last layers come with the reshape they need.

    In a network of operators, as :func:`~captum_leam.models.from_onnx` gives it, blocks do not run. They are read off the names
    (``stages.1.0.conv`` belongs to ``stages.1.0``); where those say nothing, the last sum with a skip connection ends the last block.

    Args:
        model: returns embeddings (N, D) (or any scores); in evaluation mode.
        faces: a few images (N, C, H, W) as the model takes them; the first two are used.
        best_of: orders the suggestions: gets them, returns names, the best first (and leaves others out). For
            example ``lambda found: rank_layers(model, images, labels, layers=found).names`` of
            :func:`captum_leam.faithfulness.rank_layers`.

    Returns:
        :class:`LayerSuggestions`, fine to coarse (or as ``best_of`` says), with the :func:`field <find_field>`.

    Raises:
        InputTypeError: if the model is no eager ``nn.Module``.
        CaptumLeamError: if no layer qualifies, or the model is in training mode.

    Example:
        >>> from torchvision.models import resnet18
        >>> suggest_layers(resnet18().eval(), torch.rand(2, 3, 112, 112)).to_frame()[["name", "width"]]
             name  width
        0    relu     56
        1  layer1     28
        2  layer2     14
        3  layer3      7
        4  layer4      4
    """
    raise_if_unexplainable(model, [])
    if not isinstance(model, nn.Module):
        raise InputTypeError(
            f"model is a {type(model).__name__}; suggest_layers walks the modules of a torch.nn.Module."
        )
    check_images(faces, "faces")
    size = (faces.shape[2], faces.shape[3])
    reads = find_field(model, faces)
    few, rows = first_images(faces)
    with rows_of_caller(lambda found: [rows[i] for i in found if i < len(rows)]):
        candidates, sums = _spatial_cuts(model, torch.cat([few, _smooth_probe(few)]), size, reads)
    blocks = _shrinking_blocks(candidates)
    of_size: dict[tuple[int, int], list[LayerSuggestion]] = {}
    for layer in sorted(candidates, key=lambda layer: not _inside(layer, blocks)):  # stable: those inside come first
        of_size.setdefault(layer.shape[1:], []).append(layer)
    coarsest = min(of_size)
    # the last is the latest to run, and of equal outputs the outermost
    chosen = [layers[-1] if size == coarsest else _end_of_block(layers, sums) for size, layers in of_size.items()]
    in_order = [layer for layer in candidates if layer in chosen]
    fine_to_coarse = sorted(_on_the_picture(model, few, reads, in_order), key=lambda layer: layer.cell)
    found = LayerSuggestions(tuple(fine_to_coarse), reads, size)
    return found if best_of is None else replace(found, layers=tuple(found[name] for name in best_of(found)))


def chosen_layers(model: nn.Module, faces: Tensor, layers: Sequence[str | nn.Module] | None = None) -> LayerSuggestions:
    """Return the layers named, or those of the overall map.

    Args:
        model: Returns embeddings (N, D), in evaluation mode.
        faces: (N, C, H, W) as the model takes them.
        layers: Names or modules of the model. None or nothing: those of the overall map.

    Raises:
        InputTypeError: for anything but names and modules.
        CaptumLeamError: for a layer that the model does not have, or one without a spatial map.

    Example:
        >>> from torchvision.models import resnet18
        >>> [layer.name for layer in chosen_layers(resnet18().eval(), torch.rand(1, 3, 112, 112), ["layer2"])]
        ['layer2']
    """
    suggested = suggest_layers(model, faces)
    if not layers:
        return replace(suggested, layers=suggested.for_overall_map())
    names = dict.fromkeys(_name_within(model, layer) for layer in layers)
    few, _ = first_images(faces)
    chosen = [_described(model, name, get_layer(model, name), few, suggested) for name in names]
    _raise_if_displaced(model, few, suggested.field, chosen)
    return replace(suggested, layers=tuple(chosen), chosen=True)


def _name_within(model: nn.Module, layer: Any) -> str:
    if isinstance(layer, str):
        return layer
    if not isinstance(layer, nn.Module):
        raise InputTypeError(
            f"Expected layers to be names or modules of the model, or what suggest_layers returns, got a {type(layer).__name__}."
        )
    for name, module in model.named_modules():
        if module is layer:
            return str(name)
    raise CaptumLeamError(
        f"Expected layers to be modules of the model, got a {type(layer).__name__} that is not among them."
    )


def layer_suggestion(
    model: nn.Module, name: str, layer: nn.Module, faces: Tensor, found: LayerSuggestions
) -> LayerSuggestion:
    """Describe a layer chosen by hand as the suggested ones are: its shape, cell and reshape.

    Args:
        model: in evaluation mode.
        name: of the layer.
        layer: the module.
        faces: as given to :func:`suggest_layers`.
        found: what that returned, for the field.

    Raises:
        CaptumLeamError: if the layer does not run just once, or puts out no spatial map.

    Example:
        >>> from torchvision.models import resnet18
        >>> model, faces = resnet18().eval(), torch.rand(1, 3, 112, 112)
        >>> layer_suggestion(model, "layer1.0", model.layer1[0], faces, suggest_layers(model, faces)).shape
        (64, 28, 28)
    """
    few, _ = first_images(faces)
    suggestion = _described(model, name, layer, few, found.for_images(faces))
    _raise_if_displaced(model, few, found.field, [suggestion])
    return suggestion


def _described(model: nn.Module, name: str, layer: nn.Module, few: Tensor, found: LayerSuggestions) -> LayerSuggestion:
    with torch.no_grad(), eager(), ValueRecorder([layer], model) as recorder:
        model(_smooth_probe(few))
    tensors = recorder.runs_of(layer)[0]
    described = _map_shape(tensors[0], found.image_size) if len(tensors) == 1 else None
    if described is None:
        raise CaptumLeamError(
            f"layer {name!r} puts out {[tuple(t.shape) for t in tensors]}, no spatial map (N, C, h, w)."
        )
    shape, reshape = described
    return LayerSuggestion(name, layer, shape, found.field[3] / shape[2], reshape)


def _raise_if_displaced(model: nn.Module, few: Tensor, field: Field, layers: Sequence[LayerSuggestion]) -> None:
    displaced = _displaced(model, few, field, layers)
    for layer in layers:
        if layer.module in displaced:
            raise CaptumLeamError(displaced[layer.module].message(repr(layer.name)))


def first_images(faces: Tensor) -> tuple[Tensor, list[int]]:
    """Return the first two images without NaN or infinite values, and their rows; one that has some is named when it is explained.

    Raises:
        CaptumLeamError: if every image has such values.

    Example:
        >>> faces = torch.zeros(4, 1, 2, 2)
        >>> faces[0] = torch.nan
        >>> first_images(faces)[1]
        [1, 2]
    """
    finite = torch.isfinite(faces.detach()).flatten(1).all(1).nonzero().flatten().tolist()
    if not finite:
        raise CaptumLeamError(
            f"Expected images of finite values, got NaN or infinite ones in images {list(range(len(faces)))}. Repair or remove them."
        )
    return faces[finite[:2]].detach(), finite[:2]


def _on_the_picture(
    model: nn.Module, few: Tensor, reads: Field, layers: list[LayerSuggestion]
) -> list[LayerSuggestion]:
    """Return the layers, in order of running, whose grid is that of the image: the last axes of others are not positions.

    Raises:
        CaptumLeamError: if the network moves the image before the first of them.
    """
    displaced = _displaced(model, few, reads, layers)
    first = displaced.get(layers[0].module)
    if first is not None and (first.is_certain or len(displaced) == len(layers)):
        raise CaptumLeamError(first.message(repr(layers[0].name)))
    return [layer for layer in layers if layer.module not in displaced]


def _displaced(
    model: nn.Module, few: Tensor, reads: Field, layers: Sequence[LayerSuggestion]
) -> dict[nn.Module, Displacement]:
    # without the size of the images: where the channels of these layers are was found out
    passes = LayerPasses(
        model, [layer.module for layer in layers], reshapes=[layer.reshape for layer in layers], image_size=None
    )
    with with_gradients():
        return check_layers(passes, (few.clone(),), reads).displaced


# -- the field -----------------------------------------------------------------------------------------


def find_field(model: Callable[..., Tensor], faces: Tensor, *, seed: int = 0) -> Field:
    """Return the part of the input that a network reads: the bounding box of the support of the input gradient.

    The gradient is that of the first spatial map behind weights that everything passes through, where there is one: later layers may be
    blind to parts of what it covers, and their maps are spread over all of it nevertheless.

    Args:
        model: returns embeddings (N, D) or scores (N,).
        faces: images (N, C, H, W); the first two are used, and two with their pixels shuffled, in case a face
            leaves units dead somewhere.
        seed: of the shuffling.

    Returns:
        (top, left, height, width) in pixels.

    Raises:
        CaptumLeamError: if the output does not depend on the images.

    Example:
        >>> class Crop(nn.Module):
        ...     def forward(self, x):
        ...         return x[..., 8:104].flatten(1)
        >>> find_field(Crop(), torch.rand(1, 3, 112, 112))
        (0, 8, 112, 96)
    """
    generator = torch.Generator().manual_seed(seed)
    few, numbers = first_images(faces)
    order = torch.randperm(few[0, 0].numel(), generator=generator, device="cpu").to(few.device)
    shuffled = few.flatten(2)[:, :, order].view_as(few)
    with with_gradients():
        x = torch.cat([few, shuffled]).clone().requires_grad_()
        with rows_of_caller(lambda found: [numbers[i] for i in found if i < len(numbers)]):
            first = _first_map(model, x)
        signs = torch.randn(first.shape, generator=generator, device="cpu", dtype=torch.float64).to(first)
        gradient = differentiate((first * signs).sum(), x, allow_unused=True)[0] if first.requires_grad else None
    touched = (torch.zeros_like(x) if gradient is None else gradient.nan_to_num().abs()).amax((0, 1))
    rows, columns = touched.amax(1).nonzero().flatten(), touched.amax(0).nonzero().flatten()
    if not len(rows):
        raise CaptumLeamError(
            "the model's output does not depend on the images: no field. Is it detached or run under no_grad inside, or is the "
            f"head initialised to zero, as torchvision's ViT classifier is?{float16_hint(faces)}"
        )
    top, left = int(rows[0]), int(columns[0])
    return top, left, int(rows[-1]) - top + 1, int(columns[-1]) - left + 1


def _first_map(model: Callable[..., Tensor], x: Tensor) -> Tensor:
    """Output of the first layer behind weights that is a cut and spatial; of a network without one, the output."""
    if not isinstance(model, nn.Module):
        return as_output(model(x), len(x))
    outputs, out, _ = _run_recorded(model, x)
    cuts = _cut_nodes(out.sum(), x) if out.requires_grad else set()
    size = (x.shape[2], x.shape[3])
    maps = (t for t in _behind_weights(model, outputs).values() if t.grad_fn in cuts and _map_shape(t, size))
    return next(maps, out)


# -- candidates ----------------------------------------------------------------------------------------


def _smooth_probe(faces: Tensor) -> Tensor:
    """One smooth image within the faces' range: neighbours in space are alike in it, even in an untrained network."""
    noise = normal(faces[:1].shape, torch.Generator().manual_seed(0)).to(faces)
    smooth = gaussian_blur(noise, faces.shape[-1] / 16)
    unit_range = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    return faces.min() + (faces.max() - faces.min()) * unit_range


def _shrinking_blocks(candidates: Sequence[LayerSuggestion]) -> dict[str, tuple[int, int]]:
    """Blocks that put out one size and hold layers of one other, with that other size: they change it once.

    What a block puts out is the last thing that ran in it: the block itself, or an operator where blocks do not run.
    """
    sizes: dict[str, list[tuple[int, int]]] = {}
    for candidate in candidates:
        parts = candidate.name.split(".")
        for depth in range(1, len(parts) + 1):
            sizes.setdefault(".".join(parts[:depth]), []).append(candidate.shape[1:])
    inner = {name: set(inside) - {inside[-1]} for name, inside in sizes.items()}
    return {name: others.pop() for name, others in inner.items() if len(others) == 1}


def _inside(layer: LayerSuggestion, blocks: dict[str, tuple[int, int]]) -> bool:
    return any(layer.name.startswith(name + ".") and layer.shape[1:] == size for name, size in blocks.items())


def _end_of_block(layers: Sequence[LayerSuggestion], sums: set[str]) -> LayerSuggestion:
    """Return the last layer; where it only widens what came out of a sum with a skip connection, what still has that width.

    An inverted bottleneck that changes the size has no skip connection: its first, widening layers are cuts as well.
    """
    last = max((i for i, layer in enumerate(layers) if layer.name in sums), default=None)
    if last is None:
        return layers[-1]
    wide = [i for i in range(last, len(layers)) if layers[i].shape[0] != layers[last].shape[0]]
    return layers[wide[0] - 1] if wide else layers[-1]


def _spatial_cuts(
    model: nn.Module, faces: Tensor, size: tuple[int, int], reads: Field
) -> tuple[list[LayerSuggestion], set[str]]:
    """Layers that run once, are cuts, spatial, behind some weights, and have gradients at their positions; in order of running.

    And the names of those that put out a sum of two things which both depend on the image.
    """
    with with_gradients():
        x = faces.detach().clone().requires_grad_()
        outputs, out, counts = _run_recorded(model, x)
        score = (out * out.detach()).sum()
        cuts = _cut_nodes(score, x) if score.requires_grad else set()
        outputs = _one_row_per_image(_behind_weights(model, outputs), len(x))
        tokens = {id(t) for t in outputs.values() if t.ndim == 3 and not _is_flattened_map(t, outputs.values())}
        shown = {name: t for name, t in outputs.items() if t.ndim != 3 or id(t) in tokens}
        spatial = {name: t for name, t in shown.items() if t.grad_fn in cuts and _map_shape(t, size)}
        if not spatial:
            raise CaptumLeamError(_no_layer(outputs, counts, has_gradient=out.requires_grad))
        gradients = differentiate(score, list(spatial.values()), allow_unused=True)
    modules = dict(model.named_modules())
    found = []
    for (name, tensor), gradient in zip(spatial.items(), gradients, strict=True):
        shape, reshape = _map_shape(tensor, size) or ((0, 0, 0), None)
        if gradient is not None and _reaches_positions(gradient if reshape is None else reshape(gradient)):
            found.append(LayerSuggestion(name, modules[name], shape, reads[3] / shape[2], reshape))
    if not found:
        reached = any(g is not None and bool(g.any()) for g in gradients)
        raise CaptumLeamError(_no_layer(outputs, counts, has_gradient=reached))
    return found, {name for name, tensor in spatial.items() if _is_sum(tensor.grad_fn)}


def _is_sum(node: Any) -> bool:
    return type(node).__name__ == "AddBackward0" and sum(before is not None for before, _ in node.next_functions) == 2


def _behind_weights(model: nn.Module, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without what ran before the first module with weights: a mean taken off, a window cut out. All, where none has weights."""
    names = list(outputs)
    first = next((i for i, n in enumerate(names) if [*model.get_submodule(n).parameters(recurse=False)]), 0)
    return {name: outputs[name] for name in names[first:]}


def _one_row_per_image(outputs: dict[str, Tensor], images: int) -> dict[str, Tensor]:
    """Raise if no output has one row per image; else those that have."""
    kept = {name: t for name, t in outputs.items() if t.ndim and len(t) == images}
    for name, t in outputs.items():
        if t.ndim == 4 and not any(u.ndim == 4 for u in kept.values()):
            raise CaptumLeamError(rows_message(repr(name), tuple(t.shape), images))
    return kept


def _no_layer(outputs: dict[str, Tensor], counts: dict[str, int], has_gradient: bool) -> str:
    """Why there is no layer to suggest."""
    if not has_gradient:
        return (
            "Expected the embedding to depend on the images through differentiable operations, but no gradient reaches any layer: the "
            "model ends in torch.round, a quantised layer, numpy or no_grad. Explain the part before it (UpTo(model, layer))."
        )
    often = {name: count for name, count in counts.items() if count > 1 and name not in outputs}
    if often:
        name = min(often, key=lambda n: n.count("."))
        return (
            f"Expected a layer that runs once and that everything passes through, but module {name!r} ran {often[name]} times in one "
            "forward pass (micro-batches, several views, shared weights). Explain the network inside, or choose layers by hand."
        )
    return (
        "no layer of the model puts out a spatial map that everything passes through; choose layers by hand. Of a model with several "
        "networks, explain one."
    )


def _run_recorded(model: nn.Module, x: Tensor) -> tuple[dict[str, Tensor], Tensor, dict[str, int]]:
    """Return the outputs of modules that ran once with one tensor, in order of running; the model's output; and how often each ran."""
    runs: dict[str, list[Any]] = {}

    def hook(name: str, module: nn.Module, args: Any, output: Any) -> Any:
        runs.setdefault(name, []).append(output)
        # the model goes on with a copy, so that in-place operations leave what is recorded alone
        return output.clone() if isinstance(output, Tensor) else None

    with hooked((m, partial(hook, name)) for name, m in model.named_modules() if name):
        out = as_output(model(x), len(x))
    once = {name: r[0] for name, r in runs.items() if len(r) == 1 and isinstance(r[0], Tensor)}
    # a dict keeps the place of the first insertion, which is the time the (only) run ended
    return once, out, {name: len(r) for name, r in runs.items()}


def _map_shape(tensor: Tensor, size: tuple[int, int]) -> tuple[tuple[int, int, int], Reshape | None] | None:
    """(C, h, w) and the reshape that a layer's output needs, or None where it has no positions."""
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
    """Whether (N, a, b) is a map (N, C, h, w) with its positions in one row, b = h · w, rather than tokens (N, T, C)."""
    positions = {t.shape[2] * t.shape[3] for t in maps if t.ndim == 4}
    return tensor.shape[2] in positions and not any(0 <= tensor.shape[1] - n <= MOST_PREFIX_TOKENS for n in positions)


def _token_grid(tokens: int, size: tuple[int, int]) -> tuple[int, int] | None:
    """Return the largest grid of the image's proportions that leaves a few tokens over for class and registers."""
    for height in range(int(tokens**0.5 * max(size) / min(size)) + 1, 1, -1):
        width = round(height * size[1] / size[0])
        if 0 <= tokens - height * width <= MOST_PREFIX_TOKENS and width > 1:
            return height, width
    return None


def _reaches_positions(gradient: Tensor) -> bool:
    """Whether the score depends on several positions (after the last attention it depends on the class token only)."""
    return int((gradient.abs().sum((0, 1)) > 0).sum()) > 1


def _cut_nodes(score: Tensor, x: Tensor) -> set[Any]:
    """Nodes of the autograd graph that every path from the score to the input passes through.

    A node is one if (paths down to it) × (paths from it to the input) = all paths; Python's integers are exact.
    """
    root = score.grad_fn
    order = _topological(root)
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
    everything = to_input.get(root, 0)
    return {node for node in order if everything and from_root[node] * to_input[node] == everything}


def _topological(root: Any) -> list[Any]:
    """Nodes reachable from the root, every node before those it leads to (no recursion: graphs are deep)."""
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
