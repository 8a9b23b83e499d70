"""Probe of the layers of a model: whether their rows belong to the images, and whether their grids are aligned with the images.

See :mod:`captum_leam._engine.probe` for the two passes that it uses.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from captum_leam._engine.fingerprint import generators_of, state_of
from captum_leam._engine.guards import raise_if_unexplainable
from captum_leam._engine.passes import LayerPasses, PerLayer
from captum_leam._engine.probe import (
    Batches,
    Inputs,
    ProbeRecord,
    can_be_probed,
    check_order_of_many,
    check_same,
    depends_message,
    input_kind,
    model_findings,
    record_of,
    run_first_possible,
    tolerance_of,
    two_images,
    whole_batch,
)
from captum_leam._engine.types import Field
from captum_leam.errors import CaptumLeamError

ALLOWED_CELLS, ALLOWED_SHARE = 1.75, 0.05
"""Maximum distance of a patch from its place: cells of the layer plus a share of the field. Receptive fields are asymmetric."""

CONCENTRATED = {False: 0.5, True: 0.7}
"""Spread of the effect of a patch relative to a uniform one, below which its place is certain, by whether the grid is fine."""

RECORD = "record"
"""Key of the results of the probe that the first batch is compared with."""

COARSE_GRID = 9
"""Number of cells in a row up to which a grid is coarse. Late layers mix all positions, so that a spread effect shows nothing there."""


@dataclass(frozen=True)
class Displacement:
    """Difference between the place of a change of the image and its place in a layer.

    Attributes:
        expected: (row, column) of the change in pixels of the image.
        found: (row, column) at which the map of the layer would show it.
        is_certain: Whether the change is concentrated there. It is spread out if the last two axes of the layer are not positions.

    Example:
        >>> Displacement((10.0, 20.0), (10.0, 92.0), True)
        Displacement(expected=(10.0, 20.0), found=(10.0, 92.0), is_certain=True)
    """

    expected: tuple[float, float]
    found: tuple[float, float]
    is_certain: bool

    def message(self, name: str) -> str:
        """Return the message of an error.

        Args:
            name: Name of the layer.
        """
        (row, column), (to_row, to_column) = self.expected, self.found
        return (
            f"Expected the grid of layer {name} to lie on the picture, but a change around row {row:.0f}, column {column:.0f} appears "
            f"around row {to_row:.0f}, column {to_column:.0f} of its map: the model pads, turns, mirrors or warps the picture inside. Do "
            "that to the images yourself and explain the network after it."
        )


@dataclass(frozen=True)
class LayerProbe:
    """Result of the probe of layers.

    Attributes:
        displaced: Displacement by layer, for layers whose grid is not aligned with the images.
        record: Results to compare with those of the first batch. Default: None, if the probe did not run in this call.
    """

    displaced: dict[nn.Module, Displacement]
    record: ProbeRecord | None = None

    def compare(self, xs: Inputs, output: Tensor, activations: PerLayer) -> None:
        """Raise if an image has different results in a batch of three or more images than in the probe.

        Args:
            xs: Inputs, (N, …) each.
            output: Output of the model, (N, …).
            activations: Activations of the layers, (N, C, h, w).
        """
        if self.record is not None and len(xs[0]) > 2:
            self.record.compare(xs, [output, *(t for of_layer in activations for t in of_layer)])


# -- the probe ------------------------------------------------------------------------------------------


def check_layers(
    passes: LayerPasses, xs: Inputs, field: Field | None = None, *, within: LayerPasses | None = None
) -> LayerProbe:
    """Raise if the rows of a layer do not belong to the images, and find layers whose grid is not aligned with the images.

    Args:
        passes: Passes with the layers to record.
        xs: Inputs of the call, (N, …) each.
        field: Part (top, left, height, width) of the images that the grids of the layers cover, in pixels. Default: None, grids are not
            compared.
        within: Passes of the model inside an objective, which is probed instead. Default: ``passes``.

    Returns:
        Displaced layers, which a sound model does not have.

    Raises:
        InputTypeError: If hooks do not fire in the model, see :func:`raise_if_unexplainable`.
        CaptumLeamError: If the model is in training mode, or if rows of a layer or of the embedding depend on the rest of the batch or
            are in another order. Errors that the model itself raises in the probe are not raised.

    Example:
        >>> from captum_leam._engine.passes import LayerPasses
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 256, 8)).eval()
        >>> upside_down = lambda x: model(x.flip(2))
        >>> images = torch.rand(2, 3, 32, 32)
        >>> check_layers(LayerPasses(model, [model[1]]), (images,), field=(0, 0, 32, 32)).displaced
        {}
        >>> check_layers(LayerPasses(upside_down, [model[1]]), (images,), field=(0, 0, 32, 32)).displaced.keys() == {model[1]}
        True
    """
    outer, passes = passes, within or passes
    kind = (passes.layer_input, *map(input_kind, xs), *map(input_kind, passes.args))
    pairs = zip(passes.layers, passes.reshapes, strict=True)
    keys = [(kind, id(layer), reshape and state_of(reshape)) for layer, reshape in pairs]
    with model_findings(passes.forward_func, passes.layers) as findings:
        if "explainable" not in findings:
            raise_if_unexplainable(outer.forward_func, outer.layers)
            findings["explainable"] = True
        if any((key, field) not in findings for key in keys):
            results = _probe_layers(passes, xs, field) if can_be_probed(xs) else None
            if results is None:
                return LayerProbe({})
            displacements, record = results
            findings |= {(key, f): d for key, d in zip(keys, displacements, strict=True) for f in (None, field)}
            findings[RECORD] = None if record is None else (keys, record)
        # Only a check without a field is followed by passes of the same call, which the record is compared with.
        stored = findings.pop(RECORD, None) if field is None else None
        record = None if stored is None else _select_layers(stored[0], stored[1], keys)
        displacements = [findings[key, field] for key in keys]
    displaced = {layer: d for layer, d in zip(passes.layers, displacements, strict=True) if d is not None}
    return LayerProbe(displaced, record)


def _select_layers(stored_keys: list[Any], record: ProbeRecord, keys: list[Any]) -> ProbeRecord | None:
    """Return the record of some of its layers; None if a layer is not in it or has several tensors."""
    if len(stored_keys) != len(record.values) - 1 or not set(keys) <= set(stored_keys):
        return None
    rows = [0, *(1 + stored_keys.index(key) for key in keys)]
    return replace(record, values=[record.values[i] for i in rows], names=[record.names[i] for i in rows])


def _probe_layers(
    passes: LayerPasses, xs: Inputs, field: Field | None
) -> tuple[list[Displacement | None], ProbeRecord | None] | None:
    """Check the rows, and return the displacement of each layer or None and the record; None if the model cannot be probed."""
    generators = generators_of(passes.forward_func)
    run = partial(_two_passes, passes, len(xs[0]))
    experiment = run_first_possible((two_images, whole_batch), xs, field, run, generators)
    if experiment is None:
        return None
    batches, (gradients, first, second), drew = experiment
    names = [f"the output of layer {name}" for name in passes.names]
    for gradient, name in _each_tensor(gradients, names):
        _check_owner(gradient, name)
    named = [(before, name) for before, name in _each_tensor(first, ["the embedding", *names])]
    tolerance = tolerance_of(passes.forward_func, [before for before, _ in named])
    flat, flat_names = [list(column) for column in zip(*named, strict=True)]
    again = partial(_flat_pass, passes, len(xs[0]), batches.first, batches.images)
    check_same(flat, [t for ts in second for t in ts], batches, flat_names, tolerance, again, generators)
    if drew:
        check_order_of_many(xs[0], partial(_many_pass, passes, xs), flat_names, tolerance, generators)
    pairs = zip(first[1:], second[1:], strict=True)
    displaced = [_displacement(before, after, batches, field) for before, after in pairs]
    return displaced, record_of(batches, flat, flat_names, tolerance)


def _two_passes(passes: LayerPasses, count: int, batches: Batches) -> tuple[PerLayer, PerLayer, PerLayer]:
    """Return gradients of the score of the probed image by layer, and output and activations of the first and the second pass."""
    probed = passes.for_rows(batches.images, count)
    with torch.enable_grad():
        result = probed.gradients(batches.first, _score_of_first)
    output, others = probed.activations(batches.second)
    return result.gradients, [(result.output,), *result.activations], [(output,), *others]


def _score_of_first(output: Tensor) -> Tensor:
    """Return the score of the first image (1,)."""
    return output[:1] if output.ndim == 1 else output[:1] @ _direction(output)


def _flat_pass(passes: LayerPasses, count: int, xs: Inputs, images: Sequence[int]) -> list[Tensor]:
    output, activations = passes.for_rows(images, count).activations(xs)
    return [output, *[t for of_layer in activations for t in of_layer]]


def _many_pass(passes: LayerPasses, xs: Inputs, many: Tensor) -> list[Tensor]:
    others = [x[:1].detach().expand(len(many), *x.shape[1:]) for x in xs[1:]]
    return _flat_pass(passes, len(xs[0]), (many, *others), [0] * len(many))


def _direction(output: Tensor) -> Tensor:
    """Return a fixed direction, because a normalised embedding has no gradient towards its own direction."""
    generator = torch.Generator(device="cpu").manual_seed(0)
    return torch.randn(output.shape[1], generator=generator, dtype=torch.float64, device="cpu").to(output)


def _each_tensor(per_layer: PerLayer, names: Sequence[str]) -> Iterator[tuple[Tensor, str]]:
    """Yield all tensors of all layers, each with the name of its layer."""
    for of_layer, name in zip(per_layer, names, strict=True):
        yield from ((t.detach(), name) for t in of_layer)


# -- rows -----------------------------------------------------------------------------------------------


def _check_owner(gradient: Tensor, name: str) -> None:
    """Raise if the gradient of the score of the probed image is not in its own row."""
    largest = gradient.float().flatten(1).abs().amax(1)
    own, others = float(largest[0]), float(largest[1:].amax()) if len(largest) > 1 else 0.0
    if others <= 1e-5 * (own + others):
        return
    if own <= 1e-5 * others:
        raise CaptumLeamError(
            f"Expected row i of {name} to belong to image i, got a score of one image that depends on the row of another. Explain the "
            "network inside, without sorting or shuffling the batch."
        )
    raise CaptumLeamError(depends_message(name, "a gradient in several rows"))


# -- the place of a change ------------------------------------------------------------------------------


def _displacement(
    before: tuple[Tensor, ...], after: tuple[Tensor, ...], batches: Batches, field: Field | None
) -> Displacement | None:
    """Return the displacement of the first patch that appears too far from its place in the tensors (n, C, h, w) of a layer."""
    if field is None or batches.changed is None:
        return None
    first, second = batches.changed
    images = (x for x in zip(batches.first, batches.second, strict=True) if x[0].ndim == 4)
    image_energy = torch.stack([energy_of(y[second].double() - x[first].double()) for x, y in images]).sum(0)
    for a, b in zip(before, after, strict=True):
        found = displacement(image_energy, energy_of(b[second] - a[first]), field)
        if found is not None:
            return found
    return None


def energy_of(change: Tensor) -> Tensor:
    """Return the squared change (h, w), summed over the channels of (C, h, w), in float64."""
    return change.detach().double().square().sum(0)


def displacement(of_picture: Tensor, of_layer: Tensor, field: Field) -> Displacement | None:
    """Return the displacement of a change of the image in a layer, or None if it appears at its place in the grid of the layer.

    The left and the right half of the field are analysed separately. The place of a change is the centroid of its square above the mean.

    Args:
        of_picture: Squared change of the image, (H, W).
        of_layer: Squared change of the activations of the layer, (h, w).
        field: (top, left, height, width) that the grid covers, in pixels.

    Example:
        >>> of_picture, of_layer = torch.zeros(112, 112), torch.zeros(14, 14)
        >>> of_picture[83:97, 85:99] = of_layer[11, 11] = 1.0
        >>> displacement(of_picture, of_layer, (0, 0, 112, 112)) is None
        True
        >>> displacement(of_picture, of_layer.flip(0), (0, 0, 112, 112)).found
        (19.5, 91.5)
    """
    top, left, height, width = field
    grid = (of_layer.shape[0], of_layer.shape[1])
    allowed = [
        ALLOWED_CELLS * side / cells + ALLOWED_SHARE * side for side, cells in zip((height, width), grid, strict=True)
    ]
    on_field = of_picture[top : top + height, left : left + width].to(of_layer)
    pairs = []
    for half in ("left", "right"):
        expected = _place(on_field, half, field)
        found = _place(of_layer, half, field) or _place(of_layer, "both", field)  # a change may move to the other half
        if expected is None or found is None:
            continue
        off = [abs(e - f) / most for e, f, most in zip(expected.centre, found.centre, allowed, strict=True)]
        is_fine = max(grid) > COARSE_GRID
        is_certain = found.spread < CONCENTRATED[is_fine]
        if max(off) > 1 and (is_certain or is_fine):
            return Displacement(expected.centre, found.centre, is_certain)
        pairs += [(expected, found)] if is_certain and is_fine else []
    # Shrinking the image moves each patch a little, and the two towards each other by twice as much.
    if len(pairs) == 2 and any(apart > most for apart, most in zip(_shrinking(*pairs), allowed, strict=True)):
        return Displacement(pairs[0][0].centre, pairs[0][1].centre, True)
    return None


def _shrinking(one: "tuple[Place, Place]", other: "tuple[Place, Place]") -> list[float]:
    """Return how much closer to each other two changes appear than they are, by axis."""
    expected, found = [[abs(a - b) for a, b in zip(one[i].centre, other[i].centre, strict=True)] for i in (0, 1)]
    return [e - f for e, f in zip(expected, found, strict=True)]


class Place(NamedTuple):
    """Place of a change: (row, column) in pixels of the image, and its spread relative to that of a uniform change."""

    centre: tuple[float, float]
    spread: float


def _place(energy: Tensor, half: Literal["left", "right", "both"], field: Field) -> Place | None:
    """Return the place of a change (h, w) within one half of the field; None if nothing changed there."""
    columns = torch.arange(energy.shape[1], device=energy.device)
    inside = (columns >= energy.shape[1] / 2) == (half == "right") if half != "both" else columns >= 0
    energy = torch.where(inside, energy, 0.0)
    energy = torch.where(inside, energy - energy.sum() / (inside.sum() * len(energy)).clamp_min(1), 0.0).clamp(min=0)
    if not bool(torch.isfinite(energy).all()) or not bool(energy.sum() > 0):
        return None
    energy = energy / energy.sum()
    centres, spreads = [], []
    for axis, (start, side) in enumerate(zip(field[:2], field[2:], strict=True)):
        profile = energy.sum(1 - axis)
        cells = torch.arange(len(profile), dtype=profile.dtype, device=profile.device)
        centre = (profile * cells).sum()
        spreads.append(float((profile * (cells - centre).square()).sum().sqrt()) / (len(profile) / 12**0.5))
        centres.append(round(start + (float(centre) + 0.5) * side / len(profile) - 0.5, 1))
    return Place((centres[0], centres[1]), max(spreads))
