r"""Probe of a model: whether the results for an image are its own, before anything is drawn.

A network is run twice, on the batches :math:`[a, c]` and :math:`[c, a']`, where a is the first image at hand, a' is a with two patches
replaced, and c is a companion, made of a turned round and of noise. Four properties follow from the two passes:

* every explained activation has one row for each image;
* row i belongs to image i: the gradient of a's score lies in the row of a alone;
* c has the same embedding and activations in both passes, so that they depend neither on chance nor on the rest of the batch;
* the patches appear in the activations where the layer's grid says they are, so that the grid is that of the picture.

The cost is two forward passes on two images and, where layers are explained, one backward pass. What was established is kept for as long
as the model's modules, attributes, parameters, hooks and code stay the same (:mod:`captum_leam.fingerprint`).
"""

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from dataclasses import field as of_dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from captum_leam.checks import immediate_checks
from captum_leam.fingerprint import anchor_of, entries, generators_of, state_of
from captum_leam.layers import modules_behind
from captum_leam.maps import Field
from captum_leam.memory import is_out_of_memory

if TYPE_CHECKING:
    from captum_leam.passes import LayerPasses

T = TypeVar("T")
Inputs = tuple[Tensor, ...]
PerLayer = list[tuple[Tensor, ...]]

PATCHES = ((0.80, 0.82), (0.45, 0.20))
"""Centres (row, column) of the two patches as shares of the field, one in its right half and one in its left: every turn, mirroring or
transposition moves one of them by a quarter of the field within its half."""

PATCH = 1 / 8
"""Side of a patch as a share of the field."""

EXTREMES = 0.02
"""Share of an image's range that is taken off at both ends of the images beside it: a batch divided by its maximum is seen."""

TOLERANCE = 1e-4
"""Relative distance up to which two activations of one image are equal. Both passes have the same shape: on a CPU they agree to the bit."""

COARSE_TOLERANCE = 0.05
"""The same for half precision, under autocast, and for quantised modules, whose scale is taken over the batch."""

ALLOWED_CELLS, ALLOWED_SHARE = 1.75, 0.05
"""How far a patch may appear from its place: cells of the layer, plus a share of the field's side. Receptive fields are not symmetric."""

CONCENTRATED = 0.7
"""Spread of a patch's effect, relative to that of a uniform one, below which its place is certain."""

COARSE_GRID = 9
"""Cells in a row up to which an effect that is spread out says nothing: late layers mix all positions."""

SHUFFLED_IMAGES = 8
"""Images in the one pass more that a model which draws random numbers gets: a random order keeps none of eight rows in place by luck."""


MOST_STATES = 4
"""States of a model that are remembered: a module and functions around it may take turns."""


class Batches(NamedTuple):
    """The two batches of a probe."""

    first: Inputs
    second: Inputs
    same: tuple[int, int]
    """Row of the image that is the same in both."""
    changed: tuple[int, int] | None
    """Row of the first image, in the first batch, and of the same with its patches replaced, in the second."""
    images: list[int]
    """The caller's image that each row stems from."""


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


# -- batches -------------------------------------------------------------------------------------------


def two_images(xs: Inputs, field: Field | None = None) -> Batches:
    """Return the batches [a, c] and [c, a'] of the first image.

    Example:
        >>> batches = two_images((torch.rand(5, 3, 16, 16),))
        >>> torch.equal(batches.first[0][1], batches.second[0][0])
        True
    """
    originals = [x[:1].detach() for x in xs]
    beside = [_without_extremes(companion(x), x) for x in originals]
    first = tuple(torch.cat(pair) for pair in zip(originals, beside, strict=True))
    changed = [_without_extremes(patched(x, field), x) for x in originals]
    second = tuple(map(torch.cat, zip(beside, changed, strict=True)))
    return Batches(first, second, (1, 0), (0, 1), [0, 0])


