r"""Probe of a model: whether the results for an image are its own, before anything is drawn.

A network is run twice, on the batches :math:`[a, b]` and :math:`[b', a]`, where a is the first image at hand, b is a with one patch
replaced, and b' is b with a second patch replaced. Four properties follow from the two passes:

* every explained activation has one row for each image;
* row i belongs to image i: the gradient of a's score lies in the row of a alone;
* a has the same embedding and activations in both passes, so that they depend neither on chance nor on the rest of the batch;
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
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from captum_leam.checks import immediate_checks
from captum_leam.fingerprint import anchor_of, entries, state_of
from captum_leam.layers import modules_behind
from captum_leam.maps import Field

if TYPE_CHECKING:
    from captum_leam.passes import LayerPasses

T = TypeVar("T")
Inputs = tuple[Tensor, ...]
PerLayer = list[tuple[Tensor, ...]]

PATCHES = ((0.62, 0.82), (0.32, 0.20))
"""Centres (row, column) of the two patches as shares of the field: no turn, mirroring or transposition leaves the first in place."""

PATCH = 1 / 8
"""Side of a patch as a share of the field."""

TOLERANCE = 1e-4
"""Relative distance up to which two activations of one image are equal. Both passes have the same shape: on a CPU they agree to the bit."""

COARSE_TOLERANCE = 0.05
"""The same for half precision, under autocast, and for quantised modules, whose scale is taken over the batch."""

ALLOWED_CELLS, ALLOWED_SHARE = 1.25, 0.04
"""How far a patch may appear from its place: cells of the layer, plus a share of the field's side. Receptive fields are not symmetric."""

CONCENTRATED = 0.5
"""Spread of a patch's effect, relative to that of a uniform one, below which its place is certain."""

SHUFFLED_IMAGES = 8
"""Images in the one pass more that a model which draws random numbers gets: a random order keeps none of eight rows in place by luck."""


class Batches(NamedTuple):
    """The two batches of a probe."""

    first: Inputs
    second: Inputs
    rows: tuple[int, int]
    """Row of the unaltered image in each."""
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
    """Return the batches [a, b] and [b', a] of the first image.

    Example:
        >>> first, second, rows, _ = two_images((torch.rand(5, 3, 16, 16),))
        >>> first[0].shape, bool((first[0][rows[0]] == second[0][rows[1]]).all())
        (torch.Size([2, 3, 16, 16]), True)
    """
    originals = tuple(x[:1].detach() for x in xs)
    once = tuple(altered(x, 0, field) for x in originals)
    twice = tuple(altered(x, 1, field) for x in once)
    pairs = zip(originals, once, twice, strict=True)
    first, second = zip(*[(torch.cat([a, b]), torch.cat([c, a])) for a, b, c in pairs], strict=True)
    return Batches(first, second, (0, 1), [0, 0])


def whole_batch(xs: Inputs, field: Field | None = None) -> Batches:
    """Return the batch as it is, and with every image but the first altered: for models that take one batch size only."""
    first = tuple(x.detach() for x in xs)
    second = tuple(torch.cat([x[:1], altered(x[1:], 0, field)]) for x in first)
    return Batches(first, second, (0, 0), list(range(len(xs[0]))))


def altered(x: Tensor, place: int, field: Field | None = None) -> Tensor:
    """Return images with one patch replaced; other floating-point inputs with noise on all values.

    The patch becomes brighter in dark images and darker in bright ones, so that both patches change the brightness in one direction.

    Args:
        x: (N, C, H, W), or any other input.
        place: Number of the patch, an index of :data:`PATCHES`.
        field: (top, left, height, width) that the network reads. Default: the whole image.

    Example:
        >>> x = torch.zeros(1, 1, 16, 16)
        >>> (altered(x + torch.eye(16), 0) != x + torch.eye(16)).nonzero()[:, 2:].float().mean(0).tolist()
        [9.5, 12.5]
    """
    if not torch.is_floating_point(x) or not x.numel():
        return x
    low, high = x.amin(), x.amax()
    generator = torch.Generator(device="cpu").manual_seed(place)
    if x.ndim != 4 or min(x.shape[2:]) < 1 / PATCH:
        noise = torch.rand(x.shape, generator=generator, dtype=torch.float64, device="cpu").to(x)
        return x + 0.1 * (high - low + (high == low)) * (noise - 0.5)
    rows, columns = patch_slices(place, field or (0, 0, x.shape[2], x.shape[3]))
    region = x[:, :, rows, columns]
    noise = torch.rand(region.shape, generator=generator, dtype=torch.float64, device="cpu").to(x)
    drawn = low + (high - low + (high == low)) * noise
    changed = x.clone()
    changed[:, :, rows, columns] = torch.where(
        x.mean() < (low + high) / 2, region.maximum(drawn), region.minimum(drawn)
    )
    return changed


