"""Probe of a model's layers: whose rows they put out, and whether their grid lies on the picture.

See :mod:`captum_leam._engine.probe` for the two passes that this is read from.
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
    first_that_runs,
    kind_of,
    knowledge,
    record_of,
    tolerance_of,
    two_images,
    whole_batch,
)
from captum_leam._engine.types import Field
from captum_leam.errors import CaptumLeamError

ALLOWED_CELLS, ALLOWED_SHARE = 1.75, 0.05
"""How far a patch may appear from its place: cells of the layer, plus a share of the field's side. Receptive fields are not symmetric."""

CONCENTRATED = {False: 0.5, True: 0.7}
"""Spread of a patch's effect, relative to that of a uniform one, below which its place is certain: of coarse grids and of fine ones."""

RECORD = "record"
"""What the results of the probe are kept as until the first batch."""

COARSE_GRID = 9
"""Cells in a row up to which a grid is coarse: late layers mix all positions, so that an effect that is spread out says nothing."""


@dataclass(frozen=True)
class Displacement:
    """Where a change of the picture appears in a layer, instead of where it is.

    Example:
        >>> Displacement((10.0, 20.0), (10.0, 92.0), True)
        Displacement(expected=(10.0, 20.0), found=(10.0, 92.0), is_certain=True)
    """

    expected: tuple[float, float]
    """(row, column) of the change in pixels of the picture."""
    found: tuple[float, float]
    """Where the layer's map would show it."""
    is_certain: bool
    """Whether the change is concentrated there. It is spread out where a layer's two last axes are not positions."""

    def message(self, name: str) -> str:
        """Return the refusal, naming the layer and the way out."""
        (row, column), (to_row, to_column) = self.expected, self.found
        return (
            f"Expected the grid of layer {name} to lie on the picture, but a change around row {row:.0f}, column {column:.0f} appears "
            f"around row {to_row:.0f}, column {to_column:.0f} of its map: the model pads, turns, mirrors or warps the picture inside. Do "
            "that to the images yourself and explain the network after it."
        )


@dataclass(frozen=True)
class LayerProbe:
    """What the probe found.

    Attributes:
        displaced: Layers whose grid is not that of the images, with where a change appears in them.
        record: Results to compare with those of the first batch; None where the probe did not run, or did so for an earlier call.
    """

    displaced: dict[nn.Module, Displacement]
    record: ProbeRecord | None = None

    def compare(self, xs: Inputs, output: Tensor, activations: PerLayer) -> None:
        """Raise if an image has other results in a batch of three or more than in the probe.

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
    """Raise if a layer's rows are not those of the images; find the layers whose grid is not that of the images.

    Args:
        passes: The model with the layers to record.
        xs: Inputs of the call, (N, …) each.
        field: Part (top, left, height, width) of the images that the layers' grids are laid on. None: grids are not compared.
        within: The same for the model within an objective, which is probed instead. Default: ``passes``.

    Returns:
        What was found; without displaced layers for a sound model, or without a field.

    Raises:
        InputTypeError: if hooks do not reach into the model, see :func:`raise_if_unexplainable`.
        CaptumLeamError: if the model is in training mode, or if rows of a layer or of the embedding depend on the rest of the batch,
            or are in another order. Errors of the model itself in the probe are left to the call.

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
    whole, passes = passes, within or passes
    kind = (passes.layer_input, *map(kind_of, xs), *map(kind_of, passes.args))
    pairs = zip(passes.layers, passes.reshapes, strict=True)
    keys = [(kind, id(layer), reshape and state_of(reshape)) for layer, reshape in pairs]
    with knowledge(passes.forward_func, passes.layers) as established:
        if "explainable" not in established:
            raise_if_unexplainable(whole.forward_func, whole.layers)
            established["explainable"] = True
        if any((key, field) not in established for key in keys):
            results = _probe_layers(passes, xs, field) if can_be_probed(xs) else None
            if results is None:
                return LayerProbe({})
            places, record = results
            established |= {(key, at): one for key, one in zip(keys, places, strict=True) for at in (None, field)}
            established[RECORD] = None if record is None else (keys, record)
        known = (
            established.pop(RECORD, None) if field is None else None
        )  # without a field, the passes of this call are next
        record = None if known is None else _of_layers(known, keys)
        places = [established[key, field] for key in keys]
    return LayerProbe({layer: d for layer, d in zip(passes.layers, places, strict=True) if d is not None}, record)


def _of_layers(known: tuple[list[Any], ProbeRecord], keys: list[Any]) -> ProbeRecord | None:
    """Return the record of some layers, where those of the probe are among them with one tensor each."""
    if len(known[0]) != len(known[1].values) - 1 or not set(keys) <= set(known[0]):
        return None
    rows = [0, *(1 + known[0].index(key) for key in keys)]
    return replace(known[1], values=[known[1].values[i] for i in rows], names=[known[1].names[i] for i in rows])