def whole_batch(xs: Inputs, field: Field | None = None) -> Batches:
    """Return the batch as it is, and with its first image patched: for models that take one batch size only."""
    first, last = tuple(x.detach() for x in xs), len(xs[0]) - 1
    if not last:
        return Batches(first, first, (0, 0), None, [0])
    second = tuple(torch.cat([patched(x[:1], field), x[1:]]) for x in first)
    return Batches(first, second, (last, last), (0, 0), list(range(last + 1)))


def one_image(xs: Inputs, field: Field | None = None) -> Batches:
    """Return the first image twice: for models that are run image by image."""
    return whole_batch(tuple(x[:1] for x in xs), field)


def companion(x: Tensor) -> Tensor:
    """Return an image that has little in common with this one: the same turned by 180° and mixed with noise.

    Example:
        >>> x = torch.rand(1, 3, 8, 8)
        >>> bool((companion(x) != x).all())
        True
    """
    if not _has_pixels(x):
        return x
    turned = x.flip(2, 3) if x.ndim == 4 else x
    return _mixed(turned, 0.6, x, 0)


def patched(x: Tensor, field: Field | None = None) -> Tensor:
    """Return images with two patches of noise; other floating-point inputs with a little noise on all values.

    Args:
        x: (N, C, H, W), or any other input.
        field: (top, left, height, width) that the network reads. Default: the whole image.

    Example:
        >>> x = torch.rand(1, 3, 112, 112)
        >>> (patched(x) != x).any(1).sum().item()  # two patches of 14 × 14 px
        392
    """
    if not _has_pixels(x):
        return x
    if x.ndim != 4 or min(x.shape[2:]) < 1 / PATCH:
        return _mixed(x, 0.9, x, 1)
    changed = x.clone()
    for place in range(len(PATCHES)):
        rows, columns = patch_slices(place, field or (0, 0, x.shape[2], x.shape[3]))
        changed[:, :, rows, columns] = _mixed(x[:, :, rows, columns], 0.0, x, 1 + place)
    return changed


def _has_pixels(x: Tensor) -> bool:
    """Whether values between two of a tensor mean something: floating-point numbers, and pictures in bytes."""
    return torch.is_floating_point(x) or (x.ndim == 4 and x.dtype == torch.uint8)


def _without_extremes(changed: Tensor, x: Tensor) -> Tensor:
    """Clamp an image to a little less than the range of x, so that the extremes of a batch with x in it are others."""
    if not torch.is_floating_point(x) or not x.numel():
        return changed
    low, high = x.amin(), x.amax()
    margin = EXTREMES * (high - low)
    return changed.clamp(low + margin, high - margin)


def _mixed(region: Tensor, share: float, x: Tensor, seed: int) -> Tensor:
    """A share of a region and, for the rest, noise within the range of x."""
    if not x.numel():
        return region
    generator = torch.Generator(device="cpu").manual_seed(seed)
    dtype = x.dtype if torch.is_floating_point(x) else torch.float32
    low, high = x.amin().to(dtype), x.amax().to(dtype)
    noise = torch.rand(region.shape, generator=generator, dtype=torch.float64, device="cpu").to(x.device, dtype)
    return (share * region + (1 - share) * (low + torch.where(high > low, high - low, 1) * noise)).to(x.dtype)


def patch_slices(place: int, field: Field) -> tuple[slice, slice]:
    """Return the rows and columns of a patch.

    Example:
        >>> patch_slices(0, (0, 0, 112, 112))
        (slice(83, 97, None), slice(85, 99, None))
    """
    slices = []
    for start, side, share in zip(field[:2], field[2:], PATCHES[place], strict=True):
        width = max(2, round(side * PATCH))
        first = start + min(max(0, round(side * share - width / 2)), side - width)
        slices.append(slice(first, first + width))
    return slices[0], slices[1]


# -- the probe of a model ------------------------------------------------------------------------------