def patch_slices(place: int, field: Field) -> tuple[slice, slice]:
    """Return the rows and columns of a patch.

    Example:
        >>> patch_slices(0, (0, 0, 112, 112))
        (slice(62, 76, None), slice(85, 99, None))
    """
    slices = []
    for start, side, share in zip(field[:2], field[2:], PATCHES[place], strict=True):
        width = max(2, round(side * PATCH))
        first = start + min(max(0, round(side * share - width / 2)), side - width)
        slices.append(slice(first, first + width))
    return slices[0], slices[1]


# -- the probe of a model ------------------------------------------------------------------------------


def check_model(forward_func: Callable[..., Any], images: Tensor, embed: Callable[[Tensor], Tensor]) -> None:
    """Raise if an image's embedding depends on chance, on the other images of its batch or on its row.

    Args:
        forward_func: The model, for what is kept about it.
        images: (N, …), as the model takes them.
        embed: Function from a batch to embeddings (n, D), without gradients.

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
    key = ("embeddings", _kind(images))
    with _knowledge(forward_func) as established:
        if key in established:
            return
        experiment = _first_that_runs((images,), None, lambda b: ([embed(b.first[0])], [embed(b.second[0])]))
        if experiment is None:
            return
        batches, (first, second), drew = experiment
        names, tolerance = ["the embedding"], _tolerance(forward_func, first)
        _check_same(first, second, batches, names, tolerance, lambda: [embed(batches.first[0])])
        if drew:
            _check_order_of_many(images, lambda many: [embed(many)], names, tolerance)
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
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 64, 8)).eval()
        >>> mirrored = lambda x: model(x.flip(3))
        >>> images = torch.rand(2, 3, 16, 16)
        >>> check_layers(LayerPasses(model, [model[1]]), (images,), field=(0, 0, 16, 16))
        {}
        >>> displaced = check_layers(LayerPasses(mirrored, [model[1]]), (images,), field=(0, 0, 16, 16))
        >>> displaced[model[1]].expected[1] > 8 > displaced[model[1]].found[1]
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
    experiment = _first_that_runs(xs, field, partial(_two_passes, passes, len(xs[0])))
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
    _check_same(flat, [t for ts in second for t in ts], batches, flat_names, tolerance, again)
    if drew:
        _check_order_of_many(xs[0], partial(_many_pass, passes, xs), flat_names, tolerance)
    if field is None or batches.rows == (0, 0):
        return [None] * len(passes.layers)
    return [_displacement(before, after, field) for before, after in zip(first[1:], second[1:], strict=True)]


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
) -> None:
    """Raise if the same image has other values in the second pass; two more passes tell chance from the rest of the batch."""
    own, later = batches.rows
    for before, after, name in zip(first, second, names, strict=True):
        off = _distance(before[own], after[later])
        if off <= tolerance:
            continue
        with _watched_random_numbers(), immediate_checks():
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
    x: Tensor, run: Callable[[Tensor], Sequence[Tensor]], names: Sequence[str], tolerance: float
) -> None:
    """Raise if a model that draws random numbers gives eight shades of an image and the same turned round other rows."""
    shades = torch.linspace(0.8, 1.0, SHUFFLED_IMAGES, dtype=torch.float64, device="cpu").to(x)
    many = x[:1].detach() * shades.view(-1, *[1] * (x.ndim - 1))
    try:
        with _watched_random_numbers(), immediate_checks():
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


def _displacement(before: tuple[Tensor, ...], after: tuple[Tensor, ...], field: Field) -> Displacement | None:
    """Where one of the patches appears in a layer's tensors (2, C, h, w), if that is too far from its place."""
    for [a, b], [c, _] in zip(before, after, strict=True):
        for place, change in enumerate((b - a, c - b)):
            if (found := displacement(change, place, field)) is not None:
                return found
    return None