def _probe_layers(
    passes: LayerPasses, xs: Inputs, field: Field | None
) -> tuple[list[Displacement | None], ProbeRecord | None] | None:
    """Displacement of every layer or None, after the checks of rows, and the record; None if the model cannot be probed."""
    own = generators_of(passes.forward_func)
    experiment = first_that_runs((two_images, whole_batch), xs, field, partial(_two_passes, passes, len(xs[0])), own)
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
    check_same(flat, [t for ts in second for t in ts], batches, flat_names, tolerance, again, own)
    if drew:
        check_order_of_many(xs[0], partial(_many_pass, passes, xs), flat_names, tolerance, own)
    pairs = zip(first[1:], second[1:], strict=True)
    displaced = [_displacement(before, after, batches, field) for before, after in pairs]
    return displaced, record_of(batches, flat, flat_names, tolerance)


def _two_passes(passes: LayerPasses, count: int, batches: Batches) -> tuple[PerLayer, PerLayer, PerLayer]:
    """Gradients of the probed image's score by layer; output and activations in the first pass; the same in the second."""
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
    """Return a fixed direction: towards its own one, a normalised embedding has no gradient."""
    generator = torch.Generator(device="cpu").manual_seed(0)
    return torch.randn(output.shape[1], generator=generator, dtype=torch.float64, device="cpu").to(output)


def _each_tensor(per_layer: PerLayer, names: Sequence[str]) -> Iterator[tuple[Tensor, str]]:
    """Yield the tensors of all layers, each with the name of its layer, which may put out several."""
    for of_layer, name in zip(per_layer, names, strict=True):
        yield from ((t.detach(), name) for t in of_layer)


# -- rows -----------------------------------------------------------------------------------------------


def _check_owner(gradient: Tensor, name: str) -> None:
    """Raise if the gradient of the probed image's score lies in other rows."""
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
    """Where one of the patches appears in a layer's tensors (n, C, h, w), if that is too far from its place."""
    if field is None or batches.changed is None:
        return None
    first, second = batches.changed
    pictures = (x for x in zip(batches.first, batches.second, strict=True) if x[0].ndim == 4)
    of_picture = torch.stack([energy_of(y[second].double() - x[first].double()) for x, y in pictures]).sum(0)
    for one, other in zip(before, after, strict=True):
        found = displacement(of_picture, energy_of(other[second] - one[first]), field)
        if found is not None:
            return found
    return None


def energy_of(change: Tensor) -> Tensor:
    """Return the squared change (h, w), summed over the channels of (C, h, w), in float64."""
    return change.detach().double().square().sum(0)


def displacement(of_picture: Tensor, of_layer: Tensor, field: Field) -> Displacement | None:
    """Return where a change of the picture appears in a layer, or None if it is where the layer's grid says.

    The left and the right half of the field are looked at one by one. In each, a place is the centre of the squared change, as far as it
    is above its mean.

    Args:
        of_picture: (H, W), squared change of the picture.
        of_layer: (h, w), squared change of the layer's activations.
        field: (top, left, height, width) that the grid is laid on.

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
        found = _place(of_layer, half, field) or _place(of_layer, "both", field)  # what left its half is in the other
        if expected is None or found is None:
            continue
        off = [abs(e - f) / most for e, f, most in zip(expected.centre, found.centre, allowed, strict=True)]
        is_fine = max(grid) > COARSE_GRID
        is_certain = found.spread < CONCENTRATED[is_fine]
        if max(off) > 1 and (is_certain or is_fine):
            return Displacement(expected.centre, found.centre, is_certain)
        pairs += [(expected, found)] if is_certain and is_fine else []
    # a picture that was shrunk moves each patch a little, and the two towards each other by twice as much
    if len(pairs) == 2 and any(apart > most for apart, most in zip(_shrinking(*pairs), allowed, strict=True)):
        return Displacement(pairs[0][0].centre, pairs[0][1].centre, True)
    return None


def _shrinking(one: "tuple[Place, Place]", other: "tuple[Place, Place]") -> list[float]:
    """How much nearer to each other two changes appear than they are, by axis."""
    expected, found = [[abs(a - b) for a, b in zip(one[i].centre, other[i].centre, strict=True)] for i in (0, 1)]
    return [e - f for e, f in zip(expected, found, strict=True)]


class Place(NamedTuple):
    """Where a change lies: (row, column) in pixels of the picture, and its spread relative to that of a uniform one."""

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