def check_model(
    forward_func: Callable[..., Any], images: Tensor, embed: Callable[[Tensor], Tensor], batch_size: int = 2
) -> None:
    """Raise if an image's embedding depends on chance, on the other images of its batch or on its row.

    Args:
        forward_func: The model, for what is kept about it.
        images: (N, …), as the model takes them.
        embed: Function from a batch to embeddings (n, D), without gradients.
        batch_size: Images in one pass of the call. With 1, nothing is asked about other images.

    Raises:
        ValueError: as said above. What the model itself raises in the probe is left to the call.

    Example:
        >>> images = torch.rand(3, 3, 16, 16)
        >>> check_model(nn.Flatten(), images, nn.Flatten())
        >>> subtract_mean = lambda x: (x - x.mean(0)).flatten(1)
        >>> check_model(subtract_mean, images, subtract_mean)
        Traceback (most recent call last):
        ...
        ValueError: Expected the embedding for an image not to depend on the other images of its batch, ...
    """
    if not _can_be_probed((images,)):
        return
    key = ("embeddings", batch_size == 1, _kind(images))
    with _knowledge(forward_func) as established:
        if key in established:
            return
        own = generators_of(forward_func)
        experiments = (one_image,) if batch_size == 1 else (two_images, whole_batch)
        experiment = _first_that_runs(
            experiments, (images,), None, lambda b: ([embed(b.first[0])], [embed(b.second[0])]), own
        )
        if experiment is None:
            return
        batches, (first, second), drew = experiment
        names, tolerance = ["the embedding"], _tolerance(forward_func, first)
        _check_same(first, second, batches, names, tolerance, lambda: [embed(batches.first[0])], own)
        if drew and batch_size > 1:
            _check_order_of_many(images, lambda many: [embed(many)], names, tolerance, own)
        established[key] = True


def check_layers(passes: "LayerPasses", xs: Inputs, field: Field | None = None) -> dict[nn.Module, Displacement]:
    """Raise if a layer's rows are not those of the images; return the layers whose grid is not that of the picture.

    Args:
        passes: The model with the layers to record.
        xs: Inputs of the call, (N, …) each.
        field: (top, left, height, width) of the picture that the layers' grids are laid on. None: grids are not looked at.

    Returns:
        Displaced layers, with where a change appears in them. Empty for a sound model, or without a field.

    Raises:
        ValueError: if rows of a layer or of the embedding depend on chance or on the rest of the batch, or are in another order.
            What the model itself raises in the probe is left to the call.

    Example:
        >>> from captum_leam.passes import LayerPasses
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 256, 8)).eval()
        >>> upside_down = lambda x: model(x.flip(2))
        >>> images = torch.rand(2, 3, 32, 32)
        >>> check_layers(LayerPasses(model, [model[1]]), (images,), field=(0, 0, 32, 32))
        {}
        >>> check_layers(LayerPasses(upside_down, [model[1]]), (images,), field=(0, 0, 32, 32)).keys() == {model[1]}
        True
    """
    if not _can_be_probed(xs):
        return {}
    kind = (passes.layer_input, *map(_kind, xs), *map(_kind, passes.args))
    keys = [(kind, id(layer), state_of(reshape)) for layer, reshape in zip(passes.layers, passes.reshapes, strict=True)]
    with _knowledge(passes.forward_func, passes.layers) as established:
        if any((key, field) not in established for key in keys):
            found = _probe_layers(passes, xs, field)
            if found is None:
                return {}
            established |= {(key, at): one for key, one in zip(keys, found, strict=True) for at in (None, field)}
        displaced = [established[key, field] for key in keys]
    return {layer: d for layer, d in zip(passes.layers, displaced, strict=True) if d is not None}