def displacement(change: Tensor, place: int, field: Field) -> Displacement | None:
    """Return where the change by a patch appears in a layer, or None if it is where the layer's grid says.

    The place is the centre of the squared change, summed over channels, as far as it is above its mean.

    Args:
        change: (C, h, w), difference of the activations.
        place: Number of the patch.
        field: (top, left, height, width) that the grid is laid on.

    Example:
        >>> change = torch.zeros(1, 14, 14)
        >>> change[0, 8, 11] = 1.0
        >>> displacement(change, 0, (0, 0, 112, 112)) is None, displacement(change.flip(2), 0, (0, 0, 112, 112)).found
        (True, (67.5, 19.5))
    """
    energy = change.detach().double().square().sum(0)
    energy = (energy - energy.mean()).clamp(min=0)
    if min(energy.shape) < 2 or not bool(torch.isfinite(energy).all()) or not bool(energy.sum() > 0):
        return None
    energy = energy / energy.sum()
    expected, found, allowed, spreads = [], [], [], []
    for axis, (start, side, pixels) in enumerate(zip(field[:2], field[2:], patch_slices(place, field), strict=True)):
        profile = energy.sum(1 - axis)
        cells = torch.arange(len(profile), dtype=torch.float64, device=profile.device)
        centre = (profile * cells).sum()
        uniform = ((len(profile) ** 2 - 1) / 12) ** 0.5
        spreads.append(float((profile * (cells - centre).square()).sum().sqrt()) / uniform)
        expected.append((pixels.start + pixels.stop - 1) / 2)
        found.append(start + (float(centre) + 0.5) * side / len(profile) - 0.5)
        allowed.append(ALLOWED_CELLS * side / len(profile) + ALLOWED_SHARE * side)
    if all(abs(e - f) <= most for e, f, most in zip(expected, found, allowed, strict=True)):
        return None
    rounded = (round(found[0], 1), round(found[1], 1))
    return Displacement((expected[0], expected[1]), rounded, max(spreads) < CONCENTRATED)


# -- running it ----------------------------------------------------------------------------------------


def _first_that_runs(xs: Inputs, field: Field | None, run: Callable[[Batches], T]) -> tuple[Batches, T, bool] | None:
    """The experiment on two images, or else on the whole batch, and whether random numbers were drawn; None if both raise."""
    for make in (two_images, whole_batch):
        batches = make(xs, field)
        try:
            with _watched_random_numbers() as drew, immediate_checks():
                result = run(batches)
        except Exception:  # noqa: S112 - whatever it is, the call itself will say it of the caller's images
            continue
        return batches, result, bool(drew)
    return None


@contextmanager
def _watched_random_numbers() -> Iterator[list[str]]:
    """Context manager that leaves the processes' random numbers as they were and lists the generators that moved."""
    drew: list[str] = []
    of_numpy, of_python = np.random.get_state(), random.getstate()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=devices):
        before = [torch.get_rng_state(), *map(torch.cuda.get_rng_state, devices)]
        yield drew
        after = [torch.get_rng_state(), *map(torch.cuda.get_rng_state, devices)]
    if any(not torch.equal(a, b) for a, b in zip(before, after, strict=True)):
        drew.append("torch")
    if str(np.random.get_state()) != str(of_numpy):
        drew.append("numpy")
        np.random.set_state(of_numpy)
    if random.getstate() != of_python:
        drew.append("random")
        random.setstate(of_python)


def _can_be_probed(xs: Inputs) -> bool:
    return bool(xs) and all(x.ndim > 0 and len(x) > 0 for x in xs) and any(torch.is_floating_point(x) for x in xs)


def _kind(x: Any) -> Any:
    """What of an argument the model may go another way for."""
    if not isinstance(x, Tensor):
        return x if isinstance(x, int | float | str | bool | None) else id(x)
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


_KNOWN: WeakKeyDictionary[Any, _Known] = WeakKeyDictionary()
_LOCK = threading.Lock()


@contextmanager
def _knowledge(forward_func: Callable[..., Any], layers: Sequence[nn.Module] = ()) -> Iterator[dict[Any, Any]]:
    """Context manager with what was established about a model as it is now, to read and to add to."""
    anchor, state = anchor_of(forward_func), entries(forward_func, layers)
    known = _look_up(anchor)
    if known is not None and known.is_of(state):
        yield known.established
        return
    known = _Known(state)
    yield known.established
    after = entries(forward_func, layers)
    known.volatile = {key for key in state.keys() | after.keys() if state.get(key) != after.get(key)}
    with _LOCK, suppress(TypeError):  # a callable without weak references: nothing is kept about it
        _KNOWN[anchor] = known


def _look_up(anchor: Any) -> _Known | None:
    with _LOCK:
        try:
            return _KNOWN.get(anchor)
        except TypeError:
            return None