def _probe_layers(passes: "LayerPasses", xs: Inputs, field: Field | None) -> list[Displacement | None] | None:
    """Displacement of every layer or None, after the checks of rows; None if the model cannot be probed."""
    own = generators_of(passes.forward_func)
    experiment = _first_that_runs((two_images, whole_batch), xs, field, partial(_two_passes, passes, len(xs[0])), own)
    if experiment is None:
        return None
    batches, (gradients, first, second), drew = experiment
    names = [f"the output of layer {passes.names[layer]}" for layer in passes.layers]
    for gradient, name in _each_tensor(gradients, names):
        _check_owner(gradient, name)
    named = [(before, name) for before, name in _each_tensor(first, ["the embedding", *names])]
    tolerance = _tolerance(passes.forward_func, [before for before, _ in named])
    flat, flat_names = [list(column) for column in zip(*named, strict=True)]
    again = partial(_flat_pass, passes, len(xs[0]), batches.first, batches.images)
    _check_same(flat, [t for ts in second for t in ts], batches, flat_names, tolerance, again, own)
    if drew:
        _check_order_of_many(xs[0], partial(_many_pass, passes, xs), flat_names, tolerance, own)
    return [_displacement(before, after, batches, field) for before, after in zip(first[1:], second[1:], strict=True)]


def _two_passes(passes: "LayerPasses", count: int, batches: Batches) -> tuple[PerLayer, PerLayer, PerLayer]:
    """Gradients of the first image's score by layer; output and activations in the first pass; the same in the second."""
    probed = passes.for_rows(batches.images, count)
    outputs: list[Tensor] = []

    def score(output: Tensor) -> Tensor:
        outputs.append(output.detach())
        return output[:1] if output.ndim == 1 else output[:1] @ _direction(output)

    with torch.enable_grad():
        gradients, activations = probed.gradients(batches.first, score)
    output, others = probed.activations(batches.second)
    return gradients, [(outputs[-1],), *activations], [(output,), *others]


def _flat_pass(passes: "LayerPasses", count: int, xs: Inputs, images: Sequence[int]) -> list[Tensor]:
    output, activations = passes.for_rows(images, count).activations(xs)
    return [output, *[t for of_layer in activations for t in of_layer]]


def _many_pass(passes: "LayerPasses", xs: Inputs, many: Tensor) -> list[Tensor]:
    others = [x[:1].detach().expand(len(many), *x.shape[1:]) for x in xs[1:]]
    return _flat_pass(passes, len(xs[0]), (many, *others), [0] * len(many))


def _direction(output: Tensor) -> Tensor:
    """A fixed direction: towards its own one, a normalised embedding has no gradient."""
    generator = torch.Generator(device="cpu").manual_seed(0)
    return torch.randn(output.shape[1], generator=generator, dtype=torch.float64, device="cpu").to(output)


def _each_tensor(per_layer: PerLayer, names: Sequence[str]) -> Iterator[tuple[Tensor, str]]:
    """The tensors of all layers, each with the name of its layer, which may put out several."""
    for of_layer, name in zip(per_layer, names, strict=True):
        yield from ((t.detach(), name) for t in of_layer)


# -- what is looked at ---------------------------------------------------------------------------------


def _check_owner(gradient: Tensor, name: str) -> None:
    """Raise if the gradient of the first image's score lies in other rows."""
    largest = gradient.float().flatten(1).abs().amax(1)
    own, others = float(largest[0]), float(largest[1:].amax()) if len(largest) > 1 else 0.0
    if others <= 1e-5 * (own + others):
        return
    if own <= 1e-5 * others:
        raise ValueError(
            f"Expected row i of {name} to belong to image i, but the score of image 0 depends on another row: the model sorts or "
            "shuffles its batch. Explain the network inside, without the reordering."
        )
    raise ValueError(_depends(name, "a gradient in several rows"))


def _check_same(
    first: Sequence[Tensor],
    second: Sequence[Tensor],
    batches: Batches,
    names: Sequence[str],
    tolerance: float,
    repeat: Callable[[], Sequence[Tensor]],
    generators: Sequence[Any],
) -> None:
    """Raise if the same image has other values in the second pass; two more passes tell chance from the rest of the batch."""
    own, later = batches.same
    for before, after, name in zip(first, second, names, strict=True):
        off = _distance(before[own], after[later])
        if off <= tolerance:
            continue
        with _watched_random_numbers(generators), immediate_checks():
            pairs = list(zip(repeat(), repeat(), strict=True))
        drawn = max(_distance(once, again) for once, again in pairs)
        if drawn > tolerance:
            raise ValueError(
                f"Expected two passes over the same images to agree, got a relative difference of {drawn:.2g}: results would be random. "
                "Let dropout and noise depend on self.training (F.dropout has training=True by default), and call model.eval()."
            )
        raise ValueError(_depends(name, f"a relative difference of {off:.2g} beside another image"))


def _depends(what: str, found: str) -> str:
    return (
        f"Expected {what} for an image not to depend on the other images of its batch, got {found}: every image's map would depend on the "
        "others. Does the model use statistics of the batch, or sort or shuffle it? Use running statistics (model.eval()), or explain the "
        "network inside."
    )


def _check_order_of_many(
    x: Tensor,
    run: Callable[[Tensor], Sequence[Tensor]],
    names: Sequence[str],
    tolerance: float,
    generators: Sequence[Any],
) -> None:
    """Raise if a model that draws random numbers gives eight shades of an image and the same turned round other rows."""
    shades = torch.linspace(0.8, 1.0, SHUFFLED_IMAGES, dtype=torch.float64, device="cpu").to(x)
    many = x[:1].detach() * shades.view(-1, *[1] * (x.ndim - 1))
    try:
        with _watched_random_numbers(generators), immediate_checks():
            pairs = list(zip(run(many), run(many.flip(0)), names, strict=True))
    except Exception:  # a model that does not take eight images: what it did on two has to do
        return
    for once, again, name in pairs:
        if _distance(once, again.flip(0)) > tolerance:
            raise ValueError(
                f"Expected {name} to keep the order of the images, but the model draws random numbers, and two passes over "
                f"{SHUFFLED_IMAGES} images differ: results would be random. Remove the shuffling, or explain the network inside."
            )


def _distance(a: Tensor, b: Tensor) -> float:
    """Distance of two tensors relative to their length; 0 where either is not finite, which the call itself reports."""
    if a.shape != b.shape:
        return float("inf")
    a, b = a.detach().float(), b.detach().float()
    length = torch.maximum(torch.linalg.vector_norm(a), torch.linalg.vector_norm(b))
    off = float(torch.linalg.vector_norm(a - b) / length.clamp_min(torch.finfo(torch.float32).tiny))
    return off if np.isfinite(off) else 0.0


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
        is_certain = found.spread < CONCENTRATED
        if max(off) > 1 and (is_certain or max(grid) > COARSE_GRID):
            return Displacement(expected.centre, found.centre, is_certain)
        pairs += [(expected, found)] if is_certain else []
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
    """The place of a change (h, w) within one half of the field; None if nothing changed there."""
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


# -- running it ----------------------------------------------------------------------------------------


def _first_that_runs(
    experiments: Sequence[Callable[[Inputs, Field | None], Batches]],
    xs: Inputs,
    field: Field | None,
    run: Callable[[Batches], T],
    generators: Sequence[Any],
) -> tuple[Batches, T, bool] | None:
    """The batches and the result of the first experiment that runs, and whether random numbers were drawn; None if all raise."""
    for make in experiments:
        batches = make(xs, field)
        try:
            with _watched_random_numbers(generators) as drew, immediate_checks():
                result = run(batches)
        except Exception as error:  # whatever it is, the call itself will say it of the caller's images
            if is_out_of_memory(error):
                return None
            continue
        return batches, result, bool(drew)
    return None


@contextmanager
def _watched_random_numbers(generators: Sequence[Any]) -> Iterator[list[str]]:
    """Context manager that leaves the process's and the model's random numbers as they were and lists what moved."""
    own = [_random_state(generator) for generator in generators]
    drew: list[str] = []
    of_numpy, of_python = np.random.get_state(), random.getstate()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    try:
        with torch.random.fork_rng(devices=devices):
            before = [torch.get_rng_state(), *map(torch.cuda.get_rng_state, devices)]
            yield drew
            after = [torch.get_rng_state(), *map(torch.cuda.get_rng_state, devices)]
        if any(not torch.equal(a, b) for a, b in zip(before, after, strict=True)):
            drew.append("torch")
    finally:
        for generator, (state, put_back) in zip(generators, own, strict=True):
            if str(_random_state(generator)[0]) != str(state):
                drew.append(type(generator).__name__)
                put_back()
        if str(np.random.get_state()) != str(of_numpy):
            drew.append("numpy")
            np.random.set_state(of_numpy)
        if random.getstate() != of_python:
            drew.append("random")
            random.setstate(of_python)


def _random_state(generator: Any) -> tuple[Any, Callable[[], Any]]:
    """The state of a generator of PyTorch, NumPy or Python, and a function that puts it back."""
    if isinstance(generator, torch.Generator):
        state = generator.get_state()
        return state.tolist(), lambda: generator.set_state(state)
    if isinstance(generator, np.random.Generator):
        of_bits = generator.bit_generator.state
        return of_bits, lambda: setattr(generator.bit_generator, "state", of_bits)
    if isinstance(generator, np.random.RandomState):
        legacy = generator.get_state()
        return legacy, lambda: generator.set_state(legacy)
    drawn = generator.getstate()
    return drawn, lambda: generator.setstate(drawn)


def _can_be_probed(xs: Inputs) -> bool:
    return bool(xs) and all(x.ndim > 0 and len(x) > 0 for x in xs) and any(map(_has_pixels, xs))


def _kind(x: Any) -> Any:
    """What of an argument the model may go another way for."""
    if not isinstance(x, Tensor):
        return state_of(x)
    return (tuple(x.shape[1:]), x.dtype, x.device, torch.is_autocast_enabled(x.device.type))


def _tolerance(forward_func: Callable[..., Any], tensors: Sequence[Tensor]) -> float:
    half = (torch.float16, torch.bfloat16)
    coarse = any(t.dtype in half or torch.is_autocast_enabled(t.device.type) for t in tensors)
    modules = (m for root in modules_behind(forward_func) for m in root.modules())
    return COARSE_TOLERANCE if coarse or any(_is_coarse(m) for m in modules) else TOLERANCE


def _is_coarse(module: nn.Module) -> bool:
    half = any(p is not None and p.dtype in (torch.float16, torch.bfloat16) for p in module._parameters.values())
    return half or "quantized" in type(module).__module__


# -- what is kept --------------------------------------------------------------------------------------


@dataclass
class _Known:
    """What was established about a model in one state.

    Attributes:
        state: Entries of the model when it was probed.
        volatile: Entries that a forward pass changes.
        established: Kind of question → what was found.
    """

    state: dict[Any, Any]
    volatile: set[Any] = of_dataclass(default_factory=set)
    established: dict[Any, Any] = of_dataclass(default_factory=dict)

    def is_of(self, state: dict[Any, Any]) -> bool:
        """Whether the model is still in this state, but for what its forward passes change."""
        if self.state == state:
            return True
        return all(self.state.get(key) == state.get(key) for key in (self.state.keys() | state.keys()) - self.volatile)


_KNOWN: WeakKeyDictionary[Any, list[_Known]] = WeakKeyDictionary()
_LOCK = threading.Lock()


@contextmanager
def _knowledge(forward_func: Callable[..., Any], layers: Sequence[nn.Module] = ()) -> Iterator[dict[Any, Any]]:
    """Context manager with what was established about a model as it is now, to read and to add to."""
    anchor, state = anchor_of(forward_func), entries(forward_func, layers)
    states = _look_up(anchor)
    for known in states:
        if known.is_of(state):
            yield known.established
            return
    known = _Known(state)
    yield known.established
    after = entries(forward_func, layers)
    known.volatile = {key for key in state.keys() | after.keys() if state.get(key) != after.get(key)}
    with _LOCK, suppress(TypeError):  # a callable without weak references: nothing is kept about it
        _KNOWN[anchor] = [known, *states][:MOST_STATES]


def _look_up(anchor: Any) -> list[_Known]:
    with _LOCK:
        try:
            return _KNOWN.get(anchor, [])
        except TypeError:
            return []
